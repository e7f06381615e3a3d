//! What operators and registrars do to a pool: quota, usage, holders, deletion.

use std::collections::BTreeMap;

use super::keys::scope_of_field;
use super::remote::{PAGE, RemotePool, unexpected};
use super::reply::{Fields, count, pairs, parse_record};
use super::scripts;
use crate::claim::FencingNumber;
use crate::error::{Error, Result};
use crate::execution::Scope;
use crate::name::Member;
use crate::pool::{Cursor, Deletion, Holding, HoldingsPage, PoolQuota, PoolUsage, QuotaChange};

impl RemotePool<'_> {
    pub(super) async fn change_quota(&self, change: QuotaChange) -> Result<PoolQuota> {
        let (word, quota) = match change {
            QuotaChange::Register(quota) => ("register", Some(quota.get())),
            QuotaChange::Create(quota) => ("create", Some(quota.get())),
            QuotaChange::Pin(quota) => ("pin", Some(quota.get())),
            QuotaChange::Unpin => ("unpin", None),
        };
        let mut call = scripts::SET_QUOTA.on(&[&self.keys.usage]);
        call.arg(word).arg(quota.map_or_else(String::new, |quota| quota.to_string()));
        let mut fields = self.call_for_fields(&call).await?;
        let (done, quota) =
            read_quota(&mut fields).ok_or_else(|| unexpected(call.operation(), fields))?;
        match done.as_str() {
            "done" => Ok(quota),
            "exists" => Err(Error::PoolExists { pool: self.name.clone(), quota: quota.in_force }),
            _ => Err(unexpected(call.operation(), done)),
        }
    }

    pub(super) async fn delete(&self, deletion: Deletion) -> Result<u64> {
        let mut call = scripts::DELETE_POOL.on(&self.keys.all());
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
        let mut call = scripts::USAGE.on(&[&self.keys.pool, &self.keys.usage]);
        call.arg("0").arg(1);
        match self.call(&call).await {
            Ok(_) => Ok(true),
            Err(Error::UnknownNamespace { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn usage(&self) -> Result<PoolUsage> {
        let mut scopes = BTreeMap::new();
        let mut cursor = "0".to_owned();
        loop {
            let mut call = scripts::USAGE.on(&[&self.keys.pool, &self.keys.usage]);
            call.arg(&cursor).arg(PAGE);
            let mut fields = self.call_for_fields(&call).await?;
            let (usage, next) = read_usage(&mut fields, &mut scopes)
                .ok_or_else(|| unexpected(call.operation(), fields))?;
            if next == "0" {
                return Ok(PoolUsage { scopes, ..usage });
            }
            cursor = next;
        }
    }

    pub(super) async fn holders(&self, from: Cursor, count: usize) -> Result<HoldingsPage> {
        let mut call = scripts::HOLDERS.on(&self.keys.all());
        call.arg(from.0).arg(count.clamp(1, PAGE));
        let mut fields = self.call_for_fields(&call).await?;
        read_holdings(&mut fields).ok_or_else(|| unexpected(call.operation(), fields))
    }
}

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
) -> Option<(PoolUsage, String)> {
    let (issued, issue_limit, quota) = (fields.number()?, fields.number()?, fields.number()?);
    let usage = PoolUsage {
        quota,
        registered: fields.number()?,
        pinned: fields.optional_number()?,
        in_use: (quota + issued).saturating_sub(issue_limit),
        holders: fields.number()?,
        next_fencing_number: FencingNumber::new(issued),
        scopes: BTreeMap::new(),
    };
    let next = fields.text()?;
    for (field, units) in pairs(fields.array()?.texts()?)? {
        if let Some(scope) = scope_of_field(&field) {
            scopes.insert(scope, count(&units)?);
        }
    }
    Some((usage, next))
}

fn read_holdings(fields: &mut Fields) -> Option<HoldingsPage> {
    let next = fields.number()?;
    let pairs = pairs(fields.array()?.texts()?)?;
    let holding = |(member, record): (String, String)| Holding {
        member: Member::found(member),
        record: parse_record(&record),
    };
    let next = (next != 0).then_some(Cursor(next));
    Some(HoldingsPage { holdings: pairs.into_iter().map(holding).collect(), next })
}
