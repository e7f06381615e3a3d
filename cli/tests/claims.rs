//! Claiming and releasing, and listing who holds.

use std::collections::BTreeSet;
use std::process::Stdio;

use serde_json::{Value, json};
use tokenpool::{
    Claim, Claimant, Config, ExecutionId, Holder, Quota, QuotaChange, ResourceConstraintsSpec,
    Units,
};

use crate::program::{start, wait};
use crate::server::Server;

const OF: &str = "--project p --domain d --execution e";

#[test]
fn a_grant_tells_its_fencing_number_and_a_repeated_one_the_same() {
    let server = Server::with_pool(5);
    let claim = format!("allocate hive:default t {OF} --units 3 -o json");
    let first = server.tokenpool(&claim).exits_with(0).json();
    let number = first["fencing_number"].as_u64().unwrap();
    let answer = |held_before| {
        json!({
            "namespace": "hive:default", "member": "ex:p:d:e-t", "units": 3,
            "status": "Granted", "status_number": 1,
            "fencing_number": number, "held_before": held_before, "lease_ms": null,
            "limit": null, "position": null, "retry_after_ms": null,
        })
    };
    assert_eq!(first, answer(false));
    assert_eq!(server.tokenpool(&claim).exits_with(0).json(), answer(true));
    let text = server.tokenpool(&claim.replace("-o json", "")).exits_with(0).stdout;
    assert_eq!(
        text,
        format!(
            "Granted (1): 3 unit(s) of hive:default to ex:p:d:e-t, fencing number {number}; it was held before\n"
        )
    );
}

#[test]
fn a_refusal_names_the_limit_its_use_and_its_size() {
    let server = Server::with_pool(5);
    server.tokenpool(&format!("allocate hive:default t {OF} --units 3")).exits_with(0);
    let cases = [
        (
            "--units 3",
            "Exhausted (2): quota of the pool: 3 of 5 in use, 3 wanted",
            json!({"kind": "quota", "project": null, "domain": null, "in_use": 3, "size": 5}),
        ),
        (
            "--units 2 --project-cap 4 --namespace-cap 0",
            "NamespaceQuotaExceeded (3): cap of project p: 3 of 4 in use, 2 wanted",
            json!({"kind": "project_cap", "project": "p", "domain": null, "in_use": 3, "size": 4}),
        ),
        (
            "--namespace-cap 0",
            "NamespaceQuotaExceeded (3): cap of domain p:d: 3 of 0 in use, 1 wanted",
            json!({"kind": "namespace_cap", "project": "p", "domain": "d", "in_use": 3, "size": 0}),
        ),
    ];
    for (options, text, limit) in cases {
        let claim = format!("allocate hive:default t2 {OF} {options}");
        let text = format!("{text}; nobody waits; nothing ends by itself\n");
        assert_eq!(server.tokenpool(&claim).exits_with(3).stdout, text);
        let answer = server.tokenpool(&format!("{claim} -o json")).exits_with(3).json();
        assert_eq!(answer["limit"], limit);
        assert_eq!(answer["fencing_number"], Value::Null);
        assert_eq!(answer["held_before"], Value::Null);
        assert_eq!((&answer["position"], &answer["retry_after_ms"]), (&json!(1), &Value::Null));
    }
    assert_eq!(server.tokenpool("get pool hive:default -o json").json()["in_use"], 3);
}

#[test]
fn a_token_held_with_other_units_or_by_another_execution_is_a_conflict() {
    let server = Server::with_pool(5);
    server.tokenpool(&format!("allocate hive:default b-t {OF} --units 3")).exits_with(0);
    server
        .tokenpool(&format!("allocate hive:default b-t {OF} --units 2"))
        .fails_with(2, "token is held already as ex:p:d:e-b-t with 3 unit(s) by execution \"e\"");
    server
        .tokenpool("allocate hive:default t --project p --domain d --execution e-b --units 3")
        .fails_with(2, "token is held already as ex:p:d:e-b-t with 3 unit(s) by execution \"e\"");
}

#[test]
fn units_are_released_by_token_or_by_member_and_only_once() {
    let server = Server::with_pool(5);
    for (way, operator, reason) in [
        (&*format!("t {OF}"), None, None),
        (&*format!("t {OF} --force --reason r --operator o"), Some("o"), Some("r")),
        ("--member ex:p:d:e-t --force --reason r --operator o", Some("o"), Some("r")),
    ] {
        server.tokenpool(&format!("allocate hive:default t {OF} --units 3")).exits_with(0);
        let release = format!("release hive:default {way}");
        let answer = server.tokenpool(&format!("{release} -o json")).exits_with(0).json();
        assert_eq!(
            answer,
            json!({
                "namespace": "hive:default", "member": "ex:p:d:e-t", "released": true, "units": 3,
                "withdrawn": false, "operator": operator, "reason": reason,
            })
        );
        let text = server.tokenpool(&release).exits_with(0).stdout;
        assert_eq!(text, "ex:p:d:e-t is not held in hive:default; nothing was changed\n");
        assert_eq!(server.tokenpool("get pool hive:default -o json").json()["in_use"], 0);
    }
}

