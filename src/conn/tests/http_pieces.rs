//! HTTP: replies that come in pieces, and uploads.

use super::*;
use crate::conn::http::UPLOAD_WINDOW_BYTES;
use crate::conn::outbox::OUTBOX_BYTES;
use crate::wire::http::HttpReply;
use proptest::prelude::*;

const GET: &[u8] = b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n";
const BEGUN: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nVary: Accept-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n";
const CHUNKED: &str = "PUT /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

fn http() -> Rig {
    Rig::http(limits(), &Security::default())
}

fn after_request(bytes: &[u8]) -> Rig {
    let mut rig = http();
    rig.bytes(bytes);
    assert_eq!(requests(&rig), 1);
    rig
}

fn requests(rig: &Rig) -> usize {
    rig.events.iter().filter(|event| matches!(event, Event::Http(_))).count()
}

fn begin(rig: &mut Rig) {
    rig.conn.http_begin(rig.now, 200, &[("Content-Type", "text/plain".to_owned())]);
    rig.settle();
}

fn piece(rig: &mut Rig, bytes: &[u8]) {
    assert_eq!(rig.conn.send_bytes(rig.now, id(0), bytes), bytes.len());
    rig.settle();
}

fn end(rig: &mut Rig) {
    rig.conn.finish(rig.now, id(0));
    rig.settle();
}

fn answer(rig: &mut Rig, status: u16) {
    rig.conn.http_reply(rig.now, HttpReply { status, ..HttpReply::default() });
    rig.settle();
}

fn sent(rig: &mut Rig) -> String {
    String::from_utf8(std::mem::take(&mut rig.sent)).unwrap()
}

/// What came of an upload, and whether it is whole.
fn uploaded(rig: &Rig) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    for event in &rig.events {
        if let Event::Bytes { stream: StreamId(0), bytes } = event {
            body.extend_from_slice(bytes);
        }
    }
    (body, rig.events.contains(&Event::Finished(id(0))))
}

#[test]
fn a_reply_in_pieces_is_chunked_and_keeps_the_connection() {
    let mut rig = after_request(GET);
    begin(&mut rig);
    assert_eq!(sent(&mut rig), BEGUN);
    piece(&mut rig, b"hello");
    piece(&mut rig, b"");
    piece(&mut rig, &[b'x'; 17]);
    assert_eq!(sent(&mut rig), format!("5\r\nhello\r\n11\r\n{}\r\n", "x".repeat(17)));
    // Another answer to the same request is not sent, and the next request waits its turn.
    answer(&mut rig, 500);
    begin(&mut rig);
    rig.bytes(GET);
    assert_eq!((sent(&mut rig).as_str(), requests(&rig)), ("", 1));
    end(&mut rig);
    assert_eq!((sent(&mut rig).as_str(), requests(&rig), rig.is_closed()), ("0\r\n\r\n", 2, false));
    // Nothing is sent without a reply that was begun.
    assert_eq!((rig.conn.send_bytes(rig.now, id(0), b"x"), rig.conn.send_credit(id(0))), (0, 0));
    end(&mut rig);
    answer(&mut rig, 200);
    assert!(sent(&mut rig).starts_with("HTTP/1.1 200 OK\r\n"));
}

#[test]
fn the_end_of_a_reply_in_pieces_is_told_in_the_clients_own_way() {
    for (request, kept, head, tail) in [
        ("GET / HTTP/1.0\r\n\r\n", false, "Connection: close", "abc"),
        ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", false, "Connection: close", "abc"),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", false, "Connection: close", "3\r\nabc\r\n0\r\n\r\n"),
        ("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", true, "Transfer-Encoding: chunked", ""),
    ] {
        let mut rig = after_request(request.as_bytes());
        begin(&mut rig);
        piece(&mut rig, b"abc");
        end(&mut rig);
        assert_eq!(rig.is_closed(), !kept, "{request}");
        let sent = sent(&mut rig);
        let (before, body) = sent.split_once("\r\n\r\n").unwrap();
        assert!(before.contains(head), "{sent}");
        assert_eq!((body, before.contains("chunked")), (tail, request.contains("1.1")), "{sent}");
    }
}

#[test]
fn a_reader_that_does_not_read_is_not_buffered_for() {
    let mut rig = after_request(GET);
    rig.conn.http_begin(rig.now, 200, &[]);
    let big = vec![b'x'; OUTBOX_BYTES];
    let mut taken = 0;
    for _ in 0..10 {
        taken += rig.conn.send_bytes(rig.now, id(0), &big);
    }
    assert!(taken < OUTBOX_BYTES && rig.conn.to_send().len() < OUTBOX_BYTES + 100);
    assert_eq!(rig.conn.send_credit(id(0)), 0);
    rig.take_events();
    assert!(!rig.events.contains(&Event::Writable(id(0))));
    rig.conn.sent(rig.now, OUTBOX_BYTES / 2 + 100);
    rig.take_events();
    assert_eq!(rig.events.iter().filter(|event| **event == Event::Writable(id(0))).count(), 1);
    assert!(rig.conn.send_credit(id(0)) > 0);
}

