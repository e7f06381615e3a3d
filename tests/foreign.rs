//! Pools that other writers change, too: a Flyte propeller, which knows the SET only.

use redis::Commands;
use tokenpool::{
    Claimant, Error, Holder, Joint, JointOutcome, Member, Outcome, QuotaChange, Released,
};

use crate::support::server::Server;
use crate::support::{
    FREE, Pool, caps, claim, everything, execution, fence, lease, quota, redis_on, refusal,
    revocation, ticket, waiting,
};

const A: &str = "flytesnacks/development/a";

/// A pool, and a connection for the other writer.
struct Shared {
    connection: redis::Connection,
    pool: Pool,
}

impl Shared {
    async fn new(units: i64) -> Self {
        let pool = redis_on(Server::start()).await.pool(units).await;
        Self { connection: pool.raw(), pool }
    }

    fn adds(&mut self, member: &str) {
        assert!(self.connection.sadd::<_, _, bool>(self.pool.key(), member).unwrap());
    }

    fn removes(&mut self, member: &str) {
        assert!(self.connection.srem::<_, _, bool>(self.pool.key(), member).unwrap());
    }
}

#[tokio::test]
async fn a_member_of_another_writer_is_held_and_counted_once_claimed() {
    for full in [false, true] {
        let mut shared = Shared::new(2).await;
        let pool = &shared.pool;
        pool.claim(A, "1").await.granted().unwrap();
        if full {
            pool.claim(A, "2").await.granted().unwrap();
        }
        shared.adds("ex:flytesnacks:development:a-theirs");
        let outcome = shared.pool.claim_with(A, "theirs", 1, caps(Some(1), None)).await.unwrap();
        let number = fence(&outcome);
        assert_eq!(shared.pool.in_use().await, if full { 3 } else { 2 });
        let again = shared.pool.claim(A, "theirs").await;
        assert_eq!(fence(&again), number);
        shared.pool.assert_clean().await;
        assert_eq!(shared.pool.release(A, "theirs").await, Released::Units(1));
        shared.pool.assert_clean().await;
    }
}

#[tokio::test]
async fn a_batch_counts_another_writers_members_too() {
    let mut shared = Shared::new(2).await;
    shared.adds("ex:flytesnacks:development:a-theirs");
    let claims = [claim("1", 2), claim("theirs", 1), claim("2", 1)];
    let answers = shared.pool.claim_many(A, &claims, FREE).await.unwrap();
    let granted: Vec<_> =
        answers.iter().map(|answer| matches!(answer, Ok(Outcome::Granted(_)))).collect();
    assert_eq!(granted, [true, true, false]);
    assert_eq!(shared.pool.in_use().await, 3);
    shared.pool.assert_clean().await;
}

#[tokio::test]
async fn another_writers_member_can_be_released_without_having_been_counted() {
    let mut shared = Shared::new(2).await;
    shared.adds("ex:flytesnacks:development:a-theirs");
    assert_eq!(shared.pool.release(A, "theirs").await, Released::Units(0));
    assert_eq!(shared.pool.release(A, "theirs").await, Released::NotHeld);
    shared.pool.assert_clean().await;
}

#[tokio::test]
async fn a_record_whose_member_another_writer_removed_counts_until_claimed_or_repaired() {
    let mut shared = Shared::new(3).await;
    // While anybody is left, the server has not lost them all.
    shared.pool.claim(A, "2").await.granted().unwrap();
    let first = shared.pool.claim(A, "1").await;
    shared.removes("ex:flytesnacks:development:a-1");
    assert_eq!(shared.pool.in_use().await, 2);
    // Claimed again, it is the same grant.
    assert_eq!(fence(&shared.pool.claim(A, "1").await), fence(&first));
    shared.pool.assert_clean().await;
    shared.removes("ex:flytesnacks:development:a-1");
    let error = shared.pool.claim_with(A, "1", 2, FREE).await.unwrap();
    refusal(&error);
    let report = shared.pool.backend.repair(&shared.pool.name).await.unwrap();
    assert_eq!((report.adopted, report.dropped), (0, 1));
    assert_eq!(shared.pool.in_use().await, 1);
    shared.pool.assert_clean().await;
}

