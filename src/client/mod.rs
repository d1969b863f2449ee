//! A blocking client of the server's RPC port: one connection, one call at a time, a deadline on each.
//!
//! It speaks the plain net/rpc form (first byte 0x01, inside TLS if asked), which every server of this protocol has.
//! It never multiplexes, never keeps a thread, and never sends a write twice once a byte of it was written. Given several
//! addresses it goes on to the next when one cannot be reached; a read whose connection broke goes there too.
//! Source: transport notes, sections 1, 2, 4 and 7.

pub mod body;
mod call;
mod error;
mod socket;
mod stream;
mod tls;

use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use crate::api;
use crate::api::Access;
pub use crate::client::error::Error;
pub use crate::client::stream::Stream;
pub use crate::client::tls::{ServerName, TlsError, TlsFiles, TlsSettings, load_tls};
use crate::wire::first_byte::FirstByte;
use crate::wire::msgpack::Msg;

use crate::client::socket::{Channel, TimedSocket};

/// Bytes of one reply at most; a longer one ends the connection.
pub const MAX_REPLY_BYTES: usize = 64 * 1024 * 1024;

/// Connections that a call is tried on, while not a byte of it was written (R3.11).
const TRIES: u32 = 3;

/// Where to connect, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `host:port` of the server's RPC listener, or of several servers with commas between: the first that can be
    /// reached is asked.
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
    /// Which address is tried first: the one that was reached last.
    preferred: usize,
    /// Number of the last request; counted over all connections, as Go clients do.
    last_seq: u64,
}

impl Client {
    /// A client that has not connected yet.
    pub fn new(settings: Settings) -> Client {
        Client { settings, connection: None, preferred: 0, last_seq: 0 }
    }

    /// Where it connects to, or did last.
    pub fn address(&self) -> &str {
        let addresses = self.settings.addresses();
        addresses.get(self.preferred).copied().unwrap_or(&self.settings.address)
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
        let others = self.settings.addresses().len() > 1;
        let kept = self.take_kept();
        let mut reused = kept.is_some();
        let mut answer = match kept {
            Some(channel) => self.exchange(channel, &bytes, deadline),
            None => self.dial_and_exchange(&bytes, deadline),
        };
        // A connection that turned out to be dead before it took a byte costs a new connection, no more.
        for _ in 1..TRIES {
            if !matches!(answer, Err(Error::NotSent(_))) {
                break;
            }
            self.preferred += usize::from(others && !reused);
            reused = false;
            answer = self.dial_and_exchange(&bytes, deadline);
        }
        // Whatever became of a read does not matter: another server may know the answer.
        if matches!(answer, Err(Error::Broken(_))) && others && is_read(method) {
            self.preferred += 1;
            answer = self.dial_and_exchange(&bytes, deadline);
        }
        let body = answer?;
        R::from_bytes(&body).map_err(|error| Error::Malformed(format!("{method}: {error}")))
    }

    /// The connection that was kept, when one look at it finds nothing wrong.
    fn take_kept(&mut self) -> Option<Channel> {
        let mut kept = self.connection.take()?;
        match kept.liveness() {
            Ok(()) => Some(kept),
            Err(dead) => {
                // R3.13
                log::info!("closing bad idle connection: server={} error={}", self.address(), dead.text());
                None
            }
        }
    }

    /// Opens a streaming call on a connection of its own: header, ack, argument. What follows is the stream's.
    ///
    /// # Errors
    /// As [`Client::call`]; a refused header is [`Error::Refused`].
    pub fn stream<Q: Msg>(&self, method: &str, argument: &Q) -> Result<Stream, Error> {
        let deadline = Instant::now() + self.settings.timeout;
        let (channel, _) = self.dial(FirstByte::Streaming, deadline)?;
        Stream::open(channel, method, &argument.to_bytes(), deadline)
    }

    /// Sends a request and reads its reply's body; keeps the connection when that went well.
    fn exchange(&mut self, mut channel: Channel, request: &[u8], deadline: Instant) -> Result<Vec<u8>, Error> {
        let (body, keeps) = call::exchange(&mut channel, request, self.last_seq, deadline)?;
        self.connection = keeps.then_some(channel);
        Ok(body)
    }

    fn dial_and_exchange(&mut self, request: &[u8], deadline: Instant) -> Result<Vec<u8>, Error> {
        let (channel, reached) = self.dial(FirstByte::Rpc, deadline)?;
        self.preferred = reached;
        self.exchange(channel, request, deadline)
    }

    /// Connects to the first server that can be reached; says which. Each has its share of the time that is left.
    fn dial(&self, speech: FirstByte, deadline: Instant) -> Result<(Channel, usize), Error> {
        let addresses = self.settings.addresses();
        let mut causes = Vec::new();
        for nth in 0..addresses.len() {
            let at = (self.preferred + nth) % addresses.len();
            let Some(address) = addresses.get(at) else { break };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() && causes.is_empty() {
                return Err(Error::Deadline { sent: false });
            }
            let others = u32::try_from(addresses.len() - nth).unwrap_or(u32::MAX);
            match self.dial_one(address, speech, Instant::now() + left / others) {
                Ok(channel) => return Ok((channel, at)),
                Err(cause) => causes.push((*address, cause)),
            }
        }
        Err(unreachable(&causes))
    }

    /// Connects, with TLS if it is set, and says what will be spoken.
    fn dial_one(&self, address: &str, speech: FirstByte, deadline: Instant) -> io::Result<Channel> {
        let socket = connect(address, deadline)?;
        let mut channel = match &self.settings.tls {
            None => Channel::plain(socket),
            Some(tls) => Channel::secure(socket, tls, deadline)?,
        };
        channel.greet(speech)?;
        Ok(channel)
    }
}

impl Settings {
    /// The addresses, each by itself.
    pub fn addresses(&self) -> Vec<&str> {
        self.address.split(',').map(str::trim).filter(|address| !address.is_empty()).collect()
    }
}

/// Whether a call that was sent and not answered may be sent again.
fn is_read(method: &str) -> bool {
    api::method(method).is_ok_and(|method| method.access != Access::Write)
}

/// Tries each address the name has, until one answers.
fn connect(name: &str, deadline: Instant) -> io::Result<TimedSocket> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in name.to_socket_addrs()? {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match TcpStream::connect_timeout(&address, left) {
            Ok(stream) => return TimedSocket::new(stream, deadline),
            Err(cause) => last = cause,
        }
    }
    Err(last)
}

/// One cause as it is; several with their addresses.
fn unreachable(causes: &[(&str, io::Error)]) -> Error {
    let all: Vec<&str> = causes.iter().map(|(address, _)| *address).collect();
    let cause = match causes {
        [] => "no address is given".to_owned(),
        [(_, cause)] => cause.to_string(),
        _ => causes.iter().map(|(address, cause)| format!("{address}: {cause}")).collect::<Vec<_>>().join("; "),
    };
    Error::Connect { address: all.join(", "), cause }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod fake;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
