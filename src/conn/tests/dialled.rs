//! Connections that we dial: two ends back to back, whole and byte by byte, with and without TLS.

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
use crate::wire::yamux::ACK;
use crate::wire::yamux::RST;

/// A dialler and the server that it dialled.
pub(super) struct Pair {
    pub(super) dialler: Rig,
    pub(super) server: Rig,
    /// Bytes are handed over this many at a time.
    pub(super) step: usize,
}

impl Pair {
    pub(super) fn new(dialler: Conn, security: &Security, step: usize) -> Pair {
        let mut pair = Pair { dialler: Rig::of(dialler), server: Rig::rpc(security), step };
        pair.dialler.settle();
        pair
    }

    fn plain(step: usize) -> Pair {
        Pair::new(Conn::dial_mux(Instant::ZERO, Arc::new(limits()), None), &Security::default(), step)
    }

    /// Carries bytes until neither side has more.
    pub(super) fn carry(&mut self) {
        loop {
            let there = std::mem::take(&mut self.dialler.sent);
            let back = std::mem::take(&mut self.server.sent);
            if there.is_empty() && back.is_empty() {
                return;
            }
            for (bytes, to) in [(there, &mut self.server), (back, &mut self.dialler)] {
                for piece in bytes.chunks(self.step) {
                    if !to.is_closed() {
                        to.bytes(piece);
                    }
                }
            }
        }
    }

    fn call(&mut self, method: &str, body: &[u8]) -> StreamId {
        let stream = self.dialler.conn.call(self.dialler.now, method, body).unwrap();
        self.dialler.settle();
        stream
    }

    fn reply(&mut self, nth: usize, answer: Answer<'_>) {
        let call = self.server.calls()[nth].clone();
        self.server.conn.reply(self.server.now, call.stream, call.seq, &call.method, answer);
        self.server.settle();
        self.carry();
    }
}

impl Rig {
    /// Answers and losses of calls of ours, in order.
    fn ends(&self) -> Vec<(StreamId, Result<Result<Vec<u8>, String>, bool>)> {
        let end = |event: &Event| match event {
            Event::Answer { stream, result } => Some((*stream, Ok(result.clone().map(|body| body.into_vec())))),
            Event::Lost { stream, written } => Some((*stream, Err(*written))),
            _ => None,
        };
        self.events.iter().filter_map(end).collect()
    }

    fn frames_of_link(&self) -> Vec<RaftFrame> {
        let frame = |event: &Event| match event {
            Event::Raft(frame) => Some((**frame).clone()),
            _ => None,
        };
        self.events.iter().filter_map(frame).collect()
    }
}

/// A session that we dialled, whose peer is played by hand.
fn dialled() -> Rig {
    let mut rig = Rig::of(Conn::dial_mux(Instant::ZERO, Arc::new(limits()), None));
    rig.settle();
    assert_eq!(rig.events, [Event::Ready]);
    assert_eq!(std::mem::take(&mut rig.sent), [0x06]);
    rig.events.clear();
    rig
}

fn calls(rig: &mut Rig, count: usize) -> Vec<StreamId> {
    let streams = (0..count).map(|_| rig.conn.call(rig.now, "A.B", &[0x80]).unwrap()).collect();
    rig.settle();
    streams
}

// R3.5, transport notes 7: a stream begins once with its byte and is kept for the next call.
#[test]
fn a_stream_is_used_again_after_its_answer() {
    for step in [1, 13, 100_000] {
        let mut pair = Pair::plain(step);
        for nth in 0..3 {
            let stream = pair.call("A.B", &[0x80]);
            assert_eq!(stream, id(1));
            pair.carry();
            pair.reply(nth, Answer::Body(&[nth as u8]));
            assert_eq!(pair.dialler.ends()[nth], (stream, Ok(Ok(vec![nth as u8]))));
        }
        assert_eq!(pair.server.calls().iter().map(|call| call.seq).collect::<Vec<_>>(), [1, 2, 3]);
        // Two at a time need two; both are kept, and the one used last is used next.
        let (a, b) = (pair.call("A.B", &[0x80]), pair.call("A.B", &long_value(300_000)));
        pair.carry();
        assert_eq!((a, b, pair.server.calls()[4].body.len()), (id(1), id(3), 300_005));
        pair.reply(4, Answer::Body(&[0xc0]));
        pair.reply(3, Answer::Body(&[0xc0]));
        assert_eq!(pair.call("A.B", &[0x80]), a);
        // An error ends its stream, as Go's pool has it.
        pair.carry();
        pair.reply(5, Answer::Error("no"));
        assert_eq!(pair.dialler.ends()[5], (a, Ok(Err("no".into()))));
        assert_eq!((pair.call("A.B", &[0x80]), pair.call("A.B", &[0x80])), (b, id(5)));
        assert_eq!(pair.dialler.conn.unusable(), None);
        assert_eq!((pair.dialler.causes(), pair.server.causes()), (vec![], vec![]));
    }
}

