//! One connection to the daemon, plain or within TLS: bytes out, bytes in, each with a deadline.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::{PATIENCE, patience};

/// A connection.
pub struct Peer {
    io: Io,
    pub local: SocketAddr,
}

enum Io {
    Plain(TcpStream),
    Tls(Box<rustls::StreamOwned<rustls::ClientConnection, TcpStream>>),
}

/// What a read gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Read1 {
    Bytes(Vec<u8>),
    /// The daemon closed; `true` by a reset.
    End(bool),
    /// Nothing came until the deadline.
    Nothing,
}

impl Peer {
    pub fn dial(address: SocketAddr) -> Peer {
        Peer::over(TcpStream::connect_timeout(&address, PATIENCE).unwrap())
    }

    /// From one of this machine's addresses.
    pub fn dial_from(from: IpAddr, address: SocketAddr) -> io::Result<Peer> {
        let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(from, 0).into())?;
        socket.connect_timeout(&address.into(), PATIENCE)?;
        Ok(Peer::over(socket.into()))
    }

    /// On a connection that is there.
    pub fn over(stream: TcpStream) -> Peer {
        stream.set_nodelay(true).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Peer { local: stream.local_addr().unwrap(), io: Io::Plain(stream) }
    }

    /// Byte 0x04, then a handshake; its error is the alert, where there is one.
    pub fn secure(mut self, config: &std::sync::Arc<rustls::ClientConfig>, name: &str) -> io::Result<Peer> {
        self.write(&[4]);
        self.shake_hands(config, name)
    }

    /// A handshake at once, as the HTTP port wants it.
    pub fn shake_hands(self, config: &std::sync::Arc<rustls::ClientConfig>, name: &str) -> io::Result<Peer> {
        let Io::Plain(mut stream) = self.io else { panic!("TLS within TLS") };
        let name = rustls_pki_types::ServerName::try_from(name.to_owned()).unwrap();
        let mut tls = rustls::ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        while tls.is_handshaking() {
            tls.complete_io(&mut stream)?;
        }
        let stream = rustls::StreamOwned::new(tls, stream);
        Ok(Peer { local: self.local, io: Io::Tls(Box::new(stream)) })
    }

    /// The serial number of the certificate that the daemon showed.
    pub fn server_certificate(&self) -> Vec<u8> {
        let Io::Tls(tls) = &self.io else { panic!("no TLS") };
        tls.conn.peer_certificates().unwrap()[0].to_vec()
    }

    pub fn socket(&self) -> &TcpStream {
        match &self.io {
            Io::Plain(stream) => stream,
            Io::Tls(tls) => &tls.sock,
        }
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.try_write(bytes).unwrap();
    }

    pub fn try_write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.io {
            Io::Plain(stream) => stream.write_all(bytes),
            Io::Tls(tls) => tls.write_all(bytes).and_then(|()| tls.flush()),
        }
    }

    /// Writes each byte by itself. A daemon that closes meanwhile is no error: what it said is read afterwards.
    pub fn drip(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if self.try_write(&[*byte]).is_err() {
                return;
            }
        }
    }

    pub fn read(&mut self, deadline: Instant) -> Read1 {
        let mut buffer = [0; 64 * 1024];
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.socket().set_read_timeout(Some(left)).unwrap();
            let read = match &mut self.io {
                Io::Plain(stream) => stream.read(&mut buffer),
                Io::Tls(tls) => tls.read(&mut buffer),
            };
            return match read {
                Ok(0) => Read1::End(false),
                Ok(count) => Read1::Bytes(buffer[..count].to_vec()),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Read1::Nothing,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                // A TLS end without its farewell is an end too.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => Read1::End(false),
                Err(_) => Read1::End(true),
            };
        }
    }

    /// The error that the next read gives: what a TLS alert becomes.
    pub fn read_error(&mut self) -> Option<io::Error> {
        self.socket().set_read_timeout(Some(PATIENCE)).unwrap();
        match &mut self.io {
            Io::Plain(stream) => stream.read(&mut [0; 1]).err(),
            Io::Tls(tls) => tls.read(&mut [0; 1]).err(),
        }
    }

    /// Reads until the daemon closes; gives what it said before.
    #[track_caller]
    pub fn read_to_end(&mut self) -> Vec<u8> {
        let (deadline, mut all) = (patience(), Vec::new());
        loop {
            match self.read(deadline) {
                Read1::Bytes(bytes) => all.extend(bytes),
                Read1::End(_) => return all,
                Read1::Nothing => panic!("not closed in {PATIENCE:?}, after {} bytes", all.len()),
            }
        }
    }

    /// Whether nothing comes, not even an end, for this long.
    pub fn stays_silent(&mut self, time: Duration) -> bool {
        self.read(Instant::now() + time) == Read1::Nothing
    }

    /// We send no more.
    pub fn finish(&mut self) {
        if let Io::Tls(tls) = &mut self.io {
            tls.conn.send_close_notify();
            let _ = tls.flush();
        }
        let _ = self.socket().shutdown(Shutdown::Write);
    }

    /// Ends the connection with a reset.
    pub fn abort(self) {
        socket2::SockRef::from(self.socket()).set_linger(Some(Duration::ZERO)).unwrap();
    }
}
