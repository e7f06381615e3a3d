//! The configuration: Flyte's keys, this library's beside them, and the environment over both.
//!
//! The section may stand at `propeller.resourcemanager`, where Flyte reads it, at
//! `resourcemanager`, as its documentation shows it, or at the top level. Keys are exact; an unknown
//! one is an error.
//!
//! | key | environment | default | meaning |
//! | --- | --- | --- | --- |
//! | `type` | `TOKENPOOL_TYPE` | `noop` | `noop`, `memory` or `redis` |
//! | `resourceMaxQuota` | `TOKENPOOL_RESOURCE_MAX_QUOTA` | 1000 | largest quota of one pool, in units |
//! | `onUnavailable` | `TOKENPOOL_ON_UNAVAILABLE` | `refuse` | what a claim is answered while Redis cannot be reached: `refuse`, an error; `grant`, units of a local allowance, beyond the quota |
//! | `localAllowance` | `TOKENPOOL_LOCAL_ALLOWANCE` | none | units of each pool that one process may grant by itself then; 1 to `resourceMaxQuota`, with `onUnavailable: grant` alone |
//! | `redis.hostPaths` | `TOKENPOOL_REDIS_HOST_PATHS`, comma-separated | none | `host:port` of the server; with `primaryName` of the sentinels; without it several are nodes of a Redis Cluster |
//! | `redis.primaryName` | `TOKENPOOL_REDIS_PRIMARY_NAME` | none | under which name the sentinels know the primary |
//! | `redis.hostPath` | `TOKENPOOL_REDIS_HOST_PATH` | none | used when `hostPaths` is empty; without either, 127.0.0.1:6379, or 26379 for a sentinel |
//! | `redis.hostKey` | `TOKENPOOL_REDIS_HOST_KEY` | none | password of the servers |
//! | `redis.maxRetries` | `TOKENPOOL_REDIS_MAX_RETRIES` | 0 | how often a call that got no answer is repeated, with back-off; at most 100 |
//! | `redis.hostUser` | `TOKENPOOL_REDIS_HOST_USER` | none | ACL user on the servers; needs `hostKey` |
//! | `redis.sentinelUser` | `TOKENPOOL_REDIS_SENTINEL_USER` | none | ACL user on the sentinels; needs `sentinelKey` |
//! | `redis.sentinelKey` | `TOKENPOOL_REDIS_SENTINEL_KEY` | none | password of the sentinels |
//! | `redis.cluster` | `TOKENPOOL_REDIS_CLUSTER` | false | a Redis Cluster, also with one address |
//! | `redis.database` | `TOKENPOOL_REDIS_DATABASE` | 0 | index of the database; none but 0 in a cluster |
//! | `redis.url` | `TOKENPOOL_REDIS` | none | `redis[s]://[[user]:password@]host[:port][/db]` or `unix:///path/to/socket`, instead of the addresses, user, password and database above |
//! | `redis.tls` | `TOKENPOOL_REDIS_TLS` | false | TLS to servers and sentinels; `rediss://` says so, too |
//! | `redis.tlsCaFile` | `TOKENPOOL_REDIS_TLS_CA_FILE` | the system's | PEM file with the authorities that servers are verified by |
//! | `redis.tlsCertFile` | `TOKENPOOL_REDIS_TLS_CERT_FILE` | none | PEM file with the client's certificate; needs `tlsKeyFile` |
//! | `redis.tlsKeyFile` | `TOKENPOOL_REDIS_TLS_KEY_FILE` | none | PEM file with its key |
//! | `redis.tlsServerName` | `TOKENPOOL_REDIS_TLS_SERVER_NAME` | the host | name that the servers' certificates must be for |
//! | `redis.connectTimeout` | `TOKENPOOL_REDIS_CONNECT_TIMEOUT` | `5s` | for making a connection; 1 ms to 1 h |
//! | `redis.commandTimeout` | `TOKENPOOL_REDIS_COMMAND_TIMEOUT` | `3s` | for an answer; 1 ms to 1 h |
//! | `redis.totalTimeout` | `TOKENPOOL_REDIS_TOTAL_TIMEOUT` | `10s` | for a call with all its repetitions; 1 ms to 1 h |
//! | `redis.retryPercent` | `TOKENPOOL_REDIS_RETRY_PERCENT` | 20 | most repetitions per hundred calls, over ten seconds; one a second is always free; 0 to 1000 |
//! | `redis.learningPeriod` | `TOKENPOOL_REDIS_LEARNING_PERIOD` | `30s` | how long a pool whose data were lost, or whose server is another one, admits nobody new, so that whoever has a lease can come back first: set it to the longest lease in use; 0 s keeps nobody out; where processes differ the longer may count; at most 1 h |
//! | `redis.learnOnCreation` | `TOKENPOOL_REDIS_LEARN_ON_CREATION` | false | so does every pool or lock that this process uses first and that does not exist, for servers that keep nothing over a restart: there nobody may be left who knows what was lost |
//! | `redis.minReplicas` | `TOKENPOOL_REDIS_MIN_REPLICAS` | 0 | replicas that must have a grant before it is answered, each time by a WAIT; 0 waits for none; at most 16 |
//! | `redis.acknowledgeTimeout` | `TOKENPOOL_REDIS_ACKNOWLEDGE_TIMEOUT` | `1s` | how long they have, after which the grant is given back and the claim an error; 1 ms to 1 h, and with `minReplicas` less than `commandTimeout` |
//! | `redis.connections` | `TOKENPOOL_REDIS_CONNECTIONS` | 1 | connections that all claims share, those of one pool the same; 1 to 64 |
//!
//! Flyte's are `type`, `resourceMaxQuota` and the first five of `redis`. An empty environment variable counts as absent; `TOKENPOOL_REDIS`
//! stands for the addresses, user, password and database of the document, too.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use serde_json::{Map, Value};

