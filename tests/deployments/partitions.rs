//! Networks that are parted or slow, while nothing is wrong with who is at their ends.

use std::time::{Duration, Instant};

use tokenpool::{Acquired, Allocation, Claim, ExecutionId, Lease, Wait};

use super::{QUOTA, User, configuration};
use crate::support::gate::{Door, Gate};
use crate::support::proxy::Proxy;
use crate::support::server::Server;
use crate::support::{FREE, claim, fence, until};

/// A user whose calls end soon where nobody answers.
async fn hasty(address: &str) -> User {
    User::new(&format!("hostPath: \"{address}\""), "p").await
}

/// A user whose calls end in time on the busiest machine, if anybody answers.
async fn patient(address: &str) -> User {
    let mut config = configuration(&format!("hostPath: \"{address}\""));
    config.redis.command_timeout = Duration::from_secs(15);
    config.redis.connect_timeout = Duration::from_secs(15);
    config.redis.total_timeout = Duration::from_secs(15);
    User::with(&config, "p").await
}

#[tokio::test]
async fn a_client_parted_from_its_server_errs_in_time_and_is_back_by_itself() {
    let server = Server::start_on_tcp(&[]);
    let proxy = Proxy::before(server.address());
    let (parted, other) = (hasty(&proxy.address()).await, patient(&server.address()).await);
    parted.claimed("1").await.0.granted().unwrap();
    for round in ["2", "3"] {
        proxy.hold();
        let start = Instant::now();
        assert!(parted.claim(round).await.unwrap_err().is_retryable());
        // One command time-out, and what a busy machine adds.
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        // Once that has been so for a second nobody waits any more.
        until("calls fail at once", async || {
            let start = Instant::now();
            let error = parted.claim(round).await.unwrap_err();
            assert!(error.is_retryable(), "{error}");
            (start.elapsed() < Duration::from_millis(20)).then_some(())
        })
        .await;
        // Whoever is not parted notices nothing.
        other.claim("1").await.unwrap().granted().unwrap();
        proxy.pass();
        parted.claimed(round).await.0.granted().unwrap();
    }
    // What was sent again and again counts once.
    assert_eq!(other.in_use().await, QUOTA);
}

/// The claim is granted there, and nobody here knows.
#[tokio::test]
async fn a_claim_whose_answer_is_lost_is_the_same_grant_when_it_is_repeated() {
    let server = Server::start_on_tcp(&[]);
    let gate = Gate::before(server.socket());
    let parted = User::new(&format!("url: \"{}\"", gate.url()), "p").await;
    let other = patient(&server.address()).await;
    parted.claimed("1").await.0.granted().unwrap();
    gate.set(Door::Shut);
    assert!(parted.claim("2").await.unwrap_err().is_retryable());
    assert_eq!(other.in_use().await, 2);
    gate.cut();
    let again = parted.claimed("2").await.0;
    assert!(again.granted().unwrap().held_before);
    // So it is to everybody.
    assert_eq!(fence(&again), fence(&other.claim("2").await.unwrap()));
    assert_eq!(other.in_use().await, 2);
}

/// Each way.
const LATE: Duration = Duration::from_millis(300);

/// Six round trips, of which a renewal takes two where the server does not know the script.
const LEASE: Duration = Duration::from_millis(3600);

fn e() -> ExecutionId {
    ExecutionId::new("p", "d", "e").unwrap()
}

async fn acquire(user: &User, claim: Claim) -> Allocation {
    match user.manager.acquire(&user.pool(), &e(), claim, FREE, Wait::forever()).await.unwrap() {
        Acquired::Granted(allocation) => allocation,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn far_away_everything_is_slow_and_nothing_fails() {
    let server = Server::start_on_tcp(&[]);
    let proxy = Proxy::before(server.address());
    proxy.delay(LATE);
    let (far, near) = (patient(&proxy.address()).await, patient(&server.address()).await);
    let start = Instant::now();
    far.claim("1").await.unwrap().granted().unwrap();
    assert!(start.elapsed() >= 2 * LATE, "{:?}", start.elapsed());
    let leased = claim("leased", 1).with_lease(Lease::new(LEASE).unwrap());
    let leased = acquire(&far, leased).await;
    near.claim("2").await.unwrap().granted().unwrap();
    let (waits, ()) = tokio::join!(acquire(&far, claim("waits", 1)), async {
        until("it waits", async || {
            let usage = near.backend.usage(&near.pool()).await.unwrap();
            (usage.tickets == 1).then_some(())
        })
        .await;
        near.release("2").await;
    });
    assert!(waits.fencing_number() > leased.fencing_number());
    let start = Instant::now();
    while start.elapsed() < 2 * LEASE {
        assert!(!leased.is_lost());
        assert_eq!(near.in_use().await, QUOTA);
        tokio::time::sleep(LATE).await;
    }
    leased.release().await.unwrap();
    assert_eq!(near.in_use().await, QUOTA - 1);
}
