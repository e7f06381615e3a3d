//! Storing and looking up attributes of a kind.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use backon::{ExponentialBuilder, Retryable};
use serde::Serialize;

use super::cache::{Cache, CacheConfig};
use super::kind::{InvalidField, Kind, KindName, MatchableResource};
use super::path::AttributePath;
use super::provenance::{self, Sources};
use super::record::{Record, Stored};
use super::store::{
    AttributeStore, Expected, Filter, PageStart, Write, Written, check_length, version_of,
};
use super::watcher::{Watch, Watcher};
use crate::error::{Error, Result};
use crate::name::Holder;

/// A merged update that others overtake is tried again after such a time, with jitter: of those that meet one succeeds each
/// time, and without it that could be the others for ever.
const MERGE_DELAY: Duration = Duration::from_millis(1);
const LONGEST_MERGE_DELAY: Duration = Duration::from_millis(100);
/// How often it is tried: for 10 to 20 seconds.
const MERGE_ATTEMPTS: usize = 100;

/// Attributes of all kinds in one store, as one process sees and writes them. A clone is a handle to the same.
///
/// # Example
///
/// ```
/// # use std::sync::Arc;
/// use tokenpool::Holder;
/// use tokenpool::matchable::{
///     AttributePath, Attributes, ExecutionQueueAttributes, Expected, MemoryAttributeStore,
/// };
///
/// # tokio_test::block_on(async {
/// let store = Arc::new(MemoryAttributeStore::new());
/// let queues = Attributes::new(store, Holder::of_this_process()).of::<ExecutionQueueAttributes>();
/// let domain = AttributePath::project_domain("billing", "production")?;
/// let critical = ExecutionQueueAttributes { tags: vec!["critical".to_owned()] };
/// queues.update(&domain, critical.clone(), Expected::Any).await?;
///
/// let workflow = AttributePath::workflow("billing", "production", "app.reports.nightly")?;
/// let found = queues.get_resource(&workflow).await?;
/// assert_eq!((&found.value, &found.path), (&critical, &domain));
/// # Ok::<(), tokenpool::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct Attributes(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Arc<dyn AttributeStore>,
    by: Holder,
    cached: Option<Cached>,
}

#[derive(Debug)]
struct Cached {
    config: CacheConfig,
    watcher: Arc<Watcher>,
    _watch: Watch,
}

impl Cached {
    fn cache<V>(&self, kind: &KindName) -> Cache<V> {
        Cache::new(self.config, Arc::clone(&self.watcher), kind)
    }
}

impl Attributes {
    /// The attributes in a store, written in the name of `by`. Every look-up asks the store.
    pub fn new(store: Arc<dyn AttributeStore>, by: Holder) -> Self {
        Self(Arc::new(Inner { store, by, cached: None }))
    }

    /// The same, where look-ups are answered from memory while nothing changed.
    ///
    /// Changes are heard of on the runtime that this is called on. Once that ends, look-ups ask the store, and
    /// [`changed`](AttributesOf::changed) never ends.
    ///
    /// # Errors
    ///
    /// Retryable errors if the store cannot be watched.
    ///
    /// # Cancel safety
    ///
    /// Nothing is left behind if the future is dropped.
    pub async fn cached(
        store: Arc<dyn AttributeStore>,
        by: Holder,
        config: CacheConfig,
    ) -> Result<Self> {
        let watcher = Arc::new(Watcher::default());
        let watch = store.watch(Arc::clone(&watcher), config.confirm_every()).await?;
        Ok(Self(Arc::new(Inner {
            store,
            by,
            cached: Some(Cached { config, watcher, _watch: watch }),
        })))
    }

    /// Those of a kind. Keep what this returns: each has a cache of its own.
    pub fn of<K: MatchableResource>(&self) -> AttributesOf<K> {
        self.of_kind(Kind::of())
    }

    /// Those of a kind that is known at run time.
    pub fn of_kind<T: Clone + Serialize + Send + Sync + 'static>(
        &self,
        kind: Kind<T>,
    ) -> AttributesOf<T> {
        let cached = self.0.cached.as_ref();
        let found = cached.map(|cached| cached.cache(kind.name()));
        let resolved = cached.map(|cached| cached.cache(kind.name()));
        AttributesOf(Arc::new(OfKind { all: self.clone(), kind, found, resolved }))
    }

    /// The kinds that were ever written, in order.
    ///
    /// # Errors
    ///
    /// Retryable errors if the store does not answer.
    ///
    /// # Cancel safety
    ///
    /// Nothing changes.
    pub async fn kinds(&self) -> Result<Vec<KindName>> {
        self.0.store.kinds().await
    }
}

