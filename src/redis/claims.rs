//! Claiming, renewing and releasing: the calls that have to be fast.

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, ToRedisArgs, Value};
use tokio::time::Instant;

use super::combiner::Operation;
use super::connect::Connections;
use super::keys::ScopeFields;
use super::remote::{BATCH, RemotePool, unexpected};
use super::reply::{Answer, Fields, Full, What};
use super::scripts::{self, Call};
use crate::amount::{Lease, ResourceConstraintsSpec};
use crate::claim::{Claim, Claimant, Joint};
use crate::error::{Error, Result};
use crate::execution::{ExecutionId, Scope};
use crate::name::{AllocationToken, Member};
use crate::outcome::{FencingNumber, Grant, JointOutcome, Limit, Outcome, Refusal, Released};
use crate::ticket::{Renewal, Renewed, Ticket, TicketRequest, Turn};

/// Stands for an argument that is not given.
const NONE: &str = "-";

impl RemotePool<'_> {
    pub(super) async fn allocate(
        &self,
        claimant: Claimant<'_>,
        claims: &[Claim],
    ) -> Result<Vec<Result<Outcome>>> {
        self.allocate_by(self.connections.deadline(), claimant, claims).await
    }

    async fn allocate_by(
        &self,
        ends: Instant,
        claimant: Claimant<'_>,
        claims: &[Claim],
    ) -> Result<Vec<Result<Outcome>>> {
        let answers = match claims {
            [claim] => vec![self.claim(ends, claimant, claim).await?],
            // What comes back is looked at by itself.
            claims if claims.iter().any(|claim| claim.returning.is_some()) => {
                let mut answers = Vec::new();
                for claim in claims {
                    answers.push(self.claim(ends, claimant, claim).await?);
                }
                answers
            }
            claims => {
                let batch = |claims: &[Claim]| {
                    let mut call = scripts::ALLOCATE_MANY.on(&self.keys().all());
                    let arguments = call.arguments();
                    add_claimant(arguments, claimant);
                    add_caps(arguments, claimant.constraints);
                    for claim in claims {
                        add_claim(arguments, claimant, claim);
                        add_lease(arguments, claim.lease);
                    }
                    call
                };
                let calls: Vec<_> = claims.chunks(BATCH).map(batch).collect();
                self.call_all_by(ends, &calls).await?
            }
        };
        if answers.len() != claims.len() {
            return Err(unexpected("allocate", format!("{} answers", answers.len())));
        }
        let decided = claims.iter().zip(&answers).map(|(claim, answer)| {
            match decision(claimant.execution, claim, answer)? {
                Ok(Decision::Granted(grant)) => Ok(Ok(Outcome::Granted(grant))),
                Ok(Decision::Full(full)) => {
                    Ok(Ok(Outcome::Refused(refusal(claimant.execution, full))))
                }
                Ok(_) => Err(unexpected("allocate", answer)),
                Err(error) => Ok(Err(error)),
            }
        });
        decided.collect()
    }

    pub(super) async fn wait(
        &self,
        claimant: Claimant<'_>,
        claim: &Claim,
        ticket: &TicketRequest,
    ) -> Result<Turn> {
        let (ends, execution) = (self.connections.deadline(), claimant.execution);
        let channel = match &ticket.channel {
            Some(channel) => self.channel(channel).await?,
            None => NONE.into(),
        };
        let ticket = Some((ticket, &*channel));
        let call = single(&self.keys().all(), claimant, claim, ticket);
        // Whoever waits is not alone: what is released then goes on to others, in one call, even if its answer is lost.
        self.known.want_all_keys();
        let answer = self.call_by(ends, &call).await?;
        match decision(execution, claim, &answer)?? {
            Decision::Granted(grant) => Ok(Turn::Granted(grant)),
            Decision::Waiting { position, issued, retry_after, full } => {
                let blocked_by = refusal(execution, full);
                let next_fencing_number = FencingNumber::new(issued);
                Ok(Turn::Waiting(Ticket { position, blocked_by, next_fencing_number, retry_after }))
            }
            Decision::Never { limit, size } => Err(Error::NeverGranted {
                pool: self.name.clone(),
                units: claim.units.get(),
                limit: limit_of(execution, limit),
                size,
            }),
            Decision::Full(_) => Err(unexpected("allocate", answer)),
        }
    }

    async fn claim(&self, ends: Instant, claimant: Claimant<'_>, claim: &Claim) -> Result<Value> {
        let alone = |keys: &[&str]| single(keys, claimant, claim, None);
        match claim.returning {
            None => {
                let arguments = || {
                    let mut arguments = Cmd::new();
                    add_all(&mut arguments, claimant, claim);
                    arguments
                };
                self.call_combined_by(ends, Operation::Claim, arguments, alone).await
            }
            // What it forgot is looked at by itself.
            Some(_) => self.call_sparing_keys_by(ends, alone).await,
        }
    }

    pub(super) async fn renew(&self, renewals: &[Renewal<'_>]) -> Result<Vec<Result<Renewed>>> {
        let batch = |renewals: &[Renewal<'_>]| {
            let mut call = scripts::RENEW.on(&self.keys().all());
            for Renewal { execution, token, lease } in renewals {
                call.arg(Member::new(execution, token).as_str());
                call.arg(execution.name()).arg(lease.millis());
            }
            call
        };
        let calls: Vec<_> = match renewals {
            [] => vec![batch(&[])],
            renewals => renewals.chunks(BATCH).map(batch).collect(),
        };
        let ends = self.connections.deadline();
        let mut answers = self.call_all_by(ends, &calls).await?;
        let answered = answers.len();
        answers.retain(|answer| Answer::from_value(answer) != Some(Answer::More));
        if answers.len() < answered {
            self.do_what_is_due(ends).await?;
        }
        if answers.len() != renewals.len() {
            return Err(unexpected("renew", format!("{} answers", answers.len())));
        }
        let renewed = |(renewal, answer): (&Renewal<'_>, &Value)| {
            let member = || Member::new(renewal.execution, renewal.token);
            match Answer::from_value(answer) {
                Some(Answer::Held { fence }) => {
                    Ok(Ok(Renewed::Held(Some(FencingNumber::new(fence)))))
                }
                Some(Answer::Queued) => Ok(Ok(Renewed::Waiting)),
                Some(Answer::Released(Released::NotHeld)) => Ok(Ok(Renewed::Lost)),
                Some(Answer::Conflict { units, execution }) => Ok(Err(Error::Conflict {
                    member: member(),
                    held_units: units,
                    held_by: execution,
                })),
                Some(Answer::Foreign) => Ok(Err(Error::Foreign { member: member() })),
                _ => Err(unexpected("renew", answer)),
            }
        };
        renewals.iter().zip(&answers).map(renewed).collect()
    }

    /// Calls again until nothing is due, because one call does a bounded part of it, or time is up: whoever calls next goes on.
    async fn do_what_is_due(&self, ends: Instant) -> Result<()> {
        while Instant::now() < ends {
            let calls = [scripts::RENEW.on(&self.keys().all())];
            if self.call_all_by(ends, &calls).await?.is_empty() {
                break;
            }
        }
        Ok(())
    }

    pub(super) async fn release(
        &self,
        execution: &ExecutionId,
        tokens: &[AllocationToken],
        number: Option<FencingNumber>,
    ) -> Result<Vec<Released>> {
        let ends = self.connections.deadline();
        if (1..=BATCH).contains(&tokens.len()) {
            let alone = |keys: &[&str]| releasing(keys, execution, tokens, number);
            let reply = match tokens {
                [_] => {
                    let arguments = || {
                        let mut arguments = Cmd::new();
                        add_release(&mut arguments, execution, tokens, number);
                        arguments
                    };
                    self.call_combined_by(ends, Operation::Release, arguments, alone).await?
                }
                _ => self.call_sparing_keys_by(ends, alone).await?,
            };
            return match reply {
                Value::Array(answers) => read_released(&answers),
                answer => read_released(&[answer]),
            };
        }
        let all = self.keys().all();
        let calls: Vec<_> =
            tokens.chunks(BATCH).map(|tokens| releasing(&all, execution, tokens, number)).collect();
        read_released(&self.call_all_by(ends, &calls).await?)
    }

    /// Gives back grants by their numbers, in one round trip.
    pub(super) async fn release_grants(
        &self,
        execution: &ExecutionId,
        grants: &[(&AllocationToken, FencingNumber)],
    ) -> Result<Vec<Released>> {
        let all = self.keys().all();
        let one = |(token, number): &(&AllocationToken, FencingNumber)| {
            releasing(&all, execution, std::slice::from_ref(*token), Some(*number))
        };
        let calls: Vec<_> = grants.iter().map(one).collect();
        read_released(&self.call_all_by(self.connections.deadline(), &calls).await?)
    }
}

