//! Drives the raft crate: input to ready to output. Knows no connection, no file and no clock.
//!
//! The log is mirrored in memory ([`crate::consensus::log`]), so the crate never waits; what it wants on disk is
//! gathered while one [`Persist`] is under way and leaves in the next, so that all who wait share a sync. A group of
//! one elects itself at once and needs no tick: an idle replica has no timeout at all.
//!
//! **Invariants:** nothing is applied, and no message sent, before the disk has promised what it rests on (but for the
//! first voters of a new group, which are the same whenever they are written); at most one `Persist` is unanswered; the crate's own random election time-out is replaced before each tick, so that a
//! run replays from its seed. (Raft dissertation, chapters 3, 4 and 9.6; raft crate 0.7.)

mod apply;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use raft::eraftpb::{Entry as RaftEntry, Message, MessageType};
use raft::{Config, RawNode, StateRole};

use crate::base::id::{CallId, Index, ReplicaId, Term};
use crate::base::rng::Rng;
use crate::base::time::{Instant, SteadyTime, WallTime};
use crate::consensus::log::{MemoryLog, from_raft};
use crate::consensus::proposals::{Proposals, command_kind, resolved};
use crate::consensus::{
    HardState, Input, Leadership, Limits, Notice, Output, Persist, Proposal, Recovered, Replica, Resolution,
    SnapshotMeta,
};
use crate::state::State;
use crate::wire::entry::Entry;

/// Entries kept in memory behind a snapshot, for a replica that is a little behind.
const TAIL_ENTRIES: u64 = 1024;

/// Bytes of such entries.
const TAIL_BYTES: u64 = 1024 * 1024;

/// Bytes of entries in one message to another replica.
const MESSAGE_BYTES: u64 = 1024 * 1024;

/// Messages with entries to one replica that are not answered.
const MESSAGES_IN_FLIGHT: usize = 256;

/// Election time-outs after which a proposal of a lost leadership is given up as unknown.
const SETTLE_ELECTIONS: u32 = 4;

/// One server's part in a raft group.
pub struct RaftReplica {
    node: RawNode<MemoryLog>,
    id: ReplicaId,
    seed: u64,
    limits: Limits,
    state: State,
    applied: u64,
    /// The time of the last entry stamped or applied.
    last_time_unix_nanos: i64,
    time: SteadyTime,
    proposals: Proposals,
    leadership: Leadership,
    disk: Disk,
    snapshots: Snapshots,
    round: Round,
    outputs: VecDeque<Output>,
    next_tick: Option<Instant>,
    stopping: bool,
    failed: bool,
    #[cfg(test)]
    outbox: Vec<Message>,
}

/// What the disk was asked for, and what it is asked for next.
#[derive(Default)]
struct Disk {
    /// Goes with the next request.
    pending: Persist,
    /// Whether `pending` must be on disk before anything rests on it; a commit index alone need not be.
    pending_must_sync: bool,
    /// The crate's number of the last batch that is in `pending` or before.
    pending_number: u64,
    /// Ticket, and the crate's number of the last batch in it.
    in_flight: Option<(u64, u64)>,
    last_ticket: u64,
    /// Messages that rest on what is pending (with its number) or in flight.
    messages: VecDeque<(u64, Vec<Message>)>,
}

/// When to take a snapshot, and which there are.
struct Snapshots {
    /// The one whose writing is under way.
    writing: Option<u64>,
    /// The last one written, or found when the process began.
    last: u64,
    /// Where counting for the next one began: the last one asked for.
    counted_from: u64,
    bytes_since: u64,
}

/// What one input brought about, for one [`Output::Publish`].
#[derive(Default)]
struct Round {
    root_changed: bool,
    applied: Vec<Notice>,
    resolved: Vec<Notice>,
    others: Vec<Notice>,
}

