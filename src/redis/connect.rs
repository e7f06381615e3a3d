//! Connections: a few that all claims share and pipeline on, and a pool of others for whoever wants
//! one for itself.
//!
//! A checkout from the pool costs two commands before the one that is wanted, and a shared
//! connection carries three times as many claims; so only what operators read, whose replies are
//! long, takes one of its own.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use redis::aio::{AsyncPushSender, ConnectionLike};
use redis::{Arg, Cmd, ErrorKind, Pipeline, RedisError, RedisResult, ServerErrorKind, Value};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, timeout};
use tower::retry::budget::{Budget, TpsBudget};

use super::address::{Deployment, Dial, Servers, is_certificate_problem};
use super::cluster::{Cluster, nobody};
use super::connection::Connection;
use super::keys::{NO_CHANNEL, PoolKeys, channel, is_pool};
use super::listeners::Listeners;
use super::node::{Limits, Node};
use super::permission::{self, Missing};
use super::pools::{KnownPool, Pools};
use super::replicas::{Asked, MinReplicas};
use super::scripts::Call;
use super::sentinel::{Incumbent, Primary};
use super::slot::Slot;
use crate::config::RedisConfig;
use crate::error::{Error, Result};
use crate::name::PoolName;
use crate::ticket::{Channel, Inbox};

/// A call is repeated after 50 ms at first, with jitter.
const RETRY_DELAY: Duration = Duration::from_millis(50);
const LONGEST_RETRY_DELAY: Duration = Duration::from_secs(1);

/// Over how long repetitions are counted, and how many a second are free.
const BUDGET_WINDOW: Duration = Duration::from_secs(10);
const FREE_RETRIES: u32 = 1;

/// Which connection serves a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// One of those that all claims share.
    Shared,
    /// The same, for what makes a pool: its server is told at once that it reigns over that.
    Making,
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
    not_acknowledged: Arc<AtomicU64>,
    pools: Arc<Pools>,
    combines: bool,
    /// On which the connections live.
    runtime: Handle,
}

