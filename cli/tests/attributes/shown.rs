//! `get`: look-ups, where they were answered from, listings, and files.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use super::{Attributes, OF_DOMAIN, OF_WORKFLOW};

#[test]
fn a_look_up_prints_a_file_that_update_takes() {
    let attributes = Attributes::with_task_resources();
    let run =
        attributes.tokenpool(&format!("get task-resource-attribute {OF_DOMAIN}")).exits_with(0);
    let (head, file) = run.stdout.split_once('\n').unwrap();
    assert!(
        head.starts_with("# set at billing:production, version 1, 20")
            && head.ends_with("Z by ada@bridge")
    );
    assert_eq!(
        file,
        "kind: TASK_RESOURCE\nproject: billing\ndomain: production\ndefaults:\n  cpu: \"2\"\n  memory: 4Gi\n"
    );
    attributes.write("f.yaml", &run.stdout);
    let run = attributes.tokenpool("update task-resource --attrFile f.yaml").exits_with(0);
    assert_eq!(run.stdout, "No changes detected. Skipping the update.\n");
}

#[test]
fn a_look_up_has_stable_json() {
    let attributes = Attributes::with_task_resources();
    let found = attributes
        .tokenpool(&format!("get task-resource {OF_WORKFLOW} -o json"))
        .exits_with(0)
        .json();
    let place = json!({"project": "billing", "domain": "production", "workflow": "nightly", "launch_plan": null});
    assert_eq!(
        found,
        json!({
            "kind": "TASK_RESOURCE",
            "project": "billing", "domain": "production", "workflow": "nightly", "launch_plan": null,
            "found_at": place, "inherited": false, "version": 1, "at": found["at"], "by": "ada@bridge",
            "attributes": {"defaults": {"cpu": "16"}},
        })
    );
    let launch_plan = format!("get task-resource {OF_WORKFLOW} --launch-plan l -o json");
    assert_eq!(attributes.tokenpool(&launch_plan).exits_with(0).json()["found_at"], place);
}

#[test]
fn what_is_not_set_has_status_3() {
    let attributes = Attributes::with_task_resources();
    for options in ["", " --resolve", " --exact", " --history", " --attrFile f.yaml"] {
        attributes.tokenpool(&format!("get task-resource -p other -d staging w{options}")).fails_with(
            3,
            "Resource [{Project:other Domain:staging Workflow:w LaunchPlan: ResourceType:TASK_RESOURCE}] not found",
        );
    }
    assert!(!attributes.path("f.yaml").exists());
    let run = attributes.tokenpool("get plugin-override").exits_with(0);
    assert_eq!(
        (run.stdout.as_str(), run.stderr.as_str()),
        ("", "no attributes of PLUGIN_OVERRIDE\n")
    );
}

#[test]
fn a_resolution_shows_the_winner_and_where_each_field_is_from() {
    let attributes = Attributes::with_task_resources();
    let resolve = format!("get task-resource {OF_WORKFLOW} --resolve");
    let shown = attributes.tokenpool(&format!("{resolve} -o json")).exits_with(0).json();
    let places: Vec<_> =
        shown["levels"].as_array().unwrap().iter().map(|level| &level["workflow"]).collect();
    assert_eq!(places, [&json!("nightly"), &json!(null)]);
    assert_eq!(shown["levels"][0]["attributes"], json!({"defaults": {"cpu": "16"}}));
    assert_eq!(shown["merged"]["defaults"]["cpu"], "16");
    assert_eq!(shown["sources"]["/defaults/cpu"]["workflow"], "nightly");

    let text = attributes.tokenpool(&resolve).exits_with(0).stdout;
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[1].starts_with("*  billing:production:nightly  workflow  1        "), "{text}");
    assert!(lines[2].starts_with("   billing:production          domain    1        "), "{text}");
    let from = |field: &str| {
        lines.iter().find(|line| line.starts_with(field)).copied().unwrap_or_default()
    };
    assert!(from("/defaults/cpu").ends_with("\"16\"   billing:production:nightly"), "{text}");
}

