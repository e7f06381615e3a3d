//! A cluster made by hand, whose slots a test moves.

use std::collections::HashMap;
use std::ops::Range;
use std::process::Command;
use std::time::Duration;

use redis::FromRedisValue;

use super::proxy::Proxy;
use super::server::{Login, Port, Server, Setup, Wire};
use super::until;

/// How many slots there are.
const SLOTS: u16 = 16384;

/// How a cluster is set up.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// How many primaries; with fewer than three a replica takes over only when it is told to.
    pub(crate) shards: usize,
    pub(crate) replicas_per_shard: usize,
    /// After how long without an answer a node is taken for dead.
    pub(crate) node_timeout: Duration,
    /// Who may use the nodes, if not everybody.
    pub(crate) login: Option<Login>,
    /// Lines for all configurations with which everyone speaks TLS.
    pub(crate) tls: Option<Vec<String>>,
    /// Further lines for all configurations.
    pub(crate) configuration: Vec<String>,
    /// Whether clients reach each node through a proxy of its own.
    pub(crate) is_proxied: bool,
}

impl Options {
    pub(crate) fn new(shards: usize, replicas_per_shard: usize) -> Self {
        Self {
            shards,
            replicas_per_shard,
            node_timeout: Duration::from_millis(1000),
            login: None,
            tls: None,
            configuration: Vec::new(),
            is_proxied: false,
        }
    }

    fn node(&self) -> (Server, Option<Proxy>) {
        let mut configuration = vec![
            "cluster-enabled yes".to_owned(),
            format!("cluster-node-timeout {}", self.node_timeout.as_millis()),
            "appendonly no".to_owned(),
            // Replicas are served as soon as they ask.
            "repl-diskless-sync-delay 0".to_owned(),
        ];
        configuration.extend(self.login.into_iter().flat_map(Login::required));
        configuration.extend(self.login.into_iter().flat_map(Login::of_replica));
        configuration.extend(self.tls.iter().flatten().cloned());
        configuration.extend(self.configuration.iter().cloned());
        let wire = if self.tls.is_some() { Wire::Tls } else { Wire::Plain };
        let port = Port::take();
        let proxy = self.is_proxied.then(|| Proxy::before(port.address()));
        if let Some(proxy) = &proxy {
            // Only clients take that way; the nodes themselves have their own port for each other.
            configuration.push(format!("cluster-announce-port {}", proxy.port()));
            configuration.push(format!("cluster-announce-bus-port {}", port.number + 10_000));
        }
        let (port, login) = (Some(port), self.login);
        let setup = Setup { configuration, port, wire, login, ..Setup::default() };
        (Server::start_as(setup), proxy)
    }
}

/// Nodes of a cluster, all killed when dropped. At first the primaries come before all replicas, and the replicas of
/// the first primary before those of the second.
///
/// A node that has won an election takes its old votes for new ones if it must take over again within twice the node
/// timeout, or within 2 s: then it is a primary that no other node believes in. Redis does so by itself; a test must not
/// lead it there.
#[derive(Debug)]
pub(crate) struct Cluster {
    nodes: Vec<Server>,
    /// What stands before each, if that is asked for.
    proxies: Vec<Proxy>,
    /// Their names in the cluster.
    ids: Vec<String>,
    login: Option<Login>,
}

/// A slot that is on its way.
#[derive(Debug)]
pub(crate) struct Move {
    pub(crate) slot: u16,
    /// Answers for the keys that it still has, and says ASK about all others.
    pub(crate) from: usize,
    /// Answers those who say ASKING.
    pub(crate) to: usize,
}

/// What one node knows of another.
#[derive(Debug, PartialEq, Eq)]
struct Known {
    primary: Option<usize>,
    slots: Vec<Range<u16>>,
    /// Whether it is connected with it and suspects nothing.
    is_well: bool,
}

impl Cluster {
    /// Starts so many primaries, each with so many replicas, and waits until they agree.
    pub(crate) async fn start(shards: usize, replicas_per_shard: usize) -> Self {
        Self::start_as(&Options::new(shards, replicas_per_shard)).await
    }

