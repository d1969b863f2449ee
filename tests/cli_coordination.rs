//! `holdfast`'s commands for variables, namespaces, tokens, keys, snapshots and events, as people run them, against a
//! daemon. Locks are in `cli_lock`.

#![allow(clippy::print_stderr, unreachable_pub)]
#![allow(clippy::unwrap_used)]

mod rig;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use rig::{Daemon, Value, eventually, json};

/// A file in a daemon's folder.
fn file(daemon: &Daemon, name: &str, bytes: &[u8]) -> String {
    let path = daemon.setup.folder().join(name);
    fs::write(&path, bytes).unwrap();
    path.to_str().unwrap().to_owned()
}

fn fresh() -> Daemon {
    Daemon::start("").with_keys()
}

fn index_of(daemon: &Daemon, path: &str) -> String {
    daemon.holdfast(&["var", "get", "--json", path]).json()["modify_index"].to_string()
}

#[test]
fn variables_are_written_read_listed_and_removed() {
    let daemon = fresh();
    let (secret, items) =
        (file(&daemon, "secret", b"s3cret\n"), file(&daemon, "items.json", b"{\"a\":\"1\",\"b\":\"2\"}"));
    let said = daemon.holdfast(&["var", "put", "app/db", "user=web", &format!("password=@{secret}"), "eq=a=b"]).ok();
    assert!(said.starts_with("Wrote app/db, index "), "{said}");
    let shown = daemon.holdfast(&["var", "get", "--json", "app/db"]).json();
    // A file is taken byte for byte, the end of its line too.
    assert_eq!(shown["items"], json!({ "user": "web", "password": "s3cret\n", "eq": "a=b" }));
    assert_eq!((&shown["namespace"], &shown["path"]), (&json!("default"), &json!("app/db")));
    let shown = daemon.holdfast(&["var", "get", "app/db"]).ok();
    assert!(shown.contains("\nItems\n") && shown.contains("password  s3cret\\n\n"), "{shown}");
    // One item, exactly as it is: off a terminal nothing is added.
    assert_eq!(daemon.holdfast(&["var", "get", "--item", "password", "app/db"]).ok(), "s3cret\n");
    assert_eq!(daemon.holdfast(&["var", "get", "--item", "user", "app/db"]).ok(), "web");

    // From standard input, whole or an item; the command line goes before the file.
    daemon.holdfast_reads(b"{\"k\":\"in\",\"x\":\"y\"}", &["var", "put", "app/in", "--in", "-", "k=line"]).ok();
    assert_eq!(daemon.holdfast(&["var", "get", "--json", "app/in"]).json()["items"], json!({ "k": "line", "x": "y" }));
    daemon.holdfast_reads(b"piped", &["var", "put", "--force", "app/in", "k=-"]).ok();
    assert_eq!(daemon.holdfast(&["var", "get", "--item", "k", "app/in"]).ok(), "piped");
    let twice = daemon.holdfast_reads(b"x", &["var", "put", "--force", "app/in", "k=-", "l=-"]).failed(2);
    assert!(twice.contains("named twice"), "{twice}");
    daemon.holdfast(&["var", "put", "other", "--in", &items]).ok();

    let listed = daemon.holdfast(&["var", "list", "app/"]).ok();
    let lines: Vec<&str> = listed.lines().collect();
    assert_eq!(lines.len(), 3, "{listed}");
    assert!(lines[0].starts_with("Namespace  Path") && lines[1].contains("app/db") && lines[2].contains("app/in"));
    let filtered = daemon.holdfast(&["var", "list", "--json", "--filter", "Path contains \"the\""]).json();
    assert_eq!(filtered.as_array().unwrap().len(), 1, "{filtered}");
    assert!(filtered[0]["path"] == "other" && filtered[0].get("items").is_none(), "{filtered}");
    daemon.holdfast(&["var", "list", "--filter", "Path contains"]).failed(1);

    daemon.holdfast(&["var", "purge", "app/db"]).ok();
    daemon.holdfast(&["var", "purge", "app/db"]).ok();
    let missing = daemon.holdfast(&["var", "get", "app/db"]).failed(1);
    assert!(missing.contains("there is no variable \"app/db\"; see"), "{missing}");
    daemon.holdfast(&["var", "get", "--item", "nope", "other"]).failed(1);
    daemon.holdfast(&["var", "put", "with space", "k=v"]).failed(1);
}

