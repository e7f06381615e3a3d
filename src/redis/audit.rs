//! Proving and repairing a pool: reading it whole, page by page, and correcting what disagrees.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use super::keys::{PoolKeys, field_of_scope, scope_of_field};
use super::remote::{BATCH, PAGE, RemotePool, unexpected};
use super::reply::{Answer, Fields, pairs, parse_record};
use super::scripts;
use crate::audit::Recorded;
use crate::error::{Error, Result};
use crate::execution::Scope;
use crate::name::Member;
use crate::pool::{CheckReport, Drift, RepairReport};

/// How often a larger pool is read again when it changes between two pages, and how many corrections
/// a repair may take.
const ATTEMPTS: u32 = 20;

/// Recorded as holder of members that a repair adopted.
const ADOPTED: &str = "adopted";

/// How long a ticket lasts that has lost its time to live.
const REQUEUED: Duration = Duration::from_secs(10);

impl RemotePool<'_> {
    pub(super) async fn check(&self) -> Result<CheckReport> {
        Ok(self.read_whole().await?.report())
    }

    pub(super) async fn repair(&self) -> Result<RepairReport> {
        let mut report = RepairReport::default();
        for _ in 0..ATTEMPTS {
            let whole = self.read_whole().await?;
            let found = whole.report();
            if found.is_clean() {
                return Ok(report);
            }
            if found.queue_is_broken {
                self.requeue(&mut report).await?;
            } else if found.unrecorded.is_empty() && found.removed.is_empty() {
                self.correct(&whole.version.epoch, found, &mut report).await?;
            } else {
                self.reconcile(&found, &mut report).await?;
            }
        }
        Err(self.busy())
    }

    fn busy(&self) -> Error {
        Error::Busy { pool: self.name.clone(), attempts: ATTEMPTS }
    }

    /// Reads the pool whole, in one step or until nothing changed between the pages.
    async fn read_whole(&self) -> Result<Whole> {
        for _ in 0..ATTEMPTS {
            if let Some(whole) = self.try_read_whole().await? {
                return Ok(whole);
            }
        }
        Err(self.busy())
    }

    /// None if the pool changed between two pages.
    async fn try_read_whole(&self) -> Result<Option<Whole>> {
        let mut whole: Option<Whole> = None;
        let mut cursors = ["0"; 3].map(str::to_owned);
        let PoolKeys { pool, usage, grants, leases, tickets, queue, lines, turns, .. } =
            self.keys();
        loop {
            let keys = [pool, usage, grants, leases, tickets, queue, lines, turns];
            let mut call = scripts::CHECK.on(&keys.map(String::as_str));
            call.arg(&cursors).arg(PAGE);
            let mut fields = self.call_for_fields(&call).await?;
            let wrong = || unexpected(call.operation(), "not a page");
            let version = Version::read(&mut fields).ok_or_else(wrong)?;
            let tickets = Tickets::read(&mut fields).ok_or_else(wrong)?;
            let so_far = match &mut whole {
                Some(so_far) if so_far.version != version => return Ok(None),
                Some(so_far) => so_far,
                None => whole.insert(Whole::new(version, tickets).ok_or_else(wrong)?),
            };
            so_far.add_page(&mut fields, &mut cursors).ok_or_else(wrong)?;
            if cursors.iter().all(String::is_empty) {
                return Ok(whole);
            }
        }
    }

    /// Adopts members without a record; drops records without a member, or puts the member back.
    async fn reconcile(&self, found: &CheckReport, report: &mut RepairReport) -> Result<()> {
        let lost = if found.members == 0 { "1" } else { "0" };
        let members: Vec<_> =
            found.unrecorded.iter().chain(&found.removed).map(Member::as_str).collect();
        for members in members.chunks(BATCH) {
            let mut call = scripts::RECONCILE.on(&self.keys().all());
            call.arg(ADOPTED).arg(lost).arg(members);
            let mut fields = self.call_for_fields(&call).await?;
            let mut read = || Some((fields.number()?, fields.number()?, fields.number()?));
            let (adopted, dropped, restored) =
                read().ok_or_else(|| unexpected(call.operation(), fields))?;
            report.adopted += adopted;
            report.dropped += dropped;
            report.restored += restored;
        }
        Ok(())
    }

    /// Builds the queue anew from the records of the tickets.
    async fn requeue(&self, report: &mut RepairReport) -> Result<()> {
        let mut call = scripts::REQUEUE.on(&self.keys().all());
        call.arg(u64::try_from(REQUEUED.as_millis()).unwrap_or(u64::MAX));
        let mut fields = self.call_for_fields(&call).await?;
        let kept = fields.number().ok_or_else(|| unexpected(call.operation(), fields))?;
        report.requeued += kept;
        Ok(())
    }

    /// Corrects the counters by what they differ from the records, unless somebody else did since the
    /// pool was read.
    async fn correct(
        &self,
        epoch: &str,
        found: CheckReport,
        report: &mut RepairReport,
    ) -> Result<()> {
        let missing = |drift: &Drift| drift.recorded - drift.counted;
        let in_use: i64 = found.drift.iter().filter(|d| d.scope.is_none()).map(missing).sum();
        let mut call = scripts::REPAIR.on(&self.keys().all());
        call.arg(epoch).arg(-in_use);
        for drift in &found.drift {
            if let Some(scope) = &drift.scope {
                call.arg(field_of_scope(scope)).arg(missing(drift));
            }
        }
        let reply = self.call(&call).await?;
        match Answer::from_value(&reply) {
            Some(Answer::Repaired) => report.corrected.extend(found.drift),
            Some(Answer::Changed) => {}
            _ => return Err(unexpected(call.operation(), reply)),
        }
        Ok(())
    }
}

