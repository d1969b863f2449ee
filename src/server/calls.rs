//! A call from its arrival to its answer: routed, held, run, parked, proposed, or carried to a node.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use log::Level;

use crate::api::http::View;
use crate::api::outcome::{Finish, Outcome, Park, Reply, ReplyResult};
use crate::api::repeat::kept;
use crate::api::{self, Access, Caller, Method, Request, Weight};
use crate::base::id::{CallId, ConnId, StreamId};
use crate::base::metric::Id;
use crate::base::slab::Key;
use crate::base::time::Instant;
use crate::conn::{Answer, RpcCall};
use crate::consensus::Proposal;
use crate::wire::body::node_call::NodeSpecificRequest;
use crate::wire::body::query::{RouteFields, route_fields};
use crate::wire::body::session::WriteStamp;
use crate::wire::class::HEARTBEAT_NOT_RESET;
use crate::wire::entry::session::SessionStamp;
use crate::wire::msgpack::Msg;

use super::Server;
use super::audit::Written;
use super::forwarding::Elsewhere;
use super::links::Busy;
use super::lock_queue::Turn;
use super::park::{Place, Query};
use super::port::{Job, JobOutcome, Output, Work};
use super::route::{Decision, after_hold, route};
use super::run::panic_text;

/// A held request looks again after a random time below the hold timeout by this (Nomad's JitterFraction).
pub(super) const JITTER_FRACTION: u32 = 16;

/// With so few nodes a list is read faster than it is handed to another thread.
const SMALL_STATE_NODES: usize = 64;

/// Who waits for the answer.
#[derive(Clone, Copy, Debug)]
pub(super) enum Origin {
    Rpc { conn: ConnId, stream: StreamId, seq: u64 },
    Http { conn: ConnId, view: View },
}

/// One call.
pub(super) struct Call {
    pub(super) origin: Origin,
    pub(super) phase: Phase,
}

/// What a call is doing. The parked form is small; there may be many.
pub(super) enum Phase {
    Active(Box<Active>),
    Parked { place: Place, deadline: Instant },
}

/// A call that is being worked on.
pub(super) struct Active {
    pub(super) query: Query,
    pub(super) fields: RouteFields,
    pub(super) since: Instant,
    pub(super) last_run: bool,
    pub(super) step: Step,
    /// Its place in the line at a lock.
    pub(super) turn: Option<Box<Turn>>,
    /// The index of the state that its last run saw.
    pub(super) decided_at: u64,
    /// What became of its entry, for the audit log.
    pub(super) written: Option<Written>,
    /// Since when it waits for somebody to serve it; the hold timeout counts from here.
    pub(super) held_since: Option<Instant>,
    /// Until when its caller waits for a change, once that is settled.
    pub(super) until: Option<Instant>,
    /// How often it was lost at another server.
    pub(super) losses: u8,
    /// Another server has answered it.
    pub(super) carried: bool,
    /// It was run with all that was true when it came.
    pub(super) caught_up: bool,
    /// The place of a write in a session: its caller's, or one of this server's own.
    pub(super) stamp: Option<Arc<WriteStamp>>,
    /// An earlier try may have been applied.
    pub(super) unsure: bool,
}

impl Active {
    pub(super) fn new(since: Instant, query: Query, fields: RouteFields) -> Active {
        let step = Step::Running { seen: 0 };
        let stamp = fields.stamp.clone().filter(|_| query.method.takes_stamp());
        Active {
            query,
            fields,
            since,
            last_run: false,
            step,
            turn: None,
            decided_at: 0,
            written: None,
            held_since: None,
            until: None,
            losses: 0,
            carried: false,
            caught_up: false,
            stamp,
            unsure: false,
        }
    }
}

