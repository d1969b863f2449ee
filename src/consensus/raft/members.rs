//! Who is a member: changes by joint consensus, one at a time, and how far each member is. (Raft dissertation 4.3.)

use std::collections::BTreeSet;

use protobuf::Message as _;
use raft::eraftpb::{
    ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, Entry as RaftEntry, EntryType, Message,
    MessageType,
};
use raft::{ProgressState, StateRole};

use super::{RaftReplica, wire};
use crate::base::id::{CallId, Index, ReplicaId, Term};
use crate::base::time::Instant;
use crate::consensus::proposals::resolved;
use crate::consensus::{LEASE_FOR_EVER, MemberChange, Membership, Notice, Progress, Resolution};
use crate::state::ApplyResult;

/// Entries that a learner may lack when it gets its vote.
const PROMOTE_LAG_MAX: u64 = 1000;

/// A change that was appended and has not come to its end.
pub(super) struct Changing {
    id: CallId,
    index: Index,
    term: Term,
    /// The first entry was applied: what is left is the way out of the joint configuration.
    entered: bool,
}

impl RaftReplica {
    pub(super) fn change_member(&mut self, now: Instant, id: CallId, change: MemberChange) {
        if self.stopping || self.node.raft.state != StateRole::Leader {
            self.round.resolved.push(resolved(id, Resolution::NotLeader));
            return;
        }
        if let Some(why) = self.refuse_change(change) {
            self.round.resolved.push(resolved(id, Resolution::Rejected(why)));
            return;
        }
        let gone = match change {
            MemberChange::Remove(gone) | MemberChange::Replace { old: gone, .. } => Some(gone),
            MemberChange::AddLearner(_) | MemberChange::Promote(_) => None,
        };
        if gone == Some(self.id) {
            // Whoever leads next is asked again: nothing was appended.
            self.hand_over_before_removal(now, id);
            return;
        }
        match self.append_change(&conf_change(change, self.is_voter(gone))) {
            Ok(place) => self.changing = Some(Changing { id, index: place.0, term: place.1, entered: false }),
            Err(why) => self.round.resolved.push(resolved(id, Resolution::Rejected(why))),
        }
    }

    fn refuse_change(&self, change: MemberChange) -> Option<String> {
        if self.changing.is_some() || self.node.raft.has_pending_conf() || !self.members.voters_outgoing.is_empty() {
            return Some("another change of members is under way".to_owned());
        }
        if !self.leadership.ready {
            return Some("this leader has not yet agreed on an entry of its own".to_owned());
        }
        if self.handing_over.is_some() {
            return Some("leadership is being handed over".to_owned());
        }
        let is_voter = |id: ReplicaId| self.members.voters.contains(&id);
        let is_learner = |id: ReplicaId| self.members.learners.contains(&id);
        match change {
            MemberChange::AddLearner(id) if id.0 == 0 => Some("0 names no replica".to_owned()),
            MemberChange::AddLearner(id) if is_voter(id) || is_learner(id) => {
                Some(format!("replica {id} is a member already"))
            }
            MemberChange::AddLearner(_) => None,
            MemberChange::Promote(id) => self.refuse_vote(id),
            MemberChange::Remove(id) if self.members.voters == [id] => {
                Some("the last member with a vote cannot be removed".to_owned())
            }
            MemberChange::Remove(id) => {
                (!is_voter(id) && !is_learner(id)).then(|| format!("replica {id} is not a member"))
            }
            MemberChange::Replace { old, .. } if !is_voter(old) => Some(format!("replica {old} has no vote")),
            MemberChange::Replace { new, .. } => self.refuse_vote(new),
        }
    }

    /// Why this one gets no vote now.
    fn refuse_vote(&self, id: ReplicaId) -> Option<String> {
        if !self.members.learners.contains(&id) {
            return Some(format!("replica {id} is not a member without a vote"));
        }
        let raft = &self.node.raft;
        let progress = raft.prs().get(id.0)?;
        if progress.state == ProgressState::Snapshot {
            return Some(format!("replica {id} is getting a snapshot"));
        }
        let lag = raft.raft_log.last_index().saturating_sub(progress.matched);
        (lag > PROMOTE_LAG_MAX).then(|| format!("replica {id} is {lag} entries behind"))
    }

    fn is_voter(&self, id: Option<ReplicaId>) -> bool {
        id.is_some_and(|id| self.members.voters.contains(&id))
    }

