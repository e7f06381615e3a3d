//! Where the servers are, and how any of them is reached: the configuration, checked.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::AsyncDNSResolver;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, ErrorKind,
    IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo, RedisError, RedisFuture, RedisResult,
    TlsCertificates,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::timeout;
use url::Url;

use super::connect::timed_out;
use crate::config::RedisConfig;
use crate::error::{Error, Result};

/// Flyte's, when none is configured.
const DEFAULT_ADDRESS: &str = "127.0.0.1:6379";
const DEFAULT_SENTINEL: &str = "127.0.0.1:26379";

/// What is wrong with the configuration: the key and the problem, in words that repeat no secret.
type Problem = (&'static str, &'static str);

/// Whether the configuration names servers that this library can connect to.
pub(crate) fn check_address(config: &RedisConfig) -> Result<(), Problem> {
    Deployment::new(config).map(drop)
}

/// Address of a server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Address {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

impl Address {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = u16::from_str(port).ok().filter(|&port| port != 0)?;
        // A password may stand before an @, and errors name the host.
        let is_host = !host.is_empty() && !host.contains(['@', '/']);
        is_host.then(|| Self::Tcp { host: host.to_owned(), port })
    }
}

/// Which servers there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Servers {
    /// This one.
    One(Address),
    /// The primary that these sentinels name.
    Sentinels { name: String, sentinels: Vec<Address> },
    /// A cluster that these are nodes of.
    Cluster(Vec<Address>),
}

impl fmt::Display for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |addresses: &[Address]| {
            addresses.iter().map(Address::to_string).collect::<Vec<_>>().join(",")
        };
        match self {
            Self::One(address) => address.fmt(f),
            Self::Sentinels { name, sentinels } => {
                write!(f, "{name} of sentinels {}", list(sentinels))
            }
            Self::Cluster(nodes) => write!(f, "cluster of {}", list(nodes)),
        }
    }
}

/// Who a client is to a server.
#[derive(Clone, Debug, Default)]
struct Login {
    user: Option<String>,
    password: Option<SecretString>,
}

impl Login {
    fn new(user: &str, password: Option<&SecretString>) -> Option<Self> {
        let user = Some(user.to_owned()).filter(|user| !user.is_empty());
        if user.is_some() && password.is_none() {
            return None;
        }
        Some(Self { user, password: password.cloned() })
    }

    fn settings(&self, database: i64, protocol: ProtocolVersion) -> RedisConnectionInfo {
        let mut settings = RedisConnectionInfo::default().set_db(database).set_protocol(protocol);
        if let Some(user) = &self.user {
            settings = settings.set_username(user);
        }
        if let Some(password) = &self.password {
            settings = settings.set_password(password.expose_secret());
        }
        settings
    }
}

/// The servers, and what is the same for all of them.
#[derive(Clone, Debug)]
pub(super) struct Deployment {
    pub(super) servers: Servers,
    login: Login,
    sentinel_login: Login,
    database: i64,
    tls: bool,
}

impl Deployment {
    pub(super) fn new(config: &RedisConfig) -> Result<Self, Problem> {
        let deployment = match &config.url {
            Some(url) => Self::of_url(config, url)?,
            None => Self::of_keys(config)?,
        };
        let is_unix = matches!(&deployment.servers, Servers::One(Address::Unix(_)));
        match deployment.tls {
            true if is_unix => return Err(("redis.tls", "is not spoken over a unix socket")),
            true => {}
            false => {
                for (key, is_set) in [
                    ("redis.tlsCaFile", !config.tls_ca_file.as_os_str().is_empty()),
                    ("redis.tlsCertFile", !config.tls_cert_file.as_os_str().is_empty()),
                    ("redis.tlsKeyFile", !config.tls_key_file.as_os_str().is_empty()),
                    ("redis.tlsServerName", !config.tls_server_name.is_empty()),
                ] {
                    if is_set {
                        return Err((key, "needs tls: true, or a rediss:// address"));
                    }
                }
            }
        }
        let name = config.tls_server_name.as_str();
        if !name.is_empty() && ServerName::try_from(name).is_err() {
            return Err(("redis.tlsServerName", "must be a DNS name or an IP address"));
        }
        let (cert, key) = (&config.tls_cert_file, &config.tls_key_file);
        match (cert.as_os_str().is_empty(), key.as_os_str().is_empty()) {
            (false, true) => Err(("redis.tlsCertFile", "needs tlsKeyFile")),
            (true, false) => Err(("redis.tlsKeyFile", "needs tlsCertFile")),
            _ => Ok(deployment),
        }
    }

