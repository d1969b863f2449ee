//! The thread with a real disk, and with one that fails.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use crossbeam_channel::unbounded;

use super::*;
use crate::base::id::{CallId, ReplicaId};
use crate::base::time::{Instant, WallTime};
use crate::consensus::raft::RaftReplica;
use crate::consensus::{HardState, Limits, Persist, Recovered, Resolution};
use crate::edge::data_dir::DataDir;
use crate::wire::entry::Command;

struct StoppedClock;

impl Clock for StoppedClock {
    fn now(&self) -> Instant {
        Instant::ZERO
    }

    fn wall(&self) -> WallTime {
        WallTime::from_unix_nanos(1)
    }
}

pub(super) fn limits() -> Limits {
    Limits {
        max_entry_bytes: 1 << 20,
        warn_entry_bytes: 1 << 20,
        snapshot_entries: 300,
        snapshot_bytes: 1 << 30,
        tick: Duration::from_millis(100),
        election_ticks: 10,
        heartbeat_ticks: 2,
        stalled_sync: Duration::from_secs(10),
        max_waiting_proposals: 100_000,
    }
}

struct Running {
    commands: Sender<ConsensusCommand>,
    notices: Receiver<Vec<Notice>>,
    root: Arc<ArcSwap<State>>,
    thread: JoinHandle<()>,
}

fn start(recovered: Recovered, log: Box<dyn Log + Send>, write_snapshot: Arc<SnapshotWriter>) -> Running {
    let bootstrap = Some(vec![ReplicaId(1)]);
    let replica = RaftReplica::new(ReplicaId(1), 1, limits(), recovered, bootstrap, Instant::ZERO).unwrap();
    let root = Arc::new(ArcSwap::new(replica.root()));
    let (commands, inbox) = bounded(64);
    let (told, notices) = unbounded();
    let parts = ConsensusParts {
        replica: Box::new(replica),
        log,
        write_snapshot,
        commands: inbox,
        inputs: never(),
        root: Arc::clone(&root),
        notices: told,
        wake: Box::new(|| ()),
        clock: Box::new(StoppedClock),
    };
    Running { commands, notices, root, thread: spawn(parts).unwrap() }
}

/// On a real folder. The lock goes with the closure that writes snapshots.
fn start_in(folder: &Path) -> Running {
    let dir = DataDir::open(folder).unwrap();
    let (lock, snapshots) = (dir.lock, dir.snapshots);
    let write = move |meta: &SnapshotMeta, state: &State| {
        let _held = &lock;
        snapshots.write(meta, state)
    };
    start(dir.recovered, Box::new(dir.log), Arc::new(write))
}

pub(super) fn proposal(id: u64) -> Proposal {
    let command = Command::SigningKeyAdd { key_id: format!("key-{id}"), public_key: vec![7; 32], create_time: 1 };
    Proposal { id: CallId(id), session: None, command }
}

impl Running {
    /// Waits until `count` proposals have ended.
    fn ended(&self, count: usize) -> BTreeMap<u64, Resolution> {
        let mut ended = BTreeMap::new();
        while ended.len() < count {
            for notice in self.notices.recv().unwrap() {
                if let Notice::Resolved { id, resolution } = notice {
                    ended.insert(id.0, resolution);
                }
            }
        }
        ended
    }

    fn stop(self) {
        self.commands.send(ConsensusCommand::Stop).unwrap();
        self.thread.join().unwrap();
    }
}

#[test]
fn a_thousand_proposals_of_several_senders_are_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let running = start_in(folder.path());
    let senders: Vec<_> = (0..4u64)
        .map(|sender| {
            let commands = running.commands.clone();
            std::thread::spawn(move || {
                for number in 0..250 {
                    commands
                        .send(ConsensusCommand::Propose(Instant::ZERO, vec![proposal(sender * 250 + number)]))
                        .unwrap();
                }
            })
        })
        .collect();
    let ended = running.ended(1000);
    senders.into_iter().for_each(|sender| sender.join().unwrap());
    let (root, before) = (running.root.load_full(), running.root.load().digest());
    running.stop();

    let running = start_in(folder.path());
    running.commands.send(ConsensusCommand::Propose(Instant::ZERO, vec![proposal(1000)])).unwrap();
    running.ended(1);
    let again = running.root.load_full();
    running.stop();
    assert_eq!(again.signing_keys().len(), 1001);
    assert_eq!(root.digest(), before, "a root that was taken never changes");
    for (id, resolution) in ended {
        let name = format!("key-{id}");
        let key = again.signing_keys().iter().find(|key| key.key_id == name).unwrap();
        let Resolution::Applied { index, .. } = resolution else { panic!("{resolution:?}") };
        assert_eq!(key.create_index, index.0);
    }
    let snapshots = std::fs::read_dir(folder.path().join("snapshots")).unwrap().count();
    assert!(snapshots >= 1, "snapshots were written on the way");
}

