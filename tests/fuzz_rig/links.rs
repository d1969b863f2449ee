//! Connections that this server dials, and links between servers: whatever the other server says.

use std::sync::Arc;

use holdfast::base::time::Instant;
use holdfast::conn::{Conn, Event, Protocol, Security};
use holdfast::wire::raft::{Frames, HELLO_BYTES_MAX, Hello, RaftEntry, RaftFrame, RaftMessage, encode};

use crate::fuzz_server::conn_limits;
use crate::hostile_rig::kit::fuzz;

/// One of each kind, behind a hello.
fn samples() -> Vec<Vec<u8>> {
    let entries = vec![RaftEntry { kind: 0, term: 3, index: 9, data: vec![7; 300] }; 3];
    let message = Box::new(RaftMessage { kind: 3, to: 1, from: 2, term: 3, entries, ..RaftMessage::default() });
    let frames = [
        RaftFrame::Message(message.clone()),
        RaftFrame::SnapshotBegin { transfer: 7, message },
        RaftFrame::SnapshotChunk { transfer: 7, number: 1, bytes: vec![1; 500], last: true },
        RaftFrame::SnapshotAck { transfer: 7, next: 2, window: 8 },
        RaftFrame::KeysWanted { key_ids: vec!["a".to_owned(), "b".to_owned()] },
        RaftFrame::Refused { reason: "another cluster".to_owned() },
    ];
    let sample = |frame: &RaftFrame| {
        let hello = Hello { version: 1, founders: vec!["x".to_owned(); 3], ..Hello::default() };
        let mut bytes = Vec::new();
        assert!(encode(&RaftFrame::Hello(Box::new(hello)), &mut bytes) && encode(frame, &mut bytes));
        bytes
    };
    frames.iter().map(sample).collect()
}

#[test]
fn raft_frames() {
    fuzz("raft frames", &samples(), |input| {
        let Some((&how, bytes)) = input.split_first() else { return };
        let mut frames = Frames::default();
        let mut greeted = false;
        for piece in bytes.chunks(1 + usize::from(how)) {
            let mut rest = piece;
            loop {
                match frames.next_frame(&mut rest) {
                    Ok(Some(frame)) => {
                        greeted = true;
                        // What was read can be written, and is read as the same.
                        let mut out = Vec::new();
                        assert!(encode(&RaftFrame::Hello(Box::default()), &mut out) && encode(&frame, &mut out));
                        let (mut again, mut out) = (Frames::default(), out.as_slice());
                        assert!(matches!(again.next_frame(&mut out), Ok(Some(RaftFrame::Hello(_)))));
                        assert_eq!(again.next_frame(&mut out), Ok(Some(frame)));
                    }
                    Ok(None) => break,
                    Err(_) => return,
                }
            }
            assert!(frames.held_bytes() <= bytes.len());
            assert!(greeted || frames.held_bytes() <= HELLO_BYTES_MAX + 4);
        }
    });
    crate::assert_small();
}

#[test]
fn dialled_connections() {
    let mut samples = samples();
    samples.extend(crate::samples());
    fuzz("dialled connections", &samples, |input| {
        let Some((&how, bytes)) = input.split_first() else { return };
        let (now, limits) = (Instant::ZERO, Arc::new(conn_limits()));
        let accepted = Conn::accept_rpc(now, limits.clone(), &Security::default());
        let all = [Conn::dial_mux(now, limits.clone(), None), Conn::dial_raft(now, limits, None), accepted];
        for mut conn in all {
            let (mut calls, mut ends) = (0, 0);
            for piece in bytes.chunks(1 + usize::from(how)) {
                calls += usize::from(conn.protocol() != Protocol::Unknown && conn.call(now, "A.B", &[0x80]).is_ok());
                conn.handle_bytes(now, piece);
                while let Some(event) = conn.poll_event() {
                    match event {
                        Event::Protocol(_) => conn.admit(now),
                        Event::Answer { .. } | Event::Lost { .. } => ends += 1,
                        _ => {}
                    }
                }
                conn.sent(now, usize::from(how) * 7);
            }
            conn.handle_failure(now, "reset");
            while let Some(event) = conn.poll_event() {
                ends += usize::from(matches!(event, Event::Answer { .. } | Event::Lost { .. }));
            }
            assert_eq!(calls, ends, "each call ends once");
        }
    });
    crate::assert_small();
}
