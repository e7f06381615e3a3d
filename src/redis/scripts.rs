//! The scripts of `lua/`, and how they are called: EVALSHA, with one reload when the server lost
//! them.

use std::sync::OnceLock;

use redis::{Cmd, ErrorKind, RedisError, RedisResult, ServerErrorKind, Value};

use super::connect::{Connections, Lane};

/// One file of `lua/`.
#[derive(Debug)]
pub(super) struct Script {
    source: &'static str,
    digest: OnceLock<String>,
}

macro_rules! scripts {
    ($($name:ident = $file:literal),* $(,)?) => {
        $(pub(super) static $name: Script =
            Script { source: include_str!(concat!("../../lua/", $file, ".lua")), digest: OnceLock::new() };)*
    };
}

scripts! {
    ALLOCATE = "allocate",
    ALLOCATE_MANY = "allocate_many",
    CHECK = "check",
    DELETE_POOL = "delete_pool",
    HOLDERS = "holders",
    RECONCILE = "reconcile",
    RELEASE = "release",
    REPAIR = "repair",
    SET_QUOTA = "set_quota",
    USAGE = "usage",
}

impl Script {
    /// A call with these keys, to which the arguments are to be added.
    pub(super) fn cmd(&self, keys: &[&str]) -> Cmd {
        let digest =
            self.digest.get_or_init(|| sha1_smol::Sha1::from(self.source).digest().to_string());
        let mut cmd = redis::cmd("EVALSHA");
        cmd.arg(digest).arg(keys.len()).arg(keys);
        cmd
    }

    pub(super) async fn call(
        &self,
        connections: &Connections,
        lane: Lane,
        cmd: &Cmd,
    ) -> RedisResult<Value> {
        match connections.call(lane, cmd).await {
            Err(error) if is_unknown_script(&error) => {
                self.load(connections, lane).await?;
                connections.call(lane, cmd).await
            }
            reply => reply,
        }
    }

    /// Calls the script several times in one round trip.
    pub(super) async fn call_all(
        &self,
        connections: &Connections,
        calls: &[Cmd],
    ) -> RedisResult<Vec<Value>> {
        match connections.call_all(calls).await {
            Err(error) if is_unknown_script(&error) => {
                self.load(connections, Lane::Shared).await?;
                connections.call_all(calls).await
            }
            replies => replies,
        }
    }

    async fn load(&self, connections: &Connections, lane: Lane) -> RedisResult<()> {
        let load = redis::cmd("SCRIPT").arg("LOAD").arg(self.source).to_owned();
        connections.call(lane, &load).await.map(drop)
    }
}

fn is_unknown_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}
