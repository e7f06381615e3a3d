//! Pools that others use, too: other replays, holders, operators.

use super::{LogFile, crowded};
use crate::program::{start, wait};
use crate::server::Server;

const OF: &str = "--project p --domain d --execution e";

#[test]
fn three_processes_share_a_pool_and_never_exceed_it() {
    let server = Server::start();
    let log = crowded(16, 600);
    let pool = "replay:shared";
    server.tokenpool(&format!("create pool {pool} --quota 16")).exits_with(0);
    let command = format!("{} --pool {pool} --replicas 4 -o json", log.replay());
    let mut replays: Vec<_> = (0..3).map(|_| start(&mut server.command(&command))).collect();

    // Units in use, as Redis itself knows them and in one step, until all have ended.
    let usage = format!("HMGET {{redisresourcemanager:{pool}}}:usage quota issued issue_limit");
    let (mut most, mut samples) = (0, 0);
    while replays.iter_mut().any(|replay| replay.try_wait().unwrap().is_none()) {
        let [quota, issued, issue_limit] = server.ask::<[i64; 3]>(&usage);
        most = most.max(quota - (issue_limit - issued));
        samples += 1;
    }
    assert!((1..=16).contains(&most), "{most} units in use");
    assert!(samples > 10, "{samples} samples");

    for replay in replays {
        let summary = wait(replay).exits_with(0).json();
        assert_eq!((&summary["granted"], &summary["overgrants"]), (&600.into(), &0.into()));
        assert_eq!(summary["still_held"], 0);
    }
    let pool = server.tokenpool(&format!("get pool {pool} -o json")).exits_with(0).json();
    assert_eq!((&pool["in_use"], &pool["holders"]), (&0.into(), &0.into()));
    server.tokenpool("check replay:shared").exits_with(0);
}

#[test]
fn a_replay_waits_for_units_that_others_hold() {
    let server = Server::start();
    server.tokenpool("create pool a:b --quota 2").exits_with(0);
    server.tokenpool(&format!("allocate a:b t {OF}")).exits_with(0);
    let log = LogFile::new(2, &[(0, 10, 2, 1), (5, 10, 1, 2)]);
    let replay = start(&mut server.command(&(log.replay() + "--pool a:b -o json")));
    let calls = || {
        let statistics: String = server.ask("INFO commandstats");
        let calls = statistics.split("cmdstat_evalsha:calls=").nth(1);
        calls.map_or(0, |calls| calls.split(',').next().unwrap().parse().unwrap())
    };
    // It has tried again and again, with nothing happening in its log.
    let before: u64 = calls();
    while calls() < before + 30 {
        std::thread::yield_now();
    }
    server.tokenpool(&format!("release a:b t {OF}")).exits_with(0);
    let summary = wait(replay).exits_with(0).json();
    // Its clock stood still at 15, the end of the smaller job.
    assert_eq!((&summary["granted"], &summary["wait_seconds"]["max"]), (&2.into(), &15.into()));
    let pool = server.tokenpool("get pool a:b -o json").exits_with(0).json();
    assert_eq!((&pool["quota"], &pool["in_use"]), (&2.into(), &0.into()));
}

#[test]
fn the_units_of_others_are_not_its_own() {
    let server = Server::start();
    server.tokenpool("create pool a:b --quota 3").exits_with(0);
    server.tokenpool(&format!("allocate a:b t {OF}")).exits_with(0);
    let log = LogFile::new(2, &[(0, 10, 2, 1), (5, 10, 2, 2)]);
    let summary = server.tokenpool(&(log.replay() + "--pool a:b -o json")).exits_with(0).json();
    assert_eq!((&summary["quota"], &summary["still_held"]), (&3.into(), &0.into()));
    assert_eq!(server.tokenpool("get pool a:b -o json").json()["in_use"], 1);
}

#[test]
fn the_quota_of_a_pool_that_exists_is_left_alone() {
    let server = Server::start();
    let log = LogFile::new(2, &[(0, 10, 2, 1), (5, 10, 2, 2)]);
    server.tokenpool("create pool a:b --quota 7").exits_with(0);
    server.tokenpool("update pool a:b --quota 5").exits_with(0);
    let pool = || server.tokenpool("get pool a:b -o json").exits_with(0).json();
    let before = pool();
    server.tokenpool(&(log.replay() + "--pool a:b --quota 7")).fails_with(
        2,
        "--quota 7: pool a:b exists with quota 5; leave --quota out to use it, or name another with --pool",
    );
    assert_eq!(pool(), before);
    for options in ["--pool a:b -o json", "--pool a:b --quota 5 -o json"] {
        let summary = server.tokenpool(&(log.replay() + options)).exits_with(0).json();
        assert_eq!(summary["quota"], 5);
        let after = pool();
        for field in ["quota", "registered", "pinned", "in_use"] {
            assert_eq!(after[field], before[field], "{field}");
        }
    }
}
