//! Printing answers, as tables for people and as JSON for programs.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Write};

use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width, presets};
use serde::Serialize;

use crate::args::Format;
use crate::error::{Error, Result, Verdict};

/// Blanks between columns.
const GAP: u16 = 2;

/// An answer: its fields are what JSON shows.
pub(crate) trait Answer: Serialize {
    /// What people are shown.
    fn text(&self) -> String;
}

/// A line of a listing: its fields are what JSON shows.
pub(crate) trait Row: Serialize {
    const HEADER: &'static [&'static str];

    /// What people are shown, one text to a column.
    fn cells(&self) -> Vec<String>;
}

/// Standard output in the chosen format.
#[derive(Debug)]
pub(crate) struct Output {
    json: bool,
    open: bool,
}

impl Output {
    pub(crate) fn new(format: Format) -> Self {
        Self { json: format == Format::Json, open: true }
    }

    pub(crate) fn answer(&mut self, answer: &impl Answer) -> Result<()> {
        let text = if self.json { json(answer)? } else { answer.text() };
        self.write(&format!("{}\n", text.trim_end()))
    }

    /// The answer in JSON, or else this text for people.
    pub(crate) fn either(&mut self, answer: &impl Answer, text: &str) -> Result<()> {
        if self.json { self.answer(answer) } else { self.write(&format!("{text}\n")) }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Begins a listing.
    pub(crate) fn rows(&mut self) -> Rows<'_> {
        Rows { output: self, printed: 0, widths: Vec::new() }
    }

    /// Prints page after page until there is none, or nobody reads on.
    pub(crate) async fn listing<R: Row>(
        &mut self,
        nothing: &str,
        mut next: impl AsyncFnMut() -> Result<Option<Vec<R>>>,
    ) -> Result<Verdict> {
        let mut rows = self.rows();
        loop {
            match next().await {
                Ok(Some(page)) if rows.page(&page)? => {}
                Ok(_) => break,
                Err(error) => {
                    if !rows.is_empty() {
                        rows.finish("")?;
                    }
                    return Err(error);
                }
            }
        }
        rows.finish(nothing)?;
        Ok(Verdict::Done)
    }

    /// Writes text. When the reader went away, as `head` does, the rest is silently left out: what
    /// the command did and its exit status are the same.
    pub(crate) fn write(&mut self, text: &str) -> Result<()> {
        if !self.open {
            return Ok(());
        }
        let mut stdout = io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.open = false;
                Ok(())
            }
            result => result.map_err(Error::Output),
        }
    }
}

/// A listing that is printed page by page.
#[derive(Debug)]
pub(crate) struct Rows<'a> {
    output: &'a mut Output,
    printed: usize,
    /// Of the columns so far, so that later pages stand below them.
    widths: Vec<u16>,
}

impl Rows<'_> {
    /// Prints a page; false if nobody reads on.
    pub(crate) fn page<R: Row>(&mut self, rows: &[R]) -> Result<bool> {
        let mut text = String::new();
        if self.output.json {
            for (i, row) in rows.iter().enumerate() {
                text += if self.printed + i == 0 { "[\n" } else { ",\n" };
                text += &json(row)?;
            }
        } else if !rows.is_empty() {
            let header = (self.printed == 0).then_some(R::HEADER);
            let mut table = table(header, rows.iter().map(Row::cells));
            for (column, &width) in table.column_iter_mut().zip(&self.widths) {
                column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(width + GAP)));
            }
            let so_far = self.widths.iter().copied().chain(std::iter::repeat(0));
            let widths = table.column_max_content_widths().into_iter().zip(so_far);
            self.widths = widths.map(|(here, before)| here.max(before)).collect();
            text = lines(&table);
        }
        self.printed += rows.len();
        self.output.write(&text)?;
        Ok(self.output.open)
    }

    /// Ends the listing; where nothing was listed, people are told so. Call it also when the listing
    /// fails half-way, so that what was printed is valid JSON.
    pub(crate) fn finish(self, nothing: &str) -> Result<()> {
        match (self.output.json, self.printed) {
            (true, 0) => self.output.write("[]\n"),
            (true, _) => self.output.write("\n]\n"),
            (false, 0) => {
                tell(format_args!("{nothing}\n"));
                Ok(())
            }
            (false, _) => Ok(()),
        }
    }

    fn is_empty(&self) -> bool {
        self.printed == 0
    }
}

/// Writes text to standard error. That nobody can read it is no reason to stop half-way.
pub(crate) fn tell(text: fmt::Arguments<'_>) {
    let _ = io::stderr().write_fmt(text);
}

/// Names and values below each other.
pub(crate) fn properties<const N: usize>(rows: [(&str, String); N]) -> String {
    lines(&table(None, rows.map(|(name, value)| vec![name.to_owned(), value])))
}

/// Rows in columns, without lines around them.
pub(crate) fn table(header: Option<&[&str]>, rows: impl IntoIterator<Item = Vec<String>>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    if let Some(header) = header {
        table.set_header(header);
    }
    for cells in rows {
        table.add_row(cells.iter().map(|cell| one_line(cell)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, GAP));
    }
    table
}

pub(crate) fn lines(table: &Table) -> String {
    table.lines().fold(String::new(), |text, line| text + line.trim_end() + "\n")
}

/// The text with what is not to be shown escaped, line ends too: names found in Redis may be anybody's, and must neither
/// break a table nor command a terminal.
pub(crate) fn one_line(text: &str) -> Cow<'_, str> {
    escaped(text, commands)
}

/// The same of a text of several lines.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c != '\n' && commands(c))
}

fn escaped(text: &str, is_escaped: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_escaped) {
        return text.into();
    }
    let escaped = text.chars().map(|c| match is_escaped(c) {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    });
    escaped.collect::<String>().into()
}

/// Whether a terminal is told by it to do something, as to end a line or to show what follows from right to left.
fn commands(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::Output(error.into()))
}
