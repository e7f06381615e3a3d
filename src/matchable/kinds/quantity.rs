//! Quantities of Kubernetes: how much CPU, memory or storage.
//!
//! The grammar is `resource.Quantity`'s: a decimal number, then nothing, a power of 1024 (`Ki` to `Ei`), a power of 1000
//! (`n`, `u`, `m`, `k` to `E`), or an exponent (`e3`, `E-3`).

use std::fmt;

use serde::de::{Deserializer, Error, Visitor};

use super::super::kind::InvalidField;

const RULE: &str = "must be a Kubernetes quantity that is not negative, like 2, 500m, 1.5Gi or 1e3";

const SUFFIXES: [&str; 16] =
    ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

/// Most digits of an exponent: far more than 64 bits can hold, far less than what exhausts whoever computes the number.
const MAX_EXPONENT_DIGITS: usize = 2;

/// Checks a quantity; an empty text sets none.
pub(super) fn check(field: &str, text: &str) -> Result<(), InvalidField> {
    InvalidField::unless(text.is_empty() || is_quantity(text), field, text, RULE)
}

fn is_quantity(text: &str) -> bool {
    let text = text.strip_prefix('+').unwrap_or(text);
    let end = text.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    is_number(number) && (SUFFIXES.contains(&suffix) || is_exponent(suffix))
}

/// Digits with at most one point, which may stand at either end.
fn is_number(text: &str) -> bool {
    text.matches('.').count() <= 1 && text.contains(|c: char| c.is_ascii_digit())
}

fn is_exponent(text: &str) -> bool {
    let Some(number) = text.strip_prefix(['e', 'E']) else { return false };
    let digits = number.strip_prefix(['+', '-']).unwrap_or(number);
    (1..=MAX_EXPONENT_DIGITS).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit())
}

/// Reads a quantity, which Kubernetes lets be a bare number, too.
pub(super) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    deserializer.deserialize_any(TextOrNumber)
}

struct TextOrNumber;

impl Visitor<'_> for TextOrNumber {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a quantity")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<String, E> {
        Ok(number.to_string())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<String, E> {
        Ok(number.to_string())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<String, E> {
        Ok(number.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_is_kubernetes() {
        let good = [
            "0", "2", "+2", "007", "1.5", "1.", ".5", "100n", "100u", "100m", "1k", "1M", "1G",
            "1T", "1P", "1E", "1Ki", "1Mi", "1.5Gi", "1Ti", "1Pi", "1Ei", "1e3", "1E3", "1e+3",
            "1E-3", "2000Gi",
        ];
        let bad = [
            "", " ", "-1", "-0", "+-1", "++1", ".", "1..2", "1.2.3", "m", "Gi", "e3", "1K", "1g",
            "1gi", "1mi", "1KiB", "1GB", "1 Gi", " 1", "1 ", "1e", "1e+", "1e1.5", "1e-", "1e100",
            "1e3Ki", "1,5", "1x", "0x10", "inf", "NaN", "１", "1µ", "1m\n",
        ];
        for text in good {
            assert!(is_quantity(text), "{text:?}");
        }
        for text in bad {
            assert!(!is_quantity(text), "{text:?}");
        }
    }

    #[test]
    fn the_error_names_the_field_the_value_and_the_rule() {
        let error = check("limits.cpu", "two").err().map(|error| error.to_string());
        assert_eq!(error, Some(format!("limits.cpu \"two\": {RULE}")));
        assert_eq!(check("limits.cpu", ""), Ok(()));
    }
}
