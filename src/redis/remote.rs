//! A pool on the server: calling scripts on it, and what they may answer instead.

use std::borrow::Cow;
use std::sync::Arc;

use redis::{Cmd, RedisError, Value};
use tokio::time::Instant;

use super::combiner::{self, Joined, Operation};
use super::connect::{Connections, Lane};
use super::keys::PoolKeys;
use super::pools::KnownPool;
use super::reply::{Answer, Fields, beginning};
use super::scripts::Call;
use super::slot::Slot;
use crate::error::{Error, Result};
use crate::name::PoolName;
use crate::ticket::Channel;

/// Version of the wire schema in `lua/README.md`.
const SCHEMA: u32 = 1;

/// Tokens to a call: a larger batch is several calls in one round trip, so that none keeps the
/// server busy for more than a few milliseconds.
pub(super) const BATCH: usize = 500;

/// Entries to a page. A pool that fits on one is read whole in one atomic step.
pub(super) const PAGE: usize = 5000;

/// One pool on the server.
#[derive(Debug)]
pub(super) struct RemotePool<'a> {
    pub(super) name: &'a PoolName,
    pub(super) known: Arc<KnownPool>,
    pub(super) connections: &'a Arc<Connections>,
}

impl<'a> RemotePool<'a> {
    pub(super) fn new(connections: &'a Arc<Connections>, name: &'a PoolName) -> Self {
        Self { name, known: connections.pool(name), connections }
    }

    pub(super) fn keys(&self) -> &PoolKeys {
        &self.known.keys
    }

    /// Where a process hears of this pool.
    pub(super) async fn channel<'c>(&self, channel: &'c Channel) -> Result<Cow<'c, str>> {
        self.connections.channel(&self.keys().pool, channel).await
    }

    /// The script's reply, if it is about an existing pool of this schema and comes until then.
    pub(super) async fn call_by(&self, ends: Instant, call: &Call) -> Result<Value> {
        match call.send(self.connections, self.keys().slot, ends).await {
            Ok(reply) => self.expect_pool(reply),
            Err(error) => Err(self.error(call.operation(), error, ends).await),
        }
    }

    /// As [`call_by`](Self::call_by), for a script that says whether it needs all keys: it is given those of grants alone until
    /// it does, because a server takes its time for each key.
    pub(super) async fn call_sparing_keys_by(
        &self,
        ends: Instant,
        call: impl Fn(&[&str]) -> Call,
    ) -> Result<Value> {
        let (all, of_grants) = (self.keys().all(), self.keys().of_grants());
        let mut keys = if self.known.wants_all_keys() { &all[..] } else { &of_grants[..] };
        loop {
            let reply = self.call_by(ends, &call(keys)).await?;
            if keys.len() == all.len() || Answer::from_value(&reply) != Some(Answer::Keys) {
                return Ok(reply);
            }
            self.known.want_all_keys();
            keys = &all;
        }
    }

    /// As [`call_sparing_keys_by`](Self::call_sparing_keys_by), or together with other operations, whose call takes these arguments.
    /// Then the reply of a script that answers many is one answer.
    pub(super) async fn call_combined_by(
        &self,
        ends: Instant,
        operation: Operation,
        arguments: impl FnOnce() -> Cmd,
        call: impl Fn(&[&str]) -> Call,
    ) -> Result<Value> {
        if !self.connections.combines() {
            return self.call_sparing_keys_by(ends, call).await;
        }
        match combiner::join(self.connections, &self.known, ends, operation, arguments).await {
            Joined::Alone(_under_way) => self.call_sparing_keys_by(ends, call).await,
            Joined::Together(Ok(reply)) => self.expect_pool(reply),
            Joined::Together(Err(error)) => Err(self.error(operation.name(), error, ends).await),
        }
    }

    /// As [`call_by`](Self::call_by), with all the time that a call has.
    pub(super) async fn call(&self, call: &Call) -> Result<Value> {
        self.call_by(self.connections.deadline(), call).await
    }

    /// The reply of a command on one of the pool's keys.
    pub(super) async fn command(&self, operation: &'static str, cmd: &Cmd) -> Result<Value> {
        let ends = self.connections.deadline();
        match self.connections.call(Lane::Own, self.keys().slot, cmd, ends).await {
            Ok(reply) => Ok(reply),
            Err(error) => Err(self.error(operation, error, ends).await),
        }
    }

    /// As [`call`](Self::call), for scripts that reply with an array.
    pub(super) async fn call_for_fields(&self, call: &Call) -> Result<Fields> {
        let reply = self.call(call).await?;
        Fields::new(reply).ok_or_else(|| unexpected(call.operation(), "not an array"))
    }

    /// As [`call_by`](Self::call_by), for several calls that reply with arrays: all elements, in order.
    pub(super) async fn call_all_by(&self, ends: Instant, calls: &[Call]) -> Result<Vec<Value>> {
        let Some(first) = calls.first() else { return Ok(Vec::new()) };
        let operation = first.operation();
        let replies = match calls {
            [call] => {
                call.send(self.connections, self.keys().slot, ends).await.map(|reply| vec![reply])
            }
            calls => Call::send_all(calls, self.connections, self.keys().slot, ends).await,
        };
        let replies = match replies {
            Ok(replies) => replies,
            Err(error) => return Err(self.error(operation, error, ends).await),
        };
        let mut elements = Vec::new();
        for reply in replies {
            elements.extend(array(operation, self.expect_pool(reply)?)?);
        }
        Ok(elements)
    }

    /// Turns the answers that any script may give instead into errors.
    pub(super) fn expect_pool(&self, reply: Value) -> Result<Value> {
        match Answer::from_value(&reply) {
            Some(Answer::Unregistered) => Err(self.unknown()),
            Some(Answer::Newer { schema: found }) => {
                Err(Error::NewerSchema { pool: self.name.clone(), found, supported: SCHEMA })
            }
            _ => Ok(reply),
        }
    }

    fn unknown(&self) -> Error {
        Error::UnknownNamespace { pool: self.name.clone() }
    }

    /// The error of a failed call; where a key has the wrong type, it says which.
    async fn error(&self, operation: &'static str, error: RedisError, ends: Instant) -> Error {
        // Redis 6.2 puts its own words around those of a command that fails in a script.
        if error.to_string().contains("WRONGTYPE") {
            for (key, expected) in self.keys().types() {
                if let Some(wrong) = wrong_type(self.connections, key, expected, ends).await {
                    return wrong;
                }
            }
        }
        self.connections.error(operation, error)
    }
}

