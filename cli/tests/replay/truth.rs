//! Whether a replay tells the truth, by logs whose answers are known.

use std::io::Read;

use flate2::read::GzDecoder;
use serde_json::{Value, json};

use super::{LogFile, NASA, crowded};
use crate::program::tokenpool;
use crate::server::Server;

const KEYS: &str = r#"{"backend":"memory","replicas":3,"jobs":3,"granted":3,"refusals":"#;

fn waits(summary: &Value) -> [u64; 4] {
    ["p50", "p90", "p99", "max"].map(|name| summary["wait_seconds"][name].as_u64().unwrap())
}

#[track_caller]
fn in_order(summary: &Value) {
    assert_eq!(
        (&summary["overgrants"], &summary["still_held"]),
        (&json!(0), &json!(0)),
        "{summary}"
    );
    assert!(summary["units_peak"].as_u64() <= summary["quota"].as_u64(), "{summary}");
}

#[test]
fn jobs_that_need_the_whole_pool_run_one_after_the_other() {
    let server = Server::start();
    let log = LogFile::new(2, &[(0, 10, 2, 1), (0, 10, 2, 2), (0, 10, 2, 3)]);
    let command = log.replay() + "-o json";
    for (backend, run) in [("memory", tokenpool(&command)), ("redis", server.tokenpool(&command))] {
        let summary = run.exits_with(0).json();
        assert_eq!(summary["backend"], backend);
        assert_eq!(waits(&summary), [10, 20, 20, 20]);
        assert_eq!((&summary["granted"], &summary["units_peak"]), (&json!(3), &json!(2)));
        in_order(&summary);
    }
    server.is_empty();
}

#[test]
fn nobody_passes_a_large_job_that_waits() {
    // 1 holds 3 of 4 until 100. 2 wants 4 and runs from 100 to 110. 3 would fit beside 1, but waits.
    let log = LogFile::new(4, &[(0, 100, 3, 1), (5, 10, 4, 1), (6, 200, 1, 1)]);
    let summary = tokenpool(&(log.replay() + "-o json")).exits_with(0).json();
    assert_eq!(waits(&summary), [95, 104, 104, 104]);
    assert_eq!(summary["refusals"], 2);
    in_order(&summary);
}

#[test]
fn what_ends_in_a_second_is_free_in_the_same_second() {
    let log = LogFile::new(1, &[(0, 10, 1, 1), (10, 10, 1, 1), (20, 0, 1, 1), (20, 5, 1, 1)]);
    let summary = tokenpool(&(log.replay() + "-o json --replicas 4")).exits_with(0).json();
    // The job of run time 0 and the last one come at once; the loser waits 0 or 5 seconds.
    assert!(matches!(waits(&summary), [0, 0 | 5, 0 | 5, 0 | 5]), "{summary}");
    assert_eq!((&summary["granted"], &summary["units_peak"]), (&json!(4), &json!(1)));
    in_order(&summary);
}

#[test]
fn caps_make_projects_and_domains_wait_for_themselves_only() {
    let server = Server::start();
    // User 1 may have 2 of 4: the second job waits for the first. User 2 does not wait.
    let log = LogFile::new(4, &[(0, 10, 2, 1), (0, 10, 2, 1), (0, 10, 2, 2)]);
    for cap in ["--project-cap 2", "--namespace-cap 2"] {
        let command = format!("{} {cap} -o json", log.replay());
        for run in [tokenpool(&command), server.tokenpool(&command)] {
            let summary = run.exits_with(0).json();
            assert_eq!(waits(&summary), [0, 10, 10, 10]);
            assert_eq!(summary["units_peak"], 4);
            in_order(&summary);
        }
    }
    let summary = tokenpool(&(log.replay() + "--project-cap 0 -o json")).exits_with(0).json();
    assert_eq!((&summary["granted"], &summary["too_large"]), (&json!(0), &json!(3)));
    assert_eq!(
        summary["wait_seconds"],
        json!({"p50": null, "p90": null, "p99": null, "max": null})
    );
}

