//! Calls and streams that are passed on to another server: chosen, sent, taken back, and answered.
//!
//! **Invariant:** whatever was handed to [`Server::send_out`] is told of exactly once: sent, and then answered or lost;
//! or not sent. What was taken back meanwhile is told from the rest by its ticket.

mod asks;
mod carry;
mod leaders;
#[cfg(test)]
mod stamp_tests;
mod stamps;
mod streams;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use log::Level;

use crate::api::ServerFacts;
use crate::base::id::{CallId, ConnId, StreamId};
use crate::base::metric::Id;
use crate::base::slab::Key;
use crate::base::time::Instant;
use crate::conn::Refusal;
use crate::forward::patch::{Patch, patched};
use crate::forward::pool::{Pool, Wait};
use crate::forward::regions::Regions;
use crate::wire::msgpack::Msg;

use super::Server;
use super::links::{Busy, Via};
use super::node_calls::NODE_LOST;
use super::port::Settings;

use self::asks::Asks;
pub(super) use self::carry::Elsewhere;
pub use self::stamps::OWN_TTL;
use self::stamps::Stamps;
use self::streams::Streams;

/// Between two looks at who serves another region.
const REFRESH: Duration = Duration::from_secs(60);
/// And after one of it could not say.
const REFRESH_AGAIN: Duration = Duration::from_secs(5);

/// What is under way at other servers.
#[derive(Debug)]
pub(super) struct Forwarding {
    pool: Pool<Outgoing>,
    regions: Regions,
    /// What was sent and is not answered, with the address it went to.
    in_flight: BTreeMap<(ConnId, StreamId), (Arc<str>, Purpose)>,
    /// Calls with another server, or on the way there.
    carried: BTreeSet<CallId>,
    asks: Asks,
    streams: Streams,
    stamps: Stamps,
    /// Parked queries that go to another leader.
    moving: VecDeque<CallId>,
    last_ticket: u64,
    refresh_at: Option<Instant>,
}

/// Something to be sent over a pooled connection.
#[derive(Clone, Debug, PartialEq)]
struct Outgoing {
    purpose: Purpose,
    method: Arc<str>,
    body: Arc<[u8]>,
    /// Connections that are there have failed it before: it goes over one that is dialled from now on (R3.11).
    fresh: bool,
}

/// Who is to be told of it.
#[derive(Clone, Debug, PartialEq)]
enum Purpose {
    /// A call that came to us.
    Call { id: CallId, ticket: u64 },
    /// A streaming call that came to us.
    Stream { key: Key, ticket: u64 },
    /// A server is asked whether a node is connected to it.
    Ask { ask: u64, address: Arc<str> },
    /// A region is asked for its servers.
    Peers { region: String },
    /// The leader is asked for a session of our own.
    Session,
    /// The leader is told that one of ours lives, or that it is over.
    SessionSign { id: u64 },
}

impl Forwarding {
    pub(super) fn new(settings: &Settings) -> Forwarding {
        let regions = Regions::new(&settings.region, &settings.regions);
        let refresh_at = (regions.names().len() > 1).then_some(Instant::ZERO);
        Forwarding {
            pool: Pool::new(settings.pool_idle_timeout),
            regions,
            in_flight: BTreeMap::new(),
            carried: BTreeSet::new(),
            asks: Asks::default(),
            streams: Streams::default(),
            stamps: Stamps::default(),
            moving: VecDeque::new(),
            last_ticket: 0,
            refresh_at,
        }
    }

    /// When something is due.
    pub(super) fn next(&self) -> Option<Instant> {
        if !self.moving.is_empty() {
            return Some(Instant::ZERO);
        }
        let times = [self.pool.next(), self.refresh_at, self.asks.next(), self.streams.next(), self.stamps.next()];
        times.into_iter().flatten().min()
    }

    fn ticket(&mut self) -> u64 {
        self.last_ticket += 1;
        self.last_ticket
    }
}

impl Server {
    pub(super) fn on_forwarding_due(&mut self, now: Instant) {
        for (address, conn) in self.forwarding.pool.idle(now) {
            if self.is_busy(conn) {
                self.forwarding.pool.touch(now, &address, conn);
            } else {
                self.discard(now, &address, conn, "idle");
            }
        }
        if self.forwarding.refresh_at.is_some_and(|at| at <= now) {
            self.forwarding.refresh_at = Some(now + REFRESH);
            self.refresh_regions(now);
        }
        self.on_asks_due(now);
        self.on_streams_due(now);
        self.on_stamps_due(now);
        self.step_moving(now);
    }

    /// A connection is not used for anything new; what is in hand on it goes on (R3.15).
    fn discard(&mut self, now: Instant, address: &str, conn: ConnId, reason: &str) {
        if self.forget(now, address, conn, reason) {
            self.with_conn(now, conn, |now, c| c.drain(now));
        }
    }

