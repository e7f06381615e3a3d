//! Leases and tickets: what every backend must do, one test for each case and backend, by a clock that the test moves.
//!
//! A case that is not in the list below is reported as unused.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokenpool::{
    AllocationStatus, Backend, Claim, Claimant, Deletion, Error, Holder, Inbox, Joint,
    JointOutcome, Lease, Limit, MemoryBackend, Notice, Order, QueueChange, QuotaChange, Released,
    Renewal, Renewed, ResourceConstraintsSpec, Result, Revocation, Scope, Turn,
};

use crate::support::clock::{Clock, server_with_clock};
use crate::support::{
    FREE, Fixture, Pool, caps, claim, execution, fence, fixture, lease, member, notice, quota,
    redis_on, refusal, revocation, ticket, token, urgent, waiting, weight,
};

/// A backend and its clock.
struct World {
    fixture: Fixture,
    clock: Clock,
}

async fn memory() -> World {
    let clock = Clock::new();
    let backend = MemoryBackend::with_clock(Arc::clone(&clock.twin) as _);
    World { fixture: fixture(Arc::new(backend), None), clock }
}

async fn redis() -> World {
    let (server, clock) = server_with_clock();
    World { fixture: redis_on(server).await, clock }
}

impl World {
    async fn pool(&self, units: i64) -> Pool {
        self.fixture.pool(units).await
    }

    fn pass(&self, millis: u64) {
        self.clock.advance(Duration::from_millis(millis));
    }

    async fn inbox(&self) -> Inbox {
        self.fixture.backend.listen().await.unwrap()
    }
}

macro_rules! suite {
    ($backend:ident, $($case:ident),*) => {
        mod $backend {
            $(#[tokio::test]
            async fn $case() {
                super::$case(super::$backend().await).await;
            })*
        }
    };
}

macro_rules! every_backend {
    ($($case:ident),* $(,)?) => {
        suite!(memory, $($case),*);
        suite!(redis, $($case),*);
    };
}

every_backend! {
    a_batch_of_claims_waits_behind_tickets,
    a_claim_of_a_held_token_gives_it_its_own_lease_or_none,
    a_claim_repeated_with_another_priority_stands_where_it_would_have_stood,
    a_dead_ticket_is_skipped,
    a_domain_at_its_cap_lets_other_domains_of_its_project_pass,
    a_grant_handed_to_a_dead_waiter_goes_on_to_the_next,
    a_grant_that_was_handed_over_gets_the_lease_of_the_claim_that_takes_it,
    a_hand_off_is_told_to_its_waiter_and_to_nobody_else,
    a_lease_ends_with_the_next_operation_and_not_before,
    a_lease_that_is_over_makes_room_for_the_claim_that_finds_it,
    a_grant_is_released_by_its_number_alone,
    a_lowered_quota_drops_the_tickets_that_are_larger_when_their_turn_comes,
    a_plain_claim_never_overtakes_a_ticket_that_waits_for_the_quota,
    a_pool_with_tickets_is_not_deleted_unless_forced,
    a_project_at_its_cap_gets_its_turn_back_for_a_ticket_after_the_last,
    a_project_at_its_cap_lets_other_projects_pass,
    a_renewal_that_is_wrong_is_an_error_for_itself_alone,
    a_renewed_lease_goes_on,
    a_renewed_ticket_goes_on,
    a_repeated_waiting_claim_is_checked_against_quota_and_caps,
    a_repeated_waiting_claim_keeps_its_place_and_renews_its_time,
    a_repeated_waiting_claim_takes_over_its_caps,
    a_ticket_of_other_units_or_of_another_execution_is_a_conflict,
    a_ticket_tells_its_place_and_what_stops_it,
    a_waiting_claim_is_granted_at_once_when_it_can_be,
    a_waiting_claim_of_a_held_token_is_granted,
    a_waiting_claim_that_can_never_run_is_an_error_and_changes_nothing,
    a_waiting_token_that_is_released_is_withdrawn_and_the_next_runs,
    a_waiting_token_that_is_revoked_is_withdrawn_and_the_next_runs,
    changing_the_order_sorts_the_tickets_that_wait,
    claiming_again_renews_the_lease_and_keeps_the_number,
    fair_order_gives_projects_shares_by_their_weights,
    fair_order_gives_nothing_for_many_executions,
    fifo_order_grants_as_they_came,
    in_a_project_nobody_overtakes,
    larger_claims_are_not_starved_by_smaller_ones,
    leases_of_a_batch_end_each_at_its_time,
    more_leases_than_a_call_ends_come_back_over_several,
    more_tickets_than_a_call_hands_on_to_are_done_by_the_next,
    new_pools_are_unknown_to_every_operation,
    of_several_pools_all_are_granted_or_none,
    of_several_pools_the_one_that_refuses_is_named,
    priority_order_grants_the_more_urgent_first_and_ages,
    renewing_what_has_no_lease_gives_it_none,
    revocations_are_written_down,
    several_pools_are_claimed_behind_tickets,
    tickets_are_listed_in_order_and_in_pages,
    units_are_handed_on_when_a_lease_ends,
    units_are_handed_on_when_a_quota_is_raised,
    units_are_handed_on_when_they_are_released_or_revoked,
    weights_are_kept_by_project,
    what_was_handed_over_stays_when_it_is_claimed,
}

const A: &str = "p/d/a";
const B: &str = "q/d/b";
const C: &str = "r/d/c";

fn project(name: &str) -> Limit {
    Limit::Cap(Scope::Project { project: name.to_owned() })
}

fn domain(project: &str, name: &str) -> Limit {
    Limit::Cap(Scope::Domain { project: project.to_owned(), domain: name.to_owned() })
}

fn lasting(millis: u64) -> tokenpool::TicketRequest {
    tokenpool::TicketRequest::new(lease(millis))
}

impl Pool {
    async fn lease_left(&self, path: &str, name: &str) -> Option<Duration> {
        let member = member(path, name);
        let holdings = self.holdings(1000).await;
        holdings.iter().find(|holding| holding.member == member).unwrap().lease_left
    }

    /// Names of the tokens that wait, in order.
    async fn queue(&self) -> Vec<String> {
        let tickets = self.tickets(1000).await;
        let name = |member: &str| member.rsplit_once('-').unwrap().1.to_owned();
        tickets.iter().map(|ticket| name(ticket.member.as_str())).collect()
    }

    /// Takes the one unit of a pool through all of its tickets, and tells who got it, in order.
    async fn grants_in_order(&self, holder: (&str, &str)) -> Vec<String> {
        let (mut last, mut order) = (member(holder.0, holder.1), Vec::new());
        loop {
            self.backend.revoke(&self.name, &last, &revocation()).await.unwrap();
            let holdings = self.holdings(10).await;
            let Some(holding) = holdings.first() else { return order };
            assert_eq!(holdings.len(), 1);
            last = holding.member.clone();
            order.push(last.as_str().trim_start_matches("ex:").to_owned());
        }
    }
}

async fn a_lease_ends_with_the_next_operation_and_not_before(w: World) {
    let pool = w.pool(2).await;
    let first = fence(&pool.claim_leased(A, "1", 1000).await);
    w.pass(999);
    pool.nudge().await;
    assert_eq!(pool.in_use().await, 1);
    assert_eq!(pool.lease_left(A, "1").await, Some(Duration::from_millis(1)));
    w.pass(1);
    // Looking changes nothing.
    assert_eq!(pool.in_use().await, 1);
    assert_eq!(pool.lease_left(A, "1").await, Some(Duration::ZERO));
    pool.nudge().await;
    let usage = pool.usage().await;
    assert_eq!((usage.in_use, usage.holders, usage.scopes.len()), (0, 0, 0));
    assert_eq!(pool.release(A, "1").await, Released::NotHeld);
    assert_eq!(pool.in_use().await, 0);
    assert!(fence(&pool.claim(A, "1").await) > first);
    pool.assert_clean().await;
}

