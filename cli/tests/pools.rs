//! Creating, showing, changing and deleting pools.

use serde_json::{Value, json};
use tokenpool::ResourceConstraintsSpec;

use crate::program::{HIVE, wait_in_line};
use crate::server::Server;

#[test]
fn a_pool_is_created_shown_pinned_unpinned_and_deleted() {
    let server = Server::start();
    let json =
        |arguments: &str| server.tokenpool(&format!("{arguments} -o json")).exits_with(0).json();
    let quota = |quota, pinned: Option<u64>| json!({"namespace": "hive:default", "quota": quota, "registered": 5, "pinned": pinned, "order": "fifo", "weights": []});
    assert_eq!(json("create pool hive:default --quota 5"), quota(5, None));
    assert_eq!(json("update pool hive:default --quota 2"), quota(2, Some(2)));
    let mut row = quota(2, Some(2));
    row.as_object_mut().unwrap().remove("weights");
    row["tickets"] = json!(0);
    row["in_use"] = json!(0);
    row["holders"] = json!(0);
    row["learning_left_ms"] = json!(null);
    assert_eq!(json("get pools"), json!([row]));
    let mut pool = json("get pool hive:default");
    let fields = pool.as_object_mut().unwrap();
    assert!(fields.remove("next_fencing_number").unwrap().is_u64());
    assert_eq!(fields.remove("scopes"), Some(json!([])));
    assert_eq!(fields.remove("weights"), Some(json!([])));
    assert_eq!(pool, row);
    assert_eq!(json("update pool hive:default --unpin"), quota(5, None));
    assert_eq!(
        json("delete pool hive:default"),
        json!({"namespace": "hive:default", "units_in_use": 0})
    );
    assert_eq!(json("get pools"), json!([]));
    server.is_empty();
}

#[test]
fn people_get_tables() {
    let server = Server::start();
    let text = |arguments: &str| server.tokenpool(arguments).exits_with(0).stdout;
    assert_eq!(text("create pool hive:default --quota 5"), "created hive:default: quota 5\n");
    server
        .tokenpool("allocate hive:default t --project p --domain d --execution e --units 3")
        .exits_with(0);
    assert_eq!(
        text("update pool hive:default --quota 2"),
        "pinned hive:default: quota 2, registered 5\n"
    );
    text("create pool presto:a:b --quota 1000");
    assert_eq!(
        text("get pools"),
        "NAMESPACE     QUOTA  IN USE  HOLDERS  WAITING  ORDER  PINNED\n\
         hive:default  2      3       1        0        fifo   yes, registered 5\n\
         presto:a:b    1000   0       0        0        fifo   no\n"
    );
    let pool = text("get pool hive:default");
    let scopes = "PROJECT  DOMAIN  IN USE\np        (all)   3\np        d       3\n";
    assert!(pool.contains("\nin use               3\n") && pool.ends_with(scopes), "{pool}");
    assert_eq!(text("update pool hive:default --unpin"), "unpinned hive:default: quota 5\n");
    assert_eq!(
        text("delete pool hive:default --force"),
        "deleted hive:default: 3 unit(s) were in use\n"
    );
}

#[test]
fn nothing_to_list_is_said_to_people_only() {
    let server = Server::start();
    let run = server.tokenpool("get pools").exits_with(0);
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("", "no pools\n"));
    let run = server.tokenpool("get pools -o json").exits_with(0);
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("[]\n", ""));
}

#[test]
fn a_pool_that_exists_is_not_created_again() {
    let server = Server::start();
    server.tokenpool("create pool hive:default --quota 5").exits_with(0);
    server
        .tokenpool("create pool hive:default --quota 6 -o json")
        .fails_with(3, "pool hive:default exists already with quota 5");
    assert_eq!(server.tokenpool("get pool hive:default -o json").json()["quota"], 5);
}

