//! The program `tokenpool`, also for kinds of attributes of your own.
//!
//! The program replays job logs against shared quotas, and lets an operator see and change them and the attributes of
//! projects, domains, workflows and launch plans. A program of a few lines has all of its commands for further kinds, whose
//! rules hold and whose merging is done, as for those that the library brings:
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! use serde::{Deserialize, Serialize};
//! use tokenpool::matchable::{InvalidField, MatchableResource};
//! use tokenpool_cli::Program;
//!
//! #[derive(Clone, Debug, Serialize, Deserialize)]
//! #[serde(deny_unknown_fields)]
//! struct WorkflowPriority {
//!     priority: i32,
//! }
//!
//! impl MatchableResource for WorkflowPriority {
//!     const NAME: &'static str = "WORKFLOW_PRIORITY";
//!
//!     fn validate(&self) -> Result<(), InvalidField> {
//!         InvalidField::unless((0..=9).contains(&self.priority), "priority", self.priority, "must be between 0 and 9")
//!     }
//! }
//!
//! fn main() -> ExitCode {
//!     Program::new().with_kind::<WorkflowPriority>().main() // has `get workflow-priority` and so on
//! }
//! ```

#![warn(clippy::print_stderr)] // it panics where nobody can read it

mod allocate;
mod args;
mod attributes;
mod audit;
mod claims;
mod connect;
mod error;
#[cfg(unix)]
mod exec;
mod explain;
mod format;
mod holders;
mod operator;
mod output;
mod pages;
mod pools;
mod program;
mod release;
mod renew;
mod replay;
mod revocations;
mod stop;
mod tickets;
mod waiting;

pub use program::Program;
