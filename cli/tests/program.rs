//! Running the program, and looking at what it left in Redis.

use std::io::Write;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Once;

use redis::FromRedisValue;
use serde_json::Value;
use tokenpool::{
    Claim, Claimant, Config, ExecutionId, Holder, Lease, ResourceConstraintsSpec, TicketRequest,
    Units,
};
use tokio::signal::unix::{self, SignalKind};

use crate::server::Server;

/// The key of the pool that most tests use.
pub(crate) const HIVE: &str = "redisresourcemanager:hive:default";

/// How a run of the program ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    /// The JSON it printed.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("no valid JSON ({error}): {self:?}"))
    }

    /// Checks the exit status and hands the run on.
    #[track_caller]
    pub(crate) fn exits_with(self, status: i32) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    /// Checks that it ended with an error of this text on one line, and printed nothing else.
    #[track_caller]
    pub(crate) fn fails_with(self, status: i32, error: &str) {
        let run = self.exits_with(status);
        assert_eq!(run.stderr, format!("error: {error}\n"));
        assert_eq!(run.stdout, "");
    }
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        Self {
            status: output.status.code().expect("it was not killed by a signal"),
            stdout: String::from_utf8(output.stdout).expect("it prints UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("it prints UTF-8"),
        }
    }
}

/// Has what is started hear signals that this process was told to ignore, as whatever runs in the background is: what is
/// ignored stays so in another program, and what is caught does not.
fn catch_what_is_ignored() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        let ignored = ignored.map(|mask| u64::from_str_radix(mask.trim(), 16).unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        let _entered = runtime.enter();
        for kind in [SignalKind::hangup(), SignalKind::interrupt(), SignalKind::quit()] {
            if ignored.is_some_and(|mask| mask & (1 << (kind.as_raw_value() - 1)) != 0) {
                // Caught from now on, though nobody listens.
                drop(unix::signal(kind).unwrap());
            }
        }
    });
}

/// The program with arguments separated by white space, and none of this process's settings.
pub(crate) fn command(arguments: &str) -> Command {
    catch_what_is_ignored();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tokenpool"));
    command.args(arguments.split_whitespace()).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TOKENPOOL_") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs the program without a Redis.
pub(crate) fn tokenpool(arguments: &str) -> Run {
    run(&mut command(arguments))
}

pub(crate) fn run(command: &mut Command) -> Run {
    command.output().expect("the program can be started").into()
}

/// Runs the program while somebody types this.
pub(crate) fn typing(command: &mut Command, text: &str) -> Run {
    let mut child = start(command.stdin(Stdio::piped()));
    // It may have ended without reading it.
    let _ = child.stdin.take().expect("it is piped").write_all(text.as_bytes());
    wait(child)
}

/// Starts the program and leaves it running, for [`wait`].
pub(crate) fn start(command: &mut Command) -> Child {
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program can be started")
}

pub(crate) fn wait(child: Child) -> Run {
    child.wait_with_output().expect("its end can be awaited").into()
}

/// Sends a signal to a running program.
pub(crate) fn signal(child: &Child, name: &str) {
    let id = child.id().to_string();
    let sent = Command::new("kill").args([&format!("-{name}"), &id]).status();
    assert!(sent.expect("kill can be started").success());
}

/// Waits until something is so; a minute is far more than anything takes.
pub(crate) fn until(mut is_so: impl FnMut() -> bool) {
    let started = std::time::Instant::now();
    while !is_so() {
        assert!(started.elapsed().as_secs() < 60, "it never comes to be so");
        std::thread::yield_now();
    }
}

impl Server {
    /// Waits until so many tickets wait for units of `hive:default`.
    pub(crate) fn until_waiting(&self, tickets: u64) {
        until(|| self.ask::<u64>(&format!("ZCARD {{{HIVE}}}:queue")) == tickets);
    }

    /// Waits until so many tokens hold units of `hive:default`.
    pub(crate) fn until_held(&self, holders: u64) {
        until(|| self.ask::<u64>(&format!("SCARD {HIVE}")) == holders);
    }

    /// A server with a pool `hive:default`.
    pub(crate) fn with_pool(quota: u32) -> Self {
        let server = Self::start();
        server.tokenpool(&format!("create pool hive:default --quota {quota}")).exits_with(0);
        server
    }

    /// The program on this server.
    pub(crate) fn command(&self, arguments: &str) -> Command {
        let mut command = command(arguments);
        command.env("TOKENPOOL_REDIS", self.url());
        command
    }

    /// Runs the program on this server.
    pub(crate) fn tokenpool(&self, arguments: &str) -> Run {
        run(&mut self.command(arguments))
    }

    /// Asks the server itself, words separated by white space.
    pub(crate) fn ask<T: FromRedisValue>(&self, words: &str) -> T {
        let mut words = words.split_whitespace();
        let mut cmd = redis::cmd(words.next().expect("there is a command"));
        for word in words {
            cmd.arg(word);
        }
        cmd.query(&mut self.raw()).expect("the server answers as expected")
    }

    #[track_caller]
    pub(crate) fn is_empty(&self) {
        assert_eq!(self.ask::<Vec<String>>("KEYS *"), Vec::<String>::new());
    }
}

/// Files tickets that outlive this test, for `t0`, `t1` and so on of execution `e`.
pub(crate) fn wait_in_line(server: &Server, tickets: u32, caps: ResourceConstraintsSpec) {
    let config = Config::redis_at(server.url()).unwrap();
    let execution = ExecutionId::new("p", "d", "e").unwrap();
    let holder = Holder::new("test").unwrap();
    let claimant = Claimant { execution: &execution, constraints: caps, holder: &holder };
    let ticket = TicketRequest::new(Lease::MAX);
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let backend = config.open().await.unwrap();
        let pool = "hive:default".parse().unwrap();
        for i in 0..tickets {
            let claim = Claim::new(format!("t{i}").parse().unwrap(), Units::ONE);
            let turn = backend.wait(&pool, claimant, &claim, &ticket).await.unwrap();
            assert!(turn.granted().is_none());
        }
    });
}
