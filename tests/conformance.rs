//! The cases every backend passes, and the proxy of an execution over one.
//!
//! A case that is not in the list below is reported as unused.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokenpool::{
    AllocationStatus, Backend, Deletion, Error, Limit, Member, Outcome, QuotaChange, Released,
    Scope,
};

use crate::support::{FREE, Fixture, caps, claim, fence, quota, refusal, revocation};

macro_rules! suite {
    ($backend:ident, $($case:ident),*) => {
        mod $backend {
            $(#[tokio::test]
            async fn $case() {
                let fixture = crate::support::$backend().await;
                let pool = fixture.handle(None);
                super::$case(fixture).await;
                pool.clean_up().await;
            })*
        }
    };
}

macro_rules! every_backend {
    ($($case:ident),* $(,)?) => {
        suite!(memory, $($case),*);
        suite!(redis, $($case),*);
        suite!(proxied, $($case),*);

        /// All cases, one after the other, for deployments that are too large to be started for each.
        pub(crate) async fn every_case(backend: &Arc<dyn Backend>) {
            $({
                let fixture = crate::support::fixture(Arc::clone(backend), None);
                let pool = fixture.handle(None);
                $case(fixture).await;
                pool.clean_up().await;
            })*
        }
    };
}

every_backend! {
    a_batch_is_decided_claim_by_claim,
    a_batch_larger_than_a_script_call_is_whole,
    a_cap_counts_what_was_granted_without_one,
    a_cap_of_zero_closes_the_scope,
    a_claim_larger_than_the_quota_is_refused_like_any_other,
    a_domain_cap_limits_the_domain_only,
    a_held_token_is_granted_again_even_when_everything_is_full,
    a_member_can_be_released_by_an_operator,
    a_pinned_quota_wins_until_unpinned,
    a_pool_in_use_is_not_deleted_unless_forced,
    a_project_cap_limits_the_project_only,
    a_refusal_names_the_limit_its_use_and_its_size,
    a_refused_claim_changes_nothing,
    a_token_held_by_another_execution_is_a_conflict,
    a_token_held_with_other_units_is_a_conflict,
    an_empty_batch_is_answered,
    creating_a_pool_that_exists_is_refused,
    fencing_numbers_grow_with_every_grant,
    grants_up_to_the_quota,
    holders_are_listed_in_pages,
    lowering_the_quota_takes_nothing_away,
    names_may_hold_anything_printable,
    no_cap_is_no_limit,
    of_several_caps_the_widest_answers_first,
    pools_are_listed_in_order,
    registering_again_sets_the_number,
    releasing_an_unheld_token_succeeds_and_changes_nothing,
    releasing_what_another_execution_holds_changes_nothing,
    repairing_what_is_right_changes_nothing,
    scopes_are_exact,
    several_units_are_all_or_nothing,
    units_come_back_once,
    unknown_pools_are_errors,
    usage_counts_every_scope,
}

const A: &str = "flytesnacks/development/a";
const B: &str = "flytesnacks/development/b";

async fn grants_up_to_the_quota(f: Fixture) {
    let pool = f.pool(3).await;
    for name in ["1", "2", "3"] {
        assert_eq!(pool.claim(A, name).await.status(), AllocationStatus::Granted);
    }
    assert_eq!(pool.claim(A, "4").await.status(), AllocationStatus::Exhausted);
    assert_eq!(pool.in_use().await, 3);
    pool.assert_clean().await;
}

async fn a_held_token_is_granted_again_even_when_everything_is_full(f: Fixture) {
    let pool = f.pool(2).await;
    let caps = caps(Some(2), Some(2));
    let first = pool.claim_with(A, "1", 2, caps).await.unwrap();
    assert!(!first.granted().unwrap().held_before);
    let again = pool.claim_with(A, "1", 2, caps).await.unwrap();
    assert!(again.granted().unwrap().held_before);
    assert_eq!(fence(&again), fence(&first));
    assert_eq!(pool.in_use().await, 2);
    pool.assert_clean().await;

    f.backend.change_quota(&pool.name, QuotaChange::Pin(quota(1))).await.unwrap();
    let closed = crate::support::caps(Some(0), Some(0));
    assert_eq!(fence(&pool.claim_with(A, "1", 2, closed).await.unwrap()), fence(&first));
    assert_eq!(pool.in_use().await, 2);
    pool.assert_clean().await;
}

