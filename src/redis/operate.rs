//! What operators and registrars do to a pool: quota, usage, holders, deletion.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use redis::Value;

use super::keys::{PoolKeys, project_of_weight, scope_of_field};
use super::remote::{PAGE, RemotePool, unexpected};
use super::reply::{Answer, Fields, count, pairs, parse_record, parse_ticket};
use super::scripts;
use crate::config::RedisConfig;
use crate::error::{Error, Result};
use crate::execution::Scope;
use crate::name::Member;
use crate::outcome::{FencingNumber, Released};
use crate::pool::{
    Cursor, Deletion, Holding, HoldingsPage, PoolQuota, PoolUsage, QuotaChange, Revocation,
    RevocationRecord,
};
use crate::ticket::{Order, QueueChange, TicketsPage, Weight};

impl RemotePool<'_> {
    pub(super) async fn change_quota(
        &self,
        change: QuotaChange,
        config: &RedisConfig,
    ) -> Result<PoolQuota> {
        let (word, quota, learns_first) = match change {
            QuotaChange::Register(quota) => ("register", Some(quota), config.learn_on_creation),
            QuotaChange::Restore(quota) => ("restore", Some(quota), true),
            QuotaChange::Create(quota) => ("create", Some(quota), false),
            QuotaChange::Pin(quota) => ("pin", Some(quota), false),
            QuotaChange::Unpin => ("unpin", None, false),
        };
        let mut call = scripts::SET_QUOTA.on(&self.keys().all());
        call.arg(word).arg(quota.map_or_else(String::new, |quota| quota.get().to_string()));
        call.arg(u64::try_from(config.learning_period.as_millis()).unwrap_or(u64::MAX));
        call.arg(if learns_first { "1" } else { "0" });
        let mut fields = self.call_for_fields(&call).await?;
        let (done, quota) =
            read_quota(&mut fields).ok_or_else(|| unexpected(call.operation(), fields))?;
        match done.as_str() {
            "done" => Ok(quota),
            "exists" => Err(Error::PoolExists { pool: self.name.clone(), quota: quota.in_force }),
            _ => Err(unexpected(call.operation(), done)),
        }
    }

    pub(super) async fn end_learning(&self) -> Result<Duration> {
        let call = scripts::END_LEARNING.on(&self.keys().all());
        let mut fields = self.call_for_fields(&call).await?;
        let left = fields.text().and_then(|_| fields.number());
        left.map(Duration::from_millis).ok_or_else(|| unexpected(call.operation(), fields))
    }

    pub(super) async fn delete(&self, deletion: Deletion) -> Result<u64> {
        let mut call = scripts::DELETE_POOL.on(&self.keys().with_journal());
        call.arg(match deletion {
            Deletion::OnlyUnused => "unused",
            Deletion::EvenInUse => "force",
        });
        let mut fields = self.call_for_fields(&call).await?;
        let mut read = || Some((fields.text()?, fields.number()?, fields.number()?));
        let (done, holders, units) = read().ok_or_else(|| unexpected(call.operation(), fields))?;
        match done.as_str() {
            "deleted" => Ok(units),
            "in_use" => Err(Error::PoolInUse { pool: self.name.clone(), holders, units }),
            _ => Err(unexpected(call.operation(), done)),
        }
    }

    pub(super) async fn exists(&self) -> Result<bool> {
        let mut call = scripts::USAGE.on(&[&self.keys().pool, &self.keys().usage]);
        call.arg("0").arg(1);
        match self.call(&call).await {
            Ok(_) => Ok(true),
            Err(Error::UnknownNamespace { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn usage(&self) -> Result<PoolUsage> {
        let (mut scopes, mut weights) = (BTreeMap::new(), BTreeMap::new());
        let mut cursor = "0".to_owned();
        loop {
            let mut call = scripts::USAGE.on(&[&self.keys().pool, &self.keys().usage]);
            call.arg(&cursor).arg(PAGE);
            let mut fields = self.call_for_fields(&call).await?;
            let (usage, next) = read_usage(&mut fields, &mut scopes, &mut weights)
                .ok_or_else(|| unexpected(call.operation(), fields))?;
            if next == "0" {
                return Ok(PoolUsage { scopes, weights, ..usage });
            }
            cursor = next;
        }
    }

    pub(super) async fn holders(&self, from: Cursor, count: usize) -> Result<HoldingsPage> {
        let PoolKeys { pool, usage, grants, leases, .. } = self.keys();
        let mut call = scripts::HOLDERS.on(&[pool, usage, grants, leases]);
        call.arg(from.0).arg(count.clamp(1, PAGE));
        let mut fields = self.call_for_fields(&call).await?;
        read_holdings(&mut fields).ok_or_else(|| unexpected(call.operation(), fields))
    }

    pub(super) async fn tickets(&self, from: Cursor, count: usize) -> Result<TicketsPage> {
        let PoolKeys { usage, leases, tickets, queue, .. } = self.keys();
        let mut call = scripts::TICKETS.on(&[usage, leases, tickets, queue]);
        call.arg(from.0).arg(count.clamp(MIN_TICKETS, PAGE));
        let mut fields = self.call_for_fields(&call).await?;
        read_tickets(&mut fields).ok_or_else(|| unexpected(call.operation(), fields))
    }

    pub(super) async fn change_queue(&self, change: &QueueChange) -> Result<()> {
        change.check()?;
        let mut call = scripts::SET_ORDER.on(&self.keys().all());
        call.arg(change.order.map_or("", Order::as_str));
        for (project, weight) in &change.weights {
            call.arg(project).arg(weight.get());
        }
        self.call_for_fields(&call).await.map(drop)
    }

    pub(super) async fn revoke(
        &self,
        member: &Member,
        revocation: &Revocation,
    ) -> Result<Released> {
        let mut call = scripts::REVOKE.on(&self.keys().with_journal());
        call.arg(member.as_str()).arg(revocation.operator()).arg(revocation.reason());
        let answer = self.call(&call).await?;
        match Answer::from_value(&answer) {
            Some(Answer::Released(released)) => Ok(released),
            _ => Err(unexpected(call.operation(), answer)),
        }
    }

    pub(super) async fn revocations(&self, count: usize) -> Result<Vec<RevocationRecord>> {
        let operation = "revocations";
        if !self.exists().await? {
            return Err(Error::UnknownNamespace { pool: self.name.clone() });
        }
        let cmd = redis::cmd("XREVRANGE")
            .arg(&self.keys().journal)
            .arg(&["+", "-", "COUNT"])
            .arg(count)
            .to_owned();
        let reply = self.command(operation, &cmd).await?;
        let entries = Fields::new(reply).map(Fields::values).unwrap_or_default();
        let record = |entry| read_revocation(entry).ok_or_else(|| unexpected(operation, "entry"));
        entries.into_iter().map(record).collect()
    }
}

/// So many tickets may share a rank, one for each priority, and a page must get beyond them.
const MIN_TICKETS: usize = 16;

fn read_quota(fields: &mut Fields) -> Option<(String, PoolQuota)> {
    let done = fields.text()?;
    let (in_force, registered) = (fields.number()?, fields.number()?);
    let (pinned, before) = (fields.optional_number()?, fields.optional_number()?);
    Some((done, PoolQuota::new(in_force, registered, pinned, before)))
}

/// Reads a page of usage: adds its scopes, and gives the rest and the next cursor.
fn read_usage(
    fields: &mut Fields,
    scopes: &mut BTreeMap<Scope, u64>,
    weights: &mut BTreeMap<String, Weight>,
) -> Option<(PoolUsage, String)> {
    let (issued, issue_limit, quota) = (fields.number()?, fields.number()?, fields.number()?);
    let usage = PoolUsage {
        quota,
        registered: fields.number()?,
        pinned: fields.optional_number()?,
        first_fencing_number: FencingNumber::new(fields.number()?),
        in_use: (quota + issued).saturating_sub(issue_limit),
        holders: fields.number()?,
        next_fencing_number: FencingNumber::new(issued),
        tickets: count(&fields.text()?)?,
        order: fields.text()?.parse().ok()?,
        learning: fields.optional_number()?.map(Duration::from_millis),
        lost: {
            let (from, to) = (fields.optional_number()?, fields.optional_number()?);
            from.zip(to).map(|(from, to)| FencingNumber::new(from)..FencingNumber::new(to))
        },
        weights: BTreeMap::new(),
        scopes: BTreeMap::new(),
    };
    let next = fields.text()?;
    for (field, units) in pairs(fields.array()?.texts()?)? {
        if let Some(scope) = scope_of_field(&field) {
            scopes.insert(scope, count(&units)?);
        } else if let Some(project) = project_of_weight(&field) {
            weights.insert(project.to_owned(), Weight::new(units.parse().ok()?).ok()?);
        }
    }
    Some((usage, next))
}

fn read_holdings(fields: &mut Fields) -> Option<HoldingsPage> {
    let next = fields.number()?;
    let mut list = fields.array()?;
    let mut holdings = Vec::new();
    while let Some(member) = list.text() {
        let record = parse_record(&list.text()?);
        let lease_left = list.optional_number()?.map(Duration::from_millis);
        holdings.push(Holding { member: Member::found(member), record, lease_left });
    }
    Some(HoldingsPage { holdings, next: (next != 0).then_some(Cursor(next)) })
}

fn read_tickets(fields: &mut Fields) -> Option<TicketsPage> {
    let next = fields.text()?.parse::<f64>().ok()? as u64; // a score
    let mut list = fields.array()?;
    let mut tickets = Vec::new();
    while let Some(member) = list.text() {
        let (record, left) = (list.text()?, list.number()?);
        tickets.push(parse_ticket(Member::found(member), &record, Duration::from_millis(left))?);
    }
    Some(TicketsPage { tickets, next: (next != 0).then_some(Cursor(next)) })
}

/// Reads an entry of the stream: `<milliseconds>-<sequence>`, then fields and values.
fn read_revocation(entry: Value) -> Option<RevocationRecord> {
    let mut entry = Fields::new(entry)?;
    let id = entry.text()?;
    let millis = id.split_once('-')?.0.parse().ok()?;
    let mut fields: BTreeMap<_, _> = pairs(entry.array()?.texts()?)?.into_iter().collect();
    Some(RevocationRecord {
        at: UNIX_EPOCH.checked_add(Duration::from_millis(millis))?,
        member: Member::found(fields.remove("member")?),
        operator: fields.remove("operator")?,
        reason: fields.remove("reason")?,
    })
}
