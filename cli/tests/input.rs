//! Wrong usage and input, and where Redis is looked for.

use std::fs;

use crate::program::{command, run, tokenpool};
use crate::server::Server;

const NO_REDIS: &str =
    "give --redis URL, set TOKENPOOL_REDIS, or give a --config FILE with type redis";

#[test]
fn bad_values_are_named_with_field_and_rule_and_leave_redis_untouched() {
    let server = Server::start();
    let of = "--project p --domain d --execution e";
    let long = "x".repeat(256);
    let cases = [
        (
            "create pool hive --quota 1",
            "invalid resource namespace \"hive\": must be <plugin>:<name>",
        ),
        (
            "create pool hive: --quota 1",
            "invalid resource namespace \"hive:\": must not have an empty part",
        ),
        (
            "create pool hive:{x} --quota 1",
            "invalid resource namespace \"{x}\": must not contain '{'",
        ),
        (
            "create pool hive:default --quota 0",
            "invalid quota \"0\": must be between 1 and resourceMaxQuota, which is 1000",
        ),
        (
            "create pool hive:default --quota -1",
            "invalid quota \"-1\": must be between 1 and resourceMaxQuota, which is 1000",
        ),
        (
            "create pool hive:default --quota 1001",
            "invalid quota \"1001\": must be between 1 and resourceMaxQuota, which is 1000",
        ),
        (
            "update pool hive:default --quota -1",
            "invalid quota \"-1\": must be between 1 and resourceMaxQuota, which is 1000",
        ),
        ("get pool hive", "invalid resource namespace \"hive\": must be <plugin>:<name>"),
        ("get holders hive", "invalid resource namespace \"hive\": must be <plugin>:<name>"),
        ("delete pool hive", "invalid resource namespace \"hive\": must be <plugin>:<name>"),
        ("check hive", "invalid resource namespace \"hive\": must be <plugin>:<name>"),
        ("repair hive", "invalid resource namespace \"hive\": must be <plugin>:<name>"),
        (
            &format!("allocate hive:default t {of} --units 0"),
            "invalid units \"0\": must be between 1 and 4294967295",
        ),
        (
            &format!("allocate hive:default t {of} --units -7"),
            "invalid units \"-7\": must be between 1 and 4294967295",
        ),
        (
            &format!("allocate hive:default t {of} --project-cap -1"),
            "--project-cap: invalid cap \"-1\": must not be negative; 0 closes the scope",
        ),
        (
            &format!("allocate hive:default t {of} --namespace-cap -1"),
            "--namespace-cap: invalid cap \"-1\": must not be negative; 0 closes the scope",
        ),
        (
            "allocate hive:default t --project p:q --domain d --execution e",
            "invalid project \"p:q\": must not contain ':'",
        ),
        (
            "allocate hive:default t --project p --domain {d --execution e",
            "invalid domain \"{d\": must not contain '{'",
        ),
        (
            &format!("allocate hive:default {long} {of}"),
            &format!("invalid token \"{long}\": must not be longer than 255 bytes, is 256"),
        ),
        (
            &format!("allocate hive:default t {of} --lease 99ms"),
            "invalid lease \"99ms\": must be between 100ms and 7days",
        ),
        (
            &format!("allocate hive:default t {of} --lease 8days"),
            "invalid lease \"8days\": must be between 100ms and 7days",
        ),
        (
            &format!("allocate hive:default t {of} --wait=0s"),
            "--wait: invalid time limit \"0s\": must be longer than 0; allocate does not wait at all",
        ),
        (
            &format!("allocate hive:default t {of} --wait --priority 10"),
            "invalid priority \"10\": must be between 0 and 9",
        ),
        (
            &format!("allocate hive:default t {of} --wait --priority -1"),
            "invalid priority \"-1\": must be between 0 and 9",
        ),
        (
            &format!("renew hive:default t {of} --lease 99ms"),
            "invalid lease \"99ms\": must be between 100ms and 7days",
        ),
        (
            &format!("release hive:default t {of} --force --reason r --operator {long}"),
            &format!("invalid operator \"{long}\": must not be longer than 255 bytes, is 256"),
        ),
        (
            &format!("explain hive:default {long} {of}"),
            &format!("invalid token \"{long}\": must not be longer than 255 bytes, is 256"),
        ),
        ("get tickets hive", "invalid resource namespace \"hive\": must be <plugin>:<name>"),
        ("get revocations hive", "invalid resource namespace \"hive\": must be <plugin>:<name>"),
        ("exec hive -- true", "invalid resource namespace \"hive\": must be <plugin>:<name>"),
        (
            "exec hive:default --lease 99ms -- true",
            "invalid lease \"99ms\": must be between 100ms and 7days",
        ),
        (
            "exec hive:default --units 0 -- true",
            "invalid units \"0\": must be between 1 and 4294967295",
        ),
        ("exec hive:default -p a:b -- true", "invalid project \"a:b\": must not contain ':'"),
        (
            "replay log --quota 0",
            "--quota: invalid quota \"0\": must be between 1 and resourceMaxQuota, which is 4294967295",
        ),
        (
            "replay log --quota 1 --project-cap -1",
            "--project-cap: invalid cap \"-1\": must not be negative; 0 closes the scope",
        ),
        (
            "replay log --quota 1 --pool x",
            "invalid resource namespace \"x\": must be <plugin>:<name>",
        ),
    ];
    for (arguments, error) in cases {
        server.tokenpool(arguments).fails_with(2, error);
    }
    let mut empty = server.command("create pool --quota 1");
    run(empty.arg("")).fails_with(2, "invalid resource namespace \"\": must be <plugin>:<name>");
    let mut empty = server.command("release hive:default --force --reason r --member");
    run(empty.arg("")).fails_with(2, "--member: must not be empty");
    let mut empty = server.command("release hive:default --force --member t --reason");
    run(empty.arg("")).fails_with(2, "invalid reason \"\": must not be empty");
    server.is_empty();
}

