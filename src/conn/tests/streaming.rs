//! Streaming calls, of either side, on streams and on connections of their own.

use super::*;
use crate::wire::msgpack::Msg;
use crate::wire::streaming::StreamingAck;
use crate::wire::streaming::StreamingHeader;
use crate::wire::yamux::ACK;
use crate::wire::yamux::RST;

const ARGUMENT: &[u8] = b"\x81\xa5Index\x07";

fn header(method: &str) -> Vec<u8> {
    StreamingHeader { method: method.to_owned() }.to_bytes()
}

fn ack(error: &str) -> Vec<u8> {
    StreamingAck { error: error.to_owned() }.to_bytes()
}

/// A streaming connection of its own, let in.
fn plain() -> Rig {
    let mut rig = Rig::after(&[0x05]);
    rig.conn.admit(rig.now);
    rig.settle();
    rig
}

fn give_ack(rig: &mut Rig, stream: u32, error: &str) {
    rig.conn.streaming_ack(rig.now, id(stream), error);
    rig.settle();
}

/// All events after the first, with bytes of one stream joined.
fn told(rig: &Rig) -> Vec<Event> {
    let mut told: Vec<Event> = Vec::new();
    for event in &rig.events[1..] {
        match (told.last_mut(), event) {
            (Some(Event::Bytes { bytes, .. }), Event::Bytes { bytes: more, .. }) => bytes.extend(more),
            _ => told.push(event.clone()),
        }
    }
    told
}

// R1.30, R1.50, R1.52: header, argument and more in one write, or byte by byte.
#[test]
fn a_streaming_call_runs_however_it_is_cut() {
    let all = [&header("Event.Stream")[..], ARGUMENT, b"more"].concat();
    let expected = [
        Event::Streaming { stream: id(1), method: "Event.Stream".into() },
        Event::Argument { stream: id(1), body: ARGUMENT.into(), base: header("Event.Stream").len() as u64 },
        Event::Bytes { stream: id(1), bytes: b"more".to_vec() },
        Event::Finished(id(1)),
    ];
    for at in 0..=all.len() {
        for late in [false, true] {
            let mut rig = Rig::after(&[0x06]);
            let mut acked = false;
            let mut stream = open(1, &[0x05]);
            for piece in [&all[..at], &all[at..]] {
                stream.extend(data(0, 1, piece));
                rig.bytes(&stream);
                stream.clear();
                if !late && !acked && rig.events.len() > 1 {
                    acked = true;
                    give_ack(&mut rig, 1, "");
                }
            }
            rig.bytes(&fin(1));
            if !acked {
                give_ack(&mut rig, 1, "");
            }
            assert_eq!(told(&rig), expected, "at {at}, late {late}");
            assert_eq!(rig.data(1), ack(""));
            assert_eq!(rig.conn.send_bytes(rig.now, id(1), b"frame"), 5);
            rig.conn.finish(rig.now, id(1));
            rig.settle();
            assert_eq!(rig.data(1), b"frame");
            assert_eq!(rig.conn.streams(), 0);
        }
    }
}

// R1.50: the ack in full, then the end.
#[test]
fn an_error_in_the_ack_ends_the_call() {
    let mut rig = plain();
    rig.bytes(&[&header("Nope.Stream")[..], ARGUMENT].concat());
    give_ack(&mut rig, 0, "Unknown rpc method: \"Nope.Stream\"");
    assert_eq!(rig.sent, ack("Unknown rpc method: \"Nope.Stream\""));
    assert_eq!(told(&rig)[1..], [Event::Closed]);

    let mut rig = Rig::after(&[0x06]);
    rig.bytes(&open(1, &[&[0x05][..], &header("Nope.Stream")].concat()));
    give_ack(&mut rig, 1, "no");
    assert_eq!(rig.frames().last(), Some(&(WINDOW, FIN, 1, vec![0; 4])));
    assert!(!rig.is_closed());
}

// R1.49, R1.102
#[test]
fn a_header_that_is_none_is_told_and_one_cut_by_eof_is_not() {
    for (bytes, causes) in [
        (&b"\xc1"[..], vec![Cause::StreamingRpc]),
        (b"\xa1x", vec![Cause::StreamingRpc]),
        (b"\xdb\x00\x02\x00\x00", vec![Cause::StreamingRpc]),
        (b"\x81\xa6Met", vec![]),
        (b"", vec![]),
    ] {
        let mut rig = plain();
        rig.bytes(bytes);
        rig.eof();
        assert_eq!(rig.causes(), causes, "{bytes:02x?}");
        assert!(rig.is_closed() && rig.sent.is_empty());
    }
}

// The argument is bounded in time and size, and its absence is told to who waits for it.
#[test]
fn a_missing_argument_ends_the_call() {
    let mut rig = plain();
    rig.bytes(&header("A.B"));
    rig.pass(Duration::from_secs(60));
    assert!(!rig.is_closed(), "until the ack nothing is owed");
    give_ack(&mut rig, 0, "");
    rig.pass(Duration::from_secs(5));
    assert_eq!(rig.fields(), ["error=\"i/o timeout\""]);
    assert!(rig.events.ends_with(&[Event::Gone(id(0)), Event::Closed]));

    let mut rig = plain();
    rig.pass(Duration::from_secs(5));
    assert_eq!(rig.causes(), [Cause::StreamingRpc]);

    let mut rig = plain();
    rig.bytes(&header("A.B"));
    give_ack(&mut rig, 0, "");
    rig.bytes(&[0xdb, 0x7f, 0, 0, 0]);
    assert_eq!(rig.fields(), ["error=\"message is too large\""]);

    let mut rig = plain();
    rig.bytes(&header("A.B"));
    give_ack(&mut rig, 0, "");
    rig.eof();
    assert_eq!(told(&rig)[1..], [Event::Gone(id(0)), Event::Closed]);
}

