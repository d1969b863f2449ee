//! `holdfast var lock` with real processes: what runs under a lock, what ends it, and that it is gone before another
//! holds the lock (R8.2). Shells are the commands; a beat is a time that a command wrote while it was alive.

#![allow(clippy::print_stderr, unreachable_pub)]
#![allow(clippy::unwrap_used)]

mod rig;

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rig::cli::{Follow, runs, until_gone};
use rig::{Daemon, Setup, eventually};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// Short times for whatever waits for a lock to run out; nothing else uses them, since a busy machine loses such locks.
const SHORT: [&str; 6] = ["--ttl", "2s", "--delay", "1s", "--kill-after", "500ms"];
const SHORT_LIFE: Duration = Duration::from_secs(3);

/// Says that it is there, then writes beats until it is killed. TERM does not end it.
const BEATS: &str = "trap '' TERM; echo $$; while :; do date +%s%N >> \"$BEATS\"; sleep 0.02; done";

fn fresh() -> Daemon {
    Daemon::start("locks.min_ttl = \"2s\"").with_keys()
}

fn lock(daemon: &Daemon, options: &[&str], path: &str, script: &str) -> Follow {
    let mut command = daemon.cli();
    command.env("BEATS", beats_file(daemon, path)).args(["var", "lock"]).args(options).args([path, "--", "sh", "-c"]);
    Follow::start(command.arg(script))
}

fn beats_file(daemon: &Daemon, path: &str) -> PathBuf {
    daemon.setup.folder().join(format!("beats-{path}"))
}

/// When a command was last seen alive, nanoseconds since the Unix epoch.
fn last_beat(daemon: &Daemon, path: &str) -> u128 {
    fs::read_to_string(beats_file(daemon, path)).unwrap().lines().filter_map(|line| line.parse().ok()).max().unwrap()
}

fn unix_nanos() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()
}

/// The number that a command printed first.
fn first_number(follow: &Follow) -> u32 {
    follow.out.until("").trim().parse().unwrap()
}

fn held(daemon: &Daemon, path: &str) -> bool {
    daemon.holdfast(&["var", "lock", "show", "--json", path]).json()["held"] == true
}

fn until_waiting(daemon: &Daemon, path: &str, count: u64) {
    eventually("somebody in line", || {
        let shown = daemon.holdfast(&["var", "lock", "show", "--json", path]).json();
        (shown["waiting"] == count).then_some(())
    });
}

fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal).unwrap();
}

fn group_of(pid: u32) -> Pid {
    rustix::process::getpgid(Pid::from_raw(pid.cast_signed())).unwrap()
}

#[test]
fn the_status_is_the_commands() {
    let daemon = fresh();
    for (script, status) in
        [("exit 0", 0), ("exit 7", 7), ("exit 75", 75), ("kill -KILL $$", 137), ("kill -TERM $$", 143)]
    {
        let ran = daemon.holdfast(&["var", "lock", "p", "--", "sh", "-c", script]);
        assert_eq!((ran.status, ran.err.as_str()), (Some(status), ""), "{script}");
        assert!(!held(&daemon, "p"), "{script}");
    }
    let ran = daemon.holdfast(&["var", "lock", "p", "/nonexistent/command"]);
    assert!(ran.failed(127).contains("/nonexistent/command: "));
    let ran = daemon.holdfast(&["var", "lock", "p", daemon.setup.folder().to_str().unwrap()]);
    assert!(ran.failed(126).contains("denied"));
    assert!(!held(&daemon, "p"));
    // Flags behind the command are the command's.
    assert_eq!(daemon.holdfast(&["var", "lock", "p", "echo", "--ttl", "-n", "--help"]).ok(), "--ttl -n --help\n");
}

