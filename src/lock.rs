//! Locks: a mutex is a pool of one unit; a read-write lock is one of which a writer claims all units.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::acquire::{Acquired, Wait};
use crate::allocation::Allocation;
use crate::amount::{Lease, Quota, ResourceConstraintsSpec, Units};
use crate::backend::Backend;
use crate::claim::Claim;
use crate::error::{Error, Result};
use crate::execution::ExecutionId;
use crate::manager::Manager;
use crate::name::{AllocationToken, Holder, PluginId, PoolName, ResourceNamespace};
use crate::outcome::{FencingNumber, Released};
use crate::pool::{Cursor, Revocation};

/// How long a lock outlives a process that died, unless set otherwise.
pub(crate) const LEASE: Duration = Duration::from_secs(30);
/// Most readers at once. Each write lock takes as many fencing numbers, and these must not outrun the clock's microseconds,
/// where a pool that was lost begins anew: a thousand write locks a second do not.
const READERS: u32 = 1_000;

/// First parts of the names of locks' pools.
const MUTEX: &str = "mutex";
const RW_LOCK: &str = "rwlock";

/// Whether a pool is a lock.
#[cfg(feature = "redis")]
pub(crate) fn is_lock(pool: &PoolName) -> bool {
    let plugin = pool.as_str().split(':').next();
    plugin.is_some_and(|plugin| [MUTEX, RW_LOCK].contains(&plugin))
}

/// Makes locks that all processes share that use the same backend.
///
/// # Example
///
/// ```
/// # use std::sync::Arc;
/// # use std::time::Duration;
/// # use tokenpool::{Locks, MemoryBackend};
/// # tokio_test::block_on(async {
/// let locks = Locks::new(Arc::new(MemoryBackend::new()));
/// let report = locks.mutex("nightly-report").await?;
/// let guard = report.lock().await?;
/// // Send guard.fencing_number() along to what the lock protects.
/// assert!(report.try_lock().await?.is_none());
/// assert!(report.lock_within(Duration::from_millis(10)).await?.is_none());
/// guard.unlock().await?;
/// # Ok::<(), tokenpool::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct Locks {
    manager: Manager,
    lease: Lease,
}

impl Locks {
    /// Locks of a backend.
    pub fn new(backend: Arc<dyn Backend>) -> Self {
        Self::of(Manager::new(backend, Default::default(), Holder::of_this_process()))
    }

    pub(crate) fn of(manager: Manager) -> Self {
        let lease = Lease::new(LEASE).unwrap_or(Lease::MAX);
        Self { manager, lease }
    }

    /// The same, where a lock is free again this long after its holder died. 30 s unless set.
    #[must_use]
    pub fn with_lease(self, lease: Lease) -> Self {
        Self { lease, ..self }
    }

    /// The mutex of this name: one part or several, joined by `:`.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] if the name cannot be one of a pool; else what the backend reports.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the mutex may or may not have been made. Nothing is locked.
    pub async fn mutex(&self, name: &str) -> Result<Mutex> {
        Lock::open(self, MUTEX, name, 1).await.map(Mutex)
    }

    /// The read-write lock of this name, which has nothing to do with a mutex of the same name.
    ///
    /// # Errors
    ///
    /// As [`mutex`](Self::mutex).
    ///
    /// # Cancel safety
    ///
    /// As [`mutex`](Self::mutex).
    pub async fn rw_lock(&self, name: &str) -> Result<RwLock> {
        Lock::open(self, RW_LOCK, name, READERS).await.map(RwLock)
    }
}

/// What both kinds of lock are.
#[derive(Clone, Debug)]
struct Lock {
    manager: Manager,
    pool: PoolName,
    owner: ExecutionId,
    lease: Lease,
}

impl Lock {
    async fn open(locks: &Locks, kind: &str, name: &str, units: u32) -> Result<Self> {
        let pool = PoolName::of(&PluginId::new(kind)?, &ResourceNamespace::new(name)?)?;
        let Locks { manager, lease } = locks.clone();
        manager.register(&pool, Quota::new(units.into(), units)?).await?;
        let owner = ExecutionId::new("tokenpool", kind, manager.holder().as_str())?;
        Ok(Self { manager, pool, owner, lease })
    }

    /// A claim that nobody else makes.
    fn claim(&self, units: u32) -> Result<Claim> {
        let token = AllocationToken::new(Uuid::new_v4().simple().to_string())?;
        Ok(Claim::new(token, Units::new(units.into())?).with_lease(self.lease))
    }

    async fn lock(&self, units: u32, wait: Wait) -> Result<Option<LockGuard>> {
        let claim = self.claim(units)?;
        let free = ResourceConstraintsSpec::NONE;
        let acquired = self.manager.acquire(&self.pool, &self.owner, claim, free, wait).await?;
        Ok(LockGuard::of(acquired))
    }

    async fn lock_for_ever(&self, units: u32) -> Result<LockGuard> {
        let guard = self.lock(units, Wait::forever()).await?;
        guard.ok_or_else(|| Error::Protocol {
            operation: "lock",
            reply: "time was up without a deadline".to_owned(),
        })
    }

    async fn try_lock(&self, units: u32) -> Result<Option<LockGuard>> {
        let (claim, free) = (self.claim(units)?, ResourceConstraintsSpec::NONE);
        self.manager.try_acquire(&self.pool, &self.owner, claim, free).await.map(LockGuard::of)
    }

