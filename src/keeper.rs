//! What a process does beside its callers: it renews what they hold, waits in their place, and gives back what they drop.
//!
//! One keeper serves a manager, on a thread and a connection of its own: callers that keep their runtime busy cannot starve
//! it, and what is dropped outside of a runtime is released all the same.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::sync::{Notify, OnceCell, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::acquire::{Acquired, AcquiredAll};
use crate::allocation::Allocation;
use crate::backend::Backend;
use crate::claim::{
    Claimant, Grant, Joint, JointOutcome, Lease, Outcome, Refusal, Released,
    ResourceConstraintsSpec,
};
use crate::error::{Error, Result};
use crate::execution::ExecutionId;
use crate::manager::Registered;
use crate::name::{AllocationToken, Holder, Member, PoolName};
use crate::ticket::{Channel, Notice, Priority, Renewal, Renewed, Ticket, TicketRequest, Turn};

/// How long a ticket outlives its process, and so does what was handed to it.
const TICKET: Duration = Duration::from_secs(10);
/// How often tickets are renewed: a lost notice costs a waiter no more than this.
const TICKET_RENEWED: Duration = Duration::from_secs(2);
/// Leases that are due within this part of their interval are renewed along with the first one.
const TOGETHER: u32 = 4;
/// How long the last releases may take when the manager is gone.
const FAREWELL: Duration = Duration::from_secs(10);

/// Handle of a keeper, which ends when all handles are gone.
#[derive(Clone, Debug)]
pub(crate) struct Keeper {
    commands: mpsc::UnboundedSender<Command>,
}

/// A claim that waits, and for how long.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) execution: ExecutionId,
    pub(crate) joint: Joint,
    pub(crate) priority: Priority,
    pub(crate) patience: Patience,
}

/// How long a claim waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Not at all.
    None,
    /// Until a moment, or for ever.
    Until(Option<Instant>),
}

/// What is held or waits: a token of an execution in a pool.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Held {
    pub(crate) pool: PoolName,
    pub(crate) execution: ExecutionId,
    pub(crate) token: AllocationToken,
}

#[derive(Debug)]
enum Command {
    Acquire(Box<Request>, oneshot::Sender<Result<Acquired>>),
    AcquireAll(Vec<Request>, oneshot::Sender<Result<AcquiredAll>>),
    Keep(Box<Held>, Lease),
    Forget(Vec<Held>),
    Release(Box<Held>, Option<oneshot::Sender<Result<Released>>>),
}

impl Keeper {
    /// Starts a keeper over connections of its own.
    pub(crate) fn start(registered: Arc<Registered>, holder: Holder) -> Result<Self> {
        let cannot_start = |source: std::io::Error| Error::Unavailable {
            operation: "keeper",
            server: "a thread of this process".to_owned(),
            source: Box::new(source),
        };
        let (commands, inbox) = mpsc::unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(cannot_start)?;
        let desk = Arc::new(Desk {
            registered,
            holder,
            handle: commands.downgrade(),
            backend: OnceCell::new(),
            channel: OnceCell::new(),
            items: Mutex::default(),
            earlier: Notify::new(),
            tasks: TaskTracker::new(),
        });
        thread::Builder::new()
            .name("tokenpool-keeper".to_owned())
            .spawn(move || runtime.block_on(desk.run(inbox)))
            .map_err(cannot_start)?;
        Ok(Self { commands })
    }

