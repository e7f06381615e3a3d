//! The attributes in the Redis that the options name.

use serde_json::Value;
use tokenpool::Holder;
use tokenpool::matchable::{Attributes, AttributesOf, Kind};

use crate::args::Global;
use crate::connect;
use crate::error::Result;
use crate::operator::this_operator;

/// Connects. What is written is written in the name of whoever uses the program.
pub(super) async fn open(global: &Global) -> Result<Attributes> {
    let store = connect::redis(global)?.open_attributes().await?;
    let by = Holder::new(this_operator()).unwrap_or_else(|_| Holder::of_this_process());
    Ok(Attributes::new(store, by))
}

/// Connects, and answers with the attributes of one kind.
pub(super) async fn open_kind(global: &Global, kind: &Kind<Value>) -> Result<AttributesOf<Value>> {
    Ok(open(global).await?.of_kind(kind.clone()))
}
