//! Files, keys and snapshots by way of the loop, with a double of the server machine.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use crate::consensus::Input as ConsensusInput;
use crate::server::port::{ClusterFile, ClusterOutput};
use crate::state::State;
use crate::state::snapshot;
use crate::wire::raft::KeyFile;

use super::cluster_file;
use super::consensus_lane::ConsensusLane;
use super::double::{Rig, RigParts};
use super::facts::DiskSpace;
use super::file_worker::FileWorker;
use super::keyring::Keyring;
use super::snapshot_in::SnapshotKeeper;

/// A loop with a data folder.
fn rig(folder: &Path) -> Rig {
    fs::create_dir(folder.join("snapshots")).unwrap();
    let mut rig = RigParts::new();
    let hands = &mut rig.parts.hands;
    hands.files = Some(FileWorker::start(folder, &hands.post).unwrap());
    hands.snapshot_keeper = Some(SnapshotKeeper::start(folder, &hands.post).unwrap());
    rig.start()
}

fn wait_for(rig: &Rig, what: &str) -> String {
    let mut found = None;
    rig.wait(what, |seen| {
        found = seen.others.iter().find(|other| other.contains(what)).cloned();
        found.is_some()
    });
    rig.seen().others.clear();
    found.unwrap()
}

#[test]
fn what_is_to_be_kept_is_on_disk_when_that_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let rig = rig(folder.path());
    for name in ["one", "two"] {
        let file = ClusterFile { cluster_id: name.to_owned(), ..ClusterFile::default() };
        rig.perform(ClusterOutput::KeepCluster(file.clone()).into());
        wait_for(&rig, "ClusterKept");
        assert_eq!(cluster_file::read(folder.path()), Ok(file));
    }
    rig.stop();
}

#[test]
fn keys_are_given_and_taken() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let made = Keyring::new(other.path()).load_or_make(None).unwrap();
    let key_id = made.key_id().to_owned();
    let bytes = Keyring::new(other.path()).read(&key_id).unwrap().unwrap();
    let rig = rig(folder.path());
    rig.perform(ClusterOutput::ReadKeys(vec![key_id.clone(), "no id".to_owned()]).into());
    assert_eq!(wait_for(&rig, "KeyFiles"), "KeyFiles([])");
    rig.perform(ClusterOutput::KeepKey { key_id: key_id.clone(), secret: KeyFile(b"no key".to_vec()) }.into());
    assert!(wait_for(&rig, "KeyKept").contains("error: Some("));
    rig.perform(ClusterOutput::KeepKey { key_id: key_id.clone(), secret: KeyFile(bytes.clone()) }.into());
    assert!(wait_for(&rig, "KeyKept").contains("error: None"));
    assert_eq!(Keyring::new(folder.path()).read(&key_id).unwrap().unwrap(), bytes);
    rig.perform(ClusterOutput::ReadKeys(vec![key_id.clone()]).into());
    assert_eq!(wait_for(&rig, "KeyFiles"), format!("KeyFiles([({key_id:?}, KeyFile(..))])"));
    rig.stop();
}

#[test]
fn a_state_goes_out_and_comes_in_as_chunks() {
    let folder = tempfile::tempdir().unwrap();
    let rig = rig(folder.path());
    let state = Arc::new(State::new());
    rig.perform(ClusterOutput::ReadSnapshot { ticket: 5, state: Arc::clone(&state), from: 0 }.into());
    rig.perform(ClusterOutput::NextChunk { ticket: 5 }.into());
    let chunk = wait_for(&rig, "SnapshotChunk");
    assert!(chunk.contains("ticket: 5, number: 0") && chunk.contains("last: true"), "{chunk}");
    rig.perform(ClusterOutput::EndSnapshot { ticket: 5 }.into());
    let bytes: Vec<u8> = snapshot::write(&state).collect::<Vec<_>>().concat();
    let (first, rest) = bytes.split_at(20);
    let keep = |number, bytes: &[u8], last| ClusterOutput::KeepChunk { ticket: 9, number, bytes: bytes.to_vec(), last };
    rig.perform(keep(0, first, false).into());
    rig.perform(keep(1, rest, true).into());
    assert!(wait_for(&rig, "SnapshotWhole").contains("ticket: 9, result: Ok("));
    rig.perform(keep(0, first, true).into());
    assert!(wait_for(&rig, "SnapshotWhole").contains("result: Err("));
    rig.perform(keep(0, first, false).into());
    rig.perform(ClusterOutput::ForgetChunks { ticket: 9 }.into());
    rig.perform(keep(1, rest, true).into());
    assert!(wait_for(&rig, "SnapshotWhole").contains("not here any more"));
    rig.stop();
    assert_eq!(fs::read_dir(folder.path().join("snapshots")).unwrap().count(), 0);
}

// R8.23
#[test]
fn the_consensus_thread_is_told_in_order() {
    let mut parts = RigParts::new();
    let (lane, inputs) = ConsensusLane::new();
    parts.parts.hands.consensus = lane;
    let rig = parts.start();
    rig.perform(ClusterOutput::Consensus(vec![ConsensusInput::Messages(Vec::new()), ConsensusInput::Timeout]).into());
    rig.perform(ClusterOutput::Consensus(vec![ConsensusInput::Stop]).into());
    let wait = std::time::Duration::from_secs(60);
    let first = inputs.recv_timeout(wait).unwrap();
    assert!(matches!(first.as_slice(), [ConsensusInput::Messages(_), ConsensusInput::Timeout]));
    assert!(matches!(inputs.recv_timeout(wait).unwrap().as_slice(), [ConsensusInput::Stop]));
    rig.stop();
}

// R8.17
#[test]
fn a_disk_short_of_room_is_told_of_again_without_a_cause() {
    let folder = tempfile::tempdir().unwrap();
    let mut parts = RigParts::new();
    // More than any disk has: it stays short.
    parts.parts.hands.disk = Some(DiskSpace::new(folder.path(), u64::MAX));
    let rig = parts.start();
    rig.wait("two looks", |seen| seen.disk_looks.len() >= 2);
    assert!(rig.seen().disk_looks.iter().all(|free| free.is_some_and(|free| free > 0)));
    rig.stop();
}
