//! Streaming calls that another server is to serve: which, and until a stream to it is open. Then they are bridges, as
//! those to a node are.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::api::outcome::ToNode;
use crate::base::id::{ConnId, StreamId};
use crate::base::metric::Id;
use crate::base::slab::Key;
use crate::base::time::Instant;
use crate::conn::report::Cause;
use crate::forward::patch::{Patch, patched, text_at};
use crate::forward::retry;
use crate::wire::body::query::{RouteFields, route_fields};

use super::super::Server;
use super::super::calls::JITTER_FRACTION;
use super::{Outgoing, Purpose};

/// A stream to another server is open within this, or there is none.
const OPEN_LIMIT: Duration = Duration::from_secs(11);

/// Streaming calls without a stream of their own yet.
#[derive(Debug, Default)]
pub(super) struct Streams {
    waiting: BTreeMap<Key, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    /// Of the stream that is being opened; 0 while none is.
    ticket: u64,
    to: Arc<str>,
    toward: Toward,
    /// Since when it is held.
    since: Instant,
    /// When it is looked at again.
    next: Instant,
}

/// Where a streaming call is to go.
#[derive(Clone, Debug)]
enum Toward {
    /// Nobody leads.
    Nobody,
    Leader,
    /// A given server; the flag when it was named by the request, which is then cleared.
    Server(bool),
    /// The others of the region, and why those before could not be reached.
    Region(Vec<Arc<str>>, Vec<String>),
}

/// What route says of a streaming call.
enum Way {
    Here,
    Hold,
    Leader(Arc<str>),
    Region(String),
    /// No server of that region is known.
    NoRegion(String),
    Server(Arc<str>),
}

impl Streams {
    pub(super) fn next(&self) -> Option<Instant> {
        self.waiting.values().map(|waiting| waiting.next).min()
    }

    pub(super) fn is_wanted(&self, key: Key, ticket: u64) -> bool {
        self.waiting.get(&key).is_some_and(|waiting| waiting.ticket == ticket)
    }
}

impl Server {
    /// Decides where a streaming call is served, and begins that.
    pub(in crate::server) fn route_stream(&mut self, now: Instant, key: Key) {
        let Some((_, _, name, body)) = self.starting_stream(key) else { return };
        match self.way_of(now, name, &body) {
            Way::Here => self.serve_stream(key),
            Way::Hold => self.hold_stream(now, key),
            Way::Leader(to) => self.open_stream(now, key, to, Toward::Leader),
            Way::Server(to) => self.open_stream(now, key, to, Toward::Server(true)),
            Way::NoRegion(region) => {
                // The handler tells the caller.
                let text = format!("{}: region={region:?} method={name}", Cause::Region.text());
                self.log_limited(now, Cause::Region, Cause::Region.level(), text);
                self.serve_stream(key);
            }
            Way::Region(region) => {
                let mut rest = self.forwarding.regions.drawn(&region, &mut self.rng);
                self.metrics.count_labelled(Id::RpcCrossRegion, &region);
                match rest.pop() {
                    Some(to) => self.open_stream(now, key, to, Toward::Region(rest, Vec::new())),
                    None => self.serve_stream(key),
                }
            }
        }
    }

    fn way_of(&self, now: Instant, name: &str, body: &[u8]) -> Way {
        let fields = route_fields(body, 0).unwrap_or_default();
        if !fields.region.is_empty() && fields.region != self.settings.region {
            let known = !fields.forwarded && self.forwarding.regions.knows(&fields.region);
            return if known { Way::Region(fields.region) } else { Way::NoRegion(fields.region) };
        }
        match name {
            "Operator.SnapshotSave" if fields.allow_stale => Way::Here,
            "Operator.SnapshotSave" | "Operator.SnapshotRestore" => self.way_to_leader(now, &fields),
            "Agent.Monitor" if !fields.hop => match self.named_server(body) {
                Some(to) => Way::Server(to),
                None => Way::Here,
            },
            _ => Way::Here,
        }
    }

    fn way_to_leader(&self, now: Instant, fields: &RouteFields) -> Way {
        let known = self.known_leader(now);
        match self.leader_address() {
            _ if known.here || fields.hop => Way::Here,
            Some(to) => Way::Leader(to),
            None => Way::Hold,
        }
    }

    /// The address of another server whose log is asked for.
    fn named_server(&self, body: &[u8]) -> Option<Arc<str>> {
        if text_at(body, &["NodeID"]).is_some_and(|id| !id.is_empty()) {
            return None;
        }
        let wanted = text_at(body, &["ServerID"]).filter(|wanted| !wanted.is_empty())?;
        if wanted == "leader" {
            return self.leader_address();
        }
        let region = &self.settings.region;
        let named = |name: &str| wanted == name || wanted == format!("{name}.{region}");
        let servers = self.ctx.servers.iter().filter(|server| server.id != self.settings.server_id);
        let found = servers.into_iter().find(|server| wanted == server.id || named(&server.name))?;
        (!found.rpc_addr.is_empty()).then(|| found.rpc_addr.as_str().into())
    }

    fn serve_stream(&mut self, key: Key) {
        self.forwarding.streams.waiting.remove(&key);
        self.run_streaming(key);
    }

