//! One stored value and what is recorded with it.

use std::time::SystemTime;

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

impl Record {
    /// A record of a store; without a value it is a deletion.
    pub fn new(version: u64, at: SystemTime, by: impl Into<String>, value: Option<String>) -> Self {
        Self { version, at, by: by.into(), value }
    }
}

/// A record that cannot be read: somebody else wrote it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not <version> <milliseconds> <who> <value>")]
pub struct Damaged(String);

impl Damaged {
    /// What is there instead, or the beginning of it.
    pub fn new(found: impl Into<String>) -> Self {
        Self(found.into())
    }
}

/// What is found where a record should be.
pub type Stored = Result<Record, Damaged>;