// R1.97 for HTTP: that the peer sends no more can be asked; what is done about it is the owner's affair.
#[test]
fn a_client_that_goes_while_a_reply_comes_is_noticed() {
    let mut rig = after_request(GET);
    begin(&mut rig);
    assert!(!rig.conn.peer_finished());
    rig.eof();
    assert!(rig.conn.peer_finished() && !rig.is_closed());
    piece(&mut rig, b"abc");
    end(&mut rig);
    assert!(rig.is_closed() && sent(&mut rig).ends_with("3\r\nabc\r\n0\r\n\r\n"));

    let mut rig = after_request(GET);
    begin(&mut rig);
    rig.conn.handle_failure(rig.now, "reset");
    rig.settle();
    assert!(rig.events.ends_with(&[Event::Gone(id(0)), Event::Closed]));

    // Broken off: no last chunk says that it is whole.
    let mut rig = after_request(GET);
    begin(&mut rig);
    piece(&mut rig, b"abc");
    rig.conn.http_abort(rig.now);
    rig.settle();
    assert!(rig.is_closed() && sent(&mut rig).ends_with("\r\n3\r\nabc\r\n"));
}

#[test]
fn a_drained_connection_ends_after_the_reply_that_comes() {
    for drained_before in [true, false] {
        let mut rig = after_request(GET);
        if drained_before {
            rig.conn.drain(rig.now);
        }
        begin(&mut rig);
        rig.conn.drain(rig.now);
        piece(&mut rig, b"abc");
        assert!(!rig.is_closed());
        end(&mut rig);
        assert!(rig.is_closed());
        let sent = sent(&mut rig);
        assert_eq!(sent.contains("Connection: close"), drained_before, "{sent}");
        assert!(sent.ends_with("0\r\n\r\n"));
    }
}

