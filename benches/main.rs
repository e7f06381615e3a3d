//! What a claim costs: the figures that the project promises, measured on a Redis server of the
//! bench's own.
//!
//! `make bench` prints them as a table and keeps it as `benches/RESULTS.md`. Bounds are ratios of
//! figures taken within one run, so they hold on any machine; the durations beside them do not.
//!
//! Arguments, after `cargo bench --bench quotas --`:
//! `--quick` runs everything at tiny sizes, only to prove that it runs, and judges nothing;
//! `--strict` ends with status 1 if a bound is missed;
//! `--print-only` leaves `RESULTS.md` as it is, as `--quick` and a choice of figures do;
//! any other word runs only the figures whose names contain it.
//! `TOKENPOOL_TEST_SERVER` chooses the server's binary.

mod attributes;
mod batches;
mod calls;
mod client;
#[path = "../tests/support/cluster.rs"]
#[expect(dead_code, reason = "the tests use the rest")]
mod cluster;
mod commands;
mod cores;
mod deployments;
mod flatness;
mod hand_off;
mod keeper;
mod load;
mod memory_backend;
mod memory_use;
mod monitor;
mod others;
#[path = "../tests/support/polling.rs"]
mod polling;
#[path = "../tests/support/proxy.rs"]
#[expect(dead_code, clippy::unwrap_used, reason = "the tests use it")]
mod proxy;
mod report;
#[path = "../tests/support/sentinels.rs"]
#[expect(dead_code, reason = "the tests use the rest")]
mod sentinels;
#[path = "../tests/support/server.rs"]
mod server;
mod server_cost;
mod stage;
#[path = "../tests/support/tls.rs"]
#[expect(dead_code, clippy::unwrap_used, reason = "the tests use the rest, and as tests do")]
mod tls;
mod waiters;
mod waiting;

use std::process::ExitCode;

use polling::until;
use report::{Figure, Report};

/// How much to measure.
#[derive(Clone, Copy, Debug)]
struct Scale {
    quick: bool,
}

impl Scale {
    fn pick<T>(self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }
}

const FIGURES: [Figure; 12] = [
    server_cost::FIGURE,
    flatness::FIGURE,
    hand_off::FIGURE,
    waiting::FIGURE,
    keeper::FIGURE,
    commands::FIGURE,
    client::FIGURE,
    batches::FIGURE,
    memory_use::FIGURE,
    memory_backend::FIGURE,
    attributes::FIGURE,
    deployments::FIGURE,
];

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if let [first, rest @ ..] = &*arguments
        && first == waiters::OPTION
    {
        waiters::run(rest);
        return ExitCode::SUCCESS;
    }
    if let [first, rest @ ..] = &*arguments
        && first == attributes::OPTION
    {
        attributes::watch(rest);
        return ExitCode::SUCCESS;
    }
    let (options, words): (Vec<_>, Vec<_>) =
        arguments.into_iter().partition(|argument| argument.starts_with("--"));
    let given = |option: &str| options.iter().any(|given| given == option);
    let allowed = ["--bench", "--quick", "--strict", "--print-only"]; // cargo adds the first
    if let Some(unknown) = options.iter().find(|option| !allowed.contains(&option.as_str())) {
        eprintln!("unknown option {unknown}; known are {}", allowed[1..].join(", "));
        return ExitCode::from(2);
    }
    let scale = Scale { quick: given("--quick") };
    let wanted = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word));

    cores::divide();
    let mut report = Report::new(scale);
    for figure in FIGURES {
        if wanted(figure.name) {
            eprintln!("measuring {} ...", figure.name);
            report.begin(figure);
            (figure.run)(scale, &mut report);
        }
    }
    println!("{}\n{}", report.table(), report.disturbance());
    if !(scale.quick || given("--print-only")) && words.is_empty() {
        report.write();
    }
    match report.missed() {
        0 => ExitCode::SUCCESS,
        missed => {
            println!("bounds MISSED: {missed}");
            ExitCode::from(u8::from(given("--strict")))
        }
    }
}
