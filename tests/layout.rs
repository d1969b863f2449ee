//! Holds the source to the table of rooms in the docs of `src/lib.rs`: who may import whom, and who may touch the
//! kernel. Says what to use instead.

#![allow(clippy::print_stderr, unreachable_pub)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What only the rooms at the edge may use, and what to use instead.
const KERNEL: &[(&str, &str)] = &[
    ("std::net::Tcp", "bytes come and go by inputs and outputs"),
    ("std::net::Udp", "bytes come and go by inputs and outputs"),
    ("std::fs", "files are the edge's; take their text or bytes"),
    ("std::env", "settings come from `config`"),
    ("std::process", "processes are the edge's"),
    ("std::thread", "threads are the edge's; be a machine"),
    ("std::time::Instant", "take `now: base::time::Instant` as an argument"),
    ("SystemTime", "take `wall: base::time::WallTime` as an argument"),
    ("std::io::stdout", "return what is to be said"),
    ("std::io::stderr", "return what is to be said"),
    ("SystemRandom", "take chance from `base::rng`, or a secret from the edge"),
    ("mio::", "bytes come and go by inputs and outputs"),
    ("println!", "return what is to be said"),
    ("log::info!", "give an output that says it"),
    ("log::warn!", "give an output that says it"),
    ("log::error!", "give an output that says it"),
    ("log::debug!", "give an output that says it"),
    ("HashMap", "iteration order is behaviour: use BTreeMap, imbl::OrdMap or an index"),
];

/// Rooms that may touch the kernel.
const EFFECTS: &[&str] = &["edge", "client", "cli", "bin"];

fn rows() -> BTreeMap<String, usize> {
    let lib = fs::read_to_string(root().join("src/lib.rs")).expect("src/lib.rs");
    let mut rows = BTreeMap::new();
    for line in lib.lines().filter_map(|line| line.strip_prefix("//! ")) {
        let mut words = line.split_whitespace();
        if let Some(row) = words.next().and_then(|word| word.parse::<usize>().ok()) {
            rows.extend(words.map(|room| (room.to_owned(), row)));
        }
    }
    assert!(rows.len() > 10, "the table of rooms is in the docs of src/lib.rs");
    rows
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of the source") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|end| end == "rs") {
            into.push(path);
        }
    }
}

/// The code of a file: without comments, and without the tests at its end.
fn code(text: &str) -> String {
    let end = text.find("#[cfg(test)]\nmod ").unwrap_or(text.len());
    text[..end].lines().map(|line| line.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n")
}

/// Rooms named after `crate::`, grouped imports too.
fn imports(code: &str) -> Vec<String> {
    let mut rooms = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let list = rest.strip_prefix('{').map(|group| group.split('}').next().unwrap_or("")).unwrap_or(rest);
        for part in list.split(',') {
            let room: String = part.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            rooms.push(room);
            if !rest.starts_with('{') {
                break;
            }
        }
    }
    rooms
}

