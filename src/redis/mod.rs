//! The backend that shares pools between processes through Redis.

mod connect;
mod keys;
mod reply;
mod scripts;
mod whole;

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use redis::{Cmd, RedisError, Value};

use self::connect::{Connections, Lane};
use self::keys::{POOLS, PoolKeys, ScopeFields, field_of_scope, pool_of_key, scope_of_field};
use self::reply::{Answer, Fields, Full, pairs};
use self::scripts::Script;
use self::whole::{Version, Whole};
use crate::backend::Backend;
use crate::claim::{
    Claim, Claimant, FencingNumber, Grant, Limit, Outcome, Refusal, Released, Units,
};
use crate::config::RedisConfig;
use crate::error::{Error, Result};
use crate::name::{AllocationToken, ExecutionId, Member, PoolName, Scope};
use crate::pool::{
    CheckReport, Cursor, Deletion, Drift, GrantRecord, Holding, HoldingsPage, PoolQuota, PoolUsage,
    QuotaChange, RepairReport,
};

pub(crate) use self::connect::check_address;

/// Version of the wire schema in `lua/README.md`.
const SCHEMA: u32 = 1;

/// Tokens to a script call: a larger batch is several calls in one round trip, so that no call keeps
/// the server busy for more than a few milliseconds.
const BATCH: usize = 500;

/// Entries to a page when a pool is read whole. A pool that fits is read in one atomic step.
const PAGE: usize = 5000;

/// How often a larger pool is read again when it changes between two pages, and how many corrections
/// a repair may take.
const ATTEMPTS: u32 = 20;

/// Releases whoever holds: no execution has an empty name.
const ANY_EXECUTION: &str = "";

/// Recorded as holder of members that a repair adopted.
const ADOPTED: &str = "adopted";

/// Keeps pools in Redis, in the schema of `lua/README.md`.
///
/// Each claim and each release is one command and one round trip on connections that all calls
/// share.
#[derive(Debug)]
pub struct RedisBackend {
    connections: Connections,
}

impl RedisBackend {
    /// Connects to the server.
    ///
    /// # Errors
    ///
    /// [`Error::Configuration`] if the address cannot be used, [`Error::Unavailable`] if the server
    /// cannot be reached within the configured time.
    ///
    /// # Cancel safety
    ///
    /// Nothing is left behind if the future is dropped.
    pub async fn connect(config: &RedisConfig) -> Result<Self> {
        Ok(Self { connections: Connections::open(config).await? })
    }

    /// Address of the server, without credentials.
    pub fn server(&self) -> &str {
        self.connections.server()
    }

    async fn call(
        &self,
        operation: &'static str,
        pool: &PoolName,
        script: &Script,
        lane: Lane,
        cmd: &Cmd,
    ) -> Result<Value> {
        let reply = match script.call(&self.connections, lane, cmd).await {
            Ok(reply) => reply,
            Err(error) => return Err(self.pool_error(operation, pool, error).await),
        };
        check_answer(pool, reply)
    }

    /// As `call`, for scripts that answer with an array.
    async fn call_for_fields(
        &self,
        operation: &'static str,
        pool: &PoolName,
        script: &Script,
        lane: Lane,
        cmd: &Cmd,
    ) -> Result<Fields> {
        let reply = self.call(operation, pool, script, lane, cmd).await?;
        Fields::new(reply).ok_or_else(|| unexpected(operation, "not an array"))
    }

    /// The error of a failed call; where a key has the wrong type, it says which.
    async fn pool_error(
        &self,
        operation: &'static str,
        pool: &PoolName,
        error: RedisError,
    ) -> Error {
        // Redis 6.2 puts its own words around those of a command that fails in a script.
        if error.to_string().contains("WRONGTYPE") {
            let keys = PoolKeys::new(pool);
            let [pool, usage, grants] = keys.all();
            for (key, expected) in [(pool, "set"), (usage, "hash"), (grants, "hash")] {
                if let Some(wrong) = self.wrong_type(key, expected).await {
                    return wrong;
                }
            }
        }
        self.connections.error(operation, error)
    }

    async fn wrong_type(&self, key: &str, expected: &'static str) -> Option<Error> {
        let cmd = redis::cmd("TYPE").arg(key).to_owned();
        let Ok(Value::SimpleString(found)) = self.connections.call(Lane::Shared, &cmd).await else {
            return None;
        };
        let wrong = found != expected && found != "none";
        wrong.then(|| Error::WrongType { key: key.to_owned(), expected, found })
    }

