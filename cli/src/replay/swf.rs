//! Reading the [Standard Workload Format] of the Parallel Workloads Archive.
//!
//! A line is a job: 18 numbers, -1 where unknown. Lines that begin with `;` are the header.
//!
//! [Standard Workload Format]: https://www.cs.huji.ac.il/labs/parallel/workload/swf.html

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use tokenpool::Units;

use crate::output::one_line;

const FIELDS: [&str; 18] = [
    "job number",
    "submit time",
    "wait time",
    "run time",
    "allocated processors",
    "average CPU time",
    "used memory",
    "requested processors",
    "requested time",
    "requested memory",
    "status",
    "user id",
    "group id",
    "executable",
    "queue",
    "partition",
    "preceding job",
    "think time",
];

/// The fields that a replay uses, counted from 1 as in the format's description.
const JOB_NUMBER: usize = 1;
const SUBMIT_TIME: usize = 2;
const RUN_TIME: usize = 4;
const ALLOCATED: usize = 5;
const REQUESTED: usize = 8;
const STATUS: usize = 11;
const USER: usize = 12;
const GROUP: usize = 13;
const QUEUE: usize = 15;

/// The queue of interactive jobs, by the format's convention.
const INTERACTIVE: i64 = 0;

const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Longest line, in bytes: what is not a log at all is then not read into memory whole.
const MAX_LINE: u64 = 64 * 1024;

/// A job that ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) number: u64,
    /// Second of the log's clock at which it was submitted.
    pub(super) submit: u64,
    /// Seconds it ran.
    pub(super) run_time: u64,
    /// Its processors.
    pub(super) units: Units,
    pub(super) owner: Owner,
    /// Whether somebody waits for it at a terminal, as far as the log knows.
    pub(super) interactive: bool,
}

/// Whose job it is; none where the log does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Owner {
    pub(super) user: Option<u64>,
    pub(super) group: Option<u64>,
}

/// A log.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// The jobs in the order of their submit times.
    pub(super) jobs: Vec<Job>,
    /// Lines of jobs that did not run, as far as the log knows.
    pub(super) skipped: u64,
    /// The machine's processors, or else its nodes, as the header gives them.
    pub(super) processors: Option<i64>,
}

/// Why a log cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    #[error("{}: cannot be read", file.display())]
    Unreadable { file: PathBuf, source: io::Error },
    #[error("{}: line {line}: cannot be read, is the file damaged or truncated?", file.display())]
    Damaged { file: PathBuf, line: u64, source: io::Error },
    #[error("{}: line {line}: longer than {MAX_LINE} bytes, so not a job log", file.display())]
    LongLine { file: PathBuf, line: u64 },
    #[error("{}: line {line}: field {field}{}: {problem}", file.display(), field_name(*field))]
    Malformed { file: PathBuf, line: u64, field: usize, problem: String },
    #[error("{}: no job in it", file.display())]
    Empty { file: PathBuf },
}

fn field_name(field: usize) -> String {
    FIELDS.get(field.wrapping_sub(1)).map(|name| format!(" ({name})")).unwrap_or_default()
}

/// Reads a log, plain or gzip.
pub(super) fn read(file: &Path) -> Result<Log, LogError> {
    let unreadable = |source| LogError::Unreadable { file: file.to_owned(), source };
    let mut bytes = BufReader::new(File::open(file).map_err(unreadable)?);
    let start = bytes.fill_buf().map_err(unreadable)?;
    if start.starts_with(&GZIP) {
        parse(file, BufReader::new(MultiGzDecoder::new(bytes)))
    } else {
        parse(file, bytes)
    }
}

fn parse(file: &Path, mut reader: impl BufRead) -> Result<Log, LogError> {
    let file = || file.to_owned();
    let mut log = Log::default();
    let mut lines_of_jobs = HashMap::new();
    let mut nodes = None;
    let mut bytes = Vec::new();
    for line in 1.. {
        bytes.clear();
        let read = reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut bytes);
        match read.map_err(|source| LogError::Damaged { file: file(), line, source })? as u64 {
            0 => break,
            MAX_LINE => return Err(LogError::LongLine { file: file(), line }),
            _ => {}
        }
        // Names in the header may be Latin-1.
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim();
        if let Some(comment) = text.strip_prefix(';') {
            log.processors = log.processors.or_else(|| number_after("MaxProcs:", comment));
            nodes = nodes.or_else(|| number_after("MaxNodes:", comment));
            continue;
        }
        if text.is_empty() {
            continue;
        }
        let malformed =
            |(field, problem)| LogError::Malformed { file: file(), line, field, problem };
        let Some(job) = job(text).map_err(malformed)? else {
            log.skipped += 1;
            continue;
        };
        if let Some(before) = lines_of_jobs.insert(job.number, line) {
            let problem = format!("{} stands on line {before} already", job.number);
            return Err(malformed((JOB_NUMBER, problem)));
        }
        if let Some(before) = log.jobs.last().filter(|before| before.submit > job.submit) {
            let problem = format!("{} is before the previous job's {}", job.submit, before.submit);
            return Err(malformed((SUBMIT_TIME, problem)));
        }
        log.jobs.push(job);
    }
    if log.jobs.is_empty() && log.skipped == 0 {
        return Err(LogError::Empty { file: file() });
    }
    log.processors = log.processors.or(nodes);
    Ok(log)
}

