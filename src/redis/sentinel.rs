//! The primary that sentinels name, followed wherever it goes.
//!
//! All sentinels are asked at once, and the answer of the latest configuration counts: one that was cut off from the others
//! still names the primary of before, which may still believe it is one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use redis::{ErrorKind, RedisError, RedisResult, Value};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::address::{Address, Dial};
use super::connect::{Lane, Request, timed_out};
use super::connection::Connection;
use super::link::{Hearing as _, subscribe_anew};
use super::listeners::Listeners;
use super::node::{Limits, Node, is_read_only};

/// How often sentinels are asked while all is well, and while it is not.
const CALM: Duration = Duration::from_secs(1);
const ALARMED: Duration = Duration::from_millis(100);

/// How long sentinels have for their answers.
const ANSWERED: Duration = Duration::from_millis(500);

/// The primary of now.
#[derive(Debug)]
pub(super) struct Primary {
    node: watch::Receiver<Arc<Node>>,
    named: watch::Receiver<Instant>,
    doubt: Arc<Notify>,
    _follower: AbortOnDropHandle<()>,
}

impl Primary {
    /// Finds and connects to it.
    pub(super) async fn find(
        name: &str,
        sentinels: &[Address],
        dial: Dial,
        limits: Limits,
        listeners: &Listeners,
    ) -> RedisResult<Self> {
        let mut follower = Follower {
            name: name.to_owned(),
            sentinels: sentinels.to_vec(),
            connections: HashMap::new(),
            epoch: 0,
            dial,
            limits,
            listeners: listeners.clone(),
        };
        let said = follower.ask().await?;
        let (sender, node) = watch::channel(Arc::new(follower.open(&said.address).await?));
        let (naming, named) = watch::channel(said.asked);
        let doubt = Arc::new(Notify::new());
        let follower = tokio::spawn(follower.follow(sender, naming, Arc::clone(&doubt)));
        Ok(Self { node, named, doubt, _follower: AbortOnDropHandle::new(follower) })
    }

    /// The server, and what tells when it is another one.
    pub(super) fn node(&self) -> (Arc<Node>, watch::Receiver<Arc<Node>>) {
        let mut changes = self.node.clone();
        let node = Arc::clone(&changes.borrow_and_update());
        (node, changes)
    }

    /// The server, for whoever has to know that it is still the primary.
    pub(super) fn incumbent(&self) -> (Arc<Node>, Incumbent) {
        let (node, changes) = self.node();
        let (named, doubt) = (self.named.clone(), Arc::clone(&self.doubt));
        (node, Incumbent { changes, named, doubt })
    }

    /// What it answers.
    pub(super) async fn answer(
        &self,
        lane: Lane,
        request: Request<'_>,
        ends: Instant,
    ) -> RedisResult<Value> {
        let (mut node, mut changes) = self.node();
        let answer = async {
            let connected = loop {
                tokio::select! {
                    connected = node.shared(request.slot, ends) => break connected?,
                    // Whatever there is to be waited for is there now.
                    _ = changes.changed() => {}
                }
                (node, changes) = self.node();
            };
            let answer = async {
                match lane {
                    Lane::Own => node.alone(request, ends).await,
                    _ => node.answer(connected, request, ends).await,
                }
            };
            tokio::select! {
                answer = answer => answer,
                // What the server of before answers now is worth nothing.
                _ = changes.changed() => Err(moved()),
            }
        };
        let answer = answer.await;
        if is_read_only(&answer) {
            self.doubt.notify_one();
        }
        answer
    }
}

/// A server that was the primary, and may have been replaced since.
pub(super) struct Incumbent {
    changes: watch::Receiver<Arc<Node>>,
    named: watch::Receiver<Instant>,
    doubt: Arc<Notify>,
}

impl Incumbent {
    /// Whether it still is, once most of the sentinels have answered that who are asked after this call began. A few are not
    /// enough: they may be cut off from the others together with us, and with a primary that was replaced. Waits for as long
    /// as too few answer.
    pub(super) async fn is_named_again(&mut self) -> bool {
        let begun = Instant::now();
        self.doubt.notify_one();
        tokio::select! {
            _ = self.changes.changed() => return false,
            // The follower lives as long as what it follows.
            _ = self.named.wait_for(|asked| *asked >= begun) => {}
        }
        // They may have named the next one already.
        self.changes.has_changed().is_ok_and(|changed| !changed)
    }

    /// Waits until it is replaced.
    pub(super) async fn replaced(&mut self) {
        let _ = self.changes.changed().await;
    }
}

/// What sentinels say.
struct Said {
    address: Address,
    /// Whether most of them do.
    by_most: bool,
    /// When they were asked.
    asked: Instant,
}

struct Follower {
    name: String,
    sentinels: Vec<Address>,
    connections: HashMap<Address, Connection>,
    /// Of the configuration that was believed last.
    epoch: u64,
    dial: Dial,
    limits: Limits,
    listeners: Listeners,
}

