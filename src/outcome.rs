//! What is answered.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::amount::Units;
use crate::error::{Error, Result};
use crate::execution::Scope;
use crate::name::PoolName;

/// Flyte's answer to a claim, with its numbers and string forms.
///
/// 0, which Flyte calls `AllocationUndefined`, accompanies an error there and is an
/// [`Error`] here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "Flyte's wire numbers are fixed")]
#[must_use = "a claim that was not granted must not go ahead"]
#[repr(u8)]
pub enum AllocationStatus {
    /// The token is held.
    Granted = 1,
    /// The pool's quota is used up.
    Exhausted = 2,
    /// A cap of the execution's project or domain is used up.
    NamespaceQuotaExceeded = 3,
}

impl AllocationStatus {
    /// What Flyte's manager would have answered: it says `Exhausted` for a cap, too.
    ///
    /// Flyte's web API plugins fail on a `NamespaceQuotaExceeded`, so a bridge to them wants this.
    pub fn as_flyte_answers(self) -> Self {
        match self {
            Self::NamespaceQuotaExceeded => Self::Exhausted,
            other => other,
        }
    }
}

impl fmt::Display for AllocationStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Granted => "Granted",
            Self::Exhausted => "Exhausted",
            Self::NamespaceQuotaExceeded => "NamespaceQuotaExceeded",
        })
    }
}

impl FromStr for AllocationStatus {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        [Self::Granted, Self::Exhausted, Self::NamespaceQuotaExceeded]
            .into_iter()
            .find(|status| status.to_string() == name)
            .ok_or_else(|| {
                let rule = format!("{name} does not belong to AllocationStatus values");
                Error::invalid("allocation status", name, rule)
            })
    }
}

impl From<AllocationStatus> for u8 {
    fn from(status: AllocationStatus) -> Self {
        status as Self
    }
}

impl TryFrom<u8> for AllocationStatus {
    type Error = Error;

    fn try_from(number: u8) -> Result<Self> {
        [Self::Granted, Self::Exhausted, Self::NamespaceQuotaExceeded]
            .into_iter()
            .find(|&status| u8::from(status) == number)
            .ok_or_else(|| {
                let rule = "must be 1 Granted, 2 Exhausted or 3 NamespaceQuotaExceeded";
                Error::invalid("allocation status", number, rule)
            })
    }
}

/// A number that grows with every grant of a pool, so that a resource can refuse whoever comes with
/// an older one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FencingNumber(u64);

impl FencingNumber {
    pub(crate) const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for FencingNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An admitted claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Grant {
    /// Units held.
    pub units: Units,
    /// The grant's number; none from `noop`, which keeps no grants, and of what was granted without Redis
    /// ([`OnUnavailable::Grant`](crate::OnUnavailable::Grant)).
    pub fencing_number: Option<FencingNumber>,
    /// Whether the token was held before the call, which then took no unit.
    pub held_before: bool,
}

impl Grant {
    pub(crate) fn new(
        units: Units,
        fencing_number: Option<FencingNumber>,
        held_before: bool,
    ) -> Self {
        Self { units, fencing_number, held_before }
    }
}

/// What stops a claim.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Limit {
    /// The pool's quota.
    Quota,
    /// Tickets that stand before the claim; use and size are the pool's.
    Queue,
    /// The cap on a scope.
    Cap(Scope),
    /// Data were lost, and until everyone who holds units has come back, nobody new is admitted; use and size are the pool's.
    Learning {
        /// How long that will last.
        time_left: Duration,
    },
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quota => f.write_str("quota of the pool"),
            Self::Queue => f.write_str("tickets stand before it"),
            Self::Cap(scope) => write!(f, "cap of {scope}"),
            Self::Learning { time_left } => {
                let seconds = time_left.as_millis().div_ceil(1000);
                write!(f, "the pool learns who holds its units, for {seconds} s more")
            }
        }
    }
}

/// A refused claim: the first limit that stopped it. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Refusal {
    /// The limit.
    pub limit: Limit,
    /// Units in use under that limit. More than `size` if the limit was lowered meanwhile.
    pub in_use: u64,
    /// The limit's size in units.
    pub size: u64,
}

impl Refusal {
    pub(crate) fn new(limit: Limit, in_use: u64, size: u64) -> Self {
        Self { limit, in_use, size }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} of {} in use", self.limit, self.in_use, self.size)
    }
}

/// The answer to a claim.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "a claim is admitted or it is not")]
#[must_use = "a claim that was not granted must not go ahead"]
pub enum Outcome {
    /// The token is held.
    Granted(Grant),
    /// The token is not held.
    Refused(Refusal),
}

impl Outcome {
    /// The answer in Flyte's terms.
    pub fn status(&self) -> AllocationStatus {
        match self {
            Self::Granted(_) => AllocationStatus::Granted,
            Self::Refused(Refusal {
                limit: Limit::Quota | Limit::Queue | Limit::Learning { .. },
                ..
            }) => AllocationStatus::Exhausted,
            Self::Refused(Refusal { limit: Limit::Cap(_), .. }) => {
                AllocationStatus::NamespaceQuotaExceeded
            }
        }
    }

    /// The grant, if the claim was admitted.
    pub fn granted(&self) -> Option<&Grant> {
        match self {
            Self::Granted(grant) => Some(grant),
            Self::Refused(_) => None,
        }
    }
}

/// The answer to a claim of several pools.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "all are admitted or none")]
#[must_use = "a claim that was not granted must not go ahead"]
pub enum JointOutcome {
    /// All tokens are held; the grants stand in the order of the claims.
    Granted(Vec<Grant>),
    /// Nothing was granted.
    Refused {
        /// The first pool that refused.
        pool: PoolName,
        /// Why.
        refusal: Refusal,
    },
}

/// The answer to a release, which succeeds either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "a token was held or it was not")]
pub enum Released {
    /// The token was held and its units are back: 0 for a token that another writer put into the
    /// pool and that was never counted.
    Units(u64),
    /// The token was waiting; its ticket is withdrawn.
    Withdrawn,
    /// The token was not held, at least not by this execution; nothing was changed.
    NotHeld,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_have_flytes_numbers_and_names() -> Result<()> {
        for (number, name) in [(1, "Granted"), (2, "Exhausted"), (3, "NamespaceQuotaExceeded")] {
            let status = AllocationStatus::try_from(number)?;
            assert_eq!(u8::from(status), number);
            assert_eq!(status.to_string(), name);
            assert_eq!(name.parse::<AllocationStatus>()?, status);
        }
        Ok(())
    }

    #[test]
    fn undefined_is_never_an_answer() {
        let error = AllocationStatus::try_from(0).map_err(|e| e.to_string());
        assert_eq!(
            error,
            Err("invalid allocation status \"0\": must be 1 Granted, 2 Exhausted or 3 NamespaceQuotaExceeded".to_owned())
        );
        let error = "Undefined".parse::<AllocationStatus>().map_err(|e| e.to_string());
        assert_eq!(
            error,
            Err("invalid allocation status \"Undefined\": Undefined does not belong to AllocationStatus values".to_owned())
        );
    }

    #[test]
    fn flyte_answers_exhausted_for_a_cap() {
        use AllocationStatus::{Exhausted, Granted, NamespaceQuotaExceeded};
        assert_eq!(NamespaceQuotaExceeded.as_flyte_answers(), Exhausted);
        assert_eq!(Exhausted.as_flyte_answers(), Exhausted);
        assert_eq!(Granted.as_flyte_answers(), Granted);
    }
}
