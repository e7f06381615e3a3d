//! What a call costs the server.

use crate::Scale;
use crate::calls::{Calls, Terms, Token};
use crate::load::{FULL, Load, Packed};
use crate::report::{Bound, Figure, Report, median};
use crate::stage::{AMPLE, Stage};

pub(crate) const FIGURE: Figure = Figure {
    name: "server_cost",
    how: "`usec` of EVALSHA in INFO commandstats, reset before each burst, divided by its calls. \
          Bursts of 6400 calls on 50 connections, 32 deep, from one thread; the bursts of all rows \
          alternate over 100 rounds, and the median of each row counts. The no-op is `return 1`, \
          called with the nine keys and thirteen arguments of a claim that may wait, as were all \
          claims when the bounds were set, since passing those is part of any script's price; beside \
          the ratio to it stand those to a no-op with the four keys of a claim that does not wait, \
          to one with 3 keys and 8 arguments, as a claim was before there were leases and tickets, \
          and to one without any. \
          The pool has 1000 holders, another has 1000 with leases; the refused claims go to full \
          pools, of which one holder has a lease, or for which 100 000 tickets wait. Claims have two \
          caps, and tokens of different executions. Renewals: 64 calls a burst. The calls are packed \
          beforehand and proved, by MONITOR, to be byte for byte those of the library.",
    run,
};

/// Holders of the pools that are not full.
const HOLDERS: u64 = 1000;
/// Tokens to a renewal.
const BATCH: usize = 100;

fn run(scale: Scale, report: &mut Report) {
    let pools =
        [("default", AMPLE), ("leased", AMPLE), ("full", 1), ("leased-full", 1), ("queue", 1)];
    let mut stage = Stage::start(&pools);
    let [calls, leased, full, leased_full, queue] = pools.map(|(name, _)| stage.calls(name));
    let mut load = stage.load();
    hold(&mut load, &calls, Terms::PLAIN, HOLDERS);
    hold(&mut load, &leased, Terms::LEASED, HOLDERS);
    hold(&mut load, &full, Terms::PLAIN, 1);
    hold(&mut load, &leased_full, Terms::LEASED, 1);
    hold(&mut load, &queue, Terms::PLAIN, 1);
    let tickets = scale.pick(100_000, 1000);
    for_each(&mut load, 1..=tickets, "waiting", |token| queue.claim(token, Terms::WAITING));

    let burst = scale.pick(4 * FULL, FULL);
    let tokens: Vec<_> = (2 * tickets..).map(Token::nth).take(burst).collect();
    let each = |call: &dyn Fn(&Token) -> redis::Cmd| Packed::new(tokens.iter().map(call));
    let holders: Vec<_> = (0..HOLDERS).map(Token::nth).collect();
    let renewals = holders.chunks(BATCH).cycle().take(burst / BATCH);
    let phases = [
        ("1", burst, each(&|_| calls.bare_no_op())),
        ("1", burst, each(&|token| calls.small_no_op(token))),
        ("1", burst, each(&|token| calls.no_op(token, Terms::LEASED))),
        ("1", burst, each(&|token| calls.no_op(token, Terms::WAITING))),
        ("pool", burst, each(&|token| full.allocate(token))),
        ("pool", burst, each(&|token| leased_full.allocate(token))),
        ("pool", burst, each(&|token| queue.allocate(token))),
        ("granted", burst, each(&|token| calls.allocate(token))),
        ("released", burst, each(&|token| calls.release(token))),
        ("granted", burst, each(&|token| leased.claim(token, Terms::LEASED))),
        ("released", burst, each(&|token| leased.release(token))),
        ("held", burst / BATCH, Packed::new(renewals.map(|tokens| leased.renew(tokens)))),
    ];
    let mut costs = phases.each_ref().map(|_| Vec::new());
    for _ in 0..scale.pick(100, 3) {
        for ((answer, calls, packed), costs) in phases.iter().zip(&mut costs) {
            costs.push(stage.cost(*calls, || load.run(packed, &[answer])));
        }
    }

    let [bare, small, short, no_op, costs @ ..] = costs.map(median);
    report.row("no-op without arguments, µs", bare, Bound::None, "");
    report.row("no-op with 3 keys and 8 arguments, µs", small, Bound::None, "");
    report.row("no-op with the 4 keys of a claim, µs", short, Bound::None, "");
    report.row("no-op with the 9 keys of a claim that may wait, µs", no_op, Bound::None, "");
    let rows = [
        ("refused by quota".to_owned(), Bound::AtMost(2.5)),
        ("refused by quota, leases held".to_owned(), Bound::AtMost(2.5)),
        (format!("refused by quota, {tickets} tickets"), Bound::AtMost(2.5)),
        ("granted, two caps, fencing number".to_owned(), Bound::AtMost(4.5)),
        ("release".to_owned(), Bound::AtMost(5.0)),
        ("granted with lease, two caps, fencing number".to_owned(), Bound::AtMost(6.0)),
        ("release with lease".to_owned(), Bound::None),
        (format!("renewing {BATCH} tokens in one call"), Bound::AtMost(BATCH as f64)),
    ];
    for ((what, bound), cost) in rows.into_iter().zip(costs) {
        let [to_short, to_small, to_bare] = [short, small, bare].map(|other| cost / other);
        let note = format!(
            "{cost:.2} µs; {to_short:.2} × with 4 keys, {to_small:.2} × with 3, {to_bare:.2} × without any"
        );
        report.row(format!("{what} / no-op"), cost / no_op, bound, &note);
    }
}

/// Has the first tokens hold a unit each.
fn hold(load: &mut Load, calls: &Calls, terms: Terms, holders: u64) {
    for_each(load, 0..=holders - 1, "granted", |token| calls.claim(token, terms));
}

/// Makes a call for each of these tokens.
fn for_each(
    load: &mut Load,
    tokens: std::ops::RangeInclusive<u64>,
    answer: &str,
    call: impl Fn(&Token) -> redis::Cmd,
) {
    load.run(&Packed::new(tokens.map(|n| call(&Token::nth(n)))), &[answer]);
}
