//! In a cluster.

use std::error::Error as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::Commands as _;
use tokenpool::matchable::{
    AnsweredBy, AttributePath, Attributes, CacheConfig, ClusterAssignment, ExecutionClusterLabel,
    Expected,
};
use tokenpool::{Claim, Claimant, Holder, Joint, JointOutcome, Notice, Outcome, Turn};

use super::{QUOTA, User, configuration, list, open};
use crate::conformance;
use crate::support::cluster::{Cluster, Options};
use crate::support::fake::{Answer, Fake};
use crate::support::{FREE, claim, execution, ticket, token, until};

fn keys(cluster: &Cluster) -> String {
    format!("hostPaths: {}, cluster: true", list(&cluster.host_paths()))
}

/// Where shards that have their slots answer while another has lost its own.
fn partly(shards: usize, replicas_per_shard: usize) -> Options {
    let mut options = Options::new(shards, replicas_per_shard);
    options.configuration.push("cluster-require-full-coverage no".to_owned());
    options
}

/// A user of a pool, and which node has that.
async fn user(cluster: &Cluster, name: &str) -> (User, usize) {
    let user = User::new(&keys(cluster), name).await;
    let owner = cluster.owner(&user.key()).await;
    (user, owner)
}

/// Users of pools on each of three shards, in the order of the shards.
async fn user_of_each(cluster: &Cluster) -> Vec<(User, usize)> {
    let mut users: Vec<(User, usize)> = Vec::new();
    for number in 0.. {
        let (user, owner) = user(cluster, &format!("pool-{number}")).await;
        if !users.iter().any(|(_, other)| *other == owner) {
            users.push((user, owner));
        }
        if users.len() == 3 {
            break;
        }
    }
    users
}

/// Waits until the replicas of a pool's shard have what was claimed, so that none that takes over has forgotten it.
async fn until_replicated(cluster: &Cluster, user: &User, members: usize) {
    let owner = cluster.owner(&user.key()).await;
    let replicas = cluster.replicas(owner).await;
    until("the replicas have what was claimed", async || {
        let has = |&node: &usize| {
            let mut replica = cluster.raw(node);
            redis::cmd("READONLY").exec(&mut replica).is_ok()
                && replica.scard::<_, usize>(user.key()).is_ok_and(|has| has == members)
        };
        replicas.iter().all(has).then_some(())
    })
    .await;
}

#[tokio::test]
async fn every_case_passes_in_a_cluster() {
    let cluster = Cluster::start(3, 0).await;
    conformance::every_case(&open(&keys(&cluster)).await).await;
}

#[tokio::test]
async fn one_address_is_enough() {
    let cluster = Cluster::start(3, 0).await;
    for address in cluster.host_paths() {
        let keys = format!("hostPaths: [\"{address}\"], cluster: true");
        let pools: Vec<_> = (0..9).map(|number| format!("one-{number}")).collect();
        for name in pools {
            let user = User::new(&keys, &name).await;
            user.claim("1").await.unwrap().granted().unwrap();
            user.release("1").await;
        }
    }
}

/// Nothing is lost, counted twice, or refused for a moment when a slot and its keys go elsewhere and back.
#[tokio::test]
async fn a_slot_moves_while_its_pool_is_used() {
    let cluster = Cluster::start(3, 0).await;
    let (user, owner) = user(&cluster, "moves").await;
    let slot = cluster.slot(&user.key());
    claims_meanwhile(&cluster, &user, async {
        for to in [(owner + 1) % 3, (owner + 2) % 3, owner, (owner + 1) % 3] {
            cluster.move_slot(slot, to).await;
        }
    })
    .await;
}