#[test]
fn a_conflict_is_status_one_and_says_what_to_do() {
    let daemon = fresh();
    daemon.holdfast(&["var", "put", "p", "k=1"]).ok();
    let index = index_of(&daemon, "p");
    let said = daemon.holdfast(&["var", "put", "p", "k=2"]).failed(1);
    assert!(said.contains(&format!("with index {index}; see --check-index and --force")), "{said}");
    daemon.holdfast(&["var", "put", "--check-index", &index, "p", "k=2"]).ok();
    let said = daemon.holdfast(&["var", "put", "--check-index", &index, "p", "k=3"]).failed(1);
    assert!(said.contains(&format!("not {index}: read it again")), "{said}");
    let said = daemon.holdfast(&["var", "put", "--check-index", "7777", "missing", "k=3"]).failed(1);
    assert!(said.contains("not there any more"), "{said}");
    let said = daemon.holdfast(&["var", "purge", "--check-index", &index, "p"]).failed(1);
    assert!(said.contains("read it again"), "{said}");
    assert_eq!(daemon.holdfast(&["var", "get", "--item", "k", "p"]).ok(), "2", "nothing refused was written");
    daemon.holdfast(&["var", "purge", "--check-index", &index_of(&daemon, "p"), "p"]).ok();
    // R8.1: a fence is remembered, and never falls.
    daemon.holdfast(&["var", "put", "--force", "--fence", "40", "data", "k=new"]).ok();
    let said = daemon.holdfast(&["var", "put", "--force", "--fence", "39", "data", "k=late"]).failed(1);
    assert!(said.contains("a higher fence than 39"), "{said}");
    let said = daemon
        .holdfast(&["var", "put", "--check-index", &index_of(&daemon, "data"), "--fence", "39", "data", "k=late"])
        .failed(1);
    assert!(said.contains("a higher fence than 39"), "{said}");
    assert_eq!(daemon.holdfast(&["var", "get", "--item", "k", "data"]).ok(), "new");
    daemon.holdfast(&["var", "put", "--force", "--fence", "40", "data", "k=again"]).ok();
}

#[test]
fn several_variables_are_written_all_or_not_at_all() {
    let daemon = fresh();
    daemon.holdfast(&["var", "put", "a", "sum=10"]).ok();
    daemon.holdfast(&["var", "put", "b", "sum=0"]).ok();
    let transfer = |a: &str, b: &str| {
        let op = |path: &str, index: &str, sum: &str| json!({ "Op": "cas", "Var": { "Path": path, "ModifyIndex": index.parse::<u64>().unwrap(), "Items": { "sum": sum } } });
        serde_json::to_vec(&json!([op("a", a, "7"), op("b", b, "3")])).unwrap()
    };
    let (a, b) = (index_of(&daemon, "a"), index_of(&daemon, "b"));
    let name = file(&daemon, "transfer.json", &transfer(&a, &b));
    assert_eq!(daemon.holdfast(&["var", "txn", &name]).ok(), "a  ok\nb  ok\n");
    // The same again is refused as a whole, and says which.
    let ran = daemon.holdfast_reads(&transfer(&index_of(&daemon, "a"), &b), &["var", "txn", "--json", "-"]);
    let value: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((&value["result"], &value["results"][1]["result"]), (&json!("conflict"), &json!("conflict")));
    assert!(ran.failed(1).contains("nothing was written"));
    assert_eq!(daemon.holdfast(&["var", "get", "--item", "sum", "a"]).ok(), "7");
    let other = json!([{ "Op": "set", "Var": { "Path": "c", "Items": { "k": "v" } } }]);
    let name = file(&daemon, "other.json", &serde_json::to_vec(&other).unwrap());
    daemon.holdfast(&["var", "txn", "--namespace", "web", &name]).ok();
    assert_eq!(daemon.holdfast(&["var", "get", "--namespace", "web", "--item", "k", "c"]).ok(), "v");
}

