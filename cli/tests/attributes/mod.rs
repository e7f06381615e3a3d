//! Attributes of projects, domains, workflows and launch plans.

mod applied;
mod defects;
mod deleted;
mod files;
mod history;
mod own_kinds;
mod shown;
mod updated;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::program::{Run, run, typing};
use crate::server::Server;

/// A server, and a directory that the program runs in.
pub(crate) struct Attributes {
    pub(crate) server: Server,
    directory: TempDir,
}

impl Attributes {
    fn start() -> Self {
        Self { server: Server::start(), directory: tempfile::tempdir().unwrap() }
    }

    /// With task resources of a domain, 2 cpus, and of a workflow in it, 16.
    fn with_task_resources() -> Self {
        let attributes = Self::start();
        attributes.write("t.yaml", [DOMAIN, "---\n", WORKFLOW].concat());
        attributes.tokenpool("update task-resource --force --attrFile t.yaml").exits_with(0);
        attributes
    }

    fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    fn write(&self, file: &str, text: impl AsRef<[u8]>) {
        let path = self.path(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path(file)).unwrap()
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = self.server.command(arguments);
        command.current_dir(self.directory.path()).env("USER", "ada").env("HOSTNAME", "bridge");
        command
    }

    fn tokenpool(&self, arguments: &str) -> Run {
        run(&mut self.command(arguments))
    }

    /// Runs the program while somebody types this.
    fn typing(&self, arguments: &str, text: &str) -> Run {
        typing(&mut self.command(arguments), text)
    }

    /// What is stored in JSON at exactly this place.
    fn stored(&self, kind: &str, path: &str) -> Option<String> {
        let record: Option<String> =
            self.server.ask(&format!("HGET tokenpool:attributes:{kind} {path}"));
        record.map(|record| record.splitn(4, ' ').nth(3).unwrap().to_owned())
    }
}

const DOMAIN: &str = "\
project: billing
domain: production
defaults: {cpu: '2', memory: 4Gi}
";

const WORKFLOW: &str = "\
project: billing
domain: production
workflow: nightly
defaults: {cpu: '16'}
";

const OF_DOMAIN: &str = "-p billing -d production";
const OF_WORKFLOW: &str = "-p billing -d production nightly";
