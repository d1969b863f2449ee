//! One connection's socket: read and write until they would block, and the parting that lets the last bytes arrive.
//!
//! Knows nothing of what the bytes mean.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use mio::net::TcpStream;
use socket2::SockRef;

use crate::base::time::Instant;

/// Between the wish to close and the last byte taken by the peer's system; then the rest is dropped.
pub(super) const PARTING_WRITE_MAX: Duration = Duration::from_secs(10);
/// How long a closed connection listens for the peer's own end, so that what was written last is not lost to a reset.
pub(super) const PARTING_DRAIN_MAX: Duration = Duration::from_secs(1);
/// What is read and thrown away in that time; a peer that sends more is cut off.
const PARTING_DRAIN_BYTES_MAX: usize = 1024 * 1024;

/// What one read gave.
#[derive(Debug)]
pub(super) enum ReadStep {
    /// So many bytes.
    Bytes(usize),
    /// Nothing more until an event says so.
    Blocked,
    /// The peer sends no more.
    Eof,
    /// The socket is broken.
    Failed(io::Error),
}

/// What one write gave.
#[derive(Debug)]
pub(super) enum WriteStep {
    /// So many bytes.
    Took(usize),
    /// Nothing more until an event says so.
    Blocked,
    /// The socket is broken.
    Failed(io::Error),
}

/// A closed connection on its way out.
#[derive(Debug)]
pub(super) struct Parting {
    /// What is still to be written.
    tail: Vec<u8>,
    /// How much of it was.
    written: usize,
    /// Our half of the connection was ended.
    ended: bool,
    /// What may still be thrown away, bytes.
    drain_left: usize,
    /// When it is closed at the latest.
    deadline: Instant,
}

/// A connection's socket, and what is known of its readiness.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) stream: TcpStream,
    /// An event said so, and no read has found the end since.
    pub(super) readable: bool,
    /// The same for writing.
    pub(super) writable: bool,
    /// The event loop was told that the peer has ended its half: a short read is then not the end.
    pub(super) peer_ended: bool,
    /// The owner wants bytes.
    pub(super) reading: bool,
    /// The end was read.
    pub(super) eof: bool,
    /// It stands in the queue of sockets to read.
    pub(super) queued: bool,
    /// It stands in the list of sockets to write.
    pub(super) dirty: bool,
    /// The dial that it is for, until somebody is at the other end.
    pub(super) dialling: Option<u64>,
    /// Set once its owner has closed it.
    pub(super) parting: Option<Parting>,
}

impl Socket {
    pub(super) fn new(stream: TcpStream) -> Socket {
        Socket {
            stream,
            // The registration reports what is there; writing can be tried at once.
            readable: false,
            writable: true,
            peer_ended: false,
            reading: true,
            eof: false,
            queued: false,
            dirty: false,
            dialling: None,
            parting: None,
        }
    }

    /// Reads once.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> ReadStep {
        loop {
            return match self.stream.read(buffer) {
                Ok(0) => {
                    self.readable = false;
                    self.eof = true;
                    ReadStep::Eof
                }
                Ok(count) => {
                    // A short read emptied the socket, and the next byte brings a new event (epoll(7), question 9);
                    // it saves the read that would only say so.
                    if count < buffer.len() && !self.peer_ended {
                        self.readable = false;
                    }
                    ReadStep::Bytes(count)
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.readable = false;
                    ReadStep::Blocked
                }
                Err(error) => ReadStep::Failed(error),
            };
        }
    }

    /// Writes once.
    pub(super) fn write(&mut self, bytes: &[u8]) -> WriteStep {
        loop {
            return match self.stream.write(bytes) {
                Ok(count) => WriteStep::Took(count),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.writable = false;
                    WriteStep::Blocked
                }
                Err(error) => WriteStep::Failed(error),
            };
        }
    }

    /// Makes the close that follows send an RST instead of a FIN.
    pub(super) fn abort_on_close(&self) {
        // Fails only on a socket that is broken already.
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    /// Its owner is done with it: from now on it only writes `tail`, then listens for the peer's end.
    pub(super) fn part(&mut self, now: Instant, tail: Vec<u8>) {
        self.reading = false;
        self.parting = Some(Parting {
            tail,
            written: 0,
            ended: false,
            drain_left: PARTING_DRAIN_BYTES_MAX,
            deadline: now + PARTING_WRITE_MAX,
        });
    }

    /// When a parting socket wants [`Socket::go_on_parting`] at the latest.
    pub(super) fn parting_deadline(&self) -> Option<Instant> {
        self.parting.as_ref().map(|parting| parting.deadline)
    }

    /// Whether it is parting and has bytes to write.
    pub(super) fn has_tail(&self) -> bool {
        self.parting.as_ref().is_some_and(|parting| !parting.ended)
    }

    /// Goes on with a parting. True when the socket is to be closed now.
    pub(super) fn go_on_parting(&mut self, now: Instant, buffer: &mut [u8]) -> bool {
        let Some(mut parting) = self.parting.take() else { return false };
        let over = now >= parting.deadline
            || self.write_tail(now, &mut parting).is_err()
            || self.drain(&mut parting, buffer).is_err()
            || (parting.ended && self.eof);
        self.parting = Some(parting);
        over
    }

    fn write_tail(&mut self, now: Instant, parting: &mut Parting) -> io::Result<()> {
        while !parting.ended {
            let rest = parting.tail.get(parting.written..).unwrap_or_default();
            if rest.is_empty() {
                self.stream.shutdown(Shutdown::Write)?;
                parting.tail = Vec::new();
                parting.ended = true;
                parting.deadline = now + PARTING_DRAIN_MAX;
                return Ok(());
            }
            if !self.writable {
                return Ok(());
            }
            match self.write(rest) {
                WriteStep::Took(count) => parting.written += count,
                WriteStep::Blocked => return Ok(()),
                WriteStep::Failed(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Throws away what the peer still sends: unread bytes would turn the close into a reset, and that could take the
    /// last answer from the peer.
    fn drain(&mut self, parting: &mut Parting, buffer: &mut [u8]) -> io::Result<()> {
        while self.readable && !self.eof {
            match self.read(buffer) {
                ReadStep::Bytes(count) if count < parting.drain_left => parting.drain_left -= count,
                ReadStep::Bytes(_) => return Err(ErrorKind::FileTooLarge.into()),
                ReadStep::Blocked | ReadStep::Eof => return Ok(()),
                ReadStep::Failed(error) => return Err(error),
            }
        }
        Ok(())
    }
}
