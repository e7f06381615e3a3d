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
          time-outs; both for a second in turn, 9 times, median of the ratios. Latency: one task \
          takes the time of a PING and of an EVALSHA on the bare connection and of a claim through \
          the library in turn, 20 000 times.",
    run,
};

const TASKS: u64 = 256;

fn run(scale: Scale, report: &mut Report) {
    let mut stage = Stage::start(&[("default", AMPLE)]);
    let bare = stage.runtime.block_on(bare_connection(&stage));
    throughput(scale, &mut stage, &bare, report);
    latency(scale, &mut stage, bare, report);
}

pub(crate) async fn bare_connection(stage: &Stage) -> MultiplexedConnection {
    let client = redis::Client::open(stage.server.url()).expect("the address is good");
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    let connection = client.get_multiplexed_async_connection_with_config(&config).await;
    connection.expect("the server accepts connections")
}

fn throughput(scale: Scale, stage: &mut Stage, bare: &MultiplexedConnection, report: &mut Report) {
    let calls = stage.calls("default");
    let time = scale.pick(Duration::from_secs(1), Duration::from_millis(100));
    let (mut ratios, mut rates) = (Vec::new(), [Vec::new(), Vec::new()]);
    for _ in 0..scale.pick(9, 2) {
        let by_library = pairs_per_second(stage, time, |n| {
            let token = Token::nth(n);
            let view = Arc::new(stage.view(&token));
            let (namespace, token) = names(&token);
            move || {
                let (view, namespace, token) =
                    (Arc::clone(&view), namespace.clone(), token.clone());
                async move { pair(&*view, &namespace, &token).await }
            }
        });
        let by_bare = pairs_per_second(stage, time, |n| {
            let token = Token::nth(n);
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
    report.row(
        "throughput of 256 tasks / bare connection",
        median(ratios),
        Bound::AtLeast(0.8),
        &note,
    );
}

fn names(token: &Token) -> (ResourceNamespace, AllocationToken) {
    let namespace = "default".parse().expect("the pool's name is good");
    (namespace, token.token.parse().expect("the token is good"))
}

async fn pair(view: &dyn ResourceManager, namespace: &ResourceNamespace, token: &AllocationToken) {
    let status = view.allocate_resource(namespace, token, caps()).await;
    assert_eq!(status.expect("the library can claim"), AllocationStatus::Granted);
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
    let (namespace, token) = names(&token);
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
            let claim = async {
                let status = view.allocate_resource(&namespace, &token, caps()).await;
                assert_eq!(status.expect("the library can claim"), AllocationStatus::Granted);
            };
            times[2].push(time(claim).await);
            send(&release).await;
        }
        times.map(median)
    });
    let [ping, evalsha, claim] = stage.runtime.block_on(task).expect("the task does not fail");
    let note = format!("{claim:.1} / {ping:.1} µs; EVALSHA on the bare connection {evalsha:.1} µs");
    report.row("p50 of a claim / of a PING", claim / ping, Bound::AtMost(1.3), &note);
}

/// Microseconds until it is done.
pub(crate) async fn time(what: impl Future<Output = ()>) -> f64 {
    let started = Instant::now();
    what.await;
    started.elapsed().as_secs_f64() * 1e6
}