fn single(
    keys: &[&str],
    claimant: Claimant<'_>,
    claim: &Claim,
    ticket: Option<(&TicketRequest, &str)>,
) -> Call {
    let mut call = scripts::ALLOCATE.on(keys);
    add_all(call.arguments(), claimant, claim);
    match ticket {
        None => call.arg(&[NONE, "0", NONE]),
        Some((ticket, channel)) => {
            call.arg(ticket.time_to_live.millis()).arg(ticket.priority.get()).arg(channel)
        }
    };
    add_or_none(call.arguments(), claim.returning.map(FencingNumber::get));
    call
}

fn releasing(
    keys: &[&str],
    execution: &ExecutionId,
    tokens: &[AllocationToken],
    number: Option<FencingNumber>,
) -> Call {
    let mut call = scripts::RELEASE.on(keys);
    add_release(call.arguments(), execution, tokens, number);
    call
}

fn read_released(answers: &[Value]) -> Result<Vec<Released>> {
    let released = |answer: &Value| match Answer::from_value(answer) {
        Some(Answer::Released(released)) => Ok(released),
        _ => Err(unexpected("release", answer)),
    };
    answers.iter().map(released).collect()
}

/// Decides claims of several pools in one step.
pub(super) async fn allocate_all(
    connections: &Arc<Connections>,
    claimant: Claimant<'_>,
    claims: &[Joint],
) -> Result<JointOutcome> {
    let Some(first) = claims.first() else { return Ok(JointOutcome::Granted(Vec::new())) };
    let (operation, execution) = ("allocate_all", claimant.execution);
    let pools: Vec<_> = claims.iter().map(|joint| connections.pool(&joint.pool)).collect();
    if !connections.are_together(pools.iter().map(|pool| pool.keys.slot)) {
        return allocate_in_turn(connections, claimant, claims).await;
    }
    let keys: Vec<_> = pools.iter().flat_map(|pool| pool.keys.all()).collect();
    let mut call = scripts::ALLOCATE_ALL.on(&keys);
    for joint in claims {
        let claimant = Claimant { constraints: joint.constraints, ..claimant };
        add_all(call.arguments(), claimant, &joint.claim);
    }
    // What is wrong with a key is found by the pool's own calls; here any pool may say it.
    let reply = RemotePool::new(connections, &first.pool).call(&call).await?;
    let mut fields = Fields::new(reply).ok_or_else(|| unexpected(operation, "not an array"))?;
    let refused = fields.number().ok_or_else(|| unexpected(operation, "no number"))?;
    let answers = fields.values();
    let Some(refused) = refused.checked_sub(1) else {
        let grant =
            |(joint, answer): (&Joint, &Value)| match decision(execution, &joint.claim, answer)?? {
                Decision::Granted(grant) => Ok(grant),
                _ => Err(unexpected(operation, answer)),
            };
        return claims
            .iter()
            .zip(&answers)
            .map(grant)
            .collect::<Result<_>>()
            .map(JointOutcome::Granted);
    };
    let joint = usize::try_from(refused).ok().and_then(|refused| claims.get(refused));
    let (Some(joint), Some(answer)) = (joint, answers.into_iter().next()) else {
        return Err(unexpected(operation, "no such pool"));
    };
    let answer = RemotePool::new(connections, &joint.pool).expect_pool(answer)?;
    match decision(execution, &joint.claim, &answer)?? {
        Decision::Full(full) => Ok(JointOutcome::Refused {
            pool: joint.pool.clone(),
            refusal: refusal(execution, full),
        }),
        _ => Err(unexpected(operation, answer)),
    }
}

