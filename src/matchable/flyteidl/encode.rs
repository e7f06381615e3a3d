//! Attributes as messages. What is not set has no message, where Flyte does not tell an empty one from none.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};

use super::super::kinds as k;
use super::messages as m;

impl From<k::MatchingAttributes> for m::MatchingAttributes {
    fn from(attributes: k::MatchingAttributes) -> Self {
        use k::MatchingAttributes as A;
        let target = match attributes {
            A::TaskResourceAttributes(it) => m::Target::TaskResourceAttributes(Box::new(it.into())),
            A::ClusterResourceAttributes(it) => {
                m::Target::ClusterResourceAttributes(map(it.attributes))
            }
            A::ExecutionQueueAttributes(k::ExecutionQueueAttributes { tags }) => {
                m::Target::ExecutionQueueAttributes(m::ExecutionQueueAttributes { tags })
            }
            A::ExecutionClusterLabel(k::ExecutionClusterLabel { value }) => {
                m::Target::ExecutionClusterLabel(m::ExecutionClusterLabel { value })
            }
            A::QualityOfService(it) => m::Target::QualityOfService(it.into()),
            A::PluginOverrides(k::PluginOverrides { overrides }) => {
                let overrides = overrides.into_iter().map(Into::into).collect();
                m::Target::PluginOverrides(m::PluginOverrides { overrides })
            }
            A::WorkflowExecutionConfig(it) => {
                m::Target::WorkflowExecutionConfig(Box::new(it.into()))
            }
            A::ClusterAssignment(k::ClusterAssignment { cluster_pool_name }) => {
                m::Target::ClusterAssignment(m::ClusterAssignment { cluster_pool_name })
            }
        };
        Self { target: Some(target) }
    }
}

fn map(values: BTreeMap<String, String>) -> m::StringMap {
    let entry = |(key, value)| m::StringEntry { key: Some(key), value: Some(value) };
    m::StringMap { values: values.into_iter().map(entry).collect() }
}

/// Nothing where nothing is set.
fn set<T: Default + PartialEq>(message: T) -> Option<T> {
    Some(message).filter(|message| *message != T::default())
}

impl From<k::TaskResourceAttributes> for m::TaskResourceAttributes {
    fn from(attributes: k::TaskResourceAttributes) -> Self {
        let k::TaskResourceAttributes { defaults, limits } = attributes;
        Self { defaults: set(defaults.into()), limits: set(limits.into()) }
    }
}

impl From<k::TaskResourceSpec> for m::TaskResourceSpec {
    fn from(spec: k::TaskResourceSpec) -> Self {
        let k::TaskResourceSpec { cpu, gpu, memory, storage, ephemeral_storage } = spec;
        Self { cpu, gpu, memory, storage, ephemeral_storage }
    }
}

impl From<k::QualityOfService> for m::QualityOfService {
    fn from(quality: k::QualityOfService) -> Self {
        let designation = match quality {
            k::QualityOfService::Tier(tier) => m::Designation::Tier(tier.number()),
            k::QualityOfService::Spec(k::QualityOfServiceSpec { queueing_budget }) => {
                let queueing_budget = queueing_budget.map(Into::into);
                m::Designation::Spec(m::QualityOfServiceSpec { queueing_budget })
            }
        };
        Self { designation: Some(designation) }
    }
}

impl From<Duration> for m::Duration {
    fn from(duration: Duration) -> Self {
        // The rules of the kind allow far less.
        let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        Self { seconds, nanos: duration.subsec_nanos().cast_signed() }
    }
}

impl From<k::PluginOverride> for m::PluginOverride {
    fn from(one: k::PluginOverride) -> Self {
        let k::PluginOverride { task_type, plugin_id, missing_plugin_behavior } = one;
        let missing_plugin_behavior = missing_plugin_behavior.number();
        Self { task_type, plugin_id, missing_plugin_behavior }
    }
}

