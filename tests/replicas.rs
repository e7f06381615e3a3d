//! `minReplicas`: a grant counts only once replicas have it.

use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokenpool::{
    Acquired, Backend, Claimant, Config, Error, Holder, Joint, JointOutcome, Manager, Outcome,
    PoolName, Released, Turn, Wait,
};
use tokio::time::timeout;

use crate::support::cluster::Cluster;
use crate::support::server::{Server, directory};
use crate::support::{
    FREE, Fixture, Pool, claim, execution, fence, fixture, member, quota, ticket, token, until,
};

/// How long replicas have, where a test waits for that to be over.
const SHORT: &str = "300ms";
/// As long as a busy machine may need.
const LONG: &str = "10s";
/// How much later than that an answer may come.
const SLACK: Duration = Duration::from_secs(2);

/// A primary with replicas that have all that it has.
struct Replicated {
    primary: Arc<Server>,
    replicas: Vec<Server>,
}

impl Replicated {
    async fn start(count: usize) -> Self {
        let primary = Server::start_on_tcp(&["--repl-diskless-sync-delay", "0"]);
        let port = primary.port.unwrap().to_string();
        let replica = |_| Server::start_on_tcp(&["--replicaof", "127.0.0.1", &port]);
        let replicas = (0..count).map(replica).collect();
        let this = Self { primary: Arc::new(primary), replicas };
        this.until_in_step().await;
        this
    }

    /// Waits until all replicas that run have whatever was written until now.
    async fn until_in_step(&self) {
        let running: Vec<_> = self.replicas.iter().filter(|replica| replica.runs()).collect();
        // The primary believes of a replica that has got everything for the first time that it has it, even while it loads.
        for replica in &running {
            until("a replica follows", async || {
                let told: String = replica.answer(&["INFO", "replication"]).await?;
                told.contains("master_link_status:up").then_some(())
            })
            .await;
        }
        // A WAIT covers what its own connection wrote.
        let mut pipeline = redis::pipe();
        pipeline.cmd("SET").arg(&["in", "step"]).ignore();
        pipeline.cmd("WAIT").arg(running.len()).arg(60_000);
        let (have,): (usize,) = pipeline.query(&mut self.primary.raw()).unwrap();
        assert_eq!(have, running.len());
    }

    async fn open(&self, min_replicas: u32, timeout: &str) -> Arc<dyn Backend> {
        open(&self.primary.url(), min_replicas, timeout).await
    }

    /// A pool whose claims wait for so many replicas.
    async fn pool(&self, min_replicas: u32, timeout: &str, units: i64) -> Pool {
        self.fixture(self.open(min_replicas, timeout).await).pool(units).await
    }

    fn fixture(&self, backend: Arc<dyn Backend>) -> Fixture {
        fixture(backend, Some(Arc::clone(&self.primary)))
    }

    fn signal(&self, name: &str) {
        self.replicas.iter().for_each(|replica| replica.signal(name));
    }

    /// How often the primary was asked about its replicas by anyone.
    fn waits(&self) -> u64 {
        let stats: String =
            redis::cmd("INFO").arg("commandstats").query(&mut self.primary.raw()).unwrap();
        let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_wait:calls="));
        line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
    }
}

async fn open(url: &str, min_replicas: u32, timeout: &str) -> Arc<dyn Backend> {
    let text = format!(
        "type: redis\nredis: {{url: \"{url}\", minReplicas: {min_replicas}, \
         acknowledgeTimeout: {timeout}, commandTimeout: 15s, connectTimeout: 15s}}"
    );
    Config::from_yaml(&text).unwrap().open().await.unwrap()
}

/// So many replicas have it, of one or two that must.
#[track_caller]
fn assert_not_acknowledged<T: std::fmt::Debug>(
    answer: Result<T, Error>,
    expected: (u64, u64),
) -> Error {
    let error = answer.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    match error {
        Error::NotAcknowledged { have, wanted, .. } => assert_eq!((have, wanted), expected),
        ref error => panic!("{error:?}"),
    }
    error
}

#[tokio::test]
async fn a_grant_is_answered_when_replicas_have_it() {
    let replicated = Replicated::start(1).await;
    let pool = replicated.pool(1, LONG, 3).await;
    let has = |name: &str| -> bool {
        let member = member("p/d/e", name);
        let mut replica = replicated.replicas[0].raw();
        redis::cmd("SISMEMBER").arg(pool.key()).arg(member.as_str()).query(&mut replica).unwrap()
    };
    for name in ["1", "2", "3"] {
        let first = pool.claim("p/d/e", name).await;
        assert!(has(name), "{name}");
        // Also if it was held before.
        let again = pool.claim("p/d/e", name).await;
        assert!(again.granted().unwrap().held_before && fence(&again) == fence(&first));
    }
    let waits = replicated.waits();
    assert!(pool.claim("p/d/e", "4").await.granted().is_none());
    pool.release("p/d/e", "3").await;
    pool.renew("p/d/e", "1", 1000).await.unwrap();
    assert_eq!(replicated.waits(), waits, "only grants wait");
    assert!(pool.backend.awaits_replicas());
    assert_eq!(pool.backend.counters().not_acknowledged, 0);
    pool.assert_clean().await;
}

