//! Two plugins share scarce services: register quotas, claim a unit, give it back.

use std::sync::Arc;

use tokenpool::{
    ExecutionId, MemoryBackend, Outcome, Registrar, ResourceConstraintsSpec, ResourceRegistrar,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> tokenpool::Result<()> {
    // `Config::from_file(path)?.open().await?` gives the backend of a configuration, such as Redis.
    let registrar = Registrar::new(Arc::new(MemoryBackend::new()));
    let hive = registrar.for_plugin("hive".parse()?);
    hive.register_resource_quota(&"default".parse()?, 2)?;
    let presto = registrar.for_plugin("presto".parse()?);
    presto.register_resource_quota(&"adhoc".parse()?, 100)?;
    let manager = registrar.build().await?;

    // At most one unit for each project, whatever the quota has left.
    let caps = ResourceConstraintsSpec::new(Some(1), None)?;
    let namespace = "default".parse()?;
    for (project, name) in [("flytesnacks", "a"), ("flytesnacks", "b"), ("flyte", "c")] {
        let execution = ExecutionId::new(project, "development", name)?;
        let task = manager.for_execution("hive".parse()?, execution);
        let token: tokenpool::AllocationToken = format!("{name}-n0-0").parse()?;
        match task.allocate(&namespace, token.clone(), caps).await? {
            Outcome::Granted(grant) => println!("{project}/{name}: granted {} unit", grant.units),
            Outcome::Refused(refusal) => println!("{project}/{name}: refused, {refusal}"),
        }
    }
    Ok(())
}
