//! A lock as a guard: taken, renewed by a thread of its own, given back when it is dropped, and honest about its loss.
//!
//! The holder makes the lock's id itself, so that an acquire whose answer was lost can be asked for again, or given
//! back. Times are counted from before each request was sent, by a clock that goes on while the machine sleeps, so that
//! the guard is lost to its holder before anybody else can have it. Requirements R8.1, R8.2, R8.28.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ring::rand::{SecureRandom, SystemRandom};

use crate::base::time;
use crate::client::clock::boot_now;
use crate::client::error::{Class, Error};
use crate::client::scope::Caller;
use crate::client::vars::Variables;
use crate::wire::body::var::{
    Variable, VariableLock, VariablesApplyRequest, VariablesApplyResponse, VariablesReadRequest, VariablesReadResponse,
    VariablesRenewLockRequest, VariablesRenewLockResponse,
};

/// A lock is renewed this many times within its TTL.
const RENEWALS_A_TTL: u32 = 3;
/// What failed is tried again after this, while somebody waits for the lock, or after a renewal.
const RETRY: Duration = Duration::from_millis(250);
/// Servers let nobody wait longer for a turn.
const TURN_MAX: Duration = Duration::from_secs(300);
/// How long the end of a guard waits for the servers to hear of it.
const RELEASE_LIMIT: Duration = Duration::from_secs(1);

/// How a lock is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockOptions {
    /// How long it lasts without a renewal. Servers have a least TTL.
    pub ttl: Duration,
    /// How long nobody gets it after it ran out.
    pub delay: Duration,
    /// How long is waited for one's turn.
    pub wait: Duration,
    /// What others see as the holder.
    pub owner: String,
}

impl Default for LockOptions {
    fn default() -> LockOptions {
        let ttl = Duration::from_secs(15);
        LockOptions { ttl, delay: ttl, wait: Duration::ZERO, owner: String::new() }
    }
}

/// A lock that is held, until [`LockGuard::is_lost`] says otherwise.
///
/// ```no_run
/// use std::time::Duration;
/// use holdfast::client::{Client, LockOptions, Scope, Settings, Variables};
///
/// let client = Client::new(Settings::new("10.0.0.1:4647,10.0.0.2:4647"));
/// let vars = Variables::new(&client, Scope::default());
/// let wait = Duration::from_secs(60);
/// if let Some(guard) = vars.lock("jobs/nightly", LockOptions { wait, ..LockOptions::default() })? {
///     println!("ours, fence {}", guard.fence());
///     while !guard.wait_lost(Duration::from_secs(1)) {
///         // A second's work; what it changes is told the fence.
///     }
/// }
/// # Ok::<(), holdfast::client::Error>(())
/// ```
pub struct LockGuard {
    shared: Arc<Shared>,
    fence: u64,
    path: String,
    release: Box<dyn Fn(Duration) -> Result<(), Error> + Send + Sync>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<Held>,
    changed: Condvar,
}

struct Held {
    /// From then on it may be somebody else's.
    until: time::Instant,
    /// Why it is lost.
    lost: Option<String>,
    /// The guard is gone.
    over: bool,
}

impl<C: Caller> Variables<C> {
    /// Takes the lock of a variable, which is made when it is not there; items that it has stay as they are. `None`
    /// when another holds it still after the time to wait.
    ///
    /// # Errors
    /// As [`Caller::call`]; a lock of which it is not known whether it was taken is given back, or runs out.
    pub fn lock(&self, path: &str, options: LockOptions) -> Result<Option<LockGuard>, Error> {
        let claim = Claim { vars: self.clone(), path: path.to_owned(), id: new_id()?, options };
        claim.acquire()?.map(|(fence, until)| claim.guard(fence, until)).transpose()
    }
}

/// A lock that is wanted.
#[derive(Clone)]
struct Claim<C: Caller> {
    vars: Variables<C>,
    path: String,
    /// A bearer secret.
    id: String,
    options: LockOptions,
}

