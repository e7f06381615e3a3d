//! What a server says about itself.

use redis::aio::MultiplexedConnection;
use redis::{RedisResult, Value};

use super::node::is_unusable;

/// A section of INFO; empty if the server does not tell. One at a time, as Redis 6.2 wants it.
pub(super) async fn info(
    connection: &mut MultiplexedConnection,
    section: &str,
) -> RedisResult<String> {
    let info = redis::cmd("INFO").arg(section).to_owned();
    match connection.send_packed_command(&info).await.and_then(Value::extract_error) {
        Ok(said) => Ok(redis::from_redis_value(said).unwrap_or_default()),
        Err(error) if is_unusable(&error) => Err(error),
        Err(error) => {
            tracing::debug!(%error, "INFO is refused");
            Ok(String::new())
        }
    }
}

/// The value of a field.
pub(super) fn value<'a>(said: &'a str, field: &str) -> Option<&'a str> {
    said.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
}

/// The policy by which a server throws away keys of pools when its memory is full, if it does. Those that are about keys
/// with a time to live do not concern pools, which have none.
pub(super) fn eviction(memory: &str) -> Option<&str> {
    let is_limited = value(memory, "maxmemory").is_some_and(|limit| limit != "0");
    value(memory, "maxmemory_policy").filter(|policy| is_limited && policy.starts_with("allkeys"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_policies_that_reach_pools_are_reported_and_only_where_memory_is_limited() {
        let of = |limit: &str, policy: &str| {
            let said = format!("# Memory\r\nmaxmemory:{limit}\r\nmaxmemory_policy:{policy}\r\n");
            eviction(&said).map(str::to_owned)
        };
        assert_eq!(of("1048576", "allkeys-lru").as_deref(), Some("allkeys-lru"));
        for (limit, policy) in [("0", "allkeys-lru"), ("9", "noeviction"), ("9", "volatile-lru")] {
            assert_eq!(of(limit, policy), None, "{limit} {policy}");
        }
        assert_eq!(eviction(""), None);
    }
}
