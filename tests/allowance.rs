//! `onUnavailable: grant`: what a process grants by itself while Redis cannot be reached.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokenpool::{
    Acquired, Allocation, Backend, Claimant, Config, Counters, Error, Grant, Holder, Joint,
    JointOutcome, Locks, Manager, Outcome, QuotaChange, Released, Renewed, Result,
};

use crate::support::log::{self, Log};
use crate::support::server::Server;
use crate::support::{
    FREE, Pool, caps, claim, execution, fixture, lease, quota, redis_on, ticket, until,
};

/// A server that forgets nothing, and a pool with an allowance beside it.
struct Setup {
    server: Option<Server>,
    pool: Pool,
    /// The same through connections that know no allowance.
    plain: Pool,
}

impl Setup {
    async fn new(units: i64, allowance: u32) -> Self {
        log::keep_audible();
        let server = Server::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
        let pool = fixture(open(&server, allowance).await, None).pool(units).await;
        let plain = pool.through(crate::support::connect(&server.url()).await);
        Self { server: Some(server), pool, plain }
    }

    fn kill(&mut self) {
        self.server.as_mut().unwrap().kill();
    }

    async fn restart(&mut self) {
        self.server.as_mut().unwrap().restart();
        for pool in [&self.pool, &self.plain] {
            until("it is found again", async || pool.backend.usage(&pool.name).await.ok()).await;
        }
    }

    fn manager(&self) -> Manager {
        let (backend, holder) = (Arc::clone(&self.pool.backend), Holder::new("holder").unwrap());
        Manager::attach(backend, [self.pool.name.clone()], holder)
    }

    /// Asks for a guard, with a lease of so many milliseconds.
    async fn try_acquire(&self, manager: &Manager, name: &str, millis: u64) -> Result<Acquired> {
        let claim = claim(name, 1).with_lease(lease(millis));
        manager.try_acquire(&self.pool.name, &execution("p/d/e"), claim, FREE).await
    }

    async fn guard(&self, manager: &Manager, name: &str, millis: u64) -> Allocation {
        match self.try_acquire(manager, name, millis).await {
            Ok(Acquired::Granted(guard)) => guard,
            other => panic!("{other:?}"),
        }
    }

    fn counters(&self) -> (u64, u64) {
        let Counters { granted_locally, held_locally, .. } = self.pool.backend.counters();
        (granted_locally, held_locally)
    }

    async fn claim(&self, name: &str) -> Result<Outcome> {
        self.pool.claim_with("p/d/e", name, 1, FREE).await
    }

    /// A claim that is granted without the server.
    async fn granted_here(&self, name: &str) -> Grant {
        let outcome = self.claim(name).await.unwrap();
        let grant = *outcome.granted().unwrap();
        assert_eq!(grant.fencing_number, None, "{grant:?}");
        grant
    }
}

async fn open(server: &Server, allowance: u32) -> Arc<dyn Backend> {
    let text = format!(
        "type: redis\nonUnavailable: grant\nlocalAllowance: {allowance}\n\
         redis: {{url: \"{}\", learningPeriod: 0s, connectTimeout: 15s, commandTimeout: 300ms}}",
        server.url()
    );
    Config::from_yaml(&text).unwrap().open().await.unwrap()
}

#[track_caller]
fn assert_unavailable<T: fmt::Debug>(answer: Result<T>) {
    let error = answer.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
}

