//! The documents of an attribute file.

use std::fmt;
use std::io::{self, BufRead};

use serde_json::{Map, Value};
use serde_saphyr::Error::{
    AliasError, AliasExpansionLimitExceeded, AliasReplayLimitExceeded, Budget, IOError,
};
use tokenpool::matchable::{AttributePath, InvalidField, Kind, KindName, MAX_VALUE_LENGTH};

use super::kinds::Kinds;
use super::node::{Entry, Node, Tree};
use super::text::{NoText, TextLines};

/// Fields that say what the attributes are of, and are none of them.
pub(super) const KIND: &str = "kind";
pub(super) const PLACE: [&str; 4] = ["project", "domain", "workflow", "launch_plan"];

/// What is wrong with a file, and where.
#[derive(Debug, thiserror::Error)]
#[error("{at}: {problem}")]
pub(crate) struct FileError {
    at: Whereabouts,
    problem: String,
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Whereabouts {
    pub(super) file: String,
    /// Counted from 1, without empty ones; none where the file is no text.
    pub(super) document: Option<usize>,
    pub(super) line: Option<u64>,
}

impl fmt::Display for Whereabouts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, document, line } = self;
        f.write_str(file)?;
        if let Some(document) = document {
            write!(f, ": document {document}")?;
        }
        let after = if document.is_some() { "," } else { ":" };
        line.map_or(Ok(()), |line| write!(f, "{after} line {line}"))
    }
}

impl Whereabouts {
    pub(super) fn wrong(&self, problem: impl Into<String>) -> FileError {
        FileError { at: self.clone(), problem: problem.into() }
    }
}

/// A document: where it stands, what it is about, and the fields of the attributes.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) at: Whereabouts,
    pub(super) path: AttributePath,
    kind: Option<(String, Whereabouts)>,
    attributes: Node,
}

/// A place that a file names.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) at: Whereabouts,
    pub(super) kind: KindName,
    pub(super) path: AttributePath,
}

/// Attributes as a file wants them to be.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) at: Whereabouts,
    pub(super) kind: Kind<Value>,
    pub(super) path: AttributePath,
    pub(super) attributes: Value,
}

/// Reads the documents of a file one by one.
pub(super) fn read(
    file: &str,
    text: impl BufRead,
    mut each: impl FnMut(Document) -> Result<(), FileError>,
) -> Result<(), FileError> {
    let options = serde_saphyr::options! {
        with_snippet: false,
        // Whoever labels something `on` or `y` means the text.
        strict_booleans: true,
        // Whoever names a project 007 means the text.
        leading_zero_numbers_as_strings: true,
        budget: serde_saphyr::budget! { max_documents: usize::MAX, max_nodes: 4_000_000, max_events: 16_000_000 },
    };
    let mut text = TextLines::new(text);
    let nodes = serde_saphyr::read_with_options::<_, Node>(&mut text, options);
    for (before, node) in nodes.enumerate() {
        let at = |document, line| Whereabouts { file: file.to_owned(), document, line };
        let document = Some(before + 1);
        let node = node.map_err(|error| match (root(&error), error.location()) {
            // The parser reads on before it is done with a document.
            (IOError { cause }, _) => at(None, line_of(cause)).wrong(cause.to_string()),
            (root, location) => {
                at(document, location.map(|at| at.line())).wrong(in_our_words(root))
            }
        })?;
        let at = at(document, Some(node.line));
        each(Document::new(at, node)?)?;
    }
    Ok(())
}

/// What went wrong, without where aliases of it stand.
fn root(error: &serde_saphyr::Error) -> &serde_saphyr::Error {
    match error.without_snippet() {
        AliasError { error, .. } => root(error),
        error => error,
    }
}

fn line_of(cause: &io::Error) -> Option<u64> {
    Some(cause.get_ref()?.downcast_ref::<NoText>()?.line)
}

