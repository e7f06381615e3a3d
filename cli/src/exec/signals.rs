//! Signals that are passed on to the command.

use std::fs::{self, File};
use std::io;
use std::task::Poll;

use futures_util::future::Either;
use nix::sys::signal::Signal;
use tokio::signal::unix;

const PASSED_ON: [Signal; 6] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

/// The signals that this process gets, from now on.
#[derive(Debug)]
pub(super) struct Signals(Vec<(Signal, unix::Signal)>);

impl Signals {
    pub(super) fn listen() -> io::Result<Self> {
        let listen = |signal: Signal| {
            let kind = unix::SignalKind::from_raw(signal as i32);
            Ok((signal, unix::signal(kind)?))
        };
        let heard = PASSED_ON.into_iter().filter(|signal| !is_ignored(*signal));
        heard.map(listen).collect::<io::Result<_>>().map(Self)
    }

    /// The next signal. May be dropped and asked for again.
    pub(super) async fn next(&mut self) -> Signal {
        std::future::poll_fn(|context| {
            let arrived = self.0.iter_mut().find_map(|(signal, arrivals)| {
                arrivals.poll_recv(context).is_ready().then_some(*signal)
            });
            arrived.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// The number of a signal that has arrived already.
    pub(super) async fn pending(&mut self) -> Option<u8> {
        let end = std::pin::pin!(self.end());
        match futures_util::future::select(end, std::future::ready(())).await {
            Either::Left((signal, _)) => Some(signal),
            Either::Right(_) => None,
        }
    }

    /// The number of the next signal that ends a program which does not expect it.
    pub(super) async fn end(&mut self) -> u8 {
        // All of them do, and their numbers are small.
        u8::try_from(self.next().await as i32).unwrap_or(u8::MAX)
    }
}

/// Whether whoever started this process had it ignored, as `nohup` does: then the command ignores it, too.
fn is_ignored(signal: Signal) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    mask & (1 << (signal as u32 - 1)) != 0
}

/// Whether the command gets this signal without help: what is typed at a terminal goes to its whole
/// foreground group, and a second Ctrl-C means more than a first.
pub(super) fn is_for_all(signal: Signal) -> bool {
    let typed = matches!(signal, Signal::SIGINT | Signal::SIGQUIT);
    typed && is_in_foreground()
}

fn is_in_foreground() -> bool {
    let Ok(terminal) = File::open("/dev/tty") else { return false };
    nix::unistd::tcgetpgrp(&terminal).is_ok_and(|group| group == nix::unistd::getpgrp())
}
