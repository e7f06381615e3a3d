//! What a document and the environment say, and what is wrong with them.

use secrecy::ExposeSecret;

use super::*;

fn message(text: &str) -> String {
    Config::from_yaml(text).map_or_else(|e| e.to_string(), |config| format!("{config:?}"))
}

#[test]
fn defaults_are_flytes() -> Result<()> {
    let config = Config::from_yaml("")?;
    assert_eq!(config.backend_type, BackendType::Noop);
    assert_eq!(config.resource_max_quota, 1000);
    assert_eq!(config.redis.max_retries, 0);
    assert_eq!(config.redis.connect_timeout, Duration::from_secs(5));
    assert_eq!(config.redis.command_timeout, Duration::from_secs(3));
    assert_eq!(config.redis.min_replicas, 0);
    assert_eq!(config.on_unavailable, OnUnavailable::Refuse);
    assert!(config.redis.host_paths.is_empty() && config.redis.host_key.is_none());
    Ok(())
}

#[test]
fn flytes_seven_keys_are_read_at_each_of_the_three_places() -> Result<()> {
    let keys = [
        "type: redis",
        "resourceMaxQuota: 1",
        "redis:",
        "  hostPaths: [\"a:1\"]",
        "  primaryName: \"\"",
        "  hostPath: \"b:2\"",
        "  hostKey: \"1\"",
        "  maxRetries: 1",
    ];
    for (head, indent) in
        [("", ""), ("resourcemanager:", "  "), ("propeller:\n  resourcemanager:", "    ")]
    {
        let body: Vec<_> = keys.iter().map(|line| format!("{indent}{line}")).collect();
        let config = Config::from_yaml(&format!("{head}\n{}", body.join("\n")))?;
        assert_eq!(config.backend_type, BackendType::Redis);
        assert_eq!(config.resource_max_quota, 1);
        assert_eq!(config.redis.host_paths, ["a:1"]);
        assert_eq!(config.redis.host_path, "b:2");
        assert_eq!(config.redis.host_key.as_ref().map(ExposeSecret::expose_secret), Some("1"));
        assert_eq!(config.redis.max_retries, 1);
    }
    Ok(())
}

#[test]
fn other_sections_of_flytes_file_are_left_alone() -> Result<()> {
    let text = "admin: {}\npropeller:\n  workers: 4\n  resourcemanager: {type: memory}";
    assert_eq!(Config::from_yaml(text)?.backend_type, BackendType::Memory);
    Ok(())
}

