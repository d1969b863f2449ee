//! What a session tells its owner, and why it refuses. Values only.

use std::ops::Range;

use crate::base::id::StreamId;

/// What happened on a session. Each `Data` names a range of the bytes handed in last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The peer opened a stream. It waits in the backlog until [`MuxSession::accept`](super::session::MuxSession::accept).
    Opened(StreamId),
    /// Payload. It counts against the stream's window until [`MuxSession::consume`](super::session::MuxSession::consume).
    Data(StreamId, Range<usize>),
    /// The peer says that it will send no more on this stream. A peer that breaks its word is borne with, as Go peers
    /// do: its bytes still come as `Data`, within the window that is left.
    Finished(StreamId),
    /// The stream is gone in both directions, by the peer's or by our own time-out; nothing more comes of it.
    Reset(StreamId),
    /// A stream that we opened was reset by the peer, which had not taken it up: nothing that we sent on it was read.
    /// Nothing more comes of it.
    Refused(StreamId),
    /// Both sides have finished: the stream's id is dead. Always the last event of a stream that was not reset.
    Closed(StreamId),
    /// The peer granted credit to a stream on which [`MuxSession::send`](super::session::MuxSession::send) took less than it was given.
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

impl Event {
    /// The stream it is of, if it is of one.
    pub fn stream(&self) -> Option<StreamId> {
        match self {
            Event::Opened(stream)
            | Event::Data(stream, _)
            | Event::Finished(stream)
            | Event::Reset(stream)
            | Event::Refused(stream)
            | Event::Closed(stream)
            | Event::Writable(stream) => Some(*stream),
            Event::GoAway | Event::Ended(_) => None,
        }
    }
}
