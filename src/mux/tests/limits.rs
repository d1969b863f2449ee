//! Windows, caps and times.

use super::*;
use crate::mux::session::{EndReason, OpenError, StreamGone};
use crate::wire::yamux::GoAway;

fn session(limits: Limits) -> MuxSession {
    MuxSession::new(Side::Server, limits, at(0))
}

#[test]
fn the_defaults_are_those_of_go() {
    // R1.32
    let limits = Limits::default();
    assert_eq!((limits.accept_backlog, limits.window_bytes), (256, 262_144));
    assert_eq!((limits.keepalive_interval, limits.ping_timeout), (Duration::from_secs(30), Duration::from_secs(10)));
    assert_eq!(limits.stream_open_timeout, Duration::from_secs(75));
    assert_eq!(limits.stream_close_timeout, Duration::from_secs(300));
}

#[test]
fn the_backlog_is_bounded() {
    // R1.32, R1j: 300 SYNs in one write give 256 streams and 44 resets, and the session lives.
    let mut session = server();
    let bytes: Vec<u8> = (0..300).flat_map(|n| update(SYN, n * 2 + 1, 0)).collect();
    let seen = feed(&mut session, &bytes);
    assert_eq!((seen.matches("opened").count(), seen.matches("+RST").count()), (256, 44));
    assert_eq!(session.streams(), 256);
    // Data of a refused stream is skipped; its id stays used.
    assert_eq!(feed(&mut session, &data(0, 515, b"abc")), "");
    // A place is free again after an accept, a reset by either side, and a close.
    session.accept(id(1));
    session.reset(id(3));
    feed(&mut session, &update(RST, 5, 0));
    feed(&mut session, &update(FIN, 7, 0));
    session.finish(at(1), id(7));
    said(&mut session, &[]);
    let bytes: Vec<u8> = (300..305).flat_map(|n| update(SYN, n * 2 + 1, 0)).collect();
    assert_eq!(feed(&mut session, &bytes), "opened 601, opened 603, opened 605, opened 607, >update+RST 609 0");
    assert_eq!(feed(&mut session, &update(SYN, 515, 0)), "Violation(\"stream id already used\"), >goaway 1");
}

#[test]
fn open_streams_are_bounded() {
    // R1.32, R1j: the cap that the Go peer lacks.
    let mut session = session(Limits { max_streams: 3, ..Limits::default() });
    let own = session.open(at(0)).unwrap();
    let bytes = [update(SYN, 1, 0), update(SYN, 3, 0), update(SYN, 5, 0)].concat();
    assert_eq!(feed(&mut session, &bytes), "opened 1, opened 3, >update+SYN 2 0, >update+RST 5 0");
    assert_eq!(session.open(at(0)), Err(OpenError::TooMany));
    session.reset(own);
    assert!(session.open(at(0)).is_ok());
}

#[test]
fn opens_that_wait_are_bounded() {
    // R1.32
    let mut session = session(Limits { accept_backlog: 2, ..Limits::default() });
    let first = session.open(at(0)).unwrap();
    session.open(at(0)).unwrap();
    assert_eq!(session.open(at(0)), Err(OpenError::TooMany));
    feed(&mut session, &update(ACK, first.0, 0));
    assert!(session.open(at(0)).is_ok());
    assert_eq!(session.open(at(0)), Err(OpenError::TooMany));
    feed(&mut session, &update(RST, 4, 0));
    assert!(session.open(at(0)).is_ok());
}

#[test]
fn a_send_stops_at_the_window() {
    // R1.41
    let mut session = session(Limits { window_bytes: 10, ..Limits::default() });
    feed(&mut session, &update(SYN, 1, 0));
    session.accept(id(1));
    said(&mut session, &[]);
    assert_eq!(session.send(id(1), b""), Ok(0));
    assert_eq!(session.send(id(1), b"abcdefgh"), Ok(8));
    assert_eq!((session.credit(id(1)), said(&mut session, &[]).as_str()), (2, ">data 1 abcdefgh"));
    // Credit without need gives no event.
    assert_eq!(feed(&mut session, &update(0, 1, 1)), "");
    assert_eq!(session.send(id(1), b"ijklm"), Ok(3));
    assert_eq!(session.send(id(1), b"lm"), Ok(0));
    assert_eq!(said(&mut session, &[]), ">data 1 ijk");
    assert_eq!(feed(&mut session, &update(0, 1, 0)), "");
    assert_eq!(feed(&mut session, &update(0, 1, 1)), "writable 1");
    assert_eq!(feed(&mut session, &update(0, 1, 1)), "");
    assert_eq!(session.send(id(1), b"lm"), Ok(2));
    // Nor does it after a finish, and no credit helps then.
    assert_eq!(session.send(id(1), b"n"), Ok(0));
    session.finish(at(1), id(1));
    said(&mut session, &[]);
    assert_eq!(feed(&mut session, &update(0, 1, 9)), "");
    assert_eq!((session.send(id(1), b"n"), session.credit(id(1))), (Err(StreamGone), 0));
}

