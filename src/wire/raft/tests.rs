//! Every frame both ways, cut anywhere; noise and harmed frames are refused within bounds.

#![allow(clippy::unwrap_used)]

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn hello() -> RaftFrame {
    RaftFrame::Hello(Box::default())
}

fn bytes_of(frames: &[RaftFrame]) -> Vec<u8> {
    let mut out = Vec::new();
    for frame in frames {
        assert!(encode(frame, &mut out));
    }
    out
}

fn decode(pieces: &[&[u8]]) -> Result<Vec<RaftFrame>, FrameError> {
    let mut frames = Frames::default();
    let mut found = Vec::new();
    for piece in pieces {
        let mut rest = *piece;
        while let Some(frame) = frames.next_frame(&mut rest)? {
            found.push(frame);
        }
        assert!(rest.is_empty());
        assert!(frames.held.capacity() <= 2 * (frames.held.len() + 4), "memory for bytes that have not come");
    }
    Ok(found)
}

fn text() -> impl Strategy<Value = String> {
    "[a-z0-9.:é-]{0,40}"
}

fn server() -> impl Strategy<Value = ServerHello> {
    (vec(text(), 7), any::<u64>(), any::<i64>()).prop_map(|(t, replica, since)| ServerHello {
        id: t[0].clone(),
        replica,
        name: t[1].clone(),
        region: t[2].clone(),
        datacenter: t[3].clone(),
        rpc_addr: t[4].clone(),
        http_addr: t[5].clone(),
        build: t[6].clone(),
        since,
    })
}

fn place() -> impl Strategy<Value = SnapshotPlace> {
    (vec(vec(any::<u64>(), 0..5), 4), any::<u64>(), any::<u64>(), any::<bool>()).prop_map(
        |(lists, index, term, auto_leave)| SnapshotPlace {
            index,
            term,
            voters: lists[0].clone(),
            learners: lists[1].clone(),
            voters_outgoing: lists[2].clone(),
            learners_next: lists[3].clone(),
            auto_leave,
        },
    )
}

fn message() -> impl Strategy<Value = Box<RaftMessage>> {
    let entry = (any::<u8>(), any::<u64>(), any::<u64>(), vec(any::<u8>(), 0..200));
    let entry = entry.prop_map(|(kind, term, index, data)| RaftEntry { kind, term, index, data });
    let numbers = vec(any::<u64>(), 9);
    let rest = (vec(any::<u8>(), 0..20), any::<i64>(), any::<bool>(), any::<u8>());
    (numbers, vec(entry, 0..6), proptest::option::of(place()), rest).prop_map(
        |(n, entries, snapshot, (context, priority, reject, kind))| {
            Box::new(RaftMessage {
                kind,
                to: n[0],
                from: n[1],
                term: n[2],
                log_term: n[3],
                index: n[4],
                entries,
                commit: n[5],
                commit_term: n[6],
                snapshot,
                request_snapshot: n[7],
                reject,
                reject_hint: n[8],
                context,
                priority,
            })
        },
    )
}

fn any_hello() -> impl Strategy<Value = RaftFrame> {
    let lists = (vec(text(), 0..4), vec(server(), 0..4), vec((text(), vec(text(), 0..3)), 0..3));
    (any::<u64>(), text(), server(), any::<u64>(), lists, any::<bool>()).prop_map(
        |(version, cluster_id, server, bootstrap_expect, (founders, known, regions), removed)| {
            let hello = Hello { version, cluster_id, server, bootstrap_expect, founders, known, regions, removed };
            RaftFrame::Hello(Box::new(hello))
        },
    )
}

fn beat() -> impl Strategy<Value = RaftFrame> {
    (vec(any::<u64>(), 6), any::<bool>(), vec(any::<u8>(), 0..33)).prop_map(|(n, leaving, digest)| {
        RaftFrame::Beat(Beat {
            number: n[0],
            term: n[1],
            applied: n[2],
            last_index: n[3],
            leader: n[4],
            leaving,
            digest_index: n[5],
            digest,
        })
    })
}