/// A command on a set that lists names; if the key is no set, the error says so.
pub(super) async fn command_on_set(
    connections: &Connections,
    command: &'static str,
    key: &str,
    member: Option<&str>,
) -> Result<Value> {
    let cmd = redis::cmd(command).arg(key).arg(member).to_owned();
    // The whole list may be long.
    let lane = if member.is_some() { Lane::Shared } else { Lane::Own };
    let ends = connections.deadline();
    match connections.call(lane, Slot::of(key), &cmd, ends).await {
        Ok(reply) => Ok(reply),
        Err(error) if error.code() == Some("WRONGTYPE") => {
            let wrong = wrong_type(connections, key, "set", ends).await;
            Err(wrong.unwrap_or_else(|| connections.error(command, error)))
        }
        Err(error) => Err(connections.error(command, error)),
    }
}

/// The error that says what a key holds, if that is not what it should.
pub(super) async fn wrong_type(
    connections: &Connections,
    key: &str,
    expected: &'static str,
    ends: Instant,
) -> Option<Error> {
    let cmd = redis::cmd("TYPE").arg(key).to_owned();
    let Ok(Value::SimpleString(found)) =
        connections.call(Lane::Shared, Slot::of(key), &cmd, ends).await
    else {
        return None;
    };
    let wrong = found != expected && found != "none";
    wrong.then(|| Error::WrongType { key: key.to_owned(), expected, found })
}

/// The elements of a script's reply.
pub(super) fn array(operation: &'static str, reply: Value) -> Result<Vec<Value>> {
    match reply {
        Value::Array(elements) => Ok(elements),
        other => Err(unexpected(operation, other)),
    }
}

pub(super) fn unexpected(operation: &'static str, reply: impl std::fmt::Debug) -> Error {
    Error::Protocol { operation, reply: beginning(reply) }
}
