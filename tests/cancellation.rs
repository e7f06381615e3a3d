//! Futures dropped at every point at which they can be, while answers come, come late, or are lost. Whatever is dropped:
//! every unit comes back, no ticket stays, and whoever waits behind has its turn.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokenpool::{
    Acquired, AcquiredAll, Allocation, Backend, Config, Cursor, Error, ExecutionId, Joint, Manager,
    PluginId, PoolName, Registrar, ResourceNamespace, ResourceRegistrar, Result, TicketRequest,
    Wait,
};
use tokio::task::JoinHandle;

use crate::support::gate::{Door, Gate};
use crate::support::server::Server;
use crate::support::{FREE, claim, connect, execution, lease, member, memory, revocation};

/// Far more than anything here takes; reached only when something never happens.
const LONG: Duration = Duration::from_secs(30);
/// Less than the 10 s after which tickets, and what was handed to them, go on by themselves.
const SOON: Duration = Duration::from_secs(8);
/// Polls by hand after which everything that happens by itself has happened.
const POLLS: usize = 8;

/// How far a call has come when its future is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Polled so many times; there is a unit for it.
    Polled(usize),
    /// Polled so many times; it has to wait.
    PolledWaiting(usize),
    /// The server has granted it, and the answer has not come.
    Granted,
    /// The server has filed its ticket, and the answer has not come.
    Filed,
    /// It knows that it waits.
    Waiting,
    /// Units were handed to it, and it was not told.
    Handed,
    /// It was told and claimed them, and the answer has not come.
    Taken,
    /// The answer has come; the future was not polled again.
    Answered,
}

/// What becomes of the answers that have not come when the future is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Late,
    Lost,
}

/// What is dropped: a claim of one pool, or of two of which the first is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    One,
    All,
}

/// Pools of one unit each, a manager whose calls are dropped, and one that knows nothing of it.
struct World {
    backend: Arc<dyn Backend>,
    manager: Manager,
    other: Manager,
    /// Between the server and the first manager.
    gate: Option<Gate>,
    _server: Option<Server>,
}

type Claimed = Pin<Box<dyn Future<Output = Result<Vec<Allocation>>> + Send>>;

fn pool(name: &str) -> PoolName {
    PoolName::new(format!("hive:{name}")).unwrap()
}

fn owner() -> ExecutionId {
    execution("p/d/e")
}

async fn manager(backend: &Arc<dyn Backend>) -> Manager {
    let registrar = Registrar::new(Arc::clone(backend));
    let plugin = registrar.for_plugin(PluginId::new("hive").unwrap());
    for name in ["a", "b", "c"] {
        plugin.register_resource_quota(&ResourceNamespace::new(name).unwrap(), 1).unwrap();
    }
    registrar.build().await.unwrap()
}

async fn acquire(manager: Manager, name: &'static str, token: &'static str) -> Result<Allocation> {
    let (pool, owner) = (pool(name), owner());
    let acquire = manager.acquire(&pool, &owner, claim(token, 1), FREE, Wait::forever());
    match acquire.await? {
        Acquired::Granted(allocation) => Ok(allocation),
        other => panic!("{other:?}"),
    }
}

/// Looks again and again until it is so; what is looked at has no event to wait for.
async fn until(what: &impl fmt::Debug, mut holds: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < LONG, "never: {what:?}");
        tokio::task::yield_now().await;
    }
}

impl World {
    async fn on_memory() -> Self {
        let backend = memory().await.backend;
        let (manager, other) = (manager(&backend).await, manager(&backend).await);
        Self { backend, manager, other, gate: None, _server: None }
    }

    async fn on_redis() -> Self {
        let server = Server::start();
        let gate = Gate::before(server.socket());
        let backend = connect(&server.url()).await;
        let other = manager(&backend).await;
        let manager = manager(&connect(&gate.url()).await).await;
        let world = Self { backend, manager, other, gate: Some(gate), _server: Some(server) };
        // Makes the connections, listens and loads the scripts, so that a closed door stops claims alone.
        for kind in [Kind::One, Kind::All] {
            for guard in world.claim(kind).await.unwrap() {
                guard.release().await.unwrap();
            }
        }
        world
    }

    /// A manager with little time for each call, though not for connecting.
    async fn impatient(&self) -> Manager {
        let gate = self.gate.as_ref().unwrap();
        let mut config = Config::redis_at(gate.url()).unwrap();
        config.redis.total_timeout = Duration::from_secs(2);
        config.redis.command_timeout = Duration::from_secs(2);
        config.redis.connect_timeout = LONG;
        config.redis.learning_period = Duration::ZERO;
        manager(&config.open().await.unwrap()).await
    }