/// Where the work stands.
pub(super) enum Step {
    /// With a handler; every touch up to this index was seen before.
    Running { seen: u64 },
    /// Waiting for a leader.
    Held { next: Instant },
    /// Waiting until this replica holds all that is true now.
    CatchingUp { deadline: Instant },
    /// With another server, or on the way there.
    Elsewhere(Box<Elsewhere>),
    /// Waiting to learn which server a node is connected to.
    Asking { ask: u64 },
    /// Waiting for its entry to be applied.
    Proposing(Finish),
    /// Waiting for its turn at a lock.
    Queued { deadline: Instant },
    /// Waiting for a key to be on disk, and then in the log.
    MakingKey,
    /// Waiting for a node.
    AtNode { conn: ConnId, stream: StreamId, deadline: Instant },
}

impl Server {
    /// A call came by RPC.
    pub(super) fn on_call(&mut self, now: Instant, conn: ConnId, call: RpcCall) {
        let method = match api::method(&call.method) {
            Ok(method) => method,
            Err(unknown) => {
                self.metrics.count(Id::RpcRequestError);
                self.with_conn(now, conn, |now, c| {
                    c.reply(now, call.stream, call.seq, &call.method, Answer::LastError(&unknown.0));
                });
                return;
            }
        };
        let Some(caller) = self.caller_of(conn) else { return };
        let origin = Origin::Rpc { conn, stream: call.stream, seq: call.seq };
        let id = self.begin(now, origin, method, call.body.into(), call.base, caller);
        self.set_busy(conn, call.stream, Some(Busy::Call(id)));
        self.route_call(now, id);
    }

    /// Takes a call into the table.
    pub(super) fn begin(
        &mut self,
        now: Instant,
        origin: Origin,
        method: &'static Method,
        body: Arc<[u8]>,
        base: u64,
        caller: Arc<Caller>,
    ) -> CallId {
        self.metrics.count(Id::RpcRequest);
        // A body that cannot be read is refused by its handler, in the words of the decoder.
        let fields = match method.access {
            Access::Local => RouteFields::default(),
            _ => route_fields(&body, base)
                .unwrap_or_else(|_| RouteFields { region: self.settings.region.clone(), ..RouteFields::default() }),
        };
        let query = Query { method, body, base, caller };
        let active = Active::new(now, query, fields);
        CallId(self.calls.insert(Call { origin, phase: Phase::Active(Box::new(active)) }))
    }

    pub(super) fn active(&mut self, id: CallId) -> Option<&mut Active> {
        match self.calls.get_mut(id.0).map(|call| &mut call.phase) {
            Some(Phase::Active(active)) => Some(active),
            _ => None,
        }
    }

    /// Decides where a call is served, and does that.
    pub(super) fn route_call(&mut self, now: Instant, id: CallId) {
        let known = self.known_leader(now);
        let region = self.settings.region.clone();
        let acl_enabled = self.settings.acl_enabled;
        let Some(active) = self.active(id) else { return };
        let served = active.query.method.served(acl_enabled);
        if self.leader.diverged && served != Access::Local {
            // R8.18: nothing that this server holds is to be believed.
            let leader = self.leader.view();
            return self.answer_error(now, id, after_hold(leader));
        }
        let Some(active) = self.active(id) else { return };
        match route(served, &active.fields, &region, known) {
            Decision::Here => self.run_call(now, id),
            Decision::HereOnceCaughtUp => self.catch_up(now, id),
            Decision::Leader => self.forward_to_leader(now, id),
            Decision::Region => self.forward_to_region(now, id),
            Decision::Hold => self.hold(now, id),
            Decision::Refuse(text) => self.answer_error(now, id, text),
            Decision::NoPathToRegion => self.no_path_to_region(now, id),
        }
    }

    /// Keeps a call until there is a leader, up to the hold timeout (R1.69).
    pub(super) fn hold(&mut self, now: Instant, id: CallId) {
        let (timeout, leader) = (self.settings.hold_timeout, self.leader.view());
        let jitter = self.rng.jitter(timeout / JITTER_FRACTION);
        // Who stops in order has handed over: a leader that is known has only to become ready.
        let given_up = self.draining.is_some() && !self.known_leader(now).elsewhere;
        let Some(active) = self.active(id) else { return };
        let since = *active.held_since.get_or_insert(now);
        if now.since(since) >= timeout || given_up {
            self.answer_error(now, id, after_hold(leader));
            return;
        }
        let next = now + jitter;
        active.step = Step::Held { next };
        self.call_timers.set(next, id);
        if self.held.insert(id) {
            self.metrics.count(Id::Holds);
        }
    }

