//! One replica: claims and releases its share of the jobs through a manager of its own.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use futures_util::future::join_all;
use tokenpool::{
    AllocationToken, Backend, Claim, Error, ExecutionId, Lease, Manager, PluginId, PoolName,
    Priority, Renewal, Renewed, ResourceConstraintsSpec, ResourceNamespace, Result,
    TaskResourceManager, TicketRequest, Turn,
};
use tokio::sync::mpsc;

use super::ledger::Ledger;
use super::played::Played;
use super::swf::{Job, Owner};

/// What a replica does in one phase of a step.
#[derive(Clone, Copy, Debug)]
pub(super) enum Phase {
    /// Give back what ended by this second.
    Release(u64),
    /// Claim for what was submitted by this second; what is not granted gets a ticket.
    Submit(u64),
    /// Take over what was handed to tickets by this second.
    Collect(u64),
    /// Give back whatever may be held, and claim no more.
    GiveBack,
}

/// What a replica has before it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ahead {
    /// When its next job is submitted.
    pub(super) submit: Option<u64>,
    /// When its next running job ends.
    pub(super) end: Option<u64>,
    /// Jobs that have a ticket.
    pub(super) waiting: usize,
    /// Jobs granted so far.
    pub(super) granted: usize,
    /// Jobs that can never be granted.
    pub(super) too_large: usize,
}

/// What a replica has seen.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// The granted jobs.
    pub(super) played: Vec<Played>,
    /// Jobs that were not granted at once.
    pub(super) refusals: u64,
    /// Jobs that can never be granted.
    pub(super) too_large: Vec<Job>,
}

/// What all replicas of a run share.
#[derive(Clone, Debug)]
pub(super) struct Run {
    /// Name of the execution: tokens of several runs must not be the same.
    pub(super) name: Arc<str>,
    pub(super) pool: PoolName,
    pub(super) plugin: PluginId,
    pub(super) namespace: ResourceNamespace,
    /// How long a ticket lasts unless it is renewed.
    pub(super) ticket: Lease,
    pub(super) constraints: ResourceConstraintsSpec,
    /// The largest job that can ever be granted.
    pub(super) largest: u64,
    pub(super) ledger: Arc<Ledger>,
}

/// A job that has a ticket.
#[derive(Debug)]
struct Waiting {
    job: Job,
    execution: ExecutionId,
    token: AllocationToken,
}

#[derive(Debug)]
pub(super) struct Replica {
    run: Run,
    manager: Manager,
    backend: Arc<dyn Backend>,
    /// The plugin's view for each project and domain.
    tasks: HashMap<Owner, Arc<TaskResourceManager>>,
    coming: VecDeque<Job>,
    waiting: Vec<Waiting>,
    /// By end and number.
    running: BTreeMap<(u64, u64), Job>,
    /// Jobs of calls that failed: they may or may not be held.
    uncertain: Vec<Job>,
    tally: Tally,
}

impl Replica {
    /// A replica with its jobs in the order of their submit times.
    pub(super) fn new(
        run: Run,
        (manager, backend): (Manager, Arc<dyn Backend>),
        jobs: impl IntoIterator<Item = Job>,
    ) -> Self {
        let largest = run.largest;
        let (coming, too_large): (Vec<_>, Vec<_>) =
            jobs.into_iter().partition(|job| job.units.get() <= largest);
        Self {
            run,
            manager,
            backend,
            tasks: HashMap::new(),
            coming: coming.into(),
            waiting: Vec::new(),
            running: BTreeMap::new(),
            uncertain: Vec::new(),
            tally: Tally { too_large, ..Tally::default() },
        }
    }

    pub(super) fn ahead(&self) -> Ahead {
        Ahead {
            submit: self.coming.front().map(|job| job.submit),
            end: self.running.first_key_value().map(|(&(end, _), _)| end),
            waiting: self.waiting.len(),
            granted: self.tally.played.len(),
            too_large: self.tally.too_large.len(),
        }
    }

    /// Does one phase after the other until there are no more, and answers each.
    pub(super) async fn serve(
        mut self,
        mut phases: mpsc::Receiver<Phase>,
        answers: mpsc::Sender<Result<Ahead>>,
    ) -> Tally {
        while let Some(phase) = phases.recv().await {
            let done = match phase {
                Phase::Release(now) => self.release_ended(now).await,
                Phase::Submit(now) => self.submit(now).await,
                Phase::Collect(now) => self.collect(now).await,
                Phase::GiveBack => self.give_back().await,
            };
            if answers.send(done.map(|()| self.ahead())).await.is_err() {
                break;
            }
        }
        self.tally
    }

    async fn release_ended(&mut self, now: u64) -> Result<()> {
        let later = self.running.split_off(&(now.saturating_add(1), 0));
        let ended = std::mem::replace(&mut self.running, later);
        for job in ended.values() {
            self.run.ledger.take_off(job);
        }
        self.release(ended.into_values().collect()).await
    }

    async fn give_back(&mut self) -> Result<()> {
        self.coming.clear();
        let mut jobs = std::mem::take(&mut self.uncertain);
        jobs.extend(std::mem::take(&mut self.waiting).into_iter().map(|waiting| waiting.job));
        jobs.extend(std::mem::take(&mut self.running).into_values());
        self.release(jobs).await
    }

