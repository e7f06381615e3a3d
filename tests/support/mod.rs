//! What the tests share: servers, and pools that can be reached in several ways.

pub(crate) mod clock;
pub(crate) mod cluster;
pub(crate) mod fake;
pub(crate) mod gate;
pub(crate) mod log;
mod polling;
pub(crate) mod proxy;
pub(crate) mod sentinels;
pub(crate) mod server;
pub(crate) mod tls;

pub(crate) use self::polling::until;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokenpool::{
    AllocationToken, Backend, Claim, Claimant, Config, Cursor, Deletion, Error, ExecutionId,
    FencingNumber, Holder, Holding, Inbox, Lease, Manager, Member, MemoryBackend, Notice, Order,
    Outcome, PluginId, PoolName, PoolUsage, Priority, QueueChange, Quota, QuotaChange, Refusal,
    Registrar, Released, Renewal, Renewed, ResourceConstraintsSpec, ResourceNamespace,
    ResourceRegistrar, Result, Revocation, Ticket, TicketRecord, TicketRequest, Turn, Units,
    Weight,
};

use self::server::Server;

/// No caps.
pub(crate) const FREE: ResourceConstraintsSpec = ResourceConstraintsSpec::NONE;

/// A backend under test and what it needs.
#[derive(Debug)]
pub(crate) struct Fixture {
    pub(crate) backend: Arc<dyn Backend>,
    through_proxies: bool,
    /// Of this fixture alone, so that tests can share a server.
    plugin: PluginId,
    server: Option<Arc<Server>>,
}

fn unique_plugin() -> PluginId {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    PluginId::new(format!("plugin-{}-{count}", std::process::id())).unwrap()
}

pub(crate) fn fixture(backend: Arc<dyn Backend>, server: Option<Arc<Server>>) -> Fixture {
    Fixture { backend, through_proxies: false, plugin: unique_plugin(), server }
}

/// The memory backend.
pub(crate) async fn memory() -> Fixture {
    fixture(Arc::new(MemoryBackend::new()), None)
}

/// The memory backend behind managers and the proxies of executions.
pub(crate) async fn proxied() -> Fixture {
    Fixture { through_proxies: true, ..memory().await }
}

/// The Redis backend on the server of `TOKENPOOL_TEST_REDIS`, else on one of its own.
pub(crate) async fn redis() -> Fixture {
    match std::env::var("TOKENPOOL_TEST_REDIS") {
        Ok(url) => fixture(connect(&url).await, None),
        Err(_) => redis_on(Server::start()).await,
    }
}

/// The Redis backend on a server that the test wants to look at or to disturb.
pub(crate) async fn redis_on(server: Server) -> Fixture {
    fixture(connect(&server.url()).await, Some(Arc::new(server)))
}

/// The Redis backend, with so much patience that a busy machine does not fail a test, and without a learning period.
pub(crate) async fn connect(url: &str) -> Arc<dyn Backend> {
    let mut config = Config::redis_at(url).unwrap();
    config.redis.command_timeout = Duration::from_secs(15);
    config.redis.connect_timeout = Duration::from_secs(15);
    config.redis.learning_period = Duration::ZERO;
    config.open().await.unwrap()
}

/// An execution from `project/domain/name`.
pub(crate) fn execution(path: &str) -> ExecutionId {
    let parts: Vec<_> = path.splitn(3, '/').collect();
    ExecutionId::new(parts[0], parts[1], parts[2]).unwrap()
}

pub(crate) fn token(token: &str) -> AllocationToken {
    AllocationToken::new(token).unwrap()
}

pub(crate) fn claim(name: &str, units: i64) -> Claim {
    Claim::new(token(name), Units::new(units).unwrap())
}

pub(crate) fn caps(project: Option<i64>, domain: Option<i64>) -> ResourceConstraintsSpec {
    ResourceConstraintsSpec::new(project, domain).unwrap()
}

pub(crate) fn revocation() -> Revocation {
    Revocation::new("test", "because").unwrap()
}

pub(crate) fn lease(millis: u64) -> Lease {
    Lease::new(Duration::from_millis(millis)).unwrap()
}

/// A ticket that lasts longer than any test.
pub(crate) fn ticket() -> TicketRequest {
    TicketRequest::new(lease(600_000))
}

pub(crate) fn urgent(priority: i64) -> TicketRequest {
    ticket().with_priority(Priority::new(priority).unwrap())
}

