//! Creating, showing, changing and deleting pools.

use serde_json::json;

use crate::server::Server;

#[test]
fn a_pool_is_created_shown_pinned_unpinned_and_deleted() {
    let server = Server::start();
    let json =
        |arguments: &str| server.tokenpool(&format!("{arguments} -o json")).exits_with(0).json();
    let quota = |quota, pinned: Option<u64>| json!({"namespace": "hive:default", "quota": quota, "registered": 5, "pinned": pinned});
    assert_eq!(json("create pool hive:default --quota 5"), quota(5, None));
    assert_eq!(json("update pool hive:default --quota 2"), quota(2, Some(2)));
    let mut row = quota(2, Some(2));
    row["in_use"] = json!(0);
    row["holders"] = json!(0);
    assert_eq!(json("get pools"), json!([row]));
    let mut pool = json("get pool hive:default");
    let fields = pool.as_object_mut().unwrap();
    assert!(fields.remove("next_fencing_number").unwrap().is_u64());
    assert_eq!(fields.remove("scopes"), Some(json!([])));
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
        "NAMESPACE     QUOTA  IN USE  HOLDERS  PINNED\n\
         hive:default  2      3       1        yes, registered 5\n\
         presto:a:b    1000   0       0        no\n"
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
        "delete pool hive:default",
        "delete pool hive:default --force",
        "allocate hive:default t --project p --domain d --execution e",
        "release hive:default t --project p --domain d --execution e",
        "release hive:default --member ex:p:d:e-t",
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
