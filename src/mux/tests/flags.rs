//! Each flag on each kind of frame, in each state of a stream.

use super::*;

/// How a stream came to be where it is. The session is a server's.
#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    /// The peer never opened it.
    Unknown,
    /// Opened by the peer, not accepted.
    Backlog,
    /// Opened by the peer and accepted.
    Open,
    /// The peer has finished, we have not.
    PeerFinished,
    /// As that, and not accepted.
    BacklogFinished,
    /// We have finished, the peer has not.
    Finished,
    /// Both have.
    Closed,
    /// The peer reset it.
    PeerReset,
    /// We reset it.
    OwnReset,
    /// Opened by us, no answer.
    Proposed,
    /// Opened by us, acknowledged.
    OwnOpen,
    /// Opened and finished by us, no answer.
    ProposedFinished,
}

use State::*;

/// A session with one stream in a state, and the stream's id.
fn session_in(state: State) -> (MuxSession, u32) {
    let mut session = server();
    let stream = match state {
        Proposed | OwnOpen | ProposedFinished => 2,
        _ => 1,
    };
    if stream == 2 {
        session.open(at(0)).unwrap();
    } else if state != Unknown {
        feed(&mut session, &update(SYN, 1, 0));
        if !matches!(state, Backlog | BacklogFinished) {
            session.accept(id(1));
        }
    }
    match state {
        PeerFinished | BacklogFinished | Closed => drop(feed(&mut session, &update(FIN, 1, 0))),
        PeerReset => drop(feed(&mut session, &update(RST, 1, 0))),
        OwnReset => session.reset(id(1)),
        OwnOpen => drop(feed(&mut session, &update(ACK, 2, 0))),
        _ => {}
    }
    if matches!(state, Finished | Closed | ProposedFinished) {
        session.finish(at(0), id(stream));
    }
    said(&mut session, &[]);
    (session, stream)
}

const DUPLICATE: &str = "Violation(\"duplicate stream initiated\"), >goaway 1";
const USED: &str = "Violation(\"stream id already used\"), >goaway 1";

/// What a window update of delta 0 with one flag does. `#` stands for the stream's id.
const UPDATES: &[(State, [&str; 5])] = &[
    //                  none SYN       ACK FIN                        RST
    (Unknown, ["", "opened #", "", "", ""]),
    (Backlog, ["", DUPLICATE, "", "finished #", "reset #"]),
    (Open, ["", DUPLICATE, "", "finished #", "reset #"]),
    (PeerFinished, ["", DUPLICATE, "", "", "reset #"]),
    (BacklogFinished, ["", DUPLICATE, "", "", "reset #"]),
    (Finished, ["", DUPLICATE, "", "finished #, closed #", "reset #"]),
    (Closed, ["", USED, "", "", ""]),
    (PeerReset, ["", USED, "", "", ""]),
    (OwnReset, ["", USED, "", "", ""]),
    (Proposed, ["", DUPLICATE, "", "finished #", "refused #"]),
    (OwnOpen, ["", DUPLICATE, "", "finished #", "reset #"]),
    (ProposedFinished, ["", DUPLICATE, "", "finished #, closed #", "refused #"]),
];

/// What a data frame of 3 bytes with one flag does.
const DATA: &[(State, [&str; 5])] = &[
    (Unknown, ["", "opened #, data # abc", "", "", ""]),
    (Backlog, ["data # abc", DUPLICATE, "data # abc", "data # abc, finished #", "reset #"]),
    (Open, ["data # abc", DUPLICATE, "data # abc", "data # abc, finished #", "reset #"]),
    (PeerFinished, ["data # abc", DUPLICATE, "data # abc", "data # abc", "reset #"]),
    (BacklogFinished, ["data # abc", DUPLICATE, "data # abc", "data # abc", "reset #"]),
    (Finished, ["data # abc", DUPLICATE, "data # abc", "data # abc, finished #, closed #", "reset #"]),
    (Closed, ["", USED, "", "", ""]),
    (PeerReset, ["", USED, "", "", ""]),
    (OwnReset, ["", USED, "", "", ""]),
    (Proposed, ["data # abc", DUPLICATE, "data # abc", "data # abc, finished #", "refused #"]),
    (OwnOpen, ["data # abc", DUPLICATE, "data # abc", "data # abc, finished #", "reset #"]),
    (ProposedFinished, ["data # abc", DUPLICATE, "data # abc", "data # abc, finished #, closed #", "refused #"]),
];