    fn append_change(&mut self, change: &ConfChangeV2) -> Result<(Index, Term), String> {
        let data = change.write_to_bytes().map_err(|e| format!("the change cannot be encoded: {e}"))?;
        let mut entry = RaftEntry { data: data.into(), ..RaftEntry::default() };
        entry.set_entry_type(EntryType::EntryConfChangeV2);
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgPropose);
        message.from = self.id.0;
        message.set_entries(vec![entry].into());
        let place = (Index(self.node.raft.raft_log.last_index() + 1), Term(self.node.raft.term));
        self.node.raft.step(message).map_err(|_| "the change cannot be made now".to_owned())?;
        Ok(place)
    }

    /// An entry was applied, perhaps of a change that somebody waits for.
    pub(super) fn settle_change(&mut self, index: Index, term: Term) {
        let Some(changing) = &mut self.changing else { return };
        if !changing.entered {
            if index < changing.index {
                return;
            }
            if (index, term) != (changing.index, changing.term) {
                self.end_change(Resolution::NotLeader);
                return;
            }
            changing.entered = true;
        }
        if self.members.voters_outgoing.is_empty() {
            self.end_change(Resolution::Applied { index, result: ApplyResult::Done });
        }
    }

    /// A snapshot took the place of entries up to `index`.
    pub(super) fn changing_skipped(&mut self, index: Index) {
        if self.changing.as_ref().is_some_and(|changing| changing.index <= index) {
            self.end_change(Resolution::Unknown);
        }
    }

    /// Nobody waits for ever for a change that a lost leadership left behind.
    pub(super) fn give_change_up(&mut self) {
        // What was entered is certain; it is left by whoever leads.
        let entered = self.changing.as_ref().filter(|changing| changing.entered).map(|changing| changing.index);
        let resolution = match entered {
            Some(index) => Resolution::Applied { index, result: ApplyResult::Done },
            None => Resolution::Unknown,
        };
        self.end_change(resolution);
    }

    fn end_change(&mut self, resolution: Resolution) {
        if let Some(changing) = self.changing.take() {
            self.round.resolved.push(resolved(changing.id, resolution));
        }
    }

    /// Tells who is a member, when that changed.
    pub(super) fn note_members(&mut self) {
        let conf = self.node.raft.prs().conf().to_conf_state();
        let mut learners = conf.learners.clone();
        learners.extend_from_slice(&conf.learners_next);
        let members = Membership {
            voters: wire::sorted(&conf.voters),
            learners: wire::sorted(&learners),
            voters_outgoing: wire::sorted(&conf.voters_outgoing),
        };
        if members != self.members {
            let kept: BTreeSet<u64> = self.node.raft.prs().iter().map(|(id, _)| *id).collect();
            self.heard.retain(|id, _| kept.contains(id));
            self.members = members.clone();
            self.round.others.push(Notice::Members(members));
        }
    }

    /// A leader that is no voter any more leaves at once: the crate would stumble over its own absence. It hands over
    /// to the one that is farthest along.
    pub(super) fn leave_if_removed(&mut self) {
        let raft = &self.node.raft;
        if raft.state != StateRole::Leader || self.members.voters.contains(&self.id) {
            return;
        }
        if !self.members.voters_outgoing.is_empty() && self.members.voters_outgoing.contains(&self.id) {
            return;
        }
        let next = self.members.voters.iter().max_by_key(|id| raft.prs().get(id.0).map(|one| one.matched)).copied();
        self.set_lease(Instant::ZERO);
        self.lease_barred = true;
        if let Some(next) = next {
            self.node.raft.send_timeout_now(next.0);
        }
        let term = self.node.raft.term;
        self.node.raft.become_follower(term, raft::INVALID_ID);
    }

    /// How far each member is; now and then, and when one comes or goes.
    pub(super) fn note_progress(&mut self, now: Instant) {
        let raft = &self.node.raft;
        if raft.state != StateRole::Leader || self.is_alone() {
            return;
        }
        let limit = self.election_timeout();
        let active: BTreeSet<u64> =
            self.heard.iter().filter(|(_, at)| now.since(**at) < limit).map(|(id, _)| *id).collect();
        if self.progress_at.is_some_and(|at| now < at) && active == self.active {
            return;
        }
        self.progress_at = Some(now + super::PROGRESS_EVERY);
        let mut progress: Vec<Progress> = raft
            .prs()
            .iter()
            .map(|(id, one)| Progress {
                replica: ReplicaId(*id),
                matched: Index(one.matched),
                heard: if *id == self.id.0 { Some(now) } else { self.heard.get(id).copied() },
                snapshot: one.state == ProgressState::Snapshot,
            })
            .collect();
        progress.sort_unstable_by_key(|one| one.replica);
        self.active = active;
        self.round.others.push(Notice::Progress(progress));
    }

    /// Whether this replica is the only member.
    pub(super) fn is_alone(&self) -> bool {
        self.members.voters == [self.id] && self.members.voters_outgoing.is_empty() && self.members.learners.is_empty()
    }

    /// The lease of a group with one voter has no end; that of a leader of others begins with a round of heartbeats.
    pub(super) fn fit_lease(&mut self) {
        let leads = self.node.raft.state == StateRole::Leader;
        if leads && !self.lease_barred && self.node.raft.prs().is_singleton() {
            self.set_lease(LEASE_FOR_EVER);
        } else if !leads || self.lease == LEASE_FOR_EVER {
            self.set_lease(Instant::ZERO);
        }
    }
}

fn conf_change(change: MemberChange, gone_votes: bool) -> ConfChangeV2 {
    use ConfChangeType::{AddLearnerNode, AddNode, RemoveNode};
    let (singles, joint) = match change {
        MemberChange::AddLearner(id) => (vec![(AddLearnerNode, id)], false),
        MemberChange::Promote(id) => (vec![(AddNode, id)], true),
        MemberChange::Remove(id) => (vec![(RemoveNode, id)], gone_votes),
        MemberChange::Replace { old, new } => (vec![(RemoveNode, old), (AddNode, new)], true),
    };
    let mut whole = ConfChangeV2::default();
    whole.set_transition(if joint { ConfChangeTransition::Implicit } else { ConfChangeTransition::Auto });
    for (kind, id) in singles {
        let mut single = ConfChangeSingle { node_id: id.0, ..ConfChangeSingle::default() };
        single.set_change_type(kind);
        whole.mut_changes().push(single);
    }
    whole
}
