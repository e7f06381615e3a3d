//! What a process does beside its callers: it renews what they hold, waits in their place, and gives back what they drop.
//!
//! One keeper serves a manager, on a thread and a connection of its own: callers that keep their runtime busy cannot starve
//! it, and what is dropped outside of a runtime is released all the same.

mod desk;
mod place;
mod renewals;
mod returns;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout};

use self::desk::Desk;
pub(crate) use self::renewals::{Fate, Id};
use self::renewals::{Grip, SharedRenewals, Term, third};
use self::returns::{Returning, Returns};
use crate::acquire::{Acquired, AcquiredAll};
use crate::amount::{Lease, ResourceConstraintsSpec, Units};
use crate::backend::Backend;
use crate::claim::Joint;
use crate::error::{Error, Result};
use crate::execution::ExecutionId;
use crate::name::{AllocationToken, Holder, Member, PoolName};
use crate::outcome::{FencingNumber, Released};
use crate::registered::Registered;
use crate::ticket::Priority;

const THIS_PROCESS: &str = "a thread of this process";
/// How much later than the backend's own time limit an answer of the keeper's thread may come.
const LATE: Duration = Duration::from_millis(100);

/// Handle of a keeper, which ends when all handles are gone.
#[derive(Clone, Debug)]
pub(crate) struct Keeper {
    commands: mpsc::UnboundedSender<Command>,
    shared: Shared,
}

/// What handles and their keeper share.
#[derive(Clone, Debug)]
struct Shared {
    renewals: SharedRenewals,
    returns: Returns,
    registered: Registered,
}

/// A claim that waits, and for how long.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) execution: ExecutionId,
    pub(crate) joint: Joint,
    pub(crate) priority: Priority,
    /// Terms instead of the claim's own, if they may change while it waits.
    pub(crate) changing: Option<watch::Receiver<Terms>>,
    pub(crate) patience: Patience,
}

/// Under what a claim waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) constraints: ResourceConstraintsSpec,
    pub(crate) lease: Option<Lease>,
    pub(crate) priority: Priority,
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
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) pool: PoolName,
    pub(crate) execution: ExecutionId,
    pub(crate) token: AllocationToken,
    /// Number of the grant that is meant; none is whatever the token holds, or its ticket.
    pub(crate) number: Option<FencingNumber>,
}

#[derive(Debug)]
enum Command {
    Acquire(Box<Request>, Vec<Returning>, oneshot::Sender<Result<Acquired>>),
    AcquireAll(Vec<Request>, Vec<Returning>, oneshot::Sender<Result<AcquiredAll>>),
    Release(Returning),
}

impl Keeper {
    /// Starts a keeper over connections of its own.
    pub(crate) fn start(registered: Registered, holder: Holder) -> Result<Self> {
        let (commands, inbox) = mpsc::unbounded_channel();
        let (renewals, returns) = (SharedRenewals::default(), Returns::default());
        let keeper = Self { commands, shared: Shared { renewals, returns, registered } };
        Desk::open(&keeper, holder, inbox).map_err(|source| Error::Unavailable {
            operation: "keeper",
            server: THIS_PROCESS.to_owned(),
            source: Box::new(source),
        })?;
        Ok(keeper)
    }

    pub(crate) async fn acquire(&self, request: Request) -> Result<Acquired> {
        let (reply, answer) = oneshot::channel();
        let (_waiting, claim) = self.shared.returns.claim(vec![request.held()]);
        let patience = request.patience;
        self.send(Command::Acquire(Box::new(request), claim, reply));
        self.answer("acquire", patience, answer).await
    }

    pub(crate) async fn acquire_all(&self, requests: Vec<Request>) -> Result<AcquiredAll> {
        let (reply, answer) = oneshot::channel();
        let (_waiting, claims) =
            self.shared.returns.claim(requests.iter().map(Request::held).collect());
        let patience = requests.first().map_or(Patience::None, |request| request.patience);
        self.send(Command::AcquireAll(requests, claims, reply));
        self.answer("acquire_all", patience, answer).await
    }

    /// What the keeper's thread answers in time, whatever comes before the claim there: returns of its token, a connection. After
    /// a wait that is once for an outstanding answer, and once for withdrawing the ticket.
    async fn answer<T>(
        &self,
        operation: &'static str,
        patience: Patience,
        answer: oneshot::Receiver<Result<T>>,
    ) -> Result<T> {
        let backend = self.shared.registered.backend();
        let limit = backend.time_limit().and_then(|limit| match patience {
            Patience::None => Some(limit + LATE),
            Patience::Until(None) => None,
            Patience::Until(Some(end)) => {
                Some(end.saturating_duration_since(Instant::now()) + 2 * limit + LATE)
            }
        });
        let answer = async { answer.await.unwrap_or_else(|_| Err(gone(operation))) };
        in_time(operation, backend, limit, answer).await
    }

    /// Renews the lease of a grant, given by a call sent at `asked`, until it is forgotten, released or lost.
    pub(crate) fn keep(
        &self,
        held: Held,
        lease: Lease,
        asked: Instant,
        (units, constraints): (Units, ResourceConstraintsSpec),
    ) {
        let fate = watch::Sender::new(Fate { lost: false, number: held.number });
        self.shared.renewals.lock().keep(held, lease, asked, Grip { units, constraints, fate });
        self.shared.renewals.reschedule();
    }

