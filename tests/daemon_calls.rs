//! Calls over real sockets: streams and their ends, order, counters, blocking queries, calls to nodes, and a server
//! that has no leader (R1.32 to R1.62, R1.65, R1.69 to R1.72, R1.84 to R1.101).

#![allow(clippy::unwrap_used)]

mod rig;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rig::heard::{ACK, DATA, FIN, Item, PING, SYN, WINDOW, frame};
use rig::nodes::{SECRET, answer, registration, session};
use rig::talk::{call_bytes, call_once};
use rig::{Daemon, Setup, Talk, Value, eventually, json, msgpack, patience};
use rustix::process::Signal;

const A: &str = "aaaaaaaa-0001-0002-0003-00000000abcd";
const B: &str = "bbbbbbbb-0001-0002-0003-00000000abcd";
/// An index that no state reaches.
const FAR: u64 = 1 << 40;
const MILLIS: u64 = 1_000_000;

fn region() -> Value {
    json!({ "Region": "global" })
}

/// The least options of a query that blocks.
fn blocking(index: u64, millis: u64) -> Value {
    json!({ "Region": "global", "MinQueryIndex": index, "MaxQueryTime": millis * MILLIS })
}

fn register(daemon: &Daemon, id: &str) -> u64 {
    call_once(daemon.rpc, "Node.Register", &registration(id)).ok()["Index"].as_u64().unwrap()
}

/// Writes something about a node.
fn touch(daemon: &Daemon, id: &str) {
    let event = json!({ "Message": "touched", "Subsystem": "test", "Timestamp": Value::Null });
    let body = json!({ "Region": "global", "AuthToken": SECRET, "NodeEvents": { id: [event] } });
    call_once(daemon.rpc, "Node.EmitEvents", &body).ok();
}

/// Opens streams as a Go peer does: never more than a backlog of them that were not taken.
fn open_many(talk: &mut Talk, count: u32) -> Vec<u32> {
    let mut streams = Vec::new();
    for _ in 0..count {
        streams.push(talk.open());
        if streams.len().is_multiple_of(128) {
            talk.ping(1_000 + streams.len() as u32);
        }
    }
    streams
}

// R1.34, R1.43
#[test]
fn sixty_four_streams_go_on_beside_a_query_that_waits() {
    let daemon = Daemon::start("");
    for first in [3, 6] {
        let mut talk = Talk::dial(daemon.rpc, first);
        let waiting = talk.open();
        talk.request(waiting, "Node.List", &blocking(FAR, 60_000));
        let streams: Vec<u32> = (0..64).map(|_| talk.open()).collect();
        for _ in 0..5 {
            for stream in &streams {
                talk.request(*stream, "Status.Leader", &region());
            }
            for stream in &streams {
                assert_eq!(talk.reply(*stream).ok(), daemon.rpc.to_string());
            }
        }
        assert!(!talk.has_item(waiting));
    }
}

// R1.43
#[test]
fn ten_thousand_calls_use_one_stream() {
    let daemon = Daemon::start("");
    let mut talk = Talk::dial(daemon.rpc, 6);
    let stream = talk.open();
    for _ in 0..100 {
        let seqs: Vec<u64> = (0..100).map(|_| talk.request(stream, "Status.Ping", &json!({}))).collect();
        for seq in seqs {
            assert_eq!(talk.reply(stream).seq, seq);
        }
    }
    assert_eq!(daemon.metric("holdfast.rpc.request"), 10_000.0);
    assert!(!talk.heard.finished(stream));
}

// R1.43
#[test]
fn a_slow_call_before_a_fast_one_is_answered_before_it() {
    let daemon = Daemon::start("");
    for first in [1, 3, 6] {
        let mut talk = Talk::dial(daemon.rpc, first);
        let stream = talk.open();
        let both = [call_bytes(1, "Node.List", &blocking(FAR, 300)), call_bytes(2, "Status.Ping", &json!({}))].concat();
        talk.say(stream, &both);
        let slow = talk.reply(stream);
        assert_eq!((slow.seq, slow.method.as_str()), (1, "Node.List"));
        assert_eq!(talk.reply(stream).seq, 2);
    }
}