#[tokio::test]
async fn a_removed_members_record_with_other_units_stays_a_conflict() {
    let mut shared = Shared::new(5).await;
    shared.pool.claim_with(A, "1", 2, FREE).await.unwrap().granted().unwrap();
    shared.removes("ex:flytesnacks:development:a-1");
    for claims in [vec![claim("1", 1)], vec![claim("1", 1), claim("1", 3)]] {
        for answer in shared.pool.claim_many(A, &claims, FREE).await.unwrap() {
            let error = answer.unwrap_err();
            assert!(matches!(error, Error::Conflict { held_units: 2, .. }), "{error}");
        }
    }
    // The member was not put back by the refused claims.
    let report = shared.pool.backend.check(&shared.pool.name).await.unwrap();
    assert_eq!((report.members, report.removed.len(), report.drift.len()), (0, 1, 0));
}

#[tokio::test]
async fn check_finds_what_others_changed_and_repair_makes_it_right() {
    let mut shared = Shared::new(10).await;
    shared.pool.claim_with(A, "1", 2, FREE).await.unwrap().granted().unwrap();
    shared.pool.claim_with("p/d/b", "2", 3, FREE).await.unwrap().granted().unwrap();
    shared.adds("ex:p:d:c-theirs");
    shared.adds("ns1-token1");
    shared.removes("ex:flytesnacks:development:a-1");
    let usage = shared.pool.key_of("usage");
    let _: () = redis::pipe()
        .hincr(&usage, "issue_limit", 4)
        .hincr(&usage, "p:p", -1)
        .hset(&usage, "d:gone:gone", 7)
        .query(&mut shared.connection)
        .unwrap();

    let (backend, name) = shared.pool.handles();
    let report = backend.check(&name).await.unwrap();
    let drift: Vec<_> = report.drift.iter().map(ToString::to_string).collect();
    let expected = [
        "pool: counter says 1, records say 5",
        "project p: counter says 2, records say 3",
        "domain gone:gone: counter says 7, records say 0",
    ];
    assert_eq!(drift, expected);
    let names = |members: &[Member]| members.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(&report.unrecorded), ["ex:p:d:c-theirs", "ns1-token1"]);
    assert_eq!(names(&report.removed), ["ex:flytesnacks:development:a-1"]);
    assert!(!report.is_clean());

    let before = shared.pool.usage().await.next_fencing_number;
    let repaired = backend.repair(&name).await.unwrap();
    assert_eq!((repaired.adopted, repaired.dropped, repaired.corrected.len()), (2, 1, 3));
    shared.pool.assert_clean().await;
    let usage = shared.pool.usage().await;
    assert_eq!((usage.in_use, usage.holders), (5, 3));
    assert!(usage.next_fencing_number >= before);
    assert_eq!(backend.repair(&name).await.unwrap(), Default::default());

    // What was adopted is held by whoever claims it, and can be released by an operator.
    shared.pool.claim("p/d/c", "theirs").await.granted().unwrap();
    assert_eq!(shared.pool.in_use().await, 5);
    let odd =
        shared.pool.holdings(10).await.into_iter().find(|h| h.member.as_str() == "ns1-token1");
    let odd = odd.unwrap().member;
    assert_eq!(backend.revoke(&name, &odd, &revocation()).await.unwrap(), Released::Units(1));
    shared.pool.assert_clean().await;
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_replaced_by_one_of_a_unit() {
    let mut shared = Shared::new(10).await;
    shared.pool.claim(A, "1").await.granted().unwrap();
    let grants = shared.pool.key_of("grants");
    let member = "ex:flytesnacks:development:a-1";
    let _: () = shared.connection.hset(&grants, member, "nonsense").unwrap();
    let (backend, name) = shared.pool.handles();
    let report = backend.check(&name).await.unwrap();
    assert_eq!(report.unrecorded.len(), 1);
    backend.repair(&name).await.unwrap();
    shared.pool.assert_clean().await;
    assert_eq!(shared.pool.in_use().await, 1);
}

