//! A session: writes that are carried out exactly once, however often their answers are lost.
//!
//! The session numbers each write. One that is not answered is sent again with the same number, to any server, until
//! its deadline; the servers carry it out once and give the same answer again. Many threads may write at once through
//! clones of the handle. A thread of the client keeps the session alive. Source: requirements R2.22 to R2.30.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::client::book::Book;
use crate::client::error::{Class, Error, Place};
use crate::client::retry::{Failed, Kind};
use crate::client::stamp::{seeing, stamped};
use crate::client::{Client, is_read, takes_stamp};
use crate::wire::body::query::{QueryOptions, WriteMeta, WriteRequest};
use crate::wire::body::session::{
    SessionKey, SessionOpenRequest, SessionOutcomeReply, SessionOutcomeRequest, SessionReply, SessionRequest,
};
use crate::wire::msgpack::Msg;

/// How long the end of the last handle waits for the servers to hear of it.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);
/// Renewals within a TTL.
pub(crate) const RENEWALS_A_TTL: u32 = 3;
/// The TTL of a server that names none.
const FALLBACK_TTL: Duration = Duration::from_secs(60);

/// How a session is opened.
#[derive(Clone)]
pub struct SessionOptions {
    /// What operators see it as; at most 128 bytes.
    pub name: String,
    /// How long it lasts without a sign of life; zero for the servers' default.
    pub ttl: Duration,
    /// The region that it is of, and that its writes go to; `global` by default.
    pub region: String,
    /// The secret of the token that opens it. Never printed.
    pub token: String,
}

impl Default for SessionOptions {
    fn default() -> SessionOptions {
        let (name, token) = (String::new(), String::new());
        SessionOptions { name, ttl: Duration::ZERO, region: "global".to_owned(), token }
    }
}

impl std::fmt::Debug for SessionOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionOptions")
            .field("name", &self.name)
            .field("ttl", &self.ttl)
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}

/// What became of a write, as the servers remember it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was carried out.
    Applied {
        /// At this index of the log; 0 when that is not known any more.
        index: u64,
    },
    /// The servers said no; nothing was changed.
    Refused {
        /// At this index of the log.
        index: u64,
        /// Why.
        error: String,
    },
    /// It was not carried out when this was asked. It may yet be, while a copy of it is under way; never once the
    /// session is closed or over.
    NotApplied,
    /// It was answered, and is forgotten.
    Acknowledged,
    /// The session is over, and what was remembered with it.
    Expired,
}

/// A handle of a session. Clones are of the same session, which is closed with the last of them.
///
/// ```no_run
/// use holdfast::client::{Class, Client, SessionOptions, Settings};
/// use holdfast::wire::body::var::{Variable, VariablesApplyRequest, VariablesApplyResponse};
///
/// let client = Client::new(Settings::new("10.0.0.1:4647,10.0.0.2:4647"));
/// let session = client.session(SessionOptions { name: "billing".to_owned(), ..SessionOptions::default() })?;
/// let var = Variable { path: "app/db".to_owned(), ..Variable::default() };
/// let request = VariablesApplyRequest { op: "set".to_owned(), var: Some(var), ..VariablesApplyRequest::default() };
/// match session.call::<_, VariablesApplyResponse>("Variables.Apply", &request) {
///     Ok(reply) => println!("written once, at index {}", reply.meta.index),
///     Err(error) if error.is_outcome_unknown() => {
///         if let Some(place) = error.place() {
///             println!("{place}: {:?}", session.outcome(place)?);
///         }
///     }
///     Err(error) => println!("surely not written: {error}"),
/// }
/// # Ok::<(), holdfast::client::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Session {
    core: Arc<SessionCore>,
}

/// What the handles share.
#[derive(Debug)]
pub(crate) struct SessionCore {
    client: Client,
    options: SessionOptions,
    book: Mutex<Book>,
    times: Mutex<Times>,
    /// Held by whoever opens a session, so that there is one of them.
    opening: Mutex<()>,
    /// Index of the last write that was answered (R2.30).
    seen: AtomicU64,
}

