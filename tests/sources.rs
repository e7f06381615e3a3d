//! What the sources and their documents must agree on.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn files(folder: &str, extension: &str) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut folders, mut found) = (vec![root.join(folder)], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == extension) {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(root).unwrap().to_owned(), text));
            }
        }
    }
    assert!(!found.is_empty(), "no {extension} files in {folder}");
    found.sort();
    found
}

/// The comment at the head of a script, and what follows.
fn split(script: &str) -> (Vec<&str>, Vec<&str>) {
    let (head, body) = script.split_once("\n\n").unwrap();
    (head.lines().collect(), body.lines().collect())
}

/// Names that a statement like `local a, b = unpack(ARGV, 1, 2)` or `local a = ARGV[1]` gives.
fn named(body: &[&str], array: &str) -> Vec<String> {
    let is_source = |right: &str| {
        right.starts_with(&format!("{array}[")) || right.starts_with(&format!("unpack({array}"))
    };
    let statement = body
        .iter()
        .filter_map(|line| line.strip_prefix("local ")?.split_once(" = "))
        .find(|(_, right)| is_source(right))
        .unwrap_or_else(|| panic!("no statement names {array}"));
    statement.0.split(", ").map(str::to_owned).collect()
}

#[test]
fn every_script_says_what_it_takes_returns_and_costs() {
    for (path, script) in files("lua", "lua") {
        let at = path.display();
        let (head, body) = split(&script);
        assert!(head.iter().all(|line| line.starts_with("--")), "{at}: header");
        for word in ["-- Returns ", "-- Cost: "] {
            let lines = head.iter().filter(|line| line.starts_with(word)).count();
            assert_eq!(lines, 1, "{at}: {word}");
        }
        for array in ["KEYS", "ARGV"] {
            let documented: Vec<(String, String)> = head
                .iter()
                .filter_map(|line| {
                    let rest = line.strip_prefix(&format!("-- {array}["))?;
                    let (index, rest) = rest.split_once("] ")?;
                    Some((index.to_owned(), rest.split_once(": ")?.0.to_owned()))
                })
                .collect();
            let (fixed, tail): (Vec<_>, Vec<_>) =
                documented.iter().partition(|(index, _)| !index.ends_with(".."));
            let positions: Vec<_> = (1..=fixed.len()).map(|i| i.to_string()).collect();
            let indexes: Vec<_> = fixed.iter().map(|(index, _)| index.clone()).collect();
            assert_eq!(indexes, positions, "{at}: {array} in order");
            let names: Vec<_> = fixed.iter().map(|(_, name)| name.clone()).collect();
            assert_eq!(names, named(&body, array), "{at}: names of {array}");
            let loops = body
                .iter()
                .any(|line| line.contains(&format!("for i = {}, #{array}", fixed.len() + 1)));
            assert_eq!(loops, !tail.is_empty(), "{at}: tail of {array}");
            for (index, _) in tail {
                assert_eq!(*index, format!("{}..", fixed.len() + 1), "{at}: tail of {array}");
            }
        }
    }
}

#[test]
fn no_script_makes_a_key_or_calls_what_depends_on_the_client() {
    for (path, script) in files("lua", "lua") {
        let (_, body) = split(&script);
        for line in body {
            for forbidden in
                ["redisresourcemanager", "tokenpool:pools", "':usage'", "'KEYS'", "'SCAN'"]
            {
                assert!(!line.contains(forbidden), "{}: {line}", path.display());
            }
        }
    }
}

/// First words of the answers in the table of `lua/README.md`.
fn documented_answers(schema: &str) -> BTreeSet<String> {
    let table = schema.split("## Answers").nth(1).unwrap().split("## Scripts").next().unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    let answers = rows.flat_map(|row| row.split("`, `").map(|answer| answer.trim_matches('`')));
    answers.map(|answer| answer.split(' ').next().unwrap().to_owned()).collect()
}

#[test]
fn schema_scripts_and_decoder_know_the_same_answers() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let schema = fs::read_to_string(root.join("lua/README.md")).unwrap();
    let documented = documented_answers(&schema);
    assert!(documented.contains("granted") && documented.contains("changed"), "{documented:?}");

    let decoder = fs::read_to_string(root.join("src/redis/reply.rs")).unwrap();
    let decoded: BTreeSet<_> = decoder
        .lines()
        .filter_map(|line| line.trim().strip_prefix('"')?.split_once("\" =>"))
        .map(|(word, _)| word.to_owned())
        .filter(|word| !word.is_empty())
        .collect();
    assert_eq!(decoded, documented);

    for (path, script) in files("lua", "lua") {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(schema.contains(&format!("| `{name}` |")), "lua/README.md lacks {name}");
        let (head, body) = split(&script);
        let (head, body) = (head.join(" ").replace(" -- ", " "), body.join("\n"));
        let returns = head.split("Returns ").nth(1).unwrap().split("Cost:").next().unwrap();
        for answer in &documented {
            // `…answer…: one, another; …answer…: a third; anything else`
            let lists = returns.split(';').filter(|part| part.contains("answer"));
            let listed = lists
                .filter_map(|part| part.rsplit_once(": "))
                .any(|(_, list)| list.trim().split(", ").any(|word| word == answer));
            let given =
                body.contains(&format!("'{answer}'")) || body.contains(&format!("'{answer} "));
            assert_eq!(listed, given, "{name}: {answer} in the header and in the body");
        }
    }
}

#[test]
fn only_the_redis_folder_knows_the_redis_crate_and_only_one_file_each_makes_keys_and_has_scripts() {
    for (path, text) in files("src", "rs") {
        let at = path.to_str().unwrap();
        let code: Vec<_> = text
            .lines()
            .take_while(|line| !line.contains("#[cfg(test)]\nmod tests") && *line != "mod tests {")
            .filter(|line| !line.trim_start().starts_with("//"))
            .collect();
        let has = |what: &str| code.iter().any(|line| line.contains(what));
        let in_redis = at.starts_with("src/redis/");
        if !in_redis {
            assert!(
                !code.iter().any(|l| l.contains("redis::")
                    && !l.contains("crate::redis::")
                    && !l.contains("pub use redis::RedisBackend")),
                "{at} names the redis crate"
            );
        }
        assert!(!has("include_str!(concat!") || at == "src/redis/scripts.rs", "{at} has scripts");
        assert!(!has("\"redisresourcemanager") || at == "src/redis/keys.rs", "{at} makes keys");
        assert!(!has(".unwrap()"), "{at} unwraps");
    }
}
