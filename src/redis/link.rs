//! One connection that many calls share, made again whenever it is lost.
//!
//! A task of the link's own makes it again, with back-off and jitter; no call does. While it is lost calls wait for the next
//! one, but only for [`PATIENCE`]: after that the circuit is broken, and calls fail at once until the task has found the
//! server again.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Once, Weak};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use redis::aio::{AsyncPushSender, ConnectionLike as _, SendError};
use redis::{Cmd, ErrorKind, PushInfo, PushKind, RedisError, RedisResult};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use super::address::{Target, is_certificate_problem};
use super::connection::Connection;
use super::info::{eviction, info, value};
use super::permission;
use super::reign::Reign;

/// How long calls wait for a connection that was lost.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

const FIRST_DELAY: Duration = Duration::from_millis(20);
const LONGEST_DELAY: Duration = Duration::from_millis(500);

/// A shared connection.
#[derive(Debug)]
pub(super) struct Link {
    shared: Arc<Shared>,
    _keeper: AbortOnDropHandle<()>,
}

/// A connection as a call got it.
pub(super) struct Connected {
    pub(super) connection: Connection,
    pub(super) reign: Arc<Reign>,
    /// Which of the link's connections it is.
    pub(super) epoch: u64,
    since: Instant,
    /// Replies that had come when the call began.
    replies: u64,
}

struct Shared {
    state: watch::Sender<State>,
    /// Replies of any connection so far.
    replies: AtomicU64,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("state", &*self.state.borrow()).finish_non_exhaustive()
    }
}

enum State {
    Lost,
    Up { epoch: u64, since: Instant, connection: Connection, reign: Arc<Reign> },
    Broken(RedisError),
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost => f.write_str("Lost"),
            Self::Up { epoch, .. } => write!(f, "Up({epoch})"),
            Self::Broken(error) => write!(f, "Broken({error})"),
        }
    }
}

impl Link {
    /// Makes the first connection.
    pub(super) async fn open(
        target: Target,
        hearing: Option<Arc<dyn Hearing>>,
    ) -> RedisResult<Self> {
        let keeper = Keeper::new(target, hearing);
        let (connection, reign) = keeper.connect(1).await?;
        keeper.shared.up(1, connection, reign);
        Ok(keeper.start())
    }

    /// Makes the first connection as if it had been lost.
    pub(super) fn begin(target: Target, hearing: Option<Arc<dyn Hearing>>) -> Self {
        Keeper::new(target, hearing).start()
    }

    /// The connection, or the next one if it is lost; at once the reason why there is none, if the circuit is broken.
    pub(super) async fn connected(&self) -> RedisResult<Connected> {
        let mut states = self.shared.state.subscribe();
        loop {
            if let Some(connected) = self.now() {
                return connected;
            }
            // The link lives, and with it what tells of its state.
            let _ = states.changed().await;
        }
    }

    /// The same, if it is known already.
    pub(super) fn now(&self) -> Option<RedisResult<Connected>> {
        self.shared.connected()
    }

    /// A reply came, whatever it says.
    pub(super) fn answered(&self) {
        self.shared.replies.fetch_add(1, Ordering::Relaxed);
    }

    /// No reply came in time. If none came to anybody since the call began, the connection is of no use.
    pub(super) fn unanswered(&self, connected: &Connected) {
        if self.shared.replies.load(Ordering::Relaxed) == connected.replies {
            self.lose(connected);
        }
    }

    /// The server is no primary. Another one may be at its address by now, where a name or a balancer leads there; so it is
    /// connected to again, but not every time that it says so.
    pub(super) fn is_not_primary(&self, connected: &Connected) {
        if connected.since.elapsed() >= PATIENCE {
            self.lose(connected);
        }
    }

    /// The connection is of no use any more.
    pub(super) fn lose(&self, connected: &Connected) {
        self.shared.lose(connected.epoch);
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(&*self.shared.state.borrow(), State::Up { .. })
    }

    /// Waits until the connection is lost, if it is not.
    pub(super) async fn lost(&self) {
        self.shared.lost().await;
    }
}

impl Shared {
    fn connected(&self) -> Option<RedisResult<Connected>> {
        match &*self.state.borrow() {
            State::Lost => None,
            State::Broken(error) => Some(Err(error.clone())),
            State::Up { epoch, since, connection, reign } => Some(Ok(Connected {
                connection: connection.clone(),
                reign: Arc::clone(reign),
                epoch: *epoch,
                since: *since,
                replies: self.replies.load(Ordering::Relaxed),
            })),
        }
    }

    fn up(&self, epoch: u64, connection: Connection, reign: Arc<Reign>) {
        let since = Instant::now();
        self.state.send_replace(State::Up { epoch, since, connection, reign });
    }

    async fn lost(&self) {
        // What tells of the state lives as long as whoever waits here.
        let mut states = self.state.subscribe();
        let _ = states.wait_for(|state| !matches!(state, State::Up { .. })).await;
    }

    fn lose(&self, lost: u64) {
        self.state.send_if_modified(|state| match state {
            State::Up { epoch, .. } if *epoch == lost => {
                *state = State::Lost;
                true
            }
            _ => false,
        });
    }
}

struct Keeper {
    target: Target,
    hearing: Option<Arc<dyn Hearing>>,
    shared: Arc<Shared>,
    /// So much is said about the server once.
    unknown: Once,
    evicts: Once,
}

impl Keeper {
    fn new(target: Target, hearing: Option<Arc<dyn Hearing>>) -> Self {
        let state = watch::Sender::new(State::Lost);
        let shared = Arc::new(Shared { state, replies: AtomicU64::new(0) });
        Self { target, hearing, shared, unknown: Once::new(), evicts: Once::new() }
    }

