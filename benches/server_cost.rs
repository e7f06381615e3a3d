//! What a call costs the server.

use crate::Scale;
use crate::calls::Token;
use crate::load::{FULL, Packed};
use crate::report::{Bound, Figure, Report, median};
use crate::stage::{AMPLE, Stage};

pub(crate) const FIGURE: Figure = Figure {
    name: "server_cost",
    how: "`usec` of EVALSHA in INFO commandstats, reset before each burst, divided by its calls. \
          Bursts of 6400 calls on 50 connections, 32 deep, from one thread; the bursts of all rows \
          alternate over 100 rounds, and the median of each row counts. The no-op is `return 1`, \
          called with the keys and arguments of a claim, since passing those is part of any \
          script's price. The pool has 1000 holders, the refused claims go to a full one; claims \
          have two caps, and tokens of different executions. The calls are packed beforehand and \
          proved, by MONITOR, to be byte for byte those of the library.",
    run,
};

fn run(scale: Scale, report: &mut Report) {
    let mut stage = Stage::start(&[("default", AMPLE), ("full", 1)]);
    let (calls, full) = (stage.calls("default"), stage.calls("full"));
    let mut load = stage.load();
    load.run(&Packed::new([full.allocate(&Token::nth(0))]), &["granted"]);
    load.run(&Packed::new((0..1000).map(|n| calls.allocate(&Token::nth(n)))), &["granted"]);

    let burst = scale.pick(4 * FULL, FULL);
    let tokens: Vec<_> = (1000..).map(Token::nth).take(burst).collect();
    let phases = [
        ("1", Packed::new(tokens.iter().map(|_| calls.bare_no_op()))),
        ("1", Packed::new(tokens.iter().map(|token| calls.no_op(token)))),
        ("pool", Packed::new(tokens.iter().map(|token| full.allocate(token)))),
        ("granted", Packed::new(tokens.iter().map(|token| calls.allocate(token)))),
        ("released", Packed::new(tokens.iter().map(|token| calls.release(token)))),
    ];
    let mut costs = phases.each_ref().map(|_| Vec::new());
    for _ in 0..scale.pick(100, 3) {
        for ((answer, packed), costs) in phases.iter().zip(&mut costs) {
            costs.push(stage.cost(burst, || load.run(packed, &[answer])));
        }
    }
    let [bare, no_op, refused, granted, released] = costs.map(median);
    report.row("no-op without arguments, µs", bare, Bound::None, "");
    report.row("no-op with the arguments of a claim, µs", no_op, Bound::None, "");
    let mut row = |what: &str, cost: f64, bound| {
        let note = format!("{cost:.2} µs; {:.2} × without arguments", cost / bare);
        report.row(what, cost / no_op, bound, &note);
    };
    row("refused by quota / no-op", refused, Bound::AtMost(2.5));
    row("granted, two caps, fencing number / no-op", granted, Bound::AtMost(4.5));
    row("release / no-op", released, Bound::AtMost(5.0));
}
