//! That sentinels, clusters, certificates, proxies and fakes are what other tests take them for.

use redis::Commands;

use crate::support::cluster::{self, Cluster};
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
async fn slots_move_with_their_keys_and_half_way_the_old_owner_says_where_they_are() {
    let cluster = Cluster::start(3, 0).await;
    let keys = ["{a}1", "{a}2", "{a}3"];
    let (slot, from) = (cluster.slot("a"), cluster.owner("a").await);
    for key in keys {
        let _: () = cluster.raw(from).set(key, key).unwrap();
    }
    let to = (from + 1) % 3;
    let moving = cluster.begin_move(slot, to).await;
    cluster.move_these_keys(&moving, &keys[..1]);
    let get = |node: usize, key: &str| cluster.raw(node).get::<_, String>(key);
    let error = get(from, keys[0]).unwrap_err();
    assert_eq!(error.code(), Some("ASK"), "{error}");
    assert_eq!(error.redirect_node().map(|(address, _)| cluster.at(address)), Some(to));
    assert_eq!(get(from, keys[1]).unwrap(), keys[1]);
    // The new owner answers only who is sent.
    assert_eq!(get(to, keys[0]).unwrap_err().code(), Some("MOVED"));
    let asked = |keys: &[&str]| {
        let mut connection = cluster.raw(to);
        redis::cmd("ASKING").exec(&mut connection).unwrap();
        redis::cmd("MGET").arg(keys).query::<Vec<String>>(&mut connection)
    };
    assert_eq!(asked(&keys[..1]).unwrap(), &keys[..1]);
    assert_eq!(asked(&keys).unwrap_err().code(), Some("TRYAGAIN"));
    assert_eq!(cluster.move_keys(&moving, 1), 1);
    assert_eq!(cluster.move_keys(&moving, 9), 1);
    cluster.finish_move(moving).await;
    assert_eq!(cluster.owner("a").await, to);
    assert_eq!(get(from, keys[0]).unwrap_err().code(), Some("MOVED"));
    cluster.move_slot(slot, from).await;
    assert_eq!(cluster.owner("a").await, from);
    assert!(keys.iter().all(|key| get(from, key).unwrap() == *key));
}

#[tokio::test]
async fn replicas_take_over_in_a_cluster_with_passwords() {
    let login = Some(Login { user: Some("app"), password: "of-nodes" });
    let options = cluster::Options { login, ..cluster::Options::new(3, 1) };
    let mut cluster = Cluster::start_as(&options).await;
    let stranger = redis::Client::open(format!("redis://{}", cluster.host_paths()[0])).unwrap();
    let refused = stranger.get_connection().and_then(|mut c| c.ping::<String>());
    assert_eq!(refused.unwrap_err().code(), Some("NOAUTH"));
    let old = cluster.owner("a").await;
    let [new] = cluster.replicas(old).await[..] else { panic!("it has one replica") };
    cluster.kill(old);
    cluster.until_ok().await;
    assert_eq!(cluster.owner("a").await, new);
    let _: () = cluster.raw(new).set("a", "value").unwrap();
    cluster.restart(old);
    cluster.until_ok().await;
    assert_eq!(cluster.replicas(new).await, [old]);
    cluster.failover(old).await;
    assert_eq!(cluster.owner("a").await, old);
    assert_eq!(cluster.raw(old).get::<_, String>("a").unwrap(), "value");
    // The keys go with a password, too.
    let to = (0..3).find(|node| ![old, new].contains(node)).unwrap();
    cluster.move_slot(cluster.slot("a"), to).await;
    assert_eq!(cluster.raw(to).get::<_, String>("a").unwrap(), "value");
}
