//! Keeps the server and its clients on different cores.
//!
//! A real server is on another machine. On one of two cores the scheduler at times puts both on the
//! same core: a PING then takes 11 instead of 55 microseconds and 256 tasks get a third less done,
//! by chance and for the whole run.

use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::server::Server;

/// The server's core, once it is its own.
static SERVERS: OnceLock<usize> = OnceLock::new();

/// Leaves the last core to the server. To be called before there are other threads; without
/// `taskset` or a second core nothing happens.
pub(crate) fn divide() {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if cores > 1 && leave(cores - 1) {
        let _ = SERVERS.set(cores - 1);
    }
}

/// Runs what starts servers that share all cores with it.
pub(crate) fn shared<T>(run: impl FnOnce() -> T) -> T {
    let Some(&last) = SERVERS.get() else { return run() };
    assert!(leave(last + 1), "all cores can be used");
    let done = run();
    assert!(leave(last), "the last core can be left again");
    done
}

/// Uses the cores before this one.
fn leave(core: usize) -> bool {
    taskset(&format!("0-{}", core - 1), std::process::id())
}

/// Moves a server to its core.
pub(crate) fn place(server: &Server) {
    if let Some(core) = SERVERS.get() {
        assert!(taskset(&core.to_string(), server.id()), "the server can be moved to core {core}");
    }
}

/// For the report.
pub(crate) fn description() -> &'static str {
    match SERVERS.get() {
        Some(_) => "the server on a core of its own",
        None => "the server on the same cores as its clients (no taskset, or one core)",
    }
}

fn taskset(cores: &str, process: u32) -> bool {
    let mut taskset = Command::new("taskset");
    taskset.args(["--all-tasks", "--cpu-list", "--pid", cores, &process.to_string()]);
    taskset.stdout(Stdio::null()).stderr(Stdio::null());
    taskset.status().is_ok_and(|status| status.success())
}
