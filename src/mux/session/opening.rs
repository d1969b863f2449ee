//! Streams that we open, also such as have an id long before they can be; and the probe that tells what a peer has read.

use super::{FrameType, Instant, MuxSession, OpenError, PROBE, SYN, Stream, StreamId, Uptake, arm, deadline};

/// The highest id that is opened, as in Go's library (`ErrStreamsExhausted`).
const LAST_ID: u32 = u32::MAX - 2;

impl MuxSession {
    /// Opens a stream.
    ///
    /// # Errors
    /// Too many, or the session is closing.
    pub fn open(&mut self, now: Instant) -> Result<StreamId, OpenError> {
        self.may_open()?;
        let id = self.reserve()?;
        self.open_reserved(now, id)?;
        Ok(id)
    }

    /// Takes the id of a stream that is opened later: of those reserved, in their order.
    ///
    /// # Errors
    /// The session is closing, or ids are used up.
    pub fn reserve(&mut self) -> Result<StreamId, OpenError> {
        if self.ended || self.peer_gone || self.local_gone || !self.has_ids() {
            return Err(OpenError::GoneAway);
        }
        let id = self.next_id;
        self.next_id += 2;
        Ok(StreamId(id))
    }

    /// Opens a stream whose id was reserved.
    ///
    /// # Errors
    /// Too many, or the session is closing.
    pub fn open_reserved(&mut self, now: Instant, stream: StreamId) -> Result<(), OpenError> {
        self.may_open()?;
        let StreamId(id) = stream;
        let mut stream = Stream::new(id, self.limits.window_bytes, Uptake::Proposed);
        arm(&mut self.timers, &mut stream, deadline(now, self.limits.stream_open_timeout));
        self.streams.insert(stream);
        self.proposed += 1;
        self.write(FrameType::WindowUpdate, SYN, id, 0);
        self.check_invariants();
        Ok(())
    }

    /// Whether there are ids for further streams of ours.
    pub fn has_ids(&self) -> bool {
        self.next_id <= LAST_ID
    }

    /// Whether a stream can be opened now, ids apart.
    ///
    /// # Errors
    /// As [`MuxSession::open`].
    pub fn may_open(&self) -> Result<(), OpenError> {
        if self.ended || self.peer_gone || self.local_gone {
            return Err(OpenError::GoneAway);
        }
        if self.proposed >= self.limits.accept_backlog || self.streams.count() >= self.limits.max_streams {
            return Err(OpenError::TooMany);
        }
        Ok(())
    }

    /// Goes on with ids from here, for tests of their end.
    #[cfg(test)]
    pub(crate) fn skip_ids(&mut self, next: u32) {
        self.next_id = next;
    }

    /// Asks the peer for a sign that it has read what was sent so far. What it sent before it had read that comes
    /// before the sign.
    pub fn probe(&mut self) {
        if !self.ended && self.probed.is_none() {
            self.probed = Some(false);
            self.write(FrameType::Ping, SYN, 0, PROBE);
        }
    }

    /// Whether the sign has come.
    pub fn is_probe_answered(&self) -> bool {
        self.probed == Some(true)
    }
}
