//! `get revocations`.

use serde::Serialize;
use tokenpool::{PoolName, RevocationRecord};

use crate::args::{Global, Revocations};
use crate::connect;
use crate::error::{Result, Verdict};
use crate::format::{or_dash, timestamp};
use crate::output::{Output, Row};

/// JSON of a revocation.
#[derive(Debug, Serialize)]
pub(crate) struct RevocationRow {
    /// When, by the server's clock: RFC 3339 in UTC.
    pub(crate) at: Option<String>,
    /// The member that lost its units or its ticket.
    member: String,
    /// Who took them.
    pub(crate) operator: String,
    /// Why.
    pub(crate) reason: String,
}

impl From<RevocationRecord> for RevocationRow {
    fn from(RevocationRecord { at, member, operator, reason, .. }: RevocationRecord) -> Self {
        Self { at: timestamp(at), member: member.to_string(), operator, reason }
    }
}

impl Row for RevocationRow {
    const HEADER: &'static [&'static str] = &["AT", "OPERATOR", "MEMBER", "REASON"];

    fn cells(&self) -> Vec<String> {
        let Self { at, member, operator, reason } = self;
        vec![or_dash(at.as_ref()), operator.clone(), member.clone(), reason.clone()]
    }
}

pub(crate) async fn list(
    global: &Global,
    args: &Revocations,
    output: &mut Output,
) -> Result<Verdict> {
    let pool = PoolName::new(&*args.pool.namespace)?;
    let backend = connect::redis(global)?.open().await?;
    let records = backend.revocations(&pool, args.last.into()).await?;
    let rows: Vec<RevocationRow> = records.into_iter().map(Into::into).collect();
    let mut listing = output.rows();
    listing.page(&rows)?;
    listing.finish("no revocations")?;
    Ok(Verdict::Done)
}
