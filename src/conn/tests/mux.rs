//! Calls of either side on the streams of yamux sessions.

use super::*;
use crate::conn::Answer;
use crate::conn::CannotOpen;
use crate::wire::yamux::ACK;
use crate::wire::yamux::GoAway;
use crate::wire::yamux::RST;

fn v1() -> Rig {
    Rig::after(&[0x03])
}

fn v2() -> Rig {
    Rig::after(&[0x06])
}

fn answer(rig: &mut Rig, stream: u32, seq: u64, answer: Answer<'_>) {
    rig.conn.reply(rig.now, id(stream), seq, "A.B", answer);
    rig.settle();
}

fn v2_call(seq: u64) -> Vec<u8> {
    [&[0x01][..], &call(seq, "A.B", &[0x80])].concat()
}

// R1.34, R1.43: streams run side by side.
#[test]
fn one_stream_does_not_wait_for_another() {
    let mut rig = v1();
    rig.bytes(&[open(1, &call(1, "A.B", &[0x80])), open(3, &call(2, "A.B", &[0x80]))].concat());
    answer(&mut rig, 3, 2, Answer::Body(&[0xc3]));
    assert_eq!(rig.data(3), reply(2, "A.B", "", &[0xc3]));
    answer(&mut rig, 1, 1, Answer::Body(&[0xc2]));
    rig.bytes(&data(0, 3, &call(3, "A.B", &[0x80])));
    assert_eq!(rig.calls().len(), 3);
    assert_eq!(rig.conn.streams(), 2);
}

// R1.38, R1.30: the stream byte, alone and with all that follows.
#[test]
fn a_v2_stream_begins_with_its_byte() {
    let mut rig = v2();
    rig.bytes(&open(1, &v2_call(1)));
    rig.bytes(&frame(WINDOW, SYN, 3, 0));
    rig.bytes(&data(0, 3, &[]));
    assert!(rig.frames().iter().all(|(_, _, stream, _)| *stream != 3), "not taken before its byte");
    rig.bytes(&data(0, 3, &[0x01]));
    assert_eq!(rig.frames(), [(WINDOW, ACK, 3, vec![0; 4])]);
    rig.bytes(&data(0, 3, &call(2, "A.B", &[0x80])));
    assert_eq!(rig.calls().iter().map(|call| call.base).collect::<Vec<_>>(), [24, 24]);
}

// R1.39
#[test]
fn another_stream_byte_ends_the_session() {
    for byte in [0x00, 0x02, 0x03, 0x04, 0x06, 0x09] {
        let mut rig = v2();
        rig.bytes(&open(1, &v2_call(1)));
        rig.bytes(&open(3, &[byte]));
        assert_eq!(rig.fields(), [format!("byte={byte:#04x}")]);
        assert_eq!(rig.causes(), [Cause::V2UnknownByte]);
        assert!(rig.events.ends_with(&[Event::Gone(id(1)), Event::Closed]));
    }
}

// R1.40: a silent stream harms itself alone.
#[test]
fn a_stream_that_stays_silent_is_reset_alone() {
    let mut rig = v2();
    rig.bytes(&[frame(WINDOW, SYN, 1, 0), open(3, &v2_call(1))].concat());
    answer(&mut rig, 3, 1, Answer::Body(&[0xc0]));
    rig.frames();
    rig.pass(Duration::from_millis(4999));
    assert_eq!(rig.frames(), []);
    rig.pass(Duration::from_millis(1));
    assert_eq!(rig.frames(), [(WINDOW, RST, 1, vec![0; 4])]);
    assert!(!rig.is_closed());
    assert_eq!(rig.causes(), []);
    // In v1 there is no byte to wait for.
    let mut rig = v1();
    rig.bytes(&frame(WINDOW, SYN, 1, 0));
    rig.pass(Duration::from_secs(9));
    assert_eq!(rig.frames(), []);
}

