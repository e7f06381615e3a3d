//! `renew`.

use serde::Serialize;
use tokenpool::{AllocationToken, FencingNumber, Lease, Member, PoolName, Renewal, Renewed};

use crate::args::{Global, Renew};
use crate::claims::execution;
use crate::connect;
use crate::error::{Result, Verdict, describe};
use crate::format::or_dash;
use crate::output::{Output, Row, tell};

/// JSON of a renewed token.
#[derive(Debug, Serialize)]
struct RenewRow {
    /// The token, as it was given.
    token: String,
    /// Its member in the pool.
    member: String,
    /// `held`, `waiting` or `lost`.
    state: &'static str,
    /// The grant's number, or null unless held.
    fencing_number: Option<u64>,
}

impl Row for RenewRow {
    const HEADER: &'static [&'static str] = &["STATE", "FENCING NUMBER", "TOKEN", "MEMBER"];

    fn cells(&self) -> Vec<String> {
        let Self { token, member, state, fencing_number } = self;
        vec![(*state).to_owned(), or_dash(*fencing_number), token.clone(), member.clone()]
    }
}

pub(crate) async fn run(global: &Global, args: &Renew, output: &mut Output) -> Result<Verdict> {
    let pool = PoolName::new(&*args.pool.namespace)?;
    let lease = Lease::new(args.lease)?;
    let execution = &execution(&args.identity)?;
    let tokens = args.tokens.iter().map(|token| AllocationToken::new(&**token));
    let tokens = tokens.collect::<tokenpool::Result<Vec<_>>>()?;
    let renewals: Vec<_> = tokens.iter().map(|token| Renewal { execution, token, lease }).collect();
    let backend = connect::redis(global)?.open().await?;

    let mut rows = Vec::new();
    let mut failures = Vec::new();
    let mut verdict = Verdict::Done;
    for (token, answer) in tokens.iter().zip(backend.renew(&pool, &renewals).await?) {
        let (state, number) = match answer {
            Ok(Renewed::Held(number)) => ("held", number),
            Ok(Renewed::Waiting) => ("waiting", None),
            Ok(Renewed::Lost) => {
                verdict = Verdict::Refused;
                ("lost", None)
            }
            Err(error) => {
                failures.push(error);
                continue;
            }
        };
        rows.push(RenewRow {
            token: token.to_string(),
            member: Member::new(execution, token).to_string(),
            state,
            fencing_number: number.map(FencingNumber::get),
        });
    }
    let last = failures.pop();
    if last.is_none() || !rows.is_empty() {
        let mut listing = output.rows();
        listing.page(&rows)?;
        listing.finish("nothing to renew")?;
    }
    for error in failures {
        tell(format_args!("error: {}\n", describe(&error)));
    }
    last.map_or(Ok(verdict), |error| Err(error.into()))
}
