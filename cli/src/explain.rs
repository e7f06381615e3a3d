//! `explain`: why does this token wait?
//!
//! Composed of listings alone, so it changes nothing; while the pool is in use, they are of slightly
//! different moments.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokenpool::matchable::{Attributes, MatchableResource as _, ResourceConstraints};
use tokenpool::{
    AllocationToken, Backend, Holder, Holding, Limit, Member, PoolName, PoolRules, PoolUsage,
    RedisBackend, ResourceConstraint, Ruled, Scope, TicketRecord,
};

use crate::args::{Explain, Global};
use crate::claims::{LimitAnswer, execution};
use crate::connect;
use crate::error::{Result, Verdict};
use crate::format::{left, millis};
use crate::holders::HolderRow;
use crate::output::{Answer, Output, Row, lines, table};
use crate::pages::{HolderPages, TicketPages};
use crate::revocations::RevocationRow;
use crate::tickets::TicketRow;

/// How many holders and tickets are shown.
const SHOWN: usize = 10;
/// How far back a revocation is looked for: all that are kept.
const REVOCATIONS: usize = 2000;

/// JSON of `explain`.
#[derive(Debug, Serialize)]
struct ExplainAnswer {
    /// The pool.
    namespace: String,
    /// The token's member in the pool.
    member: String,
    /// `waiting`, `held`, or `unknown`: neither.
    state: &'static str,
    /// Its ticket, as in `get tickets`, or null unless it waits.
    ticket: Option<TicketRow>,
    /// What stops it, or null unless it waits.
    limit: Option<LimitAnswer>,
    /// Its caps; none unless it waits.
    caps: Vec<CapAnswer>,
    /// When the first of what stands in its way ends by itself, in milliseconds; null if nothing does.
    retry_after_ms: Option<u64>,
    /// Number of tokens that hold units under the limit.
    holders_under_limit: u64,
    /// The oldest of them, as in `get holders`.
    oldest_holders: Vec<HolderRow>,
    /// Number of tickets before it.
    tickets_ahead: u64,
    /// The first of them, as in `get tickets`.
    first_tickets: Vec<TicketRow>,
    /// Its grant, as in `get holders`, or null unless it is held.
    grant: Option<HolderRow>,
    /// The last time that an operator took it away, as in `get revocations`, or null: never, unless it
    /// is held or waits.
    revoked: Option<RevocationRow>,
    #[serde(skip)]
    text: String,
}

/// A cap that a ticket has.
#[derive(Debug, Serialize)]
struct CapAnswer {
    /// `project_cap` or `namespace_cap`.
    kind: &'static str,
    /// Its size in units.
    size: u64,
    /// The rule that gave it, or null: the claim brought it.
    rule: Option<RuleAnswer>,
}

/// Where a number is set.
#[derive(Debug, Serialize)]
struct RuleAnswer {
    /// The kind of attributes.
    kind: &'static str,
    /// The path of its place.
    path: String,
    /// The pool's name, or the pattern that fits.
    pool: String,
    /// The version of what is set there.
    version: u64,
    #[serde(skip)]
    text: String,
}

impl CapAnswer {
    /// A cap of a ticket, and the rule, if that says the same.
    fn new(
        kind: &'static str,
        size: Option<u64>,
        rule: Option<Ruled<ResourceConstraint>>,
    ) -> Option<Self> {
        let size = size?;
        let rule = rule.filter(|rule| rule.value.value() == size).map(|rule| RuleAnswer {
            kind: ResourceConstraints::NAME,
            path: rule.path.to_string(),
            version: rule.version,
            text: rule.to_string(),
            pool: rule.pool,
        });
        Some(Self { kind, size, rule })
    }

    fn line(&self) -> String {
        let Self { kind, size, rule } = self;
        let source = rule.as_ref().map_or("the claim brought it", |rule| &rule.text);
        format!("{} {size}: {source}\n", kind.replace('_', " "))
    }
}

impl Answer for ExplainAnswer {
    fn text(&self) -> String {
        let mut text = self.text.clone();
        text += &part("who holds units under that limit", &self.oldest_holders, |shown| {
            count("the oldest first", shown, self.holders_under_limit)
        });
        text += &part("who stands before it", &self.first_tickets, |shown| {
            count("by rank", shown, self.tickets_ahead)
        });
        text
    }
}

fn part<R: Row>(title: &str, rows: &[R], order: impl Fn(usize) -> String) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let rows_below = lines(&table(Some(R::HEADER), rows.iter().map(Row::cells)));
    format!("\n{title}, {}:\n{rows_below}", order(rows.len()))
}

