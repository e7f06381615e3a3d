//! Users that may do no more than their role needs: the rules of `lua/README.md`, to the word.

mod rules;
mod work;

use std::cell::RefCell;
use std::time::Duration;

use tokenpool::matchable::{Attributes, Expected, ResourceConstraints};
use tokenpool::{
    Claimant, Config, Cursor, Deletion, Error, Holding, Joint, Locks, Notice, Order, PoolName,
    QueueChange, QuotaChange, Renewal, Result,
};

use self::rules::{PASSWORD, Rule, also};
use self::work::{A, Session, holder, pool, project, rule};
use super::{configuration, list};
use crate::conformance;
use crate::support::cluster::{self, Cluster};
use crate::support::sentinels::{self, Sentinels};
use crate::support::server::{Login, Port, Server, Setup};
use crate::support::{
    FREE, claim, everything, execution, lease, member, quota, revocation, ticket, token, until,
    weight,
};

const CLIENT: &str = "tokenpool-client";
const OPERATOR: &str = "tokenpool-operator";
const METRICS: &str = "tokenpool-metrics";

/// Who may do anything, for the tests' own hands.
const ADMIN: Login = Login { user: Some("admin"), password: "of-the-admin" };

/// A user's configuration, with so much patience that a busy machine does not fail a test.
fn configuration_of(server: &str, user: &str, password: &str) -> Config {
    let mut config = configuration(&format!("{server}, hostUser: {user}, hostKey: {password}"));
    config.redis.connect_timeout = Duration::from_secs(15);
    config.redis.command_timeout = Duration::from_secs(15);
    config
}

/// A server with exactly the users of `lua/README.md`, and the tests' own.
struct World {
    server: Server,
    admin: RefCell<redis::Connection>,
    /// With all permissions.
    session: Session,
}

impl World {
    async fn new() -> Self {
        let roles = [CLIENT, OPERATOR, METRICS].map(|user| Rule::of(user).line());
        let configuration = ADMIN.required().into_iter().chain(roles).collect();
        let (port, login) = (Some(Port::take()), Some(ADMIN));
        let server = Server::start_as(Setup { configuration, port, login, ..Setup::default() });
        let keys = format!("hostPath: \"{}\"", server.address());
        let config = configuration_of(&keys, "admin", ADMIN.password);
        let session = Session::open(&config).await.unwrap();
        Self { admin: RefCell::new(server.raw()), server, session }
    }

    fn config(&self, user: &str) -> Config {
        configuration_of(&format!("hostPath: \"{}\"", self.server.address()), user, PASSWORD)
    }

    async fn open(&self, user: &str) -> Result<Session> {
        Session::open(&self.config(user)).await
    }

    /// A connection past the library.
    fn raw(&self, user: &str) -> redis::Connection {
        let url = format!("redis://{user}:{PASSWORD}@{}", self.server.address());
        redis::Client::open(url).unwrap().get_connection().unwrap()
    }

    fn order(&self, words: &[&str]) {
        redis::cmd(words[0]).arg(&words[1..]).exec(&mut self.admin.borrow_mut()).unwrap();
    }

    /// A server that knows no script, with what others have done.
    async fn prepare(&self) {
        self.order(&["FLUSHALL"]);
        self.session.prepare().await.unwrap();
        let odd = format!("redisresourcemanager:{}", pool("odd"));
        self.order(&["SADD", &odd, "ex:p:d:e-odd"]);
        self.order(&["SET", &format!("{{{odd}}}:grants"), "somebody's"]);
        self.order(&["SCRIPT", "FLUSH"]);
        self.order(&["ACL", "LOG", "RESET"]);
    }

    /// What may happen to a pool that others know, too.
    fn break_pool(&self, pool: &PoolName) {
        let key = format!("redisresourcemanager:{pool}");
        self.order(&["SADD", &key, "ex:p:d:e-foreign"]);
        self.order(&["DEL", &format!("{{{key}}}:queue")]);
        self.order(&["HINCRBY", &format!("{{{key}}}:usage"), "p:p", "1"]);
    }

    fn refused(&self) -> Vec<String> {
        refused(&mut self.admin.borrow_mut())
    }

