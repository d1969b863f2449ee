//! Raft links, and all that we dial within TLS: two ends back to back, whole and byte by byte.

use super::dialled::Pair;
use super::*;
use crate::conn::Answer;
use crate::conn::CannotOpen;
use crate::conn::Protocol;
use crate::conn::tls::TlsClient;
use crate::wire::first_byte::FirstByte;
use crate::wire::raft::Beat;
use crate::wire::raft::Hello;
use crate::wire::raft::RaftEntry;
use crate::wire::raft::RaftFrame;
use crate::wire::raft::RaftMessage;

impl Rig {
    fn frames_of_link(&self) -> Vec<RaftFrame> {
        let frame = |event: &Event| match event {
            Event::Raft(frame) => Some((**frame).clone()),
            _ => None,
        };
        self.events.iter().filter_map(frame).collect()
    }
}

fn hello(name: &str) -> RaftFrame {
    let hello = Hello { version: 1, cluster_id: name.into(), ..Hello::default() };
    RaftFrame::Hello(Box::new(hello))
}

fn link(step: usize) -> Pair {
    let conn = Conn::dial_raft(Instant::ZERO, Arc::new(limits()), None);
    let mut pair = Pair::new(conn, &Security::default(), step);
    assert_eq!(pair.dialler.events, [Event::Ready]);
    assert!(pair.dialler.conn.send_raft(Instant::ZERO, &hello("dialler")));
    pair.dialler.settle();
    pair.carry();
    assert_eq!(pair.server.events, [Event::Protocol(Protocol::Rpc(FirstByte::Raft))]);
    pair.server.conn.admit(Instant::ZERO);
    pair.server.settle();
    pair
}

// R1.27: a link carries frames both ways once it is admitted.
#[test]
fn frames_go_both_ways_on_a_link() {
    for step in [1, 7, 100_000] {
        let mut pair = link(step);
        assert_eq!(pair.server.frames_of_link(), [hello("dialler")]);
        assert!(pair.server.conn.send_raft(Instant::ZERO, &hello("server")));
        pair.server.settle();
        let entries = vec![RaftEntry { data: vec![7; 30_000], ..RaftEntry::default() }; 3];
        let message = RaftFrame::Message(Box::new(RaftMessage { entries, ..RaftMessage::default() }));
        assert!(pair.dialler.conn.send_raft(Instant::ZERO, &message));
        pair.dialler.settle();
        pair.carry();
        assert_eq!(pair.dialler.frames_of_link(), [hello("server")]);
        assert_eq!(pair.server.frames_of_link(), [hello("dialler"), message]);
        assert_eq!((pair.dialler.conn.unusable(), pair.server.conn.held_bytes()), (None, 0));
        pair.dialler.eof();
        pair.server.eof();
        assert!(pair.dialler.is_closed() && pair.server.is_closed());
        assert_eq!((pair.dialler.causes(), pair.server.causes()), (vec![], vec![]));
        assert!(!pair.dialler.conn.send_raft(Instant::ZERO, &hello("late")));
    }
}

// R6.9, R1.102: who does not read, who is silent, and who speaks something else.
#[test]
fn a_link_has_limits() {
    let beat = RaftFrame::Beat(Beat { digest: vec![1; 100_000], ..Beat::default() });
    let small = Limits { max_raft_unsent_bytes: 150_000, max_unsent_bytes: 1000, ..limits() };
    let mut rig = Rig::of(Conn::dial_raft(Instant::ZERO, Arc::new(small), None));
    assert!(rig.conn.send_raft(rig.now, &beat) && rig.conn.send_raft(rig.now, &beat));
    assert!(!rig.conn.send_raft(rig.now, &beat));
    assert!(rig.conn.wants_read(), "what comes back is wanted most then");
    rig.settle();
    assert!(rig.conn.send_raft(rig.now, &beat));

    let mut pair = link(1000);
    pair.server.pass(Duration::from_secs(29));
    assert!(pair.dialler.conn.send_raft(Instant::ZERO, &beat));
    pair.dialler.settle();
    pair.carry();
    pair.server.pass(Duration::from_secs(29));
    assert!(!pair.server.is_closed());
    pair.server.pass(Duration::from_secs(1));
    assert_eq!((pair.server.causes(), pair.server.is_closed()), (vec![Cause::RaftLink], true));
    // The dialler was never answered.
    pair.dialler.pass(Duration::from_secs(30));
    assert_eq!((pair.dialler.fields(), pair.dialler.is_closed()), (vec!["error=\"i/o timeout\""], true));

    // A server with another raft behind the same byte: the kind of its message and a map.
    for strange in [&b"\x02\x00\x8b\xa9RPCHeader"[..], b"\x02\x01\x88\xa9RPCHeader"] {
        let mut rig = Rig::after(strange);
        rig.conn.admit(rig.now);
        rig.settle();
        assert!(rig.fields()[0].starts_with("error=\"raft frame, byte 0: frame "), "{:?}", rig.fields());
        assert!(rig.is_closed() && rig.sent.is_empty());
    }
}

