//! Checking and repairing a pool while others use it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::Commands;
use tokenpool::{Claimant, Error, Holder, Lease, TicketRequest};
use tokio::task::JoinHandle;

use crate::support::server::Server;
use crate::support::{FREE, Pool, claim, execution, redis_on};

const A: &str = "flytesnacks/development/a";

/// Claims and releases until told to stop, and gives everything back.
fn traffic(pool: &Arc<Pool>, stop: &Arc<AtomicBool>) -> JoinHandle<u64> {
    let (pool, stop) = (Arc::clone(pool), Arc::clone(stop));
    tokio::spawn(async move {
        let mut rounds = 0;
        while !stop.load(Ordering::Relaxed) {
            for name in ["1", "2", "3"] {
                pool.claim_with("q/d/x", name, 2, FREE).await.unwrap().granted().unwrap();
            }
            pool.release_many("q/d/x", &["1", "2", "3"]).await.unwrap();
            rounds += 1;
        }
        rounds
    })
}

#[tokio::test]
async fn a_pool_that_fits_on_a_page_is_proved_and_repaired_under_load() {
    let f = redis_on(Server::start()).await;
    let pool = Arc::new(f.pool(1000).await);
    let claims: Vec<_> = (0..500).map(|i| claim(&i.to_string(), 1)).collect();
    pool.claim_many(A, &claims, FREE).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let traffic = traffic(&pool, &stop);
    let usage = pool.key_of("usage");
    for round in 0..20 {
        pool.assert_clean().await;
        let _: () = pool.raw().hincr(&usage, "p:flytesnacks", 7).unwrap();
        let report = f.backend.check(&pool.name).await.unwrap();
        assert_eq!(report.drift.len(), 1, "round {round}: {report:?}");
        let repaired = f.backend.repair(&pool.name).await.unwrap();
        assert_eq!(repaired.corrected.len(), 1, "round {round}: {repaired:?}");
    }
    stop.store(true, Ordering::Relaxed);
    assert!(traffic.await.unwrap() > 0);
    pool.assert_clean().await;
    assert_eq!(pool.in_use().await, 500);
}

#[tokio::test]
async fn a_larger_pool_under_load_is_never_said_to_have_drifted() {
    let f = redis_on(Server::start()).await;
    let pool = Arc::new(f.pool(20_000).await);
    let claims: Vec<_> = (0..12_000).map(|i| claim(&i.to_string(), 1)).collect();
    pool.claim_many(A, &claims, FREE).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let traffic = traffic(&pool, &stop);
    for _ in 0..5 {
        match f.backend.check(&pool.name).await {
            Ok(report) => assert!(report.is_clean(), "{report:?}"),
            Err(error) => {
                assert!(matches!(error, Error::Busy { .. }) && error.is_retryable(), "{error}");
            }
        }
    }
    stop.store(true, Ordering::Relaxed);
    assert!(traffic.await.unwrap() > 0);
    pool.assert_clean().await;
    assert_eq!(pool.in_use().await, 12_000);
}

/// As when a server that may evict keys ran out of memory.
#[tokio::test]
async fn a_queue_that_lost_keys_is_found_and_built_anew() {
    let f = redis_on(Server::start()).await;
    let pool = f.pool(1).await;
    pool.claim(A, "held").await.granted().unwrap();
    let ticket = TicketRequest::new(Lease::new(Duration::from_secs(600)).unwrap());
    let wait = async |name: &str, path: &str| {
        let (holder, execution) = (Holder::new("test").unwrap(), execution(path));
        let claimant = Claimant { execution: &execution, constraints: FREE, holder: &holder };
        f.backend.wait(&pool.name, claimant, &claim(name, 1), &ticket).await.unwrap()
    };
    for (name, path) in [("1", A), ("2", "q/d/x"), ("3", A)] {
        assert!(wait(name, path).await.granted().is_none());
    }
    for lost in ["queue", "lines", "turns", "leases"] {
        pool.assert_clean().await;
        let _: () = pool.raw().del(pool.key_of(lost)).unwrap();
        assert!(f.backend.check(&pool.name).await.unwrap().queue_is_broken, "{lost}");
        assert_eq!(f.backend.repair(&pool.name).await.unwrap().requeued, 3, "{lost}");
    }
    pool.assert_clean().await;
    for (last, name, path) in [("held", "1", A), ("1", "2", "q/d/x"), ("2", "3", A)] {
        let last_path = if last == "2" { "q/d/x" } else { A };
        pool.release(last_path, last).await;
        assert!(wait(name, path).await.granted().is_some(), "{name} in its turn");
    }
}
