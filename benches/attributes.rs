//! What looking up attributes costs, and how soon a change is seen.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::Cmd;
use tokenpool::matchable::{
    AttributePath, Attributes, AttributesOf, CacheConfig, Expected, Filter, InvalidField,
    MatchableResource, RedisAttributeStore,
};
use tokenpool::{Config, Holder};

use crate::Scale;
use crate::client::{bare_connection, time};
use crate::load::Packed;
use crate::report::{Bound, Figure, Report, median, percentile};
use crate::stage::Stage;
use crate::waiters::now;

pub(crate) const FIGURE: Figure = Figure {
    name: "attributes",
    how: "1 000 000 records of workflows, and one of a project, are put into one HASH. Server: `usec` of HMGET, and of HGET, in \
          INFO commandstats, reset before each burst of 6400 calls on 50 connections, 32 deep; look-ups of launch plans, five \
          fields, of which the workflow's is there, and single fields of the same workflows; 100 bursts of each in turn. \
          Latency: one task takes the time of a PING on a bare connection and of a look-up through the library in turn, \
          20 000 times, with one record stored and with all of them. Cached: one thread looks up 1000 launch plans in turn, \
          1 000 000 times, median of 7 rounds. Seen: another process with a cache waits for a change and looks up; from the \
          moment when an update has its answer to the moment when the other process has the new value, by CLOCK_MONOTONIC, \
          2000 updates. Listing: 100 000 records of 1 KB in pages of 1000; peak resident memory of the process before and \
          after.",
    run,
};

/// The option that makes this program a process that waits for changes.
pub(crate) const OPTION: &str = "--watcher";

const KEY: &str = "tokenpool:attributes:BENCH";
const PATHS: &str = "{tokenpool:attributes:BENCH}:paths";

/// A kind of a realistic size.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
struct Setting {
    number: u64,
    text: String,
}

impl MatchableResource for Setting {
    const NAME: &'static str = "BENCH";

    fn validate(&self) -> Result<(), InvalidField> {
        Ok(())
    }
}

fn run(scale: Scale, report: &mut Report) {
    let mut stage = Stage::start(&[]);
    let server = stage.server.url();
    let uncached = stage.runtime.block_on(async { open(&server).await.of::<Setting>() });
    let path = |n: u64| launch_plan(n);
    put(&mut stage, 0..1, "");
    let alone = latency(scale, &stage, &uncached);
    let records = scale.pick(1_000_000, 10_000);
    put(&mut stage, 1..records, "");
    let among_all = latency(scale, &stage, &uncached);
    for (records, (look_up, ping)) in [(1, alone), (records, among_all)] {
        let note = format!("{look_up:.1} / {ping:.1} µs");
        let what = format!("p50 of a look-up among {records} / of a PING");
        report.row(what, look_up / ping, Bound::AtMost(1.2), &note);
    }
    server_cost(scale, &mut stage, records, report);

    let cached = stage.runtime.block_on(open_cached(&server)).of::<Setting>();
    let paths: Vec<_> = (0..1000).map(path).collect();
    let look_ups = scale.pick(1_000_000, 10_000);
    let rate = stage.runtime.block_on(async {
        let mut rates = Vec::new();
        for round in 0..scale.pick(8, 2) {
            let started = Instant::now();
            for path in paths.iter().cycle().take(look_ups) {
                cached.get_resource(path).await.expect("it is found");
            }
            // The first round fills the cache.
            if round > 0 {
                rates.push(look_ups as f64 / started.elapsed().as_secs_f64());
            }
        }
        median(rates)
    });
    let note = format!("{:.0} ns each", 1e9 / rate);
    report.row("cached look-ups a second on one core", rate, Bound::AtLeast(1e6), &note);
    seen(scale, &stage, &uncached, among_all.1, report);
    listing(scale, report);
}

async fn open(server: &str) -> Attributes {
    let config = Config::redis_at(server).expect("the address is good");
    let store = RedisAttributeStore::connect(&config.redis).await.expect("the server is there");
    Attributes::new(Arc::new(store), Holder::of_this_process())
}