#[tokio::test]
async fn sixty_four_callers_get_the_allowance_and_no_more_and_the_log_says_so_once() {
    let log = Log::default();
    let _guard = tracing::subscriber::set_default(log.clone());
    let mut setup = Setup::new(10, 5).await;
    assert_eq!(log.lines("local allowance of each pool").len(), 1);
    setup.claim("real").await.unwrap().granted().unwrap();
    setup.kill();
    let setup = Arc::new(tokio::sync::Mutex::new(setup));
    let claims: Vec<_> = (0..64)
        .map(|number| {
            let pool = setup.try_lock().unwrap().pool.handles();
            tokio::spawn(async move {
                let (execution, holder) = (execution("p/d/e"), Holder::new("test").unwrap());
                let claimant =
                    Claimant { execution: &execution, constraints: FREE, holder: &holder };
                let claims = [claim(&number.to_string(), 1)];
                pool.0.allocate(&pool.1, claimant, &claims).await
            })
        })
        .collect();
    let mut granted = 0;
    for answer in claims {
        match answer.await.unwrap() {
            Ok(_) => granted += 1,
            refused => assert_unavailable(refused),
        }
    }
    let mut setup = setup.lock().await;
    assert_eq!((granted, setup.counters()), (5, (5, 5)));
    let begun = log.lines("claims are granted from the local allowance");
    assert!(begun.len() == 1 && begun[0].contains("allowed=5"), "{begun:?}");
    setup.restart().await;
    assert!(log.lines("answered again").is_empty(), "nothing was asked of the pool yet");
    setup.claim("real").await.unwrap().granted().unwrap();
    setup.claim("real").await.unwrap().granted().unwrap();
    let ended = log.lines("answered again");
    assert!(ended.len() == 1 && ended[0].contains("granted=5 held=5"), "{ended:?}");
    // The second time it says so again.
    setup.kill();
    assert_unavailable(setup.claim("x").await);
    assert_eq!(log.lines("allowed=").len(), 1, "nothing was granted");
    for number in 0..64 {
        assert_unavailable(setup.pool.release_many("p/d/e", &[&number.to_string()]).await);
    }
    setup.granted_here("x").await;
    setup.granted_here("y").await;
    assert_eq!(log.lines("allowed=").len(), 2);
    assert_eq!(setup.counters(), (7, 2));
}

#[tokio::test]
async fn a_token_takes_units_once_and_gives_them_back() {
    let mut setup = Setup::new(10, 2).await;
    setup.kill();
    assert!(!setup.granted_here("1").await.held_before);
    assert!(setup.granted_here("1").await.held_before);
    let answer = setup.pool.claim_with("p/d/e", "1", 2, FREE).await;
    assert!(matches!(answer, Err(Error::Unavailable { .. } | Error::Conflict { .. })));
    assert_eq!(setup.counters(), (1, 1));
    // Redis may hold it as well, so this is not the end of it; but the units are back.
    assert_unavailable(setup.pool.release_many("p/d/e", &["1"]).await);
    assert_eq!(setup.counters(), (1, 0));
    setup.granted_here("2").await;
    setup.granted_here("3").await;
    assert_unavailable(setup.claim("4").await);
    // In a batch each claim has its own answer.
    let claims = [claim("2", 1), claim("5", 1)];
    let answers = setup.pool.claim_many("p/d/e", &claims, FREE).await.unwrap();
    assert!(answers[0].is_ok());
    assert!(matches!(answers[1], Err(Error::Unavailable { .. })), "{answers:?}");
}

#[tokio::test]
async fn when_redis_is_back_it_grants_the_tokens_or_they_stay_counted_here() {
    let mut setup = Setup::new(2, 2).await;
    setup.kill();
    setup.granted_here("1").await;
    setup.granted_here("2").await;
    setup.restart().await;
    setup.plain.claim("p/d/other", "1").await.granted().unwrap();
    // One fits, and the other is what was granted too much.
    let first = *setup.claim("1").await.unwrap().granted().unwrap();
    assert!(first.fencing_number.is_some());
    assert_eq!(setup.counters(), (2, 1));
    assert!(setup.granted_here("2").await.held_before);
    assert_eq!(setup.counters(), (2, 1));
    assert!(setup.claim("3").await.unwrap().granted().is_none(), "Redis says no");
    assert_eq!(setup.pool.release("p/d/e", "2").await, Released::Units(1));
    assert_eq!(setup.pool.release("p/d/e", "2").await, Released::NotHeld);
    assert_eq!(setup.pool.release("p/d/e", "1").await, Released::Units(1));
    assert_eq!(setup.counters(), (2, 0));
    assert_eq!(setup.plain.in_use().await, 1);
    setup.plain.assert_clean().await;
}

/// The answer is lost, but not the claim.
#[tokio::test]
async fn what_redis_granted_without_an_answer_is_given_back_too() {
    let mut setup = Setup::new(2, 2).await;
    // The server knows the script from here on.
    setup.claim("0").await.unwrap().granted().unwrap();
    setup.pool.release("p/d/e", "0").await;
    setup.server.as_ref().unwrap().signal("STOP");
    setup.granted_here("1").await;
    setup.server.as_mut().unwrap().signal("CONT");
    until("the claim is carried out", async || setup.plain.holds("p/d/e", "1").await.then_some(()))
        .await;
    let released =
        until("Redis is found again", async || setup.pool.release_many("p/d/e", &["1"]).await.ok());
    assert_eq!(released.await, [Released::Units(1)]);
    assert_eq!((setup.plain.in_use().await, setup.counters().1), (0, 0));
}