    pub(crate) async fn acquire(&self, request: Request) -> Result<Acquired> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Acquire(Box::new(request), reply));
        answer.await.unwrap_or_else(|_| Err(gone("acquire")))
    }

    pub(crate) async fn acquire_all(&self, requests: Vec<Request>) -> Result<AcquiredAll> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::AcquireAll(requests, reply));
        answer.await.unwrap_or_else(|_| Err(gone("acquire_all")))
    }

    /// Renews a lease until it is forgotten, released or lost.
    pub(crate) fn keep(&self, held: Held, lease: Lease) {
        self.send(Command::Keep(Box::new(held), lease));
    }

    /// Renews these no longer.
    pub(crate) fn forget(&self, held: Vec<Held>) {
        self.send(Command::Forget(held));
    }

    /// Gives back what is held, trying again until the server answers.
    pub(crate) async fn release(&self, held: Held) -> Result<Released> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Release(Box::new(held), Some(reply)));
        answer.await.unwrap_or_else(|_| Err(gone("release")))
    }

    /// The same without waiting for the answer.
    pub(crate) fn release_later(&self, held: Held) {
        self.send(Command::Release(Box::new(held), None));
    }

    fn send(&self, command: Command) {
        // The keeper listens as long as there are handles.
        let _ = self.commands.send(command);
    }
}

fn gone(operation: &'static str) -> Error {
    Error::Unavailable {
        operation,
        server: "a thread of this process".to_owned(),
        source: "the keeper ended".into(),
    }
}

/// The keeper's own side.
#[derive(Debug)]
struct Desk {
    registered: Arc<Registered>,
    holder: Holder,
    handle: mpsc::WeakUnboundedSender<Command>,
    backend: OnceCell<Arc<dyn Backend>>,
    channel: OnceCell<Channel>,
    items: Mutex<Items>,
    /// Something is due before what was next.
    earlier: Notify,
    tasks: TaskTracker,
}

/// What is renewed.
#[derive(Debug, Default)]
struct Items {
    by_id: HashMap<u64, Item>,
    by_member: HashMap<(PoolName, Member), BTreeSet<u64>>,
    due: BTreeSet<(Instant, u64)>,
}

#[derive(Debug)]
struct Item {
    held: Held,
    lease: Lease,
    interval: Duration,
    /// When the renewal was sent that succeeded last: the lease cannot end before its length after this.
    renewed: Instant,
    /// When it is looked at next: to be renewed or, while a renewal is under way, because its time is over.
    due: Instant,
    under_way: bool,
    concerns: Concerns,
}

/// Whom it concerns what becomes of an item.
#[derive(Clone, Debug)]
enum Concerns {
    /// A waiting claim, which asks again when it is notified.
    Ticket(Arc<Notify>),
    /// A holder, who learns of a lost lease.
    Grant(watch::Sender<bool>),
}

impl Items {
    fn insert(&mut self, item: Item) -> u64 {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        self.by_member.entry(item.held.key()).or_default().insert(id);
        self.due.insert((item.due, id));
        self.by_id.insert(id, item);
        id
    }

    fn remove(&mut self, id: u64) -> Option<Item> {
        let item = self.by_id.remove(&id)?;
        self.due.remove(&(item.due, id));
        let key = item.held.key();
        if let Some(ids) = self.by_member.get_mut(&key) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_member.remove(&key);
            }
        }
        Some(item)
    }

    fn of(&self, held: &Held) -> Vec<u64> {
        self.by_member.get(&held.key()).into_iter().flatten().copied().collect()
    }

    fn reschedule(&mut self, id: u64, due: Instant) {
        if let Some(item) = self.by_id.get_mut(&id) {
            self.due.remove(&(item.due, id));
            item.due = due;
            self.due.insert((due, id));
        }
    }

    /// Takes what is to be renewed now, by pool; what a renewal is under way for in vain is lost.
    fn take_due(&mut self, now: Instant) -> HashMap<PoolName, Vec<u64>> {
        let mut batches: HashMap<PoolName, Vec<u64>> = HashMap::new();
        let candidates: Vec<_> =
            self.due.iter().take_while(|(due, _)| *due <= now + TICKET).copied().collect();
        for (due, id) in candidates {
            let Some(item) = self.by_id.get_mut(&id) else { continue };
            if item.under_way {
                if due <= now {
                    self.lose(id);
                }
            } else if due <= now + item.interval / TOGETHER {
                item.under_way = true;
                let end = item.renewed + item.lease.length();
                batches.entry(item.held.pool.clone()).or_default().push(id);
                self.reschedule(id, end.max(now));
            }
        }
        batches
    }

    /// Its time is over: a holder has lost it, a ticket is asked for again.
    fn lose(&mut self, id: u64) {
        let Some(item) = self.remove(id) else { return };
        match &item.concerns {
            Concerns::Ticket(notify) => notify.notify_one(),
            Concerns::Grant(lost) => {
                lost.send_replace(true);
            }
        }
    }
}