    /// A command on the list of pools.
    async fn call_list(&self, operation: &'static str, cmd: &Cmd) -> Result<Value> {
        match self.connections.call(Lane::Own, cmd).await {
            Ok(reply) => Ok(reply),
            Err(error) if error.code() == Some("WRONGTYPE") => {
                let wrong = self.wrong_type(POOLS, "set").await;
                Err(wrong.unwrap_or_else(|| self.connections.error(operation, error)))
            }
            Err(error) => Err(self.connections.error(operation, error)),
        }
    }

    async fn allocate_one(
        &self,
        pool: &PoolName,
        claimant: Claimant<'_>,
        claim: &Claim,
    ) -> Result<Result<Outcome>> {
        let keys = PoolKeys::new(pool);
        let member = Member::new(claimant.execution, &claim.token);
        let mut cmd = scripts::ALLOCATE.cmd(&keys.all());
        cmd.arg(member.as_str()).arg(claim.units.get());
        add_claimant(&mut cmd, claimant);
        let reply = self.call("allocate", pool, &scripts::ALLOCATE, Lane::Shared, &cmd).await?;
        outcome(claimant, claim, &reply)
    }

    /// Releases members of one scope, of one execution or of [`ANY_EXECUTION`].
    async fn release_members(
        &self,
        pool: &PoolName,
        execution: &str,
        fields: &ScopeFields,
        members: &[Member],
    ) -> Result<Vec<Released>> {
        let operation = "release";
        let keys = PoolKeys::new(pool);
        let members: Vec<_> = members.iter().map(Member::as_str).collect();
        let calls: Vec<_> = members
            .chunks(BATCH)
            .map(|members| {
                let mut cmd = scripts::RELEASE.cmd(&keys.all());
                cmd.arg(execution).arg(&fields.project).arg(&fields.domain).arg(members);
                cmd
            })
            .collect();
        let released = |answer: &Value| match Answer::from_value(answer) {
            Some(Answer::Released(released)) => Ok(released),
            _ => Err(unexpected(operation, answer)),
        };
        let answers = self.call_batch(operation, pool, &scripts::RELEASE, &calls).await?;
        answers.iter().map(released).collect()
    }

    /// The answers of all calls, one after the other.
    async fn call_batch(
        &self,
        operation: &'static str,
        pool: &PoolName,
        script: &Script,
        calls: &[Cmd],
    ) -> Result<Vec<Value>> {
        let replies = match calls {
            [] => return Ok(Vec::new()),
            [call] => vec![self.call(operation, pool, script, Lane::Shared, call).await?],
            calls => match script.call_all(&self.connections, calls).await {
                Ok(replies) => replies,
                Err(error) => return Err(self.pool_error(operation, pool, error).await),
            },
        };
        let mut answers = Vec::new();
        for reply in replies {
            match check_answer(pool, reply)? {
                Value::Array(more) => answers.extend(more),
                other => return Err(unexpected(operation, &other)),
            }
        }
        Ok(answers)
    }

    /// Reads a pool whole, in one step or until nothing changed between the pages.
    async fn read_whole(&self, pool: &PoolName) -> Result<Whole> {
        let operation = "check";
        let keys = PoolKeys::new(pool);
        for _ in 0..ATTEMPTS {
            let mut whole: Option<Whole> = None;
            let mut cursors = ["0"; 3].map(str::to_owned);
            let settled = loop {
                let mut cmd = scripts::CHECK.cmd(&keys.all());
                cmd.arg(&cursors).arg(PAGE);
                let mut fields =
                    self.call_for_fields(operation, pool, &scripts::CHECK, Lane::Own, &cmd).await?;
                let wrong = || unexpected(operation, "not a page");
                let version = Version::read(&mut fields).ok_or_else(wrong)?;
                let whole = match &mut whole {
                    Some(whole) if whole.version != version => break false,
                    Some(whole) => whole,
                    None => whole.insert(Whole::new(version).ok_or_else(wrong)?),
                };
                whole.add_page(&mut fields, &mut cursors).ok_or_else(wrong)?;
                if cursors.iter().all(String::is_empty) {
                    break true;
                }
            };
            if let (true, Some(whole)) = (settled, whole) {
                return Ok(whole);
            }
        }
        Err(Error::Busy { pool: pool.clone(), attempts: ATTEMPTS })
    }

