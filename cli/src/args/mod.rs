//! The command line: every command, option and help text.

use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{ArgAction, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use secrecy::SecretString;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

const STATUS: &str = "\
Where Redis is:
  --redis URL, else the environment variable TOKENPOOL_REDIS, else what --config
  FILE says, over which the other TOKENPOOL_... variables are laid. --redis stands
  for the file's address and password and keeps its time-outs and resourceMaxQuota.
  Everybody can see the options of a running program, so a password is better kept
  in the environment or the file. Only replay works without a Redis.

Exit status:
  0  done, or granted
  1  failed: Redis cannot be reached, say, or a replay found a limit exceeded
  2  wrong usage or input; nothing was changed
  3  refused: a limit is reached, the pool exists already or is in use, or check
     found differences";

/// Exact shared quotas: decides who may use units of scarce services, and shows who does.
///
/// Replicas of a workflow engine claim units of pools on Redis and together never exceed a pool's
/// quota. This program replays a job log against a pool, and lets an operator see and change pools.
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
    /// Redis: redis://[:password@]host[:port][/db] or unix:///path/to/socket [env: TOKENPOOL_REDIS]
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
    /// Show pools, a pool, or who holds units of it
    #[command(subcommand, arg_required_else_help = true)]
    Get(Get),
    /// Change a pool's quota
    #[command(subcommand, arg_required_else_help = true)]
    Update(Update),
    /// Delete a pool
    #[command(subcommand, arg_required_else_help = true)]
    Delete(Delete),
    Allocate(Allocate),
    Release(Release),
    /// Prove that a pool's counters, records and members agree
    ///
    /// Adds up the recorded grants and compares them with the counters and with the members of the
    /// pool. Changes nothing; exit status 3 if something differs, which `repair` puts right.
    #[command(after_help = "Example:\n  tokenpool check hive:default")]
    Check(Pool),
    /// Make a pool's counters, records and members agree, while it is in use
    ///
    /// Adopts members that another writer put into the pool, with one unit each and whatever the
    /// quota says; drops the records of members that another writer removed; and then sets the
    /// counters to what the records add up to.
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

/// Replay a job log: replicas claim its jobs' units of one pool, in the log's time
///
/// Reads a log in the Standard Workload Format, plain or gzip. A job claims as many units as it had
/// processors, as project user-<user id> in domain group-<group id>, and holds them for its run
/// time. The replicas, each with a manager (and on Redis a connection) of its own, share the jobs.
/// Time is the log's: nothing waits for it. A refused job tries again whenever something happens in
/// the log. Runs in memory unless a Redis is given, or a --config with another type.
///
/// At the end every unit is released, and the summary says whether ever more units were in use than
/// the quota (or a cap) allows, counted apart from the pool's own counters: exit status 1 if so.
///
/// Several replays may share a pool; a pool that the replay made itself is deleted at the end. Jobs
/// larger than a limit are reported and left out. Lines without a job that ran (run time unknown,
/// cancelled before the start, partial executions) are skipped and counted. A job with run time 0 is
/// granted and released in the same instant.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tokenpool replay examples/data/NASA-iPSC-1993-3.1-cln.swf.gz
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
    #[command(flatten)]
    pub(crate) caps: Caps,
}

/// Caps that come with claims.
#[derive(clap::Args, Clone, Copy)]
pub(crate) struct Caps {
    /// Most units for the project, in all its domains; 0 closes it [default: no cap]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) project_cap: Option<i64>,
    /// Most units for the domain of the project; 0 closes it [default: no cap]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) namespace_cap: Option<i64>,
}

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
    /// Shows of each pool its quota, whether an operator pinned it, and what is in use.
    #[command(after_help = "Example:\n  tokenpool get pools")]
    Pools,
    /// Show a pool
    ///
    /// Shows its quota, and what is in use of it in total and by project and domain.
    #[command(after_help = "Example:\n  tokenpool get pool hive:default")]
    Pool(Pool),
    /// List who holds units of a pool
    ///
    /// Prints page by page, in no particular order. While the pool is in use, holders that come or go
    /// meanwhile may be missing, and one may stand on two pages. The member in the last column is
    /// what `release --member` takes.
    #[command(after_help = "Example:\n  tokenpool get holders hive:default")]
    Holders(Pool),
}

