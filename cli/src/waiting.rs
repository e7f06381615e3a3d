//! Deciding a claim that may wait, on behalf of somebody whom this program need not outlive.
//!
//! The library's keeper gives back what its process held. Here it is the other way round: a ticket
//! ends with the program, and what was granted stays.

use std::io::{self, IsTerminal};
use std::pin::Pin;
use std::time::Duration;

use tokenpool::{
    Backend, Claim, Claimant, Grant, Inbox, Lease, Outcome, PoolName, Refusal, Ticket,
    TicketRequest, Turn, Wait,
};
use tokio::time::{Instant, sleep, sleep_until};

use crate::claims::only;
use crate::error::{Error, Result};
use crate::output::tell;

/// How long a ticket outlives this program, should that be killed.
const TICKET: Duration = Duration::from_secs(10);
/// How often a ticket is asked for again: a lost notice costs no more than this.
const ASKED_AGAIN: Duration = Duration::from_secs(2);
/// The same while there was no answer.
const TRIED_AGAIN: Duration = Duration::from_millis(500);
/// Shortest time between two questions.
const PAUSE: Duration = Duration::from_millis(50);

/// What came of a claim.
#[derive(Debug)]
pub(crate) enum Decision {
    Granted(Grant),
    /// It was not to wait.
    Refused(Refusal),
    /// Time was up, and the ticket is withdrawn. It stood here at last.
    TimedOut(Ticket),
}

/// A claim and where it is decided.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asking<'a> {
    pub(crate) backend: &'a dyn Backend,
    pub(crate) pool: &'a PoolName,
    pub(crate) claimant: Claimant<'a>,
    pub(crate) claim: &'a Claim,
}

impl Asking<'_> {
    /// Decides the claim, and waits for its turn where it is to. `stop` ends with the number of the
    /// signal that calls it off.
    pub(crate) async fn decide(
        &self,
        wait: Option<Wait>,
        stop: impl Future<Output = u8>,
    ) -> Result<Decision> {
        match wait {
            None => self.once().await,
            Some(wait) => self.wait(wait, std::pin::pin!(stop)).await,
        }
    }

    async fn once(&self) -> Result<Decision> {
        let claims = std::slice::from_ref(self.claim);
        let outcomes = self.backend.allocate(self.pool, self.claimant, claims).await?;
        Ok(match only("allocate", outcomes)?? {
            Outcome::Granted(grant) => Decision::Granted(grant),
            Outcome::Refused(refusal) => Decision::Refused(refusal),
        })
    }

    async fn wait(&self, wait: Wait, stop: Pin<&mut impl Future<Output = u8>>) -> Result<Decision> {
        let mut inbox = self.backend.listen().await?;
        let request = TicketRequest::new(Lease::new(TICKET)?)
            .with_priority(wait.priority())
            .with_channel(inbox.channel.clone());
        match self.stand(&request, &mut inbox, wait.deadline().map(Into::into), stop).await {
            Ok(End::Granted(grant)) => Ok(Decision::Granted(grant)),
            Ok(End::TimedOut(ticket)) => {
                self.give_up().await?;
                Ok(Decision::TimedOut(ticket))
            }
            Ok(End::Stopped(signal)) => {
                self.give_up().await?;
                Err(Error::WaitInterrupted { signal })
            }
            Ok(End::Failed(error)) => {
                // It had a ticket, which else ends by itself.
                let _ = self.give_up().await;
                Err(error)
            }
            // Without an answer it may have been held before: then it stays so.
            Err(error) => Err(error),
        }
    }

    async fn stand(
        &self,
        request: &TicketRequest,
        inbox: &mut Inbox,
        deadline: Option<Instant>,
        mut stop: Pin<&mut impl Future<Output = u8>>,
    ) -> Result<End> {
        let mut standing: Option<Standing> = None;
        loop {
            let asked = Instant::now();
            let turn = self.backend.wait(self.pool, self.claimant, self.claim, request).await;
            let pause = match (turn, &standing) {
                (Ok(Turn::Granted(mut grant)), _) => {
                    // What was handed to its ticket is new to the caller.
                    grant.held_before &= standing.is_none();
                    return Ok(End::Granted(grant));
                }
                (Ok(Turn::Waiting(ticket)), _) => {
                    if standing.is_none() {
                        self.tell(&ticket);
                    }
                    let pause = pause(&ticket);
                    standing = Some(Standing { ticket, asked });
                    pause
                }
                // The ticket lasts a while.
                (Err(error), Some(last))
                    if error.is_retryable() && last.asked.elapsed() < TICKET =>
                {
                    tracing::warn!(%error, "no answer; trying again");
                    TRIED_AGAIN
                }
                (Err(error), Some(_)) => return Ok(End::Failed(error.into())),
                (Err(error), None) => return Err(error.into()),
            };
            tokio::select! {
                signal = &mut stop => return Ok(End::Stopped(signal)),
                ticket = time_is_up(deadline, &standing) => return Ok(End::TimedOut(ticket)),
                Some(_) = inbox.notices.recv() => {}
                () = sleep(pause) => {}
            }
        }
    }

    /// Gives back what the token holds, or withdraws its ticket.
    pub(crate) async fn give_up(&self) -> Result<()> {
        let tokens = std::slice::from_ref(&self.claim.token);
        self.backend.release(self.pool, self.claimant.execution, tokens).await?;
        Ok(())
    }

    fn tell(&self, ticket: &Ticket) {
        let Self { pool, claim, .. } = self;
        if io::stderr().is_terminal() {
            tell(format_args!("waiting for {} unit(s) of {pool}: {ticket}\n", claim.units));
        } else {
            tracing::info!(%pool, units = %claim.units, %ticket, "waiting");
        }
    }
}

/// How waiting ends.
enum End {
    Granted(Grant),
    TimedOut(Ticket),
    Stopped(u8),
    /// After it had a ticket.
    Failed(Error),
}

/// A ticket as it was told last, and when that was asked.
struct Standing {
    ticket: Ticket,
    asked: Instant,
}

/// Until when nothing new is to be learnt without a notice.
fn pause(ticket: &Ticket) -> Duration {
    let ends = ticket.retry_after.map(|wait| (wait + Duration::from_millis(1)).max(PAUSE));
    ends.map_or(ASKED_AGAIN, |ends| ends.min(ASKED_AGAIN))
}

async fn time_is_up(deadline: Option<Instant>, standing: &Option<Standing>) -> Ticket {
    match (deadline, standing) {
        (Some(deadline), Some(standing)) => {
            sleep_until(deadline).await;
            standing.ticket.clone()
        }
        _ => std::future::pending().await,
    }
}