pub(crate) fn weight(weight: i64) -> Weight {
    Weight::new(weight).unwrap()
}

/// The member of a token of the execution `project/domain/name`.
pub(crate) fn member(path: &str, name: &str) -> Member {
    let (scope, execution) = path.rsplit_once('/').unwrap();
    Member::parse(&format!("ex:{}:{execution}-{name}", scope.replace('/', ":"))).unwrap()
}

pub(crate) fn quota(units: i64) -> Quota {
    Quota::new(units, u32::MAX).unwrap()
}

impl Fixture {
    /// The same backend with a pool of another name.
    pub(crate) fn another_pool(&self) -> Self {
        fixture(Arc::clone(&self.backend), self.server.clone())
    }

    /// Address of the server that the test started.
    pub(crate) fn url(&self) -> String {
        self.server.as_ref().unwrap().url()
    }

    pub(crate) fn pool_name(&self) -> PoolName {
        PoolName::of(&self.plugin, &ResourceNamespace::new("default").unwrap()).unwrap()
    }

    /// A pool with this quota.
    pub(crate) async fn pool(&self, units: i64) -> Pool {
        let manager = if self.through_proxies {
            let registrar = Registrar::with_max_quota(Arc::clone(&self.backend), u32::MAX);
            registrar
                .for_plugin(self.plugin.clone())
                .register_resource_quota(&ResourceNamespace::new("default").unwrap(), units)
                .unwrap();
            Some(registrar.build().await.unwrap())
        } else {
            let register = QuotaChange::Register(quota(units));
            self.backend.change_quota(&self.pool_name(), register).await.unwrap();
            None
        };
        self.handle(manager)
    }

    /// A handle to the pool, whether it exists or not.
    pub(crate) fn handle(&self, manager: Option<Manager>) -> Pool {
        Pool {
            name: self.pool_name(),
            plugin: self.plugin.clone(),
            backend: Arc::clone(&self.backend),
            manager,
            server: self.server.clone(),
        }
    }
}

/// A pool, reached through the backend itself or through proxies.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) name: PoolName,
    pub(crate) backend: Arc<dyn Backend>,
    plugin: PluginId,
    manager: Option<Manager>,
    server: Option<Arc<Server>>,
}

