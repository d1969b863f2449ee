//! Connections that the server asks for: a name is resolved, its addresses are tried in order, and all of it ends in
//! time (requirements R8.19, R1.76). What is connected is driven like any accepted connection from then on.
//!
//! Never blocks: connecting goes through the poll, and names through the resolver's threads. The texts are those of
//! Go's `net.OpError`, which the peers' logs and answers carry.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use mio::net::TcpStream;
use socket2::SockRef;

use crate::base::id::ConnId;
use crate::base::time::{Clock, Instant};
use crate::server::port::Input;

use super::doors;
use super::event_loop::{Alarm, EventLoop};
use super::machine::Machine;
use super::resolver::Resolver;

/// Dials under way; the ones after fail at once. Seven servers of a region and those of some others need few.
const UNDER_WAY_MAX: usize = 256;
/// Of several addresses, each gets its part of the time, and at least this (Go's `partialDeadline`).
const ADDRESS_TIME_MIN: Duration = Duration::from_secs(2);

/// A dial under way.
#[derive(Debug)]
struct Dial {
    host: String,
    deadline: Instant,
    /// Addresses not tried yet.
    rest: VecDeque<SocketAddr>,
    /// The try under way, and when it is given up.
    trying: Option<(ConnId, SocketAddr)>,
    /// The one timer of it.
    alarm: Instant,
    /// What went wrong first: Go tells of that.
    first_error: Option<String>,
}

/// Dials under way, by ticket.
#[derive(Debug, Default)]
pub(super) struct Dials {
    by_ticket: BTreeMap<u64, Dial>,
    /// Started with the first name that is no address.
    resolver: Option<Resolver>,
}

/// What an address that is to be dialled turned out to be.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    Address(SocketAddr),
    Name(String, u16),
    Nothing(&'static str),
}

fn place_of(address: &str) -> Place {
    let Some((host, port)) = address.rsplit_once(':') else { return Place::Nothing("missing port in address") };
    let Ok(port) = port.parse::<u16>() else { return Place::Nothing("invalid port") };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    match host.parse::<IpAddr>() {
        Ok(ip) => Place::Address(SocketAddr::new(ip, port)),
        Err(_) if host.is_empty() => Place::Nothing("missing host in address"),
        Err(_) => Place::Name(host.to_owned(), port),
    }
}

