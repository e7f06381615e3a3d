use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokenpool::{Backend, Config, QueueChange, Quota, QuotaChange, Weight};

use crate::events::{self, Entry};
use crate::judge::{self, Verdict};
use crate::plan::{self, CLAIMED, LEASES, PROJECTS};
use crate::rng::Rng;
use crate::server::Server;

const WORKERS: u64 = 8;
/// Longer than any lease, or not.
const PAUSE: (u64, u64) = (300, 4_500);
/// How long a ticket of the library, and what was handed to it, outlives its process.
const TICKET: Duration = Duration::from_secs(10);
/// For whatever this machine is busy with.
const SLACK: Duration = Duration::from_secs(4);
/// Workers finish what they do, which may be to wait for their turn or for a loss to be told.
const LAST_ORDERS: Duration = Duration::from_secs(60);
/// Fewer grants in a second are no progress.
const SLOWEST: u64 = 2;

#[derive(Clone, Copy, Debug)]
enum Fault {
    Kill,
    Pause,
    Restart,
    FlushScripts,
    CutConnections,
    CutListeners,
}

const FAULTS: [Fault; 6] = [
    Fault::Kill,
    Fault::Pause,
    Fault::Restart,
    Fault::FlushScripts,
    Fault::CutConnections,
    Fault::CutListeners,
];

/// A worker process, killed when dropped.
#[derive(Debug)]
struct Worker {
    process: Child,
    /// When to go on, if it is paused.
    paused: Option<Instant>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended already, which is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[derive(Debug)]
struct Stage {
    server: Server,
    directory: PathBuf,
    seed: u64,
    rng: Rng,
    workers: Vec<Worker>,
    started: u64,
    faults: [u64; FAULTS.len()],
    deck: Vec<Fault>,
    /// Messages that told of a hand-off, as far as the server lived to count them.
    notices: u64,
    problems: Vec<String>,
}

pub(crate) fn main() -> ExitCode {
    judge::prove();
    let number = |name| std::env::var(name).ok().map(|text| text.parse().expect("it is a number"));
    let seconds = number("CHAOS_SECONDS").unwrap_or(20);
    let seed = number("CHAOS_SEED").unwrap_or_else(|| events::now() % 1_000_000);
    println!("chaos: CHAOS_SEED={seed} CHAOS_SECONDS={seconds}");

    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let mut stage = Stage::open(directory.path(), seed);
    stage.break_things_for(Duration::from_secs(seconds));
    stage.end_all();
    let mut problems = std::mem::take(&mut stage.problems);
    let back = stage.await_units(&mut problems);

    let logs = read_all(directory.path());
    let Verdict { violations, counts, most } = judge::judge(&logs, plan::limits);
    problems.extend(violations);
    let grants = counts.get("grants").copied().unwrap_or_default();
    if grants < SLOWEST * seconds {
        problems.push(format!("only {grants} grants"));
    }
    if counts.get("seen").is_none_or(|&seen| seen == 0) {
        problems.push("nothing was ever held for certain".to_owned());
    }
    for (name, (most, _)) in &most {
        if *most == 0 {
            problems.push(format!("{name} was never held for certain"));
        }
    }
    for (fault, times) in FAULTS.iter().zip(stage.faults) {
        if times == 0 {
            problems.push(format!("{fault:?} never happened"));
        }
    }
    println!("{}", stage.figures());
    println!("{}", listed(counts.iter().map(|(what, times)| format!("{what} {times}"))));
    let held = most.iter().map(|(name, (most, limit))| format!("{name}: {most} of {limit}"));
    println!("most held for certain: {}", listed(held));
    println!("all units and tickets were back after {back:.1?}");
    if problems.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!(
        "{} problems; the first:\n{}",
        problems.len(),
        problems[..problems.len().min(20)].join("\n")
    );
    println!(
        "logs: {}; to repeat: CHAOS_SEED={seed} CHAOS_SECONDS={seconds}",
        directory.keep().display()
    );
    ExitCode::FAILURE
}

fn listed(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}

fn read_all(directory: &Path) -> Vec<Vec<Entry>> {
    let files = directory.read_dir().expect("the directory can be read");
    let mut paths: Vec<_> = files.map(|file| file.expect("it is readable").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    paths.sort();
    paths.iter().map(|path| events::read(path).expect("the log is whole")).collect()
}

/// Runs a future of the few calls that the director makes.
fn wait_for<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime can be made").block_on(future)
}

async fn open(url: &str) -> Arc<dyn Backend> {
    Config::redis_at(url).unwrap().open().await.expect("the server is there")
}

/// The pools, before anybody uses them.
async fn make_pools(url: &str) {
    let backend = open(url).await;
    for plan in &CLAIMED {
        let quota = Quota::new(plan.quota.try_into().unwrap(), u32::MAX).unwrap();
        let pool = plan.pool();
        backend.change_quota(&pool, QuotaChange::Register(quota)).await.unwrap();
        let weight = Weight::new(2).unwrap();
        let change = QueueChange::new().order(plan.order).weight(PROJECTS[0], weight);
        backend.change_queue(&pool, &change).await.unwrap();
    }
}

impl Stage {
    fn open(directory: &Path, seed: u64) -> Self {
        let server = Server::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
        wait_for(make_pools(&server.url()));
        let mut stage = Self {
            server,
            directory: directory.to_owned(),
            seed,
            rng: Rng::new(seed, &[]),
            workers: Vec::new(),
            started: 0,
            faults: [0; FAULTS.len()],
            deck: Vec::new(),
            notices: 0,
            problems: Vec::new(),
        };
        for _ in 0..WORKERS {
            let worker = stage.start_worker();
            stage.workers.push(worker);
        }
        stage
    }

