//! Files that are wrong: named with document and line, and nothing of them is applied.

use super::Attributes;

fn refused(file: impl AsRef<[u8]>, error: &str) {
    let attributes = Attributes::start();
    attributes.write("f.yaml", file);
    attributes.tokenpool("apply --force -f f.yaml").fails_with(2, &format!("f.yaml: {error}"));
    attributes.server.is_empty();
}

#[test]
fn what_is_wrong_is_named_with_its_line() {
    let task = "kind: task-resource\nproject: p\n";
    let plugin = "kind: plugin-override\nproject: p\noverrides:\n";
    for (file, error) in [
        (
            &*format!("{task}defaults:\n  memory: 1Gi\n  cpu: lots\n"),
            "1, line 5: defaults.cpu \"lots\": must be a Kubernetes quantity that is not negative, like 2, 500m, 1.5Gi or 1e3",
        ),
        (
            &format!("{task}# 1\n\ndefaults: {{cpu: [2]}}\n"),
            "1, line 5: defaults.cpu: invalid type: sequence, expected a quantity",
        ),
        (
            &format!("{task}limits:\n  cpu: '2'\n  cpus: '2'\n"),
            "1, line 5: limits.cpus: unknown field `cpus`, expected one of `cpu`, `gpu`, `memory`, `storage`, `ephemeral_storage`",
        ),
        (
            &format!(
                "{plugin}- task_type: a\n  plugin_id: [x]\n- plugin_id: [y]\n  task_type: ''\n"
            ),
            "1, line 7: overrides[1].task_type: must not be empty",
        ),
        (
            &format!("{plugin}- task_type: a\n"),
            "1, line 4: overrides[0].plugin_id: must not be empty unless missing_plugin_behavior is USE_DEFAULT",
        ),
        (
            &format!("{task}limits: {{cpu: 1}}\n---\n{task}workflow: w\n"),
            "2, line 7: invalid workflow \"w\": needs a domain",
        ),
        (
            "kind: task-resource\nproject: a:b\n",
            "1, line 2: invalid project \"a:b\": must not contain ':'",
        ),
        (
            "kind: task-resource\nproject: p\ndomain: \"d\\tx\"\n",
            "1, line 3: invalid domain \"d\\tx\": must not contain the control character '\\t'",
        ),
        (
            "kind: task-resource\n",
            "1, line 1: invalid project \"\": must not be empty without a domain",
        ),
        ("kind: task-resource\nproject: 1\n", "1, line 2: project 1: must be a text; quote it"),
        ("kind: [task-resource]\nproject: 1\n", "1, line 1: kind: must be a text"),
        ("- project: p\n", "1, line 1: must be a mapping of project, domain and so on"),
        ("kind: task-resource\nproject: p\n", "1, line 1: must set something"),
        (
            &format!("{task}limits: {{cpu: 1}}\n---\nproject: p\nproject: q\n"),
            "2, line 6: duplicate mapping key: project",
        ),
        (&format!("{task}limits: {{cpu: '1'\n"), "1, line 3: unclosed bracket '{'"),
        (
            &format!("{task}limits: {{cpu: '1'}}\n---\n{task}limits: {{cpu: '2'}}\n"),
            "2, line 5: TASK_RESOURCE of p stands already in f.yaml: document 1, line 1",
        ),
    ] {
        refused(file, &format!("document {error}"));
    }
}

#[test]
fn what_is_no_text_is_named_with_its_line() {
    let label = b"project: p\nvalue: v\n---\nproject: q\nvalue: ";
    refused([label, &b"\xff\n"[..]].concat(), "line 5: the line must be text in UTF-8");
    let long = "v".repeat(16 << 20);
    refused([label, long.as_bytes()].concat(), "line 5: the line must not be longer than 16 MiB");
}

#[test]
fn aliases_that_make_too_much_of_a_file_are_refused() {
    let tens = |name, of: &str| format!("{name}: &{name} [{}]\n", [of; 10].join(", "));
    let names = ["a", "b", "c", "d", "e", "f"];
    let mut file = "project: p\n".to_owned() + &tens("a", "x");
    for names in names.windows(2) {
        file += &tens(names[1], &format!("*{}", names[0]));
    }
    let error = "must not have that many parts, those that aliases repeat counted each time";
    refused(file, &format!("document 1, line 7: {error}"));
}

/// As Flyte's own files are written: nobody quotes such a name.
#[test]
fn a_name_with_leading_zeros_is_text() {
    let attributes = Attributes::start();
    attributes.write("f.yaml", "kind: execution-cluster-label\nproject: 007\nvalue: 0010\n");
    attributes.tokenpool("apply --force -f f.yaml").exits_with(0);
    let stored = attributes.stored("EXECUTION_CLUSTER_LABEL", "007");
    assert!(stored.is_some_and(|stored| stored.contains("0010")));
}

#[test]
fn a_file_without_a_document_is_refused() {
    let attributes = Attributes::start();
    attributes.write("f.yaml", "# nothing\n---\n---\n");
    for verb in ["update", "delete"] {
        let command = format!("{verb} task-resource --force --attrFile f.yaml");
        attributes.tokenpool(&command).fails_with(2, "f.yaml: has no document");
    }
}

