//! What the tests of this room share: a connection with a clock that stands still, its peer, and frames by hand.

#![allow(clippy::unwrap_used)]

mod calls;
mod dialled;
mod first_byte;
mod http;
mod http_pieces;
mod links;
mod mux;
mod property;
mod proxied;
mod streaming;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use crate::base::id::StreamId;
use crate::base::time::Instant;
use crate::mux::session;
use crate::wire::msgpack::Encoder;
use crate::wire::rpc;
use crate::wire::yamux::FIN;
use crate::wire::yamux::FrameType;
use crate::wire::yamux::HEADER_BYTES;
use crate::wire::yamux::Header;
use crate::wire::yamux::SYN;

use super::Conn;
use super::Event;
use super::Limits;
use super::RpcCall;
use super::Security;
use super::layers::Layer;
use super::report::Cause;

pub(super) const DATA: FrameType = FrameType::Data;
pub(super) const WINDOW: FrameType = FrameType::WindowUpdate;

pub(super) fn limits() -> Limits {
    Limits {
        handshake_timeout: Duration::from_secs(5),
        max_message_bytes: 1 << 20,
        max_partial_bytes: 2 << 20,
        max_unsent_bytes: 1 << 20,
        idle_streams: 64,
        max_raft_unsent_bytes: 8 * 1024 * 1024,
        mux: session::Limits::default(),
        http_max_head_bytes: 4096,
        http_max_body_bytes: 1000,
        http_head_timeout: Duration::from_secs(10),
        http_body_timeout: Duration::from_secs(20),
        http_idle_timeout: Duration::from_secs(60),
        http_uploads: &[("PUT", "/upload")],
    }
}

/// A connection, and what came of it so far.
pub(super) struct Rig {
    pub(super) conn: Conn,
    pub(super) now: Instant,
    pub(super) events: Vec<Event>,
    pub(super) sent: Vec<u8>,
}

impl Rig {
    pub(super) fn rpc(security: &Security) -> Rig {
        Rig::with(limits(), security)
    }

    pub(super) fn with(limits: Limits, security: &Security) -> Rig {
        Rig::of(Conn::accept_rpc(Instant::ZERO, Arc::new(limits), security))
    }

    pub(super) fn http(limits: Limits, security: &Security) -> Rig {
        Rig::of(Conn::accept_http(Instant::ZERO, Arc::new(limits), security))
    }

    pub(super) fn of(conn: Conn) -> Rig {
        Rig { conn, now: Instant::ZERO, events: Vec::new(), sent: Vec::new() }
    }

    /// A plain connection of which `bytes` have come.
    pub(super) fn after(bytes: &[u8]) -> Rig {
        let mut rig = Rig::rpc(&Security::default());
        rig.bytes(bytes);
        rig
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.conn.handle_bytes(self.now, bytes);
        self.settle();
    }

    /// Moves the clock, and acts when the connection asked for it.
    pub(super) fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(at) = self.conn.poll_timeout().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.conn.handle_timeout(self.now);
            self.settle();
        }
        self.now = until;
        self.conn.handle_timeout(self.now);
        self.settle();
    }

    pub(super) fn eof(&mut self) {
        self.conn.handle_eof(self.now);
        self.settle();
    }

    /// Takes all events, and all bytes.
    pub(super) fn settle(&mut self) {
        self.take_events();
        while !self.conn.to_send().is_empty() {
            let len = self.conn.to_send().len();
            self.sent.extend_from_slice(self.conn.to_send());
            self.conn.sent(self.now, len);
        }
        self.take_events();
    }

    pub(super) fn take_events(&mut self) {
        while let Some(event) = self.conn.poll_event() {
            assert!(!self.is_closed(), "{event:?} after the end");
            self.events.push(event);
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.events.contains(&Event::Closed)
    }

    pub(super) fn causes(&self) -> Vec<Cause> {
        let cause = |event: &Event| match event {
            Event::Report(report) => Some(report.cause),
            _ => None,
        };
        self.events.iter().filter_map(cause).collect()
    }

    pub(super) fn fields(&self) -> Vec<&str> {
        let mut fields = Vec::new();
        for event in &self.events {
            if let Event::Report(report) = event {
                fields.push(report.fields.as_str());
            }
        }
        fields
    }

    pub(super) fn calls(&self) -> Vec<RpcCall> {
        let call = |event: &Event| match event {
            Event::Call(call) => Some(call.clone()),
            _ => None,
        };
        self.events.iter().filter_map(call).collect()
    }

    /// The methods of the calls, for short.
    pub(super) fn methods(&self) -> Vec<String> {
        self.calls().into_iter().map(|call| call.method).collect()
    }

    /// Takes what was sent, as frames.
    pub(super) fn frames(&mut self) -> Vec<(FrameType, u16, u32, Vec<u8>)> {
        let sent = std::mem::take(&mut self.sent);
        let mut rest = sent.as_slice();
        let mut frames = Vec::new();
        while let Some((head, after)) = rest.split_first_chunk::<HEADER_BYTES>() {
            let header = Header::decode(head).unwrap();
            let len = if header.frame_type == DATA { header.length as usize } else { 0 };
            let payload = if len > 0 { after[..len].to_vec() } else { header.length.to_be_bytes().to_vec() };
            frames.push((header.frame_type, header.flags, header.stream, payload));
            rest = &after[len..];
        }
        assert_eq!(rest, b"");
        frames
    }

    /// Takes what was sent, as the bytes on one stream.
    pub(super) fn data(&mut self, stream: u32) -> Vec<u8> {
        let frames = self.frames().into_iter().filter(|(kind, _, id, _)| *kind == DATA && *id == stream);
        frames.flat_map(|(_, _, _, payload)| payload).collect()
    }
}

pub(super) fn frame(frame_type: FrameType, flags: u16, stream: u32, length: u32) -> Vec<u8> {
    Header { frame_type, flags, stream, length }.encode().to_vec()
}

pub(super) fn data(flags: u16, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap();
    [frame(DATA, flags, stream, length), payload.to_vec()].concat()
}

/// Opens a stream by its first bytes.
pub(super) fn open(stream: u32, payload: &[u8]) -> Vec<u8> {
    data(SYN, stream, payload)
}

pub(super) fn fin(stream: u32) -> Vec<u8> {
    frame(WINDOW, FIN, stream, 0)
}

/// A call as it goes over the wire.
pub(super) fn call(seq: u64, method: &str, body: &[u8]) -> Vec<u8> {
    let mut e = Encoder::new();
    rpc::encode_request_head(&mut e, seq, method);
    e.raw(body);
    e.out
}

pub(super) fn reply(seq: u64, method: &str, error: &str, body: &[u8]) -> Vec<u8> {
    let mut e = Encoder::new();
    rpc::encode_reply_head(&mut e, error, seq, method);
    e.raw(body);
    e.out
}

/// A byte string of `len` bytes as msgpack.
pub(super) fn long_value(len: usize) -> Vec<u8> {
    let mut e = Encoder::new();
    e.bytes(&vec![b'x'; len]);
    e.out
}

pub(super) const fn id(stream: u32) -> StreamId {
    StreamId(stream)
}
