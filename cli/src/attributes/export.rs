//! `export`.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;
use tokenpool::matchable::{AttributePath, Attributes, Filter, Kind, KindName};

use super::files::{Source, Unfinished};
use super::kinds::{Kinds, command_name};
use super::list::{AttributePages, AttributesRow, Unread};
use super::store;
use super::yaml::attribute_document;
use crate::args::{Export, Global};
use crate::error::{Error, Result, Verdict};
use crate::output::{Answer, Output, tell};

/// Where the attributes of a domain of every project go. No project's file has this name.
const EVERY_PROJECT: &str = "@every-project";

pub(crate) async fn export(
    global: &Global,
    kinds: &Kinds,
    args: &Export,
    output: &mut Output,
) -> Result<Verdict> {
    let all = store::open(global).await?;
    let exported = exported(&all, kinds).await?;
    let mut unread = Unread::default();
    let verdict = match &args.directory {
        Some(directory) => {
            let mut written = Directory::open(directory, args.force)?;
            each(&all, &exported, &mut unread, |kind, path, text| written.write(kind, path, text))
                .await?;
            written.finish(output)?
        }
        None if output.is_json() => as_json(&all, &exported, &mut unread, output).await?,
        None => {
            each(&all, &exported, &mut unread, |_, _, text| output.write(&format!("---\n{text}")))
                .await?;
            Verdict::Done
        }
    };
    Ok(unread.verdict(verdict))
}

/// Every kind that the program knows, and every other of which any are set.
async fn exported(all: &Attributes, kinds: &Kinds) -> Result<Vec<Kind<Value>>> {
    let mut exported: Vec<_> = kinds.iter().cloned().collect();
    for name in all.kinds().await? {
        if kinds.find(name.as_str()).is_some() {
            continue;
        }
        let kind = Kind::unchecked(name);
        let page = all.of_kind(kind.clone()).list(&Filter::ALL, None, 1).await?;
        if !page.found.is_empty() || !page.unreadable.is_empty() || page.next.is_some() {
            tell(format_args!(
                "warning: this program does not know {}; apply it with --unchecked\n",
                kind.name()
            ));
            exported.push(kind);
        }
    }
    Ok(exported)
}

/// Hands on every record with its document.
async fn each(
    all: &Attributes,
    kinds: &[Kind<Value>],
    unread: &mut Unread,
    mut take: impl FnMut(&KindName, &AttributePath, &str) -> Result<()>,
) -> Result<()> {
    for kind in kinds {
        let mut pages = AttributePages::new(all.of_kind(kind.clone()), Filter::ALL);
        while let Some(page) = pages.next().await? {
            unread.tell(kind.name(), &page.unreadable);
            for found in &page.found {
                match attribute_document(kind.name(), &found.path, &found.value) {
                    Ok(text) => take(kind.name(), &found.path, &text)?,
                    Err(error @ Error::NoDocument { .. }) => unread.tell_error(&error),
                    Err(error) => return Err(error),
                }
            }
        }
    }
    Ok(())
}

async fn as_json(
    all: &Attributes,
    kinds: &[Kind<Value>],
    unread: &mut Unread,
    output: &mut Output,
) -> Result<Verdict> {
    let mut kinds = kinds.iter();
    let mut reading: Option<(&Kind<Value>, AttributePages)> = None;
    output
        .listing("", async || {
            loop {
                let (kind, mut pages) = match reading.take() {
                    Some(reading) => reading,
                    None => match kinds.next() {
                        None => return Ok(None),
                        Some(kind) => {
                            (kind, AttributePages::new(all.of_kind(kind.clone()), Filter::ALL))
                        }
                    },
                };
                if let Some(page) = pages.next().await? {
                    unread.tell(kind.name(), &page.unreadable);
                    reading = Some((kind, pages));
                    let rows = page.found.into_iter();
                    let rows = rows.map(|found| AttributesRow::new(kind.name(), found));
                    return Ok(Some(rows.collect()));
                }
            }
        })
        .await
}

/// JSON of `export -f`.
#[derive(Debug, Serialize)]
struct ExportAnswer {
    /// Number of records written.
    records: u64,
    /// The files, in order.
    files: Vec<String>,
}

