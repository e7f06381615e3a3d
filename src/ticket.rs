//! Waiting: what is asked for and what is answered, and how a ticket learns that its turn came.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;

use crate::amount::{Lease, Units};
use crate::error::{Error, Result};
use crate::execution::ExecutionId;
use crate::name::{AllocationToken, Member, PoolName, check_part};
use crate::outcome::{FencingNumber, Grant, Refusal};
use crate::pool::Cursor;

/// How urgent a waiting claim is in a pool whose order is [`Order::Priority`]: 0 to 9, the most urgent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(u8);

impl Priority {
    /// What one level is worth: a ticket passes those of the level above that came so much later, so that nothing starves.
    pub const LEVEL: Duration = Duration::from_secs(30);

    /// A priority.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] unless it is between 0 and 9.
    pub fn new(priority: i64) -> Result<Self> {
        u8::try_from(priority)
            .ok()
            .filter(|priority| *priority <= 9)
            .map(Self)
            .ok_or_else(|| Error::invalid("priority", priority, "must be between 0 and 9"))
    }

    /// The number.
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// In which order the tickets of a pool get their turn.
///
/// In every order the tickets of one domain of a project keep their own order, and what stands at the cap of its project or
/// domain lets the others pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Order {
    /// As they came.
    #[default]
    Fifo,
    /// The more urgent first; waiting for [`Priority::LEVEL`] counts as much as one level.
    Priority,
    /// In turn by project, in proportion to the projects' weights: start-time fair queueing.
    Fair,
}

impl Order {
    const ALL: [Self; 3] = [Self::Fifo, Self::Priority, Self::Fair];

    /// The order's name: `fifo`, `priority` or `fair`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fifo => "fifo",
            Self::Priority => "priority",
            Self::Fair => "fair",
        }
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Order {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|order| order.as_str() == name)
            .ok_or_else(|| Error::invalid("order", name, "must be fifo, priority or fair"))
    }
}

/// A project's share in a pool whose order is [`Order::Fair`], in proportion to the others': 1 unless set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Weight(NonZeroU32);

impl Weight {
    /// What a project has unless another weight is set.
    pub const ONE: Self = Self(NonZeroU32::MIN);
    const MAX: u32 = 1_000_000;

    /// A weight.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] unless it is between 1 and 1 000 000.
    pub fn new(weight: i64) -> Result<Self> {
        u32::try_from(weight)
            .ok()
            .filter(|&weight| weight <= Self::MAX)
            .and_then(NonZeroU32::new)
            .map(Self)
            .ok_or_else(|| {
                let rule = format!("must be between 1 and {}", Self::MAX);
                Error::invalid("weight", weight, rule)
            })
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0.get() as u64
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A change to a pool's queue. Tickets that wait already keep the rank that they were given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueChange {
    /// The order from now on; none leaves it.
    pub order: Option<Order>,
    /// Weights of projects; those not named keep theirs.
    pub weights: BTreeMap<String, Weight>,
}

impl QueueChange {
    /// No change.
    pub fn new() -> Self {
        Self::default()
    }

    /// Also sets the order.
    #[must_use]
    pub fn order(self, order: Order) -> Self {
        Self { order: Some(order), ..self }
    }

    /// Also sets the weight of a project.
    #[must_use]
    pub fn weight(mut self, project: &str, weight: Weight) -> Self {
        self.weights.insert(project.to_owned(), weight);
        self
    }

    /// Refuses names that no project can have.
    pub(crate) fn check(&self) -> Result<()> {
        self.weights.keys().try_for_each(|project| check_part("project", project))
    }
}

/// How a claim waits.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TicketRequest {
    /// How long the ticket lasts unless it is renewed or asked for again.
    pub time_to_live: Lease,
    /// Its urgency.
    pub priority: Priority,
    /// Where to tell that its turn came; without one the claim is to be repeated to learn it.
    pub channel: Option<Channel>,
}

impl TicketRequest {
    /// A ticket of no particular urgency.
    pub fn new(time_to_live: Lease) -> Self {
        Self { time_to_live, priority: Priority::default(), channel: None }
    }

