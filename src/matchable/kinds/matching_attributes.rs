//! Attributes of any of Flyte's kinds, as its requests carry them.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::kind::{InvalidField, MatchableResource};
use super::{
    ClusterAssignment, ClusterResourceAttributes, ExecutionClusterLabel, ExecutionQueueAttributes,
    PluginOverrides, QualityOfService, TaskResourceAttributes, WorkflowExecutionConfig,
};

macro_rules! matching_attributes {
    ($($kind:ident $about:literal),* $(,)?) => {
        /// Attributes of any of Flyte's eight kinds, as its requests carry them.
        ///
        /// In JSON and YAML each kind looks as in Flyte's attribute files: names of fields in snake case, exactly; an unknown
        /// one is an error. What is empty or zero counts as not set, as in Protocol Buffers, and is not written. Values of
        /// enumerations are read by name or number and written by name. This enumeration itself is an object whose only key is
        /// the kind's field in Flyte's message, such as `task_resource_attributes`.
        ///
        /// | # | kind | attributes | how places combine |
        /// | --- | --- | --- | --- |
        /// | 0 | `TASK_RESOURCE` | [`TaskResourceAttributes`] | the most specific |
        /// | 1 | `CLUSTER_RESOURCE` | [`ClusterResourceAttributes`] | key by key |
        /// | 2 | `EXECUTION_QUEUE` | [`ExecutionQueueAttributes`] | the most specific |
        /// | 3 | `EXECUTION_CLUSTER_LABEL` | [`ExecutionClusterLabel`] | the most specific |
        /// | 4 | `QUALITY_OF_SERVICE_SPECIFICATION` | [`QualityOfService`] | the most specific |
        /// | 5 | `PLUGIN_OVERRIDE` | [`PluginOverrides`] | task type by task type, updates too |
        /// | 6 | `WORKFLOW_EXECUTION_CONFIG` | [`WorkflowExecutionConfig`] | field by field |
        /// | 7 | `CLUSTER_ASSIGNMENT` | [`ClusterAssignment`] | the most specific |
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[non_exhaustive]
        pub enum MatchingAttributes {
            $(#[doc = $about] $kind($kind),)*
        }

        impl MatchingAttributes {
            /// The name of the kind.
            pub const fn kind_name(&self) -> &'static str {
                match self {
                    $(Self::$kind(_) => $kind::NAME,)*
                }
            }

            /// The number of the kind in Flyte's `MatchableResource`.
            pub const fn kind_number(&self) -> Option<u32> {
                match self {
                    $(Self::$kind(_) => $kind::NUMBER,)*
                }
            }

            /// Attributes of the kind with this number, if there is such a kind.
            pub(crate) fn from_value(
                number: u32,
                value: &Value,
            ) -> Option<Result<Self, serde_json::Error>> {
                match Some(number) {
                    $($kind::NUMBER => Some($kind::deserialize(value).map(Self::$kind)),)*
                    _ => None,
                }
            }

            /// The attributes without the name of their kind.
            pub(crate) fn to_value(&self) -> Result<Value, serde_json::Error> {
                match self {
                    $(Self::$kind(attributes) => serde_json::to_value(attributes),)*
                }
            }

            /// Whether the attributes may be stored: [`MatchableResource::validate`] of the kind.
            ///
            /// # Errors
            ///
            /// The first field that breaks a rule.
            pub fn validate(&self) -> Result<(), InvalidField> {
                match self {
                    $(Self::$kind(attributes) => attributes.validate(),)*
                }
            }
        }

        $(
            impl From<$kind> for MatchingAttributes {
                fn from(attributes: $kind) -> Self {
                    Self::$kind(attributes)
                }
            }
        )*
    };
}

matching_attributes! {
    TaskResourceAttributes "Of `TASK_RESOURCE`.",
    ClusterResourceAttributes "Of `CLUSTER_RESOURCE`.",
    ExecutionQueueAttributes "Of `EXECUTION_QUEUE`.",
    ExecutionClusterLabel "Of `EXECUTION_CLUSTER_LABEL`.",
    QualityOfService "Of `QUALITY_OF_SERVICE_SPECIFICATION`.",
    PluginOverrides "Of `PLUGIN_OVERRIDE`.",
    WorkflowExecutionConfig "Of `WORKFLOW_EXECUTION_CONFIG`.",
    ClusterAssignment "Of `CLUSTER_ASSIGNMENT`.",
}
