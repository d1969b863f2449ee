//! Properties over random bytes and random conversations.
//!
//! The functions named `fuzz_` are the bodies of fuzz targets: any bytes are good for them.

use super::pair::{Act, Pair};
use super::*;
use crate::mux::session::EndReason;
use proptest::prelude::*;

/// Events with the payload of neighbours joined, and the output, of a session whose owner does nothing.
fn passive(side: Side, limits: &Limits, parts: &[&[u8]]) -> (Vec<(Event, Vec<u8>)>, Vec<u8>) {
    let mut session = MuxSession::new(side, limits.clone(), at(0));
    let mut events: Vec<(Event, Vec<u8>)> = Vec::new();
    let mut output = Vec::new();
    for part in parts {
        session.handle_bytes(at(0), part);
        // R1.42: what comes of bytes is bounded by their number.
        assert!(session.streams() <= limits.max_streams);
        let mut count = 0;
        while let Some(event) = session.poll_event() {
            count += 1;
            if let Event::Data(stream, range) = event {
                let payload = part[range].to_vec();
                match events.last_mut() {
                    Some((Event::Data(of, _), joined)) if *of == stream => joined.extend(payload),
                    _ => events.push((Event::Data(stream, 0..0), payload)),
                }
            } else {
                events.push((event, Vec::new()));
            }
        }
        assert!(count <= 3 * (part.len() / HEADER_BYTES + 1) + 2, "{count} events of {} bytes", part.len());
        session.take_output(&mut output);
    }
    let total: usize = parts.iter().map(|part| part.len()).sum();
    assert!(output.len() <= total + HEADER_BYTES, "{} bytes for {total}", output.len());
    let ended = events.iter().position(|(event, _)| matches!(event, Event::Ended(_)));
    assert!(ended.is_none_or(|at| at + 1 == events.len()), "an event after the end");
    (events, output)
}

/// Small caps, so that random bytes meet them.
fn small() -> Limits {
    Limits { window_bytes: 64, accept_backlog: 4, max_streams: 8, max_waiting_pongs: 3, ..Limits::default() }
}

/// Bytes of a peer, whole and in pieces; the first byte says how they are cut, and which side we are.
pub(crate) fn fuzz_bytes(input: &[u8]) {
    let Some((first, bytes)) = input.split_first() else { return };
    let side = if first & 1 == 0 { Side::Server } else { Side::Client };
    let whole = passive(side, &small(), &[bytes]);
    let parts: Vec<&[u8]> = bytes.chunks(usize::from(first >> 1) + 1).collect();
    assert_eq!(passive(side, &small(), &parts), whole);
}

/// A peer's bytes between acts of an owner who answers, reads, finishes and resets as the bytes happen to say.
pub(crate) fn fuzz_owner(input: &[u8]) {
    let mut session = MuxSession::new(Side::Server, small(), at(0));
    let (mut output, mut now, mut given) = (Vec::new(), at(0), 0);
    for part in input.chunks(17) {
        let (act, bytes) = part.split_first().expect("chunks are not empty");
        session.set_blocked(act & 0x80 != 0);
        session.handle_bytes(now, bytes);
        while let Some(event) = session.poll_event() {
            let Some(stream) = event.stream() else { continue };
            match (event, act & 7) {
                (_, 0) => session.reset(stream),
                (Event::Data(_, range), _) => session.consume(stream, range.len()),
                (Event::Opened(_), 2..) => session.accept(stream),
                (Event::Finished(_), 4..) => session.finish(now, stream),
                _ => given += session.send(stream, bytes).unwrap_or(0),
            }
        }
        if act & 0x40 != 0 {
            now = session.poll_timeout().unwrap_or(now);
            session.handle_timeout(now);
        }
        if act & 0x20 != 0
            && let Ok(stream) = session.open(now)
        {
            given += session.send(stream, bytes).unwrap_or(0);
            session.finish(now, stream);
        }
        assert!(session.streams() <= small().max_streams);
        session.take_output(&mut output);
    }
    // For each frame of the peer and each act some frames of 12 bytes, and what we sent.
    assert!(output.len() <= given + 12 * 12 * (input.len() + 1));
    frames(&output);
}

fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        2 => Just(Act::Open),
        3 => any::<usize>().prop_map(Act::Accept),
        8 => (any::<usize>(), 0usize..150).prop_map(|(pick, length)| Act::Send(pick, length)),
        8 => (any::<usize>(), 0usize..100).prop_map(|(pick, bytes)| Act::Consume(pick, bytes)),
        2 => any::<usize>().prop_map(Act::Finish),
        1 => any::<usize>().prop_map(Act::Reset),
        12 => (1usize..100).prop_map(Act::Deliver),
    ]
}

/// One frame of a peer, mostly a sound one.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let stream = prop_oneof![8 => 0u32..12, 1 => any::<u32>()];
    let flags = prop_oneof![
        4 => Just(0),
        4 => Just(SYN),
        2 => Just(ACK),
        2 => Just(FIN),
        1 => Just(RST),
        1 => 0u16..16,
        1 => any::<u16>()
    ];
    let delta = prop_oneof![8 => 0u32..100, 1 => any::<u32>()];
    let payload = proptest::collection::vec(any::<u8>(), 0..24);
    prop_oneof![
        6 => (flags.clone(), stream.clone(), payload).prop_map(|(flags, stream, payload)| data(flags, stream, &payload)),
        6 => (flags.clone(), stream, delta).prop_map(|(flags, stream, delta)| update(flags, stream, delta)),
        2 => (flags, any::<u32>()).prop_map(|(flags, value)| ping(flags, value)),
        1 => prop_oneof![4 => Just(0u32), 1 => any::<u32>()].prop_map(go_away),
    ]
}