impl Held {
    fn key(&self) -> (PoolName, Member) {
        (self.pool.clone(), Member::new(&self.execution, &self.token))
    }
}

impl Desk {
    async fn run(self: Arc<Self>, mut inbox: mpsc::UnboundedReceiver<Command>) {
        loop {
            let next = self.items().due.first().map(|(due, _)| *due);
            let due = async {
                match next {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                command = inbox.recv() => match command {
                    Some(command) => self.obey(command),
                    None => break,
                },
                () = due => self.renew_due(),
                () = self.earlier.notified() => {}
            }
        }
        self.tasks.close();
        // What is not done by then is left to the leases.
        let _ = timeout(FAREWELL, self.tasks.wait()).await;
    }

    fn items(&self) -> MutexGuard<'_, Items> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn obey(self: &Arc<Self>, command: Command) {
        match command {
            Command::Acquire(request, reply) => {
                let desk = Arc::clone(self);
                let work = |cancelled| async move { desk.acquire(&request, &cancelled).await };
                self.tasks.spawn(deliver(reply, work));
            }
            Command::AcquireAll(requests, reply) => {
                let desk = Arc::clone(self);
                let work = |cancelled| async move { desk.acquire_all(&requests, &cancelled).await };
                self.tasks.spawn(deliver(reply, work));
            }
            Command::Keep(held, lease) => self.keep(*held, lease),
            Command::Forget(held) => self.forget(&held),
            Command::Release(held, reply) => {
                self.forget(std::slice::from_ref(&held));
                self.release_later(*held, reply);
            }
        }
    }

    async fn backend(&self) -> Result<&Arc<dyn Backend>> {
        self.backend.get_or_try_init(|| self.registered.backend().detached()).await
    }

    /// The channel of this process's tickets, opened for the first of them.
    async fn channel(self: &Arc<Self>) -> Result<&Channel> {
        let open = async || {
            let mut inbox = self.backend().await?.listen().await?;
            let desk = Arc::downgrade(self);
            tokio::spawn(async move {
                while let Some(notice) = inbox.notices.recv().await {
                    let Some(desk) = desk.upgrade() else { break };
                    desk.hear(notice);
                }
            });
            Ok(inbox.channel)
        };
        self.channel.get_or_try_init(open).await
    }

    fn hear(&self, notice: Notice) {
        let mut items = self.items();
        match notice {
            Notice::Granted { pool, member } | Notice::Gone { pool, member } => {
                for id in items.by_member.get(&(pool, member)).into_iter().flatten() {
                    if let Some(Item { concerns: Concerns::Ticket(notify), .. }) =
                        items.by_id.get(id)
                    {
                        notify.notify_one();
                    }
                }
            }
            Notice::Interrupted => {
                let now = Instant::now();
                let waiting =
                    |item: &Item| matches!(item.concerns, Concerns::Ticket(_)) && !item.under_way;
                let ids: Vec<_> = items
                    .by_id
                    .iter()
                    .filter(|(_, item)| waiting(item))
                    .map(|(id, _)| *id)
                    .collect();
                for id in ids {
                    items.reschedule(id, now);
                }
                self.earlier.notify_one();
            }
        }
    }

    fn insert(&self, item: Item) -> u64 {
        let id = self.items().insert(item);
        self.earlier.notify_one();
        id
    }