    /// Adopts members without a record and drops records without a member.
    async fn reconcile(
        &self,
        pool: &PoolName,
        found: &CheckReport,
        report: &mut RepairReport,
    ) -> Result<()> {
        let operation = "repair";
        let keys = PoolKeys::new(pool);
        let members: Vec<_> =
            found.unrecorded.iter().chain(&found.removed).map(Member::as_str).collect();
        for members in members.chunks(BATCH) {
            let mut cmd = scripts::RECONCILE.cmd(&keys.all());
            cmd.arg(ADOPTED).arg(members);
            let mut fields =
                self.call_for_fields(operation, pool, &scripts::RECONCILE, Lane::Own, &cmd).await?;
            let wrong = || unexpected(operation, "not two numbers");
            report.adopted += fields.number().ok_or_else(wrong)?;
            report.dropped += fields.number().ok_or_else(wrong)?;
        }
        Ok(())
    }

    /// Corrects the counters by what they differ from the records, unless somebody else did since the
    /// pool was read.
    async fn correct(
        &self,
        pool: &PoolName,
        epoch: &str,
        found: CheckReport,
        report: &mut RepairReport,
    ) -> Result<()> {
        let operation = "repair";
        let keys = PoolKeys::new(pool);
        let missing = |drift: &Drift| drift.recorded - drift.counted;
        let in_use: i64 = found.drift.iter().filter(|d| d.scope.is_none()).map(missing).sum();
        let mut cmd = scripts::REPAIR.cmd(&[&keys.usage]);
        cmd.arg(epoch).arg(-in_use);
        for drift in &found.drift {
            if let Some(scope) = &drift.scope {
                cmd.arg(field_of_scope(scope)).arg(missing(drift));
            }
        }
        let reply = self.call(operation, pool, &scripts::REPAIR, Lane::Own, &cmd).await?;
        match Answer::from_value(&reply) {
            Some(Answer::Repaired) => report.corrected.extend(found.drift),
            Some(Answer::Changed) => {}
            _ => return Err(unexpected(operation, &reply)),
        }
        Ok(())
    }
}

/// Turns the answers that any script may give for a pool into errors.
fn check_answer(pool: &PoolName, reply: Value) -> Result<Value> {
    match Answer::from_value(&reply) {
        Some(Answer::Unregistered) => Err(Error::UnknownNamespace { pool: pool.clone() }),
        Some(Answer::Newer { schema }) => {
            Err(Error::NewerSchema { pool: pool.clone(), found: schema, supported: SCHEMA })
        }
        _ => Ok(reply),
    }
}

fn unexpected(operation: &'static str, reply: impl std::fmt::Debug) -> Error {
    Error::Protocol { operation, reply: format!("{reply:?}") }
}

/// Adds what `allocate` and `allocate_many` want to know of the claimant, in their order.
fn add_claimant(cmd: &mut Cmd, claimant: Claimant<'_>) {
    let Claimant { execution, constraints, holder } = claimant;
    let fields = ScopeFields::new(execution.project(), execution.domain());
    cmd.arg(execution.name()).arg(holder.as_str()).arg(fields.project).arg(fields.domain);
    for cap in [
        constraints.project_scope_resource_constraint,
        constraints.namespace_scope_resource_constraint,
    ] {
        match cap {
            Some(cap) => cmd.arg(cap.value()),
            None => cmd.arg(""),
        };
    }
}

fn outcome(claimant: Claimant<'_>, claim: &Claim, answer: &Value) -> Result<Result<Outcome>> {
    let execution = claimant.execution;
    let project = || execution.project().to_owned();
    let domain = || execution.domain().to_owned();
    let (limit, in_use, size) = match Answer::from_value(answer) {
        Some(Answer::Granted { fence }) => return Ok(Ok(granted(claim, fence, false))),
        Some(Answer::Held { fence }) => return Ok(Ok(granted(claim, fence, true))),
        Some(Answer::Conflict { units, execution: held_by }) => {
            let member = Member::new(execution, &claim.token);
            return Ok(Err(Error::Conflict { member, held_units: units, held_by }));
        }
        Some(Answer::Full(Full::Pool, in_use, size)) => (Limit::Quota, in_use, size),
        Some(Answer::Full(Full::Project, in_use, size)) => {
            (Limit::Cap(Scope::Project { project: project() }), in_use, size)
        }
        Some(Answer::Full(Full::Domain, in_use, size)) => {
            (Limit::Cap(Scope::Domain { project: project(), domain: domain() }), in_use, size)
        }
        _ => return Err(unexpected("allocate", answer)),
    };
    Ok(Ok(Outcome::Refused(Refusal::new(limit, in_use, size))))
}

fn granted(claim: &Claim, fence: u64, held_before: bool) -> Outcome {
    Outcome::Granted(Grant::new(claim.units, Some(FencingNumber::new(fence)), held_before))
}

