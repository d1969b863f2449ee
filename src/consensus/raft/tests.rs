//! The replica without threads or files: a rig that does what it asks for, or forgets it.

#![allow(clippy::unwrap_used)]

mod cluster;
mod group;
mod recovery;

use super::*;
use crate::consensus::LogEntry;
use crate::consensus::SnapshotMeta;
use crate::state::ApplyResult;
use crate::wire::entry::Command;
use crate::wire::raft::RaftMessage;

/// Settings small enough for tests.
pub(super) fn limits() -> Limits {
    Limits {
        max_entry_bytes: 4096,
        warn_entry_bytes: 1024,
        snapshot_entries: 1 << 40,
        snapshot_bytes: 1 << 40,
        tick: Duration::from_millis(100),
        election_ticks: 10,
        heartbeat_ticks: 2,
        stalled_sync: Duration::from_secs(10),
        max_waiting_proposals: 100,
    }
}

/// What survives a crash.
#[derive(Clone, Default)]
pub(super) struct Disk {
    pub(super) entries: Vec<LogEntry>,
    pub(super) hard_state: HardState,
    pub(super) snapshots: Vec<(SnapshotMeta, State)>,
}

impl Disk {
    pub(super) fn persist(&mut self, what: &Persist) {
        if let Some(first) = what.entries.first() {
            self.entries.retain(|entry| entry.index < first.index);
            let last = self.entries.last().map(|entry| entry.index.0);
            assert!(last.is_none_or(|last| last + 1 == first.index.0), "no gap");
            self.entries.extend(what.entries.iter().cloned());
        }
        self.hard_state = what.hard_state.unwrap_or(self.hard_state);
    }

    pub(super) fn recovered(&self) -> Recovered {
        let snapshot = self.snapshots.last().cloned();
        let after = snapshot.as_ref().map_or(Index(0), |(meta, _)| meta.index);
        let entries = self.entries.iter().filter(|entry| entry.index > after).cloned().collect();
        Recovered { snapshot, entries, hard_state: self.hard_state }
    }
}

/// A replica, its disk, and what it asked for.
pub(super) struct Rig {
    pub(super) replica: RaftReplica,
    pub(super) disk: Disk,
    pub(super) now: Instant,
    pub(super) wall: i64,
    pub(super) asked: VecDeque<Persist>,
    pub(super) asked_install: Option<(u64, SnapshotMeta, State, HardState)>,
    /// What goes to other replicas.
    pub(super) outbox: Vec<RaftMessage>,
    pub(super) asked_snapshot: Option<(SnapshotMeta, State)>,
    pub(super) compacted: Vec<Index>,
    pub(super) root: Arc<State>,
    pub(super) notices: Vec<Notice>,
    pub(super) syncs: usize,
}

impl Rig {
    pub(super) fn start(id: u64, limits: Limits, disk: Disk, bootstrap: Option<Vec<ReplicaId>>) -> Rig {
        Rig::start_at(id, 42, limits, disk, bootstrap, Instant::ZERO)
    }

    pub(super) fn start_at(
        id: u64,
        seed: u64,
        limits: Limits,
        disk: Disk,
        bootstrap: Option<Vec<ReplicaId>>,
        now: Instant,
    ) -> Rig {
        let replica = RaftReplica::new(ReplicaId(id), seed, limits, disk.recovered(), bootstrap, now).unwrap();
        let mut rig = Rig {
            root: replica.root(),
            replica,
            disk,
            now,
            wall: 1_000,
            asked: VecDeque::new(),
            asked_install: None,
            outbox: Vec::new(),
            asked_snapshot: None,
            compacted: Vec::new(),
            notices: Vec::new(),
            syncs: 0,
        };
        rig.poll();
        rig
    }

    /// A group of one that is ready.
    pub(super) fn one(limits: Limits) -> Rig {
        let mut rig = Rig::start(1, limits, Disk::default(), Some(vec![ReplicaId(1)]));
        rig.settle();
        rig.notices.clear();
        rig.syncs = 0;
        rig
    }

    pub(super) fn input(&mut self, input: Input) {
        self.replica.handle_input(self.now, WallTime::from_unix_nanos(self.wall), input);
        self.poll();
    }

