//! The consensus thread of one process, in memory: what `edge::consensus_thread` does with the replica and the disk.
//!
//! While a sync is under way the thread waits for it and does nothing else; or, as the world has it, goes on with what
//! needs no disk.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::base::id::{CallId, Index};
use crate::base::time::Instant;
use crate::consensus::raft::RaftReplica;
use crate::consensus::{
    HardState, Input, Leadership, Notice, Output, Persist, Proposal, Recovered, Replica, Resolution, SnapshotMeta,
};
use crate::state::State;
use crate::state::watch::Touched;

use super::disk::snapshot_bytes;
use super::fault::Fault;
use super::ground::{Event, Ground, Inner, Nemesis};
use super::harm;
use super::options::Options;
use super::process::Process;
use super::site::SiteNumber;

/// Where the ids of doubled proposals begin (a planted fault).
const DOUBLED: u64 = 1 << 63;

/// The thread and what it has in hand.
pub struct Writer {
    replica: RaftReplica,
    /// Before all commands.
    lane: VecDeque<Input>,
    commands: VecDeque<Vec<Proposal>>,
    /// Commands on their way to the thread.
    expected: usize,
    told: Vec<Notice>,
    /// Taken from the replica and to be done later (a planted fault).
    put_off: VecDeque<Output>,
    /// Nothing is done while a sync is under way.
    blocks: bool,
    /// The ticket of the sync under way, and whether the replica knows of its end already.
    syncing: Option<(u64, bool)>,
    /// Takes the place of the log, once it is synced.
    installing: Option<Installing>,
    snapshot: Option<(SnapshotMeta, Vec<u8>)>,
    snapshot_done: Option<Index>,
    ended: bool,
}

struct Installing {
    meta: SnapshotMeta,
    bytes: Vec<u8>,
    hard_state: HardState,
}

impl Writer {
    pub(super) fn new(
        options: &Options,
        site: SiteNumber,
        seed: u64,
        recovered: Recovered,
        now: Instant,
    ) -> Result<Writer, String> {
        let id = options.replica_id(site);
        let alone = (options.servers == 1).then(|| vec![id]);
        let replica = RaftReplica::new(id, seed, options.replica(), recovered, alone, now)?;
        Ok(Writer {
            replica,
            blocks: options.disk_blocks,
            lane: VecDeque::new(),
            installing: None,
            commands: VecDeque::new(),
            expected: 0,
            told: Vec::new(),
            put_off: VecDeque::new(),
            syncing: None,
            snapshot: None,
            snapshot_done: None,
            ended: false,
        })
    }

    pub(super) fn replica_root(&self) -> Arc<State> {
        self.replica.root()
    }

    /// Batches in the channel.
    pub(super) fn commands(&self) -> usize {
        self.commands.len() + self.expected
    }

    pub(super) fn expect_command(&mut self) {
        self.expected += 1;
    }

    pub(super) fn command(&mut self, proposals: Vec<Proposal>) {
        self.expected = self.expected.saturating_sub(1);
        self.commands.push_back(proposals);
    }

    pub(super) fn lane(&mut self, inputs: Vec<Input>) {
        self.lane.extend(inputs);
    }

    /// Who leads, as the replica knows.
    pub(super) fn leadership(&self) -> &Leadership {
        self.replica.leadership()
    }

    /// For the disk.
    fn waits(&self) -> bool {
        self.blocks && self.syncing.is_some()
    }

    fn next_output(&mut self) -> Option<Output> {
        self.put_off.pop_front().or_else(|| self.replica.poll_output())
    }

    /// When the replica wants to act by itself; never while a sync is under way.
    pub(super) fn next_at(&self) -> Option<Instant> {
        if self.waits() || self.ended { None } else { self.replica.poll_timeout() }
    }
}

impl Process {
    /// The state that the replica has reached.
    pub fn replica_root(&self) -> Arc<State> {
        self.writer.replica_root()
    }

    /// Whether nothing is under way on the disk.
    pub fn is_disk_idle(&self) -> bool {
        self.writer.syncing.is_none() && self.writer.snapshot.is_none() && self.writer.commands() == 0
    }

    pub(super) fn turn_writer_timeout(&mut self, ground: &mut Ground) {
        if !self.writer.waits() && !self.writer.ended {
            self.hand_in(ground, Input::Timeout);
            self.turn_writer(ground);
        }
    }

    /// Does what the replica asks for, then takes what waits, until there is nothing or the disk is busy.
    pub(super) fn turn_writer(&mut self, ground: &mut Ground) {
        while !self.writer.waits() && !self.writer.ended {
            if !self.follow_outputs(ground) {
                return;
            }
            if let Some(input) = self.writer.lane.pop_front() {
                self.hand_in(ground, input);
                continue;
            }
            // The order of the two is the seed's, as a select's is chance.
            let snapshot_first = ground.rng.chance(1, 2);
            if snapshot_first && let Some(index) = self.writer.snapshot_done.take() {
                self.hand_in(ground, Input::SnapshotWritten { index });
            } else if !self.writer.commands.is_empty() {
                let mut proposals: Vec<Proposal> =
                    std::mem::take(&mut self.writer.commands).into_iter().flatten().collect();
                if ground.fault(Fault::ProposeTwice, 20) {
                    let doubled: Vec<Proposal> = proposals
                        .iter()
                        // With its place in a session it would be harmless.
                        .map(|one| Proposal { id: CallId(one.id.0 | DOUBLED), session: None, ..one.clone() })
                        .collect();
                    proposals.extend(doubled);
                }
                self.hand_in(ground, Input::Propose(proposals));
            } else if let Some(index) = self.writer.snapshot_done.take() {
                self.hand_in(ground, Input::SnapshotWritten { index });
            } else {
                return;
            }
        }
    }

