//! Captured conversations, replayed: the machine takes the place of one Go peer. What that peer wrote tells what its
//! application did; what the machine then writes must be the same frames, however the other's bytes are cut.

use super::*;
use crate::mux::session::EndReason;

struct Turn {
    from_client: bool,
    at: Instant,
    bytes: Vec<u8>,
}

struct Case {
    name: &'static str,
    sides: Vec<Side>,
    limits: Limits,
    turns: Vec<Turn>,
}

/// How holdfast ends a session that was replayed; those that are not named live on.
const ENDINGS: &[(&str, EndReason)] = &[
    ("goaway_proto_from_client", EndReason::PeerError(1)),
    ("goaway_internal_from_client", EndReason::PeerError(2)),
    ("goaway_unknown_from_client", EndReason::PeerError(9)),
    ("viol_dup_syn", EndReason::Violation("duplicate stream initiated")),
    ("viol_dup_syn__v112", EndReason::Violation("duplicate stream initiated")),
    ("viol_window_exceeded", EndReason::Violation("recv window exceeded")),
    ("viol_yamux_type", EndReason::Violation("invalid msg type")),
    ("viol_yamux_version", EndReason::Violation("invalid protocol version")),
    // Go peers serve these two (R1j).
    ("viol_even_stream_id", EndReason::Violation("stream id of the wrong side")),
    ("viol_stream_id_zero", EndReason::Violation("stream id zero")),
];

fn ending(name: &str) -> Option<&EndReason> {
    ENDINGS.iter().find(|(of, _)| *of == name).map(|(_, reason)| reason)
}

fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in include_str!("vectors.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(head) = line.strip_prefix("case ") {
            cases.push(case(head));
            continue;
        }
        let [direction, micros, bytes] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let bytes = match bytes.strip_prefix('+') {
            None => unhex(bytes),
            Some(header) => {
                let mut bytes = unhex(header);
                let header = Header::decode(bytes.first_chunk().unwrap()).unwrap();
                let payload = if header.frame_type == FrameType::Data { header.length } else { 0 };
                bytes.extend((0..payload).map(|n| u8::try_from(n % 251).unwrap()));
                bytes
            }
        };
        let turn = Turn {
            from_client: direction == "c2s",
            at: Instant::from_nanos(micros.parse::<u64>().unwrap() * 1000),
            bytes,
        };
        cases.last_mut().unwrap().turns.push(turn);
    }
    cases
}

fn case(head: &'static str) -> Case {
    let words: Vec<_> = head.split(", ").collect();
    let sides = if words[1] == "both" { vec![Side::Client, Side::Server] } else { vec![Side::Server] };
    let mut limits = Limits::default();
    if let Some((key, millis)) = words.get(2).and_then(|limit| limit.split_once('=')) {
        let time = Duration::from_millis(millis.parse().unwrap());
        match key {
            "keepalive" => limits.keepalive_interval = time,
            "close" => limits.stream_close_timeout = time,
            "open" => limits.stream_open_timeout = time,
            _ => panic!("{key}"),
        }
    }
    Case { name: words[0], sides, limits, turns: Vec::new() }
}

fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// How the peer's bytes are cut.
#[derive(Clone, Copy)]
enum Cut {
    Whole,
    At(usize),
    EachByte,
}

/// What came of a replay: events, with the payload of each stream joined, and the output.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    events: Vec<Event>,
    payload: Vec<(u32, Vec<u8>)>,
    output: Vec<u8>,
}

impl Seen {
    fn collect(&mut self, session: &mut MuxSession, bytes: &[u8]) {
        while let Some(event) = session.poll_event() {
            match event {
                Event::Data(stream, range) => match self.payload.iter_mut().find(|(of, _)| *of == stream.0) {
                    Some((_, joined)) => joined.extend_from_slice(&bytes[range]),
                    None => self.payload.push((stream.0, bytes[range].to_vec())),
                },
                event => self.events.push(event),
            }
        }
        session.take_output(&mut self.output);
    }
}

fn replay(case: &Case, side: Side, cut: Cut) -> Seen {
    let mut session = MuxSession::new(side, case.limits.clone(), Instant::ZERO);
    let mut seen = Seen::default();
    let mut offset = 0;
    for turn in &case.turns {
        if turn.from_client == (side == Side::Client) {
            for (header, payload) in frames(&turn.bytes) {
                act(case, &mut session, turn.at, header, payload);
                seen.collect(&mut session, &[]);
            }
            continue;
        }
        let parts: Vec<&[u8]> = match cut {
            Cut::At(place) if place > offset && place < offset + turn.bytes.len() => {
                let (one, two) = turn.bytes.split_at(place - offset);
                vec![one, two]
            }
            Cut::EachByte => turn.bytes.chunks(1).collect(),
            _ => vec![&turn.bytes],
        };
        for part in parts {
            session.handle_bytes(turn.at, part);
            seen.collect(&mut session, part);
        }
        offset += turn.bytes.len();
    }
    seen
}

