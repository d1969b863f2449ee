//! Tests of the whole session: what each frame does in each state, limits and times, captured conversations, and
//! properties over random ones.
#![allow(clippy::unwrap_used)]

mod flags;
mod limits;
mod pair;
mod properties;
mod vectors;

use std::time::Duration;

use super::session::{Event, Limits, MuxSession, Side};
use crate::base::id::StreamId;
use crate::base::time::Instant;
use crate::wire::yamux::{ACK, FIN, FrameType, HEADER_BYTES, Header, RST, SYN};

/// Seconds since the beginning.
fn at(seconds: u64) -> Instant {
    Instant::ZERO + Duration::from_secs(seconds)
}

fn server() -> MuxSession {
    MuxSession::new(Side::Server, Limits::default(), at(0))
}

fn client() -> MuxSession {
    MuxSession::new(Side::Client, Limits::default(), at(0))
}

fn frame(frame_type: FrameType, flags: u16, stream: u32, length: u32) -> Vec<u8> {
    Header { frame_type, flags, stream, length }.encode().to_vec()
}

fn update(flags: u16, stream: u32, delta: u32) -> Vec<u8> {
    frame(FrameType::WindowUpdate, flags, stream, delta)
}

fn data(flags: u16, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = frame(FrameType::Data, flags, stream, payload.len().try_into().unwrap());
    bytes.extend_from_slice(payload);
    bytes
}

fn ping(flags: u16, value: u32) -> Vec<u8> {
    frame(FrameType::Ping, flags, 0, value)
}

fn go_away(code: u32) -> Vec<u8> {
    frame(FrameType::GoAway, 0, 0, code)
}

fn id(stream: u32) -> StreamId {
    StreamId(stream)
}

/// Hands in bytes and tells what came of it: the events, then the frames in the output, in words.
fn feed(session: &mut MuxSession, bytes: &[u8]) -> String {
    session.handle_bytes(at(1), bytes);
    said(session, bytes)
}

/// Events and output since the last call, in words. `bytes` are the last that were handed in.
fn said(session: &mut MuxSession, bytes: &[u8]) -> String {
    let mut words = Vec::new();
    while let Some(event) = session.poll_event() {
        words.push(match event {
            Event::Opened(StreamId(stream)) => format!("opened {stream}"),
            Event::Data(StreamId(stream), range) => {
                let payload = &bytes[range];
                match std::str::from_utf8(payload) {
                    Ok(text) if text.len() < 20 => format!("data {stream} {text}"),
                    _ => format!("data {stream} of {}", payload.len()),
                }
            }
            Event::Finished(StreamId(stream)) => format!("finished {stream}"),
            Event::Reset(StreamId(stream)) => format!("reset {stream}"),
            Event::Refused(StreamId(stream)) => format!("refused {stream}"),
            Event::Closed(StreamId(stream)) => format!("closed {stream}"),
            Event::Writable(StreamId(stream)) => format!("writable {stream}"),
            Event::GoAway => "gone".to_owned(),
            Event::Ended(reason) => format!("{reason:?}"),
        });
    }
    let mut output = Vec::new();
    session.take_output(&mut output);
    words.extend(frames(&output).iter().map(|(header, payload)| in_words(header, payload)));
    words.join(", ")
}

/// Cuts whole frames.
fn frames(mut bytes: &[u8]) -> Vec<(Header, &[u8])> {
    let mut frames = Vec::new();
    while let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() {
        let header = Header::decode(header).unwrap();
        let payload = if header.frame_type == FrameType::Data { header.length as usize } else { 0 };
        frames.push((header, &rest[..payload]));
        bytes = &rest[payload..];
    }
    assert!(bytes.is_empty(), "half a frame in the output");
    frames
}

fn in_words(header: &Header, payload: &[u8]) -> String {
    let flags: String = [(SYN, "+SYN"), (ACK, "+ACK"), (FIN, "+FIN"), (RST, "+RST")]
        .iter()
        .filter(|(flag, _)| header.flags & flag != 0)
        .map(|(_, name)| *name)
        .collect();
    let Header { stream, length, .. } = header;
    match header.frame_type {
        FrameType::Data => format!(">data{flags} {stream} {}", String::from_utf8_lossy(payload)),
        FrameType::WindowUpdate => format!(">update{flags} {stream} {length}"),
        FrameType::Ping => format!(">ping{flags} {stream} {length}"),
        FrameType::GoAway => format!(">goaway {length}"),
    }
}