    /// The same with a priority.
    #[must_use]
    pub fn with_priority(self, priority: Priority) -> Self {
        Self { priority, ..self }
    }

    /// The same, told through an inbox.
    #[must_use]
    pub fn with_channel(self, channel: Channel) -> Self {
        Self { channel: Some(channel), ..self }
    }
}

/// The answer to a claim that waits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "a claim is admitted or it waits")]
#[must_use = "a claim that was not granted must not go ahead"]
pub enum Turn {
    /// The token is held.
    Granted(Grant),
    /// The token waits.
    Waiting(Ticket),
}

impl Turn {
    /// The grant, if the claim was admitted.
    pub fn granted(&self) -> Option<&Grant> {
        match self {
            Self::Granted(grant) => Some(grant),
            Self::Waiting(_) => None,
        }
    }
}

/// Where a waiting claim stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Ticket {
    /// Its place among all tickets of the pool by rank; 1 is the first. Tickets that stand at a cap are counted, and in the
    /// order [`Order::Fair`] the projects' shares decide between the first tickets of each.
    pub position: u64,
    /// What stops it.
    pub blocked_by: Refusal,
    /// Its grant will have this number or a larger one.
    pub next_fencing_number: FencingNumber,
    /// When something in the pool ends by itself: asking again earlier tells nothing new unless somebody releases. None if no
    /// such moment is known.
    pub retry_after: Option<Duration>,
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "position {} ({})", self.position, self.blocked_by)
    }
}

/// One lease or ticket to be renewed.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_structs, reason = "made by the caller")]
pub struct Renewal<'a> {
    /// The execution that the token belongs to.
    pub execution: &'a ExecutionId,
    /// The token.
    pub token: &'a AllocationToken,
    /// How long it lasts from now on.
    pub lease: Lease,
}

/// What became of a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "a token is held, waits, or neither")]
pub enum Renewed {
    /// The token is held. One without a lease got none.
    Held(Option<FencingNumber>),
    /// The token waits.
    Waiting,
    /// The token is neither held nor does it wait: its lease was over, or somebody released it.
    Lost,
}

/// What is kept of a ticket.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TicketRecord {
    /// The token that waits.
    pub member: Member,
    /// Units it is to get.
    pub units: Units,
    /// Since when, by the backend's clock, in whole seconds.
    pub since: SystemTime,
    /// How long the ticket lasts unless it is renewed.
    pub time_left: Duration,
    /// The cap of its project, in units.
    pub project_cap: Option<u64>,
    /// The cap of its domain, in units.
    pub domain_cap: Option<u64>,
    /// The process that waits.
    pub holder: String,
    /// The execution's name.
    pub execution: String,
}

/// Part of a listing of tickets, in the order of their ranks.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TicketsPage {
    /// The tickets.
    pub tickets: Vec<TicketRecord>,
    /// Where the next page begins; none on the last.
    pub next: Option<Cursor>,
}

/// Where a process is told that the turn of its tickets came: printable, no white space.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Channel(String);

impl Channel {
    pub(crate) fn new(name: String) -> Self {
        Self(name)
    }

    /// The channel's name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a process is told through its channel. A message may be lost: renewing the ticket tells, too.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// Units were handed to this ticket, for as long as it lasts. Claiming again takes them over; what has a lease may be
    /// renewed instead.
    Granted {
        /// The pool.
        pool: PoolName,
        /// The token.
        member: Member,
        /// The grant's number.
        fencing_number: FencingNumber,
    },
    /// The ticket can never run and is gone: the quota is smaller than its units now.
    Gone {
        /// The pool.
        pool: PoolName,
        /// The token.
        member: Member,
    },
    /// Messages may have been lost.
    Interrupted,
}

/// The receiving end of a channel, which is open as long as this exists.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "made by backends")]
pub struct Inbox {
    /// What tickets are to be given.
    pub channel: Channel,
    /// What is told.
    pub notices: mpsc::UnboundedReceiver<Notice>,
}
