//! Connections: driven, counted, and taken apart when they end. Who is let in is in `entrance`.
//!
//! One file over five hundred lines: every kind of thing that a connection can be busy with is let go of in one place.

mod entrance;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use log::Level;

use crate::api::Caller;
use crate::base::id::{CallId, ConnId, StreamId};
use crate::base::metric::Id;
use crate::base::slab::Key;
use crate::base::time::Instant;
use crate::conn::report::{Cause, Report};
use crate::conn::{Conn, Event, Protocol};
use crate::wire::body::operator::{ConnectionStub, ConnectionsResponse};
use crate::wire::first_byte::FirstByte;

use super::Server;
use super::admit::Place;
use super::node_calls::NODE_LOST;
use super::port::{Listener, Output};

/// What goes on on a stream, and who is to be told when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Busy {
    /// A call is being worked on.
    Call(CallId),
    /// A streaming call, or what it is bridged to.
    Source(Key),
    /// A call of ours to the peer.
    NodeCall(CallId),
    /// A call that was passed on to another server.
    Forward(CallId),
}

/// How a connection came about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Via {
    /// Somebody dialled us.
    Accepted(Listener),
    /// We dialled this address for raft.
    Raft(Arc<str>),
    /// We dialled this address for calls and streams.
    Pool(Arc<str>),
}

/// One connection and what this server keeps of it.
pub(super) struct Link {
    id: ConnId,
    via: Via,
    peer: SocketAddr,
    conn: Conn,
    caller: Arc<Caller>,
    node: Option<Arc<str>>,
    busy: BTreeMap<StreamId, Busy>,
    timer: Option<Instant>,
    reading: bool,
    /// Where it is counted; one that we dialled is not.
    place: Option<Place>,
    streaming_place: bool,
}

impl Link {
    fn new(id: ConnId, via: Via, peer: SocketAddr, conn: Conn, place: Option<Place>) -> Link {
        Link {
            id,
            via,
            peer,
            conn,
            caller: Arc::new(Caller { peer, tls_names: None, proven_node: None, good_token: None }),
            node: None,
            busy: BTreeMap::new(),
            timer: None,
            reading: true,
            place,
            streaming_place: false,
        }
    }

    fn carries_raft(&self) -> bool {
        matches!(self.via, Via::Raft(_)) || self.conn.protocol() == Protocol::Rpc(FirstByte::Raft)
    }

    /// Nothing goes on on a stream any more. An empty map of the standard library keeps its last node: that is given
    /// back, since most connections are idle most of the time.
    fn take_busy(&mut self, stream: StreamId) -> Option<Busy> {
        let taken = self.busy.remove(&stream);
        if self.busy.is_empty() {
            self.busy = BTreeMap::new();
        }
        taken
    }
}

/// What a connection that is over still has to send.
pub(super) enum Closing {
    Bytes(Vec<u8>, usize),
    Conn(Box<Conn>),
}

impl Closing {
    fn to_send(&self) -> &[u8] {
        match self {
            Closing::Bytes(bytes, sent) => bytes.get(*sent..).unwrap_or(&[]),
            Closing::Conn(conn) => conn.to_send(),
        }
    }

    fn sent(&mut self, now: Instant, count: usize) {
        match self {
            Closing::Bytes(_, sent) => *sent += count,
            Closing::Conn(conn) => conn.sent(now, count),
        }
    }
}

/// Connections in one list of them.
const LISTED_LINKS_MAX: usize = 10_000;

impl Server {
    fn link(&mut self, id: ConnId) -> Option<&mut Link> {
        let slot = (id.0 & 0xffff_ffff) as usize;
        self.links.get_mut(slot)?.as_deref_mut().filter(|link| link.id == id)
    }

    /// How many connections are open.
    pub(super) fn link_count(&self) -> usize {
        self.open_links
    }