async fn a_refusal_names_the_limit_its_use_and_its_size(f: Fixture) {
    let pool = f.pool(5).await;
    pool.claim_with(A, "1", 3, FREE).await.unwrap().granted().unwrap();
    let outcome = pool.claim_with(A, "2", 3, FREE).await.unwrap();
    let refused = refusal(&outcome);
    assert_eq!((&refused.limit, refused.in_use, refused.size), (&Limit::Quota, 3, 5));
    assert_eq!(refused.to_string(), "quota of the pool: 3 of 5 in use");

    let outcome = pool.claim_with(A, "2", 1, caps(Some(3), None)).await.unwrap();
    let refused = refusal(&outcome);
    let project = Scope::Project { project: "flytesnacks".to_owned() };
    assert_eq!((&refused.limit, refused.in_use, refused.size), (&Limit::Cap(project), 3, 3));
    assert_eq!(outcome.status(), AllocationStatus::NamespaceQuotaExceeded);
    assert_eq!(refused.to_string(), "cap of project flytesnacks: 3 of 3 in use");

    let outcome = pool.claim_with(A, "2", 2, caps(None, Some(4))).await.unwrap();
    let refused = refusal(&outcome);
    let domain =
        Scope::Domain { project: "flytesnacks".to_owned(), domain: "development".to_owned() };
    assert_eq!((&refused.limit, refused.in_use, refused.size), (&Limit::Cap(domain), 3, 4));
    assert_eq!(outcome.status(), AllocationStatus::NamespaceQuotaExceeded);
}

async fn a_refused_claim_changes_nothing(f: Fixture) {
    let pool = f.pool(2).await;
    pool.claim(A, "1").await.granted().unwrap();
    let before = (pool.usage().await, pool.holdings(10).await);
    for (path, units, caps) in [
        (A, 2, FREE),
        (A, 1, caps(Some(1), None)),
        (A, 1, caps(None, Some(1))),
        ("new/scope/x", 1, caps(Some(0), None)),
        ("new/scope/x", 1, caps(None, Some(0))),
    ] {
        refusal(&pool.claim_with(path, "2", units, caps).await.unwrap());
        assert_eq!((pool.usage().await, pool.holdings(10).await), before);
    }
    pool.assert_clean().await;
}

async fn units_come_back_once(f: Fixture) {
    let pool = f.pool(4).await;
    pool.claim_with(A, "1", 3, FREE).await.unwrap().granted().unwrap();
    pool.claim(B, "2").await.granted().unwrap();
    assert_eq!(pool.release(A, "1").await, Released::Units(3));
    assert_eq!(pool.release(A, "1").await, Released::NotHeld);
    assert_eq!(pool.in_use().await, 1);
    assert_eq!(pool.release(B, "2").await, Released::Units(1));
    let usage = pool.usage().await;
    assert_eq!((usage.in_use, usage.holders, usage.scopes.len()), (0, 0, 0));
    pool.assert_clean().await;
}

async fn releasing_an_unheld_token_succeeds_and_changes_nothing(f: Fixture) {
    let pool = f.pool(2).await;
    pool.claim(A, "1").await.granted().unwrap();
    let before = pool.usage().await;
    assert_eq!(pool.release(A, "other").await, Released::NotHeld);
    assert_eq!(pool.release("no/such/execution", "1").await, Released::NotHeld);
    assert_eq!(pool.usage().await, before);
    pool.assert_clean().await;
}

