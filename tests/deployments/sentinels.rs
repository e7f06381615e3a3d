//! Behind sentinels.

use std::time::Duration;

use redis::Commands as _;
use tokenpool::matchable::{
    AnsweredBy, AttributePath, Attributes, AttributesOf, CacheConfig, ExecutionClusterLabel,
    Expected,
};
use tokenpool::{Cursor, Holder};

use super::{QUOTA, User, configuration, list, open};
use crate::conformance;
use crate::support::fake::{Answer, Fake};
use crate::support::fence;
use crate::support::proxy::Proxy;
use crate::support::sentinels::{Options, Sentinels};
use crate::support::server::{Login, Server};
use crate::support::{token, until};

fn keys(sentinels: &Sentinels) -> String {
    keys_at(sentinels, &sentinels.host_paths())
}

/// The same where the sentinels have other addresses.
fn keys_at(sentinels: &Sentinels, addresses: &[String]) -> String {
    format!("hostPaths: {}, primaryName: {}", list(addresses), sentinels.name())
}

#[tokio::test]
async fn every_case_passes_behind_sentinels() {
    let sentinels = Sentinels::start(&Options::default()).await;
    conformance::every_case(&open(&keys(&sentinels)).await).await;
}

/// Down-after is half a second here, and the failover itself takes less than one.
#[tokio::test]
async fn a_killed_primary_is_followed_by_itself() {
    let mut sentinels = Sentinels::start(&Options::default()).await;
    let user = User::new(&keys(&sentinels), "killed").await;
    user.claim("1").await.unwrap().granted().unwrap();
    let old = sentinels.kill_primary().await;
    let (outcome, took) = user.claimed("2").await;
    outcome.granted().unwrap();
    assert!(took < Duration::from_secs(10), "{took:?}");
    let new = sentinels.until_primary_is_not(&old).await;
    let held: usize = sentinels.raw(&new).scard(user.key()).unwrap();
    assert!(held >= 1);
    // What comes back comes back as a replica, and nobody claims there.
    sentinels.restart(&old);
    sentinels.until_whole().await;
    user.claimed("3").await.0.granted().unwrap();
    assert!(
        i64::try_from(sentinels.raw(&new).scard::<_, usize>(user.key()).unwrap()).unwrap() <= QUOTA
    );
}

#[tokio::test]
async fn a_primary_that_hangs_is_left() {
    let sentinels = Sentinels::start(&Options::default()).await;
    let user = User::new(&keys(&sentinels), "hangs").await;
    user.claim("1").await.unwrap().granted().unwrap();
    sentinels.until_whole().await;
    let old = sentinels.signal_primary("STOP").await;
    user.claimed("2").await.0.granted().unwrap();
    assert_ne!(sentinels.primary().await, old);
    // It believes that it is the primary until it is told; calls go to the new one all the same.
    sentinels.signal(&old, "CONT");
    user.claimed("3").await.0.granted().unwrap();
    let refused = user.claimed("4").await.0;
    assert!(refused.granted().is_none());
    sentinels.until_whole().await;
    assert!(user.claim("4").await.unwrap().granted().is_none());
}

#[tokio::test]
async fn a_failover_by_command_loses_nothing() {
    let sentinels = Sentinels::start(&Options::default()).await;
    let user = User::new(&keys(&sentinels), "command").await;
    for name in ["1", "2", "3"] {
        user.claim(name).await.unwrap().granted().unwrap();
    }
    sentinels.until_whole().await;
    for _ in 0..2 {
        sentinels.failover().await;
        assert!(user.claimed("4").await.0.granted().is_none());
        let (held, _) = user.claimed("1").await;
        assert!(held.granted().unwrap().held_before);
        sentinels.until_whole().await;
    }
}

#[tokio::test]
async fn servers_and_sentinels_have_passwords_of_their_own() {
    for user in [None, Some("app")] {
        let options = Options {
            servers: Some(Login { user, password: "of-servers" }),
            sentinels: Some(Login { user, password: "of-sentinels" }),
            ..Options::default()
        };
        let sentinels = Sentinels::start(&options).await;
        let logins = "hostKey: of-servers, sentinelKey: of-sentinels";
        let users = user.map(|user| format!(", hostUser: {user}, sentinelUser: {user}"));
        let keys = format!("{}, {logins}{}", keys(&sentinels), users.unwrap_or_default());
        let user = User::new(&keys, "passwords").await;
        user.claim("1").await.unwrap().granted().unwrap();
        sentinels.failover().await;
        user.claimed("2").await.0.granted().unwrap();
        // Without either there is an error that names neither.
        for wrong in ["of-servers", "of-sentinels"] {
            let keys = keys.replace(wrong, "wrong");
            let error = configuration(&keys).open().await.unwrap_err();
            let text = format!("{error}: {error:?}");
            assert!(text.contains("authentication failed") || text.contains("WRONGPASS"), "{text}");
            assert!(!text.contains("of-se"), "{text}");
        }
    }
}

