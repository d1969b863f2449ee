//! Streaming calls that go on to a node: bytes pass both ways, as far as both peers have credit.

use std::collections::VecDeque;

use crate::api::outcome::ToNode;
use crate::base::id::{ConnId, StreamId};
use crate::base::slab::Key;
use crate::base::time::Instant;

use super::super::Server;
use super::super::links::Busy;
use super::{Kind, Source};

impl Server {
    pub(super) fn bridge(&mut self, now: Instant, key: Key, to_node: &ToNode, early: Vec<u8>) {
        let conns: Vec<ConnId> = self.nodes.of(&to_node.node_id).map(|(conn, _)| conn).collect();
        for conn in conns {
            let Some(Ok(stream)) = self.with_conn(now, conn, |now, c| c.open_streaming(now, &to_node.method)) else {
                continue;
            };
            self.set_busy(conn, stream, Some(Busy::Source(key)));
            if let Some(source) = self.sources.get_mut(key) {
                let argument = to_node.body.clone();
                let to_node = if early.is_empty() { VecDeque::new() } else { [(early.into(), 0)].into() };
                source.kind = Kind::Bridge { to: (conn, stream), acked: false, argument, to_node };
            }
            return;
        }
        self.refuse_stream(now, key, &to_node.no_path);
    }

    pub(in crate::server) fn on_stream_acked(&mut self, now: Instant, conn: ConnId, stream: StreamId, error: &str) {
        let Some(Busy::Source(key)) = self.busy(conn, stream) else { return };
        if !error.is_empty() {
            self.set_busy(conn, stream, None);
            return self.refuse_stream(now, key, error);
        }
        if let Some(Source { kind: Kind::Bridge { acked, argument, to_node, .. }, .. }) = self.sources.get_mut(key) {
            *acked = true;
            to_node.push_front((std::mem::take(argument), 0));
        }
        self.pump_to_node(now, key);
    }

    /// Passes on what the caller sent; it may send as much again.
    pub(super) fn pump_to_node(&mut self, now: Instant, key: Key) {
        let Some(source) = self.sources.get_mut(key) else { return };
        let (conn, stream) = (source.conn, source.stream);
        let Kind::Bridge { to, acked: true, to_node, .. } = &mut source.kind else { return };
        let to = *to;
        let mut waiting = std::mem::take(to_node);
        let sent = self.send_queue(now, to, &mut waiting);
        if let Some(Source { kind: Kind::Bridge { to_node, .. }, .. }) = self.sources.get_mut(key) {
            *to_node = waiting;
        }
        if sent > 0 {
            self.with_conn(now, conn, |now, c| c.consumed(now, stream, sent));
        }
    }
}
