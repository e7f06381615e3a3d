//! The backend that shares pools between processes through Redis.

mod acknowledged;
mod address;
mod attributes;
mod audit;
mod claims;
mod cluster;
mod combiner;
mod connect;
mod connection;
mod info;
mod keys;
mod link;
mod listeners;
mod node;
mod operate;
mod permission;
mod pools;
mod reign;
mod remote;
mod replicas;
mod reply;
mod scripts;
mod sentinel;
mod slot;
mod tracking;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use redis::Value;

use self::connect::Connections;
use self::keys::{POOLS, pool_of_key};
use self::remote::{RemotePool, command_on_set, unexpected};
use crate::backend::Backend;
use crate::claim::{Claim, Claimant, Joint};
use crate::config::RedisConfig;
use crate::counters::Counters;
use crate::error::Result;
use crate::execution::ExecutionId;
use crate::name::{AllocationToken, Member, PoolName};
use crate::outcome::{FencingNumber, JointOutcome, Outcome, Released};
use crate::pool::{
    CheckReport, Cursor, Deletion, HoldingsPage, PoolQuota, PoolUsage, QuotaChange, RepairReport,
    Revocation, RevocationRecord,
};
use crate::ticket::{Inbox, QueueChange, Renewal, Renewed, TicketRequest, TicketsPage, Turn};

pub(crate) use self::address::check_address;
pub use self::attributes::RedisAttributeStore;

/// Keeps pools in Redis, in the schema of `lua/README.md`.
///
/// Each claim and each release is one command and one round trip on connections that all calls share. Once in a process it
/// takes another for a script that the server does not know, and for a pool in which others wait or leases end. Those of one
/// token that several callers make at once in one pool share one command; each is answered as if it had been alone.
#[derive(Debug)]
pub struct RedisBackend {
    connections: Arc<Connections>,
    config: RedisConfig,
}

impl RedisBackend {
    /// Connects to the server.
    ///
    /// # Errors
    ///
    /// [`Configuration`](crate::Error::Configuration) if the address cannot be used, [`Unavailable`](crate::Error::Unavailable) if the server
    /// cannot be reached within the configured time.
    ///
    /// # Cancel safety
    ///
    /// Nothing is left behind if the future is dropped.
    pub async fn connect(config: &RedisConfig) -> Result<Self> {
        Ok(Self { connections: Arc::new(Connections::open(config).await?), config: config.clone() })
    }

    /// The attributes on the same server, over the same connections.
    pub fn attributes(&self) -> RedisAttributeStore {
        RedisAttributeStore::on(Arc::clone(&self.connections))
    }

    /// Address of the server, without credentials.
    pub fn server(&self) -> &str {
        self.connections.server()
    }

    fn pool<'a>(&'a self, name: &'a PoolName) -> RemotePool<'a> {
        RemotePool::new(&self.connections, name)
    }

    /// A command on the list of pools.
    async fn list(&self, command: &'static str, member: Option<&str>) -> Result<Value> {
        command_on_set(&self.connections, command, POOLS, member).await
    }
}