fn count(order: &str, shown: usize, all: u64) -> String {
    match all > shown as u64 {
        true => format!("{order} ({shown} of {all})"),
        false => order.to_owned(),
    }
}

pub(crate) async fn run(global: &Global, args: &Explain, output: &mut Output) -> Result<Verdict> {
    let pool = PoolName::new(&*args.pool.namespace)?;
    let mut execution = execution(&args.identity)?;
    if let Some(workflow) = &args.workflow {
        execution = execution.with_workflow(workflow)?;
    }
    if let Some(launch_plan) = &args.launch_plan {
        execution = execution.with_launch_plan(launch_plan)?;
    }
    let member = Member::new(&execution, &AllocationToken::new(&*args.token)?);
    let backend = RedisBackend::connect(&connect::redis(global)?.redis).await?;
    let mut answer = explain(&backend, &pool, &member).await?;
    if let Some(ticket) = &answer.ticket {
        let attributes = Attributes::new(Arc::new(backend.attributes()), Holder::of_this_process());
        let rule = PoolRules::new(&attributes).rule(&pool, &execution).await?;
        let (project, domain) = ticket.caps();
        answer.caps = [
            CapAnswer::new("project_cap", project, rule.project_cap),
            CapAnswer::new("namespace_cap", domain, rule.namespace_cap),
        ]
        .into_iter()
        .flatten()
        .collect();
        answer.text += &answer.caps.iter().map(CapAnswer::line).collect::<String>();
    }
    output.answer(&answer)?;
    Ok(Verdict::Done)
}

async fn explain(
    backend: &dyn Backend,
    pool: &PoolName,
    member: &Member,
) -> tokenpool::Result<ExplainAnswer> {
    // Tickets first: one whose turn comes meanwhile is then found among the holders.
    let queue = Queue::read(backend, pool, member).await?;
    let usage = backend.usage(pool).await?;
    let stopped = queue.ticket.as_ref().map(|ticket| stopped(ticket, &usage));
    let limit = stopped.as_ref().map(|(limit, ..)| limit);
    let holders = Holders::read(backend, pool, member, limit).await?;
    match (holders.grant, queue.ticket, stopped) {
        (Some(grant), ..) => Ok(held(pool, member, grant)),
        (None, Some(ticket), Some((limit, in_use, size))) => {
            let ends = [holders.soonest, queue.soonest, usage.learning];
            let retry_after = ends.into_iter().flatten().min();
            let position = queue.ahead + 1;
            let text = format!(
                "{member} waits for {} unit(s) of {pool} at position {position} of {}\n\
                 {}{limit}: {in_use} of {size} in use\n{}\n",
                ticket.units,
                usage.tickets.max(position),
                if matches!(limit, Limit::Learning { .. }) { "" } else { "stopped by the " },
                match retry_after {
                    Some(time) => format!("the first in its way ends by itself in {}", left(time)),
                    None => "nothing in its way ends by itself".to_owned(),
                }
            );
            Ok(ExplainAnswer {
                ticket: Some(TicketRow::new(position, ticket)),
                limit: Some(LimitAnswer::new(&limit, in_use, size)),
                retry_after_ms: retry_after.map(millis),
                holders_under_limit: holders.count,
                oldest_holders: holders.oldest.into_iter().map(Into::into).collect(),
                tickets_ahead: queue.ahead,
                first_tickets: queue.first,
                ..answer(pool, member, "waiting", text)
            })
        }
        _ => unknown(backend, pool, member).await,
    }
}

fn answer(pool: &PoolName, member: &Member, state: &'static str, text: String) -> ExplainAnswer {
    ExplainAnswer {
        namespace: pool.to_string(),
        member: member.to_string(),
        state,
        ticket: None,
        limit: None,
        caps: Vec::new(),
        retry_after_ms: None,
        holders_under_limit: 0,
        oldest_holders: Vec::new(),
        tickets_ahead: 0,
        first_tickets: Vec::new(),
        grant: None,
        revoked: None,
        text,
    }
}

fn held(pool: &PoolName, member: &Member, grant: Holding) -> ExplainAnswer {
    let lease = match grant.lease_left {
        Some(time) => format!("its lease ends in {} unless it is renewed", left(time)),
        None => "it has no lease and is held until it is released".to_owned(),
    };
    let grant = HolderRow::from(grant);
    let row = lines(&table(Some(HolderRow::HEADER), [grant.cells()]));
    let text = format!("{member} is held in {pool}; {lease}\n\n{row}");
    ExplainAnswer { grant: Some(grant), ..answer(pool, member, "held", text) }
}

