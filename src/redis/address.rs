//! Where the servers are, and how any of them is reached: the configuration, checked.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::{AsyncPushSender, ConnectionLike};
use redis::io::AsyncDNSResolver;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, ErrorKind,
    IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo, RedisError, RedisFuture, RedisResult,
    TlsCertificates, Value,
};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use secrecy::{ExposeSecret, SecretString};
#[cfg(target_os = "linux")]
use socket2::SockRef;
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use url::Url;

use super::connect::timed_out;
use super::connection::{Connection, Hears, Stream};
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
    tls: Option<Tls>,
    connect_timeout: Duration,
    command_timeout: Duration,
}

/// How servers are verified, and who we are to them.
#[derive(Clone)]
struct Tls {
    connector: TlsConnector,
    /// The same as the redis crate takes it.
    certificates: TlsCertificates,
    /// For which name every certificate is, if not for the server's own.
    server_name: Option<String>,
}

impl fmt::Debug for Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dial").field("servers", &self.deployment.servers).finish_non_exhaustive()
    }
}

impl Dial {
    /// Reads the files that the configuration names.
    pub(super) fn new(deployment: Deployment, config: &RedisConfig) -> Result<Self> {
        let tls = match deployment.tls {
            true => Some(Tls::new(config)?),
            false => None,
        };
        let RedisConfig { connect_timeout, command_timeout, .. } = *config;
        Ok(Self { deployment, tls, connect_timeout, command_timeout })
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// A server that keeps data. RESP3, because there the client notices at once when the connection is lost.
    pub(super) fn server(&self, address: &Address) -> RedisResult<Target> {
        let Deployment { login, database, servers, .. } = &self.deployment;
        let target = self.target(address, login.settings(*database, ProtocolVersion::RESP3))?;
        Ok(Target { must_be_primary: matches!(servers, Servers::Sentinels { .. }), ..target })
    }

    /// A sentinel.
    pub(super) fn sentinel(&self, address: &Address) -> RedisResult<Target> {
        let login = &self.deployment.sentinel_login;
        self.target(address, login.settings(0, ProtocolVersion::RESP2))
    }

    fn target(&self, address: &Address, login: RedisConnectionInfo) -> RedisResult<Target> {
        let tls = match (&self.tls, address) {
            (Some(tls), Address::Tcp { host, .. }) => {
                let name = tls.server_name.as_ref().unwrap_or(host).clone();
                let name = ServerName::try_from(name)?;
                Some((tls.clone(), name))
            }
            _ => None,
        };
        Ok(Target {
            address: address.clone(),
            login,
            tls,
            must_be_primary: false,
            connect_timeout: self.connect_timeout,
            command_timeout: self.command_timeout,
        })
    }
}

impl Tls {
    /// Reads the files that the configuration names.
    fn new(config: &RedisConfig) -> Result<Self> {
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            // Else whichever the program chose. It may choose at this very moment, which is as good.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let (authorities, root_cert) = match certificates("tlsCaFile", &config.tls_ca_file)? {
            Some((authorities, text)) => (authorities, Some(text)),
            // What cannot be read among them is missed when a server is verified.
            None => (rustls_native_certs::load_native_certs().certs, None),
        };
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(authorities);
        let client = ClientConfig::builder().with_root_certificates(roots);
        let certificate = certificates("tlsCertFile", &config.tls_cert_file)?;
        let key = pem("tlsKeyFile", &config.tls_key_file, PrivateKeyDer::from_pem_slice)?;
        let (client, client_tls) = match certificate.zip(key) {
            Some(((certificate, client_cert), (key, client_key))) => {
                let client = client.with_client_auth_cert(certificate, key);
                let client =
                    client.map_err(|error| wrong("tlsKeyFile", &config.tls_key_file, error))?;
                (client, Some(ClientTlsConfig { client_cert, client_key }))
            }
            None => (client.with_no_client_auth(), None),
        };
        let connector = TlsConnector::from(Arc::new(client));
        let certificates = TlsCertificates { client_tls, root_cert };
        let server_name = Some(config.tls_server_name.clone()).filter(|name| !name.is_empty());
        Ok(Self { connector, certificates, server_name })
    }
}

/// What is in a PEM file, and its text.
type Pem<T> = (T, Vec<u8>);

fn certificates(key: &str, path: &Path) -> Result<Option<Pem<Vec<CertificateDer<'static>>>>> {
    pem(key, path, |text| match CertificateDer::pem_slice_iter(text).collect() {
        Ok(found) if Vec::is_empty(&found) => Err(pem::Error::NoItemsFound),
        found => found,
    })
}

/// What a PEM file holds, if there is to be one.
fn pem<T>(
    key: &str,
    path: &Path,
    read: impl FnOnce(&[u8]) -> Result<T, pem::Error>,
) -> Result<Option<Pem<T>>> {
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    let text = std::fs::read(path)
        .map_err(|error| wrong(key, path, format!("cannot be read: {error}")))?;
    // The error could repeat what is in the file.
    let held = read(&text).map_err(|_| wrong(key, path, "holds nothing of the kind in PEM"))?;
    Ok(Some((held, text)))
}

