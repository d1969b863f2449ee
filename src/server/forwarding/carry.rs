//! One call at another server: prepared, sent, and what becomes of it.

use std::sync::Arc;
use std::time::Duration;

use crate::api::Access;
use crate::api::outcome::{Effect, Reply, ReplyResult};
use crate::base::id::{CallId, ConnId, StreamId};
use crate::base::metric::Id;
use crate::base::time::Instant;
use crate::conn::Refusal;
use crate::conn::report::Cause;
use crate::forward::patch::{Patch, patched, text_at};
use crate::forward::retry::{self, Ended, Kind, LOST_AFTER_SENT, Next};
use crate::wire::class::{Class, NO_LEADER};

use super::super::Server;
use super::super::calls::{Active, JITTER_FRACTION, Step};
use super::stamps::Stamping;
use super::{Outgoing, Purpose};

/// A read that does not wait for a change is answered by another server within this and the hold timeout.
const READ_LIMIT: Duration = Duration::from_secs(30);
/// Added to the time that another server may make a query wait.
const SLACK: Duration = Duration::from_secs(5);
/// A server of another region that cannot be connected to by then is passed over.
const CONNECT_LIMIT: Duration = Duration::from_secs(11);
/// A node is known to whoever heard that it registered; so long a call of it waits for this server to hear it too.
const NODE_IS_NEW: Duration = Duration::from_secs(1);
/// A deposed leader has at least so long to settle a write that it was given.
const LEAST_PATIENCE: Duration = Duration::from_secs(1);
/// Losses after which a call goes over a connection that is dialled for it (R3.11).
const POOLED_TRIES: u8 = 2;
/// Losses after which a read is not held for another full hold timeout.
const MAX_LOSSES: u8 = 3;

/// A call that is with another server, or on the way there.
pub(in crate::server) struct Elsewhere {
    ticket: u64,
    to: Arc<str>,
    toward: Toward,
    sent: Option<(ConnId, StreamId)>,
    pub(in crate::server) deadline: Instant,
}

/// Why it goes there.
enum Toward {
    /// That server leads.
    Leader,
    /// It is of the region that was asked for; others of it, and why those before could not be reached.
    Region { rest: Vec<Arc<str>>, causes: Vec<String> },
    /// A node is connected to it.
    Node { no_path: String },
}

impl Server {
    /// The leader is to serve it.
    pub(in crate::server) fn forward_to_leader(&mut self, now: Instant, id: CallId) {
        match self.leader_address() {
            Some(address) => self.carry(now, id, address, Toward::Leader),
            None => self.hold(now, id),
        }
    }

    /// A server of the region that it names is to serve it (R1.64).
    pub(in crate::server) fn forward_to_region(&mut self, now: Instant, id: CallId) {
        let Some(region) = self.active(id).map(|active| active.fields.region.clone()) else { return };
        let mut rest = self.forwarding.regions.drawn(&region, &mut self.rng);
        let Some(first) = rest.pop() else { return self.no_path_to_region(now, id) };
        self.metrics.count_labelled(Id::RpcCrossRegion, &region);
        self.carry(now, id, first, Toward::Region { rest, causes: Vec::new() });
    }

    /// The server that a node is connected to is to serve it.
    pub(super) fn forward_to_node_owner(&mut self, now: Instant, id: CallId, to: Arc<str>, no_path: String) {
        self.carry(now, id, to, Toward::Node { no_path });
    }

    /// No server of its region is known.
    pub(in crate::server) fn no_path_to_region(&mut self, now: Instant, id: CallId) {
        let Some(active) = self.active(id) else { return };
        let (asked, method) = (active.fields.region.clone(), active.query.method.name);
        let text = format!("{}: region={asked:?} method={method}", Cause::Region.text());
        self.log_limited(now, Cause::Region, Cause::Region.level(), text);
        self.answer_error(now, id, "No path to region");
    }

