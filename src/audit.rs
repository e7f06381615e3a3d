//! Comparing a pool's counters with what its records add up to.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::execution::Scope;
use crate::name::Member;
use crate::pool::Drift;

/// What the records of a pool add up to.
#[derive(Debug, Default)]
pub(crate) struct Recorded {
    units: u64,
    scopes: BTreeMap<Scope, u64>,
}

impl Recorded {
    pub(crate) fn add(&mut self, member: &Member, units: u64) {
        self.units += units;
        if let Some((project, domain)) = member.scope() {
            let (project, domain) = (project.to_owned(), domain.to_owned());
            *self.scopes.entry(Scope::Project { project: project.clone() }).or_default() += units;
            *self.scopes.entry(Scope::Domain { project, domain }).or_default() += units;
        }
    }

    /// The counters that differ.
    pub(crate) fn drift<N>(mut self, in_use: i64, counters: &BTreeMap<Scope, N>) -> Vec<Drift>
    where
        N: Copy + TryInto<i64>,
    {
        let mut drift = Vec::new();
        let mut compare = |scope: Option<&Scope>, counted: i64, recorded: u64| {
            let recorded = recorded as i64;
            if counted != recorded {
                drift.push(Drift { scope: scope.cloned(), counted, recorded });
            }
        };
        compare(None, in_use, self.units);
        for (scope, &counted) in counters {
            let recorded = match self.scopes.entry(scope.clone()) {
                Entry::Occupied(recorded) => recorded.remove(),
                Entry::Vacant(_) => 0,
            };
            compare(Some(scope), counted.try_into().unwrap_or(i64::MAX), recorded);
        }
        for (scope, &recorded) in &self.scopes {
            compare(Some(scope), 0, recorded);
        }
        drift
    }
}
