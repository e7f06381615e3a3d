//! Renewing leases.

use serde_json::{Value, json};

use crate::program::{HIVE, signal, start, wait};
use crate::server::Server;

const OF: &str = "--project p --domain d --execution e";

#[test]
fn each_token_is_held_waits_or_is_lost() {
    let server = Server::with_pool(1);
    let held = format!("allocate hive:default held {OF} --lease 1h -o json");
    let number = server.tokenpool(&held).exits_with(0).json()["fencing_number"].clone();
    let waiting = format!("allocate hive:default waiting {OF} --wait");
    let waiting = start(&mut server.command(&waiting));
    server.until_waiting(1);

    let renew = |tokens: &str| {
        server.tokenpool(&format!("renew hive:default {tokens} {OF} --lease 2h -o json"))
    };
    let row = |token: &str, state: &str, number: &Value| json!({"token": token, "member": format!("ex:p:d:e-{token}"), "state": state, "fencing_number": number});
    assert_eq!(
        renew("held waiting").exits_with(0).json(),
        json!([row("held", "held", &number), row("waiting", "waiting", &Value::Null)])
    );
    assert_eq!(
        renew("held lost").exits_with(3).json(),
        json!([row("held", "held", &number), row("lost", "lost", &Value::Null)])
    );
    let list = server.tokenpool("get holders hive:default -o json").exits_with(0).json();
    assert!(list[0]["lease_left_ms"].as_u64().unwrap() > 3_600_000, "{list}");
    let text = server.tokenpool(&format!("renew hive:default lost {OF} --lease 1h"));
    let text = text.exits_with(3).stdout;
    assert_eq!(
        text,
        "STATE  FENCING NUMBER  TOKEN  MEMBER\nlost   -               lost   ex:p:d:e-lost\n"
    );
    signal(&waiting, "TERM");
    wait(waiting).exits_with(143);
}

#[test]
fn what_has_no_lease_gets_none() {
    let server = Server::with_pool(1);
    server.tokenpool(&format!("allocate hive:default t {OF}")).exits_with(0);
    server.tokenpool(&format!("renew hive:default t {OF} --lease 1h")).exits_with(0);
    let list = server.tokenpool("get holders hive:default -o json").exits_with(0).json();
    assert_eq!(list[0]["lease_left_ms"], Value::Null);
}

#[test]
fn a_token_of_somebody_else_is_an_error_and_does_not_hide_the_others() {
    let server = Server::with_pool(3);
    server.ask::<u64>(&format!("SADD {HIVE} ex:p:d:e-foreign"));
    server.tokenpool(&format!("allocate hive:default b-t {OF} --lease 1h")).exits_with(0);
    server.tokenpool(&format!("renew hive:default foreign {OF} --lease 1h")).fails_with(
        2,
        "ex:p:d:e-foreign was put into the pool by another writer; claim it, or repair the pool, to adopt it",
    );
    let other = "--project p --domain d --execution e-b";
    server
        .tokenpool(&format!("renew hive:default t {other} --lease 1h"))
        .fails_with(2, "token is held already as ex:p:d:e-b-t with 1 unit(s) by execution \"e\"");
    let both = server.tokenpool(&format!("renew hive:default foreign b-t {OF} --lease 1h -o json"));
    let both = both.exits_with(2);
    assert_eq!(both.json()[0]["state"], "held");
    assert!(both.stderr.starts_with("error: ex:p:d:e-foreign "), "{both:?}");
}
