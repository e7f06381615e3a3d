//! What operators and registrars do to a pool and see of it.

use std::time::Duration;

use super::now::{Now, time_of_millis, time_of_seconds};
use super::pool::Pool;
use crate::audit::Recorded;
use crate::error::{Error, Result};
use crate::name::Member;
use crate::outcome::{FencingNumber, Released};
use crate::pool::{
    CheckReport, Cursor, Deletion, GrantRecord, Holding, HoldingsPage, PoolQuota, PoolUsage,
    QuotaChange, Revocation, RevocationRecord,
};
use crate::ticket::{QueueChange, TicketRecord, TicketsPage};

/// Revocations that are kept.
const JOURNAL: usize = 1000;

impl Pool {
    /// Changes the quota and hands units on that a larger one adds.
    pub(super) fn change_quota(&mut self, now: Now, change: QuotaChange) -> Result<PoolQuota> {
        let before = self.registered;
        match change {
            QuotaChange::Create(_) => {
                return Err(Error::PoolExists { pool: self.name.clone(), quota: self.quota });
            }
            QuotaChange::Register(quota) => self.registered = quota.get(),
            // It is there.
            QuotaChange::Restore(_) => {}
            QuotaChange::Pin(quota) => self.pinned = Some(quota.get()),
            QuotaChange::Unpin => self.pinned = None,
        }
        let wanted = self.pinned.unwrap_or(self.registered);
        if wanted != self.quota {
            self.quota = wanted;
            if !self.queue.is_empty() {
                self.settle(now);
            }
        }
        Ok(PoolQuota::new(self.quota, self.registered, self.pinned, Some(before)))
    }

    /// Changes weights, and the order if it is another one.
    pub(super) fn change_queue(&mut self, now: Now, change: &QueueChange) {
        for (project, &weight) in &change.weights {
            self.queue.set_weight(project, weight);
        }
        if let Some(order) = change.order.filter(|&order| order != self.queue.order()) {
            self.queue.set_order(order);
            self.settle(now);
        }
    }

    /// Takes away what a member holds, or its ticket, and writes it down.
    pub(super) fn revoke(
        &mut self,
        now: Now,
        member: &Member,
        revocation: &Revocation,
    ) -> Released {
        let released = if let Some(units) = self.free(member) {
            Released::Units(units.get())
        } else if self.withdraw(member).is_some() {
            Released::Withdrawn
        } else {
            return Released::NotHeld;
        };
        if self.journal.len() == JOURNAL {
            self.journal.pop_front();
        }
        self.journal.push_back(RevocationRecord {
            at: time_of_millis(now.millis()),
            member: member.clone(),
            operator: revocation.operator().to_owned(),
            reason: revocation.reason().to_owned(),
        });
        self.settle(now);
        released
    }

    /// The latest revocations, the latest first.
    pub(super) fn revocations(&self, count: usize) -> Vec<RevocationRecord> {
        self.journal.iter().rev().take(count).cloned().collect()
    }

    /// How many units would be lost; refuses while units are in use or awaited.
    pub(super) fn check_deletion(&self, deletion: Deletion) -> Result<u64> {
        let (holders, units) = (self.grants.len() as u64, self.in_use);
        let is_used = holders > 0 || !self.queue.is_empty();
        if is_used && deletion == Deletion::OnlyUnused {
            return Err(Error::PoolInUse { pool: self.name.clone(), holders, units });
        }
        Ok(units)
    }

    pub(super) fn usage(&self) -> PoolUsage {
        PoolUsage {
            quota: self.quota,
            registered: self.registered,
            pinned: self.pinned,
            in_use: self.in_use,
            holders: self.grants.len() as u64,
            first_fencing_number: FencingNumber::new(self.made),
            next_fencing_number: FencingNumber::new(self.issued),
            tickets: self.queue.len(),
            learning: None,
            lost: None,
            order: self.queue.order(),
            weights: self.queue.weights().clone(),
            scopes: self.scopes.counters(),
        }
    }

    /// A page in the order of fencing numbers, which a grant keeps while it is held.
    pub(super) fn holders(&self, now: Now, from: Cursor, count: usize) -> HoldingsPage {
        let mut page: Vec<_> =
            self.grants.iter().filter(|(_, r)| r.fencing_number.get() >= from.0).collect();
        page.sort_unstable_by_key(|(_, record)| record.fencing_number);
        let next = page.get(count.max(1)).map(|(_, record)| Cursor(record.fencing_number.get()));
        page.truncate(count.max(1));
        let holdings = page.into_iter().map(|(member, record)| Holding {
            member: member.clone(),
            record: Some(GrantRecord {
                units: record.units,
                fencing_number: record.fencing_number,
                since: time_of_seconds(record.since),
                holder: record.holder.clone(),
                execution: Some(record.execution.clone()),
            }),
            lease_left: self.leases.score(member).map(|ends| left(now, ends)),
        });
        HoldingsPage { holdings: holdings.collect(), next }
    }

    /// A page by rank. Tickets of the same rank stay on one page, so that the next begins with another rank.
    pub(super) fn tickets(&self, now: Now, from: Cursor, count: usize) -> TicketsPage {
        let mut page = TicketsPage { tickets: Vec::new(), next: None };
        let mut last = None;
        for (member, filed) in self.queue.from(from.0) {
            if page.tickets.len() >= count.max(1) && last != Some(filed.rank) {
                page.next = Some(Cursor(filed.rank));
                break;
            }
            last = Some(filed.rank);
            let waiting = &filed.waiting;
            let caps = waiting.caps;
            page.tickets.push(TicketRecord {
                member: member.clone(),
                units: waiting.units,
                since: time_of_seconds(filed.since),
                time_left: left(now, self.leases.score(member).unwrap_or_default()),
                project_cap: caps.project_scope_resource_constraint.map(|cap| cap.value()),
                domain_cap: caps.namespace_scope_resource_constraint.map(|cap| cap.value()),
                holder: waiting.holder.clone(),
                execution: waiting.execution.clone(),
            });
        }
        page
    }

    pub(super) fn check(&self) -> CheckReport {
        let mut recorded = Recorded::default();
        for (member, record) in &self.grants {
            recorded.add(member, record.units.get());
        }
        CheckReport {
            members: self.grants.len() as u64,
            records: self.grants.len() as u64,
            drift: recorded.drift(self.in_use as i64, &self.scopes.counters()),
            tickets: self.queue.len(),
            ..CheckReport::default()
        }
    }
}

fn left(now: Now, ends: u64) -> Duration {
    Duration::from_millis(ends.saturating_sub(now.millis()))
}
