//! Users that may do no more than their role needs: the rules of `lua/README.md`, to the word.

mod rules;
mod work;

use std::cell::RefCell;
use std::time::Duration;

use redis::Commands as _;
use tokenpool::{Config, Error, PoolName, Result};

use self::rules::{PASSWORD, Rule, also};
use self::work::{A, Session, pool};
use super::configuration;
use crate::conformance;
use crate::support::server::{Login, Port, Server, Setup};

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

    /// What was refused since the server was prepared, but for what does not matter.
    fn refused(&self) -> Vec<String> {
        let log: Vec<Vec<redis::Value>> =
            redis::cmd("ACL").arg("LOG").query(&mut self.admin.borrow_mut()).unwrap();
        let object = |entry: Vec<redis::Value>| {
            let words: Vec<_> = entry
                .into_iter()
                .map(|word| redis::from_redis_value::<String>(word).unwrap_or_default())
                .collect();
            let at = words.iter().position(|word| word == "object").unwrap();
            words[at + 1].clone()
        };
        // The client's name, which Redis 6.2 does not tell from other subcommands.
        let is_name = |object: &String| matches!(&**object, "client" | "client|setinfo");
        log.into_iter().map(object).filter(|object| !is_name(object)).collect()
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
                Err(error) => assert_refused(&error, word.strip_prefix('+')),
                // The pool of connections makes a new one for each call.
                Ok(more) => assert!(more > connections, "{} is not needed", word),
            }
        }
        rule.set(&mut self.admin.borrow_mut()).unwrap();
    }
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
    let (text, debug) = (text(error).to_lowercase(), format!("{error:?}"));
    assert!(matches!(error, Error::Server { .. }) && !error.is_retryable(), "{text}");
    assert!(!text.contains(PASSWORD) && !debug.contains(PASSWORD), "{text}: {debug}");
    // How Redis before 7.2 says it of a command in a script.
    let in_script = text.contains("the user executing the script can't");
    // And how everybody does when a database is chosen, which the client puts its own words around.
    let of_database = text.contains("refused to switch database");
    assert!(text.contains("noperm") || in_script || of_database, "{text}");
    if let Some(command) = command
        && !in_script
    {
        let command = command.split('|').next().unwrap();
        assert!(text.contains(command), "{text} names no {command}");
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
