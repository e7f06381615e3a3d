//! One replica: claims and releases its share of the jobs through a manager of its own.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use futures_util::future::join_all;
use tokenpool::{
    AllocationToken, Claim, ExecutionId, Limit, Manager, Outcome, PluginId, Refusal,
    ResourceConstraintsSpec, ResourceNamespace, Result, TaskResourceManager,
};
use tokio::sync::mpsc;

use super::ledger::Ledger;
use super::swf::{Job, Owner};

/// What a replica does in one phase of a step.
#[derive(Clone, Copy, Debug)]
pub(super) enum Phase {
    /// Give back what ended by this second.
    Release(u64),
    /// Claim for what was submitted by this second and not granted yet.
    Claim(u64),
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
    /// Jobs that were refused and try again.
    pub(super) waiting: usize,
    /// Jobs that can never be granted.
    pub(super) too_large: usize,
}

/// What a replica has seen.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Seconds from submission to grant in the log's clock, one for each granted job.
    pub(super) waits: Vec<u64>,
    /// Claims refused.
    pub(super) refusals: u64,
    /// Jobs that can never be granted.
    pub(super) too_large: Vec<Job>,
}

/// What all replicas of a run share.
#[derive(Clone, Debug)]
pub(super) struct Run {
    /// Name of the execution: tokens of several runs must not be the same.
    pub(super) name: Arc<str>,
    pub(super) plugin: PluginId,
    pub(super) namespace: ResourceNamespace,
    pub(super) constraints: ResourceConstraintsSpec,
    /// The largest job that can ever be granted.
    pub(super) largest: u64,
    pub(super) ledger: Arc<Ledger>,
}

#[derive(Debug)]
pub(super) struct Replica {
    run: Run,
    manager: Manager,
    /// The plugin's view for each project and domain.
    tasks: HashMap<Owner, Arc<TaskResourceManager>>,
    coming: VecDeque<Job>,
    waiting: VecDeque<Job>,
    /// By end and number.
    running: BTreeMap<(u64, u64), Job>,
    /// Jobs of calls that failed: they may or may not be held.
    uncertain: Vec<Job>,
    tally: Tally,
}

impl Replica {
    /// A replica with its jobs in the order of their submit times.
    pub(super) fn new(run: Run, manager: Manager, jobs: impl IntoIterator<Item = Job>) -> Self {
        let largest = run.largest;
        let (coming, too_large): (Vec<_>, Vec<_>) =
            jobs.into_iter().partition(|job| job.units.get() <= largest);
        Self {
            run,
            manager,
            tasks: HashMap::new(),
            coming: coming.into(),
            waiting: VecDeque::new(),
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
                Phase::Claim(now) => self.claim_submitted(now).await,
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
        self.waiting.clear();
        let mut jobs = std::mem::take(&mut self.uncertain);
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

    /// Claims in the order of submission. A refused job stays in its place; smaller ones may pass.
    async fn claim_submitted(&mut self, now: u64) -> Result<()> {
        let submitted = self.coming.partition_point(|job| job.submit <= now);
        self.waiting.extend(self.coming.drain(..submitted));
        let mut refused = Refused::default();
        for _ in 0..self.waiting.len() {
            let Some(job) = self.waiting.pop_front() else { break };
            if refused.rules_out(&job) {
                self.waiting.push_back(job);
                continue;
            }
            match self.claim(&job).await {
                Ok(Outcome::Granted(_)) => {
                    self.run.ledger.add(&job);
                    self.tally.waits.push(now - job.submit);
                    self.running.insert((now.saturating_add(job.run_time), job.number), job);
                }
                Ok(Outcome::Refused(refusal)) => {
                    self.tally.refusals += 1;
                    // Somebody lowered the quota: waiting for it might never end.
                    if job.units.get() > refusal.size {
                        self.tally.too_large.push(job);
                    } else {
                        refused.note(&job, refusal);
                        self.waiting.push_back(job);
                    }
                }
                Err(error) => {
                    self.uncertain.push(job);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    async fn claim(&mut self, job: &Job) -> Result<Outcome> {
        let task = self.task(job.owner)?;
        let Run { namespace, constraints, .. } = &self.run;
        let claim = Claim::new(token(job)?, job.units);
        retrying(|| task.allocate(namespace, claim.clone(), *constraints)).await
    }

    fn task(&mut self, owner: Owner) -> Result<Arc<TaskResourceManager>> {
        if let Some(task) = self.tasks.get(&owner) {
            return Ok(Arc::clone(task));
        }
        let project = name("user", owner.user);
        let domain = name("group", owner.group);
        let execution = ExecutionId::new(&project, &domain, &self.run.name)?;
        let task = Arc::new(self.manager.for_execution(self.run.plugin.clone(), execution));
        self.tasks.insert(owner, Arc::clone(&task));
        Ok(task)
    }
}

fn name(kind: &str, id: Option<u64>) -> String {
    id.map_or_else(|| format!("{kind}-unknown"), |id| format!("{kind}-{id}"))
}

fn token(job: &Job) -> Result<AllocationToken> {
    AllocationToken::new(job.number.to_string())
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
        .when(tokenpool::Error::is_retryable)
        .notify(|error, pause| tracing::warn!(%error, ?pause, "no answer; trying again"))
        .await
}

/// The smallest claims that were refused in a phase. No unit comes back during one, so whatever is as
/// large and under the same limit would be refused, too; left out, it keeps the number of attempts
/// small while many jobs wait. (Where others share the pool, it just tries again in the next step.)
#[derive(Debug, Default)]
struct Refused {
    by_quota: Option<u64>,
    by_project_cap: HashMap<Option<u64>, u64>,
    by_domain_cap: HashMap<Owner, u64>,
}

impl Refused {
    fn note(&mut self, job: &Job, refusal: Refusal) {
        // Only what is smaller than all before is tried at all, so the last is the smallest.
        let units = job.units.get();
        match refusal.limit {
            Limit::Cap(tokenpool::Scope::Project { .. }) => {
                self.by_project_cap.insert(job.owner.user, units);
            }
            Limit::Cap(_) => {
                self.by_domain_cap.insert(job.owner, units);
            }
            _ => self.by_quota = Some(units),
        }
    }

    fn rules_out(&self, job: &Job) -> bool {
        let smallest = [
            self.by_quota,
            self.by_project_cap.get(&job.owner.user).copied(),
            self.by_domain_cap.get(&job.owner).copied(),
        ];
        smallest.into_iter().flatten().any(|units| job.units.get() >= units)
    }
}
