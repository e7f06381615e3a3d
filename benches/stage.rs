//! A server with pools that the library set up.

use std::sync::Arc;

use redis::{Connection, InfoDict};
use tokenpool::{
    Backend, Config, ExecutionId, Holder, Manager, Registrar, ResourceConstraintsSpec,
    ResourceNamespace, ResourceRegistrar, TaskResourceManager,
};
use tokio::runtime::Runtime;

use crate::calls::{Calls, HOLDER, PLUGIN, Token};
use crate::cores;
use crate::load::Load;
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
}

impl Stage {
    /// Starts a server with these pools and their quotas.
    pub(crate) fn start(pools: &[(&str, i64)]) -> Self {
        let server = Server::start();
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
            Ok::<_, tokenpool::Error>((backend, registrar.build().await?))
        };
        let (backend, manager) = runtime.block_on(open).expect("the library opens the server");
        let admin = server.raw();
        let mut stage = Self { runtime, backend, manager, admin, server };
        for (name, _) in pools {
            stage.prove(name);
        }
        stage
    }

    /// The calls of one pool, for a load.
    pub(crate) fn calls(&mut self, pool: &str) -> Calls {
        Calls::of(pool, &mut self.admin)
    }

    /// Clients for a load.
    pub(crate) fn load(&self) -> Load {
        Load::connect(&self.server)
    }

    /// The library's view for the execution of a token.
    pub(crate) fn view(&self, token: &Token) -> TaskResourceManager {
        let execution = ExecutionId::new(&token.project, &token.domain, &token.execution);
        let plugin = PLUGIN.parse().expect("the plugin's id is good");
        self.manager.for_execution(plugin, execution.expect("the execution's name is good"))
    }

    /// What the server spent on each EVALSHA while `run` ran, in microseconds.
    pub(crate) fn cost(&mut self, calls: usize, run: impl FnOnce()) -> f64 {
        redis::cmd("CONFIG")
            .arg("RESETSTAT")
            .exec(&mut self.admin)
            .expect("the server's counters can be reset");
        run();
        let (counted, micros) = self.evalsha();
        assert_eq!(counted, calls, "a load makes as many calls as it should");
        micros / counted as f64
    }

    /// Calls of EVALSHA and microseconds spent on them since the counters were reset.
    fn evalsha(&mut self) -> (usize, f64) {
        let line: String = self.info("commandstats").get("cmdstat_evalsha").unwrap_or_default();
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
        let view = self.view(&token);
        let namespace: ResourceNamespace = pool.parse().expect("the pool's name is good");
        let caps = caps();
        let mut monitor = Monitor::start(&self.server);
        let by_library = async {
            let tokens: [tokenpool::AllocationToken; 2] =
                [token.token.parse()?, "another".parse()?];
            let claims = tokens.clone().map(Into::into);
            let _ = view.allocate(&namespace, tokens[0].clone(), caps).await?;
            view.release_many(&namespace, &tokens[..1]).await?;
            view.allocate_many(&namespace, &claims, caps).await?;
            view.release_many(&namespace, &tokens).await
        };
        self.runtime.block_on(by_library).expect("the library can claim");
        let sent = monitor.calls(4);
        let both = [token.token.as_str(), "another"];
        for cmd in [
            calls.allocate(&token),
            calls.release(&token),
            calls.allocate_many(&token, both),
            calls.release_many(&token, both),
        ] {
            let _: redis::Value = cmd.query(&mut self.admin).expect("the call is right");
        }
        assert_eq!(monitor.calls(4), sent, "a load sends what the library sends");
    }
}

/// Both caps.
pub(crate) fn caps() -> ResourceConstraintsSpec {
    ResourceConstraintsSpec::new(Some(CAP), Some(CAP)).expect("the caps are good")
}

/// Sees the commands that clients send.
struct Monitor(Connection);

impl Monitor {
    fn start(server: &Server) -> Self {
        let mut connection = server.raw();
        redis::cmd("MONITOR").exec(&mut connection).expect("the server can be monitored");
        Self(connection)
    }

    /// The next calls of scripts, without time and address of the client.
    fn calls(&mut self, count: usize) -> Vec<String> {
        let lines = std::iter::from_fn(|| match self.0.recv_response() {
            Ok(redis::Value::SimpleString(line)) => Some(line),
            other => panic!("{other:?} is not a line of MONITOR"),
        });
        let calls = lines.filter_map(|line| {
            let (client, call) = line.split_once("] ")?;
            let of_client = !client.ends_with(" lua") && call.starts_with("\"EVALSHA\"");
            of_client.then(|| call.to_owned())
        });
        calls.take(count).collect()
    }
}
