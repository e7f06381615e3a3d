//! What an operator does from code: see who holds units, pin another quota, prove the counters.

use tokenpool::{
    AllocationToken, Backend, Claim, Claimant, Config, Cursor, ExecutionId, Holder, Quota,
    QuotaChange, ResourceConstraintsSpec, Revocation,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> tokenpool::Result<()> {
    let config = Config::from_yaml("resourcemanager: {type: memory, resourceMaxQuota: 200}")?;
    let backend: std::sync::Arc<dyn Backend> = config.open().await?;
    let pool = "hive:default".parse()?;
    let quota = |units| Quota::new(units, config.resource_max_quota);
    backend.change_quota(&pool, QuotaChange::Create(quota(100)?)).await?;

    let claimant = Claimant {
        execution: &ExecutionId::new("flytesnacks", "development", "f3ab")?,
        constraints: ResourceConstraintsSpec::NONE,
        holder: &Holder::of_this_process(),
    };
    let token = |name| AllocationToken::new(name).map(Claim::from);
    let claims = [token("f3ab-n0-0")?, token("f3ab-n1-0")?];
    for answer in backend.allocate(&pool, claimant, &claims).await? {
        println!("{}", answer?.status());
    }

    backend.change_quota(&pool, QuotaChange::Pin(quota(1)?)).await?;
    let usage = backend.usage(&pool).await?;
    println!("{} of {} units in use", usage.in_use, usage.quota);
    let why = Revocation::new("ann@console", "shows how")?;
    for holding in backend.holders(&pool, Cursor::default(), 100).await?.holdings {
        println!("held: {}", holding.member);
        backend.revoke(&pool, &holding.member, &why).await?;
    }
    assert!(backend.check(&pool).await?.is_clean());
    Ok(())
}
