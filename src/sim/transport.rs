//! The client's end of a connection, as bytes: plain calls (0x01), a plain streaming call (0x05), or yamux (0x03 and
//! 0x06) with calls of both sides. Understands what the server sends and says when it makes no sense.

use std::collections::BTreeMap;

use crate::base::id::StreamId;
use crate::base::time::Instant;
use crate::mux::limits::{Limits, Side};
use crate::mux::session::{Event as MuxEvent, MuxSession};
use crate::wire::first_byte::FirstByte;
use crate::wire::msgpack::{Encoder, Msg, Scan, Scanner};
use crate::wire::rpc::{
    ReplyHead, RequestHead, decode_reply_head, decode_request_head, encode_reply_head, encode_request_head,
};
use crate::wire::streaming::StreamingHeader;

/// A longer message is none that this server sends, bytes.
const MAX_MESSAGE_BYTES: usize = 1024 * 1024;

/// What the client hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Bytes were added to a stream's input.
    Data(u32),
    /// The server sends no more on a stream.
    Finished(u32),
    /// A stream is gone.
    Gone(u32),
    /// The server takes no new streams.
    GoAway,
    /// The connection is of no more use: why.
    Over(String),
}

#[derive(Debug, Default)]
struct Stream {
    input: Vec<u8>,
    /// Waits for the server's window.
    unsent: Vec<u8>,
    /// The server opened it; its first byte is looked at first.
    incoming: bool,
    finish_after: bool,
}

/// The client's end of a connection.
pub struct Transport {
    kind: FirstByte,
    mux: Option<MuxSession>,
    streams: BTreeMap<u32, Stream>,
    out: Vec<u8>,
    gone_away: bool,
}

impl Transport {
    /// A connection that says first what it speaks.
    pub fn new(kind: FirstByte, limits: Limits, now: Instant) -> Transport {
        let is_mux = matches!(kind, FirstByte::MultiplexV1 | FirstByte::MultiplexV2);
        let mut transport = Transport {
            kind,
            mux: is_mux.then(|| MuxSession::new(Side::Client, limits, now)),
            streams: BTreeMap::new(),
            out: vec![kind.byte()],
            gone_away: false,
        };
        if !is_mux {
            transport.streams.insert(0, Stream::default());
        }
        transport
    }

    /// Whether calls can go side by side.
    pub fn is_mux(&self) -> bool {
        self.mux.is_some()
    }

    /// Whether new calls can be made.
    pub fn takes_calls(&self) -> bool {
        !self.gone_away && self.kind != FirstByte::Streaming
    }

    /// Opens a stream for calls; on a plain connection that is the connection itself.
    pub fn open(&mut self, now: Instant) -> Option<u32> {
        let Some(mux) = &mut self.mux else { return Some(0) };
        let id = mux.open(now).ok()?.0;
        self.streams.insert(id, Stream::default());
        if self.kind == FirstByte::MultiplexV2 {
            self.send(id, &[FirstByte::Rpc.byte()]);
        }
        Some(id)
    }

    /// Opens a stream for a streaming call and sends the header and the argument after it.
    pub fn open_streaming(&mut self, now: Instant, method: &str, argument: &[u8]) -> Option<u32> {
        let id = match (&mut self.mux, self.kind) {
            (Some(mux), FirstByte::MultiplexV2) => {
                let id = mux.open(now).ok()?.0;
                self.streams.insert(id, Stream::default());
                self.send(id, &[FirstByte::Streaming.byte()]);
                id
            }
            (None, FirstByte::Streaming) => 0,
            _ => return None,
        };
        let mut bytes = StreamingHeader { method: method.to_owned() }.to_bytes();
        bytes.extend(argument);
        self.send(id, &bytes);
        Some(id)
    }

    /// Makes a call.
    pub fn call(&mut self, stream: u32, seq: u64, method: &str, body: &[u8]) {
        let mut e = Encoder::new();
        encode_request_head(&mut e, seq, method);
        e.raw(body);
        self.send(stream, &e.out);
    }

    /// Answers a call of the server's.
    pub fn answer(&mut self, stream: u32, head: &RequestHead, body: &[u8]) {
        let mut e = Encoder::new();
        encode_reply_head(&mut e, "", head.seq, &head.service_method);
        e.raw(body);
        self.send(stream, &e.out);
    }

    /// Sends as much as the window permits, the rest later.
    pub fn send(&mut self, stream: u32, bytes: &[u8]) {
        let Some(held) = self.streams.get_mut(&stream) else { return };
        held.unsent.extend(bytes);
        self.push(stream);
    }

    fn push(&mut self, stream: u32) {
        let Some(held) = self.streams.get_mut(&stream) else { return };
        match &mut self.mux {
            None => self.out.append(&mut held.unsent),
            Some(mux) => {
                let sent = mux.send(StreamId(stream), &held.unsent).unwrap_or(held.unsent.len());
                held.unsent.drain(..sent);
            }
        }
    }

    /// Sends no more on a stream.
    pub fn finish(&mut self, now: Instant, stream: u32) {
        let empty = self.streams.get(&stream).is_none_or(|held| held.unsent.is_empty());
        if let Some(mux) = &mut self.mux
            && empty
        {
            mux.finish(now, StreamId(stream));
        } else if let Some(held) = self.streams.get_mut(&stream) {
            held.finish_after = true;
        }
    }

    /// Ends a stream at once.
    pub fn reset(&mut self, stream: u32) {
        if let Some(mux) = &mut self.mux {
            mux.reset(StreamId(stream));
            self.streams.remove(&stream);
        }
    }

