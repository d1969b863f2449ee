//! The HTTP port from outside: one exchange after another, packed and in pieces, streams, archives, and what is no
//! request (requirements R1j "HTTP", R1.97, R1.98, R8.7; http notes, sections 1, 5 to 7).

#![allow(clippy::print_stderr)]
#![allow(clippy::unwrap_used)]

mod rig;

use std::time::{Duration, Instant};

use rig::http::{Answer, Web, request};
use rig::peer::Read1;
use rig::tls::{Authority, Files};
use rig::{Daemon, Peer, Setup, Talk, Value, eventually, json};
use ring::digest::{SHA256, digest};
use rustix::process::Signal;

const A: &str = "aaaaaaaa-1111-4111-8111-111111111111";
const GZIP: &str = "Accept-Encoding: gzip";
const CHUNKED: &str = "Transfer-Encoding: chunked";

/// Registers a node, which is an event.
fn register(daemon: &Daemon, name: &str) {
    let node = json!({
        "ID": A, "SecretID": "bbbbbbbb-1111-4111-8111-111111111111", "Datacenter": "dc1", "Name": name,
        "Status": "initializing", "HTTPAddr": "10.0.0.1:4646", "Attributes": { "nomad.version": "2.0.5" },
    });
    Talk::dial(daemon.rpc, 1).call(0, "Node.Register", &json!({ "Region": "global", "Node": node })).ok();
}

/// Writes a variable.
fn put(web: &mut Web, path: &str, value: &str) -> Answer {
    let body = json!({ "Items": { "k": value } }).to_string();
    // A fresh server has its first key a moment after it leads.
    eventually("a key to seal with", || {
        let answer = web.ask("PUT", &format!("/v1/var/{path}"), &[], body.as_bytes());
        let early = answer.text() == "key ring is not ready";
        assert!(early || answer.status == 200, "{}", answer.text());
        (!early).then_some(answer)
    })
}

fn index(answer: &Answer) -> u64 {
    answer.header("x-nomad-index").unwrap().parse().unwrap()
}

/// Waits until the daemon has closed a connection; gives what it said before.
fn closed(mut web: Web) -> String {
    String::from_utf8_lossy(&web.rest()).into_owned()
}

#[test]
fn one_connection_serves_one_request_after_another() {
    let daemon = Daemon::start("");
    let mut web = Web::dial(daemon.http);
    for _ in 0..3 {
        let answer = web.get("/v1/status/leader");
        assert_eq!((answer.status, answer.json()), (200, json!(daemon.rpc.to_string())));
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!((answer.header("vary"), answer.header("connection")), (Some("Accept-Encoding"), None));
        let date = answer.header("date").unwrap();
        assert!(date.len() == 29 && date.ends_with(" GMT"), "{date}");
    }
    // Errors are plain text without a newline, and keep the connection.
    for (method, target, status, text) in [
        ("DELETE", "/v1/regions", 405, "Invalid method"),
        ("GET", "/v1/nodes?index=x", 400, "Invalid index"),
        ("GET", "/v1/var/a?stale=perhaps", 400, "Expect `true` or `false` for `stale` query string parameter"),
        ("GET", "/nothing/here", 404, ""),
        ("GET", "/v1/nodes?prefix=%zz", 400, "invalid URL escape in query"),
        ("GET", "/v1/var/%zz", 400, "invalid URL escape in path"),
        ("GET", "/v1/var/%00", 404, "variable not found"),
    ] {
        let answer = web.ask(method, target, &[], b"");
        assert_eq!(answer.status, status, "{target}: {}", answer.text());
        assert!(text.is_empty() || answer.text() == text, "{target}: {}", answer.text());
    }
    // HEAD is not GET, and its answer has no body.
    web.peer.write(&[request("HEAD", "/v1/regions", &[], b""), request("GET", "/v1/regions", &[], b"")].concat());
    let head = web.answer_to("HEAD");
    assert_eq!((head.status, head.header("content-length")), (405, Some("14")));
    assert_eq!(web.answer().json(), json!(["global"]));
    // Pipelined, they are answered in order; the target may name the authority.
    let all = ["/v1/regions", "http://test/v1/status/leader?pretty", "/v1/status/peers", "/nothing"];
    web.peer.write(&all.map(|target| request("GET", target, &[], b"")).concat());
    assert_eq!(web.answer().json(), json!(["global"]));
    assert_eq!(web.answer().text(), format!("{:?}\n", daemon.rpc.to_string()));
    assert_eq!(web.answer().json(), json!([daemon.rpc.to_string()]));
    assert_eq!(web.answer().status, 404);
    // An old client's connection ends with its answer, unless it asks for more.
    web.peer.write(b"GET /v1/regions HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /v1/regions HTTP/1.0\r\n\r\n");
    assert_eq!(web.answer().header("connection"), Some("keep-alive"));
    assert_eq!(web.answer().header("connection"), Some("close"));
    assert_eq!(closed(web), "");
    // Two refusals of a request and 15 answers.
    let metrics = daemon.metrics();
    assert_eq!(metrics.labelled("holdfast.http.answer", "5xx"), 0.0);
    assert!(metrics.labelled("holdfast.http.answer", "4xx") >= 9.0);
    assert!(metrics.labelled("holdfast.http.answer", "2xx") >= 8.0);
}

