//! What the scripts answer and Redis keeps, decoded in one place. An unknown reply is a protocol error.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::time::{Duration, UNIX_EPOCH};

use redis::Value;

use super::keys::pool_of_key;
use crate::amount::Units;
use crate::matchable::{Damaged, Record, Stored};
use crate::name::Member;
use crate::outcome::{FencingNumber, Released};
use crate::pool::GrantRecord;
use crate::ticket::{Notice, TicketRecord};

/// An answer: words separated by single spaces, of which the first names the case.
///
/// `lua/README.md` says what each means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Granted {
        fence: u64,
    },
    Held {
        fence: u64,
    },
    Conflict {
        units: u64,
        execution: String,
    },
    Full(Full),
    Waiting {
        position: u64,
        issued: u64,
        retry_after: Option<Duration>,
        full: Full,
    },
    Never {
        limit: What,
        size: u64,
    },
    Queued,
    Foreign,
    /// More is due than one call does.
    More,
    Released(Released),
    /// The script needs all keys of the pool.
    Keys,
    /// Each operation has to be called by itself, and so for a while.
    Apart,
    Unregistered,
    Newer {
        schema: String,
    },
    Repaired,
    Changed,
    /// Another version is found than the expected one, or none.
    Stale {
        found: Option<u64>,
    },
}

/// What a limit limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Pool,
    Project,
    Domain,
    /// Nothing is used up, but tickets stand before the claim.
    Queue,
    /// Nor is it, but the pool learns for so many milliseconds more.
    Learning(u64),
}

/// A limit that is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full {
    pub(super) limit: What,
    pub(super) in_use: u64,
    pub(super) size: u64,
}

impl Full {
    fn parse(text: &str) -> Option<Self> {
        let (limit, rest) = text.split_once(' ')?;
        let mut numbers = rest.split(' ');
        let mut number = || numbers.next()?.parse::<i64>().ok();
        let limit = match limit {
            "learning" => What::Learning(u64::try_from(number()?).ok()?),
            word => What::parse(word)?,
        };
        let (first, second) = (number()?, number()?);
        let (in_use, size) = match limit {
            What::Pool | What::Queue | What::Learning(_) => {
                let (issued, issue_limit, quota) = (first, second, number()?);
                (quota - (issue_limit - issued), quota)
            }
            What::Project | What::Domain => (first, second),
        };
        let positive = |units: i64| u64::try_from(units).unwrap_or_default();
        Some(Self { limit, in_use: positive(in_use), size: positive(size) })
    }
}

impl What {
    fn parse(word: &str) -> Option<Self> {
        match word {
            "pool" => Some(Self::Pool),
            "project" => Some(Self::Project),
            "domain" => Some(Self::Domain),
            "queue" => Some(Self::Queue),
            _ => None,
        }
    }
}