    fn of_url(config: &RedisConfig, url: &SecretString) -> Result<Self, Problem> {
        let info = parse_url(url.expose_secret()).map_err(|problem| ("redis.url", problem))?;
        let settings = info.redis_settings();
        let (address, is_tls) = match info.addr() {
            ConnectionAddr::Tcp(host, port) => {
                (Address::Tcp { host: host.clone(), port: *port }, false)
            }
            ConnectionAddr::TcpTls { host, port, insecure: false, .. } => {
                (Address::Tcp { host: host.clone(), port: *port }, true)
            }
            ConnectionAddr::Unix(path) => (Address::Unix(path.clone()), false),
            _ => return Err(("redis.url", "servers are always verified; give tlsCaFile")),
        };
        let password = settings.password().map(SecretString::from);
        let login = Login::new(settings.username().unwrap_or_default(), password.as_ref())
            .ok_or(("redis.url", "an ACL user needs a password"))?;
        Ok(Self {
            servers: Servers::One(address),
            login,
            sentinel_login: Login::default(),
            database: settings.db(),
            tls: config.tls || is_tls,
        })
    }

    fn of_keys(config: &RedisConfig) -> Result<Self, Problem> {
        let is_sentinel = !config.primary_name.is_empty();
        if is_sentinel && config.cluster {
            return Err(("redis.cluster", "has no primaryName; give one of them"));
        }
        let default = if is_sentinel { DEFAULT_SENTINEL } else { DEFAULT_ADDRESS };
        let (key, texts) = match &*config.host_paths {
            [] if config.host_path.is_empty() => ("redis.hostPath", vec![default]),
            [] => ("redis.hostPath", vec![config.host_path.as_str()]),
            many => ("redis.hostPaths", many.iter().map(String::as_str).collect()),
        };
        let addresses: Option<Vec<_>> = texts.into_iter().map(Address::parse).collect();
        let addresses = addresses.ok_or((key, "must be host:port"))?;
        let servers = match <[Address; 1]>::try_from(addresses) {
            Ok([one]) if !is_sentinel && !config.cluster => Servers::One(one),
            Ok([one]) => Self::several(config, vec![one]),
            Err(many) => Self::several(config, many),
        };
        if matches!(servers, Servers::Cluster(_)) && config.database != 0 {
            return Err(("redis.database", "must be 0 in a cluster"));
        }
        if !is_sentinel && (config.sentinel_key.is_some() || !config.sentinel_user.is_empty()) {
            return Err(("redis.sentinelKey", "needs primaryName"));
        }
        let login = Login::new(&config.host_user, config.host_key.as_ref())
            .ok_or(("redis.hostUser", "needs hostKey"))?;
        let sentinel_login = Login::new(&config.sentinel_user, config.sentinel_key.as_ref())
            .ok_or(("redis.sentinelUser", "needs sentinelKey"))?;
        let database = i64::from(config.database);
        Ok(Self { servers, login, sentinel_login, database, tls: config.tls })
    }

    fn several(config: &RedisConfig, addresses: Vec<Address>) -> Servers {
        match config.primary_name.as_str() {
            "" => Servers::Cluster(addresses),
            name => Servers::Sentinels { name: name.to_owned(), sentinels: addresses },
        }
    }
}

fn parse_url(text: &str) -> Result<ConnectionInfo, &'static str> {
    const FORM: &str =
        "must be redis[s]://[[user]:password@]host[:port][/db] or unix:///path/to/socket";
    let url = Url::parse(text).map_err(|_| FORM)?;
    url.into_connection_info().map_err(|_| FORM)
}

