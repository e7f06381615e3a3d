//! Random sequences of operations and of passing time: Redis and memory give the same answers and the same state.

use std::sync::Arc;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokenpool::{
    Backend, Claim, Claimant, Deletion, Error, FencingNumber, Grant, GrantRecord, Holder, Inbox,
    Joint, JointOutcome, Member, MemoryBackend, Notice, Order, Outcome, PoolName, Priority,
    QueueChange, QuotaChange, Released, Renewal, Result, TicketRecord, TicketRequest, Turn,
};

use crate::support::clock::{Clock, server_with_clock};
use crate::support::{
    Fixture, Pool, caps, claim, connect, execution, fixture, lease, member, quota, redis_on,
    revocation, token, weight,
};
use crate::upgrade::Earlier;

/// Executions whose members can coincide, and whose scopes begin alike.
const PATHS: [&str; 7] = [
    "flyte/dev/a",
    "flyte/dev/a-b",
    "flyte/development/a",
    "flytesnacks/dev/a",
    "f/d/x y",
    "f/d/x",
    "f/dev/x",
];
const TOKENS: [&str; 6] = ["c", "b-c", "1", "y-1", "2", "3"];
const ORDERS: [Order; 3] = [Order::Fifo, Order::Priority, Order::Fair];

type Caps = (Option<i64>, Option<i64>);
/// Token, units and milliseconds of a lease.
type Asked = (usize, i64, Option<u64>);

#[derive(Clone, Debug)]
enum Step {
    Claim {
        path: usize,
        claim: Asked,
        caps: Caps,
    },
    ClaimMany {
        path: usize,
        claims: Vec<Asked>,
        caps: Caps,
    },
    ClaimAll {
        path: usize,
        claims: [(Asked, Caps); 2],
    },
    Wait {
        path: usize,
        claim: Asked,
        caps: Caps,
        millis: u64,
        priority: i64,
        told: bool,
    },
    /// A claim, which waits, of what is held or waits already: of the nth token.
    WaitAgain {
        nth: usize,
        lease: Option<u64>,
        caps: Caps,
        millis: u64,
    },
    Renew {
        renewals: Vec<(usize, usize, u64)>,
    },
    /// Of the nth holder.
    ReleaseHeld {
        nth: usize,
    },
    /// What the nth holder holds, by its own number or another's.
    ReleaseGrant {
        nth: usize,
        of: usize,
    },
    Release {
        path: usize,
        tokens: Vec<usize>,
    },
    /// Calls of many callers at once. The second and those behind it go in one call to Redis, where releases come first.
    Together(Vec<Single>),
    Revoke {
        path: usize,
        token: usize,
    },
    Change(Change),
    Queue {
        order: Option<usize>,
        weights: Vec<(usize, i64)>,
    },
    Pass(u64),
    Delete {
        force: bool,
    },
    Repair,
}

/// A call about one token.
#[derive(Clone, Copy, Debug)]
enum Single {
    Claim {
        path: usize,
        claim: Asked,
        caps: Caps,
    },
    /// By the number of the nth grant, or whatever it is.
    Release {
        path: usize,
        token: usize,
        number_of: Option<usize>,
    },
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Register(i64),
    Create(i64),
    Pin(i64),
    Unpin,
}

