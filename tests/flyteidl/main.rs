//! Bytes and JSON against Flyte's own library in Python. `make flyteidl` installs it and runs this.
#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::env;
use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tokenpool::matchable::MatchingAttributes;

/// Names the Python that has flyteidl.
const PYTHON: &str = "TOKENPOOL_FLYTEIDL_PYTHON";

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/flyteidl/check.py");

/// What the script says to a command, a value on each line.
fn python(command: &str, input: &[Value]) -> Vec<Value> {
    let python = env::var(PYTHON)
        .expect("TOKENPOOL_FLYTEIDL_PYTHON names a Python with flyteidl; see `make flyteidl`");
    let mut child = Command::new(&python)
        .args([SCRIPT, command])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Python can be started");
    let lines: String = input.iter().map(|value| format!("{value}\n")).collect();
    let mut stdin = child.stdin.take().expect("it is piped");
    // The script reads all before it writes.
    stdin.write_all(lines.as_bytes()).expect("Python reads");
    drop(stdin);
    let output = child.wait_with_output().expect("Python ends");
    assert!(output.status.success(), "{python} {SCRIPT} {command}: {}", output.status);
    let text = String::from_utf8(output.stdout).expect("it is text");
    text.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
}

fn bytes(hex: &Value) -> Vec<u8> {
    let hex = hex.as_str().expect("it is text");
    let digits = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("it is hexadecimal");
    (0..hex.len()).step_by(2).map(digits).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Attributes of every kind, with every field set somewhere, and with values that are easily lost: empty, zero, not ASCII.
/// No key in a map begins with another: Python writes those in an order of its own, Go and this library by bytes.
fn samples() -> Vec<MatchingAttributes> {
    let secret = json!({"group": "g", "group_version": "v1", "key": "k", "mount_requirement": "FILE", "env_var": "K"});
    let client = json!({"client_id": "c", "client_secret": secret});
    let spec = json!({"cpu": "1", "gpu": "2", "memory": "3Gi", "storage": "4Gi", "ephemeral_storage": "5Gi"});
    let description = json!({
        "null": null, "true": true, "int": 7, "negative": -7, "float": 0.25, "text": "ü", "empty": "",
        "list": [1, [], {}], "map": {"b": 1, "a": 2}, "big": 9_007_199_254_740_992_i64, "huge": 1e300,
    });
    let samples = [
        json!({"task_resource_attributes": {}}),
        json!({"task_resource_attributes": {"defaults": spec, "limits": spec}}),
        json!({"task_resource_attributes": {"limits": {"cpu": "1"}}}),
        json!({"cluster_resource_attributes": {}}),
        json!({"cluster_resource_attributes": {"attributes": {"z": "", "a": "x", "B": "ß", "é": "1"}}}),
        json!({"cluster_resource_attributes": {"attributes": {"": ""}}}),
        json!({"execution_queue_attributes": {"tags": ["b", "a", "", "b"]}}),
        json!({"execution_cluster_label": {"value": "onprem-gpu"}}),
        json!({"quality_of_service": {"tier": "UNDEFINED"}}),
        json!({"quality_of_service": {"tier": "LOW"}}),
        json!({"quality_of_service": {"spec": {}}}),
        json!({"quality_of_service": {"spec": {"queueing_budget": "0s"}}}),
        json!({"quality_of_service": {"spec": {"queueing_budget": "1.000000001s"}}}),
        json!({"quality_of_service": {"spec": {"queueing_budget": "315576000000s"}}}),
        json!({"plugin_overrides": {"overrides": [
            {"task_type": "b", "plugin_id": ["x", "y"], "missing_plugin_behavior": "USE_DEFAULT"},
            {"task_type": "a", "plugin_id": ["x"]},
            {},
        ]}}),
        json!({"workflow_execution_config": {}}),
        json!({"workflow_execution_config": {"max_parallelism": -1, "interruptible": false}}),
        json!({"workflow_execution_config": {"max_parallelism": 2_147_483_647, "security_context": {}}}),
        json!({"workflow_execution_config": {
            "max_parallelism": 40,
            "security_context": {
                "run_as": {
                    "iam_role": "r", "k8s_service_account": "s", "oauth2_client": client, "execution_identity": "i",
                },
                "secrets": [secret, {"key": "k"}, {}],
                "tokens": [
                    {"name": "t", "type": "CLIENT_CREDENTIALS", "client": client,
                     "idp_discovery_endpoint": "https://a", "token_endpoint": "https://b"},
                    {"name": "u"},
                ],
            },
            "raw_output_data_config": {"output_location_prefix": "s3://bkt/x"},
            "labels": {"values": {"team": "fin", "empty": "", "a/b": "c"}},
            "annotations": {"values": {"note": "ok", "also": "line\nbreak"}},
            "interruptible": true,
            "overwrite_cache": true,
            "envs": {"values": [{"key": "MODE", "value": "fast"}, {"key": "EMPTY"}]},
            "execution_env_assignments": [
                {"node_ids": ["n1", "n0"], "task_type": "t", "execution_env": {
                    "name": "e", "type": "y", "version": "v", "spec": description,
                }},
                {"execution_env": {"name": "f", "extant": {}}},
                {},
            ],
        }}),
        json!({"cluster_assignment": {"cluster_pool_name": "gpu"}}),
    ];
    samples.map(|sample| serde_json::from_value(sample).expect("they are attributes")).into()
}

#[test]
#[ignore = "needs Python with flyteidl: make flyteidl"]
fn python_reads_what_is_written_here_and_writes_the_same() {
    let samples = samples();
    let written: Vec<_> =
        samples.iter().map(|sample| json!(hex(&sample.to_flyte_bytes()))).collect();
    let answers = python("read", &written);
    assert_eq!(answers.len(), samples.len());
    for ((sample, written), answer) in samples.iter().zip(&written).zip(&answers) {
        // Bytes as Python writes them deterministically; the fields as it names and prints them.
        assert_eq!(&answer["bytes"], written, "{sample:?}");
        assert_eq!(answer["unknown_fields"], 0, "{sample:?}");
        let read: MatchingAttributes =
            serde_json::from_value(answer["json"].clone()).expect("Python's JSON is read");
        assert_eq!(&read, sample);
    }
    let kinds: BTreeSet<_> = samples.iter().map(MatchingAttributes::kind_number).collect();
    assert_eq!(kinds.len(), 8, "a kind has no sample");
}

#[test]
#[ignore = "needs Python with flyteidl: make flyteidl"]
fn what_python_writes_is_read_and_written_the_same() {
    let answers = python("write", &[]);
    assert!(answers.len() > 100, "there are {} only", answers.len());
    let mut kinds = BTreeSet::new();
    for answer in &answers {
        let read = MatchingAttributes::from_flyte_bytes(&bytes(&answer["bytes"]));
        let read = read.expect("Python's bytes are read").expect("there is a target");
        assert_eq!(answer["bytes"], hex(&read.to_flyte_bytes()), "{read:?}");
        let from_json: MatchingAttributes =
            serde_json::from_value(answer["json"].clone()).expect("Python's JSON is read");
        assert_eq!(from_json, read);
        kinds.insert(read.kind_number());
    }
    assert_eq!(kinds.len(), 8, "Python made attributes of these kinds only");
}

#[test]
#[ignore = "needs Python with flyteidl: make flyteidl"]
fn names_and_numbers_are_pythons() {
    let answers = python("names", &[]);
    let kinds: BTreeSet<_> = samples()
        .iter()
        .map(|sample| json!([sample.kind_name(), sample.kind_number()]).to_string())
        .collect();
    assert_eq!(kinds, answers.iter().map(Value::to_string).collect());
}
