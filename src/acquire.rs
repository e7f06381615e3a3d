//! How long a claim waits, and what comes of it.

use std::time::{Duration, Instant};

use crate::allocation::Allocation;
use crate::error::{Error, Result};
use crate::name::PoolName;
use crate::outcome::Refusal;
use crate::ticket::{Priority, Ticket};

/// How long a claim waits for its turn, and how urgent it is. Without a deadline by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wait {
    deadline: Option<Instant>,
    priority: Priority,
}

impl Wait {
    /// Waits as long as it takes.
    pub fn forever() -> Self {
        Self::default()
    }

    /// Waits at most this long from now on. After that only an answer is waited for that is outstanding, and the ticket
    /// withdrawn.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] if it is zero: what shall not wait is to be allocated, not acquired.
    pub fn within(limit: Duration) -> Result<Self> {
        if limit.is_zero() {
            let rule = "must be longer than 0; allocate does not wait at all";
            return Err(Error::invalid("time limit", "0s", rule));
        }
        // A limit beyond what the clock can tell is none.
        Ok(Self { deadline: Instant::now().checked_add(limit), ..Self::default() })
    }

    /// Waits until this moment.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] if it has passed.
    pub fn until(deadline: Instant) -> Result<Self> {
        let late = Instant::now().saturating_duration_since(deadline);
        if !late.is_zero() {
            let value = format!("{} ago", humantime::format_duration(late));
            return Err(Error::invalid("deadline", value, "must not have passed"));
        }
        Ok(Self { deadline: Some(deadline), ..Self::default() })
    }

    /// The same with a priority, which counts in pools of that order.
    #[must_use]
    pub fn with_priority(self, priority: Priority) -> Self {
        Self { priority, ..self }
    }

    /// When waiting ends in vain; none if it does not.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// How urgent it is.
    pub fn priority(&self) -> Priority {
        self.priority
    }
}

/// What came of waiting.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "a claim is granted or it is not")]
#[must_use = "units are released when the guard is dropped"]
pub enum Acquired {
    /// The units are held as long as the guard is.
    Granted(Allocation),
    /// They are not free, and the claim was not to wait.
    Refused(Refusal),
    /// Time was up, and the ticket is withdrawn. It stood here at last.
    TimedOut(Ticket),
}

impl Acquired {
    /// The guard, if the claim was granted.
    pub fn granted(self) -> Option<Allocation> {
        match self {
            Self::Granted(allocation) => Some(allocation),
            Self::Refused(_) | Self::TimedOut(_) => None,
        }
    }
}

/// What came of waiting for several pools.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "all are granted or none")]
#[must_use = "units are released when the guards are dropped"]
pub enum AcquiredAll {
    /// The units are held as long as the guards are, which stand in the order of the claims.
    Granted(Vec<Allocation>),
    /// Time was up, and nothing is held.
    TimedOut {
        /// The pool that was waited for at last.
        pool: PoolName,
        /// Where its ticket stood.
        ticket: Ticket,
    },
}
