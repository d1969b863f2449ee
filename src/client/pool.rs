//! Connections that are kept for the next call: looked at before each use, and given back only when they are sound.
//!
//! A connection serves one call at a time. Source: requirements R2.35, R2.36, R3.1 to R3.14.

use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::client::counters::{Counting, add, subtract};
use crate::client::error::Error;
use crate::client::link::{Found, Link};
use crate::client::socket::{Channel, TimedSocket};
use crate::client::{Settings, Speech};
use crate::conn::liveness::Dead;
use crate::wire::first_byte::FirstByte;

/// How many connections are kept, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolLimits {
    /// Connections to one address at the same time; a call that finds all of them in use waits for one. Servers take
    /// 100 from one address, unless they are told otherwise.
    pub max_open: usize,
    /// A connection that no call used for so long is not used again. Servers close theirs after some minutes.
    pub idle_limit: Duration,
    /// A connection that is older than this is closed when its call is over; never while it is used.
    pub max_lifetime: Option<Duration>,
    /// Whether a kept connection is looked at before its next use. Only a measurement of what that costs turns it off.
    pub check: bool,
}

impl Default for PoolLimits {
    fn default() -> PoolLimits {
        PoolLimits { max_open: 64, idle_limit: Duration::from_secs(120), max_lifetime: None, check: true }
    }
}

/// The connections of a client.
pub(crate) struct Pool {
    settings: Arc<Settings>,
    counters: Arc<Counting>,
    addresses: Vec<String>,
    shelves: Mutex<Vec<Shelf>>,
    freed: Condvar,
}

/// The connections to one address.
#[derive(Default)]
struct Shelf {
    /// The last used is at the end.
    idle: Vec<Idle>,
    /// Those in use too.
    open: usize,
}

struct Idle {
    link: Link,
    born: Instant,
    since: Instant,
}

/// A connection for one call. Unless it is given back, it is closed.
pub(crate) struct Lease<'p> {
    pool: &'p Pool,
    at: usize,
    link: Option<Link>,
    born: Instant,
    /// It was used before.
    pub(crate) is_used: bool,
}

impl Pool {
    pub(crate) fn new(settings: Arc<Settings>, counters: Arc<Counting>) -> Pool {
        let addresses: Vec<String> = settings.addresses().into_iter().map(str::to_owned).collect();
        let shelves = addresses.iter().map(|_| Shelf::default()).collect();
        Pool { settings, counters, addresses, shelves: Mutex::new(shelves), freed: Condvar::new() }
    }