/// Decides claims of pools that no script can see together: one after the other, in the order of their names as everybody
/// does, giving all back that were granted now if one refuses.
async fn allocate_in_turn(
    connections: &Arc<Connections>,
    claimant: Claimant<'_>,
    claims: &[Joint],
) -> Result<JointOutcome> {
    let mut order: Vec<_> = (0..claims.len()).collect();
    order.sort_unstable_by_key(|&place| &claims[place].pool);
    let ends = connections.deadline();
    let mut grants: Vec<Option<Grant>> = vec![None; claims.len()];
    let mut outcome = Ok(None);
    for place in order {
        let Joint { pool, claim, constraints } = &claims[place];
        let claimant = Claimant { constraints: *constraints, ..claimant };
        let decided = RemotePool::new(connections, pool)
            .allocate_by(ends, claimant, std::slice::from_ref(claim))
            .await
            .and_then(|outcomes| outcomes.into_iter().next().transpose());
        match decided {
            Ok(Some(Outcome::Granted(grant))) => grants[place] = Some(grant),
            Ok(Some(Outcome::Refused(refusal))) => outcome = Ok(Some((pool.clone(), refusal))),
            Ok(None) => outcome = Err(unexpected("allocate", "nothing")),
            Err(error) => outcome = Err(error),
        }
        if !matches!(outcome, Ok(None)) {
            break;
        }
    }
    if matches!(outcome, Ok(None)) {
        return Ok(JointOutcome::Granted(grants.into_iter().flatten().collect()));
    }
    for (Joint { pool, claim, .. }, grant) in claims.iter().zip(grants) {
        let Some(Grant { fencing_number, held_before: false, .. }) = grant else { continue };
        let tokens = std::slice::from_ref(&claim.token);
        let released = RemotePool::new(connections, pool)
            .release(claimant.execution, tokens, fencing_number)
            .await;
        // What cannot be given back may be held, which is what an error means; a refusal must not mean it.
        if let (Err(error), Ok(_)) = (released, &outcome) {
            outcome = Err(error);
        }
    }
    outcome.map(|refused| match refused {
        Some((pool, refusal)) => JointOutcome::Refused { pool, refusal },
        None => JointOutcome::Granted(Vec::new()),
    })
}