async fn open_cached(server: &str) -> Attributes {
    let config = Config::redis_at(server).expect("the address is good");
    let store = RedisAttributeStore::connect(&config.redis).await.expect("the server is there");
    let cache = CacheConfig::new(Duration::from_secs(5)).expect("it is allowed");
    let cached = Attributes::cached(Arc::new(store), Holder::of_this_process(), cache);
    cached.await.expect("the server tells of changes")
}

fn workflow(n: u64) -> AttributePath {
    AttributePath::workflow("flytesnacks", "development", &format!("app.workflows.wf-{n:07}"))
        .expect("the names are good")
}

fn launch_plan(n: u64) -> AttributePath {
    let workflow = format!("app.workflows.wf-{n:07}");
    AttributePath::launch_plan("flytesnacks", "development", &workflow, "nightly")
        .expect("the names are good")
}

/// Puts records of workflows, and one of the project, where the library keeps them.
fn put(stage: &mut Stage, numbers: std::ops::Range<u64>, text: &str) {
    let record = |number: u64| {
        let setting = Setting { number, text: text.to_owned() };
        let value = serde_json::to_string(&setting).expect("it can be written");
        format!("1 1795295571844 bench {value}")
    };
    let numbers: Vec<_> = numbers.collect();
    for numbers in numbers.chunks(10_000) {
        let mut pipe = redis::pipe();
        for &n in numbers {
            let path = workflow(n);
            pipe.hset(KEY, path.as_str(), record(n)).ignore();
            pipe.zadd(PATHS, path.as_str(), 0).ignore();
        }
        pipe.hset(KEY, "flytesnacks", record(0)).ignore();
        pipe.exec(&mut stage.admin).expect("the server takes records");
    }
}

/// Medians of a look-up and of a PING, in microseconds.
fn latency(scale: Scale, stage: &Stage, attributes: &AttributesOf<Setting>) -> (f64, f64) {
    let bare = stage.runtime.block_on(bare_connection(stage));
    let (attributes, path) = (attributes.clone(), launch_plan(0));
    let rounds = scale.pick(20_000, 200);
    // In a task, as users' code is: `block_on` wakes up more slowly.
    let task = stage.runtime.spawn(async move {
        let ping = redis::cmd("PING");
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..rounds {
            let pinged = async {
                let reply = bare.clone().send_packed_command(&ping).await;
                drop(reply.expect("the server answers"));
            };
            times[0].push(time(pinged).await);
            let looked_up = async {
                let found = attributes.get_resource(&path).await.expect("it is found");
                assert_eq!(found.value.number, 0);
            };
            times[1].push(time(looked_up).await);
        }
        times.map(median)
    });
    let [ping, look_up] = stage.runtime.block_on(task).expect("the task does not fail");
    (look_up, ping)
}

fn server_cost(scale: Scale, stage: &mut Stage, records: u64, report: &mut Report) {
    let burst = scale.pick(6400, 1600);
    // Spread over all of them, as real look-ups are.
    let numbers = || (0..burst as u64).map(|n| n * 7919 % records);
    let single = |n| redis::cmd("HGET").arg(KEY).arg(workflow(n).as_str()).to_owned();
    let look_up = |n| -> Cmd {
        let fields: Vec<String> = launch_plan(n).fallbacks().map(str::to_owned).collect();
        redis::cmd("HMGET").arg(KEY).arg(fields).to_owned()
    };
    let (singles, look_ups) =
        (Packed::new(numbers().map(single)), Packed::new(numbers().map(look_up)));
    let mut load = stage.load();
    let (mut hget, mut hmget) = (Vec::new(), Vec::new());
    for _ in 0..scale.pick(100, 3) {
        hget.push(stage.cost_of("hget", burst, || load.run(&singles, &["1 "])));
        hmget.push(stage.cost_of("hmget", burst, || load.run(&look_ups, &["1 "])));
    }
    let (hget, hmget) = (median(hget), median(hmget));
    let note = format!("{hmget:.2} / {hget:.2} µs");
    report.row("server's cost of a look-up / of an HGET", hmget / hget, Bound::AtMost(2.0), &note);
}

