//! What a command would change: found out, shown, asked about, and made.

use std::fmt;

use serde::Serialize;
use serde_json::Value;
use similar::TextDiff;
use tokenpool::matchable::{AttributePath, Attributes, AttributesOf, Expected, Kind};

use super::consent::{Answered, ask};
use super::places::{PathAnswer, in_words};
use super::yaml::to_yaml;
use crate::args::Consent;
use crate::error::{Error, Result, Verdict};
use crate::output::{Answer, Output, one_line, printable, tell};

/// What makes the changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    Update,
    Delete,
    Apply,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Apply => "apply",
        })
    }
}

/// What is stored at a place.
#[derive(Debug)]
pub(super) struct Before {
    /// As the kind reads it, or as it is stored if that cannot be.
    pub(super) value: Option<Value>,
    version: Option<u64>,
    expected: Expected,
    /// Why the kind cannot read it.
    pub(super) problem: Option<String>,
}

impl Before {
    /// Of exactly this place: what is in force there does not matter to who sets something there.
    pub(super) async fn read(
        all: &Attributes,
        kind: &Kind<Value>,
        path: &AttributePath,
    ) -> Result<Self> {
        use tokenpool::Error::{NotFound, Unreadable};
        let problem = match all.of_kind(kind.clone()).get_exact(path).await {
            Ok(found) => return Ok(Self::found(found.value, found.version, None)),
            Err(NotFound { .. }) => return Ok(Self::absent()),
            Err(Unreadable { problem, .. }) => problem,
            Err(error) => return Err(error.into()),
        };
        match all.of_kind(Kind::unchecked(kind.name().clone())).get_exact(path).await {
            Ok(found) => Ok(Self::found(found.value, found.version, Some(problem))),
            Err(NotFound { .. }) => Ok(Self::absent()),
            // Somebody else's record has no version that could be expected.
            Err(Unreadable { problem, .. }) => Ok(Self {
                value: None,
                version: None,
                expected: Expected::Any,
                problem: Some(problem),
            }),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn found(value: Value, version: u64, problem: Option<String>) -> Self {
        let expected = Expected::Version(version);
        Self { value: Some(value), version: Some(version), expected, problem }
    }

    fn absent() -> Self {
        Self { value: None, version: None, expected: Expected::Absent, problem: None }
    }

    /// Whether anything is stored.
    pub(super) fn is_there(&self) -> bool {
        self.value.is_some() || self.problem.is_some()
    }

    /// Whether it is somebody else's record.
    fn is_damaged(&self) -> bool {
        self.is_there() && self.version.is_none()
    }

    fn text(&self) -> Result<String> {
        let mut text = match &self.problem {
            Some(problem) => format!("# cannot be read: {}\n", one_line(problem)),
            None => String::new(),
        };
        if let Some(value) = &self.value {
            text += &to_yaml(value)?;
        }
        Ok(text)
    }
}

/// A change of what is stored at one place.
#[derive(Debug)]
struct Change {
    attributes: AttributesOf<Value>,
    path: AttributePath,
    before: Before,
    /// None deletes.
    after: Option<Value>,
}

impl Change {
    fn answer(&self) -> ChangeAnswer<'_> {
        let action = match (self.before.is_there(), &self.after) {
            (_, None) => "delete",
            (false, Some(_)) => "create",
            (true, Some(_)) => "update",
        };
        ChangeAnswer {
            kind: self.attributes.kind().name().as_str(),
            path: PathAnswer::from(&self.path),
            action,
            before: self.before.value.as_ref(),
            version_before: self.before.version,
            after: self.after.as_ref(),
            version: None,
            applied: false,
        }
    }

    fn diff(&self) -> Result<String> {
        let what = format!("{} of {}", self.attributes.kind().name(), self.path);
        let before = match (self.before.version, self.before.is_there()) {
            (Some(version), _) => format!("{what}, version {version}"),
            (None, true) => format!("{what}, damaged"),
            (None, false) => format!("{what}, not set"),
        };
        let after = match self.after {
            Some(_) => format!("{what}, after"),
            None => format!("{what}, deleted"),
        };
        let texts = [self.before.text()?, self.after.as_ref().map_or(Ok(String::new()), to_yaml)?];
        let diff = TextDiff::from_lines(&*texts[0], &*texts[1]);
        Ok(printable(&diff.unified_diff().header(&before, &after).to_string()).into_owned())
    }

    /// Makes it, unless somebody else changed what is there meanwhile.
    async fn make(&self) -> tokenpool::Result<Option<u64>> {
        let Self { attributes, path, before, after } = self;
        if before.is_damaged() {
            // It has no version that could be expected, so it is looked at once more.
            let found = match attributes.get_exact(path).await {
                Ok(found) => Some(found.version),
                Err(tokenpool::Error::NotFound { .. }) => None,
                Err(tokenpool::Error::Unreadable { .. }) => Some(0),
                Err(error) => return Err(error),
            };
            if found != Some(0) {
                let (kind, path) = (attributes.kind().name().clone(), path.clone());
                return Err(tokenpool::Error::Stale { kind, path, expected: Expected::Any, found });
            }
        }
        match after {
            Some(value) => {
                let updated = attributes.replace(path, value.clone(), before.expected).await?;
                Ok(Some(updated.version))
            }
            None => attributes.delete(path, before.expected).await.map(|_| None),
        }
    }

    fn done(&self, cause: Cause) -> String {
        let place = in_words(&self.path);
        let kind = self.attributes.kind().name();
        let text = match (cause, &self.after) {
            (Cause::Apply, Some(_)) => format!("Updated {kind} attributes from {place}"),
            (Cause::Apply, None) => format!("Deleted {kind} attributes from {place}"),
            (_, Some(_)) => format!("Updated attributes from {place}"),
            (_, None) => format!("Deleted matchable resources from {place}"),
        };
        one_line(&text).into_owned()
    }
}

/// JSON of `update`, `delete` and `apply` of attributes.
#[derive(Debug, Serialize)]
struct ChangesAnswer<'a> {
    /// Whether all changes were made; false after --dryRun.
    applied: bool,
    /// Number of places where all is as it should be.
    unchanged: usize,
    /// The changes.
    changes: Vec<ChangeAnswer<'a>>,
}

