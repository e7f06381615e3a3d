//! What claims get that say nothing of their own: `RESOURCE_CONSTRAINTS`, applied.

use std::borrow::Cow;
use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::amount::{Lease, ResourceConstraint, ResourceConstraintsSpec};
use crate::claim::Claim;
use crate::error::{Error, Result};
use crate::execution::ExecutionId;
use crate::keeper::Terms;
use crate::manager::Manager;
use crate::matchable::{
    AttributePath, Attributes, AttributesOf, Kind, Level, MatchableResource as _, PoolConstraints,
    Resolution, ResourceConstraints,
};
use crate::name::PoolName;
use crate::ticket::{Priority, Weight};

/// A waiting claim looks for a changed rule so often, should nobody tell it of one.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// The rules that operators set for pools by project, domain, workflow and launch plan, as a process sees them. A clone is a
/// handle to the same.
///
/// A rule that cannot be looked up, or not be read, fails the claims that it may be about: no claim goes ahead under caps
/// that are not known. A weight is given to the pool when a claim waits, and again when its rule changes.
///
/// # Example
///
/// ```
/// # use std::sync::Arc;
/// # use std::time::Duration;
/// # use tokenpool::{AllocationStatus, ExecutionId, Holder, MemoryBackend, Registrar, ResourceConstraintsSpec, ResourceManager, ResourceRegistrar};
/// use tokenpool::PoolRules;
/// use tokenpool::matchable::{
///     AttributePath, Attributes, CacheConfig, Expected, MemoryAttributeStore, PoolConstraints,
///     ResourceConstraints,
/// };
///
/// # tokio_test::block_on(async {
/// # let registrar = Registrar::new(Arc::new(MemoryBackend::new()));
/// # registrar.for_plugin("hive".parse()?).register_resource_quota(&"default".parse()?, 100)?;
/// # let manager = registrar.build().await?;
/// let store = Arc::new(MemoryAttributeStore::new());
/// let cache = CacheConfig::new(Duration::from_secs(1))?;
/// let attributes = Attributes::cached(store, Holder::of_this_process(), cache).await?;
/// let closed = PoolConstraints { pool: "hive:*".into(), project_cap: Some(0), ..Default::default() };
/// let rule = ResourceConstraints { pools: vec![closed] };
/// attributes.of().update(&AttributePath::project("billing")?, rule, Expected::Any).await?;
///
/// let rules = PoolRules::new(&attributes);
/// let execution = ExecutionId::new("billing", "production", "f3ab")?;
/// let task = manager.for_execution("hive".parse()?, execution).with_rules(rules);
/// let status = task.allocate_resource(&"default".parse()?, &"t".parse()?, ResourceConstraintsSpec::NONE).await?;
/// assert_eq!(status, AllocationStatus::NamespaceQuotaExceeded);
/// # Ok::<(), tokenpool::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct PoolRules {
    attributes: AttributesOf<ResourceConstraints>,
    weights: Arc<Mutex<Weights>>,
}

/// Weights that this process has given to projects in pools, and the versions of the rules that said so.
type Weights = HashMap<(PoolName, String), (Weight, u64)>;

/// What the rules say of one execution's claims in one pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolRule {
    /// Cap for the project.
    pub project_cap: Option<Ruled<ResourceConstraint>>,
    /// Cap for the domain in the project.
    pub namespace_cap: Option<Ruled<ResourceConstraint>>,
    /// Weight of the project.
    pub weight: Option<Ruled<Weight>>,
    /// Priority of claims that wait.
    pub priority: Option<Ruled<Priority>>,
    /// Lease.
    pub lease: Option<Ruled<Lease>>,
}

/// A value and the rule that gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ruled<V> {
    /// The value.
    pub value: V,
    /// The pool's name or the pattern under which it is set.
    pub pool: String,
    /// Where it is set.
    pub path: AttributePath,
    /// The version of what is set there.
    pub version: u64,
}

impl<V> fmt::Display for Ruled<V> {
    /// The rule, without its value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pool, path, version, .. } = self;
        let kind = ResourceConstraints::NAME;
        write!(f, "{kind} of {} {path} for {pool}, version {version}", path.level())
    }
}

impl PoolRules {
    /// The rules among these attributes. With a cache claims cost no more for them, and waiting claims hear of changes at
    /// once; without one each claim is preceded by a look-up, and waiting claims look every 2 s.
    pub fn new(attributes: &Attributes) -> Self {
        Self { attributes: attributes.of(), weights: Arc::default() }
    }

    /// What the rules say of an execution's claims in a pool: of each field, what is set at the most specific place that
    /// sets it, there by the pool's name or else by the first pattern that fits.
    ///
    /// # Errors
    ///
    /// As [`AttributesOf::resolve`], but that nothing is set is no error.
    ///
    /// # Cancel safety
    ///
    /// Nothing changes.
    pub async fn rule(&self, pool: &PoolName, execution: &ExecutionId) -> Result<PoolRule> {
        match self.attributes.resolve(&AttributePath::of_execution(execution)).await {
            Ok(resolution) => PoolRule::of(&resolution, pool),
            Err(Error::NotFound { .. }) => Ok(PoolRule::default()),
            Err(error) => Err(error),
        }
    }

