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

#[tokio::test]
async fn scratch_times() {
    let t = std::time::Instant::now();
    let mut sentinels = Sentinels::start(&sentinels::Options::default()).await;
    eprintln!("start {:?}", t.elapsed());
    let t = std::time::Instant::now();
    let old = sentinels.kill_primary().await;
    let new = sentinels.until_primary_is_not(&old).await;
    eprintln!("failover {:?}", t.elapsed());
    let t = std::time::Instant::now();
    sentinels.until_whole().await;
    eprintln!("whole without old {:?}", t.elapsed());
    let t = std::time::Instant::now();
    sentinels.restart(&old);
    sentinels.until_whole().await;
    eprintln!("whole with old {:?}", t.elapsed());
    let t = std::time::Instant::now();
    let _third = sentinels.failover().await;
    eprintln!("manual failover {:?}", t.elapsed());
    let t = std::time::Instant::now();
    sentinels.until_whole().await;
    eprintln!("whole {:?}", t.elapsed());
    let _ = new;
}

#[tokio::test]
async fn scratch_debug() {
    let mut sentinels = Sentinels::start(&sentinels::Options::default()).await;
    let old = sentinels.kill_primary().await;
    let new = sentinels.until_primary_is_not(&old).await;
    let t = std::time::Instant::now();
    eprintln!("old {old} new {new} {:?} {:?}", sentinels.servers(), sentinels.host_paths());
    while t.elapsed().as_secs() < 10 {
        eprintln!("{:?}", t.elapsed());
        for a in sentinels.host_paths() {
            for w in ["REPLICAS", "SENTINELS"] {
                let v: Vec<std::collections::HashMap<String, String>> = redis::cmd("SENTINEL")
                    .arg(w)
                    .arg("main")
                    .query(&mut sentinels.raw(&a))
                    .unwrap();
                eprintln!(
                    "{a} {w} {:?}",
                    v.iter()
                        .map(|m| (
                            m["port"].clone(),
                            m["flags"].clone(),
                            m.get("master-link-status").cloned(),
                            m.get("master-port").cloned()
                        ))
                        .collect::<Vec<_>>()
                );
            }
        }
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
}
