//! The manager of a process: decides claims for the pools it registered.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;

use crate::backend::Backend;
use crate::claim::{
    AllocationStatus, Claim, Claimant, Outcome, Quota, Released, ResourceConstraintsSpec,
};
use crate::error::{Error, Result};
use crate::execution::ExecutionId;
use crate::name::{AllocationToken, Holder, PluginId, PoolName, ResourceNamespace};
use crate::pool::QuotaChange;
use crate::proxy::TaskResourceManager;

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
    /// unknown, which [`Error::is_retryable`] tells apart. After a retryable error the token may be
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

/// Decides the claims of one process. Made by [`Registrar::build`](crate::Registrar::build); a clone
/// is a handle to the same manager.
#[derive(Clone, Debug)]
pub struct Manager(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    backend: Arc<dyn Backend>,
    quotas: HashMap<PoolName, Quota>,
    holder: Holder,
}

impl Manager {
    pub(crate) fn new(
        backend: Arc<dyn Backend>,
        quotas: HashMap<PoolName, Quota>,
        holder: Holder,
    ) -> Self {
        Self(Arc::new(Inner { backend, quotas, holder }))
    }

    /// Which backend decides.
    pub fn id(&self) -> &'static str {
        self.0.backend.id()
    }

    /// The name under which this manager's grants are recorded.
    pub fn holder(&self) -> &Holder {
        &self.0.holder
    }

    /// The view that one execution has of one plugin's resources.
    pub fn for_execution(&self, plugin: PluginId, execution: ExecutionId) -> TaskResourceManager {
        TaskResourceManager::new(self.clone(), plugin, execution)
    }

    /// Claims units for tokens of one execution, each all or nothing, in one round trip.
    ///
    /// The claims are decided one after the other; the answers stand in their order. An inner error
    /// is about its claim alone. If the backend lost all its data, the pool is registered again.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownNamespace`] if the pool was not registered with this manager; inside,
    /// [`Error::Conflict`] if a token is held with other units or by another execution; else as
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
        let Inner { backend, holder, .. } = &*self.0;
        self.check_registered(pool)?;
        if claims.is_empty() {
            return Ok(Vec::new());
        }
        let claimant = Claimant { execution, constraints, holder };
        match backend.allocate(pool, claimant, claims).await {
            Err(Error::UnknownNamespace { .. }) => {
                self.register_again(pool).await?;
                backend.allocate(pool, claimant, claims).await
            }
            answer => answer,
        }
    }

    /// Gives back what the tokens of one execution hold, in one round trip.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownNamespace`] if the pool was not registered with this manager; else as
    /// [`ResourceManager::release_resource`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, any of the tokens may or may not be held.
    pub async fn release(
        &self,
        pool: &PoolName,
        execution: &ExecutionId,
        tokens: &[AllocationToken],
    ) -> Result<Vec<Released>> {
        let backend = &self.0.backend;
        self.check_registered(pool)?;
        if tokens.is_empty() {
            return Ok(Vec::new());
        }
        match backend.release(pool, execution, tokens).await {
            Err(Error::UnknownNamespace { .. }) => {
                self.register_again(pool).await?;
                backend.release(pool, execution, tokens).await
            }
            answer => answer,
        }
    }

    fn check_registered(&self, pool: &PoolName) -> Result<()> {
        match self.0.quotas.contains_key(pool) || !self.0.backend.keeps_grants() {
            true => Ok(()),
            false => Err(Error::UnknownNamespace { pool: pool.clone() }),
        }
    }

    /// Brings back a pool that the backend lost.
    async fn register_again(&self, pool: &PoolName) -> Result<()> {
        let unknown = || Error::UnknownNamespace { pool: pool.clone() };
        let quota = *self.0.quotas.get(pool).ok_or_else(unknown)?;
        tracing::warn!(%pool, %quota, "the backend did not know the pool; registering it again");
        self.0.backend.change_quota(pool, QuotaChange::Register(quota)).await.map(drop)
    }
}
