use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use tokenpool::{
    AllocationToken, Claim, Claimant, ExecutionId, Holder, Lease, PoolName, QueueChange, Quota,
    QuotaChange, ResourceConstraintsSpec, Units, Weight,
};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::crew::{Crew, WORKERS};
use crate::events::{self, Entry, Event, Log, now};
use crate::judge::{self, Rules, Verdict};
use crate::plan::{self, CLAIMED, DOMAINS, LEASES, PROJECTS};
use crate::rng::{Deck, Rng};
use crate::topology::{Kind, LEARNING, Topology};
use crate::until;

/// Everything has befallen the servers by then, however few seconds were asked for.
const LATEST: Duration = Duration::from_secs(240);
/// How long a ticket of the library, and what was handed to it, outlives its process.
const TICKET: Duration = Duration::from_secs(10);
/// For whatever this machine is busy with. What is lost is lost for ever.
const SLACK: Duration = Duration::from_secs(15);
/// Every pool answers again by then, without an operator.
const RECOVERED: Duration = Duration::from_secs(40);
/// Fewer grants in a second are no progress, even where pools learn half of the time.
const SLOWEST: u64 = 1;

pub(crate) fn main() -> ExitCode {
    let number = |name| std::env::var(name).ok().map(|text| text.parse().expect("it is a number"));
    let seconds = number("CHAOS_SECONDS").unwrap_or(15);
    let seed = number("CHAOS_SEED").unwrap_or_else(|| now() % 1_000_000);
    let is_good = match std::env::var("CHAOS_TOPOLOGY") {
        Ok(name) => {
            let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name);
            let all = Kind::ALL.map(Kind::name);
            one(kind.unwrap_or_else(|| panic!("CHAOS_TOPOLOGY is one of {all:?}")), seed, seconds)
        }
        Err(_) => all(seed),
    };
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs this program for all topologies at a time: they wait more than they compute.
fn all(seed: u64) -> bool {
    let program = std::env::current_exe().expect("this program has a path");
    let start = |kind: Kind| {
        let mut one = Command::new(&program);
        one.env("CHAOS_TOPOLOGY", kind.name()).env("CHAOS_SEED", seed.to_string());
        one.stdout(Stdio::piped()).spawn().expect("this program can be started again")
    };
    let mut is_good = true;
    for one in Kind::ALL.map(start) {
        let said = one.wait_with_output().expect("its output can be read");
        print!("{}", String::from_utf8_lossy(&said.stdout));
        is_good &= said.status.success();
    }
    is_good
}

/// Runs everything on servers of this kind, and says what was wrong.
fn one(kind: Kind, seed: u64, seconds: u64) -> bool {
    judge::prove();
    let again = format!("CHAOS_TOPOLOGY={} CHAOS_SEED={seed} CHAOS_SECONDS={seconds}", kind.name());
    // Kept unless all was well, whatever becomes of this process.
    let directory = tempfile::tempdir().expect("a temporary directory can be made").keep();
    println!("chaos: {again}, logs in {}", directory.display());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be made");
    let problems = runtime.block_on(run(kind, &directory, seed, seconds));
    if problems.is_empty() {
        std::fs::remove_dir_all(directory).expect("the directory is ours");
        return true;
    }
    let first = problems[..problems.len().min(20)].join("\n");
    println!("{} problems; the first:\n{first}", problems.len());
    println!("to repeat the choices: {again}");
    false
}

