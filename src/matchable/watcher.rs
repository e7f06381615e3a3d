//! What a process knows of changes to the attributes it has looked up.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// Hears of changes from a store, and knows until when it has heard of all of them.
///
/// A store calls [`interrupted`](Self::interrupted) before it begins to tell and whenever it may have missed a change,
/// [`changed`](Self::changed) for each change, and [`confirmed`](Self::confirmed) with a moment before which it has missed none.
#[derive(Debug)]
pub struct Watcher {
    start: Instant,
    /// Nanoseconds after `start` until which no change was missed; 0 if that is not known.
    confirmed: AtomicU64,
    generations: Mutex<HashMap<String, Generation>>,
    /// Whoever waits for a change.
    listeners: Notify,
}

/// How often attributes of a kind may have changed so far.
pub(super) type Generation = Arc<AtomicU64>;

impl Default for Watcher {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            confirmed: AtomicU64::new(0),
            generations: Mutex::default(),
            listeners: Notify::new(),
        }
    }
}

impl Watcher {
    /// Attributes of this kind changed.
    pub fn changed(&self, kind: &str) {
        self.generation(kind).fetch_add(1, Ordering::SeqCst);
        self.listeners.notify_waiters();
    }

    /// Changes may be missed from now on.
    pub fn interrupted(&self) {
        self.confirmed.store(0, Ordering::SeqCst);
        self.all_changed();
    }

    /// Attributes of every kind may have changed.
    pub fn all_changed(&self) {
        let generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        for generation in generations.values() {
            generation.fetch_add(1, Ordering::SeqCst);
        }
        self.listeners.notify_waiters();
    }

    /// Lets whoever waits for a change look whether there is one.
    pub(super) fn wake(&self) {
        self.listeners.notify_waiters();
    }

    /// Waits until a change is told after this call.
    pub(super) fn told(&self) -> impl Future<Output = ()> {
        self.listeners.notified()
    }

    /// Every change before this moment was told, unless there was an interruption before.
    pub fn confirmed(&self, moment: Instant) {
        let nanos = moment.saturating_duration_since(self.start).as_nanos();
        self.confirmed.store(u64::try_from(nanos).unwrap_or(u64::MAX).max(1), Ordering::SeqCst);
    }

    /// Every change is told at once, for ever.
    pub(super) fn confirmed_for_ever(&self) {
        self.confirmed.store(u64::MAX, Ordering::SeqCst);
    }

    /// Whether every change until `limit` before `now` was told.
    pub(super) fn is_sure(&self, now: Instant, limit: Duration) -> bool {
        match self.confirmed.load(Ordering::SeqCst) {
            0 => false,
            nanos => {
                let until = self.start.checked_add(Duration::from_nanos(nanos));
                until.is_none_or(|until| now.saturating_duration_since(until) <= limit)
            }
        }
    }

    pub(super) fn generation(&self, kind: &str) -> Generation {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(generation) = generations.get(kind) {
            return Arc::clone(generation);
        }
        Arc::clone(generations.entry(kind.to_owned()).or_default())
    }
}

/// A store tells a watcher of changes for as long as this lives.
pub struct Watch(
    #[expect(dead_code, reason = "it is there to be dropped")] Box<dyn Any + Send + Sync>,
);

impl Watch {
    /// Lives as long as `guard`, whose `Drop` ends the watch.
    pub fn new(guard: impl Any + Send + Sync) -> Self {
        Self(Box::new(guard))
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch")
    }
}