#[test]
fn credit_may_come_with_flags() {
    // R1.41: a Go peer with a larger window says so in its SYN or ACK.
    let mut session = server();
    assert_eq!(feed(&mut session, &update(SYN, 1, 1000)), "opened 1");
    assert_eq!(session.credit(id(1)), 263_144);
    let own = session.open(at(0)).unwrap();
    feed(&mut session, &update(ACK, own.0, 500));
    feed(&mut session, &update(FIN, own.0, 6));
    assert_eq!(session.credit(own), 262_650);
    // The sum may reach 2^32 - 1, and not go beyond.
    assert_eq!(feed(&mut session, &update(0, 1, u32::MAX - 263_144)), "");
    assert_eq!(session.credit(id(1)), u32::MAX as usize);
    assert_eq!(feed(&mut session, &update(0, 1, 1)), "Violation(\"send window overflow\"), >goaway 1");
}

#[test]
fn credit_is_granted_as_the_application_reads() {
    // R1.41
    let mut session = session(Limits { window_bytes: 100, ..Limits::default() });
    assert_eq!(feed(&mut session, &data(SYN, 1, &[0xff; 100])), "opened 1, data 1 of 100");
    session.consume(id(1), 49);
    assert_eq!(said(&mut session, &[]), "");
    session.consume(id(1), 1);
    assert_eq!(said(&mut session, &[]), ">update 1 50");
    // More than has come is not granted.
    session.consume(id(1), 5000);
    session.consume(id(1), usize::MAX);
    assert_eq!(said(&mut session, &[]), ">update 1 50");
    assert_eq!(feed(&mut session, &data(0, 1, &[0xff; 60])), "data 1 of 60");
    assert_eq!(feed(&mut session, &data(0, 1, &[0xff; 41])), "Violation(\"recv window exceeded\"), >goaway 1");
}

#[test]
fn no_credit_for_a_peer_that_has_finished() {
    // R1.41
    let mut session = session(Limits { window_bytes: 100, ..Limits::default() });
    feed(&mut session, &data(SYN, 1, &[0xff; 60]));
    let last = data(FIN, 1, &[0xff; 30]);
    feed(&mut session, &last[..20]);
    session.consume(id(1), 68);
    assert_eq!(said(&mut session, &[]), "", "its last frame is under way");
    feed(&mut session, &last[20..]);
    session.consume(id(1), 90);
    assert_eq!(said(&mut session, &[]), "");
    // Data after its own FIN is taken, within what was left (vector data_after_fin).
    assert_eq!(feed(&mut session, &data(0, 1, b"abc")), "data 1 abc");
    assert_eq!(feed(&mut session, &data(0, 1, &[1; 8])), "Violation(\"recv window exceeded\"), >goaway 1");
}

#[test]
fn a_frame_that_fills_the_window_is_taken_in_any_cut() {
    // R1.41, R1.42
    let bytes = data(SYN, 1, &[b'x'; 100]);
    for cut in 0..bytes.len() {
        let mut session = session(Limits { window_bytes: 100, ..Limits::default() });
        let mut got = 0;
        for part in [&bytes[..cut], &bytes[cut..]] {
            session.handle_bytes(at(1), part);
            while let Some(event) = session.poll_event() {
                if let Event::Data(stream, range) = event {
                    got += range.len();
                    session.consume(stream, range.len());
                }
            }
        }
        assert_eq!(got, 100, "cut at {cut}");
    }
}

#[test]
fn a_silent_peer_is_pinged_and_dropped() {
    // R1.32
    let mut session = server();
    assert_eq!(session.poll_timeout(), Some(at(30)));
    session.handle_timeout(at(29));
    assert_eq!(said(&mut session, &[]), "");
    session.handle_timeout(at(30));
    assert_eq!(said(&mut session, &[]), ">ping+SYN 0 0");
    session.handle_bytes(at(31), &ping(ACK, 0));
    assert_eq!(session.poll_timeout(), Some(at(61)));
    session.handle_timeout(at(61));
    assert_eq!(said(&mut session, &[]), ">ping+SYN 0 1");
    // Other traffic is no answer.
    session.handle_bytes(at(65), &[update(SYN, 1, 0), ping(ACK, 0), ping(ACK, 2)].concat());
    said(&mut session, &[]);
    assert_eq!(session.poll_timeout(), Some(at(71)));
    session.handle_timeout(at(71));
    assert_eq!(session.poll_event(), Some(Event::Ended(EndReason::KeepaliveTimeout)));
    assert_eq!(said(&mut session, &[]), "", "Go sends no GoAway then");
    assert_eq!((session.poll_timeout(), session.streams()), (None, 0));
}

