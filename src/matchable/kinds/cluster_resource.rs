//! `CLUSTER_RESOURCE`: values for the templates of a project's resources in the cluster.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::super::kind::{InvalidField, MatchableResource};
use super::rules::{entry, not_blank, not_empty};

/// Values for the templates of a project's resources in the cluster, such as quotas.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterResourceAttributes {
    /// Values by the template's variable, whose case counts.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
}

impl MatchableResource for ClusterResourceAttributes {
    const NAME: &'static str = "CLUSTER_RESOURCE";
    const NUMBER: Option<u32> = Some(1);

    fn validate(&self) -> Result<(), InvalidField> {
        not_empty(self.attributes.is_empty(), "attributes")?;
        self.attributes.keys().try_for_each(|name| not_blank(entry("attributes", name), name))
    }

    /// Variable by variable, as FlyteAdmin lays them over its configuration.
    fn merge(self, mut below: Self) -> Self {
        below.attributes.extend(self.attributes);
        below
    }
}
