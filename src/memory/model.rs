//! A model of the protocol, every state of which is looked at.
//!
//! The server is the pool itself; what is modelled is around it: clients that wait, are told, take over, renew, release and
//! give up, a network, and a clock.
//!
//! **The network** keeps no order. A message that is never delivered was lost, and one that is delivered late may arrive
//! when its sender has gone on. So there is no step that loses one.
//!
//! **Clients** send at any time what their protocol allows, [`Bounds::acts`] requests altogether. One that does nothing more
//! may have crashed: whatever is true in a state must be true if any of the clients act no more from there on.
//!
//! **Time** passes in steps of [`TICK`], at most [`Bounds::ticks`] of them; leases and tickets last two. What happens later is
//! followed from each state on for every set of clients that may have died, along one path: the messages under way are
//! lost, and the others renew, do what they are told, and release what they got.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use stateright::{Checker as _, HasDiscoveries, Model, Property};

use super::claims::Asked;
use super::now::Now;
use super::pool::Pool;
use super::queue::{Filed, scope_of};
use crate::amount::{Lease, ResourceConstraint, ResourceConstraintsSpec, Units};
use crate::claim::{Claim, Claimant};
use crate::error::Result;
use crate::execution::ExecutionId;
use crate::name::{AllocationToken, Holder, Member, PoolName};
use crate::ticket::{
    Channel, Notice, Order, Priority, QueueChange, Renewal, Renewed, TicketRequest, Turn,
};

const TICK: Duration = Duration::from_millis(100);
/// How long a lease and a ticket last.
const LIFE: Duration = Duration::from_millis(200);
const CLIENTS: usize = 3;
const QUOTA: u64 = 2;

/// One client's claim, in a domain that is written `project:domain`.
#[derive(Clone, Copy, Debug)]
struct Role {
    domain: &'static str,
    units: i64,
    project_cap: Option<i64>,
    domain_cap: Option<i64>,
    priority: i64,
}

/// How far is looked.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// Requests that the clients send altogether.
    acts: u8,
    /// Times that the clock moves.
    ticks: u8,
    /// States that there are at least, so that the model cannot become empty unnoticed.
    states: usize,
}

/// What `cargo test` looks at, in some ten seconds.
const QUICK: Bounds = Bounds { acts: 4, ticks: 2, states: 40_000 };
/// What is looked at when asked for.
const DEEP: Bounds = Bounds { acts: 5, ticks: 3, states: 900_000 };

/// The pool's clients, and whom messages are from and for: a number below [`CLIENTS`].
#[derive(Debug)]
struct Protocol {
    bounds: Bounds,
    order: Order,
    clients: Vec<Client>,
    holder: Holder,
    life: Lease,
    /// Fingerprints of what was followed to its end already.
    followed: Mutex<HashSet<u64>>,
}

#[derive(Debug)]
struct Client {
    execution: ExecutionId,
    claim: Claim,
    member: Member,
    caps: ResourceConstraintsSpec,
    request: TicketRequest,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    pool: Pool,
    ticks: u8,
    phases: [Phase; CLIENTS],
    acts: u8,
    network: BTreeSet<Message>,
    /// The rule that the last step broke.
    broken: Option<Rule>,
}

