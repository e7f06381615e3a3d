//! Being asked to stop, by Ctrl-C or by whoever ends the process.

use std::io;

use tokio::sync::watch;

use crate::output::tell;

/// Tells whether a signal arrived.
#[derive(Clone, Debug)]
pub(crate) struct Stop(watch::Receiver<Option<u8>>);

impl Stop {
    /// Takes SIGINT and SIGTERM from now on. The second one ends the program at once: whoever sends
    /// it does not want to wait for a server that does not answer.
    pub(crate) fn listen() -> io::Result<Self> {
        let (sender, receiver) = watch::channel(None);
        let mut signals = Signals::new()?;
        tokio::spawn(async move {
            sender.send_replace(Some(signals.next().await));
            let second = signals.next().await;
            tell(format_args!(
                "error: interrupted twice: units may still be held, see `tokenpool get holders`\n"
            ));
            std::process::exit(128 + i32::from(second));
        });
        Ok(Self(receiver))
    }

    /// The number of the signal that arrived, if one did.
    pub(crate) fn requested(&self) -> Option<u8> {
        *self.0.borrow()
    }

    /// Waits for a signal and answers its number.
    pub(crate) async fn wait(&self) -> u8 {
        let mut receiver = self.0.clone();
        match receiver.wait_for(Option::is_some).await.map(|signal| *signal) {
            Ok(Some(signal)) => signal,
            _ => std::future::pending().await,
        }
    }
}

const SIGINT: u8 = 2;

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) -> u8 {
        const SIGTERM: u8 = 15;
        tokio::select! {
            _ = self.interrupt.recv() => SIGINT,
            _ = self.terminate.recv() => SIGTERM,
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> u8 {
        match tokio::signal::ctrl_c().await {
            Ok(()) => SIGINT,
            Err(_) => std::future::pending().await,
        }
    }
}
