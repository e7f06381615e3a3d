//! A proxy that makes connections slow, silent or lost.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::server::Port;

/// How long a port may be somebody else's for a moment.
const PATIENCE: Duration = Duration::from_secs(10);

/// What happens to what comes.
#[derive(Clone, Debug, Default)]
struct State {
    /// Where new connections lead, `host:port`.
    server: String,
    is_held: bool,
    delay: Duration,
    /// How often all connections were closed.
    cuts: u64,
}

/// A port that stands for a server's; all of its connections end when it is dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    port: Port,
    state: watch::Sender<State>,
    listener: Mutex<Option<JoinHandle<()>>>,
    /// Connections that came while everything was kept back.
    held: Arc<AtomicUsize>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(listener) = self.take_listener() {
            listener.abort();
        }
    }
}

impl Proxy {
    /// Passes everything to and from the server at an address, `host:port`.
    pub(crate) fn before(server: impl Into<String>) -> Self {
        let state = watch::Sender::new(State { server: server.into(), ..State::default() });
        let (port, listener, held) = (Port::take(), Mutex::default(), Arc::default());
        let proxy = Self { port, state, listener, held };
        proxy.pass();
        proxy
    }

    /// Where clients connect, `host:port`.
    pub(crate) fn address(&self) -> String {
        self.port.address()
    }

    pub(crate) fn port(&self) -> u16 {
        self.port.number
    }

    /// Leads new connections to another server; those that there are stay.
    pub(crate) fn lead_to(&self, server: impl Into<String>) {
        self.state.send_modify(|state| state.server = server.into());
    }

    /// Closes all connections, with what is on its way; what happens to new ones stays as it is.
    pub(crate) fn cut(&self) {
        self.state.send_modify(|state| state.cuts += 1);
    }

    /// From now on keeps everything back in both directions, also that a connection was closed; still accepts
    /// connections, as if the network were parted.
    pub(crate) fn hold(&self) {
        self.state.send_modify(|state| state.is_held = true);
    }

    /// How many connections came so far while everything was kept back.
    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Passes what was kept back and all that follows, and accepts connections.
    pub(crate) fn pass(&self) {
        let mut listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        listener.get_or_insert_with(|| {
            let listener = listen(self.address().parse().unwrap());
            listener.set_nonblocking(true).unwrap();
            let listener = TcpListener::from_std(listener).unwrap();
            tokio::spawn(accept(listener, self.state.subscribe(), Arc::clone(&self.held)))
        });
        self.state.send_modify(|state| state.is_held = false);
    }

    /// From now on everything arrives so much later, each way.
    pub(crate) fn delay(&self, delay: Duration) {
        self.state.send_modify(|state| state.delay = delay);
    }

    /// Closes all connections and refuses new ones, as if nobody listened, until it passes again.
    pub(crate) async fn refuse(&self) {
        if let Some(listener) = self.take_listener() {
            listener.abort();
            // Only then is the port closed; that it was aborted is no news.
            let _ = listener.await;
        }
        self.cut();
    }

    fn take_listener(&self) -> Option<JoinHandle<()>> {
        self.listener.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Listens at an address of our own.
///
/// A process that another test is starting has what listened here before, until it is a program of its own.
fn listen(address: SocketAddr) -> std::net::TcpListener {
    let start = Instant::now();
    loop {
        match std::net::TcpListener::bind(address) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && start.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(1));
            }
            listener => return listener.unwrap(),
        }
    }
}

async fn accept(listener: TcpListener, state: watch::Receiver<State>, held: Arc<AtomicUsize>) {
    while let Ok((client, _)) = listener.accept().await {
        if state.borrow().is_held {
            held.fetch_add(1, Ordering::Relaxed);
        }
        tokio::spawn(serve(client, state.clone()));
    }
}

async fn serve(client: TcpStream, mut state: watch::Receiver<State>) {
    let born = state.borrow().cuts;
    let mut at_door = state.clone();
    let both = async {
        at_door.wait_for(|state| !state.is_held).await.ok()?;
        let server = at_door.borrow().server.clone();
        let server = TcpStream::connect(server).await.ok()?;
        for stream in [&client, &server] {
            stream.set_nodelay(true).ok()?;
        }
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        tokio::join!(
            pass(from_client, to_server, at_door.clone()),
            pass(from_server, to_client, at_door),
        );
        Some(())
    };
    tokio::select! {
        _ = both => {}
        // Or the proxy is no more.
        _ = state.wait_for(|state| state.cuts != born) => {}
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut state: watch::Receiver<State>) {
    let (sender, mut receiver) = mpsc::channel::<(Instant, Vec<u8>)>(64);
    let come = async move {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            if sender.send((Instant::now(), buffer[..length].to_vec())).await.is_err() {
                return;
            }
        }
        // The end comes after everything else.
        let _ = sender.send((Instant::now(), Vec::new())).await;
        std::future::pending().await
    };
    let go = async {
        while let Some((came, bytes)) = receiver.recv().await {
            let delay = state.borrow().delay;
            tokio::time::sleep_until(came + delay).await;
            let open = state.wait_for(|state| !state.is_held).await.is_ok();
            if !open || bytes.is_empty() || to.write_all(&bytes).await.is_err() {
                break;
            }
        }
        // The other side may be gone already.
        let _ = to.shutdown().await;
    };
    tokio::select! {
        () = come => {}
        () = go => {}
    }
}