// R1.46, R1.47, R1.48
#[test]
fn errors_of_methods_keep_the_stream_and_unknown_methods_end_it() {
    let daemon = Daemon::start("");
    let mut talk = Talk::dial(daemon.rpc, 6);
    let stream = talk.open();
    assert_eq!(talk.call(stream, "Node.GetNode", &region()).err(), "missing node ID");
    talk.call(stream, "Status.Ping", &json!({})).ok();
    assert_eq!(daemon.metric("holdfast.rpc.request"), 2.0);
    assert_eq!(daemon.metric("holdfast.rpc.request_error"), 0.0);
    let unknown = [
        ("Nope.Nothing", "rpc: can't find service Nope.Nothing"),
        ("Status.Nothing", "rpc: can't find method Status.Nothing"),
        ("Status", "rpc: service/method request ill-formed: Status"),
        ("", "rpc: service/method request ill-formed: "),
    ];
    for (number, (method, text)) in unknown.iter().enumerate() {
        for first in [1, 6] {
            let mut other = Talk::dial(daemon.rpc, first);
            let stream = other.open();
            assert_eq!(other.call(stream, method, &json!({})).err(), *text);
            match first {
                1 => other.until_closed(),
                _ => assert_eq!(other.item(stream), Item::Fin),
            }
        }
        assert_eq!(daemon.metric("holdfast.rpc.request_error"), 2.0 * (number as f64 + 1.0), "{method}");
    }
    assert_eq!(daemon.metric("holdfast.rpc.request"), 2.0);
    // The session never saw any of it.
    talk.call(stream, "Status.Ping", &json!({})).ok();
}

// R1.45
#[test]
fn a_request_over_the_cap_ends_its_stream_only() {
    let daemon = Daemon::start("[rpc]\nmax_message = \"64KiB\"");
    let mut talk = Talk::dial(daemon.rpc, 6);
    let (large, other) = (talk.open(), talk.open());
    let body = json!({ "Region": "global", "Filter": "x".repeat(70_000) });
    talk.request(large, "Node.List", &body);
    talk.until("end of the stream", |heard| heard.reset(large));
    talk.call(other, "Status.Ping", &json!({})).ok();
    assert!(daemon.log.until("RPC error").contains(" ERROR "));
    assert_eq!(daemon.metric("holdfast.rpc.request_error"), 1.0);
    // As large as it may be, it is served.
    let body = json!({ "Region": "global", "AuthToken": "", "Name": "x".repeat(60_000) });
    talk.call(other, "Status.Ping", &body).ok();
}

// R1.42
#[test]
fn a_half_closed_stream_is_answered_and_a_reset_one_is_forgotten() {
    let daemon = Daemon::start("");
    let mut talk = Talk::dial(daemon.rpc, 6);
    let (closed, reset) = (talk.open(), talk.open());
    talk.request(closed, "Node.List", &blocking(FAR, 300));
    talk.fin(closed);
    talk.request(reset, "Node.List", &blocking(FAR, 60_000));
    daemon.until_metric("holdfast.parked", 2.0);
    talk.rst(reset);
    // R1.97
    daemon.until_metric("holdfast.parked", 1.0);
    talk.reply(closed).ok();
    assert_eq!(talk.item(closed), Item::Fin);
    assert!(talk.heard.items(reset).is_empty());
    daemon.until_metric("holdfast.parked", 0.0);
    talk.ping(5);
}

// R1.42: after the client's GoAway(0) its streams go on, and it may even open more; after any other the session ends.
#[test]
fn go_away_ends_what_it_says() {
    let daemon = Daemon::start("");
    let mut talk = Talk::dial(daemon.rpc, 6);
    let before = talk.open();
    talk.call(before, "Node.Register", &registration(A)).ok();
    talk.go_away(0);
    talk.call(before, "Status.Ping", &json!({})).ok();
    let after = talk.open();
    talk.call(after, "Status.Ping", &json!({})).ok();
    // It takes no streams of ours: there is no path to its node.
    let body = json!({ "Region": "global", "NodeID": A });
    assert_eq!(call_once(daemon.rpc, "NodeMeta.Read", &body).err(), "No path to node");
    for code in [1, 2, 77] {
        let mut other = Talk::dial(daemon.rpc, 6);
        let stream = other.open();
        other.call(stream, "Status.Ping", &json!({})).ok();
        other.go_away(code);
        other.until_closed();
    }
    talk.ping(1);
}

