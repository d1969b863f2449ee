//! Where calls and answers end in the bytes of a stream, and the bytes that wait until they are whole.
//!
//! A call is a head and a body without any length before them (transport notes, section 4.1), so both are looked
//! at as they arrive and never twice.

use crate::wire::msgpack;
use crate::wire::msgpack::DecodeError;
use crate::wire::msgpack::Scan;
use crate::wire::msgpack::Scanner;
use crate::wire::rpc;
use crate::wire::rpc::ReplyHead;
use crate::wire::rpc::RequestHead;

use super::stream::Context;

/// What the scanner says of a value over the cap.
const TOO_LARGE: &str = "message is too large";

/// What is said of the stream whose bytes went over `max_partial_bytes`.
pub(super) const TOO_MUCH: &str = "too many bytes of unfinished requests on the connection";

/// Looks for the end of one value. The position of an error counts from the stream's start, where `base` is the
/// position of the value's first byte.
pub(super) fn scan_value(
    scanner: &mut Scanner,
    bytes: &[u8],
    max_bytes: usize,
    base: u64,
) -> Result<Option<usize>, Malformed> {
    match scanner.scan(bytes, max_bytes) {
        Ok(Scan::Complete(len)) => Ok(Some(len)),
        Ok(Scan::Partial) => Ok(None),
        Err(error) if error.what == TOO_LARGE => Err(Malformed::TooLarge),
        Err(error) => Err(Malformed::Value(moved(error, base))),
    }
}

/// Why a value cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Malformed {
    /// It is no msgpack, or not what it should be.
    Value(DecodeError),
    /// It is over the cap.
    TooLarge,
}

impl Malformed {
    pub(super) fn text(&self) -> String {
        match self {
            Malformed::Value(error) => error.to_string(),
            Malformed::TooLarge => TOO_LARGE.to_owned(),
        }
    }
}

fn moved(mut error: DecodeError, base: u64) -> DecodeError {
    error.pos = error.pos.saturating_add(base);
    error
}

/// A head of a message.
pub(super) trait Head: Sized {
    fn decode(bytes: &[u8]) -> msgpack::Result<Self>;
}

impl Head for RequestHead {
    fn decode(bytes: &[u8]) -> msgpack::Result<Self> {
        rpc::decode_request_head(bytes)
    }
}

impl Head for ReplyHead {
    fn decode(bytes: &[u8]) -> msgpack::Result<Self> {
        rpc::decode_reply_head(bytes)
    }
}

/// A place within a message: a head, then a body.
#[derive(Debug)]
pub(super) struct MessageScan<H> {
    /// Once it is whole: the head, and where it ends.
    pub(super) head: Option<(H, usize)>,
    scanner: Scanner,
}

impl<H> Default for MessageScan<H> {
    fn default() -> Self {
        MessageScan { head: None, scanner: Scanner::default() }
    }
}

impl<H: Head> MessageScan<H> {
    /// Looks further in `bytes`, which begin where the message begins: its length once it is whole. A head is
    /// refused as soon as it is there, whatever of the body has come.
    pub(super) fn scan(&mut self, bytes: &[u8], max_bytes: usize, base: u64) -> Result<Option<usize>, Malformed> {
        let head_end = match &self.head {
            Some((_, end)) => *end,
            None => {
                let is_head = |byte| matches!(byte, 0x80..=0x9f | 0xdc..=0xdf);
                if bytes.first().is_some_and(|byte| !is_head(*byte)) {
                    // Its first byte is enough to tell, however long it claims to be.
                    H::decode(bytes.get(..1).unwrap_or_default())
                        .map_err(|error| Malformed::Value(moved(error, base)))?;
                }
                let Some(end) = scan_value(&mut self.scanner, bytes, max_bytes, base)? else { return Ok(None) };
                let head = H::decode(bytes.get(..end).unwrap_or_default())
                    .map_err(|error| Malformed::Value(moved(error, base)))?;
                self.head = Some((head, end));
                self.scanner = Scanner::default();
                end
            }
        };
        let body = bytes.get(head_end..).unwrap_or_default();
        let max_body_bytes = max_bytes.saturating_sub(head_end);
        let len = scan_value(&mut self.scanner, body, max_body_bytes, base.saturating_add(head_end as u64))?;
        Ok(len.map(|len| head_end + len))
    }