    fn carry(&mut self, now: Instant, id: CallId, to: Arc<str>, toward: Toward) {
        self.held.remove(&id);
        let in_region = !matches!(toward, Toward::Region { .. });
        if matches!(toward, Toward::Leader) && self.can_be_stamped(id) {
            match self.stamp(now, true) {
                Stamping::Given(stamp) => {
                    if let Some(active) = self.active(id) {
                        active.stamp = Some(stamp);
                    }
                }
                Stamping::Waits => return self.hold(now, id),
                Stamping::Without => {}
            }
        }
        let proof = match in_region.then(|| self.proof_of(id)) {
            Some(Proof::Unknown) if self.is_fresh(now, id) => return self.hold(now, id),
            Some(Proof::Secret(secret)) => Some(secret),
            _ => None,
        };
        self.bind_early(now, id);
        let Some(body) = self.body_for(now, id, in_region, proof.as_deref()) else {
            // It cannot be read: the handler says so, in the words of the decoder.
            return self.run_call(now, id);
        };
        let (ticket, hold) = (self.forwarding.ticket(), self.settings.hold_timeout);
        let Some(active) = self.active(id) else { return };
        let deadline = match toward {
            Toward::Leader => *active.held_since.get_or_insert(now) + hold,
            Toward::Region { .. } | Toward::Node { .. } => now + CONNECT_LIMIT,
        };
        let (method, fresh) = (active.query.method.name.into(), active.losses >= POOLED_TRIES);
        let elsewhere = Elsewhere { ticket, to: Arc::clone(&to), toward, sent: None, deadline };
        active.step = Step::Elsewhere(Box::new(elsewhere));
        self.call_timers.set(deadline, id);
        self.forwarding.carried.insert(id);
        self.send_out(now, &to, Outgoing { purpose: Purpose::Call { id, ticket }, method, body, fresh });
    }

    /// The call's body as the other server is to get it.
    fn body_for(&mut self, now: Instant, id: CallId, hop: bool, proof: Option<&str>) -> Option<Arc<[u8]>> {
        let (max, default) = (self.settings.max_query_time, self.settings.default_query_time);
        let own_region = self.settings.region.clone();
        let active = self.active(id)?;
        let stamp = active.stamp.clone();
        let mut patch = Patch { forwarded: true, hop, auth_token: proof, stamp: stamp.as_deref(), ..Patch::default() };
        if active.fields.min_query_index > 0 {
            let asked = Duration::from_nanos(u64::try_from(active.fields.max_query_time).unwrap_or(0));
            let wait = if asked.is_zero() { default } else { asked }.min(max);
            let until = *active.until.get_or_insert(now + wait);
            // None at all would mean the default.
            let left = until.since(now).max(Duration::from_millis(1));
            patch.max_query_time = i64::try_from(left.as_nanos()).ok();
        }
        if active.fields.region.is_empty() {
            patch.region = Some(&own_region);
        }
        patched(&active.query.body, &patch).map(Arc::from)
    }

    // What becomes of it.

    pub(super) fn is_carried_as(&mut self, id: CallId, ticket: u64) -> bool {
        self.elsewhere(id).is_some_and(|elsewhere| elsewhere.ticket == ticket)
    }

    fn elsewhere(&mut self, id: CallId) -> Option<&mut Elsewhere> {
        match &mut self.active(id)?.step {
            Step::Elsewhere(elsewhere) => Some(elsewhere),
            _ => None,
        }
    }

    /// It was sent: from now on its own time limit counts.
    pub(super) fn on_carried(&mut self, now: Instant, id: CallId, at: (ConnId, StreamId)) {
        let (hold, max) = (self.settings.hold_timeout, self.settings.max_query_time);
        let Some(active) = self.active(id) else { return };
        let deadline = match active.until {
            Some(until) => until.max(now) + max / JITTER_FRACTION + hold + SLACK,
            None if is_repeatable(active.query.method.access) => now + hold + READ_LIMIT,
            // A write may wait for its turn at a lock, a call to a node for that node.
            None => now + hold + max,
        };
        let Some(elsewhere) = self.elsewhere(id) else { return };
        elsewhere.sent = Some(at);
        let before = std::mem::replace(&mut elsewhere.deadline, deadline);
        self.call_timers.cancel(before, id);
        self.call_timers.set(deadline, id);
    }

