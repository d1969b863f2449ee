//! All connections of the load generator and the one loop that serves them, on one thread.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use mio::{Events, Interest, Poll, Token};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::base::time::Instant;
use crate::cli::Failure;
use crate::cli::bench::link::{After, Link, Load, Speech, broken};
use crate::cli::bench::pipe::Pipe;
use crate::client::Settings;
use crate::mux::session::Limits;

/// Bytes read from a socket at a time.
const READ_BYTES: usize = 256 * 1024;
/// Events taken from the system at a time.
const EVENTS: usize = 1024;
/// How often the sessions' own deadlines are looked at.
const SWEEP: Duration = Duration::from_secs(1);
/// Descriptors needed beside the connections.
const OTHER_FILES: u64 = 64;

/// How connections are made.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// What each speaks.
    pub(crate) speech: Speech,
    /// Channels on each.
    pub(crate) streams: usize,
    /// Requests that one read sets off are written together.
    pub(crate) batch: bool,
    /// Loopback addresses to connect from.
    pub(crate) sources: u8,
}

/// The connections and their loop.
pub(crate) struct Net {
    poll: Poll,
    events: Option<Events>,
    origin: std::time::Instant,
    settings: Settings,
    /// Connections go to each in turn.
    targets: Vec<SocketAddr>,
    plan: Plan,
    limits: Limits,
    links: Vec<Option<Link>>,
    free: Vec<usize>,
    opened: usize,
    next_sweep: Instant,
    buffer: Vec<u8>,
}

impl Net {
    /// A loop without connections. Allows itself descriptors for `connections` of them.
    ///
    /// # Errors
    /// A name without an address, a limit of descriptors that is too low, sources that do not fit the address.
    pub(crate) fn new(settings: &Settings, plan: Plan, connections: usize) -> Result<Net, Failure> {
        raise_file_limit(connections as u64 + OTHER_FILES)?;
        let targets = settings.addresses().into_iter().map(resolve).collect::<Result<Vec<_>, _>>()?;
        if plan.sources > 1 && !targets.iter().all(|target| target.ip().is_loopback()) {
            return Err(Failure::Usage("--sources needs a server on loopback".to_owned()));
        }
        // The generator sends no pings of its own: nothing but the load, and the server's own pings, cost the server.
        let limits = Limits {
            keepalive_interval: Duration::ZERO,
            max_streams: plan.streams.saturating_add(Limits::default().max_streams),
            ..Limits::default()
        };
        Ok(Net {
            poll: Poll::new().map_err(system)?,
            events: Some(Events::with_capacity(EVENTS)),
            origin: std::time::Instant::now(),
            settings: settings.clone(),
            targets,
            plan,
            limits,
            links: Vec::new(),
            free: Vec::new(),
            opened: 0,
            next_sweep: Instant::ZERO + SWEEP,
            buffer: vec![0; READ_BYTES],
        })
    }

    /// The time, from when this loop was made.
    pub(crate) fn now(&self) -> Instant {
        since(self.origin)
    }

    /// The same clock's reading of a point in time.
    pub(crate) fn at(&self, point: std::time::Instant) -> Instant {
        let nanos = point.saturating_duration_since(self.origin).as_nanos();
        Instant::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Begins a connection.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn open(&mut self) -> Result<(), Failure> {
        let source = self.source();
        let target = self.targets.get(self.opened % self.targets.len().max(1)).copied();
        let target = target.ok_or_else(|| Failure::Usage("no address is given".to_owned()))?;
        self.opened += 1;
        let mut pipe = Pipe::connect(target, source, self.settings.tls.as_ref()).map_err(|error| {
            if error.kind() == io::ErrorKind::AddrNotAvailable {
                Failure::Other(format!("no local port is free ({error}): --sources makes more"))
            } else {
                Failure::Lost(format!("cannot reach {target}: {error}"))
            }
        })?;
        let id = self.free.pop().unwrap_or(self.links.len());
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut pipe.socket, Token(id), interest).map_err(system)?;
        let now = self.now();
        let link = Link::new(id, pipe, &self.plan, self.limits.clone(), now);
        if id == self.links.len() {
            self.links.push(None);
        }
        if let Some(slot) = self.links.get_mut(id) {
            *slot = Some(link);
        }
        Ok(())
    }

