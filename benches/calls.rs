//! The calls that the library makes, built here once more so that a load can send them faster than
//! any client could. `Stage` proves that they are the same.

use std::time::Duration;

use redis::{Cmd, Connection};
use tokenpool::ExecutionId;

use crate::stage::CAP;

/// The names are of the length that names have in a real Flyte.
pub(crate) const PLUGIN: &str = "qubole-hive-executor";
pub(crate) const HOLDER: &str = "flytepropeller-5d8f9c7b6d-x7k2p/1";

const ALLOCATE: &str = include_str!("../lua/allocate.lua");
const ALLOCATE_MANY: &str = include_str!("../lua/allocate_many.lua");
const RELEASE: &str = include_str!("../lua/release.lua");
const RENEW: &str = include_str!("../lua/renew.lua");
/// What several scripts share stands for a line of theirs.
const INCLUDE: &str = "--- include queue.lua\n";
const QUEUE: &str = include_str!("../lua/shared/queue.lua");
/// What a script costs at least.
const NO_OP: &str = "return 1";

/// How long leases and tickets last here: longer than the bench.
pub(crate) const LEASE: Duration = Duration::from_secs(24 * 60 * 60);
const NONE: &str = "-";

/// What a claim asks for beside one unit under a domain's cap that stops nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) project_cap: i64,
    pub(crate) leased: bool,
    /// Priority of its ticket; without one it does not wait.
    pub(crate) ticket: Option<u64>,
}

impl Terms {
    pub(crate) const PLAIN: Self = Self { project_cap: CAP, leased: false, ticket: None };
    pub(crate) const LEASED: Self = Self { leased: true, ..Self::PLAIN };
    pub(crate) const WAITING: Self = Self { ticket: Some(0), ..Self::PLAIN };
}

/// A token and the execution it belongs to.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) project: String,
    pub(crate) domain: String,
    pub(crate) execution: String,
    pub(crate) token: String,
}

impl Token {
    /// The token of one of many executions in project `flytesnacks`.
    pub(crate) fn nth(n: u64) -> Self {
        // Mixed, so that names next to each other have nothing in common. (The steps of SplitMix64.)
        let n = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let execution = format!("f3ab{:016x}", n ^ (n >> 31));
        let token = format!("{execution}-n0-0");
        Self {
            project: "flytesnacks".to_owned(),
            domain: "development".to_owned(),
            execution,
            token,
        }
    }

    /// The same token in one of many projects.
    pub(crate) fn in_project(self, n: u64) -> Self {
        Self { project: format!("project-{n:05}"), ..self }
    }

    /// The execution it belongs to, as the library knows it.
    pub(crate) fn execution(&self) -> ExecutionId {
        let Self { project, domain, execution, .. } = self;
        ExecutionId::new(project, domain, execution).expect("the execution's name is good")
    }

    /// The set's member for another token of the same execution.
    pub(crate) fn member(&self, token: &str) -> String {
        let Self { project, domain, execution, .. } = self;
        format!("ex:{project}:{domain}:{execution}-{token}")
    }
}

/// Makes the calls on one pool.
#[derive(Debug)]
pub(crate) struct Calls {
    keys: [String; 9],
    channel: String,
    allocate: String,
    allocate_many: String,
    release: String,
    renew: String,
    no_op: String,
}

impl Calls {
    /// The calls of a process that listens on a channel.
    pub(crate) fn of(pool: &str, channel: &str, connection: &mut Connection) -> Self {
        let mut load = |source: &str| -> String {
            let load = redis::cmd("SCRIPT").arg("LOAD").arg(whole(source)).query(connection);
            load.expect("the script compiles")
        };
        let pool = format!("redisresourcemanager:{PLUGIN}:{pool}");
        let others = ["usage", "grants", "leases", "tickets", "queue", "lines", "turns", "shares"];
        let mut keys = std::array::from_fn(|_| pool.clone());
        for (key, name) in keys[1..].iter_mut().zip(others) {
            *key = format!("{{{pool}}}:{name}");
        }
        Self {
            keys,
            channel: channel.to_owned(),
            allocate: load(ALLOCATE),
            allocate_many: load(ALLOCATE_MANY),
            release: load(RELEASE),
            renew: load(RENEW),
            no_op: load(NO_OP),
        }
    }

    /// The key of the granted members.
    pub(crate) fn pool(&self) -> &str {
        &self.keys[0]
    }

    /// The key of the pool's counters.
    pub(crate) fn usage(&self) -> &str {
        &self.keys[1]
    }

    /// A claim of one unit under two caps.
    pub(crate) fn allocate(&self, token: &Token) -> Cmd {
        self.claim(token, Terms::PLAIN)
    }

    pub(crate) fn claim(&self, token: &Token, terms: Terms) -> Cmd {
        let mut cmd = self.evalsha(&self.allocate, self.keys_of(terms));
        self.add_claim(&mut cmd, token, terms);
        cmd
    }

    /// A claim that `commandstats` counts as EVAL, so that the cost of EVALSHA is that of releases
    /// alone.
    pub(crate) fn uncounted_claim(&self, token: &Token, terms: Terms) -> Cmd {
        let mut cmd = self.eval(ALLOCATE, self.keys_of(terms));
        self.add_claim(&mut cmd, token, terms);
        cmd
    }