    fn hand_in(&mut self, ground: &mut Ground, input: Input) {
        let (shown, wall) = (ground.clock(self.site), ground.wall(self.site));
        self.writer.replica.handle_input(shown, wall, input);
    }

    /// True when the replica asks for nothing more; false when the thread waits for the disk, or has ended.
    fn follow_outputs(&mut self, ground: &mut Ground) -> bool {
        while let Some(output) = self.writer.next_output() {
            match output {
                Output::Publish { root, notices } => self.publish(ground, root, notices),
                Output::Persist(persist) => {
                    self.tell(ground);
                    self.persist(ground, &persist);
                    if self.writer.blocks {
                        return false;
                    }
                }
                Output::WriteSnapshot(meta, state) => {
                    ground.trace.step("snapshot", &[meta.index.0]);
                    let wait = Duration::from_millis(5) + ground.a_while(Duration::from_secs(4));
                    ground.after(wait, Event::Process(self.life, Inner::SnapshotWritten(meta.index)));
                    self.writer.snapshot = Some((meta, snapshot_bytes(&state)));
                }
                Output::Install { ticket, meta, state, hard_state } => {
                    self.tell(ground);
                    self.install(ground, ticket, Installing { meta, bytes: snapshot_bytes(&state), hard_state });
                    if self.writer.blocks {
                        return false;
                    }
                }
                Output::Compact(index) => {
                    self.tell(ground);
                    ground.trace.step("compact", &[index.0]);
                    let end = Index(ground.site(self.site).log.last());
                    let index = if ground.fault(Fault::CompactTooFar, 100) { end } else { index };
                    ground.site(self.site).disk.compact(index);
                }
            }
        }
        self.tell(ground);
        !self.writer.ended
    }

    fn publish(&mut self, ground: &mut Ground, root: Option<Arc<State>>, notices: Vec<Notice>) {
        let now = ground.now;
        for notice in &notices {
            ground.watch_notice(self.site, self.life, notice);
            if let Notice::Applied { index, .. } | Notice::Installed { index } = notice
                && let Some(life) = ground.history.lives.get_mut(self.life)
            {
                life.applied.entry(index.0).or_insert(now);
            }
            if matches!(notice, Notice::Installed { .. }) {
                ground.inject("snapshots installed");
            }
        }
        if let Some(root) = root {
            ground.trace.step("publish", &[root.index().0]);
            let root = self.cluster_harm.root(ground, root);
            let root = self.once_harm.root(ground, self.site, root);
            ground.watch_root(self.site, &root);
            if ground.fault(Fault::NotifyBeforePublish, 50) {
                self.writer.told.extend(notices);
                self.tell(ground);
                self.late_root = Some(root);
                ground.after(Duration::from_millis(300), Event::Process(self.life, Inner::LateRoot));
                return;
            }
            self.jobs.published(&root);
            self.late_root = None;
            self.root.store(root);
        }
        self.writer.told.extend(notices);
    }

    /// Writes, and begins to sync.
    fn persist(&mut self, ground: &mut Ground, persist: &Persist) {
        ground.trace.step("persist", &[persist.ticket, persist.entries.len() as u64]);
        let mut written = persist.clone();
        if ground.fault(Fault::ForgetHardState, 100) {
            written.hard_state = None;
        }
        self.cluster_harm.persist(ground, &mut written);
        let site = ground.site(self.site);
        site.disk.write(&written);
        site.log.write(&persist.entries);
        let sync_time = site.sync_time;
        ground.witness_written(self.site);
        let wait = sync_time + ground.a_while((sync_time * 20).min(Duration::from_secs(1)));
        ground.after(wait, Event::Process(self.life, Inner::Synced));
        let early = ground.fault(Fault::AckBeforeSync, 50);
        self.writer.syncing = Some((persist.ticket, early));
        if early {
            // The replica goes on; the thread's wait for the disk has become nobody's.
            self.hand_in(ground, Input::Persisted { ticket: persist.ticket });
            while let Some(output) = self.writer.replica.poll_output() {
                match output {
                    Output::Publish { root, notices } => self.publish(ground, root, notices),
                    other => self.writer.put_off.push_back(other),
                }
            }
            self.tell(ground);
        }
    }

