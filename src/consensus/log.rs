//! Entries since the last snapshot, in memory, so that the raft crate never waits for a disk; the disk's copy is
//! read only when a process begins. Never touches a file: what is to be written leaves as
//! [`Output::Persist`](crate::consensus::Output::Persist).
//!
//! **Invariant:** indexes run without a gap from the one after `before` to the last.

use std::collections::VecDeque;

use protobuf::Message as _;
use raft::eraftpb::{ConfChange, ConfChangeType, ConfState, Entry, EntryType, HardState, Snapshot, SnapshotMetadata};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

use crate::base::id::{Index, ReplicaId, Term};
use crate::consensus::{self, LogEntry, Recovered};

/// Bytes that an entry costs beside its data, about.
pub(crate) const ENTRY_OVERHEAD_BYTES: u64 = 64;

/// The log as the raft crate reads it.
pub(crate) struct MemoryLog {
    entries: VecDeque<Entry>,
    /// Index and term of the entry in front of the first one.
    before: (u64, u64),
    hard_state: HardState,
    conf_state: ConfState,
    /// The place of the state that a replica which is too far behind gets; the state itself travels beside the crate.
    offer: Option<SnapshotMetadata>,
}

impl MemoryLog {
    /// What the disk held, checked for gaps.
    ///
    /// # Errors
    /// Entries, hard state and snapshot that do not fit together; says which.
    pub(crate) fn recover(recovered: &Recovered) -> Result<MemoryLog, String> {
        let meta = recovered.snapshot.as_ref().map(|(meta, _)| meta.clone()).unwrap_or_default();
        let mut log = MemoryLog {
            entries: VecDeque::with_capacity(recovered.entries.len()),
            before: (meta.index.0, meta.term.0),
            hard_state: HardState::default(),
            conf_state: ConfState {
                voters: meta.voters.iter().map(|id| id.0).collect(),
                learners: meta.learners.iter().map(|id| id.0).collect(),
                ..ConfState::default()
            },
            offer: None,
        };
        for entry in &recovered.entries {
            let (index, term) = (log.last_index_or_before(), log.last_term());
            if entry.index.0 != index + 1 || entry.term.0 < term {
                return Err(format!(
                    "entry {} of term {} follows entry {index} of term {term}",
                    entry.index, entry.term
                ));
            }
            log.entries.push_back(to_raft(entry)?);
        }
        log.set_hard_state(recovered.hard_state)?;
        Ok(log)
    }

    fn set_hard_state(&mut self, stored: consensus::HardState) -> Result<(), String> {
        let last = self.last_index_or_before();
        if stored.commit.0 > last {
            return Err(format!("the log ends at entry {last}, but entry {} was committed", stored.commit));
        }
        // A snapshot of a later term was synced, and then a crash came before the term was: nothing rests on it yet.
        let behind = self.entries.is_empty() && stored.term.0 < self.before.1;
        let stored = if behind {
            consensus::HardState { term: Term(self.before.1), vote: ReplicaId(0), ..stored }
        } else {
            stored
        };
        if stored.term.0 < self.last_term() {
            return Err(format!("the log holds term {}, but the stored term is {}", self.last_term(), stored.term));
        }
        self.hard_state = HardState {
            term: stored.term.0,
            vote: stored.vote.0,
            // A snapshot holds committed entries only, and the stored index may lag behind it.
            commit: stored.commit.0.max(self.before.0),
            ..HardState::default()
        };
        Ok(())
    }

    /// The first entries of a new group: one that adds each voter, alike on all of them, already committed.
    ///
    /// # Errors
    /// Whatever the raft crate says of encoding them.
    pub(crate) fn bootstrap(&mut self, voters: &[ReplicaId]) -> Result<(Vec<LogEntry>, consensus::HardState), String> {
        let term = Term(1);
        let mut entries = Vec::with_capacity(voters.len());
        for (index, voter) in (1u64..).zip(voters) {
            let mut change = ConfChange::default();
            change.set_change_type(ConfChangeType::AddNode);
            change.node_id = voter.0;
            let data = change.write_to_bytes().map_err(|e| format!("a first member cannot be encoded: {e}"))?;
            entries.push(LogEntry { index: Index(index), term, kind: 1, data });
        }
        for entry in &entries {
            self.entries.push_back(to_raft(entry)?);
        }
        let hard_state = consensus::HardState { term, vote: ReplicaId(0), commit: Index(self.last_index_or_before()) };
        self.set_hard_state(hard_state)?;
        Ok((entries, hard_state))
    }