#[test]
fn wrong_usage_has_status_2_and_leaves_redis_untouched() {
    let server = Server::start();
    for arguments in [
        "",
        "frobnicate",
        "get",
        "create pool hive:default",
        "create pool hive:default --quota many",
        "create pool hive:default --quota 99999999999999999999",
        "update pool hive:default",
        "update pool hive:default --quota 1 --unpin",
        "allocate hive:default t --project p --domain d",
        "release hive:default",
        "release hive:default t",
        "release hive:default t --project p --domain d",
        "release hive:default t --project p --domain d --execution e --member ex:p:d:e-t",
        "release hive:default --member ex:p:d:e-t --project p",
        "release hive:default --member ex:p:d:e-t",
        "release hive:default --member ex:p:d:e-t --force",
        "release hive:default --member ex:p:d:e-t --reason r",
        "release hive:default t --project p --domain d --execution e --operator o",
        "allocate hive:default t --project p --domain d --execution e --priority 1",
        "allocate hive:default t --project p --domain d --execution e --lease soon",
        "allocate hive:default t --project p --domain d --execution e --wait=soon",
        "renew hive:default t --project p --domain d --execution e",
        "renew hive:default --project p --domain d --execution e --lease 1s",
        "explain hive:default --project p --domain d --execution e",
        "exec hive:default",
        "exec hive:default true",
        "exec hive:default --keep-running --grace 1s -- true",
        "get revocations hive:default --last 0",
        "replay log --order lifo",
        "get pools -o yaml",
        "completions sh",
        "replay",
        "replay log --replicas 0",
        "replay log --replicas -1",
    ] {
        let run = server.tokenpool(arguments).exits_with(2);
        assert_eq!(run.stdout, "", "{arguments}");
        assert!(run.stderr.contains("Usage:") || run.stderr.contains("--help"), "{run:?}");
    }
    server.is_empty();
}

#[test]
fn help_and_completions_need_nothing() {
    for arguments in [
        "--help",
        "-h",
        "--version",
        "replay --help",
        "exec --help",
        "create pool --help",
        "completions bash",
        "completions zsh",
    ] {
        let run = tokenpool(arguments).exits_with(0);
        assert!(run.stdout.contains("tokenpool") && run.stderr.is_empty(), "{run:?}");
    }
    let help = tokenpool("--help").stdout;
    assert!(help.contains("Exit status:") && help.contains("TOKENPOOL_REDIS"), "{help}");
}

