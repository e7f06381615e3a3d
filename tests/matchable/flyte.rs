//! What the original's Go tests assert about matchable resources, row by row: repository, manager, validators, consumers.
//!
//! Rows about SQL are here as what the SQL is for. Where FlyteAdmin has a defect, the row stands with what is right, and the
//! defect's number.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use tokenpool::matchable::{
    Annotations, AttributePath, Attributes, ClusterAssignment, ClusterResourceAttributes,
    ExecutionClusterLabel, ExecutionQueueAttributes, Expected, FlyteAttributes, Identity, Kind,
    KindName, Labels, MatchingAttributes, PluginOverride, PluginOverrides, ProjectAttributes,
    ProjectDomainAttributes, ProjectState, Projects, QualityOfService, QualityOfServiceTier,
    RawOutputDataConfig, ResourceRequest, SecurityContext, TaskResourceAttributes,
    TaskResourceSpec, WorkflowAttributes, WorkflowExecutionConfig,
};
use tokenpool::{Code, Error, Result};

use super::{Fixture, at, holder};

every_store! { std::future::ready =>
    a_cluster_label_of_a_launch_plan_is_found_by_its_own_name,
    a_deleted_project_domain_falls_back_to_nothing,
    a_project_level_look_up_needs_a_project,
    a_project_lists_as_it_was_set,
    a_project_without_config_gets_the_servers,
    a_workflow_is_set_got_deleted_and_gone,
    an_update_without_attributes_is_missing_attributes,
    bytes_of_another_kind_are_an_internal_error,
    cluster_assignment_of_the_database_is_found,
    custom_template_values_lie_over_the_defaults,
    deleting_is_scoped_exactly,
    get_resource_echoes_where_it_was_found,
    plugin_overrides_are_created_or_merged_at_every_level,
    plugin_overrides_of_the_most_specific_place_are_found_whole,
    quality_of_service_is_set_and_found,
    queues_are_found_from_the_most_specific_place_up,
    requests_about_project_domains_are_checked_in_order,
    requests_about_projects_are_checked_in_order,
    requests_about_workflows_are_checked_in_order,
    setting_again_replaces_what_was_set,
    task_resources_of_one_half_are_no_harm,
    task_resources_override_the_platforms_as_they_are,
    the_config_of_a_project_domain_is_not_skipped_by_that_of_a_workflow,
    the_type_is_that_of_the_payload,
    unknown_types_are_invalid_arguments,
    workflows_inherit_and_say_so,
}

const TASK: u32 = 0;
const CLUSTER: u32 = 1;
const QUEUE: u32 = 2;
const LABEL: u32 = 3;
const QOS: u32 = 4;
const PLUGIN: u32 = 5;
const CONFIG: u32 = 6;
const ASSIGNMENT: u32 = 7;

/// Projects of a directory that fails for some.
#[derive(Debug)]
struct Directory;

#[async_trait]
impl Projects for Directory {
    async fn state(&self, project: &str) -> std::result::Result<ProjectState, String> {
        match project {
            "archived" => Ok(ProjectState::Archived),
            "" | "unknown" => Err("missing project".to_owned()),
            _ => Ok(ProjectState::Active),
        }
    }
}

fn service(f: &Fixture) -> FlyteAttributes {
    FlyteAttributes::new(&Attributes::new(Arc::clone(&f.store), holder("flyteadmin")))
        .with_projects(Arc::new(Directory))
        .with_domains(["development", "staging", "production"])
}

fn tags(tags: &[&str]) -> MatchingAttributes {
    ExecutionQueueAttributes { tags: tags.iter().map(ToString::to_string).collect() }.into()
}

fn cluster(pairs: &[(&str, &str)]) -> MatchingAttributes {
    let pairs = pairs.iter().map(|(key, value)| (key.to_string(), value.to_string()));
    ClusterResourceAttributes { attributes: pairs.collect() }.into()
}

fn plugins(overrides: &[(&str, &str)]) -> MatchingAttributes {
    let one = |(task_type, plugin): &(&str, &str)| PluginOverride {
        task_type: task_type.to_string(),
        plugin_id: vec![plugin.to_string()],
        ..PluginOverride::default()
    };
    PluginOverrides { overrides: overrides.iter().map(one).collect() }.into()
}

