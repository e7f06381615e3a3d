//! Attribute files of any content: an error or values, never a panic; and what is written is read as it was.

use std::sync::LazyLock;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde_json::{Map, Value};
use tokenpool::matchable::{AttributePath, Kind, KindName};

use super::documents::{Wanted, read};
use super::kinds::Kinds;
use super::yaml::attribute_document;

const FILE: &str = "\
# Of two kinds.
kind: PLUGIN_OVERRIDE
project: billing
domain: production
overrides:
  - task_type: spark
    plugin_id: [databricks, spark]
    missing_plugin_behavior: 1
---
project: billing
domain: production
workflow: \"app.reports:nightly\"
launch_plan: |-
  late
defaults: {cpu: \"2\", memory: &it 4Gi}
limits: {cpu: '8', memory: *it}
...
---
kind: cluster-resource-attribute
domain: production
attributes: {a.b: \"1e3\", c: 'on', \"d\": \"x\\ny\"}
";

/// What a file says.
fn parse(text: &[u8]) -> Result<Vec<Wanted>, String> {
    static KINDS: LazyLock<Kinds> =
        LazyLock::new(|| Kinds::built_in().expect("the names are valid"));
    let mut wanted = Vec::new();
    let read = read("fuzz.yaml", text, |document| {
        wanted.push(document.of_named_kind(&KINDS, true)?);
        Ok(())
    });
    read.map(|()| wanted).map_err(|error| error.to_string())
}

fn check(text: &[u8]) {
    match parse(text) {
        Err(error) => {
            let is_text = std::str::from_utf8(text).is_ok();
            let place = if is_text { "fuzz.yaml: document " } else { "fuzz.yaml: " };
            assert!(error.starts_with(place), "{error}");
        }
        // Whatever was taken can be written and is the same again.
        Ok(wanted) => {
            for Wanted { kind, path, attributes, .. } in wanted {
                if let Ok(text) = attribute_document(kind.name(), &path, &attributes) {
                    let again =
                        parse(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"));
                    let again: Vec<_> =
                        again.iter().map(|again| (&again.path, &again.attributes)).collect();
                    assert_eq!(again, [(&path, &attributes)], "{text}");
                }
            }
        }
    }
}

/// A change of some bytes of a text.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let length = FILE.len();
    let piece = prop_oneof![
        any::<u8>().prop_map(|byte| vec![byte]),
        "[-:{}\\[\\]&*!|>'\"%@` \t\n#,?~0-9a-z]{0,4}".prop_map(String::into_bytes),
        prop::sample::select(vec![
            "---\n",
            "<<: *it\n",
            "kind: ",
            "!!binary ",
            "\u{feff}",
            "project: ",
            ".nan",
            "0x1F"
        ])
        .prop_map(|piece| piece.as_bytes().to_vec()),
    ];
    vec((0..length, 0..12_usize, piece), 1..4).prop_map(|changes| {
        let mut text = FILE.as_bytes().to_vec();
        for (at, removed, piece) in changes {
            let at = at.min(text.len());
            let end = (at + removed).min(text.len());
            text.splice(at..end, piece);
        }
        text
    })
}

/// Values as JSON has them, with the texts that YAML might take for something else.
fn json() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        any::<String>(),
        "[-:{}\\[\\]&*!|>'\"%@` \t\n#,?~.0-9a-fonxyet]{0,8}",
        prop::sample::select(vec![
            "on",
            "off",
            "y",
            "no",
            "null",
            "~",
            "1",
            "1e3",
            "0x1F",
            "0o7",
            "1_000",
            "012",
            "12:30:45",
            ".nan",
            "-.inf",
            "true",
            "",
            " ",
            "- a",
            "a: b",
            "# a",
            "a #b",
            "a\nb",
            "a\n",
            "\n",
            "\ta",
            "2001-01-01",
            "=",
            "<<",
            "---",
            "...",
            "\u{feff}",
            "\u{85}",
            "\u{2028}",
            "'",
            "\"",
            "a\r\nb",
            "!tag",
            "&a",
            "*a",
            "%a",
            "@a",
            "`a",
            "|",
            ">",
        ])
        .prop_map(str::to_owned),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_filter_map("JSON has none", |number| {
            serde_json::Number::from_f64(number).map(Value::Number)
        }),
        text.prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            btree_map(any::<String>(), inner, 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_an_error_or_values(text in any::<String>()) {
        check(text.as_bytes());
    }

    #[test]
    fn any_bytes_are_an_error_or_values(text in vec(any::<u8>(), 0..64)) {
        check(&text);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_mutated_file_is_an_error_or_values(text in mutated()) {
        check(&text);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_as_it_was(
        fields in btree_map("[a-z.]{1,6}", json(), 0..4),
        workflow in "[ -~é]{1,8}",
    ) {
        let fields = fields.into_iter().filter(|(name, _)| name != "kind" && name != "domain");
        let attributes = Value::Object(fields.collect());
        let kind = Kind::unchecked(KindName::new("ANY").expect("it is a name"));
        let path = AttributePath::workflow("p", "on", &workflow).expect("it is a path");
        let text = attribute_document(kind.name(), &path, &attributes).expect("it can be written");
        let read = parse(text.as_bytes());
        let read = read.unwrap_or_else(|error| panic!("{text}\n{error}"));
        prop_assert_eq!(read.len(), 1, "{}", text);
        prop_assert_eq!(&read[0].attributes, &attributes, "{}", text);
        prop_assert_eq!(&read[0].path, &path);
    }
}

#[test]
fn the_file_that_is_mutated_is_valid() {
    let wanted = parse(FILE.as_bytes()).expect("it is valid");
    let of = |wanted: &Wanted| format!("{} {}", wanted.kind.name(), wanted.path);
    assert_eq!(
        wanted.iter().map(of).collect::<Vec<_>>(),
        [
            "PLUGIN_OVERRIDE billing:production",
            "TASK_RESOURCE billing:production:app.reports%3Anightly:late",
            "CLUSTER_RESOURCE :production"
        ]
    );
}
