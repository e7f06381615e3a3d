//! Places on the command line, in JSON and in words.

use serde::Serialize;
use tokenpool::matchable::AttributePath;

use crate::args::Place;
use crate::error::{Error, Result};

impl Place {
    /// The place that the options name; none if they name none.
    pub(super) fn path(&self) -> Result<Option<AttributePath>> {
        let names = [
            ("--project", &self.project),
            ("--domain", &self.domain),
            ("WORKFLOW", &self.workflow),
            ("--launch-plan", &self.launch_plan),
        ];
        let empty = |name: &Option<String>| name.as_ref().is_some_and(String::is_empty);
        if let Some((option, _)) = names.iter().find(|(_, name)| empty(name)) {
            return Err(Error::Usage(format!("{option}: must not be empty")));
        }
        if names.iter().all(|(_, name)| name.is_none()) {
            return Ok(None);
        }
        let [project, domain, workflow, launch_plan] =
            names.map(|(_, name)| name.as_deref().unwrap_or_default());
        Ok(Some(AttributePath::new(project, domain, workflow, launch_plan)?))
    }
}

/// A place in JSON, one field for each name.
#[derive(Debug, Serialize)]
pub(super) struct PathAnswer {
    /// The project, or null: every project.
    pub(super) project: Option<String>,
    /// The domain, or null: the project itself.
    pub(super) domain: Option<String>,
    /// The workflow, or null: the whole domain.
    pub(super) workflow: Option<String>,
    /// The launch plan, or null: the whole workflow.
    pub(super) launch_plan: Option<String>,
}

impl From<&AttributePath> for PathAnswer {
    fn from(path: &AttributePath) -> Self {
        Self {
            project: path.project_name().map(str::to_owned),
            domain: path.domain_name().map(str::to_owned),
            workflow: path.workflow_name().map(Into::into),
            launch_plan: path.launch_plan_name().map(Into::into),
        }
    }
}

impl PathAnswer {
    /// One to a column.
    pub(super) fn cells(&self) -> [String; 4] {
        let project = self.project.clone().unwrap_or_else(|| "(all)".to_owned());
        let others = [&self.domain, &self.workflow, &self.launch_plan];
        let [domain, workflow, launch_plan] =
            others.map(|name| crate::format::or_dash(name.as_deref()));
        [project, domain, workflow, launch_plan]
    }
}

/// A place in flytectl's words: `billing project and domain production`.
pub(super) fn in_words(path: &AttributePath) -> String {
    let mut words = match path.project_name() {
        Some(project) => format!("{project} project"),
        None => "every project".to_owned(),
    };
    let below = [
        ("domain", path.domain_name().map(Into::into)),
        ("workflow", path.workflow_name()),
        ("launch plan", path.launch_plan_name()),
    ];
    for (level, name) in below {
        if let Some(name) = name {
            words += &format!(" and {level} {name}");
        }
    }
    words
}
