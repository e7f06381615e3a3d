use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokenpool::{
    Acquired, AcquiredAll, Allocation, AllocationToken, Backend, Claim, Config, Cursor,
    ExecutionId, FencingNumber, Joint, Lease, LockGuard, Manager, Mutex, Outcome, PluginId,
    PoolName, Priority, Registrar, Renewal, Renewed, ResourceConstraintsSpec, ResourceNamespace,
    ResourceRegistrar, RwLock, TicketRequest, Turn, Units, Wait,
};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::events::{Event, Id, Log, MILLI, now};
use crate::plan::{
    CLAIMED, DOMAINS, LEASES, LOCK, MUTEX, PLUGIN, PROJECTS, Plan, WRITER, waited_for,
};
use crate::rng::Rng;

/// Who claims in one process at once.
const CLAIMANTS: u64 = 6;
/// The library notices a loss when it renews next; on this machine much later than it should be.
const NOTICED: Duration = Duration::from_secs(20);
/// What is answered sooner is not written down.
const NOTABLE: u64 = 100;
/// What every execution is called; it is the scopes that matter.
const EXECUTION: &str = "e";

/// Where a worker finds everything: directory, configuration, number of the process, seed.
#[derive(Clone, Debug)]
struct Orders {
    directory: PathBuf,
    configuration: String,
    process: u64,
    seed: u64,
}

/// What the claimants of a process share.
#[derive(Debug)]
struct Worker {
    orders: Orders,
    log: Log,
    manager: Manager,
    backend: Arc<dyn Backend>,
    mutex: Mutex,
    rw_lock: RwLock,
    lock_lease: u64,
    /// How long a call may take that grants nothing, and one that may, in milliseconds.
    patience: u64,
    patience_to_get: u64,
    stop: CancellationToken,
}

/// Something that is held.
#[derive(Debug)]
struct Holding {
    id: Id,
    pool: PoolName,
    lease: u64,
    /// When it was seen last that the guard has this number.
    numbered: u64,
    held: Held,
}

#[derive(Debug)]
enum Held {
    Guard(Allocation),
    Lock(LockGuard),
    /// Claimed as engines do that have no guards.
    Token(Asked),
}

/// A claim, and when its token was claimed first.
#[derive(Clone, Debug)]
struct Asked {
    plan: &'static Plan,
    execution: ExecutionId,
    claim: Claim,
    lease: u64,
    since: u64,
}

