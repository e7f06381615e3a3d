//! Guards, waiting callers, the keeper and locks, on both backends.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokenpool::{
    Acquired, AcquiredAll, Allocation, AllocationToken, Backend, Claim, Config, Deletion, Error,
    ExecutionId, Joint, Lease, Locks, Manager, PluginId, PoolName, Registrar, Released,
    ResourceConstraintsSpec, ResourceNamespace, ResourceRegistrar, Result, Units, Wait,
};

use crate::support::server::Server;
use crate::support::{FREE, caps, connect, memory, redis_on, revocation};

/// Far more than anything here takes; reached only when something never happens.
const LONG: Duration = Duration::from_secs(20);

/// Runs a case on both backends.
async fn on_both<F: Future<Output = ()>>(case: impl Fn(Arc<dyn Backend>) -> F) {
    case(memory().await.backend).await;
    let redis = redis_on(Server::start()).await;
    case(Arc::clone(&redis.backend)).await;
}

fn pool(name: &str) -> PoolName {
    PoolName::new(format!("hive:{name}")).unwrap()
}

/// A manager of pools with these quotas.
async fn manager(backend: &Arc<dyn Backend>, quotas: &[(&str, i64)]) -> Manager {
    let registrar = Registrar::new(Arc::clone(backend));
    let plugin = registrar.for_plugin(PluginId::new("hive").unwrap());
    for (name, quota) in quotas {
        plugin.register_resource_quota(&ResourceNamespace::new(*name).unwrap(), *quota).unwrap();
    }
    registrar.build().await.unwrap()
}

fn execution() -> ExecutionId {
    ExecutionId::new("p", "d", "e").unwrap()
}

fn claim(token: &str) -> Claim {
    Claim::new(AllocationToken::new(token).unwrap(), Units::ONE)
}

fn lease(millis: u64) -> Lease {
    Lease::new(Duration::from_millis(millis)).unwrap()
}

async fn try_for(
    manager: &Manager,
    name: &str,
    claim: Claim,
    constraints: ResourceConstraintsSpec,
    wait: Wait,
) -> Result<Acquired> {
    within(manager.acquire(&pool(name), &execution(), claim, constraints, wait)).await
}

async fn acquire(manager: &Manager, name: &str, claim: Claim) -> Allocation {
    match try_for(manager, name, claim, FREE, Wait::forever()).await.unwrap() {
        Acquired::Granted(allocation) => allocation,
        other => panic!("{other:?}"),
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, future).await.expect("it happens in time")
}

/// Looks again and again until it is so; what is looked at has no event to wait for.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < LONG, "never: {what}");
        tokio::task::yield_now().await;
    }
}

async fn in_use(backend: &Arc<dyn Backend>, name: &str) -> u64 {
    backend.usage(&pool(name)).await.unwrap().in_use
}

async fn tickets(backend: &Arc<dyn Backend>, name: &str) -> u64 {
    backend.usage(&pool(name)).await.unwrap().tickets
}

#[tokio::test]
async fn a_waiting_caller_is_granted_when_units_are_released() {
    on_both(async |backend| {
        let manager = manager(&backend, &[("a", 1)]).await;
        let first = acquire(&manager, "a", claim("1")).await;
        let second = acquire(&manager, "a", claim("2"));
        let release = async {
            until("the second waits", async || tickets(&backend, "a").await == 1).await;
            let number = first.fencing_number().unwrap();
            assert_eq!(first.release().await.unwrap(), Released::Units(1));
            number
        };
        let (second, number) = within(async { tokio::join!(second, release) }).await;
        assert!(second.fencing_number().unwrap() > number);
        assert_eq!((second.units(), second.token().as_str()), (Units::ONE, "2"));
        assert_eq!((in_use(&backend, "a").await, tickets(&backend, "a").await), (1, 0));
        assert!(!second.is_lost());
    })
    .await;
}

