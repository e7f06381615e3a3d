//! What can go wrong, by what the caller can do about it.

use std::error::Error as StdError;

use crate::matchable::{AttributePath, Expected, KindName};
use crate::name::{Member, PoolName};
use crate::outcome::Limit;

/// The result of every fallible call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call has no answer: the request is wrong, or the answer is unknown.
///
/// A refused claim is not an error but an [`Outcome`](crate::Outcome). No message contains a
/// password.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument breaks a rule. Nothing was sent to the backend.
    #[error("invalid {field} {value:?}: {rule}")]
    InvalidArgument {
        /// The argument, as the documentation calls it.
        field: &'static str,
        /// What was given.
        value: String,
        /// The rule it breaks.
        rule: String,
    },
    /// The configuration cannot be used.
    #[error("invalid configuration: {key}: {problem}")]
    Configuration {
        /// The key, as a path from the root of the document, or the file.
        key: String,
        /// What is wrong with it and what is allowed.
        problem: String,
    },
    /// The namespace was registered before with this registrar.
    #[error("resource namespace {pool} is registered already")]
    AlreadyRegistered {
        /// The pool.
        pool: PoolName,
    },
    /// The registrar's manager was built; its table of quotas is frozen.
    #[error("cannot register {pool}: the manager was built already")]
    RegistrationClosed {
        /// The pool.
        pool: PoolName,
    },
    /// No such pool: never registered with this manager, or not known to the backend.
    #[error("unknown resource namespace {pool}: no quota was registered for it")]
    UnknownNamespace {
        /// The pool.
        pool: PoolName,
    },
    /// The token is held with other units or by another execution; the holder keeps it.
    #[error("token is held already as {member} with {held_units} unit(s) by execution {held_by:?}")]
    Conflict {
        /// The member under which it is held.
        member: Member,
        /// Units the holder has.
        held_units: u64,
        /// Name of the execution that holds it.
        held_by: String,
    },
    /// The claim asks for more units than it could ever get, so that waiting is in vain.
    #[error("{units} unit(s) of {pool} can never be granted: the {limit} is {size}")]
    NeverGranted {
        /// The pool.
        pool: PoolName,
        /// Units asked for.
        units: u64,
        /// The limit that is too small.
        limit: Limit,
        /// Its size in units.
        size: u64,
    },
    /// Another writer put the token into the pool, so it has no lease to renew.
    #[error(
        "{member} was put into the pool by another writer; claim it, or repair the pool, to adopt it"
    )]
    Foreign {
        /// The member.
        member: Member,
    },
    /// The pool exists already and was left as it is.
    #[error("pool {pool} exists already with quota {quota}")]
    PoolExists {
        /// The pool.
        pool: PoolName,
        /// Its quota.
        quota: u64,
    },
    /// The pool has grants and was left as it is.
    #[error("pool {pool} is in use: {holders} holder(s) with {units} unit(s)")]
    PoolInUse {
        /// The pool.
        pool: PoolName,
        /// Number of holders.
        holders: u64,
        /// Units they hold.
        units: u64,
    },
    /// The pool changed during every attempt to read a consistent state of it. Retryable.
    #[error("pool {pool} changed during each of {attempts} attempts to read it whole")]
    Busy {
        /// The pool.
        pool: PoolName,
        /// How often it was tried.
        attempts: u32,
    },
    /// A key of the pool holds somebody else's data; nothing was changed.
    #[error("key {key:?} holds a {found} where this library keeps a {expected}")]
    WrongType {
        /// The key.
        key: String,
        /// The type this library keeps there.
        expected: &'static str,
        /// The type found.
        found: String,
    },
    /// The pool was written by a newer version of this library; nothing was changed.
    #[error("pool {pool} has schema {found}; this version understands schema {supported}")]
    NewerSchema {
        /// The pool.
        pool: PoolName,
        /// Version of the pool's schema.
        found: String,
        /// Newest version this library understands.
        supported: u32,
    },
    /// Attributes break a rule of their kind. Nothing was stored.
    #[error("invalid {kind}: {}", field_value_rule(.field, .value, .rule))]
    InvalidAttributes {
        /// Their kind.
        kind: KindName,
        /// The field, as a path like `overrides[2].task_type`; empty if it is the whole.
        field: String,
        /// What it holds.
        value: String,
        /// The rule it breaks.
        rule: String,
    },
    /// No attributes are set at a path, nor anywhere above it if those were asked for, too.
    #[error("{}", not_found(.kind, .path))]
    NotFound {
        /// Their kind.
        kind: KindName,
        /// What was asked for.
        path: AttributePath,
    },
    /// Attributes have another version than the one that was to be changed. Nothing was changed.
    #[error("{kind} of {path} {}", stale(.expected, .found))]
    Stale {
        /// Their kind.
        kind: KindName,
        /// Where they are set.
        path: AttributePath,
        /// The version that was to be changed.
        expected: Expected,
        /// Their version; none if there are none.
        found: Option<u64>,
    },
    /// Stored attributes cannot be read: somebody else wrote them, or a version of their kind that had other fields.
    #[error("{kind} of {path} cannot be read: {problem}")]
    Unreadable {
        /// Their kind.
        kind: KindName,
        /// Where they are stored.
        path: String,
        /// What is wrong with them.
        problem: String,
    },
    /// The server cannot be reached, did not answer in time, or is not ready. Retryable: repeating
    /// the same call is safe and is the remedy.
    #[error("{operation}: {server} is not available")]
    Unavailable {
        /// What was asked for.
        operation: &'static str,
        /// Address of the server, without credentials.
        server: String,
        /// Why.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The claim was granted, but too few replicas had it in time: `redis.minReplicas`. What this call granted was given
    /// back; what the token held before, it still holds. Retryable.
    #[error("not acknowledged: {have} of {wanted} replicas have the grant of {pool}")]
    NotAcknowledged {
        /// The pool.
        pool: PoolName,
        /// Replicas that have the grant.
        have: u64,
        /// Replicas that must have it.
        wanted: u64,
    },
    /// The server refused what this library sent, for example for lack of permission or memory.
    #[error("{operation}: {server} refused")]
    Server {
        /// What was asked for.
        operation: &'static str,
        /// Address of the server, without credentials.
        server: String,
        /// Its words.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The server answered something this version does not understand.
    #[error("{operation}: unexpected reply {reply:?}")]
    Protocol {
        /// What was asked for.
        operation: &'static str,
        /// What came back.
        reply: String,
    },
}

impl Error {
    /// Whether the same call may succeed when it is repeated unchanged.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::NotAcknowledged { .. } | Self::Busy { .. })
    }

    /// Whether the caller asked for something that breaks a rule, so that nothing was attempted.
    pub fn is_invalid(&self) -> bool {
        matches!(
            self,
            Self::InvalidArgument { .. }
                | Self::Configuration { .. }
                | Self::AlreadyRegistered { .. }
                | Self::RegistrationClosed { .. }
                | Self::UnknownNamespace { .. }
                | Self::Conflict { .. }
                | Self::NeverGranted { .. }
                | Self::Foreign { .. }
                | Self::InvalidAttributes { .. }
        )
    }

    /// The code of the same case in gRPC, as a service like FlyteAdmin would answer it.
    pub fn code(&self) -> Code {
        match self {
            Self::InvalidArgument { .. }
            | Self::Configuration { .. }
            | Self::NeverGranted { .. }
            | Self::InvalidAttributes { .. } => Code::InvalidArgument,
            Self::UnknownNamespace { .. } | Self::NotFound { .. } => Code::NotFound,
            Self::AlreadyRegistered { .. } | Self::PoolExists { .. } => Code::AlreadyExists,
            Self::RegistrationClosed { .. }
            | Self::Conflict { .. }
            | Self::Foreign { .. }
            | Self::PoolInUse { .. }
            | Self::NewerSchema { .. } => Code::FailedPrecondition,
            Self::Stale { .. } | Self::Busy { .. } => Code::Aborted,
            Self::Unavailable { .. } | Self::NotAcknowledged { .. } => Code::Unavailable,
            Self::WrongType { .. }
            | Self::Unreadable { .. }
            | Self::Server { .. }
            | Self::Protocol { .. } => Code::Internal,
        }
    }

    pub(crate) fn invalid(
        field: &'static str,
        value: impl ToString,
        rule: impl Into<String>,
    ) -> Self {
        Self::InvalidArgument { field, value: value.to_string(), rule: rule.into() }
    }
}

