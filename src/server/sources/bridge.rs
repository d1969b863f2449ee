//! Streaming calls that go on to a node or another server: bytes pass both ways, as far as both peers have credit.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::api::outcome::ToNode;
use crate::base::id::{ConnId, StreamId};
use crate::base::slab::Key;
use crate::base::time::Instant;
use crate::forward::retry::{LOST_AFTER_SENT, told};
use crate::wire::msgpack::{Bytes, Msg};
use crate::wire::streaming::{StreamErrWrapper, StreamError};

use super::super::Server;
use super::super::links::Busy;
use super::{Kind, Source};

/// The other half of a stream. What waits is bounded by the windows of the two streams: bytes are credited only once
/// they were passed on.
pub(super) struct Bridge {
    /// The stream that leads on.
    pub(super) to: (ConnId, StreamId),
    acked: bool,
    argument: Arc<[u8]>,
    onward: VecDeque<(Arc<[u8]>, usize)>,
    /// For each piece of `onward` how many bytes it has, and how many the caller sent for it; none where they are the
    /// same.
    framed: Option<VecDeque<(usize, usize)>>,
    /// Bytes of the first of them that were sent.
    framed_sent: usize,
    /// The caller sends no more; the other side is to be told once all was passed on.
    finishing: bool,
    /// It leads to another server rather than to a node.
    to_server: bool,
    /// Whether anything came back.
    received: bool,
}

impl Bridge {
    fn new(to: (ConnId, StreamId), argument: Arc<[u8]>, to_server: bool) -> Bridge {
        Bridge {
            to,
            acked: false,
            argument,
            onward: VecDeque::new(),
            framed: None,
            framed_sent: 0,
            finishing: false,
            to_server,
            received: false,
        }
    }

    /// Takes bytes of the caller.
    fn take(&mut self, bytes: Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let Some(framed) = &mut self.framed else { return self.onward.push_back((bytes.into(), 0)) };
        let raw = bytes.len();
        let frame = StreamErrWrapper { error: None, payload: Some(Bytes(bytes)) }.to_bytes();
        framed.push_back((frame.len(), raw));
        self.onward.push_back((frame.into(), 0));
    }

    /// The caller sends no more.
    fn finish(&mut self) {
        if let Some(framed) = &mut self.framed
            && !self.finishing
        {
            let error = Some(StreamError { message: "EOF".to_owned(), code: None });
            let frame = StreamErrWrapper { error, payload: None }.to_bytes();
            framed.push_back((frame.len(), 0));
            self.onward.push_back((frame.into(), 0));
        }
        self.finishing = true;
    }

    /// So many bytes were sent on: how many of them the caller may send again.
    fn credit(&mut self, sent: usize) -> usize {
        let Some(framed) = &mut self.framed else { return sent };
        self.framed_sent += sent;
        let mut credit = 0;
        while let Some((frame, raw)) = framed.front()
            && *frame <= self.framed_sent
        {
            self.framed_sent -= frame;
            credit += raw;
            framed.pop_front();
        }
        credit
    }
}

impl Server {
    /// Has a streaming call run on a node, over its connection here or at another server.
    pub(super) fn bridge(&mut self, now: Instant, key: Key, to_node: &ToNode, early: Vec<u8>) {
        let conns: Vec<ConnId> = self.nodes.of(&to_node.node_id).map(|(conn, _)| conn).collect();
        for conn in conns {
            let Some(Ok(stream)) = self.with_conn(now, conn, |now, c| c.open_streaming(now, &to_node.method)) else {
                continue;
            };
            self.set_busy(conn, stream, Some(Busy::Source(key)));
            if let Some(source) = self.sources.get_mut(key) {
                let mut bridge = Bridge::new((conn, stream), to_node.body.clone(), false);
                bridge.take(early);
                source.kind = Kind::Bridge(Box::new(bridge));
            }
            return;
        }
        if let Some(Source { kind: Kind::Starting { early: kept, .. }, .. }) = self.sources.get_mut(key) {
            *kept = early;
        }
        self.no_node_here(now, key, to_node);
    }

