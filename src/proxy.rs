//! The view that one execution has of a plugin's resources.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::watch;

use crate::acquire::{Acquired, Wait};
use crate::allocation::Allocation;
use crate::amount::ResourceConstraintsSpec;
use crate::claim::Claim;
use crate::error::{Error, Result};
use crate::execution::ExecutionId;
use crate::keeper::Terms;
use crate::manager::{Manager, ResourceManager};
use crate::name::{AllocationToken, PluginId, PoolName, ResourceNamespace};
use crate::outcome::{AllocationStatus, Outcome, Released};
use crate::rules::PoolRules;
use crate::ticket::{TicketRequest, Turn};

/// Which token was granted in which resource: what Flyte's task events carry as
/// `resource_pool_info`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct ResourcePoolInfo {
    /// The resource, by the plugin's short name for it.
    pub namespace: ResourceNamespace,
    /// The plugin's token.
    pub allocation_token: AllocationToken,
}

/// A manager that puts the plugin's id before namespaces and the execution before tokens.
///
/// It is cheap: engines make one for each evaluation of a task.
///
/// # Example
///
/// ```
/// # use std::sync::Arc;
/// # use tokenpool::{MemoryBackend, PluginId, Registrar, ResourceRegistrar};
/// use tokenpool::{AllocationStatus, ExecutionId, ResourceConstraintsSpec, ResourceManager};
///
/// # tokio_test::block_on(async {
/// # let registrar = Registrar::new(Arc::new(MemoryBackend::new()));
/// # registrar.for_plugin("hive".parse()?).register_resource_quota(&"default".parse()?, 1)?;
/// # let manager = registrar.build().await?;
/// let execution = ExecutionId::new("flytesnacks", "development", "f3ab")?;
/// let task = manager.for_execution("hive".parse()?, execution);
/// let (namespace, token) = ("default".parse()?, "f3ab-n0-0".parse()?);
/// let status = task.allocate_resource(&namespace, &token, ResourceConstraintsSpec::NONE).await?;
/// assert_eq!(status, AllocationStatus::Granted);
/// task.release_resource(&namespace, &token).await?;
/// # Ok::<(), tokenpool::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug)]
pub struct TaskResourceManager {
    manager: Manager,
    plugin: PluginId,
    execution: ExecutionId,
    rules: Option<PoolRules>,
    granted: Mutex<BTreeMap<ResourceNamespace, BTreeSet<AllocationToken>>>,
}

impl TaskResourceManager {
    pub(crate) fn new(manager: Manager, plugin: PluginId, execution: ExecutionId) -> Self {
        Self { manager, plugin, execution, rules: None, granted: Mutex::default() }
    }

    /// The same view, in which claims that bring no cap, lease or priority of their own get what the rules say; a priority
    /// of 0 is none.
    ///
    /// Rules that change while a claim waits hold for it at once, without a cache within 2 s; what is held keeps what it was
    /// granted under.
    #[must_use]
    pub fn with_rules(self, rules: PoolRules) -> Self {
        Self { rules: Some(rules), ..self }
    }

    /// Claims units of a resource and answers which limit stopped the claim, if one did.
    ///
    /// # Errors
    ///
    /// [`Error::Conflict`] if the token is held with other units or by another execution; else as
    /// [`ResourceManager::allocate_resource`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the token may or may not be held. Claim it again, or release it.
    pub async fn allocate(
        &self,
        namespace: &ResourceNamespace,
        claim: impl Into<Claim>,
        constraints: ResourceConstraintsSpec,
    ) -> Result<Outcome> {
        let answers = self.allocate_many(namespace, &[claim.into()], constraints).await?;
        answers.into_iter().next().unwrap_or_else(|| {
            Err(Error::Protocol { operation: "allocate", reply: "no answer".to_owned() })
        })
    }

    /// Claims units for many tokens, the subtasks of a map task, in one round trip.
    ///
    /// Each claim is all or nothing; they are decided one after the other. The answers stand in the
    /// order of the claims, and an inner error is about its claim alone.
    ///
    /// # Errors
    ///
    /// As [`allocate`](Self::allocate).
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, any of the tokens may or may not be held.
    pub async fn allocate_many(
        &self,
        namespace: &ResourceNamespace,
        claims: &[Claim],
        constraints: ResourceConstraintsSpec,
    ) -> Result<Vec<Result<Outcome>>> {
        let pool = PoolName::of(&self.plugin, namespace)?;
        let answers = match &self.rules {
            None => self.manager.allocate(&pool, &self.execution, claims, constraints).await?,
            // Kept apart, so that claims without rules are none the slower.
            Some(rules) => Box::pin(self.allocate_under(rules, &pool, claims, constraints)).await?,
        };
        let granted = claims.iter().zip(&answers).filter_map(|(claim, answer)| match answer {
            Ok(Outcome::Granted(_)) => Some(&claim.token),
            _ => None,
        });
        self.record(namespace, granted);
        Ok(answers)
    }