/// Which server serves a call.
#[derive(Debug)]
enum Topology {
    Fixed(Arc<Node>),
    Sentinels(Primary),
    Cluster(Cluster),
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
                Servers::Cluster(seeds) => {
                    Topology::Cluster(Cluster::find(seeds, dial, limits, &listeners).await?)
                }
            })
        };
        // Each connection is made in its time; several sentinels or nodes may have to be asked before that.
        let longest = 2 * limits.connect;
        let topology = timeout(longest, open)
            .await
            .unwrap_or_else(|_| Err(timed_out("connected", longest)))
            .map_err(|error| failure("connect", &server, error, None))?;
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
            not_acknowledged: Arc::default(),
            pools: Arc::default(),
            combines: true,
            runtime: Handle::current(),
        })
    }

    /// The servers' addresses, without credentials.
    pub(super) fn server(&self) -> &str {
        &self.server
    }

    /// The same, sharing with others what is known of pools, and the count of what is not acknowledged; calls go one by one, in
    /// the order in which they are made.
    pub(super) fn sharing_with(self, others: &Self) -> Self {
        let not_acknowledged = Arc::clone(&others.not_acknowledged);
        Self { not_acknowledged, pools: Arc::clone(&others.pools), combines: false, ..self }
    }

    /// Whether calls on one pool may go together.
    pub(super) fn combines(&self) -> bool {
        self.combines
    }

    /// Where tasks run that calls leave behind.
    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// What is known of a pool.
    pub(super) fn pool(&self, name: &PoolName) -> Arc<KnownPool> {
        self.pools.pool(name)
    }

    /// How many replicas have to have a grant; none if that does not matter.
    pub(super) fn min_replicas(&self) -> Option<MinReplicas> {
        self.limits.min_replicas
    }

    /// Asks the server that has a slot how many replicas have what this script finds there.
    pub(super) fn ask_replicas(&self, slot: Slot, call: Call) -> RedisResult<Asked> {
        let node = match &self.topology {
            Topology::Fixed(node) => Arc::clone(node),
            Topology::Sentinels(primary) => primary.node().0,
            Topology::Cluster(cluster) => cluster.owner(slot)?,
        };
        node.replicas().map(|replicas| replicas.ask(call)).ok_or_else(nobody)
    }

    /// Counts grants that were not acknowledged; answers how many there have been.
    pub(super) fn not_acknowledged(&self, more: usize) -> u64 {
        let more = u64::try_from(more).unwrap_or(u64::MAX);
        self.not_acknowledged.fetch_add(more, Ordering::Relaxed) + more
    }

    /// When a call that begins now has to have its answer.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.total
    }

    /// How long a call takes at most.
    pub(super) fn total(&self) -> Duration {
        self.total
    }

    /// Sends a command on keys of a slot and waits for its reply until then, no attempt longer than the command time-out.
    pub(super) async fn call(
        &self,
        lane: Lane,
        slot: Slot,
        cmd: &Cmd,
        ends: Instant,
    ) -> RedisResult<Value> {
        let makes = lane == Lane::Making;
        let request = Request { makes, ..Request::new(Body::Ready(Commands::One(cmd)), slot) };
        self.repeating(lane, request, ends).await
    }

    /// Sends a script's call on the keys of a pool, made anew for each attempt, on a shared connection.
    pub(super) async fn call_made(
        &self,
        keys: &PoolKeys,
        make: &(dyn Fn() -> Cmd + Sync),
        ends: Instant,
    ) -> RedisResult<Value> {
        let body = Body::Made { pool: &keys.pool, make };
        self.repeating(Lane::Shared, Request::new(body, keys.slot), ends).await
    }

    /// Sends commands on keys of one slot in one go on a shared connection and waits for all replies.
    pub(super) async fn call_all<'a>(
        &self,
        slot: Slot,
        cmds: impl Iterator<Item = &'a Cmd>,
        ends: Instant,
    ) -> RedisResult<Vec<Value>> {
        let mut pipeline = Pipeline::new();
        for cmd in cmds {
            pipeline.add_command(cmd.clone());
        }
        let body = Body::Ready(Commands::Many(&pipeline));
        match self.repeating(Lane::Shared, Request::new(body, slot), ends).await? {
            Value::Array(replies) => replies.into_iter().map(Value::extract_error).collect(),
            other => Ok(vec![other]),
        }
    }

    /// Subscribes to a new channel of this process.
    pub(super) async fn listen(&self) -> Result<Inbox> {
        let channel = channel(&uuid::Uuid::new_v4().simple().to_string());
        let notices = self.listeners.open(&channel);
        let node = match &self.topology {
            Topology::Fixed(node) => Arc::clone(node),
            Topology::Sentinels(primary) => primary.node().0,
            // Each pool has a channel of its own there, which a ticket makes.
            Topology::Cluster(_) => return Ok(Inbox { channel: Channel::new(channel), notices }),
        };
        let subscribed = self.within(async {
            let mut connected = node.hearing().connected().await?;
            connected.connection.subscribe(&channel).await
        });
        subscribed.await.map_err(|error| self.error("listen", error))?;
        Ok(Inbox { channel: Channel::new(channel), notices })
    }

    /// The channel for notices about a pool.
    pub(super) async fn channel<'a>(
        &self,
        pool: &str,
        channel: &'a Channel,
    ) -> Result<Cow<'a, str>> {
        match &self.topology {
            Topology::Cluster(cluster) => match cluster.hear(pool, channel.as_str()).await {
                Ok(channel) => Ok(channel.map_or(NO_CHANNEL.into(), Cow::from)),
                Err(error) => Err(self.error("listen", error)),
            },
            _ => Ok(channel.as_str().into()),
        }
    }

    /// Whether one script can see the keys of all of these slots.
    pub(super) fn are_together(&self, mut slots: impl Iterator<Item = Slot>) -> bool {
        match &self.topology {
            Topology::Cluster(_) => {
                let first = slots.next();
                slots.all(|slot| Some(slot) == first)
            }
            _ => true,
        }
    }

    /// One more connection to where all keys are, on which notices are heard, and who that is if it may be replaced. None where
    /// keys are in several places.
    pub(super) async fn another(
        &self,
        hears: impl AsyncPushSender,
    ) -> Option<RedisResult<(Connection, Option<Incumbent>)>> {
        let (node, incumbent) = match &self.topology {
            Topology::Fixed(node) => (Arc::clone(node), None),
            Topology::Sentinels(primary) => {
                let (node, incumbent) = primary.incumbent();
                (node, Some(incumbent))
            }
            Topology::Cluster(_) => return None,
        };
        Some(node.target.connect_to_hear(hears).await.map(|connection| (connection, incumbent)))
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
        let advice = match (&self.topology, error.kind()) {
            (Topology::Cluster(_), _) => None,
            (_, ErrorKind::Server(ServerErrorKind::Moved | ServerErrorKind::Ask)) => {
                Some("a node of a cluster needs cluster: true")
            }
            _ => None,
        };
        failure(operation, &self.server, error, advice)
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
        let mut delays = None;
        loop {
            let ends_sooner = ends.min(Instant::now() + self.limits.command);
            let answer = self.answer(lane, request, ends_sooner).await;
            let error = match answer.and_then(Value::extract_error) {
                Err(error) if is_temporary(&error) => error,
                answer => return answer,
            };
            let delays = delays.get_or_insert_with(|| self.delays());
            let Some(delay) = delays.next() else { return Err(error) };
            if Instant::now() + delay >= ends || !self.budget.withdraw() {
                return Err(error);
            }
            sleep(delay).await;
        }
    }

    /// How long to wait before each repetition, with jitter.
    fn delays(&self) -> impl Iterator<Item = Duration> + use<> {
        let delays = ExponentialBuilder::new()
            .with_min_delay(RETRY_DELAY)
            .with_max_delay(LONGEST_RETRY_DELAY)
            .with_max_times(self.max_retries)
            .with_jitter();
        delays.build()
    }

    /// What the server that it is for answers.
    async fn answer(&self, lane: Lane, request: Request<'_>, ends: Instant) -> RedisResult<Value> {
        match (&self.topology, lane) {
            (Topology::Fixed(node), Lane::Own) => node.alone(request, ends).await,
            (Topology::Fixed(node), _) => {
                node.answer(node.shared(request.slot, ends).await?, request, ends).await
            }
            (Topology::Sentinels(primary), lane) => primary.answer(lane, request, ends).await,
            (Topology::Cluster(cluster), lane) => cluster.answer(lane, request, ends).await,
        }
    }
}

