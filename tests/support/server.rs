//! A Redis server of the test's own: started for it, killed with it.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use redis::{
    AsyncConnectionConfig, Client, FromRedisValue, IntoConnectionInfo, RedisConnectionInfo,
};
use tempfile::TempDir;

/// A server on a unix socket in a private directory, and perhaps on a port, killed when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    // Dropped in this order: the process first, then its directory and its port.
    process: Process,
    directory: TempDir,
    pub(crate) port: Option<u16>,
    setup: Setup,
    runs: AtomicBool,
}

#[derive(Debug)]
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already, which is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How a server is started, each time.
#[derive(Debug, Default)]
pub(crate) struct Setup {
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(&'static str, PathBuf)>,
    /// Lines of a file that the server may rewrite.
    pub(crate) configuration: Vec<String>,
    pub(crate) mode: Mode,
    pub(crate) port: Option<Port>,
    pub(crate) wire: Wire,
    /// How the test's own connections log in; the rest of the setup must let them.
    pub(crate) login: Option<Login>,
}

/// What the binary becomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    #[default]
    Server,
    Sentinel,
}

/// What is spoken on the port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Wire {
    #[default]
    Plain,
    Tls,
}

/// A password, of everybody or of a user.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Login {
    pub(crate) user: Option<&'static str>,
    pub(crate) password: &'static str,
}

impl Login {
    /// Lines for the configuration of a server where nobody else may do anything.
    pub(crate) fn required(self) -> Vec<String> {
        let Self { user, password } = self;
        match user {
            None => vec![format!("requirepass {password}")],
            Some(user) => {
                let all = format!("user {user} on >{password} ~* &* +@all");
                vec!["user default off".to_owned(), all]
            }
        }
    }

    /// Lines for the configuration of a replica of such a server.
    pub(crate) fn of_replica(self) -> Vec<String> {
        let user = self.user.map(|user| format!("masteruser {user}"));
        user.into_iter().chain([format!("masterauth {}", self.password)]).collect()
    }
}

/// A port on loopback that no other test gets while this is kept, and neither does it get the port of a cluster's bus,
/// 10000 above: a server that is down finds both free when it is started again.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) number: u16,
    /// Says so to other processes: nobody here wants the same port for UDP.
    _taken: UdpSocket,
}

impl Port {
    /// One below those that the system gives to clients.
    pub(crate) fn take() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // Processes begin at different places.
        let begin = std::process::id().wrapping_mul(61);
        (0..10_000)
            .find_map(|_| {
                let offset = begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000;
                let number = 12_000 + u16::try_from(offset).ok()?;
                let taken = UdpSocket::bind((Ipv4Addr::LOCALHOST, number)).ok()?;
                for number in [number, number + 10_000] {
                    TcpListener::bind((Ipv4Addr::LOCALHOST, number)).ok()?;
                }
                Some(Self { number, _taken: taken })
            })
            .expect("there is a free port")
    }

    /// `host:port`.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.number)
    }
}

impl Server {
    /// Starts a server without persistence.
    pub(crate) fn start() -> Self {
        Self::start_with(&["--appendonly", "no"])
    }

    /// Starts a server with further arguments that clients reach over TCP.
    pub(crate) fn start_on_tcp(arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(ToString::to_string).collect();
        Self::start_as(Setup { arguments, port: Some(Port::take()), ..Setup::default() })
    }

    /// Starts a server with further arguments that clients reach over TLS alone; the arguments say with which
    /// certificates.
    pub(crate) fn start_on_tls(arguments: Vec<String>) -> Self {
        let (port, wire) = (Some(Port::take()), Wire::Tls);
        Self::start_as(Setup { arguments, port, wire, ..Setup::default() })
    }

    /// Starts a server with further arguments.
    ///
    /// The binary is `TOKENPOOL_TEST_SERVER`, else `redis-server` on the path.
    pub(crate) fn start_with(arguments: &[&str]) -> Self {
        Self::start_in(directory(), arguments, Vec::new())
    }

