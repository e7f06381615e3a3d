//! How much of Redis's memory a grant takes, and what is left of it.

use redis::Commands as _;

use crate::Scale;
use crate::calls::Token;
use crate::load::{Load, Packed};
use crate::report::{Bound, Figure, Report};
use crate::stage::{AMPLE, Stage};

pub(crate) const FIGURE: Figure = Figure {
    name: "memory_use",
    how: "used_memory of INFO memory before and after 1 000 000 claims with names of real length \
          (member `ex:flytesnacks:development:f3ab0123456789abcdef-f3ab0123456789abcdef-n0-0`, \
          holder `flytepropeller-5d8f9c7b6d-x7k2p/1`), without clients; then all are released one \
          by one, and every key and field that is left is looked at.",
    run,
};

fn run(scale: Scale, report: &mut Report) {
    let mut stage = Stage::start(&[("default", AMPLE)]);
    let calls = stage.calls("default");
    let holders = scale.pick(1_000_000, 20_000);

    let before = used_memory(&mut stage);
    each(&mut stage.load(), holders, &["granted"], |token| calls.allocate(token));
    let after = used_memory(&mut stage);
    let per_token = (after - before) / holders as f64;
    let note = format!("{holders} tokens, {:.0} MB", (after - before) / 1e6);
    report.row("bytes per granted token", per_token, Bound::AtMost(400.0), &note);

    each(&mut stage.load(), holders, &["released"], |token| calls.release(token));
    let keys: Vec<String> = stage.admin.keys("*").expect("the keys can be listed");
    let mut usage: Vec<String> = stage.admin.hkeys(calls.usage()).expect("the usage is a hash");
    usage.sort_unstable();
    let expected = [calls.usage(), "tokenpool:pools"];
    let left = keys.iter().filter(|key| !expected.contains(&key.as_str())).count();
    let counters = usage.iter().filter(|field| field.contains(':')).count();
    let note = format!("{} keys, fields {}", keys.len(), usage.join(" "));
    report.row(
        "left after all are released, beside quota and fencing number",
        (left + counters) as f64,
        Bound::Exactly(0.0),
        &note,
    );
}

/// Makes a call for each token, in parts, lest the packed calls take all memory.
fn each(load: &mut Load, tokens: u64, answers: &[&str], call: impl Fn(&Token) -> redis::Cmd) {
    for part in 0..tokens.div_ceil(PART) {
        let numbers = part * PART..tokens.min((part + 1) * PART);
        load.run(&Packed::new(numbers.map(|n| call(&Token::nth(n)))), answers);
    }
}

const PART: u64 = 100_000;

/// Bytes that the server's data takes, when no client but this one is left.
fn used_memory(stage: &mut Stage) -> f64 {
    // The library's connections stay; a load's buffers are freed when the server notices its end.
    std::thread::sleep(std::time::Duration::from_millis(500));
    stage.info("memory").get("used_memory").expect("the server knows its memory")
}