    /// A leader is there: everything held looks again.
    pub(super) fn retry_held(&mut self, now: Instant) {
        for id in std::mem::take(&mut self.held) {
            if let Some(Active { step: Step::Held { next }, .. }) = self.active(id) {
                let next = *next;
                self.call_timers.cancel(next, id);
                self.route_call(now, id);
            }
        }
    }

    /// Runs a call's handler: light ones now, heavy ones on the pool.
    pub(super) fn run_call(&mut self, now: Instant, id: CallId) {
        let (seen, decided_at) = (self.notified_index, self.root.load().index().0);
        self.held.remove(&id);
        let Some(active) = self.active(id) else { return };
        active.step = Step::Running { seen };
        active.decided_at = decided_at;
        let (query, last_run) = (active.query.clone(), active.last_run);
        if let Some(stamp) = self.stamp_for_here(now, id)
            && self.settle_by_session(now, id, &stamp)
        {
            return;
        }
        let heavy = self.is_heavy(&query);
        // An equal query waits: its last run found nothing newer, and nothing was touched since. A run of this one
        // would find the same.
        if heavy && !last_run && self.parked.has_idle(&query) {
            let Some(active) = self.active(id) else { return };
            let asked = u64::try_from(active.fields.max_query_time).unwrap_or(0);
            let keys = Vec::new();
            let park = Park { keys, max_query_time: Duration::from_nanos(asked), effects: Vec::new() };
            return self.park(now, id, park);
        }
        if matches!(query.method.access, Access::Read | Access::AnyServer) && !last_run {
            self.metrics.count(Id::RpcQuery);
        }
        self.ctx.stamp = self.active(id).and_then(|active| active.stamp.clone());
        if heavy {
            self.run_heavy(id, query, last_run);
            self.ctx.stamp = None;
        } else {
            let outcome = self.run_light(&query, last_run);
            self.ctx.stamp = None;
            self.on_outcome(now, id, outcome);
        }
    }

    /// Whether a run of the query belongs on the pool: it may read much, and there is much.
    pub(super) fn is_heavy(&self, query: &Query) -> bool {
        query.method.weight == Weight::Heavy && self.root.load().node_count() > SMALL_STATE_NODES
    }

    pub(super) fn run_light(&mut self, query: &Query, last_run: bool) -> Outcome {
        self.fresh_ctx(query.method.heartbeat);
        self.add_facts(query);
        let request =
            Request { method: query.method.name, body: &query.body, base: query.base, caller: &query.caller, last_run };
        let state = self.root.load();
        // Everything is shared and immutable here, so that a panic leaves nothing half done.
        let run = AssertUnwindSafe(|| (query.method.run)(&request, &state, &self.ctx));
        match catch_unwind(run) {
            Ok(outcome) => outcome,
            Err(payload) => {
                drop(state);
                self.metrics.count(Id::HandlerPanic);
                let text = panic_text(payload.as_ref());
                self.log(Level::Error, format!("a handler failed, please report this: {}: {text}", query.method.name));
                let result = ReplyResult::Error("internal error".to_owned());
                Outcome::Reply(Reply { result, effects: Vec::new() })
            }
        }
    }

    pub(super) fn run_heavy(&mut self, id: CallId, query: Query, last_run: bool) {
        self.fresh_ctx(query.method.heartbeat);
        let work = Work::Call { method: query.method, body: query.body, base: query.base, last_run };
        let job = Job { id, work, caller: query.caller, ctx: Arc::new(self.ctx.clone()) };
        self.output(Output::Run(job));
    }