#[test]
fn each_flag_in_each_state() {
    // R1.42
    for (table, payload) in [(UPDATES, None), (DATA, Some(&b"abc"[..]))] {
        for (state, expected) in table {
            for (flags, expected) in [0, SYN, ACK, FIN, RST].into_iter().zip(expected) {
                // Bits without a meaning change nothing.
                for unknown in [0, 0x00f0, 0xfff0] {
                    let (mut session, stream) = session_in(*state);
                    let bytes = match payload {
                        None => update(flags | unknown, stream, 0),
                        Some(payload) => data(flags | unknown, stream, payload),
                    };
                    let seen = feed(&mut session, &bytes);
                    let expected = expected.replace('#', &stream.to_string());
                    assert_eq!(seen, expected, "{state:?}, flags {flags}, {payload:?}");
                    if !expected.contains("Violation") {
                        // The session lives, and knows where the next frame begins.
                        assert_eq!(feed(&mut session, &ping(SYN, 77)), ">ping+ACK 0 77");
                    }
                }
            }
        }
    }
}

#[test]
fn what_is_left_to_us_in_each_state() {
    // R1.42: send, finish, reset, accept.
    for (state, send, finish, reset, accept) in [
        (Unknown, false, "", "", ""),
        (Backlog, true, ">update+FIN # 0", ">update+RST # 0", ">update+ACK # 0"),
        (Open, true, ">update+FIN # 0", ">update+RST # 0", ""),
        (PeerFinished, true, "closed #, >update+FIN # 0", ">update+RST # 0", ""),
        (BacklogFinished, true, "closed #, >update+FIN # 0", ">update+RST # 0", ">update+ACK # 0"),
        (Finished, false, "", ">update+RST # 0", ""),
        (Closed, false, "", "", ""),
        (PeerReset, false, "", "", ""),
        (OwnReset, false, "", "", ""),
        (Proposed, true, ">update+FIN # 0", ">update+RST # 0", ""),
        (OwnOpen, true, ">update+FIN # 0", ">update+RST # 0", ""),
        (ProposedFinished, false, "", ">update+RST # 0", ""),
    ] {
        let (mut session, stream) = session_in(state);
        assert_eq!(session.credit(id(stream)), if send { 262_144 } else { 0 }, "{state:?}");
        assert_eq!(session.send(id(stream), b"abc").is_ok(), send, "{state:?}");
        let expected = if send { format!(">data {stream} abc") } else { String::new() };
        assert_eq!(said(&mut session, &[]), expected, "{state:?}");
        for (act, expected) in [finish, reset, accept].into_iter().enumerate() {
            let (mut session, stream) = session_in(state);
            for expected in [expected, ""] {
                match act {
                    0 => session.finish(at(1), id(stream)),
                    1 => session.reset(id(stream)),
                    _ => session.accept(id(stream)),
                }
                let expected = expected.replace('#', &stream.to_string());
                assert_eq!(said(&mut session, &[]), expected, "{state:?}");
            }
        }
    }
}

#[test]
fn flags_come_together() {
    // R1.42; SYN and FIN on a data frame as in the vector syn_fin_in_data_frame.
    for (bytes, expected) in [
        (data(SYN | FIN, 1, b"abc"), "opened 1, data 1 abc, finished 1"),
        (data(SYN | FIN, 1, b""), "opened 1, finished 1"),
        (data(SYN, 1, b""), "opened 1"),
        (update(SYN | FIN, 1, 0), "opened 1, finished 1"),
        (update(SYN | ACK, 1, 0), "opened 1"),
        (update(SYN | RST, 1, 0), "opened 1, reset 1"),
        (data(SYN | RST, 1, b"abc"), "opened 1, reset 1"),
        (data(SYN | FIN | RST, 1, b"abc"), "opened 1, reset 1"),
    ] {
        assert_eq!(feed(&mut server(), &bytes), expected);
    }
    // Payload after a reset on the same frame is skipped, not read as a header.
    let mut session = server();
    assert_eq!(feed(&mut session, &[data(SYN | RST, 1, b"abc"), ping(SYN, 1)].concat()), {
        "opened 1, reset 1, >ping+ACK 0 1"
    });
    assert_eq!(session.streams(), 0);
}