pub(crate) fn main(arguments: &[String]) {
    let [directory, configuration, process, seed] = arguments else { panic!("{arguments:?}") };
    let orders = Orders {
        directory: directory.into(),
        configuration: configuration.clone(),
        process: process.parse().unwrap(),
        seed: seed.parse().unwrap(),
    };
    let stop = CancellationToken::new();
    std::thread::spawn({
        let stop = stop.clone();
        move || {
            // Ends with the parent, whatever becomes of it.
            let _ = io::stdin().read_to_end(&mut Vec::new());
            stop.cancel();
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(run(orders, stop));
}

async fn run(orders: Orders, stop: CancellationToken) {
    let log = Log::create(&orders.directory.join(format!("worker-{}.log", orders.process)));
    let log = log.unwrap();
    log.watch();
    let worker = loop {
        match Worker::start(&orders, &log, &stop).await {
            Ok(worker) => break Arc::new(worker),
            // The server may be down just now.
            Err(_) if stop.is_cancelled() => return,
            Err(error) if error.is_retryable() => log.note("start failed"),
            Err(error) => panic!("{error}"),
        }
    };
    let claimants: Vec<_> = (0..CLAIMANTS)
        .map(|number| {
            let rng = Rng::new(worker.orders.seed, &[worker.orders.process, number]);
            let name = format!("{}-{number}", worker.orders.process);
            let worker = Arc::clone(&worker);
            tokio::spawn(Claimant { worker, name, rng, tokens: 0, last: None }.run())
        })
        .collect();
    for claimant in claimants {
        if let Err(error) = claimant.await {
            log.write(Event::Broken(error.to_string()));
        }
    }
}

impl Worker {
    async fn start(
        orders: &Orders,
        log: &Log,
        stop: &CancellationToken,
    ) -> tokenpool::Result<Self> {
        let mut rng = Rng::new(orders.seed, &[orders.process]);
        let mut config = Config::from_yaml(&orders.configuration)?;
        config.redis.max_retries = *rng.pick(&[0, 0, 3]);
        let redis = &config.redis;
        let patience = redis.total_timeout;
        // What replicas do not have in time is given back, which is one call more.
        let patience_to_get = match redis.min_replicas {
            0 => patience,
            _ => 2 * patience + redis.acknowledge_timeout,
        };
        let backend = config.open().await?;
        let registrar = Registrar::new(Arc::clone(&backend));
        let plugin = registrar.for_plugin(PluginId::new(PLUGIN)?);
        for plan in &CLAIMED {
            let quota = plan.quota.try_into().unwrap();
            plugin.register_resource_quota(&ResourceNamespace::new(plan.name)?, quota)?;
        }
        let manager = registrar.build().await?;
        let lock_lease = *rng.pick(&LEASES);
        let locks = manager.locks().with_lease(lease(lock_lease));
        Ok(Self {
            mutex: locks.mutex(LOCK).await?,
            rw_lock: locks.rw_lock(LOCK).await?,
            orders: orders.clone(),
            log: log.clone(),
            manager,
            backend,
            lock_lease,
            patience: millis(patience),
            patience_to_get: millis(patience_to_get),
            stop: stop.clone(),
        })
    }

    /// The answer to a call that grants nothing.
    async fn timed<T>(&self, call: &str, answer: impl Future<Output = T>) -> T {
        self.timed_within(call, self.patience, answer).await
    }

    /// Claims, and gives the token back if that takes longer than the caller waits.
    async fn claim_or_leave(
        self: Arc<Self>,
        asked: Asked,
        patience: Option<Duration>,
    ) -> tokenpool::Result<Option<(Asked, u64, Outcome)>> {
        let (pool, sent) = (asked.plan.pool(), now());
        let claims = [asked.claim.clone()];
        let answers = self.manager.allocate(&pool, &asked.execution, &claims, asked.plan.caps());
        let answers = self.timed_to_get("allocate", answers);
        let answers = match patience {
            None => answers.await,
            Some(patience) => match timeout(patience, answers).await {
                Ok(answers) => answers,
                Err(_) => {
                    let tokens = [asked.claim.token];
                    let released = self.manager.release(&pool, &asked.execution, &tokens);
                    return self.timed("release", released).await.map(|_| None);
                }
            },
        };
        let outcome = answers?.remove(0)?;
        Ok(Some((asked, sent, outcome)))
    }

    /// The answer to a call that may grant something.
    async fn timed_to_get<T>(&self, call: &str, answer: impl Future<Output = T>) -> T {
        self.timed_within(call, self.patience_to_get, answer).await
    }

    /// The end of waiting for so long: the last question may be asked when that is over, and is taken back then.
    async fn timed_wait<T>(
        &self,
        call: &str,
        wait: Duration,
        answer: impl Future<Output = T>,
    ) -> T {
        let limit = millis(wait) + self.patience_to_get + self.patience;
        self.timed_within(call, limit, answer).await
    }

    async fn timed_within<T>(&self, call: &str, limit: u64, answer: impl Future<Output = T>) -> T {
        let asked = now();
        let answer = answer.await;
        if now() - asked >= NOTABLE * MILLI {
            self.log.wake();
            self.log.write(Event::Took { call: call.to_owned(), asked, limit });
        }
        answer
    }
}

fn millis(time: Duration) -> u64 {
    time.as_millis().try_into().unwrap()
}

fn lease(millis: u64) -> Lease {
    Lease::new(Duration::from_millis(millis)).unwrap()
}

impl Plan {
    fn caps(&self) -> ResourceConstraintsSpec {
        let cap = |cap: Option<u64>| cap.map(|cap| cap.try_into().unwrap());
        ResourceConstraintsSpec::new(cap(self.project_cap), cap(self.domain_cap)).unwrap()
    }
}

/// One of several in a process, each of which does one thing after the other.
#[derive(Debug)]
struct Claimant {
    worker: Arc<Worker>,
    name: String,
    rng: Rng,
    tokens: u64,
    last: Option<Asked>,
}

impl Claimant {
    async fn run(mut self) {
        while !self.worker.stop.is_cancelled() {
            let held = match self.rng.between(0, 12) {
                0 => self.try_once().await,
                1..=2 => self.acquire().await,
                3 => self.acquire_within().await,
                4 => self.acquire_and_drop().await,
                5..=6 => self.queue().await,
                7 => self.acquire_all().await,
                8..=9 => self.lock().await,
                10 => self.read_or_write().await,
                _ => self.rush().await,
            };
            match held {
                Ok(held) => self.hold(held).await,
                Err(error) if error.is_retryable() => self.worker.log.note("error"),
                Err(error) => self.worker.log.write(Event::Broken(format!("{error:?}"))),
            }
        }
    }

    /// A new claim or, as engines do after a crash or an error, the last one once more.
    fn claim(&mut self) -> Asked {
        if let Some(last) = &self.last
            && self.rng.percent(30)
        {
            return last.clone();
        }
        let plan = self.rng.pick(waited_for().0);
        let asked = self.claim_of(plan);
        self.last = Some(asked.clone());
        asked
    }

    fn claim_of(&mut self, plan: &'static Plan) -> Asked {
        self.tokens += 1;
        let token = AllocationToken::new(format!("{}-{}", self.name, self.tokens)).unwrap();
        let (project, domain) = (self.rng.pick(&PROJECTS), self.rng.pick(&DOMAINS));
        let length = *self.rng.pick(&LEASES);
        let units = Units::new(self.rng.between(1, plan.largest).try_into().unwrap()).unwrap();
        Asked {
            plan,
            execution: ExecutionId::new(project, domain, EXECUTION).unwrap(),
            claim: Claim::new(token, units).with_lease(lease(length)),
            lease: length,
            since: now(),
        }
    }

    fn wait(&mut self) -> Wait {
        let priority = self.rng.between(0, 9).try_into().unwrap();
        Wait::forever().with_priority(Priority::new(priority).unwrap())
    }

    async fn try_once(&mut self) -> tokenpool::Result<Vec<Holding>> {
        let (asked, sent) = (self.claim(), now());
        let Asked { plan, execution, claim, .. } = asked.clone();
        let (worker, pool) = (&self.worker, plan.pool());
        let manager = &worker.manager;
        if self.rng.percent(50) {
            let got = manager.try_acquire(&pool, &execution, claim, plan.caps());
            let got = worker.timed_to_get("try_acquire", got).await?;
            return Ok(self.guarded(&asked, sent, got));
        }
        let claims = [claim];
        let answers = manager.allocate(&pool, &execution, &claims, plan.caps());
        let answers = worker.timed_to_get("allocate", answers).await?;
        match answers.into_iter().next() {
            Some(Ok(Outcome::Granted(grant))) => {
                Ok(vec![self.token(asked, sent, grant.fencing_number)])
            }
            Some(Err(error)) => Err(error),
            _ => {
                self.worker.log.note("refused");
                Ok(Vec::new())
            }
        }
    }

    /// Claims several tokens at once.
    async fn rush(&mut self) -> tokenpool::Result<Vec<Holding>> {
        let (_, plan) = waited_for();
        let mut calls = Vec::new();
        for _ in 0..self.rng.between(2, 8) {
            let patience = self.rng.percent(20).then(|| self.rng.millis(0, 3));
            let (worker, asked) = (Arc::clone(&self.worker), self.claim_of(plan));
            calls.push(tokio::spawn(worker.claim_or_leave(asked, patience)));
        }
        let mut held = Vec::new();
        for call in calls {
            match call.await.unwrap() {
                Ok(Some((asked, sent, Outcome::Granted(grant)))) => {
                    held.push(self.token(asked, sent, grant.fencing_number));
                }
                Ok(Some(_)) => self.worker.log.note("refused"),
                Ok(None) => self.worker.log.note("calls left"),
                Err(error) if error.is_retryable() => self.worker.log.note("error"),
                Err(error) => self.worker.log.write(Event::Broken(format!("{error:?}"))),
            }
        }
        self.worker.log.note("calls at once");
        Ok(held)
    }

    async fn acquire(&mut self) -> tokenpool::Result<Vec<Holding>> {
        let (asked, wait) = (self.claim(), self.wait());
        self.acquire_as(asked, wait).await
    }

    async fn acquire_within(&mut self) -> tokenpool::Result<Vec<Holding>> {
        let priority = self.wait().priority();
        let time = self.rng.millis(1, 1_500);
        let wait = Wait::within(time).unwrap().with_priority(priority);
        let asked = self.claim();
        self.worker.timed_wait("acquire", time, self.acquire_as(asked, wait)).await
    }

    async fn acquire_as(&self, asked: Asked, wait: Wait) -> tokenpool::Result<Vec<Holding>> {
        let Asked { plan, execution, claim, .. } = asked.clone();
        let (pool, sent) = (plan.pool(), now());
        let acquire = self.worker.manager.acquire(&pool, &execution, claim, plan.caps(), wait);
        // After last orders, too: whoever waits gets their turn, or the process does not end.
        Ok(self.guarded(&asked, sent, acquire.await?))
    }

    async fn acquire_and_drop(&mut self) -> tokenpool::Result<Vec<Holding>> {
        let (patience, asked, wait) = (self.rng.millis(0, 100), self.claim(), self.wait());
        match timeout(patience, self.acquire_as(asked, wait)).await {
            Ok(held) => held,
            Err(_) => {
                self.worker.log.note("futures dropped");
                Ok(Vec::new())
            }
        }
    }

    /// Asks again from time to time, as Flyte's engine does.
    async fn queue(&mut self) -> tokenpool::Result<Vec<Holding>> {
        let asked = self.claim();
        let Asked { plan, execution, claim, .. } = &asked;
        let ticket = TicketRequest::new(lease(*self.rng.pick(&LEASES)))
            .with_priority(self.wait().priority());
        let pool = plan.pool();
        for _ in 0..self.rng.between(1, 20) {
            let (manager, sent) = (&self.worker.manager, now());
            let turn = manager.allocate_or_queue(&pool, execution, claim, plan.caps(), &ticket);
            match self.worker.timed_to_get("allocate_or_queue", turn).await {
                Ok(Turn::Granted(grant)) => {
                    return Ok(vec![self.token(asked, sent, grant.fencing_number)]);
                }
                Ok(Turn::Waiting(_)) => self.worker.log.note("tickets seen waiting"),
                Err(error) if error.is_retryable() => self.worker.log.note("error"),
                Err(error) => return Err(error),
            }
            sleep(self.rng.millis(10, 150)).await;
        }
        self.worker.log.note("tickets given up");
        if self.rng.percent(80) {
            let tokens = [claim.token.clone()];
            let released = self.worker.manager.release(&pool, execution, &tokens);
            self.worker.timed("release", released).await?;
        }
        Ok(Vec::new())
    }

    async fn acquire_all(&mut self) -> tokenpool::Result<Vec<Holding>> {
        let mut plans: Vec<_> = waited_for().0.iter().collect();
        self.rng.shuffle(&mut plans);
        plans.truncate(self.rng.between(2, 3).try_into().unwrap());
        let (project, domain) = (self.rng.pick(&PROJECTS), self.rng.pick(&DOMAINS));
        let execution = ExecutionId::new(project, domain, EXECUTION).unwrap();
        let all: Vec<_> = plans
            .into_iter()
            .map(|plan| Asked { execution: execution.clone(), ..self.claim_of(plan) })
            .collect();
        let joint = |asked: &Asked| Joint {
            pool: asked.plan.pool(),
            claim: asked.claim.clone(),
            constraints: asked.plan.caps(),
        };
        let (claims, sent) = (all.iter().map(joint).collect(), now());
        let wait = Wait::within(self.rng.millis(50, 3_000)).unwrap();
        let acquire = self.worker.manager.acquire_all(&execution, claims, wait);
        let got = match timeout(self.rng.millis(20, 6_000), acquire).await {
            Ok(got) => got?,
            Err(_) => {
                self.worker.log.note("futures of several dropped");
                return Ok(Vec::new());
            }
        };
        let AcquiredAll::Granted(guards) = got else {
            self.worker.log.note("several timed out");
            return Ok(Vec::new());
        };
        self.worker.log.note("several at once");
        let guard = |(asked, guard)| self.guard(asked, sent, guard);
        Ok(all.iter().zip(guards).map(guard).collect())
    }

    async fn lock(&mut self) -> tokenpool::Result<Vec<Holding>> {
        let (worker, asked) = (Arc::clone(&self.worker), now());
        let mutex = &worker.mutex;
        let guard = match self.rng.between(0, 3) {
            0 => worker.timed_to_get("try_lock", mutex.try_lock()).await?,
            1 => {
                let time = self.rng.millis(1, 1_000);
                worker.timed_wait("lock", time, mutex.lock_within(time)).await?
            }
            _ => timeout(self.rng.millis(0, 6_000), mutex.lock()).await.ok().transpose()?,
        };
        Ok(self.locked(mutex.pool(), asked, 1, guard))
    }

    async fn read_or_write(&mut self) -> tokenpool::Result<Vec<Holding>> {
        let (worker, asked) = (Arc::clone(&self.worker), now());
        let lock = &worker.rw_lock;
        let (limit, writes) = (self.rng.millis(1, 3_000), self.rng.percent(30));
        let guard = match writes {
            true => worker.timed_wait("write", limit, lock.write_within(limit)).await?,
            false => worker.timed_wait("read", limit, lock.read_within(limit)).await?,
        };
        let units = if writes { WRITER } else { 1 };
        Ok(self.locked(lock.pool(), asked, units, guard))
    }

    fn guarded(&self, asked: &Asked, sent: u64, got: Acquired) -> Vec<Holding> {
        match got {
            Acquired::Granted(guard) => return vec![self.guard(asked, sent, guard)],
            Acquired::Refused(_) => self.worker.log.note("refused"),
            Acquired::TimedOut(_) => self.worker.log.note("timed out"),
        }
        Vec::new()
    }

    fn guard(&self, asked: &Asked, sent: u64, guard: Allocation) -> Holding {
        let (number, pool) = (guard.fencing_number(), asked.plan.pool());
        self.granted(pool, asked, sent, number, Held::Guard(guard))
    }

    fn token(&self, asked: Asked, sent: u64, number: Option<FencingNumber>) -> Holding {
        let pool = asked.plan.pool();
        self.granted(pool, &asked.clone(), sent, number, Held::Token(asked))
    }

    fn granted(
        &self,
        pool: PoolName,
        asked: &Asked,
        sent: u64,
        number: Option<FencingNumber>,
        held: Held,
    ) -> Holding {
        let id = Id { pool: pool.to_string(), fence: number.unwrap().get() };
        let scope = format!("{} {}", asked.execution.project(), asked.execution.domain());
        let (lease, units) = (asked.lease, asked.claim.units.get());
        let (id_, since) = (id.clone(), asked.since);
        self.worker.log.write(Event::Granted { id: id_, since, asked: sent, lease, units, scope });
        Holding { id, pool, lease, numbered: now(), held }
    }

    fn locked(
        &self,
        pool: &PoolName,
        asked: u64,
        units: u64,
        guard: Option<LockGuard>,
    ) -> Vec<Holding> {
        let Some(guard) = guard else {
            self.worker.log.note("not locked");
            return Vec::new();
        };
        let id = Id { pool: pool.to_string(), fence: guard.fencing_number().unwrap().get() };
        let (lease, scope) = (self.worker.lock_lease, "none none".to_owned());
        let (id_, since) = (id.clone(), asked);
        self.worker.log.write(Event::Granted { id: id_, since, asked, lease, units, scope });
        let held = Held::Lock(guard);
        vec![Holding { id, pool: pool.clone(), lease, numbered: now(), held }]
    }

    /// Holds for a while, looks whether it does, and gives back.
    async fn hold(&mut self, mut all: Vec<Holding>) {
        let longest = all.iter().map(|holding| holding.lease).max().unwrap_or_default();
        let time = match self.rng.between(0, 9) {
            0..=4 => self.rng.millis(0, 20),
            5..=8 => self.rng.millis(20, 300),
            _ => self.rng.millis(longest, longest * 2),
        };
        let end = Instant::now() + time;
        loop {
            let mut kept = Vec::new();
            for mut holding in all {
                if self.keeps(&mut holding).await {
                    kept.push(holding);
                } else if let Held::Token(_) = holding.held {
                    // Where it was forgotten the library may have claimed it again.
                    self.give_back(holding).await;
                }
            }
            all = kept;
            if Instant::now() >= end || all.is_empty() || self.worker.stop.is_cancelled() {
                break;
            }
            sleep(self.rng.millis(5, 200).min(end - Instant::now())).await;
        }
        for holding in all {
            let id = holding.id.clone();
            self.give_back(holding).await;
            if id.pool == MUTEX && self.rng.percent(50) {
                // Arrives when somebody else may have written.
                sleep(self.rng.millis(1, 500)).await;
                self.store(&id);
            }
        }
    }

    /// Does something with what is held. Answers whether it still is, as far as is known.
    async fn keeps(&mut self, holding: &mut Holding) -> bool {
        holding.number(&self.worker.log);
        if self.rng.percent(50) {
            // Careless as clients are: without a look whether the lock is lost.
            self.store(&holding.id);
        }
        if holding.is_lost() {
            self.worker.log.write(Event::Lost { id: holding.id.clone() });
            return false;
        }
        let asked = now();
        let found = match (self.rng.between(0, 3), &holding.held) {
            (0, Held::Guard(guard)) => {
                self.renewed(holding, guard.execution(), guard.token()).await
            }
            (0, Held::Token(asked)) => {
                self.renewed(holding, &asked.execution, &asked.claim.token).await
            }
            (0, Held::Lock(_)) | (1, _) => self.looked_up(holding).await,
            _ => return true,
        };
        match found {
            // It may have come back meanwhile.
            Some(false) if holding.number(&self.worker.log) => true,
            Some(false) => {
                self.worker.log.write(Event::Gone { id: holding.id.clone(), asked });
                self.expects_loss_or_return(holding).await
            }
            _ => true,
        }
    }

    /// Looks at the pool's holders; none if the server does not answer.
    async fn looked_up(&self, holding: &Holding) -> Option<bool> {
        let (asked, mut from) = (now(), Some(Cursor::default()));
        while let Some(cursor) = from {
            let page = self.worker.backend.holders(&holding.pool, cursor, 100);
            let page = self.worker.timed("holders", page).await.ok()?;
            for found in page.holdings {
                let record = found.record?;
                if record.fencing_number.get() == holding.id.fence {
                    let left = found.lease_left?.as_millis().try_into().ok()?;
                    let id = holding.id.clone();
                    self.worker.log.write(Event::Seen { id, asked, left });
                    return Some(true);
                }
            }
            from = page.next;
        }
        Some(false)
    }

    /// Renews beside the keeper.
    async fn renewed(
        &self,
        holding: &Holding,
        execution: &ExecutionId,
        token: &AllocationToken,
    ) -> Option<bool> {
        let (asked, left) = (now(), holding.lease);
        let renewal = Renewal { execution, token, lease: lease(left) };
        let renewals = [renewal];
        let answers = self.worker.backend.renew(&holding.pool, &renewals);
        let answers = self.worker.timed("renew", answers).await.ok()?;
        match answers.into_iter().next()? {
            Ok(Renewed::Held(Some(number))) if number.get() == holding.id.fence => {
                self.worker.log.write(Event::Seen { id: holding.id.clone(), asked, left });
                Some(true)
            }
            Ok(_) => Some(false),
            Err(error) => {
                self.worker.log.write(Event::Broken(error.to_string()));
                None
            }
        }
    }

    /// The server said that it is gone: the guard says that it is lost, or has another number, or it was not the server any
    /// more that said so. Answers whether it is held.
    async fn expects_loss_or_return(&self, holding: &mut Holding) -> bool {
        let log = &self.worker.log;
        let end = Instant::now() + NOTICED;
        loop {
            if holding.number(log) {
                return true;
            }
            let id = holding.id.clone();
            if holding.is_lost() || matches!(holding.held, Held::Token(_)) {
                log.write(Event::Lost { id });
                return false;
            }
            if Instant::now() >= end {
                log.write(Event::Unnoticed { id });
                return false;
            }
            // Nothing tells of another number.
            sleep(Duration::from_millis(50)).await;
            if self.looked_up(holding).await == Some(true) {
                return true;
            }
        }
    }

    /// Writes to what the mutex protects, which knows the largest number that it has seen.
    fn store(&self, id: &Id) {
        if id.pool != MUTEX {
            return;
        }
        let write = || -> io::Result<()> {
            let path = self.worker.orders.directory.join("store");
            let mut file =
                File::options().read(true).write(true).create(true).truncate(false).open(path)?;
            if file.try_lock().is_err() {
                return Ok(());
            }
            let asked = now();
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            let accepted = text.parse().unwrap_or(0) <= id.fence;
            if accepted {
                file.rewind()?;
                // Numbers have the same length.
                write!(file, "{}", id.fence)?;
            }
            // Before the file is unlocked, so that what is written down is in order.
            self.worker.log.write(Event::Stored { id: id.clone(), asked, accepted });
            Ok(())
        };
        write().expect("the store can be used");
    }

    async fn give_back(&mut self, holding: Holding) {
        let log = &self.worker.log;
        log.write(Event::Returning { id: holding.id });
        let drops = self.rng.percent(50);
        let released = match holding.held {
            Held::Guard(_) | Held::Lock(_) if drops => return log.note("guards dropped"),
            Held::Guard(guard) => self.worker.timed("release", guard.release()).await.map(drop),
            Held::Lock(guard) => self.worker.timed("unlock", guard.unlock()).await,
            Held::Token(Asked { execution, claim, .. }) => {
                let tokens = [claim.token];
                let released = self.worker.manager.release(&holding.pool, &execution, &tokens);
                self.worker.timed("release", released).await.map(drop)
            }
        };
        match released {
            Ok(()) => log.note("released"),
            Err(error) if error.is_retryable() => log.note("release errors"),
            Err(error) => log.write(Event::Broken(error.to_string())),
        }
    }
}

impl Holding {
    /// Looks at the number of the guard. Answers whether it is another, and writes that down.
    fn number(&mut self, log: &Log) -> bool {
        let (was, asked) = (self.id.fence, self.numbered);
        self.numbered = now();
        let number = match &self.held {
            Held::Guard(guard) => guard.fencing_number(),
            Held::Lock(guard) => guard.fencing_number(),
            Held::Token(_) => return false,
        };
        self.id.fence = number.unwrap().get();
        if self.id.fence != was {
            log.write(Event::Regained { id: self.id.clone(), was, asked });
        }
        self.id.fence != was
    }

    fn is_lost(&self) -> bool {
        match &self.held {
            Held::Guard(guard) => guard.is_lost(),
            Held::Lock(guard) => guard.is_lost(),
            Held::Token(_) => false,
        }
    }
}
