//! `get <kind> --resolve`.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use tokenpool::matchable::{AttributePath, Kind, Resolution};

use super::list::{AttributesRow, short};
use super::places::PathAnswer;
use super::store;
use crate::args::Global;
use crate::error::{Result, Verdict};
use crate::format::{or_dash, timestamp};
use crate::output::{Answer, Output, lines, one_line, table};

/// JSON of `get <kind> --resolve`.
#[derive(Debug, Serialize)]
struct ResolutionAnswer {
    /// The kind.
    kind: String,
    /// What was asked for.
    #[serde(flatten)]
    path: PathAnswer,
    /// What is set at each place, as in a listing; the first wins.
    levels: Vec<AttributesRow>,
    /// All of it merged, as the kind merges.
    merged: Value,
    /// Where each field of `merged` comes from.
    sources: BTreeMap<String, PathAnswer>,
    #[serde(skip)]
    text: String,
}

impl Answer for ResolutionAnswer {
    fn text(&self) -> String {
        self.text.clone()
    }
}

pub(super) async fn show(
    global: &Global,
    kind: &Kind<Value>,
    path: &AttributePath,
    output: &mut Output,
) -> Result<Verdict> {
    let resolution = store::open_kind(global, kind).await?.resolve(path).await?;
    let resolution = resolution.found;
    let text = text(&resolution);
    let Resolution { levels, merged, sources, .. } = Resolution::clone(&resolution);
    output.answer(&ResolutionAnswer {
        kind: kind.name().to_string(),
        path: PathAnswer::from(path),
        levels: levels.into_iter().map(|level| AttributesRow::new(kind.name(), level)).collect(),
        merged,
        sources: sources.iter().map(|(field, path)| (field.clone(), path.into())).collect(),
        text,
    })?;
    Ok(Verdict::Done)
}

fn text(Resolution { levels, merged, sources, .. }: &Resolution<Value>) -> String {
    let rows = levels.iter().enumerate().map(|(place, level)| {
        let mut cells = vec![if place == 0 { "*" } else { "" }.to_owned()];
        cells.push(level.path.to_string());
        cells.push(level.path.level().to_string());
        cells.push(level.version.to_string());
        cells.push(or_dash(timestamp(level.at)));
        cells.push(level.by.clone());
        cells.push(short(&level.value));
        cells
    });
    let header = ["", "PLACE", "LEVEL", "VERSION", "SET", "BY", "ATTRIBUTES"];
    let mut text = lines(&table(Some(&header), rows));
    text += "\n* wins a look-up. All of it merged, as the kind merges:\n\n";
    let rows = sources.iter().map(|(field, path)| {
        let value = merged.pointer(field).map_or_else(String::new, Value::to_string);
        let field = if field.is_empty() { "/" } else { field };
        vec![one_line(field).into_owned(), value, path.to_string()]
    });
    text += &lines(&table(Some(&["FIELD", "VALUE", "FROM"]), rows));
    text
}
