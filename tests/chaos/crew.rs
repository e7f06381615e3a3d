use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::rng::{Deck, Rng};

pub(crate) const WORKERS: usize = 8;
/// Longer than any lease, or not.
const PAUSE: (u64, u64) = (300, 4_500);
/// How long nothing befalls anybody.
const PEACE: (u64, u64) = (600, 2_600);
/// Workers finish what they do, which may be to wait for their turn or for a loss to be told.
const LAST_ORDERS: Duration = Duration::from_secs(60);

/// What befalls workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    KillWorker,
    PauseWorker,
}

pub(crate) const FAULTS: &[Fault] = &[Fault::KillWorker, Fault::PauseWorker];

/// A worker process, killed when dropped.
#[derive(Debug)]
struct Worker {
    process: Child,
    number: u64,
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

/// The workers that there are.
#[derive(Debug)]
pub(crate) struct Crew {
    directory: PathBuf,
    /// Of the worker in each place.
    configurations: Vec<String>,
    seed: u64,
    rng: Rng,
    deck: Deck<Fault>,
    workers: Vec<Worker>,
    started: u64,
    problems: Vec<String>,
}

impl Crew {
    pub(crate) fn start(directory: PathBuf, configurations: Vec<String>, seed: u64) -> Self {
        let (rng, workers) = (Rng::new(seed, &[]), Vec::new());
        let (deck, problems) = (Deck::new(FAULTS), Vec::new());
        let mut crew =
            Self { directory, configurations, seed, rng, deck, workers, started: 0, problems };
        for place in 0..crew.configurations.len() {
            let worker = crew.start_worker(place);
            crew.workers.push(worker);
        }
        crew
    }

    fn start_worker(&mut self, place: usize) -> Worker {
        self.started += 1;
        let process = Command::new(std::env::current_exe().expect("this program has a file"))
            .arg("worker")
            .arg(&self.directory)
            .arg(&self.configurations[place])
            .args([self.started.to_string(), self.seed.to_string()])
            .stdin(Stdio::piped())
            .spawn()
            .expect("a worker can be started");
        Worker { process, number: self.started, paused: None }
    }

    /// Kills and pauses until it is over.
    pub(crate) async fn suffer(&mut self, over: &CancellationToken) {
        while !over.is_cancelled() {
            let peace = self.rng.millis(PEACE.0, PEACE.1);
            tokio::select! {
                () = sleep(peace) => {}
                () = over.cancelled() => break,
            }
            self.resume(Instant::now());
            let fault = self.deck.draw(&mut self.rng);
            let victim = self.rng.between(0, u64::try_from(self.workers.len()).unwrap() - 1);
            let victim = usize::try_from(victim).unwrap();
            match fault {
                // The old one is killed when it is dropped.
                Fault::KillWorker => {
                    if let Some(status) = self.workers[victim].process.try_wait().unwrap() {
                        self.problems.push(format!("a worker ended by itself: {status}"));
                    }
                    self.workers[victim] = self.start_worker(victim);
                }
                Fault::PauseWorker => {
                    let end = Instant::now() + self.rng.millis(PAUSE.0, PAUSE.1);
                    self.workers[victim].signal(Signal::STOP);
                    self.workers[victim].paused = Some(end);
                }
            }
        }
    }

    /// Lets go on whose pause is over at this time.
    fn resume(&mut self, now: Instant) {
        for worker in &mut self.workers {
            if worker.paused.take_if(|end| *end <= now).is_some() {
                worker.signal(Signal::CONT);
            }
        }
    }

    /// Half of the workers finish what they do, waiting included; then the others are killed. Answers what went wrong with any.
    pub(crate) async fn end(mut self) -> Vec<String> {
        self.resume(Instant::now() + Duration::from_millis(PAUSE.1));
        let killed = self.workers.split_off(self.workers.len() / 2);
        let end = Instant::now() + LAST_ORDERS;
        for worker in &mut self.workers {
            drop(worker.process.stdin.take());
        }
        for worker in &mut self.workers {
            match worker.ends(end).await {
                None => self.problems.push(format!("worker {} does not end", worker.number)),
                Some(status) if !status.success() => {
                    self.problems.push(format!("a worker failed: {status}"));
                }
                Some(_) => {}
            }
        }
        drop(killed);
        self.problems
    }

    pub(crate) fn started(&self) -> u64 {
        self.started
    }

    /// How often what happened.
    pub(crate) fn faults(&self) -> &Deck<Fault> {
        &self.deck
    }
}

impl Worker {
    fn signal(&self, signal: Signal) {
        // One that has ended by itself is found when it is awaited.
        let _ = kill_process(Pid::from_child(&self.process), signal);
    }

    async fn ends(&mut self, limit: Instant) -> Option<ExitStatus> {
        while Instant::now() < limit {
            if let Some(status) = self.process.try_wait().expect("a worker can be awaited") {
                return Some(status);
            }
            sleep(Duration::from_millis(5)).await;
        }
        None
    }
}