// R1.40, R1j R1.40
#[test]
fn a_stream_that_ends_before_its_byte_is_dropped_alone() {
    let mut rig = v2();
    rig.bytes(&[frame(WINDOW, SYN, 1, 0), fin(1), frame(WINDOW, SYN, 3, 0), frame(WINDOW, RST, 3, 0)].concat());
    assert_eq!(rig.conn.streams(), 0);
    assert!(rig.frames().iter().any(|(_, flags, stream, _)| (*flags, *stream) == (FIN, 1)));
    rig.bytes(&open(5, &v2_call(1)));
    assert_eq!((rig.calls().len(), rig.causes()), (1, vec![]));
    rig.pass(Duration::from_secs(6));
    assert!(!rig.is_closed());
}

// R1.32: the backlog is of streams on which nothing came, in v1 and v2.
#[test]
fn silent_streams_over_the_backlog_are_reset() {
    for mut rig in [v1(), v2()] {
        let syns: Vec<u8> = (0..300).flat_map(|n| frame(WINDOW, SYN, 2 * n + 1, 0)).collect();
        rig.bytes(&syns);
        let resets = rig.frames().iter().filter(|(_, flags, _, _)| *flags == RST).count();
        assert_eq!(resets, 44);
    }
}

// R1.41: what is in hand, or does not fit the peer's window, is not granted; all arrives.
#[test]
fn a_long_reply_goes_out_as_the_peer_grants() {
    let mut rig = v1();
    rig.bytes(&open(1, &call(1, "A.B", &[0x80])));
    let body = long_value(600_000);
    answer(&mut rig, 1, 1, Answer::Body(&body));
    let mut got = rig.data(1);
    assert_eq!(got.len(), 256 * 1024);
    // The next call of the stream waits for the rest of the reply.
    rig.bytes(&data(0, 1, &call(2, "A.B", &[0x80])));
    assert_eq!(rig.calls().len(), 1);
    while got.len() < 600_000 {
        rig.bytes(&frame(WINDOW, 0, 1, 100_000));
        got.extend(rig.data(1));
    }
    assert_eq!(got, reply(1, "A.B", "", &body));
    assert_eq!(rig.calls().len(), 2);
}

// R1.41: a message longer than the window is granted as it comes; what comes while a call is in hand is not.
#[test]
fn credit_is_given_as_calls_are_read() {
    let mut rig = v1();
    let long = call(1, "A.B", &long_value(500_000));
    let (first, rest) = long.split_at(200_000);
    rig.bytes(&open(1, first));
    let grants = |rig: &mut Rig| -> u32 {
        let frames = rig.frames().into_iter().filter(|(kind, _, _, _)| *kind == WINDOW);
        frames.map(|(_, _, _, payload)| u32::from_be_bytes(payload.try_into().unwrap())).sum()
    };
    assert_eq!(grants(&mut rig), 200_000);
    for piece in rest.chunks(200_000) {
        rig.bytes(&data(0, 1, piece));
    }
    assert_eq!(rig.calls().len(), 1);
    grants(&mut rig);
    let next = call(2, "A.B", &long_value(150_000));
    rig.bytes(&data(0, 1, &next));
    assert_eq!(grants(&mut rig), 0);
    answer(&mut rig, 1, 1, Answer::Body(&[0xc0]));
    assert!(grants(&mut rig) >= 150_000);
    assert_eq!(rig.calls().len(), 2);
}

// R6.9: replies that the peer does not take stop the taking of calls, not the reading of grants.
#[test]
fn calls_wait_while_too_many_replies_do() {
    let mut rig = Rig::with(Limits { max_unsent_bytes: 100_000, ..limits() }, &Security::default());
    rig.bytes(&[0x03]);
    rig.bytes(&open(1, &call(1, "A.B", &[0x80])));
    answer(&mut rig, 1, 1, Answer::Body(&long_value(400_000)));
    rig.bytes(&open(3, &call(2, "A.B", &[0x80])));
    assert_eq!(rig.calls().len(), 1);
    assert!(rig.conn.wants_read());
    rig.bytes(&frame(WINDOW, 0, 1, 100_000));
    assert_eq!(rig.calls().len(), 2);
}

