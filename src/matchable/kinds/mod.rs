//! Flyte's eight kinds of attributes; [`MatchingAttributes`] tells what they have in common.

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
