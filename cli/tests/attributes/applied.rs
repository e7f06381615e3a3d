//! `apply` and `export`: files are what is in force.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Attributes, DOMAIN, WORKFLOW};

const KINDS: [&str; 3] = ["TASK_RESOURCE", "PLUGIN_OVERRIDE", "EXECUTION_CLUSTER_LABEL"];

/// Every record, byte for byte.
fn all(attributes: &Attributes) -> Vec<BTreeMap<String, String>> {
    KINDS
        .map(|kind| attributes.server.ask(&format!("HGETALL tokenpool:attributes:{kind}")))
        .to_vec()
}

fn paths(attributes: &Attributes) -> Vec<String> {
    all(attributes).into_iter().flat_map(BTreeMap::into_keys).collect()
}

/// A directory with attributes of several kinds and places.
fn directory() -> Attributes {
    let attributes = Attributes::start();
    attributes.write(
        "d/10-task.yaml",
        format!("kind: TASK_RESOURCE\n{DOMAIN}---\nkind: task-resource\n{WORKFLOW}"),
    );
    attributes.write(
        "d/more/plugins.yml",
        "kind: plugin-overrides\nproject: billing-x\noverrides: [{task_type: a, plugin_id: [b]}]\n",
    );
    attributes.write(
        "d/more/label.yaml",
        "# no kind, but one only fits\ndomain: production\nvalue: \"on\"\n",
    );
    attributes.write("d/more/.hidden.yaml", "nonsense");
    attributes.write("d/README.md", "nonsense");
    attributes
}

#[test]
fn a_directory_comes_into_force_and_again_changes_nothing() {
    let attributes = directory();
    let run = attributes.tokenpool("apply -f d --dryRun").exits_with(3);
    assert!(run.stdout.ends_with("Skipping apply request (dryRun)\n"), "{run:?}");
    attributes.tokenpool("apply -f d").exits_with(3);
    attributes.server.is_empty();
    let run = attributes.typing("apply -f d", "yes\n").exits_with(0);
    let done: Vec<_> = run.stdout.lines().filter(|line| line.starts_with("Updated ")).collect();
    assert_eq!(
        done,
        [
            "Updated TASK_RESOURCE attributes from billing project and domain production",
            "Updated TASK_RESOURCE attributes from billing project and domain production and workflow nightly",
            "Updated EXECUTION_CLUSTER_LABEL attributes from every project and domain production",
            "Updated PLUGIN_OVERRIDE attributes from billing-x project",
        ]
    );
    let before = all(&attributes);
    for options in ["", "--dryRun", "--force", "--prune", "--prune --force --dryRun"] {
        let run = attributes.tokenpool(&format!("apply -f d {options}")).exits_with(0);
        assert_eq!(run.stdout, "No changes detected. Skipping the apply.\n");
    }
    assert_eq!(all(&attributes), before);
    let answer = attributes.tokenpool("apply -f d -o json").exits_with(0).json();
    assert_eq!(answer, json!({"applied": true, "unchanged": 4, "changes": []}));
}

/// What the files say is in force, also of a kind whose updates merge.
#[test]
fn what_a_file_leaves_out_is_gone() {
    let attributes = directory();
    attributes
        .write("o.yaml", "project: billing-x\noverrides: [{task_type: old, plugin_id: [b]}]\n");
    attributes.tokenpool("update plugin-override --attrFile o.yaml --force").exits_with(0);
    attributes.tokenpool("apply -f d --force").exits_with(0);
    let stored = attributes.stored("PLUGIN_OVERRIDE", "billing-x").unwrap();
    assert!(!stored.contains("old"), "{stored}");
}

