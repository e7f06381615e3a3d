//! What operators set for pools, applied to claims that say nothing of their own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokenpool::matchable::{
    AttributeStore, Attributes, AttributesOf, CacheConfig, Expected, PoolConstraints,
    ResourceConstraints,
};
use tokenpool::{
    Acquired, AllocationStatus, AllocationToken, Backend, Claim, Config, Error, ExecutionId, Limit,
    Manager, MemoryBackend, NoopBackend, Outcome, PluginId, PoolName, PoolRules, Priority,
    Registrar, ResourceConstraintsSpec, ResourceManager as _, ResourceNamespace,
    ResourceRegistrar as _, TaskResourceManager, TicketRequest, Turn, Wait,
};

use super::{Fixture, at, holder, memory};
use crate::support::gate::{Door, Gate};
use crate::support::server::Server;
use crate::support::{FREE, caps, claim, connect, lease, token};

every_store! { super::World::on =>
    a_raised_cap_lets_those_who_wait_go_on_in_their_order,
    a_changed_priority_and_lease_hold_for_who_waits,
    a_rule_gives_lease_and_priority_to_claims_that_bring_none,
    a_rule_that_cannot_be_read_is_an_error_and_no_free_pass,
    a_waiter_that_a_lowered_cap_stops_for_ever_is_told,
    caps_that_a_claim_brings_win_over_the_rule,
    claims_that_bring_no_caps_get_those_of_the_most_specific_place,
    rules_say_where_each_number_comes_from,
    the_weight_of_a_project_is_given_to_the_pool_and_changed,
}

/// A manager with a pool `hive:default` of ten units, and attributes with a cache.
struct World {
    manager: Manager,
    rules: PoolRules,
    set: AttributesOf<ResourceConstraints>,
    backend: Arc<dyn Backend>,
    fixture: Fixture,
}

const HIVE: &str = "hive";

fn pool() -> PoolName {
    PoolName::new("hive:default").unwrap()
}

fn namespace() -> ResourceNamespace {
    ResourceNamespace::new("default").unwrap()
}

fn entry(pool: &str) -> PoolConstraints {
    PoolConstraints { pool: pool.to_owned(), ..PoolConstraints::default() }
}

fn capped(pool: &str, project: Option<i64>, namespace: Option<i64>) -> PoolConstraints {
    PoolConstraints { project_cap: project, namespace_cap: namespace, ..entry(pool) }
}

impl World {
    async fn on(fixture: Fixture) -> Self {
        let backend: Arc<dyn Backend> = match &fixture.server {
            Some(server) => connect(&server.url()).await,
            None => Arc::new(MemoryBackend::new()),
        };
        Self::of(backend, fixture).await
    }

    async fn of(backend: Arc<dyn Backend>, fixture: Fixture) -> Self {
        let registrar = Registrar::new(Arc::clone(&backend));
        let plugin = registrar.for_plugin(PluginId::new(HIVE).unwrap());
        plugin.register_resource_quota(&namespace(), 10).unwrap();
        let manager = registrar.build().await.unwrap();
        let rules = Self::rules(Arc::clone(&fixture.store)).await;
        Self { manager, rules, set: fixture.of(), backend, fixture }
    }

    async fn rules(store: Arc<dyn AttributeStore>) -> PoolRules {
        let cache = CacheConfig::new(Duration::from_secs(3600)).unwrap();
        PoolRules::new(&Attributes::cached(store, holder("replica"), cache).await.unwrap())
    }