    /// Whether the disk held nothing at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.before.0 == 0 && self.hard_state == HardState::default()
    }

    /// Drops everything: the log begins anew behind a snapshot.
    pub(crate) fn install(&mut self, index: u64, term: u64) {
        self.entries = VecDeque::new();
        self.before = (index, term);
        self.offer = None;
    }

    /// What the crate may offer to a replica that needs entries which are gone; `None` for nothing.
    pub(crate) fn set_offer(&mut self, offer: Option<SnapshotMetadata>) {
        self.offer = offer;
    }

    /// Appends entries; they overwrite what is at their indexes and after.
    pub(crate) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        let keep = first.index.saturating_sub(self.before.0 + 1);
        self.entries.truncate(usize::try_from(keep).unwrap_or(usize::MAX));
        debug_assert_eq!(first.index, self.last_index_or_before() + 1, "the log has no gap");
        self.entries.extend(entries.iter().cloned());
    }

    /// Forgets entries up to `index`, but keeps the last ones of those: at most `tail_entries`, and of at most
    /// `tail_bytes`, for a replica that is a little behind.
    pub(crate) fn compact(&mut self, index: u64, tail_entries: u64, tail_bytes: u64) {
        let mut cut = index.min(self.last_index_or_before());
        let mut bytes = 0;
        while cut > self.before.0 && index - cut < tail_entries {
            let Some(entry) = self.entry(cut) else { break };
            bytes += entry.data.len() as u64 + ENTRY_OVERHEAD_BYTES;
            if bytes > tail_bytes {
                break;
            }
            cut -= 1;
        }
        while self.before.0 < cut {
            let Some(entry) = self.entries.pop_front() else { break };
            self.before = (entry.index, entry.term);
        }
        self.entries.shrink_to(self.entries.len() * 2);
    }

    /// The entries after `index`.
    pub(crate) fn after(&self, index: u64) -> impl Iterator<Item = &Entry> {
        let skip = usize::try_from(index.saturating_sub(self.before.0)).unwrap_or(usize::MAX);
        self.entries.iter().skip(skip)
    }

    fn entry(&self, index: u64) -> Option<&Entry> {
        let offset = index.checked_sub(self.before.0 + 1)?;
        self.entries.get(usize::try_from(offset).ok()?)
    }

    fn last_index_or_before(&self) -> u64 {
        self.entries.back().map_or(self.before.0, |entry| entry.index)
    }

    fn last_term(&self) -> u64 {
        self.entries.back().map_or(self.before.1, |entry| entry.term)
    }
}

impl Storage for MemoryLog {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard_state.clone(), self.conf_state.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.before.0 {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        if high > self.last_index_or_before() + 1 {
            return Err(raft::Error::Store(StorageError::Unavailable));
        }
        let wanted = usize::try_from(high.saturating_sub(low)).unwrap_or(usize::MAX);
        let mut entries: Vec<Entry> = self.after(low - 1).take(wanted).cloned().collect();
        raft::util::limit_size(&mut entries, max_size.into());
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.before.0 {
            return Ok(self.before.1);
        }
        if index < self.before.0 {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        self.entry(index).map(|entry| entry.term).ok_or(raft::Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.before.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last_index_or_before())
    }

