//! Keys that a server threw away because its memory was full: found, told, and put right as far as that can be known.
//!
//! A server throws away whole keys, whichever it likes, as a DEL does.

use std::time::Duration;

use redis::Commands as _;
use tokenpool::{
    CheckReport, Config, Error, Limit, Member, Order, QuotaChange, Released, Renewed, RepairReport,
};

use crate::support::clock::{Clock, server_with_clock};
use crate::support::log::{self, Log};
use crate::support::server::Server;
use crate::support::{
    FREE, Fixture, Pool, caps, claim, fence, lease, quota, redis_on, refusal, ticket, waiting,
};

/// How long the lease of `leased` is.
const LEASE: u64 = 60_000;

/// A full pool of 3: `leased` has 2 of them with a lease, `plain` 1 without; `waits` waits.
struct Stage {
    clock: Clock,
    _f: Fixture,
    pool: Pool,
}

impl Stage {
    async fn without(lost: &str) -> Self {
        let (server, clock) = server_with_clock();
        let f = redis_on(server).await;
        let pool = f.pool(3).await;
        let leased = [claim("leased", 2).with_lease(lease(LEASE))];
        fence(pool.claim_many("p/d/e", &leased, FREE).await.unwrap()[0].as_ref().unwrap());
        pool.claim("q/d/e", "plain").await.granted().unwrap();
        waiting(pool.wait("q/d/e", "waits", 1, FREE, &ticket()).await);
        pool.assert_clean().await;
        let key = if lost == "members" { pool.key() } else { pool.key_of(lost) };
        assert_eq!(pool.raw().del::<_, u32>(key).unwrap(), 1, "{lost}");
        Self { clock, _f: f, pool }
    }

    async fn check(&self) -> CheckReport {
        self.pool.backend.check(&self.pool.name).await.unwrap()
    }

    async fn repair(&self) -> RepairReport {
        let report = self.pool.backend.repair(&self.pool.name).await.unwrap();
        self.pool.assert_clean().await;
        report
    }

    async fn refuses_a_newcomer(&self) {
        let outcome = self.pool.claim("r/d/e", "new").await;
        assert!(matches!(refusal(&outcome).limit, Limit::Quota | Limit::Queue), "{outcome:?}");
    }

    /// Gives everything back, and sees who waits get it.
    async fn ends_well(&self) {
        self.refuses_a_newcomer().await;
        self.pool.release("p/d/e", "leased").await;
        self.pool.release("q/d/e", "plain").await;
        assert!(self.pool.holds("q/d/e", "waits").await);
        assert_eq!(self.pool.in_use().await, 1);
        self.pool.assert_clean().await;
    }
}

fn members(report: &[Member]) -> Vec<&str> {
    report.iter().map(Member::as_str).collect()
}

#[tokio::test]
async fn members_are_put_back_from_their_records() {
    let stage = Stage::without("members").await;
    stage.refuses_a_newcomer().await;
    let found = stage.check().await;
    assert_eq!(members(&found.removed), ["ex:p:d:e-leased", "ex:q:d:e-plain"]);
    let repaired = stage.repair().await;
    assert_eq!((repaired.restored, repaired.dropped, repaired.corrected.len()), (2, 0, 0));
    stage.ends_well().await;
}

/// Who came after the loss cannot be told from who was there; a lease tells who still is.
#[tokio::test]
async fn of_some_members_those_with_a_lease_are_put_back_and_the_others_are_another_writers_doing()
{
    let stage = Stage::without("members").await;
    assert_eq!(stage.pool.release("q/d/e", "plain").await, Released::Units(1));
    // Its units went on to the one that waits, whose member is the only one now.
    assert!(stage.pool.holds("q/d/e", "waits").await);
    assert_eq!(members(&stage.check().await.removed), ["ex:p:d:e-leased"]);
    assert_eq!(stage.repair().await.restored, 1);
    stage.refuses_a_newcomer().await;
}

#[tokio::test]
async fn what_has_no_member_is_renewed_and_released_and_claimed_again_where_there_is_room() {
    let stage = Stage::without("members").await;
    let pool = &stage.pool;
    let renewed = pool.renew("p/d/e", "leased", LEASE).await.unwrap();
    assert!(matches!(renewed, Renewed::Held(Some(_))), "{renewed:?}");
    // A full pool is not looked through for each claim that it refuses.
    assert_eq!(refusal(&pool.claim("q/d/e", "plain").await).limit, Limit::Quota);
    pool.change_quota(QuotaChange::Register(quota(9))).await;
    let again = pool.claim("q/d/e", "plain").await;
    assert!(again.granted().unwrap().held_before, "{again:?}");
    assert_eq!(pool.release("p/d/e", "leased").await, Released::Units(2));
    pool.assert_clean().await;
}