#[test]
fn the_command_knows_its_lock_and_its_input() {
    let daemon = fresh();
    let script = "echo $HOLDFAST_LOCK_PATH $HOLDFAST_LOCK_NAMESPACE $HOLDFAST_LOCK_FENCE; cat";
    let line = ["var", "lock", "--namespace", "web", "p", "--", "sh", "-c", script];
    let out = daemon.holdfast_reads(b"from the input\n", &line).ok();
    let fence = daemon.holdfast(&["var", "lock", "show", "--namespace", "web", "--json", "p"]).json()["fence"].clone();
    assert_eq!(out, format!("p web {fence}\nfrom the input\n"));
    // R8.1: it rises.
    let again = daemon.holdfast_reads(b"", &line).ok();
    let number = |text: &str| text.split_whitespace().nth(2).unwrap().parse::<u64>().unwrap();
    assert!(number(&again) > number(&out), "{again} after {out}");
}

#[test]
fn items_outlive_locks_and_the_holder_writes_them() {
    let daemon = fresh();
    daemon.holdfast(&["var", "put", "p", "k=before", "other=stays"]).ok();
    let holdfast = env!("CARGO_BIN_EXE_holdfast");
    daemon.holdfast(&["var", "lock", "p", "true"]).ok();
    assert_eq!(daemon.holdfast(&["var", "get", "--item", "k", "p"]).ok(), "before");
    // Others cannot write it meanwhile, its holder can, and who waited for it sees what was written last.
    let script = format!("echo held; read line; {holdfast} var put --force p k=by-holder");
    let mut command = daemon.cli();
    command.args(["var", "lock", "p", "--", "sh", "-c", &script]).stdin(Stdio::piped());
    let mut first = Follow::start(&mut command);
    first.out.until("held");
    let said = daemon.holdfast(&["var", "put", "--force", "p", "k=by-another"]).failed(1);
    assert!(said.contains("locked by another; see \"holdfast var lock show\""), "{said}");
    daemon.holdfast(&["var", "purge", "p"]).failed(1);
    let mut second = lock(&daemon, &["--wait", "40s"], "p", &format!("{holdfast} var get --item k p; echo"));
    until_waiting(&daemon, "p", 1);
    first.child.stdin.take().unwrap().write_all(b"go on\n").unwrap();
    assert_eq!((first.status(), second.status()), (Some(0), Some(0)));
    assert_eq!(second.out.lines(), ["by-holder"]);
    assert_eq!(daemon.holdfast(&["var", "get", "--item", "k", "p"]).ok(), "by-holder");
}

// R8.2: signals are handed on, to the whole group.
#[test]
fn signals_reach_the_command() {
    let daemon = fresh();
    for (name, sent) in [("TERM", Signal::TERM), ("INT", Signal::INT), ("HUP", Signal::HUP), ("USR1", Signal::USR1)] {
        let script = format!("trap 'echo got; exit 9' {name}; echo up; sleep 1000 & echo $!; wait");
        let mut follow = lock(&daemon, &[], "p", &script);
        let sleeper: u32 = follow.out.until_count("", 2).parse().unwrap();
        follow.signal(sent);
        assert_eq!(follow.status(), Some(9), "{name}: {:?}", follow.err.lines());
        follow.out.until("got");
        // What the command left behind is gone before the lock is.
        assert!(!runs(sleeper), "{name}");
        assert!(!held(&daemon, "p"), "{name}");
    }
}

