//! Connections that this server asks for: a ticket each, until they are there or cannot be.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::base::id::ConnId;
use crate::base::time::Instant;
use crate::conn::Conn;

use super::Server;
use super::links::Via;
use super::port::{ClusterOutput, Output};

/// A dial is given up after this (R1.76).
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// A link of raft is dialled anew sooner: while a network is cut the system tries ever more seldom by itself.
const LINK_DIAL_TIMEOUT: Duration = Duration::from_secs(2);

/// Dials under way.
#[derive(Debug, Default)]
pub(super) struct Dials {
    by_ticket: BTreeMap<u64, Via>,
    last: u64,
}

impl Server {
    /// Asks for a connection: `via` says what for. Answered with `on_raft_ready` or `on_pool_ready` once it can be
    /// used, with `on_raft_closed` or `on_pool_closed` when that ends before, or with the `..._dial_failed` of its kind.
    pub(super) fn dial(&mut self, via: Via) {
        let (Via::Raft(address) | Via::Pool(address)) = &via else { return };
        let is_link = matches!(via, Via::Raft(_));
        self.dials.last += 1;
        let (ticket, address) = (self.dials.last, address.to_string());
        self.dials.by_ticket.insert(ticket, via);
        let timeout = if is_link { LINK_DIAL_TIMEOUT } else { DIAL_TIMEOUT };
        self.output_for_cluster(ClusterOutput::Dial { ticket, address, timeout });
    }

    pub(super) fn on_dialled(&mut self, now: Instant, ticket: u64, id: ConnId, peer: SocketAddr) {
        let Some(via) = self.dials.by_ticket.remove(&ticket) else {
            return self.output(Output::Close { conn: id, linger: false, abort: false });
        };
        let limits = Arc::clone(&self.conn_limits);
        let tls = self.settings.dial_tls.clone();
        let region = match &via {
            Via::Raft(_) | Via::Accepted(_) => self.settings.region.clone(),
            Via::Pool(address) => self.region_of(address),
        };
        let name = format!("server.{region}.nomad");
        let tls = tls.as_ref().map(|tls| (tls, name.as_str()));
        let conn = match &via {
            Via::Raft(_) => Conn::dial_raft(now, limits, tls),
            Via::Pool(_) => Conn::dial_mux(now, limits, tls),
            Via::Accepted(_) => return,
        };
        if let Via::Raft(address) = &via {
            self.peers.machine.links.on_dialled(now, address, id);
        }
        self.adopt(now, id, via, peer, conn);
    }

    pub(super) fn on_dial_failed(&mut self, now: Instant, ticket: u64, error: &str) {
        match self.dials.by_ticket.remove(&ticket) {
            Some(Via::Raft(address)) => self.on_raft_dial_failed(now, &address, error),
            Some(Via::Pool(address)) => self.on_pool_dial_failed(now, &address, error),
            Some(Via::Accepted(_)) | None => {}
        }
    }
}
