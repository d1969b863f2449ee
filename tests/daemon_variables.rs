//! Recorded sessions about variables and locks, replayed against the daemon as in `daemon_vectors`. The daemon is
//! brought to the index that the recording began with, since check-and-set and blocking queries name indexes.

#![allow(clippy::print_stderr, unreachable_pub)]
#![allow(clippy::unwrap_used)]

mod rig;

use std::cell::Cell;
use std::thread;

use rig::heard::Heard;
use rig::recorded::{Cut, Recorded, Replay};
use rig::{Daemon, Talk, Value, json};

/// Sessions about variables, and the index of the first write in each.
const VARIABLES: &[(&str, u64)] = &[
    ("blocking_variable_read", 31),
    ("variables", 12),
    ("variables__name_order", 17),
    ("variables_errors", 21),
    ("variables_lock", 22),
];

fn write(daemon: &Daemon, op: &str, path: &str, items: &Value) -> Value {
    let var = json!({ "Namespace": "default", "Path": path, "Items": items });
    let body = json!({ "Region": "global", "Op": op, "Var": var });
    rig::talk::call_once(daemon.rpc, "Variables.Apply", &body).ok()
}

/// A daemon whose key ring is there, so that it writes variables.
fn with_keys() -> Daemon {
    let daemon = Daemon::start("");
    let var = json!({ "Namespace": "default", "Path": "before", "Items": { "k": "v" } });
    let body = json!({ "Region": "global", "Op": "set", "Var": var });
    rig::eventually("a key ring", || {
        let reply = rig::talk::call_once(daemon.rpc, "Variables.Apply", &body);
        assert!(matches!(reply.error.as_str(), "" | "key ring is not ready"), "{}", reply.error);
        reply.error.is_empty().then_some(())
    });
    daemon
}

/// Writes until the next write has this index: the sessions check against the indexes that they recorded. The last
/// one changes the table, so that what is not there has that index too.
fn until_next_is(daemon: &Daemon, index: u64) {
    let ask = |op: &str| write(daemon, op, "before", &if op == "set" { json!({ "k": "v" }) } else { Value::Null });
    let mut last = ask("delete")["Index"].as_u64().unwrap();
    while last + 3 < index {
        last = ask("delete")["Index"].as_u64().unwrap();
    }
    assert_eq!((ask("set")["Index"].as_u64(), ask("delete")["Index"].as_u64()), (Some(index - 2), Some(index - 1)));
}

/// The id of the lock that was recorded as the first holder's.
const RECORDED_LOCK: &str = "2d26c390-2fe3-cb55-738c-2de8d010b171";

/// The first holder goes on with the id that it was given here.
fn with_own_lock(heard: &Heard, bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let taken = heard.values(1).into_iter().find_map(|value| value["Output"]["Lock"]["ID"].as_str().map(str::to_owned));
    let Some(id) = taken else { return bytes };
    assert_eq!(id.len(), RECORDED_LOCK.len());
    for at in 0..bytes.len().saturating_sub(id.len() - 1) {
        if bytes[at..].starts_with(RECORDED_LOCK.as_bytes()) {
            bytes[at..at + id.len()].copy_from_slice(id.as_bytes());
        }
    }
    bytes
}

fn play_variables(name: &str, first_index: u64, cut: Cut) {
    let daemon = with_keys();
    until_next_is(&daemon, first_index);
    let session = Recorded::load(name);
    // Errors are wrapped once (endpoint notes, section 4).
    let errors = session.messages(1).into_iter().filter_map(|message| message["Error"].as_str().map(str::to_owned));
    let texts: Vec<(String, String)> = errors
        .filter_map(|text| {
            let once = text.strip_prefix("RPC Error:: 400,").filter(|once| once.starts_with("RPC Error:: 400,"))?;
            Some((text.clone(), once.to_owned()))
        })
        .collect();
    let texts: Vec<(&str, &str)> = texts.iter().map(|(recorded, ours)| (recorded.as_str(), ours.as_str())).collect();
    // A write under a lock leaves the lock's times alone; the peers put the request's in their place.
    let own: &[&str] = if name == "variables_lock" { &["LockDelay"] } else { &[] };
    let own = [&["CreateTime", "ModifyTime", "ID"], own].concat();
    let changed = Cell::new(0);
    let change = |turn: usize| {
        if changed.replace(turn) == turn {
            return;
        }
        match turn {
            3 => drop(write(&daemon, "set", "golden/block", &json!({ "a": "b" }))),
            5 => drop(write(&daemon, "delete", "golden/block", &Value::Null)),
            _ => {}
        }
    };
    let nothing = |_| {};
    let meanwhile: &dyn Fn(usize) = if name == "blocking_variable_read" { &change } else { &nothing };
    let replay = Replay::new(&session, cut);
    Replay { texts: &texts, own: &own, meanwhile, rewrite: &with_own_lock, ..replay }.play(daemon.rpc);
}

fn variables(cut: Cut) {
    thread::scope(|scope| {
        for (name, first_index) in VARIABLES {
            scope.spawn(move || play_variables(name, *first_index, cut));
        }
    });
}

// R1.30, R1.82, R1.84, R1.87, R1.89
#[test]
fn sessions_about_variables_whole() {
    variables(Cut::Whole);
}

// R1.30
#[test]
fn sessions_about_variables_in_single_bytes() {
    variables(Cut::Bytes);
}

/// The session `large_body`: as many calls of the same size, on one stream.
#[test]
fn large_variables_are_written_and_read() {
    let daemon = with_keys();
    let recorded = Recorded::load("large_body").messages(1);
    let mut talk = Talk::dial(daemon.rpc, 6);
    let stream = talk.open();
    let calls = recorded.iter().filter(|message| message["ServiceMethod"] == "Variables.Apply").count() / 2;
    let blob = "0".repeat(60_000);
    for nth in 1..calls {
        let var = json!({ "Namespace": "default", "Path": "golden/big", "Items": { "blob": blob } });
        let body = json!({ "Region": "global", "Op": "set", "Var": var });
        let reply = talk.call(stream, "Variables.Apply", &body).ok();
        for part in ["Input", "Output"] {
            assert_eq!(reply[part]["Items"]["blob"], blob.as_str(), "call {nth}: {part}");
        }
    }
    let read = json!({ "Region": "global", "Path": "golden/big" });
    let data = talk.call(stream, "Variables.Read", &read).ok()["Data"].clone();
    assert_eq!(data["Items"]["blob"], blob.as_str());
    let body = recorded.iter().find(|message| message["Op"] == "delete").unwrap();
    let reply = talk.call(stream, "Variables.Apply", body).ok();
    let wanted = recorded.last().unwrap();
    for key in ["Op", "Input", "Result", "Error", "Conflict", "Output"] {
        assert_eq!(reply[key], wanted[key], "{key}");
    }
    assert_eq!(calls, 5);
}