#[tokio::test]
async fn a_dropped_future_withdraws_its_ticket_and_hands_on_what_it_got() {
    on_both(async |backend| {
        let manager = manager(&backend, &[("a", 1)]).await;
        let first = acquire(&manager, "a", claim("1")).await;
        {
            let second = acquire(&manager, "a", claim("2"));
            let waits = until("the second waits", async || tickets(&backend, "a").await == 1);
            tokio::select! {
                _ = second => panic!("granted"),
                () = waits => {}
            }
        }
        until("the ticket is withdrawn", async || tickets(&backend, "a").await == 0).await;
        let third = acquire(&manager, "a", claim("3"));
        let (third, ()) = tokio::join!(third, async { drop(first) });
        assert_eq!(third.token().as_str(), "3");
    })
    .await;
}

#[tokio::test]
async fn a_guard_dropped_outside_of_a_runtime_is_released() {
    on_both(async |backend| {
        let manager = manager(&backend, &[("a", 1)]).await;
        let guard = acquire(&manager, "a", claim("1")).await;
        std::thread::spawn(move || drop(guard)).join().unwrap();
        until("released", async || in_use(&backend, "a").await == 0).await;
    })
    .await;
}

#[tokio::test]
async fn time_is_up_for_a_caller_with_a_deadline() {
    on_both(async |backend| {
        let manager = manager(&backend, &[("a", 2)]).await;
        let _first = acquire(&manager, "a", claim("1")).await;
        let wait = Wait::within(Duration::from_millis(50)).unwrap();
        let caps = caps(Some(1), None);
        match try_for(&manager, "a", claim("2"), caps, wait).await.unwrap() {
            Acquired::TimedOut(ticket) => {
                assert_eq!(ticket.position, 1);
                assert_eq!(ticket.blocked_by.to_string(), "cap of project p: 1 of 1 in use");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!((in_use(&backend, "a").await, tickets(&backend, "a").await), (1, 0));
    })
    .await;
}

#[tokio::test]
async fn what_can_never_be_granted_is_an_error_at_once() {
    on_both(async |backend| {
        let manager = manager(&backend, &[("a", 2)]).await;
        let large = Claim::new(AllocationToken::new("1").unwrap(), Units::new(3).unwrap());
        let error = try_for(&manager, "a", large, FREE, Wait::forever()).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "3 unit(s) of hive:a can never be granted: the quota of the pool is 2"
        );
        assert!(error.is_invalid());
        let unknown = try_for(&manager, "b", claim("1"), FREE, Wait::forever()).await;
        assert!(matches!(unknown, Err(Error::UnknownNamespace { .. })));
        assert_eq!((in_use(&backend, "a").await, tickets(&backend, "a").await), (0, 0));
    })
    .await;
}

#[tokio::test]
async fn a_lease_is_kept_alive_and_its_loss_is_told() {
    on_both(async |backend| {
        let manager = manager(&backend, &[("a", 1)]).await;
        let guard = acquire(&manager, "a", claim("1").with_lease(lease(1_500))).await;
        let start = Instant::now();
        until("two leases have passed", async || {
            assert_eq!(in_use(&backend, "a").await, 1);
            assert!(!guard.is_lost());
            tokio::time::sleep(Duration::from_millis(10)).await;
            start.elapsed() > Duration::from_millis(3_500)
        })
        .await;
        let member = backend.holders(&pool("a"), Default::default(), 10).await.unwrap();
        assert!(member.holdings[0].lease_left.unwrap() <= Duration::from_millis(1_500));
        let member = member.holdings[0].member.clone();
        backend.revoke(&pool("a"), &member, &revocation()).await.unwrap();
        within(guard.lost()).await;
        assert!(guard.is_lost());
        assert_eq!(guard.release().await.unwrap(), Released::NotHeld);
    })
    .await;
}

/// The keeper has a thread of its own.
#[tokio::test]
async fn a_caller_that_blocks_its_runtime_keeps_its_lease() {
    on_both(async |backend| {
        let manager = manager(&backend, &[("a", 1)]).await;
        let guard = acquire(&manager, "a", claim("1").with_lease(lease(1_500))).await;
        std::thread::sleep(Duration::from_millis(3_500)); // what must not be done in a runtime
        assert_eq!(in_use(&backend, "a").await, 1);
        assert!(!guard.is_lost());
    })
    .await;
}

/// A token may be claimed again, by another process, before an old guard of it is dropped.
#[tokio::test]
async fn a_guard_gives_back_its_own_grant_alone() {
    on_both(async |backend| {
        let (one, two) =
            (manager(&backend, &[("own", 1)]).await, manager(&backend, &[("own", 1)]).await);
        for drops in [false, true] {
            let old = acquire(&one, "own", claim("t")).await;
            two.release(&pool("own"), &execution(), &[old.token().clone()]).await.unwrap();
            let new = acquire(&two, "own", claim("t")).await;
            if drops {
                drop(old);
                // What the old manager does next comes after that.
                let other = claim("other").with_lease(lease(60_000));
                let wait = Wait::within(Duration::from_millis(1)).unwrap();
                let refused = try_for(&one, "own", other, FREE, wait).await.unwrap();
                assert!(matches!(refused, Acquired::TimedOut(_)), "{refused:?}");
            } else {
                assert_eq!(old.release().await.unwrap(), Released::NotHeld);
            }
            assert_eq!(in_use(&backend, "own").await, 1);
            assert_eq!(new.release().await.unwrap(), Released::Units(1));
        }
    })
    .await;
}

#[tokio::test]
async fn another_guard_of_the_same_token_learns_that_the_units_are_given_back() {
    on_both(async |backend| {
        let manager = manager(&backend, &[("shared", 1)]).await;
        let leased = || claim("t").with_lease(lease(60_000));
        let (first, second) = (
            acquire(&manager, "shared", leased()).await,
            acquire(&manager, "shared", leased()).await,
        );
        let first_is_lost = first.lost();
        assert_eq!(first.release().await.unwrap(), Released::Units(1));
        within(second.lost()).await;
        assert!(second.is_lost());
        // What was given back on purpose is not lost.
        assert!(tokio::time::timeout(Duration::from_millis(1), first_is_lost).await.is_err());
    })
    .await;
}

/// Deleting a pool in use forgets as much as losing all data does.
async fn forget(backend: &Arc<dyn Backend>, name: &str) {
    backend.delete_pool(&pool(name), Deletion::EvenInUse).await.unwrap();
}

#[tokio::test]
async fn what_the_server_forgot_is_claimed_again_by_its_holders() {
    on_both(async |backend| {
        let manager = manager(&backend, &[("forgotten", 2)]).await;
        let held = acquire(&manager, "forgotten", claim("t").with_lease(lease(6_000))).await;
        let kept = claim("kept").with_lease(lease(6_000));
        manager.allocate(&pool("forgotten"), &execution(), &[kept], FREE).await.unwrap();
        let before = held.fencing_number().unwrap();
        forget(&backend, "forgotten").await;
        let is_back = async || match backend.usage(&pool("forgotten")).await {
            Ok(usage) => usage.in_use == 2,
            Err(_) => false,
        };
        until("both hold again", is_back).await;
        until("the guard knows it", async || held.fencing_number().unwrap() > before).await;
        assert!(!held.is_lost());
        assert_eq!(held.release().await.unwrap(), Released::Units(1));
        assert_eq!(in_use(&backend, "forgotten").await, 1);
    })
    .await;
}

#[tokio::test]
async fn what_the_server_forgot_and_others_took_is_lost() {
    on_both(async |backend| {
        let (one, two) =
            (manager(&backend, &[("taken", 1)]).await, manager(&backend, &[("taken", 1)]).await);
        let held = acquire(&one, "taken", claim("t").with_lease(lease(6_000))).await;
        forget(&backend, "taken").await;
        let taken = acquire(&two, "taken", claim("other")).await;
        within(held.lost()).await;
        assert_eq!(held.release().await.unwrap(), Released::NotHeld);
        assert_eq!(taken.release().await.unwrap(), Released::Units(1));
    })
    .await;
}

#[tokio::test]
async fn a_guard_is_given_back_after_all_data_is_lost() {
    let server = Server::start();
    let backend = connect(&server.url()).await;
    let manager = manager(&backend, &[("lost", 1)]).await;
    let held = acquire(&manager, "lost", claim("t")).await;
    let _: () = redis::cmd("FLUSHALL").query(&mut server.raw()).unwrap();
    assert_eq!(held.release().await.unwrap(), Released::NotHeld);
    assert_eq!(in_use(&backend, "lost").await, 0);
}

#[tokio::test]
async fn a_server_that_does_not_answer_for_a_while_costs_no_lease() {
    let server = Server::start();
    let mut config = Config::redis_at(server.url()).unwrap();
    config.redis.command_timeout = Duration::from_millis(500);
    let backend = config.open().await.unwrap();
    let manager = manager(&backend, &[("patient", 1)]).await;
    let held = acquire(&manager, "patient", claim("t").with_lease(lease(9_000))).await;
    let number = held.fencing_number();
    // From before the first renewal, after 3 s, until some have failed.
    tokio::time::sleep(Duration::from_secs(2)).await;
    server.signal("STOP");
    tokio::time::sleep(Duration::from_secs(3)).await;
    server.signal("CONT");
    // The lease as it was granted is over by now.
    assert!(tokio::time::timeout(Duration::from_secs(5), held.lost()).await.is_err());
    assert_eq!((held.is_lost(), held.fencing_number()), (false, number));
    assert_eq!(held.release().await.unwrap(), Released::Units(1));
}

#[tokio::test]
async fn leases_end_with_the_manager() {
    on_both(async |backend| {
        let manager = manager(&backend, &[("a", 2)]).await;
        let claims = [claim("1").with_lease(lease(1_500)), claim("2")];
        for answer in manager.allocate(&pool("a"), &execution(), &claims, FREE).await.unwrap() {
            answer.unwrap().granted().unwrap();
        }
        let start = Instant::now();
        until("two leases have passed", async || {
            assert_eq!(in_use(&backend, "a").await, 2);
            tokio::time::sleep(Duration::from_millis(10)).await;
            start.elapsed() > Duration::from_millis(3_500)
        })
        .await;
        drop(manager);
        until("the lease ends", async || {
            backend.renew(&pool("a"), &[]).await.unwrap();
            in_use(&backend, "a").await == 1
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn several_pools_are_acquired_all_or_none() {
    on_both(async |backend| {
        let manager = manager(&backend, &[("a", 1), ("b", 1), ("c", 1)]).await;
        let joint = |name: &str, token: &str| Joint {
            pool: pool(name),
            claim: claim(token),
            constraints: FREE,
        };
        let b = acquire(&manager, "b", claim("1")).await;
        let all = || vec![joint("c", "2"), joint("a", "2"), joint("b", "2")];
        let wait = Wait::within(Duration::from_millis(50)).unwrap();
        match within(manager.acquire_all(&execution(), all(), wait)).await.unwrap() {
            AcquiredAll::TimedOut { pool: at, ticket } => {
                assert_eq!((at, ticket.position), (pool("b"), 1));
            }
            other => panic!("{other:?}"),
        }
        until("nothing is held", async || {
            in_use(&backend, "a").await + in_use(&backend, "c").await == 0
        })
        .await;
        // Two such claims in opposite order, and one unit of each.
        let (one, other) = (all(), vec![joint("b", "3"), joint("a", "3"), joint("c", "3")]);
        let take = async |claims| match manager
            .acquire_all(&execution(), claims, Wait::forever())
            .await
            .unwrap()
        {
            AcquiredAll::Granted(guards) => {
                assert_eq!(guards.len(), 3);
                for guard in guards {
                    guard.release().await.unwrap();
                }
            }
            other => panic!("{other:?}"),
        };
        let ((), (), _) = within(async { tokio::join!(take(one), take(other), b.release()) }).await;
        let twice = vec![joint("a", "4"), joint("a", "5")];
        let error = manager.acquire_all(&execution(), twice, Wait::forever()).await.unwrap_err();
        assert_eq!(error.to_string(), "invalid pools \"hive:a\": must not name a pool twice");
    })
    .await;
}

#[tokio::test]
async fn a_mutex_is_held_by_one_at_a_time() {
    on_both(async |backend| {
        let locks = Locks::new(backend);
        let mutex = locks.mutex("nightly:report").await.unwrap();
        let guard = mutex.lock().await.unwrap();
        assert!(mutex.try_lock().await.unwrap().is_none());
        assert!(mutex.lock_within(Duration::from_millis(20)).await.unwrap().is_none());
        let number = guard.fencing_number().unwrap();
        let (next, unlocked) = within(async { tokio::join!(mutex.lock(), guard.unlock()) }).await;
        unlocked.unwrap();
        let next = next.unwrap();
        assert!(next.fencing_number().unwrap() > number);
        let freed = mutex.force_unlock(&revocation()).await.unwrap();
        assert_eq!(freed, 1);
        let third = within(mutex.lock()).await.unwrap();
        drop(next); // held no longer, so this does not unlock what the third has
        assert!(mutex.try_lock().await.unwrap().is_none());
        third.unlock().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn readers_who_come_later_do_not_keep_a_writer_waiting() {
    on_both(async |backend| {
        let locks = Locks::new(Arc::clone(&backend));
        let lock = locks.rw_lock("table").await.unwrap();
        let first = lock.read().await.unwrap();
        let second = lock.try_read().await.unwrap().unwrap();
        assert!(lock.try_write().await.unwrap().is_none());
        let writer = lock.write();
        let readers = async {
            until("the writer waits", async || {
                backend.usage(lock.pool()).await.unwrap().tickets == 1
            })
            .await;
            assert!(lock.try_read().await.unwrap().is_none());
            first.unlock().await.unwrap();
            assert!(lock.try_read().await.unwrap().is_none());
            second.unlock().await.unwrap();
        };
        let (writer, ()) = within(async { tokio::join!(writer, readers) }).await;
        assert!(lock.read_within(Duration::from_millis(20)).await.unwrap().is_none());
        writer.unwrap().unlock().await.unwrap();
        lock.read().await.unwrap().unlock().await.unwrap();
    })
    .await;
}

#[test]
fn deadlines_in_the_past_are_refused() {
    let error = Wait::within(Duration::ZERO).unwrap_err().to_string();
    assert!(error.starts_with("invalid time limit \"0s\": "), "{error}");
    let error = Wait::until(Instant::now() - Duration::from_secs(3)).unwrap_err().to_string();
    assert!(error.contains("must not have passed"), "{error}");
}

/// Units that are handed over while nobody listens are found by the next renewal.
#[tokio::test]
async fn a_lost_notice_costs_a_waiter_one_renewal() {
    let server = Server::start();
    let backend = connect(&server.url()).await;
    let manager = manager(&backend, &[("a", 1)]).await;
    let first = acquire(&manager, "a", claim("1")).await;
    let second = acquire(&manager, "a", claim("2"));
    let lose = async {
        until("the second waits", async || tickets(&backend, "a").await == 1).await;
        let mut raw = server.raw();
        redis::cmd("CLIENT").arg(&["KILL", "TYPE", "pubsub"]).exec(&mut raw).unwrap();
        // The keeper's connection is the one that was lost; it goes on trying.
        let _ = first.release().await;
    };
    // The ticket's end, after 10 s, would be too late.
    let both = async { tokio::join!(second, lose) };
    let (second, ()) = tokio::time::timeout(Duration::from_secs(8), both).await.unwrap();
    assert_eq!(second.token().as_str(), "2");
}