/// An operator must be able to see, repair or delete what somebody's hand made nonsense of.
#[tokio::test]
async fn counters_below_zero_are_shown_as_zero_and_can_be_repaired_or_deleted() {
    for repaired in [true, false] {
        let mut shared = Shared::new(4).await;
        shared.pool.claim(A, "1").await.granted().unwrap();
        let usage = shared.pool.key_of("usage");
        let _: () = redis::pipe()
            .hincr(&usage, "issue_limit", 3)
            .hincr(&usage, "p:flytesnacks", -3)
            .hincr(&usage, "d:flytesnacks:development", -3)
            .query(&mut shared.connection)
            .unwrap();
        let (backend, name) = shared.pool.handles();
        let seen = shared.pool.usage().await;
        assert_eq!((seen.in_use, seen.holders), (0, 1));
        assert!(seen.scopes.values().all(|&units| units == 0), "{seen:?}");
        for (units, caps) in [(9, FREE), (5, caps(Some(2), None)), (5, caps(None, Some(2)))] {
            let outcome = shared.pool.claim_with(A, "2", units, caps).await.unwrap();
            assert_eq!(refusal(&outcome).in_use, 0);
        }
        if repaired {
            assert_eq!(backend.repair(&name).await.unwrap().corrected.len(), 3);
            shared.pool.assert_clean().await;
            assert_eq!(shared.pool.in_use().await, 1);
        } else {
            let deletion = tokenpool::Deletion::OnlyUnused;
            let error = backend.delete_pool(&name, deletion).await.unwrap_err();
            assert!(matches!(error, Error::PoolInUse { holders: 1, units: 0, .. }), "{error}");
            let deletion = tokenpool::Deletion::EvenInUse;
            assert_eq!(backend.delete_pool(&name, deletion).await.unwrap(), 0);
            assert_eq!(everything(&mut shared.connection), []);
        }
    }
}

/// Of many repairs at once each correction is applied once.
#[tokio::test]
async fn repairs_at_once_do_not_add_up() {
    let mut shared = Shared::new(10).await;
    shared.pool.claim_with(A, "1", 2, FREE).await.unwrap().granted().unwrap();
    let usage = shared.pool.key_of("usage");
    let _: () = shared.connection.hincr(&usage, "issue_limit", 4).unwrap();
    shared.adds("ex:p:d:c-theirs");
    let repairs: Vec<_> = (0..8)
        .map(|_| {
            let (backend, name) = shared.pool.handles();
            tokio::spawn(async move { backend.repair(&name).await.unwrap() })
        })
        .collect();
    let mut adopted = 0;
    for repair in repairs {
        adopted += repair.await.unwrap().adopted;
    }
    assert_eq!(adopted, 1);
    shared.pool.assert_clean().await;
    assert_eq!(shared.pool.in_use().await, 3);
}

/// More members than fit on a page, so that several pages must belong together.
#[tokio::test]
async fn large_pools_are_checked_and_repaired_page_by_page() {
    let mut shared = Shared::new(1_000_000).await;
    let members: Vec<_> = (0..12_000).map(|i| format!("ex:p:d:e-{i}")).collect();
    let key = shared.pool.key();
    let _: () = shared.connection.sadd(key, members).unwrap();
    let (backend, name) = shared.pool.handles();
    assert_eq!(backend.check(&name).await.unwrap().unrecorded.len(), 12_000);
    assert_eq!(backend.repair(&name).await.unwrap().adopted, 12_000);
    shared.pool.assert_clean().await;
    assert_eq!(shared.pool.holdings(500).await.len(), 12_000);
    assert_eq!(shared.pool.in_use().await, 12_000);
}

#[tokio::test]
async fn somebody_elses_data_under_our_keys_is_named_and_left_alone() {
    for key in ["pool", "usage", "grants"] {
        let mut shared = Shared::new(10).await;
        let (backend, name) = shared.pool.handles();
        let (full, expected) = match key {
            "pool" => (shared.pool.key(), "set"),
            "usage" => (shared.pool.key_of("usage"), "hash"),
            _ => (shared.pool.key_of("grants"), "hash"),
        };
        let _: () = shared.connection.del(&full).unwrap();
        let _: () = shared.connection.set(&full, "somebody else's").unwrap();
        let before = everything(&mut shared.connection);
        let pool = &shared.pool;
        let errors = [
            pool.claim_with(A, "1", 1, caps(Some(5), Some(5))).await.err(),
            pool.claim_many(A, &[claim("1", 1), claim("2", 1)], FREE).await.err(),
            backend.delete_pool(&name, tokenpool::Deletion::EvenInUse).await.err(),
            backend.check(&name).await.err(),
            backend.repair(&name).await.err(),
        ];
        let message = format!("key {full:?} holds a string where this library keeps a {expected}");
        for error in errors {
            let error = error.unwrap();
            assert_eq!(error.to_string(), message);
            assert!(!error.is_retryable());
        }
        if key == "usage" {
            let register = QuotaChange::Register(quota(1));
            let error = backend.change_quota(&name, register).await.unwrap_err();
            assert_eq!(error.to_string(), message);
        }
        if key != "grants" {
            // Without a record there is nothing in `grants` to look at.
            let error = pool.release_many(A, &["1"]).await.unwrap_err();
            assert_eq!(error.to_string(), message);
        }
        assert_eq!(everything(&mut shared.connection), before);
    }
}