    pub(crate) fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// A connection to the server at `at`, or to the next one that can be reached; `fresh`: dialled now.
    ///
    /// # Errors
    /// None can be reached, none came free in time.
    pub(crate) fn take(&self, at: usize, fresh: bool, deadline: Instant) -> Result<(Lease<'_>, usize), Error> {
        let count = self.addresses.len();
        let mut causes = Vec::new();
        for nth in 0..count {
            let at = (at + nth) % count;
            let Some(address) = self.addresses.get(at) else { break };
            if let Some(lease) = self.place(at, fresh, deadline)? {
                return Ok((lease, at));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let others = u32::try_from(count - nth).unwrap_or(u32::MAX);
            let born = Instant::now();
            // From here on the place is ours; the lease gives it back when dialling fails.
            let mut lease = Lease { pool: self, at, link: None, born, is_used: false };
            match self.dial(address, self.settings.speech.first_byte(), born + left / others) {
                Ok(channel) => {
                    add(&self.counters.open);
                    lease.link = Some(match self.settings.speech {
                        Speech::Plain => Link::plain(channel),
                        Speech::Multiplexed => Link::mux(channel),
                    });
                    return Ok((lease, at));
                }
                Err(_) if left.is_zero() && causes.is_empty() => return Err(Error::Deadline { sent: false }),
                Err(cause) => causes.push((address.as_str(), cause)),
            }
        }
        Err(unreachable(&causes))
    }

    /// A kept connection that is sound; `None` when one is to be dialled, for which a place is then taken.
    fn place(&self, at: usize, fresh: bool, deadline: Instant) -> Result<Option<Lease<'_>>, Error> {
        let mut shelves = self.shelves();
        loop {
            let Some(shelf) = shelves.get_mut(at) else { return Ok(None) };
            let now = Instant::now();
            let old = self.aged(shelf, now);
            let full = shelf.open.saturating_sub(old.len()) >= self.settings.pool.max_open.max(1);
            // A fresh one needs a place of its own; the kept one that was used longest ago makes room.
            let wanted = if !fresh {
                shelf.idle.pop()
            } else if full && !shelf.idle.is_empty() {
                Some(shelf.idle.remove(0))
            } else {
                None
            };
            if wanted.is_some() || !old.is_empty() {
                drop(shelves);
                for idle in old {
                    self.closed_for_age(at, idle);
                }
                let Some(idle) = wanted else {
                    shelves = self.shelves();
                    continue;
                };
                subtract(&self.counters.idle);
                if fresh {
                    self.discard(at, "fresh", idle.link);
                } else if let Some(lease) = self.inspect(at, idle) {
                    return Ok(Some(lease));
                }
                shelves = self.shelves();
                continue;
            }
            if !full {
                shelf.open += 1;
                return Ok(None);
            }
            let left = deadline.saturating_duration_since(now);
            if left.is_zero() {
                return Err(Error::Deadline { sent: false });
            }
            shelves = self.freed.wait_timeout(shelves, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Those that are kept no longer.
    fn aged(&self, shelf: &mut Shelf, now: Instant) -> Vec<Idle> {
        let (old, kept) = shelf.idle.drain(..).partition(|idle| self.has_had_its_time(idle, now));
        shelf.idle = kept;
        old
    }

    fn has_had_its_time(&self, idle: &Idle, now: Instant) -> bool {
        now.saturating_duration_since(idle.since) >= self.settings.pool.idle_limit || self.is_too_old(idle.born, now)
    }

    fn is_too_old(&self, born: Instant, now: Instant) -> bool {
        self.settings.pool.max_lifetime.is_some_and(|limit| now.saturating_duration_since(born) >= limit)
    }

    fn closed_for_age(&self, at: usize, idle: Idle) {
        subtract(&self.counters.idle);
        let reason = if self.is_too_old(idle.born, Instant::now()) { "lifetime" } else { "idle" };
        self.discard(at, reason, idle.link);
    }

    /// Looks at a connection that is about to be used again (R3.1, R3.13).
    fn inspect(&self, at: usize, mut idle: Idle) -> Option<Lease<'_>> {
        if self.settings.pool.check {
            add(&self.counters.check);
            if let Err(found) = idle.link.liveness() {
                add(&self.counters.check_dead);
                log_dead(self.addresses.get(at).map_or("", String::as_str), found, idle.since.elapsed());
                self.discard(at, found.dead.text(), idle.link);
                return None;
            }
        }
        Some(Lease { pool: self, at, link: Some(idle.link), born: idle.born, is_used: true })
    }

    /// Closes a connection.
    fn discard(&self, at: usize, reason: &str, link: Link) {
        drop(link);
        self.counters.discard(reason);
        subtract(&self.counters.open);
        self.leave(at);
    }

    /// Gives a place back.
    fn leave(&self, at: usize) {
        if let Some(shelf) = self.shelves().get_mut(at) {
            shelf.open = shelf.open.saturating_sub(1);
        }
        self.freed.notify_all();
    }

    /// Closes what was idle for too long; whoever has a thread for it calls this.
    pub(crate) fn sweep(&self) {
        let now = Instant::now();
        for at in 0..self.addresses.len() {
            let old: Vec<Idle> = match self.shelves().get_mut(at) {
                None => continue,
                Some(shelf) => self.aged(shelf, now),
            };
            for idle in old {
                self.closed_for_age(at, idle);
            }
        }
    }

    /// Connects, with TLS if it is set, and says what will be spoken.
    ///
    /// # Errors
    /// The system's, and every reason why TLS does not trust the server.
    pub(crate) fn dial(&self, address: &str, speech: FirstByte, deadline: Instant) -> io::Result<Channel> {
        let socket = connect(address, deadline)?;
        let mut channel = match &self.settings.tls {
            None => Channel::plain(socket),
            Some(tls) => Channel::secure(socket, tls, deadline)?,
        };
        channel.greet(speech)?;
        Ok(channel)
    }

    /// Looks at the connection that would be used next.
    #[cfg(test)]
    pub(crate) fn peek<T>(&self, look: impl FnOnce(&mut Link) -> T) -> Option<T> {
        let mut shelves = self.shelves();
        shelves.iter_mut().find_map(|shelf| shelf.idle.last_mut()).map(|idle| look(&mut idle.link))
    }

    fn shelves(&self) -> MutexGuard<'_, Vec<Shelf>> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease<'_> {
    /// The connection.
    pub(crate) fn link(&mut self) -> Option<&mut Link> {
        self.link.as_mut()
    }

    /// Keeps the connection for the next call, or says why not.
    pub(crate) fn give_back(mut self, discard: Option<&'static str>) {
        let Some(link) = self.link.take() else { return };
        let (pool, now) = (self.pool, Instant::now());
        let discard = discard.or_else(|| pool.is_too_old(self.born, now).then_some("lifetime"));
        match discard {
            Some(reason) => {
                drop(link);
                pool.counters.discard(reason);
                subtract(&pool.counters.open);
            }
            None => {
                add(&pool.counters.idle);
                let mut shelves = pool.shelves();
                if let Some(shelf) = shelves.get_mut(self.at) {
                    shelf.idle.push(Idle { link, born: self.born, since: now });
                    // Its place stays taken.
                    shelf.open += 1;
                }
            }
        }
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if self.link.take().is_some() {
            self.pool.counters.discard("error");
            subtract(&self.pool.counters.open);
        }
        self.pool.leave(self.at);
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

fn log_dead(server: &str, found: Found, idle: Duration) {
    let (error, idle) = (found.dead.text(), idle.as_millis());
    let level = match (found.dead, found.orderly) {
        (Dead::Stray, _) => log::Level::Warn,
        // A server that stops, or that closes what is idle, is nobody's trouble (R2.4, R3.15).
        (_, true) => log::Level::Debug,
        (_, false) => log::Level::Info,
    };
    log::log!(level, "closing bad idle connection: {error} server={server} idle_ms={idle}");
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
pub(crate) fn unreachable(causes: &[(&str, io::Error)]) -> Error {
    let all: Vec<&str> = causes.iter().map(|(address, _)| *address).collect();
    let cause = match causes {
        [] => "no address is given".to_owned(),
        [(_, cause)] => cause.to_string(),
        _ => causes.iter().map(|(address, cause)| format!("{address}: {cause}")).collect::<Vec<_>>().join("; "),
    };
    Error::Connect { address: all.join(", "), cause }
}