async fn a_lease_that_is_over_makes_room_for_the_claim_that_finds_it(w: World) {
    let pool = w.pool(1).await;
    pool.claim_leased(A, "1", 1000).await.granted().unwrap();
    refusal(&pool.claim(B, "2").await);
    w.pass(1000);
    pool.claim_leased(B, "2", 1000).await.granted().unwrap();
    w.pass(1000);
    let batch = [claim("3", 1), claim("4", 1)];
    let answers = pool.claim_many(A, &batch, FREE).await.unwrap();
    answers[0].as_ref().unwrap().granted().unwrap();
    refusal(answers[1].as_ref().unwrap());
    assert_eq!(pool.in_use().await, 1);
    // The release itself is the next operation: the units come back once.
    pool.release(A, "3").await;
    pool.claim_leased(A, "5", 1000).await.granted().unwrap();
    w.pass(2000);
    assert_eq!(pool.release(A, "5").await, Released::Units(1));
    assert_eq!(pool.release(A, "5").await, Released::NotHeld);
    assert_eq!(pool.in_use().await, 0);
    pool.assert_clean().await;
}

async fn leases_of_a_batch_end_each_at_its_time(w: World) {
    let pool = w.pool(10).await;
    let of = |name: &str, millis| claim(name, 2).with_lease(lease(millis));
    let claims = [of("1", 3000), of("2", 1000), of("3", 2000), claim("4", 1)];
    for answer in pool.claim_many(A, &claims, FREE).await.unwrap() {
        answer.unwrap().granted().unwrap();
    }
    for (passed, in_use) in [(1000, 5), (1000, 3), (1000, 1), (600_000, 1)] {
        w.pass(passed);
        pool.nudge().await;
        assert_eq!(pool.in_use().await, in_use);
        pool.assert_clean().await;
    }
}

async fn more_leases_than_a_call_ends_come_back_over_several(w: World) {
    let pool = w.pool(100).await;
    let claims: Vec<_> =
        (0..50).map(|i| claim(&i.to_string(), 1).with_lease(lease(1000))).collect();
    pool.claim_many(A, &claims, FREE).await.unwrap();
    pool.claim(A, "kept").await.granted().unwrap();
    w.pass(1000);
    for in_use in [31, 11] {
        assert_eq!(pool.release("nobody/at/all", "1").await, Released::NotHeld);
        assert_eq!(pool.in_use().await, in_use);
        pool.assert_clean().await;
    }
    // Renewing goes on until nothing is due.
    pool.claim_many(A, &claims, FREE).await.unwrap();
    w.pass(1000);
    pool.nudge().await;
    assert_eq!(pool.in_use().await, 1);
    pool.assert_clean().await;
}

async fn a_renewed_lease_goes_on(w: World) {
    let pool = w.pool(2).await;
    let number = fence(&pool.claim_leased(A, "1", 1000).await);
    for _ in 0..3 {
        w.pass(900);
        let renewed = pool.renew(A, "1", 1000).await.unwrap();
        assert_eq!(renewed, Renewed::Held(Some(number)));
    }
    assert_eq!(pool.lease_left(A, "1").await, Some(Duration::from_secs(1)));
    // A shorter one counts, too.
    let _ = pool.renew(A, "1", 60_000).await.unwrap();
    w.pass(5000);
    pool.nudge().await;
    let _ = pool.renew(A, "1", 200).await.unwrap();
    w.pass(200);
    assert_eq!(pool.renew(A, "1", 1000).await.unwrap(), Renewed::Lost);
    assert_eq!(pool.in_use().await, 0);
    pool.assert_clean().await;
}

async fn renewing_what_has_no_lease_gives_it_none(w: World) {
    let pool = w.pool(2).await;
    let number = fence(&pool.claim(A, "1").await);
    assert_eq!(pool.renew(A, "1", 1000).await.unwrap(), Renewed::Held(Some(number)));
    assert_eq!(pool.lease_left(A, "1").await, None);
    w.pass(2000);
    pool.nudge().await;
    assert_eq!(pool.in_use().await, 1);
    assert_eq!(pool.renew(A, "none", 1000).await.unwrap(), Renewed::Lost);
}

/// Execution `a` with token `b-c` and execution `a-b` with token `c` are one member.
async fn a_renewal_that_is_wrong_is_an_error_for_itself_alone(w: World) {
    let pool = w.pool(2).await;
    pool.claim_leased("p/d/a", "b-c", 1000).await.granted().unwrap();
    let number = fence(&pool.claim_leased(B, "2", 1000).await);
    waiting(pool.wait("p/d/a", "w-x", 1, FREE, &lasting(1000)).await);
    let of = |path: &str, name: &str| (execution(path), token(name));
    let all =
        [of("p/d/a-b", "c"), of(B, "2"), of("p/d/a-w", "x"), of(B, "none"), of("p/d/a", "w-x")];
    let renewals: Vec<_> = all
        .iter()
        .map(|(execution, token)| Renewal { execution, token, lease: lease(5000) })
        .collect();
    let answers = pool.backend.renew(&pool.name, &renewals).await.unwrap();
    for wrong in [0, 2] {
        match &answers[wrong] {
            Err(Error::Conflict { held_units: 1, held_by, .. }) => assert_eq!(held_by, "a"),
            other => panic!("{other:?}"),
        }
    }
    let right: Vec<_> = [1, 3, 4].map(|i| *answers[i].as_ref().unwrap()).into();
    assert_eq!(right, [Renewed::Held(Some(number)), Renewed::Lost, Renewed::Waiting]);
    assert_eq!(pool.lease_left("p/d/a", "b-c").await, Some(Duration::from_secs(1)));
    assert_eq!(pool.lease_left(B, "2").await, Some(Duration::from_secs(5)));
    pool.assert_clean().await;
}

async fn a_renewed_ticket_goes_on(w: World) {
    let pool = w.pool(1).await;
    pool.claim(A, "1").await.granted().unwrap();
    for name in ["2", "3"] {
        waiting(pool.wait(B, name, 1, FREE, &lasting(1000)).await);
    }
    w.pass(900);
    assert_eq!(pool.renew(B, "2", 1000).await.unwrap(), Renewed::Waiting);
    w.pass(100);
    assert_eq!(pool.renew(B, "3", 1000).await.unwrap(), Renewed::Lost);
    assert_eq!(pool.queue().await, ["2"]);
    pool.release(A, "1").await;
    assert!(matches!(pool.renew(B, "2", 1000).await.unwrap(), Renewed::Held(Some(_))));
    pool.assert_clean().await;
}

async fn claiming_again_renews_the_lease_and_keeps_the_number(w: World) {
    let pool = w.pool(1).await;
    let number = fence(&pool.claim_leased(A, "1", 1000).await);
    for _ in 0..3 {
        w.pass(900);
        let again = pool.claim_leased(A, "1", 1000).await;
        assert!(again.granted().unwrap().held_before);
        assert_eq!(fence(&again), number);
    }
    w.pass(900);
    let batch = [claim("1", 1).with_lease(lease(500)), claim("2", 1)];
    pool.claim_many(A, &batch, FREE).await.unwrap();
    assert_eq!(pool.lease_left(A, "1").await, Some(Duration::from_millis(500)));
    w.pass(500);
    pool.nudge().await;
    assert_eq!(pool.in_use().await, 0);
}

async fn a_claim_of_a_held_token_gives_it_its_own_lease_or_none(w: World) {
    let pool = w.pool(1).await;
    let claimant = execution(A);
    let joint = [Joint { pool: pool.name.clone(), claim: claim("1", 1), constraints: FREE }];
    for way in ["alone", "in a batch", "waiting", "of several pools"] {
        pool.claim_leased(A, "1", 1000).await.granted().unwrap();
        assert_eq!(pool.lease_left(A, "1").await, Some(Duration::from_secs(1)), "{way}");
        match way {
            "alone" => drop(pool.claim(A, "1").await.granted().unwrap()),
            "in a batch" => {
                pool.claim_many(A, &[claim("1", 1), claim("2", 1)], FREE).await.unwrap();
            }
            "waiting" => drop(pool.wait(A, "1", 1, FREE, &ticket()).await.granted().unwrap()),
            _ => {
                let holder = Holder::new("test").unwrap();
                let claimant =
                    Claimant { execution: &claimant, constraints: FREE, holder: &holder };
                let outcome = pool.backend.allocate_all(claimant, &joint).await.unwrap();
                assert!(matches!(outcome, JointOutcome::Granted(_)));
            }
        }
        assert_eq!(pool.lease_left(A, "1").await, None, "{way}");
    }
    pool.claim_leased(A, "1", 1000).await.granted().unwrap();
    assert_eq!(pool.lease_left(A, "1").await, Some(Duration::from_secs(1)));
    w.pass(1000);
    pool.nudge().await;
    assert_eq!(pool.in_use().await, 0);
}

