//! One pool: what is counted and recorded, what comes back, and handing on.
//!
//! A state machine without a clock, a lock or a task of its own: every operation is told the time, and what is to be told
//! to waiting processes is kept for whoever called. The rules are those of the scripts in `lua/`.

use std::collections::{HashMap, VecDeque};

use super::now::Now;
use super::queue::{Filed, Queue, Waiting, scope_of};
use super::scopes::Scopes;
use super::scored::Scored;
use crate::amount::Units;
use crate::name::{Member, PoolName};
use crate::outcome::{FencingNumber, Limit, Refusal};
use crate::pool::RevocationRecord;
use crate::ticket::{Channel, Notice};

/// Most leases and tickets to end in one call; what is left is due at once and done by the next.
pub(super) const ENDED: usize = 20;
/// Most tickets to look at in one call, to grant to them or to let the next pass.
pub(super) const HANDED: usize = 100;

/// One pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pool {
    pub(super) name: PoolName,
    pub(super) quota: u64,
    pub(super) registered: u64,
    pub(super) pinned: Option<u64>,
    /// Units granted since the pool was made, from a start that no earlier pool of the name reached; the next grant's
    /// fencing number.
    pub(super) issued: u64,
    /// `issued` as it was when the pool was made.
    pub(super) made: u64,
    pub(super) in_use: u64,
    pub(super) scopes: Scopes,
    pub(super) grants: HashMap<Member, Record>,
    /// When what a member holds, or its ticket, ends by itself: milliseconds since 1970.
    pub(super) leases: Scored<Member>,
    /// Not later than the first of those; none if there is none and the last that was noted has come. What was left undone by
    /// a call's bounds is due at 0.
    pub(super) due: Option<u64>,
    pub(super) queue: Queue,
    /// The oldest revocation first.
    pub(super) journal: VecDeque<RevocationRecord>,
    told: Vec<(Channel, Notice)>,
}

/// What is kept of a grant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Record {
    pub(super) units: Units,
    pub(super) fencing_number: FencingNumber,
    /// In seconds since 1970.
    pub(super) since: u64,
    pub(super) holder: String,
    pub(super) execution: String,
}

/// What becomes of the ticket whose turn it is.
#[derive(Clone, Copy, Debug)]
enum Verdict {
    Grant,
    ProjectAtCap,
    DomainAtCap,
    Over,
    TooLarge,
    WaitsForUnits,
}

impl Pool {
    pub(super) fn new(name: PoolName, now: Now, quota: u64) -> Self {
        Self {
            name,
            quota,
            registered: quota,
            pinned: None,
            issued: now.micros().max(1),
            made: now.micros().max(1),
            in_use: 0,
            scopes: Scopes::default(),
            grants: HashMap::new(),
            leases: Scored::default(),
            due: None,
            queue: Queue::default(),
            journal: VecDeque::new(),
            told: Vec::new(),
        }
    }

    /// What operations since the last call want to be told, and to whom.
    pub(super) fn take_notices(&mut self) -> Vec<(Channel, Notice)> {
        std::mem::take(&mut self.told)
    }

    pub(super) fn is_due(&self, now: Now) -> bool {
        self.due.is_some_and(|due| due <= now.millis())
    }

    /// Whether time and what comes back change nothing: no ticket waits, and no lease ends.
    pub(super) fn is_at_rest(&self) -> bool {
        self.due.is_none() && self.queue.is_empty()
    }

    /// A refusal that names the use of the whole pool.
    pub(super) fn full(&self, limit: Limit) -> Refusal {
        Refusal::new(limit, self.in_use, self.quota)
    }

    pub(super) fn has_room_for(&self, units: Units) -> bool {
        self.in_use + units.get() <= self.quota
    }

    /// Records a grant and counts its units.
    pub(super) fn grant(
        &mut self,
        now: Now,
        member: Member,
        units: Units,
        holder: String,
        execution: String,
    ) -> FencingNumber {
        let fencing_number = FencingNumber::new(self.issued);
        let (project, domain) = scope_of(&member);
        self.scopes.add(project, domain, units.get());
        self.issued += units.get();
        self.in_use += units.get();
        let since = now.seconds();
        self.grants.insert(member, Record { units, fencing_number, since, holder, execution });
        fencing_number
    }

    /// Counts out the units of a record that was removed.
    pub(super) fn uncount(&mut self, (project, domain): (&str, &str), units: Units) {
        self.in_use -= units.get();
        self.scopes.subtract(project, domain, units.get());
    }

    /// Gives back what a member holds, and lets those who waited for it be looked at.
    pub(super) fn free(&mut self, member: &Member) -> Option<Units> {
        let record = self.grants.remove(member)?;
        self.leases.remove(member);
        let (project, domain) = scope_of(member);
        self.uncount((project, domain), record.units);
        self.queue.open(project, domain);
        Some(record.units)
    }

    /// Withdraws a ticket: it will not run.
    pub(super) fn withdraw(&mut self, member: &Member) -> Option<Filed> {
        let filed = self.queue.withdraw(member)?;
        self.leases.remove(member);
        Some(filed)
    }

