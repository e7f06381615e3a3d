//! What operators take away, and what is written down of it.

use serde_json::{Value, json};

use crate::program::{HIVE, run, start, wait};
use crate::server::Server;

const OF: &str = "--project p --domain d --execution e";

fn force(server: &Server, which: &str) -> Value {
    let command = format!("release hive:default {which} --force --operator ada -o json --reason");
    run(server.command(&command).arg("its node is gone")).exits_with(0).json()
}

#[test]
fn a_revocation_is_written_down_with_who_and_why() {
    let server = Server::with_pool(1);
    server.tokenpool(&format!("allocate hive:default t {OF}")).exits_with(0);
    let answer = force(&server, "--member ex:p:d:e-t");
    assert_eq!(
        answer,
        json!({
            "namespace": "hive:default", "member": "ex:p:d:e-t", "released": true, "units": 1,
            "withdrawn": false, "operator": "ada", "reason": "its node is gone",
        })
    );
    let list = server.tokenpool("get revocations hive:default -o json").exits_with(0).json();
    assert_eq!(
        list,
        json!([{
            "at": list[0]["at"], "member": "ex:p:d:e-t", "operator": "ada",
            "reason": "its node is gone",
        }])
    );
    assert!(list[0]["at"].as_str().unwrap().ends_with('Z'), "{list}");
    let text = server.tokenpool("get revocations hive:default").exits_with(0).stdout;
    assert!(text.starts_with("AT  ") && text.ends_with("  its node is gone\n"), "{text}");
    // What is not held is not written down.
    assert_eq!(force(&server, "--member ex:p:d:e-t")["released"], false);
    assert_eq!(server.tokenpool("get revocations hive:default -o json").json(), list);
}

#[test]
fn an_ordinary_release_is_not_written_down() {
    let server = Server::with_pool(1);
    server.tokenpool(&format!("allocate hive:default t {OF}")).exits_with(0);
    server.tokenpool(&format!("release hive:default t {OF}")).exits_with(0);
    let run = server.tokenpool("get revocations hive:default").exits_with(0);
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("", "no revocations\n"));
}

#[test]
fn the_operator_is_user_and_host_unless_named() {
    let server = Server::with_pool(1);
    server.tokenpool(&format!("allocate hive:default t {OF}")).exits_with(0);
    let mut command =
        server.command(&format!("release hive:default t {OF} --force --reason r -o json"));
    let answer = run(command.env("USER", "grace").env("HOSTNAME", "bridge")).exits_with(0).json();
    assert_eq!(answer["operator"], "grace@bridge");
}

#[test]
fn the_latest_revocations_come_first_and_as_many_as_wanted() {
    let server = Server::with_pool(3);
    for token in ["a", "b", "c"] {
        server.tokenpool(&format!("allocate hive:default {token} {OF}")).exits_with(0);
        force(&server, &format!("{token} {OF}"));
    }
    let list = server.tokenpool("get revocations hive:default --last 2 -o json").json();
    let members: Vec<_> = list.as_array().unwrap().iter().map(|row| &row["member"]).collect();
    assert_eq!(members, ["ex:p:d:e-c", "ex:p:d:e-b"]);
}

#[test]
fn a_waiting_token_is_withdrawn() {
    let server = Server::with_pool(1);
    server.tokenpool(&format!("allocate hive:default t {OF}")).exits_with(0);
    let claim = format!("allocate hive:default u {OF} --wait=1h");
    let mut waiting = start(&mut server.command(&claim));
    server.until_waiting(1);
    waiting.kill().unwrap();
    waiting.wait().unwrap();
    let answer = force(&server, "--member ex:p:d:e-u");
    assert_eq!((&answer["released"], &answer["withdrawn"]), (&json!(false), &json!(true)));
    server.until_waiting(0);
    // Its owner may do so, too.
    let waiting = start(&mut server.command(&claim));
    server.until_waiting(1);
    let text = server.tokenpool(&format!("release hive:default u {OF}")).exits_with(0).stdout;
    assert_eq!(text, "withdrew the ticket of ex:p:d:e-u for hive:default\n");
    // Whoever still waits for it asks again, and is first again.
    server.until_waiting(1);
    server.tokenpool(&format!("release hive:default t {OF}")).exits_with(0);
    wait(waiting).exits_with(0);
}

#[test]
fn members_of_any_form_can_be_taken_away() {
    let server = Server::with_pool(1);
    for member in ["ex:::-t", "no-scope", "ex:p"] {
        server.ask::<u64>(&format!("SADD {HIVE} {member}"));
        let answer = force(&server, &format!("--member {member}"));
        assert_eq!((&answer["released"], &answer["units"]), (&json!(true), &json!(0)), "{member}");
    }
    server.until_held(0);
    assert_eq!(
        server.tokenpool("get revocations hive:default -o json").json()[2]["member"],
        "ex:::-t"
    );
}