    fn connections_made(&self) -> u64 {
        let info: redis::InfoDict =
            redis::cmd("INFO").arg("stats").query(&mut self.admin.borrow_mut()).unwrap();
        info.get("total_connections_received").unwrap()
    }

    /// Does a user's work under a rule, and says how many connections that took.
    async fn attempt(
        &self,
        rule: &Rule,
        work: impl AsyncFn(&Session) -> Result<()>,
    ) -> Result<u64> {
        rule.set(&mut self.admin.borrow_mut()).unwrap();
        self.prepare().await;
        let before = self.connections_made();
        work(&self.open(&rule.user).await?).await?;
        Ok(self.connections_made() - before)
    }

    /// Fails unless the work can be done under the rule, is refused nothing, and needs all of it.
    async fn assert_smallest(&self, rule: &Rule, work: impl AsyncFn(&Session) -> Result<()>) {
        let connections = self.attempt(rule, &work).await.unwrap();
        assert_eq!(self.refused(), [""; 0]);
        for word in rule.permissions() {
            match self.attempt(&rule.without(&word), &work).await {
                // Which key it is remains unknown then.
                Err(error) if word == "+type" => {
                    assert!(text(&error).contains("WRONGTYPE"), "{error}");
                }
                Err(error) if work::is_unheard(&error) => assert_eq!(word, "+publish"),
                Err(error) => assert_refused(&error, word.strip_prefix('+')),
                // The server is not asked again who it is.
                Ok(_) if word == "+info" => {
                    assert!(self.refused().iter().all(|object| object == "info"));
                }
                // The pool of connections makes a new one for each call.
                Ok(more) => assert!(more > connections, "{} is not needed", word),
            }
        }
        rule.set(&mut self.admin.borrow_mut()).unwrap();
    }
}

/// What a server refused since it was prepared, but for what does not matter.
fn refused(connection: &mut redis::Connection) -> Vec<String> {
    let log: Vec<Vec<redis::Value>> = redis::cmd("ACL").arg("LOG").query(connection).unwrap();
    let object = |entry: Vec<redis::Value>| {
        let text = |word| redis::from_redis_value::<String>(word).unwrap_or_default();
        let mut words = entry.into_iter().map(text).skip_while(|word| word != "object");
        words.nth(1).unwrap()
    };
    // The client's name, which Redis 6.2 does not tell from other subcommands.
    let is_name = |object: &String| matches!(&**object, "client" | "client|setinfo");
    log.into_iter().map(object).filter(|object| !is_name(object)).collect()
}

/// The first number of the version that a server says it is compatible with.
fn version(connection: &mut redis::Connection) -> u32 {
    let info: redis::InfoDict = redis::cmd("INFO").arg("server").query(connection).unwrap();
    let version: String = info.get("redis_version").unwrap();
    version.split('.').next().unwrap().parse().unwrap()
}

