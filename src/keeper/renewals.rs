//! What a process has renewed, and when.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::Held;
use crate::amount::{Lease, ResourceConstraintsSpec, Units};
use crate::claim::Claim;
use crate::error::{Error, Result};
use crate::name::{Member, PoolName};
use crate::outcome::FencingNumber;
use crate::ticket::Renewed;

/// Entries that are due within this part of their interval are renewed along with the first one.
const TOGETHER: u32 = 4;
/// But no sooner than this before they are.
const SOONEST: Duration = Duration::from_secs(10);

/// Most entries that are taken at once, so that nobody waits long for the others.
const AT_ONCE: usize = 500;

/// Names an entry.
pub(crate) type Id = u64;

/// The renewals of a process: who holds changes them, and the keeper carries them out.
#[derive(Clone, Debug, Default)]
pub(super) struct SharedRenewals(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    renewals: Mutex<Renewals>,
    /// Something may be due before what was next.
    earlier: Notify,
}

impl SharedRenewals {
    pub(super) fn lock(&self) -> MutexGuard<'_, Renewals> {
        self.0.renewals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the keeper look again at what is due next.
    pub(super) fn reschedule(&self) {
        self.0.earlier.notify_one();
    }

    /// Ends when it has to look.
    pub(super) async fn rescheduled(&self) {
        self.0.earlier.notified().await;
    }
}

/// The entries, by whom they belong to and by when they are due.
#[derive(Debug, Default)]
pub(super) struct Renewals {
    entries: HashMap<Id, Entry>,
    by_member: HashMap<(PoolName, Member), BTreeSet<Id>>,
    due: BTreeSet<(Instant, Id)>,
    next: Id,
}

/// One lease or ticket that is renewed.
#[derive(Debug)]
pub(super) struct Entry {
    held: Held,
    lease: Lease,
    interval: Duration,
    term: Term,
    under_way: bool,
    concerns: Concerns,
}

/// The time that something has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Term {
    /// It cannot end before: its length after the renewal was sent that succeeded last.
    pub(super) ends: Instant,
    /// When it is looked at next: to be renewed or, while a renewal is under way, because its time is over.
    pub(super) due: Instant,
}

impl Term {
    /// What was granted this lease by a call sent at `sent`, and is renewed after `interval`.
    pub(super) fn new(sent: Instant, lease: Lease, interval: Duration) -> Self {
        Self { ends: sent + lease.length(), due: sent + interval }
    }
}

/// What calls a waiting claim.
#[derive(Debug, Default)]
pub(super) struct Call {
    rung: Notify,
    granted: Mutex<Option<FencingNumber>>,
}

impl Call {
    /// Has the claim ask again.
    fn ring(&self) {
        self.rung.notify_one();
    }

    /// Tells of a grant with this number.
    fn tell(&self, number: FencingNumber) {
        *self.granted.lock().unwrap_or_else(PoisonError::into_inner) = Some(number);
        self.ring();
    }

    /// Waits for the next call, which may tell the number of a grant.
    pub(super) async fn next(&self) -> Option<FencingNumber> {
        self.rung.notified().await;
        self.granted.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Whom it concerns what becomes of an entry.
#[derive(Debug)]
enum Concerns {
    /// A waiting claim.
    Ticket(Arc<Call>),
    /// A holder, who learns what becomes of the grant.
    Grant(Grip),
}

/// What it takes to hold on to a grant.
#[derive(Debug)]
pub(super) struct Grip {
    pub(super) units: Units,
    pub(super) constraints: ResourceConstraintsSpec,
    pub(super) fate: watch::Sender<Fate>,
}

/// What became of a grant that is renewed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fate {
    pub(crate) lost: bool,
    /// Its number; another when it was claimed again because the server had lost it.
    pub(crate) number: Option<FencingNumber>,
}

impl Grip {
    fn lost(&self) {
        self.fate.send_modify(|fate| fate.lost = true);
    }
}

impl Entry {
    /// A grant's lease, renewed at a third of its length.
    pub(super) fn grant(held: Held, lease: Lease, term: Term, grip: Grip) -> Self {
        let (interval, concerns) = (third(lease), Concerns::Grant(grip));
        Self { held, lease, interval, term, under_way: false, concerns }
    }

