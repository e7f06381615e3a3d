//! `QUALITY_OF_SERVICE_SPECIFICATION`: how long an execution may be queued.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::kind::{InvalidField, MatchableResource};
use super::budget;
use super::enumeration::enumeration;

/// How long an execution may be queued: by a tier, or said exactly; never both.
///
/// FlyteAdmin has the kind but can neither write nor read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Designation", into = "Designation")]
#[non_exhaustive]
pub enum QualityOfService {
    /// As the tier says.
    Tier(QualityOfServiceTier),
    /// As said here.
    Spec(QualityOfServiceSpec),
}

enumeration! {
    /// How urgent an execution is.
    QualityOfServiceTier {
        Undefined "UNDEFINED" "Not said; not allowed in attributes.",
        High "HIGH" "It is queued shortly.",
        Medium "MEDIUM" "It may be queued for some time.",
        Low "LOW" "It may be queued for long.",
    }
}

/// What a quality of service is, exactly.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QualityOfServiceSpec {
    /// How long an execution may be queued. In JSON `"300s"`, as in Flyte; `"5m"` and `{"seconds": 300}` are read, too.
    #[serde(skip_serializing_if = "Option::is_none", with = "budget")]
    pub queueing_budget: Option<Duration>,
}

impl MatchableResource for QualityOfService {
    const NAME: &'static str = "QUALITY_OF_SERVICE_SPECIFICATION";
    const NUMBER: Option<u32> = Some(4);

    fn validate(&self) -> Result<(), InvalidField> {
        match self {
            Self::Tier(tier) => InvalidField::unless(
                *tier != QualityOfServiceTier::Undefined,
                "tier",
                tier.name(),
                "must be HIGH, MEDIUM or LOW",
            ),
            Self::Spec(QualityOfServiceSpec { queueing_budget }) => {
                budget::check("spec.queueing_budget", *queueing_budget)
            }
        }
    }
}

/// The shape in JSON.
#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Designation {
    #[serde(skip_serializing_if = "Option::is_none")]
    tier: Option<QualityOfServiceTier>,
    #[serde(skip_serializing_if = "Option::is_none")]
    spec: Option<QualityOfServiceSpec>,
}

impl TryFrom<Designation> for QualityOfService {
    type Error = &'static str;

    fn try_from(designation: Designation) -> Result<Self, &'static str> {
        match designation {
            Designation { tier: Some(tier), spec: None } => Ok(Self::Tier(tier)),
            Designation { tier: None, spec: Some(spec) } => Ok(Self::Spec(spec)),
            Designation { tier: None, spec: None } => Err("must have a tier or a spec"),
            Designation { tier: Some(_), spec: Some(_) } => {
                Err("must not have both a tier and a spec")
            }
        }
    }
}

impl From<QualityOfService> for Designation {
    fn from(quality: QualityOfService) -> Self {
        match quality {
            QualityOfService::Tier(tier) => Self { tier: Some(tier), spec: None },
            QualityOfService::Spec(spec) => Self { tier: None, spec: Some(spec) },
        }
    }
}