/// How any of the servers is reached.
#[derive(Clone)]
pub(super) struct Dial {
    deployment: Deployment,
    certificates: Option<TlsCertificates>,
    server_name: Option<String>,
    tcp: TcpSettings,
    connect_timeout: Duration,
}

impl fmt::Debug for Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dial").field("servers", &self.deployment.servers).finish_non_exhaustive()
    }
}

impl Dial {
    /// Reads the files that the configuration names.
    pub(super) fn new(deployment: Deployment, config: &RedisConfig) -> Result<Self> {
        let certificates = match deployment.tls {
            true => Some(certificates(config)?),
            false => None,
        };
        if certificates.is_some() && rustls::crypto::CryptoProvider::get_default().is_none() {
            // Else whichever the program chose. It may choose at this very moment, which is as good.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let server_name = Some(config.tls_server_name.clone()).filter(|name| !name.is_empty());
        let (tcp, connect_timeout) = (tcp_settings(config), config.connect_timeout);
        Ok(Self { deployment, certificates, server_name, tcp, connect_timeout })
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.certificates.is_some()
    }

    /// A server that keeps data. RESP3, because there the client notices at once when the connection is lost.
    pub(super) fn server(&self, address: &Address) -> RedisResult<Target> {
        let Deployment { login, database, .. } = &self.deployment;
        self.target(address, login.settings(*database, ProtocolVersion::RESP3))
    }

    /// A sentinel.
    pub(super) fn sentinel(&self, address: &Address) -> RedisResult<Target> {
        let login = &self.deployment.sentinel_login;
        self.target(address, login.settings(0, ProtocolVersion::RESP2))
    }

    fn target(&self, address: &Address, settings: RedisConnectionInfo) -> RedisResult<Target> {
        let mut host = None;
        let addr = match address {
            Address::Unix(path) => ConnectionAddr::Unix(path.clone()),
            Address::Tcp { host, port } if self.certificates.is_none() => {
                ConnectionAddr::Tcp(host.clone(), *port)
            }
            Address::Tcp { host: real, port } => {
                if self.server_name.is_some() {
                    host = Some(real.clone());
                }
                let verified = self.server_name.as_ref().unwrap_or(real).clone();
                ConnectionAddr::TcpTls {
                    host: verified,
                    port: *port,
                    insecure: false,
                    tls_params: None,
                }
            }
        };
        let info = addr.into_connection_info()?.set_redis_settings(settings);
        let info = info.set_tcp_settings(self.tcp.clone());
        let client = match (&self.certificates, address) {
            (Some(certificates), Address::Tcp { .. }) => {
                Client::build_with_tls(info, certificates.clone())?
            }
            _ => Client::open(info)?,
        };
        Ok(Target { address: address.clone(), client, host, connect_timeout: self.connect_timeout })
    }
}

fn certificates(config: &RedisConfig) -> Result<TlsCertificates> {
    let client_cert = pem("tlsCertFile", &config.tls_cert_file, is_certificates)?;
    let client_key = pem("tlsKeyFile", &config.tls_key_file, |text| {
        PrivateKeyDer::from_pem_slice(text).is_ok()
    })?;
    let client_tls = client_cert.zip(client_key);
    Ok(TlsCertificates {
        client_tls: client_tls
            .map(|(client_cert, client_key)| ClientTlsConfig { client_cert, client_key }),
        root_cert: pem("tlsCaFile", &config.tls_ca_file, is_certificates)?,
    })
}

/// The text of a PEM file, if there is to be one.
fn pem(key: &str, path: &Path, is_right: impl Fn(&[u8]) -> bool) -> Result<Option<Vec<u8>>> {
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    let wrong = |problem: String| Error::Configuration {
        key: format!("redis.{key}"),
        problem: format!("{} {problem}", path.display()),
    };
    let text = std::fs::read(path).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    match is_right(&text) {
        true => Ok(Some(text)),
        false => Err(wrong("holds nothing of the kind in PEM".to_owned())),
    }
}

fn is_certificates(text: &[u8]) -> bool {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    found.is_ok_and(|found| !found.is_empty())
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

/// One server, and who we are to it.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) address: Address,
    client: Client,
    /// Where it is, if its certificate is for another name.
    host: Option<String>,
    connect_timeout: Duration,
}

impl fmt::Debug for Target {
    /// Without the client, whose Debug shows the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Target {
    /// Makes a connection, in the time that there is for that.
    pub(super) async fn connect(
        &self,
        config: AsyncConnectionConfig,
    ) -> RedisResult<MultiplexedConnection> {
        let config = self.configured(config);
        let connect = self.client.get_multiplexed_async_connection_with_config(&config);
        self.in_time(connect).await.map_err(|error| self.with_advice(error))
    }

