//! Clients of an earlier version beside those of this one, and pools of a later one.
//!
//! Random sequences of both are in `sequences`.

mod earlier;
mod schema;

use std::time::Duration;

use redis::Commands as _;
use tokenpool::{Config, Limit, Outcome, QuotaChange, Released, Renewed};

pub(crate) use self::earlier::Earlier;
use crate::support::clock::{Clock, server_with_clock};
use crate::support::server::Server;
use crate::support::{
    FREE, Pool, claim, connect, fence, fixture, lease, quota, refusal, ticket, waiting,
};

/// How long pools learn after data were lost.
const PERIOD: Duration = Duration::from_secs(30);

/// One pool, and clients of both versions.
struct Both {
    clock: Clock,
    earlier: Pool,
    present: Pool,
    _way: Earlier,
}

impl Both {
    /// A pool that the earlier version made.
    async fn start(units: i64) -> Self {
        let (server, clock) = server_with_clock();
        let way = Earlier::before(&server);
        let present = open(&server).await;
        let f = fixture(present, Some(server.into()));
        let present = f.handle(None);
        let earlier = present.through(connect(&way.url()).await);
        earlier.change_quota(QuotaChange::Register(quota(units))).await;
        Self { clock, earlier, present, _way: way }
    }

    fn usage(&self, field: &str) -> Option<String> {
        self.present.raw().hget(self.present.key_of("usage"), field).unwrap()
    }
}

async fn open(server: &Server) -> std::sync::Arc<dyn tokenpool::Backend> {
    let mut config = Config::redis_at(server.url()).unwrap();
    config.redis.command_timeout = Duration::from_secs(15);
    config.redis.learning_period = PERIOD;
    config.open().await.unwrap()
}

#[track_caller]
fn learns(outcome: &Outcome) {
    let limit = &refusal(outcome).limit;
    assert!(matches!(limit, Limit::Learning { .. }), "{limit}");
}

#[tokio::test]
async fn a_pool_of_the_earlier_version_is_gone_on_with() {
    let both = Both::start(3).await;
    let Both { clock, earlier, present, .. } = &both;
    let first = earlier.claim("p/d/e", "held").await;
    let leased = [claim("leased", 1).with_lease(lease(10_000))];
    let second = earlier.claim_many("p/d/e", &leased, FREE).await.unwrap().remove(0).unwrap();
    earlier.claim("p/d/f", "third").await.granted().unwrap();
    let known = earlier.queue_up("q/d/e", "waits").await;
    for field in ["server", "learns_for", "learns_until"] {
        assert_eq!(both.usage(field), None, "{field}");
    }

    // The first that this version does lets the server know that it reigns; nothing was lost.
    let again = present.claim_with("p/d/e", "held", 1, FREE).await.unwrap();
    assert_eq!(fence(&again), fence(&first));
    assert_eq!(both.usage("server"), Some(crate::wire::run_id(&mut present.raw())));
    assert_eq!(both.usage("learns_until"), None);
    assert_eq!(present.usage().await.learning, None);
    present.change_quota(QuotaChange::Register(quota(3))).await;
    assert_eq!(both.usage("learns_for").as_deref(), Some("30000"));
    earlier.change_quota(QuotaChange::Register(quota(3))).await;
    assert_eq!(both.usage("learns_for").as_deref(), Some("30000"));

    // The one renews what the other granted, and hands on what the other filed.
    let renewed = present.renew("p/d/e", "leased", 5000).await.unwrap();
    assert_eq!(renewed, Renewed::Held(Some(fence(&second))));
    assert_eq!(present.release("p/d/f", "third").await, Released::Units(1));
    let handed = present.claim("q/d/e", "waits").await;
    assert!(fence(&handed) >= known.next_fencing_number);
    waiting(present.wait("r/d/e", "later", 1, FREE, &ticket()).await);
    clock.advance(Duration::from_millis(5001));
    earlier.nudge().await;
    assert!(earlier.holds("r/d/e", "later").await);
    assert!(!present.holds("p/d/e", "leased").await);
    present.assert_clean().await;
}

/// What the earlier version cannot know, as `lua/README.md` says.
#[tokio::test]
async fn while_a_pool_learns_the_earlier_version_admits_anybody_within_the_quota() {
    let both = Both::start(2).await;
    let Both { clock, earlier, present, .. } = &both;
    let _: () = present.raw().hset(present.key_of("usage"), "server", "before").unwrap();
    let before = present.usage().await.next_fencing_number;
    clock.advance(Duration::from_secs(1));
    learns(&present.claim("p/d/e", "1").await);
    waiting(present.wait("p/d/e", "waits", 1, FREE, &ticket()).await);

    let granted = fence(&earlier.claim("q/d/e", "1").await);
    assert!(granted > before);
    // It hands on as well, to the one that waits.
    assert!(earlier.holds("p/d/e", "waits").await);
    let refused = earlier.claim("q/d/e", "2").await;
    assert_eq!(refusal(&refused).limit, Limit::Quota);
    assert_eq!(present.in_use().await, 2);

    // What it did has not ended learning, and what ends learning is done by either.
    assert!(present.usage().await.learning.is_some());
    assert_eq!(earlier.release("q/d/e", "1").await, Released::Units(1));
    learns(&present.claim("p/d/e", "2").await);
    clock.advance(PERIOD);
    present.claim("p/d/e", "2").await.granted().unwrap();
    present.assert_clean().await;
}
