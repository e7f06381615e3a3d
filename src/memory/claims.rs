//! Claiming, waiting, renewing and releasing: what clients do to a pool.

use std::collections::hash_map::Entry;

use super::now::Now;
use super::pool::{Pool, Record};
use super::queue::Waiting;
use crate::claim::{Claim, Claimant};
use crate::error::{Error, Result};
use crate::execution::{ExecutionId, Scope};
use crate::name::{AllocationToken, Member};
use crate::outcome::{FencingNumber, Grant, Limit, Outcome, Refusal, Released};
use crate::ticket::{Renewal, Renewed, Ticket, TicketRequest, Turn};

/// A claim with all that is known of who makes it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) claimant: Claimant<'a>,
    pub(super) claim: &'a Claim,
}

impl<'a> Asked<'a> {
    fn member(&self) -> Member {
        Member::new(self.claimant.execution, &self.claim.token)
    }

    fn scope(&self) -> (&'a str, &'a str) {
        (self.claimant.execution.project(), self.claimant.execution.domain())
    }

    fn execution(&self) -> &'a str {
        self.claimant.execution.name()
    }

    fn holder(&self) -> &'a str {
        self.claimant.holder.as_str()
    }

    fn granted(&self, number: FencingNumber, held_before: bool) -> Grant {
        Grant::new(self.claim.units, Some(number), held_before)
    }

    fn waiting(&self, request: &TicketRequest) -> Waiting {
        Waiting {
            units: self.claim.units,
            caps: self.claimant.constraints,
            channel: request.channel.clone(),
            holder: self.holder().to_owned(),
            execution: self.execution().to_owned(),
        }
    }
}

impl Pool {
    /// Decides a claim that does not wait.
    pub(super) fn allocate(&mut self, now: Now, asked: Asked<'_>) -> Result<Outcome> {
        if let Some(outcome) = self.decide_at_once(now, asked) {
            return Ok(outcome);
        }
        self.settle_if_needed(now);
        if self.queue.get(&asked.member()).is_some() {
            return Ok(Outcome::Refused(self.full(Limit::Queue)));
        }
        self.decide(now, asked)
    }