/// An error of the system in Go's words: `connection refused`.
fn system_words(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

/// How long one of several addresses may take.
fn part_of(left: Duration, addresses: usize) -> Duration {
    let share = left / u32::try_from(addresses.max(1)).unwrap_or(u32::MAX);
    share.max(ADDRESS_TIME_MIN).min(left)
}

impl<M: Machine> EventLoop<M> {
    /// Begins a dial.
    pub(super) fn dial(&mut self, ticket: u64, address: &str, timeout: Duration) {
        let now = self.clock.now();
        let deadline = now + timeout;
        let place = place_of(address);
        if self.dials.by_ticket.len() >= UNDER_WAY_MAX {
            return self.refuse_dial(ticket, format!("dial tcp {address}: too many connections are being dialled"));
        }
        let mut dial = Dial {
            host: address.to_owned(),
            deadline,
            rest: VecDeque::new(),
            trying: None,
            alarm: deadline,
            first_error: None,
        };
        match place {
            Place::Address(address) => dial.rest.push_back(address),
            Place::Name(host, port) => {
                if let Err(why) = self.resolve(ticket, &host, port, deadline) {
                    return self.refuse_dial(ticket, format!("dial tcp: lookup {host}: {why}"));
                }
                dial.host = host;
            }
            Place::Nothing(why) => return self.refuse_dial(ticket, format!("dial tcp: address {address}: {why}")),
        }
        self.timers.set(deadline, Alarm::Dial(ticket));
        let is_address = !dial.rest.is_empty();
        self.dials.by_ticket.insert(ticket, dial);
        if is_address {
            self.try_next_address(ticket);
        }
    }

    fn resolve(&mut self, ticket: u64, host: &str, port: u16, deadline: Instant) -> Result<(), String> {
        let resolver = match &mut self.dials.resolver {
            Some(resolver) => resolver,
            none => none.insert(Resolver::start(self.clock, &self.hands.post).map_err(|error| error.to_string())?),
        };
        resolver.ask(ticket, host, port, deadline).map_err(str::to_owned)
    }

    /// Told apart from the output that asked, like every answer.
    fn refuse_dial(&mut self, ticket: u64, error: String) {
        self.follow_ups.push_back(Input::DialFailed { ticket, error });
    }

    /// The resolver has answered; perhaps for a dial that was given up.
    pub(super) fn resolved(&mut self, ticket: u64, result: Result<Vec<SocketAddr>, String>) {
        let Some(dial) = self.dials.by_ticket.get_mut(&ticket) else { return };
        match result {
            Ok(addresses) => {
                dial.rest = addresses.into();
                self.try_next_address(ticket);
            }
            Err(why) => {
                let error = format!("dial tcp: lookup {}: {why}", dial.host);
                self.end_dial(ticket);
                self.refuse_dial(ticket, error);
            }
        }
    }

    /// Tries addresses until one is on its way, or none is left.
    fn try_next_address(&mut self, ticket: u64) {
        loop {
            let now = self.clock.now();
            let Some(dial) = self.dials.by_ticket.get_mut(&ticket) else { return };
            let Some(address) = dial.rest.pop_front() else {
                let error = dial.first_error.take().unwrap_or_else(|| format!("dial tcp {}: i/o timeout", dial.host));
                self.end_dial(ticket);
                return self.refuse_dial(ticket, error);
            };
            let (deadline, addresses, before) = (dial.deadline, dial.rest.len() + 1, dial.alarm);
            match self.connect(ticket, address) {
                Ok(conn) => {
                    let until = now + part_of(deadline.since(now), addresses);
                    let Some(dial) = self.dials.by_ticket.get_mut(&ticket) else { return };
                    (dial.trying, dial.alarm) = (Some((conn, address)), until);
                    self.timers.cancel(before, Alarm::Dial(ticket));
                    self.timers.set(until, Alarm::Dial(ticket));
                    return;
                }
                Err(error) => self.note_dial_error(ticket, address, &format!("connect: {}", system_words(&error))),
            }
        }
    }

    fn note_dial_error(&mut self, ticket: u64, address: SocketAddr, what: &str) {
        if let Some(dial) = self.dials.by_ticket.get_mut(&ticket) {
            dial.first_error.get_or_insert_with(|| format!("dial tcp {address}: {what}"));
        }
    }

    fn connect(&mut self, ticket: u64, address: SocketAddr) -> io::Result<ConnId> {
        let stream = TcpStream::connect(address)?;
        doors::set_options(&SockRef::from(&stream))?;
        let conn = self.connections.insert_dialling(stream, ticket);
        if let Err(error) = self.connections.register(conn, self.poll.registry()) {
            self.connections.remove(conn);
            return Err(error);
        }
        Ok(conn)
    }

    /// Looks at the sockets on their way that an event named.
    pub(super) fn go_on_dialling(&mut self) {
        for conn in self.connections.take_dialling() {
            let Some(socket) = self.connections.get_mut(conn) else { continue };
            let Some(ticket) = socket.dialling else { continue };
            match reached(&socket.stream) {
                Ok(Some(peer)) => {
                    socket.dialling = None;
                    self.end_dial(ticket);
                    self.feed(Input::Dialled { ticket, conn, peer: doors::plain_address(peer) });
                    self.connections.queue_read(conn);
                    self.connections.queue_write(conn);
                }
                Ok(None) => {}
                Err(error) => self.dial_broke(ticket, &format!("connect: {}", system_words(&error))),
            }
        }
    }

    fn dial_broke(&mut self, ticket: u64, what: &str) {
        let Some(dial) = self.dials.by_ticket.get_mut(&ticket) else { return };
        if let Some((conn, address)) = dial.trying.take() {
            self.connections.remove(conn);
            self.note_dial_error(ticket, address, what);
        }
        self.try_next_address(ticket);
    }

    /// The time of a dial, or of one of its addresses, is over.
    pub(super) fn dial_is_late(&mut self, now: Instant, ticket: u64) {
        let Some(dial) = self.dials.by_ticket.get_mut(&ticket) else { return };
        match dial.trying {
            Some(_) => {
                if now >= dial.deadline {
                    dial.rest.clear();
                }
                self.dial_broke(ticket, "i/o timeout");
            }
            None => {
                let error = format!("dial tcp: lookup {}: i/o timeout", dial.host);
                self.end_dial(ticket);
                self.refuse_dial(ticket, error);
            }
        }
    }

    fn end_dial(&mut self, ticket: u64) {
        if let Some(dial) = self.dials.by_ticket.remove(&ticket) {
            self.timers.cancel(dial.alarm, Alarm::Dial(ticket));
        }
    }

    /// The daemon is about to end: nobody waits for a connection any more.
    pub(super) fn give_up_dials(&mut self) {
        for (_, dial) in std::mem::take(&mut self.dials).by_ticket {
            if let Some((conn, _)) = dial.trying {
                self.connections.remove(conn);
            }
        }
    }
}

/// Who is at the other end, once somebody is.
fn reached(stream: &TcpStream) -> io::Result<Option<SocketAddr>> {
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    match stream.peer_addr() {
        // Dialling a port of this machine that nobody listens on can meet itself (RFC 9293, simultaneous open).
        Ok(peer) if stream.local_addr()? == peer => Err(rustix::io::Errno::CONNREFUSED.into()),
        Ok(peer) => Ok(Some(peer)),
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn addresses_are_told_from_names() {
        for (text, wanted) in [
            ("10.0.0.1:4647", Place::Address("10.0.0.1:4647".parse().unwrap())),
            ("[fd00::1]:1", Place::Address("[fd00::1]:1".parse().unwrap())),
            ("hf1.example.org:4647", Place::Name("hf1.example.org".to_owned(), 4647)),
            ("hf1", Place::Nothing("missing port in address")),
            ("hf1:70000", Place::Nothing("invalid port")),
            (":4647", Place::Nothing("missing host in address")),
        ] {
            assert_eq!(place_of(text), wanted, "{text}");
        }
    }

    #[test]
    fn each_address_gets_its_part_of_the_time() {
        let secs = Duration::from_secs;
        for (left, addresses, wanted) in [(10, 1, 10), (10, 2, 5), (10, 9, 2), (1, 3, 1)] {
            assert_eq!(part_of(secs(left), addresses), secs(wanted), "{left} {addresses}");
        }
    }

    #[test]
    fn errors_are_in_the_words_of_go() {
        use rustix::io::Errno;
        for (errno, text) in [
            (Errno::CONNREFUSED, "connection refused"),
            (Errno::HOSTUNREACH, "no route to host"),
            (Errno::NETUNREACH, "network is unreachable"),
        ] {
            assert_eq!(system_words(&errno.into()), text);
        }
    }
}
