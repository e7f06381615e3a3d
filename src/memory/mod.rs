//! The backend that keeps grants in this process, by the same rules as the one on Redis.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;

use crate::audit::Recorded;
use crate::backend::Backend;
use crate::claim::{
    Claim, Claimant, FencingNumber, Grant, Limit, Outcome, Refusal, Released, Units,
};
use crate::error::{Error, Result};
use crate::execution::{ExecutionId, Scope};
use crate::name::{AllocationToken, Member, PoolName};
use crate::pool::{
    CheckReport, Cursor, Deletion, GrantRecord, Holding, HoldingsPage, PoolQuota, PoolUsage,
    QuotaChange, RepairReport,
};

/// Keeps pools in the memory of this process.
///
/// Shared as `Arc<MemoryBackend>`, it serves any number of managers; what it keeps ends with it.
#[derive(Debug, Default)]
pub struct MemoryBackend {
    pools: RwLock<HashMap<PoolName, Arc<Mutex<Pool>>>>,
}

/// One pool. Units in use are kept as counters and not summed up, so that deciding costs the same
/// whatever the number of grants.
#[derive(Debug)]
struct Pool {
    quota: u64,
    registered: u64,
    pinned: Option<u64>,
    /// Units granted since the pool was made, from a start that no earlier pool of the name reached;
    /// the next grant's fencing number.
    issued: u64,
    in_use: u64,
    projects: HashMap<String, ProjectUse>,
    grants: HashMap<Member, Record>,
}

#[derive(Debug, Default)]
struct ProjectUse {
    in_use: u64,
    domains: BTreeMap<String, u64>,
}

#[derive(Debug)]
struct Record {
    units: Units,
    fencing_number: FencingNumber,
    since: SystemTime,
    holder: String,
    execution: String,
}

impl MemoryBackend {
    /// A backend without pools.
    pub fn new() -> Self {
        Self::default()
    }

    fn with<T>(&self, name: &PoolName, f: impl FnOnce(&mut Pool) -> T) -> Result<T> {
        let pools = self.pools.read().unwrap_or_else(PoisonError::into_inner);
        let pool = pools.get(name).ok_or_else(|| Error::UnknownNamespace { pool: name.clone() })?;
        Ok(f(&mut lock(pool)))
    }
}

