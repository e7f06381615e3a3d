//! What Redis holds of attributes, to the byte, and what others may have left there.

use std::collections::BTreeMap;

use redis::Commands as _;
use tokenpool::matchable::{Expected, Filter, Unreadable};
use tokenpool::{Code, Error};

use super::{Fixture, WorkflowPriority, at, priority, redis, set};
use crate::support::everything;
use crate::wire::commands;

const RECORDS: &str = "tokenpool:attributes:WORKFLOW_PRIORITY";
const PATHS: &str = "{tokenpool:attributes:WORKFLOW_PRIORITY}:paths";
const HISTORY: &str = "{tokenpool:attributes:WORKFLOW_PRIORITY}:history";

/// What is there, with `<at>` for the time of a record.
fn there(f: &Fixture) -> Vec<(String, Vec<String>)> {
    let mut all = everything(&mut f.raw());
    for text in all.iter_mut().flat_map(|(_, texts)| texts) {
        let words = text.split(' ').map(|word| match word.parse() {
            Ok(1_600_000_000_000..=9_999_999_999_999_u64) => "<at>",
            _ => word,
        });
        *text = words.collect::<Vec<_>>().join(" ");
    }
    all
}

#[tokio::test]
async fn attributes_are_kept_as_the_schema_says() {
    let f = redis().await;
    let all = f.of::<WorkflowPriority>();
    set(&all, "p:d:a b%3A%25", 1).await;
    set(&all, "p:d:a b%3A%25", 2).await;
    set(&all, ":d", 3).await;
    let now: Vec<u64> = redis::cmd("TIME").query(&mut f.raw()).unwrap();
    let text: String = f.raw().hget(RECORDS, ":d").unwrap();
    let millis: u64 = text.split(' ').nth(1).unwrap().parse().unwrap();
    assert!(millis.abs_diff(now[0] * 1000) < 60_000, "{text}");
    let expected = [
        (
            "tokenpool:attributes:WORKFLOW_PRIORITY",
            vec![
                ":d = 1 <at> test {\"priority\":3}",
                "p:d:a b%3A%25 = 2 <at> test {\"priority\":2}",
            ],
        ),
        ("tokenpool:kinds", vec!["WORKFLOW_PRIORITY"]),
        (
            HISTORY,
            vec!["1 p:d:a b%3A%25 = 1 <at> test {\"priority\":1}", ":d = 1", "p:d:a b%3A%25 = 2"],
        ),
        (PATHS, vec![":d = 0", "p:d:a b%3A%25 = 0"]),
    ];
    let as_texts = |(key, texts): (&str, Vec<&str>)| {
        (key.to_owned(), texts.into_iter().map(str::to_owned).collect::<Vec<_>>())
    };
    assert_eq!(there(&f), expected.map(as_texts));

    all.delete(&at(":d"), Expected::Any).await.unwrap();
    all.delete(&at("p:d:a b%3A%25"), Expected::Version(2)).await.unwrap();
    let expected = [
        ("tokenpool:kinds", vec!["WORKFLOW_PRIORITY"]),
        (
            HISTORY,
            vec![
                "1 :d = 1 <at> test {\"priority\":3}",
                "1 p:d:a b%3A%25 = 1 <at> test {\"priority\":1}",
                "2 :d = 2 <at> test ",
                "2 p:d:a b%3A%25 = 2 <at> test {\"priority\":2}",
                "3 p:d:a b%3A%25 = 3 <at> test ",
                ":d = 2",
                "p:d:a b%3A%25 = 3",
            ],
        ),
    ];
    assert_eq!(there(&f), expected.map(as_texts));
}

