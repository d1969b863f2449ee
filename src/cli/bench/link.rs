//! One connection of the load generator: its layers, its channels (a stream each, or the connection itself), and the
//! one call that each channel has under way.

use std::collections::VecDeque;
use std::io;

use crate::base::id::StreamId;
use crate::base::time::Instant;
use crate::cli::Failure;
use crate::cli::bench::net::Plan;
use crate::cli::bench::pipe::{Pipe, Took};
use crate::cli::bench::reply::{Found, find};
use crate::client::MAX_REPLY_BYTES;
use crate::mux::session::{Event, Limits, MuxSession, OpenError, Side};
use crate::wire::first_byte::FirstByte;
use crate::wire::msgpack::{Encoder, Msg, Scan, Scanner};
use crate::wire::rpc;
use crate::wire::streaming::StreamingHeader;

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speech {
    /// First byte 01: calls straight on the connection. One channel.
    Plain,
    /// First byte 06: a stream for each channel.
    Multiplex,
}

/// What becomes of a connection after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// It stays.
    Keep,
    /// It is closed at once, as Go clients close: without a word.
    Close,
}

/// A successful answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer<'a> {
    /// Which channel asked.
    pub(crate) channel: usize,
    /// When it asked.
    pub(crate) sent: Instant,
    /// When the answer was read from the socket.
    pub(crate) now: Instant,
    /// One msgpack value.
    pub(crate) body: &'a [u8],
}

/// What a bench does with the connections: the closed loop's other end.
pub(crate) trait Load {
    /// A connection stands and can take calls.
    ///
    /// # Errors
    /// Whatever ends the run.
    fn up(&mut self, link: &mut Link, now: Instant) -> Result<(), Failure>;

    /// A call was answered.
    ///
    /// # Errors
    /// Whatever ends the run.
    fn answer(&mut self, link: &mut Link, answer: Answer<'_>) -> Result<After, Failure>;

    /// The server closed a connection, or it broke.
    ///
    /// # Errors
    /// Whatever ends the run, as this does when nothing else is said.
    fn lost(&mut self, cause: &str) -> Result<(), Failure> {
        Err(Failure::Lost(format!("connection lost: {cause}")))
    }
}

/// One call at a time.
#[derive(Debug, Default)]
struct Channel {
    stream: Option<StreamId>,
    /// Bytes of the request that no window, or no stream, would take.
    unsent: Vec<u8>,
    /// Bytes of an answer that is not whole.
    partial: Vec<u8>,
    sent: Instant,
    seq: u64,
    busy: bool,
    /// A streaming call: every message that arrives is an answer, and there is no end to them.
    streaming: bool,
}

/// The yamux layer.
struct Mux {
    session: MuxSession,
    /// Channel of each stream, by half of its id.
    by_stream: Vec<Option<usize>>,
    /// Channels whose stream could not be opened at once.
    to_open: VecDeque<usize>,
}

/// A connection.
pub(crate) struct Link {
    /// Its place in the load generator.
    pub(crate) id: usize,
    /// When it was begun.
    pub(crate) since: Instant,
    pub(crate) pipe: Pipe,
    pub(crate) is_up: bool,
    speech: Speech,
    mux: Option<Box<Mux>>,
    channels: Vec<Channel>,
    batch: bool,
}

impl Link {
    /// A connection that is being made.
    pub(crate) fn new(id: usize, pipe: Pipe, plan: &Plan, limits: Limits, now: Instant) -> Link {
        let channels = (0..plan.streams).map(|_| Channel::default()).collect();
        let mux = (plan.speech == Speech::Multiplex).then(|| {
            let session = MuxSession::new(Side::Client, limits, now);
            Box::new(Mux { session, by_stream: Vec::new(), to_open: VecDeque::new() })
        });
        Link { id, since: now, pipe, is_up: false, speech: plan.speech, mux, channels, batch: plan.batch }
    }

    /// Says what is spoken, once the connection stands.
    ///
    /// # Errors
    /// The socket's.
    pub(crate) fn greet(&mut self) -> io::Result<()> {
        self.is_up = true;
        let byte = match self.speech {
            Speech::Plain => FirstByte::Rpc,
            Speech::Multiplex => FirstByte::MultiplexV2,
        };
        self.pipe.send(&[byte.byte()])?;
        self.flush()
    }

    /// Starts a call on a channel that has none under way.
    ///
    /// # Errors
    /// The connection cannot take it.
    pub(crate) fn call(&mut self, channel: usize, method: &str, body: &[u8], now: Instant) -> Result<(), Failure> {
        let Some(slot) = self.channels.get_mut(channel) else {
            return Err(Failure::Other(format!("connection has no channel {channel}")));
        };
        slot.seq += 1;
        slot.sent = now;
        slot.busy = true;
        let fresh_stream = self.mux.is_some() && slot.stream.is_none();
        let mut e = Encoder::new();
        if fresh_stream {
            e.out.push(FirstByte::Rpc.byte());
        }
        rpc::encode_request_head(&mut e, slot.seq, method);
        e.raw(body);
        match &mut self.mux {
            None => self.pipe.send(&e.out).map_err(broken)?,
            Some(mux) => {
                slot.unsent = e.out;
                if fresh_stream {
                    mux.to_open.push_back(channel);
                    self.open_streams(now)?;
                } else {
                    self.push(channel)?;
                }
            }
        }
        if self.batch { Ok(()) } else { self.flush().map_err(broken) }
    }

