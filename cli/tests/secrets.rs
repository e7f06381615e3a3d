//! No password in any output.

use std::fs;

use crate::program::{Run, command, run, tokenpool};
use crate::server::Server;

const SECRET: &str = "s3cr3t-W0rd";

#[track_caller]
fn tells_nothing(run: &Run) {
    let Run { stdout, stderr, .. } = run;
    assert!(!stdout.contains(SECRET) && !stderr.contains(SECRET), "{run:?}");
}

#[test]
fn a_url_that_leads_nowhere_is_not_repeated() {
    for url in [
        format!("redis://:{SECRET}@127.0.0.1:1"),
        format!("redis://:{SECRET}@unknown.invalid:1"),
        format!("rediss://:{SECRET}@127.0.0.1:1"),
        format!("redis://user:{SECRET}@127.0.0.1:1"),
        format!("redis://:{SECRET}@127.0.0.1:port"),
        format!("nonsense:{SECRET}"),
        format!("unix:///nonexistent/socket?pass={SECRET}"),
    ] {
        tells_nothing(&tokenpool(&format!("--redis {url} get pools -vvv -o json")));
        tells_nothing(&tokenpool(&format!("--redis {url} get poolz")));
        tells_nothing(&run(command("get pools").env("TOKENPOOL_REDIS", &url)));
        tells_nothing(&run(command("get pools --help").env("TOKENPOOL_REDIS", &url)));
        tells_nothing(&tokenpool(&format!("--redis {url} --redis {url} get pools")));
    }
}

#[test]
fn a_password_is_used_and_never_shown_whether_right_or_wrong() {
    let server = Server::start_with(&["--requirepass", SECRET]);
    let socket = server.socket();
    let get = |password: &str| {
        let url = format!("unix://{}?pass={password}", socket.display());
        run(command("get pools -vvv").env("TOKENPOOL_REDIS", url))
    };
    tells_nothing(&get(SECRET).exits_with(0));
    tells_nothing(&get(&format!("not-{SECRET}")).exits_with(1));
    tells_nothing(
        &run(command("get pools").env("TOKENPOOL_REDIS", format!("unix://{}", socket.display())))
            .exits_with(1),
    );
}

#[test]
fn a_files_password_is_not_shown() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.yaml");
    for text in [
        format!("type: redis\nredis:\n  hostPath: 127.0.0.1:1\n  hostKey: {SECRET}\n"),
        format!("type: redis\nredis:\n  hostPath: 127.0.0.1:1\n  hostKey: [{SECRET}]\n"),
        format!("type: redis\nredis:\n  hostPath: 127.0.0.1:1\n  hostKey: {SECRET}: x\n"),
    ] {
        fs::write(&file, text).unwrap();
        let run = tokenpool(&format!("get pools -vvv --config {}", file.display()));
        assert_ne!(run.status, 0);
        tells_nothing(&run);
    }
}
