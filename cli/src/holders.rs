//! `get holders`.

use serde::Serialize;
use tokenpool::{Holding, PoolName};

use crate::args::{Global, Pool};
use crate::connect;
use crate::error::{Result, Verdict};
use crate::format::{age, left, millis, or_dash, timestamp};
use crate::output::{Output, Row};
use crate::pages::HolderPages;

/// JSON of a holder. All but the member and the lease are null where another writer put the member
/// into the pool and nobody repaired it yet.
#[derive(Debug, Serialize)]
pub(crate) struct HolderRow {
    /// The granted token: `ex:<project>:<domain>:<execution>-<token>`.
    pub(crate) member: String,
    /// Units held.
    units: Option<u64>,
    /// The grant's number.
    fencing_number: Option<u64>,
    /// When it was granted, by the server's clock: RFC 3339 in UTC.
    since: Option<String>,
    /// What is left of its lease in milliseconds, or null: held until released.
    lease_left_ms: Option<u64>,
    /// The process that claimed it, `<host>/<process id>`.
    holder: Option<String>,
    /// The execution's name; also null where a repair adopted the member.
    execution: Option<String>,
    #[serde(skip)]
    age: Option<String>,
    #[serde(skip)]
    left: Option<String>,
}

impl From<Holding> for HolderRow {
    fn from(Holding { member, record, lease_left, .. }: Holding) -> Self {
        let record = record.as_ref();
        Self {
            member: member.as_str().to_owned(),
            units: record.map(|record| record.units.get()),
            fencing_number: record.map(|record| record.fencing_number.get()),
            since: record.and_then(|record| timestamp(record.since)),
            lease_left_ms: lease_left.map(millis),
            holder: record.map(|record| record.holder.clone()),
            execution: record.and_then(|record| record.execution.clone()),
            age: record.map(|record| age(record.since)),
            left: lease_left.map(left),
        }
    }
}

impl Row for HolderRow {
    const HEADER: &'static [&'static str] =
        &["UNITS", "FENCING NUMBER", "AGE", "LEASE LEFT", "HOLDER", "MEMBER"];

    fn cells(&self) -> Vec<String> {
        vec![
            or_dash(self.units),
            or_dash(self.fencing_number),
            or_dash(self.age.as_ref()),
            or_dash(self.left.as_ref()),
            or_dash(self.holder.as_ref()),
            self.member.clone(),
        ]
    }
}

pub(crate) async fn list(global: &Global, pool: &Pool, output: &mut Output) -> Result<Verdict> {
    let pool = PoolName::new(&*pool.namespace)?;
    let backend = connect::redis(global)?.open().await?;
    let mut pages = HolderPages::new(&*backend, &pool);
    output
        .listing("no holders", async || {
            let page = pages.next().await?;
            Ok(page.map(|page| page.into_iter().map(HolderRow::from).collect()))
        })
        .await
}
