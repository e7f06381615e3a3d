//! Connections: a few that all claims share and pipeline on, and a pool of others for whoever wants
//! one for itself.
//!
//! A checkout from the pool costs two commands before the one that is wanted, and a shared
//! connection carries three times as many claims; so only operators' calls, whose replies are long,
//! take one of their own.

use std::io;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use deadpool_redis::PoolError;
use redis::aio::{
    ConnectionLike, ConnectionManager, ConnectionManagerConfig, MultiplexedConnection,
};
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind,
    IntoConnectionInfo, Pipeline, ProtocolVersion, RedisError, RedisResult, ServerErrorKind, Value,
};
use secrecy::ExposeSecret;
use tokio::time::timeout;
use url::Url;

use super::keys::channel;
use super::listeners::Listeners;
use crate::config::RedisConfig;
use crate::error::{Error, Result};
use crate::ticket::{Channel, Inbox};

/// Flyte's, when none is configured.
const DEFAULT_ADDRESS: &str = "127.0.0.1:6379";

/// Reconnecting is tried this often, after 50, 100, 200 and 400 ms with jitter, before the calls that
/// wait for it fail; the next call begins anew.
const RECONNECT_ATTEMPTS: usize = 4;
const RECONNECT_DELAY: Duration = Duration::from_millis(50);

/// Which connection serves a call.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lane {
    /// One of those that all claims share.
    Shared,
    /// One for itself, so that a long reply delays no claim.
    Own,
}

/// All connections to one server.
pub(super) struct Connections {
    client: Client,
    shared: Vec<ConnectionManager>,
    next: AtomicUsize,
    own: deadpool_redis::Pool,
    listeners: Listeners,
    server: String,
    connect_timeout: Duration,
    command_timeout: Duration,
    max_retries: usize,
}

impl std::fmt::Debug for Connections {
    /// Without the clients, whose Debug shows the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connections").field("server", &self.server).finish_non_exhaustive()
    }
}

