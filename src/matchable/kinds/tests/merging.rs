//! How attributes of different places combine: Flyte's tests, and laws.

use std::fmt::Debug;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::{arbitrary, *};
use super::from_json;
use crate::matchable::MatchableResource;

/// The first over the others, the most specific first.
fn merged<K: MatchableResource>(levels: &[Value]) -> Value {
    let read =
        |level: &Value| from_json::<K>(level.clone()).unwrap_or_else(|e| panic!("{level}: {e}"));
    let merged = levels.iter().map(read).reduce(K::merge).expect("there is a level");
    serde_json::to_value(merged).expect("it has a shape in JSON")
}

fn plugins<const N: usize>(overrides: [(&str, &str); N]) -> Value {
    let one = |(task_type, id)| json!({"task_type": task_type, "plugin_id": [id]});
    json!({ "overrides": overrides.map(one).to_vec() })
}

#[test]
fn plugins_merge_by_task_type() {
    // CreateOrMerge of FlyteAdmin's manager, and its transformers.
    let update = plugins([("python", "plugin a")]);
    let stored = plugins([("hive", "b"), ("python", "c")]);
    let expected = plugins([("python", "plugin a"), ("hive", "b")]);
    assert_eq!(merged::<PluginOverrides>(&[update, stored]), expected);
    let update = plugins([("sidecar", "c"), ("hive", "d")]);
    let stored = plugins([("python", "a"), ("hive", "b")]);
    let expected = plugins([("sidecar", "c"), ("hive", "d"), ("python", "a")]);
    assert_eq!(merged::<PluginOverrides>(&[update, stored]), expected);
    // Whole overrides: neither plugins nor behaviour come from below.
    let update = plugins([("hive", "d")]);
    let stored = json!({"overrides": [{
        "task_type": "hive", "plugin_id": ["b", "c"], "missing_plugin_behavior": "USE_DEFAULT",
    }]});
    assert_eq!(merged::<PluginOverrides>(&[update.clone(), stored]), update);
}

#[test]
fn only_updates_of_plugins_merge() {
    let others = [
        TaskResourceAttributes::UPDATES_MERGE,
        ClusterResourceAttributes::UPDATES_MERGE,
        ExecutionQueueAttributes::UPDATES_MERGE,
        ExecutionClusterLabel::UPDATES_MERGE,
        QualityOfService::UPDATES_MERGE,
        WorkflowExecutionConfig::UPDATES_MERGE,
        ClusterAssignment::UPDATES_MERGE,
    ];
    assert_eq!((PluginOverrides::UPDATES_MERGE, others), (true, [false; 7]));
}

#[test]
fn template_values_overlay_by_key() {
    let levels = [
        json!({"attributes": {"var1": "mine", "var2": "x"}}),
        json!({"attributes": {"var1": "default", "var3": "y"}}),
    ];
    let expected = json!({"attributes": {"var1": "mine", "var2": "x", "var3": "y"}});
    assert_eq!(merged::<ClusterResourceAttributes>(&levels), expected);
}

#[test]
fn kinds_that_replace_take_nothing_from_below() {
    let limits = json!({"limits": {"cpu": "1"}});
    let below = json!({"defaults": {"cpu": "2"}, "limits": {"memory": "1Gi"}});
    assert_eq!(merged::<TaskResourceAttributes>(&[limits.clone(), below]), limits);
    let tags = json!({"tags": ["a"]});
    assert_eq!(merged::<ExecutionQueueAttributes>(&[tags.clone(), json!({"tags": ["b"]})]), tags);
    let label = json!({"value": "a"});
    assert_eq!(merged::<ExecutionClusterLabel>(&[label.clone(), json!({"value": "b"})]), label);
    let tier = json!({"tier": "HIGH"});
    let spec = json!({"spec": {"queueing_budget": "1s"}});
    assert_eq!(merged::<QualityOfService>(&[tier.clone(), spec]), tier);
    let pool = json!({"cluster_pool_name": "a"});
    assert_eq!(
        merged::<ClusterAssignment>(&[pool.clone(), json!({"cluster_pool_name": "b"})]),
        pool
    );
}

fn config(levels: &[Value]) -> Value {
    merged::<WorkflowExecutionConfig>(levels)
}

