//! Where attributes are set, and for whom they are looked up.

use std::borrow::{Borrow, Cow};
use std::convert::identity;
use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::execution::ExecutionId;
use crate::name::{check_part, check_printable};

const SEPARATOR: char = ':';

/// A place in the hierarchy of project, domain, workflow and launch plan.
///
/// Its text is the field under which stores keep it: the names joined by `:`, where `:` and `%` in a workflow or a launch
/// plan stand as `%3A` and `%25`. A domain of every project has an empty project. So each text is one place, and
/// the places that a look-up falls back on are parts of the text that it asks for.
///
/// # Example
///
/// ```
/// use tokenpool::matchable::{AttributePath, Level};
///
/// let path = AttributePath::workflow("billing", "production", "app.reports:nightly")?;
/// assert_eq!(path.as_str(), "billing:production:app.reports%3Anightly");
/// assert_eq!(path.level(), Level::Workflow);
/// let reach: Vec<_> = path.fallbacks().collect();
/// assert_eq!(reach, [path.as_str(), "billing:production", "billing", ":production"]);
/// # Ok::<(), tokenpool::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttributePath(String);

/// How specific a path is. The greater level wins a look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Level {
    /// A domain of every project.
    Domain,
    /// A project.
    Project,
    /// A domain of a project.
    ProjectDomain,
    /// A workflow.
    Workflow,
    /// A launch plan.
    LaunchPlan,
}

impl Level {
    /// The level of a path's text.
    fn of(text: &str) -> Self {
        match (text.starts_with(SEPARATOR), text.matches(SEPARATOR).count()) {
            (true, _) => Self::Domain,
            (false, 0) => Self::Project,
            (false, 1) => Self::ProjectDomain,
            (false, 2) => Self::Workflow,
            (false, _) => Self::LaunchPlan,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Domain => "domain of every project",
            Self::Project => "project",
            Self::ProjectDomain => "domain",
            Self::Workflow => "workflow",
            Self::LaunchPlan => "launch plan",
        })
    }
}

