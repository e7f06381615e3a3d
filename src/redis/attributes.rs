//! The store of attributes in Redis, in the schema of `lua/README.md`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use redis::{RedisError, Value};
use tokio::time::Instant;

use super::connect::{Connections, Lane};
use super::keys::{ATTRIBUTES, AttributeKeys, KINDS};
use super::remote::{command_on_set, unexpected, wrong_type};
use super::reply::{Answer, Fields, parse_attributes};
use super::scripts::{ATTRIBUTE_HISTORY, Call, LIST_ATTRIBUTES, WRITE_ATTRIBUTES};
use super::tracking;
use crate::config::RedisConfig;
use crate::error::Result;
use crate::matchable::{
    AttributePath, AttributeStore, Damaged, Expected, Filter, KEPT_VERSIONS, KindName, PageStart,
    RecordsPage, Stored, Watch, Watcher, Write, Written,
};

/// Paths to a page, and bytes after which it ends, so that none keeps the server busy for more than a few milliseconds.
const MAX_PAGE: usize = 1000;
const PAGE_BYTES: usize = 1 << 20;

/// Keeps attributes in Redis, where all processes share them.
///
/// A look-up is one HMGET on connections that all calls share.
#[derive(Debug)]
pub struct RedisAttributeStore {
    connections: Arc<Connections>,
}

impl RedisAttributeStore {
    /// Connects to the server.
    ///
    /// # Errors
    ///
    /// As [`RedisBackend::connect`](crate::RedisBackend::connect).
    ///
    /// # Cancel safety
    ///
    /// Nothing is left behind if the future is dropped.
    pub async fn connect(config: &RedisConfig) -> Result<Self> {
        Ok(Self::on(Arc::new(Connections::open(config).await?)))
    }

    pub(super) fn on(connections: Arc<Connections>) -> Self {
        Self { connections }
    }

    async fn call(&self, keys: &AttributeKeys, call: &Call) -> Result<Value> {
        let ends = self.connections.deadline();
        match call.send(&self.connections, keys.slot(), ends).await {
            Ok(reply) => Ok(reply),
            Err(error) => Err(self.error(keys, call.operation(), error, ends).await),
        }
    }

    /// The error of a failed call; where a key has the wrong type, it says which.
    async fn error(
        &self,
        keys: &AttributeKeys,
        operation: &'static str,
        error: RedisError,
        ends: Instant,
    ) -> crate::Error {
        if error.to_string().contains("WRONGTYPE") {
            for (key, expected) in keys.types() {
                if let Some(wrong) = wrong_type(&self.connections, key, expected, ends).await {
                    return wrong;
                }
            }
        }
        self.connections.error(operation, error)
    }

    /// A command on the list of kinds.
    async fn list_of_kinds(&self, command: &'static str, member: Option<&str>) -> Result<Value> {
        command_on_set(&self.connections, command, KINDS, member).await
    }
}

#[async_trait]
impl AttributeStore for RedisAttributeStore {
    async fn read(&self, kind: &KindName, paths: &[&str]) -> Result<Vec<Option<Stored>>> {
        let (operation, keys) = ("look up attributes", AttributeKeys::new(kind));
        let mut cmd = redis::Cmd::with_capacity(2 + paths.len(), 256);
        cmd.arg("HMGET").arg(&keys.records).arg(paths);
        let ends = self.connections.deadline();
        let reply = match self.connections.call(Lane::Shared, keys.slot(), &cmd, ends).await {
            Ok(reply) => reply,
            Err(error) => return Err(self.error(&keys, operation, error, ends).await),
        };
        let texts = redis::from_redis_value::<Vec<Option<Vec<u8>>>>(reply)
            .map_err(|error| unexpected(operation, error))?;
        let stored = |text: Vec<u8>| parse_attributes(&text);
        Ok(texts.into_iter().map(|text| text.map(stored)).collect())
    }

    async fn write(
        &self,
        kind: &KindName,
        path: &AttributePath,
        Write { value, expected, by }: Write<'_>,
    ) -> Result<Written> {
        let keys = AttributeKeys::new(kind);
        if value.is_some() {
            // First, so that nothing is stored under a kind that is not listed.
            self.list_of_kinds("SADD", Some(kind.as_str())).await?;
        }
        let expected = match expected {
            Expected::Any => String::new(),
            Expected::Absent => "-".to_owned(),
            Expected::Version(version) => version.to_string(),
        };
        let mut call = WRITE_ATTRIBUTES.on(&[&keys.records, &keys.paths, &keys.history]);
        call.arg(path.as_str()).arg(expected).arg(KEPT_VERSIONS).arg(by.as_str());
        call.arg(value.unwrap_or_default());
        let reply = self.call(&keys, &call).await?;
        if let Some(Answer::Stale { found }) = Answer::from_value(&reply) {
            return Ok(Written::Stale { found });
        }
        let wrong = unexpected(call.operation(), &reply);
        read_written(reply).ok_or(wrong)
    }