impl RaftReplica {
    /// A replica that goes on from what the disk held.
    ///
    /// On an empty disk `bootstrap` names the first voters of the group, the same list on each of them; with `None`
    /// it has no configuration and waits for ever. A disk that holds something decides by itself. `seed` fixes all
    /// chance. Outputs wait to be polled at once.
    ///
    /// # Errors
    /// What was recovered does not fit together, or limits that the raft crate refuses. Names what.
    pub fn new(
        id: ReplicaId,
        seed: u64,
        limits: Limits,
        recovered: Recovered,
        bootstrap: Option<Vec<ReplicaId>>,
        now: Instant,
    ) -> Result<RaftReplica, String> {
        let mut log = MemoryLog::recover(&recovered)?;
        let (meta, state) = recovered.snapshot.unwrap_or_default();
        let mut disk = Disk::default();
        if let Some(voters) = bootstrap.filter(|voters| log.is_empty() && !voters.is_empty()) {
            let (entries, hard_state) = log.bootstrap(&voters)?;
            disk.pending = Persist { ticket: 0, entries, hard_state: Some(hard_state) };
            disk.pending_must_sync = true;
        }
        let config = raft_config(id, &limits, meta.index.0);
        // The crate's own log lines would need a drain of their own; what matters of them leaves as a notice.
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let node = RawNode::new(&config, log, &logger).map_err(|e| format!("raft cannot start: {e}"))?;
        let applied = meta.index.0;
        let mut replica = RaftReplica {
            node,
            id,
            seed,
            last_time_unix_nanos: state.time_unix_nanos(),
            time: SteadyTime::default(),
            state,
            applied,
            proposals: Proposals::new(limits.max_waiting_proposals),
            limits,
            leadership: Leadership::default(),
            disk,
            snapshots: Snapshots { writing: None, last: applied, counted_from: applied, bytes_since: 0 },
            round: Round::default(),
            outputs: VecDeque::new(),
            next_tick: None,
            stopping: false,
            failed: false,
            #[cfg(test)]
            outbox: Vec::new(),
        };
        replica.advance(now);
        replica.finish_round(now);
        Ok(replica)
    }

    /// The root that is reached now, also before the first [`Output::Publish`].
    pub fn root(&self) -> Arc<State> {
        Arc::new(self.state.clone())
    }

    /// Who leads, as last told.
    pub fn leadership(&self) -> &Leadership {
        &self.leadership
    }

    fn propose(&mut self, now: Instant, wall: WallTime, proposals: Vec<Proposal>) {
        if self.stopping || self.node.raft.state != StateRole::Leader {
            self.round.resolved.extend(proposals.iter().map(|one| resolved(one.id, Resolution::NotLeader)));
            return;
        }
        let mut taken = Vec::with_capacity(proposals.len());
        let mut entries = Vec::with_capacity(proposals.len());
        let mut taken_bytes = 0;
        // While a lock is held its end must not come nearer or go away because somebody sets the calendar.
        let follows = self.state.lock_count() == 0 && self.proposals.is_empty();
        let time_unix_nanos = self.time.read(now, wall, self.last_time_unix_nanos, follows);
        for proposal in proposals {
            let kind = command_kind(&proposal.command);
            let entry = Entry { time_unix_nanos, session: proposal.session, command: proposal.command };
            let data = entry.encode();
            let bytes = data.len();
            if let Some(why) = self.refuse(bytes, taken.len(), taken_bytes) {
                self.round.resolved.push(resolved(proposal.id, Resolution::Rejected(why)));
                continue;
            }
            if bytes > self.limits.warn_entry_bytes {
                self.round.others.push(Notice::LargeEntry { kind, bytes });
            }
            self.last_time_unix_nanos = time_unix_nanos;
            taken_bytes += bytes;
            taken.push((proposal.id, bytes));
            entries.push(RaftEntry { data: data.into(), ..RaftEntry::default() });
        }
        self.append(taken, entries);
    }

    fn refuse(&self, bytes: usize, more: usize, more_bytes: usize) -> Option<String> {
        if bytes > self.limits.max_entry_bytes {
            return Some(format!("entry of {bytes} bytes is over the limit of {}", self.limits.max_entry_bytes));
        }
        self.proposals.refuse(bytes, more, more_bytes)
    }