#[tokio::test]
async fn a_list_of_pools_that_is_somebody_elses_is_named() {
    let mut shared = Shared::new(10).await;
    let (backend, _) = shared.pool.handles();
    let _: () = shared.connection.del("tokenpool:pools").unwrap();
    let _: () = shared.connection.set("tokenpool:pools", "x").unwrap();
    let error = backend.pools().await.unwrap_err().to_string();
    assert_eq!(error, "key \"tokenpool:pools\" holds a string where this library keeps a set");
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let mut shared = Shared::new(10).await;
    let usage = shared.pool.key_of("usage");
    let _: () = redis::pipe()
        .hset(&usage, "schema", 2)
        .hdel(&usage, "issue_limit")
        .query(&mut shared.connection)
        .unwrap();
    let pool = &shared.pool;
    let (backend, name) = (&pool.backend, &pool.name);
    let errors = [
        pool.claim_with(A, "1", 1, FREE).await.err(),
        pool.claim_many(A, &[claim("1", 1), claim("2", 1)], FREE).await.err(),
        pool.release_many(A, &["1"]).await.err(),
        backend.change_quota(name, QuotaChange::Register(quota(1))).await.err(),
        backend.delete_pool(name, tokenpool::Deletion::EvenInUse).await.err(),
        backend.usage(name).await.err(),
        backend.holders(name, Default::default(), 10).await.err(),
        backend.check(name).await.err(),
        backend.repair(name).await.err(),
    ];
    for error in errors {
        let text = error.unwrap().to_string();
        assert_eq!(text, format!("pool {name} has schema 2; this version understands schema 1"));
    }
}

#[tokio::test]
async fn another_writers_member_cannot_be_renewed() {
    let mut shared = Shared::new(2).await;
    shared.adds("ex:flytesnacks:development:a-theirs");
    let before = everything(&mut shared.connection);
    let error = shared.pool.renew(A, "theirs", 1000).await.unwrap_err();
    assert!(matches!(error, Error::Foreign { .. }), "{error}");
    assert!(error.to_string().starts_with("ex:flytesnacks:development:a-theirs was put into"));
    assert_eq!(everything(&mut shared.connection), before);
}

/// Whoever finds it: it must not be granted and counted once more when its ticket's turn comes.
#[tokio::test]
async fn a_waiting_token_that_another_writer_adds_is_counted_once() {
    for finder in ["wait", "claim", "batch", "several pools", "repair", "turn"] {
        let mut shared = Shared::new(3).await;
        let pool = &shared.pool;
        pool.claim_with(A, "held", 3, FREE).await.unwrap().granted().unwrap();
        let with_lease = claim("theirs", 1).with_lease(lease(600_000));
        let (theirs, next) = ("q/d/b", "r/d/c");
        let turn = pool.try_wait(theirs, &with_lease, FREE, &ticket()).await.unwrap();
        waiting(turn);
        pool.queue_up(next, "2").await;
        shared.adds("ex:q:d:b-theirs");
        let pool = &shared.pool;
        let (backend, name) = pool.handles();
        match finder {
            "wait" => {
                let turn = pool.try_wait(theirs, &with_lease, FREE, &ticket()).await.unwrap();
                assert!(turn.granted().is_some());
            }
            "claim" => drop(pool.claim(theirs, "theirs").await.granted().unwrap()),
            "batch" => {
                let claims = [claim("x", 1), with_lease];
                let answers = pool.claim_many(theirs, &claims, FREE).await.unwrap();
                answers[1].as_ref().unwrap().granted().unwrap();
            }
            "several pools" => {
                let (execution, holder) = (execution(theirs), Holder::new("test").unwrap());
                let claimant =
                    Claimant { execution: &execution, constraints: FREE, holder: &holder };
                let joint = Joint { pool: name, claim: with_lease, constraints: FREE };
                let outcome = backend.allocate_all(claimant, &[joint]).await.unwrap();
                assert!(matches!(outcome, JointOutcome::Granted(_)), "{outcome:?}");
            }
            "repair" => assert_eq!(backend.repair(&name).await.unwrap().adopted, 1),
            _ => {}
        }
        if finder != "turn" {
            assert_eq!((pool.in_use().await, pool.usage().await.tickets), (4, 1), "{finder}");
        }
        pool.release(A, "held").await;
        let usage = pool.usage().await;
        assert_eq!((usage.in_use, usage.holders, usage.tickets), (2, 2, 0), "{finder}");
        pool.assert_clean().await;
        pool.release(theirs, "theirs").await;
        pool.release(next, "2").await;
        assert_eq!(pool.usage().await.scopes.len(), 0, "{finder}");
    }
}

