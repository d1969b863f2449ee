//! The format of the data directory: what an earlier version wrote is read, what a later one wrote is left alone
//! (R6.20). The directories were made by `tests/data_dirs/make`.

#![allow(clippy::unwrap_used, unreachable_pub)]

mod rig;

use std::fs;
use std::path::Path;
use std::process::Command;

use rig::{Daemon, Setup, Value, eventually, json};

/// What `tests/data_dirs/make` wrote.
const TOKEN_FILE: &str = "fixture-token";

/// Every directory that was kept, by the version that wrote it.
fn kept() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data_dirs");
    let listing = fs::read_dir(folder).unwrap();
    let names = listing.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut versions: Vec<String> = names.filter_map(|name| name.strip_suffix(".tar.gz").map(str::to_owned)).collect();
    versions.sort();
    versions
}

fn unpacked(version: &str, config: &str) -> Setup {
    let setup = Setup::new(config);
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data_dirs/{version}.tar.gz"));
    assert!(fs::metadata(&archive).unwrap().len() < 100_000, "{version}");
    let status = Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(setup.folder()).status().unwrap();
    assert!(status.success());
    setup
}

#[track_caller]
fn get(daemon: &Daemon, token: &str, line: &[&str]) -> Value {
    let line: Vec<&str> = ["--json"].iter().chain(line).copied().collect();
    daemon.holdfast_as(token, &line).json()
}

/// Reads all that the script wrote.
#[track_caller]
fn holds_everything(daemon: &Daemon, token: &str) {
    let first = eventually("the key ring", || {
        let ran = daemon.holdfast_as(token, &["--json", "var", "get", "app/in-snapshot"]);
        (ran.status == Some(0)).then(|| serde_json::from_str::<Value>(&ran.out).unwrap())
    });
    assert_eq!(first["items"], json!({ "user": "alice", "password": "in the snapshot" }));
    let second = get(daemon, token, &["var", "get", "app/in-log"]);
    assert_eq!(second["items"]["password"], "in the log");
    let third = get(daemon, token, &["var", "get", "--namespace", "team", "app/of-team"]);
    assert_eq!(third["items"]["k"], "v");
    let locks = get(daemon, token, &["var", "lock", "ls"]);
    assert!(locks.to_string().contains("app/locked"), "{locks}");
    let names = get(daemon, token, &["namespace", "list"]).to_string();
    assert!(names.contains("team") && names.contains("of the fixture"), "{names}");
    let policies = get(daemon, token, &["acl", "policy", "list"]).to_string();
    assert!(policies.contains("reader"), "{policies}");
    let tokens = get(daemon, token, &["acl", "token", "list"]).to_string();
    assert!(tokens.contains("token of the fixture"), "{tokens}");
    let nodes = get(daemon, token, &["node", "list"]);
    assert_eq!(nodes.as_array().unwrap().len(), 3, "{nodes}");
    let sessions = get(daemon, token, &["session", "ls"]).to_string();
    assert!(sessions.contains("fixture-session"), "{sessions}");
}

// R6.20
#[test]
fn what_earlier_versions_wrote_is_read() {
    let versions = kept();
    assert!(versions.iter().any(|version| version == "0.1.0"), "{versions:?}");
    for version in versions {
        let setup = unpacked(&version, "[acl]\nenabled = true");
        let data = setup.data_dir();
        assert!(fs::read_dir(data.join("snapshots")).unwrap().count() > 0, "{version}");
        assert_eq!(fs::read_to_string(data.join("format")).unwrap(), "1\n");
        let token = fs::read_to_string(setup.folder().join(TOKEN_FILE)).unwrap().trim().to_owned();
        let daemon = setup.start();
        holds_everything(&daemon, &token);
        daemon.holdfast_as(&token, &["var", "put", "app/new", "k=v"]).ok();
        // And what this one wrote beside it.
        let daemon = daemon.killed_and_again();
        holds_everything(&daemon, &token);
        assert_eq!(get(&daemon, &token, &["var", "get", "app/new"])["items"]["k"], "v");
    }
}

// R6.20
#[test]
fn a_directory_without_a_version_is_of_the_first() {
    let setup = unpacked("0.1.0", "[acl]\nenabled = true");
    let (file, token) = (setup.data_dir().join("format"), fs::read_to_string(setup.folder().join(TOKEN_FILE)).unwrap());
    fs::remove_file(&file).unwrap();
    let daemon = setup.start();
    holds_everything(&daemon, token.trim());
    assert_eq!(fs::read_to_string(&file).unwrap(), "1\n");
}

// R6.20, R6.23
#[test]
fn a_later_version_is_left_alone() {
    let setup = unpacked("0.1.0", "[acl]\nenabled = true");
    let file = setup.data_dir().join("format");
    fs::write(&file, "2\n").unwrap();
    let everything = || {
        let mut found: Vec<(std::path::PathBuf, u64)> = Vec::new();
        let mut folders = vec![setup.data_dir()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let entry = entry.unwrap();
                let kind = entry.metadata().unwrap();
                if kind.is_dir() { folders.push(entry.path()) } else { found.push((entry.path(), kind.len())) }
            }
        }
        found.sort();
        found
    };
    let before = everything();
    let mut daemon = setup.spawn();
    assert_eq!(daemon.exit().code(), Some(2));
    let line = daemon.log.until("could not start: ");
    let said =
        format!("the data directory {} is of format 2, and this build knows up to 1", setup.data_dir().display());
    assert!(line.contains(&said), "{line}");
    assert_eq!(everything(), before);
    fs::write(&file, "none").unwrap();
    let mut daemon = setup.spawn();
    assert_eq!(daemon.exit().code(), Some(2));
    daemon.log.until("format: it holds no number of a format");
}
