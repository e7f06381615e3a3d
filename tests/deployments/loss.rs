//! Data that are lost, all of them or the last: who holds units comes back, and nobody is on top of the quota.
//!
//! A server that takes over with older data is played by one whose data are put back and whose name is changed; behind sentinels
//! and in a cluster it is a real one.

use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use redis::Commands as _;
use tokenpool::{
    Acquired, Allocation, Backend, Claim, Claimant, Config, Deletion, ExecutionId, FencingNumber,
    Holder, Joint, JointOutcome, Lease, Limit, Manager, Order, Outcome, PluginId, PoolName,
    QueueChange, QuotaChange, Refusal, Registrar, Released, ResourceNamespace, ResourceRegistrar,
    Turn, Wait,
};
use tokio_util::sync::CancellationToken;

use super::{User, configuration, list};
use crate::support::clock::{Clock, server_with_clock};
use crate::support::cluster::Cluster;
use crate::support::sentinels::{Options, Sentinels};
use crate::support::server::Server;
use crate::support::{
    FREE, Fixture, Pool, caps, claim, execution, fence, fixture, lease, quota, refusal, ticket,
    token, until, waiting,
};
use crate::wire::{commands, run_id};

/// How long pools learn where the test moves the clock.
const PERIOD: Duration = Duration::from_secs(30);

fn learning(server: &Server, keys: &str) -> Config {
    let mut config = configuration(&format!("url: \"{}\"{keys}", server.url()));
    config.redis.command_timeout = Duration::from_secs(15);
    config
}

/// A pool on a server whose clock the test moves.
struct Moved {
    server: Arc<Server>,
    clock: Clock,
    f: Fixture,
}

impl Moved {
    async fn start() -> Self {
        let (server, clock) = server_with_clock();
        let server = Arc::new(server);
        let backend = learning(&server, ", learningPeriod: 30s").open().await.unwrap();
        let f = fixture(backend, Some(Arc::clone(&server)));
        Self { server, clock, f }
    }

    fn saved(&self) -> Saved {
        Saved::of(&mut self.server.raw())
    }
}

/// The data of a server at some moment.
struct Saved(Vec<(String, Vec<u8>)>);

impl Saved {
    fn of(server: &mut redis::Connection) -> Self {
        let keys: Vec<String> = server.keys("*").unwrap();
        let dump = |key: String| {
            let content = redis::cmd("DUMP").arg(&key).query(server).unwrap();
            (key, content)
        };
        Self(keys.into_iter().map(dump).collect())
    }

    /// The server is another one from now on, and has these data.
    fn take_over(&self, server: &mut redis::Connection) {
        let mut step = redis::pipe();
        step.atomic().cmd("FLUSHALL");
        for (key, content) in &self.0 {
            step.cmd("RESTORE").arg(key).arg(0).arg(content);
            if key.ends_with(":usage") {
                // As the one before it had them.
                step.hset(key, "server", "before");
            }
        }
        step.cmd("CLIENT").arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"]);
        step.exec(server).unwrap();
    }
}

/// The answer to a claim that is repeated until the connection is there again.
async fn claimed(pool: &Pool, path: &str, claim: Claim) -> Outcome {
    until("a claim is answered", async || {
        let answers = pool.claim_many(path, std::slice::from_ref(&claim), FREE).await.ok()?;
        answers.into_iter().next()?.ok()
    })
    .await
}

fn one(name: &str) -> Claim {
    claim(name, 1).with_lease(lease(20_000))
}

