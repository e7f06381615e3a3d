//! The program as its users run it, against real servers.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod attributes;
mod audit;
mod claims;
#[cfg(unix)]
mod exec;
mod explain;
mod input;
mod operators;
mod pools;
mod program;
mod renew;
mod replay;
mod secrets;
#[allow(dead_code, reason = "the library's tests use all of it")]
#[path = "../../tests/support/server.rs"]
mod server;
mod waiting;