#[tokio::test]
async fn what_is_not_acknowledged_in_time_is_given_back_and_the_call_succeeds_later() {
    let replicated = Replicated::start(1).await;
    let pool = replicated.pool(1, SHORT, 3).await;
    let held = pool.claim("p/d/e", "held").await;
    replicated.signal("STOP");
    let start = Instant::now();
    let error =
        assert_not_acknowledged(pool.claim_with("p/d/e", "1", 1, FREE).await, (0, 1)).to_string();
    assert!(start.elapsed() < Duration::from_millis(300) + SLACK, "{:?}", start.elapsed());
    let expected = format!("not acknowledged: 0 of 1 replicas have the grant of {}", pool.name);
    assert_eq!(error, expected);
    assert!(!pool.holds("p/d/e", "1").await);
    // What was held before stays held, but nobody is told that replicas have it.
    assert_not_acknowledged(pool.claim_with("p/d/e", "held", 1, FREE).await, (0, 1));
    assert!(pool.holds("p/d/e", "held").await);
    assert_eq!(pool.in_use().await, 1);
    assert_eq!(pool.backend.counters().not_acknowledged, 2);
    replicated.signal("CONT");
    replicated.until_in_step().await;
    assert!(!pool.claim("p/d/e", "1").await.granted().unwrap().held_before);
    assert_eq!(fence(&pool.claim("p/d/e", "held").await), fence(&held));
    pool.assert_clean().await;
}

#[tokio::test]
async fn as_many_replicas_as_configured_must_have_it() {
    let mut replicated = Replicated::start(2).await;
    let both = replicated.pool(2, SHORT, 3).await;
    let one = both.through(replicated.open(1, SHORT).await);
    both.claim("p/d/e", "1").await.granted().unwrap();
    replicated.replicas[1].kill();
    assert_not_acknowledged(both.claim_with("p/d/e", "2", 1, FREE).await, (1, 2));
    assert!(!both.holds("p/d/e", "2").await);
    one.claim("p/d/e", "2").await.granted().unwrap();
    replicated.replicas[1].restart();
    replicated.until_in_step().await;
    both.claim("p/d/e", "3").await.granted().unwrap();
    both.assert_clean().await;
}

#[tokio::test]
async fn each_claim_of_a_batch_has_its_own_answer() {
    let replicated = Replicated::start(1).await;
    let pool = replicated.pool(1, SHORT, 1200).await;
    pool.claim_with("p/d/e", "held", 1, FREE).await.unwrap().granted().unwrap();
    // Takes several calls.
    let many: Vec<_> = (0..1100).map(|number| claim(&format!("many {number}"), 1)).collect();
    let answers = pool.claim_many("p/d/e", &many, FREE).await.unwrap();
    assert!(answers.into_iter().all(|answer| answer.unwrap().granted().is_some()));
    assert_eq!(pool.in_use().await, 1101);

    replicated.signal("STOP");
    let claims = [claim("held", 1), claim("1", 1), claim("large", 1000), claim("2", 2)];
    let mut answers = pool.claim_many("p/d/e", &claims, FREE).await.unwrap().into_iter();
    assert_not_acknowledged(answers.next().unwrap(), (0, 1));
    assert_not_acknowledged(answers.next().unwrap(), (0, 1));
    // A refusal needs no replica.
    assert!(matches!(answers.next().unwrap(), Ok(Outcome::Refused(_))));
    assert_not_acknowledged(answers.next().unwrap(), (0, 1));
    assert_eq!(pool.in_use().await, 1101);
    assert!(pool.holds("p/d/e", "held").await);
    pool.assert_clean().await;
}

