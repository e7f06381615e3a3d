//! The open channels of this process.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;

use crate::ticket::{Channel, Inbox, Notice};

/// The channels that are open. One whose inbox was dropped is forgotten when it is written to, or another is opened.
#[derive(Debug, Default)]
pub(super) struct Channels {
    senders: Mutex<HashMap<Channel, mpsc::UnboundedSender<Notice>>>,
}

impl Channels {
    /// Opens a channel under a name that no other of this process has.
    pub(super) fn open(&self) -> Inbox {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let channel = Channel::new(format!("memory:{}", NUMBER.fetch_add(1, Ordering::Relaxed)));
        let (sender, notices) = mpsc::unbounded_channel();
        let mut senders = self.lock();
        senders.retain(|_, sender| !sender.is_closed());
        senders.insert(channel.clone(), sender);
        Inbox { channel, notices }
    }

    /// Sends each notice to its channel; one that is not open misses it.
    pub(super) fn tell(&self, notices: Vec<(Channel, Notice)>) {
        if notices.is_empty() {
            return;
        }
        let mut senders = self.lock();
        for (channel, notice) in notices {
            let closed = senders.get(&channel).is_some_and(|sender| sender.send(notice).is_err());
            if closed {
                senders.remove(&channel);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Channel, mpsc::UnboundedSender<Notice>>> {
        self.senders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
