//! What Kubernetes accepts as labels and annotations, and a container as environment variables.

use super::super::kind::InvalidField;

const MAX_NAME: usize = 63;
const MAX_PREFIX: usize = 253;

const KEY: &str = "must be a Kubernetes key: [prefix/]name, the prefix a DNS name of at most 253 characters, the name 1 to \
                   63 letters, digits, '-', '_' and '.', a letter or digit first and last";
const VALUE: &str = "must be the value of a Kubernetes label: at most 63 letters, digits, '-', '_' and '.', a letter or digit \
                     first and last";
const VARIABLE: &str = "must be printable ASCII without '='";

/// Checks the key of a label.
pub(super) fn check_label_key(field: &str, key: &str) -> Result<(), InvalidField> {
    InvalidField::unless(is_key(key), field, key, KEY)
}

/// Checks the key of an annotation, whose prefix may have capitals.
pub(super) fn check_annotation_key(field: &str, key: &str) -> Result<(), InvalidField> {
    InvalidField::unless(is_key(&key.to_ascii_lowercase()), field, key, KEY)
}

/// Checks the value of a label; it may be empty.
pub(super) fn check_label_value(field: &str, value: &str) -> Result<(), InvalidField> {
    InvalidField::unless(value.is_empty() || is_name(value), field, value, VALUE)
}

/// Checks the name of an environment variable.
pub(super) fn check_variable(field: &str, name: &str) -> Result<(), InvalidField> {
    let allowed = |c: char| matches!(c, ' '..='~') && c != '=';
    InvalidField::unless(
        !name.trim().is_empty() && name.chars().all(allowed),
        field,
        name,
        VARIABLE,
    )
}

fn is_key(key: &str) -> bool {
    match key.split_once('/') {
        Some((prefix, name)) => is_dns_name(prefix) && is_name(name),
        None => is_name(key),
    }
}

fn is_name(text: &str) -> bool {
    let inside = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    text.len() <= MAX_NAME && is_enclosed(text, |b| b.is_ascii_alphanumeric(), inside)
}

fn is_dns_name(text: &str) -> bool {
    let outside = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    text.len() <= MAX_PREFIX
        && text.split('.').all(|label| is_enclosed(label, outside, |b| outside(b) || b == b'-'))
}

/// Whether it has a character, the first and last are of the one sort and those between of the other.
fn is_enclosed(text: &str, outside: impl Fn(u8) -> bool, inside: impl Fn(u8) -> bool) -> bool {
    match text.as_bytes() {
        [] => false,
        [only] => outside(*only),
        [first, between @ .., last] => {
            outside(*first) && outside(*last) && between.iter().all(|b| inside(*b))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_labels() {
        let long = |name: usize, prefix: usize| ["a".repeat(prefix), "a".repeat(name)].join("/");
        let good = ["a", "9", "team", "A.b-c_D", "example.com/team", "x-1.y/Z", &long(63, 253)];
        let bad = [
            "",
            "/",
            "a/",
            "/a",
            "a/b/c",
            "-a",
            "a-",
            ".a",
            "a b",
            "é",
            "a=b",
            "Example.com/a",
            "example..com/a",
            "-x.y/a",
            "a_b/c",
            &long(64, 1),
            &long(1, 254),
        ];
        for key in good {
            assert!(check_label_key("k", key).is_ok(), "{key:?}");
        }
        for key in bad {
            assert!(check_label_key("k", key).is_err(), "{key:?}");
        }
        assert!(check_annotation_key("k", "Example.com/a").is_ok());
        assert!(check_annotation_key("k", "a b").is_err());
    }

    #[test]
    fn values_of_labels() {
        for value in ["", "a", "v1.2-x_Y", &"a".repeat(63)] {
            assert!(check_label_value("v", value).is_ok(), "{value:?}");
        }
        for value in ["-a", "a.", "a b", "a/b", "é", &"a".repeat(64)] {
            assert!(check_label_value("v", value).is_err(), "{value:?}");
        }
    }

    #[test]
    fn names_of_environment_variables() {
        for name in ["MODE", "_x", "a.b-c", "1", "A B"] {
            assert!(check_variable("n", name).is_ok(), "{name:?}");
        }
        for name in ["", " ", "A=B", "A\0", "A\n", "é"] {
            assert!(check_variable("n", name).is_err(), "{name:?}");
        }
    }
}