    /// Takes bytes from the wire.
    pub fn handle_bytes(&mut self, now: Instant, bytes: &[u8]) -> Vec<Heard> {
        if self.mux.is_none() {
            if let Some(held) = self.streams.get_mut(&0) {
                held.input.extend(bytes);
            }
            return vec![Heard::Data(0)];
        }
        if let Some(mux) = &mut self.mux {
            mux.handle_bytes(now, bytes);
        }
        self.events(now, bytes)
    }

    /// Acts on deadlines.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<Heard> {
        if let Some(mux) = &mut self.mux {
            mux.handle_timeout(now);
        }
        self.events(now, &[])
    }

    /// When [`Transport::handle_timeout`] is wanted.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.mux.as_ref().and_then(MuxSession::poll_timeout)
    }

    fn events(&mut self, now: Instant, bytes: &[u8]) -> Vec<Heard> {
        let mut heard = Vec::new();
        while let Some(event) = self.mux.as_mut().and_then(MuxSession::poll_event) {
            match event {
                MuxEvent::Opened(stream) => {
                    if let Some(mux) = &mut self.mux {
                        mux.accept(stream);
                    }
                    self.streams.insert(stream.0, Stream { incoming: true, ..Stream::default() });
                }
                MuxEvent::Data(stream, range) => {
                    let bytes = bytes.get(range).unwrap_or_default();
                    if let Some(held) = self.streams.get_mut(&stream.0) {
                        held.input.extend(bytes);
                        heard.push(Heard::Data(stream.0));
                    }
                    if let Some(mux) = &mut self.mux {
                        mux.consume(stream, bytes.len());
                    }
                }
                MuxEvent::Finished(stream) => heard.push(Heard::Finished(stream.0)),
                MuxEvent::Reset(stream) | MuxEvent::Refused(stream) | MuxEvent::Closed(stream) => {
                    self.streams.remove(&stream.0);
                    heard.push(Heard::Gone(stream.0));
                }
                MuxEvent::Writable(stream) => {
                    self.push(stream.0);
                    if self.streams.get(&stream.0).is_some_and(|held| held.finish_after) {
                        self.finish(now, stream.0);
                    }
                }
                MuxEvent::GoAway => {
                    self.gone_away = true;
                    heard.push(Heard::GoAway);
                }
                MuxEvent::Ended(reason) => heard.push(Heard::Over(format!("{reason:?}"))),
            }
        }
        heard
    }

    /// Whether the server opened this stream.
    pub fn is_incoming(&self, stream: u32) -> bool {
        self.streams.get(&stream).is_some_and(|held| held.incoming)
    }

    /// Takes a whole reply off a stream's input.
    ///
    /// # Errors
    /// Bytes that no server sends.
    pub fn take_reply(&mut self, stream: u32) -> Result<Option<(ReplyHead, Vec<u8>)>, String> {
        let Some(held) = self.streams.get(&stream) else { return Ok(None) };
        let Some((head, end)) = two_values(&held.input)? else { return Ok(None) };
        let bytes = self.take(stream, end);
        let (head, body) = bytes.split_at(head);
        let head = decode_reply_head(head).map_err(|e| format!("a reply's head: {e}"))?;
        Ok(Some((head, body.to_vec())))
    }

    /// Takes a whole request of the server's off a stream's input.
    ///
    /// # Errors
    /// Bytes that no server sends.
    pub fn take_request(&mut self, stream: u32) -> Result<Option<(RequestHead, Vec<u8>)>, String> {
        let Some(held) = self.streams.get(&stream) else { return Ok(None) };
        let Some((first, rest)) = held.input.split_first() else { return Ok(None) };
        if *first != FirstByte::Rpc.byte() {
            return Err(format!("a stream of the server's begins with {first:#04x}"));
        }
        let Some((head, end)) = two_values(rest)? else { return Ok(None) };
        let bytes = self.take(stream, 1 + end);
        let (head, body) = bytes.split_at(1 + head);
        let head = decode_request_head(head.get(1..).unwrap_or_default()).map_err(|e| format!("a request: {e}"))?;
        Ok(Some((head, body.to_vec())))
    }

    /// Takes a whole value off a stream's input.
    ///
    /// # Errors
    /// Bytes that are no value.
    pub fn take_value(&mut self, stream: u32) -> Result<Option<Vec<u8>>, String> {
        let Some(held) = self.streams.get(&stream) else { return Ok(None) };
        let Some(end) = value_end(&held.input)? else { return Ok(None) };
        Ok(Some(self.take(stream, end)))
    }

    fn take(&mut self, stream: u32, count: usize) -> Vec<u8> {
        self.streams.get_mut(&stream).map(|held| held.input.drain(..count).collect()).unwrap_or_default()
    }

    /// What is to be written to the wire.
    pub fn output(&mut self) -> &mut Vec<u8> {
        if let Some(mux) = &mut self.mux {
            mux.take_output(&mut self.out);
        }
        &mut self.out
    }
}

/// Where the first of two values ends, and where the second one does.
fn two_values(bytes: &[u8]) -> Result<Option<(usize, usize)>, String> {
    let Some(head) = value_end(bytes)? else { return Ok(None) };
    Ok(value_end(bytes.get(head..).unwrap_or_default())?.map(|body| (head, head + body)))
}

fn value_end(bytes: &[u8]) -> Result<Option<usize>, String> {
    match Scanner::default().scan(bytes, MAX_MESSAGE_BYTES) {
        Ok(Scan::Complete(end)) => Ok(Some(end)),
        Ok(Scan::Partial) => Ok(None),
        Err(error) => Err(format!("no msgpack: {error}")),
    }
}