    /// Hands entries to the crate as one message: their indexes follow one another.
    fn append(&mut self, taken: Vec<(CallId, usize)>, entries: Vec<RaftEntry>) {
        if entries.is_empty() {
            return;
        }
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgPropose);
        message.from = self.id.0;
        message.set_entries(entries.into());
        let first = self.node.raft.raft_log.last_index() + 1;
        // The crate drops proposals whole, while leadership is handed over: nothing was appended then.
        if self.node.raft.step(message).is_err() {
            self.round.resolved.extend(taken.into_iter().map(|(id, _)| resolved(id, Resolution::NotLeader)));
            return;
        }
        let term = Term(self.node.raft.term);
        for (index, (id, bytes)) in (first..).zip(taken) {
            self.proposals.insert(id, Index(index), term, bytes);
        }
    }

    fn persisted(&mut self, ticket: u64) {
        let Some((_, number)) = self.disk.in_flight.take_if(|(waiting, _)| *waiting == ticket) else { return };
        self.promised(number);
        if !self.disk.pending_must_sync {
            self.promised(self.disk.pending_number);
        }
    }

    /// All batches up to this number of the crate's are on disk, or need not be.
    fn promised(&mut self, number: u64) {
        self.node.on_persist_ready(number);
        while self.disk.messages.front().is_some_and(|(after, _)| *after <= number) {
            let resting = self.disk.messages.pop_front();
            self.send(resting.map(|(_, messages)| messages).unwrap_or_default());
        }
    }

    fn snapshot_written(&mut self, index: Index) {
        if self.snapshots.writing.take_if(|writing| *writing == index.0).is_none() {
            return;
        }
        self.node.mut_store().compact(index.0, TAIL_ENTRIES, TAIL_BYTES);
        // The disk keeps the log back to the snapshot before, so that this one may turn out damaged.
        let reachable = self.snapshots.last;
        self.snapshots.last = index.0;
        if reachable > 0 {
            self.outputs.push_back(Output::Compact(Index(reachable)));
        }
    }

    fn tick(&mut self, now: Instant) {
        if self.next_tick.is_none_or(|due| now < due) {
            return;
        }
        let min = self.limits.election_ticks;
        let mixed = self.seed ^ self.id.0.rotate_left(32) ^ self.node.raft.term.rotate_left(48);
        let extra = Rng::from_seed(mixed).below(min as u64);
        self.node.raft.set_randomized_election_timeout(min + usize::try_from(extra).unwrap_or(0));
        self.node.tick();
        self.next_tick = Some(now + self.limits.tick);
    }

    fn stop(&mut self, now: Instant) {
        self.stopping = true;
        self.proposals.leadership_lost(now + self.settle_wait());
    }

    /// Takes from the crate all it has to say, and elects a group of one.
    fn advance(&mut self, now: Instant) {
        loop {
            while self.node.has_ready() && !self.failed {
                self.handle_ready(now);
            }
            if self.failed || self.stopping || !self.is_alone() || self.node.raft.state == StateRole::Leader {
                return;
            }
            // With no other voter there is no one to wait for.
            if self.node.campaign().is_err() || !self.node.has_ready() {
                return;
            }
        }
    }

    fn handle_ready(&mut self, now: Instant) {
        let mut ready = self.node.ready();
        let number = ready.number();
        self.send_or_hold(ready.take_messages(), ready.take_persisted_messages(), number);
        if let Some(hard_state) = ready.hs() {
            self.disk.pending.hard_state = Some(HardState {
                term: Term(hard_state.term),
                vote: ReplicaId(hard_state.vote),
                commit: Index(hard_state.commit),
            });
        }
        self.store_entries(&ready.take_entries());
        self.disk.pending_must_sync |= ready.must_sync();
        self.disk.pending_number = number;
        let committed = ready.take_committed_entries();
        self.node.advance_append_async(ready);
        // With nothing to wait for, the batch counts as stored: a commit index can be found again.
        if !self.disk.pending_must_sync && self.disk.in_flight.is_none() {
            self.promised(number);
        }
        self.note_leadership(now);
        self.apply(committed);
        self.note_leadership(now);
    }

    fn send_or_hold(&mut self, free: Vec<Message>, resting: Vec<Message>, number: u64) {
        self.send(free);
        if !resting.is_empty() {
            self.disk.messages.push_back((number, resting));
        }
    }

    /// Gives messages to their way out. A group of one has none.
    fn send(&mut self, messages: Vec<Message>) {
        #[cfg(test)]
        self.outbox.extend(messages);
        #[cfg(not(test))]
        drop(messages);
    }

    fn store_entries(&mut self, entries: &[RaftEntry]) {
        let Some(first) = entries.first() else { return };
        self.node.mut_store().append(entries);
        self.disk.pending.entries.retain(|entry| entry.index.0 < first.index);
        self.disk.pending.entries.extend(entries.iter().map(from_raft));
    }

    /// Tells who leads, when that changed. Marks only: what waits is settled by entries or by its deadline (R2.17).
    fn note_leadership(&mut self, now: Instant) {
        let raft = &self.node.raft;
        let is_self = raft.state == StateRole::Leader;
        let known = Leadership {
            term: Term(raft.term),
            leader: (raft.leader_id != raft::INVALID_ID).then_some(ReplicaId(raft.leader_id)),
            is_self,
            // The crate writes an empty entry when it wins: the barrier (R1.66).
            ready: is_self && raft.raft_log.term(self.applied).is_ok_and(|term| term == raft.term),
        };
        if known == self.leadership {
            return;
        }
        if is_self && !self.leadership.is_self {
            self.last_time_unix_nanos = self.last_time_unix_nanos.max(self.newest_time());
        }
        if self.leadership.is_self && (!is_self || known.term != self.leadership.term) {
            self.proposals.leadership_lost(now + self.settle_wait());
        }
        self.leadership = known.clone();
        self.round.others.push(Notice::Leadership(known));
    }

    /// The latest time among entries that are not applied; a new leader stamps none before it.
    fn newest_time(&self) -> i64 {
        let log = self.node.store();
        let times = log.after(self.applied).filter_map(|entry| Entry::decode(&entry.data).ok());
        times.map(|entry| entry.time_unix_nanos).max().unwrap_or(i64::MIN)
    }

    fn settle_wait(&self) -> Duration {
        let ticks = u32::try_from(self.limits.election_ticks).unwrap_or(u32::MAX);
        self.limits.tick.saturating_mul(ticks).saturating_mul(SETTLE_ELECTIONS)
    }

    /// Whether this replica is the only voter, with no learner.
    fn is_alone(&self) -> bool {
        let voters = self.node.raft.prs().conf().to_conf_state();
        voters.voters == [self.id.0] && voters.voters_outgoing.is_empty() && voters.learners.is_empty()
    }

    fn has_configuration(&self) -> bool {
        self.node.raft.prs().iter().next().is_some()
    }

    fn fail(&mut self, why: String) {
        self.failed = true;
        self.round.others.push(Notice::Fatal(why));
    }

    /// Queues what the input brought about: first what can be told, then what is to be written.
    fn finish_round(&mut self, now: Instant) {
        let mut round = std::mem::take(&mut self.round);
        let mut notices = std::mem::take(&mut round.applied);
        notices.append(&mut round.resolved);
        notices.append(&mut round.others);
        let root = round.root_changed.then(|| self.root());
        if root.is_some() || !notices.is_empty() {
            self.outputs.push_back(Output::Publish { root, notices });
        }
        if self.failed {
            self.next_tick = None;
            return;
        }
        self.ask_disk();
        self.ask_snapshot();
        let ticking = self.has_configuration() && !self.is_alone() && !self.stopping;
        self.next_tick = ticking.then(|| self.next_tick.unwrap_or(now + self.limits.tick));
    }

    fn ask_disk(&mut self) {
        let disk = &mut self.disk;
        if disk.in_flight.is_some() || !disk.pending_must_sync {
            return;
        }
        disk.last_ticket += 1;
        let ticket = disk.last_ticket;
        disk.in_flight = Some((ticket, disk.pending_number));
        disk.pending_must_sync = false;
        let persist = Persist { ticket, ..std::mem::take(&mut disk.pending) };
        self.outputs.push_back(Output::Persist(persist));
    }

    fn ask_snapshot(&mut self) {
        let due = self.applied.saturating_sub(self.snapshots.counted_from) >= self.limits.snapshot_entries
            || self.snapshots.bytes_since >= self.limits.snapshot_bytes;
        if !due || self.snapshots.writing.is_some() || self.stopping || self.applied == self.snapshots.last {
            return;
        }
        let conf = self.node.raft.prs().conf().to_conf_state();
        // Half-way through a change of members there are two sets of voters: wait for its end.
        if !conf.voters_outgoing.is_empty() {
            return;
        }
        let Ok(term) = self.node.raft.raft_log.term(self.applied) else { return };
        let ids = |ids: &[u64]| {
            let mut ids: Vec<ReplicaId> = ids.iter().copied().map(ReplicaId).collect();
            ids.sort_unstable();
            ids
        };
        let meta = SnapshotMeta {
            index: Index(self.applied),
            term: Term(term),
            voters: ids(&conf.voters),
            learners: ids(&conf.learners),
        };
        self.snapshots.writing = Some(self.applied);
        self.snapshots.counted_from = self.applied;
        self.snapshots.bytes_since = 0;
        self.outputs.push_back(Output::WriteSnapshot(meta, self.root()));
    }
}

