//! Asking one server how many of its replicas have certain grants.
//!
//! A WAIT keeps its connection busy, so it has one for itself, and whoever asks while one is under way shares the next. It
//! covers what its own connection wrote and not what others did (a bare WAIT, or one behind a PING, is answered at once
//! since Redis 7.2). So a script goes before it that writes a grant again as it is, if it is there: that proves, too, that
//! the server that is asked is one that has the grant, whatever was restarted or moved meanwhile.

use std::time::Duration;

use redis::aio::ConnectionLike as _;
use redis::{ErrorKind, Pipeline, RedisResult, Value};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use super::address::Target;
use super::connect::timed_out;
use super::link::{Connected, Link};
use super::scripts::{Call, is_unknown_script};
use crate::config::RedisConfig;

/// A server may end a WAIT so much too late.
const LATE: Duration = Duration::from_millis(200);

/// How many replicas have to have a grant, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct MinReplicas {
    pub(super) count: u64,
    pub(super) within: Duration,
}

impl MinReplicas {
    /// None if no replica has to.
    pub(super) fn new(config: &RedisConfig) -> Option<Self> {
        let count = u64::from(config.min_replicas);
        (count > 0).then_some(Self { count, within: config.acknowledge_timeout })
    }
}

/// The replicas of a server, as it knows them.
#[derive(Debug)]
pub(super) struct Replicas {
    questions: mpsc::UnboundedSender<Question>,
    min: MinReplicas,
    _asker: AbortOnDropHandle<()>,
}

/// What a server says.
#[derive(Debug)]
pub(super) struct Said {
    /// The script's reply.
    pub(super) reply: Value,
    /// So many replicas have what the script found, when time was up or when there were enough.
    pub(super) replicas: u64,
}

/// A question that is asked, and will be answered.
#[derive(Debug)]
pub(super) struct Asked {
    answer: oneshot::Receiver<RedisResult<Said>>,
    ends: Instant,
    within: Duration,
}

#[derive(Debug)]
struct Question {
    call: Call,
    ends: Instant,
    answer: oneshot::Sender<RedisResult<Said>>,
}

impl Replicas {
    /// Connects in the background.
    pub(super) fn begin(target: Target, min: MinReplicas) -> Self {
        let (questions, inbox) = mpsc::unbounded_channel();
        let asker = Asker { link: Link::begin(target, None), min, inbox, known_on: None };
        Self { questions, min, _asker: AbortOnDropHandle::new(tokio::spawn(asker.run())) }
    }

    /// Asks how many replicas have what this script finds.
    pub(super) fn ask(&self, call: Call) -> Asked {
        let (sender, answer) = oneshot::channel();
        let within = self.min.within;
        let ends = Instant::now() + within;
        // Without an asker there is no answer, which is one.
        let _ = self.questions.send(Question { call, ends, answer: sender });
        Asked { answer, ends, within }
    }
}

impl Asked {
    pub(super) async fn answer(self) -> RedisResult<Said> {
        let unanswered = || Err(timed_out("acknowledged", self.within));
        match timeout_at(self.ends + LATE, self.answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => unanswered(),
        }
    }
}

struct Asker {
    link: Link,
    min: MinReplicas,
    inbox: mpsc::UnboundedReceiver<Question>,
    /// The connection whose server knows the script, unless it lost it.
    known_on: Option<u64>,
}

impl Asker {
    async fn run(mut self) {
        let mut group = Vec::new();
        loop {
            if group.is_empty() {
                match self.inbox.recv().await {
                    Some(question) => group.push(question),
                    None => return,
                }
            }
            while let Ok(question) = self.inbox.try_recv() {
                group.push(question);
            }
            group = self.ask(group).await;
        }
    }

    /// Asks all of these, and gives those back that are to be asked again.
    async fn ask(&mut self, group: Vec<Question>) -> Vec<Question> {
        let ends = group.iter().map(|question| question.ends);
        let (Some(first), Some(last)) = (ends.clone().min(), ends.max()) else { return group };
        let answer = async {
            let mut connected = self.link.connected().await?;
            let epoch = connected.epoch;
            let replies = self.send(&mut connected, &group, first);
            match timeout_at(last + LATE, replies).await {
                Ok(Err(error)) if error.is_io_error() => {
                    self.link.lose(&connected);
                    Err(error)
                }
                Ok(replies) => {
                    self.link.answered();
                    replies.map(|(replies, replicas)| (epoch, replies, replicas))
                }
                Err(_) => {
                    self.link.unanswered(&connected);
                    Err(timed_out("acknowledged", self.min.within))
                }
            }
        };
        let answer = timeout_at(last + LATE, answer).await;
        match answer.unwrap_or_else(|_| Err(timed_out("acknowledged", self.min.within))) {
            Ok((epoch, replies, replicas)) => {
                self.known_on = Some(epoch);
                self.tell(group, replies, replicas)
            }
            Err(error) => {
                for question in group {
                    // Whoever asked may have given up.
                    let _ = question.answer.send(Err(error.clone()));
                }
                Vec::new()
            }
        }
    }

    /// Sends the scripts and a WAIT until the first has to be answered: the scripts' replies, and the number of replicas.
    async fn send(
        &self,
        connected: &mut Connected,
        group: &[Question],
        first: Instant,
    ) -> RedisResult<(Vec<Value>, u64)> {
        let mut pipeline = Pipeline::with_capacity(group.len() + 1);
        for (place, Question { call, .. }) in group.iter().enumerate() {
            // What is not known would be answered without a write, and a WAIT for nothing.
            let is_known = place > 0 || self.known_on == Some(connected.epoch);
            pipeline.add_command(match is_known {
                true => call.cmd().clone(),
                false => call.with_source(),
            });
        }
        let left = first.saturating_duration_since(Instant::now()).as_millis();
        // 0 would be for ever.
        let millis = u64::try_from(left).unwrap_or(u64::MAX).max(1);
        pipeline.cmd("WAIT").arg(self.min.count).arg(millis);
        let connection = &mut connected.connection;
        let mut replies = connection.req_packed_commands(&pipeline, 0, pipeline.len()).await?;
        match replies.pop().map(Value::extract_error) {
            Some(Ok(Value::Int(replicas))) if replies.len() == group.len() => {
                Ok((replies, replicas.try_into().unwrap_or(0)))
            }
            Some(Err(error)) => Err(error),
            _ => Err((ErrorKind::Parse, "WAIT was not answered by a number").into()),
        }
    }

    /// Tells the answers. Those who have time left are to ask again, unless enough replicas have it.
    fn tell(&mut self, group: Vec<Question>, replies: Vec<Value>, replicas: u64) -> Vec<Question> {
        let (now, mut again) = (Instant::now(), Vec::new());
        for (question, reply) in group.into_iter().zip(replies) {
            let answer = match reply.extract_error() {
                Err(error) if is_unknown_script(&error) && now < question.ends => {
                    self.known_on = None;
                    again.push(question);
                    continue;
                }
                Ok(_) if replicas < self.min.count && now < question.ends => {
                    again.push(question);
                    continue;
                }
                Ok(reply) => Ok(Said { reply, replicas }),
                Err(error) => Err(error),
            };
            let _ = question.answer.send(answer);
        }
        again
    }
}