    /// Renews these no longer.
    pub(crate) fn forget(&self, held: impl Iterator<Item = Held>) {
        held.for_each(|held| self.forget_one(&held, None));
    }

    /// Renews this no longer; the guard of the entry `own` knows it.
    fn forget_one(&self, held: &Held, own: Option<Id>) {
        let unknown = self.shared.renewals.lock().remove_grants(held, own);
        if let Some(held) = unknown {
            self.send(Command::Release(self.shared.returns.begin(held)));
        }
    }

    /// Gives back what a guard holds; without an answer it is tried again in the background.
    ///
    /// Asks from here and not from the keeper's thread, so that whoever waits for the units has them sooner.
    pub(crate) async fn release(&self, held: Held, own: Option<Id>) -> Result<Released> {
        let returning = Some(self.shared.returns.begin(held.clone()));
        let mut unanswered = Unanswered { keeper: self, returning, own };
        let release = held.release(&self.shared.registered);
        // While the server decides, since whoever waits for the units comes first.
        let forget = async {
            tokio::task::yield_now().await;
            self.forget_one(&held, own);
        };
        let (released, ()) = tokio::join!(biased; release, forget);
        if !matches!(&released, Err(error) if error.is_retryable()) {
            unanswered.returning = None;
        }
        released
    }

    /// Gives back what a guard holds in the background, trying again until the server answers.
    pub(crate) fn release_later(&self, held: Held, own: Option<Id>) {
        self.give_back(self.shared.returns.begin(held), own);
    }

    fn give_back(&self, returning: Returning, own: Option<Id>) {
        self.forget_one(returning.held(), own);
        self.send(Command::Release(returning));
    }

    /// Makes a claim as soon as nothing that was asked for before can give its tokens back any more. Both together take no
    /// longer than a claim alone may.
    pub(crate) async fn after_returns<T>(
        &self,
        operation: &'static str,
        tokens: impl Iterator<Item = Held>,
        claim: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let returned = self.shared.returns.of(tokens);
        if returned.is_empty() {
            return claim.await;
        }
        let settled = async {
            self.shared.returns.settled(&returned).await;
            claim.await
        };
        let backend = self.shared.registered.backend();
        Box::pin(in_time(operation, backend, backend.time_limit(), settled)).await
    }

    fn send(&self, command: Command) {
        // The keeper listens as long as there are handles.
        let _ = self.commands.send(command);
    }
}

/// A release that the keeper goes on with if this is dropped before it is answered.
struct Unanswered<'a> {
    keeper: &'a Keeper,
    returning: Option<Returning>,
    own: Option<Id>,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if let Some(returning) = self.returning.take() {
            self.keeper.give_back(returning, self.own);
        }
    }
}

/// An answer within this time, if there is one.
async fn in_time<T>(
    operation: &'static str,
    backend: &Arc<dyn Backend>,
    limit: Option<Duration>,
    answer: impl Future<Output = Result<T>>,
) -> Result<T> {
    let Some(limit) = limit else { return answer.await };
    timeout(limit, answer).await.unwrap_or_else(|_| {
        Err(Error::Unavailable {
            operation,
            server: backend.id().to_owned(),
            source: format!("not answered within {limit:?}").into(),
        })
    })
}

fn gone(operation: &'static str) -> Error {
    Error::Unavailable {
        operation,
        server: THIS_PROCESS.to_owned(),
        source: "the keeper ended".into(),
    }
}

impl Held {
    async fn release(&self, pools: &Registered) -> Result<Released> {
        let Self { pool, execution, token, number } = self;
        match number {
            Some(number) => pools.release_grant(pool, execution, token, *number).await,
            None => {
                let tokens = std::slice::from_ref(token);
                let released = pools.release(pool, execution, tokens).await?;
                Ok(released.first().copied().unwrap_or(Released::NotHeld))
            }
        }
    }

    /// Whether the grant of a token is the one that is meant, as far as both are known.
    fn is_meant_by(&self, meant: &Self) -> bool {
        self.number.zip(meant.number).is_none_or(|(own, meant)| own == meant)
    }

    fn key(&self) -> (PoolName, Member) {
        (self.pool.clone(), Member::new(&self.execution, &self.token))
    }
}

impl Terms {
    /// The time of the lease, granted by a call sent at `asked`.
    fn term(self, asked: Instant) -> Option<Term> {
        self.lease.map(|lease| Term::new(asked, lease, third(lease)))
    }
}

impl Request {
    /// The terms now: read once for what is asked for, since they may be others when it is answered.
    fn terms(&self) -> Terms {
        match &self.changing {
            Some(terms) => *terms.borrow(),
            None => Terms {
                constraints: self.joint.constraints,
                lease: self.joint.claim.lease,
                priority: self.priority,
            },
        }
    }

    /// Waits until the terms are others than these.
    async fn other_terms(&self, than: Terms) {
        if let Some(mut terms) = self.changing.clone()
            && terms.wait_for(|terms| *terms != than).await.is_ok()
        {
            return;
        }
        // Nobody changes them, or not any more.
        std::future::pending().await
    }

    fn held(&self) -> Held {
        Held {
            pool: self.joint.pool.clone(),
            execution: self.execution.clone(),
            token: self.joint.claim.token.clone(),
            number: None,
        }
    }
}
