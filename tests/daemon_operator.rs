//! What an operator meets: the check of a configuration, exit statuses, signals, the service manager, the log
//! (R1.2, R1.4, R1.37, R1.95, R1.98, R6.21, R6.23 to R6.25, R6.27, R8.8).

#![allow(clippy::print_stderr, unreachable_pub)]
#![allow(clippy::unwrap_used)]

mod rig;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use rig::daemon::{LISTENING, SERVING, program};
use rig::heard::Item;
use rig::talk::call_once;
use rig::{Daemon, PATIENCE, Peer, Setup, Talk, eventually, json, msgpack};
use rustix::process::Signal;

/// Runs the program to its end.
fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = program().args(args).output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

fn check(setup: &Setup) -> (Option<i32>, String, String) {
    run(&["-c", setup.config_file().to_str().unwrap(), "-t"])
}

// R6.25, R1.2
#[test]
fn a_good_configuration_is_good() {
    let all =
        "name = \"hf1\"\nregion = \"west\"\n[limits]\nrpc_max_conns_per_client = 26\n[rpc]\nhold_timeout = \"1s\"\n";
    for config in ["", all, "[limits]\nrpc_max_conns_per_client = 0\nhttp_max_conns_per_client = 0"] {
        let setup = Setup::new(config);
        let (status, said, errors) = check(&setup);
        assert_eq!((status, errors.as_str()), (Some(0), ""), "{config}");
        assert!(said.contains("ok"), "{said}");
        assert!(!setup.data_dir().exists(), "a check leaves nothing behind");
    }
}

// R6.25, R1.2, R6.23: file, line, key, and the nearest name.
#[test]
fn a_bad_configuration_is_told_by_file_line_and_key() {
    // The first line is the data directory.
    let cases = [
        ("[limits]\nrpc_max_conns_per_client = 25", 3, "limits.rpc_max_conns_per_client", "must be > 25; found: 25"),
        ("[limits]\nrpc_max_conns_per_client = -1", 3, "limits.rpc_max_conns_per_client", "must be > 25; found: -1"),
        ("[rpc]\nhold_timout = \"5s\"", 3, "rpc.hold_timout", "rpc.hold_timeout"),
        ("regoin = \"x\"", 2, "regoin", "region"),
        ("[tsl]\nrpc = true", 2, "tsl", "tls"),
        ("[rpc]\n\nhold_timeout = 5", 4, "rpc.hold_timeout", "duration"),
        ("[rpc]\nmax_message = \"1KiB\"", 3, "rpc.max_message", "64KiB"),
        ("[listen]\nrpc = \"here\"", 3, "listen.rpc", "IP:PORT"),
        (
            "[listen]\nproxy_protocol_from = [\"10.0.0.1/8\"]",
            3,
            "listen.proxy_protocol_from",
            "\"10.0.0.1/8\" has bits set after the first ones that count: write \"10.0.0.0/8\"",
        ),
        (
            "[cluster]\njoin = [\"10.0.0.1:4647\", \"10.0.0.2:4647\"]",
            3,
            "cluster.bootstrap_expect",
            "at least 2 are needed; found: 1",
        ),
        ("role = \"observer\"", 2, "role", "\"server\""),
    ];
    for (config, line, key, words) in cases {
        let setup = Setup::new(config);
        let (status, said, errors) = check(&setup);
        assert_eq!((status, said.as_str()), (Some(1), ""), "{config}");
        let begin = format!("{}:{line}: {key}: ", setup.config_file().display());
        assert!(errors.starts_with(&begin) && errors.contains(words), "{errors}");
        // Started with it, it ends with the same words and status.
        let output = setup.command().output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{config}");
        assert!(String::from_utf8(output.stderr).unwrap().contains(&begin), "{config}");
    }
    // All that is wrong, not the first only.
    let (_, _, errors) = check(&Setup::new("a = 1\nb = 2\n[rpc]\nc = 3"));
    assert_eq!(errors.lines().count(), 3, "{errors}");
    // TOML that is none.
    let (status, _, errors) = check(&Setup::new("[rpc\n"));
    assert_eq!(status, Some(1));
    assert!(errors.contains("holdfastd.toml:2"), "{errors}");
    // Files that it names are read too.
    let tls = "[tls]\nrpc = true\nca_file = \"/nowhere/ca.pem\"\ncert_file = \"/nowhere/a\"\nkey_file = \"/nowhere/b\"";
    let (status, _, errors) = check(&Setup::new(tls));
    assert_eq!(status, Some(1));
    assert!(errors.contains("/nowhere/"), "{errors}");
}

