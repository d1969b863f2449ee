//! A blocking client of the server's RPC port: for programs, and for the command line.
//!
//! A [`Client`] is cheap to clone and may be used from many threads at once. Each call has a deadline, and an
//! [`Error`] says by its [`Class`] whether the call surely changed nothing, or whether nobody knows.
//!
//! - Connections are kept in a pool, yamux or plain, inside TLS if asked, and looked at before each use ([`PoolLimits`]).
//! - Calls are made again by class: reads always; writes only when the first try surely changed nothing. A write is
//!   never silently made twice. See the table in the docs of this module's source, `retry.rs`.
//! - In a [`Session`] writes are made again after any failure, and are carried out exactly once.
//! - [`Variables`], [`Nodes`], [`Watch`], [`LockGuard`] and [`Events`] say what the calls mean.
//!
//! ```
//! use std::time::Duration;
//! use holdfast::client::{Class, Client, Settings};
//! use holdfast::wire::body::query::GenericRequest;
//! use holdfast::wire::msgpack::Raw;
//!
//! let client = Client::new(Settings { timeout: Duration::from_secs(2), ..Settings::new("127.0.0.1:1") });
//! let nobody = client.call::<_, Raw>("Status.Ping", &GenericRequest::default()).unwrap_err();
//! assert_eq!(nobody.class(), Class::NotSent);
//! assert_eq!(client.counters().errors(Class::NotSent), 1);
//! ```
//!
//! Source: transport notes, sections 1, 2, 4 and 7; requirements R2.1 to R2.38, R3.1 to R3.18.

pub mod body;
mod book;
mod call;
mod clock;
mod counters;
mod error;
mod events;
mod keeper;
mod link;
mod lock;
mod mux_link;
mod pool;
mod retry;
mod scope;
mod session;
mod socket;
mod stamp;
mod stream;
mod tls;
mod vars;
mod watch;

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::api;
use crate::api::Access;
use crate::base::rng::Rng;
pub use crate::client::counters::Counters;
pub use crate::client::error::{Class, Error, Place};
pub use crate::client::events::{Events, Heard};
pub use crate::client::lock::{LockGuard, LockOptions};
pub use crate::client::pool::PoolLimits;
pub use crate::client::scope::{Caller, Scope};
pub use crate::client::session::{Outcome, Session, SessionOptions};
pub use crate::client::stream::Stream;
pub use crate::client::tls::{ServerName, TlsError, TlsFiles, TlsSettings, load_tls};
pub use crate::client::vars::{Nodes, Variables, Written};
pub use crate::client::watch::Watch;
use crate::wire::first_byte::FirstByte;
use crate::wire::msgpack::Msg;

pub(crate) use crate::client::clock::boot_now;
pub(crate) use crate::client::lock::new_id;
pub(crate) use crate::client::socket::TimedSocket;

use crate::client::counters::Counting;
use crate::client::keeper::Keeper;
use crate::client::pool::{Pool, unreachable};
use crate::client::retry::Kind;

/// Bytes of one reply at most; a longer one ends the connection.
pub const MAX_REPLY_BYTES: usize = 64 * 1024 * 1024;

/// How long a call may take unless the settings say otherwise.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);

/// What a connection speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Speech {
    /// Calls on a stream of a yamux session (first byte 0x06): what came between two calls, as pings do, is no sign of
    /// death, and a call that is given up does not cost its connection.
    #[default]
    Multiplexed,
    /// Calls straight on the connection (first byte 0x01): the least for a program that makes a call or two.
    Plain,
}

impl Speech {
    fn first_byte(self) -> FirstByte {
        match self {
            Speech::Multiplexed => FirstByte::MultiplexV2,
            Speech::Plain => FirstByte::Rpc,
        }
    }
}

/// Where to connect, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `host:port` of the server's RPC listener, or of several servers with commas between: the first that can be
    /// reached is asked.
    pub address: String,
    /// TLS, when the server wants it.
    pub tls: Option<TlsSettings>,
    /// How long one call may take, with the connection it needs and all its tries. (Looking a name up is not bounded
    /// by it: the system's resolver has limits of its own.)
    pub timeout: Duration,
    /// What connections speak.
    pub speech: Speech,
    /// Whether a call that found no leader at any address is tried until its deadline, or each address once.
    pub waits_for_leader: bool,
    /// How many connections are kept, and for how long.
    pub pool: PoolLimits,
}

impl Settings {
    /// For the server at this address, or these with commas between, in clear.
    pub fn new(address: impl Into<String>) -> Settings {
        Settings {
            address: address.into(),
            tls: None,
            timeout: DEFAULT_TIMEOUT,
            speech: Speech::default(),
            waits_for_leader: true,
            pool: PoolLimits::default(),
        }
    }

    /// The addresses, each by itself.
    pub fn addresses(&self) -> Vec<&str> {
        self.address.split(',').map(str::trim).filter(|address| !address.is_empty()).collect()
    }
}

/// What all handles of a client share.
#[derive(Debug)]
pub(crate) struct Core {
    settings: Arc<Settings>,
    counters: Arc<Counting>,
    pool: Pool,
    /// Which address is tried first: the one that answered last.
    preferred: AtomicUsize,
    /// Number of the last request; counted over all connections, as Go clients do.
    last_seq: AtomicU64,
    /// Only pauses come from it.
    rng: Mutex<Rng>,
    keeper: Keeper,
}

