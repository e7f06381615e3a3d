//! Settings that override defaults for a project, a domain, a workflow or a launch plan: Flyte's matchable resources.
//!
//! [`Attributes`] of a kind ([`MatchableResource`]) are set at an [`AttributePath`] and looked up for one: the most specific
//! place that has any wins, in one round trip. An [`AttributeStore`] keeps them, with versions.

mod attributes;
mod cache;
mod flyte;
#[cfg(feature = "flyteidl")]
mod flyteidl;
mod kind;
mod kinds;
mod memory;
mod path;
mod provenance;
mod record;
mod resource_constraints;
mod store;
mod watcher;

pub use attributes::{
    AnsweredBy, Attributes, AttributesOf, AttributesPage, Found, LookedUp, Resolution, Unreadable,
    Updated, Version,
};
pub use cache::CacheConfig;
pub use flyte::{
    FlyteAttributes, ProjectAttributes, ProjectDomainAttributes, ProjectState, Projects,
    ResourceRequest, ResourceResponse, WorkflowAttributes,
};
#[cfg(feature = "flyteidl")]
pub use flyteidl::FlyteBytesError;
pub use kind::{InvalidField, Kind, KindName, MatchableResource};
pub use kinds::{
    Annotations, ClusterAssignment, ClusterResourceAttributes, Environment, Envs,
    ExecutionClusterLabel, ExecutionEnv, ExecutionEnvAssignment, ExecutionQueueAttributes,
    Identity, KeyValuePair, Labels, MatchingAttributes, MissingPluginBehavior, MountType,
    OAuth2Client, OAuth2TokenRequest, OAuth2TokenRequestType, PluginOverride, PluginOverrides,
    QualityOfService, QualityOfServiceSpec, QualityOfServiceTier, RawOutputDataConfig, Secret,
    SecurityContext, TaskResourceAttributes, TaskResourceSpec, WorkflowExecutionConfig,
};
pub use memory::MemoryAttributeStore;
pub use path::{AttributePath, Level};
pub use record::{Damaged, Record, Stored};
pub use resource_constraints::{PoolConstraints, ResourceConstraints};
pub use store::{
    AttributeStore, Expected, Filter, KEPT_VERSIONS, MAX_VALUE_LENGTH, PageStart, RecordsPage,
    Write, Written,
};
pub use watcher::{Watch, Watcher};

#[cfg(feature = "redis")]
pub use crate::redis::RedisAttributeStore;
