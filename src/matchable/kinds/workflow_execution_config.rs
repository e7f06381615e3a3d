//! `WORKFLOW_EXECUTION_CONFIG`: how executions of a workflow run.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};

use super::super::kind::{InvalidField, MatchableResource};
use super::execution_env::ExecutionEnvAssignment;
use super::rules::{each, entry, is_default, not_only_space, sets_something, unique};
use super::security_context::SecurityContext;
use super::syntax;

/// Most bytes of all annotations, keys and values: what Kubernetes accepts.
const MAX_ANNOTATIONS: usize = 256 * 1024;

/// How executions of a workflow run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorkflowExecutionConfig {
    /// How many of an execution's nodes run at once, at most; 0 is not set.
    #[serde(skip_serializing_if = "is_default")]
    pub max_parallelism: i32,
    /// As whom it runs. One that is present keeps out those of less specific places, so an empty one is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_context: Option<SecurityContext>,
    /// Where its data go.
    #[serde(skip_serializing_if = "is_default")]
    pub raw_output_data_config: RawOutputDataConfig,
    /// Labels of its resources in Kubernetes.
    #[serde(skip_serializing_if = "is_default")]
    pub labels: Labels,
    /// Annotations of its resources in Kubernetes.
    #[serde(skip_serializing_if = "is_default")]
    pub annotations: Annotations,
    /// Whether its tasks may be interrupted. Unlike the other fields, `false` is set. In JSON `{"value": true}`; a bare
    /// `true` is read, too.
    #[serde(skip_serializing_if = "Option::is_none", with = "interruptible")]
    pub interruptible: Option<bool>,
    /// Whether it computes again what is cached; `false` is not set.
    #[serde(skip_serializing_if = "is_default")]
    pub overwrite_cache: bool,
    /// Environment variables of its containers.
    #[serde(skip_serializing_if = "is_default")]
    pub envs: Envs,
    /// Environments of its nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub execution_env_assignments: Vec<ExecutionEnvAssignment>,
}

/// Where data of executions go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawOutputDataConfig {
    /// The beginning of their URLs.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub output_location_prefix: String,
}

/// Labels of Kubernetes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Labels {
    /// Values by key.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, String>,
}

/// Annotations of Kubernetes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Annotations {
    /// Values by key.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, String>,
}

/// Environment variables.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Envs {
    /// The variables, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<KeyValuePair>,
}

/// A name and a value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeyValuePair {
    /// The name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub key: String,
    /// The value.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub value: String,
}

impl MatchableResource for WorkflowExecutionConfig {
    const NAME: &'static str = "WORKFLOW_EXECUTION_CONFIG";
    const NUMBER: Option<u32> = Some(6);

    fn validate(&self) -> Result<(), InvalidField> {
        let Self {
            max_parallelism,
            security_context,
            raw_output_data_config,
            labels,
            annotations,
            interruptible: _,
            overwrite_cache: _,
            envs,
            execution_env_assignments,
        } = self;
        sets_something(!is_default(self), "")?;
        let rule = "must not be negative; 0 is not set";
        InvalidField::unless(*max_parallelism >= 0, "max_parallelism", max_parallelism, rule)?;
        if let Some(context) = security_context {
            context.validate().map_err(|error| error.within("security_context"))?;
        }
        let field = "raw_output_data_config.output_location_prefix";
        not_only_space(field, &raw_output_data_config.output_location_prefix)?;
        labels.validate()?;
        annotations.validate()?;
        each("envs.values", &envs.values, |pair| syntax::check_variable("key", &pair.key))?;
        unique("envs.values", "key", envs.values.iter().map(|pair| pair.key.as_str()))?;
        let field = "execution_env_assignments";
        each(field, execution_env_assignments, ExecutionEnvAssignment::validate)
    }

    /// Field by field, as FlyteAdmin merges what an execution is started with: lists and maps are taken whole, a cache that
    /// is overwritten stays so, and a security context is taken only from where it names a role, an account or an identity.
    ///
    /// Associative, unless there is a security context that names none of those: it counts in its own place alone.
    fn merge(self, below: Self) -> Self {
        Self {
            max_parallelism: match self.max_parallelism {
                0 => below.max_parallelism.max(0),
                own => own,
            },
            security_context: self
                .security_context
                .or(below.security_context.filter(SecurityContext::is_inherited)),
            raw_output_data_config: set_or(
                self.raw_output_data_config,
                below.raw_output_data_config,
            ),
            labels: set_or(self.labels, below.labels),
            annotations: set_or(self.annotations, below.annotations),
            interruptible: self.interruptible.or(below.interruptible),
            overwrite_cache: self.overwrite_cache || below.overwrite_cache,
            envs: set_or(self.envs, below.envs),
            execution_env_assignments: set_or(
                self.execution_env_assignments,
                below.execution_env_assignments,
            ),
        }
    }
}

impl Labels {
    fn validate(&self) -> Result<(), InvalidField> {
        self.values.iter().try_for_each(|(key, value)| {
            let field = entry("labels.values", key);
            syntax::check_label_key(&field, key)?;
            syntax::check_label_value(&field, value)
        })
    }
}

impl Annotations {
    fn validate(&self) -> Result<(), InvalidField> {
        self.values.keys().try_for_each(|key| {
            syntax::check_annotation_key(&entry("annotations.values", key), key)
        })?;
        let length: usize = self.values.iter().map(|(key, value)| key.len() + value.len()).sum();
        InvalidField::unless(
            length <= MAX_ANNOTATIONS,
            "annotations.values",
            format_args!("{length} bytes"),
            format!("must not be longer than {MAX_ANNOTATIONS} bytes in all"),
        )
    }
}

fn set_or<T: Default + PartialEq>(own: T, below: T) -> T {
    if is_default(&own) { below } else { own }
}

/// A `google.protobuf.BoolValue` in JSON: a message, as attribute files have it, or the bare value, as protojson does.
mod interruptible {
    use super::*;

    pub(super) fn serialize<S: Serializer>(
        value: &Option<bool>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let Some(value) = value else { return serializer.serialize_none() };
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry("value", value)?;
        map.end()
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<bool>, D::Error> {
        deserializer.deserialize_any(BoolValue).map(Some)
    }

    struct BoolValue;

    impl<'de> Visitor<'de> for BoolValue {
        type Value = bool;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("true, false or {value: true}")
        }

        fn visit_bool<E: de::Error>(self, value: bool) -> Result<bool, E> {
            Ok(value)
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
            // A message without its field is one of `false`.
            let mut value = false;
            while let Some(key) = map.next_key::<String>()? {
                if key != "value" {
                    map.next_value::<IgnoredAny>()?;
                    return Err(de::Error::unknown_field(&key, &["value"]));
                }
                value = map.next_value()?;
            }
            Ok(value)
        }
    }
}