#[tokio::test]
async fn counters_are_made_again_from_records_when_the_pool_is_registered_again() {
    let stage = Stage::without("usage").await;
    let Stage { clock, pool, .. } = &stage;
    let error = pool.claim_with("r/d/e", "new", 1, FREE).await.unwrap_err();
    assert!(matches!(error, Error::UnknownNamespace { .. }), "{error}");
    let error = pool.release_many("q/d/e", &["plain"]).await.unwrap_err();
    assert!(matches!(error, Error::UnknownNamespace { .. }), "{error}");

    clock.advance(Duration::from_secs(1));
    pool.change_quota(QuotaChange::Register(quota(3))).await;
    pool.assert_clean().await;
    stage.refuses_a_newcomer().await;
    let usage = pool.usage().await;
    assert_eq!((usage.in_use, usage.holders, usage.tickets), (3, 2, 1));
    let held = pool.holdings(10).await;
    for number in held.iter().map(|held| held.record.as_ref().unwrap().fencing_number) {
        assert!(number < usage.next_fencing_number);
        assert!(!usage.has_forgotten(number), "{number} was not lost");
    }
    // Caps count what was recorded.
    pool.change_quota(QuotaChange::Register(quota(9))).await;
    let outcome = pool.claim_with("p/d/f", "more", 1, caps(Some(2), None)).await.unwrap();
    assert!(matches!(refusal(&outcome).limit, Limit::Cap(_)), "{outcome:?}");
    assert_eq!(pool.release("q/d/e", "plain").await, Released::Units(1));
    // Leases end, and who waits is granted.
    clock.advance(Duration::from_millis(LEASE + 1));
    pool.nudge().await;
    assert!(pool.holds("q/d/e", "waits").await);
    assert_eq!(pool.in_use().await, 1);
    pool.assert_clean().await;
}

#[tokio::test]
async fn leases_end_also_where_counters_were_lost_and_numbers_are_ahead_of_the_clock() {
    let stage = Stage::without("usage").await;
    let Stage { clock, pool, .. } = &stage;
    // None but the holder with a lease, whose number the clock has not reached.
    let mut raw = pool.raw();
    let _: () = raw.del(&[pool.key_of("tickets"), pool.key_of("queue")]).unwrap();
    let _: () = raw.zrem(pool.key_of("leases"), "ex:q:d:e-waits").unwrap();
    let _: () = raw.hdel(pool.key_of("grants"), "ex:q:d:e-plain").unwrap();
    let _: () = raw.srem(pool.key(), "ex:q:d:e-plain").unwrap();
    pool.change_quota(QuotaChange::Register(quota(3))).await;
    let held = pool.renew("p/d/e", "leased", LEASE).await.unwrap();
    let Renewed::Held(Some(number)) = held else { panic!("{held:?}") };
    assert!(fence(&pool.claim("q/d/e", "new").await) > number);
    clock.advance(Duration::from_millis(LEASE + 1));
    pool.nudge().await;
    assert_eq!(pool.in_use().await, 1);
}

/// Whatever is counted by then, an operator can look at it and repair it.
#[tokio::test]
async fn tickets_that_were_not_counted_are_found_withdrawn_and_repaired() {
    for below_zero in [true, false] {
        let stage = Stage::without("usage").await;
        let pool = &stage.pool;
        assert_eq!(pool.raw().del::<_, u32>(pool.key_of("queue")).unwrap(), 1);
        pool.change_quota(QuotaChange::Register(quota(3))).await;
        assert!(stage.check().await.queue_is_broken);
        if below_zero {
            // As the version before reigns counts.
            let usage = pool.key_of("usage");
            let _: i64 = pool.raw().hincr(usage, "tickets", -1).unwrap();
            assert_eq!(pool.usage().await.tickets, 0);
            assert_eq!(stage.repair().await.requeued, 1);
            stage.ends_well().await;
        } else {
            assert_eq!(pool.release("q/d/e", "waits").await, Released::Withdrawn);
            pool.assert_clean().await;
        }
    }
}

/// How many units each of them had is what cannot be known again.
#[tokio::test]
async fn members_without_records_count_as_before_until_a_repair_gives_each_a_unit() {
    let stage = Stage::without("grants").await;
    stage.refuses_a_newcomer().await;
    let error = stage.pool.renew("p/d/e", "leased", LEASE).await.unwrap_err();
    assert!(matches!(error, Error::Foreign { .. }), "{error}");
    let found = stage.check().await;
    assert_eq!(members(&found.unrecorded), ["ex:p:d:e-leased", "ex:q:d:e-plain"]);
    let drift: Vec<_> = found.drift.iter().map(ToString::to_string).collect();
    assert!(drift.contains(&"pool: counter says 3, records say 0".to_owned()), "{drift:?}");
    let repaired = stage.repair().await;
    assert_eq!((repaired.adopted, repaired.dropped), (2, 0));
    // Of the three units two are known of, and the third went to the one that waits.
    assert_eq!(stage.pool.in_use().await, 3);
    assert!(stage.pool.holds("q/d/e", "waits").await);
    assert_eq!(stage.pool.release("p/d/e", "leased").await, Released::Units(1));
}