    /// Only its place. With none at hand the crate asks again.
    fn snapshot(&self, _request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        let Some(place) = self.offer.as_ref().filter(|place| place.index >= self.before.0) else {
            return Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        };
        let mut snapshot = Snapshot::default();
        snapshot.set_metadata(place.clone());
        Ok(snapshot)
    }
}

/// As the crate has it.
///
/// # Errors
/// A kind that this build does not know.
pub(crate) fn to_raft(entry: &LogEntry) -> Result<Entry, String> {
    let kind = match entry.kind {
        0 => EntryType::EntryNormal,
        1 => EntryType::EntryConfChange,
        2 => EntryType::EntryConfChangeV2,
        other => return Err(format!("entry {} is of kind {other}, which this build does not know", entry.index)),
    };
    let mut raft_entry = Entry { term: entry.term.0, index: entry.index.0, ..Entry::default() };
    raft_entry.set_entry_type(kind);
    raft_entry.data = entry.data.clone().into();
    Ok(raft_entry)
}

/// As the disk gets it.
pub(crate) fn from_raft(entry: &Entry) -> LogEntry {
    let kind = match entry.get_entry_type() {
        EntryType::EntryNormal => 0,
        EntryType::EntryConfChange => 1,
        EntryType::EntryConfChangeV2 => 2,
    };
    LogEntry { index: Index(entry.index), term: Term(entry.term), kind, data: entry.data.to_vec() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::consensus::SnapshotMeta;
    use crate::state::State;

    fn entry(index: u64, term: u64, bytes: usize) -> LogEntry {
        LogEntry { index: Index(index), term: Term(term), kind: 0, data: vec![7; bytes] }
    }

    fn recovered(first: u64, last: u64) -> Recovered {
        let meta = SnapshotMeta { index: Index(first - 1), term: Term(1), ..SnapshotMeta::default() };
        Recovered {
            snapshot: (first > 1).then(|| (meta, State::new())),
            entries: (first..=last).map(|index| entry(index, 1, 10)).collect(),
            hard_state: consensus::HardState { term: Term(1), vote: ReplicaId(1), commit: Index(first - 1) },
        }
    }

    #[test]
    fn reads_what_it_holds_and_refuses_the_rest() {
        let log = MemoryLog::recover(&recovered(6, 9)).unwrap();
        let read = |low, high| log.entries(low, high, None, GetEntriesContext::empty(false));
        assert_eq!(read(6, 10).unwrap().len(), 4);
        assert_eq!(read(7, 8).unwrap()[0].index, 7);
        assert_eq!(read(5, 8), Err(raft::Error::Store(StorageError::Compacted)));
        assert_eq!(read(6, 11), Err(raft::Error::Store(StorageError::Unavailable)));
        assert_eq!((log.term(5), log.term(9)), (Ok(1), Ok(1)));
        assert!(log.term(4).is_err() && log.term(10).is_err());
        assert_eq!((log.first_index(), log.last_index()), (Ok(6), Ok(9)));
    }

    #[test]
    fn appending_overwrites_from_its_index_on() {
        let mut log = MemoryLog::recover(&recovered(6, 9)).unwrap();
        log.append(&[to_raft(&entry(8, 2, 1)).unwrap()]);
        assert_eq!((log.last_index(), log.term(8), log.term(7)), (Ok(8), Ok(2), Ok(1)));
        log.append(&[to_raft(&entry(6, 3, 1)).unwrap()]);
        assert_eq!((log.first_index(), log.last_index(), log.term(6)), (Ok(6), Ok(6), Ok(3)));
    }

    #[test]
    fn a_cut_keeps_a_tail_within_both_bounds() {
        for (tail_entries, tail_bytes, first) in [(0, 1 << 20, 9), (2, 1 << 20, 7), (100, 1 << 20, 6), (3, 80, 8)] {
            let mut log = MemoryLog::recover(&recovered(6, 9)).unwrap();
            log.compact(8, tail_entries, tail_bytes);
            assert_eq!(log.first_index(), Ok(first), "{tail_entries} {tail_bytes}");
            assert_eq!((log.last_index(), log.term(first - 1)), (Ok(9), Ok(1)));
        }
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let check = |change: &dyn Fn(&mut Recovered)| {
            let mut what = recovered(6, 9);
            change(&mut what);
            MemoryLog::recover(&what).err().unwrap_or_default()
        };
        assert_eq!(check(&|_| ()), "");
        assert!(check(&|r| drop(r.entries.remove(1))).contains("entry 8 of term 1 follows entry 6"));
        assert!(check(&|r| drop(r.entries.remove(0))).contains("entry 7 of term 1 follows entry 5"));
        assert!(check(&|r| r.entries[2].term = Term(0)).contains("follows"));
        assert!(check(&|r| r.hard_state.commit = Index(10)).contains("entry 10 was committed"));
        assert!(check(&|r| r.hard_state.term = Term(0)).contains("stored term is 0"));
        assert!(check(&|r| r.entries[3].kind = 9).contains("kind 9"));
    }
}
