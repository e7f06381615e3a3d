//! `update <kind>`.

use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::Value;
use tokenpool::matchable::{Attributes, Kind};

use super::changes::{Before, Cause, Changes};
use super::documents::Wanted;
use super::files::{Source, refuse_none, refuse_twice};
use super::kinds::{Kinds, command_name};
use super::store;
use crate::args::{Global, UpdateAttributes};
use crate::error::{Error, Result, Verdict};
use crate::output::Output;

/// Look-ups at once, so that a thousand documents do not take a thousand round trips.
pub(super) const CALLS_AT_ONCE: usize = 32;

pub(crate) async fn update(
    global: &Global,
    kinds: &Kinds,
    kind: &Kind<Value>,
    args: &UpdateAttributes,
    output: &mut Output,
) -> Result<Verdict> {
    if let Some(version) = args.restore {
        return restore(global, kind, args, version, output).await;
    }
    let Some(file) = &args.attr_file else {
        let name = command_name(kind.name()).replace('-', " ");
        return Err(Error::Usage(format!("attrFile is mandatory while calling update for {name}")));
    };
    let mut wanted = Vec::new();
    Source::named(file).read(|document| {
        wanted.push(document.of_kind(kind, kinds)?);
        Ok(())
    })?;
    refuse_none(file, &wanted)?;
    refuse_twice(wanted.iter().map(Wanted::place))?;
    let all = store::open(global).await?;
    let merging = if args.replace { Merging::Never } else { Merging::AsKindsDo };
    let mut changes = Changes::new(Cause::Update);
    plan(&all, wanted, merging, &mut changes).await?;
    changes.make(args.consent, output).await
}

/// Whether what is wanted is merged over what is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Merging {
    AsKindsDo,
    Never,
}

/// Finds out what would change.
pub(super) async fn plan(
    all: &Attributes,
    wanted: Vec<Wanted>,
    merging: Merging,
    changes: &mut Changes,
) -> Result<()> {
    let read = |wanted: Wanted| async move {
        let before = Before::read(all, &wanted.kind, &wanted.path).await?;
        Ok::<_, Error>((wanted, before))
    };
    let mut all_read = stream::iter(wanted).map(read).buffered(CALLS_AT_ONCE);
    while let Some((wanted, before)) = all_read.try_next().await? {
        let Wanted { at, kind, path, attributes } = wanted;
        let merges = kind.updates_merge() && merging == Merging::AsKindsDo;
        let after = match (&before.value, &before.problem) {
            (_, Some(problem)) if merges => {
                return Err(Error::NotMerged {
                    attributes: format!("{} of {path}", kind.name()),
                    problem: problem.clone(),
                });
            }
            (Some(below), None) if merges => {
                let merged = kind.merge(attributes, below.clone());
                let merged = merged.and_then(|merged| kind.checked(&merged));
                merged.map_err(|error| at.wrong(format!("merged over what is set: {error}")))?
            }
            _ => attributes,
        };
        changes.set(all.of_kind(kind), path, before, after);
    }
    Ok(())
}

async fn restore(
    global: &Global,
    kind: &Kind<Value>,
    args: &UpdateAttributes,
    version: u64,
    output: &mut Output,
) -> Result<Verdict> {
    let place = args.place.path()?;
    let path =
        place.ok_or_else(|| Error::Usage("--restore: needs a place, as --project P".to_owned()))?;
    let all = store::open(global).await?;
    let attributes = all.of_kind(kind.clone());
    let before = Before::read(&all, kind, &path).await?;
    let versions = attributes.history(&path).await?;
    let kept = || {
        // A damaged record has no version.
        let kept = versions.iter().filter(|kept| kept.value.is_some() && kept.version > 0);
        kept.map(|kept| kept.version.to_string()).collect::<Vec<_>>().join(", ")
    };
    let wanted = versions.iter().find(|kept| kept.version == version);
    let value = match wanted.and_then(|wanted| wanted.value.clone()) {
        Some(Ok(value)) => value,
        Some(Err(problem)) => {
            return Err(Error::Usage(format!(
                "--restore: version {version} cannot be read: {problem}"
            )));
        }
        None => {
            return Err(Error::Usage(format!(
                "--restore: invalid version \"{version}\": must be one of those kept: {}",
                kept()
            )));
        }
    };
    let after = kind.checked(&value).map_err(|error| {
        Error::Usage(format!("--restore: version {version} breaks a rule of today: {error}"))
    })?;
    let mut changes = Changes::new(Cause::Update);
    changes.set(attributes, path, before, after);
    changes.make(args.consent, output).await
}