    fn start_worker(&mut self) -> Worker {
        self.started += 1;
        let process = Command::new(std::env::current_exe().expect("this program has a file"))
            .arg("worker")
            .arg(&self.directory)
            .args([self.server.url(), self.started.to_string(), self.seed.to_string()])
            .stdin(Stdio::piped())
            .spawn()
            .expect("a worker can be started");
        Worker { process, paused: None }
    }

    fn break_things_for(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            sleep(self.rng.millis(200, 900));
            self.resume(Instant::now());
            let fault = self.draw();
            self.faults[fault as usize] += 1;
            self.make(fault);
        }
    }

    /// Every kind has its turn before the first comes again.
    fn draw(&mut self) -> Fault {
        if self.deck.is_empty() {
            self.deck.extend(FAULTS);
            self.rng.shuffle(&mut self.deck);
        }
        self.deck.pop().expect("it was filled")
    }

    fn make(&mut self, fault: Fault) {
        let victim = usize::try_from(self.rng.between(0, WORKERS - 1)).unwrap();
        match fault {
            // The old one is killed when it is dropped.
            Fault::Kill => {
                if let Some(status) = self.workers[victim].process.try_wait().unwrap() {
                    self.problems.push(format!("a worker ended by itself: {status}"));
                }
                self.workers[victim] = self.start_worker();
            }
            Fault::Pause => {
                let (low, high) = PAUSE;
                let end = Instant::now() + self.rng.millis(low, high);
                self.workers[victim].signal(Signal::STOP);
                self.workers[victim].paused = Some(end);
            }
            Fault::Restart => {
                self.count_notices();
                self.server.restart();
            }
            Fault::FlushScripts => self.command(&["SCRIPT", "FLUSH"]),
            Fault::CutConnections => self.command(&["CLIENT", "KILL", "TYPE", "normal"]),
            Fault::CutListeners => self.command(&["CLIENT", "KILL", "TYPE", "pubsub"]),
        }
    }

    fn command(&self, words: &[&str]) {
        let mut raw = self.server.raw();
        redis::cmd(words[0]).arg(&words[1..]).exec(&mut raw).expect("the server obeys");
    }

    fn count_notices(&mut self) {
        let mut raw = self.server.raw();
        let stats: String = redis::cmd("INFO").arg("commandstats").query(&mut raw).unwrap();
        let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_publish:calls="));
        let calls = calls.and_then(|rest| rest.split(',').next()?.parse::<u64>().ok());
        self.notices += calls.unwrap_or_default();
    }

    /// Lets go on whose pause is over at this time.
    fn resume(&mut self, now: Instant) {
        for worker in &mut self.workers {
            if worker.paused.is_some_and(|end| end <= now) {
                worker.paused = None;
                worker.signal(Signal::CONT);
            }
        }
    }

    /// Half of the workers finish what they do, waiting included; then the others are killed.
    fn end_all(&mut self) {
        self.resume(Instant::now() + Duration::from_millis(PAUSE.1));
        let killed = self.workers.split_off(self.workers.len() / 2);
        let end = Instant::now() + LAST_ORDERS;
        for worker in &mut self.workers {
            drop(worker.process.stdin.take());
        }
        for worker in &mut self.workers {
            let status = loop {
                if let Some(status) = worker.process.try_wait().expect("a worker can be awaited") {
                    break status;
                }
                assert!(Instant::now() < end, "a worker does not end");
                sleep(Duration::from_millis(5));
            };
            if !status.success() {
                self.problems.push(format!("a worker failed: {status}"));
            }
        }
        drop(killed);
        self.count_notices();
    }

    /// Waits until nothing is held and nobody waits, which takes as long as the longest lease or ticket at most.
    fn await_units(&self, problems: &mut Vec<String>) -> Duration {
        let start = Instant::now();
        let longest = LEASES.iter().max().copied().unwrap_or_default();
        let limit = TICKET.max(Duration::from_millis(longest)) + SLACK;
        wait_for(async {
            let backend = open(&self.server.url()).await;
            for pool in plan::pools() {
                loop {
                    backend.renew(&pool, &[]).await.unwrap();
                    let usage = backend.usage(&pool).await.unwrap();
                    if usage.in_use == 0 && usage.tickets == 0 {
                        break;
                    }
                    if start.elapsed() > limit {
                        problems.push(format!("not back after {limit:?}: {pool} {usage:?}"));
                        break;
                    }
                    // Leases end by the clock; there is nothing to wait for.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                let report = backend.check(&pool).await.unwrap();
                if !report.is_clean() || report.members + report.records + report.tickets > 0 {
                    problems.push(format!("{pool}: {report:?}"));
                }
            }
        });
        start.elapsed()
    }

    fn figures(&self) -> String {
        let mut text = format!("{} workers, {} notices", self.started, self.notices);
        for (fault, times) in FAULTS.iter().zip(self.faults) {
            let _ = write!(text, ", {fault:?} {times}");
        }
        text
    }
}

impl Worker {
    fn signal(&self, signal: Signal) {
        // One that has ended by itself is found when it is awaited.
        let _ = kill_process(Pid::from_child(&self.process), signal);
    }
}
