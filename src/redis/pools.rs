//! The pools that a process uses, with what it found out about them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::combiner::Combiner;
use super::keys::PoolKeys;
use crate::name::PoolName;

/// Most pools that are remembered: locks may have ever new names. Beyond that all are made, and
/// what is known of them is found out, again.
const MOST: usize = 1000;

#[derive(Debug, Default)]
pub(super) struct Pools(Mutex<HashMap<PoolName, Arc<KnownPool>>>);

/// A pool whose keys are made once and not for every call.
#[derive(Debug)]
pub(super) struct KnownPool {
    pub(super) keys: PoolKeys,
    pub(super) combiner: Combiner,
    /// Whether the keys of grants were not enough once: who waits for units goes on to.
    all_wanted: AtomicBool,
}

impl Pools {
    /// What is known of a pool.
    pub(super) fn pool(&self, name: &PoolName) -> Arc<KnownPool> {
        let mut pools = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = pools.get(name) {
            return Arc::clone(pool);
        }
        if pools.len() >= MOST {
            pools.clear();
        }
        let pool = Arc::new(KnownPool::new(name));
        pools.insert(name.clone(), Arc::clone(&pool));
        pool
    }
}

impl KnownPool {
    fn new(name: &PoolName) -> Self {
        Self {
            keys: PoolKeys::new(name),
            combiner: Combiner::default(),
            all_wanted: AtomicBool::new(false),
        }
    }

    /// Notes that the keys of grants are not enough here: from now on each call is given all, so that none has to be made twice.
    pub(super) fn want_all_keys(&self) {
        self.all_wanted.store(true, Ordering::Relaxed);
    }

    /// Whether calls are to be given all keys.
    pub(super) fn wants_all_keys(&self) -> bool {
        self.all_wanted.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Result;

    #[test]
    fn a_pool_in_use_is_remembered_and_not_ever_more_of_them() -> Result<()> {
        let pools = Pools::default();
        let first = PoolName::new("plugin:first")?;
        let known = pools.pool(&first);
        assert!(Arc::ptr_eq(&known, &pools.pool(&first)));
        for number in 0..=MOST {
            let pool = PoolName::new(format!("plugin:pool-{number}"))?;
            assert_eq!(pools.pool(&pool).keys.pool, PoolKeys::new(&pool).pool);
        }
        assert!(pools.0.lock().unwrap_or_else(PoisonError::into_inner).len() <= MOST);
        Ok(())
    }
}
