//! Why a token waits.

use std::sync::Arc;

use serde_json::{Value, json};
use tokenpool::matchable::{Attributes, Expected, PoolConstraints, ResourceConstraints};
use tokenpool::{Config, Holder, RedisBackend, ResourceConstraintsSpec};

use crate::program::{until, wait_in_line};
use crate::server::Server;

const OF: &str = "--project p --domain d --execution e";

fn claim(server: &Server, token: &str, options: &str) {
    server.tokenpool(&format!("allocate hive:default {token} {options}")).exits_with(0);
}

fn explain(server: &Server, token: &str) -> Value {
    server.tokenpool(&format!("explain hive:default {token} {OF} -o json")).exits_with(0).json()
}

fn values<'a>(rows: &'a Value, field: &str) -> Vec<&'a Value> {
    rows.as_array().unwrap().iter().map(|row| &row[field]).collect()
}

#[test]
fn a_waiting_token_is_told_the_limit_who_holds_and_who_is_ahead() {
    let server = Server::with_pool(3);
    claim(&server, "old", &format!("{OF} --lease 2h"));
    claim(&server, "young", "--project q --domain d --execution e --units 2 --lease 1h");
    wait_in_line(&server, 3, ResourceConstraintsSpec::NONE);
    let answer = explain(&server, "t2");
    assert_eq!((&answer["state"], &answer["ticket"]["position"]), (&json!("waiting"), &json!(3)));
    let limit = json!({"kind": "quota", "project": null, "domain": null, "in_use": 3, "size": 3});
    assert_eq!(answer["limit"], limit);
    let holders = &answer["oldest_holders"];
    assert_eq!(values(holders, "member"), ["ex:p:d:e-old", "ex:q:d:e-young"]);
    assert_eq!(answer["holders_under_limit"], 2);
    assert!(holders[0]["fencing_number"].as_u64() < holders[1]["fencing_number"].as_u64());
    assert_eq!(values(&answer["first_tickets"], "member"), ["ex:p:d:e-t0", "ex:p:d:e-t1"]);
    assert_eq!(answer["tickets_ahead"], 2);
    let soonest = answer["retry_after_ms"].as_u64().unwrap();
    assert!((3_000_000..=3_600_000).contains(&soonest), "{answer}");

    let text = server.tokenpool(&format!("explain hive:default t2 {OF}")).exits_with(0).stdout;
    let start = "ex:p:d:e-t2 waits for 1 unit(s) of hive:default at position 3 of 3\n\
                 stopped by the quota of the pool: 3 of 3 in use\n\
                 the first in its way ends by itself in 59m";
    assert!(text.starts_with(start), "{text}");
    for part in [
        "\n\nwho holds units under that limit, the oldest first:\nUNITS",
        "\n\nwho stands before it, by rank:\nPOSITION",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn a_cap_shows_the_holders_of_its_scope_alone() {
    let server = Server::with_pool(9);
    claim(&server, "mine", OF);
    claim(&server, "other-domain", "--project p --domain x --execution e");
    claim(&server, "other-project", "--project q --domain d --execution e");
    wait_in_line(&server, 1, ResourceConstraintsSpec::new(None, Some(1)).unwrap());
    let answer = explain(&server, "t0");
    let limit =
        json!({"kind": "namespace_cap", "project": "p", "domain": "d", "in_use": 1, "size": 1});
    assert_eq!(answer["limit"], limit);
    assert_eq!(values(&answer["oldest_holders"], "member"), ["ex:p:d:e-mine"]);
    assert_eq!((&answer["tickets_ahead"], &answer["retry_after_ms"]), (&json!(0), &Value::Null));
}

#[test]
fn each_cap_says_which_rule_gave_it_or_that_the_claim_brought_it() {
    let server = Server::with_pool(9);
    claim(&server, "mine", OF);
    wait_in_line(&server, 1, ResourceConstraintsSpec::new(Some(1), Some(5)).unwrap());
    let brought = explain(&server, "t0");
    let cap =
        |kind: &str, size: u64, rule: Value| json!({"kind": kind, "size": size, "rule": rule});
    let null = Value::Null;
    let expected = [cap("project_cap", 1, null.clone()), cap("namespace_cap", 5, null.clone())];
    assert_eq!(brought["caps"], json!(expected));

    let pool = |project_cap| PoolConstraints {
        pool: "hive:*".to_owned(),
        project_cap,
        namespace_cap: Some(4),
        ..PoolConstraints::default()
    };
    set_rule(&server, "p", pool(Some(1)));
    set_rule(&server, "p:d:w", PoolConstraints { namespace_cap: Some(5), ..pool(None) });
    let of_workflow = format!("explain hive:default t0 {OF} --workflow w");
    let ruled = server.tokenpool(&format!("{of_workflow} -o json")).exits_with(0).json();
    let rule = |path: &str| json!({"kind": "RESOURCE_CONSTRAINTS", "path": path, "pool": "hive:*", "version": 1});
    let expected = [cap("project_cap", 1, rule("p")), cap("namespace_cap", 5, rule("p:d:w"))];
    assert_eq!(ruled["caps"], json!(expected));
    // Of another workflow the rule says another number.
    let expected = [cap("project_cap", 1, rule("p")), cap("namespace_cap", 5, null)];
    assert_eq!(explain(&server, "t0")["caps"], json!(expected));
    let text = server.tokenpool(&of_workflow).exits_with(0).stdout;
    for line in [
        "\nproject cap 1: RESOURCE_CONSTRAINTS of project p for hive:*, version 1\n",
        "\nnamespace cap 5: RESOURCE_CONSTRAINTS of workflow p:d:w for hive:*, version 1\n",
    ] {
        assert!(text.contains(line), "{text}");
    }
}

fn set_rule(server: &Server, path: &str, pool: PoolConstraints) {
    let config = Config::redis_at(server.url()).unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let backend = RedisBackend::connect(&config.redis).await.unwrap();
        let store = Arc::new(backend.attributes());
        let rules = Attributes::new(store, Holder::new("test").unwrap());
        let rule = ResourceConstraints { pools: vec![pool] };
        rules.of().update(&path.parse().unwrap(), rule, Expected::Any).await.unwrap();
    });
}

