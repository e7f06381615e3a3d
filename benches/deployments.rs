//! What servers that are down, elsewhere, several or encrypted cost.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redis::InfoDict;
use tokenpool::{
    AllocationStatus, Config, Manager, Registrar, ResourceManager as _, ResourceRegistrar,
};
use tokio::runtime::Runtime;

use crate::Scale;
use crate::calls::{PLUGIN, Token};
use crate::client::time;
use crate::cluster::Cluster;
use crate::cores;
use crate::report::{Bound, Figure, Report, median, percentile};
use crate::sentinels::{self, Sentinels};
use crate::server::Server;
use crate::stage::{AMPLE, caps};
use crate::tls::{Clients, Tls, is_supported};

pub(crate) const FIGURE: Figure = Figure {
    name: "deployments",
    how: "the servers on the same core as the client, unless told otherwise. Down: 40 calls, with `maxRetries` 100 \
          and `totalTimeout` 500 ms, to a server that is stopped by a signal, the longest; then, once calls fail at \
          once, 10 000 of them. Failover: a primary is killed, behind 3 sentinels (down-after 1 s) or with one \
          replica in a cluster (node time-out 1 s); claims are tried every 5 ms until one is answered, against the \
          time until the sentinels, or the other nodes, name another primary; the worst of 3. Cluster: 256 tasks \
          claim and release in 24 pools, so that about ten calls go together, or 24 tasks in a pool each, so that none \
          do, over one backend on 3 primaries, against one backend for each of 3 servers that are a \
          cluster of their own, which tells what the client costs, and against one for each of 3 that are none, \
          where Redis' own price of a cluster comes to it: it hashes each key of a call and of each command in its \
          script. All on all cores, for 250 ms in turn, 16 times on each of 8 sets of servers, median of the ratios, ± the \
          standard error that the sets' own medians give; beside them the processor time of client and servers for a \
          call. TLS: one task claims over TLS from one server and in plain text from another in turn, 20 000 times.",
    run,
};

fn run(scale: Scale, report: &mut Report) {
    let runtime = Runtime::new().expect("a runtime can be made");
    runtime.block_on(down(scale, report));
    for round in ["Sentinel", "Cluster"] {
        let mut worst = (0.0, String::new());
        for _ in 0..scale.pick(3, 1) {
            let (servers, client) = runtime.block_on(async {
                match round {
                    "Sentinel" => sentinel_failover().await,
                    _ => cluster_failover().await,
                }
            });
            let ratio = client.as_secs_f64() / servers.as_secs_f64();
            if ratio > worst.0 {
                worst = (
                    ratio,
                    format!("{:.2} / {:.2} s", client.as_secs_f64(), servers.as_secs_f64()),
                );
            }
        }
        let what = format!("{round}: until calls succeed / until another primary is named");
        report.row(what, worst.0, Bound::AtMost(1.5), &worst.1);
    }
    cores::shared(|| shards(scale, report));
    encrypted(scale, &runtime, report);
}

/// A library on a deployment, with one pool of many units for each name.
struct User {
    manager: Manager,
}

impl User {
    async fn open(keys: &str, pools: &[String]) -> Self {
        let config =
            Config::from_yaml(&format!("type: redis\nredis: {{{keys}, learningPeriod: 0s}}"));
        let backend = config.expect("the keys are good").open().await.expect("it opens");
        let registrar = Registrar::with_max_quota(backend, u32::MAX);
        let plugin = registrar.for_plugin(PLUGIN.parse().expect("the id is good"));
        for pool in pools {
            let namespace = pool.parse().expect("the name is good");
            plugin.register_resource_quota(&namespace, AMPLE).expect("it can be registered");
        }
        Self { manager: registrar.build().await.expect("the pools can be made") }
    }

    /// Claims and releases, if it is answered.
    async fn pair(&self, pool: &str, token: &Token) -> tokenpool::Result<()> {
        let plugin = PLUGIN.parse().expect("the id is good");
        let view = self.manager.for_execution(plugin, token.execution());
        let (namespace, token) = (pool.parse()?, token.token.parse()?);
        let status = view.allocate_resource(&namespace, &token, caps()).await?;
        assert_eq!(status, AllocationStatus::Granted);
        view.release_resource(&namespace, &token).await
    }
}

fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}-{number}")).collect()
}

