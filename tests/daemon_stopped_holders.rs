//! Locks whose holders stop, many at once, over the wire: never two holders at a time, and no lost update where the
//! fence is demanded (R8.1, R8.3, R8.28). `HOLDFAST_LOCK_ROUNDS` says how many holders are stopped.

#![allow(clippy::print_stderr, unreachable_pub)]
#![allow(clippy::unwrap_used)]

mod rig;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use rig::{Daemon, Talk, Value, json, patience};

/// Holders that are stopped when the environment does not say.
const ROUNDS: usize = 40;
/// Rounds on one connection, at the same time.
const ROUNDS_A_TALK: usize = 25;
/// Connections at the same time.
const TALKS: usize = 8;

const TTL: Duration = Duration::from_secs(2);
const DELAY: Duration = Duration::from_secs(1);
/// Of the second holder, who lives on.
const LONG_TTL: Duration = Duration::from_secs(600);

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap()
}

fn id(nth: usize, holder: usize) -> String {
    format!("{nth:08x}-0000-4000-8000-{holder:012x}")
}

fn acquire(path: &str, id: &str, ttl: Duration, wait: Duration) -> Value {
    let lock = json!({ "ID": id, "TTL": nanos(ttl), "LockDelay": nanos(DELAY) });
    json!({
        "Region": "global", "Op": "lock-acquire", "WaitTime": nanos(wait),
        "Var": { "Namespace": "default", "Path": path, "Lock": lock, "Items": {} },
    })
}

fn fenced_write(path: &str, fence: &Value, by: &str) -> Value {
    let var = json!({ "Namespace": "default", "Path": path, "Items": { "by": by } });
    json!({ "Region": "global", "Op": "set", "Fence": fence, "Var": var })
}

/// One lock: who held it, and what is known of that hold.
struct Round {
    path: String,
    /// Of the connection.
    stream: u32,
    fence: Value,
    /// Before the request was sent that the hold's time counts from.
    since: Instant,
    /// When the server says that it ends, without its delay.
    deadline: i64,
}

fn shown(talk: &mut Talk, stream: u32, path: &str) -> Value {
    let query = json!({ "Region": "global", "Namespace": "default", "Path": path });
    talk.call(stream, "Holdfast.LockRead", &query).ok()["Lock"].clone()
}

/// The first holder takes the lock, renews it at most twice, and is not heard of again until it is overtaken.
fn stop_a_holder(talk: &mut Talk, nth: usize) -> Round {
    let (path, stream) = (format!("rounds/{nth}"), talk.open());
    let mut since = Instant::now();
    let reply = talk.call(stream, "Variables.Apply", &acquire(&path, &id(nth, 1), TTL, Duration::ZERO)).ok();
    assert_eq!(reply["Result"], "ok", "{path}");
    for _ in 0..nth % 3 {
        since = Instant::now();
        let renew = json!({ "Region": "global", "Namespace": "default", "Path": path, "LockID": id(nth, 1) });
        talk.call(stream, "Variables.RenewLock", &renew).ok();
    }
    let lock = shown(talk, stream, &path);
    assert_eq!((&lock["Held"], &lock["Fence"]), (&json!(true), &reply["Fence"]));
    Round { path, stream, fence: reply["Fence"].clone(), since, deadline: lock["Deadline"].as_i64().unwrap() }
}