#[test]
fn pruning_deletes_what_no_file_names_and_shows_it_first() {
    let attributes = directory();
    attributes.tokenpool("apply -f d --force").exits_with(0);
    attributes.write("other.yaml", "kind: OF_NOBODY\nproject: p\na: 1\n");
    attributes.tokenpool("apply -f other.yaml --force --unchecked").exits_with(0);
    std::fs::remove_file(attributes.path("d/10-task.yaml")).unwrap();
    attributes.write("d/20-task.yaml", format!("kind: TASK_RESOURCE\n{WORKFLOW}"));
    let everything = paths(&attributes);

    attributes.tokenpool("apply -f d --force").exits_with(0);
    assert_eq!(paths(&attributes), everything, "without --prune nothing is deleted");
    let run = attributes.tokenpool("apply -f d --prune --dryRun").exits_with(3);
    assert!(run.stdout.contains("+++ TASK_RESOURCE of billing:production, deleted\n"), "{run:?}");
    attributes.typing("apply -f d --prune", "n\n").exits_with(3);
    assert_eq!(paths(&attributes), everything);
    let run = attributes.tokenpool("apply -f d --prune --force").exits_with(0);
    let last = "Deleted TASK_RESOURCE attributes from billing project and domain production\n";
    assert!(run.stdout.ends_with(last), "{run:?}");
    assert_eq!(paths(&attributes), ["billing:production:nightly", "billing-x", ":production"]);
    assert!(
        attributes.stored("OF_NOBODY", "p").is_some(),
        "kinds that nobody knows are left alone"
    );
    attributes.tokenpool("apply -f d --prune --dryRun").exits_with(0);
}

/// A mistyped name must not delete everything.
/// What it holds would else be pruned, or be written over, unseen.
#[cfg(unix)]
#[test]
fn a_link_to_a_directory_is_an_error_and_changes_nothing() {
    let attributes = directory();
    attributes.tokenpool("apply -f d --force").exits_with(0);
    let before = all(&attributes);
    attributes.write("tree/a.yaml", "kind: TASK_RESOURCE\nproject: other\ndefaults: {cpu: '1'}\n");
    std::os::unix::fs::symlink(attributes.path("d"), attributes.path("tree/d")).unwrap();
    let error = "tree/d: links to a directory, and links to directories are not followed; name that directory itself";
    for command in ["apply -f tree --prune --force", "export -f tree --force"] {
        attributes.tokenpool(command).fails_with(2, error);
    }
    assert_eq!(all(&attributes), before);
}

#[test]
fn nothing_to_apply_is_an_error() {
    let attributes = directory();
    attributes.tokenpool("apply -f d --force").exits_with(0);
    let before = all(&attributes);
    std::fs::create_dir(attributes.path("empty")).unwrap();
    attributes.write("none.yaml", "# nothing\n---\n---\n");
    attributes
        .tokenpool("apply -f empty -f none.yaml --prune --force")
        .fails_with(2, "empty, none.yaml: no attributes in *.yaml or *.yml");
    attributes.tokenpool("apply -f nowhere --prune --force").fails_with(
        2,
        "unable to read from nowhere yaml file: No such file or directory (os error 2)",
    );
    assert_eq!(all(&attributes), before);
}

#[test]
fn the_same_twice_is_an_error_that_names_both_places() {
    let attributes = directory();
    attributes
        .write("d/more/again.yaml", format!("---\nkind: task-resource-attribute\n{WORKFLOW}"));
    attributes.tokenpool("apply -f d --force").fails_with(
        2,
        "d/more/again.yaml: document 1, line 2: TASK_RESOURCE of billing:production:nightly stands already in \
         d/10-task.yaml: document 2, line 6",
    );
    let run =
        attributes.tokenpool("apply -f d/10-task.yaml -f d/10-task.yaml --force").exits_with(2);
    assert!(run.stderr.contains("stands already in"), "{run:?}");
    attributes.server.is_empty();
}

