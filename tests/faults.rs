//! What happens when servers, connections and clients fail: an error says so in time, and the
//! repeated call succeeds.

use std::future::poll_fn;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use redis::Commands;
use tokenpool::{
    AllocationStatus, Backend, Claimant, Config, Deletion, Error, ExecutionId, Holder, Joint,
    JointOutcome, Manager, Order, Outcome, PluginId, QueueChange, QuotaChange, Registrar, Released,
    Renewal, ResourceManager, ResourceNamespace, ResourceRegistrar, Result, TaskResourceManager,
};

use crate::support::server::Server;
use crate::support::{
    FREE, Pool, caps, everything, execution, fence, lease, quota, redis_on, ticket, token, waiting,
    weight,
};

/// A manager on a server, with time-outs that a test can wait for.
async fn manager(server: &Server, extra: &str) -> Manager {
    let registrar = Registrar::new(open(server, extra).await.unwrap());
    let plugin = registrar.for_plugin(PluginId::new("hive").unwrap());
    plugin.register_resource_quota(&default(), 3).unwrap();
    registrar.build().await.unwrap()
}

async fn open(server: &Server, extra: &str) -> Result<Arc<dyn Backend>> {
    let text = format!(
        "type: redis\nredis: {{url: \"{}\", learningPeriod: 0s, connectTimeout: 1s, commandTimeout: 300ms{extra}}}",
        server.url()
    );
    Config::from_yaml(&text).unwrap().open().await
}

fn default() -> ResourceNamespace {
    ResourceNamespace::new("default").unwrap()
}

fn task(manager: &Manager) -> TaskResourceManager {
    let execution = ExecutionId::new("p", "d", "e").unwrap();
    manager.for_execution(PluginId::new("hive").unwrap(), execution)
}

async fn claim(task: &TaskResourceManager, name: &str) -> Result<Outcome> {
    task.allocate(&default(), token(name), FREE).await
}

/// The answer of a call that is repeated until the server is found again.
async fn repeated(task: &TaskResourceManager, name: &str) -> Outcome {
    let start = Instant::now();
    loop {
        match claim(task, name).await {
            Ok(outcome) => return outcome,
            Err(error) => assert!(error.is_retryable(), "{error}"),
        }
        assert!(start.elapsed() < Duration::from_secs(10), "it is never found again");
        // As callers do, whose calls fail at once while the circuit is broken.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn signal(server: &Server, name: &str) {
    let id = server.id().to_string();
    assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
}

#[tokio::test]
async fn flushed_scripts_are_loaded_again_by_the_same_call() {
    let server = Server::start();
    let manager = manager(&server, "").await;
    let task = task(&manager);
    let flush = || {
        redis::cmd("SCRIPT").arg("FLUSH").exec(&mut server.raw()).unwrap();
    };
    flush();
    claim(&task, "1").await.unwrap().granted().unwrap();
    flush();
    let claims = ["2", "3", "4"].map(|name| token(name).into());
    let answers = task.allocate_many(&default(), &claims, FREE).await.unwrap();
    let statuses: Vec<_> = answers.iter().map(|a| a.as_ref().unwrap().status()).collect();
    use AllocationStatus::{Exhausted, Granted};
    assert_eq!(statuses, [Granted, Granted, Exhausted]);
    flush();
    task.release_resource(&default(), &token("1")).await.unwrap();
    // Also in the middle of a batch that takes several calls.
    flush();
    let claims: Vec<_> = (0..1200).map(|i| token(&i.to_string()).into()).collect();
    let answers = task.allocate_many(&default(), &claims, FREE).await.unwrap();
    assert_eq!(answers.len(), 1200);
}

#[tokio::test]
async fn after_a_restart_the_repeated_call_succeeds_and_grants_are_still_held() {
    let mut server = Server::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let manager = manager(&server, "").await;
    let task = task(&manager);
    let first = claim(&task, "1").await.unwrap();
    server.restart();
    assert_eq!(fence(&repeated(&task, "1").await), fence(&first));
    server.restart();
    assert!(fence(&repeated(&task, "2").await) > fence(&first));
    server.restart();
    if task.release_resource(&default(), &token("1")).await.is_err() {
        task.release_resource(&default(), &token("1")).await.unwrap();
    }
    let pool = "hive:default".parse().unwrap();
    let backend = open(&server, "").await.unwrap();
    assert!(backend.check(&pool).await.unwrap().is_clean());
    assert_eq!(backend.usage(&pool).await.unwrap().in_use, 1);
}

#[tokio::test]
async fn after_all_data_is_lost_pools_are_registered_again_and_fencing_numbers_still_grow() {
    let mut server = Server::start();
    let manager = manager(&server, "").await;
    let task = task(&manager);
    let first = claim(&task, "1").await.unwrap();
    server.restart();
    let again = repeated(&task, "1").await;
    assert!(!again.granted().unwrap().held_before);
    assert!(fence(&again) > fence(&first));
    let _: () = redis::cmd("FLUSHALL").query(&mut server.raw()).unwrap();
    let answers = task.release_many(&default(), &[token("1")]).await.unwrap();
    assert_eq!(answers, [Released::NotHeld]);
}

#[tokio::test]
async fn a_server_that_is_gone_is_a_retryable_error_and_its_return_is_noticed() {
    let mut server = Server::start();
    let manager = manager(&server, "").await;
    let task = task(&manager);
    server.kill();
    for _ in 0..3 {
        let start = Instant::now();
        let error = claim(&task, "1").await.unwrap_err();
        assert!(error.is_retryable(), "{error}");
        assert!(matches!(error, Error::Unavailable { operation: "allocate", .. }), "{error:?}");
        assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    }
    let error = open(&server, "").await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { operation: "connect", .. }), "{error:?}");
    server.restart();
    repeated(&task, "1").await.granted().unwrap();
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_an_error_within_the_time_outs() {
    let server = Server::start();
    let manager = manager(&server, "").await;
    let task = task(&manager);
    claim(&task, "0").await.unwrap().granted().unwrap();
    signal(&server, "-STOP");
    let start = Instant::now();
    let error = claim(&task, "1").await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(cause, "not answered within 300ms");
    let error = open(&server, "").await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    signal(&server, "-CONT");
    repeated(&task, "1").await.granted().unwrap();
}

