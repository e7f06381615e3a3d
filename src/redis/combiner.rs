//! Calls of a process on one pool that go to the server together.
//!
//! A call is sent at once while no other is under way. Those that are made meanwhile, in the same turn of the runtime, go in one
//! call of `combined.lua`, which takes less than half of what they take one by one, here and on the server. A turn of the runtime
//! is all that it costs: nobody waits for another's answer.
//!
//! The task that sends is nobody's own: a caller that is not polled any more holds up no other.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::{Cmd, ErrorKind, RedisError, RedisResult, Value};
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout_at};

use super::connect::{Connections, timed_out};
use super::pools::KnownPool;
use super::reply::{Answer, beginning};
use super::scripts::{self, Call};

/// Most operations to a call, so that none keeps the server busy for more than half a millisecond.
const MOST: usize = 100;

/// How long calls on a pool are made one by one once the server said that they have to be.
const APART: Duration = Duration::from_secs(1);

/// What is under way on a pool, and what waits to be sent together.
#[derive(Debug, Default)]
pub(super) struct Combiner {
    state: Mutex<State>,
    /// Held whenever operations are handed to a connection, so that one is either taken back or handed over.
    handing_over: Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    /// Calls without an answer.
    under_way: usize,
    waiting: Vec<Waiting>,
    /// Whether a task is about to send what waits.
    is_collected: bool,
    /// The number of the next operation that waits.
    next: u64,
    apart_until: Option<Instant>,
}

/// What `combined.lua` decides beside others of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    /// Of one token: execution, project, domain, number, member.
    Release,
    /// Of one token, which neither waits nor comes back: member, units, execution, holder, project, domain, caps, lease.
    Claim,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    operation: Operation,
    arguments: Cmd,
    ends: Instant,
    answer: oneshot::Sender<RedisResult<Value>>,
}

/// What is to become of an operation.
pub(super) enum Joined {
    /// It is to be called by itself, which others are to know of meanwhile.
    Alone(UnderWay),
    /// It went with others.
    Together(RedisResult<Value>),
}

/// One call without an answer, until it is dropped.
pub(super) struct UnderWay(Arc<KnownPool>);

impl Operation {
    /// What errors call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Release => scripts::RELEASE.name(),
            Self::Claim => scripts::ALLOCATE.name(),
        }
    }
}

/// Has an operation go with others that are made now, if there are any.
pub(super) async fn join(
    connections: &Arc<Connections>,
    pool: &Arc<KnownPool>,
    ends: Instant,
    operation: Operation,
    arguments: impl FnOnce() -> Cmd,
) -> Joined {
    if let Some(under_way) = UnderWay::at_once(pool) {
        return Joined::Alone(under_way);
    }
    let (answer, receiver) = oneshot::channel();
    let arguments = arguments();
    let (number, is_first, collection) = {
        let mut state = pool.combiner.state();
        let number = state.next;
        state.next += 1;
        let (is_collected, is_first) = (state.is_collected, state.waiting.is_empty());
        state.waiting.push(Waiting { number, operation, arguments, ends, answer });
        // The first does without a task, because it may be the only one.
        state.is_collected |= !is_first;
        let begins = !is_collected && !is_first;
        (number, is_first, begins.then(|| Collection(Some(Arc::clone(pool)))))
    };
    let mut place = Place { pool, number, answer: Some(receiver) };
    if let Some(collection) = collection {
        begin(connections, collection);
    }
    if is_first {
        yield_now().await;
        if let Some(under_way) = place.leave() {
            return Joined::Alone(under_way);
        }
    }
    match timeout_at(ends, place.answer()).await {
        Ok(Some(answer)) => Joined::Together(answer),
        Ok(None) => Joined::Alone(UnderWay::begin(pool, &mut pool.combiner.state())),
        Err(_) => Joined::Together(Err(timed_out("answered", connections.total()))),
    }
}

