//! How many may come: connections of one address, streaming ones among them, and descriptors of the process (R1.2,
//! R1.5 to R1.12, R1.28).

#![allow(clippy::print_stderr)]
#![allow(clippy::unwrap_used)]

mod rig;

use std::io::{self, ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use rig::peer::Read1;
use rig::{Daemon, PATIENCE, Peer, Setup, Talk, eventually, json, msgpack, patience};
use rustix::process::Signal;

const LIMIT_26: &str = "[limits]\nrpc_max_conns_per_client = 26\nhttp_max_conns_per_client = 26";
const REJECTED: &str = "rejecting client for exceeding maximum RPC connections";

fn ping(talk: &mut Talk) {
    talk.call(0, "Status.Ping", &json!({})).ok();
}

/// So many connections that all answer.
fn open(address: SocketAddr, count: usize) -> Vec<Talk> {
    let mut talks: Vec<Talk> = (0..count).map(|_| Talk::dial(address, 1)).collect();
    talks.iter_mut().for_each(ping);
    talks
}

/// Whether a connection is closed without a byte.
fn is_rejected(mut peer: Peer) -> bool {
    matches!(peer.read(patience()), Read1::End(_))
}

// R1.8, R1.11
#[test]
fn one_address_has_its_limit_and_another_its_own() {
    let daemon = Daemon::start(LIMIT_26);
    let mut talks = open(daemon.rpc, 26);
    assert!(is_rejected(Peer::dial(daemon.rpc)));
    let line = daemon.log.until(REJECTED);
    assert!(line.contains(" ERROR ") && line.contains("remote_addr=127.0.0.1:") && line.contains("limit=26"), "{line}");
    assert_eq!(daemon.metric("holdfast.rpc.accept_conn"), 26.0);
    assert_eq!(daemon.metric("holdfast.rpc.reject_conn"), 1.0);
    talks.iter_mut().for_each(ping);
    let elsewhere = Peer::dial_from(Ipv4Addr::new(127, 0, 0, 2).into(), daemon.rpc).unwrap();
    ping(&mut Talk::over(elsewhere, 1));
    // A place that is given back is free.
    drop(talks.pop());
    eventually("a free place", || {
        let mut talk = Talk::dial(daemon.rpc, 1);
        let _ = talk.peer.try_write(&rig::talk::call_bytes(1, "Status.Ping", &json!({})));
        talk.pump(patience(), |heard| heard.values(0).len() == 2).then_some(())
    });
    talks.iter_mut().for_each(ping);
}

#[test]
fn http_has_a_limit_of_its_own() {
    let daemon = Daemon::start(LIMIT_26);
    let held: Vec<Peer> = (0..26).map(|_| Peer::dial(daemon.http)).collect();
    eventually("429", || {
        let mut peer = Peer::dial(daemon.http);
        let _ = peer.try_write(b"GET /v1/status/leader HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        String::from_utf8(peer.read_to_end()).unwrap().starts_with("HTTP/1.1 429 ").then_some(())
    });
    // The other port is another count.
    open(daemon.rpc, 26);
    drop(held);
    eventually("200", || {
        let mut peer = Peer::dial(daemon.http);
        let _ = peer.try_write(b"GET /v1/status/leader HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        String::from_utf8(peer.read_to_end()).unwrap().starts_with("HTTP/1.1 200 ").then_some(())
    });
}

// R1.9
#[test]
fn an_address_counts_the_same_by_both_protocols() {
    if TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).is_err() {
        let _ = writeln!(io::stderr(), "this machine has no IPv6: not tested");
        return;
    }
    let daemon = Setup::new(LIMIT_26).rpc("[::]:0").start();
    let port = daemon.rpc.port();
    let mapped = IpAddr::from(Ipv4Addr::LOCALHOST.to_ipv6_mapped());
    let dial = |address: IpAddr| Talk::dial(SocketAddr::new(address, port), 1);
    let mut talks: Vec<Talk> = Vec::new();
    for _ in 0..13 {
        talks.extend([dial(Ipv4Addr::LOCALHOST.into()), dial(mapped)]);
    }
    talks.iter_mut().for_each(ping);
    for address in [Ipv4Addr::LOCALHOST.into(), mapped] {
        assert!(is_rejected(Peer::dial(SocketAddr::new(address, port))), "{address}");
    }
    ping(&mut dial(Ipv6Addr::LOCALHOST.into()));
}

// R1.10
#[test]
fn every_way_out_gives_the_place_back() {
    let daemon = Daemon::start(LIMIT_26);
    let garbage = [[1].as_slice(), &[0xc1, 0xc1]].concat();
    let unknown_stream = [[5].as_slice(), &msgpack::pack(&json!({ "Method": "Nope.Stream" }))].concat();
    let event_stream = [
        [5].as_slice(),
        &msgpack::pack(&json!({ "Method": "Event.Stream" })),
        &msgpack::pack(&json!({ "Region": "global" })),
    ]
    .concat();
    let bad_frame = [6, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let call = [[1].as_slice(), &rig::talk::call_bytes(1, "Status.Ping", &json!({}))].concat();
    let ways: [&[u8]; 13] =
        [b"", &[1], &[2], &[3], &[4], &[5], &[6], &[0xff], &garbage, &unknown_stream, &event_stream, &bad_frame, &call];
    for way in ways {
        for number in 0..300 {
            let mut peer = Peer::dial(daemon.rpc);
            let _ = peer.try_write(way);
            match number % 3 {
                0 => peer.abort(),
                1 => drop(peer),
                _ => {
                    // Some are closed by the daemon, and some by us.
                    peer.finish();
                    peer.read_to_end();
                }
            }
        }
    }
    // `unknown` until they say what they speak; none is left of any kind.
    eventually("no connections", || {
        let metrics = daemon.metrics();
        let rpc = ["unknown", "rpc", "raft", "multiplex_v1", "multiplex_v2", "streaming", "tls"];
        (rpc.iter().map(|kind| metrics.labelled("holdfast.connections", kind)).sum::<f64>() == 0.0).then_some(())
    });
    let mut talks = open(daemon.rpc, 26);
    talks.iter_mut().for_each(ping);
    assert!(is_rejected(Peer::dial(daemon.rpc)));
}

// R1.12
#[test]
fn a_lower_limit_puts_nobody_out() {
    let daemon = Daemon::start("");
    let mut talks = open(daemon.rpc, 30);
    let _ = daemon.setup.clone().config(LIMIT_26);
    daemon.reload();
    talks.iter_mut().for_each(ping);
    assert!(is_rejected(Peer::dial(daemon.rpc)));
    // Below it there is room again; and a limit that is lifted is gone.
    let _ = daemon.setup.clone().config("[limits]\nrpc_max_conns_per_client = 0");
    daemon.reload();
    open(daemon.rpc, 120);
    talks.iter_mut().for_each(ping);
}

/// Opens an event stream; false when the connection is closed without an ack.
fn event_stream(talk: &mut Talk) -> bool {
    let header = msgpack::pack(&json!({ "Method": "Event.Stream" }));
    let _ = talk.peer.try_write(&header);
    if !talk.pump(patience(), |heard| !heard.values(0).is_empty()) {
        return false;
    }
    talk.peer.write(&msgpack::pack(&json!({ "Region": "global", "Topics": { "Node": ["*"] } })));
    // Its first message.
    talk.pump(patience(), |heard| heard.values(0).len() >= 2)
}

// R1.28
#[test]
fn streaming_connections_leave_room_for_calls() {
    let daemon = Daemon::start("[limits]\nrpc_max_conns_per_client = 30");
    let mut streams: Vec<Talk> = (0..10).map(|_| Talk::dial(daemon.rpc, 5)).collect();
    assert!(streams.iter_mut().all(event_stream));
    let mut eleventh = Talk::dial(daemon.rpc, 5);
    assert!(!event_stream(&mut eleventh) && eleventh.heard.total == 0);
    let line = daemon.log.until("rejecting client for exceeding maximum streaming RPC connections");
    assert!(line.contains(" ERROR ") && line.contains("stream_limit=10"), "{line}");
    open(daemon.rpc, 5);
    // Streams within a session are not counted among them.
    let mut session = Talk::dial(daemon.rpc, 6);
    for _ in 0..25 {
        let stream = session.open_kind(5);
        session.say(stream, &msgpack::pack(&json!({ "Method": "Event.Stream" })));
        session.say(stream, &msgpack::pack(&json!({ "Region": "global", "Topics": { "Node": ["*"] } })));
        assert_eq!(session.value(stream), json!({ "Error": "" }));
        assert_eq!(session.value(stream)["Event"]["Data"], "{}");
    }
    // A place that ends is free again.
    drop(streams.pop());
    eventually("a free place", || event_stream(&mut Talk::dial(daemon.rpc, 5)).then_some(()));
}

/// The delays that were logged, in order.
fn delays(daemon: &Daemon) -> Vec<String> {
    let lines = daemon.log.lines();
    let refused = lines.iter().filter(|line| line.contains("failed to accept RPC conn"));
    refused.map(|line| line.split("delay=").nth(1).unwrap().trim().to_owned()).collect()
}

/// Leaves the daemon no descriptor.
fn exhaust(daemon: &Daemon) {
    daemon.limit_descriptors(daemon.descriptors() as u64);
}

// R1.5, R1.6, R1.7
#[test]
fn without_descriptors_it_waits_and_forgets_nobody() {
    let mut daemon = Daemon::start("");
    // The first thing it does when it leads is to write a signing key.
    let keys = daemon.setup.data_dir().join("keyring");
    let written = |name: std::ffi::OsString| name.to_string_lossy().ends_with(".pk8");
    eventually("a signing key", || {
        let mut files = std::fs::read_dir(&keys).ok()?.map(|entry| entry.unwrap().file_name());
        files.any(written).then_some(())
    });
    eventually("an idle daemon", || {
        let before = daemon.descriptors();
        rig::quiet_for(Duration::from_millis(100));
        (daemon.descriptors() == before).then_some(())
    });
    exhaust(&daemon);
    let calls = rig::talk::call_bytes(1, "Status.Ping", &json!({}));
    let queued = || -> Vec<Talk> {
        (0..10)
            .map(|_| {
                let mut talk = Talk::dial(daemon.rpc, 1);
                talk.peer.write(&calls);
                talk
            })
            .collect()
    };
    let mut first = queued();
    eventually("two of the longest delays", || {
        (delays(&daemon).iter().filter(|delay| *delay == "1s").count() >= 2).then_some(())
    });
    let wanted = ["5ms", "10ms", "20ms", "40ms", "80ms", "160ms", "320ms", "640ms", "1s", "1s"];
    assert_eq!(delays(&daemon)[..10], wanted);
    assert!(daemon.log.lines().iter().any(|line| line.contains("ERROR") && line.contains("failed to accept RPC conn")));
    // It does not spin meanwhile.
    let (cpu, from) = (daemon.cpu(), Instant::now());
    rig::quiet_for(Duration::from_secs(1));
    assert!(daemon.cpu() - cpu < from.elapsed() / 2, "{:?}", daemon.cpu() - cpu);
    // Nobody comes any more; those who wait are served.
    daemon.limit_descriptors(1024);
    for talk in &mut first {
        talk.reply(0).ok();
    }
    // After a success the delays begin anew.
    let before = delays(&daemon).len();
    exhaust(&daemon);
    let second = queued();
    eventually("refusals", || (delays(&daemon).len() >= before + 3).then_some(()));
    assert_eq!(delays(&daemon)[before..before + 3], ["5ms", "10ms", "20ms"]);
    // And a stop waits for no delay.
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.exit_within(PATIENCE).code(), Some(0));
    drop(second);
}

// R1.4: a stop while connections come in.
#[test]
fn a_stop_under_a_load_of_connections_is_silent() {
    let mut daemon = Daemon::start("[limits]\nrpc_max_conns_per_client = 0");
    let address = daemon.rpc;
    let load = std::thread::spawn(move || {
        let mut count = 0;
        loop {
            match std::net::TcpStream::connect(address) {
                Ok(_) => count += 1,
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => return count,
                Err(_) => {}
            }
        }
    });
    daemon.until_metric("holdfast.rpc.reject_conn", 0.0);
    eventually("load", || (daemon.metric("holdfast.rpc.accept_conn") > 200.0).then_some(()));
    daemon.stop();
    assert!(load.join().unwrap() > 200);
    daemon.log.until_end();
    assert_eq!(daemon.log.count("failed to accept"), 0);
    assert_eq!(daemon.log.errors(), Vec::<String>::new());
}