    /// Starts a streaming call on a channel that was never used: header and argument together.
    ///
    /// # Errors
    /// The connection cannot take it, or has no streams.
    pub(crate) fn stream(
        &mut self,
        channel: usize,
        method: &str,
        argument: &[u8],
        now: Instant,
    ) -> Result<(), Failure> {
        let (Some(mux), Some(slot)) = (&mut self.mux, self.channels.get_mut(channel)) else {
            return Err(Failure::Other(format!("connection has no stream {channel}")));
        };
        let mut e = Encoder::new();
        e.out.push(FirstByte::Streaming.byte());
        StreamingHeader { method: method.to_owned() }.encode(&mut e);
        e.raw(argument);
        slot.sent = now;
        slot.busy = true;
        slot.streaming = true;
        slot.unsent = e.out;
        mux.to_open.push_back(channel);
        self.open_streams(now)
    }

    /// Opens streams for the channels that wait for one, as many as the session permits.
    fn open_streams(&mut self, now: Instant) -> Result<(), Failure> {
        while let Some(mux) = &mut self.mux {
            let Some(&channel) = mux.to_open.front() else { return Ok(()) };
            let stream = match mux.session.open(now) {
                Ok(stream) => stream,
                Err(OpenError::TooMany) => return Ok(()),
                Err(OpenError::GoneAway) => {
                    return Err(Failure::Lost("the server takes no more streams".to_owned()));
                }
            };
            mux.to_open.pop_front();
            let place = place(stream);
            if mux.by_stream.len() <= place {
                mux.by_stream.resize(place + 1, None);
            }
            if let Some(slot) = mux.by_stream.get_mut(place) {
                *slot = Some(channel);
            }
            if let Some(slot) = self.channels.get_mut(channel) {
                slot.stream = Some(stream);
            }
            self.push(channel)?;
        }
        Ok(())
    }

    /// Channels that wait for their stream.
    pub(crate) fn opening(&self) -> usize {
        self.mux.as_ref().map_or(0, |mux| mux.to_open.len())
    }

    /// Hands what a channel has to send to its stream, as far as the window goes.
    fn push(&mut self, channel: usize) -> Result<(), Failure> {
        let (Some(mux), Some(slot)) = (&mut self.mux, self.channels.get_mut(channel)) else { return Ok(()) };
        let Some(stream) = slot.stream.filter(|_| !slot.unsent.is_empty()) else { return Ok(()) };
        match mux.session.send(stream, &slot.unsent) {
            Ok(taken) if taken >= slot.unsent.len() => slot.unsent = Vec::new(),
            Ok(taken) => {
                slot.unsent.drain(..taken);
            }
            Err(_) => return Err(Failure::Lost("the server closed a stream".to_owned())),
        }
        Ok(())
    }

    /// Writes what waits.
    ///
    /// # Errors
    /// The socket's.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if let Some(mux) = &mut self.mux
            && mux.session.has_output()
        {
            let mut frames = Vec::new();
            mux.session.take_output(&mut frames);
            self.pipe.send(&frames)?;
        }
        self.pipe.flush()
    }

    /// Reads until the socket has no more, and hands every answer on. `buffer` is only borrowed for the call.
    ///
    /// `after_end` says that the end of the stream is known to have arrived, so that a short read is not the last.
    ///
    /// # Errors
    /// A server's refusal, a connection that ended, and what the load itself says.
    pub(crate) fn receive(
        &mut self,
        buffer: &mut [u8],
        after_end: bool,
        clock: &impl Fn() -> Instant,
        load: &mut impl Load,
    ) -> Result<After, Failure> {
        loop {
            let len = match self.pipe.read(buffer).map_err(broken)? {
                Took::Bytes(len) => len,
                Took::Nothing => return Ok(After::Keep),
                Took::End => return Err(Failure::Lost("closed by the server".to_owned())),
            };
            let bytes = buffer.get(..len).unwrap_or_default();
            if self.take(bytes, clock(), load)? == After::Close {
                return Ok(After::Close);
            }
            // What arrives later makes a new event (epoll(7), edge-triggered), so a short read needs no second one.
            if len < buffer.len() && !after_end && !self.pipe.is_secure() {
                return Ok(After::Keep);
            }
        }
    }

