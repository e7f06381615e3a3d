//! Attribute files, directories of them, and stdin.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};

use tempfile::TempPath;
use uuid::Uuid;

use super::documents::{Document, FileError, Place, Whereabouts, read};
use crate::error::{Error, Result};

/// Where documents come from.
#[derive(Debug)]
pub(super) enum Source {
    Stdin,
    File(PathBuf),
}

impl Source {
    pub(super) fn named(file: &Path) -> Self {
        if is_standard(file) { Self::Stdin } else { Self::File(file.to_owned()) }
    }

    /// What a directory holds, in order; hidden files, as those behind a mounted ConfigMap, left out. A file is itself.
    pub(super) fn all(file: &Path) -> Result<Vec<Self>> {
        if !file.is_dir() {
            return Ok(vec![Self::named(file)]);
        }
        let mut found = Vec::new();
        collect(file, &mut found)?;
        Ok(found.into_iter().map(Self::File).collect())
    }

    /// The file, if it is one.
    pub(super) fn into_file(self) -> Option<PathBuf> {
        match self {
            Self::Stdin => None,
            Self::File(file) => Some(file),
        }
    }

    /// Reads the documents one by one.
    pub(super) fn read(&self, each: impl FnMut(Document) -> Result<(), FileError>) -> Result<()> {
        match self {
            Self::Stdin => read("stdin", io::stdin().lock(), each)?,
            Self::File(file) => {
                let opened =
                    File::open(file).and_then(|opened| match opened.metadata()?.is_dir() {
                        true => Err(io::ErrorKind::IsADirectory.into()),
                        false => Ok(opened),
                    });
                let opened = opened.map_err(|source| unreadable(file, source))?;
                read(&file.display().to_string(), BufReader::new(opened), each)?;
            }
        }
        Ok(())
    }
}

fn unreadable(file: &Path, source: io::Error) -> Error {
    Error::UnreadableFile { file: file.to_owned(), source }
}

fn collect(directory: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let entries =
        fs::read_dir(directory).and_then(|entries| entries.collect::<io::Result<Vec<_>>>());
    let entries = entries.map_err(|source| unreadable(directory, source))?;
    let mut paths: Vec<_> = entries.iter().map(fs::DirEntry::path).collect();
    paths.sort();
    for path in paths {
        let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        if hidden {
            continue;
        }
        // A link to a directory may lead back to where it is; and what it holds is neither to be pruned, as if it were not
        // there, nor to be written over.
        if path.is_dir() && path.is_symlink() {
            return Err(Error::Usage(format!(
                "{}: links to a directory, and links to directories are not followed; name that directory itself",
                path.display()
            )));
        } else if path.is_dir() {
            collect(&path, found)?;
        } else if is_yaml(&path) && !path.is_dir() {
            found.push(path);
        }
    }
    Ok(())
}

/// Whether the name is one of a YAML file.
pub(super) fn is_yaml(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}

/// Whoever names a file without a document has named the wrong one.
pub(super) fn refuse_none<T>(file: &Path, documents: &[T]) -> Result<()> {
    match documents.is_empty() {
        true => Err(Error::Usage(format!("{}: has no document", file.display()))),
        false => Ok(()),
    }
}

/// Of two documents about the same, neither can be meant.
pub(super) fn refuse_twice(places: impl IntoIterator<Item = Place>) -> Result<(), FileError> {
    let mut first: HashMap<_, Whereabouts> = HashMap::new();
    for Place { at, kind, path } in places {
        let about = format!("{kind} of {path}");
        if let Some(first) = first.insert((kind, path), at.clone()) {
            return Err(at.wrong(format!("{about} stands already in {first}")));
        }
    }
    Ok(())
}

/// Whether the name is that of standard input, or of standard output where a file is written.
pub(super) fn is_standard(file: &Path) -> bool {
    file == Path::new("-")
}

/// A file in the making, which nobody else may read. When it is whole it takes its place, and that of what stood there
/// before; until then, or if that never comes, all is as it was.
#[derive(Debug)]
pub(super) struct Unfinished {
    place: PathBuf,
    written: TempPath,
}

impl Unfinished {
    pub(super) fn create(place: &Path) -> io::Result<(Self, File)> {
        // A link stays, and what it leads to is replaced.
        let place = place.canonicalize().unwrap_or_else(|_| place.to_owned());
        let written = place.with_file_name(format!(".tokenpool-{}", Uuid::new_v4()));
        let mut options = File::options();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&written)?;
        Ok((Self { place, written: TempPath::try_from_path(written)? }, file))
    }

    /// To write more behind what is written.
    pub(super) fn append(&self) -> io::Result<File> {
        File::options().append(true).open(&self.written)
    }

    pub(super) fn finish(self) -> io::Result<()> {
        File::open(&self.written)?.sync_all()?;
        self.written.persist(self.place).map_err(|error| error.error)
    }
}

/// Writes such a file whole. What is there and is no file, as a pipe, is written into.
pub(super) fn write(place: &Path, text: &str) -> io::Result<()> {
    if place.metadata().is_ok_and(|there| !there.is_file()) {
        return File::options().write(true).open(place)?.write_all(text.as_bytes());
    }
    let (unfinished, mut file) = Unfinished::create(place)?;
    file.write_all(text.as_bytes())?;
    unfinished.finish()
}