/// Claims and releases for as long as something is done to the cluster; at the end nothing is lost.
async fn claims_meanwhile(cluster: &Cluster, user: &User, done: impl Future<Output = ()>) {
    user.claim("held").await.unwrap().granted().unwrap();
    let claims = async {
        let mut granted = 0;
        loop {
            // A call during the move waits for its end, within the time that it has.
            user.claimed("taken").await.0.granted().unwrap();
            user.release("taken").await;
            granted += 1;
            if granted % 10 == 0 {
                tokio::task::yield_now().await;
            }
        }
    };
    tokio::select! {
        () = claims => {}
        () = done => {}
    }
    user.release("taken").await;
    assert_eq!(user.in_use().await, 1);
    let node = cluster.owner(&user.key()).await;
    let members: Vec<String> = cluster.raw(node).smembers(user.key()).unwrap();
    assert_eq!(members, ["ex:p:d:e-held"]);
}

#[tokio::test]
async fn slots_are_resharded_by_the_tool_for_that_while_their_pool_is_used() {
    const SLOTS: u16 = 200;
    let cluster = Cluster::start(3, 0).await;
    let slot = |name: &String| cluster.slot(&format!("redisresourcemanager:hive:{name}"));
    let name = (0..).map(|number| format!("resharded-{number}")).find(|name| slot(name) < SLOTS);
    let (user, owner) = user(&cluster, &name.unwrap()).await;
    let to = (owner + 1) % 3;
    claims_meanwhile(&cluster, &user, cluster.reshard(owner, to, SLOTS.into())).await;
    assert_eq!(cluster.owner(&user.key()).await, to);
}

/// What a server answers while it has some keys of a pool, and another the others.
#[tokio::test]
async fn half_moved_pools_are_waited_for() {
    let cluster = Cluster::start(3, 0).await;
    let (user, owner) = user(&cluster, "half").await;
    for name in ["1", "2"] {
        user.claim(name).await.unwrap().granted().unwrap();
    }
    let moving = cluster.begin_move(cluster.slot(&user.key()), (owner + 1) % 3).await;
    assert_eq!(cluster.move_keys(&moving, 1), 1);
    // Not for longer than a call may take.
    let start = Instant::now();
    let error = user.claim("3").await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    let (claimed, ()) = tokio::join!(user.claimed("3"), async {
        cluster.move_keys(&moving, 99);
        cluster.finish_move(moving).await;
    });
    claimed.0.granted().unwrap();
    assert!(user.claim("4").await.unwrap().granted().is_none());
}

