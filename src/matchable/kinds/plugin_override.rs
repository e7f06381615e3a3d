//! `PLUGIN_OVERRIDE`: which plugins run which type of tasks.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::super::kind::{InvalidField, MatchableResource};
use super::enumeration::enumeration;
use super::rules::{each, is_default, not_blank, not_empty, unique};

/// Which plugins run which type of tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PluginOverrides {
    /// One for each type of tasks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<PluginOverride>,
}

/// Which plugins run one type of tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PluginOverride {
    /// The type of tasks.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub task_type: String,
    /// The plugins, tried in this order. None leaves the type to its default plugin, which also undoes an override, where
    /// `missing_plugin_behavior` is `USE_DEFAULT`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub plugin_id: Vec<String>,
    /// What happens where none of the plugins is there.
    #[serde(skip_serializing_if = "is_default")]
    pub missing_plugin_behavior: MissingPluginBehavior,
}

enumeration! {
    /// What happens to a task where none of its plugins is there.
    MissingPluginBehavior {
        Fail "FAIL" "It fails.",
        UseDefault "USE_DEFAULT" "Its type's default plugin runs it.",
    }
}

impl MatchableResource for PluginOverrides {
    const NAME: &'static str = "PLUGIN_OVERRIDE";
    const NUMBER: Option<u32> = Some(5);
    const UPDATES_MERGE: bool = true;

    fn validate(&self) -> Result<(), InvalidField> {
        not_empty(self.overrides.is_empty(), "overrides")?;
        each("overrides", &self.overrides, PluginOverride::validate)?;
        let task_types = self.overrides.iter().map(|one| one.task_type.as_str());
        unique("overrides", "task_type", task_types)
    }

    /// Type of tasks by type of tasks, whole overrides each, as FlyteAdmin merges updates.
    fn merge(mut self, below: Self) -> Self {
        let own: HashSet<_> = self.overrides.iter().map(|one| one.task_type.as_str()).collect();
        let is_new = |one: &PluginOverride| !own.contains(one.task_type.as_str());
        let others: Vec<_> = below.overrides.into_iter().filter(is_new).collect();
        self.overrides.extend(others);
        self
    }
}

impl PluginOverride {
    fn validate(&self) -> Result<(), InvalidField> {
        not_blank("task_type", &self.task_type)?;
        each("plugin_id", &self.plugin_id, |id| not_blank("", id))?;
        InvalidField::unless(
            !self.plugin_id.is_empty()
                || self.missing_plugin_behavior == MissingPluginBehavior::UseDefault,
            "plugin_id",
            "",
            "must not be empty unless missing_plugin_behavior is USE_DEFAULT",
        )
    }
}