    /// Where the next connection comes from.
    fn source(&self) -> Option<SocketAddr> {
        if self.plan.sources <= 1 {
            return None;
        }
        let last = u8::try_from(self.opened % usize::from(self.plan.sources)).unwrap_or(0);
        Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last + 1)), 0))
    }

    /// Ids of connections that stand.
    pub(crate) fn ids(&self) -> Vec<usize> {
        self.links.iter().flatten().map(|link| link.id).collect()
    }

    /// Channels that wait until their stream may be opened.
    pub(crate) fn opening(&self) -> usize {
        self.links.iter().flatten().map(Link::opening).sum()
    }

    /// Starts a call on a connection and sends it.
    ///
    /// # Errors
    /// A connection that is gone, or cannot take it.
    pub(crate) fn call(&mut self, link: usize, channel: usize, method: &str, body: &[u8]) -> Result<(), Failure> {
        let now = self.now();
        match self.links.get_mut(link) {
            Some(Some(link)) => {
                link.call(channel, method, body, now)?;
                link.flush().map_err(broken)
            }
            _ => Err(Failure::Lost("connection lost".to_owned())),
        }
    }

    /// Starts a streaming call on a channel of a connection.
    ///
    /// # Errors
    /// A connection that is gone, or cannot take it.
    pub(crate) fn stream(&mut self, link: usize, channel: usize, method: &str, body: &[u8]) -> Result<(), Failure> {
        let now = self.now();
        match self.links.get_mut(link) {
            Some(Some(link)) => {
                link.stream(channel, method, body, now)?;
                link.flush().map_err(broken)
            }
            _ => Err(Failure::Lost("connection lost".to_owned())),
        }
    }

    /// Waits for the system, until `until` at the latest, and works through what it says.
    ///
    /// # Errors
    /// Whatever ends the run: see [`Load`].
    pub(crate) fn turn(&mut self, load: &mut impl Load, until: Instant) -> Result<(), Failure> {
        let now = self.now();
        let wait = until.min(self.next_sweep) - now;
        let mut events = self.events.take().unwrap_or_else(|| Events::with_capacity(EVENTS));
        let polled = self.poll.poll(&mut events, Some(wait));
        let outcome = match polled {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(system(error)),
            Ok(()) => events.iter().try_for_each(|event| self.ready(event, load)),
        };
        self.events = Some(events);
        outcome?;
        if self.now() >= self.next_sweep {
            self.sweep(load)?;
        }
        Ok(())
    }

    /// Turns until `done` says so.
    ///
    /// # Errors
    /// As [`Net::turn`], and `until` passing first.
    pub(crate) fn turn_while<L: Load>(
        &mut self,
        load: &mut L,
        until: Instant,
        what: &str,
        go_on: impl Fn(&L) -> bool,
    ) -> Result<(), Failure> {
        while go_on(load) {
            if self.now() >= until {
                return Err(Failure::Lost(format!("no answer in time, {what}")));
            }
            self.turn(load, until)?;
        }
        Ok(())
    }

    fn ready(&mut self, event: &mio::event::Event, load: &mut impl Load) -> Result<(), Failure> {
        let id = event.token().0;
        let origin = self.origin;
        let Some(Some(link)) = self.links.get_mut(id) else { return Ok(()) };
        let after_end = event.is_read_closed() || event.is_error();
        match attend(link, &mut self.buffer, after_end, &|| since(origin), load) {
            Ok(After::Keep) => Ok(()),
            Ok(After::Close) => {
                self.drop_link(id);
                Ok(())
            }
            Err(Failure::Lost(cause)) => {
                self.drop_link(id);
                load.lost(&cause)
            }
            Err(other) => Err(other),
        }
    }

    fn drop_link(&mut self, id: usize) {
        if let Some(mut link) = self.links.get_mut(id).and_then(Option::take) {
            // Closing takes the socket out of the poll as well; this only tells mio.
            let _ = self.poll.registry().deregister(&mut link.pipe.socket);
            self.free.push(id);
        }
    }

    fn sweep(&mut self, load: &mut impl Load) -> Result<(), Failure> {
        let now = self.now();
        self.next_sweep = now + SWEEP;
        for id in 0..self.links.len() {
            let Some(Some(link)) = self.links.get_mut(id) else { continue };
            match link.handle_timeout(now) {
                Err(Failure::Lost(cause)) => {
                    self.drop_link(id);
                    load.lost(&cause)?;
                }
                other => other?,
            }
        }
        Ok(())
    }
}

/// The first address of a name.
fn resolve(name: &str) -> Result<SocketAddr, Failure> {
    let unknown = |cause: String| Failure::Lost(format!("cannot reach {name}: {cause}"));
    let mut addresses = name.to_socket_addrs().map_err(|error| unknown(error.to_string()))?;
    addresses.next().ok_or_else(|| unknown("the name has no address".to_owned()))
}

/// Serves one connection that the system named.
fn attend(
    link: &mut Link,
    buffer: &mut [u8],
    after_end: bool,
    clock: &impl Fn() -> Instant,
    load: &mut impl Load,
) -> Result<After, Failure> {
    if !link.is_up {
        if !link.pipe.is_connected().map_err(broken)? {
            return Ok(After::Keep);
        }
        link.greet().map_err(broken)?;
        load.up(link, clock())?;
    }
    let after = link.receive(buffer, after_end, clock, load)?;
    if after == After::Keep {
        link.flush().map_err(broken)?;
    }
    Ok(after)
}

fn since(origin: std::time::Instant) -> Instant {
    Instant::from_nanos(u64::try_from(origin.elapsed().as_nanos()).unwrap_or(u64::MAX))
}

fn system(error: io::Error) -> Failure {
    Failure::Other(error.to_string())
}

/// Makes sure that `needed` descriptors may be open, raising the limit if the system lets us.
fn raise_file_limit(needed: u64) -> Result<(), Failure> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let maximum = limit.maximum.map(|maximum| maximum.max(needed));
    let within = Rlimit { current: Some(needed), maximum: limit.maximum };
    // Beyond the hard limit only a privileged process may go.
    let beyond = Rlimit { current: Some(needed), maximum };
    setrlimit(Resource::Nofile, within).or_else(|_| setrlimit(Resource::Nofile, beyond)).map_err(|_| {
        let hard = limit.maximum.unwrap_or(u64::MAX);
        Failure::Other(format!("{needed} open files are needed and the hard limit is {hard}: raise it (ulimit -Hn)"))
    })
}