impl<C: Caller> Claim<C> {
    /// Asks until it is ours or the time is over: the fence, and until when.
    fn acquire(&self) -> Result<Option<(u64, time::Instant)>, Error> {
        let give_up = Instant::now() + self.options.wait;
        loop {
            let since = boot_now();
            let wait = give_up.saturating_duration_since(Instant::now()).min(TURN_MAX);
            let failure = match self.ask(wait) {
                Ok(Some(fence)) if wait.is_zero() => return Ok(Some((fence, since + self.options.ttl))),
                // How long its turn took is not known; a renewal counts from now.
                Ok(Some(fence)) => {
                    let since = boot_now();
                    return match self.renew() {
                        Ok(()) => Ok(Some((fence, since + self.options.ttl))),
                        Err(error) => {
                            let _ = self.release(RELEASE_LIMIT);
                            Err(error)
                        }
                    };
                }
                Ok(None) => None,
                Err(error) => Some(error),
            };
            let is_over = Instant::now() + RETRY >= give_up;
            match failure {
                None if is_over => return Ok(None),
                Some(error) if is_over || !passes(&error) => {
                    if error.is_outcome_unknown() {
                        let _ = self.release(RELEASE_LIMIT);
                    }
                    return Err(error);
                }
                _ => thread::sleep(RETRY),
            }
        }
    }

    /// Asks once; the fence, or `None` when another holds it.
    fn ask(&self, wait: Duration) -> Result<Option<u64>, Error> {
        let (caller, scope) = (&self.vars.caller, &self.vars.scope);
        // For servers that put the items of the request in the place of those that are there.
        let read = VariablesReadRequest { path: self.path.clone(), query: scope.fresh() };
        let there: VariablesReadResponse = caller.call("Variables.Read", &read)?;
        let items = there.data.and_then(|var| var.items).unwrap_or_default();
        let lock = VariableLock {
            id: self.id.clone(),
            ttl: nanos(self.options.ttl),
            // 0 would stand for the server's default.
            lock_delay: nanos(self.options.delay).max(1),
        };
        let request = VariablesApplyRequest {
            op: "lock-acquire".to_owned(),
            var: Some(Variable { lock: Some(lock), ..self.vars.variable(&self.path, 0, Some(items)) }),
            owner: self.options.owner.clone(),
            wait_time: nanos(wait),
            keep_items: true,
            write: scope.write(),
            ..VariablesApplyRequest::default()
        };
        let limit = caller.client().settings().timeout.saturating_add(wait);
        let reply: VariablesApplyResponse = caller.call_within("Variables.Apply", &request, limit)?;
        Ok((reply.result == "ok").then_some(reply.fence))
    }

    fn renew(&self) -> Result<(), Error> {
        let (path, lock_id) = (self.path.clone(), self.id.clone());
        let request = VariablesRenewLockRequest { path, lock_id, write: self.vars.scope.write() };
        let limit = (self.options.ttl / RENEWALS_A_TTL).min(self.vars.caller.client().settings().timeout);
        // Never through a session: a renewal that comes late must not be carried out for a lock that is over.
        let client = self.vars.caller.client();
        client.call_within::<_, VariablesRenewLockResponse>("Variables.RenewLock", &request, limit).map(|_| ())
    }

    fn release(&self, limit: Duration) -> Result<(), Error> {
        let lock = VariableLock { id: self.id.clone(), ..VariableLock::default() };
        let request = VariablesApplyRequest {
            op: "lock-release".to_owned(),
            var: Some(Variable { lock: Some(lock), ..self.vars.variable(&self.path, 0, None) }),
            write: self.vars.scope.write(),
            ..VariablesApplyRequest::default()
        };
        let client = self.vars.caller.client();
        let reply: VariablesApplyResponse = client.call_within("Variables.Apply", &request, limit)?;
        match reply.result.as_str() {
            "ok" => Ok(()),
            _ => Err(Error::answered("another holds the lock")),
        }
    }

    fn guard(self, fence: u64, until: time::Instant) -> Result<LockGuard, Error> {
        let held = Held { until, lost: None, over: false };
        let shared = Arc::new(Shared { state: Mutex::new(held), changed: Condvar::new() });
        let (renewed, claim) = (Arc::clone(&shared), self.clone());
        let thread = thread::Builder::new().name("holdfast-lock".to_owned()).spawn(move || renewed.renew_on(&claim));
        let thread = thread.map_err(|error| {
            let _ = self.release(RELEASE_LIMIT);
            Error::System(format!("no thread can be started: {error}"))
        })?;
        let path = self.path.clone();
        Ok(LockGuard { shared, fence, path, release: Box::new(move |limit| self.release(limit)), thread: Some(thread) })
    }
}

