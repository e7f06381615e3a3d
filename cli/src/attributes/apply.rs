//! `apply`.

use std::collections::HashSet;

use tokenpool::matchable::{AttributePath, Attributes, Filter, KindName};

use super::changes::{Before, Cause, Changes};
use super::documents::Wanted;
use super::files::{Source, refuse_twice};
use super::kinds::Kinds;
use super::list::{AttributePages, Unread};
use super::store;
use super::update::{Merging, plan};
use crate::args::{Apply, Global};
use crate::error::{Error, Result, Verdict};
use crate::output::Output;

pub(crate) async fn apply(
    global: &Global,
    kinds: &Kinds,
    args: &Apply,
    output: &mut Output,
) -> Result<Verdict> {
    let mut wanted = Vec::new();
    for file in &args.files {
        for source in Source::all(file)? {
            source.read(|document| {
                wanted.push(document.of_named_kind(kinds, args.unchecked)?);
                Ok(())
            })?;
        }
    }
    refuse_twice(wanted.iter().map(Wanted::place))?;
    if wanted.is_empty() {
        // With --prune, a mistyped name would else delete everything.
        let names = args.files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>();
        return Err(Error::Usage(format!(
            "{}: no attributes in *.yaml or *.yml",
            names.join(", ")
        )));
    }
    let named: HashSet<(KindName, AttributePath)> =
        wanted.iter().map(|wanted| (wanted.kind.name().clone(), wanted.path.clone())).collect();

    let all = store::open(global).await?;
    let mut changes = Changes::new(Cause::Apply);
    plan(&all, wanted, Merging::Never, &mut changes).await?;
    let mut unread = Unread::default();
    if args.prune {
        prune(&all, kinds, &named, &mut changes, &mut unread).await?;
    }
    let made = changes.make(args.consent, output).await?;
    Ok(unread.verdict(made))
}

/// Deletes what is set of the kinds and not named.
async fn prune(
    all: &Attributes,
    kinds: &Kinds,
    named: &HashSet<(KindName, AttributePath)>,
    changes: &mut Changes,
    unread: &mut Unread,
) -> Result<()> {
    for kind in kinds.iter() {
        let attributes = all.of_kind(kind.clone());
        let mut pages = AttributePages::new(attributes.clone(), Filter::ALL);
        while let Some(page) = pages.next().await? {
            // What cannot be read and is set by the files is no loss.
            let lost = page.unreadable.iter().filter(|unreadable| {
                let path = unreadable.path.parse::<AttributePath>();
                path.map_or(true, |path| !named.contains(&(kind.name().clone(), path)))
            });
            unread.tell(kind.name(), lost);
            for found in page.found {
                if !named.contains(&(kind.name().clone(), found.path.clone())) {
                    let before = Before::found(found.value, found.version, None);
                    changes.delete(attributes.clone(), found.path, before);
                }
            }
        }
    }
    Ok(())
}