// R6.23
#[test]
fn usage_errors_end_with_status_1_and_questions_with_0() {
    for args in [&[][..], &["--bogus"], &["-c"], &["-c", "/nowhere/holdfastd.toml"], &["--dev", "--rpc", "nowhere"]] {
        let (status, said, errors) = run(args);
        assert_eq!((status, said.as_str()), (Some(1), ""), "{args:?}");
        assert!(!errors.is_empty(), "{args:?}");
    }
    for (args, words) in [(["--version"], env!("CARGO_PKG_VERSION")), (["--help"], "--config"), (["-V"], "holdfastd ")]
    {
        let (status, said, errors) = run(&args);
        assert_eq!((status, errors.as_str()), (Some(0), ""), "{args:?}");
        assert!(said.contains(words), "{said}");
    }
}

// R6.23
#[test]
fn what_keeps_it_from_starting_ends_it_with_status_2() {
    let running = Daemon::start("");
    let ends = |setup: &Setup, words: &str| {
        let output = setup.command().output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(words), "{said}");
    };
    // An address that is taken, named with its key.
    ends(&Setup::new("").rpc(&running.rpc.to_string()), &format!("listen.rpc = \"{}\"", running.rpc));
    // A data directory that cannot be one: its place is a file.
    let setup = Setup::new("");
    fs::write(setup.data_dir(), "").unwrap();
    ends(&setup, "data");
    // One that another process uses, which is named.
    let data_dir = running.setup.data_dir();
    ends(&running.setup, &format!("{} is in use by process {}", data_dir.display(), running.child.id()));
    call_once(running.rpc, "Status.Ping", &json!({})).ok();
}

