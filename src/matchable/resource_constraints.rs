//! `RESOURCE_CONSTRAINTS`: caps, weight, priority and lease of claims, by pool.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use wildmatch::WildMatch;

use super::kind::{InvalidField, MatchableResource};
use crate::amount::{Lease, ResourceConstraint};
use crate::error::Error;
use crate::name::{MAX_NAME_LENGTH, PoolName};
use crate::ticket::{Priority, Weight};

/// What claims get in pools where they say nothing of their own: a kind of this project, which Flyte has not.
///
/// [`PoolRules`](crate::PoolRules) applies it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::exhaustive_structs, reason = "made by whoever sets it")]
pub struct ResourceConstraints {
    /// By pool; a pool's own name takes precedence of patterns, and of these the first that fits.
    pub pools: Vec<PoolConstraints>,
}

/// What claims get in one pool, or in those of a pattern. What is left out is decided by a less specific place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::exhaustive_structs, reason = "made by whoever sets it")]
pub struct PoolConstraints {
    /// Name of the pool, `<plugin>:<name>`, or a pattern where `*` stands for anything and `?` for one character.
    pub pool: String,
    /// Cap for the project of the claim, in units; 0 closes the pool for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project_cap: Option<i64>,
    /// Cap for the domain of the claim in its project, in units.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_cap: Option<i64>,
    /// Weight of the project where the pool's order is fair, 1 to 1 000 000. Counts only where it is set for a project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<i64>,
    /// Priority where the pool's order is by that, 0 to 9.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i64>,
    /// Lease, as a text like `30s`: 100 ms to 7 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<String>,
}

impl MatchableResource for ResourceConstraints {
    const NAME: &'static str = "RESOURCE_CONSTRAINTS";

    fn validate(&self) -> Result<(), InvalidField> {
        InvalidField::unless(!self.pools.is_empty(), "pools", "[]", "must not be empty")?;
        for (place, pool) in self.pools.iter().enumerate() {
            pool.validate().map_err(|error| error.within(format!("pools[{place}]")))?;
            let is_first = self.pools[..place].iter().all(|other| other.pool != pool.pool);
            let field = format!("pools[{place}].pool");
            InvalidField::unless(is_first, field, &pool.pool, "must not stand twice")?;
        }
        Ok(())
    }

    /// By pool: what is set here stays, pool by pool and field by field.
    fn merge(mut self, below: Self) -> Self {
        for other in below.pools {
            match self.pools.iter_mut().find(|pool| pool.pool == other.pool) {
                Some(pool) => pool.fill(other),
                None => self.pools.push(other),
            }
        }
        self
    }
}

impl ResourceConstraints {
    /// What is set for a pool: by its name, and by each pattern that fits, in this order of precedence.
    pub(crate) fn of(&self, pool: &PoolName) -> impl Iterator<Item = &PoolConstraints> {
        let is_own = |entry: &&PoolConstraints| entry.pool == pool.as_str();
        let fits = |entry: &&PoolConstraints| {
            entry.pool != pool.as_str() && WildMatch::new(&entry.pool).matches(pool.as_str())
        };
        self.pools.iter().filter(is_own).chain(self.pools.iter().filter(fits))
    }
}

impl PoolConstraints {
    fn validate(&self) -> Result<(), InvalidField> {
        let Self { pool, project_cap, namespace_cap, weight, priority, lease } = self;
        match pool.contains(['*', '?']) {
            // The rules for the name of a pool but for the two.
            true => InvalidField::unless(
                pool.len() <= MAX_NAME_LENGTH
                    && !pool.contains(|c: char| c.is_whitespace() || c.is_control()),
                "pool",
                pool,
                format!("must be a pattern of at most {MAX_NAME_LENGTH} bytes without white space"),
            )?,
            false => drop(PoolName::new(&**pool).map_err(|error| broken("pool", pool, &error))?),
        }
        let caps = [("project_cap", project_cap), ("namespace_cap", namespace_cap)];
        for (field, cap) in caps {
            if let Some(cap) = cap {
                ResourceConstraint::new(*cap).map_err(|error| broken(field, cap, &error))?;
            }
        }
        self.weight().map_err(|error| broken("weight", weight.unwrap_or_default(), &error))?;
        self.priority()
            .map_err(|error| broken("priority", priority.unwrap_or_default(), &error))?;
        self.lease()?;
        let sets_nothing = (project_cap, namespace_cap, weight) == (&None, &None, &None)
            && (priority, lease) == (&None, &None);
        InvalidField::unless(!sets_nothing, "pool", pool, "must set something for it")
    }

    pub(crate) fn weight(&self) -> Result<Option<Weight>, Error> {
        self.weight.map(Weight::new).transpose()
    }

    pub(crate) fn priority(&self) -> Result<Option<Priority>, Error> {
        self.priority.map(Priority::new).transpose()
    }