    /// Open connections but those that carry raft.
    pub(super) fn other_links(&self) -> usize {
        self.links.iter().flatten().filter(|link| !link.carries_raft()).count()
    }

    /// Whether a connection carries raft.
    pub(super) fn carries_raft(&mut self, id: ConnId) -> bool {
        self.link(id).is_some_and(|link| link.carries_raft())
    }

    /// All open connections.
    pub(super) fn link_ids(&self) -> Vec<ConnId> {
        self.links.iter().flatten().map(|link| link.id).collect()
    }

    fn keep_link(&mut self, id: ConnId, link: Link) {
        let slot = (id.0 & 0xffff_ffff) as usize;
        if slot >= self.links.len() {
            self.links.resize_with(slot + 1, || None);
        }
        self.links[slot] = Some(Box::new(link));
        self.open_links += 1;
    }

    /// A connection that we dialled.
    pub(super) fn adopt(&mut self, now: Instant, id: ConnId, via: Via, peer: SocketAddr, conn: Conn) {
        self.keep_link(id, Link::new(id, via, peer, conn, None));
        self.settle(now, id);
    }

    /// Works on a connection, then takes what came of it. `None` when it is gone.
    pub(super) fn with_conn<R>(
        &mut self,
        now: Instant,
        id: ConnId,
        work: impl FnOnce(Instant, &mut Conn) -> R,
    ) -> Option<R> {
        let link = self.link(id)?;
        let result = work(now, &mut link.conn);
        self.unsettled.push(id);
        Some(result)
    }

    /// Bytes came, or the end of them.
    pub(super) fn drive(&mut self, now: Instant, id: ConnId, work: impl FnOnce(Instant, &mut Conn)) {
        if self.with_conn(now, id, work).is_some() {
            self.settle(now, id);
        }
    }

    /// The peer sends no more. A call in hand is still answered, since `nc -N` closes its half at once; one that is
    /// parked, or a reply without an end, is not worth a place for minutes: whoever closed has gone, as far as can be told (R1.97).
    pub(super) fn on_eof(&mut self, now: Instant, id: ConnId) {
        self.drive(now, id, |now, c| c.handle_eof(now));
        let endless = match self.busy(id, StreamId(0)) {
            Some(Busy::Call(call)) => self.is_parked(call),
            Some(Busy::Source(key)) => self.is_endless_reply(key),
            _ => false,
        };
        if endless {
            self.drive(now, id, |now, c| c.close(now));
        }
    }

    /// Whether the peer has said that it sends no more.
    pub(super) fn has_peer_finished(&mut self, id: ConnId) -> bool {
        self.link(id).is_some_and(|link| link.conn.peer_finished())
    }

    /// Settles every connection that was worked on.
    pub(super) fn settle_all(&mut self, now: Instant) {
        while let Some(id) = self.unsettled.pop() {
            self.settle(now, id);
        }
    }

    /// Takes a connection's events, then sees to its deadline, its reading and what it has to send.
    fn settle(&mut self, now: Instant, id: ConnId) {
        while let Some(link) = self.link(id) {
            match link.conn.poll_event() {
                Some(Event::Closed) => return self.on_closed(now, id, true),
                Some(event) => self.on_event(now, id, event),
                None => break,
            }
        }
        let Some(link) = self.link(id) else { return };
        let (timer, old, peer_reads) = (link.conn.poll_timeout(), link.timer, link.conn.wants_read());
        let (has_bytes, was_reading) = (!link.conn.to_send().is_empty(), link.reading);
        link.timer = timer;
        link.reading = peer_reads;
        if timer != old {
            if let Some(at) = old {
                self.conn_timers.cancel(at, id);
            }
            if let Some(at) = timer {
                self.conn_timers.set(at, id);
            }
        }
        if peer_reads != was_reading {
            self.output(Output::Read { conn: id, on: peer_reads });
        }
        if has_bytes {
            self.output(Output::Flush(id));
        }
    }

