//! `create pool`, `get pools`, `get pool`, `update pool`, `delete pool`.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use serde::Serialize;
use tokenpool::{
    Deletion, Order, PoolName, PoolUsage, QueueChange, Quota, QuotaChange, Scope, Weight,
};

use crate::args::{Global, Pool, UpdatePool};
use crate::connect;
use crate::error::{Error, Result, Verdict, describe};
use crate::format::{left, millis};
use crate::output::{Answer, Output, Row, lines, properties, table, tell};

/// As many calls at once as the backend keeps connections for them.
const CALLS_AT_ONCE: usize = 4;

/// JSON of `create pool` and `update pool`.
#[derive(Debug, Serialize)]
struct QuotaAnswer<'a> {
    /// The pool.
    namespace: &'a str,
    /// Units that may be granted, in force now.
    quota: u64,
    /// What was registered last.
    registered: u64,
    /// What an operator pinned, or null.
    pinned: Option<u64>,
    /// In which order tickets get their turn: `fifo`, `priority` or `fair`.
    order: &'static str,
    /// Weights of projects that were set.
    weights: Vec<WeightAnswer>,
    #[serde(skip)]
    done: &'static str,
    /// How long it would have learned still, if that was ended; not at all if it did not.
    #[serde(skip)]
    learning_ended: Option<Duration>,
}

impl Answer for QuotaAnswer<'_> {
    fn text(&self) -> String {
        let Self { namespace, quota, registered, order, weights, done, .. } = self;
        let mut text = format!("{done} {namespace}: quota {quota}");
        if self.pinned.is_some() {
            text += &format!(", registered {registered}");
        }
        if *done == "updated" || *order != Order::default().as_str() || !weights.is_empty() {
            text += &format!(", order {order}");
        }
        for WeightAnswer { project, weight } in weights {
            text += &format!(", weight of {project} {weight}");
        }
        match self.learning_ended {
            Some(Duration::ZERO) => text += "; it was not learning",
            Some(time) => text += &format!("; it would have learned for {} more", left(time)),
            None => {}
        }
        text
    }
}

/// JSON of a project's weight.
#[derive(Debug, Serialize)]
struct WeightAnswer {
    /// The project.
    project: String,
    /// Its weight in the order `fair`.
    weight: u64,
}

fn weights(usage: &PoolUsage) -> Vec<WeightAnswer> {
    let answer = |(project, weight): (&String, &Weight)| WeightAnswer {
        project: project.clone(),
        weight: weight.get(),
    };
    usage.weights.iter().map(answer).collect()
}

pub(crate) async fn create(
    global: &Global,
    pool: &Pool,
    quota: i64,
    output: &mut Output,
) -> Result<Verdict> {
    let pool = PoolName::new(&*pool.namespace)?;
    let config = connect::redis(global)?;
    let quota = Quota::new(quota, config.resource_max_quota)?;
    let answer = config.open().await?.change_quota(&pool, QuotaChange::Create(quota)).await?;
    output.answer(&QuotaAnswer {
        namespace: pool.as_str(),
        quota: answer.in_force,
        registered: answer.registered,
        pinned: answer.pinned,
        order: Order::default().as_str(),
        weights: Vec::new(),
        done: "created",
        learning_ended: None,
    })?;
    Ok(Verdict::Done)
}

pub(crate) async fn update(
    global: &Global,
    UpdatePool { pool, change }: &UpdatePool,
    output: &mut Output,
) -> Result<Verdict> {
    let pool = PoolName::new(&*pool.namespace)?;
    let config = connect::redis(global)?;
    let queue = queue_change(change.order.map(Into::into), &change.weights)?;
    let quota = change.quota.map(|quota| Quota::new(quota, config.resource_max_quota));
    let (quota, done) = match (quota.transpose()?, change.unpin) {
        (Some(quota), _) => (Some(QuotaChange::Pin(quota)), "pinned"),
        (None, true) => (Some(QuotaChange::Unpin), "unpinned"),
        (None, false) => (None, "updated"),
    };

    let backend = config.open().await?;
    // The queue first: it also checks the names of projects, before anything is changed.
    if queue != QueueChange::new() {
        backend.change_queue(&pool, &queue).await?;
    }
    if let Some(quota) = quota {
        backend.change_quota(&pool, quota).await?;
    }
    let learning_ended = match change.end_learning {
        true => Some(backend.end_learning(&pool).await?),
        false => None,
    };
    let usage = backend.usage(&pool).await?;
    output.answer(&QuotaAnswer {
        namespace: pool.as_str(),
        quota: usage.quota,
        registered: usage.registered,
        pinned: usage.pinned,
        order: usage.order.as_str(),
        weights: weights(&usage),
        done,
        learning_ended,
    })?;
    Ok(Verdict::Done)
}