#[tokio::test]
async fn calls_are_repeated_as_often_as_configured() {
    let mut server = Server::start_with(&["--appendonly", "yes"]);
    let manager = manager(&server, ", maxRetries: 50").await;
    let task = task(&manager);
    claim(&task, "1").await.unwrap().granted().unwrap();
    server.kill();
    let waiting = tokio::spawn(async move { claim(&task, "1").await });
    // The call is under way, against nobody.
    tokio::task::yield_now().await;
    server.restart();
    waiting.await.unwrap().unwrap().granted().unwrap();
}

/// The future is dropped after the claim was sent: it may be held, and claiming again is the remedy.
#[tokio::test]
async fn a_dropped_claim_is_claimed_again_and_counts_once() {
    let server = Server::start();
    let manager = manager(&server, "").await;
    let task = task(&manager);
    for polls in 1..5 {
        let mut future = Box::pin(claim(&task, "1"));
        for _ in 0..polls {
            let done = poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_ready()));
            if done.await {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(future);
        claim(&task, "1").await.unwrap().granted().unwrap();
        let pool = "hive:default".parse().unwrap();
        let backend = open(&server, "").await.unwrap();
        assert_eq!(backend.usage(&pool).await.unwrap().in_use, 1);
        assert!(backend.check(&pool).await.unwrap().is_clean());
        task.release_resource(&default(), &token("1")).await.unwrap();
    }
}

#[tokio::test]
async fn a_password_is_used_and_never_shown() {
    let server = Server::start_with(&["--requirepass", "hunter2"]);
    let text = |password: &str| {
        let socket = server.socket();
        format!("type: redis\nredis: {{url: \"unix://{}{password}\"}}", socket.display())
    };
    let open = async |password: &str| {
        let config = Config::from_yaml(&text(password)).unwrap();
        assert!(!format!("{config:?}").contains("hunter"));
        config.open().await
    };
    let backend = open("?pass=hunter2").await.unwrap();
    assert_eq!(backend.pools().await.unwrap(), []);
    assert!(!format!("{backend:?}").contains("hunter"));
    for password in ["?pass=hunter3", ""] {
        let error = match open(password).await {
            Err(error) => error,
            Ok(backend) => backend.pools().await.unwrap_err(),
        };
        assert!(!error.is_retryable(), "{error}");
        assert!(!format!("{error:?} {error}").contains("hunter"), "{error:?}");
    }
}

