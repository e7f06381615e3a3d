//! `check` and `repair`.

use serde::Serialize;
use tokenpool::{CheckReport, Drift, Member, PoolName, RepairReport};

use crate::args::{Global, Pool};
use crate::connect;
use crate::error::{Result, Verdict};
use crate::output::{Answer, Output, lines, one_line, table};
use crate::pools::parts;

/// JSON of a wrong counter.
#[derive(Debug, Serialize)]
struct DriftAnswer {
    /// The project whose counter it is, or null for the pool's own.
    project: Option<String>,
    /// The domain whose counter it is, or null.
    domain: Option<String>,
    /// What the counter says, in units.
    counted: i64,
    /// What the records add up to, in units.
    recorded: i64,
}

impl From<&Drift> for DriftAnswer {
    fn from(Drift { scope, counted, recorded, .. }: &Drift) -> Self {
        let (project, domain) = match scope.as_ref().and_then(parts) {
            Some((project, domain)) => (Some(project), domain),
            None => (None, None),
        };
        Self { project, domain, counted: *counted, recorded: *recorded }
    }
}

fn drift_table(title: &str, drift: &[DriftAnswer]) -> String {
    if drift.is_empty() {
        return String::new();
    }
    let rows = drift.iter().map(|DriftAnswer { project, domain, counted, recorded }| {
        let project = project.as_deref().unwrap_or("(all)");
        let domain = domain.as_deref().unwrap_or("(all)");
        vec![project.to_owned(), domain.to_owned(), counted.to_string(), recorded.to_string()]
    });
    let header: &[&str] = &["PROJECT", "DOMAIN", "COUNTED", "RECORDED"];
    format!("\n{title}:\n{}", lines(&table(Some(header), rows)))
}

fn member_list(title: &str, members: &[String]) -> String {
    if members.is_empty() {
        return String::new();
    }
    let members: String = members.iter().map(|member| format!("{}\n", one_line(member))).collect();
    format!("\n{title}:\n{members}")
}

/// JSON of `check`.
#[derive(Debug, Serialize)]
struct CheckAnswer<'a> {
    /// The pool.
    namespace: &'a str,
    /// Whether counters, records and members agree, and the queue is whole.
    clean: bool,
    /// Number of members in the pool.
    members: u64,
    /// Number of records.
    records: u64,
    /// Number of tickets.
    tickets: u64,
    /// Whether the queue has lost some of its keys.
    queue_is_broken: bool,
    /// Counters that are wrong.
    drift: Vec<DriftAnswer>,
    /// Members without a usable record: another writer put them there, or the server lost their records.
    unrecorded: Vec<String>,
    /// Members that are gone while their records are left: another writer removed them, or the server lost them.
    removed: Vec<String>,
}

impl Answer for CheckAnswer<'_> {
    fn text(&self) -> String {
        let Self { namespace, members, records, tickets, .. } = self;
        let verdict = match self.clean {
            true => "counters, records and members agree",
            false => "differences found; `tokenpool repair` puts them right",
        };
        let mut text = format!("{namespace}: {members} member(s), {records} record(s)");
        if *tickets > 0 {
            text += &format!(", {tickets} ticket(s)");
        }
        text += &format!(": {verdict}\n");
        if self.queue_is_broken {
            text += "\nthe queue has lost keys: tickets may not get their turn\n";
        }
        text += &drift_table("wrong counters", &self.drift);
        text += &member_list("members without a record", &self.unrecorded);
        text += &member_list("records without a member", &self.removed);
        if *members == 0 && !self.removed.is_empty() {
            text += "\nno member is left, so their key was lost: a repair puts them back\n";
        }
        text
    }
}

pub(crate) async fn check(global: &Global, pool: &Pool, output: &mut Output) -> Result<Verdict> {
    let pool = PoolName::new(&*pool.namespace)?;
    let report = connect::redis(global)?.open().await?.check(&pool).await?;
    let clean = report.is_clean();
    let CheckReport {
        members, records, drift, unrecorded, removed, tickets, queue_is_broken, ..
    } = report;
    let texts = |members: &[Member]| members.iter().map(ToString::to_string).collect();
    output.answer(&CheckAnswer {
        namespace: pool.as_str(),
        clean,
        members,
        records,
        tickets,
        queue_is_broken,
        drift: drift.iter().map(Into::into).collect(),
        unrecorded: texts(&unrecorded),
        removed: texts(&removed),
    })?;
    Ok(if clean { Verdict::Done } else { Verdict::Refused })
}

/// JSON of `repair`.
#[derive(Debug, Serialize)]
struct RepairAnswer<'a> {
    /// The pool.
    namespace: &'a str,
    /// Members of another writer that have a record now, of one unit each.
    adopted: u64,
    /// Records dropped, because another writer had removed their members.
    dropped: u64,
    /// Members put back, because their grants have leases, or because all members were lost.
    restored: u64,
    /// Counters that were wrong and are right now.
    corrected: Vec<DriftAnswer>,
    /// Tickets of which the queue was built anew.
    requeued: u64,
}

impl Answer for RepairAnswer<'_> {
    fn text(&self) -> String {
        let Self { namespace, adopted, dropped, restored, corrected, requeued } = self;
        let count = corrected.len();
        if (*adopted, *dropped, *restored, count, *requeued) == (0, 0, 0, 0, 0) {
            return format!("{namespace}: nothing to repair");
        }
        let mut text = format!(
            "{namespace}: {adopted} member(s) adopted, {dropped} record(s) dropped, {count} counter(s) corrected"
        );
        if *restored > 0 {
            text += &format!(", {restored} member(s) put back");
        }
        if *requeued > 0 {
            text += &format!(", queue built anew of {requeued} ticket(s)");
        }
        text + "\n" + &drift_table("corrected counters", corrected)
    }
}

pub(crate) async fn repair(global: &Global, pool: &Pool, output: &mut Output) -> Result<Verdict> {
    let pool = PoolName::new(&*pool.namespace)?;
    let report = connect::redis(global)?.open().await?.repair(&pool).await?;
    let RepairReport { adopted, dropped, restored, corrected, requeued, .. } = report;
    output.answer(&RepairAnswer {
        namespace: pool.as_str(),
        adopted,
        dropped,
        restored,
        corrected: corrected.iter().map(Into::into).collect(),
        requeued,
    })?;
    Ok(Verdict::Done)
}
