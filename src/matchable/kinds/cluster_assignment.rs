//! `CLUSTER_ASSIGNMENT`: which pool of clusters an execution runs in.

use serde::{Deserialize, Serialize};

use super::super::kind::{InvalidField, MatchableResource};
use super::rules::not_blank;

/// The pool of clusters that an execution runs in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterAssignment {
    /// Name of the pool.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cluster_pool_name: String,
}

impl MatchableResource for ClusterAssignment {
    const NAME: &'static str = "CLUSTER_ASSIGNMENT";
    const NUMBER: Option<u32> = Some(7);

    fn validate(&self) -> Result<(), InvalidField> {
        not_blank("cluster_pool_name", &self.cluster_pool_name)
    }
}
