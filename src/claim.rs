//! What is asked for and what is answered.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::execution::{ExecutionId, Scope};
use crate::name::{AllocationToken, Holder, PoolName};

/// How many units a claim takes, or a pool has: at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Units(NonZeroU32);

impl Units {
    /// One unit, what Flyte's plugins claim.
    pub const ONE: Self = Self(NonZeroU32::MIN);

    /// A number of units.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] unless it is between 1 and 4 294 967 295.
    pub fn new(units: i64) -> Result<Self> {
        u32::try_from(units).ok().and_then(NonZeroU32::new).map(Self).ok_or_else(|| {
            Error::invalid("units", units, format!("must be between 1 and {}", u32::MAX))
        })
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0.get() as u64
    }
}

impl fmt::Display for Units {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Most units a pool may have granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quota(NonZeroU32);

impl Quota {
    /// A quota of at most `max`, the configured `resourceMaxQuota`.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] unless it is between 1 and `max`.
    pub fn new(quota: i64, max: u32) -> Result<Self> {
        u32::try_from(quota)
            .ok()
            .filter(|&quota| quota <= max)
            .and_then(NonZeroU32::new)
            .map(Self)
            .ok_or_else(|| {
                let rule = format!("must be between 1 and resourceMaxQuota, which is {max}");
                Error::invalid("quota", quota, rule)
            })
    }

    /// The number of units.
    pub const fn get(self) -> u64 {
        self.0.get() as u64
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A cap: most units a scope may have granted in one pool. 0 closes the scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceConstraint {
    value: u64,
}

impl ResourceConstraint {
    /// A cap of `value` units.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] if it is negative.
    pub fn new(value: i64) -> Result<Self> {
        Self::named("cap", value)
    }

    fn named(field: &'static str, value: i64) -> Result<Self> {
        u64::try_from(value)
            .map(|value| Self { value })
            .map_err(|_| Error::invalid(field, value, "must not be negative; 0 closes the scope"))
    }

    /// The number of units.
    pub const fn value(self) -> u64 {
        self.value
    }
}

/// The caps that come with a claim; none by default. No cap is no limit, never a large number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ResourceConstraintsSpec {
    /// Cap for the execution's project.
    pub project_scope_resource_constraint: Option<ResourceConstraint>,
    /// Cap for the execution's domain in its project; Flyte calls this level "namespace".
    pub namespace_scope_resource_constraint: Option<ResourceConstraint>,
}

impl ResourceConstraintsSpec {
    /// No caps.
    pub const NONE: Self =
        Self { project_scope_resource_constraint: None, namespace_scope_resource_constraint: None };

    /// The caps given as numbers.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] if one is negative.
    pub fn new(project: Option<i64>, namespace: Option<i64>) -> Result<Self> {
        let cap = |field, value: Option<i64>| {
            value.map(|value| ResourceConstraint::named(field, value)).transpose()
        };
        Ok(Self {
            project_scope_resource_constraint: cap("project cap", project)?,
            namespace_scope_resource_constraint: cap("namespace cap", namespace)?,
        })
    }
}

/// Time after which an unrenewed grant returns its units by itself, counted by the backend's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lease(Duration);

impl Lease {
    /// The shortest lease: 100 ms.
    pub const MIN: Self = Self(Duration::from_millis(100));
    /// The longest lease: 7 days.
    pub const MAX: Self = Self(Duration::from_secs(7 * 24 * 60 * 60));

    /// A lease of this length; parts of a millisecond are cut off.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] unless it is between 100 ms and 7 days.
    pub fn new(length: Duration) -> Result<Self> {
        Self::named("lease", length)
    }

    pub(crate) fn named(field: &'static str, length: Duration) -> Result<Self> {
        if length < Self::MIN.0 || length > Self::MAX.0 {
            let value = humantime::format_duration(length);
            return Err(Error::invalid(field, value, "must be between 100ms and 7days"));
        }
        let nanos = length.subsec_nanos();
        Ok(Self(Duration::new(length.as_secs(), nanos - nanos % 1_000_000)))
    }

    /// The length.
    pub const fn length(self) -> Duration {
        self.0
    }

    pub(crate) fn millis(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }
}

impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

/// One token and the units it is to hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Claim {
    /// The caller's name for the claim.
    pub token: AllocationToken,
    /// Units to take.
    pub units: Units,
    /// How long they are held unless renewed; none is until they are released.
    pub lease: Option<Lease>,
}

impl Claim {
    /// A claim of several units, held until released.
    pub fn new(token: AllocationToken, units: Units) -> Self {
        Self { token, units, lease: None }
    }

    /// The same claim, whose units return by themselves when the lease is over.
    #[must_use]
    pub fn with_lease(self, lease: Lease) -> Self {
        Self { lease: Some(lease), ..self }
    }
}

impl From<AllocationToken> for Claim {
    /// A claim of one unit.
    fn from(token: AllocationToken) -> Self {
        Self::new(token, Units::ONE)
    }
}

/// Whom claims belong to and what limits them beside the quota: what a backend needs to know of the
/// claimant.
#[derive(Clone, Copy, Debug)]
pub struct Claimant<'a> {
    /// The execution the tokens belong to.
    pub execution: &'a ExecutionId,
    /// The caps on its scopes.
    pub constraints: ResourceConstraintsSpec,
    /// The process that asks.
    pub holder: &'a Holder,
}

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
    /// The grant's number; none from `noop`, which keeps no grants.
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
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quota => f.write_str("quota of the pool"),
            Self::Queue => f.write_str("tickets stand before it"),
            Self::Cap(scope) => write!(f, "cap of {scope}"),
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
            Self::Refused(Refusal { limit: Limit::Quota | Limit::Queue, .. }) => {
                AllocationStatus::Exhausted
            }
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

/// One of several claims that are granted all or none.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_structs, reason = "made by the caller")]
pub struct Joint {
    /// The pool.
    pub pool: PoolName,
    /// What is asked of it.
    pub claim: Claim,
    /// The caps on the execution's scopes in this pool.
    pub constraints: ResourceConstraintsSpec,
}

impl Joint {
    /// One pool decides about one claim of several, so that what it answers is about that.
    pub(crate) fn check_distinct(claims: &[Self]) -> Result<()> {
        let mut pools: Vec<_> = claims.iter().map(|joint| &joint.pool).collect();
        pools.sort_unstable();
        match pools.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(Error::invalid("pools", pair[0], "must not name a pool twice")),
            None => Ok(()),
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

    #[test]
    fn numbers_out_of_range_are_refused_with_field_value_and_rule() {
        let cases = [
            (Units::new(0).err(), "invalid units \"0\": must be between 1 and 4294967295"),
            (Units::new(-1).err(), "invalid units \"-1\": must be between 1 and 4294967295"),
            (
                Quota::new(0, 10).err(),
                "invalid quota \"0\": must be between 1 and resourceMaxQuota, which is 10",
            ),
            (
                Quota::new(11, 10).err(),
                "invalid quota \"11\": must be between 1 and resourceMaxQuota, which is 10",
            ),
            (
                ResourceConstraint::new(-1).err(),
                "invalid cap \"-1\": must not be negative; 0 closes the scope",
            ),
        ];
        for (error, text) in cases {
            assert_eq!(error.map(|e| e.to_string()).as_deref(), Some(text));
        }
        assert!(Quota::new(10, 10).is_ok());
        assert!(ResourceConstraint::new(0).is_ok());
        assert_eq!(ResourceConstraintsSpec::default(), ResourceConstraintsSpec::NONE);
    }
}
