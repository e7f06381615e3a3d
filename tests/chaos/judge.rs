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
//!
//! # What a failover excuses
//!
//! One primary, or one after another that has all of its data (a planned failover in a cluster, a slot that moves), excuses
//! nothing. A server that takes over may have forgotten the last grants, and one that was replaced may still be heard. So the
//! director writes down *doubts*: from when to when a server that decides about some pools was struck, or two may have decided.
//! A doubt that ended after something was asked takes away what the answer says of the time from its beginning on. That is all:
//!
//! * Of what was asked after a doubt, nothing may be granted on top, be gone too early, or be numbered wrongly.
//! * So units may be held twice from the beginning of a doubt until the longest lease after its end, and at no other time.
//!   How many were is counted.
//! * A doubt ends when the server is dead, or when it is seen to be no primary any more. What was granted, or asked for,
//!   while two may have decided need not have a larger number than what was granted before, nor what was granted before a
//!   smaller one than what the store takes afterwards, and nothing else is excused from that.
//! * A guard may get another number, which is how the library tells that its grant was forgotten, after a doubt alone.
//!
//! Where pools are *protected* (by `minReplicas` and a learning period longer than any lease) a doubt excuses less: nothing is
//! granted on top at any time, and all numbers grow. But renewals wait for no replica. If the last was forgotten the server may take
//! units back as early as before that renewal, so they may be gone too early, to nobody. And what was renewed while two servers may
//! have decided counts from when it was asked for before that: the one that was replaced may have said so.
//!
//! # What is answered in time
//!
//! Whoever asks the library gets an answer, if only an error, within the time that is configured, apart from when the asking
//! process stood still.

use std::collections::{BTreeMap, HashMap};

use crate::events::{Entry, Event, Id, MILLI};

/// Both clocks that are compared, this machine's and the one that Redis reads, may be adjusted a little; leases are whole
/// milliseconds.
const MARGIN: u64 = 10 * MILLI;
/// For whatever this machine is busy with while somebody waits for an answer.
const BUSY: u64 = 1_000 * MILLI;

/// Quota, cap of each project and cap of each domain of a pool.
pub(crate) type Limits = fn(&str) -> Option<(u64, Option<u64>, Option<u64>)>;

/// What is judged by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) limits: Limits,
    /// Whether a failover excuses no grant.
    pub(crate) protected: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) violations: Vec<String>,
    /// How often what was noted.
    pub(crate) counts: BTreeMap<String, u64>,
    /// Most units that were certainly held at once, by pool or scope, and how many may be.
    pub(crate) most: BTreeMap<String, (u64, u64)>,
    /// How often more than may be were held where a doubt excuses that, and how many more at most.
    pub(crate) excused: (u64, u64),
    /// The longest time that each kind of call took, and how long it may take, in milliseconds.
    pub(crate) slowest: BTreeMap<String, (u64, u64)>,
}

/// Some time, from its beginning to before its end.
#[derive(Clone, Copy, Debug)]
struct Span {
    from: u64,
    until: u64,
}

/// Time in which units are certain to be held.
#[derive(Debug)]
struct Holding {
    id: Id,
    scope: String,
    units: u64,
    /// In milliseconds.
    lease: u64,
    /// When what was answered first was asked.
    asked: u64,
    since: u64,
    /// When it was asked for, and answered, that it is not held.
    gone: Option<(u64, u64)>,
    /// As if no doubt took anything away.
    believed: Span,
    certain: Span,
}

/// A number that was granted, and when.
#[derive(Debug)]
struct Numbered {
    fence: u64,
    units: u64,
    since: u64,
    answered: u64,
    excused: bool,
}

#[derive(Debug)]
struct Write {
    id: Id,
    begun: u64,
    done: u64,
    accepted: bool,
}

/// A time in which a server that decides about these pools may have been replaced.
#[derive(Debug)]
struct Doubt {
    pools: Vec<String>,
    from: u64,
    until: u64,
    /// Whether it may have been heard all the same.
    heard: bool,
}

#[derive(Debug)]
struct Case {
    rules: Rules,
    doubts: Vec<Doubt>,
    verdict: Verdict,
    holdings: Vec<Holding>,
    numbers: HashMap<String, BTreeMap<u64, Numbered>>,
    owners: HashMap<Id, u64>,
    writes: Vec<Write>,
}

