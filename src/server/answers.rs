//! Answers to calls, and what happens beside them.

use crate::api::Access;
use crate::api::outcome::{Effect, Reply, ReplyResult};
use crate::base::id::{CallId, ConnId, StreamId};
use crate::base::metric::Id;
use crate::base::time::Instant;
use crate::conn::Answer;
use crate::wire::class::Class;

use super::Server;
use super::calls::{Origin, Phase};
use super::park::Query;
use super::port::Output;
use super::writing::Internal;

impl Server {
    /// The server's own error, whose class its text tells. A write whose earlier try may have been applied was not
    /// refused by that.
    pub(super) fn answer_error(&mut self, now: Instant, id: CallId, text: &str) {
        let unsure = match self.active(id) {
            Some(active) if active.unsure && Class::of_text(text) != Class::OutcomeUnknown => {
                Some(Server::unsure_text(active.stamp.as_deref(), text))
            }
            _ => None,
        };
        if unsure.is_some() {
            self.metrics.count(Id::OutcomeUnknown);
        }
        let text = unsure.unwrap_or_else(|| text.to_owned());
        let class = Class::of_text(&text);
        self.send_answer_of(now, id, None, &ReplyResult::Error(text), class);
    }

    pub(super) fn answer(&mut self, now: Instant, id: CallId, reply: Reply) {
        self.effects_for(now, id, reply.effects);
        self.send_answer(now, id, None, &reply.result);
    }

    pub(super) fn effects_for(&mut self, now: Instant, id: CallId, effects: Vec<Effect>) {
        let Some(call) = self.calls.get(id.0) else { return };
        let (Origin::Rpc { conn, .. } | Origin::Http { conn, .. }) = call.origin;
        for effect in effects {
            self.on_effect(now, conn, effect);
        }
    }

    /// `parked` is for calls that were parked and do not know their query any more. An error is the handler's.
    pub(super) fn send_answer(&mut self, now: Instant, id: CallId, parked: Option<&Query>, result: &ReplyResult) {
        let class = match result {
            ReplyResult::Error(text) => Class::of_handler(text),
            _ => Class::Refused,
        };
        self.send_answer_of(now, id, parked, result, class);
    }

    /// The same, with the class of the error.
    pub(super) fn send_answer_of(
        &mut self,
        now: Instant,
        id: CallId,
        parked: Option<&Query>,
        result: &ReplyResult,
        class: Class,
    ) {
        self.held.remove(&id);
        self.leave_line(now, id);
        let Some(call) = self.calls.remove(id.0) else { return };
        self.call_is_over(now, &call);
        // Who shows one of our fields knows the other.
        let knows_us = match &call.phase {
            Phase::Active(active) => active.fields.hop || active.fields.stamp.is_some(),
            Phase::Parked { .. } => false,
        };
        self.audit_answer(&call, parked, result);
        let mut name = parked.map_or("", |query| query.method.name);
        if let Phase::Active(active) = &call.phase {
            name = active.query.method.name;
            let kind = match active.query.method.access {
                // The other server may have parked it.
                _ if active.carried => None,
                Access::Write => Some("write"),
                Access::AnyServer => Some("node"),
                Access::Local | Access::LocalRegion | Access::Read => Some("read"),
            };
            if let Some(kind) = kind {
                self.metrics.observe(Id::CallTime, kind, now.since(active.since));
            }
        }
        if matches!(result, ReplyResult::BadArguments(_)) {
            self.metrics.count(Id::RpcRequestError);
        }
        match call.origin {
            Origin::Rpc { conn, stream, seq } => {
                self.set_busy(conn, stream, None);
                self.with_conn(now, conn, |now, c| {
                    let answer = match result {
                        ReplyResult::Body(body) => Answer::Body(body),
                        ReplyResult::Error(text) if knows_us => Answer::Classed(text, class),
                        ReplyResult::Error(text) => Answer::Error(text),
                        ReplyResult::BadArguments(text) => Answer::LastError(text),
                    };
                    c.reply(now, stream, seq, name, answer);
                });
            }
            Origin::Http { conn, view } => {
                self.set_busy(conn, StreamId(0), None);
                let shared = matches!(call.phase, Phase::Parked { .. });
                self.http_answer(now, conn, view, result, shared);
            }
        }
    }

    fn on_effect(&mut self, now: Instant, conn: ConnId, effect: Effect) {
        match effect {
            Effect::ProveNode(node_id) => self.prove_node(conn, node_id),
            Effect::TokenIsGoodUntil(mark, until) => self.note_good_token(conn, (mark, until)),
            Effect::BindNode(node_id) => self.bind_node(conn, &node_id),
            Effect::ResetHeartbeat(node_id) => {
                if self.leader.view().is_self {
                    self.heartbeats.reset(now, &node_id, self.ctx.heartbeat_ttl);
                }
            }
            Effect::ClearHeartbeat(node_id) => self.heartbeats.clear(&node_id),
            Effect::Propose(command) => self.propose_internal(command, Internal::Other),
            Effect::Reload => self.output(Output::Reload),
            Effect::Reseal => self.start_resealing(),
            Effect::ForgetKey(key_id) => self.output(Output::ForgetKey { key_id }),
        }
    }
}