/// What is sent in one go.
#[derive(Clone, Copy)]
pub(super) struct Request<'a> {
    body: Body<'a>,
    /// Where all of its keys are.
    pub(super) slot: Slot,
    makes: bool,
    is_asking: bool,
}

#[derive(Clone, Copy)]
enum Body<'a> {
    Ready(Commands<'a>),
    /// One command, which is made whenever it is sent, and may admit somebody in this pool.
    Made {
        pool: &'a str,
        make: &'a (dyn Fn() -> Cmd + Sync),
    },
}

#[derive(Clone, Copy)]
enum Commands<'a> {
    One(&'a Cmd),
    /// Answered by an array of all replies. The pools are those of the first.
    Many(&'a Pipeline),
}

impl<'a> Request<'a> {
    fn new(body: Body<'a>, slot: Slot) -> Self {
        Self { body, slot, makes: false, is_asking: false }
    }

    /// The same to a server that a slot is moving to.
    pub(super) fn asking(self, is_asking: bool) -> Self {
        Self { is_asking, ..self }
    }

    /// Whether it may make its pools.
    pub(super) fn makes_pools(&self) -> bool {
        self.makes
    }

    /// Keys of the pools in which this may admit somebody: a script that can, on a shared connection, is given the pool's own.
    pub(super) fn pools(self) -> impl Iterator<Item = &'a [u8]> {
        let (first, pool) = match self.body {
            Body::Ready(Commands::One(cmd)) => (Some(cmd), None),
            Body::Ready(Commands::Many(pipeline)) => (pipeline.cmd_iter().next(), None),
            Body::Made { pool, .. } => (None, Some(pool.as_bytes())),
        };
        let mut words = first.into_iter().flat_map(Cmd::args_iter).map(|word| match word {
            Arg::Simple(word) => word,
            _ => b"",
        });
        let is_script = words.next().is_some_and(|name| name.starts_with(b"EVAL"));
        // Behind the script's text or digest.
        let keys = match words.nth(1) {
            Some(count) if is_script => str::from_utf8(count).ok().and_then(|n| n.parse().ok()),
            _ => None,
        };
        words.take(keys.unwrap_or(0)).filter(|key| is_pool(key)).chain(pool)
    }

    /// The reply, which may be an error of the server, and those to what is sent before and behind.
    pub(super) async fn send(
        self,
        [before, behind]: [&[Cmd]; 2],
        connection: &mut impl ConnectionLike,
    ) -> RedisResult<(Vec<Value>, Value)> {
        let made;
        let commands = match self.body {
            Body::Ready(commands) => commands,
            Body::Made { make, .. } => {
                made = make();
                Commands::One(&made)
            }
        };
        if before.is_empty() && behind.is_empty() && !self.is_asking {
            let reply = match commands {
                Commands::One(cmd) => connection.req_packed_command(cmd).await?,
                Commands::Many(pipeline) => {
                    let replies = connection.req_packed_commands(pipeline, 0, pipeline.len());
                    Value::Array(replies.await?)
                }
            };
            return Ok((Vec::new(), reply));
        }
        let mut pipeline = Pipeline::new();
        let mut add = |cmd: &Cmd| {
            if self.is_asking {
                pipeline.cmd("ASKING");
            }
            pipeline.add_command(cmd.clone());
        };
        before.iter().for_each(&mut add);
        let of_request = match commands {
            Commands::One(cmd) => {
                add(cmd);
                1
            }
            Commands::Many(pipeline) => {
                pipeline.cmd_iter().for_each(&mut add);
                pipeline.len()
            }
        };
        behind.iter().for_each(&mut add);
        let replies = connection.req_packed_commands(&pipeline, 0, pipeline.len()).await?;
        let each = if self.is_asking { 2 } else { 1 };
        // Without permission to ask the server sends us away again, which would hide why.
        let mut asked = replies.iter().step_by(2).filter(|_| self.is_asking);
        if let Some(refused) = asked.find(|said| matches!(said, Value::ServerError(_))) {
            return Ok((Vec::new(), refused.clone()));
        }
        let mut replies = replies.into_iter().skip(each - 1).step_by(each);
        let mut others: Vec<_> = replies.by_ref().take(before.len()).collect();
        let mut of_request = replies.by_ref().take(of_request);
        let reply = match commands {
            Commands::One(_) => of_request.next().unwrap_or(Value::Nil),
            Commands::Many(_) => Value::Array(of_request.collect()),
        };
        others.extend(replies);
        Ok((others, reply))
    }
}