impl Connections {
    pub(super) async fn open(config: &RedisConfig) -> Result<Self> {
        let info = connection_info(config).map_err(|(key, problem)| Error::Configuration {
            key: key.to_owned(),
            problem: problem.to_owned(),
        })?;
        let server = info.addr().to_string();
        let cannot_connect = |error| failure("connect", &server, error);

        let client = Client::open(info.clone()).map_err(cannot_connect)?;
        let listeners = Listeners::default();
        let manager_config = ConnectionManagerConfig::new()
            .set_push_sender(listeners.clone())
            .set_automatic_resubscription()
            .set_connection_timeout(Some(config.connect_timeout))
            .set_response_timeout(None) // one timer a call is enough; `call` has it
            .set_number_of_retries(RECONNECT_ATTEMPTS)
            .set_min_delay(RECONNECT_DELAY);
        let mut shared = Vec::new();
        for _ in 0..config.connections.max(1) {
            let connect =
                ConnectionManager::new_with_config(client.clone(), manager_config.clone());
            let connection = timeout(config.connect_timeout, connect)
                .await
                .unwrap_or_else(|_| Err(timed_out("connected", config.connect_timeout)));
            shared.push(connection.map_err(cannot_connect)?);
        }

        let own_config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(config.connect_timeout))
            .set_response_timeout(None);
        let manager =
            deadpool_redis::Manager::new_with_config(info, own_config).map_err(cannot_connect)?;
        let own = deadpool_redis::Pool::builder(manager)
            .max_size(4)
            .runtime(deadpool_redis::Runtime::Tokio1)
            .wait_timeout(Some(config.command_timeout))
            .create_timeout(Some(config.connect_timeout))
            .recycle_timeout(Some(config.command_timeout))
            .build()
            .map_err(|error| Error::Unavailable {
                operation: "connect",
                server: server.clone(),
                source: Box::new(error),
            })?;
        Ok(Self {
            client,
            shared,
            next: AtomicUsize::new(0),
            own,
            listeners,
            connect_timeout: config.connect_timeout,
            command_timeout: config.command_timeout,
            max_retries: usize::try_from(config.max_retries).unwrap_or(usize::MAX),
            server,
        })
    }

    /// The server's address, without credentials.
    pub(super) fn server(&self) -> &str {
        &self.server
    }

    /// Sends a command and waits for its reply, at most the command time-out and, for a connection
    /// of its own, the time to make one. Repeats what got no answer as often as configured: every
    /// script may be repeated.
    pub(super) async fn call(&self, lane: Lane, cmd: &Cmd) -> RedisResult<Value> {
        self.retrying(|| async {
            match lane {
                Lane::Shared => {
                    let mut connection = self.shared();
                    self.within(connection.send_packed_command(cmd)).await
                }
                Lane::Own => {
                    let mut connection = self.own.get().await.map_err(checkout_failed)?;
                    self.within(connection.req_packed_command(cmd)).await
                }
            }?
            .extract_error()
        })
        .await
    }

    /// Sends commands in one go on a shared connection and waits for all replies.
    pub(super) async fn call_all<'a>(
        &self,
        cmds: impl Iterator<Item = &'a Cmd>,
    ) -> RedisResult<Vec<Value>> {
        let mut pipeline = Pipeline::new();
        for cmd in cmds {
            pipeline.add_command(cmd.clone());
        }
        self.retrying(|| async {
            let mut connection = self.shared();
            let sent = connection.send_packed_commands(&pipeline, 0, pipeline.len());
            self.within(sent).await?.into_iter().map(Value::extract_error).collect()
        })
        .await
    }

    /// Subscribes to a new channel of this process, on one of the shared connections.
    pub(super) async fn listen(&self) -> Result<Inbox> {
        let channel = channel(&uuid::Uuid::new_v4().simple().to_string());
        let notices = self.listeners.open(&channel);
        let subscribed = match self.shared.first() {
            Some(connection) => self.within(connection.clone().subscribe(&channel)).await,
            None => Ok(()),
        };
        subscribed.map_err(|error| self.error("listen", error))?;
        Ok(Inbox { channel: Channel::new(channel), notices })
    }

    /// One more connection, for whoever configures its own.
    pub(super) async fn another(
        &self,
        config: AsyncConnectionConfig,
    ) -> RedisResult<MultiplexedConnection> {
        let limit = self.connect_timeout;
        let config = config.set_connection_timeout(Some(limit)).set_response_timeout(None);
        let connect = self.client.get_multiplexed_async_connection_with_config(&config);
        timeout(limit, connect).await.unwrap_or_else(|_| Err(timed_out("connected", limit)))
    }

    fn shared(&self) -> ConnectionManager {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        self.shared[turn % self.shared.len()].clone()
    }

    /// A reply, or an error after the command time-out.
    pub(super) async fn within<T>(
        &self,
        reply: impl Future<Output = RedisResult<T>>,
    ) -> RedisResult<T> {
        let limit = self.command_timeout;
        timeout(limit, reply).await.unwrap_or_else(|_| Err(timed_out("answered", limit)))
    }

    async fn retrying<T, F>(&self, attempt: impl Fn() -> F) -> RedisResult<T>
    where
        F: Future<Output = RedisResult<T>>,
    {
        if self.max_retries == 0 {
            return attempt().await;
        }
        let back_off = ExponentialBuilder::new()
            .with_min_delay(RECONNECT_DELAY)
            .with_max_delay(Duration::from_secs(1))
            .with_max_times(self.max_retries)
            .with_jitter();
        attempt.retry(back_off).when(is_temporary).await
    }

    /// The library's error for what a call failed with.
    pub(super) fn error(&self, operation: &'static str, error: RedisError) -> Error {
        failure(operation, &self.server, error)
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

fn timed_out(what: &str, limit: Duration) -> RedisError {
    io::Error::new(io::ErrorKind::TimedOut, format!("not {what} within {limit:?}")).into()
}

fn checkout_failed(error: PoolError) -> RedisError {
    match error {
        PoolError::Backend(error) => error,
        other => io::Error::new(io::ErrorKind::TimedOut, other.to_string()).into(),
    }
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

/// What is wrong with the address: the key and the problem, in words that repeat no secret.
type AddressProblem = (&'static str, &'static str);

/// Whether the configuration names a server that this library can connect to.
pub(crate) fn check_address(config: &RedisConfig) -> Result<(), AddressProblem> {
    connection_info(config).map(drop)
}

fn connection_info(config: &RedisConfig) -> Result<ConnectionInfo, AddressProblem> {
    let info = match &config.url {
        Some(url) => parse_url(url.expose_secret()).map_err(|problem| ("redis.url", problem))?,
        None => {
            let (key, text) = match config.host_paths.first() {
                Some(first) => ("redis.hostPaths", first.as_str()),
                None if config.host_path.is_empty() => ("redis.hostPath", DEFAULT_ADDRESS),
                None => ("redis.hostPath", config.host_path.as_str()),
            };
            let problem = (key, "must be host:port");
            let addr = parse_host_path(text).ok_or(problem)?;
            let info = addr.into_connection_info().map_err(|_| problem)?;
            let settings = info.redis_settings().clone();
            match &config.host_key {
                Some(key) => info.set_redis_settings(settings.set_password(key.expose_secret())),
                None => info,
            }
        }
    };
    // RESP3, because there the client notices at once when the connection is lost.
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    Ok(info.set_redis_settings(settings).set_tcp_settings(tcp_settings(config)))
}

fn tcp_settings(config: &RedisConfig) -> TcpSettings {
    // Claims are small and wait for their answers.
    let settings = TcpSettings::default().set_nodelay(true);
    // A server that vanished does not even refuse. What it has not taken in the time that an answer
    // may take ends the connection, so that the next call makes a new one.
    #[cfg(target_os = "linux")]
    let settings = settings.set_user_timeout(config.command_timeout);
    #[cfg(not(target_os = "linux"))]
    let _ = config;
    settings
}

fn parse_host_path(text: &str) -> Option<ConnectionAddr> {
    let (host, port) = text.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = u16::from_str(port).ok().filter(|&port| port != 0)?;
    (!host.is_empty()).then(|| ConnectionAddr::Tcp(host.to_owned(), port))
}

fn parse_url(text: &str) -> Result<ConnectionInfo, &'static str> {
    const FORM: &str = "must be redis://[:password@]host[:port][/db] or unix:///path/to/socket";
    let url = Url::parse(text).map_err(|_| FORM)?;
    if matches!(url.scheme(), "rediss" | "valkeys") {
        return Err("TLS is not supported yet; give a redis:// address");
    }
    let info = url.into_connection_info().map_err(|_| FORM)?;
    match info.redis_settings().username() {
        Some(_) => Err("ACL users are not supported yet; give a password alone"),
        None => Ok(info),
    }
}