    async fn allocate_under(
        &self,
        rules: &PoolRules,
        pool: &PoolName,
        claims: &[Claim],
        own: ResourceConstraintsSpec,
    ) -> Result<Vec<Result<Outcome>>> {
        let rule = rules.rule(pool, &self.execution).await?;
        let (claims, caps) = (rule.leased(claims), rule.caps(own));
        self.manager.allocate(pool, &self.execution, &claims, caps).await
    }

    /// Claims units and waits for them as long as it takes.
    ///
    /// # Errors
    ///
    /// As [`Manager::acquire`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the claim is withdrawn, and units that were handed over meanwhile go on to the next one.
    ///
    /// # Example
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use std::time::Duration;
    /// # use tokenpool::{AllocationToken, ExecutionId, MemoryBackend, Registrar, ResourceConstraintsSpec, ResourceRegistrar};
    /// use tokenpool::{Acquired, Claim, Lease, Units, Wait};
    ///
    /// # tokio_test::block_on(async {
    /// # let registrar = Registrar::new(Arc::new(MemoryBackend::new()));
    /// # registrar.for_plugin("hive".parse()?).register_resource_quota(&"default".parse()?, 1)?;
    /// # let manager = registrar.build().await?;
    /// # let task = manager.for_execution("hive".parse()?, ExecutionId::new("p", "d", "e")?);
    /// let namespace = "default".parse()?;
    /// let claim = |token| Ok::<_, tokenpool::Error>(
    ///     Claim::new(AllocationToken::new(token)?, Units::ONE).with_lease(Lease::new(Duration::from_secs(30))?),
    /// );
    /// let first = task.acquire(&namespace, claim("a")?, ResourceConstraintsSpec::NONE).await?;
    /// let wait = Wait::within(Duration::from_millis(20))?;
    /// match task.acquire_with(&namespace, claim("b")?, ResourceConstraintsSpec::NONE, wait).await? {
    ///     Acquired::TimedOut(ticket) => assert_eq!(ticket.position, 1),
    ///     other => panic!("{other:?}"),
    /// }
    /// first.release().await?;
    /// # Ok::<(), tokenpool::Error>(())
    /// # }).unwrap();
    /// ```
    pub async fn acquire(
        &self,
        namespace: &ResourceNamespace,
        claim: impl Into<Claim>,
        constraints: ResourceConstraintsSpec,
    ) -> Result<Allocation> {
        match self.acquire_with(namespace, claim, constraints, Wait::forever()).await? {
            Acquired::Granted(allocation) => Ok(allocation),
            other => Err(Error::Protocol { operation: "acquire", reply: format!("{other:?}") }),
        }
    }

    /// Claims units and waits for them with a deadline, or a priority.
    ///
    /// # Errors
    ///
    /// As [`Manager::acquire`].
    ///
    /// # Cancel safety
    ///
    /// As [`acquire`](Self::acquire).
    pub async fn acquire_with(
        &self,
        namespace: &ResourceNamespace,
        claim: impl Into<Claim>,
        constraints: ResourceConstraintsSpec,
        wait: Wait,
    ) -> Result<Acquired> {
        let (pool, claim) = (PoolName::of(&self.plugin, namespace)?, claim.into());
        let token = claim.token.clone();
        let acquired = match &self.rules {
            None => self.manager.acquire(&pool, &self.execution, claim, constraints, wait).await?,
            Some(rules) => {
                Box::pin(self.acquire_under(rules, &pool, claim, constraints, wait)).await?
            }
        };
        if let Acquired::Granted(_) = acquired {
            self.record(namespace, std::iter::once(&token));
        }
        Ok(acquired)
    }

    async fn acquire_under(
        &self,
        rules: &PoolRules,
        pool: &PoolName,
        claim: Claim,
        own: ResourceConstraintsSpec,
        wait: Wait,
    ) -> Result<Acquired> {
        let (manager, execution) = (&self.manager, &self.execution);
        let rule = rules.rule(pool, execution).await?;
        rules.weigh(&rule, manager, pool, execution).await;
        let own = Terms { constraints: own, lease: claim.lease, priority: wait.priority() };
        let (sender, terms) = watch::channel(rule.terms(own));
        tokio::select! {
            acquired = manager.acquire_under(terms, pool, execution, claim, wait) => acquired,
            never = rules.follow(manager, pool, execution, own, sender) => match never {},
        }
    }

