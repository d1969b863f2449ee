//! Folders that a replica wrote, recovered and started again.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use super::*;
use crate::base::id::CallId;
use crate::base::time::WallTime;
use crate::consensus::{HardState, Input, LogEntry, Output, Persist, Proposal, Replica};
use crate::wire::entry::server::ServerRecord;

fn limits() -> Limits {
    Limits {
        max_entry_bytes: 1 << 20,
        warn_entry_bytes: 1 << 20,
        snapshot_entries: 1 << 40,
        snapshot_bytes: 1 << 40,
        tick: std::time::Duration::from_millis(25),
        election_ticks: 20,
        heartbeat_ticks: 4,
        stalled_sync: std::time::Duration::from_secs(10),
        max_waiting_proposals: 100,
    }
}

fn key(at: u64) -> Command {
    Command::SigningKeyAdd { key_id: format!("key-{at}"), public_key: vec![7; 32], create_time: 1 }
}

fn server(id: &str, replica: u64) -> Command {
    Command::ServerUpsert(ServerRecord {
        id: id.to_owned(),
        replica,
        name: format!("name of {id}"),
        rpc_addr: format!("{id}:4647"),
        ..ServerRecord::default()
    })
}

/// Does what the replica asks for, on the disk.
fn follow(dir: &mut DataDir, replica: &mut RaftReplica) {
    while let Some(output) = replica.poll_output() {
        if let Output::Persist(persist) = output {
            dir.log.persist(&persist).unwrap();
            let input = Input::Persisted { ticket: persist.ticket };
            replica.handle_input(Instant::ZERO, WallTime::from_unix_nanos(1), input);
        }
    }
}

fn start(dir: &mut DataDir, id: ReplicaId, bootstrap: Option<Vec<ReplicaId>>) -> RaftReplica {
    let recovered = std::mem::take(&mut dir.recovered);
    let mut replica = RaftReplica::new(id, 7, limits(), recovered, bootstrap, Instant::ZERO).unwrap();
    follow(dir, &mut replica);
    replica
}

fn propose(dir: &mut DataDir, replica: &mut RaftReplica, command: Command) {
    let proposals = vec![Proposal { id: CallId(1), session: None, command }];
    replica.handle_input(Instant::ZERO, WallTime::from_unix_nanos(1), Input::Propose(proposals));
    follow(dir, replica);
}

/// The folder of a server that belongs to the voters besides itself; its number.
fn folder(others: &[u64]) -> (tempfile::TempDir, ReplicaId) {
    let folder = tempfile::tempdir().unwrap();
    let server_id = DataFolder::open(folder.path()).unwrap().server_id().unwrap();
    let own = daemon::replica_id(&server_id);
    let mut dir = DataDir::open(folder.path()).unwrap();
    let voters = std::iter::once(own).chain(others.iter().map(|id| ReplicaId(*id))).collect();
    let mut replica = start(&mut dir, own, Some(voters));
    if others.is_empty() {
        (1..=5).for_each(|at| propose(&mut dir, &mut replica, key(at)));
    }
    (folder, own)
}

/// What a leader of others has sent since: entries, and how far they are known to be committed.
fn receive(folder: &tempfile::TempDir, commands: Vec<Command>, committed: u64) {
    let mut dir = DataDir::open(folder.path()).unwrap();
    let first = dir.recovered.entries.last().unwrap().index.0 + 1;
    let entry = |(index, command)| {
        let data = Entry { time_unix_nanos: 9, session: None, command }.encode();
        LogEntry { index: Index(index), term: Term(4), kind: 0, data }
    };
    let entries = (first..).zip(commands).map(entry).collect();
    let hard_state = HardState { term: Term(6), vote: ReplicaId(2), commit: Index(committed) };
    dir.log.persist(&Persist { ticket: 1, entries, hard_state: Some(hard_state) }).unwrap();
}

