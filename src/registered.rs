//! The pools of a manager, brought back where the backend lost them.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::amount::Quota;
use crate::backend::Backend;
use crate::claim::{Claim, Claimant, Joint};
use crate::error::{Error, Result};
use crate::execution::ExecutionId;
use crate::name::{AllocationToken, PoolName};
use crate::outcome::{FencingNumber, JointOutcome, Outcome, Released};
use crate::pool::QuotaChange;
use crate::ticket::{QueueChange, TicketRequest, Turn};

/// A backend and the quotas of the pools that may be used there. A clone shares both.
#[derive(Clone, Debug)]
pub(crate) struct Registered {
    backend: Arc<dyn Backend>,
    quotas: Arc<RwLock<Quotas>>,
}

/// Grows with the locks that are used. None for a pool that somebody else registers.
type Quotas = BTreeMap<PoolName, Option<Quota>>;

impl Registered {
    pub(crate) fn new(backend: Arc<dyn Backend>, quotas: Quotas) -> Self {
        Self { backend, quotas: Arc::new(RwLock::new(quotas)) }
    }

    /// The same pools through connections of their own, which live on the calling runtime.
    pub(crate) async fn detached(&self) -> Result<Self> {
        Ok(Self { backend: self.backend.detached().await?, quotas: Arc::clone(&self.quotas) })
    }

    pub(crate) fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    /// Fails for a pool that may not be used.
    pub(crate) fn check(&self, pool: &PoolName) -> Result<()> {
        match self.entry(pool).is_some() || !self.backend.keeps_grants() {
            true => Ok(()),
            false => Err(Error::UnknownNamespace { pool: pool.clone() }),
        }
    }

    /// Registers one pool more.
    pub(crate) async fn register(&self, pool: &PoolName, quota: Quota) -> Result<()> {
        self.backend.change_quota(pool, QuotaChange::Register(quota)).await?;
        self.quotas
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(pool.clone(), Some(quota));
        Ok(())
    }

    pub(crate) async fn allocate(
        &self,
        pool: &PoolName,
        claimant: Claimant<'_>,
        claims: &[Claim],
    ) -> Result<Vec<Result<Outcome>>> {
        match self.backend.allocate(pool, claimant, claims).await {
            Err(error) => {
                Box::pin(self.revive(error)).await?;
                self.backend.allocate(pool, claimant, claims).await
            }
            answers => answers,
        }
    }

    pub(crate) async fn wait(
        &self,
        pool: &PoolName,
        claimant: Claimant<'_>,
        claim: &Claim,
        ticket: &TicketRequest,
    ) -> Result<Turn> {
        match self.backend.wait(pool, claimant, claim, ticket).await {
            Err(error) => {
                Box::pin(self.revive(error)).await?;
                self.backend.wait(pool, claimant, claim, ticket).await
            }
            turn => turn,
        }
    }

    pub(crate) async fn allocate_all(
        &self,
        claimant: Claimant<'_>,
        claims: &[Joint],
    ) -> Result<JointOutcome> {
        // One pool may be found lost after the other.
        for _ in claims {
            match self.backend.allocate_all(claimant, claims).await {
                Err(error) => Box::pin(self.revive(error)).await?,
                outcome => return outcome,
            }
        }
        self.backend.allocate_all(claimant, claims).await
    }

    pub(crate) async fn release(
        &self,
        pool: &PoolName,
        execution: &ExecutionId,
        tokens: &[AllocationToken],
    ) -> Result<Vec<Released>> {
        match self.backend.release(pool, execution, tokens).await {
            Err(error) => {
                Box::pin(self.revive(error)).await?;
                self.backend.release(pool, execution, tokens).await
            }
            released => released,
        }
    }

    pub(crate) async fn release_grant(
        &self,
        pool: &PoolName,
        execution: &ExecutionId,
        token: &AllocationToken,
        number: FencingNumber,
    ) -> Result<Released> {
        match self.backend.release_grant(pool, execution, token, number).await {
            Err(error) => {
                Box::pin(self.revive(error)).await?;
                self.backend.release_grant(pool, execution, token, number).await
            }
            released => released,
        }
    }

    pub(crate) async fn change_queue(&self, pool: &PoolName, change: &QueueChange) -> Result<()> {
        match self.backend.change_queue(pool, change).await {
            Err(error) => {
                Box::pin(self.revive(error)).await?;
                self.backend.change_queue(pool, change).await
            }
            changed => changed,
        }
    }

    /// Brings back a pool that the backend lost. Any other error stays one.
    async fn revive(&self, error: Error) -> Result<()> {
        let Error::UnknownNamespace { pool } = error else { return Err(error) };
        let Some(Some(quota)) = self.entry(&pool) else {
            return Err(Error::UnknownNamespace { pool });
        };
        tracing::warn!(%pool, %quota, "the backend did not know the pool; registering it again");
        self.backend.change_quota(&pool, QuotaChange::Restore(quota)).await.map(drop)
    }

    /// Tells the backend that it lost grants of a pool, if not the pool: somebody who did not know may have made it again.
    pub(crate) async fn restore(&self, pool: &PoolName) -> Result<()> {
        match self.entry(pool) {
            Some(Some(quota)) => {
                self.backend.change_quota(pool, QuotaChange::Restore(quota)).await.map(drop)
            }
            _ => Ok(()),
        }
    }

    fn entry(&self, pool: &PoolName) -> Option<Option<Quota>> {
        self.quotas.read().unwrap_or_else(PoisonError::into_inner).get(pool).copied()
    }
}
