use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokenpool::{Backend, Config};
use tokio::time::sleep;

use crate::cluster::{Cluster, Options as OfCluster};
use crate::events::{Event, Log, now};
use crate::plan;
use crate::proxy::Proxy;
use crate::rng::Rng;
use crate::sentinels::{Options as OfSentinels, Sentinels};
use crate::server::Server;
use crate::until;

/// Every call ends within the last.
const TIMEOUTS: &str = "connectTimeout: 1s, commandTimeout: 1s, totalTimeout: 3s";
/// Longer than any lease.
pub(crate) const LEARNING: Duration = Duration::from_secs(4);
/// How long the network parts: less or more than any call takes.
const PARTED: (u64, u64) = (200, 9_000);
/// How long it is slow.
const SLOW: (u64, u64) = (200, 3_500);
/// How much later everything arrives then, each way.
const LATER: (u64, u64) = (5, 150);
/// How long replicas have been without their primary when it dies.
const AHEAD: (u64, u64) = (50, 400);
/// After how long a server is there again that another one has replaced.
const RESTARTED: (u64, u64) = (0, 1_000);
/// A node that was elected twice within so long may believe alone that it was; see `Cluster`.
const ELECTED: Duration = Duration::from_millis(2_500);

/// How servers are deployed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One server that loses nothing, behind a network that fails.
    Single,
    /// A primary with two replicas and three sentinels, as they come.
    Sentinels,
    /// The same servers for clients that keep a failover from granting anything on top.
    Protected,
    /// Three shards of two nodes, as they come.
    Cluster,
}

/// What befalls servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    FlushScripts,
    CutConnections,
    CutListeners,
    /// It is killed and comes back with what it had.
    Restart,
    /// Some workers do not reach the server; what was on its way is lost.
    PartNetwork,
    /// Everything takes longer.
    SlowNetwork,
    /// A primary is killed, and comes back as a replica.
    KillPrimary,
    /// The same when its replicas lack what it granted last.
    KillPrimaryAhead,
    /// A primary is stopped until another has its place, and goes on.
    StopPrimary,
    /// Somebody orders a failover.
    Failover,
    /// A pool's slot goes to another shard.
    MoveSlot,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] =
        [Self::Single, Self::Sentinels, Self::Protected, Self::Cluster];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::Sentinels => "sentinels",
            Self::Protected => "protected",
            Self::Cluster => "cluster",
        }
    }

    pub(crate) fn faults(self) -> &'static [Fault] {
        use Fault::{
            CutConnections, CutListeners, Failover, FlushScripts, KillPrimary, KillPrimaryAhead,
            MoveSlot, PartNetwork, Restart, SlowNetwork, StopPrimary,
        };
        match self {
            Self::Single => {
                &[FlushScripts, CutConnections, CutListeners, Restart, PartNetwork, SlowNetwork]
            }
            Self::Sentinels | Self::Protected => &[
                FlushScripts,
                CutConnections,
                CutListeners,
                KillPrimary,
                KillPrimaryAhead,
                StopPrimary,
                Failover,
            ],
            Self::Cluster => &[
                FlushScripts,
                CutConnections,
                CutListeners,
                KillPrimary,
                KillPrimaryAhead,
                StopPrimary,
                Failover,
                MoveSlot,
            ],
        }
    }

    /// How long nothing befalls the servers, in milliseconds.
    pub(crate) fn peace(self) -> (u64, u64) {
        match self {
            // Now and then long enough for pools to have learnt.
            Self::Protected => (200, 7000),
            _ => (200, 900),
        }
    }

    /// What the configuration says beside addresses.
    fn keys(self) -> String {
        match self {
            Self::Protected => format!(
                "{TIMEOUTS}, minReplicas: 1, acknowledgeTimeout: 500ms, learningPeriod: {}ms",
                LEARNING.as_millis()
            ),
            _ => format!("{TIMEOUTS}, learningPeriod: 0s"),
        }
    }
}

#[derive(Debug)]
enum Servers {
    /// With a way to it for each worker.
    Single(Server, Vec<Proxy>),
    Sentinels(Sentinels),
    Cluster(Cluster),
}

/// Servers that are running.
#[derive(Debug)]
pub(crate) struct Topology {
    kind: Kind,
    servers: Servers,
    log: Log,
    /// Who decides about each pool, and when that was seen last.
    reigns: BTreeMap<String, (String, u64)>,
    /// How often that changed though nobody had struck.
    unasked: u64,
}

