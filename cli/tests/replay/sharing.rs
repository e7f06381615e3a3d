//! Pools that others use, too: other replays, holders, operators.

use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::join_all;
use tokenpool::{
    AllocationToken, Claim, Claimant, Config, ExecutionId, Holder, PoolName,
    ResourceConstraintsSpec, Units,
};

use super::{LogFile, crowded};
use crate::program::{start, wait};
use crate::server::Server;

const OF: &str = "--project p --domain d --execution e";

/// Claims and releases in one process, with 64 connections, until told to stop; answers how often.
fn sixty_four_clients(url: &str, pool: &str, stop: &AtomicBool) -> u64 {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let caps = ResourceConstraintsSpec::new(Some(5), None).unwrap();
    let client = async |i: i64| {
        let backend = Config::redis_at(url).unwrap().open().await.unwrap();
        let pool = PoolName::new(pool).unwrap();
        let holder = Holder::of_this_process();
        let execution = ExecutionId::new("clients", "development", &format!("e{i}")).unwrap();
        let claimant = Claimant { execution: &execution, constraints: caps, holder: &holder };
        let token = AllocationToken::new("t").unwrap();
        let claim = Claim::new(token.clone(), Units::new(1 + i % 3).unwrap());
        let mut granted = 0;
        while !stop.load(Ordering::Relaxed) {
            let claims = std::slice::from_ref(&claim);
            let answer = backend.allocate(&pool, claimant, claims).await.unwrap().remove(0);
            if answer.unwrap().granted().is_some() {
                granted += 1;
                backend.release(&pool, &execution, std::slice::from_ref(&token)).await.unwrap();
            }
        }
        granted
    };
    runtime.block_on(async { join_all((0..64).map(client)).await.into_iter().sum() })
}

#[test]
fn three_processes_and_sixty_four_clients_share_a_pool_and_never_exceed_it() {
    let server = Server::start();
    let log = crowded(16, 600);
    let pool = "replay:shared";
    server.tokenpool(&format!("create pool {pool} --quota 16")).exits_with(0);
    let command = format!("{} --pool {pool} --replicas 4 -o json", log.replay());
    let stop = AtomicBool::new(false);
    let granted = std::thread::scope(|scope| {
        let clients = scope.spawn(|| sixty_four_clients(&server.url(), pool, &stop));
        let mut replays: Vec<_> = (0..3).map(|_| start(&mut server.command(&command))).collect();

        // What the records add up to, at one moment each, until all have ended.
        let grants = format!("HGETALL {{redisresourcemanager:{pool}}}:grants");
        let (mut most, mut most_of_clients, mut samples) = (0, 0, 0);
        while replays.iter_mut().any(|replay| replay.try_wait().unwrap().is_none()) {
            let records = server.ask::<Vec<(String, String)>>(&grants);
            let units = |prefix: &str| -> u64 {
                let records = records.iter().filter(|(member, _)| member.starts_with(prefix));
                records.map(|(_, r)| r.split(' ').next().unwrap().parse::<u64>().unwrap()).sum()
            };
            most = most.max(units("ex:"));
            most_of_clients = most_of_clients.max(units("ex:clients:"));
            samples += 1;
        }
        stop.store(true, Ordering::Relaxed);
        assert!((1..=16).contains(&most), "{most} units in use");
        assert!((1..=5).contains(&most_of_clients), "{most_of_clients} units of the clients");
        assert!(samples > 10, "{samples} samples");
        for replay in replays {
            let summary = wait(replay).exits_with(0).json();
            assert_eq!((&summary["granted"], &summary["overgrants"]), (&600.into(), &0.into()));
            assert_eq!(summary["still_held"], 0);
        }
        clients.join().unwrap()
    });
    // They never wait, so they get only what no ticket waits for.
    assert!(granted > 0, "no grants");
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
    // Its clock stood still at 5, when the smaller job was submitted, which waited behind the larger.
    assert_eq!((&summary["granted"], &summary["wait_seconds"]["p50"]), (&2.into(), &5.into()));
    assert_eq!(summary["wait_seconds"]["max"], 10);
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
