//! Finding and repairing what does not agree.

use serde_json::json;
use tokenpool::ResourceConstraintsSpec;

use crate::program::wait_in_line;
use crate::server::Server;

const POOL: &str = "redisresourcemanager:hive:default";

/// A pool with a wrong counter, a member without a record and a record without a member.
fn damaged() -> Server {
    let server = Server::start();
    server.tokenpool("create pool hive:default --quota 5").exits_with(0);
    for token in ["kept", "lost"] {
        let claim = format!("allocate hive:default {token} --project p --domain d --execution e");
        server.tokenpool(&claim).exits_with(0);
    }
    server.ask::<i64>(&format!("HINCRBY {{{POOL}}}:usage p:p 7"));
    server.ask::<u64>(&format!("SADD {POOL} ex:flyte:dev:f-foreign"));
    server.ask::<u64>(&format!("SREM {POOL} ex:p:d:e-lost"));
    server
}

#[test]
fn differences_are_found_repaired_and_gone() {
    let server = damaged();
    let run = |command: &str| server.tokenpool(&format!("{command} hive:default -o json"));
    let found = run("check").exits_with(3).json();
    let drift = json!([{"project": "p", "domain": null, "counted": 9, "recorded": 2}]);
    assert_eq!(
        found,
        json!({
            "namespace": "hive:default", "clean": false, "members": 2, "records": 2,
            "drift": drift,
            "unrecorded": ["ex:flyte:dev:f-foreign"],
            "removed": ["ex:p:d:e-lost"],
            "tickets": 0, "queue_is_broken": false,
        })
    );
    let repaired = run("repair").exits_with(0).json();
    let corrected = json!([{"project": "p", "domain": null, "counted": 8, "recorded": 1}]);
    assert_eq!(
        repaired,
        json!({
            "namespace": "hive:default", "adopted": 1, "dropped": 1, "restored": 0, "corrected": corrected,
            "requeued": 0,
        })
    );
    let clean = json!({
        "namespace": "hive:default", "clean": true, "members": 2, "records": 2,
        "drift": [], "unrecorded": [], "removed": [], "tickets": 0, "queue_is_broken": false,
    });
    assert_eq!(run("check").exits_with(0).json(), clean);
    let nothing = json!({
        "namespace": "hive:default", "adopted": 0, "dropped": 0, "restored": 0, "corrected": [],
        "requeued": 0,
    });
    assert_eq!(run("repair").exits_with(0).json(), nothing);
}

#[test]
fn people_read_what_differs_and_what_was_repaired() {
    let server = damaged();
    assert_eq!(
        server.tokenpool("check hive:default").exits_with(3).stdout,
        "hive:default: 2 member(s), 2 record(s): differences found; `tokenpool repair` puts them right\n\
         \n\
         wrong counters:\n\
         PROJECT  DOMAIN  COUNTED  RECORDED\n\
         p        (all)   9        2\n\
         \n\
         members without a record:\n\
         ex:flyte:dev:f-foreign\n\
         \n\
         records without a member:\n\
         ex:p:d:e-lost\n"
    );
    let repaired = server.tokenpool("repair hive:default").exits_with(0).stdout;
    let first = "hive:default: 1 member(s) adopted, 1 record(s) dropped, 1 counter(s) corrected\n";
    assert!(repaired.starts_with(first), "{repaired}");
    assert_eq!(
        server.tokenpool("check hive:default").exits_with(0).stdout,
        "hive:default: 2 member(s), 2 record(s): counters, records and members agree\n"
    );
    assert_eq!(
        server.tokenpool("repair hive:default").exits_with(0).stdout,
        "hive:default: nothing to repair\n"
    );
}

/// A server whose memory is full may throw away the pool's own key.
#[test]
fn members_that_were_all_lost_are_put_back() {
    let server = Server::with_pool(1);
    let of = "--project p --domain d --execution e";
    server.tokenpool(&format!("allocate hive:default first {of}")).exits_with(0);
    server.ask::<u64>(&format!("DEL {POOL}"));
    assert_eq!(
        server.tokenpool("check hive:default").exits_with(3).stdout,
        "hive:default: 0 member(s), 1 record(s): differences found; `tokenpool repair` puts them right\n\
         \n\
         records without a member:\n\
         ex:p:d:e-first\n\
         \n\
         no member is left, so their key was lost: a repair puts them back\n"
    );
    assert_eq!(
        server.tokenpool("repair hive:default").exits_with(0).stdout,
        "hive:default: 0 member(s) adopted, 0 record(s) dropped, 0 counter(s) corrected, \
         1 member(s) put back\n"
    );
    server.tokenpool(&format!("allocate hive:default second {of}")).exits_with(3);
}

#[test]
fn a_queue_that_lost_a_key_is_found_and_built_anew() {
    let server = Server::with_pool(1);
    let of = "--project p --domain d --execution e";
    server.tokenpool(&format!("allocate hive:default first {of}")).exits_with(0);
    wait_in_line(&server, 2, ResourceConstraintsSpec::NONE);
    server.ask::<u64>(&format!("DEL {{{POOL}}}:turns"));

    let found = server.tokenpool("check hive:default -o json").exits_with(3).json();
    assert_eq!(
        (&found["clean"], &found["tickets"], &found["queue_is_broken"]),
        (&json!(false), &json!(2), &json!(true))
    );
    assert_eq!(
        server.tokenpool("check hive:default").exits_with(3).stdout,
        "hive:default: 1 member(s), 1 record(s), 2 ticket(s): differences found; `tokenpool repair` puts them right\n\
         \n\
         the queue has lost keys: tickets may not get their turn\n"
    );
    assert_eq!(
        server.tokenpool("repair hive:default").exits_with(0).stdout,
        "hive:default: 0 member(s) adopted, 0 record(s) dropped, 0 counter(s) corrected, \
         queue built anew of 2 ticket(s)\n"
    );
    assert_eq!(
        server.tokenpool("check hive:default").exits_with(0).stdout,
        "hive:default: 1 member(s), 1 record(s), 2 ticket(s): counters, records and members agree\n"
    );
    // The first in line gets what is given back.
    server.tokenpool(&format!("release hive:default first {of}")).exits_with(0);
    let holders = server.tokenpool("get holders hive:default -o json").exits_with(0).json();
    assert_eq!(holders[0]["member"], "ex:p:d:e-t0");
}
