//! Calls that are carried to a node over the connection that it dialled.

use std::time::Duration;

use crate::api::outcome::{Reply, ReplyResult, ToNode};
use crate::base::id::{CallId, ConnId, StreamId};
use crate::base::time::Instant;
use crate::conn::Refusal;

use super::Server;
use super::calls::Step;
use super::links::Busy;

/// A node that is called must have answered by then.
const NODE_CALL_TIMEOUT: Duration = Duration::from_secs(300);

/// The error of a call whose node went away.
pub(super) const NODE_LOST: &str = "connection to the node ended before it answered";

impl Server {
    pub(super) fn call_node(&mut self, now: Instant, id: CallId, to_node: &ToNode) {
        let conns: Vec<ConnId> = self.nodes.of(&to_node.node_id).map(|(conn, _)| conn).collect();
        for conn in conns {
            let opened = self.with_conn(now, conn, |now, c| c.call(now, &to_node.method, &to_node.body));
            if let Some(Ok(stream)) = opened {
                let deadline = now + NODE_CALL_TIMEOUT;
                let Some(active) = self.active(id) else { return };
                active.step = Step::AtNode { conn, stream, deadline };
                self.call_timers.set(deadline, id);
                self.set_busy(conn, stream, Some(Busy::NodeCall(id)));
                self.at_node += 1;
                return;
            }
        }
        // None here: another server may have one (R1.61).
        match self.active(id) {
            Some(active) if !active.fields.hop => self.ask_for_call(now, id, to_node),
            _ => self.answer_error(now, id, &to_node.no_path),
        }
    }

    /// The node answered, or its stream is gone.
    pub(super) fn on_node_answer(&mut self, now: Instant, id: CallId, result: Result<Box<[u8]>, Refusal>) {
        if self.leave_node(id).is_none() {
            return;
        }
        let result = match result {
            Ok(body) => ReplyResult::Body(body.into()),
            Err(refusal) => ReplyResult::Error(refusal.text),
        };
        self.answer(now, id, Reply { result, effects: Vec::new() });
    }

    /// A call waits for its node no longer.
    pub(super) fn leave_node(&mut self, id: CallId) -> Option<(ConnId, StreamId)> {
        let active = self.active(id)?;
        let Step::AtNode { conn, stream, deadline } = active.step else { return None };
        active.step = Step::Running { seen: 0 };
        self.call_timers.cancel(deadline, id);
        self.set_busy(conn, stream, None);
        self.at_node -= 1;
        Some((conn, stream))
    }
}