fn step() -> impl Strategy<Value = Step> {
    let path = || 0..PATHS.len();
    let token = || 0..TOKENS.len();
    let caps = || (prop::option::weighted(0.4, 0..6i64), prop::option::weighted(0.4, 0..6i64));
    let wide = || (prop::option::weighted(0.3, 2..7i64), prop::option::weighted(0.3, 2..7i64));
    // Rather few different times, so that some things end at once.
    let millis =
        || prop_oneof![Just(100), Just(1_000), Just(10_000), 100..300_000u64, 300_000..600_000u64];
    let asked = || (token(), 1..4i64, prop::option::weighted(0.3, millis()));
    let change = prop_oneof![
        3 => (1..6i64).prop_map(Change::Register),
        1 => (1..9i64).prop_map(Change::Create),
        1 => (1..9i64).prop_map(Change::Pin),
        1 => Just(Change::Unpin),
    ];
    let time =
        prop_oneof![Just(1), Just(100), Just(1_000), Just(10_000), 1..5_000u64, 1..120_000u64];
    prop_oneof![
        6 => (path(), asked(), caps())
            .prop_map(|(path, claim, caps)| Step::Claim { path, claim, caps }),
        4 => (path(), vec(asked(), 0..5), caps())
            .prop_map(|(path, claims, caps)| Step::ClaimMany { path, claims, caps }),
        2 => (path(), [(asked(), caps()), (asked(), caps())])
            .prop_map(|(path, claims)| Step::ClaimAll { path, claims }),
        30 => (path(), asked(), wide(), millis(), 0..10i64, any::<bool>()).prop_map(
            |(path, claim, caps, millis, priority, told)| {
                Step::Wait { path, claim, caps, millis, priority, told }
            }
        ),
        6 => (0..9usize, prop::option::of(millis()), caps(), millis())
            .prop_map(|(nth, lease, caps, millis)| Step::WaitAgain { nth, lease, caps, millis }),
        4 => vec((path(), token(), millis()), 0..6).prop_map(|renewals| Step::Renew { renewals }),
        15 => (0..9usize).prop_map(|nth| Step::ReleaseHeld { nth }),
        5 => (0..9usize, 0..9usize).prop_map(|(nth, of)| Step::ReleaseGrant { nth, of }),
        5 => (path(), vec(token(), 0..4)).prop_map(|(path, tokens)| Step::Release { path, tokens }),
        6 => together(),
        2 => (path(), token()).prop_map(|(path, token)| Step::Revoke { path, token }),
        4 => change.prop_map(Step::Change),
        2 => (prop::option::of(0..ORDERS.len()), vec((path(), 1..5i64), 0..3))
            .prop_map(|(order, weights)| Step::Queue { order, weights }),
        6 => time.prop_map(Step::Pass),
        1 => any::<bool>().prop_map(|force| Step::Delete { force }),
        1 => Just(Step::Repair),
    ]
}

/// Releases stand before claims, but for the first, which is under way when the others are made.
fn together() -> impl Strategy<Value = Step> {
    let path = || 0..PATHS.len();
    let cap = || prop::option::weighted(0.3, 0..7i64);
    let lasts = prop::option::weighted(0.2, prop_oneof![Just(100), Just(1_000), 100..60_000u64]);
    let claim = (path(), (0..TOKENS.len(), 1..4i64, lasts), (cap(), cap()))
        .prop_map(|(path, claim, caps)| Single::Claim { path, claim, caps });
    let release = (path(), 0..TOKENS.len(), prop::option::weighted(0.3, 0..9usize))
        .prop_map(|(path, token, number_of)| Single::Release { path, token, number_of });
    let first = prop_oneof![claim.clone(), release.clone()];
    (first, vec(release, 0..9), vec(claim, 0..9)).prop_map(|(first, releases, claims)| {
        Step::Together([vec![first], releases, claims].concat())
    })
}

/// One backend with a pool and another, and what it told.
struct Side {
    pools: [Pool; 2],
    /// The same through a client of an earlier version.
    earlier: Option<[Pool; 2]>,
    inbox: Inbox,
    /// The first fencing number of each pool, 0 while there is none.
    first: [u64; 2],
}

impl Side {
    /// Names are given, because they stand in messages and must be the same.
    async fn new(fixture: &Fixture, names: [&Fixture; 2]) -> Self {
        let pool = |named: &Fixture| fixture.handle(None).renamed(&named.pool_name());
        let inbox = fixture.backend.listen().await.unwrap();
        Self { pools: names.map(pool), earlier: None, inbox, first: [0; 2] }
    }

    /// The same, where steps can also be an earlier client's.
    fn with_earlier(self, client: &Arc<dyn Backend>) -> Self {
        let earlier = self.pools.each_ref().map(|pool| pool.through(Arc::clone(client)));
        Self { earlier: Some(earlier), ..self }
    }

