//! Random sequences of operations: Redis and memory give the same answers and the same state.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokenpool::{Deletion, Error, FencingNumber, Member, Outcome, QuotaChange, Released, Result};

use crate::support::server::Server;
use crate::support::{Fixture, Pool, caps, claim, quota, redis_on, revocation};

/// Executions whose members can coincide, and whose scopes begin alike.
const PATHS: [&str; 6] = [
    "flyte/dev/a",
    "flyte/dev/a-b",
    "flyte/development/a",
    "flytesnacks/dev/a",
    "f/d/x y",
    "f/d/x",
];
const TOKENS: [&str; 4] = ["c", "b-c", "1", "y-1"];

#[derive(Clone, Debug)]
enum Step {
    Claim { path: usize, token: usize, units: i64, caps: (Option<i64>, Option<i64>) },
    ClaimMany { path: usize, claims: Vec<(usize, i64)>, caps: (Option<i64>, Option<i64>) },
    Release { path: usize, token: usize },
    ReleaseMany { path: usize, tokens: Vec<usize> },
    ReleaseMember { path: usize, token: usize },
    Change(Change),
    Delete { force: bool },
    Repair,
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Register(i64),
    Create(i64),
    Pin(i64),
    Unpin,
}

fn caps_strategy() -> impl Strategy<Value = (Option<i64>, Option<i64>)> {
    (prop::option::of(0..6i64), prop::option::of(0..6i64))
}

fn step() -> impl Strategy<Value = Step> {
    let path = || 0..PATHS.len();
    let token = || 0..TOKENS.len();
    let change = prop_oneof![
        (1..9i64).prop_map(Change::Register),
        (1..9i64).prop_map(Change::Create),
        (1..9i64).prop_map(Change::Pin),
        Just(Change::Unpin),
    ];
    prop_oneof![
        12 => (path(), token(), 1..4i64, caps_strategy())
            .prop_map(|(path, token, units, caps)| Step::Claim { path, token, units, caps }),
        6 => (path(), vec((token(), 1..4i64), 0..5), caps_strategy())
            .prop_map(|(path, claims, caps)| Step::ClaimMany { path, claims, caps }),
        6 => (path(), token()).prop_map(|(path, token)| Step::Release { path, token }),
        3 => (path(), vec(token(), 0..5))
            .prop_map(|(path, tokens)| Step::ReleaseMany { path, tokens }),
        1 => (path(), token()).prop_map(|(path, token)| Step::ReleaseMember { path, token }),
        3 => change.prop_map(Step::Change),
        1 => any::<bool>().prop_map(|force| Step::Delete { force }),
        1 => Just(Step::Repair),
    ]
}