    fn claim(&self, kind: Kind) -> Claimed {
        let manager = self.manager.clone();
        match kind {
            Kind::One => {
                Box::pin(async { acquire(manager, "b", "dropped").await.map(|one| vec![one]) })
            }
            Kind::All => Box::pin(async move {
                let joint = |name| Joint {
                    pool: pool(name),
                    claim: claim("dropped", 1),
                    constraints: FREE,
                };
                let claims = vec![joint("b"), joint("a")];
                match manager.acquire_all(&owner(), claims, Wait::forever()).await? {
                    AcquiredAll::Granted(guards) => Ok(guards),
                    other => panic!("{other:?}"),
                }
            }),
        }
    }

    fn door(&self, door: Door) {
        if let Some(gate) = &self.gate {
            gate.set(door);
        }
    }

    fn answer(&self, answer: Answer) {
        match (&self.gate, answer) {
            (Some(gate), Answer::Lost) => gate.cut(),
            _ => self.door(Door::Open),
        }
    }

    async fn tickets(&self) -> u64 {
        self.backend.usage(&pool("b")).await.unwrap().tickets
    }

    /// Whether the dropped claim holds `b`, and if so whether for no longer than its ticket would have lasted.
    async fn held(&self) -> Option<bool> {
        let page = self.backend.holders(&pool("b"), Cursor::default(), 10).await.unwrap();
        let mut held = page.holdings.into_iter();
        let held = held.find(|holding| holding.member.as_str().ends_with("-dropped"))?;
        Some(held.lease_left.is_some())
    }

    /// Makes the call as far as to this stage, and drops it. Returns who held `b` before it, if that is still so.
    async fn drop_at(&self, kind: Kind, stage: Stage, answer: Answer) -> Option<Allocation> {
        let waits = !matches!(stage, Stage::Polled(_) | Stage::Granted);
        let mut before = None;
        if waits {
            before = Some(acquire(self.other.clone(), "b", "before").await.unwrap());
        }
        let mut call = self.claim(kind);
        match stage {
            Stage::Polled(times) | Stage::PolledWaiting(times) => poll(&mut call, times).await,
            Stage::Granted => {
                self.door(Door::Shut);
                self.poll_until(&mut call, &stage, async || self.held().await.is_some()).await;
            }
            Stage::Filed => {
                self.door(Door::Shut);
                self.poll_until(&mut call, &stage, async || self.tickets().await == 1).await;
            }
            Stage::Waiting | Stage::Handed | Stage::Taken | Stage::Answered => {
                self.poll_until(&mut call, &stage, async || self.tickets().await == 1).await;
                self.caught_up().await;
            }
        }
        let door = match stage {
            Stage::Handed => Some(Door::Shut),
            Stage::Taken => Some(Door::Notices),
            Stage::Answered => Some(Door::Open),
            _ => None,
        };
        if let Some(door) = door {
            self.door(door);
            before.take().unwrap().release().await.unwrap();
            let handed = if stage == Stage::Handed { Some(true) } else { Some(false) };
            // Not polled any more: what is told, and claimed, is so by the library's own thread.
            until(&(stage, answer), async || self.held().await == handed).await;
        }
        drop(call);
        self.answer(answer);
        before
    }

    async fn poll_until(
        &self,
        call: &mut Claimed,
        what: &impl fmt::Debug,
        holds: impl AsyncFnMut() -> bool,
    ) {
        tokio::select! {
            _ = call => panic!("{what:?}: answered"),
            () = until(what, holds) => {}
        }
    }

    /// Has whatever the first manager was answered so far arrive, and what it asked before be answered.
    async fn caught_up(&self) {
        let guard = acquire(self.manager.clone(), "c", "between").await.unwrap();
        guard.release().await.unwrap();
    }

    fn behind(&self) -> JoinHandle<Result<Allocation>> {
        tokio::spawn(acquire(self.other.clone(), "b", "behind"))
    }

    /// Whoever waits behind has its turn, and then nothing is left.
    async fn all_is_well(&self, what: impl fmt::Debug, behind: JoinHandle<Result<Allocation>>) {
        let granted = tokio::time::timeout(SOON, behind).await;
        let guard = granted.unwrap_or_else(|_| panic!("{what:?}: no turn for who is behind"));
        guard.unwrap().unwrap().release().await.unwrap();
        for pool in ["a", "b"].map(pool) {
            until(&what, async || {
                let usage = self.backend.usage(&pool).await.unwrap();
                usage.in_use == 0 && usage.tickets == 0
            })
            .await;
            let report = self.backend.check(&pool).await.unwrap();
            assert!(report.is_clean(), "{what:?}: {report:?}");
        }
    }

    async fn survives(&self, kind: Kind, stage: Stage, answer: Answer) {
        let before = self.drop_at(kind, stage, answer).await;
        let behind = self.behind();
        drop(before);
        self.all_is_well((kind, stage, answer), behind).await;
    }
}