#[test]
fn mistakes_are_named_with_what_is_allowed() {
    let cases = [
        (
            "type: redsi",
            "invalid configuration: type: unknown variant `redsi`, expected one of `noop`, `memory`, `redis`",
        ),
        (
            "resourcemanager: {typo: 1}",
            "invalid configuration: resourcemanager.typo: unknown field `typo`, expected one of `type`, `resourceMaxQuota`, `onUnavailable`, `localAllowance`, `redis`",
        ),
        (
            "redis: {host: x}",
            "invalid configuration: redis.host: unknown field `host`, expected one of `hostPaths`, `primaryName`, `hostPath`, `hostKey`, `maxRetries`, `hostUser`, `sentinelUser`, `sentinelKey`, `cluster`, `database`, `url`, `tls`, `tlsCaFile`, `tlsCertFile`, `tlsKeyFile`, `tlsServerName`, `connectTimeout`, `commandTimeout`, `totalTimeout`, `retryPercent`, `learningPeriod`, `learnOnCreation`, `minReplicas`, `acknowledgeTimeout`, `connections`",
        ),
        (
            "resourceMaxQuota: many",
            "invalid configuration: resourceMaxQuota: invalid type: string \"many\", expected u32",
        ),
        (
            "resourceMaxQuota: -1",
            "invalid configuration: resourceMaxQuota: invalid value: integer `-1`, expected u32",
        ),
        ("resourceMaxQuota: 0", "invalid configuration: resourceMaxQuota: must be at least 1"),
        (
            "onUnavailable: maybe",
            "invalid configuration: onUnavailable: unknown variant `maybe`, expected `refuse` or `grant`",
        ),
        (
            "onUnavailable: grant",
            "invalid configuration: localAllowance: must be between 1 and resourceMaxQuota",
        ),
        (
            "resourceMaxQuota: 7\nonUnavailable: grant\nlocalAllowance: 8",
            "invalid configuration: localAllowance: must be between 1 and resourceMaxQuota",
        ),
        ("localAllowance: 1", "invalid configuration: localAllowance: needs onUnavailable: grant"),
        (
            "localAllowance: -1",
            "invalid configuration: localAllowance: invalid value: integer `-1`, expected u32",
        ),
        ("- 1", "invalid configuration: document: must be a mapping of keys to values"),
        (
            "resourcemanager: {redis: []}",
            "invalid configuration: resourcemanager.redis: must be a mapping of keys to values",
        ),
        (
            "propeller: {resourcemanager: {}}\nresourcemanager: {}",
            "invalid configuration: resourcemanager: stands at propeller.resourcemanager, too; give one",
        ),
        (
            "redis: {connectTimeout: soon}",
            "invalid configuration: redis.connectTimeout: \"soon\" is not a duration like 500ms or 5s: expected number at 0",
        ),
        (
            "redis: {commandTimeout: 0s}",
            "invalid configuration: redis.commandTimeout: must be between 1ms and 1h",
        ),
        (
            "redis: {connections: 0}",
            "invalid configuration: redis.connections: must be between 1 and 64",
        ),
        (
            "redis: {retryPercent: 1001}",
            "invalid configuration: redis.retryPercent: must be at most 1000",
        ),
        (
            "redis: {totalTimeout: 2h}",
            "invalid configuration: redis.totalTimeout: must be between 1ms and 1h",
        ),
        (
            "redis: {learningPeriod: 2h}",
            "invalid configuration: redis.learningPeriod: must be at most 1h",
        ),
        (
            "redis: {learningPeriod: 30}",
            "invalid configuration: redis.learningPeriod: must be a duration like 500ms or 5s",
        ),
        (
            "redis: {learnOnCreation: true, learningPeriod: 0s}",
            "invalid configuration: redis.learnOnCreation: needs redis.learningPeriod",
        ),
        (
            "redis: {minReplicas: 17}",
            "invalid configuration: redis.minReplicas: must be at most 16",
        ),
        (
            "redis: {minReplicas: -1}",
            "invalid configuration: redis.minReplicas: invalid value: integer `-1`, expected u32",
        ),
        (
            "redis: {acknowledgeTimeout: soon}",
            "invalid configuration: redis.acknowledgeTimeout: \"soon\" is not a duration like 500ms or 5s: expected number at 0",
        ),
        (
            "redis: {acknowledgeTimeout: 0s}",
            "invalid configuration: redis.acknowledgeTimeout: must be between 1ms and 1h",
        ),
        (
            "redis: {acknowledgeTimeout: 3s, minReplicas: 1}",
            "invalid configuration: redis.acknowledgeTimeout: must be less than commandTimeout",
        ),
        (
            "redis: {cluster: maybe}",
            "invalid configuration: redis.cluster: invalid type: string \"maybe\", expected a boolean",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(message(text), expected, "{text}");
    }
}

#[test]
fn no_message_and_no_debug_output_shows_a_password() -> Result<()> {
    let config = Config::from_yaml("redis: {hostKey: hunter2}")?;
    assert!(!format!("{config:?}").contains("hunter2"));
    for text in [
        "redis: {hostKey: [hunter2]}",
        "redis: {url: {a: hunter2}}",
        "redis: {hostKey: \"hunter2}",
        "redis: {hostKey: hunter2, hostKey: hunter2}",
    ] {
        assert_secret(text);
    }
    Ok(())
}

#[test]
fn the_environment_overrides_the_file() -> Result<()> {
    let set = |name: &str| match name {
        "TOKENPOOL_TYPE" => Some("redis".to_owned()),
        "TOKENPOOL_RESOURCE_MAX_QUOTA" => Some("7".to_owned()),
        "TOKENPOOL_ON_UNAVAILABLE" => Some("grant".to_owned()),
        "TOKENPOOL_LOCAL_ALLOWANCE" => Some("7".to_owned()),
        "TOKENPOOL_REDIS_HOST_PATHS" => Some("a:1".to_owned()),
        "TOKENPOOL_REDIS_HOST_KEY" => Some("123".to_owned()),
        "TOKENPOOL_REDIS_CONNECT_TIMEOUT" => Some("1s".to_owned()),
        "TOKENPOOL_REDIS_LEARNING_PERIOD" => Some("30s".to_owned()),
        "TOKENPOOL_REDIS_LEARN_ON_CREATION" => Some("true".to_owned()),
        "TOKENPOOL_REDIS_MIN_REPLICAS" => Some("2".to_owned()),
        "TOKENPOOL_REDIS_ACKNOWLEDGE_TIMEOUT" => Some("20ms".to_owned()),
        "TOKENPOOL_REDIS_HOST_PATH" => Some(String::new()),
        _ => None,
    };
    let text = "resourcemanager:\n  type: noop\n  redis: {hostPath: \"b:2\", hostKey: x}";
    let config = Config::from_parts(text, set)?;
    assert_eq!(config.backend_type, BackendType::Redis);
    assert_eq!(config.resource_max_quota, 7);
    assert_eq!(config.on_unavailable, OnUnavailable::Grant);
    assert_eq!(config.local_allowance, 7);
    assert_eq!(config.redis.host_paths, ["a:1"]);
    assert_eq!(config.redis.host_path, "b:2");
    assert_eq!(config.redis.host_key.as_ref().map(ExposeSecret::expose_secret), Some("123"));
    assert_eq!(config.redis.connect_timeout, Duration::from_secs(1));
    assert_eq!(config.redis.learning_period, Duration::from_secs(30));
    assert!(config.redis.learn_on_creation);
    assert_eq!(config.redis.min_replicas, 2);
    assert_eq!(config.redis.acknowledge_timeout, Duration::from_millis(20));
    let wrong = |name: &str| (name == "TOKENPOOL_RESOURCE_MAX_QUOTA").then(|| "x".to_owned());
    let error = Config::from_parts("", wrong).err().map(|e| e.to_string());
    assert_eq!(
        error.as_deref(),
        Some(
            "invalid configuration: TOKENPOOL_RESOURCE_MAX_QUOTA: invalid type: string \"x\", expected u32"
        )
    );
    Ok(())
}

fn assert_secret(text: &str) {
    let message = message(text);
    assert!(message.starts_with("invalid configuration"), "{message}");
    assert!(!message.contains("hunter2"), "{message}");
}

#[test]
#[cfg(feature = "redis")]
fn addresses_that_cannot_be_used_are_refused_without_showing_a_password() {
    for text in [
        "redis: {url: \"rediss://:hunter2@a#insecure\"}",
        "redis: {url: \"redis://me:hunter2@a:port\"}",
        "redis: {url: \"redis://:hunter2@a:port\"}",
        "redis: {url: \"http://:hunter2@a\"}",
    ] {
        assert_secret(text);
    }
    let form = "must be redis[s]://[[user]:password@]host[:port][/db] or unix:///path/to/socket";
    let url_alone = "redis.url: stands instead of hostPaths, hostPath, hostKey, hostUser, primaryName, sentinelUser, sentinelKey, cluster and database; give one";
    let cases = [
        ("url: \"rediss://a#insecure\"", "redis.url: servers are always verified; give tlsCaFile"),
        ("url: \"redis://me@a\"", "redis.url: an ACL user needs a password"),
        ("url: \"unix:///s?user=me\"", "redis.url: an ACL user needs a password"),
        ("url: \"unix:///s\", tls: true", "redis.tls: is not spoken over a unix socket"),
        ("url: here", &format!("redis.url: {form}")),
        ("url: \"redis://a/db\"", &format!("redis.url: {form}")),
        ("url: \"redis://a\", hostKey: x", url_alone),
        ("url: \"redis://a\", primaryName: x", url_alone),
        ("url: \"redis://a\", sentinelKey: x", url_alone),
        ("url: \"redis://a\", database: 1", url_alone),
        ("hostPaths: [here]", "redis.hostPaths: must be host:port"),
        ("hostPaths: [\"redis://a:1\"]", "redis.hostPaths: must be host:port"),
        ("hostPaths: [\"me:hunter2@a:1\"]", "redis.hostPaths: must be host:port"),
        ("hostPaths: [\"a:1\", \"b\"]", "redis.hostPaths: must be host:port"),
        ("hostPath: \"a:0\"", "redis.hostPath: must be host:port"),
        ("hostPath: \":1\"", "redis.hostPath: must be host:port"),
        ("hostUser: me", "redis.hostUser: needs hostKey"),
        ("sentinelUser: me, primaryName: x", "redis.sentinelUser: needs sentinelKey"),
        ("sentinelKey: me", "redis.sentinelKey: needs primaryName"),
        ("cluster: true, primaryName: x", "redis.cluster: has no primaryName; give one of them"),
        ("hostPaths: [\"a:1\", \"b:2\"], database: 1", "redis.database: must be 0 in a cluster"),
        ("tlsCaFile: f", "redis.tlsCaFile: needs tls: true, or a rediss:// address"),
        ("tlsServerName: name", "redis.tlsServerName: needs tls: true, or a rediss:// address"),
        (
            "tls: true, tlsServerName: \"a b\"",
            "redis.tlsServerName: must be a DNS name or an IP address",
        ),
        ("tls: true, tlsCertFile: f", "redis.tlsCertFile: needs tlsKeyFile"),
        ("tls: true, tlsKeyFile: f", "redis.tlsKeyFile: needs tlsCertFile"),
    ];
    for (text, problem) in cases {
        let expected = format!("invalid configuration: {problem}");
        assert_eq!(message(&format!("redis: {{{text}}}")), expected);
    }
    for text in [
        "url: \"redis://:x@a:1/2\"",
        "url: \"redis://me:x@a\"",
        "url: \"rediss://a\", tlsCaFile: f",
        "url: \"unix:///s?pass=x\"",
        "hostPath: \"[::1]:1\"",
        "hostPaths: [\"a:1\", \"b:2\"]",
        "hostPaths: [\"a:1\"], cluster: true",
        "hostPaths: [\"a:1\"], primaryName: main, sentinelKey: x",
        "primaryName: main",
        "tls: true, tlsCertFile: f, tlsKeyFile: g, tlsServerName: name",
        "hostUser: me, hostKey: x, database: 3",
    ] {
        let config = Config::from_yaml(&format!("redis: {{{text}}}"));
        assert!(config.is_ok(), "{text}: {config:?}");
    }
}

#[test]
fn an_address_in_the_environment_stands_for_the_documents() -> Result<()> {
    let url = |name: &str| (name == "TOKENPOOL_REDIS").then(|| "redis://c:3".to_owned());
    let text = "redis: {hostPaths: [\"a:1\"], hostPath: \"b:2\", hostKey: x, maxRetries: 2}";
    let config = Config::from_parts(text, url)?;
    assert_eq!(config.redis.url.as_ref().map(ExposeSecret::expose_secret), Some("redis://c:3"));
    assert!(config.redis.host_paths.is_empty() && config.redis.host_key.is_none());
    assert_eq!(config.redis.max_retries, 2);
    // Two variables for one address are a mistake.
    let both = |name: &str| match name {
        "TOKENPOOL_REDIS_HOST_PATH" => Some("a:1".to_owned()),
        name => url(name),
    };
    assert!(Config::from_parts(text, both).is_err());
    Ok(())
}
