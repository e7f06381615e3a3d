//! `get <kind>`.

use std::path::Path;

use serde::Serialize;
use serde_json::Value;
use tokenpool::matchable::{AttributePath, Found, Kind};

use super::consent::{Answered, ask};
use super::places::PathAnswer;
use super::yaml::attribute_document;
use super::{files, history, list, resolve, store};
use crate::args::{GetAttributes, Global};
use crate::error::{Error, Result, Verdict};
use crate::format::timestamp;
use crate::output::{Answer, Output, one_line};

pub(crate) async fn get(
    global: &Global,
    kind: &Kind<Value>,
    args: &GetAttributes,
    output: &mut Output,
) -> Result<Verdict> {
    if args.list {
        return list::list(global, kind, args, output).await;
    }
    match args.place.path()? {
        Some(path) if args.history => history::list(global, kind, &path, output).await,
        Some(path) if args.resolve => resolve::show(global, kind, &path, output).await,
        Some(path) => look_up(global, kind, &path, args, output).await,
        None if args.exact || args.resolve || args.history || args.attr_file.is_some() => {
            Err(Error::Usage("give the place, as --project P".to_owned()))
        }
        None => list::list(global, kind, args, output).await,
    }
}

/// JSON of `get <kind>` of a place.
#[derive(Debug, Serialize)]
struct FoundAnswer<'a> {
    /// The kind.
    kind: &'a str,
    /// What was asked for.
    #[serde(flatten)]
    path: PathAnswer,
    /// Where they are set.
    found_at: PathAnswer,
    /// Whether that is a place above.
    inherited: bool,
    /// Their version.
    version: u64,
    /// When they were set.
    at: Option<String>,
    /// Who set them.
    by: &'a str,
    /// The attributes.
    attributes: &'a Value,
    #[serde(skip)]
    text: String,
}

impl Answer for FoundAnswer<'_> {
    fn text(&self) -> String {
        self.text.clone()
    }
}

async fn look_up(
    global: &Global,
    kind: &Kind<Value>,
    path: &AttributePath,
    args: &GetAttributes,
    output: &mut Output,
) -> Result<Verdict> {
    let attributes = store::open_kind(global, kind).await?;
    let found = if args.exact {
        attributes.get_exact(path).await?
    } else {
        Found::clone(&attributes.get_resource(path).await?.found)
    };
    // A kind that nobody here knows may have attributes that no file can hold; they can be shown all the same.
    let text = if output.is_json() && args.attr_file.is_none() {
        String::new()
    } else {
        document(kind, path, &found)?
    };
    match &args.attr_file {
        Some(file) => dump(file, &text, args.force, output).await,
        None => {
            output.answer(&FoundAnswer {
                kind: kind.name().as_str(),
                path: PathAnswer::from(path),
                found_at: PathAnswer::from(&found.path),
                inherited: found.path != *path,
                version: found.version,
                at: timestamp(found.at),
                by: &found.by,
                attributes: &found.value,
                text,
            })?;
            Ok(Verdict::Done)
        }
    }
}

/// A file that sets at this place what is in force there, and says where that comes from.
fn document(kind: &Kind<Value>, path: &AttributePath, found: &Found<Value>) -> Result<String> {
    let wherefrom = match found.path == *path {
        true => format!("set at {path}"),
        false => format!("inherited from {}", found.path),
    };
    let mut head = format!("# {wherefrom}, version {}", found.version);
    if let Some(at) = timestamp(found.at) {
        head += &format!(", {at}");
    }
    head += &format!(" by {}", found.by);
    Ok(format!("{}\n{}", one_line(&head), attribute_document(kind.name(), path, &found.value)?))
}

/// JSON of `get <kind> --attrFile`.
#[derive(Debug, Serialize)]
struct DumpAnswer {
    /// The file that was written.
    file: String,
}

impl Answer for DumpAnswer {
    fn text(&self) -> String {
        format!("wrote the config to file {}", self.file)
    }
}

async fn dump(file: &Path, text: &str, force: bool, output: &mut Output) -> Result<Verdict> {
    if files::is_standard(file) {
        output.write(text)?;
        return Ok(Verdict::Done);
    }
    if file.exists() && !force {
        let question = format!("warning file {} will be overwritten", file.display());
        if ask(question).await? == Answered::No {
            return Err(Error::NotOverwritten);
        }
    }
    files::write(file, text)
        .map_err(|source| Error::NotDumped { file: file.to_owned(), source })?;
    output.answer(&DumpAnswer { file: file.display().to_string() })?;
    Ok(Verdict::Done)
}