impl Answer for ExportAnswer {
    fn text(&self) -> String {
        format!("wrote {} record(s) to {} file(s)", self.records, self.files.len())
    }
}

/// A directory that is written into: `<kind>/<project>.yaml`. Its files change when all are whole.
#[derive(Debug)]
struct Directory<'a> {
    directory: &'a Path,
    /// YAML files that were there before.
    before: BTreeSet<PathBuf>,
    /// By their names in small letters: of projects that differ in nothing else, some disks keep one file.
    files: BTreeMap<String, (PathBuf, Unfinished)>,
    /// The file of the last record: most of the next are of the same.
    open: Option<(String, BufWriter<File>)>,
    records: u64,
}

impl<'a> Directory<'a> {
    fn open(directory: &'a Path, force: bool) -> Result<Self> {
        fs::create_dir_all(directory).map_err(|source| not_written(directory, source))?;
        let before: BTreeSet<_> =
            Source::all(directory)?.into_iter().filter_map(Source::into_file).collect();
        match before.first() {
            Some(file) if !force => Err(Error::Usage(format!(
                "{}: is there already; --force writes into the directory all the same",
                file.display()
            ))),
            _ => Ok(Self { directory, before, files: BTreeMap::new(), open: None, records: 0 }),
        }
    }

    fn write(&mut self, kind: &KindName, path: &AttributePath, text: &str) -> Result<()> {
        let project = path.project_name().map_or_else(|| EVERY_PROJECT.to_owned(), file_name);
        let name = format!("{}/{project}.yaml", command_name(kind));
        let file = self.directory.join(&name);
        self.append(name.to_ascii_lowercase(), &file, text)
            .map_err(|source| not_written(&file, source))?;
        self.records += 1;
        Ok(())
    }

    fn append(&mut self, key: String, file: &Path, text: &str) -> io::Result<()> {
        if let Some((open, to)) = &mut self.open
            && *open == key
        {
            return write!(to, "---\n{text}");
        }
        self.close()?;
        // Records come in the order of their texts, in which "a-b" stands between "a" and "a:domain".
        let to = match self.files.entry(key.clone()) {
            Entry::Occupied(entry) => entry.get().1.append()?,
            Entry::Vacant(entry) => {
                file.parent().map_or(Ok(()), fs::create_dir_all)?;
                let (unfinished, to) = Unfinished::create(file)?;
                entry.insert((file.to_owned(), unfinished));
                to
            }
        };
        let (_, to) = self.open.insert((key, BufWriter::new(to)));
        write!(to, "---\n{text}")
    }

    fn close(&mut self) -> io::Result<()> {
        self.open.take().map_or(Ok(()), |(_, mut open)| open.flush())
    }

    fn finish(mut self, output: &mut Output) -> Result<Verdict> {
        self.close().map_err(|source| not_written(self.directory, source))?;
        let mut written = BTreeSet::new();
        for (file, unfinished) in self.files.into_values() {
            unfinished.finish().map_err(|source| not_written(&file, source))?;
            written.insert(file);
        }
        for file in self.before.difference(&written) {
            tell(format_args!(
                "warning: {} was there already and is none of this export\n",
                file.display()
            ));
        }
        let files = written.iter().map(|file| file.display().to_string()).collect();
        output.answer(&ExportAnswer { records: self.records, files })?;
        Ok(Verdict::Done)
    }
}

fn not_written(file: &Path, source: io::Error) -> Error {
    Error::NotWritten { file: file.to_owned(), source }
}

/// A project's name as part of a path: whatever could mean something there is written in hexadecimal.
fn file_name(project: &str) -> String {
    let mut name = String::new();
    for (place, byte) in project.bytes().enumerate() {
        let plain = byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'_')
            || (byte == b'.' && place > 0);
        match plain {
            true => name.push(char::from(byte)),
            false => name += &format!("%{byte:02X}"),
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_project_leads_out_of_the_directory() {
        for (project, name) in [
            ("billing-2.x", "billing-2.x"),
            ("..", "%2E."),
            ("../../etc", "%2E.%2F..%2Fetc"),
            ("a%2Fb", "a%252Fb"),
            ("@every-project", "%40every-project"),
            ("é", "%C3%A9"),
        ] {
            assert_eq!(file_name(project), name);
        }
    }
}