fn cpu(defaults: &str, limits: &str) -> MatchingAttributes {
    let spec = |cpu: &str| TaskResourceSpec { cpu: cpu.to_owned(), ..Default::default() };
    TaskResourceAttributes { defaults: spec(defaults), limits: spec(limits) }.into()
}

fn of_project(project: &str, attributes: MatchingAttributes) -> Option<ProjectAttributes> {
    Some(ProjectAttributes { project: project.to_owned(), matching_attributes: Some(attributes) })
}

fn of_domain(
    project: &str,
    domain: &str,
    attributes: MatchingAttributes,
) -> Option<ProjectDomainAttributes> {
    Some(ProjectDomainAttributes {
        project: project.to_owned(),
        domain: domain.to_owned(),
        matching_attributes: Some(attributes),
    })
}

fn of_workflow(
    [project, domain, workflow]: [&str; 3],
    attributes: MatchingAttributes,
) -> Option<WorkflowAttributes> {
    Some(WorkflowAttributes {
        project: project.to_owned(),
        domain: domain.to_owned(),
        workflow: workflow.to_owned(),
        matching_attributes: Some(attributes),
    })
}

fn request(names: [&str; 4], resource_type: u32) -> ResourceRequest {
    let [project, domain, workflow, launch_plan] = names.map(str::to_owned);
    ResourceRequest { project, domain, workflow, launch_plan, resource_type }
}

/// Sets what no request of Flyte's can, as the program does.
async fn set(f: &Fixture, path: &str, attributes: impl tokenpool::matchable::MatchableResource) {
    let all = Attributes::new(Arc::clone(&f.store), holder("ann"));
    all.of().update(&at(path), attributes, Expected::Any).await.unwrap();
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T>, words: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    assert!(error.to_string().ends_with(words), "{error} instead of {words}");
}

#[track_caller]
fn not_found<T: std::fmt::Debug>(result: Result<T>, words: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.code(), Code::NotFound, "{error}");
    assert_eq!(error.to_string(), words);
}

async fn the_type_is_that_of_the_payload(f: Fixture) {
    let s = service(&f);
    let all: [(u32, MatchingAttributes); 8] = [
        (TASK, cpu("1", "2")),
        (CLUSTER, cluster(&[("foo", "bar")])),
        (QUEUE, tags(&["foo", "bar", "baz"])),
        (LABEL, ExecutionClusterLabel { value: "foo".to_owned() }.into()),
        (QOS, QualityOfService::Tier(QualityOfServiceTier::High).into()),
        (PLUGIN, plugins(&[("python", "plugin a")])),
        (CONFIG, WorkflowExecutionConfig { max_parallelism: 5, ..Default::default() }.into()),
        (ASSIGNMENT, ClusterAssignment { cluster_pool_name: "gpu".to_owned() }.into()),
    ];
    let names = [
        "TASK_RESOURCE",
        "CLUSTER_RESOURCE",
        "EXECUTION_QUEUE",
        "EXECUTION_CLUSTER_LABEL",
        "QUALITY_OF_SERVICE_SPECIFICATION",
        "PLUGIN_OVERRIDE",
        "WORKFLOW_EXECUTION_CONFIG",
        "CLUSTER_ASSIGNMENT",
    ];
    let names_of_path = ["project", "development", "workflow"];
    for (number, attributes) in &all {
        s.update_workflow_attributes(of_workflow(names_of_path, attributes.clone())).await.unwrap();
        let asked = request(["project", "development", "workflow", ""], *number);
        let found = s.get_resource(&asked).await.unwrap();
        assert_eq!((&found.attributes, found.resource_type), (attributes, names[*number as usize]));
    }
    let mut sorted = names.map(str::to_owned);
    sorted.sort();
    let kinds: Vec<_> = f.store.kinds().await.unwrap();
    assert_eq!(kinds.iter().map(KindName::as_str).collect::<Vec<_>>(), sorted);
}

