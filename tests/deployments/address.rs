//! Addresses that lead elsewhere, or to servers of another kind.

use redis::Commands as _;

use tokenpool::{Deletion, Order, QueueChange, QuotaChange};

use super::{User, configuration, list, open};
use crate::support::cluster::Cluster;
use crate::support::proxy::Proxy;
use crate::support::sentinels::{Options, Sentinels};
use crate::support::server::{Port, Server};
use crate::support::{FREE, claim, fence, lease, member, quota, revocation, token, until};

/// An error and its causes.
fn text(error: &dyn std::error::Error) -> String {
    let cause = error.source().map(|cause| format!(": {}", text(cause)));
    format!("{error}{}", cause.unwrap_or_default())
}

fn replicate(replica: &mut redis::Connection, of: [&str; 2]) {
    redis::cmd("REPLICAOF").arg(&of).exec(replica).unwrap();
}

/// The server of before stays, as a replica, and keeps its connections.
#[tokio::test]
async fn whoever_is_primary_at_an_address_now_is_found() {
    let (old, new) = (Server::start_on_tcp(&[]), Server::start_on_tcp(&[]));
    let proxy = Proxy::before(old.address());
    let user = User::new(&format!("hostPath: \"{}\"", proxy.address()), "elsewhere").await;
    let number = fence(&user.claim("1").await.unwrap());
    let (old_port, new_port) = (old.port.unwrap().to_string(), new.port.unwrap().to_string());
    let mut replica = new.raw();
    replicate(&mut replica, ["127.0.0.1", &old_port]);
    until("it has what was claimed", async || {
        replica.sismember(user.key(), "ex:p:d:e-1").ok().filter(|held: &bool| *held)
    })
    .await;
    replicate(&mut replica, ["NO", "ONE"]);
    replicate(&mut old.raw(), ["127.0.0.1", &new_port]);
    proxy.lead_to(new.address());
    let (held, _) = user.claimed("1").await;
    assert_eq!((fence(&held), held.granted().unwrap().held_before), (number, true));
}

/// Whatever is written first, and in whichever words the server tells what a command in a script is refused.
#[tokio::test]
async fn what_a_replica_refuses_may_be_tried_again() {
    let server = Server::start_on_tcp(&[]);
    let user = User::new(&format!("hostPath: \"{}\"", server.address()), "read-only").await;
    let pool = user.pool();
    user.claim("held").await.unwrap().granted().unwrap();
    // Of a primary that is not there, so that it keeps what it has.
    replicate(&mut server.raw(), ["127.0.0.1", &Port::take().number.to_string()]);

    let (task, namespace) = (user.task(), &user.namespace);
    let claims = ["1", "2"].map(|name| claim(name, 1));
    let leased = [claim("leased", 1).with_lease(lease(60_000))];
    let queue = QueueChange::new().order(Order::Priority);
    let errors = [
        user.claim("1").await.err(),
        task.allocate_many(namespace, &leased, FREE).await.err(),
        task.allocate_many(namespace, &claims, FREE).await.err(),
        task.release_many(namespace, &[token("held")]).await.err(),
        user.backend.change_quota(&pool, QuotaChange::Pin(quota(9))).await.err(),
        user.backend.change_queue(&pool, &queue).await.err(),
        user.backend.revoke(&pool, &member("p/d/e", "held"), &revocation()).await.err(),
        user.backend.delete_pool(&pool, Deletion::EvenInUse).await.err(),
    ];
    for (number, error) in errors.into_iter().enumerate() {
        let error = error.unwrap_or_else(|| panic!("call {number} is answered"));
        assert!(error.is_retryable(), "call {number}: {}", text(&error));
    }
    assert_eq!(user.in_use().await, 1);
}

#[tokio::test]
async fn what_is_no_single_server_says_which_key_is_missing() {
    let cluster = Cluster::start(3, 0).await;
    let owner = cluster.owner("tokenpool:pools").await;
    let other = cluster.host_paths().swap_remove((owner + 1) % 3);
    let error = open(&format!("hostPath: \"{other}\"")).await.pools().await.unwrap_err();
    assert!(
        text(&error).ends_with("; a node of a cluster needs cluster: true"),
        "{}",
        text(&error)
    );

    let sentinels = Sentinels::start(&Options::default()).await;
    let hosts = sentinels.host_paths();
    let error = open(&format!("hostPath: \"{}\"", hosts[0])).await.pools().await.unwrap_err();
    assert!(
        text(&error).ends_with("; is it a sentinel? Those need primaryName"),
        "{}",
        text(&error)
    );
    let error = configuration(&format!("hostPaths: {}", list(&hosts))).open().await.unwrap_err();
    assert!(text(&error).ends_with("Those need primaryName"), "{}", text(&error));

    let servers = sentinels.servers();
    let error = configuration(&format!("hostPaths: {}", list(&servers))).open().await.unwrap_err();
    assert!(text(&error).ends_with("without primaryName mean a cluster"), "{}", text(&error));
}
