//! What a process has renewed, and when.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::Held;
use crate::claim::Lease;
use crate::error::Result;
use crate::name::{Member, PoolName};
use crate::ticket::Renewed;

/// Entries that are due within this part of their interval are renewed along with the first one.
const TOGETHER: u32 = 4;
/// But no sooner than this before they are.
const SOONEST: Duration = Duration::from_secs(10);

/// Names an entry.
pub(super) type Id = u64;

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
    /// When the renewal was sent that succeeded last: the lease cannot end before its length after this.
    renewed: Instant,
    /// When it is looked at next: to be renewed or, while a renewal is under way, because its time is over.
    due: Instant,
    under_way: bool,
    concerns: Concerns,
}

/// Whom it concerns what becomes of an entry.
#[derive(Debug)]
enum Concerns {
    /// A waiting claim, which asks again when it is notified.
    Ticket(Arc<Notify>),
    /// A holder, who learns of a lost lease.
    Grant(watch::Sender<bool>),
}

impl Entry {
    /// A grant's lease, renewed at a third of its length.
    pub(super) fn grant(
        held: Held,
        lease: Lease,
        renewed: Instant,
        lost: watch::Sender<bool>,
    ) -> Self {
        let interval = lease.length() / 3;
        Self::new(held, lease, interval, renewed, Concerns::Grant(lost))
    }

    /// A ticket, renewed after this interval.
    pub(super) fn ticket(
        held: Held,
        lease: Lease,
        interval: Duration,
        renewed: Instant,
        notify: Arc<Notify>,
    ) -> Self {
        Self::new(held, lease, interval, renewed, Concerns::Ticket(notify))
    }

    fn new(
        held: Held,
        lease: Lease,
        interval: Duration,
        renewed: Instant,
        concerns: Concerns,
    ) -> Self {
        let due = renewed + interval;
        Self { held, lease, interval, renewed, due, under_way: false, concerns }
    }

    fn is_grant(&self) -> bool {
        matches!(self.concerns, Concerns::Grant(_))
    }

    /// When the lease may be over.
    fn end(&self) -> Instant {
        self.renewed + self.lease.length()
    }
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
        self.due.insert((entry.due, id));
        self.entries.insert(id, entry);
        id
    }

    pub(super) fn remove(&mut self, id: Id) -> Option<Entry> {
        let entry = self.entries.remove(&id)?;
        self.due.remove(&(entry.due, id));
        let key = entry.held.key();
        if let Some(ids) = self.by_member.get_mut(&key) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_member.remove(&key);
            }
        }
        Some(entry)
    }

    /// Removes the grants of a token.
    pub(super) fn remove_grants(&mut self, held: &Held) {
        for id in self.grants(held) {
            self.remove(id);
        }
    }

    /// Keeps a grant that nobody has a guard of. One that is kept already was renewed just now.
    pub(super) fn keep(&mut self, held: Held, lease: Lease) {
        let now = Instant::now();
        let known = self.grants(&held);
        for id in &known {
            if let Some(entry) = self.entries.get_mut(id) {
                (entry.lease, entry.interval) = (lease, lease.length() / 3);
            }
            self.renewed(*id, now, lease.length() / 3);
        }
        if known.is_empty() {
            self.insert(Entry::grant(held, lease, now, watch::Sender::new(false)));
        }
    }

    /// Notes that an entry was renewed by a call sent at `sent`, and is to be looked at again after `interval`.
    ///
    /// Answers whether there is such an entry.
    pub(super) fn renewed(&mut self, id: Id, sent: Instant, interval: Duration) -> bool {
        let Some(entry) = self.entries.get_mut(&id) else { return false };
        entry.renewed = sent;
        if !entry.under_way {
            self.reschedule(id, sent + interval);
        }
        true
    }

    pub(super) fn contains(&self, id: Id) -> bool {
        self.entries.contains_key(&id)
    }

    /// What is to be renewed for this entry.
    pub(super) fn get(&self, id: Id) -> Option<(&Held, Lease)> {
        self.entries.get(&id).map(|entry| (&entry.held, entry.lease))
    }

    /// Has the waiting claims of a token ask again.
    pub(super) fn notify(&self, pool: PoolName, member: Member) {
        for id in self.by_member.get(&(pool, member)).into_iter().flatten() {
            if let Some(Entry { concerns: Concerns::Ticket(notify), .. }) = self.entries.get(id) {
                notify.notify_one();
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

    /// Takes what is to be renewed now, by pool. What a renewal is under way for in vain is lost.
    pub(super) fn take_due(&mut self) -> HashMap<PoolName, Vec<Id>> {
        let now = Instant::now();
        let mut batches: HashMap<PoolName, Vec<Id>> = HashMap::new();
        let soon = self.due.iter().take_while(|(due, _)| *due <= now + SOONEST);
        for (due, id) in soon.copied().collect::<Vec<_>>() {
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            if entry.under_way {
                if due <= now {
                    self.lose(id);
                }
            } else if due <= now + entry.interval / TOGETHER {
                entry.under_way = true;
                let end = entry.end().max(now);
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
        match (answer, &entry.concerns) {
            (Ok(Renewed::Held(_)), Concerns::Grant(_))
            | (Ok(Renewed::Waiting), Concerns::Ticket(_)) => {}
            // Its turn came, and the notice was lost; or it is gone, and is asked for again.
            (_, Concerns::Ticket(notify)) => notify.notify_one(),
            (_, Concerns::Grant(_)) => return self.lose(id),
        }
        self.renewed(id, sent, interval);
    }

    /// Plans another attempt at a renewal that failed, unless its time is over.
    pub(super) fn try_again(&mut self, id: Id) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.under_way = false;
        let (now, end) = (Instant::now(), entry.end());
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
            Concerns::Ticket(notify) => notify.notify_one(),
            Concerns::Grant(lost) => {
                let Held { pool, token, .. } = &entry.held;
                tracing::warn!(%pool, %token, "the lease is lost");
                lost.send_replace(true);
            }
        }
    }

    fn grants(&self, held: &Held) -> Vec<Id> {
        let ids = self.by_member.get(&held.key()).into_iter().flatten().copied();
        ids.filter(|id| self.entries.get(id).is_some_and(Entry::is_grant)).collect()
    }

    fn reschedule(&mut self, id: Id, due: Instant) {
        if let Some(entry) = self.entries.get_mut(&id) {
            self.due.remove(&(entry.due, id));
            entry.due = due;
            self.due.insert((due, id));
        }
    }
}