#[test]
fn a_listing_is_filtered_by_project_and_domain() {
    let attributes = Attributes::start();
    let label = |place: &str| format!("---\n{place}value: v\n");
    let places =
        ["domain: d", "project: a", "project: a\ndomain: d", "project: b\ndomain: d\nworkflow: w"];
    let file: String = places.iter().map(|place| label(&format!("{place}\n"))).collect();
    attributes.write("f.yaml", &file);
    attributes.tokenpool("update execution-cluster-label --attrFile f.yaml --force").exits_with(0);
    for (options, expected) in [
        ("", &["-:d", "a:-", "a:d", "b:d"][..]),
        ("--list", &["-:d", "a:-", "a:d", "b:d"]),
        ("--list -p a", &["a:-", "a:d"]),
        ("--list -d d", &["-:d", "a:d", "b:d"]),
        ("--list -p b -d d", &["b:d"]),
        ("--list -p c", &[]),
    ] {
        let list = attributes
            .tokenpool(&format!("get execution-cluster-label {options} -o json"))
            .exits_with(0)
            .json();
        let name = |name: &serde_json::Value| name.as_str().unwrap_or("-").to_owned();
        let rows = list.as_array().unwrap().iter();
        let rows: Vec<_> =
            rows.map(|row| format!("{}:{}", name(&row["project"]), name(&row["domain"]))).collect();
        assert_eq!(rows, expected, "{options}");
    }
    let list = attributes.tokenpool("get execution-cluster-label --list -p b -o json").json();
    assert_eq!(
        list,
        json!([{
            "kind": "EXECUTION_CLUSTER_LABEL",
            "project": "b", "domain": "d", "workflow": "w", "launch_plan": null,
            "version": 1, "at": list[0]["at"], "by": "ada@bridge", "attributes": {"value": "v"},
        }])
    );
    let text = attributes.tokenpool("get execution-cluster-label").exits_with(0).stdout;
    let lines: Vec<_> = text.lines().collect();
    assert!(
        lines[0].starts_with("PROJECT  DOMAIN  WORKFLOW  LAUNCH PLAN  VERSION  SET "),
        "{text}"
    );
    assert!(lines[1].starts_with("(all)    d       -         -            1        20"), "{text}");
    assert!(lines[4].ends_with("  ada@bridge  {\"value\":\"v\"}"), "{text}");
}

#[test]
fn records_that_cannot_be_read_are_named_and_counted_and_hide_no_other() {
    let attributes = Attributes::with_task_resources();
    attributes
        .server
        .ask::<i64>("HSET tokenpool:attributes:TASK_RESOURCE billing:production nonsense");
    for (command, error) in [
        (
            "get task-resource -o json",
            "error: TASK_RESOURCE of billing:production cannot be read: ",
        ),
        ("export -o json", "error: TASK_RESOURCE of billing:production cannot be read: "),
    ] {
        let run = attributes.tokenpool(command).exits_with(1);
        assert_eq!(run.json().as_array().unwrap().len(), 1, "{run:?}");
        assert!(
            run.stderr.starts_with(error)
                && run.stderr.ends_with("\nerror: 1 record(s) left out\n"),
            "{run:?}"
        );
    }
    attributes.tokenpool(&format!("get task-resource {OF_WORKFLOW}")).exits_with(0);
    let run = attributes.tokenpool(&format!("get task-resource {OF_DOMAIN}")).exits_with(1);
    assert!(run.stderr.contains("cannot be read"), "{run:?}");
}

