//! A Redis server of the test's own: started for it, killed with it.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// A server on a unix socket in a private directory, and perhaps on a port, killed when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    // Dropped in this order: the process first, then its directory.
    process: Process,
    directory: TempDir,
    pub(crate) port: Option<u16>,
    arguments: Vec<String>,
    environment: Vec<(&'static str, PathBuf)>,
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

impl Server {
    /// Starts a server without persistence.
    pub(crate) fn start() -> Self {
        Self::start_with(&["--appendonly", "no"])
    }

    /// Starts a server with further arguments that clients reach over TCP, on a port that was free a moment ago:
    /// should somebody else take it, the server does not start and says so.
    pub(crate) fn start_on_tcp(arguments: &[&str]) -> Self {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|free| free.local_addr());
        let port = free.expect("there is a free port").port();
        let address = &["--bind", "127.0.0.1", "--port", &port.to_string()];
        Self { port: Some(port), ..Self::start_with(&[address, arguments].concat()) }
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
        let arguments: Vec<_> = arguments.iter().map(ToString::to_string).collect();
        let process = launch(directory.path(), &arguments, &environment);
        Self { process, directory, port: None, arguments, environment }
    }

    /// Address for clients.
    pub(crate) fn url(&self) -> String {
        match self.port {
            Some(port) => format!("redis://127.0.0.1:{port}"),
            None => format!("unix://{}", self.socket().display()),
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("s")
    }

    /// Ends the server at once and starts it again, with what it has written to disk.
    pub(crate) fn restart(&mut self) {
        self.kill();
        self.process = launch(self.directory.path(), &self.arguments, &self.environment);
    }

    /// Ends the server at once.
    pub(crate) fn kill(&mut self) {
        self.process.0.kill().expect("the server can be killed");
        self.process.0.wait().expect("the server's end can be awaited");
    }

    /// Sends a signal to the server.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &id]).status();
        assert!(sent.expect("kill can be started").success());
    }

    /// Process id, to send signals to.
    pub(crate) fn id(&self) -> u32 {
        self.process.0.id()
    }

    /// A connection for looking at what is really there.
    pub(crate) fn raw(&self) -> redis::Connection {
        redis::Client::open(self.url())
            .and_then(|client| client.get_connection())
            .expect("the test's own server accepts connections")
    }
}

pub(crate) fn directory() -> TempDir {
    tempfile::tempdir().expect("a temporary directory can be made")
}

fn launch(
    directory: &Path,
    arguments: &[String],
    environment: &[(&'static str, PathBuf)],
) -> Process {
    let binary = std::env::var("TOKENPOOL_TEST_SERVER").unwrap_or("redis-server".to_owned());
    let mut process = Command::new(&binary)
        .current_dir(directory)
        .args(["--port", "0", "--unixsocket", "s", "--save", "", "--loglevel", "notice"])
        .args(arguments)
        .envs(environment.iter().map(|(name, value)| (name, value)))
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
    let ready = lines.any(|line| line.to_lowercase().contains("ready to accept connections"));
    assert!(ready, "{binary} ended before it was ready");
    process
}
