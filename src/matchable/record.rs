//! One stored value and what is recorded with it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What is stored for a path: attributes in JSON, and their version.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// How often the path was written or deleted so far.
    pub version: u64,
    /// When, by the store's clock, in milliseconds.
    pub at: SystemTime,
    /// Who wrote it.
    pub by: String,
    /// The attributes in JSON; none where they were deleted, which only histories tell.
    pub value: Option<String>,
}

/// A record that cannot be read: somebody else wrote it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not <version> <milliseconds> <who> <value>")]
pub struct Damaged(pub(crate) String);

/// What is found where a record should be.
pub type Stored = Result<Record, Damaged>;

/// How much of a damaged record is shown.
const SHOWN: usize = 60;

impl Record {
    /// Reads `<version> <milliseconds> <who> <value>`.
    pub(crate) fn parse(text: &str) -> Stored {
        Self::read(text).ok_or_else(|| Damaged(text.chars().take(SHOWN).collect()))
    }

    fn read(text: &str) -> Option<Self> {
        let mut words = text.splitn(4, ' ');
        let version = words.next()?.parse().ok()?;
        let at = Duration::from_millis(words.next()?.parse().ok()?);
        let at = UNIX_EPOCH.checked_add(at)?;
        let by = words.next()?.to_owned();
        let value = Some(words.next()?.to_owned()).filter(|value| !value.is_empty());
        Some(Self { version, at, by, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_record_is_damaged_and_shown_in_part() {
        let good = Record::parse("3 1763756000123 host/1 {\"a b\":1}").expect("it is a record");
        assert_eq!((good.version, &*good.by), (3, "host/1"));
        assert_eq!(good.value.as_deref(), Some("{\"a b\":1}"));
        assert_eq!(good.at, UNIX_EPOCH + Duration::from_millis(1_763_756_000_123));
        let deleted = Record::parse("4 1763756000123 host/1 ").expect("it is a record");
        assert_eq!(deleted.value, None);
        for text in [
            "",
            "3",
            "3 4",
            "3 4 x",
            "x 4 x {}",
            "3 x x {}",
            "-3 4 x {}",
            "3 99999999999999999999 x {}",
        ] {
            assert_eq!(Record::parse(text), Err(Damaged(text.to_owned())), "{text:?}");
        }
        let long = "é".repeat(100);
        assert_eq!(Record::parse(&long), Err(Damaged("é".repeat(60))));
    }
}