impl Combiner {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// The answer to what hands operations to a connection when it is polled: nobody leaves meanwhile.
    async fn handing_over<T>(&self, sending: impl Future<Output = T>) -> T {
        let mut sending = pin!(sending);
        poll_fn(|context| {
            let _handing_over = lock(&self.handing_over);
            sending.as_mut().poll(context)
        })
        .await
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn is_apart(&mut self) -> bool {
        match self.apart_until {
            Some(until) if Instant::now() < until => true,
            Some(_) => {
                self.apart_until = None;
                false
            }
            None => false,
        }
    }
}

impl UnderWay {
    fn begin(pool: &Arc<KnownPool>, state: &mut State) -> Self {
        state.under_way += 1;
        Self(Arc::clone(pool))
    }

    /// If nothing else is under way, or it must not go together.
    fn at_once(pool: &Arc<KnownPool>) -> Option<Self> {
        let mut state = pool.combiner.state();
        let is_alone = state.under_way == 0 || state.is_apart();
        is_alone.then(|| Self::begin(pool, &mut state))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.combiner.state().under_way -= 1;
    }
}

/// Where an operation waits.
struct Place<'a> {
    pool: &'a Arc<KnownPool>,
    number: u64,
    /// None once it has come.
    answer: Option<oneshot::Receiver<RedisResult<Value>>>,
}

impl Place<'_> {
    /// Takes the operation back if nobody is about to send it.
    fn leave(&mut self) -> Option<UnderWay> {
        let mut state = self.pool.combiner.state();
        if state.is_collected || state.waiting.first()?.number != self.number {
            return None;
        }
        state.waiting.clear();
        self.answer = None;
        Some(UnderWay::begin(self.pool, &mut state))
    }

    /// The answer; none if the operation has to be called by itself.
    async fn answer(&mut self) -> Option<RedisResult<Value>> {
        let answer = self.answer.as_mut()?.await.ok();
        self.answer = None;
        answer.filter(|answer| {
            let answer = answer.as_ref().ok().and_then(Answer::from_value);
            !matches!(answer, Some(Answer::Keys | Answer::Apart))
        })
    }
}

impl Drop for Place<'_> {
    /// After this the operation is not sent any more, or was sent before whatever its caller does next.
    fn drop(&mut self) {
        if let Some(mut answer) = self.answer.take() {
            answer.close();
            drop(lock(&self.pool.combiner.handing_over));
        }
    }
}

/// What waits on a pool, to be taken by a task. If that ends before, each operation is called by itself.
struct Collection(Option<Arc<KnownPool>>);

impl Collection {
    /// Takes what waits, or as much as goes in one call and leaves the rest for another.
    fn take(mut self) -> Option<(Batch, Option<Self>)> {
        let pool = self.0.take()?;
        let mut state = pool.combiner.state();
        let taken = state.waiting.len().min(MOST);
        let mut waiting: Vec<_> = state.waiting.drain(..taken).collect();
        // What is given back can be granted again at once.
        waiting.sort_by_key(|waiting| waiting.operation == Operation::Claim);
        state.is_collected = !state.waiting.is_empty();
        let rest = state.is_collected.then(|| Self(Some(Arc::clone(&pool))));
        let under_way = UnderWay::begin(&pool, &mut state);
        Some((Batch { waiting: Mutex::new(waiting), under_way }, rest))
    }
}

impl Drop for Collection {
    fn drop(&mut self) {
        if let Some(pool) = &self.0 {
            let mut state = pool.combiner.state();
            state.is_collected = false;
            state.waiting.clear();
        }
    }
}

/// Operations that go in one call.
struct Batch {
    /// Releases come first.
    waiting: Mutex<Vec<Waiting>>,
    under_way: UnderWay,
}

impl Batch {
    fn pool(&self) -> &KnownPool {
        &self.under_way.0
    }