/// Everything that an error says.
fn text(error: &Error) -> String {
    let mut text = format!("{error}");
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

/// Fails unless an error tells that permission is missing, for which command if the server says so, and nothing that is secret.
#[track_caller]
fn assert_refused(error: &Error, command: Option<&str>) {
    let (text, debug) = (text(error), format!("{error:?}"));
    assert!(matches!(error, Error::Server { .. }) && !error.is_retryable(), "{text}");
    assert!(!text.contains(PASSWORD) && !debug.contains(PASSWORD), "{text}: {debug}");
    assert!(text.contains("NOPERM"), "{text}");
    // Redis before 7.2 names no command that a script calls.
    let in_script = text.contains("The user executing the script can't");
    if let Some(command) = command.filter(|_| !in_script) {
        let command = command.split('|').next().unwrap();
        assert!(text.contains(&format!("'{command}")), "{text} names no {command}");
    }
}

#[tokio::test]
async fn a_client_needs_every_word_of_its_rule() {
    let world = World::new().await;
    let work = async |session: &Session| {
        session.claims_and_waits().await?;
        session.applies_rules().await?;
        session.claims_what_is_odd().await
    };
    world.assert_smallest(&Rule::of(CLIENT), work).await;
}

#[tokio::test]
async fn an_operator_needs_every_word_of_its_rule() {
    let world = World::new().await;
    let work = async |session: &Session| {
        session.reads().await?;
        session.claims_and_waits().await?;
        session.claims_what_is_odd().await?;
        session.operates(|pool| world.break_pool(pool)).await
    };
    world.assert_smallest(&Rule::of(OPERATOR), work).await;
}

#[tokio::test]
async fn a_reader_of_metrics_needs_every_word_of_its_rule() {
    let world = World::new().await;
    let work = async |session: &Session| {
        session.reads().await?;
        session.reads_what_is_odd().await
    };
    world.assert_smallest(&Rule::of(METRICS), work).await;
}

/// With a manager, a keeper, rules and locks, and as the conformance cases ask; neither is refused anything.
#[tokio::test]
async fn clients_and_operators_live_under_their_rules() {
    let world = World::new().await;
    world.prepare().await;
    world.open(CLIENT).await.unwrap().lives().await.unwrap();
    assert_eq!(world.refused(), [""; 0]);
    let operator = world.open(OPERATOR).await.unwrap();
    conformance::every_case(&operator.backend).await;
    assert_eq!(world.refused(), [""; 0]);
}

/// A keeper finds out at once that a grant was taken away, which takes a look at the pool.
#[tokio::test]
async fn a_client_hears_that_a_lock_was_forced() {
    let world = World::new().await;
    let lease = lease(1500);
    let [client, operator] =
        [CLIENT, OPERATOR].map(async |user| world.open(user).await.unwrap().backend);
    let locks = Locks::new(client.await).with_lease(lease);
    let guard = locks.mutex("forced").await.unwrap().lock().await.unwrap();
    let theirs = Locks::new(operator.await).mutex("forced").await.unwrap();
    assert_eq!(theirs.force_unlock(&revocation()).await.unwrap(), 1);
    guard.lost().await;
    assert_eq!(world.refused(), [""; 0]);
}

/// Whatever would change anything is refused, in words that say why.
#[tokio::test]
async fn a_reader_of_metrics_changes_nothing() {
    let world = World::new().await;
    world.prepare().await;
    let Session { backend, store } = world.open(METRICS).await.unwrap();
    let before = everything(&mut world.admin.borrow_mut());
    let (seen, unseen) = (pool("seen"), pool("unseen"));
    let (execution, holder, asks) = (execution(A), holder(), ticket());
    let claimant = Claimant { execution: &execution, constraints: FREE, holder: &holder };
    let joint = |pool: &PoolName| Joint {
        pool: pool.clone(),
        claim: claim("held", 1).with_lease(lease(1000)),
        constraints: FREE,
    };
    let (held, new) = (token("held"), claim("new", 1));
    let renewals = [Renewal { execution: &execution, token: &held, lease: lease(1000) }];
    let tokens = std::slice::from_ref(&held);
    let held_member = member(A, "held");
    let number = backend.holders(&seen, Cursor::default(), 10).await.unwrap().holdings;
    let is_held = |holding: &&Holding| holding.member == held_member;
    let number = number.iter().find(is_held).unwrap().record.as_ref().unwrap().fencing_number;

    let refuse = |error: Option<Error>| {
        assert_refused(&error.unwrap(), None);
        assert_eq!(everything(&mut world.admin.borrow_mut()), before);
    };
    for pool in [&seen, &unseen] {
        for change in [QuotaChange::Register(quota(9)), QuotaChange::Create(quota(9))] {
            // One that is there is only looked at.
            if (pool, change) != (&seen, QuotaChange::Create(quota(9))) {
                refuse(backend.change_quota(pool, change).await.err());
            }
        }
    }
    for change in [QuotaChange::Pin(quota(9)), QuotaChange::Unpin] {
        refuse(backend.change_quota(&seen, change).await.err());
    }
    let (order, weigh) =
        (QueueChange::new().order(Order::Fair), QueueChange::new().weight("p", weight(2)));
    refuse(backend.change_queue(&seen, &order).await.err());
    refuse(backend.change_queue(&seen, &weigh).await.err());
    refuse(backend.allocate(&pool("fair"), claimant, std::slice::from_ref(&new)).await.err());
    refuse(backend.allocate(&pool("fair"), claimant, &[new.clone(), claim("2", 1)]).await.err());
    refuse(backend.allocate_all(claimant, &[joint(&seen)]).await.err());
    refuse(backend.wait(&seen, claimant, &new, &asks).await.err());
    refuse(backend.renew(&seen, &renewals).await.err());
    refuse(backend.release(&seen, &execution, tokens).await.err());
    refuse(backend.release_grant(&seen, &execution, &held, number).await.err());
    refuse(backend.revoke(&seen, &held_member, &revocation()).await.err());
    refuse(backend.repair(&seen).await.err());
    for deletion in [Deletion::OnlyUnused, Deletion::EvenInUse] {
        refuse(backend.delete_pool(&pool("fair"), deletion).await.err());
    }
    refuse(backend.listen().await.err());
    let attributes = Attributes::new(store, holder.clone()).of::<ResourceConstraints>();
    refuse(attributes.replace(&project(), rule(), Expected::Any).await.err());
    refuse(attributes.delete(&project(), Expected::Any).await.err());
}

/// What a user may not do past the library either.
#[tokio::test]
async fn nobody_reaches_beyond_their_rule() {
    let world = World::new().await;
    world.prepare().await;
    world.order(&["SET", "others", "1"]);
    let client = world.open(CLIENT).await.unwrap().backend;
    for deletion in [Deletion::OnlyUnused, Deletion::EvenInUse] {
        let error = client.delete_pool(&pool("fair"), deletion).await.unwrap_err();
        assert_refused(&error, None);
    }
    let before = everything(&mut world.admin.borrow_mut());
    for user in [CLIENT, OPERATOR, METRICS] {
        let mut connection = world.raw(user);
        let mut refuse = |words: &[&str]| {
            let said = redis::cmd(words[0]).arg(&words[1..]).query::<redis::Value>(&mut connection);
            let said = said.unwrap_err().to_string().to_lowercase();
            let is_refused = ["noperm", "executing the script", "acl failure in script"];
            assert!(is_refused.iter().any(|words| said.contains(words)), "{words:?}: {said}");
        };
        for words in [
            &["FLUSHALL"][..],
            &["CONFIG", "GET", "*"],
            &["KEYS", "*"],
            &["ACL", "WHOAMI"],
            &["SCRIPT", "FLUSH"],
            &["CLIENT", "KILL", "TYPE", "normal"],
            &["SHUTDOWN"],
            &["SET", "redisresourcemanager:x", "1"],
            &["GET", "others"],
            &["TYPE", "others"],
            &["SUBSCRIBE", "others"],
            &["PUBLISH", "others", "1"],
            // By a script no more than by oneself.
            &["EVAL", "return redis.call('HGET', 'others', 'x')", "0"],
            &["EVAL", "return redis.call('TYPE', KEYS[1])", "1", "others"],
            &["EVAL", "return redis.call('FLUSHALL')", "0"],
        ] {
            refuse(words);
        }
        if user != OPERATOR {
            refuse(&["UNLINK", "redisresourcemanager:hive:fair"]);
            refuse(&["DEL", "redisresourcemanager:hive:fair"]);
        }
        if user == CLIENT {
            refuse(&["HGET", "{tokenpool:attributes:X}:history", "x"]);
            refuse(&["SADD", "tokenpool:kinds", "X"]);
        }
    }
    assert_eq!(everything(&mut world.admin.borrow_mut()), before);
}

/// Where the server knows keys that may only be read, which Redis 6.2 does not.
#[tokio::test]
async fn a_client_need_not_be_able_to_write_attributes() {
    let world = World::new().await;
    let (all, read) = ("~tokenpool:attributes:*", "%R~tokenpool:attributes:*".to_owned());
    let rule = Rule::of(CLIENT).without(all).with(&[read]);
    if version(&mut world.admin.borrow_mut()) < 7 {
        assert!(rule.set(&mut world.admin.borrow_mut()).is_err());
        return;
    }
    let work = async |session: &Session| {
        session.claims_and_waits().await?;
        session.applies_rules().await
    };
    world.attempt(&rule, work).await.unwrap();
    assert_eq!(world.refused(), [""; 0]);
    let write = ["HSET", "tokenpool:attributes:RESOURCE_CONSTRAINTS", "p", "x"];
    let said = redis::cmd(write[0]).arg(&write[1..]).exec(&mut world.raw(CLIENT));
    assert_eq!(said.unwrap_err().code(), Some("NOPERM"));
}

#[tokio::test]
async fn another_database_needs_one_word_more() {
    let world = World::new().await;
    let mut config = world.config(CLIENT);
    config.redis.database = 1;
    assert_refused(&config.open().await.unwrap_err(), Some("select"));
    let rule = Rule::of(CLIENT).with(&also("a database other than 0, all roles"));
    rule.set(&mut world.admin.borrow_mut()).unwrap();
    Session::open(&config).await.unwrap().claims_and_waits().await.unwrap();
}

/// No more than the rights to it are lost: claims go on, and whoever waits asks.
#[tokio::test]
async fn a_subscription_that_is_refused_later_keeps_nobody_from_claiming() {
    let world = World::new().await;
    let client = world.open(CLIENT).await.unwrap();
    let mut inbox = client.backend.listen().await.unwrap();
    // The subscription's own.
    assert_eq!(inbox.notices.recv().await, Some(Notice::Interrupted));
    Rule::of(CLIENT).without("+subscribe").set(&mut world.admin.borrow_mut()).unwrap();
    world.order(&["CLIENT", "KILL", "USER", CLIENT]);
    // The connection is lost; whoever listens is told so and asks.
    assert_eq!(inbox.notices.recv().await, Some(Notice::Interrupted));
    until("claims go on", async || client.takes_and_returns().await.ok()).await;
    // Over one connection, made once.
    let before = world.connections_made();
    for _ in 0..3 {
        client.takes_and_returns().await.unwrap();
    }
    assert_eq!(world.connections_made(), before);
    assert_refused(&client.backend.listen().await.unwrap_err(), Some("subscribe"));
    // What was refused is not tried again with the next connection.
    drop(inbox);
    world.order(&["ACL", "LOG", "RESET"]);
    world.order(&["CLIENT", "KILL", "USER", CLIENT]);
    until("claims go on", async || client.takes_and_returns().await.ok()).await;
    assert_eq!(world.refused(), [""; 0]);
}

/// A waiting claim is told, if it may not hear of its turn.
#[tokio::test]
async fn a_claim_that_may_not_listen_does_not_wait() {
    let world = World::new().await;
    let deaf = Rule::of(CLIENT).without("&tokenpool:tickets:*");
    deaf.set(&mut world.admin.borrow_mut()).unwrap();
    let error = world.open(CLIENT).await.unwrap().lives().await.unwrap_err();
    assert_refused(&error, None);
}

/// The rule on all servers of a deployment.
fn set_everywhere(rule: &Rule, connections: impl IntoIterator<Item = redis::Connection>) {
    connections.into_iter().for_each(|mut connection| rule.set(&mut connection).unwrap());
}

#[tokio::test]
async fn behind_sentinels_every_word_more_is_needed() {
    let options = sentinels::Options {
        servers: Some(ADMIN),
        sentinels: Some(ADMIN),
        ..sentinels::Options::default()
    };
    let sentinels = Sentinels::start(&options).await;
    let on_servers = Rule::of(CLIENT).with(&also("servers behind sentinels, all roles"));
    let on_sentinels = Rule::of("tokenpool");
    let set = |rule: &Rule, addresses: Vec<String>| {
        set_everywhere(rule, addresses.iter().map(|address| sentinels.raw(address)));
    };
    set(&on_servers, sentinels.servers());
    set(&on_sentinels, sentinels.host_paths());
    let keys = format!(
        "hostPaths: {}, primaryName: {}, sentinelUser: tokenpool, sentinelKey: {PASSWORD}",
        list(&sentinels.host_paths()),
        sentinels.name()
    );
    let config = configuration_of(&keys, CLIENT, PASSWORD);
    let admin = configuration_of(&keys, "admin", ADMIN.password);
    Session::open(&admin).await.unwrap().prepare().await.unwrap();
    let client = Session::open(&config).await.unwrap();
    client.claims_and_waits().await.unwrap();
    client.lives().await.unwrap();

    // There are replicas here to wait for.
    let mut acknowledged = config.clone();
    acknowledged.redis.min_replicas = 1;
    acknowledged.redis.acknowledge_timeout = Duration::from_secs(10);
    let acknowledged = Session::open(&acknowledged).await.unwrap();
    assert_refused(&acknowledged.takes_and_returns().await.unwrap_err(), Some("wait"));
    let on_servers = on_servers.with(&also("minReplicas, client and operator"));
    set(&on_servers, sentinels.servers());
    acknowledged.takes_and_returns().await.unwrap();

    for word in on_sentinels.permissions() {
        set(&on_sentinels.without(&word), sentinels.host_paths());
        let error = config.open().await.unwrap_err();
        assert_refused(&error, word.strip_prefix('+'));
        set(&on_sentinels, sentinels.host_paths());
    }
    set(&on_servers.without("+role"), sentinels.servers());
    assert_refused(&config.open().await.unwrap_err(), Some("role"));
}

#[tokio::test]
async fn in_a_cluster_every_word_more_is_needed() {
    let options = cluster::Options { login: Some(ADMIN), ..cluster::Options::new(3, 0) };
    let cluster = Cluster::start_as(&options).await;
    let set = |rule: &Rule| set_everywhere(rule, cluster.nodes().map(|node| cluster.raw(node)));
    let more = also("a cluster, all roles");
    let notices = also("a cluster from Redis 7.0, client and operator");
    let rule = Rule::of(CLIENT).with(&more).with(&notices);
    let has_shards = version(&mut cluster.raw(0)) >= 7;
    // Redis 6.2 knows no channels in slots, and no rule that names their commands.
    let (rule, notices) = match has_shards {
        true => (rule, notices),
        false => {
            assert!(rule.set(&mut cluster.raw(0)).is_err());
            (Rule::of(CLIENT).with(&more), Vec::new())
        }
    };
    set(&rule);
    let keys = format!("hostPaths: {}, cluster: true", list(&cluster.host_paths()));
    let config = configuration_of(&keys, CLIENT, PASSWORD);
    let admin = Session::open(&configuration_of(&keys, "admin", ADMIN.password)).await.unwrap();
    admin.prepare().await.unwrap();
    let client = Session::open(&config).await.unwrap();
    client.lives().await.unwrap();
    client.applies_rules().await.unwrap();

    // The list of pools is on its way, and there already. (With several keys one cannot ask: those that do not exist may
    // still be where the others were.)
    let slot = cluster.slot("tokenpool:pools");
    let to = (cluster.owner_of_slot(slot).await + 1) % 3;
    let moving = cluster.begin_move(slot, to).await;
    cluster.move_keys(&moving, usize::MAX);
    let work = async |rule: &Rule| -> Result<()> {
        set(rule);
        for node in cluster.nodes() {
            redis::cmd("FLUSHALL").exec(&mut cluster.raw(node)).unwrap();
            redis::cmd("ACL").arg(&["LOG", "RESET"]).exec(&mut cluster.raw(node)).unwrap();
        }
        admin.prepare().await?;
        Session::open(&config).await?.claims_and_waits().await
    };
    work(&rule).await.unwrap();
    for node in cluster.nodes() {
        assert_eq!(refused(&mut cluster.raw(node)), [""; 0]);
    }
    // What others need is not needed here.
    let mut others = vec!["+client|tracking"];
    if has_shards {
        others.extend(["+subscribe", "+publish", "&tokenpool:tickets:*"]);
    }
    work(&others.iter().fold(rule.clone(), |rule, word| rule.without(word))).await.unwrap();
    for word in more.iter().chain(&notices) {
        match work(&rule.without(word)).await.unwrap_err() {
            error if work::is_unheard(&error) => assert_eq!(word, "+spublish"),
            error => assert_refused(&error, word.strip_prefix('+')),
        }
    }
}