impl Topology {
    pub(crate) async fn start(kind: Kind, workers: usize, log: Log) -> Self {
        let servers = Servers::start(kind, workers).await;
        let mut reigns = BTreeMap::new();
        for pool in plan::pools() {
            let pool = pool.to_string();
            let owner = servers.owner(&pool).await;
            reigns.insert(pool, (owner, now()));
        }
        Self { kind, servers, log, reigns, unasked: 0 }
    }

    /// What a worker is configured with, each with its own way to the servers.
    pub(crate) fn configuration(&self, worker: usize) -> String {
        self.configured(|_, ways| ways[worker].address())
    }

    /// A backend past all that fails but the servers.
    pub(crate) async fn open(&self) -> tokenpool::Result<Arc<dyn Backend>> {
        Config::from_yaml(&self.configured(|server, _| server.address()))?.open().await
    }

    fn configured(&self, way: impl FnOnce(&Server, &[Proxy]) -> String) -> String {
        let servers = match &self.servers {
            Servers::Single(server, ways) => format!("url: \"redis://{}\"", way(server, ways)),
            Servers::Sentinels(sentinels) => {
                let hosts = sentinels.host_paths().join(", ");
                format!("hostPaths: [{hosts}], primaryName: {}", sentinels.name())
            }
            Servers::Cluster(cluster) => {
                format!("hostPaths: [{}], cluster: true", cluster.host_paths().join(", "))
            }
        };
        format!("type: redis\nredis: {{{servers}, {}}}", self.kind.keys())
    }

    /// How often another server took over though nobody had struck.
    pub(crate) fn unasked(&self) -> u64 {
        self.unasked
    }

    /// Waits until all servers are as they should be, and looks whether the same decide as before.
    pub(crate) async fn settle(&mut self) {
        self.servers.until_whole().await;
        let (mut moved, mut since) = (Vec::new(), now());
        for (pool, (before, seen)) in &mut self.reigns {
            let owner = self.servers.owner(pool).await;
            if owner != *before {
                moved.push(pool.clone());
                since = since.min(*seen);
            }
            (*before, *seen) = (owner, now());
        }
        if !moved.is_empty() {
            self.unasked += 1;
            doubt_who(&self.log, since, &moved);
        }
    }

    /// Has something befall the servers.
    pub(crate) async fn befall(&mut self, fault: Fault, rng: &mut Rng) {
        self.settle().await;
        self.log.note(&format!("{fault:?}"));
        match (fault, &mut self.servers) {
            (Fault::FlushScripts, servers) => servers.tell_all(&|server| {
                redis::cmd("SCRIPT").arg("FLUSH").exec(server).expect("the server obeys");
            }),
            (Fault::CutConnections, servers) => servers.tell_all(&|server| cut(server, "normal")),
            (Fault::CutListeners, servers) => servers.tell_all(&|server| cut(server, "pubsub")),
            (Fault::Restart, Servers::Single(server, _)) => server.restart(),
            (Fault::PartNetwork, Servers::Single(_, ways)) => part(ways, rng).await,
            (Fault::SlowNetwork, Servers::Single(_, ways)) => delay(ways, rng).await,
            _ => self.depose(fault, rng).await,
        }
    }

    /// Has another server decide about a pool, and all others of the same server.
    async fn depose(&mut self, fault: Fault, rng: &mut Rng) {
        let names: Vec<_> = self.reigns.keys().cloned().collect();
        let pool = rng.pick(&names);
        let (victim, _) = self.reigns[pool].clone();
        let of_victim = |(name, (owner, _)): (&String, &(String, u64))| {
            (*owner == victim).then(|| name.clone())
        };
        let mut pools: Vec<_> = self.reigns.iter().filter_map(of_victim).collect();
        let (servers, log) = (&mut self.servers, &self.log);
        let from = now();
        match fault {
            Fault::KillPrimary | Fault::KillPrimaryAhead => {
                let ahead =
                    (fault == Fault::KillPrimaryAhead).then(|| rng.millis(AHEAD.0, AHEAD.1));
                servers.kill(&victim, ahead, |from| doubt(log, from, &pools)).await;
                servers.until_replaced(&victim, pool).await;
                self.note_reigns(&pools).await;
                sleep(rng.millis(RESTARTED.0, RESTARTED.1)).await;
                let from = now();
                self.servers.restart(&victim);
                if let Servers::Sentinels(_) = self.servers {
                    // It says that it is the primary, with no data, until the sentinels tell it otherwise.
                    self.servers.until_deposed(&victim).await;
                    doubt_who(&self.log, from, &pools);
                }
            }
            Fault::StopPrimary => {
                servers.at(&victim).signal("STOP");
                servers.until_replaced(&victim, pool).await;
                doubt(log, from, &pools);
                self.note_reigns(&pools).await;
                sleep(rng.millis(RESTARTED.0, RESTARTED.1)).await;
                let from = now();
                self.servers.at(&victim).signal("CONT");
                self.servers.until_deposed(&victim).await;
                doubt_who(&self.log, from, &pools);
            }
            Fault::Failover => {
                servers.fail_over(&victim).await;
                // In a cluster the old primary admits nobody until the new one has all that it had.
                if let Servers::Sentinels(_) = servers {
                    servers.until_deposed(&victim).await;
                    doubt_who(log, from, &pools);
                }
                self.note_reigns(&pools).await;
            }
            Fault::MoveSlot => {
                servers.move_pool(pool, rng).await;
                pools = vec![pool.clone()];
                self.note_reigns(&pools).await;
            }
            _ => unreachable!("{fault:?} befalls no {:?}", self.kind),
        }
        if let Servers::Cluster(_) = self.servers {
            sleep(ELECTED).await;
        }
    }