// R1.32, R1.42: a keepalive ping at 30 s, and the end 10 s later when nobody answers.
#[test]
fn a_peer_that_answers_no_ping_is_dropped() {
    let daemon = Daemon::start("");
    let mut silent = Talk::dial(daemon.rpc, 6);
    silent.pongs = false;
    let mut polite = Talk::dial(daemon.rpc, 6);
    polite.ping(1);
    silent.ping(1);
    let from = Instant::now();
    let pinged = silent.pump(from + Duration::from_secs(60), |heard| heard.pings == [0]);
    assert!(pinged && from.elapsed() > Duration::from_secs(25), "{:?}", from.elapsed());
    polite.until("a ping", |heard| heard.pings == [0]);
    silent.until_closed();
    assert!(from.elapsed() > Duration::from_secs(35), "{:?}", from.elapsed());
    assert!(daemon.log.until("multiplex_v2 conn accept failed").contains("keepalive timeout"));
    let stream = polite.open();
    polite.call(stream, "Status.Ping", &json!({})).ok();
}

// R1.50, R1.51, R1.52
#[test]
fn a_streaming_call_owns_its_stream_until_its_end() {
    let daemon = Daemon::start("");
    let header = msgpack::pack(&json!({ "Method": "Event.Stream" }));
    let argument = msgpack::pack(&json!({ "Region": "global", "Topics": { "Node": ["*"] }, "Index": 0 }));
    let begin = |talk: &mut Talk| {
        let stream = talk.open_kind(5);
        // Header and argument in one write.
        talk.say(stream, &[&header[..], &argument].concat());
        assert_eq!(talk.value(stream), json!({ "Error": "" }));
        assert_eq!(talk.value(stream)["Event"]["Data"], "{}");
        stream
    };
    begin(&mut Talk::dial(daemon.rpc, 5));
    let mut talk = Talk::dial(daemon.rpc, 6);
    let stream = begin(&mut talk);
    assert_eq!(daemon.metric("holdfast.streaming_rpc.request"), 2.0);
    register(&daemon, A);
    let event: Value = serde_json::from_str(talk.value(stream)["Event"]["Data"].as_str().unwrap()).unwrap();
    assert_eq!((&event["Events"][0]["Topic"], &event["Events"][0]["Key"]), (&json!("Node"), &json!(A)));
    // A second header is none: the stream was another call's.
    talk.fin(stream);
    talk.until("end of the stream", |heard| heard.finished(stream));
    talk.say(stream, &header);
    talk.ping(1);
    assert!(!talk.has_item(stream) || talk.item(stream) == Item::Fin);
    // R1.50: the ack with the reason comes whole, then the end.
    for first in [5, 6] {
        let mut talk = Talk::dial(daemon.rpc, first);
        let stream = talk.open_kind(5);
        talk.say(stream, &msgpack::pack(&json!({ "Method": "Nope.Stream" })));
        assert_eq!(talk.value(stream), json!({ "Error": "Unknown rpc method: \"Nope.Stream\"" }));
        match first {
            5 => talk.until_closed(),
            _ => assert_eq!(talk.item(stream), Item::Fin),
        }
    }
    assert_eq!(daemon.metric("holdfast.streaming_rpc.request_error"), 2.0);
    assert_eq!(daemon.metric("holdfast.streaming_rpc.request"), 2.0);
}

// R1.55, R1.57, R1.58, R1.59, R1.60
#[test]
fn the_latest_connection_of_a_node_is_called() {
    let daemon = Daemon::start("");
    let read = json!({ "Region": "global", "NodeID": A });
    let mut caller = Talk::dial(daemon.rpc, 6);
    let stream = caller.open();
    let mut call = |node: &mut Talk, even: u32, text: &str| {
        caller.request(stream, "NodeMeta.Read", &read);
        assert_eq!(answer(node, even, text)["NodeID"], A);
        assert_eq!(caller.reply(stream).ok()["Meta"]["from"], text);
    };
    let mut first = session(daemon.rpc, A);
    call(&mut first, 2, "first");
    // R1.60: byte for byte.
    let wanted = [&[1][..], &call_bytes(1, "NodeMeta.Read", &read)].concat();
    assert_eq!(first.heard.streams[&2].bytes, wanted);
    let mut second = session(daemon.rpc, A);
    call(&mut second, 2, "second");
    let third = session(daemon.rpc, A);
    assert_eq!(daemon.metric("holdfast.node_conns"), 1.0, "nodes with a connection");
    // The latest is gone, then the oldest: what is left is called.
    third.peer.abort();
    eventually("two connections", || {
        (daemon.metrics().labelled("holdfast.connections", "multiplex_v2") == 3.0).then_some(())
    });
    call(&mut second, 4, "second again");
    drop(first);
    eventually("one connection", || {
        (daemon.metrics().labelled("holdfast.connections", "multiplex_v2") == 2.0).then_some(())
    });
    call(&mut second, 6, "second once more");
    drop(second);
    daemon.until_metric("holdfast.node_conns", 0.0);
    caller.request(stream, "NodeMeta.Read", &read);
    assert_eq!(caller.reply(stream).err(), "No path to node");
}

