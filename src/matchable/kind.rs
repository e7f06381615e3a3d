//! What kinds of attributes there are: the trait of a kind, and kinds as values.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{Error, Result};

/// Longest name of a kind, in bytes.
const MAX_LENGTH: usize = 64;

/// A kind of attributes: a matchable resource, as Flyte calls it.
///
/// Whoever implements it can store, look up, list and merge attributes of the kind, and use it from the program.
///
/// # Example
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use tokenpool::matchable::{InvalidField, MatchableResource};
///
/// #[derive(Clone, Debug, Serialize, Deserialize)]
/// #[serde(deny_unknown_fields)]
/// struct WorkflowPriority {
///     priority: i32,
/// }
///
/// impl MatchableResource for WorkflowPriority {
///     const NAME: &'static str = "WORKFLOW_PRIORITY";
///     const NUMBER: Option<u32> = Some(10);
///
///     fn validate(&self) -> Result<(), InvalidField> {
///         InvalidField::unless((0..=9).contains(&self.priority), "priority", self.priority, "must be between 0 and 9")
///     }
/// }
/// ```
pub trait MatchableResource:
    Serialize + DeserializeOwned + Clone + fmt::Debug + Send + Sync + 'static
{
    /// The name under which attributes of the kind are kept: capital letters, digits and `_`, at most 64.
    const NAME: &'static str;

    /// Its number in Flyte's `MatchableResource`, if it has one. The tag in `MatchingAttributes` is one more.
    const NUMBER: Option<u32> = None;

    /// Whether an update is [merged](Self::merge) over what is stored, as Flyte merges plugin overrides, or replaces it.
    const UPDATES_MERGE: bool = false;

    /// Whether the attributes may be stored.
    ///
    /// # Errors
    ///
    /// The first field that breaks a rule.
    fn validate(&self) -> Result<(), InvalidField>;

    /// These attributes over others that they take precedence of: those of a less specific place, or older ones. Without an
    /// implementation the kind does not merge, and the others count for nothing.
    ///
    /// The laws: what is set here stays as it is and where it is, merging the same again changes nothing, and elements
    /// that come from `below` are appended to a list.
    #[must_use]
    fn merge(self, below: Self) -> Self {
        drop(below);
        self
    }
}

/// A field of attributes that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {value:?}: {rule}")]
#[non_exhaustive]
pub struct InvalidField {
    /// The field, as a path like `overrides[2].task_type`.
    pub field: String,
    /// What it holds.
    pub value: String,
    /// The rule it breaks.
    pub rule: String,
}

impl InvalidField {
    /// A field, what it holds, and the rule that this breaks.
    pub fn new(field: impl Into<String>, value: impl ToString, rule: impl Into<String>) -> Self {
        Self { field: field.into(), value: value.to_string(), rule: rule.into() }
    }

    /// The same as an error, unless it holds.
    ///
    /// # Errors
    ///
    /// This field if `holds` is false.
    pub fn unless(
        holds: bool,
        field: impl Into<String>,
        value: impl ToString,
        rule: impl Into<String>,
    ) -> Result<(), Self> {
        if holds { Ok(()) } else { Err(Self::new(field, value, rule)) }
    }

    /// The same field seen from what it is a part of.
    #[must_use]
    pub fn within(mut self, outer: impl fmt::Display) -> Self {
        let separator = if self.field.starts_with('[') || self.field.is_empty() { "" } else { "." };
        self.field = format!("{outer}{separator}{}", self.field);
        self
    }
}

/// Name of a kind.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KindName(Cow<'static, str>);