// R8.28
#[test]
fn who_waits_gets_the_lock_in_order_and_who_does_not_is_told() {
    let daemon = fresh();
    let mut command = daemon.cli();
    command.args(["var", "lock", "--owner", "the first", "p", "--", "sh", "-c", "echo up; cat"]).stdin(Stdio::piped());
    let mut first = Follow::start(&mut command);
    first.out.until("up");
    let refused = daemon.holdfast(&["var", "lock", "p", "true"]).failed(75);
    assert!(refused.contains("held by another: see \"holdfast var lock show\", and --wait"), "{refused}");
    daemon.holdfast(&["var", "lock", "--wait", "300ms", "p", "true"]).failed(75);
    let listed = daemon.holdfast(&["var", "lock", "ls"]).ok();
    assert!(listed.lines().count() == 2 && listed.contains("p     the first"), "{listed}");

    let order = daemon.setup.folder().join("order");
    let waiters: Vec<Follow> = (1..=4)
        .map(|nth| {
            let waiter = lock(&daemon, &["--wait", "40s"], "p", &format!("echo {nth} >> {}", order.display()));
            until_waiting(&daemon, "p", nth);
            waiter
        })
        .collect();
    drop(first.child.stdin.take());
    assert_eq!(first.status(), Some(0));
    for mut waiter in waiters {
        assert_eq!(waiter.status(), Some(0), "{:?}", waiter.err.lines());
    }
    assert_eq!(fs::read_to_string(order).unwrap(), "1\n2\n3\n4\n");
    assert_eq!(daemon.holdfast(&["var", "lock", "ls"]).ok().lines().count(), 1);
}

// R8.10, R8.2
#[test]
fn a_broken_lock_ends_the_command() {
    let daemon = fresh();
    let mut polite = lock(&daemon, &SHORT, "polite", "trap 'echo asked; exit 0' TERM; echo $$; sleep 1000 & wait");
    let mut deaf = lock(&daemon, &SHORT, "deaf", BEATS);
    let pids = [first_number(&polite), first_number(&deaf)];
    for (path, follow) in [("polite", &mut polite), ("deaf", &mut deaf)] {
        daemon.holdfast(&["var", "lock", "break", path]).ok();
        assert_eq!(follow.status(), Some(76), "{:?}", follow.err.lines());
        let said = follow.err.lines().join("\n");
        assert!(said.contains(&format!("the lock of {path} is lost (")) && !said.contains("RPC Error"), "{said}");
    }
    polite.out.until("asked");
    assert!(!pids.into_iter().any(runs));
    let said = daemon.holdfast(&["var", "lock", "break", "polite"]).failed(1);
    assert!(said.contains("doesn't hold a lock"), "{said}");
    daemon.holdfast(&["var", "lock", "break", "missing"]).failed(1);
}

// R8.2: kill -9 of the holder takes everything with it; the lock passes on by itself.
#[test]
fn a_killed_holder_takes_its_command_along() {
    let daemon = fresh();
    let mut first = lock(&daemon, &SHORT, "p", "sleep 1000 & echo $$; echo $!; wait");
    let grandchild: u32 = first.out.until_count("", 2).parse().unwrap();
    let child = first_number(&first);
    assert!(runs(child) && runs(grandchild));
    first.signal(Signal::KILL);
    until_gone(child);
    until_gone(grandchild);
    assert_eq!(first.status(), None);
    let mut second = lock(&daemon, &["--wait", "40s"], "p", "true");
    assert_eq!(second.status(), Some(0), "{:?}", second.err.lines());
}

// R8.2: a holder that is stopped cannot end its command; the guard does.
#[test]
fn a_stopped_holders_command_is_gone_before_another_holds() {
    let daemon = fresh();
    let mut first = lock(&daemon, &SHORT, "p", BEATS);
    let child = first_number(&first);
    first.signal(Signal::STOP);
    let mut second = lock(&daemon, &["--wait", "40s"], "p", "date +%s%N");
    assert_eq!(second.status(), Some(0), "{:?}", second.err.lines());
    assert!(!runs(child));
    let begun: u128 = second.out.until("").parse().unwrap();
    assert!(last_beat(&daemon, "p") < begun);
    first.err.until("the lock ran out while its holder stood still");
    first.signal(Signal::CONT);
    assert_eq!(first.status(), Some(76), "{:?}", first.err.lines());
    assert!(!held(&daemon, "p"));
}