/// What the parser says, without the place, which is told before it, and without advice to programmers.
fn in_our_words(error: &serde_saphyr::Error) -> String {
    if matches!(
        error,
        AliasExpansionLimitExceeded { .. } | AliasReplayLimitExceeded { .. } | Budget { .. }
    ) {
        return "must not have that many parts, those that aliases repeat counted each time"
            .to_owned();
    }
    let mut text = error.to_string();
    for more in [" at line ", ", set DuplicateKeyPolicy"] {
        if let Some(end) = text.rfind(more) {
            text.truncate(end);
        }
    }
    text
}

impl Document {
    fn new(at: Whereabouts, node: Node) -> Result<Self, FileError> {
        let Node { line, tree } = node;
        let Tree::Map(mut fields) = tree else {
            return Err(at.wrong("must be a mapping of project, domain and so on"));
        };
        let mut take = |name: &str| -> Result<Option<(String, Whereabouts)>, FileError> {
            let Some(place) = fields.iter().position(|field| field.name == name) else {
                return Ok(None);
            };
            let Entry { line, node, .. } = fields.remove(place);
            let at = Whereabouts { line: Some(line), ..at.clone() };
            match node.tree {
                // As in Flyte's messages, an empty name is none.
                Tree::Leaf(Value::Null) => Ok(None),
                Tree::Leaf(Value::String(text)) if text.is_empty() => Ok(None),
                Tree::Leaf(Value::String(text)) => Ok(Some((text, at))),
                Tree::Leaf(other) => {
                    Err(at.wrong(format!("{name} {other}: must be a text; quote it")))
                }
                Tree::List(_) | Tree::Map(_) => Err(at.wrong(format!("{name}: must be a text"))),
            }
        };
        let kind = take(KIND)?;
        let mut names = [const { None }; PLACE.len()];
        for (name, field) in names.iter_mut().zip(PLACE) {
            *name = take(field)?;
        }
        let [project, domain, workflow, launch_plan] =
            names.each_ref().map(|name| name.as_ref().map_or("", |(text, _)| text));
        let path = AttributePath::new(project, domain, workflow, launch_plan).map_err(|error| {
            // The names in errors are those of the fields, but for a blank.
            let field = match &error {
                tokenpool::Error::InvalidArgument { field, .. } => field.replace(' ', "_"),
                _ => String::new(),
            };
            let place = PLACE.iter().position(|name| *name == field);
            let at = place.and_then(|place| names[place].as_ref()).map_or(&at, |(_, at)| at);
            at.wrong(error.to_string())
        })?;
        Ok(Self { at, path, kind, attributes: Node { line, tree: Tree::Map(fields) } })
    }

    /// As attributes of the kind that the command names.
    pub(super) fn of_kind(&self, kind: &Kind<Value>, kinds: &Kinds) -> Result<Wanted, FileError> {
        self.refuse_another_kind(kind, kinds)?;
        self.checked(kind)
    }

    fn refuse_another_kind(&self, kind: &Kind<Value>, kinds: &Kinds) -> Result<(), FileError> {
        if let Some((name, at)) = &self.kind {
            let named = kinds.find(name).map_or(name.as_str(), |kind| kind.name().as_str());
            if named != kind.name().as_str() {
                return Err(at.wrong(format!("kind {name:?}: must be {} or left out", kind.name())));
            }
        }
        Ok(())
    }

    /// The place where attributes of the kind that the command names are to be deleted. They need not stand there, too.
    pub(super) fn place(&self, kind: &Kind<Value>, kinds: &Kinds) -> Result<Place, FileError> {
        self.refuse_another_kind(kind, kinds)?;
        if !matches!(&self.attributes.tree, Tree::Map(fields) if fields.is_empty()) {
            self.checked(kind)?;
        }
        Ok(Place { at: self.at.clone(), kind: kind.name().clone(), path: self.path.clone() })
    }

