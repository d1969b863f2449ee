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
        ("GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n\tfolded\r\n\r\n", 400, "malformed request"),
        ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400, "malformed request"),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400, "malformed request"),
        ("GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n", 400, "malformed request"),
        ("GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "malformed request"),
        ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 505, "only HTTP/1.0 and HTTP/1.1 are spoken here"),
        ("GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "malformed request"),
        ("G(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "malformed request"),
        ("GET / HTTP/1.1\rHost: a\r\n\r\n", 400, "malformed request"),
        ("\0", 400, "malformed request"),
        ("GET v1/nodes HTTP/1.1\r\nHost: a\r\n\r\n", 400, "malformed request target"),
        ("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "malformed request target"),
        ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505, "only HTTP/1.0 and HTTP/1.1 are spoken here"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "only HTTP/1.0 and HTTP/1.1 are spoken here"),
        ("GET / HTTP/1.1\r\n\r\n", 400, "a request has one Host header"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "a request has one Host header"),
        ("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", 400, "bad Content-Length"),
        (
            "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
            "Transfer-Encoding beside Content-Length, or in HTTP/1.0",
        ),
        (
            "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\nGET /x",
            400,
            "Transfer-Encoding beside Content-Length, or in HTTP/1.0",
        ),
        (
            "PUT / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
            "Transfer-Encoding beside Content-Length, or in HTTP/1.0",
        ),
        (
            "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
            501,
            "unsupported transfer coding",
        ),
        ("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, "bad Content-Length"),
        ("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400, "bad Content-Length"),
        ("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501, "unsupported transfer coding"),
        ("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", 400, "malformed chunk"),
        ("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\nx", 400, "malformed chunk"),
        ("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", 400, "malformed chunk"),
        ("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxy\r\n", 400, "malformed chunk"),
        (
            "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
            413,
            "request body is too large",
        ),
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

// Whatever stands behind a request that cannot be read is not served, however it is cut (R1j "HTTP").
#[test]
fn nothing_behind_a_refused_request_is_served() {
    let smuggled = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    for at in 0..smuggled.len() {
        let mut rig = http();
        rig.bytes(&smuggled[..at]);
        rig.bytes(&[&smuggled[at..], GET].concat());
        assert!(requests(&rig).is_empty() && rig.is_closed());
        assert_eq!(sent(&mut rig).matches("HTTP/1.1 ").count(), 1);
    }
}

// R1j "HTTP": what the peer holds of a request that never ends is bounded by the caps, whatever is sent.
#[test]
fn endless_requests_hold_no_more_than_their_caps() {
    let chunk_head = "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (begin, again) in [
        ("GET /", "x"),
        ("GET / HTTP/1.1\r\n", "A: b\r\n"),
        ("GET / HTTP/1.1\r\nA: ", "y"),
        (chunk_head, "1\r\nx\r\n"),
        (chunk_head, "0"),
        (&format!("{chunk_head}1;"), "e"),
        (&format!("{chunk_head}0\r\nT: "), "t"),
        (&format!("{chunk_head}0\r\n"), "T: t\r\n"),
        ("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\n", "z"),
    ] {
        let mut rig = http();
        rig.bytes(begin.as_bytes());
        let mut count = 0;
        while !rig.is_closed() && requests(&rig).is_empty() {
            rig.bytes(again.as_bytes());
            assert!(rig.conn.held_bytes() <= 4096 + 1000, "{begin:?} {again:?}");
            count += 1;
            assert!(count < 40_000, "{begin:?} {again:?} goes on for ever");
        }
    }
    // Empty lines before a request are passed over, and do not make it live longer than an idle connection.
    let mut rig = http();
    for _ in 0..60 {
        rig.pass(Duration::from_secs(1));
        rig.bytes(&[b'\n'; 1000]);
        assert_eq!(rig.conn.held_bytes(), 0);
    }
    assert!(rig.is_closed());
}

// The body's time is one for the whole body, however slowly it drips.
#[test]
fn a_body_that_drips_ends_in_time() {
    let limits = Limits { http_body_timeout: Duration::from_millis(500), ..limits() };
    let mut rig = Rig::http(limits, &Security::default());
    rig.bytes(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n");
    for _ in 0..4 {
        rig.pass(Duration::from_millis(120));
        rig.bytes(b"x");
        assert!(!rig.is_closed());
    }
    rig.pass(Duration::from_millis(20));
    assert!(rig.is_closed() && sent(&mut rig).starts_with("HTTP/1.1 408 "));
}

// R1j "HTTP": whoever asks and does not read is answered so far, and then no further.
#[test]
fn answers_that_nobody_reads_are_bounded() {
    let limits = Limits { max_unsent_bytes: 100_000, ..limits() };
    for finished in [false, true] {
        let mut rig = Rig::http(limits.clone(), &Security::default());
        rig.conn.handle_bytes(rig.now, &GET.repeat(300));
        if finished {
            rig.conn.handle_eof(rig.now);
        }
        let (mut served, mut rounds, mut closed) = (0, 0, false);
        while served < 300 {
            while let Some(event) = rig.conn.poll_event() {
                if matches!(event, Event::Http(_)) {
                    served += 1;
                    rig.conn.http_reply(rig.now, HttpReply { status: 200, headers: vec![], body: vec![b'x'; 9000] });
                }
                closed |= event == Event::Closed;
            }
            let waiting = rig.conn.to_send().len();
            assert!(waiting <= 100_000 + 2 * 10_000, "{waiting} bytes wait");
            rig.conn.sent(rig.now, waiting);
            rounds += 1;
        }
        assert!(rounds > 20 && closed == finished, "{rounds}");
    }
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
