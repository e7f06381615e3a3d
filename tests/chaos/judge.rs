//! Knows nothing of the library, only what the workers wrote down.
//!
//! # Who is certain to hold
//!
//! A worker does not see when the library renews a lease, and `is_lost` may be late on a busy machine, so neither says
//! who holds. What does: an answer of the server, together with the moment *before* it was asked. The server acted later
//! than that, so it will keep the units at least until
//!
//! * the claim was made + its lease, after a grant (the claim sets the lease, also that of a ticket whose turn came);
//! * the server was asked + what it said to be left, after a look at the holders or a renewal that named the same fencing
//!   number, but no more than the lease: what was handed over is held for the rest of its ticket's time, until the first
//!   renewal gives it the lease that was asked for. The number also says that it is the same grant, held all the time in
//!   between.
//!
//! The holding begins when the grant was answered. It ends at the latest of these moments, or at once when the worker
//! began to give the units back, or was told that they are lost. Being paused or killed plays no part: nothing that
//! a process does not do can end its lease sooner. (A worker learns of what it got while it waited only by the answer, when
//! the lease that counts from the first call may be over; then the holding is certain again from the next look on.)

use std::collections::{BTreeMap, HashMap};

use crate::events::{Entry, Event, Id, MILLI};

/// Both clocks that are compared, this machine's and the one that Redis reads, may be adjusted a little; leases are whole
/// milliseconds.
const MARGIN: u64 = 10 * MILLI;

/// Quota, cap of each project and cap of each domain of a pool.
pub(crate) type Limits = fn(&str) -> Option<(u64, Option<u64>, Option<u64>)>;

#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) violations: Vec<String>,
    /// How often what was noted.
    pub(crate) counts: BTreeMap<String, u64>,
    /// Most units that were certainly held at once, by pool or scope, and how many may be.
    pub(crate) most: BTreeMap<String, (u64, u64)>,
}

/// Time in which units are certain to be held.
#[derive(Debug)]
struct Holding {
    id: Id,
    scope: String,
    units: u64,
    /// In milliseconds.
    lease: u64,
    from: u64,
    until: u64,
}

/// A number that was granted, and when.
#[derive(Debug)]
struct Numbered {
    fence: u64,
    units: u64,
    since: u64,
    answered: u64,
}

#[derive(Debug)]
struct Write {
    id: Id,
    begun: u64,
    done: u64,
    accepted: bool,
}

#[derive(Debug, Default)]
struct Case {
    verdict: Verdict,
    holdings: Vec<Holding>,
    numbers: HashMap<String, BTreeMap<u64, Numbered>>,
    owners: HashMap<Id, usize>,
    writes: Vec<Write>,
}

/// Judges the logs, one of each process.
pub(crate) fn judge(logs: &[Vec<Entry>], limits: Limits) -> Verdict {
    let mut case = Case::default();
    for (worker, log) in logs.iter().enumerate() {
        case.read(worker, log);
    }
    case.no_limit_is_exceeded(limits);
    case.numbers_only_grow();
    case.the_store_refuses_only_who_may_have_lost();
    case.verdict
}

impl Case {
    /// Finds out what one process held when.
    fn read(&mut self, worker: usize, log: &[Entry]) {
        let mut open: HashMap<&Id, usize> = HashMap::new();
        for Entry { at, event } in log {
            match event {
                Event::Granted { id, since, asked, lease, units, scope } => {
                    self.number(worker, id, *units, *since, *at);
                    let until = asked + lease * MILLI - MARGIN;
                    let known = *open.entry(id).or_insert(self.holdings.len());
                    match self.holdings.get_mut(known) {
                        Some(holding) => extend(holding, *at, until),
                        None => self.holdings.push(Holding {
                            id: id.clone(),
                            scope: scope.clone(),
                            units: *units,
                            lease: *lease,
                            from: *at,
                            until: until.max(*at),
                        }),
                    }
                }
                Event::Seen { id, asked, left } => {
                    let Some(&known) = open.get(id) else { continue };
                    let holding = &mut self.holdings[known];
                    let left = holding.lease.min(*left);
                    let until = asked + (left * MILLI).saturating_sub(MARGIN);
                    extend(holding, *at, until);
                    self.count("seen");
                }
                Event::Gone { id } => {
                    if let Some(known) = open.remove(id) {
                        let holding = &mut self.holdings[known];
                        if *at < holding.until {
                            let early = (holding.until - at) / MILLI;
                            let text = format!("{at}: {id:?} was gone {early} ms too early");
                            self.verdict.violations.push(text);
                        }
                        holding.until = holding.until.min(*at);
                    }
                    self.count("gone");
                }
                Event::Lost { id } | Event::Returning { id } => {
                    if let Some(known) = open.remove(id) {
                        let holding = &mut self.holdings[known];
                        holding.until = holding.until.min(*at);
                    }
                    let lost = matches!(event, Event::Lost { .. });
                    self.count(if lost { "lost" } else { "returned" });
                }
                Event::Unnoticed { id } => {
                    self.verdict
                        .violations
                        .push(format!("{at}: nobody was told that {id:?} is lost"));
                }
                Event::Stored { id, asked, accepted } => {
                    let (begun, done) = (*asked, *at);
                    self.writes.push(Write { id: id.clone(), begun, done, accepted: *accepted });
                }
                Event::Note(word) => self.count(word),
                Event::Broken(text) => self.verdict.violations.push(format!("{at}: {text}")),
            }
        }
    }