#[cfg(feature = "redis")]
use crate::allowance::WithAllowance;
use crate::backend::Backend;
use crate::error::{Error, Result};
use crate::matchable::{AttributeStore, MemoryAttributeStore};
use crate::memory::MemoryBackend;
use crate::noop::NoopBackend;

/// Flyte's `resourceMaxQuota` unless configured.
pub const DEFAULT_MAX_QUOTA: u32 = 1000;

/// Which backend keeps the grants: `type` in the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum BackendType {
    /// Grants everything.
    #[default]
    Noop,
    /// Shares pools within this process.
    Memory,
    /// Shares pools through Redis.
    Redis,
}

/// What a claim is answered while Redis cannot be reached: `onUnavailable` in the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum OnUnavailable {
    /// An error that is retryable: nothing is granted without Redis.
    #[default]
    Refuse,
    /// Units of a local allowance, in each process and for each pool that Redis answered about before, so that more than the
    /// quota may be held. The log says so when it begins and ends, and [`Manager::counters`](crate::Manager::counters) all the
    /// time.
    ///
    /// Such a grant has no fencing number. Claims that wait, locks, and whatever is no claim are not granted: they are errors
    /// as without it. Its lease ends by the clock of this process. When Redis answers again, the next claim of the token, or
    /// the next renewal of its lease, makes it a grant of Redis; if that refuses, the units stay granted locally until they are
    /// released. A release without an answer returns them at once and is still an error: Redis may have granted the token before
    /// its answer was lost.
    Grant,
}