#[tokio::test]
async fn only_claims_are_granted_and_only_of_pools_that_redis_answered_about() {
    let mut setup = Setup::new(1, 3).await;
    let name = |text: &str| text.parse().unwrap();
    let unknown = fixture(Arc::clone(&setup.pool.backend), None).handle(None);
    let locks = Locks::new(Arc::clone(&setup.pool.backend));
    let mutex = locks.mutex("m").await.unwrap();
    mutex.try_lock().await.unwrap().unwrap().unlock().await.unwrap();
    setup.kill();
    // A pool's quota is the most that is granted, and caps are respected.
    assert_unavailable(setup.pool.claim_with("p/d/e", "1", 2, FREE).await);
    for closed in [caps(Some(0), None), caps(None, Some(0))] {
        assert_unavailable(setup.pool.claim_with("p/d/e", "1", 1, closed).await);
    }
    assert_unavailable(unknown.claim_with("p/d/e", "1", 1, FREE).await);
    assert_unavailable(mutex.try_lock().await);
    assert_unavailable(setup.pool.try_wait("p/d/e", &claim("1", 1), FREE, &ticket()).await);
    let register = QuotaChange::Register(quota(1));
    let pool = name("plugin:new");
    assert_unavailable(setup.pool.backend.change_quota(&pool, register).await);
    assert_unavailable(setup.pool.backend.usage(&setup.pool.name).await);
    assert_eq!(setup.counters(), (0, 0));
    setup.granted_here("1").await;
}

#[tokio::test]
async fn what_redis_answers_is_the_answer() {
    let setup = Setup::new(1, 3).await;
    let config = |value: &str| {
        let mut raw = setup.server.as_ref().unwrap().raw();
        redis::cmd("CONFIG").arg(&["SET", "maxmemory", value]).exec(&mut raw).unwrap();
    };
    config("1");
    let error = setup.claim("1").await.unwrap_err();
    assert!(matches!(error, Error::Server { .. }), "{error:?}");
    config("0");
    setup.plain.clean_up().await;
    let error = setup.claim("1").await.unwrap_err();
    assert!(matches!(error, Error::UnknownNamespace { .. }), "{error:?}");
    assert_eq!(setup.counters(), (0, 0));
}

#[tokio::test]
async fn joint_claims_are_granted_here_together_or_not_at_all() {
    let mut setup = Setup::new(3, 2).await;
    let other = fixture(Arc::clone(&setup.pool.backend), None).pool(3).await;
    let (execution, holder) = (execution("p/d/e"), Holder::new("test").unwrap());
    let claimant = Claimant { execution: &execution, constraints: FREE, holder: &holder };
    let joint = |pool: &Pool, units| Joint {
        pool: pool.name.clone(),
        claim: claim("1", units),
        constraints: FREE,
    };
    setup.kill();
    let backend = Arc::clone(&setup.pool.backend);
    let too_many = [joint(&setup.pool, 1), joint(&other, 3)];
    assert_unavailable(backend.allocate_all(claimant, &too_many).await);
    assert_eq!(setup.counters(), (0, 0));
    let claims = [joint(&setup.pool, 1), joint(&other, 2)];
    let answer = backend.allocate_all(claimant, &claims).await.unwrap();
    assert!(matches!(answer, JointOutcome::Granted(grants) if grants.len() == 2));
    assert_eq!(setup.counters(), (2, 3));
    setup.restart().await;
    let answer = backend.allocate_all(claimant, &claims).await.unwrap();
    let JointOutcome::Granted(grants) = answer else { panic!("{answer:?}") };
    assert!(grants.iter().all(|grant| grant.fencing_number.is_some()));
    assert_eq!(setup.counters(), (2, 0));
}

#[tokio::test]
async fn a_lease_ends_here_unless_it_is_renewed() {
    let mut setup = Setup::new(3, 2).await;
    setup.kill();
    let claims = [claim("1", 1).with_lease(lease(100)), claim("2", 1).with_lease(lease(60_000))];
    let answers = setup.pool.claim_many("p/d/e", &claims, FREE).await.unwrap();
    assert!(answers.into_iter().all(|answer| answer.unwrap().granted().is_some()));
    until("the first is over", async || (setup.counters().1 == 1).then_some(())).await;
    let answers = setup.pool.renew_many("p/d/e", &["1", "2"], 100).await;
    assert!(matches!(answers[0], Err(Error::Unavailable { .. })), "{answers:?}");
    assert!(matches!(answers[1], Ok(Renewed::Held(None))), "{answers:?}");
    until("so is the second", async || (setup.counters().1 == 0).then_some(())).await;
}