async fn plugin_overrides_are_created_or_merged_at_every_level(f: Fixture) {
    let s = service(&f);
    let stored = plugins(&[("hive", "plugin b"), ("python", "plugin c")]);
    let update = plugins(&[("python", "plugin a")]);
    let merged = plugins(&[("python", "plugin a"), ("hive", "plugin b")]);
    let names = ["p", "development", "w"];
    // A workflow, set first: MR-4 would merge the project-domain's into it.
    s.update_workflow_attributes(of_workflow(names, update.clone())).await.unwrap();
    let found = async || s.get_workflow_attributes("p", "development", "w", PLUGIN).await.unwrap();
    assert_eq!(found().await.matching_attributes, Some(update.clone()));
    s.update_workflow_attributes(of_workflow(names, stored.clone())).await.unwrap();
    s.update_workflow_attributes(of_workflow(names, update.clone())).await.unwrap();
    assert_eq!(found().await.matching_attributes, Some(merged.clone()));

    for attributes in [stored.clone(), update.clone()] {
        let request = of_domain("p", "development", attributes);
        s.update_project_domain_attributes(request).await.unwrap();
    }
    let of_domain = s.get_project_domain_attributes("p", "development", PLUGIN).await.unwrap();
    assert_eq!(of_domain.domain, "development");
    assert_eq!(of_domain.matching_attributes, Some(merged.clone()));
    assert_eq!(found().await.workflow, "w");

    // MR-3: not possible in Flyte.
    for attributes in [stored, update] {
        s.update_project_attributes(of_project("p", attributes)).await.unwrap();
    }
    let found = s.get_project_attributes("p", PLUGIN).await.unwrap();
    assert_eq!(found.matching_attributes, Some(merged));
}

async fn setting_again_replaces_what_was_set(f: Fixture) {
    let s = service(&f);
    for value in ["value", "value2"] {
        let attributes = cluster(&[("key", value)]);
        let request = of_domain("admintests", "development", attributes.clone());
        s.update_project_domain_attributes(request).await.unwrap();
        let listed = s.list_matchable_attributes(CLUSTER).await.unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!((&*listed[0].project, &*listed[0].domain), ("admintests", "development"));
        assert_eq!(listed[0].attributes, attributes);
        let found = s.get_project_domain_attributes("admintests", "development", CLUSTER).await;
        assert_eq!(found.unwrap().matching_attributes, Some(attributes));
    }
}

async fn workflows_inherit_and_say_so(f: Fixture) {
    let s = service(&f);
    let request = of_domain("admintests", "development", cpu("1", "2"));
    s.update_project_domain_attributes(request).await.unwrap();
    let found = s.get_workflow_attributes("admintests", "development", "workflow", TASK).await;
    let expected = of_domain("admintests", "development", cpu("1", "2")).unwrap();
    let found = found.unwrap();
    assert_eq!((found.project, found.domain), (expected.project, expected.domain));
    assert_eq!((&*found.workflow, found.matching_attributes), ("", expected.matching_attributes));
    // From the project, the domain is empty, too.
    s.update_project_attributes(of_project("p", tags(&["x"]))).await.unwrap();
    let found = s.get_workflow_attributes("p", "development", "w", QUEUE).await.unwrap();
    assert_eq!((&*found.project, &*found.domain, &*found.workflow), ("p", "", ""));
}

async fn a_deleted_project_domain_falls_back_to_nothing(f: Fixture) {
    let s = service(&f);
    let request = of_domain("admintests", "development", cpu("1", "2"));
    s.update_project_domain_attributes(request).await.unwrap();
    s.delete_project_domain_attributes("admintests", "development", TASK).await.unwrap();
    not_found(
        s.get_project_domain_attributes("admintests", "development", TASK).await,
        "Resource [{Project:admintests Domain:development Workflow: LaunchPlan: ResourceType:TASK_RESOURCE}] not found",
    );
    // Again, it is as good.
    s.delete_project_domain_attributes("admintests", "development", TASK).await.unwrap();
}