    pub(crate) fn lease(&self) -> Result<Option<Lease>, InvalidField> {
        let Some(text) = &self.lease else { return Ok(None) };
        let length = humantime::parse_duration(text).map_err(|error| {
            InvalidField::new("lease", text, format!("must be like 30s: {error}"))
        })?;
        Lease::new(length).map(Some).map_err(|error| broken("lease", text, &error))
    }

    fn fill(&mut self, below: Self) {
        self.project_cap = self.project_cap.or(below.project_cap);
        self.namespace_cap = self.namespace_cap.or(below.namespace_cap);
        self.weight = self.weight.or(below.weight);
        self.priority = self.priority.or(below.priority);
        self.lease = self.lease.take().or(below.lease);
    }
}

/// A field whose type refused its value.
fn broken(field: &'static str, value: impl ToString, error: &Error) -> InvalidField {
    let rule: Cow<'_, str> = match error {
        Error::InvalidArgument { rule, .. } => rule.into(),
        other => other.to_string().into(),
    };
    InvalidField::new(field, value, rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(pool: &str) -> PoolConstraints {
        PoolConstraints {
            pool: pool.to_owned(),
            project_cap: Some(1),
            ..PoolConstraints::default()
        }
    }

    fn of(pools: &[PoolConstraints]) -> ResourceConstraints {
        ResourceConstraints { pools: pools.to_vec() }
    }

    #[test]
    fn a_pools_own_name_takes_precedence_of_patterns_and_of_these_the_first() -> crate::Result<()> {
        let all = of(&[entry("*"), entry("hive:*"), entry("hive:default"), entry("hive:?efault")]);
        let pool = PoolName::new("hive:default")?;
        let fitting: Vec<_> = all.of(&pool).map(|entry| entry.pool.as_str()).collect();
        assert_eq!(fitting, ["hive:default", "*", "hive:*", "hive:?efault"]);
        let other = PoolName::new("presto:adhoc")?;
        assert_eq!(all.of(&other).map(|entry| entry.pool.as_str()).collect::<Vec<_>>(), ["*"]);
        Ok(())
    }

    type Change = fn(&mut PoolConstraints);

    #[test]
    fn what_breaks_a_rule_is_named() {
        let with = |change: Change| {
            let mut changed = entry("hive:default");
            change(&mut changed);
            of(&[entry("presto:*"), changed]).validate().err().map(|error| error.to_string())
        };
        let cases: [(Change, &str); 12] = [
            (|entry| entry.pool = "hive".into(), "pools[1].pool \"hive\": must be <plugin>:<name>"),
            (|entry| entry.pool.clear(), "pools[1].pool \"\": must be <plugin>:<name>"),
            (
                |entry| entry.pool = "a *".into(),
                "pools[1].pool \"a *\": must be a pattern of at most 255 bytes without white space",
            ),
            (
                |entry| entry.pool = "presto:*".into(),
                "pools[1].pool \"presto:*\": must not stand twice",
            ),
            (
                |entry| entry.project_cap = None,
                "pools[1].pool \"hive:default\": must set something for it",
            ),
            (
                |entry| entry.project_cap = Some(-1),
                "pools[1].project_cap \"-1\": must not be negative; 0 closes the scope",
            ),
            (
                |entry| entry.namespace_cap = Some(-2),
                "pools[1].namespace_cap \"-2\": must not be negative; 0 closes the scope",
            ),
            (
                |entry| entry.weight = Some(0),
                "pools[1].weight \"0\": must be between 1 and 1000000",
            ),
            (
                |entry| entry.priority = Some(10),
                "pools[1].priority \"10\": must be between 0 and 9",
            ),
            (
                |entry| entry.lease = Some("8days".into()),
                "pools[1].lease \"8days\": must be between 100ms and 7days",
            ),
            (
                |entry| entry.lease = Some("99ms".into()),
                "pools[1].lease \"99ms\": must be between 100ms and 7days",
            ),
            (
                |entry| entry.lease = Some("soon".into()),
                "pools[1].lease \"soon\": must be like 30s: expected number at 0",
            ),
        ];
        for (change, text) in cases {
            assert_eq!(with(change).as_deref(), Some(text));
        }
        let empty = of(&[]).validate().err().map(|error| error.to_string());
        assert_eq!(empty.as_deref(), Some("pools \"[]\": must not be empty"));
        assert_eq!(with(|entry| entry.lease = Some("30s".into())), None);
    }

    #[test]
    fn merging_goes_pool_by_pool_and_field_by_field() {
        let lease = |text: &str| Some(text.to_owned());
        let above = of(&[PoolConstraints { lease: lease("1s"), ..entry("hive:*") }]);
        let below = of(&[
            PoolConstraints {
                project_cap: Some(9),
                weight: Some(2),
                lease: lease("9s"),
                ..entry("hive:*")
            },
            entry("*"),
        ]);
        let both = of(&[
            PoolConstraints { weight: Some(2), lease: lease("1s"), ..entry("hive:*") },
            entry("*"),
        ]);
        assert_eq!(above.clone().merge(below), both);
        assert_eq!(both.clone().merge(both.clone()), both);
    }
}
