//! What the kinds accept, how they look in JSON, and how they merge.

mod files;
mod merging;
mod validation;

use serde::de::DeserializeOwned;
use serde_json::Value;

/// Reads a document in YAML as attributes.
fn yaml<T: DeserializeOwned>(text: &str) -> T {
    let document: Value = serde_saphyr::from_str(text).expect("it is YAML");
    from_json(document).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Reads JSON as attributes, or says what is wrong and where.
fn from_json<T: DeserializeOwned>(value: Value) -> Result<T, String> {
    serde_path_to_error::deserialize(value).map_err(|error| error.to_string())
}
