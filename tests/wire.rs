//! What Redis holds, to the byte, and what it costs in commands: the schema of `lua/README.md`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use redis::Commands;
use tokenpool::{
    AllocationStatus, Claimant, ExecutionId, Holder, Joint, JointOutcome, Order, PluginId,
    QueueChange, QuotaChange, Registrar, Released, Renewed, ResourceManager, ResourceNamespace,
    ResourceRegistrar, TicketRequest,
};

use crate::support::clock::server_with_clock;
use crate::support::server::Server;
use crate::support::{
    FREE, Fixture, Pool, caps, claim, connect, everything, execution, fence, lease, member, quota,
    redis_on, refusal, ticket, token, urgent, waiting, weight,
};

const A: &str = "flytesnacks/development/f3ab";
const ABOUT: &str = "about = tokenpool: units issued so far, and how far issuing may go; \
                     their difference is free";

fn fields(fields: &[&str]) -> Vec<String> {
    fields.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn a_pool_is_kept_as_the_schema_says() {
    let f = redis_on(Server::start()).await;
    let pool = f.pool(10).await;
    let mut raw = pool.raw();
    let read = pool.usage().await;
    // Numbers go on from when a server was told that it reigns.
    let (made, start) = (read.first_fencing_number.get(), read.next_fencing_number.get());
    assert!(made <= start);
    let (key, usage, grants) = (pool.key(), pool.key_of("usage"), pool.key_of("grants"));
    let server = run_id(&mut raw);
    let list = ("tokenpool:pools".to_owned(), vec![key.clone()]);
    let counters = |issued: u64, limit: u64, scopes: &[&str]| {
        let (issued, limit) = (format!("issued = {issued}"), format!("issue_limit = {limit}"));
        let mut all = fields(&[ABOUT, "quota = 10", "registered = 10", "schema = 1"]);
        all.push(format!("server = {server}"));
        all.extend([issued, limit, format!("epoch = {made}"), format!("made = {made}")]);
        all.extend(fields(scopes));
        all.sort();
        (usage.clone(), all)
    };
    assert_eq!(everything(&mut raw), [list.clone(), counters(start, start + 10, &[])]);

    pool.claim_with(A, "f3ab-n0-0", 3, FREE).await.unwrap().granted().unwrap();
    pool.claim("flyte/dev/x y", "t").await.granted().unwrap();
    let first: String = raw.hget(&grants, "ex:flytesnacks:development:f3ab-f3ab-n0-0").unwrap();
    let words: Vec<_> = first.split(' ').collect();
    let now: Vec<u64> = redis::cmd("TIME").query(&mut raw).unwrap();
    assert_eq!(words[..2], ["3", &start.to_string()]);
    assert!(now[0].abs_diff(words[2].parse().unwrap()) < 60, "{first}");
    assert_eq!(words[3..], ["test", "f3ab"]);
    let second: String = raw.hget(&grants, "ex:flyte:dev:x y-t").unwrap();
    assert!(second.starts_with(&format!("1 {} ", start + 3)) && second.ends_with(" test x y"));
    let members = fields(&["ex:flyte:dev:x y-t", "ex:flytesnacks:development:f3ab-f3ab-n0-0"]);
    let records = vec![format!("{} = {second}", members[0]), format!("{} = {first}", members[1])];
    let scopes =
        ["d:flyte:dev = 1", "d:flytesnacks:development = 3", "p:flyte = 1", "p:flytesnacks = 3"];
    let held =
        [(key, members), list.clone(), (grants, records), counters(start + 4, start + 10, &scopes)];
    assert_eq!(everything(&mut raw), held);

    // What is refused leaves no trace.
    refusal(&pool.claim_with("new/scope/x", "t", 7, FREE).await.unwrap());
    refusal(&pool.claim_with("new/scope/x", "t", 1, caps(Some(0), None)).await.unwrap());
    refusal(&pool.claim_with("new/scope/x", "t", 1, caps(None, Some(0))).await.unwrap());
    assert_eq!(everything(&mut raw), held);

    // Nothing but quota and fencing number is left.
    pool.release(A, "f3ab-n0-0").await;
    pool.release("flyte/dev/x y", "t").await;
    assert_eq!(everything(&mut raw), [list, counters(start + 4, start + 14, &[])]);
}

#[tokio::test]
async fn a_pinned_quota_has_a_field_of_its_own_and_a_deleted_pool_none() {
    let f = redis_on(Server::start()).await;
    let pool = f.pool(10).await;
    let mut raw = pool.raw();
    f.backend.change_quota(&pool.name, QuotaChange::Pin(quota(4))).await.unwrap();
    let usage = pool.key_of("usage");
    let read: Vec<Option<u64>> = raw.hmget(&usage, &["quota", "registered", "pinned"]).unwrap();
    assert_eq!(read, [Some(4), Some(10), Some(4)]);
    let limits: Vec<u64> = raw.hmget(&usage, &["issue_limit", "issued"]).unwrap();
    assert_eq!(limits[0] - limits[1], 4);
    f.backend.change_quota(&pool.name, QuotaChange::Unpin).await.unwrap();
    assert!(!raw.hexists::<_, _, bool>(&usage, "pinned").unwrap());
    f.backend.delete_pool(&pool.name, tokenpool::Deletion::OnlyUnused).await.unwrap();
    assert_eq!(everything(&mut raw), []);
}

/// What a server calls itself in this run.
pub(crate) fn run_id(connection: &mut redis::Connection) -> String {
    let text: String = redis::cmd("INFO").arg("server").query(connection).unwrap();
    text.lines().find_map(|line| line.strip_prefix("run_id:")).unwrap().to_owned()
}

/// Calls by command since the last reset, without those that look.
pub(crate) fn commands(connection: &mut redis::Connection) -> BTreeMap<String, u64> {
    let text: String = redis::cmd("INFO").arg("commandstats").query(connection).unwrap();
    let mut calls: BTreeMap<_, _> = text
        .lines()
        .filter_map(|line| {
            let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
        })
        .collect();
    calls.retain(|name, _| !name.starts_with("config") && name != "info");
    calls
}

#[tokio::test]
async fn a_claim_and_a_release_are_one_command_each_and_so_is_a_batch() {
    let server = Server::start();
    let registrar = Registrar::new(connect(&server.url()).await);
    let plugin = PluginId::new("hive").unwrap();
    let namespace = ResourceNamespace::new("default").unwrap();
    registrar.for_plugin(plugin.clone()).register_resource_quota(&namespace, 200).unwrap();
    let manager = registrar.build().await.unwrap();
    let task = manager.for_execution(plugin, ExecutionId::new("p", "d", "e").unwrap());
    let claims: Vec<_> = (0..100).map(|i| claim(&format!("batch-{i}"), 1)).collect();
    let tokens: Vec<_> = claims.iter().map(|claim| claim.token.clone()).collect();
    let mut raw = server.raw();
    // Both scripts are known to the server from here on.
    let _ = task.allocate_resource(&namespace, &token("0"), FREE).await.unwrap();
    task.allocate_many(&namespace, &claims, FREE).await.unwrap();
    task.release_many(&namespace, &tokens).await.unwrap();

    let count = |raw: &mut redis::Connection, name: &str| {
        let calls = commands(raw);
        redis::cmd("CONFIG").arg("RESETSTAT").exec(raw).unwrap();
        // What a script calls is counted, too; only these can be sent by the library.
        calls.get(name).copied().unwrap_or_default()
    };
    count(&mut raw, "");
    for i in 0..50 {
        let caps = caps(Some(20), None);
        let _ = task.allocate_resource(&namespace, &token(&i.to_string()), caps).await.unwrap();
        task.release_resource(&namespace, &token(&i.to_string())).await.unwrap();
    }
    let calls = commands(&mut raw);
    let sent = |name: &str| calls.get(name).copied().unwrap_or_default();
    assert_eq!(sent("evalsha"), 100);
    // From inside the scripts and nowhere else.
    assert_eq!((sent("ping"), sent("eval"), sent("exists"), sent("script|load")), (0, 0, 0, 0));
    count(&mut raw, "");
    task.allocate_many(&namespace, &claims, FREE).await.unwrap();
    assert_eq!(count(&mut raw, "evalsha"), 1);
    task.release_many(&namespace, &tokens).await.unwrap();
    assert_eq!(count(&mut raw, "evalsha"), 1);
}

/// The number before some words in what a script's header says under `Cost:`.
fn cost(script: &str, of: &str) -> u64 {
    let header = script.split("\n\n").next().unwrap().replace("\n-- ", " ");
    let (_, costs) = header.split_once("Cost: ").unwrap();
    let (before, _) = costs.split_once(of).unwrap();
    let mut words = before.split_whitespace().rev();
    words.find_map(|word| word.trim_start_matches('(').parse().ok()).unwrap()
}

/// Counts the commands of one call at a time.
struct Meter(redis::Connection);

impl Meter {
    fn new(pool: &Pool) -> Self {
        Self(pool.raw())
    }

    fn reset(&mut self) {
        redis::cmd("CONFIG").arg("RESETSTAT").exec(&mut self.0).unwrap();
    }

    fn spent(&mut self) -> u64 {
        let mut calls = commands(&mut self.0);
        self.reset();
        assert_eq!(calls.remove("evalsha"), Some(1));
        for own in ["ping", "unwatch"] {
            calls.remove(own); // of the checkout that operators' calls take
        }
        calls.values().sum()
    }
}

const ALLOCATE: &str = include_str!("../lua/allocate.lua");
const ALLOCATE_ALL: &str = include_str!("../lua/allocate_all.lua");
const ALLOCATE_MANY: &str = include_str!("../lua/allocate_many.lua");
const COMBINED: &str = include_str!("../lua/combined.lua");
const RELEASE: &str = include_str!("../lua/release.lua");
const RENEW: &str = include_str!("../lua/renew.lua");
const REPAIR: &str = include_str!("../lua/repair.lua");
const REVOKE: &str = include_str!("../lua/revoke.lua");

/// A pool whose scripts are known to the server.
async fn warm_pool(f: &Fixture) -> Pool {
    let pool = f.pool(1_000).await;
    let others = [claim("x", 1), claim("y", 1)];
    pool.claim_many(A, &others, FREE).await.unwrap();
    pool.claim(A, "z").await.granted().unwrap();
    pool.claim_leased(A, "z", 600_000).await.granted().unwrap();
    let _ = pool.renew(A, "z", 600_000).await.unwrap();
    pool.release(A, "z").await;
    pool.claim(A, "z").await.granted().unwrap();
    pool.revoke(A, "z").await;
    // Nothing was ever due.
    assert_eq!(pool.raw().hdel::<_, _, u64>(pool.key_of("usage"), "due").unwrap(), 1);
    pool
}

#[tokio::test]
async fn scripts_cost_the_commands_that_their_headers_say() {
    let f = redis_on(Server::start()).await;
    let pool = warm_pool(&f).await;
    let mut meter = Meter::new(&pool);
    meter.reset();
    pool.claim_with(A, "1", 1, caps(Some(50), Some(50))).await.unwrap().granted().unwrap();
    assert_eq!(meter.spent(), cost(ALLOCATE, " commands granted"));
    refusal(&pool.claim_with(A, "2", 2_000, FREE).await.unwrap());
    assert_eq!(meter.spent(), cost(ALLOCATE, " refused by the quota"));
    pool.release(A, "1").await;
    let (fixed, each) = (cost(RELEASE, " commands"), cost(RELEASE, " for each member"));
    assert_eq!(meter.spent(), fixed + each);
    let claims: Vec<_> = (0..10).map(|i| claim(&i.to_string(), 1)).collect();
    pool.claim_many(A, &claims, FREE).await.unwrap();
    let fixed = cost(ALLOCATE_MANY, " commands");
    assert_eq!(meter.spent(), fixed + 10 * cost(ALLOCATE_MANY, " for each granted"));
    let large: Vec<_> = (20..30).map(|i| claim(&i.to_string(), 2_000)).collect();
    pool.claim_many(A, &large, FREE).await.unwrap();
    // What counts the scopes is left out when nothing was granted.
    assert_eq!(meter.spent(), fixed - 3 + 10 * cost(ALLOCATE_MANY, " for each refused"));
    // Where nobody waits and nothing ends, an operator's call costs what it says, too.
    pool.revoke(A, "1").await;
    assert_eq!(meter.spent(), cost(REVOKE, " commands"));
    let usage = pool.key_of("usage");
    let _: () = meter.0.hincr(&usage, "p:nobody", 1).unwrap();
    let _: () = meter.0.hincr(&usage, "d:nobody:d", 1).unwrap();
    let epoch: String = meter.0.hget(&usage, "epoch").unwrap();
    let keys = pool.keys();
    let mut repair = redis::cmd("EVAL");
    repair.arg(REPAIR.replace("--- include queue.lua\n", include_str!("../lua/shared/queue.lua")));
    repair.arg(keys.len()).arg(keys).arg(epoch).arg(&["0", "p:nobody", "-1", "d:nobody:d", "-1"]);
    meter.reset();
    assert_eq!(repair.query::<String>(&mut meter.0).unwrap(), "repaired");
    let calls: u64 = commands(&mut meter.0).values().sum::<u64>() - 1;
    assert!(calls <= cost(REPAIR, " commands") + 2 * cost(REPAIR, " for each field"), "{calls}");
}

#[tokio::test]
async fn calls_that_go_together_cost_the_commands_that_the_header_says() {
    let f = redis_on(Server::start()).await;
    let pool = warm_pool(&f).await;
    let mut server = pool.raw();
    let mut spent = |releases: &[&str], claims: &[&str], units: u64, lease: &str| {
        let mut call = redis::cmd("EVAL");
        call.arg(COMBINED).arg(4).arg(&pool.keys()[..4]).arg(releases.len());
        let (project, domain) = ("p:flytesnacks", "d:flytesnacks:development");
        for name in releases {
            call.arg(&["f3ab", project, domain, "-", member(A, name).as_str()]);
        }
        for name in claims {
            call.arg(member(A, name).as_str()).arg(units);
            call.arg(&["f3ab", "test", project, domain, "900", "900", lease]);
        }
        redis::cmd("CONFIG").arg("RESETSTAT").exec(&mut server).unwrap();
        let answers: Vec<String> = call.query(&mut server).unwrap();
        let sum: u64 = commands(&mut server).values().sum();
        (sum - 1, answers)
    };
    let of = |what: &str| cost(COMBINED, what);
    let (fixed, counters) = (of(" commands"), of(" for the counters"));
    let (back, granted) = (of(" more if units are given back"), of(" if units are granted"));
    let names: Vec<_> = (0..30).map(|i| i.to_string()).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    for count in [5, 20] {
        let (some, others) = names.split_at(count);
        assert_eq!(spent(&[], some, 1, "-").0, fixed + granted + counters);
        assert_eq!(spent(&[], some, 1, "-").0, fixed + of(" if tokens are only held"));
        assert_eq!(spent(some, others, 1, "-").0, fixed + back + granted + counters);
        assert_eq!(spent(others, &[], 1, "-").0, fixed + back + counters);
        let each = count as u64 * of(" for each release");
        assert_eq!(spent(some, &[], 1, "-").0, fixed + each);
        let (refused, answers) = spent(&[], some, 2_000, "-");
        assert_eq!((refused, answers.len()), (fixed + each, count));
    }
    // The last of the scope go.
    spent(&["x", "y", "1"], &["1"], 1, "-");
    let last = spent(&["1"], &[], 1, "-").0;
    assert_eq!(last, fixed + back + of(" if they were the last of a scope"));

    let most = of(" more where leases are held");
    spent(&[], &["1", "2"], 1, "600000");
    let (with_leases, answers) = spent(&["1"], &["2", "3"], 1, "500000");
    assert!(answers[1].starts_with("held ") && answers[2].starts_with("granted "), "{answers:?}");
    let without = fixed + back + granted + counters;
    assert!(with_leases > without && with_leases <= without + most, "{with_leases}");
    let (endless, _) = spent(&["2"], &["3", "4"], 1, "-");
    assert!(endless > without && endless <= without + most, "{endless}");
}

#[tokio::test]
async fn leases_cost_the_commands_that_the_headers_say() {
    let f = redis_on(Server::start()).await;
    let pool = warm_pool(&f).await;
    let mut meter = Meter::new(&pool);
    meter.reset();
    // The first to end is noted.
    pool.claim_leased(A, "first", 600_000).await.granted().unwrap();
    assert_eq!(meter.spent(), cost(ALLOCATE, " if it is the next to end"));
    pool.claim_leased(A, "1", 700_000).await.granted().unwrap();
    assert_eq!(meter.spent(), cost(ALLOCATE, " with a lease"));
    pool.claim_leased(A, "sooner", 500_000).await.granted().unwrap();
    assert_eq!(meter.spent(), cost(ALLOCATE, " with a lease") + 1);
    refusal(&pool.claim_with(A, "2", 2_000, FREE).await.unwrap());
    assert_eq!(meter.spent(), cost(ALLOCATE, " where leases are held"));

    let fixed = cost(RELEASE, " commands") + 1;
    assert_eq!(fixed, cost(RELEASE, " where leases are held), and"));
    pool.release(A, "1").await;
    assert_eq!(meter.spent(), fixed + cost(RELEASE, " where leases are held), whatever"));

    for n in [10, 100] {
        let names: Vec<_> = (0..n).map(|i| format!("{n}-{i}")).collect();
        let claims: Vec<_> =
            names.iter().map(|name| claim(name, 1).with_lease(lease(600_000))).collect();
        pool.claim_many(A, &claims, FREE).await.unwrap();
        let fixed = cost(ALLOCATE_MANY, " with leases");
        assert_eq!(meter.spent(), fixed + n * cost(ALLOCATE_MANY, " with a lease"));
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        for renewed in pool.renew_many(A, &names, 700_000).await {
            assert!(matches!(renewed, Ok(Renewed::Held(_))));
        }
        assert_eq!(meter.spent(), cost(RENEW, " commands for any number"));
        // One that ends first is noted.
        pool.renew_many(A, &names, 400_000 - n).await;
        assert_eq!(meter.spent(), cost(RENEW, " commands for any number") + 1);
    }

    // Several pools, of which one is new to the server.
    let other = f.another_pool().pool(10).await;
    let of = |pool: &Pool, name| Joint {
        pool: pool.name.clone(),
        claim: claim(name, 1).with_lease(lease(500_000)),
        constraints: caps(Some(900), Some(900)),
    };
    let (execution, holder) = (execution(A), Holder::new("test").unwrap());
    let claimant = Claimant { execution: &execution, constraints: FREE, holder: &holder };
    for name in ["loads the script", "a"] {
        meter.reset();
        let joints = [of(&pool, name), of(&other, name)];
        let outcome = f.backend.allocate_all(claimant, &joints).await.unwrap();
        assert!(matches!(outcome, JointOutcome::Granted(_)));
    }
    let most = 2 * cost(ALLOCATE_ALL, " commands for each pool");
    let spent = meter.spent();
    assert!(spent <= most && spent > most - 8, "{spent} of {most}");
}

/// Each key costs the server time: those of tickets are given only where it was said that they are wanted.
#[tokio::test]
async fn a_process_that_has_not_waited_is_asked_for_more_keys_once() {
    let f = redis_on(Server::start()).await;
    let pool = f.pool(2).await;
    // Both scripts are known to the server from here on.
    pool.claim(A, "0").await.granted().unwrap();
    pool.release(A, "0").await;
    let mut raw = pool.raw();
    let mut sent = || {
        let calls = commands(&mut raw).remove("evalsha").unwrap_or_default();
        redis::cmd("CONFIG").arg("RESETSTAT").exec(&mut raw).unwrap();
        calls
    };
    sent();
    for name in ["1", "2"] {
        pool.claim(A, name).await.granted().unwrap();
        assert_eq!(sent(), 1);
    }
    let waits = pool.through(connect(&f.url()).await);
    for name in ["3", "4"] {
        waits.queue_up("p/d/x", name).await;
    }
    sent();
    pool.release(A, "1").await;
    assert_eq!(sent(), 2);
    pool.release(A, "2").await;
    assert_eq!(sent(), 1);
    assert!(waits.holds("p/d/x", "3").await && waits.holds("p/d/x", "4").await);
    let claims = pool.through(connect(&f.url()).await);
    sent();
    // For want of units, whoever waits.
    refusal(&claims.claim(A, "5").await);
    assert_eq!(sent(), 1);
    waits.release("p/d/x", "3").await;
    waiting(waits.wait("p/d/x", "6", 2, FREE, &ticket()).await);
    for calls in [2, 1] {
        sent();
        refusal(&claims.claim(A, "5").await);
        assert_eq!(sent(), calls);
    }
}

/// What Redis holds, by a clock that stands still.
#[tokio::test]
async fn leases_and_tickets_are_kept_as_the_schema_says() {
    let (server, clock) = server_with_clock();
    let f = redis_on(server).await;
    let pool = f.pool(2).await;
    let mut raw = pool.raw();
    let start = clock.now().duration_since(UNIX_EPOCH).unwrap();
    let (seconds, millis) = (start.as_secs(), start.as_millis());
    // Not what else is kept of a pool, and not the list of pools.
    let mut state = || -> Vec<(String, Vec<String>)> {
        let known =
            ["about", "quota", "registered", "schema", "issue_limit", "epoch", "made", "server"];
        let mut all = everything(&mut raw);
        all.retain(|(key, _)| key != "tokenpool:pools");
        for (key, content) in &mut all {
            *key = key.rsplit(':').next().unwrap().to_owned();
            content
                .retain(|line| !known.iter().any(|field| line.starts_with(&format!("{field} = "))));
        }
        all
    };
    let keys = |keys: &[(&str, &[&str])]| -> Vec<(String, Vec<String>)> {
        keys.iter().map(|(key, content)| ((*key).to_owned(), fields(content))).collect()
    };
    // Valkey's clock adds some microseconds, with which numbers begin.
    let first = pool.usage().await.next_fencing_number.get();
    let issued = |more: u64| format!("issued = {}", first + more);

    let granted = claim("t", 2).with_lease(lease(1500));
    pool.claim_many(A, &[granted], FREE).await.unwrap();
    let ends = millis + 1500;
    let (held, due) =
        (format!("ex:flytesnacks:development:f3ab-t = {ends}"), format!("due = {ends}"));
    let record = format!("ex:flytesnacks:development:f3ab-t = 2 {first} {seconds} test f3ab");
    let scopes = ["d:flytesnacks:development = 2", "p:flytesnacks = 2"];
    assert_eq!(
        state(),
        keys(&[
            ("default", &["ex:flytesnacks:development:f3ab-t"]),
            ("grants", &[&record]),
            ("leases", &[&held]),
            ("usage", &[scopes[0], &due, &issued(2), scopes[1]]),
        ])
    );

    // A ticket, through a channel, with a cap.
    let request = TicketRequest::new(lease(1000));
    let inbox = f.backend.listen().await.unwrap();
    assert!(inbox.channel.as_str().starts_with("tokenpool:tickets:"));
    let mut told = request.clone().with_channel(inbox.channel.clone());
    waiting(pool.wait("q/d/x y", "w", 1, caps(Some(7), None), &told).await);
    let rank: u64 = raw_number(&pool, "ticket");
    assert_eq!(rank / 1000, millis as u64);
    let waits = "ex:q:d:x y-w";
    let ticket = format!("{waits} = 1 {rank} 7 - {seconds} {} test x y", inbox.channel.as_str());
    let (lasts, due) = (format!("{waits} = {}", millis + 1000), format!("due = {}", millis + 1000));
    let lines = [format!("q {rank} d = 0"), format!("q:d {rank} {waits} = 0")];
    let number = format!("ticket = {rank}");
    assert_eq!(
        state(),
        keys(&[
            ("default", &["ex:flytesnacks:development:f3ab-t"]),
            ("grants", &[&record]),
            ("leases", &[&held, &lasts]),
            ("lines", &[&lines[0], &lines[1]]),
            ("queue", &[&format!("{waits} = {rank}")]),
            ("tickets", &[&ticket]),
            ("turns", &[&format!("q = {rank}")]),
            ("usage", &[scopes[0], &due, &issued(2), scopes[1], &number, "tickets = 1"]),
        ])
    );

    // One that stands at its cap has no turn, and its domain no place in the project's line.
    told = request.with_priority(tokenpool::Priority::new(9).unwrap());
    waiting(pool.wait(A, "capped", 1, caps(None, Some(2)), &told).await);
    let capped: u64 = raw_number(&pool, "ticket");
    assert_eq!(capped, rank + 1);
    pool.change_quota(QuotaChange::Pin(quota(4))).await;
    // The other was handed what came free; its ticket's time is its lease now.
    let second = format!("{waits} = 1 {} {seconds} test x y", first + 2);
    let capped_member = "ex:flytesnacks:development:f3ab-capped";
    let number = format!("ticket = {capped}");
    let mut expected = keys(&[
        ("default", &["ex:flytesnacks:development:f3ab-t", waits]),
        ("grants", &[&record, &second]),
        ("leases", &[&format!("{capped_member} = {}", millis + 1000), &held, &lasts]),
        ("lines", &[&format!("flytesnacks:development {capped} {capped_member} = 0")]),
        ("queue", &[&format!("{capped_member} = {capped}")]),
        ("tickets", &[&format!("{capped_member} = 1 {capped} - 2 {seconds} - test f3ab")]),
        (
            "usage",
            &[
                "closed = 1",
                scopes[0],
                "d:q:d = 1",
                &due,
                &issued(3),
                scopes[1],
                "p:q = 1",
                "pinned = 4",
                &number,
                "tickets = 1",
            ],
        ),
    ]);
    assert_eq!(state(), expected);

    // Withdrawn.
    assert_eq!(pool.release(A, "capped").await, Released::Withdrawn);
    expected.retain(|(key, _)| !["lines", "queue", "tickets"].contains(&key.as_str()));
    for (_, content) in &mut expected {
        let of_ticket = |line: &str| line == "tickets = 1" || line == "closed = 1";
        content.retain(|line| !line.starts_with(capped_member) && !of_ticket(line));
    }
    assert_eq!(state(), expected);

    // Taken over without a lease, and everything given back or over: an idle pool leaves nothing behind.
    pool.wait("q/d/x y", "w", 1, FREE, &TicketRequest::new(lease(1000))).await.granted().unwrap();
    expected[2].1.retain(|line| !line.starts_with(waits));
    clock.advance(Duration::from_millis(1500));
    pool.release("q/d/x y", "w").await;
    assert_eq!(state(), keys(&[("usage", &[&issued(3), "pinned = 4", &number])]));
}

/// The domain stands in its project's line once, by its first ticket.
#[tokio::test]
async fn a_more_urgent_ticket_takes_the_first_ones_place_in_the_line_of_the_project() {
    let f = redis_on(Server::start()).await;
    let pool = f.pool(1).await;
    pool.order(Order::Priority).await;
    pool.claim(A, "held").await.granted().unwrap();
    for (name, priority) in [("1", 0), ("2", 5), ("3", 3)] {
        waiting(pool.wait("p/d/x", name, 1, FREE, &urgent(priority)).await);
        let lines: Vec<String> = pool.raw().zrange(pool.key_of("lines"), 0, -1).unwrap();
        let of_project: Vec<_> = lines.iter().filter(|line| line.starts_with("p ")).collect();
        let rank = |line: &str| line.split(' ').nth(1).map(str::to_owned);
        let first = lines.iter().find(|line| line.starts_with("p:d ")).unwrap();
        assert_eq!(of_project.len(), 1, "{lines:?}");
        assert_eq!(rank(of_project[0]), rank(first));
    }
}

/// A number in the pool's counters.
fn raw_number(pool: &Pool, field: &str) -> u64 {
    pool.raw().hget(pool.key_of("usage"), field).unwrap()
}

#[tokio::test]
async fn fair_shares_and_the_journal_are_all_that_an_idle_pool_keeps_beside_its_counters() {
    let f = redis_on(Server::start()).await;
    let pool = f.pool(1).await;
    let mut raw = pool.raw();
    let change = QueueChange::new().order(Order::Fair).weight("q", weight(4));
    f.backend.change_queue(&pool.name, &change).await.unwrap();
    pool.claim("r/d/x", "held").await.granted().unwrap();
    for (path, name) in [("p/d/x", "1"), ("q/d/x", "2"), ("p/d/x", "3")] {
        pool.queue_up(path, name).await;
    }
    let scores = |raw: &mut redis::Connection, key: &str| -> Vec<(String, u64)> {
        raw.zrange_withscores(pool.key_of(key), 0, -1).unwrap()
    };
    let of = |name: &str, score| (name.to_owned(), score);
    assert_eq!(scores(&mut raw, "turns"), [of("p", 0), of("q", 0)]);
    pool.release("r/d/x", "held").await;
    assert_eq!(scores(&mut raw, "turns"), [of("q", 0), of("p", 1_000_000)]);
    assert_eq!(scores(&mut raw, "shares"), [of("p", 1_000_000)]);
    pool.release("p/d/x", "1").await;
    assert_eq!(scores(&mut raw, "shares"), [of("q", 250_000), of("p", 1_000_000)]);
    pool.revoke("q/d/x", "2").await;
    // The end that was reached is forgotten.
    assert_eq!(scores(&mut raw, "shares"), [of("p", 2_000_000)]);
    assert_eq!(scores(&mut raw, "turns"), []);
    assert_eq!(raw_number(&pool, "virtual"), 1_000_000);
    pool.release("p/d/x", "3").await;

    let all = everything(&mut raw);
    let kept: Vec<_> = all.iter().map(|(key, _)| key.rsplit(':').next().unwrap()).collect();
    assert_eq!(kept, ["pools", "journal", "shares", "usage"]);
    let journal = &all[1].1;
    assert_eq!(journal.len(), 1);
    let number = raw_number(&pool, "issued") - 2;
    let words: Vec<_> = journal[0].split(' ').collect();
    assert_eq!(words[1..5], ["member", "ex:q:d:x-2", "was", "1"]);
    assert_eq!(words[5], number.to_string());
    assert_eq!(words[7..], ["test", "x", "operator", "test", "reason", "because"]);
    let names: Vec<_> = all[3].1.iter().map(|line| line.split(" = ").next().unwrap()).collect();
    // `due` goes when it has come.
    let expected = [
        "about",
        "due",
        "epoch",
        "issue_limit",
        "issued",
        "made",
        "order",
        "quota",
        "registered",
        "schema",
        "server",
        "ticket",
        "virtual",
        "w:q",
    ];
    assert_eq!(names, expected);
    f.backend.delete_pool(&pool.name, tokenpool::Deletion::OnlyUnused).await.unwrap();
    assert_eq!(everything(&mut raw), []);
}

/// A client that is not this library: Flyte's own commands see what is granted here.
#[tokio::test]
async fn flytes_commands_see_the_same_pool() {
    let f = redis_on(Server::start()).await;
    let pool = f.pool(2).await;
    pool.claim(A, "f3ab-n0-0").await.granted().unwrap();
    let mut raw = pool.raw();
    let key = format!("redisresourcemanager:{}", pool.name);
    let member = "ex:flytesnacks:development:f3ab-f3ab-n0-0";
    assert!(raw.sismember::<_, _, bool>(&key, member).unwrap());
    assert_eq!(raw.scard::<_, u64>(&key).unwrap(), 1);
}

#[tokio::test]
async fn the_record_names_the_holder() {
    let server = Server::start();
    let holder = Holder::new("propeller-7/1").unwrap();
    let registrar = Registrar::new(connect(&server.url()).await).with_holder(holder);
    let namespace = ResourceNamespace::new("default").unwrap();
    let hive = PluginId::new("hive").unwrap();
    registrar.for_plugin(hive.clone()).register_resource_quota(&namespace, 2).unwrap();
    let manager = registrar.build().await.unwrap();
    let task = manager.for_execution(hive, ExecutionId::new("p", "d", "e").unwrap());
    let status = task.allocate_resource(&namespace, &token("t"), FREE).await.unwrap();
    assert_eq!(status, AllocationStatus::Granted);
    let grants = "{redisresourcemanager:hive:default}:grants";
    let record: String = server.raw().hget(grants, "ex:p:d:e-t").unwrap();
    assert!(record.ends_with(" propeller-7/1 e"), "{record}");
}

/// Numbers beyond 2^53 would lose their last digits in Lua; far below that nothing may round.
#[tokio::test]
async fn large_numbers_keep_their_last_digit() {
    let f = redis_on(Server::start()).await;
    let pool = f.pool(4_000_000_000).await;
    let mut raw = pool.raw();
    let start = 4_503_599_627_370_497_u64; // 2^52 + 1
    let usage = pool.key_of("usage");
    let _: () = redis::pipe()
        .hset(&usage, "issued", start)
        .hset(&usage, "issue_limit", start + 4_000_000_000)
        .query(&mut raw)
        .unwrap();
    let units = 3_999_999_998;
    let first = pool.claim_with(A, "1", units, FREE).await.unwrap();
    assert_eq!(fence(&first).get(), start);
    let claims = [claim("2", 1), claim("3", 2), claim("4", 1)];
    let answers = pool.claim_many(A, &claims, FREE).await.unwrap();
    assert_eq!(fence(answers[0].as_ref().unwrap()).get(), start + units as u64);
    let full = refusal(answers[1].as_ref().unwrap());
    assert_eq!((full.in_use, full.size), (3_999_999_999, 4_000_000_000));
    assert_eq!(fence(answers[2].as_ref().unwrap()).get(), start + units as u64 + 1);
    pool.release_many(A, &["1", "2", "4"]).await.unwrap();
    pool.assert_clean().await;
    assert_eq!(pool.in_use().await, 0);
    let shared = Arc::new(pool);
    assert_eq!(shared.usage().await.next_fencing_number.get(), start + 4_000_000_000);
}
