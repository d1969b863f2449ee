//! The listening sockets: opening them, accepting, and what happens while the system refuses (requirements R1.4 to R1.7).
//!
//! Never sleeps: a refusal sets a delay, and the loop's timer tries again, since no event will come for connections
//! that wait in the backlog already.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use crate::base::time::Instant;
use crate::server::port::Listener;

/// Connections that the system may hold for us before they are accepted; it cuts this to its own cap.
const BACKLOG: i32 = 4096;
/// The first delay after a failed accept.
const DELAY_FIRST: Duration = Duration::from_millis(5);
/// The longest delay after an error that passes by itself (no descriptors, no memory).
const DELAY_PASSING_MAX: Duration = Duration::from_secs(1);
/// The longest delay after any other.
const DELAY_OTHER_MAX: Duration = Duration::from_secs(5);
/// A silent peer is asked whether it is there after this time, by the system.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// And again after this.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// So often, before the connection is broken.
const KEEPALIVE_PROBES: u32 = 4;

/// Opens a listening socket.
///
/// `[::]` takes IPv4 too. The socket does not block.
///
/// # Errors
/// Whatever the system says; the caller knows the address and the key it came from.
pub fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// What every connection has: bytes go out at once, and a silent peer is asked whether it is there.
///
/// # Errors
/// Whatever the system says.
pub(super) fn set_options(socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    let keepalive =
        TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL).with_retries(KEEPALIVE_PROBES);
    socket.set_tcp_keepalive(&keepalive)
}

/// An address as the server knows it: IPv4 that came in by an IPv6 socket is IPv4.
pub(super) fn plain_address(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(ip) => SocketAddr::new(IpAddr::V4(ip), address.port()),
            None => address,
        },
        IpAddr::V4(_) => address,
    }
}

/// What one try to accept gave.
#[derive(Debug)]
pub(super) enum Accepted {
    /// A connection.
    Connection(TcpStream, SocketAddr),
    /// Nobody waits.
    Nobody,
    /// The system refused: try again after the delay.
    Refused {
        /// What it said.
        error: io::Error,
        /// How long to wait.
        delay: Duration,
    },
}

/// A listening socket of the loop.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) listener: Listener,
    pub(super) socket: TcpListener,
    /// Somebody may wait.
    pub(super) ready: bool,
    /// Not to be tried before; set by a refusal.
    pub(super) shut_until: Option<Instant>,
    /// The delay of the last refusal; zero after a success.
    delay: Duration,
}

impl Door {
    /// Takes over a listening socket, ours or the init system's.
    ///
    /// # Errors
    /// When it cannot be made to not block.
    pub(super) fn new(listener: Listener, socket: std::net::TcpListener) -> io::Result<Door> {
        socket.set_nonblocking(true)?;
        // Connections inherit these from the socket they came to, which saves the calls on each.
        set_options(&SockRef::from(&socket))?;
        Ok(Door {
            listener,
            socket: TcpListener::from_std(socket),
            ready: false,
            shut_until: None,
            delay: Duration::ZERO,
        })
    }

    /// Tries once.
    pub(super) fn accept(&mut self) -> Accepted {
        loop {
            return match self.socket.accept() {
                Ok((stream, peer)) => {
                    self.delay = Duration::ZERO;
                    Accepted::Connection(stream, plain_address(peer))
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.ready = false;
                    Accepted::Nobody
                }
                // The peer was gone before it was accepted: it has left the backlog, and the next one is as good.
                Err(error) if is_of_one_peer(&error) => continue,
                Err(error) => {
                    self.delay = next_delay(self.delay, &error);
                    Accepted::Refused { error, delay: self.delay }
                }
            };
        }
    }

    /// The name that log lines use.
    pub(super) fn name(&self) -> &'static str {
        match self.listener {
            Listener::Rpc => "RPC",
            Listener::Http => "HTTP",
        }
    }
}

fn is_of_one_peer(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted)
}

/// Whether an error of accept passes by itself: no descriptors or no memory (R1.5).
fn is_passing(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let passing = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    Errno::from_io_error(error).is_some_and(|errno| passing.contains(&errno))
}

fn next_delay(last: Duration, error: &io::Error) -> Duration {
    let max = if is_passing(error) { DELAY_PASSING_MAX } else { DELAY_OTHER_MAX };
    if last.is_zero() { DELAY_FIRST } else { (last * 2).min(max) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use rustix::io::Errno;

    // R1.5
    #[test]
    fn delays_double_up_to_a_cap_that_the_error_sets() {
        for (errno, max_ms) in [(Errno::MFILE, 1000), (Errno::NFILE, 1000), (Errno::INVAL, 5000)] {
            let error = io::Error::from(errno);
            let mut delay = Duration::ZERO;
            let mut seen = Vec::new();
            for _ in 0..12 {
                delay = next_delay(delay, &error);
                seen.push(delay.as_millis());
            }
            assert_eq!(&seen[..4], [5, 10, 20, 40], "{errno:?}");
            assert_eq!(&seen[10..], [max_ms, max_ms], "{errno:?}");
        }
    }

    #[test]
    fn ipv4_that_came_by_ipv6_is_ipv4() {
        for (given, wanted) in
            [("[::ffff:10.0.0.7]:80", "10.0.0.7:80"), ("[::1]:80", "[::1]:80"), ("10.0.0.7:80", "10.0.0.7:80")]
        {
            assert_eq!(plain_address(given.parse().unwrap()), wanted.parse().unwrap());
        }
    }

    #[test]
    fn accepted_connections_inherit_their_options() {
        let socket = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = socket.local_addr().unwrap();
        let mut door = Door::new(Listener::Rpc, socket).unwrap();
        let peer = std::net::TcpStream::connect(address).unwrap();
        let Accepted::Connection(stream, from) = door.accept() else { panic!("nobody came") };
        assert_eq!(from, peer.local_addr().unwrap());
        let options = SockRef::from(&stream);
        assert!(options.tcp_nodelay().unwrap());
        assert!(options.keepalive().unwrap());
        assert_eq!(options.tcp_keepalive_time().unwrap(), KEEPALIVE_IDLE);
        assert!(matches!(door.accept(), Accepted::Nobody));
    }

    #[test]
    fn the_unspecified_ipv6_address_takes_both() {
        // A machine without IPv6 has nothing to show here.
        let Ok(socket) = listen("[::]:0".parse().unwrap()) else { return };
        let port = socket.local_addr().unwrap().port();
        let mut door = Door::new(Listener::Http, socket).unwrap();
        let _peer = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let Accepted::Connection(_, from) = door.accept() else { panic!("nobody came") };
        assert!(from.is_ipv4());
    }
}
