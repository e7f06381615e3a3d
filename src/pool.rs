//! What an operator sees of a pool and does to it.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::time::{Duration, SystemTime};

use crate::amount::{Quota, Units};
use crate::error::Result;
use crate::execution::Scope;
use crate::name::{Member, check_printable};
use crate::outcome::FencingNumber;
use crate::ticket::{Order, Weight};

/// A change to a pool's quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum QuotaChange {
    /// What a manager wants: makes the pool if there is none. A pinned quota stays in force.
    Register(Quota),
    /// What a manager wants of a pool that it knew and that is gone: makes it again. The pool learns who holds its units before
    /// it admits anybody new, for the configured time; so it does if somebody else has made it meanwhile. A quota that is
    /// there stays.
    Restore(Quota),
    /// What an operator wants who expects that there is no such pool.
    Create(Quota),
    /// What an operator wants, whatever managers register, until unpinned.
    Pin(Quota),
    /// Back to what was registered last.
    Unpin,
}

/// The quota of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct PoolQuota {
    /// Units that may be granted, in force now.
    pub in_force: u64,
    /// What was registered last.
    pub registered: u64,
    /// What an operator pinned, if anything.
    pub pinned: Option<u64>,
    /// What was registered before the change that this answers; none for a new pool.
    pub registered_before: Option<u64>,
}

impl PoolQuota {
    pub(crate) fn new(
        in_force: u64,
        registered: u64,
        pinned: Option<u64>,
        registered_before: Option<u64>,
    ) -> Self {
        Self { in_force, registered, pinned, registered_before }
    }
}

/// Whether a pool may be deleted while units are in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "two answers to one question")]
pub enum Deletion {
    /// Refuse while the pool has holders.
    OnlyUnused,
    /// Delete in any case; every holder loses its units.
    EvenInUse,
}

/// What is in use of a pool, and by which scopes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolUsage {
    /// Units that may be granted.
    pub quota: u64,
    /// What was registered last.
    pub registered: u64,
    /// What an operator pinned, if anything.
    pub pinned: Option<u64>,
    /// Units in use. More than the quota if that was lowered meanwhile.
    pub in_use: u64,
    /// Number of tokens that hold them.
    pub holders: u64,
    /// The first grant's fencing number. One that is smaller is of a pool of this name that was deleted, or lost.
    pub first_fencing_number: FencingNumber,
    /// The least fencing number that the next grant can have.
    pub next_fencing_number: FencingNumber,
    /// Number of tickets that wait.
    pub tickets: u64,
    /// How long the pool still learns who holds its units and admits nobody new, because data were lost.
    pub learning: Option<Duration>,
    /// Fencing numbers that were never given here, but may have been by a server before this one.
    pub lost: Option<Range<FencingNumber>>,
    /// The order in which they get their turn.
    pub order: Order,
    /// Weights of projects in the order [`Order::Fair`], as far as they were set.
    pub weights: BTreeMap<String, Weight>,
    /// Units in use per scope. Read in pages, so under way it may differ from `in_use`.
    pub scopes: BTreeMap<Scope, u64>,
}

impl PoolUsage {
    /// Whether a grant of this number, if it is not recorded, was forgotten: it is of a pool or a server before this one. Else
    /// it was given back, taken away, or over.
    pub fn has_forgotten(&self, number: FencingNumber) -> bool {
        number < self.first_fencing_number
            || number >= self.next_fencing_number
            || self.lost.as_ref().is_some_and(|lost| lost.contains(&number))
    }
}

/// What is recorded of a grant.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GrantRecord {
    /// Units held.
    pub units: Units,
    /// The grant's number.
    pub fencing_number: FencingNumber,
    /// When it was granted, by the backend's clock, in whole seconds.
    pub since: SystemTime,
    /// The process that claimed it.
    pub holder: String,
    /// The execution's name; none if another writer put the member into the pool.
    pub execution: Option<String>,
}

/// One holder of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holding {
    /// The granted token.
    pub member: Member,
    /// Its record; none if another writer put the member into the pool and nobody repaired it yet.
    pub record: Option<GrantRecord>,
    /// What is left of its lease; none if it is held until released.
    pub lease_left: Option<Duration>,
}

/// Who takes units away, and why.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Revocation {
    operator: String,
    reason: String,
}

impl Revocation {
    /// A revocation by this operator for this reason.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](crate::Error::InvalidArgument) if one of them is empty, longer than 255 bytes or has control
    /// characters.
    pub fn new(operator: &str, reason: &str) -> Result<Self> {
        check_printable("operator", operator)?;
        check_printable("reason", reason)?;
        Ok(Self { operator: operator.to_owned(), reason: reason.to_owned() })
    }

    /// Who.
    pub fn operator(&self) -> &str {
        &self.operator
    }

    /// Why.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

/// What was written down of a revocation.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RevocationRecord {
    /// When, by the backend's clock, in whole milliseconds.
    pub at: SystemTime,
    /// The member that lost its units or its ticket.
    pub member: Member,
    /// Who took them.
    pub operator: String,
    /// Why.
    pub reason: String,
}

/// Where a listing goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Cursor(pub(crate) u64);

/// Part of a listing of holders.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HoldingsPage {
    /// The holders, in no particular order.
    pub holdings: Vec<Holding>,
    /// Where the next page begins; none on the last.
    pub next: Option<Cursor>,
}

/// A counter that differs from what the records add up to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Drift {
    /// The scope whose counter it is; none for the pool's own.
    pub scope: Option<Scope>,
    /// What the counter says, in units.
    pub counted: i64,
    /// What the records add up to, in units.
    pub recorded: i64,
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.scope {
            Some(scope) => write!(f, "{scope}")?,
            None => f.write_str("pool")?,
        }
        write!(f, ": counter says {}, records say {}", self.counted, self.recorded)
    }
}

/// What [`check`](crate::Backend::check) found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckReport {
    /// Number of members in the pool.
    pub members: u64,
    /// Number of records.
    pub records: u64,
    /// Counters that are wrong.
    pub drift: Vec<Drift>,
    /// Members without a usable record: another writer put them there, or the server lost their records.
    pub unrecorded: Vec<Member>,
    /// Members whose record is left while they are gone: another writer removed them, or the server lost them.
    pub removed: Vec<Member>,
    /// Number of tickets.
    pub tickets: u64,
    /// Whether the queue has lost some of them, or has some that no longer exist.
    pub queue_is_broken: bool,
}

impl CheckReport {
    /// Whether counters, records and members agree.
    pub fn is_clean(&self) -> bool {
        self.drift.is_empty()
            && self.unrecorded.is_empty()
            && self.removed.is_empty()
            && !self.queue_is_broken
    }
}

/// What [`repair`](crate::Backend::repair) changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RepairReport {
    /// Members of another writer that have a record now, of one unit each.
    pub adopted: u64,
    /// Records dropped, their units returned, because another writer had removed their members.
    pub dropped: u64,
    /// Members put back, because their grants have leases, or because all members were lost.
    pub restored: u64,
    /// Counters that were wrong and are right now.
    pub corrected: Vec<Drift>,
    /// Tickets whose queue was broken and is built anew.
    pub requeued: u64,
}
