//! What the disk is asked for: entries and hard state, a leader's snapshot in place of everything, snapshots of its
//! own. One request is under way at a time; what comes meanwhile leaves with the next, so that all share a sync.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use raft::eraftpb::{Entry as RaftEntry, Message, Snapshot};
use raft::{ProgressState, StateRole};

use super::{RaftReplica, wire};
use crate::base::id::{Index, ReplicaId, Term};
use crate::base::time::Instant;
use crate::consensus::log::from_raft;
use crate::consensus::{HardState, Notice, Output, Persist, SnapshotMeta};
use crate::state::State;

/// Entries kept in memory behind a snapshot by a group of one.
const TAIL_ENTRIES: u64 = 1024;

/// Bytes of such entries.
const TAIL_BYTES: u64 = 1024 * 1024;

/// A sync that lasts this many times the limit ends the process.
const STALLS_TO_END: u32 = 3;

/// What the disk was asked for, and what it is asked for next.
#[derive(Default)]
pub(super) struct Disk {
    /// Goes with the next request.
    pub(super) pending: Persist,
    /// Whether `pending` must be on disk before anything rests on it; a commit index alone need not be.
    pub(super) pending_must_sync: bool,
    /// The crate's number of the last batch that is in `pending` or before.
    pending_number: u64,
    in_flight: Option<InFlight>,
    last_ticket: u64,
    /// Messages that rest on what is pending (with its number) or in flight.
    messages: VecDeque<(u64, Vec<Message>)>,
    /// A snapshot of the leader that is to replace everything; before `pending`.
    install: Option<Install>,
}

/// A request that is not answered.
struct InFlight {
    ticket: u64,
    /// The crate's number of the last batch in it.
    number: u64,
    since: Instant,
    stalled: bool,
    install: Option<Install>,
}

/// A snapshot that came, and the batch in which the crate took it.
struct Install {
    meta: SnapshotMeta,
    state: Arc<State>,
    number: u64,
}

impl Disk {
    /// Whether a leader's snapshot is on its way to the disk: what the crate believes and what is applied here differ.
    pub(super) fn is_installing(&self) -> bool {
        self.install.is_some() || self.in_flight.as_ref().is_some_and(|request| request.install.is_some())
    }

    /// Whether a sync is over its limit just now.
    pub(super) fn is_stalled(&self) -> bool {
        self.in_flight.as_ref().is_some_and(|request| request.stalled)
    }

    fn is_idle(&self) -> bool {
        self.in_flight.is_none() && self.install.is_none()
    }

    /// When [`RaftReplica::watch_disk`] is wanted, for this limit.
    pub(super) fn poll_timeout(&self, limit: Duration) -> Option<Instant> {
        let request = self.in_flight.as_ref()?;
        Some(request.since + if request.stalled { limit.saturating_mul(STALLS_TO_END) } else { limit })
    }
}

/// When to take a snapshot, and which there are.
pub(super) struct Snapshots {
    /// The one whose writing is under way.
    writing: Option<u64>,
    /// The last one written, or found when the process began.
    last: u64,
    /// Where counting for the next one began: the last one asked for.
    counted_from: u64,
    pub(super) bytes_since: u64,
}

impl Snapshots {
    pub(super) fn from(last: u64) -> Snapshots {
        Snapshots { writing: None, last, counted_from: last, bytes_since: 0 }
    }
}

impl RaftReplica {
    /// Takes from a batch what is to be written.
    pub(super) fn store(&mut self, hard_state: Option<HardState>, entries: &[RaftEntry], must_sync: bool, number: u64) {
        if hard_state.is_some() {
            self.disk.pending.hard_state = hard_state;
        }
        if let Some(first) = entries.first() {
            self.node.mut_store().append(entries);
            self.disk.pending.entries.retain(|entry| entry.index.0 < first.index);
            self.disk.pending.entries.extend(entries.iter().map(from_raft));
        }
        self.disk.pending_must_sync |= must_sync;
        self.disk.pending_number = number;
    }

    /// With nothing to wait for, a batch counts as stored: a commit index can be found again.
    pub(super) fn promise_if_idle(&mut self, number: u64) {
        if !self.disk.pending_must_sync && self.disk.is_idle() {
            self.promised(number);
        }
    }

    /// The crate has taken a leader's snapshot: the log begins anew behind it, and the disk is to follow.
    pub(super) fn begin_install(&mut self, snapshot: &Snapshot, number: u64) {
        let meta = wire::meta_of(snapshot);
        let Some(state) = self.arriving.take().filter(|state| state.index() == meta.index) else {
            self.fail(format!("the snapshot at entry {} came without its state", meta.index));
            return;
        };
        self.node.mut_store().install(meta.index.0, meta.term.0);
        self.disk.pending.entries.clear();
        self.disk.pending_must_sync = false;
        self.disk.install = Some(Install { meta, state, number });
    }

    pub(super) fn hold(&mut self, number: u64, messages: Vec<Message>) {
        if !messages.is_empty() {
            self.disk.messages.push_back((number, messages));
        }
    }

