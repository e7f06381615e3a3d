//! That sentinels, clusters, certificates, proxies and fakes are what other tests take them for.

use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands, Client, Commands, RedisResult};

use crate::support::cluster::{self, Cluster};
use crate::support::fake::{Answer, Fake};
use crate::support::proxy::Proxy;
use crate::support::sentinels::{self, Sentinels};
use crate::support::server::{Login, Server};
use crate::support::tls::{self, Clients, Tls};

/// An answer or an error over TCP, from somebody who has no password.
fn ping(address: &str) -> RedisResult<String> {
    Client::open(format!("redis://{address}"))?.get_connection()?.ping()
}

#[tokio::test]
async fn sentinels_promote_a_replica_when_the_primary_dies() {
    let mut sentinels = Sentinels::start(&sentinels::Options::default()).await;
    for sentinel in sentinels.host_paths() {
        let mut question = redis::cmd("SENTINEL");
        question.arg("GET-MASTER-ADDR-BY-NAME").arg(sentinels.name());
        let (host, port): (String, u16) = question.query(&mut sentinels.raw(&sentinel)).unwrap();
        assert_eq!(format!("{host}:{port}"), sentinels.primary().await);
    }
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
            assert_eq!(ping(&address).unwrap_err().code(), Some("NOAUTH"), "{address}");
        }
        // Passed on to the replicas, too.
        let old = sentinels.signal_primary("STOP").await;
        sentinels.until_primary_is_not(&old).await;
        sentinels.signal(&old, "CONT");
        // Whom they follow is open: who stands still for half a second is replaced.
        sentinels.until_whole().await;
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
    assert_eq!(ping(&cluster.host_paths()[0]).unwrap_err().code(), Some("NOAUTH"));
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
    // Not the one that has just been elected.
    let [new] = cluster.replicas(to).await[..] else { panic!("it has one replica") };
    cluster.signal(to, "STOP");
    cluster.until_ok().await;
    assert_eq!(cluster.owner("a").await, new);
    cluster.signal(to, "CONT");
    cluster.until_ok().await;
    assert_eq!(cluster.replicas(new).await, [to]);
    assert_eq!(cluster.raw(new).get::<_, String>("a").unwrap(), "value");
}

#[tokio::test]
async fn servers_speak_tls_and_nothing_else() {
    if !tls::is_supported() {
        return;
    }
    let tls = Tls::new();
    for clients in [Clients::Certified, Clients::Anyone] {
        let server = Server::start_on_tls(tls.server_arguments(clients));
        assert!(server.url().starts_with("rediss://"));
        assert!(ping(&server.address()).unwrap_err().is_io_error());
        assert_eq!(server.raw().ping::<String>().unwrap(), "PONG");
    }
    let settings = Some(tls.settings(Clients::Certified));
    let options = sentinels::Options { tls: settings.clone(), ..sentinels::Options::default() };
    let mut sentinels = Sentinels::start(&options).await;
    for address in [sentinels.servers(), sentinels.host_paths()].concat() {
        assert!(ping(&address).unwrap_err().is_io_error(), "{address}");
    }
    let old = sentinels.kill_primary().await;
    sentinels.until_primary_is_not(&old).await;

    let options = cluster::Options { tls: settings, ..cluster::Options::new(2, 1) };
    let cluster = Cluster::start_as(&options).await;
    let from = cluster.owner("a").await;
    let _: () = cluster.raw(from).set("a", "value").unwrap();
    cluster.move_slot(cluster.slot("a"), 1 - from).await;
    assert_eq!(cluster.raw(1 - from).get::<_, String>("a").unwrap(), "value");
}

#[test]
fn every_certificate_has_files_of_its_own() {
    let (tls, stranger) = (Tls::new(), Tls::new());
    let names = &["example.com", "::1"];
    let identities = [
        tls.server(names),
        tls.expired_server(names),
        tls.client("somebody"),
        stranger.client("somebody"),
    ];
    let mut files: Vec<_> = [tls.authority(), stranger.authority()].to_vec();
    files.extend(identities.into_iter().flat_map(|i| [i.certificate, i.key]));
    let mut texts: Vec<_> = files.iter().map(|f| std::fs::read_to_string(f).unwrap()).collect();
    assert!(texts.iter().all(|text| text.starts_with("-----BEGIN ")));
    texts.sort();
    texts.dedup();
    assert_eq!(texts.len(), 10);
}

