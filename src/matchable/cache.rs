//! Look-ups answered from memory, for as long as that is sure to be right.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::attributes::AnsweredBy;
use super::kind::KindName;
use super::path::AttributePath;
use super::watcher::{Generation, Watcher};
use crate::error::{Error, Result};

/// A connection that says nothing is asked whether it lives after this time.
const LONGEST_SILENCE: Duration = Duration::from_secs(2);

/// How look-ups are cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheConfig {
    max_staleness: Duration,
    capacity: usize,
}

impl CacheConfig {
    /// No look-up that begins later than this after an update is answered with what was before. A change is heard of within
    /// a round trip as a rule; this is for when it is not. Time in which the machine sleeps does not count.
    ///
    /// Behind sentinels this counts from when most of the configured sentinels know of the primary on which the update was
    /// made, which is some seconds after it became that. As long as too few of them answer, every look-up asks the server
    /// that all calls of this process go to: that may have been replaced, and answers what it has.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] unless it is between 10 ms and an hour.
    pub fn new(max_staleness: Duration) -> Result<Self> {
        let allowed = Duration::from_millis(10)..=Duration::from_secs(3600);
        if !allowed.contains(&max_staleness) {
            let value = humantime::format_duration(max_staleness);
            return Err(Error::invalid("staleness", value, "must be between 10ms and 1h"));
        }
        Ok(Self { max_staleness, capacity: 100_000 })
    }

    /// So that a confirmation may fail twice before the cache is not sure any more, and that whoever waits for a change does
    /// not wait long on a connection that died in silence.
    pub(super) fn confirm_every(&self) -> Duration {
        (self.max_staleness / 3).min(LONGEST_SILENCE)
    }

    /// The same for so many paths of each kind; 100 000 by default.
    #[must_use]
    pub fn with_capacity(self, capacity: usize) -> Self {
        Self { capacity, ..self }
    }
}

/// What look-ups of a kind found.
pub(super) struct Cache<V> {
    max_staleness: Duration,
    watcher: Arc<Watcher>,
    generation: Generation,
    entries: quick_cache::sync::Cache<AttributePath, Entry<V>>,
}

struct Entry<V> {
    found: Option<Arc<V>>,
    /// Before the store was asked.
    generation: u64,
    asked: Instant,
}

impl<V> Clone for Entry<V> {
    fn clone(&self) -> Self {
        Self { found: self.found.clone(), ..*self }
    }
}

impl<V> Cache<V> {
    pub(super) fn new(config: CacheConfig, watcher: Arc<Watcher>, kind: &KindName) -> Self {
        Self {
            max_staleness: config.max_staleness,
            generation: watcher.generation(kind.as_str()),
            watcher,
            entries: quick_cache::sync::Cache::new(config.capacity),
        }
    }

    /// What is known of a path, else what the store answers.
    pub(super) async fn get<F>(
        &self,
        path: &AttributePath,
        look_up: impl FnOnce() -> F,
    ) -> Result<(Option<Arc<V>>, AnsweredBy)>
    where
        F: Future<Output = Result<Option<Arc<V>>>>,
    {
        let asked = Instant::now();
        // In this order: what was changed before it was sure has raised the generation.
        let sure = self.watcher.is_sure(asked, self.max_staleness);
        let generation = self.generation.load(Ordering::SeqCst);
        let mut answered_by = AnsweredBy::Store;
        if let Some(entry) = self.entries.get(path).filter(|entry| entry.generation == generation) {
            if sure || asked.saturating_duration_since(entry.asked) <= self.max_staleness {
                return Ok((entry.found, AnsweredBy::Cache));
            }
            answered_by = AnsweredBy::StoreForCertainty;
        }
        let found = look_up().await?;
        self.entries.insert(path.clone(), Entry { found: found.clone(), generation, asked });
        Ok((found, answered_by))
    }

    /// What was found so far counts no more.
    pub(super) fn forget_all(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.watcher.wake();
    }

    /// How often the answers may have changed so far, for [`changed_since`](Self::changed_since).
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    /// Waits until answers may differ from those of a generation.
    pub(super) async fn changed_since(&self, generation: u64) {
        loop {
            // Made before the look, so that no change comes between.
            let told = self.watcher.told();
            if self.generation() != generation {
                return;
            }
            told.await;
        }
    }
}

impl<V> fmt::Debug for Cache<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("max_staleness", &self.max_staleness).finish_non_exhaustive()
    }
}
