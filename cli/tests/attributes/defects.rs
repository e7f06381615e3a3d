//! What is wrong with flytectl, and is not with this program: CTL-1 to CTL-8 of the list of defects.

use serde_json::json;

use super::{Attributes, OF_DOMAIN, OF_WORKFLOW};

const OVERRIDE: &str = "project: billing\ndomain: production\noverrides:\n";

fn override_of(task_type: &str, plugin: &str) -> String {
    format!("{OVERRIDE}  - task_type: {task_type}\n    plugin_id: [{plugin}]\n")
}

/// The baseline is what is set at exactly this place, so an inherited value can be pinned.
#[test]
fn ctl_1_a_workflow_can_be_pinned_to_the_value_that_it_inherits() {
    let attributes = Attributes::start();
    let domain = "project: billing\ndomain: production\nvalue: gpu\n";
    attributes.write("d.yaml", domain);
    attributes.write("w.yaml", format!("{domain}workflow: nightly\n"));
    attributes.tokenpool("update execution-cluster-label --attrFile d.yaml --force").exits_with(0);
    let run = attributes
        .tokenpool("update execution-cluster-label --attrFile w.yaml --force")
        .exits_with(0);
    assert!(run.stdout.contains("+value: gpu"), "{run:?}");
    let stored = || attributes.stored("EXECUTION_CLUSTER_LABEL", "billing:production:nightly");
    assert_eq!(stored().as_deref(), Some(r#"{"value":"gpu"}"#));
}

/// Nothing is merged into what is compared, nor stored.
#[test]
fn ctl_2_a_project_s_execution_config_is_compared_and_stored_as_it_is() {
    let attributes = Attributes::start();
    attributes.write("p.yaml", "project: billing\nmax_parallelism: 40\n");
    let update = "update workflow-execution-config --attrFile p.yaml --force -o json";
    let answer = attributes.tokenpool(update).exits_with(0).json();
    let change = &answer["changes"][0];
    assert_eq!(
        (&change["before"], &change["after"]["max_parallelism"]),
        (&json!(null), &json!(40))
    );
    let answer = attributes.tokenpool(update).exits_with(0).json();
    assert_eq!((&answer["changes"], &answer["unchanged"]), (&json!([]), &json!(1)));
}

/// What `get` writes is a template that `update` takes.
#[test]
fn ctl_3_a_file_to_begin_with_can_be_had_from_a_place_that_has_none() {
    let attributes = Attributes::with_task_resources();
    let get = "get task-resource -p billing -d production another --attrFile new.yaml";
    attributes.tokenpool(get).exits_with(0);
    attributes.tokenpool("update task-resource --attrFile new.yaml --force").exits_with(0);
    let stored = attributes.stored("TASK_RESOURCE", "billing:production:another");
    assert_eq!(stored, attributes.stored("TASK_RESOURCE", "billing:production"));
}

#[test]
fn ctl_4_a_dry_run_of_a_deletion_says_so_and_deletes_nothing() {
    let attributes = Attributes::with_task_resources();
    for options in ["--dryRun", "--dryRun --force"] {
        let delete = format!("delete task-resource {OF_WORKFLOW} {options}");
        let run = attributes.tokenpool(&delete).exits_with(0);
        assert!(run.stdout.ends_with("Skipping delete request (dryRun)\n"), "{run:?}");
        assert!(!run.stdout.contains("Deleted"), "{run:?}");
        let answer = attributes.tokenpool(&format!("{delete} -o json")).exits_with(0).json();
        assert_eq!(
            (&answer["applied"], &answer["changes"][0]["applied"]),
            (&json!(false), &json!(false))
        );
        assert!(attributes.stored("TASK_RESOURCE", "billing:production:nightly").is_some());
    }
}

#[test]
fn ctl_5_every_kind_can_be_got_of_a_project() {
    let attributes = Attributes::start();
    attributes.write("p.yaml", "project: billing\ntags: [critical]\n");
    attributes
        .tokenpool("update execution-queue-attribute --attrFile p.yaml --force")
        .exits_with(0);
    let found = attributes
        .tokenpool("get execution-queue-attribute -p billing -o json")
        .exits_with(0)
        .json();
    assert_eq!(found["attributes"], json!({"tags": ["critical"]}));
    assert_eq!((&found["domain"], &found["inherited"]), (&json!(null), &json!(false)));
}

#[test]
fn ctl_6_an_update_that_merges_shows_what_will_be_stored() {
    let attributes = Attributes::start();
    attributes.write("1.yaml", override_of("hive", "b"));
    attributes.write("2.yaml", override_of("python", "a"));
    attributes.tokenpool("update plugin-override --attrFile 1.yaml --force").exits_with(0);
    let run =
        attributes.tokenpool("update plugin-override --attrFile 2.yaml --force").exits_with(0);
    assert!(run.stdout.contains("+  task_type: python"), "{run:?}");
    assert!(!run.stdout.replace("\n---", "").contains("\n-"), "it removes nothing: {run:?}");
    let shown = attributes.tokenpool(&format!("get plugin-override {OF_DOMAIN} -o json")).json();
    let types = |of: &serde_json::Value| {
        let overrides = of["overrides"].as_array().unwrap();
        overrides.iter().map(|of| of["task_type"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(types(&shown["attributes"]), ["python", "hive"]);
    // The same again changes nothing.
    let run =
        attributes.tokenpool("update plugin-override --attrFile 2.yaml --force").exits_with(0);
    assert_eq!(run.stdout, "No changes detected. Skipping the update.\n");
    // Whoever wants to replace says so, and is shown that.
    let replace = "update plugin-override --attrFile 2.yaml --force --replace";
    let run = attributes.tokenpool(replace).exits_with(0);
    assert!(run.stdout.contains("-  task_type: hive"), "{run:?}");
    let shown = attributes.tokenpool(&format!("get plugin-override {OF_DOMAIN} -o json")).json();
    assert_eq!(types(&shown["attributes"]), ["python"]);
}

#[test]
fn ctl_7_one_file_sets_many_places_and_one_command_lists_them() {
    let attributes = Attributes::with_task_resources();
    let list = attributes.tokenpool("get task-resource -o json").exits_with(0).json();
    let places: Vec<_> = list.as_array().unwrap().iter().map(|row| &row["workflow"]).collect();
    assert_eq!(places, [&json!(null), &json!("nightly")]);
}

#[test]
fn ctl_8_a_deletion_asks_and_leaves_what_is_below() {
    let attributes = Attributes::with_task_resources();
    let delete = format!("delete task-resource {OF_DOMAIN}");
    for (typed, gone) in [("", false), ("n\n", false), ("y\n", true)] {
        let run = attributes.typing(&delete, typed);
        assert!(run.stdout.contains("-  cpu: \"2\""), "{run:?}");
        assert!(run.stderr.starts_with("Continue? [y/n]: "), "{run:?}");
        match gone {
            true => assert_eq!(run.status, 0),
            false => assert!(run.exits_with(3).stderr.ends_with("error: delete aborted by user\n")),
        }
        assert_eq!(attributes.stored("TASK_RESOURCE", "billing:production").is_none(), gone);
    }
    assert!(attributes.stored("TASK_RESOURCE", "billing:production:nightly").is_some());
}

/// MR-11, where the reader of Flyte's answer cannot tell.
#[test]
fn mr_11_what_is_inherited_is_seen_to_be() {
    let attributes = Attributes::with_task_resources();
    let get = "get task-resource -p billing -d production another";
    let found = attributes.tokenpool(&format!("{get} -o json")).exits_with(0).json();
    assert_eq!((&found["workflow"], &found["inherited"]), (&json!("another"), &json!(true)));
    assert_eq!(
        found["found_at"],
        json!({"project": "billing", "domain": "production", "workflow": null, "launch_plan": null})
    );
    let run = attributes.tokenpool(get).exits_with(0);
    assert!(run.stdout.starts_with("# inherited from billing:production, version 1, "), "{run:?}");
    attributes.tokenpool(&format!("{get} --exact")).exits_with(3);
}
