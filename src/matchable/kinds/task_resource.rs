//! `TASK_RESOURCE`: what a task's container asks for, and at most gets.

use serde::{Deserialize, Serialize};

use super::super::kind::{InvalidField, MatchableResource};
use super::quantity;
use super::rules::{is_default, sets_something};

/// What a task's container asks for by default, and at most gets. Either half may be absent.
///
/// A default may exceed the limit: whoever runs the task clamps it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TaskResourceAttributes {
    /// What a container asks for that says nothing else.
    #[serde(skip_serializing_if = "is_default")]
    pub defaults: TaskResourceSpec,
    /// The most that a container gets.
    #[serde(skip_serializing_if = "is_default")]
    pub limits: TaskResourceSpec,
}

/// Quantities of Kubernetes, like `500m` or `4Gi`; an empty one is not set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TaskResourceSpec {
    /// Processors.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "quantity::text")]
    pub cpu: String,
    /// Graphics processors.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "quantity::text")]
    pub gpu: String,
    /// Bytes of memory.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "quantity::text")]
    pub memory: String,
    /// Bytes of storage.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "quantity::text")]
    pub storage: String,
    /// Bytes of storage on the node's own disks.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "quantity::text")]
    pub ephemeral_storage: String,
}

impl MatchableResource for TaskResourceAttributes {
    const NAME: &'static str = "TASK_RESOURCE";
    const NUMBER: Option<u32> = Some(0);

    fn validate(&self) -> Result<(), InvalidField> {
        sets_something(!is_default(self), "")?;
        self.defaults.validate().map_err(|error| error.within("defaults"))?;
        self.limits.validate().map_err(|error| error.within("limits"))
    }
}

impl TaskResourceSpec {
    fn validate(&self) -> Result<(), InvalidField> {
        let Self { cpu, gpu, memory, storage, ephemeral_storage } = self;
        quantity::check("cpu", cpu)?;
        quantity::check("gpu", gpu)?;
        quantity::check("memory", memory)?;
        quantity::check("storage", storage)?;
        quantity::check("ephemeral_storage", ephemeral_storage)
    }
}