    fn grant(&self, pool: usize, grant: &Grant) -> String {
        let number = |number: FencingNumber| number.get() - self.first[pool];
        let number = grant.fencing_number.map(number);
        format!("granted {} {} {number:?}", grant.units, grant.held_before)
    }

    fn outcome(&self, answer: &Result<Outcome>) -> String {
        match answer {
            Ok(Outcome::Granted(grant)) => self.grant(0, grant),
            Ok(Outcome::Refused(refusal)) => refusal.to_string(),
            Err(error) => error.to_string(),
        }
    }

    /// What a step answered, in words, with fencing numbers counted from the pool's first.
    async fn run(&self, step: &Step, by: Client) -> String {
        let pools = match (by, &self.earlier) {
            (Client::Earlier, Some(earlier)) => earlier,
            _ => &self.pools,
        };
        let pool = &pools[0];
        let (backend, name) = (&pool.backend, &pool.name);
        match step {
            Step::Claim { path, claim, caps: (project, domain) } => {
                let caps = caps(*project, *domain);
                match pool.claim_many(PATHS[*path], &[asked(claim)], caps).await {
                    Ok(answers) => self.outcome(&answers[0]),
                    Err(error) => error.to_string(),
                }
            }
            Step::ClaimMany { path, claims, caps: (project, domain) } => {
                let claims: Vec<_> = claims.iter().map(asked).collect();
                match pool.claim_many(PATHS[*path], &claims, caps(*project, *domain)).await {
                    Ok(answers) => {
                        format!("{:?}", answers.iter().map(|a| self.outcome(a)).collect::<Vec<_>>())
                    }
                    Err(error) => error.to_string(),
                }
            }
            Step::ClaimAll { path, claims } => {
                let joint = |(pool, (claim, (project, domain))): (&Pool, &(Asked, Caps))| Joint {
                    pool: pool.name.clone(),
                    claim: asked(claim),
                    constraints: caps(*project, *domain),
                };
                let joints: Vec<_> = pools.iter().zip(claims).map(joint).collect();
                let (execution, holder) = (execution(PATHS[*path]), Holder::new("test").unwrap());
                let constraints = caps(None, None);
                let claimant = Claimant { execution: &execution, constraints, holder: &holder };
                match backend.allocate_all(claimant, &joints).await {
                    Ok(JointOutcome::Granted(grants)) => {
                        let grants = grants.iter().enumerate().map(|(i, g)| self.grant(i, g));
                        format!("{:?}", grants.collect::<Vec<_>>())
                    }
                    Ok(JointOutcome::Refused { pool, refusal }) => format!("{pool}: {refusal}"),
                    Err(error) => error.to_string(),
                }
            }
            Step::Wait { path, claim, caps: (project, domain), millis, priority, told } => {
                let urgency = Priority::new(*priority).unwrap();
                let mut request = TicketRequest::new(lease(*millis)).with_priority(urgency);
                if *told {
                    request = request.with_channel(self.inbox.channel.clone());
                }
                let caps = caps(*project, *domain);
                match pool.try_wait(PATHS[*path], &asked(claim), caps, &request).await {
                    Ok(Turn::Granted(grant)) => self.grant(0, &grant),
                    Ok(Turn::Waiting(ticket)) => {
                        let number = ticket.next_fencing_number.get() - self.first[0];
                        format!("{ticket} from {number} after {:?}", ticket.retry_after)
                    }
                    Err(error) => error.to_string(),
                }
            }
            Step::Renew { renewals } => {
                let of = |&(path, name, millis): &(usize, usize, u64)| {
                    (execution(PATHS[path]), token(TOKENS[name]), lease(millis))
                };
                let renewals: Vec<_> = renewals.iter().map(of).collect();
                let renewals: Vec<_> = renewals
                    .iter()
                    .map(|(execution, token, lease)| Renewal { execution, token, lease: *lease })
                    .collect();
                let answers = backend.renew(name, &renewals).await;
                let words = |answer: Result<tokenpool::Renewed>| match answer {
                    Ok(tokenpool::Renewed::Held(Some(number))) => {
                        format!("held {}", number.get() - self.first[0])
                    }
                    other => format!("{:?}", other.map_err(text)),
                };
                match answers {
                    Ok(answers) => {
                        format!("{:?}", answers.into_iter().map(words).collect::<Vec<_>>())
                    }
                    Err(error) => error.to_string(),
                }
            }
            Step::Release { path, tokens } => {
                let tokens: Vec<_> = tokens.iter().map(|token| TOKENS[*token]).collect();
                format!("{:?}", pool.release_many(PATHS[*path], &tokens).await.map_err(text))
            }
            Step::ReleaseGrant { nth, of } => {
                let held = pool.holdings_if_known().await;
                let Some((member, record)) = held.get(nth % held.len().max(1)) else {
                    return String::new();
                };
                let (path, token) = number_of(member, record.execution.as_deref().unwrap());
                let number =
                    held[if of % 2 == 0 { *nth } else { *of } % held.len()].1.fencing_number;
                let released = pool.release_grant(PATHS[path], TOKENS[token], number).await;
                format!("{:?}", released.map_err(text))
            }
            Step::Together(singles) => {
                let held = pool.holdings_if_known().await;
                let number = |nth: usize| held.get(nth % held.len().max(1));
                let calls = singles.iter().map(|single| {
                    let number = match *single {
                        Single::Release { number_of: Some(nth), .. } => number(nth),
                        _ => None,
                    };
                    single.call(pool, number.map(|(_, record)| record.fencing_number))
                });
                let mut answers = Vec::new();
                match by {
                    Client::Present => {
                        let calls: Vec<_> = calls.map(tokio::spawn).collect();
                        for call in calls {
                            answers.push(call.await.unwrap());
                        }
                    }
                    // It knows nothing of going together.
                    Client::Earlier => {
                        for call in calls {
                            answers.push(call.await);
                        }
                    }
                }
                let words = |answer: &Answer| match answer {
                    Ok(Answered::Claim(outcome)) => self.outcome(outcome),
                    Ok(Answered::Release(released)) => format!("{released:?}"),
                    Err(error) => error.to_string(),
                };
                format!("{:?}", answers.iter().map(words).collect::<Vec<_>>())
            }
            Step::Revoke { path, token } => {
                let member = member(PATHS[*path], TOKENS[*token]);
                let released = backend.revoke(name, &member, &revocation()).await;
                let revocations = backend.revocations(name, 3).await;
                format!("{:?} {:?}", released.map_err(text), revocations.map_err(text))
            }
            Step::Change(change) => {
                let change = match *change {
                    Change::Register(units) => QuotaChange::Register(quota(units)),
                    Change::Create(units) => QuotaChange::Create(quota(units)),
                    Change::Pin(units) => QuotaChange::Pin(quota(units)),
                    Change::Unpin => QuotaChange::Unpin,
                };
                format!("{:?}", backend.change_quota(name, change).await.map_err(text))
            }
            Step::Queue { order, weights } => {
                let mut change = QueueChange::new();
                change.order = order.map(|order| ORDERS[order]);
                for (path, of) in weights {
                    change = change.weight(execution(PATHS[*path]).project(), weight(*of));
                }
                format!("{:?}", backend.change_queue(name, &change).await.map_err(text))
            }
            Step::Pass(_) => String::new(), // the clock of both was moved
            Step::ReleaseHeld { .. } | Step::WaitAgain { .. } => unreachable!("aimed"),
            Step::Delete { force } => {
                let deletion = if *force { Deletion::EvenInUse } else { Deletion::OnlyUnused };
                format!("{:?}", backend.delete_pool(name, deletion).await.map_err(text))
            }
            Step::Repair => format!("{:?}", backend.repair(name).await.map_err(text)),
        }
    }

