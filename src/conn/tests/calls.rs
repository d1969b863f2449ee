//! Calls on a plain connection: one at a time, in order, within the caps.

use super::*;
use crate::conn::Answer;

fn plain() -> Rig {
    Rig::after(&[0x01])
}

fn answer(rig: &mut Rig, seq: u64, answer: Answer<'_>) {
    rig.conn.reply(rig.now, id(0), seq, "A.B", answer);
    rig.settle();
}

// R1.43: in order, and the next only after the reply; it echoes method and Seq.
#[test]
fn pipelined_calls_are_served_one_after_another() {
    let mut rig = plain();
    let calls: Vec<Vec<u8>> = (1..=3).map(|seq| call(seq, "A.B", &[0x80])).collect();
    rig.bytes(&calls.concat());
    assert_eq!(rig.calls().len(), 1);
    answer(&mut rig, 1, Answer::Body(&[0xc3]));
    answer(&mut rig, 2, Answer::Error("no such thing")); // R1.48
    answer(&mut rig, 3, Answer::Body(&[0xc0]));
    assert_eq!(rig.calls().iter().map(|call| call.seq).collect::<Vec<_>>(), [1, 2, 3]);
    let replies =
        [reply(1, "A.B", "", &[0xc3]), reply(2, "A.B", "no such thing", &[0x80]), reply(3, "A.B", "", &[0xc0])];
    assert_eq!(rig.sent, replies.concat());
    assert_eq!(rig.causes(), []);
}

// Positions of bodies count from where the codec of the stream began.
#[test]
fn bodies_say_where_they_began() {
    let mut rig = plain();
    let first = call(1, "A.B", &[0x80]);
    rig.bytes(&[first.clone(), call(2, "A.B", &[0x81, 0xa1, b'a', 0xc0])].concat());
    answer(&mut rig, 1, Answer::Body(&[0xc0]));
    let [one, two] = &rig.calls()[..] else { panic!("two calls") };
    assert_eq!((one.base, &one.body[..]), (first.len() as u64 - 1, &[0x80][..]));
    assert_eq!((two.base, &two.body[..]), (2 * first.len() as u64 - 1, &[0x81, 0xa1, b'a', 0xc0][..]));
}

// R1.45, R1j R1.45: what ends a connection, what is told, what is replied.
#[test]
fn broken_requests_end_the_stream() {
    let head = call(7, "A.B", &[]);
    let wrong_kind = "error=\"msgpack decode error [pos 0]: only encoded map or array can be decoded into a struct\"";
    for (bytes, fields, replied) in [
        (vec![0xa3], wrong_kind.to_owned(), false),
        (vec![0xc1], "error=\"msgpack decode error [pos 0]: reserved byte c1\"".to_owned(), false),
        (b"\x81\xa3Seq\xa1x".to_vec(), String::new(), false),
        // A body that is no msgpack has the head's method and Seq in its reply.
        (
            [&head[..], &[0xc1]].concat(),
            format!("error=\"msgpack decode error [pos {}]: reserved byte c1\"", head.len()),
            true,
        ),
        // Over max_message_bytes: known from the length alone.
        ([&head[..], &[0xdb, 0x00, 0x20, 0x00, 0x00]].concat(), "error=\"message is too large\"".to_owned(), false),
        (vec![0xdf, 0xff, 0xff, 0xff, 0xff], "error=\"message is too large\"".to_owned(), false),
    ] {
        for whole in [true, false] {
            let mut rig = plain();
            if whole {
                rig.bytes(&bytes);
            } else {
                bytes.iter().for_each(|byte| {
                    if !rig.is_closed() {
                        rig.bytes(&[*byte])
                    }
                });
            }
            assert_eq!(rig.causes(), [Cause::Rpc], "{bytes:02x?}");
            assert!(fields.is_empty() || rig.fields() == [fields.as_str()], "{:?}", rig.fields());
            assert!(rig.is_closed());
            assert_eq!(!rig.sent.is_empty(), replied, "{bytes:02x?}");
            if replied {
                let text = fields.trim_start_matches("error=").trim_matches('"');
                assert_eq!(rig.sent, reply(7, "A.B", text, &[0x80]));
            }
        }
    }
}

// R1.45, R1j R1.45, R1.102
#[test]
fn a_cut_request_is_silent_by_eof_and_told_by_failure() {
    let whole = call(1, "A.B", &[0x81, 0xa1, b'a', 0xc0]);
    for at in 0..whole.len() {
        let mut rig = plain();
        rig.bytes(&whole[..at]);
        rig.eof();
        assert_eq!(rig.events[1..], [Event::Closed], "at {at}");

        let mut rig = plain();
        rig.bytes(&whole[..at]);
        rig.conn.handle_failure(rig.now, "reset");
        rig.settle();
        assert_eq!((rig.causes(), rig.is_closed()), (vec![Cause::Rpc], true));
    }
}