/// What changes with every grant, release, repair and change of the quota, so that pages with the same
/// version belong to the same state: grants raise `issued`, releases raise `issue_limit`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) issued: String,
    pub(super) issue_limit: String,
    pub(super) quota: String,
    pub(super) epoch: String,
}

impl Version {
    pub(super) fn read(fields: &mut Fields) -> Option<Self> {
        Some(Self {
            issued: fields.text()?,
            issue_limit: fields.text()?,
            quota: fields.text()?,
            epoch: fields.text()?,
        })
    }

    fn in_use(&self) -> Option<i64> {
        let number = |text: &str| text.parse::<i64>().ok();
        Some(number(&self.quota)? - (number(&self.issue_limit)? - number(&self.issued)?))
    }
}

/// How many tickets there are, by several ways of counting.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tickets {
    counted: i64,
    records: u64,
    ranks: u64,
    /// Of tickets and of domains.
    lines: u64,
    /// Of projects.
    turns: u64,
    /// Whether a cap may have taken places or turns away.
    closed: bool,
    /// Of tickets and of grants.
    leases: u64,
}

impl Tickets {
    pub(super) fn read(fields: &mut Fields) -> Option<Self> {
        Some(Self {
            counted: fields.text()?.parse().ok()?,
            records: fields.number()?,
            ranks: fields.number()?,
            lines: fields.number()?,
            turns: fields.number()?,
            closed: fields.number()? != 0,
            leases: fields.number()?,
        })
    }

    fn disagree(&self) -> bool {
        let Self { counted, records, ranks, lines, turns, closed, leases } = *self;
        let has_no_turn = records > 0 && turns == 0 && !closed;
        has_no_turn
            || counted != records as i64
            || ranks != records
            || lines < records
            || leases < records
    }
}

/// Everything a pool keeps, at one moment.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) version: Version,
    tickets: Tickets,
    in_use: i64,
    members: HashSet<Member>,
    counters: BTreeMap<Scope, i64>,
    /// Units by member; none where the record cannot be read.
    records: HashMap<Member, Option<u64>>,
}

impl Whole {
    pub(super) fn new(version: Version, tickets: Tickets) -> Option<Self> {
        Some(Self {
            tickets,
            in_use: version.in_use()?,
            version,
            members: HashSet::new(),
            counters: BTreeMap::new(),
            records: HashMap::new(),
        })
    }

    /// Adds a page of each list and moves the cursors on; an empty cursor is at its end.
    pub(super) fn add_page(
        &mut self,
        fields: &mut Fields,
        cursors: &mut [String; 3],
    ) -> Option<()> {
        let mut lists = [const { Vec::new() }; 3];
        for (list, cursor) in lists.iter_mut().zip(cursors) {
            let mut page = fields.array()?;
            let next = page.text()?;
            *list = page.array()?.texts()?;
            *cursor = if next == "0" { String::new() } else { next };
        }
        let [members, scopes, records] = lists;
        self.members.extend(members.into_iter().map(Member::found));
        for (field, count) in pairs(scopes)? {
            if let Some(scope) = scope_of_field(&field) {
                self.counters.insert(scope, count.parse().ok()?);
            }
        }
        for (member, record) in pairs(records)? {
            self.records.insert(
                Member::found(member),
                parse_record(&record).map(|record| record.units.get()),
            );
        }
        Some(())
    }

    /// What the records add up to.
    pub(super) fn recorded(&self) -> Recorded {
        let mut recorded = Recorded::default();
        for (member, units) in &self.records {
            recorded.add(member, units.unwrap_or_default());
        }
        recorded
    }

    /// Where counters, records and members do not agree.
    pub(super) fn report(&self) -> CheckReport {
        let has_record = |member: &Member| matches!(self.records.get(member), Some(Some(_)));
        let mut unrecorded: Vec<_> =
            self.members.iter().filter(|member| !has_record(member)).cloned().collect();
        let mut removed: Vec<_> =
            self.records.keys().filter(|member| !self.members.contains(*member)).cloned().collect();
        unrecorded.sort_unstable();
        removed.sort_unstable();
        CheckReport {
            members: self.members.len() as u64,
            records: self.records.len() as u64,
            drift: self.recorded().drift(self.in_use, &self.counters),
            unrecorded,
            removed,
            tickets: self.tickets.records,
            queue_is_broken: self.tickets.disagree(),
        }
    }
}
