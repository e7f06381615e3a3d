//! Over TLS.

use std::path::Path;
use std::time::{Duration, Instant};

use tokenpool::{Config, Error};

use super::{User, open};
use crate::conformance;
use crate::support::cluster::{self, Cluster};
use crate::support::sentinels::{self, Sentinels};
use crate::support::server::{Port, Server, Setup, Wire};
use crate::support::tls::{Clients, Identity, Tls};

/// A test of servers that were built with TLS; that of others is that they say so.
macro_rules! needs_tls {
    () => {
        if !crate::support::tls::is_supported() {
            return;
        }
    };
}

/// A server that shows a certificate for these names.
fn server(tls: &Tls, names: &[&str], clients: Clients) -> Server {
    shows(tls, &tls.server(names), clients)
}

fn shows(tls: &Tls, certificate: &Identity, clients: Clients) -> Server {
    Server::start_as(Setup {
        configuration: tls.settings_of(certificate, clients),
        port: Some(Port::take()),
        wire: Wire::Tls,
        ..Setup::default()
    })
}

fn address(server: &Server) -> String {
    format!("127.0.0.1:{}", server.port.unwrap())
}

fn certified(tls: &Tls) -> String {
    let Identity { certificate, key } = tls.client("client");
    format!("tlsCertFile: {}, tlsKeyFile: {}", certificate.display(), key.display())
}

/// Keys of a client that believes this authority.
fn keys(server: &Server, authority: &Path) -> String {
    format!("hostPath: \"{}\", tls: true, tlsCaFile: {}", address(server), authority.display())
}

