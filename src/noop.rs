//! The backend that grants everything and keeps nothing, Flyte's default.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::backend::Backend;
use crate::claim::{Claim, Claimant, Joint};
use crate::counters::Counters;
use crate::error::{Error, Result};
use crate::execution::ExecutionId;
use crate::name::{AllocationToken, Member, PoolName};
use crate::outcome::{FencingNumber, Grant, JointOutcome, Outcome, Released};
use crate::pool::{
    CheckReport, Cursor, Deletion, HoldingsPage, PoolQuota, PoolUsage, QuotaChange, RepairReport,
    Revocation, RevocationRecord,
};
use crate::ticket::{
    Channel, Inbox, QueueChange, Renewal, Renewed, TicketRequest, TicketsPage, Turn,
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

fn granted(claim: &Claim) -> Grant {
    Grant::new(claim.units, None, false)
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

    fn awaits_replicas(&self) -> bool {
        false
    }

    fn time_limit(&self) -> Option<Duration> {
        None
    }

    fn counters(&self) -> Counters {
        Counters::default()
    }

    async fn allocate(
        &self,
        _: &PoolName,
        _: Claimant<'_>,
        claims: &[Claim],
    ) -> Result<Vec<Result<Outcome>>> {
        Ok(claims.iter().map(|claim| Ok(Outcome::Granted(granted(claim)))).collect())
    }

    async fn wait(
        &self,
        _: &PoolName,
        _: Claimant<'_>,
        claim: &Claim,
        _: &TicketRequest,
    ) -> Result<Turn> {
        Ok(Turn::Granted(granted(claim)))
    }

    async fn allocate_all(&self, _: Claimant<'_>, claims: &[Joint]) -> Result<JointOutcome> {
        Ok(JointOutcome::Granted(claims.iter().map(|joint| granted(&joint.claim)).collect()))
    }

    async fn renew(&self, _: &PoolName, renewals: &[Renewal<'_>]) -> Result<Vec<Result<Renewed>>> {
        Ok(renewals.iter().map(|_| Ok(Renewed::Held(None))).collect())
    }

    async fn listen(&self) -> Result<Inbox> {
        let (_, notices) = mpsc::unbounded_channel();
        Ok(Inbox { channel: Channel::new("none".to_owned()), notices })
    }

    async fn detached(&self) -> Result<Arc<dyn Backend>> {
        Ok(Arc::new(*self))
    }

    async fn release(
        &self,
        _: &PoolName,
        _: &ExecutionId,
        tokens: &[AllocationToken],
    ) -> Result<Vec<Released>> {
        Ok(vec![Released::NotHeld; tokens.len()])
    }

    async fn release_grant(
        &self,
        _: &PoolName,
        _: &ExecutionId,
        _: &AllocationToken,
        _: FencingNumber,
    ) -> Result<Released> {
        Ok(Released::NotHeld)
    }

    async fn revoke(&self, _: &PoolName, _: &Member, _: &Revocation) -> Result<Released> {
        Ok(Released::NotHeld)
    }

    async fn revocations(&self, pool: &PoolName, _: usize) -> Result<Vec<RevocationRecord>> {
        unknown(pool)
    }

    async fn change_queue(&self, pool: &PoolName, _: &QueueChange) -> Result<()> {
        unknown(pool)
    }

    async fn tickets(&self, pool: &PoolName, _: Cursor, _: usize) -> Result<TicketsPage> {
        unknown(pool)
    }

    async fn change_quota(&self, pool: &PoolName, change: QuotaChange) -> Result<PoolQuota> {
        match change {
            QuotaChange::Register(quota)
            | QuotaChange::Restore(quota)
            | QuotaChange::Create(quota) => {
                Ok(PoolQuota::new(quota.get(), quota.get(), None, None))
            }
            QuotaChange::Pin(_) | QuotaChange::Unpin => unknown(pool),
        }
    }

    async fn end_learning(&self, pool: &PoolName) -> Result<Duration> {
        unknown(pool)
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
