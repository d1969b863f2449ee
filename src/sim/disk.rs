//! A disk that keeps what was synced, and of the rest what the seed says: a log of records and the snapshots.
//!
//! A record is its kind, the length of its payload, the payload and a CRC-32C of all that; recovery stops at the
//! first one that is not whole, as a log must after a power cut. Snapshots appear whole or not at all, as files do
//! that are renamed into place. Never waits and draws no chance: the world says when a sync is over and where a cut
//! falls.

use crate::base::crc32c::crc32c;
use crate::base::id::{Index, ReplicaId, Term};
use crate::consensus::{HardState, LogEntry, Persist, Recovered, SnapshotMeta};
use crate::state::State;
use crate::state::snapshot;

/// Kind and length in front of a payload, checksum behind it; bytes.
const FRAME_BYTES: usize = 9;
/// Snapshots kept.
const SNAPSHOTS_KEPT: usize = 2;

const KIND_PERSIST: u8 = 1;
const KIND_COMPACT: u8 = 2;

/// The disk of one server.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    log: Vec<u8>,
    /// Bytes of the log that a power cut leaves alone.
    synced: usize,
    snapshots: Vec<(SnapshotMeta, Vec<u8>)>,
    /// Planted fault: recovery believes the last record whatever its checksum.
    pub trusts_tail: bool,
}

impl Disk {
    /// Bytes of the log, written or synced.
    pub fn len(&self) -> usize {
        self.log.len()
    }

    /// True when nothing was ever written.
    pub fn is_empty(&self) -> bool {
        self.log.is_empty() && self.snapshots.is_empty()
    }

    /// Bytes of the log that are safe.
    pub fn synced(&self) -> usize {
        self.synced
    }

    /// Writes what the replica wants kept. It is safe after [`Disk::sync`].
    pub fn write(&mut self, persist: &Persist) {
        let mut payload = Vec::new();
        match &persist.hard_state {
            Some(state) => {
                payload.push(1);
                for number in [state.term.0, state.vote.0, state.commit.0] {
                    payload.extend(number.to_le_bytes());
                }
            }
            None => payload.push(0),
        }
        for entry in &persist.entries {
            payload.extend(entry.index.0.to_le_bytes());
            payload.extend(entry.term.0.to_le_bytes());
            payload.push(entry.kind);
            payload.extend((entry.data.len() as u64).to_le_bytes());
            payload.extend(&entry.data);
        }
        self.record(KIND_PERSIST, &payload);
    }

    /// Makes all that was written safe.
    pub fn sync(&mut self) {
        self.synced = self.log.len();
    }

    /// Drops entries up to an index; written and synced.
    pub fn compact(&mut self, up_to: Index) {
        self.record(KIND_COMPACT, &up_to.0.to_le_bytes());
        self.sync();
    }

    /// Puts a whole snapshot in place and removes all but the newest two.
    pub fn put_snapshot(&mut self, meta: SnapshotMeta, bytes: Vec<u8>) {
        self.snapshots.push((meta, bytes));
        self.snapshots.sort_by_key(|(meta, _)| meta.index);
        let extra = self.snapshots.len().saturating_sub(SNAPSHOTS_KEPT);
        self.snapshots.drain(..extra);
    }

    /// A snapshot takes the place of everything: the log begins anew behind it.
    pub fn install(&mut self, meta: SnapshotMeta, bytes: Vec<u8>, hard_state: HardState) {
        self.snapshots = vec![(meta, bytes)];
        self.log.clear();
        self.write(&Persist { hard_state: Some(hard_state), ..Persist::default() });
        self.sync();
    }

    /// The power goes: of the log only the first `offset` bytes are left, but never fewer than were synced. Reads
    /// what there is, as the next process will; what is torn off is gone for good.
    ///
    /// # Errors
    /// What is left makes no sense: says where.
    pub fn crash(&mut self, offset: usize) -> Result<Recovered, String> {
        self.log.truncate(offset.clamp(self.synced, self.log.len()));
        self.synced = self.log.len();
        self.recover()
    }

