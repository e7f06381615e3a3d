//! `delete`, case by case as flytectl's own tests.

use serde_json::json;

use super::{Attributes, OF_DOMAIN, OF_WORKFLOW};

const DOMAIN: &str = "billing:production";
const WORKFLOW: &str = "billing:production:nightly";

#[test]
fn a_place_is_named_by_options() {
    for (place, path, words) in [
        (OF_DOMAIN, DOMAIN, "billing project and domain production"),
        (OF_WORKFLOW, WORKFLOW, "billing project and domain production and workflow nightly"),
    ] {
        let attributes = Attributes::with_task_resources();
        let delete = format!("delete task-resource-attributes {place} --force");
        let run = attributes.tokenpool(&delete).exits_with(0);
        let last = format!("Deleted matchable resources from {words}\n");
        assert!(run.stdout.ends_with(&last), "{run:?}");
        for other in [DOMAIN, WORKFLOW] {
            assert_eq!(attributes.stored("TASK_RESOURCE", other).is_none(), other == path);
        }
        // Again there is nothing to do.
        let run = attributes.tokenpool(&delete).exits_with(0);
        assert_eq!(run.stdout, "Nothing is set there. Skipping the delete.\n");
    }
}

#[test]
fn places_are_named_by_a_file() {
    let attributes = Attributes::with_task_resources();
    attributes.tokenpool("delete task-resource --attrFile t.yaml --force").exits_with(0);
    assert_eq!(
        [DOMAIN, WORKFLOW].map(|path| attributes.stored("TASK_RESOURCE", path)),
        [None, None]
    );
    // The place is enough.
    attributes.tokenpool("update task-resource --attrFile t.yaml --force").exits_with(0);
    attributes.write("f.yaml", "project: billing\ndomain: production\n");
    attributes.tokenpool("delete task-resource --attrFile f.yaml --force").exits_with(0);
    assert_eq!(attributes.stored("TASK_RESOURCE", DOMAIN), None);
    attributes.write("f.yaml", "kind: plugin-override\nproject: billing\n");
    attributes.tokenpool("delete task-resource --attrFile f.yaml --force").fails_with(
        2,
        "f.yaml: document 1, line 1: kind \"plugin-override\": must be TASK_RESOURCE or left out",
    );
}

#[test]
fn a_file_that_is_missing_or_wrong_deletes_nothing() {
    let attributes = Attributes::with_task_resources();
    let delete = "delete task-resource --force --attrFile f.yaml";
    let run = attributes.tokenpool(delete).exits_with(2);
    assert!(run.stderr.contains("unable to read from f.yaml yaml file"), "{run:?}");
    attributes.write("f.yaml", [super::DOMAIN, "---\nproject: p\nInvalidDomain: d\n"].concat());
    let run = attributes.tokenpool(delete).exits_with(2);
    assert!(
        run.stderr.contains("f.yaml: document 2, line 6: InvalidDomain: unknown field"),
        "{run:?}"
    );
    assert!(attributes.stored("TASK_RESOURCE", DOMAIN).is_some());
}

#[test]
fn a_place_has_to_be_named_and_whole() {
    let attributes = Attributes::with_task_resources();
    for (place, error) in [
        ("", "give the place, as --project P, or --attrFile FILE"),
        ("-p billing nightly", "invalid workflow \"nightly\": needs a domain"),
        ("nightly", "invalid workflow \"nightly\": needs a project"),
        ("-p billing -d production --launch-plan l", "invalid launch plan \"l\": needs a workflow"),
        ("-p b:c", "invalid project \"b:c\": must not contain ':'"),
        ("-p {b}", "invalid project \"{b}\": must not contain '{'"),
    ] {
        attributes.tokenpool(&format!("delete task-resource {place} --force")).fails_with(2, error);
        if !place.is_empty() {
            attributes.tokenpool(&format!("get task-resource {place}")).fails_with(2, error);
        }
    }
    let run =
        attributes.tokenpool("delete task-resource -p billing --attrFile t.yaml").exits_with(2);
    assert!(run.stderr.contains("cannot be used with"), "{run:?}");
}

#[test]
fn a_server_that_fails_is_a_failure() {
    let mut attributes = Attributes::start();
    attributes.server.kill();
    let run =
        attributes.tokenpool(&format!("delete task-resource {OF_WORKFLOW} --force")).exits_with(1);
    assert!(run.stderr.contains(" is not available: "), "{run:?}");
}

#[test]
fn a_deletion_has_stable_json() {
    let attributes = Attributes::with_task_resources();
    let delete = format!("delete task-resource {OF_WORKFLOW} --force -o json");
    assert_eq!(
        attributes.tokenpool(&delete).exits_with(0).json(),
        json!({"applied": true, "unchanged": 0, "changes": [{
            "kind": "TASK_RESOURCE",
            "project": "billing", "domain": "production", "workflow": "nightly", "launch_plan": null,
            "action": "delete", "before": {"defaults": {"cpu": "16"}}, "version_before": 1,
            "after": null, "version": null, "applied": true,
        }]})
    );
    assert_eq!(
        attributes.tokenpool(&delete).exits_with(0).json(),
        json!({"applied": true, "unchanged": 1, "changes": []})
    );
}

#[test]
fn what_cannot_be_read_can_be_deleted() {
    let attributes = Attributes::with_task_resources();
    attributes
        .server
        .ask::<i64>("HSET tokenpool:attributes:TASK_RESOURCE billing:production nonsense");
    let run =
        attributes.tokenpool(&format!("delete task-resource {OF_DOMAIN} --force")).exits_with(0);
    assert!(run.stdout.contains("-# cannot be read: "), "{run:?}");
    assert_eq!(attributes.stored("TASK_RESOURCE", DOMAIN), None);
}
