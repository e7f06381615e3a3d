//! What servers say when the user that we are lacks permission.

use std::error::Error;
use std::fmt;

use redis::{ErrorKind, RedisError, ServerErrorKind};

/// How it is said where no code of its own says it: of a command in a script, by Redis before 7.2 and since, and when
/// connecting.
const WORDS: [&str; 3] =
    ["The user executing the script can't", "ACL failure in script", "has no permissions to"];

/// Whether permission is missing.
pub(super) fn is_missing(error: &RedisError) -> bool {
    let is_said = |text: &str| WORDS.iter().any(|words| text.contains(words));
    error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm)
        || error.detail().is_some_and(is_said)
}

/// A missing permission in the server's words, by one name wherever it showed.
#[derive(Debug)]
pub(super) struct Missing(RedisError);

impl Missing {
    pub(super) fn new(error: RedisError) -> Self {
        Self(error)
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.detail() {
            Some(words) => write!(f, "NOPERM {words}"),
            None => write!(f, "NOPERM ({})", self.0),
        }
    }
}

impl Error for Missing {}
