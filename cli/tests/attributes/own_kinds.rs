//! A program of one's own, with a kind of one's own: the example `workflow_priority`.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::{Attributes, OF_WORKFLOW};
use crate::program::{Run, run};

/// The example's program, which is built with the tests unless only some of them are.
fn example(attributes: &Attributes, arguments: &str) -> Run {
    let directory = Path::new(env!("CARGO_BIN_EXE_tokenpool")).parent().unwrap();
    let program = directory.join("examples/workflow_priority");
    assert!(program.exists(), "cargo build --package tokenpool-cli --example workflow_priority");
    let mut command = Command::new(program);
    command.args(arguments.split_whitespace()).env("TOKENPOOL_REDIS", attributes.server.url());
    run(command.current_dir(attributes.path("")).stdin(std::process::Stdio::null()))
}

#[test]
fn a_kind_of_one_s_own_has_every_command() {
    let attributes = Attributes::start();
    let file = |priority: i32| {
        let place = "project: billing\ndomain: production\nworkflow: nightly\n";
        attributes.write("f.yaml", format!("{place}priority: {priority}\n"));
    };
    file(10);
    let update = "update workflow-priority --force --attrFile f.yaml";
    example(&attributes, update)
        .fails_with(2, "f.yaml: document 1, line 4: priority \"10\": must be between 0 and 9");
    file(7);
    example(&attributes, update).exits_with(0);
    for word in ["workflow-priority", "workflow-priority-attributes"] {
        let found =
            example(&attributes, &format!("get {word} {OF_WORKFLOW} -o json")).exits_with(0).json();
        assert_eq!(found["attributes"], json!({"priority": 7}));
    }
    let list = example(&attributes, "get workflow-priority").exits_with(0).stdout;
    assert!(list.contains("nightly") && list.contains("{\"priority\":7}"), "{list}");
    let kinds = example(&attributes, "get kinds").exits_with(0).stdout;
    assert!(
        kinds.lines().any(|line| line.starts_with("WORKFLOW_PRIORITY") && line.contains("10")),
        "{kinds}"
    );
    // Only one kind fits.
    example(&attributes, "apply -f f.yaml --dryRun").exits_with(0);
    let script = example(&attributes, "completions zsh").exits_with(0).stdout;
    assert!(script.contains("workflow-priority"));
    example(&attributes, &format!("delete workflow-priority {OF_WORKFLOW} --force")).exits_with(0);
    example(&attributes, &format!("get workflow-priority {OF_WORKFLOW}")).exits_with(3);
}

/// The program that does not know the kind shows it all the same.
#[test]
fn a_kind_of_somebody_else_s_stays_readable() {
    let attributes = Attributes::start();
    attributes.write("f.yaml", "project: billing\npriority: 7\n");
    example(&attributes, "update workflow-priority --force --attrFile f.yaml").exits_with(0);
    let found = attributes
        .tokenpool("get attributes WORKFLOW_PRIORITY -p billing -o json")
        .exits_with(0)
        .json();
    assert_eq!(found["attributes"], json!({"priority": 7}));
    attributes.tokenpool("get workflow-priority").exits_with(2);
}