async fn a_workflow_is_set_got_deleted_and_gone(f: Fixture) {
    let s = service(&f);
    let names = ["admintests", "development", "workflow"];
    s.update_workflow_attributes(of_workflow(names, cpu("1", "2"))).await.unwrap();
    let found = s.get_workflow_attributes("admintests", "development", "workflow", TASK).await;
    assert_eq!(found.unwrap(), of_workflow(names, cpu("1", "2")).unwrap());
    s.delete_workflow_attributes("admintests", "development", "workflow", TASK).await.unwrap();
    not_found(
        s.get_workflow_attributes("admintests", "development", "workflow", TASK).await,
        "Resource [{Project:admintests Domain:development Workflow:workflow LaunchPlan: ResourceType:TASK_RESOURCE}] not found",
    );
}

/// Every deletion of Flyte's takes what is below with it (MR-2).
async fn deleting_is_scoped_exactly(f: Fixture) {
    let s = service(&f);
    let names = ["p", "development", "w"];
    s.update_project_attributes(of_project("p", tags(&["p"]))).await.unwrap();
    let request = of_domain("p", "development", tags(&["pd"]));
    s.update_project_domain_attributes(request).await.unwrap();
    s.update_workflow_attributes(of_workflow(names, tags(&["w"]))).await.unwrap();
    set(&f, "p:development:w:l", ExecutionQueueAttributes { tags: vec!["l".to_owned()] }).await;
    let left = async || {
        let listed = s.list_matchable_attributes(QUEUE).await.unwrap();
        listed.into_iter().map(|found| found.attributes).collect::<Vec<_>>()
    };
    s.delete_project_attributes("p", QUEUE).await.unwrap();
    assert_eq!(left().await, [tags(&["l"]), tags(&["w"]), tags(&["pd"])]);
    s.delete_project_domain_attributes("p", "development", QUEUE).await.unwrap();
    assert_eq!(left().await, [tags(&["l"]), tags(&["w"])]);
    s.delete_workflow_attributes("p", "development", "w", QUEUE).await.unwrap();
    assert_eq!(left().await, [tags(&["l"])]);
}

async fn a_project_lists_as_it_was_set(f: Fixture) {
    let s = service(&f);
    assert_eq!(s.list_matchable_attributes(CLUSTER).await.unwrap(), []);
    s.update_project_attributes(of_project("p", cluster(&[("a", "1")]))).await.unwrap();
    let names = ["p", "development", "w"];
    s.update_workflow_attributes(of_workflow(names, cluster(&[("a", "2")]))).await.unwrap();
    let listed = s.list_matchable_attributes(CLUSTER).await.unwrap();
    let names: Vec<_> = listed.iter().map(|r| (&*r.project, &*r.domain, &*r.workflow)).collect();
    assert_eq!(names, [("p", "development", "w"), ("p", "", "")]);
}

async fn get_resource_echoes_where_it_was_found(f: Fixture) {
    let s = service(&f);
    set(
        &f,
        "project:domain:workflow:launch_plan",
        ExecutionQueueAttributes { tags: vec!["foo".to_owned()] },
    )
    .await;
    let asked = request(["project", "domain", "workflow", "launch_plan"], QUEUE);
    let found = s.get_resource(&asked).await.unwrap();
    let names = [found.project, found.domain, found.workflow, found.launch_plan];
    assert_eq!(names, ["project", "domain", "workflow", "launch_plan"]);
    assert_eq!((found.resource_type, found.attributes), ("EXECUTION_QUEUE", tags(&["foo"])));
    // MR-9: FlyteAdmin calls it an internal error.
    refused(
        s.get_resource(&request(["", "", "", ""], QUEUE)).await,
        "must not be empty without a domain",
    );
}

async fn a_project_level_look_up_needs_a_project(f: Fixture) {
    let s = FlyteAttributes::new(&Attributes::new(Arc::clone(&f.store), holder("flyteadmin")));
    refused(s.get_project_attributes("", QUEUE).await, "must not be empty without a domain");
    refused(
        s.get_project_domain_attributes("", "development", QUEUE).await,
        "project \"\": must not be empty",
    );
    refused(
        s.get_workflow_attributes("", "development", "w", QUEUE).await,
        "project \"\": must not be empty",
    );
    refused(s.get_workflow_attributes("p", "", "w", QUEUE).await, "workflow \"w\": needs a domain");
}