#[tokio::test]
async fn joint_claims_are_acknowledged_or_given_back_together() {
    let replicated = Replicated::start(1).await;
    let (first, second) = (replicated.pool(1, SHORT, 3).await, replicated.pool(1, SHORT, 3).await);
    let joint =
        |pool: &Pool| Joint { pool: pool.name.clone(), claim: claim("1", 2), constraints: FREE };
    let claims = [joint(&first), joint(&second)];
    let (execution, holder) = (execution("p/d/e"), Holder::new("test").unwrap());
    let claimant = Claimant { execution: &execution, constraints: FREE, holder: &holder };
    replicated.signal("STOP");
    let answer = first.backend.allocate_all(claimant, &claims).await;
    assert_not_acknowledged(answer, (0, 1));
    assert_eq!((first.in_use().await, second.in_use().await), (0, 0));
    replicated.signal("CONT");
    replicated.until_in_step().await;
    let answer = first.backend.allocate_all(claimant, &claims).await.unwrap();
    assert!(matches!(answer, JointOutcome::Granted(grants) if grants.len() == 2));
    assert_eq!((first.in_use().await, second.in_use().await), (2, 2));
}

/// Whoever is handed units learns of it by a notice, which is not enough here.
#[tokio::test]
async fn what_is_handed_on_counts_when_replicas_have_it() {
    let replicated = Replicated::start(1).await;
    let pool = replicated.pool(1, SHORT, 1).await;
    let plain = pool.through(replicated.open(0, SHORT).await);
    for lease in [None, Some(crate::support::lease(60_000))] {
        plain.claim("p/d/e", "before").await.granted().unwrap();
        let waiter = Holder::new("waiter").unwrap();
        let manager = Manager::attach(Arc::clone(&pool.backend), [pool.name.clone()], waiter);
        let claim = lease.into_iter().fold(claim("waits", 1), tokenpool::Claim::with_lease);
        let (name, execution) = (pool.name.clone(), execution("p/d/e"));
        let mut acquired = tokio::spawn(async move {
            manager.acquire(&name, &execution, claim, FREE, Wait::forever()).await
        });
        until("it waits", async || (plain.tickets(10).await.len() == 1).then_some(())).await;
        let before = pool.backend.counters().not_acknowledged;
        replicated.signal("STOP");
        plain.release("p/d/e", "before").await;
        until("it has asked in vain", async || {
            (pool.backend.counters().not_acknowledged > before).then_some(())
        })
        .await;
        assert!(plain.holds("p/d/e", "waits").await, "its turn came");
        assert!(!acquired.is_finished());
        replicated.signal("CONT");
        let acquired = timeout(Duration::from_secs(30), &mut acquired).await.unwrap().unwrap();
        let Ok(Acquired::Granted(guard)) = acquired else { panic!("{acquired:?}") };
        assert_eq!(guard.release().await.unwrap(), Released::Units(1));
    }
    plain.assert_clean().await;
}

#[tokio::test]
async fn a_claim_that_may_wait_is_acknowledged_when_it_is_granted() {
    let replicated = Replicated::start(1).await;
    let pool = replicated.pool(1, SHORT, 1).await;
    replicated.signal("STOP");
    let claim = claim("1", 1);
    assert_not_acknowledged(pool.try_wait("p/d/e", &claim, FREE, &ticket()).await, (0, 1));
    assert_eq!(pool.in_use().await, 0);
    replicated.signal("CONT");
    replicated.until_in_step().await;
    let turn = pool.try_wait("p/d/e", &claim, FREE, &ticket()).await.unwrap();
    assert!(matches!(turn, Turn::Granted(_)));
    // Nobody has to have a ticket.
    pool.queue_up("p/d/e", "2").await;
}

#[tokio::test]
async fn claims_at_the_same_time_are_acknowledged_together() {
    let replicated = Replicated::start(1).await;
    let pool = Arc::new(replicated.pool(1, LONG, 100).await);
    pool.claim("p/d/e", "first").await.granted().unwrap();
    let before = replicated.waits();
    // The first keeps the connection busy until the replica goes on; by then all others are granted.
    replicated.signal("STOP");
    let claims: Vec<_> = (0..64)
        .map(|number| {
            let pool = Arc::clone(&pool);
            tokio::spawn(async move { pool.claim("p/d/e", &number.to_string()).await })
        })
        .collect();
    until("all are granted", async || (pool.in_use().await == 65).then_some(())).await;
    assert!(claims.iter().all(|claim| !claim.is_finished()));
    replicated.signal("CONT");
    for claim in claims {
        claim.await.unwrap().granted().unwrap();
    }
    let waits = replicated.waits() - before;
    assert!((1..=4).contains(&waits), "{waits} for 64 claims");
}

#[tokio::test]
async fn a_server_that_lost_the_scripts_acknowledges_all_the_same() {
    let replicated = Replicated::start(1).await;
    let pool = replicated.pool(1, LONG, 100).await;
    for name in ["1", "2"] {
        redis::cmd("SCRIPT").arg("FLUSH").exec(&mut replicated.primary.raw()).unwrap();
        pool.claim("p/d/e", name).await.granted().unwrap();
    }
}

