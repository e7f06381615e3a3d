//! The only place that makes names for Redis: keys, and the fields of a pool's counters.

use super::slot::Slot;
use crate::execution::Scope;
use crate::matchable::KindName;
use crate::name::PoolName;

/// Id of the backend, the first part of every pool's key.
pub(super) const BACKEND_ID: &str = "redisresourcemanager";

/// SET of the registered pools' keys, for listing.
pub(super) const POOLS: &str = "tokenpool:pools";

/// SET of the kinds of attributes that were ever written.
pub(super) const KINDS: &str = "tokenpool:kinds";

/// What the key of every kind's records begins with, and no other key.
pub(super) const ATTRIBUTES: &str = "tokenpool:attributes:";

/// The keys of one kind of attributes, which share its cluster slot.
#[derive(Debug)]
pub(super) struct AttributeKeys {
    /// HASH of the paths' records.
    pub(super) records: String,
    /// ZSET of the paths, in the order of their texts.
    pub(super) paths: String,
    /// HASH of last versions, and of records that are in force no more.
    pub(super) history: String,
}

impl AttributeKeys {
    pub(super) fn new(kind: &KindName) -> Self {
        let records = [ATTRIBUTES, kind.as_str()].concat();
        let key = |what: &str| ["{", &records, "}:", what].concat();
        Self { paths: key("paths"), history: key("history"), records }
    }

    pub(super) fn slot(&self) -> Slot {
        Slot::of(&self.records)
    }

    /// Every key with the type of what it holds.
    pub(super) fn types(&self) -> [(&str, &'static str); 3] {
        [(&self.records, "hash"), (&self.paths, "zset"), (&self.history, "hash")]
    }
}

/// The keys of one pool, which share its cluster slot.
#[derive(Debug)]
pub(super) struct PoolKeys {
    /// SET of granted members.
    pub(super) pool: String,
    /// HASH of counters.
    pub(super) usage: String,
    /// HASH of records.
    pub(super) grants: String,
    /// ZSET of members by the end of their leases.
    pub(super) leases: String,
    /// HASH of the tickets' records.
    pub(super) tickets: String,
    /// ZSET of tickets by rank.
    pub(super) queue: String,
    /// ZSET of tickets by domain, of domains by project.
    pub(super) lines: String,
    /// ZSET of projects whose turn it may be.
    pub(super) turns: String,
    /// ZSET of projects' fair shares.
    pub(super) shares: String,
    /// STREAM of what operators took away.
    pub(super) journal: String,
    pub(super) slot: Slot,
}

/// How many keys most scripts are given, and how many come first that hold what is granted.
const POOL_KEYS: usize = 9;
const GRANT_KEYS: usize = 4;

impl PoolKeys {
    pub(super) fn new(name: &PoolName) -> Self {
        let pool = [BACKEND_ID, ":", name.as_str()].concat();
        let key = |what: &str| ["{", &pool, "}:", what].concat();
        Self {
            usage: usage_key(&pool),
            grants: key("grants"),
            leases: key("leases"),
            tickets: key("tickets"),
            queue: key("queue"),
            lines: key("lines"),
            turns: key("turns"),
            shares: key("shares"),
            journal: key("journal"),
            slot: Slot::of(&pool),
            pool,
        }
    }

    /// What most scripts want, because they may have to hand units on.
    pub(super) fn all(&self) -> [&str; POOL_KEYS] {
        let Self { pool, usage, grants, leases, tickets, queue, lines, turns, shares, .. } = self;
        [pool, usage, grants, leases, tickets, queue, lines, turns, shares]
    }

    /// Those that hold what is granted, which is enough while nobody waits and nothing is due.
    pub(super) fn of_grants(&self) -> [&str; GRANT_KEYS] {
        let Self { pool, usage, grants, leases, .. } = self;
        [pool, usage, grants, leases]
    }

    /// All that there is of the pool.
    pub(super) fn with_journal(&self) -> Vec<&str> {
        self.all().into_iter().chain([&*self.journal]).collect()
    }