/// The four of FlyteAdmin's `TestMergeIntoExecConfig`.
#[test]
fn an_execution_config_over_another() {
    let set = json!({
        "max_parallelism": 5,
        "raw_output_data_config": {"output_location_prefix": "s3://test-bucket"},
        "labels": {"values": {"lab1": "val1"}},
        "annotations": {"values": {"ann1": "val1"}},
    });
    let old = json!({
        "raw_output_data_config": {"output_location_prefix": "s3://old"},
        "labels": {"values": {"old": "old"}},
        "annotations": {"values": {"old": "old"}},
    });
    let empties = json!({
        "max_parallelism": 0,
        "raw_output_data_config": {"output_location_prefix": ""},
        "labels": {"values": {}},
        "annotations": {"values": {}},
    });
    assert_eq!(config(&[set.clone(), old]), set);
    assert_eq!(config(&[empties, set.clone()]), set);
    assert_eq!(config(&[json!({}), set.clone()]), set);
    let (never, always) = (json!({"interruptible": false}), json!({"interruptible": true}));
    assert_eq!(config(&[never, always]), json!({"interruptible": {"value": false}}));
}

#[test]
fn maps_and_lists_of_a_config_are_taken_whole() {
    for (field, mine, other) in [
        ("labels", json!({"values": {"a": "1"}}), json!({"values": {"a": "2", "b": "2"}})),
        ("annotations", json!({"values": {"a": "1"}}), json!({"values": {"a": "2", "b": "2"}})),
        (
            "envs",
            json!({"values": [{"key": "A", "value": "1"}]}),
            json!({"values": [{"key": "B", "value": "2"}]}),
        ),
        ("execution_env_assignments", json!([{"node_ids": ["n0"]}]), json!([{"node_ids": ["n1"]}])),
    ] {
        let (mine, other) = (json!({ field: mine }), json!({ field: other }));
        assert_eq!(config(&[mine.clone(), other.clone()]), mine);
        assert_eq!(config(&[json!({}), other.clone()]), other);
    }
}

#[test]
fn an_overwritten_cache_stays_so() {
    for (above, below) in [(true, false), (false, true), (true, true)] {
        let levels = [json!({"overwrite_cache": above}), json!({"overwrite_cache": below})];
        assert_eq!(config(&levels), json!({"overwrite_cache": true}));
    }
}

#[test]
fn a_security_context_is_inherited_from_where_it_names_somebody() {
    let context = |context: Value| json!({ "security_context": context });
    let secrets = json!([{"group": "g", "key": "k"}]);
    let only_secrets = context(json!({ "secrets": secrets }));
    let nothing = json!({});
    for field in ["iam_role", "k8s_service_account", "execution_identity"] {
        let somebody = context(json!({"run_as": {field: "demo"}, "secrets": secrets}));
        assert_eq!(config(&[nothing.clone(), somebody.clone()]), somebody);
        // One that is there keeps it out, even if it is empty.
        assert_eq!(config(&[only_secrets.clone(), somebody.clone()]), only_secrets);
        assert_eq!(config(&[context(json!({})), somebody.clone()]), context(json!({})));
        // One that names nobody lets it through, below the first.
        assert_eq!(config(&[nothing.clone(), only_secrets.clone(), somebody.clone()]), somebody);
    }
    let client = context(json!({"run_as": {"oauth2_client": {"client_id": "c"}}}));
    for below in [only_secrets, client, context(json!({})), context(json!({"run_as": {}}))] {
        assert_eq!(config(&[nothing.clone(), below]), nothing);
    }
}

/// FlyteAdmin's tests of what an execution runs with, as far as they are about attributes. There the chain starts with an
/// empty config.
#[test]
fn what_an_execution_runs_with() {
    let nothing = json!({});
    let account = |name: &str| json!({"run_as": {"k8s_service_account": name}});
    // A request with an empty security context: the launch plan's is used.
    let request =
        json!({"max_parallelism": 20, "security_context": {"run_as": {"k8s_service_account": ""}}});
    let plan = json!({"max_parallelism": 50, "security_context": account("plan")});
    let expected = json!({"max_parallelism": 20, "security_context": account("plan")});
    assert_eq!(config(&[nothing.clone(), request, plan]), expected);
    // A partial launch plan: the rest comes from the project's domain.
    let plan = json!({"max_parallelism": 50, "annotations": {"values": {"plan": "p"}}});
    let row = json!({
        "max_parallelism": 100,
        "security_context": account("row"),
        "annotations": {"values": {"row": "r"}},
        "interruptible": true,
    });
    let server = json!({"max_parallelism": 25, "labels": {"values": {"server": "s"}}});
    let expected = json!({
        "max_parallelism": 50,
        "security_context": account("row"),
        "annotations": {"values": {"plan": "p"}},
        "interruptible": {"value": true},
        "labels": {"values": {"server": "s"}},
    });
    assert_eq!(config(&[nothing.clone(), plan, row.clone(), server.clone()]), expected);
    // A row that sets nothing: the server's defaults.
    assert_eq!(config(&[nothing.clone(), nothing.clone(), server.clone()]), server);
    // Labels from the project where its domain has none.
    let domain = json!({"max_parallelism": 10, "raw_output_data_config": {"output_location_prefix": "s3://d"}});
    let project = json!({
        "max_parallelism": 9,
        "raw_output_data_config": {"output_location_prefix": "s3://p"},
        "labels": {"values": {"project": "p"}},
    });
    let expected = json!({
        "max_parallelism": 10,
        "raw_output_data_config": {"output_location_prefix": "s3://d"},
        "labels": {"values": {"project": "p"}},
    });
    assert_eq!(config(&[nothing, domain, project]), expected);
}