/// The first holder goes on as if nothing had happened.
fn is_overtaken(talk: &mut Talk, nth: usize, round: &Round, taken: &Value) {
    let (path, stream) = (&round.path, round.stream);
    // Whom it guards: another variable, which both write with their fence.
    let data = format!("data/{nth}");
    let second = talk.call(stream, "Variables.Apply", &fenced_write(&data, &taken["Fence"], "second")).ok();
    assert_eq!(second["Result"], "ok");
    let first = talk.call(stream, "Variables.Apply", &fenced_write(&data, &round.fence, "first")).ok();
    assert_eq!((&first["Result"], &first["Conflict"]["Items"]["by"]), (&json!("conflict"), &json!("second")), "{path}");
    let renew = json!({ "Region": "global", "Namespace": "default", "Path": path, "LockID": id(nth, 1) });
    let renewed = talk.call(stream, "Variables.RenewLock", &renew).err();
    assert_eq!(renewed, "RPC Error:: 409,attempting to modify locked variable", "{path}");
    for op in ["lock-release", "set"] {
        let items = if op == "set" { json!({ "k": "first" }) } else { Value::Null };
        let var = json!({ "Namespace": "default", "Path": path, "Lock": { "ID": id(nth, 1) }, "Items": items });
        let body = json!({ "Region": "global", "Op": op, "Var": var });
        assert_eq!(talk.call(stream, "Variables.Apply", &body).ok()["Result"], "conflict", "{path}: {op}");
    }
    // Nor did any of that harm the second holder.
    let lock = shown(talk, stream, path);
    assert_eq!((&lock["Held"], &lock["Fence"]), (&json!(true), &taken["Fence"]), "{path}");
    let read = json!({ "Region": "global", "Namespace": "default", "Path": data });
    assert_eq!(talk.call(stream, "Variables.Read", &read).ok()["Data"]["Items"]["by"], "second", "{path}");
}

/// Many rounds at once on one connection.
fn play(address: SocketAddr, from: usize, to: usize) {
    let mut talk = Talk::dial(address, 6);
    let mut rounds: BTreeMap<u32, (usize, Round)> = BTreeMap::new();
    for nth in from..to {
        let round = stop_a_holder(&mut talk, nth);
        // The next one waits on a stream of its own.
        let waits = talk.open();
        talk.request(waits, "Variables.Apply", &acquire(&round.path, &id(nth, 2), LONG_TTL, Duration::from_secs(40)));
        rounds.insert(waits, (nth, round));
    }
    // When each answer came: read as it comes, for whoever is too early must be seen.
    let mut came: BTreeMap<u32, Instant> = BTreeMap::new();
    let all = talk.pump(patience(), |heard| {
        for waits in rounds.keys() {
            if !heard.items(*waits).is_empty() {
                came.entry(*waits).or_insert_with(Instant::now);
            }
        }
        came.len() == rounds.len()
    });
    assert!(all, "{} of {} got their turn", came.len(), rounds.len());
    for (waits, (nth, round)) in &rounds {
        let taken = talk.reply(*waits).ok();
        assert_eq!(taken["Result"], "ok", "{}", round.path);
        // Nobody else holds it within the first one's TTL and delay: by this clock, and by the log's.
        let after = came[waits].duration_since(round.since);
        assert!(after >= TTL + DELAY, "{} passed on after {after:?}", round.path);
        assert!(taken["Fence"].as_u64() > round.fence.as_u64(), "{}: {taken}", round.path);
        let lock = shown(&mut talk, round.stream, &round.path);
        let ended = round.deadline + i64::try_from(DELAY.as_nanos()).unwrap();
        assert_eq!((&lock["Held"], &lock["Fence"]), (&json!(true), &taken["Fence"]), "{}", round.path);
        assert!(lock["Since"].as_i64().unwrap() >= ended, "{}: {lock} before {ended}", round.path);
        is_overtaken(&mut talk, *nth, round, &taken);
    }
}

// R8.1, R8.3: a holder that is stopped, a thousand times over.
#[test]
fn no_two_hold_a_lock_and_who_was_overtaken_writes_nothing() {
    let rounds = std::env::var("HOLDFAST_LOCK_ROUNDS").map_or(ROUNDS, |text| text.parse().unwrap());
    let daemon = Daemon::start("locks.min_ttl = \"2s\"");
    let first = json!({ "Namespace": "default", "Path": "first", "Items": { "k": "v" } });
    rig::eventually("a key ring", || {
        let body = json!({ "Region": "global", "Op": "set", "Var": first });
        rig::talk::call_once(daemon.rpc, "Variables.Apply", &body).error.is_empty().then_some(())
    });
    let starts: Vec<usize> = (0..rounds).step_by(ROUNDS_A_TALK).collect();
    for batch in starts.chunks(TALKS) {
        thread::scope(|scope| {
            for from in batch {
                scope.spawn(|| play(daemon.rpc, *from, (*from + ROUNDS_A_TALK).min(rounds)));
            }
        });
    }
}
