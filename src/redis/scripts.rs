//! The scripts of `lua/`, and how they are called: EVALSHA, and once by EVAL when the server lost
//! them.

use std::borrow::Cow;
use std::sync::OnceLock;

use redis::{Arg, Cmd, ErrorKind, RedisError, RedisResult, ServerErrorKind, ToRedisArgs, Value};
use tokio::time::Instant;

use super::connect::{Connections, Lane};
use super::slot::Slot;

/// One file of `lua/`.
#[derive(Debug)]
pub(super) struct Script {
    /// The file's name without extension, by which errors call the operation.
    name: &'static str,
    file: &'static str,
    lane: Lane,
    digest: OnceLock<String>,
}

/// How often a script is sent for several calls: a server may lose it again in between, restarted or flushed.
const RELOADS: usize = 3;

/// What several scripts share stands for a line of theirs.
const INCLUDE: &str = "--- include queue.lua\n";
const QUEUE: &str = include_str!("../../lua/shared/queue.lua");

macro_rules! scripts {
    ($($script:ident = $name:literal on $lane:ident,)*) => {
        $(pub(super) static $script: Script = Script {
            name: $name,
            file: include_str!(concat!("../../lua/", $name, ".lua")),
            lane: Lane::$lane,
            digest: OnceLock::new(),
        };)*
    };
}

scripts! {
    ALLOCATE = "allocate" on Shared,
    ALLOCATE_ALL = "allocate_all" on Shared,
    ALLOCATE_MANY = "allocate_many" on Shared,
    ATTRIBUTE_HISTORY = "attribute_history" on Own,
    CHECK = "check" on Own,
    COMBINED = "combined" on Shared,
    CONFIRM = "confirm" on Shared,
    DELETE_POOL = "delete_pool" on Shared,
    END_LEARNING = "end_learning" on Shared,
    HOLDERS = "holders" on Own,
    LIST_ATTRIBUTES = "list_attributes" on Own,
    RECONCILE = "reconcile" on Shared,
    REIGN = "reign" on Shared,
    RELEASE = "release" on Shared,
    RENEW = "renew" on Shared,
    REPAIR = "repair" on Shared,
    REQUEUE = "requeue" on Shared,
    REVOKE = "revoke" on Shared,
    SET_ORDER = "set_order" on Shared,
    SET_QUOTA = "set_quota" on Making,
    TICKETS = "tickets" on Own,
    USAGE = "usage" on Own,
    WRITE_ATTRIBUTES = "write_attributes" on Shared,
}

/// A script with its keys and arguments.
#[derive(Debug)]
pub(super) struct Call {
    script: &'static Script,
    cmd: Cmd,
}

impl Script {
    /// A call with these keys, to which the arguments are to be added.
    pub(super) fn on(&'static self, keys: &[&str]) -> Call {
        let digest =
            self.digest.get_or_init(|| sha1_smol::Sha1::from(&*self.source()).digest().to_string());
        let mut cmd = Cmd::with_capacity(16, 640); // what a claim takes, without growing
        cmd.arg("EVALSHA").arg(digest).arg(keys.len()).arg(keys);
        Call { script: self, cmd }
    }

    /// What errors call its operation.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// What the server runs.
    fn source(&self) -> Cow<'static, str> {
        match self.file.contains(INCLUDE) {
            true => self.file.replace(INCLUDE, QUEUE).into(),
            false => self.file.into(),
        }
    }
}

impl Call {
    /// Adds the next argument, or several.
    pub(super) fn arg(&mut self, argument: impl ToRedisArgs) -> &mut Self {
        self.cmd.arg(argument);
        self
    }

    /// Adds arguments that were made before.
    pub(super) fn extend(&mut self, arguments: &Cmd) {
        add_all(&mut self.cmd, arguments.args_iter());
    }

    /// To add arguments that several scripts have in common.
    pub(super) fn arguments(&mut self) -> &mut Cmd {
        &mut self.cmd
    }

    /// What errors call the operation.
    pub(super) fn operation(&self) -> &'static str {
        self.script.name
    }

    pub(super) fn into_cmd(self) -> Cmd {
        self.cmd
    }

    /// The command, for a server that knows the script.
    pub(super) fn cmd(&self) -> &Cmd {
        &self.cmd
    }

    /// Sends it to where its keys are, and waits for the reply until then.
    pub(super) async fn send(
        &self,
        connections: &Connections,
        slot: Slot,
        ends: Instant,
    ) -> RedisResult<Value> {
        match connections.call(self.script.lane, slot, &self.cmd, ends).await {
            Err(error) if is_unknown_script(&error) => {
                connections.call(self.script.lane, slot, &self.with_source(), ends).await
            }
            reply => reply,
        }
    }

    /// Sends several calls of one script, all with keys of one slot, in one round trip.
    pub(super) async fn send_all(
        calls: &[Self],
        connections: &Connections,
        slot: Slot,
        ends: Instant,
    ) -> RedisResult<Vec<Value>> {
        let Some((first, rest)) = calls.split_first() else { return Ok(Vec::new()) };
        let mut replies =
            connections.call_all(slot, calls.iter().map(|call| &call.cmd), ends).await;
        for _ in 0..RELOADS {
            match &replies {
                Err(error) if is_unknown_script(error) => {}
                _ => break,
            }
            let first = first.with_source();
            let cmds = std::iter::once(&first).chain(rest.iter().map(|call| &call.cmd));
            replies = connections.call_all(slot, cmds, ends).await;
        }
        replies
    }

    /// The same call for a server that does not know the script, and knows it from then on.
    pub(super) fn with_source(&self) -> Cmd {
        let mut cmd = redis::cmd("EVAL");
        cmd.arg(&*self.script.source());
        add_all(&mut cmd, self.cmd.args_iter().skip(2));
        cmd
    }
}

fn add_all<'a>(cmd: &mut Cmd, arguments: impl Iterator<Item = Arg<&'a [u8]>>) {
    for argument in arguments {
        if let Arg::Simple(argument) = argument {
            cmd.arg(argument);
        }
    }
}

pub(super) fn is_unknown_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}
