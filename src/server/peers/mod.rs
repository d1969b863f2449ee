//! Other servers of the region: who they are, the links to them, how they become and stop being members.
//!
//! [`machine::Machine`] decides about links, hellos and the founding; here it meets the connections and the consensus
//! thread.

mod book;
mod digest;
mod facts;
mod founding;
mod keys;
mod links;
mod machine;
pub(super) mod members;
mod snapshots;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod whole;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use log::Level;

use crate::base::id::{ConnId, ReplicaId};
use crate::base::time::{Instant, WallTime};
use crate::consensus::{self, Membership, Progress};
use crate::wire::raft::{Beat, RaftFrame, RaftMessage};

use self::digest::Digests;
use self::keys::Exchange;
use self::machine::{Act, Machine, Passed};
use self::members::Changes;
use self::snapshots::Transfers;
use super::Server;
use super::links::Via;
use super::port::{ClusterOutput, Settings};

/// Between two looks at servers, keys and members, while there are other servers.
const LOOK: Duration = Duration::from_millis(250);

/// What is known of other servers.
#[derive(Debug)]
pub(super) struct Peers {
    pub(super) machine: Machine,
    /// Who is a member, once that is told.
    pub(super) members: Option<Membership>,
    /// How far each member is; on the leader.
    pub(super) progress: BTreeMap<u64, Progress>,
    /// Where this server's own log was when that was told.
    pub(super) progress_index: u64,
    pub(super) changes: Changes,
    pub(super) keys: Exchange,
    pub(super) transfers: Transfers,
    pub(super) digests: Digests,
    /// Replicas that the consensus thread was told of as unreachable, until something was sent again.
    unreachable: BTreeSet<u64>,
    /// When all this is looked at next; none while this server is alone.
    look_at: Option<Instant>,
    /// It was said that keys travel in the clear.
    warned_of_clear_keys: bool,
}

impl Peers {
    pub(super) fn new(settings: &Settings, now: Instant, wall: WallTime) -> Peers {
        Peers {
            machine: Machine::new(settings, now, wall),
            members: None,
            progress: BTreeMap::new(),
            progress_index: 0,
            changes: Changes::default(),
            keys: Exchange::default(),
            transfers: Transfers::default(),
            digests: Digests::default(),
            unreachable: BTreeSet::new(),
            look_at: None,
            warned_of_clear_keys: false,
        }
    }

    /// When something is due.
    pub(super) fn next(&self) -> Option<Instant> {
        let times = [self.machine.next(), self.look_at, self.changes.look_at, self.keys.next(), self.transfers.next()];
        times.into_iter().flatten().min()
    }

    /// Whether a replica has a vote.
    pub(super) fn is_voter(&self, replica: u64) -> bool {
        self.members.as_ref().is_some_and(|members| members.voters.contains(&ReplicaId(replica)))
    }

    /// Whether a replica is a member, with a vote or without. One that is about to go is one until it is gone: of two
    /// members its word is needed for that.
    pub(super) fn is_member(&self, replica: u64) -> bool {
        let replica = ReplicaId(replica);
        self.members.as_ref().is_some_and(|members| {
            [&members.voters, &members.learners, &members.voters_outgoing].iter().any(|all| all.contains(&replica))
        })
    }
}

impl Server {
    pub(super) fn on_peers_due(&mut self, now: Instant) {
        if self.peers.next().is_none_or(|due| now < due) {
            return;
        }
        self.refresh_own_beat();
        self.peers.machine.on_due(now);
        self.perform_peers(now);
        self.on_transfers_due(now);
        self.on_exchange_due(now);
        self.look_at_members(now);
        if self.peers.look_at.is_some_and(|at| at <= now) {
            self.peers.look_at = None;
            self.peers.unreachable.clear();
            self.look_at_keys(now);
            self.look_at_digests(now);
            self.refresh_servers(now);
        }
        self.perform_peers(now);
    }

    /// What beats say of this server.
    fn refresh_own_beat(&mut self) {
        let known = &self.leader.known;
        let (digest_index, digest) = self.peers.digests.own();
        self.peers.machine.own_beat = Beat {
            number: 0,
            term: known.term.0,
            applied: self.notified_index,
            last_index: self.notified_index,
            leader: known.leader.map_or(0, |leader| leader.0),
            leaving: self.is_leaving(),
            digest_index,
            digest,
        };
    }

    /// Does what the machine wants done.
    fn perform_peers(&mut self, now: Instant) {
        if self.peers.look_at.is_none() && !self.is_alone() {
            self.peers.look_at = Some(now + LOOK);
        }
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
                Act::Keep(file) => self.output_for_cluster(ClusterOutput::KeepCluster(file)),
                Act::Found(voters) => self.to_consensus.push(consensus::Input::Bootstrap(voters)),
                Act::Regions(regions) => self.learn_regions(&regions),
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
        let server = self.peers.machine.on_closed(now, id, address);
        let replica = server.and_then(|id| Some(self.peers.machine.book.peer(&id)?.server.replica));
        if let Some(replica) = replica {
            self.pause_sending(replica);
        }
        self.perform_peers(now);
    }

    pub(super) fn on_raft_frame(&mut self, now: Instant, id: ConnId, frame: RaftFrame) {
        self.refresh_own_beat();
        let passed = self.peers.machine.on_frame(now, id, frame);
        self.perform_peers(now);
        match passed {
            None => {}
            Some(Passed::News) => {
                self.refresh_servers(now);
                self.look_soon(now);
            }
            Some(Passed::Up(replica)) => {
                self.peers.unreachable.remove(&replica);
                self.begin_sending(now, replica);
                self.warn_of_clear_keys();
                self.refresh_servers(now);
                self.look_soon(now);
            }
            Some(Passed::Frame { replica, incoming, frame }) => match frame {
                RaftFrame::Message(message) if incoming => self.take_message(now, replica, *message),
                RaftFrame::KeysWanted { .. } | RaftFrame::Key { .. } | RaftFrame::KeyKept { .. } => {
                    self.on_key_frame(now, id, replica, frame);
                }
                _ => self.on_snapshot_frame(now, id, replica, frame),
            },
        }
    }

    /// Sends a frame on a link; false when the link is gone or has too much to send.
    fn send_frame(&mut self, now: Instant, conn: ConnId, frame: &RaftFrame) -> bool {
        self.with_conn(now, conn, |now, c| c.send_raft(now, frame)).unwrap_or(false)
    }

    /// All servers are told that this one stops.
    pub(super) fn say_leaving(&mut self, now: Instant) {
        self.refresh_own_beat();
        self.peers.machine.beat_now(now);
        self.perform_peers(now);
    }

    /// Without TLS whoever listens between servers reads the keys.
    fn warn_of_clear_keys(&mut self) {
        if self.settings.dial_tls.is_none() && !std::mem::replace(&mut self.peers.warned_of_clear_keys, true) {
            let text = "servers are linked without TLS: keys of the key ring travel between them in the clear";
            self.log(Level::Warn, text.to_owned());
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
        if link.is_some_and(|conn| self.send_frame(now, conn, &frame)) {
            self.peers.unreachable.remove(&to);
        } else if self.peers.unreachable.insert(to) {
            self.to_consensus.push(consensus::Input::Unreachable(ReplicaId(to)));
        }
    }

    pub(super) fn on_cluster_kept(&mut self, now: Instant) {
        self.peers.machine.on_kept(now);
        self.perform_peers(now);
        self.refresh_servers(now);
        self.look_soon(now);
    }
}