    /// Starts a cluster in any other way.
    pub(crate) async fn start_as(options: &Options) -> Self {
        let (shards, count) = (options.shards, options.shards * (1 + options.replicas_per_shard));
        let (nodes, proxies): (Vec<_>, Vec<_>) = (0..count).map(|_| options.node()).unzip();
        let proxies = proxies.into_iter().flatten().collect();
        let mut cluster = Self { nodes, proxies, ids: Vec::new(), login: options.login };
        cluster.ids =
            cluster.nodes().map(|node| cluster.tell(node, &["CLUSTER", "MYID"])).collect();
        for node in cluster.nodes() {
            let epoch = (node + 1).to_string();
            cluster.order(node, &["CLUSTER", "SET-CONFIG-EPOCH", &epoch]);
        }
        let first = |shard: usize| usize::from(SLOTS) * shard / shards;
        for shard in 0..shards {
            let slots = (first(shard)..first(shard + 1)).map(|slot| slot.to_string());
            // One by one, because Redis 6.2 has no ranges.
            let words: Vec<_> =
                ["CLUSTER", "ADDSLOTS"].map(str::to_owned).into_iter().chain(slots).collect();
            let words: Vec<_> = words.iter().map(String::as_str).collect();
            cluster.order(shard, &words);
        }
        let port = cluster.port(0);
        for node in cluster.nodes().skip(1) {
            cluster.order(node, &["CLUSTER", "MEET", "127.0.0.1", &port]);
        }
        for replica in shards..count {
            let primary = &cluster.ids[(replica - shards) / options.replicas_per_shard];
            until("a replica knows its primary", async || {
                let words = &["CLUSTER", "REPLICATE", primary];
                cluster.nodes[replica].answer::<String>(words).await
            })
            .await;
        }
        cluster.until_ok().await;
        cluster
    }

    /// Indices of all nodes.
    pub(crate) fn nodes(&self) -> Range<usize> {
        0..self.nodes.len()
    }

    /// Addresses of all nodes for clients, in the same order.
    pub(crate) fn host_paths(&self) -> Vec<String> {
        match &*self.proxies {
            [] => self.nodes.iter().map(Server::address).collect(),
            proxies => proxies.iter().map(Proxy::address).collect(),
        }
    }

    /// What stands between a node and its clients.
    pub(crate) fn proxy(&self, node: usize) -> &Proxy {
        self.proxies.get(node).expect("the cluster is proxied")
    }

    /// The node at an address, as an error names it.
    pub(crate) fn at(&self, address: &str) -> usize {
        let at = self.nodes.iter().position(|node| node.address() == address);
        at.expect("a node has this address")
    }

    /// The slot of a key.
    pub(crate) fn slot(&self, key: &str) -> u16 {
        self.tell(self.running(), &["CLUSTER", "KEYSLOT", key])
    }

    /// The primary whose slot this is.
    pub(crate) async fn owner_of_slot(&self, slot: u16) -> usize {
        until("a slot has an owner", async || {
            let known = self.known_by(self.running()).await?;
            known.into_iter().find_map(|(node, known)| {
                known.slots.iter().any(|range| range.contains(&slot)).then_some(node)
            })
        })
        .await
    }

    /// The primary that has a key.
    pub(crate) async fn owner(&self, key: &str) -> usize {
        self.owner_of_slot(self.slot(key)).await
    }

    /// Nodes that have slots.
    pub(crate) async fn primaries(&self) -> Vec<usize> {
        until("a node tells of the others", async || {
            let known = self.known_by(self.running()).await?;
            let mut primaries: Vec<_> = known
                .into_iter()
                .filter(|(_, known)| !known.slots.is_empty())
                .map(|(node, _)| node)
                .collect();
            primaries.sort_unstable();
            Some(primaries)
        })
        .await
    }

    /// Nodes that run and follow a primary, also while a busy machine lets others suspect them.
    pub(crate) async fn replicas(&self, primary: usize) -> Vec<usize> {
        until("a node tells of the others", async || {
            let known = self.heard_by(self.running()).await?;
            let mut replicas: Vec<_> = known
                .into_iter()
                .filter(|(node, known)| known.primary == Some(primary) && self.nodes[*node].runs())
                .map(|(node, _)| node)
                .collect();
            replicas.sort_unstable();
            Some(replicas)
        })
        .await
    }

