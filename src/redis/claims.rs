//! Claiming and releasing: the calls that have to be fast.

use redis::Value;

use super::keys::ScopeFields;
use super::remote::{BATCH, RemotePool, unexpected};
use super::reply::{Answer, Full};
use super::scripts::{self, Call};
use crate::claim::{Claim, Claimant, FencingNumber, Grant, Limit, Outcome, Refusal, Released};
use crate::error::{Error, Result};
use crate::execution::{ExecutionId, Scope};
use crate::name::{AllocationToken, Member};

/// Releases whoever holds: no execution has an empty name.
const ANY_EXECUTION: &str = "";

impl RemotePool<'_> {
    pub(super) async fn allocate(
        &self,
        claimant: Claimant<'_>,
        claims: &[Claim],
    ) -> Result<Vec<Result<Outcome>>> {
        let answers = match claims {
            [claim] => {
                let mut call = scripts::ALLOCATE.on(&self.keys.all());
                add_claim(&mut call, claimant, claim);
                add_claimant(&mut call, claimant);
                vec![self.call(&call).await?]
            }
            claims => {
                let batch = |claims: &[Claim]| {
                    let mut call = scripts::ALLOCATE_MANY.on(&self.keys.all());
                    add_claimant(&mut call, claimant);
                    claims.iter().for_each(|claim| add_claim(&mut call, claimant, claim));
                    call
                };
                let calls: Vec<_> = claims.chunks(BATCH).map(batch).collect();
                self.call_all(&calls).await?
            }
        };
        if answers.len() != claims.len() {
            return Err(unexpected("allocate", format!("{} answers", answers.len())));
        }
        claims
            .iter()
            .zip(&answers)
            .map(|(claim, answer)| outcome(claimant, claim, answer))
            .collect()
    }

    pub(super) async fn release(
        &self,
        execution: &ExecutionId,
        tokens: &[AllocationToken],
    ) -> Result<Vec<Released>> {
        let fields = ScopeFields::new(execution.project(), execution.domain());
        let members: Vec<_> = tokens.iter().map(|token| Member::new(execution, token)).collect();
        self.release_members(execution.name(), &fields, &members).await
    }

    pub(super) async fn release_member(&self, member: &Member) -> Result<Released> {
        let fields = ScopeFields::of_member(member);
        let members = std::slice::from_ref(member);
        let released = self.release_members(ANY_EXECUTION, &fields, members).await?;
        released.first().copied().ok_or_else(|| unexpected("release", "no answer"))
    }

    /// Releases members of one scope, of one execution or of [`ANY_EXECUTION`].
    async fn release_members(
        &self,
        execution: &str,
        fields: &ScopeFields,
        members: &[Member],
    ) -> Result<Vec<Released>> {
        let batch = |members: &[Member]| {
            let mut call = scripts::RELEASE.on(&self.keys.all());
            call.arg(execution).arg(&fields.project).arg(&fields.domain);
            call.arg(members.iter().map(Member::as_str).collect::<Vec<_>>());
            call
        };
        let calls: Vec<_> = members.chunks(BATCH).map(batch).collect();
        let released = |answer: &Value| match Answer::from_value(answer) {
            Some(Answer::Released(released)) => Ok(released),
            _ => Err(unexpected("release", answer)),
        };
        self.call_all(&calls).await?.iter().map(released).collect()
    }
}

fn add_claim(call: &mut Call, claimant: Claimant<'_>, claim: &Claim) {
    let member = Member::new(claimant.execution, &claim.token);
    call.arg(member.as_str()).arg(claim.units.get());
}

/// Adds what both scripts want to know of the claimant, in their order.
fn add_claimant(call: &mut Call, claimant: Claimant<'_>) {
    let Claimant { execution, constraints, holder } = claimant;
    let fields = ScopeFields::new(execution.project(), execution.domain());
    call.arg(execution.name()).arg(holder.as_str()).arg(fields.project).arg(fields.domain);
    for cap in [
        constraints.project_scope_resource_constraint,
        constraints.namespace_scope_resource_constraint,
    ] {
        match cap {
            Some(cap) => call.arg(cap.value()),
            None => call.arg(""),
        };
    }
}

fn outcome(claimant: Claimant<'_>, claim: &Claim, answer: &Value) -> Result<Result<Outcome>> {
    let execution = claimant.execution;
    let project = || execution.project().to_owned();
    let domain = || execution.domain().to_owned();
    let (limit, in_use, size) = match Answer::from_value(answer) {
        Some(Answer::Granted { fence }) => return Ok(Ok(granted(claim, fence, false))),
        Some(Answer::Held { fence }) => return Ok(Ok(granted(claim, fence, true))),
        Some(Answer::Conflict { units, execution: held_by }) => {
            let member = Member::new(execution, &claim.token);
            return Ok(Err(Error::Conflict { member, held_units: units, held_by }));
        }
        Some(Answer::Full(Full::Pool, in_use, size)) => (Limit::Quota, in_use, size),
        Some(Answer::Full(Full::Project, in_use, size)) => {
            (Limit::Cap(Scope::Project { project: project() }), in_use, size)
        }
        Some(Answer::Full(Full::Domain, in_use, size)) => {
            (Limit::Cap(Scope::Domain { project: project(), domain: domain() }), in_use, size)
        }
        _ => return Err(unexpected("allocate", answer)),
    };
    Ok(Ok(Outcome::Refused(Refusal::new(limit, in_use, size))))
}

fn granted(claim: &Claim, fence: u64, held_before: bool) -> Outcome {
    Outcome::Granted(Grant::new(claim.units, Some(FencingNumber::new(fence)), held_before))
}
