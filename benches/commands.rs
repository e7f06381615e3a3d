//! How many commands a call is.

use std::collections::{BTreeMap, BTreeSet};

use tokenpool::ResourceManager as _;

use crate::Scale;
use crate::calls::Token;
use crate::report::{Bound, Figure, Report};
use crate::stage::{AMPLE, Stage, caps};

pub(crate) const FIGURE: Figure = Figure {
    name: "commands",
    how: "calls in INFO commandstats over 1000 claims and 1000 releases through a \
          TaskResourceManager, after one of each. Commands that scripts call are counted there, too, \
          so whatever differs from the counters after the same 2000 EVALSHA on a bare connection is \
          what the library sent beside them.",
    run,
};

fn run(scale: Scale, report: &mut Report) {
    let mut stage = Stage::start(&[("default", AMPLE)]);
    let calls = stage.calls("default");
    let count = scale.pick(1000, 100);
    let tokens: Vec<_> = (0..count).map(Token::nth).collect();

    let bare = counted(&mut stage, |stage| {
        for token in &tokens {
            for cmd in [calls.allocate(token), calls.release(token)] {
                cmd.exec(&mut stage.admin).expect("the call is right");
            }
        }
    });
    let library = counted(&mut stage, |stage| {
        let namespace = "default".parse().expect("the pool's name is good");
        for token in &tokens {
            let view = stage.view(token);
            let token = token.token.parse().expect("the token is good");
            let pair = async {
                let _ = view.allocate_resource(&namespace, &token, caps()).await?;
                view.release_resource(&namespace, &token).await
            };
            stage.runtime.block_on(pair).expect("the library can claim");
        }
    });
    let per_call = library.get("evalsha").copied().unwrap_or_default() as f64 / (2 * count) as f64;
    let names = bare.keys().chain(library.keys()).collect::<BTreeSet<_>>();
    let of =
        |counts: &BTreeMap<String, u64>, name: &str| counts.get(name).copied().unwrap_or_default();
    let others: u64 = names.iter().map(|name| of(&library, name).abs_diff(of(&bare, name))).sum();
    report.row("EVALSHA per claim or release", per_call, Bound::Exactly(1.0), "");
    report.row("any other command", others as f64, Bound::Exactly(0.0), "");
}

/// How often each command was called while `run` ran.
fn counted(stage: &mut Stage, run: impl FnOnce(&mut Stage)) -> BTreeMap<String, u64> {
    stage.cost(0, || {});
    run(stage);
    let info = stage.info("commandstats");
    let commands = info.iter().filter_map(|(name, value)| {
        let name = name.strip_prefix("cmdstat_")?;
        let value: String = redis::from_redis_value_ref(value).ok()?;
        let calls = value.strip_prefix("calls=")?.split(',').next()?.parse().ok()?;
        Some((name.to_owned(), calls))
    });
    commands.collect()
}
