//! What a server does with HTTP requests over time, on the rig of the operators' tests: readers that do not read,
//! answers that are made elsewhere, streams that end before they begin.

#![allow(clippy::unwrap_used)]

use std::io::Read;
use std::time::Duration;

use super::http_stream::BLOCKED_MAX;
use super::port::{Input, Settings};
use super::rig::{Rig, settings};
use crate::base::id::ConnId;
use crate::base::metric::Id;
use crate::state::State;
use crate::wire::body::node_call::{NodeArgument, NodeRegisterRequest, NodeUpdateResponse};
use crate::wire::body::query::WriteRequest;
use crate::wire::msgpack::{Encoder, Raw};

const EVENTS: &str = "/v1/event/stream?topic=Node&index=0";

fn rig() -> Rig {
    let mut settings: Settings = settings();
    settings.conn.max_unsent_bytes = 1024 * 1024;
    Rig::with(settings, State::new(), Default::default())
}

fn get(rig: &mut Rig, conn: ConnId, target: &str, header: &str) {
    rig.say(conn, format!("GET {target} HTTP/1.1\r\nHost: a\r\n{header}\r\n").as_bytes());
}

fn heard(rig: &mut Rig, conn: ConnId) -> String {
    String::from_utf8_lossy(&rig.heard(conn)).into_owned()
}

/// Registers a node with so many bytes beside it: an event of that size.
fn register(rig: &mut Rig, number: u64, ballast_bytes: usize) {
    let mut e = Encoder::new();
    e.map(6);
    for (key, value) in [
        ("ID", format!("{number:08x}-0000-4000-8000-000000000000")),
        ("SecretID", format!("{number:08x}-0000-4000-8000-000000000001")),
        ("Datacenter", "dc1".to_owned()),
        ("Name", "n".repeat(ballast_bytes)),
        ("Status", "ready".to_owned()),
    ] {
        e.str(key);
        e.str(&value);
    }
    e.str("Attributes");
    e.map(1);
    e.str("nomad.version");
    e.str("2.0.5");
    let write = WriteRequest { region: "global".to_owned(), ..WriteRequest::default() };
    let node = NodeArgument { head: None, raw: Raw(e.out.into()) };
    let request = NodeRegisterRequest { node, write, ..NodeRegisterRequest::default() };
    let conn = rig.call("Node.Register", &request);
    let answer: Result<NodeUpdateResponse, String> = rig.answer(conn);
    assert_eq!(answer.map(|answer| answer.heartbeat_ttl > 0), Ok(true));
}

// Http notes, section 6: a write blocked for 40 s ends the stream.
#[test]
fn a_reader_that_reads_nothing_is_given_up() {
    let mut rig = rig();
    let (slow, quick) = (rig.dial_http(), rig.dial_http());
    for conn in [slow, quick] {
        get(&mut rig, conn, EVENTS, "");
        assert!(heard(&mut rig, conn).ends_with("3\r\n{}\n\r\n"));
    }
    rig.deaf = Some(slow);
    for number in 0..20 {
        register(&mut rig, number, 50_000);
    }
    assert!(rig.server.to_send(slow).len() < 400_000, "{}", rig.server.to_send(slow).len());
    assert!(rig.heard(quick).len() > 1_000_000);
    rig.wait(BLOCKED_MAX - Duration::from_millis(1));
    assert_eq!(rig.server.subscribers(), 2);
    rig.wait(Duration::from_millis(1));
    assert_eq!(rig.server.subscribers(), 1);
    assert!(rig.server.to_send(slow).is_empty(), "what it did not read is dropped");
    // The other one hears on; one that reads in between is not given up.
    rig.wait(Duration::from_secs(30));
    assert!(heard(&mut rig, quick).contains("{}\n"));
    rig.deaf = Some(quick);
    for number in 0..20 {
        register(&mut rig, 100 + number, 50_000);
    }
    for _ in 0..5 {
        rig.wait(BLOCKED_MAX - Duration::from_secs(1));
        let some = rig.server.to_send(quick).len().min(200_000);
        rig.server.sent(rig.now, quick, some);
        rig.feed(Input::Timeout);
    }
    assert_eq!(rig.server.subscribers(), 1);
}

