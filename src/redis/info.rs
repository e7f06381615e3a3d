//! What a server says about itself.

use redis::aio::ConnectionLike as _;
use redis::{Pipeline, RedisResult};

use super::connect::is_temporary;
use super::connection::Connection;

/// Sections of INFO, asked for in one go; empty where the server does not tell. Redis 6.2 gives one to a command.
pub(super) async fn info<const N: usize>(
    connection: &mut Connection,
    sections: [&str; N],
) -> RedisResult<[String; N]> {
    let mut pipeline = Pipeline::new();
    for section in sections {
        pipeline.cmd("INFO").arg(section);
    }
    let replies = connection.req_packed_commands(&pipeline, 0, N).await?;
    let mut said = [const { String::new() }; N];
    for (said, reply) in said.iter_mut().zip(replies) {
        match reply.extract_error() {
            Ok(reply) => *said = redis::from_redis_value(reply).unwrap_or_default(),
            // It will tell later, and nobody asks again on this connection.
            Err(error) if is_temporary(&error) => return Err(error),
            Err(error) => tracing::debug!(%error, "INFO is refused"),
        }
    }
    Ok(said)
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
