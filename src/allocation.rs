//! The guard of units that are held.

use tokio::sync::watch;

use crate::amount::Units;
use crate::error::Result;
use crate::execution::ExecutionId;
use crate::keeper::{Fate, Held, Id, Keeper};
use crate::name::{AllocationToken, PoolName};
use crate::outcome::{FencingNumber, Grant, Released};

/// Units that are held as long as this guard is. Its lease, if the claim has one, is renewed in the background.
///
/// # Dropping
///
/// Dropping the guard releases the units in the background, on a thread of the manager's own, whether or not the caller has
/// a runtime. If the process ends before that is done, or the server cannot be reached, the lease returns them; without
/// a lease they stay held until somebody releases the token. [`release`](Self::release) says when it is done. A guard that
/// [is lost](Self::is_lost) releases nothing when it is dropped, because its token may be held anew.
#[derive(Debug)]
#[must_use = "units are released when the guard is dropped"]
pub struct Allocation {
    /// None once released.
    keeper: Option<Keeper>,
    held: Held,
    grant: Grant,
    /// None where there is no lease.
    kept: Option<Kept>,
}

/// A lease that the keeper renews.
#[derive(Debug)]
pub(crate) struct Kept {
    /// What the keeper calls it.
    pub(crate) entry: Id,
    pub(crate) fate: watch::Receiver<Fate>,
}

impl Allocation {
    pub(crate) fn new(keeper: Keeper, held: Held, grant: Grant, kept: Option<Kept>) -> Self {
        Self { keeper: Some(keeper), held, grant, kept }
    }

    /// Gives the units back, and hands them on to whoever waits for them.
    ///
    /// # Errors
    ///
    /// What the server or the way to it reports. After an error that [is retryable](crate::Error::is_retryable) it is tried
    /// again in the background until the server answers or the token is claimed again.
    ///
    /// # Cancel safety
    ///
    /// The units are given back even if the future is dropped once it has been polled; before that, dropping it drops the
    /// guard.
    pub async fn release(mut self) -> Result<Released> {
        match self.keeper.take() {
            Some(keeper) => keeper.release(self.held(), self.entry()).await,
            None => Ok(Released::NotHeld),
        }
    }

    /// Ends when the lease is lost: it could not be renewed for its whole length, or somebody took the units away. Never
    /// ends without a lease.
    ///
    /// # Cancel safety
    ///
    /// It may be dropped and asked for again.
    pub fn lost(&self) -> impl Future<Output = ()> + Send + 'static {
        let fate = self.kept.as_ref().map(|kept| kept.fate.clone());
        async move {
            let Some(mut fate) = fate else { return std::future::pending().await };
            // The other end is gone when the lease was forgotten on purpose: released, not lost.
            if fate.wait_for(|fate| fate.lost).await.is_err() {
                std::future::pending().await
            }
        }
    }

    /// Whether the lease is known to be lost.
    pub fn is_lost(&self) -> bool {
        self.kept.as_ref().is_some_and(|kept| kept.fate.borrow().lost)
    }

    fn entry(&self) -> Option<Id> {
        self.kept.as_ref().map(|kept| kept.entry)
    }

    fn held(&self) -> Held {
        Held { number: self.fencing_number(), ..self.held.clone() }
    }

    /// The grant's number, larger than that of every earlier grant of the pool; none from `noop`.
    ///
    /// Send it along to what the units protect, so that it can refuse whoever comes with a smaller one. If the server lost its
    /// data and the lease was then renewed in time, this is a new grant with a larger number.
    pub fn fencing_number(&self) -> Option<FencingNumber> {
        self.kept.as_ref().map_or(self.grant.fencing_number, |kept| kept.fate.borrow().number)
    }

    /// Units held.
    pub fn units(&self) -> Units {
        self.grant.units
    }

    /// The token under which they are held.
    pub fn token(&self) -> &AllocationToken {
        &self.held.token
    }

    /// The execution that the token belongs to.
    pub fn execution(&self) -> &ExecutionId {
        &self.held.execution
    }

    /// The pool.
    pub fn pool(&self) -> &PoolName {
        &self.held.pool
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        // What is lost may be held again, by another claim of the same token.
        let lost = self.is_lost();
        if let Some(keeper) = self.keeper.take().filter(|_| !lost) {
            keeper.release_later(self.held(), self.entry());
        }
    }
}
