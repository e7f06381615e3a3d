//! What each role does, in so few calls that it can be repeated for each word of a rule.
//!
//! Every call fails with the error that it got; only a notice that never comes has to be waited for.

use std::sync::Arc;
use std::time::Duration;

use tokenpool::matchable::{
    AttributePath, AttributeStore, Attributes, CacheConfig, Expected, Filter, PoolConstraints,
    ResourceConstraints,
};
use tokenpool::{
    Backend, Claimant, Config, Cursor, Deletion, Error, Holder, Joint, JointOutcome, Locks, Notice,
    Order, PluginId, PoolName, PoolRules, QueueChange, QuotaChange, Registrar, Released, Renewal,
    ResourceConstraintsSpec, ResourceNamespace, ResourceRegistrar as _, Result, Turn,
};

use crate::support::{
    FREE, caps, claim, execution, lease, member, notice, quota, revocation, ticket, token, until,
    weight,
};

/// In projects of their own, so that fair order has a choice.
pub(super) const A: &str = "p/d/e";
pub(super) const B: &str = "q/d/e";

/// What one user has open.
pub(super) struct Session {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) store: Arc<dyn AttributeStore>,
}

pub(super) fn pool(name: &str) -> PoolName {
    PoolName::new(format!("hive:{name}")).unwrap()
}

pub(super) fn holder() -> Holder {
    Holder::new("test").unwrap()
}

/// Where the rule for pools is set.
pub(super) fn project() -> AttributePath {
    AttributePath::project("p").unwrap()
}

/// A rule for all pools.
pub(super) fn rule() -> ResourceConstraints {
    let all = PoolConstraints {
        pool: "hive:*".to_owned(),
        weight: Some(7),
        ..PoolConstraints::default()
    };
    ResourceConstraints { pools: vec![all] }
}

/// What the work fails with where nobody is told.
fn unheard() -> Error {
    Error::Protocol { operation: "notice", reply: "none came".to_owned() }
}

/// Whether that is what a missing permission led to.
pub(super) fn is_unheard(error: &Error) -> bool {
    matches!(error, Error::Protocol { operation: "notice", .. })
}

impl Session {
    pub(super) async fn open(config: &Config) -> Result<Self> {
        Ok(Self { backend: config.open().await?, store: config.open_attributes().await? })
    }

    async fn register(&self, name: &str) -> Result<()> {
        let register = QuotaChange::Register(quota(3));
        self.backend.change_quota(&pool(name), register).await.map(drop)
    }

    fn attributes(&self) -> Attributes {
        Attributes::new(Arc::clone(&self.store), holder())
    }

    /// What others do before.
    pub(super) async fn prepare(&self) -> Result<()> {
        let backend = &self.backend;
        self.register("fair").await?;
        let fair = QueueChange::new().order(Order::Fair);
        backend.change_queue(&pool("fair"), &fair).await?;
        self.register("seen").await?;
        let holder = holder();
        for name in ["held", "revoked", "3"] {
            self.claims("seen", A, &[(name, None)], FREE).await?;
        }
        let revoked = backend.revoke(&pool("seen"), &member(A, "revoked"), &revocation()).await?;
        assert_eq!(revoked, Released::Units(1));
        self.claims("seen", A, &[("4", None)], FREE).await?;
        let (execution, asks) = (execution(A), ticket());
        let claimant = Claimant { execution: &execution, constraints: FREE, holder: &holder };
        let turn = backend.wait(&pool("seen"), claimant, &claim("waits", 1), &asks).await?;
        assert!(matches!(turn, Turn::Waiting(_)), "{turn:?}");
        self.attributes().of().replace(&project(), rule(), Expected::Any).await?;
        self.register("odd").await
    }

    /// Claims of one unit, with leases of so many milliseconds; says which were granted.
    async fn claims(
        &self,
        name: &str,
        path: &str,
        claims: &[(&str, Option<u64>)],
        constraints: ResourceConstraintsSpec,
    ) -> Result<Vec<bool>> {
        let (execution, holder) = (execution(path), holder());
        let claimant = Claimant { execution: &execution, constraints, holder: &holder };
        let one = |(name, millis): &(&str, Option<u64>)| match millis {
            Some(millis) => claim(name, 1).with_lease(lease(*millis)),
            None => claim(name, 1),
        };
        let claims: Vec<_> = claims.iter().map(one).collect();
        let outcomes = self.backend.allocate(&pool(name), claimant, &claims).await?;
        outcomes.into_iter().map(|outcome| Ok(outcome?.granted().is_some())).collect()
    }

    async fn claim(
        &self,
        name: &str,
        path: &str,
        token: &str,
        constraints: ResourceConstraintsSpec,
    ) -> Result<bool> {
        Ok(self.claims(name, path, &[(token, Some(LONG))], constraints).await?[0])
    }

