//! Which execution a claim belongs to, and the levels of that identity that caps count.

use std::fmt;

use crate::error::Result;
use crate::name::{check_part, check_printable};

/// Which execution a claim belongs to; its project and domain are the scopes that caps count.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExecutionId {
    project: String,
    domain: String,
    name: String,
    workflow: Option<String>,
    launch_plan: Option<String>,
}

impl ExecutionId {
    /// The execution `name` in a domain of a project.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](crate::Error::InvalidArgument) if the project or the domain is empty or has a `:`, `{`, `}` or
    /// white space, if the name is empty, or if one of them has control characters or more than
    /// 255 bytes.
    pub fn new(project: &str, domain: &str, name: &str) -> Result<Self> {
        check_part("project", project)?;
        check_part("domain", domain)?;
        check_printable("execution", name)?;
        Ok(Self {
            project: project.to_owned(),
            domain: domain.to_owned(),
            name: name.to_owned(),
            workflow: None,
            launch_plan: None,
        })
    }

    /// The same execution, started from this workflow.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](crate::Error::InvalidArgument) under the rule for execution names.
    pub fn with_workflow(mut self, workflow: &str) -> Result<Self> {
        check_printable("workflow", workflow)?;
        self.workflow = Some(workflow.to_owned());
        Ok(self)
    }

    /// The same execution, started by this launch plan.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](crate::Error::InvalidArgument) under the rule for execution names.
    pub fn with_launch_plan(mut self, launch_plan: &str) -> Result<Self> {
        check_printable("launch plan", launch_plan)?;
        self.launch_plan = Some(launch_plan.to_owned());
        Ok(self)
    }

    /// The project.
    pub fn project(&self) -> &str {
        &self.project
    }

    /// The domain.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The execution's own name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The workflow, if known.
    pub fn workflow(&self) -> Option<&str> {
        self.workflow.as_deref()
    }

    /// The launch plan, if known.
    pub fn launch_plan(&self) -> Option<&str> {
        self.launch_plan.as_deref()
    }
}

/// A level of an execution's identity that caps count: a project, or a domain of a project.
///
/// Scopes are exact: project `flyte` never counts project `flytesnacks`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Scope {
    /// All of a project.
    Project {
        /// The project.
        project: String,
    },
    /// One domain of a project; Flyte calls this level "namespace".
    Domain {
        /// The project.
        project: String,
        /// The domain.
        domain: String,
    },
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Project { project } => write!(f, "project {project}"),
            Self::Domain { project, domain } => write!(f, "domain {project}:{domain}"),
        }
    }
}