    /// Ends a node at once.
    pub(crate) fn kill(&mut self, node: usize) {
        self.nodes[node].kill();
    }

    /// Starts a node again, with its name and what it knew of the others.
    pub(crate) fn restart(&mut self, node: usize) {
        self.nodes[node].restart();
    }

    /// Sends a signal to a node.
    pub(crate) fn signal(&self, node: usize, name: &str) {
        self.nodes[node].signal(name);
    }

    /// A node by itself.
    pub(crate) fn server(&self, node: usize) -> &Server {
        &self.nodes[node]
    }

    /// A connection to a node, past TLS.
    pub(crate) fn raw(&self, node: usize) -> redis::Connection {
        self.server(node).raw()
    }

    /// Moves a slot with its keys.
    pub(crate) async fn move_slot(&self, slot: u16, to: usize) {
        let moving = self.begin_move(slot, to).await;
        self.move_keys(&moving, usize::MAX);
        self.finish_move(moving).await;
    }

    /// Has Redis' own tool move so many slots of a shard, the lowest first, with their keys.
    pub(crate) async fn reshard(&self, from: usize, to: usize, slots: usize) {
        let tool = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers.sh");
        let tool = Command::new(tool).arg("redis-cli").output().expect("a shell can be started");
        let tool = String::from_utf8(tool.stdout).expect("the path is UTF-8");
        let mut reshard = Command::new(tool.trim());
        reshard.args(["--cluster", "reshard", &format!("127.0.0.1:{}", self.port(from))]);
        reshard.args(["--cluster-from", &self.ids[from], "--cluster-to", &self.ids[to]]);
        reshard.args(["--cluster-slots", &slots.to_string(), "--cluster-yes"]);
        let ended = tokio::task::spawn_blocking(move || reshard.output()).await;
        let ended = ended.expect("it does not panic").expect("redis-cli can be started");
        assert!(ended.status.success(), "{ended:?}");
        self.until_ok().await;
    }

    /// Begins to move a slot, with all its keys where they were.
    pub(crate) async fn begin_move(&self, slot: u16, to: usize) -> Move {
        let from = self.owner_of_slot(slot).await;
        assert_ne!(from, to, "the slot is there");
        let number = slot.to_string();
        self.order(to, &["CLUSTER", "SETSLOT", &number, "IMPORTING", &self.ids[from]]);
        self.order(from, &["CLUSTER", "SETSLOT", &number, "MIGRATING", &self.ids[to]]);
        Move { slot, from, to }
    }

    /// Moves up to so many of the keys that are left, whichever, and says how many it were.
    pub(crate) fn move_keys(&self, moving: &Move, count: usize) -> usize {
        let slot = moving.slot.to_string();
        let mut moved = 0;
        while moved < count {
            let next = (count - moved).min(100).to_string();
            let words = &["CLUSTER", "GETKEYSINSLOT", &slot, &next];
            let keys: Vec<String> = self.tell(moving.from, words);
            if keys.is_empty() {
                break;
            }
            let keys: Vec<_> = keys.iter().map(String::as_str).collect();
            self.move_these_keys(moving, &keys);
            moved += keys.len();
        }
        moved
    }

    /// Moves keys of the slot.
    pub(crate) fn move_these_keys(&self, moving: &Move, keys: &[&str]) {
        let port = self.port(moving.to);
        let mut words = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000"];
        if let Some(Login { user, password }) = self.login {
            words.extend(["AUTH2", user.unwrap_or("default"), password]);
        }
        words.push("KEYS");
        words.extend(keys);
        let answer: String = self.tell(moving.from, &words);
        assert_eq!(answer, "OK", "all keys were there");
    }

    /// Ends a move: the slot is where its keys are, and all agree.
    pub(crate) async fn finish_move(&self, moving: Move) {
        let Move { slot, from, to } = moving;
        let number = slot.to_string();
        let mut others = self.primaries().await;
        others.retain(|node| ![from, to].contains(node));
        // First it must be somebody's.
        for node in [to, from].into_iter().chain(others) {
            self.order(node, &["CLUSTER", "SETSLOT", &number, "NODE", &self.ids[to]]);
        }
        self.until_ok().await;
    }