// R1.56
#[test]
fn heartbeats_of_one_connection_are_one_entry() {
    let daemon = Daemon::start("");
    let mut talk = session(daemon.rpc, A);
    let body = json!({ "Region": "global", "NodeID": A, "Status": "ready", "AuthToken": SECRET });
    for _ in 0..3 {
        let stream = talk.open();
        talk.call(stream, "Node.UpdateStatus", &body).ok();
    }
    assert_eq!(daemon.metric("holdfast.node_conns"), 1.0);
    drop(talk);
    daemon.until_metric("holdfast.node_conns", 0.0);
}

// R1.62: a plain connection is no way back.
#[test]
fn a_node_on_a_plain_connection_cannot_be_called() {
    let daemon = Daemon::start("");
    let mut plain = Talk::dial(daemon.rpc, 1);
    plain.call(0, "Node.Register", &registration(A)).ok();
    let body = json!({ "Region": "global", "NodeID": A });
    assert_eq!(call_once(daemon.rpc, "NodeMeta.Read", &body).err(), "No path to node");
    plain.call(0, "Status.Ping", &json!({})).ok();
}

// A node that resets, or vanishes, while it is called.
#[test]
fn a_node_that_goes_while_called_is_an_error_of_that_call() {
    let daemon = Daemon::start("");
    for vanish in [false, true] {
        let mut node = session(daemon.rpc, A);
        let mut caller = Talk::dial(daemon.rpc, 6);
        let stream = caller.open();
        caller.request(stream, "NodeMeta.Read", &json!({ "Region": "global", "NodeID": A }));
        assert_eq!(node.item(2), Item::Kind(1));
        if vanish {
            node.peer.abort()
        } else {
            node.rst(2)
        }
        let text = caller.reply(stream).err();
        assert!(!text.is_empty());
        caller.call(stream, "Status.Ping", &json!({})).ok();
    }
}

// R1.84, R1.85, R1.86, R1.89, R1.90
#[test]
fn queries_that_need_not_wait_do_not() {
    let daemon = Daemon::start("");
    let mut talk = Talk::dial(daemon.rpc, 6);
    let stream = talk.open();
    // An empty table has an index to wait for.
    let empty = talk.call(stream, "Node.List", &blocking(0, 60_000)).ok();
    assert!(empty["Index"].as_u64().unwrap() >= 1, "{empty}");
    let index = register(&daemon, A);
    let listed = talk.call(stream, "Node.List", &blocking(index - 1, 60_000)).ok();
    assert_eq!((listed["Index"].as_u64(), listed["Nodes"].as_array().unwrap().len()), (Some(index), 1));
    // The deadline is no error, and changes nothing.
    let late = talk.call(stream, "Node.List", &blocking(index, 200)).ok();
    assert_eq!(late, listed);
    let ahead = talk.call(stream, "Node.List", &blocking(FAR, 200)).ok();
    assert_eq!(ahead["Index"], index);
    // An error does not wait.
    assert_eq!(talk.call(stream, "Node.GetNode", &blocking(FAR, 60_000)).err(), "missing node ID");
    let unknown = json!({ "Region": "mars", "MinQueryIndex": FAR, "MaxQueryTime": 60_000 * MILLIS });
    assert_eq!(talk.call(stream, "Node.List", &unknown).err(), "No path to region");
}