fn frame() -> impl Strategy<Value = RaftFrame> {
    prop_oneof![
        any_hello(),
        text().prop_map(|reason| RaftFrame::Refused { reason }),
        message().prop_map(RaftFrame::Message),
        beat(),
        (any::<u64>(), message()).prop_map(|(transfer, message)| RaftFrame::SnapshotBegin { transfer, message }),
        (any::<u64>(), any::<u32>(), vec(any::<u8>(), 0..500), any::<bool>())
            .prop_map(|(transfer, number, bytes, last)| RaftFrame::SnapshotChunk { transfer, number, bytes, last }),
        (any::<u64>(), any::<u32>(), any::<u32>()).prop_map(|(transfer, next, window)| RaftFrame::SnapshotAck {
            transfer,
            next,
            window
        }),
        (any::<u64>(), text()).prop_map(|(transfer, error)| RaftFrame::SnapshotDone { transfer, error }),
        vec(text(), 0..5).prop_map(|key_ids| RaftFrame::KeysWanted { key_ids }),
        (text(), vec(any::<u8>(), 0..100))
            .prop_map(|(key_id, secret)| RaftFrame::Key { key_id, secret: KeyFile(secret) }),
        text().prop_map(|key_id| RaftFrame::KeyKept { key_id }),
    ]
}

/// One frame around an array that is given as bytes, after a hello.
fn after_hello(array: &[u8]) -> Result<Vec<RaftFrame>, FrameError> {
    let mut bytes = bytes_of(&[hello()]);
    bytes.extend(u32::try_from(array.len()).unwrap().to_be_bytes());
    bytes.extend(array);
    decode(&[&bytes])
}

#[test]
fn what_is_no_frame_is_refused_with_tag_and_byte() {
    let hello_bytes = bytes_of(&[hello()]).len() as u64;
    for (array, tag, at, what) in [
        (&b"\x91\x63"[..], Some(99), 2, "unknown tag"),
        (b"\x90", None, 1, "too few fields"),
        (b"\x01", None, 1, "invalid byte descriptor for decoding a list"),
        (b"\x91\x0b", Some(11), 2, "too few fields"),
        (b"\x92\x0b\xa1", Some(11), 2, "unexpected EOF"),
        (b"\x92\x0b\xa1a\xc0", Some(11), 4, "bytes behind the frame"),
        (b"\x92\x03\x91\x01", Some(3), 3, "too few fields"),
        (b"\x94\x07\x01\xcf\xff\xff\xff\xff\xff\xff\xff\xff\x01", Some(7), 12, "integer out of range"),
        (b"\xdd\xff\xff\xff\xff", None, 0, "unexpected EOF"),
    ] {
        let error = after_hello(array).unwrap_err();
        assert_eq!((error.tag, error.what), (tag, what), "{array:02x?}");
        assert_eq!(error.at, hello_bytes + 4 + at, "{array:02x?}");
    }
    let error = FrameError { tag: Some(3), at: 127, what: "too few fields" };
    assert_eq!(error.to_string(), "raft frame of tag 3, byte 127: too few fields");
}

// What a server of another kind says behind the same byte: the head of its first message, taken for a length.
#[test]
fn lengths_are_refused_as_soon_as_they_are_there() {
    for first in [b"\x00\x8b\xa9R", b"\x01\x88\xa9R", b"\x00\x04\x00\x01", b"\0\0\0\0", b"GET "] {
        assert_eq!(decode(&[first]).unwrap_err().at, 0, "{first:02x?}");
        assert!(decode(&[&first[..3]]).is_ok());
    }
    assert!(decode(&[&[0, 4, 0, 0]]).is_ok());
    let mut bytes = bytes_of(&[hello()]);
    bytes.extend(u32::try_from(FRAME_BYTES_MAX + 1).unwrap().to_be_bytes());
    assert_eq!(decode(&[&bytes]).unwrap_err().what, "frame is too large");
    assert_eq!(
        decode(&[&bytes_of(&[RaftFrame::Beat(Beat::default())])]).unwrap_err().what,
        "the first frame is no hello"
    );
    assert!(decode(&[&bytes_of(&[RaftFrame::Refused { reason: "no".into() }])]).is_ok());
}