/// The configuration. Its Debug output shows no password.
///
/// # Example
///
/// ```
/// use tokenpool::{BackendType, Config};
///
/// let config = Config::from_yaml("
///   propeller:
///     resourcemanager:
///       type: redis
///       resourceMaxQuota: 500
///       redis:
///         hostPaths: [redis:6379]
///         hostKey: secret
/// ")?;
/// assert_eq!(config.backend_type, BackendType::Redis);
/// assert!(!format!("{config:?}").contains("secret"));
/// # Ok::<(), tokenpool::Error>(())
/// ```
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[non_exhaustive]
pub struct Config {
    /// `type`.
    #[serde(rename = "type")]
    pub backend_type: BackendType,
    /// `resourceMaxQuota`: largest quota of one pool, in units.
    pub resource_max_quota: u32,
    /// `onUnavailable`: what a claim is answered while Redis cannot be reached.
    pub on_unavailable: OnUnavailable,
    /// `localAllowance`: units of each pool that this process may grant by itself then.
    pub local_allowance: u32,
    /// `redis`.
    pub redis: RedisConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            backend_type: BackendType::default(),
            resource_max_quota: DEFAULT_MAX_QUOTA,
            on_unavailable: OnUnavailable::default(),
            local_allowance: 0,
            redis: RedisConfig::default(),
        }
    }
}

/// How to reach Redis. Its Debug output shows no password.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[non_exhaustive]
pub struct RedisConfig {
    /// `hostPaths`: addresses, `host:port`.
    pub host_paths: Vec<String>,
    /// `primaryName`: name of the primary, for Sentinel.
    pub primary_name: String,
    /// `hostPath`: the address when there are no `hostPaths`.
    pub host_path: String,
    /// `hostKey`: the password.
    #[serde(deserialize_with = "secret")]
    pub host_key: Option<SecretString>,
    /// `maxRetries`: how often a call that got no answer is repeated.
    pub max_retries: u32,
    /// `hostUser`: the ACL user, with the password.
    pub host_user: String,
    /// `sentinelUser`: the ACL user on the sentinels.
    pub sentinel_user: String,
    /// `sentinelKey`: the password of the sentinels.
    #[serde(deserialize_with = "secret")]
    pub sentinel_key: Option<SecretString>,
    /// `cluster`: whether the addresses are nodes of a Redis Cluster even if there is but one.
    pub cluster: bool,
    /// `database`: index of the database.
    pub database: u32,
    /// `url`: address, user, password and database in one; secret, because a password may be in it.
    #[serde(deserialize_with = "secret")]
    pub url: Option<SecretString>,
    /// `tls`: whether servers and sentinels are reached over TLS.
    pub tls: bool,
    /// `tlsCaFile`: the authorities that servers are verified by; the system's if empty.
    pub tls_ca_file: PathBuf,
    /// `tlsCertFile`: the client's certificate, if not empty.
    pub tls_cert_file: PathBuf,
    /// `tlsKeyFile`: the key of the client's certificate.
    pub tls_key_file: PathBuf,
    /// `tlsServerName`: the name that the servers' certificates must be for; that of the host if empty.
    pub tls_server_name: String,
    /// `connectTimeout`: for making a connection.
    #[serde(deserialize_with = "duration")]
    pub connect_timeout: Duration,
    /// `commandTimeout`: for an answer.
    #[serde(deserialize_with = "duration")]
    pub command_timeout: Duration,
    /// `totalTimeout`: for a call with all its repetitions.
    #[serde(deserialize_with = "duration")]
    pub total_timeout: Duration,
    /// `retryPercent`: most repetitions per hundred calls.
    pub retry_percent: u32,
    /// `learningPeriod`: how long a pool admits nobody new after data were lost.
    #[serde(deserialize_with = "duration")]
    pub learning_period: Duration,
    /// `learnOnCreation`: whether a pool that this process makes begins so.
    pub learn_on_creation: bool,
    /// `minReplicas`: how many replicas must have a grant before it is answered.
    pub min_replicas: u32,
    /// `acknowledgeTimeout`: how long they have for that.
    #[serde(deserialize_with = "duration")]
    pub acknowledge_timeout: Duration,
    /// `connections`: how many connections all claims share, those of one pool the same.
    pub connections: u32,
}

