use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of the clock that all processes of this machine share.
pub(crate) fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap() * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap()
}

pub(crate) const MILLI: u64 = 1_000_000;
/// How long a process sleeps to see whether it stands still, and after how long it did.
const TICK: Duration = Duration::from_millis(50);
const STILL: u64 = 150 * MILLI;

/// A grant as its holder knows it: pool and fencing number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Id {
    pub(crate) pool: String,
    pub(crate) fence: u64,
}

/// What a worker or the director writes down, and when. Times are in nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) at: u64,
    pub(crate) event: Event,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A call said that this is held. The call was made at `asked`, the token was claimed first at `since`; the scopes are
    /// `<project> <domain>`.
    Granted { id: Id, since: u64, asked: u64, lease: u64, units: u64, scope: String },
    /// The server was asked at `asked` and said that this is held for `left` more.
    Seen { id: Id, asked: u64, left: u64 },
    /// The server was asked at `asked` and said that this is not held.
    Gone { id: Id, asked: u64 },
    /// The guard said so.
    Lost { id: Id },
    /// The guard did not say so long after the server had.
    Unnoticed { id: Id },
    /// The library claimed again what the server had forgotten, and the guard has another number than `was`, which it still
    /// had at `asked`.
    Regained { id: Id, was: u64, asked: u64 },
    /// A release is about to be asked for, or the guard to be dropped.
    Returning { id: Id },
    /// What the fenced store did with a write that was begun at `asked`.
    Stored { id: Id, asked: u64, accepted: bool },
    /// A call that was begun at `asked` was answered, if only by an error; it had `limit` milliseconds.
    Took { call: String, asked: u64, limit: u64 },
    /// The director: since `from` a server that decided about these pools may have been replaced, and may have been heard
    /// all the same.
    Doubtful { from: u64, heard: bool, pools: Vec<String> },
    /// This process stood still since `from`: it was stopped, or its machine was busy.
    StoodStill { from: u64 },
    /// Something to be counted.
    Note(String),
    /// Something that must not happen.
    Broken(String),
}

impl Entry {
    fn line(&self) -> String {
        let rest = match &self.event {
            Event::Granted { id: Id { pool, fence }, since, asked, lease, units, scope } => {
                format!("granted {pool} {fence} {since} {asked} {lease} {units} {scope}")
            }
            Event::Seen { id: Id { pool, fence }, asked, left } => {
                format!("seen {pool} {fence} {asked} {left}")
            }
            Event::Gone { id, asked } => format!("gone {} {} {asked}", id.pool, id.fence),
            Event::Lost { id } => format!("lost {} {}", id.pool, id.fence),
            Event::Unnoticed { id } => format!("unnoticed {} {}", id.pool, id.fence),
            Event::Returning { id } => format!("returning {} {}", id.pool, id.fence),
            Event::Stored { id, asked, accepted } => {
                format!("stored {} {} {asked} {accepted}", id.pool, id.fence)
            }
            Event::Regained { id: Id { pool, fence }, was, asked } => {
                format!("regained {pool} {fence} {was} {asked}")
            }
            Event::Took { call, asked, limit } => format!("took {call} {asked} {limit}"),
            Event::Doubtful { from, heard, pools } => {
                format!("doubtful {from} {heard} {}", pools.join(" "))
            }
            Event::StoodStill { from } => format!("stood-still {from}"),
            Event::Note(word) => format!("note {word}"),
            Event::Broken(text) => format!("broken {}", text.replace('\n', " ")),
        };
        format!("{} {rest}\n", self.at)
    }

    fn parse(line: &str) -> Option<Self> {
        let mut head = line.splitn(3, ' ');
        let (at, word, rest) = (head.next()?.parse().ok()?, head.next()?, head.next()?);
        let words: Vec<_> = rest.split(' ').collect();
        let number = |i: usize| words.get(i)?.parse().ok();
        let id = || Some(Id { pool: words[0].to_owned(), fence: number(1)? });
        let event = match word {
            "granted" => Event::Granted {
                id: id()?,
                since: number(2)?,
                asked: number(3)?,
                lease: number(4)?,
                units: number(5)?,
                scope: words.get(6..8)?.join(" "),
            },
            "seen" => Event::Seen { id: id()?, asked: number(2)?, left: number(3)? },
            "gone" => Event::Gone { id: id()?, asked: number(2)? },
            "lost" => Event::Lost { id: id()? },
            "unnoticed" => Event::Unnoticed { id: id()? },
            "returning" => Event::Returning { id: id()? },
            "stored" => Event::Stored {
                id: id()?,
                asked: number(2)?,
                accepted: words.get(3)?.parse().ok()?,
            },
            "regained" => Event::Regained { id: id()?, was: number(2)?, asked: number(3)? },
            "took" => {
                Event::Took { call: words[0].to_owned(), asked: number(1)?, limit: number(2)? }
            }
            "doubtful" => Event::Doubtful {
                from: number(0)?,
                heard: words.get(1)?.parse().ok()?,
                pools: words[2..].iter().map(ToString::to_string).collect(),
            },
            "stood-still" => Event::StoodStill { from: number(0)? },
            "note" => Event::Note(rest.to_owned()),
            "broken" => Event::Broken(rest.to_owned()),
            _ => return None,
        };
        Some(Self { at, event })
    }
}

/// A log. Each entry is one write(2), so that a killed process leaves whole lines.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    file: Arc<File>,
    /// Until when it is known that the process did not stand still.
    awake: Arc<Mutex<u64>>,
}

impl Log {
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let file = File::options().append(true).create_new(true).open(path)?;
        Ok(Self { file: Arc::new(file), awake: Arc::new(Mutex::new(now())) })
    }

    pub(crate) fn write(&self, event: Event) {
        let line = Entry { at: now(), event }.line();
        (&*self.file).write_all(line.as_bytes()).expect("the log can be written");
    }

    /// Writes down from now on when the process stands still.
    pub(crate) fn watch(&self) {
        let log = self.clone();
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(TICK);
                log.wake();
            }
        });
    }

    /// Writes down if the process stood still until now. Who goes on after that may be killed before the watch wakes, too, so
    /// whatever is judged by it comes behind this.
    pub(crate) fn wake(&self) {
        let mut awake = self.awake.lock().unwrap_or_else(PoisonError::into_inner);
        let (from, now) = (*awake, now());
        if now - from > STILL {
            self.write(Event::StoodStill { from });
        }
        *awake = now;
    }

    pub(crate) fn note(&self, word: &str) {
        self.write(Event::Note(word.to_owned()));
    }
}

/// Reads a log. What follows the last line break was not written to its end.
pub(crate) fn read(path: &Path) -> io::Result<Vec<Entry>> {
    let text = fs::read_to_string(path)?;
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let parse = |line| {
        Entry::parse(line).ok_or_else(|| io::Error::other(format!("{}: {line}", path.display())))
    };
    whole.lines().map(parse).collect()
}
