//! What a process grants by itself while Redis cannot be reached, if that is configured: a backend around another.
//!
//! It is an overshoot that somebody chose: so many units of a pool for each process, on top of what Redis granted. So it is
//! given only where Redis left a claim without an answer, for pools that it answered about before and that are no locks; it
//! has no fencing number; and it is counted here until it is released, its lease is over, or Redis grants the same token.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::amount::{Lease, ResourceConstraintsSpec, Units};
use crate::backend::Backend;
use crate::claim::{Claim, Claimant, Joint};
use crate::counters::Counters;
use crate::error::{Error, Result};
use crate::execution::ExecutionId;
use crate::lock::is_lock;
use crate::name::{AllocationToken, Member, PoolName};
use crate::outcome::{FencingNumber, Grant, JointOutcome, Outcome, Released};
use crate::pool::{
    CheckReport, Cursor, Deletion, HoldingsPage, PoolQuota, PoolUsage, QuotaChange, RepairReport,
    Revocation, RevocationRecord,
};
use crate::ticket::{Inbox, QueueChange, Renewal, Renewed, TicketRequest, TicketsPage, Turn};

/// A backend that may be unavailable, and an allowance for that case.
#[derive(Debug)]
pub(crate) struct WithAllowance {
    backend: Arc<dyn Backend>,
    /// Shared with the same pools through other connections.
    ledger: Arc<Ledger>,
}

#[derive(Debug)]
struct Ledger {
    /// Units of each pool.
    units: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The pools that the backend has answered about.
    pools: HashMap<PoolName, Local>,
    granted: u64,
}

/// What is granted here of one pool.
#[derive(Debug, Default)]
struct Local {
    quota: Option<u64>,
    held: HashMap<Member, Held>,
    /// Claims granted here since the backend answered last.
    granted: u64,
}

#[derive(Debug)]
struct Held {
    units: Units,
    execution: ExecutionId,
    /// When its lease is over, by the clock of this process: there is no other.
    ends: Option<Instant>,
}