impl Default for RedisConfig {
    fn default() -> Self {
        Self {
            host_paths: Vec::new(),
            primary_name: String::new(),
            host_path: String::new(),
            host_key: None,
            max_retries: 0,
            host_user: String::new(),
            sentinel_user: String::new(),
            sentinel_key: None,
            cluster: false,
            database: 0,
            url: None,
            tls: false,
            tls_ca_file: PathBuf::new(),
            tls_cert_file: PathBuf::new(),
            tls_key_file: PathBuf::new(),
            tls_server_name: String::new(),
            connect_timeout: Duration::from_secs(5),
            command_timeout: Duration::from_secs(3),
            total_timeout: Duration::from_secs(10),
            retry_percent: 20,
            // The longest lease of all, unless a longer one is asked for.
            learning_period: crate::lock::LEASE,
            learn_on_creation: false,
            min_replicas: 0,
            acknowledge_timeout: Duration::from_secs(1),
            connections: 1,
        }
    }
}

/// How the text of an environment variable becomes a value.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Number,
    List,
    Flag,
}

const MAPPING: &str = "must be a mapping of keys to values";

const REDIS_URL: &str = "TOKENPOOL_REDIS";

/// Keys of `redis` that its `url` stands for.
const ADDRESS_KEYS: [&str; 9] = [
    "hostPaths",
    "hostPath",
    "hostKey",
    "hostUser",
    "primaryName",
    "sentinelUser",
    "sentinelKey",
    "cluster",
    "database",
];

const ENVIRONMENT: [(&str, &[&str], Kind); 29] = [
    ("TOKENPOOL_TYPE", &["type"], Kind::Text),
    ("TOKENPOOL_RESOURCE_MAX_QUOTA", &["resourceMaxQuota"], Kind::Number),
    ("TOKENPOOL_ON_UNAVAILABLE", &["onUnavailable"], Kind::Text),
    ("TOKENPOOL_LOCAL_ALLOWANCE", &["localAllowance"], Kind::Number),
    ("TOKENPOOL_REDIS_HOST_PATHS", &["redis", "hostPaths"], Kind::List),
    ("TOKENPOOL_REDIS_PRIMARY_NAME", &["redis", "primaryName"], Kind::Text),
    ("TOKENPOOL_REDIS_HOST_PATH", &["redis", "hostPath"], Kind::Text),
    ("TOKENPOOL_REDIS_HOST_KEY", &["redis", "hostKey"], Kind::Text),
    ("TOKENPOOL_REDIS_MAX_RETRIES", &["redis", "maxRetries"], Kind::Number),
    ("TOKENPOOL_REDIS_HOST_USER", &["redis", "hostUser"], Kind::Text),
    ("TOKENPOOL_REDIS_SENTINEL_USER", &["redis", "sentinelUser"], Kind::Text),
    ("TOKENPOOL_REDIS_SENTINEL_KEY", &["redis", "sentinelKey"], Kind::Text),
    ("TOKENPOOL_REDIS_CLUSTER", &["redis", "cluster"], Kind::Flag),
    ("TOKENPOOL_REDIS_DATABASE", &["redis", "database"], Kind::Number),
    (REDIS_URL, &["redis", "url"], Kind::Text),
    ("TOKENPOOL_REDIS_TLS", &["redis", "tls"], Kind::Flag),
    ("TOKENPOOL_REDIS_TLS_CA_FILE", &["redis", "tlsCaFile"], Kind::Text),
    ("TOKENPOOL_REDIS_TLS_CERT_FILE", &["redis", "tlsCertFile"], Kind::Text),
    ("TOKENPOOL_REDIS_TLS_KEY_FILE", &["redis", "tlsKeyFile"], Kind::Text),
    ("TOKENPOOL_REDIS_TLS_SERVER_NAME", &["redis", "tlsServerName"], Kind::Text),
    ("TOKENPOOL_REDIS_CONNECT_TIMEOUT", &["redis", "connectTimeout"], Kind::Text),
    ("TOKENPOOL_REDIS_COMMAND_TIMEOUT", &["redis", "commandTimeout"], Kind::Text),
    ("TOKENPOOL_REDIS_TOTAL_TIMEOUT", &["redis", "totalTimeout"], Kind::Text),
    ("TOKENPOOL_REDIS_RETRY_PERCENT", &["redis", "retryPercent"], Kind::Number),
    ("TOKENPOOL_REDIS_LEARNING_PERIOD", &["redis", "learningPeriod"], Kind::Text),
    ("TOKENPOOL_REDIS_LEARN_ON_CREATION", &["redis", "learnOnCreation"], Kind::Flag),
    ("TOKENPOOL_REDIS_MIN_REPLICAS", &["redis", "minReplicas"], Kind::Number),
    ("TOKENPOOL_REDIS_ACKNOWLEDGE_TIMEOUT", &["redis", "acknowledgeTimeout"], Kind::Text),
    ("TOKENPOOL_REDIS_CONNECTIONS", &["redis", "connections"], Kind::Number),
];

