//! Servers that are none, or not any more: whatever they answer is an error in time, and nobody's else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokenpool::{Backend, Error, QuotaChange, Result};

use super::configuration;
use crate::support::fake::{Answer, Fake, Heard};
use crate::support::{quota, until};

/// What the server says to the `EVALSHA` of a claim, and to a list of pools.
async fn asked(answer: Answer) -> (Error, Error) {
    let script = move |heard: &Heard<'_>| {
        matches!(heard.command, "EVALSHA" | "EVAL" | "SMEMBERS").then(|| answer.clone())
    };
    let fake = Fake::start(script).await;
    let backend = configuration(&format!("hostPath: \"{}\"", fake.address())).open().await.unwrap();
    let start = Instant::now();
    let claimed = claim(&*backend).await.unwrap_err();
    let listed = backend.pools().await.unwrap_err();
    // Two command time-outs, and what a busy machine adds.
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    (claimed, listed)
}

async fn claim(backend: &dyn Backend) -> Result<()> {
    let pool = "hive:default".parse()?;
    backend.change_quota(&pool, QuotaChange::Register(quota(3))).await.map(drop)
}

#[tokio::test]
async fn answers_of_a_wrong_shape_are_protocol_errors() {
    for answer in ["+OK\r\n", ":7\r\n", ",nan\r\n", "#t\r\n", "(99999999999999999999999\r\n"] {
        let (claimed, listed) = asked(Answer::text(answer)).await;
        for error in [claimed, listed] {
            assert!(matches!(error, Error::Protocol { .. }), "{answer:?}: {error:?}");
        }
    }
}

#[tokio::test]
async fn what_is_no_answer_at_all_is_a_protocol_error() {
    let deep = "*1\r\n".repeat(100_000);
    for answer in ["nonsense\r\n", "*x\r\n", &deep] {
        let (claimed, listed) = asked(Answer::text(answer)).await;
        for error in [claimed, listed] {
            assert!(matches!(error, Error::Protocol { .. }), "{error:?}");
            assert!(!error.is_retryable());
        }
    }
}

/// As an answer that never came: the call may be repeated.
#[tokio::test]
async fn what_breaks_off_or_never_ends_is_no_answer() {
    let huge = b"$999999999999\r\n".to_vec();
    for answer in [
        Answer::Last(b"*2\r\n$5\r\nab".to_vec()),
        Answer::Last(Vec::new()),
        Answer::Bytes(Vec::new()),
        Answer::Bytes(huge.clone()),
        Answer::text("*1000000000\r\n"),
        Answer::text("%9223372036854775807\r\n"),
        Answer::text(">1000000000\r\n"),
        Answer::Endless(huge, vec![b'x'; 1 << 10]),
        Answer::Endless(b"*1000000000\r\n".to_vec(), b":1\r\n".repeat(100)),
        Answer::Endless(Vec::new(), b">2\r\n+message\r\n+x\r\n".repeat(10)),
    ] {
        let (claimed, listed) = asked(answer.clone()).await;
        for error in [claimed, listed] {
            assert!(error.is_retryable(), "{answer:?}: {error:?}");
        }
    }
}

/// 32 MiB that are read for one answer, 36 on their way where Linux fills its buffers (`tcp_rmem`, `tcp_wmem`), and what is
/// written at once.
const MOST: usize = 69 << 20;

async fn patient(fake: &Fake) -> Arc<dyn Backend> {
    let mut config = configuration(&format!("hostPath: \"{}\"", fake.address()));
    // Far more than it takes to connect and to send so much.
    config.redis.connect_timeout = Duration::from_secs(60);
    config.redis.command_timeout = Duration::from_secs(60);
    config.redis.total_timeout = Duration::from_secs(60);
    // What the first answer was is what is told.
    config.redis.max_retries = 0;
    config.open().await.unwrap()
}