async fn a_waiting_claim_is_granted_at_once_when_it_can_be(w: World) {
    let pool = w.pool(3).await;
    let turn = pool.wait(A, "1", 2, caps(Some(2), Some(2)), &ticket()).await;
    let grant = turn.granted().unwrap();
    assert!(!grant.held_before && grant.fencing_number.is_some());
    assert_eq!(pool.lease_left(A, "1").await, None);
    let leased = claim("2", 1).with_lease(lease(1000));
    let turn = pool.try_wait(B, &leased, FREE, &ticket()).await.unwrap();
    assert!(turn.granted().unwrap().fencing_number > grant.fencing_number);
    assert_eq!(pool.lease_left(B, "2").await, Some(Duration::from_secs(1)));
    let usage = pool.usage().await;
    assert_eq!((usage.in_use, usage.tickets), (3, 0));
    pool.assert_clean().await;
}

async fn a_waiting_claim_of_a_held_token_is_granted(w: World) {
    let pool = w.pool(1).await;
    let number = fence(&pool.claim(A, "1").await);
    pool.queue_up(B, "2").await;
    let turn = pool.wait(A, "1", 1, caps(Some(0), None), &ticket()).await;
    let grant = turn.granted().unwrap();
    assert_eq!((grant.held_before, grant.fencing_number), (true, Some(number)));
    let error = pool.try_wait(A, &claim("1", 2), FREE, &ticket()).await.unwrap_err();
    assert!(matches!(error, Error::Conflict { held_units: 1, .. }), "{error}");
    pool.assert_clean().await;
}

async fn a_ticket_tells_its_place_and_what_stops_it(w: World) {
    let pool = w.pool(3).await;
    let held = claim("held", 2).with_lease(lease(5000));
    pool.claim_many(A, &[held], FREE).await.unwrap();
    let first = waiting(pool.wait(B, "1", 2, FREE, &ticket()).await);
    assert_eq!(first.position, 1);
    assert_eq!(first.blocked_by.to_string(), "quota of the pool: 2 of 3 in use");
    assert_eq!(first.retry_after, Some(Duration::from_secs(5)));
    w.pass(1000);
    let second = waiting(pool.wait(C, "2", 1, FREE, &lasting(1000)).await);
    assert_eq!(second.position, 2);
    assert_eq!(second.blocked_by.to_string(), "tickets stand before it: 2 of 3 in use");
    assert_eq!(second.retry_after, Some(Duration::from_secs(1)));
    let third = waiting(pool.wait(A, "3", 1, caps(Some(2), None), &ticket()).await);
    assert_eq!(third.position, 3);
    let blocked_by = third.blocked_by;
    assert_eq!((blocked_by.limit, blocked_by.in_use, blocked_by.size), (project("p"), 2, 2));
    let fourth = waiting(pool.wait("p/d/e", "4", 1, caps(None, Some(2)), &ticket()).await);
    assert_eq!((fourth.position, fourth.blocked_by.limit), (4, domain("p", "d")));
    assert_eq!(pool.usage().await.tickets, 4);
    pool.assert_clean().await;
}

async fn units_are_handed_on_when_they_are_released_or_revoked(w: World) {
    let pool = w.pool(1).await;
    pool.claim(A, "1").await.granted().unwrap();
    for (path, name) in [(B, "2"), (C, "3"), (A, "4")] {
        pool.queue_up(path, name).await;
    }
    assert_eq!(pool.release(A, "1").await, Released::Units(1));
    assert!(pool.holds(B, "2").await);
    assert_eq!(pool.revoke(B, "2").await, Released::Units(1));
    assert!(pool.holds(C, "3").await);
    assert_eq!(pool.release_many(C, &["none", "3"]).await.unwrap()[1], Released::Units(1));
    assert!(pool.holds(A, "4").await);
    let turn = pool.wait(A, "4", 1, FREE, &ticket()).await;
    assert!(turn.granted().is_some());
    let usage = pool.usage().await;
    assert_eq!((usage.in_use, usage.tickets), (1, 0));
    pool.assert_clean().await;
}

async fn units_are_handed_on_when_a_quota_is_raised(w: World) {
    let pool = w.pool(1).await;
    pool.claim(A, "1").await.granted().unwrap();
    for name in ["2", "3", "4"] {
        pool.queue_up(B, name).await;
    }
    pool.change_quota(QuotaChange::Pin(quota(2))).await;
    assert_eq!(pool.queue().await, ["3", "4"]);
    pool.change_quota(QuotaChange::Register(quota(3))).await; // a pin wins
    assert_eq!(pool.queue().await, ["3", "4"]);
    pool.change_quota(QuotaChange::Unpin).await;
    assert_eq!(pool.queue().await, ["4"]);
    pool.change_quota(QuotaChange::Register(quota(4))).await;
    assert_eq!(pool.usage().await.in_use, 4);
    pool.assert_clean().await;
}

async fn units_are_handed_on_when_a_lease_ends(w: World) {
    let pool = w.pool(1).await;
    pool.claim_leased(A, "1", 1000).await.granted().unwrap();
    pool.queue_up(B, "2").await;
    w.pass(999);
    pool.nudge().await;
    assert!(!pool.holds(B, "2").await);
    w.pass(1);
    // Whatever the operation.
    refusal(&pool.claim(C, "3").await);
    assert!(pool.holds(B, "2").await);
    assert_eq!(pool.in_use().await, 1);
    pool.assert_clean().await;
}

async fn a_hand_off_is_told_to_its_waiter_and_to_nobody_else(w: World) {
    let pool = w.pool(1).await;
    let (mut first, mut second) = (w.inbox().await, w.inbox().await);
    pool.claim(A, "1").await.granted().unwrap();
    for (name, inbox) in [("2", Some(&first)), ("3", Some(&second)), ("4", None)] {
        let request = match inbox {
            Some(inbox) => ticket().with_channel(inbox.channel.clone()),
            None => ticket(),
        };
        waiting(pool.wait(B, name, 1, FREE, &request).await);
    }
    let granted = |name| format!("granted {}", member(B, name));
    pool.release(A, "1").await;
    let heard = notice(&mut first).await;
    let Notice::Granted { fencing_number, .. } = &heard else { panic!("{heard:?}") };
    assert_eq!(*fencing_number, fence(&pool.claim(B, "2").await));
    assert_eq!(told(heard), granted("2"));
    pool.release(B, "2").await;
    // Its first: it was not told of the other's.
    assert_eq!(told(notice(&mut second).await), granted("3"));
    pool.release(B, "3").await;
    assert!(pool.holds(B, "4").await);
    // What the first hears next is its own again.
    waiting(pool.wait(B, "5", 1, FREE, &ticket().with_channel(first.channel.clone())).await);
    pool.release(B, "4").await;
    assert_eq!(told(notice(&mut first).await), granted("5"));
}

/// A notice in words, without the grant's number.
fn told(notice: Notice) -> String {
    match notice {
        Notice::Granted { member, .. } => format!("granted {member}"),
        Notice::Gone { member, .. } => format!("gone {member}"),
        other => format!("{other:?}"),
    }
}

async fn fifo_order_grants_as_they_came(w: World) {
    let pool = w.pool(1).await;
    pool.claim(A, "held").await.granted().unwrap();
    let came = [(B, "1"), (A, "2"), (C, "3"), (B, "4"), ("p/e/x", "5"), (A, "6")];
    for (path, name) in came {
        w.pass(1);
        waiting(pool.wait(path, name, 1, FREE, &urgent(9)).await);
    }
    let order = pool.grants_in_order((A, "held")).await;
    let expected = ["q:d:b-1", "p:d:a-2", "r:d:c-3", "q:d:b-4", "p:e:x-5", "p:d:a-6"];
    assert_eq!(order, expected);
    pool.assert_clean().await;
}

