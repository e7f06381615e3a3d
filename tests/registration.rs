//! Registration, building and the manager's table: rules that no Go test covers.

use std::sync::Arc;

use tokenpool::{
    AllocationStatus, Backend, Error, ExecutionId, Holder, MemoryBackend, NoopBackend, PluginId,
    PluginRegistrar, QuotaChange, Registrar, ResourceManager, ResourceNamespace, ResourceRegistrar,
};

use crate::support::{FREE, connect, quota, redis, server::Server, token};

fn plugin(registrar: &Registrar) -> PluginRegistrar {
    registrar.for_plugin(PluginId::new("hive").unwrap())
}

fn namespace(name: &str) -> ResourceNamespace {
    ResourceNamespace::new(name).unwrap()
}

fn memory() -> Arc<MemoryBackend> {
    Arc::new(MemoryBackend::new())
}

#[test]
fn a_quota_is_between_one_and_the_configured_maximum() {
    let registrar = Registrar::new(memory());
    let hive = plugin(&registrar);
    for (units, ok) in [(-1, false), (0, false), (1, true), (1000, true), (1001, false)] {
        let answer = hive.register_resource_quota(&namespace(&format!("n{}", units + 1)), units);
        assert_eq!(answer.is_ok(), ok, "{units}");
        if let Err(error) = answer {
            let rule = "must be between 1 and resourceMaxQuota, which is 1000";
            assert_eq!(error.to_string(), format!("invalid quota \"{units}\": {rule}"));
        }
    }
}

#[test]
fn a_namespace_is_registered_once() {
    let registrar = Registrar::new(memory());
    plugin(&registrar).register_resource_quota(&namespace("default"), 1).unwrap();
    let error = plugin(&registrar).register_resource_quota(&namespace("default"), 1).unwrap_err();
    assert_eq!(error.to_string(), "resource namespace hive:default is registered already");
    let presto = registrar.for_plugin(PluginId::new("presto").unwrap());
    presto.register_resource_quota(&namespace("default"), 1).unwrap();
}

#[tokio::test]
async fn building_freezes_the_table() {
    let registrar = Registrar::new(memory());
    let hive = plugin(&registrar);
    registrar.build().await.unwrap();
    let error = hive.register_resource_quota(&namespace("default"), 1).unwrap_err();
    assert!(matches!(error, Error::RegistrationClosed { .. }), "{error}");
}

#[tokio::test]
async fn a_manager_without_registrations_knows_no_pool() {
    let backend = memory();
    let manager = Registrar::new(Arc::clone(&backend) as _).build().await.unwrap();
    // It exists in the backend, but this manager did not register it.
    let pool = "hive:default".parse().unwrap();
    backend.change_quota(&pool, QuotaChange::Register(quota(1))).await.unwrap();
    let execution = ExecutionId::new("p", "d", "e").unwrap();
    let task = manager.for_execution(PluginId::new("hive").unwrap(), execution);
    let error = task.allocate_resource(&namespace("default"), &token("t"), FREE).await.unwrap_err();
    let text = "unknown resource namespace hive:default: no quota was registered for it";
    assert_eq!(error.to_string(), text);
    assert!(error.is_invalid() && !error.is_retryable());
    // Flyte removes the member first and then fails (defect RM-17).
    let error = task.release_resource(&namespace("default"), &token("t")).await.unwrap_err();
    assert_eq!(error.to_string(), text);
}

#[tokio::test]
async fn an_unknown_namespace_never_reaches_redis() {
    let server = Server::start();
    let manager = Registrar::new(connect(&server.url()).await).build().await.unwrap();
    let execution = ExecutionId::new("p", "d", "e").unwrap();
    let task = manager.for_execution(PluginId::new("hive").unwrap(), execution);
    let calls = || {
        let stats: String =
            redis::cmd("INFO").arg("commandstats").query(&mut server.raw()).unwrap();
        stats.lines().filter(|line| line.contains("eval") || line.contains("script")).count()
    };
    task.allocate_resource(&namespace("default"), &token("t"), FREE).await.unwrap_err();
    task.release_resource(&namespace("default"), &token("t")).await.unwrap_err();
    assert_eq!(calls(), 0);
}

#[tokio::test]
async fn noop_demands_nothing_and_keeps_nothing() {
    let registrar = Registrar::new(Arc::new(NoopBackend::new()));
    let hive = plugin(&registrar);
    for units in [-1, 0, 1, 1_000_000] {
        hive.register_resource_quota(&namespace("default"), units).unwrap();
    }
    let manager = registrar.build().await.unwrap();
    hive.register_resource_quota(&namespace("late"), 1).unwrap();
    let execution = ExecutionId::new("p", "d", "e").unwrap();
    let task = manager.for_execution(PluginId::new("hive").unwrap(), execution);
    for name in ["a", "b", "c"] {
        let outcome = task.allocate(&namespace("default"), token(name), FREE).await.unwrap();
        assert_eq!(outcome.status(), AllocationStatus::Granted);
        assert_eq!(outcome.granted().unwrap().fencing_number, None);
        task.release_resource(&namespace("default"), &token(name)).await.unwrap();
    }
    assert_eq!(NoopBackend::new().pools().await.unwrap(), []);
}

#[tokio::test]
async fn two_managers_share_one_pool_and_keep_their_own_holder() {
    let f = redis().await;
    let pool = f.pool(1).await;
    let mut tasks = Vec::new();
    for name in ["propeller-0", "propeller-1"] {
        let registrar =
            Registrar::new(Arc::clone(&f.backend)).with_holder(Holder::new(name).unwrap());
        let (id, rest) = pool.name.as_str().split_once(':').unwrap();
        let id = PluginId::new(id).unwrap();
        registrar.for_plugin(id.clone()).register_resource_quota(&namespace(rest), 2).unwrap();
        let manager = registrar.build().await.unwrap();
        tasks.push(manager.for_execution(id, ExecutionId::new("p", "d", name).unwrap()));
    }
    for task in &tasks {
        let _ = task.allocate_resource(&namespace("default"), &token("t"), FREE).await.unwrap();
    }
    assert_eq!(
        tasks[0].allocate_resource(&namespace("default"), &token("u"), FREE).await.unwrap(),
        AllocationStatus::Exhausted
    );
    let holders: Vec<_> =
        pool.holdings(10).await.into_iter().map(|h| h.record.unwrap().holder).collect();
    assert_eq!(holders, ["propeller-0", "propeller-1"]);
}