#[test]
fn a_frame_that_is_cut_is_told() {
    let mut pair = link(1000);
    pair.server.bytes(&[0, 0, 0]);
    pair.server.eof();
    assert_eq!(pair.server.fields(), ["error=\"unexpected EOF\""]);
    let mut pair = link(1000);
    pair.dialler.conn.handle_failure(Instant::ZERO, "connection reset by peer");
    pair.dialler.settle();
    assert_eq!(pair.dialler.fields(), ["error=\"connection reset by peer\""]);
    let mut pair = link(1000);
    pair.dialler.conn.drain(Instant::ZERO);
    pair.dialler.settle();
    assert!(pair.dialler.is_closed());
}

fn tls_pair(world: &tls::World, client: &TlsClient, raft: bool, step: usize) -> Pair {
    let dial = if raft { Conn::dial_raft } else { Conn::dial_mux };
    let conn = dial(Instant::ZERO, Arc::new(limits()), Some((client, "server.global.nomad")));
    Pair::new(conn, &world.security, step)
}

// R1.22 to R1.26, R3.4: 0x04, a handshake with a name, then the byte; tickets are no answer.
#[test]
fn calls_and_frames_go_within_tls() {
    let world = tls::world(true);
    let client = world.dialler("server.global.nomad");
    for step in [1, 1000] {
        let mut pair = tls_pair(&world, &client, false, step);
        assert_eq!(pair.dialler.conn.call(Instant::ZERO, "A.B", &[0x80]), Err(CannotOpen));
        assert_eq!((pair.dialler.sent[0], pair.dialler.conn.unusable()), (0x04, None));
        pair.carry();
        assert!(matches!(pair.dialler.events[..], [Event::Secured(Some(_)), Event::Ready]));
        assert!(pair.dialler.conn.certificate().unwrap().names.contains(&"server.global.nomad".to_owned()));
        assert_eq!(pair.dialler.conn.poll_timeout(), Some(Instant::ZERO + Duration::from_secs(30)));
        for nth in 0..2 {
            pair.call("A.B", &[0x80]);
            pair.carry();
            pair.reply(nth, Answer::Body(&long_value(70_000)));
        }
        assert_eq!(pair.dialler.ends().len(), 2);
        assert_eq!((pair.dialler.conn.unusable(), pair.dialler.conn.streams()), (None, 1));
        // Ciphertext that the socket did not take.
        let mut pair = tls_pair(&world, &client, false, step);
        pair.carry();
        for sent in [0, 1] {
            pair.dialler.conn.call(Instant::ZERO, "A.B", &[0x80]).unwrap();
            pair.dialler.conn.sent(Instant::ZERO, sent * 50);
        }
        pair.dialler.conn.handle_eof(Instant::ZERO);
        pair.dialler.take_events();
        assert_eq!(pair.dialler.ends(), [(id(1), Err(true)), (id(3), Err(false))]);
        assert!(pair.dialler.conn.to_send().is_empty());

        let mut pair = tls_pair(&world, &client, true, step);
        pair.carry();
        assert!(pair.dialler.conn.send_raft(Instant::ZERO, &hello("dialler")));
        pair.dialler.settle();
        pair.carry();
        pair.server.conn.admit(Instant::ZERO);
        pair.server.settle();
        assert_eq!(pair.server.frames_of_link(), [hello("dialler")]);
    }
}

// R1.23: a server of another name or CA, none at all, and one that says nothing.
#[test]
fn a_handshake_that_fails_ends_the_dial() {
    let world = tls::world(true);
    let client = world.dialler("server.global.nomad");
    let dial = |name| Conn::dial_mux(Instant::ZERO, Arc::new(limits()), Some((&client, name)));
    let mut pair = Pair::new(dial("server.west.nomad"), &world.security, 1000);
    pair.carry();
    assert_eq!((pair.dialler.causes(), pair.dialler.is_closed()), (vec![Cause::Handshake], true));
    assert!(pair.server.is_closed() && !pair.dialler.events.contains(&Event::Ready));

    let stranger = tls::world(true);
    let mut pair = Pair::new(dial("server.global.nomad"), &stranger.security, 1000);
    pair.carry();
    assert_eq!(pair.dialler.causes(), [Cause::Handshake]);

    let mut rig = Rig::of(dial("no name\u{0}"));
    rig.settle();
    assert_eq!((rig.causes(), rig.is_closed(), rig.sent.len()), (vec![Cause::Handshake], true, 0));

    let mut rig = Rig::of(dial("server.global.nomad"));
    rig.pass(Duration::from_secs(10));
    assert_eq!((rig.fields(), rig.is_closed()), (vec!["error=\"i/o timeout\""], true));

    let mut rig = Rig::of(dial("server.global.nomad"));
    rig.settle();
    rig.eof();
    assert_eq!((rig.causes(), rig.is_closed()), (vec![Cause::Handshake], true));
    // A certificate that is refused is told after the handshake, with TLS 1.3: the calls are lost then.
    let unnamed = world.dialler_without_certificate();
    let mut pair = tls_pair(&world, &unnamed, false, 1000);
    let there = std::mem::take(&mut pair.dialler.sent);
    pair.server.bytes(&there);
    let back = std::mem::take(&mut pair.server.sent);
    pair.dialler.bytes(&back);
    pair.call("A.B", &[0x80]);
    pair.carry();
    assert_eq!((pair.dialler.ends(), pair.dialler.is_closed()), (vec![(id(1), Err(true))], true));
}
