//! The keeper's own side: obeys its handles, renews what is due, hears the notices, and releases.

use std::io;
use std::sync::{Arc, MutexGuard};
use std::thread;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::sync::{OnceCell, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::place::{End, Place};
use super::renewals::{Entry, Fate, Grip, Id, Renewals, Term};
use super::returns::Returning;
use super::{Command, Held, Keeper, Patience, Request, Shared, Terms, gone, in_time};
use crate::acquire::{Acquired, AcquiredAll};
use crate::allocation::{Allocation, Kept};
use crate::amount::ResourceConstraintsSpec;
use crate::claim::Claimant;
use crate::error::{Error, Result};
use crate::execution::ExecutionId;
use crate::name::{Holder, PoolName};
use crate::outcome::{Grant, JointOutcome, Outcome, Released};
use crate::registered::Registered;
use crate::ticket::{Channel, Notice, Renewal, Renewed};

/// How long the last releases may take when the manager is gone.
const FAREWELL: Duration = Duration::from_secs(10);

/// Where a keeper works.
#[derive(Debug)]
pub(super) struct Desk {
    /// For handles that go with guards; it does not keep the keeper from ending.
    handle: mpsc::WeakUnboundedSender<Command>,
    shared: Shared,
    holder: Holder,
    /// The pools through connections of its own.
    pools: OnceCell<Registered>,
    channel: OnceCell<Channel>,
    tasks: TaskTracker,
}

/// A grant that was not there to be renewed.
#[derive(Debug)]
struct Gone {
    id: Id,
    held: Held,
    /// Its member was, but not its record.
    is_unrecorded: bool,
}

impl Desk {
    /// Begins work on a thread of its own.
    pub(super) fn open(
        keeper: &Keeper,
        holder: Holder,
        inbox: mpsc::UnboundedReceiver<Command>,
    ) -> io::Result<()> {
        let desk = Arc::new(Self {
            handle: keeper.commands.downgrade(),
            shared: keeper.shared.clone(),
            holder,
            pools: OnceCell::new(),
            channel: OnceCell::new(),
            tasks: TaskTracker::new(),
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = thread::Builder::new().name("tokenpool-keeper".to_owned());
        thread.spawn(move || runtime.block_on(desk.run(inbox))).map(drop)
    }

    async fn run(self: Arc<Self>, mut inbox: mpsc::UnboundedReceiver<Command>) {
        loop {
            let next = self.renewals().next_due();
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
                () = self.shared.renewals.rescheduled() => {}
            }
        }
        self.tasks.close();
        // What is not done by then is left to the leases.
        let _ = timeout(FAREWELL, self.tasks.wait()).await;
    }

    fn obey(self: &Arc<Self>, command: Command) {
        let desk = Arc::clone(self);
        match command {
            Command::Acquire(request, claims, reply) => {
                let work = |cancelled| async move { desk.acquire(&request, &cancelled).await };
                self.tasks.spawn(deliver(claims, reply, work));
            }
            Command::AcquireAll(requests, claims, reply) => {
                let work = |cancelled| async move { desk.acquire_all(&requests, &cancelled).await };
                self.tasks.spawn(deliver(claims, reply, work));
            }
            Command::Release(returning) => self.give_back(returning),
        }
    }

    pub(super) fn renewals(&self) -> MutexGuard<'_, Renewals> {
        self.shared.renewals.lock()
    }

    /// Has an entry renewed.
    pub(super) fn insert(&self, entry: Entry) -> Id {
        let id = self.renewals().insert(entry);
        self.shared.renewals.reschedule();
        id
    }

    /// Notes that an entry was renewed. As [`Renewals::renewed`].
    pub(super) fn renewed(&self, id: Id, sent: Instant, interval: Duration) -> bool {
        let is_known = self.renewals().renewed(id, sent, interval);
        self.shared.renewals.reschedule();
        is_known
    }

    /// The pools, through connections of its own; while the server cannot be reached to make them, through those of whoever
    /// claims, since their backend says what is answered then.
    pub(super) async fn pools(&self) -> Result<&Registered> {
        match self.own_pools().await {
            Err(Error::Unavailable { .. }) => Ok(&self.shared.registered),
            pools => pools,
        }
    }

    /// The pools, through connections that are made for the first call.
    async fn own_pools(&self) -> Result<&Registered> {
        if let Some(pools) = self.pools.get() {
            return Ok(pools);
        }
        let registered = &self.shared.registered;
        let backend = registered.backend();
        let connect = self.pools.get_or_try_init(|| registered.detached());
        // Those who wait for somebody else's attempt make another one each if it fails.
        in_time("connect", backend, backend.time_limit(), connect).await
    }

    /// Whether a claim has to ask although it knows that it was granted.
    pub(super) fn awaits_replicas(&self) -> bool {
        self.shared.registered.backend().awaits_replicas()
    }

    /// The channel of this process's tickets, opened for the first of them.
    pub(super) async fn channel(self: &Arc<Self>) -> Result<&Channel> {
        let open = async || {
            let mut inbox = self.own_pools().await?.backend().listen().await?;
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
        match notice {
            Notice::Granted { pool, member, fencing_number } => {
                self.renewals().call(pool, member, Some(fencing_number));
            }
            Notice::Gone { pool, member } => self.renewals().call(pool, member, None),
            Notice::Interrupted => {
                self.renewals().look_after_tickets();
                self.shared.renewals.reschedule();
            }
        }
    }

    fn renew_due(self: &Arc<Self>) {
        let batches = self.renewals().take_due();
        for (pool, ids) in batches {
            let desk = Arc::clone(self);
            self.tasks.spawn(async move { desk.renew(&pool, ids).await });
        }
    }

    /// Renews entries of one pool in one round trip.
    async fn renew(self: &Arc<Self>, pool: &PoolName, ids: Vec<Id>) {
        let sent = Instant::now();
        let (ids, held): (Vec<_>, Vec<_>) = {
            let renewals = self.renewals();
            let known = |id: Id| renewals.get(id).map(|(held, lease)| (id, (held.clone(), lease)));
            ids.into_iter().filter_map(known).unzip()
        };
        let wanted: Vec<_> = held
            .iter()
            .map(|(Held { execution, token, .. }, lease)| Renewal {
                execution,
                token,
                lease: *lease,
            })
            .collect();
        let answers = match self.pools().await {
            Ok(pools) => pools.backend().renew(pool, &wanted).await,
            Err(error) => Err(error),
        };
        let answers: Vec<_> = match answers {
            Ok(answers) => answers,
            Err(Error::UnknownNamespace { .. }) => ids.iter().map(|_| Ok(Renewed::Lost)).collect(),
            Err(error) => {
                tracing::warn!(%pool, count = ids.len(), %error, "not renewed; trying again");
                let mut renewals = self.renewals();
                ids.into_iter().for_each(|id| renewals.try_again(id));
                drop(renewals);
                return self.shared.renewals.reschedule();
            }
        };
        let mut gone = Vec::new();
        {
            let mut renewals = self.renewals();
            for ((id, (held, _)), answer) in ids.into_iter().zip(held).zip(answers) {
                match answer {
                    answer if renewals.is_gone(id, &answer) => {
                        gone.push(Gone { id, held, is_unrecorded: answer.is_err() });
                    }
                    Err(error) if error.is_retryable() && renewals.is_grant(id) => {
                        renewals.try_again(id);
                    }
                    answer => renewals.settle(id, sent, answer),
                }
            }
        }
        if !gone.is_empty() {
            self.look_into(pool, gone).await;
        }
        self.shared.renewals.reschedule();
    }

    /// Finds out why these grants are gone. What the server has forgotten, because it lost its data, is claimed again: its
    /// holders still use it.
    async fn look_into(self: &Arc<Self>, pool: &PoolName, gone: Vec<Gone>) {
        let usage = match self.pools().await {
            Ok(pools) => pools.backend().usage(pool).await,
            Err(error) => Err(error),
        };
        let has_forgotten = |held: &Held| match &usage {
            // Without a number it was granted without the server, which is there again.
            Ok(usage) => Ok(held.number.is_none_or(|number| usage.has_forgotten(number))),
            Err(Error::UnknownNamespace { .. }) => Ok(true),
            Err(_) => Err(()),
        };
        let is_lost = |Gone { held, is_unrecorded, .. }: &Gone| {
            !is_unrecorded && held.number.is_some() && has_forgotten(held) == Ok(true)
        };
        if gone.iter().any(is_lost)
            && let Ok(pools) = self.pools().await
            && let Err(error) = pools.restore(pool).await
        {
            tracing::warn!(%pool, %error, "not restored");
        }
        for Gone { id, held, is_unrecorded } in gone {
            // Given back on purpose just now, it is not lost.
            if self.shared.returns.include(&held) {
                self.renewals().remove(id);
                continue;
            }
            match if is_unrecorded { Ok(true) } else { has_forgotten(&held) } {
                Ok(true) => self.claim_again(id).await,
                Ok(false) => self.renewals().lose(id),
                Err(()) => self.renewals().try_again(id),
            }
        }
    }

    /// Claims what was granted under an entry, which goes on as that of the new grant.
    async fn claim_again(self: &Arc<Self>, id: Id) {
        let Some((held, claim, constraints)) = self.renewals().granted(id) else { return };
        let (sent, claims) = (Instant::now(), std::slice::from_ref(&claim));
        let claimant = self.claimant(&held.execution, constraints);
        let answer = match self.pools().await {
            Ok(pools) => pools.allocate(&held.pool, claimant, claims).await,
            Err(error) => Err(error),
        };
        let answer = answer.and_then(|mut answers| answers.pop().transpose());
        match answer {
            Ok(Some(Outcome::Granted(Grant { fencing_number: number, .. }))) => {
                if !self.renewals().granted_anew(id, sent, number) {
                    self.release_later(Held { number, ..held });
                }
            }
            Err(error) if error.is_retryable() => self.renewals().try_again(id),
            // Somebody else's pool, who may make it again in time.
            Err(Error::UnknownNamespace { .. }) => self.renewals().try_again(id),
            // Nobody new has it, but perhaps a holder that has given it back, and that was forgotten, too.
            Ok(Some(Outcome::Refused(_))) if self.is_learning(&held.pool).await => {
                self.renewals().try_again(id);
            }
            _ => self.renewals().lose(id),
        }
    }

    async fn is_learning(&self, pool: &PoolName) -> bool {
        match self.pools().await {
            Ok(pools) => {
                pools.backend().usage(pool).await.is_ok_and(|usage| usage.learning.is_some())
            }
            Err(_) => false,
        }
    }

    fn release_later(self: &Arc<Self>, held: Held) {
        self.give_back(self.shared.returns.begin(held));
    }

    fn give_back(self: &Arc<Self>, returning: Returning) {
        let desk = Arc::clone(self);
        self.tasks.spawn(async move {
            let held = returning.held();
            if let Err(error) = desk.release_once(held).await {
                let (pool, token, again) = (&held.pool, &held.token, error.is_retryable());
                tracing::warn!(%pool, %token, %error, again, "not released");
                if again {
                    desk.release_until_answered(&returning).await;
                }
            }
        });
    }

    async fn release_once(&self, held: &Held) -> Result<Released> {
        held.release(self.pools().await?).await
    }

    async fn release_until_answered(&self, returning: &Returning) {
        let back_off = ExponentialBuilder::new()
            .with_min_delay(Duration::from_millis(100))
            .with_max_delay(Duration::from_secs(10))
            .without_max_times()
            .with_jitter()
            .build();
        for delay in back_off {
            tokio::select! {
                () = sleep(delay) => {}
                () = returning.called_off() => return,
            }
            match self.release_once(returning.held()).await {
                Err(error) if error.is_retryable() => {}
                _ => return,
            }
        }
    }

    /// Releases, and goes on in the background if that gets no answer.
    async fn withdraw(self: &Arc<Self>, held: Held) {
        match self.release_once(&held).await {
            Err(error) if error.is_retryable() => self.release_later(held),
            _ => {}
        }
    }

    async fn acquire(
        self: &Arc<Self>,
        request: &Request,
        cancelled: &CancellationToken,
    ) -> Result<Acquired> {
        let mut place = Place::new(self, request);
        let end = match request.patience {
            Patience::None => place.try_once().await,
            Patience::Until(_) => place.wait(cancelled).await,
        };
        let stood = place.leave();
        match end {
            Ok(End::Granted(grant, term, terms)) => {
                self.allocation(request, grant, term, terms).map(Acquired::Granted)
            }
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
                match request.patience {
                    // Who does not want to wait has waited long enough.
                    Patience::None if error.is_retryable() => self.release_later(request.held()),
                    Patience::Until(_) if error.is_retryable() || stood => {
                        self.withdraw(request.held()).await;
                    }
                    _ => {}
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
        let (pools, asked) = (self.pools().await?, Instant::now());
        match pools.allocate_all(claimant, &claims).await {
            Ok(JointOutcome::Granted(grants)) => {
                let allocation = |(request, grant): (&Request, Grant)| {
                    let terms = request.terms();
                    self.allocation(request, grant, terms.term(asked), terms)
                };
                let all = requests.iter().zip(grants).map(allocation).collect::<Result<_>>()?;
                return Ok(AcquiredAll::Granted(all));
            }
            Ok(JointOutcome::Refused { .. }) => {}
            Err(error) => {
                if error.is_retryable() {
                    for request in requests {
                        self.release_later(request.held());
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
                    let reply = format!("refused although it waits: {refusal}");
                    return Err(Error::Protocol { operation: "acquire_all", reply });
                }
            }
        }
        allocations.sort_unstable_by_key(|(at, _)| *at);
        Ok(AcquiredAll::Granted(
            allocations.into_iter().map(|(_, allocation)| allocation).collect(),
        ))
    }

    pub(super) fn claimant<'a>(
        &'a self,
        execution: &'a ExecutionId,
        constraints: ResourceConstraintsSpec,
    ) -> Claimant<'a> {
        Claimant { execution, constraints, holder: &self.holder }
    }

    /// The guard of a grant; its lease is renewed from now on.
    fn allocation(
        self: &Arc<Self>,
        request: &Request,
        grant: Grant,
        term: Option<Term>,
        terms: Terms,
    ) -> Result<Allocation> {
        let held = Held { number: grant.fencing_number, ..request.held() };
        let Some(commands) = self.handle.upgrade() else {
            self.release_later(held);
            return Err(gone("acquire"));
        };
        let leased = terms.lease.zip(term);
        let kept =
            leased.filter(|_| self.shared.registered.backend().keeps_grants()).map(|leased| {
                let (lease, term) = leased;
                let (sender, fate) = watch::channel(Fate { lost: false, number: held.number });
                let (units, constraints) = (grant.units, terms.constraints);
                let grip = Grip { units, constraints, fate: sender };
                let entry = self.insert(Entry::grant(held.clone(), lease, term, grip));
                Kept { entry, fate }
            });
        let keeper = Keeper { commands, shared: self.shared.clone() };
        Ok(Allocation::new(keeper, held, grant, kept))
    }
}

/// Does work for a reply, and calls it off when nobody waits for that any more. What the claims have to wait for comes first.
async fn deliver<T, F>(
    claims: Vec<Returning>,
    mut reply: oneshot::Sender<Result<T>>,
    work: impl FnOnce(CancellationToken) -> F,
) where
    F: Future<Output = Result<T>>,
{
    for claim in &claims {
        claim.settled().await;
    }
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