// R8.1: what is stopped altogether, as a paused machine is, wakes with a lock that is another's: the fence refuses it.
#[test]
fn a_fence_stops_what_no_guard_can() {
    let daemon = fresh();
    let holdfast = env!("CARGO_BIN_EXE_holdfast");
    // Writes once it is told to; then says how it went.
    let write = format!("{holdfast} var put --force --fence $HOLDFAST_LOCK_FENCE data by=$HOLDFAST_LOCK_FENCE");
    let mut command = daemon.cli();
    let script = format!("echo $$; echo $HOLDFAST_LOCK_FENCE; read line; {write}; echo status $?; read line");
    command.args(["var", "lock"]).args(SHORT).args(["p", "--", "sh", "-c", &script]).stdin(Stdio::piped());
    let mut first = Follow::start(&mut command);
    let fence: u64 = first.out.until_count("", 2).parse().unwrap();
    let child = first_number(&first);
    let group = group_of(child);
    first.signal(Signal::STOP);
    kill_process_group(group, Signal::STOP).unwrap();
    let mut second = lock(&daemon, &["--wait", "40s"], "p", &write);
    assert_eq!(second.status(), Some(0), "{:?}", second.err.lines());
    let by = daemon.holdfast(&["var", "get", "--item", "by", "data"]).ok();
    assert!(by.parse::<u64>().unwrap() > fence);
    // The command wakes first, before those who would end it.
    assert!(runs(child));
    first.child.stdin.as_mut().unwrap().write_all(b"go on\n").unwrap();
    signal(child, Signal::CONT);
    first.out.until("status 1");
    first.err.until(&format!("a higher fence than {fence} was seen there"));
    assert_eq!(daemon.holdfast(&["var", "get", "--item", "by", "data"]).ok(), by, "no lost update");
    kill_process_group(group, Signal::CONT).unwrap();
    first.signal(Signal::CONT);
    assert_eq!(first.status(), Some(76));
    until_gone(child);
}

// R8.2: cut from the server, by the holder's own clock.
#[test]
fn a_holder_without_its_server_ends_its_command_in_time() {
    let daemon = fresh();
    let mut polite = lock(&daemon, &SHORT, "polite", "trap 'echo asked; exit 0' TERM; echo $$; sleep 1000 & wait");
    let mut deaf = lock(&daemon, &SHORT, "deaf", BEATS);
    let pids = [first_number(&polite), first_number(&deaf)];
    daemon.signal(Signal::STOP);
    let cut = unix_nanos();
    assert_eq!((polite.status(), deaf.status()), (Some(76), Some(76)));
    polite.out.until("asked");
    polite.err.until("was not renewed in time");
    assert!(!pids.into_iter().any(runs));
    // The last renewal was before the cut, and from it the lock lasts so long.
    let lived = Duration::from_nanos(u64::try_from(last_beat(&daemon, "deaf").saturating_sub(cut)).unwrap());
    assert!(lived < SHORT_LIFE, "{lived:?}");
    daemon.signal(Signal::CONT);
}

// R8.3: a server that comes back with its log finds the holder again, and the command never knew.
#[test]
fn a_restart_of_the_server_loses_no_lock() {
    let setup = Setup::new("locks.min_ttl = \"2s\"");
    let daemon = setup.start().with_keys();
    let port = daemon.rpc.to_string();
    let mut command = daemon.cli();
    command.args(["var", "lock", "p", "--", "sh", "-c", "echo up; cat"]).stdin(Stdio::piped());
    let mut holder = Follow::start(&mut command);
    holder.out.until("up");
    drop(daemon);
    let daemon = setup.rpc(&port).start();
    let deadline = || daemon.holdfast(&["var", "lock", "show", "--json", "p"]).json()["until"].to_string();
    let before = deadline();
    eventually("a renewal after the restart", || (deadline() > before).then_some(()));
    daemon.holdfast(&["var", "lock", "p", "true"]).failed(75);
    drop(holder.child.stdin.take());
    assert_eq!(holder.status(), Some(0), "{:?}", holder.err.lines());
    assert!(!held(&daemon, "p"));
}