#[tokio::test]
async fn sentinels_that_know_no_such_primary_are_an_error() {
    let sentinels = Sentinels::start(&Options::default()).await;
    // What they say tells more than that one of them says nothing.
    let silent = Proxy::before(sentinels.host_paths()[0].clone());
    silent.hold();
    let mut hosts = sentinels.host_paths();
    hosts.push(silent.address());
    let keys = format!("hostPaths: {}, primaryName: nobody", list(&hosts));
    let error = configuration(&keys).open().await.unwrap_err();
    let text = format!("{error}: {error:?}");
    assert!(text.contains("No such master"), "{text}");
}

/// Of all that was answered "granted" before the primary was killed, the new one knows: one of two replicas had it, and
/// that is the one that sentinels choose.
#[tokio::test]
async fn what_replicas_acknowledged_outlives_the_primary() {
    let mut sentinels = Sentinels::start(&Options::default()).await;
    let keys = keys(&sentinels) + ", minReplicas: 1, acknowledgeTimeout: 400ms";
    let user = User::new(&keys, "acknowledged").await;
    let first = fence(&user.claimed("1").await.0);
    let second = fence(&user.claimed("2").await.0);
    let old = sentinels.kill_primary().await;
    let new = sentinels.until_primary_is_not(&old).await;
    // The other replica follows the new one by now, or soon: until then nothing is acknowledged.
    for (name, number) in [("1", first), ("2", second)] {
        let outcome = user.claimed(name).await.0;
        assert!(outcome.granted().unwrap().held_before, "{name}");
        assert_eq!(fence(&outcome), number);
    }
    let third = user.claimed("3").await.0;
    assert!(fence(&third) > second);
    let held: usize = sentinels.raw(&new).scard(user.key()).unwrap();
    assert_eq!(held, 3);
}

/// A client whose way to each sentinel can be cut, and nothing else.
fn parted(sentinels: &Sentinels) -> (Vec<Proxy>, String) {
    let proxies: Vec<_> = sentinels.host_paths().into_iter().map(Proxy::before).collect();
    let addresses: Vec<_> = proxies.iter().map(Proxy::address).collect();
    (proxies, keys_at(sentinels, &addresses))
}

/// Waits until all sentinels were asked in vain.
async fn until_parted(proxies: &[Proxy]) {
    proxies.iter().for_each(Proxy::hold);
    // The connection to each was given up, and the next one, too.
    let asked = until("all were asked in vain", async || {
        proxies.iter().all(|proxy| proxy.held() > 1).then_some(())
    });
    asked.await;
}

#[tokio::test]
async fn a_client_parted_from_all_sentinels_goes_on() {
    let sentinels = Sentinels::start(&Options::default()).await;
    let (proxies, keys) = parted(&sentinels);
    let user = User::new(&keys, "parted").await;
    until_parted(&proxies).await;
    for name in ["1", "2", "3"] {
        user.claimed(name).await.0.granted().unwrap();
    }
    // Nobody is left to follow, until they are back.
    let old = sentinels.failover().await;
    proxies.iter().for_each(Proxy::pass);
    assert!(user.claimed("4").await.0.granted().is_none());
    assert_eq!(sentinels.primary().await, old);
}

/// Whatever would change nothing a replica would answer, with what it has or has not.
#[tokio::test]
async fn replicas_are_never_asked() {
    let sentinels = Sentinels::start(&Options::default()).await;
    let (proxies, keys) = parted(&sentinels);
    let user = User::new(&keys, "replicas").await;
    for name in ["1", "2", "3"] {
        user.claimed(name).await.0.granted().unwrap();
    }
    let (pool, unknown) = (user.pool(), [token("unknown")]);
    let list = async || user.backend.holders(&pool, Cursor::default(), 10).await.map(|_| ());
    list().await.unwrap();
    sentinels.until_whole().await;
    until_parted(&proxies).await;
    sentinels.failover().await;
    sentinels.until_whole().await;
    for _ in 0..2 {
        let answers = [
            user.claim("4").await.map(|_| ()),
            user.task().release_many(&user.namespace, &unknown).await.map(|_| ()),
            user.backend.usage(&pool).await.map(|_| ()),
            list().await,
        ];
        for answer in answers {
            let error = answer.unwrap_err();
            assert!(error.is_retryable(), "{error:?}");
        }
    }
    proxies.iter().for_each(Proxy::pass);
    assert!(user.claimed("4").await.0.granted().is_none());
    list().await.unwrap();
}

/// A sentinel that says this and nothing else.
async fn saying(primary: &Server, flags: &str) -> Fake {
    let port = primary.port.unwrap().to_string();
    let fields = ["ip", "127.0.0.1", "port", &port, "flags", flags, "config-epoch", "7"];
    let words: String = fields.map(|word| format!("${}\r\n{word}\r\n", word.len())).concat();
    Fake::answering("SENTINEL", 1, Answer::text(&format!("*{}\r\n{words}", fields.len()))).await
}

