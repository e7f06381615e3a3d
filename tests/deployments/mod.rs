//! Servers as they are really run: behind sentinels, in clusters, over TLS, with users.

mod acl;
mod address;
mod cluster;
mod loss;
mod partitions;
mod secrets;
mod sentinels;
mod tls;
mod untrusted;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokenpool::{
    Backend, Config, ExecutionId, Manager, Outcome, PluginId, PoolName, Registrar,
    ResourceNamespace, ResourceRegistrar, Result, TaskResourceManager,
};

use crate::support::{FREE, token, until};

/// Names of servers as they stand in a configuration.
fn list(addresses: &[String]) -> String {
    format!("[{}]", addresses.iter().map(|at| format!("\"{at}\"")).collect::<Vec<_>>().join(", "))
}

/// A configuration with time-outs that a test can wait for, without a learning period unless it is given.
fn configuration(keys: &str) -> Config {
    let text = format!(
        "type: redis\nredis: {{connectTimeout: 2s, commandTimeout: 500ms, totalTimeout: 5s, {keys}}}"
    );
    let mut config = Config::from_yaml(&text).unwrap();
    if !keys.contains("learningPeriod") {
        config.redis.learning_period = Duration::ZERO;
    }
    config
}

async fn open(keys: &str) -> Arc<dyn Backend> {
    configuration(keys).open().await.unwrap()
}

const QUOTA: i64 = 3;

/// What uses a pool `hive:<name>` of three units.
struct User {
    manager: Manager,
    backend: Arc<dyn Backend>,
    namespace: ResourceNamespace,
}

impl User {
    async fn new(keys: &str, name: &str) -> Self {
        Self::with(&configuration(keys), name).await
    }

    async fn with(config: &Config, name: &str) -> Self {
        let backend = config.open().await.unwrap();
        let registrar = Registrar::new(Arc::clone(&backend));
        let namespace = ResourceNamespace::new(name).unwrap();
        let plugin = registrar.for_plugin(PluginId::new("hive").unwrap());
        plugin.register_resource_quota(&namespace, QUOTA).unwrap();
        Self { manager: registrar.build().await.unwrap(), backend, namespace }
    }

    fn task(&self) -> TaskResourceManager {
        let execution = ExecutionId::new("p", "d", "e").unwrap();
        self.manager.for_execution(PluginId::new("hive").unwrap(), execution)
    }

    fn pool(&self) -> PoolName {
        PoolName::new(format!("hive:{}", self.namespace.as_str())).unwrap()
    }

    /// The key of the pool's members.
    fn key(&self) -> String {
        format!("redisresourcemanager:{}", self.pool())
    }

    async fn release(&self, name: &str) {
        until("a release is answered", async || {
            self.task().release_many(&self.namespace, &[token(name)]).await.ok()
        })
        .await;
    }

    async fn in_use(&self) -> i64 {
        let usage = self.backend.usage(&self.pool()).await.unwrap();
        i64::try_from(usage.in_use).unwrap()
    }

    async fn claim(&self, name: &str) -> Result<Outcome> {
        self.task().allocate(&self.namespace, token(name), FREE).await
    }

    /// The answer of a claim that is repeated until somebody answers, and how long that took.
    async fn claimed(&self, name: &str) -> (Outcome, Duration) {
        let start = Instant::now();
        let outcome = until("a claim is answered", async || match self.claim(name).await {
            Ok(outcome) => Some(outcome),
            Err(error) => {
                assert!(error.is_retryable(), "{error}");
                None
            }
        });
        (outcome.await, start.elapsed())
    }
}