#[track_caller]
fn learns(outcome: &Outcome) -> Duration {
    match refusal(outcome) {
        Refusal { limit: Limit::Learning { time_left }, .. } => *time_left,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn what_was_forgotten_comes_back_before_anybody_new() {
    let moved = Moved::start().await;
    let pool = moved.f.pool(3).await;
    let known = fence(&claimed(&pool, "p/d/e", one("known")).await);
    let old = moved.saved();
    moved.clock.advance(Duration::from_secs(1));
    let forgotten = fence(&claimed(&pool, "p/d/e", one("forgotten")).await);
    moved.clock.advance(Duration::from_secs(1));
    old.take_over(&mut moved.server.raw());

    // What is known is held as before; of what is not there remain numbers that were never given here.
    let held = claimed(&pool, "p/d/e", one("known")).await;
    assert_eq!((fence(&held), held.granted().unwrap().held_before), (known, true));
    let usage = pool.usage().await;
    assert_eq!(usage.in_use, 1);
    assert_eq!(usage.learning, Some(PERIOD));
    assert!(usage.next_fencing_number > forgotten);
    assert!(usage.has_forgotten(forgotten) && !usage.has_forgotten(known), "{usage:?}");
    pool.assert_clean().await;

    // Nobody new, in whatever way it asks.
    let refused = claimed(&pool, "p/d/e", one("new")).await;
    assert_eq!(learns(&refused), PERIOD);
    assert_eq!(
        refusal(&refused).to_string(),
        "the pool learns who holds its units, for 30 s more: 1 of 3 in use"
    );
    assert_eq!(refused.status(), tokenpool::AllocationStatus::Exhausted);
    let batch = pool.claim_many("p/d/e", &[one("new"), one("known")], FREE).await.unwrap();
    assert_eq!(learns(batch[0].as_ref().unwrap()), PERIOD);
    assert!(batch[1].as_ref().unwrap().granted().unwrap().held_before);
    let (execution, holder) = (execution("p/d/e"), Holder::new("test").unwrap());
    let claimant = Claimant { execution: &execution, constraints: FREE, holder: &holder };
    let joint = Joint { pool: pool.name.clone(), claim: one("new"), constraints: FREE };
    match pool.backend.allocate_all(claimant, &[joint]).await.unwrap() {
        JointOutcome::Refused { refusal, .. } => {
            assert_eq!(refusal.limit, Limit::Learning { time_left: PERIOD });
        }
        other => panic!("{other:?}"),
    }
    // Nor who claims to come back with what was not forgotten.
    let liar = one("new").returning(known);
    assert_eq!(learns(&claimed(&pool, "p/d/e", liar).await), PERIOD);
    let waits = waiting(pool.wait("p/d/e", "waits", 1, FREE, &ticket()).await);
    assert_eq!(waits.blocked_by.limit, Limit::Learning { time_left: PERIOD });
    assert!(waits.retry_after.unwrap() <= PERIOD);

    // Who comes back passes whoever waits, but no cap, and has a larger number.
    let back = one("forgotten").returning(forgotten);
    let capped = pool.claim_many("p/d/e", std::slice::from_ref(&back), caps(Some(1), None)).await;
    assert!(capped.unwrap().remove(0).unwrap().granted().is_none());
    let again = claimed(&pool, "p/d/e", back.clone()).await;
    assert!(!again.granted().unwrap().held_before);
    assert!(fence(&again) > forgotten);
    let number = fence(&again);
    let again = claimed(&pool, "p/d/e", back).await;
    assert_eq!((fence(&again), again.granted().unwrap().held_before), (number, true));

    // Units that come back meanwhile are nobody's yet.
    assert_eq!(pool.release("p/d/e", "known").await, Released::Units(1));
    assert!(!pool.holds("p/d/e", "waits").await);
    moved.clock.advance(PERIOD - Duration::from_millis(1));
    pool.nudge().await;
    assert!(!pool.holds("p/d/e", "waits").await);
    moved.clock.advance(Duration::from_millis(1));
    pool.nudge().await;
    assert!(pool.holds("p/d/e", "waits").await);
    assert_eq!(pool.usage().await.learning, None);
    claimed(&pool, "p/d/e", one("new")).await.granted().unwrap();
    pool.assert_clean().await;
    let fields: Vec<String> = moved.server.raw().hkeys(pool.key_of("usage")).unwrap();
    assert!(!fields.iter().any(|field| field == "learns_until"), "{fields:?}");
}

/// Its ticket is there still, because only its turn was forgotten.
#[tokio::test]
async fn what_was_handed_on_and_forgotten_comes_back() {
    let moved = Moved::start().await;
    let pool = moved.f.pool(1).await;
    claimed(&pool, "p/d/e", one("first")).await.granted().unwrap();
    let ends = lease(20_000);
    let waits = Turn::Waiting(pool.queue_up("p/d/e", "second").await);
    let old = moved.saved();
    moved.clock.advance(Duration::from_secs(1));
    pool.release("p/d/e", "first").await;
    let Turn::Granted(grant) = pool.wait("p/d/e", "second", 1, FREE, &ticket()).await else {
        panic!("after {waits:?}")
    };
    old.take_over(&mut moved.server.raw());
    // What was given back is held until its lease ends, since that was forgotten, too.
    let back = claim("second", 1).with_lease(ends).returning(grant.fencing_number.unwrap());
    let full = claimed(&pool, "p/d/e", back.clone()).await;
    assert_eq!(refusal(&full).limit, Limit::Quota);
    moved.clock.advance(Duration::from_secs(20));
    let again = claimed(&pool, "p/d/e", back).await;
    assert!(Some(fence(&again)) > grant.fencing_number);
    assert_eq!(pool.usage().await.tickets, 0);
    pool.assert_clean().await;
}

/// Whoever renews, releases or revokes may be the first that a new server hears, and must not hand on what is somebody's.
#[tokio::test]
async fn no_call_hands_on_before_the_server_knows_that_it_reigns() {
    let moved = Moved::start().await;
    let pool = moved.f.pool(1).await;
    claimed(&pool, "p/d/e", one("over")).await.granted().unwrap();
    pool.queue_up("p/d/e", "waits").await;
    let old = moved.saved();
    moved.clock.advance(Duration::from_secs(20));
    for call in ["renew", "release", "revoke", "order"] {
        old.take_over(&mut moved.server.raw());
        until("an answer", async || {
            let (backend, name) = pool.handles();
            match call {
                "renew" => backend.renew(&name, &[]).await.map(drop),
                "release" => pool.release_many("p/d/e", &["over"]).await.map(drop),
                "revoke" => {
                    let member = crate::support::member("p/d/e", "over");
                    let revocation = crate::support::revocation();
                    backend.revoke(&name, &member, &revocation).await.map(drop)
                }
                _ => {
                    let change = QueueChange::new().order(Order::Priority);
                    backend.change_queue(&name, &change).await
                }
            }
            .ok()
        })
        .await;
        assert_eq!(pool.in_use().await, 0, "{call}");
        assert_eq!(pool.usage().await.learning, Some(PERIOD), "{call}");
    }
    moved.clock.advance(PERIOD);
    pool.nudge().await;
    assert!(pool.holds("p/d/e", "waits").await);
}

#[tokio::test]
async fn every_new_server_has_larger_numbers_and_the_same_one_admits_everybody() {
    let moved = Moved::start().await;
    let pool = moved.f.pool(9).await;
    let old = moved.saved();
    let mut last = None;
    for (round, name) in ["a", "b", "c"].into_iter().enumerate() {
        // A second is more than it takes.
        moved.clock.advance(PERIOD + Duration::from_secs(1));
        let number = Some(fence(&claimed(&pool, "p/d/e", one(name)).await));
        assert!(number > last, "round {round}: {number:?} after {last:?}");
        last = number;
        old.take_over(&mut moved.server.raw());
        learns(&claimed(&pool, "p/d/e", one("new")).await);
    }
    // Connections that are made again are no new server.
    moved.clock.advance(PERIOD);
    claimed(&pool, "p/d/e", one("d")).await.granted().unwrap();
    let kill = |raw: &mut redis::Connection| {
        redis::cmd("CLIENT").arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"]).exec(raw).unwrap();
    };
    kill(&mut moved.server.raw());
    claimed(&pool, "p/d/e", one("e")).await.granted().unwrap();
    assert_eq!(pool.usage().await.learning, None);
    pool.assert_clean().await;
}

/// Two failovers in a row, before everyone was back.
#[tokio::test]
async fn what_was_forgotten_before_the_last_loss_comes_back_too() {
    let moved = Moved::start().await;
    let pool = moved.f.pool(3).await;
    let old = moved.saved();
    moved.clock.advance(Duration::from_secs(1));
    let first = fence(&claimed(&pool, "p/d/e", one("first")).await);
    moved.clock.advance(Duration::from_secs(1));
    old.take_over(&mut moved.server.raw());
    learns(&claimed(&pool, "p/d/e", one("new")).await);
    moved.clock.advance(Duration::from_secs(1));
    let again = moved.saved();
    again.take_over(&mut moved.server.raw());
    let back = claimed(&pool, "p/d/e", one("first").returning(first)).await;
    assert!(fence(&back) > first);
}

#[tokio::test]
async fn a_pool_that_is_gone_learns_when_it_is_made_again() {
    let moved = Moved::start().await;
    let pool = moved.f.pool(2).await;
    let number = fence(&claimed(&pool, "p/d/e", one("1")).await);
    moved.clock.advance(Duration::from_secs(1));
    let flush = || redis::cmd("FLUSHALL").exec(&mut moved.server.raw()).unwrap();
    flush();
    pool.change_quota(QuotaChange::Restore(quota(2))).await;
    assert_eq!(learns(&claimed(&pool, "p/d/e", one("new")).await), PERIOD);
    let back = one("1").returning(number);
    assert!(fence(&claimed(&pool, "p/d/e", back.clone()).await) > number);

    // Made by somebody who does not know, it learns for what is left, from when it is known.
    flush();
    moved.clock.advance(Duration::from_secs(1));
    pool.change_quota(QuotaChange::Register(quota(2))).await;
    claimed(&pool, "p/d/e", one("lucky")).await.granted().unwrap();
    moved.clock.advance(Duration::from_secs(10));
    pool.change_quota(QuotaChange::Restore(quota(5))).await;
    let left = PERIOD - Duration::from_secs(10);
    assert_eq!(learns(&claimed(&pool, "p/d/e", one("new")).await), left);
    claimed(&pool, "p/d/e", back.clone()).await.granted().unwrap();
    assert_eq!(pool.usage().await.quota, 2, "what was registered since stays");

    // An operator knows better, and is believed.
    assert_eq!(pool.backend.end_learning(&pool.name).await.unwrap(), left);
    assert_eq!(pool.backend.end_learning(&pool.name).await.unwrap(), Duration::ZERO);
    pool.change_quota(QuotaChange::Restore(quota(2))).await;
    assert_eq!(pool.usage().await.learning, None);

    // For as long as was registered, whoever says so.
    flush();
    pool.change_quota(QuotaChange::Register(quota(2))).await;
    let ignorant = learning(&moved.server, ", learningPeriod: 0s").open().await.unwrap();
    pool.through(ignorant).change_quota(QuotaChange::Restore(quota(2))).await;
    assert_eq!(pool.usage().await.learning, Some(PERIOD));

    // Nothing of the kind when an operator makes it.
    flush();
    pool.change_quota(QuotaChange::Create(quota(2))).await;
    claimed(&pool, "p/d/e", one("new")).await.granted().unwrap();
}

#[tokio::test]
async fn ending_it_hands_on_and_the_longer_period_counts() {
    let moved = Moved::start().await;
    let pool = moved.f.pool(1).await;
    claimed(&pool, "p/d/e", one("over")).await.granted().unwrap();
    let old = moved.saved();
    // Whoever comes first after a loss need not know for how long to learn.
    let ignorant = learning(&moved.server, "").open().await.unwrap();
    old.take_over(&mut moved.server.raw());
    let other = pool.through(ignorant);
    claimed(&other, "p/d/e", one("over")).await.granted().unwrap();
    assert_eq!(pool.usage().await.learning, Some(PERIOD));
    // Whatever else ends before, what waits is told when learning does.
    moved.clock.advance(Duration::from_secs(21));
    assert_eq!(pool.queue_up("p/d/e", "waits").await.retry_after, Some(Duration::from_secs(9)));
    pool.backend.end_learning(&pool.name).await.unwrap();
    assert!(pool.holds("p/d/e", "waits").await);
}

#[tokio::test]
async fn pools_learn_when_they_are_made_if_that_is_asked_for() {
    let (server, clock) = server_with_clock();
    let config = learning(&server, ", learningPeriod: 30s, learnOnCreation: true");
    let f = fixture(config.open().await.unwrap(), Some(Arc::new(server)));
    let pool = f.pool(1).await;
    assert_eq!(learns(&claimed(&pool, "p/d/e", one("1")).await), PERIOD);
    clock.advance(PERIOD);
    claimed(&pool, "p/d/e", one("1")).await.granted().unwrap();
    // Registering it once more changes nothing.
    pool.change_quota(QuotaChange::Register(quota(2))).await;
    claimed(&pool, "p/d/e", one("2")).await.granted().unwrap();
}

#[tokio::test]
async fn a_server_is_told_once_for_each_pool_on_its_connection() {
    let server = Arc::new(Server::start());
    let open = async |connections: usize| {
        let config = learning(&server, &format!(", connections: {connections}"));
        fixture(config.open().await.unwrap(), Some(Arc::clone(&server)))
    };
    let first = open(1).await;
    let (pool, other) = (first.pool(50).await, first.another_pool().pool(50).await);
    for pool in [&pool, &other] {
        claimed(pool, "p/d/e", one("warm")).await.granted().unwrap();
    }
    let second = open(3).await;
    let mut raw = server.raw();
    for connection in ["first", "made again"] {
        redis::cmd("CONFIG").arg("RESETSTAT").exec(&mut raw).unwrap();
        for number in 0..20 {
            for pool in [&pool, &other] {
                let pool = pool.through(Arc::clone(&second.backend));
                claimed(&pool, "p/d/e", one(&number.to_string())).await.granted().unwrap();
            }
        }
        let calls = commands(&mut raw);
        assert_eq!((calls["eval"], calls["evalsha"]), (2, 40), "{connection}");
        let kill = ["KILL", "TYPE", "normal", "SKIPME", "yes"];
        redis::cmd("CLIENT").arg(&kill).exec(&mut raw).unwrap();
    }
    assert_eq!(raw.hget::<_, _, String>(pool.key_of("usage"), "server").unwrap(), run_id(&mut raw));
}

/// A pool that was deleted is another one when it is made again, also on a connection that knew it before.
#[tokio::test]
async fn a_server_is_told_of_a_pool_that_is_made_again() {
    let server = Arc::new(Server::start());
    let f = fixture(learning(&server, "").open().await.unwrap(), Some(Arc::clone(&server)));
    let pool = f.pool(1).await;
    claimed(&pool, "p/d/e", one("1")).await.granted().unwrap();
    let mut raw = server.raw();
    for change in [QuotaChange::Create(quota(1)), QuotaChange::Register(quota(1))] {
        f.backend.delete_pool(&pool.name, Deletion::EvenInUse).await.unwrap();
        pool.change_quota(change).await;
        let told: String = raw.hget(pool.key_of("usage"), "server").unwrap();
        assert_eq!(told, run_id(&mut raw));
    }
}

/// A server that does not say who it is serves all the same.
#[tokio::test]
async fn without_the_permission_to_ask_nothing_is_told() {
    let server = Server::start();
    let mut raw = server.raw();
    let user = ["SETUSER", "app", "on", ">secret", "~*", "&*", "+@all", "-info"];
    redis::cmd("ACL").arg(&user).exec(&mut raw).unwrap();
    let socket = server.socket();
    let url = format!("unix://{}?user=app&pass=secret", socket.display());
    let config = configuration(&format!("url: \"{url}\", learningPeriod: 30s"));
    let f = fixture(config.open().await.unwrap(), Some(Arc::new(server)));
    let pool = f.pool(1).await;
    claimed(&pool, "p/d/e", one("1")).await.granted().unwrap();
    assert!(!raw.hexists::<_, _, bool>(pool.key_of("usage"), "server").unwrap());
}

/// Its first server died before anybody used it there, as far as the next one knows.
#[tokio::test]
async fn a_pool_without_a_server_gives_no_number_twice() {
    let moved = Moved::start().await;
    let pool = moved.f.pool(2).await;
    let old = moved.saved();
    moved.clock.advance(Duration::from_secs(1));
    let forgotten = fence(&claimed(&pool, "p/d/e", one("forgotten")).await);
    moved.clock.advance(Duration::from_secs(1));
    let mut raw = moved.server.raw();
    old.take_over(&mut raw);
    assert!(raw.hdel::<_, _, bool>(pool.key_of("usage"), "server").unwrap());
    assert!(fence(&claimed(&pool, "p/d/e", one("new")).await) > forgotten);
}

/// Who it is, it says when the script is over: not to know it would last as long as the connection.
#[tokio::test]
async fn a_busy_server_is_asked_again_who_it_is() {
    let server = Arc::new(Server::start());
    let mut raw = server.raw();
    redis::cmd("CONFIG").arg(&["SET", "lua-time-limit", "1"]).exec(&mut raw).unwrap();
    let mut other = server.raw();
    let busy = std::thread::spawn(move || {
        redis::cmd("EVAL").arg("while true do end").arg(0).exec(&mut other).unwrap_err()
    });
    until("the server is busy", async || {
        redis::cmd("PING").exec(&mut raw).is_err_and(|e| e.code() == Some("BUSY")).then_some(())
    })
    .await;
    let opened = learning(&server, "").open().await;
    redis::cmd("SCRIPT").arg("KILL").exec(&mut raw).unwrap();
    busy.join().unwrap();
    let error = opened.expect_err("it does not say who it is");
    assert!(error.is_retryable(), "{error}");
}

/// Units can be released where there is no memory left, also on a new connection.
#[tokio::test]
async fn a_server_without_memory_is_told_too() {
    let moved = Moved::start().await;
    let pool = moved.f.pool(1).await;
    claimed(&pool, "p/d/e", one("1")).await.granted().unwrap();
    let old = moved.saved();
    moved.clock.advance(Duration::from_secs(1));
    let mut raw = moved.server.raw();
    old.take_over(&mut raw);
    redis::cmd("CONFIG").arg(&["SET", "maxmemory", "1"]).exec(&mut raw).unwrap();
    let released =
        until("a release is answered", async || pool.release_many("p/d/e", &["1"]).await.ok());
    assert_eq!(released.await, [Released::Units(1)]);
    assert_eq!(pool.usage().await.learning, Some(PERIOD));
}

// From here on time is what it is, because leases are renewed by it.

const QUOTA: usize = 8;
const LEASE: Duration = Duration::from_millis(1500);

fn hive() -> PoolName {
    PoolName::new("hive:default").unwrap()
}

/// A process: a manager with a backend of its own.
async fn process(config: &Config) -> (Manager, Arc<dyn Backend>) {
    let backend = config.open().await.unwrap();
    let registrar = Registrar::new(Arc::clone(&backend));
    let plugin = registrar.for_plugin(PluginId::new("hive").unwrap());
    let namespace = ResourceNamespace::new("default").unwrap();
    plugin.register_resource_quota(&namespace, i64::try_from(QUOTA).unwrap()).unwrap();
    (registrar.build().await.unwrap(), backend)
}

fn e() -> ExecutionId {
    execution("p/d/e")
}

fn leased(name: &str, length: Duration) -> Claim {
    claim(name, 1).with_lease(Lease::new(length).unwrap())
}

async fn acquire(manager: &Manager, claim: Claim) -> Allocation {
    match manager.acquire(&hive(), &e(), claim, FREE, Wait::forever()).await.unwrap() {
        Acquired::Granted(allocation) => allocation,
        other => panic!("{other:?}"),
    }
}

async fn holders(manager: &Manager, names: Range<usize>, length: Duration) -> Vec<Allocation> {
    let mut held = Vec::new();
    for name in names {
        held.push(acquire(manager, leased(&format!("holder-{name}"), length)).await);
    }
    held
}

/// What newcomers get, and whether they ever got more than is free, as they see it themselves.
struct Newcomers {
    stop: CancellationToken,
    /// The numbers of what they have.
    got: Arc<Mutex<Vec<FencingNumber>>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Newcomers {
    /// So many, of whom every other one waits for its turn; each keeps what it gets.
    fn start(manager: &Manager, count: usize, length: Duration) -> Self {
        let (stop, got) = (CancellationToken::new(), Arc::<Mutex<Vec<_>>>::default());
        let newcomer = |number: usize| {
            let (manager, stop, got) = (manager.clone(), stop.clone(), Arc::clone(&got));
            tokio::spawn(async move {
                let name = format!("new-{number}");
                let mut held = None;
                while held.is_none() && !stop.is_cancelled() {
                    let claim = leased(&name, length);
                    let acquired = match number % 2 {
                        0 => manager.try_acquire(&hive(), &e(), claim, FREE).await,
                        _ => {
                            let wait = Wait::within(Duration::from_millis(300)).unwrap();
                            manager.acquire(&hive(), &e(), claim, FREE, wait).await
                        }
                    };
                    held = acquired.ok().and_then(Acquired::granted);
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                if let Some(held) = &held {
                    got.lock().unwrap().push(held.fencing_number().unwrap());
                }
                stop.cancelled().await;
            })
        };
        let tasks = (0..count).map(newcomer).collect();
        Self { stop, got, tasks }
    }

    fn got(&self) -> usize {
        self.got.lock().unwrap().len()
    }

    async fn end(self) {
        self.stop.cancel();
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}

/// Watches for this long what holders and newcomers have, as they see it themselves.
async fn judge(held: &[Allocation], newcomers: &Newcomers, time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        let certain = held.iter().filter(|held| !held.is_lost()).count();
        let all = certain + newcomers.got();
        assert!(all <= QUOTA, "{certain} held, and {} by newcomers", newcomers.got());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn numbers(held: &[Allocation]) -> Vec<FencingNumber> {
    held.iter().map(|held| held.fencing_number().unwrap()).collect()
}

async fn survives_without_data(lose: impl AsyncFnOnce(), config: &Config) {
    let (owner, backend) = process(config).await;
    let (other, _) = process(config).await;
    let mut held = holders(&owner, 0..QUOTA, LEASE).await;
    let before = numbers(&held);
    let newcomers = Newcomers::start(&other, 50, LEASE);
    judge(&held, &newcomers, Duration::from_millis(200)).await;
    lose().await;
    // Longer than anybody learns.
    judge(&held, &newcomers, 3 * LEASE).await;
    assert!(held.iter().all(|held| !held.is_lost()), "all keep their units");
    for (before, after) in before.iter().zip(numbers(&held)) {
        assert!(after > *before);
    }
    assert_eq!(newcomers.got(), 0);
    assert_eq!(backend.usage(&hive()).await.unwrap().in_use, QUOTA as u64);
    // What is given back is there for newcomers.
    for allocation in held.drain(..3) {
        allocation.release().await.unwrap();
    }
    until("newcomers have what was given back", async || (newcomers.got() == 3).then_some(()))
        .await;
    judge(&held, &newcomers, LEASE).await;
    newcomers.end().await;
    assert!(backend.check(&hive()).await.unwrap().is_clean());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_holders_survive_a_flush_among_fifty_newcomers() {
    let server = Server::start();
    let config = learning(&server, ", learningPeriod: 1500ms");
    let flush = async || redis::cmd("FLUSHALL").exec(&mut server.raw()).unwrap();
    survives_without_data(flush, &config).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_holders_survive_a_restart_that_keeps_nothing() {
    let mut server = Server::start();
    let config = learning(&server, ", learningPeriod: 1500ms");
    survives_without_data(async || server.restart(), &config).await;
}

/// One key after the other, each alone: as a server throws keys away whose memory is full.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_holders_survive_the_loss_of_any_key() {
    let server = Server::start();
    let config = learning(&server, ", learningPeriod: 1500ms");
    let (owner, backend) = process(&config).await;
    let (other, _) = process(&config).await;
    let mut held = holders(&owner, 0..QUOTA, LEASE).await;
    let newcomers = Newcomers::start(&other, 20, LEASE);
    let pool = format!("redisresourcemanager:{}", hive());
    let others = ["usage", "grants", "leases", "tickets", "queue", "lines", "turns"];
    let keys: Vec<_> = others.iter().map(|key| format!("{{{pool}}}:{key}")).collect();
    for key in [pool].iter().chain(&keys) {
        let lost = async || server.raw().del::<_, bool>(key).unwrap().then_some(());
        until("it is there and lost", lost).await;
        judge(&held, &newcomers, LEASE).await;
        assert!(held.iter().all(|held| !held.is_lost()), "{key}");
        backend.repair(&hive()).await.unwrap();
        assert_eq!(backend.usage(&hive()).await.unwrap().in_use, QUOTA as u64, "{key}");
    }
    judge(&held, &newcomers, LEASE).await;
    assert_eq!(newcomers.got(), 0);
    for allocation in held.drain(..3) {
        allocation.release().await.unwrap();
    }
    until("newcomers have what was given back", async || (newcomers.got() == 3).then_some(()))
        .await;
    newcomers.end().await;
    assert!(backend.check(&hive()).await.unwrap().is_clean());
}

/// Several keys may go at once, and again and again. Then holders may lose what they have, and know it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_granted_on_top_where_a_server_throws_keys_away() {
    let server = Server::start_with(&["--maxmemory-policy", "allkeys-random"]);
    let config = learning(&server, ", learningPeriod: 1500ms");
    let (owner, backend) = process(&config).await;
    let (other, _) = process(&config).await;
    let held = holders(&owner, 0..QUOTA, LEASE).await;
    let newcomers = Newcomers::start(&other, 20, LEASE);
    let fill = |server: &mut redis::Connection, key: u32| {
        server.set::<_, _, ()>(format!("filler-{key}"), "x".repeat(100_000)).unwrap();
    };
    let stat = |section: &str, field: &str| -> u64 {
        let said: redis::InfoDict =
            redis::cmd("INFO").arg(section).query(&mut server.raw()).unwrap();
        said.get(field).unwrap()
    };
    let mut raw = server.raw();
    let room = (stat("memory", "used_memory") + 3_000_000).to_string();
    redis::cmd("CONFIG").arg(&["SET", "maxmemory", &room]).exec(&mut raw).unwrap();
    let mut next = 0;
    // Some thirty are there at a time, so each key of the pool goes several times.
    while stat("stats", "evicted_keys") < 300 {
        for _ in 0..10 {
            fill(&mut raw, next);
            next += 1;
        }
        judge(&held, &newcomers, Duration::from_millis(50)).await;
    }
    redis::cmd("CONFIG").arg(&["SET", "maxmemory", "0"]).exec(&mut raw).unwrap();
    judge(&held, &newcomers, 2 * LEASE).await;
    newcomers.end().await;
    backend.repair(&hive()).await.unwrap();
    assert!(backend.check(&hive()).await.unwrap().is_clean());
    let certain = held.iter().filter(|held| !held.is_lost()).count() as u64;
    assert!(backend.usage(&hive()).await.unwrap().in_use >= certain);
}

/// Nobody who comes first knows that there was a pool.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_holders_survive_a_flush_where_new_processes_come_first() {
    let server = Server::start();
    let config = learning(&server, ", learningPeriod: 1500ms, learnOnCreation: true");
    let (owner, _) = process(&config).await;
    let held = holders(&owner, 0..QUOTA, LEASE).await;
    redis::cmd("FLUSHALL").exec(&mut server.raw()).unwrap();
    let (other, _) = process(&config).await;
    let newcomers = Newcomers::start(&other, 10, LEASE);
    judge(&held, &newcomers, 3 * LEASE).await;
    assert!(held.iter().all(|held| !held.is_lost()), "all keep their units");
    newcomers.end().await;
}

/// Who gave the unit back holds it still in what is left, until the lease ends; who has it really asks until then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_comes_back_when_the_one_before_it_is_over() {
    let server = Server::start();
    let config = learning(&server, ", learningPeriod: 6s");
    let (manager, backend) = process(&config).await;
    let (execution, holder) = (e(), Holder::new("test").unwrap());
    let claimant = Claimant { execution: &execution, constraints: FREE, holder: &holder };
    let units = i64::try_from(QUOTA).unwrap();
    let before = claim("before", units).with_lease(lease(3000));
    let answers = backend.allocate(&hive(), claimant, &[before]).await.unwrap();
    answers[0].as_ref().unwrap().granted().unwrap();
    let old = Saved::of(&mut server.raw());
    let tokens = [token("before")];
    backend.release(&hive(), &execution, &tokens).await.unwrap();
    let held = acquire(&manager, leased("really", 4 * LEASE)).await;
    let number = held.fencing_number();
    old.take_over(&mut server.raw());
    until("it has come back", async || {
        assert!(!held.is_lost());
        (held.fencing_number() > number).then_some(())
    })
    .await;
    assert_eq!(backend.usage(&hive()).await.unwrap().in_use, 1);
}

/// Who only uses a pool cannot make it again, and comes back when somebody has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_of_somebody_elses_pool_comes_back_too() {
    let server = Server::start();
    let config = learning(&server, ", learningPeriod: 12s");
    let (_, backend) = process(&config).await;
    let user =
        Manager::attach(config.open().await.unwrap(), [hive()], Holder::new("user").unwrap());
    let held = acquire(&user, leased("held", 8 * LEASE)).await;
    let number = held.fencing_number();
    let mut raw = server.raw();
    redis::cmd("FLUSHALL").exec(&mut raw).unwrap();
    let calls = |raw: &mut redis::Connection| commands(raw)["evalsha"];
    let before = calls(&mut raw);
    // A renewal, a look at the pool, and a claim that finds none.
    until("it is missed", async || (calls(&mut raw) >= before + 3).then_some(())).await;
    assert!(!held.is_lost());
    backend.change_quota(&hive(), QuotaChange::Restore(quota(8))).await.unwrap();
    until("it has come back", async || {
        assert!(!held.is_lost());
        (held.fencing_number() > number).then_some(())
    })
    .await;
}

/// Nobody else calls: the waiting claim's own ticket is looked after when learning is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waits_has_its_turn_when_learning_is_over() {
    let server = Server::start();
    let (manager, _) = process(&learning(&server, ", learningPeriod: 1s")).await;
    redis::cmd("FLUSHALL").exec(&mut server.raw()).unwrap();
    let start = Instant::now();
    let waits: Vec<_> = (0..5)
        .map(|number| {
            let manager = manager.clone();
            tokio::spawn(async move {
                acquire(&manager, leased(&format!("waits-{number}"), LEASE)).await
            })
        })
        .collect();
    for waits in waits {
        drop(waits.await.unwrap());
        let took = start.elapsed();
        assert!(took >= Duration::from_secs(1), "{took:?}");
        // At most two seconds pass between two looks at a ticket.
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
}

fn behind(sentinels: &Sentinels, keys: &str) -> Config {
    let (hosts, name) = (list(&sentinels.host_paths()), sentinels.name());
    configuration(&format!("hostPaths: {hosts}, primaryName: {name}{keys}"))
}

/// Cuts the replicas off, so that what is granted from now on is forgotten by whoever takes over.
async fn cut_off(sentinels: &Sentinels) {
    let primary = sentinels.primary().await;
    for address in sentinels.servers().iter().filter(|address| **address != primary) {
        redis::cmd("REPLICAOF").arg(&["127.0.0.1", "1"]).exec(&mut sentinels.raw(address)).unwrap();
    }
}

/// Outlasts a failover.
const LONG_LEASE: Duration = Duration::from_secs(20);

/// A failover to a replica that knows some of the holders, and the others not.
struct FailedOver {
    _sentinels: Sentinels,
    backend: Arc<dyn Backend>,
    held: Vec<Allocation>,
    /// Their numbers before it.
    before: Vec<FencingNumber>,
    newcomers: Newcomers,
}

impl FailedOver {
    async fn new(keys: &str, lease: Duration) -> Self {
        let mut sentinels = Sentinels::start(&Options::default()).await;
        let config = behind(&sentinels, keys);
        let ((owner, _), (other, backend)) = (process(&config).await, process(&config).await);
        let mut held = holders(&owner, 0..3, lease).await;
        sentinels.until_whole().await;
        cut_off(&sentinels).await;
        held.extend(holders(&owner, 3..QUOTA, lease).await);
        let before = numbers(&held);
        let old = sentinels.kill_primary().await;
        let newcomers = Newcomers::start(&other, 20, LONG_LEASE);
        sentinels.until_primary_is_not(&old).await;
        Self { _sentinels: sentinels, backend, held, before, newcomers }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_to_an_older_replica_grants_nothing_on_top() {
    let over = FailedOver::new(", learningPeriod: 20s", LONG_LEASE).await;
    let FailedOver { backend, held, before, newcomers, .. } = &over;
    let largest = *before.iter().max().unwrap();
    until("the forgotten are back", async || {
        judge(held, newcomers, Duration::from_millis(50)).await;
        let are_back = numbers(&held[3..]).iter().all(|number| *number > largest);
        are_back.then_some(())
    })
    .await;
    assert!(held.iter().all(|held| !held.is_lost()), "all keep their units");
    assert_eq!(numbers(&held[..3]), before[..3], "what is known keeps its number");
    let usage = backend.usage(&hive()).await.unwrap();
    assert_eq!((usage.in_use, newcomers.got()), (QUOTA as u64, 0));
    // Learning ends, and nothing is free.
    assert!(backend.end_learning(&hive()).await.unwrap() > Duration::ZERO);
    judge(held, newcomers, Duration::from_secs(1)).await;
    assert_eq!(newcomers.got(), 0);
    over.newcomers.end().await;
}

/// What `learningPeriod` is for. Numbers tell who is right, all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_learning_units_may_be_granted_twice_but_no_number_is() {
    // Renewed after a third, and no sooner: else the forgotten may be back before anybody else.
    let over = FailedOver::new("", 3 * LONG_LEASE).await;
    let FailedOver { held, before, newcomers, .. } = &over;
    until("newcomers are admitted", async || (newcomers.got() == QUOTA - 3).then_some(())).await;
    let certain = held.iter().filter(|held| !held.is_lost()).count();
    assert!(certain + newcomers.got() > QUOTA, "{certain} held");
    let largest = *before.iter().max().unwrap();
    let got = newcomers.got.lock().unwrap().clone();
    assert!(got.iter().all(|number| *number > largest), "{got:?} after {before:?}");
    // They learn of it when they renew.
    until("the forgotten are lost", async || {
        held[3..].iter().all(Allocation::is_lost).then_some(())
    })
    .await;
    assert!(held[..3].iter().all(|held| !held.is_lost()));
    over.newcomers.end().await;
}

/// Nothing is lost, which nobody can know; so newcomers wait all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planned_failover_keeps_numbers_and_newcomers_wait() {
    let sentinels = Sentinels::start(&Options::default()).await;
    let config = behind(&sentinels, ", learningPeriod: 5s");
    let ((owner, backend), (other, _)) = (process(&config).await, process(&config).await);
    let held = holders(&owner, 0..3, LONG_LEASE).await;
    let before = numbers(&held);
    sentinels.until_whole().await;
    sentinels.failover().await;
    let refused = until("somebody answers", async || {
        let acquired = other.try_acquire(&hive(), &e(), leased("new", LONG_LEASE), FREE).await;
        match acquired.ok()? {
            Acquired::Refused(refusal) => Some(refusal),
            other => panic!("{other:?}"),
        }
    });
    assert!(matches!(refused.await.limit, Limit::Learning { .. }));
    drop(acquire(&other, leased("new", LONG_LEASE)).await);
    assert_eq!(numbers(&held), before);
    assert!(held.iter().all(|held| !held.is_lost()));
    assert!(backend.check(&hive()).await.unwrap().is_clean());
}

#[tokio::test]
async fn a_replica_that_takes_over_in_a_cluster_begins_a_reign() {
    let cluster = Cluster::start(3, 1).await;
    let keys = format!("hostPaths: {}, cluster: true", list(&cluster.host_paths()));
    let user = User::new(&format!("{keys}, learningPeriod: 1s"), "reign").await;
    let number = fence(&user.claim("1").await.unwrap());
    cluster.until_ok().await;
    let owner = cluster.owner(&user.key()).await;
    let replica = cluster.replicas(owner).await[0];
    cluster.failover(replica).await;
    let (held, _) = user.claimed("1").await;
    assert_eq!((fence(&held), held.granted().unwrap().held_before), (number, true));
    let (refused, _) = user.claimed("2").await;
    learns(&refused);
    let admitted = until("it has learnt", async || {
        user.claimed("2").await.0.granted().and_then(|grant| grant.fencing_number)
    });
    assert!(admitted.await > number);

    // A slot that moves looks like that, too.
    let owner = cluster.owner(&user.key()).await;
    let to = cluster.nodes().find(|node| *node < 3 && *node != owner).unwrap();
    cluster.move_slot(cluster.slot(&user.key()), to).await;
    learns(&user.claimed("3").await.0);
}