/// Reads `<units> <fencing number> <since, in seconds> <holder> <execution>`.
fn parse_record(record: &str) -> Option<GrantRecord> {
    let mut words = record.splitn(5, ' ');
    let units = Units::new(words.next()?.parse().ok()?).ok()?;
    let fencing_number = FencingNumber::new(words.next()?.parse().ok()?);
    let since = UNIX_EPOCH.checked_add(Duration::from_secs(words.next()?.parse().ok()?))?;
    let holder = words.next()?.to_owned();
    let execution = Some(words.next()?.to_owned()).filter(|execution| !execution.is_empty());
    Some(GrantRecord { units, fencing_number, since, holder, execution })
}

#[async_trait]
impl Backend for RedisBackend {
    fn id(&self) -> &'static str {
        keys::BACKEND_ID
    }

    fn keeps_grants(&self) -> bool {
        true
    }

    async fn allocate(
        &self,
        pool: &PoolName,
        claimant: Claimant<'_>,
        claims: &[Claim],
    ) -> Result<Vec<Result<Outcome>>> {
        let operation = "allocate";
        if let [claim] = claims {
            return Ok(vec![self.allocate_one(pool, claimant, claim).await?]);
        }
        let keys = PoolKeys::new(pool);
        let calls: Vec<_> = claims
            .chunks(BATCH)
            .map(|claims| {
                let mut cmd = scripts::ALLOCATE_MANY.cmd(&keys.all());
                add_claimant(&mut cmd, claimant);
                for claim in claims {
                    let member = Member::new(claimant.execution, &claim.token);
                    cmd.arg(member.as_str()).arg(claim.units.get());
                }
                cmd
            })
            .collect();
        let answers = self.call_batch(operation, pool, &scripts::ALLOCATE_MANY, &calls).await?;
        if answers.len() != claims.len() {
            return Err(unexpected(operation, format!("{} answers", answers.len())));
        }
        claims
            .iter()
            .zip(&answers)
            .map(|(claim, answer)| outcome(claimant, claim, answer))
            .collect()
    }

    async fn release(
        &self,
        pool: &PoolName,
        execution: &ExecutionId,
        tokens: &[AllocationToken],
    ) -> Result<Vec<Released>> {
        let fields = ScopeFields::new(execution.project(), execution.domain());
        let members: Vec<_> = tokens.iter().map(|token| Member::new(execution, token)).collect();
        self.release_members(pool, execution.name(), &fields, &members).await
    }

    async fn release_member(&self, pool: &PoolName, member: &Member) -> Result<Released> {
        let fields = ScopeFields::of_member(member);
        let members = std::slice::from_ref(member);
        let released = self.release_members(pool, ANY_EXECUTION, &fields, members).await?;
        released.first().copied().ok_or_else(|| unexpected("release", "no answer"))
    }

    async fn change_quota(&self, pool: &PoolName, change: QuotaChange) -> Result<PoolQuota> {
        let operation = "change the quota";
        let (word, quota) = match change {
            QuotaChange::Register(quota) => ("register", Some(quota.get())),
            QuotaChange::Create(quota) => ("create", Some(quota.get())),
            QuotaChange::Pin(quota) => ("pin", Some(quota.get())),
            QuotaChange::Unpin => ("unpin", None),
        };
        let keys = PoolKeys::new(pool);
        let script = &scripts::SET_QUOTA;
        let mut cmd = script.cmd(&[&keys.usage]);
        cmd.arg(word).arg(quota.map_or_else(String::new, |quota| quota.to_string()));
        let mut fields = self.call_for_fields(operation, pool, script, Lane::Shared, &cmd).await?;
        let mut read = || {
            let done = fields.text()? == "done";
            let quota = PoolQuota::new(
                fields.number()?,
                fields.number()?,
                fields.optional_number()?,
                fields.optional_number()?,
            );
            Some((done, quota))
        };
        let (done, quota) = read().ok_or_else(|| unexpected(operation, "not a quota"))?;
        if !done {
            return Err(Error::PoolExists { pool: pool.clone(), quota: quota.in_force });
        }
        if matches!(change, QuotaChange::Register(_) | QuotaChange::Create(_)) {
            let list = redis::cmd("SADD").arg(POOLS).arg(&keys.pool).to_owned();
            self.call_list(operation, &list).await?;
        }
        Ok(quota)
    }

    async fn delete_pool(&self, pool: &PoolName, deletion: Deletion) -> Result<u64> {
        let operation = "delete the pool";
        let keys = PoolKeys::new(pool);
        let script = &scripts::DELETE_POOL;
        let mut cmd = script.cmd(&keys.all());
        cmd.arg(match deletion {
            Deletion::OnlyUnused => "unused",
            Deletion::EvenInUse => "force",
        });
        let mut fields = self.call_for_fields(operation, pool, script, Lane::Own, &cmd).await?;
        let mut read = || Some((fields.text()?, fields.number()?, fields.number()?));
        let (done, holders, units) =
            read().ok_or_else(|| unexpected(operation, "not a deletion"))?;
        if done != "deleted" {
            return Err(Error::PoolInUse { pool: pool.clone(), holders, units });
        }
        let unlist = redis::cmd("SREM").arg(POOLS).arg(&keys.pool).to_owned();
        self.call_list(operation, &unlist).await?;
        Ok(units)
    }

    async fn pools(&self) -> Result<Vec<PoolName>> {
        let operation = "list the pools";
        let cmd = redis::cmd("SMEMBERS").arg(POOLS).to_owned();
        let keys: Vec<String> = redis::from_redis_value(self.call_list(operation, &cmd).await?)
            .map_err(|error| unexpected(operation, error))?;
        let mut pools: Vec<_> = keys.iter().filter_map(|key| pool_of_key(key)).collect();
        pools.sort_unstable();
        Ok(pools)
    }

    async fn usage(&self, pool: &PoolName) -> Result<PoolUsage> {
        let operation = "read the usage";
        let keys = PoolKeys::new(pool);
        let script = &scripts::USAGE;
        let mut scopes = BTreeMap::new();
        let mut cursor = "0".to_owned();
        loop {
            let mut cmd = script.cmd(&[&keys.pool, &keys.usage]);
            cmd.arg(&cursor).arg(PAGE);
            let mut fields = self.call_for_fields(operation, pool, script, Lane::Own, &cmd).await?;
            let mut read = || {
                let (issued, issue_limit) = (fields.number()?, fields.number()?);
                let quota = fields.number()?;
                let usage = PoolUsage {
                    quota,
                    registered: fields.number()?,
                    pinned: fields.optional_number()?,
                    in_use: (quota + issued).saturating_sub(issue_limit),
                    holders: fields.number()?,
                    next_fencing_number: FencingNumber::new(issued),
                    scopes: BTreeMap::new(),
                };
                cursor = fields.text()?;
                for (field, units) in pairs(fields.array()?.texts()?)? {
                    if let Some(scope) = scope_of_field(&field) {
                        scopes.insert(scope, units.parse().ok()?);
                    }
                }
                Some(usage)
            };
            let usage = read().ok_or_else(|| unexpected(operation, "not a usage"))?;
            if cursor == "0" {
                return Ok(PoolUsage { scopes, ..usage });
            }
        }
    }

    async fn holders(&self, pool: &PoolName, from: Cursor, count: usize) -> Result<HoldingsPage> {
        let operation = "list the holders";
        let keys = PoolKeys::new(pool);
        let script = &scripts::HOLDERS;
        let mut cmd = script.cmd(&keys.all());
        cmd.arg(from.0).arg(count.clamp(1, PAGE));
        let mut fields = self.call_for_fields(operation, pool, script, Lane::Own, &cmd).await?;
        let mut read = || {
            let next = fields.number()?;
            let holdings = pairs(fields.array()?.texts()?)?.into_iter();
            let holdings = holdings.map(|(member, record)| Holding {
                member: Member::found(member),
                record: parse_record(&record),
            });
            let next = (next != 0).then_some(Cursor(next));
            Some(HoldingsPage { holdings: holdings.collect(), next })
        };
        read().ok_or_else(|| unexpected(operation, "not a page"))
    }

    async fn check(&self, pool: &PoolName) -> Result<CheckReport> {
        Ok(self.read_whole(pool).await?.report())
    }

    async fn repair(&self, pool: &PoolName) -> Result<RepairReport> {
        let mut report = RepairReport::default();
        for _ in 0..ATTEMPTS {
            let whole = self.read_whole(pool).await?;
            let found = whole.report();
            if found.is_clean() {
                return Ok(report);
            }
            if found.unrecorded.is_empty() && found.removed.is_empty() {
                self.correct(pool, &whole.version.epoch, found, &mut report).await?;
            } else {
                self.reconcile(pool, &found, &mut report).await?;
            }
        }
        Err(Error::Busy { pool: pool.clone(), attempts: ATTEMPTS })
    }
}