    /// A connection's deadline, set to `at`, is due.
    pub(super) fn on_conn_due(&mut self, now: Instant, id: ConnId, at: Instant) {
        if let Some(link) = self.link(id)
            && link.timer == Some(at)
        {
            link.timer = None;
        }
        self.drive(now, id, |now, c| c.handle_timeout(now));
    }

    fn on_event(&mut self, now: Instant, id: ConnId, event: Event) {
        match event {
            Event::Protocol(protocol) => self.on_protocol(now, id, protocol),
            Event::Proxied(client) => self.on_proxied(now, id, client),
            Event::Secured(certificate) => self.on_secured(now, id, certificate.as_deref()),
            Event::Call(call) => self.on_call(now, id, call),
            Event::Streaming { stream, method } => self.on_streaming(now, id, stream, &method),
            Event::Argument { stream, body, base } => self.on_argument(now, id, stream, body, base),
            Event::Bytes { stream, bytes } => self.on_stream_bytes(now, id, stream, bytes),
            Event::Finished(stream) => self.on_stream_finished(now, id, stream),
            Event::Gone(stream) => self.on_stream_gone(now, id, stream),
            Event::Writable(stream) => self.on_stream_writable(now, id, stream),
            Event::Answer { stream, result } => match self.busy(id, stream) {
                Some(Busy::NodeCall(call)) => self.on_node_answer(now, call, result),
                Some(Busy::Forward(call)) => self.on_forward_answer(now, id, stream, call, result),
                _ => {}
            },
            Event::Acked { stream, error } => self.on_stream_acked(now, id, stream, &error),
            Event::Http(request) => self.on_http(now, id, request),
            Event::Report(report) => self.on_report(now, id, report),
            Event::Raft(frame) => self.on_raft_frame(now, id, *frame),
            Event::Ready => match self.via(id) {
                Some(Via::Raft(address)) => self.on_raft_ready(now, id, &address),
                Some(Via::Pool(address)) => self.on_pool_ready(now, id, &address),
                Some(Via::Accepted(_)) | None => {}
            },
            Event::Lost { stream, written } => match self.link(id).and_then(|link| link.take_busy(stream)) {
                Some(Busy::Forward(_)) => self.on_call_lost(now, id, stream, written),
                Some(busy) => self.end_busy(now, id, stream, busy),
                None => {}
            },
            Event::Closed => {}
        }
    }

    fn on_protocol(&mut self, now: Instant, id: ConnId, protocol: Protocol) {
        match protocol {
            Protocol::Rpc(FirstByte::Raft) => {
                let Some(peer) = self.link(id).map(|link| link.peer) else { return };
                self.metrics.count(Id::RpcRaftHandoff);
                self.on_raft_accepted(now, id, peer);
            }
            Protocol::Rpc(FirstByte::Streaming) => self.admit_streaming(now, id),
            _ => {}
        }
    }

    fn on_report(&mut self, now: Instant, id: ConnId, report: Report) {
        match report.cause {
            Cause::Rpc => self.metrics.count(Id::RpcRequestError),
            Cause::StreamingRpc => self.metrics.count(Id::StreamingRequestError),
            Cause::Proxy => self.metrics.count(Id::ProxyReject),
            _ => {}
        }
        let Some(link) = self.link(id) else { return };
        let (peer, space) = (link.peer, if report.fields.is_empty() { "" } else { " " });
        let text = format!("{}: remote_addr={peer}{space}{}", report.cause.text(), report.fields);
        self.log_limited(now, report.cause, report.cause.level(), text);
    }

