//! Servers that are none, or not any more: whatever they answer is an error in time, and nobody's else.

use std::time::{Duration, Instant};

use tokenpool::{Backend, Error, QuotaChange, Result};

use super::configuration;
use crate::support::fake::{Answer, Fake, Heard};
use crate::support::quota;

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
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
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