#[test]
fn the_summary_has_exactly_these_fields_in_this_order() {
    let log = LogFile::new(2, &[(0, 10, 2, 1), (0, 10, 2, 2), (0, 10, 2, 3)]);
    let text = tokenpool(&(log.replay() + "-o json")).exits_with(0).stdout;
    let (refusals, rest) = text.strip_prefix(KEYS).unwrap().split_once(',').unwrap();
    assert_eq!(refusals, "2");
    let (middle, end) = rest.split_once(r#""elapsed_seconds":"#).unwrap();
    assert_eq!(
        middle,
        r#""units_peak":2,"quota":2,"overgrants":0,"still_held":0,"wait_seconds":{"p50":10,"p90":20,"p99":20,"max":20},"#
    );
    let (elapsed, end) = end.split_once(',').unwrap();
    assert!(elapsed.parse::<f64>().unwrap() >= 0.0, "{text}");
    let (head, projects) = end.split_once('[').unwrap();
    let (head, fairness) = head.split_once(r#""fairness":"#).unwrap();
    assert_eq!(head, r#""too_large":0,"skipped":0,"order":"fifo","#);
    assert!(fairness.strip_suffix(r#","projects":"#).unwrap().parse::<f64>().is_ok(), "{text}");
    // Which of them was last is for the replicas to find out.
    let (first, rest) = projects.split_once(r#","jobs":1,"#).unwrap();
    assert!(first.starts_with(r#"{"project":"user-"#), "{text}");
    let waits = r#""wait_seconds":{"mean":20.0,"p50":20,"p99":20,"max":20},"of_fair_share":"#;
    assert!(rest.starts_with(waits) && rest.ends_with("}]}\n"), "{text}");
}

#[test]
fn people_get_a_summary_and_no_progress_where_no_terminal_is() {
    let log = LogFile::new(2, &[(0, 10, 2, 1), (0, 10, 2, 2), (0, 10, 2, 3)]);
    let run = tokenpool(&log.replay()).exits_with(0);
    assert_eq!(run.stderr, "");
    for line in [
        "backend        memory",
        "overgrants     0",
        "wait           p50 10 s, p90 20 s, p99 20 s, max 20 s",
    ] {
        assert!(run.stdout.lines().any(|found| found == line), "{}", run.stdout);
    }
}

#[test]
fn a_job_larger_than_the_quota_is_reported_and_not_waited_for() {
    let log = LogFile::new(4, &[(0, 10, 5, 1), (0, 10, 4, 1), (1, 10, 9, 1)]);
    let run = tokenpool(&(log.replay() + "-o json")).exits_with(0);
    assert_eq!(
        run.stderr,
        "warning: 2 job(s) are larger than the quota or a cap and were left out: 1 (5 units), 3 (9 units)\n"
    );
    let summary = run.json();
    assert_eq!(
        (&summary["jobs"], &summary["granted"], &summary["too_large"]),
        (&json!(3), &json!(1), &json!(2))
    );
    in_order(&summary);
}

#[test]
fn jobs_that_did_not_run_are_skipped_and_counted() {
    let log = LogFile::new(4, &[(0, -1, 4, 1), (0, 10, 4, 1)]);
    let summary = tokenpool(&(log.replay() + "-o json")).exits_with(0).json();
    assert_eq!((&summary["jobs"], &summary["skipped"]), (&json!(1), &json!(1)));
}

#[test]
fn a_backend_that_does_not_keep_to_the_quota_is_found_out() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("noop.yaml");
    std::fs::write(&config, "type: noop").unwrap();
    let log = LogFile::new(2, &[(0, 10, 2, 1), (0, 10, 2, 2), (0, 10, 2, 3)]);
    let command = format!("{} --config {} -o json", log.replay(), config.display());
    let summary = tokenpool(&command).exits_with(1).json();
    assert_eq!(summary["backend"], "noop");
    assert_eq!((&summary["units_peak"], &summary["overgrants"]), (&json!(6), &json!(2)));
}

#[test]
fn the_whole_nasa_log_runs_in_memory_without_one_unit_too_many() {
    for replicas in [1, 3, 8] {
        let command = format!("replay {NASA} --replicas {replicas} -o json");
        let summary = tokenpool(&command).exits_with(0).json();
        assert_eq!((&summary["jobs"], &summary["granted"]), (&json!(18239), &json!(18239)));
        assert_eq!((&summary["replicas"], &summary["quota"]), (&json!(replicas), &json!(128)));
        in_order(&summary);
    }
}

#[test]
fn the_beginning_of_the_nasa_log_runs_on_redis_without_one_unit_too_many() {
    let mut text = String::new();
    GzDecoder::new(std::fs::File::open(NASA).unwrap()).read_to_string(&mut text).unwrap();
    let beginning: Vec<_> = text.lines().take(3000).collect();
    let log = LogFile::of_bytes(beginning.join("\n"));
    let server = Server::start();
    let summary = server.tokenpool(&(log.replay() + "--quota 64 -o json")).exits_with(0).json();
    assert_eq!((&summary["backend"], &summary["replicas"]), (&json!("redis"), &json!(3)));
    assert!(summary["granted"].as_u64().unwrap() > 2000, "{summary}");
    assert!(summary["refusals"].as_u64().unwrap() > 0, "{summary}");
    in_order(&summary);
    server.is_empty();
}

#[test]
fn a_crowded_pool_is_used_up_and_never_exceeded() {
    let server = Server::start();
    let log = crowded(16, 1000);
    let command = log.replay() + "--replicas 5 --project-cap 8 -o json";
    for run in [tokenpool(&command), server.tokenpool(&command)] {
        let summary = run.exits_with(0).json();
        let (granted, too_large) = (&summary["granted"], &summary["too_large"]);
        assert_eq!(granted.as_u64().unwrap() + too_large.as_u64().unwrap(), 1000);
        assert_eq!(summary["units_peak"], 16);
        in_order(&summary);
    }
    server.is_empty();
}