/// Judges the logs of processes, by their numbers, with what the director wrote down.
pub(crate) fn judge(logs: &BTreeMap<u64, Vec<Entry>>, director: &[Entry], rules: Rules) -> Verdict {
    let mut doubts = Vec::new();
    for Entry { at, event } in director {
        if let Event::Doubtful { from, heard, pools } = event {
            let (pools, from, until, heard) = (pools.clone(), *from, *at, *heard);
            doubts.push(Doubt { pools, from, until, heard });
        }
    }
    let mut case = Case {
        rules,
        doubts,
        verdict: Verdict::default(),
        holdings: Vec::new(),
        numbers: HashMap::new(),
        owners: HashMap::new(),
        writes: Vec::new(),
    };
    for (process, log) in logs {
        case.read(*process, log);
    }
    case.no_limit_is_exceeded();
    case.numbers_only_grow();
    case.the_store_refuses_only_who_may_have_lost();
    case.verdict
}

impl Span {
    /// Held until then; what was doubtful between is certain from now on only.
    fn extend(&mut self, now: u64, until: u64) {
        if self.from >= self.until {
            self.from = now;
        }
        self.until = self.until.max(until);
    }

    fn end(&mut self, now: u64) {
        self.until = self.until.min(now);
    }
}

impl Holding {
    /// A grant that was asked for and answered at these times, of which nothing more is known yet.
    fn new(
        id: Id,
        scope: String,
        (units, lease): (u64, u64),
        since: u64,
        (asked, now): (u64, u64),
    ) -> Self {
        let nothing = Span { from: now, until: now };
        let (believed, certain) = (nothing, nothing);
        Self { id, scope, units, lease, asked, since, gone: None, believed, certain }
    }

    fn end(&mut self, now: u64) {
        self.believed.end(now);
        self.certain.end(now);
    }

    fn span(&self, protected: bool) -> Span {
        if protected { self.believed } else { self.certain }
    }
}

