//! `EXECUTION_QUEUE`: which queues an execution may go to.

use serde::{Deserialize, Serialize};

use super::super::kind::{InvalidField, MatchableResource};
use super::rules::{each, not_blank, not_empty};

/// Tags of the queues that an execution may go to, the preferred ones first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExecutionQueueAttributes {
    /// The tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

impl MatchableResource for ExecutionQueueAttributes {
    const NAME: &'static str = "EXECUTION_QUEUE";
    const NUMBER: Option<u32> = Some(2);

    fn validate(&self) -> Result<(), InvalidField> {
        not_empty(self.tags.is_empty(), "tags")?;
        each("tags", &self.tags, |tag| not_blank("", tag))
    }
}