    fn keep(&self, held: Held, lease: Lease) {
        let mut items = self.items();
        let now = Instant::now();
        // Claimed again, which renewed it.
        let known = items.of(&held).into_iter().find(|id| {
            items.by_id.get(id).is_some_and(|item| matches!(item.concerns, Concerns::Grant(_)))
        });
        if let Some(id) = known {
            if let Some(item) = items.by_id.get_mut(&id) {
                (item.lease, item.interval, item.renewed) = (lease, lease.length() / 3, now);
            }
            items.reschedule(id, now + lease.length() / 3);
            return;
        }
        drop(items);
        self.insert(Item::grant(held, lease, now, watch::Sender::new(false)));
    }

    fn forget(&self, held: &[Held]) {
        let mut items = self.items();
        for held in held {
            for id in items.of(held) {
                let is_grant = |item: &Item| matches!(item.concerns, Concerns::Grant(_));
                if items.by_id.get(&id).is_some_and(is_grant) {
                    items.remove(id);
                }
            }
        }
    }

    fn renew_due(self: &Arc<Self>) {
        let batches = self.items().take_due(Instant::now());
        for (pool, ids) in batches {
            let desk = Arc::clone(self);
            self.tasks.spawn(async move { desk.renew(&pool, &ids).await });
        }
    }

    /// Renews items of one pool in one round trip.
    async fn renew(&self, pool: &PoolName, ids: &[u64]) {
        let sent = Instant::now();
        let (ids, held): (Vec<_>, Vec<_>) = {
            let items = self.items();
            let known = ids.iter().filter_map(|id| {
                items.by_id.get(id).map(|item| (*id, (item.held.clone(), item.lease)))
            });
            known.unzip()
        };
        let renewals: Vec<_> = held
            .iter()
            .map(|(held, lease)| Renewal {
                execution: &held.execution,
                token: &held.token,
                lease: *lease,
            })
            .collect();
        let answers = match self.backend().await {
            Ok(backend) => backend.renew(pool, &renewals).await,
            Err(error) => Err(error),
        };
        let mut items = self.items();
        match answers {
            Ok(answers) => {
                for (id, answer) in ids.into_iter().zip(answers) {
                    items.settle(id, sent, answer);
                }
            }
            Err(Error::UnknownNamespace { .. }) => ids.into_iter().for_each(|id| items.lose(id)),
            Err(error) => {
                tracing::warn!(%pool, leases = ids.len(), %error, "leases not renewed; trying again");
                ids.into_iter().for_each(|id| items.try_again(id));
            }
        }
        drop(items);
        self.earlier.notify_one();
    }

    fn release_later(
        self: &Arc<Self>,
        held: Held,
        reply: Option<oneshot::Sender<Result<Released>>>,
    ) {
        let desk = Arc::clone(self);
        self.tasks.spawn(async move {
            let first = desk.release_once(&held).await;
            let again = matches!(&first, Err(error) if error.is_retryable());
            if let Err(error) = &first {
                let (pool, token) = (&held.pool, &held.token);
                tracing::warn!(%pool, %token, %error, again, "not released");
            }
            if let Some(reply) = reply {
                // Whoever does not wait for the answer does not want it.
                let _ = reply.send(first);
            }
            if again {
                desk.release_until_answered(&held).await;
            }
        });
    }

    async fn release_once(&self, held: &Held) -> Result<Released> {
        let tokens = std::slice::from_ref(&held.token);
        let released = self.backend().await?.release(&held.pool, &held.execution, tokens).await?;
        Ok(released.first().copied().unwrap_or(Released::NotHeld))
    }

    async fn release_until_answered(&self, held: &Held) {
        let back_off = ExponentialBuilder::new()
            .with_min_delay(Duration::from_millis(100))
            .with_max_delay(Duration::from_secs(10))
            .without_max_times()
            .with_jitter()
            .build();
        for delay in back_off {
            sleep(delay).await;
            match self.release_once(held).await {
                Err(error) if error.is_retryable() => {}
                _ => return,
            }
        }
    }