// R1.45, R1j R1.45: an RST is told and drops the call; the session lives.
#[test]
fn a_reset_drops_the_call_and_no_other() {
    let mut rig = v2();
    rig.bytes(&[open(1, &v2_call(1)), open(3, &v2_call(2)), open(5, &v2_call(3)[..9])].concat());
    rig.bytes(&frame(WINDOW, RST, 1, 0));
    assert!(rig.events.ends_with(&[Event::Gone(id(1))]));
    rig.bytes(&frame(WINDOW, RST, 5, 0));
    assert_eq!(rig.causes(), [Cause::Rpc, Cause::Rpc]);
    rig.frames();
    answer(&mut rig, 1, 1, Answer::Body(&[0xc0]));
    assert_eq!(rig.frames(), []);
    answer(&mut rig, 3, 2, Answer::Body(&[0xc0]));
    assert_eq!(rig.data(3), reply(2, "A.B", "", &[0xc0]));
}

// R1.45: over the caps one stream is reset, with a word.
#[test]
fn a_message_over_the_cap_resets_its_stream_alone() {
    let mut rig = v1();
    rig.bytes(&open(1, &[&call(1, "A.B", &[])[..], &[0xdb, 0x7f, 0, 0, 0]].concat()));
    assert_eq!(rig.fields(), ["error=\"message is too large\""]);
    assert!(rig.frames().contains(&(WINDOW, RST, 1, vec![0; 4])));
    rig.bytes(&open(3, &call(2, "A.B", &[0x80])));
    assert_eq!(rig.calls().len(), 1);

    let mut rig = Rig::with(Limits { max_partial_bytes: 1000, ..limits() }, &Security::default());
    rig.bytes(&[0x03]);
    let part = &call(1, "A.B", &long_value(5000))[..600];
    rig.bytes(&open(1, part));
    rig.bytes(&open(3, part));
    assert_eq!(rig.causes(), [Cause::Rpc]);
    assert!(rig.frames().contains(&(WINDOW, RST, 3, vec![0; 4])));
    assert_eq!(rig.conn.streams(), 1);
}

// R1.36, R1.102
#[test]
fn an_end_is_silent_between_frames_and_told_within_one() {
    for (cut, causes) in [(0, vec![]), (5, vec![Cause::MultiplexV2Accept]), (14, vec![Cause::MultiplexV2Accept])] {
        let mut rig = v2();
        rig.bytes(&open(1, &v2_call(1)));
        rig.bytes(&open(3, &v2_call(1))[..cut]);
        rig.eof();
        assert_eq!(rig.causes(), causes);
        assert!(rig.events.ends_with(&[Event::Gone(id(1)), Event::Closed]));
    }
    let mut rig = v1();
    rig.conn.handle_failure(rig.now, "reset");
    rig.settle();
    assert_eq!(rig.fields(), ["error=\"reset\""]);
    assert_eq!(rig.causes(), [Cause::MultiplexAccept]);
}

// R1.35, R1j R1.35; R1.42: the GoAway is flushed.
#[test]
fn a_broken_session_ends_with_a_word() {
    for (first, cause) in [(0x03, Cause::MultiplexAccept), (0x06, Cause::MultiplexV2Accept)] {
        let mut rig = Rig::after(&[first]);
        rig.bytes(b"\x01garbage that is no frame");
        assert_eq!(rig.causes(), [cause]);
        assert_eq!(rig.fields(), ["error=\"invalid protocol version\""]);
        assert!(rig.is_closed());
        let code = (GoAway::ProtocolError as u32).to_be_bytes().to_vec();
        assert_eq!(rig.frames(), [(FrameType::GoAway, 0, 0, code)]);
    }
}

