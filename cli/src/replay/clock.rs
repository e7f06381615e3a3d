//! The log's clock, by which tickets age.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokenpool::{Lease, ManualClock};

/// How long a ticket lasts by a server's clock: it is renewed many times a second.
const TICKET: Duration = Duration::from_secs(60);

/// By which clock tickets age and end.
#[derive(Clone, Debug)]
pub(super) enum LogClock {
    /// The log's own, in memory.
    OfLog { clock: Arc<ManualClock>, start: SystemTime },
    /// The server's, which knows nothing of the log's time.
    OfServer,
}

impl LogClock {
    /// A clock for the memory backend, and what moves it.
    pub(super) fn of_log() -> (Arc<ManualClock>, Self) {
        let start = SystemTime::now();
        let clock = Arc::new(ManualClock::new(start));
        (Arc::clone(&clock), Self::OfLog { clock, start })
    }

    /// It is this second of the log now.
    pub(super) fn set(&self, second: u64) {
        if let Self::OfLog { clock, start } = self
            && let Some(now) = start.checked_add(Duration::from_secs(second))
        {
            clock.set(now);
        }
    }

    /// How long a ticket lasts unless it is renewed.
    pub(super) fn ticket(&self) -> tokenpool::Result<Lease> {
        match self {
            Self::OfLog { .. } => Ok(Lease::MAX),
            Self::OfServer => Lease::new(TICKET),
        }
    }
}
