//! What is being given back while nobody waits for it.
//!
//! A token may be claimed again at once: after its guard or the future of a claim was dropped, or after an error. What was
//! asked for before, and is answered later, must not undo the new claim. So a claim waits until the returns of its tokens are
//! answered, and those that are to be tried again are called off: the token is wanted.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use super::Held;
use crate::name::{Member, PoolName};

/// The order in which claims and returns began: of claims that nobody waits for any more, the later waits for the earlier.
type Number = u64;

/// The returns and waiting claims of a process, by token.
#[derive(Clone, Debug, Default)]
pub(super) struct Returns(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    begun: Number,
    by_member: HashMap<(PoolName, Member), BTreeMap<Number, Entry>>,
}

#[derive(Debug)]
struct Entry {
    what: What,
    /// A later claim wants the token.
    called_off: CancellationToken,
    ended: CancellationToken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// A claim that somebody waits for.
    Claim,
    /// One that nobody waits for any more, so that it is being undone.
    Undone,
    Return,
}

/// A token that is being given back or, if nobody waits for its claim any more, is about to be: as long as this exists.
#[derive(Debug)]
pub(super) struct Returning {
    returns: Returns,
    held: Held,
    number: Number,
    called_off: CancellationToken,
}

/// Whoever waits for a claim. When this is dropped, the claim is a return.
#[derive(Debug)]
pub(super) struct Waiting {
    returns: Returns,
    held: Vec<Held>,
    number: Number,
}

impl Returns {
    /// Whether a token is being given back.
    pub(super) fn include(&self, held: &Held) -> bool {
        let state = self.state();
        let entries = state.by_member.get(&held.key());
        entries.is_some_and(|entries| entries.values().any(|entry| entry.what != What::Claim))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to give a token back.
    pub(super) fn begin(&self, held: Held) -> Returning {
        let number = self.number();
        self.insert(held, number, What::Return)
    }

    /// Begins a claim: whoever waits for it keeps the first, and who makes it the others.
    pub(super) fn claim(&self, held: Vec<Held>) -> (Waiting, Vec<Returning>) {
        let number = self.number();
        let claim = |held: &Held| self.insert(held.clone(), number, What::Claim);
        let claims = held.iter().map(claim).collect();
        (Waiting { returns: self.clone(), held, number }, claims)
    }

    fn number(&self) -> Number {
        let mut state = self.state();
        state.begun += 1;
        state.begun
    }

    fn insert(&self, held: Held, number: Number, what: What) -> Returning {
        let called_off = CancellationToken::new();
        let ended = CancellationToken::new();
        let entry = Entry { what, called_off: called_off.clone(), ended };
        self.state().by_member.entry(held.key()).or_default().insert(number, entry);
        Returning { returns: self.clone(), held, number, called_off }
    }

    /// Those of these tokens that are being given back.
    pub(super) fn of(&self, tokens: impl Iterator<Item = Held>) -> Vec<Held> {
        if self.state().by_member.is_empty() {
            return Vec::new();
        }
        tokens.filter(|held| self.include(held)).collect()
    }

    /// Waits until all returns of these tokens are answered or called off.
    pub(super) async fn settled(&self, tokens: &[Held]) {
        for held in tokens {
            self.settled_before(held, Number::MAX).await;
        }
    }

    async fn settled_before(&self, held: &Held, number: Number) {
        while let Some(ended) = self.call_off(held, number) {
            ended.cancelled().await;
        }
    }

    /// Calls a return off, or a claim that began before this and is undone; gives what tells its end.
    fn call_off(&self, held: &Held, before: Number) -> Option<CancellationToken> {
        let state = self.state();
        let entries = state.by_member.get(&held.key())?;
        let in_the_way = |number, entry: &Entry| match entry.what {
            What::Claim => false,
            What::Undone => number < before,
            What::Return => true,
        };
        let (_, entry) = entries.iter().find(|(number, entry)| in_the_way(**number, entry))?;
        entry.called_off.cancel();
        Some(entry.ended.clone())
    }
}

impl Returning {
    /// Waits until nothing else gives the token back that is claimed by this.
    pub(super) async fn settled(&self) {
        self.returns.settled_before(&self.held, self.number).await;
    }

    /// Ends when the token is claimed again.
    pub(super) async fn called_off(&self) {
        self.called_off.cancelled().await;
    }

    pub(super) fn held(&self) -> &Held {
        &self.held
    }
}

impl Drop for Returning {
    fn drop(&mut self) {
        let mut state = self.returns.state();
        let key = self.held.key();
        let Some(entries) = state.by_member.get_mut(&key) else { return };
        if let Some(entry) = entries.remove(&self.number) {
            entry.ended.cancel();
        }
        if entries.is_empty() {
            state.by_member.remove(&key);
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut state = self.returns.state();
        for held in &self.held {
            let entries = state.by_member.get_mut(&held.key());
            if let Some(entry) = entries.and_then(|entries| entries.get_mut(&self.number)) {
                entry.what = What::Undone;
            }
        }
    }
}