/// Execution `a` with token `b-c` and execution `a-b` with token `c` are one member in Flyte.
async fn a_token_held_by_another_execution_is_a_conflict(f: Fixture) {
    let pool = f.pool(1).await;
    let held = pool.claim("p/d/a", "b-c").await;
    let error = pool.claim_with("p/d/a-b", "c", 1, FREE).await.unwrap_err();
    match error {
        Error::Conflict { member, held_units, held_by } => {
            assert_eq!((member.as_str(), held_units, &*held_by), ("ex:p:d:a-b-c", 1, "a"));
        }
        other => panic!("{other}"),
    }
    assert_eq!(fence(&pool.claim("p/d/a", "b-c").await), fence(&held));
    pool.assert_clean().await;
}

async fn releasing_what_another_execution_holds_changes_nothing(f: Fixture) {
    let pool = f.pool(1).await;
    pool.claim("p/d/a", "b-c").await.granted().unwrap();
    assert_eq!(pool.release("p/d/a-b", "c").await, Released::NotHeld);
    assert_eq!(pool.in_use().await, 1);
    assert_eq!(pool.release("p/d/a", "b-c").await, Released::Units(1));
}

async fn a_token_held_with_other_units_is_a_conflict(f: Fixture) {
    let pool = f.pool(5).await;
    pool.claim_with(A, "1", 2, FREE).await.unwrap().granted().unwrap();
    // With room for it, without, and beyond a cap.
    for (units, caps) in [(1, FREE), (3, FREE), (9, FREE), (1, caps(Some(0), None))] {
        let error = pool.claim_with(A, "1", units, caps).await.unwrap_err();
        assert!(matches!(error, Error::Conflict { held_units: 2, .. }), "{error}");
        assert!(error.is_invalid() && !error.is_retryable());
    }
    assert_eq!(pool.in_use().await, 2);
    pool.assert_clean().await;
}

async fn several_units_are_all_or_nothing(f: Fixture) {
    let pool = f.pool(5).await;
    pool.claim_with(A, "1", 3, FREE).await.unwrap().granted().unwrap();
    refusal(&pool.claim_with(A, "2", 3, FREE).await.unwrap());
    assert_eq!(pool.in_use().await, 3);
    pool.claim_with(A, "2", 2, FREE).await.unwrap().granted().unwrap();
    assert_eq!(pool.in_use().await, 5);
    pool.assert_clean().await;
}

async fn a_claim_larger_than_the_quota_is_refused_like_any_other(f: Fixture) {
    let pool = f.pool(5).await;
    let outcome = pool.claim_with(A, "1", 6, FREE).await.unwrap();
    assert_eq!((refusal(&outcome).in_use, refusal(&outcome).size), (0, 5));
    let outcome = pool.claim_with(A, "1", u32::MAX.into(), caps(Some(i64::MAX), None)).await;
    assert_eq!(outcome.unwrap().status(), AllocationStatus::Exhausted);
    assert_eq!(pool.in_use().await, 0);
}

async fn a_project_cap_limits_the_project_only(f: Fixture) {
    let pool = f.pool(10).await;
    let caps = caps(Some(2), None);
    for (path, name) in [("p/d1/x", "1"), ("p/d2/x", "2"), ("q/d1/x", "3"), ("q/d1/x", "4")] {
        pool.claim_with(path, name, 1, caps).await.unwrap().granted().unwrap();
    }
    for path in ["p/d1/x", "p/d3/x", "q/d2/x"] {
        let outcome = pool.claim_with(path, "5", 1, caps).await.unwrap();
        assert_eq!(outcome.status(), AllocationStatus::NamespaceQuotaExceeded);
    }
    pool.claim_with("r/d1/x", "5", 2, caps).await.unwrap().granted().unwrap();
    pool.assert_clean().await;
}

async fn a_domain_cap_limits_the_domain_only(f: Fixture) {
    let pool = f.pool(10).await;
    let caps = caps(None, Some(1));
    for path in ["p/d1/x", "p/d2/x", "q/d1/x"] {
        pool.claim_with(path, "1", 1, caps).await.unwrap().granted().unwrap();
        refusal(&pool.claim_with(path, "2", 1, caps).await.unwrap());
    }
    assert_eq!(pool.release("p/d1/x", "1").await, Released::Units(1));
    pool.claim_with("p/d1/x", "2", 1, caps).await.unwrap().granted().unwrap();
    pool.assert_clean().await;
}

