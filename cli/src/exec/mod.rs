//! `exec`: holds units while a command runs.

mod command;
mod signals;

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

use tokenpool::{Acquired, Allocation, Claimant, ExecutionId, Holder, Manager, PoolName, Refusal};
use uuid::Uuid;

use self::command::Bereft;
use self::signals::Signals;
use crate::args::{Exec, Global};
use crate::claims::{claim, constraints, wait};
use crate::connect;
use crate::error::{Error, Result, Verdict, describe};
use crate::output::tell;
use crate::waiting::{Asking, Decision};

pub(crate) async fn run(global: &Global, args: &Exec) -> Result<Verdict> {
    let mut signals = Signals::listen().map_err(Error::Signals)?;
    let units = acquire(global, args, &mut signals).await?;
    if let Some(signal) = signals.pending().await {
        give_back(units).await;
        return Err(Error::NotStarted { signal });
    }
    let ended = match command::start(&args.command, &units) {
        Ok(child) => {
            let bereft = if args.keep_running { Bereft::RunsOn } else { Bereft::Ended(args.grace) };
            let status = command::finish(child, &units, &mut signals, bereft).await;
            status.map_err(Error::CommandLost)
        }
        Err(error) => Err(error),
    };
    give_back(units).await;
    ended.map(|status| Verdict::Command(command::status(status)))
}

/// Claims the units, and has their lease renewed from now on.
async fn acquire(global: &Global, args: &Exec, signals: &mut Signals) -> Result<Allocation> {
    let pool = PoolName::new(&*args.pool.namespace)?;
    let execution = execution(args)?;
    let token = args.token.clone().unwrap_or_else(|| Uuid::new_v4().simple().to_string());
    let claim = claim(&token, args.units, Some(args.lease))?;
    let constraints = constraints(args.caps)?;
    let wait = wait(args.waiting)?;
    let config = connect::redis(global)?;
    let backend = tokio::select! {
        backend = config.open() => backend?,
        signal = signals.end() => return Err(Error::NotStarted { signal }),
    };

    let holder = Holder::of_this_process();
    let claimant = Claimant { execution: &execution, constraints, holder: &holder };
    let asking = Asking { backend: &*backend, pool: &pool, claimant, claim: &claim };
    let held_before = match asking.decide(wait, signals.end()).await? {
        Decision::Granted(grant) => grant.held_before,
        Decision::Refused(refusal) => return Err(refused(&refusal, args)),
        Decision::TimedOut(ticket) => {
            return Err(Error::Refused(format!("time is up at {ticket}")));
        }
    };
    // It is held: claiming again gives the guard, and the manager's keeper renews the lease.
    let manager = Manager::attach(Arc::clone(&backend), [pool.clone()], holder.clone());
    match manager.try_acquire(&pool, &execution, claim.clone(), constraints).await {
        Ok(Acquired::Granted(units)) => Ok(units),
        Ok(Acquired::Refused(refusal)) => Err(refused(&refusal, args)),
        Ok(Acquired::TimedOut(ticket)) => Err(Error::Refused(ticket.to_string())),
        Err(error) => {
            if !held_before {
                // Else its lease gives it back.
                let _ = asking.give_up().await;
            }
            Err(error.into())
        }
    }
}

fn refused(refusal: &Refusal, args: &Exec) -> Error {
    Error::Refused(format!("{refusal}, {} wanted", args.units))
}

fn execution(args: &Exec) -> Result<ExecutionId> {
    let Exec { project, domain, .. } = args;
    match &args.execution {
        Some(name) => Ok(ExecutionId::new(project, domain, name)?),
        // Where the command's name cannot be an execution's, this program's is.
        None => ExecutionId::new(project, domain, &command_name(&args.command))
            .or_else(|_| Ok(ExecutionId::new(project, domain, "exec")?)),
    }
}

/// The last part of the command's path.
fn command_name(command: &[OsString]) -> String {
    let program = command.first().map(Path::new).and_then(Path::file_name);
    program.unwrap_or_default().to_string_lossy().into_owned()
}

/// The command's end is what counts: if the units cannot be given back, their lease does it.
async fn give_back(units: Allocation) {
    let (count, pool) = (units.units(), units.pool().clone());
    if let Err(error) = units.release().await {
        let error = describe(&error);
        tell(format_args!("warning: {count} unit(s) of {pool} return with their lease: {error}\n"));
    }
}
