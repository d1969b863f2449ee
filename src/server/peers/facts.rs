//! What handlers and operators are told of the servers: one entry each, made anew when something changed.

use std::time::Duration;

use crate::api::{ServerEntry, ServerStatus};
use crate::base::id::ReplicaId;
use crate::base::time::Instant;
use crate::wire::entry::server::ServerRecord;

use super::super::Server;
use super::book::Peer;
use super::links::Pace;

/// A server that was not heard for so long counts as failed, or longer with a long election timeout.
const FAILED_AFTER: Duration = Duration::from_secs(2);

impl Server {
    /// Whether no other server is known, and none is a member.
    pub(in crate::server) fn is_alone(&self) -> bool {
        let members = self.peers.members.as_ref();
        let several = members.is_some_and(|members| members.voters.len() + members.learners.len() > 1);
        !several && self.peers.machine.links.is_empty() && self.peers.machine.book.peers().next().is_none()
    }

    /// Makes the facts about servers true. Cheap enough for each beat: there are few servers.
    pub(in crate::server) fn refresh_servers(&mut self, now: Instant) {
        let state = self.root.load_full();
        let mut entries = vec![self.own_entry()];
        let cluster_id = self.peers.machine.cluster_id();
        for (id, peer) in self.peers.machine.book.peers() {
            let is_ours = peer.told.as_ref().is_some_and(|told| !told.removed && told.cluster_id == cluster_id);
            let replica = peer.server.replica;
            if self.peers.is_member(replica) || state.server(id).is_some() || is_ours {
                entries.push(self.peer_entry(now, peer));
            }
        }
        for record in state.servers() {
            if entries.iter().all(|entry| entry.id != record.id) {
                entries.push(self.record_entry(record));
            }
        }
        entries.sort_by(|a, b| a.id.cmp(&b.id));
        self.ctx.servers = entries.into();
        let address = self.leader_rpc_addr();
        if *self.ctx.leader_rpc_addr != *address {
            let known = !address.is_empty();
            self.ctx.leader_rpc_addr = address.into();
            if known {
                self.on_leader_news(now);
                self.begin_to_follow();
            }
        }
    }

    /// Where the leader is reached; empty when that is not known.
    pub(in crate::server) fn leader_rpc_addr(&self) -> String {
        match self.leader.known.leader {
            _ if self.leader.known.is_self => self.settings.advertise_rpc.clone(),
            Some(leader) => self.address_of_replica(leader).unwrap_or_default(),
            None => String::new(),
        }
    }

    /// Where a server is reached: as it said itself, else as the log has it.
    fn address_of_replica(&self, replica: ReplicaId) -> Option<String> {
        if let Some(peer) = self.peers.machine.book.by_replica(replica.0) {
            return Some(peer.server.rpc_addr.clone());
        }
        let state = self.root.load();
        state.servers().find(|record| record.replica == replica.0).map(|record| record.rpc_addr.clone())
    }

    fn own_entry(&self) -> ServerEntry {
        let own = self.settings.replica;
        // A server that knows of no configuration yet is shown as a voter, as a lone one is.
        let knows = self.peers.members.as_ref().is_some_and(|members| !members.voters.is_empty());
        let index = self.notified_index;
        ServerEntry {
            name: self.settings.name.clone(),
            id: self.settings.server_id.clone(),
            rpc_addr: self.settings.advertise_rpc.clone(),
            datacenter: self.settings.datacenter.clone(),
            voter: !knows || self.peers.is_voter(own.0),
            is_member: !knows || self.peers.is_member(own.0),
            replica: own.0,
            http_addr: self.settings.advertise_http.clone(),
            build: self.settings.version.clone(),
            status: if self.peers.machine.is_removed() { ServerStatus::Left } else { ServerStatus::Alive },
            last_heard: Some(Duration::ZERO),
            patience: Pace::of(self.settings.election_timeout).beat * 2,
            last_index: index,
            last_term: self.leader.known.term.0,
            // By the same look as the others', up to a second old: else all of them seem to be behind.
            matched: match self.peers.progress.get(&own.0) {
                _ if !self.leader.known.is_self => 0,
                Some(progress) => progress.matched.0,
                None => index,
            },
            stable_since: self.leader.since,
        }
    }

    fn peer_entry(&self, now: Instant, peer: &Peer) -> ServerEntry {
        let server = &peer.server;
        let progress = self.peers.progress.get(&server.replica).filter(|_| self.leader.known.is_self);
        let heard = peer.heard.max(progress.and_then(|progress| progress.heard)).map(|heard| now.since(heard));
        let limit = FAILED_AFTER.max(self.settings.election_timeout * 3);
        let has_left = peer.beat.leaving || peer.told.as_ref().is_some_and(|told| told.removed);
        let status = match heard {
            _ if has_left => ServerStatus::Left,
            Some(silence) if silence < limit => ServerStatus::Alive,
            _ => ServerStatus::Failed,
        };
        ServerEntry {
            name: server.name.clone(),
            id: server.id.clone(),
            rpc_addr: server.rpc_addr.clone(),
            datacenter: server.datacenter.clone(),
            voter: self.peers.is_voter(server.replica),
            is_member: self.peers.is_member(server.replica),
            replica: server.replica,
            http_addr: server.http_addr.clone(),
            build: server.build.clone(),
            status,
            last_heard: heard,
            patience: Pace::of(self.settings.election_timeout).beat * 2,
            last_index: peer.beat.last_index.max(progress.map_or(0, |progress| progress.matched.0)),
            last_term: peer.beat.term,
            matched: progress.map_or(0, |progress| progress.matched.0),
            stable_since: peer.stable.map(|(_, wall)| wall),
        }
    }

    fn record_entry(&self, record: &ServerRecord) -> ServerEntry {
        ServerEntry {
            name: record.name.clone(),
            id: record.id.clone(),
            rpc_addr: record.rpc_addr.clone(),
            datacenter: record.datacenter.clone(),
            voter: self.peers.is_voter(record.replica),
            is_member: self.peers.is_member(record.replica),
            replica: record.replica,
            http_addr: record.http_addr.clone(),
            build: record.build.clone(),
            status: ServerStatus::Failed,
            ..ServerEntry::default()
        }
    }
}
