//! The program `tokenpool`: replays job logs against shared quotas, and lets an operator see and
//! change them.

mod allocate;
mod args;
mod audit;
mod claims;
mod connect;
mod error;
#[cfg(unix)]
mod exec;
mod explain;
mod format;
mod holders;
mod output;
mod pages;
mod pools;
mod release;
mod renew;
mod replay;
mod revocations;
mod stop;
mod tickets;
mod waiting;

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::args::{Args, Command, Create, Delete, Get, Update};
use crate::error::{Result, Verdict, describe, status};
use crate::output::Output;

#[tokio::main]
async fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Nobody is left to tell if even this cannot be printed.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    log_to_stderr(args.global.verbose);
    let outcome = run(args).await;
    if let Err(error) = &outcome {
        eprintln!("error: {}", describe(error));
    }
    ExitCode::from(status(&outcome))
}

async fn run(Args { global, command }: Args) -> Result<Verdict> {
    let output = &mut Output::new(global.output);
    match command {
        Command::Replay(args) => replay::run(&global, &args, output).await,
        Command::Create(Create::Pool { pool, quota }) => {
            pools::create(&global, &pool, quota, output).await
        }
        Command::Get(Get::Pools) => pools::list(&global, output).await,
        Command::Get(Get::Pool(pool)) => pools::show(&global, &pool, output).await,
        Command::Get(Get::Holders(pool)) => holders::list(&global, &pool, output).await,
        Command::Get(Get::Tickets(pool)) => tickets::list(&global, &pool, output).await,
        Command::Get(Get::Revocations(args)) => revocations::list(&global, &args, output).await,
        Command::Update(Update::Pool(args)) => pools::update(&global, &args, output).await,
        Command::Delete(Delete::Pool { pool, force }) => {
            pools::delete(&global, &pool, force, output).await
        }
        Command::Allocate(args) => allocate::run(&global, &args, output).await,
        Command::Renew(args) => renew::run(&global, &args, output).await,
        Command::Release(args) => release::run(&global, &args, output).await,
        Command::Explain(args) => explain::run(&global, &args, output).await,
        #[cfg(unix)]
        Command::Exec(args) => exec::run(&global, &args).await,
        Command::Check(pool) => audit::check(&global, &pool, output).await,
        Command::Repair(pool) => audit::repair(&global, &pool, output).await,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "tokenpool", &mut script);
            output.write(&String::from_utf8_lossy(&script))?;
            Ok(Verdict::Done)
        }
    }
}

/// Only this project's own events: what other crates log of an address is not theirs to judge.
fn log_to_stderr(verbose: u8) {
    let level = match verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false);
    tracing_subscriber::registry()
        .with(Targets::new().with_target("tokenpool", level))
        .with(layer)
        .init();
}