/// The address is another server's by the time that the connection for acknowledgements is made again.
#[tokio::test]
async fn another_server_acknowledges_nothing() {
    let (here, there) = (Replicated::start(1).await, Replicated::start(1).await);
    let address = directory();
    let socket = address.path().join("s");
    symlink(here.primary.socket(), &socket).unwrap();
    let backend = open(&format!("unix://{}", socket.display()), 1, LONG).await;
    let pool = here.fixture(backend).pool(3).await;
    pool.claim("p/d/e", "1").await.granted().unwrap();
    std::fs::remove_file(&socket).unwrap();
    symlink(there.primary.socket(), &socket).unwrap();
    let clients: String = redis::cmd("CLIENT").arg("LIST").query(&mut here.primary.raw()).unwrap();
    let asking = clients.lines().find(|line| line.contains("cmd=wait")).unwrap();
    let id = asking.split(' ').next().unwrap().strip_prefix("id=").unwrap();
    let kill = ["KILL", "ID", id];
    redis::cmd("CLIENT").arg(&kill).exec(&mut here.primary.raw()).unwrap();
    // That the connection is lost may be noticed while the question is on its way.
    let error = until("the other server is asked", async || {
        let error = pool.claim_with("p/d/e", "2", 1, FREE).await.unwrap_err();
        assert!(error.is_retryable(), "{error}");
        matches!(error, Error::NotAcknowledged { .. }).then_some(error)
    })
    .await;
    assert!(matches!(error, Error::NotAcknowledged { have: 0, wanted: 1, .. }), "{error:?}");
    let held: Vec<String> =
        redis::cmd("SMEMBERS").arg(pool.key()).query(&mut here.primary.raw()).unwrap();
    assert_eq!(held, [member("p/d/e", "1").as_str()]);
}

#[tokio::test]
async fn a_user_who_may_not_wait_is_told_so() {
    let replicated = Replicated::start(1).await;
    let mut raw = replicated.primary.raw();
    let user = ["SETUSER", "me", "on", ">secret", "~*", "&*", "+@all", "-wait"];
    redis::cmd("ACL").arg(&user).exec(&mut raw).unwrap();
    let url = format!("redis://me:secret@{}", replicated.primary.address());
    let pool = replicated.fixture(open(&url, 1, LONG).await).pool(3).await;
    let error = pool.claim_with("p/d/e", "1", 1, FREE).await.unwrap_err();
    assert!(matches!(error, Error::Server { operation: "acknowledge", .. }), "{error:?}");
    assert!(!error.is_retryable());
    assert_eq!(pool.in_use().await, 0);
}

/// Each shard's primary is asked about its own replicas.
#[tokio::test]
async fn in_a_cluster_the_owner_of_the_slot_is_asked() {
    let cluster = Cluster::start(3, 1).await;
    let paths: Vec<_> = cluster.host_paths().iter().map(|path| format!("\"{path}\"")).collect();
    let text = format!(
        "type: redis\nredis: {{hostPaths: [{}], minReplicas: 1, acknowledgeTimeout: 2s, \
         commandTimeout: 15s}}",
        paths.join(", ")
    );
    let backend = Config::from_yaml(&text).unwrap().open().await.unwrap();
    let (execution, holder) = (execution("p/d/e"), Holder::new("test").unwrap());
    let claimant = Claimant { execution: &execution, constraints: FREE, holder: &holder };
    let mut joint = Vec::new();
    for number in 0..6 {
        let pool: PoolName = format!("plugin:{number}").parse().unwrap();
        let register = tokenpool::QuotaChange::Register(quota(3));
        backend.change_quota(&pool, register).await.unwrap();
        let answers = backend.allocate(&pool, claimant, &[claim("1", 1)]).await.unwrap();
        answers.into_iter().next().unwrap().unwrap().granted().unwrap();
        joint.push(Joint { pool, claim: claim("2", 1), constraints: FREE });
    }
    let answer = backend.allocate_all(claimant, &joint).await.unwrap();
    assert!(matches!(answer, JointOutcome::Granted(_)));
    // Of one shard the replica stops: all is given back, in all shards.
    let key = format!("redisresourcemanager:{}", joint[0].pool);
    let replica = cluster.replicas(cluster.owner(&key).await).await[0];
    cluster.signal(replica, "STOP");
    for joint in &mut joint {
        joint.claim.token = token("3");
    }
    assert_not_acknowledged(backend.allocate_all(claimant, &joint).await, (0, 1));
    for Joint { pool, .. } in &joint {
        assert_eq!(backend.usage(pool).await.unwrap().in_use, 2, "{pool}");
    }
    cluster.signal(replica, "CONT");
}