#[tokio::test]
async fn a_killed_primary_is_replaced_and_the_other_shards_notice_nothing() {
    let mut cluster = Cluster::start_as(&partly(3, 1)).await;
    let users = user_of_each(&cluster).await;
    for (user, _) in &users {
        user.claim("1").await.unwrap().granted().unwrap();
    }
    let [(first, killed), others @ ..] = &users[..] else { unreachable!() };
    until_replicated(&cluster, first, 1).await;
    cluster.kill(*killed);
    let start = Instant::now();
    let undisturbed = async {
        let mut worst = Duration::ZERO;
        loop {
            for (user, _) in others {
                let asked = Instant::now();
                user.claim("1").await.unwrap().granted().unwrap();
                worst = worst.max(asked.elapsed());
                // Far more than a call takes, and far less than a time-out.
                assert!(worst < Duration::from_millis(400), "{worst:?}");
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = undisturbed => {}
        (outcome, _) = first.claimed("2") => assert!(outcome.granted().is_some()),
    }
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    let (held, _) = first.claimed("1").await;
    assert!(held.granted().unwrap().held_before);
    cluster.restart(*killed);
    cluster.until_ok().await;
    for replica in cluster.replicas(cluster.owner(&first.key()).await).await {
        cluster.failover(replica).await;
        cluster.until_ok().await;
        assert!(first.claimed("1").await.0.granted().unwrap().held_before);
    }
    assert_eq!(first.in_use().await, 2);
}

#[tokio::test]
async fn a_primary_that_hangs_is_left() {
    let cluster = Cluster::start(3, 1).await;
    let (user, owner) = user(&cluster, "hangs").await;
    user.claim("1").await.unwrap().granted().unwrap();
    until_replicated(&cluster, &user, 1).await;
    cluster.signal(owner, "STOP");
    user.claimed("2").await.0.granted().unwrap();
    cluster.signal(owner, "CONT");
    cluster.until_ok().await;
    assert_ne!(cluster.owner(&user.key()).await, owner);
    user.claimed("3").await.0.granted().unwrap();
    assert_eq!(user.in_use().await, QUOTA);
}

/// A shard without a replica is gone for good; its calls fail at once, and those of the others go on.
#[tokio::test]
async fn a_lost_shard_fails_fast_and_alone() {
    let mut cluster = Cluster::start_as(&partly(3, 0)).await;
    let users = user_of_each(&cluster).await;
    let [(lost, owner), others @ ..] = &users[..] else { unreachable!() };
    lost.claim("1").await.unwrap().granted().unwrap();
    cluster.kill(*owner);
    // Once that is known nobody waits for it any more.
    until("calls fail at once", async || {
        let start = Instant::now();
        let error = lost.claim("2").await.unwrap_err();
        assert!(error.is_retryable(), "{error}");
        (start.elapsed() < Duration::from_millis(20)).then_some(())
    })
    .await;
    for (user, _) in others {
        user.claim("1").await.unwrap().granted().unwrap();
    }
}

/// Long before the table would be asked for anyway.
#[tokio::test]
async fn who_finds_the_cluster_down_is_left_for_the_owner_of_now() {
    let down = "-CLUSTERDOWN The cluster is down\r\n";
    let before = Fake::answering("EVALSHA", 1, Answer::text(down)).await;
    let now = Fake::answering("EVALSHA", 1, granted()).await;
    let owners = [before.address(), now.address()];
    let seed = Fake::start(move |heard| {
        let [before, now] = &owners;
        let owner = if heard.time == 1 { before } else { now };
        (heard.command == "CLUSTER").then(|| all_slots_on(owner))
    });
    let claimed = claim_by_fakes(&seed.await, "maxRetries: 4").await;
    claimed.unwrap().granted().unwrap();
    assert!(before.count("EVALSHA") > 0);
}

/// As if the one that had a slot sent to the next, which does not know yet that it has it, and sends back.
#[tokio::test]
async fn who_is_sent_to_and_fro_comes_back_in_a_while() {
    let server = sends_away(20).await;
    // This is no repetition, of which there would be none.
    let claimed = claim_by_fakes(&server, "maxRetries: 0").await;
    claimed.unwrap().granted().unwrap();
    assert_eq!(server.count("EVALSHA"), 21);

    let server = sends_away(usize::MAX).await;
    let (start, mut claims) = (Instant::now(), 0);
    let told = until("a claim is told why there is no answer", async || {
        claims += 1;
        let error = claim_by_fakes(&server, "maxRetries: 0").await.unwrap_err();
        assert!(error.is_retryable(), "{error:?}");
        // On a busy machine time may be over while somebody is asked.
        let reason = error.source().unwrap().to_string();
        reason.contains("the slot is still moving: Moved: 1 127.0.0.1:").then_some(())
    });
    told.await;
    // Not as often as it can be asked.
    let (times, millis) = (server.count("EVALSHA"), start.elapsed().as_millis());
    assert!(times as u128 <= 5 * claims + millis / 5, "{times} in {millis} ms");
}

/// A node of a cluster that sends so many calls away, to where it is itself, and grants every other.
async fn sends_away(calls: usize) -> Fake {
    Fake::start(move |heard| match heard.command {
        "CLUSTER" => Some(all_slots_on(heard.address)),
        "EVALSHA" if heard.time <= calls => {
            Some(Answer::text(&format!("-MOVED 1 {}\r\n", heard.address)))
        }
        "EVALSHA" => Some(granted()),
        _ => None,
    })
    .await
}

/// Claims one unit in a cluster of peers that are none.
async fn claim_by_fakes(seed: &Fake, keys: &str) -> tokenpool::Result<Outcome> {
    let keys = format!("hostPaths: {}, cluster: true, {keys}", list(&[seed.address()]));
    let backend = open(&keys).await;
    let (execution, holder) = (execution("p/d/e"), Holder::new("test").unwrap());
    let claimant = Claimant { execution: &execution, constraints: FREE, holder: &holder };
    let pool = "hive:default".parse().unwrap();
    let mut outcomes = backend.allocate(&pool, claimant, &[claim("1", 1)]).await?;
    outcomes.remove(0)
}

/// What the script of a claim answers.
fn granted() -> Answer {
    Answer::text("$9\r\ngranted 1\r\n")
}

/// What `CLUSTER SLOTS` says.
fn all_slots_on(address: &str) -> Answer {
    let (host, port) = address.split_once(':').unwrap();
    let server = format!("*2\r\n${}\r\n{host}\r\n:{port}\r\n", host.len());
    Answer::text(&format!("*1\r\n*3\r\n:0\r\n:16383\r\n{server}"))
}

/// The cluster itself is well, so nobody takes over.
#[tokio::test]
async fn a_client_parted_from_one_shard_uses_the_others() {
    let cluster = Cluster::start_as(&Options { is_proxied: true, ..Options::new(3, 0) }).await;
    let users = user_of_each(&cluster).await;
    let [(parted, owner), others @ ..] = &users[..] else { unreachable!() };
    parted.claimed("1").await.0.granted().unwrap();
    cluster.proxy(*owner).hold();
    let unanswered = parted.claim("2");
    let answered = async {
        for _ in 0..20 {
            for (user, _) in others {
                user.claimed("1").await.0.granted().unwrap();
            }
        }
    };
    assert!(tokio::join!(unanswered, answered).0.unwrap_err().is_retryable());
    until("calls fail at once", async || {
        let start = Instant::now();
        assert!(parted.claim("2").await.unwrap_err().is_retryable());
        (start.elapsed() < Duration::from_millis(20)).then_some(())
    })
    .await;
    for (user, _) in others {
        user.claimed("2").await.0.granted().unwrap();
    }
    cluster.proxy(*owner).pass();
    parted.claimed("2").await.0.granted().unwrap();
    assert_eq!(parted.in_use().await, 2);
}

/// The notice comes on the channel of the pool's own slot, also after that moved.
#[tokio::test]
async fn waiting_claims_are_told_on_sharded_channels() {
    let cluster = Cluster::start(3, 0).await;
    let (user, owner) = user(&cluster, "told").await;
    let backend = open(&keys(&cluster)).await;
    let inbox = &mut backend.listen().await.unwrap();
    let (execution, holder) = (execution("p/d/e"), Holder::new("test").unwrap());
    let claimant = Claimant { execution: &execution, constraints: FREE, holder: &holder };
    let asks = ticket().with_channel(inbox.channel.clone());
    for (round, to) in [None, Some((owner + 1) % 3), Some(owner)].into_iter().enumerate() {
        for name in ["1", "2", "3"] {
            user.claimed(name).await.0.granted().unwrap();
        }
        let waits = claim(&format!("waits-{round}"), 1);
        let turn = backend.wait(&user.pool(), claimant, &waits, &asks).await.unwrap();
        assert!(matches!(turn, Turn::Waiting(_)), "{turn:?}");
        if let Some(to) = to {
            cluster.move_slot(cluster.slot(&user.key()), to).await;
            // This is how a client learns of the move.
            user.claimed("1").await.0.granted().unwrap();
            until("the channel is heard where the slot is now", async || {
                let mut channels = redis::cmd("PUBSUB");
                channels.arg("SHARDCHANNELS");
                // Before Redis 7.0 every node is told of everything, so it does not matter where.
                let heard = channels.query::<Vec<String>>(&mut cluster.raw(to));
                heard.map_or(Some(()), |heard| (!heard.is_empty()).then_some(()))
            })
            .await;
        }
        user.release("1").await;
        let told = async {
            loop {
                if let Notice::Granted { member, .. } = inbox.notices.recv().await.unwrap() {
                    return member;
                }
            }
        };
        let member = tokio::time::timeout(Duration::from_secs(5), told).await.unwrap();
        assert!(member.as_str().ends_with(&format!("waits-{round}")), "{member}");
        for name in ["2", "3", &format!("waits-{round}")] {
            user.release(name).await;
        }
    }
}

/// No script sees pools of several shards, so they are claimed in turn; all or nothing is held at the end.
#[tokio::test]
async fn several_pools_of_several_shards_are_all_or_nothing() {
    let cluster = Cluster::start(3, 0).await;
    let users = user_of_each(&cluster).await;
    let backend = open(&keys(&cluster)).await;
    let (execution, holder) = (execution("p/d/e"), Holder::new("test").unwrap());
    let claimant = Claimant { execution: &execution, constraints: FREE, holder: &holder };
    let claims = |name: &str| -> Vec<Joint> {
        let joint = |(user, _): &(User, usize)| Joint {
            pool: user.pool(),
            claim: Claim::new(token(name), tokenpool::Units::new(2).unwrap()),
            constraints: FREE,
        };
        users.iter().map(joint).collect()
    };
    let granted = backend.allocate_all(claimant, &claims("a")).await.unwrap();
    assert!(matches!(&granted, JointOutcome::Granted(grants) if grants.len() == 3), "{granted:?}");
    let (last, _) = &users[2];
    for refused_by in &users {
        let refused = backend.allocate_all(claimant, &claims("b")).await.unwrap();
        assert!(matches!(refused, JointOutcome::Refused { .. }), "{refused:?}");
        for (user, _) in &users {
            assert_eq!(user.in_use().await, if user.in_use().await == 0 { 0 } else { 2 });
        }
        refused_by.0.release("a").await;
    }
    assert_eq!(last.in_use().await, 0);
    // What was held before is not given back with the rest.
    last.task()
        .allocate(&last.namespace, claims("c")[2].claim.clone(), FREE)
        .await
        .unwrap()
        .granted()
        .unwrap();
    users[0].0.claim("1").await.unwrap().granted().unwrap();
    users[0].0.claim("2").await.unwrap().granted().unwrap();
    let refused = backend.allocate_all(claimant, &claims("c")).await.unwrap();
    assert!(matches!(refused, JointOutcome::Refused { .. }), "{refused:?}");
    assert_eq!((users[1].0.in_use().await, last.in_use().await), (0, 2));
}

/// Kinds are spread over the shards. No connection is told of all changes, so the servers are always asked.
#[tokio::test]
async fn attributes_are_looked_up_and_never_stale() {
    let cluster = Cluster::start(3, 0).await;
    let store = configuration(&keys(&cluster)).open_attributes().await.unwrap();
    let holder = Holder::new("test").unwrap();
    let writer = Attributes::new(Arc::clone(&store), holder.clone());
    let config = CacheConfig::new(Duration::from_secs(3600)).unwrap();
    let reader = Attributes::cached(store, holder, config).await.unwrap();
    let path = AttributePath::new("p", "d", "", "").unwrap();
    for value in ["a", "b", "c"] {
        let label = ExecutionClusterLabel { value: value.to_owned() };
        writer.of().replace(&path, label.clone(), Expected::Any).await.unwrap();
        let found = reader.of::<ExecutionClusterLabel>().get_resource(&path).await.unwrap();
        assert_eq!((&found.value, found.answered_by), (&label, AnsweredBy::Store));
        let assigned = ClusterAssignment { cluster_pool_name: value.to_owned() };
        writer.of().replace(&path, assigned.clone(), Expected::Any).await.unwrap();
        let found = reader.of::<ClusterAssignment>().get_resource(&path).await.unwrap();
        assert_eq!(found.value, assigned);
    }
    assert_eq!(writer.kinds().await.unwrap().len(), 2);
}