/// A pool is changed only after everything that can fail, so a panic elsewhere leaves it right.
fn lock(pool: &Mutex<Pool>) -> MutexGuard<'_, Pool> {
    pool.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    fn new(quota: u64) -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            quota,
            registered: quota,
            pinned: None,
            issued: u64::try_from(since_epoch.as_micros()).unwrap_or_default().max(1),
            in_use: 0,
            projects: HashMap::new(),
            grants: HashMap::new(),
        }
    }

    fn allocate(&mut self, claimant: Claimant<'_>, claim: &Claim) -> Result<Outcome> {
        let Claimant { execution, constraints, holder } = claimant;
        let member = Member::new(execution, &claim.token);
        let vacant = match self.grants.entry(member) {
            Entry::Vacant(vacant) => vacant,
            Entry::Occupied(held) => {
                let record = held.get();
                if record.units != claim.units || record.execution != execution.name() {
                    return Err(Error::Conflict {
                        member: held.key().clone(),
                        held_units: record.units.get(),
                        held_by: record.execution.clone(),
                    });
                }
                let grant = Grant::new(record.units, Some(record.fencing_number), true);
                return Ok(Outcome::Granted(grant));
            }
        };

        let units = claim.units.get();
        if self.in_use + units > self.quota {
            return Ok(refused(Limit::Quota, self.in_use, self.quota));
        }
        let (project, domain) = (execution.project(), execution.domain());
        let project_use = self.projects.get(project);
        let in_project = project_use.map_or(0, |project| project.in_use);
        if let Some(cap) = constraints.project_scope_resource_constraint
            && in_project + units > cap.value()
        {
            let scope = Scope::Project { project: project.to_owned() };
            return Ok(refused(Limit::Cap(scope), in_project, cap.value()));
        }
        if let Some(cap) = constraints.namespace_scope_resource_constraint {
            let in_domain =
                project_use.and_then(|project| project.domains.get(domain)).map_or(0, |n| *n);
            if in_domain + units > cap.value() {
                let scope =
                    Scope::Domain { project: project.to_owned(), domain: domain.to_owned() };
                return Ok(refused(Limit::Cap(scope), in_domain, cap.value()));
            }
        }

        let fencing_number = FencingNumber::new(self.issued);
        vacant.insert(Record {
            units: claim.units,
            fencing_number,
            since: SystemTime::now(),
            holder: holder.to_string(),
            execution: execution.name().to_owned(),
        });
        self.issued += units;
        self.in_use += units;
        let project = match self.projects.get_mut(project) {
            Some(project) => project,
            None => self.projects.entry(project.to_owned()).or_default(),
        };
        project.in_use += units;
        match project.domains.get_mut(domain) {
            Some(in_domain) => *in_domain += units,
            None => drop(project.domains.insert(domain.to_owned(), units)),
        }
        Ok(Outcome::Granted(Grant::new(claim.units, Some(fencing_number), false)))
    }

    /// Gives back a member's units; only those of `execution`, if one is given.
    fn release(&mut self, member: Member, execution: Option<&ExecutionId>) -> Released {
        let Entry::Occupied(held) = self.grants.entry(member) else { return Released::NotHeld };
        if execution.is_some_and(|execution| execution.name() != held.get().execution) {
            return Released::NotHeld;
        }
        let (member, record) = held.remove_entry();
        let units = record.units.get();
        self.in_use -= units;
        if let Some((project, domain)) = member.scope()
            && let Some(project_use) = self.projects.get_mut(project)
        {
            project_use.in_use -= units;
            if let Some(in_domain) = project_use.domains.get_mut(domain) {
                *in_domain -= units;
                if *in_domain == 0 {
                    project_use.domains.remove(domain);
                }
            }
            if project_use.in_use == 0 {
                self.projects.remove(project);
            }
        }
        Released::Units(units)
    }

    fn change_quota(&mut self, change: QuotaChange) -> PoolQuota {
        let before = self.registered;
        match change {
            QuotaChange::Register(quota) | QuotaChange::Create(quota) => {
                self.registered = quota.get();
            }
            QuotaChange::Pin(quota) => self.pinned = Some(quota.get()),
            QuotaChange::Unpin => self.pinned = None,
        }
        self.quota = self.pinned.unwrap_or(self.registered);
        PoolQuota::new(self.quota, self.registered, self.pinned, Some(before))
    }

    fn usage(&self) -> PoolUsage {
        PoolUsage {
            quota: self.quota,
            registered: self.registered,
            pinned: self.pinned,
            in_use: self.in_use,
            holders: self.grants.len() as u64,
            next_fencing_number: FencingNumber::new(self.issued),
            scopes: self.counters(),
        }
    }

    fn counters(&self) -> BTreeMap<Scope, u64> {
        let mut scopes = BTreeMap::new();
        for (project, project_use) in &self.projects {
            scopes.insert(Scope::Project { project: project.clone() }, project_use.in_use);
            for (domain, in_use) in &project_use.domains {
                let scope = Scope::Domain { project: project.clone(), domain: domain.clone() };
                scopes.insert(scope, *in_use);
            }
        }
        scopes
    }

    /// A page in the order of fencing numbers, which a grant keeps while it is held.
    fn holders(&self, from: Cursor, count: usize) -> HoldingsPage {
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
                since: whole_seconds(record.since),
                holder: record.holder.clone(),
                execution: Some(record.execution.clone()),
            }),
        });
        HoldingsPage { holdings: holdings.collect(), next }
    }

    fn check(&self) -> CheckReport {
        let mut recorded = Recorded::default();
        for (member, record) in &self.grants {
            recorded.add(member, record.units.get());
        }
        CheckReport {
            members: self.grants.len() as u64,
            records: self.grants.len() as u64,
            drift: recorded.drift(self.in_use as i64, &self.counters()),
            ..CheckReport::default()
        }
    }
}

