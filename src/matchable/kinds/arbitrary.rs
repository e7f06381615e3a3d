//! Attributes at random, of few names, so that they meet when they are merged. They need not keep the rules.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};

use super::*;

fn text() -> impl Strategy<Value = String> {
    "[ab]{0,2}|é /\n\u{0}|-1Gi"
}

fn map() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map(text(), text(), 0..3)
}

fn any_of<T: Clone + Debug + 'static>(values: &'static [T]) -> impl Strategy<Value = T> {
    select(values)
}

fn spec() -> impl Strategy<Value = TaskResourceSpec> {
    (text(), text(), text(), text(), text()).prop_map(
        |(cpu, gpu, memory, storage, ephemeral_storage)| TaskResourceSpec {
            cpu,
            gpu,
            memory,
            storage,
            ephemeral_storage,
        },
    )
}

pub(in super::super) fn task_resources() -> impl Strategy<Value = TaskResourceAttributes> {
    (spec(), spec()).prop_map(|(defaults, limits)| TaskResourceAttributes { defaults, limits })
}

pub(in super::super) fn cluster_resources() -> impl Strategy<Value = ClusterResourceAttributes> {
    map().prop_map(|attributes| ClusterResourceAttributes { attributes })
}

pub(in super::super) fn quality_of_service() -> impl Strategy<Value = QualityOfService> {
    let budget = (0..=315_576_000_000_u64, 0..1_000_000_000_u32);
    let budget = option::of(budget.prop_map(|(seconds, nanos)| Duration::new(seconds, nanos)));
    prop_oneof![
        any_of(QualityOfServiceTier::ALL).prop_map(QualityOfService::Tier),
        budget.prop_map(|queueing_budget| {
            QualityOfService::Spec(QualityOfServiceSpec { queueing_budget })
        }),
    ]
}

/// Each type of tasks once, as the rules want it.
pub(in super::super) fn plugin_overrides() -> impl Strategy<Value = PluginOverrides> {
    let plugins = (vec(text(), 0..3), any_of(MissingPluginBehavior::ALL));
    let overrides = btree_map(text(), plugins, 0..4).prop_map(|overrides| {
        let one = |(task_type, (plugin_id, missing_plugin_behavior))| PluginOverride {
            task_type,
            plugin_id,
            missing_plugin_behavior,
        };
        overrides.into_iter().map(one).collect::<Vec<_>>()
    });
    overrides.prop_shuffle().prop_map(|overrides| PluginOverrides { overrides })
}

fn secret() -> impl Strategy<Value = Secret> {
    (text(), text(), text(), any_of(MountType::ALL), text()).prop_map(
        |(group, group_version, key, mount_requirement, env_var)| Secret {
            group,
            group_version,
            key,
            mount_requirement,
            env_var,
        },
    )
}

fn client() -> impl Strategy<Value = OAuth2Client> {
    (text(), option::of(secret()))
        .prop_map(|(client_id, client_secret)| OAuth2Client { client_id, client_secret })
}

fn identity() -> impl Strategy<Value = Identity> {
    (text(), text(), option::of(client()), text()).prop_map(
        |(iam_role, k8s_service_account, oauth2_client, execution_identity)| Identity {
            iam_role,
            k8s_service_account,
            oauth2_client,
            execution_identity,
        },
    )
}

fn token() -> impl Strategy<Value = OAuth2TokenRequest> {
    (text(), any_of(OAuth2TokenRequestType::ALL), option::of(client()), text(), text()).prop_map(
        |(name, token_type, client, idp_discovery_endpoint, token_endpoint)| OAuth2TokenRequest {
            name,
            token_type,
            client,
            idp_discovery_endpoint,
            token_endpoint,
        },
    )
}

fn context() -> impl Strategy<Value = SecurityContext> {
    (option::of(identity()), vec(secret(), 0..2), vec(token(), 0..2))
        .prop_map(|(run_as, secrets, tokens)| SecurityContext { run_as, secrets, tokens })
}

/// Any JSON.
pub(in super::super) fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-9_007_199_254_740_992..=9_007_199_254_740_992_i64).prop_map(Value::from),
        (-4000..4000).prop_map(|eighths| match eighths % 8 {
            0 => json!(eighths / 8),
            _ => json!(f64::from(eighths) / 8.0),
        }),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 16, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(Value::from),
            btree_map(text(), inner, 0..3).prop_map(|fields| Value::Object(Map::from_iter(fields))),
        ]
    })
}

fn environment() -> impl Strategy<Value = Environment> {
    let fields = || btree_map(text(), json(), 0..3).prop_map(Map::from_iter);
    prop_oneof![fields().prop_map(Environment::Extant), fields().prop_map(Environment::Spec)]
}

fn assignment() -> impl Strategy<Value = ExecutionEnvAssignment> {
    let env = (text(), text(), option::of(environment()), text()).prop_map(
        |(name, env_type, environment, version)| ExecutionEnv {
            name,
            env_type,
            environment,
            version,
        },
    );
    (vec(text(), 0..2), text(), option::of(env)).prop_map(|(node_ids, task_type, execution_env)| {
        ExecutionEnvAssignment { node_ids, task_type, execution_env }
    })
}

pub(in super::super) fn config() -> impl Strategy<Value = WorkflowExecutionConfig> {
    let pair = (text(), text()).prop_map(|(key, value)| KeyValuePair { key, value });
    let (numbers, flags) = (0..3_i32, (option::of(any::<bool>()), any::<bool>()));
    let maps = (text(), map(), map(), vec(pair, 0..2));
    let rest = (option::of(context()), vec(assignment(), 0..2));
    (numbers, flags, maps, rest).prop_map(|(max_parallelism, flags, maps, rest)| {
        let (prefix, labels, annotations, envs) = maps;
        WorkflowExecutionConfig {
            max_parallelism,
            security_context: rest.0,
            raw_output_data_config: RawOutputDataConfig { output_location_prefix: prefix },
            labels: Labels { values: labels },
            annotations: Annotations { values: annotations },
            interruptible: flags.0,
            overwrite_cache: flags.1,
            envs: Envs { values: envs },
            execution_env_assignments: rest.1,
        }
    })
}

/// Attributes of any kind.
pub(in super::super) fn attributes() -> impl Strategy<Value = MatchingAttributes> {
    prop_oneof![
        task_resources().prop_map(Into::into),
        cluster_resources().prop_map(Into::into),
        vec(text(), 0..4).prop_map(|tags| ExecutionQueueAttributes { tags }.into()),
        text().prop_map(|value| ExecutionClusterLabel { value }.into()),
        quality_of_service().prop_map(Into::into),
        plugin_overrides().prop_map(Into::into),
        config().prop_map(Into::into),
        text().prop_map(|cluster_pool_name| ClusterAssignment { cluster_pool_name }.into()),
    ]
}