impl Follower {
    async fn follow(
        mut self,
        node: watch::Sender<Arc<Node>>,
        naming: watch::Sender<Instant>,
        doubt: Arc<Notify>,
    ) {
        loop {
            let current = Arc::clone(&node.borrow());
            let is_up = current.hearing().is_up();
            tokio::select! {
                () = sleep(if is_up { CALM } else { ALARMED }) => {}
                () = doubt.notified() => {}
                () = current.hearing().lost(), if is_up => {}
            }
            let address = match self.ask().await {
                Ok(said) if said.address == *node.borrow().address() => {
                    if said.by_most {
                        naming.send_replace(said.asked);
                    }
                    continue;
                }
                Ok(said) => said.address,
                Err(error) => {
                    tracing::debug!(name = self.name, %error, "no sentinel names the primary");
                    continue;
                }
            };
            match self.open(&address).await {
                Ok(new) => {
                    tracing::warn!(name = self.name, server = %address, "the primary moved");
                    let new = Arc::new(new);
                    node.send_replace(Arc::clone(&new));
                    // Whoever began to listen meanwhile has subscribed on the old one, and what was published is gone.
                    self.listeners.interrupted();
                    self.listen_again(&new).await;
                }
                Err(error) => {
                    tracing::debug!(name = self.name, server = %address, %error, "not the primary yet");
                    sleep(ALARMED).await;
                }
            }
        }
    }

    async fn listen_again(&self, node: &Node) {
        if let Some(Ok(mut connected)) = node.hearing().now() {
            let subscriptions = self.listeners.subscriptions();
            let subscribed = subscribe_anew(&mut connected.connection, subscriptions, &node.target);
            if node.target.in_time(subscribed).await.is_err() {
                node.hearing().lose(&connected);
            }
        }
    }

    /// Connects, if the server says itself that it is the primary.
    async fn open(&self, address: &Address) -> RedisResult<Node> {
        Node::open(self.dial.server(address)?, self.limits, &self.listeners).await
    }

    /// What the sentinels say, believed if it is not older than what was believed before.
    async fn ask(&mut self) -> RedisResult<Said> {
        let (asked, most) = (Instant::now(), self.sentinels.len() / 2 + 1);
        let mut answers = JoinSet::new();
        for sentinel in self.sentinels.clone() {
            let connection = self.connections.remove(&sentinel);
            let (dial, name) = (self.dial.clone(), self.name.clone());
            // One that speaks no TLS waits for more, and says nothing.
            let what = if dial.is_encrypted() { "answered in TLS" } else { "answered" };
            answers.spawn(async move {
                let asked = ask(&dial, &sentinel, connection, &name);
                let answer = timeout(ANSWERED, asked).await;
                (sentinel, answer.unwrap_or_else(|_| Err(timed_out(what, ANSWERED))))
            });
        }
        let mut best: RedisResult<(Address, usize)> =
            Err(io_error("there is no sentinel".to_owned()));
        while let Some(answer) = answers.join_next().await {
            let Ok((sentinel, answer)) = answer else { continue };
            match answer {
                Ok((connection, epoch, address)) => {
                    self.connections.insert(sentinel, connection);
                    if epoch >= self.epoch {
                        let times = match &best {
                            Ok((named, times)) if epoch == self.epoch && *named == address => {
                                *times
                            }
                            _ => 0,
                        };
                        self.epoch = epoch;
                        best = Ok((address, times + 1));
                    }
                }
                // What one says tells more than the silence of another.
                Err(error) if best.as_ref().is_err_and(RedisError::is_io_error) => {
                    let detail = format!("{sentinel}: {error}");
                    best = Err(RedisError::from((error.kind(), "no answer of a sentinel", detail)));
                }
                Err(_) => {}
            }
        }
        best.map(|(address, times)| Said { address, by_most: times >= most, asked })
    }
}

pub(super) fn moved() -> RedisError {
    std::io::Error::new(std::io::ErrorKind::ConnectionAborted, "the primary moved meanwhile").into()
}

/// Asks one sentinel for the primary's address, and the epoch of the configuration that says so.
async fn ask(
    dial: &Dial,
    sentinel: &Address,
    connection: Option<Connection>,
    name: &str,
) -> RedisResult<(Connection, u64, Address)> {
    let mut connection = match connection {
        Some(connection) => connection,
        None => dial.sentinel(sentinel)?.connect().await?,
    };
    let mut cmd = redis::cmd("SENTINEL");
    cmd.arg("MASTER").arg(name);
    let said: HashMap<String, String> = cmd.query_async(&mut connection).await?;
    let field = |name: &str| said.get(name).map(String::as_str).unwrap_or_default();
    // It names the one of before until all replicas follow the next, under the epoch of the next.
    if field("flags").split(',').any(|flag| flag == "failover_in_progress") {
        return Err(io_error("it is about to replace the primary".to_owned()));
    }
    let address = field("port")
        .parse()
        .ok()
        .filter(|&port| port != 0)
        .map(|port| Address::Tcp { host: field("ip").to_owned(), port });
    let wrong = || {
        RedisError::from((ErrorKind::Parse, "a sentinel's answer names no address and no epoch"))
    };
    let epoch = field("config-epoch").parse().map_err(|_| wrong())?;
    Ok((connection, epoch, address.ok_or_else(wrong)?))
}

fn io_error(problem: String) -> RedisError {
    std::io::Error::other(problem).into()
}