    fn poll(&mut self) {
        while let Some(output) = self.replica.poll_output() {
            match output {
                Output::Install { ticket, meta, state, hard_state } => {
                    assert!(self.asked.is_empty() && self.asked_install.is_none(), "one request at a time");
                    self.asked_install = Some((ticket, meta, State::clone(&state), hard_state));
                }
                Output::Persist(persist) => self.asked.push_back(persist),
                Output::Publish { root, notices } => {
                    self.root = root.unwrap_or_else(|| self.root.clone());
                    for notice in notices {
                        match notice {
                            Notice::Send(message) => self.outbox.push(*message),
                            other => self.notices.push(other),
                        }
                    }
                }
                Output::WriteSnapshot(meta, state) => {
                    assert!(self.asked_snapshot.is_none(), "one at a time");
                    self.asked_snapshot = Some((meta, State::clone(&state)));
                }
                Output::Compact(index) => {
                    self.compacted.push(index);
                    self.disk.entries.retain(|entry| entry.index > index);
                }
            }
        }
        assert!(self.asked.len() <= 1, "one Persist is under way at most");
    }

    /// Does the sync that was asked for.
    pub(super) fn sync(&mut self) -> bool {
        if let Some((ticket, meta, state, hard_state)) = self.asked_install.take() {
            self.disk = Disk { entries: Vec::new(), hard_state, snapshots: vec![(meta, state)] };
            self.syncs += 1;
            self.input(Input::Persisted { ticket });
            return true;
        }
        let Some(persist) = self.asked.pop_front() else { return false };
        self.disk.persist(&persist);
        self.syncs += 1;
        self.input(Input::Persisted { ticket: persist.ticket });
        true
    }

    pub(super) fn settle(&mut self) {
        while self.sync() {}
    }

    pub(super) fn snapshot(&mut self) -> bool {
        let Some(snapshot) = self.asked_snapshot.take() else { return false };
        let index = snapshot.0.index;
        self.disk.snapshots.push(snapshot);
        self.input(Input::SnapshotWritten { index });
        true
    }

    pub(super) fn propose(&mut self, ids: impl IntoIterator<Item = u64>) {
        self.input(Input::Propose(ids.into_iter().map(|id| proposal(id, 0)).collect()));
    }

    /// How the proposals ended that did so since this was asked last.
    pub(super) fn resolved(&mut self) -> Vec<(u64, Resolution)> {
        let ended = self.notices.drain(..).filter_map(|notice| match notice {
            Notice::Resolved { id, resolution } => Some((id.0, resolution)),
            _ => None,
        });
        ended.collect()
    }
}

/// Adds a key, with a name that is longer by `padding` bytes.
pub(super) fn proposal(id: u64, padding: usize) -> Proposal {
    let key_id = format!("key-{id}{}", "x".repeat(padding));
    let command = Command::SigningKeyAdd { key_id, public_key: vec![7; 32], create_time: 1 };
    Proposal { id: CallId(id), session: None, command }
}

pub(super) fn applied(index: u64) -> Resolution {
    Resolution::Applied { index: Index(index), result: ApplyResult::Done }
}

/// The state that a log gives from the beginning.
pub(super) fn replay(entries: &[LogEntry], up_to: Index) -> State {
    let mut state = State::new();
    for entry in entries.iter().filter(|entry| entry.index <= up_to) {
        let noop = Entry { time_unix_nanos: state.time_unix_nanos(), session: None, command: Command::Noop };
        let command =
            if entry.kind == 0 && !entry.data.is_empty() { Entry::decode(&entry.data).unwrap() } else { noop };
        state.apply(entry.index, entry.term, &command);
    }
    state
}

fn leadership(term: u64, ready: bool) -> Notice {
    Notice::Leadership(Leadership { term: Term(term), leader: Some(ReplicaId(1)), is_self: true, ready })
}