#[test]
fn surplus_streams_are_closed() {
    let few = Limits { idle_streams: 2, ..limits() };
    let conn = Conn::dial_mux(Instant::ZERO, Arc::new(few), None);
    let mut pair = Pair::new(conn, &Security::default(), 1000);
    (0..5).for_each(|_| drop(pair.call("A.B", &[0x80])));
    pair.carry();
    (0..5).for_each(|nth| pair.reply(nth, Answer::Body(&[0xc0])));
    assert_eq!((pair.dialler.conn.streams(), pair.server.conn.streams()), (2, 2));
    let again: Vec<u32> = (0..3).map(|_| pair.call("A.B", &[0x80]).0).collect();
    assert_eq!(again, [3, 1, 11]);
}

// An owner that calls while answers of other calls wait for it must not meet one of those under its new stream.
#[test]
fn a_stream_is_free_only_after_its_answer_was_taken() {
    let mut rig = dialled();
    calls(&mut rig, 2);
    rig.conn.handle_bytes(
        rig.now,
        &[data(ACK, 1, &reply(1, "A.B", "", &[0xc0])), data(ACK, 3, &reply(2, "A.B", "", &[0xc0]))].concat(),
    );
    assert!(matches!(rig.conn.poll_event(), Some(Event::Answer { stream: StreamId(1), .. })));
    assert_eq!(rig.conn.call(rig.now, "A.B", &[0x80]), Ok(id(1)));
    assert_eq!(rig.conn.call(rig.now, "A.B", &[0x80]), Ok(id(5)));
    assert!(matches!(rig.conn.poll_event(), Some(Event::Answer { stream: StreamId(3), .. })));
    assert_eq!(rig.conn.call(rig.now, "A.B", &[0x80]), Ok(id(3)));
}

// R3.5, R3.9, R3.10: what ends a call without an answer, and whether it may have happened.
#[test]
fn a_call_that_is_not_answered_is_lost_once() {
    let cut = frame(FrameType::Ping, 0, 0, 0)[..5].to_vec();
    for (bytes, written, ends, causes) in [
        (frame(WINDOW, RST, 1, 0), false, false, vec![]),
        ([frame(WINDOW, ACK, 1, 0), frame(WINDOW, RST, 1, 0)].concat(), true, false, vec![]),
        (fin(1), true, false, vec![]),
        (data(0, 1, &[0xc1]), true, false, vec![]),
        (data(0, 1, &reply(7, "A.B", "", &[0x80])), true, false, vec![]),
        ([data(0, 1, &reply(1, "A.B", "", &[])), fin(1)].concat(), true, false, vec![]),
        (frame(FrameType::GoAway, 0, 0, 1), true, true, vec![Cause::Dialled]),
        (vec![9; 12], true, true, vec![Cause::Dialled]),
        (cut, true, true, vec![Cause::Dialled]),
    ] {
        let mut rig = dialled();
        calls(&mut rig, 1);
        rig.bytes(&bytes);
        if bytes.len() == 5 {
            rig.eof();
        }
        assert_eq!(rig.ends(), [(id(1), Err(written))], "{bytes:02x?}");
        assert_eq!((rig.is_closed(), rig.causes()), (ends, causes), "{bytes:02x?}");
        assert!(!rig.events.contains(&Event::Gone(id(1))));
        if !ends {
            rig.eof();
            assert_eq!(rig.ends().len(), 1);
            assert_eq!(rig.conn.unusable(), Some("closed"));
        }
    }
    let mut rig = dialled();
    calls(&mut rig, 1);
    rig.conn.reset(rig.now, id(1));
    rig.bytes(&data(0, 1, &reply(1, "A.B", "", &[0x80])));
    assert_eq!(rig.ends(), [], "a call that was cancelled is never heard of");
}