// Large answers are made on the pool, and here when that has no room.
#[test]
fn large_answers_are_made_elsewhere() {
    let mut rig = rig();
    for number in 0..3 {
        register(&mut rig, number, 40_000);
    }
    let conn = rig.dial_http();
    for runs in [true, false] {
        rig.runs = runs;
        let overloads = rig.server.metrics().counter(Id::HandlerOverload);
        get(&mut rig, conn, "/v1/nodes", "");
        let plain = heard(&mut rig, conn);
        let (_, plain) = plain.split_once("\r\n\r\n").unwrap();
        assert!(plain.len() > 120_000 && plain.starts_with("[{") && plain.ends_with("}]"));
        get(&mut rig, conn, "/v1/nodes", "Accept-Encoding: gzip\r\n");
        let packed = rig.heard(conn);
        let at = packed.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        assert!(String::from_utf8_lossy(&packed[..at]).contains("\r\nContent-Encoding: gzip\r\n"));
        let mut text = String::new();
        flate2::read::GzDecoder::new(&packed[at..]).read_to_string(&mut text).unwrap();
        assert_eq!(text, plain);
        assert_eq!(rig.server.metrics().counter(Id::HandlerOverload), overloads);
    }
}

// R1.97: what came with the end of its client is not parked; what was is dropped at its end.
#[test]
fn whoever_has_gone_is_not_waited_for() {
    let mut rig = rig();
    register(&mut rig, 1, 10);
    let index = rig.root.load().nodes_index().0;
    let waits = format!("/v1/nodes?index={index}&wait=60s");
    let conn = rig.dial_http();
    get(&mut rig, conn, &waits, "");
    assert_eq!(heard(&mut rig, conn), "");
    rig.feed(Input::Eof { conn });
    let streamed = rig.dial_http();
    get(&mut rig, streamed, EVENTS, "");
    rig.feed(Input::Eof { conn: streamed });
    // A second request whose turn comes after the end of its client.
    let pipelined = rig.dial_http();
    rig.runs = false;
    let both = format!("GET /v1/regions HTTP/1.1\r\nHost: a\r\n\r\nGET {waits} HTTP/1.1\r\nHost: a\r\n\r\n");
    rig.say(pipelined, both.as_bytes());
    rig.feed(Input::Eof { conn: pipelined });
    assert_eq!(heard(&mut rig, pipelined).matches("HTTP/1.1 200").count(), 1);
    assert_eq!((rig.server.subscribers(), rig.server.parked.waiters(), rig.server.calls.len()), (0, 0, 0));
    assert_eq!(rig.server.link_count(), 1, "the one that registered");
}

#[test]
fn many_that_wait_for_the_same_get_the_same() {
    let mut rig = rig();
    register(&mut rig, 1, 10);
    let index = rig.root.load().nodes_index().0;
    let waits = format!("/v1/nodes?index={index}&wait=60s");
    let conns: Vec<ConnId> = (0..10).map(|_| rig.dial_http()).collect();
    for (nth, conn) in conns.iter().enumerate() {
        let (pretty, gzip) =
            (if nth % 2 == 0 { "" } else { "&pretty" }, if nth % 3 == 0 { "Accept-Encoding: gzip\r\n" } else { "" });
        get(&mut rig, *conn, &format!("{waits}{pretty}"), gzip);
    }
    register(&mut rig, 2, 10);
    let mut answers: Vec<Vec<u8>> = conns.iter().map(|conn| rig.heard(*conn)).collect();
    assert!(answers.iter().all(|answer| answer.starts_with(b"HTTP/1.1 200 OK\r\n")));
    answers.sort();
    answers.dedup();
    assert_eq!(answers.len(), 4, "plain and pretty, packed and not");
}

#[test]
fn a_stopping_server_ends_its_replies_in_order() {
    let mut rig = rig();
    let (events, parked) = (rig.dial_http(), rig.dial_http());
    get(&mut rig, events, EVENTS, "");
    register(&mut rig, 1, 10);
    let index = rig.root.load().nodes_index().0;
    get(&mut rig, parked, &format!("/v1/nodes?index={index}"), "");
    rig.feed(Input::Stop);
    assert!(heard(&mut rig, events).ends_with("0\r\n\r\n"));
    let answer = heard(&mut rig, parked);
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("\r\nConnection: close\r\n"), "{answer}");
    assert_eq!(rig.server.link_count(), 0);
}