/// Leaves in JSON with their pointers.
fn leaves(attributes: &impl MatchableResource) -> Vec<(String, Value)> {
    fn descend(pointer: &str, value: &Value, leaves: &mut Vec<(String, Value)>) {
        let parts: Vec<(String, &Value)> = match value {
            Value::Object(fields) => fields.iter().map(|(key, it)| (key.clone(), it)).collect(),
            Value::Array(list) => {
                list.iter().enumerate().map(|(place, it)| (place.to_string(), it)).collect()
            }
            leaf => return leaves.push((pointer.to_owned(), leaf.clone())),
        };
        for (name, part) in parts {
            let name = name.replace('~', "~0").replace('/', "~1");
            descend(&format!("{pointer}/{name}"), part, leaves);
        }
    }
    let mut found = Vec::new();
    let value = serde_json::to_value(attributes).expect("it has a shape in JSON");
    descend("", &value, &mut found);
    found
}

fn keeps_the_laws<K>(unset: Option<K>, above: K, below: K) -> Result<(), TestCaseError>
where
    K: MatchableResource + PartialEq + Debug,
{
    prop_assert_eq!(
        &above.clone().merge(above.clone()),
        &above,
        "merging the same changes nothing"
    );
    if let Some(unset) = unset {
        prop_assert_eq!(&above.clone().merge(unset), &above, "nothing below adds nothing");
    }
    let merged = above.clone().merge(below.clone());
    prop_assert_eq!(&merged.clone().merge(above.clone()), &merged, "what is above is in it");
    prop_assert_eq!(
        &merged.clone().merge(below.clone()),
        &merged,
        "what is below is in it, or out"
    );
    let (own, other, all) = (leaves(&above), leaves(&below), leaves(&merged));
    for leaf in &own {
        prop_assert!(all.contains(leaf), "{leaf:?} is not where it was in {merged:?}");
    }
    for (pointer, value) in &all {
        let known = own.iter().chain(&other).any(|(_, known)| known == value);
        prop_assert!(known, "{value} at {pointer} is neither above nor below");
    }
    Ok(())
}

/// Every context names somebody, or is not there: where merging configs is associative.
fn with_somebody(mut config: WorkflowExecutionConfig) -> WorkflowExecutionConfig {
    if let Some(context) = &mut config.security_context {
        context.run_as.get_or_insert_default().iam_role = "somebody".to_owned();
    }
    config
}

proptest! {
    #[test]
    fn cluster_resources_keep_the_laws(
        [a, b, c] in [arbitrary::cluster_resources(), arbitrary::cluster_resources(), arbitrary::cluster_resources()]
    ) {
        let unset = ClusterResourceAttributes::default();
        prop_assert_eq!(unset.clone().merge(a.clone()), a.clone());
        prop_assert_eq!(a.clone().merge(b.clone()).merge(c.clone()), a.clone().merge(b.clone().merge(c)));
        keeps_the_laws(Some(unset), a, b)?;
    }

    #[test]
    fn plugins_keep_the_laws(
        [a, b, c] in [arbitrary::plugin_overrides(), arbitrary::plugin_overrides(), arbitrary::plugin_overrides()]
    ) {
        let unset = PluginOverrides::default();
        prop_assert_eq!(unset.clone().merge(a.clone()), a.clone());
        prop_assert_eq!(a.clone().merge(b.clone()).merge(c.clone()), a.clone().merge(b.clone().merge(c)));
        keeps_the_laws(Some(unset), a, b)?;
    }

    #[test]
    fn configs_keep_the_laws([a, b, c] in [arbitrary::config(), arbitrary::config(), arbitrary::config()]) {
        keeps_the_laws(Some(WorkflowExecutionConfig::default()), a.clone(), b.clone())?;
        let [a, b, c] = [a, b, c].map(with_somebody);
        prop_assert_eq!(WorkflowExecutionConfig::default().merge(a.clone()), a.clone());
        prop_assert_eq!(a.clone().merge(b.clone()).merge(c.clone()), a.merge(b.merge(c)));
    }

    #[test]
    fn kinds_that_replace_keep_the_laws(
        [a, b] in [arbitrary::task_resources(), arbitrary::task_resources()],
        [q, r] in [arbitrary::quality_of_service(), arbitrary::quality_of_service()],
    ) {
        keeps_the_laws(Some(TaskResourceAttributes::default()), a, b)?;
        keeps_the_laws(None, q, r)?;
    }
}
