//! Look-ups answered from memory.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokenpool::Config;
use tokenpool::matchable::{
    AnsweredBy, AttributeStore, Attributes, AttributesOf, CacheConfig, Expected,
    RedisAttributeStore,
};

use super::{Fixture, WorkflowPriority, at, connect, holder, memory, priority, redis, set};
use crate::support::gate::{Door, Gate};
use crate::support::server::Server;
use crate::wire::commands;

/// Longer than any test.
const LONG: Duration = Duration::from_secs(3600);

async fn cached(
    store: Arc<dyn AttributeStore>,
    max_staleness: Duration,
) -> AttributesOf<WorkflowPriority> {
    let config = CacheConfig::new(max_staleness).unwrap();
    Attributes::cached(store, holder("reader"), config).await.unwrap().of()
}

/// Looks up until the answer is as wanted.
async fn until(all: &AttributesOf<WorkflowPriority>, path: &str, wanted: Option<i64>) {
    let seen = async {
        loop {
            let found = all.get_resource(&at(path)).await.ok();
            if found.map(|found| found.value.priority) == wanted {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), seen).await.expect("the change is seen");
}

async fn a_change_is_seen_and_nothing_else_is_asked(f: Fixture) {
    let (writer, reader) = (f.of(), cached(Arc::clone(&f.store), LONG).await);
    set(&writer, "p", 1).await;
    until(&reader, "p:d", Some(1)).await;
    let again = reader.get_resource(&at("p:d")).await.unwrap();
    assert_eq!((again.answered_by, again.path.as_str()), (AnsweredBy::Cache, "p"));
    // More specific, changed, gone.
    set(&writer, "p:d", 2).await;
    until(&reader, "p:d", Some(2)).await;
    set(&writer, "p:d", 3).await;
    until(&reader, "p:d", Some(3)).await;
    writer.delete(&at("p:d"), Expected::Any).await.unwrap();
    writer.delete(&at("p"), Expected::Any).await.unwrap();
    until(&reader, "p:d", None).await;
    // That there is nothing is known, too.
    set(&writer, "p", 4).await;
    until(&reader, "p:d", Some(4)).await;
}

#[tokio::test]
async fn a_change_in_memory_is_seen_and_nothing_else_is_asked() {
    a_change_is_seen_and_nothing_else_is_asked(memory().await).await;
}

#[tokio::test]
async fn a_change_on_redis_is_seen_and_nothing_else_is_asked() {
    let f = redis().await;
    let mut raw = f.raw();
    a_change_is_seen_and_nothing_else_is_asked(Fixture {
        store: Arc::clone(&f.store),
        server: None,
    })
    .await;
    let reader = cached(Arc::clone(&f.store), LONG).await;
    for path in ["p", "q"] {
        let _ = reader.get_resource(&at(path)).await;
    }
    redis::cmd("CONFIG").arg("RESETSTAT").exec(&mut raw).unwrap();
    for _ in 0..100 {
        assert_eq!(reader.get_resource(&at("p")).await.unwrap().answered_by, AnsweredBy::Cache);
        assert!(reader.get_resource(&at("q")).await.is_err());
    }
    assert_eq!(commands(&mut raw).get("hmget"), None);
    // When all data is lost, nothing is remembered.
    redis::cmd("FLUSHALL").exec(&mut raw).unwrap();
    until(&reader, "p", None).await;
}

#[tokio::test]
async fn a_process_sees_its_own_writes_at_once() {
    let f = redis().await;
    let all = cached(Arc::clone(&f.store), LONG).await;
    for value in 0..200 {
        set(&all, "p", value).await;
        assert_eq!(all.get_resource(&at("p:d")).await.unwrap().value, priority(value));
    }
}

#[tokio::test]
async fn after_a_connection_is_lost_changes_are_told_again_at_once() {
    let f = redis().await;
    let writer = f.of();
    set(&writer, "p", 1).await;
    let reader = cached(connect(&f.url()).await, LONG).await;
    until(&reader, "p", Some(1)).await;
    redis::cmd("CLIENT").arg(&["KILL", "TYPE", "normal"]).exec(&mut f.raw()).unwrap();
    redis::cmd("CLIENT").arg(&["KILL", "TYPE", "pubsub"]).exec(&mut f.raw()).unwrap();
    for value in 2..6 {
        while writer.update(&at("p"), priority(value), Expected::Any).await.is_err() {}
        until(&reader, "p", Some(value)).await;
    }
}

#[test]
fn a_watch_whose_runtime_ended_makes_the_cache_unsure() {
    let server = Server::start();
    let runtime = || tokio::runtime::Runtime::new().unwrap();
    let (of_watch, lasting) = (runtime(), runtime());
    let store = lasting.block_on(connect(&server.url()));
    let writer = Attributes::new(Arc::clone(&store), holder("writer")).of();
    lasting.block_on(set(&writer, "p", 1));
    let reader = of_watch.block_on(cached(store, LONG));
    lasting.block_on(until(&reader, "p", Some(1)));
    drop(of_watch);
    lasting.block_on(async {
        let found = reader.get_resource(&at("p")).await.unwrap();
        assert_eq!(found.answered_by, AnsweredBy::Store);
    });
}

/// A store behind a gate, whose calls end soon when that is shut.
async fn impatient(gate: &Gate) -> Arc<dyn AttributeStore> {
    let mut config = Config::redis_at(gate.url()).unwrap();
    config.redis.command_timeout = Duration::from_millis(200);
    Arc::new(RedisAttributeStore::connect(&config.redis).await.unwrap())
}

const STALENESS: Duration = Duration::from_millis(150);

#[tokio::test]
async fn a_cache_that_cannot_be_sure_asks_and_says_so() {
    let server = Server::start();
    let gate = Gate::before(server.socket());
    let writer = Attributes::new(connect(&server.url()).await, holder("writer")).of();
    set(&writer, "p", 1).await;
    set(&writer, "q", 1).await;
    let reader = cached(impatient(&gate).await, STALENESS).await;
    until(&reader, "p", Some(1)).await;
    gate.set(Door::Shut);
    // Nobody tells that anything is wrong; in time it is no longer sure, and then nobody answers.
    let silence = async {
        while reader.get_resource(&at("p")).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), silence).await.expect("it asks in time");
    set(&writer, "p", 2).await;
    gate.cut();
    // Sure again: an answer that is older than the staleness is good without asking.
    let sure = async {
        let mut asked = Instant::now();
        while asked.elapsed() < 4 * STALENESS {
            match reader.get_resource(&at("q")).await.map(|found| found.answered_by) {
                Ok(AnsweredBy::Cache) => {}
                _ => asked = Instant::now(),
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), sure).await.expect("it is sure again");
    // But not of what it was not told of meanwhile.
    assert_eq!(reader.get_resource(&at("p")).await.unwrap().value, priority(2));
}

/// One update that was acknowledged.
#[derive(Clone, Copy, Debug)]
struct Update {
    value: i64,
    /// When its answer was there.
    done: Instant,
}

/// One look-up that was answered.
#[derive(Clone, Copy, Debug)]
struct LookUp {
    begun: Instant,
    value: i64,
    answered_by: AnsweredBy,
}

/// Writes ever larger values until told to stop, also while the server is away.
async fn write_on(socket: PathBuf, stop: Arc<AtomicBool>) -> Vec<Update> {
    let url = format!("unix://{}", socket.display());
    let writer = Attributes::new(connect(&url).await, holder("writer")).of();
    let mut updates = Vec::new();
    for value in 1.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        // What got no answer may have been written, and the next is larger.
        if writer.update(&at("p"), priority(value), Expected::Any).await.is_ok() {
            updates.push(Update { value, done: Instant::now() });
        }
        // Sometimes the last value stands for longer than the staleness.
        let pause = if value % 25 == 0 { 2 * STALENESS } else { Duration::from_millis(3) };
        tokio::time::sleep(pause).await;
    }
    updates
}