    /// The head and its length, after [`MessageScan::scan`] found the end of the message; then the next one begins.
    pub(super) fn take(&mut self) -> Option<(H, usize)> {
        self.scanner = Scanner::default();
        self.head.take()
    }
}

/// Bytes of a stream that could not be passed on: a message that is not whole, or what came after the one in hand.
#[derive(Debug, Default)]
pub(super) struct Input {
    bytes: Vec<u8>,
    start: usize,
    /// How many of the last bytes still count against the peer's window.
    unconsumed: usize,
}

/// More bytes would wait than is permitted.
pub(super) struct OverCap;

impl Input {
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes().is_empty()
    }

    /// Keeps bytes, still counted against the peer's window.
    pub(super) fn hold(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Result<(), OverCap> {
        let partial_bytes = cx.tally.partial_bytes.saturating_add(bytes.len());
        if partial_bytes > cx.limits.max_partial_bytes {
            return Err(OverCap);
        }
        cx.tally.partial_bytes = partial_bytes;
        self.unconsumed += bytes.len();
        if self.start > self.bytes.len() / 2 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// Grants the peer the room of all that waits: more is needed before any of it can be used.
    pub(super) fn consume_all(&mut self, cx: &mut Context<'_>) {
        cx.consume(self.unconsumed);
        self.unconsumed = 0;
    }

    /// The first `count` bytes were used.
    pub(super) fn take(&mut self, cx: &mut Context<'_>, count: usize) {
        let left = self.bytes().len().saturating_sub(count);
        let consumed = self.unconsumed.saturating_sub(left);
        cx.consume(consumed);
        self.unconsumed -= consumed;
        cx.tally.partial_bytes = cx.tally.partial_bytes.saturating_sub(self.bytes().len() - left);
        self.start = self.bytes.len() - left;
        if left == 0 {
            self.bytes = Vec::new();
            self.start = 0;
        }
    }

    /// How many bytes wait.
    pub(super) fn len(&self) -> usize {
        self.bytes().len()
    }

    /// Bytes came that nobody looked for more in.
    pub(super) fn is_waiting(&self) -> bool {
        self.unconsumed > 0
    }
}

/// Bytes that wait for the peer's window, and how many of them went out.
#[derive(Debug, Default)]
pub(super) struct Output {
    bytes: Vec<u8>,
    sent: usize,
}

impl Output {
    /// Sends a message, and keeps what the window does not permit. The one before has been sent.
    pub(super) fn send(cx: &mut Context<'_>, message: Vec<u8>) -> Option<Output> {
        let sent = cx.send(&message);
        if sent == message.len() {
            return None;
        }
        cx.tally.unsent_bytes = cx.tally.unsent_bytes.saturating_add(message.len() - sent);
        Some(Output { bytes: message, sent })
    }

    /// Keeps a message whose stream is not there so far.
    pub(super) fn hold(cx: &mut Context<'_>, message: Vec<u8>) -> Output {
        cx.tally.unsent_bytes = cx.tally.unsent_bytes.saturating_add(message.len());
        Output { bytes: message, sent: 0 }
    }

    /// Nothing of it went out.
    pub(super) fn is_whole(&self) -> bool {
        self.sent == 0
    }

    /// Sends more; true when nothing is left.
    pub(super) fn send_more(&mut self, cx: &mut Context<'_>) -> bool {
        let sent = cx.send(self.bytes.get(self.sent..).unwrap_or_default());
        self.sent += sent;
        cx.tally.unsent_bytes = cx.tally.unsent_bytes.saturating_sub(sent);
        self.len() == 0
    }

    /// How many bytes wait.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }
}