async fn priority_order_grants_the_more_urgent_first_and_ages(w: World) {
    let pool = w.pool(1).await;
    pool.order(Order::Priority).await;
    pool.claim(A, "held").await.granted().unwrap();
    // Each level is worth 30 s of waiting.
    let came = [
        (0, A, "first", 0),
        (10_000, A, "higher", 1),
        (19_990, B, "just-higher", 1),
        (20, B, "just-lower", 1),
        (10, C, "highest", 9),
        (0, C, "equal-then-by-time", 9),
    ];
    for (passed, path, name, priority) in came {
        w.pass(passed);
        waiting(pool.wait(path, name, 1, FREE, &urgent(priority)).await);
    }
    let order = pool.grants_in_order((A, "held")).await;
    let expected = [
        "r:d:c-highest",
        "r:d:c-equal-then-by-time",
        "p:d:a-higher",
        "q:d:b-just-higher",
        "p:d:a-first",
        "q:d:b-just-lower",
    ];
    assert_eq!(order, expected);
    pool.assert_clean().await;
}

async fn a_claim_repeated_with_another_priority_stands_where_it_would_have_stood(w: World) {
    let pool = w.pool(1).await;
    pool.order(Order::Priority).await;
    pool.claim(A, "held").await.granted().unwrap();
    let ask = async |path: &str, name: &str, priority| {
        waiting(pool.wait(path, name, 1, FREE, &urgent(priority)).await).position
    };
    for (path, name) in [(A, "1"), (B, "2"), (A, "3"), (B, "4")] {
        ask(path, name, 3).await;
        w.pass(10);
    }
    // Behind one that came later, before one that came earlier, and where it was.
    assert_eq!((ask(A, "1", 2).await, ask(B, "4", 9).await), (4, 1));
    assert_eq!((ask(A, "3", 3).await, ask(B, "4", 3).await), (3, 3));
    assert_eq!((ask(A, "1", 3).await, ask(B, "2", 3).await), (1, 2));
    pool.assert_clean().await;
    ask(A, "3", 4).await;
    // In another order the ranks stay, whatever is asked for.
    pool.order(Order::Fifo).await;
    assert_eq!((ask(A, "3", 0).await, ask(A, "1", 9).await), (1, 2));
    let order = pool.grants_in_order((A, "held")).await;
    assert_eq!(order, ["p:d:a-3", "p:d:a-1", "q:d:b-2", "q:d:b-4"]);
    pool.assert_clean().await;
}

fn count(order: &[String], project: &str) -> usize {
    order.iter().filter(|member| member.starts_with(&format!("{project}:"))).count()
}

async fn fair_order_gives_projects_shares_by_their_weights(w: World) {
    let pool = w.pool(1).await;
    let change = QueueChange::new().order(Order::Fair).weight("q", weight(3));
    pool.backend.change_queue(&pool.name, &change).await.unwrap();
    pool.claim(C, "held").await.granted().unwrap();
    for i in 0..40 {
        for path in [A, B] {
            pool.queue_up(path, &i.to_string()).await;
        }
    }
    let order = pool.grants_in_order((C, "held")).await;
    assert_eq!(order.len(), 80);
    // At any moment nobody is further from its share than one grant.
    for taken in (4..=40).step_by(4) {
        let (a, b) = (count(&order[..taken], "p"), count(&order[..taken], "q"));
        assert!((a * 3).abs_diff(b) <= 3, "{a} to {b} of {taken}: {order:?}");
    }
    assert_eq!((count(&order[..40], "p"), count(&order[..40], "q")), (10, 30));
    pool.assert_clean().await;
}

async fn fair_order_gives_nothing_for_many_executions(w: World) {
    let pool = w.pool(2).await;
    pool.order(Order::Fair).await;
    pool.claim(C, "held").await.granted().unwrap();
    pool.claim_with(C, "rest", 1, FREE).await.unwrap().granted().unwrap();
    for i in 0..10 {
        pool.queue_up(&format!("p/d{i}/e{i}"), "1").await;
        // Two units count as two.
        waiting(pool.wait(B, &i.to_string(), 2, FREE, &ticket()).await);
        pool.queue_up("r/d/only", &i.to_string()).await;
    }
    pool.release(C, "rest").await;
    let mut order = Vec::new();
    let mut held = vec![member(C, "held"), member("p/d0/e0", "1")];
    while let Some(last) = held.pop() {
        pool.backend.revoke(&pool.name, &last, &revocation()).await.unwrap();
        for holding in pool.holdings(10).await {
            if !held.contains(&holding.member) {
                order.push(holding.member.as_str().trim_start_matches("ex:").to_owned());
                held.push(holding.member);
            }
        }
    }
    let units = |project| count(&order[..14], project) * if project == "q" { 2 } else { 1 };
    let shares = ["p", "q", "r"].map(units);
    assert!(shares.iter().all(|&share| (4..=7).contains(&share)), "{shares:?} of {order:?}");
    pool.assert_clean().await;
}

/// The first of them ends in the call that files the second.
async fn a_project_at_its_cap_gets_its_turn_back_for_a_ticket_after_the_last(w: World) {
    let pool = w.pool(4).await;
    let one = caps(Some(1), None);
    pool.claim(A, "held").await.granted().unwrap();
    waiting(pool.wait(A, "1", 1, one, &lasting(1000)).await);
    w.pass(1000);
    waiting(pool.wait(A, "2", 1, one, &ticket()).await);
    assert_eq!(pool.queue().await, ["2"]);
    pool.release(A, "held").await;
    assert!(pool.holds(A, "2").await);
}

async fn a_project_at_its_cap_lets_other_projects_pass(w: World) {
    let pool = w.pool(4).await;
    let one = caps(Some(1), None);
    pool.claim(A, "held").await.granted().unwrap();
    let stopped = waiting(pool.wait(A, "1", 1, one, &ticket()).await);
    assert_eq!(stopped.blocked_by.limit, project("p"));
    // A claim and a waiting claim of others run.
    pool.claim(B, "2").await.granted().unwrap();
    pool.wait(C, "3", 1, FREE, &ticket()).await.granted().unwrap();
    pool.claim(B, "fill").await.granted().unwrap();
    // And so do tickets behind it.
    pool.queue_up(C, "4").await;
    pool.release(B, "fill").await;
    assert!(pool.holds(C, "4").await);
    assert_eq!(pool.queue().await, ["1"]);
    // Units of others do not help it, those of its project do, of whatever domain.
    pool.release(B, "2").await;
    assert_eq!(pool.queue().await, ["1"]);
    pool.release(A, "held").await;
    assert!(pool.holds(A, "1").await);
    pool.claim("p/other/x", "held").await.granted().unwrap();
    waiting(pool.wait(A, "5", 1, caps(Some(2), None), &ticket()).await);
    pool.release("p/other/x", "held").await;
    assert!(pool.holds(A, "5").await);
    // However they come back.
    waiting(pool.wait(A, "6", 1, caps(Some(2), None), &ticket()).await);
    pool.revoke(A, "1").await;
    assert!(pool.holds(A, "6").await);
    pool.release(A, "5").await;
    pool.claim_leased("p/other/x", "held", 1000).await.granted().unwrap();
    waiting(pool.wait(A, "7", 1, caps(Some(2), None), &ticket()).await);
    w.pass(1000);
    pool.nudge().await;
    assert!(pool.holds(A, "7").await);
    pool.assert_clean().await;
}

async fn a_domain_at_its_cap_lets_other_domains_of_its_project_pass(w: World) {
    let pool = w.pool(4).await;
    let one = caps(None, Some(1));
    pool.claim(A, "held").await.granted().unwrap();
    let stopped = waiting(pool.wait(A, "1", 1, one, &ticket()).await);
    assert_eq!(stopped.blocked_by.limit, domain("p", "d"));
    pool.claim("p/other/x", "2").await.granted().unwrap();
    pool.wait("p/third/x", "3", 1, one, &ticket()).await.granted().unwrap();
    // Not those of its own domain.
    assert_eq!(refusal(&pool.claim(A, "4").await).limit, Limit::Queue);
    pool.queue_up("p/d/another", "5").await;
    // What another domain gives back does not help it.
    pool.release("p/other/x", "2").await;
    assert_eq!(pool.queue().await, ["1", "5"]);
    pool.release(A, "held").await;
    assert_eq!(pool.queue().await, [""; 0]);
    assert!(pool.holds(A, "1").await && pool.holds("p/d/another", "5").await);
    pool.assert_clean().await;
}

