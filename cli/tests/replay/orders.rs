//! Whose turn it is, how fair that is, and the picture.

use std::fs;

use serde_json::{Value, json};

use super::{LogFile, line};
use crate::program::{Run, tokenpool};
use crate::server::Server;

/// Project 1 submits many jobs at once, project 2 one after them. One job runs at a time.
fn greedy() -> LogFile {
    let mut jobs = vec![(0, 10, 1, 1); 10];
    jobs.push((1, 10, 1, 2));
    LogFile::new(1, &jobs)
}

/// The longest wait of a project.
fn wait(summary: &Value, project: &str) -> Value {
    let projects = summary["projects"].as_array().unwrap();
    let found = projects.iter().find(|found| found["project"] == project).unwrap();
    found["wait_seconds"]["max"].clone()
}

/// The replay in memory and on a server; one replica, so that there is one order of submission.
fn both(log: &LogFile, options: &str) -> [Run; 2] {
    let command = format!("{} --replicas 1 {options}", log.replay());
    let server = Server::start();
    let runs = [tokenpool(&command), server.tokenpool(&command)];
    server.is_empty();
    runs
}

#[test]
fn the_order_decides_who_is_next() {
    let log = greedy();
    // What ran at once is not reckoned, so in fair order one more of the first project's runs before.
    for (order, waited) in [("fifo", 99), ("priority", 99), ("fair", 19)] {
        for run in both(&log, &format!("--order {order} -o json")) {
            let summary = run.exits_with(0).json();
            assert_eq!(summary["order"], order);
            assert_eq!(wait(&summary, "user-2"), waited, "{order}");
            assert_eq!(wait(&summary, "user-1"), if waited == 99 { 90 } else { 100 }, "{order}");
        }
    }
}

#[test]
fn fair_order_is_fairer_and_the_worst_come_first() {
    let log = greedy();
    let of = |order: &str| {
        let run = tokenpool(&format!("{} --order {order} -o json", log.replay()));
        run.exits_with(0).json()
    };
    let (fifo, fair) = (of("fifo"), of("fair"));
    assert!(fifo["fairness"].as_f64() < fair["fairness"].as_f64(), "{fifo} {fair}");
    assert_eq!(fifo["projects"][0]["project"], "user-2");
    assert_eq!(fair["projects"][0]["project"], "user-1");
    let text = tokenpool(&log.replay()).exits_with(0).stdout;
    let table = "\n\nprojects that waited longest:\n\
                 PROJECT  JOBS  MEAN WAIT  P50   P99   MAX   OF FAIR SHARE\n\
                 user-2   1     99 s       99 s  99 s  99 s  ";
    assert!(text.contains(table), "{text}");
}

#[test]
fn interactive_jobs_are_the_most_urgent_and_in_the_logs_time_nobody_starves() {
    // A job of 10 s each second from queue 1; at 50 one from queue 0, which stands for interactive.
    let text: String = (0..60)
        .map(|i| {
            let line = line(i + 1, &(i as u64, 10, 1, 1));
            let queue = if i == 50 { "0" } else { "1" };
            let mut fields: Vec<_> = line.split(' ').collect();
            fields[14] = queue;
            fields[11] = if i == 50 { "2" } else { "1" };
            fields.join(" ") + "\n"
        })
        .collect();
    let log = LogFile::of_bytes(format!("; MaxProcs: 1\n{text}"));
    let command = format!("{} --replicas 1 -o json --order ", log.replay());
    let wait_of = |order: &str| {
        let summary = tokenpool(&(command.clone() + order)).exits_with(0).json();
        wait(&summary, "user-2")
    };
    assert_eq!(wait_of("fifo"), json!(450));
    assert_eq!(wait_of("priority"), json!(10));
}

#[test]
fn many_projects_are_bounded_for_people_and_whole_for_programs() {
    let jobs: Vec<_> = (0..25).map(|user| (0, 10, 1, user + 1)).collect();
    let log = LogFile::new(1, &jobs);
    let summary = tokenpool(&(log.replay() + "-o json")).exits_with(0).json();
    assert_eq!(summary["projects"].as_array().unwrap().len(), 25);
    let text = tokenpool(&log.replay()).exits_with(0).stdout;
    assert!(text.contains("\nprojects that waited longest (10 of 25):\n"), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("user-")).count(), 10);
}

#[test]
fn the_order_of_a_pool_that_exists_is_left_alone() {
    let server = Server::start();
    let log = greedy();
    server.tokenpool("create pool a:b --quota 1").exits_with(0);
    server.tokenpool("update pool a:b --order fair").exits_with(0);
    server.tokenpool(&(log.replay() + "--pool a:b --order fifo")).fails_with(
        2,
        "--order fifo: pool a:b exists with order fair; leave --order out to use it, or name another with --pool",
    );
    for options in ["--pool a:b -o json", "--pool a:b --order fair -o json"] {
        let summary = server.tokenpool(&(log.replay() + options)).exits_with(0).json();
        assert_eq!(summary["order"], "fair");
    }
}

#[test]
fn the_units_in_use_are_drawn() {
    let (directory, log) = (tempfile::tempdir().unwrap(), greedy());
    let file = directory.path().join("use.svg");
    let plot = format!("{} --plot {}", log.replay(), file.display());
    tokenpool(&plot).exits_with(0);
    let svg = fs::read_to_string(&file).unwrap();
    assert!(svg.starts_with("<svg ") && svg.contains("units in use"), "{svg}");
    assert!(svg.contains("seconds of the log") && svg.contains("polygon"), "{svg}");
}

#[test]
fn a_picture_that_cannot_be_drawn_is_refused_before_anything_is_done() {
    let server = Server::start();
    let log = greedy();
    for (file, rule) in [
        ("use.png", "must end in .svg, the only format"),
        ("/no/such/directory/use.svg", "its directory must exist"),
    ] {
        server
            .tokenpool(&format!("{} --plot {file}", log.replay()))
            .fails_with(2, &format!("--plot: invalid file \"{file}\": {rule}"));
    }
    server.is_empty();
}