impl Answer {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (case, rest) = text.split_once(' ').unwrap_or((text, ""));
        let number = || rest.parse().ok();
        match case {
            "granted" => Some(Self::Granted { fence: number()? }),
            "held" => Some(Self::Held { fence: number()? }),
            "conflict" => {
                let (units, execution) = rest.split_once(' ')?;
                Some(Self::Conflict { units: units.parse().ok()?, execution: execution.to_owned() })
            }
            "pool" | "project" | "domain" | "queue" | "learning" => {
                Full::parse(text).map(Self::Full)
            }
            "waiting" => {
                let (position, rest) = rest.split_once(' ')?;
                let (issued, rest) = rest.split_once(' ')?;
                let (wait, full) = rest.split_once(' ')?;
                let retry_after = match wait {
                    "-" => None,
                    millis => Some(Duration::from_millis(millis.parse().ok()?)),
                };
                let full = Full::parse(full)?;
                let (position, issued) = (position.parse().ok()?, issued.parse().ok()?);
                Some(Self::Waiting { position, issued, retry_after, full })
            }
            "never" => {
                let (limit, size) = rest.split_once(' ')?;
                Some(Self::Never { limit: What::parse(limit)?, size: size.parse().ok()? })
            }
            "queued" => Some(Self::Queued),
            "foreign" => Some(Self::Foreign),
            "more" => Some(Self::More),
            "withdrawn" => Some(Self::Released(Released::Withdrawn)),
            "released" => Some(Self::Released(Released::Units(number()?))),
            "unheld" => Some(Self::Released(Released::NotHeld)),
            "keys" => Some(Self::Keys),
            "apart" => Some(Self::Apart),
            "unregistered" => Some(Self::Unregistered),
            "newer" => Some(Self::Newer { schema: rest.to_owned() }),
            "repaired" => Some(Self::Repaired),
            "changed" => Some(Self::Changed),
            "stale" => match rest {
                "-" => Some(Self::Stale { found: None }),
                version => Some(Self::Stale { found: Some(version.parse().ok()?) }),
            },
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

    /// The next element as it is: what anybody may have written.
    pub(super) fn bytes(&mut self) -> Option<Vec<u8>> {
        match self.0.pop_front()? {
            Value::BulkString(bytes) => Some(bytes),
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

    /// The rest as it is.
    pub(super) fn values(self) -> Vec<Value> {
        self.0.into()
    }

    /// The rest as texts.
    pub(super) fn texts(mut self) -> Option<Vec<String>> {
        std::iter::from_fn(|| (!self.0.is_empty()).then(|| self.text())).collect()
    }
}

/// How a reply that nobody understands begins, for an error: whoever sent it may have sent megabytes.
pub(super) fn beginning(reply: impl fmt::Debug) -> String {
    let mut beginning = Beginning(String::new());
    match write!(beginning, "{reply:?}") {
        Ok(()) => beginning.0,
        Err(fmt::Error) => beginning.0 + "...",
    }
}

/// What is written, until it is too long.
struct Beginning(String);

impl Beginning {
    const LONGEST: usize = 200;
}

impl fmt::Write for Beginning {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|next| self.write_char(next))
    }

    fn write_char(&mut self, next: char) -> fmt::Result {
        if self.0.len() >= Self::LONGEST {
            return Err(fmt::Error);
        }
        self.0.push(next);
        Ok(())
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

/// Reads `<units> <rank> <project cap or -> <domain cap or -> <since, in seconds> <channel or -> <holder> <execution>`.
pub(super) fn parse_ticket(
    member: Member,
    record: &str,
    time_left: Duration,
) -> Option<TicketRecord> {
    let mut words = record.splitn(8, ' ');
    let units = Units::new(words.next()?.parse().ok()?).ok()?;
    let _rank = words.next()?;
    let mut cap = || match words.next()? {
        "-" => Some(None),
        units => units.parse().ok().map(Some),
    };
    let (project_cap, domain_cap) = (cap()?, cap()?);
    let since = UNIX_EPOCH.checked_add(Duration::from_secs(words.next()?.parse().ok()?))?;
    let _channel = words.next()?;
    let holder = words.next()?.to_owned();
    let execution = words.next()?.to_owned();
    let record = TicketRecord {
        member,
        units,
        since,
        time_left,
        project_cap,
        domain_cap,
        holder,
        execution,
    };
    Some(record)
}

/// How much of a damaged record is shown.
const SHOWN: usize = 60;

/// Longest version, in digits, that scripts count without an error.
const VERSION_DIGITS: usize = 15;

/// Reads a record of attributes: `<version> <milliseconds> <who> <value>`.
pub(super) fn parse_attributes(bytes: &[u8]) -> Stored {
    str::from_utf8(bytes).ok().and_then(read_attributes).ok_or_else(|| {
        Damaged::new(String::from_utf8_lossy(bytes).chars().take(SHOWN).collect::<String>())
    })
}

fn read_attributes(text: &str) -> Option<Record> {
    let mut words = text.splitn(4, ' ');
    let version = words.next().filter(|word| {
        word.len() <= VERSION_DIGITS && !word.starts_with('0') && !word.starts_with('+')
    })?;
    let version = version.parse().ok()?;
    let at = UNIX_EPOCH.checked_add(Duration::from_millis(words.next()?.parse().ok()?))?;
    let by = words.next()?.to_owned();
    let value = Some(words.next()?.to_owned()).filter(|value| !value.is_empty());
    Some(Record { version, at, by, value })
}

/// Reads a notice: `granted <fencing number> <pool key> <member>` or `gone <pool key> <member>`.
pub(super) fn parse_notice(text: &str) -> Option<Notice> {
    let (case, rest) = text.split_once(' ')?;
    let target = |text: &str| {
        let (key, member) = text.split_once(' ')?;
        Some((pool_of_key(key)?, Member::found(member.to_owned())))
    };
    match case {
        "granted" => {
            let (number, rest) = rest.split_once(' ')?;
            let (pool, member) = target(rest)?;
            let fencing_number = FencingNumber::new(number.parse().ok()?);
            Some(Notice::Granted { pool, member, fencing_number })
        }
        "gone" => {
            let (pool, member) = target(rest)?;
            Some(Notice::Gone { pool, member })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_show_the_beginning_of_what_came() {
        assert_eq!(beginning(Value::Int(7)), "int(7)");
        let long = beginning(Value::BulkString("é".repeat(1 << 20).into_bytes()));
        assert!(long.contains("éé") && long.ends_with("é...") && long.len() < 210, "{long}");
    }

    #[test]
    fn answers_are_read_word_by_word() {
        let cases = [
            ("granted 7", Some(Answer::Granted { fence: 7 })),
            ("held 1763756000123456", Some(Answer::Held { fence: 1_763_756_000_123_456 })),
            (
                "pool 1003 1004 4",
                Some(Answer::Full(Full { limit: What::Pool, in_use: 3, size: 4 })),
            ),
            (
                "waiting 2 1003 - project 3 3",
                Some(Answer::Waiting {
                    position: 2,
                    issued: 1003,
                    retry_after: None,
                    full: Full { limit: What::Project, in_use: 3, size: 3 },
                }),
            ),
            (
                "learning 12000 1003 1004 4",
                Some(Answer::Full(Full { limit: What::Learning(12_000), in_use: 3, size: 4 })),
            ),
            ("learning 1003 1004 4", None),
            ("never domain 1", Some(Answer::Never { limit: What::Domain, size: 1 })),
            (
                "conflict 2 an execution",
                Some(Answer::Conflict { units: 2, execution: "an execution".to_owned() }),
            ),
            ("conflict 2 ", Some(Answer::Conflict { units: 2, execution: String::new() })),
            ("newer 9", Some(Answer::Newer { schema: "9".to_owned() })),
            ("unheld", Some(Answer::Released(Released::NotHeld))),
            ("granted", None),
            ("granted x", None),
            ("pool 3 4", None),
            ("waiting 1 1003 5", None),
            ("something else", None),
            ("", None),
        ];
        for (text, answer) in cases {
            assert_eq!(Answer::parse(text), answer, "{text:?}");
        }
    }

    #[test]
    fn what_is_no_record_is_damaged_and_shown_in_part() {
        let good = parse_attributes(b"3 1763756000123 host/1 {\"a b\":1}").expect("it is a record");
        assert_eq!((good.version, &*good.by), (3, "host/1"));
        assert_eq!(good.value.as_deref(), Some("{\"a b\":1}"));
        assert_eq!(good.at, UNIX_EPOCH + Duration::from_millis(1_763_756_000_123));
        let deleted = parse_attributes(b"4 1763756000123 host/1 ").expect("it is a record");
        assert_eq!(deleted.value, None);
        for text in [
            "",
            "3",
            "3 4",
            "3 4 x",
            "x 4 x {}",
            "3 x x {}",
            "-3 4 x {}",
            "3 99999999999999999999 x {}",
        ] {
            assert_eq!(parse_attributes(text.as_bytes()), Err(Damaged::new(text)), "{text:?}");
        }
        let long = "é".repeat(100);
        assert_eq!(parse_attributes(long.as_bytes()), Err(Damaged::new("é".repeat(60))));
    }
}