/// Whoever replaces a primary goes on to name it until all replicas follow the next, and with the epoch of that.
#[tokio::test]
async fn a_sentinel_that_replaces_the_primary_is_not_believed() {
    let (before, next) = (Server::start_on_tcp(&[]), Server::start_on_tcp(&[]));
    let one = saying(&next, "master").await;
    let replaces = saying(&before, "master,failover_in_progress").await;
    let addresses = list(&[one.address(), replaces.address()]);
    let user = User::new(&format!("hostPaths: {addresses}, primaryName: main"), "said").await;
    let asked = until("they were asked often", async || {
        user.claimed("1").await.0.granted().unwrap();
        Some(replaces.count("SENTINEL")).filter(|asked| *asked > 6)
    });
    asked.await;
    assert!(!before.raw().exists::<_, bool>(user.key()).unwrap());
}

/// Attributes of one kind, looked up at one path.
struct LookUps(AttributesOf<ExecutionClusterLabel>);

fn path() -> AttributePath {
    AttributePath::new("p", "d", "", "").unwrap()
}

impl LookUps {
    async fn new(keys: &str, max_staleness: Duration) -> Self {
        let store = configuration(keys).open_attributes().await.unwrap();
        let config = CacheConfig::new(max_staleness).unwrap();
        let holder = Holder::new("test").unwrap();
        Self(Attributes::cached(store, holder, config).await.unwrap().of())
    }

    async fn set(&self, value: &str) {
        let label = ExecutionClusterLabel { value: value.to_owned() };
        until("a value is written", async || {
            self.0.replace(&path(), label.clone(), Expected::Any).await.ok()
        })
        .await;
    }

    async fn find(&self) -> Option<(String, AnsweredBy)> {
        let found = self.0.get_resource(&path()).await.ok()?;
        Some((found.value.value.clone(), found.answered_by))
    }

    async fn until_found(&self, value: &str) {
        until(&format!("{value} is found"), async || (self.find().await?.0 == value).then_some(()))
            .await;
    }

    /// Whether memory is sure: it answers when the last question is older than the staleness.
    async fn is_sure(&self) -> Option<bool> {
        self.find().await?;
        tokio::time::sleep(STALENESS + Duration::from_millis(100)).await;
        Some(self.find().await?.1 == AnsweredBy::Cache)
    }

    async fn until_sure(&self) {
        until("memory is sure", async || self.is_sure().await?.then_some(())).await;
    }

    /// For a while: on a busy machine it may be unsure for a moment.
    async fn until_unsure(&self) {
        until("memory is not sure", async || {
            for _ in 0..4 {
                (!self.is_sure().await?).then_some(())?;
            }
            Some(())
        })
        .await;
    }
}

/// Time for a few questions to sentinels on a busy machine.
const STALENESS: Duration = Duration::from_secs(1);

/// The one of before answers as ever, and hears of nothing.
#[tokio::test]
async fn changes_are_told_by_the_primary_that_sentinels_name() {
    let sentinels = Sentinels::start(&Options::default()).await;
    // Longer than any test: only what is told counts.
    let reader = LookUps::new(&keys(&sentinels), Duration::from_secs(3600)).await;
    let writer = LookUps::new(&keys(&sentinels), STALENESS).await;
    writer.set("before").await;
    reader.until_found("before").await;
    let old = sentinels.depose_primary().await;
    sentinels.until_primary_is_not(&old).await;
    let new = LookUps::new(&keys(&sentinels), STALENESS).await;
    new.set("after").await;
    reader.until_found("after").await;
    new.set("later").await;
    reader.until_found("later").await;
}

/// Whoever is cut off together with a primary that was replaced cannot know, so nothing is sure that most of the sentinels
/// do not say.
#[tokio::test]
async fn memory_answers_only_for_a_primary_that_most_sentinels_name() {
    let sentinels = Sentinels::start(&Options::default()).await;
    let (proxies, through) = parted(&sentinels);
    let reader = LookUps::new(&through, STALENESS).await;
    let writer = LookUps::new(&keys(&sentinels), STALENESS).await;
    writer.set("before").await;
    reader.until_sure().await;
    proxies[0].refuse().await;
    reader.until_sure().await;
    proxies[1].refuse().await;
    reader.until_unsure().await;
    proxies[1].pass();
    reader.until_sure().await;
    proxies.iter().for_each(Proxy::hold);
    let old = sentinels.depose_primary().await;
    sentinels.until_primary_is_not(&old).await;
    LookUps::new(&keys(&sentinels), STALENESS).await.set("after").await;
    // It is asked, and says what it has.
    reader.until_unsure().await;
    assert_eq!(reader.find().await.unwrap().0, "before");
    proxies.iter().for_each(Proxy::pass);
    reader.until_found("after").await;
    reader.until_sure().await;
}
