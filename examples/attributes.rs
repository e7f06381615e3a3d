//! A kind of attributes of one's own: stored, found and listed from code.
//!
//! `cli/examples/workflow_priority.rs` gives the same kind to the command line.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokenpool::Holder;
use tokenpool::matchable::{AttributePath, Attributes, Expected, Filter};
use tokenpool::matchable::{InvalidField, MatchableResource, MemoryAttributeStore};

#[derive(Clone, Debug, Serialize, Deserialize)]
struct WorkflowPriority {
    priority: i32,
}

impl MatchableResource for WorkflowPriority {
    const NAME: &'static str = "WORKFLOW_PRIORITY";

    fn validate(&self) -> Result<(), InvalidField> {
        let holds = (0..=9).contains(&self.priority);
        InvalidField::unless(holds, "priority", self.priority, "must be between 0 and 9")
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> tokenpool::Result<()> {
    let store = Arc::new(MemoryAttributeStore::new()); // or a `RedisAttributeStore`
    let priorities = Attributes::new(store, Holder::of_this_process()).of::<WorkflowPriority>();
    let domain = AttributePath::project_domain("billing", "production")?;
    priorities.update(&domain, WorkflowPriority { priority: 3 }, Expected::Absent).await?;
    let workflow = AttributePath::workflow("billing", "production", "app.reports.nightly")?;
    let found = priorities.get_resource(&workflow).await?;
    println!("{workflow} has priority {}, inherited from {}", found.value.priority, found.path);
    for found in priorities.list(&Filter::ALL, None, 100).await?.found {
        println!("{}: {}, version {}", found.path, found.value.priority, found.version);
    }
    Ok(())
}
