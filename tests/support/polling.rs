//! Asking until it is so, where no event tells.

use std::time::{Duration, Instant};

/// The answer to a question about several servers, which is asked again and again, because no event tells that they
/// agree; fails after a minute.
pub(crate) async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "not within a minute: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
