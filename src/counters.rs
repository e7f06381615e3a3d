//! What an operator wants to see grow slowly, or not at all.

/// What has gone wrong in a process so far, and what it did about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Counters {
    /// Claims that were granted and not acknowledged by enough replicas in time, so that they were answered by an error.
    pub not_acknowledged: u64,
    /// Claims that were granted from the local allowance, because Redis could not be reached.
    pub granted_locally: u64,
    /// Units that are held from the local allowance now.
    pub held_locally: u64,
}