#[test]
fn what_is_written_to_a_file_is_its_owners_alone() {
    let daemon = fresh();
    daemon.holdfast(&["var", "put", "app/db", "password=s3cret"]).ok();
    // Also where a file that all may read stood before.
    let out = file(&daemon, "password", b"old and long, readable by all");
    fs::set_permissions(&out, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(daemon.holdfast(&["var", "get", "--item", "password", "--out", &out, "app/db"]).ok(), "");
    assert_eq!(fs::read_to_string(&out).unwrap(), "s3cret");
    assert_eq!(fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o600);
    let nowhere = daemon.holdfast(&["var", "get", "--out", "/nonexistent/file", "app/db"]).failed(2);
    assert!(nowhere.contains("/nonexistent/file: "), "{nowhere}");
    daemon.holdfast(&["var", "get", "--out", &out, "missing"]).failed(1);
    assert_eq!(fs::read_to_string(&out).unwrap(), "s3cret", "a failure leaves what was there");
}

#[test]
fn namespaces_are_made_changed_and_removed() {
    let daemon = fresh();
    daemon.holdfast(&["namespace", "apply", "--description", "The web team", "--meta", "contact=w@e", "web"]).ok();
    daemon.holdfast(&["namespace", "apply", "--meta", "floor=3", "web"]).ok();
    let shown = daemon.holdfast(&["namespace", "status", "--json", "web"]).json();
    assert_eq!((&shown["description"], &shown["meta"]), (&json!("The web team"), &json!({ "floor": "3" })));
    let listed = daemon.holdfast(&["namespace", "list"]).ok();
    assert_eq!(listed.lines().count(), 3, "{listed}");
    assert_eq!(daemon.holdfast(&["namespace", "list", "--prefix", "w", "--json"]).json().as_array().unwrap().len(), 1);

    daemon.holdfast(&["var", "put", "--namespace", "web", "app/x", "k=web"]).ok();
    daemon.holdfast(&["var", "put", "app/x", "k=default"]).ok();
    let listed = daemon.holdfast(&["var", "list", "--namespace", "*"]).ok();
    assert!(listed.contains("default    app/x") && listed.contains("web        app/x"), "{listed}");
    let said = daemon.holdfast(&["namespace", "delete", "web"]).failed(1);
    assert!(said.contains("has variables"), "{said}");
    daemon.holdfast(&["var", "purge", "--namespace", "web", "app/x"]).ok();
    daemon.holdfast(&["namespace", "delete", "web"]).ok();
    daemon.holdfast(&["namespace", "status", "web"]).failed(1);
    daemon.holdfast(&["namespace", "delete", "default"]).failed(1);
    daemon.holdfast(&["namespace", "apply", "--meta", "novalue", "web"]).failed(2);
}

const APP_READ: &[u8] = br#"namespace "default" { variables { path "app/*" { capabilities = ["read", "list"] } } }"#;
const APP_WRITE: &[u8] =
    br#"namespace "default" { variables { path "app/*" { capabilities = ["read", "write", "destroy"] } } }"#;

fn secret(shown: &Value) -> String {
    shown["secret"].as_str().unwrap().to_owned()
}

#[test]
fn tokens_policies_and_roles_say_who_may_do_what() {
    let daemon = Daemon::start("[acl]\nenabled = true");
    let denied = daemon.holdfast(&["var", "put", "app/x", "k=v"]).failed(1);
    assert!(denied.contains("Permission denied; see --token-file, HOLDFAST_TOKEN"), "{denied}");
    let boot = secret(&daemon.holdfast(&["acl", "bootstrap", "--json"]).json());
    let again = daemon.holdfast(&["acl", "bootstrap"]).failed(1);
    assert!(again.contains("ACL bootstrap already done"), "{again}");
    eventually("a key ring", || {
        (daemon.holdfast_as(&boot, &["var", "put", "--force", "app/x", "k=v"]).status == Some(0)).then_some(())
    });

    // A policy, and a token with it.
    let rules = file(&daemon, "app-read.hcl", APP_READ);
    daemon.holdfast_as(&boot, &["acl", "policy", "apply", "--description", "Reads", "app-read", &rules]).ok();
    let made = daemon
        .holdfast_as(
            &boot,
            &["acl", "token", "create", "--name", "web", "--policy", "app-read", "--ttl", "8h", "--json"],
        )
        .json();
    assert!(made["expires"].as_str().is_some_and(|time| time.starts_with("20")), "{made}");
    let reader = secret(&made);
    assert_eq!(daemon.holdfast_as(&reader, &["var", "get", "--item", "k", "app/x"]).ok(), "v");
    daemon.holdfast_as(&reader, &["var", "put", "--force", "app/x", "k=w"]).failed(1);
    daemon.holdfast_as(&reader, &["var", "get", "other"]).failed(1);
    daemon.holdfast_as(&reader, &["acl", "token", "list"]).failed(1);
    let own = daemon.holdfast_as(&reader, &["acl", "token", "self", "--json"]).json();
    assert_eq!((&own["accessor"], &own["policies"]), (&made["accessor"], &json!(["app-read"])));
    // Snapshots: neither taken nor put in place, and why is said.
    let name = daemon.setup.folder().join("a.snap");
    let name = name.to_str().unwrap();
    daemon.holdfast_as(&boot, &["operator", "snapshot", "save", name]).ok();
    for line in [["operator", "snapshot", "restore", name], ["operator", "snapshot", "save", "-"]] {
        let said = daemon.holdfast_as(&reader, &line).failed(1);
        assert!(said.contains("Permission denied; see"), "{said}");
    }
    // A lock needs to write.
    let said = daemon.holdfast_as(&reader, &["var", "lock", "app/x", "true"]).failed(1);
    assert!(said.contains("Permission denied; see"), "{said}");
    // A token in a file, with the end of its line.
    let token_file = file(&daemon, "token", format!("{reader}\n").as_bytes());
    daemon.holdfast(&["var", "get", "--token-file", &token_file, "app/x"]).ok();
    daemon.holdfast_reads(reader.as_bytes(), &["var", "get", "--token-file", "-", "app/x"]).ok();
    daemon.holdfast_as("11111111-2222-3333-4444-555555555555", &["var", "get", "app/x"]).failed(1);

    // A role, by name; then the token may write too.
    let rules = file(&daemon, "app-write.json", APP_WRITE);
    daemon.holdfast_as(&boot, &["acl", "policy", "apply", "app-write", &rules]).ok();
    daemon.holdfast_as(&boot, &["acl", "role", "create", "--name", "writers", "--policy", "app-write"]).ok();
    let accessor = made["accessor"].as_str().unwrap();
    daemon.holdfast_as(&boot, &["acl", "token", "update", "--role", "writers", accessor]).ok();
    daemon.holdfast_as(&reader, &["var", "put", "--force", "app/y", "k=w"]).ok();
    let info = daemon.holdfast_as(&boot, &["acl", "token", "info", accessor]).ok();
    assert!(info.contains("writers") && info.contains("app-read") && info.contains(&reader), "{info}");
    let role = daemon.holdfast_as(&boot, &["acl", "role", "info", "--json", "writers"]).json();
    assert_eq!(role["policies"], json!(["app-write"]));
    daemon.holdfast_as(&boot, &["acl", "role", "update", "--policy", "app-read", "writers"]).ok();
    daemon.holdfast_as(&reader, &["var", "put", "--force", "app/y", "k=w"]).failed(1);

    // What is listed has no secrets.
    let listed = daemon.holdfast_as(&boot, &["acl", "token", "list"]).ok();
    assert!(listed.contains("web") && listed.contains("Bootstrap Token"), "{listed}");
    assert!(!listed.contains(&boot) && !listed.contains(&reader), "{listed}");
    assert!(daemon.holdfast_as(&boot, &["acl", "policy", "list"]).ok().contains("app-read   Reads"));
    assert!(daemon.holdfast_as(&boot, &["acl", "role", "list"]).ok().contains("writers"));
    let policy = daemon.holdfast_as(&boot, &["acl", "policy", "info", "app-read"]).ok();
    assert!(policy.contains("Description       Reads") && policy.contains("path \"app/*\""), "{policy}");
    // Words for people stay when only the rules are given.
    daemon.holdfast_as(&boot, &["acl", "policy", "apply", "app-read", &file(&daemon, "r", APP_READ)]).ok();
    assert!(daemon.holdfast_as(&boot, &["acl", "policy", "list"]).ok().contains("app-read   Reads"));
    let wrong = file(&daemon, "wrong.hcl", b"namespace \"default\" { policy = \"reed\" }");
    daemon.holdfast_as(&boot, &["acl", "policy", "apply", "wrong", &wrong]).failed(1);

    // Whatever is removed does not count any more.
    daemon.holdfast_as(&boot, &["acl", "token", "delete", accessor]).ok();
    daemon.holdfast_as(&reader, &["var", "get", "app/x"]).failed(1);
    let id = role["id"].as_str().unwrap();
    daemon.holdfast_as(&boot, &["acl", "role", "delete", id]).ok();
    daemon.holdfast_as(&boot, &["acl", "policy", "delete", "app-write"]).ok();
    for line in [["acl", "role", "info", "writers"], ["acl", "policy", "info", "app-write"]] {
        daemon.holdfast_as(&boot, &line).failed(1);
    }
    // R8.15: neither in the log.
    for line in daemon.log.lines() {
        assert!(!line.contains(&boot) && !line.contains(&reader), "{line}");
    }
}

#[test]
fn a_bootstrap_secret_may_be_brought() {
    let daemon = Daemon::start("[acl]\nenabled = true");
    let secret = "2b778dd9-f5f1-6f29-b4b4-9a5fa948757a";
    daemon.holdfast_reads(b"no uuid", &["acl", "bootstrap", "--secret-file", "-"]).failed(1);
    let said =
        daemon.holdfast_reads(format!("{secret}\n").as_bytes(), &["acl", "bootstrap", "--secret-file", "-"]).ok();
    assert!(said.contains(secret) && said.contains("management"), "{said}");
    daemon.holdfast_as(secret, &["acl", "token", "list"]).ok();
}

#[test]
fn without_acls_their_commands_say_so() {
    let daemon = Daemon::start("");
    for line in [&["acl", "token", "list"][..], &["acl", "bootstrap"], &["acl", "policy", "list"]] {
        let said = daemon.holdfast(line).failed(1);
        assert!(said.contains("ACL support disabled; see acl.enabled"), "{said}");
    }
    assert!(daemon.holdfast(&["acl", "token", "self"]).ok().contains("acls-disabled"));
}

#[test]
fn keys_rotate_and_the_old_ones_go() {
    let daemon = fresh();
    daemon.holdfast(&["var", "put", "p", "k=before"]).ok();
    let keys = || daemon.holdfast(&["operator", "keyring", "list", "--json"]).json().as_array().unwrap().clone();
    let old = keys()[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(keys().len(), 1);
    daemon.holdfast(&["operator", "keyring", "remove", &old]).failed(1);
    let made = daemon.holdfast(&["operator", "keyring", "rotate", "--full", "--json"]).json();
    assert_ne!(made[0]["id"], old.as_str());
    eventually("everything under the new key", || {
        let state = |id: &Value| keys().iter().find(|key| key["id"] == *id).map(|key| key["state"].clone());
        (state(&made[0]["id"]) == Some(json!("active"))).then_some(())
    });
    eventually("the old key is of no use", || {
        (daemon.holdfast(&["operator", "keyring", "remove", &old]).status == Some(0)).then_some(())
    });
    let table = daemon.holdfast(&["operator", "keyring", "list"]).ok();
    assert!(table.lines().count() == 2 && !table.contains(&old), "{table}");
    assert_eq!(daemon.holdfast(&["var", "get", "--item", "k", "p"]).ok(), "before");
    daemon.holdfast(&["var", "put", "--force", "p", "k=after"]).ok();
    daemon.holdfast(&["operator", "keyring", "remove", "no-such-key"]).failed(1);
}

#[test]
fn a_snapshot_brings_everything_back_and_a_damaged_one_nothing() {
    let daemon = fresh();
    daemon.holdfast(&["var", "put", "app/x", "k=first"]).ok();
    let snapshot = daemon.setup.folder().join("save.snap");
    let name = snapshot.to_str().unwrap();
    let said = daemon.holdfast(&["operator", "snapshot", "save", name]).ok();
    assert!(said.starts_with("Saved ") && said.contains(name), "{said}");
    assert_eq!(fs::metadata(&snapshot).unwrap().permissions().mode() & 0o777, 0o600);
    let shown = daemon.holdfast(&["operator", "snapshot", "inspect", "--json", name]).json();
    let keys = daemon.holdfast(&["operator", "keyring", "list", "--json"]).json();
    assert_eq!((&shown["holds"]["variables"], &shown["keys"][0]), (&json!(1), &keys[0]["id"]));
    let bytes = fs::read(&snapshot).unwrap();
    // Ciphertext only, the path in the open.
    assert!(daemon.holdfast_reads(&bytes, &["operator", "snapshot", "inspect", "-"]).ok().contains("Needs keys"));
    let piped = daemon.cli().args(["operator", "snapshot", "save", "--stale", "-"]).output().unwrap();
    assert_eq!((piped.status.code(), piped.stdout.get(..2)), (Some(0), Some(&[0x1f, 0x8b][..])));

    daemon.holdfast(&["var", "put", "--force", "app/x", "k=second"]).ok();
    daemon.holdfast(&["var", "put", "app/later", "k=v"]).ok();
    let index = index_of(&daemon, "app/x");
    // R1.95: cut short, with a byte changed, or of another kind: refused here, and nothing was changed there.
    let mut changed = bytes.clone();
    let middle = changed.len() / 2;
    changed[middle] ^= 0x40;
    for (which, damaged) in [("cut", &bytes[..bytes.len() - 9]), ("changed", &changed[..]), ("other", b"PK\x03\x04")] {
        let damaged = file(&daemon, which, damaged);
        for command in ["inspect", "restore"] {
            let said = daemon.holdfast(&["operator", "snapshot", command, &damaged]).failed(2);
            assert!(said.contains(&damaged), "{said}");
        }
    }
    assert_eq!(index_of(&daemon, "app/x"), index);

    daemon.holdfast(&["operator", "snapshot", "restore", name]).ok();
    assert_eq!(daemon.holdfast(&["var", "get", "--item", "k", "app/x"]).ok(), "first");
    daemon.holdfast(&["var", "get", "app/later"]).failed(1);
    let nowhere = daemon.holdfast(&["operator", "snapshot", "save", "/nonexistent/x.snap"]).failed(2);
    assert!(nowhere.contains("/nonexistent/x.snap"), "{nowhere}");
    // Nothing half written is left behind.
    let left: Vec<PathBuf> = fs::read_dir(daemon.setup.folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!left.iter().any(|path| path.to_string_lossy().contains(".part")), "{left:?}");
}

#[test]
fn servers_say_how_they_are() {
    let daemon = Daemon::start("");
    let said = daemon.holdfast(&["operator", "health"]).ok();
    assert!(said.starts_with("Healthy: yes, servers that may fail: 0\n"), "{said}");
    assert_eq!(daemon.holdfast(&["operator", "health", "--json"]).json()["healthy"], true);
    let peers = daemon.holdfast(&["operator", "raft", "list-peers", "--json"]).json();
    assert_eq!((peers.as_array().unwrap().len(), &peers[0]["leader"]), (1, &json!(true)));
    let id = peers[0]["id"].as_str().unwrap();
    let said = daemon.holdfast(&["operator", "raft", "transfer-leadership", id]).ok();
    assert!(said.starts_with("It leads already"), "{said}");
    let said = daemon.holdfast(&["operator", "raft", "remove-peer", "nobody"]).failed(1);
    assert!(said.contains("was not found in the Raft configuration"), "{said}");
}

#[test]
fn the_only_server_is_a_cluster_of_one() {
    let daemon = Daemon::start("");
    let members = daemon.holdfast(&["server", "members", "--json"]).json();
    assert_eq!((&members[0]["leader"], &members[0]["status"]), (&json!(true), &json!("alive")));
    assert_eq!((members.as_array().unwrap().len(), &members[0]["asked"]), (1, &json!(true)));
    let id = members[0]["id"].as_str().unwrap();
    assert_eq!(daemon.holdfast(&["server", "health", "--json"]).json()["leader"], id);
    let said = daemon.holdfast(&["operator", "raft", "remove-peer", id]).failed(1);
    assert!(said.contains("it is the only one with a vote"), "{said}");
    let address = members[0]["address"].as_str().unwrap();
    daemon.holdfast(&["operator", "raft", "transfer-leadership", address]).ok();
    let said = daemon.holdfast(&["operator", "raft", "transfer-leadership", "127.0.0.1:1"]).failed(1);
    assert!(said.contains("address \"127.0.0.1:1\" was not found in the Raft configuration"), "{said}");
    // One that cannot be reached is passed over.
    let both = format!("127.0.0.1:1,{address}");
    daemon.holdfast(&["--address", &both, "server", "health"]).ok();
}

// R8.20
#[test]
fn a_stopped_server_begins_anew_when_told_twice() {
    let mut daemon = fresh();
    daemon.holdfast(&["var", "put", "app/x", "k=v"]).ok();
    let folder = daemon.setup.data_dir();
    let recover = ["operator", "recover", folder.to_str().unwrap()];
    let said = daemon.holdfast(&recover).failed(1);
    assert!(said.contains(folder.to_str().unwrap()), "a server runs on it: {said}");
    daemon.stop();
    let said = daemon.holdfast(&recover).ok();
    assert!(said.contains("becomes the only member") && said.ends_with("With --yes it is done.\n"), "{said}");
    let planned = daemon.holdfast(&[&recover[..], &["--json"]].concat()).json();
    assert_eq!((&planned["done"], &planned["dropped"]), (&Value::Null, &json!([])));
    let done = daemon.holdfast(&[&recover[..], &["--yes", "--json"]].concat()).json();
    assert_eq!(done["done"]["cluster_id"].as_str().unwrap().len(), 36);
    let daemon = daemon.killed_and_again();
    assert_eq!(daemon.holdfast(&["var", "get", "--item", "k", "app/x"]).ok(), "v");
    let nowhere = daemon.holdfast(&["operator", "recover", "/nonexistent"]).failed(1);
    assert!(nowhere.contains("/nonexistent is not the data folder of a server"), "{nowhere}");
}

#[test]
fn events_come_a_line_each_until_the_server_goes() {
    let mut daemon = fresh();
    daemon.holdfast(&["var", "put", "app/x", "k=s3cret"]).ok();
    let mut one = daemon.follow(&["events", "--topic", "Variable:app/x"]);
    let mut all = daemon.follow(&["events"]);
    one.out.until("\"Path\":\"app/x\"");
    daemon.holdfast(&["var", "put", "app/y", "k=v"]).ok();
    daemon.holdfast(&["var", "put", "--force", "app/x", "k=s3cret2"]).ok();
    one.out.until_count("\"Path\":\"app/x\"", 2);
    all.out.until_count("\"Path\":\"app/x\"", 2);
    let documents: Vec<Value> = one.out.lines().iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(documents.len(), 2, "{documents:?}");
    for document in &documents {
        assert_eq!(
            (&document["Events"][0]["Topic"], &document["Events"][0]["Key"]),
            (&json!("Variable"), &json!("app/x"))
        );
    }
    assert!(documents[0]["Index"].as_u64() < documents[1]["Index"].as_u64());
    assert_eq!(all.out.count("\"Path\":\"app/y\""), 1);
    assert!(!all.out.lines().iter().any(|line| line.contains("s3cret")), "items are in no event");
    // From the next one on: what was before is not told.
    let later = daemon.follow(&["events", "--topic", "Variable", "--index", "-1"]);
    eventually("the first event from now on", || {
        daemon.holdfast(&["var", "put", "--force", "app/z", "k=v"]).ok();
        (later.out.count("app/z") > 0).then_some(())
    });
    assert_eq!(later.out.count("app/y"), 0);
    // The end is told apart from an interrupt.
    daemon.stop();
    assert_eq!((one.status(), all.status()), (Some(3), Some(3)));
    assert_eq!(one.err.lines(), ["holdfast: the server ended the stream: it stops, or restarts"]);
}

#[test]
fn events_need_rights() {
    let daemon = Daemon::start("[acl]\nenabled = true");
    let said = daemon.holdfast(&["events"]).failed(1);
    assert!(said.contains("Permission denied"), "{said}");
    let said = daemon.holdfast(&["monitor"]).failed(1);
    assert!(said.contains("Permission denied"), "{said}");
}

#[test]
fn a_log_is_followed() {
    let mut daemon = fresh();
    let mut text = daemon.follow(&["monitor"]);
    let mut lines = daemon.follow(&["monitor", "--level", "info", "--json"]);
    let mut errors = daemon.follow(&["monitor", "--level", "error"]);
    // Something to log, until both are there to hear it.
    eventually("lines of the log", || {
        daemon.holdfast(&["operator", "keyring", "rotate"]).ok();
        (text.out.count("a new key signs") > 0 && lines.out.count("a new key signs") > 0).then_some(())
    });
    assert!(text.out.lines()[0].contains("[INFO]"), "{:?}", text.out.lines());
    let line = lines.out.lines()[0].clone();
    assert!(serde_json::from_str::<Value>(&line).unwrap().is_object(), "{line}");
    let said = daemon.holdfast(&["monitor", "--server", "nobody"]).failed(1);
    assert!(said.contains("unknown"), "{said}");
    daemon.stop();
    assert_eq!((text.status(), lines.status(), errors.status()), (Some(3), Some(3), Some(3)));
    assert_eq!(errors.out.count("a new key signs"), 0);
}