async fn unknown_types_are_invalid_arguments(f: Fixture) {
    let s = service(&f);
    let words = "resource type \"44\": invalid value for resource_type";
    refused(s.list_matchable_attributes(44).await, words);
    refused(s.get_project_attributes("p", 44).await, words);
    refused(s.get_workflow_attributes("p", "development", "w", 44).await, words);
    refused(s.delete_project_attributes("p", 44).await, words);
    assert_eq!(s.list_matchable_attributes(QUEUE).await.unwrap(), []);
}

async fn an_update_without_attributes_is_missing_attributes(f: Fixture) {
    let s = service(&f);
    refused(s.update_project_attributes(None).await, "missing attributes");
    refused(s.update_project_domain_attributes(None).await, "missing attributes");
    refused(s.update_workflow_attributes(None).await, "missing attributes");
    let empty = ProjectAttributes { project: "p".to_owned(), matching_attributes: None };
    refused(s.update_project_attributes(Some(empty)).await, "missing matching_attributes");
    // MR-14: what sets nothing, or breaks a rule.
    let nothing = TaskResourceAttributes::default().into();
    assert!(s.update_project_attributes(of_project("p", nothing)).await.is_err());
    let request = of_project("p", cpu("two", ""));
    let error = s.update_project_attributes(request).await.unwrap_err();
    assert!(
        matches!(&error, Error::InvalidAttributes { field, .. } if field == "defaults.cpu"),
        "{error}"
    );
}

async fn requests_about_projects_are_checked_in_order(f: Fixture) {
    let s = service(&f);
    let update = |project| s.update_project_attributes(of_project(project, tags(&["x"])));
    update("p").await.unwrap();
    refused(update("archived").await, "project [archived] is not active");
    refused(
        update("unknown").await,
        "failed to validate that project [unknown] is registered, err: [missing project]",
    );
    refused(
        s.get_project_attributes("unknown", QUEUE).await,
        "failed to validate that project [unknown] exists, err: [missing project]",
    );
    // An archived project can be read.
    not_found(
        s.get_project_attributes("archived", QUEUE).await,
        "Resource [{Project:archived Domain: Workflow: LaunchPlan: ResourceType:EXECUTION_QUEUE}] not found",
    );
    refused(
        s.delete_project_attributes("archived", QUEUE).await,
        "project [archived] is not active",
    );
}

async fn requests_about_project_domains_are_checked_in_order(f: Fixture) {
    let s = service(&f);
    let unknown = "failed to validate that project [] and domain [development] are registered, err: [missing project]";
    let domain = "domain [] is unrecognized by system";
    let update = |project, domain| {
        s.update_project_domain_attributes(of_domain(project, domain, cluster(&[("a", "b")])))
    };
    refused(update("", "development").await, unknown);
    refused(update("p", "").await, domain);
    refused(update("p", "moon").await, "domain [moon] is unrecognized by system");
    refused(update("archived", "development").await, "project [archived] is not active");
    update("p", "development").await.unwrap();
    let get = |project, domain| s.get_project_domain_attributes(project, domain, CLUSTER);
    refused(get("", "development").await, unknown);
    refused(get("p", "").await, domain);
    refused(get("archived", "development").await, "project [archived] is not active");
    get("p", "development").await.unwrap();
    let delete = |project, domain| s.delete_project_domain_attributes(project, domain, CLUSTER);
    refused(delete("", "development").await, unknown);
    refused(delete("p", "").await, domain);
    delete("p", "development").await.unwrap();
}

async fn requests_about_workflows_are_checked_in_order(f: Fixture) {
    let s = service(&f);
    let unknown = "failed to validate that project [] and domain [development] are registered, err: [missing project]";
    let update = |names| s.update_workflow_attributes(of_workflow(names, tags(&["x"])));
    refused(update(["", "development", "w"]).await, unknown);
    refused(update(["p", "", "w"]).await, "domain [] is unrecognized by system");
    refused(update(["p", "development", ""]).await, "missing name");
    update(["p", "development", "w"]).await.unwrap();
    let no_domain = "domain [] is unrecognized by system";
    let get = |project, domain, name| s.get_workflow_attributes(project, domain, name, QUEUE);
    refused(get("", "development", "w").await, unknown);
    refused(get("p", "", "w").await, no_domain);
    refused(get("p", "development", "").await, "missing name");
    let found = get("p", "development", "w").await.unwrap();
    assert_eq!(found, of_workflow(["p", "development", "w"], tags(&["x"])).unwrap());
    let delete = |project, domain, name| s.delete_workflow_attributes(project, domain, name, QUEUE);
    refused(delete("", "development", "w").await, unknown);
    refused(delete("p", "", "w").await, no_domain);
    refused(delete("p", "development", "").await, "missing name");
    delete("p", "development", "w").await.unwrap();
}

