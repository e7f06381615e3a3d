//! Replays that do not come to their end.

use std::process::{Child, Command};

use serde_json::Value;

use super::{LogFile, NASA};
use crate::program::{start, wait};
use crate::server::Server;

const POOL: &str = "redisresourcemanager:replay:NASA-iPSC-1993-3.1-cln";

/// A replay of the real log in which jobs run and others wait at this moment.
fn under_way(server: &Server) -> Child {
    let mut replay = start(&mut server.command(&format!("replay {NASA} -o json")));
    while server.ask::<u64>(&format!("EXISTS {{{POOL}}}:tickets")) == 0 {
        assert!(replay.try_wait().unwrap().is_none(), "it ended before anything waited");
    }
    replay
}

#[test]
fn an_interrupted_replay_gives_back_everything() {
    for (signal, status) in [("INT", 130), ("TERM", 143)] {
        let server = Server::start();
        let replay = under_way(&server);
        let id = replay.id().to_string();
        assert!(
            Command::new("kill").args([&format!("-{signal}"), &id]).status().unwrap().success()
        );
        wait(replay).fails_with(status, "interrupted; all units were given back");
        server.is_empty();
    }
}

/// A replay's grants have no lease: what it held when it was killed stays held, whole and provable,
/// until its token is claimed or released again. What came to its tickets later has a ticket's time.
#[test]
fn what_a_killed_replay_held_is_held_consistently_and_can_be_claimed_and_released() {
    let server = Server::start();
    let mut replay = under_way(&server);
    replay.kill().unwrap();
    replay.wait().unwrap();
    let pool = "replay:NASA-iPSC-1993-3.1-cln";
    server.tokenpool(&format!("check {pool}")).exits_with(0);
    let list = |what: &str| {
        let listed = server.tokenpool(&format!("get {what} {pool} -o json")).exits_with(0).json();
        listed.as_array().unwrap().clone()
    };

    let held: Vec<_> =
        list("holders").into_iter().filter(|holder| holder["lease_left_ms"].is_null()).collect();
    assert!(!held.is_empty());
    for holder in &held {
        let field = |name: &str| holder[name].as_str().unwrap().to_owned();
        let (member, execution) = (field("member"), field("execution"));
        let parts: Vec<_> = member.split(':').collect();
        let token = parts[3].strip_prefix(&format!("{execution}-")).unwrap();
        let claim = format!(
            "allocate {pool} {token} --project {} --domain {} --execution {execution} --units {} \
             -o json",
            parts[1], parts[2], holder["units"]
        );
        let again = server.tokenpool(&claim).exits_with(0).json();
        assert_eq!(again["fencing_number"], holder["fencing_number"]);
        let released = revoke(&server, pool, &member);
        assert_eq!(released["units"], holder["units"]);
    }

    // Each release hands units on to tickets that nobody renews any more.
    loop {
        let left = [list("holders"), list("tickets")].concat();
        if left.is_empty() {
            break;
        }
        for ended in left {
            revoke(&server, pool, ended["member"].as_str().unwrap());
        }
    }
    server.tokenpool(&format!("delete pool {pool}")).exits_with(0);
    server.is_empty();
}

fn revoke(server: &Server, pool: &str, member: &str) -> Value {
    let release = format!("release {pool} --member {member} --force --reason test -o json");
    server.tokenpool(&release).exits_with(0).json()
}

#[test]
fn a_replay_that_loses_its_server_says_what_may_be_held() {
    let mut server = Server::start();
    let replay = under_way(&server);
    server.kill();
    let run = wait(replay).exits_with(1);
    let error = run.stderr.lines().last().unwrap();
    assert!(error.starts_with("error: execution \"replay-"), "{run:?}");
    assert!(
        error.contains("may still hold units of replay:NASA")
            && error.contains(" is not available: "),
        "{run:?}"
    );
    assert_eq!(run.stdout, "");
}

#[test]
fn a_replay_without_a_server_fails_before_it_begins() {
    let mut server = Server::start();
    server.kill();
    let log = LogFile::new(2, &[(0, 10, 2, 1)]);
    let run = server.tokenpool(&log.replay()).exits_with(1);
    assert!(
        run.stderr.starts_with("error: connect: ") && run.stderr.contains(" is not available: "),
        "{run:?}"
    );
}

#[test]
fn somebody_elses_data_in_the_pool_is_named_and_left_alone() {
    let server = Server::start();
    let key = "redisresourcemanager:replay:test";
    server.ask::<()>(&format!("SET {key} mine"));
    let log = LogFile::new(2, &[(0, 10, 2, 1)]);
    let run = server.tokenpool(&log.replay()).exits_with(1);
    assert!(run.stderr.contains(&format!("key \"{key}\" holds a string")), "{run:?}");
    assert_eq!(server.ask::<String>(&format!("GET {key}")), "mine");
}