    fn start(self) -> Link {
        let shared = Arc::clone(&self.shared);
        Link { shared, _keeper: AbortOnDropHandle::new(tokio::spawn(self.run())) }
    }

    async fn run(self) {
        for epoch in 2.. {
            self.shared.lost().await;
            let (connection, reign) = self.reconnect(epoch).await;
            tracing::info!(server = %self.target.address, "connected again");
            self.shared.up(epoch, connection, reign);
        }
    }

    async fn reconnect(&self, epoch: u64) -> (Connection, Arc<Reign>) {
        let patience_ends = Instant::now() + PATIENCE;
        let (mut delays, mut reason) = (delays(), None);
        loop {
            let attempt = self.connect(epoch);
            tokio::pin!(attempt);
            let connected = tokio::select! {
                connected = &mut attempt => connected,
                () = sleep_until(patience_ends), if self.is_awaited() => {
                    self.give_up(reason.take().unwrap_or_else(not_connected));
                    attempt.await
                }
            };
            let error = match connected {
                Ok(connected) => return connected,
                Err(error) => error,
            };
            tracing::debug!(server = %self.target.address, %error, "not connected again");
            // Who we are is not as right in a second as it is wrong now.
            if Instant::now() >= patience_ends || is_lasting(&error) {
                self.give_up(error);
            } else {
                reason = Some(error);
            }
            sleep(delays.next().unwrap_or(LONGEST_DELAY)).await;
        }
    }

    fn is_awaited(&self) -> bool {
        matches!(&*self.shared.state.borrow(), State::Lost)
    }

    /// From now on nobody waits.
    fn give_up(&self, error: RedisError) {
        if self.is_awaited() {
            tracing::warn!(
                server = %self.target.address, %error,
                "no connection; calls fail at once until there is one"
            );
        }
        self.shared.state.send_replace(State::Broken(error));
    }

    async fn connect(&self, epoch: u64) -> RedisResult<(Connection, Arc<Reign>)> {
        let shared = Arc::downgrade(&self.shared);
        let pushes = Pushes { shared, epoch, hearing: self.hearing.clone() };
        let mut connection = self.target.connect_to_hear(pushes).await?;
        let sections = info(&mut connection, ["server", "memory"]);
        let [server, memory] = self.target.in_time(sections).await?;
        let reign = Reign::of(value(&server, "run_id"));
        if !reign.is_known() {
            self.unknown.call_once(|| {
                tracing::warn!(
                    server = %self.target.address,
                    "the server does not tell its run_id by INFO; that another takes over goes unnoticed"
                );
            });
        }
        if let Some(policy) = eviction(&memory) {
            self.evicts.call_once(|| {
                tracing::warn!(
                    server = %self.target.address, policy,
                    "the server throws keys away when its memory is full, also those of pools; its maxmemory-policy should be noeviction"
                );
            });
        }
        let reign = Arc::new(reign);
        if let Some(hearing) = &self.hearing {
            let subscribed = subscribe_anew(&mut connection, hearing.subscriptions(), &self.target);
            self.target.in_time(subscribed).await?;
        }
        Ok((connection, reign))
    }
}

/// Sends what begins subscriptions, each of one channel.
pub(super) async fn subscribe(
    connection: &mut Connection,
    subscriptions: Vec<Cmd>,
) -> RedisResult<()> {
    for cmd in subscriptions {
        connection.req_packed_command(&cmd).await?.extract_error()?;
    }
    Ok(())
}

/// Begins on another connection what was begun before. Permission for that may be gone: such a channel is not heard then,
/// which is no reason to have no connection, for whoever waits asks as well.
pub(super) async fn subscribe_anew(
    connection: &mut Connection,
    subscriptions: Vec<Cmd>,
    target: &Target,
) -> RedisResult<()> {
    for cmd in subscriptions {
        match subscribe(connection, vec![cmd]).await {
            Err(error) if !error.is_io_error() => {
                tracing::warn!(server = %target.address, %error, "notices are not heard");
            }
            subscribed => subscribed?,
        }
    }
    Ok(())
}

fn is_lasting(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig)
        || matches!(error.code(), Some("WRONGPASS" | "NOAUTH"))
        || permission::is_missing(error)
        || is_certificate_problem(error)
}

fn not_connected() -> RedisError {
    let problem = format!("not connected within {PATIENCE:?}");
    io::Error::new(io::ErrorKind::NotConnected, problem).into()
}

/// How long to wait before connecting again, with jitter.
pub(super) fn delays() -> impl Iterator<Item = Duration> {
    let delays = ExponentialBuilder::new()
        .with_min_delay(FIRST_DELAY)
        .with_max_delay(LONGEST_DELAY)
        .without_max_times()
        .with_jitter();
    delays.build()
}

/// What is to be heard on a connection, and by whom.
pub(super) trait Hearing: Send + Sync {
    /// The commands that begin it, on every connection anew.
    fn subscriptions(&self) -> Vec<Cmd>;

    /// Takes what the server tells of its own accord. Whether the connection can be used after that.
    fn hear(&self, push: PushInfo) -> bool;
}

/// What the server tells on a connection of its own accord.
struct Pushes {
    /// Which holds the connection, which holds this.
    shared: Weak<Shared>,
    epoch: u64,
    hearing: Option<Arc<dyn Hearing>>,
}

impl AsyncPushSender for Pushes {
    fn send(&self, push: PushInfo) -> Result<(), SendError> {
        let is_lost = push.kind == PushKind::Disconnection;
        let is_usable = self.hearing.as_ref().is_none_or(|hearing| hearing.hear(push));
        if (is_lost || !is_usable)
            && let Some(shared) = self.shared.upgrade()
        {
            shared.lose(self.epoch);
        }
        Ok(())
    }
}