#[test]
fn every_holder_is_listed() {
    let server = Server::with_pool(5);
    server.tokenpool(&format!("allocate hive:default t {OF} --units 3")).exits_with(0);
    let list = server.tokenpool("get holders hive:default -o json").exits_with(0).json();
    let holder = list[0].as_object().unwrap();
    let fields: BTreeSet<_> = holder.keys().map(String::as_str).collect();
    let wanted =
        ["member", "units", "fencing_number", "since", "lease_left_ms", "holder", "execution"];
    assert_eq!(fields, BTreeSet::from(wanted));
    assert_eq!((&holder["member"], &holder["units"]), (&json!("ex:p:d:e-t"), &json!(3)));
    assert_eq!(holder["execution"], "e");
    let since = holder["since"].as_str().unwrap();
    assert!(since.len() == 20 && since.ends_with('Z'), "{since}");
    let text = server.tokenpool("get holders hive:default").exits_with(0).stdout;
    assert!(
        text.starts_with("UNITS  FENCING NUMBER") && text.ends_with("  ex:p:d:e-t\n"),
        "{text}"
    );
}

#[test]
fn members_of_other_writers_are_listed_and_cannot_command_the_terminal() {
    let server = Server::with_pool(5);
    server.ask::<u64>("SADD redisresourcemanager:hive:default \u{1b}[31mred");
    let list = server.tokenpool("get holders hive:default -o json").exits_with(0).json();
    let unknown = json!({"member": "\u{1b}[31mred", "units": null, "fencing_number": null, "since": null, "lease_left_ms": null, "holder": null, "execution": null});
    assert_eq!(list, json!([unknown]));
    for command in ["get holders", "check"] {
        let run = server.tokenpool(&format!("{command} hive:default"));
        assert!(run.stdout.contains("\\u{1b}[31mred") && !run.stdout.contains('\u{1b}'), "{run:?}");
    }
}

/// A server with a pool that as many hold as there are units.
fn server_with_holders(holders: u32) -> Server {
    let server = Server::start();
    let config = Config::redis_at(server.url()).unwrap();
    let execution = ExecutionId::new("p", "d", "e").unwrap();
    let claimant = Claimant {
        execution: &execution,
        constraints: ResourceConstraintsSpec::NONE,
        holder: &Holder::new("test").unwrap(),
    };
    let claims: Vec<_> =
        (0..holders).map(|i| Claim::new(format!("t{i}").parse().unwrap(), Units::ONE)).collect();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let backend = config.open().await.unwrap();
        let pool = "hive:default".parse().unwrap();
        let quota = Quota::new(holders.into(), holders).unwrap();
        backend.change_quota(&pool, QuotaChange::Create(quota)).await.unwrap();
        let answers = backend.allocate(&pool, claimant, &claims).await.unwrap();
        assert!(answers.iter().all(|answer| answer.as_ref().unwrap().granted().is_some()));
    });
    server
}

#[test]
fn many_holders_are_listed_in_pages_under_one_header() {
    let server = server_with_holders(5000);
    let list = server.tokenpool("get holders hive:default -o json").exits_with(0).json();
    let members: BTreeSet<_> =
        list.as_array().unwrap().iter().map(|holder| holder["member"].to_string()).collect();
    assert_eq!(members.len(), 5000);
    let text = server.tokenpool("get holders hive:default").exits_with(0).stdout;
    let (header, rows) = text.split_once('\n').unwrap();
    let column = header.find("MEMBER").unwrap();
    assert_eq!(rows.lines().count(), 5000);
    assert!(rows.lines().all(|row| row[column..].starts_with("ex:p:d:e-t")));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let server = server_with_holders(5000);
    for (arguments, status) in [
        ("get holders hive:default", 0),
        ("get holders hive:default -o json", 0),
        ("completions bash", 0),
        // The answer is lost, but not the exit status.
        (&format!("allocate hive:default more {OF}"), 3),
    ] {
        let mut child = start(server.command(arguments).stdout(Stdio::piped()));
        drop(child.stdout.take());
        let run = wait(child).exits_with(status);
        assert_eq!(run.stderr, "", "{arguments}");
    }
}