// R1.32: a silent peer sees a ping at 30 s and is dropped when it does not answer.
#[test]
fn a_peer_that_does_not_answer_pings_is_dropped() {
    let mut rig = v2();
    rig.pass(Duration::from_secs(30));
    assert_eq!(rig.frames(), [(FrameType::Ping, SYN, 0, vec![0; 4])]);
    rig.pass(Duration::from_secs(10));
    assert_eq!(rig.causes(), [Cause::MultiplexV2Accept]);
    assert_eq!(rig.fields(), ["error=\"keepalive timeout\""]);
    assert!(rig.is_closed());
}

// R1.37: GoAway, then what is in hand is finished, and nothing new begun.
#[test]
fn a_drained_session_ends_with_the_calls_in_hand() {
    let mut rig = v2();
    rig.bytes(&[open(1, &v2_call(1)), open(3, &v2_call(2)), frame(WINDOW, SYN, 5, 0)].concat());
    answer(&mut rig, 3, 2, Answer::Body(&[0xc0]));
    rig.frames();
    rig.conn.drain(rig.now);
    rig.settle();
    let probe = (FrameType::Ping, SYN, 0, vec![0xff; 4]);
    assert_eq!(rig.frames(), [(FrameType::GoAway, 0, 0, vec![0; 4]), probe, (WINDOW, RST, 5, vec![0; 4])]);
    rig.bytes(&frame(FrameType::Ping, ACK, 0, u32::MAX));
    rig.bytes(&[data(0, 3, &call(9, "A.B", &[0x80])), open(7, &v2_call(3))].concat());
    assert_eq!(rig.frames(), [(WINDOW, RST, 7, vec![0; 4])]);
    assert_eq!(rig.conn.call(rig.now, "A.B", &[0x80]), Err(CannotOpen));
    assert!(!rig.is_closed());
    answer(&mut rig, 1, 1, Answer::Body(&long_value(300_000)));
    assert!(!rig.is_closed(), "the reply is not out");
    rig.bytes(&frame(WINDOW, 0, 1, 300_000));
    assert!(rig.is_closed());
    assert_eq!(rig.calls().len(), 2);
}

// R1.37, R3.15: what the peer had sent before it knew is answered; nothing is cut off with its fate unknown.
#[test]
fn a_drained_session_takes_what_was_on_its_way() {
    let drained = |bytes: &[u8]| {
        let mut rig = v2();
        rig.bytes(&[open(1, &v2_call(1)), open(3, &v2_call(2))].concat());
        answer(&mut rig, 1, 1, Answer::Body(&[0xc0]));
        answer(&mut rig, 3, 2, Answer::Body(&[0xc0]));
        rig.bytes(bytes);
        rig.conn.drain(rig.now);
        rig.settle();
        assert!(!rig.is_closed());
        rig
    };
    let pong = frame(FrameType::Ping, ACK, 0, u32::MAX);
    let mut rig = drained(&[]);
    rig.bytes(&[data(0, 1, &call(3, "A.B", &[0x80])), pong.clone()].concat());
    assert_eq!((rig.calls().len(), rig.is_closed()), (3, false));
    answer(&mut rig, 1, 3, Answer::Body(&[0xc0]));
    assert!(rig.is_closed());
    // A request whose first half had come is taken to its end.
    let long = call(3, "A.B", &long_value(1000));
    let mut rig = drained(&data(0, 1, &long[..500]));
    rig.bytes(&pong);
    assert!(!rig.is_closed());
    rig.bytes(&data(0, 1, &long[500..]));
    answer(&mut rig, 1, 3, Answer::Body(&[0xc0]));
    assert_eq!((rig.calls().len(), rig.is_closed()), (3, true));
    // Who does not answer is not waited for.
    let mut rig = drained(&[]);
    rig.pass(Duration::from_secs(1));
    assert!(rig.is_closed());
}

