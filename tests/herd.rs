//! How much a server has to do for those who wait: nothing but to be asked now and then that they still do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokenpool::{Acquired, Allocation, Manager, PluginId, Registrar, ResourceNamespace};
use tokenpool::{ResourceRegistrar, Wait};
use tokio::task::JoinSet;

use crate::support::server::Server;
use crate::support::{FREE, Fixture, claim, execution, redis_on};

const LONG: Duration = Duration::from_secs(60);
/// Units that are held, and released one after the other.
const UNITS: u64 = 20;

struct World {
    fixture: Fixture,
    server: redis::Connection,
    manager: Manager,
}

impl World {
    async fn open() -> Self {
        let server = Server::start();
        let raw = server.raw();
        let fixture = redis_on(server).await;
        let registrar = Registrar::new(Arc::clone(&fixture.backend));
        let plugin = registrar.for_plugin(PluginId::new("hive").unwrap());
        let quota = UNITS.try_into().unwrap();
        plugin.register_resource_quota(&ResourceNamespace::new("a").unwrap(), quota).unwrap();
        let manager = registrar.build().await.unwrap();
        Self { fixture, server: raw, manager }
    }

    async fn tickets(&self) -> u64 {
        self.fixture.backend.usage(&"hive:a".parse().unwrap()).await.unwrap().tickets
    }

    async fn tickets_are(&self, number: u64) {
        let start = Instant::now();
        while self.tickets().await != number {
            assert!(start.elapsed() < LONG, "never: {number} tickets");
            tokio::task::yield_now().await;
        }
    }

    /// Calls of scripts since the last look; reading usage is one, too.
    fn calls(&mut self) -> u64 {
        let stats: String = redis::cmd("INFO").arg("commandstats").query(&mut self.server).unwrap();
        redis::cmd("CONFIG").arg("RESETSTAT").exec(&mut self.server).unwrap();
        let calls = |name: &str| {
            let prefix = format!("cmdstat_{name}:calls=");
            let line = stats.lines().find_map(|line| line.strip_prefix(&prefix))?;
            line.split(',').next()?.parse::<u64>().ok()
        };
        calls("evalsha").unwrap_or_default() + calls("eval").unwrap_or_default()
    }
}

async fn acquire(manager: Manager, name: String) -> Allocation {
    let (pool, owner) = ("hive:a".parse().unwrap(), execution("p/d/e"));
    match manager.acquire(&pool, &owner, claim(&name, 1), FREE, Wait::forever()).await.unwrap() {
        Acquired::Granted(allocation) => allocation,
        other => panic!("{other:?}"),
    }
}

/// Renewals of many tickets, a few calls for all of them together every two seconds.
fn renewals(time: Duration) -> u64 {
    8 * (time.as_secs() / 2 + 1)
}

#[tokio::test]
async fn each_release_wakes_one_waiter_however_many_there_are() {
    for waiters in [30, 200] {
        let mut w = World::open().await;
        let mut held = Vec::new();
        for number in 0..UNITS {
            held.push(acquire(w.manager.clone(), format!("held-{number}")).await);
        }
        let mut waiting = JoinSet::new();
        for number in 0..waiters {
            waiting.spawn(acquire(w.manager.clone(), format!("waits-{number}")));
        }
        w.tickets_are(waiters).await;

        // Nothing happens, for so long that all were renewed.
        w.calls();
        let start = Instant::now();
        let mut idle = 0;
        while idle == 0 || start.elapsed() < Duration::from_millis(2_500) {
            tokio::time::sleep(Duration::from_millis(100)).await;
            idle += w.calls();
        }
        let most = renewals(start.elapsed());
        assert!(idle <= most, "{idle} calls for {waiters} who wait, {most} expected");

        let (start, mut woken) = (Instant::now(), Vec::new());
        for guard in held {
            guard.release().await.unwrap();
            let next = tokio::time::timeout(LONG, waiting.join_next()).await.unwrap();
            woken.push(next.unwrap().unwrap());
        }
        let (calls, time) = (w.calls(), start.elapsed());
        // One releases and one takes over.
        let most = 2 * UNITS + renewals(time);
        assert!(
            (2 * UNITS..=most).contains(&calls),
            "{calls} calls for {waiters}, {most} expected"
        );
        assert!(waiting.try_join_next().is_none(), "more were woken than units were released");
        w.tickets_are(waiters - UNITS).await;
        waiting.abort_all();
        drop(woken);
        w.tickets_are(0).await;
    }
}
