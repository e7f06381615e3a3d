//! A primary with two replicas, and three sentinels that watch over them.

use std::collections::HashMap;
use std::time::Duration;

use super::server::{Login, Mode, Port, Server, Setup, Wire};
use super::until;

/// What the sentinels call the primary.
const NAME: &str = "main";

/// How many sentinels agree that the primary is gone, and on anything else.
const QUORUM: usize = 2;

/// How servers and sentinels are set up.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// After how long without an answer a server is taken for dead; at least 2.5 s with Redis before 7.0.
    pub(crate) down_after: Duration,
    /// How long a failover may take until another is tried.
    pub(crate) failover_timeout: Duration,
    /// How often sentinels look at servers, and tell each other of them: 10 s and 2 s are what they do by themselves,
    /// and all that Redis before 7.0 can do.
    pub(crate) info_period: Duration,
    pub(crate) publish_period: Duration,
    /// Who may use the servers, if not everybody.
    pub(crate) servers: Option<Login>,
    /// Who may use the sentinels, if not everybody.
    pub(crate) sentinels: Option<Login>,
    /// Lines for all configurations with which everyone speaks TLS.
    pub(crate) tls: Option<Vec<String>>,
    /// Further lines for the configurations of the servers.
    pub(crate) configuration: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            down_after: Duration::from_millis(500),
            failover_timeout: Duration::from_millis(2000),
            info_period: Duration::from_millis(500),
            publish_period: Duration::from_millis(500),
            servers: None,
            sentinels: None,
            tls: None,
            configuration: Vec::new(),
        }
    }
}

impl Options {
    fn setup(&self, mode: Mode, login: Option<Login>) -> Setup {
        let mut configuration = self.tls.clone().unwrap_or_default();
        configuration.extend(login.into_iter().flat_map(Login::required));
        let wire = if self.tls.is_some() { Wire::Tls } else { Wire::Plain };
        Setup { configuration, mode, port: Some(Port::take()), wire, login, ..Setup::default() }
    }

    fn server(&self, primary: Option<&Server>) -> Server {
        let mut setup = self.setup(Mode::Server, self.servers);
        setup.configuration.push("appendonly no".to_owned());
        // Replicas are served as soon as they ask.
        setup.configuration.push("repl-diskless-sync-delay 0".to_owned());
        // Also of a primary, which will be a replica some time.
        setup.configuration.extend(self.servers.into_iter().flat_map(Login::of_replica));
        if let Some(port) = primary.and_then(|primary| primary.port) {
            setup.configuration.push(format!("replicaof 127.0.0.1 {port}"));
        }
        setup.configuration.extend(self.configuration.iter().cloned());
        Server::start_as(setup)
    }

    fn sentinel(&self, primary: &Server) -> Server {
        let mut setup = self.setup(Mode::Sentinel, self.sentinels);
        let port = primary.port.expect("all servers are on ports");
        let mut settings = vec![
            format!("monitor {NAME} 127.0.0.1 {port} {QUORUM}"),
            format!("down-after-milliseconds {NAME} {}", self.down_after.as_millis()),
            format!("failover-timeout {NAME} {}", self.failover_timeout.as_millis()),
            format!("parallel-syncs {NAME} 2"),
        ];
        if let Some(Login { user, password }) = self.servers {
            settings.extend(user.map(|user| format!("auth-user {NAME} {user}")));
            settings.push(format!("auth-pass {NAME} {password}"));
        }
        if let Some(Login { user, password }) = self.sentinels {
            settings.extend(user.map(|user| format!("sentinel-user {user}")));
            settings.push(format!("sentinel-pass {password}"));
        }
        setup.configuration.extend(settings.iter().map(|setting| format!("sentinel {setting}")));
        Server::start_as(setup)
    }
}

/// Three servers and three sentinels, all killed when dropped.
#[derive(Debug)]
pub(crate) struct Sentinels {
    servers: Vec<Server>,
    sentinels: Vec<Server>,
    options: Options,
}

impl Sentinels {
    /// Starts everything and waits until the sentinels know it.
    pub(crate) async fn start(options: &Options) -> Self {
        let mut servers = vec![options.server(None)];
        for _ in 0..2 {
            servers.push(options.server(servers.first()));
        }
        until("replicas are in sync", async || {
            for replica in &servers[1..] {
                is_linked(replica).await?;
            }
            let replication = info(&servers[0], "replication").await?;
            let online = replication.values().filter(|value| value.contains("state=online"));
            (online.count() == 2).then_some(())
        })
        .await;
        let started = (0..3).map(|_| options.sentinel(&servers[0])).collect();
        let sentinels = Self { servers, sentinels: started, options: options.clone() };
        sentinels.sentinels.iter().for_each(|sentinel| sentinels.hurry(sentinel));
        sentinels.until_whole().await;
        sentinels
    }