    /// A connection leaves the pool; false when it was not there.
    fn forget(&mut self, now: Instant, address: &str, conn: ConnId, reason: &str) -> bool {
        let Some(idle) = self.forwarding.pool.idle_for(now, address, conn) else { return false };
        self.forwarding.pool.forget(address, conn);
        self.metrics.count_labelled(Id::PoolDiscard, reason);
        let millis = idle.as_millis();
        let text = format!("closing bad idle connection: server={address} idle_ms={millis} error={reason:?}");
        self.log(Level::Debug, text);
        true
    }

    // Sending.

    /// Sends a call, or opens a stream, over a connection to a server; dials one where there is none.
    fn send_out(&mut self, now: Instant, address: &Arc<str>, mut out: Outgoing) {
        if std::mem::take(&mut out.fresh) {
            self.metrics.count(Id::PoolFresh);
            for conn in self.forwarding.pool.sessions(address) {
                self.discard(now, address, conn, "suspect");
            }
        }
        for conn in self.forwarding.pool.sessions(address) {
            self.metrics.count(Id::PoolCheck);
            match self.with_conn(now, conn, |_, c| c.unusable()) {
                Some(None) => {}
                Some(Some(reason)) => {
                    self.metrics.count(Id::PoolCheckDead);
                    self.discard(now, address, conn, reason);
                    continue;
                }
                None => {
                    self.metrics.count(Id::PoolCheckDead);
                    self.forget(now, address, conn, "closed");
                    continue;
                }
            }
            let is_stream = matches!(out.purpose, Purpose::Stream { .. });
            let opened = self.with_conn(now, conn, |now, c| match is_stream {
                true => c.open_streaming(now, &out.method),
                false => c.call(now, &out.method, &out.body),
            });
            if let Some(Ok(stream)) = opened {
                return self.on_sent(now, address, (conn, stream), out);
            }
        }
        match self.forwarding.pool.wait(now, address, out) {
            Wait::Dial => {
                self.metrics.count(Id::PoolDial);
                self.dial(Via::Pool(Arc::clone(address)));
            }
            Wait::Waits => {}
            Wait::Refused(out, error) => self.on_unsent(now, out.purpose, address, &error),
        }
    }

    fn on_sent(&mut self, now: Instant, address: &Arc<str>, at: (ConnId, StreamId), out: Outgoing) {
        let (conn, stream) = at;
        if let Purpose::Stream { key, .. } = out.purpose {
            self.forwarding.pool.touch(now, address, conn);
            return self.on_stream_opened(now, key, at, out.body);
        }
        let busy = match out.purpose {
            Purpose::Call { id, .. } => id,
            _ => CallId(u64::MAX),
        };
        self.set_busy(conn, stream, Some(Busy::Forward(busy)));
        self.forwarding.pool.began(now, address, conn);
        if let Purpose::Call { id, .. } = out.purpose {
            self.on_carried(now, id, at);
        }
        self.forwarding.in_flight.insert(at, (Arc::clone(address), out.purpose));
    }

    /// What was sent is over, one way or another.
    fn take_flight(&mut self, now: Instant, conn: ConnId, stream: StreamId) -> Option<(Arc<str>, Purpose)> {
        let (address, purpose) = self.forwarding.in_flight.remove(&(conn, stream))?;
        self.set_busy(conn, stream, None);
        self.forwarding.pool.ended(now, &address, conn);
        Some((address, purpose))
    }

    fn on_unsent(&mut self, now: Instant, purpose: Purpose, address: &Arc<str>, error: &str) {
        match purpose {
            Purpose::Call { id, ticket } => self.on_call_unsent(now, id, ticket, error),
            Purpose::Stream { key, ticket } => self.on_stream_unsent(now, key, ticket, error),
            Purpose::Ask { ask, address } => self.on_asked(now, ask, &address, Err(error.to_owned())),
            Purpose::Session => self.on_session_unsent(),
            // The next sign will do as well; one that is closed ends by itself.
            Purpose::SessionSign { .. } => {}
            Purpose::Peers { region } => {
                let text = format!("servers of a region could not be asked for: region={region} server={address}");
                self.log(Level::Debug, format!("{text} error={error:?}"));
                self.refresh_sooner(now);
            }
        }
    }

    /// Whether somebody still wants it: it may have been taken back while it waited.
    fn is_wanted(&mut self, purpose: &Purpose) -> bool {
        match purpose {
            Purpose::Call { id, ticket } => self.is_carried_as(*id, *ticket),
            Purpose::Stream { key, ticket } => self.forwarding.streams.is_wanted(*key, *ticket),
            Purpose::Ask { .. } | Purpose::Peers { .. } | Purpose::Session | Purpose::SessionSign { .. } => true,
        }
    }

    // What connections tell.

    /// A pooled connection can be used.
    pub(super) fn on_pool_ready(&mut self, now: Instant, id: ConnId, address: &Arc<str>) {
        for out in self.forwarding.pool.ready(now, address, id) {
            if self.is_wanted(&out.purpose) {
                self.send_out(now, address, out);
            }
        }
    }

    pub(super) fn on_pool_dial_failed(&mut self, now: Instant, address: &Arc<str>, error: &str) {
        let waited = self.forwarding.pool.dial_failed(now, address, error);
        self.fail_waiting(now, address, waited, error);
    }