/// The change that `--order` and `--weight` ask for; an error names the option.
fn queue_change(order: Option<Order>, weights: &[String]) -> Result<QueueChange> {
    let change = QueueChange::new();
    let change = order.map_or(change.clone(), |order| change.order(order));
    weights.iter().try_fold(change, |change, weight| {
        let wrong =
            |rule: &str| Error::Usage(format!("--weight: invalid weight {weight:?}: {rule}"));
        let (project, number) =
            weight.split_once('=').ok_or_else(|| wrong("must be <project>=<number>"))?;
        let number = number.parse().map_err(|_| wrong("must end in a whole number"))?;
        let number =
            Weight::new(number).map_err(|source| Error::Option { option: "--weight", source })?;
        if change.weights.contains_key(project) {
            return Err(wrong("the project has a weight already"));
        }
        Ok(change.weight(project, number))
    })
}

/// JSON of a pool in `get pools`, and the first fields of `get pool`.
#[derive(Debug, Serialize)]
struct PoolRow {
    /// The pool.
    namespace: String,
    /// Units that may be granted.
    quota: u64,
    /// What was registered last.
    registered: u64,
    /// What an operator pinned, or null.
    pinned: Option<u64>,
    /// Units in use.
    in_use: u64,
    /// Number of tokens that hold them.
    holders: u64,
    /// Number of tokens that wait.
    tickets: u64,
    /// In which order they get their turn: `fifo`, `priority` or `fair`.
    order: &'static str,
    /// How long the pool still learns who holds its units, in milliseconds, or null.
    learning_left_ms: Option<u64>,
}

impl PoolRow {
    fn new(pool: &PoolName, usage: &PoolUsage) -> Self {
        Self {
            namespace: pool.to_string(),
            quota: usage.quota,
            registered: usage.registered,
            pinned: usage.pinned,
            in_use: usage.in_use,
            holders: usage.holders,
            tickets: usage.tickets,
            order: usage.order.as_str(),
            learning_left_ms: usage.learning.map(millis),
        }
    }

    fn pinned(&self) -> String {
        match self.pinned {
            Some(_) => format!("yes, registered {}", self.registered),
            None => "no".to_owned(),
        }
    }
}

impl Row for PoolRow {
    const HEADER: &'static [&'static str] =
        &["NAMESPACE", "QUOTA", "IN USE", "HOLDERS", "WAITING", "ORDER", "PINNED"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.namespace.clone(),
            self.quota.to_string(),
            self.in_use.to_string(),
            self.holders.to_string(),
            self.tickets.to_string(),
            self.order.to_owned(),
            self.pinned(),
        ]
    }
}

pub(crate) async fn list(global: &Global, output: &mut Output) -> Result<Verdict> {
    let backend = &connect::redis(global)?.open().await?;
    let pools = backend.pools().await?;
    let usages: Vec<_> = stream::iter(&pools)
        .map(|pool| async move { (pool, backend.usage(pool).await) })
        .buffered(CALLS_AT_ONCE)
        .collect()
        .await;

    let mut verdict = Verdict::Done;
    let mut rows = Vec::new();
    for (pool, usage) in usages {
        match usage {
            Ok(usage) => rows.push(PoolRow::new(pool, &usage)),
            // It was deleted after the list was read, or its data were lost.
            Err(tokenpool::Error::UnknownNamespace { .. }) => {}
            Err(error) if error.is_retryable() => return Err(error.into()),
            // One damaged pool must not hide the others.
            Err(error) => {
                tell(format_args!("error: {pool}: {}\n", describe(&error)));
                verdict = Verdict::Failed;
            }
        }
    }
    let mut listing = output.rows();
    listing.page(&rows)?;
    listing.finish("no pools")?;
    Ok(verdict)
}

