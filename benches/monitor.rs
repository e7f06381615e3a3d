//! Sees what clients send, and what scripts call, one command after the other.
//!
//! INFO commandstats adds both up; here they can be told apart.

use redis::Connection;

use crate::server::Server;

/// Commands since the monitor started. The server keeps them until they are looked at.
pub(crate) struct Monitor(Connection);

/// One command.
struct Line {
    in_script: bool,
    /// Name and arguments, each in quotes.
    call: String,
}

/// How many commands there were.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Commands {
    /// Sent by clients.
    pub(crate) sent: u64,
    /// Called by scripts.
    pub(crate) in_scripts: u64,
    /// Arguments of what was sent, names included.
    pub(crate) arguments: u64,
}

/// Ends what is looked at.
const END: &str = "this is the end";

impl Monitor {
    pub(crate) fn start(server: &Server) -> Self {
        let mut connection = server.raw();
        redis::cmd("MONITOR").exec(&mut connection).expect("the server can be monitored");
        Self(connection)
    }

    /// The next calls of scripts, without time and address of the client.
    pub(crate) fn calls(&mut self, count: usize) -> Vec<String> {
        let lines = std::iter::from_fn(|| Some(self.next()));
        let calls = lines.filter(|line| !line.in_script && line.call.starts_with("\"EVALSHA\""));
        calls.map(|line| line.call).take(count).collect()
    }

    /// Counts all commands from the start until now.
    pub(crate) fn count(mut self, admin: &mut Connection) -> Commands {
        redis::cmd("ECHO").arg(END).exec(admin).expect("the server answers");
        let mut commands = Commands::default();
        loop {
            let Line { in_script, call } = self.next();
            match in_script {
                true => commands.in_scripts += 1,
                false if call.contains(END) => return commands,
                false => {
                    commands.sent += 1;
                    commands.arguments += call.matches("\" \"").count() as u64 + 1;
                }
            }
        }
    }

    fn next(&mut self) -> Line {
        loop {
            match self.0.recv_response() {
                Ok(redis::Value::SimpleString(line)) => {
                    if let Some((client, call)) = line.split_once("] ") {
                        return Line { in_script: client.ends_with(" lua"), call: call.to_owned() };
                    }
                }
                other => panic!("{other:?} is not a line of MONITOR"),
            }
        }
    }
}
