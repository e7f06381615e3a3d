//! Options of the commands about claims.

use std::ffi::OsString;
use std::time::Duration;

use super::Pool;

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

/// Which execution a token belongs to.
#[derive(clap::Args)]
pub(crate) struct Identity {
    /// Project that the execution belongs to
    #[arg(short, long, value_name = "P")]
    pub(crate) project: String,
    /// Domain of the project
    #[arg(short, long, value_name = "D")]
    pub(crate) domain: String,
    /// Execution that the token belongs to
    #[arg(long, value_name = "E")]
    pub(crate) execution: String,
}

/// Whether and how a claim waits.
#[derive(clap::Args, Clone, Copy)]
pub(crate) struct Waiting {
    /// Wait for the units, at most this long [without a value: as long as it takes]
    #[arg(
        long,
        value_name = "DURATION",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = FOREVER,
        value_parser = patience
    )]
    pub(crate) wait: Option<Patience>,
    /// Urgency from 0 to 9, the most urgent, in a pool of that order [default: 0]
    #[arg(long, value_name = "N", requires = "wait", allow_negative_numbers = true)]
    pub(crate) priority: Option<i64>,
}

const FOREVER: &str = "forever";

/// How long a claim waits.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Patience {
    Forever,
    Within(Duration),
}

fn patience(text: &str) -> Result<Patience, String> {
    match text {
        FOREVER => Ok(Patience::Forever),
        limit => duration(limit).map(Patience::Within),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_| "must be a duration such as 500ms, 30s or 2h".to_owned())
}

/// Claim units of a pool for a token
///
/// All or nothing, in one step. Claiming a token that is held is granted again, with the same fencing
/// number, and takes no unit. Exit status 3 if a limit stops the claim, which is then named.
///
/// What was granted stays held when the program ends: until `release`, or until the lease is over
/// unless `renew` or the same claim renews it. While it waits, Ctrl-C withdraws its ticket.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tokenpool allocate hive:default job-17 --project flytesnacks --domain development \\
      --execution f3ab --units 2 --project-cap 10
  tokenpool allocate hive:default job-17 -p flytesnacks -d development --execution f3ab \\
      --lease 10m --wait=1h")]
pub(crate) struct Allocate {
    #[command(flatten)]
    pub(crate) pool: Pool,
    /// The claim's name within its execution
    pub(crate) token: String,
    #[command(flatten)]
    pub(crate) identity: Identity,
    /// Units to claim
    #[arg(long, value_name = "N", default_value_t = 1, allow_negative_numbers = true)]
    pub(crate) units: i64,
    /// The units return by themselves after this time, 100ms to 7days [default: never]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) lease: Option<Duration>,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
    #[command(flatten)]
    pub(crate) caps: Caps,
}

/// Renew the leases of tokens, and the tickets of those that wait
///
/// Says of each token whether it is held, waits, or is lost: its lease was over, or somebody released
/// it. What is held without a lease gets none. Exit status 3 if a token is lost.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  tokenpool renew hive:default job-17 job-18 --lease 10m -p flytesnacks -d development \\
      --execution f3ab")]
pub(crate) struct Renew {
    #[command(flatten)]
    pub(crate) pool: Pool,
    /// The claims' names within their execution
    #[arg(required = true, value_name = "TOKEN")]
    pub(crate) tokens: Vec<String>,
    /// They end this long from now, 100ms to 7days
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) lease: Duration,
    #[command(flatten)]
    pub(crate) identity: Identity,
}

/// Give back what a token holds, or withdraw its ticket
///
/// Releasing what is not held succeeds and changes nothing.
///
/// --force takes the units or the ticket away as an operator, whoever claimed them, and writes down
/// who did so and why: see `get revocations`. It also takes the member as `get holders` and
/// `get tickets` list it, of whatever form.
#[derive(clap::Args)]
#[command(
    override_usage = "\
tokenpool release [OPTIONS] <NS> <TOKEN> --project <P> --domain <D> --execution <E>
       tokenpool release [OPTIONS] <NS> --member <M> --force --reason <TEXT>",
    after_help = "\
Examples:
  tokenpool release hive:default job-17 --project flytesnacks --domain development --execution f3ab
  tokenpool release hive:default --member ex:flytesnacks:development:f3ab-job-17 --force \\
      --reason 'its node is gone'"
)]
pub(crate) struct Release {
    #[command(flatten)]
    pub(crate) pool: Pool,
    /// The claim's name within its execution
    #[arg(required_unless_present = "member", requires_all = ["project", "domain", "execution"])]
    pub(crate) token: Option<String>,
    /// Project that the execution belongs to
    #[arg(short, long, value_name = "P", requires = "token")]
    pub(crate) project: Option<String>,
    /// Domain of the project
    #[arg(short, long, value_name = "D", requires = "token")]
    pub(crate) domain: Option<String>,
    /// Execution that the token belongs to
    #[arg(long, value_name = "E", requires = "token")]
    pub(crate) execution: Option<String>,
    /// The member: ex:<project>:<domain>:<execution>-<token>
    #[arg(
        long,
        value_name = "M",
        requires = "force",
        conflicts_with_all = ["token", "project", "domain", "execution"]
    )]
    pub(crate) member: Option<String>,
    /// Take it away as an operator, whoever claimed it
    #[arg(long, requires = "reason")]
    pub(crate) force: bool,
    /// Why, for the record
    #[arg(long, value_name = "TEXT", requires = "force")]
    pub(crate) reason: Option<String>,
    /// Who, for the record [default: <user>@<host>]
    #[arg(long, value_name = "NAME", requires = "force")]
    pub(crate) operator: Option<String>,
}