/// Polls by hand, and lets others run in between.
async fn poll(call: &mut Claimed, times: usize) {
    for _ in 0..times {
        let done = poll_fn(|context| Poll::Ready(call.as_mut().poll(context).is_ready())).await;
        if done {
            return;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_claim_dropped_after_any_number_of_polls_leaves_nothing() {
    for world in [World::on_memory().await, World::on_redis().await] {
        for kind in [Kind::One, Kind::All] {
            for polls in 0..POLLS {
                for stage in [Stage::Polled(polls), Stage::PolledWaiting(polls)] {
                    world.survives(kind, stage, Answer::Late).await;
                }
            }
        }
    }
}

#[tokio::test]
async fn a_claim_dropped_while_it_waits_leaves_nothing() {
    for world in [World::on_memory().await, World::on_redis().await] {
        for kind in [Kind::One, Kind::All] {
            for stage in [Stage::Waiting, Stage::Answered] {
                world.survives(kind, stage, Answer::Late).await;
            }
        }
    }
}

#[tokio::test]
async fn a_claim_dropped_before_its_answer_leaves_nothing() {
    use Stage::{Filed, Granted, Handed, Taken, Waiting};
    let world = World::on_redis().await;
    for answer in [Answer::Late, Answer::Lost] {
        for stage in [Granted, Filed, Waiting, Handed, Taken] {
            world.survives(Kind::One, stage, answer).await;
        }
        // Of several the first answer is that not all are free, which is seen nowhere; then they wait.
        for stage in [Granted, Waiting, Handed, Taken] {
            world.survives(Kind::All, stage, answer).await;
        }
    }
}

/// The same where somebody waits behind already, to whom the units are handed.
#[tokio::test]
async fn units_of_a_dropped_claim_go_on_to_the_next_ticket() {
    use Stage::{Granted, Handed, Taken};
    let world = World::on_redis().await;
    for answer in [Answer::Late, Answer::Lost] {
        for (kind, stage) in [(Kind::One, Granted), (Kind::One, Handed), (Kind::All, Taken)] {
            let what = (kind, stage, answer);
            let mut call = world.claim(kind);
            let before = match stage {
                Granted => None,
                _ => Some(acquire(world.other.clone(), "b", "before").await.unwrap()),
            };
            let waiting = u64::from(before.is_some());
            if stage == Granted {
                world.door(Door::Shut);
                world.poll_until(&mut call, &what, async || world.held().await.is_some()).await;
            } else {
                world.poll_until(&mut call, &what, async || world.tickets().await == 1).await;
                world.caught_up().await;
                world.door(if stage == Handed { Door::Shut } else { Door::Notices });
            }
            let behind = world.behind();
            until(&what, async || world.tickets().await == waiting + 1).await;
            if let Some(before) = before {
                before.release().await.unwrap();
                until(&what, async || world.held().await == Some(stage == Handed)).await;
            }
            drop(call);
            world.answer(answer);
            world.all_is_well(what, behind).await;
        }
    }
}

#[tokio::test]
async fn a_release_dropped_at_any_point_releases() {
    for world in [World::on_memory().await, World::on_redis().await] {
        for polls in 0..POLLS {
            let guard = acquire(world.manager.clone(), "b", "dropped").await.unwrap();
            let mut release = Box::pin(guard.release());
            for _ in 0..polls {
                let done =
                    poll_fn(|context| Poll::Ready(release.as_mut().poll(context).is_ready()));
                if done.await {
                    break;
                }
                tokio::task::yield_now().await;
            }
            drop(release);
            world.all_is_well(("polls", polls), world.behind()).await;
        }
    }
}

#[tokio::test]
async fn a_release_whose_answer_is_late_or_lost_is_done_once() {
    let world = World::on_redis().await;
    for answer in [Answer::Late, Answer::Lost] {
        // Dropped as a guard, as a future, and waited for.
        for way in ["guard", "future", "awaited"] {
            let what = (way, answer);
            let guard = acquire(world.manager.clone(), "b", "dropped").await.unwrap();
            let behind = world.behind();
            until(&what, async || world.tickets().await == 1).await;
            world.door(Door::Shut);
            let gone = until(&what, async || world.held().await.is_none());
            match way {
                "guard" => {
                    drop(guard);
                    gone.await;
                    world.answer(answer);
                }
                "future" => {
                    tokio::select! {
                        _ = guard.release() => panic!("{what:?}: answered"),
                        () = gone => {}
                    }
                    world.answer(answer);
                }
                _ => {
                    let (released, ()) = tokio::join!(guard.release(), async {
                        gone.await;
                        world.answer(answer);
                    });
                    match (released, answer) {
                        (Ok(_), Answer::Late) => {}
                        (Err(error), Answer::Lost) => assert!(error.is_retryable(), "{error}"),
                        other => panic!("{other:?}"),
                    }
                }
            }
            world.all_is_well(what, behind).await;
        }
    }
}

/// What was dropped is given back in the background; that must not take away what is claimed again meanwhile.
#[tokio::test]
async fn a_token_that_is_claimed_again_at_once_is_held() {
    use Stage::{Answered, Filed, Granted, Handed, Polled, Taken};
    for world in [World::on_memory().await, World::on_redis().await] {
        let late = [Polled(1), Polled(2), Answered].map(|stage| (stage, Answer::Late)).to_vec();
        let stages = [Granted, Filed, Handed, Taken];
        let both =
            stages.into_iter().flat_map(|stage| [Answer::Late, Answer::Lost].map(|a| (stage, a)));
        let redis = world.gate.is_some();
        for (stage, answer) in late.into_iter().chain(both.filter(|_| redis)) {
            let what = (stage, answer);
            drop(world.drop_at(Kind::One, stage, answer).await);
            let again = acquire(world.manager.clone(), "b", "dropped").await.unwrap();
            let number = again.fencing_number();
            world.caught_up().await;
            assert_eq!(world.held().await, Some(false), "{what:?}");
            drop(again);
            let again = acquire(world.manager.clone(), "b", "dropped").await.unwrap();
            assert!(again.fencing_number() > number, "{what:?}: {again:?}");
            world.caught_up().await;
            assert_eq!(world.held().await, Some(false), "{what:?}");
            drop(again);
            world.all_is_well(what, world.behind()).await;
        }
    }
}

/// While that is not answered. Both together have the time of one.
#[tokio::test]
async fn a_claim_of_a_token_that_is_given_back_takes_no_longer_than_any() {
    let world = World::on_redis().await;
    let manager = world.impatient().await;
    let guard = acquire(manager.clone(), "b", "dropped").await.unwrap();
    world.door(Door::Shut);
    drop(guard);
    until(&"released", async || world.held().await.is_none()).await;
    let (pool, owner, claims) = (pool("b"), owner(), [claim("dropped", 1)]);
    let [claim] = &claims;
    let joint = Joint { pool: pool.clone(), claim: claim.clone(), constraints: FREE };
    let ticket = TicketRequest::new(lease(5_000));
    let late = tokio::join!(
        async { manager.allocate(&pool, &owner, &claims, FREE).await.err() },
        async { manager.allocate_or_queue(&pool, &owner, claim, FREE, &ticket).await.err() },
        async { manager.allocate_all(&owner, std::slice::from_ref(&joint)).await.err() },
        async { manager.try_acquire(&pool, &owner, claim.clone(), FREE).await.err() },
    );
    <[_; 4]>::from(late).into_iter().for_each(is_late);
    world.door(Door::Open);
    drop(acquire(manager.clone(), "b", "dropped").await.unwrap());
    world.all_is_well("held up", world.behind()).await;
}

/// The keeper connects for the first of them.
#[tokio::test]
async fn claims_that_wait_for_a_connection_take_no_longer_than_any() {
    let world = World::on_redis().await;
    let manager = world.impatient().await;
    world.door(Door::Shut);
    let (pool, owner) = (pool("b"), owner());
    let first = async || manager.try_acquire(&pool, &owner, claim("dropped", 1), FREE).await.err();
    let late = tokio::join!(first(), first(), first());
    <[_; 3]>::from(late).into_iter().for_each(is_late);
    world.door(Door::Open);
    drop(acquire(manager.clone(), "b", "dropped").await.unwrap());
    world.all_is_well("not connected", world.behind()).await;
}

/// What says that time is up before the server's silence does, which counts from later on.
#[track_caller]
fn is_late(error: Option<Error>) {
    let error = error.expect("there is no answer");
    assert!(error.is_retryable(), "{error}");
    assert!(error.to_string().contains("redisresourcemanager is not available"), "{error}");
}

/// Its token may be held by another guard.
#[tokio::test]
async fn a_guard_that_is_lost_takes_nothing_away_when_it_is_dropped() {
    for world in [World::on_memory().await, World::on_redis().await] {
        let leased = async || {
            let claim = claim("dropped", 1).with_lease(lease(5_000));
            let (pool, owner, wait) = (pool("b"), owner(), Wait::forever());
            let acquired = world.manager.acquire(&pool, &owner, claim, FREE, wait).await;
            acquired.unwrap().granted().unwrap()
        };
        let lost = leased().await;
        let member = member("p/d/e", "dropped");
        world.backend.revoke(&pool("b"), &member, &revocation()).await.unwrap();
        tokio::time::timeout(LONG, lost.lost()).await.expect("the loss is told");
        let again = leased().await;
        drop(lost);
        world.caught_up().await;
        assert_eq!(world.held().await, Some(true));
        assert!(!again.is_lost());
        drop(again);
        world.all_is_well("lost", world.behind()).await;
    }
}