// R8.20
#[test]
fn one_of_three_goes_on_alone_with_all_that_its_log_held() {
    let (folder, own) = folder(&[2, 3]);
    let path = folder.path();
    let old = ClusterFile {
        cluster_id: "old".to_owned(),
        founders: vec!["a".to_owned()],
        known: vec![("b".to_owned(), "b:4647".to_owned())],
    };
    cluster_file::keep(path, &old).unwrap();
    let own_id = DataFolder::open(path).unwrap().server_id().unwrap();
    receive(&folder, vec![server(&own_id, own.0), server("b", 2), key(1), key(2)], 5);

    let found = plan(path).unwrap();
    assert_eq!((found.cluster_id.as_str(), found.replica, found.server_id.as_str()), ("old", own, own_id.as_str()));
    assert_eq!((found.committed, found.last, found.last_term, found.uncertain()), (Index(5), Index(7), Term(4), 2));
    let names: BTreeSet<(u64, bool, &str)> =
        found.dropped.iter().map(|one| (one.replica.0, one.voter, one.rpc_addr.as_str())).collect();
    assert_eq!(names, BTreeSet::from([(2, true, "b:4647"), (3, true, "")]));
    assert!(found.warnings.is_empty());
    // A plan changes nothing, and keeps others out.
    assert!(plan(path).unwrap_err().contains("in use by process"));
    drop(found);
    assert_eq!(cluster_file::read(path), Ok(old));

    let done = perform(plan(path).unwrap()).unwrap();
    assert_eq!(done.index, Index(8), "the servers that are gone were taken from the table");
    let new = cluster_file::read(path).unwrap();
    assert_eq!((new.cluster_id, new.founders.len(), new.known.len()), (done.cluster_id, 0, 0));

    let mut dir = DataDir::open(path).unwrap();
    assert!(dir.recovered.entries.is_empty());
    let mut replica = start(&mut dir, own, None);
    assert!(replica.leadership().leader == Some(own), "it leads at once, alone");
    propose(&mut dir, &mut replica, key(3));
    let state = replica.root();
    assert_eq!(state.signing_keys().iter().count(), 3);
    assert!(state.servers().map(|record| record.id.as_str()).eq([own_id.as_str()]));
    drop((replica, dir));
    // And it is the same after another start.
    let mut dir = DataDir::open(path).unwrap();
    assert_eq!(start(&mut dir, own, None).root().signing_keys().iter().count(), 3);
}

// R8.20
#[test]
fn a_lone_server_loses_nothing_by_it() {
    let (folder, own) = folder(&[]);
    let found = plan(folder.path()).unwrap();
    assert!(found.dropped.is_empty() && found.warnings.is_empty());
    let done = perform(found).unwrap();
    let mut dir = DataDir::open(folder.path()).unwrap();
    let (meta, state) = dir.recovered.snapshot.as_ref().unwrap();
    assert_eq!((meta.index, meta.voters.as_slice(), state.signing_keys().iter().count()), (done.index, &[own][..], 5));
    let replica = start(&mut dir, own, None);
    assert_eq!(replica.root().signing_keys().iter().count(), 5);
}

#[test]
fn what_is_no_folder_of_a_server_is_left_alone() {
    let empty = tempfile::tempdir().unwrap();
    assert!(plan(empty.path()).unwrap_err().contains("is not the data folder of a server"));
    assert_eq!(std::fs::read_dir(empty.path()).unwrap().count(), 0);
    assert!(plan(&empty.path().join("nowhere")).is_err());
    DataFolder::open(empty.path()).unwrap().server_id().unwrap();
    assert!(plan(empty.path()).unwrap_err().contains("there is nothing to recover"));
}

#[test]
fn a_server_without_a_vote_is_warned_of() {
    let (folder, _) = folder(&[2]);
    std::fs::write(folder.path().join("server-id"), "00000000-0000-4000-8000-000000000000\n").unwrap();
    let found = plan(folder.path()).unwrap();
    assert_eq!((found.warnings.len(), found.dropped.len()), (1, 2));
}
