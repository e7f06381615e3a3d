//! Running the command: passing signals on, and ending it when it has lost its units.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokenpool::Allocation;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep_until};

use super::signals::{Signals, is_for_all};
use crate::error::{Error, Result};
use crate::output::tell;

/// What becomes of a command whose units are lost.
#[derive(Clone, Copy, Debug)]
pub(super) enum Bereft {
    /// TERM, and KILL after this time.
    Ended(Duration),
    RunsOn,
}

/// Starts the command, with the grant's names in its environment.
pub(super) fn start(command: &[OsString], units: &Allocation) -> Result<Child> {
    let (program, arguments) = command
        .split_first()
        .ok_or_else(|| Error::Usage("a command must follow after --".to_owned()))?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("TOKENPOOL_NAMESPACE", units.pool().as_str())
        .env("TOKENPOOL_TOKEN", units.token().as_str());
    if let Some(number) = units.fencing_number() {
        command.env("TOKENPOOL_FENCING", number.to_string());
    }
    command.spawn().map_err(|source| {
        let command = program.to_string_lossy().into_owned();
        match source.kind() {
            io::ErrorKind::NotFound => Error::CommandNotFound { command },
            _ => Error::CommandNotRun { command, source },
        }
    })
}

/// Waits for the command's end.
pub(super) async fn finish(
    mut child: Child,
    units: &Allocation,
    signals: &mut Signals,
    bereft: Bereft,
) -> io::Result<ExitStatus> {
    let mut lost = Some(Box::pin(units.lost()));
    let mut patience_ends = None;
    loop {
        tokio::select! {
            status = child.wait() => return status,
            signal = signals.next() => {
                if !is_for_all(signal) {
                    send(&child, signal);
                }
            }
            () = next(&mut lost) => {
                lost = None;
                patience_ends = bereave(&child, units, bereft);
            }
            () = until(patience_ends) => {
                patience_ends = None;
                tell(format_args!("error: the command has not ended in time; killing it\n"));
                send(&child, Signal::SIGKILL);
            }
        }
    }
}

/// The exit status that a shell would give: 128 + n for a command that signal n killed.
pub(super) fn status(ended: ExitStatus) -> u8 {
    let status = ended.code().or_else(|| ended.signal().map(|signal| 128 + signal));
    status.and_then(|status| u8::try_from(status).ok()).unwrap_or(u8::MAX)
}

/// Tells that the units are lost, and ends the command unless it is to run on. Answers until when it
/// has time for its end.
fn bereave(child: &Child, units: &Allocation, bereft: Bereft) -> Option<Instant> {
    let (count, pool) = (units.units(), units.pool());
    match bereft {
        Bereft::RunsOn => {
            tell(format_args!(
                "warning: {count} unit(s) of {pool} are lost; the command runs on\n"
            ));
            None
        }
        Bereft::Ended(grace) => {
            tell(format_args!("error: {count} unit(s) of {pool} are lost; ending the command\n"));
            send(child, Signal::SIGTERM);
            // A time beyond what the clock can tell never comes.
            Instant::now().checked_add(grace)
        }
    }
}

fn send(child: &Child, signal: Signal) {
    // Without an id it has ended, and its id may be another's.
    let id = child.id().and_then(|id| i32::try_from(id).ok());
    if let Some(Err(error)) = id.map(|id| kill(Pid::from_raw(id), signal)) {
        tracing::warn!(%signal, %error, "the command did not get a signal");
    }
}

async fn next<F: Future<Output = ()> + Unpin>(event: &mut Option<F>) {
    match event {
        Some(event) => event.await,
        None => std::future::pending().await,
    }
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
