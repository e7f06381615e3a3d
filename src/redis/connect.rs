//! Connections: a few that all claims share and pipeline on, and a pool of others for whoever wants
//! one for itself.
//!
//! A checkout from the pool costs two commands before the one that is wanted, and a shared
//! connection carries three times as many claims; so only operators' calls, whose replies are long,
//! take one of their own.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{
    AsyncConnectionConfig, Cmd, ErrorKind, Pipeline, RedisError, RedisResult, ServerErrorKind,
    Value,
};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tower::retry::budget::{Budget, TpsBudget};

use super::address::{Deployment, Dial, Servers};
use super::keys::channel;
use super::listeners::Listeners;
use super::node::{Limits, Node};
use super::sentinel::Primary;
use crate::config::RedisConfig;
use crate::error::{Error, Result};
use crate::ticket::{Channel, Inbox};

/// A call is repeated after 50 ms at first, with jitter.
const RETRY_DELAY: Duration = Duration::from_millis(50);
const LONGEST_RETRY_DELAY: Duration = Duration::from_secs(1);

/// Over how long repetitions are counted, and how many a second are free.
const BUDGET_WINDOW: Duration = Duration::from_secs(10);
const FREE_RETRIES: u32 = 1;

/// Which connection serves a call.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lane {
    /// One of those that all claims share.
    Shared,
    /// One for itself, so that a long reply delays no claim.
    Own,
}

/// All connections to the servers of a deployment.
pub(super) struct Connections {
    topology: Topology,
    listeners: Listeners,
    server: String,
    limits: Limits,
    total: Duration,
    max_retries: usize,
    budget: TpsBudget,
}

/// Which server serves a call.
#[derive(Debug)]
enum Topology {
    Fixed(Arc<Node>),
    Sentinels(Primary),
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").field("server", &self.server).finish_non_exhaustive()
    }
}

impl Connections {
    pub(super) async fn open(config: &RedisConfig) -> Result<Self> {
        let deployment = Deployment::new(config).map_err(|(key, problem)| {
            Error::Configuration { key: key.to_owned(), problem: problem.to_owned() }
        })?;
        let (servers, limits) = (deployment.servers.clone(), Limits::new(config));
        let server = servers.to_string();
        let dial = Dial::new(deployment, config)?;
        let listeners = Listeners::default();
        let open = async {
            Ok(match &servers {
                Servers::One(address) => {
                    let node = Node::open(dial.server(address)?, limits, &listeners).await?;
                    Topology::Fixed(Arc::new(node))
                }
                Servers::Sentinels { name, sentinels } => Topology::Sentinels(
                    Primary::find(name, sentinels, dial, limits, &listeners).await?,
                ),
                Servers::Cluster(_) => {
                    return Err(RedisError::from((ErrorKind::Client, "cluster")));
                }
            })
        };
        let topology = timeout(limits.connect, open)
            .await
            .unwrap_or_else(|_| Err(timed_out("connected", limits.connect)))
            .map_err(|error| failure("connect", &server, error))?;
        #[expect(clippy::cast_precision_loss, reason = "at most 1000")]
        let share = config.retry_percent as f32 / 100.0;
        Ok(Self {
            topology,
            listeners,
            server,
            limits,
            total: config.total_timeout,
            max_retries: usize::try_from(config.max_retries).unwrap_or(usize::MAX),
            budget: TpsBudget::new(BUDGET_WINDOW, FREE_RETRIES, share),
        })
    }

    /// The servers' addresses, without credentials.
    pub(super) fn server(&self) -> &str {
        &self.server
    }

