//! Drives the raft crate: input to ready to output. Knows no connection, no file and no clock.
//!
//! The log is mirrored in memory ([`crate::consensus::log`]), so the crate never waits; what it wants on disk is
//! gathered while one request is under way and leaves in the next, so that all who wait share a sync. A group of
//! one elects itself at once and needs no tick: an idle replica has no timeout at all.
//!
//! **Invariants:** nothing is applied, and no message sent, before the disk has promised what it rests on (but for the
//! first voters of a new group, which are the same whenever they are written); at most one request to the disk is
//! unanswered; the crate's own random election time-out is replaced before each tick, so that a run replays from its
//! seed; no message of a peer reaches the crate before `check.rs` has judged it. (Raft dissertation, chapters 3, 4, 6.4
//! and 9.6; raft crate 0.7.)

mod apply;
mod check;
mod disk;
mod leading;
mod members;
mod messages;
mod reads;
mod wire;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use raft::eraftpb::{Entry as RaftEntry, Message, MessageType};
use raft::{Config, RawNode, StateRole};

use crate::base::id::{CallId, Index, ReplicaId, Term};
use crate::base::time::{Instant, SteadyTime, WallTime};
use crate::consensus::log::MemoryLog;
use crate::consensus::proposals::{Proposals, command_kind, resolved};
use crate::consensus::{
    HardState, Input, Leadership, Limits, Membership, Notice, Output, Persist, Proposal, Recovered, Replica, Resolution,
};
use crate::state::State;
use crate::wire::entry::Entry;

use disk::{Disk, Snapshots};
use leading::HandingOver;
use members::Changing;
use reads::Reads;

/// Bytes of entries in one message to another replica.
const MESSAGE_BYTES: u64 = 1024 * 1024;

/// Messages with entries to one replica that are not answered.
const MESSAGES_IN_FLIGHT: usize = 256;

/// Bytes of entries that are applied before the next input is looked at.
const COMMITTED_BYTES: u64 = 16 * 1024 * 1024;

/// Election time-outs after which a proposal of a lost leadership is given up as unknown.
const SETTLE_ELECTIONS: u32 = 10;

/// How often a leader tells how far the members are.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

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
    /// As last told.
    members: Membership,
    changing: Option<Changing>,
    /// When a change that a lost leadership left behind is given up.
    change_until: Option<Instant>,
    handing_over: Option<HandingOver>,
    /// As last told; zero without one.
    lease: Instant,
    /// Until the next leadership there is no lease: somebody may have the right to take this one away.
    lease_barred: bool,
    beats: u64,
    ticks_since_beat: usize,
    reads: Reads,
    /// On a leader: when each member was heard last.
    heard: BTreeMap<u64, Instant>,
    /// Who of them counted as there when the progress was told last.
    active: BTreeSet<u64>,
    progress_at: Option<Instant>,
    /// No vote is given before: until then an earlier life may have promised a leader its patience.
    votes_from: Instant,
    /// What the crate may offer to a replica that is too far behind.
    offer: Option<Arc<State>>,
    /// The state of the snapshot that is being handed to the crate.
    arriving: Option<Arc<State>>,
    disk: Disk,
    snapshots: Snapshots,
    round: Round,
    outputs: VecDeque<Output>,
    next_tick: Option<Instant>,
    stopping: bool,
    failed: bool,
}

/// What one input brought about, for one [`Output::Publish`].
#[derive(Default)]
struct Round {
    root_changed: bool,
    /// First of all: a lease that ends must be over before anything rests on its end.
    lease: Option<Instant>,
    applied: Vec<Notice>,
    resolved: Vec<Notice>,
    others: Vec<Notice>,
}

impl RaftReplica {
    /// A replica that goes on from what the disk held.
    ///
    /// On an empty disk `bootstrap` names the first voters of the group, the same list on each of them; with `None`
    /// it has no configuration and waits for [`Input::Bootstrap`], or for a leader that adds it. A disk that holds
    /// something decides by itself. `seed` fixes all chance, and differs from process to process. Outputs wait to be
    /// polled at once.
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
        let log = MemoryLog::recover(&recovered)?;
        let is_new = log.is_empty();
        let (meta, state) = recovered.snapshot.unwrap_or_default();
        let applied = meta.index.0;
        let mut replica = RaftReplica {
            node: start_node(id, &limits, applied, log)?,
            id,
            seed,
            last_time_unix_nanos: state.time_unix_nanos(),
            time: SteadyTime::default(),
            state,
            applied,
            proposals: Proposals::new(limits.max_waiting_proposals),
            limits,
            leadership: Leadership::default(),
            members: Membership::default(),
            changing: None,
            change_until: None,
            handing_over: None,
            lease: Instant::ZERO,
            lease_barred: false,
            beats: 0,
            ticks_since_beat: 0,
            reads: Reads::default(),
            heard: BTreeMap::new(),
            active: BTreeSet::new(),
            progress_at: None,
            votes_from: Instant::ZERO,
            offer: None,
            arriving: None,
            disk: Disk::default(),
            snapshots: Snapshots::from(applied),
            round: Round::default(),
            outputs: VecDeque::new(),
            next_tick: None,
            stopping: false,
            failed: false,
        };
        if !is_new {
            replica.votes_from = now + replica.election_timeout();
        }
        replica.found(&bootstrap.unwrap_or_default())?;
        replica.note_members();
        if is_new && replica.members == Membership::default() {
            // That there is no group yet is to be known too: only then may one be founded.
            replica.round.others.push(Notice::Members(Membership::default()));
        }
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

