//! What Redis holds, to the byte, and what it costs in commands: the schema of `lua/README.md`.

use std::collections::BTreeMap;
use std::sync::Arc;

use redis::Commands;
use tokenpool::{
    AllocationStatus, ExecutionId, Holder, PluginId, QuotaChange, Registrar, ResourceManager,
    ResourceNamespace, ResourceRegistrar,
};

use crate::support::server::Server;
use crate::support::{
    FREE, caps, claim, connect, everything, fence, quota, redis_on, refusal, token,
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
    let start = pool.usage().await.next_fencing_number.get();
    let (key, usage, grants) = (pool.key(), pool.key_of("usage"), pool.key_of("grants"));
    let list = ("tokenpool:pools".to_owned(), vec![key.clone()]);
    let counters = |issued: u64, limit: u64, scopes: &[&str]| {
        let (issued, limit) = (format!("issued = {issued}"), format!("issue_limit = {limit}"));
        let mut all = fields(&[ABOUT, "quota = 10", "registered = 10", "schema = 1"]);
        all.extend([issued, limit, format!("epoch = {start}")]);
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

/// Calls by command since the last reset, without those that look.
fn commands(connection: &mut redis::Connection) -> BTreeMap<String, u64> {
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

/// The number before a word in the `Cost:` line of a script.
fn cost(script: &str, of: &str) -> u64 {
    let line = script.lines().find_map(|line| line.strip_prefix("-- Cost: ")).unwrap();
    let (before, _) = line.split_once(of).unwrap();
    before.split_whitespace().rev().find_map(|word| word.parse().ok()).unwrap()
}

#[tokio::test]
async fn scripts_cost_the_commands_that_their_headers_say() {
    const ALLOCATE: &str = include_str!("../lua/allocate.lua");
    const ALLOCATE_MANY: &str = include_str!("../lua/allocate_many.lua");
    const RELEASE: &str = include_str!("../lua/release.lua");
    let f = redis_on(Server::start()).await;
    let pool = f.pool(1_000).await;
    let mut raw = pool.raw();
    // Loads the scripts, and leaves something of each scope.
    let others = [claim("x", 1), claim("y", 1)];
    pool.claim_many(A, &others, FREE).await.unwrap();
    pool.claim(A, "z").await.granted().unwrap();
    pool.release(A, "z").await;
    redis::cmd("CONFIG").arg("RESETSTAT").exec(&mut raw).unwrap();
    let mut spent = || {
        let mut calls = commands(&mut raw);
        redis::cmd("CONFIG").arg("RESETSTAT").exec(&mut raw).unwrap();
        assert_eq!(calls.remove("evalsha"), Some(1));
        calls.values().sum::<u64>()
    };
    pool.claim_with(A, "1", 1, caps(Some(50), Some(50))).await.unwrap().granted().unwrap();
    assert_eq!(spent(), cost(ALLOCATE, " commands granted"));
    refusal(&pool.claim_with(A, "2", 2_000, FREE).await.unwrap());
    assert_eq!(spent(), cost(ALLOCATE, " refused by the quota"));
    pool.release(A, "1").await;
    let (fixed, each) = (cost(RELEASE, " commands"), cost(RELEASE, " for each member"));
    assert_eq!(spent(), fixed + each);
    let claims: Vec<_> = (0..10).map(|i| claim(&i.to_string(), 1)).collect();
    pool.claim_many(A, &claims, FREE).await.unwrap();
    let fixed = cost(ALLOCATE_MANY, " commands");
    assert_eq!(spent(), fixed + 10 * cost(ALLOCATE_MANY, " for each granted"));
    let large: Vec<_> = (20..30).map(|i| claim(&i.to_string(), 2_000)).collect();
    pool.claim_many(A, &large, FREE).await.unwrap();
    // What counts the scopes is left out when nothing was granted.
    assert_eq!(spent(), fixed - 3 + 10 * cost(ALLOCATE_MANY, " for each refused"));
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