    async fn release(&self, name: &str, path: &str, names: &[&str]) -> Result<Vec<Released>> {
        let tokens: Vec<_> = names.iter().map(|name| token(name)).collect();
        self.backend.release(&pool(name), &execution(path), &tokens).await
    }

    /// What a client asks of pools.
    pub(super) async fn claims_and_waits(&self) -> Result<()> {
        let backend = &self.backend;
        for name in ["fair", "second", "third"] {
            self.register(name).await?;
        }
        let weigh = QueueChange::new().weight("p", weight(2));
        backend.change_queue(&pool("fair"), &weigh).await?;
        assert!(self.claim("fair", A, "1", FREE).await?);
        assert!(!self.claim("fair", A, "2", caps(Some(1), None)).await?);
        let two = [("2", Some(LONG)), ("3", Some(LONG))];
        assert_eq!(self.claims("fair", A, &two, FREE).await?, [true, true]);
        assert!(!self.claim("fair", A, "4", FREE).await?);
        self.waits().await?;
        // As a keeper looks that misses a grant.
        assert_eq!(backend.usage(&pool("fair")).await?.in_use, 3);

        let (execution, holder) = (execution(A), holder());
        let claimant = Claimant { execution: &execution, constraints: FREE, holder: &holder };
        let joint = |name| Joint { pool: pool(name), claim: claim("all", 1), constraints: FREE };
        let all = [joint("second"), joint("third")];
        let outcome = backend.allocate_all(claimant, &all).await?;
        assert!(matches!(outcome, JointOutcome::Granted(_)), "{outcome:?}");
        Ok(())
    }

    /// A unit, and back.
    pub(super) async fn takes_and_returns(&self) -> Result<()> {
        self.register("taken").await?;
        assert!(self.claim("taken", A, "1", FREE).await?);
        assert_eq!(self.release("taken", A, &["1"]).await?, [Released::Units(1)]);
        // Three callers at once, of whom two go together.
        let claim = |token| self.claim("taken", A, token, FREE);
        let granted = tokio::try_join!(claim("1"), claim("2"), claim("3"))?;
        assert_eq!(granted, (true, true, true));
        let release = async |token| self.release("taken", A, &[token]).await;
        let released = tokio::try_join!(release("1"), release("2"), release("3"))?;
        assert_eq!([released.0, released.1, released.2].concat(), [Released::Units(1); 3]);
        Ok(())
    }

    /// Another project waits for a unit of the pool, which is full, and is told when it comes back.
    async fn waits(&self) -> Result<()> {
        let backend = &self.backend;
        let (execution, holder) = (execution(B), holder());
        let claimant = Claimant { execution: &execution, constraints: FREE, holder: &holder };
        let inbox = &mut backend.listen().await?;
        let asks = ticket().with_channel(inbox.channel.clone());
        let turn = backend.wait(&pool("fair"), claimant, &claim("waits", 1), &asks).await?;
        assert!(matches!(turn, Turn::Waiting(_)), "{turn:?}");
        let waits = token("waits");
        let renewal = Renewal { execution: &execution, token: &waits, lease: lease(LONG) };
        backend.renew(&pool("fair"), &[renewal]).await?.remove(0)?;
        assert_eq!(self.release("fair", A, &["1"]).await?, [Released::Units(1)]);
        // Scripts go on where they may not publish.
        match tokio::time::timeout(Duration::from_secs(1), notice(inbox)).await {
            Ok(told) => assert!(matches!(told, Notice::Granted { .. }), "{told:?}"),
            Err(_) => return Err(unheard()),
        }
        Ok(())
    }

    /// What the attributes say of a client's claims, with a cache.
    pub(super) async fn applies_rules(&self) -> Result<()> {
        let config = CacheConfig::new(Duration::from_secs(3600))?;
        let cached = Attributes::cached(Arc::clone(&self.store), holder(), config).await?;
        let rule = PoolRules::new(&cached).rule(&pool("fair"), &execution(A)).await?;
        assert_eq!(rule.weight.unwrap().value, weight(7));
        Ok(())
    }