    fn count(&mut self, what: &str) {
        *self.verdict.counts.entry(what.to_owned()).or_default() += 1;
    }

    /// Notes a number; told again, it is the same grant and must be the same process's.
    fn number(&mut self, worker: usize, id: &Id, units: u64, since: u64, answered: u64) {
        self.count("grants answered");
        let owner = *self.owners.entry(id.clone()).or_insert(worker);
        let numbers = self.numbers.entry(id.pool.clone()).or_default();
        let first = Numbered { fence: id.fence, units, since, answered };
        let first = numbers.entry(id.fence).or_insert(first);
        if owner != worker || first.units != units {
            self.verdict.violations.push(format!("{answered}: {id:?} was granted twice"));
        }
    }

    fn no_limit_is_exceeded(&mut self, limits: Limits) {
        // Of each pool or scope: its limit, and when how many units come and go.
        type Changes = Vec<(u64, bool, u64)>;
        let mut books: BTreeMap<String, (u64, Changes)> = BTreeMap::new();
        for Holding { id, scope, units, from, until, .. } in &self.holdings {
            let Some((quota, project_cap, domain_cap)) = limits(&id.pool) else {
                self.verdict.violations.push(format!("{id:?} is of no pool"));
                continue;
            };
            if from >= until {
                continue;
            }
            let pool = &id.pool;
            let project = scope.split(' ').next().unwrap_or_default();
            let kept = [
                (Some(quota), pool.clone()),
                (project_cap, format!("{pool} {project}")),
                (domain_cap, format!("{pool} {scope}")),
            ];
            for (limit, name) in kept {
                let Some(limit) = limit else { continue };
                let (_, changes) = books.entry(name).or_insert((limit, Vec::new()));
                // What ends at the same time ends first.
                changes.extend([(*from, true, *units), (*until, false, *units)]);
            }
        }
        for (name, (limit, mut changes)) in books {
            changes.sort_unstable();
            let (mut held, mut most) = (0, 0);
            for (at, comes, units) in changes {
                if !comes {
                    held -= units;
                    continue;
                }
                held += units;
                most = most.max(held);
                if held > limit {
                    let text = format!("{at}: {held} of {limit} units of {name} are held");
                    self.verdict.violations.push(text);
                }
            }
            self.verdict.most.insert(name, (most, limit));
        }
    }

    /// A later grant has the larger number, and no unit is numbered twice. Of two grants one is later if its token was claimed
    /// first after the other was answered.
    fn numbers_only_grow(&mut self) {
        for (pool, numbers) in &self.numbers {
            let grants = numbers.len().try_into().unwrap_or(u64::MAX);
            *self.verdict.counts.entry("grants".to_owned()).or_default() += grants;
            for (one, next) in numbers.values().zip(numbers.values().skip(1)) {
                if one.fence + one.units > next.fence {
                    let text = format!("{pool}: numbers {} and {} overlap", one.fence, next.fence);
                    self.verdict.violations.push(text);
                }
            }
            let mut by_answer: Vec<_> = numbers.values().collect();
            let mut by_claim = by_answer.clone();
            by_answer.sort_by_key(|grant| grant.answered);
            by_claim.sort_by_key(|grant| grant.since);
            let (mut answered, mut largest) = (by_answer.into_iter().peekable(), 0);
            for grant in by_claim {
                while let Some(earlier) = answered.next_if(|other| other.answered < grant.since) {
                    largest = largest.max(earlier.fence);
                }
                if grant.fence < largest {
                    let text = format!("{pool}: {} was granted after {largest}", grant.fence);
                    self.verdict.violations.push(text);
                }
            }
        }
    }

