//! Other servers of the region: who they are, the links to them, how they become and stop being members.
//!
//! [`machine::Machine`] decides about links, hellos and the founding; here it meets the connections and the consensus
//! thread.

mod book;
mod founding;
mod links;
mod machine;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::base::id::{ConnId, ReplicaId};
use crate::base::time::{Instant, WallTime};
use crate::consensus::{self, Membership, Progress};
use crate::state::State;
use crate::wire::raft::{Beat, KeyFile, RaftFrame, RaftMessage};

use self::machine::{Act, Machine, Passed};
use super::Server;
use super::links::Via;
use super::port::{Output, Settings};

/// What is known of other servers.
#[derive(Debug)]
pub(super) struct Peers {
    pub(super) machine: Machine,
    /// Who is a member, once that is told.
    pub(super) members: Option<Membership>,
    /// Replicas that the consensus thread was told of as unreachable, until something was sent again.
    unreachable: BTreeSet<u64>,
}

impl Peers {
    pub(super) fn new(settings: &Settings, now: Instant, wall: WallTime) -> Peers {
        Peers { machine: Machine::new(settings, now, wall), members: None, unreachable: BTreeSet::new() }
    }

    /// When something is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.machine.next()
    }
}

impl Server {
    pub(super) fn on_peers_due(&mut self, now: Instant) {
        if self.peers.machine.next().is_some_and(|due| due <= now) {
            self.refresh_own_beat();
            self.peers.machine.on_due(now);
            self.perform_peers(now);
            self.peers.unreachable.clear();
        }
    }

    /// What beats say of this server.
    fn refresh_own_beat(&mut self) {
        let known = &self.leader.known;
        self.peers.machine.own_beat = Beat {
            number: 0,
            term: known.term.0,
            applied: self.notified_index,
            last_index: self.notified_index,
            leader: known.leader.map_or(0, |leader| leader.0),
            leaving: self.draining.is_some(),
            digest_index: 0,
            digest: Vec::new(),
        };
    }

    /// Does what the machine wants done.
    fn perform_peers(&mut self, now: Instant) {
        while let Some(act) = self.peers.machine.poll_act() {
            match act {
                Act::Dial(address) => self.dial(Via::Raft(address)),
                Act::Admit(conn) => {
                    self.with_conn(now, conn, |now, c| c.admit(now));
                }
                Act::Send(conn, frame) => {
                    self.with_conn(now, conn, |now, c| c.send_raft(now, &frame));
                }
                Act::Close(conn) => {
                    self.with_conn(now, conn, |now, c| c.close(now));
                }
                Act::Keep(file) => self.output(Output::KeepCluster(file)),
                Act::Found(voters) => self.to_consensus.push(consensus::Input::Bootstrap(voters)),
                Act::Log(level, text) => self.log(level, text),
            }
        }
    }

    /// A server, or somebody who says so, wants to send us raft's messages. Its frames come once it is admitted.
    pub(super) fn on_raft_accepted(&mut self, now: Instant, id: ConnId, _peer: SocketAddr) {
        self.peers.machine.on_accepted(now, id);
        self.perform_peers(now);
    }

    /// A link that we dialled can be used.
    pub(super) fn on_raft_ready(&mut self, now: Instant, id: ConnId, address: &Arc<str>) {
        self.peers.machine.on_ready(now, id, address);
        self.perform_peers(now);
    }

    pub(super) fn on_raft_dial_failed(&mut self, now: Instant, address: &Arc<str>, error: &str) {
        self.peers.machine.on_dial_failed(now, address, error);
        self.perform_peers(now);
    }

    /// A link has ended; `address` of one that we dialled.
    pub(super) fn on_raft_closed(&mut self, now: Instant, id: ConnId, address: Option<&Arc<str>>) {
        self.peers.machine.on_closed(now, id, address);
        self.perform_peers(now);
    }

    pub(super) fn on_raft_frame(&mut self, now: Instant, id: ConnId, frame: RaftFrame) {
        self.refresh_own_beat();
        let passed = self.peers.machine.on_frame(now, id, frame);
        self.perform_peers(now);
        match passed {
            None => {}
            Some(Passed::Up(replica)) => {
                self.peers.unreachable.remove(&replica);
            }
            Some(Passed::Frame { replica, incoming, frame, .. }) => match frame {
                RaftFrame::Message(message) if incoming => self.take_message(now, replica, *message),
                _ => {}
            },
        }
    }

    /// Hands a message to the consensus thread; those of one turn together.
    fn take_message(&mut self, now: Instant, from: u64, message: RaftMessage) {
        if self.leader.known.leader == Some(ReplicaId(from)) {
            self.leader.heard = Some(now);
        }
        if let Some(consensus::Input::Messages(batch)) = self.to_consensus.last_mut() {
            batch.push(message);
        } else {
            self.to_consensus.push(consensus::Input::Messages(vec![message]));
        }
    }

    /// Sends a message of raft, or says that it is lost.
    pub(super) fn on_raft_send(&mut self, now: Instant, message: RaftMessage) {
        let to = message.to;
        let link = self.peers.machine.links.to_replica(to);
        let link = link.filter(|_| !self.peers.machine.removed);
        let frame = RaftFrame::Message(Box::new(message));
        let sent = link.and_then(|conn| self.with_conn(now, conn, |now, c| c.send_raft(now, &frame)));
        if sent == Some(true) {
            self.peers.unreachable.remove(&to);
        } else if self.peers.unreachable.insert(to) {
            self.to_consensus.push(consensus::Input::Unreachable(ReplicaId(to)));
        }
    }

    pub(super) fn on_send_snapshot(&mut self, _now: Instant, _message: RaftMessage, _state: Arc<State>) {}

    pub(super) fn on_snapshot_chunk(
        &mut self,
        _now: Instant,
        _ticket: u64,
        _number: u32,
        _bytes: Vec<u8>,
        _last: bool,
    ) {
    }

    pub(super) fn on_snapshot_whole(&mut self, _now: Instant, _ticket: u64, _result: Result<Arc<State>, String>) {}

    pub(super) fn on_members(&mut self, now: Instant, members: Membership) {
        self.peers.machine.on_members(now, &members);
        self.peers.members = Some(members);
        self.perform_peers(now);
    }

    pub(super) fn on_progress(&mut self, _now: Instant, _progress: Vec<Progress>) {}

    pub(super) fn on_cluster_kept(&mut self, now: Instant) {
        self.peers.machine.on_kept(now);
        self.perform_peers(now);
    }

    pub(super) fn on_key_files(&mut self, _now: Instant, _files: Vec<(String, KeyFile)>) {}

    pub(super) fn on_key_kept(&mut self, _now: Instant, _key_id: &str, _error: Option<String>) {}
}