/// What a claim that does not wait consists of.
fn add_all(arguments: &mut Cmd, claimant: Claimant<'_>, claim: &Claim) {
    add_claim(arguments, claimant, claim);
    add_claimant(arguments, claimant);
    add_caps(arguments, claimant.constraints);
    add_lease(arguments, claim.lease);
}

fn add_claim(arguments: &mut Cmd, claimant: Claimant<'_>, claim: &Claim) {
    let member = Member::new(claimant.execution, &claim.token);
    arguments.arg(member.as_str()).arg(claim.units.get());
}

fn add_claimant(arguments: &mut Cmd, claimant: Claimant<'_>) {
    let Claimant { execution, holder, .. } = claimant;
    let fields = ScopeFields::new(execution.project(), execution.domain());
    arguments.arg(execution.name()).arg(holder.as_str()).arg(fields.project).arg(fields.domain);
}

fn add_caps(arguments: &mut Cmd, constraints: ResourceConstraintsSpec) {
    for cap in [
        constraints.project_scope_resource_constraint,
        constraints.namespace_scope_resource_constraint,
    ] {
        add_or_none(arguments, cap.map(|cap| cap.value()));
    }
}

fn add_lease(arguments: &mut Cmd, lease: Option<Lease>) {
    add_or_none(arguments, lease.map(Lease::millis));
}

fn add_release(
    arguments: &mut Cmd,
    execution: &ExecutionId,
    tokens: &[AllocationToken],
    number: Option<FencingNumber>,
) {
    let fields = ScopeFields::new(execution.project(), execution.domain());
    arguments.arg(execution.name()).arg(&fields.project).arg(&fields.domain);
    add_or_none(arguments, number.map(FencingNumber::get));
    for token in tokens {
        arguments.arg(Member::new(execution, token).as_str());
    }
}

fn add_or_none(arguments: &mut Cmd, number: Option<impl ToRedisArgs>) {
    match number {
        Some(number) => arguments.arg(number),
        None => arguments.arg(NONE),
    };
}

/// What a script decided about one claim.
enum Decision {
    Granted(Grant),
    Full(Full),
    Waiting { position: u64, issued: u64, retry_after: Option<Duration>, full: Full },
    Never { limit: What, size: u64 },
}

fn decision(execution: &ExecutionId, claim: &Claim, answer: &Value) -> Result<Result<Decision>> {
    let granted = |fence, held_before| {
        Decision::Granted(Grant::new(claim.units, Some(FencingNumber::new(fence)), held_before))
    };
    Ok(Ok(match Answer::from_value(answer) {
        Some(Answer::Granted { fence }) => granted(fence, false),
        Some(Answer::Held { fence }) => granted(fence, true),
        Some(Answer::Full(full)) => Decision::Full(full),
        Some(Answer::Waiting { position, issued, retry_after, full }) => {
            Decision::Waiting { position, issued, retry_after, full }
        }
        Some(Answer::Never { limit, size }) => Decision::Never { limit, size },
        Some(Answer::Conflict { units, execution: held_by }) => {
            let member = Member::new(execution, &claim.token);
            return Ok(Err(Error::Conflict { member, held_units: units, held_by }));
        }
        _ => return Err(unexpected("allocate", answer)),
    }))
}

fn refusal(execution: &ExecutionId, full: Full) -> Refusal {
    Refusal::new(limit_of(execution, full.limit), full.in_use, full.size)
}

fn limit_of(execution: &ExecutionId, what: What) -> Limit {
    let project = execution.project().to_owned();
    match what {
        What::Pool => Limit::Quota,
        What::Queue => Limit::Queue,
        What::Learning(left) => Limit::Learning { time_left: Duration::from_millis(left) },
        What::Project => Limit::Cap(Scope::Project { project }),
        What::Domain => {
            Limit::Cap(Scope::Domain { project, domain: execution.domain().to_owned() })
        }
    }
}
