//! The backend that grants everything and keeps nothing, Flyte's default.

use async_trait::async_trait;

use crate::backend::Backend;
use crate::claim::{Claim, Claimant, Grant, Outcome, Released};
use crate::error::{Error, Result};
use crate::execution::ExecutionId;
use crate::name::{AllocationToken, Member, PoolName};
use crate::pool::{
    CheckReport, Cursor, Deletion, HoldingsPage, PoolQuota, PoolUsage, QuotaChange, RepairReport,
};

/// Grants every claim and keeps nothing: no quotas, no caps, no fencing numbers.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct NoopBackend;

impl NoopBackend {
    /// The backend.
    pub const fn new() -> Self {
        Self
    }
}

fn unknown<T>(pool: &PoolName) -> Result<T> {
    Err(Error::UnknownNamespace { pool: pool.clone() })
}

#[async_trait]
impl Backend for NoopBackend {
    fn id(&self) -> &'static str {
        "noopresourcemanager"
    }

    fn keeps_grants(&self) -> bool {
        false
    }

    async fn allocate(
        &self,
        _: &PoolName,
        _: Claimant<'_>,
        claims: &[Claim],
    ) -> Result<Vec<Result<Outcome>>> {
        let grant = |claim: &Claim| Ok(Outcome::Granted(Grant::new(claim.units, None, false)));
        Ok(claims.iter().map(grant).collect())
    }

    async fn release(
        &self,
        _: &PoolName,
        _: &ExecutionId,
        tokens: &[AllocationToken],
    ) -> Result<Vec<Released>> {
        Ok(vec![Released::NotHeld; tokens.len()])
    }

    async fn release_member(&self, _: &PoolName, _: &Member) -> Result<Released> {
        Ok(Released::NotHeld)
    }

    async fn change_quota(&self, pool: &PoolName, change: QuotaChange) -> Result<PoolQuota> {
        match change {
            QuotaChange::Register(quota) | QuotaChange::Create(quota) => {
                Ok(PoolQuota::new(quota.get(), quota.get(), None, None))
            }
            QuotaChange::Pin(_) | QuotaChange::Unpin => unknown(pool),
        }
    }

    async fn delete_pool(&self, pool: &PoolName, _: Deletion) -> Result<u64> {
        unknown(pool)
    }

    async fn pools(&self) -> Result<Vec<PoolName>> {
        Ok(Vec::new())
    }

    async fn usage(&self, pool: &PoolName) -> Result<PoolUsage> {
        unknown(pool)
    }

    async fn holders(&self, pool: &PoolName, _: Cursor, _: usize) -> Result<HoldingsPage> {
        unknown(pool)
    }

    async fn check(&self, pool: &PoolName) -> Result<CheckReport> {
        unknown(pool)
    }

    async fn repair(&self, pool: &PoolName) -> Result<RepairReport> {
        unknown(pool)
    }
}
