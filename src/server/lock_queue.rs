//! Callers that wait for their turn at a variable's lock, in the order of their arrival at this server (R8.28).
//!
//! The first of a line is run again when the lock is free, and the others go on waiting until it got its answer; so a
//! lock that is given back is asked for by one caller, not by all. Who calls without waiting races as before.
//!
//! **Invariant:** a call that is in a line has a place in it until it is answered or gone; of a line only the first is
//! ever run again before its deadline.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::api::outcome::{Finish, Queue};
use crate::base::id::CallId;
use crate::base::time::Instant;
use crate::wire::body::var::LockReadRequest;
use crate::wire::entry::var::VarOpKind;
use crate::wire::msgpack::Msg;

use super::Server;
use super::calls::{Active, Step};

/// Callers that may wait for locks, all together.
pub const MAX_LOCK_WAITERS: usize = 10_000;
/// Callers that may wait for the lock of one variable.
pub const MAX_LOCK_WAITERS_A_PATH: usize = 1_000;

/// A call whose time is over lets those before it have their turn for so long at most.
const OTHERS_TURN: Duration = Duration::from_secs(1);
/// It looks so often whether they had it.
const OTHERS_LOOK: Duration = Duration::from_millis(20);

/// A variable: its namespace and its path.
pub(super) type LockPlace = (Arc<str>, Arc<str>);

/// All lines.
#[derive(Default)]
pub(super) struct LockQueue {
    lines: BTreeMap<LockPlace, VecDeque<CallId>>,
    waiters: usize,
}

/// What a call keeps of its place, also while it is run again.
#[derive(Clone, Debug)]
pub(super) struct Turn {
    pub(super) place: LockPlace,
    pub(super) deadline: Instant,
}

impl LockQueue {
    /// Puts a call at the end of a line.
    ///
    /// # Errors
    /// The text for the caller, when a cap is reached.
    pub(super) fn enter(&mut self, place: &LockPlace, id: CallId) -> Result<(), String> {
        if self.waiters >= MAX_LOCK_WAITERS {
            let text = format!("too many callers wait for locks: {MAX_LOCK_WAITERS} is the limit");
            return Err(format!("RPC Error:: 429,{text}"));
        }
        let line = self.lines.entry(place.clone()).or_default();
        if line.len() >= MAX_LOCK_WAITERS_A_PATH {
            let text = format!("too many callers wait for this lock: {MAX_LOCK_WAITERS_A_PATH} is the limit");
            return Err(format!("RPC Error:: 429,{text}"));
        }
        line.push_back(id);
        self.waiters += 1;
        Ok(())
    }

    /// Takes a call out of its line.
    pub(super) fn leave(&mut self, place: &LockPlace, id: CallId) {
        let Some(line) = self.lines.get_mut(place) else { return };
        if let Some(at) = line.iter().position(|held| *held == id) {
            line.remove(at);
            self.waiters -= 1;
        }
        if line.is_empty() {
            self.lines.remove(place);
        }
    }

    /// The first in line.
    pub(super) fn first(&self, place: &LockPlace) -> Option<CallId> {
        self.lines.get(place).and_then(|line| line.front().copied())
    }

    /// How many wait at a variable.
    pub(super) fn waiters_at(&self, place: &LockPlace) -> usize {
        self.lines.get(place).map_or(0, VecDeque::len)
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiters
    }

    /// Everybody, line by line and in order.
    fn all(&self) -> Vec<CallId> {
        self.lines.values().flatten().copied().collect()
    }

    /// All variables with a line.
    fn places(&self) -> Vec<LockPlace> {
        self.lines.keys().cloned().collect()
    }
}

impl Server {
    /// The call waits for its turn; one that has a place already keeps it.
    pub(super) fn queue(&mut self, now: Instant, id: CallId, queue: Queue) {
        let most = self.settings.max_query_time;
        let draining = self.draining.is_some();
        let Some(active) = self.active(id) else { return };
        if active.last_run {
            // The handler was told not to wait.
            return self.answer_error(now, id, "internal error");
        }
        let decided_at = active.decided_at;
        if self.caller_has_gone(now, id) {
            return;
        }
        let Some(active) = self.active(id) else { return };
        let place = (queue.namespace, queue.path);
        let turn = match active.turn.as_deref() {
            Some(turn) if turn.place == place => turn.clone(),
            _ => {
                let turn = Turn { place: place.clone(), deadline: now + queue.wait.min(most) };
                self.leave_line(now, id);
                if let Err(text) = self.lock_queue.enter(&place, id) {
                    return self.answer_error(now, id, &text);
                }
                turn
            }
        };
        let deadline = turn.deadline;
        let Some(active) = self.active(id) else { return };
        active.turn = Some(Box::new(turn));
        active.step = Step::Queued { deadline };
        if draining || deadline <= now {
            return self.run_turn(now, id, true);
        }
        self.call_timers.set(deadline, id);
        // The lock may have been given back since it was looked at; who looked at it last is not asked again.
        if self.lock_queue.first(&place) != Some(id) || self.root.load().index().0 > decided_at {
            self.step_line(now, &place);
        }
    }

    /// Whether a call that is about to ask for a lock is to wait behind others who came before it.
    pub(super) fn must_wait_its_turn(&self, id: CallId, finish: &Finish) -> Option<Queue> {
        let Finish::VarApply(finish) = finish else { return None };
        if finish.kind != VarOpKind::LockAcquire || finish.wait.is_zero() || self.lock_queue.len() == 0 {
            return None;
        }
        let place = (Arc::clone(&finish.namespace), Arc::clone(&finish.path));
        let first = self.lock_queue.first(&place)?;
        // Who holds the lock renews it so, and must not wait for itself.
        let passes = first == id || !self.is_lock_free(&place);
        (!passes).then_some(Queue { namespace: place.0, path: place.1, wait: finish.wait })
    }

