//! What the server tells of its own accord, passed on to whoever listens.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use redis::aio::{AsyncPushSender, SendError};
use redis::{PushInfo, PushKind, Value};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use super::reply::parse_notice;
use crate::ticket::Notice;

/// The open inboxes of a process, by channel.
#[derive(Clone, Debug, Default)]
pub(super) struct Listeners(Arc<Mutex<HashMap<String, UnboundedSender<Notice>>>>);

impl Listeners {
    /// Opens an inbox for what is published on a channel.
    pub(super) fn open(&self, channel: &str) -> UnboundedReceiver<Notice> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut inboxes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inboxes.insert(channel.to_owned(), sender);
        receiver
    }

    /// Messages may have been lost.
    pub(super) fn interrupted(&self) {
        tell_all(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The channels of all inboxes.
    pub(super) fn channels(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }
}

fn tell_all(inboxes: &mut HashMap<String, UnboundedSender<Notice>>) {
    inboxes.retain(|_, inbox| inbox.send(Notice::Interrupted).is_ok());
}

impl AsyncPushSender for Listeners {
    fn send(&self, push: PushInfo) -> Result<(), SendError> {
        let mut inboxes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match push.kind {
            PushKind::Message => {
                let text = |value: &Value| redis::from_redis_value_ref::<String>(value).ok();
                let mut words = push.data.iter().map(text);
                let (Some(Some(channel)), Some(Some(message))) = (words.next(), words.next())
                else {
                    return Ok(());
                };
                if let Some(inbox) = inboxes.get(&channel)
                    && let Some(notice) = parse_notice(&message)
                    && inbox.send(notice).is_err()
                {
                    inboxes.remove(&channel);
                }
            }
            // Lost, and subscribed again: what was published between is gone.
            PushKind::Disconnection | PushKind::Subscribe => tell_all(&mut inboxes),
            _ => {}
        }
        Ok(())
    }
}
