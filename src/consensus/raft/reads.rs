//! Reads of what is true now: the leader is asked for its commit index, confirms by a round of heartbeats that it
//! leads, and the read is ready once that much is applied here. (Raft dissertation 6.4.)
//!
//! Reads that come while one question is under way share the next one. A question that is not answered is asked anew:
//! the crate drops it where nobody leads, and any later answer is as good.

use std::collections::BTreeMap;

use raft::ReadState;

use super::RaftReplica;
use crate::base::id::{CallId, ReplicaId};
use crate::base::time::Instant;

/// Begins the context of a leader's own heartbeats.
pub(super) const LEASE: u8 = 1;

/// Begins the context of a read.
const READ: u8 = 2;

/// Reads that wait at most; one more fails at once.
const WAITING_MAX: usize = 65_536;

/// Election time-outs that a read waits at most.
const WAIT_ELECTIONS: u32 = 4;

/// Reads under way.
#[derive(Default)]
pub(super) struct Reads {
    /// Came since the last question.
    fresh: Vec<Waiting>,
    /// The last question: its number, and when it is asked anew.
    asked: Option<(u64, Instant)>,
    /// Who waits for the answer of a question.
    waiting: BTreeMap<u64, Vec<Waiting>>,
    /// The commit index is known, and not yet applied.
    confirmed: Vec<(u64, Waiting)>,
    last: u64,
    count: usize,
}

#[derive(Clone, Copy)]
struct Waiting {
    id: CallId,
    until: Instant,
}

impl Reads {
    /// When [`RaftReplica::expire_reads`] is wanted.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let waiting = self.waiting.values().flatten().chain(&self.fresh);
        // They come in the order of their deadlines, but for those that are asked for anew.
        let ends = waiting.chain(self.confirmed.iter().map(|(_, one)| one)).map(|one| one.until).min();
        ends.into_iter().chain(self.asked.map(|(_, again)| again)).min()
    }
}

/// Names a question among all that the group's replicas ever ask: an answer to an older one would be stale.
pub(super) fn context(kind: u8, id: ReplicaId, seed: u64, number: u64, at: Instant) -> Vec<u8> {
    let mut bytes = vec![kind];
    for part in [id.0, seed, number, at.as_nanos()] {
        bytes.extend_from_slice(&part.to_be_bytes());
    }
    bytes
}

/// Number and time of a context that this replica made.
fn parse_context(bytes: &[u8], id: ReplicaId, seed: u64) -> Option<(u8, u64, Instant)> {
    let (kind, rest) = bytes.split_first()?;
    let part = |at: usize| rest.get(at..at + 8)?.try_into().ok().map(u64::from_be_bytes);
    if rest.len() != 32 || part(0)? != id.0 || part(8)? != seed {
        return None;
    }
    Some((*kind, part(16)?, Instant::from_nanos(part(24)?)))
}

impl RaftReplica {
    pub(super) fn read(&mut self, now: Instant, id: CallId) {
        if self.node.raft.leader_id == raft::INVALID_ID || self.stopping || self.reads.count >= WAITING_MAX {
            self.tell_read(id, false);
            return;
        }
        let until = now + self.election_timeout().saturating_mul(WAIT_ELECTIONS);
        self.reads.count += 1;
        self.reads.fresh.push(Waiting { id, until });
    }

    /// Asks for those that came since the last question, once that is answered.
    pub(super) fn ask_reads(&mut self, now: Instant) {
        if self.reads.asked.is_some() || self.reads.fresh.is_empty() {
            return;
        }
        self.reads.last += 1;
        let number = self.reads.last;
        let fresh = std::mem::take(&mut self.reads.fresh);
        self.reads.waiting.insert(number, fresh);
        let ticks = u32::try_from(self.limits.heartbeat_ticks).unwrap_or(1);
        self.reads.asked = Some((number, now + self.limits.tick.saturating_mul(ticks)));
        self.node.read_index(context(READ, self.id, self.seed, number, now));
    }

    /// Answers of the leader, or of the quorum to this leader.
    pub(super) fn take_read_states(&mut self, now: Instant, states: Vec<ReadState>) {
        for state in states {
            let Some((kind, number, sent)) = parse_context(&state.request_ctx, self.id, self.seed) else { continue };
            if kind == LEASE {
                self.renew_lease(sent);
                continue;
            }
            self.reads.asked.take_if(|(asked, _)| *asked <= number);
            // An answer to a later question answers the earlier ones too.
            let later = self.reads.waiting.split_off(&(number + 1));
            let answered = std::mem::replace(&mut self.reads.waiting, later);
            self.reads.confirmed.extend(answered.into_values().flatten().map(|one| (state.index, one)));
        }
        self.answer_reads(now);
    }

    /// Ends the wait of reads whose index is applied.
    pub(super) fn answer_reads(&mut self, now: Instant) {
        if self.reads.confirmed.is_empty() {
            return;
        }
        let applied = self.applied;
        let confirmed = std::mem::take(&mut self.reads.confirmed);
        for (index, one) in confirmed {
            if index > applied && now < one.until {
                self.reads.confirmed.push((index, one));
            } else {
                self.reads.count -= 1;
                self.tell_read(one.id, index <= applied);
            }
        }
    }

    /// Ends the wait of reads whose time is over, and asks again for the others.
    pub(super) fn expire_reads(&mut self, now: Instant) {
        if self.reads.count == 0 {
            return;
        }
        if self.reads.asked.take_if(|(_, again)| now >= *again).is_some() {
            let mut again: Vec<Waiting> = std::mem::take(&mut self.reads.waiting).into_values().flatten().collect();
            again.append(&mut self.reads.fresh);
            self.reads.fresh = again;
        }
        self.answer_reads(now);
        let late: Vec<CallId> = self.reads.fresh.iter().filter(|one| now >= one.until).map(|one| one.id).collect();
        self.reads.fresh.retain(|one| now < one.until);
        let mut later = late;
        for waiting in self.reads.waiting.values_mut() {
            later.extend(waiting.iter().filter(|one| now >= one.until).map(|one| one.id));
            waiting.retain(|one| now < one.until);
        }
        self.reads.count -= later.len();
        for id in later {
            self.tell_read(id, false);
        }
    }
}
