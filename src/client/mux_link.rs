//! A yamux session under one caller at a time: a stream that is used again call after call, while it is sound.
//!
//! Nobody reads between calls; what came meanwhile is taken in by one look before the next use (R3.5).

use std::io;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

use crate::base::id::StreamId;
use crate::client::call::{Ended, Incoming, READ_BYTES, read_reply};
use crate::client::clock;
use crate::client::error::Error;
use crate::client::socket::Channel;
use crate::conn::liveness::Meant;
use crate::mux::session::{Event, Limits, MuxSession, Side};
use crate::wire::first_byte::FirstByte;

/// How long the news that a stream was given up may take to leave; it is only a courtesy.
const COURTESY: Duration = Duration::from_millis(50);

/// A session and its stream.
pub(crate) struct MuxLink {
    channel: Channel,
    session: MuxSession,
    /// The stream that calls are made on.
    stream: Option<StreamId>,
    /// The peer takes no more streams.
    gone_away: bool,
    /// Why the session is over.
    over: Option<String>,
    /// Bytes of the peer that were read.
    heard: u64,
    buffer: Vec<u8>,
}

/// What became of the stream that a reply is owed on.
enum Lost {
    /// Nothing that was sent on it was read.
    Refused,
    /// It ended.
    Ended(&'static str),
}

impl MuxLink {
    /// Takes a channel on which the first byte was said.
    pub(crate) fn new(channel: Channel) -> MuxLink {
        let session = MuxSession::new(Side::Client, Limits::default(), clock::now());
        MuxLink { channel, session, stream: None, gone_away: false, over: None, heard: 0, buffer: Vec::new() }
    }

    /// Makes a call.
    pub(crate) fn call(&mut self, request: &[u8], seq: u64, deadline: Instant) -> Ended {
        self.channel.set_deadline(deadline);
        let stream = match self.ready_stream() {
            Ok(stream) => stream,
            Err(error) => return Ended::broken(error),
        };
        // Frames of the session itself that go out before the request are no part of it.
        let ahead = if self.channel.is_secure() { 0 } else { self.session.output_bytes() as u64 };
        let attempt = Attempt { stream, written: self.channel.bytes_written() + ahead, heard: self.heard, deadline };
        let mut reply = Incoming::default();
        let outcome = self.exchange(&attempt, request, &mut reply);
        match outcome {
            Ok((head, body)) => {
                let mut ended = Ended::answered(read_reply(&head, body, seq), reply.bytes.len());
                if self.stream.is_none() || self.over.is_some() || self.gone_away {
                    ended.discard = ended.discard.or(self.condition());
                }
                self.release_memory();
                ended
            }
            Err(error) => self.given_up(&attempt, error),
        }
    }

    /// The stream, opened now when there is none.
    fn ready_stream(&mut self) -> Result<StreamId, Error> {
        if let Some(stream) = self.stream {
            return Ok(stream);
        }
        let refused = |_| Error::NotSent("the server takes no more streams".to_owned());
        let stream = self.session.open(clock::now()).map_err(refused)?;
        self.session.send(stream, &[FirstByte::Rpc.byte()]).map_err(|_| gone())?;
        self.stream = Some(stream);
        Ok(stream)
    }

    fn exchange(
        &mut self,
        attempt: &Attempt,
        request: &[u8],
        reply: &mut Incoming,
    ) -> Result<(Vec<u8>, Vec<u8>), Error> {
        let mut rest = request;
        loop {
            let taken = self.session.send(attempt.stream, rest);
            let taken = taken.map_err(|_| self.classify_text(attempt, "the stream ended within the request"))?;
            rest = rest.get(taken..).unwrap_or_default();
            if let Err(cause) = self.flush() {
                // A frame that is half out makes the connection useless, late or not.
                self.over = Some(cause.to_string());
                return Err(self.classify(attempt, &cause));
            }
            if rest.is_empty() {
                break;
            }
            // The window is used up until the server has read.
            self.read(attempt, reply)?;
        }
        let mut head = None;
        loop {
            while let Some(value) = reply.take()? {
                match head.take() {
                    None => head = Some(value),
                    Some(head) => return Ok((head, value)),
                }
                if reply.bytes.is_empty() {
                    break;
                }
            }
            self.read(attempt, reply)?;
        }
    }

    /// Reads once, and gives what came on the attempt's stream to its reply.
    fn read(&mut self, attempt: &Attempt, reply: &mut Incoming) -> Result<(), Error> {
        if self.stream.is_none() {
            return Err(self.classify_text(attempt, "the stream ended within the answer"));
        }
        let count = self.read_some(attempt)?;
        if count == 0 {
            return Ok(());
        }
        self.heard += count as u64;
        let buffer = std::mem::take(&mut self.buffer);
        let bytes = buffer.get(..count).unwrap_or_default();
        self.session.handle_bytes(clock::now(), bytes);
        let mut lost = None;
        while let Some(event) = self.session.poll_event() {
            match event {
                Event::Data(stream, range) if stream == attempt.stream => {
                    self.session.consume(stream, range.len());
                    reply.bytes.extend_from_slice(bytes.get(range).unwrap_or_default());
                }
                Event::Refused(stream) if stream == attempt.stream => lost = Some(Lost::Refused),
                Event::Reset(stream) if stream == attempt.stream => lost = Some(Lost::Ended("was reset")),
                Event::Finished(stream) if stream == attempt.stream => lost = Some(Lost::Ended("ended")),
                other => self.on_event(other),
            }
        }
        self.buffer = buffer;
        if lost.is_some() {
            self.drop_stream();
        }
        if let Some(over) = &self.over {
            return Err(self.classify_text(attempt, over));
        }
        match lost {
            // The reply may be whole although the stream ended behind it.
            Some(_) if !reply.bytes.is_empty() => Ok(()),
            Some(Lost::Refused) => Err(Error::NotSent("the server refused the stream".to_owned())),
            Some(Lost::Ended(how)) => Err(Error::Broken(format!("the stream {how}"))),
            None => Ok(()),
        }
    }

