//! Locks and the audit log of a real daemon, over real sockets (R8.1, R8.11, R8.15, R8.28).

#![allow(clippy::print_stderr, unreachable_pub)]
#![allow(clippy::unwrap_used)]

mod rig;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rig::talk::call_once;
use rig::{Daemon, PATIENCE, Reply, Setup, Talk, Value, eventually, json};
use rustix::process::Signal;

const SHORT_LOCKS: &str = "[locks]\nmin_ttl = \"2s\"";
const PATH: &str = "jobs/leader";
/// One second, in the nanoseconds of the API.
const SECOND: u64 = 1_000_000_000;

fn started(setup: &Setup) -> Daemon {
    let daemon = setup.start();
    eventually("a key ring", || {
        let reply = call_once(daemon.rpc, "Variables.Apply", &set("before", "x"));
        reply.error.is_empty().then_some(())
    });
    daemon
}

fn set(path: &str, value: &str) -> Value {
    json!({ "Region": "global", "Op": "set", "Var": { "Path": path, "Items": { "k": value } } })
}

fn acquire(id: &str, ttl: u64, delay: u64, wait: u64) -> Value {
    let lock = json!({ "ID": id, "TTL": ttl, "LockDelay": delay });
    let var = json!({ "Path": PATH, "Lock": lock, "Items": { "holder": "somebody" } });
    json!({ "Region": "global", "Op": "lock-acquire", "Var": var, "WaitTime": wait, "Owner": "test" })
}

fn release(id: &str) -> Value {
    json!({ "Region": "global", "Op": "lock-release", "Var": { "Path": PATH, "Lock": { "ID": id } } })
}

fn apply(daemon: &Daemon, body: &Value) -> Reply {
    call_once(daemon.rpc, "Variables.Apply", body)
}

fn uuid(number: usize) -> String {
    format!("10c4{number:04}-0000-4000-8000-000000000001")
}

// R8.11, R8.3: a TTL below the peers' least, and an end within it and the delay.
#[test]
fn a_lock_that_is_not_renewed_ends_within_its_time_and_delay() {
    let daemon = started(&Setup::new(SHORT_LOCKS));
    let begun = Instant::now();
    let taken = apply(&daemon, &acquire(&uuid(1), 2 * SECOND, SECOND, 0)).ok();
    assert_eq!(taken["Result"], "ok");
    let first_fence = taken["Fence"].as_u64().unwrap();
    // R8.28: who waits has it as soon as it is free.
    let mut waiter = Talk::dial(daemon.rpc, 1);
    let next = waiter.call(0, "Variables.Apply", &acquire(&uuid(2), 2 * SECOND, SECOND, 30 * SECOND)).ok();
    let took = begun.elapsed();
    assert_eq!(next["Result"], "ok");
    assert!(took >= Duration::from_secs(3), "in its time or delay: {took:?}");
    assert!(took < Duration::from_secs(8), "no lock lives longer: {took:?}");
    assert_eq!(daemon.metric("holdfast.locks.expired"), 1.0);
    // R8.1: the first holder comes back with its fence, and is refused.
    assert!(next["Fence"].as_u64().unwrap() > first_fence);
    apply(&daemon, &release(&uuid(2))).ok();
    let mut late = set(PATH, "late");
    late["Fence"] = json!(first_fence);
    assert_eq!(apply(&daemon, &late).ok()["Result"], "conflict");
    late["Fence"] = next["Fence"].clone();
    assert_eq!(apply(&daemon, &late).ok()["Result"], "ok");
}

// R8.11
#[test]
fn the_least_ttl_is_the_configured_one() {
    let daemon = started(&Setup::new(SHORT_LOCKS));
    let refused = apply(&daemon, &acquire(&uuid(1), 2 * SECOND - 1, SECOND, 0)).err();
    assert!(refused.contains("TTL must be between"), "{refused}");
    let usual = started(&Setup::new(""));
    apply(&usual, &acquire(&uuid(1), 9 * SECOND, SECOND, 0)).err();
    assert_eq!(apply(&usual, &acquire(&uuid(1), 10 * SECOND, SECOND, 0)).ok()["Result"], "ok");
}