    /// Sets what a sentinel does not keep in its configuration.
    fn hurry(&self, sentinel: &Server) {
        let Options { info_period, publish_period, .. } = self.options;
        let periods = [
            // Also how long a sentinel waits until it connects again, as it must after each failover; and it makes no
            // primary of a replica whose INFO is older than five of them, which it reads once a second then.
            ("PING-PERIOD", Duration::from_millis(250)),
            ("INFO-PERIOD", info_period),
            ("PUBLISH-PERIOD", publish_period),
            // How long a sentinel does nothing after its machine stood still for 2 s; else half a minute.
            ("TILT-PERIOD", Duration::from_secs(2)),
        ];
        let mut command = redis::cmd("SENTINEL");
        command.arg("DEBUG");
        for (name, period) in periods {
            command.arg(name).arg(period.as_millis().to_string());
        }
        let mut sentinel = sentinel.raw();
        if command.exec(&mut sentinel).is_err() {
            // One that connects once a second takes everybody for dead who is looked for more closely.
            let down_after =
                self.options.down_after.max(Duration::from_millis(2500)).as_millis().to_string();
            let mut command = redis::cmd("SENTINEL");
            command.arg("SET").arg(NAME).arg("down-after-milliseconds").arg(down_after);
            command.exec(&mut sentinel).expect("a sentinel can be set");
        }
    }

    /// Addresses of the sentinels.
    pub(crate) fn host_paths(&self) -> Vec<String> {
        self.sentinels.iter().map(Server::address).collect()
    }

    /// Addresses of the servers.
    pub(crate) fn servers(&self) -> Vec<String> {
        self.servers.iter().map(Server::address).collect()
    }

