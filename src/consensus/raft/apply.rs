//! What a committed entry does: to the state, to the configuration, and to the one who proposed it.

use protobuf::Message as _;
use raft::eraftpb::{ConfChange, ConfChangeSingle, ConfChangeV2, Entry as RaftEntry, EntryType};

use super::RaftReplica;
use crate::base::id::{Index, Term};
use crate::consensus::Notice;
use crate::consensus::log::ENTRY_OVERHEAD_BYTES;
use crate::wire::entry::{Command, Entry};

impl RaftReplica {
    /// Applies entries in order. One that cannot be read breaks an invariant and ends the replica.
    pub(super) fn apply(&mut self, committed: Vec<RaftEntry>) {
        for raft_entry in committed {
            if let Err(why) = self.apply_one(&raft_entry) {
                self.fail(format!("entry {} of the log cannot be applied: {why}", raft_entry.index));
                return;
            }
        }
        self.node.advance_apply_to(self.applied);
    }

    fn apply_one(&mut self, raft_entry: &RaftEntry) -> Result<(), String> {
        let (index, term) = (Index(raft_entry.index), Term(raft_entry.term));
        let entry = match raft_entry.get_entry_type() {
            EntryType::EntryNormal if !raft_entry.data.is_empty() => {
                Entry::decode(&raft_entry.data).map_err(|e| e.to_string())?
            }
            EntryType::EntryNormal => self.noop(),
            EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => {
                self.change_configuration(raft_entry)?;
                self.noop()
            }
        };
        let done = self.state.apply(index, term, &entry);
        if matches!(entry.command, Command::DigestMark) {
            self.round.applied.push(Notice::Marked { index, state: self.root() });
        }
        self.applied = index.0;
        self.last_time_unix_nanos = self.last_time_unix_nanos.max(entry.time_unix_nanos);
        self.snapshots.bytes_since += raft_entry.data.len() as u64 + ENTRY_OVERHEAD_BYTES;
        self.round.root_changed = true;
        self.round.applied.push(Notice::Applied { index, touched: done.touched, events: done.events });
        self.proposals.settle(index, term, done.result, &mut self.round.resolved);
        self.settle_change(index, term);
        Ok(())
    }

    /// What the crate's own entries mean to the state: an index passes, and no time.
    fn noop(&self) -> Entry {
        Entry { time_unix_nanos: self.state.time_unix_nanos(), session: None, command: Command::Noop }
    }

    fn change_configuration(&mut self, entry: &RaftEntry) -> Result<(), String> {
        let change = match entry.get_entry_type() {
            EntryType::EntryConfChange => {
                let mut change = ConfChange::default();
                change.merge_from_bytes(&entry.data).map_err(|e| e.to_string())?;
                raft_v2(&change)
            }
            _ => {
                let mut change = ConfChangeV2::default();
                change.merge_from_bytes(&entry.data).map_err(|e| e.to_string())?;
                change
            }
        };
        if change.enter_joint().is_some() && self.applied > 0 {
            // A snapshot names one set of voters: this is the last state for a while that can be offered.
            self.make_offer();
        }
        self.node.apply_conf_change(&change).map(drop).map_err(|e| e.to_string())?;
        self.note_members();
        self.leave_if_removed();
        Ok(())
    }
}

fn raft_v2(change: &ConfChange) -> ConfChangeV2 {
    let mut single = ConfChangeSingle { node_id: change.node_id, ..ConfChangeSingle::default() };
    single.set_change_type(change.get_change_type());
    let mut whole = ConfChangeV2::default();
    whole.mut_changes().push(single);
    whole
}
