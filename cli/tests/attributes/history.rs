//! Versions: their history, bringing one back, and changes that overtake each other.

use std::io::{Read, Write};
use std::process::{Child, Stdio};

use serde_json::json;

use super::Attributes;
use crate::program::{start, wait};

const UPDATE: &str = "update execution-cluster-label --attrFile";

fn with_versions() -> Attributes {
    let attributes = Attributes::start();
    for value in ["a", "b"] {
        attributes.write("f.yaml", format!("project: p\nvalue: {value}\n"));
        attributes.tokenpool(&format!("{UPDATE} f.yaml --force")).exits_with(0);
    }
    attributes
}

fn value(attributes: &Attributes) -> serde_json::Value {
    let found =
        attributes.tokenpool("get execution-cluster-label -p p -o json").exits_with(0).json();
    found["attributes"]["value"].clone()
}

#[test]
fn versions_are_listed_and_brought_back() {
    let attributes = with_versions();
    attributes.tokenpool("delete execution-cluster-label -p p --force").exits_with(0);
    let history = "get execution-cluster-label -p p --history";
    let listed = attributes.tokenpool(&format!("{history} -o json")).exits_with(0).json();
    let row = |place: usize, version: u64, value: Option<&str>| {
        json!({
            "version": version, "at": listed[place]["at"], "by": "ada@bridge", "deleted": value.is_none(),
            "attributes": value.map(|value| json!({"value": value})), "problem": null,
        })
    };
    assert_eq!(listed, json!([row(0, 3, None), row(1, 2, Some("b")), row(2, 1, Some("a"))]));
    let text = attributes.tokenpool(history).exits_with(0).stdout;
    assert!(text.lines().nth(1).unwrap().ends_with("  ada@bridge  (deleted)"), "{text}");

    let restore = "update execution-cluster-label -p p --restore";
    let run = attributes.tokenpool(&format!("{restore} 1")).exits_with(3);
    assert!(run.stdout.contains("+value: a\n"), "{run:?}");
    let run = attributes.tokenpool(&format!("{restore} 1 --force -o json")).exits_with(0);
    assert_eq!(run.json()["changes"][0]["version"], 4);
    assert_eq!(value(&attributes), "a");
    attributes.tokenpool(&format!("{restore} 4")).exits_with(0);
    for version in [3, 9] {
        attributes.tokenpool(&format!("{restore} {version}")).fails_with(
            2,
            &format!(
                "--restore: invalid version \"{version}\": must be one of those kept: 4, 2, 1"
            ),
        );
    }
    attributes
        .tokenpool("update execution-cluster-label --restore 1")
        .fails_with(2, "--restore: needs a place, as --project P");
}

/// Starts the program and waits until it asks.
fn asking(attributes: &Attributes, arguments: &str) -> (Child, String) {
    let mut child = start(attributes.command(arguments).stdin(Stdio::piped()));
    let (mut said, mut byte) = (Vec::new(), [0]);
    while !said.ends_with(b"[y/n]: ") {
        child.stderr.as_mut().unwrap().read_exact(&mut byte).unwrap();
        said.push(byte[0]);
    }
    (child, String::from_utf8(said).unwrap())
}

fn say_yes(mut child: Child) -> crate::program::Run {
    child.stdin.take().unwrap().write_all(b"y\n").unwrap();
    wait(child)
}

#[test]
fn what_somebody_else_changes_while_the_question_waits_is_not_overwritten() {
    let attributes = with_versions();
    attributes.write("mine.yaml", "project: p\nvalue: mine\n");
    attributes.write("theirs.yaml", "project: p\nvalue: theirs\n");
    for (command, expected) in [
        (format!("{UPDATE} mine.yaml"), "has version 3, not 2"),
        ("update execution-cluster-label -p p --restore 1".to_owned(), "has version 5, not 4"),
        ("delete execution-cluster-label -p p".to_owned(), "has version 7, not 6"),
        ("apply -f mine.yaml".to_owned(), "has version 9, not 8"),
    ] {
        let (child, _) = asking(&attributes, &command);
        attributes.tokenpool(&format!("{UPDATE} theirs.yaml --force")).exits_with(0);
        let run = say_yes(child).exits_with(3);
        assert_eq!(run.stderr, format!("error: EXECUTION_CLUSTER_LABEL of p {expected}\n"));
        assert!(!run.stdout.contains("Updated") && !run.stdout.contains("Deleted"), "{run:?}");
        assert_eq!(value(&attributes), "theirs");
        attributes.write("f.yaml", "project: p\nvalue: b\n");
        attributes.tokenpool(&format!("{UPDATE} f.yaml --force")).exits_with(0);
    }
}

