//! How much and for how long: the numbers of claims and pools, checked where they are made.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use crate::error::{Error, Result};

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

#[cfg(test)]
mod tests {
    use super::*;

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
