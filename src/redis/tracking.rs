//! Hearing from the server which keys change: client-side caching as RESP3 has it.
//!
//! One connection is told of every change to a key with a prefix, whoever reads it (`BCAST`). A PING on the same connection
//! proves that nothing was missed: its answer comes after whatever the server told before, and a change that was
//! made before the PING was sent was told before it was read.
//!
//! Behind sentinels that counts only if the connection is one to the primary: another may have replaced it, and it still
//! answers those who are cut off with it. So most of the sentinels are asked as often as it is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder};
use redis::aio::{AsyncPushSender, SendError};
use redis::{PushInfo, PushKind, RedisError, RedisResult, Value};
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use super::connect::Connections;
use super::connection::Connection;
use super::sentinel::{Incumbent, moved};
use crate::matchable::{Watch, Watcher};

/// Tells a watcher of keys with a prefix for as long as what is returned lives: `changed` with what follows the prefix.
pub(super) async fn start(
    connections: &Arc<Connections>,
    prefix: &'static str,
    watcher: Arc<Watcher>,
    confirm_every: Duration,
) -> RedisResult<Watch> {
    let tracker = Tracker { connections: Arc::clone(connections), prefix, watcher, confirm_every };
    Ok(match tracker.connect().await {
        Some(first) => Watch::new(AbortOnDropHandle::new(tokio::spawn(tracker.run(first?)))),
        // Never sure of anything, so every look-up asks a server.
        None => Watch::new(tracker),
    })
}

#[derive(Debug)]
struct Tracker {
    connections: Arc<Connections>,
    prefix: &'static str,
    watcher: Arc<Watcher>,
    confirm_every: Duration,
}

impl Drop for Tracker {
    /// However this ends, even before it began, nobody tells of changes then.
    fn drop(&mut self) {
        self.watcher.interrupted();
    }
}

impl Tracker {
    async fn run(self, first: Tracked) {
        let mut connection = Some(first);
        let mut delays = delays();
        loop {
            if let Some(connection) = connection.take() {
                delays = self::delays();
                let error = self.follow(connection).await;
                self.watcher.interrupted();
                tracing::info!(%error, "changes may be missed; look-ups ask the server until they are told again");
            }
            tokio::time::sleep(delays.next().unwrap_or(LONGEST_DELAY)).await;
            match self.connect().await {
                Some(Ok(new)) => connection = Some(new),
                Some(Err(error)) => tracing::debug!(%error, "changes are not told yet"),
                None => return,
            }
        }
    }

    /// None where no single connection is told of all changes, as in a cluster.
    async fn connect(&self) -> Option<RedisResult<Tracked>> {
        let lost = Arc::new(Notify::new());
        let (prefix, watcher) = (self.prefix, Arc::clone(&self.watcher));
        let told = Told { prefix, watcher, lost: Arc::clone(&lost) };
        let connection = self.connections.another(told).await?;
        Some(match connection {
            Ok((mut connection, incumbent)) => {
                let tracked = self.track(&mut connection).await;
                tracked.map(|()| Tracked { connection, lost, incumbent })
            }
            Err(error) => Err(error),
        })
    }

    async fn track(&self, connection: &mut Connection) -> RedisResult<()> {
        let mut tracking = redis::cmd("CLIENT");
        tracking.arg(&["TRACKING", "ON", "BCAST", "PREFIX", self.prefix]);
        self.connections.within(tracking.exec_async(connection)).await?;
        // What was looked up before may have changed since.
        self.watcher.interrupted();
        Ok(())
    }

    /// Confirms from time to time, until that fails.
    async fn follow(&self, mut tracked: Tracked) -> RedisError {
        loop {
            let (sent, ping) = (Instant::now(), redis::cmd("PING"));
            let Tracked { connection, incumbent, .. } = &mut tracked;
            let answered = self.connections.within(ping.exec_async(connection));
            let is_primary = async { Ok(self.is_primary(incumbent).await) };
            match tokio::try_join!(answered, is_primary) {
                Ok(((), Ok(true))) => self.watcher.confirmed(sent),
                Ok(((), Ok(false))) => return moved(),
                // They may be away and nothing be lost.
                Ok(((), Err(error))) => {
                    tracing::debug!(%error, "too few sentinels name the primary");
                }
                Err(error) => return error,
            }
            tokio::select! {
                () = tokio::time::sleep(self.confirm_every) => {}
                () = tracked.lost.notified() => {}
                () = replaced(&mut tracked.incumbent) => return moved(),
            }
        }
    }

    /// Whether the connection is one to where the keys are.
    async fn is_primary(&self, incumbent: &mut Option<Incumbent>) -> RedisResult<bool> {
        match incumbent {
            Some(incumbent) => {
                self.connections.within(async { Ok(incumbent.is_named_again().await) }).await
            }
            None => Ok(true),
        }
    }
}

/// Waits until the keys are elsewhere.
async fn replaced(incumbent: &mut Option<Incumbent>) {
    match incumbent {
        Some(incumbent) => incumbent.replaced().await,
        None => std::future::pending().await,
    }
}

const LONGEST_DELAY: Duration = Duration::from_secs(1);

/// How long to wait before connecting again, with jitter.
fn delays() -> impl Iterator<Item = Duration> {
    let delays = ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(10))
        .with_max_delay(LONGEST_DELAY)
        .without_max_times()
        .with_jitter();
    delays.build()
}

/// A connection that changes are told on.
struct Tracked {
    connection: Connection,
    /// The connection noticed that it is lost.
    lost: Arc<Notify>,
    /// Who is at the other end, if that may be replaced.
    incumbent: Option<Incumbent>,
}

/// Passes on what the server tells.
#[derive(Clone, Debug)]
struct Told {
    prefix: &'static str,
    watcher: Arc<Watcher>,
    lost: Arc<Notify>,
}

impl AsyncPushSender for Told {
    fn send(&self, push: PushInfo) -> Result<(), SendError> {
        match (push.kind, push.data.into_iter().next()) {
            (PushKind::Invalidate, Some(Value::Array(keys))) => {
                for key in keys {
                    let key = redis::from_redis_value::<String>(key).unwrap_or_default();
                    match key.strip_prefix(self.prefix) {
                        Some(name) => self.watcher.changed(name),
                        None => self.watcher.all_changed(),
                    }
                }
            }
            // All keys, when the database is flushed.
            (PushKind::Invalidate, _) => self.watcher.all_changed(),
            (PushKind::Disconnection, _) => {
                self.watcher.interrupted();
                self.lost.notify_one();
            }
            _ => {}
        }
        Ok(())
    }
}