    /// Reads the disk as a process does when it begins. What was not synced before is not by being read.
    ///
    /// # Errors
    /// What is there makes no sense: says where.
    pub fn recover(&mut self) -> Result<Recovered, String> {
        let mut recovered = Recovered::default();
        if let Some((meta, bytes)) = self.snapshots.last() {
            let state = snapshot::read(bytes).map_err(|e| format!("snapshot {}: {e:?}", meta.index))?;
            recovered.snapshot = Some((meta.clone(), state));
        }
        let mut entries: Vec<LogEntry> = Vec::new();
        let mut at = 0;
        while let Some((kind, payload, end)) = self.record_at(at) {
            match kind {
                KIND_PERSIST => read_persist(payload, &mut entries, &mut recovered.hard_state)
                    .ok_or_else(|| format!("the record at byte {at} makes no sense"))?,
                KIND_COMPACT => {
                    let up_to = payload.first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes));
                    entries.retain(|entry| entry.index.0 > up_to);
                }
                other => return Err(format!("the record at byte {at} is of kind {other}")),
            }
            at = end;
        }
        self.log.truncate(at);
        self.synced = self.synced.min(at);
        let after = recovered.snapshot.as_ref().map_or(0, |(meta, _)| meta.index.0);
        if let Some(first) = entries.first()
            && first.index.0 > after + 1
        {
            return Err(format!("the log begins at entry {}, the snapshot ends at {after}", first.index));
        }
        entries.retain(|entry| entry.index.0 > after);
        recovered.entries = entries;
        Ok(recovered)
    }

    fn record(&mut self, kind: u8, payload: &[u8]) {
        let start = self.log.len();
        self.log.push(kind);
        self.log.extend((payload.len() as u32).to_le_bytes());
        self.log.extend(payload);
        let sum = crc32c(self.log.get(start..).unwrap_or_default());
        self.log.extend(sum.to_le_bytes());
    }

    /// Kind, payload and end of the record at `at`; `None` where it is not whole.
    fn record_at(&self, at: usize) -> Option<(u8, &[u8], usize)> {
        let rest = self.log.get(at..)?;
        let kind = *rest.first()?;
        let len = u32::from_le_bytes(*rest.get(1..5)?.first_chunk::<4>()?) as usize;
        let end = len.checked_add(FRAME_BYTES)?;
        if self.trusts_tail && rest.len() < end {
            return Some((kind, rest.get(5..)?, self.log.len()));
        }
        let sum = rest.get(end - 4..end)?.first_chunk::<4>()?;
        (crc32c(rest.get(..end - 4)?) == u32::from_le_bytes(*sum)).then_some((kind, rest.get(5..end - 4)?, at + end))
    }
}

/// The bytes of a snapshot.
pub fn snapshot_bytes(state: &State) -> Vec<u8> {
    snapshot::write(state).flatten().collect()
}

fn read_persist(mut bytes: &[u8], entries: &mut Vec<LogEntry>, hard_state: &mut HardState) -> Option<()> {
    let bytes = &mut bytes;
    if take::<1>(bytes)? == [1] {
        *hard_state =
            HardState { term: Term(number(bytes)?), vote: ReplicaId(number(bytes)?), commit: Index(number(bytes)?) };
    }
    while !bytes.is_empty() {
        let (index, term, [kind]) = (Index(number(bytes)?), Term(number(bytes)?), take::<1>(bytes)?);
        let len = usize::try_from(number(bytes)?).ok()?;
        let (data, rest) = bytes.split_at_checked(len)?;
        *bytes = rest;
        // What a new leader writes takes the place of what was there, and of all that followed it.
        entries.retain(|entry| entry.index < index);
        entries.push(LogEntry { index, term, kind, data: data.to_vec() });
    }
    Some(())
}

fn number(bytes: &mut &[u8]) -> Option<u64> {
    take::<8>(bytes).map(u64::from_le_bytes)
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*first)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn persist(first: u64, count: u64) -> Persist {
        let entry = |index| LogEntry { index: Index(index), term: Term(1), kind: 0, data: vec![7; index as usize] };
        let hard_state = HardState { term: Term(1), vote: ReplicaId(1), commit: Index(first - 1) };
        Persist { ticket: 1, entries: (first..first + count).map(entry).collect(), hard_state: Some(hard_state) }
    }

    #[test]
    fn a_cut_at_any_byte_takes_whole_records_and_only_unsynced_ones() {
        let mut disk = Disk::default();
        disk.write(&persist(1, 2));
        disk.sync();
        let synced = disk.synced();
        disk.write(&persist(3, 3));
        for offset in 0..=disk.len() {
            let mut cut = disk.clone();
            let recovered = cut.crash(offset).unwrap();
            let whole = offset == disk.len();
            assert_eq!(recovered.entries.len(), if whole { 5 } else { 2 }, "{offset}");
            assert_eq!(recovered.hard_state.commit, Index(if whole { 2 } else { 0 }));
            assert_eq!(cut.len(), if whole { disk.len() } else { synced });
            // What is written afterwards is found again.
            cut.write(&persist(3, 1));
            assert_eq!(cut.recover().unwrap().entries.len(), 3);
        }
    }

    #[test]
    fn a_flipped_bit_ends_the_log_where_it_is() {
        let mut disk = Disk::default();
        disk.write(&persist(1, 1));
        let first = disk.len();
        disk.write(&persist(2, 1));
        disk.sync();
        for byte in first..disk.len() {
            let mut bad = disk.clone();
            bad.log[byte] ^= 4;
            assert_eq!(bad.recover().unwrap().entries.len(), 1, "{byte}");
        }
    }

    #[test]
    fn compaction_and_snapshots_fit_together() {
        let mut disk = Disk::default();
        disk.write(&persist(1, 6));
        let meta = |index| SnapshotMeta { index: Index(index), term: Term(1), ..SnapshotMeta::default() };
        disk.put_snapshot(meta(2), snapshot_bytes(&State::new()));
        disk.put_snapshot(meta(4), snapshot_bytes(&State::new()));
        disk.compact(Index(2));
        let indexes: Vec<u64> = disk.recover().unwrap().entries.iter().map(|entry| entry.index.0).collect();
        assert_eq!(indexes, [5, 6]);
        disk.compact(Index(5));
        assert!(disk.recover().err().unwrap().contains("begins at entry 6"));
    }
}