// R8.3: a server that begins to lead gives one grace, and says so; then the lock ends.
#[test]
fn a_restart_gives_a_grace_and_no_more() {
    let daemon = started(&Setup::new(SHORT_LOCKS));
    apply(&daemon, &acquire(&uuid(1), 3 * SECOND, 1, 0)).ok();
    let daemon = daemon.killed_and_again();
    let begun = Instant::now();
    daemon.until_metric("holdfast.locks.graces", 1.0);
    let renewal = json!({ "Region": "global", "Path": PATH, "LockID": uuid(1) });
    // Nobody is early or late: the holder finds its lock, and does not come again.
    call_once(daemon.rpc, "Variables.RenewLock", &renewal).ok();
    let mut waiter = Talk::dial(daemon.rpc, 1);
    let next = waiter.call(0, "Variables.Apply", &acquire(&uuid(2), 3 * SECOND, 1, 40 * SECOND)).ok();
    assert_eq!(next["Result"], "ok");
    assert!(begun.elapsed() >= Duration::from_secs(3), "{:?}", begun.elapsed());
    assert_eq!(daemon.metric("holdfast.locks.graces"), 1.0);
}

// R8.28: fifty wait, and each has its turn in the order in which it came.
#[test]
fn fifty_waiters_have_their_turns_in_order() {
    const WAITERS: usize = 50;
    let daemon = started(&Setup::new(SHORT_LOCKS));
    apply(&daemon, &acquire(&uuid(0), 60 * SECOND, 1, 0)).ok();
    let mut waiters = Vec::new();
    for number in 1..=WAITERS {
        let mut talk = Talk::dial(daemon.rpc, 1);
        talk.request(0, "Variables.Apply", &acquire(&uuid(number), 60 * SECOND, 1, 300 * SECOND));
        daemon.until_metric("holdfast.locks.waiters", number as f64);
        waiters.push(talk);
    }
    let shown = call_once(daemon.rpc, "Holdfast.LockRead", &json!({ "Region": "global", "Path": PATH })).ok();
    assert_eq!(shown["Lock"]["Waiters"], json!(WAITERS));
    // One leaves, from the middle.
    drop(waiters.remove(20));
    daemon.until_metric("holdfast.locks.waiters", (WAITERS - 1) as f64);
    let mut fence = 0;
    let mut holder = uuid(0);
    for (turn, number) in (1..=WAITERS).filter(|number| *number != 21).enumerate() {
        apply(&daemon, &release(&holder)).ok();
        let reply = waiters[turn].reply(0).ok();
        assert_eq!(reply["Result"], "ok", "turn {turn}");
        assert_eq!(reply["Output"]["Lock"]["ID"], json!(uuid(number)));
        assert!(reply["Fence"].as_u64().unwrap() > fence, "turn {turn}");
        fence = reply["Fence"].as_u64().unwrap();
        holder = uuid(number);
        assert!(waiters[turn + 1..].iter().all(|talk| !talk.has_item(0)), "turn {turn}: another one was answered");
    }
    daemon.until_metric("holdfast.locks.waiters", 0.0);
    // Each was proposed when it was its turn, and not before: an acquire and a release a turn.
    apply(&daemon, &release(&holder)).ok();
}

