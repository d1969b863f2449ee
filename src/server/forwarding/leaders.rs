//! Who leads, as far as it decides where calls go: what is taken back and what is moved when that changes.

use std::sync::Arc;

use crate::api::outcome::ReplyResult;
use crate::api::{self, Access};
use crate::base::id::CallId;
use crate::base::metric::Id;
use crate::base::time::Instant;
use crate::consensus;
use crate::wire::body::query::route_fields;

use super::super::Server;
use super::super::calls::Step;
use super::super::route::{Known, after_hold};

/// Parked queries that are moved to another leader in one step.
const MOVED_A_STEP: usize = 256;

impl Server {
    /// Who leads, at this moment, as far as it decides where a call goes.
    pub(in crate::server) fn known_leader(&self, now: Instant) -> Known {
        let view = self.leader.view();
        Known {
            here: view.is_self && view.ready && now < self.leader.lease,
            elsewhere: !view.is_self && self.leader_address().is_some(),
            applied: self.notified_index,
        }
    }

    /// The address of another server that leads; `None` when none is known to lead, or no server is known by its id
    /// (R1.68).
    pub(super) fn leader_address(&self) -> Option<Arc<str>> {
        let leader = self.leader.known.leader.filter(|id| *id != self.settings.replica)?;
        let entry = self.ctx.servers.iter().find(|server| server.replica == leader.0)?;
        (!entry.rpc_addr.is_empty()).then(|| entry.rpc_addr.as_str().into())
    }

    /// Nobody else leads before then. What was held because the last lease was over is served.
    pub(in crate::server) fn on_lease(&mut self, now: Instant, until: Instant) {
        let was_over = now >= self.leader.lease;
        self.leader.lease = until;
        if was_over && now < until && self.leader.view().is_self {
            self.retry_held(now);
        }
    }

    /// Who leads may have changed, or where.
    pub(in crate::server) fn on_leader_news(&mut self, now: Instant) {
        let view = self.leader.view();
        if !view.is_self {
            self.move_parked();
        }
        let leader = self.leader_address();
        if !view.is_self && leader.is_none() {
            return;
        }
        for id in self.forwarding.carried.clone() {
            self.take_back(now, id, leader.as_ref());
        }
        self.take_back_streams(now, leader.as_ref());
        self.retry_held(now);
    }

    /// Queries that were parked here while this server led go to whoever leads now: what they would be answered with
    /// here may be of the past (R1.89, R1.99).
    fn move_parked(&mut self) {
        for group in self.parked.all() {
            let Some(query) = self.parked.query(group) else { continue };
            let fields = route_fields(&query.body, query.base).unwrap_or_default();
            if matches!(query.method.access, Access::Read) && !fields.allow_stale && !fields.consistent {
                self.forwarding.moving.extend(self.parked.waiters_of(group));
            }
        }
    }

    /// Moves some of them: very many may wait.
    pub(super) fn step_moving(&mut self, now: Instant) {
        for _ in 0..MOVED_A_STEP {
            let Some(id) = self.forwarding.moving.pop_front() else { return };
            if self.unpark(now, id) {
                if let Some(active) = self.active(id) {
                    active.last_run = false;
                }
                self.metrics.count(Id::ForwardRetry);
                self.route_call(now, id);
            }
        }
    }

    /// Whether a read failed here for want of a key of the key ring, which the leader has: a server that has just
    /// started, or a key that is new.
    pub(in crate::server) fn leader_knows_better(&mut self, now: Instant, id: CallId, result: &ReplyResult) -> bool {
        let ReplyResult::Error(text) = result else { return false };
        if !api::lacks_a_key(text) || !self.known_leader(now).elsewhere {
            return false;
        }
        self.active(id).is_some_and(|active| active.query.method.access == Access::Read && !active.fields.hop)
    }

    /// Whether a call for a node failed here only because this replica may not hold the node yet: an agent that has just
    /// registered through this server can be called through it at once.
    pub(in crate::server) fn may_be_behind(&mut self, now: Instant, id: CallId, result: &ReplyResult) -> bool {
        let ReplyResult::Error(text) = result else { return false };
        if !text.contains("Unknown node") || !self.known_leader(now).elsewhere {
            return false;
        }
        self.active(id).is_some_and(|active| active.query.method.access == Access::AnyServer && !active.caught_up)
    }

    /// Asks for the moment at which this replica holds all that is true now; the call is run then.
    pub(in crate::server) fn catch_up(&mut self, now: Instant, id: CallId) {
        let (timeout, leader) = (self.settings.hold_timeout, self.leader.view());
        let draining = self.draining.is_some();
        let Some(active) = self.active(id) else { return };
        let since = *active.held_since.get_or_insert(now);
        let deadline = since + timeout;
        if now >= deadline || draining {
            return self.answer_error(now, id, after_hold(leader));
        }
        active.step = Step::CatchingUp { deadline };
        self.call_timers.set(deadline, id);
        self.to_consensus.push(consensus::Input::ReadIndex { id });
    }

    /// What this replica holds is as new as what the leader held when it was asked.
    pub(in crate::server) fn on_read_ready(&mut self, now: Instant, id: CallId, ok: bool) {
        let Some(active) = self.active(id) else { return };
        let Step::CatchingUp { deadline } = active.step else { return };
        if ok {
            (active.held_since, active.caught_up) = (None, true);
        }
        self.call_timers.cancel(deadline, id);
        if ok { self.run_call(now, id) } else { self.hold(now, id) }
    }
}