// The reverse direction (transport notes, section 3.8): a call to the peer on a stream of ours.
#[test]
fn calls_to_the_peer_are_matched_and_closed() {
    let mut rig = v1();
    let one = rig.conn.call(rig.now, "A.B", &[0x80]).unwrap();
    let two = rig.conn.call(rig.now, "A.B", &[0x80]).unwrap();
    rig.settle();
    assert_eq!((one, two), (id(2), id(4)));
    let sent = std::mem::take(&mut rig.sent);
    rig.sent = sent.clone();
    assert_eq!(rig.data(2), v2_call(1));
    rig.sent = sent;
    assert_eq!(rig.data(4), v2_call(2));
    let answer = reply(2, "A.B", "", &[0xc3]);
    rig.bytes(&[frame(WINDOW, ACK, 4, 0), data(0, 4, &answer[..7])].concat());
    rig.bytes(&data(0, 4, &answer[7..]));
    assert!(rig.events.ends_with(&[Event::Answer { stream: two, result: Ok([0xc3].into()) }]));
    assert!(rig.frames().contains(&(WINDOW, FIN, 4, vec![0; 4])));
    rig.bytes(&data(0, 2, &reply(1, "A.B", "no", &[0x80])));
    assert!(rig.events.ends_with(&[Event::Answer { stream: one, result: Err("no".into()) }]));
    rig.bytes(&[fin(2), fin(4)].concat());
    assert_eq!((rig.conn.streams(), rig.is_closed()), (0, false));
}

#[test]
fn a_call_to_the_peer_that_is_not_answered_is_lost() {
    for answer in [
        fin(2),
        frame(WINDOW, RST, 2, 0),
        data(0, 2, &[0xc1]),
        data(0, 2, &reply(7, "A.B", "", &[0x80])),
        [data(0, 2, &reply(1, "A.B", "", &[])), fin(2)].concat(),
        frame(FrameType::Ping, 0, 0, 0)[..5].to_vec(),
    ] {
        let mut rig = v2();
        rig.conn.call(rig.now, "A.B", &[0x80]).unwrap();
        rig.bytes(&answer);
        if answer.len() == 5 {
            rig.eof();
        }
        let lost = rig.events.iter().filter(|event| matches!(event, Event::Lost { stream: StreamId(2), .. })).count();
        assert_eq!(lost, 1, "{answer:02x?}");
        assert!(!rig.events.contains(&Event::Gone(id(2))));
    }
    let mut rig = v2();
    rig.conn.call(rig.now, "A.B", &[0x80]).unwrap();
    rig.conn.reset(rig.now, id(2));
    rig.bytes(&data(0, 2, &reply(1, "A.B", "", &[0x80])));
    assert_eq!(rig.events.len(), 1, "a stream that we reset is never heard of");
}

#[test]
fn a_long_call_to_the_peer_goes_out_as_it_grants() {
    let mut rig = v2();
    let body = long_value(400_000);
    rig.conn.call(rig.now, "A.B", &body).unwrap();
    rig.settle();
    let mut got = rig.data(2);
    rig.bytes(&frame(WINDOW, ACK, 2, 200_000));
    got.extend(rig.data(2));
    assert_eq!(got, [&[0x01][..], &call(1, "A.B", &body)].concat());
}

#[test]
fn only_sessions_can_open_streams() {
    let mut rig = Rig::after(&[0x01]);
    assert!(!rig.conn.can_open());
    assert_eq!(rig.conn.call(rig.now, "A.B", &[0x80]), Err(CannotOpen));
    assert_eq!(rig.conn.open_streaming(rig.now, "A.B"), Err(CannotOpen));
    let mut rig = v1();
    assert!(rig.conn.can_open());
    rig.bytes(&frame(FrameType::GoAway, 0, 0, 0));
    assert!(!rig.conn.can_open());
    assert_eq!(rig.conn.call(rig.now, "A.B", &[0x80]), Err(CannotOpen));
    assert!(!rig.is_closed());
}

// performance.md: the share of a parked call.
#[test]
fn a_stream_is_small() {
    assert!(size_of::<crate::conn::stream::Stream>() <= 32, "{}", size_of::<crate::conn::stream::Stream>());
}
