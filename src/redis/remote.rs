//! A pool on the server: calling scripts on it, and what they may answer instead.

use std::borrow::Cow;

use redis::{Cmd, RedisError, Value};

use super::connect::{Connections, Lane};
use super::keys::PoolKeys;
use super::reply::{Answer, Fields};
use super::scripts::Call;
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
    pub(super) keys: PoolKeys,
    connections: &'a Connections,
}

impl<'a> RemotePool<'a> {
    pub(super) fn new(connections: &'a Connections, name: &'a PoolName) -> Self {
        Self { name, keys: PoolKeys::new(name), connections }
    }

    /// Where a process hears of this pool.
    pub(super) async fn channel<'c>(&self, channel: &'c Channel) -> Result<Cow<'c, str>> {
        self.connections.channel(&self.keys.pool, channel).await
    }

    /// The script's reply, if it is about an existing pool of this schema.
    pub(super) async fn call(&self, call: &Call) -> Result<Value> {
        match call.send(self.connections).await {
            Ok(reply) => self.expect_pool(reply),
            Err(error) => Err(self.error(call.operation(), error).await),
        }
    }

    /// The reply of a command on one of the pool's keys.
    pub(super) async fn command(&self, operation: &'static str, cmd: &Cmd) -> Result<Value> {
        match self.connections.once(Lane::Own, cmd).await {
            Ok(reply) => Ok(reply),
            Err(error) => Err(self.error(operation, error).await),
        }
    }

    /// As [`call`](Self::call), for scripts that reply with an array.
    pub(super) async fn call_for_fields(&self, call: &Call) -> Result<Fields> {
        let reply = self.call(call).await?;
        Fields::new(reply).ok_or_else(|| unexpected(call.operation(), "not an array"))
    }

    /// As [`call`](Self::call), for several calls that reply with arrays: all elements, in order.
    pub(super) async fn call_all(&self, calls: &[Call]) -> Result<Vec<Value>> {
        let Some(first) = calls.first() else { return Ok(Vec::new()) };
        let operation = first.operation();
        let replies = match calls {
            [call] => call.send(self.connections).await.map(|reply| vec![reply]),
            calls => Call::send_all(calls, self.connections).await,
        };
        let replies = match replies {
            Ok(replies) => replies,
            Err(error) => return Err(self.error(operation, error).await),
        };
        let mut elements = Vec::new();
        for reply in replies {
            match self.expect_pool(reply)? {
                Value::Array(more) => elements.extend(more),
                other => return Err(unexpected(operation, other)),
            }
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
    async fn error(&self, operation: &'static str, error: RedisError) -> Error {
        // Redis 6.2 puts its own words around those of a command that fails in a script.
        if error.to_string().contains("WRONGTYPE") {
            for (key, expected) in self.keys.types() {
                if let Some(wrong) = wrong_type(self.connections, key, expected).await {
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
    match connections.once(lane, &cmd).await {
        Ok(reply) => Ok(reply),
        Err(error) if error.code() == Some("WRONGTYPE") => {
            let wrong = wrong_type(connections, key, "set").await;
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
) -> Option<Error> {
    let cmd = redis::cmd("TYPE").arg(key).to_owned();
    let Ok(Value::SimpleString(found)) = connections.once(Lane::Shared, &cmd).await else {
        return None;
    };
    let wrong = found != expected && found != "none";
    wrong.then(|| Error::WrongType { key: key.to_owned(), expected, found })
}

pub(super) fn unexpected(operation: &'static str, reply: impl std::fmt::Debug) -> Error {
    Error::Protocol { operation, reply: format!("{reply:?}") }
}