impl AttributePath {
    /// A project.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn project(project: &str) -> Result<Self> {
        Self::new(project, "", "", "")
    }

    /// A domain of a project.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn project_domain(project: &str, domain: &str) -> Result<Self> {
        check_part("project", project)?;
        check_part("domain", domain)?;
        Self::new(project, domain, "", "")
    }

    /// A domain of every project.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn domain(domain: &str) -> Result<Self> {
        check_part("domain", domain)?;
        Self::new("", domain, "", "")
    }

    /// A workflow.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn workflow(project: &str, domain: &str, workflow: &str) -> Result<Self> {
        check_part("project", project)?;
        check_printable("workflow", workflow)?;
        Self::new(project, domain, workflow, "")
    }

    /// A launch plan of a workflow.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn launch_plan(
        project: &str,
        domain: &str,
        workflow: &str,
        launch_plan: &str,
    ) -> Result<Self> {
        check_part("project", project)?;
        check_printable("launch plan", launch_plan)?;
        Self::new(project, domain, workflow, launch_plan)
    }

    /// The place with these names, of which empty ones are left out, as in Flyte's requests.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] if a name is left out before one that is given (only the project may be, before a
    /// domain alone), if all are, or if one has forbidden characters or more than 255 bytes: a project or a domain no `:`,
    /// `{`, `}` or white space, none a control character.
    pub fn new(project: &str, domain: &str, workflow: &str, launch_plan: &str) -> Result<Self> {
        let below = [("workflow", workflow), ("launch plan", launch_plan)];
        for (above, name) in [("project", project), ("domain", domain)] {
            match below.iter().find(|(_, below)| name.is_empty() && !below.is_empty()) {
                Some((field, value)) => {
                    return Err(Error::invalid(field, value, format!("needs a {above}")));
                }
                None if name.is_empty() => {}
                None => check_part(above, name)?,
            }
        }
        if workflow.is_empty() && !launch_plan.is_empty() {
            return Err(Error::invalid("launch plan", launch_plan, "needs a workflow"));
        }
        if project.is_empty() && domain.is_empty() {
            return Err(Error::invalid("project", project, "must not be empty without a domain"));
        }
        let mut text = project.to_owned();
        if !domain.is_empty() {
            text.push(SEPARATOR);
            text.push_str(domain);
        }
        for (field, name) in below {
            if !name.is_empty() {
                check_printable(field, name)?;
                text.push(SEPARATOR);
                text.push_str(&escaped(name));
            }
        }
        Ok(Self(text))
    }

    /// The place that is looked up for an execution: its launch plan if that and the workflow are known, else its workflow
    /// if known, else its domain.
    pub fn of_execution(execution: &ExecutionId) -> Self {
        let mut text = [execution.project(), ":", execution.domain()].concat();
        for name in [execution.workflow(), execution.launch_plan()].into_iter().map_while(identity)
        {
            text.push(SEPARATOR);
            text.push_str(&escaped(name));
        }
        Self(text)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// How specific it is.
    pub fn level(&self) -> Level {
        Level::of(&self.0)
    }

    /// The texts of the places where a look-up for this one finds attributes, the most specific first: itself, the places
    /// above it, and the domain of every project. Five at most.
    pub fn fallbacks(&self) -> impl Iterator<Item = &str> {
        let text = self.as_str();
        let above = text.rmatch_indices(SEPARATOR).map(|(at, _)| &text[..at]);
        // The project's own text is empty where this is a domain of every project.
        let above = above.filter(|above| !above.is_empty());
        let everywhere = match text.find(SEPARATOR) {
            None | Some(0) => None,
            Some(at) => {
                let end = text[at + 1..].find(SEPARATOR).map_or(text.len(), |end| at + 1 + end);
                Some(&text[at..end])
            }
        };
        std::iter::once(text).chain(above).chain(everywhere)
    }

    /// A text that [`fallbacks`](Self::fallbacks) gave.
    pub(crate) fn of_fallback(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The project's name; none for a domain of every project.
    pub fn project_name(&self) -> Option<&str> {
        self.0.split(SEPARATOR).next().filter(|name| !name.is_empty())
    }

    /// The domain's name, if one is given.
    pub fn domain_name(&self) -> Option<&str> {
        self.0.split(SEPARATOR).nth(1)
    }

    /// The workflow's name, if one is given.
    pub fn workflow_name(&self) -> Option<Cow<'_, str>> {
        self.0.split(SEPARATOR).nth(2).map(unescaped)
    }

    /// The launch plan's name, if one is given.
    pub fn launch_plan_name(&self) -> Option<Cow<'_, str>> {
        self.0.split(SEPARATOR).nth(3).map(unescaped)
    }
}

/// Reads a text that another version or a person may have written.
impl FromStr for AttributePath {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let rule = "must be <project>[:<domain>[:<workflow>[:<launch plan>]]] or :<domain>";
        let names: Vec<_> = text.split(SEPARATOR).map(unescaped).collect();
        let name = |place: usize| names.get(place).map_or("", |name| name);
        let path = Self::new(name(0), name(1), name(2), name(3))?;
        match path.0 == text {
            true => Ok(path),
            false => Err(Error::invalid("path", text, rule)),
        }
    }
}

impl Borrow<str> for AttributePath {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AttributePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for AttributePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

fn escaped(name: &str) -> Cow<'_, str> {
    match name.contains(['%', SEPARATOR]) {
        true => name.replace('%', "%25").replace(SEPARATOR, "%3A").into(),
        false => name.into(),
    }
}

