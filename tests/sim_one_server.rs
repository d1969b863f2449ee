//! One server in a seeded world: hundreds of seeds, each with its own faults (reliability notes, goals 1, 3, 4, 7).
//! What the environment says is in `sim_rig`.
#![allow(clippy::unwrap_used)]

#[allow(unused_macros)]
#[macro_use]
mod sim_rig;

use holdfast::base::id::ReplicaId;
use holdfast::base::time::Instant;
use holdfast::consensus::raft::RaftReplica;
use holdfast::consensus::{Input, Output, Recovered, Replica};
use holdfast::sim::disk::{Disk, snapshot_bytes};
use holdfast::sim::truth::Truth;
use holdfast::sim::{Options, World};

use sim_rig::Worlds;

const ONE: Worlds = Worlds { seeds: 300, of: Options::from_seed, planted: Options::planted_in_one };

#[test]
fn all_is_well_in_even_seeds() {
    ONE.try_seeds(0);
}

#[test]
fn all_is_well_in_odd_seeds() {
    ONE.try_seeds(1);
}

#[test]
fn one_seed_shows_what_happened() {
    ONE.show_one();
}

// Goal 3.
#[test]
fn the_same_seed_gives_the_same_trace() {
    ONE.replay(12);
}

// Goal 4: the power goes while the last record is written, at every byte of it.
#[test]
fn the_power_may_go_at_every_byte_of_the_last_record() {
    let mut cuts = 0;
    for seed in 0..8 {
        let mut world = World::new(Options { nemeses: 0, ..Options::from_seed(seed) });
        for _ in 0..4 {
            // Somewhat later, until a record is written that is not synced.
            world.run_until(world.ground.now + std::time::Duration::from_secs(3));
            let at_rest = |world: &World| world.ground.sites[0].disk.len() == world.ground.sites[0].disk.synced();
            while at_rest(&world) && world.step() {}
            let (disk, log, truth) = (&world.ground.sites[0].disk, &world.ground.sites[0].log, &world.ground.truth);
            let cut_at = |offset| {
                let mut cut = disk.clone();
                let recovered = cut.crash(offset).unwrap();
                (cut, recovered)
            };
            for offset in [disk.synced(), disk.len()] {
                let (cut, recovered) = cut_at(offset);
                truth.check_snapshot(&recovered).unwrap();
                check_recovery(seed, offset, offset == disk.len(), cut, recovered, log);
            }
            // Every cut in between gives what the first one gave.
            let first = cut_at(disk.synced()).1;
            for offset in disk.synced()..disk.len() {
                let (cut, recovered) = cut_at(offset);
                assert_eq!(cut.len(), disk.synced(), "seed {seed}, cut at {offset}");
                assert_eq!(recovered.entries, first.entries, "seed {seed}, cut at {offset}");
                assert_eq!(recovered.hard_state, first.hard_state, "seed {seed}, cut at {offset}");
                cuts += 1;
            }
        }
    }
    assert!(cuts > 1000, "{cuts}");
}

/// A process that begins with what the disk gives has what was synced, and the last record whole or not at all.
fn check_recovery(seed: u64, offset: usize, whole: bool, mut disk: Disk, recovered: Recovered, truth: &Truth) {
    let what = format!("seed {seed}, cut at {offset}");
    let snapshot = recovered.snapshot.as_ref().map_or(0, |(meta, _)| meta.index.0);
    let last = recovered.entries.last().map_or(snapshot, |entry| entry.index.0);
    let mut left = truth.clone();
    left.recover(&recovered).unwrap_or_else(|why| panic!("{what}: {why}"));
    assert!(if whole { last == truth.last() } else { last <= truth.last() }, "{what}: the log ends at {last}");
    let limits = Options::from_seed(seed).replica();
    let mut replica =
        RaftReplica::new(ReplicaId(1), seed, limits, recovered, Some(vec![ReplicaId(1)]), Instant::ZERO).unwrap();
    while let Some(output) = replica.poll_output() {
        match output {
            Output::Install { .. } => {}
            Output::Persist(persist) => {
                left.write(&persist.entries);
                disk.write(&persist);
                disk.sync();
                let input = Input::Persisted { ticket: persist.ticket };
                replica.handle_input(Instant::ZERO, holdfast::base::time::WallTime::default(), input);
            }
            Output::WriteSnapshot(meta, state) => {
                let index = meta.index;
                disk.put_snapshot(meta, snapshot_bytes(&state));
                let input = Input::SnapshotWritten { index };
                replica.handle_input(Instant::ZERO, holdfast::base::time::WallTime::default(), input);
            }
            Output::Compact(index) => disk.compact(index),
            Output::Publish { .. } => {}
        }
    }
    assert!(replica.leadership().ready, "{what}: does not lead");
    assert_eq!(replica.root().digest(), left.replay_to(u64::MAX).digest(), "{what}: another state");
    // And so does the next one.
    let again = disk.recover().unwrap_or_else(|why| panic!("{what}: then {why}"));
    assert_eq!(left.recover(&again), Ok(()), "{what}");
}
