//! The store in the process.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;

use super::kind::KindName;
use super::path::AttributePath;
use super::record::{Record, Stored};
use super::store::{AttributeStore, Filter, KEPT_VERSIONS, PageStart, RecordsPage, Write, Written};
use super::watcher::{Watch, Watcher};
use crate::clock::{Clock, SystemClock};
use crate::error::Result;

/// Keeps attributes in the process.
pub struct MemoryAttributeStore {
    clock: Arc<dyn Clock>,
    kinds: Mutex<BTreeMap<KindName, Table>>,
    watchers: Mutex<Vec<Weak<Watcher>>>,
}

/// What is kept of a kind: the versions of each path, the newest first.
type Table = BTreeMap<String, VecDeque<Record>>;

impl MemoryAttributeStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::with_clock(Arc::new(SystemClock))
    }

    /// An empty store with a clock.
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self { clock, kinds: Mutex::default(), watchers: Mutex::default() }
    }

    fn kinds(&self) -> MutexGuard<'_, BTreeMap<KindName, Table>> {
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the table of a kind; one that was never written is empty.
    fn reading<R>(&self, kind: &KindName, read: impl FnOnce(&Table) -> R) -> R {
        match self.kinds().get(kind) {
            Some(table) => read(table),
            None => read(&Table::new()),
        }
    }
}

impl Default for MemoryAttributeStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryAttributeStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryAttributeStore").finish_non_exhaustive()
    }
}

/// What is in force of a path's versions.
fn in_force(versions: &VecDeque<Record>) -> Option<&Record> {
    versions.front().filter(|record| record.value.is_some())
}

#[async_trait]
impl AttributeStore for MemoryAttributeStore {
    async fn read(&self, kind: &KindName, paths: &[&str]) -> Result<Vec<Option<Stored>>> {
        Ok(self.reading(kind, |table| {
            let stored = |path: &&str| in_force(table.get(*path)?).cloned().map(Ok);
            paths.iter().map(stored).collect()
        }))
    }

    async fn write(
        &self,
        kind: &KindName,
        path: &AttributePath,
        Write { value, expected, by }: Write<'_>,
    ) -> Result<Written> {
        let at = whole_millis(self.clock.now());
        {
            let mut kinds = self.kinds();
            if value.is_none() && !kinds.contains_key(kind) {
                // As everywhere, nothing comes to be by a deletion.
                return Ok(match expected.is_met_by(None) {
                    true => Written::Done { version: None, before: None },
                    false => Written::Stale { found: None },
                });
            }
            let versions =
                kinds.entry(kind.clone()).or_default().entry(path.as_str().to_owned()).or_default();
            let before = in_force(versions).cloned();
            let found = before.as_ref().map(|record| record.version);
            let last = versions.front().map_or(0, |record| record.version);
            if !expected.is_met_by(found) {
                // Unless it is this very write, repeated because its answer was lost.
                let replaced = versions.get(1).filter(|record| record.value.is_some());
                let same = versions.front().is_some_and(|newest| {
                    (newest.value.as_deref(), &*newest.by) == (value, by.as_str())
                });
                if same && expected.is_met_by(replaced.map(|record| record.version)) {
                    let before = replaced.cloned().map(Ok);
                    return Ok(Written::Done { version: Some(last), before });
                }
                return Ok(Written::Stale { found });
            }
            if before.is_none() && value.is_none() {
                let version = (last > 0).then_some(last);
                return Ok(Written::Done { version, before: None });
            }
            let is_written =
                |record: &Record| (record.value.as_deref(), &*record.by) == (value, by.as_str());
            if let Some(before) = before.clone().filter(is_written) {
                return Ok(Written::Done { version: found, before: Some(Ok(before)) });
            }
            let version = last + 1;
            let value = value.map(str::to_owned);
            versions.push_front(Record { version, at, by: by.as_str().to_owned(), value });
            versions.truncate(usize::try_from(KEPT_VERSIONS).unwrap_or(usize::MAX));
            let written = Written::Done { version: Some(version), before: before.map(Ok) };
            drop(kinds);
            self.tell(kind);
            Ok(written)
        }
    }

    async fn list(
        &self,
        kind: &KindName,
        filter: &Filter,
        from: Option<&PageStart>,
        count: usize,
    ) -> Result<RecordsPage> {
        // What is no text comes after all that is, or begins like it.
        let start = from.map(|start| String::from_utf8_lossy(start.as_bytes()));
        let start = start.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        Ok(self.reading(kind, |table| {
            let listed = table.range::<str, _>((start, Bound::Unbounded));
            let mut listed = listed
                .filter(|(text, versions)| filter.admits(text) && in_force(versions).is_some());
            let mut page = RecordsPage::default();
            for (text, versions) in listed.by_ref().take(count.max(1)) {
                page.records
                    .extend(in_force(versions).map(|record| (text.clone(), Ok(record.clone()))));
            }
            let last = page.records.last().map(|(text, _)| PageStart::after(text.as_str()));
            page.next = listed.next().and(last);
            page
        }))
    }

    async fn history(&self, kind: &KindName, path: &AttributePath) -> Result<Vec<Stored>> {
        Ok(self.reading(kind, |table| {
            let versions = table.get(path.as_str()).into_iter().flatten();
            versions.cloned().map(Ok).collect()
        }))
    }

    async fn kinds(&self) -> Result<Vec<KindName>> {
        Ok(self.kinds().keys().cloned().collect())
    }

    async fn watch(&self, watcher: Arc<Watcher>, _confirm_every: Duration) -> Result<Watch> {
        let mut watchers = self.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        watchers.push(Arc::downgrade(&watcher));
        watcher.confirmed_for_ever();
        Ok(Watch::new(watcher))
    }
}

impl MemoryAttributeStore {
    /// Tells all watchers that attributes of a kind changed.
    fn tell(&self, kind: &KindName) {
        let mut watchers = self.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        watchers.retain(|watcher| match watcher.upgrade() {
            Some(watcher) => {
                watcher.changed(kind.as_str());
                true
            }
            None => false,
        });
    }
}

fn whole_millis(time: SystemTime) -> SystemTime {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => time - Duration::from_nanos(u64::from(since.subsec_nanos() % 1_000_000)),
        Err(_) => UNIX_EPOCH,
    }
}