// R1.66, R1.72
#[test]
fn a_group_of_one_elects_itself_at_once_and_is_ready_after_its_barrier() {
    let mut rig = Rig::start(1, limits(), Disk::default(), Some(vec![ReplicaId(1)]));
    assert!(rig.notices.contains(&leadership(2, false)), "{:?}", rig.notices);
    assert!(!rig.notices.contains(&leadership(2, true)));
    assert!(!rig.replica.leadership().ready);
    let first = rig.asked.front().unwrap();
    assert_eq!(first.entries.iter().map(|entry| entry.kind).collect::<Vec<_>>(), [1, 0], "its voter, its barrier");
    assert!(rig.sync());
    assert_eq!(rig.notices.last(), Some(&leadership(2, true)));
    assert_eq!((rig.root.index(), rig.asked.len()), (Index(2), 0));
    assert_eq!(rig.replica.poll_timeout(), None, "an idle group of one needs no tick");
    rig.now += Duration::from_secs(3600);
    rig.notices.clear();
    rig.input(Input::Timeout);
    assert_eq!((rig.notices.len(), rig.asked.len(), rig.replica.poll_timeout()), (0, 0, None));
}

#[test]
fn without_a_configuration_it_waits_for_ever() {
    for bootstrap in [None, Some(Vec::new())] {
        let mut rig = Rig::start(1, limits(), Disk::default(), bootstrap);
        assert_eq!((rig.asked.len(), rig.replica.poll_timeout()), (0, None));
        // Nobody is a member, and that is told: only then may a cluster be founded.
        assert_eq!(rig.notices, [Notice::Members(Membership::default())]);
        rig.propose([1]);
        assert_eq!(rig.resolved(), [(1, Resolution::NotLeader)]);
        rig.input(Input::Stop);
        assert_eq!(rig.replica.poll_timeout(), None);
    }
}

#[test]
fn a_proposal_is_applied_after_one_sync() {
    let mut rig = Rig::one(limits());
    rig.propose([7]);
    assert_eq!(rig.resolved(), [], "nothing is said before the disk has promised it");
    assert_eq!(rig.asked.front().unwrap().entries.len(), 1);
    rig.settle();
    assert_eq!(rig.syncs, 1, "the commit index has no sync of its own");
    assert_eq!(rig.root.index(), Index(3));
    assert_eq!(rig.root.signing_keys().len(), 1);
    assert!(matches!(rig.notices.first(), Some(Notice::Applied { index: Index(3), .. })), "applied, then resolved");
    assert_eq!(rig.resolved(), [(7, applied(3))]);
}

#[test]
fn proposals_that_come_during_a_sync_share_the_next_one() {
    let mut rig = Rig::one(limits());
    rig.propose([1]);
    for id in 2..=50 {
        rig.propose([id]);
    }
    assert_eq!(rig.asked.len(), 1);
    rig.sync();
    assert_eq!(rig.resolved(), [(1, applied(3))]);
    assert_eq!(rig.asked.front().unwrap().entries.len(), 49);
    rig.settle();
    assert_eq!(rig.syncs, 2);
    let rest: Vec<_> = (2..=50).map(|id| (id, applied(id + 2))).collect();
    assert_eq!(rig.resolved(), rest);
}

#[test]
fn an_answer_for_another_ticket_says_nothing() {
    let mut rig = Rig::one(limits());
    rig.propose([1]);
    rig.input(Input::Persisted { ticket: 999 });
    assert_eq!(rig.resolved(), []);
    rig.settle();
    assert_eq!(rig.resolved(), [(1, applied(3))]);
}

#[test]
fn time_never_goes_back_in_the_log() {
    let mut rig = Rig::one(limits());
    for (wall, expected) in [(5_000, 5_000), (4_000, 5_000), (6_000, 6_000)] {
        rig.wall = wall;
        rig.propose([1]);
        rig.settle();
        assert_eq!(rig.root.time_unix_nanos(), expected);
    }
    let mut again = Rig::start(1, limits(), rig.disk.clone(), None);
    again.wall = 1;
    again.propose([9]);
    again.settle();
    assert_eq!(again.root.time_unix_nanos(), 6_000, "nor after a restart");
}