    /// The two errors that most often mean that one side speaks TLS and the other does not say so.
    fn with_advice(&self, error: RedisError) -> RedisError {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, InvalidData, TimedOut, UnexpectedEof};
        let kind = io_error(&error).map(io::Error::kind);
        let is_likely = match self.client.get_connection_info().addr() {
            ConnectionAddr::Tcp(..) => {
                matches!(kind, Some(BrokenPipe | ConnectionReset | UnexpectedEof))
                    || error.kind() == ErrorKind::Parse
            }
            // A server that does not waits for the end of what it takes for a command.
            ConnectionAddr::TcpTls { .. } => {
                matches!(kind, Some(InvalidData | TimedOut | UnexpectedEof))
                    && !is_certificate_problem(&error)
            }
            _ => false,
        };
        match is_likely {
            true => {
                let kind = kind.unwrap_or(InvalidData);
                io::Error::new(kind, format!("{error}; does the server speak TLS?")).into()
            }
            false => error,
        }
    }

    /// What belongs to connecting, in the time that there is for that.
    pub(super) async fn in_time<T>(
        &self,
        step: impl Future<Output = RedisResult<T>>,
    ) -> RedisResult<T> {
        let limit = self.connect_timeout;
        timeout(limit, step).await.unwrap_or_else(|_| Err(timed_out("connected", limit)))
    }

    /// Makes connections for a pool.
    pub(super) fn manager(&self) -> RedisResult<deadpool_redis::Manager> {
        let info = self.client.get_connection_info().clone();
        let config = self.configured(AsyncConnectionConfig::new());
        deadpool_redis::Manager::new_with_config(info, config)
    }

    fn configured(&self, config: AsyncConnectionConfig) -> AsyncConnectionConfig {
        // One timer a call is enough, and whoever calls has it.
        let config = config.set_connection_timeout(None).set_response_timeout(None);
        match &self.host {
            Some(host) => config.set_dns_resolver(Elsewhere { host: host.clone() }),
            None => config,
        }
    }
}

fn io_error(error: &RedisError) -> Option<&io::Error> {
    type Shared = Arc<dyn std::error::Error + Send + Sync>;
    let source = std::error::Error::source(error)?;
    match source.downcast_ref::<Shared>() {
        Some(shared) => shared.downcast_ref(),
        None => source.downcast_ref(),
    }
}

/// Whether somebody's certificate is not what it has to be, which time does not mend.
pub(super) fn is_certificate_problem(error: &RedisError) -> bool {
    let tls = io_error(error).and_then(io::Error::get_ref);
    let tls = tls.and_then(|error| error.downcast_ref::<rustls::Error>());
    matches!(tls, Some(rustls::Error::InvalidCertificate(_) | rustls::Error::AlertReceived(_)))
}

/// Finds every name at one host, so that a certificate may be for a name that is not the host's.
struct Elsewhere {
    host: String,
}

impl AsyncDNSResolver for Elsewhere {
    fn resolve<'a, 'b: 'a>(
        &'a self,
        _: &'b str,
        port: u16,
    ) -> RedisFuture<'a, Box<dyn Iterator<Item = SocketAddr> + Send + 'a>> {
        Box::pin(async move {
            let found = tokio::net::lookup_host((self.host.as_str(), port));
            let found = found.await.map_err(RedisError::from)?;
            Ok(Box::new(found.collect::<Vec<_>>().into_iter()) as Box<_>)
        })
    }
}