#[test]
fn one_bad_document_among_many_files_applies_nothing() {
    let attributes = directory();
    attributes.write("d/zz.yaml", "kind: EXECUTION_QUEUE\nproject: p\ntags: [1]\n");
    attributes.tokenpool("apply -f d --force").fails_with(
        2,
        "d/zz.yaml: document 1, line 3: tags[0]: invalid type: integer `1`, expected a string",
    );
    attributes.server.is_empty();
}

#[test]
fn an_export_applied_changes_nothing_here_and_makes_the_same_elsewhere() {
    let attributes = directory();
    // Names that look like something else in YAML, or in a path.
    let odd = "\
kind: EXECUTION_CLUSTER_LABEL
project: ../x
domain: 'no'
workflow: 'a: %b'
launch_plan: '1e3'
value: \"line\\n 2\\t# end\"
---
kind: OF_NOBODY
project: 'on'
any: [1, 2.5, null, {'y': 'n', '': {}}, []]
";
    attributes.write("odd.yaml", odd);
    attributes.tokenpool("apply -f d -f odd.yaml --force --unchecked").exits_with(0);
    let before = all(&attributes);

    let stream = attributes.tokenpool("export").exits_with(0);
    assert_eq!(
        stream.stderr,
        "warning: this program does not know OF_NOBODY; apply it with --unchecked\n"
    );
    attributes.write("stream.yaml", &stream.stdout);
    let answer = attributes.tokenpool("export -f out -o json").exits_with(0).json();
    assert_eq!(
        answer,
        json!({"records": 6, "files": [
            "out/execution-cluster-label/%2E.%2Fx.yaml",
            "out/execution-cluster-label/@every-project.yaml",
            "out/of-nobody/on.yaml",
            "out/plugin-override/billing-x.yaml",
            "out/task-resource/billing.yaml",
        ]})
    );
    for files in ["stream.yaml", "out"] {
        let run = attributes
            .tokenpool(&format!("apply -f {files} --prune --dryRun --unchecked"))
            .exits_with(0);
        assert_eq!(run.stdout, "No changes detected. Skipping the apply.\n");
        let run = attributes.tokenpool(&format!("apply -f {files} --dryRun")).exits_with(2);
        assert!(run.stderr.contains("OF_NOBODY"), "{run:?}");
        let elsewhere = Attributes::start();
        let file = attributes.path(files);
        let apply = format!("apply -f {} --force --unchecked", file.display());
        elsewhere.tokenpool(&apply).exits_with(0);
        let values = |of: &Attributes| {
            let rows = of.tokenpool("export -o json").exits_with(0).json();
            let value = |row: &Value| {
                (row["kind"].clone(), row["project"].clone(), row["attributes"].clone())
            };
            rows.as_array().unwrap().iter().map(value).collect::<Vec<_>>()
        };
        assert_eq!(values(&elsewhere), values(&attributes));
        assert_eq!(elsewhere.tokenpool("export").stdout, stream.stdout);
    }
    assert_eq!(all(&attributes), before);
}

/// In the order of texts, `a-b` stands between `a` and `a:d`.
#[test]
fn records_of_one_project_that_are_not_together_go_into_one_file() {
    let attributes = Attributes::start();
    let places = ["project: a", "project: a-b", "project: a\ndomain: d"];
    let file: String = places.iter().map(|place| format!("---\n{place}\nvalue: v\n")).collect();
    attributes.write("f.yaml", &file);
    attributes.tokenpool("apply -f f.yaml --force").exits_with(0);
    let run = attributes.tokenpool("export -f out").exits_with(0);
    assert_eq!(run.stdout, "wrote 3 record(s) to 2 file(s)\n");
    assert_eq!(attributes.read("out/execution-cluster-label/a.yaml").matches("---\n").count(), 2);
    attributes.tokenpool("apply -f out --prune --dryRun").exits_with(0);
}