    /// A leader's snapshot is written and synced; then it takes the place of the log.
    fn install(&mut self, ground: &mut Ground, ticket: u64, installing: Installing) {
        ground.trace.step("install", &[installing.meta.index.0]);
        self.writer.installing = Some(installing);
        self.writer.syncing = Some((ticket, false));
        let wait = 2 * ground.site(self.site).sync_time + ground.a_while(Duration::from_millis(500));
        ground.after(wait, Event::Process(self.life, Inner::Synced));
    }

    fn put_in_place(&mut self, ground: &mut Ground, installing: Installing) {
        let site = ground.site(self.site);
        site.disk.install(installing.meta, installing.bytes, installing.hard_state);
        site.log.clear();
    }

    /// The process ends: what was about to take the place of the log has done so, or has not.
    pub(super) fn end_writer(&mut self, ground: &mut Ground) {
        if let Some(installing) = self.writer.installing.take()
            && ground.rng.chance(1, 2)
        {
            self.put_in_place(ground, installing);
        }
    }

    pub(super) fn synced(&mut self, ground: &mut Ground) {
        let Some((ticket, early)) = self.writer.syncing.take() else { return };
        if let Some(installing) = self.writer.installing.take() {
            if !ground.fault(Fault::ForgetInstall, 100) {
                self.put_in_place(ground, installing);
            }
            self.hand_in(ground, Input::Persisted { ticket });
            return self.turn_writer(ground);
        }
        if std::mem::take(&mut ground.site(self.site).disk_fails) {
            if !ground.fault(Fault::IgnoreDiskError, 100) {
                return self.fail(ground, "writing the log: input/output error");
            }
            // What was not written is missed only if the power goes before the next sync writes it.
            let at = ground.now + ground.rng.jitter(Duration::from_millis(20));
            ground.queue.push(at, Event::Nemesis(self.site, Nemesis::CutPower));
        } else if !ground.fault(Fault::SkipSync, 30) {
            let site = ground.site(self.site);
            site.disk.sync();
            site.log.synced();
        }
        if !early {
            self.hand_in(ground, Input::Persisted { ticket });
        }
        if let Some(input) = self.commit_early(ground) {
            self.writer.lane.push_back(input);
        }
        self.turn_writer(ground);
    }

    fn fail(&mut self, ground: &mut Ground, why: &str) {
        // What the kernel kept of the write is not known: any part of it may be there when the disk is read again.
        let offset = ground.torn_at(self.site);
        if let Err(error) = ground.site(self.site).disk.crash(offset) {
            ground.wrong(format!("after a failed write the disk cannot be read: {error}"));
        }
        self.writer.ended = true;
        self.writer.told.push(Notice::Fatal(why.to_owned()));
        self.tell(ground);
    }

    pub(super) fn snapshot_written(&mut self, ground: &mut Ground, index: Index) {
        let Some((meta, bytes)) = self.writer.snapshot.take_if(|(meta, _)| meta.index == index) else { return };
        ground.site(self.site).disk.put_snapshot(meta, bytes);
        self.writer.snapshot_done = Some(index);
        self.turn_writer(ground);
    }

    /// Sends what is to be told to the loop.
    fn tell(&mut self, ground: &mut Ground) {
        let mut notices = std::mem::take(&mut self.writer.told);
        if notices.is_empty() {
            return;
        }
        if notices.iter().any(|notice| matches!(notice, Notice::Fatal(_))) {
            self.writer.ended = true;
        }
        harm_notices(ground, &mut notices);
        self.cluster_harm.notices(ground, &mut notices);
        self.once_harm.notices(&mut notices);
        if let Some(forged) = self.cluster_harm.forged() {
            self.push_lane(ground, vec![forged]);
        }
        for notice in &notices {
            ground.watch_lease(self.site, notice);
        }
        for notice in &mut notices {
            if let Notice::Resolved { id, resolution } = notice {
                self.harm.resolution(*id, resolution);
            }
        }
        let wait = ground.a_while(ground.options.thread_delay);
        let at = (ground.now + wait).max(self.last_notices_at);
        self.last_notices_at = at;
        ground.queue.push(at, Event::Process(self.life, Inner::Notices(notices)));
    }
}

/// Planted faults in what the loop is told.
fn harm_notices(ground: &mut Ground, notices: &mut Vec<Notice>) {
    let mut kept = Vec::with_capacity(notices.len());
    for mut notice in std::mem::take(notices) {
        match &mut notice {
            Notice::Applied { touched, events, .. } => {
                if ground.fault(Fault::DropWakeUp, 20) {
                    *touched = Touched::default();
                }
                if ground.fault(Fault::LoseTouchedKey, 50) {
                    touched.keys.truncate(1);
                }
                harm::touched(ground, touched);
                if !events.is_empty() && ground.fault(Fault::DropEvent, 10) {
                    events.clear();
                }
            }
            Notice::Resolved { resolution: Resolution::Applied { .. }, .. }
                if ground.fault(Fault::LoseResolution, 10) =>
            {
                continue;
            }
            _ => {}
        }
        if matches!(&notice, Notice::Applied { events, .. } if !events.is_empty())
            && ground.fault(Fault::DuplicateEvent, 10)
        {
            kept.push(notice.clone());
        }
        kept.push(notice);
    }
    *notices = kept;
}