impl KindName {
    /// Parses a name.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] unless it is of capital letters, digits and `_`, begins with a letter and has at most 64.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Result<Self> {
        let name = name.into();
        if is_kind_name(&name) {
            return Ok(Self(name));
        }
        let rule =
            format!("must be 1 to {MAX_LENGTH} capital letters, digits and '_', first a letter");
        Err(Error::invalid("kind", name, rule))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

const fn is_kind_name(name: &str) -> bool {
    let name = name.as_bytes();
    let mut at = 0;
    while at < name.len() {
        let later = name[at] == b'_' || name[at].is_ascii_digit();
        if !(name[at].is_ascii_uppercase() || later && at > 0) {
            return false;
        }
        at += 1;
    }
    !name.is_empty() && name.len() <= MAX_LENGTH
}

impl fmt::Display for KindName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for KindName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// A kind whose attributes are handled as `T`: their own type, or [`Value`]s for whoever knows kinds at run time only.
#[derive(Clone)]
pub struct Kind<T> {
    name: KindName,
    number: Option<u32>,
    updates_merge: bool,
    decode: fn(&str) -> Result<T, InvalidField>,
    encode: fn(&T) -> Result<String, InvalidField>,
    merge: fn(T, T) -> Result<T, InvalidField>,
    attributes: PhantomData<fn() -> T>,
}

impl<K: MatchableResource> Kind<K> {
    /// A kind by the type of its attributes. If [`NAME`](MatchableResource::NAME) is no name of a kind, that does not compile.
    pub fn of() -> Self {
        const { assert!(is_kind_name(K::NAME), "NAME must be capital letters, digits and '_'") };
        Self {
            name: KindName(Cow::Borrowed(K::NAME)),
            number: K::NUMBER,
            updates_merge: K::UPDATES_MERGE,
            decode: read,
            encode: |attributes: &K| {
                attributes.validate()?;
                write(attributes)
            },
            merge: |above, below| Ok(above.merge(below)),
            attributes: PhantomData,
        }
    }
}

impl Kind<Value> {
    /// A kind by the type of its attributes, whose rules hold, but which are handled as values.
    pub fn erased<K: MatchableResource>() -> Self {
        let Kind { name, number, updates_merge, .. } = Kind::<K>::of();
        Self {
            name,
            number,
            updates_merge,
            decode: |text| to_value(&read::<K>(text)?),
            encode: |value| {
                let attributes: K = from_value(value)?;
                attributes.validate()?;
                write(&attributes)
            },
            merge: |above, below| to_value(&from_value::<K>(&above)?.merge(from_value(&below)?)),
            attributes: PhantomData,
        }
    }

    /// A kind that nobody here knows: any attributes are taken as they are, and nothing is merged.
    pub fn unchecked(name: KindName) -> Self {
        Self {
            name,
            number: None,
            updates_merge: false,
            decode: read,
            encode: write,
            merge: |above, _| Ok(above),
            attributes: PhantomData,
        }
    }
}

impl<T> Kind<T> {
    /// Its name.
    pub fn name(&self) -> &KindName {
        &self.name
    }

    /// Its number in Flyte's `MatchableResource`, if it has one.
    pub fn number(&self) -> Option<u32> {
        self.number
    }

    /// Whether an update is merged over what is stored.
    pub fn updates_merge(&self) -> bool {
        self.updates_merge
    }

    /// Reads attributes from their text in JSON; their rules may be older than today's.
    pub(crate) fn decode(&self, text: &str) -> Result<T, InvalidField> {
        (self.decode)(text)
    }

    /// Writes attributes as JSON, if they keep the kind's rules.
    pub(crate) fn encode(&self, attributes: &T) -> Result<String, InvalidField> {
        (self.encode)(attributes)
    }

    /// The attributes as they would be stored, if they keep the kind's rules. That a value may be too long is checked when it is written.
    ///
    /// # Errors
    ///
    /// The first field that breaks a rule.
    pub fn checked(&self, attributes: &T) -> Result<T, InvalidField> {
        self.decode(&self.encode(attributes)?)
    }

    /// As [`MatchableResource::merge`].
    ///
    /// # Errors
    ///
    /// A field, if values are handled that are none of the kind.
    pub fn merge(&self, above: T, below: T) -> Result<T, InvalidField> {
        (self.merge)(above, below)
    }
}

impl<T> fmt::Debug for Kind<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, number, updates_merge, .. } = self;
        f.debug_struct("Kind")
            .field("name", name)
            .field("number", number)
            .field("updates_merge", updates_merge)
            .finish_non_exhaustive()
    }
}

fn read<T: DeserializeOwned>(text: &str) -> Result<T, InvalidField> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(wrong_shape)?;
    deserializer.end().map_err(|error| InvalidField::new("", "", error.to_string()))?;
    Ok(value)
}

fn from_value<T: DeserializeOwned>(value: &Value) -> Result<T, InvalidField> {
    serde_path_to_error::deserialize(value).map_err(wrong_shape)
}

fn to_value<T: Serialize>(attributes: &T) -> Result<Value, InvalidField> {
    serde_json::to_value(attributes).map_err(not_written)
}

fn write<T: Serialize>(attributes: &T) -> Result<String, InvalidField> {
    serde_json::to_string(attributes).map_err(not_written)
}

fn wrong_shape(error: serde_path_to_error::Error<serde_json::Error>) -> InvalidField {
    let field = error.path().to_string();
    InvalidField::new(field, "", error.into_inner().to_string())
}

fn not_written(error: serde_json::Error) -> InvalidField {
    InvalidField::new("", "", format!("cannot be written as JSON: {error}"))
}
