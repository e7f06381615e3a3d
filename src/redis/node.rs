//! One server: the connections that all calls share, and a pool of others.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use deadpool_redis::{Connection, Hook, HookError, Pool, PoolError, Runtime};
use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, RedisError, RedisResult, Value};
use tokio::time::{Instant, timeout_at};

use super::address::{Address, Target};
use super::connect::{Request, code, timed_out};
use super::link::{Connected, Link};
use super::listeners::Listeners;
use super::reign::Announcements;
use super::replicas::{MinReplicas, Replicas};
use super::slot::Slot;
use crate::config::RedisConfig;

/// Most connections of their own that calls take at once.
const OWN: usize = 4;

/// The limits of a call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) connections: usize,
    pub(super) connect: Duration,
    pub(super) command: Duration,
    /// How long pools learn after data were lost.
    pub(super) learning: Duration,
    pub(super) min_replicas: Option<MinReplicas>,
}

impl Limits {
    pub(super) fn new(config: &RedisConfig) -> Self {
        Self {
            connections: usize::try_from(config.connections.max(1)).unwrap_or(1),
            connect: config.connect_timeout,
            command: config.command_timeout,
            learning: config.learning_period,
            min_replicas: MinReplicas::new(config),
        }
    }
}

/// A server that keeps data.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) target: Target,
    links: Vec<Link>,
    own: Pool,
    /// Where grants count only once replicas have them.
    replicas: Option<Replicas>,
    limits: Limits,
}

impl Node {
    /// Connects.
    pub(super) async fn open(
        target: Target,
        limits: Limits,
        listeners: &Listeners,
    ) -> RedisResult<Self> {
        let mut links = Vec::new();
        for number in 0..limits.connections {
            // One hears notices for all.
            let hearing = (number == 0).then(|| Arc::new(listeners.clone()) as _);
            links.push(Link::open(target.clone(), hearing).await?);
        }
        Self::new(target, limits, links)
    }

    /// Connects in the background, and hears nothing.
    pub(super) fn begin(target: Target, limits: Limits) -> RedisResult<Self> {
        let links = (0..limits.connections).map(|_| Link::begin(target.clone(), None)).collect();
        Self::new(target, limits, links)
    }

    fn new(target: Target, limits: Limits, links: Vec<Link>) -> RedisResult<Self> {
        let verified = target.clone();
        let verify = Hook::async_fn(move |connection: &mut MultiplexedConnection, _| {
            let verified = verified.clone();
            Box::pin(async move { verified.verify(connection).await.map_err(HookError::Backend) })
        });
        let own = Pool::builder(target.manager()?)
            .post_create(verify)
            .max_size(OWN)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(limits.command))
            .create_timeout(Some(limits.connect))
            .recycle_timeout(Some(limits.command))
            .build()
            .map_err(|error| RedisError::from(std::io::Error::other(error)))?;
        let replicas = limits.min_replicas.map(|min| Replicas::begin(target.clone(), min));
        Ok(Self { target, links, own, replicas, limits })
    }

    pub(super) fn address(&self) -> &Address {
        &self.target.address
    }

    pub(super) fn replicas(&self) -> Option<&Replicas> {
        self.replicas.as_ref()
    }

    /// Whether calls can be sent right now.
    pub(super) fn is_up(&self) -> bool {
        self.links.iter().any(Link::is_up)
    }

    /// The connection that hears notices.
    pub(super) fn hearing(&self) -> &Link {
        &self.links[0]
    }

    /// What comes back on a connection for this call alone.
    ///
    /// In a box, because making a connection takes 7 KB, which every call that never does would carry along.
    pub(super) fn alone<'a>(
        &'a self,
        request: Request<'a>,
        ends: Instant,
    ) -> Pin<Box<dyn Future<Output = RedisResult<Value>> + Send + 'a>> {
        Box::pin(async move {
            // Whether the server is there, the shared connection knows without trying.
            if let Some(Err(error)) = self.hearing().now() {
                return Err(error);
            }
            let limit = self.limits.command;
            let Ok(own) = timeout_at(ends, self.own()).await else {
                return Err(timed_out("connected", limit));
            };
            let mut own = own?;
            let answer = timeout_at(ends, request.send([&[], &[]], &mut own)).await;
            let answer = answer.unwrap_or_else(|_| Err(timed_out("answered", limit)));
            let answer = answer.map(|(_, answer)| answer);
            if answer.as_ref().is_err_and(is_unusable) {
                // The rest of an answer may still be coming, and must not be anybody's.
                drop(Connection::take(own));
            }
            answer
        })
    }

    /// The shared connection for keys of a slot, if there is one at once.
    pub(super) fn now(&self, slot: Slot) -> Option<(&Link, Connected)> {
        let link = self.link(slot);
        Some((link, link.now()?.ok()?))
    }

    /// Always the same for a pool, so that a call comes behind those that were made before, and dropped since.
    fn link(&self, slot: Slot) -> &Link {
        &self.links[usize::from(slot) % self.links.len()]
    }

    /// The shared connection for keys of a slot, as soon as there is one.
    pub(super) async fn shared(
        &self,
        slot: Slot,
        ends: Instant,
    ) -> RedisResult<(&Link, Connected)> {
        let link = self.link(slot);
        if let Some(connected) = link.now() {
            return connected.map(|connected| (link, connected));
        }
        match timeout_at(ends, link.connected()).await {
            Ok(connected) => connected.map(|connected| (link, connected)),
            Err(_) => Err(timed_out("connected", self.limits.command)),
        }
    }

    /// The answer that comes on a shared connection in time.
    pub(super) async fn answer(
        &self,
        (link, mut connected): (&Link, Connected),
        request: Request<'_>,
        ends: Instant,
    ) -> RedisResult<Value> {
        match timeout_at(ends, self.send(&mut connected, request)).await {
            Ok(Err(error)) if is_unusable(&error) => {
                link.lose(&connected);
                Err(error)
            }
            Ok(answer) => {
                link.answered();
                if is_read_only(&answer) {
                    link.is_not_primary(&connected);
                }
                answer
            }
            Err(_) => {
                link.unanswered(&connected);
                Err(timed_out("answered", self.limits.command))
            }
        }
    }

    /// Sends a request, behind what lets the server know that it reigns, if a pool is used here for the first time.
    async fn send(
        &self,
        Connected { reign, connection, .. }: &mut Connected,
        request: Request<'_>,
    ) -> RedisResult<Value> {
        let Announcements { before, behind, pools } =
            reign.announcements(&request, self.limits.learning);
        let (announced, answer) = request.send([&before, &behind], connection).await?;
        reign.announced(&pools, announced);
        Ok(answer)
    }

    async fn own(&self) -> RedisResult<Connection> {
        self.own.get().await.map_err(|error| match error {
            PoolError::Backend(error) | PoolError::PostCreateHook(HookError::Backend(error)) => {
                error
            }
            other => std::io::Error::new(std::io::ErrorKind::TimedOut, other.to_string()).into(),
        })
    }
}

/// Whether the server says that it is no primary.
pub(super) fn is_read_only(answer: &RedisResult<Value>) -> bool {
    let is_said = |error: &RedisError| code(error) == Some("READONLY");
    match answer {
        Err(error) => is_said(error),
        Ok(Value::ServerError(error)) => is_said(&error.clone().into()),
        Ok(_) => false,
    }
}

/// Whether the connection on which this came is of no use any more.
fn is_unusable(error: &RedisError) -> bool {
    error.is_io_error() || error.kind() == ErrorKind::Parse
}