fn number_after(name: &str, comment: &str) -> Option<i64> {
    comment.trim_start().strip_prefix(name)?.split_whitespace().next()?.parse().ok()
}

/// A field and what is wrong with it.
type Problem = (usize, String);

/// The job of a line; none if it did not run, or the line is about a part of its execution.
fn job(line: &str) -> Result<Option<Job>, Problem> {
    let texts: Vec<_> = line.split_whitespace().collect();
    if texts.len() < FIELDS.len() {
        let problem = format!("missing, the line has {} of {} fields", texts.len(), FIELDS.len());
        return Err((texts.len() + 1, problem));
    }
    if texts.len() > FIELDS.len() {
        let problem = format!("one too many, the line has {} fields", texts.len());
        return Err((FIELDS.len() + 1, problem));
    }
    for (i, text) in texts.iter().enumerate() {
        // Some logs have fractions, in fields that do not matter here.
        if !text.parse().is_ok_and(f64::is_finite) {
            return Err((i + 1, format!("{} is not a number", quoted(text))));
        }
    }
    let number = |field: usize| -> Result<i64, Problem> {
        let text = texts[field - 1];
        text.parse().map_err(|_| (field, format!("{} is not a whole number", quoted(text))))
    };
    let at_least = |least: i64, field: usize| -> Result<u64, Problem> {
        let value = number(field)?;
        match u64::try_from(value) {
            Ok(natural) if value >= least => Ok(natural),
            _ => Err((field, format!("{value} is below {least}"))),
        }
    };
    let known = |least: i64, field: usize| -> Result<Option<u64>, Problem> {
        match number(field)? {
            -1 => Ok(None),
            _ => at_least(least, field).map(Some),
        }
    };

    let job_number = at_least(1, JOB_NUMBER)?;
    let submit = at_least(0, SUBMIT_TIME)?;
    let run_time = known(0, RUN_TIME)?;
    let owner = Owner { user: known(0, USER)?, group: known(0, GROUP)? };
    // 2, 3 and 4 are parts of an execution that another line sums up; 5 was cancelled, perhaps
    // before it started.
    let ran = match number(STATUS)? {
        2..=4 => false,
        5 => run_time > Some(0),
        _ => true,
    };
    let Some(run_time) = run_time.filter(|_| ran) else { return Ok(None) };
    let processors = match known(1, ALLOCATED)? {
        Some(processors) => (ALLOCATED, processors),
        None => match known(1, REQUESTED)? {
            Some(processors) => (REQUESTED, processors),
            None => {
                let problem = "unknown, and so is field 8 (requested processors)".to_owned();
                return Err((ALLOCATED, problem));
            }
        },
    };
    let (field, processors) = processors;
    let units = i64::try_from(processors).ok().and_then(|units| Units::new(units).ok());
    let units = units.ok_or_else(|| (field, format!("{processors} is above {}", u32::MAX)))?;
    let interactive = texts[QUEUE - 1].parse() == Ok(INTERACTIVE);
    Ok(Some(Job { number: job_number, submit, run_time, units, owner, interactive }))
}

