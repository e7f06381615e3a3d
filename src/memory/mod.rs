//! The backend that keeps grants in this process, by the same rules as the one on Redis.

mod channels;
mod claims;
#[cfg(test)]
mod model;
mod now;
mod operate;
mod pool;
mod queue;
mod ranks;
mod scopes;
mod scored;
#[cfg(test)]
mod tests;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;

use self::channels::Channels;
use self::claims::Asked;
use self::now::Now;
use self::pool::Pool;
use crate::backend::Backend;
use crate::claim::{Claim, Claimant, Joint};
use crate::clock::{Clock, SystemClock};
use crate::counters::Counters;
use crate::error::{Error, Result};
use crate::execution::ExecutionId;
use crate::name::{AllocationToken, Member, PoolName};
use crate::outcome::{FencingNumber, JointOutcome, Outcome, Released};
use crate::pool::{
    CheckReport, Cursor, Deletion, HoldingsPage, PoolQuota, PoolUsage, QuotaChange, RepairReport,
    Revocation, RevocationRecord,
};
use crate::ticket::{Inbox, QueueChange, Renewal, Renewed, TicketRequest, TicketsPage, Turn};

/// Keeps pools in the memory of this process.
///
/// A clone shares the pools, and so it serves any number of managers; what it keeps ends with the last clone. Leases and
/// tickets end by its [`Clock`].
#[derive(Clone, Debug)]
pub struct MemoryBackend {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    clock: Arc<dyn Clock>,
    /// Sorted: names are compared faster than hashed.
    pools: RwLock<BTreeMap<PoolName, Mutex<Pool>>>,
    channels: Channels,
}

impl Default for MemoryBackend {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryBackend {
    /// A backend without pools, by the clock of this machine.
    pub fn new() -> Self {
        Self::with_clock(Arc::new(SystemClock))
    }

    /// A backend without pools, by this clock.
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        let (pools, channels) = (RwLock::default(), Channels::default());
        Self { inner: Arc::new(Inner { clock, pools, channels }) }
    }

    fn now(&self) -> Now {
        self.inner.clock.now().into()
    }

    fn locked<T>(&self, name: &PoolName, f: impl FnOnce(&mut Pool) -> T) -> Result<T> {
        let pools = self.inner.pools.read().unwrap_or_else(PoisonError::into_inner);
        let mut pool = lock(pools.get(name).ok_or_else(|| unknown(name))?);
        Ok(f(&mut pool))
    }

    /// Looks at a pool.
    fn read<T>(&self, name: &PoolName, look: impl FnOnce(&Pool, Now) -> T) -> Result<T> {
        self.locked(name, |pool| look(pool, self.now()))
    }

    /// Changes a pool, and then tells those who wait for it.
    fn change<T>(&self, name: &PoolName, f: impl FnOnce(&mut Pool, Now) -> T) -> Result<T> {
        self.locked(name, |pool| {
            // Read under the lock, so that the operations of a pool see times in their own order.
            let answer = f(pool, self.now());
            self.inner.channels.tell(pool.take_notices());
            answer
        })
    }
}

/// A pool is changed only after everything that can fail, so a panic elsewhere leaves it right.
fn lock(pool: &Mutex<Pool>) -> MutexGuard<'_, Pool> {
    pool.lock().unwrap_or_else(PoisonError::into_inner)
}

fn unknown(pool: &PoolName) -> Error {
    Error::UnknownNamespace { pool: pool.clone() }
}

/// Decides claims of several pools, each locked if it exists, all or nothing.
fn allocate_all(
    now: Now,
    claimant: Claimant<'_>,
    claims: &[Joint],
    pools: &mut HashMap<&PoolName, MutexGuard<'_, Pool>>,
) -> Result<JointOutcome> {
    let asked = |joint| asked_jointly(claimant, joint);
    for joint in claims {
        let pool = pools.get_mut(&joint.pool).ok_or_else(|| unknown(&joint.pool))?;
        if let Some(refusal) = pool.prepare(now, asked(joint))? {
            return Ok(JointOutcome::Refused { pool: joint.pool.clone(), refusal });
        }
    }
    let grants = claims.iter().map(|joint| {
        let pool = pools.get_mut(&joint.pool).ok_or_else(|| unknown(&joint.pool))?;
        pool.grant_prepared(now, asked(joint))
    });
    grants.collect::<Result<_>>().map(JointOutcome::Granted)
}

/// A claim of several pools as one of its own pool.
fn asked_jointly<'a>(claimant: Claimant<'a>, joint: &'a Joint) -> Asked<'a> {
    Asked { claimant: Claimant { constraints: joint.constraints, ..claimant }, claim: &joint.claim }
}

