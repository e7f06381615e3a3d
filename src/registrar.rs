//! Collecting quotas at start-up, until the manager is built.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::amount::Quota;
use crate::backend::Backend;
use crate::config::DEFAULT_MAX_QUOTA;
use crate::error::{Error, Result};
use crate::manager::Manager;
use crate::name::{Holder, PluginId, PoolName, ResourceNamespace};
use crate::pool::QuotaChange;

/// What a plugin registers its resources with: Flyte's `core.ResourceRegistrar`.
pub trait ResourceRegistrar: Debug + Send + Sync + 'static {
    /// Registers a resource with the most units that may be granted of it.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] if the quota is below 1 or above the configured
    /// `resourceMaxQuota`, [`Error::AlreadyRegistered`] if the namespace was registered before,
    /// [`Error::RegistrationClosed`] if the manager was built.
    fn register_resource_quota(&self, namespace: &ResourceNamespace, quota: i64) -> Result<()>;
}

/// Collects the quotas of all plugins and then builds the manager.
///
/// # Example
///
/// ```
/// use std::sync::Arc;
/// use tokenpool::{MemoryBackend, PluginId, Registrar, ResourceNamespace, ResourceRegistrar};
///
/// # tokio_test::block_on(async {
/// let registrar = Registrar::new(Arc::new(MemoryBackend::new()));
/// let hive = registrar.for_plugin(PluginId::new("hive")?);
/// hive.register_resource_quota(&ResourceNamespace::new("default")?, 100)?;
/// let manager = registrar.build().await?;
/// assert_eq!(manager.id(), "memoryresourcemanager");
/// # Ok::<(), tokenpool::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug)]
pub struct Registrar {
    backend: Arc<dyn Backend>,
    holder: Holder,
    quotas: Arc<Quotas>,
}

/// The table that the plugins' registrars share.
#[derive(Debug)]
struct Quotas {
    max: u32,
    /// Without a backend that keeps grants nothing is demanded of a quota, as in Flyte.
    demanding: bool,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    quotas: HashMap<PoolName, Quota>,
    frozen: bool,
}

impl Registrar {
    /// A registrar without quotas, for at most 1000 units a pool.
    pub fn new(backend: Arc<dyn Backend>) -> Self {
        Self::with_max_quota(backend, DEFAULT_MAX_QUOTA)
    }

    /// A registrar without quotas, for at most `max_quota` units a pool: the configured
    /// `resourceMaxQuota`.
    pub fn with_max_quota(backend: Arc<dyn Backend>, max_quota: u32) -> Self {
        let demanding = backend.keeps_grants();
        Self {
            backend,
            holder: Holder::of_this_process(),
            quotas: Arc::new(Quotas { max: max_quota, demanding, table: Mutex::default() }),
        }
    }

    /// The same registrar, for a manager whose grants are recorded under this name.
    #[must_use]
    pub fn with_holder(self, holder: Holder) -> Self {
        Self { holder, ..self }
    }

    /// The registrar of one plugin, which puts the plugin's id before its namespaces.
    pub fn for_plugin(&self, plugin: PluginId) -> PluginRegistrar {
        PluginRegistrar { plugin, quotas: Arc::clone(&self.quotas) }
    }

    /// Freezes the table, registers every quota with the backend, and gives the manager.
    ///
    /// Where an operator pinned another quota, that one stays in force and the log says so.
    ///
    /// # Errors
    ///
    /// What the backend reports. The table is open again then, and `build` may be repeated.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, some of the quotas may be registered and the table stays frozen.
    /// `build` may be repeated.
    pub async fn build(&self) -> Result<Manager> {
        let quotas = {
            let mut table = self.quotas.lock();
            table.frozen = true;
            table.quotas.clone()
        };
        for (pool, &quota) in &quotas {
            if let Err(error) = self.register(pool, quota).await {
                self.quotas.lock().frozen = false;
                return Err(error);
            }
        }
        Ok(Manager::new(Arc::clone(&self.backend), quotas, self.holder.clone()))
    }

    async fn register(&self, pool: &PoolName, quota: Quota) -> Result<()> {
        let answer = self.backend.change_quota(pool, QuotaChange::Register(quota)).await?;
        if let Some(pinned) = answer.pinned.filter(|&pinned| pinned != quota.get()) {
            tracing::warn!(%pool, %quota, pinned, "an operator pinned another quota; it stays");
        }
        match answer.registered_before {
            Some(before) if before != quota.get() => {
                tracing::warn!(%pool, %quota, before, "another quota was registered before");
            }
            _ => tracing::info!(%pool, %quota, "registered"),
        }
        Ok(())
    }
}

impl Quotas {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Registers the resources of one plugin.
#[derive(Clone, Debug)]
pub struct PluginRegistrar {
    plugin: PluginId,
    quotas: Arc<Quotas>,
}

impl ResourceRegistrar for PluginRegistrar {
    fn register_resource_quota(&self, namespace: &ResourceNamespace, quota: i64) -> Result<()> {
        let pool = PoolName::of(&self.plugin, namespace)?;
        if !self.quotas.demanding {
            return Ok(());
        }
        let quota = Quota::new(quota, self.quotas.max)?;
        let mut table = self.quotas.lock();
        if table.frozen {
            return Err(Error::RegistrationClosed { pool });
        }
        if table.quotas.contains_key(&pool) {
            return Err(Error::AlreadyRegistered { pool });
        }
        table.quotas.insert(pool, quota);
        Ok(())
    }
}