/// Flyte's keys name a host and a port.
#[tokio::test]
async fn a_server_is_reached_over_tcp_with_flytes_keys() {
    let server = Server::start_on_tcp(&["--requirepass", "hunter2"]);
    let port = server.port.unwrap().to_string();
    for address in ["hostPaths: [\"127.0.0.1:{}\"]", "hostPath: \"localhost:{}\""] {
        let address = address.replace("{}", &port);
        let text = format!("type: redis\nredis: {{{address}, hostKey: hunter2}}");
        let backend = Config::from_yaml(&text).unwrap().open().await.unwrap();
        assert_eq!(backend.pools().await.unwrap(), []);
    }
    drop(server);
}

/// A call that has to fail for want of memory, and changes nothing.
async fn refused<T>(pool: &Pool, what: &str, call: impl Future<Output = Result<T>>) {
    let before = everything(&mut pool.raw());
    let error = call.await.err().unwrap_or_else(|| panic!("{what} has memory"));
    assert!(matches!(error, Error::Server { .. }), "{what}: {error:?}");
    assert_eq!(everything(&mut pool.raw()), before, "{what}");
}

#[tokio::test]
async fn a_server_without_memory_refuses_what_needs_it_whole_and_does_what_frees_it() {
    let f = redis_on(Server::start()).await;
    let (pool, other) = (f.pool(3).await, f.another_pool().pool(3).await);
    let leased = || [crate::support::claim("leased", 1).with_lease(lease(600_000))];
    pool.claim_many("p/d/e", &leased(), FREE).await.unwrap();
    pool.claim("p/d/e", "plain").await.granted().unwrap();
    waiting(pool.wait("q/d/e", "waits", 2, FREE, &ticket()).await);
    other.claim("p/d/e", "1").await.granted().unwrap();
    let memory = |limit: &str| {
        let mut set = redis::cmd("CONFIG");
        set.arg(&["SET", "maxmemory", limit]).exec(&mut pool.raw()).unwrap();
    };
    memory("1");

    let (execution, holder) = (execution("p/d/e"), Holder::new("test").unwrap());
    let claimant = Claimant { execution: &execution, constraints: FREE, holder: &holder };
    let new = || crate::support::claim("new", 1);
    let joint = Joint { pool: other.name.clone(), claim: new(), constraints: FREE };
    refused(&pool, "a claim", other.claim_with("p/d/e", "2", 1, caps(Some(2), Some(2)))).await;
    let leased_too = [new().with_lease(lease(1000))];
    refused(&pool, "with a lease", other.claim_many("p/d/e", &leased_too, FREE)).await;
    refused(&pool, "a batch", other.claim_many("p/d/e", &[new(), leased()[0].clone()], FREE)).await;
    // It looks for what is due first, and a server without memory lets a script go on that began so.
    let granted = f.backend.allocate_all(claimant, &[joint]).await;
    assert!(matches!(granted, Ok(JointOutcome::Granted(_))), "{granted:?}");
    other.assert_clean().await;
    let (waits, again) = (ticket(), crate::support::claim("waits", 2));
    refused(&pool, "a ticket", pool.try_wait("p/d/e", &new(), FREE, &waits)).await;
    refused(&pool, "again", pool.try_wait("q/d/e", &again, FREE, &waits)).await;
    let renewal = Renewal { execution: &execution, token: &token("leased"), lease: lease(1000) };
    refused(&pool, "a renewal", f.backend.renew(&pool.name, &[renewal])).await;
    for change in [
        QuotaChange::Register(quota(9)),
        QuotaChange::Pin(quota(9)),
        QuotaChange::Register(quota(1)),
    ] {
        refused(&pool, "a quota", f.backend.change_quota(&pool.name, change)).await;
    }
    let made = f.another_pool().pool_name();
    refused(&pool, "a pool", f.backend.change_quota(&made, QuotaChange::Create(quota(1)))).await;
    let queue = QueueChange::new().order(Order::Fair).weight("p", weight(2));
    refused(&pool, "an order", f.backend.change_queue(&pool.name, &queue)).await;

    // What gives back goes on, and hands on.
    assert_eq!(pool.release("p/d/e", "plain").await, Released::Units(1));
    assert!(pool.holds("q/d/e", "waits").await);
    assert_eq!(pool.revoke("p/d/e", "leased").await, Released::Units(1));
    pool.assert_clean().await;
    f.backend.delete_pool(&other.name, Deletion::EvenInUse).await.unwrap();

    // Repairs that count need memory, one that builds a queue anew gives some back first.
    memory("0");
    waiting(pool.wait("p/d/e", "next", 2, FREE, &ticket()).await);
    let usage = pool.key_of("usage");
    let _: i64 = pool.raw().hincr(&usage, "p:q", 1).unwrap();
    memory("1");
    refused(&pool, "a repair", f.backend.repair(&pool.name)).await;
    memory("0");
    let _: () = pool.raw().sadd(pool.key(), "ex:p:d:e-theirs").unwrap();
    memory("1");
    refused(&pool, "an adoption", f.backend.repair(&pool.name)).await;
    memory("0");
    f.backend.repair(&pool.name).await.unwrap();
    assert_eq!(pool.raw().del::<_, u32>(pool.key_of("turns")).unwrap(), 1);
    memory("1");
    assert_eq!(f.backend.repair(&pool.name).await.unwrap().requeued, 1);
    pool.assert_clean().await;
}

