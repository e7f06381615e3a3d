//! How fast the memory backend is.

use std::sync::Arc;
use std::time::Instant;

use tokenpool::{
    AllocationStatus, AllocationToken, Claim, ExecutionId, Manager, MemoryBackend, PluginId,
    Registrar, ResourceManager, ResourceNamespace, ResourceRegistrar as _,
};

use crate::Scale;
use crate::calls::{HOLDER, PLUGIN, Token};
use crate::report::{Bound, Figure, Report, median};
use crate::stage::{AMPLE, caps};

pub(crate) const FIGURE: Figure = Figure {
    name: "memory_backend",
    how: "one thread claims and releases a token under two caps through a TaskResourceManager, as a \
          `&dyn ResourceManager`, 1 000 000 times, in a pool with 1000 other holders; median of 7 \
          rounds.",
    run,
};

fn run(scale: Scale, report: &mut Report) {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.expect("a runtime can be made");
    let rate = runtime.block_on(pairs_per_second(scale)).expect("the memory backend can claim");
    let note = format!("{:.0} ns a pair", 1e9 / rate);
    report.row("pairs of claim and release a second", rate, Bound::AtLeast(1e6), &note);
}

async fn pairs_per_second(scale: Scale) -> tokenpool::Result<f64> {
    let registrar = Registrar::with_max_quota(Arc::new(MemoryBackend::new()), u32::MAX)
        .with_holder(HOLDER.parse()?);
    let plugin: PluginId = PLUGIN.parse()?;
    let namespace: ResourceNamespace = "default".parse()?;
    registrar.for_plugin(plugin.clone()).register_resource_quota(&namespace, AMPLE)?;
    let manager: Manager = registrar.build().await?;
    let of = |token: &Token| {
        let execution = ExecutionId::new(&token.project, &token.domain, &token.execution)?;
        Ok::<_, tokenpool::Error>(manager.for_execution(plugin.clone(), execution))
    };
    for token in (1..=1000).map(Token::nth) {
        let claim = Claim::from(AllocationToken::new(&*token.token)?);
        let _ = of(&token)?.allocate(&namespace, claim, caps()).await?;
    }

    let token = Token::nth(0);
    let view = of(&token)?;
    let view: &dyn ResourceManager = &view;
    let token = AllocationToken::new(token.token)?;
    let pairs = scale.pick(1_000_000, 10_000);
    let mut rates = Vec::new();
    for _ in 0..scale.pick(7, 1) {
        let started = Instant::now();
        for _ in 0..pairs {
            let status = view.allocate_resource(&namespace, &token, caps()).await?;
            assert_eq!(status, AllocationStatus::Granted);
            view.release_resource(&namespace, &token).await?;
        }
        rates.push(f64::from(pairs) / started.elapsed().as_secs_f64());
    }
    Ok(median(rates))
}