    /// Claims units, or keeps the claim's place by a ticket until it is repeated. As [`Manager::allocate_or_queue`].
    ///
    /// # Errors
    ///
    /// As [`Manager::allocate_or_queue`].
    ///
    /// # Cancel safety
    ///
    /// As [`Manager::allocate_or_queue`].
    pub async fn allocate_or_queue(
        &self,
        namespace: &ResourceNamespace,
        claim: impl Into<Claim>,
        constraints: ResourceConstraintsSpec,
        ticket: &TicketRequest,
    ) -> Result<Turn> {
        let (pool, claim) = (PoolName::of(&self.plugin, namespace)?, claim.into());
        let (manager, execution) = (&self.manager, &self.execution);
        let turn = match &self.rules {
            None => {
                manager.allocate_or_queue(&pool, execution, &claim, constraints, ticket).await?
            }
            Some(rules) => {
                Box::pin(self.queue_under(rules, &pool, &claim, constraints, ticket)).await?
            }
        };
        if let Turn::Granted(_) = turn {
            self.record(namespace, std::iter::once(&claim.token));
        }
        Ok(turn)
    }

    async fn queue_under(
        &self,
        rules: &PoolRules,
        pool: &PoolName,
        claim: &Claim,
        own: ResourceConstraintsSpec,
        ticket: &TicketRequest,
    ) -> Result<Turn> {
        let (manager, execution) = (&self.manager, &self.execution);
        let rule = rules.rule(pool, execution).await?;
        rules.weigh(&rule, manager, pool, execution).await;
        let own = Terms { constraints: own, lease: claim.lease, priority: ticket.priority };
        let Terms { constraints, lease, priority } = rule.terms(own);
        let claim = Claim { lease, ..claim.clone() };
        let ticket = ticket.clone().with_priority(priority);
        manager.allocate_or_queue(pool, execution, &claim, constraints, &ticket).await
    }

    /// Gives back what many tokens hold, in one round trip. The answers stand in the tokens' order.
    ///
    /// # Errors
    ///
    /// As [`ResourceManager::release_resource`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, any of the tokens may or may not be held. Release them again.
    pub async fn release_many(
        &self,
        namespace: &ResourceNamespace,
        tokens: &[AllocationToken],
    ) -> Result<Vec<Released>> {
        let pool = PoolName::of(&self.plugin, namespace)?;
        self.manager.release(&pool, &self.execution, tokens).await
    }

    fn record<'a>(
        &self,
        namespace: &ResourceNamespace,
        tokens: impl Iterator<Item = &'a AllocationToken>,
    ) {
        let mut granted = self.granted.lock().unwrap_or_else(PoisonError::into_inner);
        for token in tokens {
            // Granted again, as a rule, which needs no copies.
            match granted.get_mut(namespace) {
                Some(of_namespace) if of_namespace.contains(token) => {}
                Some(of_namespace) => drop(of_namespace.insert(token.clone())),
                None => drop(granted.insert(namespace.clone(), BTreeSet::from([token.clone()]))),
            }
        }
    }

    /// What was granted through this view, in order; a release does not take it off the list.
    ///
    /// Refused claims are not on it (unlike Flyte, defect RM-16), and a token in two resources is on
    /// it twice.
    pub fn resource_pool_info(&self) -> Vec<ResourcePoolInfo> {
        let granted = self.granted.lock().unwrap_or_else(PoisonError::into_inner);
        let info = |namespace: &ResourceNamespace, token: &AllocationToken| ResourcePoolInfo {
            namespace: namespace.clone(),
            allocation_token: token.clone(),
        };
        let pairs = granted
            .iter()
            .flat_map(|(namespace, tokens)| tokens.iter().map(move |token| info(namespace, token)));
        pairs.collect()
    }
}

#[async_trait]
impl ResourceManager for TaskResourceManager {
    fn id(&self) -> &'static str {
        self.manager.id()
    }

    async fn allocate_resource(
        &self,
        namespace: &ResourceNamespace,
        token: &AllocationToken,
        constraints: ResourceConstraintsSpec,
    ) -> Result<AllocationStatus> {
        let outcome = self.allocate(namespace, token.clone(), constraints).await?;
        Ok(outcome.status())
    }

    async fn release_resource(
        &self,
        namespace: &ResourceNamespace,
        token: &AllocationToken,
    ) -> Result<()> {
        self.release_many(namespace, std::slice::from_ref(token)).await.map(drop)
    }
}
