//! A yamux session.

use std::ops::Range;
use std::time::Duration;

use crate::base::id::StreamId;
use crate::base::time::Instant;
use crate::wire::yamux::GoAway;

/// Which side dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Dialled; opens odd streams.
    Client,
    /// Accepted; opens even streams.
    Server,
}

/// Caps and times of a session. The defaults are those of the Go library where it has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes that a peer may send on a stream before it is granted more. Also what a peer grants us at first.
    pub window_bytes: u32,
    /// Streams that the peer opened and that were not accepted yet; one more is reset.
    pub accept_backlog: usize,
    /// Open streams, of both sides; one more of the peer's is reset.
    pub max_streams: usize,
    /// Ping when this long passed since the start or since the last answer. Zero: never.
    pub keepalive_interval: Duration,
    /// A ping that was not answered in this time ends the session.
    pub ping_timeout: Duration,
    /// A stream that we opened and that the peer does not take up in this time ends the session.
    pub stream_open_timeout: Duration,
    /// A stream that we closed and the peer did not: reset after this time.
    pub stream_close_timeout: Duration,
    /// Answers to pings that wait to be sent; one more ends the session.
    pub max_waiting_pongs: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            window_bytes: 256 * 1024,
            accept_backlog: 256,
            max_streams: 4096,
            keepalive_interval: Duration::from_secs(30),
            ping_timeout: Duration::from_secs(10),
            stream_open_timeout: Duration::from_secs(75),
            stream_close_timeout: Duration::from_secs(300),
            max_waiting_pongs: 1024,
        }
    }
}

/// What happened on a session. Each `Data` names a range of the bytes handed in last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The peer opened a stream. It waits in the backlog until [`MuxSession::accept`].
    Opened(StreamId),
    /// Payload. It counts against the stream's window until [`MuxSession::consume`].
    Data(StreamId, Range<usize>),
    /// The peer will send no more on this stream.
    Finished(StreamId),
    /// The stream is gone in both directions, by the peer's or by our own time-out; nothing more comes of it.
    Reset(StreamId),
    /// Both sides have finished: the stream's id is dead. Always the last event of a stream that was not reset.
    Closed(StreamId),
    /// The peer granted credit to a stream on which [`MuxSession::send`] took less than it was given.
    Writable(StreamId),
    /// The peer opens no more streams and takes none.
    GoAway,
    /// The session is over. Send what is in the output, then close the connection. No event follows.
    Ended(EndReason),
}

/// Why a session is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// The peer broke the protocol; a GoAway(1) is in the output. The text is the Go library's where it has one
    /// (`invalid protocol version`, `invalid msg type`, `recv window exceeded`, `duplicate stream initiated`, ...).
    Violation(&'static str),
    /// The peer sent a GoAway with another code than 0.
    PeerError(u32),
    /// A ping was not answered: `keepalive timeout`.
    KeepaliveTimeout,
    /// A stream that we opened was not taken up.
    OpenTimeout,
}

/// A stream cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// `accept_backlog` streams of ours wait to be taken up, or `max_streams` are open.
    TooMany,
    /// The peer went away, or we did, or ids are used up.
    GoneAway,
}

/// A stream cannot be sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamGone;

/// One yamux session: a state machine without I/O.
///
/// Hand in bytes, then take all events before the next bytes (they point into them), then take the output.
/// Outgoing frames collect in one buffer; the owner takes it with [`MuxSession::take_output`] and holds back further
/// sends while its own outbox is full.
pub struct MuxSession {
    // mux helper
}

#[allow(unused_variables)]
impl MuxSession {
    /// A fresh session.
    pub fn new(side: Side, limits: Limits, now: Instant) -> MuxSession {
        todo!("mux helper")
    }

    /// Takes bytes from the peer, all of them.
    pub fn handle_bytes(&mut self, now: Instant, bytes: &[u8]) {
        todo!("mux helper")
    }

    /// Acts on deadlines that are due; early is harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        todo!("mux helper")
    }

    /// The next event, if any.
    pub fn poll_event(&mut self) -> Option<Event> {
        todo!("mux helper")
    }

    /// When [`MuxSession::handle_timeout`] is wanted next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        todo!("mux helper")
    }

    /// Frames to be sent, in order; swaps the buffer out (`into` is appended to when it holds bytes).
    pub fn take_output(&mut self, into: &mut Vec<u8>) {
        todo!("mux helper")
    }

    /// True when [`MuxSession::take_output`] would give something.
    pub fn has_output(&self) -> bool {
        todo!("mux helper")
    }

    /// Says to the session whether the owner's outbox is backed up: while it is, answers to pings are counted
    /// against `max_waiting_pongs`.
    pub fn set_blocked(&mut self, blocked: bool) {
        todo!("mux helper")
    }

    /// Takes a stream that the peer opened out of the backlog and acknowledges it.
    pub fn accept(&mut self, stream: StreamId) {
        todo!("mux helper")
    }

    /// Opens a stream.
    ///
    /// # Errors
    /// Too many, or the session is closing.
    pub fn open(&mut self, now: Instant) -> Result<StreamId, OpenError> {
        todo!("mux helper")
    }

    /// Sends as much of `bytes` as the peer's window permits and says how much that was. When it is not all, an
    /// [`Event::Writable`] comes with the next credit.
    ///
    /// # Errors
    /// The stream was reset, closed, or finished by us.
    pub fn send(&mut self, stream: StreamId, bytes: &[u8]) -> Result<usize, StreamGone> {
        todo!("mux helper")
    }

    /// How many bytes [`MuxSession::send`] would take; 0 for a stream that is gone.
    pub fn credit(&self, stream: StreamId) -> usize {
        todo!("mux helper")
    }

    /// The application has read `bytes` bytes of the stream's data: grants them back once half of the window is due.
    pub fn consume(&mut self, stream: StreamId, bytes: usize) {
        todo!("mux helper")
    }

    /// Half-closes: we send no more on this stream.
    pub fn finish(&mut self, now: Instant, stream: StreamId) {
        todo!("mux helper")
    }

    /// Resets a stream. No further event comes of it.
    pub fn reset(&mut self, stream: StreamId) {
        todo!("mux helper")
    }

    /// Tells the peer that we take no new streams; those open go on. Its later SYNs are reset.
    pub fn go_away(&mut self, code: GoAway) {
        todo!("mux helper")
    }

    /// Open streams, of both sides.
    pub fn streams(&self) -> usize {
        todo!("mux helper")
    }
}
