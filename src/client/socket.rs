//! A blocking byte channel, plain or TLS, whose every system call ends at a deadline.

use std::io;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::client::tls::TlsSettings;
use crate::wire::first_byte::FirstByte;

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

    /// One look, without waiting, at whether the server hung up or spoke out of turn. A TLS peer may well have said
    /// something (session tickets), so there only the end of the stream counts.
    pub(crate) fn looks_alive(&self) -> bool {
        let stream = &self.socket().stream;
        if stream.set_nonblocking(true).is_err() {
            return false;
        }
        let seen = stream.peek(&mut [0]);
        if stream.set_nonblocking(false).is_err() {
            return false;
        }
        match seen {
            Ok(0) => false,
            Ok(_) => matches!(self, Channel::Secure(_)),
            Err(cause) => cause.kind() == io::ErrorKind::WouldBlock,
        }
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
            Channel::Secure(stream) => stream.read(into),
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
