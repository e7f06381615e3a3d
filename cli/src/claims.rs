//! `get holders`, `allocate`, `release`.

use std::fmt::Write;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use tokenpool::{
    AllocationToken, Claim, Claimant, Cursor, ExecutionId, Holder, Holding, Limit, Member, Outcome,
    PoolName, Refusal, Released, ResourceConstraint, ResourceConstraintsSpec, Scope, Units,
};

use crate::args::{Allocate, Caps, Global, Pool, Release};
use crate::connect;
use crate::error::{Error, Result, Verdict};
use crate::output::{Answer, Output, Row};

const HOLDERS_PER_PAGE: usize = 1000;

/// JSON of a holder in `get holders`. All but the member are null where another writer put the
/// member into the pool and nobody repaired it yet.
#[derive(Debug, Serialize)]
struct HolderRow {
    /// The granted token: `ex:<project>:<domain>:<execution>-<token>`.
    member: String,
    /// Units held.
    units: Option<u64>,
    /// The grant's number.
    fencing_number: Option<u64>,
    /// When it was granted, by the server's clock: RFC 3339 in UTC.
    since: Option<String>,
    /// The process that claimed it, `<host>/<process id>`.
    holder: Option<String>,
    /// The execution's name; also null where a repair adopted the member.
    execution: Option<String>,
    #[serde(skip)]
    age: Option<String>,
}

impl From<Holding> for HolderRow {
    fn from(Holding { member, record, .. }: Holding) -> Self {
        let member = member.as_str().to_owned();
        match record {
            Some(record) => Self {
                member,
                units: Some(record.units.get()),
                fencing_number: Some(record.fencing_number.get()),
                since: timestamp(record.since),
                age: Some(age(record.since)),
                holder: Some(record.holder),
                execution: record.execution,
            },
            None => Self {
                member,
                units: None,
                fencing_number: None,
                since: None,
                age: None,
                holder: None,
                execution: None,
            },
        }
    }
}

impl Row for HolderRow {
    const HEADER: &'static [&'static str] = &["UNITS", "FENCING NUMBER", "AGE", "HOLDER", "MEMBER"];

    fn cells(&self) -> Vec<String> {
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        vec![
            or_none(self.units.map(|units| units.to_string())),
            or_none(self.fencing_number.map(|number| number.to_string())),
            or_none(self.age.clone()),
            or_none(self.holder.clone()),
            self.member.clone(),
        ]
    }
}

/// None for a time that RFC 3339 cannot write, beyond the year 9999.
fn timestamp(time: SystemTime) -> Option<String> {
    let mut text = String::new();
    write!(text, "{}", humantime::format_rfc3339_seconds(time)).is_ok().then_some(text)
}

/// The age in its two largest units, like `3m12s`.
fn age(since: SystemTime) -> String {
    // The server's clock may be ahead of this one.
    let age = since.elapsed().unwrap_or_default();
    let age = humantime::format_duration(Duration::from_secs(age.as_secs())).to_string();
    age.split(' ').take(2).collect()
}

pub(crate) async fn holders(global: &Global, pool: &Pool, output: &mut Output) -> Result<Verdict> {
    let pool = PoolName::new(&*pool.namespace)?;
    let backend = connect::redis(global)?.open().await?;
    let mut next = Some(Cursor::default());
    let mut listing = output.rows();
    while let Some(from) = next {
        let page = match backend.holders(&pool, from, HOLDERS_PER_PAGE).await {
            Ok(page) => page,
            Err(error) => {
                if !listing.is_empty() {
                    listing.finish("")?;
                }
                return Err(error.into());
            }
        };
        let rows: Vec<HolderRow> = page.holdings.into_iter().map(Into::into).collect();
        next = page.next;
        if !listing.page(&rows)? {
            break;
        }
    }
    listing.finish("no holders")?;
    Ok(Verdict::Done)
}

/// JSON of `allocate`.
#[derive(Debug, Serialize)]
struct AllocateAnswer<'a> {
    /// The pool.
    namespace: &'a str,
    /// The claim's member in the pool.
    member: &'a str,
    /// Units claimed.
    units: u64,
    /// Flyte's name for the answer: Granted, Exhausted or NamespaceQuotaExceeded.
    status: String,
    /// Flyte's number for the answer: 1, 2 or 3.
    status_number: u8,
    /// The grant's number, or null if refused.
    fencing_number: Option<u64>,
    /// Whether the token was held before, or null if refused.
    held_before: Option<bool>,
    /// What stopped the claim, or null if granted.
    limit: Option<LimitAnswer>,
    #[serde(skip)]
    text: String,
}

/// JSON of the limit in `allocate`.
#[derive(Debug, Serialize)]
struct LimitAnswer {
    /// `quota`, `project_cap` or `namespace_cap`.
    kind: &'static str,
    /// The project whose cap it is, or null for the quota.
    project: Option<String>,
    /// The domain whose cap it is, or null.
    domain: Option<String>,
    /// Units in use under the limit.
    in_use: u64,
    /// The limit's size in units.
    size: u64,
}

impl From<Refusal> for LimitAnswer {
    fn from(Refusal { limit, in_use, size, .. }: Refusal) -> Self {
        let (kind, project, domain) = match limit {
            Limit::Cap(Scope::Project { project }) => ("project_cap", Some(project), None),
            Limit::Cap(Scope::Domain { project, domain }) => {
                ("namespace_cap", Some(project), Some(domain))
            }
            _ => ("quota", None, None),
        };
        Self { kind, project, domain, in_use, size }
    }
}

impl Answer for AllocateAnswer<'_> {
    fn text(&self) -> String {
        self.text.clone()
    }
}

