//! `EXECUTION_CLUSTER_LABEL`: which clusters an execution may run in.

use serde::{Deserialize, Serialize};

use super::super::kind::{InvalidField, MatchableResource};
use super::rules::not_blank;

/// The label of the clusters that an execution may run in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExecutionClusterLabel {
    /// The label.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub value: String,
}

impl MatchableResource for ExecutionClusterLabel {
    const NAME: &'static str = "EXECUTION_CLUSTER_LABEL";
    const NUMBER: Option<u32> = Some(3);

    fn validate(&self) -> Result<(), InvalidField> {
        not_blank("value", &self.value)
    }
}
