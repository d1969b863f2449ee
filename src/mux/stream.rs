//! One stream, and the table of those that are open. A stream holds no bytes: 32 bytes of counters.
//!
//! Source: yamux `spec.md`, "Opening a stream", "Closing a stream".

use std::fmt;

use crate::base::time::Instant;

use super::keepalive::NEVER;
use super::window::{RecvWindow, SendWindow};

/// Who waits for whom before a stream is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uptake {
    /// We opened it, and no frame of the peer has shown that it knows of it.
    Proposed,
    /// The peer opened it, and it was not accepted here.
    Backlog,
    /// In use.
    Taken,
}

/// The peer's half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerHalf {
    /// More may come.
    Open,
    /// Its FIN came on a data frame whose payload is still under way.
    Finishing,
    /// It has said that no more comes.
    Finished,
}

/// One open stream.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    /// Its id.
    pub id: u32,
    /// What we may send.
    pub send: SendWindow,
    /// What the peer may send.
    pub recv: RecvWindow,
    /// When it must have been taken up (while [`Uptake::Proposed`]), or when it is reset because the peer does not
    /// finish; [`NEVER`] while neither is due. The same deadline stands in the session's timers.
    pub deadline: Instant,
    /// Who waits for whom.
    pub uptake: Uptake,
    /// The peer's half.
    pub peer: PeerHalf,
    /// Our half: true when we have sent FIN.
    pub finished: bool,
    /// A send was cut short, and no credit came since.
    pub starved: bool,
}

impl Stream {
    /// A fresh stream with both windows full.
    pub const fn new(id: u32, window_bytes: u32, uptake: Uptake) -> Stream {
        Stream {
            id,
            send: SendWindow::new(window_bytes),
            recv: RecvWindow::new(window_bytes),
            deadline: NEVER,
            uptake,
            peer: PeerHalf::Open,
            finished: false,
            starved: false,
        }
    }
}

/// Up to this many places are kept when streams go.
const KEPT_PLACES: usize = 8;

/// The open streams, by id.
///
/// Sorted in one piece of memory: a session has few streams, new ids are the highest, and a stream costs its 32
/// bytes and nothing more.
#[derive(Clone, Default)]
pub struct Streams {
    sorted: Vec<Stream>,
}

impl Streams {
    /// How many are open.
    pub fn count(&self) -> usize {
        self.sorted.len()
    }

    /// The stream of an id.
    pub fn find(&self, id: u32) -> Option<&Stream> {
        self.position(id).ok().and_then(|at| self.sorted.get(at))
    }

    /// The stream of an id.
    pub fn find_mut(&mut self, id: u32) -> Option<&mut Stream> {
        self.position(id).ok().and_then(|at| self.sorted.get_mut(at))
    }

    /// Adds a stream; one of the same id is replaced.
    pub fn insert(&mut self, stream: Stream) {
        match self.position(stream.id) {
            Ok(at) => self.sorted[at] = stream,
            Err(at) => self.sorted.insert(at, stream),
        }
    }

    /// Takes a stream out.
    pub fn remove(&mut self, id: u32) -> Option<Stream> {
        let at = self.position(id).ok()?;
        let stream = self.sorted.remove(at);
        if self.sorted.capacity() > KEPT_PLACES && self.sorted.len() < self.sorted.capacity() / 4 {
            self.sorted.shrink_to((self.sorted.len() * 2).max(KEPT_PLACES));
        }
        Some(stream)
    }

    /// Takes all out.
    pub fn clear(&mut self) {
        self.sorted = Vec::new();
    }

    /// Gives back memory that is not in use.
    pub fn release_memory(&mut self) {
        self.sorted.shrink_to_fit();
    }

    /// All, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Stream> {
        self.sorted.iter()
    }

    fn position(&self, id: u32) -> Result<usize, usize> {
        self.sorted.binary_search_by_key(&id, |stream| stream.id)
    }
}

impl fmt::Debug for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.sorted).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_32_bytes() {
        assert!(size_of::<Stream>() <= 32, "{}", size_of::<Stream>());
    }

    #[test]
    fn the_table_finds_what_is_open_and_shrinks() {
        let mut streams = Streams::default();
        for id in (1..=2001).rev() {
            streams.insert(Stream::new(id, id, Uptake::Taken));
        }
        assert!(streams.iter().map(|stream| stream.id).eq(1..=2001));
        for id in 2..=2001 {
            assert_eq!(streams.remove(id).map(|stream| stream.send.credit()), Some(id));
            assert!(streams.remove(id).is_none() && streams.find(id).is_none() && streams.find_mut(id).is_none());
        }
        assert_eq!((streams.count(), streams.find(1).map(|stream| stream.id)), (1, Some(1)));
        assert!(streams.sorted.capacity() <= 4 * KEPT_PLACES, "{}", streams.sorted.capacity());
    }
}