impl Config {
    /// Parses a document, without looking at the environment.
    ///
    /// # Errors
    ///
    /// [`Error::Configuration`] names the key and what is allowed: an unknown key or type, a wrong
    /// value, or keys that contradict each other.
    pub fn from_yaml(text: &str) -> Result<Self> {
        Self::from_parts(text, |_| None)
    }

    /// Reads a file and lays the environment of this process over it.
    ///
    /// # Errors
    ///
    /// [`Error::Configuration`] names the file if it cannot be read; else as
    /// [`from_yaml`](Self::from_yaml), where the key may be an environment variable's name.
    pub fn from_file(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|error| Error::Configuration {
            key: path.display().to_string(),
            problem: format!("cannot be read: {error}"),
        })?;
        Self::from_parts(&text, environment)
    }

    /// The defaults with the environment of this process laid over them.
    ///
    /// # Errors
    ///
    /// As [`from_file`](Self::from_file).
    pub fn from_env() -> Result<Self> {
        Self::from_parts("", environment)
    }

    /// The defaults with Redis at this address: `redis[s]://[[user]:password@]host[:port][/db]` or
    /// `unix:///path/to/socket`.
    ///
    /// # Errors
    ///
    /// As [`from_yaml`](Self::from_yaml).
    pub fn redis_at(url: impl Into<SecretString>) -> Result<Self> {
        let redis = RedisConfig { url: Some(url.into()), ..RedisConfig::default() };
        Self { backend_type: BackendType::Redis, redis, ..Self::default() }.checked("")
    }

    fn from_parts(text: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let (section, mut values) = section(text)?;
        match values.get("redis") {
            None | Some(Value::Object(_)) => {}
            Some(Value::Null) => drop(values.remove("redis")),
            Some(_) => {
                let key = join(section, "redis");
                return Err(Error::Configuration { key, problem: MAPPING.to_owned() });
            }
        }
        if is_set(&variable, REDIS_URL) {
            // It stands instead of the document's address, as every variable does for its key.
            if let Some(Value::Object(redis)) = values.get_mut("redis") {
                redis.retain(|key, _| !ADDRESS_KEYS.contains(&key.as_str()));
            }
        }
        let mut from_environment = Vec::new();
        for (name, path, kind) in ENVIRONMENT {
            if let Some(text) = variable(name).filter(|text| !text.is_empty()) {
                insert(&mut values, path, value(&text, kind));
                from_environment.push((path.join("."), name));
            }
        }
        let config: Self =
            serde_path_to_error::deserialize(Value::Object(values)).map_err(|error| {
                let path = error.path().to_string();
                let problem = error.into_inner().to_string();
                let variable = from_environment.iter().find(|(key, _)| *key == path);
                let key = match variable {
                    Some((_, name)) => (*name).to_owned(),
                    None if path == "." && section.is_empty() => "top level".to_owned(),
                    None if path == "." => section.to_owned(),
                    None => join(section, &path),
                };
                Error::Configuration { key, problem }
            })?;
        config.checked(section)
    }

    /// Opens the backend that `type` names.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] if Redis cannot be reached in time; [`Error::Configuration`] if this
    /// build lacks the backend.
    ///
    /// # Cancel safety
    ///
    /// Nothing is left behind if the future is dropped.
    pub async fn open(&self) -> Result<Arc<dyn Backend>> {
        Ok(match self.backend_type {
            BackendType::Noop => Arc::new(NoopBackend::new()),
            BackendType::Memory => Arc::new(MemoryBackend::new()),
            #[cfg(feature = "redis")]
            BackendType::Redis => {
                let backend = Arc::new(crate::redis::RedisBackend::connect(&self.redis).await?);
                match self.on_unavailable {
                    OnUnavailable::Refuse => backend,
                    OnUnavailable::Grant => {
                        Arc::new(WithAllowance::new(backend, self.local_allowance))
                    }
                }
            }
            #[cfg(not(feature = "redis"))]
            BackendType::Redis => return Err(without_redis()),
        })
    }

    /// Opens a store of attributes where the backend that `type` names keeps its pools; in the process, if that keeps none.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    ///
    /// # Cancel safety
    ///
    /// Nothing is left behind if the future is dropped.
    pub async fn open_attributes(&self) -> Result<Arc<dyn AttributeStore>> {
        Ok(match self.backend_type {
            BackendType::Noop | BackendType::Memory => Arc::new(MemoryAttributeStore::new()),
            #[cfg(feature = "redis")]
            BackendType::Redis => {
                Arc::new(crate::redis::RedisAttributeStore::connect(&self.redis).await?)
            }
            #[cfg(not(feature = "redis"))]
            BackendType::Redis => return Err(without_redis()),
        })
    }

    fn checked(self, section: &str) -> Result<Self> {
        let redis = &self.redis;
        let wrong = |key: &str, problem: &str| {
            let key = join(section, key);
            Err(Error::Configuration { key, problem: problem.to_owned() })
        };
        let limit = Duration::from_millis(1)..=Duration::from_secs(3600);
        if self.resource_max_quota == 0 {
            return wrong("resourceMaxQuota", "must be at least 1");
        }
        match self.on_unavailable {
            OnUnavailable::Grant
                if !(1..=self.resource_max_quota).contains(&self.local_allowance) =>
            {
                return wrong("localAllowance", "must be between 1 and resourceMaxQuota");
            }
            OnUnavailable::Refuse if self.local_allowance > 0 => {
                return wrong("localAllowance", "needs onUnavailable: grant");
            }
            _ => {}
        }
        let is_elsewhere = !redis.host_paths.is_empty()
            || !redis.host_path.is_empty()
            || redis.host_key.is_some()
            || !redis.host_user.is_empty()
            || !redis.primary_name.is_empty()
            || !redis.sentinel_user.is_empty()
            || redis.sentinel_key.is_some()
            || redis.cluster
            || redis.database != 0;
        if redis.url.is_some() && is_elsewhere {
            return wrong(
                "redis.url",
                "stands instead of hostPaths, hostPath, hostKey, hostUser, primaryName, sentinelUser, sentinelKey, cluster and database; give one",
            );
        }
        if redis.max_retries > 100 {
            return wrong("redis.maxRetries", "must be at most 100");
        }
        for (key, duration) in [
            ("redis.connectTimeout", redis.connect_timeout),
            ("redis.commandTimeout", redis.command_timeout),
            ("redis.totalTimeout", redis.total_timeout),
            ("redis.acknowledgeTimeout", redis.acknowledge_timeout),
        ] {
            if !limit.contains(&duration) {
                return wrong(key, "must be between 1ms and 1h");
            }
        }
        if redis.min_replicas > 16 {
            return wrong("redis.minReplicas", "must be at most 16");
        }
        if redis.min_replicas > 0 && redis.acknowledge_timeout >= redis.command_timeout {
            return wrong("redis.acknowledgeTimeout", "must be less than commandTimeout");
        }
        if redis.retry_percent > 1000 {
            return wrong("redis.retryPercent", "must be at most 1000");
        }
        if redis.learning_period > Duration::from_secs(3600) {
            return wrong("redis.learningPeriod", "must be at most 1h");
        }
        if redis.learn_on_creation && redis.learning_period.is_zero() {
            return wrong("redis.learnOnCreation", "needs redis.learningPeriod");
        }
        if !(1..=64).contains(&redis.connections) {
            return wrong("redis.connections", "must be between 1 and 64");
        }
        #[cfg(feature = "redis")]
        if let Err((key, problem)) = crate::redis::check_address(redis) {
            return wrong(key, problem);
        }
        Ok(self)
    }
}

