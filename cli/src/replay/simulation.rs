//! The log's clock: leads the replicas from one event to the next, in step.

use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::ledger::Ledger;
use super::replica::{Ahead, Phase, Replica, Tally};
use crate::error::{Error, Result};
use crate::stop::Stop;

/// Real time between two attempts while only others can give units back.
const PAUSE: Duration = Duration::from_millis(5);

/// Pauses in a row after which somebody should be told, about two seconds.
const MANY_PAUSES: u32 = 400;

#[derive(Debug)]
pub(super) struct Simulation {
    replicas: Vec<Handle>,
    ledger: Arc<Ledger>,
    stop: Stop,
    /// Whether other processes may use the pool.
    shared: bool,
    progress: ProgressBar,
}

/// A replica's task.
#[derive(Debug)]
struct Handle {
    phases: mpsc::Sender<Phase>,
    answers: mpsc::Receiver<tokenpool::Result<Ahead>>,
    ahead: Ahead,
    task: JoinHandle<Tally>,
}

impl Handle {
    fn spawn(replica: Replica) -> Self {
        let ahead = replica.ahead();
        let (phases, incoming) = mpsc::channel(1);
        let (outgoing, answers) = mpsc::channel(1);
        let task = tokio::spawn(replica.serve(incoming, outgoing));
        Self { phases, answers, ahead, task }
    }
}

impl Simulation {
    pub(super) fn new(
        replicas: Vec<Replica>,
        ledger: Arc<Ledger>,
        stop: Stop,
        shared: bool,
        jobs: usize,
    ) -> Self {
        // Shows itself on a terminal only.
        let progress = ProgressBar::new(jobs as u64);
        if let Ok(style) =
            ProgressStyle::with_template("{bar:30} {pos}/{len} jobs, {elapsed}, {msg}")
        {
            progress.set_style(style);
        }
        let replicas = replicas.into_iter().map(Handle::spawn).collect();
        Self { replicas, ledger, stop, shared, progress }
    }

    /// Runs to the end of the log, or to an error or a signal.
    ///
    /// What is held after an error is given back by [`give_back`](Self::give_back).
    pub(super) async fn run(&mut self) -> Result<()> {
        let mut now = 0;
        let mut pauses = 0;
        loop {
            if let Some(signal) = self.stop.requested() {
                return Err(Error::Interrupted { signal });
            }
            match self.next_event() {
                // Never back: a job that was granted late and has run time 0 ends at once.
                Some(event) => {
                    now = event.max(now);
                    pauses = 0;
                }
                // No job runs, so only other processes that share the pool can give units back. In
                // the log's time nothing happens meanwhile: the clock stands still.
                None if self.waiting() > 0 => {
                    if !self.shared {
                        return Err(Error::Stuck);
                    }
                    pauses += 1;
                    if pauses == MANY_PAUSES {
                        tracing::warn!("others hold the pool's units; waiting for them");
                    }
                    self.progress.set_message("waiting for units that others hold");
                    tokio::time::sleep(PAUSE).await;
                }
                None => return Ok(()),
            }
            self.phase(Phase::Release(now), |ahead| is_due(ahead.end, now)).await?;
            // Only now, when all replicas have released: units that are free at this second are
            // there for whoever comes first.
            self.phase(Phase::Claim(now), |ahead| ahead.waiting > 0 || is_due(ahead.submit, now))
                .await?;
            self.show(now);
        }
    }

    /// Gives back whatever may be held, and tries it with every replica.
    pub(super) async fn give_back(&mut self) -> Result<()> {
        self.progress.finish_and_clear();
        self.phase(Phase::GiveBack, |_| true).await
    }

    /// Ends the replicas and answers what they have seen.
    pub(super) async fn finish(self) -> Result<Tally> {
        self.progress.finish_and_clear();
        let mut all = Tally::default();
        for Handle { phases, task, .. } in self.replicas {
            drop(phases);
            let tally = task.await.map_err(|_| Error::ReplicaLost)?;
            all.waits.extend(tally.waits);
            all.refusals += tally.refusals;
            all.too_large.extend(tally.too_large);
        }
        all.waits.sort_unstable();
        all.too_large.sort_unstable_by_key(|job| job.number);
        Ok(all)
    }

    /// Lets those replicas that have something to do in a phase do it, all at once, and waits for
    /// all of them, also when one fails.
    async fn phase(&mut self, phase: Phase, concerns: impl Fn(&Ahead) -> bool) -> Result<()> {
        let mut asked = Vec::with_capacity(self.replicas.len());
        let mut result = Ok(());
        for replica in self.replicas.iter_mut().filter(|replica| concerns(&replica.ahead)) {
            match replica.phases.send(phase).await {
                Ok(()) => asked.push(replica),
                Err(_) => result = Err(Error::ReplicaLost),
            }
        }
        for replica in asked {
            match replica.answers.recv().await {
                Some(Ok(ahead)) => replica.ahead = ahead,
                Some(Err(error)) => result = Err(error.into()),
                None => result = Err(Error::ReplicaLost),
            }
        }
        result
    }

    fn next_event(&self) -> Option<u64> {
        self.replicas
            .iter()
            .flat_map(|replica| [replica.ahead.end, replica.ahead.submit])
            .flatten()
            .min()
    }

    fn waiting(&self) -> usize {
        self.replicas.iter().map(|replica| replica.ahead.waiting).sum()
    }

    fn show(&self, now: u64) {
        if self.progress.is_hidden() {
            return;
        }
        let too_large: usize = self.replicas.iter().map(|replica| replica.ahead.too_large).sum();
        self.progress.set_position(self.ledger.totals().granted + too_large as u64);
        let day = now / 86_400;
        self.progress.set_message(format!("day {day} of the log, {} wait", self.waiting()));
    }
}

fn is_due(event: Option<u64>, now: u64) -> bool {
    event.is_some_and(|event| event <= now)
}