async fn of_several_caps_the_widest_answers_first(f: Fixture) {
    let pool = f.pool(1).await;
    pool.claim(A, "1").await.granted().unwrap();
    let everything_full = caps(Some(1), Some(1));
    let limit = |outcome: Outcome| refusal(&outcome).limit.clone();
    let outcome = pool.claim_with(A, "2", 1, everything_full).await.unwrap();
    assert_eq!(limit(outcome), Limit::Quota);

    f.backend.change_quota(&pool.name, QuotaChange::Pin(quota(2))).await.unwrap();
    let outcome = pool.claim_with(A, "2", 1, everything_full).await.unwrap();
    assert!(matches!(limit(outcome), Limit::Cap(Scope::Project { .. })));
    let outcome = pool.claim_with(A, "2", 1, caps(Some(2), Some(1))).await.unwrap();
    assert!(matches!(limit(outcome), Limit::Cap(Scope::Domain { .. })));
    pool.claim_with(A, "2", 1, caps(Some(2), Some(2))).await.unwrap().granted().unwrap();
}

/// Flyte admits it on an empty pool (defect RM-3).
async fn a_cap_of_zero_closes_the_scope(f: Fixture) {
    let pool = f.pool(10).await;
    for caps in [caps(Some(0), None), caps(None, Some(0))] {
        let outcome = pool.claim_with(A, "1", 1, caps).await.unwrap();
        assert_eq!((refusal(&outcome).in_use, refusal(&outcome).size), (0, 0));
    }
    assert_eq!(pool.usage().await.scopes, BTreeMap::new());
}

async fn no_cap_is_no_limit(f: Fixture) {
    let pool = f.pool(100).await;
    for name in 0..100 {
        pool.claim(A, &name.to_string()).await.granted().unwrap();
    }
    assert_eq!(pool.in_use().await, 100);
}

async fn a_cap_counts_what_was_granted_without_one(f: Fixture) {
    let pool = f.pool(10).await;
    pool.claim_with(A, "1", 4, FREE).await.unwrap().granted().unwrap();
    let outcome = pool.claim_with(A, "2", 1, caps(Some(4), None)).await.unwrap();
    assert_eq!(refusal(&outcome).in_use, 4);
    pool.claim_with(A, "2", 1, caps(Some(5), Some(5))).await.unwrap().granted().unwrap();
}

/// Flyte compares prefixes (defect RM-1).
async fn scopes_are_exact(f: Fixture) {
    let pool = f.pool(100).await;
    let one = caps(Some(1), Some(1));
    let domain_one = caps(None, Some(1));
    pool.claim("flytesnacks/development/x", "1").await.granted().unwrap();
    pool.claim_with("flyte/development/x", "1", 1, one).await.unwrap().granted().unwrap();
    pool.claim_with("flytesnacks/dev/x", "1", 1, domain_one).await.unwrap().granted().unwrap();
    pool.claim_with("flyte/dev/x", "1", 1, domain_one).await.unwrap().granted().unwrap();
    for path in ["flytesnacks/development/y", "flyte/dev/y"] {
        refusal(&pool.claim_with(path, "2", 1, domain_one).await.unwrap());
    }
    pool.assert_clean().await;
}

async fn fencing_numbers_grow_with_every_grant(f: Fixture) {
    let pool = f.pool(5).await;
    let mut last = 0;
    let mut grows = |outcome: Outcome| {
        let number = fence(&outcome).get();
        assert!(number > last, "{number} after {last}");
        last = number;
    };
    grows(pool.claim_with(A, "1", 3, FREE).await.unwrap());
    for outcome in pool.claim_many(A, &[claim("2", 1), claim("3", 1)], FREE).await.unwrap() {
        grows(outcome.unwrap());
    }
    pool.release_many(A, &["1", "2", "3"]).await.unwrap();
    grows(pool.claim(A, "1").await);
    f.backend.repair(&pool.name).await.unwrap();
    f.backend.change_quota(&pool.name, QuotaChange::Pin(quota(1))).await.unwrap();
    pool.release(A, "1").await;
    grows(pool.claim(A, "1").await);
    f.backend.delete_pool(&pool.name, Deletion::EvenInUse).await.unwrap();
    let pool = f.pool(5).await;
    grows(pool.claim(A, "1").await);
}

