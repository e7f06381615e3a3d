//! Messages as attributes. What has no message is not set.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};

use super::super::kind::InvalidField;
use super::super::kinds as k;
use super::messages as m;

type Result<T> = std::result::Result<T, InvalidField>;

impl TryFrom<m::Target> for k::MatchingAttributes {
    type Error = InvalidField;

    fn try_from(target: m::Target) -> Result<Self> {
        use m::Target as T;
        Ok(match target {
            T::TaskResourceAttributes(it) => k::TaskResourceAttributes::from(*it).into(),
            T::ClusterResourceAttributes(it) => {
                k::ClusterResourceAttributes { attributes: map(it) }.into()
            }
            T::ExecutionQueueAttributes(m::ExecutionQueueAttributes { tags }) => {
                k::ExecutionQueueAttributes { tags }.into()
            }
            T::ExecutionClusterLabel(m::ExecutionClusterLabel { value }) => {
                k::ExecutionClusterLabel { value }.into()
            }
            T::QualityOfService(it) => k::QualityOfService::try_from(it)?.into(),
            T::PluginOverrides(m::PluginOverrides { overrides }) => {
                k::PluginOverrides { overrides: list("overrides", overrides)? }.into()
            }
            T::WorkflowExecutionConfig(it) => k::WorkflowExecutionConfig::try_from(*it)?.into(),
            T::ClusterAssignment(m::ClusterAssignment { cluster_pool_name }) => {
                k::ClusterAssignment { cluster_pool_name }.into()
            }
        })
    }
}

/// Of entries with the same key the last counts, as in Protocol Buffers.
fn map(message: m::StringMap) -> BTreeMap<String, String> {
    let entry =
        |m::StringEntry { key, value }| (key.unwrap_or_default(), value.unwrap_or_default());
    message.values.into_iter().map(entry).collect()
}

fn list<M, K: TryFrom<M, Error = InvalidField>>(field: &str, messages: Vec<M>) -> Result<Vec<K>> {
    let read = |(place, message)| {
        K::try_from(message).map_err(|error| error.within(format_args!("{field}[{place}]")))
    };
    messages.into_iter().enumerate().map(read).collect()
}

fn part<M, K: TryFrom<M, Error = InvalidField>>(
    field: &str,
    message: Option<M>,
) -> Result<Option<K>> {
    message.map(K::try_from).transpose().map_err(|error| error.within(field))
}

/// A value of an enumeration.
fn value<T>(field: &str, number: i32, of_number: impl Fn(i64) -> Option<T>) -> Result<T> {
    let unknown = || InvalidField::new(field, number, "is none of the numbers of its values");
    of_number(number.into()).ok_or_else(unknown)
}

impl From<m::TaskResourceAttributes> for k::TaskResourceAttributes {
    fn from(message: m::TaskResourceAttributes) -> Self {
        let m::TaskResourceAttributes { defaults, limits } = message;
        let spec = |spec: Option<m::TaskResourceSpec>| spec.unwrap_or_default().into();
        Self { defaults: spec(defaults), limits: spec(limits) }
    }
}

impl From<m::TaskResourceSpec> for k::TaskResourceSpec {
    fn from(message: m::TaskResourceSpec) -> Self {
        let m::TaskResourceSpec { cpu, gpu, memory, storage, ephemeral_storage } = message;
        Self { cpu, gpu, memory, storage, ephemeral_storage }
    }
}

impl TryFrom<m::QualityOfService> for k::QualityOfService {
    type Error = InvalidField;

    fn try_from(message: m::QualityOfService) -> Result<Self> {
        Ok(match message.designation {
            None => Self::Tier(k::QualityOfServiceTier::Undefined),
            Some(m::Designation::Tier(tier)) => {
                Self::Tier(value("tier", tier, k::QualityOfServiceTier::of_number)?)
            }
            Some(m::Designation::Spec(m::QualityOfServiceSpec { queueing_budget })) => {
                let queueing_budget = part("spec.queueing_budget", queueing_budget)?;
                Self::Spec(k::QualityOfServiceSpec { queueing_budget })
            }
        })
    }
}

impl TryFrom<m::Duration> for Duration {
    type Error = InvalidField;

    fn try_from(m::Duration { seconds, nanos }: m::Duration) -> Result<Self> {
        k::duration(seconds, nanos.into()).ok_or_else(|| {
            let value = format_args!("{seconds}s and {nanos}ns");
            InvalidField::new("", value, "must be a duration that is not negative")
        })
    }
}

impl TryFrom<m::PluginOverride> for k::PluginOverride {
    type Error = InvalidField;

    fn try_from(message: m::PluginOverride) -> Result<Self> {
        let m::PluginOverride { task_type, plugin_id, missing_plugin_behavior } = message;
        let missing_plugin_behavior = value(
            "missing_plugin_behavior",
            missing_plugin_behavior,
            k::MissingPluginBehavior::of_number,
        )?;
        Ok(Self { task_type, plugin_id, missing_plugin_behavior })
    }
}

impl TryFrom<m::WorkflowExecutionConfig> for k::WorkflowExecutionConfig {
    type Error = InvalidField;

