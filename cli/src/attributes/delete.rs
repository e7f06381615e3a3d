//! `delete <kind>`.

use serde_json::Value;
use tokenpool::matchable::Kind;

use super::changes::{Before, Cause, Changes};
use super::files::{Source, refuse_none, refuse_twice};
use super::kinds::Kinds;
use super::store;
use crate::args::{DeleteAttributes, Global};
use crate::error::{Error, Result, Verdict};
use crate::output::Output;

pub(crate) async fn delete(
    global: &Global,
    kinds: &Kinds,
    kind: &Kind<Value>,
    args: &DeleteAttributes,
    output: &mut Output,
) -> Result<Verdict> {
    let mut paths = Vec::new();
    match (&args.attr_file, args.place.path()?) {
        (Some(file), _) => {
            let mut places = Vec::new();
            Source::named(file).read(|document| {
                places.push(document.place(kind, kinds)?);
                Ok(())
            })?;
            paths.extend(places.iter().map(|place| place.path.clone()));
            refuse_none(file, &places)?;
            refuse_twice(places)?;
        }
        (None, Some(path)) => paths.push(path),
        (None, None) => {
            return Err(Error::Usage(
                "give the place, as --project P, or --attrFile FILE".to_owned(),
            ));
        }
    }
    let all = store::open(global).await?;
    let mut changes = Changes::new(Cause::Delete);
    for path in paths {
        let before = Before::read(&all, kind, &path).await?;
        changes.delete(all.of_kind(kind.clone()), path, before);
    }
    changes.make(args.consent, output).await
}