    /// A ticket, renewed after this interval.
    pub(super) fn ticket(
        held: Held,
        lease: Lease,
        interval: Duration,
        term: Term,
        call: Arc<Call>,
    ) -> Self {
        Self { held, lease, interval, term, under_way: false, concerns: Concerns::Ticket(call) }
    }

    fn is_grant(&self) -> bool {
        matches!(self.concerns, Concerns::Grant(_))
    }

    /// Whether a number is of another grant of the token.
    fn is_not(&self, number: Option<FencingNumber>) -> bool {
        self.held.number.is_some_and(|own| number != Some(own))
    }
}

/// When a lease is renewed.
pub(super) fn third(lease: Lease) -> Duration {
    lease.length() / 3
}

impl Renewals {
    /// When something is due next.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    pub(super) fn insert(&mut self, entry: Entry) -> Id {
        let id = self.next;
        self.next += 1;
        self.by_member.entry(entry.held.key()).or_default().insert(id);
        self.due.insert((entry.term.due, id));
        self.entries.insert(id, entry);
        id
    }

    pub(super) fn remove(&mut self, id: Id) -> Option<Entry> {
        let entry = self.entries.remove(&id)?;
        self.due.remove(&(entry.term.due, id));
        let key = entry.held.key();
        if let Some(ids) = self.by_member.get_mut(&key) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_member.remove(&key);
            }
        }
        Some(entry)
    }

    /// Removes the grants of a token, or the one that is meant. Guards but the one of the entry `own` learn that it is lost.
    /// Answers what that guard does not know it holds: another grant, which was claimed while it was let go.
    #[must_use]
    pub(super) fn remove_grants(&mut self, held: &Held, own: Option<Id>) -> Option<Held> {
        let of_own = own.and_then(|own| self.remove(own)).map(|entry| entry.held);
        for id in self.grants(held) {
            if let Some(Entry { concerns: Concerns::Grant(grip), .. }) = self.remove(id) {
                grip.lost();
            }
        }
        of_own.filter(|own| !own.is_meant_by(held))
    }

    /// Keeps a grant that nobody has a guard of. One that is kept already was renewed by the same call, sent at `asked`.
    pub(super) fn keep(&mut self, held: Held, lease: Lease, asked: Instant, grip: Grip) {
        let known = self.grants(&held);
        for id in &known {
            if let Some(entry) = self.entries.get_mut(id) {
                (entry.lease, entry.interval) = (lease, third(lease));
            }
            self.renewed(*id, asked, third(lease));
        }
        if known.is_empty() {
            let term = Term::new(asked, lease, third(lease));
            self.insert(Entry::grant(held, lease, term, grip));
        }
    }

    /// Notes that an entry was renewed by a call sent at `sent`, and is to be looked at again after `interval`.
    ///
    /// Answers whether there is such an entry.
    pub(super) fn renewed(&mut self, id: Id, sent: Instant, interval: Duration) -> bool {
        let Some(entry) = self.entries.get_mut(&id) else { return false };
        entry.term.ends = sent + entry.lease.length();
        if !entry.under_way {
            self.reschedule(id, sent + interval);
        }
        true
    }

    pub(super) fn contains(&self, id: Id) -> bool {
        self.entries.contains_key(&id)
    }

    pub(super) fn is_grant(&self, id: Id) -> bool {
        self.entries.get(&id).is_some_and(Entry::is_grant)
    }

    /// Whether an answer means that the grant of an entry is not there: its token holds nothing, or waits, or holds another, or
    /// only its record is gone.
    pub(super) fn is_gone(&self, id: Id, answer: &Result<Renewed>) -> bool {
        let Some(entry) = self.entries.get(&id).filter(|entry| entry.is_grant()) else {
            return false;
        };
        match answer {
            Ok(Renewed::Lost | Renewed::Waiting) => true,
            Ok(Renewed::Held(number)) => number.is_some() && entry.is_not(*number),
            Err(error) => matches!(error, Error::Foreign { .. }),
        }
    }

    /// What is to be renewed for this entry.
    pub(super) fn get(&self, id: Id) -> Option<(&Held, Lease)> {
        self.entries.get(&id).map(|entry| (&entry.held, entry.lease))
    }

    /// When an entry may be over.
    pub(super) fn ends(&self, id: Id) -> Option<Instant> {
        self.entries.get(&id).map(|entry| entry.term.ends)
    }

    /// Calls the waiting claims of a token, which was granted with this number or is to be asked for again.
    pub(super) fn call(&self, pool: PoolName, member: Member, granted: Option<FencingNumber>) {
        for id in self.by_member.get(&(pool, member)).into_iter().flatten() {
            if let Some(Entry { concerns: Concerns::Ticket(call), .. }) = self.entries.get(id) {
                match granted {
                    Some(number) => call.tell(number),
                    None => call.ring(),
                }
            }
        }
    }

    /// Makes all tickets due.
    pub(super) fn look_after_tickets(&mut self) {
        let now = Instant::now();
        let waiting = |entry: &Entry| !entry.is_grant() && !entry.under_way;
        let entries = self.entries.iter().filter(|(_, entry)| waiting(entry));
        for id in entries.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.reschedule(id, now);
        }
    }

    /// Takes what is to be renewed now, or the first of it, by pool. What a renewal is under way for in vain is lost.
    pub(super) fn take_due(&mut self) -> HashMap<PoolName, Vec<Id>> {
        let now = Instant::now();
        let mut batches: HashMap<PoolName, Vec<Id>> = HashMap::new();
        let soon = self.due.iter().take_while(|(due, _)| *due <= now + SOONEST);
        for (due, id) in soon.take(AT_ONCE).copied().collect::<Vec<_>>() {
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            if entry.under_way {
                if due <= now {
                    self.lose(id);
                }
            } else if due <= now + entry.interval / TOGETHER {
                entry.under_way = true;
                let end = entry.term.ends.max(now);
                batches.entry(entry.held.pool.clone()).or_default().push(id);
                self.reschedule(id, end);
            }
        }
        batches
    }

    /// Notes what became of a renewal that was sent at `sent`.
    pub(super) fn settle(&mut self, id: Id, sent: Instant, answer: Result<Renewed>) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.under_way = false;
        let interval = entry.interval;
        if let (Ok(Renewed::Held(number @ Some(_))), Concerns::Grant(grip), None) =
            (&answer, &entry.concerns, entry.held.number)
        {
            // Granted without the server, which has granted it since.
            entry.held.number = *number;
            grip.fate.send_modify(|fate| fate.number = *number);
        }
        match (answer, &entry.concerns) {
            (Ok(Renewed::Held(_)), Concerns::Grant(_))
            | (Ok(Renewed::Waiting), Concerns::Ticket(_)) => {}
            // Its turn came, and the notice was lost.
            (Ok(Renewed::Held(_)), Concerns::Ticket(call)) => call.ring(),
            // It is gone, and is asked for again.
            (_, Concerns::Ticket(call)) => {
                call.ring();
                return self.reschedule(id, sent + interval);
            }
            (_, Concerns::Grant(_)) => return self.lose(id),
        }
        self.renewed(id, sent, interval);
    }

    /// What was granted under an entry, to be claimed again.
    pub(super) fn granted(&self, id: Id) -> Option<(Held, Claim, ResourceConstraintsSpec)> {
        let Entry { held, lease, concerns: Concerns::Grant(grip), .. } = self.entries.get(&id)?
        else {
            return None;
        };
        let claim = Claim::new(held.token.clone(), grip.units).with_lease(*lease);
        let claim = Claim { returning: held.number, ..claim };
        Some((held.clone(), claim, grip.constraints))
    }

    /// Notes that an entry's token was granted anew by a call sent at `sent`. Answers whether there is such an entry.
    pub(super) fn granted_anew(
        &mut self,
        id: Id,
        sent: Instant,
        number: Option<FencingNumber>,
    ) -> bool {
        let Some(entry) = self.entries.get_mut(&id) else { return false };
        entry.under_way = false;
        entry.held.number = number;
        if let Concerns::Grant(grip) = &entry.concerns {
            grip.fate.send_modify(|fate| fate.number = number);
        }
        let interval = entry.interval;
        self.renewed(id, sent, interval)
    }

    /// Plans another attempt at a renewal that failed, unless its time is over.
    pub(super) fn try_again(&mut self, id: Id) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.under_way = false;
        let (now, end) = (Instant::now(), entry.term.ends);
        if now >= end {
            return self.lose(id);
        }
        let next = now + (entry.interval / 4).min(Duration::from_secs(1));
        self.reschedule(id, next.min(end));
    }

    /// Its time is over: a holder has lost it, a ticket is asked for again.
    pub(super) fn lose(&mut self, id: Id) {
        let Some(entry) = self.remove(id) else { return };
        match &entry.concerns {
            Concerns::Ticket(call) => call.ring(),
            Concerns::Grant(grip) => {
                let Held { pool, token, .. } = &entry.held;
                tracing::warn!(%pool, %token, "the lease is lost");
                grip.lost();
            }
        }
    }

    /// The entries of a token's grants, or of the one that is meant.
    fn grants(&self, held: &Held) -> Vec<Id> {
        let is_meant = |entry: &Entry| entry.is_grant() && entry.held.is_meant_by(held);
        let ids = self.by_member.get(&held.key()).into_iter().flatten().copied();
        ids.filter(|id| self.entries.get(id).is_some_and(is_meant)).collect()
    }

    fn reschedule(&mut self, id: Id, due: Instant) {
        if let Some(entry) = self.entries.get_mut(&id) {
            self.due.remove(&(entry.term.due, id));
            entry.term.due = due;
            self.due.insert((due, id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::execution::ExecutionId;
    use crate::name::AllocationToken;

    fn held(number: u64) -> Result<Held> {
        Ok(Held {
            pool: PoolName::new("hive:default")?,
            execution: ExecutionId::new("p", "d", "e")?,
            token: AllocationToken::new("t")?,
            number: Some(FencingNumber::new(number)),
        })
    }

    fn entry(held: Held) -> Result<Entry> {
        let lease = Lease::new(Duration::from_secs(30))?;
        let fate = watch::Sender::new(Fate { lost: false, number: held.number });
        let grip = Grip { units: Units::ONE, constraints: ResourceConstraintsSpec::NONE, fate };
        Ok(Entry::grant(held, lease, Term::new(Instant::now(), lease, third(lease)), grip))
    }

    /// Whoever lets something go meanwhile waits for a part of it only.
    #[test]
    fn much_that_is_due_is_taken_in_parts() -> Result<()> {
        let mut renewals = Renewals::default();
        for number in 0..=AT_ONCE {
            let mut entry = entry(held(number as u64)?)?;
            entry.term.due = Instant::now();
            renewals.insert(entry);
        }
        let mut take = || renewals.take_due().into_values().map(|ids| ids.len()).sum::<usize>();
        assert_eq!([take(), take(), take()], [AT_ONCE, 1, 0]);
        Ok(())
    }

    /// The guard is let go, and says which grant it knows of, just when the keeper has claimed the token again.
    #[test]
    fn a_grant_that_its_guard_does_not_know_is_not_renewed_for_ever() -> Result<()> {
        let mut renewals = Renewals::default();
        let own = renewals.insert(entry(held(1)?)?);
        let of_another_guard = renewals.insert(entry(held(1)?)?);
        assert!(renewals.granted_anew(own, Instant::now(), Some(FencingNumber::new(2))));
        let unknown = renewals.remove_grants(&held(1)?, Some(own));
        assert_eq!(unknown.and_then(|held| held.number), Some(FencingNumber::new(2)));
        assert!(!renewals.contains(own) && !renewals.contains(of_another_guard));

        let own = renewals.insert(entry(held(2)?)?);
        assert!(renewals.remove_grants(&held(2)?, Some(own)).is_none());
        assert!(!renewals.contains(own));
        Ok(())
    }
}