    /// Waits for bytes until the deadline, minding the session's own times. 0 when one of those was due.
    fn read_some(&mut self, attempt: &Attempt) -> Result<usize, Error> {
        let result = self.flush().and_then(|()| {
            self.buffer.resize(READ_BYTES, 0);
            let due = self.session.poll_timeout().map(|at| Instant::now() + at.since(clock::now()));
            self.channel.set_deadline(due.map_or(attempt.deadline, |due| due.min(attempt.deadline)));
            let read = self.channel.read(&mut self.buffer);
            self.channel.set_deadline(attempt.deadline);
            read
        });
        match result {
            Ok(0) => {
                self.over = Some("closed".to_owned());
                Err(self.classify_text(attempt, "the server closed the connection"))
            }
            Ok(count) => Ok(count),
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => Ok(0),
            Err(cause) if is_late(&cause) && Instant::now() < attempt.deadline => {
                self.session.handle_timeout(clock::now());
                while let Some(event) = self.session.poll_event() {
                    self.on_event(event);
                }
                self.over.as_ref().map_or(Ok(0), |over| Err(self.classify_text(attempt, over)))
            }
            Err(cause) => {
                if !is_late(&cause) {
                    self.over = Some(cause.to_string());
                }
                Err(self.classify(attempt, &cause))
            }
        }
    }

    /// What happens beside the call.
    fn on_event(&mut self, event: Event) {
        match event {
            // Servers open streams to agents; this is none.
            Event::Opened(stream) => self.session.reset(stream),
            Event::GoAway => self.gone_away = true,
            Event::Ended(reason) => self.over = Some(format!("the session ended: {reason:?}")),
            Event::Reset(stream) | Event::Refused(stream) if self.stream == Some(stream) => self.stream = None,
            Event::Finished(stream) if self.stream == Some(stream) => self.drop_stream(),
            _ => {}
        }
    }

    fn drop_stream(&mut self) {
        if let Some(stream) = self.stream.take() {
            self.session.reset(stream);
        }
    }

    /// A call that has no reply: its stream goes, and the connection stays when the server showed a sign of life
    /// since (R2.11).
    fn given_up(&mut self, attempt: &Attempt, error: Error) -> Ended {
        self.drop_stream();
        let alive = self.heard > attempt.heard && self.over.is_none() && !self.gone_away;
        if alive && !matches!(&error, Error::Malformed(_)) {
            self.channel.set_deadline(Instant::now() + COURTESY);
            if self.flush().is_ok() {
                self.release_memory();
                return Ended { outcome: Err(error), discard: None };
            }
        }
        Ended::broken(error)
    }

    /// One look at what came between two calls.
    pub(crate) fn take_in(&mut self, bytes: &[u8], closed: bool) -> Meant {
        self.session.handle_bytes(clock::now(), bytes);
        let mut data = false;
        while let Some(event) = self.session.poll_event() {
            match event {
                Event::Data(..) => data = true,
                other => self.on_event(other),
            }
        }
        Meant::Session { over: closed || self.over.is_some(), gone_away: self.gone_away, data }
    }

    pub(crate) fn channel_mut(&mut self) -> &mut Channel {
        &mut self.channel
    }

    /// Why it must not be used again, if so.
    fn condition(&self) -> Option<&'static str> {
        match (&self.over, self.gone_away) {
            (Some(_), _) => Some("closed"),
            (None, true) => Some("gone_away"),
            (None, false) => None,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.session.has_output() {
            let mut out = Vec::new();
            self.session.take_output(&mut out);
            self.channel.write_all(&out)?;
        }
        self.channel.flush()
    }

    fn release_memory(&mut self) {
        self.session.release_memory();
        self.buffer = Vec::new();
    }

    fn classify(&self, attempt: &Attempt, cause: &io::Error) -> Error {
        if is_late(cause) {
            return Error::Deadline { sent: self.channel.bytes_written() > attempt.written };
        }
        self.classify_text(attempt, &cause.to_string())
    }

    fn classify_text(&self, attempt: &Attempt, cause: &str) -> Error {
        if self.channel.bytes_written() > attempt.written {
            Error::Broken(cause.to_owned())
        } else {
            Error::NotSent(cause.to_owned())
        }
    }
}

/// One call on the session.
struct Attempt {
    stream: StreamId,
    /// Bytes that the system had taken when all but the request was out.
    written: u64,
    /// Bytes heard before.
    heard: u64,
    deadline: Instant,
}

fn is_late(cause: &io::Error) -> bool {
    matches!(cause.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
}

fn gone() -> Error {
    Error::NotSent("the stream is gone".to_owned())
}

impl std::fmt::Debug for MuxLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MuxLink").field("stream", &self.stream).field("over", &self.over).finish_non_exhaustive()
    }
}
