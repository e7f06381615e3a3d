//! The shape in JSON and YAML: Flyte's attribute files, and what is refused in them.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::{arbitrary, *};
use super::{from_json, yaml};
use crate::matchable::MatchableResource;

/// Reads the attributes in a file as flytectl does, beside the names of the place that they are set at.
fn file<K: MatchableResource>(text: &str) -> K {
    let mut document: Value = serde_saphyr::from_str(text).expect("it is YAML");
    let fields = document.as_object_mut().expect("it is a map");
    fields.retain(|field, _| !["project", "domain", "workflow"].contains(&field.as_str()));
    let attributes: K = from_json(document).unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(attributes.validate(), Ok(()), "{text}");
    let written = serde_json::to_string(&attributes).expect("it has a shape in JSON");
    let again: K = serde_json::from_str(&written).expect("what is written can be read");
    assert_eq!(format!("{again:?}"), format!("{attributes:?}"));
    attributes
}

fn texts<const N: usize>(texts: [&str; N]) -> Vec<String> {
    texts.map(str::to_owned).to_vec()
}

#[test]
fn task_resource_attributes() {
    let attributes: TaskResourceAttributes = file(
        r#"
        project: billing
        domain: production
        workflow: app.reports.nightly      # optional
        defaults: {cpu: "2", memory: 4Gi, gpu: "1", storage: 1Gi, ephemeral_storage: 10Gi}
        limits:   {cpu: "8", memory: 16Gi}
        "#,
    );
    let [cpu, gpu, memory, storage, ephemeral_storage] =
        ["2", "1", "4Gi", "1Gi", "10Gi"].map(str::to_owned);
    let defaults = TaskResourceSpec { cpu, gpu, memory, storage, ephemeral_storage };
    let limits = TaskResourceSpec {
        cpu: "8".to_owned(),
        memory: "16Gi".to_owned(),
        ..TaskResourceSpec::default()
    };
    assert_eq!(attributes, TaskResourceAttributes { defaults, limits });
}

#[test]
fn cluster_resource_attributes() {
    let attributes: ClusterResourceAttributes = file(
        r#"
        project: billing
        domain: production
        attributes: {projectQuotaCpu: "400", projectQuotaMemory: 2000Gi}
        "#,
    );
    let expected = [("projectQuotaCpu", "400"), ("projectQuotaMemory", "2000Gi")];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(attributes.attributes, expected.into());
}

#[test]
fn execution_queue_attributes() {
    let attributes: ExecutionQueueAttributes = file(
        "
        project: billing
        domain: production
        tags: [critical, default]
        ",
    );
    assert_eq!(attributes.tags, ["critical", "default"]);
}

#[test]
fn execution_cluster_label() {
    let label: ExecutionClusterLabel = file(
        "
        project: billing
        domain: production
        value: onprem-gpu
        ",
    );
    assert_eq!(label.value, "onprem-gpu");
}

#[test]
fn plugin_overrides() {
    let found: PluginOverrides = file(
        "
        project: billing
        domain: production
        overrides:
          - task_type: spark
            plugin_id: [databricks, spark]
            missing_plugin_behavior: 1      # 0 FAIL, 1 USE_DEFAULT; integers only
        ",
    );
    let expected = PluginOverride {
        task_type: "spark".to_owned(),
        plugin_id: texts(["databricks", "spark"]),
        missing_plugin_behavior: MissingPluginBehavior::UseDefault,
    };
    assert_eq!(found.overrides, [expected]);
}

#[test]
fn workflow_execution_config() {
    let config: WorkflowExecutionConfig = file(
        r#"
        project: billing
        domain: production
        max_parallelism: 40
        security_context: {run_as: {k8s_service_account: batch, iam_role: arn-x}}
        raw_output_data_config: {output_location_prefix: "s3://bkt/x"}
        labels: {values: {team: fin}}
        annotations: {values: {note: ok}}
        interruptible: {value: true}
        overwrite_cache: false
        envs: {values: [{key: MODE, value: fast}]}
        "#,
    );
    let written = serde_json::to_value(&config).expect("it has a shape in JSON");
    let expected = json!({
        "max_parallelism": 40,
        "security_context": {"run_as": {"k8s_service_account": "batch", "iam_role": "arn-x"}},
        "raw_output_data_config": {"output_location_prefix": "s3://bkt/x"},
        "labels": {"values": {"team": "fin"}},
        "annotations": {"values": {"note": "ok"}},
        "interruptible": {"value": true},
        "envs": {"values": [{"key": "MODE", "value": "fast"}]},
    });
    assert_eq!(written, expected);
    assert_eq!((config.interruptible, config.overwrite_cache), (Some(true), false));
}

