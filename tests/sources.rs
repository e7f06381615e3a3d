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

/// The scripts, without what is shared and only stands for a line of theirs.
fn scripts() -> Vec<(PathBuf, String)> {
    let mut scripts = files("lua", "lua");
    scripts.retain(|(path, _)| !path.starts_with("lua/shared"));
    scripts
}

/// What the line `INCLUDE` stands for.
fn shared() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("lua/shared/queue.lua")).unwrap()
}

const INCLUDE: &str = "--- include queue.lua";

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
    for (path, script) in scripts() {
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
            if !fixed.is_empty() {
                let names: Vec<_> = fixed.iter().map(|(_, name)| name.clone()).collect();
                assert_eq!(names, named(&body, array), "{at}: names of {array}");
            }
            // One after the other, or so many for each of several pools.
            let each = format!("for i = {}, ", fixed.len() + 1);
            let group = format!("unpack({array}, 9 * i - 8, 9 * i)");
            let loops = body.iter().any(|line| line.contains(&each) || line.contains(&group));
            assert_eq!(loops, !tail.is_empty(), "{at}: tail of {array}");
            for (index, _) in tail {
                assert_eq!(*index, format!("{}..", fixed.len() + 1), "{at}: tail of {array}");
            }
        }
    }
}

/// Names that a text gives at the beginning of a line: there they are seen by all that follows.
fn names_given(text: &str) -> BTreeSet<&str> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("local "));
    let names = lines.flat_map(|line| match line.strip_prefix("function ") {
        Some(function) => function.split('(').next().into_iter().collect::<Vec<_>>(),
        None => line.split(" = ").next().unwrap().split(", ").collect(),
    });
    names.filter(|name| !matches!(*name, "_")).collect()
}

/// A name of the script would mean something else after the line that includes.
#[test]
fn what_scripts_include_hides_none_of_their_names() {
    let shared = shared();
    for (path, script) in scripts() {
        assert_eq!(
            script.matches("--- ").count(),
            script.matches(INCLUDE).count(),
            "{}",
            path.display()
        );
        let Some((before, after)) = script.split_once(INCLUDE) else { continue };
        assert!(!after.contains(INCLUDE), "{}", path.display());
        // Inside a block it hides nothing of what follows.
        let inside = !before.ends_with('\n');
        let own = names_given(if inside { before } else { &script });
        let included = names_given(&shared);
        let both: Vec<_> = own.intersection(&included).collect();
        assert!(both.is_empty(), "{} has {both:?} of its own", path.display());
    }
}

#[test]
fn no_script_makes_a_key_or_calls_what_depends_on_the_client() {
    for (path, script) in files("lua", "lua") {
        let (_, body) = split(&script);
        for line in body {
            for forbidden in [
                "redisresourcemanager",
                "tokenpool:pools",
                "tokenpool:tickets",
                "}:",
                "'KEYS'",
                "'SCAN'",
            ] {
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
    let cases = decoder.split("impl Answer").nth(1).unwrap().split("fn from_value").next().unwrap();
    let decoded: BTreeSet<_> = cases
        .lines()
        .filter_map(|line| line.split_once(" => ")?.0.trim().strip_prefix('"')?.strip_suffix('"'))
        .flat_map(|words| words.split("\" | \"").map(str::to_owned))
        .filter(|word| word != "-")
        .collect();
    assert_eq!(decoded, documented);

    let known = fs::read_to_string(root.join("src/redis/scripts.rs")).unwrap();
    assert!(schema.contains("`shared/queue.lua`"));
    // What is told through channels is no answer.
    let shared: Vec<_> =
        shared().lines().filter(|l| !l.contains("tell(")).map(str::to_owned).collect();
    for (path, script) in scripts() {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(schema.contains(&format!("| `{name}` |")), "lua/README.md lacks {name}");
        let stem = path.file_stem().unwrap().to_str().unwrap();
        assert!(known.contains(&format!("\"{stem}\" on ")), "scripts.rs lacks {name}");
        let (head, body) = split(&script);
        let (head, body) = (head.join(" ").replace(" -- ", " "), body.join("\n"));
        let body = body.replace(INCLUDE, &shared.join("\n"));
        let returns = head.split("Returns ").nth(1).unwrap().split("Cost:").next().unwrap();
        for answer in &documented {
            // `an answer: one, another; an answer of each: a third}, or anything else`
            let listed = returns.split(": ").skip(1).any(|list| {
                let words = list.split([',', ';', '}']).map(str::trim);
                words.take_while(|word| !word.contains(' ')).any(|word| word == answer)
            });
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