    /// Begins the group, when this replica is empty.
    fn found(&mut self, voters: &[ReplicaId]) -> Result<(), String> {
        let raft = &self.node.raft;
        let is_empty = raft.term == 0 && raft.raft_log.last_index() == 0;
        if voters.is_empty() || !is_empty || self.stopping {
            return Ok(());
        }
        let mut log = MemoryLog::recover(&Recovered::default())?;
        let (entries, hard_state) = log.bootstrap(voters)?;
        self.node = start_node(self.id, &self.limits, 0, log)?;
        self.disk.pending = Persist { ticket: 0, entries, hard_state: Some(hard_state) };
        self.disk.pending_must_sync = true;
        Ok(())
    }

    fn propose(&mut self, now: Instant, wall: WallTime, proposals: Vec<Proposal>) {
        if self.stopping || self.handing_over.is_some() || self.node.raft.state != StateRole::Leader {
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

    /// Takes from the crate all it has to say, and elects a group of one.
    fn advance(&mut self, now: Instant) {
        loop {
            while self.node.has_ready() && !self.failed {
                self.handle_ready(now);
            }
            let leads = self.node.raft.state == StateRole::Leader;
            if self.failed || !self.is_alone() || leads || !self.may_campaign() {
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
        self.send(ready.take_messages());
        self.hold(number, ready.take_persisted_messages());
        let hard_state = ready.hs().map(|stored| HardState {
            term: Term(stored.term),
            vote: ReplicaId(stored.vote),
            commit: Index(stored.commit),
        });
        let installs = !ready.snapshot().is_empty();
        if installs {
            self.begin_install(ready.snapshot(), number);
        }
        // A snapshot comes in a batch of its own: nothing else of it must be on disk.
        let must_sync = ready.must_sync() && !installs;
        self.store(hard_state, &ready.take_entries(), must_sync, number);
        let committed = ready.take_committed_entries();
        let read_states = ready.take_read_states();
        self.node.advance_append_async(ready);
        self.promise_if_idle(number);
        self.note_leadership(now);
        self.apply(committed);
        self.take_read_states(now, read_states);
        self.note_leadership(now);
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
        let led = self.leadership.is_self;
        if led && (!is_self || known.term != self.leadership.term) {
            self.leadership_changed(now, false);
        }
        if is_self && (!led || known.term != self.leadership.term) {
            self.leadership_changed(now, true);
        }
        let begins = known.ready && !self.leadership.ready;
        self.leadership = known.clone();
        self.fit_lease();
        self.round.others.push(Notice::Leadership(known));
        if begins && !self.is_alone() {
            // The lease need not wait for the next round.
            self.beat(now);
        }
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

    fn has_configuration(&self) -> bool {
        self.node.raft.prs().iter().next().is_some()
    }

    fn fail(&mut self, why: String) {
        self.failed = true;
        self.round.others.push(Notice::Fatal(why));
    }

    /// Queues what the input brought about: first what can be told, then what is to be written.
    fn finish_round(&mut self, now: Instant) {
        self.fit_lease();
        let mut round = std::mem::take(&mut self.round);
        let mut notices: Vec<Notice> = round.lease.map(Notice::Lease).into_iter().collect();
        notices.append(&mut round.applied);
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
        self.ask_disk(now);
        self.ask_snapshot();
        let ticking = self.has_configuration() && !self.is_alone() && (!self.stopping || self.has_unsettled());
        self.next_tick = ticking.then(|| self.next_tick.unwrap_or(now + self.limits.tick));
    }

    /// Whether a stop waits for something that only others can bring about.
    fn has_unsettled(&self) -> bool {
        self.handing_over.is_some() || self.changing.is_some() || !self.proposals.is_empty()
    }
}

impl Replica for RaftReplica {
    fn handle_input(&mut self, now: Instant, wall: WallTime, input: Input) {
        if self.failed {
            return;
        }
        self.renew_offer();
        match input {
            Input::Propose(proposals) => self.propose(now, wall, proposals),
            Input::Persisted { ticket } => self.persisted(now, ticket),
            Input::SnapshotWritten { index } => self.snapshot_written(index),
            Input::Messages(messages) => self.take_messages(now, messages),
            Input::Unreachable(replica) => self.unreachable(replica),
            Input::SnapshotSent { to, ok } => self.snapshot_sent(to, ok),
            Input::SnapshotReceived { message, state } => self.take_snapshot(now, *message, state),
            Input::Bootstrap(voters) => {
                if let Err(why) = self.found(&voters) {
                    self.fail(why);
                }
            }
            Input::ReadIndex { id } => self.read(now, id),
            Input::ChangeMember { id, change } => self.change_member(now, id, change),
            Input::Transfer { id, to } => self.transfer(now, id, to),
            Input::Timeout => {
                self.tick(now);
                self.expire(now);
            }
            Input::Stop => self.stop(now),
        }
        self.ask_reads(now);
        self.advance(now);
        self.watch_hand_over(now);
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
        self.next_deadline()
    }
}

fn start_node(id: ReplicaId, limits: &Limits, applied: u64, log: MemoryLog) -> Result<RawNode<MemoryLog>, String> {
    let config = Config {
        id: id.0,
        election_tick: limits.election_ticks,
        // The replica sends its heartbeats itself, each with a lease's question; the crate's own come late.
        heartbeat_tick: limits.election_ticks.saturating_sub(1),
        applied,
        max_size_per_msg: MESSAGE_BYTES,
        max_inflight_msgs: MESSAGES_IN_FLIGHT,
        max_committed_size_per_ready: COMMITTED_BYTES,
        check_quorum: true,
        pre_vote: true,
        ..Config::default()
    };
    // The crate's own log lines would need a drain of their own; what matters of them leaves as a notice.
    let logger = slog::Logger::root(slog::Discard, slog::o!());
    RawNode::new(&config, log, &logger).map_err(|e| format!("raft cannot start: {e}"))
}

#[cfg(test)]
mod tests;