#[async_trait]
impl Backend for MemoryBackend {
    fn id(&self) -> &'static str {
        "memoryresourcemanager"
    }

    fn keeps_grants(&self) -> bool {
        true
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
        pool: &PoolName,
        claimant: Claimant<'_>,
        claims: &[Claim],
    ) -> Result<Vec<Result<Outcome>>> {
        match claims {
            [] => Ok(Vec::new()),
            [claim] => {
                self.change(pool, |pool, now| vec![pool.allocate(now, Asked { claimant, claim })])
            }
            claims => self.change(pool, |pool, now| pool.allocate_many(now, claimant, claims)),
        }
    }

    async fn wait(
        &self,
        pool: &PoolName,
        claimant: Claimant<'_>,
        claim: &Claim,
        ticket: &TicketRequest,
    ) -> Result<Turn> {
        self.change(pool, |pool, now| pool.wait(now, Asked { claimant, claim }, ticket))?
    }

    async fn allocate_all(&self, claimant: Claimant<'_>, claims: &[Joint]) -> Result<JointOutcome> {
        Joint::check_distinct(claims)?;
        let mut names: Vec<_> = claims.iter().map(|joint| &joint.pool).collect();
        names.sort_unstable();
        let pools = self.inner.pools.read().unwrap_or_else(PoisonError::into_inner);
        // In the order of their names, so that two calls cannot wait for each other.
        let mut locked: HashMap<_, _> =
            names.into_iter().filter_map(|name| Some((name, lock(pools.get(name)?)))).collect();
        let outcome = allocate_all(self.now(), claimant, claims, &mut locked);
        for pool in locked.values_mut() {
            self.inner.channels.tell(pool.take_notices());
        }
        outcome
    }

    async fn renew(
        &self,
        pool: &PoolName,
        renewals: &[Renewal<'_>],
    ) -> Result<Vec<Result<Renewed>>> {
        self.change(pool, |pool, now| pool.renew(now, renewals))
    }

    async fn listen(&self) -> Result<Inbox> {
        Ok(self.inner.channels.open())
    }

    async fn detached(&self) -> Result<Arc<dyn Backend>> {
        Ok(Arc::new(self.clone()))
    }

    async fn release(
        &self,
        pool: &PoolName,
        execution: &ExecutionId,
        tokens: &[AllocationToken],
    ) -> Result<Vec<Released>> {
        if tokens.is_empty() {
            return Ok(Vec::new());
        }
        self.locked(pool, |pool| {
            // Without a look at the clock.
            if pool.is_at_rest() {
                return pool.release_at_rest(execution, tokens);
            }
            let released = pool.release(self.now(), execution, tokens);
            self.inner.channels.tell(pool.take_notices());
            released
        })
    }

    async fn release_grant(
        &self,
        pool: &PoolName,
        execution: &ExecutionId,
        token: &AllocationToken,
        number: FencingNumber,
    ) -> Result<Released> {
        self.change(pool, |pool, now| pool.release_grant(now, execution, token, number))
    }

    async fn revoke(
        &self,
        pool: &PoolName,
        member: &Member,
        revocation: &Revocation,
    ) -> Result<Released> {
        self.change(pool, |pool, now| pool.revoke(now, member, revocation))
    }

    async fn revocations(&self, pool: &PoolName, count: usize) -> Result<Vec<RevocationRecord>> {
        self.read(pool, |pool, _| pool.revocations(count))
    }

    async fn change_queue(&self, pool: &PoolName, change: &QueueChange) -> Result<()> {
        change.check()?;
        self.change(pool, |pool, now| pool.change_queue(now, change))
    }

    async fn tickets(&self, pool: &PoolName, from: Cursor, count: usize) -> Result<TicketsPage> {
        self.read(pool, |pool, now| pool.tickets(now, from, count))
    }

    async fn change_quota(&self, name: &PoolName, change: QuotaChange) -> Result<PoolQuota> {
        let (QuotaChange::Register(quota)
        | QuotaChange::Restore(quota)
        | QuotaChange::Create(quota)) = change
        else {
            return self.change(name, |pool, now| pool.change_quota(now, change))?;
        };
        let mut pools = self.inner.pools.write().unwrap_or_else(PoisonError::into_inner);
        let now = self.now();
        match pools.entry(name.clone()) {
            Entry::Occupied(pool) => {
                let mut pool = lock(pool.get());
                let changed = pool.change_quota(now, change);
                self.inner.channels.tell(pool.take_notices());
                changed
            }
            Entry::Vacant(vacant) => {
                let quota = quota.get();
                vacant.insert(Mutex::new(Pool::new(name.clone(), now, quota)));
                Ok(PoolQuota::new(quota, quota, None, None))
            }
        }
    }

    async fn end_learning(&self, pool: &PoolName) -> Result<Duration> {
        // Nothing is lost without the process that knows it.
        self.read(pool, |_, _| Duration::ZERO)
    }

    async fn delete_pool(&self, name: &PoolName, deletion: Deletion) -> Result<u64> {
        let mut pools = self.inner.pools.write().unwrap_or_else(PoisonError::into_inner);
        let Entry::Occupied(entry) = pools.entry(name.clone()) else {
            return Err(unknown(name));
        };
        let units = lock(entry.get()).check_deletion(deletion)?;
        entry.remove();
        Ok(units)
    }

    async fn pools(&self) -> Result<Vec<PoolName>> {
        let pools = self.inner.pools.read().unwrap_or_else(PoisonError::into_inner);
        Ok(pools.keys().cloned().collect())
    }

    async fn usage(&self, pool: &PoolName) -> Result<PoolUsage> {
        self.read(pool, |pool, _| pool.usage())
    }

    async fn holders(&self, pool: &PoolName, from: Cursor, count: usize) -> Result<HoldingsPage> {
        self.read(pool, |pool, now| pool.holders(now, from, count))
    }

    async fn check(&self, pool: &PoolName) -> Result<CheckReport> {
        self.read(pool, |pool, _| pool.check())
    }

    async fn repair(&self, pool: &PoolName) -> Result<RepairReport> {
        // Only this module writes here, under one lock: there is nothing that could need it.
        self.read(pool, |_, _| RepairReport::default())
    }
}