async fn lowering_the_quota_takes_nothing_away(f: Fixture) {
    let pool = f.pool(3).await;
    for name in ["1", "2", "3"] {
        pool.claim(A, name).await.granted().unwrap();
    }
    let pool = f.pool(1).await;
    let usage = pool.usage().await;
    assert_eq!((usage.quota, usage.in_use, usage.holders), (1, 3, 3));
    assert_eq!(refusal(&pool.claim(A, "4").await).to_string(), "quota of the pool: 3 of 1 in use");
    for name in ["1", "2"] {
        pool.release(A, name).await;
        refusal(&pool.claim(A, "4").await);
    }
    pool.release(A, "3").await;
    pool.claim(A, "4").await.granted().unwrap();
    pool.assert_clean().await;
}

async fn registering_again_sets_the_number(f: Fixture) {
    f.pool(3).await;
    let pool = f.pool(5).await;
    let usage = pool.usage().await;
    assert_eq!((usage.quota, usage.registered, usage.pinned), (5, 5, None));
    let answer = f.backend.change_quota(&pool.name, QuotaChange::Register(quota(6))).await.unwrap();
    assert_eq!((answer.in_force, answer.registered_before), (6, Some(5)));
}

async fn a_pinned_quota_wins_until_unpinned(f: Fixture) {
    let pool = f.pool(3).await;
    let change = |change| f.backend.change_quota(&pool.name, change);
    let answer = change(QuotaChange::Pin(quota(1))).await.unwrap();
    assert_eq!((answer.in_force, answer.registered, answer.pinned), (1, 3, Some(1)));
    let answer = change(QuotaChange::Register(quota(4))).await.unwrap();
    assert_eq!((answer.in_force, answer.registered, answer.pinned), (1, 4, Some(1)));
    pool.claim(A, "1").await.granted().unwrap();
    refusal(&pool.claim(A, "2").await);
    let answer = change(QuotaChange::Unpin).await.unwrap();
    assert_eq!((answer.in_force, answer.registered, answer.pinned), (4, 4, None));
    pool.claim_with(A, "2", 3, FREE).await.unwrap().granted().unwrap();
    pool.assert_clean().await;
}

async fn creating_a_pool_that_exists_is_refused(f: Fixture) {
    let name = f.pool_name();
    let create = QuotaChange::Create(quota(3));
    assert_eq!(f.backend.change_quota(&name, create).await.unwrap().in_force, 3);
    let error = f.backend.change_quota(&name, create).await.unwrap_err();
    assert!(matches!(error, Error::PoolExists { quota: 3, .. }), "{error}");
}

async fn a_pool_in_use_is_not_deleted_unless_forced(f: Fixture) {
    let pool = f.pool(3).await;
    pool.claim_with(A, "1", 2, FREE).await.unwrap().granted().unwrap();
    let error = f.backend.delete_pool(&pool.name, Deletion::OnlyUnused).await.unwrap_err();
    assert!(matches!(error, Error::PoolInUse { holders: 1, units: 2, .. }), "{error}");
    assert_eq!(pool.in_use().await, 2);
    assert_eq!(f.backend.delete_pool(&pool.name, Deletion::EvenInUse).await.unwrap(), 2);
    assert!(!f.backend.pools().await.unwrap().contains(&pool.name));

    let pool = f.pool(3).await;
    assert_eq!(pool.in_use().await, 0);
    assert_eq!(f.backend.delete_pool(&pool.name, Deletion::OnlyUnused).await.unwrap(), 0);
}