pub(crate) async fn allocate(
    global: &Global,
    args: &Allocate,
    output: &mut Output,
) -> Result<Verdict> {
    let pool = PoolName::new(&*args.pool.namespace)?;
    let execution = ExecutionId::new(&args.project, &args.domain, &args.execution)?;
    let claim = Claim::new(AllocationToken::new(&*args.token)?, Units::new(args.units)?);
    let constraints = constraints(args.caps)?;
    let backend = connect::redis(global)?.open().await?;

    let holder = Holder::of_this_process();
    let claimant = Claimant { execution: &execution, constraints, holder: &holder };
    let claims = std::slice::from_ref(&claim);
    let outcomes = backend.allocate(&pool, claimant, claims).await?;
    let outcome = only("allocate", outcomes)??;

    let status = outcome.status();
    let status_number = u8::from(status);
    let member = Member::new(&execution, &claim.token);
    let mut answer = AllocateAnswer {
        namespace: pool.as_str(),
        member: member.as_str(),
        units: claim.units.get(),
        status: status.to_string(),
        status_number,
        fencing_number: None,
        held_before: None,
        limit: None,
        text: String::new(),
    };
    let verdict = match outcome {
        Outcome::Granted(grant) => {
            answer.fencing_number = grant.fencing_number.map(|number| number.get());
            answer.held_before = Some(grant.held_before);
            let before = if grant.held_before { "; it was held before" } else { "" };
            let number = grant.fencing_number.map_or("-".to_owned(), |number| number.to_string());
            answer.text = format!(
                "{status} ({status_number}): {} unit(s) of {pool} to {member}, fencing number {number}{before}",
                grant.units,
            );
            Verdict::Done
        }
        Outcome::Refused(refusal) => {
            answer.text = format!("{status} ({status_number}): {refusal}, {} wanted", claim.units);
            answer.limit = Some(refusal.into());
            Verdict::Refused
        }
    };
    output.answer(&answer)?;
    Ok(verdict)
}

/// The answer to the only claim or token there was.
pub(crate) fn only<T>(operation: &'static str, answers: Vec<T>) -> tokenpool::Result<T> {
    let none = || tokenpool::Error::Protocol { operation, reply: "no answer".to_owned() };
    answers.into_iter().next().ok_or_else(none)
}

/// The caps given; an error names the option.
pub(crate) fn constraints(caps: Caps) -> Result<ResourceConstraintsSpec> {
    let cap = |option, value: Option<i64>| {
        let cap = value.map(ResourceConstraint::new).transpose();
        cap.map_err(|source| Error::Option { option, source })
    };
    Ok(ResourceConstraintsSpec {
        project_scope_resource_constraint: cap("--project-cap", caps.project_cap)?,
        namespace_scope_resource_constraint: cap("--namespace-cap", caps.namespace_cap)?,
    })
}

/// JSON of `release`.
#[derive(Debug, Serialize)]
struct ReleaseAnswer<'a> {
    /// The pool.
    namespace: &'a str,
    /// The member that held the units.
    member: &'a str,
    /// Whether it was held, and by this execution.
    released: bool,
    /// Units given back: 0 if it was not held, or never counted because another writer put it there.
    units: u64,
}

impl Answer for ReleaseAnswer<'_> {
    fn text(&self) -> String {
        let Self { namespace, member, released, units } = self;
        match released {
            true => format!("released {units} unit(s) of {namespace} from {member}"),
            false => format!("{member} is not held in {namespace}; nothing was changed"),
        }
    }
}

pub(crate) async fn release(
    global: &Global,
    args: &Release,
    output: &mut Output,
) -> Result<Verdict> {
    let pool = PoolName::new(&*args.pool.namespace)?;
    let Release { token, project, domain, execution, member, .. } = args;
    let (member, released) = match (member, token, project, domain, execution) {
        (Some(member), ..) => {
            let member = Member::parse(member)?;
            let backend = connect::redis(global)?.open().await?;
            let released = backend.release_member(&pool, &member).await?;
            (member, released)
        }
        (None, Some(token), Some(project), Some(domain), Some(execution)) => {
            let execution = ExecutionId::new(project, domain, execution)?;
            let token = AllocationToken::new(&**token)?;
            let member = Member::new(&execution, &token);
            let backend = connect::redis(global)?.open().await?;
            let released = backend.release(&pool, &execution, &[token]).await?;
            (member, only("release", released)?)
        }
        _ => {
            let rule = "give TOKEN, --project, --domain and --execution, or --member";
            return Err(Error::Usage(rule.to_owned()));
        }
    };
    let (released, units) = match released {
        Released::Units(units) => (true, units),
        Released::NotHeld => (false, 0),
    };
    output.answer(&ReleaseAnswer {
        namespace: pool.as_str(),
        member: member.as_str(),
        released,
        units,
    })?;
    Ok(Verdict::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_short_and_never_negative() {
        let since = |seconds| SystemTime::now() - Duration::from_secs(seconds);
        assert_eq!(age(since(0)), "0s");
        assert_eq!(age(since(192)), "3m12s");
        assert_eq!(age(since(2 * 86_400 + 3 * 3600 + 60)), "2days3h");
        assert_eq!(age(SystemTime::now() + Duration::from_secs(60)), "0s");
    }

    #[test]
    fn times_that_cannot_be_written_are_left_out() {
        assert_eq!(timestamp(SystemTime::UNIX_EPOCH).as_deref(), Some("1970-01-01T00:00:00Z"));
        let far = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 50);
        assert_eq!(timestamp(far), None);
    }
}