fn refused(limit: Limit, in_use: u64, size: u64) -> Outcome {
    Outcome::Refused(Refusal::new(limit, in_use, size))
}

fn whole_seconds(time: SystemTime) -> SystemTime {
    let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    UNIX_EPOCH + Duration::from_secs(since_epoch.as_secs())
}

#[async_trait]
impl Backend for MemoryBackend {
    fn id(&self) -> &'static str {
        "memoryresourcemanager"
    }

    fn keeps_grants(&self) -> bool {
        true
    }

    async fn allocate(
        &self,
        pool: &PoolName,
        claimant: Claimant<'_>,
        claims: &[Claim],
    ) -> Result<Vec<Result<Outcome>>> {
        if claims.is_empty() {
            return Ok(Vec::new());
        }
        self.with(pool, |pool| claims.iter().map(|claim| pool.allocate(claimant, claim)).collect())
    }

    async fn release(
        &self,
        pool: &PoolName,
        execution: &ExecutionId,
        tokens: &[AllocationToken],
    ) -> Result<Vec<Released>> {
        if tokens.is_empty() {
            return Ok(Vec::new());
        }
        self.with(pool, |pool| {
            let members = tokens.iter().map(|token| Member::new(execution, token));
            members.map(|member| pool.release(member, Some(execution))).collect()
        })
    }

    async fn release_member(&self, pool: &PoolName, member: &Member) -> Result<Released> {
        self.with(pool, |pool| pool.release(member.clone(), None))
    }

    async fn change_quota(&self, name: &PoolName, change: QuotaChange) -> Result<PoolQuota> {
        let mut pools = self.pools.write().unwrap_or_else(PoisonError::into_inner);
        match (pools.get(name), change) {
            (Some(pool), QuotaChange::Create(_)) => {
                Err(Error::PoolExists { pool: name.clone(), quota: lock(pool).quota })
            }
            (Some(pool), _) => Ok(lock(pool).change_quota(change)),
            (None, QuotaChange::Register(quota) | QuotaChange::Create(quota)) => {
                let quota = quota.get();
                pools.insert(name.clone(), Arc::new(Mutex::new(Pool::new(quota))));
                Ok(PoolQuota::new(quota, quota, None, None))
            }
            (None, QuotaChange::Pin(_) | QuotaChange::Unpin) => {
                Err(Error::UnknownNamespace { pool: name.clone() })
            }
        }
    }

    async fn delete_pool(&self, name: &PoolName, deletion: Deletion) -> Result<u64> {
        let mut pools = self.pools.write().unwrap_or_else(PoisonError::into_inner);
        let Entry::Occupied(entry) = pools.entry(name.clone()) else {
            return Err(Error::UnknownNamespace { pool: name.clone() });
        };
        let (holders, units) = {
            let pool = lock(entry.get());
            (pool.grants.len() as u64, pool.in_use)
        };
        if holders > 0 && deletion == Deletion::OnlyUnused {
            return Err(Error::PoolInUse { pool: name.clone(), holders, units });
        }
        entry.remove();
        Ok(units)
    }

    async fn pools(&self) -> Result<Vec<PoolName>> {
        let pools = self.pools.read().unwrap_or_else(PoisonError::into_inner);
        let mut names: Vec<_> = pools.keys().cloned().collect();
        names.sort_unstable();
        Ok(names)
    }

    async fn usage(&self, pool: &PoolName) -> Result<PoolUsage> {
        self.with(pool, |pool| pool.usage())
    }

    async fn holders(&self, pool: &PoolName, from: Cursor, count: usize) -> Result<HoldingsPage> {
        self.with(pool, |pool| pool.holders(from, count))
    }

    async fn check(&self, pool: &PoolName) -> Result<CheckReport> {
        self.with(pool, |pool| pool.check())
    }

    async fn repair(&self, pool: &PoolName) -> Result<RepairReport> {
        // Only this file writes here, under one lock: there is nothing that could need it.
        self.with(pool, |_| RepairReport::default())
    }
}
