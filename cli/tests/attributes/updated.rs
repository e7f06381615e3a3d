//! `update`, case by case as flytectl's own tests.

use serde_json::json;

use super::{Attributes, OF_DOMAIN};

/// The levels, as a file has them and as the message says.
const LEVELS: [(&str, &str, &str); 5] = [
    ("project: p\n", "p", "p project"),
    ("project: p\ndomain: d\n", "p:d", "p project and domain d"),
    ("project: p\ndomain: d\nworkflow: w\n", "p:d:w", "p project and domain d and workflow w"),
    (
        "project: p\ndomain: d\nworkflow: w:1\nlaunch_plan: l\n",
        "p:d:w%3A1:l",
        "p project and domain d and workflow w:1 and launch plan l",
    ),
    ("domain: d\n", ":d", "every project and domain d"),
];

const LABEL: &str = "EXECUTION_CLUSTER_LABEL";
const UPDATE: &str = "update execution-cluster-label --attrFile f.yaml";

#[test]
fn a_file_has_to_be_named() {
    let attributes = Attributes::start();
    attributes
        .tokenpool("update task-resource-attribute")
        .fails_with(2, "attrFile is mandatory while calling update for task resource");
    let run = attributes.tokenpool("update attributes X --unchecked").exits_with(2);
    assert!(run.stderr.contains("attrFile is mandatory"), "{run:?}");
    attributes.server.is_empty();
}

#[test]
fn a_file_has_to_be_there() {
    let attributes = Attributes::start();
    attributes.tokenpool(UPDATE).fails_with(
        2,
        "unable to read from f.yaml yaml file: No such file or directory (os error 2)",
    );
    std::fs::create_dir(attributes.path("f.yaml")).unwrap();
    let run = attributes.tokenpool(UPDATE).exits_with(2);
    assert!(run.stderr.contains("unable to read from f.yaml yaml file: "), "{run:?}");
}

#[test]
fn a_malformed_file_is_refused_before_anything_is_asked() {
    let attributes = Attributes::start();
    attributes.write("f.yaml", "InvalidDomain: development\nproject: p\nvalue: v\n");
    attributes.tokenpool(UPDATE).fails_with(
        2,
        "f.yaml: document 1, line 1: InvalidDomain: unknown field `InvalidDomain`, expected `value`",
    );
    attributes.server.is_empty();
}