    /// Decides claims one after the other, each like one that does not wait.
    pub(super) fn allocate_many<'a>(
        &mut self,
        now: Now,
        claimant: Claimant<'a>,
        claims: &'a [Claim],
    ) -> Vec<Result<Outcome>> {
        self.settle_if_needed(now);
        claims.iter().map(|claim| self.decide(now, Asked { claimant, claim })).collect()
    }

    /// Decides a claim that waits: grants it, files a ticket, or tells where its ticket stands.
    pub(super) fn wait(
        &mut self,
        now: Now,
        asked: Asked<'_>,
        request: &TicketRequest,
    ) -> Result<Turn> {
        if let Some(Outcome::Granted(grant)) = self.decide_at_once(now, asked) {
            return Ok(Turn::Granted(grant));
        }
        self.settle_if_needed(now);
        let member = asked.member();
        if let Some(grant) = self.held(asked, &member)? {
            self.lease(now, asked, &member);
            return Ok(Turn::Granted(grant));
        }
        let ends = now.millis() + request.time_to_live.millis();
        if let Some(filed) = self.queue.get(&member) {
            let Waiting { units, execution, .. } = &filed.waiting;
            if *units != asked.claim.units || execution != asked.execution() {
                return Err(conflict(&member, units.get(), execution));
            }
            self.check_possible(asked)?;
            self.lasts(&member, ends);
            self.queue.refile(&member, asked.waiting(request), request.priority);
            return self.turn(now, asked, &member);
        }
        self.check_possible(asked)?;
        if self.refusal(asked).is_none() {
            return Ok(Turn::Granted(self.grant_to(now, asked, member)));
        }
        self.lasts(&member, ends);
        self.queue.enqueue(now, &member, asked.waiting(request), request.priority);
        self.turn(now, asked, &member)
    }

    /// The first half of claiming from several pools: a refusal, or none if the claim is or could be granted.
    pub(super) fn prepare(&mut self, now: Now, asked: Asked<'_>) -> Result<Option<Refusal>> {
        self.settle(now);
        match self.held(asked, &asked.member())? {
            Some(_) => Ok(None),
            None => Ok(self.refusal(asked)),
        }
    }

    /// The second half: grants what was prepared.
    pub(super) fn grant_prepared(&mut self, now: Now, asked: Asked<'_>) -> Result<Grant> {
        let member = asked.member();
        match self.held(asked, &member)? {
            Some(grant) => {
                self.lease(now, asked, &member);
                Ok(grant)
            }
            None => Ok(self.grant_to(now, asked, member)),
        }
    }

    /// Gives back tokens of one execution where nothing can follow from it: no ticket waits, no lease ends.
    pub(super) fn release_at_rest(
        &mut self,
        execution: &ExecutionId,
        tokens: &[AllocationToken],
    ) -> Vec<Released> {
        let members = tokens.iter().map(|token| Member::new(execution, token));
        members.map(|member| self.give_back(execution, member)).collect()
    }

    /// Gives back tokens of one execution, or withdraws their tickets.
    pub(super) fn release(
        &mut self,
        now: Now,
        execution: &ExecutionId,
        tokens: &[AllocationToken],
    ) -> Vec<Released> {
        let mut released = self.release_at_rest(execution, tokens);
        if self.queue.is_empty() && !self.is_due(now) {
            return released;
        }
        for (released, token) in released.iter_mut().zip(tokens) {
            if *released == Released::NotHeld
                && self.withdraw_of(execution, &Member::new(execution, token))
            {
                *released = Released::Withdrawn;
            }
        }
        if released.iter().any(|released| matches!(released, Released::Units(_))) {
            self.queue.open(execution.project(), execution.domain());
        }
        self.settle(now);
        released
    }

    /// Gives back what a token holds if it is under this number.
    pub(super) fn release_grant(
        &mut self,
        now: Now,
        execution: &ExecutionId,
        token: &AllocationToken,
        number: FencingNumber,
    ) -> Released {
        let record = self.grants.get(&Member::new(execution, token));
        if record.is_none_or(|record| record.fencing_number != number) {
            self.settle_if_needed(now);
            return Released::NotHeld;
        }
        let released = self.release(now, execution, std::slice::from_ref(token));
        released.first().copied().unwrap_or(Released::NotHeld)
    }

    /// Renews leases and tickets after ending those that are over.
    pub(super) fn renew(&mut self, now: Now, renewals: &[Renewal<'_>]) -> Vec<Result<Renewed>> {
        self.settle_if_needed(now);
        let renewed = renewals.iter().map(|renewal| self.renew_one(now, renewal)).collect();
        while self.is_due(now) {
            self.settle(now);
        }
        renewed
    }

    fn renew_one(&mut self, now: Now, renewal: &Renewal<'_>) -> Result<Renewed> {
        let member = Member::new(renewal.execution, renewal.token);
        let (units, execution, renewed) = if let Some(record) = self.grants.get(&member) {
            (record.units, &record.execution, Renewed::Held(Some(record.fencing_number)))
        } else if let Some(filed) = self.queue.get(&member) {
            (filed.waiting.units, &filed.waiting.execution, Renewed::Waiting)
        } else {
            return Ok(Renewed::Lost);
        };
        if execution != renewal.execution.name() {
            return Err(conflict(&member, units.get(), execution));
        }
        let ends = now.millis() + renewal.lease.millis();
        // What is held until released stays so.
        if self.leases.score(&member).is_some() {
            self.leases.set(member, ends);
        }
        self.due = self.due.map(|due| due.min(ends));
        Ok(renewed)
    }

    /// Decides where neither the queue nor a lease that is over can matter, without a look at them; else tells nothing.
    fn decide_at_once(&mut self, now: Now, asked: Asked<'_>) -> Option<Outcome> {
        let units = asked.claim.units;
        let has_room = self.has_room_for(units);
        if self.is_due(now) || has_room && !self.queue.is_empty() {
            return None;
        }
        let Entry::Vacant(vacant) = self.grants.entry(asked.member()) else { return None };
        if !has_room {
            return Some(Outcome::Refused(self.full(Limit::Quota)));
        }
        let caps = asked.claimant.constraints;
        if let Err(refusal) = self.scopes.add_within(asked.scope(), caps, units.get()) {
            return Some(Outcome::Refused(refusal));
        }
        let fencing_number = FencingNumber::new(self.issued);
        if let Some(lease) = asked.claim.lease {
            let ends = now.millis() + lease.millis();
            self.leases.set(vacant.key().clone(), ends);
            self.due = Some(self.due.map_or(ends, |due| due.min(ends)));
        }
        vacant.insert(Record {
            units,
            fencing_number,
            since: now.seconds(),
            holder: asked.holder().to_owned(),
            execution: asked.execution().to_owned(),
        });
        self.issued += units.get();
        self.in_use += units.get();
        Some(Outcome::Granted(asked.granted(fencing_number, false)))
    }

    /// Decides a claim that does not wait, after what was due is done.
    fn decide(&mut self, now: Now, asked: Asked<'_>) -> Result<Outcome> {
        let member = asked.member();
        if let Some(grant) = self.held(asked, &member)? {
            self.lease(now, asked, &member);
            return Ok(Outcome::Granted(grant));
        }
        Ok(match self.refusal(asked) {
            Some(refusal) => Outcome::Refused(refusal),
            None => Outcome::Granted(self.grant_to(now, asked, member)),
        })
    }

    /// The grant, if the member holds what is asked for.
    fn held(&self, asked: Asked<'_>, member: &Member) -> Result<Option<Grant>> {
        let Some(record) = self.grants.get(member) else { return Ok(None) };
        if record.units != asked.claim.units || record.execution != asked.execution() {
            return Err(conflict(member, record.units.get(), &record.execution));
        }
        Ok(Some(asked.granted(record.fencing_number, true)))
    }

    /// What stops a new claim: the quota, then tickets before it, then its caps.
    fn refusal(&self, asked: Asked<'_>) -> Option<Refusal> {
        let (project, domain) = asked.scope();
        if !self.has_room_for(asked.claim.units) {
            Some(self.full(Limit::Quota))
        } else if self.queue.stands_before(project, domain) {
            Some(self.full(Limit::Queue))
        } else {
            self.cap_at(asked)
        }
    }

    /// The cap that stops a claim.
    fn cap_at(&self, asked: Asked<'_>) -> Option<Refusal> {
        let units = asked.claim.units.get();
        self.scopes.refusal(asked.scope(), asked.claimant.constraints, units)
    }

    /// Refuses to let a claim wait that is larger than the quota or one of its caps.
    fn check_possible(&self, asked: Asked<'_>) -> Result<()> {
        let caps = asked.claimant.constraints;
        let (project, domain) = asked.scope();
        let (project, domain) = (project.to_owned(), domain.to_owned());
        let of_project = Scope::Project { project: project.clone() };
        let of_domain = Scope::Domain { project, domain };
        let project_cap = caps.project_scope_resource_constraint.map(|cap| cap.value());
        let domain_cap = caps.namespace_scope_resource_constraint.map(|cap| cap.value());
        let limits = [
            (Limit::Quota, Some(self.quota)),
            (Limit::Cap(of_project), project_cap),
            (Limit::Cap(of_domain), domain_cap),
        ];
        for (limit, size) in limits {
            if let Some(size) = size.filter(|&size| asked.claim.units.get() > size) {
                return Err(self.never(asked, limit, size));
            }
        }
        Ok(())
    }

    fn never(&self, asked: Asked<'_>, limit: Limit, size: u64) -> Error {
        let units = asked.claim.units.get();
        Error::NeverGranted { pool: self.name.clone(), units, limit, size }
    }

    fn grant_to(&mut self, now: Now, asked: Asked<'_>, member: Member) -> Grant {
        self.lease(now, asked, &member);
        let (holder, execution) = (asked.holder().to_owned(), asked.execution().to_owned());
        let number = self.grant(now, member, asked.claim.units, holder, execution);
        asked.granted(number, false)
    }

    /// Gives a member the claim's own lease, or none.
    fn lease(&mut self, now: Now, asked: Asked<'_>, member: &Member) {
        match asked.claim.lease {
            Some(lease) => self.lasts(member, now.millis() + lease.millis()),
            None => self.leases.remove(member),
        }
    }

    /// What became of a claim's ticket.
    fn turn(&mut self, now: Now, asked: Asked<'_>, member: &Member) -> Result<Turn> {
        if !self.hand_on(now) {
            self.due = Some(0);
        }
        if let Some(record) = self.grants.get(member) {
            let grant = asked.granted(record.fencing_number, false);
            self.lease(now, asked, member);
            return Ok(Turn::Granted(grant));
        }
        let Some(position) = self.queue.position(member) else {
            // Not after the check above.
            return Err(self.never(asked, Limit::Quota, self.quota));
        };
        let limit = if self.has_room_for(asked.claim.units) { Limit::Queue } else { Limit::Quota };
        let left = |due: u64| std::time::Duration::from_millis(due.saturating_sub(now.millis()));
        Ok(Turn::Waiting(Ticket {
            position,
            blocked_by: self.cap_at(asked).unwrap_or_else(|| self.full(limit)),
            next_fencing_number: FencingNumber::new(self.issued),
            retry_after: self.due.map(left),
        }))
    }

    /// Removes a grant of an execution, without a look at the queue.
    fn give_back(&mut self, execution: &ExecutionId, member: Member) -> Released {
        let Entry::Occupied(held) = self.grants.entry(member) else { return Released::NotHeld };
        if held.get().execution != execution.name() {
            return Released::NotHeld;
        }
        let (member, record) = held.remove_entry();
        if self.due.is_some() {
            self.leases.remove(&member);
        }
        self.uncount((execution.project(), execution.domain()), record.units);
        Released::Units(record.units.get())
    }

    fn withdraw_of(&mut self, execution: &ExecutionId, member: &Member) -> bool {
        let filed = self.queue.get(member);
        filed.is_some_and(|filed| filed.waiting.execution == execution.name())
            && self.withdraw(member).is_some()
    }
}

fn conflict(member: &Member, held_units: u64, held_by: &str) -> Error {
    Error::Conflict { member: member.clone(), held_units, held_by: held_by.to_owned() }
}