#[test]
fn the_trial_server_needs_no_file() {
    let mut command = program();
    command.args(["--dev", "--rpc", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
    let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let ports = lines.find(|line| line.contains(LISTENING)).unwrap();
    lines.find(|line| line.contains(SERVING)).unwrap();
    let rpc = ports.split(" rpc=").nth(1).unwrap().split(' ').next().unwrap();
    let leader = call_once(rpc.parse().unwrap(), "Status.Leader", &json!({})).ok();
    assert_eq!(leader, rpc);
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::INT).unwrap();
    lines.for_each(drop);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// A node with a connection of its own, which never answers.
fn silent_node(daemon: &Daemon) -> Talk {
    let id = "a1b2c3d4-0001-0002-0003-00000000abcd";
    let mut talk = Talk::dial(daemon.rpc, 6);
    let stream = talk.open();
    let node = json!({
        "ID": id, "SecretID": "5ec7e700-0001-0002-0003-00000000abcd", "Datacenter": "dc1", "Name": "silent",
        "Status": "initializing", "Attributes": { "nomad.version": "2.0.5" },
    });
    talk.call(stream, "Node.Register", &json!({ "Region": "global", "Node": node })).ok();
    talk
}

// R1.4, R1.37, R1.98, R6.24
#[test]
fn a_stop_in_order_answers_what_waits() {
    let mut daemon = Daemon::start("");
    let mut talk = Talk::dial(daemon.rpc, 6);
    let (query, idle) = (talk.open(), talk.open());
    let body = json!({ "Region": "global", "MinQueryIndex": 1u64 << 40, "MaxQueryTime": 200_000_000_000u64 });
    talk.request(query, "Node.List", &body);
    let mut plain = Talk::dial(daemon.rpc, 1);
    plain.request(0, "Node.List", &body);
    let mut events = Talk::dial(daemon.rpc, 5);
    events.peer.write(&msgpack::pack(&json!({ "Method": "Event.Stream" })));
    events.peer.write(&msgpack::pack(&json!({ "Region": "global", "Topics": { "Node": ["*"] }, "Index": 0 })));
    assert_eq!(events.value(0), json!({ "Error": "" }));
    daemon.until_metric("holdfast.parked", 2.0);
    daemon.signal(Signal::TERM);
    assert_eq!(talk.reply(query).ok()["KnownLeader"], true);
    talk.until_closed();
    assert_eq!(talk.heard.go_aways, [0]);
    plain.reply(0).ok();
    plain.until_closed();
    events.until_closed();
    assert!(!talk.heard.items(idle).contains(&Item::Rst));
    assert_eq!(daemon.exit().code(), Some(0));
    daemon.log.until_end();
    assert_eq!(daemon.log.count("closing server RPC connection"), 1);
    assert_eq!(daemon.log.errors(), Vec::<String>::new());
}

// R1.37, R6.24: a call in hand keeps it, until a second wish or the end of patience.
#[test]
fn a_second_stop_or_the_drain_timeout_ends_at_once() {
    for second in [true, false] {
        let timeout = if second { "60s" } else { "300ms" };
        let mut daemon = Daemon::start(&format!("[rpc]\ndrain_timeout = \"{timeout}\""));
        let _node = silent_node(&daemon);
        let mut caller = Talk::dial(daemon.rpc, 6);
        let stream = caller.open();
        let body = json!({ "Region": "global", "NodeID": "a1b2c3d4-0001-0002-0003-00000000abcd" });
        caller.request(stream, "NodeMeta.Read", &body);
        daemon.until_metric("holdfast.forwarded", 1.0);
        daemon.signal(Signal::TERM);
        daemon.log.until("closing server RPC connection");
        // The door is shut.
        let refused = || std::net::TcpStream::connect(daemon.rpc).is_err();
        eventually("closed listener", || refused().then_some(()));
        if second {
            assert!(daemon.child.try_wait().unwrap().is_none());
            daemon.signal(Signal::TERM);
        } else {
            daemon.log.until("drain timeout");
        }
        assert_eq!(daemon.exit_within(Duration::from_secs(10)).code(), Some(0));
    }
}

// R8.8
#[test]
fn a_storm_of_reloads_during_the_start_harms_nothing() {
    let mut daemon = Setup::new("").spawn();
    // Before its first instruction nobody can hold a signal.
    let status = format!("/proc/{}/status", daemon.child.id());
    eventually("a caught SIGHUP", || {
        let text = fs::read_to_string(&status).unwrap();
        let caught = text.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim().to_owned();
        (u64::from_str_radix(&caught, 16).unwrap() & 1 == 1).then_some(())
    });
    let deadline = Instant::now() + PATIENCE;
    loop {
        daemon.signal(Signal::HUP);
        if daemon.log.count(SERVING) > 0 {
            break;
        }
        assert!(Instant::now() < deadline);
        rig::quiet_for(Duration::from_millis(1));
    }
    daemon.take_ports();
    daemon.log.until("configuration reloaded");
    call_once(daemon.rpc, "Status.Ping", &json!({})).ok();
    daemon.stop();
}

// A reload of a file that is wrong changes nothing.
#[test]
fn a_bad_file_is_not_taken_over() {
    let daemon = Daemon::start("");
    let _ = daemon.setup.clone().config("[rpc]\nhold_timout = \"1s\"");
    daemon.signal(Signal::HUP);
    let line = daemon.log.until("configuration not reloaded");
    assert!(line.contains("holdfastd.toml:3") && line.contains("rpc.hold_timeout"), "{line}");
    call_once(daemon.rpc, "Status.Ping", &json!({})).ok();
    // One that needs a restart is told so.
    let _ = daemon.setup.clone().config("[rpc]\nhold_timeout = \"1s\"");
    daemon.reload();
    daemon.log.until("need a restart");
}

// R1.100, R6.24
#[test]
fn metrics_are_dumped_at_a_signal() {
    let daemon = Daemon::start("");
    call_once(daemon.rpc, "Status.Ping", &json!({})).ok();
    daemon.signal(Signal::USR1);
    for name in ["holdfast.rpc.accept_conn", "holdfast.rpc.request", "holdfast.rpc.query", "holdfast.parked"] {
        daemon.log.until(name);
    }
    call_once(daemon.rpc, "Status.Ping", &json!({})).ok();
}

// R6.24: a peer that is gone in the middle of its reply.
#[test]
fn a_peer_that_vanishes_mid_reply_ends_nothing() {
    let daemon = Daemon::start("");
    for _ in 0..50 {
        let mut talk = Talk::dial(daemon.rpc, 1);
        for _ in 0..20 {
            talk.request(0, "Status.Members", &json!({}));
        }
        talk.peer.abort();
    }
    call_once(daemon.rpc, "Status.Ping", &json!({})).ok();
}

/// What the service manager was told.
struct Manager {
    socket: UnixDatagram,
    path: String,
    _folder: tempfile::TempDir,
}

impl Manager {
    fn new() -> Manager {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Manager { socket, path: path.to_str().unwrap().to_owned(), _folder: folder }
    }

    fn next(&self) -> String {
        let mut buffer = [0; 4096];
        let count = self.socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..count].to_vec()).unwrap()
    }

    /// The next datagram with this line; what came before it.
    fn until(&self, line: &str) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            let text = self.next();
            if text.lines().any(|found| found.starts_with(line)) {
                all.push(text);
                return all;
            }
            all.push(text);
        }
    }
}

