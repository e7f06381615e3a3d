//! What it costs to keep leases alive.

use std::time::Duration;

use tokenpool::{Claim, Lease};

use crate::Scale;
use crate::calls::Token;
use crate::monitor::{Commands, Monitor};
use crate::report::{Bound, Figure, Report};
use crate::stage::{AMPLE, Stage, caps, pool_name};

pub(crate) const FIGURE: Figure = Figure {
    name: "keeper",
    how: "10 000 tokens of as many executions are claimed one by one with a lease of 9 s, so that they \
          are due at different times. Then commands by MONITOR for 9 s, in which every lease is \
          renewed three times; how many renewals a call has shows in its arguments.",
    run,
};

fn run(scale: Scale, report: &mut Report) {
    let mut stage = Stage::start(&[("default", AMPLE)]);
    let holders = scale.pick(10_000, 1000);
    let time = scale.pick(Duration::from_secs(9), Duration::from_secs(3));
    let lease = Lease::new(time).expect("the lease is good");
    let claims = async {
        let pool = pool_name("default");
        for token in (0..holders).map(Token::nth) {
            let claim = Claim::from(token.token.parse::<tokenpool::AllocationToken>()?);
            let (execution, claims) = (token.execution(), [claim.with_lease(lease)]);
            stage.manager.allocate(&pool, &execution, &claims, caps()).await?;
        }
        Ok::<_, tokenpool::Error>(())
    };
    stage.runtime.block_on(claims).expect("the library can claim");

    let monitor = Monitor::start(&stage.server);
    std::thread::sleep(time);
    let Commands { sent, in_scripts, arguments } = monitor.count(&mut stage.admin);
    // Script, digest, number of keys, nine keys; then member, execution and lease of each.
    let renewals = (arguments - 12 * sent) as f64 / 3.0;
    let note = format!("{sent} calls for {renewals:.0} renewals; {in_scripts} commands in scripts");
    let what = format!("calls to 100 renewals, {holders} held");
    report.row(what, sent as f64 / (renewals / 100.0), Bound::AtMost(1.0), &note);
    let usage = stage.runtime.block_on(stage.backend.usage(&pool_name("default")));
    let in_use = usage.expect("the usage can be read").in_use;
    let what = "grants lost meanwhile";
    report.row(what, holders as f64 - in_use as f64, Bound::Exactly(0.0), "");
}