    /// A call whose time is over asks once more. When the lock is free just then, it is for whoever is first in line, and
    /// is asked for already: the call waits until that is settled, and is told how it stands then.
    pub(super) fn lets_the_first_go_first(&mut self, now: Instant, id: CallId, finish: &Finish) -> bool {
        let Finish::VarApply(finish) = finish else { return false };
        if finish.kind != VarOpKind::LockAcquire || self.draining.is_some() {
            return false;
        }
        let Some(turn) = self.active(id).and_then(|active| active.turn.clone()) else { return false };
        let is_first = self.lock_queue.first(&turn.place).is_none_or(|first| first == id);
        if is_first || !self.is_lock_free(&turn.place) || now >= turn.deadline + OTHERS_TURN {
            return false;
        }
        let deadline = now + OTHERS_LOOK;
        let Some(active) = self.active(id) else { return false };
        active.step = Step::Queued { deadline };
        self.call_timers.set(deadline, id);
        true
    }

    fn is_lock_free(&self, place: &LockPlace) -> bool {
        self.root.load().var(&place.0, &place.1).is_none_or(|var| var.lock.is_none())
    }

    /// The variable or its line has changed: the first in line has its turn if the lock is free.
    pub(super) fn step_line(&mut self, now: Instant, place: &LockPlace) {
        let Some(first) = self.lock_queue.first(place) else { return };
        if matches!(self.active(first), Some(Active { step: Step::Queued { .. }, .. })) && self.is_lock_free(place) {
            self.run_turn(now, first, false);
        }
    }

    /// These variables were written.
    pub(super) fn step_lines(&mut self, now: Instant, touched: &[LockPlace], everything: bool) {
        if self.lock_queue.len() == 0 {
            return;
        }
        if everything {
            for place in self.lock_queue.places() {
                self.step_line(now, &place);
            }
        }
        for place in touched {
            self.step_line(now, place);
        }
    }

    /// Runs a call that waits for its turn, from the start.
    pub(super) fn run_turn(&mut self, now: Instant, id: CallId, last: bool) {
        let Some(active) = self.active(id) else { return };
        let Step::Queued { deadline } = active.step else { return };
        active.last_run = last;
        self.call_timers.cancel(deadline, id);
        self.route_call(now, id);
    }

    /// The call is answered or gone: whoever is first now is looked at.
    pub(super) fn leave_line(&mut self, now: Instant, id: CallId) {
        let Some(active) = self.active(id) else { return };
        let Some(turn) = active.turn.take() else { return };
        if let Step::Queued { deadline } = active.step {
            self.call_timers.cancel(deadline, id);
        }
        self.lock_queue.leave(&turn.place, id);
        self.step_line(now, &turn.place);
    }

    /// This server leads no more: those who wait are held until somebody does, and keep their places.
    pub(super) fn reroute_lines(&mut self, now: Instant) {
        for id in self.lock_queue.all() {
            self.run_turn(now, id, false);
        }
    }

    /// The server is about to end: those who wait are told how it stands.
    pub(super) fn answer_all_lines(&mut self, now: Instant) {
        for id in self.lock_queue.all() {
            self.run_turn(now, id, true);
        }
    }

    /// How many wait for the lock that a request asks about.
    pub(super) fn lock_waiters_of(&self, body: &[u8]) -> u64 {
        let Ok(request) = LockReadRequest::from_bytes(body) else { return 0 };
        let namespace = match request.query.namespace.as_str() {
            "" => "default",
            other => other,
        };
        self.lock_queue.waiters_at(&(namespace.into(), request.path.as_str().into())) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(path: &str) -> LockPlace {
        ("default".into(), path.into())
    }

    // R8.28
    #[test]
    fn a_line_keeps_the_order_of_arrival() {
        let mut queue = LockQueue::default();
        for id in 1..=50 {
            queue.enter(&place("a"), CallId(id)).expect("there is room");
        }
        queue.enter(&place("b"), CallId(99)).expect("there is room");
        queue.leave(&place("a"), CallId(7));
        queue.leave(&place("a"), CallId(7));
        let mut order = Vec::new();
        while let Some(first) = queue.first(&place("a")) {
            order.push(first.0);
            queue.leave(&place("a"), first);
        }
        assert_eq!(order, (1..=50).filter(|id| *id != 7).collect::<Vec<_>>());
        assert_eq!((queue.len(), queue.lines.len(), queue.waiters_at(&place("b"))), (1, 1, 1));
    }

    #[test]
    fn lines_are_bounded_and_say_so() {
        let mut queue = LockQueue::default();
        for id in 0..MAX_LOCK_WAITERS_A_PATH as u64 {
            queue.enter(&place("a"), CallId(id)).expect("there is room");
        }
        let text = queue.enter(&place("a"), CallId(u64::MAX)).expect_err("full");
        assert!(text.contains("1000 is the limit"), "{text}");
        for id in MAX_LOCK_WAITERS_A_PATH as u64..MAX_LOCK_WAITERS as u64 {
            queue.enter(&place(&format!("p{}", id % 500)), CallId(id)).expect("there is room");
        }
        let text = queue.enter(&place("other"), CallId(u64::MAX)).expect_err("full");
        assert!(text.contains("10000 is the limit"), "{text}");
        assert_eq!((queue.len(), queue.first(&place("other"))), (MAX_LOCK_WAITERS, None));
    }
}
