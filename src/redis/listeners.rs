//! What the server tells of its own accord, passed on to whoever listens.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redis::{Cmd, PushInfo, PushKind, Value};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use super::keys::process_channel;
use super::link::Hearing;
use super::reply::parse_notice;
use crate::ticket::Notice;

type Inboxes = HashMap<String, UnboundedSender<Notice>>;

/// The open inboxes of a process, by channel.
#[derive(Clone, Debug, Default)]
pub(super) struct Listeners(Arc<Mutex<Inboxes>>);

impl Listeners {
    /// Opens an inbox for what is published on a channel.
    pub(super) fn open(&self, channel: &str) -> UnboundedReceiver<Notice> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.inboxes().insert(channel.to_owned(), sender);
        receiver
    }

    /// Messages may have been lost.
    pub(super) fn interrupted(&self) {
        self.inboxes().retain(|_, inbox| inbox.send(Notice::Interrupted).is_ok());
    }

    /// Passes on what came on a channel.
    pub(super) fn message(&self, data: &[Value]) {
        let text = |value: &Value| redis::from_redis_value_ref::<String>(value).ok();
        let mut words = data.iter().map(text);
        let (Some(Some(channel)), Some(Some(message))) = (words.next(), words.next()) else {
            return;
        };
        let (channel, mut inboxes) = (process_channel(&channel), self.inboxes());
        if let Some(inbox) = inboxes.get(channel)
            && let Some(notice) = parse_notice(&message)
            && inbox.send(notice).is_err()
        {
            inboxes.remove(channel);
        }
    }

    fn inboxes(&self) -> MutexGuard<'_, Inboxes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hearing for Listeners {
    fn subscriptions(&self) -> Vec<Cmd> {
        let inboxes = self.inboxes();
        inboxes.keys().map(|channel| redis::cmd("SUBSCRIBE").arg(channel).to_owned()).collect()
    }

    fn hear(&self, push: PushInfo) -> bool {
        match push.kind {
            PushKind::Message => self.message(&push.data),
            // Lost, and subscribed again: what was published between is gone.
            PushKind::Disconnection | PushKind::Subscribe => self.interrupted(),
            _ => {}
        }
        true
    }
}