/// A conversation of a client that keeps the rules: some streams, opened, used and ended in any order.
fn sound_conversation() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec((0u32..4, 0usize..4, 0usize..20), 0..40).prop_map(|steps| {
        let mut bytes = Vec::new();
        let mut next = 1;
        let mut open = [0; 4];
        let mut left = [0; 4];
        for (place, step, length) in steps {
            let slot = place as usize;
            if open[slot] == 0 {
                (open[slot], left[slot], next) = (next, 64, next + 2);
                bytes.extend(update(SYN, open[slot], 0));
            } else if step < 3 && length <= left[slot] {
                left[slot] -= length;
                bytes.extend(data(0, open[slot], &vec![b'x'; length]));
            } else {
                bytes.extend(update(if step == 3 { RST } else { FIN }, open[slot], 0));
                open[slot] = 0;
            }
        }
        bytes
    })
}

/// A change to some bytes.
#[derive(Clone, Debug)]
enum Mutation {
    Flip(usize, u8),
    Cut(usize, usize),
    Repeat(usize, usize),
    Insert(usize, Vec<u8>),
}

fn any_mutation() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        4 => (any::<usize>(), 1u8..).prop_map(|(place, bits)| Mutation::Flip(place, bits)),
        1 => (any::<usize>(), 1usize..30).prop_map(|(place, length)| Mutation::Cut(place, length)),
        1 => (any::<usize>(), 1usize..30).prop_map(|(place, length)| Mutation::Repeat(place, length)),
        1 => (any::<usize>(), proptest::collection::vec(any::<u8>(), 1..20)).prop_map(|(p, b)| Mutation::Insert(p, b)),
    ]
}

fn mutate(bytes: &mut Vec<u8>, mutation: &Mutation) {
    let length = bytes.len();
    let range = |place: usize, wanted: usize| {
        let start = place % (length + 1);
        start..length.min(start + wanted)
    };
    match mutation {
        Mutation::Flip(place, bits) => {
            if length > 0 {
                bytes[place % length] ^= bits;
            }
        }
        Mutation::Cut(place, wanted) => drop(bytes.drain(range(*place, *wanted))),
        Mutation::Repeat(place, wanted) => bytes.extend_from_within(range(*place, *wanted)),
        Mutation::Insert(place, inserted) => {
            let at = place % (length + 1);
            bytes.splice(at..at, inserted.iter().copied());
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        // R1.42, R6.11
        fuzz_bytes(&bytes);
        fuzz_owner(&bytes);
    }

    #[test]
    fn any_frames_are_survived(
        first in any::<u8>(),
        sent in proptest::collection::vec(any_frame(), 0..40),
    ) {
        // R1.42, R6.11
        let bytes = sent.concat();
        fuzz_bytes(&[&[first], &bytes[..]].concat());
        // The acts stand between the frames' bytes.
        let acted: Vec<u8> = bytes.chunks(16).flat_map(|part| [&[first.rotate_left(3)], part].concat()).collect();
        fuzz_owner(&acted);
    }

    #[test]
    fn damaged_conversations_are_survived(
        first in any::<u8>(),
        mut bytes in sound_conversation(),
        mutations in proptest::collection::vec(any_mutation(), 0..5),
    ) {
        // R1.42, R6.11
        for mutation in &mutations {
            mutate(&mut bytes, mutation);
        }
        fuzz_bytes(&[&[first], &bytes[..]].concat());
    }

    #[test]
    fn sound_conversations_never_end_the_session(bytes in sound_conversation()) {
        // R1.42
        let (events, _) = passive(Side::Server, &Limits { accept_backlog: 64, max_streams: 64, ..small() }, &[&bytes]);
        prop_assert!(!events.iter().any(|(event, _)| matches!(event, Event::Ended(_))), "{:?}", events);
    }

    #[test]
    fn two_sessions_agree(acts in proptest::collection::vec((0usize..2, any_act()), 0..250)) {
        // R1.41, R1.42, R6.11
        let mut pair = Pair::new();
        for (end, act) in acts {
            pair.act(end, act);
        }
        pair.settle();
    }
}

#[test]
fn known_inputs_stay_harmless() {
    // R1.42: a sample that does not depend on chance.
    for first in [0u8, 1, 2, 23, 255] {
        for frame_type in 0..=5 {
            for flags in 0..16 {
                let one = [0, frame_type, 0, flags, 0, 0, 0, 1, 0, 0, 0, 3, b'a', b'b', b'c'];
                let twice: Vec<u8> = [&[first][..], &update(SYN, 1, 0), &one, &one, &ping(SYN, 1)].concat();
                fuzz_bytes(&twice);
                fuzz_owner(&twice);
            }
        }
    }
}

#[test]
fn a_flood_of_any_frame_ends_or_stays_small() {
    // R1.42, R1j
    for frame in [ping(SYN, 1), update(SYN, 1, 0), update(0, 9, 1), data(0, 9, b""), go_away(0), update(RST, 1, 0)] {
        let mut session = MuxSession::new(Side::Server, small(), at(0));
        session.set_blocked(true);
        let mut ended = None;
        for n in 0..1000u32 {
            let mut frame = frame.clone();
            if frame[1] == 1 && frame[3] == 1 {
                frame[4..8].copy_from_slice(&(n * 2 + 1).to_be_bytes());
            }
            session.handle_bytes(at(0), &frame);
            while let Some(event) = session.poll_event() {
                if let Event::Ended(reason) = event {
                    ended = Some(reason);
                }
            }
        }
        let mut output = Vec::new();
        session.take_output(&mut output);
        assert!(output.len() <= 12 * 5 && session.streams() <= 8, "{frame:?}");
        assert!(matches!(ended, None | Some(EndReason::Violation("too many pings" | "too many refused streams"))));
    }
}