#[test]
fn ids_of_the_wrong_kind_end_the_session() {
    // R1.42, R1j: odd from clients, even from the server, not 0, used once.
    for (side, wrong, what) in [
        (Side::Server, 2, "stream id of the wrong side"),
        (Side::Client, 1, "stream id of the wrong side"),
        (Side::Server, 0, "stream id zero"),
        (Side::Client, 0, "stream id zero"),
    ] {
        for bytes in [update(SYN, wrong, 0), data(SYN, wrong, b"abc")] {
            let mut session = MuxSession::new(side, Limits::default(), at(0));
            let seen = feed(&mut session, &[bytes, ping(SYN, 1)].concat());
            assert_eq!(seen, format!("Violation({what:?}), >goaway 1"));
        }
    }
    // Without SYN they are only unknown.
    assert_eq!(feed(&mut server(), &[data(FIN, 0, b"abc"), update(RST, 0, 1), ping(SYN, 1)].concat()), {
        ">ping+ACK 0 1"
    });
}

#[test]
fn ids_may_come_late_but_once() {
    // R1.42: Go peers that open streams at the same time send SYNs out of order.
    let mut session = server();
    for (stream, expected) in [(5, "opened 5"), (1, "opened 1"), (9, "opened 9"), (7, "opened 7"), (3, "opened 3")] {
        assert_eq!(feed(&mut session, &update(SYN, stream, 0)), expected);
        session.reset(id(stream));
        assert_eq!(said(&mut session, &[]), format!(">update+RST {stream} 0"));
    }
    assert_eq!(feed(&mut session, &update(SYN, 7, 0)), USED);
    let strict = Limits { max_skipped_ids: 0, ..Limits::default() };
    let mut session = MuxSession::new(Side::Server, strict, at(0));
    assert_eq!(feed(&mut session, &update(SYN, 5, 0)), "opened 5");
    assert_eq!(feed(&mut session, &update(SYN, 3, 0)), USED);
}

#[test]
fn our_ids_are_odd_for_a_client_and_even_for_a_server() {
    // R1.42
    for (mut session, first) in [(client(), 1), (server(), 2)] {
        for step in 0..4 {
            let stream = session.open(at(0)).unwrap();
            assert_eq!(stream, id(first + 2 * step));
            assert_eq!(said(&mut session, &[]), format!(">update+SYN {stream} 0"));
            session.reset(stream);
            said(&mut session, &[]);
        }
    }
}

#[test]
fn an_answer_counts_as_taking_up() {
    // R1.32: data, FIN or credit before the ACK, or without one.
    for bytes in [update(ACK, 1, 0), update(0, 1, 5), data(0, 1, b"abc"), update(FIN, 1, 0), data(ACK | FIN, 1, b"")] {
        let mut session = client();
        session.open(at(0)).unwrap();
        assert_eq!(session.poll_timeout(), Some(at(30)));
        feed(&mut session, &bytes);
        feed(&mut session, &ping(ACK, 0));
        session.handle_timeout(at(29));
        session.handle_timeout(at(80));
        assert_eq!(said(&mut session, &[]), ">ping+SYN 0 0", "no time-out of the stream after {bytes:?}");
    }
}

#[test]
fn pings_are_answered_with_their_value() {
    // R1.42; the cases of the vector viol_ping_noflags.
    let mut session = server();
    let bytes = [ping(0, 5), ping(ACK, 6), ping(SYN, 7), ping(SYN | ACK, 8), frame(FrameType::Ping, SYN, 5, 9)];
    assert_eq!(feed(&mut session, &bytes.concat()), ">ping+ACK 0 7, >ping+ACK 0 8, >ping+ACK 0 9");
}

#[test]
fn go_away_of_the_peer() {
    // R1.42
    let mut session = server();
    feed(&mut session, &update(SYN, 1, 0));
    let own = session.open(at(0)).unwrap();
    said(&mut session, &[]);
    assert_eq!(feed(&mut session, &go_away(0)), "gone");
    assert_eq!(feed(&mut session, &go_away(0)), "");
    assert_eq!(session.open(at(0)), Err(super::super::session::OpenError::GoneAway));
    // What is open goes on, and the peer may still open.
    assert_eq!(session.send(own, b"abc"), Ok(3));
    assert_eq!(feed(&mut session, &update(SYN, 3, 0)), "opened 3, >data 2 abc");
    for code in [1, 2, 9, u32::MAX] {
        let mut session = server();
        let seen = feed(&mut session, &[update(SYN, 1, 0), go_away(code), update(SYN, 3, 0)].concat());
        assert_eq!(seen, format!("opened 1, PeerError({code})"));
    }
}