    /// The step with its nth token found; none if there is no such token.
    async fn aim(&self, step: &Step) -> Option<Step> {
        let pool = &self.pools[0];
        match *step {
            Step::ReleaseHeld { nth } => {
                let held = pool.holdings_if_known().await;
                let (member, record) = held.get(nth % held.len().max(1))?;
                let (path, token) = number_of(member, record.execution.as_deref().unwrap());
                Some(Step::Release { path, tokens: vec![token] })
            }
            Step::WaitAgain { nth, lease, caps, millis } => {
                let held = pool.holdings_if_known().await;
                let held =
                    held.into_iter().map(|(member, r)| (member, r.execution.unwrap(), r.units));
                let waits = pool.tickets_if_known().await;
                let waits =
                    waits.into_iter().map(|ticket| (ticket.member, ticket.execution, ticket.units));
                let all: Vec<_> = held.chain(waits).collect();
                let (member, execution, units) = all.get(nth % all.len().max(1))?;
                let (path, token) = number_of(member, execution);
                let claim = (token, i64::try_from(units.get()).unwrap(), lease);
                Some(Step::Wait { path, claim, caps, millis, priority: 0, told: true })
            }
            _ => Some(step.clone()),
        }
    }

    /// Everything that can be seen of a pool.
    async fn state(&mut self, at: usize) -> String {
        let (pool, first) = (&self.pools[at], &mut self.first[at]);
        let usage = match pool.backend.usage(&pool.name).await {
            Ok(usage) => usage,
            Err(error) => {
                // One that is made again starts its own numbers.
                *first = 0;
                return error.to_string();
            }
        };
        let report = pool.backend.check(&pool.name).await.unwrap();
        assert!(report.is_clean(), "{report:?}");
        let next = usage.next_fencing_number.get();
        if *first == 0 {
            *first = next;
        }
        let holdings: Vec<_> = pool
            .holdings(3)
            .await
            .into_iter()
            .map(|holding| {
                let record = holding.record.unwrap();
                let number = record.fencing_number.get() - *first;
                let who = (record.since, record.holder, record.execution);
                (holding.member, record.units, number, who, holding.lease_left)
            })
            .collect();
        let quota = (usage.quota, usage.registered, usage.pinned, usage.in_use, usage.holders);
        let queue = (usage.tickets, usage.order, usage.weights, pool.tickets(3).await);
        let next = next - *first;
        format!("{quota:?} {next} {:?}\n{holdings:?}\n{queue:?}\n{report:?}", usage.scopes)
    }