    /// Notes who decides about these pools, as was to be expected.
    async fn note_reigns(&mut self, pools: &[String]) {
        for pool in pools {
            let owner = self.servers.owner(pool).await;
            self.reigns.insert(pool.clone(), (owner, now()));
        }
    }
}

/// Writes down that a server was replaced, or dies now.
fn doubt(log: &Log, from: u64, pools: &[String]) {
    log.write(Event::Doubtful { from, heard: false, pools: pools.to_vec() });
}

/// Writes down that until now a server may have been heard that was replaced.
fn doubt_who(log: &Log, from: u64, pools: &[String]) {
    log.write(Event::Doubtful { from, heard: true, pools: pools.to_vec() });
}

impl Servers {
    async fn start(kind: Kind, workers: usize) -> Self {
        match kind {
            Kind::Single => {
                let server =
                    Server::start_on_tcp(&["--appendonly", "yes", "--appendfsync", "always"]);
                let ways = (0..workers).map(|_| Proxy::before(server.address())).collect();
                Self::Single(server, ways)
            }
            Kind::Sentinels | Kind::Protected => {
                // One that was replaced is told so soon.
                let publish_period = Duration::from_millis(200);
                let options = OfSentinels { publish_period, ..OfSentinels::default() };
                Self::Sentinels(Sentinels::start(&options).await)
            }
            Kind::Cluster => {
                let mut options = OfCluster::new(3, 1);
                // A replica takes over however long this machine stood still after its primary had died.
                options.configuration.push("cluster-replica-validity-factor 0".to_owned());
                let cluster = Cluster::start_as(&options).await;
                // Each shard has some.
                for (number, pool) in plan::pools().iter().enumerate() {
                    let slot = cluster.slot(&plan::key(&pool.to_string()));
                    if cluster.owner_of_slot(slot).await != number % 3 {
                        cluster.move_slot(slot, number % 3).await;
                    }
                }
                Self::Cluster(cluster)
            }
        }
    }

    /// The addresses of those that keep pools.
    fn addresses(&self) -> Vec<String> {
        match self {
            Self::Single(server, _) => vec![server.address()],
            Self::Sentinels(sentinels) => sentinels.servers(),
            Self::Cluster(cluster) => cluster.host_paths(),
        }
    }

    fn at(&self, address: &str) -> &Server {
        match self {
            Self::Single(server, _) => server,
            Self::Sentinels(sentinels) => sentinels.at(address),
            Self::Cluster(cluster) => cluster.server(cluster.at(address)),
        }
    }

    fn tell_all(&self, tell: &dyn Fn(&mut redis::Connection)) {
        self.addresses().iter().for_each(|address| tell(&mut self.at(address).raw()));
    }

    /// Who decides about a pool.
    async fn owner(&self, pool: &str) -> String {
        match self {
            Self::Single(server, _) => server.address(),
            Self::Sentinels(sentinels) => sentinels.primary().await,
            Self::Cluster(cluster) => {
                let owner = cluster.owner(&plan::key(pool)).await;
                cluster.host_paths()[owner].clone()
            }
        }
    }

    async fn replicas(&self, primary: &str) -> Vec<String> {
        let all = self.addresses();
        match self {
            Self::Cluster(cluster) => {
                let replicas = cluster.replicas(cluster.at(primary)).await;
                replicas.into_iter().map(|replica| all[replica].clone()).collect()
            }
            _ => all.into_iter().filter(|other| other != primary).collect(),
        }
    }

    async fn until_whole(&self) {
        match self {
            Self::Single(..) => {}
            Self::Sentinels(sentinels) => sentinels.until_whole().await,
            Self::Cluster(cluster) => cluster.until_ok().await,
        }
    }