impl Replica for RaftReplica {
    fn handle_input(&mut self, now: Instant, wall: WallTime, input: Input) {
        if self.failed {
            return;
        }
        match input {
            Input::Propose(proposals) => self.propose(now, wall, proposals),
            Input::Persisted { ticket } => self.persisted(ticket),
            Input::SnapshotWritten { index } => self.snapshot_written(index),
            Input::Timeout => {
                self.tick(now);
                self.round.resolved.extend(self.proposals.expire(now));
            }
            Input::Stop => self.stop(now),
            Input::Messages(_)
            | Input::Unreachable(_)
            | Input::SnapshotSent { .. }
            | Input::SnapshotReceived { .. }
            | Input::Bootstrap(_)
            | Input::ReadIndex { .. }
            | Input::ChangeMember { .. }
            | Input::Transfer { .. } => {}
        }
        self.advance(now);
        self.finish_round(now);
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        if self.failed {
            return None;
        }
        [self.next_tick, self.proposals.poll_timeout()].into_iter().flatten().min()
    }
}

fn raft_config(id: ReplicaId, limits: &Limits, applied: u64) -> Config {
    Config {
        id: id.0,
        election_tick: limits.election_ticks,
        heartbeat_tick: limits.heartbeat_ticks,
        applied,
        max_size_per_msg: MESSAGE_BYTES,
        max_inflight_msgs: MESSAGES_IN_FLIGHT,
        check_quorum: true,
        pre_vote: true,
        ..Config::default()
    }
}

#[cfg(test)]
mod tests;
