//! What claiming for many tokens at once saves.

use std::time::Instant;

use tokenpool::{AllocationToken, Claim, ResourceNamespace};

use crate::Scale;
use crate::calls::Token;
use crate::load::{FULL, Packed};
use crate::report::{Bound, Figure, Report, median};
use crate::stage::{AMPLE, Stage, caps};

pub(crate) const FIGURE: Figure = Figure {
    name: "batches",
    how: "server: cost as in server_cost of 6400 claims, as single calls and as 64 calls of \
          allocate_many with 100 claims each, in turn over 50 rounds. Caller: the time one task \
          waits for 100 claims through the library, one after the other and by allocate_many, in \
          turn 200 times. Medians.",
    run,
};

const BATCH: usize = 100;

fn run(scale: Scale, report: &mut Report) {
    let mut stage = Stage::start(&[("default", AMPLE)]);
    let tokens: Vec<_> = (0..BATCH).map(|n| format!("f3abcdefghijklmnopqr-n0-0-{n}")).collect();
    server(scale, &mut stage, &tokens, report);
    caller(scale, &stage, &tokens, report);
}

fn server(scale: Scale, stage: &mut Stage, tokens: &[String], report: &mut Report) {
    let calls = stage.calls("default");
    let mut load = stage.load();
    let claims = scale.pick(4 * FULL, FULL);
    let executions: Vec<_> = (0..).map(Token::nth).take(claims / BATCH).collect();
    let names = || tokens.iter().map(String::as_str);
    let one_by_one = executions.iter().flat_map(|execution| {
        let tokens = tokens.iter().cloned();
        tokens.map(|token| calls.allocate(&Token { token, ..execution.clone() }))
    });
    let one_by_one = Packed::new(one_by_one);
    let together = Packed::new(executions.iter().map(|of| calls.allocate_many(of, names())));
    let releases = Packed::new(executions.iter().map(|of| calls.release_many(of, names())));

    let (mut singly, mut jointly) = (Vec::new(), Vec::new());
    for _ in 0..scale.pick(50, 2) {
        singly.push(stage.cost(claims, || load.run(&one_by_one, &["granted"])));
        load.run(&releases, &["released"]);
        let per_call = stage.cost(claims / BATCH, || load.run(&together, &["granted"]));
        jointly.push(per_call / BATCH as f64);
        load.run(&releases, &["released"]);
    }
    let (singly, jointly) = (median(singly), median(jointly));
    let note = format!("{singly:.2} / {jointly:.2} µs a claim");
    let what = "server's cost of 100 claims, singly / by allocate_many";
    report.row(what, singly / jointly, Bound::AtLeast(2.0), &note);
}

fn caller(scale: Scale, stage: &Stage, tokens: &[String], report: &mut Report) {
    let view = stage.view(&Token::nth(0));
    let namespace: ResourceNamespace = "default".parse().expect("the pool's name is good");
    let tokens: Result<Vec<AllocationToken>, _> = tokens.iter().map(|name| name.parse()).collect();
    let tokens = tokens.expect("the tokens are good");
    let claims: Vec<_> = tokens.iter().cloned().map(Claim::from).collect();
    let rounds = scale.pick(200, 3);
    let task = stage.runtime.spawn(async move {
        let (mut singly, mut jointly) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let started = Instant::now();
            for claim in &claims {
                let outcome = view.allocate(&namespace, claim.clone(), caps()).await?;
                assert!(outcome.granted().is_some_and(|grant| !grant.held_before));
            }
            singly.push(started.elapsed().as_secs_f64() * 1e6);
            view.release_many(&namespace, &tokens).await?;
            let started = Instant::now();
            let outcomes = view.allocate_many(&namespace, &claims, caps()).await?;
            jointly.push(started.elapsed().as_secs_f64() * 1e6);
            assert!(outcomes.iter().flatten().all(|outcome| outcome.granted().is_some()));
            view.release_many(&namespace, &tokens).await?;
        }
        Ok::<_, tokenpool::Error>((median(singly), median(jointly)))
    });
    let times = stage.runtime.block_on(task).expect("the task does not fail");
    let (singly, jointly) = times.expect("the library can claim");
    let note = format!("{singly:.0} / {jointly:.0} µs");
    let what = "one caller's time for 100 claims, singly / by allocate_many";
    report.row(what, singly / jointly, Bound::AtLeast(10.0), &note);
}
