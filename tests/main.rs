//! Tests against real servers: every test starts what it needs and ends it again.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

/// What a process grants by itself while Redis cannot be reached.
mod allowance;
/// Checking and repairing a pool while others use it.
mod audit;
/// Futures dropped at every point, with answers that are late or lost.
mod cancellation;
/// Calls of many callers at once on one pool.
mod combining;
/// What every backend must do, one test for each case and backend.
mod conformance;
/// Sentinel, Cluster, TLS and ACL, and the faults that come with them.
mod deployments;
/// Keys that a server threw away, one and all.
mod eviction;
/// How long projects wait for each other.
mod fairness;
/// What happens when servers, connections and clients fail.
mod faults;
/// What the original's Go tests assert about the resource manager.
mod flyte;
/// Pools that other writers change, too.
mod foreign;
/// Guards, waiting callers, the keeper and locks.
mod guards;
/// How few are woken.
mod herd;
/// Attributes by path.
mod matchable;
/// Registration, building and the manager's table.
mod registration;
/// Grants that count only once replicas have them.
mod replicas;
/// Random sequences of operations, Redis against memory.
mod sequences;
/// What the sources and their documents must agree on.
mod sources;
mod support;
/// That sentinels, clusters, certificates, proxies and fakes are what other tests take them for.
mod support_works;
/// Clients of an earlier version beside those of this one, and pools of a later one.
mod upgrade;
/// Leases and tickets, one test for each case and backend.
mod waiting;
/// What Redis holds, to the byte.
mod wire;
