//! Who decides: a server from its start to its end, or as long as it has a pool, reigns over that pool.
//!
//! A server that takes over may have forgotten the last grants of the one before it, and nothing that it keeps says so. So
//! it is told that it reigns, by whoever uses a pool through a connection first, before the first call that could admit
//! anybody; then its fencing numbers go on behind all that can be forgotten, and the pool learns who holds its units, if that is
//! configured.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::{Cmd, Value};

use super::connect::Request;
use super::keys::usage_key;
use super::reply::Fields;
use super::scripts;

/// Most pools that are remembered on one connection: locks may have ever new names. Beyond that all are told again.
const MOST: usize = 10_000;

/// What is known on one connection about the reign of the server at its other end.
#[derive(Debug)]
pub(super) struct Reign {
    /// The server's name of this run of it; none if it does not tell.
    server: Option<String>,
    /// Keys of the pools for which it knows that it reigns.
    pools: Mutex<HashSet<Box<[u8]>>>,
}

/// What is sent with a request, so that no server answers that without knowing that it reigns.
#[derive(Default)]
pub(super) struct Announcements<'a> {
    /// Of the pools that it does not know of.
    pub(super) before: Vec<Cmd>,
    /// Of those that the request may make: they may be other ones now.
    pub(super) behind: Vec<Cmd>,
    /// The pools of all of them, in this order.
    pub(super) pools: Vec<&'a [u8]>,
}

impl Reign {
    /// That of the server with this name.
    pub(super) fn of(server: Option<&str>) -> Self {
        Self { server: server.map(str::to_owned), pools: Mutex::default() }
    }

    /// Whether the server tells who it is.
    pub(super) fn is_known(&self) -> bool {
        self.server.is_some()
    }

    /// What lets the server know that it reigns over the pools of a request.
    pub(super) fn announcements<'a>(
        &self,
        request: &Request<'a>,
        period: Duration,
    ) -> Announcements<'a> {
        let mut all = Announcements::default();
        let Some(server) = &self.server else { return all };
        let period = u64::try_from(period.as_millis()).unwrap_or(u64::MAX);
        let mut add = |pool: &'a [u8], is_told: bool| {
            let pool_key = str::from_utf8(pool).ok()?;
            let mut call = scripts::REIGN.on(&[&usage_key(pool_key)]);
            call.arg(server).arg(period).arg(if is_told { "1" } else { "0" });
            all.pools.push(pool);
            // With its text, since it is sent but once for each pool and connection.
            Some(call.with_source())
        };
        all.before = request
            .pools()
            .filter(|pool| !self.knows(pool))
            .filter_map(|pool| add(pool, false))
            .collect();
        if request.makes_pools() {
            all.behind = request.pools().filter_map(|pool| add(pool, true)).collect();
        }
        all
    }

    /// Notes what was answered about these pools.
    pub(super) fn announced(&self, pools: &[&[u8]], answers: Vec<Value>) {
        for (&pool, answer) in pools.iter().zip(answers) {
            match answer {
                Value::Array(_) => {
                    self.note(pool);
                    self.report(pool, answer);
                }
                // It moved, is read-only, or has no memory: the call that comes after it hears the same.
                Value::ServerError(error) => {
                    tracing::debug!(server = self.server, %error, "a reign is not announced");
                }
                // A pool that does not exist is looked at again.
                _ => {}
            }
        }
    }

    fn report(&self, pool: &[u8], answer: Value) {
        let Some(mut fields) = Fields::new(answer) else { return };
        let (_, before, until) = (fields.text(), fields.text(), fields.text());
        let before = before.filter(|before| !before.is_empty());
        if before.is_some() && before != self.server {
            let (pool, learns_until) = (String::from_utf8_lossy(pool), until.unwrap_or_default());
            let server = &self.server;
            tracing::warn!(%pool, server, before, learns_until, "another server decides than before");
        }
    }

    fn note(&self, pool: &[u8]) {
        let mut pools = self.pools();
        if pools.len() >= MOST {
            pools.clear();
        }
        pools.insert(pool.into());
    }

    fn knows(&self, pool: &[u8]) -> bool {
        self.pools().contains(pool)
    }

    fn pools(&self) -> MutexGuard<'_, HashSet<Box<[u8]>>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_does_not_grow_for_ever() {
        let reign = Reign { server: Some("run".to_owned()), pools: Mutex::default() };
        for number in 0..=MOST {
            let pool = number.to_string();
            reign.announced(&[pool.as_bytes()], vec![Value::Array(Vec::new())]);
            assert!(reign.knows(pool.as_bytes()));
        }
        assert!(reign.pools().len() <= MOST);
    }
}