/// Does what the application must have done for its peer to write this frame.
fn act(case: &Case, session: &mut MuxSession, now: Instant, header: Header, payload: &[u8]) {
    let stream = id(header.stream);
    match (header.frame_type, header.flags) {
        (FrameType::Ping, ACK) => {}
        (FrameType::Ping, _) => {
            let due = session.poll_timeout().unwrap();
            let apart = now.since(due).max(due.since(now));
            // In one case the application pings when it likes.
            let on_time = apart < Duration::from_millis(100) || case.name == "yamux_ping";
            assert!(on_time, "{}: a ping at {now}, due at {due}", case.name);
            session.handle_timeout(now.max(due));
        }
        (FrameType::GoAway, _) => session.go_away(crate::wire::yamux::GoAway::Normal),
        (FrameType::Data, 0) => assert_eq!(session.send(stream, payload), Ok(payload.len())),
        (FrameType::WindowUpdate, 0) => session.consume(stream, header.length as usize),
        (FrameType::WindowUpdate, SYN) => assert_eq!(session.open(now), Ok(stream)),
        (FrameType::WindowUpdate, ACK) => session.accept(stream),
        (FrameType::WindowUpdate, FIN) => session.finish(now, stream),
        // A refusal was written with the peer's bytes; what is left is the time-out of a close.
        (FrameType::WindowUpdate, RST) => session.handle_timeout(now),
        _ => panic!("{header:?}"),
    }
}

/// All bytes of one side.
fn bytes_of(case: &Case, client: bool) -> Vec<u8> {
    case.turns.iter().filter(|turn| turn.from_client == client).flat_map(|turn| turn.bytes.clone()).collect()
}

#[test]
fn go_conversations_are_written_as_go_writes_them() {
    // R1.32, R1.41, R1.42
    let cases = cases();
    assert_eq!(cases.len(), 36);
    for case in &cases {
        for side in &case.sides {
            let seen = replay(case, *side, Cut::Whole);
            let mut expected = bytes_of(case, *side == Side::Client);
            if matches!(ending(case.name), Some(EndReason::Violation(_))) {
                // Go peers close before theirs gets out.
                expected.extend(go_away(1));
            }
            let (ours, pongs) = split_pongs(&seen.output);
            // Go answers pings from a task of its own: their order among other frames is chance.
            let (theirs, theirs_pongs) = split_pongs(&expected);
            // Go grants credit even after the peer's FIN; holdfast has no use for that frame.
            let useless = case.name == "yamux_window" && *side == Side::Server;
            let theirs = if useless { [&theirs[..3], &theirs[4..]].concat() } else { theirs };
            let words = |frames: &[(Header, &[u8])]| -> Vec<_> { frames.iter().map(|(h, p)| in_words(h, p)).collect() };
            if matches!(case.name, "viol_even_stream_id" | "viol_stream_id_zero") {
                assert_eq!(words(&ours), [">goaway 1"], "{}", case.name);
                continue;
            }
            assert_eq!(words(&ours), words(&theirs), "{} as {side:?}", case.name);
            assert_eq!(pongs, theirs_pongs, "{} as {side:?}", case.name);
        }
    }
}

/// Frames but answers to pings, and the sorted values of those.
fn split_pongs(bytes: &[u8]) -> (Vec<(Header, &[u8])>, Vec<u32>) {
    let is_pong = |header: &Header| header.frame_type == FrameType::Ping && header.flags == ACK;
    let all = frames(bytes);
    let mut pongs: Vec<u32> =
        all.iter().filter(|(header, _)| is_pong(header)).map(|(header, _)| header.length).collect();
    pongs.sort_unstable();
    (all.into_iter().filter(|(header, _)| !is_pong(header)).collect(), pongs)
}

#[test]
fn go_conversations_arrive_whole() {
    // R1.41, R1.42
    for case in &cases() {
        for side in &case.sides {
            let seen = replay(case, *side, Cut::Whole);
            let ended = seen.events.iter().find_map(|event| match event {
                Event::Ended(reason) => Some(reason),
                _ => None,
            });
            assert_eq!(ended, ending(case.name), "{}", case.name);
            if ended.is_some() {
                continue;
            }
            let theirs = bytes_of(case, *side == Side::Server);
            let mut sent: Vec<(u32, Vec<u8>)> = Vec::new();
            for (header, payload) in frames(&theirs) {
                // In one case the peer sends to a stream that never was.
                if header.frame_type != FrameType::Data || header.stream == 9 {
                    continue;
                }
                match sent.iter_mut().find(|(of, _)| *of == header.stream) {
                    Some((_, joined)) => joined.extend_from_slice(payload),
                    None => sent.push((header.stream, payload.to_vec())),
                }
            }
            assert_eq!(seen.payload, sent, "{} as {side:?}", case.name);
        }
    }
}

#[test]
fn cuts_change_nothing() {
    // R1.42
    for case in &cases() {
        for side in &case.sides {
            let whole = replay(case, *side, Cut::Whole);
            let length = bytes_of(case, *side == Side::Server).len();
            // Long ones at a sample of places.
            for place in (1..length).step_by(length / 1000 + 1) {
                assert!(replay(case, *side, Cut::At(place)) == whole, "{} as {side:?} cut at {place}", case.name);
            }
            assert!(replay(case, *side, Cut::EachByte) == whole, "{} as {side:?} in single bytes", case.name);
        }
    }
}
