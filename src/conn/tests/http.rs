//! HTTP: what is served, what is refused with which status, and when a connection ends.

use super::*;
use crate::conn::Protocol;
use crate::wire::http::HttpReply;
use crate::wire::http::HttpRequest;

fn http() -> Rig {
    Rig::http(limits(), &Security::default())
}

fn requests(rig: &Rig) -> Vec<HttpRequest> {
    let request = |event: &Event| match event {
        Event::Http(request) => Some(request.clone()),
        _ => None,
    };
    rig.events.iter().filter_map(request).collect()
}

fn ok(rig: &mut Rig, body: &str) {
    let headers = vec![("Content-Type", "text/plain".to_owned())];
    rig.conn.http_reply(rig.now, HttpReply { status: 200, headers, body: body.into() });
    rig.settle();
}

fn sent(rig: &mut Rig) -> String {
    String::from_utf8(std::mem::take(&mut rig.sent)).unwrap()
}

const GET: &[u8] = b"GET /v1/nodes?prefix=a&stale HTTP/1.1\r\nHost: a\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nVary: Accept-Encoding\r\nContent-Length: 2\r\n\r\nhi";

#[test]
fn a_connection_serves_one_request_after_another_however_they_are_cut() {
    let chunked =
        b"PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\nab\r\n1\r\nc\r\n0\r\nT: x\r\n\r\n";
    let long = b"\r\nPUT http://a:1/b?c HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nxyz";
    let all = [GET, chunked, long].concat();
    for at in 0..all.len() {
        let mut rig = http();
        rig.bytes(&all[..at]);
        let mut served = requests(&rig).len();
        for _ in 0..served {
            ok(&mut rig, "hi");
        }
        rig.bytes(&all[at..]);
        while requests(&rig).len() > served {
            served += 1;
            ok(&mut rig, "hi");
        }
        assert_eq!(rig.events[0], Event::Protocol(Protocol::Http));
        let got = requests(&rig);
        let short: Vec<_> =
            got.iter().map(|r| (r.method.as_str(), r.path.as_str(), r.query.as_str(), r.body.as_slice())).collect();
        let expected =
            [("GET", "/v1/nodes", "prefix=a&stale", &b""[..]), ("PUT", "/a", "", b"abc"), ("PUT", "/b", "c", b"xyz")];
        assert_eq!(short, expected, "cut at {at}");
        assert_eq!(sent(&mut rig), OK.repeat(3));
        assert!(!rig.is_closed());
    }
}

// Statuses by malformed request; each is told and ends the connection, and the text has no newline (http.md 1.2).
#[test]
fn what_cannot_be_served_is_refused_with_a_status() {
    let long = "x".repeat(5000);
    for (request, status, text) in [
        ("\u{16}\u{3}\u{1}", 400, "malformed request"),
        ("GET\r\n", 400, "malformed request"),
        ("GET / HTTP/1.1\r\nHost: a\r\nA b\r\n\r\n", 400, "malformed request"),
        ("GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", 400, "malformed request"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "only HTTP/1.0 and HTTP/1.1 are spoken here"),
        ("GET / HTTP/1.1\r\n\r\n", 400, "a request has one Host header"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "a request has one Host header"),
        ("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", 400, "bad Content-Length"),
        (
            "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
            "Transfer-Encoding beside Content-Length, or in HTTP/1.0",
        ),
        ("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501, "unsupported transfer coding"),
        ("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", 400, "malformed chunk"),
        ("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n", 413, "request body is too large"),
        ("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n", 413, "request body is too large"),
        ("PUT / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\n\r\n", 417, "unknown expectation"),
        (&format!("GET /{long}"), 431, "request head is too large"),
        (&format!("GET / HTTP/1.1\r\nHost: a\r\nA: {long}\r\n\r\n"), 431, "request head is too large"),
        (&format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(101)), 431, "too many header fields"),
    ] {
        for whole in [true, false] {
            let mut rig = http();
            if whole {
                rig.bytes(request.as_bytes());
            } else {
                request.bytes().for_each(|byte| {
                    if !rig.is_closed() {
                        rig.bytes(&[byte])
                    }
                });
            }
            assert_eq!(rig.causes(), [Cause::Http], "{request:?}");
            assert_eq!(rig.fields(), [format!("status={status} error={text:?}")]);
            assert!(rig.is_closed() && requests(&rig).is_empty());
            let sent = sent(&mut rig);
            assert!(sent.starts_with(&format!("HTTP/1.1 {status} ")), "{sent}");
            assert!(
                sent.contains("Content-Type: text/plain; charset=utf-8\r\n") && sent.contains("Connection: close\r\n")
            );
            assert!(sent.ends_with(&format!("\r\n\r\n{text}")), "{sent}");
        }
    }
}

