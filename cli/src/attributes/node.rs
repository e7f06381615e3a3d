//! A YAML document with the lines on which its parts stand.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::Spanned;

/// A part of a document.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) line: u64,
    pub(super) tree: Tree,
}

#[derive(Clone, Debug)]
pub(super) enum Tree {
    Leaf(Value),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A field of a mapping.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) line: u64,
    pub(super) node: Node,
}

impl Node {
    /// What it says, without the lines.
    pub(super) fn value(&self) -> Value {
        match &self.tree {
            Tree::Leaf(value) => value.clone(),
            Tree::List(nodes) => nodes.iter().map(Self::value).collect(),
            Tree::Map(entries) => {
                let fields = entries.iter().map(|entry| (entry.name.clone(), entry.node.value()));
                Value::Object(fields.collect::<Map<_, _>>())
            }
        }
    }

    /// The line of a field, named as `overrides[1].task_type`; of what is nearest to it if it is not there.
    pub(super) fn line_of(&self, field: &str) -> u64 {
        let (mut node, mut line, mut rest) = (self, self.line, field);
        loop {
            let next = match &node.tree {
                Tree::Leaf(_) => None,
                Tree::List(nodes) => element(rest).and_then(|(place, rest)| {
                    let node = nodes.get(place)?;
                    Some((node, node.line, rest))
                }),
                Tree::Map(entries) => {
                    let rest = rest.strip_prefix('.').unwrap_or(rest);
                    // Names may have dots in them.
                    let fits = entries.iter().filter_map(|entry| {
                        let below = rest.strip_prefix(&*entry.name)?;
                        let ends = below.is_empty() || below.starts_with(['.', '[']);
                        ends.then_some((entry, below))
                    });
                    let longest = fits.max_by_key(|(entry, _)| entry.name.len());
                    longest.map(|(entry, below)| (&entry.node, entry.line, below))
                }
            };
            let Some(next) = next else { return line };
            (node, line, rest) = next;
        }
    }
}

/// Splits `[1].task_type`.
fn element(field: &str) -> Option<(usize, &str)> {
    let (place, rest) = field.strip_prefix('[')?.split_once(']')?;
    Some((place.parse().ok()?, rest))
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value: tree, referenced, .. } = Spanned::deserialize(deserializer)?;
        Ok(Self { line: referenced.line(), tree })
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("YAML that can be written as JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Tree, E> {
        let number = Number::from_f64(value);
        let number =
            number.ok_or_else(|| E::custom(format_args!("{value} is no number in JSON")))?;
        Ok(Tree::Leaf(Value::Number(number)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Leaf(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Leaf(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        Tree::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Tree, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = elements.next_element()? {
            nodes.push(node);
        }
        Ok(Tree::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Tree, A::Error> {
        let mut entries = Vec::new();
        while let Some((name, node)) = fields.next_entry::<Spanned<String>, Node>()? {
            entries.push(Entry { line: name.referenced.line(), name: name.value, node });
        }
        Ok(Tree::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TEXT: &str = "\
# a comment
project: p
overrides:
  - task_type: spark
    plugin_id: [a, b]
  - task_type: \"\"

    plugin_id:
      - c
labels: {a.b: x, a: {b: z}}
";

    #[test]
    fn fields_have_lines() {
        let node: Node = serde_saphyr::from_str(TEXT).expect("it is YAML");
        for (field, line) in [
            ("", 2),
            ("project", 2),
            ("overrides", 3),
            ("overrides[0].task_type", 4),
            ("overrides[0].plugin_id[1]", 5),
            ("overrides[1]", 6),
            ("overrides[1].task_type", 6),
            ("overrides[1].plugin_id[0]", 9),
            ("labels.a.b", 10),
            // What is not there has the line of what it would be in.
            ("overrides[1].missing", 6),
            ("overrides[7]", 3),
            ("missing", 2),
            ("overrides[", 3),
            ("overrides[99999999999999999999]", 3),
        ] {
            assert_eq!(node.line_of(field), line, "{field}");
        }
        assert_eq!(node.value()["labels"], json!({"a.b": "x", "a": {"b": "z"}}));
    }

    #[test]
    fn what_yaml_says_is_what_json_says() {
        for (text, value) in [
            ("1", json!(1)),
            ("-1", json!(-1)),
            ("18446744073709551615", json!(u64::MAX)),
            ("1.5", json!(1.5)),
            ("true", json!(true)),
            ("'true'", json!("true")),
            ("~", json!(null)),
            ("[a, ~, {b: 1}]", json!(["a", null, {"b": 1}])),
            ("|\n  a\n  b\n", json!("a\nb\n")),
        ] {
            let node: Node = serde_saphyr::from_str(text).expect("it is YAML");
            assert_eq!(node.value(), value, "{text}");
        }
        for text in [".nan", ".inf", "a: 1\na: 2", "[", "{a: b: c}", "*nobody"] {
            let node: Result<Node, _> = serde_saphyr::from_str(text);
            assert!(node.is_err(), "{text}: {node:?}");
        }
    }
}