async fn down(scale: Scale, report: &mut Report) {
    const TOTAL: Duration = Duration::from_millis(500);
    let server = Server::start_on_tcp(&[]);
    let limits = "commandTimeout: 100ms, connectTimeout: 100ms, totalTimeout: 500ms";
    let address = format!("url: \"{}\"", server.url());
    let pools = names("pool", 1);
    let retrying = User::open(&format!("{address}, {limits}, maxRetries: 100"), &pools).await;
    let plain = User::open(&format!("{address}, {limits}"), &pools).await;
    let token = Token::nth(0);
    server.signal("STOP");
    let mut longest = Duration::ZERO;
    for _ in 0..scale.pick(40, 3) {
        let start = Instant::now();
        retrying.pair(&pools[0], &token).await.expect_err("the server is down");
        longest = longest.max(start.elapsed());
    }
    let note = format!("{:.0} / {:.0} ms", millis(longest), millis(TOTAL));
    let ratio = longest.as_secs_f64() / TOTAL.as_secs_f64();
    report.row(
        "longest call while the server is down / total time-out",
        ratio,
        Bound::AtMost(1.05),
        &note,
    );
    while {
        let start = Instant::now();
        plain.pair(&pools[0], &token).await.expect_err("the server is down");
        start.elapsed() > Duration::from_millis(5)
    } {}
    let mut times = Vec::new();
    for _ in 0..scale.pick(10_000, 100) {
        times.push(
            time(async {
                plain.pair(&pools[0], &token).await.expect_err("the server is down");
            })
            .await,
        );
    }
    let longest = times.iter().copied().fold(0.0, f64::max);
    let p50 = median(times.clone());
    let note = format!("µs; p50 {p50:.1}, longest {longest:.0}");
    report.row(
        "p99 of a call with the circuit broken",
        percentile(times, 0.99),
        Bound::AtMost(100.0),
        &note,
    );
    server.signal("CONT");
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// How long the servers and how long the client took after a primary was killed.
async fn sentinel_failover() -> (Duration, Duration) {
    let options =
        sentinels::Options { down_after: Duration::from_secs(1), ..sentinels::Options::default() };
    let mut sentinels = Sentinels::start(&options).await;
    let hosts = quoted(&sentinels.host_paths());
    let keys = format!("hostPaths: [{hosts}], primaryName: {}", sentinels.name());
    let pools = names("pool", 1);
    let user = User::open(&keys, &pools).await;
    let old = sentinels.kill_primary().await;
    let (start, is_named) = (Instant::now(), Cell::new(false));
    let named = async {
        sentinels.until_primary_is_not(&old).await;
        is_named.set(true);
        start.elapsed()
    };
    tokio::join!(named, until_answered(&user, &pools[0], start, &is_named))
}

async fn cluster_failover() -> (Duration, Duration) {
    let mut cluster = Cluster::start(3, 1).await;
    let keys = format!("hostPaths: [{}]", quoted(&cluster.host_paths()));
    let pools = names("pool", 1);
    let user = User::open(&keys, &pools).await;
    let slot = cluster.slot(&format!("redisresourcemanager:{PLUGIN}:{}", pools[0]));
    let owner = cluster.owner_of_slot(slot).await;
    let other = cluster.nodes().find(|&node| node != owner).expect("there are others");
    cluster.kill(owner);
    let (start, is_named) = (Instant::now(), Cell::new(false));
    let named = async {
        let mut raw = cluster.raw(other);
        crate::until("another node has the slot and all is well", async || {
            let nodes: String = redis::cmd("CLUSTER").arg("NODES").query(&mut raw).ok()?;
            // Failed for all, and not only suspected.
            let failed = |line: &str| line.split(' ').nth(2) == Some("master,fail");
            nodes.lines().any(failed).then_some(())?;
            // Asked for behind that: all was well before, too.
            let info: String = redis::cmd("CLUSTER").arg("INFO").query(&mut raw).ok()?;
            info.contains("cluster_state:ok").then_some(())
        })
        .await;
        is_named.set(true);
        start.elapsed()
    };
    tokio::join!(named, until_answered(&user, &pools[0], start, &is_named))
}

/// The first answers may still be those of before: what counts comes behind an error, or after another primary was named.
async fn until_answered(
    user: &User,
    pool: &str,
    start: Instant,
    is_named: &Cell<bool>,
) -> Duration {
    let (token, mut failed) = (Token::nth(0), false);
    loop {
        let counts = failed || is_named.get();
        match user.pair(pool, &token).await {
            Ok(()) if counts => return start.elapsed(),
            Ok(()) => {}
            Err(_) => {
                failed = true;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
}

fn quoted(addresses: &[String]) -> String {
    addresses.iter().map(|address| format!("\"{address}\"")).collect::<Vec<_>>().join(", ")
}

/// Three servers, and who uses each.
struct Trio {
    users: [Arc<User>; 3],
    admins: [redis::Connection; 3],
}

/// What was done in a while.
struct Pace {
    calls_a_second: f64,
    /// Processor time of a call, in microseconds.
    of_client: f64,
    of_servers: f64,
}

impl Trio {
    async fn open(
        urls: [String; 3],
        admins: [redis::Connection; 3],
        pools: &[Vec<String>; 3],
    ) -> Self {
        let mut users = Vec::new();
        for (url, pools) in urls.iter().zip(pools) {
            users.push(Arc::new(User::open(&format!("url: \"{url}\""), pools).await));
        }
        let Ok(users) = users.try_into() else { unreachable!("there are three") };
        Self { users, admins }
    }

    /// Claims and releases for so long, each shard's pools on its own server.
    fn pace(
        &mut self,
        runtime: &Runtime,
        pools: &[Vec<String>; 3],
        tasks: usize,
        time: Duration,
    ) -> Pace {
        let (done, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (started, of_client, of_servers) = (Instant::now(), used(), self.used_by_servers());
        let tasks: Vec<_> = (0..tasks)
            .map(|n| {
                let (user, pools) = (Arc::clone(&self.users[n % 3]), &pools[n % 3]);
                let pool = pools[(n / 3) % pools.len()].clone();
                let (done, stop) = (Arc::clone(&done), Arc::clone(&stop));
                runtime.spawn(async move {
                    let token = Token::nth(n as u64);
                    while !stop.load(Ordering::Relaxed) {
                        user.pair(&pool, &token).await.expect("the servers answer");
                        done.fetch_add(2, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        std::thread::sleep(time);
        stop.store(true, Ordering::Relaxed);
        for task in tasks {
            runtime.block_on(task).expect("no task fails");
        }
        let calls = done.load(Ordering::Relaxed) as f64;
        let of_each = |used: Duration| used.as_secs_f64() * 1e6 / calls;
        Pace {
            calls_a_second: calls / started.elapsed().as_secs_f64(),
            of_client: of_each(used() - of_client),
            of_servers: of_each(self.used_by_servers() - of_servers),
        }
    }

    fn used_by_servers(&mut self) -> Duration {
        let used = |admin: &mut redis::Connection| {
            let cpu: InfoDict = redis::cmd("INFO").arg("cpu").query(admin).expect("it tells");
            let seconds = |kind| cpu.get::<f64>(kind).expect("it tells its processor time");
            Duration::from_secs_f64(seconds("used_cpu_user") + seconds("used_cpu_sys"))
        };
        self.admins.iter_mut().map(used).sum()
    }
}

/// Processor time of this process.
fn used() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// With which other deployment a cluster is compared.
#[derive(Clone, Copy)]
enum Other {
    ClustersOfOne,
    /// What Redis itself takes for cluster mode counts, too.
    SingleServers,
}

/// Pools on each shard.
const POOLS: usize = 8;

/// With what a cluster is compared, by so many tasks.
const COMPARED: [(&str, Other, usize, Bound); 3] = [
    ("3 shards / 3 clusters of one", Other::ClustersOfOne, 256, Bound::AtLeast(0.9)),
    ("3 shards / 3 single servers", Other::SingleServers, 256, Bound::AtLeast(0.9)),
    ("the same, a pool for each task", Other::SingleServers, 3 * POOLS, Bound::None),
];

/// What a cluster and the other did in turn, of each comparison.
type Paces = [Vec<[Pace; 2]>; COMPARED.len()];

/// One client of a cluster against a client for each of as many servers.
fn shards(scale: Scale, report: &mut Report) {
    let runtime = &Runtime::new().expect("a runtime can be made");
    // Each start has its own luck with memory.
    let starts: Vec<Paces> =
        (0..scale.pick(8, 2)).map(|_| paces_of_shards(scale, runtime)).collect();
    let ratio = |[one, other]: &[Pace; 2]| one.calls_a_second / other.calls_a_second;
    for (at, (name, _, _, bound)) in COMPARED.into_iter().enumerate() {
        let all = || starts.iter().flat_map(|paces| &paces[at]);
        let both = |of: fn(&Pace) -> f64, digits: usize| {
            let [one, other] =
                [0, 1].map(|side: usize| median(all().map(|pair| of(&pair[side])).collect()));
            format!("{one:.digits$} / {other:.digits$}")
        };
        let of_starts = starts.iter().map(|paces| median(paces[at].iter().map(ratio).collect()));
        let error = standard_error(&of_starts.collect::<Vec<_>>());
        let rates = both(|pace| pace.calls_a_second, 0);
        let (client, servers) = (both(|pace| pace.of_client, 1), both(|pace| pace.of_servers, 1));
        let note = format!(
            "± {error:.3}; {rates} calls a second; client {client}, servers {servers} µs a call"
        );
        let ratio = median(all().map(ratio).collect());
        report.row(name, ratio, bound, &note);
    }
}

/// Standard error of the mean.
fn standard_error(values: &[f64]) -> f64 {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0);
    (variance / count).sqrt()
}

/// Starts servers anew, and measures them in turn.
fn paces_of_shards(scale: Scale, runtime: &Runtime) -> Paces {
    let cluster = runtime.block_on(Cluster::start(3, 0));
    let alone = [(); 3].map(|()| runtime.block_on(Cluster::start(1, 0)));
    let servers = [(); 3].map(|()| Server::start_on_tcp(&[]));
    // As many pools on each shard as on each server.
    let owner = |pool: &String| {
        let slot = cluster.slot(&format!("redisresourcemanager:{PLUGIN}:{pool}"));
        runtime.block_on(cluster.owner_of_slot(slot))
    };
    let mut pools: [Vec<String>; 3] = Default::default();
    for pool in names("pool", 200) {
        let shard = &mut pools[owner(&pool)];
        if shard.len() < POOLS {
            shard.push(pool);
        }
    }
    let keys = format!("hostPaths: [{}]", quoted(&cluster.host_paths()));
    let user = Arc::new(runtime.block_on(User::open(&keys, &pools.concat())));
    let users = [(); 3].map(|()| Arc::clone(&user));
    let mut of_cluster = Trio { users, admins: [0, 1, 2].map(|node| cluster.raw(node)) };
    let urls = alone.each_ref().map(|alone| format!("redis://{}", alone.host_paths()[0]));
    let admins = alone.each_ref().map(|alone| alone.raw(0));
    let mut of_alone = runtime.block_on(Trio::open(urls, admins, &pools));
    let (urls, admins) = (servers.each_ref().map(Server::url), servers.each_ref().map(Server::raw));
    let mut of_servers = runtime.block_on(Trio::open(urls, admins, &pools));
    let mut paces = Paces::default();
    let time = scale.pick(Duration::from_millis(250), Duration::from_millis(100));
    for round in 0..scale.pick(16, 1) {
        for ((_, other, tasks, _), paces) in COMPARED.into_iter().zip(&mut paces) {
            let other = match other {
                Other::ClustersOfOne => &mut of_alone,
                Other::SingleServers => &mut of_servers,
            };
            let pace = |trio: &mut Trio| trio.pace(runtime, &pools, tasks, time);
            // Each comes first as often as the other.
            let pair = if round % 2 == 0 {
                [pace(&mut of_cluster), pace(other)]
            } else {
                let other = pace(other);
                [pace(&mut of_cluster), other]
            };
            paces.push(pair);
        }
    }
    paces
}

fn encrypted(scale: Scale, runtime: &Runtime, report: &mut Report) {
    if !is_supported() {
        eprintln!("this server was built without TLS, which is not measured");
        return;
    }
    let tls = Tls::new();
    let server = Server::start_on_tls(tls.server_arguments(Clients::Anyone));
    let pools = names("pool", 1);
    let ca = tls.authority();
    let keys = format!(
        "url: \"rediss://127.0.0.1:{}\", tlsCaFile: {}",
        server.port.unwrap_or_default(),
        ca.display()
    );
    let secret = runtime.block_on(User::open(&keys, &pools));
    let other = Server::start_on_tcp(&[]);
    let plain = runtime.block_on(User::open(&format!("url: \"{}\"", other.url()), &pools));
    let rounds = scale.pick(20_000, 200);
    let task = runtime.spawn(async move {
        let token = Token::nth(0);
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..rounds {
            for (user, times) in [&secret, &plain].into_iter().zip(&mut times) {
                let pair =
                    async { user.pair(&pools[0], &token).await.expect("the server answers") };
                times.push(time(pair).await / 2.0);
            }
        }
        times.map(median)
    });
    let [secret, plain] = runtime.block_on(task).expect("the task does not fail");
    let note = format!("{secret:.1} / {plain:.1} µs");
    report.row("p50 of a call over TLS / in plain text", secret / plain, Bound::AtMost(1.3), &note);
}