#[tokio::test]
async fn a_look_up_is_one_command_and_a_write_costs_what_its_script_says() {
    let f = redis().await;
    let all = f.of::<WorkflowPriority>();
    set(&all, "p", 1).await;
    let mut raw = f.raw();
    redis::cmd("CONFIG").arg("RESETSTAT").exec(&mut raw).unwrap();
    for path in ["p", "p:d:w:l"] {
        assert_eq!(all.get_resource(&at(path)).await.unwrap().value, priority(1));
    }
    assert_eq!(commands(&mut raw), BTreeMap::from([("hmget".to_owned(), 2)]));

    redis::cmd("CONFIG").arg("RESETSTAT").exec(&mut raw).unwrap();
    set(&all, "p", 2).await;
    let mut calls = commands(&mut raw);
    // The list of kinds, on a connection that is checked out.
    for own in ["sadd", "ping"] {
        calls.remove(own);
    }
    assert_eq!(calls.remove("evalsha"), Some(1));
    let inside: u64 = calls.values().sum();
    let header = include_str!("../../lua/write_attributes.lua");
    let (_, cost) = header.split_once("-- Cost: ").unwrap();
    let most: u64 = cost.split(' ').next().unwrap().parse().unwrap();
    assert!(inside <= most, "{calls:?}");
}

#[tokio::test]
async fn what_cannot_be_read_is_named_and_hides_nothing_else() {
    let f = redis().await;
    let all = f.of::<WorkflowPriority>();
    for path in ["a", "b", "c", "d", "e"] {
        set(&all, path, 1).await;
    }
    let mut raw = f.raw();
    let mut put = |path: &str, text: &[u8]| {
        raw.hset::<_, _, _, ()>(RECORDS, path, text).unwrap();
        raw.zadd::<_, _, _, ()>(PATHS, path, 0).unwrap();
    };
    put("a", b"what is this");
    put("b", b"7 1763756000123 bob {\"priority\": ");
    put("c", b"8 1763756000123 bob {\"rank\":3}");
    put("d", b"\xff\xfe");
    put("p::w", b"1 1763756000123 bob {\"priority\":3}");
    let page = all.list(&Filter::ALL, None, 100).await.unwrap();
    let found: Vec<_> = page.found.iter().map(|found| found.path.as_str()).collect();
    assert_eq!(found, ["e"]);
    let told = page.unreadable.iter().map(|Unreadable { path, version, problem, .. }| {
        (path.as_str(), *version, problem.as_str())
    });
    let expected = [
        ("a", None, "\"what is this\" is not <version> <milliseconds> <who> <value>"),
        ("b", Some(7), "priority: EOF while parsing a value at line 1 column 13"),
        ("c", Some(8), "rank: unknown field `rank`, expected `priority` at line 1 column 7"),
        ("d", None, "\"\u{fffd}\u{fffd}\" is not <version> <milliseconds> <who> <value>"),
        ("p::w", Some(1), "invalid workflow \"w\": needs a domain"),
    ];
    assert_eq!(told.collect::<Vec<_>>(), expected);

    // It is an error where it would be the answer, and no other answer takes its place.
    set(&all, ":x", 9).await;
    for path in ["a", "a:x", "b:x:w", "d"] {
        let error = all.get_resource(&at(path)).await.unwrap_err();
        assert_eq!(error.code(), Code::Internal);
        assert!(matches!(error, Error::Unreadable { .. }), "{error}");
    }
    assert!(all.resolve(&at("a:x")).await.is_err());
    // Nobody can have expected it; whoever does not mind replaces it.
    let stale = all.update(&at("a"), priority(2), Expected::Version(1)).await.unwrap_err();
    assert!(matches!(stale, Error::Stale { found: Some(0), .. }), "{stale}");
    let stale = all.update(&at("a"), priority(2), Expected::Absent).await.unwrap_err();
    assert!(matches!(stale, Error::Stale { found: Some(0), .. }), "{stale}");
    assert_eq!(all.update(&at("a"), priority(2), Expected::Any).await.unwrap().version, 2);
    assert_eq!(all.get_exact(&at("a")).await.unwrap().value, priority(2));
    // What stood there had no version, and is not one now.
    let versions = all.history(&at("a")).await.unwrap();
    assert_eq!(versions.iter().map(|v| v.version).collect::<Vec<_>>(), [2]);
}

