//! A pool of a later schema: every script of both versions says so and leaves it as it is.

use std::path::Path;

use redis::Value;

use super::earlier::{assembled, present, scripts};
use crate::support::everything;
use crate::support::server::Server;

const POOL: &str = "redisresourcemanager:hive:default";
const MEMBER: &str = "ex:p:d:e-1";

/// What has no pool of a schema to look at: attributes, and records of grants that another script has just answered about.
const WITHOUT_SCHEMA: [&str; 4] =
    ["attribute_history", "confirm", "list_attributes", "write_attributes"];

const ALL: [&str; 9] =
    ["pool", "usage", "grants", "leases", "tickets", "queue", "lines", "turns", "shares"];

/// Names in the header of a script, of the keys or the arguments.
fn documented(head: &str, array: &str) -> Vec<String> {
    let lines = head.lines().filter_map(|line| line.strip_prefix(&format!("-- {array}[")));
    let names = lines.filter_map(|line| line.split_once("] ")?.1.split_once(": "));
    let names = names.flat_map(|(names, _)| match names {
        "the nine keys of allocate.lua" => ALL.to_vec(),
        names => names.split(", ").collect(),
    });
    names.map(str::to_owned).collect()
}

fn key(name: &str) -> String {
    match name {
        "pool" => POOL.to_owned(),
        other => format!("{{{POOL}}}:{other}"),
    }
}

/// An argument that lets the script go as far as it can.
fn argument(name: &str) -> &str {
    match name {
        "member" | "members" => MEMBER,
        "project" => "p:p",
        "domain" => "d:p:d",
        "execution" => "e",
        "change" => "pin",
        "new_order" => "fair",
        "mode" => "force",
        "project_cap" | "domain_cap" | "returning" | "number" | "channel" => "-",
        "epoch" | "releases" => "1",
        _ => "9",
    }
}

/// Something of everything that a pool can have, in a schema of which only that it is another is known.
fn fill(server: &mut redis::Connection) {
    let mut pipe = redis::pipe();
    pipe.sadd(POOL, MEMBER).hset(key("grants"), MEMBER, "1 5 1 h e");
    let fields = [("schema", "2"), ("quota", "1"), ("issued", "6"), ("epoch", "1"), ("due", "0")];
    pipe.hset_multiple(key("usage"), &fields);
    pipe.zadd(key("leases"), MEMBER, 1).hset(key("tickets"), "ex:p:d:e-2", "1 1 - - 1 - h e");
    for name in ["queue", "lines", "turns", "shares"] {
        pipe.zadd(key(name), "p", 1);
    }
    pipe.exec(server).unwrap();
}

fn refuses_a_newer_schema(folder: &Path) {
    let server = Server::start();
    let mut server = server.raw();
    fill(&mut server);
    let before = everything(&mut server);
    let mut scripts: Vec<_> = assembled(folder).into_iter().collect();
    scripts.sort();
    for (name, text) in scripts {
        if WITHOUT_SCHEMA.contains(&name.as_str()) {
            continue;
        }
        let (head, _) = text.split_once("\n\n").unwrap();
        let keys: Vec<_> = documented(head, "KEYS").iter().map(|name| key(name)).collect();
        assert!(keys.contains(&key("usage")), "{name}: {keys:?}");
        let arguments = documented(head, "ARGV");
        let mut call = redis::cmd("EVAL");
        call.arg(&text).arg(keys.len()).arg(&keys);
        for name in &arguments {
            call.arg(argument(name));
        }
        let answer: Value =
            call.query(&mut server).unwrap_or_else(|error| panic!("{name}: {error}"));
        let expected = Value::BulkString(b"newer 2".to_vec());
        match name.as_str() {
            // Names the pool that is meant.
            "allocate_all" => assert_eq!(answer, Value::Array(vec![Value::Int(1), expected])),
            _ => assert_eq!(answer, expected, "{name}"),
        }
        assert_eq!(everything(&mut server), before, "{name}");
    }
}

#[test]
fn every_script_refuses_a_newer_schema_and_changes_nothing() {
    refuses_a_newer_schema(&present());
}

#[test]
fn every_script_of_the_earlier_version_refuses_a_newer_schema_and_changes_nothing() {
    refuses_a_newer_schema(&scripts());
}
