//! Sessions that we dial: two ends back to back, whole and byte by byte, and a peer that is played by hand.

use super::*;
use crate::conn::Answer;
use crate::conn::CannotOpen;
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

    pub(super) fn call(&mut self, method: &str, body: &[u8]) -> StreamId {
        let stream = self.dialler.conn.call(self.dialler.now, method, body).unwrap();
        self.dialler.settle();
        stream
    }

    pub(super) fn reply(&mut self, nth: usize, answer: Answer<'_>) {
        let call = self.server.calls()[nth].clone();
        self.server.conn.reply(self.server.now, call.stream, call.seq, &call.method, answer);
        self.server.settle();
        self.carry();
    }
}

/// How a call of ours ended: an answer, or a loss and whether it was written.
type End = Result<Result<Vec<u8>, String>, bool>;

impl Rig {
    /// Answers and losses of calls of ours, in order.
    pub(super) fn ends(&self) -> Vec<(StreamId, End)> {
        let end = |event: &Event| match event {
            Event::Answer { stream, result } => {
                Some((*stream, Ok(result.clone().map(|body| body.into_vec()).map_err(|refusal| refusal.text))))
            }
            Event::Lost { stream, written } => Some((*stream, Err(*written))),
            _ => None,
        };
        self.events.iter().filter_map(end).collect()
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
    (0..5).for_each(|_| _ = pair.call("A.B", &[0x80]));
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
    (0..1000).for_each(|_| _ = pair.call("A.B", &[0x80]));
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
