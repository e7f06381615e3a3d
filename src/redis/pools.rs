//! The pools that a process uses, so that their keys are made once and not for every call.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::keys::PoolKeys;
use crate::name::PoolName;

/// Most pools that are remembered: locks may have ever new names. Beyond that all are made, and
/// what is known of them is found out, again.
const MOST: usize = 1000;

#[derive(Debug, Default)]
pub(super) struct Pools(Mutex<HashMap<PoolName, Arc<PoolKeys>>>);

impl Pools {
    /// The keys of a pool.
    pub(super) fn keys(&self, name: &PoolName) -> Arc<PoolKeys> {
        let mut pools = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(keys) = pools.get(name) {
            return Arc::clone(keys);
        }
        if pools.len() >= MOST {
            pools.clear();
        }
        let keys = Arc::new(PoolKeys::new(name));
        pools.insert(name.clone(), Arc::clone(&keys));
        keys
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
        let keys = pools.keys(&first);
        assert!(Arc::ptr_eq(&keys, &pools.keys(&first)));
        for number in 0..=MOST {
            let pool = PoolName::new(format!("plugin:pool-{number}"))?;
            assert_eq!(pools.keys(&pool).pool, PoolKeys::new(&pool).pool);
        }
        assert!(pools.0.lock().unwrap_or_else(PoisonError::into_inner).len() <= MOST);
        Ok(())
    }
}
