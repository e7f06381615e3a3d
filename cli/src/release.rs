//! `release`.

use serde::Serialize;
use tokenpool::{AllocationToken, ExecutionId, Member, PoolName, Released, Revocation};

use crate::args::{Global, Release};
use crate::claims::only;
use crate::connect;
use crate::error::{Error, Result, Verdict};
use crate::operator::this_operator;
use crate::output::{Answer, Output};

/// JSON of `release`.
#[derive(Debug, Serialize)]
struct ReleaseAnswer<'a> {
    /// The pool.
    namespace: &'a str,
    /// The member that held the units, or waited for them.
    member: &'a str,
    /// Whether it was held, and by this execution unless forced.
    released: bool,
    /// Units given back: 0 if it was not held, or never counted because another writer put it there.
    units: u64,
    /// Whether it waited, and its ticket is withdrawn.
    withdrawn: bool,
    /// Who took it away, or null unless forced.
    operator: Option<&'a str>,
    /// Why, or null unless forced.
    reason: Option<&'a str>,
}

impl Answer for ReleaseAnswer<'_> {
    fn text(&self) -> String {
        let Self { namespace, member, released, units, withdrawn, .. } = self;
        match (released, withdrawn) {
            (true, _) => format!("released {units} unit(s) of {namespace} from {member}"),
            (false, true) => format!("withdrew the ticket of {member} for {namespace}"),
            (false, false) => {
                format!("{member} is not held in {namespace}; nothing was changed")
            }
        }
    }
}

pub(crate) async fn run(global: &Global, args: &Release, output: &mut Output) -> Result<Verdict> {
    let pool = PoolName::new(&*args.pool.namespace)?;
    let claimed = claimed(args)?;
    let revocation = revocation(args)?;
    let member = match (&args.member, &claimed) {
        (Some(member), _) if !member.is_empty() => Member::found(&**member),
        (None, Some((execution, token))) => Member::new(execution, token),
        _ => return Err(Error::Usage("--member: must not be empty".to_owned())),
    };

    let backend = connect::redis(global)?.open().await?;
    let released = match (&revocation, claimed) {
        (None, Some((execution, token))) => {
            only("release", backend.release(&pool, &execution, &[token]).await?)?
        }
        (Some(revocation), _) => backend.revoke(&pool, &member, revocation).await?,
        (None, None) => return Err(Error::Usage("--member: needs --force".to_owned())),
    };
    let (released, units, withdrawn) = match released {
        Released::Units(units) => (true, units, false),
        Released::Withdrawn => (false, 0, true),
        Released::NotHeld => (false, 0, false),
    };
    output.answer(&ReleaseAnswer {
        namespace: pool.as_str(),
        member: member.as_str(),
        released,
        units,
        withdrawn,
        operator: revocation.as_ref().map(Revocation::operator),
        reason: revocation.as_ref().map(Revocation::reason),
    })?;
    Ok(Verdict::Done)
}

/// The token and its execution, unless a member is given instead.
fn claimed(args: &Release) -> Result<Option<(ExecutionId, AllocationToken)>> {
    let Release { token, project, domain, execution, .. } = args;
    let (Some(token), Some(project), Some(domain), Some(execution)) =
        (token, project, domain, execution)
    else {
        return Ok(None);
    };
    let execution = ExecutionId::new(project, domain, execution)?;
    Ok(Some((execution, AllocationToken::new(&**token)?)))
}

/// Who takes it away and why, if it is an operator.
fn revocation(args: &Release) -> Result<Option<Revocation>> {
    let operator = || args.operator.clone().unwrap_or_else(this_operator);
    let revoked = |reason: &String| Revocation::new(&operator(), reason);
    Ok(args.reason.as_ref().map(revoked).transpose()?)
}