#[test]
fn a_pool_in_use_is_deleted_by_force_only() {
    let server = Server::start();
    server.tokenpool("create pool hive:default --quota 5").exits_with(0);
    server
        .tokenpool("allocate hive:default t --project p --domain d --execution e --units 3")
        .exits_with(0);
    server
        .tokenpool("delete pool hive:default")
        .fails_with(3, "pool hive:default is in use: 1 holder(s) with 3 unit(s)");
    let run = server.tokenpool("delete pool hive:default --force -o json").exits_with(0);
    assert_eq!(run.json(), json!({"namespace": "hive:default", "units_in_use": 3}));
    server.is_empty();
}

#[test]
fn an_unknown_pool_is_wrong_input_for_every_command() {
    let server = Server::start();
    for arguments in [
        "get pool hive:default",
        "get holders hive:default",
        "update pool hive:default --quota 1",
        "update pool hive:default --unpin",
        "update pool hive:default --end-learning",
        "delete pool hive:default",
        "delete pool hive:default --force",
        "allocate hive:default t --project p --domain d --execution e",
        "release hive:default t --project p --domain d --execution e",
        "release hive:default --member ex:p:d:e-t --force --reason r",
        "release hive:default t --project p --domain d --execution e --force --reason r",
        "update pool hive:default --order fair",
        "update pool hive:default --quota 1 --order fair --weight p=2",
        "get tickets hive:default",
        "get revocations hive:default",
        "renew hive:default t --project p --domain d --execution e --lease 10s",
        "explain hive:default t --project p --domain d --execution e",
        "allocate hive:default t --project p --domain d --execution e --lease 10s --wait",
        "exec hive:default -- true",
        "exec hive:default --wait -- true",
        "check hive:default",
        "repair hive:default",
    ] {
        for format in ["table", "json"] {
            let run = server.tokenpool(&format!("{arguments} -o {format}"));
            run.fails_with(
                2,
                "unknown resource namespace hive:default: no quota was registered for it",
            );
        }
    }
    server.is_empty();
}

#[test]
fn a_pool_that_is_listed_but_gone_is_skipped() {
    let server = Server::start();
    server.ask::<u64>("SADD tokenpool:pools redisresourcemanager:hive:gone");
    assert_eq!(server.tokenpool("get pools -o json").exits_with(0).json(), json!([]));
}

#[test]
fn a_damaged_pool_hides_no_other() {
    let server = Server::start();
    server.tokenpool("create pool hive:default --quota 5").exits_with(0);
    server.ask::<u64>("SADD tokenpool:pools redisresourcemanager:hive:bad");
    server.ask::<()>("SET {redisresourcemanager:hive:bad}:usage somebody's");
    let run = server.tokenpool("get pools -o json").exits_with(1);
    assert_eq!(run.json()[0]["namespace"], "hive:default");
    assert_eq!(
        run.stderr,
        "error: hive:bad: key \"{redisresourcemanager:hive:bad}:usage\" holds a string where this library keeps a hash\n"
    );
    assert_eq!(server.ask::<String>("GET {redisresourcemanager:hive:bad}:usage"), "somebody's");
}

#[test]
fn order_and_weights_are_changed_and_shown() {
    let server = Server::start();
    server.tokenpool("create pool hive:default --quota 5").exits_with(0);
    let update = |options: &str| server.tokenpool(&format!("update pool hive:default {options}"));
    let fair = update("--order fair --weight p=3 --weight q=2").exits_with(0);
    let text = "updated hive:default: quota 5, order fair, weight of p 3, weight of q 2\n";
    assert_eq!(fair.stdout, text);
    let weights = json!([{"project": "p", "weight": 1}, {"project": "q", "weight": 2}]);
    let all = update("--quota 4 --order priority --weight p=1 -o json").exits_with(0).json();
    assert_eq!(
        all,
        json!({
            "namespace": "hive:default", "quota": 4, "registered": 5, "pinned": 4,
            "order": "priority", "weights": weights,
        })
    );
    let pool = server.tokenpool("get pool hive:default -o json").exits_with(0).json();
    assert_eq!((&pool["order"], &pool["weights"]), (&json!("priority"), &weights));
    let pool = server.tokenpool("get pool hive:default").exits_with(0).stdout;
    assert!(pool.contains("order                priority\n"), "{pool}");
    assert!(pool.contains("PROJECT  WEIGHT\np        1\nq        2\n"), "{pool}");
}

