//! Whether a call costs the same however much the pool holds.

use tokenpool::{Quota, QuotaChange};

use crate::Scale;
use crate::calls::{Calls, Token};
use crate::load::{FULL, Load, Packed};
use crate::report::{Bound, Figure, Report, median};
use crate::stage::{AMPLE, Stage, pool_name};

pub(crate) const FIGURE: Figure = Figure {
    name: "flatness",
    how: "cost as in server_cost, in pools that stand side by side on one server, in bursts of \
          1600 claims that alternate between the pools over 60 rounds. The number of holders stays: \
          each claim is followed by the release of another token, the one granted longest ago (in \
          pools smaller than a burst, the one just granted). The releases go as EVAL, which \
          commandstats counts by itself. For the refused claims the quota is pinned to what is in \
          use. The pools with many projects have 10 000 holders, as many in each project.",
    run,
};

/// A pool that is kept at a number of holders.
struct Pool {
    name: String,
    calls: Calls,
    holders: u64,
    projects: u64,
    /// Tokens claimed so far; the last `holders` of them are held.
    claimed: u64,
    granted: Vec<f64>,
    refused: Vec<f64>,
}

impl Pool {
    fn token(&self, n: u64) -> Token {
        match self.projects {
            1 => Token::nth(n),
            projects => Token::nth(n).in_project(n % projects),
        }
    }

    fn fill(&mut self, load: &mut Load) {
        while self.claimed < self.holders {
            let next = self.holders.min(self.claimed + 100_000);
            let claims = (self.claimed..next).map(|n| self.calls.allocate(&self.token(n)));
            load.run(&Packed::new(claims), &["granted"]);
            self.claimed = next;
        }
    }

    fn measure_granted(&mut self, stage: &mut Stage, load: &mut Load) {
        let burst = FULL as u64;
        let fresh = self.claimed..self.claimed + burst;
        let distance = if self.holders < burst { 0 } else { self.holders };
        let pairs = fresh.flat_map(|n| {
            let claim = self.calls.allocate(&self.token(n));
            [claim, self.calls.uncounted_release(&self.token(n - distance))]
        });
        let packed = Packed::new(pairs);
        self.granted.push(stage.cost(FULL, || load.run(&packed, &["granted", "released"])));
        if distance > 0 {
            self.claimed += burst;
        }
    }

    fn measure_refused(&mut self, stage: &mut Stage, load: &mut Load) {
        let pool = pool_name(&self.name);
        let quota = Quota::new(self.holders as i64, u32::MAX).expect("the quota is good");
        let change = |stage: &Stage, change| {
            let change = stage.backend.change_quota(&pool, change);
            stage.runtime.block_on(change).expect("the quota can be changed");
        };
        let fresh = self.claimed..self.claimed + FULL as u64;
        let packed = Packed::new(fresh.map(|n| self.calls.allocate(&self.token(n))));
        change(stage, QuotaChange::Pin(quota));
        self.refused.push(stage.cost(FULL, || load.run(&packed, &["pool"])));
        change(stage, QuotaChange::Unpin);
    }
}

fn run(scale: Scale, report: &mut Report) {
    let sizes = scale.pick([10, 100, 100_000, 1_000_000], [10, 100, 1000, 3000]);
    let in_projects = scale.pick(10_000, 2000);
    let projects = scale.pick([1, 50, 10_000], [1, 50, 2000]);
    let shapes: Vec<(String, u64, u64)> = (sizes.map(|holders| (holders, 1)).into_iter())
        .chain(projects.map(|projects| (in_projects, projects)))
        .map(|(holders, projects)| (format!("holders-{holders}-{projects}"), holders, projects))
        .collect();
    let quotas: Vec<_> = shapes.iter().map(|(name, ..)| (name.as_str(), AMPLE)).collect();
    let mut stage = Stage::start(&quotas);
    let mut load = stage.load();
    let mut pools: Vec<_> = shapes
        .into_iter()
        .map(|(name, holders, projects)| {
            let calls = stage.calls(&name);
            let (granted, refused) = Default::default();
            Pool { name, calls, holders, projects, claimed: 0, granted, refused }
        })
        .collect();
    for pool in &mut pools {
        pool.fill(&mut load);
    }
    for _ in 0..scale.pick(60, 2) {
        for pool in &mut pools {
            pool.measure_granted(&mut stage, &mut load);
            pool.measure_refused(&mut stage, &mut load);
        }
    }

    let costs: Vec<_> =
        pools.into_iter().map(|pool| (median(pool.granted), median(pool.refused))).collect();
    let mut rows = |what: &str, cost: usize, base: usize, bound| {
        for (case, cost, base) in
            [("granted", costs[cost].0, costs[base].0), ("refused", costs[cost].1, costs[base].1)]
        {
            let note = format!("{cost:.2} / {base:.2} µs");
            report.row(format!("{case}, {what}"), cost / base, bound, &note);
        }
    };
    let [_, some, many, most] = sizes;
    rows(&format!("{some} holders / 10"), 1, 0, Bound::None);
    rows(&format!("{many} holders / 10"), 2, 0, Bound::AtMost(1.2));
    rows(&format!("{most} holders / 10"), 3, 0, Bound::AtMost(1.5));
    let [_, some, many] = projects;
    rows(&format!("{some} projects / 1"), 5, 4, Bound::None);
    rows(&format!("{many} projects / 1"), 6, 4, Bound::AtMost(1.2));
}
