//! Grants that count only once replicas have them, where that is configured.
//!
//! Every answer that says "granted" passes here, also if the token was held before: an earlier call may have ended before
//! replicas had it. What they do not have in time is given back if this call granted it, and no answer says it is held.

use std::sync::Arc;

use redis::{RedisError, Value};

use super::cluster::nobody;
use super::connect::Connections;
use super::remote::{BATCH, RemotePool};
use super::replicas::Asked;
use super::reply::Answer;
use super::scripts;
use crate::claim::{Claim, Joint};
use crate::error::{Error, Result};
use crate::execution::ExecutionId;
use crate::name::{AllocationToken, Member, PoolName};
use crate::outcome::{FencingNumber, Grant, JointOutcome, Outcome};
use crate::ticket::Turn;

/// A grant as the server answered it.
#[derive(Clone, Copy, Debug)]
struct Granted<'a> {
    pool: &'a PoolName,
    token: &'a AllocationToken,
    grant: Grant,
}

/// Answers to claims of one pool, with errors for those grants that replicas do not have.
pub(super) async fn outcomes(
    connections: &Arc<Connections>,
    pool: &PoolName,
    execution: &ExecutionId,
    claims: &[Claim],
    mut outcomes: Vec<Result<Outcome>>,
) -> Vec<Result<Outcome>> {
    if connections.min_replicas().is_none() {
        return outcomes;
    }
    let granted = claims.iter().zip(&mut outcomes).filter_map(|(claim, outcome)| {
        let grant = *outcome.as_ref().ok()?.granted()?;
        Some((Granted { pool, token: &claim.token, grant }, outcome))
    });
    let (grants, places): (Vec<_>, Vec<_>) = granted.unzip();
    let mut missing = Vec::new();
    let verdicts = verdicts(connections, execution, &grants).await;
    for ((granted, place), verdict) in grants.iter().zip(places).zip(verdicts) {
        if let Err(error) = verdict {
            *place = Err(error);
            missing.push(*granted);
        }
    }
    give_back(connections, execution, &missing).await;
    outcomes
}

/// The answer to a claim that waits, if replicas have what it grants.
pub(super) async fn turn(
    connections: &Arc<Connections>,
    pool: &PoolName,
    execution: &ExecutionId,
    claim: &Claim,
    turn: Turn,
) -> Result<Turn> {
    if let (Turn::Granted(grant), true) = (&turn, connections.min_replicas().is_some()) {
        all_or_nothing(
            connections,
            execution,
            &[Granted { pool, token: &claim.token, grant: *grant }],
        )
        .await?;
    }
    Ok(turn)
}

/// The answer to claims of several pools, if replicas have all that it grants.
pub(super) async fn joint(
    connections: &Arc<Connections>,
    execution: &ExecutionId,
    claims: &[Joint],
    outcome: JointOutcome,
) -> Result<JointOutcome> {
    if let (JointOutcome::Granted(grants), true) = (&outcome, connections.min_replicas().is_some())
    {
        let granted = claims.iter().zip(grants).map(|(Joint { pool, claim, .. }, grant)| Granted {
            pool,
            token: &claim.token,
            grant: *grant,
        });
        all_or_nothing(connections, execution, &granted.collect::<Vec<_>>()).await?;
    }
    Ok(outcome)
}

