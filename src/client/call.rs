//! One net/rpc call over a byte channel: request out, reply in, nothing else on the connection meanwhile.

use std::io;
use std::io::{Read, Write};
use std::time::Instant;

use crate::client::MAX_REPLY_BYTES;
use crate::client::error::{Class, Error};
use crate::client::socket::Channel;
use crate::wire::msgpack::{Encoder, Scan, Scanner};
use crate::wire::rpc;

/// Bytes asked for in one read.
pub(crate) const READ_BYTES: usize = 64 * 1024;

/// What a server that hangs up after its answer begins it with: it could not make sense of the request.
const HANGS_UP: &str = "rpc: ";

/// How a call on a connection ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The reply's body.
    pub(crate) outcome: Result<Vec<u8>, Error>,
    /// Why the connection is not to be used again, if it is not (R2.36).
    pub(crate) discard: Option<&'static str>,
}

impl Ended {
    /// The connection is of no more use.
    pub(crate) fn broken(error: Error) -> Ended {
        Ended { outcome: Err(error), discard: Some("error") }
    }

    /// A reply came, with or without bytes behind it.
    pub(crate) fn answered(outcome: Result<Vec<u8>, Error>, rest: usize) -> Ended {
        let discard = match &outcome {
            _ if rest > 0 => Some("stray"),
            Err(Error::Malformed(_)) => Some("error"),
            Err(Error::Answered { text, .. }) if text.starts_with(HANGS_UP) => Some("refused"),
            _ => None,
        };
        Ended { outcome, discard }
    }
}

/// A request as it goes out: head, then body.
pub(crate) fn encode_request(seq: u64, method: &str, body: &[u8]) -> Vec<u8> {
    let mut e = Encoder::new();
    rpc::encode_request_head(&mut e, seq, method);
    e.raw(body);
    e.out
}

/// Reads a reply's head and body.
///
/// # Errors
/// The server's, and bytes that are no reply to request `seq`.
pub(crate) fn read_reply(head: &[u8], body: Vec<u8>, seq: u64) -> Result<Vec<u8>, Error> {
    let head = rpc::decode_reply_head(head).map_err(|e| Error::Malformed(e.to_string()))?;
    if head.seq != seq {
        return Err(Error::Malformed(format!("reply numbered {} to request {seq}", head.seq)));
    }
    if head.error.is_empty() {
        return Ok(body);
    }
    Err(Error::Answered { class: Class::of(&head.class, &head.error), text: head.error })
}

/// Sends `request`, numbered `seq`, and reads its reply.
pub(crate) fn exchange(channel: &mut Channel, request: &[u8], seq: u64, deadline: Instant) -> Ended {
    channel.set_deadline(deadline);
    let before = channel.bytes_written();
    if let Err(cause) = channel.write_all(request).and_then(|()| channel.flush()) {
        return Ended::broken(classify(channel, before, &cause));
    }
    let mut reply = Incoming::default();
    let mut value = |channel: &mut Channel| {
        reply.value(channel).map_err(|arrival| arrival.or_else(|cause| classify(channel, before, &cause)))
    };
    let whole = value(channel).and_then(|head| Ok((head, value(channel)?)));
    match whole {
        Err(error) => Ended::broken(error),
        Ok((head, body)) => Ended::answered(read_reply(&head, body, seq), reply.bytes.len()),
    }
}

/// What a failed read or write means for the request.
pub(crate) fn classify(channel: &Channel, before: u64, cause: &io::Error) -> Error {
    let sent = channel.bytes_written() > before;
    match cause.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Error::Deadline { sent },
        _ if sent => Error::Broken(cause.to_string()),
        _ => Error::NotSent(cause.to_string()),
    }
}

/// What can go wrong while a value arrives.
pub(crate) enum Arrival {
    Io(io::Error),
    Bytes(Error),
}

impl Arrival {
    pub(crate) fn or_else(self, classify: impl FnOnce(io::Error) -> Error) -> Error {
        match self {
            Arrival::Io(cause) => classify(cause),
            Arrival::Bytes(error) => error,
        }
    }
}

/// Bytes of a reply that have arrived and belong to no value yet.
#[derive(Default)]
pub(crate) struct Incoming {
    pub(crate) bytes: Vec<u8>,
    scanner: Scanner,
}

impl Incoming {
    /// Takes the next value out, when it is whole.
    ///
    /// # Errors
    /// Bytes that are none, and a value of too many.
    pub(crate) fn take(&mut self) -> Result<Option<Vec<u8>>, Error> {
        match self.scanner.scan(&self.bytes, MAX_REPLY_BYTES) {
            Ok(Scan::Complete(len)) => {
                self.scanner = Scanner::default();
                let rest = self.bytes.split_off(len);
                Ok(Some(std::mem::replace(&mut self.bytes, rest)))
            }
            Ok(Scan::Partial) => Ok(None),
            Err(error) => Err(Error::Malformed(error.to_string())),
        }
    }

    /// Reads until one whole msgpack value is there, and takes it.
    pub(crate) fn value(&mut self, channel: &mut Channel) -> Result<Vec<u8>, Arrival> {
        loop {
            if let Some(value) = self.take().map_err(Arrival::Bytes)? {
                return Ok(value);
            }
            let at = self.bytes.len();
            self.bytes.resize(at + READ_BYTES, 0);
            let read = channel.read(self.bytes.get_mut(at..).unwrap_or_default());
            self.bytes.truncate(at + read.as_ref().map_or(0, |count| *count));
            match read {
                Ok(0) => {
                    let end = io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection");
                    return Err(Arrival::Io(end));
                }
                Ok(_) => {}
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                Err(cause) => return Err(Arrival::Io(cause)),
            }
        }
    }
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Incoming").field("bytes", &self.bytes.len()).finish_non_exhaustive()
    }
}
