//! What a session is built from: plain numbers, no behaviour.

use std::time::Duration;

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
    /// A ping that was not answered in this time ends the session. Zero: never.
    pub ping_timeout: Duration,
    /// A stream that we opened and that the peer does not take up in this time ends the session. Zero: never.
    pub stream_open_timeout: Duration,
    /// A stream that we finished and the peer did not: reset after this time, which runs once the peer has taken the
    /// stream up. Zero: never.
    pub stream_close_timeout: Duration,
    /// Answers to pings, and resets of streams refused, that wait to be sent; one more ends the session.
    pub max_waiting_pongs: usize,
    /// Ranges of stream ids that the peer skipped and may still use; the oldest is forgotten first. Go peers that
    /// open streams at the same time send their SYNs out of order, and never more than 256 at once. 0: each new id
    /// must be higher than all before it.
    pub max_skipped_ids: usize,
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
            max_skipped_ids: 256,
        }
    }
}