    /// Releases, and goes on in the background if that gets no answer.
    async fn withdraw(self: &Arc<Self>, held: Held) {
        match self.release_once(&held).await {
            Err(error) if error.is_retryable() => self.release_later(held, None),
            _ => {}
        }
    }

    async fn acquire(
        self: &Arc<Self>,
        request: &Request,
        cancelled: &CancellationToken,
    ) -> Result<Acquired> {
        let mut place = Place { desk: self, request, item: None, notify: Arc::default() };
        let end = match request.patience {
            Patience::None => place.try_once().await,
            Patience::Until(_) => place.wait(cancelled).await,
        };
        let stood = place.leave();
        match end {
            Ok(End::Granted(grant, asked)) => self
                .allocation(request.held(), request.joint.claim.lease, grant, asked)
                .map(Acquired::Granted),
            Ok(End::Refused(refusal)) => Ok(Acquired::Refused(refusal)),
            Ok(End::TimedOut(ticket)) => {
                self.withdraw(request.held()).await;
                Ok(Acquired::TimedOut(ticket))
            }
            Ok(End::Cancelled) => {
                self.withdraw(request.held()).await;
                Err(gone("acquire"))
            }
            Err(error) => {
                if error.is_retryable() || stood {
                    self.withdraw(request.held()).await;
                }
                Err(error)
            }
        }
    }

    /// All at once if that can be; else one after the other in the order of the pools' names, in which two such claims
    /// cannot wait for each other.
    async fn acquire_all(
        self: &Arc<Self>,
        requests: &[Request],
        cancelled: &CancellationToken,
    ) -> Result<AcquiredAll> {
        let Some(first) = requests.first() else { return Ok(AcquiredAll::Granted(Vec::new())) };
        let claims: Vec<_> = requests.iter().map(|request| request.joint.clone()).collect();
        let claimant = self.claimant(&first.execution, ResourceConstraintsSpec::NONE);
        let asked = Instant::now();
        let outcome = match self.backend().await?.allocate_all(claimant, &claims).await {
            Err(Error::UnknownNamespace { pool }) => {
                self.registered.register_again(&pool).await?;
                self.backend().await?.allocate_all(claimant, &claims).await
            }
            outcome => outcome,
        };
        match outcome {
            Ok(JointOutcome::Granted(grants)) => {
                let allocation = |(request, grant): (&Request, Grant)| {
                    self.allocation(request.held(), request.joint.claim.lease, grant, asked)
                };
                let all = requests.iter().zip(grants).map(allocation).collect::<Result<_>>()?;
                return Ok(AcquiredAll::Granted(all));
            }
            Ok(JointOutcome::Refused { .. }) => {}
            Err(error) => {
                if error.is_retryable() {
                    for request in requests {
                        self.release_later(request.held(), None);
                    }
                }
                return Err(error);
            }
        }
        let mut order: Vec<_> = requests.iter().enumerate().collect();
        order.sort_by_key(|(_, request)| &request.joint.pool);
        let mut allocations = Vec::new();
        for (at, request) in order {
            match self.acquire(request, cancelled).await? {
                Acquired::Granted(allocation) => allocations.push((at, allocation)),
                // What was got before is dropped, and so released.
                Acquired::TimedOut(ticket) => {
                    let pool = request.joint.pool.clone();
                    return Ok(AcquiredAll::TimedOut { pool, ticket });
                }
                Acquired::Refused(refusal) => {
                    let pool = request.joint.pool.clone();
                    return Ok(AcquiredAll::Refused { pool, refusal });
                }
            }
        }
        allocations.sort_unstable_by_key(|(at, _)| *at);
        Ok(AcquiredAll::Granted(
            allocations.into_iter().map(|(_, allocation)| allocation).collect(),
        ))
    }