// R1.87
#[test]
fn a_query_wakes_for_its_own_key_only() {
    let daemon = Daemon::start("");
    let index = register(&daemon, A);
    register(&daemon, B);
    let mut talk = Talk::dial(daemon.rpc, 6);
    let stream = talk.open();
    let mut body = blocking(index, 60_000);
    body["NodeID"] = json!(A);
    talk.request(stream, "Node.GetNode", &body);
    daemon.until_metric("holdfast.parked", 1.0);
    let runs = daemon.metric("holdfast.rpc.query");
    let set = |id: &str, eligibility: &str| {
        let body = json!({ "Region": "global", "NodeID": id, "Eligibility": eligibility });
        call_once(daemon.rpc, "Node.UpdateEligibility", &body).ok();
    };
    for eligibility in ["ineligible", "eligible", "ineligible"] {
        set(B, eligibility);
    }
    talk.ping(1);
    assert!(!talk.has_item(stream));
    assert_eq!(daemon.metric("holdfast.rpc.query"), runs, "nobody looked again");
    set(A, "ineligible");
    let got = talk.reply(stream).ok();
    assert!(got["Index"].as_u64().unwrap() > index);
    assert_eq!(got["Node"]["SchedulingEligibility"], "ineligible");
}

// R1.88, R1.93
#[test]
fn a_wake_up_that_brings_nothing_new_keeps_the_deadline() {
    let daemon = Daemon::start("");
    register(&daemon, A);
    let mut talk = Talk::dial(daemon.rpc, 6);
    let stream = talk.open();
    let before = daemon.metric("holdfast.rpc.query");
    let from = Instant::now();
    talk.request(stream, "Node.List", &blocking(FAR, 2_000));
    daemon.until_metric("holdfast.rpc.query", before + 1.0);
    for wake in 1..=3 {
        touch(&daemon, A);
        daemon.until_metric("holdfast.rpc.query", before + 1.0 + f64::from(wake));
    }
    // Writes go on until it is answered: each would put a new deadline off.
    let deadline = patience();
    while !talk.pump(Instant::now() + Duration::from_millis(50), |heard| heard.values(stream).len() >= 2) {
        touch(&daemon, A);
        assert!(Instant::now() < deadline);
    }
    let took = from.elapsed();
    talk.reply(stream).ok();
    assert!(took >= Duration::from_millis(1_990) && took < Duration::from_secs(8), "{took:?}");
}

// R1.91, R1.92
#[test]
fn the_time_that_is_asked_for_is_clamped_then_jittered() {
    let daemon = Daemon::start("[rpc]\nmax_query_time = \"800ms\"\ndefault_query_time = \"400ms\"");
    // An hour; nothing; less than nothing.
    for (asked, floor) in
        [(json!(3_600_000 * MILLIS), 800), (json!(0), 400), (json!(-1), 400), (json!(300 * MILLIS), 300)]
    {
        let mut talks: Vec<Talk> = (0..16).map(|_| Talk::dial(daemon.rpc, 1)).collect();
        let from = Instant::now();
        for talk in &mut talks {
            let body = json!({ "Region": "global", "MinQueryIndex": FAR, "MaxQueryTime": asked });
            talk.request(0, "Node.List", &body);
        }
        for talk in &mut talks {
            talk.reply(0).ok();
        }
        let took = from.elapsed();
        let floor = Duration::from_millis(floor);
        assert!(
            took >= floor - Duration::from_millis(10) && took < floor + Duration::from_secs(5),
            "{asked}: {took:?}"
        );
    }
}

// R1.96, R1.97
#[test]
fn ten_thousand_parked_queries_cost_no_threads() {
    let daemon = Daemon::start("[limits]\nrpc_max_conns_per_client = 0");
    register(&daemon, A);
    let mut sessions: Vec<Talk> = (0..5).map(|_| Talk::dial(daemon.rpc, 6)).collect();
    sessions.iter_mut().for_each(|session| session.ping(1));
    let (threads, memory) = (daemon.threads(), daemon.resident());
    for session in &mut sessions {
        for stream in open_many(session, 2000) {
            session.request(stream, "Node.List", &blocking(FAR, 200_000));
        }
    }
    daemon.until_metric("holdfast.parked", 10_000.0);
    assert!(daemon.threads() <= threads, "a thread for each");
    let each = daemon.resident().saturating_sub(memory) / 10_000;
    assert!(each < 4096, "{each} bytes each");
    let from = Instant::now();
    call_once(daemon.rpc, "Status.Ping", &json!({})).ok();
    assert!(from.elapsed() < Duration::from_secs(5), "{:?}", from.elapsed());
    drop(sessions);
    daemon.until_metric("holdfast.parked", 0.0);
    assert_eq!(daemon.metric("holdfast.calls"), 0.0);
}

/// A server that waits for two others to found a cluster with.
fn leaderless(hold_timeout: &str) -> Daemon {
    let config = format!("[cluster]\nbootstrap_expect = 3\n[rpc]\nhold_timeout = \"{hold_timeout}\"");
    Setup::new(&config).without_leader().start()
}