/// Answer why a token waits
///
/// Shows its position, the limit that stops it, its caps and the rule that gave each, who holds units
/// under that limit (the oldest first), who stands before it, and when something ends by itself. Of a token that is held or unknown it
/// says so, and who took it away if an operator did. Changes nothing.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  tokenpool explain hive:default job-17 -p flytesnacks -d development --execution f3ab")]
pub(crate) struct Explain {
    #[command(flatten)]
    pub(crate) pool: Pool,
    /// The claim's name within its execution
    pub(crate) token: String,
    #[command(flatten)]
    pub(crate) identity: Identity,
    /// Workflow of the execution, for the rules that are set for it
    #[arg(long, value_name = "W")]
    pub(crate) workflow: Option<String>,
    /// Launch plan of the execution, for the rules that are set for it
    #[arg(long, value_name = "L", requires = "workflow")]
    pub(crate) launch_plan: Option<String>,
}

/// List what operators took away from a pool, and why
///
/// The latest first. About the last thousand are kept.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  tokenpool get revocations hive:default --last 20")]
pub(crate) struct Revocations {
    #[command(flatten)]
    pub(crate) pool: Pool,
    /// Most to list
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1000,
        value_parser = clap::value_parser!(u16).range(1..=2000),
        allow_negative_numbers = true
    )]
    pub(crate) last: u16,
}

/// Hold units of a pool while a command runs
///
/// Claims the units, runs the command, renews the lease while it runs, and gives the units back
/// however it ends. Signals (TERM, HUP, USR1, USR2, and INT and QUIT unless it runs in the foreground of
/// a terminal, where the command gets them anyway) are passed on to the command, and its exit status is
/// handed on: 128+n if signal n killed it, 127 if there is no such command, 126 if it
/// cannot be run. Exit status 3 if the units are not free, or not within the time to wait.
///
/// If the lease is lost, because Redis could not be reached for its whole length or an operator took
/// the units away, the command is ended by TERM, and by KILL after --grace.
///
/// The command finds the grant's fencing number in TOKENPOOL_FENCING, for what the units protect to
/// refuse whoever comes with a smaller one; and its names in TOKENPOOL_NAMESPACE and TOKENPOOL_TOKEN.
#[derive(clap::Args)]
#[command(
    override_usage = "tokenpool exec [OPTIONS] <NS> -- <COMMAND> [ARGS]...",
    after_help = "\
Examples:
  tokenpool exec hive:default --wait -- hive -f report.sql
  tokenpool exec licence:matlab --units 2 --wait=10m -p research -d production -- ./simulate"
)]
pub(crate) struct Exec {
    #[command(flatten)]
    pub(crate) pool: Pool,
    /// Units to hold
    #[arg(long, value_name = "N", default_value_t = 1, allow_negative_numbers = true)]
    pub(crate) units: i64,
    /// The units return after this time if this program cannot renew it, 100ms to 7days
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "30s")]
    pub(crate) lease: Duration,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
    /// Project to which the units count
    #[arg(short, long, value_name = "P", default_value = "tokenpool")]
    pub(crate) project: String,
    /// Domain of the project
    #[arg(short, long, value_name = "D", default_value = "exec")]
    pub(crate) domain: String,
    /// Execution that the token belongs to [default: the command's name]
    #[arg(long, value_name = "E")]
    pub(crate) execution: Option<String>,
    /// The claim's name within its execution [default: one that nobody else has]
    #[arg(long, value_name = "T")]
    pub(crate) token: Option<String>,
    #[command(flatten)]
    pub(crate) caps: Caps,
    /// Time from TERM to KILL when the lease is lost
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "10s")]
    pub(crate) grace: Duration,
    /// Let the command run on when the lease is lost
    #[arg(long, conflicts_with = "grace")]
    pub(crate) keep_running: bool,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}