/// JSON of a change.
#[derive(Debug, Serialize)]
struct ChangeAnswer<'a> {
    /// The kind.
    kind: &'a str,
    #[serde(flatten)]
    path: PathAnswer,
    /// `create`, `update` or `delete`.
    action: &'static str,
    /// The attributes that are stored, or null: none.
    before: Option<&'a Value>,
    /// Their version, or null: none.
    version_before: Option<u64>,
    /// The attributes that are to be stored, or null: none.
    after: Option<&'a Value>,
    /// The version that was made, or null: none.
    version: Option<u64>,
    /// Whether the change was made.
    applied: bool,
}

impl Answer for ChangesAnswer<'_> {
    fn text(&self) -> String {
        String::new()
    }
}

/// The changes that a command would make.
#[derive(Debug)]
pub(super) struct Changes {
    cause: Cause,
    changes: Vec<Change>,
    unchanged: usize,
}

impl Changes {
    pub(super) fn new(cause: Cause) -> Self {
        Self { cause, changes: Vec::new(), unchanged: 0 }
    }

    /// This is to be stored there.
    pub(super) fn set(
        &mut self,
        attributes: AttributesOf<Value>,
        path: AttributePath,
        before: Before,
        after: Value,
    ) {
        match before.problem.is_none() && before.value.as_ref() == Some(&after) {
            true => self.unchanged += 1,
            false => self.changes.push(Change { attributes, path, before, after: Some(after) }),
        }
    }

    /// Nothing is to be stored there.
    pub(super) fn delete(
        &mut self,
        attributes: AttributesOf<Value>,
        path: AttributePath,
        before: Before,
    ) {
        match before.is_there() {
            true => self.changes.push(Change { attributes, path, before, after: None }),
            false => self.unchanged += 1,
        }
    }

    /// Shows them, asks if somebody is to be asked, and makes them one after the other.
    pub(super) async fn make(self, consent: Consent, output: &mut Output) -> Result<Verdict> {
        let Self { cause, changes, unchanged } = self;
        let mut answer = ChangesAnswer {
            applied: !consent.dry_run,
            unchanged,
            changes: changes.iter().map(Change::answer).collect(),
        };
        if changes.is_empty() {
            let nothing = match cause {
                Cause::Delete => "Nothing is set there. Skipping the delete.".to_owned(),
                cause => format!("No changes detected. Skipping the {cause}."),
            };
            output.either(&answer, &nothing)?;
            return Ok(Verdict::Done);
        }

        let is_asked = !consent.force && !consent.dry_run;
        let mut show = |text: &str| match (output.is_json(), is_asked) {
            (false, _) => output.write(text),
            (true, true) => {
                tell(format_args!("{text}"));
                Ok(())
            }
            (true, false) => Ok(()),
        };
        show("The following changes are to be applied.\n")?;
        for change in &changes {
            show(&change.diff()?)?;
        }
        if consent.dry_run {
            output.either(&answer, &format!("Skipping {cause} request (dryRun)"))?;
            return Ok(if cause == Cause::Apply { Verdict::Refused } else { Verdict::Done });
        }
        if is_asked && ask("Continue?").await? == Answered::No {
            return Err(Error::Aborted(cause.to_string()));
        }

        let (mut failure, mut told) = (None, Ok(()));
        for (change, answer) in changes.iter().zip(&mut answer.changes) {
            match change.make().await {
                Ok(version) => {
                    (answer.version, answer.applied) = (version, true);
                    // What was agreed to is done, whether or not it can be told.
                    if !output.is_json() && told.is_ok() {
                        told = output.write(&format!("{}\n", change.done(cause)));
                    }
                }
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        let made = answer.changes.iter().filter(|change| change.applied).count();
        answer.applied = failure.is_none();
        if output.is_json() && made > 0 {
            told = output.answer(&answer);
        }
        match failure {
            None => told.map(|()| Verdict::Done),
            Some(error) if changes.len() == 1 => Err(error.into()),
            Some(source) => Err(Error::HalfWay { made, of: changes.len(), source }),
        }
    }
}