async fn look_on(reader: AttributesOf<WorkflowPriority>, stop: Arc<AtomicBool>) -> Vec<LookUp> {
    let mut look_ups = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        let begun = Instant::now();
        if let Ok(found) = reader.get_resource(&at("p:d")).await {
            let (value, answered_by) = (found.value.priority, found.answered_by);
            look_ups.push(LookUp { begun, value, answered_by });
        }
        tokio::time::sleep(Duration::from_micros(300)).await;
    }
    look_ups
}

/// Judged from outside: no look-up finds what an update replaced longer than the staleness before it began.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_look_up_is_staler_than_configured_whatever_happens_to_connections() {
    let mut server = Server::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let gate = Gate::before(server.socket());
    let stop = Arc::new(AtomicBool::new(false));
    let reader = cached(impatient(&gate).await, STALENESS).await;
    let writing = tokio::spawn(write_on(server.socket(), Arc::clone(&stop)));
    let looking: Vec<_> =
        (0..2).map(|_| tokio::spawn(look_on(reader.clone(), Arc::clone(&stop)))).collect();
    let pause = async |millis| tokio::time::sleep(Duration::from_millis(millis)).await;
    for round in 0..3 {
        pause(200).await;
        // Silence, first short and then longer than the staleness; what was kept back comes late.
        gate.set(Door::Shut);
        pause(60 + 250 * round).await;
        gate.set(Door::Open);
        pause(100).await;
        gate.cut();
        pause(200).await;
        // Answers come, but what the server tells does not, and the other way round.
        gate.set(Door::Notices);
        pause(250).await;
        gate.cut();
        for kind in ["normal", "pubsub"] {
            redis::cmd("CLIENT").arg(&["KILL", "TYPE", kind]).exec(&mut server.raw()).unwrap();
        }
        pause(200).await;
        server.restart();
    }
    pause(500).await;
    stop.store(true, Ordering::SeqCst);
    let updates = writing.await.unwrap();
    let mut look_ups = Vec::new();
    for looking in looking {
        look_ups.extend(looking.await.unwrap());
    }
    let from_cache = look_ups.iter().filter(|look_up| look_up.answered_by == AnsweredBy::Cache);
    assert!(updates.len() > 100 && from_cache.count() > 100, "{} updates", updates.len());
    for look_up in look_ups {
        let must_see = updates.partition_point(|update| update.done + STALENESS < look_up.begun);
        let oldest = must_see.checked_sub(1).map_or(0, |last| updates[last].value);
        assert!(look_up.value >= oldest, "{look_up:?} is older than {:?}", updates[must_see - 1]);
    }
}