    /// Sets rules at a path, and waits until this process knows them.
    async fn rule(&self, path: &str, pools: &[PoolConstraints]) {
        let rule = ResourceConstraints { pools: pools.to_vec() };
        let version = self.set.replace(&at(path), rule, Expected::Any).await.unwrap().version;
        let mut names = path.split(':');
        let mut name =
            |other| names.next().filter(|name| !name.is_empty()).unwrap_or(other).to_owned();
        let execution = ExecutionId::new(&name("x"), &name("x"), "e").unwrap();
        let execution = execution.with_workflow(&name("x")).unwrap();
        let known = async {
            loop {
                let rule = self.rules.rule(&pool(), &execution).await.unwrap();
                let caps = [&rule.project_cap, &rule.namespace_cap];
                let mut versions = caps.into_iter().flatten().map(|cap| cap.version);
                let is_capped = pools.iter().any(|p| p.project_cap.or(p.namespace_cap).is_some());
                if !is_capped || versions.any(|known| known == version) {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), known).await.expect("the rule is heard of");
    }

    fn task(&self, path: &str) -> TaskResourceManager {
        let names: Vec<_> = path.split('/').collect();
        let mut execution = ExecutionId::new(names[0], names[1], names[2]).unwrap();
        if let Some(workflow) = names.get(3) {
            execution = execution.with_workflow(workflow).unwrap();
        }
        let plugin = PluginId::new(HIVE).unwrap();
        self.manager.for_execution(plugin, execution).with_rules(self.rules.clone())
    }

    async fn claim(&self, path: &str, name: &str, own: ResourceConstraintsSpec) -> Outcome {
        self.task(path).allocate(&namespace(), token(name), own).await.unwrap()
    }
}

fn limit(outcome: &Outcome) -> (Limit, u64) {
    match outcome {
        Outcome::Refused(refusal) => (refusal.limit.clone(), refusal.size),
        Outcome::Granted(grant) => panic!("{grant:?}"),
    }
}

async fn claims_that_bring_no_caps_get_those_of_the_most_specific_place(w: World) {
    w.rule("p", &[capped("hive:*", Some(2), Some(1)), capped("presto:*", Some(0), None)]).await;
    w.rule("p:d:w", &[capped("hive:default", None, Some(2))]).await;
    let status = w.task("p/d/e").allocate_resource(&namespace(), &token("1"), FREE).await.unwrap();
    assert_eq!(status, AllocationStatus::Granted);
    let (stopped, size) = limit(&w.claim("p/d/e", "2", FREE).await);
    assert_eq!((stopped.to_string().as_str(), size), ("cap of domain p:d", 1));
    // The workflow's own cap, under the project's.
    w.claim("p/d/e/w", "2", FREE).await.granted().unwrap();
    let (stopped, size) = limit(&w.claim("p/e/e", "3", FREE).await);
    assert_eq!((stopped.to_string().as_str(), size), ("cap of project p", 2));
    // Nothing is said of others.
    for name in ["1", "2", "3"] {
        w.claim("q/d/e", name, FREE).await.granted().unwrap();
    }
}

async fn caps_that_a_claim_brings_win_over_the_rule(w: World) {
    w.rule("p", &[capped("*", Some(1), Some(1))]).await;
    w.claim("p/d/e", "1", FREE).await.granted().unwrap();
    // Its own project cap, the rule's domain cap.
    let (stopped, size) = limit(&w.claim("p/d/e", "2", caps(Some(5), None)).await);
    assert_eq!((stopped.to_string().as_str(), size), ("cap of domain p:d", 1));
    w.claim("p/d/e", "2", caps(Some(5), Some(5))).await.granted().unwrap();
    let (stopped, size) = limit(&w.claim("p/d/e", "3", caps(Some(2), Some(5))).await);
    assert_eq!((stopped.to_string().as_str(), size), ("cap of project p", 2));
}

async fn a_rule_gives_lease_and_priority_to_claims_that_bring_none(w: World) {
    let rule = PoolConstraints {
        lease: Some("59m 30s".to_owned()),
        priority: Some(7),
        ..entry("hive:?efault")
    };
    w.rule("p", &[rule, capped("*", Some(10), None)]).await;
    let left = async |path: &str, name: &str| {
        let page = w.backend.holders(&pool(), Default::default(), 100).await.unwrap();
        let member = format!("ex:{}-{name}", path.replace('/', ":"));
        let holding =
            page.holdings.into_iter().find(|holding| holding.member.to_string() == member);
        holding.unwrap().lease_left.map(|left| left.as_secs() / 60)
    };
    w.claim("p/d/e", "ruled", FREE).await.granted().unwrap();
    assert_eq!(left("p/d/e", "ruled").await, Some(59));
    let own = Claim::from(token("own")).with_lease(lease(600_500));
    let outcome = w.task("p/d/e").allocate(&namespace(), own, FREE).await.unwrap();
    outcome.granted().unwrap();
    assert_eq!(left("p/d/e", "own").await, Some(10));
    let many =
        w.task("p/d/e").allocate_many(&namespace(), &[claim("many", 1)], FREE).await.unwrap();
    many[0].as_ref().unwrap().granted().unwrap();
    assert_eq!(left("p/d/e", "many").await, Some(59));
    w.claim("q/d/e", "none", FREE).await.granted().unwrap();
    assert_eq!(left("q/d/e", "none").await, None);

    // Of two that wait, the one with the rule's priority is first.
    let change = tokenpool::QueueChange::new().order(tokenpool::Order::Priority);
    w.backend.change_queue(&pool(), &change).await.unwrap();
    let ticket = TicketRequest::new(lease(600_000));
    let queue = async |path: &str, name: &str, units, ticket: &TicketRequest| {
        let task = w.task(path);
        match task.allocate_or_queue(&namespace(), claim(name, units), FREE, ticket).await.unwrap()
        {
            Turn::Waiting(ticket) => ticket.position,
            Turn::Granted(grant) => panic!("{grant:?}"),
        }
    };
    assert_eq!(queue("q/d/e", "plain", 7, &ticket).await, 1);
    assert_eq!(queue("p/d/e", "ruled too", 7, &ticket).await, 1);
    let own = ticket.with_priority(Priority::new(9).unwrap());
    assert_eq!(queue("p/d/e", "more urgent", 7, &own).await, 1);
}

async fn rules_say_where_each_number_comes_from(w: World) {
    w.rule(":d", &[capped("*", None, Some(9))]).await;
    w.rule("p", &[capped("hive:*", Some(5), Some(4))]).await;
    w.rule("p", &[capped("hive:*", Some(6), Some(4)), capped("hive:default", None, Some(3))]).await;
    let execution = ExecutionId::new("p", "d", "e").unwrap();
    let rule = w.rules.rule(&pool(), &execution).await.unwrap();
    let (project, namespace) = (rule.project_cap.unwrap(), rule.namespace_cap.unwrap());
    assert_eq!((project.value.value(), namespace.value.value()), (6, 3));
    assert_eq!(project.to_string(), "RESOURCE_CONSTRAINTS of project p for hive:*, version 2");
    let text = "RESOURCE_CONSTRAINTS of project p for hive:default, version 2";
    assert_eq!(namespace.to_string(), text);
    let of_other = ExecutionId::new("q", "d", "e").unwrap();
    let rule = w.rules.rule(&pool(), &of_other).await.unwrap();
    let text = "RESOURCE_CONSTRAINTS of domain of every project :d for *, version 1";
    assert_eq!(rule.namespace_cap.unwrap().to_string(), text);
    let of_nobody = ExecutionId::new("q", "e", "e").unwrap();
    assert_eq!(w.rules.rule(&pool(), &of_nobody).await.unwrap(), Default::default());
}

impl World {
    /// Starts to wait; returns when the claim has its ticket.
    async fn wait(
        &self,
        path: &str,
        name: &str,
    ) -> tokio::task::JoinHandle<Result<Acquired, Error>> {
        let (task, claim) = (self.task(path), Claim::from(token(name)).with_lease(lease(60_000)));
        let before = self.backend.usage(&pool()).await.unwrap().tickets;
        let waiting = tokio::spawn(async move {
            task.acquire_with(&namespace(), claim, FREE, Wait::forever()).await
        });
        let filed = async {
            while self.backend.usage(&pool()).await.unwrap().tickets == before {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), filed).await.expect("it has a ticket");
        waiting
    }
}

async fn a_raised_cap_lets_those_who_wait_go_on_in_their_order(w: World) {
    w.rule("p", &[capped("hive:*", Some(1), None)]).await;
    w.claim("p/d/e", "held", FREE).await.granted().unwrap();
    let first = w.wait("p/d/e", "first").await;
    let second = w.wait("p/d/e", "second").await;
    w.rule("p", &[capped("hive:*", Some(2), None)]).await;
    let done = tokio::time::timeout(Duration::from_secs(20), first).await.expect("it goes on");
    let Acquired::Granted(guard) = done.unwrap().unwrap() else { panic!("it was granted") };
    assert!(!second.is_finished());
    let tickets = w.backend.tickets(&pool(), Default::default(), 10).await.unwrap().tickets;
    let told: Vec<_> = tickets.iter().map(|t| (t.member.to_string(), t.project_cap)).collect();
    assert_eq!(told.len(), 1);
    assert!(told[0].0.ends_with("second"), "{told:?}");
    // What is set for less specific places does not matter, and a cap that is taken away is none.
    w.set.delete(&at("p"), Expected::Any).await.unwrap();
    let done = tokio::time::timeout(Duration::from_secs(20), second).await.expect("it goes on");
    assert!(matches!(done.unwrap(), Ok(Acquired::Granted(_))));
    guard.release().await.unwrap();
}

async fn a_changed_priority_and_lease_hold_for_who_waits(w: World) {
    let change = tokenpool::QueueChange::new().order(tokenpool::Order::Priority);
    w.backend.change_queue(&pool(), &change).await.unwrap();
    let held = w.task("q/d/e").acquire(&namespace(), claim("held", 10), FREE).await.unwrap();
    let first = w.wait("q/d/e", "first").await;
    let unleased = w.task("p/d/e");
    let second = tokio::spawn(async move {
        let wait = Wait::forever();
        unleased.acquire_with(&namespace(), claim("second", 10), FREE, wait).await
    });
    let order = async || {
        let tickets = w.backend.tickets(&pool(), Default::default(), 10).await.unwrap().tickets;
        let tokens = tickets.iter().map(|ticket| ticket.member.to_string());
        tokens.map(|member| member.rsplit('-').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let until = async |wanted: [&str; 2]| {
        let stands = async {
            while order().await != wanted {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), stands).await.expect("it stands so");
    };
    until(["first", "second"]).await;
    let rule = |priority| PoolConstraints {
        priority: Some(priority),
        lease: Some("59m 30s".to_owned()),
        ..entry("hive:*")
    };
    w.rule("p", &[rule(5)]).await;
    until(["second", "first"]).await;
    // Taken away again, it is what it would have been.
    w.set.delete(&at("p"), Expected::Any).await.unwrap();
    until(["first", "second"]).await;
    w.rule("p", &[rule(9)]).await;
    until(["second", "first"]).await;
    held.release().await.unwrap();
    let done = tokio::time::timeout(Duration::from_secs(20), second).await.expect("it goes on");
    let Acquired::Granted(guard) = done.unwrap().unwrap() else { panic!("it was granted") };
    let renewed = async {
        loop {
            let page = w.backend.holders(&pool(), Default::default(), 10).await.unwrap();
            let left = page.holdings[0].lease_left.unwrap();
            if left > Duration::from_secs(3000) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), renewed).await.expect("it has the rule's lease");
    guard.release().await.unwrap();
    first.abort();
}

async fn a_waiter_that_a_lowered_cap_stops_for_ever_is_told(w: World) {
    w.rule("p", &[capped("hive:*", Some(1), None)]).await;
    w.claim("p/d/e", "held", FREE).await.granted().unwrap();
    let waiting = w.wait("p/d/e", "waits").await;
    w.rule("p", &[capped("hive:*", Some(0), None)]).await;
    let done = tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("it is told");
    let error = done.unwrap().unwrap_err();
    assert!(matches!(error, Error::NeverGranted { size: 0, .. }), "{error}");
    assert_eq!(w.backend.usage(&pool()).await.unwrap().tickets, 0);
}

async fn the_weight_of_a_project_is_given_to_the_pool_and_changed(w: World) {
    let weights = async || {
        let usage = w.backend.usage(&pool()).await.unwrap();
        usage
            .weights
            .into_iter()
            .map(|(project, weight)| (project, weight.get()))
            .collect::<Vec<_>>()
    };
    let weighted =
        |weight| PoolConstraints { weight: Some(weight), ..capped("hive:*", Some(1), None) };
    w.rule("p", &[weighted(5)]).await;
    // For one domain only, which cannot be weighed.
    w.rule("q:d", &[weighted(6)]).await;
    for path in ["p/d/e", "q/d/e"] {
        w.claim(path, "held", FREE).await.granted().unwrap();
    }
    assert_eq!(weights().await, []);
    let (p, q) = (w.wait("p/d/e", "waits").await, w.wait("q/d/e", "waits").await);
    assert_eq!(weights().await, [("p".to_owned(), 5)]);
    w.rule("p", &[weighted(7)]).await;
    let changed = async {
        while weights().await != [("p".to_owned(), 7)] {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), changed).await.expect("it is changed");
    p.abort();
    q.abort();
}

async fn a_rule_that_cannot_be_read_is_an_error_and_no_free_pass(w: World) {
    let raw = tokenpool::matchable::Kind::unchecked(
        tokenpool::matchable::KindName::new("RESOURCE_CONSTRAINTS").unwrap(),
    );
    let raw = Attributes::new(Arc::clone(&w.fixture.store), holder("ann")).of_kind(raw);
    let broken = serde_json::json!({"pools": [{"pool": "*", "project_cap": -4}]});
    raw.update(&at("p"), broken, Expected::Any).await.unwrap();
    let refused = async {
        loop {
            let token = AllocationToken::new("t").unwrap();
            match w.task("p/d/e").allocate(&namespace(), token, FREE).await {
                Err(error) => return error,
                Ok(_) => tokio::task::yield_now().await,
            }
        }
    };
    let error =
        tokio::time::timeout(Duration::from_secs(20), refused).await.expect("it is heard of");
    assert_eq!(
        error.to_string(),
        "RESOURCE_CONSTRAINTS of p cannot be read: invalid cap \"-4\": must not be negative; 0 closes the scope"
    );
}

/// A world whose pool is on a server of its own, which knows nothing of attributes.
async fn apart(server: &Server) -> World {
    let mut config = Config::redis_at(server.url()).unwrap();
    config.redis.command_timeout = Duration::from_millis(500);
    config.redis.learning_period = Duration::ZERO;
    World::of(config.open().await.unwrap(), memory().await).await
}

#[tokio::test]
async fn a_cap_that_changed_while_the_server_was_away_holds_when_it_is_back() {
    for _ in 0..5 {
        let mut server = Server::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
        let w = apart(&server).await;
        w.rule("p", &[capped("hive:*", Some(1), None)]).await;
        w.claim("p/d/e", "held", FREE).await.granted().unwrap();
        let waiting = w.wait("p/d/e", "waits").await;
        server.kill();
        w.rule("p", &[capped("hive:*", Some(2), None)]).await;
        // Until the waiter has asked in vain: what comes first in time is not known to anybody outside.
        tokio::time::sleep(Duration::from_millis(700)).await;
        server.restart();
        let done = tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("it ends");
        match done.unwrap() {
            Ok(Acquired::Granted(_)) => return,
            // The machine was too busy to bring the server back in time, or to hear of the ticket before the server went.
            Err(error) if error.is_retryable() => {}
            other => panic!("{other:?}"),
        }
    }
    panic!("no waiter came through");
}

/// The lease that was asked for is the one that is renewed, whatever the rule says by the time of the answer.
#[tokio::test]
async fn a_lease_that_is_ruled_no_more_when_it_is_granted_is_renewed_all_the_same() {
    let server = Server::start();
    let gate = Gate::before(server.socket());
    let w = World::of(connect(&gate.url()).await, memory().await).await;
    let directly = connect(&server.url()).await;
    let leased = |lease: Option<&str>, cap| PoolConstraints {
        lease: lease.map(str::to_owned),
        ..capped("hive:*", Some(cap), None)
    };
    w.rule("p", &[leased(Some("1s"), 5)]).await;
    // Its connections are made.
    w.task("p/d/e").acquire(&namespace(), token("0"), FREE).await.unwrap().release().await.unwrap();
    gate.set(Door::Notices);
    let task = w.task("p/d/e");
    let acquiring = tokio::spawn(async move {
        let wait = Wait::forever();
        task.acquire_with(&namespace(), claim("1", 1), FREE, wait).await
    });
    let in_use = async || directly.usage(&pool()).await.unwrap().in_use;
    let granted = async {
        while in_use().await == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), granted).await.expect("it is granted");
    w.rule("p", &[leased(None, 6)]).await;
    gate.set(Door::Open);
    let Acquired::Granted(guard) = acquiring.await.unwrap().unwrap() else {
        panic!("it is granted")
    };
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(4) {
        directly.renew(&pool(), &[]).await.unwrap();
        assert!(!guard.is_lost(), "after {:?}", since.elapsed());
        assert_eq!(in_use().await, 1, "after {:?}", since.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn weights_are_given_where_the_pool_was_lost_and_are_no_reason_to_fail() {
    let server = Server::start();
    let w = apart(&server).await;
    let weighted = PoolConstraints { weight: Some(5), ..capped("hive:*", Some(1), None) };
    w.rule("p", &[weighted]).await;
    ::redis::cmd("FLUSHALL").exec(&mut server.raw()).unwrap();
    let task = w.task("p/d/e");
    let guard = task.acquire(&namespace(), token("1"), FREE).await.unwrap();
    let weights = w.backend.usage(&pool()).await.unwrap().weights;
    assert_eq!(weights["p"].get(), 5);
    guard.release().await.unwrap();
    // A backend without queues has no weights.
    let noop = Registrar::new(Arc::new(NoopBackend::new())).build().await.unwrap();
    let execution = ExecutionId::new("p", "d", "e").unwrap();
    let task = noop.for_execution(PluginId::new(HIVE).unwrap(), execution);
    let task = task.with_rules(w.rules.clone());
    let guard = task.acquire(&namespace(), token("1"), FREE).await.unwrap();
    guard.release().await.unwrap();
}

#[tokio::test]
async fn a_weight_is_given_again_when_another_process_gave_another_meanwhile() {
    let w = World::on(memory().await).await;
    let other = World::rules(Arc::clone(&w.fixture.store)).await;
    let acquire = async |rules: &PoolRules, weight: i64| {
        let weighted = PoolConstraints { weight: Some(weight), ..capped("hive:*", Some(1), None) };
        w.rule("p", &[weighted]).await;
        let execution = ExecutionId::new("p", "d", "e").unwrap();
        let task = w.manager.for_execution(PluginId::new(HIVE).unwrap(), execution);
        let task = task.with_rules(rules.clone());
        let guard = task.acquire(&namespace(), token("t"), FREE).await.unwrap();
        guard.release().await.unwrap();
        w.backend.usage(&pool()).await.unwrap().weights["p"].get()
    };
    assert_eq!(acquire(&other, 5).await, 5);
    assert_eq!(acquire(&w.rules, 7).await, 7);
    assert_eq!(acquire(&other, 5).await, 5);
    // Ruled no more, it is what it is without a rule.
    w.set.delete(&at("p"), Expected::Any).await.unwrap();
    let task = w.task("p/d/e");
    task.acquire(&namespace(), token("t"), FREE).await.unwrap().release().await.unwrap();
    assert_eq!(w.backend.usage(&pool()).await.unwrap().weights["p"].get(), 1);
}