#[tokio::test]
async fn proxies_delay_hold_cut_and_refuse() {
    let server = Server::start_on_tcp(&[]);
    let proxy = Proxy::before(server.address());
    let client = Client::open(format!("redis://{}", proxy.address())).unwrap();
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(None);
    let connect = || client.get_multiplexed_async_connection_with_config(&config);
    let mut connection = connect().await.unwrap();
    let pong = async |connection: &mut MultiplexedConnection| connection.ping::<String>().await;

    proxy.delay(Duration::from_millis(50));
    let start = Instant::now();
    pong(&mut connection).await.unwrap();
    assert!(start.elapsed() >= Duration::from_millis(100), "{:?}", start.elapsed());
    proxy.delay(Duration::ZERO);

    proxy.hold();
    let mut other = connection.clone();
    let set = tokio::spawn(async move { other.set::<_, _, ()>("key", "value").await });
    // It connects, and hears nothing.
    let silence = tokio::time::timeout(Duration::from_millis(100), connect()).await;
    assert!(silence.is_err() && !set.is_finished());
    assert!(!server.raw().exists::<_, bool>("key").unwrap());
    proxy.pass();
    set.await.unwrap().unwrap();
    assert!(server.raw().exists::<_, bool>("key").unwrap());

    proxy.cut();
    assert!(pong(&mut connection).await.unwrap_err().is_connection_dropped());
    let mut connection = connect().await.unwrap();
    proxy.refuse().await;
    assert!(pong(&mut connection).await.unwrap_err().is_connection_dropped());
    // Refused; or reset, if another test is just about to start a process, which has the port open until it is.
    assert!(connect().await.err().unwrap().is_io_error());
    proxy.pass();
    pong(&mut connect().await.unwrap()).await.unwrap();
}

#[tokio::test]
async fn fakes_are_polite_until_they_misbehave() {
    let fake = Fake::answering("HMGET", 2, Answer::text("*1\r\n$5\r\nshort")).await;
    let settings =
        redis::RedisConnectionInfo::default().set_protocol(redis::ProtocolVersion::RESP3);
    let info = redis::IntoConnectionInfo::into_connection_info(fake.url()).unwrap();
    let client = Client::open(info.set_redis_settings(settings)).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    assert_eq!(connection.ping::<String>().await.unwrap(), "PONG");
    let call = redis::cmd("EVALSHA").arg("digest").arg(0).to_owned();
    let error = call.query_async::<i64>(&mut connection).await.unwrap_err();
    assert_eq!(error.code(), Some("NOSCRIPT"), "{error}");
    let mut read = async || connection.hmget::<_, _, Vec<String>>("key", &["a"]).await;
    assert_eq!(read().await.unwrap_err().code(), Some("ERR"));
    // Half an answer.
    let silence = tokio::time::timeout(Duration::from_millis(100), read()).await;
    assert!(silence.is_err());
    assert_eq!((fake.count(""), fake.count("HMGET")), (1, 2));

    let closing =
        Fake::start(|heard| (heard.command == "GET").then(|| Answer::Last(heard.words[1].clone())));
    let closing = closing.await;
    let client = Client::open(closing.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    assert_eq!(connection.get::<_, String>("+well\r\n").await.unwrap(), "well");
    assert!(connection.ping::<String>().await.unwrap_err().is_connection_dropped());

    let endless = Answer::Endless(b"*1000000000\r\n".to_vec(), b"+again\r\n".repeat(1000));
    let endless = Fake::answering("PING", 1, endless).await;
    let client = Client::open(endless.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let error = tokio::time::timeout(Duration::from_millis(100), connection.ping::<String>()).await;
    assert!(error.is_err());
}