    async fn list(
        &self,
        kind: &KindName,
        filter: &Filter,
        from: Option<&PageStart>,
        count: usize,
    ) -> Result<RecordsPage> {
        let keys = AttributeKeys::new(kind);
        let Range { own, from, to, domain } = Range::of(filter, from);
        let mut call = LIST_ATTRIBUTES.on(&[&keys.records, &keys.paths]);
        call.arg(own).arg(from).arg(to).arg(domain).arg(count.clamp(1, MAX_PAGE)).arg(PAGE_BYTES);
        let reply = self.call(&keys, &call).await?;
        let wrong = unexpected(call.operation(), &reply);
        read_page(reply).ok_or(wrong)
    }

    async fn history(&self, kind: &KindName, path: &AttributePath) -> Result<Vec<Stored>> {
        let keys = AttributeKeys::new(kind);
        let mut call = ATTRIBUTE_HISTORY.on(&[&keys.records, &keys.history]);
        call.arg(path.as_str()).arg(KEPT_VERSIONS);
        let reply = self.call(&keys, &call).await?;
        let wrong = unexpected(call.operation(), &reply);
        let mut fields = Fields::new(reply).ok_or(wrong)?;
        Ok(std::iter::from_fn(|| Some(parse_attributes(&fields.bytes()?))).collect())
    }

    async fn kinds(&self) -> Result<Vec<KindName>> {
        let command = "SMEMBERS";
        let names: Vec<String> = redis::from_redis_value(self.list_of_kinds(command, None).await?)
            .map_err(|error| unexpected(command, error))?;
        let mut kinds: Vec<_> =
            names.into_iter().filter_map(|name| KindName::new(name).ok()).collect();
        kinds.sort_unstable();
        Ok(kinds)
    }

    async fn watch(&self, watcher: Arc<Watcher>, confirm_every: Duration) -> Result<Watch> {
        let watch = tracking::start(&self.connections, ATTRIBUTES, watcher, confirm_every).await;
        watch.map_err(|error| self.connections.error("watch attributes", error))
    }
}

/// What of the ordered paths a filter admits.
#[derive(Debug, PartialEq, Eq)]
struct Range {
    own: String,
    from: Vec<u8>,
    to: String,
    domain: String,
}

impl Range {
    fn of(filter: &Filter, start: Option<&PageStart>) -> Self {
        let start = start.map(PageStart::as_bytes);
        let after = |text: &[u8]| [b"(", text].concat();
        let (project, domain) = (filter.project_name(), filter.domain_name());
        let own = match (project, domain) {
            (Some(project), Some(domain)) => format!("{project}:{domain}"),
            (Some(project), None) => project.to_owned(),
            (None, domain) => {
                let from = start.map_or_else(|| b"-".to_vec(), after);
                let domain = domain.unwrap_or_default().to_owned();
                return Self { own: String::new(), from, to: "+".to_owned(), domain };
            }
        };
        // Below it is what begins with its text and a `:`, which `;` follows.
        let (below, to) = (format!("[{own}:").into_bytes(), format!("({own};"));
        let (own, from) = match start {
            None => (own, below),
            Some(text) if text == own.as_bytes() => (String::new(), below),
            Some(text) => (String::new(), after(text)),
        };
        Self { own, from, to, domain: String::new() }
    }
}

fn read_written(reply: Value) -> Option<Written> {
    let mut fields = Fields::new(reply)?;
    let version = fields.optional_number()?;
    let before = Some(fields.bytes()?).filter(|bytes| !bytes.is_empty());
    Some(Written::Done { version, before: before.map(|bytes| parse_attributes(&bytes)) })
}

fn read_page(reply: Value) -> Option<RecordsPage> {
    let mut fields = Fields::new(reply)?;
    let next = Some(fields.bytes()?).filter(|bytes| !bytes.is_empty()).map(PageStart::after);
    let mut page = RecordsPage { records: Vec::new(), next };
    while let Some(path) = fields.bytes() {
        let record = fields.bytes()?;
        page.records.push(match String::from_utf8(path) {
            Ok(path) => (path, parse_attributes(&record)),
            // No path, whatever the record is.
            Err(error) => {
                let shown = String::from_utf8_lossy(error.as_bytes()).into_owned();
                (shown.clone(), Err(Damaged::new(shown)))
            }
        });
    }
    Some(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_a_range_of_paths() -> Result<()> {
        let range = |own: &str, from: &str, to: &str, domain: &str| {
            let [own, to, domain] = [own, to, domain].map(str::to_owned);
            Range { own, from: from.as_bytes().to_vec(), to, domain }
        };
        let after = |text: &str| PageStart::after(text);
        let project = Filter::ALL.project("p")?;
        let both = Filter::ALL.project("p")?.domain("d")?;
        let domain = Filter::ALL.domain("d")?;
        let cases = [
            (Filter::ALL, None, range("", "-", "+", "")),
            (Filter::ALL, Some("p:d"), range("", "(p:d", "+", "")),
            (project.clone(), None, range("p", "[p:", "(p;", "")),
            (project.clone(), Some("p"), range("", "[p:", "(p;", "")),
            (project, Some("p:d"), range("", "(p:d", "(p;", "")),
            (both, None, range("p:d", "[p:d:", "(p:d;", "")),
            (domain, Some(":d"), range("", "(:d", "+", "d")),
        ];
        for (filter, start, expected) in cases {
            assert_eq!(Range::of(&filter, start.map(after).as_ref()), expected);
        }
        Ok(())
    }
}