/// What a client believes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    /// It wants nothing.
    Idle,
    /// It asked and was not answered.
    Asking,
    /// It was answered that it waits.
    Queued,
    /// It was told that units were handed to it.
    Called,
    /// It was granted its claim.
    Holding,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Message {
    Request(usize, Request),
    Reply(usize, Reply),
    Notice(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Request {
    Wait,
    Renew,
    Release,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Reply {
    Granted,
    Waiting,
    Renewed(Known),
    Released,
}

/// What a renewal tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Known {
    Held,
    Waiting,
    Lost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Action {
    Send(usize, Request),
    Deliver(Message),
    Tick,
}

/// What an operation of the server may break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Rule {
    FencingNumbersGrow,
    NobodyBarges,
    NobodyIsForgotten,
}

impl Protocol {
    fn new(bounds: Bounds, order: Order, roles: [Role; CLIENTS]) -> Result<Self> {
        let life = Lease::new(LIFE)?;
        let client = |(i, role): (usize, &Role)| {
            let (project, domain) = role.domain.split_once(':').unwrap_or((role.domain, "d"));
            let execution = ExecutionId::new(project, domain, "e")?;
            let token = AllocationToken::new(i.to_string())?;
            Ok(Client {
                member: Member::new(&execution, &token),
                execution,
                claim: Claim::new(token, Units::new(role.units)?).with_lease(life),
                caps: ResourceConstraintsSpec::new(role.project_cap, role.domain_cap)?,
                request: TicketRequest::new(life)
                    .with_priority(Priority::new(role.priority)?)
                    .with_channel(Channel::new(i.to_string())),
            })
        };
        Ok(Self {
            bounds,
            order,
            clients: roles.iter().enumerate().map(client).collect::<Result<_>>()?,
            holder: Holder::new("h")?,
            life,
            followed: Mutex::default(),
        })
    }

    /// What the server does with a request, and what it answers.
    fn serve(&self, pool: &mut Pool, ticks: u8, from: usize, request: Request) -> Reply {
        let client = &self.clients[from];
        let execution = &client.execution;
        let token = &client.claim.token;
        match request {
            Request::Wait => {
                let claimant =
                    Claimant { execution, constraints: client.caps, holder: &self.holder };
                let asked = Asked { claimant, claim: &client.claim };
                match pool.wait(now(ticks), asked, &client.request) {
                    Ok(Turn::Granted(_)) => Reply::Granted,
                    Ok(Turn::Waiting(_)) => Reply::Waiting,
                    Err(error) => panic!("a claim that could be granted: {error}"),
                }
            }
            Request::Renew => {
                let renewal = Renewal { execution, token, lease: self.life };
                let renewed = pool.renew(now(ticks), &[renewal]).remove(0);
                Reply::Renewed(match renewed.expect("one execution has one token") {
                    Renewed::Held(_) => Known::Held,
                    Renewed::Waiting => Known::Waiting,
                    Renewed::Lost => Known::Lost,
                })
            }
            Request::Release => {
                let _ = pool.release(now(ticks), execution, std::slice::from_ref(token));
                Reply::Released
            }
        }
    }

    /// A request arrives: the server changes its pool, answers, and tells those who wait.
    fn arrives(&self, state: &mut State, from: usize, request: Request) {
        let before = state.pool.clone();
        let reply = self.serve(&mut state.pool, state.ticks, from, request);
        for (channel, notice) in state.pool.take_notices() {
            let to = channel.as_str().parse().expect("a client's number");
            assert!(matches!(notice, Notice::Granted { .. }), "every ticket fits the quota");
            state.network.insert(Message::Notice(to));
        }
        if reply != Reply::Released {
            state.network.insert(Message::Reply(from, reply));
        }
        state.broken = broken(self.order, &before, &state.pool, now(state.ticks));
    }

    /// Follows a state to its end: messages are lost, the dead do nothing, the others renew what they wait for, do what
    /// they are told, and release what they hold. Everybody alive gets its turn, and in the end everything is free.
    fn ends_well(&self, state: &State, is_alive: impl Fn(usize) -> bool) -> bool {
        let mut pool = state.pool.clone();
        let is_waiting = |phase| matches!(phase, Phase::Asking | Phase::Queued | Phase::Called);
        let mut waits = state.phases.map(is_waiting);
        let mut holds = state.phases.map(|phase| phase == Phase::Holding);
        let lives = 2 + CLIENTS as u8;
        for ticks in (1..=2 * lives).map(|n| state.ticks + n) {
            for client in (0..CLIENTS).filter(|&client| is_alive(client)) {
                if holds[client] {
                    self.serve(&mut pool, ticks, client, Request::Release);
                    holds[client] = false;
                } else if waits[client]
                    && self.serve(&mut pool, ticks, client, Request::Renew)
                        != Reply::Renewed(Known::Waiting)
                    && self.serve(&mut pool, ticks, client, Request::Wait) == Reply::Granted
                {
                    (waits[client], holds[client]) = (false, true);
                }
            }
            drop(pool.take_notices());
        }
        let everybody_had_its_turn = (0..CLIENTS).all(|client| !waits[client] || !is_alive(client));
        // Whoever got its turn last may still hold: that ends, too.
        pool.settle(now(state.ticks + 2 * lives + 2));
        let usage = pool.usage();
        everybody_had_its_turn
            && (usage.in_use, usage.holders, usage.tickets) == (0, 0, 0)
            && usage.scopes.is_empty()
            && pool.check().is_clean()
            && pool.due.is_none()
    }

    /// Whether a state [ends well](Self::ends_well) whoever is dead from now on.
    fn always_ends_well(&self, state: &State) -> bool {
        let mut hasher = DefaultHasher::new();
        (&state.pool, state.ticks, state.phases).hash(&mut hasher);
        let is_new = {
            let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
            followed.insert(hasher.finish())
        };
        !is_new
            || (0..1_u8 << CLIENTS).all(|alive| {
                // Who is idle does nothing, dead or alive.
                let wants = |client: usize| state.phases[client] != Phase::Idle;
                (0..CLIENTS).any(|client| alive & 1 << client != 0 && !wants(client))
                    || self.ends_well(state, |client| alive & 1 << client != 0)
            })
    }

    /// Whether every grant fitted, seen with those that were there before it and still are.
    fn never_too_much(&self, state: &State) -> bool {
        let grants = &state.pool.grants;
        let fitted = |client: &Client| {
            let Some(record) = grants.get(&client.member) else { return true };
            let units = |belongs: &dyn Fn(&Member) -> bool| {
                let records = grants.iter().filter(|(member, _)| belongs(member));
                let before = records.filter(|(_, r)| r.fencing_number <= record.fencing_number);
                before.map(|(_, record)| record.units.get()).sum::<u64>()
            };
            let (project, domain) = scope_of(&client.member);
            let fits =
                |cap: Option<ResourceConstraint>, used| cap.is_none_or(|cap| used <= cap.value());
            let ResourceConstraintsSpec {
                project_scope_resource_constraint: project_cap,
                namespace_scope_resource_constraint: domain_cap,
            } = client.caps;
            fits(project_cap, units(&|other| scope_of(other).0 == project))
                && fits(domain_cap, units(&|other| scope_of(other) == (project, domain)))
        };
        let all = grants.values().map(|record| record.units.get()).sum::<u64>();
        all <= QUOTA && self.clients.iter().all(fitted)
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let name = PoolName::new("plugin:pool").expect("a valid name");
        let mut pool = Pool::new(name, now(0), QUOTA);
        pool.change_queue(now(0), &QueueChange::new().order(self.order));
        vec![State {
            pool,
            ticks: 0,
            phases: [Phase::Idle; CLIENTS],
            acts: self.bounds.acts,
            network: BTreeSet::new(),
            broken: None,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for client in (0..CLIENTS).filter(|_| state.acts > 0) {
            let requests: &[Request] = match state.phases[client] {
                Phase::Idle => &[Request::Wait],
                Phase::Asking | Phase::Called => &[Request::Wait, Request::Release],
                Phase::Queued | Phase::Holding => &[Request::Renew, Request::Release],
            };
            actions.extend(requests.iter().map(|&request| Action::Send(client, request)));
        }
        actions.extend(state.network.iter().copied().map(Action::Deliver));
        if state.ticks < self.bounds.ticks {
            actions.push(Action::Tick);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut state = state.clone();
        state.broken = None;
        match action {
            Action::Send(client, request) => {
                state.acts -= 1;
                state.network.insert(Message::Request(client, request));
                state.phases[client] = match request {
                    Request::Wait => Phase::Asking,
                    Request::Renew => state.phases[client],
                    Request::Release => Phase::Idle,
                };
            }
            Action::Deliver(message) => {
                state.network.remove(&message);
                match message {
                    Message::Request(from, request) => self.arrives(&mut state, from, request),
                    Message::Reply(to, reply) => learn(&mut state.phases[to], reply)?,
                    Message::Notice(to) => {
                        learn(&mut state.phases[to], Reply::Renewed(Known::Held))?
                    }
                }
            }
            Action::Tick => state.ticks += 1,
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("never over the quota or a cap", Self::never_too_much),
            Property::always("counters equal records", |_, state: &State| {
                state.pool.check().is_clean()
            }),
            Property::always(
                "nobody holds and waits, and all tickets have their place and end",
                |_, state: &State| is_whole(&state.pool),
            ),
            Property::always("fencing numbers grow", |_, state: &State| {
                state.broken != Some(Rule::FencingNumbersGrow)
            }),
            Property::always("nobody barges", |_, state: &State| {
                state.broken != Some(Rule::NobodyBarges)
            }),
            Property::always("nobody is forgotten", |_, state: &State| {
                state.broken != Some(Rule::NobodyIsForgotten)
            }),
            Property::always(
                "all who live get their turn, and all is free in the end",
                |model: &Self, state: &State| model.always_ends_well(state),
            ),
            // That there is something to see.
            Property::sometimes("units are handed on", |_, state: &State| {
                state.network.iter().any(|message| matches!(message, Message::Notice(_)))
            }),
            Property::sometimes("a ticket waits for units", |_, state: &State| {
                !state.pool.queue.is_empty() && state.pool.in_use == QUOTA
            }),
            Property::sometimes(
                "a ticket stands at a cap while units are free",
                |_, state: &State| {
                    let all: Vec<_> = state.pool.grants.keys().collect();
                    state.pool.in_use < QUOTA
                        && state
                            .pool
                            .queue
                            .unsorted()
                            .iter()
                            .any(|(member, filed)| is_capped(member, filed, &state.pool, &all))
                },
            ),
            Property::sometimes("a client takes over", |_, state: &State| {
                state.phases.contains(&Phase::Called)
            }),
        ]
    }
}

fn now(ticks: u8) -> Now {
    (SystemTime::UNIX_EPOCH + Duration::from_secs(1_000) + TICK * u32::from(ticks)).into()
}

/// What an answer changes in what a client believes; nothing is done about one that comes too late.
fn learn(phase: &mut Phase, reply: Reply) -> Option<()> {
    *phase = match (*phase, reply) {
        (Phase::Asking, Reply::Granted) => Phase::Holding,
        (Phase::Asking, Reply::Waiting) => Phase::Queued,
        (Phase::Asking | Phase::Queued, Reply::Renewed(Known::Held)) => Phase::Called,
        (Phase::Queued | Phase::Holding, Reply::Renewed(Known::Lost)) => Phase::Asking,
        _ => return None,
    };
    Some(())
}

/// The rule that an operation broke, worked out without the queue's own structure.
fn broken(order: Order, before: &Pool, after: &Pool, now: Now) -> Option<Rule> {
    let new: BTreeMap<_, _> = after
        .grants
        .iter()
        .filter(|(member, record)| before.grants.get(*member) != Some(record))
        .collect();
    let numbers: BTreeSet<_> = new.values().map(|record| record.fencing_number).collect();
    let grew = numbers.len() == new.len()
        && numbers
            .iter()
            .all(|number| number.get() >= before.issued && number.get() < after.issued);
    if !grew {
        return Some(Rule::FencingNumbersGrow);
    }
    let tickets = after.queue.unsorted();
    let is_alive =
        |member: &Member| after.leases.score(member).is_some_and(|end| end > now.millis());
    // Those that no cap stops, seen without the grants of this operation that they stand before.
    let could_run = |member: &Member, filed: &Filed| {
        let counted = after.grants.keys().filter(|&granted| {
            let ticket = before.queue.unsorted().get(granted);
            let is_later = match ticket {
                Some(ticket) => stands_before(order, (member, filed), (granted, ticket)),
                None => true,
            };
            !(new.contains_key(granted) && is_later)
        });
        let counted: Vec<_> = counted.collect();
        is_alive(member) && !is_capped(member, filed, after, &counted)
    };
    let runnable: Vec<_> =
        tickets.iter().filter(|(member, filed)| could_run(member, filed)).collect();
    let barged = new.keys().any(|granted| {
        runnable.iter().any(|&(member, filed)| match before.queue.unsorted().get(*granted) {
            Some(ticket) => stands_before(order, (member, filed), (granted, ticket)),
            // It came last. Between projects, fair shares may let it go first.
            None => {
                let of_one_project = scope_of(member).0 == scope_of(granted).0;
                let was_there = before.queue.unsorted().contains_key(member);
                was_there && (order != Order::Fair || of_one_project)
            }
        })
    });
    if barged {
        return Some(Rule::NobodyBarges);
    }
    let all: Vec<_> = after.grants.keys().collect();
    let uncapped: Vec<_> = tickets
        .iter()
        .filter(|(member, filed)| is_alive(member) && !is_capped(member, filed, after, &all))
        .collect();
    let fits = |filed: &Filed| after.in_use + filed.waiting.units.get() <= QUOTA;
    let forgotten = uncapped.iter().any(|&(member, filed)| {
        let gives_way_to = |&&(other, before): &&(&Member, &Filed)| {
            !fits(before) && !stands_before(order, (member, filed), (other, before))
        };
        fits(filed) && !uncapped.iter().any(|other| gives_way_to(&other))
    });
    forgotten.then_some(Rule::NobodyIsForgotten)
}

fn is_whole(pool: &Pool) -> bool {
    let tickets = pool.queue.unsorted();
    let positions: BTreeSet<_> = tickets.keys().map(|member| pool.queue.position(member)).collect();
    let numbers: BTreeSet<_> = (1..=tickets.len() as u64).map(Some).collect();
    let has_end = |member: &Member| {
        let end = pool.leases.score(member);
        end.is_some_and(|end| pool.due.is_some_and(|due| due <= end))
    };
    let is_alone = |member| has_end(member) && !pool.grants.contains_key(member);
    positions == numbers && tickets.keys().all(is_alone) && pool.grants.keys().all(has_end)
}

/// Whether a ticket stands before another for certain: between projects, fair shares may say so or otherwise.
fn stands_before(order: Order, first: (&Member, &Filed), second: (&Member, &Filed)) -> bool {
    let of_one_project = scope_of(first.0).0 == scope_of(second.0).0;
    (order != Order::Fair || of_one_project) && (first.1.rank, first.0) < (second.1.rank, second.0)
}

/// Whether a cap stops a ticket beside these grants.
fn is_capped(member: &Member, filed: &Filed, pool: &Pool, granted: &[&Member]) -> bool {
    let (project, domain) = scope_of(member);
    let used = |belongs: &dyn Fn(&Member) -> bool| {
        let records = granted.iter().filter(|other| belongs(other));
        records.map(|other| pool.grants[*other].units.get()).sum::<u64>()
    };
    let exceeds =
        |cap: Option<u64>, used| cap.is_some_and(|cap| used + filed.waiting.units.get() > cap);
    let caps = filed.waiting.caps;
    let of_project = used(&|other| scope_of(other).0 == project);
    let of_domain = used(&|other| scope_of(other) == (project, domain));
    exceeds(caps.project_scope_resource_constraint.map(|cap| cap.value()), of_project)
        || exceeds(caps.namespace_scope_resource_constraint.map(|cap| cap.value()), of_domain)
}

const fn role(domain: &'static str, units: i64) -> Role {
    Role { domain, units, project_cap: None, domain_cap: None, priority: 0 }
}

/// Looks at every state within the bounds, and that there are as many as there should be.
fn explore(bounds: Bounds, order: Order, roles: [Role; CLIENTS]) -> Result<()> {
    let started = std::time::Instant::now();
    let model = Protocol::new(bounds, order, roles)?;
    let failure = HasDiscoveries::AnyFailures;
    let checker = model.checker().threads(2).finish_when(failure).spawn_bfs().join();
    let (states, ways) = (checker.unique_state_count(), checker.state_count());
    println!("{order}: {states} states, {ways} ways there, {:?}", started.elapsed());
    checker.assert_properties();
    assert!(states >= bounds.states, "only {states} states");
    Ok(())
}

/// Two of a project, of which one may run only if the project has nothing, and one of another that needs the whole pool.
fn capped_project() -> [Role; CLIENTS] {
    let capped = |domain, cap| Role { project_cap: Some(cap), ..role(domain, 1) };
    [capped("p:d", 1), capped("p:e", 2), Role { project_cap: Some(2), ..role("q:d", 2) }]
}

/// Two of a domain that may have one unit, and one that is more urgent and may pass.
fn capped_domain() -> [Role; CLIENTS] {
    let capped = Role { domain_cap: Some(1), ..role("p:d", 1) };
    [capped, capped, Role { priority: 1, ..role("q:d", 1) }]
}

#[test]
fn fifo_with_a_capped_project() -> Result<()> {
    explore(QUICK, Order::Fifo, capped_project())
}

#[test]
fn priority_with_a_capped_domain() -> Result<()> {
    explore(QUICK, Order::Priority, capped_domain())
}

#[test]
fn fair_with_a_capped_project() -> Result<()> {
    explore(QUICK, Order::Fair, capped_project())
}

#[test]
#[ignore = "takes half a minute when optimized"]
fn fifo_in_depth() -> Result<()> {
    explore(DEEP, Order::Fifo, capped_project())
}

#[test]
#[ignore = "takes half a minute when optimized"]
fn priority_in_depth() -> Result<()> {
    explore(DEEP, Order::Priority, capped_domain())
}

#[test]
#[ignore = "takes half a minute when optimized"]
fn fair_in_depth() -> Result<()> {
    explore(DEEP, Order::Fair, capped_project())
}