    pub(super) fn persisted(&mut self, now: Instant, ticket: u64) {
        let Some(request) = self.disk.in_flight.take_if(|request| request.ticket == ticket) else { return };
        self.promised(request.number);
        if let Some(install) = request.install {
            self.finish_install(now, &install);
        }
        if !self.disk.pending_must_sync && self.disk.install.is_none() {
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

    fn finish_install(&mut self, now: Instant, install: &Install) {
        let index = install.meta.index;
        self.state = State::clone(&install.state);
        self.applied = index.0;
        self.last_time_unix_nanos = self.last_time_unix_nanos.max(self.state.time_unix_nanos());
        self.node.advance_apply_to(index.0);
        self.snapshots = Snapshots { writing: self.snapshots.writing, ..Snapshots::from(index.0) };
        self.round.root_changed = true;
        self.proposals.skip_to(index, &mut self.round.resolved);
        self.changing_skipped(index);
        self.round.others.push(Notice::Installed { index });
        self.note_members();
        self.answer_reads(now);
    }

    pub(super) fn snapshot_written(&mut self, index: Index) {
        if self.snapshots.writing.take_if(|writing| *writing == index.0).is_none() || index.0 <= self.snapshots.last {
            return;
        }
        let (entries, bytes) = self.tail(index.0);
        self.node.mut_store().compact(index.0, entries, bytes);
        // The disk keeps the log back to the snapshot before, so that this one may turn out damaged.
        let reachable = self.snapshots.last;
        self.snapshots.last = index.0;
        if reachable > 0 {
            self.outputs.push_back(Output::Compact(Index(reachable)));
        }
    }

    /// Entries, and bytes of them, that stay in memory behind a snapshot at `index`: for replicas that are a little
    /// behind, and for those that get a snapshot now and go on from its end.
    fn tail(&self, index: u64) -> (u64, u64) {
        if self.is_alone() {
            return (TAIL_ENTRIES, TAIL_BYTES);
        }
        let (entries, bytes) = (self.limits.snapshot_entries / 2, self.limits.snapshot_bytes / 2);
        let sending = self.node.raft.prs().iter().filter(|(_, one)| one.state == ProgressState::Snapshot);
        match sending.map(|(_, one)| one.pending_snapshot).min() {
            Some(from) => (entries.max(index.saturating_sub(from)), self.limits.snapshot_bytes),
            None => (entries, bytes),
        }
    }

    pub(super) fn ask_disk(&mut self, now: Instant) {
        let raft = &self.node.raft;
        let disk = &mut self.disk;
        if disk.in_flight.is_some() {
            return;
        }
        let ticket = disk.last_ticket + 1;
        if let Some(install) = disk.install.take() {
            let (meta, state) = (install.meta.clone(), install.state.clone());
            let (term, vote) = (Term(raft.term), ReplicaId(raft.vote));
            let hard_state = HardState { term, vote, commit: meta.index };
            let number = install.number;
            let request = InFlight { ticket, number, since: now, stalled: false, install: Some(install) };
            disk.in_flight = Some(request);
            self.outputs.push_back(Output::Install { ticket, meta, state, hard_state });
        } else if disk.pending_must_sync {
            let number = disk.pending_number;
            disk.in_flight = Some(InFlight { ticket, number, since: now, stalled: false, install: None });
            disk.pending_must_sync = false;
            let persist = Persist { ticket, ..std::mem::take(&mut disk.pending) };
            self.outputs.push_back(Output::Persist(persist));
        } else {
            return;
        }
        disk.last_ticket = ticket;
    }

    /// A sync over its limit: a leader that others can follow no longer leads, and one that lasts ends the process
    /// (R8.4). A group of one has nobody to lead in its place.
    pub(super) fn watch_disk(&mut self, now: Instant) {
        let limit = self.limits.stalled_sync;
        if self.is_alone() {
            return;
        }
        let Some(request) = self.disk.in_flight.as_mut() else { return };
        let took = now.since(request.since);
        if took >= limit.saturating_mul(STALLS_TO_END) {
            self.fail(format!("the disk has not finished a sync for {} s", took.as_secs()));
        } else if took >= limit && !request.stalled {
            request.stalled = true;
            if self.node.raft.state == StateRole::Leader && !self.node.raft.prs().is_singleton() {
                self.step_down(now);
            }
            self.round.others.push(Notice::DiskStalled { took });
        }
    }

    pub(super) fn ask_snapshot(&mut self) {
        let due = self.applied.saturating_sub(self.snapshots.counted_from) >= self.limits.snapshot_entries
            || self.snapshots.bytes_since >= self.limits.snapshot_bytes;
        if !due || self.snapshots.writing.is_some() || self.stopping || self.applied == self.snapshots.last {
            return;
        }
        // While a snapshot of the leader replaces everything, what is applied here is the past.
        if self.disk.is_installing() {
            return;
        }
        let conf = self.node.raft.prs().conf().to_conf_state();
        // Half-way through a change of members there are two sets of voters: wait for its end.
        if !conf.voters_outgoing.is_empty() {
            return;
        }
        let Ok(term) = self.node.raft.raft_log.term(self.applied) else { return };
        let meta = SnapshotMeta {
            index: Index(self.applied),
            term: Term(term),
            voters: wire::sorted(&conf.voters),
            learners: wire::sorted(&conf.learners),
        };
        self.snapshots.writing = Some(self.applied);
        self.snapshots.counted_from = self.applied;
        self.snapshots.bytes_since = 0;
        self.outputs.push_back(Output::WriteSnapshot(meta, self.root()));
    }
}