    /// Starts a server in a directory of the test's with further environment variables.
    pub(crate) fn start_in(
        directory: TempDir,
        arguments: &[&str],
        environment: Vec<(&'static str, PathBuf)>,
    ) -> Self {
        let arguments = arguments.iter().map(ToString::to_string).collect();
        Self::start_there(directory, Setup { arguments, environment, ..Setup::default() })
    }

    /// Starts a server in any other way.
    pub(crate) fn start_as(setup: Setup) -> Self {
        Self::start_there(directory(), setup)
    }

    fn start_there(directory: TempDir, setup: Setup) -> Self {
        if let Some(file) = setup.file(directory.path()) {
            let lines = setup.configuration.join("\n") + "\n";
            std::fs::write(file, lines).expect("the directory is the test's own");
        }
        let process = setup.launch(directory.path());
        let port = setup.port.as_ref().map(|port| port.number);
        Self { process, directory, port, setup, runs: AtomicBool::new(true) }
    }

    /// Address for clients.
    pub(crate) fn url(&self) -> String {
        match (self.port, self.setup.wire) {
            (Some(port), Wire::Plain) => format!("redis://127.0.0.1:{port}"),
            (Some(port), Wire::Tls) => format!("rediss://127.0.0.1:{port}"),
            (None, _) => format!("unix://{}", self.socket().display()),
        }
    }

    /// `host:port` of a server that has one.
    pub(crate) fn address(&self) -> String {
        self.setup.port.as_ref().expect("the server is on a port").address()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("s")
    }

    /// Ends the server at once and starts it again, with what it has written to disk.
    pub(crate) fn restart(&mut self) {
        self.kill();
        self.process = self.setup.launch(self.directory.path());
        *self.runs.get_mut() = true;
    }

    /// Ends the server at once.
    pub(crate) fn kill(&mut self) {
        self.process.0.kill().expect("the server can be killed");
        self.process.0.wait().expect("the server's end can be awaited");
        *self.runs.get_mut() = false;
    }

    /// Sends a signal to the server.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &id]).status();
        assert!(sent.expect("kill can be started").success());
        match name {
            "STOP" => self.runs.store(false, Ordering::Relaxed),
            "CONT" => self.runs.store(true, Ordering::Relaxed),
            _ => {}
        }
    }

    /// Whether the test has neither killed nor stopped it.
    pub(crate) fn runs(&self) -> bool {
        self.runs.load(Ordering::Relaxed)
    }

    /// Process id, to send signals to.
    pub(crate) fn id(&self) -> u32 {
        self.process.0.id()
    }

    /// A connection for looking at what is really there, past what is on the port.
    pub(crate) fn raw(&self) -> redis::Connection {
        self.client().get_connection().expect("the test's own server accepts connections")
    }

    /// What the server says, if it does so within a second and is no error.
    pub(crate) async fn answer<T: FromRedisValue>(&self, words: &[&str]) -> Option<T> {
        let limit = Some(Duration::from_secs(1));
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(limit).set_response_timeout(limit);
        let client = self.client();
        let mut connection =
            client.get_multiplexed_async_connection_with_config(&config).await.ok()?;
        redis::cmd(words[0]).arg(&words[1..]).query_async(&mut connection).await.ok()
    }

    fn client(&self) -> Client {
        let mut settings = RedisConnectionInfo::default();
        if let Some(Login { user, password }) = self.setup.login {
            settings = settings.set_username(user.unwrap_or("default")).set_password(password);
        }
        format!("unix://{}", self.socket().display())
            .into_connection_info()
            .and_then(|info| Client::open(info.set_redis_settings(settings)))
            .expect("the path is an address")
    }
}

pub(crate) fn directory() -> TempDir {
    tempfile::tempdir().expect("a temporary directory can be made")
}

/// The server under test.
pub(crate) fn binary() -> String {
    std::env::var("TOKENPOOL_TEST_SERVER").unwrap_or("redis-server".to_owned())
}

impl Setup {
    /// Where the configuration is, if it is in a file.
    fn file(&self, directory: &Path) -> Option<PathBuf> {
        (!self.configuration.is_empty()).then(|| directory.join("configuration"))
    }

    fn launch(&self, directory: &Path) -> Process {
        let binary = binary();
        let mut command = Command::new(&binary);
        command.current_dir(directory).args(self.file(directory));
        command.args(["--port", "0", "--unixsocket", "s", "--save", "", "--loglevel", "notice"]);
        if let Some(port) = &self.port {
            let kind = match self.wire {
                Wire::Plain => "--port",
                Wire::Tls => "--tls-port",
            };
            command.args(["--bind", "127.0.0.1", kind, &port.number.to_string()]);
        }
        command.args(&self.arguments);
        let last_words = match self.mode {
            Mode::Server => "ready to accept connections",
            Mode::Sentinel => {
                command.arg("--sentinel");
                "sentinel id is"
            }
        };
        let mut process = command
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map(Process)
            .unwrap_or_else(|error| {
                panic!("{binary} cannot be started ({error}); see tests/servers.sh")
            });
        let output = process.0.stdout.take().expect("its output is piped");
        let mut lines = BufReader::new(output).lines().map_while(Result::ok);
        let ready = lines.any(|line| line.to_lowercase().contains(last_words));
        assert!(ready, "{binary} ended before it was ready");
        process
    }
}
