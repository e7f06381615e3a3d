//! Every rule, by an example that breaks it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::super::*;
use super::yaml;
use crate::matchable::{KindName, MatchableResource};

/// The field that breaks a rule first, its value and the rule.
fn broken<K: MatchableResource>(text: &str) -> String {
    yaml::<K>(text).validate().map_or_else(|error| error.to_string(), |()| "valid".to_owned())
}

fn refuses<K: MatchableResource>(cases: &[(&str, &str)]) {
    for (text, expected) in cases {
        let found = broken::<K>(text);
        assert!(found.starts_with(expected), "{text}: {found}");
    }
}

fn accepts<K: MatchableResource>(cases: &[&str]) {
    for text in cases {
        assert_eq!(broken::<K>(text), "valid", "{text}");
    }
}

#[test]
fn names_and_numbers_are_flytes() {
    let kinds = [
        (TaskResourceAttributes::NAME, TaskResourceAttributes::NUMBER),
        (ClusterResourceAttributes::NAME, ClusterResourceAttributes::NUMBER),
        (ExecutionQueueAttributes::NAME, ExecutionQueueAttributes::NUMBER),
        (ExecutionClusterLabel::NAME, ExecutionClusterLabel::NUMBER),
        (QualityOfService::NAME, QualityOfService::NUMBER),
        (PluginOverrides::NAME, PluginOverrides::NUMBER),
        (WorkflowExecutionConfig::NAME, WorkflowExecutionConfig::NUMBER),
        (ClusterAssignment::NAME, ClusterAssignment::NUMBER),
    ];
    let expected = [
        "TASK_RESOURCE",
        "CLUSTER_RESOURCE",
        "EXECUTION_QUEUE",
        "EXECUTION_CLUSTER_LABEL",
        "QUALITY_OF_SERVICE_SPECIFICATION",
        "PLUGIN_OVERRIDE",
        "WORKFLOW_EXECUTION_CONFIG",
        "CLUSTER_ASSIGNMENT",
    ];
    for ((number, expected), (name, found)) in (0..).zip(expected).zip(kinds) {
        assert_eq!((name, found), (expected, Some(number)));
        assert!(KindName::new(name).is_ok());
    }
    let attributes = MatchingAttributes::from(ExecutionQueueAttributes::default());
    assert_eq!((attributes.kind_name(), attributes.kind_number()), ("EXECUTION_QUEUE", Some(2)));
    assert!(attributes.validate().is_err());
}

/// MR-14: Flyte stores them.
#[test]
fn attributes_that_set_nothing_are_refused() {
    assert_eq!(broken::<TaskResourceAttributes>("{}"), " \"{}\": must set something");
    refuses::<TaskResourceAttributes>(&[("{defaults: {}, limits: {cpu: \"\"}}", " \"{}\"")]);
    refuses::<ClusterResourceAttributes>(&[("{}", "attributes \"\": must not be empty")]);
    refuses::<ExecutionQueueAttributes>(&[("{}", "tags \"\": must not be empty")]);
    refuses::<ExecutionClusterLabel>(&[("{}", "value \"\": must not be empty")]);
    refuses::<PluginOverrides>(&[("{}", "overrides \"\": must not be empty")]);
    refuses::<ClusterAssignment>(&[("{}", "cluster_pool_name \"\": must not be empty")]);
    refuses::<QualityOfService>(&[
        ("{tier: UNDEFINED}", "tier \"UNDEFINED\": must be HIGH, MEDIUM or LOW"),
        ("{tier: 0}", "tier \"UNDEFINED\""),
        ("{spec: {}}", "spec.queueing_budget \"\": must be set"),
    ]);
    refuses::<WorkflowExecutionConfig>(&[
        ("{}", " \"{}\": must set something"),
        ("{max_parallelism: 0, overwrite_cache: false, labels: {values: {}}}", " \"{}\""),
        ("{max_parallelism: 1, security_context: {}}", "security_context \"{}\": must set"),
        ("{security_context: {run_as: {}}}", "security_context.run_as \"{}\": must set something"),
    ]);
    accepts::<WorkflowExecutionConfig>(&["{interruptible: false}", "{overwrite_cache: true}"]);
}

/// MR-5: Flyte's reader went down with one of them, or took the other for zeros.
#[test]
fn task_resources_may_have_only_limits_or_only_defaults() {
    for (half, other) in [("limits", "defaults"), ("defaults", "limits")] {
        let attributes: TaskResourceAttributes = yaml(&format!("{half}: {{cpu: \"1\"}}"));
        assert_eq!(attributes.validate(), Ok(()));
        let written = serde_json::to_value(&attributes).expect("it has a shape in JSON");
        assert_eq!(written, json!({ half: {"cpu": "1"} }), "{other} was written");
        let absent = if half == "limits" { &attributes.defaults } else { &attributes.limits };
        assert_eq!(absent, &TaskResourceSpec::default());
    }
}

