//! STAND-INS for the kinds that the library will bring: to be replaced in `kinds.rs` by those of `tokenpool::matchable`, and
//! this file deleted. Their fields are Flyte's; most of their rules are missing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokenpool::matchable::{InvalidField, MatchableResource};

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TaskResourceAttributes {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    defaults: Option<TaskResourceSpec>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    limits: Option<TaskResourceSpec>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TaskResourceSpec {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cpu: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gpu: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    memory: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    storage: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ephemeral_storage: Option<String>,
}

impl MatchableResource for TaskResourceAttributes {
    const NAME: &'static str = "TASK_RESOURCE";
    const NUMBER: Option<u32> = Some(0);

    fn validate(&self) -> Result<(), InvalidField> {
        for (part, spec) in [("defaults", &self.defaults), ("limits", &self.limits)] {
            let Some(cpu) = spec.as_ref().and_then(|spec| spec.cpu.as_ref()) else { continue };
            let holds = cpu.starts_with(|c: char| c.is_ascii_digit());
            InvalidField::unless(
                holds,
                format!("{part}.cpu"),
                cpu,
                "must be a quantity such as 500m",
            )?;
        }
        Ok(())
    }

    fn merge(self, below: Self) -> Self {
        Self { defaults: self.defaults.or(below.defaults), limits: self.limits.or(below.limits) }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClusterResourceAttributes {
    attributes: BTreeMap<String, String>,
}

impl MatchableResource for ClusterResourceAttributes {
    const NAME: &'static str = "CLUSTER_RESOURCE";
    const NUMBER: Option<u32> = Some(1);

    fn validate(&self) -> Result<(), InvalidField> {
        Ok(())
    }

    fn merge(mut self, below: Self) -> Self {
        for (name, value) in below.attributes {
            self.attributes.entry(name).or_insert(value);
        }
        self
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExecutionQueueAttributes {
    tags: Vec<String>,
}

impl MatchableResource for ExecutionQueueAttributes {
    const NAME: &'static str = "EXECUTION_QUEUE";
    const NUMBER: Option<u32> = Some(2);

    fn validate(&self) -> Result<(), InvalidField> {
        Ok(())
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExecutionClusterLabel {
    value: String,
}

impl MatchableResource for ExecutionClusterLabel {
    const NAME: &'static str = "EXECUTION_CLUSTER_LABEL";
    const NUMBER: Option<u32> = Some(3);

    fn validate(&self) -> Result<(), InvalidField> {
        Ok(())
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PluginOverrides {
    overrides: Vec<PluginOverride>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PluginOverride {
    task_type: String,
    plugin_id: Vec<String>,
    #[serde(default)]
    missing_plugin_behavior: u8,
}

impl MatchableResource for PluginOverrides {
    const NAME: &'static str = "PLUGIN_OVERRIDE";
    const NUMBER: Option<u32> = Some(5);
    const UPDATES_MERGE: bool = true;

    fn validate(&self) -> Result<(), InvalidField> {
        for (place, of) in self.overrides.iter().enumerate() {
            let field = |name| format!("overrides[{place}].{name}");
            InvalidField::unless(
                !of.task_type.is_empty(),
                field("task_type"),
                "",
                "must not be empty",
            )?;
            InvalidField::unless(
                !of.plugin_id.is_empty(),
                field("plugin_id"),
                "",
                "must not be empty",
            )?;
        }
        Ok(())
    }

    fn merge(mut self, below: Self) -> Self {
        for of in below.overrides {
            if !self.overrides.iter().any(|mine| mine.task_type == of.task_type) {
                self.overrides.push(of);
            }
        }
        self
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct WorkflowExecutionConfig(BTreeMap<String, Value>);

impl MatchableResource for WorkflowExecutionConfig {
    const NAME: &'static str = "WORKFLOW_EXECUTION_CONFIG";
    const NUMBER: Option<u32> = Some(6);

    fn validate(&self) -> Result<(), InvalidField> {
        let known = [
            "max_parallelism",
            "security_context",
            "raw_output_data_config",
            "labels",
            "annotations",
            "interruptible",
            "overwrite_cache",
            "envs",
        ];
        match self.0.keys().find(|field| !known.contains(&field.as_str())) {
            Some(field) => Err(InvalidField::new(field, "", format!("unknown field `{field}`"))),
            None => Ok(()),
        }
    }

    fn merge(mut self, below: Self) -> Self {
        for (name, value) in below.0 {
            self.0.entry(name).or_insert(value);
        }
        self
    }
}
