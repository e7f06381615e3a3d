//! The rules as `lua/README.md` has them.

use std::fs;
use std::path::Path;

/// What stands for `PASSWORD` in the rules.
pub(super) const PASSWORD: &str = "of-a-user";

/// A user, and the words that say what it may do.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) user: String,
    pub(super) words: Vec<String>,
}

/// Those of the section whose lines begin so.
fn lines(begin: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("lua/README.md");
    let text = fs::read_to_string(path).unwrap();
    let section = text.split("\n## Users\n").nth(1).unwrap().split("\n## ").next().unwrap();
    // Between the fences alone: the rest is about them.
    let blocks = section.split("\n```\n").skip(1).step_by(2);
    let found: Vec<_> =
        blocks.flat_map(str::lines).filter(|line| line.starts_with(begin)).collect();
    assert!(!found.is_empty(), "no line begins with {begin}");
    found.into_iter().map(|line| line.replace("PASSWORD", PASSWORD)).collect()
}

impl Rule {
    pub(super) fn of(user: &str) -> Self {
        let found = lines(&format!("user {user} "));
        let [line] = &found[..] else { panic!("{user} has {} rules", found.len()) };
        let words = line.split(' ').skip(2).map(str::to_owned).collect();
        Self { user: user.to_owned(), words }
    }

    /// The same, where the servers are so.
    pub(super) fn with(mut self, words: &[String]) -> Self {
        self.words.extend(words.iter().cloned());
        self
    }

    pub(super) fn without(&self, word: &str) -> Self {
        let mut rule = self.clone();
        rule.words.retain(|other| other != word);
        assert_eq!(rule.words.len() + 1, self.words.len(), "{word} is there once");
        rule
    }

    /// What it permits: commands, keys and channels.
    pub(super) fn permissions(&self) -> Vec<String> {
        permissions(&self.words)
    }

    /// As it stands in a file.
    pub(super) fn line(&self) -> String {
        format!("user {} {}", self.user, self.words.join(" "))
    }

    /// Makes this the user's rule, whatever it was before.
    pub(super) fn set(&self, connection: &mut redis::Connection) -> redis::RedisResult<()> {
        let mut cmd = redis::cmd("ACL");
        cmd.arg("SETUSER").arg(&self.user).arg("reset").arg(&self.words);
        cmd.exec(connection)
    }
}

fn permissions(words: &[String]) -> Vec<String> {
    let is_permission = |word: &&String| word.starts_with(['+', '~', '&']);
    words.iter().filter(is_permission).cloned().collect()
}

/// What else is needed where the servers are so.
pub(super) fn also(place: &str) -> Vec<String> {
    let all = lines("+");
    let words = all.iter().filter_map(|line| line.strip_suffix(place)?.strip_suffix(' '));
    let words: Vec<_> = words.flat_map(str::split_whitespace).map(str::to_owned).collect();
    assert!(!words.is_empty(), "nothing is needed for {place}");
    words
}
