//! `get tickets`.

use serde::Serialize;
use tokenpool::{PoolName, TicketRecord};

use crate::args::{Global, Pool};
use crate::connect;
use crate::error::{Result, Verdict};
use crate::format::{age, left, millis, timestamp};
use crate::output::{Output, Row};
use crate::pages::TicketPages;

/// JSON of a ticket.
#[derive(Debug, Serialize)]
pub(crate) struct TicketRow {
    /// Its place among all tickets of the pool by rank; 1 is the first.
    position: u64,
    /// The token that waits: `ex:<project>:<domain>:<execution>-<token>`.
    member: String,
    /// Units that it is to get.
    units: u64,
    /// Since when it waits, by the server's clock: RFC 3339 in UTC.
    since: Option<String>,
    /// How long the ticket lasts unless it is renewed, in milliseconds.
    time_left_ms: u64,
    /// The cap of its project, or null.
    project_cap: Option<u64>,
    /// The cap of its domain, or null.
    namespace_cap: Option<u64>,
    /// The process that waits, `<host>/<process id>`.
    holder: String,
    /// The execution's name.
    execution: String,
    #[serde(skip)]
    age: String,
    #[serde(skip)]
    left: String,
}

impl TicketRow {
    pub(crate) fn new(position: u64, ticket: TicketRecord) -> Self {
        Self {
            position,
            member: ticket.member.to_string(),
            units: ticket.units.get(),
            since: timestamp(ticket.since),
            time_left_ms: millis(ticket.time_left),
            project_cap: ticket.project_cap,
            namespace_cap: ticket.domain_cap,
            holder: ticket.holder,
            execution: ticket.execution,
            age: age(ticket.since),
            left: left(ticket.time_left),
        }
    }
}

impl TicketRow {
    /// The caps of its project and its domain.
    pub(crate) fn caps(&self) -> (Option<u64>, Option<u64>) {
        (self.project_cap, self.namespace_cap)
    }
}

impl Row for TicketRow {
    const HEADER: &'static [&'static str] =
        &["POSITION", "UNITS", "WAITS FOR", "TIME LEFT", "HOLDER", "MEMBER"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.position.to_string(),
            self.units.to_string(),
            self.age.clone(),
            self.left.clone(),
            self.holder.clone(),
            self.member.clone(),
        ]
    }
}

pub(crate) async fn list(global: &Global, pool: &Pool, output: &mut Output) -> Result<Verdict> {
    let pool = PoolName::new(&*pool.namespace)?;
    let backend = connect::redis(global)?.open().await?;
    let mut pages = TicketPages::new(&*backend, &pool);
    let mut listed = 0;
    output
        .listing("no tickets", async || {
            let page = pages.next().await?;
            Ok(page.map(|page| {
                let row = |ticket| {
                    listed += 1;
                    TicketRow::new(listed, ticket)
                };
                page.into_iter().map(row).collect()
            }))
        })
        .await
}