#[test]
fn a_pool_that_learns_says_so_until_that_is_ended() {
    let server = Server::start();
    server.tokenpool("create pool hive:default --quota 5").exits_with(0);
    let json = |arguments: &str| server.tokenpool(&format!("{arguments} -o json")).json();
    // As if another server had had the pool, in which a manager wanted that.
    let usage = format!("{{{HIVE}}}:usage");
    server.ask::<u64>(&format!("HSET {usage} server before learns_for 60000"));
    let claim = "hive:default t --project p --domain d --execution e";
    let refused = json(&format!("allocate {claim}"));
    assert_eq!(
        (&refused["status"], &refused["limit"]["kind"]),
        (&json!("Exhausted"), &json!("learning"))
    );
    let left = |of: &Value, field: &str| of[field].as_u64().unwrap();
    assert!((50_000..=60_000).contains(&left(&refused, "retry_after_ms")), "{refused}");
    let pool = json("get pool hive:default");
    assert!((50_000..=60_000).contains(&left(&pool, "learning_left_ms")), "{pool}");
    let text = server.tokenpool("get pool hive:default").exits_with(0).stdout;
    assert!(text.contains("\nlearns who holds units, and admits nobody new, for 5"), "{text}");
    wait_in_line(&server, 1, ResourceConstraintsSpec::NONE);
    let explain = server.tokenpool("explain hive:default t0 --project p --domain d --execution e");
    let text = explain.exits_with(0).stdout;
    assert!(text.contains("\nthe pool learns who holds its units, for "), "{text}");
    let end = || server.tokenpool("update pool hive:default --end-learning").exits_with(0).stdout;
    let done = end();
    let told =
        done.strip_prefix("updated hive:default: quota 5, order fifo; it would have learned for 5");
    assert!(told.is_some_and(|left| left.ends_with("s more\n")), "{done}");
    assert_eq!(end(), "updated hive:default: quota 5, order fifo; it was not learning\n");
    let pool = json("get pool hive:default");
    assert_eq!((&pool["learning_left_ms"], &pool["in_use"]), (&json!(null), &json!(1)));
    server.tokenpool(&format!("allocate {claim}")).exits_with(0);
}

#[test]
fn a_wrong_order_or_weight_changes_nothing() {
    let server = Server::start();
    server.tokenpool("create pool hive:default --quota 5").exits_with(0);
    let pool = || server.tokenpool("get pool hive:default -o json").exits_with(0).json();
    let before = pool();
    for (options, error) in [
        ("--weight p", "--weight: invalid weight \"p\": must be <project>=<number>"),
        ("--weight p=x", "--weight: invalid weight \"p=x\": must end in a whole number"),
        ("--weight p=0", "--weight: invalid weight \"0\": must be between 1 and 1000000"),
        ("--weight p=-1", "--weight: invalid weight \"-1\": must be between 1 and 1000000"),
        (
            "--weight p=1 --weight p=2",
            "--weight: invalid weight \"p=2\": the project has a weight already",
        ),
        ("--weight =1", "invalid project \"\": must not be empty"),
        ("--quota 3 --weight a:b=1", "invalid project \"a:b\": must not contain ':'"),
        (
            "--order fair --quota 0",
            "invalid quota \"0\": must be between 1 and resourceMaxQuota, which is 1000",
        ),
    ] {
        server
            .tokenpool(
                &format!("update pool hive:default --order fair {options}")
                    .replace("--order fair --order fair", "--order fair"),
            )
            .fails_with(2, error);
        assert_eq!(pool(), before, "{options}");
    }
    let run = server.tokenpool("update pool hive:default --order lifo").exits_with(2);
    assert!(run.stderr.contains("'lifo' for '--order <ORDER>'"), "{run:?}");
    assert!(run.stderr.contains("[possible values: fifo, priority, fair]"), "{run:?}");
    assert_eq!(pool(), before);
}
