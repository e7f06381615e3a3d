//! How long the projects waited, and how fairly they shared the units.
//!
//! The measure is Jain's index, (Σx)² / (n Σx²): 1 if all n fare alike, 1/n if one has everything
//! (R. Jain, D. Chiu, W. Hawe: A Quantitative Measure of Fairness and Discrimination for Resource
//! Allocation in Shared Computer Systems, DEC-TR-301, 1984). As there, x is throughput as a part of
//! what would have been fair: of the project's max-min fair share. Waiting times would not do: who
//! submits too much must wait longer than others where shares are fair. Nor would throughput as a
//! whole: in the end every job has run, in whatever order.

use std::collections::BTreeMap;

use serde::Serialize;

use super::played::Played;
use super::replica::project_name;
use super::shares::shares;
use super::summary::percentile;

/// JSON of a project in `replay`.
#[derive(Debug, Serialize)]
pub(super) struct Project {
    /// The project.
    pub(super) project: String,
    /// Its jobs that were granted.
    pub(super) jobs: u64,
    /// From submission to grant, in seconds of the log's clock.
    pub(super) wait_seconds: ProjectWaits,
    /// What part of its fair share it got, from 0 to 1.
    pub(super) of_fair_share: f64,
}

/// JSON of a project's waits: the mean has a fraction, percentiles are by nearest rank.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct ProjectWaits {
    pub(super) mean: f64,
    pub(super) p50: u64,
    pub(super) p99: u64,
    pub(super) max: u64,
}

/// The projects, those that waited longest first.
pub(super) fn projects(played: &[Played], quota: u64) -> Vec<Project> {
    let shares = shares(played, quota);
    let mut of_projects: BTreeMap<Option<u64>, Vec<&Played>> = BTreeMap::new();
    for job in played {
        of_projects.entry(job.owner.user).or_default().push(job);
    }
    let mut projects: Vec<_> = shares
        .into_iter()
        .filter_map(|(user, share)| {
            let jobs = of_projects.remove(&user)?;
            Some(project(user, &jobs, share))
        })
        .collect();
    projects.sort_by(|a, b| b.wait_seconds.mean.total_cmp(&a.wait_seconds.mean));
    projects
}

fn project(user: Option<u64>, jobs: &[&Played], share: f64) -> Project {
    let mut waits: Vec<_> = jobs.iter().map(|job| job.wait()).collect();
    waits.sort_unstable();
    let rank = |percent| percentile(&waits, percent).unwrap_or_default();
    let mean = waits.iter().sum::<u64>() as f64 / waits.len() as f64;
    Project {
        project: project_name(user),
        jobs: jobs.len() as u64,
        wait_seconds: ProjectWaits {
            mean: thousandths(mean),
            p50: rank(50),
            p99: rank(99),
            max: rank(100),
        },
        of_fair_share: thousandths(share),
    }
}

/// Jain's index of the parts of their fair shares that the projects got; none without projects.
pub(super) fn index(projects: &[Project]) -> Option<f64> {
    let shares: Vec<_> = projects.iter().map(|project| project.of_fair_share).collect();
    jain(&shares).map(thousandths)
}

fn jain(shares: &[f64]) -> Option<f64> {
    let sum: f64 = shares.iter().sum();
    let squares: f64 = shares.iter().map(|share| share * share).sum();
    match shares.len() {
        0 => None,
        // All have the same: nothing.
        _ if squares == 0.0 => Some(1.0),
        n => Some(sum * sum / (n as f64 * squares)),
    }
}

pub(super) fn thousandths(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::super::swf::Owner;
    use super::*;

    #[test]
    fn the_index_is_1_for_equals_and_its_least_for_one_who_has_everything() {
        assert_eq!(jain(&[]), None);
        assert_eq!(jain(&[0.0, 0.0]), Some(1.0));
        assert_eq!(jain(&[3.0, 3.0, 3.0]), Some(1.0));
        assert_eq!(jain(&[5.0, 0.0, 0.0, 0.0]), Some(0.25));
        assert_eq!(jain(&[1.0, 3.0]), Some(0.8));
    }

    #[test]
    fn who_waited_longest_comes_first() {
        let job = |user, submitted, granted| Played {
            owner: Owner { user: Some(user), group: None },
            units: 1,
            submitted,
            granted,
            ended: granted + 1,
        };
        let played = [job(1, 0, 0), job(2, 0, 4), job(2, 0, 1), job(1, 0, 1)];
        let projects = projects(&played, 1);
        let names: Vec<_> = projects.iter().map(|project| &*project.project).collect();
        assert_eq!(names, ["user-2", "user-1"]);
        let ProjectWaits { mean, p50, p99, max } = projects[0].wait_seconds;
        assert_eq!((mean, p50, p99, max), (2.5, 1, 4, 4));
        assert_eq!((projects[0].jobs, projects[1].wait_seconds.mean), (2, 0.5));
    }
}