async fn a_project_without_config_gets_the_servers(f: Fixture) {
    let label = |key: &str| Labels { values: BTreeMap::from([(key.to_owned(), "v".to_owned())]) };
    let identity = |k8s_service_account: &str, iam_role: &str| {
        let run_as = Identity {
            k8s_service_account: k8s_service_account.to_owned(),
            iam_role: iam_role.to_owned(),
            ..Default::default()
        };
        Some(SecurityContext { run_as: Some(run_as), ..Default::default() })
    };
    // What else a server may be configured with: a role, or an annotation.
    let parallel = WorkflowExecutionConfig { max_parallelism: 3, ..Default::default() };
    let note = Annotations { values: label("note").values };
    for other in [
        WorkflowExecutionConfig { security_context: identity("", "role"), ..parallel.clone() },
        WorkflowExecutionConfig { annotations: note, ..parallel.clone() },
    ] {
        let s = service(&f).with_execution_defaults(other.clone());
        let found = s.get_project_attributes("p", CONFIG).await.unwrap();
        assert_eq!(found.matching_attributes, Some(other.into()));
    }
    let server = WorkflowExecutionConfig {
        max_parallelism: 3,
        security_context: identity("account", ""),
        labels: label("server"),
        raw_output_data_config: RawOutputDataConfig {
            output_location_prefix: "s3://server".to_owned(),
        },
        ..Default::default()
    };
    let s = service(&f).with_execution_defaults(server.clone());
    let config = async |project: &str| {
        let found = s.get_project_attributes(project, CONFIG).await.unwrap();
        assert_eq!(found.project, project);
        found.matching_attributes
    };
    assert_eq!(config("p").await, Some(server.clone().into()));
    not_found(
        s.get_project_attributes("p", QUEUE).await,
        "Resource [{Project:p Domain: Workflow: LaunchPlan: ResourceType:EXECUTION_QUEUE}] not found",
    );
    let own = WorkflowExecutionConfig { labels: label("own"), ..Default::default() };
    s.update_project_attributes(of_project("p", own.clone().into())).await.unwrap();
    let merged = WorkflowExecutionConfig { labels: label("own"), ..server };
    assert_eq!(config("p").await, Some(merged.into()));
    // A look-up has what is set and no more.
    let found = s.get_resource(&request(["p", "", "", ""], CONFIG)).await.unwrap();
    assert_eq!(found.attributes, own.into());
}

async fn quality_of_service_is_set_and_found(f: Fixture) {
    // MR-1 and MR-6: Flyte's validator lacks the branch, and its allocator is never called.
    let s = service(&f);
    let high: MatchingAttributes = QualityOfService::Tier(QualityOfServiceTier::High).into();
    s.update_project_attributes(of_project("p", high.clone())).await.unwrap();
    let found = s.get_workflow_attributes("p", "production", "w", QOS).await.unwrap();
    assert_eq!(found.matching_attributes, Some(high));
}

async fn task_resources_override_the_platforms_as_they_are(f: Fixture) {
    let spec = |[cpu, gpu, memory, storage, ephemeral_storage]: [&str; 5]| TaskResourceSpec {
        cpu: cpu.to_owned(),
        gpu: gpu.to_owned(),
        memory: memory.to_owned(),
        storage: storage.to_owned(),
        ephemeral_storage: ephemeral_storage.to_owned(),
    };
    // Defaults may exceed limits here.
    let row = TaskResourceAttributes {
        defaults: spec(["1200m", "18", "1200Gi", "1500Mi", "1400Mi"]),
        limits: spec(["300m", "8", "500Gi", "501Mi", "450Mi"]),
    };
    let s = service(&f);
    let names = ["p", "development", "w"];
    s.update_workflow_attributes(of_workflow(names, row.clone().into())).await.unwrap();
    let found = s.get_resource(&request(["p", "development", "w", ""], TASK)).await.unwrap();
    assert_eq!(found.attributes, row.into());
}

