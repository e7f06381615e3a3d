//! A store that refuses whoever comes with a smaller fencing number than it has seen.
//!
//! A lock cannot stop a holder that was paused, or cut off, while its lease ended: it may wake up and write after the next
//! one. What the lock protects can, if every write brings the number of its lock.

use std::sync::Arc;

use tokenpool::{FencingNumber, Locks, MemoryBackend, Revocation};

/// What the lock protects; a database would keep the number in the row that is written.
#[derive(Debug, Default)]
struct Store {
    newest: Option<FencingNumber>,
    text: String,
}

impl Store {
    fn write(&mut self, number: Option<FencingNumber>, text: &str) -> Result<(), String> {
        if number < self.newest {
            return Err(format!("{text:?} comes too late"));
        }
        (self.newest, self.text) = (number, text.to_owned());
        Ok(())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> tokenpool::Result<()> {
    let mutex = Locks::new(Arc::new(MemoryBackend::new())).mutex("report").await?;
    let mut store = Store::default();

    let paused = mutex.lock().await?;
    // Nothing is heard of the holder, and an operator gives the lock to the next one.
    let operator = Revocation::new("ann@console", "no sign of life for an hour")?;
    mutex.force_unlock(&operator).await?;

    let next = mutex.lock().await?;
    println!("{:?}", store.write(next.fencing_number(), "second report"));
    println!("{:?}", store.write(paused.fencing_number(), "first report"));
    assert_eq!(store.text, "second report");
    Ok(())
}
