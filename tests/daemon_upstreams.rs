//! What a server says to another one that it passes calls on to, byte by byte, and what it makes of its end (R1.76 to
//! R1.78, R2.1, R2.2, R2.21, R3.5, R3.10, R3.14, R3.15).
//!
//! The other one is the test's own: a server of another region, which is reached without an election.

#![allow(clippy::unwrap_used, unreachable_pub)]

mod rig;

use std::net::{TcpListener, TcpStream};

use rig::heard::{ACK, FIN, Heard, Item, Stream, WINDOW, frame};
use rig::nodes::registration;
use rig::peer::Read1;
use rig::talk::call_once;
use std::time::Duration;

use rig::{Daemon, Peer, Talk, Value, eventually, json, msgpack, patience, quiet_for};

/// A daemon that knows a region `west`, the listener that is all of it, and the connection by which the daemon has asked
/// who else is there.
fn beside_west(more: &str) -> (Daemon, TcpListener, Talk) {
    let west = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = west.local_addr().unwrap();
    let daemon = Daemon::start(&format!("{more}\n[regions]\nwest = [\"{address}\"]\n"));
    let mut upstream = dialled(&west);
    let (head, _) = asked(&mut upstream, 1);
    assert_eq!(head["ServiceMethod"], "Status.Peers");
    answer(&mut upstream, 1, &head, "", &json!([address.to_string()]));
    daemon.until_metric("holdfast.pool.idle", 1.0);
    (daemon, west, upstream)
}

/// The next connection that the daemon makes: R1.76, 0x06 comes first.
#[track_caller]
fn dialled(west: &TcpListener) -> Talk {
    greeted(west.accept().unwrap().0)
}