async fn in_a_project_nobody_overtakes(w: World) {
    let pool = w.pool(5).await;
    pool.claim(A, "held").await.granted().unwrap();
    waiting(pool.wait(A, "1", 1, caps(Some(1), None), &ticket()).await);
    // There is room for them, but the project has its turn only when the first ticket may run.
    for path in [A, "p/other/x"] {
        assert_eq!(refusal(&pool.claim(path, "2").await).limit, Limit::Queue);
    }
    let second = pool.queue_up("p/other/x", "2").await;
    assert_eq!((second.position, second.blocked_by.limit), (2, Limit::Queue));
    assert_eq!(pool.in_use().await, 1);
    pool.release(A, "held").await;
    assert!(pool.holds(A, "1").await && pool.holds("p/other/x", "2").await);
    pool.assert_clean().await;
}

async fn a_plain_claim_never_overtakes_a_ticket_that_waits_for_the_quota(w: World) {
    let pool = w.pool(3).await;
    pool.claim_with(A, "held", 2, FREE).await.unwrap().granted().unwrap();
    waiting(pool.wait(B, "1", 2, FREE, &ticket()).await);
    // A unit is free.
    let outcome = pool.claim(C, "2").await;
    assert_eq!(outcome.status(), AllocationStatus::Exhausted);
    let refused = refusal(&outcome);
    assert_eq!((&refused.limit, refused.in_use, refused.size), (&Limit::Queue, 2, 3));
    // Nor its own ticket.
    assert_eq!(refusal(&pool.claim_with(B, "1", 2, FREE).await.unwrap()).limit, Limit::Quota);
    pool.queue_up(C, "3").await;
    assert_eq!(refusal(&pool.claim(C, "3").await).limit, Limit::Queue);
    pool.release(A, "held").await;
    assert!(pool.holds(B, "1").await && pool.holds(C, "3").await);
    // Nobody waits any longer.
    pool.release(C, "3").await;
    pool.claim(C, "2").await.granted().unwrap();
    pool.assert_clean().await;
}

async fn a_batch_of_claims_waits_behind_tickets(w: World) {
    let pool = w.pool(4).await;
    pool.claim_with(A, "held", 2, FREE).await.unwrap().granted().unwrap();
    pool.claim(C, "mine").await.granted().unwrap();
    waiting(pool.wait(B, "1", 2, FREE, &ticket()).await);
    let claims = [claim("2", 1), claim("mine", 1), claim("3", 2), claim("mine", 2)];
    let answers = pool.claim_many(C, &claims, FREE).await.unwrap();
    assert_eq!(refusal(answers[0].as_ref().unwrap()).limit, Limit::Queue);
    assert!(answers[1].as_ref().unwrap().granted().unwrap().held_before);
    assert_eq!(refusal(answers[2].as_ref().unwrap()).limit, Limit::Quota);
    assert!(matches!(answers[3], Err(Error::Conflict { .. })));
    // Its own ticket stands before the batch, too.
    let own = pool.claim_many(B, &[claim("1", 2), claim("x", 1)], FREE).await.unwrap();
    assert!(own.iter().all(|answer| refusal(answer.as_ref().unwrap()).size == 4));
    pool.release(A, "held").await;
    assert!(pool.holds(B, "1").await);
    pool.assert_clean().await;
}

async fn larger_claims_are_not_starved_by_smaller_ones(w: World) {
    for order in [Order::Fifo, Order::Priority, Order::Fair] {
        let w = World { fixture: w.fixture.another_pool(), clock: Clock::new() };
        let pool = w.pool(4).await;
        pool.order(order).await;
        for name in ["1", "2", "3", "4"] {
            pool.claim(A, name).await.granted().unwrap();
        }
        // Of projects whose shares begin alike the first by name is first.
        let large = "a/d/large";
        waiting(pool.wait(large, "1", 4, FREE, &ticket()).await);
        for i in 0..5 {
            pool.queue_up(A, &format!("small{i}")).await;
        }
        for name in ["1", "2", "3"] {
            pool.release(A, name).await;
            refusal(&pool.claim(C, "barging").await);
            pool.queue_up(A, "small0").await;
        }
        assert_eq!(pool.in_use().await, 1, "{order}");
        pool.release(A, "4").await;
        assert!(pool.holds(large, "1").await, "{order}");
        pool.release(large, "1").await;
        assert_eq!((pool.in_use().await, pool.usage().await.tickets), (4, 1));
        pool.assert_clean().await;
    }
}

async fn a_repeated_waiting_claim_keeps_its_place_and_renews_its_time(w: World) {
    let pool = w.pool(1).await;
    pool.claim(A, "held").await.granted().unwrap();
    for name in ["1", "2", "3"] {
        waiting(pool.wait(B, name, 1, FREE, &lasting(1000)).await);
    }
    w.pass(900);
    let before = pool.tickets(10).await;
    for name in ["3", "1"] {
        let again = waiting(pool.wait(B, name, 1, FREE, &lasting(1000)).await);
        assert_eq!(again.position, if name == "1" { 1 } else { 3 });
    }
    let after = pool.tickets(10).await;
    assert_eq!(pool.queue().await, ["1", "2", "3"]);
    assert_eq!(after[0].since, before[0].since);
    let left: Vec<_> = after.iter().map(|ticket| ticket.time_left.as_millis()).collect();
    assert_eq!(left, [1000, 100, 1000]);
    w.pass(100);
    pool.nudge().await;
    assert_eq!(pool.queue().await, ["1", "3"]);
    pool.assert_clean().await;
}

async fn a_repeated_waiting_claim_takes_over_its_caps(w: World) {
    let pool = w.pool(5).await;
    pool.claim(A, "held").await.granted().unwrap();
    let (one, two) = (caps(Some(1), Some(1)), caps(Some(2), Some(2)));
    waiting(pool.wait(A, "1", 1, one, &ticket()).await);
    waiting(pool.wait(A, "2", 1, caps(Some(3), None), &ticket()).await);
    let record = &pool.tickets(10).await[0];
    assert_eq!((record.project_cap, record.domain_cap), (Some(1), Some(1)));
    // The raised cap hands on, also to whoever stands behind.
    pool.wait(A, "1", 1, two, &ticket()).await.granted().unwrap();
    assert!(pool.holds(A, "2").await);
    // A lowered one holds back, and what stood behind it of other projects may go.
    waiting(pool.wait(A, "3", 1, caps(Some(3), None), &ticket()).await);
    pool.claim_with(B, "fill", 2, FREE).await.unwrap().granted().unwrap();
    waiting(pool.wait(A, "3", 1, FREE, &ticket()).await);
    pool.queue_up(B, "4").await;
    waiting(pool.wait(A, "3", 1, caps(Some(1), None), &ticket()).await);
    pool.release(B, "fill").await;
    assert!(pool.holds(B, "4").await && !pool.holds(A, "3").await);
    pool.assert_clean().await;
}

async fn a_repeated_waiting_claim_is_checked_against_quota_and_caps(w: World) {
    let pool = w.pool(5).await;
    pool.claim(A, "held").await.granted().unwrap();
    waiting(pool.wait(A, "1", 3, caps(Some(3), None), &ticket()).await);
    let before = pool.tickets(10).await;
    let error = pool.try_wait(A, &claim("1", 3), caps(Some(2), None), &ticket()).await.unwrap_err();
    assert!(matches!(error, Error::NeverGranted { size: 2, .. }), "{error}");
    assert_eq!(pool.tickets(10).await, before);
    // At its cap it was not looked at when the quota became too small.
    pool.change_quota(QuotaChange::Pin(quota(2))).await;
    let error = pool.try_wait(A, &claim("1", 3), FREE, &ticket()).await.unwrap_err();
    assert!(matches!(error, Error::NeverGranted { limit: Limit::Quota, size: 2, .. }), "{error}");
    // When its turn comes it goes.
    pool.release(A, "held").await;
    assert_eq!(pool.usage().await.tickets, 0);
    pool.assert_clean().await;
}

/// Also by a claim that would not have waited.
async fn what_was_handed_over_stays_when_it_is_claimed(w: World) {
    let pool = w.pool(1).await;
    pool.claim(A, "held").await.granted().unwrap();
    waiting(pool.wait(B, "1", 1, FREE, &lasting(1000)).await);
    pool.release(A, "held").await;
    pool.claim(B, "1").await.granted().unwrap();
    w.pass(1000);
    pool.nudge().await;
    assert!(pool.holds(B, "1").await);
}