#[derive(Subcommand)]
pub(crate) enum Update {
    /// Change a pool's quota
    ///
    /// --quota pins the quota: it stays in force, whatever managers register, until --unpin brings
    /// back what was registered last. Lowering a quota takes nothing away from holders; claims are
    /// refused until enough was released.
    #[command(after_help = "\
Examples:
  tokenpool update pool hive:default --quota 50
  tokenpool update pool hive:default --unpin")]
    Pool(UpdatePool),
}

#[derive(clap::Args)]
pub(crate) struct UpdatePool {
    #[command(flatten)]
    pub(crate) pool: Pool,
    #[command(flatten)]
    pub(crate) change: Change,
}

#[derive(clap::Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Change {
    /// Pin this quota, from 1 to the configured resourceMaxQuota (1000)
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) quota: Option<i64>,
    /// Go back to the quota that was registered last
    #[arg(long)]
    pub(crate) unpin: bool,
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
}

/// Claim units of a pool for a token
///
/// All or nothing, in one step. Claiming a token that is held is granted again, with the same fencing
/// number, and takes no unit. Exit status 3 if a limit stops the claim, which is then named.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  tokenpool allocate hive:default job-17 --project flytesnacks --domain development \\
      --execution f3ab --units 2 --project-cap 10")]
pub(crate) struct Allocate {
    #[command(flatten)]
    pub(crate) pool: Pool,
    /// The claim's name within its execution
    pub(crate) token: String,
    /// Project that the execution belongs to
    #[arg(long, value_name = "P")]
    pub(crate) project: String,
    /// Domain of the project
    #[arg(long, value_name = "D")]
    pub(crate) domain: String,
    /// Execution that the token belongs to
    #[arg(long, value_name = "E")]
    pub(crate) execution: String,
    /// Units to claim
    #[arg(long, value_name = "N", default_value_t = 1, allow_negative_numbers = true)]
    pub(crate) units: i64,
    #[command(flatten)]
    pub(crate) caps: Caps,
}

/// Give back what a token holds
///
/// Names the token and its execution, or the member as `get holders` lists it, whoever claimed it.
/// Releasing what is not held succeeds and changes nothing.
#[derive(clap::Args)]
#[command(
    override_usage = "\
tokenpool release [OPTIONS] <NS> <TOKEN> --project <P> --domain <D> --execution <E>
       tokenpool release [OPTIONS] <NS> --member <M>",
    after_help = "\
Examples:
  tokenpool release hive:default job-17 --project flytesnacks --domain development --execution f3ab
  tokenpool release hive:default --member ex:flytesnacks:development:f3ab-job-17"
)]
pub(crate) struct Release {
    #[command(flatten)]
    pub(crate) pool: Pool,
    /// The claim's name within its execution
    #[arg(required_unless_present = "member", requires_all = ["project", "domain", "execution"])]
    pub(crate) token: Option<String>,
    /// Project that the execution belongs to
    #[arg(long, value_name = "P", requires = "token")]
    pub(crate) project: Option<String>,
    /// Domain of the project
    #[arg(long, value_name = "D", requires = "token")]
    pub(crate) domain: Option<String>,
    /// Execution that the token belongs to
    #[arg(long, value_name = "E", requires = "token")]
    pub(crate) execution: Option<String>,
    /// The member: ex:<project>:<domain>:<execution>-<token>
    #[arg(long, value_name = "M", conflicts_with_all = ["token", "project", "domain", "execution"])]
    pub(crate) member: Option<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_command_that_does_something_has_a_description_and_an_example() {
        fn visit(command: &clap::Command) {
            if command.get_subcommands().next().is_some() {
                return command.get_subcommands().for_each(visit);
            }
            let name = command.get_name();
            assert!(command.get_long_about().is_some(), "{name} has no description");
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example") && help.contains(name), "{name}: {help}");
        }
        visit(&Args::command());
    }
}