#[test]
fn answers_are_packed_for_whoever_asks() {
    let daemon = Daemon::start("[variables]\nmax_size = \"512KiB\"");
    let mut web = Web::dial(daemon.http);
    put(&mut web, "small", "x");
    // Made and packed on another thread.
    let large: String = (0..40_000).map(|n| format!("{n},")).collect();
    put(&mut web, "large", &large);
    for target in ["/v1/var/small", "/v1/var/large", "/v1/var/large?pretty", "/v1/vars", "/v1/metrics", "/v1/regions"] {
        let plain = web.get(target);
        assert_eq!((plain.status, plain.header("content-encoding")), (200, None), "{target}");
        for asks in ["gzip", "deflate, GZIP;q=0.5", "br, gzip"] {
            let packed = web.ask("GET", target, &[&format!("Accept-Encoding: {asks}")], b"");
            assert_eq!(packed.header("content-encoding"), Some("gzip"), "{target} {asks}");
            assert_eq!(packed.header("vary"), Some("Accept-Encoding"));
            if target != "/v1/metrics" {
                assert_eq!(packed.unpacked(), plain.body, "{target}");
            }
            assert!(plain.body.len() < 1000 || packed.body.len() < plain.body.len() * 2 / 3, "{target}");
        }
        for asks in ["gzip;q=0", "identity", "x-gzipped"] {
            let answer = web.ask("GET", target, &[&format!("Accept-Encoding: {asks}")], b"");
            assert_eq!(answer.header("content-encoding"), None, "{target} {asks}");
        }
    }
    assert_eq!(web.get("/v1/var/large").json()["Items"]["k"], large);
    let error = web.ask("GET", "/v1/var/gone", &[GZIP], b"");
    assert_eq!((error.status, error.unpacked()), (404, b"variable not found".to_vec()));
    // Nothing is no body.
    let nothing = web.ask("DELETE", "/v1/var/small", &[GZIP], b"");
    assert_eq!((nothing.status, nothing.header("content-encoding")), (204, None));
    assert_eq!(web.get("/v1/regions").status, 200);
}

#[test]
fn bodies_come_in_chunks_and_after_a_word() {
    let daemon = Daemon::start("");
    let mut web = Web::dial(daemon.http);
    put(&mut web, "c", "whole");
    let body = json!({ "Items": { "k": "chunked" } }).to_string();
    let mut bytes = request("PUT", "/v1/var/c", &[CHUNKED], b"");
    for piece in body.as_bytes().chunks(7) {
        bytes.extend(format!("{:X};x=y\r\n", piece.len()).bytes().chain(piece.iter().copied()).chain(*b"\r\n"));
    }
    bytes.extend(b"0\r\nTrailer: x\r\n\r\n");
    web.peer.drip(&bytes);
    assert_eq!(web.answer().status, 200);
    assert_eq!(web.get("/v1/var/c").json()["Items"]["k"], "chunked");
    let head =
        format!("PUT /v1/var/e HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n", body.len());
    web.peer.write(head.as_bytes());
    assert_eq!(web.answer().status, 100);
    web.peer.write(body.as_bytes());
    assert_eq!(web.answer().status, 200);
}

