//! What the original's Go tests assert about the resource manager (flyte-spec 1.12), and where this
//! library differs on purpose.
//!
//! Their pools hold raw members such as `ns1-token1` with prefixes as caps; here they are tokens of
//! executions in projects `ns1` and `ns2`.

use std::sync::Arc;

use tokenpool::{
    AllocationStatus, ExecutionId, Manager, MemoryBackend, NoopBackend, PluginId, Registrar,
    ResourceManager, ResourceNamespace, ResourcePoolInfo, ResourceRegistrar, TaskResourceManager,
};

use crate::support::{FREE, caps, fence, redis, token};

const NS1: &str = "ns1/development/execution";
const NS2: &str = "ns2/development/execution";

#[tokio::test]
async fn allocate_1_a_project_at_its_cap_is_exhausted_and_another_is_granted() {
    let pool = redis().await.pool(3).await;
    pool.claim(NS1, "token1").await.granted().unwrap();
    let outcome = pool.claim_with(NS1, "token2", 1, caps(Some(1), None)).await.unwrap();
    assert_eq!(outcome.status().as_flyte_answers(), AllocationStatus::Exhausted);
    assert_eq!(pool.claim(NS2, "token1").await.status(), AllocationStatus::Granted);
}

#[tokio::test]
async fn allocate_2_the_last_unit_is_granted() {
    let pool = redis().await.pool(4).await;
    for name in ["token1", "token2", "token3", "token4"] {
        assert_eq!(pool.claim(NS1, name).await.status(), AllocationStatus::Granted);
    }
}

#[tokio::test]
async fn allocate_3_a_full_pool_is_exhausted_for_everyone() {
    let pool = redis().await.pool(4).await;
    for name in ["token1", "token2", "token3", "token4"] {
        pool.claim(NS1, name).await.granted().unwrap();
    }
    for (path, name) in [(NS1, "token5"), (NS2, "token1")] {
        let outcome = pool.claim_with(path, name, 1, caps(Some(1), None)).await.unwrap();
        assert_eq!(outcome.status(), AllocationStatus::Exhausted);
    }
}

/// Flyte's `checkAgainstConstraints` answers the index of the violated cap; here it is named.
#[tokio::test]
async fn check_against_constraints_names_the_violated_cap() {
    let pool = redis().await.pool(10).await;
    pool.claim(NS1, "token1").await.granted().unwrap();
    let outcome = pool.claim_with(NS1, "token2", 1, caps(Some(1), Some(9))).await.unwrap();
    assert_eq!(outcome.status(), AllocationStatus::NamespaceQuotaExceeded);
    let text = crate::support::refusal(&outcome).to_string();
    assert_eq!(text, "cap of project ns1: 1 of 1 in use");
}

/// In the Go tests SADD answers 0, as if the member were there, and it is still Granted.
#[tokio::test]
async fn claiming_a_held_token_is_granted() {
    let pool = redis().await.pool(1).await;
    let first = pool.claim(NS1, "token1").await;
    let again = pool.claim(NS1, "token1").await;
    assert_eq!(again.status(), AllocationStatus::Granted);
    assert_eq!(fence(&again), fence(&first));
}

fn namespace(name: &str) -> ResourceNamespace {
    ResourceNamespace::new(name).unwrap()
}

fn task(manager: &Manager, plugin: &str) -> TaskResourceManager {
    let execution = ExecutionId::new("project", "domain", "name").unwrap();
    manager.for_execution(PluginId::new(plugin).unwrap(), execution)
}

fn info(task: &TaskResourceManager) -> Vec<(String, String)> {
    let pair =
        |info: ResourcePoolInfo| (info.namespace.to_string(), info.allocation_token.to_string());
    task.resource_pool_info().into_iter().map(pair).collect()
}

#[tokio::test]
async fn task_resource_manager_on_noop_grants_without_registration_and_reports_pool_info() {
    let manager = Registrar::new(Arc::new(NoopBackend::new())).build().await.unwrap();
    let task = task(&manager, "namespace");
    let (namespace, token) = (namespace("namespace"), token("allocation token"));
    let status = task.allocate_resource(&namespace, &token, FREE).await.unwrap();
    assert_eq!(status, AllocationStatus::Granted);
    assert_eq!(info(&task), [("namespace".to_owned(), "allocation token".to_owned())]);
    assert_eq!(task.id(), "noopresourcemanager");
}

#[tokio::test]
async fn task_execution_context_starts_with_an_empty_list_and_fills_it() {
    let manager = Registrar::new(Arc::new(NoopBackend::new())).build().await.unwrap();
    let task = task(&manager, "plugin1");
    assert_eq!(info(&task), []);
    let _ = task.allocate_resource(&namespace("foo"), &token("token"), FREE).await.unwrap();
    assert_eq!(info(&task), [("foo".to_owned(), "token".to_owned())]);
}

/// Flyte records refused tokens, too (defect RM-16), and keeps one of two resources.
#[tokio::test]
async fn pool_info_lists_grants_only_and_a_token_once_for_each_resource() {
    let registrar = Registrar::new(Arc::new(MemoryBackend::new()));
    let plugin = registrar.for_plugin(PluginId::new("plugin1").unwrap());
    for name in ["bar", "foo"] {
        plugin.register_resource_quota(&namespace(name), 1).unwrap();
    }
    let task = task(&registrar.build().await.unwrap(), "plugin1");
    for (name, status) in [("foo", AllocationStatus::Granted), ("bar", AllocationStatus::Granted)] {
        let answer = task.allocate_resource(&namespace(name), &token("a"), FREE).await.unwrap();
        assert_eq!(answer, status);
    }
    let refused = task.allocate_resource(&namespace("foo"), &token("b"), FREE).await.unwrap();
    assert_eq!(refused, AllocationStatus::Exhausted);
    task.release_resource(&namespace("foo"), &token("a")).await.unwrap();
    let expected = [("bar", "a"), ("foo", "a")].map(|(n, t)| (n.to_owned(), t.to_owned()));
    assert_eq!(info(&task), expected);
}

#[tokio::test]
async fn release_resource_answers_nothing_and_can_be_repeated() {
    let registrar = Registrar::new(Arc::new(MemoryBackend::new()));
    let plugin = registrar.for_plugin(PluginId::new("plugin1").unwrap());
    plugin.register_resource_quota(&namespace("foo"), 1).unwrap();
    let task = Arc::new(task(&registrar.build().await.unwrap(), "plugin1"));
    let manager: Arc<dyn ResourceManager> = task;
    for _ in 0..2 {
        let _ = manager.allocate_resource(&namespace("foo"), &token("a"), FREE).await.unwrap();
        manager.release_resource(&namespace("foo"), &token("a")).await.unwrap();
        manager.release_resource(&namespace("foo"), &token("a")).await.unwrap();
    }
}