async fn a_grant_is_released_by_its_number_alone(w: World) {
    let pool = w.pool(1).await;
    let first = fence(&pool.claim(A, "1").await);
    pool.release(A, "1").await;
    let second = fence(&pool.claim(A, "1").await);
    assert_eq!(pool.release_grant(A, "1", first).await.unwrap(), Released::NotHeld);
    assert!(pool.holds(A, "1").await);
    // A ticket is no grant, and a number is not enough.
    pool.queue_up(B, "2").await;
    for (path, name) in [(B, "2"), ("p/d/another", "1")] {
        assert_eq!(pool.release_grant(path, name, second).await.unwrap(), Released::NotHeld);
    }
    assert_eq!(pool.queue().await, ["2"]);
    assert_eq!(pool.release_grant(A, "1", second).await.unwrap(), Released::Units(1));
    assert!(pool.holds(B, "2").await);
    assert_eq!(pool.release_grant(A, "1", second).await.unwrap(), Released::NotHeld);
    pool.assert_clean().await;
}

async fn a_dead_ticket_is_skipped(w: World) {
    let pool = w.pool(1).await;
    pool.claim(A, "held").await.granted().unwrap();
    waiting(pool.wait(B, "dead", 1, FREE, &lasting(1000)).await);
    waiting(pool.wait(C, "alive", 1, FREE, &ticket()).await);
    w.pass(1000);
    assert_eq!(pool.usage().await.tickets, 2);
    pool.release(A, "held").await;
    assert!(pool.holds(C, "alive").await);
    assert_eq!(pool.usage().await.tickets, 0);
    // More dead tickets than one call ends.
    for i in 0..50 {
        waiting(pool.wait(B, &i.to_string(), 1, FREE, &lasting(1000)).await);
    }
    pool.queue_up(A, "last").await;
    w.pass(1000);
    pool.release(C, "alive").await;
    assert!(pool.holds(A, "last").await);
    assert_eq!(pool.usage().await.tickets, 0);
    pool.assert_clean().await;
}

async fn a_grant_handed_to_a_dead_waiter_goes_on_to_the_next(w: World) {
    let pool = w.pool(1).await;
    pool.claim(A, "held").await.granted().unwrap();
    waiting(pool.wait(B, "dead", 1, FREE, &lasting(1000)).await);
    pool.queue_up(C, "alive").await;
    w.pass(400);
    pool.release(A, "held").await;
    assert_eq!(pool.lease_left(B, "dead").await, Some(Duration::from_millis(600)));
    w.pass(599);
    pool.nudge().await;
    assert!(pool.holds(B, "dead").await);
    w.pass(1);
    pool.nudge().await;
    assert!(pool.holds(C, "alive").await && !pool.holds(B, "dead").await);
    assert_eq!(pool.in_use().await, 1);
    pool.assert_clean().await;
}

async fn a_grant_that_was_handed_over_gets_the_lease_of_the_claim_that_takes_it(w: World) {
    let pool = w.pool(3).await;
    pool.claim_with(A, "held", 3, FREE).await.unwrap().granted().unwrap();
    for name in ["none", "own", "renewed"] {
        waiting(pool.wait(B, name, 1, FREE, &lasting(1000)).await);
    }
    pool.release(A, "held").await;
    let turn = pool.wait(B, "none", 1, FREE, &ticket()).await;
    let number = turn.granted().unwrap().fencing_number;
    assert_eq!(pool.lease_left(B, "none").await, None);
    let again = pool.wait(B, "none", 1, FREE, &ticket()).await;
    assert_eq!(again.granted().unwrap().fencing_number, number);
    let own = claim("own", 1).with_lease(lease(7000));
    let turn: Turn = pool.try_wait(B, &own, FREE, &ticket()).await.unwrap();
    assert!(turn.granted().is_some());
    assert_eq!(pool.lease_left(B, "own").await, Some(Duration::from_secs(7)));
    let _ = pool.renew(B, "renewed", 3000).await.unwrap();
    assert_eq!(pool.lease_left(B, "renewed").await, Some(Duration::from_secs(3)));
    w.pass(3000);
    pool.nudge().await;
    assert_eq!(pool.in_use().await, 2);
    pool.assert_clean().await;
}

async fn a_waiting_token_that_is_released_is_withdrawn_and_the_next_runs(w: World) {
    let pool = w.pool(3).await;
    pool.claim_with(A, "held", 2, FREE).await.unwrap().granted().unwrap();
    waiting(pool.wait("q/d/a", "b-c", 2, FREE, &ticket()).await);
    pool.queue_up(C, "2").await;
    // Another execution's, of the same member.
    assert_eq!(pool.release("q/d/a-b", "c").await, Released::NotHeld);
    assert_eq!(pool.usage().await.tickets, 2);
    let released = pool.release_many("q/d/a", &["none", "b-c", "b-c"]).await.unwrap();
    assert_eq!(released, [Released::NotHeld, Released::Withdrawn, Released::NotHeld]);
    assert!(pool.holds(C, "2").await);
    let usage = pool.usage().await;
    assert_eq!((usage.in_use, usage.tickets), (3, 0));
    // Its time passes without a trace.
    w.pass(700_000);
    pool.nudge().await;
    assert_eq!(pool.in_use().await, 3 - 1); // the handed-over grant that nobody took
    pool.assert_clean().await;
}

async fn a_waiting_token_that_is_revoked_is_withdrawn_and_the_next_runs(w: World) {
    let pool = w.pool(3).await;
    pool.claim_with(A, "held", 2, FREE).await.unwrap().granted().unwrap();
    waiting(pool.wait(B, "1", 2, FREE, &ticket()).await);
    pool.queue_up(C, "2").await;
    assert_eq!(pool.revoke(B, "1").await, Released::Withdrawn);
    assert_eq!(pool.revoke(B, "1").await, Released::NotHeld);
    assert!(pool.holds(C, "2").await);
    assert_eq!(pool.renew(B, "1", 1000).await.unwrap(), Renewed::Lost);
    pool.assert_clean().await;
}

async fn a_waiting_claim_that_can_never_run_is_an_error_and_changes_nothing(w: World) {
    let pool = w.pool(5).await;
    pool.claim(A, "held").await.granted().unwrap();
    let before = (pool.usage().await, pool.holdings(10).await);
    let cases = [
        (6, FREE, Limit::Quota, 5),
        (6, caps(Some(1), None), Limit::Quota, 5),
        (3, caps(Some(2), Some(1)), project("p"), 2),
        (3, caps(Some(3), Some(2)), domain("p", "d"), 2),
        (1, caps(Some(0), None), project("p"), 0),
        (1, caps(None, Some(0)), domain("p", "d"), 0),
    ];
    for (units, caps, expected, expected_size) in cases {
        let error = pool.try_wait(A, &claim("1", units), caps, &ticket()).await.unwrap_err();
        match error {
            Error::NeverGranted { pool: name, units: asked, limit, size } => {
                assert_eq!((name, asked), (pool.name.clone(), units as u64));
                assert_eq!((limit, size), (expected, expected_size));
            }
            other => panic!("{other}"),
        }
        assert_eq!((pool.usage().await, pool.holdings(10).await), before);
    }
    pool.assert_clean().await;
}

async fn a_lowered_quota_drops_the_tickets_that_are_larger_when_their_turn_comes(w: World) {
    let pool = w.pool(4).await;
    let mut inbox = w.inbox().await;
    let request = ticket().with_channel(inbox.channel.clone());
    pool.claim_with(A, "held", 3, FREE).await.unwrap().granted().unwrap();
    for (path, name, units) in [(B, "large", 4), (C, "next", 2), (B, "larger", 3), (A, "last", 2)] {
        waiting(pool.wait(path, name, units, FREE, &request).await);
    }
    pool.change_quota(QuotaChange::Pin(quota(2))).await;
    let gone = |path, name| format!("gone {}", member(path, name));
    let granted = |path, name| format!("granted {}", member(path, name));
    assert_eq!(told(notice(&mut inbox).await), gone(B, "large"));
    assert_eq!(pool.queue().await, ["next", "larger", "last"]);
    pool.release(A, "held").await;
    assert_eq!(told(notice(&mut inbox).await), granted(C, "next"));
    assert_eq!(pool.queue().await, ["larger", "last"]);
    pool.release(C, "next").await;
    assert_eq!(told(notice(&mut inbox).await), gone(B, "larger"));
    assert_eq!(told(notice(&mut inbox).await), granted(A, "last"));
    assert!(pool.queue().await.is_empty());
    pool.assert_clean().await;
}

