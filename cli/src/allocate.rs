//! `allocate`.

use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;
use tokenpool::{Backend, Claimant, Grant, Holder, Member, Outcome, PoolName, Refusal, Ticket};

use crate::args::{Allocate, Global};
use crate::claims::{LimitAnswer, claim, constraints, execution, wait};
use crate::connect;
use crate::error::{Error, Result, Verdict};
use crate::format::{left, millis, or_dash};
use crate::output::{Answer, Output};
use crate::pages::HolderPages;
use crate::stop::Stop;
use crate::waiting::{Asking, Decision};

/// JSON of `allocate`.
#[derive(Debug, Serialize)]
struct AllocateAnswer<'a> {
    /// The pool.
    namespace: &'a str,
    /// The claim's member in the pool.
    member: &'a str,
    /// Units claimed.
    units: u64,
    /// Flyte's name for the answer: Granted, Exhausted or NamespaceQuotaExceeded.
    status: String,
    /// Flyte's number for the answer: 1, 2 or 3.
    status_number: u8,
    /// The grant's number, or null if refused.
    fencing_number: Option<u64>,
    /// Whether the token was held before, or null if refused.
    held_before: Option<bool>,
    /// The grant's lease in milliseconds, or null: refused, or held until released.
    lease_ms: Option<u64>,
    /// What stopped the claim, or null if granted.
    limit: Option<LimitAnswer>,
    /// Where the claim stood in the queue when its time to wait was up, or would stand if it waited;
    /// null if granted.
    position: Option<u64>,
    /// When something in the pool ends by itself, in milliseconds; null if granted or unknown.
    retry_after_ms: Option<u64>,
    #[serde(skip)]
    text: String,
}

impl Answer for AllocateAnswer<'_> {
    fn text(&self) -> String {
        self.text.clone()
    }
}

pub(crate) async fn run(global: &Global, args: &Allocate, output: &mut Output) -> Result<Verdict> {
    let pool = PoolName::new(&*args.pool.namespace)?;
    let execution = execution(&args.identity)?;
    let claim = claim(&args.token, args.units, args.lease)?;
    let constraints = constraints(args.caps)?;
    let wait = wait(args.waiting)?;
    let backend = connect::redis(global)?.open().await?;
    let stop = wait.map(|_| Stop::listen()).transpose().map_err(Error::Signals)?;

    let holder = Holder::of_this_process();
    let claimant = Claimant { execution: &execution, constraints, holder: &holder };
    let asking = Asking { backend: &*backend, pool: &pool, claimant, claim: &claim };
    let stopped = async {
        match &stop {
            Some(stop) => stop.wait().await,
            None => std::future::pending().await,
        }
    };
    let decision = asking.decide(wait, stopped).await?;

    let member = Member::new(&execution, &claim.token);
    let (answer, verdict) = match decision {
        Decision::Granted(grant) => (granted(asking, &member, grant), Verdict::Done),
        Decision::Refused(refusal) => {
            let place = Place::outside(&*backend, &pool).await;
            (refused(asking, &member, refusal, place), Verdict::Refused)
        }
        Decision::TimedOut(Ticket { position, blocked_by, .. }) => {
            // The ticket's own moment may have been its own end, and it is gone.
            let place = Place::outside(&*backend, &pool).await;
            let place = Place { position: Some(position), waited: true, ..place };
            (refused(asking, &member, blocked_by, place), Verdict::Refused)
        }
    };
    output.answer(&answer)?;
    Ok(verdict)
}

fn granted<'a>(asking: Asking<'a>, member: &'a Member, grant: Grant) -> AllocateAnswer<'a> {
    let Asking { pool, claim, .. } = asking;
    let status = Outcome::Granted(grant).status();
    let number = u8::from(status);
    let mut text = format!(
        "{status} ({number}): {} unit(s) of {pool} to {member}, fencing number {}",
        grant.units,
        or_dash(grant.fencing_number)
    );
    if let Some(lease) = claim.lease {
        // Writing to a string cannot fail.
        let _ = write!(text, ", for {lease}");
    }
    if grant.held_before {
        text += "; it was held before";
    }
    AllocateAnswer {
        namespace: pool.as_str(),
        member: member.as_str(),
        units: claim.units.get(),
        status: status.to_string(),
        status_number: number,
        fencing_number: grant.fencing_number.map(|number| number.get()),
        held_before: Some(grant.held_before),
        lease_ms: claim.lease.map(|lease| millis(lease.length())),
        limit: None,
        position: None,
        retry_after_ms: None,
        text,
    }
}

fn refused<'a>(
    asking: Asking<'a>,
    member: &'a Member,
    refusal: Refusal,
    place: Place,
) -> AllocateAnswer<'a> {
    let Asking { pool, claim, .. } = asking;
    let status = Outcome::Refused(refusal.clone()).status();
    let number = u8::from(status);
    AllocateAnswer {
        namespace: pool.as_str(),
        member: member.as_str(),
        units: claim.units.get(),
        status: status.to_string(),
        status_number: number,
        fencing_number: None,
        held_before: None,
        lease_ms: None,
        position: place.position,
        retry_after_ms: place.retry_after.map(millis),
        text: format!("{status} ({number}): {refusal}, {} wanted; {}", claim.units, place.text()),
        limit: Some(refusal.into()),
    }
}

/// Where a claim that was not granted stands, and when it may be tried again.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// None if the pool could not be looked at any more.
    position: Option<u64>,
    retry_after: Option<Duration>,
    waited: bool,
}

impl Place {
    /// Of a claim without a ticket: behind all that have one. The claim is refused whether or not this can be told.
    async fn outside(backend: &dyn Backend, pool: &PoolName) -> Self {
        let usage = backend.usage(pool).await.ok();
        let mut soonest = usage.as_ref().and_then(|usage| usage.learning);
        let tickets = usage.map(|usage| usage.tickets);
        let mut pages = HolderPages::new(backend, pool);
        while let Ok(Some(page)) = pages.next().await {
            let leases = page.iter().filter_map(|holding| holding.lease_left);
            soonest = leases.chain(soonest).min();
        }
        Self { position: tickets.map(|tickets| tickets + 1), retry_after: soonest, waited: false }
    }

    fn text(&self) -> String {
        let position = match (self.waited, self.position) {
            (true, Some(position)) => format!("time is up at position {position}"),
            (true, None) => "time is up".to_owned(),
            (false, None) => "how many wait is unknown".to_owned(),
            (false, Some(1)) => "nobody waits".to_owned(),
            (false, Some(position)) => format!("{} wait(s) before it", position - 1),
        };
        match self.retry_after {
            Some(time) => format!("{position}; something ends by itself in {}", left(time)),
            None => format!("{position}; nothing ends by itself"),
        }
    }
}
