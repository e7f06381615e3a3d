//! From the command line to the command, and to the exit status.

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use clap::FromArgMatches;
use tokenpool::matchable::{Kind, MatchableResource};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::args::{Args, Command, Create, Delete, Get, OfKind, Update};
use crate::attributes::{self, Kinds};
use crate::error::{Error, Result, Verdict, describe, status};
use crate::output::{Output, tell};
use crate::{
    allocate, audit, explain, holders, pools, release, renew, replay, revocations, tickets,
};

/// The program, with the kinds of attributes that it knows.
#[derive(Debug)]
pub struct Program {
    kinds: tokenpool::Result<Kinds>,
}

impl Program {
    /// With the kinds that the library brings.
    pub fn new() -> Self {
        Self { kinds: Kinds::built_in() }
    }

    /// Also with this one. That its name is none, or is taken, [`main`](Self::main) says before it does anything.
    #[must_use]
    pub fn with_kind<K: MatchableResource>(self) -> Self {
        Self { kinds: self.kinds.and_then(|kinds| kinds.with(Kind::erased::<K>())) }
    }

    /// Does what the command line asks for, and answers with the exit status for it.
    pub fn main(self) -> ExitCode {
        ExitCode::from(self.run())
    }

    fn run(self) -> u8 {
        let kinds = match self.kinds {
            Ok(kinds) => kinds,
            Err(error) => return finish(&Err(error.into())),
        };
        let matches = kinds.command().try_get_matches();
        let args = match matches.and_then(|matches| Args::from_arg_matches(&matches)) {
            Ok(args) => args,
            Err(error) => {
                // Nobody is left to tell if even this cannot be printed.
                let _ = error.print();
                return if error.use_stderr() { 2 } else { 0 };
            }
        };
        log_to_stderr(args.global.verbose);
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        match runtime {
            Ok(runtime) => finish(&runtime.block_on(run(args, &kinds))),
            Err(error) => finish(&Err(Error::Runtime(error))),
        }
    }
}

impl Default for Program {
    fn default() -> Self {
        Self::new()
    }
}

/// Tells why there is no answer, if so.
fn finish(outcome: &Result<Verdict>) -> u8 {
    if let Err(error) = outcome {
        tell(format_args!("error: {}\n", describe(error)));
    }
    status(outcome)
}

async fn run(Args { global, command }: Args, kinds: &Kinds) -> Result<Verdict> {
    let output = &mut Output::new(global.output);
    match command {
        Command::Replay(args) => replay::run(&global, &args, output).await,
        Command::Create(Create::Pool { pool, quota }) => {
            pools::create(&global, &pool, quota, output).await
        }
        Command::Get(OfKind::Other(get)) => match get {
            Get::Pools => pools::list(&global, output).await,
            Get::Pool(pool) => pools::show(&global, &pool, output).await,
            Get::Holders(pool) => holders::list(&global, &pool, output).await,
            Get::Tickets(pool) => tickets::list(&global, &pool, output).await,
            Get::Revocations(args) => revocations::list(&global, &args, output).await,
            Get::Kinds => attributes::list_kinds(&global, kinds, output).await,
            Get::Attributes { kind, args } => {
                attributes::get(&global, &kinds.raw(&kind)?, &args, output).await
            }
        },
        Command::Get(OfKind::Kind { kind, args }) => {
            attributes::get(&global, &kinds.any(&kind)?, &args, output).await
        }
        Command::Update(OfKind::Other(update)) => match update {
            Update::Pool(args) => pools::update(&global, &args, output).await,
            Update::Attributes { kind, unchecked, args } => {
                let kind = if unchecked { kinds.any(&kind) } else { kinds.checked(&kind) };
                attributes::update(&global, kinds, &kind?, &args, output).await
            }
        },
        Command::Update(OfKind::Kind { kind, args }) => {
            attributes::update(&global, kinds, &kinds.checked(&kind)?, &args, output).await
        }
        Command::Delete(OfKind::Other(delete)) => match delete {
            Delete::Pool { pool, force } => pools::delete(&global, &pool, force, output).await,
            Delete::Attributes { kind, args } => {
                attributes::delete(&global, kinds, &kinds.any(&kind)?, &args, output).await
            }
        },
        Command::Delete(OfKind::Kind { kind, args }) => {
            attributes::delete(&global, kinds, &kinds.any(&kind)?, &args, output).await
        }
        Command::Apply(args) => attributes::apply(&global, kinds, &args, output).await,
        Command::Export(args) => attributes::export(&global, kinds, &args, output).await,
        Command::Allocate(args) => allocate::run(&global, &args, output).await,
        Command::Renew(args) => renew::run(&global, &args, output).await,
        Command::Release(args) => release::run(&global, &args, output).await,
        Command::Explain(args) => explain::run(&global, &args, output).await,
        #[cfg(unix)]
        Command::Exec(args) => crate::exec::run(&global, &args).await,
        Command::Check(pool) => audit::check(&global, &pool, output).await,
        Command::Repair(pool) => audit::repair(&global, &pool, output).await,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut kinds.command(), "tokenpool", &mut script);
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
        .with_target(false)
        // What cannot be logged cannot be told in another way either.
        .log_internal_errors(false);
    tracing_subscriber::registry()
        .with(Targets::new().with_target("tokenpool", level))
        .with(layer)
        .init();
}