#[cfg(not(feature = "redis"))]
fn without_redis() -> Error {
    let problem = "redis is not in this build; allowed are noop and memory".to_owned();
    Error::Configuration { key: "type".to_owned(), problem }
}

fn is_set(variable: impl Fn(&str) -> Option<String>, name: &str) -> bool {
    variable(name).is_some_and(|text| !text.is_empty())
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn join(section: &str, key: &str) -> String {
    if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") }
}

/// The section of a document that is about this library, and where it stands.
fn section(text: &str) -> Result<(&'static str, Map<String, Value>)> {
    let wrong = |key: &str, problem: String| Error::Configuration { key: key.to_owned(), problem };
    // The parser's own words quote the text, in which there may be a password.
    let document: Value = serde_saphyr::from_str(text).map_err(|error| {
        let place = error.location().map_or_else(String::new, |location| {
            format!(" at line {}, column {}", location.line(), location.column())
        });
        wrong("document", format!("not well-formed YAML, or a key twice{place}"))
    })?;
    let mut document = match document {
        Value::Null => Map::new(),
        Value::Object(map) => map,
        _ => return Err(wrong("document", MAPPING.to_owned())),
    };
    let nested = match document.get_mut("propeller") {
        Some(Value::Object(propeller)) => propeller.remove("resourcemanager"),
        _ => None,
    };
    let (section, values) = match (nested, document.remove("resourcemanager")) {
        (Some(_), Some(_)) => {
            let problem = "stands at propeller.resourcemanager, too; give one".to_owned();
            return Err(wrong("resourcemanager", problem));
        }
        (Some(nested), None) => ("propeller.resourcemanager", nested),
        (None, Some(values)) => ("resourcemanager", values),
        (None, None) => ("", Value::Object(document)),
    };
    match values {
        Value::Object(values) => Ok((section, values)),
        Value::Null => Ok((section, Map::new())),
        _ => Err(wrong(section, MAPPING.to_owned())),
    }
}

fn value(text: &str, kind: Kind) -> Value {
    match kind {
        Kind::Number => text.parse().map_or_else(|_| text.into(), |number: u64| number.into()),
        Kind::List => text.split(',').map(str::trim).collect(),
        Kind::Flag => text.parse().map_or_else(|_| text.into(), |flag: bool| flag.into()),
        Kind::Text => text.into(),
    }
}

fn insert(values: &mut Map<String, Value>, path: &[&str], value: Value) {
    match path {
        [] => {}
        [key] => drop(values.insert((*key).to_owned(), value)),
        [key, rest @ ..] => {
            let inner = values.entry(*key).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let Value::String(text) = Value::deserialize(deserializer)? else {
        return Err(D::Error::custom("must be a duration like 500ms or 5s"));
    };
    humantime::parse_duration(&text).map_err(|error| {
        D::Error::custom(format_args!("{text:?} is not a duration like 500ms or 5s: {error}"))
    })
}

/// A secret, whose value no error repeats. Empty counts as absent, as in Flyte.
fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SecretString>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(None),
        Value::String(text) if text.is_empty() => Ok(None),
        Value::String(text) => Ok(Some(text.into())),
        _ => Err(D::Error::custom("must be a string; put it in quotes")),
    }
}

#[cfg(test)]
mod tests;
