//! What the library adds to a bare connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd};
use tokenpool::{AllocationStatus, AllocationToken, ResourceManager, ResourceNamespace};

use crate::Scale;
use crate::calls::Token;
use crate::report::{Bound, Figure, Report, median};
use crate::stage::{AMPLE, Stage, caps};

pub(crate) const FIGURE: Figure = Figure {
    name: "client",
    how: "a multi-threaded runtime on all cores but the server's. Throughput: 256 tasks, \
          each claiming and releasing its own token over and over, through a ResourceManager or by \
          sending the same two EVALSHA, built beforehand, on one bare MultiplexedConnection without \
          time-outs; both for a second in turn, 9 times, median of the ratios. In one pool the \
          library has calls go together; a pool for each task shows what it adds where they cannot. \
          Latency: one task takes the time of a PING and of an EVALSHA on the bare connection and of \
          a claim through the library in turn, 20 000 times. Then 8 tasks claim and release in one \
          pool, through the library or by EVALSHA, for 250 ms in turn, 16 times; the median of the \
          claims' medians.",
    run,
};

const TASKS: u64 = 256;
const FEW: u64 = 8;

fn run(scale: Scale, report: &mut Report) {
    let own: Vec<_> = (0..TASKS).map(|n| format!("pool-{n}")).collect();
    let pools: Vec<_> = ["default"].into_iter().chain(own.iter().map(String::as_str)).collect();
    let mut stage = Stage::start(&pools.iter().map(|pool| (*pool, AMPLE)).collect::<Vec<_>>());
    let bare = stage.runtime.block_on(bare_connection(&stage));
    let one = vec![pools[0]; TASKS as usize];
    let row = "throughput of 256 tasks / bare connection";
    throughput(scale, &mut stage, &bare, &one, row, report);
    let row = "the same, each in a pool of its own";
    throughput(scale, &mut stage, &bare, &pools[1..], row, report);
    latency(scale, &mut stage, bare.clone(), report);
    latency_of_few(scale, &mut stage, &bare, report);
}

pub(crate) async fn bare_connection(stage: &Stage) -> MultiplexedConnection {
    let client = redis::Client::open(stage.server.url()).expect("the address is good");
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    let connection = client.get_multiplexed_async_connection_with_config(&config).await;
    connection.expect("the server accepts connections")
}

/// Of tasks, each in one of these pools.
fn throughput(
    scale: Scale,
    stage: &mut Stage,
    bare: &MultiplexedConnection,
    pools: &[&str],
    row: &str,
    report: &mut Report,
) {
    let calls: Vec<_> = pools.iter().map(|pool| stage.calls(pool)).collect();
    let time = scale.pick(Duration::from_secs(1), Duration::from_millis(100));
    let (mut ratios, mut rates) = (Vec::new(), [Vec::new(), Vec::new()]);
    for _ in 0..scale.pick(9, 2) {
        let by_library = pairs_per_second(stage, time, |n| {
            let token = Token::nth(n);
            let view = Arc::new(stage.view(&token));
            let (namespace, token) = names(pools[n as usize], &token);
            move || {
                let (view, namespace, token) =
                    (Arc::clone(&view), namespace.clone(), token.clone());
                async move { pair(&*view, &namespace, &token).await }
            }
        });
        let by_bare = pairs_per_second(stage, time, |n| {
            let token = Token::nth(n);
            let calls = &calls[n as usize];
            let pair = Arc::new((calls.allocate(&token), calls.release(&token)));
            let connection = bare.clone();
            move || {
                let (pair, mut connection) = (Arc::clone(&pair), connection.clone());
                async move {
                    for cmd in [&pair.0, &pair.1] {
                        let reply = connection.send_packed_command(cmd).await;
                        drop(reply.expect("the server answers"));
                    }
                }
            }
        });
        ratios.push(by_library / by_bare);
        rates[0].push(2.0 * by_library);
        rates[1].push(2.0 * by_bare);
    }
    let [library, bare] = rates.map(median);
    let note = format!("{library:.0} / {bare:.0} calls a second");
    report.row(row, median(ratios), Bound::AtLeast(0.8), &note);
}

fn names(pool: &str, token: &Token) -> (ResourceNamespace, AllocationToken) {
    let namespace = pool.parse().expect("the pool's name is good");
    (namespace, token.token.parse().expect("the token is good"))
}

async fn pair(view: &dyn ResourceManager, namespace: &ResourceNamespace, token: &AllocationToken) {
    claim(view, namespace, token).await;
    release(view, namespace, token).await;
}

async fn claim(view: &dyn ResourceManager, namespace: &ResourceNamespace, token: &AllocationToken) {
    let status = view.allocate_resource(namespace, token, caps()).await;
    assert_eq!(status.expect("the library can claim"), AllocationStatus::Granted);
}

