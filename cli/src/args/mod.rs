//! The command line: every command, option and help text.

mod attributes;
mod claims;
mod pools;
mod replay;

use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{ArgAction, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use secrecy::SecretString;

pub(crate) use self::attributes::{
    Apply, Consent, DeleteAttributes, Export, GetAttributes, OfKind, Place, UpdateAttributes,
};
pub(crate) use self::claims::{
    Allocate, Caps, Exec, Explain, Identity, Patience, Release, Renew, Revocations, Waiting,
};
pub(crate) use self::pools::{Create, Delete, Get, Pool, QueueOrder, Update, UpdatePool};
pub(crate) use self::replay::Replay;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

const STATUS: &str = "\
Where Redis is:
  --redis URL, else the environment variable TOKENPOOL_REDIS, else what --config
  FILE says, over which the other TOKENPOOL_... variables are laid; sentinels and
  clusters have to be named in the last two. --redis stands for the file's addresses
  and password and keeps its time-outs and resourceMaxQuota.
  Everybody can see the options of a running program, so a password is better kept
  in the environment or the file. Only replay works without a Redis.

Exit status:
  0  done, or granted
  1  failed: Redis cannot be reached, say, or a replay found a limit exceeded
  2  wrong usage or input; nothing was changed
  3  refused: a limit is reached or the time to wait is up, a lease is lost, the pool
     exists already or is in use, or check found differences; attributes are not set,
     were changed by somebody else meanwhile, or `apply --dryRun` found differences;
     or a question was answered with no

exec ends with its command's status, or 126 if that cannot be run, 127 if there is none.";

/// Exact shared quotas: decides who may use units of scarce services, and shows who does.
///
/// Replicas of a workflow engine claim units of pools on Redis and together never exceed a pool's
/// quota. This program replays a job log against a pool, and lets an operator see and change pools, and
/// the attributes of projects, domains, workflows and launch plans.
#[derive(Parser)]
#[command(
    name = "tokenpool",
    version,
    after_help = STATUS,
    styles = STYLES,
    max_term_width = 100,
    disable_help_subcommand = true,
    arg_required_else_help = true
)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(clap::Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Redis: redis[s]://[[user]:password@]host[:port][/db] or unix:///path/to/socket [env: TOKENPOOL_REDIS]
    #[arg(long, value_name = "URL", global = true, value_parser = secret)]
    pub(crate) redis: Option<SecretString>,
    /// Configuration in YAML with Flyte's keys, for example a propeller's own
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,
    /// How to print; the fields of json are stable
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t, global = true)]
    pub(crate) output: Format,
    /// Log to stderr what is done; twice for more
    #[arg(short, long, action = ArgAction::Count, global = true)]
    pub(crate) verbose: u8,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    #[default]
    Table,
    Json,
}

fn secret(text: &str) -> Result<SecretString, std::convert::Infallible> {
    Ok(text.into())
}

#[derive(Subcommand)]
pub(crate) enum Command {
    Replay(Replay),
    /// Create a pool
    #[command(subcommand, arg_required_else_help = true)]
    Create(Create),
    /// Show pools, a pool, who holds units of it, who waits, and what operators took away; and attributes
    #[command(subcommand, arg_required_else_help = true)]
    Get(OfKind<Get, GetAttributes>),
    /// Change a pool's quota, the order of its queue, or weights; or attributes
    #[command(subcommand, arg_required_else_help = true)]
    Update(OfKind<Update, UpdateAttributes>),
    /// Delete a pool, or attributes
    #[command(subcommand, arg_required_else_help = true)]
    Delete(OfKind<Delete, DeleteAttributes>),
    Apply(Apply),
    Export(Export),
    Allocate(Allocate),
    Renew(Renew),
    Release(Release),
    Explain(Explain),
    #[cfg(unix)]
    Exec(Exec),
    /// Prove that a pool's counters, records and members agree, and its queue is whole
    ///
    /// Adds up the recorded grants and compares them with the counters and with the members of the
    /// pool, and the tickets with their queue. Changes nothing; exit status 3 if something differs,
    /// which `repair` puts right.
    #[command(after_help = "Example:\n  tokenpool check hive:default")]
    Check(Pool),
    /// Put right what `check` finds, while the pool is in use
    ///
    /// Adopts members that another writer put into the pool, with one unit each and whatever the
    /// quota says; drops the records of members that another writer removed; and then sets the
    /// counters to what the records add up to. A queue that lost keys is built anew of its tickets.
    #[command(after_help = "Example:\n  tokenpool repair hive:default")]
    Repair(Pool),
    /// Print a completion script for a shell
    ///
    /// Completes commands and options; names of pools it does not know.
    #[command(
        after_help = "Example:\n  tokenpool completions bash > /etc/bash_completion.d/tokenpool"
    )]
    Completions {
        /// The shell
        shell: Shell,
    },
}
