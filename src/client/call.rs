//! One net/rpc call over a byte channel: request out, reply in, nothing else on the connection meanwhile.

use std::io;
use std::io::{Read, Write};
use std::time::Instant;

use crate::client::MAX_REPLY_BYTES;
use crate::client::error::Error;
use crate::client::socket::Channel;
use crate::wire::msgpack::{Encoder, Scan, Scanner};
use crate::wire::rpc;

/// Bytes asked for in one read.
const READ_BYTES: usize = 64 * 1024;

/// A request as it goes out: head, then body.
pub(crate) fn encode_request(seq: u64, method: &str, body: &[u8]) -> Vec<u8> {
    let mut e = Encoder::new();
    rpc::encode_request_head(&mut e, seq, method);
    e.raw(body);
    e.out
}

/// Sends `request`, numbered `seq`, and reads the body of its reply; also says whether the channel can be kept, which
/// it cannot when more came than the reply.
///
/// # Errors
/// By class; the channel is of no more use after one.
pub(crate) fn exchange(
    channel: &mut Channel,
    request: &[u8],
    seq: u64,
    deadline: Instant,
) -> Result<(Vec<u8>, bool), Error> {
    channel.set_deadline(deadline);
    let before = channel.bytes_written();
    channel.write_all(request).and_then(|()| channel.flush()).map_err(|e| classify(channel, before, &e))?;
    let mut reply = Incoming::default();
    let head = reply.value(channel).map_err(|e| e.or_else(|e| classify(channel, before, &e)))?;
    let head = rpc::decode_reply_head(&head).map_err(|e| Error::Malformed(e.to_string()))?;
    let body = reply.value(channel).map_err(|e| e.or_else(|e| classify(channel, before, &e)))?;
    if head.seq != seq {
        return Err(Error::Malformed(format!("reply numbered {} to request {seq}", head.seq)));
    }
    if !head.error.is_empty() {
        return Err(Error::Refused(head.error));
    }
    Ok((body, reply.bytes.is_empty()))
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
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    pub(crate) bytes: Vec<u8>,
}

impl Incoming {
    /// Reads until one whole msgpack value is there, and takes it.
    pub(crate) fn value(&mut self, channel: &mut Channel) -> Result<Vec<u8>, Arrival> {
        let mut scanner = Scanner::default();
        let mut buffer = vec![0; READ_BYTES];
        loop {
            match scanner.scan(&self.bytes, MAX_REPLY_BYTES) {
                Ok(Scan::Complete(len)) => {
                    let rest = self.bytes.split_off(len);
                    return Ok(std::mem::replace(&mut self.bytes, rest));
                }
                Ok(Scan::Partial) => {}
                Err(error) => return Err(Arrival::Bytes(Error::Malformed(error.to_string()))),
            }
            match channel.read(&mut buffer) {
                Ok(0) => {
                    let end = io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection");
                    return Err(Arrival::Io(end));
                }
                Ok(len) => self.bytes.extend_from_slice(buffer.get(..len).unwrap_or_default()),
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                Err(cause) => return Err(Arrival::Io(cause)),
            }
        }
    }
}
