use tokenpool::{Order, PluginId, PoolName, ResourceNamespace};

/// A pool and what limits its claims, the same for all of them.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) name: &'static str,
    pub(crate) quota: u64,
    pub(crate) order: Order,
    pub(crate) project_cap: Option<u64>,
    pub(crate) domain_cap: Option<u64>,
    /// Most units of one claim.
    pub(crate) largest: u64,
}

pub(crate) const PLUGIN: &str = "hive";
pub(crate) const PROJECTS: [&str; 3] = ["alpha", "alphabet", "beta"];
pub(crate) const DOMAINS: [&str; 2] = ["dev", "development"];
/// Leases of all claims, in milliseconds.
pub(crate) const LEASES: [u64; 3] = [1_000, 2_000, 3_000];
pub(crate) const LOCK: &str = "chaos";
pub(crate) const MUTEX: &str = "mutex:chaos";
pub(crate) const RW_LOCK: &str = "rwlock:chaos";
/// What a writer claims of a read-write lock, which is all there is.
pub(crate) const WRITER: u64 = 1_000;

/// Pools that are claimed. Nobody waits for the last, so that calls on it go together.
pub(crate) const CLAIMED: [Plan; 5] = [
    Plan {
        name: "wide",
        quota: 8,
        order: Order::Fifo,
        project_cap: Some(5),
        domain_cap: Some(3),
        largest: 3,
    },
    Plan {
        name: "fair",
        quota: 4,
        order: Order::Fair,
        project_cap: None,
        domain_cap: None,
        largest: 2,
    },
    Plan {
        name: "urgent",
        quota: 3,
        order: Order::Priority,
        project_cap: None,
        domain_cap: Some(2),
        largest: 2,
    },
    Plan {
        name: "single",
        quota: 1,
        order: Order::Fifo,
        project_cap: None,
        domain_cap: None,
        largest: 1,
    },
    Plan {
        name: "plain",
        quota: 24,
        order: Order::Fifo,
        project_cap: Some(14),
        domain_cap: Some(9),
        largest: 3,
    },
];

/// The pools that claims wait for, and the other.
pub(crate) fn waited_for() -> (&'static [Plan], &'static Plan) {
    let [waited_for @ .., plain] = const { &CLAIMED };
    (waited_for, plain)
}

impl Plan {
    pub(crate) fn pool(&self) -> PoolName {
        let (plugin, name) = (PluginId::new(PLUGIN).unwrap(), ResourceNamespace::new(self.name));
        PoolName::of(&plugin, &name.unwrap()).unwrap()
    }
}

/// Quota, project cap and domain cap of every pool, those of the locks included.
pub(crate) fn limits(pool: &str) -> Option<(u64, Option<u64>, Option<u64>)> {
    match pool {
        MUTEX => Some((1, None, None)),
        RW_LOCK => Some((WRITER, None, None)),
        _ => CLAIMED
            .iter()
            .find(|plan| plan.pool().to_string() == pool)
            .map(|plan| (plan.quota, plan.project_cap, plan.domain_cap)),
    }
}

/// A pool's key in Redis, of which only the slot matters here.
pub(crate) fn key(pool: &str) -> String {
    format!("redisresourcemanager:{pool}")
}

/// All pools.
pub(crate) fn pools() -> Vec<PoolName> {
    let locks = [MUTEX, RW_LOCK].map(|name| PoolName::new(name).unwrap());
    CLAIMED.iter().map(Plan::pool).chain(locks).collect()
}
