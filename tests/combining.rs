//! Calls of many callers at once on one pool: which go together, what each is answered, and what becomes of those whose callers
//! leave. That answers and state are the same as one by one is for `sequences`.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use redis::Commands;
use tokenpool::{
    Backend, Claimant, Config, Error, Holder, Limit, Outcome, PoolName, Released, Result,
};
use tokio::runtime::{Builder, Runtime};

use crate::support::fake::{Answer, Fake};
use crate::support::gate::{Door, Gate};
use crate::support::proxy::Proxy;
use crate::support::server::Server;
use crate::support::{
    FREE, Pool, claim, connect, everything, execution, fixture, lease, member, redis_on, refusal,
    token, until,
};
use crate::wire::commands;

const A: &str = "p/d/e";

/// One caller's call.
type Call<T> = Pin<Box<dyn Future<Output = Result<T>> + Send>>;

fn claiming(
    (backend, pool): (Arc<dyn Backend>, PoolName),
    path: &str,
    name: &str,
) -> Call<Outcome> {
    let (execution, claim) = (execution(path), claim(name, 1));
    Box::pin(async move {
        let holder = Holder::new("test").unwrap();
        let claimant = Claimant { execution: &execution, constraints: FREE, holder: &holder };
        backend.allocate(&pool, claimant, &[claim]).await?.remove(0)
    })
}

fn releasing(
    (backend, pool): (Arc<dyn Backend>, PoolName),
    path: &str,
    name: &str,
) -> Call<Released> {
    let (execution, token) = (execution(path), token(name));
    Box::pin(async move { Ok(backend.release(&pool, &execution, &[token]).await?[0]) })
}

impl Pool {
    fn claiming(&self, name: &str) -> Call<Outcome> {
        claiming(self.handles(), A, name)
    }

    fn releasing(&self, name: &str) -> Call<Released> {
        releasing(self.handles(), A, name)
    }

    /// Has something under way when others are made.
    async fn busy(&self) -> Answers<Released> {
        Answers::of([self.releasing("not held")]).await
    }

    /// What callers of their own are answered who claim at once.
    async fn claim_at_once(&self, names: &[&str]) -> Vec<Result<Outcome>> {
        let busy = self.busy().await;
        let answers = Answers::of(names.iter().map(|name| self.claiming(name))).await.all().await;
        busy.all().await;
        answers
    }

    async fn release_at_once(&self, names: &[&str]) -> Vec<Result<Released>> {
        let busy = self.busy().await;
        let answers = Answers::of(names.iter().map(|name| self.releasing(name))).await.all().await;
        busy.all().await;
        answers
    }
}

/// Answers that may not have come.
struct Answers<T>(Vec<tokio::task::JoinHandle<Result<T>>>);

impl<T: Send + 'static> Answers<T> {
    /// Makes calls in this order.
    async fn of(calls: impl IntoIterator<Item = Call<T>>) -> Self {
        Self(calls.into_iter().map(tokio::spawn).collect())
    }

    async fn all(self) -> Vec<Result<T>> {
        let mut answers = Vec::new();
        for answer in self.0 {
            answers.push(answer.await.unwrap());
        }
        answers
    }
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}