    /// Waits until another than this one decides about the pool.
    async fn until_replaced(&self, victim: &str, pool: &str) {
        if let Self::Sentinels(sentinels) = self {
            sentinels.until_primary_is_not(victim).await;
        }
        until("another server decides", async || (self.owner(pool).await != victim).then_some(()))
            .await;
    }

    /// Waits until a server knows that it is no primary.
    async fn until_deposed(&self, victim: &str) {
        until("the server knows that it was replaced", async || {
            let said: redis::Value = self.at(victim).answer(&["ROLE"]).await?;
            let redis::Value::Array(role) = said else { return None };
            (role.first()? == &redis::Value::BulkString(b"slave".to_vec())).then_some(())
        })
        .await;
    }

    /// Ends a server at once, with its replicas so far behind; says from when on nothing is sure that it said.
    async fn kill(&mut self, victim: &str, ahead: Option<Duration>, struck: impl FnOnce(u64)) {
        let replicas = match ahead {
            Some(_) => self.replicas(victim).await,
            None => Vec::new(),
        };
        // Without the right password they do not come back.
        let allow = |servers: &Self, password: &str| {
            for replica in &replicas {
                let mut set = redis::cmd("CONFIG");
                set.arg("SET").arg("masterauth").arg(password);
                set.exec(&mut servers.at(replica).raw()).expect("a replica obeys");
            }
        };
        if let Some(ahead) = ahead {
            allow(self, "wrong");
            let mut kill = redis::cmd("CLIENT");
            kill.arg("KILL").arg("TYPE").arg("replica");
            kill.exec(&mut self.at(victim).raw()).expect("a primary obeys");
            sleep(ahead).await;
        }
        let from = now();
        match self {
            Self::Single(server, _) => server.kill(),
            Self::Sentinels(sentinels) => sentinels.kill(victim),
            Self::Cluster(cluster) => cluster.kill(cluster.at(victim)),
        }
        struck(from);
        allow(self, "");
    }

    fn restart(&mut self, address: &str) {
        match self {
            Self::Single(server, _) => server.restart(),
            Self::Sentinels(sentinels) => sentinels.restart(address),
            Self::Cluster(cluster) => cluster.restart(cluster.at(address)),
        }
    }

    /// Orders a failover.
    async fn fail_over(&self, victim: &str) {
        match self {
            Self::Single(..) => {}
            Self::Sentinels(sentinels) => {
                sentinels.failover().await;
            }
            Self::Cluster(cluster) => {
                let replicas = cluster.replicas(cluster.at(victim)).await;
                cluster.failover(replicas[0]).await;
            }
        }
    }

    /// Moves a pool's slot to another shard, with a rest half way.
    async fn move_pool(&self, pool: &str, rng: &mut Rng) {
        let Self::Cluster(cluster) = self else { return };
        let slot = cluster.slot(&plan::key(pool));
        let from = cluster.owner_of_slot(slot).await;
        let mut others = cluster.primaries().await;
        others.retain(|other| *other != from);
        let moving = cluster.begin_move(slot, *rng.pick(&others)).await;
        cluster.move_keys(&moving, 2);
        sleep(rng.millis(0, 300)).await;
        cluster.move_keys(&moving, usize::MAX);
        cluster.finish_move(moving).await;
    }
}

/// Closes all connections of one type but those of sentinels, which would take the server for dead.
fn cut(server: &mut redis::Connection, kind: &str) {
    let mut list = redis::cmd("CLIENT");
    let list: String =
        list.arg("LIST").arg("TYPE").arg(kind).query(server).expect("the server obeys");
    for line in list.lines().filter(|line| !line.contains(" name=sentinel-")) {
        let id = line.split(' ').find_map(|word| word.strip_prefix("id="));
        let mut kill = redis::cmd("CLIENT");
        kill.arg("KILL").arg("ID").arg(id);
        // It may be gone.
        kill.exec(server).expect("the server obeys");
    }
}

/// The network parts some workers, or all, from the server, and what was on its way is lost.
async fn part(ways: &[Proxy], rng: &mut Rng) {
    let mut parted: Vec<_> = ways.iter().collect();
    rng.shuffle(&mut parted);
    parted.truncate(rng.between(1, ways.len().try_into().unwrap()).try_into().unwrap());
    parted.iter().for_each(|way| way.hold());
    sleep(rng.millis(PARTED.0, PARTED.1)).await;
    for way in parted {
        way.cut();
        way.pass();
    }
}

/// Everything takes longer for a while, for some more than for others.
async fn delay(ways: &[Proxy], rng: &mut Rng) {
    for way in ways {
        way.delay(rng.millis(LATER.0, LATER.1));
    }
    sleep(rng.millis(SLOW.0, SLOW.1)).await;
    ways.iter().for_each(|way| way.delay(Duration::ZERO));
}