// R1.80, R8.22
#[test]
fn large_entries_are_told_of_and_larger_ones_rejected() {
    let mut rig = Rig::one(limits());
    rig.input(Input::Propose(vec![proposal(1, 0), proposal(2, 5000), proposal(3, 2000)]));
    rig.settle();
    let large: Vec<_> = rig.notices.iter().filter(|n| matches!(n, Notice::LargeEntry { .. })).cloned().collect();
    let [Notice::LargeEntry { kind: "RootKeyMetaUpsertRequestType", bytes }] = large[..] else { panic!("{large:?}") };
    assert!(bytes > 2000);
    let ended = rig.resolved();
    let (2, Resolution::Rejected(why)) = &ended[0] else { panic!("{ended:?}") };
    assert!(why.starts_with("entry of ") && why.ends_with(" bytes is over the limit of 4096"), "{why}");
    assert_eq!(ended[1..], [(1, applied(3)), (3, applied(4))]);
    assert_eq!(rig.syncs, 1);
}

#[test]
fn one_proposal_more_than_may_wait_is_rejected() {
    let mut rig = Rig::one(limits());
    rig.propose(1..=60);
    rig.propose(61..=101);
    let ended = rig.resolved();
    let [(101, Resolution::Rejected(why))] = &ended[..] else { panic!("{ended:?}") };
    assert!(why.contains("limit 100"), "{why}");
    rig.settle();
    assert_eq!(rig.resolved().len(), 100);
    rig.propose([102]);
    rig.settle();
    assert_eq!(rig.resolved(), [(102, applied(103))], "and there is room again");
}

#[test]
fn a_stop_settles_what_waits_and_takes_nothing_more() {
    let mut rig = Rig::one(limits());
    rig.propose([1]);
    rig.propose([2]);
    rig.input(Input::Stop);
    rig.propose([3]);
    assert_eq!(rig.resolved(), [(3, Resolution::NotLeader)]);
    rig.settle();
    assert_eq!(rig.resolved(), [(1, applied(3)), (2, applied(4))]);
    assert_eq!(rig.replica.poll_timeout(), None, "quiet");
}

#[test]
fn a_snapshot_is_asked_for_by_entries_and_by_bytes() {
    for limits in [Limits { snapshot_entries: 10, ..limits() }, Limits { snapshot_bytes: 1000, ..limits() }] {
        let mut rig = Rig::one(limits.clone());
        for id in 0..10 {
            rig.propose([id]);
            rig.settle();
        }
        let (meta, state) = rig.asked_snapshot.clone().unwrap();
        assert_eq!((meta.voters.clone(), meta.learners.clone()), (vec![ReplicaId(1)], vec![]));
        assert_eq!((state.index(), meta.term), (meta.index, Term(2)));
        assert_eq!(state.digest(), replay(&rig.disk.entries, meta.index).digest());
        assert!(rig.snapshot());
        assert_eq!(rig.compacted, [], "the log still reaches back to the beginning");
        for id in 10..30 {
            rig.propose([id]);
            rig.settle();
        }
        assert!(rig.snapshot());
        assert_eq!(rig.compacted, [meta.index], "back to the snapshot before");
        assert_eq!(rig.disk.snapshots.len(), 2);
        let before = rig.root.digest();
        let again = Rig::start(1, limits, rig.disk.clone(), None);
        let mut again = again;
        again.settle();
        assert_eq!(again.root.signing_keys().len(), 30);
        assert_ne!(again.root.digest(), before, "its barrier took an index");
    }
}

#[test]
fn an_entry_that_cannot_be_read_stops_it_loudly() {
    let mut rig = Rig::one(limits());
    rig.propose([1]);
    rig.settle();
    let mut disk = rig.disk;
    disk.entries[2].data = vec![0xc1; 5];
    let mut rig = Rig::start(1, limits(), disk, None);
    rig.settle();
    let Some(Notice::Fatal(why)) = rig.notices.last() else { panic!("{:?}", rig.notices) };
    assert!(why.starts_with("entry 3 of the log cannot be applied"), "{why}");
    rig.propose([2]);
    rig.input(Input::Stop);
    assert!(matches!(rig.notices.last(), Some(Notice::Fatal(_))));
    assert_eq!((rig.replica.poll_timeout(), rig.asked.len()), (None, 0));
}
