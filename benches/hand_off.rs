//! What it costs the server to hand a unit on, however many wait.

use std::collections::HashMap;

use redis::Commands as _;
use tokenpool::{Order, QueueChange};

use crate::Scale;
use crate::calls::{Calls, Terms, Token};
use crate::load::{Load, Packed};
use crate::report::{Bound, Figure, Report, median};
use crate::stage::{CAP, Stage, pool_name};

pub(crate) const FIGURE: Figure = Figure {
    name: "hand_off",
    how: "cost as in server_cost of releases that each hand a unit on, in two pools side by side on \
          one server, one with 10 tickets and one with 100 000, in bursts of 320 that alternate over \
          40 rounds, after 4 in which projects at their caps lose their turns. The number of tickets \
          stays: each release is followed by the filing of a new ticket, which goes as EVAL. Who \
          holds, and is to be released, is read from the server between the bursts. Tickets have all \
          priorities and a channel on which a process listens; they belong to two projects in turn \
          or, where 999 of 1000 projects stand at their caps, half of them belong to those, \
          and the free project gets the hand-offs.",
    run,
};

/// Units that go from hand to hand, so many releases a burst.
const UNITS: u64 = 320;
/// Bursts before the first that counts.
const WARM_UP: u64 = 4;
/// Projects at their caps, where there are such.
const CAPPED: u64 = 999;

/// To whom tickets belong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Plain,
    Capped,
}

/// A pool that is kept at a number of tickets.
struct Pool {
    calls: Calls,
    shape: Shape,
    depth: u64,
    /// Who holds or waits and is not at a cap, by member.
    tokens: HashMap<String, Token>,
    /// Tokens named so far.
    named: u64,
    costs: Vec<f64>,
}

fn run(scale: Scale, report: &mut Report) {
    for order in [Order::Fifo, Order::Priority, Order::Fair] {
        for shape in [Shape::Plain, Shape::Capped] {
            let depths = scale.pick([10, 100_000], [10, 1000]);
            let [few, many] = costs(scale, order, shape, depths);
            let what = match shape {
                Shape::Plain => "two projects",
                Shape::Capped => "999 of 1000 projects at their caps",
            };
            let what = format!("{order}, {what}: {} tickets / {}", depths[1], depths[0]);
            let note = format!("{many:.1} / {few:.1} µs");
            report.row(what, many / few, Bound::AtMost(1.3), &note);
        }
    }
}

/// What a release costs that hands a unit on, at each number of tickets.
fn costs(scale: Scale, order: Order, shape: Shape, depths: [u64; 2]) -> [f64; 2] {
    let names = depths.map(|depth| format!("tickets-{depth}"));
    let capped = if shape == Shape::Capped { CAPPED } else { 0 };
    let quota = (UNITS + capped) as i64;
    let mut stage = Stage::start(&names.each_ref().map(|name| (name.as_str(), quota)));
    let mut load = Load::in_order(&stage.server);
    let mut pools = [0, 1].map(|at: usize| {
        let (name, change) = (pool_name(&names[at]), QueueChange::new().order(order));
        let change = stage.backend.change_queue(&name, &change);
        stage.runtime.block_on(change).expect("the order can be set");
        let calls = stage.calls(&names[at]);
        let (depth, tokens) = (depths[at], HashMap::new());
        Pool { calls, shape, depth, tokens, named: 0, costs: Vec::new() }
    });
    for pool in &mut pools {
        pool.fill(&mut load);
        // Each project at its cap loses its turn once.
        for _ in 0..WARM_UP {
            pool.measure(&mut stage, &mut load);
        }
        pool.costs.clear();
    }
    for _ in 0..scale.pick(40, 2) {
        for pool in &mut pools {
            pool.measure(&mut stage, &mut load);
        }
    }
    pools.map(|pool| median(pool.costs))
}

impl Pool {
    fn fill(&mut self, load: &mut Load) {
        if self.shape == Shape::Capped {
            let claims = (1..=CAPPED).map(|project| {
                let token = Token::nth(u64::MAX - project).in_project(project);
                self.calls.claim(&token, Terms { project_cap: 1, ..Terms::PLAIN })
            });
            load.run(&Packed::new(claims), &["granted"]);
        }
        let claims: Vec<_> = (0..UNITS)
            .map(|_| {
                let (token, _) = self.next();
                self.calls.allocate(&token)
            })
            .collect();
        load.run(&Packed::new(claims), &["granted"]);
        let tickets: Vec<_> = (0..self.depth).map(|n| self.file_first(n)).collect();
        load.run(&Packed::new(tickets), &["waiting"]);
    }

    /// A claim for one of the first tickets.
    fn file_first(&mut self, n: u64) -> redis::Cmd {
        if self.shape == Shape::Capped && !n.is_multiple_of(2) {
            let token = Token::nth(u64::MAX / 2 + n).in_project(1 + n % CAPPED);
            let terms = Terms { project_cap: 1, ticket: Some(n / 2 % 10), ..Terms::WAITING };
            return self.calls.claim(&token, terms);
        }
        let (token, terms) = self.next();
        self.calls.claim(&token, terms)
    }

    /// A new token that is not at a cap, and how it waits.
    fn next(&mut self) -> (Token, Terms) {
        let n = self.named;
        self.named += 1;
        let token = match self.shape {
            Shape::Plain => Token::nth(n).in_project(n % 2),
            Shape::Capped => Token::nth(n).in_project(0),
        };
        self.tokens.insert(token.member(&token.token), token.clone());
        (token, Terms { project_cap: CAP, ticket: Some(n / 2 % 10), ..Terms::WAITING })
    }

    /// Releases whoever holds.
    fn measure(&mut self, stage: &mut Stage, load: &mut Load) {
        let holders: Vec<String> =
            stage.admin.smembers(self.calls.pool()).expect("the holders can be listed");
        let holders: Vec<_> =
            holders.into_iter().filter_map(|member| self.tokens.remove(&member)).collect();
        assert_eq!(holders.len() as u64, UNITS, "every unit is held");
        let pairs = holders.into_iter().flat_map(|holder| {
            let release = self.calls.hand_on(&holder);
            let (token, terms) = self.next();
            [release, self.calls.uncounted_claim(&token, terms)]
        });
        let pairs = Packed::new(pairs.collect::<Vec<_>>());
        let run = || load.run(&pairs, &["released", "waiting"]);
        self.costs.push(stage.cost(UNITS as usize, run));
        let tickets: u64 = stage.admin.hget(self.calls.usage(), "tickets").expect("tickets wait");
        assert_eq!(tickets, self.depth, "the number of tickets stays");
    }
}