/// What an attempt to connect fails with, in less than the time for that.
async fn refusal(keys: &str) -> String {
    let start = Instant::now();
    let error = super::configuration(keys).open().await.unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

#[tokio::test]
async fn every_case_passes_over_tls() {
    needs_tls!();
    let tls = Tls::new();
    let server = server(&tls, &["127.0.0.1"], Clients::Certified);
    let keys = format!("{}, {}", keys(&server, &tls.authority()), certified(&tls));
    conformance::every_case(&open(&keys).await).await;
    // The address may say it, too.
    let url =
        format!("url: \"rediss://{}\", tlsCaFile: {}", address(&server), tls.authority().display());
    let user = User::new(&format!("{url}, {}", certified(&tls)), "url").await;
    user.claim("1").await.unwrap().granted().unwrap();
}

#[tokio::test]
async fn servers_are_verified() {
    needs_tls!();
    let (tls, stranger) = (Tls::new(), Tls::new());
    let server = server(&tls, &["127.0.0.1"], Clients::Anyone);
    open(&keys(&server, &tls.authority())).await;
    let text = refusal(&keys(&server, &stranger.authority())).await;
    assert!(text.contains("certificate"), "{text}");
    // The system knows nothing of the test's authority.
    let text = refusal(&format!("hostPath: \"{}\", tls: true", address(&server))).await;
    assert!(text.contains("certificate") || text.contains("UnknownIssuer"), "{text}");
    let expired = shows(&tls, &tls.expired_server(&["127.0.0.1"]), Clients::Anyone);
    let text = refusal(&keys(&expired, &tls.authority())).await;
    assert!(text.contains("expired") || text.contains("Expired"), "{text}");
}

/// One certificate may serve many servers, whose addresses are not in it.
#[tokio::test]
async fn the_name_in_the_certificate_may_be_another() {
    needs_tls!();
    let tls = Tls::new();
    let server = server(&tls, &["redis.example"], Clients::Anyone);
    let keys = keys(&server, &tls.authority());
    let text = refusal(&keys).await;
    assert!(text.contains("not valid for name") || text.contains("NotValidForName"), "{text}");
    let user = User::new(&format!("{keys}, tlsServerName: redis.example"), "name").await;
    user.claim("1").await.unwrap().granted().unwrap();
    // Connections of their own, too.
    assert_eq!(user.in_use().await, 1);
    let text = refusal(&format!("{keys}, tlsServerName: other.example")).await;
    assert!(text.contains("not valid for name") || text.contains("NotValidForName"), "{text}");
}

#[tokio::test]
async fn a_client_without_a_certificate_is_turned_away_where_one_is_wanted() {
    needs_tls!();
    let (tls, stranger) = (Tls::new(), Tls::new());
    let server = server(&tls, &["127.0.0.1"], Clients::Certified);
    let keys = keys(&server, &tls.authority());
    open(&format!("{keys}, {}", certified(&tls))).await;
    for keys in [keys.clone(), format!("{keys}, {}", certified(&stranger))] {
        let text = refusal(&keys).await;
        assert!(text.contains("ertificate") || text.contains("alert"), "{text}");
    }
}

#[tokio::test]
async fn plaintext_and_tls_do_not_meet() {
    needs_tls!();
    let tls = Tls::new();
    let encrypted = server(&tls, &["127.0.0.1"], Clients::Anyone);
    let text = refusal(&format!("hostPath: \"{}\"", address(&encrypted))).await;
    assert!(text.contains("does the server speak TLS?"), "{text}");
    let plain = Server::start_on_tcp(&[]);
    let text = refusal(&keys(&plain, &tls.authority())).await;
    assert!(text.contains("does the server speak TLS?"), "{text}");
    let sentinel = format!("{}, primaryName: main", keys(&plain, &tls.authority()));
    let text = refusal(&sentinel).await;
    assert!(text.contains("not answered in TLS"), "{text}");
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named_with_their_keys() {
    needs_tls!();
    let tls = Tls::new();
    let server = server(&tls, &["127.0.0.1"], Clients::Anyone);
    let directory = tempfile::tempdir().unwrap();
    let nonsense = directory.path().join("nonsense.pem");
    std::fs::write(&nonsense, "hunter2").unwrap();
    let good = keys(&server, &tls.authority());
    let Identity { certificate, key } = tls.client("client");
    for (keys, expected) in [
        (keys(&server, Path::new("/nonexistent")), "redis.tlsCaFile: /nonexistent cannot be read"),
        (keys(&server, &nonsense), "redis.tlsCaFile: "),
        (
            format!("{good}, tlsCertFile: {}, tlsKeyFile: {}", nonsense.display(), key.display()),
            "redis.tlsCertFile: ",
        ),
        (
            format!(
                "{good}, tlsCertFile: {}, tlsKeyFile: {}",
                certificate.display(),
                nonsense.display()
            ),
            "redis.tlsKeyFile: ",
        ),
    ] {
        let error = super::configuration(&keys).open().await.unwrap_err();
        assert!(matches!(error, Error::Configuration { .. }), "{error:?}");
        assert!(error.to_string().contains(expected), "{error}");
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }
    assert!(Config::from_yaml("redis: {tlsCaFile: x}").is_err());
}

#[tokio::test]
async fn sentinels_and_clusters_are_followed_over_tls() {
    needs_tls!();
    let tls = Tls::new();
    let ca = format!("tls: true, tlsCaFile: {}, {}", tls.authority().display(), certified(&tls));
    let options = sentinels::Options {
        tls: Some(tls.settings(Clients::Certified)),
        ..sentinels::Options::default()
    };
    let sentinels = Sentinels::start(&options).await;
    let (hosts, name) = (super::list(&sentinels.host_paths()), sentinels.name());
    let user = User::new(&format!("hostPaths: {hosts}, primaryName: {name}, {ca}"), "tls").await;
    user.claim("1").await.unwrap().granted().unwrap();
    sentinels.failover().await;
    user.claimed("2").await.0.granted().unwrap();

    let mut options = cluster::Options::new(3, 0);
    options.tls = Some(tls.settings(Clients::Certified));
    let cluster = Cluster::start_as(&options).await;
    let hosts = super::list(&cluster.host_paths());
    let user = User::new(&format!("hostPaths: {hosts}, {ca}"), "tls").await;
    user.claim("1").await.unwrap().granted().unwrap();
    let owner = cluster.owner(&user.key()).await;
    cluster.move_slot(cluster.slot(&user.key()), (owner + 1) % 3).await;
    user.claim("2").await.unwrap().granted().unwrap();
}
