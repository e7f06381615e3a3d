//! The calls that the library makes, built here once more so that a load can send them faster than
//! any client could. `Stage` proves that they are the same.

use redis::{Cmd, Connection};

use crate::stage::CAP;

/// The names are of the length that names have in a real Flyte.
pub(crate) const PLUGIN: &str = "qubole-hive-executor";
pub(crate) const HOLDER: &str = "flytepropeller-5d8f9c7b6d-x7k2p/1";

const ALLOCATE: &str = include_str!("../lua/allocate.lua");
const ALLOCATE_MANY: &str = include_str!("../lua/allocate_many.lua");
const RELEASE: &str = include_str!("../lua/release.lua");
/// What a script costs at least.
const NO_OP: &str = "return 1";

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

    fn member(&self, token: &str) -> String {
        let Self { project, domain, execution, .. } = self;
        format!("ex:{project}:{domain}:{execution}-{token}")
    }
}

/// Makes the calls on one pool.
#[derive(Debug)]
pub(crate) struct Calls {
    keys: [String; 3],
    allocate: String,
    allocate_many: String,
    release: String,
    no_op: String,
}

impl Calls {
    pub(crate) fn of(pool: &str, connection: &mut Connection) -> Self {
        let mut load = |source: &str| -> String {
            let load = redis::cmd("SCRIPT").arg("LOAD").arg(source).query(connection);
            load.expect("the script compiles")
        };
        let pool = format!("redisresourcemanager:{PLUGIN}:{pool}");
        Self {
            keys: [pool.clone(), format!("{{{pool}}}:usage"), format!("{{{pool}}}:grants")],
            allocate: load(ALLOCATE),
            allocate_many: load(ALLOCATE_MANY),
            release: load(RELEASE),
            no_op: load(NO_OP),
        }
    }

    /// The key of the pool's counters.
    pub(crate) fn usage(&self) -> &str {
        &self.keys[1]
    }

    /// A claim of one unit under two caps.
    pub(crate) fn allocate(&self, token: &Token) -> Cmd {
        let mut cmd = self.evalsha(&self.allocate);
        self.add_claim(&mut cmd, token);
        cmd
    }

    /// Nothing, called like a claim.
    pub(crate) fn no_op(&self, token: &Token) -> Cmd {
        let mut cmd = self.evalsha(&self.no_op);
        self.add_claim(&mut cmd, token);
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
        let mut cmd = redis::cmd("EVAL").arg(RELEASE).arg(3).arg(&self.keys).to_owned();
        self.add_release(&mut cmd, token, [token.token.as_str()]);
        cmd
    }

    /// Claims of one unit each for many tokens of one execution.
    pub(crate) fn allocate_many<'a>(
        &self,
        of: &Token,
        tokens: impl IntoIterator<Item = &'a str>,
    ) -> Cmd {
        let mut cmd = self.evalsha(&self.allocate_many);
        self.add_claimant(&mut cmd, of);
        for token in tokens {
            cmd.arg(of.member(token)).arg(1);
        }
        cmd
    }

    pub(crate) fn release_many<'a>(
        &self,
        of: &Token,
        tokens: impl IntoIterator<Item = &'a str>,
    ) -> Cmd {
        let mut cmd = self.evalsha(&self.release);
        self.add_release(&mut cmd, of, tokens);
        cmd
    }

    fn evalsha(&self, digest: &str) -> Cmd {
        redis::cmd("EVALSHA").arg(digest).arg(3).arg(&self.keys).to_owned()
    }

    fn add_claim(&self, cmd: &mut Cmd, token: &Token) {
        cmd.arg(token.member(&token.token)).arg(1);
        self.add_claimant(cmd, token);
    }

    fn add_claimant(&self, cmd: &mut Cmd, token: &Token) {
        cmd.arg(&token.execution).arg(HOLDER);
        self.add_scopes(cmd, token);
        cmd.arg(CAP).arg(CAP);
    }

    fn add_release<'a>(
        &self,
        cmd: &mut Cmd,
        of: &Token,
        tokens: impl IntoIterator<Item = &'a str>,
    ) {
        cmd.arg(&of.execution);
        self.add_scopes(cmd, of);
        for token in tokens {
            cmd.arg(of.member(token));
        }
    }

    fn add_scopes(&self, cmd: &mut Cmd, Token { project, domain, .. }: &Token) {
        cmd.arg(format!("p:{project}")).arg(format!("d:{project}:{domain}"));
    }
}
