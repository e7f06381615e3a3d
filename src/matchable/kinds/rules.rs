//! Rules that several kinds share.

use std::collections::HashSet;

use super::super::kind::InvalidField;

/// Refuses attributes, or a part of them, that set nothing: whoever wrote them meant something else.
pub(super) fn sets_something(sets: bool, field: &str) -> Result<(), InvalidField> {
    InvalidField::unless(sets, field, "{}", "must set something")
}

/// Refuses a list or map without elements.
pub(super) fn not_empty(empty: bool, field: &str) -> Result<(), InvalidField> {
    InvalidField::unless(!empty, field, "", "must not be empty")
}

/// Refuses a text that is empty or of white space only.
pub(super) fn not_blank(field: impl Into<String>, text: &str) -> Result<(), InvalidField> {
    InvalidField::unless(!text.trim().is_empty(), field, text, "must not be empty")
}

/// Refuses a text of white space only; an empty one is not set.
pub(super) fn not_only_space(field: &str, text: &str) -> Result<(), InvalidField> {
    if text.is_empty() { Ok(()) } else { not_blank(field, text) }
}

/// Applies a rule to each element of a list, and says in which one it was broken.
pub(super) fn each<T>(
    field: &str,
    elements: &[T],
    rule: impl Fn(&T) -> Result<(), InvalidField>,
) -> Result<(), InvalidField> {
    elements.iter().enumerate().try_for_each(|(place, element)| {
        rule(element).map_err(|error| error.within(format_args!("{field}[{place}]")))
    })
}

/// Refuses a list in whose elements a key has the same value twice.
pub(super) fn unique<'a>(
    field: &str,
    key: &str,
    values: impl Iterator<Item = &'a str>,
) -> Result<(), InvalidField> {
    let mut seen = HashSet::new();
    values.enumerate().try_for_each(|(place, value)| {
        let field = format!("{field}[{place}].{key}");
        InvalidField::unless(seen.insert(value), field, value, "must occur once only")
    })
}

/// The field of a map's entry, whose key may be anything.
pub(super) fn entry(field: &str, key: &str) -> String {
    format!("{field}[{key:?}]")
}

/// Whether a value is what it is when nothing is set.
pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
