//! Claims with leases, and claims that wait.

use std::process::Child;

use serde_json::{Value, json};

use crate::program::{signal, start, wait};
use crate::server::Server;

const OF: &str = "--project p --domain d --execution e";

fn claim(token: &str, options: &str) -> String {
    format!("allocate hive:default {token} {OF} {options}")
}

/// A pool of one unit that `first` holds.
fn full() -> Server {
    let server = Server::with_pool(1);
    server.tokenpool(&claim("first", "")).exits_with(0);
    server
}

fn waiting(server: &Server, token: &str, options: &str) -> Child {
    start(&mut server.command(&claim(token, &format!("--wait -o json {options}"))))
}

fn release(server: &Server, token: &str) {
    server.tokenpool(&format!("release hive:default {token} {OF}")).exits_with(0);
}

fn holders(server: &Server) -> Value {
    server.tokenpool("get holders hive:default -o json").exits_with(0).json()
}

fn members(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|row| row["member"].as_str().unwrap()).collect()
}

#[test]
fn a_lease_is_told_listed_and_outlives_the_program() {
    let server = Server::with_pool(1);
    let answer = server.tokenpool(&claim("t", "--lease 1h -o json")).exits_with(0).json();
    assert_eq!(answer["lease_ms"], 3_600_000);
    let left = holders(&server)[0]["lease_left_ms"].as_u64().unwrap();
    assert!((3_000_000..=3_600_000).contains(&left), "{left}");
    let text = server.tokenpool("get holders hive:default").exits_with(0).stdout;
    assert!(text.contains("LEASE LEFT") && text.contains("  59m"), "{text}");
    // Refused, but something ends by itself.
    let refused = server.tokenpool(&claim("u", "-o json")).exits_with(3).json();
    assert!(refused["retry_after_ms"].as_u64().unwrap() <= 3_600_000, "{refused}");
    let text = server.tokenpool(&claim("u", "")).exits_with(3).stdout;
    assert!(text.contains("; nobody waits; something ends by itself in 59m"), "{text}");
}

#[test]
fn a_lease_that_nobody_renews_ends_and_the_next_gets_the_units() {
    let server = Server::with_pool(1);
    server.tokenpool(&claim("t", "--lease 100ms")).exits_with(0);
    let next = server.tokenpool(&claim("u", "--wait --lease 1h -o json")).exits_with(0).json();
    assert_eq!((&next["status"], &next["lease_ms"]), (&json!("Granted"), &json!(3_600_000)));
    assert_eq!(members(&holders(&server)), ["ex:p:d:e-u"]);
}

#[test]
fn a_waiting_claim_gets_its_turn_and_stays_held() {
    let server = full();
    let second = waiting(&server, "second", "");
    server.until_waiting(1);
    release(&server, "first");
    let answer = wait(second).exits_with(0).json();
    assert_eq!(answer["status"], "Granted");
    assert!(answer["fencing_number"].is_u64(), "{answer}");
    let list = holders(&server);
    assert_eq!(members(&list), ["ex:p:d:e-second"]);
    // Without a lease it is held until released, although its ticket had an end.
    assert_eq!(list[0]["lease_left_ms"], Value::Null);
}

#[test]
fn when_time_is_up_the_ticket_is_withdrawn_and_the_answer_says_where_it_stood() {
    let server = full();
    let late = server.tokenpool(&claim("late", "--wait=10ms -o json")).exits_with(3).json();
    assert_eq!(
        late,
        json!({
            "namespace": "hive:default", "member": "ex:p:d:e-late", "units": 1,
            "status": "Exhausted", "status_number": 2, "fencing_number": null,
            "held_before": null, "lease_ms": null,
            "limit": {"kind": "quota", "project": null, "domain": null, "in_use": 1, "size": 1},
            "position": 1, "retry_after_ms": null,
        })
    );
    let text = server.tokenpool(&claim("late", "--wait=10ms")).exits_with(3).stdout;
    assert!(text.contains("1 of 1 in use, 1 wanted; time is up at position 1; "), "{text}");
    server.until_waiting(0);
    assert_eq!(members(&holders(&server)), ["ex:p:d:e-first"]);
}

#[test]
fn a_waiting_claim_that_is_interrupted_withdraws_its_ticket() {
    let server = full();
    for (name, status) in [("INT", 130), ("TERM", 143)] {
        let second = waiting(&server, "second", "");
        server.until_waiting(1);
        signal(&second, name);
        wait(second).fails_with(status, "interrupted while waiting; the ticket is withdrawn");
        server.until_waiting(0);
    }
}

#[test]
fn a_claim_that_can_never_be_granted_does_not_wait() {
    let server = Server::with_pool(2);
    for (options, error) in [
        ("--units 3", "3 unit(s) of hive:default can never be granted: the quota of the pool is 2"),
        (
            "--units 2 --project-cap 1",
            "2 unit(s) of hive:default can never be granted: the cap of project p is 1",
        ),
        (
            "--namespace-cap 0",
            "1 unit(s) of hive:default can never be granted: the cap of domain p:d is 0",
        ),
    ] {
        server.tokenpool(&claim("t", &format!("--wait {options}"))).fails_with(2, error);
    }
    assert_eq!(holders(&server), json!([]));
    server.until_waiting(0);
}

#[test]
fn the_more_urgent_is_first_and_nobody_passes_who_waits() {
    let server = full();
    server.tokenpool("update pool hive:default --order priority").exits_with(0);
    let patient = waiting(&server, "patient", "");
    server.until_waiting(1);
    let urgent = waiting(&server, "urgent", "--priority 9");
    server.until_waiting(2);

    let list = server.tokenpool("get tickets hive:default -o json").exits_with(0).json();
    assert_eq!(members(&list), ["ex:p:d:e-urgent", "ex:p:d:e-patient"]);
    let fields: Vec<_> = list[0].as_object().unwrap().keys().map(String::as_str).collect();
    let wanted = [
        "execution",
        "holder",
        "member",
        "namespace_cap",
        "position",
        "project_cap",
        "since",
        "time_left_ms",
        "units",
    ];
    assert_eq!(fields, wanted);
    assert_eq!((&list[0]["position"], &list[1]["position"]), (&json!(1), &json!(2)));
    assert!(list[0]["time_left_ms"].as_u64().unwrap() <= 10_000, "{list}");
    let table = server.tokenpool("get tickets hive:default").exits_with(0).stdout;
    assert!(table.starts_with("POSITION  UNITS  WAITS FOR  TIME LEFT  HOLDER"), "{table}");
    let pool = server.tokenpool("get pool hive:default -o json").exits_with(0).json();
    assert_eq!(pool["tickets"], 2);

    let barging = server.tokenpool(&claim("barging", "-o json")).exits_with(3).json();
    assert_eq!(barging["position"], 3);
    release(&server, "first");
    wait(urgent).exits_with(0);
    release(&server, "urgent");
    wait(patient).exits_with(0);
}

#[test]
fn no_tickets_are_an_empty_list() {
    let server = Server::with_pool(1);
    let run = server.tokenpool("get tickets hive:default").exits_with(0);
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("", "no tickets\n"));
    let run = server.tokenpool("get tickets hive:default -o json").exits_with(0);
    assert_eq!(run.stdout, "[]\n");
}

#[test]
fn a_server_that_goes_away_ends_the_waiting() {
    let mut server = full();
    let second = waiting(&server, "second", "");
    server.until_waiting(1);
    server.kill();
    let run = wait(second).exits_with(1);
    assert!(run.stderr.contains(" is not available: "), "{run:?}");
    assert_eq!(run.stdout, "");
}