/// Attributes of one kind. A clone is a handle to the same, with the same cache.
pub struct AttributesOf<T>(Arc<OfKind<T>>);

struct OfKind<T> {
    all: Attributes,
    kind: Kind<T>,
    found: Option<Cache<Found<T>>>,
    resolved: Option<Cache<Resolution<T>>>,
}

/// Attributes and where they were found.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Found<T> {
    /// The attributes.
    pub value: T,
    /// Where they are set: what was asked for, or a place above it.
    pub path: AttributePath,
    /// Their version.
    pub version: u64,
    /// When they were set, by the store's clock, in milliseconds.
    pub at: SystemTime,
    /// Who set them.
    pub by: String,
}

/// The answer to a look-up, and whose it is.
#[derive(Debug, PartialEq)]
#[non_exhaustive]
pub struct LookedUp<V> {
    /// What was found.
    pub found: Arc<V>,
    /// Who answered.
    pub answered_by: AnsweredBy,
}

/// Who answered a look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AnsweredBy {
    /// The store: nothing was cached, or it had changed.
    Store,
    /// The cache, which was sure that it missed no change for longer than the configured staleness.
    Cache,
    /// The store, because the cache could not be sure.
    StoreForCertainty,
}

impl<V> Clone for LookedUp<V> {
    fn clone(&self) -> Self {
        Self { found: Arc::clone(&self.found), ..*self }
    }
}

impl<V> Deref for LookedUp<V> {
    type Target = V;

    fn deref(&self) -> &V {
        &self.found
    }
}

/// What is set at every place that a look-up reaches.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Resolution<T> {
    /// What is set, the most specific first. That is what [`AttributesOf::get_resource`] finds.
    pub levels: Vec<Found<T>>,
    /// All of it merged, as the kind merges.
    pub merged: T,
    /// Where each field of `merged` comes from, by its JSON pointer.
    pub sources: BTreeMap<String, AttributePath>,
}

/// What a write left.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Updated<T> {
    /// The version from now on.
    pub version: u64,
    /// What is stored now: merged, where updates of the kind are.
    pub value: T,
}

/// A page of a listing.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct AttributesPage<T> {
    /// What is set, in the order of the paths' texts.
    pub found: Vec<Found<T>>,
    /// What is there but cannot be read, and why.
    pub unreadable: Vec<Unreadable>,
    /// Where the next page begins; none if this is the last.
    pub next: Option<PageStart>,
}

/// A stored record that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unreadable {
    /// The text of its path.
    pub path: String,
    /// Its version, if that can be read.
    pub version: Option<u64>,
    /// Why it cannot be read.
    pub problem: String,
}

/// A version that a path has or had.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Version<T> {
    /// Its number; 0 for a record that is damaged.
    pub version: u64,
    /// When it was written.
    pub at: SystemTime,
    /// Who wrote it.
    pub by: String,
    /// What it was, or why that cannot be read; none where it is the deletion.
    pub value: Option<Result<T, String>>,
}