/// 64 clients, each with its own connection, for a while; sampled from outside all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixty_four_clients_never_exceed_quota_or_cap() {
    const QUOTA: i64 = 10;
    const CAP: i64 = 4;
    let server = Server::start();
    let f = redis_on(server).await;
    let pool = Arc::new(f.pool(QUOTA).await);
    let url = f.url();
    let clients: Vec<_> = (0..64)
        .map(|client| {
            let (pool, url) = (Arc::clone(&pool), url.clone());
            tokio::spawn(async move {
                let own = pool.through(crate::support::connect(&url).await);
                let path = format!("p{}/d/e{client}", client % 4);
                let (mut granted, mut refused) = (0, 0);
                while granted < 25 {
                    let units = 1 + (granted + client) % 3;
                    let caps = caps(Some(CAP), None);
                    let name = granted.to_string();
                    match own.claim_with(&path, &name, units, caps).await.unwrap() {
                        Outcome::Granted(_) => {
                            granted += 1;
                            // Held while others try.
                            for _ in 0..client % 5 {
                                tokio::task::yield_now().await;
                            }
                            let units = Released::Units(units.try_into().unwrap());
                            assert_eq!(own.release(&path, &name).await, units);
                        }
                        Outcome::Refused(_) => refused += 1,
                    }
                }
                refused
            })
        })
        .collect();

    let stop = Arc::new(AtomicBool::new(false));
    let sampler = tokio::task::spawn_blocking({
        let (pool, stop) = (Arc::clone(&pool), Arc::clone(&stop));
        move || sample(&pool, &stop)
    });
    let mut refused = 0;
    for client in clients {
        refused += client.await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    let (samples, most, most_of_a_project) = sampler.await.unwrap();
    assert!(refused > 0 && samples > 100, "{refused} refused, {samples} samples");
    assert!((1..=QUOTA).contains(&most), "{most} units in use");
    assert!((1..=CAP).contains(&most_of_a_project), "{most_of_a_project} units in a project");
    assert_eq!(pool.in_use().await, 0);
    pool.assert_clean().await;
}

/// Adds up the records, not the counters, until told to stop.
fn sample(pool: &Pool, stop: &AtomicBool) -> (usize, i64, i64) {
    let mut connection = pool.raw();
    let (mut samples, mut most, mut most_of_a_project) = (0, 0, 0);
    while !stop.load(Ordering::Relaxed) {
        let records: Vec<(String, String)> = connection.hgetall(pool.key_of("grants")).unwrap();
        let units = |prefix: &str| -> i64 {
            let records = records.iter().filter(|(member, _)| member.starts_with(prefix));
            records.map(|(_, r)| r.split(' ').next().unwrap().parse::<i64>().unwrap()).sum()
        };
        samples += 1;
        most = most.max(units("ex:"));
        for project in 0..4 {
            most_of_a_project = most_of_a_project.max(units(&format!("ex:p{project}:")));
        }
    }
    (samples, most, most_of_a_project)
}