fn unescaped(text: &str) -> Cow<'_, str> {
    match text.contains('%') {
        true => text.replace("%3A", ":").replace("%25", "%").into(),
        false => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_look_up_reaches_itself_and_what_is_above_it() -> Result<()> {
        let reach = |path: AttributePath| path.fallbacks().map(str::to_owned).collect::<Vec<_>>();
        let launch_plan = AttributePath::launch_plan("p", "d", "w", "l")?;
        assert_eq!(reach(launch_plan), ["p:d:w:l", "p:d:w", "p:d", "p", ":d"]);
        assert_eq!(reach(AttributePath::workflow("p", "d", "w")?), ["p:d:w", "p:d", "p", ":d"]);
        assert_eq!(reach(AttributePath::project_domain("p", "d")?), ["p:d", "p", ":d"]);
        assert_eq!(reach(AttributePath::project("p")?), ["p"]);
        assert_eq!(reach(AttributePath::domain("d")?), [":d"]);
        Ok(())
    }

    #[test]
    fn an_execution_is_looked_up_where_it_is_known_to_come_from() -> Result<()> {
        let execution = ExecutionId::new("p", "d", "e")?;
        assert_eq!(AttributePath::of_execution(&execution).as_str(), "p:d");
        let of_plan = execution.clone().with_launch_plan("l:1")?;
        assert_eq!(AttributePath::of_execution(&of_plan).as_str(), "p:d");
        let of_both = of_plan.with_workflow("w")?;
        assert_eq!(AttributePath::of_execution(&of_both).as_str(), "p:d:w:l%3A1");
        Ok(())
    }

    #[test]
    fn gaps_and_forbidden_characters_are_refused() {
        let cases = [
            (["", "", "", ""], "invalid project \"\": must not be empty without a domain"),
            (["", "", "w", ""], "invalid workflow \"w\": needs a project"),
            (["", "d", "w", ""], "invalid workflow \"w\": needs a project"),
            (["", "d", "", "l"], "invalid launch plan \"l\": needs a project"),
            (["p", "", "w", ""], "invalid workflow \"w\": needs a domain"),
            (["p", "", "", "l"], "invalid launch plan \"l\": needs a domain"),
            (["p", "d", "", "l"], "invalid launch plan \"l\": needs a workflow"),
            (["a:b", "", "", ""], "invalid project \"a:b\": must not contain ':'"),
            (["p", "a b", "", ""], "invalid domain \"a b\": must not contain ' '"),
            (
                ["p", "d", "w\n", ""],
                "invalid workflow \"w\\n\": must not contain the control character '\\n'",
            ),
        ];
        for ([project, domain, workflow, launch_plan], text) in cases {
            let error = AttributePath::new(project, domain, workflow, launch_plan).err();
            assert_eq!(error.map(|error| error.to_string()).as_deref(), Some(text));
        }
        for text in ["", ":", "p:", "p:d:", "p:d:w:l:x", "p:d:%3a", "p::w", ":d:w"] {
            assert!(text.parse::<AttributePath>().is_err(), "{text:?}");
        }
        let empty = [
            AttributePath::project(""),
            AttributePath::project_domain("p", ""),
            AttributePath::project_domain("", "d"),
            AttributePath::domain(""),
            AttributePath::workflow("p", "d", ""),
            AttributePath::launch_plan("p", "d", "w", ""),
        ];
        assert!(empty.iter().all(Result::is_err), "{empty:?}");
    }

    proptest! {
        #[test]
        fn a_text_is_one_place(names in proptest::array::uniform2("[a-z%:3A25]{1,6}")) {
            let [workflow, launch_plan] = &names;
            let path = AttributePath::launch_plan("p", "d", workflow, launch_plan).expect("it is valid");
            prop_assert_eq!(path.as_str().parse::<AttributePath>().expect("it is its own text"), path.clone());
            prop_assert_eq!(path.level(), Level::LaunchPlan);
            let (found, plan) = (path.workflow_name(), path.launch_plan_name());
            prop_assert_eq!(found.as_deref(), Some(workflow.as_str()));
            prop_assert_eq!(plan.as_deref(), Some(launch_plan.as_str()));
        }
    }
}
