//! Time on a replica: ticks, a leader's heartbeats and the lease they renew, handing over, stopping.
//!
//! **Invariant:** a lease ends before any follower that answered its heartbeat could help elect another: it runs from
//! the time the heartbeat was sent, and the follower's patience from the time it came. (Raft dissertation 6.4.1.)

use raft::{ProgressState, StateRole};

use super::{RaftReplica, reads};
use crate::base::id::{CallId, Index, ReplicaId};
use crate::base::rng::Rng;
use crate::base::time::Instant;
use crate::consensus::proposals::resolved;
use crate::consensus::{LEASE_FOR_EVER, Notice, Resolution};
use crate::state::ApplyResult;

/// Reads under way at most while the leader asks for a lease too.
const READS_MAX: usize = 1024;

/// Leadership on its way to another.
pub(super) struct HandingOver {
    /// Who waits for it, and how he is answered when it went well.
    asked: Option<(CallId, Asked)>,
    /// When it has failed.
    until: Instant,
    /// The other one was told to campaign, with the right to be heard by those who follow this leader.
    told: bool,
}

/// What handing over was asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    Transfer,
    /// So that another removes this one.
    Removal,
}

impl RaftReplica {
    /// Ticks from a leader's silence to an election, as a time.
    pub(super) fn election_timeout(&self) -> std::time::Duration {
        let ticks = u32::try_from(self.limits.election_ticks).unwrap_or(u32::MAX);
        self.limits.tick.saturating_mul(ticks)
    }

    pub(super) fn tick(&mut self, now: Instant) {
        if self.next_tick.is_none_or(|due| now < due) {
            return;
        }
        self.next_tick = Some(now + self.limits.tick);
        let min = self.limits.election_ticks;
        let mixed = self.seed ^ self.id.0.rotate_left(32) ^ self.node.raft.term.rotate_left(48);
        let extra = Rng::from_seed(mixed).below((min as u64 / 2).max(1));
        self.node.raft.set_randomized_election_timeout(min + usize::try_from(extra).unwrap_or(0));
        if self.node.raft.state == StateRole::Leader || self.may_campaign() {
            self.node.tick();
        }
        if self.node.raft.state == StateRole::Leader {
            self.ticks_since_beat += 1;
            if self.ticks_since_beat >= self.limits.heartbeat_ticks {
                self.beat(now);
            }
            self.note_progress(now);
        }
    }

    /// Whether an election could be won and led from here.
    pub(super) fn may_campaign(&self) -> bool {
        let raft = &self.node.raft;
        // With no other voter the crate elects itself on the spot, and takes all of its log for stored.
        let stored = !raft.prs().is_singleton() || raft.raft_log.persisted == raft.raft_log.last_index();
        stored && !self.stopping && !self.disk.is_installing() && !self.disk.is_stalled()
    }

    /// One round of heartbeats. As a read of the leader's own it tells when a quorum has answered.
    pub(super) fn beat(&mut self, now: Instant) {
        self.ticks_since_beat = 0;
        let raft = &self.node.raft;
        let plain = raft.prs().is_singleton()
            || !raft.commit_to_current_term()
            || self.lease_barred
            || raft.pending_read_count() >= READS_MAX;
        if plain {
            self.node.ping();
        } else {
            self.beats += 1;
            self.node.read_index(reads::context(reads::LEASE, self.id, self.seed, self.beats, now));
        }
    }

    /// A quorum has answered a heartbeat sent at this time.
    pub(super) fn renew_lease(&mut self, sent: Instant) {
        if self.node.raft.state != StateRole::Leader || self.lease_barred || self.lease == LEASE_FOR_EVER {
            return;
        }
        let patience = self.election_timeout().saturating_sub(self.limits.tick);
        self.set_lease(self.lease.max(sent + patience / 10 * 9));
    }

    pub(super) fn set_lease(&mut self, until: Instant) {
        if until != self.lease {
            self.lease = until;
            self.round.lease = Some(until);
        }
    }

    pub(super) fn transfer(&mut self, now: Instant, id: CallId, to: Option<ReplicaId>) {
        if self.stopping || self.node.raft.state != StateRole::Leader {
            self.round.resolved.push(resolved(id, Resolution::NotLeader));
        } else if let Err(why) = self.hand_over(now, to, Some((id, Asked::Transfer))) {
            self.round.resolved.push(resolved(id, Resolution::Rejected(why)));
        }
    }

    pub(super) fn hand_over_before_removal(&mut self, now: Instant, id: CallId) {
        if let Err(why) = self.hand_over(now, None, Some((id, Asked::Removal))) {
            self.round.resolved.push(resolved(id, Resolution::Rejected(why)));
        }
    }

    fn hand_over(&mut self, now: Instant, to: Option<ReplicaId>, asked: Option<(CallId, Asked)>) -> Result<(), String> {
        if self.handing_over.is_some() {
            return Err("leadership is being handed over".to_owned());
        }
        let to = match to {
            Some(to) if to == self.id => return Err("it leads already".to_owned()),
            Some(to) if !self.members.voters.contains(&to) => return Err(format!("replica {to} has no vote")),
            Some(to) => to,
            None => self.successor(now).ok_or("no other member can be reached")?,
        };
        self.set_lease(Instant::ZERO);
        self.lease_barred = true;
        self.handing_over = Some(HandingOver { asked, until: now + self.election_timeout(), told: false });
        self.node.transfer_leader(to.0);
        Ok(())
    }