    /// The connection has ended; `open` while its socket is still ours to close.
    pub(super) fn on_closed(&mut self, now: Instant, id: ConnId, open: bool) {
        let slot = (id.0 & 0xffff_ffff) as usize;
        if self.link(id).is_none() {
            return;
        }
        let Some(link) = self.links.get_mut(slot).and_then(Option::take) else { return };
        self.open_links -= 1;
        if let Some(at) = link.timer {
            self.conn_timers.cancel(at, id);
        }
        self.leave_place(&link);
        if let Some(node) = &link.node {
            self.nodes.unbind(node, id);
        }
        for (stream, busy) in &link.busy {
            self.end_busy(now, id, *stream, *busy);
        }
        match &link.via {
            Via::Raft(address) => self.on_raft_closed(now, id, Some(address)),
            Via::Pool(address) => self.on_pool_closed(now, id, address),
            Via::Accepted(Listener::Rpc) if link.conn.protocol() == Protocol::Rpc(FirstByte::Raft) => {
                self.on_raft_closed(now, id, None);
            }
            Via::Accepted(_) => {}
        }
        if open {
            if !link.conn.to_send().is_empty() {
                self.closing.insert(id, Closing::Conn(Box::new(link.conn)));
                self.output(Output::Flush(id));
            }
            self.output(Output::Close { conn: id, linger: true, abort: false });
        }
    }

    fn on_stream_gone(&mut self, now: Instant, id: ConnId, stream: StreamId) {
        if let Some(busy) = self.link(id).and_then(|link| link.take_busy(stream)) {
            self.end_busy(now, id, stream, busy);
        }
    }

    fn end_busy(&mut self, now: Instant, id: ConnId, stream: StreamId, busy: Busy) {
        match busy {
            Busy::Call(call) => self.abandon(now, call),
            Busy::NodeCall(call) => {
                self.on_node_answer(now, call, Err(NODE_LOST.into()));
            }
            Busy::Forward(_) => self.on_call_lost(now, id, stream, true),
            Busy::Source(key) => self.on_source_gone(now, key, id, stream),
        }
    }

    /// Whether anything goes on on a connection.
    pub(super) fn is_busy(&mut self, id: ConnId) -> bool {
        self.link(id).is_some_and(|link| !link.busy.is_empty())
    }

    pub(super) fn via(&mut self, id: ConnId) -> Option<Via> {
        self.link(id).map(|link| link.via.clone())
    }

    pub(super) fn busy(&mut self, id: ConnId, stream: StreamId) -> Option<Busy> {
        self.link(id)?.busy.get(&stream).copied()
    }

    pub(super) fn set_busy(&mut self, id: ConnId, stream: StreamId, busy: Option<Busy>) {
        if let Some(link) = self.link(id) {
            match busy {
                Some(busy) => link.busy.insert(stream, busy),
                None => link.take_busy(stream),
            };
        }
    }

    pub(super) fn caller_of(&mut self, id: ConnId) -> Option<Arc<Caller>> {
        self.link(id).map(|link| link.caller.clone())
    }

    pub(super) fn prove_node(&mut self, id: ConnId, node_id: Arc<str>) {
        if let Some(link) = self.link(id)
            && link.caller.proven_node.as_ref() != Some(&node_id)
        {
            link.caller = Arc::new(Caller { proven_node: Some(node_id), ..(*link.caller).clone() });
        }
    }

    pub(super) fn note_good_token(&mut self, id: ConnId, good_token: (u64, i64)) {
        if let Some(link) = self.link(id) {
            link.caller = Arc::new(Caller { good_token: Some(good_token), ..(*link.caller).clone() });
        }
    }

    /// The connection leads to a node from now on; the first node of a connection stays (endpoint notes, 3.4).
    pub(super) fn bind_node(&mut self, id: ConnId, node_id: &Arc<str>) {
        let wall = self.wall;
        let Some(link) = self.link(id) else { return };
        if link.node.get_or_insert_with(|| node_id.clone()) == node_id && link.conn.can_open() {
            self.nodes.bind(node_id, id, wall);
        }
    }