async fn all_or_nothing(
    connections: &Arc<Connections>,
    execution: &ExecutionId,
    grants: &[Granted<'_>],
) -> Result<()> {
    let verdicts = verdicts(connections, execution, grants).await;
    match verdicts.into_iter().find_map(Result::err) {
        None => Ok(()),
        Some(error) => {
            give_back(connections, execution, grants).await;
            Err(error)
        }
    }
}

/// Whether replicas have each of these grants. Grants of one pool stand together.
async fn verdicts(
    connections: &Arc<Connections>,
    execution: &ExecutionId,
    grants: &[Granted<'_>],
) -> Vec<Result<()>> {
    // All questions first, so that those to one server share a WAIT.
    let mut asked = Vec::new();
    for of_pool in grants.chunk_by(|one, next| one.pool == next.pool) {
        for part in of_pool.chunks(BATCH) {
            asked.push((part, ask(connections, execution, part)));
        }
    }
    let mut verdicts = Vec::new();
    for (part, asked) in asked {
        let said = match asked {
            Ok(asked) => asked.answer().await,
            Err(error) => Err(error),
        };
        let said = said.map(|said| (found(&said.reply), said.replicas));
        verdicts.extend(part.iter().enumerate().map(|(place, granted)| match &said {
            Ok((found, replicas)) => verdict(connections, granted, found.get(place), *replicas),
            Err(error) => Err(unanswered(connections, error.clone())),
        }));
    }
    let missing = verdicts.iter().filter(|verdict| verdict.is_err()).count();
    connections.not_acknowledged(missing);
    verdicts
}

fn ask(
    connections: &Arc<Connections>,
    execution: &ExecutionId,
    part: &[Granted<'_>],
) -> Result<Asked, RedisError> {
    let Some(Granted { pool, .. }) = part.first() else { return Err(nobody()) };
    let pool = connections.pool(pool);
    let mut call = scripts::CONFIRM.on(&[&pool.keys.grants]);
    for Granted { token, .. } in part {
        call.arg(Member::new(execution, token).as_str());
    }
    connections.ask_replicas(pool.keys.slot, call)
}

/// The numbers of the grants that a server has.
fn found(reply: &Value) -> Vec<Option<u64>> {
    let Value::Array(answers) = reply else { return Vec::new() };
    let number = |answer| match Answer::from_value(answer) {
        Some(Answer::Held { fence }) => Some(fence),
        _ => None,
    };
    answers.iter().map(number).collect()
}

fn verdict(
    connections: &Arc<Connections>,
    Granted { pool, grant, .. }: &Granted<'_>,
    found: Option<&Option<u64>>,
    replicas: u64,
) -> Result<()> {
    let wanted = connections.min_replicas().map_or(0, |min| min.count);
    let number = grant.fencing_number.map(FencingNumber::get);
    // A server that does not have the grant itself says nothing about its replicas.
    let have = match found == Some(&number) {
        true => replicas,
        false => 0,
    };
    match have >= wanted {
        true => Ok(()),
        false => Err(Error::NotAcknowledged { pool: (*pool).clone(), have, wanted }),
    }
}

/// The error for what a server that was asked about its replicas failed with.
fn unanswered(connections: &Arc<Connections>, error: RedisError) -> Error {
    // Those that name the right server, or say that this one is no primary any more, are over soon.
    let is_lasting = match error.code() {
        Some("NOPERM" | "NOAUTH" | "WRONGTYPE") => true,
        Some("ERR") => !error.to_string().contains("replica"),
        _ => false,
    };
    match connections.error("acknowledge", error) {
        Error::Server { operation, server, source } if !is_lasting => {
            Error::Unavailable { operation, server, source }
        }
        error => error,
    }
}

/// Gives back what these calls granted, and nothing that was held before.
async fn give_back(
    connections: &Arc<Connections>,
    execution: &ExecutionId,
    grants: &[Granted<'_>],
) {
    for of_pool in grants.chunk_by(|one, next| one.pool == next.pool) {
        let new = of_pool.iter().filter(|granted| !granted.grant.held_before);
        let new: Vec<_> =
            new.filter_map(|new| Some((new.token, new.grant.fencing_number?))).collect();
        let pool = of_pool[0].pool;
        let remote = RemotePool::new(connections, pool);
        if let Err(error) = remote.release_grants(execution, &new).await {
            // The caller hears of an error in any case, after which tokens may be held.
            tracing::warn!(%pool, count = new.len(), %error, "not acknowledged, and not given back");
        }
    }
}
