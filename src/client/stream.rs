//! A streaming call on a connection of its own: messages from the server, and bytes or messages to it.
//!
//! Source: transport notes, section 6.

use std::io;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

use crate::client::call::{Incoming, classify};
use crate::client::error::Error;
use crate::client::socket::Channel;
use crate::wire::msgpack::Msg;
use crate::wire::streaming::{StreamingAck, StreamingHeader};

/// An open streaming call.
#[derive(Debug)]
pub struct Stream {
    channel: Channel,
    incoming: Incoming,
    /// Bytes written before the argument: what came after them may have had an effect.
    before: u64,
}

impl Stream {
    /// Sends the header, hears the ack, sends the argument.
    pub(crate) fn open(
        mut channel: Channel,
        method: &str,
        argument: &[u8],
        deadline: Instant,
    ) -> Result<Stream, Error> {
        let before = channel.bytes_written();
        channel.set_deadline(deadline);
        let header = StreamingHeader { method: method.to_owned() }.to_bytes();
        let sent = channel.write_all(&header).and_then(|()| channel.flush());
        sent.map_err(|cause| Error::NotSent(cause.to_string()))?;
        let mut stream = Stream { channel, incoming: Incoming::default(), before };
        let ack = stream.value()?.ok_or_else(|| Error::NotSent("the server closed the connection".to_owned()))?;
        let ack = StreamingAck::from_bytes(&ack).map_err(|error| Error::Malformed(error.to_string()))?;
        if !ack.error.is_empty() {
            return Err(Error::answered(ack.error));
        }
        stream.before = stream.channel.bytes_written();
        stream.send(argument)?;
        Ok(stream)
    }

    /// The next message, one msgpack value; `None` once the server has closed the stream.
    ///
    /// # Errors
    /// A broken connection, and nothing within `limit`.
    pub fn next(&mut self, limit: Duration) -> Result<Option<Vec<u8>>, Error> {
        self.channel.set_deadline(Instant::now() + limit);
        self.value()
    }

    fn value(&mut self) -> Result<Option<Vec<u8>>, Error> {
        let before = self.before;
        match self.incoming.value(&mut self.channel) {
            Ok(value) => Ok(Some(value)),
            Err(arrival) => {
                let mut ended = false;
                let error = arrival.or_else(|cause| {
                    ended = cause.kind() == io::ErrorKind::UnexpectedEof;
                    classify(&self.channel, before, &cause)
                });
                if ended && self.incoming.bytes.is_empty() { Ok(None) } else { Err(error) }
            }
        }
    }

    /// Bytes as they come, after the messages that were taken; 0 at the end.
    ///
    /// # Errors
    /// As [`Stream::next`].
    pub fn read(&mut self, into: &mut [u8], limit: Duration) -> Result<usize, Error> {
        if !self.incoming.bytes.is_empty() {
            let len = self.incoming.bytes.len().min(into.len());
            into.iter_mut().zip(self.incoming.bytes.drain(..len)).for_each(|(to, from)| *to = from);
            return Ok(len);
        }
        self.channel.set_deadline(Instant::now() + limit);
        loop {
            match self.channel.read(into) {
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                Err(cause) if cause.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                Err(cause) => return Err(classify(&self.channel, self.before, &cause)),
                Ok(len) => return Ok(len),
            }
        }
    }

    /// Sends bytes; the time limit is the one set last.
    ///
    /// # Errors
    /// A broken connection, or one that takes nothing.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let sent = self.channel.write_all(bytes).and_then(|()| self.channel.flush());
        sent.map_err(|cause| classify(&self.channel, self.before, &cause))
    }

    /// Sends bytes within a limit of its own.
    ///
    /// # Errors
    /// As [`Stream::send`].
    pub fn send_within(&mut self, bytes: &[u8], limit: Duration) -> Result<(), Error> {
        self.channel.set_deadline(Instant::now() + limit);
        self.send(bytes)
    }
}
