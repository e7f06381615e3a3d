//! Adding a kind of attributes, as in Flyte's "Adding New Customizable Resources": `WORKFLOW_PRIORITY`.
//!
//! This is the whole program. It stores, finds and lists priorities; see `workflow_priority.yaml`:
//!
//! ```sh
//! cargo run --example workflow_priority -- update workflow-priority --attrFile workflow_priority.yaml
//! cargo run --example workflow_priority -- get workflow-priority -p billing -d production app.reports.nightly
//! cargo run --example workflow_priority -- get workflow-priority
//! ```

use std::process::ExitCode;

use serde::{Deserialize, Serialize};
use tokenpool::matchable::{InvalidField, MatchableResource};
use tokenpool_cli::Program;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WorkflowPriority {
    priority: i32,
}

impl MatchableResource for WorkflowPriority {
    const NAME: &'static str = "WORKFLOW_PRIORITY";
    const NUMBER: Option<u32> = Some(10);

    fn validate(&self) -> Result<(), InvalidField> {
        let holds = (0..=9).contains(&self.priority);
        InvalidField::unless(holds, "priority", self.priority, "must be between 0 and 9")
    }
}

fn main() -> ExitCode {
    Program::new().with_kind::<WorkflowPriority>().main()
}