#[test]
fn task_resources_are_quantities() {
    accepts::<TaskResourceAttributes>(&[
        "{defaults: {cpu: 1200m, gpu: \"18\", memory: 1200Gi, storage: 1500Mi, ephemeral_storage: 1400Mi},
          limits: {cpu: 300m, gpu: \"8\", memory: 500Gi, storage: 501Mi, ephemeral_storage: 450Mi}}",
        "{limits: {cpu: 2, memory: 1.5}}",
    ]);
    for field in ["cpu", "gpu", "memory", "storage", "ephemeral_storage"] {
        for half in ["defaults", "limits"] {
            let text = format!("{{{half}: {{{field}: 1.5gb}}}}");
            let expected = format!("{half}.{field} \"1.5gb\": must be a Kubernetes quantity");
            refuses::<TaskResourceAttributes>(&[(&text, &expected)]);
        }
    }
    refuses::<TaskResourceAttributes>(&[("{limits: {cpu: -1}}", "limits.cpu \"-1\"")]);
}

#[test]
fn names_must_not_be_blank() {
    refuses::<ClusterResourceAttributes>(&[("{attributes: {\"\": x}}", "attributes[\"\"] \"\"")]);
    accepts::<ClusterResourceAttributes>(&["{attributes: {projectQuotaCpu: \"\"}}"]);
    refuses::<ExecutionQueueAttributes>(&[("{tags: [a, \" \"]}", "tags[1] \" \": must not be")]);
    accepts::<ExecutionQueueAttributes>(&["{tags: [critical, default]}"]);
    refuses::<ExecutionClusterLabel>(&[("{value: \" \"}", "value \" \"")]);
    refuses::<ClusterAssignment>(&[("{cluster_pool_name: \"\\t\"}", "cluster_pool_name \"\\t\"")]);
    accepts::<ClusterAssignment>(&["{cluster_pool_name: gpu}"]);
}

#[test]
fn plugin_overrides_name_each_task_type_once_and_its_plugins() {
    refuses::<PluginOverrides>(&[
        (
            "{overrides: [{task_type: a, plugin_id: [x]}, {plugin_id: [x]}]}",
            "overrides[1].task_type \"\": must not be empty",
        ),
        (
            "{overrides: [{task_type: a, plugin_id: [x, \"\"]}]}",
            "overrides[0].plugin_id[1] \"\": must not be empty",
        ),
        (
            "{overrides: [{task_type: a}]}",
            "overrides[0].plugin_id \"\": must not be empty unless missing_plugin_behavior is USE_DEFAULT",
        ),
        (
            "{overrides: [{task_type: a, plugin_id: [x]}, {task_type: a, plugin_id: [z]}]}",
            "overrides[1].task_type \"a\": must occur once only",
        ),
    ]);
    accepts::<PluginOverrides>(&[
        "{overrides: [{task_type: a, plugin_id: [x]}, {task_type: b, plugin_id: [x]}]}",
        "{overrides: [{task_type: a, missing_plugin_behavior: USE_DEFAULT}]}",
    ]);
}

#[test]
fn a_budget_is_one_that_flytes_messages_can_hold() {
    accepts::<QualityOfService>(&[
        "{tier: LOW}",
        "{spec: {queueing_budget: 0s}}",
        "{spec: {queueing_budget: 315576000000s}}",
    ]);
    refuses::<QualityOfService>(&[(
        "{spec: {queueing_budget: 315576000001s}}",
        "spec.queueing_budget \"315576000001s\": must not be longer than 315576000000s",
    )]);
    let spec = QualityOfServiceSpec { queueing_budget: Some(Duration::MAX) };
    assert!(QualityOfService::Spec(spec).validate().is_err());
}

#[test]
fn an_execution_config_keeps_kubernetes_rules() {
    refuses::<WorkflowExecutionConfig>(&[
        ("{max_parallelism: -1}", "max_parallelism \"-1\": must not be negative; 0 is not set"),
        (
            "{raw_output_data_config: {output_location_prefix: \" \"}}",
            "raw_output_data_config.output_location_prefix \" \"",
        ),
        (
            "{labels: {values: {\"a b\": x}}}",
            "labels.values[\"a b\"] \"a b\": must be a Kubernetes key",
        ),
        (
            "{labels: {values: {team: a b}}}",
            "labels.values[\"team\"] \"a b\": must be the value of a Kubernetes label",
        ),
        (
            "{annotations: {values: {\"\": x}}}",
            "annotations.values[\"\"] \"\": must be a Kubernetes",
        ),
        ("{envs: {values: [{key: A}, {key: \"\"}]}}", "envs.values[1].key \"\": must be printable"),
        ("{envs: {values: [{key: A=B}]}}", "envs.values[0].key \"A=B\": must be printable ASCII"),
        (
            "{envs: {values: [{key: A}, {key: A}]}}",
            "envs.values[1].key \"A\": must occur once only",
        ),
    ]);
    accepts::<WorkflowExecutionConfig>(&[
        "{labels: {values: {example.com/team: fin, empty: \"\"}}}",
        "{annotations: {values: {note: \"anything: ä / at all\"}}}",
        "{envs: {values: [{key: A}, {key: B, value: \"\"}]}}",
    ]);
    let values = BTreeMap::from([("note".to_owned(), "x".repeat(256 * 1024 - 4))]);
    let mut config = WorkflowExecutionConfig {
        annotations: Annotations { values },
        ..WorkflowExecutionConfig::default()
    };
    assert_eq!(config.validate(), Ok(()));
    config.annotations.values.insert("a".to_owned(), String::new());
    let error = config.validate().err().map(|error| error.to_string());
    let expected =
        "annotations.values \"262145 bytes\": must not be longer than 262144 bytes in all";
    assert_eq!(error.as_deref(), Some(expected));
}

#[test]
fn secrets_are_found_by_group_or_key() {
    let cases = [
        ("{}", "key \"\": must not be empty without a group"),
        ("{key: k, group_version: v1}", "group_version \"v1\": needs a group"),
        ("{group: g, env_var: A=B}", "env_var \"A=B\": must be printable ASCII without '='"),
    ];
    for (secret, expected) in cases {
        let text = format!("{{security_context: {{secrets: [{secret}]}}}}");
        let expected = format!("security_context.secrets[0].{expected}");
        refuses::<WorkflowExecutionConfig>(&[(&text, &expected)]);
        let text = format!(
            "{{security_context: {{tokens: [{{name: t, client: {{client_id: c, client_secret: {secret}}}}}]}}}}"
        );
        let expected = expected.replace("secrets[0]", "tokens[0].client.client_secret");
        refuses::<WorkflowExecutionConfig>(&[(&text, &expected)]);
    }
    accepts::<WorkflowExecutionConfig>(&[
        "{security_context: {secrets: [{key: k}, {group: g}, {group: g, group_version: v, key: k, env_var: K}]}}",
        "{security_context: {tokens: [{name: t}]}}",
    ]);
}

#[test]
fn clients_and_tokens_have_names() {
    refuses::<WorkflowExecutionConfig>(&[
        (
            "{security_context: {run_as: {oauth2_client: {}}}}",
            "security_context.run_as.oauth2_client.client_id \"\": must not be empty",
        ),
        ("{security_context: {tokens: [{}]}}", "security_context.tokens[0].name \"\": must not be"),
        (
            "{security_context: {tokens: [{name: t, client: {}}]}}",
            "security_context.tokens[0].client.client_id \"\": must not be empty",
        ),
    ]);
}

#[test]
fn environments_are_what_flytes_messages_can_hold() {
    let at = "execution_env_assignments[0]";
    let refused = [
        ("{}", "execution_env \"\": must be set"),
        ("{node_ids: [n0, \"\"]}", "node_ids[1] \"\": must not be empty"),
        ("{execution_env: {}}", "execution_env.name \"\": must not be empty"),
        (
            "{execution_env: {name: e, spec: {n: [9007199254740993]}}}",
            "execution_env.spec[\"n\"] \"9007199254740993\": must be a number that a 64-bit float",
        ),
        (
            "{execution_env: {name: e, extant: {n: 18446744073709551615}}}",
            "execution_env.extant[\"n\"] \"18446744073709551615\": must be a number",
        ),
    ];
    for (assignment, expected) in refused {
        let text = format!("{{execution_env_assignments: [{assignment}]}}");
        refuses::<WorkflowExecutionConfig>(&[(&text, &format!("{at}.{expected}"))]);
    }
    accepts::<WorkflowExecutionConfig>(&[
        "{execution_env_assignments: [{node_ids: [n0], task_type: t, execution_env:
          {name: e, type: fast, version: v1, spec: {replicas: 2, ratio: 0.1, big: 9007199254740992}}}]}",
    ]);
    let nested = |depth| (0..depth).fold(json!(1), |inner, _| json!([inner]));
    let config = |value: Value| WorkflowExecutionConfig {
        execution_env_assignments: vec![ExecutionEnvAssignment {
            execution_env: Some(ExecutionEnv {
                name: "e".to_owned(),
                environment: Some(Environment::Spec(Map::from_iter([("k".to_owned(), value)]))),
                ..ExecutionEnv::default()
            }),
            ..ExecutionEnvAssignment::default()
        }],
        ..WorkflowExecutionConfig::default()
    };
    assert_eq!(config(nested(16)).validate(), Ok(()));
    assert!(config(nested(17)).validate().is_err());
}