    /// What a process of a client really does: with a manager, a keeper, rules and locks.
    pub(super) async fn lives(&self) -> Result<()> {
        let registrar = Registrar::new(Arc::clone(&self.backend));
        let (plugin, namespace) = (PluginId::new("hive")?, ResourceNamespace::new("lives")?);
        registrar.for_plugin(plugin.clone()).register_resource_quota(&namespace, 1)?;
        let manager = registrar.build().await?;
        let config = CacheConfig::new(Duration::from_secs(3600))?;
        let cached = Attributes::cached(Arc::clone(&self.store), holder(), config).await?;
        let rules = PoolRules::new(&cached);
        let acquire = async |path: &str| {
            let task = manager.for_execution(plugin.clone(), execution(path));
            let task = task.with_rules(rules.clone());
            let claim = claim("lives", 1).with_lease(lease(LONG));
            task.acquire(&namespace, claim, FREE).await
        };
        let first = acquire(B).await?;
        let waits = acquire(A);
        let goes = async {
            until("another waits", async || {
                let usage = self.backend.usage(&pool("lives")).await.unwrap();
                // With its rule's weight, which is given before.
                (usage.tickets == 1 && usage.weights["p"] == weight(7)).then_some(())
            })
            .await;
            first.release().await
        };
        let (second, released) = tokio::join!(waits, goes);
        assert_eq!(released?, Released::Units(1));
        second?.release().await?;

        let locks = Locks::new(Arc::clone(&self.backend));
        let mutex = locks.mutex("lives").await?;
        let (guard, other) = (mutex.lock().await?, mutex.try_lock().await?);
        assert!(other.is_none());
        let (locked, unlocked) = tokio::join!(mutex.lock(), guard.unlock());
        unlocked?;
        locked?.unlock().await?;
        let lock = locks.rw_lock("lives").await?;
        let readers = [lock.read().await?, lock.read().await?];
        assert!(lock.try_write().await?.is_none());
        for reader in readers {
            reader.unlock().await?;
        }
        lock.write().await?.unlock().await
    }

    /// Whoever comes upon somebody else's data is told where. The pool `odd` has another type of grants.
    pub(super) async fn claims_what_is_odd(&self) -> Result<()> {
        is_odd(self.claim("odd", A, "1", FREE).await)
    }

    pub(super) async fn reads_what_is_odd(&self) -> Result<()> {
        is_odd(self.backend.holders(&pool("odd"), Cursor::default(), 10).await)
    }

    /// What there is to be read of the pool `seen`, and of all.
    pub(super) async fn reads(&self) -> Result<()> {
        let (backend, seen) = (&self.backend, pool("seen"));
        assert!(backend.pools().await?.contains(&seen));
        assert_eq!(backend.usage(&seen).await?.in_use, 3);
        assert_eq!(backend.holders(&seen, Cursor::default(), 10).await?.holdings.len(), 3);
        assert_eq!(backend.tickets(&seen, Cursor::default(), 20).await?.tickets.len(), 1);
        assert_eq!(backend.revocations(&seen, 10).await?.len(), 1);
        let attributes = self.attributes();
        assert_eq!(attributes.kinds().await?.len(), 1);
        let of = attributes.of::<ResourceConstraints>();
        assert_eq!(of.get_resource(&project()).await?.value, rule());
        assert_eq!(of.list(&Filter::ALL, None, 10).await?.found.len(), 1);
        assert_eq!(of.history(&project()).await?.len(), 1);
        Ok(())
    }

    /// What operators do beside that. The break is somebody else's doing, who knows nothing of the schema.
    pub(super) async fn operates(&self, break_pool: impl Fn(&PoolName)) -> Result<()> {
        let (backend, made, seen) = (&self.backend, pool("made"), pool("seen"));
        backend.change_quota(&made, QuotaChange::Create(quota(1))).await?;
        backend.change_quota(&made, QuotaChange::Pin(quota(2))).await?;
        backend.change_quota(&made, QuotaChange::Unpin).await?;
        assert_eq!(backend.delete_pool(&made, Deletion::OnlyUnused).await?, 0);

        backend.change_queue(&seen, &QueueChange::new().order(Order::Priority)).await?;
        break_pool(&seen);
        assert!(!backend.check(&seen).await?.is_clean());
        let repaired = backend.repair(&seen).await?;
        assert_eq!((repaired.adopted, repaired.requeued), (1, 1), "{repaired:?}");
        assert!(!repaired.corrected.is_empty(), "{repaired:?}");
        backend.revoke(&seen, &member(A, "held"), &revocation()).await?;
        assert_eq!(backend.revocations(&seen, 10).await?.len(), 2);

        let of = self.attributes().of::<ResourceConstraints>();
        let path = AttributePath::project("q")?;
        of.update(&path, rule(), Expected::Absent).await?;
        assert!(of.delete(&path, Expected::Any).await?);
        Ok(())
    }
}

/// Milliseconds that are over after everything else.
const LONG: u64 = 600_000;

fn is_odd<T: std::fmt::Debug>(answer: Result<T>) -> Result<()> {
    match answer {
        Err(Error::WrongType { .. }) => Ok(()),
        Err(error) => Err(error),
        Ok(answer) => panic!("{answer:?}"),
    }
}