async fn task_resources_of_one_half_are_no_harm(f: Fixture) {
    // MR-5: a missing half makes FlyteAdmin panic when an execution is created.
    let s = service(&f);
    for (project, attributes) in [("limits", cpu("", "2")), ("defaults", cpu("1", ""))] {
        s.update_project_attributes(of_project(project, attributes.clone())).await.unwrap();
        let found = s.get_resource(&request([project, "development", "", ""], TASK)).await;
        assert_eq!(found.unwrap().attributes, attributes);
    }
}

async fn queues_are_found_from_the_most_specific_place_up(f: Fixture) {
    let s = service(&f);
    let queue = async |project: &str, domain: &str, workflow: &str| {
        let names = [project, domain, workflow, ""];
        s.get_resource(&request(names, QUEUE)).await.ok().map(|found| found.attributes)
    };
    s.update_project_attributes(of_project("p", tags(&["attr1"]))).await.unwrap();
    let request_ = of_domain("p", "production", tags(&["attr2"]));
    s.update_project_domain_attributes(request_).await.unwrap();
    let names = ["p", "production", "w"];
    s.update_workflow_attributes(of_workflow(names, tags(&["attr3"]))).await.unwrap();
    assert_eq!(queue("p", "production", "w").await, Some(tags(&["attr3"])));
    assert_eq!(queue("p", "production", "unknown").await, Some(tags(&["attr2"])));
    assert_eq!(queue("p", "unknown", "w").await, Some(tags(&["attr1"])));
    assert_eq!(queue("unknown", "production", "w").await, None);
}

async fn plugin_overrides_of_the_most_specific_place_are_found_whole(f: Fixture) {
    let s = service(&f);
    s.update_project_attributes(of_project("p", plugins(&[("sidecar", "c")]))).await.unwrap();
    let both = plugins(&[("python", "a"), ("hive", "b")]);
    let names = ["p", "development", "w"];
    s.update_workflow_attributes(of_workflow(names, both.clone())).await.unwrap();
    let found = s.get_resource(&request(["p", "development", "w", "l"], PLUGIN)).await.unwrap();
    assert_eq!(found.attributes, both);
    // All of them merged, for who wants that.
    let all = f.of::<PluginOverrides>();
    let resolved = all.resolve(&at("p:development:w")).await.unwrap();
    let types: Vec<_> = resolved.merged.overrides.iter().map(|o| &*o.task_type).collect();
    assert_eq!(types, ["python", "hive", "sidecar"]);
    assert_eq!(resolved.sources["/overrides/2/task_type"], at("p"));
}

async fn custom_template_values_lie_over_the_defaults(f: Fixture) {
    let s = service(&f);
    let request = of_domain("p", "development", cluster(&[("var1", "db"), ("var2", "db")]));
    s.update_project_domain_attributes(request).await.unwrap();
    let found = f.of::<ClusterResourceAttributes>();
    let found = found.get_resource(&at("p:development")).await.unwrap().value.clone();
    let defaults = [("var1", "config"), ("var3", "config")];
    let defaults = defaults.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let defaults = ClusterResourceAttributes { attributes: defaults.into() };
    let merged: MatchingAttributes =
        tokenpool::matchable::MatchableResource::merge(found, defaults).into();
    assert_eq!(merged, cluster(&[("var1", "db"), ("var2", "db"), ("var3", "config")]));
}

async fn cluster_assignment_of_the_database_is_found(f: Fixture) {
    let s = service(&f);
    let gpu: MatchingAttributes = ClusterAssignment { cluster_pool_name: "gpu".to_owned() }.into();
    let request_ = of_domain("p", "development", gpu.clone());
    s.update_project_domain_attributes(request_).await.unwrap();
    let found = s.get_resource(&request(["p", "development", "", ""], ASSIGNMENT)).await.unwrap();
    assert_eq!(found.attributes, gpu);
}