#[test]
fn quality_of_service_and_cluster_assignment() {
    let tier: QualityOfService = file("{project: billing, domain: production, tier: HIGH}");
    assert_eq!(tier, QualityOfService::Tier(QualityOfServiceTier::High));
    let spec: QualityOfService = file("{project: billing, spec: {queueing_budget: 5m}}");
    let written = serde_json::to_value(spec).expect("it has a shape in JSON");
    assert_eq!(written, json!({"spec": {"queueing_budget": "300s"}}));
    let assignment: ClusterAssignment = file("{project: billing, cluster_pool_name: gpu}");
    assert_eq!(assignment.cluster_pool_name, "gpu");
}

#[test]
fn enumerations_are_read_by_name_or_number_and_written_by_name() {
    for (form, tier) in
        [(json!("LOW"), "LOW"), (json!(3), "LOW"), (json!(1), "HIGH"), (json!("MEDIUM"), "MEDIUM")]
    {
        let quality: QualityOfService = from_json(json!({ "tier": form })).expect("it is a tier");
        let written = serde_json::to_value(quality).expect("it has a shape in JSON");
        assert_eq!(written, json!({ "tier": tier }));
    }
    let secret: Secret = yaml("{key: k, mount_requirement: FILE}");
    assert_eq!(secret.mount_requirement, MountType::File);
    assert_eq!(MountType::of_number(1), Some(MountType::EnvVar));
    assert_eq!((MountType::of_number(3), MountType::of_number(-1)), (None, None));
    let token: OAuth2TokenRequest = yaml("{name: t, type: CLIENT_CREDENTIALS}");
    assert_eq!(token.token_type, OAuth2TokenRequestType::ClientCredentials);
}

#[test]
fn interruptible_is_a_message_or_bare() {
    for (form, expected) in [
        (json!({"value": true}), true),
        (json!(true), true),
        (json!({"value": false}), false),
        (json!(false), false),
        (json!({}), false),
    ] {
        let config: WorkflowExecutionConfig =
            from_json(json!({ "interruptible": form })).expect("it is a value");
        assert_eq!(config.interruptible, Some(expected));
        let written = serde_json::to_value(config).expect("it has a shape in JSON");
        assert_eq!(written, json!({"interruptible": {"value": expected}}));
    }
}

#[test]
fn whole_numbers_of_an_environment_have_no_point() {
    let floats: ExecutionEnv = yaml("{name: e, spec: {a: 7.0, b: [-1.0, {c: 0.5}], d: 1e300}}");
    let integers: ExecutionEnv = yaml("{name: e, spec: {a: 7, b: [-1, {c: 0.5}], d: 1e300}}");
    assert_eq!(floats, integers);
}

#[test]
fn mistakes_are_told_with_their_place() {
    fn problem<K: MatchableResource>(text: &str) -> String {
        let document: Value = serde_saphyr::from_str(text).expect("it is YAML");
        from_json::<K>(document).map_or_else(|error| error, |read| format!("{read:?}"))
    }
    let cases = [
        (problem::<TaskResourceAttributes>("{limit: {}}"), "limit: unknown field `limit`"),
        (
            problem::<TaskResourceAttributes>("{limits: {CPU: 1}}"),
            "limits.CPU: unknown field `CPU`",
        ),
        (problem::<TaskResourceAttributes>("{limits: {cpu: [1]}}"), "limits.cpu: invalid type"),
        (
            problem::<ClusterResourceAttributes>("{attributes: {a: 1}}"),
            "attributes.a: invalid type",
        ),
        (problem::<ExecutionQueueAttributes>("{tags: [a, 1]}"), "tags[1]: invalid type"),
        (problem::<ExecutionClusterLabel>("{value: a, project: p}"), "project: unknown field"),
        (
            problem::<PluginOverrides>("{overrides: [{missing_plugin_behavior: NEVER}]}"),
            "overrides[0].missing_plugin_behavior: \"NEVER\" is none of FAIL, USE_DEFAULT, nor the number of one",
        ),
        (
            problem::<PluginOverrides>("{overrides: [{missing_plugin_behavior: 2}]}"),
            "overrides[0].missing_plugin_behavior: 2 is none of",
        ),
        (problem::<QualityOfService>("{}"), "must have a tier or a spec"),
        (
            problem::<QualityOfService>("{tier: HIGH, spec: {queueing_budget: 5m}}"),
            "must not have both a tier and a spec",
        ),
        (
            problem::<QualityOfService>("{tier: -1}"),
            "tier: -1 is none of UNDEFINED, HIGH, MEDIUM, LOW",
        ),
        (
            problem::<WorkflowExecutionConfig>("{interruptible: {val: true}}"),
            "interruptible: unknown field `val`",
        ),
        (
            problem::<WorkflowExecutionConfig>("{max_parallelism: 2147483648}"),
            "max_parallelism: invalid",
        ),
        (
            problem::<EnvironmentKind>("{name: e, extant: {}, spec: {}}"),
            "must not have both an extant environment and a spec",
        ),
    ];
    for (found, expected) in cases {
        assert!(found.contains(expected), "{found} is not {expected}");
    }
}