    /// When a call that begins now has to have its answer.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.total
    }

    /// Sends a command and waits for its reply until then, no attempt longer than the command time-out.
    pub(super) async fn call(&self, lane: Lane, cmd: &Cmd, ends: Instant) -> RedisResult<Value> {
        self.repeating(lane, Request::One(cmd), ends).await
    }

    /// The same with all the time that a call has.
    pub(super) async fn once(&self, lane: Lane, cmd: &Cmd) -> RedisResult<Value> {
        self.call(lane, cmd, self.deadline()).await
    }

    /// Sends commands in one go on a shared connection and waits for all replies.
    pub(super) async fn call_all<'a>(
        &self,
        cmds: impl Iterator<Item = &'a Cmd>,
        ends: Instant,
    ) -> RedisResult<Vec<Value>> {
        let mut pipeline = Pipeline::new();
        for cmd in cmds {
            pipeline.add_command(cmd.clone());
        }
        match self.repeating(Lane::Shared, Request::Many(&pipeline), ends).await? {
            Value::Array(replies) => replies.into_iter().map(Value::extract_error).collect(),
            other => Ok(vec![other]),
        }
    }

    /// Subscribes to a new channel of this process.
    pub(super) async fn listen(&self) -> Result<Inbox> {
        let channel = channel(&uuid::Uuid::new_v4().simple().to_string());
        let notices = self.listeners.open(&channel);
        // A connection that is made later subscribes by itself.
        if let Some(connected) = self.node().hearing().now() {
            let subscribed = match connected {
                Ok(mut connected) => self.within(connected.connection.subscribe(&channel)).await,
                Err(error) => Err(error),
            };
            subscribed.map_err(|error| self.error("listen", error))?;
        }
        Ok(Inbox { channel: Channel::new(channel), notices })
    }

    /// One more connection, for whoever configures its own.
    pub(super) async fn another(
        &self,
        config: AsyncConnectionConfig,
    ) -> RedisResult<MultiplexedConnection> {
        self.node().target.connect(config).await
    }

    /// A reply, or an error after the command time-out.
    pub(super) async fn within<T>(
        &self,
        reply: impl Future<Output = RedisResult<T>>,
    ) -> RedisResult<T> {
        let limit = self.limits.command;
        timeout(limit, reply).await.unwrap_or_else(|_| Err(timed_out("answered", limit)))
    }

    /// The library's error for what a call failed with.
    pub(super) fn error(&self, operation: &'static str, error: RedisError) -> Error {
        failure(operation, &self.server, error)
    }

    fn node(&self) -> Arc<Node> {
        match &self.topology {
            Topology::Fixed(node) => Arc::clone(node),
            Topology::Sentinels(primary) => primary.node().0,
        }
    }

    /// Repeats what got no answer, as often as configured, while there is time and the budget allows it.
    ///
    /// Repeating is right for whatever this library sends, whether or not an earlier attempt was carried out: a claim of a
    /// held token grants nothing more, a release of what is not held frees nothing, a renewal sets what it set before, a write
    /// names the version it expects, and what is listed or read changes nothing.
    async fn repeating(
        &self,
        lane: Lane,
        request: Request<'_>,
        ends: Instant,
    ) -> RedisResult<Value> {
        self.budget.deposit();
        let mut delays = ExponentialBuilder::new()
            .with_min_delay(RETRY_DELAY)
            .with_max_delay(LONGEST_RETRY_DELAY)
            .with_max_times(self.max_retries)
            .with_jitter()
            .build();
        loop {
            let ends_sooner = ends.min(Instant::now() + self.limits.command);
            let answer = match lane {
                Lane::Shared => self.shared(request, ends_sooner).await,
                Lane::Own => self.own(request, ends_sooner).await,
            };
            let error = match answer.and_then(Value::extract_error) {
                Err(error) if is_temporary(&error) => error,
                answer => return answer,
            };
            let Some(delay) = delays.next() else { return Err(error) };
            if Instant::now() + delay >= ends || !self.budget.withdraw() {
                return Err(error);
            }
            sleep(delay).await;
        }
    }

    /// What comes back on a shared connection.
    async fn shared(&self, request: Request<'_>, ends: Instant) -> RedisResult<Value> {
        let primary = match &self.topology {
            Topology::Fixed(node) => {
                return node.answer(node.shared(ends).await?, request, ends).await;
            }
            Topology::Sentinels(primary) => primary,
        };
        let (mut node, mut changes) = primary.node();
        let connected = loop {
            tokio::select! {
                connected = node.shared(ends) => break connected?,
                // Whatever there is to be waited for is there now.
                _ = changes.changed() => {}
            }
            (node, changes) = primary.node();
        };
        let answer = tokio::select! {
            answer = node.answer(connected, request, ends) => answer,
            // What the server of before answers now is worth nothing.
            _ = changes.changed() => Err(moved()),
        };
        if is_read_only(&answer) {
            primary.doubt();
        }
        answer
    }

    /// What comes back on a connection for this call alone.
    async fn own(&self, request: Request<'_>, ends: Instant) -> RedisResult<Value> {
        let answer = async {
            let node = self.node();
            request.send(&mut node.own().await?).await
        };
        let limit = self.limits.command;
        timeout_at(ends, answer).await.unwrap_or_else(|_| Err(timed_out("answered", limit)))
    }
}

/// What is sent in one go.
#[derive(Clone, Copy)]
pub(super) enum Request<'a> {
    One(&'a Cmd),
    /// Answered by an array of all replies.
    Many(&'a Pipeline),
}

impl Request<'_> {
    /// The reply, which may be an error of the server.
    pub(super) async fn send(self, connection: &mut impl ConnectionLike) -> RedisResult<Value> {
        match self {
            Self::One(cmd) => connection.req_packed_command(cmd).await,
            Self::Many(pipeline) => {
                let replies = connection.req_packed_commands(pipeline, 0, pipeline.len());
                replies.await.map(Value::Array)
            }
        }
    }
}

fn is_read_only(answer: &RedisResult<Value>) -> bool {
    let read_only = ErrorKind::Server(ServerErrorKind::ReadOnly);
    match answer {
        Err(error) => error.kind() == read_only,
        Ok(Value::ServerError(error)) => error.kind() == Some(ServerErrorKind::ReadOnly),
        Ok(_) => false,
    }
}

fn failure(operation: &'static str, server: &str, error: RedisError) -> Error {
    // A script that was lost again after it was loaded will be there in time.
    let unlucky = error.kind() == ErrorKind::Server(ServerErrorKind::NoScript);
    let (server, temporary) = (server.to_owned(), is_temporary(&error) || unlucky);
    let source = Box::new(error);
    match temporary {
        true => Error::Unavailable { operation, server, source },
        false => Error::Server { operation, server, source },
    }
}

pub(super) fn timed_out(what: &str, limit: Duration) -> RedisError {
    io::Error::new(io::ErrorKind::TimedOut, format!("not {what} within {limit:?}")).into()
}

fn moved() -> RedisError {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the primary moved meanwhile").into()
}

/// Whether the same call may succeed later: no answer, or a server that is not ready.
fn is_temporary(error: &RedisError) -> bool {
    use ServerErrorKind::{BusyLoading, ClusterDown, MasterDown, NotBusy, ReadOnly, TryAgain};
    match error.kind() {
        ErrorKind::Io => true,
        ErrorKind::Server(
            BusyLoading | ClusterDown | MasterDown | NotBusy | ReadOnly | TryAgain,
        ) => true,
        _ => matches!(error.code(), Some("BUSY" | "MISCONF" | "NOREPLICAS")),
    }
}