/// A client of one server, or of several that are one cluster. Clones share connections and counters.
///
/// ```no_run
/// use holdfast::client::{Client, Settings};
/// use holdfast::wire::body::query::GenericRequest;
///
/// let client = Client::new(Settings::new("10.0.0.1:4647, 10.0.0.2:4647, 10.0.0.3:4647"));
/// let leader: String = client.call("Status.Leader", &GenericRequest::default())?;
/// println!("{leader} leads, says {}", client.address());
/// # Ok::<(), holdfast::client::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Client {
    core: Arc<Core>,
}

impl Client {
    /// A client that has not connected yet.
    pub fn new(settings: Settings) -> Client {
        let settings = Arc::new(settings);
        let counters = Arc::new(Counting::default());
        let pool = Pool::new(Arc::clone(&settings), Arc::clone(&counters));
        Client {
            core: Arc::new(Core {
                settings,
                counters,
                pool,
                preferred: AtomicUsize::new(0),
                last_seq: AtomicU64::new(0),
                rng: Mutex::new(Rng::from_seed(RandomState::new().hash_one(0))),
                keeper: Keeper::default(),
            }),
        }
    }

    /// Which server answered last, or will be asked first.
    pub fn address(&self) -> &str {
        let addresses = self.core.pool.addresses();
        addresses.get(self.core.preferred.load(Ordering::Relaxed)).unwrap_or(&self.core.settings.address)
    }

    /// How it was set up.
    pub fn settings(&self) -> &Settings {
        &self.core.settings
    }

    /// What it counted so far.
    pub fn counters(&self) -> Counters {
        self.core.counters.read()
    }

    /// Calls `method` with `request` and waits for its reply, for as long as the settings say.
    ///
    /// # Errors
    /// By class, see [`Error`]. A write that may have been carried out is [`Error::OutcomeUnknown`].
    pub fn call<Q: Msg, R: Msg>(&self, method: &str, request: &Q) -> Result<R, Error> {
        self.call_within(method, request, self.core.settings.timeout)
    }

    /// The same with a limit of its own, as blocking queries need.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn call_within<Q: Msg, R: Msg>(&self, method: &str, request: &Q, limit: Duration) -> Result<R, Error> {
        let body = self.call_bytes(method, request.to_bytes(), limit)?;
        R::from_bytes(&body).map_err(|error| Error::Malformed(format!("{method}: {error}")))
    }

    /// The same with bodies as they travel.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn call_bytes(&self, method: &str, body: Vec<u8>, limit: Duration) -> Result<Vec<u8>, Error> {
        self.made(method, Instant::now() + limit, &mut || Some(body.clone()))
    }

    /// Makes a call with one try, whatever becomes of it: what a program sees that has no library.
    pub(crate) fn call_once<Q: Msg, R: Msg>(&self, method: &str, request: &Q) -> Result<R, Error> {
        let mut body = Some(request.to_bytes());
        let reply = self.made(method, Instant::now() + self.core.settings.timeout, &mut || body.take())?;
        R::from_bytes(&reply).map_err(|error| Error::Malformed(format!("{method}: {error}")))
    }

    /// Makes a call outside of any session; `body` as for [`Core::perform`].
    fn made(
        &self,
        method: &str,
        deadline: Instant,
        body: &mut dyn FnMut() -> Option<Vec<u8>>,
    ) -> Result<Vec<u8>, Error> {
        let kind = if is_read(method) { Kind::Read } else { Kind::Write };
        self.core.perform(method, kind, deadline, body).map_err(|failed| match kind {
            Kind::Write => self.told(failed.error.of_write(None)),
            _ => failed.error,
        })
    }

    /// Counts an unknown outcome where it is told.
    fn told(&self, error: Error) -> Error {
        if matches!(&error, Error::OutcomeUnknown { cause, .. } if cause.class() != Class::OutcomeUnknown) {
            self.core.counters.error(Class::OutcomeUnknown);
        }
        error
    }

    /// Opens a streaming call on a connection of its own: header, ack, argument. What follows is the stream's.
    ///
    /// # Errors
    /// As [`Client::call`]; a refused header is [`Error::Answered`].
    pub fn stream<Q: Msg>(&self, method: &str, argument: &Q) -> Result<Stream, Error> {
        let deadline = Instant::now() + self.core.settings.timeout;
        let addresses = self.core.pool.addresses();
        let first = self.core.preferred.load(Ordering::Relaxed);
        let mut causes = Vec::new();
        for nth in 0..addresses.len() {
            let at = (first + nth) % addresses.len();
            let Some(address) = addresses.get(at) else { break };
            let left = deadline.saturating_duration_since(Instant::now());
            let others = u32::try_from(addresses.len() - nth).unwrap_or(u32::MAX);
            match self.core.pool.dial(address, FirstByte::Streaming, Instant::now() + left / others) {
                Ok(channel) => return Stream::open(channel, method, &argument.to_bytes(), deadline),
                Err(cause) => causes.push((address.as_str(), cause)),
            }
        }
        Err(unreachable(&causes))
    }
}

/// Whether a call that was sent and not answered may be sent again.
fn is_read(method: &str) -> bool {
    api::method(method).is_ok_and(|method| method.access != Access::Write)
}

/// Whether a write can have a place in a session; what this build does not know can.
fn takes_stamp(method: &str) -> bool {
    api::method(method).map_or(true, api::Method::takes_stamp)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod fake;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
