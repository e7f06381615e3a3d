//! What the scripts answer and Redis keeps, decoded in one place. An unknown reply is a protocol error.

use std::collections::VecDeque;
use std::time::{Duration, UNIX_EPOCH};

use redis::Value;

use crate::claim::{FencingNumber, Released, Units};
use crate::pool::GrantRecord;

/// An answer: words separated by single spaces, of which the first names the case.
///
/// `lua/README.md` says what each means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Granted { fence: u64 },
    Held { fence: u64 },
    Conflict { units: u64, execution: String },
    Full(Full, u64, u64),
    Released(Released),
    Unregistered,
    Newer { schema: String },
    Repaired,
    Changed,
}

/// Which limit is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    Pool,
    Project,
    Domain,
}

impl Answer {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (case, rest) = text.split_once(' ').unwrap_or((text, ""));
        let number = || rest.parse().ok();
        let full = |limit| {
            let (in_use, size) = rest.split_once(' ')?;
            Some(Self::Full(limit, count(in_use)?, size.parse().ok()?))
        };
        match case {
            "granted" => Some(Self::Granted { fence: number()? }),
            "held" => Some(Self::Held { fence: number()? }),
            "conflict" => {
                let (units, execution) = rest.split_once(' ')?;
                Some(Self::Conflict { units: units.parse().ok()?, execution: execution.to_owned() })
            }
            "pool" => full(Full::Pool),
            "project" => full(Full::Project),
            "domain" => full(Full::Domain),
            "released" => Some(Self::Released(Released::Units(number()?))),
            "unheld" => Some(Self::Released(Released::NotHeld)),
            "unregistered" => Some(Self::Unregistered),
            "newer" => Some(Self::Newer { schema: rest.to_owned() }),
            "repaired" => Some(Self::Repaired),
            "changed" => Some(Self::Changed),
            _ => None,
        }
    }

    pub(super) fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::BulkString(bytes) => Self::parse(str::from_utf8(bytes).ok()?),
            _ => None,
        }
    }
}

/// An array reply, read from the front.
#[derive(Debug)]
pub(super) struct Fields(VecDeque<Value>);

impl Fields {
    pub(super) fn new(value: Value) -> Option<Self> {
        match value {
            Value::Array(values) => Some(Self(values.into())),
            _ => None,
        }
    }

    /// The next element as text; integers count as their digits.
    pub(super) fn text(&mut self) -> Option<String> {
        match self.0.pop_front()? {
            Value::BulkString(bytes) => String::from_utf8(bytes).ok(),
            Value::Int(number) => Some(number.to_string()),
            _ => None,
        }
    }

    pub(super) fn number(&mut self) -> Option<u64> {
        self.text()?.parse().ok()
    }

    /// A number where an empty text stands for none.
    pub(super) fn optional_number(&mut self) -> Option<Option<u64>> {
        match self.text()?.as_str() {
            "" => Some(None),
            text => text.parse().ok().map(Some),
        }
    }

    pub(super) fn array(&mut self) -> Option<Self> {
        Self::new(self.0.pop_front()?)
    }

    /// The rest as texts.
    pub(super) fn texts(mut self) -> Option<Vec<String>> {
        std::iter::from_fn(|| (!self.0.is_empty()).then(|| self.text())).collect()
    }
}

/// A count of units. One that somebody else's hand made negative shows as 0, and `check` says so.
pub(super) fn count(text: &str) -> Option<u64> {
    text.parse::<i64>().ok().map(|units| u64::try_from(units).unwrap_or_default())
}

/// Pairs of a flat list.
pub(super) fn pairs(texts: Vec<String>) -> Option<Vec<(String, String)>> {
    let mut texts = texts.into_iter();
    let mut pairs = Vec::with_capacity(texts.len() / 2);
    while let Some(first) = texts.next() {
        pairs.push((first, texts.next()?));
    }
    Some(pairs)
}

/// Reads `<units> <fencing number> <since, in seconds> <holder> <execution>`.
pub(super) fn parse_record(record: &str) -> Option<GrantRecord> {
    let mut words = record.splitn(5, ' ');
    let units = Units::new(words.next()?.parse().ok()?).ok()?;
    let fencing_number = FencingNumber::new(words.next()?.parse().ok()?);
    let since = UNIX_EPOCH.checked_add(Duration::from_secs(words.next()?.parse().ok()?))?;
    let holder = words.next()?.to_owned();
    let execution = Some(words.next()?.to_owned()).filter(|execution| !execution.is_empty());
    Some(GrantRecord { units, fencing_number, since, holder, execution })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_word_by_word() {
        let cases = [
            ("granted 7", Some(Answer::Granted { fence: 7 })),
            ("held 1763756000123456", Some(Answer::Held { fence: 1_763_756_000_123_456 })),
            ("pool 3 4", Some(Answer::Full(Full::Pool, 3, 4))),
            (
                "conflict 2 an execution",
                Some(Answer::Conflict { units: 2, execution: "an execution".to_owned() }),
            ),
            ("conflict 2 ", Some(Answer::Conflict { units: 2, execution: String::new() })),
            ("newer 9", Some(Answer::Newer { schema: "9".to_owned() })),
            ("unheld", Some(Answer::Released(Released::NotHeld))),
            ("granted", None),
            ("granted x", None),
            ("pool 3", None),
            ("something else", None),
            ("", None),
        ];
        for (text, answer) in cases {
            assert_eq!(Answer::parse(text), answer, "{text:?}");
        }
    }
}