    /// Has a replica take over from its primary, which is its replica then.
    pub(crate) async fn failover(&self, replica: usize) {
        self.order(replica, &["CLUSTER", "FAILOVER"]);
        until("the replica is a primary", async || {
            let known = self.known_by(replica).await?;
            known[&replica].primary.is_none().then_some(())
        })
        .await;
        self.until_ok().await;
    }

    /// Waits until all nodes that run agree that they have all slots, and all replicas among them are in sync.
    pub(crate) async fn until_ok(&self) {
        until("all nodes agree that all is well", async || {
            let mut agreed = None;
            for node in self.nodes().filter(|node| self.nodes[*node].runs()) {
                let state: String = self.nodes[node].answer(&["CLUSTER", "INFO"]).await?;
                state.contains("cluster_state:ok").then_some(())?;
                let known = self.known_by(node).await?;
                if known.get(&node)?.primary.is_some() {
                    let state: String = self.nodes[node].answer(&["INFO", "replication"]).await?;
                    state.contains("master_link_status:up").then_some(())?;
                }
                // Each says the same of those that run, and they have all slots.
                let running: HashMap<_, _> =
                    known.into_iter().filter(|(node, _)| self.nodes[*node].runs()).collect();
                let slots = running.values().flat_map(|known| &known.slots);
                let all = slots.map(ExactSizeIterator::len).sum::<usize>() == usize::from(SLOTS);
                let everyone = running.len() == self.nodes.iter().filter(|n| n.runs()).count();
                let same = agreed.get_or_insert(HashMap::new());
                if same.is_empty() {
                    *same = running;
                } else if *same != running {
                    return None;
                }
                (all && everyone).then_some(())?;
            }
            agreed.map(|_| ())
        })
        .await;
    }

    /// What a node knows of all those that it is connected with, itself among them.
    async fn known_by(&self, node: usize) -> Option<HashMap<usize, Known>> {
        let mut known = self.heard_by(node).await?;
        known.retain(|_, known| known.is_well);
        Some(known)
    }

    /// What a node knows of all, itself among them.
    async fn heard_by(&self, node: usize) -> Option<HashMap<usize, Known>> {
        let text: String = self.nodes[node].answer(&["CLUSTER", "NODES"]).await?;
        let index = |id: &str| self.ids.iter().position(|other| other == id);
        let mut known = HashMap::new();
        for line in text.lines() {
            let words: Vec<_> = line.split(' ').collect();
            let [id, _, flags, primary, _, _, _, link, slots @ ..] = &words[..] else {
                return None;
            };
            let well = |flag: &str| !matches!(flag, "fail" | "fail?" | "handshake" | "noaddr");
            let is_well = *link == "connected" && flags.split(',').all(well);
            // Those in brackets are on their way.
            let slots = slots.iter().filter(|range| !range.starts_with('['));
            let slots = slots.map(|range| {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                let last: u16 = last.parse().ok()?;
                Some(first.parse().ok()?..last + 1)
            });
            let slots: Option<Vec<_>> = slots.collect();
            let heard = Known { primary: index(primary), slots: slots?, is_well };
            match index(id) {
                Some(node) => drop(known.insert(node, heard)),
                // One that it has only just met has no name yet.
                None if !is_well => {}
                None => return None,
            }
        }
        Some(known)
    }

    /// A node that answers.
    fn running(&self) -> usize {
        self.nodes.iter().position(Server::runs).expect("a node runs")
    }

    fn port(&self, node: usize) -> String {
        self.nodes[node].port.expect("all nodes are on ports").to_string()
    }

    fn order(&self, node: usize, words: &[&str]) {
        let answer: String = self.tell(node, words);
        assert_eq!(answer, "OK", "{:?}", &words[..2]);
    }

    #[track_caller]
    fn tell<T: FromRedisValue>(&self, node: usize, words: &[&str]) -> T {
        let answer = redis::cmd(words[0]).arg(&words[1..]).query(&mut self.raw(node));
        answer.unwrap_or_else(|error| panic!("{:?}: {error}", &words[..words.len().min(8)]))
    }
}