    /// Releases jobs, all executions at once and each in one round trip.
    async fn release(&mut self, jobs: Vec<Job>) -> Result<()> {
        let mut of_owners: HashMap<Owner, Vec<Job>> = HashMap::new();
        for job in jobs {
            of_owners.entry(job.owner).or_default().push(job);
        }
        let mut calls = Vec::with_capacity(of_owners.len());
        for (owner, jobs) in of_owners {
            let task = self.task(owner)?;
            let tokens = jobs.iter().map(token).collect::<Result<Vec<_>>>()?;
            let namespace = self.run.namespace.clone();
            calls.push(async move {
                let released = retrying(|| task.release_many(&namespace, &tokens)).await;
                released.map(drop).map_err(|error| (jobs, error))
            });
        }
        let mut result = Ok(());
        for answer in join_all(calls).await {
            if let Err((jobs, error)) = answer {
                self.uncertain.extend(jobs);
                result = Err(error);
            }
        }
        result
    }

    /// Claims in the order of submission.
    async fn submit(&mut self, now: u64) -> Result<()> {
        let submitted = self.coming.partition_point(|job| job.submit <= now);
        let jobs: Vec<_> = self.coming.drain(..submitted).collect();
        for job in jobs {
            if self.ask(job, now).await? {
                self.tally.refusals += 1;
            }
        }
        Ok(())
    }

    /// Renews all tickets in one round trip, which tells whose turn came, and asks for those again.
    async fn collect(&mut self, now: u64) -> Result<()> {
        let renewals: Vec<_> = self
            .waiting
            .iter()
            .map(|Waiting { execution, token, .. }| Renewal {
                execution,
                token,
                lease: self.run.ticket,
            })
            .collect();
        let answers = match retrying(|| self.backend.renew(&self.run.pool, &renewals)).await {
            // Its data are lost: asking again brings it back.
            Err(Error::UnknownNamespace { .. }) => {
                renewals.iter().map(|_| Ok(Renewed::Lost)).collect()
            }
            answers => answers?,
        };
        let mut changed = Vec::new();
        for (waiting, answer) in std::mem::take(&mut self.waiting).into_iter().zip(answers) {
            match answer {
                Ok(Renewed::Waiting) => self.waiting.push(waiting),
                _ => changed.push(waiting.job),
            }
        }
        for job in changed {
            self.ask(job, now).await?;
        }
        Ok(())
    }

    /// Claims for a job, which then runs or waits; tells whether it waits.
    async fn ask(&mut self, job: Job, now: u64) -> Result<bool> {
        let (task, execution) = (self.task(job.owner)?, self.execution(job.owner)?);
        let Run { namespace, constraints, ticket, .. } = &self.run;
        let token = token(&job)?;
        let claim = Claim::new(token.clone(), job.units);
        let ticket = TicketRequest::new(*ticket).with_priority(priority(&job)?);
        let ask = || task.allocate_or_queue(namespace, claim.clone(), *constraints, &ticket);
        match retrying(ask).await {
            Ok(Turn::Granted(_)) => self.run_job(job, now),
            Ok(Turn::Waiting(_)) => {
                self.waiting.push(Waiting { job, execution, token });
                return Ok(true);
            }
            // Somebody lowered the quota.
            Err(Error::NeverGranted { .. }) => self.tally.too_large.push(job),
            Err(error) => {
                self.uncertain.push(job);
                return Err(error);
            }
        }
        Ok(false)
    }

    fn run_job(&mut self, job: Job, now: u64) {
        self.run.ledger.add(&job);
        let ended = now.saturating_add(job.run_time);
        self.tally.played.push(Played {
            owner: job.owner,
            units: job.units.get(),
            submitted: job.submit,
            granted: now,
            ended,
        });
        self.running.insert((ended, job.number), job);
    }

    fn execution(&self, owner: Owner) -> Result<ExecutionId> {
        ExecutionId::new(&project_name(owner.user), &name("group", owner.group), &self.run.name)
    }

    fn task(&mut self, owner: Owner) -> Result<Arc<TaskResourceManager>> {
        if let Some(task) = self.tasks.get(&owner) {
            return Ok(Arc::clone(task));
        }
        let execution = self.execution(owner)?;
        let task = Arc::new(self.manager.for_execution(self.run.plugin.clone(), execution));
        self.tasks.insert(owner, Arc::clone(&task));
        Ok(task)
    }
}

/// The project that stands for a user of the log.
pub(super) fn project_name(user: Option<u64>) -> String {
    name("user", user)
}

fn name(kind: &str, id: Option<u64>) -> String {
    id.map_or_else(|| format!("{kind}-unknown"), |id| format!("{kind}-{id}"))
}

fn token(job: &Job) -> Result<AllocationToken> {
    AllocationToken::new(job.number.to_string())
}

/// Somebody waits for an interactive job.
fn priority(job: &Job) -> Result<Priority> {
    Priority::new(if job.interactive { 9 } else { 0 })
}

/// Repeats a call that got no answer, which is safe for every one, for about a second.
pub(super) async fn retrying<T, F>(call: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let back_off = ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(100))
        .with_max_times(3)
        .with_jitter();
    call.retry(back_off)
        .when(Error::is_retryable)
        .notify(|error, pause| tracing::warn!(%error, ?pause, "no answer; trying again"))
        .await
}