    /// Every key with the type of what it holds.
    pub(super) fn types(&self) -> impl Iterator<Item = (&str, &'static str)> {
        let types =
            ["set", "hash", "hash", "zset", "hash", "zset", "zset", "zset", "zset", "stream"];
        self.with_journal().into_iter().zip(types)
    }
}

/// The key of the counters beside a pool's own.
pub(super) fn usage_key(pool: &str) -> String {
    ["{", pool, "}:usage"].concat()
}

/// Stands for the channel of a ticket that nobody is told about.
pub(super) const NO_CHANNEL: &str = "-";

/// The channel through which one process is told of its tickets.
pub(super) fn channel(process: &str) -> String {
    ["tokenpool:tickets:", process].concat()
}

/// The channel of a process in the cluster slot of a pool, where a script that hands on units of it may publish.
pub(super) fn sharded_channel(pool: &str, channel: &str) -> String {
    ["{", pool, "}:", channel].concat()
}

/// The channel of a process, whether or not it is in a pool's slot.
pub(super) fn process_channel(channel: &str) -> &str {
    channel.split_once("}:").map_or(channel, |(_, channel)| channel)
}

/// Whether a key is a pool's own, by which others can tell it.
pub(super) fn is_pool(key: &[u8]) -> bool {
    key.starts_with(BACKEND_ID.as_bytes())
}

/// The pool of a key, if it is one.
pub(super) fn pool_of_key(key: &str) -> Option<PoolName> {
    PoolName::new(key.strip_prefix(BACKEND_ID)?.strip_prefix(':')?).ok()
}

/// Fields of `usage` that count a project and its domain.
#[derive(Debug)]
pub(super) struct ScopeFields {
    pub(super) project: String,
    pub(super) domain: String,
}

impl ScopeFields {
    pub(super) fn new(project: &str, domain: &str) -> Self {
        Self { project: ["p:", project].concat(), domain: ["d:", project, ":", domain].concat() }
    }
}

/// The scope that a field of `usage` counts; none for the pool's own fields.
pub(super) fn scope_of_field(field: &str) -> Option<Scope> {
    match field.split_once(':')? {
        ("p", project) => Some(Scope::Project { project: project.to_owned() }),
        ("d", path) => {
            let (project, domain) = path.split_once(':')?;
            Some(Scope::Domain { project: project.to_owned(), domain: domain.to_owned() })
        }
        _ => None,
    }
}

/// The project of a field of `usage` that holds its weight.
pub(super) fn project_of_weight(field: &str) -> Option<&str> {
    field.strip_prefix("w:")
}

/// The field of `usage` that counts a scope.
pub(super) fn field_of_scope(scope: &Scope) -> String {
    match scope {
        Scope::Project { project } => ["p:", project].concat(),
        Scope::Domain { project, domain } => ["d:", project, ":", domain].concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Result;

    #[test]
    fn pool_keys_are_flytes_and_the_others_carry_them_as_hash_tag() -> Result<()> {
        let keys = PoolKeys::new(&PoolName::new("qubole-hive-executor:default")?);
        assert_eq!(keys.pool, "redisresourcemanager:qubole-hive-executor:default");
        assert_eq!(keys.usage, "{redisresourcemanager:qubole-hive-executor:default}:usage");
        assert_eq!(keys.grants, "{redisresourcemanager:qubole-hive-executor:default}:grants");
        assert_eq!(pool_of_key(&keys.pool), Some(PoolName::new("qubole-hive-executor:default")?));
        assert_eq!(pool_of_key("tokenpool:pools"), None);
        Ok(())
    }

    #[test]
    fn fields_and_scopes_convert_both_ways() {
        let fields = ScopeFields::new("flyte", "dev");
        for field in [&fields.project, &fields.domain] {
            let scope = scope_of_field(field);
            assert_eq!(scope.as_ref().map(field_of_scope).as_ref(), Some(field));
        }
        for field in ["issued", "issue_limit", "quota", "about"] {
            assert_eq!(scope_of_field(field), None);
        }
    }
}