// R8.28: a wait ends at its time, with what stands in the way; the end of the server ends it too.
#[test]
fn a_wait_for_a_turn_ends() {
    let mut daemon = started(&Setup::new(SHORT_LOCKS));
    apply(&daemon, &acquire(&uuid(1), 60 * SECOND, 1, 0)).ok();
    let begun = Instant::now();
    let mut short = Talk::dial(daemon.rpc, 1);
    let reply = short.call(0, "Variables.Apply", &acquire(&uuid(2), 60 * SECOND, 1, SECOND)).ok();
    assert_eq!(reply["Result"], "conflict");
    assert!(begun.elapsed() >= Duration::from_secs(1) && begun.elapsed() < PATIENCE);
    let mut long = Talk::dial(daemon.rpc, 1);
    long.request(0, "Variables.Apply", &acquire(&uuid(3), 60 * SECOND, 1, 300 * SECOND));
    daemon.until_metric("holdfast.locks.waiters", 1.0);
    daemon.signal(Signal::TERM);
    assert_eq!(long.reply(0).ok()["Result"], "conflict");
    drop((short, long));
    assert_eq!(daemon.exit().code(), Some(0));
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// Waits for so many lines.
fn until_lines(path: &Path, count: usize) -> Vec<Value> {
    eventually("lines of the audit log", || Some(lines(path)).filter(|lines| lines.len() >= count))
}

// R8.15
#[test]
fn every_write_and_every_refusal_has_a_line_and_no_secret() {
    const ITEM: &str = "hunter2-is-no-password";
    let setup = Setup::new("");
    let audit = setup.folder().join("audit.json");
    let config = format!("[acl]\nenabled = true\n[audit]\nfile = {audit:?}\n[locks]\nmin_ttl = \"2s\"");
    let daemon = setup.config(&config).start();
    let first = eventually("a bootstrap", || {
        let reply = call_once(daemon.rpc, "ACL.Bootstrap", &json!({ "Region": "global" }));
        reply.error.is_empty().then_some(reply.body)
    });
    let token = &first["Tokens"][0];
    let (secret, accessor) = (token["SecretID"].as_str().unwrap(), token["AccessorID"].as_str().unwrap());
    let wrong = "bad00000-0000-4000-8000-000000000bad";
    let with = |mut body: Value, token: &str| {
        body["AuthToken"] = json!(token);
        body
    };
    eventually("a key ring", || {
        let reply = apply(&daemon, &with(set("app/db", ITEM), secret));
        reply.error.is_empty().then_some(())
    });
    let taken = apply(&daemon, &with(acquire(&uuid(1), 5 * SECOND, 1, 0), secret)).ok();
    assert_eq!(taken["Result"], "ok");
    assert_eq!(apply(&daemon, &with(set(PATH, ITEM), secret)).ok()["Result"], "conflict");
    // Refused: a write, a read and a stream.
    assert_eq!(apply(&daemon, &with(set("app/db", ITEM), wrong)).err(), "Permission denied");
    let read = json!({ "Region": "global", "Path": "app/db" });
    assert_eq!(call_once(daemon.rpc, "Variables.Read", &read).err(), "Permission denied");
    let mut stream = Talk::dial(daemon.rpc, 5);
    stream.say(0, &rig::msgpack::pack(&json!({ "Method": "Event.Stream" })));
    assert_eq!(stream.value(0)["Error"], "");
    let topics = json!({ "Topics": { "*": ["*"] }, "Region": "global", "AuthToken": wrong });
    stream.say(0, &rig::msgpack::pack(&topics));
    assert_eq!(stream.value(0)["Error"]["Code"], 403);
    // Read: no line.
    call_once(daemon.rpc, "Variables.Read", &with(read, secret)).ok();

    let find = |method: &str, result: &str| {
        let is_it = |line: &Value| {
            let late = line["error"] == "key ring is not ready";
            line["method"] == method && line["result"] == result && !late
        };
        eventually("a line", || lines(&audit).into_iter().find(is_it))
    };
    let write = find("Variables.Apply", "ok");
    assert_eq!((&write["accessor"], &write["namespace"]), (&json!(accessor), &json!("default")));
    assert_eq!((&write["objects"], &write["operation"]), (&json!(["app/db"]), &json!("set")));
    assert_eq!((&write["via"], &write["region"]), (&json!("rpc"), &json!("global")));
    assert!(write["index"].as_u64().unwrap() > 0 && write["time"].as_str().unwrap().ends_with('Z'), "{write}");
    assert!(write["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{write}");
    assert_eq!(find("Variables.Apply", "conflict")["objects"], json!([PATH]));
    let refused = find("Variables.Apply", "refused");
    assert_eq!((&refused["accessor"], &refused["error"]), (&json!("unknown"), &json!("Permission denied")));
    assert_eq!(find("Variables.Read", "refused")["accessor"], "anonymous");
    assert_eq!(find("Event.Stream", "refused")["accessor"], "unknown");
    assert_eq!(find("ACL.Bootstrap", "ok")["accessor"], "anonymous");
    assert!(lines(&audit).iter().all(|line| line["method"] != "Variables.Read" || line["result"] != "ok"));
    assert!(daemon.metrics().labelled("holdfast.rpc.refused", "permission denied") >= 3.0);

    // The file is moved away, and a new one is made.
    let old = setup_sibling(&audit);
    fs::rename(&audit, &old).unwrap();
    daemon.reload();
    apply(&daemon, &with(set("app/db", "other"), secret)).ok();
    assert_eq!(until_lines(&audit, 1)[0]["result"], "ok");

    // R8.15: no secret of this test is in either, nor in the log.
    let lock_id = taken["Output"]["Lock"]["ID"].as_str().unwrap();
    let everything =
        [fs::read_to_string(&old).unwrap(), fs::read_to_string(&audit).unwrap(), daemon.log.lines().join("\n")];
    for text in &everything {
        for hidden in [secret, wrong, lock_id, ITEM] {
            assert!(!text.contains(hidden), "{hidden} is in {text}");
        }
    }
    assert_eq!(daemon.metric("holdfast.audit.lost"), 0.0);
}

fn setup_sibling(path: &Path) -> std::path::PathBuf {
    path.with_extension("json.1")
}

// R8.15: a heartbeat that changes nothing writes nothing, and has no line; a file that cannot be opened is told.
#[test]
fn an_audit_log_that_cannot_be_opened_is_no_start() {
    let setup = Setup::new("[audit]\nfile = \"/nonexistent/audit.json\"");
    let mut daemon = setup.spawn();
    daemon.log.until("audit.file");
    assert_eq!(daemon.exit().code(), Some(2));
}