#[test]
fn an_upload_is_given_as_it_comes() {
    let length = "PUT /upload?x=y HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    let chunked = format!("{CHUNKED}2;a\r\nhe\r\n3\r\nllo\r\n0\r\nT: x\r\n\r\n");
    for request in [length, &chunked] {
        for cut in 0..=request.len() {
            let mut rig = http();
            rig.bytes(&request.as_bytes()[..cut]);
            rig.bytes(&request.as_bytes()[cut..]);
            rig.bytes(GET);
            let head = rig.events.iter().find_map(|event| match event {
                Event::Http(request) => Some((request.upload, request.path.clone(), request.body.clone())),
                _ => None,
            });
            assert_eq!(head, Some((true, "/upload".to_owned(), Vec::new())));
            assert_eq!((uploaded(&rig), requests(&rig)), ((b"hello".to_vec(), true), 1), "cut at {cut}");
            answer(&mut rig, 200);
            assert_eq!((requests(&rig), rig.is_closed()), (2, false));
        }
    }
    // One without a body is one that is whole; another method or path is no upload.
    let mut rig = http();
    rig.bytes(b"PUT /upload HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(uploaded(&rig), (Vec::new(), true));
    for other in ["POST /upload", "PUT /upload/", "PUT /Upload"] {
        let mut rig = http();
        rig.bytes(format!("{other} HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n").as_bytes());
        assert_eq!((requests(&rig), rig.is_closed()), (0, true), "{other}");
    }
}

#[test]
fn an_upload_of_any_size_is_held_back_by_its_owner() {
    let mut rig = http();
    rig.bytes(CHUNKED.as_bytes());
    let chunk = [format!("{:x}\r\n", 30_000).as_bytes(), &[b'x'; 30_000], b"\r\n"].concat();
    let (mut given, mut fed, mut most) = (0, 0, 0);
    while fed < 100 {
        // As the event loop does: nothing is read that is not wanted.
        while rig.conn.wants_read() && fed < 100 {
            rig.bytes(&chunk);
            fed += 1;
        }
        let (body, _) = uploaded(&rig);
        rig.events.retain(|event| !matches!(event, Event::Bytes { .. }));
        assert!(!body.is_empty() && body.len() <= UPLOAD_WINDOW_BYTES);
        most = most.max(rig.conn.held_bytes());
        // Time does not run while the owner is slow.
        if !rig.conn.wants_read() {
            rig.pass(Duration::from_secs(1000));
        }
        given += body.len();
        rig.conn.consumed(rig.now, id(0), body.len());
        rig.settle();
    }
    assert!(most <= 2 * UPLOAD_WINDOW_BYTES, "{most}");
    rig.bytes(b"0\r\n\r\n");
    while !uploaded(&rig).1 {
        rig.conn.consumed(rig.now, id(0), UPLOAD_WINDOW_BYTES);
        rig.settle();
    }
    assert_eq!(given + uploaded(&rig).0.len(), 100 * 30_000);
    answer(&mut rig, 200);
    assert!(!rig.is_closed());
}

#[test]
fn an_upload_that_does_not_come_ends_in_time() {
    let mut rig = http();
    rig.bytes(CHUNKED.as_bytes());
    for _ in 0..10 {
        rig.pass(Duration::from_secs(19));
        rig.bytes(b"1\r\nx\r\n");
    }
    // What is no data does not count.
    rig.pass(Duration::from_secs(19));
    rig.bytes(b"1;");
    rig.pass(Duration::from_millis(999));
    assert!(!rig.is_closed());
    rig.pass(Duration::from_millis(1));
    assert!(rig.is_closed() && rig.events.contains(&Event::Gone(id(0))));
    assert!(sent(&mut rig).starts_with("HTTP/1.1 408 "));
}

#[test]
fn an_upload_that_breaks_is_gone() {
    for (rest, status) in [("x\r\n", "400"), ("3\r\nabcd", "400"), ("00000000000000000\r\n", "413")] {
        let mut rig = http();
        rig.bytes(CHUNKED.as_bytes());
        rig.bytes(rest.as_bytes());
        assert!(rig.is_closed() && rig.events.contains(&Event::Gone(id(0))), "{rest}");
        assert!(sent(&mut rig).starts_with(&format!("HTTP/1.1 {status} ")), "{rest}");
    }
    let mut rig = http();
    rig.bytes(CHUNKED.as_bytes());
    rig.eof();
    assert!(rig.events.ends_with(&[Event::Gone(id(0)), Event::Closed]) && rig.sent.is_empty());
    // All of it came before the end: it waits for its owner.
    let mut rig = http();
    rig.bytes(
        format!("PUT /upload HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", UPLOAD_WINDOW_BYTES + 5).as_bytes(),
    );
    rig.bytes(&vec![b'x'; UPLOAD_WINDOW_BYTES + 5]);
    rig.eof();
    assert!(!rig.is_closed() && !uploaded(&rig).1);
    rig.conn.consumed(rig.now, id(0), UPLOAD_WINDOW_BYTES);
    rig.settle();
    assert_eq!((uploaded(&rig).0.len(), uploaded(&rig).1), (UPLOAD_WINDOW_BYTES + 5, true));
    answer(&mut rig, 200);
    assert!(rig.is_closed() && sent(&mut rig).starts_with("HTTP/1.1 200 "));
}

#[test]
fn an_upload_that_is_answered_early_ends_the_connection() {
    for in_pieces in [false, true] {
        let mut rig = http();
        rig.bytes(CHUNKED.as_bytes());
        rig.bytes(b"3\r\nabc\r\n");
        if in_pieces {
            begin(&mut rig);
            rig.bytes(&[b'x'; 300_000]);
            assert!(rig.conn.wants_read() && rig.conn.held_bytes() < 10);
            piece(&mut rig, b"no");
            end(&mut rig);
        } else {
            answer(&mut rig, 403);
        }
        assert!(rig.is_closed() && sent(&mut rig).contains("Connection: close\r\n"));
        assert!(!rig.events.contains(&Event::Gone(id(0))));
    }
    // All of it came before the answer: nothing of it is told after that.
    let mut rig = http();
    rig.conn.handle_bytes(rig.now, format!("{CHUNKED}3\r\nabc\r\n0\r\n\r\n").as_bytes());
    while !matches!(rig.conn.poll_event(), Some(Event::Http(_))) {}
    answer(&mut rig, 403);
    assert_eq!((uploaded(&rig), rig.is_closed()), ((Vec::new(), false), false));
}

#[test]
fn an_upload_is_asked_for_when_it_is_wanted() {
    let head = "PUT /upload HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    let mut rig = http();
    rig.bytes(head.as_bytes());
    assert_eq!(sent(&mut rig), "");
    for said in ["HTTP/1.1 100 Continue\r\n\r\n", ""] {
        rig.conn.http_continue(rig.now);
        rig.settle();
        assert_eq!(sent(&mut rig), said);
    }
    // It did not wait to be told.
    let mut rig = http();
    rig.bytes(head.as_bytes());
    rig.bytes(b"a");
    rig.conn.http_continue(rig.now);
    rig.settle();
    assert_eq!(sent(&mut rig), "");
}

proptest! {
    #[test]
    fn no_upload_is_lost_or_held_however_it_is_cut(
        pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..30_000), 0..8),
        cuts in proptest::collection::vec(500usize..50_000, 1..20),
        consumed in 5_000..UPLOAD_WINDOW_BYTES,
    ) {
        let mut bytes = CHUNKED.as_bytes().to_vec();
        pieces.iter().for_each(|piece| crate::wire::http::encode_chunk(&mut bytes, piece));
        bytes.extend_from_slice(crate::wire::http::LAST_CHUNK);
        let (mut rest, mut cuts) = (bytes.as_slice(), cuts.into_iter().cycle());
        let mut rig = http();
        while !uploaded(&rig).1 {
            if rig.conn.wants_read() && !rest.is_empty() {
                let (now, later) = rest.split_at(cuts.next().unwrap_or(1).min(rest.len()));
                rest = later;
                rig.bytes(now);
                prop_assert!(rig.conn.held_bytes() <= 2 * UPLOAD_WINDOW_BYTES);
            } else {
                rig.conn.consumed(rig.now, id(0), consumed);
                rig.settle();
            }
        }
        prop_assert_eq!(uploaded(&rig).0, pieces.concat());
    }
}
