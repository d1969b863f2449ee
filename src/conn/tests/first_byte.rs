//! The first byte: which, when, and what of it is told.

use super::*;
use crate::conn::Protocol;
use crate::wire::first_byte::FirstByte;

// R1.17, R1.29: each byte of a plain connection without TLS.
#[test]
fn each_first_byte_means_one_thing() {
    for byte in 0..=255u8 {
        let rig = Rig::after(&[byte]);
        match FirstByte::from_byte(byte) {
            Some(FirstByte::Tls) => assert_eq!(rig.causes(), [Cause::TlsNotConfigured]), // R1.20
            Some(known) => {
                assert_eq!(rig.events, [Event::Protocol(Protocol::Rpc(known))]);
                assert_eq!(rig.conn.protocol(), Protocol::Rpc(known));
                continue;
            }
            None => {
                assert_eq!(rig.causes(), [Cause::UnknownByte]);
                assert_eq!(rig.fields(), [format!("byte={byte:#04x}")]);
            }
        }
        assert!(rig.is_closed() && rig.sent.is_empty() && !rig.conn.wants_read());
    }
    assert_eq!(Rig::after(b"GET / HTTP/1.1\r\n").fields(), ["byte=0x47"]);
}

// R1.18: all plain bytes but 0x04.
#[test]
fn where_tls_is_required_no_plain_byte_is_served() {
    for byte in [0x01, 0x02, 0x03, 0x05, 0x06, 0xff] {
        let mut rig = Rig::rpc(&Security { require_tls: true, ..Security::default() });
        rig.bytes(&[byte, 0x01]);
        assert_eq!(rig.causes(), [Cause::NonTls], "{byte:#x}");
        assert!(rig.is_closed() && rig.sent.is_empty());
    }
}

// R1.14, R1.15, R1.16
#[test]
fn the_first_byte_has_a_deadline_and_nothing_after_it() {
    let mut rig = Rig::rpc(&Security::default());
    rig.pass(Duration::from_millis(4999));
    assert_eq!(rig.events, []);
    rig.pass(Duration::from_millis(1));
    assert_eq!(rig.causes(), [Cause::FirstByte]);
    assert_eq!(rig.fields(), ["error=\"i/o timeout\""]);
    assert!(rig.is_closed());

    let mut rig = Rig::after(&[0x01]);
    rig.pass(Duration::from_secs(3600));
    assert!(!rig.is_closed());
    rig.bytes(&call(1, "Status.Ping", &[0x80]));
    assert_eq!(rig.methods(), ["Status.Ping"]);

    let mut rig = Rig::with(Limits { handshake_timeout: Duration::ZERO, ..limits() }, &Security::default());
    rig.pass(Duration::from_secs(3600));
    assert_eq!(rig.events, []);
}

// R1.15, R1.102
#[test]
fn an_end_before_the_first_byte_is_silent_and_a_failure_is_not() {
    let mut rig = Rig::rpc(&Security::default());
    rig.eof();
    assert_eq!(rig.events, [Event::Closed]);

    let mut rig = Rig::rpc(&Security::default());
    rig.conn.handle_failure(rig.now, "connection reset by peer");
    rig.settle();
    assert_eq!(rig.fields(), ["error=\"connection reset by peer\""]);
    assert!(rig.is_closed());
}

// R1.26: without TLS there is no certificate.
#[test]
fn a_plain_raft_connection_is_refused_where_names_are_verified() {
    let mut rig = Rig::rpc(&Security { raft_name: Some("server.global.nomad".into()), ..Security::default() });
    rig.bytes(&[0x02]);
    assert_eq!(rig.causes(), [Cause::RaftName]);
    assert!(rig.is_closed());
}

// R1.27, R1.28: nothing of theirs is read before they are let in.
#[test]
fn raft_and_streaming_connections_wait_to_be_admitted() {
    for byte in [0x02, 0x05] {
        let mut rig = Rig::after(&[byte]);
        assert!(!rig.conn.wants_read());
        rig.bytes(b"\x81\xa6Method\xa1a");
        assert_eq!(rig.events.len(), 1);
        // A raft link that nobody lets in, for whatever reason, does not stay.
        let until = (byte == 0x02).then(|| Instant::ZERO + Duration::from_secs(5));
        assert_eq!(rig.conn.poll_timeout(), until);
        rig.conn.admit(rig.now);
        rig.settle();
        let streaming = Event::Streaming { stream: id(0), method: "a".into() };
        assert_eq!(rig.events.contains(&streaming), byte == 0x05);
        rig.conn.close(rig.now);
        rig.settle();
        assert!(rig.is_closed());
    }
}

#[test]
fn a_raft_connection_that_is_not_admitted_ends() {
    let mut rig = Rig::after(&[0x02]);
    rig.pass(Duration::from_secs(5));
    assert!(rig.is_closed());
    let mut rig = Rig::after(&[0x02]);
    rig.eof();
    assert!(rig.is_closed());
}

#[test]
fn an_idle_connection_is_small_and_holds_no_buffer() {
    assert!(size_of::<Conn>() <= 256, "{}", size_of::<Conn>());
    let mut rig = Rig::after(&[0x01]);
    rig.bytes(&call(1, "Status.Ping", &[0x80]));
    rig.conn.reply(rig.now, id(0), 1, "Status.Ping", crate::conn::Answer::Body(&[0x80]));
    rig.settle();
    assert_eq!((rig.conn.events.capacity(), rig.conn.outbox.tail().capacity()), (0, 0));
}
