//! The jobs as they were played, and what can be read off them afterwards.

use std::collections::BTreeMap;

use super::swf::Owner;

/// A job that was granted, in seconds of the log's clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Played {
    pub(super) owner: Owner,
    pub(super) units: u64,
    pub(super) submitted: u64,
    pub(super) granted: u64,
    pub(super) ended: u64,
}

impl Played {
    pub(super) fn wait(&self) -> u64 {
        self.granted - self.submitted
    }
}

/// The units in use from second to second: each stands until the next.
pub(super) fn units_in_use(jobs: &[Played]) -> Vec<(u64, u64)> {
    let mut changes: BTreeMap<u64, i64> = BTreeMap::new();
    for job in jobs {
        let units = i64::try_from(job.units).unwrap_or(i64::MAX);
        *changes.entry(job.granted).or_default() += units;
        *changes.entry(job.ended).or_default() -= units;
    }
    let mut in_use = 0;
    let state = |(second, change)| {
        in_use += change;
        (second, u64::try_from(in_use).unwrap_or_default())
    };
    changes.into_iter().map(state).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_in_use_rise_and_fall_with_the_jobs() {
        let job = |units, granted, ended| {
            let owner = Owner { user: Some(1), group: None };
            Played { owner, units, submitted: 0, granted, ended }
        };
        let jobs = [job(2, 0, 10), job(3, 5, 10), job(1, 10, 10)];
        assert_eq!(units_in_use(&jobs), [(0, 2), (5, 5), (10, 0)]);
        assert_eq!(units_in_use(&[]), []);
    }
}
