//! What time it is, so that tests can decide it.

use std::fmt::Debug;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// Tells the time by which leases and tickets end.
pub trait Clock: Debug + Send + Sync + 'static {
    /// The time now. It may stand still; if it runs backwards, what ends by it ends later.
    fn now(&self) -> SystemTime;
}

/// The clock of this machine.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "nothing to keep")]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}

/// A clock that stands still until it is moved: for tests.
///
/// # Example
///
/// ```
/// use std::sync::Arc;
/// use std::time::{Duration, SystemTime};
/// use tokenpool::{Clock as _, ManualClock, MemoryBackend};
///
/// let start = SystemTime::now();
/// let clock = Arc::new(ManualClock::new(start));
/// let backend = MemoryBackend::with_clock(clock.clone());
/// clock.advance(Duration::from_secs(30));
/// assert_eq!(clock.now(), start + Duration::from_secs(30));
/// # drop(backend);
/// ```
#[derive(Debug)]
pub struct ManualClock {
    now: Mutex<SystemTime>,
}

impl ManualClock {
    /// A clock that shows `start`.
    pub const fn new(start: SystemTime) -> Self {
        Self { now: Mutex::new(start) }
    }

    /// Moves the clock forwards.
    ///
    /// # Panics
    ///
    /// If the operating system cannot represent the time.
    pub fn advance(&self, by: Duration) {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) += by;
    }

    /// Makes the clock show `now`, which may be earlier than what it shows.
    pub fn set(&self, now: SystemTime) {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> SystemTime {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
