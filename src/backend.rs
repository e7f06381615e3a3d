//! The seam between deciding and keeping: what a place for grants must be able to do.

use std::fmt::Debug;

use async_trait::async_trait;

use crate::claim::{Claim, Claimant, Outcome, Released};
use crate::error::Result;
use crate::execution::ExecutionId;
use crate::name::{AllocationToken, Member, PoolName};
use crate::pool::{
    CheckReport, Cursor, Deletion, HoldingsPage, PoolQuota, PoolUsage, QuotaChange, RepairReport,
};

/// Where grants are kept and claims are decided, each in one atomic step.
///
/// Plugins use a [`TaskResourceManager`](crate::TaskResourceManager), engines a
/// [`Manager`](crate::Manager); a backend itself is for those who open it and for operators, who may
/// address any pool it knows.
///
/// # Contract
///
/// Every method may be repeated after an error: the claims are idempotent by token, and so are
/// releases. After an `Err` that [is retryable](crate::Error::is_retryable) the call may or may not
/// have taken effect; after any other nothing was changed.
///
/// # Cancel safety
///
/// A dropped future may or may not have taken effect, as after a retryable error. Repeat the call,
/// or release the tokens.
///
/// # Minimal default implementations
///
/// There are none, so that the compiler shows every backend what it lacks.
#[async_trait]
pub trait Backend: Debug + Send + Sync + 'static {
    /// Which backend this is, the first part of its pools' keys: `redisresourcemanager`,
    /// `memoryresourcemanager` or `noopresourcemanager`.
    fn id(&self) -> &'static str;

    /// Whether grants are kept at all. Where they are not, every claim is granted, and no pool needs
    /// to be registered.
    fn keeps_grants(&self) -> bool;

    /// Decides the claims of one execution in one pool, one after the other, in one step.
    ///
    /// The answers stand in the order of the claims. An inner error is about its claim alone. An empty
    /// list is answered without a look at the pool.
    ///
    /// # Errors
    ///
    /// [`UnknownNamespace`](crate::Error::UnknownNamespace) if the pool does not exist; inside, a
    /// [`Conflict`](crate::Error::Conflict) if the token is held with other units or by another
    /// execution; else what the server or the way to it reports.
    async fn allocate(
        &self,
        pool: &PoolName,
        claimant: Claimant<'_>,
        claims: &[Claim],
    ) -> Result<Vec<Result<Outcome>>>;

    /// Gives back tokens of one execution, in one step. The answers stand in the order of the tokens.
    ///
    /// # Errors
    ///
    /// As [`allocate`](Self::allocate), without conflicts.
    async fn release(
        &self,
        pool: &PoolName,
        execution: &ExecutionId,
        tokens: &[AllocationToken],
    ) -> Result<Vec<Released>>;

    /// Gives back whatever a member holds, whoever claimed it.
    ///
    /// # Errors
    ///
    /// As [`release`](Self::release).
    async fn release_member(&self, pool: &PoolName, member: &Member) -> Result<Released>;

    /// Changes the quota of a pool. Lowering it takes nothing away: claims are refused until enough
    /// was released.
    ///
    /// # Errors
    ///
    /// [`PoolExists`](crate::Error::PoolExists) when creating a pool that exists,
    /// [`UnknownNamespace`](crate::Error::UnknownNamespace) when pinning or unpinning one that does
    /// not; else as [`allocate`](Self::allocate).
    async fn change_quota(&self, pool: &PoolName, change: QuotaChange) -> Result<PoolQuota>;

    /// Deletes a pool and answers how many units were in use.
    ///
    /// A manager that has registered it makes it again with its next claim.
    ///
    /// # Errors
    ///
    /// [`PoolInUse`](crate::Error::PoolInUse) unless unused or forced; else as
    /// [`allocate`](Self::allocate).
    async fn delete_pool(&self, pool: &PoolName, deletion: Deletion) -> Result<u64>;

    /// The registered pools, in order.
    ///
    /// # Errors
    ///
    /// What the server or the way to it reports.
    async fn pools(&self) -> Result<Vec<PoolName>>;

    /// What is in use of a pool.
    ///
    /// # Errors
    ///
    /// As [`allocate`](Self::allocate), without conflicts.
    async fn usage(&self, pool: &PoolName) -> Result<PoolUsage>;

    /// Lists who holds units, about `count` holders to a page.
    ///
    /// A member held throughout the listing is on at least one page.
    ///
    /// # Errors
    ///
    /// As [`allocate`](Self::allocate), without conflicts.
    async fn holders(&self, pool: &PoolName, from: Cursor, count: usize) -> Result<HoldingsPage>;

    /// Proves that counters, records and members of a pool agree, or says where they do not.
    ///
    /// # Errors
    ///
    /// [`Busy`](crate::Error::Busy) if a large pool changed during every attempt to read it whole;
    /// else as [`allocate`](Self::allocate), without conflicts.
    async fn check(&self, pool: &PoolName) -> Result<CheckReport>;

    /// Makes counters, records and members of a pool agree, while it is in use.
    ///
    /// Members that another writer put into the pool are adopted with one unit each, whatever the
    /// quota says: they are in use. Records of members that another writer removed are dropped and
    /// their units returned. Then the counters are set to what the records add up to.
    ///
    /// # Errors
    ///
    /// As [`check`](Self::check).
    async fn repair(&self, pool: &PoolName) -> Result<RepairReport>;
}