async fn a_cluster_label_of_a_launch_plan_is_found_by_its_own_name(f: Fixture) {
    // MR-10: no request sets it; MR-16: FlyteAdmin asks for the workflow's name instead.
    let s = service(&f);
    set(&f, "p:d:w:lp", ExecutionClusterLabel { value: "lp".to_owned() }).await;
    set(&f, "p:d:w", ExecutionClusterLabel { value: "w".to_owned() }).await;
    let label = async |launch_plan: &str| {
        let found = s.get_resource(&request(["p", "d", "w", launch_plan], LABEL)).await;
        found.unwrap().launch_plan
    };
    assert_eq!((label("lp").await, label("w").await), ("lp".to_owned(), String::new()));
}

async fn the_config_of_a_project_domain_is_not_skipped_by_that_of_a_workflow(f: Fixture) {
    // MR-8: FlyteAdmin merges the most specific and the project's alone.
    let all = f.of::<WorkflowExecutionConfig>();
    let parallel =
        |max_parallelism| WorkflowExecutionConfig { max_parallelism, ..Default::default() };
    let labelled = |key: &str| WorkflowExecutionConfig {
        labels: Labels { values: BTreeMap::from([(key.to_owned(), "v".to_owned())]) },
        ..parallel(7)
    };
    let interruptible =
        WorkflowExecutionConfig { interruptible: Some(false), ..labelled("project") };
    set(&f, "p", WorkflowExecutionConfig { interruptible: Some(true), ..interruptible }).await;
    set(&f, "p:d", WorkflowExecutionConfig { interruptible: Some(false), ..labelled("domain") })
        .await;
    let account = SecurityContext {
        run_as: Some(Identity { k8s_service_account: "batch".to_owned(), ..Default::default() }),
        ..Default::default()
    };
    set(
        &f,
        "p:d:w",
        WorkflowExecutionConfig { security_context: Some(account.clone()), ..parallel(300) },
    )
    .await;
    let resolved = all.resolve(&at("p:d:w")).await.unwrap();
    let merged = &resolved.merged;
    assert_eq!((merged.max_parallelism, &merged.security_context), (300, &Some(account)));
    assert_eq!(merged.interruptible, Some(false));
    assert_eq!(merged.labels, labelled("domain").labels);
    assert_eq!(resolved.sources["/max_parallelism"], at("p:d:w"));
    assert_eq!(resolved.sources["/labels/values/domain"], at("p:d"));
}

async fn bytes_of_another_kind_are_an_internal_error(f: Fixture) {
    let s = service(&f);
    let raw = Attributes::new(Arc::clone(&f.store), holder("ann"))
        .of_kind(Kind::unchecked(KindName::new("EXECUTION_QUEUE").unwrap()));
    let invalid = serde_json::json!("i'm invalid!");
    raw.update(&AttributePath::project("p").unwrap(), invalid, Expected::Any).await.unwrap();
    let error = s.get_project_attributes("p", QUEUE).await.unwrap_err();
    assert_eq!(error.code(), Code::Internal);
    assert!(error.to_string().starts_with("EXECUTION_QUEUE of p cannot be read: "), "{error}");
    // In a listing it hides nothing else.
    s.update_project_attributes(of_project("q", tags(&["x"]))).await.unwrap();
    assert_eq!(s.list_matchable_attributes(QUEUE).await.unwrap().len(), 1);
}

/// A repository's error is the answer's, and an update that merges is no exception.
#[tokio::test]
async fn errors_of_the_store_pass_through() {
    let server = crate::support::server::Server::start();
    let store = super::connect(&server.url()).await;
    let s = FlyteAttributes::new(&Attributes::new(store, holder("flyteadmin")));
    drop(server);
    let results = [
        s.update_project_attributes(of_project("p", tags(&["x"]))).await,
        s.update_project_attributes(of_project("p", plugins(&[("python", "a")]))).await,
        s.get_project_attributes("p", QUEUE).await.map(drop),
        s.get_resource(&request(["p", "d", "w", ""], QUEUE)).await.map(drop),
        s.list_matchable_attributes(QUEUE).await.map(drop),
        s.delete_project_attributes("p", QUEUE).await,
    ];
    for result in results {
        let error = result.unwrap_err();
        assert_eq!(error.code(), Code::Unavailable, "{error}");
        assert!(error.is_retryable());
    }
}