/// A guard goes on through an outage longer than its lease, and has a number afterwards.
#[tokio::test]
async fn a_guard_of_what_was_granted_here_becomes_one_of_redis() {
    let mut setup = Setup::new(3, 2).await;
    let manager = setup.manager();
    // The keeper has its connections from here on.
    setup.guard(&manager, "0", 1000).await.release().await.unwrap();
    setup.kill();
    let guard = setup.guard(&manager, "1", 1500).await;
    assert_eq!(guard.fencing_number(), None);
    assert_eq!(manager.counters().held_locally, 1);
    let lost = tokio::time::timeout(Duration::from_millis(2500), guard.lost());
    assert!(lost.await.is_err(), "it is renewed here");
    setup.restart().await;
    until("Redis grants it", async || guard.fencing_number()).await;
    assert_eq!(manager.counters().held_locally, 0);
    assert!(!guard.is_lost() && setup.plain.holds("p/d/e", "1").await);
    assert_eq!(guard.release().await.unwrap(), Released::Units(1));
    assert_eq!(setup.plain.in_use().await, 0);
}

/// Also where the server is gone before a guard is asked for, and the keeper has no connections yet.
#[tokio::test]
async fn the_first_guard_of_a_process_may_be_granted_here() {
    let mut setup = Setup::new(3, 2).await;
    let manager = setup.manager();
    setup.kill();
    let one = setup.guard(&manager, "1", 1500).await;
    let other = setup.guard(&manager, "2", 1500).await;
    assert_unavailable(setup.try_acquire(&manager, "3", 1500).await);
    let lost = tokio::time::timeout(Duration::from_millis(2500), one.lost());
    assert!(lost.await.is_err(), "it is renewed here");
    assert_unavailable(other.release().await);
    assert_eq!(manager.counters().held_locally, 1);
    setup.restart().await;
    until("Redis grants it", async || one.fencing_number()).await;
    assert_eq!(one.release().await.unwrap(), Released::Units(1));
    assert_eq!(setup.plain.in_use().await, 0);
}

/// Both are renewed by one call, which nobody answers: one goes on here, the other as long as its lease can last.
#[tokio::test]
async fn a_guard_of_redis_is_not_lost_because_another_is_held_here() {
    let mut setup = Setup::new(3, 2).await;
    let manager = setup.manager();
    let real = setup.guard(&manager, "real", 6000).await;
    setup.kill();
    let here = setup.guard(&manager, "here", 6000).await;
    assert!(real.fencing_number().is_some() && here.fencing_number().is_none());
    // They are renewed after two seconds.
    let lost = tokio::time::timeout(Duration::from_millis(3500), real.lost());
    assert!(lost.await.is_err(), "its lease is not over");
    setup.restart().await;
    until("Redis grants the other", async || here.fencing_number()).await;
    assert!(!real.is_lost() && !here.is_lost());
    assert_eq!(setup.plain.in_use().await, 2);
}

/// That replicas do not have a grant is no reason to grant it here.
#[tokio::test]
async fn what_is_not_acknowledged_is_not_granted_here() {
    let server = Server::start();
    let text = format!(
        "type: redis\nonUnavailable: grant\nlocalAllowance: 3\n\
         redis: {{url: \"{}\", minReplicas: 1, acknowledgeTimeout: 100ms}}",
        server.url()
    );
    let backend = Config::from_yaml(&text).unwrap().open().await.unwrap();
    let pool = fixture(backend, Some(Arc::new(server))).pool(3).await;
    let error = pool.claim_with("p/d/e", "1", 1, FREE).await.unwrap_err();
    assert!(matches!(error, Error::NotAcknowledged { .. }), "{error:?}");
    let Counters { granted_locally, not_acknowledged, .. } = pool.backend.counters();
    assert_eq!((granted_locally, not_acknowledged), (0, 1));
}

#[tokio::test]
async fn nothing_is_granted_unless_configured() {
    let f = redis_on(Server::start()).await;
    assert_eq!(f.backend.counters(), Counters::default());
    let mut server = Server::start();
    let config = Config::redis_at(server.url()).unwrap();
    let pool = fixture(config.open().await.unwrap(), None).pool(3).await;
    server.kill();
    assert_unavailable(pool.claim_with("p/d/e", "1", 1, FREE).await);
}
