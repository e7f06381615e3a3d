//! Behind sentinels.

use std::time::Duration;

use redis::Commands as _;

use super::{QUOTA, User, list, open};
use crate::conformance;
use crate::support::fence;
use crate::support::proxy::Proxy;
use crate::support::sentinels::{Options, Sentinels};
use crate::support::server::Login;
use crate::support::until;

fn keys(sentinels: &Sentinels) -> String {
    format!("hostPaths: {}, primaryName: {}", list(&sentinels.host_paths()), sentinels.name())
}

#[tokio::test]
async fn every_case_passes_behind_sentinels() {
    let sentinels = Sentinels::start(&Options::default()).await;
    conformance::every_case(&open(&keys(&sentinels)).await).await;
}

/// Waits until every server has what was claimed, so that none that becomes the primary has forgotten it.
async fn until_replicated(sentinels: &Sentinels, user: &User, members: usize) {
    until("all servers have what was claimed", async || {
        let has = |address: &String| {
            sentinels.raw(address).scard::<_, usize>(user.key()).is_ok_and(|has| has == members)
        };
        sentinels.servers().iter().all(has).then_some(())
    })
    .await;
}

/// Down-after is half a second here, and the failover itself takes less than one.
#[tokio::test]
async fn a_killed_primary_is_followed_by_itself() {
    let mut sentinels = Sentinels::start(&Options::default()).await;
    let user = User::new(&keys(&sentinels), "killed").await;
    user.claim("1").await.unwrap().granted().unwrap();
    let old = sentinels.kill_primary().await;
    let (outcome, took) = user.claimed("2").await;
    outcome.granted().unwrap();
    assert!(took < Duration::from_secs(10), "{took:?}");
    let new = sentinels.until_primary_is_not(&old).await;
    let held: usize = sentinels.raw(&new).scard(user.key()).unwrap();
    assert!(held >= 1);
    // What comes back comes back as a replica, and nobody claims there.
    sentinels.restart(&old);
    sentinels.until_whole().await;
    user.claimed("3").await.0.granted().unwrap();
    assert!(
        i64::try_from(sentinels.raw(&new).scard::<_, usize>(user.key()).unwrap()).unwrap() <= QUOTA
    );
}

#[tokio::test]
async fn a_primary_that_hangs_is_left() {
    let sentinels = Sentinels::start(&Options::default()).await;
    let user = User::new(&keys(&sentinels), "hangs").await;
    user.claim("1").await.unwrap().granted().unwrap();
    until_replicated(&sentinels, &user, 1).await;
    let old = sentinels.signal_primary("STOP").await;
    user.claimed("2").await.0.granted().unwrap();
    assert_ne!(sentinels.primary().await, old);
    // It believes that it is the primary until it is told; calls go to the new one all the same.
    sentinels.signal(&old, "CONT");
    user.claimed("3").await.0.granted().unwrap();
    let refused = user.claimed("4").await.0;
    assert!(refused.granted().is_none());
    sentinels.until_whole().await;
    assert!(user.claim("4").await.unwrap().granted().is_none());
}

#[tokio::test]
async fn a_failover_by_command_loses_nothing() {
    let sentinels = Sentinels::start(&Options::default()).await;
    let user = User::new(&keys(&sentinels), "command").await;
    for name in ["1", "2", "3"] {
        user.claim(name).await.unwrap().granted().unwrap();
    }
    until_replicated(&sentinels, &user, 3).await;
    for _ in 0..2 {
        sentinels.failover().await;
        assert!(user.claimed("4").await.0.granted().is_none());
        let (held, _) = user.claimed("1").await;
        assert!(held.granted().unwrap().held_before);
        sentinels.until_whole().await;
    }
}

#[tokio::test]
async fn servers_and_sentinels_have_passwords_of_their_own() {
    for user in [None, Some("app")] {
        let options = Options {
            servers: Some(Login { user, password: "of-servers" }),
            sentinels: Some(Login { user, password: "of-sentinels" }),
            ..Options::default()
        };
        let sentinels = Sentinels::start(&options).await;
        let logins = "hostKey: of-servers, sentinelKey: of-sentinels";
        let users = user.map(|user| format!(", hostUser: {user}, sentinelUser: {user}"));
        let keys = format!("{}, {logins}{}", keys(&sentinels), users.unwrap_or_default());
        let user = User::new(&keys, "passwords").await;
        user.claim("1").await.unwrap().granted().unwrap();
        sentinels.failover().await;
        user.claimed("2").await.0.granted().unwrap();
        // Without either there is an error that names neither.
        for wrong in ["of-servers", "of-sentinels"] {
            let keys = keys.replace(wrong, "wrong");
            let error = super::configuration(&keys).open().await.unwrap_err();
            let text = format!("{error}: {error:?}");
            assert!(text.contains("authentication failed") || text.contains("WRONGPASS"), "{text}");
            assert!(!text.contains("of-se"), "{text}");
        }
    }
}

#[tokio::test]
async fn sentinels_that_know_no_such_primary_are_an_error() {
    let sentinels = Sentinels::start(&Options::default()).await;
    // What they say tells more than that one of them says nothing.
    let silent = Proxy::before(sentinels.host_paths()[0].clone());
    silent.hold();
    let mut hosts = sentinels.host_paths();
    hosts.push(silent.address());
    let keys = format!("hostPaths: {}, primaryName: nobody", list(&hosts));
    let error = super::configuration(&keys).open().await.unwrap_err();
    let text = format!("{error}: {error:?}");
    assert!(text.contains("No such master"), "{text}");
}

/// Of all that was answered "granted" before the primary was killed, the new one knows: one of two replicas had it, and
/// that is the one that sentinels choose.
#[tokio::test]
async fn what_replicas_acknowledged_outlives_the_primary() {
    let mut sentinels = Sentinels::start(&Options::default()).await;
    let keys = keys(&sentinels) + ", minReplicas: 1, acknowledgeTimeout: 400ms";
    let user = User::new(&keys, "acknowledged").await;
    let first = fence(&user.claimed("1").await.0);
    let second = fence(&user.claimed("2").await.0);
    let old = sentinels.kill_primary().await;
    let new = sentinels.until_primary_is_not(&old).await;
    // The other replica follows the new one by now, or soon: until then nothing is acknowledged.
    for (name, number) in [("1", first), ("2", second)] {
        let outcome = user.claimed(name).await.0;
        assert!(outcome.granted().unwrap().held_before, "{name}");
        assert_eq!(fence(&outcome), number);
    }
    let third = user.claimed("3").await.0;
    assert!(fence(&third) > second);
    let held: usize = sentinels.raw(&new).scard(user.key()).unwrap();
    assert_eq!(held, 3);
}