async fn unknown_pools_are_errors(f: Fixture) {
    let pool = f.handle(None);
    let (backend, name) = (&f.backend, &pool.name);
    let member = Member::parse("ex:p:d:e-t").unwrap();
    let errors = [
        pool.claim_with(A, "1", 1, FREE).await.err(),
        pool.claim_many(A, &[claim("1", 1), claim("2", 1)], FREE).await.err(),
        pool.release_many(A, &["1"]).await.err(),
        backend.revoke(name, &member, &revocation()).await.err(),
        backend.change_quota(name, QuotaChange::Pin(quota(1))).await.err(),
        backend.change_quota(name, QuotaChange::Unpin).await.err(),
        backend.delete_pool(name, Deletion::EvenInUse).await.err(),
        backend.usage(name).await.err(),
        backend.holders(name, Default::default(), 10).await.err(),
        backend.check(name).await.err(),
        backend.repair(name).await.err(),
    ];
    for error in errors {
        assert!(matches!(error, Some(Error::UnknownNamespace { .. })), "{error:?}");
    }
    assert!(!backend.pools().await.unwrap().contains(name));
}

async fn a_batch_is_decided_claim_by_claim(f: Fixture) {
    let pool = f.pool(6).await;
    pool.claim_with(A, "held", 2, FREE).await.unwrap().granted().unwrap();
    let claims = [
        claim("held", 2),
        claim("held", 1),
        claim("1", 3),
        claim("2", 1),
        claim("1", 3),
        claim("3", 2),
        claim("4", 1),
    ];
    let answers = pool.claim_many(A, &claims, caps(Some(6), Some(5))).await.unwrap();
    let words: Vec<_> = answers
        .iter()
        .map(|answer| match answer {
            Ok(Outcome::Granted(grant)) if grant.held_before => "held".to_owned(),
            Ok(Outcome::Granted(_)) => "granted".to_owned(),
            Ok(Outcome::Refused(refusal)) => refusal.to_string(),
            Err(error) => error.to_string(),
        })
        .collect();
    let domain_full = "cap of domain flytesnacks:development: 5 of 5 in use";
    let expected = [
        "held",
        "token is held already as ex:flytesnacks:development:a-held with 2 unit(s) by execution \"a\"",
        "granted",
        domain_full,
        "held",
        "quota of the pool: 5 of 6 in use",
        domain_full,
    ];
    assert_eq!(words, expected);
    assert_eq!(pool.in_use().await, 5);
    pool.assert_clean().await;

    let released = pool.release_many(A, &["held", "none", "1", "1"]).await.unwrap();
    use Released::{NotHeld, Units};
    assert_eq!(released, [Units(2), NotHeld, Units(3), NotHeld]);
    assert_eq!(pool.usage().await.scopes, BTreeMap::new());
    pool.assert_clean().await;
}

async fn a_batch_larger_than_a_script_call_is_whole(f: Fixture) {
    let pool = f.pool(1200).await;
    let names: Vec<_> = (0..1300).map(|i| format!("f3ab-n0-{i}")).collect();
    let claims: Vec<_> = names.iter().map(|name| claim(name, 1)).collect();
    let answers = pool.claim_many(A, &claims, FREE).await.unwrap();
    let granted: Vec<_> =
        answers.iter().map(|answer| answer.as_ref().unwrap().granted().is_some()).collect();
    let expected: Vec<_> = (0..1300).map(|i| i < 1200).collect();
    assert_eq!(granted, expected);
    pool.assert_clean().await;
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let released = pool.release_many(A, &names).await.unwrap();
    assert_eq!(released.iter().filter(|r| **r == Released::Units(1)).count(), 1200);
    assert_eq!(pool.in_use().await, 0);
}

async fn an_empty_batch_is_answered(f: Fixture) {
    let pool = f.pool(1).await;
    assert!(pool.claim_many(A, &[], FREE).await.unwrap().is_empty());
    assert!(pool.release_many(A, &[]).await.unwrap().is_empty());
}