async fn release(
    view: &dyn ResourceManager,
    namespace: &ResourceNamespace,
    token: &AllocationToken,
) {
    view.release_resource(namespace, token).await.expect("the library can release");
}

/// Runs a task of `make`'s making in each of 256 tasks, over and over.
fn pairs_per_second<M, F>(stage: &Stage, time: Duration, make: impl Fn(u64) -> M) -> f64
where
    M: Fn() -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send,
{
    let (done, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let started = Instant::now();
    let tasks: Vec<_> = (0..TASKS)
        .map(|n| {
            let (done, stop, pair) = (Arc::clone(&done), Arc::clone(&stop), make(n));
            stage.runtime.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    pair().await;
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    std::thread::sleep(time);
    let rate = done.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        stage.runtime.block_on(task).expect("no task fails");
    }
    rate
}

fn latency(scale: Scale, stage: &mut Stage, bare: MultiplexedConnection, report: &mut Report) {
    let calls = stage.calls("default");
    let token = Token::nth(0);
    let (evalsha, release) = (calls.allocate(&token), calls.release(&token));
    let view = stage.view(&token);
    let (namespace, token) = names("default", &token);
    let rounds = scale.pick(20_000, 200);
    // In a task, as users' code is: `block_on` wakes up more slowly.
    let task = stage.runtime.spawn(async move {
        let ping = redis::cmd("PING");
        let send = async |cmd: &Cmd| {
            let reply = bare.clone().send_packed_command(cmd).await;
            drop(reply.expect("the server answers"));
        };
        let mut times = [Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..rounds {
            times[0].push(time(send(&ping)).await);
            times[1].push(time(send(&evalsha)).await);
            send(&release).await;
            times[2].push(time(claim(&view, &namespace, &token)).await);
            send(&release).await;
        }
        times.map(median)
    });
    let [ping, evalsha, claim] = stage.runtime.block_on(task).expect("the task does not fail");
    let note = format!("{claim:.1} / {ping:.1} µs; EVALSHA on the bare connection {evalsha:.1} µs");
    report.row("p50 of a claim / of a PING", claim / ping, Bound::AtMost(1.3), &note);
}

/// Of claims of a few tasks in one pool, who are too few to go together often.
fn latency_of_few(
    scale: Scale,
    stage: &mut Stage,
    bare: &MultiplexedConnection,
    report: &mut Report,
) {
    let calls = stage.calls("default");
    let length = scale.pick(Duration::from_millis(250), Duration::from_millis(50));
    let mut medians = [Vec::new(), Vec::new()];
    for _ in 0..scale.pick(16, 2) {
        medians[0].push(median_claim(stage, length, |n| {
            let token = Token::nth(n);
            let view = Arc::new(stage.view(&token));
            let (namespace, token) = names("default", &token);
            move |is_claim| {
                let (view, namespace, token) =
                    (Arc::clone(&view), namespace.clone(), token.clone());
                async move {
                    match is_claim {
                        true => claim(&*view, &namespace, &token).await,
                        false => release(&*view, &namespace, &token).await,
                    }
                }
            }
        }));
        medians[1].push(median_claim(stage, length, |n| {
            let token = Token::nth(n);
            let pair = Arc::new([calls.release(&token), calls.allocate(&token)]);
            let connection = bare.clone();
            move |is_claim| {
                let (pair, mut connection) = (Arc::clone(&pair), connection.clone());
                async move {
                    let reply = connection.send_packed_command(&pair[usize::from(is_claim)]).await;
                    drop(reply.expect("the server answers"));
                }
            }
        }));
    }
    let [claim, evalsha] = medians.map(median);
    let note = format!("{claim:.1} / {evalsha:.1} µs");
    let row = "p50 of a claim / of an EVALSHA, among 8 tasks";
    report.row(row, claim / evalsha, Bound::AtMost(1.3), &note);
}

/// What a claim takes each of a few tasks that claim and release by what `make` makes, in microseconds.
fn median_claim<M, F>(stage: &Stage, length: Duration, make: impl Fn(u64) -> M) -> f64
where
    M: Fn(bool) -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send,
{
    let tasks = (0..FEW).map(|n| {
        let call = make(n);
        stage.runtime.spawn(async move {
            let (started, mut times) = (Instant::now(), Vec::new());
            while started.elapsed() < length {
                times.push(time(call(true)).await);
                call(false).await;
            }
            times
        })
    });
    let tasks: Vec<_> = tasks.collect();
    let times = tasks.into_iter().map(|task| stage.runtime.block_on(task));
    median(times.flat_map(|times| times.expect("no task fails")).collect())
}

/// Microseconds until it is done.
pub(crate) async fn time(what: impl Future<Output = ()>) -> f64 {
    let started = Instant::now();
    what.await;
    started.elapsed().as_secs_f64() * 1e6
}
