//! Attributes of any of Flyte's kinds, as its requests carry them.

use serde::{Deserialize, Serialize};

use super::super::kind::{InvalidField, MatchableResource};
use super::{
    ClusterAssignment, ClusterResourceAttributes, ExecutionClusterLabel, ExecutionQueueAttributes,
    PluginOverrides, QualityOfService, TaskResourceAttributes, WorkflowExecutionConfig,
};

macro_rules! matching_attributes {
    ($($kind:ident $about:literal),* $(,)?) => {
        /// Attributes of any of Flyte's kinds, as its requests carry them. In JSON an object whose only key is the kind's field in
        /// Flyte's message, such as `task_resource_attributes`.
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
