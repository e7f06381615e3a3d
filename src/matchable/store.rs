//! The seam: what a place for attributes must be able to do.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::kind::KindName;
use super::path::AttributePath;
use super::record::{Record, Stored};
use super::watcher::{Watch, Watcher};
use crate::error::{Error, Result};
use crate::name::{Holder, check_part};

/// Longest value in JSON, in bytes: 1 MiB.
pub const MAX_VALUE_LENGTH: usize = 1 << 20;

/// How many versions of a path are kept, the one in force among them.
pub const KEPT_VERSIONS: u64 = 10;

/// Which version a write expects to find, so that nobody's update is lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Expected {
    /// Any, or none.
    #[default]
    Any,
    /// Nothing: the path has no attributes.
    Absent,
    /// This one.
    Version(u64),
}

impl Expected {
    /// Whether this is what was expected.
    pub(crate) fn is_met_by(self, found: Option<u64>) -> bool {
        match self {
            Self::Any => true,
            Self::Absent => found.is_none(),
            Self::Version(version) => found == Some(version),
        }
    }
}

/// A write to one path.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Write<'a> {
    /// The new value in JSON; none deletes the old one.
    pub value: Option<&'a str>,
    /// The version that it replaces.
    pub expected: Expected,
    /// Who writes.
    pub by: &'a Holder,
}

impl<'a> Write<'a> {
    /// Sets a value in JSON, or deletes what is there, whatever its version.
    pub fn new(value: Option<&'a str>, by: &'a Holder) -> Self {
        Self { value, expected: Expected::Any, by }
    }
}

/// What a write found and left.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Written {
    /// Done; nothing was to be done where what was to be deleted was not there.
    Done {
        /// The version from now on; none if there is nothing to be a version of.
        version: Option<u64>,
        /// What was there.
        before: Option<Stored>,
    },
    /// Another version than the expected one was found, or none. Nothing was changed.
    Stale {
        /// The version found.
        found: Option<u64>,
    },
}

/// Which records are listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    project: Option<String>,
    domain: Option<String>,
}

impl Filter {
    /// All of a kind.
    pub const ALL: Self = Self { project: None, domain: None };

    /// Those of one project, at all levels below it.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] if it is no name of a project.
    pub fn project(self, project: &str) -> Result<Self> {
        check_part("project", project)?;
        Ok(Self { project: Some(project.to_owned()), ..self })
    }

    /// Those of one domain, of a project or of every project, at all levels below it.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] if it is no name of a domain.
    pub fn domain(self, domain: &str) -> Result<Self> {
        check_part("domain", domain)?;
        Ok(Self { domain: Some(domain.to_owned()), ..self })
    }

    /// Whether the path with this text is listed.
    pub fn admits(&self, text: &str) -> bool {
        let mut names = text.split(':');
        let (project, domain) = (names.next(), names.next());
        let fits = |wanted: &Option<String>, found| wanted.is_none() || wanted.as_deref() == found;
        fits(&self.project, project) && fits(&self.domain, domain)
    }

    /// The project that is listed; none lists all.
    pub fn project_name(&self) -> Option<&str> {
        self.project.as_deref()
    }

    /// The domain that is listed; none lists all.
    pub fn domain_name(&self) -> Option<&str> {
        self.domain.as_deref()
    }
}

/// Records in the order of their paths' texts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordsPage {
    /// Texts of paths with what is stored there.
    pub records: Vec<(String, Stored)>,
    /// Where the next page begins; none if this is the last.
    pub next: Option<PageStart>,
}

/// Where a page of records begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageStart(Vec<u8>);

impl PageStart {
    /// After this text of a path, which may be what somebody else wrote there and no text at all.
    pub fn after(text: impl Into<Vec<u8>>) -> Self {
        Self(text.into())
    }

    /// The text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A place where attributes are kept. [`Attributes`](super::Attributes) is what one uses it through.
///
/// Kinds are kept apart. Each call is one atomic step, reading one command. No method has a default, so that a wrapper forgets none.
#[async_trait]
pub trait AttributeStore: Debug + Send + Sync + 'static {
    /// What is stored at each of these texts of paths, at one instant.
    async fn read(&self, kind: &KindName, paths: &[&str]) -> Result<Vec<Option<Stored>>>;

    /// Writes one path, if what is found there is what is expected.
    async fn write(
        &self,
        kind: &KindName,
        path: &AttributePath,
        write: Write<'_>,
    ) -> Result<Written>;

    /// A page of about `count` records, in the order of their paths' texts. A page may have fewer although more follow.
    async fn list(
        &self,
        kind: &KindName,
        filter: &Filter,
        from: Option<&PageStart>,
        count: usize,
    ) -> Result<RecordsPage>;

    /// The last versions of a path, the newest first, also of one that was deleted.
    async fn history(&self, kind: &KindName, path: &AttributePath) -> Result<Vec<Stored>>;

    /// The kinds that were ever written, in order.
    async fn kinds(&self) -> Result<Vec<KindName>>;

    /// Tells the watcher of every change to come, and confirms that so often, until what is returned is dropped.
    async fn watch(&self, watcher: Arc<Watcher>, confirm_every: Duration) -> Result<Watch>;
}

/// Checks that a value may be stored.
pub(crate) fn check_length(kind: &KindName, path: &AttributePath, value: &str) -> Result<()> {
    match value.len() {
        length if length > MAX_VALUE_LENGTH => Err(Error::InvalidAttributes {
            kind: kind.clone(),
            field: path.to_string(),
            value: format!("{length} bytes"),
            rule: format!("must not be longer than {MAX_VALUE_LENGTH} bytes in JSON"),
        }),
        _ => Ok(()),
    }
}

/// The version of what was found, if it can be told. What is damaged has 0, which nobody can expect.
pub(crate) fn version_of(stored: Option<&Stored>) -> Option<u64> {
    stored.map(|stored| stored.as_ref().map_or(0, |Record { version, .. }| *version))
}
