//! Passwords are shown nowhere.

use std::fmt::Debug;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use tracing_subscriber::fmt::MakeWriter;

use super::{User, configuration, list};
use crate::support::cluster::{self, Cluster};
use crate::support::sentinels::{self, Sentinels};
use crate::support::server::Login;

const SERVERS: &str = "hunter2-of-servers";
const SENTINELS: &str = "hunter2-of-sentinels";
const WRONG: &str = "hunter2-wrong";

/// Reads what every test of this process logs; only this one has such passwords.
#[derive(Clone, Copy)]
struct Reader;

static LINES: AtomicU64 = AtomicU64::new(0);
static SHOWN: AtomicU64 = AtomicU64::new(0);

impl Write for Reader {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        LINES.fetch_add(1, Ordering::Relaxed);
        if contains_password(&String::from_utf8_lossy(line)) {
            SHOWN.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Reader {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        *self
    }
}

fn contains_password(text: &str) -> bool {
    text.contains("hunter2")
}

fn assert_hidden(shown: impl Debug) {
    let text = format!("{shown:?} {shown:#?}");
    assert!(!contains_password(&text), "{text}");
}

/// Uses a deployment, and then it with passwords that are wrong.
async fn use_it(keys: &str) {
    let config = configuration(keys);
    assert_hidden(&config);
    let user = User::new(keys, "secrets").await;
    assert_hidden((&user.manager, &user.backend));
    user.claim("1").await.unwrap().granted().unwrap();
    for password in [SERVERS, SENTINELS] {
        if keys.contains(password) {
            let error = configuration(&keys.replace(password, WRONG)).open().await.unwrap_err();
            let mut cause: Option<&dyn std::error::Error> = Some(&error);
            while let Some(error) = cause {
                assert!(!contains_password(&error.to_string()), "{error}");
                cause = error.source();
            }
            assert_hidden(&error);
        }
    }
}

#[tokio::test]
async fn no_log_error_or_debug_output_shows_a_password() {
    tracing_subscriber::fmt()
        .with_max_level(tracing::level_filters::LevelFilter::TRACE)
        .with_ansi(false)
        .with_writer(Reader)
        .init();
    let login = Login { user: Some("app"), password: SERVERS };
    let options = sentinels::Options {
        servers: Some(login),
        sentinels: Some(Login { user: None, password: SENTINELS }),
        ..sentinels::Options::default()
    };
    let mut sentinels = Sentinels::start(&options).await;
    let hosts = list(&sentinels.host_paths());
    let keys = format!(
        "hostPaths: {hosts}, primaryName: {}, hostUser: app, hostKey: {SERVERS}, sentinelKey: {SENTINELS}",
        sentinels.name()
    );
    use_it(&keys).await;
    use_it(&format!("url: \"redis://app:{SERVERS}@{}/3\"", sentinels.primary().await)).await;
    // What is logged while servers go and come.
    let user = User::new(&keys, "follows").await;
    sentinels.kill_primary().await;
    user.claimed("1").await.0.granted().unwrap();

    let mut options = cluster::Options::new(3, 0);
    options.login = Some(login);
    let mut cluster = Cluster::start_as(&options).await;
    let keys =
        format!("hostPaths: {}, hostUser: app, hostKey: {SERVERS}", list(&cluster.host_paths()));
    use_it(&keys).await;
    let user = User::new(&keys, "lost").await;
    let owner = cluster.owner(&user.key()).await;
    cluster.kill(owner);
    assert_hidden(user.claim("1").await.unwrap_err());

    assert!(LINES.load(Ordering::Relaxed) > 10, "nothing was logged");
    assert_eq!(SHOWN.load(Ordering::Relaxed), 0);
}
