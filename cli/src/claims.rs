//! What the commands about claims share: reading a claim, and showing what stops one.

use std::time::Duration;

use serde::Serialize;
use tokenpool::{
    AllocationToken, Claim, ExecutionId, Lease, Limit, Priority, Refusal, ResourceConstraint,
    ResourceConstraintsSpec, Scope, Units, Wait,
};

use crate::args::{Caps, Identity, Patience, Waiting};
use crate::error::{Error, Result};

/// The execution that the options name.
pub(crate) fn execution(identity: &Identity) -> Result<ExecutionId> {
    let Identity { project, domain, execution } = identity;
    Ok(ExecutionId::new(project, domain, execution)?)
}

/// The claim that the options describe.
pub(crate) fn claim(token: &str, units: i64, lease: Option<Duration>) -> Result<Claim> {
    let claim = Claim::new(AllocationToken::new(token)?, Units::new(units)?);
    Ok(match lease {
        Some(lease) => claim.with_lease(Lease::new(lease)?),
        None => claim,
    })
}

/// The caps given; an error names the option.
pub(crate) fn constraints(caps: Caps) -> Result<ResourceConstraintsSpec> {
    let cap = |option, value: Option<i64>| {
        let cap = value.map(ResourceConstraint::new).transpose();
        cap.map_err(|source| Error::Option { option, source })
    };
    Ok(ResourceConstraintsSpec {
        project_scope_resource_constraint: cap("--project-cap", caps.project_cap)?,
        namespace_scope_resource_constraint: cap("--namespace-cap", caps.namespace_cap)?,
    })
}

/// How the claim waits, if it does. Its time runs from now on.
pub(crate) fn wait(Waiting { wait, priority }: Waiting) -> Result<Option<Wait>> {
    let priority = Priority::new(priority.unwrap_or_default())?;
    let wait = match wait {
        None => return Ok(None),
        Some(Patience::Forever) => Wait::forever(),
        Some(Patience::Within(limit)) => {
            let limited = Wait::within(limit);
            limited.map_err(|source| Error::Option { option: "--wait", source })?
        }
    };
    Ok(Some(wait.with_priority(priority)))
}

/// The answer to the only claim or token there was.
pub(crate) fn only<T>(operation: &'static str, answers: Vec<T>) -> tokenpool::Result<T> {
    let none = || tokenpool::Error::Protocol { operation, reply: "no answer".to_owned() };
    answers.into_iter().next().ok_or_else(none)
}

/// JSON of a limit that stops a claim.
#[derive(Debug, Serialize)]
pub(crate) struct LimitAnswer {
    /// `quota`, `queue`, `learning`, `project_cap` or `namespace_cap`.
    kind: &'static str,
    /// The project whose cap it is, or null for the pool's.
    project: Option<String>,
    /// The domain whose cap it is, or null.
    domain: Option<String>,
    /// Units in use under the limit.
    in_use: u64,
    /// The limit's size in units.
    size: u64,
}

impl From<Refusal> for LimitAnswer {
    fn from(Refusal { limit, in_use, size, .. }: Refusal) -> Self {
        Self::new(&limit, in_use, size)
    }
}

impl LimitAnswer {
    pub(crate) fn new(limit: &Limit, in_use: u64, size: u64) -> Self {
        let (kind, project, domain) = match limit {
            Limit::Cap(Scope::Project { project }) => ("project_cap", Some(project), None),
            Limit::Cap(Scope::Domain { project, domain }) => {
                ("namespace_cap", Some(project), Some(domain))
            }
            Limit::Queue => ("queue", None, None),
            Limit::Learning { .. } => ("learning", None, None),
            _ => ("quota", None, None),
        };
        Self { kind, project: project.cloned(), domain: domain.cloned(), in_use, size }
    }
}