#[test]
fn values_of_a_newer_build_are_passed_over() {
    let ack = RaftFrame::SnapshotAck { transfer: 1, next: 2, window: 3 };
    let newer = b"\x96\x07\x01\x02\x03\x82\xa1a\xc0\xa1b\x91\x01\xa3new";
    assert_eq!(after_hello(newer).unwrap()[1], ack);
    let mut entry = RaftEntry { kind: 1, term: 2, index: 3, data: vec![4] };
    let message = RaftFrame::Message(Box::new(RaftMessage { entries: vec![entry.clone()], ..RaftMessage::default() }));
    let bytes = bytes_of(&[message]);
    let at = bytes.windows(6).position(|six| six == b"\x94\x01\x02\x03\xa1\x04").unwrap();
    let mut longer = bytes[4..].to_vec();
    longer[at - 4] = 0x95;
    longer.insert(at + 2, 0x07);
    let RaftFrame::Message(message) = &after_hello(&longer).unwrap()[1] else { panic!("a message") };
    entry.data = vec![4];
    assert_eq!(message.entries, [entry]);
}

#[test]
fn sizes_have_caps() {
    let entry = |len| RaftEntry { data: vec![7; len], ..RaftEntry::default() };
    let of = |entries| RaftFrame::Message(Box::new(RaftMessage { entries, ..RaftMessage::default() }));
    let mut out = vec![1, 2, 3];
    assert!(!encode(&of(vec![entry(FRAME_BYTES_MAX)]), &mut out));
    assert_eq!(out, [1, 2, 3]);
    let large = of((0..16).map(|_| entry(1 << 20)).collect());
    let bytes = bytes_of(&[hello(), large.clone()]);
    for step in [1000, 65_536, bytes.len()] {
        let pieces: Vec<&[u8]> = bytes.chunks(step).collect();
        assert!(decode(&pieces).unwrap() == [hello(), large.clone()]);
    }
    let chunk = |len| {
        bytes_of(&[hello(), RaftFrame::SnapshotChunk { transfer: 1, number: 0, bytes: vec![0; len], last: true }])
    };
    assert!(decode(&[&chunk(CHUNK_BYTES_MAX)]).is_ok());
    assert_eq!(decode(&[&chunk(CHUNK_BYTES_MAX + 1)]).unwrap_err().what, "chunk is too large");
    // Very many of nothing take no more memory than their frame.
    let mut nothing = b"\x92\x09\xdd\x00\x40\x00\x00".to_vec();
    nothing.extend(vec![0xa0; 0x40_0000]);
    assert_eq!(after_hello(&nothing).unwrap_err().what, "too many elements");
    // A batch of the smallest entries is no such case.
    assert!(decode(&[&bytes_of(&[hello(), of(vec![entry(40); 20_000])])]).is_ok());
}

#[test]
fn keys_show_nothing_of_themselves() {
    let frame = RaftFrame::Key { key_id: "k".into(), secret: KeyFile(b"very secret".to_vec()) };
    assert!(!format!("{frame:?}").contains("118") && !format!("{frame:?}").contains("secret\""), "{frame:?}");
}

proptest! {
    #[test]
    fn frames_are_read_back_however_they_are_cut(frames in vec(frame(), 0..6), cuts in vec(0..1000usize, 0..8)) {
        let mut all = vec![hello()];
        all.extend(frames);
        let bytes = bytes_of(&all);
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut * bytes.len() / 1000).collect();
        at.extend([0, bytes.len()]);
        at.sort_unstable();
        let pieces: Vec<&[u8]> = at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
        prop_assert_eq!(decode(&pieces), Ok(all.clone()));
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        prop_assert_eq!(decode(&single), Ok(all));
    }

    #[test]
    fn noise_never_panics(noise in vec(any::<u8>(), 0..200), step in 1..50usize) {
        let _ = decode(&noise.chunks(step).collect::<Vec<_>>());
        let _ = after_hello(&noise);
    }

    #[test]
    fn harmed_frames_never_panic(frame in frame(), at in any::<usize>(), with in any::<u8>(), step in 1..50usize) {
        let mut bytes = bytes_of(&[hello(), frame]);
        let len = bytes.len();
        bytes[at % len] = with;
        let _ = decode(&bytes.chunks(step).collect::<Vec<_>>());
    }
}