impl Case {
    /// Finds out what one process held when.
    fn read(&mut self, process: u64, log: &[Entry]) {
        let mut open: HashMap<Id, usize> = HashMap::new();
        let still = log.iter().filter_map(|Entry { at, event }| match event {
            Event::StoodStill { from } => Some(Span { from: *from, until: *at }),
            _ => None,
        });
        let still: Vec<_> = still.collect();
        for Entry { at, event } in log {
            match event {
                Event::Granted { id, since, asked, lease, units, scope } => {
                    self.number(process, id, *units, (*since, *asked), *at);
                    let known = *open.entry(id.clone()).or_insert_with(|| {
                        let terms = (*units, *lease);
                        let holding =
                            Holding::new(id.clone(), scope.clone(), terms, *since, (*asked, *at));
                        self.holdings.push(holding);
                        self.holdings.len() - 1
                    });
                    let until = asked + lease * MILLI - MARGIN;
                    self.learn(known, *asked, *at, until);
                    self.holdings[known].believed.extend(*at, until);
                }
                Event::Seen { id, asked, left } => {
                    let Some(&known) = open.get(id) else { continue };
                    let left = self.holdings[known].lease.min(*left);
                    let until = asked + (left * MILLI).saturating_sub(MARGIN);
                    self.learn(known, *asked, *at, until);
                    self.came_back(known, *at);
                    // It may have been told by the one that was replaced, and replicas do not have it.
                    let pool = &id.pool;
                    let mut heard = self.doubts.iter().filter(|doubt| doubt.heard);
                    if !heard.any(|doubt| doubt.excuses(pool, *asked, *at)) {
                        self.holdings[known].believed.extend(*at, until);
                    }
                    self.count("seen");
                }
                Event::Gone { id, asked } => {
                    if let Some(&known) = open.get(id) {
                        let holding = &mut self.holdings[known];
                        if *at < holding.certain.until {
                            let early = (holding.certain.until - at) / MILLI;
                            let text = format!("{at}: {id:?} was gone {early} ms too early");
                            self.verdict.violations.push(text);
                        }
                        // Nobody else may have what is believed to be held, though.
                        holding.certain.end(*at);
                        holding.gone = Some((*asked, *at));
                    }
                    self.count("gone");
                }
                Event::Lost { id } | Event::Returning { id } => {
                    if let Some(known) = open.remove(id) {
                        self.holdings[known].end(*at);
                    }
                    let lost = matches!(event, Event::Lost { .. });
                    self.count(if lost { "lost" } else { "returned" });
                }
                Event::Regained { id, was, asked } => {
                    let old = Id { pool: id.pool.clone(), fence: *was };
                    let Some(known) = open.remove(&old) else { continue };
                    self.regained(process, known, id, *asked, *at);
                    open.insert(id.clone(), self.holdings.len() - 1);
                    self.count("regained");
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
                Event::Took { call, asked, limit } => {
                    self.took(call, (*asked, *at), *limit, &still);
                }
                Event::Note(word) => self.count(word),
                Event::Broken(text) => self.verdict.violations.push(format!("{at}: {text}")),
                Event::StoodStill { .. } => {}
                Event::Doubtful { .. } => {
                    self.verdict.violations.push(format!("{at}: {event:?} is the director's"));
                }
            }
        }
    }

    /// What was asked at `asked` and answered now says that this is held until then.
    fn learn(&mut self, known: usize, asked: u64, now: u64, until: u64) {
        let holding = &mut self.holdings[known];
        let doubts = self.doubts.iter().filter(|doubt| doubt.is_about(&holding.id.pool));
        let first = doubts.filter(|doubt| asked <= doubt.until).map(|doubt| doubt.from).min();
        holding.certain.extend(now, until.min(first.unwrap_or(until)));
    }

    /// The grant was forgotten, and its token has another now.
    fn regained(&mut self, process: u64, known: usize, id: &Id, asked: u64, now: u64) {
        let old = &mut self.holdings[known];
        let (scope, terms) = (old.scope.clone(), (old.units, old.lease));
        let (since, first_asked) = (old.since, old.asked);
        let mut holding = Holding::new(id.clone(), scope, terms, since, (asked, now));
        // Its number is another, but nobody else may have had its units.
        holding.believed.extend(now, old.believed.until);
        old.end(now);
        self.holdings.push(holding);
        self.number(process, id, terms.0, (since, asked), now);
        if !self.doubts.iter().any(|doubt| doubt.excuses(&id.pool, first_asked, now)) {
            let text = format!("{now}: {id:?} was claimed again, and nothing can be forgotten");
            self.verdict.violations.push(text);
        }
    }

    /// What is gone is not there again, unless it was not the server any more that said so.
    fn came_back(&mut self, known: usize, now: u64) {
        let holding = &mut self.holdings[known];
        let Some((asked, answered)) = holding.gone.take() else { return };
        if !self.doubts.iter().any(|doubt| doubt.excuses(&holding.id.pool, asked, answered)) {
            let text = format!("{now}: {:?} was gone and is there again", holding.id);
            self.verdict.violations.push(text);
        }
    }

    fn took(&mut self, call: &str, (asked, now): (u64, u64), limit: u64, still: &[Span]) {
        let stopped = still
            .iter()
            .map(|still| still.until.min(now).saturating_sub(still.from.max(asked)))
            .sum::<u64>();
        let took = (now - asked).saturating_sub(stopped);
        if took > limit * MILLI + BUSY {
            let text = format!("{now}: {call} took {} ms, more than {limit}", took / MILLI);
            self.verdict.violations.push(text);
        }
        let slowest = self.verdict.slowest.entry(call.to_owned()).or_default();
        *slowest = (*slowest).max((took / MILLI, limit));
    }

    fn count(&mut self, what: &str) {
        *self.verdict.counts.entry(what.to_owned()).or_default() += 1;
    }

    /// Notes a number; told again, it is the same grant and must be the same process's.
    fn number(
        &mut self,
        process: u64,
        id: &Id,
        units: u64,
        (since, asked): (u64, u64),
        answered: u64,
    ) {
        self.count("grants answered");
        if (self.rules.limits)(&id.pool).is_none() {
            self.verdict.violations.push(format!("{id:?} is of no pool"));
        }
        let mut doubts = self.doubts.iter();
        let excused =
            !self.rules.protected && doubts.any(|doubt| doubt.excuses(&id.pool, asked, answered));
        let owner = *self.owners.entry(id.clone()).or_insert(process);
        let numbers = self.numbers.entry(id.pool.clone()).or_default();
        let first = Numbered { fence: id.fence, units, since, answered, excused };
        let first = numbers.entry(id.fence).or_insert(first);
        first.excused |= excused;
        if !first.excused && (owner != process || first.units != units) {
            self.verdict.violations.push(format!("{answered}: {id:?} was granted twice"));
        }
    }

    fn no_limit_is_exceeded(&mut self) {
        let protected = self.rules.protected;
        for (name, book) in self.books(|holding| holding.span(protected)) {
            let limit = book.limit;
            let most = book.sums().inspect(|(at, held)| {
                if *held > limit {
                    let text = format!("{at}: {held} of {limit} units of {name} are held");
                    self.verdict.violations.push(text);
                }
            });
            let most = most.map(|(_, held)| held).max().unwrap_or_default();
            self.verdict.most.insert(name, (most, limit));
        }
        if !protected {
            for (_, book) in self.books(|holding| holding.believed) {
                let limit = book.limit;
                for (_, held) in book.sums().filter(|(_, held)| *held > limit) {
                    let (times, most) = &mut self.verdict.excused;
                    (*times, *most) = (*times + 1, held.abs_diff(limit).max(*most));
                }
            }
        }
    }

    /// What is held of each pool and scope that has a limit.
    fn books(&self, span: impl Fn(&Holding) -> Span) -> BTreeMap<String, Book> {
        let mut books: BTreeMap<String, Book> = BTreeMap::new();
        for holding in &self.holdings {
            let Holding { id: Id { pool, .. }, scope, units, .. } = holding;
            let Span { from, until } = span(holding);
            let Some((quota, project_cap, domain_cap)) = (self.rules.limits)(pool) else {
                continue;
            };
            if from >= until {
                continue;
            }
            let project = scope.split(' ').next().unwrap_or_default();
            let kept = [
                (Some(quota), pool.clone()),
                (project_cap, format!("{pool} {project}")),
                (domain_cap, format!("{pool} {scope}")),
            ];
            for (limit, name) in kept {
                let Some(limit) = limit else { continue };
                let book = books.entry(name).or_insert(Book { limit, changes: Vec::new() });
                // What ends at the same time ends first.
                book.changes.extend([(from, true, *units), (until, false, *units)]);
            }
        }
        books
    }

    /// A later grant has the larger number, but for what is excused, and no unit is numbered twice. Of two grants one is later if its token was claimed
    /// first after the other was answered.
    fn numbers_only_grow(&mut self) {
        for (pool, numbers) in &self.numbers {
            let grants = numbers.len().try_into().unwrap_or(u64::MAX);
            *self.verdict.counts.entry("grants".to_owned()).or_default() += grants;
            let numbers: Vec<_> = numbers.values().filter(|grant| !grant.excused).collect();
            for (one, next) in numbers.iter().zip(numbers.iter().skip(1)) {
                if one.fence + one.units > next.fence {
                    let text = format!("{pool}: numbers {} and {} overlap", one.fence, next.fence);
                    self.verdict.violations.push(text);
                }
            }
            let (mut by_answer, mut by_claim) = (numbers.clone(), numbers);
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

    fn is_excused(&self, pool: &str, number: u64) -> bool {
        let grant = self.numbers.get(pool).and_then(|numbers| numbers.get(&number));
        grant.is_some_and(|grant| grant.excused)
    }

    /// The store lets numbers only grow; it must not have seen a larger one than that of who certainly holds the lock, unless
    /// that is excused.
    fn the_store_refuses_only_who_may_have_lost(&mut self) {
        self.writes.sort_by_key(|write| write.begun);
        let (mut largest, mut violations) = (0, Vec::new());
        for Write { id, begun, done, accepted } in &self.writes {
            let certain = |holding: &&Holding| {
                let Span { from, until } = holding.span(self.rules.protected);
                holding.id == *id && from <= *begun && *done < until
            };
            match accepted {
                true if id.fence < largest => {
                    violations.push(format!("{done}: {id:?} wrote after {largest}"));
                }
                true => largest = id.fence,
                false if self.is_excused(&id.pool, largest) => {}
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

/// When how many units come and go, and how many may be held.
#[derive(Debug)]
struct Book {
    limit: u64,
    changes: Vec<(u64, bool, u64)>,
}

impl Book {
    /// How many are held whenever more are.
    fn sums(mut self) -> impl Iterator<Item = (u64, u64)> {
        self.changes.sort_unstable();
        let mut held = 0;
        self.changes.into_iter().filter_map(move |(at, comes, units)| {
            match comes {
                true => held += units,
                false => held -= units,
            }
            comes.then_some((at, held))
        })
    }
}

impl Doubt {
    /// Whether it may be why an answer to what was asked then was wrong.
    fn excuses(&self, pool: &str, asked: u64, answered: u64) -> bool {
        self.is_about(pool) && asked <= self.until && self.from <= answered
    }

    fn is_about(&self, pool: &str) -> bool {
        self.pools.iter().any(|other| other == pool)
    }
}

/// What cannot fail proves nothing: each kind of violation in a log of its own is found, and a clean log is clean.
pub(crate) fn prove() {
    fn limits(pool: &str) -> Option<(u64, Option<u64>, Option<u64>)> {
        (pool == "a:b").then_some((3, Some(2), Some(1)))
    }
    let ms = |millis: u64| millis * MILLI;
    let id = |fence| Id { pool: "a:b".to_owned(), fence };
    let entry = |at, event| Entry { at: ms(at), event };
    let granted = |at, fence, units, scope: &str| {
        let (since, asked, scope) = (ms(at - 1), ms(at - 1), scope.to_owned());
        entry(at, Event::Granted { id: id(fence), since, asked, lease: 1_000, units, scope })
    };
    let gone = |at, fence| entry(at, Event::Gone { id: id(fence), asked: ms(at - 1) });
    let returning = |at, fence| entry(at, Event::Returning { id: id(fence) });
    let seen = |at, fence| entry(at, Event::Seen { id: id(fence), asked: ms(at - 1), left: 1_000 });
    let refused =
        |at, fence| entry(at, Event::Stored { id: id(fence), asked: ms(at - 1), accepted: false });
    let accepted =
        |at, fence| entry(at, Event::Stored { id: id(fence), asked: ms(at - 1), accepted: true });
    let regained =
        |at, fence, was| entry(at, Event::Regained { id: id(fence), was, asked: ms(at - 1) });
    let took = |at, asked| {
        let (call, asked) = ("call".to_owned(), ms(asked));
        entry(at, Event::Took { call, asked, limit: 3_000 })
    };
    let first = || granted(100, 10, 1, "p d");
    let cases: [(&str, Vec<Vec<Entry>>); 12] = [
        // One after the other; the lease of the second is over, or a pause outlasted it, when the third begins.
        (
            "",
            vec![
                vec![granted(100, 10, 1, "p d"), returning(200, 10), refused(201, 10)],
                vec![granted(250, 13, 1, "p d"), accepted(251, 13)],
                vec![granted(1_260, 14, 1, "p d"), gone(2_260, 14)],
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
    let others: [(&str, Vec<Vec<Entry>>); 3] = [
        ("is there again", vec![vec![first(), gone(1_100, 10), seen(1_101, 10)]]),
        ("nothing can be forgotten", vec![vec![first(), regained(500, 12, 10)]]),
        ("call took 7001 ms", vec![vec![took(4_000, 1_000), took(8_001, 1_000)]]),
    ];
    for (expected, logs) in cases.into_iter().chain(others) {
        proves(expected, logs, &[], Rules { limits, protected: false });
    }

    // Somebody may have replaced the server from 500 to 700.
    let doubt =
        |pool: &str, heard| Event::Doubtful { from: ms(500), heard, pools: vec![pool.to_owned()] };
    let director = [entry(700, doubt("a:b", false))];
    let two = [entry(700, doubt("a:b", true))];
    let elsewhere = [entry(700, doubt("a:c", false))];
    // Who is asked after the doubt, and nobody else, is believed after its beginning.
    let on_top = || vec![vec![first()], vec![granted(600, 11, 1, "p d")]];
    let before = || vec![vec![first()], vec![granted(499, 11, 1, "p d")]];
    let after = || vec![vec![first(), seen(800, 10)], vec![granted(900, 13, 1, "p d")]];
    let early = || vec![vec![first(), gone(600, 10)]];
    let early_after = || vec![vec![first(), seen(800, 10), gone(900, 10)]];
    let back = || vec![vec![first(), gone(600, 10), regained(650, 12, 10), seen(800, 12)]];
    let back_late = || vec![vec![granted(800, 10, 1, "p d"), regained(900, 12, 10)]];
    let nobody_else = || {
        let first = vec![first(), gone(600, 10), regained(650, 12, 10)];
        vec![first, vec![granted(800, 13, 1, "p d")]]
    };
    let deposed = || vec![vec![granted(600, 20, 1, "p d")], vec![granted(650, 11, 1, "q d")]];
    let smaller = || vec![vec![granted(450, 20, 1, "p d")], vec![granted(750, 11, 1, "q d")]];
    let deaf = || vec![vec![first(), gone(600, 10), seen(701, 10)]];
    let deaf_after = || vec![vec![first(), gone(1_100, 10), seen(1_101, 10)]];
    // The one that was replaced gave the store a larger number.
    let overtaken = || {
        let deposed = vec![granted(600, 20, 1, "q d"), accepted(601, 20)];
        vec![vec![first(), seen(800, 10), refused(810, 10)], deposed]
    };
    // Handed on before the doubt, and told after it.
    let told_late = || {
        let (since, asked, scope) = (ms(99), ms(99), "p d".to_owned());
        let granted = Event::Granted { id: id(10), since, asked, lease: 1_000, units: 1, scope };
        vec![vec![entry(800, granted), regained(900, 12, 10)]]
    };
    // Renewed in doubt, and granted to another when the lease from before it was over.
    let renewed = || vec![vec![first(), seen(600, 10)], vec![granted(1_200, 13, 1, "p d")]];
    type Case<'a> = (&'a str, bool, &'a [Entry], Vec<Vec<Entry>>);
    let cases: [Case<'_>; 28] = [
        ("", true, &two, early()),
        ("gone 889 ms too early", false, &two, early_after()),
        ("", true, &two, renewed()),
        ("2 of 1", true, &director, renewed()),
        ("2 of 1", true, &two, on_top()),
        ("", true, &director, told_late()),
        ("", false, &director, deaf()),
        ("", true, &director, deaf()),
        ("is there again", true, &director, deaf_after()),
        ("", false, &director, overtaken()),
        ("could not write", true, &director, overtaken()),
        ("", false, &director, on_top()),
        ("2 of 1", true, &director, on_top()),
        ("2 of 1", false, &elsewhere, on_top()),
        ("2 of 1", false, &director, before()),
        ("2 of 1", false, &director, after()),
        ("", false, &director, early()),
        ("", true, &director, early()),
        ("gone 489 ms too early", false, &elsewhere, early()),
        ("gone 889 ms too early", true, &director, early_after()),
        ("", false, &director, back()),
        ("", true, &director, back()),
        ("nothing can be forgotten", true, &director, back_late()),
        ("", false, &director, nobody_else()),
        ("2 of 1", true, &director, nobody_else()),
        ("", false, &director, deposed()),
        ("was granted after", true, &director, deposed()),
        ("was granted after", false, &director, smaller()),
    ];
    for (expected, protected, director, logs) in cases {
        proves(expected, logs, director, Rules { limits, protected });
    }
    // Stopped twice, the first time while nothing was asked.
    let still = |at, from| entry(at, Event::StoodStill { from: ms(from) });
    let stopped = vec![still(2_000, 500), still(10_500, 4_000), took(13_000, 3_000)];
    let plain = Rules { limits, protected: false };
    proves("", vec![stopped.clone()], &[], plain);
    proves("call took 10000 ms", vec![stopped, vec![took(13_000, 3_000)]], &[], plain);
}

fn proves(expected: &str, logs: Vec<Vec<Entry>>, director: &[Entry], rules: Rules) {
    let found = judge(&(1..).zip(logs).collect(), director, rules).violations;
    match expected {
        "" => assert!(found.is_empty(), "{found:?}"),
        _ => assert!(found.iter().any(|text| text.contains(expected)), "{expected}: {found:?}"),
    }
}
