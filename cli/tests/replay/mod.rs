//! Replaying job logs.

mod logs;
mod orders;
mod sharing;
mod stopping;
mod truth;

use std::fmt::Write;
use std::path::PathBuf;

use tempfile::TempDir;

/// The real log: 18 239 jobs on 128 processors.
const NASA: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/data/NASA-iPSC-1993-3.1-cln.swf.gz");

/// A job of a log made for a test: submit time, run time, processors, user.
type Job = (u64, i64, i64, u64);

/// A log in a directory of its own.
#[derive(Debug)]
struct LogFile {
    directory: TempDir,
}

impl LogFile {
    /// A file of this content.
    fn of_bytes(content: impl AsRef<[u8]>) -> Self {
        let log = Self { directory: tempfile::tempdir().unwrap() };
        std::fs::write(log.path(), content).unwrap();
        log
    }

    /// A log of these jobs on a machine of this size.
    fn new(processors: u32, jobs: &[Job]) -> Self {
        let mut text = format!("; MaxProcs: {processors}\n");
        for (i, job) in jobs.iter().enumerate() {
            writeln!(text, "{}", line(i + 1, job)).unwrap();
        }
        Self::of_bytes(text)
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("test.swf")
    }

    /// The command that replays it, up to its options.
    fn replay(&self) -> String {
        format!("replay {} ", self.path().display())
    }
}

fn line(number: usize, (submit, run, processors, user): &Job) -> String {
    format!("{number} {submit} -1 {run} {processors} -1 -1 -1 -1 -1 -1 {user} 1 -1 -1 -1 -1 -1")
}

/// A log whose jobs overlap much: every second one more, for some seconds, of some processors.
fn crowded(processors: u32, jobs: u64) -> LogFile {
    let jobs: Vec<Job> = (0..jobs)
        .map(|i| (i, (i % 37) as i64, 1 + (i * i % u64::from(processors)) as i64, i % 5))
        .collect();
    LogFile::new(processors, &jobs)
}
