//! The manager of a process: decides claims for the pools it registered.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::acquire::{Acquired, AcquiredAll, Wait};
use crate::amount::{Quota, ResourceConstraintsSpec};
use crate::backend::Backend;
use crate::claim::{Claim, Claimant, Joint};
use crate::counters::Counters;
use crate::error::Result;
use crate::execution::ExecutionId;
use crate::keeper::{Held, Keeper, Patience, Request, Terms};
use crate::lock::Locks;
use crate::name::{AllocationToken, Holder, PluginId, PoolName, ResourceNamespace};
use crate::outcome::{AllocationStatus, Grant, JointOutcome, Outcome, Released};
use crate::proxy::TaskResourceManager;
use crate::registered::Registered;
use crate::ticket::{QueueChange, TicketRequest, Turn, Weight};

/// What a plugin sees: Flyte's `core.ResourceManager`.
///
/// [`TaskResourceManager`] implements it; a test of a plugin may bring its own.
#[async_trait]
pub trait ResourceManager: Debug + Send + Sync + 'static {
    /// Which backend decides: `redisresourcemanager`, `memoryresourcemanager` or
    /// `noopresourcemanager`.
    fn id(&self) -> &'static str;

    /// Claims one unit of a resource for `token`, under caps for the execution's scopes.
    ///
    /// All or nothing, in one atomic step. Claiming a held token is Granted again and takes no unit,
    /// so the call may be repeated at will.
    ///
    /// # Errors
    ///
    /// An error is never a "no": the request breaks a rule and nothing was sent, or the answer is
    /// unknown, which [`is_retryable`](crate::Error::is_retryable) tells apart. After a retryable error the token may be
    /// held; repeating the same call is the remedy.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the token may or may not be held. Claim it again, which is
    /// idempotent, or release it.
    async fn allocate_resource(
        &self,
        namespace: &ResourceNamespace,
        token: &AllocationToken,
        constraints: ResourceConstraintsSpec,
    ) -> Result<AllocationStatus>;

    /// Gives back what `token` holds. Releasing a token that is not held succeeds.
    ///
    /// # Errors
    ///
    /// As [`allocate_resource`](Self::allocate_resource); after a retryable error the token may
    /// still be held.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the token may or may not be held. Release it again.
    async fn release_resource(
        &self,
        namespace: &ResourceNamespace,
        token: &AllocationToken,
    ) -> Result<()>;
}

/// Decides the claims of one process. Made by [`Registrar::build`](crate::Registrar::build), or
/// [attached](Self::attach) to pools that exist; a clone is a handle to the same manager.
#[derive(Clone, Debug)]
pub struct Manager(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registered: Registered,
    holder: Holder,
    /// Started for the first lease or waiting claim.
    keeper: OnceLock<Keeper>,
}

impl Manager {
    pub(crate) fn new(
        backend: Arc<dyn Backend>,
        quotas: HashMap<PoolName, Quota>,
        holder: Holder,
    ) -> Self {
        let quotas = quotas.into_iter().map(|(pool, quota)| (pool, Some(quota))).collect();
        Self::of(Registered::new(backend, quotas), holder)
    }

    /// A manager of pools that exist already, whose quotas are somebody else's business: an operator's, or those of the
    /// managers that register them. A pool that the backend loses is not registered again, but unknown.
    pub fn attach(
        backend: Arc<dyn Backend>,
        pools: impl IntoIterator<Item = PoolName>,
        holder: Holder,
    ) -> Self {
        let pools = pools.into_iter().map(|pool| (pool, None)).collect();
        Self::of(Registered::new(backend, pools), holder)
    }

    fn of(registered: Registered, holder: Holder) -> Self {
        Self(Arc::new(Inner { registered, holder, keeper: OnceLock::new() }))
    }

