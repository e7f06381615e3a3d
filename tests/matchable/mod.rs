//! Attributes by path.

/// Runs cases on every store, each with what is made of a fixture. A case that is not listed is reported as unused.
macro_rules! every_store {
    ($make:path => $($case:ident),* $(,)?) => {
        every_store!(memory, $make, $($case),*);
        every_store!(redis, $make, $($case),*);
    };
    ($store:ident, $make:path, $($case:ident),*) => {
        mod $store {
            $(#[tokio::test]
            async fn $case() {
                let fixture = crate::matchable::$store().await;
                super::$case($make(fixture).await).await;
            })*
        }
    };
}

/// Look-ups answered from memory.
mod cache;
/// What Flyte's own tests assert.
mod flyte;
/// What a look-up finds, for every place where something may be set.
mod lookup;
/// What operators set for pools, applied to claims.
mod rules;
/// Random sequences of operations on both stores, against a map.
mod sequences;
/// What every store must do, one test for each case and store.
mod stores;
/// What Redis holds, to the byte, and what others may have left there.
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokenpool::matchable::{
    AttributePath, AttributeStore, Attributes, AttributesOf, Expected, InvalidField,
    MatchableResource, MemoryAttributeStore,
};
use tokenpool::{Config, Holder};

use crate::support::server::Server;

/// A kind that replaces, as most do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WorkflowPriority {
    pub(crate) priority: i64,
}

impl MatchableResource for WorkflowPriority {
    const NAME: &'static str = "WORKFLOW_PRIORITY";
    const NUMBER: Option<u32> = Some(10);

    fn validate(&self) -> Result<(), InvalidField> {
        InvalidField::unless(self.priority >= 0, "priority", self.priority, "must not be negative")
    }
}

/// A kind that merges, also when it is updated.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Overlay(pub(crate) BTreeMap<String, String>);

impl MatchableResource for Overlay {
    const NAME: &'static str = "OVERLAY";
    const UPDATES_MERGE: bool = true;

    fn validate(&self) -> Result<(), InvalidField> {
        InvalidField::unless(!self.0.contains_key(""), "", "", "must not have an empty key")
    }

    fn merge(self, below: Self) -> Self {
        let mut merged = below.0;
        merged.extend(self.0);
        Self(merged)
    }
}

pub(crate) fn priority(priority: i64) -> WorkflowPriority {
    WorkflowPriority { priority }
}

pub(crate) fn overlay(pairs: &[(&str, &str)]) -> Overlay {
    Overlay(pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect())
}

/// The path with this text.
pub(crate) fn at(text: &str) -> AttributePath {
    text.parse().unwrap()
}

/// A store under test and what it needs.
#[derive(Debug)]
pub(crate) struct Fixture {
    pub(crate) store: Arc<dyn AttributeStore>,
    server: Option<Server>,
}

pub(crate) async fn memory() -> Fixture {
    Fixture { store: Arc::new(MemoryAttributeStore::new()), server: None }
}

pub(crate) async fn redis() -> Fixture {
    let server = Server::start();
    Fixture { store: connect(&server.url()).await, server: Some(server) }
}

pub(crate) async fn connect(url: &str) -> Arc<dyn AttributeStore> {
    let config = Config::redis_at(url).unwrap();
    config.open_attributes().await.unwrap()
}

pub(crate) fn holder(name: &str) -> Holder {
    Holder::new(name).unwrap()
}

impl Fixture {
    /// Address of the server.
    pub(crate) fn url(&self) -> String {
        self.server.as_ref().unwrap().url()
    }

    /// Nothing is stored any more.
    pub(crate) fn empty(&mut self) {
        match &self.server {
            Some(server) => redis::cmd("FLUSHALL").exec(&mut server.raw()).unwrap(),
            None => self.store = Arc::new(MemoryAttributeStore::new()),
        }
    }

    /// Attributes as a process without a cache sees them.
    pub(crate) fn of<K: MatchableResource>(&self) -> AttributesOf<K> {
        self.written_by("test")
    }

    pub(crate) fn written_by<K: MatchableResource>(&self, by: &str) -> AttributesOf<K> {
        Attributes::new(Arc::clone(&self.store), holder(by)).of()
    }

    pub(crate) fn raw(&self) -> redis::Connection {
        self.server.as_ref().unwrap().raw()
    }
}

/// Sets a priority at the path with this text.
pub(crate) async fn set(
    attributes: &AttributesOf<WorkflowPriority>,
    path: &str,
    value: i64,
) -> u64 {
    attributes.update(&at(path), priority(value), Expected::Any).await.unwrap().version
}