    async fn force_unlock(&self, revocation: &Revocation) -> Result<u64> {
        let backend = self.manager.backend();
        let (mut members, mut from) = (BTreeSet::new(), Some(Cursor::default()));
        while let Some(cursor) = from {
            let page = backend.holders(&self.pool, cursor, 1000).await?;
            members.extend(page.holdings.into_iter().map(|holding| holding.member));
            from = page.next;
        }
        // Not before all are known: it goes on to others at once.
        let mut freed = 0;
        for member in members {
            let released = backend.revoke(&self.pool, &member, revocation).await?;
            freed += u64::from(matches!(released, Released::Units(_)));
        }
        Ok(freed)
    }
}

/// A lock that one has at a time. Waiting is in the order of asking.
#[derive(Clone, Debug)]
pub struct Mutex(Lock);

impl Mutex {
    /// Locks, and waits as long as it takes.
    ///
    /// # Errors
    ///
    /// As [`Manager::acquire`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the lock is not held, and who waits behind is served.
    pub async fn lock(&self) -> Result<LockGuard> {
        self.0.lock_for_ever(1).await
    }

    /// Locks if that can be done at once.
    ///
    /// # Errors
    ///
    /// As [`lock`](Self::lock).
    ///
    /// # Cancel safety
    ///
    /// As [`lock`](Self::lock).
    pub async fn try_lock(&self) -> Result<Option<LockGuard>> {
        self.0.try_lock(1).await
    }

    /// Locks, and waits at most this long.
    ///
    /// # Errors
    ///
    /// As [`lock`](Self::lock), and if the limit is zero.
    ///
    /// # Cancel safety
    ///
    /// As [`lock`](Self::lock).
    pub async fn lock_within(&self, limit: Duration) -> Result<Option<LockGuard>> {
        self.0.lock(1, Wait::within(limit)?).await
    }

    /// Takes the lock away from whoever holds it, who learns of it by [`LockGuard::lost`]; answers how many held it. Who did
    /// so and why is written down in the backend.
    ///
    /// # Errors
    ///
    /// What the backend reports.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the lock may or may not have been taken away.
    pub async fn force_unlock(&self, revocation: &Revocation) -> Result<u64> {
        self.0.force_unlock(revocation).await
    }

    /// The pool that is the lock.
    pub fn pool(&self) -> &PoolName {
        &self.0.pool
    }
}

/// A lock that up to 1000 readers have at a time, or one writer. Waiting is in the order of asking, so that readers who come later
/// do not keep a writer waiting.
#[derive(Clone, Debug)]
pub struct RwLock(Lock);

impl RwLock {
    /// Locks for reading, and waits as long as it takes.
    ///
    /// # Errors
    ///
    /// As [`Manager::acquire`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the lock is not held, and who waits behind is served.
    pub async fn read(&self) -> Result<LockGuard> {
        self.0.lock_for_ever(1).await
    }

    /// Locks for writing, and waits as long as it takes.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    ///
    /// # Cancel safety
    ///
    /// As [`read`](Self::read).
    pub async fn write(&self) -> Result<LockGuard> {
        self.0.lock_for_ever(READERS).await
    }

    /// Locks for reading if that can be done at once.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    ///
    /// # Cancel safety
    ///
    /// As [`read`](Self::read).
    pub async fn try_read(&self) -> Result<Option<LockGuard>> {
        self.0.try_lock(1).await
    }

    /// Locks for writing if that can be done at once.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    ///
    /// # Cancel safety
    ///
    /// As [`read`](Self::read).
    pub async fn try_write(&self) -> Result<Option<LockGuard>> {
        self.0.try_lock(READERS).await
    }

    /// Locks for reading, and waits at most this long.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read), and if the limit is zero.
    ///
    /// # Cancel safety
    ///
    /// As [`read`](Self::read).
    pub async fn read_within(&self, limit: Duration) -> Result<Option<LockGuard>> {
        self.0.lock(1, Wait::within(limit)?).await
    }

    /// Locks for writing, and waits at most this long.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read), and if the limit is zero.
    ///
    /// # Cancel safety
    ///
    /// As [`read`](Self::read).
    pub async fn write_within(&self, limit: Duration) -> Result<Option<LockGuard>> {
        self.0.lock(READERS, Wait::within(limit)?).await
    }

    /// Takes the lock away from all who hold it. As [`Mutex::force_unlock`].
    ///
    /// # Errors
    ///
    /// What the backend reports.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the lock may or may not have been taken away.
    pub async fn force_unlock(&self, revocation: &Revocation) -> Result<u64> {
        self.0.force_unlock(revocation).await
    }

    /// The pool that is the lock.
    pub fn pool(&self) -> &PoolName {
        &self.0.pool
    }
}

/// A lock that is held as long as this guard is; what [`Allocation`] says of dropping holds here, too.
#[derive(Debug)]
#[must_use = "the lock is released when the guard is dropped"]
pub struct LockGuard(Allocation);

impl LockGuard {
    fn of(acquired: Acquired) -> Option<Self> {
        acquired.granted().map(Self)
    }

    /// Unlocks, and hands the lock on to whoever waits for it.
    ///
    /// # Errors
    ///
    /// As [`Allocation::release`].
    ///
    /// # Cancel safety
    ///
    /// As [`Allocation::release`].
    pub async fn unlock(self) -> Result<()> {
        self.0.release().await.map(drop)
    }

    /// The grant's number, larger than that of whoever held the lock before; none from `noop`.
    pub fn fencing_number(&self) -> Option<FencingNumber> {
        self.0.fencing_number()
    }

    /// Ends when the lock is lost. As [`Allocation::lost`].
    ///
    /// # Cancel safety
    ///
    /// It may be dropped and asked for again.
    pub fn lost(&self) -> impl Future<Output = ()> + Send + 'static {
        self.0.lost()
    }

    /// Whether the lock is known to be lost.
    pub fn is_lost(&self) -> bool {
        self.0.is_lost()
    }
}