    /// What was told since the last call.
    async fn told(&mut self) -> Vec<String> {
        // A round trip, to a pool that does not exist, over the connection through which the server tells.
        let nowhere = self.pools[0].name.to_string() + "-not";
        let (nowhere, execution) = (PoolName::new(nowhere).unwrap(), execution(PATHS[0]));
        self.pools[0].backend.release(&nowhere, &execution, &[token("t")]).await.unwrap_err();
        let notices = std::iter::from_fn(|| self.inbox.notices.try_recv().ok());
        let words = |notice| match notice {
            Notice::Granted { pool, member, fencing_number } => {
                let at = self.pools.iter().position(|of| of.name == pool).unwrap();
                let number = fencing_number.get() - self.first[at];
                Some(format!("granted {pool} {member} {number}"))
            }
            Notice::Gone { pool, member } => Some(format!("gone {pool} {member}")),
            _ => None,
        };
        notices.filter_map(words).collect()
    }
}

type Answer = Result<Answered>;

/// What a single call was answered.
enum Answered {
    Claim(Result<Outcome>),
    Release(Released),
}

impl Single {
    /// The call, of its own caller.
    fn call(
        self,
        pool: &Pool,
        number: Option<FencingNumber>,
    ) -> impl Future<Output = Answer> + Send + use<> {
        let (backend, name) = pool.handles();
        async move {
            match self {
                Self::Claim { path, claim, caps: (project, domain) } => {
                    let (execution, holder) =
                        (execution(PATHS[path]), Holder::new("test").unwrap());
                    let constraints = caps(project, domain);
                    let claimant = Claimant { execution: &execution, constraints, holder: &holder };
                    let mut answers = backend.allocate(&name, claimant, &[asked(&claim)]).await?;
                    Ok(Answered::Claim(answers.remove(0)))
                }
                Self::Release { path, token: of, .. } => {
                    let (execution, token) = (execution(PATHS[path]), token(TOKENS[of]));
                    let released = match number {
                        Some(number) => {
                            backend.release_grant(&name, &execution, &token, number).await?
                        }
                        None => backend.release(&name, &execution, &[token]).await?[0],
                    };
                    Ok(Answered::Release(released))
                }
            }
        }
    }
}

