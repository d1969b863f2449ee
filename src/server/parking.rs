//! Calls that wait for a change: parked, woken together, run once for all that are equal, answered in slices.

use crate::api::outcome::{Outcome, Park, ReplyResult};
use crate::base::id::{CallId, Index};
use crate::base::metric::Id;
use crate::base::slab::Key;
use crate::base::time::Instant;
use crate::state::watch::{Touched, WatchKey};
use crate::wire::body::query::route_fields;

use super::Server;
use super::calls::{Active, Call, JITTER_FRACTION, Origin, Phase, Step};
use super::park::Query;
use super::route::after_hold;

/// Answers given out in one step of a wake-up, so that other connections are served in between.
const ANSWERS_A_STEP: usize = 256;

/// Groups of parked queries run in one step of a wake-up, for the same reason.
const RUNS_A_STEP: usize = 64;

/// An answer for many.
pub(super) struct Fanout {
    query: Query,
    result: ReplyResult,
    waiters: std::vec::IntoIter<CallId>,
}

impl Server {
    pub(super) fn park(&mut self, now: Instant, id: CallId, park: Park) {
        let (max, default) = (self.settings.max_query_time, self.settings.default_query_time);
        let wait = if park.max_query_time.is_zero() { default } else { park.max_query_time }.min(max);
        // Jitter comes after the clamp (R1.92).
        let deadline = now + wait + self.rng.jitter(wait / JITTER_FRACTION);
        let draining = self.draining.is_some();
        let Some(active) = self.active(id) else { return };
        let Step::Running { seen } = active.step else { return };
        // One that comes from another leader goes on waiting for as long as it would have there.
        let deadline = active.until.unwrap_or(deadline);
        if draining || deadline <= now {
            active.last_run = true;
            return self.run_call(now, id);
        }
        let query = active.query.clone();
        if self.caller_has_gone(now, id) {
            return;
        }
        self.effects_for(now, id, park.effects);
        let Some(place) = self.parked.park(id, query, &park.keys, seen) else { return self.run_call(now, id) };
        if let Some(call) = self.calls.get_mut(id.0) {
            call.phase = Phase::Parked { place, deadline };
            self.call_timers.set(deadline, id);
        }
    }

    /// Whether the caller has said that it sends no more, which came before the call was to wait (R1.97): its
    /// connection is closed then.
    pub(super) fn caller_has_gone(&mut self, now: Instant, id: CallId) -> bool {
        let Some(Call { origin: Origin::Rpc { conn, .. } | Origin::Http { conn, .. }, .. }) = self.calls.get(id.0)
        else {
            return true;
        };
        let conn = *conn;
        if !self.has_peer_finished(conn) {
            return false;
        }
        self.with_conn(now, conn, |now, c| c.close(now));
        true
    }

    /// Takes a parked call out of its group, to be run alone.
    pub(super) fn unpark(&mut self, now: Instant, id: CallId) -> bool {
        let Some(Call { phase: Phase::Parked { place, deadline }, .. }) = self.calls.get(id.0) else { return false };
        let (place, deadline) = (*place, *deadline);
        self.call_timers.cancel(deadline, id);
        let query = self.parked.query(place.group).cloned();
        if let Some(moved) = self.parked.leave(place)
            && let Some(Call { phase: Phase::Parked { place: held, .. }, .. }) = self.calls.get_mut(moved.0)
        {
            held.at = place.at;
        }
        let Some(query) = query else { return false };
        if let Some(call) = self.calls.get_mut(id.0) {
            let fields = route_fields(&query.body, query.base).unwrap_or_default();
            let step = Step::Running { seen: self.notified_index };
            let active = Active { last_run: true, step, until: Some(deadline), ..Active::new(now, query, fields) };
            call.phase = Phase::Active(Box::new(active));
        }
        true
    }

