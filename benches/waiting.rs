//! What it costs to wait, and how soon whoever waits runs.

use std::time::{Duration, Instant};

use redis::Commands as _;
use tokenpool::{Allocation, ResourceConstraintsSpec, Wait};

use crate::Scale;
use crate::calls::Token;
use crate::monitor::{Commands, Monitor};
use crate::report::{Bound, Figure, Report, median, percentile};
use crate::server::Server;
use crate::stage::{Stage, pool_name};
use crate::waiters::{POOL, Turn, Waiters, claim};

pub(crate) const FIGURE: Figure = Figure {
    name: "waiting",
    how: "1000 tasks in 4 processes, each process with a manager, acquire the only unit of a pool \
          with a lease, let it go, and queue up again; so does this process, to stop the others \
          between the parts. All of them over TCP. Idle: commands by MONITOR for 10 s while this process holds the unit. \
          Hand-offs: commands by MONITOR while the unit goes round and holders release at once, \
          divided by the grants that fencing numbers count: releasing, filing a ticket, and \
          taking over what was handed to it are one each. The same with 10 tasks. Release to \
          running: holders let the last holder's commands end for 2 ms, take the time of a PING on a \
          bare MultiplexedConnection, and release 1 ms later; from the moment before the release to \
          the moment when the next task has its guard, by CLOCK_MONOTONIC, whatever processes they \
          are in. Three rounds.",
    run,
};

const PROCESSES: usize = 4;

fn run(scale: Scale, report: &mut Report) {
    let (few, many) = (10, scale.pick(1000, 40));
    let mut round = Round::start(few);
    round.commands_of_hand_offs(scale.pick(1000, 100), report);
    drop(round);

    let mut round = Round::start(many);
    round.commands_of_hand_offs(scale.pick(5000, 100), report);
    round.commands_of_waiting(scale.pick(Duration::from_secs(10), Duration::from_secs(2)), report);
    round.waiters.calm();
    for _ in 0..scale.pick(3, 1) {
        round.lap();
    }
    latency(&round.waiters.end(), report);
}

/// A unit that goes round.
struct Round {
    tasks: usize,
    stage: Stage,
    waiters: Waiters,
    /// While this process holds it, all others wait.
    unit: Option<Allocation>,
}

impl Round {
    fn start(tasks: usize) -> Self {
        let stage = Stage::on(Server::start_on_tcp(&[]), &[(POOL, 1)]);
        let unit = acquire(&stage);
        let waiters = Waiters::start(&stage.server, tasks, PROCESSES);
        let mut round = Self { tasks, stage, waiters, unit: Some(unit) };
        let usage = round.stage.calls(POOL).usage().to_owned();
        let started = Instant::now();
        while round.stage.admin.hget::<_, _, Option<usize>>(&usage, "tickets") != Ok(Some(tasks)) {
            assert!(started.elapsed() < Duration::from_secs(60), "all tasks file tickets");
            std::thread::sleep(Duration::from_millis(50));
        }
        round
    }

    /// Lets the unit go to everybody else until it comes back.
    fn lap(&mut self) {
        if let Some(unit) = self.unit.take() {
            self.stage.runtime.block_on(unit.release()).expect("the library can release");
        }
        self.unit = Some(acquire(&self.stage));
    }

    /// The number of the latest grant.
    fn fencing_number(&self) -> u64 {
        let number = self.unit.as_ref().and_then(Allocation::fencing_number);
        number.expect("this process holds the unit").get()
    }

    /// Counts the commands of at least so many hand-offs.
    fn commands_of_hand_offs(&mut self, least: u64, report: &mut Report) {
        self.lap(); // every process has loaded the scripts
        std::thread::sleep(SETTLED);
        let (monitor, first) = (Monitor::start(&self.stage.server), self.fencing_number());
        while self.fencing_number() < first + least {
            self.lap();
        }
        std::thread::sleep(SETTLED);
        let hand_offs = self.fencing_number() - first;
        let Commands { sent, in_scripts, .. } = monitor.count(&mut self.stage.admin);
        let [sent, in_scripts] = [sent, in_scripts].map(|count| count as f64 / hand_offs as f64);
        let note = format!("{in_scripts:.1} in scripts; {hand_offs} hand-offs");
        let what = format!("commands to a hand-off, {} tasks waiting", self.tasks);
        report.row(what, sent, Bound::AtMost(6.0), &note);
    }

    /// Counts the commands while nothing happens.
    fn commands_of_waiting(&mut self, time: Duration, report: &mut Report) {
        std::thread::sleep(time / 4);
        let (monitor, started) = (Monitor::start(&self.stage.server), Instant::now());
        std::thread::sleep(time);
        let seconds = started.elapsed().as_secs_f64();
        let Commands { sent, in_scripts, .. } = monitor.count(&mut self.stage.admin);
        let [sent, in_scripts] = [sent, in_scripts].map(|count| count as f64 / seconds);
        let note = format!("{in_scripts:.0} in scripts; {seconds:.0} s");
        let what = format!("commands a second while {} tasks wait", self.tasks);
        report.row(what, sent, Bound::AtMost(200.0), &note);
    }
}

/// Until the last tickets are filed when the unit has gone round.
const SETTLED: Duration = Duration::from_millis(200);

fn acquire(stage: &Stage) -> Allocation {
    let token = Token::nth(u64::MAX);
    let claim = claim(&token).expect("the claim is good");
    let (execution, caps) = (token.execution(), ResourceConstraintsSpec::NONE);
    let pool = pool_name(POOL);
    let claimed = stage.manager.acquire(&pool, &execution, claim, caps, Wait::forever());
    let claimed = stage.runtime.block_on(claimed).expect("the library can wait");
    claimed.granted().expect("who waits for ever is granted")
}

fn latency(turns: &[Turn], report: &mut Report) {
    let micros = |nanos: u64| nanos as f64 / 1e3;
    let calm: Vec<_> = turns.iter().filter(|turn| turn.ping > 0).collect();
    let pings: Vec<_> = calm.iter().map(|turn| micros(turn.ping)).collect();
    let pairs = calm.windows(2).filter_map(|pair| match pair {
        [one, next] if one.fencing_number + 1 == next.fencing_number => {
            Some(micros(next.running.saturating_sub(one.released)))
        }
        _ => None,
    });
    let hand_offs: Vec<_> = pairs.collect();
    let ping = median(pings.clone());
    let slow_ping = percentile(pings, 0.99);
    for (name, share, bound) in [("p50", 0.5, 3.0), ("p99", 0.99, 10.0)] {
        let time = percentile(hand_offs.clone(), share);
        let note = format!(
            "{time:.0} / {ping:.0} µs; p99 of a PING {slow_ping:.0} µs; {} hand-offs",
            hand_offs.len()
        );
        let what = format!("{name} from release to running / p50 of a PING");
        report.row(what, time / ping, Bound::AtMost(bound), &note);
    }
}
