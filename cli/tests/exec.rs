//! Commands that run while they hold units.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use serde_json::json;

use crate::program::{Run, run, signal, start, wait};
use crate::server::Server;

/// The program with a command, in a process group of its own: not that of a terminal.
fn exec(server: &Server, options: &str, command: &[&str]) -> Command {
    let mut program = server.command(&format!("exec hive:default {options} --"));
    program.args(command).process_group(0);
    program
}

fn executed(server: &Server, options: &str, command: &[&str]) -> Run {
    run(&mut exec(server, options, command))
}

fn in_use(server: &Server) -> u64 {
    server.tokenpool("get pool hive:default -o json").exits_with(0).json()["in_use"]
        .as_u64()
        .unwrap()
}

/// Starts the program with a command that says when it is ready, and waits for that.
fn ready(program: &mut Command) -> Child {
    let mut child = start(program);
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    child
}

/// A shell script that ends with a status when a signal comes, and says when it is ready for that.
fn on_signal(name: &str, status: i32) -> String {
    // A shell sees to signals between two commands.
    format!("trap 'exit {status}' {name}; echo ready; while :; do sleep 0.05; done")
}

/// Takes away what the only holder holds.
fn revoke(server: &Server) {
    let holders = server.tokenpool("get holders hive:default -o json").exits_with(0).json();
    let member = holders[0]["member"].as_str().unwrap();
    let revoke = format!("release hive:default --member {member} --force --reason test -o json");
    assert_eq!(server.tokenpool(&revoke).exits_with(0).json()["released"], true);
}

#[test]
fn the_exit_status_is_handed_on_and_the_units_are_back() {
    let server = Server::with_pool(1);
    for status in [0, 1, 3, 7, 255] {
        let run = executed(&server, "", &["sh", "-c", &format!("exit {status}")]);
        run.exits_with(status);
        assert_eq!(in_use(&server), 0);
    }
    executed(&server, "", &["sh", "-c", "kill -KILL $$"]).exits_with(137);
    executed(&server, "", &["sh", "-c", "kill -USR1 $$"]).exits_with(128 + 10);
    assert_eq!(in_use(&server), 0);
}

#[test]
fn the_command_runs_with_its_input_its_output_and_the_names_of_its_grant() {
    let server = Server::with_pool(3);
    let script = "cat; echo $TOKENPOOL_NAMESPACE $TOKENPOOL_TOKEN $TOKENPOOL_FENCING; \
                  echo oh >&2";
    let options = "--token t --units 2 -p research -d dev --execution nightly";
    let mut program = exec(&server, options, &["sh", "-c", script]);
    let mut child = start(program.stdin(Stdio::piped()));
    server.until_held(1);
    let holders = server.tokenpool("get holders hive:default -o json").exits_with(0).json();
    assert_eq!(
        (&holders[0]["member"], &holders[0]["units"], &holders[0]["execution"]),
        (&json!("ex:research:dev:nightly-t"), &json!(2), &json!("nightly"))
    );
    assert!(holders[0]["lease_left_ms"].as_u64().unwrap() <= 30_000, "{holders}");
    child.stdin.take().unwrap().write_all(b"in\n").unwrap();
    let run = wait(child).exits_with(0);
    let number = &holders[0]["fencing_number"];
    assert_eq!(run.stdout, format!("in\nhive:default t {number}\n"));
    assert_eq!(run.stderr, "oh\n");
}

#[test]
fn runs_of_the_same_command_do_not_share_their_units() {
    let server = Server::with_pool(1);
    let nested = format!("{} exec hive:default -- true", env!("CARGO_BIN_EXE_tokenpool"));
    let run = executed(&server, "", &["sh", "-c", &nested]).exits_with(3);
    assert_eq!(run.stderr, "error: refused: quota of the pool: 1 of 1 in use, 1 wanted\n");
}

#[test]
fn signals_are_passed_on() {
    let server = Server::with_pool(1);
    for (number, name) in ["INT", "TERM", "HUP", "QUIT", "USR1", "USR2"].iter().enumerate() {
        let status = 40 + number as i32;
        let script = on_signal(name, status);
        let child = ready(&mut exec(&server, "", &["sh", "-c", &script]));
        signal(&child, name);
        wait(child).exits_with(status);
        assert_eq!(in_use(&server), 0);
    }
}

#[test]
fn a_command_that_is_ended_gives_its_units_back() {
    let server = Server::with_pool(1);
    for (name, status) in [("TERM", 143), ("INT", 130)] {
        let child = ready(&mut exec(&server, "", &["sh", "-c", "echo ready; exec sleep 1000"]));
        signal(&child, name);
        wait(child).exits_with(status);
        assert_eq!(in_use(&server), 0);
    }
}

#[test]
fn what_a_killed_program_held_returns_with_its_lease() {
    let server = Server::with_pool(1);
    let mut program = exec(&server, "--lease 1s", &["cat"]);
    let mut child = start(program.stdin(Stdio::piped()));
    server.until_held(1);
    child.kill().unwrap();
    child.wait().unwrap();
    executed(&server, "--wait", &["true"]).exits_with(0);
    // Only now: the command outlives the program.
    drop(child.stdin.take());
}

