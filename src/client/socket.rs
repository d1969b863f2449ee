//! A blocking byte channel, plain or TLS, whose every system call ends at a deadline.

use std::io;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::RecvFlags;

use crate::client::tls::TlsSettings;
use crate::wire::first_byte::FirstByte;

/// Bytes of one look at a connection that was kept.
const LOOK_BYTES: usize = 4096;

/// Bytes that may come while no answer is owed; a peer that sends more is not listened to any longer.
const LOOK_BYTES_MAX: usize = 256 * 1024;

/// What one look at a channel gave.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// The peer's bytes ended.
    pub(crate) ended: bool,
    /// Reading failed.
    pub(crate) failed: bool,
    /// Bytes came, of whichever layer.
    pub(crate) any: bool,
    /// TLS says that the peer has closed, or cannot read it.
    pub(crate) closed: bool,
    /// What came for the layer above.
    pub(crate) data: Vec<u8>,
}

/// A socket with a deadline; reads and writes past it fail with `TimedOut`.
#[derive(Debug)]
pub(crate) struct TimedSocket {
    stream: TcpStream,
    deadline: Instant,
    written: u64,
}

impl TimedSocket {
    /// Takes a connected socket.
    ///
    /// # Errors
    /// When the socket refuses its options.
    pub(crate) fn new(stream: TcpStream, deadline: Instant) -> io::Result<TimedSocket> {
        stream.set_nodelay(true)?;
        Ok(TimedSocket { stream, deadline, written: 0 })
    }

    /// What is left of the time.
    fn left(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

impl Read for TimedSocket {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(self.left()?))?;
        self.stream.read(into)
    }
}

impl Write for TimedSocket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        let len = self.stream.write(bytes)?;
        self.written += len as u64;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// A connection that calls travel on.
#[derive(Debug)]
pub(crate) enum Channel {
    /// In clear.
    Plain(TimedSocket),
    /// Inside TLS.
    Secure(Box<rustls::StreamOwned<rustls::ClientConnection, TimedSocket>>),
}

impl Channel {
    /// A channel in clear.
    pub(crate) fn plain(socket: TimedSocket) -> Channel {
        Channel::Plain(socket)
    }

    /// Says on the socket that TLS follows, and shakes hands.
    ///
    /// # Errors
    /// The socket's, and every reason why TLS does not trust the server.
    pub(crate) fn secure(mut socket: TimedSocket, tls: &TlsSettings, deadline: Instant) -> io::Result<Channel> {
        socket.deadline = deadline;
        socket.write_all(&[FirstByte::Tls.byte()])?;
        let mut session = tls.connection().map_err(io::Error::other)?;
        while session.is_handshaking() {
            session.complete_io(&mut socket)?;
        }
        Ok(Channel::Secure(Box::new(rustls::StreamOwned::new(session, socket))))
    }

    /// Writes the byte that says what is spoken.
    ///
    /// # Errors
    /// The socket's.
    pub(crate) fn greet(&mut self, byte: FirstByte) -> io::Result<()> {
        self.write_all(&[byte.byte()])?;
        self.flush()
    }

    /// Moves the deadline of all that follows.
    pub(crate) fn set_deadline(&mut self, deadline: Instant) {
        self.socket_mut().deadline = deadline;
    }

    /// Bytes the system has taken since the connection was made.
    pub(crate) fn bytes_written(&self) -> u64 {
        self.socket().written
    }

    /// Whether bytes are counted as they were given, or as TLS wrapped them.
    pub(crate) fn is_secure(&self) -> bool {
        matches!(self, Channel::Secure(_))
    }

    /// One look, without waiting and without a change to the descriptor, at what came since the last call (R3.1 to
    /// R3.4). TLS takes its own bytes in first: tickets and key updates are no answer.
    pub(crate) fn look(&mut self) -> Seen {
        let mut seen = Seen::default();
        let mut bytes = [0; LOOK_BYTES];
        if let Channel::Secure(stream) = self {
            drain(&mut stream.conn, &mut seen);
        }
        loop {
            let read = match rustix::net::recv(&self.socket().stream, &mut bytes[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => {
                    seen.ended = true;
                    return seen;
                }
                Ok((count, _)) => bytes.get(..count).unwrap_or_default(),
                Err(Errno::AGAIN) => return seen,
                Err(Errno::INTR) => continue,
                Err(_) => {
                    seen.failed = true;
                    return seen;
                }
            };
            seen.any = true;
            match self {
                Channel::Plain(_) => seen.data.extend_from_slice(read),
                Channel::Secure(stream) => take_in(&mut stream.conn, read, &mut seen),
            }
            let enough = read.len() < LOOK_BYTES || seen.closed || seen.data.len() > LOOK_BYTES_MAX;
            if enough {
                return seen;
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn descriptor(&self) -> &TcpStream {
        &self.socket().stream
    }

    fn socket(&self) -> &TimedSocket {
        match self {
            Channel::Plain(socket) => socket,
            Channel::Secure(stream) => &stream.sock,
        }
    }

    fn socket_mut(&mut self) -> &mut TimedSocket {
        match self {
            Channel::Plain(socket) => socket,
            Channel::Secure(stream) => &mut stream.sock,
        }
    }
}

impl Read for Channel {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Channel::Plain(socket) => socket.read(into),
            Channel::Secure(stream) => stream.read(into).or_else(|cause| match stream.conn.reader().read(into) {
                // What came whole before the bytes that TLS cannot read counts.
                Ok(count) if count > 0 && cause.kind() == io::ErrorKind::InvalidData => Ok(count),
                _ => Err(cause),
            }),
        }
    }
}

impl Write for Channel {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Channel::Plain(socket) => socket.write(bytes),
            Channel::Secure(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Channel::Plain(socket) => socket.flush(),
            Channel::Secure(stream) => stream.flush(),
        }
    }
}

/// Bytes that TLS takes between two calls.
fn take_in(session: &mut rustls::ClientConnection, mut bytes: &[u8], seen: &mut Seen) {
    while !bytes.is_empty() && !seen.closed {
        match session.read_tls(&mut bytes).map(|_| session.process_new_packets()) {
            Ok(Ok(state)) => {
                seen.closed = state.peer_has_closed();
                drain(session, seen);
            }
            Ok(Err(_)) | Err(_) => seen.closed = true,
        }
    }
}

/// What TLS has unwrapped.
fn drain(session: &mut rustls::ClientConnection, seen: &mut Seen) {
    let mut bytes = [0; LOOK_BYTES];
    while let Ok(count) = session.reader().read(&mut bytes) {
        if count == 0 {
            return;
        }
        seen.data.extend_from_slice(bytes.get(..count).unwrap_or_default());
    }
}
