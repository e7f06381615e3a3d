//! A load on the server: 50 connections, 32 calls deep.
//!
//! One thread drives them all: on a machine of two cores a second would take time from the server,
//! and its counters would show that as the scripts' cost.

use redis::{Cmd, Connection, Value};

use crate::server::Server;

const CONNECTIONS: usize = 50;
const DEPTH: usize = 32;

/// Calls that fill every connection once.
pub(crate) const FULL: usize = CONNECTIONS * DEPTH;

/// Connections that a load is put on.
pub(crate) struct Load(Vec<Connection>);

/// Calls as they go over the wire, packed before the clock runs.
pub(crate) struct Packed(Vec<(Vec<u8>, usize)>);

impl Packed {
    pub(crate) fn new(calls: impl IntoIterator<Item = Cmd>) -> Self {
        let mut batches = vec![(Vec::new(), 0)];
        for call in calls {
            if batches.last().is_some_and(|&(_, calls)| calls == DEPTH) {
                batches.push((Vec::new(), 0));
            }
            if let Some((bytes, calls)) = batches.last_mut() {
                bytes.extend(call.get_packed_command());
                *calls += 1;
            }
        }
        Self(batches)
    }
}

impl Load {
    pub(crate) fn connect(server: &Server) -> Self {
        Self((0..CONNECTIONS).map(|_| server.raw()).collect())
    }

    /// A load whose calls the server runs in their order.
    pub(crate) fn in_order(server: &Server) -> Self {
        Self(vec![server.raw()])
    }

    /// Sends all calls, and requires that the answers begin with these words in turn.
    pub(crate) fn run(&mut self, calls: &Packed, answers: &[&str]) {
        let Packed(batches) = calls;
        let connections = self.0.len();
        for turn in 0..batches.len() + connections {
            let connection = &mut self.0[turn % connections];
            let before = turn.checked_sub(connections).and_then(|before| batches.get(before));
            if let Some((_, count)) = before {
                receive(connection, *count, answers);
            }
            if let Some((bytes, _)) = batches.get(turn) {
                let sent = connection.send_packed_command(bytes);
                sent.expect("the server takes calls");
            }
        }
    }
}

fn receive(connection: &mut Connection, count: usize, answers: &[&str]) {
    for answer in answers.iter().cycle().take(count) {
        let reply = connection.recv_response().expect("the server answers");
        assert!(begins(&reply, answer), "{reply:?} instead of {answer:?}");
    }
}

/// Whether a reply, or every element of one, begins with the word.
fn begins(reply: &Value, word: &str) -> bool {
    match reply {
        Value::BulkString(bytes) => bytes.starts_with(word.as_bytes()),
        Value::Int(number) => number.to_string() == word,
        // Nothing, in an array, is something else that was looked for.
        Value::Array(values) => {
            values.iter().all(|value| *value == Value::Nil || begins(value, word))
        }
        _ => false,
    }
}
