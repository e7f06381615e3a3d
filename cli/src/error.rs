//! What a command comes to, and the exit status for it.

use std::error::Error as StdError;
use std::io;
use std::path::PathBuf;

use crate::attributes::FileError;
use crate::output::one_line;
use crate::replay::LogError;

/// The result of every fallible step.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// How a command ended that has printed its answer.
#[derive(Clone, Copy)]
pub(crate) enum Verdict {
    /// Done, granted, or in order.
    Done,
    /// Refused, or not in order.
    Refused,
    /// Part of the work failed, which was reported.
    Failed,
    /// A command ran to its end, which is this program's.
    Command(u8),
}

/// Why a command has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Library(#[from] tokenpool::Error),
    /// An option's value breaks a rule of the library.
    #[error("{option}")]
    Option { option: &'static str, source: tokenpool::Error },
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("cannot write the output")]
    Output(#[source] io::Error),
    #[error("{}: cannot be drawn into", file.display())]
    Plot { file: PathBuf, source: Box<dyn StdError + Send + Sync> },
    #[error("cannot watch for signals")]
    Signals(#[source] io::Error),
    /// The replay was stopped; what it held is given back.
    #[error("interrupted; all units were given back")]
    Interrupted { signal: u8 },
    #[error("interrupted while waiting; the ticket is withdrawn")]
    WaitInterrupted { signal: u8 },
    /// `exec` was called off before there was a command to pass the signal on to.
    #[error("interrupted before the command was started; nothing is held")]
    NotStarted { signal: u8 },
    /// `exec` has no units to hold.
    #[error("refused: {0}")]
    Refused(String),
    #[error("{command}: command not found")]
    CommandNotFound { command: String },
    #[error("{command}: cannot be run")]
    CommandNotRun { command: String, source: io::Error },
    #[error("the command's end cannot be awaited")]
    CommandLost(#[source] io::Error),
    /// The replay could not give back what it held.
    #[error(
        "execution {run:?} may still hold units of {pool}: see `tokenpool get holders {pool}` and \
         give them back with `tokenpool release {pool} --member ... --force --reason ...`"
    )]
    NotGivenBack { run: String, pool: tokenpool::PoolName, source: Box<tokenpool::Error> },
    /// The backend lost units: none is held, nobody else can hold any, and yet claims are refused.
    #[error("jobs wait although no unit of the pool is held")]
    Stuck,
    #[error("a replica of the replay ended before its time")]
    ReplicaLost,
    #[error("cannot start")]
    Runtime(#[source] io::Error),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("unable to read from {} yaml file", file.display())]
    UnreadableFile { file: PathBuf, source: io::Error },
    /// Attributes of a kind that the program does not know, in a form that files do not have.
    #[error("{attributes} cannot be written as a file: {problem}")]
    NoDocument { attributes: String, problem: String },
    #[error("{}: cannot be written", file.display())]
    NotWritten { file: PathBuf, source: io::Error },
    #[error("error dumping in file due to open {}", file.display())]
    NotDumped { file: PathBuf, source: io::Error },
    #[error("error dumping in file due to backup the file before continuing")]
    NotOverwritten,
    #[error("the answer cannot be read")]
    Question(#[source] io::Error),
    /// Somebody said no to what would be changed.
    #[error("{0} aborted by user")]
    Aborted(String),
    #[error(
        "{attributes} cannot be read, so nothing is merged over it: {problem}; --replace replaces it"
    )]
    NotMerged { attributes: String, problem: String },
    /// Attributes of several places were to be changed.
    #[error("after {made} of {of} changes")]
    HalfWay { made: usize, of: usize, source: tokenpool::Error },
}

/// The exit status, for every command. The command line's own errors have 2, too.
pub(crate) fn status(outcome: &Result<Verdict>) -> u8 {
    use tokenpool::Error::{NotFound, PoolExists, PoolInUse, Stale};
    match outcome {
        Ok(Verdict::Done) => 0,
        Ok(Verdict::Refused) => 3,
        Ok(Verdict::Failed) => 1,
        Ok(Verdict::Command(status)) => *status,
        Err(Error::Refused(_)) => 3,
        Err(Error::CommandNotRun { .. }) => 126,
        Err(Error::CommandNotFound { .. }) => 127,
        Err(Error::Library(
            PoolExists { .. } | PoolInUse { .. } | NotFound { .. } | Stale { .. },
        )) => 3,
        Err(Error::HalfWay { source: Stale { .. }, .. }) => 3,
        Err(Error::Aborted(_) | Error::NotOverwritten) => 3,
        Err(Error::File(_) | Error::UnreadableFile { .. }) => 2,
        Err(Error::Library(error)) if error.is_invalid() => 2,
        Err(Error::Option { .. } | Error::Usage(_) | Error::Log(_)) => 2,
        Err(
            Error::Interrupted { signal }
            | Error::WaitInterrupted { signal }
            | Error::NotStarted { signal },
        ) => 128 + signal,
        Err(_) => 1,
    }
}

/// An error and its causes, on one line.
pub(crate) fn describe(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Some errors repeat their cause.
        let words = error.to_string();
        if !text.contains(&words) {
            text += ": ";
            text += &words;
        }
        cause = error.source();
    }
    one_line(&text).into_owned()
}