#[test]
fn it_ends_when_nobody_is_left_to_ask() {
    let folder = tempfile::tempdir().unwrap();
    let running = start_in(folder.path());
    drop(running.commands);
    running.thread.join().unwrap();
}

#[test]
fn what_comes_after_a_stop_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let running = start_in(folder.path());
    for command in [
        ConsensusCommand::Propose(Instant::ZERO, vec![proposal(1)]),
        ConsensusCommand::Stop,
        ConsensusCommand::Propose(Instant::ZERO, vec![proposal(2)]),
    ] {
        // The last one may find the thread gone, and then nobody waits for its answer here.
        let _ = running.commands.send(command);
    }
    let ended = running.ended(1);
    assert!(matches!(ended.get(&1), Some(Resolution::Applied { .. })));
    running.thread.join().unwrap();
    let rest: Vec<_> = running.notices.try_iter().flatten().collect();
    assert!(
        !rest.iter().any(|notice| matches!(notice, Notice::Resolved { resolution: Resolution::Applied { .. }, .. }))
    );
}

/// Fails from the given write on, and counts.
struct FailingLog {
    writes_left: usize,
    asked_again: Arc<std::sync::atomic::AtomicUsize>,
}

impl Log for FailingLog {
    fn persist(&mut self, _what: &Persist) -> Result<(), String> {
        if self.writes_left == 0 {
            self.asked_again.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            return Err("syncing /data/raft/1: I/O error".to_owned());
        }
        self.writes_left -= 1;
        Ok(())
    }

    fn compact(&mut self, _up_to: Index) -> Result<(), String> {
        Ok(())
    }

    fn begin_anew(&mut self, _hard_state: HardState) -> Result<(), String> {
        Ok(())
    }
}

// Reliability goal 16
#[test]
fn a_disk_error_acknowledges_nothing_and_ends_the_thread() {
    let failures = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let log = FailingLog { writes_left: 2, asked_again: Arc::clone(&failures) };
    let running = start(Recovered::default(), Box::new(log), Arc::new(|_, _| Ok(())));
    running.commands.send(ConsensusCommand::Propose(Instant::ZERO, vec![proposal(1)])).unwrap();
    assert_eq!(running.ended(1).len(), 1);
    running.commands.send(ConsensusCommand::Propose(Instant::ZERO, vec![proposal(2)])).unwrap();
    running.thread.join().unwrap();
    let rest: Vec<_> = running.notices.try_iter().flatten().collect();
    assert_eq!(rest, [Notice::Fatal("syncing /data/raft/1: I/O error".to_owned())]);
    assert_eq!(failures.load(std::sync::atomic::Ordering::SeqCst), 1, "the disk is not asked again");
}

#[test]
fn a_snapshot_that_cannot_be_written_ends_the_thread_with_its_path() {
    let log = FailingLog { writes_left: usize::MAX, asked_again: Arc::default() };
    let write = |_: &SnapshotMeta, _: &State| Err("writing /data/snapshots/2-302.tmp: no space".to_owned());
    let running = start(Recovered::default(), Box::new(log), Arc::new(write));
    running.commands.send(ConsensusCommand::Propose(Instant::ZERO, (0..400).map(proposal).collect())).unwrap();
    running.thread.join().unwrap();
    let last = running.notices.try_iter().flatten().last();
    assert_eq!(last, Some(Notice::Fatal("writing /data/snapshots/2-302.tmp: no space".to_owned())));
}

#[test]
fn a_panic_is_told_before_the_thread_ends() {
    struct Broken;
    impl Log for Broken {
        fn persist(&mut self, _what: &Persist) -> Result<(), String> {
            panic!("a broken invariant")
        }
        fn compact(&mut self, _up_to: Index) -> Result<(), String> {
            Ok(())
        }
        fn begin_anew(&mut self, _hard_state: HardState) -> Result<(), String> {
            Ok(())
        }
    }
    let running = start(Recovered::default(), Box::new(Broken), Arc::new(|_, _| Ok(())));
    running.thread.join().unwrap();
    let last = running.notices.try_iter().flatten().last();
    assert_eq!(last, Some(Notice::Fatal("the consensus thread panicked: a broken invariant".to_owned())));
}