/// An environment as if it was a kind.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
struct EnvironmentKind(ExecutionEnv);

impl MatchableResource for EnvironmentKind {
    const NAME: &'static str = "ENV";

    fn validate(&self) -> Result<(), crate::matchable::InvalidField> {
        Ok(())
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(attributes in arbitrary::attributes()) {
        let text = serde_json::to_string(&attributes).expect("it has a shape in JSON");
        let again: MatchingAttributes = serde_json::from_str(&text).expect("it can be read");
        prop_assert_eq!(&again, &attributes);
        let document: Value = serde_saphyr::from_str(&text).expect("JSON is YAML");
        prop_assert_eq!(from_json::<MatchingAttributes>(document), Ok(attributes));
    }

    #[test]
    fn no_document_is_too_odd(document in odd_document()) {
        fn read<K: MatchableResource>(document: &Value) {
            if let Ok(attributes) = from_json::<K>(document.clone()) {
                let _ = attributes.validate();
                let _ = attributes.clone().merge(attributes).validate();
            }
        }
        read::<TaskResourceAttributes>(&document);
        read::<ClusterResourceAttributes>(&document);
        read::<ExecutionQueueAttributes>(&document);
        read::<ExecutionClusterLabel>(&document);
        read::<QualityOfService>(&document);
        read::<PluginOverrides>(&document);
        read::<WorkflowExecutionConfig>(&document);
        read::<ClusterAssignment>(&document);
        let text = serde_json::to_string(&document).expect("it is JSON");
        for cut in (0..text.len()).step_by(7).filter(|cut| text.is_char_boundary(*cut)) {
            if let Ok(document) = serde_saphyr::from_str::<Value>(&text[..cut]) {
                read::<WorkflowExecutionConfig>(&document);
            }
        }
    }
}

/// Attributes of any kind where something else stands at one place.
fn odd_document() -> impl Strategy<Value = Value> {
    (arbitrary::attributes(), arbitrary::json(), any::<proptest::sample::Index>()).prop_map(
        |(attributes, odd, place)| {
            let mut document = serde_json::to_value(attributes).expect("it has a shape in JSON");
            let kind = document.as_object_mut().and_then(|kinds| kinds.values_mut().next());
            let mut document = kind.map(Value::take).unwrap_or_default();
            let place = place.index(count(&document));
            replace(&mut document, &mut { place }, odd);
            document
        },
    )
}

fn parts(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(values) => values.iter().collect(),
        Value::Object(fields) => fields.values().collect(),
        _ => Vec::new(),
    }
}

fn count(value: &Value) -> usize {
    1 + parts(value).into_iter().map(count).sum::<usize>()
}

fn replace(value: &mut Value, place: &mut usize, odd: Value) {
    let Some(left) = place.checked_sub(1) else {
        *value = odd;
        return;
    };
    *place = left;
    let parts: Vec<&mut Value> = match value {
        Value::Array(values) => values.iter_mut().collect(),
        Value::Object(fields) => fields.values_mut().collect(),
        _ => Vec::new(),
    };
    for part in parts {
        let inside = count(part);
        if *place < inside {
            return replace(part, place, odd);
        }
        *place -= inside;
    }
}