/// Runs everything on servers of this kind; answers what was wrong.
async fn run(kind: Kind, directory: &Path, seed: u64, seconds: u64) -> Vec<String> {
    let log = Log::create(&directory.join("director.log")).expect("the directory is ours");
    let mut topology = Topology::start(kind, WORKERS, log).await;
    make_pools(&topology).await;
    let configurations = (0..WORKERS).map(|worker| topology.configuration(worker)).collect();
    let mut crew = Crew::start(directory.to_owned(), configurations, seed);

    let over = CancellationToken::new();
    let (mut deck, mut problems) = (Deck::new(kind.faults()), Vec::new());
    let mut recovered = Duration::ZERO;
    let disasters = async {
        let (start, mut rng) = (Instant::now(), Rng::new(seed, &[0]));
        let is_short = |deck: &Deck<_>| deck.drawn().any(|(_, times)| times == 0);
        while start.elapsed() < Duration::from_secs(seconds)
            || (is_short(&deck) && start.elapsed() < LATEST)
        {
            let (least, most) = kind.peace();
            sleep(rng.millis(least, most)).await;
            let fault = deck.draw(&mut rng);
            topology.befall(fault, &mut rng).await;
            recovered = recover(&topology, &mut problems).await.max(recovered);
        }
        over.cancel();
        start.elapsed()
    };
    let (took, ()) = tokio::join!(disasters, crew.suffer(&over));
    println!(
        "{} workers, {}, {}; {} failovers that nobody asked for",
        crew.started(),
        figures(crew.faults()),
        figures(&deck),
        topology.unasked()
    );

    problems.extend(never(crew.faults()));
    problems.extend(never(&deck));
    topology.settle().await;
    problems.extend(crew.end().await);
    let back = await_units(kind, &topology, &mut problems).await;
    // Until everybody was gone.
    topology.settle().await;

    let (logs, director) = read_all(directory);
    let rules = Rules { limits: plan::limits, protected: kind == Kind::Protected };
    let verdict = judge::judge(&logs, &director, rules);
    report(&verdict, &director, took);
    println!(
        "every pool answered again within {recovered:.1?}, all units and tickets were back after {back:.1?}"
    );
    problems.extend(unlikely(&verdict, seconds));
    problems.extend(verdict.violations);
    problems
}

fn report(verdict: &Verdict, director: &[Entry], took: Duration) {
    println!("{}", listed(verdict.counts.iter().map(|(what, times)| format!("{what} {times}"))));
    let held = verdict.most.iter();
    let held = held.map(|(name, (most, limit))| format!("{name}: {most} of {limit}"));
    println!("most held for certain: {}", listed(held));
    let slowest = verdict.slowest.iter();
    let slowest = slowest.map(|(call, (took, limit))| format!("{call} {took} of {limit} ms"));
    println!("the longest calls: {}", listed(slowest));
    let doubts = director.iter().filter_map(|Entry { at, event }| match event {
        Event::Doubtful { from, .. } => Some(at - from),
        _ => None,
    });
    let doubtful = Duration::from_nanos(doubts.sum());
    println!("of {took:.1?} {doubtful:.1?} were in doubt");
    let (times, most) = verdict.excused;
    println!("{times} times at most {most} units were on top, and excused");
}

fn listed(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}

fn figures<T: Copy + Debug>(deck: &Deck<T>) -> String {
    listed(deck.drawn().map(|(fault, times)| format!("{fault:?} {times}")))
}

fn never<T: Copy + Debug>(deck: &Deck<T>) -> Vec<String> {
    let never = deck.drawn().filter(|(_, times)| *times == 0);
    never.map(|(fault, _)| format!("{fault:?} never happened")).collect()
}

/// What would mean that too little happened to prove anything.
fn unlikely(Verdict { counts, most, .. }: &Verdict, seconds: u64) -> Vec<String> {
    let mut problems = Vec::new();
    let grants = counts.get("grants").copied().unwrap_or_default();
    if grants < SLOWEST * seconds {
        problems.push(format!("only {grants} grants"));
    }
    if counts.get("seen").is_none_or(|&seen| seen == 0) {
        problems.push("nothing was ever held for certain".to_owned());
    }
    for pool in plan::pools() {
        if most.get(&pool.to_string()).is_none_or(|(most, _)| *most == 0) {
            problems.push(format!("{pool} was never held for certain"));
        }
    }
    problems
}