/// JSON of `get pool`.
#[derive(Debug, Serialize)]
struct PoolAnswer {
    #[serde(flatten)]
    pool: PoolRow,
    /// The least fencing number that the next grant can have.
    next_fencing_number: u64,
    /// Weights of projects that were set.
    weights: Vec<WeightAnswer>,
    /// Units in use per scope, projects before their domains.
    scopes: Vec<ScopeUse>,
}

/// JSON of a scope in `get pool`.
#[derive(Debug, Serialize)]
struct ScopeUse {
    /// The project.
    project: String,
    /// The domain, or null: the whole project.
    domain: Option<String>,
    /// Units in use.
    in_use: u64,
}

impl Answer for PoolAnswer {
    fn text(&self) -> String {
        let pool = &self.pool;
        let mut text = properties([
            ("namespace", pool.namespace.clone()),
            ("quota", pool.quota.to_string()),
            ("pinned", pool.pinned()),
            ("in use", pool.in_use.to_string()),
            ("holders", pool.holders.to_string()),
            ("waiting", pool.tickets.to_string()),
            ("order", pool.order.to_owned()),
            ("next fencing number", self.next_fencing_number.to_string()),
        ]);
        if let Some(millis) = pool.learning_left_ms {
            let time = left(Duration::from_millis(millis));
            text += &format!("learns who holds units, and admits nobody new, for {time} more\n");
        }
        if !self.weights.is_empty() {
            let rows = self
                .weights
                .iter()
                .map(|WeightAnswer { project, weight }| vec![project.clone(), weight.to_string()]);
            text += "\n";
            text += &lines(&table(Some(&["PROJECT", "WEIGHT"]), rows));
        }
        if !self.scopes.is_empty() {
            let rows = self.scopes.iter().map(|ScopeUse { project, domain, in_use }| {
                let domain = domain.as_deref().unwrap_or("(all)");
                vec![project.clone(), domain.to_owned(), in_use.to_string()]
            });
            text += "\n";
            text += &lines(&table(Some(&["PROJECT", "DOMAIN", "IN USE"]), rows));
        }
        text
    }
}

pub(crate) async fn show(global: &Global, pool: &Pool, output: &mut Output) -> Result<Verdict> {
    let pool = PoolName::new(&*pool.namespace)?;
    let usage = connect::redis(global)?.open().await?.usage(&pool).await?;
    let mut scopes: Vec<_> = usage
        .scopes
        .iter()
        .filter_map(|(scope, &in_use)| {
            let (project, domain) = parts(scope)?;
            Some(ScopeUse { project, domain, in_use })
        })
        .collect();
    scopes.sort_by(|a, b| (&a.project, &a.domain).cmp(&(&b.project, &b.domain)));
    output.answer(&PoolAnswer {
        next_fencing_number: usage.next_fencing_number.get(),
        pool: PoolRow::new(&pool, &usage),
        weights: weights(&usage),
        scopes,
    })?;
    Ok(Verdict::Done)
}

/// The project of a scope, and its domain if it is one.
pub(crate) fn parts(scope: &Scope) -> Option<(String, Option<String>)> {
    match scope {
        Scope::Project { project } => Some((project.clone(), None)),
        Scope::Domain { project, domain } => Some((project.clone(), Some(domain.clone()))),
        _ => None,
    }
}

/// JSON of `delete pool`.
#[derive(Debug, Serialize)]
struct Deleted<'a> {
    /// The pool.
    namespace: &'a str,
    /// Units that were in use and are lost to their holders.
    units_in_use: u64,
}

impl Answer for Deleted<'_> {
    fn text(&self) -> String {
        match self.units_in_use {
            0 => format!("deleted {}", self.namespace),
            units => format!("deleted {}: {units} unit(s) were in use", self.namespace),
        }
    }
}

pub(crate) async fn delete(
    global: &Global,
    pool: &Pool,
    force: bool,
    output: &mut Output,
) -> Result<Verdict> {
    let pool = PoolName::new(&*pool.namespace)?;
    let deletion = if force { Deletion::EvenInUse } else { Deletion::OnlyUnused };
    let backend = connect::redis(global)?.open().await?;
    let units_in_use = backend.delete_pool(&pool, deletion).await?;
    output.answer(&Deleted { namespace: pool.as_str(), units_in_use })?;
    Ok(Verdict::Done)
}
