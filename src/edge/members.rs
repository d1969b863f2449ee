//! Who the members of the group are, as a server's own disk says: the last snapshot's, changed by the entries after it.
//!
//! Read only when a process begins; while it runs, raft itself knows.

use std::collections::BTreeSet;

use protobuf::Message as _;
use raft::eraftpb::{ConfChange, ConfChangeType, ConfChangeV2};

use crate::base::id::ReplicaId;
use crate::consensus::{LogEntry, Recovered};

/// `LogEntry::kind` of a change of one member.
const KIND_CHANGE: u8 = 1;
/// The same of several, by way of a joint configuration.
const KIND_CHANGES: u8 = 2;

/// Members with and without a vote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Members {
    pub(super) voters: BTreeSet<ReplicaId>,
    pub(super) learners: BTreeSet<ReplicaId>,
}

impl Members {
    /// The members after the last entry of the log, whether or not it is known to be committed.
    ///
    /// # Errors
    /// An entry that cannot be read; names it.
    pub(super) fn of(recovered: &Recovered) -> Result<Members, String> {
        let mut members = Members::default();
        if let Some((meta, _)) = &recovered.snapshot {
            members.voters.extend(&meta.voters);
            members.learners.extend(&meta.learners);
        }
        for entry in &recovered.entries {
            members.change(entry).map_err(|why| format!("entry {} of the log cannot be read: {why}", entry.index))?;
        }
        Ok(members)
    }

    fn change(&mut self, entry: &LogEntry) -> Result<(), String> {
        // Only what this server wrote to its own disk is read here, never bytes of a peer.
        match entry.kind {
            KIND_CHANGE => {
                let mut change = ConfChange::default();
                change.merge_from_bytes(&entry.data).map_err(|error| error.to_string())?;
                self.change_one(change.get_change_type(), ReplicaId(change.node_id));
            }
            KIND_CHANGES => {
                let mut whole = ConfChangeV2::default();
                whole.merge_from_bytes(&entry.data).map_err(|error| error.to_string())?;
                for change in whole.get_changes() {
                    self.change_one(change.get_change_type(), ReplicaId(change.node_id));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn change_one(&mut self, change: ConfChangeType, replica: ReplicaId) {
        self.voters.remove(&replica);
        self.learners.remove(&replica);
        match change {
            ConfChangeType::AddNode => drop(self.voters.insert(replica)),
            ConfChangeType::AddLearnerNode => drop(self.learners.insert(replica)),
            ConfChangeType::RemoveNode => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::base::id::{Index, Term};
    use crate::consensus::SnapshotMeta;
    use crate::state::State;
    use raft::eraftpb::ConfChangeSingle;

    fn single(kind: ConfChangeType, id: u64) -> ConfChangeSingle {
        let mut change = ConfChangeSingle { node_id: id, ..ConfChangeSingle::default() };
        change.set_change_type(kind);
        change
    }

    fn entry(index: u64, kind: u8, data: Vec<u8>) -> LogEntry {
        LogEntry { index: Index(index), term: Term(1), kind, data }
    }

    #[test]
    fn the_log_changes_what_the_snapshot_says() {
        let mut added = ConfChange { node_id: 4, ..ConfChange::default() };
        added.set_change_type(ConfChangeType::AddLearnerNode);
        let mut swapped = ConfChangeV2::default();
        swapped.mut_changes().push(single(ConfChangeType::AddNode, 4));
        swapped.mut_changes().push(single(ConfChangeType::RemoveNode, 2));
        let meta = SnapshotMeta {
            index: Index(5),
            term: Term(1),
            voters: vec![ReplicaId(1), ReplicaId(2)],
            ..SnapshotMeta::default()
        };
        let mut recovered = Recovered {
            snapshot: Some((meta, State::new())),
            entries: vec![
                entry(6, KIND_CHANGE, added.write_to_bytes().unwrap()),
                entry(7, 0, vec![9, 9, 9]),
                entry(8, KIND_CHANGES, swapped.write_to_bytes().unwrap()),
                // The joint configuration is left.
                entry(9, KIND_CHANGES, Vec::new()),
            ],
            ..Recovered::default()
        };
        let members = Members::of(&recovered).unwrap();
        assert!(members.voters.iter().map(|id| id.0).eq([1, 4]) && members.learners.is_empty());
        recovered.entries.truncate(2);
        let members = Members::of(&recovered).unwrap();
        assert!(members.voters.iter().map(|id| id.0).eq([1, 2]) && members.learners.iter().map(|id| id.0).eq([4]));
        recovered.entries.push(entry(8, KIND_CHANGE, vec![0xff; 3]));
        assert!(Members::of(&recovered).unwrap_err().starts_with("entry 8 of the log cannot be read"));
    }
}