    /// It is with another server no longer; a stream that it is on still is reset.
    pub(in crate::server) fn leave_elsewhere(&mut self, now: Instant, id: CallId) -> Option<Elsewhere> {
        let active = self.active(id)?;
        if !matches!(active.step, Step::Elsewhere(_)) {
            return None;
        }
        let Step::Elsewhere(elsewhere) = std::mem::replace(&mut active.step, Step::Running { seen: 0 }) else {
            return None;
        };
        self.forwarding.carried.remove(&id);
        self.call_timers.cancel(elsewhere.deadline, id);
        if let Some((conn, stream)) = elsewhere.sent
            && self.take_flight(now, conn, stream).is_some()
        {
            self.with_conn(now, conn, |now, c| c.reset(now, stream));
        }
        Some(*elsewhere)
    }

    pub(super) fn on_carried_answer(
        &mut self,
        now: Instant,
        id: CallId,
        ticket: u64,
        result: Result<Box<[u8]>, Refusal>,
    ) {
        if !self.is_carried_as(id, ticket) {
            return;
        }
        match result {
            Ok(body) => {
                self.leave_elsewhere(now, id);
                self.metrics.count_labelled(Id::Forwarded, "ok");
                let Some(active) = self.active(id) else { return };
                active.carried = true;
                let effects = self.effects_of(id);
                self.answer(now, id, Reply { result: ReplyResult::Body(body.into()), effects });
            }
            Err(refusal) => {
                self.metrics.count_labelled(Id::Forwarded, "error");
                self.carried_ended(now, id, Ended::Error(&refusal.text, refusal.class));
            }
        }
    }

    pub(super) fn on_carried_lost(&mut self, now: Instant, id: CallId, ticket: u64) {
        if self.is_carried_as(id, ticket) {
            self.metrics.count_labelled(Id::Forwarded, "lost");
            self.carried_ended(now, id, Ended::Lost);
        }
    }

    pub(super) fn on_call_unsent(&mut self, now: Instant, id: CallId, ticket: u64, error: &str) {
        if self.is_carried_as(id, ticket) {
            self.metrics.count_labelled(Id::Forwarded, "unsent");
            self.unsent(now, id, error);
        }
    }

    /// Its time is over.
    pub(in crate::server) fn on_elsewhere_due(&mut self, now: Instant, id: CallId) {
        self.metrics.count_labelled(Id::Forwarded, "timeout");
        match self.elsewhere(id).map(|elsewhere| elsewhere.sent.is_some()) {
            Some(true) => self.carried_ended(now, id, Ended::TimedOut),
            Some(false) => self.unsent(now, id, "i/o timeout"),
            None => {}
        }
    }

    /// Not a byte of it has left.
    fn unsent(&mut self, now: Instant, id: CallId, error: &str) {
        let Some(elsewhere) = self.leave_elsewhere(now, id) else { return };
        match elsewhere.toward {
            Toward::Leader => self.hold(now, id),
            Toward::Node { no_path } => self.answer_error(now, id, &no_path),
            Toward::Region { mut rest, mut causes } => {
                causes.push(format!("{}: {error}", elsewhere.to));
                if let Some(next) = rest.pop() {
                    return self.carry(now, id, next, Toward::Region { rest, causes });
                }
                // R8.24: the log says where, the caller gets what peers would say.
                let region = self.active(id).map(|active| active.fields.region.clone()).unwrap_or_default();
                let text = format!("no server of a region can be reached: region={region} tried={causes:?}");
                self.log_limited(now, Cause::Region, log::Level::Warn, text);
                self.answer_error(now, id, &retry::no_connection(error));
            }
        }
    }