#[tokio::test]
async fn a_record_without_its_member_is_held_again_while_tickets_wait() {
    let mut shared = Shared::new(2).await;
    let first = shared.pool.claim_with(A, "1", 2, FREE).await.unwrap();
    shared.pool.queue_up("q/d/b", "2").await;
    shared.removes("ex:flytesnacks:development:a-1");
    let turn = shared.pool.wait(A, "1", 2, FREE, &ticket()).await;
    assert_eq!(turn.granted().unwrap().fencing_number, Some(fence(&first)));
    shared.pool.assert_clean().await;
    assert_eq!(shared.pool.in_use().await, 2);
}

#[tokio::test]
async fn a_repair_hands_on_what_it_finds() {
    let mut shared = Shared::new(3).await;
    let usage = shared.pool.key_of("usage");
    let pool = &shared.pool;
    let (backend, name) = pool.handles();
    // Units of the pool that nobody has.
    let _: () = shared.connection.hincr(&usage, "issue_limit", -3).unwrap();
    pool.queue_up(A, "1").await;
    assert_eq!(backend.repair(&name).await.unwrap().corrected.len(), 1);
    assert!(pool.holds(A, "1").await);
    // Units of a project, and of a domain, that nobody has: their tickets lost their turn.
    for (field, caps) in [("p:q", caps(Some(3), None)), ("d:q:d", caps(None, Some(3)))] {
        let _: () = shared.connection.hincr(&usage, field, 3).unwrap();
        waiting(pool.wait("q/d/b", field, 1, caps, &ticket()).await);
        pool.nudge().await;
        assert_eq!(backend.repair(&name).await.unwrap().corrected.len(), 1);
        assert!(pool.holds("q/d/b", field).await);
        pool.release("q/d/b", field).await;
    }
    // Units of a member that another writer removed.
    pool.claim_with(A, "2", 2, FREE).await.unwrap().granted().unwrap();
    waiting(pool.wait("q/d/b", "3", 2, FREE, &ticket()).await);
    shared.removes("ex:flytesnacks:development:a-2");
    assert_eq!(backend.repair(&name).await.unwrap().dropped, 1);
    assert!(shared.pool.holds("q/d/b", "3").await);
    shared.pool.assert_clean().await;
}

#[tokio::test]
async fn somebody_elses_data_under_the_keys_of_leases_and_tickets_is_named_and_left_alone() {
    for (key, expected) in [
        ("leases", "zset"),
        ("tickets", "hash"),
        ("lines", "zset"),
        ("queue", "zset"),
        ("journal", "stream"),
    ] {
        let mut shared = Shared::new(4).await;
        shared.pool.claim_with(A, "held", 2, FREE).await.unwrap().granted().unwrap();
        let full = shared.pool.key_of(key);
        let _: () = shared.connection.set(&full, "somebody else's").unwrap();
        let before = everything(&mut shared.connection);
        let pool = &shared.pool;
        let (backend, name) = (&pool.backend, &pool.name);
        let claims = [claim("1", 1), claim("2", 1).with_lease(lease(1000))];
        let errors = match key {
            "leases" => vec![
                pool.claim_many(A, &claims[1..], FREE).await.err(),
                pool.claim_many(A, &claims, FREE).await.err(),
            ],
            "tickets" | "lines" => {
                vec![pool.try_wait(A, &claim("3", 3), FREE, &ticket()).await.err()]
            }
            "queue" => vec![backend.tickets(name, Default::default(), 10).await.err()],
            _ => vec![backend.revocations(name, 1).await.err()],
        };
        let message = format!("key {full:?} holds a string where this library keeps a {expected}");
        for error in errors {
            assert_eq!(error.unwrap().to_string(), message);
        }
        assert_eq!(everything(&mut shared.connection), before, "{key}");
    }
}
