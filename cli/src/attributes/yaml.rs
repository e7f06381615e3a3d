//! Attributes as YAML.

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;
use tokenpool::matchable::{AttributePath, KindName};

use super::documents::document;
use crate::error::{Error, Result};

/// A document as `update` and `apply` take it.
pub(super) fn attribute_document(
    kind: &KindName,
    path: &AttributePath,
    attributes: &Value,
) -> Result<String> {
    let fields = document(kind, path, attributes).map_err(|problem| Error::NoDocument {
        attributes: format!("{kind} of {path}"),
        problem,
    })?;
    to_yaml(&Fields(fields))
}

/// Any value.
pub(super) fn to_yaml(value: &impl Serialize) -> Result<String> {
    // Folded and literal blocks save little here, and quoted text is the same whatever it contains.
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    let text = serde_saphyr::to_string_with_options(value, options);
    let mut text = text.map_err(|error| Error::Output(std::io::Error::other(error)))?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

/// Fields in the order that they are to be read in.
struct Fields(Vec<(String, Value)>);

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}
