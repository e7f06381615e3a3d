//! The seam between deciding and keeping: what a place for grants must be able to do.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::claim::{Claim, Claimant, Joint};
use crate::counters::Counters;
use crate::error::Result;
use crate::execution::ExecutionId;
use crate::name::{AllocationToken, Member, PoolName};
use crate::outcome::{FencingNumber, JointOutcome, Outcome, Released};
use crate::pool::{
    CheckReport, Cursor, Deletion, HoldingsPage, PoolQuota, PoolUsage, QuotaChange, RepairReport,
    Revocation, RevocationRecord,
};
use crate::ticket::{Inbox, QueueChange, Renewal, Renewed, TicketRequest, TicketsPage, Turn};

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

    /// Whether a grant counts only once replicas have it: then what a notice tells is not enough to go ahead, and the
    /// claim is to be repeated.
    fn awaits_replicas(&self) -> bool;

    /// The longest that a claim takes until it is answered, if that is limited.
    fn time_limit(&self) -> Option<Duration>;

    /// What has gone wrong so far, together with what [`detached`](Self::detached) gave.
    fn counters(&self) -> Counters;

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

    /// Decides a claim that waits: grants it, or files a ticket for it, or tells where its ticket stands.
    ///
    /// Repeating the claim keeps the ticket's place, renews its time to live and takes over the caps that come with it. What
    /// was handed to the ticket meanwhile is held for the rest of that time; the repeated claim gives it the claim's own
    /// lease, or none.
    ///
    /// # Errors
    ///
    /// [`NeverGranted`](crate::Error::NeverGranted) if the units are more than the quota or a cap; a
    /// [`Conflict`](crate::Error::Conflict) if the token is held or waits with other units or of another execution; else as
    /// [`allocate`](Self::allocate).
    async fn wait(
        &self,
        pool: &PoolName,
        claimant: Claimant<'_>,
        claim: &Claim,
        ticket: &TicketRequest,
    ) -> Result<Turn>;

    /// Decides claims of one execution in several pools in one step: all are granted or none.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](crate::Error::InvalidArgument) if a pool is named twice; a
    /// [`Conflict`](crate::Error::Conflict) if one of the tokens is held otherwise; else as [`allocate`](Self::allocate).
    async fn allocate_all(&self, claimant: Claimant<'_>, claims: &[Joint]) -> Result<JointOutcome>;

    /// Renews leases and tickets, in one step. The answers stand in the order of the renewals, and an inner error is about
    /// its renewal alone. An empty list returns what is over and hands units on, as every call does.
    ///
    /// # Errors
    ///
    /// Inside, a [`Conflict`](crate::Error::Conflict) if another execution holds the token, and
    /// [`Foreign`](crate::Error::Foreign) if another writer put it into the pool; else as [`release`](Self::release).
    async fn renew(
        &self,
        pool: &PoolName,
        renewals: &[Renewal<'_>],
    ) -> Result<Vec<Result<Renewed>>>;

    /// Opens a channel through which tickets of this process are told that their turn came.
    ///
    /// # Errors
    ///
    /// What the server or the way to it reports.
    async fn listen(&self) -> Result<Inbox>;

    /// The same pools through connections of its own, which live on the calling runtime.
    ///
    /// # Errors
    ///
    /// What the server or the way to it reports.
    async fn detached(&self) -> Result<Arc<dyn Backend>>;

    /// Gives back tokens of one execution, or withdraws their tickets, in one step. The answers stand in the order of the
    /// tokens.
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

    /// Gives back one grant: what the token holds only if it is under this number. A later grant of the token stays, and so
    /// does its ticket.
    ///
    /// # Errors
    ///
    /// As [`release`](Self::release).
    async fn release_grant(
        &self,
        pool: &PoolName,
        execution: &ExecutionId,
        token: &AllocationToken,
        number: FencingNumber,
    ) -> Result<Released>;

    /// Takes away whatever a member holds, or its ticket, whoever claimed it, and writes down who did so and why.
    ///
    /// A holder with a lease learns of it when that is renewed. A caller that waits asks again, and stands at the end.
    ///
    /// # Errors
    ///
    /// As [`release`](Self::release).
    async fn revoke(
        &self,
        pool: &PoolName,
        member: &Member,
        revocation: &Revocation,
    ) -> Result<Released>;

    /// The latest revocations, at most `count`, the latest first. About the last thousand are kept.
    ///
    /// # Errors
    ///
    /// As [`release`](Self::release).
    async fn revocations(&self, pool: &PoolName, count: usize) -> Result<Vec<RevocationRecord>>;

    /// Changes the order of a pool's queue and the weights of projects.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](crate::Error::InvalidArgument) if no project can have such a name; else as
    /// [`release`](Self::release).
    async fn change_queue(&self, pool: &PoolName, change: &QueueChange) -> Result<()>;

    /// Lists who waits, by rank, about `count` tickets to a page. Tickets of the same rank may be on two pages.
    ///
    /// # Errors
    ///
    /// As [`release`](Self::release).
    async fn tickets(&self, pool: &PoolName, from: Cursor, count: usize) -> Result<TicketsPage>;

    /// Changes the quota of a pool. Lowering it takes nothing away: claims are refused until enough
    /// was released.
    ///
    /// # Errors
    ///
    /// [`PoolExists`](crate::Error::PoolExists) when creating a pool that exists,
    /// [`UnknownNamespace`](crate::Error::UnknownNamespace) when pinning or unpinning one that does
    /// not; else as [`allocate`](Self::allocate).
    async fn change_quota(&self, pool: &PoolName, change: QuotaChange) -> Result<PoolQuota>;

    /// Has a pool that learns who holds its units admit new claims from now on; answers how long it would have learned still.
    ///
    /// # Errors
    ///
    /// As [`release`](Self::release).
    async fn end_learning(&self, pool: &PoolName) -> Result<Duration>;

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
    /// their units returned; but what has a lease, or was lost with all other members, is put back. Then
    /// the counters are set to what the records add up to.
    ///
    /// # Errors
    ///
    /// As [`check`](Self::check).
    async fn repair(&self, pool: &PoolName) -> Result<RepairReport>;
}
