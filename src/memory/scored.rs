//! Keys sorted by a number: what a sorted set is on Redis.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};

/// Keys sorted by their scores, those of the same score by themselves. Every step is logarithmic.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Scored<K> {
    scores: BTreeMap<K, u64>,
    sorted: BTreeSet<(u64, K)>,
}

impl<K> Default for Scored<K> {
    fn default() -> Self {
        Self { scores: BTreeMap::new(), sorted: BTreeSet::new() }
    }
}

impl<K: Clone + Ord> Scored<K> {
    /// Gives a key its score, a new one if it has one already.
    pub(super) fn set(&mut self, key: K, score: u64) {
        if let Some(before) = self.scores.insert(key.clone(), score) {
            self.sorted.remove(&(before, key.clone()));
        }
        self.sorted.insert((score, key));
    }

    pub(super) fn remove<Q>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Ord + ?Sized,
    {
        if let Some((key, score)) = self.scores.remove_entry(key) {
            self.sorted.remove(&(score, key));
        }
    }

    pub(super) fn score<Q>(&self, key: &Q) -> Option<u64>
    where
        K: Borrow<Q>,
        Q: Ord + ?Sized,
    {
        self.scores.get(key).copied()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }

    /// The key of the lowest score, and its score.
    pub(super) fn first(&self) -> Option<(&K, u64)> {
        self.sorted.first().map(|(score, key)| (key, *score))
    }

    /// The first keys whose scores are at most `score`, no more than `count`.
    pub(super) fn up_to(&self, score: u64, count: usize) -> Vec<K> {
        let keys = self.sorted.iter().take_while(|entry| entry.0 <= score).take(count);
        keys.map(|(_, key)| key.clone()).collect()
    }

    /// Takes out all keys, in their order.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = K> + use<K> {
        self.scores.clear();
        std::mem::take(&mut self.sorted).into_iter().map(|(_, key)| key)
    }
}