/// How long after an update another process's cache has it.
fn seen(
    scale: Scale,
    stage: &Stage,
    attributes: &AttributesOf<Setting>,
    ping: f64,
    report: &mut Report,
) {
    let mut watcher = watcher(&stage.server.url());
    let mut lines = BufReader::new(watcher.stdout.take().expect("its output is piped")).lines();
    let mut next = || {
        let line = lines.next().expect("the process tells").expect("it writes text");
        let (number, at) = line.split_once(' ').expect("two numbers");
        [number, at].map(|word| word.parse::<u64>().expect("a number"))
    };
    let path = workflow(0);
    let [mut last, _] = next();
    let mut delays = Vec::new();
    for _ in 0..scale.pick(2000, 20) {
        // At no special moment of the other process.
        std::thread::sleep(Duration::from_micros(500 + last * 7919 % 1000));
        let number = last + 1;
        let update = async {
            let setting = Setting { number, text: String::new() };
            let updated = attributes.update(&path, setting, Expected::Any).await;
            drop(updated.expect("the server takes it"));
            now()
        };
        let done = stage.runtime.block_on(update);
        let at = loop {
            let [seen, at] = next();
            if seen == number {
                break at;
            }
        };
        delays.push(at.saturating_sub(done) as f64 / 1e3);
        last = number;
    }
    watcher.kill().expect("the process can be ended");
    watcher.wait().expect("its end can be awaited");
    let p99 = percentile(delays.clone(), 0.99);
    let p50 = median(delays);
    let note = format!("{p99:.0} / {ping:.0} µs; p50 {p50:.0} µs");
    report.row(
        "p99 until another process sees an update / p50 of a PING",
        p99 / ping,
        Bound::AtMost(5.0),
        &note,
    );
}

fn watcher(server: &str) -> Child {
    let program = std::env::current_exe().expect("this program has a path");
    let mut command = Command::new(program);
    command.args([OPTION, server]).stdout(Stdio::piped());
    command.spawn().expect("this program can be started again")
}

/// What a started process does: it tells what it sees, and when.
pub(crate) fn watch(arguments: &[String]) {
    let [server] = arguments else { panic!("{OPTION} takes an address") };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let watching = async {
        let attributes = open_cached(server).await.of::<Setting>();
        let path = workflow(0);
        loop {
            let changed = attributes.changed();
            let number = attributes.get_resource(&path).await.expect("it is there").value.number;
            let line = format!("{number} {}\n", now());
            if std::io::stdout().write_all(line.as_bytes()).is_err() {
                return;
            }
            changed.await;
        }
    };
    runtime.expect("a runtime can be made").block_on(watching);
}

fn listing(scale: Scale, report: &mut Report) {
    let mut stage = Stage::start(&[]);
    let records = scale.pick(100_000, 1000);
    put(&mut stage, 0..records, &"x".repeat(1000));
    let listed = stage.runtime.block_on(async {
        let attributes = open(&stage.server.url()).await.of::<Setting>();
        let (mut listed, mut bytes, mut next) = (0, 0, None);
        // Peaks count from here on; the first page is what every listing takes.
        fs::write("/proc/self/clear_refs", "5").expect("the peak can be reset");
        let before = peak();
        loop {
            let page = attributes.list(&Filter::ALL, next.as_ref(), 1000).await;
            let page = page.expect("the server lists");
            listed += page.found.len() as u64;
            bytes += page.found.iter().map(|found| found.value.text.len()).sum::<usize>();
            next = page.next;
            if next.is_none() {
                break (listed, bytes, peak().saturating_sub(before));
            }
        }
    });
    let (listed, bytes, grown) = listed;
    assert_eq!(listed, records, "all are listed");
    let share = grown as f64 * 1024.0 / bytes as f64;
    let note = format!("{:.1} of {:.0} MB", grown as f64 / 1024.0, bytes as f64 / 1e6);
    let what = format!("memory taken by listing {records} records / their size");
    report.row(what, share, Bound::AtMost(0.15), &note);
}

/// Peak resident memory of this process, in KiB.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("the process describes itself");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).expect("a number")
}
