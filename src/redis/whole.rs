//! A pool read whole, page by page.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::keys::scope_of_field;
use super::parse_record;
use super::reply::{Fields, pairs};
use crate::audit::Recorded;
use crate::name::{Member, Scope};
use crate::pool::CheckReport;

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

/// Everything a pool keeps, at one moment.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) version: Version,
    in_use: i64,
    members: HashSet<Member>,
    counters: BTreeMap<Scope, i64>,
    /// Units by member; none where the record cannot be read.
    records: HashMap<Member, Option<u64>>,
}

impl Whole {
    pub(super) fn new(version: Version) -> Option<Self> {
        Some(Self {
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
        }
    }
}