    fn claimant<'a>(
        &'a self,
        execution: &'a ExecutionId,
        constraints: ResourceConstraintsSpec,
    ) -> Claimant<'a> {
        Claimant { execution, constraints, holder: &self.holder }
    }

    /// The guard of a grant; its lease is renewed from now on.
    fn allocation(
        self: &Arc<Self>,
        held: Held,
        lease: Option<Lease>,
        grant: Grant,
        asked: Instant,
    ) -> Result<Allocation> {
        let Some(commands) = self.handle.upgrade() else {
            self.release_later(held, None);
            return Err(gone("acquire"));
        };
        let lost = lease.filter(|_| self.registered.backend().keeps_grants()).map(|lease| {
            let (sender, lost) = watch::channel(false);
            self.insert(Item::grant(held.clone(), lease, asked, sender));
            lost
        });
        Ok(Allocation::new(Keeper { commands }, held, grant, lost))
    }
}

impl Request {
    fn held(&self) -> Held {
        Held {
            pool: self.joint.pool.clone(),
            execution: self.execution.clone(),
            token: self.joint.claim.token.clone(),
        }
    }
}

impl Item {
    fn grant(held: Held, lease: Lease, renewed: Instant, lost: watch::Sender<bool>) -> Self {
        let interval = lease.length() / 3;
        let due = renewed + interval;
        Self {
            held,
            lease,
            interval,
            renewed,
            due,
            under_way: false,
            concerns: Concerns::Grant(lost),
        }
    }
}

/// The place of a waiting claim.
struct Place<'a> {
    desk: &'a Arc<Desk>,
    request: &'a Request,
    /// Its ticket's, as soon as it has one.
    item: Option<u64>,
    notify: Arc<Notify>,
}

/// How waiting ends.
enum End {
    /// Granted; asked for at this moment.
    Granted(Grant, Instant),
    Refused(Refusal),
    TimedOut(Ticket),
    Cancelled,
}

impl Place<'_> {
    async fn wait(&mut self, cancelled: &CancellationToken) -> Result<End> {
        let mut last = None;
        loop {
            let asked = Instant::now();
            match self.ask().await {
                Ok(Turn::Granted(grant)) => return Ok(End::Granted(grant, asked)),
                Ok(Turn::Waiting(ticket)) => {
                    self.stand(asked, &ticket)?;
                    last = Some(ticket);
                }
                // The ticket is renewed as long as it can last, and asks again then.
                Err(error) if error.is_retryable() && self.stands() => {}
                Err(error) => return Err(error),
            }
            tokio::select! {
                () = self.notify.notified() => {}
                () = cancelled.cancelled() => return Ok(End::Cancelled),
                ticket = self.time_is_up(last.clone()) => return Ok(End::TimedOut(ticket)),
            }
        }
    }

    async fn try_once(&self) -> Result<End> {
        let Request { execution, joint, .. } = self.request;
        let Joint { pool, claim, constraints } = joint;
        let (backend, asked) = (self.desk.backend().await?, Instant::now());
        let claimant = self.desk.claimant(execution, *constraints);
        let claims = std::slice::from_ref(claim);
        let answers = match backend.allocate(pool, claimant, claims).await {
            Err(Error::UnknownNamespace { .. }) => {
                self.desk.registered.register_again(pool).await?;
                backend.allocate(pool, claimant, claims).await
            }
            answers => answers,
        }?;
        match answers.into_iter().next() {
            Some(Ok(Outcome::Granted(grant))) => Ok(End::Granted(grant, asked)),
            Some(Ok(Outcome::Refused(refusal))) => Ok(End::Refused(refusal)),
            Some(Err(error)) => Err(error),
            None => Err(gone("allocate")),
        }
    }

    async fn ask(&self) -> Result<Turn> {
        let Request { execution, joint, priority, .. } = self.request;
        let Joint { pool, claim, constraints } = joint;
        let desk = self.desk;
        let backend = desk.backend().await?;
        let ticket = TicketRequest::new(Lease::named("ticket", TICKET)?)
            .with_priority(*priority)
            .with_channel(desk.channel().await?.clone());
        let claimant = desk.claimant(execution, *constraints);
        match backend.wait(pool, claimant, claim, &ticket).await {
            Err(Error::UnknownNamespace { .. }) => {
                desk.registered.register_again(pool).await?;
                backend.wait(pool, claimant, claim, &ticket).await
            }
            turn => turn,
        }
    }

    async fn time_is_up(&self, last: Option<Ticket>) -> Ticket {
        match (self.request.patience, last) {
            (Patience::Until(Some(deadline)), Some(ticket)) => {
                sleep_until(deadline).await;
                ticket
            }
            _ => std::future::pending().await,
        }
    }

    /// Has the ticket renewed, and looked after when something in the pool ends by itself.
    fn stand(&mut self, asked: Instant, ticket: &Ticket) -> Result<()> {
        let ends =
            ticket.retry_after.map_or(TICKET_RENEWED, |wait| wait + Duration::from_millis(1));
        let due = asked + TICKET_RENEWED.min(ends.max(Duration::from_millis(50)));
        let mut items = self.desk.items();
        if let Some(id) = self.item
            && let Some(item) = items.by_id.get_mut(&id)
        {
            item.renewed = asked;
            if !item.under_way {
                items.reschedule(id, due);
            }
            return Ok(());
        }
        self.item = Some(items.insert(Item {
            held: self.request.held(),
            lease: Lease::named("ticket", TICKET)?,
            interval: TICKET_RENEWED,
            renewed: asked,
            due,
            under_way: false,
            concerns: Concerns::Ticket(Arc::clone(&self.notify)),
        }));
        drop(items);
        self.desk.earlier.notify_one();
        Ok(())
    }

    fn stands(&self) -> bool {
        self.item.is_some_and(|id| self.desk.items().by_id.contains_key(&id))
    }

    /// Has the ticket renewed no longer; tells whether there was one.
    fn leave(self) -> bool {
        if let Some(id) = self.item {
            self.desk.items().remove(id);
        }
        self.item.is_some()
    }
}