impl Pool {
    /// Leaves nothing behind on a server that is not the test's own.
    pub(crate) async fn clean_up(&self) {
        match self.backend.delete_pool(&self.name, Deletion::EvenInUse).await {
            Ok(_) | Err(Error::UnknownNamespace { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }

    /// The same pool through another backend.
    pub(crate) fn through(&self, backend: Arc<dyn Backend>) -> Self {
        Self {
            name: self.name.clone(),
            backend,
            plugin: self.plugin.clone(),
            manager: None,
            server: self.server.clone(),
        }
    }

    /// The backend and the pool's name, to call the one about the other.
    pub(crate) fn handles(&self) -> (Arc<dyn Backend>, PoolName) {
        (Arc::clone(&self.backend), self.name.clone())
    }

    /// A pool of another name in the same backend.
    pub(crate) fn renamed(self, name: &PoolName) -> Self {
        Self { name: name.clone(), ..self }
    }

    /// A connection for looking at what is really there, on a server of the test's own.
    pub(crate) fn raw(&self) -> redis::Connection {
        self.server.as_ref().unwrap().raw()
    }

    /// The pool's own key, the SET.
    pub(crate) fn key(&self) -> String {
        format!("redisresourcemanager:{}", self.name)
    }

    /// A key beside it.
    pub(crate) fn key_of(&self, what: &str) -> String {
        format!("{{{}}}:{what}", self.key())
    }

    /// The keys that most scripts take.
    pub(crate) fn keys(&self) -> Vec<String> {
        let others = ["usage", "grants", "leases", "tickets", "queue", "lines", "turns", "shares"];
        [self.key()].into_iter().chain(others.map(|what| self.key_of(what))).collect()
    }

    pub(crate) async fn claim_many(
        &self,
        path: &str,
        claims: &[Claim],
        constraints: ResourceConstraintsSpec,
    ) -> Result<Vec<Result<Outcome>>> {
        let execution = execution(path);
        match &self.manager {
            Some(manager) => {
                let task = manager.for_execution(self.plugin.clone(), execution);
                let namespace = ResourceNamespace::new("default").unwrap();
                task.allocate_many(&namespace, claims, constraints).await
            }
            None => {
                let holder = Holder::new("test").unwrap();
                let claimant = Claimant { execution: &execution, constraints, holder: &holder };
                self.backend.allocate(&self.name, claimant, claims).await
            }
        }
    }

    pub(crate) async fn claim_with(
        &self,
        path: &str,
        name: &str,
        units: i64,
        constraints: ResourceConstraintsSpec,
    ) -> Result<Outcome> {
        let answers = self.claim_many(path, &[claim(name, units)], constraints).await?;
        answers.into_iter().next().unwrap()
    }

    /// A claim of one unit without caps.
    pub(crate) async fn claim(&self, path: &str, name: &str) -> Outcome {
        self.claim_with(path, name, 1, FREE).await.unwrap()
    }

    /// A claim of one unit that is held for so many milliseconds.
    pub(crate) async fn claim_leased(&self, path: &str, name: &str, millis: u64) -> Outcome {
        let claims = [claim(name, 1).with_lease(lease(millis))];
        self.claim_many(path, &claims, FREE).await.unwrap().remove(0).unwrap()
    }

    pub(crate) async fn try_wait(
        &self,
        path: &str,
        claim: &Claim,
        constraints: ResourceConstraintsSpec,
        ticket: &TicketRequest,
    ) -> Result<Turn> {
        let (execution, holder) = (execution(path), Holder::new("test").unwrap());
        let claimant = Claimant { execution: &execution, constraints, holder: &holder };
        self.backend.wait(&self.name, claimant, claim, ticket).await
    }

    pub(crate) async fn wait(
        &self,
        path: &str,
        name: &str,
        units: i64,
        constraints: ResourceConstraintsSpec,
        ticket: &TicketRequest,
    ) -> Turn {
        self.try_wait(path, &claim(name, units), constraints, ticket).await.unwrap()
    }

    /// Waits for one unit without caps; fails if it is granted.
    pub(crate) async fn queue_up(&self, path: &str, name: &str) -> Ticket {
        waiting(self.wait(path, name, 1, FREE, &ticket()).await)
    }

    pub(crate) async fn renew_many(
        &self,
        path: &str,
        names: &[&str],
        millis: u64,
    ) -> Vec<Result<Renewed>> {
        let execution = execution(path);
        let tokens: Vec<_> = names.iter().map(|name| token(name)).collect();
        let renewals: Vec<_> = tokens
            .iter()
            .map(|token| Renewal { execution: &execution, token, lease: lease(millis) })
            .collect();
        self.backend.renew(&self.name, &renewals).await.unwrap()
    }

    pub(crate) async fn renew(&self, path: &str, name: &str, millis: u64) -> Result<Renewed> {
        self.renew_many(path, &[name], millis).await.remove(0)
    }

    /// Lets the pool do what is due.
    pub(crate) async fn nudge(&self) {
        self.renew_many("p/d/e", &[], 1000).await;
    }

    pub(crate) async fn revoke(&self, path: &str, name: &str) -> Released {
        self.backend.revoke(&self.name, &member(path, name), &revocation()).await.unwrap()
    }

    pub(crate) async fn order(&self, order: Order) {
        let change = QueueChange::new().order(order);
        self.backend.change_queue(&self.name, &change).await.unwrap();
    }

    pub(crate) async fn change_quota(&self, change: QuotaChange) {
        self.backend.change_quota(&self.name, change).await.unwrap();
    }

    /// Who waits, by rank, read in pages of about this size.
    pub(crate) async fn tickets(&self, count: usize) -> Vec<TicketRecord> {
        let (mut seen, mut tickets, mut from) =
            (BTreeSet::new(), Vec::new(), Some(Cursor::default()));
        while let Some(cursor) = from {
            let page = self.backend.tickets(&self.name, cursor, count).await.unwrap();
            tickets.extend(page.tickets.into_iter().filter(|t| seen.insert(t.member.clone())));
            from = page.next;
        }
        tickets
    }

    /// Whether a token is held now, without claiming it.
    pub(crate) async fn holds(&self, path: &str, name: &str) -> bool {
        let member = member(path, name);
        self.holdings(1000).await.iter().any(|holding| holding.member == member)
    }

    pub(crate) async fn release_many(&self, path: &str, names: &[&str]) -> Result<Vec<Released>> {
        let execution = execution(path);
        let tokens: Vec<_> = names.iter().map(|name| token(name)).collect();
        match &self.manager {
            Some(manager) => {
                let task = manager.for_execution(self.plugin.clone(), execution);
                task.release_many(&ResourceNamespace::new("default").unwrap(), &tokens).await
            }
            None => self.backend.release(&self.name, &execution, &tokens).await,
        }
    }

    pub(crate) async fn release_grant(
        &self,
        path: &str,
        name: &str,
        number: FencingNumber,
    ) -> Result<Released> {
        let (execution, token) = (execution(path), token(name));
        self.backend.release_grant(&self.name, &execution, &token, number).await
    }

    pub(crate) async fn release(&self, path: &str, name: &str) -> Released {
        self.release_many(path, &[name]).await.unwrap()[0]
    }

    pub(crate) async fn usage(&self) -> PoolUsage {
        self.backend.usage(&self.name).await.unwrap()
    }

    pub(crate) async fn in_use(&self) -> u64 {
        self.usage().await.in_use
    }

    /// Everyone who holds units, read in pages of about this size.
    pub(crate) async fn holdings(&self, count: usize) -> Vec<Holding> {
        let (mut seen, mut holdings, mut from) =
            (BTreeSet::new(), Vec::new(), Some(Cursor::default()));
        while let Some(cursor) = from {
            let page = self.backend.holders(&self.name, cursor, count).await.unwrap();
            holdings.extend(page.holdings.into_iter().filter(|h| seen.insert(h.member.clone())));
            from = page.next;
        }
        holdings.sort_by(|a, b| a.member.cmp(&b.member));
        holdings
    }

    /// Fails unless counters, records and members agree.
    pub(crate) async fn assert_clean(&self) {
        let report = self.backend.check(&self.name).await.unwrap();
        assert!(report.is_clean(), "{report:?}");
    }
}

#[track_caller]
pub(crate) fn fence(outcome: &Outcome) -> FencingNumber {
    match outcome.granted() {
        Some(grant) => grant.fencing_number.unwrap(),
        None => panic!("expected a grant: {outcome:?}"),
    }
}

#[track_caller]
pub(crate) fn refusal(outcome: &Outcome) -> &Refusal {
    match outcome {
        Outcome::Refused(refusal) => refusal,
        Outcome::Granted(_) => panic!("expected a refusal: {outcome:?}"),
    }
}

#[track_caller]
pub(crate) fn waiting(turn: Turn) -> Ticket {
    match turn {
        Turn::Waiting(ticket) => ticket,
        Turn::Granted(_) => panic!("expected to wait: {turn:?}"),
    }
}

/// The next notice, which must come.
pub(crate) async fn notice(inbox: &mut Inbox) -> Notice {
    let next = async {
        loop {
            match inbox.notices.recv().await.unwrap() {
                Notice::Interrupted => {} // the subscription's own
                notice => return notice,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), next).await.expect("a notice comes")
}

/// Every key with its type and content, sorted.
pub(crate) fn everything(connection: &mut redis::Connection) -> Vec<(String, Vec<String>)> {
    let mut command = |words: &[&str]| -> redis::Value {
        redis::cmd(words[0]).arg(&words[1..]).query(connection).unwrap()
    };
    let texts = |value| redis::from_redis_value::<Vec<String>>(value).unwrap();
    let mut keys = texts(command(&["KEYS", "*"]));
    keys.sort();
    let content = |key: String| {
        let kind: String = redis::from_redis_value(command(&["TYPE", &key])).unwrap();
        let mut content = match kind.as_str() {
            "set" => texts(command(&["SMEMBERS", &key])),
            "hash" => {
                let flat = texts(command(&["HGETALL", &key]));
                flat.chunks(2).map(|pair| pair.join(" = ")).collect()
            }
            "zset" => {
                let flat = texts(command(&["ZRANGE", &key, "0", "-1", "WITHSCORES"]));
                flat.chunks(2).map(|pair| pair.join(" = ")).collect()
            }
            "stream" => {
                let entries: Vec<(String, Vec<String>)> =
                    redis::from_redis_value(command(&["XRANGE", &key, "-", "+"])).unwrap();
                entries
                    .into_iter()
                    .map(|(id, words)| [vec![id], words].concat().join(" "))
                    .collect()
            }
            "string" => vec![redis::from_redis_value(command(&["GET", &key])).unwrap()],
            other => panic!("{key} is a {other}"),
        };
        content.sort();
        (key, content)
    };
    keys.into_iter().map(content).collect()
}