    /// Works through bytes from the server.
    fn take(&mut self, bytes: &[u8], now: Instant, load: &mut impl Load) -> Result<After, Failure> {
        let Some(mux) = &mut self.mux else { return self.arrive(0, bytes, now, load) };
        mux.session.handle_bytes(now, bytes);
        while let Some(event) = self.mux.as_mut().and_then(|mux| mux.session.poll_event()) {
            match event {
                Event::Data(stream, range) => {
                    let data = bytes.get(range).unwrap_or_default();
                    let channel = self.channel_of(stream);
                    if let Some(mux) = &mut self.mux {
                        mux.session.consume(stream, data.len());
                    }
                    let Some(channel) = channel else { continue };
                    if self.arrive(channel, data, now, load)? == After::Close {
                        return Ok(After::Close);
                    }
                }
                Event::Writable(stream) => {
                    if let Some(channel) = self.channel_of(stream) {
                        self.push(channel)?;
                    }
                }
                // A server that takes us for a node may want to call it. There is none.
                Event::Opened(stream) => {
                    if let Some(mux) = &mut self.mux {
                        mux.session.reset(stream);
                    }
                }
                Event::Finished(stream) | Event::Reset(stream) | Event::Refused(stream) | Event::Closed(stream) => {
                    if self.channel_of(stream).is_some() {
                        return Err(Failure::Lost("the server closed a stream".to_owned()));
                    }
                }
                Event::GoAway => return Err(Failure::Lost("the server is going away".to_owned())),
                Event::Ended(reason) => return Err(Failure::Lost(format!("yamux session ended: {reason:?}"))),
            }
        }
        self.open_streams(now)?;
        Ok(After::Keep)
    }

    fn channel_of(&self, stream: StreamId) -> Option<usize> {
        // Even ids are the server's own.
        if stream.0.is_multiple_of(2) {
            return None;
        }
        *self.mux.as_ref()?.by_stream.get(place(stream))?
    }

    /// Bytes of an answer on a channel.
    fn arrive(&mut self, channel: usize, bytes: &[u8], now: Instant, load: &mut impl Load) -> Result<After, Failure> {
        let Some(slot) = self.channels.get_mut(channel) else { return Ok(After::Keep) };
        if !slot.busy {
            return Err(Failure::Other("the server sent bytes that nobody asked for".to_owned()));
        }
        let mut whole = std::mem::take(&mut slot.partial);
        let message = if whole.is_empty() {
            bytes
        } else {
            whole.extend_from_slice(bytes);
            whole.as_slice()
        };
        if slot.streaming {
            let rest = self.messages(channel, message, now, load)?;
            let partial = message.get(rest..).unwrap_or_default().to_vec();
            if let Some(slot) = self.channels.get_mut(channel) {
                slot.partial = partial;
            }
            return Ok(After::Keep);
        }
        let found = find(message).map_err(|error| Failure::Other(format!("answer cannot be read: {error}")))?;
        let Found::Whole { len, seq, error, body } = found else {
            slot.partial = if whole.is_empty() { bytes.to_vec() } else { whole };
            return Ok(After::Keep);
        };
        if !error.is_empty() {
            return Err(Failure::Other(error));
        }
        if len != message.len() || seq != slot.seq {
            return Err(Failure::Other("the server's answer is to another request".to_owned()));
        }
        slot.busy = false;
        load.answer(self, Answer { channel, sent: self.sent_at(channel), now, body })
    }

    /// Hands on the whole messages of a streaming call; says where the rest begins.
    fn messages(&mut self, channel: usize, bytes: &[u8], now: Instant, load: &mut impl Load) -> Result<usize, Failure> {
        let mut at = 0;
        loop {
            let rest = bytes.get(at..).unwrap_or_default();
            let scanned = Scanner::default().scan(rest, MAX_REPLY_BYTES);
            match scanned.map_err(|error| Failure::Other(format!("message cannot be read: {error}")))? {
                Scan::Complete(len) if !rest.is_empty() => {
                    let body = rest.get(..len).unwrap_or_default();
                    load.answer(self, Answer { channel, sent: self.sent_at(channel), now, body })?;
                    at += len;
                }
                _ => return Ok(at),
            }
        }
    }

    fn sent_at(&self, channel: usize) -> Instant {
        self.channels.get(channel).map_or(Instant::ZERO, |slot| slot.sent)
    }

    /// Acts on the session's deadlines.
    ///
    /// # Errors
    /// The connection ended by it.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Result<(), Failure> {
        let Some(mux) = &mut self.mux else { return Ok(()) };
        if mux.session.poll_timeout().is_none_or(|at| at > now) {
            return Ok(());
        }
        mux.session.handle_timeout(now);
        while let Some(event) = mux.session.poll_event() {
            if let Event::Ended(reason) = event {
                return Err(Failure::Lost(format!("yamux session ended: {reason:?}")));
            }
        }
        self.flush().map_err(broken)
    }
}

/// Half of a stream's id: ids of our streams are odd and rise.
fn place(stream: StreamId) -> usize {
    stream.0 as usize / 2
}

/// A socket's error as the run's.
pub(crate) fn broken(error: io::Error) -> Failure {
    Failure::Lost(error.to_string())
}
