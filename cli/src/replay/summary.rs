//! What a replay tells at its end.

use serde::Serialize;

use super::fairness::Project;
use super::played::Played;
use crate::format::or_dash;
use crate::output::{Answer, lines, properties, table};

/// How many projects people are shown.
const SHOWN: usize = 10;

/// JSON of `replay`.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    /// `memory`, `redis` or `noop`.
    pub(super) backend: &'static str,
    /// Replicas that shared the pool.
    pub(super) replicas: u16,
    /// Jobs replayed: granted or too large.
    pub(super) jobs: u64,
    /// Jobs granted.
    pub(super) granted: u64,
    /// Jobs that were not granted at once.
    pub(super) refusals: u64,
    /// Most units in use at once, in the replay's own account.
    pub(super) units_peak: u64,
    /// Units of the pool.
    pub(super) quota: u64,
    /// Grants with which, in the replay's own account, the quota or a cap was exceeded.
    pub(super) overgrants: u64,
    /// Units of this replay that the pool lists at the end.
    pub(super) still_held: u64,
    /// From submission to grant, in seconds of the log's clock.
    pub(super) wait_seconds: Waits,
    /// Real time the replay took.
    pub(super) elapsed_seconds: f64,
    /// Jobs larger than the quota or a cap, which were not waited for.
    pub(super) too_large: u64,
    /// Lines of the log without a job that ran.
    pub(super) skipped: u64,
    /// In which order tickets got their turn: `fifo`, `priority` or `fair`.
    pub(super) order: &'static str,
    /// Jain's index of the parts of their fair shares that the projects got: 1 if all fared alike; null
    /// if no job was granted.
    pub(super) fairness: Option<f64>,
    /// The projects, those that waited longest first.
    pub(super) projects: Vec<Project>,
}

/// Percentiles by nearest rank; null if no job was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Waits {
    p50: Option<u64>,
    p90: Option<u64>,
    p99: Option<u64>,
    max: Option<u64>,
}

impl Waits {
    pub(super) fn new(played: &[Played]) -> Self {
        let mut waits: Vec<_> = played.iter().map(Played::wait).collect();
        waits.sort_unstable();
        Self::of(&waits)
    }

    fn of(sorted: &[u64]) -> Self {
        let rank = |percent| percentile(sorted, percent);
        Self { p50: rank(50), p90: rank(90), p99: rank(99), max: rank(100) }
    }
}

/// By nearest rank, of waits in ascending order; none if there are none.
pub(super) fn percentile(sorted: &[u64], percent: usize) -> Option<u64> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.checked_sub(1)?).copied()
}

/// The projects that waited longest.
fn worst(projects: &[Project]) -> String {
    let header: &[&str] = &["PROJECT", "JOBS", "MEAN WAIT", "P50", "P99", "MAX", "OF FAIR SHARE"];
    let rows = projects.iter().take(SHOWN).map(|project| {
        let waits = project.wait_seconds;
        vec![
            project.project.clone(),
            project.jobs.to_string(),
            format!("{} s", waits.mean.round()),
            format!("{} s", waits.p50),
            format!("{} s", waits.p99),
            format!("{} s", waits.max),
            format!("{:.1} %", project.of_fair_share * 100.0),
        ]
    });
    let title = match projects.len() {
        0 => return String::new(),
        1..=SHOWN => "projects that waited longest:".to_owned(),
        all => format!("projects that waited longest ({SHOWN} of {all}):"),
    };
    format!("\n{title}\n{}", lines(&table(Some(header), rows)))
}

impl Answer for Summary {
    fn text(&self) -> String {
        let seconds = |wait: Option<u64>| wait.map_or("-".to_owned(), |wait| format!("{wait} s"));
        let Waits { p50, p90, p99, max } = self.wait_seconds;
        let waits = [("p50", p50), ("p90", p90), ("p99", p99), ("max", max)];
        let waits = waits.map(|(name, wait)| format!("{name} {}", seconds(wait)));
        let summary = properties([
            ("backend", self.backend.to_owned()),
            ("replicas", self.replicas.to_string()),
            ("jobs", self.jobs.to_string()),
            ("granted", self.granted.to_string()),
            ("too large", self.too_large.to_string()),
            ("skipped lines", self.skipped.to_string()),
            ("waited", self.refusals.to_string()),
            ("order", self.order.to_owned()),
            ("units, peak", self.units_peak.to_string()),
            ("quota", self.quota.to_string()),
            ("overgrants", self.overgrants.to_string()),
            ("still held", self.still_held.to_string()),
            ("wait", waits.join(", ")),
            ("fairness", or_dash(self.fairness)),
            ("elapsed", format!("{} s", self.elapsed_seconds)),
        ]);
        summary + &worst(&self.projects)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let waits = |sorted: &[u64]| {
            let Waits { p50, p90, p99, max } = Waits::of(sorted);
            [p50, p90, p99, max]
        };
        assert_eq!(waits(&[]), [None; 4]);
        assert_eq!(waits(&[7]), [Some(7); 4]);
        assert_eq!(waits(&[0, 10, 20]), [Some(10), Some(20), Some(20), Some(20)]);
        let hundred: Vec<_> = (1..=100).collect();
        assert_eq!(waits(&hundred), [Some(50), Some(90), Some(99), Some(100)]);
    }
}
