//! A pool's queue: which ticket's turn it is. The structure and the rules of `lua/shared/queue.lua`.

use std::collections::{BTreeMap, BTreeSet};

use super::now::Now;
use super::ranks::Ranks;
use super::scored::Scored;
use crate::amount::{ResourceConstraintsSpec, Units};
use crate::name::Member;
use crate::ticket::{Channel, Order, Priority, Weight};

/// Virtual time of one unit at weight 1, in the order of fair shares.
const UNIT: u64 = 1_000_000;

/// What one level of priority is worth, in microseconds of waiting.
const LEVEL: u64 = Priority::LEVEL.as_micros() as u64;

/// What is kept of a ticket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Waiting {
    pub(super) units: Units,
    pub(super) caps: ResourceConstraintsSpec,
    pub(super) channel: Option<Channel>,
    pub(super) holder: String,
    pub(super) execution: String,
}

/// A ticket in its place.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Filed {
    pub(super) waiting: Waiting,
    pub(super) rank: u64,
    /// In seconds since 1970.
    pub(super) since: u64,
}

impl Filed {
    /// The number that it was given: its rank without what its priority was worth. That is its second less its rank, but for
    /// the part of a second.
    fn number(&self) -> u64 {
        let worth = (self.since * 1_000_000).saturating_sub(self.rank) + LEVEL / 2;
        self.rank + worth / LEVEL * LEVEL
    }
}

/// The tickets of a pool. Every step is logarithmic in their number.
///
/// The tickets of a domain stand in its line. A project's domains that may run, each by the first ticket of its line, are
/// its open domains; the projects that have some, each by the first of those, have turns. Who is found to stand at a cap is
/// closed until units of its project or domain come back, so that it is not looked at again in vain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Queue {
    order: Order,
    weights: BTreeMap<String, Weight>,
    tickets: BTreeMap<Member, Filed>,
    ranks: Ranks,
    projects: BTreeMap<String, Project>,
    /// The projects whose turn it may be, by the rank of their first ticket or by the start of their fair share.
    turns: Scored<String>,
    /// Where the fair share that a project took last ends.
    shares: Scored<String>,
    /// Where the fair share that was taken last began.
    virtual_time: u64,
    last_number: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Project {
    lines: BTreeMap<String, BTreeSet<(u64, Member)>>,
    open: BTreeSet<(u64, String)>,
}

