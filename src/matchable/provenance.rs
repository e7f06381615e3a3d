//! Which place each field of merged attributes comes from.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::path::AttributePath;

/// The leaves of attributes in JSON with their values and where they come from, by JSON pointer (RFC 6901).
#[derive(Debug)]
pub(super) struct Sources(BTreeMap<String, (Value, AttributePath)>);

impl Sources {
    /// All of it from one place.
    pub(super) fn of(attributes: &Value, path: &AttributePath) -> Self {
        let all = leaves(attributes).into_iter();
        Self(all.map(|(pointer, value)| (pointer, (value, path.clone()))).collect())
    }

    /// What is new or different comes from this place, over which the attributes so far were merged.
    pub(super) fn fill(&mut self, merged: &Value, path: &AttributePath) {
        let mut before = std::mem::take(&mut self.0);
        for (pointer, value) in leaves(merged) {
            let source = match before.remove(&pointer) {
                Some((same, source)) if same == value => source,
                _ => path.clone(),
            };
            self.0.insert(pointer, (value, source));
        }
    }

    pub(super) fn into_map(self) -> BTreeMap<String, AttributePath> {
        self.0.into_iter().map(|(pointer, (_, source))| (pointer, source)).collect()
    }
}

/// The attributes in JSON. What cannot be written has no fields to tell of.
pub(super) fn value(attributes: &impl Serialize) -> Value {
    serde_json::to_value(attributes).unwrap_or_default()
}

fn leaves(attributes: &Value) -> Vec<(String, Value)> {
    let mut leaves = Vec::new();
    descend(String::new(), attributes, &mut leaves);
    leaves
}

fn descend(pointer: String, value: &Value, leaves: &mut Vec<(String, Value)>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, field) in fields {
                let name = name.replace('~', "~0").replace('/', "~1");
                descend(format!("{pointer}/{name}"), field, leaves);
            }
        }
        Value::Array(elements) if !elements.is_empty() => {
            for (place, element) in elements.iter().enumerate() {
                descend(format!("{pointer}/{place}"), element, leaves);
            }
        }
        leaf => leaves.push((pointer, leaf.clone())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::error::Result;

    #[test]
    fn what_a_merge_adds_or_changes_comes_from_below() -> Result<()> {
        let (above, below) =
            (AttributePath::project_domain("p", "d")?, AttributePath::project("p")?);
        let mut sources =
            Sources::of(&json!({"a": 1, "b": {}, "list": [{"k": "x"}], "zero": 0}), &above);
        sources.fill(
            &json!({"a": 1, "b": {"c/d": 2}, "list": [{"k": "x"}, {"k": "y"}], "zero": 5}),
            &below,
        );
        let expected = [
            ("/a", &above),
            ("/b/c~1d", &below),
            ("/list/0/k", &above),
            ("/list/1/k", &below),
            ("/zero", &below),
        ];
        let expected = expected.map(|(pointer, path)| (pointer.to_owned(), path.clone()));
        assert_eq!(sources.into_map(), BTreeMap::from(expected));
        Ok(())
    }
}