/// What a step answered, in words, with fencing numbers counted from the pool's first.
async fn run(pool: &Pool, step: &Step, first: u64) -> String {
    let since = |number: FencingNumber| number.get() - first;
    let outcome = |answer: &Result<Outcome>| match answer {
        Ok(Outcome::Granted(grant)) => {
            let number = since(grant.fencing_number.unwrap());
            format!("granted {} {} {number}", grant.units, grant.held_before)
        }
        Ok(Outcome::Refused(refusal)) => refusal.to_string(),
        Err(error) => error.to_string(),
    };
    let words = |released: Result<Vec<Released>>| format!("{:?}", released.map_err(text));
    let backend = &pool.backend;
    match step {
        Step::Claim { path, token, units, caps: (project, domain) } => {
            let caps = caps(*project, *domain);
            outcome(&pool.claim_with(PATHS[*path], TOKENS[*token], *units, caps).await)
        }
        Step::ClaimMany { path, claims, caps: (project, domain) } => {
            let claims: Vec<_> =
                claims.iter().map(|(token, units)| claim(TOKENS[*token], *units)).collect();
            match pool.claim_many(PATHS[*path], &claims, caps(*project, *domain)).await {
                Ok(answers) => answers.iter().map(outcome).collect::<Vec<_>>().join(", "),
                Err(error) => error.to_string(),
            }
        }
        Step::Release { path, token } => {
            words(pool.release_many(PATHS[*path], &[TOKENS[*token]]).await)
        }
        Step::ReleaseMany { path, tokens } => {
            let tokens: Vec<_> = tokens.iter().map(|token| TOKENS[*token]).collect();
            words(pool.release_many(PATHS[*path], &tokens).await)
        }
        Step::ReleaseMember { path, token } => {
            let (scope, name) = PATHS[*path].rsplit_once('/').unwrap();
            let text = format!("ex:{}:{name}-{}", scope.replace('/', ":"), TOKENS[*token]);
            let member = Member::parse(&text).unwrap();
            let released = backend.revoke(&pool.name, &member, &revocation()).await;
            words(released.map(|released| vec![released]))
        }
        Step::Change(change) => {
            let change = match *change {
                Change::Register(units) => QuotaChange::Register(quota(units)),
                Change::Create(units) => QuotaChange::Create(quota(units)),
                Change::Pin(units) => QuotaChange::Pin(quota(units)),
                Change::Unpin => QuotaChange::Unpin,
            };
            format!("{:?}", backend.change_quota(&pool.name, change).await.map_err(text))
        }
        Step::Delete { force } => {
            let deletion = if *force { Deletion::EvenInUse } else { Deletion::OnlyUnused };
            format!("{:?}", backend.delete_pool(&pool.name, deletion).await.map_err(text))
        }
        Step::Repair => format!("{:?}", backend.repair(&pool.name).await.map_err(text)),
    }
}

fn text(error: Error) -> String {
    error.to_string()
}

/// Everything that can be seen of a pool, and its next fencing number.
async fn state(pool: &Pool, first: u64) -> (String, u64) {
    let usage = match pool.backend.usage(&pool.name).await {
        Ok(usage) => usage,
        Err(error) => return (error.to_string(), 0),
    };
    let report = pool.backend.check(&pool.name).await.unwrap();
    assert!(report.is_clean(), "{report:?}");
    let next = usage.next_fencing_number.get();
    let holdings: Vec<_> = pool
        .holdings(3)
        .await
        .into_iter()
        .map(|holding| {
            let record = holding.record.unwrap();
            let number = record.fencing_number.get() - first.min(record.fencing_number.get());
            (holding.member, record.units, number, record.execution)
        })
        .collect();
    let seen = (usage.quota, usage.registered, usage.pinned, usage.in_use, usage.holders);
    (format!("{seen:?} {:?} {holdings:?} {report:?}", usage.scopes), next)
}

/// Runs the steps on both and compares after each.
async fn compare(memory: &Fixture, redis: &Fixture, steps: &[Step]) {
    // The same name in both, because it stands in the messages.
    let pools = [memory.handle(None).renamed(&redis.pool_name()), redis.handle(None)];
    let mut first = [0, 0];
    for (at, step) in steps.iter().enumerate() {
        let mut answers = Vec::new();
        for (pool, first) in pools.iter().zip(&mut first) {
            let answer = run(pool, step, *first).await;
            let (seen, next) = state(pool, *first).await;
            // A pool that was made in this step starts its own numbers.
            if next == 0 {
                *first = 0;
            } else if *first == 0 {
                *first = next;
            }
            answers.push((answer, seen, next - *first));
        }
        assert_eq!(answers[0], answers[1], "memory and Redis differ at step {at} of {steps:#?}");
    }
}

#[test]
fn redis_and_memory_agree_on_random_sequences() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let redis = runtime.block_on(redis_on(Server::start()));
    let config = Config { cases: 150, failure_persistence: None, ..Config::default() };
    let steps = (1..9i64, vec(step(), 1..60));
    TestRunner::new(config)
        .run(&steps, |(units, mut steps)| {
            steps.insert(0, Step::Change(Change::Register(units)));
            runtime.block_on(async {
                let memory = crate::support::memory().await;
                let redis = redis.another_pool();
                compare(&memory, &redis, &steps).await;
            });
            Ok(())
        })
        .unwrap();
}
