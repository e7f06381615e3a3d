//! That sentinels, clusters, certificates, proxies and fakes are what other tests take them for.

use redis::Commands;

use crate::support::sentinels::{self, Sentinels};
use crate::support::server::Login;

#[tokio::test]
async fn sentinels_promote_a_replica_when_the_primary_dies() {
    let mut sentinels = Sentinels::start(&sentinels::Options::default()).await;
    assert_eq!(sentinels.host_paths().len(), 3);
    let old = sentinels.kill_primary().await;
    let new = sentinels.until_primary_is_not(&old).await;
    assert!(sentinels.servers().contains(&new));
    let _: () = sentinels.raw(&new).set("key", "value").unwrap();
    sentinels.restart(&old);
    sentinels.until_whole().await;
    // The old one has become a replica of the new one.
    assert_eq!(sentinels.raw(&old).get::<_, String>("key").unwrap(), "value");
    let third = sentinels.failover().await;
    assert_ne!(third, new);
}

#[tokio::test]
async fn sentinels_and_their_servers_have_passwords() {
    for user in [None, Some("app")] {
        let options = sentinels::Options {
            servers: Some(Login { user, password: "of-servers" }),
            sentinels: Some(Login { user, password: "of-sentinels" }),
            ..sentinels::Options::default()
        };
        let sentinels = Sentinels::start(&options).await;
        for address in [sentinels.servers(), sentinels.host_paths()].concat() {
            let stranger = redis::Client::open(format!("redis://{address}")).unwrap();
            let refused = stranger.get_connection().and_then(|mut c| c.ping::<String>());
            assert_eq!(refused.unwrap_err().code(), Some("NOAUTH"), "{address}");
        }
        // Passed on to the replicas, too.
        let old = sentinels.signal_primary("STOP").await;
        let new = sentinels.until_primary_is_not(&old).await;
        sentinels.signal(&old, "CONT");
        sentinels.until_whole().await;
        assert_eq!(sentinels.primary().await, new);
    }
}