    /// It was sent, and came to no good end.
    fn carried_ended(&mut self, now: Instant, id: CallId, ended: Ended<'_>) {
        let hold = self.settings.hold_timeout;
        let Some(elsewhere) = self.leave_elsewhere(now, id) else { return };
        let Some(active) = self.active(id) else { return };
        let kind = kind_of(active);
        active.unsure |= kind == Kind::Stamped && ended.leaves_unsure();
        if let Ended::Error(text, Class::SessionExpired) = ended {
            return self.session_refused(now, id, text);
        }
        let next = match (retry::after(ended, kind), &elsewhere.toward) {
            // Another region, or a node's server, has held it already.
            (Next::Again, Toward::Region { .. } | Toward::Node { .. }) if ended != Ended::Lost => Next::Tell,
            (next, _) => next,
        };
        match next {
            Next::Again => {
                if ended == Ended::Lost {
                    active.losses = active.losses.saturating_add(1);
                    if active.losses <= MAX_LOSSES {
                        active.held_since = Some(now);
                    }
                }
                let too_late = active.held_since.is_some_and(|since| now.since(since) >= hold);
                let losses = active.losses;
                // Its time went by at a server that leads no longer: whoever leads now has not been asked yet.
                let leads_another = matches!(elsewhere.toward, Toward::Leader)
                    && (self.known_leader(now).here
                        || self.leader_address().is_some_and(|leader| leader != elsewhere.to));
                if too_late && leads_another && losses < MAX_LOSSES {
                    if let Some(active) = self.active(id) {
                        (active.losses, active.held_since) = (losses + 1, None);
                    }
                } else if too_late {
                    return self.answer_error(now, id, NO_LEADER);
                }
                self.metrics.count(Id::ForwardRetry);
                if ended == Ended::Lost {
                    self.metrics.count(Id::PoolRetry);
                }
                match elsewhere.toward {
                    // At once could be at the same server again, and again.
                    Toward::Leader | Toward::Node { .. } => self.hold(now, id),
                    Toward::Region { rest, mut causes } => {
                        causes.push(format!("{}: stream closed", elsewhere.to));
                        self.after_region_loss(now, id, (rest, elsewhere.to), causes);
                    }
                }
            }
            Next::Unknown if matches!(elsewhere.toward, Toward::Node { .. }) => {
                self.answer_error(now, id, &retry::told("connection to the node's server ended before it answered"));
            }
            Next::Unknown => {
                self.metrics.count(Id::OutcomeUnknown);
                self.answer_error(now, id, LOST_AFTER_SENT);
            }
            Next::Tell => {
                if let Ended::Error(text, class) = ended {
                    active.carried = true;
                    let result = ReplyResult::Error(retry::told(text));
                    self.send_answer_of(now, id, None, &result, class);
                } else {
                    let text = format!("no answer in time: {}", elsewhere.to);
                    self.answer_error(now, id, &retry::told(&text));
                }
            }
        }
    }

    /// A read was lost in another region: another server of it is asked, or the last one once more, over a connection
    /// made for it (R3.11).
    fn after_region_loss(
        &mut self,
        now: Instant,
        id: CallId,
        (mut rest, last): (Vec<Arc<str>>, Arc<str>),
        causes: Vec<String>,
    ) {
        let losses = self.active(id).map_or(MAX_LOSSES, |active| active.losses);
        match rest.pop() {
            Some(next) => self.carry(now, id, next, Toward::Region { rest, causes }),
            None if losses < MAX_LOSSES => self.carry(now, id, last, Toward::Region { rest, causes }),
            None => self.answer_error(now, id, &retry::told("stream closed")),
        }
    }

    /// Another server leads than the one that a call went to: what changes nothing, and what was not sent, is taken
    /// there; a write has a little time left to be answered by the old one.
    pub(super) fn take_back(&mut self, now: Instant, id: CallId, leader: Option<&Arc<str>>) {
        // Who was deposed and still runs settles what it has within an election's time; who is stopped says nothing.
        let patience = (self.settings.election_timeout * 2).max(LEAST_PATIENCE).min(self.settings.hold_timeout);
        let Some(active) = self.active(id) else { return };
        let repeatable = kind_of(active) != Kind::Write;
        let Step::Elsewhere(elsewhere) = &mut active.step else { return };
        if !matches!(elsewhere.toward, Toward::Leader) || leader == Some(&elsewhere.to) {
            return;
        }
        if repeatable || elsewhere.sent.is_none() {
            active.unsure |= active.stamp.is_some() && elsewhere.sent.is_some();
            active.held_since = None;
            self.leave_elsewhere(now, id);
            self.metrics.count(Id::ForwardRetry);
            return self.route_call(now, id);
        }
        let deadline = elsewhere.deadline.min(now + patience);
        let before = std::mem::replace(&mut elsewhere.deadline, deadline);
        self.call_timers.cancel(before, id);
        self.call_timers.set(deadline, id);
    }