impl WithAllowance {
    /// A backend with so many units of each pool for claims that it leaves without an answer.
    pub(crate) fn new(backend: Arc<dyn Backend>, units: u32) -> Self {
        tracing::warn!(
            units,
            "while Redis cannot be reached, claims are granted from a local allowance of each pool, beyond its quota"
        );
        let ledger = Ledger { units: units.into(), state: Mutex::default() };
        Self { backend, ledger: Arc::new(ledger) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.ledger.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that the backend answered about a pool.
    fn answered<T>(&self, pool: &PoolName, answer: Result<T>) -> Result<T> {
        if answer.is_ok() {
            self.state().answered(pool);
        }
        answer
    }
}

impl State {
    fn answered(&mut self, pool: &PoolName) -> &mut Local {
        let local = self.pools.entry(pool.clone()).or_default();
        if local.granted > 0 {
            let (granted, held) = (std::mem::take(&mut local.granted), local.in_use());
            tracing::warn!(%pool, granted, held, "answered again; so many claims were granted from the local allowance");
        }
        local
    }

    /// Grants a claim that the backend left without an answer, if the allowance is enough; else that is still the answer.
    fn grant(
        &mut self,
        allowance: u64,
        pool: &PoolName,
        claimant: Claimant<'_>,
        claim: &Claim,
        reason: &Error,
    ) -> Result<Grant> {
        let unanswered = || Err(same(reason));
        // What it never answered about may not exist, and a lock that two have is none.
        let Some(local) = self.pools.get_mut(pool).filter(|_| !is_lock(pool)) else {
            return unanswered();
        };
        let member = Member::new(claimant.execution, &claim.token);
        if let Some(grant) = local.again(&member, claimant.execution, claim)? {
            return Ok(grant);
        }
        let allowed = local.quota.map_or(allowance, |quota| allowance.min(quota));
        let units = claim.units.get();
        if local.in_use() + units > allowed
            || !local.fits(claimant.execution, claimant.constraints, units)
        {
            return unanswered();
        }
        if local.granted == 0 {
            tracing::warn!(%pool, allowed, error = %reason, "claims are granted from the local allowance");
        }
        local.granted += 1;
        self.granted += 1;
        let execution = claimant.execution.clone();
        let held = Held { units: claim.units, execution, ends: ends(claim.lease) };
        local.held.insert(member, held);
        Ok(Grant::new(claim.units, None, false))
    }

    /// As if it had not been granted here just now.
    fn undo(&mut self, pool: &PoolName, member: &Member) {
        if let Some(local) = self.pools.get_mut(pool)
            && local.held.remove(member).is_some()
        {
            local.granted -= 1;
            self.granted -= 1;
        }
    }

    fn remove(&mut self, pool: &PoolName, member: &Member) -> Option<Held> {
        self.pools.get_mut(pool)?.held.remove(member)
    }
}

impl Local {
    /// Forgets what is over.
    fn settle(&mut self) {
        let now = Instant::now();
        self.held.retain(|_, held| held.ends.is_none_or(|ends| now < ends));
    }

    fn in_use(&self) -> u64 {
        self.held.values().map(|held| held.units.get()).sum()
    }

    /// The grant of a token that is held here; its lease is the claim's from now on.
    fn again(
        &mut self,
        member: &Member,
        execution: &ExecutionId,
        claim: &Claim,
    ) -> Result<Option<Grant>> {
        self.settle();
        let Some(held) = self.held.get_mut(member) else { return Ok(None) };
        if held.units != claim.units || held.execution.name() != execution.name() {
            return Err(Error::Conflict {
                member: member.clone(),
                held_units: held.units.get(),
                held_by: held.execution.name().to_owned(),
            });
        }
        held.ends = ends(claim.lease);
        Ok(Some(Grant::new(held.units, None, true)))
    }

    /// Whether the caps allow it, as far as is known here.
    fn fits(&self, execution: &ExecutionId, caps: ResourceConstraintsSpec, units: u64) -> bool {
        let in_project = |held: &&Held| held.execution.project() == execution.project();
        let in_domain = |held: &&Held| held.execution.domain() == execution.domain();
        let project = self.held.values().filter(in_project);
        let in_use = |held: &Held| held.units.get();
        let domain: u64 = project.clone().filter(in_domain).map(in_use).sum();
        let project: u64 = project.map(in_use).sum();
        [
            (caps.project_scope_resource_constraint, project),
            (caps.namespace_scope_resource_constraint, domain),
        ]
        .into_iter()
        .all(|(cap, in_use)| cap.is_none_or(|cap| in_use + units <= cap.value()))
    }
}

fn ends(lease: Option<Lease>) -> Option<Instant> {
    lease.map(|lease| Instant::now() + lease.length())
}

/// The same error once more: one answer is asked of each claim.
fn same(error: &Error) -> Error {
    match error {
        Error::Unavailable { operation, server, source } => Error::Unavailable {
            operation,
            server: server.clone(),
            source: source.to_string().into(),
        },
        error => Error::Protocol { operation: "allocate", reply: error.to_string() },
    }
}

#[async_trait]
impl Backend for WithAllowance {
    fn id(&self) -> &'static str {
        self.backend.id()
    }

    fn keeps_grants(&self) -> bool {
        self.backend.keeps_grants()
    }

    fn awaits_replicas(&self) -> bool {
        self.backend.awaits_replicas()
    }

    fn time_limit(&self) -> Option<Duration> {
        self.backend.time_limit()
    }

    fn counters(&self) -> Counters {
        let mut state = self.state();
        let in_use = |local: &mut Local| {
            local.settle();
            local.in_use()
        };
        Counters {
            held_locally: state.pools.values_mut().map(in_use).sum(),
            granted_locally: state.granted,
            ..self.backend.counters()
        }
    }

    async fn allocate(
        &self,
        pool: &PoolName,
        claimant: Claimant<'_>,
        claims: &[Claim],
    ) -> Result<Vec<Result<Outcome>>> {
        let answer = self.backend.allocate(pool, claimant, claims).await;
        let mut state = self.state();
        match answer {
            Ok(mut outcomes) => {
                let local = state.answered(pool);
                if local.held.is_empty() {
                    return Ok(outcomes);
                }
                for (claim, outcome) in claims.iter().zip(&mut outcomes) {
                    let member = Member::new(claimant.execution, &claim.token);
                    match outcome {
                        Ok(Outcome::Granted(_)) => drop(local.held.remove(&member)),
                        Ok(Outcome::Refused(_)) => {
                            let again = local.again(&member, claimant.execution, claim);
                            if let Some(again) = again.transpose() {
                                *outcome = again.map(Outcome::Granted);
                            }
                        }
                        Err(_) => {}
                    }
                }
                Ok(outcomes)
            }
            Err(error @ Error::Unavailable { .. }) => {
                let grant = |claim| state.grant(self.ledger.units, pool, claimant, claim, &error);
                let grants: Vec<_> = claims.iter().map(grant).collect();
                match grants.iter().all(|it| matches!(it, Err(Error::Unavailable { .. }))) {
                    true => Err(error),
                    false => Ok(grants.into_iter().map(|it| it.map(Outcome::Granted)).collect()),
                }
            }
            Err(error) => Err(error),
        }
    }

    async fn wait(
        &self,
        pool: &PoolName,
        claimant: Claimant<'_>,
        claim: &Claim,
        ticket: &TicketRequest,
    ) -> Result<Turn> {
        let turn = self.answered(pool, self.backend.wait(pool, claimant, claim, ticket).await)?;
        if let Turn::Granted(_) = turn {
            self.state().remove(pool, &Member::new(claimant.execution, &claim.token));
        }
        Ok(turn)
    }

    async fn allocate_all(&self, claimant: Claimant<'_>, claims: &[Joint]) -> Result<JointOutcome> {
        let outcome = self.backend.allocate_all(claimant, claims).await;
        let mut state = self.state();
        let of = |joint: &Joint| Claimant { constraints: joint.constraints, ..claimant };
        let member = |joint: &Joint| Member::new(claimant.execution, &joint.claim.token);
        match outcome {
            Ok(JointOutcome::Granted(grants)) => {
                for joint in claims {
                    state.answered(&joint.pool).held.remove(&member(joint));
                }
                Ok(JointOutcome::Granted(grants))
            }
            Ok(refused) => {
                let again = |joint: &Joint| {
                    let local = state.answered(&joint.pool);
                    local.again(&member(joint), claimant.execution, &joint.claim)
                };
                let held: Option<Vec<_>> = claims.iter().map(again).collect::<Result<_>>()?;
                Ok(held.map_or(refused, JointOutcome::Granted))
            }
            Err(error @ Error::Unavailable { .. }) => {
                let mut grants = Vec::new();
                for joint in claims {
                    let units = self.ledger.units;
                    match state.grant(units, &joint.pool, of(joint), &joint.claim, &error) {
                        Ok(grant) => grants.push(grant),
                        Err(refused) => {
                            for (joint, grant) in claims.iter().zip(grants) {
                                if !grant.held_before {
                                    state.undo(&joint.pool, &member(joint));
                                }
                            }
                            return Err(refused);
                        }
                    }
                }
                Ok(JointOutcome::Granted(grants))
            }
            Err(error) => Err(error),
        }
    }

    /// What is held here stays held while there is no answer; when there is one, it is lost, and to be claimed again.
    async fn renew(
        &self,
        pool: &PoolName,
        renewals: &[Renewal<'_>],
    ) -> Result<Vec<Result<Renewed>>> {
        let answer = self.backend.renew(pool, renewals).await;
        let mut state = self.state();
        let error = match answer {
            Err(error @ Error::Unavailable { .. }) => error,
            Ok(answers) => {
                state.answered(pool);
                return Ok(answers);
            }
            Err(error) => return Err(error),
        };
        let Some(local) = state.pools.get_mut(pool) else { return Err(error) };
        local.settle();
        let mut renewed = |renewal: &Renewal<'_>| {
            let member = Member::new(renewal.execution, renewal.token);
            let Some(held) = local.held.get_mut(&member) else { return Err(same(&error)) };
            held.ends = held.ends.and(ends(Some(renewal.lease)));
            Ok(Renewed::Held(None))
        };
        let answers: Vec<_> = renewals.iter().map(&mut renewed).collect();
        match answers.iter().any(Result::is_ok) {
            true => Ok(answers),
            false => Err(error),
        }
    }

    /// What is held here is given back in any case; without an answer the backend may hold the token, too.
    async fn release(
        &self,
        pool: &PoolName,
        execution: &ExecutionId,
        tokens: &[AllocationToken],
    ) -> Result<Vec<Released>> {
        let held: Vec<_> = {
            let mut state = self.state();
            let member = |token| Member::new(execution, token);
            tokens.iter().map(|token| state.remove(pool, &member(token))).collect()
        };
        let mut released =
            self.answered(pool, self.backend.release(pool, execution, tokens).await)?;
        for (released, held) in released.iter_mut().zip(held) {
            if let (Released::NotHeld, Some(held)) = (&released, held) {
                *released = Released::Units(held.units.get());
            }
        }
        Ok(released)
    }

    async fn release_grant(
        &self,
        pool: &PoolName,
        execution: &ExecutionId,
        token: &AllocationToken,
        number: FencingNumber,
    ) -> Result<Released> {
        let answer = self.backend.release_grant(pool, execution, token, number).await;
        let released = self.answered(pool, answer)?;
        if let Released::Units(_) = released {
            // Claimed again while there was no answer.
            self.state().remove(pool, &Member::new(execution, token));
        }
        Ok(released)
    }

    async fn listen(&self) -> Result<Inbox> {
        self.backend.listen().await
    }

    async fn detached(&self) -> Result<Arc<dyn Backend>> {
        let backend = self.backend.detached().await?;
        Ok(Arc::new(Self { backend, ledger: Arc::clone(&self.ledger) }))
    }

    async fn revoke(
        &self,
        pool: &PoolName,
        member: &Member,
        revocation: &Revocation,
    ) -> Result<Released> {
        let held = self.state().remove(pool, member);
        let released = self.backend.revoke(pool, member, revocation).await?;
        Ok(match (released, held) {
            (Released::NotHeld, Some(held)) => Released::Units(held.units.get()),
            (released, _) => released,
        })
    }

    async fn change_quota(&self, pool: &PoolName, change: QuotaChange) -> Result<PoolQuota> {
        let quota = self.backend.change_quota(pool, change).await?;
        self.state().answered(pool).quota = Some(quota.in_force);
        Ok(quota)
    }

    async fn revocations(&self, pool: &PoolName, count: usize) -> Result<Vec<RevocationRecord>> {
        self.backend.revocations(pool, count).await
    }

    async fn change_queue(&self, pool: &PoolName, change: &QueueChange) -> Result<()> {
        self.backend.change_queue(pool, change).await
    }

    async fn tickets(&self, pool: &PoolName, from: Cursor, count: usize) -> Result<TicketsPage> {
        self.backend.tickets(pool, from, count).await
    }

    async fn end_learning(&self, pool: &PoolName) -> Result<Duration> {
        self.backend.end_learning(pool).await
    }

    async fn delete_pool(&self, pool: &PoolName, deletion: Deletion) -> Result<u64> {
        self.backend.delete_pool(pool, deletion).await
    }

    async fn pools(&self) -> Result<Vec<PoolName>> {
        self.backend.pools().await
    }

    async fn usage(&self, pool: &PoolName) -> Result<PoolUsage> {
        self.backend.usage(pool).await
    }

    async fn holders(&self, pool: &PoolName, from: Cursor, count: usize) -> Result<HoldingsPage> {
        self.backend.holders(pool, from, count).await
    }

    async fn check(&self, pool: &PoolName) -> Result<CheckReport> {
        self.backend.check(pool).await
    }

    async fn repair(&self, pool: &PoolName) -> Result<RepairReport> {
        self.backend.repair(pool).await
    }
}