    /// Runs some of the groups that were woken.
    pub(super) fn step_wakes(&mut self, now: Instant) {
        for _ in 0..RUNS_A_STEP {
            let Some(group) = self.woken.pop_front() else { return };
            self.run_group(now, group);
        }
    }

    fn run_group(&mut self, now: Instant, group: Key) {
        if !self.parked.start(group) {
            return;
        }
        let Some(query) = self.parked.query(group).cloned() else { return };
        self.metrics.count(Id::RpcQuery);
        let seen = self.notified_index;
        if self.is_heavy(&query) {
            self.next_group_job -= 1;
            let id = CallId(self.next_group_job);
            self.group_jobs.insert(id, (group, seen));
            self.run_heavy(id, query, false);
        } else {
            let outcome = self.run_light(&query, false);
            self.on_group_outcome(now, group, seen, outcome);
        }
    }

    pub(super) fn on_group_outcome(&mut self, now: Instant, group: Key, seen: u64, outcome: Outcome) {
        match outcome {
            Outcome::Park(park) => {
                if self.parked.wait_on(group, &park.keys, seen) {
                    self.run_group(now, group);
                }
            }
            Outcome::Reply(reply) => self.resolve_group(group, reply.result),
            Outcome::Propose { .. }
            | Outcome::ToNode(_)
            | Outcome::Queue(_)
            | Outcome::MakeKey { .. }
            | Outcome::Cluster { .. } => {
                self.resolve_group(group, ReplyResult::Error("internal error".to_owned()));
            }
        }
    }

    /// The answer of a group is known. Its waiters stay parked until it is their turn: to touch each of very many now
    /// would hold up whoever wrote.
    pub(super) fn resolve_group(&mut self, group: Key, result: ReplyResult) {
        let Some(query) = self.parked.query(group).cloned() else { return };
        let waiters = self.parked.resolve(group);
        self.metrics.add(Id::RpcQueryShared, waiters.len().saturating_sub(1) as u64);
        self.fanouts.push_back(Fanout { query, result, waiters: waiters.into_iter() });
    }

    /// Gives out some of the answers that many wait for.
    pub(super) fn step_fanouts(&mut self, now: Instant) {
        let mut left = ANSWERS_A_STEP;
        while let Some(mut fanout) = self.fanouts.pop_front() {
            for id in fanout.waiters.by_ref().take(left) {
                left -= 1;
                // Some may have gone since; their timers went with them.
                if let Some(Call { phase: Phase::Parked { deadline, .. }, .. }) = self.calls.get(id.0) {
                    let deadline = *deadline;
                    self.call_timers.cancel(deadline, id);
                    self.send_answer(now, id, Some(&fanout.query), &fanout.result);
                }
            }
            if fanout.waiters.len() > 0 {
                self.fanouts.push_front(fanout);
                return;
            }
        }
    }

    /// Everything parked answers with what there is, at the end.
    pub(super) fn answer_all_parked(&mut self, now: Instant) {
        for id in self.calls.keys().into_iter().map(CallId) {
            if self.unpark(now, id) {
                self.run_call(now, id);
            }
        }
        self.answer_all_lines(now);
        // Who stops in order has handed over: what waited for that goes to the next leader.
        if self.known_leader(now).elsewhere {
            return self.retry_held(now);
        }
        for id in std::mem::take(&mut self.held) {
            let leader = self.leader.view();
            self.answer_error(now, id, after_hold(leader));
        }
    }

    /// The entry at this index changed this.
    pub(super) fn on_touched(&mut self, now: Instant, index: Index, touched: &Touched) {
        self.notified_index = self.notified_index.max(index.0);
        let groups = self.parked.touch(touched, index.0);
        self.woken.extend(groups);
        self.step_lines(now, &touched.vars, touched.everything);
        if touched.everything {
            self.events.begin_anew(index.0);
            self.close_subscribers(now);
            self.grace_again();
        } else if touched.keys.contains(&WatchKey::acl()) {
            self.recheck_subscribers(now);
        }
    }
}
