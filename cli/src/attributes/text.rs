//! Text that is read line by line.

use std::io::{self, BufRead, Read};

/// Far longer than attributes may be, and short enough to be kept.
const LONGEST: u64 = 16 * 1024 * 1024;

/// Bytes that are UTF-8. Where they are none, reading fails with [`NoText`].
#[derive(Debug)]
pub(super) struct TextLines<R> {
    bytes: R,
    line: Vec<u8>,
    /// How much of the line has been handed on.
    read: usize,
    number: u64,
}

/// A line cannot be part of a document.
#[derive(Debug, thiserror::Error)]
#[error("the line {rule}")]
pub(super) struct NoText {
    pub(super) line: u64,
    rule: &'static str,
}

impl<R> TextLines<R> {
    pub(super) fn new(bytes: R) -> Self {
        Self { bytes, line: Vec::new(), read: 0, number: 0 }
    }
}

impl<R: BufRead> Read for TextLines<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.read == self.line.len() {
            self.line.clear();
            self.read = 0;
            self.number += 1;
            let mut bytes = (&mut self.bytes).take(LONGEST);
            bytes.read_until(b'\n', &mut self.line)?;
            let rule = match std::str::from_utf8(&self.line) {
                _ if bytes.limit() == 0 => "must not be longer than 16 MiB",
                Err(_) => "must be text in UTF-8",
                Ok(_) => "",
            };
            if !rule.is_empty() {
                let no_text = NoText { line: self.number, rule };
                return Err(io::Error::new(io::ErrorKind::InvalidData, no_text));
            }
        }
        let mut rest = self.line.get(self.read..).unwrap_or_default();
        let read = rest.read(into)?;
        self.read += read;
        Ok(read)
    }
}