    fn try_from(message: m::WorkflowExecutionConfig) -> Result<Self> {
        let m::WorkflowExecutionConfig {
            max_parallelism,
            security_context,
            raw_output_data_config,
            labels,
            annotations,
            interruptible,
            overwrite_cache,
            envs,
            execution_env_assignments,
        } = message;
        let m::RawOutputDataConfig { output_location_prefix } =
            raw_output_data_config.unwrap_or_default();
        let env = |m::KeyValuePair { key, value }| k::KeyValuePair { key, value };
        let envs = envs.unwrap_or_default().values.into_iter().map(env).collect();
        let assignments = list("execution_env_assignments", execution_env_assignments)?;
        Ok(Self {
            max_parallelism,
            security_context: part("security_context", security_context)?,
            raw_output_data_config: k::RawOutputDataConfig { output_location_prefix },
            labels: k::Labels { values: map(labels.unwrap_or_default()) },
            annotations: k::Annotations { values: map(annotations.unwrap_or_default()) },
            interruptible: interruptible.map(|m::BoolValue { value }| value),
            overwrite_cache,
            envs: k::Envs { values: envs },
            execution_env_assignments: assignments,
        })
    }
}

impl TryFrom<m::SecurityContext> for k::SecurityContext {
    type Error = InvalidField;

    fn try_from(message: m::SecurityContext) -> Result<Self> {
        let m::SecurityContext { run_as, secrets, tokens } = message;
        Ok(Self {
            run_as: part("run_as", run_as)?,
            secrets: list("secrets", secrets)?,
            tokens: list("tokens", tokens)?,
        })
    }
}

impl TryFrom<m::Identity> for k::Identity {
    type Error = InvalidField;

    fn try_from(message: m::Identity) -> Result<Self> {
        let m::Identity { iam_role, k8s_service_account, oauth2_client, execution_identity } =
            message;
        let oauth2_client = part("oauth2_client", oauth2_client)?;
        Ok(Self { iam_role, k8s_service_account, oauth2_client, execution_identity })
    }
}

impl TryFrom<m::OAuth2Client> for k::OAuth2Client {
    type Error = InvalidField;

    fn try_from(message: m::OAuth2Client) -> Result<Self> {
        let m::OAuth2Client { client_id, client_secret } = message;
        Ok(Self { client_id, client_secret: part("client_secret", client_secret)? })
    }
}

impl TryFrom<m::Secret> for k::Secret {
    type Error = InvalidField;

    fn try_from(message: m::Secret) -> Result<Self> {
        let m::Secret { group, group_version, key, mount_requirement, env_var } = message;
        let mount_requirement =
            value("mount_requirement", mount_requirement, k::MountType::of_number)?;
        Ok(Self { group, group_version, key, mount_requirement, env_var })
    }
}

impl TryFrom<m::OAuth2TokenRequest> for k::OAuth2TokenRequest {
    type Error = InvalidField;

    fn try_from(message: m::OAuth2TokenRequest) -> Result<Self> {
        let m::OAuth2TokenRequest {
            name,
            token_type,
            client,
            idp_discovery_endpoint,
            token_endpoint,
        } = message;
        let token_type = value("type", token_type, k::OAuth2TokenRequestType::of_number)?;
        let client = part("client", client)?;
        Ok(Self { name, token_type, client, idp_discovery_endpoint, token_endpoint })
    }
}

impl TryFrom<m::ExecutionEnvAssignment> for k::ExecutionEnvAssignment {
    type Error = InvalidField;

    fn try_from(message: m::ExecutionEnvAssignment) -> Result<Self> {
        let m::ExecutionEnvAssignment { node_ids, task_type, execution_env } = message;
        Ok(Self { node_ids, task_type, execution_env: part("execution_env", execution_env)? })
    }
}

impl TryFrom<m::ExecutionEnv> for k::ExecutionEnv {
    type Error = InvalidField;

    fn try_from(message: m::ExecutionEnv) -> Result<Self> {
        let m::ExecutionEnv { name, env_type, environment, version } = message;
        let environment = match environment {
            None => None,
            Some(m::Environment::Extant(extant)) => Some(k::Environment::Extant(
                fields(extant).map_err(|error| error.within("extant"))?,
            )),
            Some(m::Environment::Spec(spec)) => {
                Some(k::Environment::Spec(fields(spec).map_err(|error| error.within("spec"))?))
            }
        };
        Ok(Self { name, env_type, environment, version })
    }
}

fn fields(message: m::Struct) -> Result<Map<String, Value>> {
    let field = |m::FieldsEntry { key, value }| {
        let key = key.unwrap_or_default();
        let value = json(value.unwrap_or_default())
            .map_err(|error| error.within(format_args!("[{key:?}]")))?;
        Ok((key, value))
    };
    message.fields.into_iter().map(field).collect()
}

fn json(message: m::Value) -> Result<Value> {
    Ok(match message.kind {
        None | Some(m::ValueKind::Null(_)) => Value::Null,
        Some(m::ValueKind::Bool(value)) => Value::Bool(value),
        Some(m::ValueKind::Number(number)) => {
            let rule = "must be a number that JSON has";
            let plain = k::plain_number(number);
            Value::Number(plain.ok_or_else(|| InvalidField::new("", number, rule))?)
        }
        Some(m::ValueKind::String(text)) => Value::String(text),
        Some(m::ValueKind::List(m::ListValue { values })) => {
            Value::Array(values.into_iter().map(json).collect::<Result<_>>()?)
        }
        Some(m::ValueKind::Struct(message)) => Value::Object(fields(message)?),
    })
}