#[tokio::test]
async fn a_damaged_record_has_a_history_and_can_be_restored() {
    let f = redis().await;
    let all = f.of::<WorkflowPriority>();
    set(&all, "p", 1).await;
    set(&all, "p", 2).await;
    // No version: none, too long, with a zero before it; no text.
    for damage in [&b"garbage"[..], b"18446744073709551616 1 a {}", b"07 1 a {}", b"3 1 a \"\xff\""]
    {
        f.raw().hset::<_, _, _, ()>(RECORDS, "p", damage).unwrap();
        let versions = all.history(&at("p")).await.unwrap();
        assert_eq!(versions[0].version, 0);
        assert!(matches!(versions[0].value, Some(Err(_))), "{versions:?}");
        let error = all.get_resource(&at("p")).await.unwrap_err();
        assert_eq!(error.code(), Code::Internal, "{error}");
        all.restore(&at("p"), 1, Expected::Any).await.unwrap();
        assert_eq!(all.get_exact(&at("p")).await.unwrap().value, priority(1));
    }
    let error = all.delete(&at("p"), Expected::Version(0)).await.unwrap_err();
    assert_eq!(error.to_string(), "invalid version \"0\": must be at least 1");
}

#[tokio::test]
async fn paths_that_are_no_text_are_listed_once_each() {
    let f = redis().await;
    let all = f.of::<WorkflowPriority>();
    let texts = [&b"p"[..], b"\x80", "é".as_bytes(), b"\xf0", b"\xff\xfe"];
    for text in texts {
        f.raw().zadd::<_, _, _, ()>(PATHS, text, 0).unwrap();
        f.raw().hset::<_, _, _, ()>(RECORDS, text, "1 1 a {\"priority\":1}").unwrap();
    }
    for count in 1..7 {
        let (mut listed, mut next) = ([0, 0], None);
        for _ in 0..=texts.len() {
            let page = all.list(&Filter::ALL, next.as_ref(), count).await.unwrap();
            listed[0] += page.found.len();
            listed[1] += page.unreadable.len();
            next = page.next;
            if next.is_none() {
                break;
            }
        }
        assert_eq!((listed, next), ([2, 3], None), "{count} to a page");
    }
}

#[tokio::test]
async fn somebody_elses_data_under_a_key_is_named_and_left_alone() {
    for (key, expected) in [(RECORDS, "hash"), (PATHS, "zset"), (HISTORY, "hash")] {
        let f = redis().await;
        let all = f.of::<WorkflowPriority>();
        f.raw().set::<_, _, ()>(key, "mine").unwrap();
        let error = all.update(&at("p"), priority(1), Expected::Any).await.unwrap_err();
        let text = format!("key {key:?} holds a string where this library keeps a {expected}");
        assert_eq!(error.to_string(), text);
        let left = everything(&mut f.raw());
        let left: Vec<_> = left.iter().filter(|(left, _)| left != "tokenpool:kinds").collect();
        assert_eq!(left, [&(key.to_owned(), vec!["mine".to_owned()])]);
    }
    let f = redis().await;
    f.raw().set::<_, _, ()>("tokenpool:kinds", "mine").unwrap();
    let error = f.store.kinds().await.unwrap_err();
    let text = "key \"tokenpool:kinds\" holds a string where this library keeps a set";
    assert_eq!(error.to_string(), text);
    let error = f.of().update(&at("p"), priority(1), Expected::Any).await.unwrap_err();
    assert_eq!(error.to_string(), text);
}

#[tokio::test]
async fn a_server_without_memory_changes_no_attributes() {
    let f = redis().await;
    let all = f.of::<WorkflowPriority>();
    set(&all, "p:d", 1).await;
    let before = everything(&mut f.raw());
    redis::cmd("CONFIG").arg(&["SET", "maxmemory", "1"]).exec(&mut f.raw()).unwrap();
    for path in ["p:d", "p:new"] {
        let error = all.update(&at(path), priority(2), Expected::Any).await.unwrap_err();
        assert!(matches!(error, Error::Server { .. }), "{error:?}");
        assert_eq!(everything(&mut f.raw()), before, "{path}");
    }
    assert!(all.delete(&at("p:d"), Expected::Any).await.unwrap());
}

/// A server that throws keys away takes rules with them, and nobody is told: what was set reads as nothing.
#[tokio::test]
async fn attributes_that_were_lost_read_as_none_and_versions_go_on() {
    let f = redis().await;
    let all = f.of::<WorkflowPriority>();
    set(&all, "p:d", 1).await;
    set(&all, "p:d", 2).await;
    assert_eq!(f.raw().del::<_, u32>(RECORDS).unwrap(), 1);
    let error = all.get_exact(&at("p:d")).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound, "{error}");
    assert_eq!(set(&all, "p:d", 3).await, 3);
}