#[test]
fn time_runs_out_for_heads_and_bodies_and_idle_connections() {
    for (request, seconds, text) in [
        ("", 60, ""),
        ("GET / HT", 10, "request timed out"),
        ("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc", 20, "request timed out"),
    ] {
        let mut rig = http();
        rig.bytes(request.as_bytes());
        rig.pass(Duration::from_millis(seconds * 1000 - 1));
        assert!(!rig.is_closed());
        rig.pass(Duration::from_millis(1));
        assert!(rig.is_closed());
        let sent = sent(&mut rig);
        assert_eq!((sent.starts_with("HTTP/1.1 408 "), sent.is_empty()), (!text.is_empty(), text.is_empty()));
    }
    // A request in hand has no limit here; then the idle time begins anew.
    let mut rig = http();
    rig.bytes(GET);
    rig.pass(Duration::from_secs(3600));
    ok(&mut rig, "hi");
    rig.pass(Duration::from_secs(59));
    assert!(!rig.is_closed());
    rig.pass(Duration::from_secs(1));
    assert!(rig.is_closed());
    assert_eq!(rig.causes(), []);
}

#[test]
fn a_connection_is_kept_when_both_sides_want_it() {
    for (version, header, kept, answer) in [
        ("1.1", "", true, ""),
        ("1.1", "Connection: Close\r\n", false, "Connection: close\r\n"),
        ("1.1", "Connection: foo, close\r\n", false, "Connection: close\r\n"),
        ("1.0", "", false, "Connection: close\r\n"),
        ("1.0", "Connection: keep-alive\r\n", true, "Connection: keep-alive\r\n"),
    ] {
        let mut rig = http();
        rig.bytes(format!("GET / HTTP/{version}\r\nHost: a\r\n{header}\r\n").as_bytes());
        ok(&mut rig, "hi");
        assert_eq!(rig.is_closed(), !kept, "{version} {header:?}");
        let sent = sent(&mut rig);
        assert!(sent.contains(answer) && (answer.is_empty() != sent.contains("Connection")), "{sent}");
    }
}

#[test]
fn head_and_no_content_have_no_body() {
    let mut rig = http();
    rig.bytes(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    ok(&mut rig, "hi");
    assert_eq!(sent(&mut rig), OK.trim_end_matches("hi"));
    rig.bytes(GET);
    rig.conn.http_reply(rig.now, HttpReply { status: 204, ..HttpReply::default() });
    rig.settle();
    assert_eq!(sent(&mut rig), "HTTP/1.1 204 No Content\r\nVary: Accept-Encoding\r\n\r\n");
}

#[test]
fn a_client_that_asks_first_is_told_to_go_on() {
    let mut rig = http();
    rig.bytes(b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    assert_eq!(sent(&mut rig), "HTTP/1.1 100 Continue\r\n\r\n");
    rig.bytes(b"ab");
    assert_eq!(requests(&rig)[0].body, b"ab");
    // The body came along: nothing is asked any more.
    let mut rig = http();
    rig.bytes(b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\na");
    assert_eq!(sent(&mut rig), "");
}

#[test]
fn a_half_closed_client_is_answered() {
    let mut rig = http();
    rig.bytes(GET);
    rig.eof();
    assert!(!rig.is_closed());
    ok(&mut rig, "hi");
    assert_eq!((sent(&mut rig).as_str(), rig.is_closed()), (OK, true));
    for cut in 0..GET.len() {
        let mut rig = http();
        rig.bytes(&GET[..cut]);
        rig.eof();
        assert!(rig.is_closed() && rig.causes().is_empty() && rig.sent.is_empty());
    }
    let mut rig = http();
    rig.bytes(GET);
    rig.conn.handle_failure(rig.now, "reset");
    rig.settle();
    assert!(rig.events.ends_with(&[Event::Gone(id(0)), Event::Closed]));
}

#[test]
fn a_drained_connection_ends_with_its_request() {
    let mut rig = http();
    rig.conn.drain(rig.now);
    rig.settle();
    assert!(rig.is_closed());
    let mut rig = http();
    rig.bytes(&GET[..9]);
    rig.conn.drain(rig.now);
    rig.bytes(&GET[9..]);
    ok(&mut rig, "hi");
    assert!(rig.is_closed() && sent(&mut rig).contains("Connection: close\r\n"));
}

#[test]
fn pipelined_requests_stop_the_reading() {
    let mut rig = http();
    rig.bytes(&GET.repeat(1000));
    assert_eq!(requests(&rig).len(), 1);
    assert!(!rig.conn.wants_read());
    for _ in 0..1000 {
        ok(&mut rig, "hi");
    }
    assert!(rig.conn.wants_read());
    assert_eq!(requests(&rig).len(), 1000);
}