#[derive(Debug)]
struct Times {
    ttl: Duration,
    /// When the last request was sent that kept it alive.
    renewed: Instant,
}

impl Client {
    /// Opens a session.
    ///
    /// # Errors
    /// As [`Client::call`]; servers that know no sessions refuse.
    pub fn session(&self, options: SessionOptions) -> Result<Session, Error> {
        let core = Arc::new(SessionCore {
            client: self.clone(),
            options,
            book: Mutex::new(Book::new()),
            times: Mutex::new(Times { ttl: FALLBACK_TTL, renewed: Instant::now() }),
            opening: Mutex::new(()),
            seen: AtomicU64::new(0),
        });
        core.ensure_open(Instant::now() + self.core.settings.timeout)?;
        self.core.keeper.keep(&core)?;
        Ok(Session { core })
    }
}

impl Session {
    /// The session that writes go to now; another one after the first was over.
    pub fn id(&self) -> Option<u64> {
        self.core.book().current()
    }

    /// The client that it was opened with.
    pub fn client(&self) -> &Client {
        &self.core.client
    }

    /// The index of the last write that was answered: what reads through this session see at least.
    pub fn seen(&self) -> u64 {
        self.core.seen.load(Ordering::Relaxed)
    }

    /// Calls `method`, a write exactly once, for as long as the settings say.
    ///
    /// # Errors
    /// As [`Client::call`]. [`Error::OutcomeUnknown`] only when the deadline came or the session was over, and names
    /// the write's place.
    pub fn call<Q: Msg, R: Msg>(&self, method: &str, request: &Q) -> Result<R, Error> {
        self.call_within(method, request, self.core.client.core.settings.timeout)
    }

    /// The same with a limit of its own.
    ///
    /// # Errors
    /// As [`Session::call`].
    pub fn call_within<Q: Msg, R: Msg>(&self, method: &str, request: &Q, limit: Duration) -> Result<R, Error> {
        let deadline = Instant::now() + limit;
        let body = request.to_bytes();
        let reply = if is_read(method) {
            let body = match self.seen() {
                0 => body,
                index => seeing(&body, index).ok_or_else(nameless)?,
            };
            self.core.client.call_bytes(method, body, limit)?
        } else if !takes_stamp(method) {
            // It has no place in a session: what it does is no single entry, and it is made once at most.
            self.core.client.call_bytes(method, body, limit)?
        } else {
            self.core.write(method, &body, deadline)?
        };
        R::from_bytes(&reply).map_err(|error| Error::Malformed(format!("{method}: {error}")))
    }

    /// Asks what became of a write whose outcome is unknown, of this session or of one before it.
    ///
    /// # Errors
    /// As [`Client::call`]; a session that this handle never had.
    pub fn outcome(&self, place: Place) -> Result<Outcome, Error> {
        let key = self.core.book().key(place.session);
        let key = key.ok_or_else(|| Error::System(format!("session {} is none of this handle", place.session)))?;
        let options = &self.core.options;
        let request = SessionOutcomeRequest {
            id: place.session,
            key,
            sequence: place.sequence,
            query: QueryOptions {
                region: options.region.clone(),
                auth_token: options.token.clone(),
                ..QueryOptions::default()
            },
        };
        let client = &self.core.client;
        let deadline = Instant::now() + client.core.settings.timeout;
        let body = request.to_bytes();
        let reply = client.core.perform("Session.Outcome", Kind::Read, deadline, &mut || Some(body.clone()));
        let reply = match reply {
            Ok(reply) => {
                SessionOutcomeReply::from_bytes(&reply).map_err(|error| Error::Malformed(error.to_string()))?
            }
            Err(Failed { error, .. }) if error.class() == Class::SessionExpired => return Ok(Outcome::Expired),
            Err(failed) => return Err(failed.error),
        };
        let outcome = read_outcome(reply)?;
        if matches!(outcome, Outcome::Applied { .. } | Outcome::Refused { .. }) {
            self.core.book().settle(place.session, place.sequence);
        }
        Ok(outcome)
    }