// R1.97, R1.98: whoever waits is forgotten once it has gone, and answered when the server ends.
#[test]
fn a_parked_query_ends_with_its_client_and_with_the_server() {
    let mut daemon = Daemon::start("");
    let mut web = Web::dial(daemon.http);
    let waits = format!("/v1/var/w?index={}&wait=5m", index(&put(&mut web, "w", "1")));
    let park = |count: usize| {
        let waiters: Vec<Web> = (0..count)
            .map(|_| {
                let mut waiter = Web::dial(daemon.http);
                waiter.peer.write(&request("GET", &waits, &[], b""));
                waiter
            })
            .collect();
        daemon.until_metric("holdfast.parked", count as f64);
        waiters
    };
    for leave in [
        (|waiter: Web| drop(waiter)) as fn(Web),
        |waiter| waiter.peer.abort(),
        |mut waiter| {
            waiter.peer.finish();
            assert_eq!(closed(waiter), "");
        },
    ] {
        let waiters = park(20);
        let begun = Instant::now();
        waiters.into_iter().for_each(leave);
        daemon.until_metric("holdfast.parked", 0.0);
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
    // It came with its end at once: not parked at all.
    let mut waiter = Peer::dial(daemon.http);
    waiter.write(&request("GET", &waits, &[], b""));
    waiter.finish();
    assert_eq!(waiter.read_to_end(), b"");
    // A change answers all, with one body.
    let waiters = park(20);
    let written = index(&put(&mut web, "w", "2"));
    for mut waiter in waiters {
        let answer = waiter.answer();
        assert_eq!((answer.status, index(&answer), &answer.json()["Items"]["k"]), (200, written, &json!("2")));
    }
    let waits = format!("/v1/var/w?index={written}&wait=5m");
    let mut waiter = Web::dial(daemon.http);
    waiter.peer.write(&request("GET", &waits, &[], b""));
    daemon.until_metric("holdfast.parked", 1.0);
    daemon.signal(Signal::TERM);
    let answer = waiter.answer();
    assert_eq!((answer.status, index(&answer), answer.header("connection")), (200, written, Some("close")));
    assert_eq!(daemon.exit().code(), Some(0));
}

#[test]
fn a_client_that_has_closed_its_half_is_answered() {
    let daemon = Daemon::start("");
    let mut peer = Peer::dial(daemon.http);
    let both = [request("GET", "/v1/regions", &[], b""), request("GET", "/v1/status/peers", &[], b"")].concat();
    peer.write(&both);
    peer.finish();
    let said = String::from_utf8(peer.read_to_end()).unwrap();
    assert_eq!(said.matches("HTTP/1.1 200 OK").count(), 2, "{said}");
}

#[test]
fn events_come_as_lines() {
    let mut daemon = Daemon::start("");
    let mut web = Web::dial(daemon.http);
    let target = "/v1/event/stream?topic=Node";
    web.peer.write(&request("GET", target, &[GZIP], b""));
    let head = web.head();
    assert_eq!((head.status, head.header("content-type")), (200, Some("application/json")));
    assert_eq!((head.header("transfer-encoding"), head.header("content-encoding")), (Some("chunked"), None));
    assert_eq!(head.header("cache-control"), Some("no-cache"));
    assert_eq!(web.line().as_deref(), Some("{}"));
    register(&daemon, "first");
    let event = web.document().unwrap();
    assert_eq!((&event["Events"][0]["Topic"], &event["Events"][0]["Key"]), (&json!("Node"), &json!(A)));
    // Resumed by index, by an old client: until the end of the connection.
    let old = &mut Peer::dial(daemon.http);
    old.write(format!("GET {target}&index={} HTTP/1.0\r\n\r\n", event["Index"]).as_bytes());
    let mut heard = Vec::new();
    while !String::from_utf8_lossy(&heard).contains("NodeRegistration") {
        match old.read(rig::patience()) {
            Read1::Bytes(bytes) => heard.extend(bytes),
            other => panic!("{other:?} after {:?}", String::from_utf8_lossy(&heard)),
        }
    }
    assert!(!String::from_utf8_lossy(&heard).contains("chunked"));
    // What is decided before the beginning has a status.
    let mut other = Web::dial(daemon.http);
    for (target, status, text) in [
        ("/v1/event/stream?topic=a:b:c", 400, "Invalid topic query: "),
        ("/v1/event/stream?index=x", 400, "Unable to parse index: "),
    ] {
        let answer = other.get(target);
        assert!(answer.status == status && answer.text().starts_with(text), "{answer:?}");
    }
    assert_eq!(other.ask("POST", target, &[], b"").status, 405);
    // A reader that goes, or says that it will say no more, is seen to.
    daemon.until_metric("holdfast.events.subscribers", 2.0);
    for finish in [false, true] {
        let mut gone = Web::dial(daemon.http);
        gone.peer.write(&request("GET", target, &[], b""));
        assert_eq!(gone.head().status, 200);
        daemon.until_metric("holdfast.events.subscribers", 3.0);
        if finish {
            gone.peer.finish();
            let _ = gone.rest();
        } else {
            drop(gone);
        }
        daemon.until_metric("holdfast.events.subscribers", 2.0);
    }
    // The end of the server is the end of the reply.
    daemon.signal(Signal::TERM);
    assert_eq!(web.document(), None);
    assert_eq!(daemon.exit().code(), Some(0));
}

#[test]
fn log_lines_come_plain_and_in_frames() {
    let daemon = Daemon::start("");
    let mut plain = Web::dial(daemon.http);
    plain.peer.write(&request("GET", "/v1/agent/monitor?log_level=info&plain=true", &[], b""));
    let head = plain.head();
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/plain")));
    let mut framed = Web::dial(daemon.http);
    framed.peer.write(&request("GET", "/v1/agent/monitor?log_level=info", &[], b""));
    let head = framed.head();
    assert_eq!((head.status, head.header("content-type")), (200, Some("application/json")));
    // Nothing happens: a sign of life each second.
    assert_eq!(framed.chunk().as_deref(), Some(&b"{}"[..]));
    daemon.reload();
    while !plain.line().unwrap().contains("configuration reloaded") {}
    loop {
        let chunk = framed.chunk().unwrap();
        if chunk != b"{}" {
            let frame: Value = serde_json::from_slice(&chunk).unwrap();
            assert_eq!(frame["FileEvent"], "log");
            assert!(frame["Data"].as_str().is_some_and(|data| !data.is_empty()));
            break;
        }
    }
    let mut other = Web::dial(daemon.http);
    for (target, status, text) in [
        ("/v1/agent/monitor?log_level=bogus", 400, "Unknown log level: bogus"),
        ("/v1/agent/monitor?plain=perhaps", 400, "Unknown option for plain: "),
        (&format!("/v1/agent/monitor?node_id={A}"), 404, ""),
        ("/v1/agent/monitor?server_id=zz", 400, "unknown Nomad server zz"),
    ] {
        let answer = other.get(target);
        assert!(answer.status == status && answer.text().starts_with(text), "{target}: {answer:?}");
    }
}

// R1.95
#[test]
fn a_snapshot_is_saved_and_restored() {
    let daemon = Daemon::start("");
    let mut web = Web::dial(daemon.http);
    put(&mut web, "kept", "before");
    let saved = web.get("/v1/operator/snapshot");
    assert_eq!((saved.status, saved.header("content-type")), (200, Some("application/x-gzip")));
    assert_eq!(saved.header("transfer-encoding"), Some("chunked"));
    let sum = saved.header("digest").unwrap().strip_prefix("sha-256=").unwrap().to_owned();
    let mut expected = String::new();
    holdfast::wire::json::push_base64(digest(&SHA256, &saved.body).as_ref(), &mut expected);
    assert_eq!(sum, expected);
    put(&mut web, "kept", "after");
    // Damage is told, and has changed nothing.
    let mut damaged = saved.body.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    for (archive, text) in [
        (&damaged[..], "failed to restore from snapshot: "),
        (&saved.body[..middle], "failed to restore from snapshot: "),
        (b"garbage", "failed to restore from snapshot: "),
    ] {
        let answer = web.ask("PUT", "/v1/operator/snapshot", &[], archive);
        assert!(answer.status == 500 && answer.text().starts_with(text), "{answer:?}");
        assert_eq!(web.get("/v1/var/kept").json()["Items"]["k"], "after");
    }
    // In chunks, after a word.
    web.peer.write(&request("PUT", "/v1/operator/snapshot", &[CHUNKED, "Expect: 100-continue"], b""));
    assert_eq!(web.head().status, 100);
    for piece in saved.body.chunks(100) {
        web.peer.write(&[format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat());
    }
    web.peer.write(b"0\r\n\r\n");
    let answer = web.answer();
    assert_eq!((answer.status, answer.body.len()), (200, 0), "{}", answer.text());
    assert_eq!(web.get("/v1/var/kept").json()["Items"]["k"], "before");
    // Whoever goes away in the middle of it leaves the place to the next.
    let mut gone = Web::dial(daemon.http);
    let asks = ["Content-Length: 1000000", "Expect: 100-continue"];
    gone.peer.write(&request("PUT", "/v1/operator/snapshot", &asks, b""));
    assert_eq!(gone.answer().status, 100);
    gone.peer.write(&saved.body);
    let answer = web.ask("PUT", "/v1/operator/snapshot", &[], &saved.body);
    assert_eq!((answer.status, answer.text().as_str()), (429, "another snapshot is being restored"));
    drop(gone);
    eventually("it is free again", || {
        let mut web = Web::dial(daemon.http);
        (web.ask("PUT", "/v1/operator/snapshot", &[], &saved.body).status == 200).then_some(())
    });
}

#[test]
fn all_of_it_goes_through_tls() {
    let authority = Authority::new();
    let setup = Setup::new("");
    let files = Files::write(setup.folder(), &authority, &authority.issue("server.global.nomad", 1));
    let daemon = setup.config(&files.table("").replace("rpc = true", "http = true")).start();
    let dial = || Web::over(Peer::dial(daemon.http).shake_hands(&authority.client(None), "localhost").unwrap());
    let mut web = dial();
    let large = "0123456789".repeat(6_000);
    put(&mut web, "large", &large);
    assert_eq!(web.get("/v1/var/large").json()["Items"]["k"], large.as_str());
    let packed = web.ask("GET", "/v1/var/large", &[GZIP], b"");
    assert!(packed.body.len() < 10_000 && packed.unpacked().len() > 60_000);
    let saved = web.get("/v1/operator/snapshot");
    assert_eq!(web.ask("PUT", "/v1/operator/snapshot", &[], &saved.body).status, 200);
    let mut events = dial();
    events.peer.write(&request("GET", "/v1/event/stream?topic=Node&index=0", &[], b""));
    assert_eq!((events.head().status, events.line().as_deref()), (200, Some("{}")));
    register(&daemon, "over-tls");
    assert_eq!(events.document().unwrap()["Events"][0]["Key"], A);
}

/// What is no request, and the status it is refused with.
fn malformed() -> Vec<(&'static str, Vec<u8>, u16)> {
    let get = |rest: &str| format!("GET /v1/regions HTTP/1.1\r\nHost: a\r\n{rest}").into_bytes();
    let put = |rest: &str| format!("PUT /v1/var/a HTTP/1.1\r\nHost: a\r\n{rest}").into_bytes();
    let second = "GET /v1/regions HTTP/1.1\r\nHost: a\r\n\r\n";
    vec![
        ("CL and TE", put(&format!("Content-Length: 4\r\n{CHUNKED}\r\n\r\n0\r\n\r\n{second}")), 400),
        ("TE and CL", put(&format!("{CHUNKED}\r\nContent-Length: 4\r\n\r\n0\r\n\r\n{second}")), 400),
        ("a folded field", get(&format!("A: b\r\n c\r\n\r\n{second}")), 400),
        ("a bad chunk", put(&format!("{CHUNKED}\r\n\r\nz\r\n{second}")), 400),
        ("a negative chunk", put(&format!("{CHUNKED}\r\n\r\n-1\r\n{second}")), 400),
        ("a chunk of 2^64", put(&format!("{CHUNKED}\r\n\r\n10000000000000000\r\n")), 413),
        ("a chunk of zeros", put(&format!("{CHUNKED}\r\n\r\n{}", "0".repeat(1000))), 413),
        ("endless extensions", put(&format!("{CHUNKED}\r\n\r\n1;{}", "x".repeat(100_000))), 413),
        ("an endless trailer", put(&format!("{CHUNKED}\r\n\r\n0\r\n{}", "T: x\r\n".repeat(20_000))), 413),
        ("a huge body", put("Content-Length: 99999999999\r\n\r\n"), 413),
        ("a length of letters", put("Content-Length: ten\r\n\r\n"), 400),
        ("two lengths", put("Content-Length: 1\r\nContent-Length: 2\r\n\r\n"), 400),
        ("an unknown coding", put("Transfer-Encoding: gzip\r\n\r\n"), 501),
        ("a huge head", get(&format!("A: {}\r\n\r\n", "b".repeat(1 << 20))), 431),
        ("a huge target", format!("GET /{} HTTP/1.1\r\n\r\n", "b".repeat(1 << 20)).into_bytes(), 431),
        ("too many fields", get(&format!("{}\r\n", "A: b\r\n".repeat(200))), 431),
        ("a NUL in a field", get("A: b\0c\r\n\r\n"), 400),
        ("a NUL in the target", b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), 400),
        ("a space before the colon", get("A : b\r\n\r\n"), 400),
        ("no host", b"GET / HTTP/1.1\r\n\r\n".to_vec(), 400),
        ("two hosts", get("Host: b\r\n\r\n"), 400),
        ("no path", b"GET v1/regions HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), 400),
        ("an authority", b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), 400),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), 505),
        ("HTTP/0.9", b"GET /\r\n".to_vec(), 400),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc".to_vec(), 400),
        ("an expectation", put("Expect: tea\r\nContent-Length: 1\r\n\r\nx"), 417),
        (
            "a bad upload",
            format!("PUT /v1/operator/snapshot HTTP/1.1\r\nHost: a\r\n{CHUNKED}\r\n\r\n3\r\nabcd\r\n").into_bytes(),
            400,
        ),
    ]
}