fn asked(&(token, units, millis): &Asked) -> Claim {
    let claim = claim(TOKENS[token], units);
    match millis {
        Some(millis) => claim.with_lease(lease(millis)),
        None => claim,
    }
}

impl Pool {
    async fn holdings_if_known(&self) -> Vec<(Member, GrantRecord)> {
        if self.backend.usage(&self.name).await.is_err() {
            return Vec::new();
        }
        let holdings = self.holdings(1000).await.into_iter();
        holdings.map(|holding| (holding.member, holding.record.unwrap())).collect()
    }

    async fn tickets_if_known(&self) -> Vec<TicketRecord> {
        match self.backend.usage(&self.name).await {
            Ok(_) => self.tickets(1000).await,
            Err(_) => Vec::new(),
        }
    }
}

fn text(error: Error) -> String {
    error.to_string()
}

/// Which client takes a step, where there are two.
#[derive(Clone, Copy, Debug)]
enum Client {
    Present,
    Earlier,
}

/// Runs the steps on both and compares after each. A bit of `by` for each step says whose it is on Redis.
async fn compare(
    redis: &Fixture,
    earlier: Option<&Arc<dyn Backend>>,
    memory: &Fixture,
    clock: &Clock,
    (by, steps): (u128, &[Step]),
) {
    let names = [redis, &redis.another_pool()];
    let mut sides = [Side::new(memory, names).await, Side::new(redis, names).await];
    if let Some(earlier) = earlier {
        let [memory, redis] = sides;
        sides = [memory, redis.with_earlier(earlier)];
    }
    for side in &sides {
        let second = &side.pools[1];
        second.change_quota(QuotaChange::Register(quota(4))).await;
    }
    for (at, step) in steps.iter().enumerate() {
        let Some(step) = &sides[0].aim(step).await else { continue };
        if let Step::Pass(millis) = step {
            clock.advance(Duration::from_millis(*millis));
        }
        // The present version makes the pools, because numbers are raised when it finds those of an earlier one.
        let is_present = matches!(step, Step::Change(_)) || by >> (at % 128) & 1 == 0;
        let client = if is_present { Client::Present } else { Client::Earlier };
        let mut seen = Vec::new();
        for side in &mut sides {
            let answer = side.run(step, client).await;
            let state = [side.state(0).await, side.state(1).await];
            seen.push((answer, state, side.told().await));
        }
        if seen[0] != seen[1] {
            let before = &steps[..at];
            let [memory, redis] = [&seen[0], &seen[1]]
                .map(|seen| format!("{}\n{}\n{}\n{:?}", seen.0, seen.1[0], seen.1[1], seen.2));
            panic!("after {before:#?} by {by:b}\n{step:?}\nmemory: {memory}\n\nredis: {redis}");
        }
    }
    for pool in &sides[1].pools {
        pool.clean_up().await;
    }
}

/// Number of the path and of the token that a member of an execution is made of.
fn number_of(member: &Member, execution: &str) -> (usize, usize) {
    let of = |(path, token): &(usize, usize)| {
        let path = PATHS[*path];
        path.ends_with(&format!("/{execution}"))
            && crate::support::member(path, TOKENS[*token]) == *member
    };
    let mut all = (0..PATHS.len()).flat_map(|path| (0..TOKENS.len()).map(move |t| (path, t)));
    all.find(of).unwrap()
}