fn wrong(key: &str, path: &Path, problem: impl fmt::Display) -> Error {
    let problem = format!("{} {problem}", path.display());
    Error::Configuration { key: format!("redis.{key}"), problem }
}

/// One server, and who we are to it.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) address: Address,
    login: RedisConnectionInfo,
    /// With the name that its certificate has to be for.
    tls: Option<(Tls, ServerName<'static>)>,
    /// Whether it serves only while it is the primary.
    must_be_primary: bool,
    connect_timeout: Duration,
    command_timeout: Duration,
}

impl fmt::Debug for Target {
    /// Without who we are.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Target {
    /// Makes a connection, in the time that there is for that.
    pub(super) async fn connect(&self) -> RedisResult<Connection> {
        self.open(None).await
    }

    /// The same, on which notices are heard.
    pub(super) async fn connect_to_hear(
        &self,
        hears: impl AsyncPushSender,
    ) -> RedisResult<Connection> {
        self.open(Some(Box::new(hears))).await
    }

    async fn open(&self, hears: Option<Hears>) -> RedisResult<Connection> {
        let open = async {
            let mut connection = Connection::open(self.stream().await?, &self.login, hears).await?;
            self.verify(&mut connection).await?;
            Ok(connection)
        };
        self.in_time(open).await.map_err(|error| self.with_advice(error))
    }

    /// Fails if the server must be the primary and does not say that it is.
    ///
    /// Replicas answer whatever changes nothing with what they have or have not. It is enough to ask once: when a primary is made
    /// a replica, sentinels have it close its connections in the same transaction.
    pub(super) async fn verify(&self, connection: &mut impl ConnectionLike) -> RedisResult<()> {
        if !self.must_be_primary {
            return Ok(());
        }
        let role = connection.req_packed_command(&redis::cmd("ROLE")).await?.extract_error()?;
        let primary = Value::BulkString(b"master".to_vec());
        match role {
            Value::Array(said) if said.first() == Some(&primary) => Ok(()),
            _ => Err(io::Error::other(format!("{} is no primary", self.address)).into()),
        }
    }

    async fn stream(&self) -> io::Result<Stream> {
        let stream = match &self.address {
            #[cfg(unix)]
            Address::Unix(path) => return Ok(Box::new(UnixStream::connect(path).await?)),
            #[cfg(not(unix))]
            Address::Unix(_) => return Err(io::ErrorKind::Unsupported.into()),
            Address::Tcp { host, port } => TcpStream::connect((host.as_str(), *port)).await?,
        };
        // Claims are small and wait for their answers.
        stream.set_nodelay(true)?;
        // A server that vanished does not even refuse. What it has not taken in the time that an answer
        // may take ends the connection, so that the next call makes a new one.
        #[cfg(target_os = "linux")]
        SockRef::from(&stream).set_tcp_user_timeout(Some(self.command_timeout))?;
        Ok(match &self.tls {
            Some((tls, name)) => Box::new(tls.connector.connect(name.clone(), stream).await?),
            None => Box::new(stream),
        })
    }

    /// The two errors that most often mean that one side speaks TLS and the other does not say so.
    fn with_advice(&self, error: RedisError) -> RedisError {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, InvalidData, TimedOut, UnexpectedEof};
        let kind = io_error(&error).map(io::Error::kind);
        let is_likely = match (&self.address, &self.tls) {
            (Address::Unix(_), _) => false,
            (Address::Tcp { .. }, None) => {
                matches!(kind, Some(BrokenPipe | ConnectionReset | UnexpectedEof))
                    || error.kind() == ErrorKind::Parse
            }
            // A server that does not waits for the end of what it takes for a command.
            (Address::Tcp { .. }, Some(_)) => {
                matches!(kind, Some(InvalidData | TimedOut | UnexpectedEof))
                    && !is_certificate_problem(&error)
            }
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

    /// Makes connections for a pool. It has the redis crate do that, so what comes on them is bounded by time alone.
    pub(super) fn manager(&self) -> RedisResult<deadpool_redis::Manager> {
        // One timer a call is enough, and whoever calls has it.
        let mut config =
            AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let tcp = TcpSettings::default().set_nodelay(true);
        #[cfg(target_os = "linux")]
        let tcp = tcp.set_user_timeout(self.command_timeout);
        let info = |addr: ConnectionAddr| {
            let info = addr.into_connection_info()?.set_redis_settings(self.login.clone());
            RedisResult::Ok(info.set_tcp_settings(tcp))
        };
        let info = match (&self.address, &self.tls) {
            (Address::Unix(path), _) => info(ConnectionAddr::Unix(path.clone()))?,
            (Address::Tcp { host, port }, None) => info(ConnectionAddr::Tcp(host.clone(), *port))?,
            (Address::Tcp { host, port }, Some((tls, name))) => {
                config = config.set_dns_resolver(Elsewhere { host: host.clone() });
                let info = info(ConnectionAddr::TcpTls {
                    host: name.to_str().into_owned(),
                    port: *port,
                    insecure: false,
                    tls_params: None,
                });
                let client = Client::build_with_tls(info?, tls.certificates.clone())?;
                client.get_connection_info().clone()
            }
        };
        deadpool_redis::Manager::new_with_config(info, config)
    }
}

/// Finds every name at one host, because a certificate may be for a name that is not the host's.
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
