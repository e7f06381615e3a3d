//! The replay's own account of what is in use, apart from the library's counters.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokenpool::ResourceConstraintsSpec;

use super::swf::{Job, Owner};

/// What must not be exceeded, in units.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) quota: u64,
    pub(super) project_cap: Option<u64>,
    pub(super) namespace_cap: Option<u64>,
}

impl Limits {
    pub(super) fn new(quota: u64, constraints: ResourceConstraintsSpec) -> Self {
        Self {
            quota,
            project_cap: constraints.project_scope_resource_constraint.map(|cap| cap.value()),
            namespace_cap: constraints.namespace_scope_resource_constraint.map(|cap| cap.value()),
        }
    }

    /// The largest job that can ever be granted.
    pub(super) fn largest(&self) -> u64 {
        let caps = [self.project_cap, self.namespace_cap];
        caps.into_iter().flatten().fold(self.quota, u64::min)
    }
}

/// Units in use, shared by the replicas.
///
/// A job is added after its grant has arrived and taken off before its release is sent. So at any
/// instant at least the jobs in the ledger hold their units, and whatever exceeds a limit here
/// exceeded it in truth.
#[derive(Debug)]
pub(super) struct Ledger {
    limits: Limits,
    books: Mutex<Books>,
}

#[derive(Debug, Default)]
struct Books {
    in_use: u64,
    projects: HashMap<Option<u64>, u64>,
    domains: HashMap<Owner, u64>,
    totals: Totals,
}

/// What the ledger has seen.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    /// Jobs granted.
    pub(super) granted: u64,
    /// Most units in use at once.
    pub(super) peak: u64,
    /// Grants with which the quota or a cap was exceeded.
    pub(super) overgrants: u64,
}

impl Ledger {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, books: Mutex::default() }
    }

    /// A grant has arrived.
    pub(super) fn add(&self, job: &Job) {
        let Limits { quota, project_cap, namespace_cap } = self.limits;
        let books = &mut *self.lock();
        let units = job.units.get();
        books.in_use += units;
        let in_project = add(&mut books.projects, job.owner.user, units);
        let in_domain = add(&mut books.domains, job.owner, units);
        let exceeded = books.in_use > quota
            || project_cap.is_some_and(|cap| in_project > cap)
            || namespace_cap.is_some_and(|cap| in_domain > cap);
        books.totals.granted += 1;
        books.totals.peak = books.totals.peak.max(books.in_use);
        books.totals.overgrants += u64::from(exceeded);
    }

    /// A release is about to be sent.
    pub(super) fn take_off(&self, job: &Job) {
        let books = &mut *self.lock();
        let units = job.units.get();
        books.in_use -= units;
        take_off(&mut books.projects, &job.owner.user, units);
        take_off(&mut books.domains, &job.owner, units);
    }

    pub(super) fn totals(&self) -> Totals {
        self.lock().totals
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn add<K: Eq + Hash>(account: &mut HashMap<K, u64>, key: K, units: u64) -> u64 {
    let in_use = account.entry(key).or_default();
    *in_use += units;
    *in_use
}

fn take_off<K: Eq + Hash>(account: &mut HashMap<K, u64>, key: &K, units: u64) {
    if let Some(in_use) = account.get_mut(key) {
        *in_use -= units;
    }
}

#[cfg(test)]
mod tests {
    use tokenpool::{Result, Units};

    use super::*;

    fn job(user: u64, group: u64, units: i64) -> Result<Job> {
        let owner = Owner { user: Some(user), group: Some(group) };
        let units = Units::new(units)?;
        Ok(Job { number: 1, submit: 0, run_time: 1, units, owner, interactive: false })
    }

    #[test]
    fn grants_beyond_the_quota_are_seen() -> Result<()> {
        let ledger = Ledger::new(Limits::new(3, ResourceConstraintsSpec::NONE));
        ledger.add(&job(1, 1, 2)?);
        ledger.add(&job(2, 1, 1)?);
        assert_eq!((ledger.totals().peak, ledger.totals().overgrants), (3, 0));
        ledger.add(&job(3, 1, 1)?);
        assert_eq!((ledger.totals().peak, ledger.totals().overgrants), (4, 1));
        ledger.take_off(&job(1, 1, 2)?);
        ledger.add(&job(4, 1, 1)?);
        assert_eq!((ledger.totals().granted, ledger.totals().overgrants), (4, 1));
        Ok(())
    }

    #[test]
    fn grants_beyond_a_cap_are_seen() -> Result<()> {
        let constraints = ResourceConstraintsSpec::new(Some(3), Some(2))?;
        let ledger = Ledger::new(Limits::new(100, constraints));
        for (user, group, overgrants) in [(1, 1, 0), (1, 2, 1), (2, 2, 1), (2, 2, 2)] {
            ledger.add(&job(user, group, 2)?);
            assert_eq!(ledger.totals().overgrants, overgrants);
        }
        Ok(())
    }

    #[test]
    fn the_largest_job_fits_every_limit() -> Result<()> {
        let largest = |project, namespace| {
            let constraints = ResourceConstraintsSpec::new(project, namespace)?;
            Ok(Limits::new(10, constraints).largest())
        };
        assert_eq!(largest(None, None)?, 10);
        assert_eq!(largest(Some(3), Some(5))?, 3);
        assert_eq!(largest(Some(30), Some(0))?, 0);
        Ok(())
    }
}