#[test]
fn our_go_away_refuses_new_streams() {
    // R1.37; the vector yamux_goaway_syn_rst.
    use crate::wire::yamux::GoAway;
    let mut session = server();
    feed(&mut session, &update(SYN, 1, 0));
    for expected in [">goaway 0", ""] {
        session.go_away(GoAway::Normal);
        assert_eq!(said(&mut session, &[]), expected);
    }
    assert_eq!(feed(&mut session, &[data(SYN, 3, b"abc"), data(0, 1, b"abc")].concat()), {
        "data 1 abc, >update+RST 3 0"
    });
    assert!(session.open(at(0)).is_err());
    session.go_away(GoAway::InternalError);
    assert_eq!(said(&mut session, &[]), ">goaway 2");
    assert_eq!(session.streams(), 1);
}

#[test]
fn nothing_comes_after_the_end() {
    // R1.42: GoAway(1) ends only that session.
    for (bytes, what) in [
        (vec![1; 12], "invalid protocol version"),
        ([0, 4].iter().chain(&[0; 10]).copied().collect(), "invalid msg type"),
        (update(SYN, 1, 0), "duplicate stream initiated"),
        (update(0, 1, u32::MAX), "send window overflow"),
        (frame(FrameType::Data, 0, 1, 262_145), "recv window exceeded"),
    ] {
        let mut session = server();
        feed(&mut session, &update(SYN, 1, 0));
        let own = session.open(at(0)).unwrap();
        said(&mut session, &[]);
        let seen = feed(&mut session, &[bytes, update(SYN, 3, 0), ping(SYN, 1)].concat());
        assert_eq!(seen, format!("Violation({what:?}), >goaway 1"));
        assert_eq!(feed(&mut session, &ping(SYN, 2)), "");
        assert_eq!((session.streams(), session.poll_timeout()), (0, None));
        session.handle_timeout(at(1000));
        session.accept(id(1));
        session.finish(at(0), own);
        session.reset(own);
        session.consume(own, 5);
        session.go_away(crate::wire::yamux::GoAway::Normal);
        assert!(session.send(own, b"abc").is_err() && session.open(at(0)).is_err());
        assert_eq!(said(&mut session, &[]), "");
    }
}

#[test]
fn a_stream_that_we_reset_says_nothing_more() {
    // R1.42
    let mut session = server();
    let bytes = [data(SYN, 1, b"abc"), data(SYN, 3, b"de"), data(FIN, 1, b"fg"), update(FIN, 3, 0)].concat();
    session.handle_bytes(at(1), &bytes);
    assert_eq!(session.poll_event(), Some(Event::Opened(id(1))));
    session.reset(id(1));
    assert_eq!(said(&mut session, &bytes), "opened 3, data 3 de, finished 3, >update+RST 1 0");
    // Also when its payload is half way, and when the peer has reset it in the same bytes.
    let cut = data(SYN, 5, b"abcdef");
    session.handle_bytes(at(1), &cut[..14]);
    assert_eq!(said(&mut session, &cut), "opened 5, data 5 ab");
    session.reset(id(5));
    assert_eq!(feed(&mut session, &cut[14..]), ">update+RST 5 0");
    let bytes = [data(SYN, 7, b"abc"), update(RST, 7, 0)].concat();
    session.handle_bytes(at(1), &bytes);
    assert_eq!(session.poll_event(), Some(Event::Opened(id(7))));
    session.reset(id(7));
    assert_eq!(said(&mut session, &bytes), "");
}

#[test]
fn fin_with_payload_waits_for_it() {
    // R1.42: we finish while the peer's last frame is half way.
    let mut session = server();
    let bytes = data(SYN | FIN, 1, b"abcdef");
    assert_eq!(feed(&mut session, &bytes[..15]), "opened 1, data 1 abc");
    session.accept(id(1));
    session.finish(at(1), id(1));
    assert_eq!(said(&mut session, &[]), ">update+ACK 1 0, >update+FIN 1 0");
    assert_eq!(feed(&mut session, &bytes[15..]), "data 1 def, finished 1, closed 1");
}