#[test]
fn every_room_keeps_to_its_row() {
    let (rows, src) = (rows(), root().join("src"));
    let mut files = Vec::new();
    sources(&src, &mut files);
    let mut wrong = Vec::new();
    for file in files {
        let inside = file.strip_prefix(&src).expect("below src");
        let name = inside.display().to_string();
        let text = fs::read_to_string(&file).expect("a source file");
        if !text.starts_with("//!") {
            wrong.push(format!("{name}: open it with `//!`: what it is, what it never does, the source it follows"));
        }
        let Some(room) = inside.iter().next().and_then(|part| part.to_str()).filter(|_| inside.iter().count() > 1)
        else {
            continue;
        };
        let Some(row) = rows.get(room) else {
            wrong.push(format!("{name}: the room `{room}` has no row in the table of src/lib.rs"));
            continue;
        };
        let code = code(&text);
        for other in imports(&code) {
            let above = rows.get(&other).is_none_or(|its| its < row);
            if other != room && !above {
                wrong.push(format!("{name}: imports `{other}`, which is not in a row above `{room}`"));
            }
        }
        if !EFFECTS.contains(&room) {
            for (what, instead) in KERNEL.iter().filter(|(what, _)| code.contains(what)) {
                wrong.push(format!("{name}: `{what}` in a pure room: {instead}"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_top_level_holds_what_was_agreed_and_nothing_else() {
    // R6.13
    const AGREED: &[&str] = &[
        "Cargo.toml",
        "Cargo.lock",
        "README.md",
        "CHANGELOG.md",
        "LICENSE-MIT",
        "LICENSE-APACHE",
        "src",
        "man",
        "tests",
        "packaging",
        "target",
    ];
    let extra: Vec<String> = fs::read_dir(root())
        .expect("the top level")
        .filter_map(|entry| entry.expect("an entry").file_name().into_string().ok())
        .filter(|name| !name.starts_with('.') && !AGREED.contains(&name.as_str()))
        .collect();
    assert!(extra.is_empty(), "at the top level, beyond what was agreed: {extra:?}");
}

#[test]
fn no_runtime_and_no_foreign_framer_is_in_the_tree() {
    // R6.1, R6.4, R6.5; the lock file holds all features, all targets, build and dev parts.
    const FORBIDDEN: &[&str] = &[
        "tokio",
        "async-std",
        "async-executor",
        "async-io",
        "async-global-executor",
        "smol",
        "futures-executor",
        "actix-rt",
        "glommio",
        "monoio",
        "compio",
        "hyper",
        "h2",
        "tonic",
        "reqwest",
        "yamux",
        "msgpack-rpc",
    ];
    let lock = fs::read_to_string(root().join("Cargo.lock")).expect("Cargo.lock");
    let names: Vec<&str> =
        lock.lines().filter_map(|line| line.strip_prefix("name = \"")).map(|rest| rest.trim_end_matches('"')).collect();
    let found: Vec<&&str> = names
        .iter()
        .filter(|name| FORBIDDEN.iter().any(|bad| *name == bad || name.starts_with(&format!("{bad}-"))))
        .collect();
    assert!(found.is_empty(), "{found:?}");
    for core in ["mio", "rustls", "crossbeam-channel", "rmp", "log", "env_logger", "signal-hook"] {
        assert!(names.contains(&core), "{core} is one of the seven core packages");
    }
}

#[test]
fn the_two_words_of_futures_are_nowhere() {
    // R6.2, R6.10
    let (mut files, words) = (Vec::new(), [["as", "ync"].concat(), [".aw", "ait"].concat()]);
    sources(&root().join("src"), &mut files);
    sources(&root().join("tests"), &mut files);
    let allowed_unsafe = ["src/edge/postgres.rs", "src/edge/os.rs"];
    for file in files {
        let text = fs::read_to_string(&file).expect("a source file");
        for word in &words {
            let found = text.match_indices(word.as_str()).any(|(at, _)| {
                let before = text[..at].chars().next_back();
                let after = text[at + word.len()..].chars().next();
                let part_of_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '-');
                !part_of_word(after) && (word.starts_with('.') || !part_of_word(before))
            });
            assert!(!found, "{}: {word}", file.display());
        }
        let name = file.strip_prefix(root()).expect("below the top level").display().to_string();
        let uses_unsafe = [" {", " fn"].iter().any(|after| code(&text).contains(&["unsafe", after].concat()));
        assert!(!uses_unsafe || allowed_unsafe.contains(&name.as_str()), "{name}: unsafe");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grouped_and_single_imports_are_both_seen() {
        let code =
            code("use crate::base::time;\nuse crate::{mux, conn::tls};\n// crate::edge\nfn f() { crate::api::x() }");
        assert_eq!(imports(&code), ["base", "mux", "conn", "api"]);
    }
}