    // Nodes whose calls are passed on.

    /// What speaks for a node that showed its SecretID on this connection and, as agents of the 1.1 line do, shows
    /// nothing with the call: the other server cannot know of the connection, so it is shown the secret.
    fn proof_of(&mut self, id: CallId) -> Proof {
        let Some(active) = self.active(id) else { return Proof::Needless };
        let Some(node_id) = active.query.caller.proven_node.clone() else { return Proof::Needless };
        let shows = text_at(&active.query.body, &["AuthToken"]).is_some_and(|token| !token.is_empty());
        if shows || !active.query.method.name.starts_with("Node.") {
            return Proof::Needless;
        }
        match self.root.load().node(&node_id) {
            Some(node) => Proof::Secret(node.secret_id.to_string()),
            None => Proof::Unknown,
        }
    }

    fn is_fresh(&mut self, now: Instant, id: CallId) -> bool {
        self.active(id).is_some_and(|active| now.since(active.since) < NODE_IS_NEW)
    }

    /// A query of a node waits long at the leader; it is known at once whose connection it is.
    fn bind_early(&mut self, now: Instant, id: CallId) {
        let Some(active) = self.active(id) else { return };
        if active.query.method.name != "Node.GetClientAllocs" || active.fields.forwarded {
            return;
        }
        let body = Arc::clone(&active.query.body);
        let Some(node_id) = text_at(&body, &["NodeID"]) else { return };
        let state = self.root.load_full();
        let Some(node) = state.node(node_id) else { return };
        let shown = |name: &str| text_at(&body, &[name]).is_some_and(|secret| secret == &*node.secret_id);
        if !node.secret_id.is_empty() && (shown("SecretID") || shown("AuthToken")) {
            let effects = vec![Effect::ProveNode(node.id.clone()), Effect::BindNode(node.id.clone())];
            self.effects_for(now, id, effects);
        }
    }

    /// What the leader's answer says of the connection that the call came by: it leads to the node (endpoint notes,
    /// 3.4).
    fn effects_of(&mut self, id: CallId) -> Vec<Effect> {
        let Some(active) = self.active(id) else { return Vec::new() };
        let path: &[&str] = match active.query.method.name {
            _ if active.fields.forwarded => return Vec::new(),
            "Node.Register" => &["Node", "ID"],
            "Node.UpdateStatus" => &["NodeID"],
            _ => return Vec::new(),
        };
        let Some(node_id) = text_at(&active.query.body, path).map(Arc::<str>::from) else { return Vec::new() };
        // A registration is taken only with the secret that belongs to the node.
        let proven = path.len() > 1;
        let prove = proven.then(|| Effect::ProveNode(Arc::clone(&node_id)));
        prove.into_iter().chain([Effect::BindNode(node_id)]).collect()
    }
}

/// What speaks for a caller.
enum Proof {
    /// What it shows itself, if anything.
    Needless,
    /// The secret of its node.
    Secret(String),
    /// Its node is not known here, yet.
    Unknown,
}

/// What making a call twice would do.
fn kind_of(active: &Active) -> Kind {
    match &active.stamp {
        _ if is_repeatable(active.query.method.access) => Kind::Read,
        Some(_) => Kind::Stamped,
        None => Kind::Write,
    }
}

/// Whether a call of this kind can be made twice.
fn is_repeatable(access: Access) -> bool {
    matches!(access, Access::Read | Access::LocalRegion | Access::Local)
}