async fn a_ticket_of_other_units_or_of_another_execution_is_a_conflict(w: World) {
    let pool = w.pool(3).await;
    pool.claim_with(A, "held", 3, FREE).await.unwrap().granted().unwrap();
    waiting(pool.wait("p/d/a", "b-c", 2, FREE, &lasting(1000)).await);
    let before = pool.tickets(10).await;
    for (path, name, units) in [("p/d/a", "b-c", 1), ("p/d/a", "b-c", 9), ("p/d/a-b", "c", 2)] {
        let error = pool.try_wait(path, &claim(name, units), FREE, &ticket()).await.unwrap_err();
        match error {
            Error::Conflict { member, held_units, held_by } => {
                assert_eq!((member.as_str(), held_units, &*held_by), ("ex:p:d:a-b-c", 2, "a"));
            }
            other => panic!("{other}"),
        }
    }
    assert_eq!(pool.tickets(10).await, before);
    pool.assert_clean().await;
}

async fn more_tickets_than_a_call_hands_on_to_are_done_by_the_next(w: World) {
    let pool = w.pool(1).await;
    pool.claim(A, "held").await.granted().unwrap();
    for i in 0..449 {
        pool.queue_up(&format!("p{}/d/e", i % 7), &i.to_string()).await;
    }
    pool.queue_up(B, "last").await;
    pool.change_quota(QuotaChange::Pin(quota(1000))).await;
    assert_eq!(pool.in_use().await, 101);
    // Nothing passes what is left, and who waits is told that it is due.
    assert_eq!(refusal(&pool.claim(C, "x").await).limit, Limit::Queue);
    assert_eq!(pool.in_use().await, 201);
    // A claim that waits hands on before and after it took its place.
    let last = pool.queue_up(B, "last").await;
    assert_eq!((last.position, last.blocked_by.limit), (50, Limit::Queue));
    assert_eq!(last.retry_after, Some(Duration::ZERO));
    for in_use in [401, 451, 451] {
        assert_eq!(pool.in_use().await, in_use);
        pool.assert_clean().await;
        pool.nudge().await;
    }
}

fn joint(pool: &Pool, claim: Claim, constraints: ResourceConstraintsSpec) -> Joint {
    Joint { pool: pool.name.clone(), claim, constraints }
}

async fn claim_all(backend: &dyn Backend, path: &str, claims: &[Joint]) -> Result<JointOutcome> {
    let (execution, holder) = (execution(path), Holder::new("test").unwrap());
    let claimant = Claimant { execution: &execution, constraints: FREE, holder: &holder };
    backend.allocate_all(claimant, claims).await
}

/// Three pools of one backend.
async fn three_pools(w: &World) -> [Pool; 3] {
    let more = [w.fixture.another_pool(), w.fixture.another_pool()];
    [w.pool(3).await, more[0].pool(3).await, more[1].pool(3).await]
}