/// The logs of the workers, by their numbers, and the director's.
fn read_all(directory: &Path) -> (BTreeMap<u64, Vec<Entry>>, Vec<Entry>) {
    let (mut logs, mut director) = (BTreeMap::new(), Vec::new());
    for file in directory.read_dir().expect("the directory can be read") {
        let path = file.expect("it is readable").path();
        if path.extension().is_none_or(|extension| extension != "log") {
            continue;
        }
        let entries = events::read(&path).expect("the log is whole");
        let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
        match name.strip_prefix("worker-") {
            Some(number) => {
                logs.insert(number.parse().expect("workers have numbers"), entries);
            }
            None => director = entries,
        }
    }
    (logs, director)
}

/// The pools, before anybody uses them.
async fn make_pools(topology: &Topology) {
    let backend = topology.open().await.expect("the servers are there");
    for plan in &CLAIMED {
        let quota = Quota::new(plan.quota.try_into().unwrap(), u32::MAX).unwrap();
        let pool = plan.pool();
        backend.change_quota(&pool, QuotaChange::Register(quota)).await.unwrap();
        let weight = Weight::new(2).unwrap();
        let change = QueueChange::new().order(plan.order).weight(PROJECTS[0], weight);
        backend.change_queue(&pool, &change).await.unwrap();
    }
}

/// All servers run again, or still. Waits until a claim of each pool is answered, and does nothing else.
async fn recover(topology: &Topology, problems: &mut Vec<String>) -> Duration {
    let start = Instant::now();
    for pool in plan::pools() {
        while let Err(error) = probe(topology, &pool).await {
            if start.elapsed() > RECOVERED {
                problems.push(format!("{pool} is not there after {RECOVERED:?}: {error}"));
                break;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
    start.elapsed()
}

/// A claim as of somebody new, whatever the answer.
async fn probe(topology: &Topology, pool: &PoolName) -> tokenpool::Result<()> {
    let backend = topology.open().await?;
    let execution = ExecutionId::new(PROJECTS[0], DOMAINS[0], "probe")?;
    let (holder, constraints) = (Holder::new("director")?, ResourceConstraintsSpec::NONE);
    let claimant = Claimant { execution: &execution, constraints, holder: &holder };
    let token = AllocationToken::new("probe")?;
    let claim = Claim::new(token.clone(), Units::new(1)?);
    let claim = claim.with_lease(Lease::new(Duration::from_millis(LEASES[0]))?);
    for answer in backend.allocate(pool, claimant, &[claim]).await? {
        drop(answer?);
    }
    backend.release(pool, &execution, &[token]).await.map(drop)
}

/// Waits until nothing is held and nobody waits, which takes as long as the longest lease or ticket at most.
async fn await_units(kind: Kind, topology: &Topology, problems: &mut Vec<String>) -> Duration {
    let start = Instant::now();
    let longest = LEASES.iter().max().copied().unwrap_or_default();
    let learning = if kind == Kind::Protected { LEARNING } else { Duration::ZERO };
    let limit = TICKET.max(Duration::from_millis(longest)) + learning + SLACK;
    let backend = topology.open().await.expect("the servers are there");
    for pool in plan::pools() {
        loop {
            answered(async || backend.renew(&pool, &[]).await).await;
            let usage = answered(async || backend.usage(&pool).await).await;
            if usage.in_use == 0 && usage.tickets == 0 {
                break;
            }
            if start.elapsed() > limit {
                problems.push(format!("not back after {limit:?}: {pool} {usage:?}"));
                break;
            }
            // Leases end by the clock; there is nothing to wait for.
            sleep(Duration::from_millis(20)).await;
        }
        let report = answered(async || backend.check(&pool).await).await;
        if !report.is_clean() || report.members + report.records + report.tickets > 0 {
            problems.push(format!("{pool}: {report:?}"));
        }
    }
    start.elapsed()
}

/// What a call answers that is repeated, as errors say that it may be.
async fn answered<T>(call: impl AsyncFn() -> tokenpool::Result<T>) -> T {
    until("a call is answered", async || match call().await {
        Err(error) if error.is_retryable() => None,
        answer => Some(answer.expect("the call is right")),
    })
    .await
}