// R1j "HTTP", R6.9: each is refused with its status and closes its own connection; what stands behind it is not
// served, another connection goes on, and no memory is kept.
#[test]
fn what_is_no_request_harms_nobody_else() {
    let daemon = Daemon::start("");
    let mut events = Web::dial(daemon.http);
    events.peer.write(&request("GET", "/v1/event/stream?topic=Node", &[], b""));
    assert_eq!((events.head().status, events.line().as_deref()), (200, Some("{}")));
    let mut web = Web::dial(daemon.http);
    let cases = malformed();
    let round = || {
        for (what, bytes, status) in &cases {
            let mut peer = Peer::dial(daemon.http);
            // It may close before all was written: that is no error of ours.
            let _ = peer.try_write(bytes);
            let said = String::from_utf8_lossy(&peer.read_to_end()).into_owned();
            assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{what}: {said}");
            assert!(!said.contains("\r\n\r\nHTTP/1.1"), "{what}: {said}");
            assert!(said.contains("\r\nConnection: close\r\n"), "{what}: {said}");
            assert!(said.contains("\r\nContent-Type: text/plain; charset=utf-8\r\n"), "{what}: {said}");
            assert!(!said.ends_with('\n'), "{what}: {said}");
        }
    };
    for _ in 0..3 {
        round();
    }
    let before = daemon.resident();
    for _ in 0..30 {
        round();
        assert_eq!(web.get("/v1/regions").status, 200);
    }
    let grown = daemon.resident().saturating_sub(before);
    eprintln!("memory rose by {} KiB", grown / 1024);
    assert!(grown < 4 << 20, "memory rose by {grown} bytes");
    register(&daemon, "unharmed");
    assert_eq!(events.document().unwrap()["Events"][0]["Key"], A);
    let metrics = daemon.metrics();
    assert_eq!(metrics.labelled("holdfast.connections", "http"), 3.0);
}

// A head that does not come ends in time; whoever waits beside it is served.
#[test]
fn a_slow_head_is_told_and_closed() {
    let daemon = Daemon::start("");
    let mut slow = Web::dial(daemon.http);
    slow.peer.write(b"GET /v1/regions HTTP/1.1\r\nHo");
    let begun = Instant::now();
    assert_eq!(Web::dial(daemon.http).get("/v1/regions").status, 200);
    let answer = slow.answer();
    assert_eq!((answer.status, answer.text().as_str()), (408, "request timed out"));
    assert_eq!(answer.header("connection"), Some("close"));
    let took = begun.elapsed();
    assert!(took > Duration::from_secs(9) && took < Duration::from_secs(30), "{took:?}");
    assert_eq!(closed(slow), "");
}

// R8.7
#[test]
fn without_a_leader_the_answer_says_when_to_ask_again() {
    let setup = Setup::new("[cluster]\nbootstrap_expect = 3\n[rpc]\nhold_timeout = \"200ms\"").without_leader();
    let daemon = setup.start();
    let answer = Web::dial(daemon.http).get("/v1/nodes");
    assert_eq!((answer.status, answer.text().as_str()), (500, "No cluster leader"));
    let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=10).contains(&seconds));
}