async fn of_several_pools_all_are_granted_or_none(w: World) {
    let pools = three_pools(&w).await;
    let backend = &*w.fixture.backend;
    let leased = claim("1", 2).with_lease(lease(1000));
    let claims = [
        joint(&pools[0], claim("1", 1), FREE),
        joint(&pools[1], leased, caps(Some(2), None)),
        joint(&pools[2], claim("other", 3), FREE),
    ];
    let JointOutcome::Granted(grants) = claim_all(backend, A, &claims).await.unwrap() else {
        panic!("refused")
    };
    assert_eq!(grants.iter().map(|grant| grant.units.get()).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(grants.iter().all(|grant| !grant.held_before));
    // The same again is the same grants, and the lease is renewed.
    w.pass(900);
    let JointOutcome::Granted(again) = claim_all(backend, A, &claims).await.unwrap() else {
        panic!("refused")
    };
    for (again, grant) in again.iter().zip(&grants) {
        assert_eq!((again.held_before, again.fencing_number), (true, grant.fencing_number));
    }
    assert_eq!(pools[1].lease_left(A, "1").await, Some(Duration::from_secs(1)));
    let mut in_use = Vec::new();
    for pool in &pools {
        in_use.push(pool.in_use().await);
        pool.assert_clean().await;
    }
    assert_eq!(in_use, [1, 2, 3]);
    w.pass(1000);
    pools[1].nudge().await;
    assert_eq!(pools[1].in_use().await, 0);
    assert_eq!(claim_all(backend, A, &[]).await.unwrap(), JointOutcome::Granted(Vec::new()));
}

async fn of_several_pools_the_one_that_refuses_is_named(w: World) {
    let pools = three_pools(&w).await;
    let backend = &*w.fixture.backend;
    pools[1].claim_with(A, "held", 2, FREE).await.unwrap().granted().unwrap();
    pools[2].claim_with(A, "held", 3, FREE).await.unwrap().granted().unwrap();
    let ask = |units: [i64; 3], constraints| {
        let [first, second, third] = [0, 1, 2].map(|i| {
            let caps = if i == 1 { constraints } else { FREE };
            joint(&pools[i], claim("1", units[i]), caps)
        });
        [first, second, third]
    };
    let mut before = Vec::new();
    for pool in &pools {
        before.push(pool.usage().await);
    }
    let cases = [
        (ask([1, 2, 1], FREE), 1, Limit::Quota, 2, 3),
        (ask([1, 1, 1], FREE), 2, Limit::Quota, 3, 3),
        (ask([1, 1, 1], caps(Some(2), None)), 1, project("p"), 2, 2),
        (ask([1, 1, 1], caps(Some(3), Some(1))), 1, domain("p", "d"), 2, 1),
        (ask([4, 4, 4], FREE), 0, Limit::Quota, 0, 3),
    ];
    for (claims, at, limit, in_use, size) in cases {
        match claim_all(backend, A, &claims).await.unwrap() {
            JointOutcome::Refused { pool, refusal } => {
                assert_eq!(pool, pools[at].name);
                assert_eq!((refusal.limit, refusal.in_use, refusal.size), (limit, in_use, size));
            }
            other => panic!("{other:?}"),
        }
    }
    let conflict =
        [joint(&pools[0], claim("1", 1), FREE), joint(&pools[1], claim("held", 1), FREE)];
    let error = claim_all(backend, A, &conflict).await.unwrap_err();
    assert!(matches!(error, Error::Conflict { held_units: 2, .. }), "{error}");
    let twice = [joint(&pools[0], claim("1", 1), FREE), joint(&pools[0], claim("2", 1), FREE)];
    let error = claim_all(backend, A, &twice).await.unwrap_err();
    assert!(matches!(error, Error::InvalidArgument { .. }), "{error}");
    let unknown = w.fixture.another_pool().handle(None);
    let claims = [joint(&pools[0], claim("1", 1), FREE), joint(&unknown, claim("1", 1), FREE)];
    match claim_all(backend, A, &claims).await.unwrap_err() {
        Error::UnknownNamespace { pool } => assert_eq!(pool, unknown.name),
        other => panic!("{other}"),
    }
    for (pool, before) in pools.iter().zip(before) {
        assert_eq!(pool.usage().await, before);
        pool.assert_clean().await;
    }
}

async fn several_pools_are_claimed_behind_tickets(w: World) {
    let pools = three_pools(&w).await;
    pools[1].claim_leased(B, "held", 1000).await.granted().unwrap();
    waiting(pools[1].wait(B, "1", 3, FREE, &ticket()).await);
    let claims = [joint(&pools[0], claim("1", 1), FREE), joint(&pools[1], claim("1", 1), FREE)];
    let refused = JointOutcome::Refused {
        pool: pools[1].name.clone(),
        refusal: match pools[1].claim(C, "x").await {
            tokenpool::Outcome::Refused(refusal) => refusal,
            tokenpool::Outcome::Granted(_) => panic!("granted"),
        },
    };
    assert_eq!(claim_all(&*w.fixture.backend, A, &claims).await.unwrap(), refused);
    assert_eq!(pools[0].in_use().await, 0);
    // What is over is done first, and goes to the ticket.
    w.pass(1000);
    let outcome = claim_all(&*w.fixture.backend, A, &claims).await.unwrap();
    assert!(matches!(outcome, JointOutcome::Refused { .. }), "{outcome:?}");
    assert!(pools[1].holds(B, "1").await);
    pools[1].release(B, "1").await;
    let outcome = claim_all(&*w.fixture.backend, A, &claims).await.unwrap();
    assert!(matches!(outcome, JointOutcome::Granted(_)), "{outcome:?}");
    for pool in &pools {
        pool.assert_clean().await;
    }
}

async fn changing_the_order_sorts_the_tickets_that_wait(w: World) {
    let pool = w.pool(1).await;
    pool.claim(C, "held").await.granted().unwrap();
    for (path, name) in [(A, "1"), (A, "2"), (A, "3"), (B, "4"), (B, "5"), (B, "6")] {
        waiting(pool.wait(path, name, 1, FREE, &urgent(3)).await);
    }
    pool.order(Order::Priority).await;
    assert_eq!(pool.usage().await.order, Order::Priority);
    // They were given their ranks before.
    waiting(pool.wait(B, "7", 1, FREE, &urgent(1)).await);
    assert_eq!(pool.queue().await, ["7", "1", "2", "3", "4", "5", "6"]);
    assert_eq!(pool.release(B, "7").await, Released::Withdrawn);
    pool.order(Order::Fair).await;
    let order = pool.grants_in_order((C, "held")).await;
    let expected = ["p:d:a-1", "q:d:b-4", "p:d:a-2", "q:d:b-5", "p:d:a-3", "q:d:b-6"];
    assert_eq!(order, expected);

    // Back again, while projects have turns by their shares.
    pool.claim(C, "held").await.granted().unwrap();
    for (path, name) in [(B, "1"), (A, "2"), (B, "3")] {
        pool.queue_up(path, name).await;
    }
    pool.order(Order::Fifo).await;
    let order = pool.grants_in_order((C, "held")).await;
    assert_eq!(order, ["q:d:b-1", "p:d:a-2", "q:d:b-3"]);
    pool.assert_clean().await;
}

async fn weights_are_kept_by_project(w: World) {
    let pool = w.pool(1).await;
    assert_eq!(pool.usage().await.order, Order::Fifo);
    let change = |change: QueueChange| {
        let (backend, name) = pool.handles();
        async move { backend.change_queue(&name, &change).await }
    };
    // A project that nobody has seen yet may come.
    change(QueueChange::new().weight("p", weight(2)).weight("nobody", weight(7))).await.unwrap();
    change(QueueChange::new().order(Order::Fair).weight("p", weight(3))).await.unwrap();
    let usage = pool.usage().await;
    let expected = BTreeMap::from([("nobody".to_owned(), weight(7)), ("p".to_owned(), weight(3))]);
    assert_eq!((usage.order, &usage.weights), (Order::Fair, &expected));
    change(QueueChange::new()).await.unwrap();
    for name in ["", "a b", "a:b", "{a}"] {
        let error = change(QueueChange::new().order(Order::Fifo).weight(name, weight(1))).await;
        assert!(matches!(error, Err(Error::InvalidArgument { .. })), "{name:?}: {error:?}");
    }
    let usage = pool.usage().await;
    assert_eq!((usage.order, usage.weights), (Order::Fair, expected));
}

async fn tickets_are_listed_in_order_and_in_pages(w: World) {
    let pool = w.pool(1).await;
    pool.order(Order::Priority).await;
    pool.claim(A, "held").await.granted().unwrap();
    for i in 0..60 {
        let path = format!("p{}/d/e x", i % 5);
        let request = urgent(i % 10);
        waiting(pool.wait(&path, &i.to_string(), 1, caps(Some(3), None), &request).await);
    }
    let all = pool.tickets(1000).await;
    let expected: Vec<_> =
        (0..10).rev().flat_map(|level| (0..6).map(move |i| (i * 10 + level).to_string())).collect();
    assert_eq!(pool.queue().await, expected);
    let first = &all[0];
    assert_eq!(first.member, member("p4/d/e x", "9"));
    assert_eq!((first.units.get(), first.project_cap, first.domain_cap), (1, Some(3), None));
    assert_eq!((&*first.holder, &*first.execution), ("test", "e x"));
    assert_eq!(first.time_left, Duration::from_secs(600));
    assert_eq!(first.since, w.clock.now());
    for count in [1, 7, 16, 59, 60, 61] {
        assert_eq!(pool.tickets(count).await, all, "pages of {count}");
    }
}

async fn revocations_are_written_down(w: World) {
    let pool = w.pool(3).await;
    for name in ["1", "2"] {
        pool.claim(A, name).await.granted().unwrap();
    }
    waiting(pool.wait(B, "3", 2, FREE, &ticket()).await);
    let by = |operator, reason| Revocation::new(operator, reason).unwrap();
    let revocations = [
        (member(A, "1"), by("eve", "stuck for days")),
        (member(B, "3"), by("bob", "no longer needed")),
    ];
    let mut times = Vec::new();
    for (member, revocation) in &revocations {
        w.pass(1500);
        times.push(w.clock.now());
        let released = pool.backend.revoke(&pool.name, member, revocation).await.unwrap();
        assert_ne!(released, Released::NotHeld);
        // What was not there is not written down.
        w.pass(1);
        let again = pool.backend.revoke(&pool.name, member, revocation).await.unwrap();
        assert!(matches!(again, Released::NotHeld | Released::Units(_)));
    }
    let records = pool.backend.revocations(&pool.name, 10).await.unwrap();
    let seen: Vec<_> = records
        .iter()
        .rev()
        .map(|record| (record.member.clone(), by(&record.operator, &record.reason)))
        .collect();
    // The ticket had run when the first gave its unit back, and was revoked as a grant.
    assert_eq!(seen, revocations);
    assert_eq!(records.iter().rev().map(|record| record.at).collect::<Vec<_>>(), times);
    let latest = pool.backend.revocations(&pool.name, 1).await.unwrap();
    assert_eq!(latest, records[..1]);
    pool.assert_clean().await;
}

async fn a_pool_with_tickets_is_not_deleted_unless_forced(w: World) {
    let pool = w.pool(3).await;
    pool.claim_with(A, "held", 3, FREE).await.unwrap().granted().unwrap();
    waiting(pool.wait(A, "1", 3, caps(Some(3), None), &ticket()).await);
    pool.change_quota(QuotaChange::Pin(quota(1))).await;
    // Only the ticket is left: it is too large, and its project had no turn when the quota was lowered.
    let error = pool.backend.delete_pool(&pool.name, Deletion::OnlyUnused).await.unwrap_err();
    assert!(matches!(error, Error::PoolInUse { holders: 1, units: 3, .. }), "{error}");
    assert_eq!(pool.backend.delete_pool(&pool.name, Deletion::EvenInUse).await.unwrap(), 3);
    let pool = w.pool(3).await;
    let usage = pool.usage().await;
    assert_eq!((usage.in_use, usage.tickets), (0, 0));
    pool.claim_with(A, "1", 3, FREE).await.unwrap().granted().unwrap();
    pool.assert_clean().await;
}

async fn new_pools_are_unknown_to_every_operation(w: World) {
    let pool = w.fixture.handle(None);
    let (backend, name) = (&pool.backend, &pool.name);
    let errors = [
        pool.try_wait(A, &claim("1", 1), FREE, &ticket()).await.err(),
        backend.renew(name, &[]).await.err(),
        backend.revocations(name, 1).await.err(),
        backend.change_queue(name, &QueueChange::new().order(Order::Fair)).await.err(),
        backend.tickets(name, Default::default(), 10).await.err(),
        claim_all(&**backend, A, &[joint(&pool, claim("1", 1), FREE)]).await.err(),
    ];
    for error in errors {
        assert!(matches!(error, Some(Error::UnknownNamespace { .. })), "{error:?}");
    }
    assert!(Lease::new(Duration::from_millis(99)).is_err());
}