    /// What the sentinels call the primary.
    pub(crate) fn name(&self) -> &'static str {
        NAME
    }

    /// Address of the primary, as most of the sentinels have it.
    pub(crate) async fn primary(&self) -> String {
        until("sentinels agree on the primary", async || self.agreed().await).await
    }

    async fn agreed(&self) -> Option<String> {
        let mut votes = HashMap::<_, usize>::new();
        for sentinel in self.sentinels.iter().filter(|sentinel| sentinel.runs()) {
            if let Some(named) = named_by(sentinel).await {
                *votes.entry(named).or_default() += 1;
            }
        }
        votes.into_iter().find(|(_, votes)| *votes >= QUORUM).map(|(named, _)| named)
    }

    /// Ends the primary at once, and says which it was.
    pub(crate) async fn kill_primary(&mut self) -> String {
        let primary = self.primary().await;
        self.kill(&primary);
        primary
    }

    /// Sends a signal to the primary, and says which it was.
    pub(crate) async fn signal_primary(&self, name: &str) -> String {
        let primary = self.primary().await;
        self.signal(&primary, name);
        primary
    }

    /// Ends a server or a sentinel at once.
    pub(crate) fn kill(&mut self, address: &str) {
        self.at_mut(address).kill();
    }

    /// Sends a signal to a server or a sentinel.
    pub(crate) fn signal(&self, address: &str, name: &str) {
        self.at(address).signal(name);
    }

    /// Starts a server or a sentinel again.
    ///
    /// One that was the primary says that it is until the sentinels have seen so for four times their period of
    /// publishing, and make it a replica.
    pub(crate) fn restart(&mut self, address: &str) {
        self.at_mut(address).restart();
        if self.host_paths().iter().any(|sentinel| sentinel == address) {
            self.hurry(self.at(address));
        }
    }

    /// Has the sentinels make another server the primary, and says which it is then.
    pub(crate) async fn failover(&self) -> String {
        let old = self.primary().await;
        until("a sentinel begins a failover", async || {
            let sentinel = self.sentinels.iter().find(|sentinel| sentinel.runs())?;
            sentinel.answer::<String>(&["SENTINEL", "FAILOVER", NAME]).await
        })
        .await;
        self.until_primary_is_not(&old).await
    }

    /// Parts the primary from the sentinels, and not from the clients that it has: another will replace it, and nobody tells
    /// it. Says which it was.
    pub(crate) async fn depose_primary(&self) -> String {
        let primary = self.primary().await;
        let mut raw = self.raw(&primary);
        let mut command = |words: &[&str]| -> String {
            redis::cmd(words[0]).arg(&words[1..]).query(&mut raw).expect("it runs")
        };
        // Whoever is connected stays so.
        command(&["CONFIG", "SET", "requirepass", "of-nobody"]);
        for client in command(&["CLIENT", "LIST"]).lines().filter(|c| c.contains(" name=sentinel-"))
        {
            let mut fields = client.split(' ').filter_map(|field| field.split_once('='));
            let id = fields.find_map(|(name, id)| (name == "id").then_some(id));
            command(&["CLIENT", "KILL", "ID", id.expect("every client has one")]);
        }
        primary
    }

    /// Waits until most of the sentinels name another primary and it takes itself for one; says which.
    pub(crate) async fn until_primary_is_not(&self, old: &str) -> String {
        until(&format!("another primary than {old}"), async || {
            let primary = self.agreed().await.filter(|primary| primary != old)?;
            let replication = info(self.at(&primary), "replication").await?;
            (replication.get("role")? == "master").then_some(primary)
        })
        .await
    }

    /// Waits until everyone who runs has what the same primary had when it was asked, and the sentinels know all of them.
    pub(crate) async fn until_whole(&self) {
        until("all follow the primary and the sentinels know it", async || {
            let running = self.servers.iter().filter(|server| server.runs());
            let primary = self.agreed().await.filter(|primary| self.at(primary).runs())?;
            let replicas: Vec<_> = running.filter(|server| server.address() != primary).collect();
            let written = offset(&info(self.at(&primary), "replication").await?, "master")?;
            for replica in &replicas {
                let replication = is_linked(replica).await?;
                let followed =
                    format!("{}:{}", replication["master_host"], replication["master_port"]);
                (followed == primary && offset(&replication, "slave")? >= written).then_some(())?;
            }
            let sentinels: Vec<_> = self.sentinels.iter().filter(|s| s.runs()).collect();
            for sentinel in &sentinels {
                let named = named_by(sentinel).await?;
                let others = well(sentinel, "SENTINELS").await?;
                let known = well(sentinel, "REPLICAS").await?;
                let all = known == replicas.len() && others + 1 == sentinels.len();
                (named == primary && all).then_some(())?;
            }
            Some(())
        })
        .await;
    }

    /// A connection to a server or a sentinel, past TLS.
    pub(crate) fn raw(&self, address: &str) -> redis::Connection {
        self.at(address).raw()
    }

    /// A server or a sentinel.
    pub(crate) fn at(&self, address: &str) -> &Server {
        let mut all = self.servers.iter().chain(&self.sentinels);
        all.find(|server| server.address() == address).expect("somebody has this address")
    }

    fn at_mut(&mut self, address: &str) -> &mut Server {
        let mut all = self.servers.iter_mut().chain(&mut self.sentinels);
        all.find(|server| server.address() == address).expect("somebody has this address")
    }
}

/// The primary's address, as one sentinel has it.
async fn named_by(sentinel: &Server) -> Option<String> {
    let words = &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME];
    let (host, port): (String, u16) = sentinel.answer(words).await?;
    Some(format!("{host}:{port}"))
}

/// How many of the others a sentinel is well connected with.
async fn well(sentinel: &Server, whom: &str) -> Option<usize> {
    let others: Vec<HashMap<String, String>> = sentinel.answer(&["SENTINEL", whom, NAME]).await?;
    let is_well = |other: &&HashMap<String, String>| {
        let lost = |flag| matches!(flag, "disconnected" | "s_down" | "o_down");
        // What only replicas have.
        let link = other.get("master-link-status");
        !other["flags"].split(',').any(lost) && link.is_none_or(|link| link == "ok")
    };
    Some(others.iter().filter(is_well).count())
}

/// What a replica tells about itself when it has a primary. What was written a second ago may not have come yet.
async fn is_linked(replica: &Server) -> Option<HashMap<String, String>> {
    let replication = info(replica, "replication").await?;
    (replication.get("master_link_status")? == "up").then_some(replication)
}

/// How much a server has written or read as a `master` or a `slave`.
fn offset(replication: &HashMap<String, String>, role: &str) -> Option<u64> {
    replication.get(&format!("{role}_repl_offset"))?.parse().ok()
}

/// A section of what a server tells about itself.
async fn info(server: &Server, section: &str) -> Option<HashMap<String, String>> {
    let text: String = server.answer(&["INFO", section]).await?;
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    Some(fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}
