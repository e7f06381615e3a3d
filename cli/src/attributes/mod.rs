//! The commands about attributes.

mod apply;
mod changes;
mod consent;
mod delete;
mod documents;
mod export;
mod files;
#[cfg(test)]
mod fuzzing;
mod get;
mod history;
mod kinds;
mod list;
mod node;
mod places;
mod resolve;
mod store;
mod text;
mod update;
mod yaml;

pub(crate) use self::apply::apply;
pub(crate) use self::delete::delete;
pub(crate) use self::documents::FileError;
pub(crate) use self::export::export;
pub(crate) use self::get::get;
pub(crate) use self::kinds::Kinds;
pub(crate) use self::list::list_kinds;
pub(crate) use self::update::update;
