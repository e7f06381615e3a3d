#![doc = include_str!("../README.md")]

mod acquire;
mod allocation;
#[cfg(feature = "redis")]
mod allowance;
mod amount;
mod audit;
mod backend;
mod claim;
mod clock;
pub mod config;
mod counters;
mod error;
mod execution;
mod keeper;
mod lock;
mod manager;
pub mod matchable;
mod memory;
mod name;
mod noop;
mod outcome;
mod pool;
mod proxy;
#[cfg(feature = "redis")]
mod redis;
mod registered;
mod registrar;
mod rules;
mod ticket;

pub use acquire::{Acquired, AcquiredAll, Wait};
pub use allocation::Allocation;
pub use amount::{Lease, Quota, ResourceConstraint, ResourceConstraintsSpec, Units};
pub use backend::Backend;
pub use claim::{Claim, Claimant, Joint};
pub use clock::{Clock, ManualClock, SystemClock};
pub use config::{BackendType, Config, OnUnavailable, RedisConfig};
pub use counters::Counters;
pub use error::{Code, Error, Result};
pub use execution::{ExecutionId, Scope};
pub use lock::{LockGuard, Locks, Mutex, RwLock};
pub use manager::{Manager, ResourceManager};
pub use memory::MemoryBackend;
pub use name::{
    AllocationToken, Holder, MAX_NAME_LENGTH, Member, PluginId, PoolName, ResourceNamespace,
};
pub use noop::NoopBackend;
pub use outcome::{
    AllocationStatus, FencingNumber, Grant, JointOutcome, Limit, Outcome, Refusal, Released,
};
pub use pool::{
    CheckReport, Cursor, Deletion, Drift, GrantRecord, Holding, HoldingsPage, PoolQuota, PoolUsage,
    QuotaChange, RepairReport, Revocation, RevocationRecord,
};
pub use proxy::{ResourcePoolInfo, TaskResourceManager};
#[cfg(feature = "redis")]
pub use redis::RedisBackend;
pub use registrar::{PluginRegistrar, Registrar, ResourceRegistrar};
pub use rules::{PoolRule, PoolRules, Ruled};
pub use ticket::{
    Channel, Inbox, Notice, Order, Priority, QueueChange, Renewal, Renewed, Ticket, TicketRecord,
    TicketRequest, TicketsPage, Turn, Weight,
};