#[async_trait]
impl Backend for RedisBackend {
    fn id(&self) -> &'static str {
        keys::BACKEND_ID
    }

    fn keeps_grants(&self) -> bool {
        true
    }

    fn awaits_replicas(&self) -> bool {
        self.connections.min_replicas().is_some()
    }

    fn time_limit(&self) -> Option<Duration> {
        let RedisConfig { total_timeout: total, acknowledge_timeout, .. } = self.config;
        Some(match self.awaits_replicas() {
            // What replicas do not have in time is given back.
            true => total + acknowledge_timeout + total,
            false => total,
        })
    }

    fn counters(&self) -> Counters {
        Counters { not_acknowledged: self.connections.not_acknowledged(0), ..Counters::default() }
    }

    async fn allocate(
        &self,
        pool: &PoolName,
        claimant: Claimant<'_>,
        claims: &[Claim],
    ) -> Result<Vec<Result<Outcome>>> {
        let outcomes = self.pool(pool).allocate(claimant, claims).await?;
        let connections = &self.connections;
        Ok(acknowledged::outcomes(connections, pool, claimant.execution, claims, outcomes).await)
    }

    async fn release(
        &self,
        pool: &PoolName,
        execution: &ExecutionId,
        tokens: &[AllocationToken],
    ) -> Result<Vec<Released>> {
        self.pool(pool).release(execution, tokens, None).await
    }

    async fn release_grant(
        &self,
        pool: &PoolName,
        execution: &ExecutionId,
        token: &AllocationToken,
        number: FencingNumber,
    ) -> Result<Released> {
        let tokens = std::slice::from_ref(token);
        let released = self.pool(pool).release(execution, tokens, Some(number)).await?;
        Ok(released.first().copied().unwrap_or(Released::NotHeld))
    }

    async fn wait(
        &self,
        pool: &PoolName,
        claimant: Claimant<'_>,
        claim: &Claim,
        ticket: &TicketRequest,
    ) -> Result<Turn> {
        let turn = self.pool(pool).wait(claimant, claim, ticket).await?;
        acknowledged::turn(&self.connections, pool, claimant.execution, claim, turn).await
    }

    async fn allocate_all(&self, claimant: Claimant<'_>, claims: &[Joint]) -> Result<JointOutcome> {
        Joint::check_distinct(claims)?;
        let outcome = claims::allocate_all(&self.connections, claimant, claims).await?;
        acknowledged::joint(&self.connections, claimant.execution, claims, outcome).await
    }

    async fn renew(
        &self,
        pool: &PoolName,
        renewals: &[Renewal<'_>],
    ) -> Result<Vec<Result<Renewed>>> {
        self.pool(pool).renew(renewals).await
    }

    async fn listen(&self) -> Result<Inbox> {
        self.connections.listen().await
    }

    async fn detached(&self) -> Result<Arc<dyn Backend>> {
        // One, so that calls and notices about a token keep their order.
        let config = RedisConfig { connections: 1, ..self.config.clone() };
        let connections = Connections::open(&config).await?.sharing_with(&self.connections);
        Ok(Arc::new(Self { connections: Arc::new(connections), config }))
    }

    async fn revoke(
        &self,
        pool: &PoolName,
        member: &Member,
        revocation: &Revocation,
    ) -> Result<Released> {
        self.pool(pool).revoke(member, revocation).await
    }

    async fn revocations(&self, pool: &PoolName, count: usize) -> Result<Vec<RevocationRecord>> {
        self.pool(pool).revocations(count).await
    }

    async fn change_queue(&self, pool: &PoolName, change: &QueueChange) -> Result<()> {
        self.pool(pool).change_queue(change).await
    }

    async fn tickets(&self, pool: &PoolName, from: Cursor, count: usize) -> Result<TicketsPage> {
        self.pool(pool).tickets(from, count).await
    }

    async fn change_quota(&self, pool: &PoolName, change: QuotaChange) -> Result<PoolQuota> {
        let pool = self.pool(pool);
        let quota = pool.change_quota(change, &self.config).await?;
        if !matches!(change, QuotaChange::Pin(_) | QuotaChange::Unpin) {
            // Only now, so that a name whose keys are somebody else's is not listed.
            self.list("SADD", Some(&pool.keys().pool)).await?;
        }
        Ok(quota)
    }

    async fn end_learning(&self, pool: &PoolName) -> Result<Duration> {
        self.pool(pool).end_learning().await
    }

    async fn delete_pool(&self, pool: &PoolName, deletion: Deletion) -> Result<u64> {
        let pool = self.pool(pool);
        let units = pool.delete(deletion).await?;
        self.list("SREM", Some(&pool.keys().pool)).await?;
        // A manager may have made and listed the pool again before it was taken off the list.
        if pool.exists().await? {
            self.list("SADD", Some(&pool.keys().pool)).await?;
        }
        Ok(units)
    }

    async fn pools(&self) -> Result<Vec<PoolName>> {
        let command = "SMEMBERS";
        let keys: Vec<String> = redis::from_redis_value(self.list(command, None).await?)
            .map_err(|error| unexpected(command, error))?;
        let mut pools: Vec<_> = keys.iter().filter_map(|key| pool_of_key(key)).collect();
        pools.sort_unstable();
        Ok(pools)
    }

    async fn usage(&self, pool: &PoolName) -> Result<PoolUsage> {
        self.pool(pool).usage().await
    }

    async fn holders(&self, pool: &PoolName, from: Cursor, count: usize) -> Result<HoldingsPage> {
        self.pool(pool).holders(from, count).await
    }

    async fn check(&self, pool: &PoolName) -> Result<CheckReport> {
        self.pool(pool).check().await
    }

    async fn repair(&self, pool: &PoolName) -> Result<RepairReport> {
        self.pool(pool).repair().await
    }
}