    /// The voter that is farthest along, among those that were heard lately.
    fn successor(&self, now: Instant) -> Option<ReplicaId> {
        let raft = &self.node.raft;
        let heard = |id: &ReplicaId| self.heard.get(&id.0).is_some_and(|at| now.since(*at) < self.election_timeout());
        let others = self.members.voters.iter().filter(|id| **id != self.id && heard(id)).copied();
        let progress = others.filter_map(|id| raft.prs().get(id.0).map(|one| (id, one)));
        let able = progress.filter(|(_, one)| one.state != ProgressState::Snapshot);
        able.max_by_key(|(_, one)| one.matched).map(|(id, _)| id)
    }

    /// Another replica is being told to campaign at once.
    pub(super) fn told_to_campaign(&mut self) {
        if let Some(handing_over) = &mut self.handing_over {
            handing_over.told = true;
        }
    }

    /// Ends a hand-over that has come to its end, in time or not.
    pub(super) fn watch_hand_over(&mut self, now: Instant) {
        let Some(handing_over) = &self.handing_over else { return };
        let leads = self.node.raft.state == StateRole::Leader;
        let elsewhere = !leads && self.node.raft.leader_id != raft::INVALID_ID;
        if !elsewhere && now < handing_over.until {
            return;
        }
        let (told, asked) = (handing_over.told, handing_over.asked);
        self.handing_over = None;
        if let Some((id, why)) = asked {
            let resolution = match (elsewhere, why) {
                (true, Asked::Transfer) => {
                    Resolution::Applied { index: Index(self.applied), result: ApplyResult::Done }
                }
                // Nothing was appended: whoever leads now is to be asked.
                (true, Asked::Removal) => Resolution::NotLeader,
                (false, _) => Resolution::Rejected("leadership was not handed over in time".to_owned()),
            };
            self.round.resolved.push(resolved(id, resolution));
        }
        if !leads {
            return;
        }
        self.node.raft.abort_leader_transfer();
        if told || self.stopping {
            // What it was told may still come, and its campaign would be heard whatever this leader's lease says: no
            // lease again in this term. In later terms it does no harm: it is of this term, so whoever has seen a later
            // one drops it, and whoever has not campaigns for just the next term. A leader of that one was elected by
            // a majority whose votes in it are given and on disk; a leader of one after that was elected by a majority
            // that answers no campaign for an earlier term. Neither can lose its lease to it.
            self.become_follower();
        } else {
            self.lease_barred = false;
        }
    }

    /// Gives leadership up where it does harm, to the one that can go on at once if there is one.
    pub(super) fn step_down(&mut self, now: Instant) {
        self.set_lease(Instant::ZERO);
        self.lease_barred = true;
        let last = self.node.raft.raft_log.last_index();
        let next = self.successor(now);
        let next = next.filter(|id| self.node.raft.prs().get(id.0).is_some_and(|one| one.matched == last));
        if let Some(next) = next {
            self.node.raft.send_timeout_now(next.0);
        }
        self.become_follower();
    }

    fn become_follower(&mut self) {
        self.set_lease(Instant::ZERO);
        let term = self.node.raft.term;
        self.node.raft.become_follower(term, raft::INVALID_ID);
    }

    /// The server is about to end: another leads, if there is one, and what waits gets a while.
    pub(super) fn stop(&mut self, now: Instant) {
        if self.stopping {
            return;
        }
        if self.node.raft.state == StateRole::Leader
            && !self.node.raft.prs().is_singleton()
            && self.handing_over.is_none()
        {
            // With nobody to hand over to it just ends.
            let _ = self.hand_over(now, None, None);
        }
        self.stopping = true;
        self.proposals.leadership_lost(now + self.settle_wait());
        if self.changing.is_some() {
            self.change_until.get_or_insert(now + self.settle_wait());
        }
    }

    /// Leadership came or went.
    pub(super) fn leadership_changed(&mut self, now: Instant, gained: bool) {
        self.heard.clear();
        self.active.clear();
        self.progress_at = None;
        self.ticks_since_beat = 0;
        if gained {
            self.lease_barred = false;
            self.last_time_unix_nanos = self.last_time_unix_nanos.max(self.newest_time());
        } else {
            self.set_lease(Instant::ZERO);
            self.proposals.leadership_lost(now + self.settle_wait());
            if self.changing.is_some() {
                self.change_until = Some(now + self.settle_wait());
            }
        }
    }

    /// What ends by itself when nothing else ends it.
    pub(super) fn expire(&mut self, now: Instant) {
        self.round.resolved.extend(self.proposals.expire(now));
        if self.changing.is_none() {
            self.change_until = None;
        } else if self.change_until.is_some_and(|until| now >= until) {
            self.change_until = None;
            self.give_change_up();
        }
        self.expire_reads(now);
        self.watch_disk(now);
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let disk = if self.is_alone() { None } else { self.disk.poll_timeout(self.limits.stalled_sync) };
        let handing_over = self.handing_over.as_ref().map(|one| one.until);
        let change = self.change_until.filter(|_| self.changing.is_some());
        let all =
            [self.next_tick, self.proposals.poll_timeout(), disk, handing_over, change, self.reads.poll_timeout()];
        all.into_iter().flatten().min()
    }

    /// Tells a read's end.
    pub(super) fn tell_read(&mut self, id: CallId, ok: bool) {
        self.round.others.push(Notice::ReadReady { id, ok });
    }
}