// R3.9: counted in bytes that the socket took; what it did not take does not go out after that.
#[test]
fn written_is_told_to_the_byte() {
    let mut probe = dialled();
    calls(&mut probe, 1);
    let whole = probe.sent.len();
    for taken in 0..=whole {
        for failure in [false, true] {
            let mut rig = dialled();
            rig.conn.call(rig.now, "A.B", &[0x80]).unwrap();
            rig.conn.sent(rig.now, taken);
            if failure {
                rig.conn.handle_failure(rig.now, "reset");
            } else {
                rig.conn.handle_eof(rig.now);
            }
            rig.take_events();
            // The frame that opens the stream is nothing of the call.
            let written = taken > HEADER_BYTES;
            assert_eq!(rig.ends(), [(id(1), Err(written))], "{taken} taken");
            assert!(rig.is_closed() && rig.conn.to_send().is_empty());
        }
    }
    // A second call behind the first one.
    let mut rig = dialled();
    rig.conn.call(rig.now, "A.B", &[0x80]).unwrap();
    rig.conn.call(rig.now, "A.B", &[0x80]).unwrap();
    rig.conn.sent(rig.now, whole);
    rig.conn.handle_failure(rig.now, "reset");
    rig.take_events();
    assert_eq!(rig.ends(), [(id(1), Err(true)), (id(3), Err(false))]);
}

// The peer takes at most 256 streams at once that it has not acknowledged; a burst waits here.
#[test]
fn a_burst_of_calls_waits_for_streams() {
    let mut rig = dialled();
    let streams = calls(&mut rig, 1000);
    let opened =
        |rig: &mut Rig| rig.frames().iter().filter(|(kind, flags, ..)| *kind == WINDOW && *flags == SYN).count();
    assert_eq!(opened(&mut rig), 256);
    rig.conn.reset(rig.now, id(2 * 300 - 1));
    rig.bytes(&frame(WINDOW, ACK, 1, 0));
    assert_eq!(opened(&mut rig), 1);
    // The others follow as they can; what waits when the peer goes away has not happened.
    rig.bytes(&data(0, 1, &reply(1, "A.B", "", &[0xc0])));
    assert_eq!(rig.conn.call(rig.now, "A.B", &[0x80]), Ok(id(1)), "a free stream is used first");
    rig.bytes(&frame(FrameType::GoAway, 0, 0, 0));
    let lost: Vec<_> = streams[257..].iter().filter(|stream| **stream != id(599)).map(|s| (*s, Err(false))).collect();
    assert_eq!(rig.ends()[1..], lost);
    rig.eof();
    assert_eq!(rig.ends().len(), 1 + lost.len() + 257);

    let mut pair = Pair::plain(4096);
    (0..1000).for_each(|_| drop(pair.call("A.B", &[0x80])));
    pair.carry();
    assert_eq!(pair.server.calls().len(), 1000);
    (0..1000).for_each(|nth| pair.reply(nth, Answer::Body(&[0xc0])));
    assert_eq!(pair.dialler.ends().len(), 1000);
    assert_eq!(pair.dialler.conn.streams(), 64);
}

// R6.9: what a peer does not read is bounded.
#[test]
fn calls_are_refused_while_too_much_waits() {
    let small = Limits { max_unsent_bytes: 100_000, ..limits() };
    let mut rig = Rig::of(Conn::dial_mux(Instant::ZERO, Arc::new(small), None));
    assert!(rig.conn.call(rig.now, "A.B", &long_value(400_000)).is_ok());
    assert_eq!(rig.conn.call(rig.now, "A.B", &[0x80]), Err(CannotOpen));
    rig.settle();
    assert_eq!(rig.conn.call(rig.now, "A.B", &[0x80]), Err(CannotOpen), "the window holds the rest back");
    rig.bytes(&frame(WINDOW, ACK, 1, 200_000));
    assert!(rig.conn.call(rig.now, "A.B", &[0x80]).is_ok());
}