#[test]
fn without_a_redis_an_operator_is_told_the_three_ways() {
    for arguments in ["get pools", "create pool a:b --quota 1", "check a:b"] {
        let error = format!("this command needs a Redis: {NO_REDIS}");
        tokenpool(arguments).fails_with(2, &error);
        run(command(arguments).env("TOKENPOOL_REDIS", "")).fails_with(2, &error);
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("memory.yaml");
    fs::write(&file, "type: memory").unwrap();
    let file = file.display();
    tokenpool(&format!("get pools --config {file}")).fails_with(
        2,
        &format!("type memory in {file} keeps no pools that this command could see: {NO_REDIS}"),
    );
}

#[test]
fn redis_is_found_by_option_variable_and_file() {
    let server = Server::start();
    let url = server.url();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.yaml");
    tokenpool(&format!("create pool a:b --quota 1 --redis {url}")).exits_with(0);
    // The option wins over the variable.
    let other = "unix:///nonexistent/socket";
    run(command(&format!("get pool a:b --redis {url}")).env("TOKENPOOL_REDIS", other))
        .exits_with(0);
    run(command("get pool a:b").env("TOKENPOOL_REDIS", &url)).exits_with(0);

    fs::write(&file, format!("type: redis\nresourceMaxQuota: 3\nredis:\n  url: {url}\n")).unwrap();
    let config = file.display();
    tokenpool(&format!("get pool a:b --config {config}")).exits_with(0);
    tokenpool(&format!("update pool a:b --quota 4 --config {config}"))
        .fails_with(2, "invalid quota \"4\": must be between 1 and resourceMaxQuota, which is 3");

    // The URL stands for address, password and type; the rest of the file is kept.
    let elsewhere =
        "type: noop\nresourceMaxQuota: 3\nredis:\n  hostPath: 127.0.0.1:1\n  hostKey: x\n";
    fs::write(&file, elsewhere).unwrap();
    tokenpool(&format!("get pool a:b --config {config} --redis {url}")).exits_with(0);
    tokenpool(&format!("update pool a:b --quota 4 --config {config} --redis {url}"))
        .fails_with(2, "invalid quota \"4\": must be between 1 and resourceMaxQuota, which is 3");
}

#[test]
fn a_bad_configuration_is_named_with_its_key() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.yaml");
    let get = format!("get pools --config {}", file.display());
    let run = tokenpool(&get).exits_with(2);
    assert!(run.stderr.contains("config.yaml: cannot be read"), "{run:?}");
    fs::write(&file, "type: redis\nredis:\n  hostPat: x\n").unwrap();
    let run = tokenpool(&get).exits_with(2);
    assert!(run.stderr.contains("hostPat"), "{run:?}");
    for (url, problem) in [
        ("http://localhost", "must be redis[s]://"),
        ("rediss://localhost#insecure", "servers are always verified"),
        ("nonsense", "must be redis[s]://"),
    ] {
        let run = tokenpool(&format!("get pools --redis {url}")).exits_with(2);
        assert!(
            run.stderr.starts_with("error: --redis: ") && run.stderr.contains(problem),
            "{run:?}"
        );
    }
    let mut empty = command("get pools");
    let run = crate::program::run(empty.args(["--redis", ""])).exits_with(2);
    assert!(run.stderr.contains("must be redis[s]://"), "{run:?}");
}

#[test]
fn a_server_that_is_down_is_a_failure() {
    let mut server = Server::start();
    server.kill();
    let run = server.tokenpool("get pools -o json").exits_with(1);
    assert!(
        run.stderr.starts_with("error: connect: ") && run.stderr.contains(" is not available: "),
        "{run:?}"
    );
    assert_eq!((run.stdout.as_str(), run.stderr.lines().count()), ("", 1));
}

#[test]
fn somebody_elses_data_under_our_key_is_named_and_left_alone() {
    let server = Server::start();
    server.tokenpool("create pool a:b --quota 1").exits_with(0);
    server.ask::<()>("SET redisresourcemanager:a:b mine");
    server.tokenpool("allocate a:b t --project p --domain d --execution e").fails_with(
        1,
        "key \"redisresourcemanager:a:b\" holds a string where this library keeps a set",
    );
    assert_eq!(server.ask::<String>("GET redisresourcemanager:a:b"), "mine");
}