// R6.21
#[test]
fn the_service_manager_is_told_in_order() {
    let manager = Manager::new();
    let mut daemon = Setup::new("").env("NOTIFY_SOCKET", &manager.path).spawn();
    let before = manager.until("READY=1").concat();
    let status = manager.until("STATUS=").pop().unwrap();
    assert!(status.contains("leader") && status.contains("region global"), "{status}");
    // It can serve now: no call is held.
    daemon.take_ports();
    let leader = call_once(daemon.rpc, "Status.Leader", &json!({})).ok();
    assert_eq!(leader, daemon.rpc.to_string());
    assert!(!before.contains("STOPPING") && !before.contains("RELOADING"), "{before}");
    daemon.signal(Signal::HUP);
    let reloading = manager.until("RELOADING=1").pop().unwrap();
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    manager.until("READY=1");
    daemon.signal(Signal::TERM);
    manager.until("STOPPING=1");
    assert_eq!(daemon.exit().code(), Some(0));
}

// R6.21, R6.8
#[test]
fn the_watchdog_is_fed_by_the_loop() {
    let manager = Manager::new();
    let daemon = Setup::new("").env("NOTIFY_SOCKET", &manager.path).env("WATCHDOG_USEC", "200000").start();
    for _ in 0..5 {
        manager.until("WATCHDOG=1");
    }
    // Stopped, it feeds nobody.
    daemon.signal(Signal::STOP);
    manager.socket.set_read_timeout(Some(Duration::from_millis(600))).unwrap();
    let mut buffer = [0; 4096];
    while manager.socket.recv(&mut buffer).is_ok() {}
    daemon.signal(Signal::CONT);
    manager.socket.set_read_timeout(Some(PATIENCE)).unwrap();
    manager.until("WATCHDOG=1");
}

