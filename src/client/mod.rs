//! A blocking client of the server's RPC port: one connection, one call at a time, a deadline on each.
//!
//! It speaks the plain net/rpc form (first byte 0x01, inside TLS if asked), which every server of this protocol has.
//! It never multiplexes, never keeps a thread, and never sends a request twice once a byte of it was written.
//! Source: transport notes, sections 1, 2, 4 and 7.

pub mod body;
mod call;
mod error;
mod socket;
mod stream;
mod tls;

use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

pub use crate::client::error::Error;
pub use crate::client::stream::Stream;
pub use crate::client::tls::{ServerName, TlsError, TlsFiles, TlsSettings, load_tls};
use crate::wire::first_byte::FirstByte;
use crate::wire::msgpack::Msg;

use crate::client::socket::{Channel, TimedSocket};

/// Bytes of one reply at most; a longer one ends the connection.
pub const MAX_REPLY_BYTES: usize = 64 * 1024 * 1024;

/// Where to connect, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `host:port` of the server's RPC listener.
    pub address: String,
    /// TLS, when the server wants it.
    pub tls: Option<TlsSettings>,
    /// How long one call may take, the connection it needs included. (Looking a name up is not bounded by it: the
    /// system's resolver has limits of its own.)
    pub timeout: Duration,
}

/// A connection to one server, made when a call first needs it and again after an error.
#[derive(Debug)]
pub struct Client {
    settings: Settings,
    connection: Option<Channel>,
    /// Number of the last request; counted over all connections, as Go clients do.
    last_seq: u64,
}

impl Client {
    /// A client that has not connected yet.
    pub fn new(settings: Settings) -> Client {
        Client { settings, connection: None, last_seq: 0 }
    }

    /// Where it connects to.
    pub fn address(&self) -> &str {
        &self.settings.address
    }

    /// Calls `method` with `request` and waits for its reply, for as long as the settings say.
    ///
    /// # Errors
    /// By class, see [`Error`]. A server's refusal closes the connection too, as Go clients do: some servers hang up
    /// after one.
    pub fn call<Q: Msg, R: Msg>(&mut self, method: &str, request: &Q) -> Result<R, Error> {
        self.call_within(method, request, self.settings.timeout)
    }

    /// The same with a limit of its own, as blocking queries need.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn call_within<Q: Msg, R: Msg>(&mut self, method: &str, request: &Q, limit: Duration) -> Result<R, Error> {
        let deadline = Instant::now() + limit;
        self.last_seq += 1;
        let bytes = call::encode_request(self.last_seq, method, &request.to_bytes());
        let kept = self.connection.take().and_then(|mut kept| kept.looks_alive().then_some(kept));
        let reused = kept.is_some();
        let answer = match kept {
            Some(channel) => self.exchange(channel, &bytes, deadline),
            None => self.dial(deadline).and_then(|channel| self.exchange(channel, &bytes, deadline)),
        };
        let body = match answer {
            // A kept connection that turned out to be dead before it took a byte costs a new connection, no more.
            Err(Error::NotSent(_)) if reused => {
                self.dial(deadline).and_then(|channel| self.exchange(channel, &bytes, deadline))?
            }
            other => other?,
        };
        R::from_bytes(&body).map_err(|error| Error::Malformed(format!("{method}: {error}")))
    }

    /// Opens a streaming call on a connection of its own: header, ack, argument. What follows is the stream's.
    ///
    /// # Errors
    /// As [`Client::call`]; a refused header is [`Error::Refused`].
    pub fn stream<Q: Msg>(&self, method: &str, argument: &Q) -> Result<Stream, Error> {
        let deadline = Instant::now() + self.settings.timeout;
        let channel = self.dial_for(FirstByte::Streaming, deadline)?;
        Stream::open(channel, method, &argument.to_bytes(), deadline)
    }

    /// Sends a request and reads its reply's body; keeps the connection when that went well.
    fn exchange(&mut self, mut channel: Channel, request: &[u8], deadline: Instant) -> Result<Vec<u8>, Error> {
        let body = call::exchange(&mut channel, request, self.last_seq, deadline)?;
        self.connection = Some(channel);
        Ok(body)
    }

    fn dial(&self, deadline: Instant) -> Result<Channel, Error> {
        self.dial_for(FirstByte::Rpc, deadline)
    }

    /// Connects, with TLS if it is set, and says what will be spoken.
    fn dial_for(&self, speech: FirstByte, deadline: Instant) -> Result<Channel, Error> {
        let socket = self.connect(deadline)?;
        let mut channel = match &self.settings.tls {
            None => Channel::plain(socket),
            Some(tls) => Channel::secure(socket, tls, deadline).map_err(|cause| self.unreachable(cause))?,
        };
        channel.greet(speech).map_err(|cause| self.unreachable(cause))?;
        Ok(channel)
    }

    /// Tries each address the name has, until one answers.
    fn connect(&self, deadline: Instant) -> Result<TimedSocket, Error> {
        let addresses = self.settings.address.to_socket_addrs().map_err(|cause| self.unreachable(cause))?;
        let mut last = std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address");
        for address in addresses {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::Deadline { sent: false });
            }
            match TcpStream::connect_timeout(&address, left) {
                Ok(stream) => return TimedSocket::new(stream, deadline).map_err(|cause| self.unreachable(cause)),
                Err(cause) => last = cause,
            }
        }
        Err(self.unreachable(last))
    }

    fn unreachable(&self, cause: std::io::Error) -> Error {
        Error::Connect { address: self.settings.address.clone(), cause: cause.to_string() }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod fake;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
