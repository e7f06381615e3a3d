//! `replay`: a job log claimed by several replicas that share one pool, in the log's time.

mod clock;
mod fairness;
mod ledger;
mod played;
mod plot;
mod pool;
mod replica;
mod shares;
mod simulation;
mod summary;
mod swf;

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tokenpool::{BackendType, Error as Library, PoolName, ResourceConstraintsSpec};

use self::ledger::{Ledger, Limits};
use self::pool::ReplayPool;
use self::replica::{Replica, Run, Tally};
use self::simulation::Simulation;
use self::summary::{Summary, Waits};
use self::swf::{Job, Log};
use crate::args::{Global, Replay};
use crate::claims::constraints;
use crate::connect;
use crate::error::{Error, Result, Verdict};
use crate::output::{Output, tell};
use crate::stop::Stop;

pub(crate) use self::swf::LogError;

/// How many of the jobs that are too large are named.
const NAMED: usize = 5;

pub(crate) async fn run(global: &Global, args: &Replay, output: &mut Output) -> Result<Verdict> {
    let constraints = constraints(args.caps)?;
    let quota = args.quota.map(pool::quota).transpose()?;
    let name = match &args.pool {
        Some(name) => PoolName::new(&**name)?,
        None => pool::default_name(&args.file)?,
    };
    if let Some(file) = &args.plot {
        plot::check(file)?;
    }
    let config = connect::any(global)?;
    let log = swf::read(&args.file)?;

    let stop = Stop::listen().map_err(Error::Signals)?;
    let wanted = (quota, args.order.map(Into::into));
    let pool = ReplayPool::open(config, name, wanted, log.processors).await?;
    let outcome = replay(&pool, &log, args.replicas, constraints, stop).await;
    let tidied = pool.tidy_up().await;
    let (summary, Tally { played, too_large, .. }) = outcome?;
    tidied?;

    warn_of_too_large(&too_large);
    output.answer(&summary)?;
    if let Some(file) = &args.plot {
        plot::draw(file, &played, pool.quota)?;
    }
    let correct = summary.overgrants == 0 && summary.still_held == 0;
    Ok(if correct { Verdict::Done } else { Verdict::Failed })
}

/// Replays the log and gives everything back, whatever happens on the way.
async fn replay(
    pool: &ReplayPool,
    log: &Log,
    replicas: u16,
    constraints: ResourceConstraintsSpec,
    stop: Stop,
) -> Result<(Summary, Tally)> {
    let limits = Limits::new(pool.quota, constraints);
    let ledger = Arc::new(Ledger::new(limits));
    let run = Run {
        name: run_name().into(),
        pool: pool.name.clone(),
        plugin: pool.plugin.clone(),
        namespace: pool.namespace.clone(),
        ticket: pool.clock.ticket()?,
        constraints,
        largest: limits.largest(),
        ledger: Arc::clone(&ledger),
    };
    let mut shares = Vec::with_capacity(replicas.into());
    for i in 0..replicas {
        // Jobs are dealt out in turn.
        let jobs = log.jobs.iter().skip(i.into()).step_by(replicas.into()).copied();
        shares.push(Replica::new(run.clone(), pool.manager(i + 1).await?, jobs));
    }

    let started = Instant::now();
    let shared = pool.backend_type() == BackendType::Redis;
    let clock = pool.clock.clone();
    let mut simulation =
        Simulation::new(shares, Arc::clone(&ledger), clock, stop, shared, log.jobs.len());
    if let Err(error) = simulation.run().await {
        return Err(match (simulation.give_back().await, error) {
            (Ok(()), error) => error,
            (Err(_), Error::Library(source)) => not_given_back(&run, pool, source),
            (Err(Error::Library(source)), _) => not_given_back(&run, pool, source),
            (Err(_), error) => error,
        });
    }
    let tally = simulation.finish().await?;
    let elapsed = started.elapsed();

    let totals = ledger.totals();
    let projects = fairness::projects(&tally.played, pool.quota);
    let summary = Summary {
        backend: connect::name(pool.backend_type()),
        replicas,
        jobs: log.jobs.len() as u64,
        granted: totals.granted,
        refusals: tally.refusals,
        units_peak: totals.peak,
        quota: pool.quota,
        overgrants: totals.overgrants,
        still_held: pool.held_by(&run.name).await?,
        wait_seconds: Waits::new(&tally.played),
        elapsed_seconds: fairness::thousandths(elapsed.as_secs_f64()),
        too_large: tally.too_large.len() as u64,
        skipped: log.skipped,
        order: pool.order.as_str(),
        fairness: fairness::index(&projects),
        projects,
    };
    Ok((summary, tally))
}

/// Unlike that of any other run, so that several can share a pool.
fn run_name() -> String {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("replay-{}-{}", std::process::id(), since_epoch.as_micros())
}

fn not_given_back(run: &Run, pool: &ReplayPool, source: Library) -> Error {
    let (run, pool) = (run.name.to_string(), pool.name.clone());
    Error::NotGivenBack { run, pool, source: Box::new(source) }
}

fn warn_of_too_large(jobs: &[Job]) {
    if jobs.is_empty() {
        return;
    }
    let named = jobs.iter().take(NAMED).map(|job| format!("{} ({} units)", job.number, job.units));
    let dots = if jobs.len() > NAMED { ", ..." } else { "" };
    tell(format_args!(
        "warning: {} job(s) are larger than the quota or a cap and were left out: {}{dots}\n",
        jobs.len(),
        named.collect::<Vec<_>>().join(", "),
    ));
}