fn failure(
    operation: &'static str,
    server: &str,
    error: RedisError,
    advice: Option<&str>,
) -> Error {
    // A script that was lost again after it was loaded will be there in time.
    let unlucky = error.kind() == ErrorKind::Server(ServerErrorKind::NoScript);
    // An answer that breaks off is one that did not come.
    let is_cut = error.kind() == ErrorKind::Parse && error.to_string().contains("end of input");
    if error.kind() == ErrorKind::Parse && !is_cut {
        return Error::Protocol { operation, reply: error.to_string() };
    }
    let (server, temporary) = (server.to_owned(), is_temporary(&error) || unlucky || is_cut);
    if permission::is_missing(&error) {
        return Error::Server { operation, server, source: Box::new(Missing::new(error)) };
    }
    let source: Box<dyn std::error::Error + Send + Sync> =
        match advice.or_else(|| advice_on(&error)) {
            Some(advice) => format!("{error}; {advice}").into(),
            None => Box::new(error),
        };
    match temporary {
        true => Error::Unavailable { operation, server, source },
        false => Error::Server { operation, server, source },
    }
}

/// What is most often wrong with the configuration where a server says this.
fn advice_on(error: &RedisError) -> Option<&'static str> {
    const ADVICE: [(&str, &str); 3] = [
        ("cluster support disabled", "several hostPaths without primaryName mean a cluster"),
        ("unknown command 'SENTINEL'", "is it a sentinel?"),
        ("unknown command", "is it a sentinel? Those need primaryName"),
    ];
    let words = error.detail()?;
    ADVICE.iter().find(|(said, _)| words.contains(said)).map(|&(_, advice)| advice)
}

pub(super) fn timed_out(what: &str, limit: Duration) -> RedisError {
    io::Error::new(io::ErrorKind::TimedOut, format!("not {what} within {limit:?}")).into()
}

/// What the server calls its error. Redis 6.2 puts words of its own before those of a command that a script is refused, be it
/// that the script fails of it or that it answers with it.
pub(super) fn code(error: &RedisError) -> Option<&str> {
    let of_script = error.detail().filter(|words| {
        words.starts_with("Error running script") || error.code() == Some("@user_script:")
    });
    match of_script.and_then(|words| words.split_once(": -")) {
        Some((_, refused)) => refused.split(' ').next(),
        None => error.code(),
    }
}

/// Whether the same call may succeed later: no answer, or a server that is not ready.
pub(super) fn is_temporary(error: &RedisError) -> bool {
    const TEMPORARY: [&str; 9] = [
        "BUSY",
        "CLUSTERDOWN",
        "LOADING",
        "MASTERDOWN",
        "MISCONF",
        "NOREPLICAS",
        "NOTBUSY",
        "READONLY",
        "TRYAGAIN",
    ];
    match error.kind() {
        ErrorKind::Io => !is_certificate_problem(error),
        _ => code(error).is_some_and(|code| TEMPORARY.contains(&code)),
    }
}