#[test]
fn lists_are_short_and_say_how_many_there_are() {
    let server = Server::with_pool(30);
    for i in 0..30 {
        claim(&server, &format!("held{i}"), OF);
    }
    wait_in_line(&server, 2500, ResourceConstraintsSpec::NONE);
    let answer = explain(&server, "t2400");
    assert_eq!(answer["ticket"]["position"], 2401);
    assert_eq!(
        (&answer["tickets_ahead"], &answer["holders_under_limit"]),
        (&json!(2400), &json!(30))
    );
    let oldest: Vec<_> = (0..10).map(|i| json!(format!("ex:p:d:e-held{i}"))).collect();
    assert_eq!(values(&answer["oldest_holders"], "member"), oldest.iter().collect::<Vec<_>>());
    assert_eq!(values(&answer["first_tickets"], "position"), (1..=10).collect::<Vec<_>>());
    let text = server.tokenpool(&format!("explain hive:default t2400 {OF}")).exits_with(0).stdout;
    assert!(text.contains("at position 2401 of 2500\n"), "{text}");
    assert!(text.contains("the oldest first (10 of 30):"), "{text}");
    assert!(text.contains("by rank (10 of 2400):"), "{text}");
    let all = server.tokenpool("get tickets hive:default -o json").exits_with(0).json();
    assert_eq!(values(&all, "position"), (1..=2500).collect::<Vec<_>>());
    assert_eq!(all[2499]["member"], "ex:p:d:e-t2499");
}

#[test]
fn a_held_and_an_unknown_token_are_told_apart_and_a_revocation_is_shown() {
    let server = Server::with_pool(3);
    claim(&server, "t", OF);
    let answer = explain(&server, "t");
    assert_eq!(
        (&answer["state"], &answer["grant"]["member"]),
        (&json!("held"), &json!("ex:p:d:e-t"))
    );
    let text = server.tokenpool(&format!("explain hive:default t {OF}")).exits_with(0).stdout;
    let start = "ex:p:d:e-t is held in hive:default; it has no lease and is held until it is released\n\nUNITS";
    assert!(text.starts_with(start), "{text}");

    let text = server.tokenpool(&format!("explain hive:default no {OF}")).exits_with(0).stdout;
    assert_eq!(text, "ex:p:d:e-no neither holds units of hive:default nor waits for any\n");
    let revoke = format!("release hive:default t {OF} --force --reason stuck --operator ada");
    server.tokenpool(&revoke).exits_with(0);
    let answer = explain(&server, "t");
    assert_eq!(
        (&answer["state"], &answer["revoked"]["operator"]),
        (&json!("unknown"), &json!("ada"))
    );
    let text = server.tokenpool(&format!("explain hive:default t {OF}")).exits_with(0).stdout;
    assert!(text.contains("\nada took it away at ") && text.ends_with(": stuck\n"), "{text}");
}

#[test]
fn explaining_changes_nothing() {
    let server = Server::with_pool(1);
    claim(&server, "held", OF);
    wait_in_line(&server, 3, ResourceConstraintsSpec::NONE);
    // A lease that is over, and units that could be handed on.
    claim(&server, "held", &format!("{OF} --lease 100ms"));
    until(|| {
        let holders = server.tokenpool("get holders hive:default -o json").exits_with(0).json();
        holders[0]["lease_left_ms"] == 0
    });
    let state = || {
        let mut keys: Vec<String> = server.ask("KEYS *");
        keys.sort();
        let dump = |key: &String| server.ask::<Vec<u8>>(&format!("DUMP {key}"));
        keys.iter().map(dump).collect::<Vec<_>>()
    };
    let before = state();
    for token in ["held", "t0", "t2", "unknown"] {
        explain(&server, token);
    }
    assert!(state() == before, "something was changed");
}