impl Items {
    /// Notes what became of a renewal that was sent at `sent`.
    fn settle(&mut self, id: u64, sent: Instant, answer: Result<Renewed>) {
        let Some(item) = self.by_id.get_mut(&id) else { return };
        item.under_way = false;
        item.renewed = sent;
        let next = sent + item.interval;
        match (answer, &item.concerns) {
            (Ok(Renewed::Held(_)), Concerns::Grant(_))
            | (Ok(Renewed::Waiting), Concerns::Ticket(_)) => {}
            // Its turn came, and the notice was lost; or it is gone, and is asked for again.
            (_, Concerns::Ticket(notify)) => notify.notify_one(),
            (_, Concerns::Grant(_)) => return self.lose(id),
        }
        self.reschedule(id, next);
    }

    /// Plans another attempt at a renewal that failed, unless the time is over.
    fn try_again(&mut self, id: u64) {
        let Some(item) = self.by_id.get_mut(&id) else { return };
        item.under_way = false;
        let now = Instant::now();
        let end = item.renewed + item.lease.length();
        if now >= end {
            return self.lose(id);
        }
        let next = now + (item.interval / 4).min(Duration::from_secs(1));
        self.reschedule(id, next.min(end));
    }
}

/// Does work for a reply, and calls it off when nobody waits for that any more.
async fn deliver<T, F>(
    mut reply: oneshot::Sender<Result<T>>,
    work: impl FnOnce(CancellationToken) -> F,
) where
    F: Future<Output = Result<T>>,
{
    let cancelled = CancellationToken::new();
    let mut work = std::pin::pin!(work(cancelled.clone()));
    let result = loop {
        tokio::select! {
            result = &mut work => break result,
            () = reply.closed(), if !cancelled.is_cancelled() => cancelled.cancel(),
        }
    };
    // If nobody waits any more, the guards in the result are dropped, and so released.
    let _ = reply.send(result);
}