    /// As attributes of the kind that it names itself, or else of the only one that they could be of.
    pub(super) fn of_named_kind(
        &self,
        kinds: &Kinds,
        unchecked: bool,
    ) -> Result<Wanted, FileError> {
        let Some((name, at)) = &self.kind else { return self.of_only_kind(kinds) };
        match (kinds.find(name), unchecked) {
            (Some(kind), _) => self.checked(kind),
            (None, true) => {
                let name = KindName::new(name.clone()).map_err(|error| at.wrong(error.to_string()))?;
                self.checked(&Kind::unchecked(name))
            }
            (None, false) => Err(at.wrong(format!(
                "kind {name:?}: must be one that this program knows ({}), or be taken as it is with --unchecked",
                kinds.list()
            ))),
        }
    }

    fn of_only_kind(&self, kinds: &Kinds) -> Result<Wanted, FileError> {
        let fitting: Vec<_> = kinds.iter().filter_map(|kind| self.checked(kind).ok()).collect();
        let names: Vec<_> = fitting.iter().map(|wanted| wanted.kind.name().to_string()).collect();
        match <[Wanted; 1]>::try_from(fitting) {
            Ok([wanted]) => Ok(wanted),
            Err(none) if none.is_empty() => Err(self.at.wrong(format!(
                "needs a kind: it fits none of {}; with a kind the reason can be told",
                kinds.list()
            ))),
            Err(_) => {
                Err(self.at.wrong(format!("needs a kind: it could be of {}", names.join(" or "))))
            }
        }
    }

    /// The attributes as they would be stored.
    fn checked(&self, kind: &Kind<Value>) -> Result<Wanted, FileError> {
        let attributes =
            kind.checked(&self.attributes.value()).map_err(|error| self.wrong(&error))?;
        let length = attributes.to_string().len();
        if length > MAX_VALUE_LENGTH {
            return Err(self.at.wrong(format!(
                "{length} bytes: must not be longer than {MAX_VALUE_LENGTH} bytes in JSON"
            )));
        }
        Ok(Wanted { at: self.at.clone(), kind: kind.clone(), path: self.path.clone(), attributes })
    }

    /// What a kind says, with the line that it is about.
    fn wrong(&self, error: &InvalidField) -> FileError {
        let InvalidField { field, value, rule, .. } = error;
        let field = match field.as_str() {
            "." => "",
            field => field,
        };
        let unknown = rule.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next());
        let line = match unknown {
            Some(name) if !field.ends_with(name) => {
                self.attributes.line_of(&format!("{field}.{name}"))
            }
            _ => self.attributes.line_of(field),
        };
        let problem = match (field, value.as_str()) {
            ("", _) => rule.clone(),
            (field, "") => format!("{field}: {rule}"),
            (field, value) => format!("{field} {value:?}: {rule}"),
        };
        Whereabouts { line: Some(line), ..self.at.clone() }.wrong(problem)
    }
}

impl Wanted {
    pub(super) fn place(&self) -> Place {
        Place { at: self.at.clone(), kind: self.kind.name().clone(), path: self.path.clone() }
    }
}

/// A document's text, and why it cannot be one.
pub(super) fn document(
    kind: &KindName,
    path: &AttributePath,
    attributes: &Value,
) -> Result<Vec<(String, Value)>, String> {
    let Value::Object(attributes) = attributes else {
        return Err("it is no mapping of fields".to_owned());
    };
    let taken = |name: &&String| name.as_str() == KIND || PLACE.contains(&name.as_str());
    if let Some(name) = attributes.keys().find(taken) {
        return Err(format!("it has a field {name} of its own"));
    }
    Ok(fields(kind, path, attributes))
}

fn fields(
    kind: &KindName,
    path: &AttributePath,
    attributes: &Map<String, Value>,
) -> Vec<(String, Value)> {
    let names = [
        path.project_name().map(Into::into),
        path.domain_name().map(Into::into),
        path.workflow_name(),
        path.launch_plan_name(),
    ];
    let names = PLACE.into_iter().zip(names);
    let names = names.filter_map(|(field, name)| Some((field.to_owned(), Value::from(name?))));
    let kind = (KIND.to_owned(), Value::from(kind.as_str()));
    let attributes = attributes.iter().map(|(name, value)| (name.clone(), value.clone()));
    std::iter::once(kind).chain(names).chain(attributes).collect()
}
