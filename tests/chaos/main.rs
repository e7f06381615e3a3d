//! Many processes use pools and locks while everything is broken that can break: processes die or stop for longer than their
//! leases, servers die, hang, come back or are replaced, their scripts and connections go, slots move, the network parts.
//! Afterwards the logs that the processes wrote outside of Redis are judged.
//!
//! `CHAOS_TOPOLOGY` (`single`, `sentinels`, `protected` or `cluster`; all of them at a time if it is not set) says where,
//! `CHAOS_SECONDS` (15) for how long each, or longer until everything has befallen it, and `CHAOS_SEED` repeats the choices of
//! a run.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "../support/cluster.rs"]
#[expect(dead_code, reason = "the other tests use more of it")]
mod cluster;
/// The worker processes, and what befalls them.
mod crew;
/// The parent: starts everything, has it broken, and waits until all units are back.
mod director;
/// What the processes write down.
mod events;
/// What must hold of the logs.
mod judge;
/// The pools that are used.
mod plan;
#[path = "../support/polling.rs"]
mod polling;
#[path = "../support/proxy.rs"]
#[expect(dead_code, reason = "the other tests use more of it")]
mod proxy;
/// Choices that can be repeated.
mod rng;
#[path = "../support/sentinels.rs"]
#[expect(dead_code, reason = "the other tests use more of it")]
mod sentinels;
#[path = "../support/server.rs"]
#[expect(dead_code, reason = "the other tests use more of it")]
mod server;
/// The servers, as they are really run, and what befalls them.
mod topology;
/// A process that claims, waits, holds and gives back.
mod worker;

use std::process::ExitCode;

use polling::until;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("worker") => worker::main(&arguments[1..]),
        Some("--list") => println!("chaos: test"),
        // As the other tests do: run if the name is asked for.
        Some(filter) if !filter.starts_with('-') && !"chaos".contains(filter) => {}
        _ => return director::main(),
    }
    ExitCode::SUCCESS
}