    /// Sets when what a member has ends by itself.
    pub(super) fn lasts(&mut self, member: &Member, ends: u64) {
        self.leases.set(member.clone(), ends);
        self.due = Some(self.due.map_or(ends, |due| due.min(ends)));
    }

    /// Does what is due, and hands units on. Needed while tickets wait, too: what they wait for may be there.
    pub(super) fn settle_if_needed(&mut self, now: Now) {
        if !self.queue.is_empty() || self.is_due(now) {
            self.settle(now);
        }
    }

    /// Ends the leases that are over, oldest first, hands units on, and notes when something is due next if what was noted
    /// has come.
    pub(super) fn settle(&mut self, now: Now) {
        let has_come = self.due.is_none_or(|due| due <= now.millis());
        let over = self.leases.up_to(now.millis(), ENDED);
        for member in &over {
            if self.free(member).is_none() {
                self.withdraw(member);
            }
        }
        let done = self.hand_on(now) && over.len() < ENDED;
        if !done {
            self.due = Some(0);
        } else if has_come {
            self.due = self.leases.first().map(|(_, ends)| ends);
        }
    }

    /// Hands free units on to the tickets whose turn it is; answers whether that is all.
    ///
    /// What a cap of its own scope stops loses its turn until the scope's units come back; what the quota stops keeps its
    /// turn, and all others wait behind it.
    pub(super) fn hand_on(&mut self, now: Now) -> bool {
        for _ in 0..HANDED {
            let Some((member, filed)) = self.next_ticket() else { return true };
            let verdict = self.verdict(now, member, filed);
            let member = member.clone();
            let (project, domain) = scope_of(&member);
            match verdict {
                Verdict::Grant => {
                    self.hand_over(now, &member);
                    if self.in_use >= self.quota {
                        return true;
                    }
                }
                Verdict::ProjectAtCap => self.queue.close_project(project),
                Verdict::DomainAtCap => self.queue.close_domain(project, domain),
                Verdict::Over => drop(self.withdraw(&member)),
                Verdict::TooLarge => self.drop_for_good(&member),
                Verdict::WaitsForUnits => return true,
            }
        }
        false
    }

    fn next_ticket(&self) -> Option<(&Member, &Filed)> {
        let member = self.queue.next()?;
        Some((member, self.queue.get(member)?))
    }

    fn verdict(&self, now: Now, member: &Member, filed: &Filed) -> Verdict {
        let Waiting { units, caps, .. } = &filed.waiting;
        let (project, domain) = scope_of(member);
        let exceeds =
            |cap: Option<u64>, in_use: u64| cap.is_some_and(|cap| in_use + units.get() > cap);
        let project_cap = caps.project_scope_resource_constraint.map(|cap| cap.value());
        let domain_cap = caps.namespace_scope_resource_constraint.map(|cap| cap.value());
        if exceeds(project_cap, self.scopes.project(project)) {
            Verdict::ProjectAtCap
        } else if exceeds(domain_cap, self.scopes.domain(project, domain)) {
            Verdict::DomainAtCap
        } else if self.leases.score(member).unwrap_or_default() <= now.millis() {
            Verdict::Over
        } else if units.get() > self.quota {
            Verdict::TooLarge
        } else if !self.has_room_for(*units) {
            Verdict::WaitsForUnits
        } else {
            Verdict::Grant
        }
    }

    /// Grants to the ticket whose turn it is. The grant lasts as long as the ticket would have, unless it is taken over.
    fn hand_over(&mut self, now: Now, member: &Member) {
        let Some(Filed { waiting, .. }) = self.queue.serve(member) else { return };
        let Waiting { units, holder, execution, .. } = waiting;
        let fencing_number = self.grant(now, member.clone(), units, holder, execution);
        let (pool, member) = (self.name.clone(), member.clone());
        let notice = Notice::Granted { pool, member, fencing_number };
        self.tell(waiting.channel, notice);
    }

    /// Withdraws a ticket that is larger than the quota.
    fn drop_for_good(&mut self, member: &Member) {
        let Some(Filed { waiting, .. }) = self.withdraw(member) else { return };
        let notice = Notice::Gone { pool: self.name.clone(), member: member.clone() };
        self.tell(waiting.channel, notice);
    }

    fn tell(&mut self, channel: Option<Channel>, notice: Notice) {
        if let Some(channel) = channel {
            self.told.push((channel, notice));
        }
    }
}

/// The same for the same state, in whatever order the maps keep it. Leaves out what decides nothing: name and journal.
#[cfg(test)]
impl std::hash::Hash for Pool {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        let Self {
            name: _,
            quota,
            registered,
            pinned,
            issued,
            made: _,
            in_use,
            scopes,
            grants,
            leases,
            due,
            queue,
            journal: _,
            told: _,
        } = self;
        let grants: std::collections::BTreeMap<_, _> = grants.iter().collect();
        (quota, registered, pinned, issued, in_use, scopes.counters()).hash(state);
        (grants, leases, due, queue).hash(state);
    }
}
