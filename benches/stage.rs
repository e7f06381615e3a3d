//! A server with pools that the library set up.

use std::sync::Arc;

use redis::{Commands as _, Connection, InfoDict};
use tokenpool::{
    AllocationToken, Backend, Channel, Claim, Claimant, Config, Holder, Inbox, Lease, Manager,
    PoolName, Registrar, Renewal, ResourceConstraintsSpec, ResourceRegistrar, TaskResourceManager,
    TicketRequest,
};
use tokio::runtime::Runtime;

use crate::calls::{Calls, HOLDER, LEASE, PLUGIN, Terms, Token};
use crate::cores;
use crate::load::Load;
use crate::monitor::Monitor;
use crate::server::Server;

/// A quota that nothing here uses up.
pub(crate) const AMPLE: i64 = 4_000_000_000;

/// Caps that count and stop nothing.
pub(crate) const CAP: i64 = 1_000_000_000;

/// The library on a server of its own, and a look behind its back.
pub(crate) struct Stage {
    pub(crate) runtime: Runtime,
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) manager: Manager,
    pub(crate) admin: Connection,
    pub(crate) server: Server,
    /// Where the library listens, but nobody takes note of what it hears.
    channel: Channel,
}

impl Stage {
    /// Starts a server with these pools and their quotas.
    pub(crate) fn start(pools: &[(&str, i64)]) -> Self {
        Self::on(Server::start(), pools)
    }

    /// The same on a server that was started for it.
    pub(crate) fn on(server: Server, pools: &[(&str, i64)]) -> Self {
        cores::place(&server);
        let runtime = Runtime::new().expect("a runtime can be made");
        let open = async {
            let backend = Config::redis_at(server.url())?.open().await?;
            let registrar = Registrar::with_max_quota(Arc::clone(&backend), u32::MAX)
                .with_holder(Holder::new(HOLDER)?);
            let plugin = registrar.for_plugin(PLUGIN.parse()?);
            for (name, quota) in pools {
                plugin.register_resource_quota(&name.parse()?, *quota)?;
            }
            let Inbox { channel, .. } = backend.listen().await?;
            Ok::<_, tokenpool::Error>((backend, registrar.build().await?, channel))
        };
        let (backend, manager, channel) =
            runtime.block_on(open).expect("the library opens the server");
        let admin = server.raw();
        let mut stage = Self { runtime, backend, manager, admin, server, channel };
        for (name, _) in pools {
            stage.prove(name);
        }
        stage
    }

    /// The calls of one pool, for a load.
    pub(crate) fn calls(&mut self, pool: &str) -> Calls {
        Calls::of(pool, self.channel.as_str(), &mut self.admin)
    }

    /// Clients for a load.
    pub(crate) fn load(&self) -> Load {
        Load::connect(&self.server)
    }

    /// The library's view for the execution of a token.
    pub(crate) fn view(&self, token: &Token) -> TaskResourceManager {
        let plugin = PLUGIN.parse().expect("the plugin's id is good");
        self.manager.for_execution(plugin, token.execution())
    }

    /// What the server spent on each EVALSHA while `run` ran, in microseconds.
    pub(crate) fn cost(&mut self, calls: usize, run: impl FnOnce()) -> f64 {
        self.cost_of("evalsha", calls, run)
    }

    /// What the server spent on each call of a command while `run` ran, in microseconds.
    pub(crate) fn cost_of(&mut self, command: &str, calls: usize, run: impl FnOnce()) -> f64 {
        redis::cmd("CONFIG")
            .arg("RESETSTAT")
            .exec(&mut self.admin)
            .expect("the server's counters can be reset");
        run();
        let (counted, micros) = self.counted(command);
        assert_eq!(counted, calls, "a load makes as many calls as it should");
        micros / counted as f64
    }

    /// Calls of a command and microseconds spent on them since the counters were reset.
    fn counted(&mut self, command: &str) -> (usize, f64) {
        let name = format!("cmdstat_{command}");
        let line: String = self.info("commandstats").get(&name).unwrap_or_default();
        let field = |name: &str| {
            let field = line.split(',').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
            field.and_then(|number| number.parse::<f64>().ok()).unwrap_or_default()
        };
        (field("calls") as usize, field("usec"))
    }

    pub(crate) fn info(&mut self, section: &str) -> InfoDict {
        redis::cmd("INFO").arg(section).query(&mut self.admin).expect("the server describes itself")
    }

    /// Proves that a load's calls are, byte for byte, what the library sends.
    fn prove(&mut self, pool: &str) {
        let calls = self.calls(pool);
        let token = Token::nth(u64::MAX);
        let mut monitor = Monitor::start(&self.server);
        let sent = self.runtime.block_on(self.call_each(pool, &token));
        let sent = monitor.calls(sent.expect("the library can claim"));
        let both = [token.token.as_str(), "another"];
        let cmds = [
            calls.allocate(&token),
            calls.release(&token),
            calls.allocate_many(&token, both),
            calls.release_many(&token, both),
            calls.claim(&token, Terms::LEASED),
            calls.renew([&token]),
            calls.claim(&token, Terms::WAITING),
            calls.hand_on(&token),
        ];
        for cmd in &cmds {
            let _: redis::Value = cmd.query(&mut self.admin).expect("the call is right");
        }
        assert_eq!(monitor.calls(cmds.len()), sent, "a load sends what the library sends");
        // Looking for what ended is part of a call's cost only where leases are held.
        let due: usize = self.admin.hdel(calls.usage(), "due").expect("the usage is a hash");
        assert_eq!(due, 1, "a lease was held");
    }

    /// Makes the library send each call, and answers how many they were.
    async fn call_each(&self, pool: &str, token: &Token) -> tokenpool::Result<usize> {
        let (backend, holder) = (&self.backend, &Holder::new(HOLDER)?);
        let (pool, execution) = (&pool_name(pool), &token.execution());
        let claimant = Claimant { execution, constraints: caps(), holder };
        let tokens: [AllocationToken; 2] = [token.token.parse()?, "another".parse()?];
        let [claim, another] = tokens.clone().map(Claim::from);
        let _ = backend.allocate(pool, claimant, std::slice::from_ref(&claim)).await?;
        backend.release(pool, execution, &tokens[..1]).await?;
        backend.allocate(pool, claimant, &[claim.clone(), another]).await?;
        backend.release(pool, execution, &tokens).await?;
        let lease = Lease::new(LEASE)?;
        let _ = backend.allocate(pool, claimant, &[claim.clone().with_lease(lease)]).await?;
        let renewal = Renewal { execution, token: &tokens[0], lease };
        let _ = backend.renew(pool, &[renewal]).await?;
        let ticket = TicketRequest::new(lease).with_channel(self.channel.clone());
        let _ = backend.wait(pool, claimant, &claim, &ticket).await?;
        backend.release(pool, execution, &tokens[..1]).await?;
        Ok(8)
    }
}

/// The whole name of a pool of the stage.
pub(crate) fn pool_name(pool: &str) -> PoolName {
    format!("{PLUGIN}:{pool}").parse().expect("the pool's name is good")
}

/// Both caps.
pub(crate) fn caps() -> ResourceConstraintsSpec {
    ResourceConstraintsSpec::new(Some(CAP), Some(CAP)).expect("the caps are good")
}