// R6.27, R6.8
#[test]
fn a_log_that_nobody_reads_holds_up_nobody() {
    let setup = Setup::new("").filter("info");
    let mut child = setup.command().stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::with_capacity(1, child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let ports = lines.find(|line| line.contains(LISTENING)).unwrap();
    lines.find(|line| line.contains(SERVING)).unwrap();
    let port = |key: &str| ports.split(key).nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    let (rpc, http) = (port(" rpc="), port(" http="));
    // Each dump is a line a metric.
    let pid = rustix::process::Pid::from_child(&child);
    let mut talk = Talk::dial(rpc, 1);
    for _ in 0..400 {
        rustix::process::kill_process(pid, Signal::USR1).unwrap();
        talk.call(0, "Status.Ping", &json!({})).ok();
    }
    // Facts of the process are as old as ten seconds.
    let lost = || {
        let mut peer = Peer::dial(http);
        peer.write(b"GET /v1/metrics?format=prometheus HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        let text = String::from_utf8(peer.read_to_end()).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("holdfast_log_lines_lost "));
        line.unwrap_or_else(|| panic!("{text}")).parse::<f64>().unwrap()
    };
    eventually("lost lines, counted", || (lost() > 0.0).then_some(()));
    child.kill().unwrap();
    child.wait().unwrap();
}

/// A streaming call over a connection of its own: the header, the argument and what follows them; then its messages,
/// the ack first, and the bytes behind them.
fn stream_once(daemon: &Daemon, method: &str, more: &[u8], messages: usize) -> (Vec<serde_json::Value>, Vec<u8>) {
    let mut peer = Peer::dial(daemon.rpc);
    peer.write(&[5]);
    peer.write(&msgpack::pack(&json!({ "Method": method })));
    peer.write(&msgpack::pack(&json!({ "Region": "global" })));
    peer.write(more);
    let said = peer.read_to_end();
    let (mut values, mut at) = (Vec::new(), 0);
    for _ in 0..messages {
        let (value, len) = msgpack::unpack(&said[at..]).unwrap_or_else(|| panic!("{} bytes: {values:?}", said.len()));
        values.push(value);
        at += len;
    }
    (values, said[at..].to_vec())
}

fn save(daemon: &Daemon) -> Vec<u8> {
    let (messages, archive) = stream_once(daemon, "Operator.SnapshotSave", &[], 2);
    assert_eq!(messages[0], json!({ "Error": "" }));
    assert_eq!(messages[1]["ErrorCode"], 0, "{messages:?}");
    assert!(messages[1]["SnapshotChecksum"].as_str().unwrap().starts_with("sha-256="), "{messages:?}");
    archive
}

fn restore(daemon: &Daemon, archive: &[u8]) -> serde_json::Value {
    let mut frames = Vec::new();
    for part in archive.chunks(4096) {
        frames.extend(msgpack::pack(&json!({ "Payload": { "$raw_hex": rig::hex(part) }, "Error": null })));
    }
    frames.extend(msgpack::pack(&json!({ "Payload": null, "Error": { "Message": "EOF" } })));
    let (mut messages, rest) = stream_once(daemon, "Operator.SnapshotRestore", &frames, 2);
    assert_eq!((messages.len(), rest.len()), (2, 0));
    messages.pop().unwrap()
}

fn algorithm(daemon: &Daemon) -> serde_json::Value {
    let reply = call_once(daemon.rpc, "Operator.SchedulerGetConfiguration", &json!({ "Region": "global" })).ok();
    reply["SchedulerConfig"]["SchedulerAlgorithm"].clone()
}

fn set_algorithm(daemon: &Daemon, algorithm: &str) {
    let body = json!({ "Region": "global", "Config": { "SchedulerAlgorithm": algorithm } });
    assert_eq!(call_once(daemon.rpc, "Operator.SchedulerSetConfiguration", &body).ok()["Updated"], true);
}

fn node_ids(daemon: &Daemon) -> usize {
    let reply = call_once(daemon.rpc, "Node.List", &json!({ "Region": "global" })).ok();
    reply["Nodes"].as_array().unwrap().len()
}

// R1.95
#[test]
fn a_saved_snapshot_comes_back_and_stays() {
    let daemon = Daemon::start("");
    let talk = silent_node(&daemon);
    set_algorithm(&daemon, "spread");
    let archive = save(&daemon);
    assert_eq!(daemon.metric("holdfast.snapshot.saved"), 1.0);
    drop(talk);
    set_algorithm(&daemon, "binpack");
    let id = "a1b2c3d4-0001-0002-0003-00000000abcd";
    call_once(daemon.rpc, "Node.Deregister", &json!({ "Region": "global", "NodeID": id })).ok();
    assert_eq!(node_ids(&daemon), 0);

    // What is damaged is refused, and changes nothing.
    let mut bent = archive.clone();
    let middle = bent.len() / 2;
    bent[middle] ^= 0xff;
    let eof = "failed to restore from snapshot: failed to decompress snapshot: unexpected EOF";
    for (bytes, words) in [
        (&b"garbage"[..], eof),
        (&archive[..archive.len() - 5], "unexpected EOF"),
        (&bent, "failed to restore from snapshot: "),
    ] {
        let reply = restore(&daemon, bytes);
        assert_eq!(reply["ErrorCode"], 500, "{reply}");
        assert!(reply["ErrorMsg"].as_str().unwrap().contains(words), "{reply}");
        assert_eq!((algorithm(&daemon), node_ids(&daemon)), (json!("binpack"), 0));
    }

    // A query that waits is woken by it, though the table's index could be anything.
    let mut waiting = Talk::dial(daemon.rpc, 1);
    let index = waiting.call(0, "Node.List", &json!({ "Region": "global" })).ok()["Index"].clone();
    let wait = json!({ "Region": "global", "MinQueryIndex": index, "MaxQueryTime": 300_000_000_000u64 });
    waiting.request(0, "Node.List", &wait);
    daemon.until_metric("holdfast.parked", 1.0);

    let reply = restore(&daemon, &archive);
    assert_eq!((&reply["ErrorCode"], &reply["ErrorMsg"]), (&json!(0), &json!("")), "{reply}");
    assert!(reply["Index"].as_u64() > index.as_u64(), "{reply}");
    assert_eq!((algorithm(&daemon), node_ids(&daemon)), (json!("spread"), 1));
    assert_eq!(daemon.metric("holdfast.snapshot.restored"), 1.0);
    let woken = waiting.reply(0).ok();
    assert_eq!((&woken["Index"], woken["Nodes"].as_array().unwrap().len()), (&reply["Index"], 1));

    // It is in the log, and goes on to be written to.
    let daemon = daemon.killed_and_again();
    assert_eq!((algorithm(&daemon), node_ids(&daemon)), (json!("spread"), 1));
    set_algorithm(&daemon, "binpack");
    let again = save(&daemon);
    assert_ne!(again, archive);
    let reply = restore(&daemon, &again);
    assert_eq!(reply["ErrorCode"], 0, "{reply}");
    assert_eq!(algorithm(&daemon), "binpack");
}

#[test]
fn keys_are_rotated_and_deleted_ones_are_laid_aside() {
    let daemon = Daemon::start("");
    let keys = |daemon: &Daemon| -> Vec<(String, String)> {
        let reply = call_once(daemon.rpc, "Keyring.List", &json!({ "Region": "global" })).ok();
        let said = |key: &serde_json::Value, name: &str| key[name].as_str().unwrap().to_owned();
        reply["Keys"].as_array().unwrap().iter().map(|key| (said(key, "KeyID"), said(key, "State"))).collect()
    };
    let folder = daemon.setup.data_dir().join("keyring");
    let first = eventually("a key", || keys(&daemon).pop()).0;
    let reply = call_once(daemon.rpc, "Keyring.Rotate", &json!({ "Region": "global", "Full": true })).ok();
    let second = reply["Key"]["KeyID"].as_str().unwrap().to_owned();
    assert!(folder.join(format!("{second}.pk8")).exists());
    let both = [(second.clone(), "active".to_owned()), (first.clone(), "inactive".to_owned())];
    assert_eq!(keys(&daemon), both);
    // The new one is the one in use after a start, too.
    let daemon = daemon.killed_and_again();
    assert_eq!(keys(&daemon), both);
    let delete = |id: &str| call_once(daemon.rpc, "Keyring.Delete", &json!({ "Region": "global", "KeyID": id }));
    assert_eq!(delete(&second).err(), "RPC Error:: 400,active root key cannot be deleted - call rotate first");
    delete(&first).ok();
    assert_eq!(keys(&daemon), both[..1]);
    let laid = folder.join(format!("{first}.pk8.deleted"));
    eventually("the key's file laid aside", || laid.exists().then_some(()));
    assert!(!folder.join(format!("{first}.pk8")).exists());
}

#[test]
fn the_agent_tells_what_is_in_force() {
    let daemon = Daemon::start("[rpc]\nhold_timeout = \"3s\"");
    let reply = call_once(daemon.rpc, "Holdfast.AgentSelf", &json!({})).ok();
    let text = |name: &str| serde_json::from_str::<serde_json::Value>(reply[name].as_str().unwrap()).unwrap();
    let (config, stats) = (text("ConfigJSON"), text("StatsJSON"));
    assert_eq!((&config["Holdfast"]["HoldTimeout"], &config["UI"]["ShowCLIHints"]), (&json!("3s"), &json!(false)));
    assert_eq!((&stats["raft"]["state"], &stats["nomad"]["leader"]), (&json!("Leader"), &json!("true")));
    assert_eq!(stats["nomad"]["leader_addr"], daemon.rpc.to_string());
    let _ = daemon.setup.clone().config("[rpc]\nhold_timeout = \"2s\"");
    call_once(daemon.rpc, "Holdfast.Reload", &json!({})).ok();
    daemon.log.until("configuration reloaded");
}