#[test]
fn a_command_that_loses_its_units_is_ended() {
    let server = Server::with_pool(1);
    let script = on_signal("TERM", 9);
    let child = ready(&mut exec(&server, "--lease 3s", &["sh", "-c", &script]));
    revoke(&server);
    let run = wait(child).exits_with(9);
    let error = "error: 1 unit(s) of hive:default are lost; ending the command\n";
    assert!(run.stderr.ends_with(error), "{run:?}");
}

#[test]
fn a_command_that_does_not_end_in_time_is_killed() {
    let server = Server::with_pool(1);
    let child = ready(&mut exec(
        &server,
        "--lease 3s --grace 50ms",
        &["sh", "-c", "trap '' TERM; echo ready; exec sleep 1000"],
    ));
    revoke(&server);
    let run = wait(child).exits_with(137);
    assert!(
        run.stderr.ends_with("error: the command has not ended in time; killing it\n"),
        "{run:?}"
    );
}

#[test]
fn a_command_may_run_on_without_its_units() {
    let server = Server::with_pool(1);
    let script = "echo ready; cat; exit 5";
    let mut program = exec(&server, "--lease 3s --keep-running", &["sh", "-c", script]);
    let mut child = ready(program.stdin(Stdio::piped()));
    revoke(&server);
    let mut errors = BufReader::new(child.stderr.take().unwrap()).lines();
    let warning = "warning: 1 unit(s) of hive:default are lost; the command runs on";
    assert!(errors.any(|line| line.unwrap() == warning));
    drop(child.stdin.take());
    assert_eq!(wait(child).status, 5);
}

#[test]
fn a_server_that_is_gone_for_the_whole_lease_ends_the_command() {
    let mut server = Server::with_pool(1);
    let child =
        ready(&mut exec(&server, "--lease 1s", &["sh", "-c", "echo ready; exec sleep 1000"]));
    server.kill();
    let run = wait(child).exits_with(143);
    assert!(run.stderr.contains("are lost; ending the command"), "{run:?}");
    assert!(run.stderr.contains("return with their lease: "), "{run:?}");
}

#[test]
fn units_that_are_not_free_are_refused_and_nothing_runs() {
    let server = Server::with_pool(1);
    server.tokenpool("allocate hive:default t --project p --domain d --execution e").exits_with(0);
    executed(&server, "-o json", &["echo", "ran"])
        .fails_with(3, "refused: quota of the pool: 1 of 1 in use, 1 wanted");
    executed(&server, "--wait=10ms", &["echo", "ran"])
        .fails_with(3, "refused: time is up at position 1 (quota of the pool: 1 of 1 in use)");
    executed(&server, "--units 2 --wait", &["echo", "ran"]).fails_with(
        2,
        "2 unit(s) of hive:default can never be granted: the quota of the pool is 1",
    );
    server.until_waiting(0);
}

#[test]
fn a_waiting_command_runs_when_another_releases() {
    let server = Server::with_pool(1);
    let claimed = "hive:default t --project p --domain d --execution e";
    server.tokenpool(&format!("allocate {claimed}")).exits_with(0);
    let child = start(&mut exec(&server, "--wait", &["echo", "ran"]));
    server.until_waiting(1);
    server.tokenpool(&format!("release {claimed}")).exits_with(0);
    assert_eq!(wait(child).exits_with(0).stdout, "ran\n");
    assert_eq!(in_use(&server), 0);
}

/// As under `nohup`: the command's parent, which is `exec`, and the command itself outlive HUP.
#[test]
fn what_is_ignored_from_the_start_stays_so() {
    let server = Server::with_pool(1);
    let program = exec(&server, "", &["sh", "-c", "kill -HUP $PPID; kill -HUP $$; exit 5"]);
    let mut ignoring = Command::new("sh");
    ignoring.args(["-c", "trap '' HUP; exec \"$0\" \"$@\""]).arg(program.get_program());
    ignoring.args(program.get_args());
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => ignoring.env(name, value),
            None => ignoring.env_remove(name),
        };
    }
    wait(start(&mut ignoring)).exits_with(5);
}

#[test]
fn a_waiting_command_that_is_interrupted_never_runs() {
    let server = Server::with_pool(1);
    server.tokenpool("allocate hive:default t --project p --domain d --execution e").exits_with(0);
    for (name, status) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let child = start(&mut exec(&server, "--wait", &["echo", "ran"]));
        server.until_waiting(1);
        signal(&child, name);
        wait(child).fails_with(status, "interrupted while waiting; the ticket is withdrawn");
        server.until_waiting(0);
    }
}

#[test]
fn a_command_that_cannot_be_run_gives_its_units_back() {
    let server = Server::with_pool(1);
    executed(&server, "", &["no-such-command"])
        .fails_with(127, "no-such-command: command not found");
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path().to_str().unwrap();
    let run = executed(&server, "", &[directory]).exits_with(126);
    assert!(run.stderr.starts_with(&format!("error: {directory}: cannot be run: ")), "{run:?}");
    assert_eq!(in_use(&server), 0);
    server.until_held(0);
}