#[track_caller]
fn greeted(socket: TcpStream) -> Talk {
    let mut peer = Peer::over(socket);
    let mut held = Vec::new();
    while held.is_empty() {
        match peer.read(patience()) {
            Read1::Bytes(bytes) => held = bytes,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(held.remove(0), 6);
    let mut talk = Talk::after(peer, 6);
    talk.heard.feed(&held);
    talk
}

/// The next call on a stream. Before the first one comes the stream's kind, a byte that is a number too.
#[track_caller]
fn asked(upstream: &mut Talk, stream: u32) -> (Value, Value) {
    let mut head = upstream.value(stream);
    if head == 1 {
        upstream.peer.write(&frame(WINDOW, ACK, stream, 0));
        head = upstream.value(stream);
    }
    (head, upstream.value(stream))
}

/// The calls of a method on a connection so far: their streams, heads and bodies.
fn calls(heard: &Heard, method: &str) -> Vec<(u32, Value, Value)> {
    let mut found = Vec::new();
    for stream in heard.streams.keys() {
        for two in heard.values(*stream).windows(2).filter(|two| two[0]["ServiceMethod"] == method) {
            found.push((*stream, two[0].clone(), two[1].clone()));
        }
    }
    found
}

fn answer(upstream: &mut Talk, stream: u32, head: &Value, error: &str, body: &Value) {
    let head = json!({ "Error": error, "Seq": head["Seq"], "ServiceMethod": head["ServiceMethod"] });
    upstream.say(stream, &[msgpack::pack(&head), msgpack::pack(body)].concat());
}

fn read(mark: u64) -> Value {
    json!({ "Region": "west", "AllowStale": true, "Mark": mark })
}

// R1.76: the kind of a stream is said once, and the stream is used again; R1.78: what nobody knows passes through.
#[test]
fn two_calls_are_one_connection_one_stream_and_one_kind() {
    let (daemon, _west, mut upstream) = beside_west("");
    let mut caller = Talk::dial(daemon.rpc, 6);
    let stream = caller.open();
    for mark in [1, 2] {
        caller.request(stream, "Node.List", &read(mark));
        let (head, body) = asked(&mut upstream, 1);
        assert_eq!(head["ServiceMethod"], "Node.List");
        assert_eq!((&body["Mark"], &body["Forwarded"], &body["Region"]), (&json!(mark), &json!(true), &json!("west")));
        answer(&mut upstream, 1, &head, "", &json!({ "Nodes": [], "Mark": mark, "Index": 5 }));
        let reply = caller.reply(stream);
        assert_eq!((reply.seq, reply.ok()["Mark"].as_u64()), (mark, Some(mark)));
    }
    let kinds = upstream.heard.values(1).into_iter().filter(|value| **value == 1).count();
    assert_eq!((upstream.heard.streams.len(), kinds, daemon.metric("holdfast.pool.dial")), (1, 1, 1.0));
    // R1.77: an error of over there has one prefix for this hop.
    caller.request(stream, "Node.List", &read(3));
    let (head, _) = asked(&mut upstream, 1);
    answer(&mut upstream, 1, &head, "no such thing", &json!({}));
    assert_eq!(caller.reply(stream).err(), "rpc error: no such thing");
}

// R1.77, R1.78: many callers, whose numbers are all the same, and who wait for one dial.
#[test]
fn many_calls_at_once_share_one_connection_and_are_not_mixed_up() {
    let (daemon, _west, mut upstream) = beside_west("");
    let mut callers: Vec<Talk> = (0..50).map(|_| Talk::dial(daemon.rpc, 6)).collect();
    let mut asked_of: Vec<(usize, u32, u64)> = Vec::new();
    for (at, caller) in callers.iter_mut().enumerate() {
        for nth in 0..4 {
            let (stream, mark) = (caller.open(), (at * 4 + nth) as u64);
            caller.request(stream, "Node.List", &read(mark));
            asked_of.push((at, stream, mark));
        }
    }
    // The first stream was asked something before.
    let is_whole = |(stream, said): (&u32, &Stream)| said.items.len() == if *stream == 1 { 5 } else { 3 };
    let whole = |heard: &Heard| heard.streams.iter().filter(|one| is_whole(*one)).count();
    upstream.until("all calls", |heard| whole(heard) == 200);
    assert_eq!(daemon.metric("holdfast.pool.dial"), 1.0);
    let streams: Vec<u32> = upstream.heard.streams.keys().copied().collect();
    // The last comes first.
    for stream in streams.into_iter().rev() {
        let (head, body) = asked(&mut upstream, stream);
        answer(&mut upstream, stream, &head, "", &json!({ "Nodes": [], "Mark": body["Mark"] }));
    }
    for (at, stream, mark) in asked_of {
        let reply = callers[at].reply(stream);
        assert_eq!(reply.seq, 1 + mark % 4, "the caller's own number");
        assert_eq!(reply.ok()["Mark"], mark);
    }
    daemon.until_metric("holdfast.forwarded", 0.0);
    // At most 64 streams are kept for later calls; the others were ended.
    upstream.until("the end of most streams", |heard| {
        heard.streams.values().filter(|said| said.items.contains(&Item::Fin)).count() == 200 - 64
    });
}

// R2.1, R2.2, R2.21, R3.10: the connection ends after a write was sent. It is not sent twice, and its caller knows that
// nobody knows.
#[test]
fn a_write_whose_answer_is_lost_is_sent_once_and_of_unknown_outcome() {
    let (daemon, west, upstream) = beside_west("");
    let mut held = Some(upstream);
    for how in ["eof", "reset", "stream"] {
        let mut caller = Talk::dial(daemon.rpc, 6);
        let stream = caller.open();
        let mut write = registration("aaaaaaaa-0001-0002-0003-00000000abcd");
        write["Region"] = "west".into();
        caller.request(stream, "Node.Register", &write);
        let mut upstream = held.take().unwrap_or_else(|| dialled(&west));
        let (head, _) = asked(&mut upstream, 1);
        assert_eq!(head["ServiceMethod"], "Node.Register");
        match how {
            "eof" => drop(upstream),
            "reset" => upstream.peer.abort(),
            _ => {
                upstream.peer.write(&frame(WINDOW, FIN, 1, 0));
                let text = caller.reply(stream).err();
                assert!(text.contains("outcome unknown"), "{how}: {text}");
                upstream.listen(Duration::from_millis(300));
                assert_eq!(calls(&upstream.heard, "Node.Register").len(), 1, "it was sent again");
                continue;
            }
        }
        let text = caller.reply(stream).err();
        assert!(text.contains("outcome unknown"), "{how}: {text}");
        west.set_nonblocking(true).unwrap();
        quiet_for(Duration::from_millis(300));
        assert!(west.accept().is_err(), "{how}: it was sent again");
        west.set_nonblocking(false).unwrap();
    }
}

// R2.1, R2.2: a read goes out again, to the other server of the region.
#[test]
fn a_read_whose_answer_is_lost_is_asked_again() {
    let west: Vec<TcpListener> = (0..2).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let named: Vec<String> = west.iter().map(|one| format!("\"{}\"", one.local_addr().unwrap())).collect();
    let daemon = Daemon::start(&format!("[regions]\nwest = [{}]\n", named.join(", ")));
    west.iter().for_each(|one| one.set_nonblocking(true).unwrap());
    let mut caller = Talk::dial(daemon.rpc, 6);
    let stream = caller.open();
    caller.request(stream, "Node.List", &read(1));
    let mut upstreams: Vec<(usize, Talk)> = Vec::new();
    // The connection on which the call is, and on which listener it came.
    let mut until_asked = |gone: Option<usize>| {
        eventually("the call", || {
            for (at, one) in west.iter().enumerate() {
                if let Ok((socket, _)) = one.accept() {
                    socket.set_nonblocking(false).unwrap();
                    upstreams.push((at, greeted(socket)));
                }
            }
            upstreams.iter_mut().for_each(|(_, talk)| talk.listen(Duration::ZERO));
            let has_it = |(at, talk): &(usize, Talk)| Some(*at) != gone && !calls(&talk.heard, "Node.List").is_empty();
            let found = upstreams.iter().position(has_it)?;
            Some(upstreams.remove(found))
        })
    };
    let (lost, first) = until_asked(None);
    first.peer.abort();
    let (_, mut second) = until_asked(Some(lost));
    let (at, head, body) = calls(&second.heard, "Node.List").remove(0);
    assert_eq!(body["Mark"], 1);
    second.peer.write(&frame(WINDOW, ACK, at, 0));
    answer(&mut second, at, &head, "", &json!({ "Nodes": [], "Mark": 1 }));
    assert_eq!(caller.reply(stream).ok()["Mark"], 1);
    assert_eq!(daemon.metric("holdfast.pool.retry"), 1.0);
}

// R3.5: what an idle connection brings decides whether it is used again.
#[test]
fn an_idle_connection_is_judged_by_what_it_brought() {
    let (daemon, west, mut upstream) = beside_west("");
    let mut caller = Talk::dial(daemon.rpc, 6);
    let stream = caller.open();
    let serve = |upstream: &mut Talk, at: u32, mark: u64| {
        let (head, body) = asked(upstream, at);
        assert_eq!(body["Mark"], mark);
        answer(upstream, at, &head, "", &json!({ "Nodes": [], "Mark": mark }));
    };
    caller.request(stream, "Node.List", &read(1));
    serve(&mut upstream, 1, 1);
    assert_eq!(caller.reply(stream).ok()["Mark"], 1);
    // A ping: the connection and its stream are used again.
    upstream.ping(77);
    caller.request(stream, "Node.List", &read(2));
    serve(&mut upstream, 1, 2);
    assert_eq!(caller.reply(stream).ok()["Mark"], 2);
    // The end of the stream: another one, on the same connection.
    upstream.peer.write(&frame(WINDOW, FIN, 1, 0));
    upstream.ping(78);
    caller.request(stream, "Node.List", &read(3));
    serve(&mut upstream, 3, 3);
    assert_eq!(caller.reply(stream).ok()["Mark"], 3);
    // A farewell: another connection.
    upstream.go_away(0);
    eventually("the end of the connection", || {
        (daemon.metrics().labelled("holdfast.pool.discard", "go_away") >= 1.0
            || daemon.metric("holdfast.pool.idle") == 0.0)
            .then_some(())
    });
    caller.request(stream, "Node.List", &read(4));
    let mut next = dialled(&west);
    serve(&mut next, 1, 4);
    assert_eq!(caller.reply(stream).ok()["Mark"], 4);
}

// R3.14, R3.15: an idle connection is given back, with a farewell.
#[test]
fn an_idle_connection_is_given_back_with_a_farewell() {
    let (daemon, _west, mut upstream) = beside_west("[rpc]\npool_idle_timeout = \"1s\"");
    let mut caller = Talk::dial(daemon.rpc, 6);
    let stream = caller.open();
    caller.request(stream, "Node.List", &read(1));
    let (head, _) = asked(&mut upstream, 1);
    answer(&mut upstream, 1, &head, "", &json!({ "Nodes": [] }));
    caller.reply(stream).ok();
    upstream.until_closed();
    assert_eq!(upstream.heard.go_aways, [0]);
    // Nothing was asked of a server that nobody can reach: its own region goes on.
    call_once(daemon.rpc, "Node.List", &json!({ "Region": "global" })).ok();
}