/// What stands in the file, short enough for an error.
fn quoted(text: &str) -> String {
    let short: String = text.chars().take(40).collect();
    let dots = if short.len() < text.len() { "..." } else { "" };
    format!("\"{}{dots}\"", one_line(&short))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    const JOB: &str = "1 0 -1 1451 128 -1 -1 -1 -1 -1 -1 1 2 -1 -1 -1 -1 -1";

    fn parsed(text: &str) -> Result<Log, String> {
        parse(Path::new("log"), text.as_bytes()).map_err(|error| error.to_string())
    }

    /// The line with a field changed.
    fn with(field: usize, value: &str) -> String {
        let mut fields: Vec<_> = JOB.split(' ').collect();
        fields[field - 1] = value;
        fields.join(" ")
    }

    #[test]
    fn a_job_is_read_from_its_fields() {
        let owner = Owner { user: Some(1), group: Some(2) };
        let units = Units::new(128).expect("valid");
        let job = Job { number: 1, submit: 0, run_time: 1451, units, owner, interactive: false };
        assert_eq!(parsed(JOB).expect("valid").jobs, [job]);
        let interactive = parsed(&with(QUEUE, "0")).expect("valid");
        assert_eq!(interactive.jobs, [Job { interactive: true, ..job }]);
    }

    #[test]
    fn the_header_tells_the_size_of_the_machine() {
        let size = |header: &str| parsed(&format!("{header}\n{JOB}")).expect("valid").processors;
        assert_eq!(size("; MaxNodes: 64\n;   MaxProcs: 128 (4 racks)"), Some(128));
        assert_eq!(size(";MaxNodes: 64"), Some(64));
        assert_eq!(size("; Note: no MaxProcs: 128"), None);
    }

    #[test]
    fn requested_processors_stand_in_for_unknown_allocated_ones() {
        let line =
            with(ALLOCATED, "-1").replace("-1 -1 -1 -1 -1 -1 -1 1 2", "-1 -1 -1 7 -1 -1 -1 1 2");
        let log = parsed(&line);
        assert_eq!(log.map(|log| log.jobs[0].units.get()), Ok(7));
    }

    #[test]
    fn jobs_that_did_not_run_are_skipped() {
        for line in [with(RUN_TIME, "-1"), with(STATUS, "2"), with(STATUS, "4")] {
            let log = parsed(&line).expect("valid");
            assert_eq!((log.jobs.len(), log.skipped), (0, 1), "{line}");
        }
        let cancelled = with(STATUS, "5");
        assert_eq!(parsed(&cancelled).expect("valid").skipped, 0);
        let at_once = cancelled.replace(" 1451 128", " 0 0");
        assert_eq!(parsed(&at_once).expect("valid").skipped, 1);
    }

    #[test]
    fn unknown_owners_are_allowed() {
        let log = parsed(&with(USER, "-1")).expect("valid");
        assert_eq!(log.jobs[0].owner, Owner { user: None, group: Some(2) });
    }

    #[test]
    fn malformed_lines_are_refused_with_file_line_and_field() {
        let cases = [
            ("1 2 3".to_owned(), "field 4 (run time): missing, the line has 3 of 18 fields"),
            (format!("{JOB} 1"), "field 19: one too many, the line has 19 fields"),
            (with(7, "x"), "field 7 (used memory): \"x\" is not a number"),
            (with(7, "NaN"), "field 7 (used memory): \"NaN\" is not a number"),
            (with(4, "1.5"), "field 4 (run time): \"1.5\" is not a whole number"),
            (with(1, "0"), "field 1 (job number): 0 is below 1"),
            (with(2, "-1"), "field 2 (submit time): -1 is below 0"),
            (with(4, "-2"), "field 4 (run time): -2 is below 0"),
            (with(5, "0"), "field 5 (allocated processors): 0 is below 1"),
            (with(5, "-2"), "field 5 (allocated processors): -2 is below 1"),
            (
                with(5, "-1"),
                "field 5 (allocated processors): unknown, and so is field 8 (requested processors)",
            ),
            (
                with(5, "4294967296"),
                "field 5 (allocated processors): 4294967296 is above 4294967295",
            ),
            (with(12, "-7"), "field 12 (user id): -7 is below 0"),
            (JOB.to_owned(), "field 1 (job number): 1 stands on line 2 already"),
        ];
        for (line, problem) in cases {
            let error = parsed(&format!("; header\n{JOB}\n{line}\n")).map(|_| ());
            assert_eq!(error, Err(format!("log: line 3: {problem}")));
        }
        let later = JOB.replacen("1 0", "2 10", 1);
        let back = parsed(&format!("{later}\n{JOB}")).map(|_| ());
        let problem = "log: line 2: field 2 (submit time): 0 is before the previous job's 10";
        assert_eq!(back, Err(problem.to_owned()));
    }

    #[test]
    fn what_is_no_log_is_refused() {
        assert_eq!(parsed("").map(|_| ()), Err("log: no job in it".to_owned()));
        assert_eq!(parsed("; MaxProcs: 1\n").map(|_| ()), Err("log: no job in it".to_owned()));
        let endless = parse(Path::new("log"), BufReader::new(io::repeat(b'1')));
        let problem = "log: line 1: longer than 65536 bytes, so not a job log";
        assert_eq!(endless.map(|_| ()).map_err(|e| e.to_string()), Err(problem.to_owned()));
    }

    #[test]
    fn gzip_may_have_several_members() -> io::Result<()> {
        let mut bytes = Vec::new();
        for line in [JOB, &JOB.replacen('1', "2", 1)] {
            let mut member = GzEncoder::new(&mut bytes, Compression::fast());
            writeln!(member, "{line}")?;
            member.finish()?;
        }
        let log = parse(Path::new("log"), BufReader::new(MultiGzDecoder::new(&*bytes)));
        assert_eq!(log.expect("valid").jobs.len(), 2);
        Ok(())
    }
}