    /// Adds what only the loop knows, for the methods that ask for it.
    fn add_facts(&mut self, query: &Query) {
        self.ctx.node_conn_established = None;
        self.ctx.connections = None;
        self.ctx.stats_json = None;
        match query.method.name {
            "Status.HasNodeConn" => {
                if let Ok(request) = NodeSpecificRequest::from_bytes(&query.body) {
                    let newest = self.nodes.of(&request.node_id).next();
                    self.ctx.node_conn_established = newest.map(|(_, established)| established);
                }
            }
            "Holdfast.LockRead" => self.ctx.lock_waiters = self.lock_waiters_of(&query.body),
            "Holdfast.AgentSelf" => self.ctx.stats_json = Some(self.stats_json()),
            "Holdfast.Connections" => self.ctx.connections = Some(Arc::new(self.list_links())),
            _ => {}
        }
    }

    /// A job came back from the pool.
    pub(super) fn on_ran(&mut self, now: Instant, job: CallId, outcome: JobOutcome) {
        let group = self.group_jobs.remove(&job);
        match (outcome, group) {
            (JobOutcome::Call(outcome), Some((group, seen))) => self.on_group_outcome(now, group, seen, outcome),
            (JobOutcome::Call(outcome), None) => self.on_outcome(now, job, outcome),
            (JobOutcome::Streaming(outcome), _) => self.on_stream_outcome(now, job, outcome),
            (JobOutcome::Shown(reply), _) => self.on_shown(now, job, reply),
            (JobOutcome::Resealed(batch), _) => self.on_resealed(now, batch),
            (JobOutcome::Unpacked(result), _) => self.on_unpacked(now, result),
            (JobOutcome::Digested { index, digest }, _) => self.on_digested(now, index, digest),
            (JobOutcome::Panicked(text), group) => {
                self.metrics.count(Id::HandlerPanic);
                self.log(Level::Error, format!("a handler failed, please report this: {text}"));
                self.fail_job(now, job, group, "internal error");
            }
            (JobOutcome::Overloaded, _) if self.is_show_job(job) => self.show_here(now, job),
            (JobOutcome::Overloaded, group) => {
                self.metrics.count(Id::HandlerOverload);
                self.fail_job(now, job, group, "server is overloaded: too many requests wait for a handler");
            }
        }
    }

    fn fail_job(&mut self, now: Instant, job: CallId, group: Option<(Key, u64)>, text: &str) {
        match group {
            Some((group, _)) => self.resolve_group(group, ReplyResult::Error(text.to_owned())),
            None if self.is_show_job(job) => self.fail_show_job(now, job, text),
            None if self.keys.is_job(job) => self.retry_resealing(now),
            None if self.is_restore_job(job) => self.on_unpacked(now, Err(text.to_owned())),
            // A streaming call has no entry among the calls: it ends with the error in its own wrapper.
            None if self.stream_jobs.contains_key(&job) => self.fail_stream_job(now, job, text),
            None => self.answer_error(now, job, text),
        }
    }

    pub(super) fn on_outcome(&mut self, now: Instant, id: CallId, outcome: Outcome) {
        match outcome {
            Outcome::Reply(reply) if self.leader_knows_better(now, id, &reply.result) => {
                self.forward_to_leader(now, id)
            }
            Outcome::Reply(reply) if self.may_be_behind(now, id, &reply.result) => self.catch_up(now, id),
            // Heartbeats can be made twice: whoever leads now sets the timer.
            Outcome::Reply(Reply { result: ReplyResult::Error(text), .. })
                if text == HEARTBEAT_NOT_RESET && !self.leader.view().is_self =>
            {
                self.hold(now, id);
            }
            Outcome::Reply(reply) => self.answer(now, id, reply),
            Outcome::Park(park) => self.park(now, id, park),
            Outcome::Propose { command, finish } => {
                if let Some(queue) = self.must_wait_its_turn(id, &finish) {
                    return self.queue(now, id, queue);
                }
                if self.lets_the_first_go_first(now, id, &finish) {
                    return;
                }
                if let Some(text) = self.refused_for_space() {
                    return self.answer_error(now, id, &text);
                }
                let Some(active) = self.active(id) else { return };
                let session = active.stamp.as_ref().map(|stamp| entry_stamp(stamp, &finish));
                active.step = Step::Proposing(finish);
                self.proposals.push(Proposal { id, session, command });
            }
            Outcome::ToNode(to_node) => self.call_node(now, id, &to_node),
            Outcome::Queue(queue) => self.queue(now, id, queue),
            Outcome::MakeKey { finish } => self.make_key(now, id, finish),
            Outcome::Cluster { change, reply } => self.change_cluster(now, id, change, *reply),
        }
    }