    /// The secret key of a session of this handle, in hexadecimal digits, for whoever is to ask later what became of a
    /// write (`holdfast session outcome`).
    pub fn key_text(&self, session: u64) -> Option<String> {
        self.core.book().key(session).map(|key| key.to_hex())
    }

    /// Closes the session, whoever else has a handle of it; a later write opens another.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn close(&self) -> Result<(), Error> {
        self.core.close(self.core.client.core.settings.timeout)
    }
}

fn read_outcome(reply: SessionOutcomeReply) -> Result<Outcome, Error> {
    Ok(match reply.outcome.as_str() {
        "applied" => Outcome::Applied { index: reply.write_index },
        "refused" => Outcome::Refused { index: reply.write_index, error: reply.error },
        "not-applied" => Outcome::NotApplied,
        "acknowledged" => Outcome::Acknowledged,
        "expired" => Outcome::Expired,
        other => return Err(Error::Malformed(format!("an outcome is none: {other:?}"))),
    })
}

impl SessionCore {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn times(&self) -> MutexGuard<'_, Times> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When it is to be renewed next.
    pub(crate) fn renewal_due(&self) -> Instant {
        let times = self.times();
        times.renewed + times.ttl / RENEWALS_A_TTL
    }

    fn renewed(&self, sent: Instant) {
        let mut times = self.times();
        times.renewed = times.renewed.max(sent);
    }

    fn write_request(&self) -> WriteRequest {
        let (region, auth_token) = (self.options.region.clone(), self.options.token.clone());
        WriteRequest { region, auth_token, ..WriteRequest::default() }
    }

    /// Opens a session when none stands. One that nobody kept alive for its TTL, as when this process stood still, is
    /// over, whatever the servers' clock says.
    fn ensure_open(&self, deadline: Instant) -> Result<(), Error> {
        let stands = || {
            let is_late = {
                let times = self.times();
                times.renewed.elapsed() >= times.ttl
            };
            let mut book = self.book();
            if let Some(id) = book.current().filter(|_| is_late) {
                book.end(id);
            }
            book.current().is_some()
        };
        if stands() {
            return Ok(());
        }
        let _one = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if stands() {
            return Ok(());
        }
        let sent = Instant::now();
        let request = SessionOpenRequest {
            ttl: i64::try_from(self.options.ttl.as_nanos()).unwrap_or(i64::MAX),
            name: self.options.name.clone(),
            write: self.write_request(),
            ..SessionOpenRequest::default()
        };
        // One that is opened twice, because the first answer was lost, ends by its TTL.
        let reply = self.repeat("Session.Open", &request.to_bytes(), deadline)?;
        let reply = SessionReply::from_bytes(&reply).map_err(|error| Error::Malformed(error.to_string()))?;
        let ttl = u64::try_from(reply.ttl).ok().filter(|ttl| *ttl > 0).map_or(FALLBACK_TTL, Duration::from_nanos);
        *self.times() = Times { ttl, renewed: sent };
        self.seen.fetch_max(reply.meta.index, Ordering::Relaxed);
        self.book().open(reply.id, reply.key);
        Ok(())
    }

    fn repeat(&self, method: &str, body: &[u8], deadline: Instant) -> Result<Vec<u8>, Error> {
        let answer = self.client.core.perform(method, Kind::Repeatable, deadline, &mut || Some(body.to_vec()));
        answer.map_err(|failed| failed.error)
    }

    /// Makes a write, in a session that stands.
    fn write(&self, method: &str, body: &[u8], deadline: Instant) -> Result<Vec<u8>, Error> {
        loop {
            self.ensure_open(deadline)?;
            // A session that ends before a byte of the write was sent has done it no harm: it goes into the next.
            let begun = self.book().begin();
            if let Some((session, sequence)) = begun
                && let Some(answer) = self.write_as(Place { session, sequence }, method, body, deadline)
            {
                return answer;
            }
            if Instant::now() >= deadline {
                return Err(Error::Deadline { sent: false });
            }
        }
    }