    pub(super) fn on_pool_closed(&mut self, now: Instant, id: ConnId, address: &Arc<str>) {
        if self.forget(now, address, id, "closed") {
            return;
        }
        let waited = self.forwarding.pool.closed(now, address, id);
        self.fail_waiting(now, address, waited, "connection closed before it was ready");
    }

    fn fail_waiting(&mut self, now: Instant, address: &Arc<str>, waited: Vec<Outgoing>, error: &str) {
        for out in waited {
            if self.is_wanted(&out.purpose) {
                self.on_unsent(now, out.purpose, address, error);
            }
        }
    }

    /// Another server answered.
    pub(super) fn on_forward_answer(
        &mut self,
        now: Instant,
        conn: ConnId,
        stream: StreamId,
        _call: CallId,
        result: Result<Box<[u8]>, Refusal>,
    ) {
        match self.take_flight(now, conn, stream) {
            Some((_, Purpose::Call { id, ticket })) => self.on_carried_answer(now, id, ticket, result),
            Some((address, Purpose::Ask { ask, .. })) => {
                self.on_asked(now, ask, &address, result.map_err(|refusal| refusal.text));
            }
            Some((_, Purpose::Peers { region })) => {
                self.on_region_peers(now, &region, result.map_err(|refusal| refusal.text));
            }
            Some((_, Purpose::Session)) => self.on_session_opened(now, result),
            Some((_, Purpose::SessionSign { id })) => self.on_session_sign(id, &result),
            Some((_, Purpose::Stream { .. })) | None => {}
        }
    }

    /// A call of ours ended without an answer; `written` when any byte of it may have left.
    pub(super) fn on_call_lost(&mut self, now: Instant, conn: ConnId, stream: StreamId, written: bool) {
        if let Some(Busy::NodeCall(call)) = self.busy(conn, stream) {
            return self.on_node_answer(now, call, Err(NODE_LOST.into()));
        }
        let Some((address, purpose)) = self.take_flight(now, conn, stream) else { return };
        match purpose {
            Purpose::Call { id, ticket } if written => self.on_carried_lost(now, id, ticket),
            purpose => {
                if let Purpose::Call { id, .. } = purpose
                    && let Some(active) = self.active(id)
                {
                    active.losses = active.losses.saturating_add(1);
                    self.metrics.count(Id::PoolRetry);
                }
                self.on_unsent(now, purpose, &address, "stream closed");
            }
        }
    }

    // Regions.

    /// The region of a server's address; our own when it is not known.
    pub(super) fn region_of(&self, address: &str) -> String {
        self.forwarding.regions.region_of(address).unwrap_or(&self.settings.region).to_owned()
    }

    /// Another server told of regions and their servers.
    pub(super) fn learn_regions(&mut self, told: &[(String, Vec<String>)]) {
        let is_new = self.forwarding.regions.learn(told);
        self.peers.machine.regions = self.forwarding.regions.table();
        if is_new {
            self.tell_regions();
        }
    }

    fn tell_regions(&mut self) {
        let regions = self.forwarding.regions.names();
        self.ctx.server = Arc::new(ServerFacts { regions, ..(*self.ctx.server).clone() });
        self.forwarding.refresh_at.get_or_insert(Instant::ZERO);
    }

    /// Asks a server of each other region which servers there are.
    fn refresh_regions(&mut self, now: Instant) {
        let own = self.settings.region.clone();
        for region in self.forwarding.regions.names().into_iter().filter(|name| *name != own) {
            let Some(address) = self.forwarding.regions.drawn(&region, &mut self.rng).pop() else { continue };
            let patch = Patch { forwarded: true, region: Some(&region), ..Patch::default() };
            let body: Arc<[u8]> = patched(&[], &patch).unwrap_or_default().into();
            let out =
                Outgoing { purpose: Purpose::Peers { region }, method: "Status.Peers".into(), body, fresh: false };
            self.send_out(now, &address, out);
        }
    }

    fn on_region_peers(&mut self, now: Instant, region: &str, result: Result<Box<[u8]>, String>) {
        match result.and_then(|body| Vec::<String>::from_bytes(&body).map_err(|e| e.to_string())) {
            Ok(addresses) => {
                self.forwarding.regions.replace(region, addresses);
                self.peers.machine.regions = self.forwarding.regions.table();
            }
            Err(_) => self.refresh_sooner(now),
        }
    }

    /// A region's servers could not be learned.
    fn refresh_sooner(&mut self, now: Instant) {
        let at = now + REFRESH_AGAIN;
        self.forwarding.refresh_at = Some(self.forwarding.refresh_at.map_or(at, |before| before.min(at)));
    }

    // Figures.

    /// Calls that are with another server.
    pub(super) fn forwarded(&mut self) -> usize {
        let (open, idle) = self.forwarding.pool.counts();
        self.metrics.set(Id::PoolOpen, open as f64);
        self.metrics.set(Id::PoolIdle, idle as f64);
        self.metrics.set(Id::PoolWaiting, self.forwarding.pool.waiting() as f64);
        self.forwarding.carried.len()
    }
}
