//! A budget of time in JSON: written as Protocol Buffers do, `300s`, and read in three forms.

use std::fmt;
use std::time::Duration;

use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde::ser::Serializer;

use super::super::kind::InvalidField;

/// The longest `google.protobuf.Duration`, in seconds: about 10 000 years.
const MAX_SECONDS: u64 = 315_576_000_000;

const NANOS: u32 = 1_000_000_000;

/// Checks a budget that has to be set.
pub(super) fn check(field: &str, budget: Option<Duration>) -> Result<(), InvalidField> {
    let Some(budget) = budget else { return Err(InvalidField::new(field, "", "must be set")) };
    let rule = format!("must not be longer than {MAX_SECONDS}s");
    InvalidField::unless(budget <= Duration::from_secs(MAX_SECONDS), field, text(budget), rule)
}

pub(super) fn serialize<S: Serializer>(
    budget: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match budget {
        Some(budget) => serializer.serialize_str(&text(*budget)),
        None => serializer.serialize_none(),
    }
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    deserializer.deserialize_any(Budget).map(Some)
}

/// Whole seconds, or with 3, 6 or 9 digits, as Protocol Buffers write them.
fn text(budget: Duration) -> String {
    let (seconds, nanos) = (budget.as_secs(), budget.subsec_nanos());
    match nanos {
        0 => format!("{seconds}s"),
        _ if nanos % 1_000_000 == 0 => format!("{seconds}.{:03}s", nanos / 1_000_000),
        _ if nanos % 1_000 == 0 => format!("{seconds}.{:06}s", nanos / 1_000),
        _ => format!("{seconds}.{nanos:09}s"),
    }
}

/// What [`text`] writes.
fn seconds(text: &str) -> Option<Duration> {
    let number = text.strip_suffix('s')?;
    let (seconds, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let is_number = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if !is_number(seconds) || !is_number(fraction) || !(1..=9).contains(&fraction.len()) {
        return None;
    }
    Some(Duration::new(seconds.parse().ok()?, format!("{fraction:0<9}").parse().ok()?))
}

struct Budget;

impl<'de> Visitor<'de> for Budget {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration like 300s, 5m or {seconds: 300}")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
        if text.starts_with('-') {
            return Err(E::custom(format_args!("{text:?} must not be negative")));
        }
        match seconds(text) {
            Some(budget) => Ok(budget),
            None => humantime::parse_duration(text).map_err(|error| {
                E::custom(format_args!("{text:?} is not a duration like 300s or 5m: {error}"))
            }),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Duration, A::Error> {
        let (mut seconds, mut nanos) = (0_i64, 0_i64);
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "seconds" => seconds = map.next_value()?,
                "nanos" => nanos = map.next_value()?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    return Err(A::Error::unknown_field(&key, &["seconds", "nanos"]));
                }
            }
        }
        duration(seconds, nanos).ok_or_else(|| {
            A::Error::custom(format_args!(
                "{seconds} seconds and {nanos} nanos must not be negative, nor {NANOS} nanos or more"
            ))
        })
    }
}

/// A `google.protobuf.Duration`, unless it is negative or has too many nanoseconds.
pub(in super::super) fn duration(seconds: i64, nanos: i64) -> Option<Duration> {
    let nanos = u32::try_from(nanos).ok().filter(|nanos| *nanos < NANOS)?;
    Some(Duration::new(u64::try_from(seconds).ok()?, nanos))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::super::QualityOfServiceSpec;
    use super::*;

    fn read(budget: Value) -> Result<Option<Duration>, String> {
        serde_json::from_value::<QualityOfServiceSpec>(json!({ "queueing_budget": budget }))
            .map(|spec| spec.queueing_budget)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn three_forms_are_read_and_one_is_written() {
        let five_minutes = Some(Duration::from_secs(300));
        for form in [json!("5m"), json!("300s"), json!({"seconds": 300}), json!("4m 60s")] {
            assert_eq!(read(form), Ok(five_minutes));
        }
        assert_eq!(read(json!("1.5s")), Ok(Some(Duration::from_millis(1500))));
        assert_eq!(read(json!({"nanos": 5})), Ok(Some(Duration::from_nanos(5))));
        assert_eq!(read(json!({})), Ok(Some(Duration::ZERO)));
        let spec = QualityOfServiceSpec { queueing_budget: five_minutes };
        assert_eq!(serde_json::to_value(spec).ok(), Some(json!({"queueing_budget": "300s"})));
    }

    #[test]
    fn negative_and_malformed_budgets_are_refused() {
        let cases = [
            (json!("-5m"), "\"-5m\" must not be negative"),
            (json!("-300s"), "\"-300s\" must not be negative"),
            (json!({"seconds": -1}), "-1 seconds and 0 nanos must not be negative"),
            (json!({"seconds": 1, "nanos": -1}), "1 seconds and -1 nanos must not be negative"),
            (json!({"nanos": 1_000_000_000}), "nor 1000000000 nanos or more"),
            (json!({"minutes": 1}), "unknown field `minutes`"),
            (json!("soon"), "\"soon\" is not a duration like 300s or 5m"),
            (json!(300), "expected a duration like 300s, 5m or {seconds: 300}"),
            (json!("1.0000000001s"), "is not a duration"),
            (json!(".5.5s"), "is not a duration"),
        ];
        for (budget, text) in cases {
            let error = read(budget.clone()).err();
            assert!(error.as_ref().is_some_and(|e| e.contains(text)), "{budget}: {error:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            seconds: u64,
            nanos in prop_oneof![0..NANOS, (0..1_000_000_u32).prop_map(|micros| micros * 1_000), (0..1_000_u32).prop_map(|millis| millis * 1_000_000)],
        ) {
            let budget = Duration::new(seconds, nanos);
            prop_assert_eq!(read(json!(text(budget))), Ok(Some(budget)));
        }
    }
}