fn borrowed(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

/// Counts the scripts that were called since it was asked last.
fn sent(server: &mut redis::Connection) -> u64 {
    let calls = commands(server);
    redis::cmd("CONFIG").arg("RESETSTAT").exec(server).unwrap();
    ["evalsha", "eval"].iter().filter_map(|name| calls.get(*name)).sum()
}

/// A pool whose scripts the server knows, and what looks at it.
async fn warm(units: i64) -> (Pool, redis::Connection) {
    warm_on(Server::start(), units).await
}

async fn warm_on(server: Server, units: i64) -> (Pool, redis::Connection) {
    let pool = redis_on(server).await.pool(units).await;
    for _ in 0..2 {
        pool.claim(A, "warm").await.granted().unwrap();
        pool.release(A, "warm").await;
        pool.claim_at_once(&["1", "2"]).await;
        pool.release_at_once(&["1", "2"]).await;
    }
    let mut raw = pool.raw();
    sent(&mut raw);
    (pool, raw)
}

#[tokio::test]
async fn calls_at_once_are_one_command_and_a_few_are_one_each() {
    let (pool, mut raw) = warm(1_000).await;
    for (count, commands) in [(1, 1 + 1), (2, 1 + 1), (50, 1 + 1), (100, 1 + 1), (250, 1 + 3)] {
        let names = names(count);
        for answer in pool.claim_at_once(&borrowed(&names)).await {
            answer.unwrap().granted().unwrap();
        }
        assert_eq!(sent(&mut raw), commands, "{count} claims");
        assert_eq!(pool.in_use().await, u64::try_from(count).unwrap());
        sent(&mut raw);
        for answer in pool.release_at_once(&borrowed(&names)).await {
            assert_eq!(answer.unwrap(), Released::Units(1));
        }
        assert_eq!(sent(&mut raw), commands, "{count} releases");
    }
    // Nobody waits for anybody where there is nobody else.
    pool.claim(A, "alone").await.granted().unwrap();
    pool.release(A, "alone").await;
    assert_eq!(sent(&mut raw), 2);
    assert_eq!(pool.in_use().await, 0);
    pool.assert_clean().await;
}

#[tokio::test]
async fn what_is_given_back_is_granted_to_whoever_claims_at_once() {
    let (pool, mut raw) = warm(3).await;
    for name in ["a", "b", "c"] {
        pool.claim(A, name).await.granted().unwrap();
    }
    sent(&mut raw);
    let busy = pool.busy().await;
    let claims = Answers::of(["x", "y", "z"].map(|name| pool.claiming(name))).await;
    let releases = Answers::of(["a", "b"].map(|name| pool.releasing(name))).await;
    let claims: Vec<_> = claims.all().await.into_iter().map(Result::unwrap).collect();
    assert!(claims[0].granted().is_some() && claims[1].granted().is_some());
    let refusal = refusal(&claims[2]);
    assert_eq!((refusal.limit.clone(), refusal.in_use, refusal.size), (Limit::Quota, 3, 3));
    for released in releases.all().await {
        assert_eq!(released.unwrap(), Released::Units(1));
    }
    busy.all().await;
    assert_eq!(sent(&mut raw), 2);
    pool.assert_clean().await;
}

/// What Flyte put there, and what somebody broke.
#[tokio::test]
async fn what_others_wrote_is_answered_as_to_a_single_caller() {
    let f = redis_on(Server::start()).await;
    let mut seen = Vec::new();
    for together in [false, true] {
        let pool = f.another_pool().pool(4).await;
        pool.claim(A, "broken").await.granted().unwrap();
        pool.claim(A, "removed").await.granted().unwrap();
        let (mut raw, broken) = (pool.raw(), member(A, "broken"));
        let _: () = raw.hset(pool.key_of("grants"), broken.as_str(), "no record").unwrap();
        let _: () = raw.srem(pool.key(), member(A, "removed").as_str()).unwrap();
        for name in ["flyte's", "its second", "its third"] {
            let _: () = raw.sadd(pool.key(), member(A, name).as_str()).unwrap();
        }
        let claims = ["removed", "flyte's", "new", "its second"];
        let releases = ["its third", "nobody's", "broken"];
        let (mut claimed, mut released) = (Vec::new(), Vec::new());
        if together {
            claimed = pool.claim_at_once(&claims).await;
            released = pool.release_at_once(&releases).await;
        } else {
            for name in claims {
                claimed.push(pool.claiming(name).await);
            }
            for name in releases {
                released.push(pool.releasing(name).await);
            }
        }
        let granted =
            |answer: Result<Outcome>| answer.unwrap().granted().map(|grant| grant.held_before);
        let claimed: Vec<_> = claimed.into_iter().map(granted).collect();
        let released: Vec<_> = released.into_iter().map(Result::unwrap).collect();
        let members: BTreeSet<String> = raw.smembers(pool.key()).unwrap();
        let report = pool.backend.check(&pool.name).await.unwrap();
        seen.push((claimed, released, members, pool.in_use().await, report));
    }
    assert_eq!(seen[0], seen[1]);
    let (claimed, released, ..) = &seen[1];
    assert_eq!(*claimed, [Some(true), Some(false), Some(false), Some(false)]);
    assert_eq!(released[..2], [Released::Units(0), Released::NotHeld]);
}

#[tokio::test]
async fn whoever_waits_has_others_go_one_by_one_for_a_while() {
    let server = Server::start();
    let url = server.url();
    let (pool, mut raw) = warm_on(server, 1).await;
    pool.claim(A, "held").await.granted().unwrap();
    // Filed by another process, of which this one knows nothing.
    pool.through(connect(&url).await).queue_up(A, "waits").await;
    sent(&mut raw);
    for (round, commands) in [("asked once", 2 + 1 + 10), ("known", 1 + 10)] {
        for answer in pool.claim_at_once(&borrowed(&names(10))).await {
            assert_eq!(refusal(&answer.unwrap()).limit, Limit::Quota);
        }
        // Who is under way is told once that it needs all keys.
        assert_eq!(sent(&mut raw), commands, "{round}");
    }
    pool.release(A, "waits").await;
    sent(&mut raw);
    until("together again", async || {
        pool.claim_at_once(&borrowed(&names(10))).await;
        (sent(&mut raw) == 2).then_some(())
    })
    .await;
}

/// Since the pool has another server than before.
#[tokio::test]
async fn nobody_new_is_admitted_while_the_pool_learns() {
    let server = Arc::new(Server::start());
    let mut config = Config::redis_at(server.url()).unwrap();
    config.redis.learning_period = Duration::from_secs(600);
    let backend = config.open().await.unwrap();
    let pool = fixture(backend, Some(server)).pool(100).await;
    for answer in pool.claim_at_once(&["held", "too"]).await {
        answer.unwrap().granted().unwrap();
    }
    let mut raw = pool.raw();
    let _: () = raw.hset(pool.key_of("usage"), "server", "before").unwrap();
    redis::cmd("CLIENT").arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"]).exec(&mut raw).unwrap();
    let _ = until("connected again", async || pool.claiming("held").await.ok()).await;
    for _ in 0..2 {
        let answers = pool.claim_at_once(&["1", "2", "held", "3", "too"]).await;
        for (name, answer) in ["1", "2", "held", "3", "too"].iter().zip(answers) {
            match (*name, answer.unwrap()) {
                ("held" | "too", outcome) => assert!(outcome.granted().unwrap().held_before),
                (_, outcome) => {
                    assert!(
                        matches!(refusal(&outcome).limit, Limit::Learning { .. }),
                        "{outcome:?}"
                    );
                }
            }
        }
    }
    assert_eq!(pool.in_use().await, 2);
}

/// Whose calls and notices about a token keep their order.
#[tokio::test]
async fn what_a_keeper_calls_goes_one_by_one() {
    let (pool, mut raw) = warm(100).await;
    let keeper = pool.through(pool.backend.detached().await.unwrap());
    keeper.claim(A, "first of its connection").await.granted().unwrap();
    sent(&mut raw);
    for answer in keeper.claim_at_once(&borrowed(&names(20))).await {
        answer.unwrap().granted().unwrap();
    }
    assert_eq!(sent(&mut raw), 1 + 20);
}

#[tokio::test]
async fn scripts_that_were_flushed_are_loaded_again() {
    let (pool, mut raw) = warm(100).await;
    redis::cmd("SCRIPT").arg("FLUSH").exec(&mut raw).unwrap();
    let names = names(20);
    for answer in pool.claim_at_once(&borrowed(&names)).await {
        answer.unwrap().granted().unwrap();
    }
    assert_eq!(pool.in_use().await, 20);
}

#[tokio::test]
async fn a_pool_that_is_gone_is_what_each_is_told() {
    let (pool, mut raw) = warm(100).await;
    let _: () = raw.del(pool.keys()).unwrap();
    for answer in pool.claim_at_once(&["1", "2", "3"]).await {
        assert!(matches!(answer, Err(Error::UnknownNamespace { .. })), "{answer:?}");
    }
}

#[tokio::test]
async fn a_server_without_memory_refuses_claims_and_takes_back() {
    let (pool, mut raw) = warm(100).await;
    for name in ["1", "2", "3"] {
        pool.claim(A, name).await.granted().unwrap();
    }
    let mut memory = |limit: &str| {
        redis::cmd("CONFIG").arg(&["SET", "maxmemory", limit]).exec(&mut raw).unwrap();
    };
    memory("1");
    for answer in pool.claim_at_once(&["4", "5", "6"]).await {
        let Err(Error::Server { source, .. }) = answer else { panic!("{answer:?}") };
        assert!(source.to_string().contains("OOM"), "{source}");
    }
    for answer in pool.release_at_once(&["1", "2"]).await {
        assert_eq!(answer.unwrap(), Released::Units(1));
    }
    memory("0");
    assert_eq!(pool.in_use().await, 1);
    pool.assert_clean().await;
}

#[tokio::test]
async fn somebody_elses_data_is_named_to_each() {
    for (what, kind) in [("", "set"), ("usage", "hash"), ("grants", "hash")] {
        let (pool, mut raw) = warm(100).await;
        let key = if what.is_empty() { pool.key() } else { pool.key_of(what) };
        let _: () = raw.del(&key).unwrap();
        let _: () = raw.set(&key, "mine").unwrap();
        for answer in pool.claim_at_once(&["1", "2", "3"]).await {
            let error = answer.unwrap_err();
            let Error::WrongType { key: named, expected, found } = &error else {
                panic!("{error}")
            };
            assert_eq!((named, *expected, found.as_str()), (&key, kind, "string"));
        }
        assert_eq!(raw.get::<_, String>(&key).unwrap(), "mine");
        assert_eq!(pool.backend.pools().await.unwrap(), std::slice::from_ref(&pool.name));
    }
}

/// Nothing is left behind, of leases neither.
#[tokio::test]
async fn what_was_claimed_and_given_back_at_once_leaves_nothing_behind() {
    let (pool, mut raw) = warm(100).await;
    let before = everything(&mut raw);
    let names = names(20);
    let leased = |name: &String| {
        let (name, (backend, pool)) = (name.clone(), pool.handles());
        Box::pin(async move {
            let claim = claim(&name, 1).with_lease(lease(600_000));
            let (execution, holder) = (execution(A), Holder::new("test").unwrap());
            let claimant = Claimant { execution: &execution, constraints: FREE, holder: &holder };
            backend.allocate(&pool, claimant, &[claim]).await?.remove(0)
        }) as Call<Outcome>
    };
    let busy = pool.busy().await;
    for answer in Answers::of(names.iter().map(leased)).await.all().await {
        answer.unwrap().granted().unwrap();
    }
    busy.all().await;
    assert_eq!(raw.zcard::<_, u64>(pool.key_of("leases")).unwrap(), 20);
    for answer in pool.release_at_once(&borrowed(&names)).await {
        assert_eq!(answer.unwrap(), Released::Units(1));
    }
    // But when the first would have ended, which the next call forgets.
    assert_eq!(raw.hdel::<_, _, u64>(pool.key_of("usage"), "due").unwrap(), 1);
    let counted = |mut all: Vec<(String, Vec<String>)>| {
        let (_, usage) = all.last_mut().unwrap();
        usage.retain(|line| !line.starts_with("issue"));
        all
    };
    assert_eq!(counted(everything(&mut raw)), counted(before));
}

#[tokio::test]
async fn a_broken_counter_stops_its_own_scope_alone() {
    let (pool, mut raw) = warm(100).await;
    pool.claim("p/d/e", "held").await.granted().unwrap();
    let _: () = raw.hset(pool.key_of("usage"), "p:p", "many").unwrap();
    let busy = pool.busy().await;
    let of = |path, name| claiming(pool.handles(), path, name);
    let calls = [of("q/d/e", "1"), of("p/d/e", "2"), of("q/d/e", "3"), of("p/d/e", "4")];
    let answers = Answers::of(calls).await.all().await;
    busy.all().await;
    for (place, answer) in answers.iter().enumerate() {
        assert_eq!(answer.is_ok(), place % 2 == 0, "{answer:?}");
    }
    let release = async || pool.release_at_once(&["held", "2", "4"]).await.remove(0);
    assert!(release().await.is_err());
    let _: () = raw.hset(pool.key_of("usage"), "p:p", "1").unwrap();
    assert_eq!(release().await.unwrap(), Released::Units(1));
    pool.assert_clean().await;
}

/// What is not understood, of which each is told the beginning.
#[tokio::test]
async fn an_answer_of_a_wrong_shape_is_told_to_each_in_short() {
    let (pool, _) = warm(100).await;
    let word = format!("${}\r\n{}\r\n", 1 << 20, "x".repeat(1 << 20));
    for answer in [word.clone(), format!("*3\r\n{}", word.repeat(3)), ":7\r\n".to_owned()] {
        let fake = Fake::answering("EVALSHA", 1, Answer::text(&answer)).await;
        let pool = pool.through(connect(&fake.url()).await);
        for answer in pool.claim_at_once(&["1", "2", "3", "4", "5"]).await {
            let error = answer.unwrap_err();
            assert!(matches!(error, Error::Protocol { .. }), "{error:?}");
            assert!(error.to_string().len() < 400, "{error}");
        }
        assert_eq!(fake.count("EVALSHA"), 2);
    }
}

/// A client whose calls take a second at most.
async fn hasty(server: &Server) -> Arc<dyn Backend> {
    let text = format!(
        "type: redis\nredis: {{url: \"{}\", learningPeriod: 0s, commandTimeout: 200ms, totalTimeout: 1s}}",
        server.url()
    );
    Config::from_yaml(&text).unwrap().open().await.unwrap()
}

#[tokio::test]
async fn a_server_that_is_silent_keeps_nobody_longer_than_a_call_may_take() {
    let server = Arc::new(Server::start());
    let pool = fixture(hasty(&server).await, Some(Arc::clone(&server))).pool(100).await;
    pool.claim_at_once(&["1", "2"]).await;
    server.signal("STOP");
    let start = Instant::now();
    for answer in pool.claim_at_once(&borrowed(&names(20))).await {
        assert!(answer.unwrap_err().is_retryable());
    }
    assert!(start.elapsed() < Duration::from_millis(1_500), "{:?}", start.elapsed());
    server.signal("CONT");
    let _ = until("found again", async || pool.claiming("3").await.ok()).await;
    for answer in pool.claim_at_once(&borrowed(&names(20))).await {
        answer.unwrap().granted().unwrap();
    }
    assert_eq!(pool.in_use().await, 20);
    pool.assert_clean().await;
}

/// A pool behind a door, and a call under way on it whose answer does not come.
async fn behind_a_door() -> (Pool, Gate, Answers<Released>) {
    let server = Server::start();
    let gate = Gate::before(server.socket());
    let pool = redis_on(server).await.pool(100).await.through(connect(&gate.url()).await);
    pool.claim_at_once(&["1", "2", "3"]).await;
    pool.release_at_once(&["1", "2", "3"]).await;
    gate.set(Door::Shut);
    let busy = pool.busy().await;
    tokio::task::yield_now().await;
    (pool, gate, busy)
}

async fn poll_once<T>(call: &mut Call<T>) -> bool {
    poll_fn(|context| Poll::Ready(call.as_mut().poll(context).is_ready())).await
}

#[tokio::test]
async fn a_connection_that_is_lost_is_what_each_is_told() {
    let (pool, gate, busy) = behind_a_door().await;
    let names = names(50);
    let claims = Answers::of(names.iter().map(|name| pool.claiming(name))).await;
    let mut raw = pool.raw();
    until("granted", async || (raw.scard::<_, usize>(pool.key()).unwrap() == 50).then_some(()))
        .await;
    // Granted, and nobody knows.
    gate.cut();
    for (answer, name) in claims.all().await.into_iter().zip(&names) {
        assert!(answer.unwrap_err().is_retryable());
        assert!(pool.claim(A, name).await.granted().unwrap().held_before);
    }
    busy.all().await;
    assert_eq!(pool.in_use().await, 50);
    pool.assert_clean().await;
}

/// While nothing can be sent, because there is no connection.
#[tokio::test]
async fn what_its_caller_left_is_not_sent_when_the_server_is_found_again() {
    let server = Arc::new(Server::start_on_tcp(&[]));
    let proxy = Proxy::before(server.address());
    let backend = connect(&format!("redis://{}", proxy.address())).await;
    let pool = fixture(backend, Some(Arc::clone(&server))).pool(100).await;
    pool.claim_at_once(&["1", "2"]).await;
    pool.release_at_once(&["1", "2"]).await;
    proxy.refuse().await;
    // Each takes notice of what the sockets say, and takes its turn.
    let settle = async || {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    };
    settle().await;
    let busy = pool.busy().await;
    let names = ["a", "b", "c", "d", "e", "f"];
    let mut calls: Vec<_> = names.iter().map(|name| pool.claiming(name)).collect();
    for call in &mut calls {
        assert!(!poll_once(call).await);
    }
    // By now a task has taken them, and waits for the connection.
    settle().await;
    calls.truncate(3);
    proxy.pass();
    for call in calls {
        call.await.unwrap().granted().unwrap();
    }
    busy.all().await;
    for name in names {
        assert_eq!(pool.holds(A, name).await, ["a", "b", "c"].contains(&name), "{name}");
    }
}

/// Which of several callers leaves before anything was sent.
#[tokio::test]
async fn what_its_caller_left_is_not_sent() {
    for count in 1..5 {
        for left in 0..count {
            let (pool, gate, busy) = behind_a_door().await;
            let names = names(count);
            let mut calls: Vec<_> = names.iter().map(|name| Some(pool.claiming(name))).collect();
            for call in calls.iter_mut().flatten() {
                assert!(!poll_once(call).await);
            }
            calls[left] = None;
            gate.set(Door::Open);
            for call in calls.into_iter().flatten() {
                call.await.unwrap().granted().unwrap();
            }
            busy.all().await;
            for (place, name) in names.iter().enumerate() {
                assert_eq!(pool.holds(A, name).await, place != left, "{left} of {count}");
            }
            pool.assert_clean().await;
        }
    }
}

#[tokio::test]
async fn whoever_is_not_polled_any_more_holds_up_nobody() {
    for count in 2..5 {
        for still in 0..count {
            let (pool, gate, busy) = behind_a_door().await;
            let names = names(count);
            let mut calls: Vec<_> = names.iter().map(|name| pool.claiming(name)).collect();
            for call in &mut calls {
                assert!(!poll_once(call).await);
            }
            gate.set(Door::Open);
            let waits = calls.remove(still);
            for call in calls {
                call.await.unwrap().granted().unwrap();
            }
            busy.all().await;
            // Others are not held up later, either.
            for answer in pool.claim_at_once(&["x", "y", "z"]).await {
                answer.unwrap().granted().unwrap();
            }
            waits.await.unwrap().granted().unwrap();
            assert_eq!(pool.in_use().await, u64::try_from(count).unwrap() + 3);
        }
    }
}

/// As cancel safety says: whoever leaves a claim and gives the token back, in this order, does not hold it.
#[test]
fn what_is_given_back_after_its_claim_was_left_is_not_held() {
    let runtime = Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    for connections in [1, 4] {
        runtime.block_on(async {
            let server = Arc::new(Server::start());
            let mut config = Config::redis_at(server.url()).unwrap();
            config.redis.connections = connections;
            let pool = fixture(config.open().await.unwrap(), Some(server)).pool(1_000).await;
            let callers = (0..16_u64).map(|caller| {
                let handles = pool.handles();
                let of = move || (Arc::clone(&handles.0), handles.1.clone());
                tokio::spawn(async move {
                    for round in 0..400_u64 {
                        let name = format!("{caller}");
                        let mut call = claiming(of(), A, &name);
                        // Left after more or fewer turns of the runtime, with luck at any point.
                        for _ in 0..(caller + 7 * round) % 11 {
                            if poll_once(&mut call).await {
                                break;
                            }
                            tokio::task::yield_now().await;
                        }
                        drop(call);
                        releasing(of(), A, &name).await.unwrap();
                    }
                })
            });
            for caller in callers.collect::<Vec<_>>() {
                caller.await.unwrap();
            }
            assert_eq!(pool.in_use().await, 0);
            pool.assert_clean().await;
        });
    }
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

#[test]
fn callers_of_other_runtimes_are_answered_while_that_of_the_connection_lives() {
    let (home, other) = (runtime(), runtime());
    let pool = home.block_on(async {
        let server = Server::start();
        fixture(hasty(&server).await, Some(Arc::new(server))).pool(1_000).await
    });
    for _ in 0..20 {
        other.block_on(async {
            for answer in pool.claim_at_once(&borrowed(&names(20))).await {
                answer.unwrap().granted().unwrap();
            }
            for answer in pool.release_at_once(&borrowed(&names(20))).await {
                assert_eq!(answer.unwrap(), Released::Units(1));
            }
        });
    }
    home.shutdown_background();
    other.block_on(async {
        for answer in pool.claim_at_once(&borrowed(&names(20))).await {
            let Err(Error::Unavailable { source, .. }) = answer else { panic!("{answer:?}") };
            // Each tried by itself, instead of waiting for the task that would have sent them.
            assert_ne!(source.to_string(), "not answered within 1s");
        }
    });
}
