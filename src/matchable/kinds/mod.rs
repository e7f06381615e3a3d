//! Flyte's eight kinds of attributes.
//!
//! In JSON and YAML they look as in Flyte's attribute files: names of fields in snake case, exactly; an unknown one is an
//! error. What is empty or zero counts as not set, as in Protocol Buffers, and is not written. Values of enumerations are
//! read by name or number and written by name; [`validate`](super::MatchableResource::validate) holds the rules that Flyte
//! leaves to whoever reads the attributes.
//!
//! | # | kind | attributes | how places combine |
//! | --- | --- | --- | --- |
//! | 0 | `TASK_RESOURCE` | [`TaskResourceAttributes`] | the most specific |
//! | 1 | `CLUSTER_RESOURCE` | [`ClusterResourceAttributes`] | key by key |
//! | 2 | `EXECUTION_QUEUE` | [`ExecutionQueueAttributes`] | the most specific |
//! | 3 | `EXECUTION_CLUSTER_LABEL` | [`ExecutionClusterLabel`] | the most specific |
//! | 4 | `QUALITY_OF_SERVICE_SPECIFICATION` | [`QualityOfService`] | the most specific |
//! | 5 | `PLUGIN_OVERRIDE` | [`PluginOverrides`] | task type by task type, updates too |
//! | 6 | `WORKFLOW_EXECUTION_CONFIG` | [`WorkflowExecutionConfig`] | field by field |
//! | 7 | `CLUSTER_ASSIGNMENT` | [`ClusterAssignment`] | the most specific |

mod budget;
mod cluster_assignment;
mod cluster_resource;
mod enumeration;
mod execution_cluster_label;
mod execution_env;
mod execution_queue;
mod matching_attributes;
mod plugin_override;
mod quality_of_service;
mod quantity;
mod rules;
mod security_context;
mod syntax;
mod task_resource;
mod workflow_execution_config;

#[cfg(test)]
pub(super) mod arbitrary;
#[cfg(test)]
mod tests;

pub use cluster_assignment::ClusterAssignment;
pub use cluster_resource::ClusterResourceAttributes;
pub use execution_cluster_label::ExecutionClusterLabel;
pub use execution_env::{Environment, ExecutionEnv, ExecutionEnvAssignment};
pub use execution_queue::ExecutionQueueAttributes;
pub use matching_attributes::MatchingAttributes;
pub use plugin_override::{MissingPluginBehavior, PluginOverride, PluginOverrides};
pub use quality_of_service::{QualityOfService, QualityOfServiceSpec, QualityOfServiceTier};
pub use security_context::{
    Identity, MountType, OAuth2Client, OAuth2TokenRequest, OAuth2TokenRequestType, Secret,
    SecurityContext,
};
pub use task_resource::{TaskResourceAttributes, TaskResourceSpec};
pub use workflow_execution_config::{
    Annotations, Envs, KeyValuePair, Labels, RawOutputDataConfig, WorkflowExecutionConfig,
};

#[cfg(feature = "flyteidl")]
pub(super) use budget::duration;
#[cfg(feature = "flyteidl")]
pub(super) use execution_env::plain_number;