/// Whoever comes back brings its units along, so that a repair after that is exact.
#[tokio::test]
async fn a_member_that_is_claimed_again_has_its_units_again() {
    let stage = Stage::without("grants").await;
    let leased = [claim("leased", 2).with_lease(lease(LEASE))];
    let answers = stage.pool.claim_many("p/d/e", &leased, FREE).await.unwrap();
    fence(answers[0].as_ref().unwrap());
    fence(&stage.pool.claim("q/d/e", "plain").await);
    stage.refuses_a_newcomer().await;
    let repaired = stage.repair().await;
    assert_eq!((repaired.adopted, repaired.corrected.len()), (0, 5));
    stage.ends_well().await;
}

#[tokio::test]
async fn without_leases_tickets_are_found_and_get_new_ones_and_holders_when_they_claim() {
    let stage = Stage::without("leases").await;
    let Stage { clock, pool, .. } = &stage;
    stage.refuses_a_newcomer().await;
    assert!(stage.check().await.queue_is_broken);
    assert_eq!(stage.repair().await.requeued, 1);
    // Which grants had leases is not known, so nothing ends that was held, until it is claimed again.
    let renewed = pool.renew("p/d/e", "leased", LEASE).await.unwrap();
    assert!(matches!(renewed, Renewed::Held(Some(_))), "{renewed:?}");
    clock.advance(Duration::from_millis(2 * LEASE));
    pool.nudge().await;
    assert!(pool.holds("p/d/e", "leased").await);
    let leased = [claim("leased", 2).with_lease(lease(LEASE))];
    let answers = pool.claim_many("p/d/e", &leased, FREE).await.unwrap();
    assert!(answers[0].as_ref().unwrap().granted().unwrap().held_before);
    clock.advance(Duration::from_millis(LEASE + 1));
    pool.nudge().await;
    assert!(!pool.holds("p/d/e", "leased").await);
    pool.assert_clean().await;
}

#[tokio::test]
async fn tickets_without_records_are_found_and_claimed_again() {
    let stage = Stage::without("tickets").await;
    stage.refuses_a_newcomer().await;
    assert!(stage.check().await.queue_is_broken);
    let renewed = stage.pool.renew("q/d/e", "waits", LEASE).await.unwrap();
    assert_eq!(renewed, Renewed::Lost);
    stage.repair().await;
    waiting(stage.pool.wait("q/d/e", "waits", 1, FREE, &ticket()).await);
    stage.ends_well().await;
}

#[tokio::test]
async fn a_ticket_without_a_place_is_found_and_gets_one_when_it_is_claimed_or_repaired() {
    for lost in ["queue", "lines", "turns"] {
        for claimed in [true, false] {
            let stage = Stage::without(lost).await;
            assert!(stage.check().await.queue_is_broken, "{lost}");
            if claimed && lost == "queue" {
                let ticket = waiting(stage.pool.wait("q/d/e", "waits", 1, FREE, &ticket()).await);
                assert_eq!(ticket.position, 1);
                stage.pool.assert_clean().await;
            } else {
                assert_eq!(stage.repair().await.requeued, 1, "{lost}");
            }
            stage.ends_well().await;
        }
    }
}

/// The order begins anew, and nothing else was in them.
#[tokio::test]
async fn fair_shares_and_the_journal_may_go() {
    let f = redis_on(Server::start()).await;
    let pool = f.pool(1).await;
    pool.order(Order::Fair).await;
    pool.claim("p/d/e", "1").await.granted().unwrap();
    waiting(pool.wait("q/d/e", "2", 1, FREE, &ticket()).await);
    waiting(pool.wait("r/d/e", "3", 1, FREE, &ticket()).await);
    assert_eq!(pool.revoke("p/d/e", "1").await, Released::Units(1));
    for lost in ["shares", "journal"] {
        assert_eq!(pool.raw().del::<_, u32>(pool.key_of(lost)).unwrap(), 1, "{lost}");
    }
    pool.assert_clean().await;
    pool.release("q/d/e", "2").await;
    assert!(pool.holds("r/d/e", "3").await);
    pool.assert_clean().await;
}

#[tokio::test]
async fn a_server_that_may_throw_pools_away_is_told_of_once() {
    for (policy, memory, told) in [
        ("allkeys-lru", "100mb", 1),
        ("allkeys-lru", "0", 0),
        ("volatile-lru", "100mb", 0),
        ("noeviction", "100mb", 0),
    ] {
        let server = Server::start_with(&["--maxmemory", memory, "--maxmemory-policy", policy]);
        log::keep_audible();
        let log = Log::default();
        let guard = tracing::subscriber::set_default(log.clone());
        let backend = Config::redis_at(server.url()).unwrap().open().await.unwrap();
        backend.pools().await.unwrap();
        drop(guard);
        let lines = log.lines("maxmemory-policy");
        assert_eq!(lines.len(), told, "{policy} {memory}: {lines:?}");
        assert!(lines.iter().all(|line| line.contains(policy)), "{lines:?}");
    }
}
