//! What survives a crash at any place.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{Disk, Rig, applied, limits, replay};
use crate::base::id::ReplicaId;
use crate::consensus::{Limits, LogEntry, Resolution};
use crate::state::State;

/// The index a key was added at; keys are what the proposals of these tests add.
fn added_at(root: &State, id: u64) -> Option<u64> {
    let name = format!("key-{id}");
    root.signing_keys().iter().find(|key| key.key_id == name).map(|key| key.create_index)
}

#[test]
fn every_prefix_of_what_was_written_recovers() {
    let mut rig = Rig::start(1, limits(), Disk::default(), Some(vec![ReplicaId(1)]));
    let mut disks = vec![(Disk::default(), Vec::new())];
    let mut acknowledged = Vec::new();
    for id in 0..8u64 {
        rig.sync();
        acknowledged.extend(rig.resolved());
        disks.push((rig.disk.clone(), acknowledged.clone()));
        rig.propose([id]);
    }
    for (disk, acknowledged) in disks {
        let written = disk.entries.len();
        let mut again = Rig::start(1, limits(), disk, Some(vec![ReplicaId(1)]));
        again.settle();
        assert!(again.replica.leadership().ready, "after {written} entries");
        let state = replay(&again.disk.entries, again.root.index());
        assert_eq!(state.digest(), again.root.digest());
        for (id, ended) in acknowledged {
            let index = added_at(&again.root, id).expect("no acknowledged entry is lost");
            assert_eq!(ended, applied(index), "{id} after {written} entries");
        }
    }
}

#[test]
fn another_bootstrap_changes_nothing_on_a_disk_that_holds_something() {
    let rig = Rig::one(limits());
    let mut again = Rig::start(1, limits(), rig.disk, Some(vec![ReplicaId(2), ReplicaId(3)]));
    again.settle();
    assert!(again.replica.leadership().ready);
    again.propose([1]);
    again.settle();
    assert_eq!(again.resolved(), [(1, applied(4))]);
}

#[derive(Clone, Debug)]
enum Step {
    Propose(u8),
    Sync,
    Snapshot,
    /// A crash; whether the write and the snapshot that were under way reached the disk.
    Crash(bool, bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1u8..8).prop_map(Step::Propose),
        6 => Just(Step::Sync),
        2 => Just(Step::Snapshot),
        1 => (any::<bool>(), any::<bool>()).prop_map(|(write, snapshot)| Step::Crash(write, snapshot)),
    ]
}

/// The rig, with all that was ever written, and what was acknowledged.
struct World {
    rig: Rig,
    limits: Limits,
    history: BTreeMap<u64, LogEntry>,
    acknowledged: BTreeMap<u64, u64>,
    next_id: u64,
}

impl World {
    fn remember(&mut self) {
        for entry in &self.rig.disk.entries {
            let old = self.history.insert(entry.index.0, entry.clone());
            assert!(old.is_none_or(|old| old == *entry), "an entry on disk changed");
        }
        for (id, ended) in self.rig.resolved() {
            match ended {
                Resolution::Applied { index, .. } => drop(self.acknowledged.insert(id, index.0)),
                other => panic!("a group of one ended {id} with {other:?}"),
            }
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Propose(count) => {
                self.rig.wall += 1;
                self.rig.propose(self.next_id..self.next_id + u64::from(*count));
                self.next_id += u64::from(*count);
            }
            Step::Sync => drop(self.rig.sync()),
            Step::Snapshot => drop(self.rig.snapshot()),
            Step::Crash(write, snapshot) => {
                let mut disk = self.rig.disk.clone();
                if let Some(persist) = self.rig.asked.front().filter(|_| *write) {
                    disk.persist(persist);
                }
                disk.snapshots.extend(self.rig.asked_snapshot.take().filter(|_| *snapshot));
                self.rig = Rig::start(1, self.limits.clone(), disk, Some(vec![ReplicaId(1)]));
            }
        }
        self.remember();
        self.check();
    }

    fn check(&self) {
        let mut history: Vec<LogEntry> = self.history.values().cloned().collect();
        if history.is_empty() {
            // The first voters are known before they are written: they are the same whenever that happens.
            let first = self.rig.asked.iter().flat_map(|persist| &persist.entries);
            history.extend(first.filter(|entry| entry.kind == 1).cloned());
        }
        let state = replay(&history, self.rig.root.index());
        assert_eq!(state.digest(), self.rig.root.digest(), "the state is what the log says");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    // Reliability goal 4
    #[test]
    fn nothing_acknowledged_is_lost(steps in prop::collection::vec(step(), 1..80)) {
        let limits = Limits { snapshot_entries: 12, max_waiting_proposals: 1000, ..limits() };
        let rig = Rig::start(1, limits.clone(), Disk::default(), Some(vec![ReplicaId(1)]));
        let mut world =
            World { rig, limits, history: BTreeMap::new(), acknowledged: BTreeMap::new(), next_id: 0 };
        for step in &steps {
            world.step(step);
        }
        world.step(&Step::Crash(false, false));
        world.rig.settle();
        world.remember();
        world.check();
        for (id, index) in &world.acknowledged {
            prop_assert_eq!(added_at(&world.rig.root, *id), Some(*index), "{} is lost", id);
        }
    }
}