// R1.41: bytes are granted as the owner uses them, and sent as the peer grants and the socket takes.
#[test]
fn streams_flow_by_credit() {
    let mut rig = Rig::after(&[0x06]);
    rig.bytes(&open(1, &[&[0x05][..], &header("A.B"), ARGUMENT].concat()));
    give_ack(&mut rig, 1, "");
    rig.bytes(&data(0, 1, &vec![0; 200_000]));
    rig.frames();
    rig.conn.consumed(rig.now, id(1), 200_000);
    rig.settle();
    assert!(matches!(rig.frames()[..], [(WINDOW, 0, 1, _)]));
    rig.conn.consumed(rig.now, id(1), 200_000);
    rig.settle();
    assert_eq!(rig.frames(), [], "no more is granted than came");

    let bytes = vec![1; 400_000];
    let window = 256 * 1024 - ack("").len();
    assert_eq!(rig.conn.send_credit(id(1)), window);
    assert_eq!(rig.conn.send_bytes(rig.now, id(1), &bytes), window);
    rig.settle();
    rig.bytes(&frame(WINDOW, 0, 1, 10));
    assert!(rig.events.ends_with(&[Event::Writable(id(1))]));
    assert_eq!(rig.conn.send_bytes(rig.now, id(1), &bytes), 10);
    rig.settle();

    // The outbox is a bound of its own, here with all the credit there is.
    rig.bytes(&frame(WINDOW, 0, 1, 1 << 30));
    rig.events.clear();
    assert_eq!(rig.conn.send_bytes(rig.now, id(1), &bytes), 256 * 1024);
    assert_eq!(rig.conn.send_bytes(rig.now, id(1), &bytes), 0);
    rig.conn.sent(rig.now, 100_000);
    rig.take_events();
    assert_eq!(rig.events, []);
    rig.conn.sent(rig.now, 100_000);
    rig.take_events();
    assert_eq!(rig.events, [Event::Writable(id(1))]);
}

#[test]
fn a_plain_streaming_connection_is_bounded_both_ways() {
    let mut rig = plain();
    rig.bytes(&[&header("A.B")[..], ARGUMENT].concat());
    give_ack(&mut rig, 0, "");
    assert_eq!(rig.conn.send_bytes(rig.now, id(0), &vec![0; 300_000]), 256 * 1024);
    assert_eq!(rig.conn.send_credit(id(0)), 0);
    rig.settle();
    assert!(rig.events.ends_with(&[Event::Writable(id(0))]));
    rig.bytes(&vec![0; 300_000]);
    assert!(!rig.conn.wants_read());
    rig.conn.consumed(rig.now, id(0), 300_000);
    assert!(rig.conn.wants_read());
    rig.eof();
    assert!(rig.events.ends_with(&[Event::Finished(id(0))]));
    rig.conn.finish(rig.now, id(0));
    rig.settle();
    assert!(rig.is_closed());
}

// R1.53, R1.54
#[test]
fn a_stream_that_we_open_is_acked_and_runs() {
    let mut rig = Rig::after(&[0x03]);
    let stream = rig.conn.open_streaming(rig.now, "A.B").unwrap();
    rig.settle();
    assert_eq!((stream, rig.data(2)), (id(2), [&[0x05][..], &header("A.B")].concat()));
    assert_eq!(rig.conn.send_bytes(rig.now, stream, ARGUMENT), 0, "not before the ack");
    rig.bytes(&[frame(WINDOW, ACK, 2, 0), data(0, 2, &[&ack("")[..], b"one"].concat()), data(0, 2, b"two")].concat());
    assert_eq!(rig.conn.send_bytes(rig.now, stream, ARGUMENT), ARGUMENT.len());
    rig.bytes(&fin(2));
    let acked = Event::Acked { stream, error: String::new() };
    let bytes = Event::Bytes { stream, bytes: b"onetwo".to_vec() };
    assert_eq!(told(&rig), [acked, bytes, Event::Finished(stream)]);
    rig.conn.finish(rig.now, stream);
    rig.settle();
    assert_eq!(rig.conn.streams(), 0);

    let mut rig = Rig::after(&[0x03]);
    rig.conn.open_streaming(rig.now, "A.B").unwrap();
    rig.bytes(&[data(0, 2, &ack("Unknown rpc method: \"A.B\"")), fin(2)].concat());
    assert_eq!(told(&rig), [Event::Acked { stream, error: "Unknown rpc method: \"A.B\"".into() }]);
    assert_eq!(rig.conn.streams(), 0);

    for end in [fin(2), frame(WINDOW, RST, 2, 0), data(0, 2, b"\xc1"), data(0, 2, b"\xdb\x00\x02\x00\x00")] {
        let mut rig = Rig::after(&[0x03]);
        rig.conn.open_streaming(rig.now, "A.B").unwrap();
        rig.bytes(&end);
        assert_eq!(told(&rig), [Event::Gone(stream)]);
    }
}

// A call that runs outlasts a drain; one whose header is not there does not.
#[test]
fn a_drained_session_waits_for_streams() {
    let mut rig = Rig::after(&[0x06]);
    let first = [&[0x05][..], &header("A.B"), ARGUMENT].concat();
    rig.bytes(&[open(1, &first), open(3, &first[..4])].concat());
    give_ack(&mut rig, 1, "");
    rig.conn.drain(rig.now);
    rig.settle();
    rig.bytes(&frame(FrameType::Ping, ACK, 0, u32::MAX));
    assert!(!rig.is_closed());
    rig.conn.finish(rig.now, id(1));
    rig.settle();
    assert!(rig.is_closed());
}
