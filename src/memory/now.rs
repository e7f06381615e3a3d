//! The time of one operation.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The time of one operation, in the units that pools count in: since 1970, rounded down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Now {
    micros: u64,
}

impl Now {
    pub(super) fn micros(self) -> u64 {
        self.micros
    }

    pub(super) fn millis(self) -> u64 {
        self.micros / 1000
    }

    pub(super) fn seconds(self) -> u64 {
        self.micros / 1_000_000
    }
}

impl From<SystemTime> for Now {
    /// Times before 1970 count as 1970.
    fn from(time: SystemTime) -> Self {
        let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { micros: u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX) }
    }
}

pub(super) fn time_of_seconds(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

pub(super) fn time_of_millis(millis: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(millis)
}
