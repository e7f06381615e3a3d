//! The pool that a replay runs on: found or made, and left as it was found.

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

use tokenpool::{
    Backend, BackendType, Config, Cursor, Deletion, Error as Library, Holder, Manager, Member,
    MemoryBackend, Order, PluginId, PoolName, QueueChange, Quota, QuotaChange, Registrar,
    ResourceNamespace, ResourceRegistrar,
};

use super::clock::LogClock;
use super::replica::retrying;
use crate::error::{Error, Result};

/// A replay needs no protection from a wrong number, and a log's machine may be large.
const MAX_QUOTA: u32 = u32::MAX;

const HOLDERS_PER_PAGE: usize = 1000;

/// The pool of a replay.
#[derive(Debug)]
pub(super) struct ReplayPool {
    pub(super) name: PoolName,
    pub(super) plugin: PluginId,
    pub(super) namespace: ResourceNamespace,
    /// Units that may be granted.
    pub(super) quota: u64,
    /// In which order tickets get their turn.
    pub(super) order: Order,
    /// By which tickets age.
    pub(super) clock: LogClock,
    /// What managers register: as before, where the pool is somebody's, even if another is pinned.
    registered: u64,
    made_here: bool,
    config: Config,
    backend: Arc<dyn Backend>,
}

/// The quota of `--quota`.
pub(super) fn quota(quota: i64) -> Result<Quota> {
    Quota::new(quota, MAX_QUOTA).map_err(|source| Error::Option { option: "--quota", source })
}

/// `replay:<name of the file>`, without endings and with `-` for what a pool's name may not have.
pub(super) fn default_name(file: &Path) -> Result<PoolName> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    let name = match name.strip_suffix(".swf").unwrap_or(name) {
        "" => "log",
        name => name,
    };
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let name = name.chars().take(100).map(|c| if allowed(c) { c } else { '-' });
    Ok(PoolName::new(format!("replay:{}", name.collect::<String>()))?)
}