    /// Makes a write, again and again with its one number, until it is answered; `None` when nothing was sent.
    fn write_as(&self, place: Place, method: &str, body: &[u8], deadline: Instant) -> Option<Result<Vec<u8>, Error>> {
        let Place { session, sequence } = place;
        let mut sent = None;
        let mut is_nameless = false;
        let answer = self.client.core.perform(method, Kind::Repeatable, deadline, &mut || {
            let stamp = self.book().stamp(session, sequence)?;
            let stamped = stamped(body, &stamp);
            is_nameless = stamped.is_none();
            sent = stamped.is_some().then(Instant::now).or(sent);
            stamped
        });
        match (answer, sent) {
            (Ok(reply), sent) => {
                self.renewed(sent.unwrap_or_else(Instant::now));
                if let Ok(meta) = WriteMeta::from_bytes(&reply) {
                    self.seen.fetch_max(meta.index, Ordering::Relaxed);
                }
                self.book().settle(session, sequence);
                Some(Ok(reply))
            }
            (Err(_), None) => {
                self.book().settle(session, sequence);
                is_nameless.then(|| Err(nameless()))
            }
            (Err(failed), Some(_)) => Some(Err(self.told(place, failed))),
        }
    }

    /// What the caller of a write hears that has no reply.
    fn told(&self, place: Place, failed: Failed) -> Error {
        let mut book = self.book();
        let is_over = failed.error.class() == Class::SessionExpired;
        if is_over {
            book.end(place.session);
        }
        // A copy of it may have been carried out before the session was over (R2.28).
        if is_over || failed.may_be_done {
            book.forget_later(place.session, place.sequence);
            drop(book);
            let cause = Box::new(failed.error);
            return self.client.told(Error::OutcomeUnknown { place: Some(place), cause });
        }
        book.settle(place.session, place.sequence);
        failed.error
    }

    /// Says that the session lives; the keeper's thread does.
    pub(crate) fn keep_alive(&self) {
        let (sent, limit) = (Instant::now(), self.times().ttl / RENEWALS_A_TTL);
        let (id, key) = {
            let book = self.book();
            let Some(id) = book.current() else {
                drop(book);
                return self.renewed(sent);
            };
            (id, book.key(id).unwrap_or_default())
        };
        let limit = limit.min(self.client.core.settings.timeout);
        match self.request("Session.KeepAlive", id, key, sent + limit) {
            Ok(_) => self.renewed(sent),
            Err(error) if error.class() == Class::SessionExpired => {
                log::warn!("session {id} is over: it was not kept alive in time");
                self.book().end(id);
            }
            Err(error) => log::info!("session {id} could not be kept alive, trying again: {error}"),
        }
    }

    /// Closes connections that were idle for too long.
    pub(crate) fn sweep(&self) {
        self.client.core.pool.sweep();
    }

    fn request(&self, method: &str, id: u64, key: SessionKey, deadline: Instant) -> Result<Vec<u8>, Error> {
        self.repeat(method, &SessionRequest { id, key, write: self.write_request() }.to_bytes(), deadline)
    }

    fn close(&self, limit: Duration) -> Result<(), Error> {
        let (id, key) = {
            let mut book = self.book();
            let Some(id) = book.current() else { return Ok(()) };
            let key = book.key(id).unwrap_or_default();
            book.end(id);
            (id, key)
        };
        match self.request("Session.Close", id, key, Instant::now() + limit) {
            Err(error) if error.class() != Class::SessionExpired => Err(error),
            _ => Ok(()),
        }
    }
}

impl Drop for SessionCore {
    fn drop(&mut self) {
        if let Err(error) = self.close(CLOSE_LIMIT) {
            log::debug!("a session was not closed, and ends by its TTL: {error}");
        }
        self.client.core.keeper.wake();
    }
}

fn nameless() -> Error {
    Error::System("the request's fields have no names: it cannot be made in a session".to_owned())
}
