//! A peer that speaks as Redis does until it is told to say something else.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{
    AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::server::Port;

/// What a peer has heard.
#[derive(Debug)]
pub(crate) struct Heard<'a> {
    /// The command in capitals; nothing when a client has just connected.
    pub(crate) command: &'a str,
    /// All words of the command, this one included.
    pub(crate) words: &'a [Vec<u8>],
    /// How often this has been heard, from all clients; the first time it is 1.
    pub(crate) time: usize,
    /// Where the peer itself is.
    pub(crate) address: &'a str,
}

/// What a peer does about it.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// Sends these bytes, perhaps none, and listens on.
    Bytes(Vec<u8>),
    /// Sends these bytes and closes the connection.
    Last(Vec<u8>),
    /// Sends the first bytes, and then the second again and again for as long as the client takes them.
    Endless(Vec<u8>, Vec<u8>),
}

impl Answer {
    pub(crate) fn text(text: &str) -> Self {
        Self::Bytes(text.as_bytes().to_vec())
    }
}

/// A port on loopback behind which a script answers.
#[derive(Debug)]
pub(crate) struct Fake {
    port: Port,
    listener: JoinHandle<()>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    /// How often each command was heard.
    heard: Mutex<HashMap<String, usize>>,
    /// The most bytes of an answer without an end that went to one client.
    most: AtomicUsize,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

impl Fake {
    /// A peer that answers by a script, and by manners where the script has nothing to say.
    pub(crate) async fn start(
        script: impl Fn(&Heard<'_>) -> Option<Answer> + Send + Sync + 'static,
    ) -> Self {
        let port = Port::take();
        let listener = TcpListener::bind(port.address()).await.unwrap();
        let (counts, script) = (Arc::new(Counts::default()), Arc::new(script));
        let (counted, address) = (Arc::clone(&counts), Arc::<str>::from(port.address()));
        let listener = tokio::spawn(async move {
            // Dropped with the listener, and so are the connections.
            let mut clients = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (script, counts) = (Arc::clone(&script), Arc::clone(&counted));
                let address = Arc::clone(&address);
                clients.spawn(async move { serve(client, &address, &*script, &counts).await });
            }
        });
        Self { port, listener, counts }
    }

    /// A peer that gives this answer to a command from a certain time on, counted from 1.
    pub(crate) async fn answering(command: &'static str, from: usize, answer: Answer) -> Self {
        let script = move |heard: &Heard<'_>| {
            (heard.command == command && heard.time >= from).then(|| answer.clone())
        };
        Self::start(script).await
    }

    /// Where clients connect, `host:port`.
    pub(crate) fn address(&self) -> String {
        self.port.address()
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    /// How often a command has come; that of no name is a connection.
    pub(crate) fn count(&self, command: &str) -> usize {
        let heard = self.counts.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.get(command).copied().unwrap_or_default()
    }

    /// The most bytes of an answer without an end that a client has taken, or is about to.
    pub(crate) fn most(&self) -> usize {
        self.counts.most.load(Ordering::Relaxed)
    }
}

async fn serve<S>(client: TcpStream, address: &str, script: &S, counts: &Counts) -> Option<()>
where
    S: Fn(&Heard<'_>) -> Option<Answer>,
{
    let (from, mut to) = client.into_split();
    let mut from = BufReader::new(from);
    let mut words = Vec::new();
    loop {
        let command = words.first().map(|word: &Vec<u8>| word.to_ascii_uppercase());
        let command = String::from_utf8(command.unwrap_or_default()).ok()?;
        let time = {
            let mut heard = counts.heard.lock().unwrap_or_else(PoisonError::into_inner);
            let count = heard.entry(command.clone()).or_default();
            *count += 1;
            *count
        };
        let heard = Heard { command: &command, words: &words, time, address };
        match script(&heard).unwrap_or_else(|| manners(&heard)) {
            Answer::Bytes(bytes) => to.write_all(&bytes).await.ok()?,
            Answer::Last(bytes) => return to.write_all(&bytes).await.ok(),
            Answer::Endless(head, again) => {
                to.write_all(&head).await.ok()?;
                for sent in (0..).step_by(again.len()) {
                    counts.most.fetch_max(sent, Ordering::Relaxed);
                    to.write_all(&again).await.ok()?;
                }
            }
        }
        words = command_of(&mut from).await?;
    }
}

/// What Redis says.
fn manners(heard: &Heard<'_>) -> Answer {
    Answer::text(match heard.command {
        "" => "",
        "HELLO" => {
            "%7\r\n+server\r\n+redis\r\n+version\r\n+7.0.15\r\n+proto\r\n:3\r\n+id\r\n:1\r\n\
             +mode\r\n+standalone\r\n+role\r\n+master\r\n+modules\r\n*0\r\n"
        }
        "PING" => "+PONG\r\n",
        "AUTH" | "CLIENT" | "READONLY" | "SELECT" => "+OK\r\n",
        "ROLE" => "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n",
        "EVALSHA" => "-NOSCRIPT No matching script. Please use EVAL.\r\n",
        _ => "-ERR unknown command\r\n",
    })
}

/// The words of the next command, unless the client is gone or says something else.
pub(crate) async fn command_of(from: &mut (impl AsyncBufRead + Unpin)) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    for _ in 0..number(from, '*').await? {
        let mut word = vec![0; number(from, '$').await? + 2];
        from.read_exact(&mut word).await.ok()?;
        word.truncate(word.len() - 2);
        words.push(word);
    }
    Some(words)
}

async fn number(from: &mut (impl AsyncBufRead + Unpin), sign: char) -> Option<usize> {
    let mut line = String::new();
    from.read_line(&mut line).await.ok()?;
    line.trim_end().strip_prefix(sign)?.parse().ok()
}