    /// Nobody leads: it is looked at again, until the hold timeout is over; then the handler says how it stands.
    fn hold_stream(&mut self, now: Instant, key: Key) {
        let hold = self.settings.hold_timeout;
        let since = self.forwarding.streams.waiting.get(&key).map_or(now, |waiting| waiting.since);
        if now.since(since) >= hold || self.draining.is_some() {
            return self.serve_stream(key);
        }
        let next = now + self.rng.jitter(hold / JITTER_FRACTION);
        self.forwarding
            .streams
            .waiting
            .insert(key, Waiting { ticket: 0, to: "".into(), toward: Toward::Nobody, since, next });
    }

    fn open_stream(&mut self, now: Instant, key: Key, to: Arc<str>, toward: Toward) {
        let Some((_, _, name, body)) = self.starting_stream(key) else { return };
        let in_region = !matches!(toward, Toward::Region(..));
        let server_id = matches!(toward, Toward::Server(true)).then_some("");
        let patch = Patch { forwarded: true, hop: in_region, server_id, ..Patch::default() };
        let Some(argument) = patched(&body, &patch) else {
            return self.serve_stream(key);
        };
        let ticket = self.forwarding.ticket();
        let since = self.forwarding.streams.waiting.get(&key).map_or(now, |waiting| waiting.since);
        let next = if matches!(toward, Toward::Leader) { since + self.settings.hold_timeout } else { now + OPEN_LIMIT };
        self.forwarding.streams.waiting.insert(key, Waiting { ticket, to: Arc::clone(&to), toward, since, next });
        let purpose = Purpose::Stream { key, ticket };
        let out = Outgoing { purpose, method: name.into(), body: argument.into(), fresh: false };
        self.send_out(now, &to, out);
    }

    /// The server that a node is connected to is to bridge to it.
    pub(super) fn stream_to_node_owner(&mut self, now: Instant, key: Key, to: Arc<str>, _no_path: String) {
        self.open_stream(now, key, to, Toward::Server(false));
    }

    /// A stream to the other server is open.
    pub(super) fn on_stream_opened(&mut self, now: Instant, key: Key, at: (ConnId, StreamId), argument: Arc<[u8]>) {
        self.forwarding.streams.waiting.remove(&key);
        self.bridge_to_server(now, key, at, argument);
    }

    pub(super) fn on_stream_unsent(&mut self, now: Instant, key: Key, ticket: u64, error: &str) {
        if !self.forwarding.streams.is_wanted(key, ticket) {
            return;
        }
        let Some(waiting) = self.forwarding.streams.waiting.get_mut(&key) else { return };
        waiting.ticket = 0;
        match waiting.toward.clone() {
            Toward::Leader | Toward::Nobody => self.hold_stream(now, key),
            Toward::Server(_) => {
                self.forwarding.streams.waiting.remove(&key);
                self.refuse_stream(now, key, &retry::no_connection(error));
            }
            Toward::Region(mut rest, mut causes) => {
                causes.push(format!("{}: {error}", waiting.to));
                if let Some(next) = rest.pop() {
                    return self.open_stream(now, key, next, Toward::Region(rest, causes));
                }
                self.forwarding.streams.waiting.remove(&key);
                // R8.24
                let body = self.starting_stream(key).map(|(_, _, _, body)| body).unwrap_or_default();
                let region = route_fields(&body, 0).unwrap_or_default().region;
                let text = format!("no server of a region can be reached: region={region} tried={causes:?}");
                self.log_limited(now, Cause::Region, log::Level::Warn, text);
                self.refuse_stream(now, key, &retry::no_connection(error));
            }
        }
    }

    /// Looks again at those that are held, and gives up those that could not be opened.
    pub(super) fn on_streams_due(&mut self, now: Instant) {
        let due = self.forwarding.streams.waiting.iter().filter(|(_, waiting)| waiting.next <= now);
        let due: Vec<(Key, u64)> = due.map(|(key, waiting)| (*key, waiting.ticket)).collect();
        for (key, ticket) in due {
            if self.starting_stream(key).is_none() {
                self.forwarding.streams.waiting.remove(&key);
            } else if ticket == 0 {
                self.route_stream(now, key);
            } else {
                self.on_stream_unsent(now, key, ticket, "i/o timeout");
            }
        }
    }

    /// Another server leads: those that could not be opened yet go there.
    pub(super) fn take_back_streams(&mut self, now: Instant, _leader: Option<&Arc<str>>) {
        let toward_leader = |waiting: &Waiting| matches!(waiting.toward, Toward::Leader | Toward::Nobody);
        let waiting = self.forwarding.streams.waiting.iter().filter(|(_, waiting)| toward_leader(waiting));
        for key in waiting.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.route_stream(now, key);
        }
    }

    /// A node is not connected here: another server may have it, unless it was one that sent the call here.
    pub(in crate::server) fn no_node_here(&mut self, now: Instant, key: Key, to_node: &ToNode) {
        if route_fields(&to_node.body, 0).is_ok_and(|fields| fields.hop) {
            self.refuse_stream(now, key, &to_node.no_path);
        } else {
            self.ask_for_stream(now, key, to_node);
        }
    }
}
