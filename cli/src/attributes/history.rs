//! `get <kind> --history`.

use serde::Serialize;
use serde_json::Value;
use tokenpool::matchable::{AttributePath, Kind, Version};

use super::list::short;
use super::store;
use crate::args::Global;
use crate::error::{Result, Verdict};
use crate::format::{or_dash, timestamp};
use crate::output::{Output, Row};

/// JSON of a version.
#[derive(Debug, Serialize)]
struct VersionRow {
    /// Its number.
    version: u64,
    /// When it was written.
    at: Option<String>,
    /// Who wrote it.
    by: String,
    /// Whether it is the deletion.
    deleted: bool,
    /// The attributes, or null: it is the deletion, or cannot be read.
    attributes: Option<Value>,
    /// Why it cannot be read, or null.
    problem: Option<String>,
}

impl From<Version<Value>> for VersionRow {
    fn from(Version { version, at, by, value, .. }: Version<Value>) -> Self {
        let deleted = value.is_none();
        let (attributes, problem) = match value {
            None => (None, None),
            Some(Ok(attributes)) => (Some(attributes), None),
            Some(Err(problem)) => (None, Some(problem)),
        };
        Self { version, at: timestamp(at), by, deleted, attributes, problem }
    }
}

impl Row for VersionRow {
    const HEADER: &'static [&'static str] = &["VERSION", "SET", "BY", "ATTRIBUTES"];

    fn cells(&self) -> Vec<String> {
        let what = match (&self.attributes, &self.problem) {
            (Some(attributes), _) => short(attributes),
            (None, Some(problem)) => format!("(cannot be read: {problem})"),
            (None, None) => "(deleted)".to_owned(),
        };
        vec![self.version.to_string(), or_dash(self.at.as_deref()), self.by.clone(), what]
    }
}

pub(super) async fn list(
    global: &Global,
    kind: &Kind<Value>,
    path: &AttributePath,
    output: &mut Output,
) -> Result<Verdict> {
    let versions = store::open_kind(global, kind).await?.history(path).await?;
    let versions: Vec<VersionRow> = versions.into_iter().map(Into::into).collect();
    let mut rows = output.rows();
    rows.page(&versions)?;
    rows.finish("")?;
    Ok(Verdict::Done)
}
