//! Options of `replay`.

use std::path::PathBuf;

use super::{Caps, QueueOrder};

/// Replay a job log: replicas claim its jobs' units of one pool, in the log's time
///
/// Reads a log in the Standard Workload Format, plain or gzip. A job claims as many units as it had
/// processors, as project user-<user id> in domain group-<group id>, and holds them for its run
/// time. The replicas, each with a manager (and on Redis a connection) of its own, share the jobs.
/// Time is the log's: nothing waits for it. A job that cannot run at once gets a ticket, and the
/// pool's order decides who is next. Runs in memory unless a Redis is given, or a --config with
/// another type.
///
/// At the end every unit is released, and the summary says whether ever more units were in use than
/// the quota (or a cap) allows, counted apart from the pool's own counters: exit status 1 if so. It
/// also says how long each project waited, and how fairly the units were shared.
///
/// Several replays may share a pool; a pool that the replay made itself is deleted at the end. Jobs
/// larger than a limit are reported and left out. Lines without a job that ran (run time unknown,
/// cancelled before the start, partial executions) are skipped and counted. A job with run time 0 is
/// granted and released in the same instant.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tokenpool replay examples/data/NASA-iPSC-1993-3.1-cln.swf.gz
  tokenpool replay --order fair --quota 64 --plot use.svg log.swf
  tokenpool replay --redis redis://127.0.0.1 --replicas 8 --quota 128 -o json log.swf")]
pub(crate) struct Replay {
    /// The log
    pub(crate) file: PathBuf,
    /// How many replicas share the pool
    #[arg(
        long,
        value_name = "N",
        default_value_t = 3,
        value_parser = clap::value_parser!(u16).range(1..=1000),
        allow_negative_numbers = true
    )]
    pub(crate) replicas: u16,
    /// Units of the pool [default: those of a pool that exists, else the log's MaxProcs or MaxNodes]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) quota: Option<i64>,
    /// Pool to use, <plugin>:<name> [default: replay:<name of the file>]
    #[arg(long, value_name = "NS")]
    pub(crate) pool: Option<String>,
    /// Who waits gets its turn in this order [default: that of a pool that exists, else fifo]
    #[arg(long, value_enum)]
    pub(crate) order: Option<QueueOrder>,
    /// Draw the units in use over time into this file; its name ends in .svg
    #[arg(long, value_name = "FILE")]
    pub(crate) plot: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) caps: Caps,
}
