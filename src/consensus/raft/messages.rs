//! Messages of other replicas on their way in and out.

use std::sync::Arc;

use raft::eraftpb::{Message, MessageType, SnapshotMetadata};
use raft::{CAMPAIGN_TRANSFER, SnapshotStatus, StateRole};

use super::{RaftReplica, check, wire};
use crate::base::id::ReplicaId;
use crate::base::time::Instant;
use crate::consensus::Notice;
use crate::state::State;
use crate::wire::raft::RaftMessage;

/// Reads of followers that the leader keeps in mind at most.
const READS_MAX: usize = 1024;

impl RaftReplica {
    /// Takes messages in. One that makes no sense is dropped: raft can do without any message.
    pub(super) fn take_messages(&mut self, now: Instant, messages: Vec<RaftMessage>) {
        for message in messages {
            let Some(message) = wire::from_wire(message) else { continue };
            // A snapshot comes as an input of its own, with its state.
            if message.get_msg_type() != MessageType::MsgSnapshot {
                self.take_message(now, message);
            }
        }
    }

    /// A whole snapshot came. Not taken while another one is on its way to the disk.
    pub(super) fn take_snapshot(&mut self, now: Instant, message: RaftMessage, state: Arc<State>) {
        let Some(message) = wire::from_wire(message) else { return };
        let place = message.get_snapshot().get_metadata().index;
        if message.get_msg_type() != MessageType::MsgSnapshot || state.index().0 != place || self.disk.is_installing() {
            return;
        }
        self.arriving = Some(state);
        self.take_message(now, message);
        self.advance(now);
        self.arriving = None;
    }

    fn take_message(&mut self, now: Instant, message: Message) {
        let raft = &self.node.raft;
        let seen = check::Seen {
            id: raft.id,
            term: raft.term,
            last_index: raft.raft_log.last_index(),
            leads: raft.state == StateRole::Leader,
            leader: raft.leader_id,
            knows_sender: raft.prs().get(message.from).is_some(),
        };
        if check::objection(&seen, &message).is_some() || self.declines(now, &message) {
            return;
        }
        if seen.leads && seen.knows_sender {
            self.heard.insert(message.from, now);
        }
        // An error is a message that came too late to say anything.
        let _ = self.node.step(message);
    }

    /// What makes sense, and is not answered all the same.
    fn declines(&self, now: Instant, message: &Message) -> bool {
        match message.get_msg_type() {
            MessageType::MsgRequestVote | MessageType::MsgRequestPreVote => {
                // An empty replica cannot know what it had promised. One that has just begun may have acknowledged a
                // leader, whose lease rests on that; a leader that hands over has given up its own.
                let forced = message.context == CAMPAIGN_TRANSFER;
                !self.has_configuration() || (now < self.votes_from && !forced)
            }
            MessageType::MsgTimeoutNow => self.stopping || !self.may_campaign(),
            MessageType::MsgReadIndex => self.node.raft.pending_read_count() >= READS_MAX,
            _ => false,
        }
    }

    /// Gives messages to their way out.
    pub(super) fn send(&mut self, messages: Vec<Message>) {
        for message in messages {
            match message.get_msg_type() {
                MessageType::MsgSnapshot => self.send_snapshot(&message),
                kind => {
                    if kind == MessageType::MsgTimeoutNow {
                        self.told_to_campaign();
                    }
                    self.round.others.push(Notice::Send(Box::new(wire::to_wire(&message))));
                }
            }
        }
    }

    fn send_snapshot(&mut self, message: &Message) {
        let index = message.get_snapshot().get_metadata().index;
        match self.offer.as_ref().filter(|state| state.index().0 == index) {
            Some(state) => {
                let (message, state) = (Box::new(wire::to_wire(message)), state.clone());
                self.round.others.push(Notice::SendSnapshot { message, state });
            }
            // Never the case; the crate is told that it failed, and asks again.
            None => self.node.report_snapshot(message.to, SnapshotStatus::Failure),
        }
    }

    /// Lets the crate offer the state as it is now to replicas that are too far behind. Within a joint configuration
    /// the one from before it stays on offer: a snapshot names one set of voters.
    pub(super) fn renew_offer(&mut self) {
        if !self.members.voters_outgoing.is_empty() {
            return;
        }
        if self.node.raft.state != StateRole::Leader || self.is_alone() || self.applied == 0 {
            if self.offer.take().is_some() {
                self.node.mut_store().set_offer(None);
            }
        } else if self.offer.as_ref().is_none_or(|state| state.index().0 != self.applied) {
            self.make_offer();
        }
    }

    pub(super) fn make_offer(&mut self) {
        let Ok(term) = self.node.raft.raft_log.term(self.applied) else { return };
        let mut place = SnapshotMetadata { index: self.applied, term, ..SnapshotMetadata::default() };
        place.set_conf_state(self.node.raft.prs().conf().to_conf_state());
        self.offer = Some(self.root());
        self.node.mut_store().set_offer(Some(place));
    }

    pub(super) fn unreachable(&mut self, replica: ReplicaId) {
        self.node.report_unreachable(replica.0);
    }

    pub(super) fn snapshot_sent(&mut self, to: ReplicaId, ok: bool) {
        self.node.report_snapshot(to.0, if ok { SnapshotStatus::Finish } else { SnapshotStatus::Failure });
    }
}