/// Some disks keep one file of two such names.
#[test]
fn projects_that_differ_in_case_alone_share_a_file() {
    let attributes = Attributes::start();
    attributes.write("f.yaml", "project: A\nvalue: v\n---\nproject: a\nvalue: w\n");
    attributes.tokenpool("update execution-cluster-label --attrFile f.yaml --force").exits_with(0);
    let run = attributes.tokenpool("export -f out").exits_with(0);
    assert_eq!(run.stdout, "wrote 2 record(s) to 1 file(s)\n");
    attributes.tokenpool("apply -f out --prune --dryRun").exits_with(0);
}

#[test]
fn an_export_that_fails_half_way_changes_no_file() {
    let attributes = directory();
    attributes.tokenpool("apply -f d --force").exits_with(0);
    let files = |directory: &str| -> Vec<_> {
        let entries = std::fs::read_dir(attributes.path(directory)).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    attributes.tokenpool("export -f out").exits_with(0);
    let before = files("out/task-resource");
    attributes.write("out/task-resource/billing.yaml", "mine");
    std::fs::remove_dir_all(attributes.path("out/plugin-override")).unwrap();
    attributes.write("out/plugin-override", "in the way");
    let run = attributes.tokenpool("export -f out --force").exits_with(1);
    assert!(run.stderr.contains("cannot be written"), "{run:?}");
    assert_eq!(attributes.read("out/task-resource/billing.yaml"), "mine");
    assert_eq!(files("out/task-resource"), before);
}

#[test]
fn a_directory_with_yaml_is_written_into_only_by_force_and_strangers_are_named() {
    let attributes = directory();
    attributes.tokenpool("apply -f d --force").exits_with(0);
    attributes.tokenpool("export -f out").exits_with(0);
    attributes.write("out/mine.yaml", "mine");
    let before = attributes.read("out/task-resource/billing.yaml");
    let run = attributes.tokenpool("export -f out").exits_with(2);
    assert!(
        run.stderr.contains("@every-project.yaml: is there already; --force writes"),
        "{run:?}"
    );
    let run = attributes.tokenpool("export -f out --force").exits_with(0);
    assert_eq!(run.stderr, "warning: out/mine.yaml was there already and is none of this export\n");
    assert_eq!(attributes.read("out/task-resource/billing.yaml"), before);
    assert_eq!(attributes.read("out/mine.yaml"), "mine");
}

#[test]
fn what_no_file_can_hold_is_named_and_left_out() {
    let attributes = directory();
    attributes.tokenpool("apply -f d --force").exits_with(0);
    attributes.server.ask::<i64>("SADD tokenpool:kinds OF_NOBODY");
    for (path, value) in [("p", "[1]"), ("q", "{\"project\":\"x\"}")] {
        let record = format!("1 2 me {value}");
        let mut command = redis::cmd("HSET");
        command.arg("tokenpool:attributes:OF_NOBODY").arg(path).arg(record);
        command.exec(&mut attributes.server.raw()).unwrap();
        attributes
            .server
            .ask::<i64>(&format!("ZADD {{tokenpool:attributes:OF_NOBODY}}:paths 0 {path}"));
    }
    let run = attributes.tokenpool("export").exits_with(1);
    assert_eq!(
        run.stderr,
        "warning: this program does not know OF_NOBODY; apply it with --unchecked\n\
         error: OF_NOBODY of p cannot be written as a file: it is no mapping of fields\n\
         error: OF_NOBODY of q cannot be written as a file: it has a field project of its own\n\
         error: 2 record(s) left out\n"
    );
    assert_eq!(run.stdout.matches("---\n").count(), 4);
    let found = attributes.tokenpool("get attributes OF_NOBODY -p p -o json").exits_with(0).json();
    assert_eq!(found["attributes"], json!([1]));
}

#[test]
fn files_are_applied_from_stdin() {
    let attributes = Attributes::start();
    attributes.typing("apply -f - --force", "project: p\nvalue: v\n").exits_with(0);
    assert!(attributes.stored("EXECUTION_CLUSTER_LABEL", "p").is_some());
}