// R1.42: `nc -N` closes its half and still gets its answers.
#[test]
fn after_eof_what_came_whole_is_still_answered() {
    let mut rig = plain();
    rig.bytes(&[call(1, "A.B", &[0x80]), call(2, "A.B", &[0x80]), call(3, "A.B", &[])].concat());
    rig.eof();
    assert!(!rig.is_closed());
    answer(&mut rig, 1, Answer::Body(&[0xc0]));
    assert!(!rig.is_closed());
    answer(&mut rig, 2, Answer::Body(&[0xc0]));
    assert!(rig.is_closed());
    assert_eq!(rig.calls().len(), 2);
}

#[test]
fn a_failure_drops_the_call_in_hand() {
    let mut rig = plain();
    rig.bytes(&call(1, "A.B", &[0x80]));
    rig.conn.handle_failure(rig.now, "reset");
    rig.settle();
    assert!(rig.events.ends_with(&[Event::Gone(id(0)), Event::Closed]));
    answer(&mut rig, 1, Answer::Body(&[0xc0]));
    assert!(rig.sent.is_empty());
}

// R1.47: the error is sent, then the connection closed, whatever was pipelined.
#[test]
fn a_last_error_is_the_last() {
    let mut rig = plain();
    rig.bytes(&[call(1, "A.B", &[0x80]), call(2, "A.B", &[0x80])].concat());
    answer(&mut rig, 1, Answer::LastError("rpc: can't find service A.B"));
    assert_eq!(rig.sent, reply(1, "A.B", "rpc: can't find service A.B", &[0x80]));
    assert!(rig.is_closed());
    assert_eq!(rig.calls().len(), 1);
}

// R6.9: a peer that pipelines and does not read is neither read nor served beyond the caps.
#[test]
fn a_peer_that_does_not_read_is_held_back() {
    let small = Limits { max_unsent_bytes: 1000, ..limits() };
    let mut rig = Rig::with(small, &Security::default());
    rig.bytes(&[0x01]);
    let one = call(1, "A.B", &[0x80]);
    rig.conn.handle_bytes(rig.now, &one.repeat(100));
    let mut replies = 0;
    let body = long_value(200);
    while let Some(event) = rig.conn.poll_event() {
        if let Event::Call(_) = event {
            replies += 1;
            rig.conn.reply(rig.now, id(0), 1, "A.B", Answer::Body(&body));
        }
    }
    // The fifth goes over the cap; the sixth call had been taken.
    assert_eq!(replies, 6);
    assert!(!rig.conn.wants_read());
    // It reads: the rest is served.
    rig.settle();
    while rig.calls().len() + replies < 100 {
        let taken = rig.calls().len();
        answer(&mut rig, 1, Answer::Body(&body));
        assert_eq!(rig.calls().len(), taken + 1);
    }
    assert!(rig.conn.wants_read());
}

// Bytes of further calls while one is in hand: read until a window's worth, then no more.
#[test]
fn pipelined_bytes_stop_the_reading_and_a_long_message_does_not() {
    let mut rig = plain();
    rig.bytes(&call(1, "A.B", &[0x80]));
    rig.bytes(&vec![0x80; 300_000]);
    assert!(!rig.conn.wants_read());

    let mut rig = plain();
    rig.bytes(&call(1, "A.B", &long_value(900_000))[..800_000]);
    assert!(rig.conn.wants_read());
}

#[test]
fn unfinished_requests_have_a_cap() {
    let mut rig = Rig::with(Limits { max_partial_bytes: 1000, ..limits() }, &Security::default());
    rig.bytes(&[0x01]);
    rig.bytes(&call(1, "A.B", &long_value(5000))[..1001]);
    assert_eq!((rig.causes(), rig.is_closed()), (vec![Cause::Rpc], true));
}

#[test]
fn a_drained_connection_ends_with_the_call_in_hand() {
    let mut rig = plain();
    rig.conn.drain(rig.now);
    rig.settle();
    assert!(rig.is_closed());

    let mut rig = plain();
    rig.bytes(&[call(1, "A.B", &[0x80]), call(2, "A.B", &[0x80])].concat());
    rig.conn.drain(rig.now);
    rig.settle();
    assert!(!rig.is_closed());
    answer(&mut rig, 1, Answer::Body(&[0xc0]));
    assert!(rig.is_closed());
    assert_eq!(rig.calls().len(), 1);
}
