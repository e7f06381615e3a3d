//! The subtasks of a map task claim their units in one round trip; those refused try again later.

use std::sync::Arc;

use tokenpool::{
    AllocationToken, Claim, ExecutionId, MemoryBackend, Outcome, Registrar,
    ResourceConstraintsSpec, ResourceRegistrar, Result,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let registrar = Registrar::new(Arc::new(MemoryBackend::new()));
    let namespace = "default".parse()?;
    registrar.for_plugin("k8s-array".parse()?).register_resource_quota(&namespace, 4)?;
    let manager = registrar.build().await?;
    let execution = ExecutionId::new("flytesnacks", "development", "f3ab")?;
    let task = manager.for_execution("k8s-array".parse()?, execution);

    let mut waiting = (0..10)
        .map(|i| AllocationToken::new(format!("f3ab-n0-0-{i}")))
        .collect::<Result<Vec<_>>>()?;
    while !waiting.is_empty() {
        let claims: Vec<_> = waiting.iter().cloned().map(Claim::from).collect();
        let none = ResourceConstraintsSpec::NONE;
        let answers = task.allocate_many(&namespace, &claims, none).await?;
        let (mut running, mut refused) = (Vec::new(), Vec::new());
        for (token, answer) in waiting.into_iter().zip(answers) {
            match answer? {
                Outcome::Granted(_) => running.push(token),
                Outcome::Refused(_) => refused.push(token),
            }
        }
        println!("{} subtasks run, {} wait", running.len(), refused.len());
        task.release_many(&namespace, &running).await?;
        waiting = refused;
    }
    Ok(())
}