impl<T: Clone + Serialize + Send + Sync + 'static> AttributesOf<T> {
    /// The kind.
    pub fn kind(&self) -> &Kind<T> {
        &self.0.kind
    }

    /// Looks up: the attributes of this place, or else of the most specific place above it that has any; last of all those
    /// of the domain of every project.
    ///
    /// One command, and none where the cache is sure.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if nothing is set at any of those places; [`Error::Unreadable`] if what would win cannot be
    /// read; retryable errors if the store does not answer.
    ///
    /// # Cancel safety
    ///
    /// Nothing changes.
    pub async fn get_resource(&self, path: &AttributePath) -> Result<LookedUp<Found<T>>> {
        let look_up = || self.look_up(path);
        self.answer(path, self.0.found.as_ref(), look_up).await
    }

    /// From the cache if that is sure, else from the store.
    async fn answer<V, F>(
        &self,
        path: &AttributePath,
        cache: Option<&Cache<V>>,
        look_up: impl FnOnce() -> F,
    ) -> Result<LookedUp<V>>
    where
        F: Future<Output = Result<Option<Arc<V>>>>,
    {
        let (found, answered_by) = match cache {
            None => (look_up().await?, AnsweredBy::Store),
            Some(cache) => cache.get(path, look_up).await?,
        };
        match found {
            Some(found) => Ok(LookedUp { found, answered_by }),
            None => Err(self.not_found(path)),
        }
    }

    async fn look_up(&self, path: &AttributePath) -> Result<Option<Arc<Found<T>>>> {
        let texts: Vec<_> = path.fallbacks().collect();
        let stored = self.store().read(self.kind().name(), &texts).await?;
        let first = texts.into_iter().zip(stored).find_map(|(text, stored)| Some((text, stored?)));
        first.map(|(text, stored)| self.read(text, stored).map(Arc::new)).transpose()
    }

    /// The attributes of exactly this place.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if nothing is set there; else as [`get_resource`](Self::get_resource).
    ///
    /// # Cancel safety
    ///
    /// Nothing changes.
    pub async fn get_exact(&self, path: &AttributePath) -> Result<Found<T>> {
        match self.stored(path).await? {
            Some(stored) => self.read(path.as_str(), stored),
            None => Err(self.not_found(path)),
        }
    }

    /// What is set at every place that a look-up of this one reaches, and all of it merged. As [`get_resource`](Self::get_resource), one
    /// command, and none where the cache is sure.
    ///
    /// # Errors
    ///
    /// As [`get_resource`](Self::get_resource), where every place has to be readable.
    ///
    /// # Cancel safety
    ///
    /// Nothing changes.
    pub async fn resolve(&self, path: &AttributePath) -> Result<LookedUp<Resolution<T>>> {
        let look_up = || self.look_up_all(path);
        self.answer(path, self.0.resolved.as_ref(), look_up).await
    }

    async fn look_up_all(&self, path: &AttributePath) -> Result<Option<Arc<Resolution<T>>>> {
        let texts: Vec<_> = path.fallbacks().collect();
        let stored = self.store().read(self.kind().name(), &texts).await?;
        let levels =
            texts.into_iter().zip(stored).filter_map(|(text, stored)| Some((text, stored?)));
        let levels: Vec<_> =
            levels.map(|(text, stored)| self.read(text, stored)).collect::<Result<_>>()?;
        let Some((first, rest)) = levels.split_first() else { return Ok(None) };
        let mut merged = first.value.clone();
        let mut sources = Sources::of(&provenance::value(&merged), &first.path);
        for level in rest {
            merged = self
                .kind()
                .merge(merged, level.value.clone())
                .map_err(|error| self.unreadable(level.path.as_str(), error))?;
            sources.fill(&provenance::value(&merged), &level.path);
        }
        Ok(Some(Arc::new(Resolution { merged, sources: sources.into_map(), levels })))
    }

    /// Waits until answers may differ from those that are given after this call. Never ends where nothing is cached, since
    /// nobody tells of changes then.
    ///
    /// # Cancel safety
    ///
    /// Nothing changes.
    pub fn changed(&self) -> impl Future<Output = ()> + '_ {
        let cache = self.0.found.as_ref();
        let generation = cache.map(Cache::generation);
        async move {
            match cache.zip(generation) {
                Some((cache, generation)) => cache.changed_since(generation).await,
                None => std::future::pending().await,
            }
        }
    }

    /// Sets the attributes of exactly this place, merged over what is set there if the kind's
    /// [`UPDATES_MERGE`](MatchableResource::UPDATES_MERGE) says so.
    ///
    /// Nobody's update is lost: a merge that was overtaken is made again.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidAttributes`] if they break a rule of the kind or are longer than 1 MiB in JSON;
    /// [`Error::Stale`] if another version is found than `expected`. Nothing is changed then. Retryable errors if the store
    /// does not answer: the attributes may be set then.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the attributes may or may not be set.
    pub async fn update(
        &self,
        path: &AttributePath,
        value: T,
        expected: Expected,
    ) -> Result<Updated<T>> {
        if !self.kind().updates_merge() {
            return self.replace(path, value, expected).await;
        }
        // What is asked for has to keep the rules by itself, whatever it is merged with.
        self.encode(path, &value)?;
        let delays = ExponentialBuilder::new()
            .with_min_delay(MERGE_DELAY)
            .with_max_delay(LONGEST_MERGE_DELAY)
            .with_max_times(MERGE_ATTEMPTS)
            .with_jitter();
        let overtaken =
            |error: &Error| expected == Expected::Any && matches!(error, Error::Stale { .. });
        (|| self.merge_once(path, &value, expected)).retry(delays).when(overtaken).await
    }

    /// Merges over what is found and writes that, unless somebody else writes meanwhile.
    async fn merge_once(
        &self,
        path: &AttributePath,
        value: &T,
        expected: Expected,
    ) -> Result<Updated<T>> {
        let stored = self.stored(path).await?;
        let found = version_of(stored.as_ref());
        if !expected.is_met_by(found) {
            return Err(self.stale(path, expected, found));
        }
        let merged = match stored {
            Some(stored) => {
                let below = self.read(path.as_str(), stored)?.value;
                let merged = self.kind().merge(value.clone(), below);
                merged.map_err(|error| self.unreadable(path.as_str(), error))?
            }
            None => value.clone(),
        };
        self.replace(path, merged, found.map_or(Expected::Absent, Expected::Version)).await
    }

    /// Sets the attributes of exactly this place, whatever is set there, also where updates of the kind are merged.
    ///
    /// What is set there already, in the same name, is not written again: so the call may be repeated, and two that set the
    /// same in the same name are both told that it is done.
    ///
    /// # Errors
    ///
    /// As [`update`](Self::update).
    ///
    /// # Cancel safety
    ///
    /// As [`update`](Self::update).
    pub async fn replace(
        &self,
        path: &AttributePath,
        value: T,
        expected: Expected,
    ) -> Result<Updated<T>> {
        let text = self.encode(path, &value)?;
        let (version, _) = self.write(path, Some(&text), expected).await?;
        let version = version.ok_or_else(|| Error::Protocol {
            operation: "update",
            reply: "no version".to_owned(),
        })?;
        Ok(Updated { version, value })
    }

    /// Deletes the attributes of exactly this place; those of places below it stay. Answers whether there were any.
    ///
    /// # Errors
    ///
    /// [`Error::Stale`] if another version is found than `expected`; nothing is changed then. Retryable errors if the store
    /// does not answer.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the attributes may or may not be there. Delete them again.
    pub async fn delete(&self, path: &AttributePath, expected: Expected) -> Result<bool> {
        let (_, before) = self.write(path, None, expected).await?;
        Ok(before.is_some())
    }

    /// A page of what is set, in the order of the paths' texts. A page may have fewer than `count` although more follow.
    ///
    /// # Errors
    ///
    /// Retryable errors if the store does not answer. What cannot be read is no error but listed as such.
    ///
    /// # Cancel safety
    ///
    /// Nothing changes.
    pub async fn list(
        &self,
        filter: &Filter,
        from: Option<&PageStart>,
        count: usize,
    ) -> Result<AttributesPage<T>> {
        let page = self.store().list(self.kind().name(), filter, from, count).await?;
        let mut answer =
            AttributesPage { found: Vec::new(), unreadable: Vec::new(), next: page.next };
        for (text, stored) in page.records {
            let version = version_of(Some(&stored)).filter(|_| stored.is_ok());
            let read = text.parse::<AttributePath>();
            match read.and_then(|path| self.read(path.as_str(), stored)) {
                Ok(found) => answer.found.push(found),
                Err(error) => {
                    let problem = match error {
                        Error::Unreadable { problem, .. } => problem,
                        error => error.to_string(),
                    };
                    answer.unreadable.push(Unreadable { path: text, version, problem });
                }
            }
        }
        Ok(answer)
    }

    /// The last versions of a place's attributes, at most [`KEPT_VERSIONS`](super::KEPT_VERSIONS), the newest first, the one in force
    /// or the deletion among them.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if nothing was ever set there; retryable errors if the store does not answer.
    ///
    /// # Cancel safety
    ///
    /// Nothing changes.
    pub async fn history(&self, path: &AttributePath) -> Result<Vec<Version<T>>> {
        let stored = self.store().history(self.kind().name(), path).await?;
        if stored.is_empty() {
            return Err(self.not_found(path));
        }
        let version = |stored: Stored| match stored {
            Ok(Record { version, at, by, value }) => {
                let decode = |text: String| self.kind().decode(&text).map_err(|e| e.to_string());
                Version { version, at, by, value: value.map(decode) }
            }
            Err(damaged) => Version {
                version: 0,
                at: SystemTime::UNIX_EPOCH,
                by: String::new(),
                value: Some(Err(damaged.to_string())),
            },
        };
        Ok(stored.into_iter().map(version).collect())
    }

    /// Sets what an older version was: anew, so that its number is larger than all others.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if nothing was ever set there; [`Error::InvalidArgument`] if that version is not kept or is a
    /// deletion; else as [`replace`](Self::replace).
    ///
    /// # Cancel safety
    ///
    /// As [`update`](Self::update).
    pub async fn restore(
        &self,
        path: &AttributePath,
        version: u64,
        expected: Expected,
    ) -> Result<Updated<T>> {
        let versions = self.history(path).await?;
        let wanted = versions.into_iter().find(|found| found.version == version);
        match wanted.and_then(|found| found.value) {
            Some(Ok(value)) => self.replace(path, value, expected).await,
            Some(Err(problem)) => Err(self.unreadable_because(path.as_str(), problem)),
            None => Err(Error::invalid(
                "version",
                version,
                format!(
                    "must be a kept version of {} at {path} that is no deletion",
                    self.kind().name()
                ),
            )),
        }
    }

    async fn stored(&self, path: &AttributePath) -> Result<Option<Stored>> {
        let stored = self.store().read(self.kind().name(), &[path.as_str()]).await?;
        Ok(stored.into_iter().next().flatten())
    }

    async fn write(
        &self,
        path: &AttributePath,
        value: Option<&str>,
        expected: Expected,
    ) -> Result<(Option<u64>, Option<Stored>)> {
        if expected == Expected::Version(0) {
            return Err(Error::invalid("version", 0, "must be at least 1"));
        }
        let write = Write { expected, ..Write::new(value, &self.0.all.0.by) };
        let written = self.store().write(self.kind().name(), path, write).await;
        if let Some(cache) = &self.0.found {
            // Whatever came of it; this process sees its own writes at once.
            cache.forget_all();
        }
        match written? {
            Written::Done { version, before } => Ok((version, before)),
            Written::Stale { found } => Err(self.stale(path, expected, found)),
        }
    }

    fn encode(&self, path: &AttributePath, value: &T) -> Result<String> {
        let kind = self.kind();
        let text = kind.encode(value).map_err(|InvalidField { field, value, rule }| {
            Error::InvalidAttributes { kind: kind.name().clone(), field, value, rule }
        })?;
        check_length(kind.name(), path, &text)?;
        Ok(text)
    }

    fn read(&self, text: &str, stored: Stored) -> Result<Found<T>> {
        let Record { version, at, by, value } =
            stored.map_err(|damaged| self.unreadable_because(text, damaged))?;
        let value = value.ok_or_else(|| self.unreadable_because(text, "it has no value"))?;
        let value = self.kind().decode(&value).map_err(|error| self.unreadable(text, error))?;
        Ok(Found { value, path: AttributePath::of_fallback(text), version, at, by })
    }

    fn store(&self) -> &dyn AttributeStore {
        &*self.0.all.0.store
    }

    fn not_found(&self, path: &AttributePath) -> Error {
        Error::NotFound { kind: self.kind().name().clone(), path: path.clone() }
    }

    fn stale(&self, path: &AttributePath, expected: Expected, found: Option<u64>) -> Error {
        Error::Stale { kind: self.kind().name().clone(), path: path.clone(), expected, found }
    }

    fn unreadable(&self, path: &str, InvalidField { field, rule, .. }: InvalidField) -> Error {
        let problem =
            if field.is_empty() || field == "." { rule } else { format!("{field}: {rule}") };
        self.unreadable_because(path, problem)
    }

    fn unreadable_because(&self, path: &str, problem: impl ToString) -> Error {
        Error::Unreadable {
            kind: self.kind().name().clone(),
            path: path.to_owned(),
            problem: problem.to_string(),
        }
    }
}

impl<T> Clone for AttributesOf<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> fmt::Debug for AttributesOf<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AttributesOf")
            .field("kind", &self.0.kind)
            .field("all", &self.0.all)
            .finish_non_exhaustive()
    }
}