    /// Gives the project its weight in the pool, once for each change of the rule that this process sees; without a rule any
    /// more, the weight of projects that have none. That this fails is no reason not to claim.
    pub(crate) async fn weigh(
        &self,
        rule: &PoolRule,
        manager: &Manager,
        pool: &PoolName,
        execution: &ExecutionId,
    ) {
        let project = execution.project();
        let key = (pool.clone(), project.to_owned());
        let ruled = rule.weight.as_ref().map(|weight| (weight.value, weight.version));
        let given = || self.weights.lock().unwrap_or_else(PoisonError::into_inner);
        let before = match ruled {
            // Before it is given: others that claim meanwhile need not do it again.
            Some(ruled) => given().insert(key.clone(), ruled),
            None => given().remove(&key),
        };
        if before == ruled {
            return;
        }
        let weight = ruled.map_or(Weight::ONE, |(weight, _)| weight);
        if let Err(error) = manager.weigh(pool, project, weight).await {
            tracing::warn!(%pool, project, %weight, %error, "the project's weight is not changed");
            if ruled.is_some() {
                given().remove(&key);
            }
        }
    }

    /// Tells the terms of a waiting claim whenever they change, and keeps its project's weight; never ends.
    pub(crate) async fn follow(
        &self,
        manager: &Manager,
        pool: &PoolName,
        execution: &ExecutionId,
        own: Terms,
        terms: watch::Sender<Terms>,
    ) -> Infallible {
        loop {
            let changed = self.attributes.changed();
            match self.rule(pool, execution).await {
                Ok(rule) => {
                    let now = rule.terms(own);
                    terms.send_if_modified(|terms| std::mem::replace(terms, now) != now);
                    self.weigh(&rule, manager, pool, execution).await;
                }
                Err(error) => {
                    tracing::warn!(%pool, %error, "the terms of a waiting claim stay as they are");
                }
            }
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
        }
    }
}

impl PoolRule {
    fn of(resolution: &Resolution<ResourceConstraints>, pool: &PoolName) -> Result<Self> {
        let mut rule = Self::default();
        for level in &resolution.levels {
            let broken = |problem: String| Error::Unreadable {
                kind: Kind::<ResourceConstraints>::of().name().clone(),
                path: level.path.to_string(),
                problem,
            };
            let of_project = level.path.level() == Level::Project;
            for entry in level.value.of(pool) {
                let PoolConstraints { project_cap, namespace_cap, .. } = entry;
                let cap = |cap: &Option<i64>| cap.map(ResourceConstraint::new).transpose();
                let wrong = |error: Error| broken(error.to_string());
                let ruled = Rules { pool: &entry.pool, path: &level.path, version: level.version };
                ruled.fill(&mut rule.project_cap, cap(project_cap).map_err(wrong)?);
                ruled.fill(&mut rule.namespace_cap, cap(namespace_cap).map_err(wrong)?);
                ruled.fill(&mut rule.weight, entry.weight().map_err(wrong)?.filter(|_| of_project));
                ruled.fill(&mut rule.priority, entry.priority().map_err(wrong)?);
                ruled.fill(&mut rule.lease, entry.lease().map_err(|e| broken(e.to_string()))?);
            }
        }
        Ok(rule)
    }

    /// The caps of a claim that brings these of its own.
    pub(crate) fn caps(&self, own: ResourceConstraintsSpec) -> ResourceConstraintsSpec {
        let ruled = |cap: &Option<Ruled<ResourceConstraint>>| cap.as_ref().map(|cap| cap.value);
        let ResourceConstraintsSpec {
            project_scope_resource_constraint: project,
            namespace_scope_resource_constraint: namespace,
        } = own;
        ResourceConstraintsSpec {
            project_scope_resource_constraint: project.or(ruled(&self.project_cap)),
            namespace_scope_resource_constraint: namespace.or(ruled(&self.namespace_cap)),
        }
    }

    /// The terms of a claim that waits and brings these of its own.
    pub(crate) fn terms(&self, own: Terms) -> Terms {
        Terms {
            constraints: self.caps(own.constraints),
            lease: own.lease.or(self.lease.as_ref().map(|lease| lease.value)),
            priority: self.prioritized(own.priority),
        }
    }

    /// The claims with leases, their own or that of the rule.
    pub(crate) fn leased<'a>(&self, claims: &'a [Claim]) -> Cow<'a, [Claim]> {
        let Some(Ruled { value: ruled, .. }) = self.lease else { return claims.into() };
        let leased = |claim: &Claim| Claim { lease: claim.lease.or(Some(ruled)), ..claim.clone() };
        claims.iter().map(leased).collect()
    }

    /// The priority of a claim: of one that says nothing, whose is 0, that of the rule.
    pub(crate) fn prioritized(&self, own: Priority) -> Priority {
        match &self.priority {
            Some(Ruled { value, .. }) if own == Priority::default() => *value,
            _ => own,
        }
    }
}

/// The rules of one entry.
struct Rules<'a> {
    pool: &'a str,
    path: &'a AttributePath,
    version: u64,
}

impl Rules<'_> {
    /// Sets what nothing of higher precedence has set.
    fn fill<V>(&self, field: &mut Option<Ruled<V>>, value: Option<V>) {
        if let (None, Some(value)) = (&field, value) {
            let (pool, path) = (self.pool.to_owned(), self.path.clone());
            *field = Some(Ruled { value, pool, path, version: self.version });
        }
    }
}