// R1.65, R1.83, R1.84
#[test]
fn without_a_leader_stale_reads_are_answered_at_once() {
    let daemon = leaderless("60s");
    let stale = json!({ "Region": "global", "AllowStale": true });
    let listed = call_once(daemon.rpc, "Node.List", &stale).ok();
    assert_eq!((&listed["KnownLeader"], &listed["Nodes"]), (&json!(false), &json!([])));
    assert!(listed["Index"].as_u64().unwrap() >= 1, "{listed}");
    assert_eq!(listed["LastContact"], i64::MAX);
    assert_eq!(call_once(daemon.rpc, "Status.Leader", &stale).ok(), "");
    // The region comes before staleness.
    let elsewhere = json!({ "Region": "mars", "AllowStale": true });
    assert_eq!(call_once(daemon.rpc, "Node.List", &elsewhere).err(), "No path to region");
    // What needs nobody needs no leader either.
    call_once(daemon.rpc, "Status.Ping", &json!({})).ok();
}

// R1.69, R1.72
#[test]
fn without_a_leader_calls_are_held_and_then_refused() {
    let daemon = leaderless("1s");
    let mut session = Talk::dial(daemon.rpc, 6);
    session.ping(1);
    let threads = daemon.threads();
    let from = Instant::now();
    let streams = open_many(&mut session, 500);
    for stream in &streams {
        session.request(*stream, "Node.List", &region());
    }
    let mut writer = Talk::dial(daemon.rpc, 1);
    writer.request(0, "Node.Register", &registration(A));
    daemon.until_metric("holdfast.held", 501.0);
    assert!(daemon.threads() <= threads, "a thread for each");
    for stream in &streams {
        assert_eq!(session.reply(*stream).err(), "No cluster leader");
        assert!(from.elapsed() >= Duration::from_millis(990), "{:?}", from.elapsed());
    }
    assert_eq!(writer.reply(0).err(), "No cluster leader");
    // HTTP says the same.
    let (status, _, body) = daemon.http("GET /.well-known/jwks.json");
    assert_eq!((status, body.as_str()), (500, "No cluster leader"));
    assert_eq!(daemon.metric("holdfast.held"), 0.0);
}

// R1.71
#[test]
fn a_stop_ends_the_hold() {
    let mut daemon = leaderless("60s");
    let mut session = Talk::dial(daemon.rpc, 6);
    let stream = session.open();
    session.request(stream, "Node.List", &region());
    daemon.until_metric("holdfast.held", 1.0);
    let from = Instant::now();
    daemon.signal(Signal::TERM);
    assert_eq!(session.reply(stream).err(), "No cluster leader");
    assert!(from.elapsed() < Duration::from_secs(5), "{:?}", from.elapsed());
    assert_eq!(daemon.exit().code(), Some(0));
}