    /// What is still waited for.
    fn waiting(&self) -> MutexGuard<'_, Vec<Waiting>> {
        let mut waiting = lock(&self.waiting);
        waiting.retain(|waiting| !waiting.answer.is_closed());
        waiting
    }

    /// When the last of the callers has no more time; none if nobody waits any more.
    fn ends(&self) -> Option<Instant> {
        self.waiting().iter().map(|waiting| waiting.ends).max()
    }

    fn call(&self) -> Call {
        let waiting = self.waiting();
        let releases = waiting.iter().filter(|waiting| waiting.operation == Operation::Release);
        let mut call = scripts::COMBINED.on(&self.pool().keys.of_grants());
        call.arg(releases.count());
        for Waiting { arguments, .. } in &*waiting {
            call.extend(arguments);
        }
        call
    }

    async fn send(&self, connections: &Connections, ends: Instant) -> RedisResult<Value> {
        let keys = &self.pool().keys;
        let made = || self.call().into_cmd();
        match connections.call_made(keys, &made, ends).await {
            Err(error) if scripts::is_unknown_script(&error) => {
                let made = || self.call().with_source();
                connections.call_made(keys, &made, ends).await
            }
            reply => reply,
        }
    }

    /// Gives each caller its answer.
    fn deliver(self, reply: RedisResult<Value>) -> UnderWay {
        let Self { waiting, under_way } = self;
        let waiting = waiting.into_inner().unwrap_or_else(PoisonError::into_inner);
        match reply {
            Ok(Value::Array(answers)) if answers.len() == waiting.len() => {
                for (waiting, answer) in waiting.into_iter().zip(answers) {
                    let _ = waiting.answer.send(Ok(answer));
                }
            }
            // An error, or what is true for all of them.
            reply => {
                let reply = reply.and_then(|reply| match Answer::from_value(&reply) {
                    None => Err(unanswered(&reply)),
                    Some(answer) => {
                        if matches!(answer, Answer::Keys | Answer::Apart) {
                            under_way.0.want_all_keys();
                        }
                        if answer == Answer::Apart {
                            under_way.0.combiner.state().apart_until = Some(Instant::now() + APART);
                        }
                        Ok(reply)
                    }
                });
                for waiting in waiting {
                    let _ = waiting.answer.send(reply.clone());
                }
            }
        }
        under_way
    }
}

/// The error for a reply that nobody can be given a part of. Each gets it, so it is short.
fn unanswered(reply: &Value) -> RedisError {
    let what = "not an answer to each call";
    (ErrorKind::Parse, what, beginning(reply)).into()
}

/// Has a task send what is collected.
fn begin(connections: &Arc<Connections>, collection: Collection) {
    connections.runtime().spawn(send_together(Arc::clone(connections), collection));
}

async fn send_together(connections: Arc<Connections>, collection: Collection) {
    yield_now().await;
    let Some((batch, rest)) = collection.take() else { return };
    if let Some(rest) = rest {
        begin(&connections, rest);
    }
    let Some(ends) = batch.ends() else { return };
    let reply = batch.pool().combiner.handing_over(batch.send(&connections, ends)).await;
    let under_way = batch.deliver(reply);
    // Whoever has an answer makes its next call before the pool counts as idle, so that these go together, too.
    yield_now().await;
    drop(under_way);
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread;

    use tokio_test::block_on;

    use super::super::pools::Pools;
    use super::*;
    use crate::error::Result;
    use crate::name::PoolName;

    /// So that whatever the caller does next comes behind it on the connection.
    #[test]
    fn whoever_leaves_while_operations_are_handed_over_does_so_after_that() -> Result<()> {
        let pool = Pools::default().pool(&PoolName::new("plugin:pool")?);
        let (_sender, receiver) = oneshot::channel();
        let place = Place { pool: &pool, number: 0, answer: Some(receiver) };
        let ((begun, has_begun), (left, has_left)) = (channel(), channel());
        thread::scope(|scope| {
            scope.spawn(move || {
                has_begun.recv().expect("it begins");
                drop(place);
                left.send(())
            });
            let early = block_on(pool.combiner.handing_over(async {
                begun.send(()).expect("the other waits for it");
                has_left.recv_timeout(Duration::from_millis(100))
            }));
            assert!(early.is_err() && has_left.recv().is_ok());
        });
        Ok(())
    }
}