/// The project and the domain of a ticket.
pub(super) fn scope_of(member: &Member) -> (&str, &str) {
    member.scope().unwrap_or_default()
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.tickets.is_empty()
    }

    pub(super) fn len(&self) -> u64 {
        self.tickets.len() as u64
    }

    pub(super) fn get(&self, member: &Member) -> Option<&Filed> {
        self.tickets.get(member)
    }

    /// Place of a ticket by rank; 1 is the first.
    pub(super) fn position(&self, member: &Member) -> Option<u64> {
        self.get(member).map(|filed| self.ranks.position(filed.rank, member) + 1)
    }

    /// The tickets from a rank on.
    pub(super) fn from(&self, rank: u64) -> impl Iterator<Item = (&Member, &Filed)> {
        self.ranks.from(rank).filter_map(|(_, member)| self.tickets.get_key_value(member))
    }

    /// The tickets, in no order that matters: for tests that work out by themselves whose turn it is.
    #[cfg(test)]
    pub(super) fn unsorted(&self) -> &BTreeMap<Member, Filed> {
        &self.tickets
    }

    /// The ticket whose turn it is.
    pub(super) fn next(&self) -> Option<&Member> {
        let (project, _) = self.turns.first()?;
        let project = self.projects.get(project)?;
        let (_, domain) = project.open.first()?;
        project.first_of(domain).map(|(_, member)| member)
    }

    /// Whether tickets stand before a new claim of a domain: one that waits for units, or one of the same scope that waits
    /// for its cap.
    pub(super) fn stands_before(&self, project: &str, domain: &str) -> bool {
        let in_scope =
            |project: &Project| !project.open.is_empty() || project.lines.contains_key(domain);
        !self.turns.is_empty() || self.projects.get(project).is_some_and(in_scope)
    }

    /// Gives a new ticket its place.
    pub(super) fn enqueue(
        &mut self,
        now: Now,
        member: &Member,
        waiting: Waiting,
        priority: Priority,
    ) {
        let number = now.micros().max(self.last_number + 1);
        self.last_number = number;
        let rank = match self.order {
            Order::Priority => number.saturating_sub(advantage(priority)),
            Order::Fifo | Order::Fair => number,
        };
        // The number may be ahead of the clock.
        self.line_up(member, Filed { waiting, rank, since: number / 1_000_000 });
    }

    /// Puts a ticket into the queue.
    fn line_up(&mut self, member: &Member, filed: Filed) {
        let rank = filed.rank;
        self.tickets.insert(member.clone(), filed);
        self.ranks.insert(rank, member.clone());
        let (project, domain) = scope_of(member);
        let lines = self.projects.entry(project.to_owned()).or_default();
        if lines.line_up(domain, rank, member) {
            self.open(project, domain);
        }
    }

    /// Takes over what a repeated claim brings with it, and looks at the ticket again. Its place stays; in the order of
    /// priority it is the one that it would have had with this priority.
    pub(super) fn refile(&mut self, member: &Member, waiting: Waiting, priority: Priority) {
        let (project, domain) = scope_of(member);
        if let Some(filed) = self.tickets.get_mut(member) {
            filed.waiting = waiting;
            let rank = match self.order {
                Order::Priority => filed.number().saturating_sub(advantage(priority)),
                Order::Fifo | Order::Fair => filed.rank,
            };
            if rank != filed.rank
                && let Some(filed) = self.dequeue(member)
            {
                self.line_up(member, Filed { rank, ..filed });
            }
        }
        self.open(project, domain);
    }

    /// Takes a ticket out that will not run.
    pub(super) fn withdraw(&mut self, member: &Member) -> Option<Filed> {
        let filed = self.dequeue(member)?;
        let (project, domain) = scope_of(member);
        self.open(project, domain);
        Some(filed)
    }

    /// Takes out the ticket whose turn it is, to run, and counts its project's share.
    pub(super) fn serve(&mut self, member: &Member) -> Option<Filed> {
        let filed = self.dequeue(member)?;
        let (project, domain) = scope_of(member);
        if self.order == Order::Fair {
            self.take_share(project, filed.waiting.units);
        }
        self.open(project, domain);
        Some(filed)
    }

    /// Lets the first ticket of a domain, and its project, be looked at again.
    pub(super) fn open(&mut self, project: &str, domain: &str) {
        if let Some(lines) = self.projects.get_mut(project)
            && let Some(&(rank, _)) = lines.first_of(domain)
        {
            lines.open.insert((rank, domain.to_owned()));
        }
        self.open_project(project);
    }

    /// Takes the turn from a project that stands at its cap.
    pub(super) fn close_project(&mut self, project: &str) {
        self.turns.remove(project);
    }

    /// Takes the turn from a domain that stands at its cap and gives it to its project's next domain.
    pub(super) fn close_domain(&mut self, project: &str, domain: &str) {
        if let Some(lines) = self.projects.get_mut(project)
            && let Some(&(rank, _)) = lines.first_of(domain)
        {
            lines.open.remove(&(rank, domain.to_owned()));
        }
        self.open_project(project);
    }

    pub(super) fn order(&self) -> Order {
        self.order
    }

    pub(super) fn weights(&self) -> &BTreeMap<String, Weight> {
        &self.weights
    }

    pub(super) fn set_weight(&mut self, project: &str, weight: Weight) {
        self.weights.insert(project.to_owned(), weight);
    }

    /// Changes the order and sorts the turns by it. Tickets keep their ranks, and closed projects stay closed.
    pub(super) fn set_order(&mut self, order: Order) {
        self.order = order;
        for project in self.turns.drain() {
            self.open_project(&project);
        }
    }

    /// Gives a project its turn by the first of its open domains, or takes the turn away if there is none.
    fn open_project(&mut self, project: &str) {
        let first = self.projects.get(project).and_then(|project| project.open.first());
        match first {
            None => self.turns.remove(project),
            Some(&(rank, _)) if self.order != Order::Fair => {
                self.turns.set(project.to_owned(), rank);
            }
            Some(_) if self.turns.score(project).is_none() => {
                let share = self.shares.score(project).unwrap_or_default();
                self.turns.set(project.to_owned(), share.max(self.virtual_time));
            }
            Some(_) => {}
        }
    }

    fn dequeue(&mut self, member: &Member) -> Option<Filed> {
        let filed = self.tickets.remove(member)?;
        self.ranks.remove(filed.rank, member);
        let (project, domain) = scope_of(member);
        if let Some(lines) = self.projects.get_mut(project) {
            lines.leave(domain, filed.rank, member);
            if lines.lines.is_empty() {
                self.projects.remove(project);
            }
        }
        Some(filed)
    }

    /// Start-time fair queueing: time is where the share begins that is taken; the project's next begins where it ends.
    fn take_share(&mut self, project: &str, units: Units) {
        let start = self.turns.score(project).unwrap_or(self.virtual_time);
        let weight = self.weights.get(project).map_or(1, |weight| weight.get());
        self.virtual_time = start;
        let length = (units.get() * UNIT / weight).max(1);
        self.shares.set(project.to_owned(), start.saturating_add(length));
        self.turns.remove(project);
        // A share that ended is as good as none. Two for each one taken, so that they cannot pile up.
        for past in self.shares.up_to(self.virtual_time, 2) {
            self.shares.remove(&past);
        }
    }
}

impl Project {
    fn first_of(&self, domain: &str) -> Option<&(u64, Member)> {
        self.lines.get(domain)?.first()
    }

    /// Puts a ticket into its line; answers whether it is the first there.
    fn line_up(&mut self, domain: &str, rank: u64, member: &Member) -> bool {
        let before = self.first_of(domain).map(|&(rank, _)| rank);
        let line = self.lines.entry(domain.to_owned()).or_default();
        line.insert((rank, member.clone()));
        let is_first = line.first().is_some_and(|(_, first)| first == member);
        if is_first && let Some(before) = before {
            self.open.remove(&(before, domain.to_owned()));
        }
        is_first
    }

    fn leave(&mut self, domain: &str, rank: u64, member: &Member) {
        self.open.remove(&(rank, domain.to_owned()));
        if let Some(line) = self.lines.get_mut(domain) {
            line.remove(&(rank, member.clone()));
            if line.is_empty() {
                self.lines.remove(domain);
            }
        }
    }
}

/// What a priority is worth, in microseconds of waiting.
fn advantage(priority: Priority) -> u64 {
    u64::from(priority.get()) * LEVEL
}