#[test]
fn a_file_is_written_for_its_owner_and_not_overwritten_unasked() {
    let attributes = Attributes::with_task_resources();
    let get = format!("get task-resource {OF_DOMAIN} --attrFile f.yaml");
    let run = attributes.tokenpool(&get).exits_with(0);
    assert_eq!(run.stdout, "wrote the config to file f.yaml\n");
    let mode = std::fs::metadata(attributes.path("f.yaml")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let whole = attributes.read("f.yaml");
    assert!(whole.contains("memory: 4Gi"), "{whole}");

    attributes.write("f.yaml", "mine");
    for typed in ["", "n\n"] {
        let run = attributes.typing(&get, typed).exits_with(3);
        assert_eq!(
            run.stderr,
            "warning file f.yaml will be overwritten [y/n]: \
             error: error dumping in file due to backup the file before continuing\n"
        );
        assert_eq!(attributes.read("f.yaml"), "mine");
    }
    attributes.typing(&get, "y\n").exits_with(0);
    assert_eq!(attributes.read("f.yaml"), whole);
    attributes.write("f.yaml", "mine");
    let answer = attributes.tokenpool(&format!("{get} --force -o json")).exits_with(0).json();
    assert_eq!(answer, json!({"file": "f.yaml"}));
    assert_eq!(attributes.read("f.yaml"), whole);

    // What others could read is no longer to be read by them, and a link stays one.
    attributes.write("theirs.yaml", "theirs");
    std::os::unix::fs::symlink("theirs.yaml", attributes.path("link.yaml")).unwrap();
    let get = get.replace("f.yaml", "link.yaml");
    attributes.tokenpool(&format!("{get} --force")).exits_with(0);
    assert_eq!(attributes.read("theirs.yaml"), whole);
    assert!(attributes.path("link.yaml").is_symlink());
    let mode = std::fs::metadata(attributes.path("theirs.yaml")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let files = std::fs::read_dir(attributes.path(".")).unwrap().count();
    assert_eq!(files, 4, "t.yaml, f.yaml, theirs.yaml, link.yaml");
}

#[test]
fn a_file_may_go_to_stdout() {
    let attributes = Attributes::with_task_resources();
    let shown = attributes.tokenpool(&format!("get task-resource {OF_DOMAIN}")).exits_with(0);
    for standard in ["-", "/dev/stdout --force"] {
        let get = format!("get task-resource {OF_DOMAIN} --attrFile {standard}");
        let run = attributes.tokenpool(&get).exits_with(0);
        assert!(run.stdout.starts_with(&shown.stdout), "{run:?}");
        assert!(!attributes.path("-").exists());
    }
}

#[test]
fn what_would_turn_the_text_around_is_escaped() {
    let attributes = Attributes::start();
    attributes.write("f.yaml", "project: \"a\\u202Eb\"\nvalue: \"c\\u202Ed\"\n");
    let update = "update execution-cluster-label --attrFile f.yaml";
    let run = attributes.tokenpool(&format!("{update} --force")).exits_with(0);
    assert!(run.stdout.contains("+value: c\\u{202e}d\n"), "{run:?}");
    let list = attributes.tokenpool("get execution-cluster-label").exits_with(0);
    for run in [run, list] {
        assert!(run.stdout.contains("a\\u{202e}b") && !run.stdout.contains('\u{202e}'), "{run:?}");
    }
}

#[test]
fn that_nobody_can_read_the_errors_changes_no_exit_status() {
    let attributes = Attributes::start();
    for (arguments, status) in
        [("get task-resource -p p", 3), ("get task-resource", 0), ("get task-resource -d d x", 2)]
    {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let ended = attributes.command(arguments).stderr(full).status().unwrap();
        assert_eq!(ended.code(), Some(status), "{arguments}");
    }
}

#[test]
fn a_file_that_cannot_be_written_is_a_failure() {
    let attributes = Attributes::with_task_resources();
    attributes
        .tokenpool(&format!("get task-resource {OF_DOMAIN} --attrFile none/f.yaml"))
        .fails_with(
            1,
            "error dumping in file due to open none/f.yaml: No such file or directory (os error 2)",
        );
}

#[test]
fn a_server_that_fails_is_a_failure() {
    let mut attributes = Attributes::start();
    attributes.server.kill();
    for get in
        [&format!("get task-resource {OF_DOMAIN}"), "get task-resource", "export", "get kinds"]
    {
        let run = attributes.tokenpool(get).exits_with(1);
        assert!(run.stderr.contains(" is not available: "), "{run:?}");
    }
}

#[test]
fn kinds_are_listed_whether_known_or_stored() {
    let attributes = Attributes::start();
    attributes.server.ask::<i64>("SADD tokenpool:kinds OF_NOBODY");
    let list = attributes.tokenpool("get kinds -o json").exits_with(0).json();
    let row = |kind: &str| {
        list.as_array().unwrap().iter().find(|row| row["kind"] == kind).unwrap().clone()
    };
    assert_eq!(
        row("PLUGIN_OVERRIDE"),
        json!({
            "kind": "PLUGIN_OVERRIDE", "command": "plugin-override", "number": 5, "updates_merge": true,
            "stored": false,
        })
    );
    assert_eq!(
        row("OF_NOBODY"),
        json!({
            "kind": "OF_NOBODY", "command": null, "number": null, "updates_merge": null, "stored": true,
        })
    );
}

#[test]
fn kinds_are_in_help_completions_and_suggestions() {
    let attributes = Attributes::start();
    for verb in ["get", "update", "delete"] {
        let help = attributes.tokenpool(&format!("{verb} --help")).exits_with(0).stdout;
        assert!(
            help.contains("\n  task-resource ") && help.contains("task-resource-attribute"),
            "{help}"
        );
    }
    let script = attributes.tokenpool("completions bash").exits_with(0).stdout;
    assert!(script.contains("task-resource") && script.contains("plugin-override"));
    let run = attributes.tokenpool("get task-resuorce").exits_with(2);
    assert!(run.stderr.contains("task-resource"), "{run:?}");
}
