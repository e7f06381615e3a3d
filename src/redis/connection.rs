//! One connection, and how much is read on it.
//!
//! A server that sends a reply without an end would fill the memory: in the time that an answer may take, or, if nothing
//! was asked, for as long as nothing is. So what comes is counted, and the count begins anew with each reply or notice that
//! is whole; who sends more than [`LARGEST`] before that is no server, and loses the connection.

use std::fmt;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use redis::aio::{AsyncPushSender, AsyncStream, ConnectionLike, MultiplexedConnection, SendError};
use redis::{
    AsyncConnectionConfig, Cmd, Pipeline, PushInfo, RedisConnectionInfo, RedisFuture, RedisResult,
    Value,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::task::AbortOnDropHandle;

/// More than any reply: pages are of a few MiB, all versions of attributes of eleven at most, and the names of 100 000 pools, as
/// long as names can be, fit in. What is made of it can be larger: an array of nothing, by twenty times.
const LARGEST: usize = 32 << 20;

/// Bytes to and from a server.
pub(super) type Stream = Box<dyn AsyncStream + Send + Unpin>;

/// What takes notices.
pub(super) type Hears = Box<dyn AsyncPushSender>;

/// A connection, which ends with its last clone.
#[derive(Clone)]
pub(super) struct Connection {
    requests: MultiplexedConnection,
    driver: Arc<Driver>,
}

struct Driver {
    read: Arc<Meter>,
    _task: AbortOnDropHandle<()>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.requests.fmt(f)
    }
}

impl Connection {
    /// Says who we are; notices, which come with RESP3, go to `hears`.
    pub(super) async fn open(
        stream: Stream,
        login: &RedisConnectionInfo,
        hears: Option<Hears>,
    ) -> RedisResult<Self> {
        let read = Arc::new(Meter::default());
        // One timer a call is enough, and whoever calls has it.
        let mut config = AsyncConnectionConfig::new().set_response_timeout(None);
        if let Some(hears) = hears {
            config = config.set_push_sender(Notices { hears, read: Arc::clone(&read) });
        }
        let stream = Metered { stream, read: Arc::clone(&read) };
        let (requests, driver) =
            MultiplexedConnection::new_with_config(login, stream, config).await?;
        let _task = AbortOnDropHandle::new(tokio::spawn(driver));
        Ok(Self { requests, driver: Arc::new(Driver { read, _task }) })
    }

    /// Begins to hear of what is published on a channel.
    pub(super) async fn subscribe(&mut self, channel: &str) -> RedisResult<()> {
        self.requests.subscribe(channel).await
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(async move {
            let reply = self.requests.send_packed_command(cmd).await;
            self.driver.read.begin_anew();
            reply
        })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(async move {
            let replies = self.requests.send_packed_commands(pipeline, offset, count).await;
            self.driver.read.begin_anew();
            replies
        })
    }

    fn get_db(&self) -> i64 {
        self.requests.get_db()
    }
}

/// Counts the bytes that came since the last whole reply. Whoever waited for that may notice late and forget some of the next
/// one, so that this may become twice as large.
#[derive(Default)]
struct Meter(AtomicUsize);

impl Meter {
    fn begin_anew(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    fn add(&self, bytes: usize) -> io::Result<()> {
        if self.0.fetch_add(bytes, Ordering::Relaxed) + bytes <= LARGEST {
            return Ok(());
        }
        let problem = format!("a reply of more than {} MiB", LARGEST >> 20);
        Err(io::Error::new(ErrorKind::ConnectionAborted, problem))
    }
}

struct Metered {
    stream: Stream,
    read: Arc<Meter>,
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            Poll::Ready(Ok(())) => Poll::Ready(self.read.add(buffer.filled().len() - before)),
            other => other,
        }
    }
}

impl AsyncWrite for Metered {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// A notice that is whole counts as a reply that is.
struct Notices {
    hears: Hears,
    read: Arc<Meter>,
}

impl AsyncPushSender for Notices {
    fn send(&self, push: PushInfo) -> Result<(), SendError> {
        self.read.begin_anew();
        self.hears.send(push)
    }
}