    /// New TLS settings: connections made under the old ones finish what they have in hand (R1.13); those whose
    /// certificate is refused now end at once (R8.13).
    pub(super) fn recheck_links(&mut self, now: Instant, tls_changed: bool) {
        for id in self.link_ids() {
            let Some(link) = self.link(id) else { continue };
            let certificate = link.conn.certificate().cloned();
            let (peer, via) = (link.peer, link.via.clone());
            let security = match via {
                Via::Accepted(Listener::Http) => &self.settings.http_security,
                _ => &self.settings.rpc_security,
            };
            let revoked = match (&certificate, &security.tls) {
                (Some(certificate), Some(tls)) => tls.refuses(certificate, self.wall),
                _ => None,
            };
            if let Some(reason) = revoked {
                let text =
                    format!("closing connection, its certificate is refused now: remote_addr={peer} error={reason:?}");
                self.log(Level::Warn, text);
                self.with_conn(now, id, |now, c| c.close(now));
            } else if tls_changed {
                self.with_conn(now, id, |now, c| c.drain(now));
            }
        }
    }

    /// Who is connected (R1.3).
    pub(super) fn list_links(&self) -> ConnectionsResponse {
        let open = self.links.iter().flatten();
        let connections = open.take(LISTED_LINKS_MAX).map(|link| ConnectionStub {
            peer: link.peer.to_string(),
            protocol: protocol_name(link.conn.protocol()).to_owned(),
            tls: link.conn.is_tls(),
            certificate_names: link.caller.tls_names.as_deref().unwrap_or_default().to_vec(),
            node_id: link.node.as_deref().unwrap_or_default().to_owned(),
            streams: link.conn.streams() as u64,
            calls: link.busy.values().filter(|busy| matches!(busy, Busy::Call(_))).count() as u64,
        });
        ConnectionsResponse { connections: connections.collect(), total: self.open_links as u64 }
    }

    /// Gauges that are counted when they are asked for.
    pub(super) fn count_links(&mut self) {
        let mut by_protocol: BTreeMap<&'static str, u64> = BTreeMap::new();
        let mut streams = 0;
        for link in self.links.iter().flatten() {
            streams += match link.conn.protocol() {
                Protocol::Rpc(FirstByte::MultiplexV1 | FirstByte::MultiplexV2) => link.conn.streams(),
                _ => 0,
            };
            *by_protocol.entry(protocol_name(link.conn.protocol())).or_default() += 1;
        }
        self.metrics.clear_labelled(Id::Connections);
        for (name, count) in by_protocol {
            self.metrics.set_labelled(Id::Connections, name, count as f64);
        }
        self.metrics.set(Id::Streams, streams as f64);
    }

    /// Bytes waiting for a connection.
    pub fn to_send(&self, id: ConnId) -> &[u8] {
        let slot = (id.0 & 0xffff_ffff) as usize;
        match self.links.get(slot) {
            Some(Some(link)) if link.id == id => link.conn.to_send(),
            _ => self.closing.get(&id).map_or(&[], Closing::to_send),
        }
    }

    /// The socket took this many of them.
    pub fn sent(&mut self, now: Instant, id: ConnId, bytes: usize) {
        if let Some(link) = self.link(id) {
            link.conn.sent(now, bytes);
            self.settle(now, id);
            self.settle_all(now);
        } else if let Some(closing) = self.closing.get_mut(&id) {
            closing.sent(now, bytes);
            if closing.to_send().is_empty() {
                self.closing.remove(&id);
            }
        }
        self.end_when_drained(now);
    }
}

/// The name of a protocol as metrics have it.
fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Unknown => "unknown",
        Protocol::Http => "http",
        Protocol::Rpc(FirstByte::Rpc) => "rpc",
        Protocol::Rpc(FirstByte::Raft) => "raft",
        Protocol::Rpc(FirstByte::MultiplexV1) => "multiplex_v1",
        Protocol::Rpc(FirstByte::MultiplexV2) => "multiplex_v2",
        Protocol::Rpc(FirstByte::Streaming) => "streaming",
        Protocol::Rpc(FirstByte::Tls) => "tls",
    }
}