async fn usage_counts_every_scope(f: Fixture) {
    let pool = f.pool(20).await;
    for (path, units) in [("p/d1/x", 1), ("p/d2/x", 2), ("q/d1/x", 4)] {
        pool.claim_with(path, "1", units, FREE).await.unwrap().granted().unwrap();
    }
    let usage = pool.usage().await;
    let project = |project: &str| Scope::Project { project: project.to_owned() };
    let domain = |project: &str, domain: &str| Scope::Domain {
        project: project.to_owned(),
        domain: domain.to_owned(),
    };
    let expected = BTreeMap::from([
        (project("p"), 3),
        (project("q"), 4),
        (domain("p", "d1"), 1),
        (domain("p", "d2"), 2),
        (domain("q", "d1"), 4),
    ]);
    assert_eq!(usage.scopes, expected);
    assert_eq!((usage.in_use, usage.holders), (7, 3));
}

async fn holders_are_listed_in_pages(f: Fixture) {
    let pool = f.pool(1000).await;
    let mut expected = BTreeMap::new();
    for i in 0..300 {
        let outcome = pool.claim_with(A, &i.to_string(), 1 + i % 3, FREE).await.unwrap();
        let member = format!("ex:flytesnacks:development:a-{i}");
        expected.insert(member, (1 + i as u64 % 3, fence(&outcome)));
    }
    for count in [1, 7, 1000] {
        let holdings = pool.holdings(count).await;
        let listed: BTreeMap<_, _> = holdings
            .iter()
            .map(|holding| {
                let record = holding.record.as_ref().unwrap();
                assert_eq!(record.execution.as_deref(), Some("a"));
                assert!(record.since.elapsed().unwrap().as_secs() < 600);
                assert!(!record.holder.is_empty());
                let member = holding.member.to_string();
                (member, (record.units.get(), record.fencing_number))
            })
            .collect();
        assert_eq!(listed, expected, "pages of {count}");
    }
}

async fn a_member_can_be_released_by_an_operator(f: Fixture) {
    let pool = f.pool(3).await;
    pool.claim_with(A, "1", 2, FREE).await.unwrap().granted().unwrap();
    let member = pool.holdings(10).await[0].member.clone();
    let member = Member::parse(member.as_str()).unwrap();
    assert_eq!(
        f.backend.revoke(&pool.name, &member, &revocation()).await.unwrap(),
        Released::Units(2)
    );
    assert_eq!(
        f.backend.revoke(&pool.name, &member, &revocation()).await.unwrap(),
        Released::NotHeld
    );
    assert_eq!(pool.usage().await.scopes, BTreeMap::new());
    pool.assert_clean().await;
}

async fn pools_are_listed_in_order(f: Fixture) {
    let pool = f.pool(1).await;
    let pools = f.backend.pools().await.unwrap();
    assert!(pools.contains(&pool.name));
    assert!(pools.is_sorted());
}

async fn repairing_what_is_right_changes_nothing(f: Fixture) {
    let pool = f.pool(5).await;
    pool.claim_with(A, "1", 2, FREE).await.unwrap().granted().unwrap();
    let before = (pool.usage().await, pool.holdings(10).await);
    let report = f.backend.repair(&pool.name).await.unwrap();
    assert_eq!(report, Default::default());
    assert_eq!((pool.usage().await, pool.holdings(10).await), before);
}

async fn names_may_hold_anything_printable(f: Fixture) {
    let pool = f.pool(10).await;
    let path = "prøject/dömain/ex ec:{ution} 'q'";
    let first = pool.claim_with(path, "t o:k {en} \"é\"", 2, caps(Some(2), Some(2))).await.unwrap();
    let again = pool.claim_with(path, "t o:k {en} \"é\"", 2, FREE).await.unwrap();
    assert_eq!(fence(&again), fence(&first));
    let record = pool.holdings(10).await[0].record.clone().unwrap();
    assert_eq!(record.execution.as_deref(), Some("ex ec:{ution} 'q'"));
    pool.assert_clean().await;
    assert_eq!(pool.release(path, "t o:k {en} \"é\"").await, Released::Units(2));
    assert_eq!(pool.usage().await.scopes, BTreeMap::new());
}
