//! One non-blocking socket, plain or TLS: bytes in, bytes out, as much as the system takes at a time.

use std::io;
use std::io::{Read, Write};
use std::net::SocketAddr;

use mio::net::TcpStream;

use crate::client::TlsSettings;
use crate::wire::first_byte::FirstByte;

/// What reading gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Took {
    /// This many bytes.
    Bytes(usize),
    /// None for the moment.
    Nothing,
    /// None ever again.
    End,
}

/// A socket and the bytes that wait to go out on it.
///
/// The load generator has one call at a time on each stream, which bounds what waits.
pub(crate) struct Pipe {
    pub(crate) socket: TcpStream,
    tls: Option<Box<rustls::ClientConnection>>,
    out: Vec<u8>,
    sent: usize,
}

impl Pipe {
    /// Begins to connect, from `source` if that is given.
    ///
    /// # Errors
    /// The system's, and TLS settings that do not work.
    pub(crate) fn connect(to: SocketAddr, source: Option<SocketAddr>, tls: Option<&TlsSettings>) -> io::Result<Pipe> {
        let socket = match source {
            None => TcpStream::connect(to)?,
            Some(source) => connect_from(to, source)?,
        };
        let mut pipe = Pipe { socket, tls: None, out: Vec::new(), sent: 0 };
        if let Some(tls) = tls {
            let mut session = tls.connection().map_err(io::Error::other)?;
            session.set_buffer_limit(None);
            pipe.out.push(FirstByte::Tls.byte());
            pipe.tls = Some(Box::new(session));
        }
        Ok(pipe)
    }

    /// Whether the connection stands; an error when it never will.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn is_connected(&mut self) -> io::Result<bool> {
        if let Some(error) = self.socket.take_error()? {
            return Err(error);
        }
        match self.socket.peer_addr() {
            Ok(_) => {
                self.socket.set_nodelay(true)?;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Reads what there is, up to the buffer's length.
    ///
    /// # Errors
    /// The socket's and TLS's.
    pub(crate) fn read(&mut self, into: &mut [u8]) -> io::Result<Took> {
        let Some(tls) = self.tls.as_mut() else { return took(|| self.socket.read(into)) };
        loop {
            match tls.reader().read(into) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Took::End),
                Ok(0) => return Ok(Took::End),
                Ok(len) => return Ok(Took::Bytes(len)),
                Err(error) => return Err(error),
            }
            match took(|| tls.read_tls(&mut self.socket))? {
                Took::Bytes(_) => tls.process_new_packets().map_err(io::Error::other)?,
                other => return Ok(other),
            };
        }
    }

    /// Puts bytes behind those that wait. They go out with [`Pipe::flush`].
    ///
    /// # Errors
    /// TLS's.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.tls.as_mut() {
            None => self.out.extend_from_slice(bytes),
            Some(tls) => tls.writer().write_all(bytes)?,
        }
        Ok(())
    }

    /// Writes what waits, as far as the system takes it.
    ///
    /// # Errors
    /// The socket's.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if let Some(tls) = self.tls.as_mut() {
            while tls.wants_write() {
                tls.write_tls(&mut self.out)?;
            }
        }
        while let Some(rest) = self.out.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match took(|| self.socket.write(rest))? {
                Took::Bytes(len) => self.sent += len,
                Took::Nothing => return Ok(()),
                Took::End => return Err(io::ErrorKind::WriteZero.into()),
            }
        }
        self.out.clear();
        self.sent = 0;
        Ok(())
    }

    /// Whether it is TLS, where bytes may wait in the session after the socket has no more.
    pub(crate) fn is_secure(&self) -> bool {
        self.tls.is_some()
    }
}

/// Tells "not now" and "end" from errors; what a signal interrupted is done again.
fn took(mut transfer: impl FnMut() -> io::Result<usize>) -> io::Result<Took> {
    loop {
        return match transfer() {
            Ok(0) => Ok(Took::End),
            Ok(len) => Ok(Took::Bytes(len)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Took::Nothing),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
    }
}

/// Connects from a chosen address.
fn connect_from(to: SocketAddr, source: SocketAddr) -> io::Result<TcpStream> {
    let domain = socket2::Domain::for_address(to);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.bind(&source.into())?;
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => Err(error),
        _ => Ok(TcpStream::from_std(socket.into())),
    }
}
