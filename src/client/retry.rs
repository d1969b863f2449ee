//! What is made again, where, and when: by the class of each error, within the call's deadline.
//!
//! | class | a read | a write | a write in a session |
//! |---|---|---|---|
//! | not sent | again, 3 tries | again, 3 tries | again until the deadline |
//! | broken | again, 3 tries | never: outcome unknown | again until the deadline |
//! | not leader | at another server | at another server | at another server |
//! | leadership lost | - | never: outcome unknown | again until the deadline |
//! | refused, stale binding, session expired | never | never | never |
//!
//! Of three tries the first two may use a kept connection, and the last is made on one that was dialled for it
//! (R3.11). A server that cannot be dialled is passed over; that none can be is told at once, but for a session's
//! writes (R3.12). Source: requirements R2.1 to R2.13, R2.21, R3.9 to R3.12.

use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::base::rng::Rng;
use crate::client::Core;
use crate::client::counters::add;
use crate::client::error::{Class, Error};

/// Connections that a call is tried on (R3.11); the last is dialled for it.
const TRIES: u32 = 3;

/// The first pause between two rounds of tries; each is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(25);
/// The longest.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What a second try would mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It changes nothing.
    Read,
    /// It must not be made a second time once it may have been carried out.
    Write,
    /// Carried out once at most, however often it is sent.
    Repeatable,
}

/// What ended a call that has no reply.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) error: Error,
    /// One of the tries may have been carried out.
    pub(crate) may_be_done: bool,
}

/// Pauses that grow, each somewhere between its half and its whole.
pub(crate) struct Pauses<'a> {
    rng: &'a Mutex<Rng>,
    next: Duration,
}

impl<'a> Pauses<'a> {
    pub(crate) fn new(rng: &'a Mutex<Rng>) -> Pauses<'a> {
        Pauses { rng, next: FIRST_PAUSE }
    }

    /// Waits; false when that would be too long for the deadline.
    pub(crate) fn wait(&mut self, deadline: Instant) -> bool {
        let half = self.next / 2;
        let pause = half + self.rng.lock().unwrap_or_else(PoisonError::into_inner).jitter(half);
        self.next = (self.next * 2).min(LONGEST_PAUSE);
        if deadline.saturating_duration_since(Instant::now()) <= pause {
            return false;
        }
        thread::sleep(pause);
        true
    }
}

/// One call with all its tries.
struct Course<'a> {
    core: &'a Core,
    kind: Kind,
    deadline: Instant,
    /// The address that is tried next.
    at: usize,
    /// Connections that were lost in this round.
    lost: u32,
    /// Servers that said that they do not lead.
    leaderless: usize,
    pauses: Pauses<'a>,
}

impl Core {
    /// Makes a call; `body` gives the request anew for each try, and `None` when there is no sense in another.
    ///
    /// # Errors
    /// That of the last try.
    pub(crate) fn perform(
        &self,
        method: &str,
        kind: Kind,
        deadline: Instant,
        body: &mut dyn FnMut() -> Option<Vec<u8>>,
    ) -> Result<Vec<u8>, Failed> {
        let at = self.preferred.load(Ordering::Relaxed);
        let pauses = Pauses::new(&self.rng);
        let mut course = Course { core: self, kind, deadline, at, lost: 0, leaderless: 0, pauses };
        let mut failed = Failed { error: Error::Deadline { sent: false }, may_be_done: false };
        while let Some(body) = body() {
            match course.attempt(method, &body) {
                Ok(body) => return Ok(body),
                Err((error, reached)) => {
                    self.counters.error(error.class());
                    let may_be_done = failed.may_be_done || !error.class().surely_not_applied();
                    failed = Failed { error, may_be_done };
                    if !course.goes_on(&failed.error, reached) {
                        break;
                    }
                }
            }
        }
        Err(failed)
    }
}

/// What a try had come to: the address, and whether its connection had been used before.
type Reached = Option<(usize, bool)>;

impl Course<'_> {
    /// One try on one connection.
    fn attempt(&mut self, method: &str, body: &[u8]) -> Result<Vec<u8>, (Error, Reached)> {
        let fresh = self.lost >= TRIES - 1;
        if fresh {
            add(&self.core.counters.fresh);
        }
        let (mut lease, at) = self.core.pool.take(self.at, fresh, self.deadline).map_err(|error| (error, None))?;
        let reached = Some((at, lease.is_used));
        let seq = self.core.last_seq.fetch_add(1, Ordering::Relaxed) + 1;
        let Some(link) = lease.link() else { return Err((Error::NotSent("no connection".to_owned()), reached)) };
        let ended = link.call(method, body, seq, self.deadline);
        lease.give_back(ended.discard);
        if let Err(Error::Malformed(what)) = &ended.outcome {
            log::warn!("an answer to {method} cannot be read, closing the connection: {what}");
        }
        if ended.outcome.is_ok() {
            self.core.preferred.store(at, Ordering::Relaxed);
        }
        ended.outcome.map_err(|error| (error, reached))
    }

    /// Whether there is to be another try, after the pause that it needs.
    fn goes_on(&mut self, error: &Error, reached: Reached) -> bool {
        let class = error.class();
        if !class.may_try_again(self.kind != Kind::Write) || Instant::now() >= self.deadline {
            return false;
        }
        log::debug!("trying again: {class}: {error}");
        match (error, class) {
            (Error::Deadline { .. } | Error::System(_), _) => false,
            (Error::Connect { .. }, _) => self.kind == Kind::Repeatable && self.pauses.wait(self.deadline),
            (_, Class::NotSent | Class::Broken) => self.on_lost(reached),
            _ => self.on_leaderless(reached),
        }
    }

    fn on_lost(&mut self, reached: Reached) -> bool {
        self.lost += 1;
        if let Some((at, is_used)) = reached {
            // That a kept connection is bad says nothing about the server behind it.
            self.at = self.other(at, !is_used);
        }
        if self.lost < TRIES {
            add(&self.core.counters.retry);
            return true;
        }
        self.lost = 0;
        self.kind == Kind::Repeatable && self.pauses.wait(self.deadline)
    }

    fn on_leaderless(&mut self, reached: Reached) -> bool {
        self.leaderless += 1;
        if let Some((at, _)) = reached {
            self.at = self.other(at, true);
        }
        if !self.leaderless.is_multiple_of(self.core.pool.addresses().len().max(1)) {
            return true;
        }
        let patient = self.core.settings.waits_for_leader || self.kind == Kind::Repeatable;
        patient && self.pauses.wait(self.deadline)
    }

    fn other(&self, at: usize, is_wanted: bool) -> usize {
        (at + usize::from(is_wanted)) % self.core.pool.addresses().len().max(1)
    }
}