#[test]
fn what_fits_no_kind_needs_one() {
    refused("project: p\n", &format!("document 1, line 1: needs a kind: it fits none of {KINDS}"));
}

#[test]
fn a_kind_that_nobody_knows_is_named_with_those_that_are_known() {
    let attributes = Attributes::start();
    attributes.write("f.yaml", "project: p\nkind: OF_NOBODY\n");
    let run = attributes.tokenpool("apply --force -f f.yaml").exits_with(2);
    let error = "error: f.yaml: document 1, line 2: kind \"OF_NOBODY\": must be one that this program knows (CLUSTER_";
    assert!(run.stderr.starts_with(error) && run.stderr.contains("TASK_RESOURCE"), "{run:?}");
    let run = attributes.tokenpool("update task-resource --force --attrFile f.yaml").exits_with(2);
    assert!(
        run.stderr.contains("kind \"OF_NOBODY\": must be TASK_RESOURCE or left out"),
        "{run:?}"
    );
}

/// What is too long for the store is refused with the rest of the file.
#[test]
fn oversized_attributes_are_refused() {
    let long = "x".repeat(1 << 20);
    let length = (1 << 20) + r#"{"value":""}"#.len();
    refused(
        format!("project: p\nvalue: v\n---\nproject: q\nvalue: {long}\n"),
        &format!("document 2, line 4: needs a kind: it fits none of {}", KINDS),
    );
    refused(
        format!(
            "project: p\nvalue: v\n---\nkind: execution-cluster-label\nproject: q\nvalue: {long}\n"
        ),
        &format!(
            "document 2, line 4: {length} bytes: must not be longer than 1048576 bytes in JSON"
        ),
    );
}

const KINDS: &str = "CLUSTER_ASSIGNMENT, CLUSTER_RESOURCE, EXECUTION_CLUSTER_LABEL, EXECUTION_QUEUE, PLUGIN_OVERRIDE, \
                     QUALITY_OF_SERVICE_SPECIFICATION, RESOURCE_CONSTRAINTS, TASK_RESOURCE, \
                     WORKFLOW_EXECUTION_CONFIG; with a kind the reason can be told";

#[test]
fn of_a_file_with_one_bad_document_nothing_is_applied() {
    let attributes = Attributes::start();
    let good = |place: usize| format!("---\nproject: p{place}\ntags: [a]\n");
    for bad in 0..3 {
        let documents = (0..3).map(|place| match place == bad {
            true => "---\nproject: p\ntags: a\n".to_owned(),
            false => good(place),
        });
        attributes.write("f.yaml", documents.collect::<String>());
        let line = 3 * bad + 3;
        let error = format!(
            "f.yaml: document {}, line {line}: tags: invalid type: string \"a\", expected a sequence",
            bad + 1
        );
        attributes
            .tokenpool("update execution-queue --force --attrFile f.yaml")
            .fails_with(2, &error);
        attributes.server.is_empty();
    }
}

/// The files of the reference, as they are.
#[test]
fn flytectls_files_are_taken_as_they_are() {
    let files = [
        (
            "task-resource-attribute",
            "workflow: app.reports.nightly      # optional\n\
             defaults: {cpu: \"2\", memory: 4Gi, gpu: \"1\", storage: 1Gi, ephemeral_storage: 10Gi}\n\
             limits:   {cpu: \"8\", memory: 16Gi}\n",
        ),
        (
            "cluster-resource-attribute",
            "attributes: {projectQuotaCpu: \"400\", projectQuotaMemory: 2000Gi}\n",
        ),
        ("execution-queue-attribute", "tags: [critical, default]\n"),
        ("execution-cluster-label", "value: onprem-gpu\n"),
        (
            "plugin-override",
            "overrides:\n  - task_type: spark\n    plugin_id: [databricks, spark]\n    missing_plugin_behavior: 1\n",
        ),
        (
            "workflow-execution-config",
            "max_parallelism: 40\n\
             security_context: {run_as: {k8s_service_account: batch, iam_role: arn-x}}\n\
             raw_output_data_config: {output_location_prefix: \"s3://bkt/x\"}\n\
             labels: {values: {team: fin}}\n\
             annotations: {values: {note: ok}}\n\
             interruptible: {value: true}\n\
             overwrite_cache: false\n\
             envs: {values: [{key: MODE, value: fast}]}\n",
        ),
    ];
    let attributes = Attributes::start();
    for (kind, fields) in files {
        attributes.write("f.yaml", format!("project: billing\ndomain: production\n{fields}"));
        attributes.tokenpool(&format!("update {kind} --force --attrFile f.yaml")).exits_with(0);
        // And so is what is written.
        let place = if fields.starts_with("workflow") { "app.reports.nightly" } else { "" };
        let get = format!("get {kind} -p billing -d production {place} --attrFile g.yaml --force");
        attributes.tokenpool(&get).exits_with(0);
        let run = attributes.tokenpool(&format!("update {kind} --attrFile g.yaml")).exits_with(0);
        assert_eq!(run.stdout, "No changes detected. Skipping the update.\n");
    }
}
