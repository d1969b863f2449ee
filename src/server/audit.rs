//! The audit log: a line for each write, and for each call or stream that its caller was not allowed (R8.15).
//!
//! Heartbeats and other writes that found nothing to do leave no entry and no line. What a line says of the request is
//! read by `api::audit`, which gives out no secret.

use std::fmt::Write as _;

use crate::api::outcome::ReplyResult;
use crate::api::{Access, Caller, audit};
use crate::base::id::Index;
use crate::base::metric::Id;
use crate::base::slab::Key;
use crate::state::ApplyResult;
use crate::state::var::VarOutcome;
use crate::wire::class::{LEADERSHIP_LOST, OUTCOME_UNKNOWN};

use super::Server;
use super::calls::{Call, Origin, Phase};
use super::park::Query;
use super::port::Output;

/// What became of a call's entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Written {
    index: u64,
    conflict: bool,
}

impl Written {
    /// Of what changed the cluster rather than the state.
    pub(super) fn at(index: Index) -> Written {
        Written { index: index.0, conflict: false }
    }

    pub(super) fn of(index: Index, result: &ApplyResult) -> Written {
        let conflict = match result {
            ApplyResult::NoMatch => true,
            ApplyResult::Vars(outcomes) => outcomes.iter().any(|one| matches!(one, VarOutcome::Conflict(_))),
            _ => false,
        };
        Written { index: index.0, conflict }
    }
}

/// What a line says beside who and what.
struct Told<'a> {
    method: &'a str,
    via: &'static str,
    body: &'a [u8],
    caller: &'a Caller,
    result: &'static str,
    error: &'a str,
    index: u64,
}

impl Server {
    /// A call is about to be answered.
    pub(super) fn audit_answer(&mut self, call: &Call, parked: Option<&Query>, result: &ReplyResult) {
        let error = match result {
            ReplyResult::Body(_) => "",
            ReplyResult::Error(text) | ReplyResult::BadArguments(text) => text.as_str(),
        };
        let refusal = audit::refusal(error);
        if let Some(reason) = refusal {
            self.metrics.count_labelled(Id::Refused, reason);
        }
        // Whoever served it has said so in its own log.
        let carried = matches!(&call.phase, Phase::Active(active) if active.carried);
        if !self.settings.audit || carried {
            return;
        }
        let (query, written) = match &call.phase {
            Phase::Active(active) => (&active.query, active.written),
            Phase::Parked { .. } => match parked {
                Some(query) => (query, None),
                None => return,
            },
        };
        // A sign of life is no write of anything.
        let is_sign = query.method.name == "Session.KeepAlive";
        let is_write = query.method.access == Access::Write && !is_sign && (written.is_some() || !error.is_empty());
        if !is_write && refusal.is_none() {
            return;
        }
        let result = match (error, written) {
            ("", Some(Written { conflict: true, .. })) => "conflict",
            ("", _) => "ok",
            (text, _) if text == LEADERSHIP_LOST || text.starts_with(OUTCOME_UNKNOWN) => "unknown",
            _ => "refused",
        };
        let via = match call.origin {
            Origin::Rpc { .. } => "rpc",
            Origin::Http { .. } => "http",
        };
        let index = written.map_or(0, |written| written.index);
        let (method, body) = (query.method.name, &query.body);
        self.audit_line(&Told { method, via, body, caller: &query.caller, result, error, index });
    }

    /// A streaming call is refused with this message.
    pub(super) fn audit_refused_stream(&mut self, key: Key, message: &[u8]) {
        // The text stands in the message as it is, whatever its wrapper.
        let message = String::from_utf8_lossy(message);
        let Some(reason) = audit::refusal(&message) else { return };
        self.metrics.count_labelled(Id::Refused, reason);
        if !self.settings.audit {
            return;
        }
        let Some((conn, via, method, body)) = self.starting_stream(key) else { return };
        let Some(caller) = self.caller_of(conn) else { return };
        let error = match reason {
            "permission denied" => "Permission denied",
            "token expired" => "ACL token expired",
            _ => "ACL token not found",
        };
        let told = Told { method, via, body: &body, caller: &caller, result: "refused", error, index: 0 };
        self.audit_line(&told);
    }

    fn audit_line(&mut self, told: &Told<'_>) {
        self.ctx.wall = self.wall;
        let subject = audit::subject(told.method, told.body, &self.root.load(), &self.ctx, told.caller);
        let mut line = String::with_capacity(256);
        line.push('{');
        text(&mut line, "time", &self.wall.rfc3339());
        text(&mut line, "region", &self.settings.region);
        text(&mut line, "server", &self.settings.name);
        text(&mut line, "method", told.method);
        text(&mut line, "operation", &subject.operation);
        text(&mut line, "via", told.via);
        text(&mut line, "peer", &told.caller.peer.to_string());
        let tls_name = told.caller.tls_names.as_deref().and_then(|names| names.first());
        text(&mut line, "tls_name", tls_name.map_or("", String::as_str));
        text(&mut line, "accessor", &subject.accessor);
        text(&mut line, "node_id", subject.node_id.as_deref().unwrap_or_default());
        text(&mut line, "namespace", &subject.namespace);
        if !subject.objects.is_empty() {
            let objects = serde_json::Value::from(subject.objects.clone());
            let _ = write!(line, ",\"objects\":{objects}");
        }
        if subject.more > 0 {
            let _ = write!(line, ",\"more_objects\":{}", subject.more);
        }
        text(&mut line, "result", told.result);
        text(&mut line, "error", &subject.without_secrets(told.error));
        if told.index > 0 {
            let _ = write!(line, ",\"index\":{}", told.index);
        }
        line.push('}');
        self.metrics.count(Id::AuditLines);
        self.output(Output::Audit(line));
    }
}

/// Adds a field; an empty one is left out.
fn text(line: &mut String, name: &str, value: &str) {
    if value.is_empty() {
        return;
    }
    if !line.ends_with('{') {
        line.push(',');
    }
    let _ = write!(line, "\"{name}\":{}", serde_json::Value::from(value));
}
