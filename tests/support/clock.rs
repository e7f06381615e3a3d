//! A clock that a test moves, for a server and a memory backend alike.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokenpool::ManualClock;

use super::server::{Server, directory};

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

/// Starts a server whose clock stands still until the test moves it.
pub(crate) fn server_with_clock() -> (Server, Clock) {
    let directory = directory();
    let path = directory.path().join("clock");
    let clock = Clock { file: Some(File::create(&path).unwrap()), ..Clock::new() };
    clock.show();
    let environment =
        vec![("LD_PRELOAD", clock_library().to_owned()), ("TOKENPOOL_TEST_CLOCK", path)];
    (Server::start_in(directory, &["--appendonly", "no"], environment), clock)
}