// R3.5: pings and grants are no reason, GoAway and stray bytes are, and an idle stream may end.
#[test]
fn a_session_is_judged_by_what_its_bytes_meant() {
    let idle = || {
        let mut rig = dialled();
        calls(&mut rig, 1);
        rig.bytes(&data(ACK, 1, &reply(1, "A.B", "", &[0xc0])));
        assert_eq!(rig.conn.unusable(), None);
        rig
    };
    let mut rig = idle();
    rig.bytes(&[frame(FrameType::Ping, SYN, 0, 7), frame(WINDOW, 0, 1, 10)].concat());
    assert_eq!((rig.conn.unusable(), rig.conn.call(rig.now, "A.B", &[0x80])), (None, Ok(id(1))));

    for end in [fin(1), frame(WINDOW, RST, 1, 0)] {
        let mut rig = idle();
        rig.bytes(&end);
        assert_eq!((rig.conn.unusable(), rig.conn.call(rig.now, "A.B", &[0x80])), (None, Ok(id(3))));
        assert_eq!(rig.ends().len(), 1);
    }

    let mut rig = idle();
    let stream = calls(&mut rig, 1)[0];
    rig.bytes(&frame(FrameType::GoAway, 0, 0, 0));
    assert_eq!(rig.conn.unusable(), Some("gone_away"));
    assert_eq!((rig.conn.can_open(), rig.conn.call(rig.now, "A.B", &[0x80])), (false, Err(CannotOpen)));
    assert!(!rig.is_closed());
    rig.bytes(&data(0, 1, &reply(2, "A.B", "", &[0xc3])));
    assert_eq!(rig.ends()[1], (stream, Ok(Ok(vec![0xc3]))));
    assert!(rig.is_closed(), "nothing is under way any more");

    let mut rig = idle();
    rig.bytes(&data(0, 1, &reply(1, "A.B", "", &[0xc0])));
    assert_eq!((rig.causes(), rig.is_closed()), (vec![Cause::Stray], true));
    assert_eq!(rig.conn.unusable(), Some("closed"));

    let mut rig = dialled();
    calls(&mut rig, 2);
    rig.bytes(&data(0, 1, &[reply(1, "A.B", "", &[0xc0]), vec![0xc0]].concat()));
    assert_eq!((rig.conn.unusable(), rig.is_closed()), (Some("stray"), false));
    rig.bytes(&data(0, 3, &reply(2, "A.B", "", &[0xc0])));
    assert_eq!((rig.ends().len(), rig.is_closed()), (2, true));

    let mut rig = idle();
    rig.eof();
    assert_eq!((rig.conn.unusable(), rig.is_closed()), (Some("closed"), true));
}

#[test]
fn a_session_without_ids_asks_for_another() {
    let mut rig = dialled();
    let Layer::Streams(streams) = &mut rig.conn.layer else { panic!("a session") };
    streams.skip_ids(u32::MAX - 2);
    let last = calls(&mut rig, 1);
    assert_eq!((last[0], rig.conn.unusable()), (id(u32::MAX - 2), Some("ids_used")));
    assert_eq!((rig.conn.can_open(), rig.conn.call(rig.now, "A.B", &[0x80])), (false, Err(CannotOpen)));
    rig.conn.drain(rig.now);
    rig.settle();
    assert!(!rig.is_closed());
    rig.bytes(&data(0, u32::MAX - 2, &reply(1, "A.B", "", &[0xc0])));
    assert!(rig.is_closed());
}

// R1.32, R3.17: a peer that is silent for good is found by a ping.
#[test]
fn a_session_whose_ping_is_not_answered_is_dead() {
    let mut rig = dialled();
    calls(&mut rig, 1);
    rig.bytes(&frame(WINDOW, ACK, 1, 0));
    rig.frames();
    rig.pass(Duration::from_secs(30));
    assert_eq!(rig.frames(), [(FrameType::Ping, SYN, 0, vec![0; 4])]);
    rig.pass(Duration::from_secs(10));
    assert_eq!(rig.fields(), ["error=\"keepalive timeout\""]);
    assert_eq!((rig.ends(), rig.is_closed()), (vec![(id(1), Err(true))], true));
}

// Nothing is served to a server that we dialled.
#[test]
fn a_stream_of_the_peers_is_refused() {
    let mut rig = dialled();
    rig.bytes(&open(2, &call(1, "A.B", &[0x80])));
    assert_eq!((rig.events.len(), rig.conn.streams()), (0, 0));
    assert_eq!(rig.frames(), [(WINDOW, RST, 2, vec![0; 4])]);
}

#[test]
fn streaming_calls_go_over_a_dialled_session() {
    let mut pair = Pair::plain(3);
    let stream = pair.dialler.conn.open_streaming(Instant::ZERO, "A.Stream").unwrap();
    pair.dialler.settle();
    pair.carry();
    assert!(pair.server.events.ends_with(&[Event::Streaming { stream, method: "A.Stream".into() }]));
    pair.server.conn.streaming_ack(Instant::ZERO, stream, "");
    pair.server.settle();
    pair.carry();
    assert!(pair.dialler.events.ends_with(&[Event::Acked { stream, error: String::new() }]));
    pair.dialler.conn.send_bytes(Instant::ZERO, stream, &[0x80]);
    pair.dialler.settle();
    pair.carry();
    let argument = Event::Argument { stream, body: [0x80].into(), base: 18 };
    assert!(matches!(pair.server.events.last(), Some(Event::Argument { .. })), "{argument:?}");
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
