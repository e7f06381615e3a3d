//! From options and environment to a configuration.

use secrecy::SecretString;
use tokenpool::{BackendType, Config};

use crate::args::Global;
use crate::error::{Error, Result};

const URL_VARIABLE: &str = "TOKENPOOL_REDIS";
const TYPE_VARIABLE: &str = "TOKENPOOL_TYPE";

/// The configuration for an operator's command, which needs a Redis: elsewhere nothing outlives it.
pub(crate) fn redis(global: &Global) -> Result<Config> {
    let config = configuration(global)?;
    if config.backend_type == BackendType::Redis {
        return Ok(config);
    }
    let found = match &global.config {
        Some(file) => format!(
            "type {} in {} keeps no pools that this command could see",
            name(config.backend_type),
            file.display()
        ),
        None => "this command needs a Redis".to_owned(),
    };
    Err(Error::Usage(format!(
        "{found}: give --redis URL, set {URL_VARIABLE}, or give a --config FILE with type redis"
    )))
}

/// The configuration for a replay, which runs in memory unless told otherwise.
pub(crate) fn any(global: &Global) -> Result<Config> {
    let mut config = configuration(global)?;
    let chosen = is_redis_given(global) || global.config.is_some() || is_set(TYPE_VARIABLE);
    if !chosen {
        config.backend_type = BackendType::Memory;
    }
    Ok(config)
}

/// What the configuration calls a backend.
pub(crate) fn name(backend: BackendType) -> &'static str {
    match backend {
        BackendType::Noop => "noop",
        BackendType::Memory => "memory",
        BackendType::Redis => "redis",
        _ => "unknown",
    }
}

fn configuration(global: &Global) -> Result<Config> {
    let mut config = match &global.config {
        Some(file) => Config::from_file(file)?,
        None => Config::from_env()?,
    };
    if is_redis_given(global) {
        config.backend_type = BackendType::Redis;
    }
    if let Some(url) = &global.redis {
        Config::redis_at(url.clone())
            .map_err(|source| Error::Option { option: "--redis", source })?;
        set_address(&mut config, url.clone());
    }
    Ok(config)
}

/// The URL stands for the whole address: with the file's password it might go to a server that must
/// not learn it.
fn set_address(config: &mut Config, url: SecretString) {
    let redis = &mut config.redis;
    redis.url = Some(url);
    redis.host_paths.clear();
    redis.host_path.clear();
    redis.host_key = None;
}

fn is_redis_given(global: &Global) -> bool {
    global.redis.is_some() || is_set(URL_VARIABLE)
}

/// An empty variable counts as absent, as in the library.
fn is_set(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| !value.is_empty())
}