/// Many tickets that last, and units that come back one holder at a time: what the order of turns is about.
fn crowded_step() -> impl Strategy<Value = Step> {
    let caps = (prop::option::weighted(0.2, 2..5i64), prop::option::weighted(0.2, 2..5i64));
    let wait = (0..PATHS.len(), (0..TOKENS.len(), 1..3i64), caps, 0..10i64);
    prop_oneof![
        8 => wait.prop_map(|(path, (token, units), caps, priority)| Step::Wait {
            path,
            claim: (token, units, None),
            caps,
            millis: 600_000,
            priority,
            told: true,
        }),
        5 => (0..9usize).prop_map(|nth| Step::ReleaseHeld { nth }),
        1 => (prop::option::weighted(0.2, 0..ORDERS.len()), vec((0..PATHS.len(), 1..5i64), 0..3))
            .prop_map(|(order, weights)| Step::Queue { order, weights }),
        1 => (2..5i64).prop_map(|units| Step::Change(Change::Register(units))),
        1 => (1..20_000u64).prop_map(Step::Pass),
    ]
}

/// Calls at once, where nobody waits.
fn busy_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => together(),
        6 => (0..9usize).prop_map(|nth| Step::ReleaseHeld { nth }),
        2 => (2..9i64).prop_map(|units| Step::Change(Change::Register(units))),
        3 => prop_oneof![Just(100), Just(1_000), 1..60_000u64].prop_map(Step::Pass),
        1 => Just(Step::Delete { force: true }),
    ]
}

/// Who uses Redis.
#[derive(Clone, Copy, Debug)]
enum Clients {
    Present,
    /// And one of an earlier version, in turns that are as random as the steps.
    Both,
}

/// Runs so many sequences, unless PROPTEST_CASES asks for another number.
fn agree_on(cases: u32, steps: impl Strategy<Value = Vec<Step>>, clients: Clients) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (server, clock) = server_with_clock();
    let (redis, earlier) = runtime.block_on(async {
        let earlier = match clients {
            Clients::Present => None,
            Clients::Both => {
                let way = Earlier::before(&server);
                Some((connect(&way.url()).await, way))
            }
        };
        let redis = redis_on(server).await;
        // Scripts that the server does not know yet are called again, behind calls that were made later.
        let pool = redis.pool(1).await;
        pool.claim(PATHS[0], TOKENS[0]).await.granted().unwrap();
        pool.release(PATHS[0], TOKENS[0]).await;
        (redis, earlier)
    });
    let earlier = earlier.as_ref().map(|(client, _)| client);
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    let cases = asked.unwrap_or(cases);
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&(2..6i64, 0..ORDERS.len(), any::<u128>(), steps), |(units, order, by, mut steps)| {
            steps.insert(0, Step::Change(Change::Register(units)));
            steps.insert(1, Step::Queue { order: Some(order), weights: Vec::new() });
            runtime.block_on(async {
                let backend = MemoryBackend::with_clock(Arc::clone(&clock.twin) as _);
                let memory = fixture(Arc::new(backend), None);
                compare(&redis.another_pool(), earlier, &memory, &clock, (by, &steps)).await;
            });
            Ok(())
        })
        .unwrap();
}

#[test]
fn redis_and_memory_agree_on_random_sequences() {
    agree_on(150, vec(step(), 20..60), Clients::Present);
}

#[test]
fn redis_and_memory_agree_on_crowded_pools() {
    agree_on(60, vec(crowded_step(), 40..100), Clients::Present);
}

#[test]
fn redis_and_memory_agree_on_calls_at_once() {
    agree_on(150, vec(busy_step(), 10..40), Clients::Present);
}

#[test]
fn clients_of_two_versions_on_busy_pools_agree_with_memory() {
    agree_on(60, vec(busy_step(), 10..40), Clients::Both);
}

#[test]
fn clients_of_two_versions_on_one_pool_agree_with_memory() {
    agree_on(100, vec(step(), 20..60), Clients::Both);
}

#[test]
fn clients_of_two_versions_on_crowded_pools_agree_with_memory() {
    agree_on(60, vec(crowded_step(), 40..100), Clients::Both);
}
