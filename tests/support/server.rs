//! A Redis server of the test's own: started for it, killed with it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tempfile::TempDir;
use tokenpool::ManualClock;

/// A server on a unix socket in a private directory, killed when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    // Dropped in this order: the process first, then its directory.
    process: Process,
    directory: TempDir,
    arguments: Vec<String>,
    environment: Vec<(&'static str, PathBuf)>,
}

/// The clock of a server, and of a memory backend beside it, which stands still until a test moves it.
#[derive(Debug)]
pub(crate) struct Clock {
    /// What the server reads.
    file: Option<File>,
    /// What a memory backend reads.
    pub(crate) twin: Arc<ManualClock>,
}

impl Clock {
    /// A clock that shows today, in whole seconds.
    pub(crate) fn new() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        // Valkey adds some microseconds that have passed, so there is room for them in a millisecond.
        let start = UNIX_EPOCH + Duration::from_secs(since_epoch.as_secs());
        Self { file: None, twin: Arc::new(ManualClock::new(start)) }
    }

    pub(crate) fn now(&self) -> SystemTime {
        tokenpool::Clock::now(&*self.twin)
    }


    pub(crate) fn advance(&self, by: Duration) {
        self.twin.advance(by);
        self.show();
    }

    fn show(&self) {
        let Some(file) = &self.file else { return };
        let micros = self.now().duration_since(UNIX_EPOCH).unwrap().as_micros();
        let micros = i64::try_from(micros).unwrap();
        file.write_all_at(&micros.to_ne_bytes(), 0).unwrap();
    }
}

/// The library that `clock.c` becomes.
fn clock_library() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/clock.c");
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let library = directory.join("clock.so");
        // Under a name of its own first, because another test run may be using the library.
        let unique = directory.join(format!("clock-{}.so", std::process::id()));
        let status = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .args([&unique, Path::new(source)])
            .status()
            .expect("cc, which Rust links with, can be started");
        assert!(status.success(), "{source} cannot be compiled");
        fs::rename(&unique, &library).unwrap();
        library
    })
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

    /// Starts a server with further arguments.
    ///
    /// The binary is `TOKENPOOL_TEST_SERVER`, else `redis-server` on the path.
    pub(crate) fn start_with(arguments: &[&str]) -> Self {
        Self::start_in(directory(), arguments, Vec::new())
    }

    /// Starts a server whose clock stands still until the test moves it.
    pub(crate) fn start_with_clock() -> (Self, Clock) {
        let directory = directory();
        let path = directory.path().join("clock");
        let clock = Clock { file: Some(File::create(&path).unwrap()), ..Clock::new() };
        clock.show();
        let environment =
            vec![("LD_PRELOAD", clock_library().to_owned()), ("TOKENPOOL_TEST_CLOCK", path)];
        (Self::start_in(directory, &["--appendonly", "no"], environment), clock)
    }

    fn start_in(
        directory: TempDir,
        arguments: &[&str],
        environment: Vec<(&'static str, PathBuf)>,
    ) -> Self {
        let arguments: Vec<_> = arguments.iter().map(ToString::to_string).collect();
        let process = launch(directory.path(), &arguments, &environment);
        Self { process, directory, arguments, environment }
    }

    /// Address for clients.
    pub(crate) fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
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

fn directory() -> TempDir {
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
        .unwrap_or_else(|error| panic!("{binary} cannot be started ({error}); see `make servers`"));
    let output = process.0.stdout.take().expect("its output is piped");
    let mut lines = BufReader::new(output).lines().map_while(Result::ok);
    let ready = lines.any(|line| line.to_lowercase().contains("ready to accept connections"));
    assert!(ready, "{binary} ended before it was ready");
    process
}