// R1.100, R1.101, R8.27
#[test]
fn metrics_are_the_same_in_both_forms() {
    let daemon = Daemon::start("");
    let metrics = daemon.metrics();
    let (status, head, text) = daemon.http("GET /v1/metrics?format=prometheus");
    assert_eq!(status, 200);
    assert!(head.contains("version=0.0.4"), "{head}");
    let counters = [
        ("holdfast.rpc.accept_conn", "holdfast_rpc_connections_accepted_total"),
        ("holdfast.rpc.raft_handoff", "holdfast_rpc_raft_handoffs_total"),
        ("holdfast.rpc.request", "holdfast_rpc_requests_total"),
        ("holdfast.rpc.request_error", "holdfast_rpc_request_errors_total"),
        ("holdfast.rpc.query", "holdfast_rpc_queries_total"),
        ("holdfast.streaming_rpc.request", "holdfast_streaming_rpc_requests_total"),
        ("holdfast.streaming_rpc.request_error", "holdfast_streaming_rpc_request_errors_total"),
        ("holdfast.parked", "holdfast_parked_queries"),
        ("holdfast.held", "holdfast_held_requests"),
        ("holdfast.forwarded", "holdfast_forwarded_in_flight"),
        ("holdfast.handler.queue", "holdfast_handler_queue_jobs"),
        ("holdfast.streams", "holdfast_streams"),
    ];
    let value =
        |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse::<f64>().ok());
    for (dotted, prometheus) in counters {
        assert_eq!(metrics.get(dotted), 0.0, "{dotted} after the start");
        assert_eq!(value(prometheus), Some(0.0), "{prometheus}");
    }
    // What promtool's linter asks for.
    let mut families = BTreeSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(families.insert(name.to_owned()), "{name} twice");
            assert!(text.contains(&format!("# HELP {name} ")), "{name} has no help");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
        } else if !line.starts_with('#') {
            let name = line.split(['{', ' ']).next().unwrap();
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
            assert!(families.contains(family) || families.contains(name), "{line}");
        }
    }
    // As many plain names there as here.
    let list = |key: &str| metrics.0[key].as_array().unwrap().clone();
    let dotted: BTreeSet<String> = [list("Counters"), list("Gauges"), list("Samples")]
        .concat()
        .iter()
        .map(|metric| metric["Name"].as_str().unwrap().to_owned())
        .collect();
    let shown: BTreeSet<&str> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split(['{', ' ']).next().unwrap())
        .map(|name| ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name))
        .filter(|name| families.contains(*name))
        .collect();
    assert_eq!(dotted.len(), shown.len(), "{dotted:?}\n{shown:?}");
    // They move together, by the method's class where time is measured.
    call_once(daemon.rpc, "Node.List", &region()).ok();
    let (_, _, text) = daemon.http("GET /v1/metrics?format=prometheus");
    assert!(text.lines().any(|line| line == "holdfast_rpc_requests_total 1"), "{text}");
    assert!(text.contains("holdfast_rpc_call_duration_seconds_bucket{class="), "{text}");
    assert_eq!(daemon.metric("holdfast.rpc.request"), 1.0);
    // It can be turned off.
    let daemon = Daemon::start("[telemetry]\nprometheus = false");
    assert_eq!(daemon.http("GET /v1/metrics?format=prometheus").0, 415);
    assert_eq!(daemon.http("GET /v1/metrics").0, 200);
}

// R1.33: what happens on other connections reaches whoever monitors the log.
#[test]
fn a_monitor_sees_what_the_log_says() {
    let daemon = Daemon::start("");
    let mut monitor = Talk::dial(daemon.rpc, 5);
    monitor.peer.write(&msgpack::pack(&json!({ "Method": "Agent.Monitor" })));
    monitor.peer.write(&msgpack::pack(&json!({ "Region": "global", "LogLevel": "DEBUG", "PlainText": true })));
    assert_eq!(monitor.value(0), json!({ "Error": "" }));
    let bad = [6, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let deadline = patience();
    let mut all = String::new();
    while !all.contains("multiplex_v2 conn accept failed") {
        assert!(Instant::now() < deadline, "{all}");
        let mut peer = rig::Peer::dial(daemon.rpc);
        peer.write(&bad);
        peer.read_to_end();
        if monitor.pump(Instant::now() + Duration::from_millis(300), |heard| heard.values(0).len() > 1) {
            all.push_str(&monitor.value(0)["Payload"].to_string());
        }
    }
}

// R1.41, R1.42: frames in every order that is legal.
#[test]
fn odd_but_legal_frames_are_served() {
    let daemon = Daemon::start("");
    let call = [&[1][..], &call_bytes(3, "Status.Ping", &json!({}))].concat();
    let whole = |flags: u16, stream: u32| [frame(DATA, flags, stream, call.len() as u32), call.clone()].concat();
    let mut talk = Talk::dial(daemon.rpc, 6);
    // Descending ids, everything in one frame; empty frames; pings between.
    talk.peer.write(&[whole(SYN | FIN, 5), whole(SYN | FIN, 3), frame(PING, SYN | ACK, 0, 9), whole(SYN, 1)].concat());
    talk.peer.write(&[frame(DATA, 0, 1, 0), frame(WINDOW, 0, 1, 1), frame(DATA, FIN, 1, 0)].concat());
    for stream in [5, 3, 1] {
        assert_eq!(talk.reply(stream).seq, 3);
        assert_eq!(talk.item(stream), Item::Fin);
    }
    talk.until("pong", |heard| heard.pongs == [9]);
    // A header of two frames, a body of many.
    let mut talk = Talk::dial(daemon.rpc, 6);
    let stream = talk.open();
    for byte in call_bytes(1, "Status.Leader", &region()) {
        talk.say(stream, &[byte]);
    }
    assert_eq!(talk.reply(stream).ok(), daemon.rpc.to_string());
    assert_eq!(talk.heard.torn(), 0);
}
