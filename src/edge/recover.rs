//! A group whose majority is gone for good, begun anew by one server that is left (requirement R8.20).
//!
//! Works on the folder of a server that is stopped, and holds its lock meanwhile. What the server's log holds becomes
//! its state, it is the only voter from then on, and its cluster has a new id: a member of the old one that comes back
//! is a stranger to it, and cannot outvote it or be outvoted.
//!
//! **What is kept.** All entries of the log, also those that are not known to be committed: a server learns of a commit
//! only with the next entry, so that its newest entries are acknowledged ones as a rule. What only the dead had is lost.

use std::path::{Path, PathBuf};

use crate::base::id::{Index, ReplicaId, Term};
use crate::base::time::Instant;
use crate::consensus::raft::RaftReplica;
use crate::consensus::{Limits, Log, Recovered, SnapshotMeta};
use crate::server::port::ClusterFile;
use crate::state::State;
use crate::wire::entry::{Command, Entry};

use super::data_dir::DataDir;
use super::files::DataFolder;
use super::members::Members;
use super::{cluster_file, daemon, entropy};

/// What recovering a folder would do.
pub struct Plan {
    /// The server whose folder it is.
    pub server_id: String,
    /// As raft names it.
    pub replica: ReplicaId,
    /// The cluster that it belonged to; empty when it never knew.
    pub cluster_id: String,
    /// The last entry that it knows to be committed.
    pub committed: Index,
    /// The last entry of its log: what is kept reaches so far.
    pub last: Index,
    /// The term of that entry.
    pub last_term: Term,
    /// Members that are dropped, with what is known of them; those with a vote first.
    pub dropped: Vec<Dropped>,
    /// What is unusual about the folder, a sentence each.
    pub warnings: Vec<String>,
    data_dir: PathBuf,
    dir: DataDir,
    state: State,
}

/// A member that is no member afterwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// As raft names it.
    pub replica: ReplicaId,
    /// Whether it has a vote.
    pub voter: bool,
    /// Its id; empty when it is not known.
    pub server_id: String,
    /// Its name; empty when it is not known.
    pub name: String,
    /// Its address; empty when it is not known.
    pub rpc_addr: String,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// The id of the new cluster.
    pub cluster_id: String,
    /// The last entry in its first snapshot.
    pub index: Index,
}

impl Plan {
    /// Entries that are kept and not known to be committed.
    pub fn uncertain(&self) -> u64 {
        self.last.0.saturating_sub(self.committed.0)
    }
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plan").field("server_id", &self.server_id).field("last", &self.last).finish_non_exhaustive()
    }
}

/// Looks at the folder of a stopped server, and keeps it locked until the plan is dropped or performed. Changes nothing
/// but what a start would.
///
/// # Errors
/// A server runs on it, it was never one, or it is damaged: a sentence that names the folder or the file.
pub fn plan(data_dir: &Path) -> Result<Plan, String> {
    if !data_dir.join("server-id").exists() {
        return Err(format!("{} is not the data folder of a server", data_dir.display()));
    }
    let server_id = DataFolder::open(data_dir)?.server_id()?;
    let mut dir = DataDir::open(data_dir)?;
    let cluster = cluster_file::read(data_dir)?;
    let recovered = std::mem::take(&mut dir.recovered);
    let snapshot = recovered.snapshot.as_ref().map(|(meta, _)| (meta.index, meta.term));
    let entry = recovered.entries.last().map(|entry| (entry.index, entry.term));
    let Some((last, last_term)) = entry.or(snapshot).filter(|(index, _)| index.0 > 0) else {
        return Err(format!("{} holds no log and no snapshot: there is nothing to recover", data_dir.display()));
    };
    let committed = recovered.hard_state.commit.max(snapshot.map_or(Index(0), |(index, _)| index));
    let members = Members::of(&recovered)?;
    let replica = daemon::replica_of_disk(&server_id, &recovered)?;
    let state = state_of(replica, recovered, last)?;
    let mut warnings = std::mem::take(&mut dir.warnings);
    if !members.voters.contains(&replica) {
        warnings.push("this server has no vote in the group as its log knows it: another may know more".to_owned());
    }
    let dropped = dropped(&members, replica, &state);
    let cluster_id = cluster.cluster_id;
    let data_dir = data_dir.to_owned();
    Ok(Plan { server_id, replica, cluster_id, committed, last, last_term, dropped, warnings, data_dir, dir, state })
}

/// The state after all entries, as a replica makes it that is told that they are committed.
fn state_of(replica: ReplicaId, mut recovered: Recovered, last: Index) -> Result<State, String> {
    recovered.hard_state.commit = last;
    let limits = Limits {
        max_entry_bytes: usize::MAX,
        warn_entry_bytes: usize::MAX,
        snapshot_entries: u64::MAX,
        snapshot_bytes: u64::MAX,
        tick: std::time::Duration::from_secs(1),
        election_ticks: 20,
        heartbeat_ticks: 4,
        stalled_sync: std::time::Duration::MAX,
        max_waiting_proposals: 0,
    };
    let made = RaftReplica::new(replica, 0, limits, recovered, None, Instant::ZERO)?;
    let state = State::clone(&made.root());
    if state.index() != last {
        return Err(format!("entry {} of the log cannot be applied", state.index().0 + 1));
    }
    Ok(state)
}

fn dropped(members: &Members, own: ReplicaId, state: &State) -> Vec<Dropped> {
    let all = members.voters.iter().map(|id| (*id, true)).chain(members.learners.iter().map(|id| (*id, false)));
    let others = all.filter(|(id, _)| *id != own);
    let known = |id: ReplicaId| state.servers().find(|record| record.replica == id.0);
    let of = |(replica, voter)| {
        let record = known(replica).map(|record| (record.id.clone(), record.name.clone(), record.rpc_addr.clone()));
        let (server_id, name, rpc_addr) = record.unwrap_or_default();
        Dropped { replica, voter, server_id, name, rpc_addr }
    };
    others.map(of).collect()
}

/// Does what the plan says. All is on disk when it returns, and the folder is free again.
///
/// # Errors
/// A sentence that names the file. Planned again, it can be tried again.
pub fn perform(plan: Plan) -> Result<Recovery, String> {
    let Plan { server_id, replica, last, last_term, data_dir, mut dir, mut state, .. } = plan;
    // The servers' own table goes with them; these entries follow the last one and are only in the snapshot.
    let gone: Vec<String> =
        state.servers().filter(|record| record.id != server_id).map(|record| record.id.clone()).collect();
    let mut index = last;
    for id in gone {
        index = Index(index.0 + 1);
        let time_unix_nanos = state.time_unix_nanos();
        let entry = Entry { time_unix_nanos, session: None, command: Command::ServerRemove { id } };
        state.apply(index, last_term, &entry);
    }
    // First the id: should the rest fail, this server knows nobody and leads nothing, and can be recovered again. The
    // other way round it would lead, and the dead could come back to it.
    let cluster_id = entropy::uuid()?;
    let cluster = ClusterFile { cluster_id: cluster_id.clone(), founders: Vec::new(), known: Vec::new() };
    cluster_file::keep(&data_dir, &cluster)?;
    let meta = SnapshotMeta { index, term: last_term, voters: vec![replica], ..SnapshotMeta::default() };
    dir.snapshots.write(&meta, &state)?;
    dir.log.compact(index)?;
    Ok(Recovery { cluster_id, index })
}

#[cfg(test)]
#[path = "recover_tests.rs"]
mod tests;