async fn unknown(
    backend: &dyn Backend,
    pool: &PoolName,
    member: &Member,
) -> tokenpool::Result<ExplainAnswer> {
    let revocations = backend.revocations(pool, REVOCATIONS).await?;
    let last = revocations.into_iter().find(|revocation| revocation.member == *member);
    let revoked = last.map(RevocationRow::from);
    let mut text = format!("{member} neither holds units of {pool} nor waits for any\n");
    if let Some(RevocationRow { at, operator, reason, .. }) = &revoked {
        let at = at.as_deref().unwrap_or("some time");
        text += &format!("{operator} took it away at {at}: {reason}\n");
    }
    Ok(ExplainAnswer { revoked, ..answer(pool, member, "unknown", text) })
}

/// What stops a ticket, what is in use under that limit, and its size: in the order in which the
/// library names them, the widest cap first.
fn stopped(ticket: &TicketRecord, usage: &PoolUsage) -> (Limit, u64, u64) {
    let wanted = ticket.units.get();
    if let Some((project, domain)) = ticket.member.scope() {
        let (project, domain) = (project.to_owned(), domain.to_owned());
        let caps = [
            (Scope::Project { project: project.clone() }, ticket.project_cap),
            (Scope::Domain { project, domain }, ticket.domain_cap),
        ];
        for (scope, cap) in caps {
            let in_use = usage.scopes.get(&scope).copied().unwrap_or_default();
            if let Some(size) = cap.filter(|&size| in_use + wanted > size) {
                return (Limit::Cap(scope), in_use, size);
            }
        }
    }
    let limit = match usage.learning {
        _ if usage.in_use + wanted > usage.quota => Limit::Quota,
        Some(time_left) => Limit::Learning { time_left },
        None => Limit::Queue,
    };
    (limit, usage.in_use, usage.quota)
}

/// The queue as far as a token's ticket.
#[derive(Debug, Default)]
struct Queue {
    ticket: Option<TicketRecord>,
    /// Number of tickets before it, and the first of them.
    ahead: u64,
    first: Vec<TicketRow>,
    /// When the first of them ends by itself.
    soonest: Option<Duration>,
}

impl Queue {
    async fn read(
        backend: &dyn Backend,
        pool: &PoolName,
        member: &Member,
    ) -> tokenpool::Result<Self> {
        let mut queue = Self::default();
        let mut pages = TicketPages::new(backend, pool);
        while let Some(page) = pages.next().await? {
            for ticket in page {
                if ticket.member == *member {
                    queue.ticket = Some(ticket);
                    return Ok(queue);
                }
                queue.ahead += 1;
                queue.soonest = queue.soonest.into_iter().chain([ticket.time_left]).min();
                if queue.first.len() < SHOWN {
                    queue.first.push(TicketRow::new(queue.ahead, ticket));
                }
            }
        }
        Ok(queue)
    }
}

/// The holders under a limit, and a token's own grant.
#[derive(Debug, Default)]
struct Holders {
    grant: Option<Holding>,
    count: u64,
    oldest: Vec<Holding>,
    /// When the first of their leases ends.
    soonest: Option<Duration>,
}

impl Holders {
    async fn read(
        backend: &dyn Backend,
        pool: &PoolName,
        member: &Member,
        limit: Option<&Limit>,
    ) -> tokenpool::Result<Self> {
        let mut holders = Self::default();
        let mut seen = HashSet::new();
        let mut pages = HolderPages::new(backend, pool);
        while let Some(page) = pages.next().await? {
            for holding in page {
                if holding.member == *member {
                    holders.grant = Some(holding);
                    return Ok(holders);
                }
                if is_under(limit, &holding.member) && seen.insert(holding.member.clone()) {
                    holders.add(holding);
                }
            }
            holders.oldest.sort_by_key(since);
            holders.oldest.truncate(SHOWN);
        }
        Ok(holders)
    }

    fn add(&mut self, holding: Holding) {
        self.count += 1;
        self.soonest = self.soonest.into_iter().chain(holding.lease_left).min();
        self.oldest.push(holding);
    }
}

/// By grant; who was never recorded comes last.
fn since(holding: &Holding) -> u64 {
    holding.record.as_ref().map_or(u64::MAX, |record| record.fencing_number.get())
}

fn is_under(limit: Option<&Limit>, member: &Member) -> bool {
    match (limit, member.scope()) {
        (None, _) => false,
        (Some(Limit::Cap(Scope::Project { project })), scope) => {
            scope.is_some_and(|(of, _)| of == project)
        }
        (Some(Limit::Cap(Scope::Domain { project, domain })), scope) => {
            scope.is_some_and(|scope| scope == (project, domain))
        }
        (Some(_), _) => true,
    }
}
