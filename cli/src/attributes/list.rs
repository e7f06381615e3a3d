//! `get <kind>` without a place, and `get kinds`.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;
use tokenpool::matchable::{
    AttributesOf, AttributesPage, Filter, Found, Kind, KindName, PageStart, Unreadable,
};

use super::kinds::{Kinds, command_name};
use super::places::PathAnswer;
use super::store;
use crate::args::{GetAttributes, Global};
use crate::error::{Error, Result, Verdict, describe};
use crate::format::{or_dash, timestamp};
use crate::output::{Output, Row, tell};

const PER_PAGE: usize = 500;

/// How much of attributes is shown in a table.
const SHOWN: usize = 60;

/// All attributes of a kind, page by page.
#[derive(Debug)]
pub(super) struct AttributePages {
    attributes: AttributesOf<Value>,
    filter: Filter,
    next: Next,
}

#[derive(Debug)]
enum Next {
    First,
    After(PageStart),
    None,
}

impl AttributePages {
    pub(super) fn new(attributes: AttributesOf<Value>, filter: Filter) -> Self {
        Self { attributes, filter, next: Next::First }
    }

    /// The next page; none after the last.
    pub(super) async fn next(&mut self) -> tokenpool::Result<Option<AttributesPage<Value>>> {
        let from = match &self.next {
            Next::First => None,
            Next::After(place) => Some(place),
            Next::None => return Ok(None),
        };
        let mut page = self.attributes.list(&self.filter, from, PER_PAGE).await?;
        self.next = page.next.take().map_or(Next::None, Next::After);
        Ok(Some(page))
    }
}

/// Records that could not be read. They are named on stderr, so that the others can be handled.
#[derive(Debug, Default)]
pub(super) struct Unread(usize);

impl Unread {
    pub(super) fn tell<'a>(
        &mut self,
        kind: &KindName,
        unreadable: impl IntoIterator<Item = &'a Unreadable>,
    ) {
        for Unreadable { path, problem, .. } in unreadable {
            let error = tokenpool::Error::Unreadable {
                kind: kind.clone(),
                path: path.clone(),
                problem: problem.clone(),
            };
            self.tell_error(&error.into());
        }
    }

    pub(super) fn tell_error(&mut self, error: &Error) {
        tell(format_args!("error: {}\n", describe(error)));
        self.0 += 1;
    }

    /// What the command comes to, which would have come to `otherwise`.
    pub(super) fn verdict(self, otherwise: Verdict) -> Verdict {
        match self.0 {
            0 => otherwise,
            count => {
                tell(format_args!("error: {count} record(s) left out\n"));
                Verdict::Failed
            }
        }
    }
}

/// JSON of attributes in a listing and in `export`.
#[derive(Debug, Serialize)]
pub(super) struct AttributesRow {
    /// The kind.
    kind: String,
    #[serde(flatten)]
    path: PathAnswer,
    /// Their version.
    version: u64,
    /// When they were set.
    at: Option<String>,
    /// Who set them.
    by: String,
    /// The attributes.
    attributes: Value,
}

impl AttributesRow {
    pub(super) fn new(kind: &KindName, found: Found<Value>) -> Self {
        Self {
            kind: kind.to_string(),
            path: PathAnswer::from(&found.path),
            version: found.version,
            at: timestamp(found.at),
            by: found.by,
            attributes: found.value,
        }
    }
}

impl Row for AttributesRow {
    const HEADER: &'static [&'static str] =
        &["PROJECT", "DOMAIN", "WORKFLOW", "LAUNCH PLAN", "VERSION", "SET", "BY", "ATTRIBUTES"];

    fn cells(&self) -> Vec<String> {
        let mut cells = self.path.cells().to_vec();
        cells.push(self.version.to_string());
        cells.push(or_dash(self.at.as_deref()));
        cells.push(self.by.clone());
        cells.push(short(&self.attributes));
        cells
    }
}

/// Attributes on part of a line.
pub(super) fn short(attributes: &Value) -> String {
    let text = attributes.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

pub(super) async fn list(
    global: &Global,
    kind: &Kind<Value>,
    args: &GetAttributes,
    output: &mut Output,
) -> Result<Verdict> {
    let place = &args.place;
    let filter = match &place.project {
        Some(project) => Filter::ALL.project(project)?,
        None => Filter::ALL,
    };
    let filter = match &place.domain {
        Some(domain) => filter.domain(domain)?,
        None => filter,
    };
    let mut pages = AttributePages::new(store::open_kind(global, kind).await?, filter);
    let mut unread = Unread::default();
    let nothing = format!("no attributes of {}", kind.name());
    let listed = output
        .listing(&nothing, async || {
            let Some(page) = pages.next().await? else { return Ok(None) };
            unread.tell(kind.name(), &page.unreadable);
            let rows = page.found.into_iter().map(|found| AttributesRow::new(kind.name(), found));
            Ok(Some(rows.collect()))
        })
        .await?;
    Ok(unread.verdict(listed))
}

/// JSON of a kind in `get kinds`.
#[derive(Debug, Serialize)]
struct KindRow {
    /// The kind.
    kind: String,
    /// What it is called on the command line, or null: this program does not know it.
    command: Option<String>,
    /// Its number in Flyte, or null.
    number: Option<u32>,
    /// Whether updates are merged over what is set, or null: not known.
    updates_merge: Option<bool>,
    /// Whether attributes of it were ever stored.
    stored: bool,
}

impl Row for KindRow {
    const HEADER: &'static [&'static str] =
        &["KIND", "COMMAND", "NUMBER", "UPDATES MERGE", "STORED"];

    fn cells(&self) -> Vec<String> {
        let yes = |is: bool| if is { "yes" } else { "no" };
        vec![
            self.kind.clone(),
            self.command.clone().unwrap_or_else(|| format!("attributes {}", self.kind)),
            or_dash(self.number),
            or_dash(self.updates_merge.map(yes)),
            yes(self.stored).to_owned(),
        ]
    }
}

pub(crate) async fn list_kinds(
    global: &Global,
    kinds: &Kinds,
    output: &mut Output,
) -> Result<Verdict> {
    let stored: BTreeSet<_> = store::open(global).await?.kinds().await?.into_iter().collect();
    let known = kinds.iter().map(|kind| kind.name().clone()).chain(stored.iter().cloned());
    let names: BTreeSet<_> = known.collect();
    let row = |name: &KindName| {
        let known = kinds.find(name.as_str());
        KindRow {
            kind: name.to_string(),
            command: known.map(|kind| command_name(kind.name())),
            number: known.and_then(Kind::number),
            updates_merge: known.map(Kind::updates_merge),
            stored: stored.contains(name),
        }
    };
    let mut rows = output.rows();
    rows.page(&names.iter().map(row).collect::<Vec<_>>())?;
    rows.finish("no kinds")?;
    Ok(Verdict::Done)
}
