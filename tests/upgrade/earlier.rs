//! A client of an earlier version.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;
use tokio::io::{AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

use crate::support::fake::command_of;
use crate::support::server::Server;

/// A way to a server on which this version's library becomes an earlier one: scripts that decide leave as they were at
/// commit f83678c, before there were reigns, and with the arguments that they had.
#[derive(Debug)]
pub(crate) struct Earlier {
    directory: TempDir,
    listener: JoinHandle<()>,
}

impl Drop for Earlier {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

impl Earlier {
    pub(crate) fn before(server: &Server) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("s")).unwrap();
        let translator = Arc::new(Translator::new(&mut server.raw()));
        let socket = server.socket();
        let listener = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = UnixStream::connect(&socket).await else { continue };
                tokio::spawn(serve(client, server, Arc::clone(&translator)));
            }
        });
        Self { directory, listener }
    }

    pub(crate) fn url(&self) -> String {
        format!("unix://{}", self.directory.path().join("s").display())
    }
}

async fn serve(client: UnixStream, server: UnixStream, translator: Arc<Translator>) {
    let (from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let mut from_client = BufReader::new(from_client);
    let questions = async {
        while let Some(words) = command_of(&mut from_client).await {
            // What the earlier version could not have sent ends the connection, and with it the test.
            let command = translator.translate(words)?;
            to_server.write_all(&command).await.ok()?;
        }
        Some(())
    };
    tokio::select! {
        _ = questions => {}
        _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
    }
}

/// The earlier version's scripts that this version has changed, or may.
pub(super) fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/upgrade/before_reigns")
}

/// The scripts of a folder by name, as they are loaded.
pub(super) fn assembled(folder: &Path) -> HashMap<String, String> {
    let queue = std::fs::read_to_string(folder.join("shared/queue.lua")).unwrap();
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let scripts = files.filter(|path| path.extension().is_some_and(|is| is == "lua"));
    let assembled = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        (name, text.replace("--- include queue.lua\n", &queue))
    };
    scripts.map(assembled).collect()
}

/// This version's scripts.
pub(super) fn present() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("lua")
}

/// What only reads, or works as it did, is sent as it is now.
const SHARED: [&str; 7] =
    ["attribute_history", "check", "confirm", "delete_pool", "holders", "tickets", "usage"];

/// The name of each script by its digest, and its text in the earlier version.
#[derive(Debug)]
struct Translator(HashMap<Vec<u8>, (String, Option<String>)>);

impl Translator {
    fn new(server: &mut redis::Connection) -> Self {
        let mut earlier = assembled(&scripts());
        let mut load = |(name, text): (String, String)| {
            let load = redis::cmd("SCRIPT").arg("LOAD").arg(text).query(server);
            let digest: String = load.unwrap();
            let earlier = earlier.remove(&name);
            (digest.into_bytes(), (name, earlier))
        };
        let all = assembled(&present()).into_iter().map(&mut load).collect();
        assert!(earlier.is_empty(), "{earlier:?} is no script any more");
        Self(all)
    }

    fn translate(&self, mut words: Vec<Vec<u8>>) -> Option<Vec<u8>> {
        match &*words[0].to_ascii_uppercase() {
            // It did not ask who the server is.
            b"INFO" => words = vec![b"PING".to_vec()],
            b"EVALSHA" => {
                let (name, text) = self.0.get(&words[1])?;
                if words[2] == b"4" && matches!(name.as_str(), "allocate" | "release") {
                    // It gave all keys to all.
                    let pool = String::from_utf8(words[3].clone()).ok()?;
                    let others = ["tickets", "queue", "lines", "turns", "shares"];
                    let others = others.map(|key| format!("{{{pool}}}:{key}").into_bytes());
                    words.splice(7..7, others);
                    words[2] = b"9".to_vec();
                }
                let keys: usize = str::from_utf8(&words[2]).ok()?.parse().ok()?;
                let first = 3 + keys;
                match name.as_str() {
                    // Without `returning`.
                    "allocate" => words.truncate(first + 12),
                    // Without `period` and `learns_first`; what was lost was registered.
                    "set_quota" => {
                        words.truncate(first + 2);
                        if words[first] == b"restore" {
                            words[first] = b"register".to_vec();
                        }
                    }
                    _ => {}
                }
                match text {
                    Some(text) => {
                        words[0] = b"EVAL".to_vec();
                        words[1] = text.clone().into_bytes();
                    }
                    None if SHARED.contains(&name.as_str()) => {}
                    None => return None,
                }
            }
            b"EVAL" => return None,
            _ => {}
        }
        let mut cmd = redis::Cmd::new();
        cmd.arg(words);
        Some(cmd.get_packed_command())
    }
}