    // Time.

    /// A call's deadline is due.
    pub(super) fn on_call_due(&mut self, now: Instant, id: CallId) {
        enum Due {
            Parked,
            Held,
            Queued,
            AtNode,
            Elsewhere,
            Nothing,
        }
        let due = match self.calls.get(id.0).map(|call| &call.phase) {
            Some(Phase::Parked { deadline, .. }) if *deadline <= now => Due::Parked,
            Some(Phase::Active(active)) => match active.step {
                Step::Held { next } if next <= now => Due::Held,
                Step::CatchingUp { deadline } if deadline <= now => Due::Held,
                Step::Elsewhere(ref elsewhere) if elsewhere.deadline <= now => Due::Elsewhere,
                Step::Queued { deadline } if deadline <= now => Due::Queued,
                Step::AtNode { deadline, .. } if deadline <= now => Due::AtNode,
                _ => Due::Nothing,
            },
            _ => Due::Nothing,
        };
        match due {
            // R1.89: not an error, the last result; of whoever leads now.
            Due::Parked => {
                if self.unpark(now, id) {
                    self.route_call(now, id);
                }
            }
            Due::Held => self.route_call(now, id),
            Due::Elsewhere => self.on_elsewhere_due(now, id),
            Due::Queued => self.run_turn(now, id, true),
            Due::AtNode => {
                if let Some((conn, stream)) = self.leave_node(id) {
                    self.with_conn(now, conn, |now, c| c.reset(now, stream));
                    self.answer_error(now, id, "node did not answer in time");
                }
            }
            Due::Nothing => {}
        }
    }

    /// Whether a call waits for a change, or for its turn.
    pub(super) fn is_parked(&self, id: CallId) -> bool {
        match self.calls.get(id.0).map(|call| &call.phase) {
            Some(Phase::Parked { .. }) => true,
            Some(Phase::Active(active)) => matches!(active.step, Step::Queued { .. }),
            None => false,
        }
    }

    /// The caller is gone: nobody waits for the answer (R1.97).
    pub(super) fn abandon(&mut self, now: Instant, id: CallId) {
        self.unpark(now, id);
        self.leave_line(now, id);
        self.held.remove(&id);
        if let Some((conn, stream)) = self.leave_node(id) {
            self.with_conn(now, conn, |now, c| c.reset(now, stream));
        }
        self.leave_elsewhere(now, id);
        let timer = match self.active(id).map(|active| &active.step) {
            Some(Step::Held { next: at } | Step::CatchingUp { deadline: at }) => Some(*at),
            _ => None,
        };
        if let Some(at) = timer {
            self.call_timers.cancel(at, id);
        }
        if let Some(call) = self.calls.remove(id.0) {
            self.call_is_over(now, &call);
        }
    }

    /// Nobody waits for a call any more.
    pub(super) fn call_is_over(&mut self, now: Instant, call: &Call) {
        if let Phase::Active(active) = &call.phase
            && let Some(stamp) = active.stamp.as_ref().filter(|_| active.fields.stamp.is_none())
        {
            self.release_stamp(now, stamp);
        }
    }
}

/// A write's place in its session, as its entry carries it.
fn entry_stamp(stamp: &WriteStamp, finish: &Finish) -> SessionStamp {
    SessionStamp {
        session: stamp.id,
        sequence: stamp.sequence,
        acknowledged_below: stamp.acknowledged_below,
        finish: kept(finish),
        forgets_refusal: matches!(finish, Finish::VarApply(of) if !of.wait.is_zero()),
    }
}
