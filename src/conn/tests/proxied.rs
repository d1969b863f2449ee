//! A balancer's header before everything else: taken, waited for, refused, and what follows it kept for later.

use super::property::PROXY_HEADER as HEADER;
use super::*;
use crate::conn::Protocol;
use crate::wire::first_byte::FirstByte;
use crate::wire::http::HttpReply;

fn rig(is_http: bool) -> Rig {
    Rig::of(Conn::accept_proxied(Instant::ZERO, Arc::new(limits()), &Security::default(), is_http))
}

fn client() -> Event {
    Event::Proxied(Some("192.0.2.7:8080".parse().unwrap()))
}

// R8.12: cut anywhere, no byte is lost, and none is understood before the owner has let the client in.
#[test]
fn what_follows_a_header_waits_for_the_owner() {
    let rest = [&[0x01][..], &call(1, "Status.Ping", &[0x80])].concat();
    let bytes = [&HEADER[..], &rest].concat();
    for cut in 0..=bytes.len() {
        let mut rig = rig(false);
        rig.bytes(&bytes[..cut]);
        assert!(rig.conn.wants_read() == (cut < HEADER.len()), "{cut}");
        rig.bytes(&bytes[cut..]);
        assert_eq!(rig.events, [client()], "{cut}");
        rig.conn.admit(rig.now);
        rig.settle();
        assert_eq!(rig.methods(), ["Status.Ping"], "{cut}");
    }
    let mut rig = rig(false);
    bytes.iter().for_each(|byte| rig.bytes(&[*byte]));
    rig.eof();
    rig.conn.admit(rig.now);
    rig.settle();
    assert_eq!(rig.methods(), ["Status.Ping"]);
}

#[test]
fn http_after_a_header_is_http() {
    let mut rig = rig(true);
    rig.bytes(&[&HEADER[..], b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"].concat());
    assert_eq!(rig.events, [client()]);
    rig.conn.admit(rig.now);
    rig.settle();
    assert!(matches!(&rig.events[1..], [Event::Protocol(Protocol::Http), Event::Http(_)]), "{:?}", rig.events);
    rig.conn.http_reply(rig.now, HttpReply { status: 200, ..HttpReply::default() });
    rig.settle();
    assert!(rig.sent.starts_with(b"HTTP/1.1 200 "));
}

#[test]
fn local_keeps_the_address_of_the_socket() {
    let mut rig = rig(false);
    rig.bytes(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0\x01");
    assert_eq!(rig.events, [Event::Proxied(None)]);
    rig.conn.admit(rig.now);
    rig.settle();
    assert_eq!(rig.conn.protocol(), Protocol::Rpc(FirstByte::Rpc));
}

#[test]
fn without_a_header_it_is_closed_without_a_byte() {
    for (is_http, bytes, error) in [
        (false, &b"\x01"[..], "no PROXY header of version 2"),
        (true, b"GET / HTTP/1.1\r\n\r\n", "no PROXY header of version 2"),
        (false, b"PROXY TCP4 192.0.2.7 10.0.0.1 8080 4647\r\n", "no PROXY header of version 2"),
        (false, b"\r\n\r\n\0\r\nQUIT\n\x25", "command 0x5 is unknown"),
        (true, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff", "65551 bytes are more than 4096"),
    ] {
        let mut rig = rig(is_http);
        rig.bytes(bytes);
        assert_eq!((rig.causes(), rig.fields()), (vec![Cause::Proxy], vec![&*format!("error={error:?}")]));
        assert!(rig.is_closed() && rig.sent.is_empty());
    }
    // One that breaks off is told of; one that only looks whether the port is open is not.
    let mut torn = rig(false);
    torn.bytes(&HEADER[..20]);
    torn.eof();
    assert_eq!((torn.causes(), torn.fields(), torn.is_closed()), (vec![Cause::Proxy], vec!["error=\"EOF\""], true));
    let mut look = rig(true);
    look.eof();
    assert_eq!(look.events, [Event::Closed]);
    let mut look = rig(false);
    look.conn.handle_failure(look.now, "connection reset by peer");
    look.settle();
    assert_eq!(look.events, [Event::Closed]);
}

#[test]
fn a_header_has_a_deadline_and_the_first_byte_another() {
    let mut silent = rig(true);
    silent.bytes(&HEADER[..27]);
    silent.pass(Duration::from_millis(4999));
    assert_eq!(silent.events, []);
    silent.pass(Duration::from_millis(1));
    assert_eq!((silent.causes(), silent.fields()), (vec![Cause::Proxy], vec!["error=\"i/o timeout\""]));
    assert!(silent.is_closed());

    let mut rig = rig(false);
    rig.pass(Duration::from_secs(4));
    rig.bytes(&HEADER);
    rig.conn.admit(rig.now);
    rig.pass(Duration::from_secs(4));
    assert_eq!(rig.events, [client()]);
    rig.pass(Duration::from_secs(1));
    assert_eq!(rig.causes(), [Cause::FirstByte]);

    // A header has its time also where the rest has no end.
    let limits = Arc::new(Limits { handshake_timeout: Duration::ZERO, ..limits() });
    let mut rig = Rig::of(Conn::accept_proxied(Instant::ZERO, limits, &Security::default(), false));
    rig.pass(Duration::from_secs(10));
    assert_eq!(rig.causes(), [Cause::Proxy]);
}

#[test]
fn one_that_is_turned_away_is_told_and_asks_for_nothing() {
    let mut rig = rig(true);
    rig.conn.handle_bytes(rig.now, &[&HEADER[..], b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"].concat());
    rig.conn.admit(rig.now);
    rig.conn.turn_away(rig.now, b"no");
    rig.settle();
    assert_eq!((&rig.events[..], &rig.sent[..]), (&[Event::Closed][..], &b"no"[..]));
}