impl From<k::WorkflowExecutionConfig> for m::WorkflowExecutionConfig {
    fn from(config: k::WorkflowExecutionConfig) -> Self {
        let k::WorkflowExecutionConfig {
            max_parallelism,
            security_context,
            raw_output_data_config: k::RawOutputDataConfig { output_location_prefix },
            labels,
            annotations,
            interruptible,
            overwrite_cache,
            envs,
            execution_env_assignments,
        } = config;
        let env = |k::KeyValuePair { key, value }| m::KeyValuePair { key, value };
        let envs = m::Envs { values: envs.values.into_iter().map(env).collect() };
        Self {
            max_parallelism,
            security_context: security_context.map(Into::into),
            raw_output_data_config: set(m::RawOutputDataConfig { output_location_prefix }),
            labels: set(map(labels.values)),
            annotations: set(map(annotations.values)),
            interruptible: interruptible.map(|value| m::BoolValue { value }),
            overwrite_cache,
            envs: set(envs),
            execution_env_assignments: execution_env_assignments
                .into_iter()
                .map(Into::into)
                .collect(),
        }
    }
}

impl From<k::SecurityContext> for m::SecurityContext {
    fn from(context: k::SecurityContext) -> Self {
        let k::SecurityContext { run_as, secrets, tokens } = context;
        Self {
            run_as: run_as.map(Into::into),
            secrets: secrets.into_iter().map(Into::into).collect(),
            tokens: tokens.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<k::Identity> for m::Identity {
    fn from(identity: k::Identity) -> Self {
        let k::Identity { iam_role, k8s_service_account, oauth2_client, execution_identity } =
            identity;
        let oauth2_client = oauth2_client.map(Into::into);
        Self { iam_role, k8s_service_account, oauth2_client, execution_identity }
    }
}

impl From<k::OAuth2Client> for m::OAuth2Client {
    fn from(client: k::OAuth2Client) -> Self {
        let k::OAuth2Client { client_id, client_secret } = client;
        Self { client_id, client_secret: client_secret.map(Into::into) }
    }
}

impl From<k::Secret> for m::Secret {
    fn from(secret: k::Secret) -> Self {
        let k::Secret { group, group_version, key, mount_requirement, env_var } = secret;
        Self { group, group_version, key, mount_requirement: mount_requirement.number(), env_var }
    }
}

impl From<k::OAuth2TokenRequest> for m::OAuth2TokenRequest {
    fn from(request: k::OAuth2TokenRequest) -> Self {
        let k::OAuth2TokenRequest {
            name,
            token_type,
            client,
            idp_discovery_endpoint,
            token_endpoint,
        } = request;
        let (token_type, client) = (token_type.number(), client.map(Into::into));
        Self { name, token_type, client, idp_discovery_endpoint, token_endpoint }
    }
}

impl From<k::ExecutionEnvAssignment> for m::ExecutionEnvAssignment {
    fn from(assignment: k::ExecutionEnvAssignment) -> Self {
        let k::ExecutionEnvAssignment { node_ids, task_type, execution_env } = assignment;
        Self { node_ids, task_type, execution_env: execution_env.map(Into::into) }
    }
}

impl From<k::ExecutionEnv> for m::ExecutionEnv {
    fn from(env: k::ExecutionEnv) -> Self {
        let k::ExecutionEnv { name, env_type, environment, version } = env;
        let environment = environment.map(|environment| match environment {
            k::Environment::Extant(extant) => m::Environment::Extant(extant.into()),
            k::Environment::Spec(spec) => m::Environment::Spec(spec.into()),
        });
        Self { name, env_type, environment, version }
    }
}

impl From<Map<String, Value>> for m::Struct {
    fn from(fields: Map<String, Value>) -> Self {
        // In order also where somebody in the program has `serde_json` keep another one.
        let fields: BTreeMap<_, _> = fields.into_iter().collect();
        let entry = |(key, value): (String, Value)| m::FieldsEntry {
            key: Some(key),
            value: Some(value.into()),
        };
        Self { fields: fields.into_iter().map(entry).collect() }
    }
}

impl From<Value> for m::Value {
    fn from(value: Value) -> Self {
        let kind = match value {
            Value::Null => m::ValueKind::Null(0),
            Value::Bool(value) => m::ValueKind::Bool(value),
            // Every number has a float next to it; the rules of the kind want it to be the same.
            Value::Number(number) => m::ValueKind::Number(number.as_f64().unwrap_or(f64::NAN)),
            Value::String(text) => m::ValueKind::String(text),
            Value::Array(values) => {
                let values = values.into_iter().map(Into::into).collect();
                m::ValueKind::List(m::ListValue { values })
            }
            Value::Object(fields) => m::ValueKind::Struct(fields.into()),
        };
        Self { kind: Some(kind) }
    }
}
