//! Many processes use pools and locks on one server while everything is broken that can break: processes die or stop
//! for longer than their leases, the server dies and comes back, its scripts and connections go. Afterwards the logs that
//! the processes wrote outside of Redis are judged.
//!
//! `CHAOS_SECONDS` (20) says how long, `CHAOS_SEED` repeats the choices of a run.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

/// The parent: starts everything, breaks it, and waits until all units are back.
mod director;
/// What the processes write down.
mod events;
/// What must hold of the logs.
mod judge;
/// The pools that are used.
mod plan;
/// Choices that can be repeated.
mod rng;
#[path = "../support/server.rs"]
#[expect(dead_code, reason = "the other tests use more of it")]
mod server;
/// A process that claims, waits, holds and gives back.
mod worker;

use std::process::ExitCode;

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