    /// A stream to another server is open, which is to serve the call.
    pub(in crate::server) fn bridge_to_server(
        &mut self,
        now: Instant,
        key: Key,
        to: (ConnId, StreamId),
        argument: Arc<[u8]>,
    ) {
        let Some(source) = self.sources.get_mut(key) else {
            self.with_conn(now, to.0, |now, c| c.reset(now, to.1));
            return;
        };
        let Kind::Starting { early, finished, .. } = &mut source.kind else { return };
        let (early, finished) = (std::mem::take(early), *finished);
        let conn = source.conn;
        let mut bridge = Bridge::new(to, argument, true);
        // An upload by HTTP is the bare archive; between servers it comes in frames.
        let uploads = source.http.is_some() && source.method.name == "Operator.SnapshotRestore";
        bridge.framed = uploads.then(VecDeque::new);
        bridge.take(early);
        if finished {
            bridge.finish();
        }
        source.kind = Kind::Bridge(Box::new(bridge));
        self.set_busy(to.0, to.1, Some(Busy::Source(key)));
        if uploads {
            self.with_conn(now, conn, |now, c| c.http_continue(now));
        }
    }

    pub(in crate::server) fn on_stream_acked(&mut self, now: Instant, conn: ConnId, stream: StreamId, error: &str) {
        let Some(Busy::Source(key)) = self.busy(conn, stream) else { return };
        if !error.is_empty() {
            self.set_busy(conn, stream, None);
            return self.refuse_stream(now, key, error);
        }
        if let Some(Source { kind: Kind::Bridge(bridge), .. }) = self.sources.get_mut(key) {
            bridge.acked = true;
            let argument = std::mem::take(&mut bridge.argument);
            if let Some(framed) = &mut bridge.framed {
                framed.push_front((argument.len(), 0));
            }
            bridge.onward.push_front((argument, 0));
        }
        self.pump_to_node(now, key);
    }

    /// Bytes came on one of the two streams.
    pub(super) fn on_bridge_bytes(&mut self, now: Instant, key: Key, from_far: bool, bytes: Vec<u8>) {
        let Some(source) = self.sources.get_mut(key) else { return };
        let Kind::Bridge(bridge) = &mut source.kind else { return };
        if from_far {
            bridge.received = true;
            source.unsent.push_back((bytes.into(), 0));
            self.pump(now, key);
        } else {
            bridge.take(bytes);
            self.pump_to_node(now, key);
        }
    }

    /// The caller sends no more of what it uploads, and waits for the answer.
    pub(super) fn on_bridged_upload(&mut self, now: Instant, key: Key) {
        if let Some(Source { kind: Kind::Bridge(bridge), .. }) = self.sources.get_mut(key) {
            bridge.finish();
        }
        self.pump_to_node(now, key);
    }

    /// Passes on what the caller sent; it may send as much again.
    pub(super) fn pump_to_node(&mut self, now: Instant, key: Key) {
        let Some(source) = self.sources.get_mut(key) else { return };
        let (conn, stream) = (source.conn, source.stream);
        let Kind::Bridge(bridge) = &mut source.kind else { return };
        if !bridge.acked {
            return;
        }
        let to = bridge.to;
        let mut waiting = std::mem::take(&mut bridge.onward);
        let sent = self.send_queue(now, to, &mut waiting);
        let Some(Source { kind: Kind::Bridge(bridge), .. }) = self.sources.get_mut(key) else { return };
        bridge.onward = waiting;
        let (credit, over) = (bridge.credit(sent), bridge.finishing && bridge.onward.is_empty());
        if credit > 0 {
            self.with_conn(now, conn, |now, c| c.consumed(now, stream, credit));
        }
        if over {
            self.with_conn(now, to.0, |now, c| c.finish(now, to.1));
        }
    }

    /// The stream to another server was lost. Whoever has heard nothing yet is told so, in the words of its method.
    pub(super) fn far_end_is_lost(&mut self, now: Instant, key: Key, ended: (ConnId, StreamId)) -> bool {
        let Some(source) = self.sources.get(key) else { return false };
        let Kind::Bridge(bridge) = &source.kind else { return false };
        if !bridge.to_server || bridge.received || bridge.to != ended || source.ending {
            return false;
        }
        let restores = source.method.name == "Operator.SnapshotRestore";
        let text = if restores { LOST_AFTER_SENT.to_owned() } else { told("stream closed") };
        self.refuse_stream(now, key, &text);
        true
    }
}