    /// Which backend decides.
    pub fn id(&self) -> &'static str {
        self.backend().id()
    }

    /// The name under which this manager's grants are recorded.
    pub fn holder(&self) -> &Holder {
        &self.0.holder
    }

    /// What has gone wrong so far with claims of this manager and of all others on its backend.
    pub fn counters(&self) -> Counters {
        self.backend().counters()
    }

    /// The view that one execution has of one plugin's resources.
    pub fn for_execution(&self, plugin: PluginId, execution: ExecutionId) -> TaskResourceManager {
        TaskResourceManager::new(self.clone(), plugin, execution)
    }

    /// Claims units for tokens of one execution, each all or nothing, in one round trip.
    ///
    /// The claims are decided one after the other; the answers stand in their order. An inner error
    /// is about its claim alone. If the backend lost all its data, the pool is registered again. A token that is being given
    /// back, because its guard or claim was dropped, is claimed when that is done, within the same time limit.
    ///
    /// # Errors
    ///
    /// [`UnknownNamespace`](crate::Error::UnknownNamespace) if the pool was not registered with this manager; inside,
    /// [`Conflict`](crate::Error::Conflict) if a token is held with other units or by another execution; else as
    /// [`ResourceManager::allocate_resource`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, any of the tokens may or may not be held.
    pub async fn allocate(
        &self,
        pool: &PoolName,
        execution: &ExecutionId,
        claims: &[Claim],
        constraints: ResourceConstraintsSpec,
    ) -> Result<Vec<Result<Outcome>>> {
        let Inner { registered, holder, .. } = &*self.0;
        registered.check(pool)?;
        if claims.is_empty() {
            return Ok(Vec::new());
        }
        let claimant = Claimant { execution, constraints, holder };
        let tokens = claims.iter().map(|claim| held(pool, execution, &claim.token));
        let claim = registered.allocate(pool, claimant, claims);
        let (asked, answers) = self.after_returns("allocate", tokens, claim).await?;
        for (claim, answer) in claims.iter().zip(&answers) {
            if let Ok(Outcome::Granted(grant)) = answer {
                self.keep(pool, execution, (claim, constraints), grant, asked);
            }
        }
        Ok(answers)
    }

    /// Claims units and keeps the claim's place by a ticket while they are not free: for engines that ask again from time to
    /// time, like Flyte's. The ticket is gone when its time to live is over before the claim is repeated.
    ///
    /// # Errors
    ///
    /// [`NeverGranted`](crate::Error::NeverGranted) if the units are more than the quota or a cap; else as [`allocate`](Self::allocate), where
    /// a [`Conflict`](crate::Error::Conflict) may also be with a ticket.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the token may be held, or wait. Repeat the claim, or release the token.
    pub async fn allocate_or_queue(
        &self,
        pool: &PoolName,
        execution: &ExecutionId,
        claim: &Claim,
        constraints: ResourceConstraintsSpec,
        ticket: &TicketRequest,
    ) -> Result<Turn> {
        let Inner { registered, holder, .. } = &*self.0;
        registered.check(pool)?;
        let claimant = Claimant { execution, constraints, holder };
        let tokens = std::iter::once(held(pool, execution, &claim.token));
        let wait = registered.wait(pool, claimant, claim, ticket);
        let (asked, turn) = self.after_returns("allocate_or_queue", tokens, wait).await?;
        if let Turn::Granted(grant) = &turn {
            self.keep(pool, execution, (claim, constraints), grant, asked);
        }
        Ok(turn)
    }

    /// Claims units of several pools in one step, all or nothing, without waiting.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](crate::Error::InvalidArgument) if a pool is named twice; else as [`allocate`](Self::allocate). Nothing is granted then.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, all of the tokens may be held, or none.
    pub async fn allocate_all(
        &self,
        execution: &ExecutionId,
        claims: &[Joint],
    ) -> Result<JointOutcome> {
        let Inner { registered, holder, .. } = &*self.0;
        claims.iter().try_for_each(|joint| registered.check(&joint.pool))?;
        let constraints = ResourceConstraintsSpec::NONE; // each claim brings its own
        let claimant = Claimant { execution, constraints, holder };
        let held = |Joint { pool, claim, .. }: &Joint| held(pool, execution, &claim.token);
        let claim = registered.allocate_all(claimant, claims);
        let (asked, outcome) =
            self.after_returns("allocate_all", claims.iter().map(held), claim).await?;
        if let JointOutcome::Granted(grants) = &outcome {
            for (Joint { pool, claim, constraints }, grant) in claims.iter().zip(grants) {
                self.keep(pool, execution, (claim, *constraints), grant, asked);
            }
        }
        Ok(outcome)
    }

    /// Claims units and waits for them, in the order of the pool.
    ///
    /// # Errors
    ///
    /// [`NeverGranted`](crate::Error::NeverGranted) if the units are more than the quota or a cap; retryable errors when the server could not be
    /// reached for longer than a ticket lasts (10 s); else as [`allocate`](Self::allocate). The claim does not wait any
    /// more then.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the ticket is withdrawn, and units that were handed over meanwhile go on to the next one.
    pub async fn acquire(
        &self,
        pool: &PoolName,
        execution: &ExecutionId,
        claim: Claim,
        constraints: ResourceConstraintsSpec,
        wait: Wait,
    ) -> Result<Acquired> {
        let joint = Joint { pool: pool.clone(), claim, constraints };
        self.keeper()?.acquire(self.request(execution, joint, wait)?).await
    }

    /// As [`acquire`](Self::acquire), under terms that may change while the claim waits.
    pub(crate) async fn acquire_under(
        &self,
        terms: watch::Receiver<Terms>,
        pool: &PoolName,
        execution: &ExecutionId,
        claim: Claim,
        wait: Wait,
    ) -> Result<Acquired> {
        let constraints = terms.borrow().constraints;
        let joint = Joint { pool: pool.clone(), claim, constraints };
        let request = self.request(execution, joint, wait)?;
        self.keeper()?.acquire(Request { changing: Some(terms), ..request }).await
    }

    /// Claims units without waiting for them, and answers with their guard.
    ///
    /// # Errors
    ///
    /// As [`allocate`](Self::allocate).
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, units that were granted are released.
    pub async fn try_acquire(
        &self,
        pool: &PoolName,
        execution: &ExecutionId,
        claim: Claim,
        constraints: ResourceConstraintsSpec,
    ) -> Result<Acquired> {
        let joint = Joint { pool: pool.clone(), claim, constraints };
        let request = self.request(execution, joint, Wait::forever())?;
        self.keeper()?.acquire(Request { patience: Patience::None, ..request }).await
    }

    /// Claims units of several pools, all or nothing, and waits for them.
    ///
    /// All are decided in one step if they are free. Else the claims wait in the order of the pools' names, each holding
    /// what it has got so far, so that two such claims cannot wait for each other.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](crate::Error::InvalidArgument) if a pool is named twice; else as [`acquire`](Self::acquire). Nothing is held then.
    ///
    /// # Cancel safety
    ///
    /// As [`acquire`](Self::acquire).
    pub async fn acquire_all(
        &self,
        execution: &ExecutionId,
        claims: Vec<Joint>,
        wait: Wait,
    ) -> Result<AcquiredAll> {
        Joint::check_distinct(&claims)?;
        let request = |joint| self.request(execution, joint, wait);
        let requests = claims.into_iter().map(request).collect::<Result<_>>()?;
        self.keeper()?.acquire_all(requests).await
    }

    /// Changes the weight of a project in a pool, where there are weights.
    pub(crate) async fn weigh(&self, pool: &PoolName, project: &str, weight: Weight) -> Result<()> {
        let registered = &self.0.registered;
        match registered.backend().keeps_grants() {
            true => {
                registered.change_queue(pool, &QueueChange::new().weight(project, weight)).await
            }
            false => Ok(()),
        }
    }

    /// Gives back what the tokens of one execution hold, or withdraws their tickets, in one round trip.
    ///
    /// # Errors
    ///
    /// [`UnknownNamespace`](crate::Error::UnknownNamespace) if the pool was not registered with this manager; else as
    /// [`ResourceManager::release_resource`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, any of the tokens may or may not be held; their leases are renewed no longer.
    pub async fn release(
        &self,
        pool: &PoolName,
        execution: &ExecutionId,
        tokens: &[AllocationToken],
    ) -> Result<Vec<Released>> {
        let registered = &self.0.registered;
        registered.check(pool)?;
        if tokens.is_empty() {
            return Ok(Vec::new());
        }
        if let Some(keeper) = self.0.keeper.get() {
            keeper.forget(tokens.iter().map(|token| held(pool, execution, token)));
        }
        registered.release(pool, execution, tokens).await
    }

    /// The locks of this manager's backend, kept alive by its keeper.
    pub fn locks(&self) -> Locks {
        Locks::of(self.clone())
    }

    pub(crate) async fn register(&self, pool: &PoolName, quota: Quota) -> Result<()> {
        self.0.registered.register(pool, quota).await
    }

    pub(crate) fn backend(&self) -> &Arc<dyn Backend> {
        self.0.registered.backend()
    }

    /// Makes a claim as soon as what was dropped before cannot give its tokens back any more; also answers when that was.
    async fn after_returns<T>(
        &self,
        operation: &'static str,
        tokens: impl Iterator<Item = Held>,
        claim: impl Future<Output = Result<T>>,
    ) -> Result<(Instant, T)> {
        let claim = async { Ok((Instant::now(), claim.await?)) };
        match self.0.keeper.get() {
            Some(keeper) => keeper.after_returns(operation, tokens, claim).await,
            None => claim.await,
        }
    }

    fn request(&self, execution: &ExecutionId, joint: Joint, wait: Wait) -> Result<Request> {
        self.0.registered.check(&joint.pool)?;
        Ok(Request {
            execution: execution.clone(),
            joint,
            priority: wait.priority(),
            changing: None,
            patience: Patience::Until(wait.deadline().map(Into::into)),
        })
    }

    fn keeper(&self) -> Result<&Keeper> {
        let Inner { registered, holder, keeper } = &*self.0;
        if let Some(keeper) = keeper.get() {
            return Ok(keeper);
        }
        let started = Keeper::start(registered.clone(), holder.clone())?;
        // Of two that were started at once the second ends here.
        Ok(keeper.get_or_init(|| started))
    }

    /// Has the lease renewed, if there is one, of what was granted to a call sent at `asked`.
    fn keep(
        &self,
        pool: &PoolName,
        execution: &ExecutionId,
        (Claim { token, units, lease, .. }, constraints): (&Claim, ResourceConstraintsSpec),
        grant: &Grant,
        asked: Instant,
    ) {
        let Some(lease) = lease.filter(|_| self.backend().keeps_grants()) else { return };
        let held = Held { number: grant.fencing_number, ..held(pool, execution, token) };
        match self.keeper() {
            Ok(keeper) => keeper.keep(held, lease, asked, (*units, constraints)),
            Err(error) => tracing::error!(%pool, %token, %error, "the lease cannot be renewed"),
        }
    }
}

fn held(pool: &PoolName, execution: &ExecutionId, token: &AllocationToken) -> Held {
    let (pool, execution) = (pool.clone(), execution.clone());
    Held { pool, execution, token: token.clone(), number: None }
}