#[test]
fn a_stream_that_is_not_taken_up_ends_the_session() {
    // R1.32; the vector yamux_open_timeout.
    let limits = Limits { keepalive_interval: Duration::ZERO, ..Limits::default() };
    let mut session = session(limits.clone());
    assert_eq!(session.poll_timeout(), None);
    let first = session.open(at(0)).unwrap();
    session.open(at(5)).unwrap();
    assert_eq!(session.poll_timeout(), Some(at(75)));
    session.handle_bytes(at(70), &update(ACK, first.0, 0));
    assert_eq!(session.poll_timeout(), Some(at(80)));
    said(&mut session, &[]);
    session.handle_timeout(at(79));
    assert_eq!(said(&mut session, &[]), "");
    session.handle_timeout(at(80));
    assert_eq!(said(&mut session, &[]), "OpenTimeout");
    let mut session = self::session(Limits { stream_open_timeout: Duration::ZERO, ..limits });
    session.open(at(0)).unwrap();
    assert_eq!(session.poll_timeout(), None);
}

#[test]
fn a_peer_that_does_not_finish_is_reset() {
    // R1.32; the vector yamux_close_timeout_rst.
    let limits = Limits { keepalive_interval: Duration::ZERO, ..Limits::default() };
    let mut session = session(limits.clone());
    feed(&mut session, &[update(SYN, 1, 0), update(SYN, 3, 0), update(SYN, 5, 0)].concat());
    for stream in [1, 3, 5] {
        session.accept(id(stream));
        session.finish(at(10), id(stream));
    }
    assert_eq!(session.poll_timeout(), Some(at(310)));
    said(&mut session, &[]);
    // A FIN or a reset takes the deadline away.
    assert_eq!(feed(&mut session, &update(FIN, 3, 0)), "finished 3, closed 3");
    session.reset(id(5));
    said(&mut session, &[]);
    session.handle_timeout(at(310));
    assert_eq!(said(&mut session, &[]), "reset 1, >update+RST 1 0");
    assert_eq!((session.poll_timeout(), session.streams()), (None, 0));
    // One that we opened: the time runs once the peer has taken it up.
    let own = session.open(at(400)).unwrap();
    session.finish(at(401), own);
    assert_eq!(session.poll_timeout(), Some(at(475)));
    session.handle_bytes(at(410), &update(ACK, own.0, 0));
    assert_eq!(session.poll_timeout(), Some(at(710)));
    let mut session = self::session(Limits { stream_close_timeout: Duration::ZERO, ..limits });
    feed(&mut session, &update(SYN, 1, 0));
    session.finish(at(1), id(1));
    assert_eq!(session.poll_timeout(), None);
}

#[test]
fn a_flood_that_nobody_reads_is_bounded() {
    // R1.42, R1j
    let limits = Limits { max_waiting_pongs: 3, accept_backlog: 0, ..Limits::default() };
    for (frames, what) in [
        ((0..9).map(|n| ping(SYN, n)).collect::<Vec<_>>(), "too many pings"),
        ((0..9).map(|n| update(SYN, n * 2 + 1, 0)).collect(), "too many refused streams"),
    ] {
        let mut session = session(limits.clone());
        // While the owner's outbox moves, each is answered.
        assert_eq!(feed(&mut session, &frames[..5].concat()).matches('>').count(), 5);
        session.set_blocked(true);
        assert_eq!(feed(&mut session, &frames[5..8].concat()).matches('>').count(), 3);
        let mut other = self::session(limits.clone());
        other.set_blocked(true);
        feed(&mut other, &frames[..3].concat());
        // Only an outbox that has moved makes room.
        let mut stuck = self::session(limits.clone());
        for frame in &frames[..4] {
            stuck.set_blocked(true);
            stuck.handle_bytes(at(1), frame);
        }
        assert!(said(&mut stuck, &[]).contains(what));
        other.set_blocked(false);
        other.set_blocked(true);
        assert_eq!(feed(&mut other, &frames[3..6].concat()).matches('>').count(), 3);
        assert_eq!(feed(&mut session, &frames[8]), format!("Violation({what:?}), >goaway 1"));
    }
}

#[test]
fn an_idle_session_is_small() {
    // R1.32: what 50,000 idle connections cost.
    assert!(size_of::<MuxSession>() <= 400, "{}", size_of::<MuxSession>());
    assert!(size_of::<Event>() <= 32, "{}", size_of::<Event>());
}

#[test]
fn output_goes_out_in_order_whichever_way_it_is_taken() {
    let mut session = server();
    let mut taken = Vec::new();
    feed(&mut session, &update(SYN, 1, 0));
    let long = vec![b'x'; 10_000];
    let mut expected = Vec::new();
    for (payload, take) in [(&b"abc"[..], true), (&long, false), (&b"de"[..], true), (&long, true)] {
        session.send(id(1), payload).unwrap();
        expected.extend_from_slice(&data(0, 1, payload));
        assert!(session.has_output());
        if take {
            session.take_output(&mut taken);
            assert!(!session.has_output());
        }
    }
    assert_eq!(taken, expected);
    session.send(id(1), &long).unwrap();
    let mut fresh = Vec::with_capacity(1);
    session.take_output(&mut fresh);
    assert_eq!(fresh, data(0, 1, &long));
    session.go_away(GoAway::Normal);
    session.take_output(&mut fresh);
    assert!(fresh.ends_with(&go_away(0)) && !session.has_output());
}