#[test]
fn every_level_is_set_with_force() {
    for (place, path, words) in LEVELS {
        let attributes = Attributes::start();
        attributes.write("f.yaml", format!("{place}value: v\n"));
        let run = attributes.tokenpool(&format!("{UPDATE} --force")).exits_with(0);
        assert_eq!(
            run.stdout,
            format!(
                "The following changes are to be applied.\n\
                 --- {LABEL} of {path}, not set\n\
                 +++ {LABEL} of {path}, after\n\
                 @@ -0,0 +1 @@\n\
                 +value: v\n\
                 Updated attributes from {words}\n"
            )
        );
        assert_eq!(run.stderr, "");
        assert_eq!(attributes.stored(LABEL, path).as_deref(), Some(r#"{"value":"v"}"#));
    }
}

#[test]
fn without_force_somebody_is_asked() {
    for (place, path, _) in LEVELS {
        let attributes = Attributes::start();
        attributes.write("f.yaml", format!("{place}value: v\n"));
        // Nobody is there to answer.
        let run = attributes.tokenpool(UPDATE).exits_with(3);
        assert_eq!(run.stderr, "Continue? [y/n]: error: update aborted by user\n");
        for typed in ["n\n", "NO\n", "maybe\nn\n", "maybe"] {
            let run = attributes.typing(UPDATE, typed).exits_with(3);
            assert!(run.stderr.ends_with("error: update aborted by user\n"), "{run:?}");
        }
        assert_eq!(attributes.stored(LABEL, path), None);
        let run = attributes.typing(UPDATE, "perhaps\nY\n").exits_with(0);
        assert_eq!(run.stderr, "Continue? [y/n]: Continue? [y/n]: ");
        assert!(attributes.stored(LABEL, path).is_some());
    }
}

#[test]
fn a_dry_run_changes_nothing_with_or_without_force() {
    for (place, ..) in LEVELS {
        let attributes = Attributes::start();
        attributes.write("f.yaml", format!("{place}value: v\n"));
        for options in ["--dryRun", "--dryRun --force", "--dry-run"] {
            let run = attributes.tokenpool(&format!("{UPDATE} {options}")).exits_with(0);
            assert!(run.stdout.contains("+value: v\n"), "{run:?}");
            assert!(run.stdout.ends_with("Skipping update request (dryRun)\n"), "{run:?}");
            assert_eq!(run.stderr, "");
        }
        let answer =
            attributes.tokenpool(&format!("{UPDATE} --dryRun -o json")).exits_with(0).json();
        assert_eq!(answer["applied"], false);
        attributes.server.is_empty();
    }
}

#[test]
fn a_server_that_fails_is_a_failure() {
    for (place, ..) in LEVELS {
        let mut attributes = Attributes::start();
        attributes.write("f.yaml", format!("{place}value: v\n"));
        attributes.server.kill();
        let run = attributes.tokenpool(&format!("{UPDATE} --force")).exits_with(1);
        assert!(run.stdout.is_empty() && run.stderr.contains(" is not available: "), "{run:?}");
    }
}

#[test]
fn a_change_has_stable_json() {
    let attributes = Attributes::start();
    attributes.write("f.yaml", "project: p\nvalue: v\n");
    attributes.tokenpool(&format!("{UPDATE} --force")).exits_with(0);
    attributes.write("f.yaml", "project: p\nvalue: w\n---\nproject: p\ndomain: d\nvalue: w\n");
    assert_eq!(
        attributes.tokenpool(&format!("{UPDATE} --force -o json")).exits_with(0).json(),
        json!({"applied": true, "unchanged": 0, "changes": [
            {
                "kind": LABEL, "project": "p", "domain": null, "workflow": null, "launch_plan": null,
                "action": "update", "before": {"value": "v"}, "version_before": 1,
                "after": {"value": "w"}, "version": 2, "applied": true,
            },
            {
                "kind": LABEL, "project": "p", "domain": "d", "workflow": null, "launch_plan": null,
                "action": "create", "before": null, "version_before": null,
                "after": {"value": "w"}, "version": 1, "applied": true,
            },
        ]})
    );
    // Who is asked sees the changes on stderr, so that stdout stays JSON.
    attributes.write("f.yaml", "project: p\nvalue: x\n");
    let run = attributes.typing(&format!("{UPDATE} -o json"), "y\n").exits_with(0);
    assert!(run.stderr.contains("-value: w\n+value: x\nContinue?"), "{run:?}");
    assert_eq!(run.json()["changes"][0]["version"], 3);
}

#[test]
fn a_file_may_come_from_stdin() {
    let attributes = Attributes::start();
    let update = "update execution-cluster-label --attr-file - --force";
    attributes.typing(update, "project: p\nvalue: v\n").exits_with(0);
    assert!(attributes.stored(LABEL, "p").is_some());
    let run = attributes.typing(update, "project: p\nvalue: [").exits_with(2);
    assert!(run.stderr.starts_with("error: stdin: document 1, line 2: "), "{run:?}");
}

#[test]
fn what_cannot_be_read_is_shown_and_replaced_but_not_merged_over() {
    let attributes = Attributes::start();
    attributes.write("f.yaml", "project: p\nvalue: v\n");
    attributes.tokenpool(&format!("{UPDATE} --force")).exits_with(0);
    for (stored, shown) in
        [("nonsense", "-# cannot be read: "), ("1 2 me {\"old\":1}", "-old: 1\n")]
    {
        let mut command = redis::cmd("HSET");
        command.arg(format!("tokenpool:attributes:{LABEL}")).arg("p").arg(stored);
        let _: i64 = command.query(&mut attributes.server.raw()).unwrap();
        let run = attributes.tokenpool("get execution-cluster-label -p p").exits_with(1);
        assert!(run.stderr.contains("EXECUTION_CLUSTER_LABEL of p cannot be read: "), "{run:?}");
        let run = attributes.tokenpool(&format!("{UPDATE} --force")).exits_with(0);
        assert!(run.stdout.contains(shown) && run.stdout.contains("+value: v\n"), "{run:?}");
        attributes.tokenpool("get execution-cluster-label -p p").exits_with(0);
    }
    attributes.write("o.yaml", "project: p\noverrides: [{task_type: a, plugin_id: [b]}]\n");
    let update = "update plugin-override --attrFile o.yaml --force";
    attributes.tokenpool(update).exits_with(0);
    attributes.server.ask::<i64>("HSET tokenpool:attributes:PLUGIN_OVERRIDE p nonsense");
    let run = attributes.tokenpool(update).exits_with(1);
    assert!(run.stderr.contains("--replace replaces it"), "{run:?}");
    attributes.tokenpool(&format!("{update} --replace")).exits_with(0);
}

#[test]
fn of_a_kind_that_nobody_knows_everything_is_taken_once_asked_for() {
    let attributes = Attributes::start();
    attributes.write("f.yaml", "project: billing\ndomain: production\nany: [1, {thing: 2.5}]\n");
    let update = "update attributes OF_NOBODY --attrFile f.yaml --force";
    let run = attributes.tokenpool(update).exits_with(2);
    assert!(
        run.stderr.contains("invalid kind \"OF_NOBODY\": must be one that this program knows"),
        "{run:?}"
    );
    attributes.server.is_empty();
    attributes.tokenpool(&format!("{update} --unchecked")).exits_with(0);
    let found = attributes
        .tokenpool(&format!("get attributes OF_NOBODY {OF_DOMAIN} -o json"))
        .exits_with(0);
    assert_eq!(found.json()["attributes"], json!({"any": [1, {"thing": 2.5}]}));
    // A known kind is checked all the same.
    let run = attributes
        .tokenpool("update attributes task-resource --attrFile f.yaml --unchecked")
        .exits_with(2);
    assert!(run.stderr.contains("unknown field `any`"), "{run:?}");
    attributes.tokenpool("get of-nobody").exits_with(2);
    let run = attributes.tokenpool("get attributes of-nobody").exits_with(2);
    assert!(run.stderr.contains("capital letters"), "{run:?}");
    attributes.tokenpool(&format!("delete attributes OF_NOBODY {OF_DOMAIN} --force")).exits_with(0);
    assert_eq!(attributes.stored("OF_NOBODY", "billing:production"), None);
    let history =
        attributes.tokenpool(&format!("get attributes OF_NOBODY {OF_DOMAIN} --history -o json"));
    assert_eq!(history.exits_with(0).json()[0]["deleted"], true);
}