    /// Nothing, called like a claim that may wait or not.
    pub(crate) fn no_op(&self, token: &Token, terms: Terms) -> Cmd {
        let mut cmd = self.evalsha(&self.no_op, self.keys_of(terms));
        self.add_claim(&mut cmd, token, terms);
        cmd
    }

    /// Nothing, called with three keys and eight arguments, as a claim was before there were leases and tickets.
    pub(crate) fn small_no_op(&self, token: &Token) -> Cmd {
        let mut cmd = redis::cmd("EVALSHA").arg(&self.no_op).arg(3).arg(&self.keys[..3]).to_owned();
        cmd.arg(token.member(&token.token)).arg(1);
        self.add_claimant(&mut cmd, token, CAP);
        cmd
    }

    /// Nothing, called without keys and arguments.
    pub(crate) fn bare_no_op(&self) -> Cmd {
        redis::cmd("EVALSHA").arg(&self.no_op).arg(0).to_owned()
    }

    pub(crate) fn release(&self, token: &Token) -> Cmd {
        self.release_many(token, [token.token.as_str()])
    }

    /// A release that `commandstats` counts as EVAL, so that the cost of EVALSHA is that of claims
    /// alone.
    pub(crate) fn uncounted_release(&self, token: &Token) -> Cmd {
        let mut cmd = self.eval(RELEASE, self.keys_of_grants());
        self.add_release(&mut cmd, token, [token.token.as_str()]);
        cmd
    }

    /// Claims of one unit each for many tokens of one execution.
    pub(crate) fn allocate_many<'a>(
        &self,
        of: &Token,
        tokens: impl IntoIterator<Item = &'a str>,
    ) -> Cmd {
        let mut cmd = self.evalsha(&self.allocate_many, &self.keys);
        self.add_claimant(&mut cmd, of, CAP);
        for token in tokens {
            cmd.arg(of.member(token)).arg(1).arg(NONE);
        }
        cmd
    }

    pub(crate) fn release_many<'a>(
        &self,
        of: &Token,
        tokens: impl IntoIterator<Item = &'a str>,
    ) -> Cmd {
        let mut cmd = self.evalsha(&self.release, self.keys_of_grants());
        self.add_release(&mut cmd, of, tokens);
        cmd
    }

    /// A release in a pool where somebody waits.
    pub(crate) fn hand_on(&self, token: &Token) -> Cmd {
        let mut cmd = self.evalsha(&self.release, &self.keys);
        self.add_release(&mut cmd, token, [token.token.as_str()]);
        cmd
    }

    /// Renews what many tokens hold.
    pub(crate) fn renew<'a>(&self, tokens: impl IntoIterator<Item = &'a Token>) -> Cmd {
        let mut cmd = self.evalsha(&self.renew, &self.keys);
        for token in tokens {
            let member = token.member(&token.token);
            cmd.arg(member).arg(&token.execution).arg(LEASE.as_millis().to_string());
        }
        cmd
    }

    /// Those of what is granted, which are enough while nobody waits.
    fn keys_of_grants(&self) -> &[String] {
        &self.keys[..4]
    }

    fn keys_of(&self, terms: Terms) -> &[String] {
        if terms.ticket.is_some() { &self.keys } else { self.keys_of_grants() }
    }

    fn evalsha(&self, digest: &str, keys: &[String]) -> Cmd {
        redis::cmd("EVALSHA").arg(digest).arg(keys.len()).arg(keys).to_owned()
    }

    fn eval(&self, script: &str, keys: &[String]) -> Cmd {
        redis::cmd("EVAL").arg(bare(script)).arg(keys.len()).arg(keys).to_owned()
    }

    fn add_claim(&self, cmd: &mut Cmd, token: &Token, terms: Terms) {
        let Terms { project_cap, leased, ticket } = terms;
        let millis = LEASE.as_millis().to_string();
        cmd.arg(token.member(&token.token)).arg(1);
        self.add_claimant(cmd, token, project_cap);
        cmd.arg(if leased { &millis } else { NONE });
        match ticket {
            None => cmd.arg(&[NONE, "0", NONE]),
            Some(priority) => cmd.arg(&millis).arg(priority).arg(&self.channel),
        };
        cmd.arg(NONE); // nothing comes back
    }

    fn add_claimant(&self, cmd: &mut Cmd, token: &Token, project_cap: i64) {
        cmd.arg(&token.execution).arg(HOLDER);
        self.add_scopes(cmd, token);
        cmd.arg(project_cap).arg(CAP);
    }

    fn add_release<'a>(
        &self,
        cmd: &mut Cmd,
        of: &Token,
        tokens: impl IntoIterator<Item = &'a str>,
    ) {
        cmd.arg(&of.execution);
        self.add_scopes(cmd, of);
        cmd.arg("-"); // whatever they hold
        for token in tokens {
            cmd.arg(of.member(token));
        }
    }

    fn add_scopes(&self, cmd: &mut Cmd, Token { project, domain, .. }: &Token) {
        cmd.arg(format!("p:{project}")).arg(format!("d:{project}:{domain}"));
    }
}

/// The script as the library loads it.
fn whole(script: &str) -> String {
    script.replace(INCLUDE, QUEUE)
}

/// The script without comments, since EVAL sends it and the server reads it each time.
fn bare(script: &str) -> String {
    let whole = whole(script);
    let lines = whole.lines().map(str::trim_start).filter(|line| !line.starts_with("--"));
    lines.collect::<Vec<_>>().join("\n")
}
