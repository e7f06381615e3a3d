//! Logs that cannot be replayed: an error that says where, and an untouched Redis.

use std::fs;
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::{LogFile, NASA, line};
use crate::program::tokenpool;
use crate::server::Server;

#[test]
fn a_malformed_line_is_named_with_file_line_and_field() {
    let server = Server::start();
    let good = line(1, &(10, 10, 1, 1));
    for (bad, problem) in [
        ("1 2 3".to_owned(), "field 4 (run time): missing, the line has 3 of 18 fields"),
        (format!("{good} 7"), "field 19: one too many, the line has 19 fields"),
        (good.replace("1 10", "x 10"), "field 1 (job number): \"x\" is not a number"),
        (line(2, &(11, -3, 1, 1)), "field 4 (run time): -3 is below 0"),
        (line(2, &(11, 1, 0, 1)), "field 5 (allocated processors): 0 is below 1"),
        (
            line(2, &(11, 1, -1, 1)),
            "field 5 (allocated processors): unknown, and so is field 8 (requested processors)",
        ),
        (line(2, &(9, 1, 1, 1)), "field 2 (submit time): 9 is before the previous job's 10"),
        (line(1, &(11, 1, 1, 1)), "field 1 (job number): 1 stands on line 2 already"),
        (
            good.replace("1 10", "\u{1b}[31m 10"),
            "field 1 (job number): \"\\u{1b}[31m\" is not a number",
        ),
    ] {
        let log = LogFile::of_bytes(format!("; MaxProcs: 4\n{good}\n{bad}\n"));
        let error = format!("{}: line 3: {problem}", log.path().display());
        server.tokenpool(&log.replay()).fails_with(2, &error);
        tokenpool(&(log.replay() + "-o json")).fails_with(2, &error);
    }
    server.is_empty();
}

#[test]
fn a_truncated_or_damaged_gzip_file_is_an_error() {
    let server = Server::start();
    let whole = fs::read(NASA).unwrap();
    let half = &whole[..whole.len() / 2];
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 0xff;
    for bytes in [half, &whole[..5], &whole[..whole.len() - 1], &damaged] {
        let log = LogFile::of_bytes(bytes);
        let run = server.tokenpool(&log.replay()).exits_with(2);
        let file = log.path().display().to_string();
        assert!(run.stderr.starts_with(&format!("error: {file}: line ")), "{run:?}");
        assert_eq!((run.stdout.as_str(), run.stderr.lines().count()), ("", 1));
    }
    server.is_empty();
}

#[test]
fn gzip_is_known_by_its_content() {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    writeln!(gzip, "; MaxProcs: 4\n{}", line(1, &(0, 1, 1, 1))).unwrap();
    let log = LogFile::of_bytes(gzip.finish().unwrap());
    assert_eq!(tokenpool(&(log.replay() + "-o json")).exits_with(0).json()["granted"], 1);
}

#[test]
fn what_is_no_log_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().display();
    let run = tokenpool(&format!("replay {path}/missing.swf")).exits_with(2);
    assert!(run.stderr.contains("missing.swf: cannot be read: No such file"), "{run:?}");
    let run = tokenpool(&format!("replay {path}")).exits_with(2);
    assert!(run.stderr.contains("cannot be read: Is a directory"), "{run:?}");
    let log = LogFile::of_bytes("; MaxProcs: 4\n");
    let run = tokenpool(&log.replay()).exits_with(2);
    assert!(run.stderr.contains("test.swf: no job in it"), "{run:?}");
    let run = tokenpool("replay /dev/zero").exits_with(2);
    assert!(run.stderr.contains("/dev/zero: line 1: longer than 65536 bytes"), "{run:?}");
}

#[test]
fn the_quota_comes_from_the_header_or_an_option() {
    let job = line(1, &(0, 1, 3, 1));
    let quota = |header: &str, options: &str| {
        let log = LogFile::of_bytes(format!("{header}\n{job}\n"));
        tokenpool(&format!("{} {options} -o json", log.replay())).exits_with(0).json()["quota"]
            .clone()
    };
    assert_eq!(quota("; MaxNodes: 7\n; MaxProcs: 5", ""), 5);
    assert_eq!(quota("; MaxNodes: 7", ""), 7);
    assert_eq!(quota("; MaxNodes: 7", "--quota 100000"), 100_000);
    let log = LogFile::of_bytes(&job);
    tokenpool(&log.replay())
        .fails_with(2, "the log's header has no MaxProcs or MaxNodes; give --quota N");
    let log = LogFile::of_bytes(format!("; MaxProcs: -1\n{job}"));
    tokenpool(&log.replay()).fails_with(2, "the log's header gives -1 processors; give --quota N");
}
