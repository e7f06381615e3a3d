//! The place of a waiting claim.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::desk::Desk;
use super::renewals::{Call, Entry, Id, Term};
use super::{Patience, Request, Terms, gone};
use crate::amount::Lease;
use crate::claim::{Claim, Joint};
use crate::error::Result;
use crate::outcome::{FencingNumber, Grant, Outcome, Refusal};
use crate::ticket::{Ticket, TicketRequest, Turn};

/// How long a ticket outlives its process, and so does what was handed to it.
const LASTS: Duration = Duration::from_secs(10);
/// How often tickets are renewed: a lost notice costs a waiter no more than this.
const RENEWED: Duration = Duration::from_secs(2);
/// But not more often than this, whatever ends in the pool.
const SOONEST: Duration = Duration::from_millis(50);
/// How soon the lease of what was handed over is renewed: not before the caller runs.
const TAKEN_OVER: Duration = Duration::from_millis(10);

/// The place of a waiting claim.
#[derive(Debug)]
pub(super) struct Place<'a> {
    desk: &'a Arc<Desk>,
    request: &'a Request,
    /// Its ticket, as soon as it has one.
    ticket: Option<Id>,
    call: Arc<Call>,
}

/// How waiting ends.
#[derive(Debug)]
pub(super) enum End {
    /// Granted under these terms, for this time if it has a lease.
    Granted(Grant, Option<Term>, Terms),
    Refused(Refusal),
    TimedOut(Ticket),
    Cancelled,
}

impl<'a> Place<'a> {
    pub(super) fn new(desk: &'a Arc<Desk>, request: &'a Request) -> Self {
        Self { desk, request, ticket: None, call: Arc::default() }
    }

    /// Waits until the claim is granted, its time is up, or it is called off.
    pub(super) async fn wait(&mut self, cancelled: &CancellationToken) -> Result<End> {
        // Connecting takes nothing from the time of a lease.
        self.desk.channel().await?;
        let mut last = None;
        loop {
            let (asked, terms) = (Instant::now(), self.request.terms());
            let mut is_answered = true;
            match self.ask(terms).await {
                Ok(Turn::Granted(grant)) => {
                    return Ok(End::Granted(grant, self.term(asked, terms), terms));
                }
                Ok(Turn::Waiting(ticket)) => {
                    self.stand(asked, &ticket)?;
                    last = Some(ticket);
                }
                // The ticket is renewed as long as it can last; but what was to be told with this call is not known.
                Err(error) if error.is_retryable() && self.stands() => is_answered = false,
                Err(error) => return Err(error),
            }
            tokio::select! {
                granted = self.call.next() => {
                    if let Some(end) = self.take_over(granted, last.as_ref(), terms) {
                        return Ok(end);
                    }
                }
                // Asking again gives them to the ticket.
                () = self.request.other_terms(terms), if is_answered => {}
                () = sleep(RENEWED), if !is_answered => {}
                () = cancelled.cancelled() => return Ok(End::Cancelled),
                ticket = self.time_is_up(last.clone()) => return Ok(End::TimedOut(ticket)),
            }
        }
    }

    /// The time of what was granted to a call sent at `asked`. A renewal of the ticket may have been on its way behind that,
    /// and then it is the ticket's.
    fn term(&self, asked: Instant, terms: Terms) -> Option<Term> {
        let term = terms.term(asked)?;
        match self.ticket {
            None => Some(term),
            Some(_) => Some(Term {
                ends: term.ends.min(asked + LASTS),
                due: term.due.min(Instant::now() + TAKEN_OVER),
            }),
        }
    }

    /// Takes over what was handed to the ticket without asking again: it is held for as long as the ticket lasts, and its
    /// lease is renewed soon. None where that is not sure, or where it is to be held without a lease.
    fn take_over(
        &self,
        granted: Option<FencingNumber>,
        last: Option<&Ticket>,
        terms: Terms,
    ) -> Option<End> {
        if self.desk.awaits_replicas() {
            return None;
        }
        let Claim { units, .. } = &self.request.joint.claim;
        let (number, _) = granted.zip(terms.lease)?;
        // A smaller number is of a grant before this ticket, and its notice is late.
        last.filter(|ticket| ticket.next_fencing_number <= number)?;
        let now = Instant::now();
        let ends = self.desk.renewals().ends(self.ticket?).filter(|&ends| now < ends)?;
        let term = Term { ends, due: now + TAKEN_OVER };
        Some(End::Granted(Grant::new(*units, Some(number), false), Some(term), terms))
    }

    /// Claims without waiting.
    pub(super) async fn try_once(&self) -> Result<End> {
        let Request { execution, joint, .. } = self.request;
        let Joint { pool, claim, .. } = joint;
        let (pools, asked, terms) =
            (self.desk.pools().await?, Instant::now(), self.request.terms());
        let claimant = self.desk.claimant(execution, terms.constraints);
        let claims = std::slice::from_ref(claim);
        let answers = pools.allocate(pool, claimant, claims).await?;
        match answers.into_iter().next() {
            Some(Ok(Outcome::Granted(grant))) => Ok(End::Granted(grant, terms.term(asked), terms)),
            Some(Ok(Outcome::Refused(refusal))) => Ok(End::Refused(refusal)),
            Some(Err(error)) => Err(error),
            None => Err(gone("allocate")),
        }
    }

    async fn ask(&self, Terms { constraints, lease, priority }: Terms) -> Result<Turn> {
        let Request { execution, joint, .. } = self.request;
        let Joint { pool, claim, .. } = joint;
        let claim = Claim { lease, ..claim.clone() };
        let desk = self.desk;
        let ticket = TicketRequest::new(lasts()?)
            .with_priority(priority)
            .with_channel(desk.channel().await?.clone());
        let claimant = desk.claimant(execution, constraints);
        desk.pools().await?.wait(pool, claimant, &claim, &ticket).await
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
        let ends = ticket.retry_after.map_or(RENEWED, |wait| wait + Duration::from_millis(1));
        let interval = ends.clamp(SOONEST, RENEWED);
        if let Some(id) = self.ticket
            && self.desk.renewed(id, asked, interval)
        {
            return Ok(());
        }
        let (held, lease) = (self.request.held(), lasts()?);
        let term = Term::new(asked, lease, interval);
        let entry = Entry::ticket(held, lease, RENEWED, term, Arc::clone(&self.call));
        self.ticket = Some(self.desk.insert(entry));
        Ok(())
    }

    fn stands(&self) -> bool {
        self.ticket.is_some_and(|id| self.desk.renewals().contains(id))
    }

    /// Has the ticket renewed no longer; tells whether there was one.
    pub(super) fn leave(self) -> bool {
        if let Some(id) = self.ticket {
            self.desk.renewals().remove(id);
        }
        self.ticket.is_some()
    }
}

fn lasts() -> Result<Lease> {
    Lease::named("ticket", LASTS)
}
