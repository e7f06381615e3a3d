//! Asking before something is changed.

use std::io::{self, BufRead, Write};

use crate::error::{Error, Result};

/// What the answer to a question is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answered {
    Yes,
    No,
}

/// Asks on stderr and reads stdin until somebody says yes or no. Its end is a no.
pub(super) async fn ask(question: impl Into<String>) -> Result<Answered> {
    let question = question.into();
    let answer = tokio::task::spawn_blocking(move || {
        answer(&question, &mut io::stdin().lock(), &mut io::stderr())
    })
    .await;
    // It does not panic, and nobody cancels it.
    answer.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(Error::Question)
}

fn answer(question: &str, from: &mut impl BufRead, to: &mut impl Write) -> io::Result<Answered> {
    loop {
        // Whether anybody sees it is not for this program to know.
        let _ = write!(to, "{question} [y/n]: ");
        let mut line = String::new();
        if from.read_line(&mut line)? == 0 {
            return Ok(Answered::No);
        }
        match line.trim().to_lowercase().as_str() {
            "y" | "yes" => return Ok(Answered::Yes),
            "n" | "no" => return Ok(Answered::No),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_yes_is_one() {
        for (typed, answered) in [
            ("y\n", Answered::Yes),
            ("YES\n", Answered::Yes),
            ("what?\n\nyes", Answered::Yes),
            ("n\ny\n", Answered::No),
            ("No\n", Answered::No),
            ("yep\n", Answered::No),
            ("", Answered::No),
        ] {
            let got = answer("Continue?", &mut typed.as_bytes(), &mut io::sink());
            assert_eq!(got.ok(), Some(answered), "{typed:?}");
        }
    }
}