    /// The store lets numbers only grow; it must not have seen a larger one than that of who certainly holds the lock.
    fn the_store_refuses_only_who_may_have_lost(&mut self) {
        self.writes.sort_by_key(|write| write.begun);
        let (mut largest, mut violations) = (0, Vec::new());
        for Write { id, begun, done, accepted } in &self.writes {
            let certain = |holding: &&Holding| {
                holding.id == *id && holding.from <= *begun && *done < holding.until
            };
            match accepted {
                true if id.fence < largest => {
                    violations.push(format!("{done}: {id:?} wrote after {largest}"));
                }
                true => largest = id.fence,
                false if self.holdings.iter().any(|holding| certain(&holding)) => {
                    violations.push(format!("{done}: {id:?} could not write"));
                }
                false => {}
            }
        }
        for Write { accepted, .. } in std::mem::take(&mut self.writes) {
            self.count(if accepted { "writes" } else { "writes refused" });
        }
        self.verdict.violations.append(&mut violations);
    }
}

/// Held until then; what was doubtful between is certain from now on only.
fn extend(holding: &mut Holding, now: u64, until: u64) {
    if holding.from >= holding.until {
        holding.from = now;
    }
    holding.until = holding.until.max(until);
}

/// What cannot fail proves nothing: each kind of violation in a log of its own is found, and a clean log is clean.
pub(crate) fn prove() {
    fn limits(_: &str) -> Option<(u64, Option<u64>, Option<u64>)> {
        Some((3, Some(2), Some(1)))
    }
    let ms = |millis: u64| millis * MILLI;
    let id = |fence| Id { pool: "a:b".to_owned(), fence };
    let entry = |at, event| Entry { at: ms(at), event };
    let granted = |at, fence, units, scope: &str| {
        let (since, asked, scope) = (ms(at - 1), ms(at - 1), scope.to_owned());
        entry(at, Event::Granted { id: id(fence), since, asked, lease: 1_000, units, scope })
    };
    let gone = |at, fence| entry(at, Event::Gone { id: id(fence) });
    let returning = |at, fence| entry(at, Event::Returning { id: id(fence) });
    let seen = |at, fence| entry(at, Event::Seen { id: id(fence), asked: ms(at - 1), left: 1_000 });
    let refused =
        |at, fence| entry(at, Event::Stored { id: id(fence), asked: ms(at - 1), accepted: false });
    let accepted =
        |at, fence| entry(at, Event::Stored { id: id(fence), asked: ms(at - 1), accepted: true });
    let first = || granted(100, 10, 1, "p d");
    let cases: [(&str, Vec<Vec<Entry>>); 12] = [
        // One after the other; the lease of the second is over, or a pause outlasted it, when the third begins.
        (
            "",
            vec![
                vec![granted(100, 10, 1, "p d"), returning(200, 10), refused(201, 10)],
                vec![granted(250, 13, 1, "p d"), accepted(251, 13)],
                vec![granted(1_260, 14, 1, "p d"), gone(2_260, 14), seen(2_261, 14)],
            ],
        ),
        (
            "4 of 3 units of a:b are",
            vec![vec![first()], vec![granted(300, 11, 3, "q d"), returning(400, 11)]],
        ),
        ("3 of 2 units of a:b p are", vec![vec![first()], vec![granted(300, 11, 2, "p e")]]),
        ("2 of 1 units of a:b p d are", vec![vec![first()], vec![granted(300, 11, 1, "p d")]]),
        // Held longer than one lease, as a look showed.
        (
            "2 of 1 units of a:b p d are",
            vec![vec![first(), seen(900, 10)], vec![granted(1_500, 11, 1, "p d")]],
        ),
        ("gone 584 ms too early", vec![vec![first(), gone(505, 10)]]),
        ("overlap", vec![vec![granted(100, 10, 2, "p d")], vec![granted(3_000, 11, 1, "p d")]]),
        ("was granted after", vec![vec![first()], vec![granted(3_000, 9, 1, "p d")]]),
        ("was granted twice", vec![vec![first()], vec![granted(3_000, 10, 1, "p d")]]),
        ("could not write", vec![vec![first(), refused(200, 10)]]),
        (
            "wrote after 11",
            vec![
                vec![first(), returning(150, 10), accepted(400, 10)],
                vec![granted(200, 11, 1, "p d"), accepted(300, 11)],
            ],
        ),
        ("nobody was told", vec![vec![first(), entry(200, Event::Unnoticed { id: id(10) })]]),
    ];
    for (expected, logs) in cases {
        let found = judge(&logs, limits).violations;
        match expected {
            "" => assert!(found.is_empty(), "{found:?}"),
            _ => assert!(found.iter().any(|text| text.contains(expected)), "{expected}: {found:?}"),
        }
    }
}