impl ReplayPool {
    /// Finds the pool or makes it.
    ///
    /// `wanted` is the operator's quota and order, `of_log` the machine's size.
    pub(super) async fn open(
        config: Config,
        name: PoolName,
        wanted: (Option<Quota>, Option<Order>),
        of_log: Option<i64>,
    ) -> Result<Self> {
        let (backend, clock) = open(&config).await?;
        let (plugin, namespace) = parts(&name)?;
        let pool = Self {
            name,
            plugin,
            namespace,
            quota: 0,
            order: wanted.1.unwrap_or_default(),
            clock,
            registered: 0,
            made_here: false,
            config,
            backend,
        };
        // Another replay may make the pool at this moment: then it is found the second time.
        loop {
            match pool.find(wanted).await? {
                Some(Found { quota, registered, order }) => {
                    return Ok(Self { quota, registered, order, ..pool });
                }
                None => {
                    let quota = wanted_or(of_log, wanted.0)?;
                    let create =
                        || pool.backend.change_quota(&pool.name, QuotaChange::Create(quota));
                    match retrying(create).await {
                        Ok(_) => {
                            let quota = quota.get();
                            let made_here = true;
                            let pool = Self { quota, registered: quota, made_here, ..pool };
                            pool.set_order().await?;
                            return Ok(pool);
                        }
                        Err(Library::PoolExists { .. }) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
            }
        }
    }

    /// The pool as it is, if there is one.
    async fn find(&self, (quota, order): (Option<Quota>, Option<Order>)) -> Result<Option<Found>> {
        let usage = match retrying(|| self.backend.usage(&self.name)).await {
            Ok(usage) => usage,
            Err(Library::UnknownNamespace { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let exists = |option: &str, wanted: &dyn Display, with: &dyn Display| {
            Err(Error::Usage(format!(
                "{option} {wanted}: pool {} exists with {} {with}; leave {option} out to use it, or \
                 name another with --pool",
                self.name,
                option.trim_start_matches('-'),
            )))
        };
        match (quota, order) {
            (Some(wanted), _) if wanted.get() != usage.quota => {
                exists("--quota", &wanted, &usage.quota)
            }
            (_, Some(wanted)) if wanted != usage.order => exists("--order", &wanted, &usage.order),
            _ => {
                let (quota, registered, order) = (usage.quota, usage.registered, usage.order);
                Ok(Some(Found { quota, registered, order }))
            }
        }
    }

    /// Gives the new pool its order.
    async fn set_order(&self) -> Result<()> {
        let is_default = self.order == Order::default();
        if is_default || !self.backend.keeps_grants() {
            return Ok(());
        }
        let change = QueueChange::new().order(self.order);
        let changed = retrying(|| self.backend.change_queue(&self.name, &change)).await;
        if changed.is_err() {
            // The pool is of no use then; the first error is what counts.
            let _ = self.tidy_up().await;
        }
        Ok(changed?)
    }

    /// A replica's manager and its backend, on Redis with connections of its own.
    pub(super) async fn manager(&self, replica: u16) -> Result<(Manager, Arc<dyn Backend>)> {
        let backend = match self.config.backend_type {
            BackendType::Redis => self.config.open().await?,
            _ => Arc::clone(&self.backend),
        };
        let holder = Holder::new(format!("{}/replica-{replica}", Holder::of_this_process()))?;
        let registrar =
            Registrar::with_max_quota(Arc::clone(&backend), MAX_QUOTA).with_holder(holder);
        let quota = i64::try_from(self.registered).unwrap_or(i64::MAX);
        registrar
            .for_plugin(self.plugin.clone())
            .register_resource_quota(&self.namespace, quota)?;
        Ok((retrying(|| registrar.build()).await?, backend))
    }

    /// Units that a run's tokens hold, as the pool lists them.
    pub(super) async fn held_by(&self, run: &str) -> Result<u64> {
        let mut held = 0;
        let mut next = Some(Cursor::default());
        while let Some(from) = next {
            let page = || self.backend.holders(&self.name, from, HOLDERS_PER_PAGE);
            let page = match retrying(page).await {
                Ok(page) => page,
                // Deleted by another replay that made it, so nothing is held; or noop, which keeps
                // nothing.
                Err(Library::UnknownNamespace { .. }) => return Ok(0),
                Err(error) => return Err(error.into()),
            };
            for holding in page.holdings.iter().filter(|holding| is_of(run, &holding.member)) {
                held += holding.record.as_ref().map_or(1, |record| record.units.get());
            }
            next = page.next;
        }
        Ok(held)
    }

    /// Deletes the pool if this replay made it and nobody uses it, so that no litter is left.
    pub(super) async fn tidy_up(&self) -> Result<()> {
        if !self.made_here {
            return Ok(());
        }
        match retrying(|| self.backend.delete_pool(&self.name, Deletion::OnlyUnused)).await {
            Ok(_) | Err(Library::PoolInUse { .. } | Library::UnknownNamespace { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The backend as the configuration calls it.
    pub(super) fn backend_type(&self) -> BackendType {
        self.config.backend_type
    }
}

/// A pool that exists.
struct Found {
    quota: u64,
    registered: u64,
    order: Order,
}

/// The backend and its clock: in memory the log's.
async fn open(config: &Config) -> Result<(Arc<dyn Backend>, LogClock)> {
    if config.backend_type != BackendType::Memory {
        return Ok((config.open().await?, LogClock::OfServer));
    }
    let (clock, log_clock) = LogClock::of_log();
    Ok((Arc::new(MemoryBackend::with_clock(clock)), log_clock))
}

fn parts(name: &PoolName) -> Result<(PluginId, ResourceNamespace)> {
    let (plugin, namespace) = name.as_str().split_once(':').unwrap_or_default();
    Ok((PluginId::new(plugin)?, ResourceNamespace::new(namespace)?))
}

fn wanted_or(of_log: Option<i64>, wanted: Option<Quota>) -> Result<Quota> {
    match (wanted, of_log) {
        (Some(wanted), _) => Ok(wanted),
        (None, Some(of_log)) => Quota::new(of_log, MAX_QUOTA).map_err(|_| {
            Error::Usage(format!("the log's header gives {of_log} processors; give --quota N"))
        }),
        (None, None) => {
            let problem = "the log's header has no MaxProcs or MaxNodes; give --quota N";
            Err(Error::Usage(problem.to_owned()))
        }
    }
}

/// Whether a member is a token of the run: `ex:<project>:<domain>:<run>-<token>`.
fn is_of(run: &str, member: &Member) -> bool {
    let name = member.as_str().splitn(4, ':').nth(3);
    name.and_then(|name| name.strip_prefix(run)).is_some_and(|rest| rest.starts_with('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_are_named_after_the_file() {
        let name = |file: &str| default_name(Path::new(file)).map(|name| name.to_string());
        for (file, pool) in [
            ("data/NASA-iPSC-1993-3.1-cln.swf.gz", "replay:NASA-iPSC-1993-3.1-cln"),
            ("log", "replay:log"),
            ("/", "replay:log"),
            ("a b:{c}.swf", "replay:a-b--c-"),
        ] {
            assert_eq!(name(file).ok().as_deref(), Some(pool));
        }
        assert!(name(&"x".repeat(300)).is_ok());
    }

    #[test]
    fn members_of_other_runs_are_not_counted() -> Result<()> {
        for (member, of_run) in [
            ("ex:user-1:group-1:run-1-7", true),
            ("ex:user-1:group-1:run-12-7", false),
            ("ex:user-1:group-1:other-run-1-7", false),
        ] {
            assert_eq!(is_of("run-1", &Member::parse(member)?), of_run, "{member}");
        }
        Ok(())
    }
}
