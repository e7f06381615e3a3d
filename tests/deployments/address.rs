//! Addresses that lead elsewhere.

use redis::Commands as _;

use super::User;
use crate::support::proxy::Proxy;
use crate::support::server::Server;
use crate::support::{fence, until};

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
