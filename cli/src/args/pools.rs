//! Options of the commands about pools.

use clap::{Subcommand, ValueEnum};
use tokenpool::Order;

use super::{DeleteAttributes, GetAttributes, Revocations, UpdateAttributes};

#[derive(clap::Args)]
#[group(skip)] // commands are called "pool", too
pub(crate) struct Pool {
    /// The pool: <plugin>:<name>
    #[arg(value_name = "NS")]
    pub(crate) namespace: String,
}

#[derive(Subcommand)]
pub(crate) enum Create {
    /// Create a pool
    ///
    /// Refused if there is one. Managers that register the pool later set its quota anew, which
    /// `update pool --quota` prevents.
    #[command(after_help = "Example:\n  tokenpool create pool hive:default --quota 100")]
    Pool {
        #[command(flatten)]
        pool: Pool,
        /// Most units that may be granted, from 1 to the configured resourceMaxQuota (1000)
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        quota: i64,
    },
}

#[derive(Subcommand)]
pub(crate) enum Get {
    /// List the pools
    ///
    /// Shows of each pool its quota, whether an operator pinned it, what is in use, and how many wait
    /// in which order.
    #[command(after_help = "Example:\n  tokenpool get pools")]
    Pools,
    /// Show a pool
    ///
    /// Shows its quota, what is in use of it in total and by project and domain, how many wait in
    /// which order, and the projects' weights.
    #[command(after_help = "Example:\n  tokenpool get pool hive:default")]
    Pool(Pool),
    /// List who holds units of a pool
    ///
    /// Prints page by page, in no particular order. While the pool is in use, holders that come or go
    /// meanwhile may be missing, and one may stand on two pages. The member in the last column is
    /// what `release --member` takes.
    #[command(after_help = "Example:\n  tokenpool get holders hive:default")]
    Holders(Pool),
    /// List who waits for units of a pool
    ///
    /// Prints page by page, by rank. While the queue moves, positions are those at the moment when the
    /// page was read. A ticket at the cap of its project or domain lets others pass.
    #[command(after_help = "Example:\n  tokenpool get tickets hive:default")]
    Tickets(Pool),
    Revocations(Revocations),
    /// List the kinds of attributes
    ///
    /// Those that this program knows, and those that are stored.
    #[command(after_help = "Example:\n  tokenpool get kinds")]
    Kinds,
    /// Show attributes of a kind that this program may not know, as they are stored
    #[command(after_help = "\
Examples:
  tokenpool get attributes WORKFLOW_PRIORITY
  tokenpool get attributes WORKFLOW_PRIORITY -p billing -d production app.reports.nightly")]
    Attributes {
        /// The kind
        #[arg(value_name = "KIND")]
        kind: String,
        #[command(flatten)]
        args: GetAttributes,
    },
}

#[derive(Subcommand)]
pub(crate) enum Update {
    /// Change a pool's quota, the order of its queue, or weights, or end its learning
    ///
    /// --quota pins the quota: it stays in force, whatever managers register, until --unpin brings
    /// back what was registered last. Lowering a quota takes nothing away from holders; claims are
    /// refused until enough was released.
    ///
    /// --order says who is next: fifo as they came, priority the more urgent first (30 s of waiting
    /// count as much as one level), fair in turn by project in proportion to the weights, which are 1
    /// unless set. Who waits already keeps the rank that it was given.
    ///
    /// --end-learning lets a pool whose data were lost, or whose server is another one, admit new claims
    /// before its time for learning is over: for when everyone who holds units is known to be back.
    #[command(after_help = "\
Examples:
  tokenpool update pool hive:default --quota 50
  tokenpool update pool hive:default --unpin
  tokenpool update pool hive:default --order fair --weight flytesnacks=3 --weight research=1")]
    Pool(UpdatePool),
    /// Set attributes of a kind that this program may not know
    #[command(after_help = "\
Example:
  tokenpool update attributes WORKFLOW_PRIORITY --unchecked --attrFile priority.yaml")]
    Attributes {
        /// The kind
        #[arg(value_name = "KIND")]
        kind: String,
        /// Take the attributes as they are if this program does not know the kind
        #[arg(long)]
        unchecked: bool,
        #[command(flatten)]
        args: UpdateAttributes,
    },
}

#[derive(clap::Args)]
pub(crate) struct UpdatePool {
    #[command(flatten)]
    pub(crate) pool: Pool,
    #[command(flatten)]
    pub(crate) change: Change,
}

#[derive(clap::Args)]
#[group(required = true, multiple = true)]
pub(crate) struct Change {
    /// Pin this quota, from 1 to the configured resourceMaxQuota (1000)
    #[arg(long, value_name = "N", allow_negative_numbers = true, conflicts_with = "unpin")]
    pub(crate) quota: Option<i64>,
    /// Go back to the quota that was registered last
    #[arg(long)]
    pub(crate) unpin: bool,
    /// Who waits gets its turn in this order
    #[arg(long, value_enum)]
    pub(crate) order: Option<QueueOrder>,
    /// Weight of a project in fair order, from 1 to 1000000; once for each project
    #[arg(long = "weight", value_name = "P=N")]
    pub(crate) weights: Vec<String>,
    /// Admit new claims again, although not everyone who holds units may be known
    #[arg(long)]
    pub(crate) end_learning: bool,
}

/// The order of a queue.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum QueueOrder {
    Fifo,
    Priority,
    Fair,
}

impl From<QueueOrder> for Order {
    fn from(order: QueueOrder) -> Self {
        match order {
            QueueOrder::Fifo => Self::Fifo,
            QueueOrder::Priority => Self::Priority,
            QueueOrder::Fair => Self::Fair,
        }
    }
}

#[derive(Subcommand)]
pub(crate) enum Delete {
    /// Delete a pool
    ///
    /// Refused while units are in use, unless forced. A manager that has registered the pool makes it
    /// again with its next claim.
    #[command(after_help = "Example:\n  tokenpool delete pool hive:default")]
    Pool {
        #[command(flatten)]
        pool: Pool,
        /// Delete in any case; every holder loses its units
        #[arg(long)]
        force: bool,
    },
    /// Delete attributes of a kind that this program may not know
    #[command(after_help = "\
Example:
  tokenpool delete attributes WORKFLOW_PRIORITY -p billing -d production app.reports.nightly")]
    Attributes {
        /// The kind
        #[arg(value_name = "KIND")]
        kind: String,
        #[command(flatten)]
        args: DeleteAttributes,
    },
}