#[test]
fn what_somebody_else_sets_or_deletes_while_the_question_waits_is_not_undone() {
    let attributes = Attributes::start();
    attributes.write("mine.yaml", "project: p\nvalue: mine\n");
    attributes.write("theirs.yaml", "project: p\nvalue: theirs\n");
    let (child, _) = asking(&attributes, &format!("{UPDATE} mine.yaml"));
    attributes.tokenpool(&format!("{UPDATE} theirs.yaml --force")).exits_with(0);
    let run = say_yes(child).exits_with(3);
    assert!(run.stderr.ends_with("has version 1, and was expected not to be set\n"), "{run:?}");

    let (child, _) = asking(&attributes, &format!("{UPDATE} mine.yaml"));
    attributes.tokenpool("delete execution-cluster-label -p p --force").exits_with(0);
    let run = say_yes(child).exits_with(3);
    assert!(run.stderr.ends_with("EXECUTION_CLUSTER_LABEL of p is not set, not 1\n"), "{run:?}");
    assert_eq!(attributes.stored("EXECUTION_CLUSTER_LABEL", "p"), None);
}

#[test]
fn what_somebody_else_mends_while_the_question_waits_is_not_overwritten() {
    for command in [&format!("{UPDATE} mine.yaml"), "delete execution-cluster-label -p p"] {
        let attributes = with_versions();
        attributes.write("mine.yaml", "project: p\nvalue: mine\n");
        attributes.write("theirs.yaml", "project: p\nvalue: theirs\n");
        let damage = "HSET tokenpool:attributes:EXECUTION_CLUSTER_LABEL p garbage";
        attributes.server.ask::<u64>(damage);
        let (child, _) = asking(&attributes, command);
        attributes.tokenpool(&format!("{UPDATE} theirs.yaml --force")).exits_with(0);
        let run = say_yes(child).exits_with(3);
        assert!(run.stderr.contains("EXECUTION_CLUSTER_LABEL of p has version 3"), "{run:?}");
        assert_eq!(value(&attributes), "theirs");
        // What stays damaged is replaced, or deleted.
        attributes.server.ask::<u64>(damage);
        say_yes(asking(&attributes, command).0).exits_with(0);
    }
}

/// Of several changes those before the stale one are made, and told.
#[test]
fn a_change_that_was_overtaken_half_way_says_what_was_made() {
    for json in [false, true] {
        let attributes = with_versions();
        attributes.write(
            "mine.yaml",
            "project: o\nvalue: m\n---\nproject: p\nvalue: m\n---\nproject: q\nvalue: m\n",
        );
        attributes.write("theirs.yaml", "project: p\nvalue: theirs\n");
        let options = if json { "-o json" } else { "" };
        let (child, shown) = asking(&attributes, &format!("{UPDATE} mine.yaml {options}"));
        assert_eq!(shown.contains("-value: b\n+value: m\n"), json);
        attributes.tokenpool(&format!("{UPDATE} theirs.yaml --force")).exits_with(0);
        let run = say_yes(child).exits_with(3);
        assert_eq!(
            run.stderr,
            "error: after 1 of 3 changes: EXECUTION_CLUSTER_LABEL of p has version 3, not 2\n"
        );
        if json {
            let answer = run.json();
            let applied = [0, 1, 2].map(|place: usize| &answer["changes"][place]["applied"]);
            assert_eq!(applied, [&json!(true), &json!(false), &json!(false)]);
            assert_eq!(answer["applied"], false);
        } else {
            assert!(run.stdout.ends_with("Updated attributes from o project\n"), "{run:?}");
        }
        assert_eq!(value(&attributes), "theirs");
    }
}
