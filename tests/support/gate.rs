//! A door between a library and its server, which keeps answers back or loses them.

use std::path::PathBuf;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What passes from the server to its clients. The other direction is always open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// Everything.
    Open,
    /// What the server tells of its own accord; answers are kept back.
    Notices,
    /// Nothing; it is kept back.
    Shut,
}

/// The state of the door, and how often all connections were cut.
type State = (Door, u64);

/// A unix socket that stands for a server's.
#[derive(Debug)]
pub(crate) struct Gate {
    directory: TempDir,
    state: watch::Sender<State>,
    listener: JoinHandle<()>,
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

impl Gate {
    /// An open door before the server at this socket.
    pub(crate) fn before(server: PathBuf) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("s")).unwrap();
        let state = watch::Sender::new((Door::Open, 0));
        let watched = state.subscribe();
        let listener = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = UnixStream::connect(&server).await else { continue };
                tokio::spawn(serve(client, server, watched.clone()));
            }
        });
        Self { directory, state, listener }
    }

    pub(crate) fn url(&self) -> String {
        format!("unix://{}", self.directory.path().join("s").display())
    }

    pub(crate) fn set(&self, door: Door) {
        self.state.send_modify(|state| state.0 = door);
    }

    /// Cuts all connections, with what is kept back; new ones pass.
    pub(crate) fn cut(&self) {
        self.state.send_modify(|state| *state = (Door::Open, state.1 + 1));
    }
}

async fn serve(client: UnixStream, server: UnixStream, mut state: watch::Receiver<State>) {
    let born = state.borrow().1;
    let (mut from_client, to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    let answers = pass_answers(from_server, to_client, state.clone());
    tokio::select! {
        _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
        () = answers => {}
        _ = state.wait_for(|(_, cuts)| *cuts != born) => {}
    }
}

async fn pass_answers(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut state: watch::Receiver<State>,
) {
    let born = state.borrow().1;
    let mut buffer = vec![0; 1 << 16];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let bytes = &buffer[..length];
        // In RESP3 such a message begins with a word of its own.
        let is_notice = bytes.starts_with(b">");
        let passes = |(door, cuts): &State| match door {
            Door::Open => *cuts == born,
            Door::Notices => is_notice,
            Door::Shut => false,
        };
        if state.wait_for(passes).await.is_err() || to.write_all(bytes).await.is_err() {
            return;
        }
    }
}
