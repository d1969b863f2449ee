//! What a leader does about time: it ends locks and tokens whose time is over, and gives every lock a grace when it
//! begins to lead.
//!
//! Timers follow the state: nothing is kept here but when to look again. That a lock ends is an entry like any other,
//! which names the lock's id: one that was renewed, given back or taken by somebody else meanwhile is left alone (R8.3).
//! All of it is in the log's time, which a calendar that is set does not disturb.

use std::time::Duration;

use crate::base::metric::Id;
use crate::base::time::{Instant, SteadyTime};
use crate::consensus::Resolution;
use crate::state::State;
use crate::wire::entry::Command;
use crate::wire::entry::var::LockName;

use super::Server;
use super::writing::Internal;

/// What a server that begins to lead adds to locks: none ends before so much time has passed, so that holders who
/// could not reach a leader can renew (R8.3). `holdfastd(8)` states it.
pub const LOCK_LEADER_GRACE: Duration = Duration::from_secs(10);
/// Names in one entry (R8.22).
const NAMES_AN_ENTRY: usize = 256;
/// Entries that end locks, on their way at once.
const ENTRIES_AT_ONCE: usize = 4;
/// Between two looks at locks that are due.
const LOCKS_PAUSE: Duration = Duration::from_millis(20);
/// Between two looks at tokens that are over, and after an entry that could not be written.
const LONG_PAUSE: Duration = Duration::from_secs(1);

/// When to look again, and what is on its way.
#[derive(Debug, Default)]
pub(super) struct Ends {
    time: SteadyTime,
    /// The next look; `None` while nothing can be due.
    next: Option<Instant>,
    locks_in_flight: usize,
    locks_not_before: Instant,
    tokens_in_flight: bool,
    tokens_not_before: Instant,
    grace: Grace,
}

/// Where the grace of this leadership stands. Nothing is ended before it is in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Grace {
    #[default]
    Wanted,
    InFlight,
    Given,
}

impl Ends {
    /// When to look again.
    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }
}

impl Server {
    /// Looks at what is due, and when it is next. Cheap when nothing is.
    pub(super) fn look_at_ends(&mut self, now: Instant) {
        self.ends.next = None;
        // Whether keys are there yet does not matter: nothing is sealed here.
        let known = &self.leader.known;
        if !known.is_self || !known.ready {
            self.ends.grace = Grace::Wanted;
            return;
        }
        let state = self.root.load_full();
        if self.ends.grace == Grace::Wanted {
            self.give_grace(now, &state);
        }
        let mut next: Vec<Instant> = self.ends.next.into_iter().collect();
        let (lock, token) = (state.next_lock_due(), state.next_token_expiry());
        if lock.is_none() && token.is_none() {
            return;
        }
        let follows = state.lock_count() == 0;
        let time = self.ends.time.read(now, self.wall, state.time_unix_nanos(), follows);
        let at = |due: i64| now + Duration::from_nanos(u64::try_from(due.saturating_sub(time)).unwrap_or(0));
        if let Some(due) = lock
            && self.ends.locks_in_flight == 0
            && self.ends.grace == Grace::Given
        {
            let at = at(due).max(self.ends.locks_not_before);
            if at <= now {
                self.end_locks(now, time, &state);
            }
            if self.ends.locks_in_flight == 0 {
                next.push(at.max(self.ends.locks_not_before));
            }
        }
        if let Some(due) = token
            && !self.ends.tokens_in_flight
        {
            let at = at(due).max(self.ends.tokens_not_before);
            if at <= now {
                self.end_tokens(now, time, &state);
            }
            if !self.ends.tokens_in_flight {
                next.push(at.max(self.ends.tokens_not_before));
            }
        }
        self.ends.next = next.into_iter().min();
    }

    /// The state was replaced, perhaps by one whose locks have long been over: who holds them may find them.
    pub(super) fn grace_again(&mut self) {
        if self.ends.grace == Grace::Given {
            self.ends.grace = Grace::Wanted;
        }
    }

    /// The look that was wanted is due.
    pub(super) fn on_ends_due(&mut self, now: Instant) {
        if self.ends.next.is_some_and(|at| at <= now) {
            self.look_at_ends(now);
        }
    }

    fn give_grace(&mut self, now: Instant, state: &State) {
        if state.lock_count() == 0 {
            self.ends.grace = Grace::Given;
        } else if now >= self.ends.locks_not_before {
            self.ends.grace = Grace::InFlight;
            let grace = i64::try_from(LOCK_LEADER_GRACE.as_nanos()).unwrap_or(i64::MAX);
            self.propose_internal(Command::LocksGrace { grace }, Internal::Grace);
        } else {
            self.ends.next = Some(self.ends.locks_not_before);
        }
    }

    fn end_locks(&mut self, now: Instant, time: i64, state: &State) {
        let due = state.locks_due(time, NAMES_AN_ENTRY * ENTRIES_AT_ONCE);
        self.ends.locks_not_before = now + LOCKS_PAUSE;
        for locks in due.chunks(NAMES_AN_ENTRY) {
            self.ends.locks_in_flight += 1;
            let command = Command::LocksExpire { locks: locks.to_vec() };
            self.propose_internal(command, Internal::LocksExpired(locks.to_vec()));
        }
    }

    fn end_tokens(&mut self, now: Instant, time: i64, state: &State) {
        let accessor_ids = state.tokens_expired(time, NAMES_AN_ENTRY);
        self.ends.tokens_not_before = now + LONG_PAUSE;
        // Who reads with one of them hears that it has ended, not that it is unknown.
        self.recheck_subscribers(now);
        if !accessor_ids.is_empty() {
            self.ends.tokens_in_flight = true;
            self.propose_internal(Command::AclExpireTokens { accessor_ids }, Internal::TokensExpired);
        }
    }

    pub(super) fn on_grace_resolved(&mut self, now: Instant, resolution: &Resolution) {
        if matches!(resolution, Resolution::Applied { .. }) {
            self.ends.grace = Grace::Given;
            self.metrics.count(Id::LockGraces);
        } else {
            self.ends.grace = Grace::Wanted;
            self.ends.locks_not_before = now + LONG_PAUSE;
        }
        self.look_at_ends(now);
    }

    pub(super) fn on_locks_resolved(&mut self, now: Instant, locks: &[LockName], resolution: &Resolution) {
        self.ends.locks_in_flight = self.ends.locks_in_flight.saturating_sub(1);
        if matches!(resolution, Resolution::Applied { .. }) {
            let state = self.root.load_full();
            let is_over = |name: &&LockName| {
                let lock = state.var(&name.namespace, &name.path).and_then(|var| var.lock.as_ref());
                lock.is_none_or(|lock| *lock.id != *name.lock_id)
            };
            let over = locks.iter().filter(is_over).count();
            self.metrics.add(Id::LocksExpired, over as u64);
        } else {
            self.ends.locks_not_before = now + LONG_PAUSE;
        }
        self.look_at_ends(now);
    }

    pub(super) fn on_tokens_resolved(&mut self, now: Instant) {
        self.ends.tokens_in_flight = false;
        self.look_at_ends(now);
    }
}