/// The codes of gRPC that errors correspond to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Code {
    /// The request breaks a rule.
    InvalidArgument = 3,
    /// There is no such thing.
    NotFound = 5,
    /// There is such a thing already.
    AlreadyExists = 6,
    /// The state of things does not allow it.
    FailedPrecondition = 9,
    /// Somebody else came first; read again before repeating it.
    Aborted = 10,
    /// What is stored or answered cannot be understood.
    Internal = 13,
    /// No answer; repeat it.
    Unavailable = 14,
}

fn field_value_rule(field: &str, value: &str, rule: &str) -> String {
    match (field, value) {
        ("" | ".", _) => rule.to_owned(),
        (field, "") => format!("{field}: {rule}"),
        (field, value) => format!("{field} {value:?}: {rule}"),
    }
}

/// In the words of FlyteAdmin, which its clients know.
fn not_found(kind: &KindName, path: &AttributePath) -> String {
    let [project, domain] =
        [path.project_name(), path.domain_name()].map(Option::unwrap_or_default);
    let [workflow, launch_plan] =
        [path.workflow_name(), path.launch_plan_name()].map(Option::unwrap_or_default);
    format!(
        "Resource [{{Project:{project} Domain:{domain} Workflow:{workflow} LaunchPlan:{launch_plan} ResourceType:{kind}}}] not found"
    )
}

fn stale(expected: &Expected, found: &Option<u64>) -> String {
    let found = match found {
        Some(version) => format!("has version {version}"),
        None => "is not set".to_owned(),
    };
    match expected {
        Expected::Any => format!("{found} and keeps changing"),
        Expected::Absent => format!("{found}, and was expected not to be set"),
        Expected::Version(version) => format!("{found}, not {version}"),
    }
}