/// However long an answer to a claim may take, no memory is filled with it.
#[tokio::test]
async fn what_never_ends_is_cut_off_by_its_size() {
    for head in ["$999999999999\r\n", "+", ">3\r\n+message\r\n+x\r\n$999999999999\r\n"] {
        let answer = Answer::Endless(head.as_bytes().to_vec(), vec![b'x'; 1 << 16]);
        let fake = Fake::start(move |heard: &Heard<'_>| {
            (heard.command == "EVALSHA").then(|| answer.clone())
        });
        let fake = fake.await;
        let backend = patient(&fake).await;
        let error = claim(&*backend).await.unwrap_err();
        assert!(error.is_retryable(), "{error:?}");
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("a reply of more than 32 MiB"), "{cause}");
        assert!(fake.most() < MOST, "{}", fake.most());
    }
}

/// A new connection asks for two sections.
fn is_last_of_greeting(heard: &Heard<'_>) -> bool {
    heard.command == "INFO" && heard.time == 2
}

/// Nor where nobody asks.
#[tokio::test]
async fn what_comes_unasked_and_never_ends_is_cut_off_too() {
    let fake = Fake::start(|heard: &Heard<'_>| {
        let head = b"-ERR unknown command\r\n$999999999999\r\n".to_vec();
        is_last_of_greeting(heard).then(|| Answer::Endless(head, vec![b'x'; 1 << 16]))
    });
    let fake = fake.await;
    let _backend = patient(&fake).await;
    until("another connection is made", async || (fake.count("") > 1).then_some(())).await;
    assert!(fake.most() < MOST, "{}", fake.most());
}

/// What counts is what is not whole.
#[tokio::test]
async fn much_may_come_as_long_as_it_ends() {
    let word = format!("${}\r\n{}\r\n", 1 << 20, "x".repeat(1 << 20));
    let answer = Answer::text(&word);
    let fake = Fake::answering("EVALSHA", 1, answer).await;
    let backend = patient(&fake).await;
    for _ in 0..MOST >> 20 {
        let error = claim(&*backend).await.unwrap_err();
        assert!(matches!(error, Error::Protocol { .. }), "{error:?}");
    }
    assert_eq!((fake.count("EVALSHA"), fake.count("")), (MOST >> 20, 1));

    let notice = format!(">3\r\n+message\r\n+x\r\n{word}").into_bytes();
    let fake = Fake::start(move |heard: &Heard<'_>| {
        let head = b"-ERR unknown command\r\n".to_vec();
        is_last_of_greeting(heard).then(|| Answer::Endless(head, notice.clone()))
    });
    let fake = fake.await;
    let _backend = patient(&fake).await;
    until("many notices came", async || (fake.most() > MOST).then_some(())).await;
    assert_eq!(fake.count(""), 1);
}

/// The connection is given up with what may still come on it.
#[tokio::test]
async fn a_late_answer_is_nobodys() {
    let late = |heard: &Heard<'_>| match (heard.command, heard.time) {
        ("EVALSHA", 1) => Some(Answer::text("*1\r\n")),
        ("EVALSHA", _) => Some(Answer::text("$6\r\nwhole!\r\n")),
        ("SMEMBERS", 1) => Some(Answer::text("*2\r\n$23\r\nredisresourcemanager:a:")),
        ("SMEMBERS", _) => Some(Answer::text("*1\r\n$26\r\nredisresourcemanager:own:b\r\n")),
        _ => None,
    };
    let fake = Fake::start(late).await;
    let backend = configuration(&format!("hostPath: \"{}\"", fake.address())).open().await.unwrap();
    assert!(claim(&*backend).await.unwrap_err().is_retryable());
    let error = claim(&*backend).await.unwrap_err();
    // Alone, and not as the rest of the array that never came.
    assert!(error.to_string().contains("not an array"), "{error}");
    assert!(backend.pools().await.unwrap_err().is_retryable());
    let pools = backend.pools().await.unwrap();
    assert_eq!(pools.iter().map(ToString::to_string).collect::<Vec<_>>(), ["own:b"]);
}