impl Shared {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Renews until the guard is gone or the lock is lost.
    fn renew_on<C: Caller>(&self, claim: &Claim<C>) {
        let step = claim.options.ttl / RENEWALS_A_TTL;
        let mut pause = step;
        loop {
            let held = self.held();
            let (held, _) =
                self.changed.wait_timeout_while(held, pause, |held| !held.over).unwrap_or_else(PoisonError::into_inner);
            if held.over {
                return;
            }
            drop(held);
            let since = boot_now();
            let renewed = claim.renew();
            let mut held = self.held();
            match renewed {
                Ok(()) if since < held.until => {
                    held.until = since + claim.options.ttl;
                    pause = step;
                    continue;
                }
                Err(error) if !says_lost(&error) && boot_now() < held.until => {
                    log::info!("the lock of {} was not renewed, trying again: {error}", claim.path);
                    pause = RETRY.min(step);
                    continue;
                }
                Ok(()) => held.lost = Some("it was not renewed in time".to_owned()),
                Err(error) => held.lost = Some(error.to_string()),
            }
            drop(held);
            self.changed.notify_all();
            return;
        }
    }
}

impl LockGuard {
    /// Rises with each holder; what it is told to refuses earlier holders. 0 with servers that have none.
    pub fn fence(&self) -> u64 {
        self.fence
    }

    /// Whether it may be somebody else's by now.
    pub fn is_lost(&self) -> bool {
        let held = self.shared.held();
        held.lost.is_some() || boot_now() >= held.until
    }

    /// Why it is lost, if it is.
    pub fn why_lost(&self) -> Option<String> {
        let held = self.shared.held();
        let late = || (boot_now() >= held.until).then(|| "it was not renewed in time".to_owned());
        held.lost.clone().or_else(late)
    }

    /// Waits for its loss; false when it is held still after `limit`.
    pub fn wait_lost(&self, limit: Duration) -> bool {
        let end = boot_now() + limit;
        let mut held = self.shared.held();
        loop {
            let now = boot_now();
            if held.lost.is_some() || now >= held.until {
                return true;
            }
            if now >= end {
                return false;
            }
            let wait = end.min(held.until).since(now);
            held = self.shared.changed.wait_timeout(held, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Gives it back, and says whether that went well. Dropping the guard does the same, and says nothing.
    ///
    /// # Errors
    /// As [`Caller::call`]; then it runs out by its TTL.
    pub fn release(mut self) -> Result<(), Error> {
        self.end(RELEASE_LIMIT * 5)
    }

    fn end(&mut self, limit: Duration) -> Result<(), Error> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        let lost = {
            let mut held = self.shared.held();
            held.over = true;
            held.lost.clone()
        };
        self.shared.changed.notify_all();
        // A renewal under way is not waited for: it may still be refused when it comes after the release.
        drop(thread);
        match lost {
            Some(why) => Err(Error::answered(why)),
            None => (self.release)(limit),
        }
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        if let Err(error) = self.end(RELEASE_LIMIT) {
            log::info!("the lock of {} was not given back, and ends by its TTL: {error}", self.path);
        }
    }
}

impl fmt::Debug for LockGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockGuard").field("path", &self.path).field("fence", &self.fence).finish_non_exhaustive()
    }
}

/// Whether the answer to a renewal says that the lock is gone: no variable, no lock, or another one.
fn says_lost(error: &Error) -> bool {
    error.answer().is_some_and(|text| text.starts_with("RPC Error:: 404,") || text.starts_with("RPC Error:: 409,"))
}

/// Whether it is worth to ask again: it is safe with the same id, whatever became of the last time.
fn passes(error: &Error) -> bool {
    error.class() == Class::OutcomeUnknown || error.class().may_try_again(true)
}

fn nanos(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

/// A random UUID, which nobody guesses.
pub(crate) fn new_id() -> Result<String, Error> {
    let mut bytes = [0; 16];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| Error::System("the system's source of randomness fails".to_owned()))?;
    let number = u128::from_be_bytes(bytes);
    // Version 4, variant 1 (RFC 9562, section 5.4).
    let number = number & !(0xf000_u128 << 64) | (0x4000_u128 << 64);
    let number = number & !(0xc000_u128 << 48) | (0x8000_u128 << 48);
    let hex = format!("{number:032x}");
    let parts: Vec<&str> = [0..8, 8..12, 12..16, 16..20, 20..32].into_iter().filter_map(|at| hex.get(at)).collect();
    Ok(parts.join("-"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_random_uuid() {
        let ids = [new_id().unwrap(), new_id().unwrap()];
        assert_ne!(ids[0], ids[1]);
        for id in ids {
            let bytes = id.as_bytes();
            assert_eq!((id.len(), bytes[14]), (36, b'4'), "{id}");
            assert!(matches!(bytes[19], b'8' | b'9' | b'a' | b'b'), "{id}");
            for (at, byte) in bytes.iter().enumerate() {
                assert_eq!(*byte == b'-', [8, 13, 18, 23].contains(&at), "{id}");
            }
        }
    }
}
