//! The raft crate's messages as the wire has them, and back. Never judges what they say: see `check.rs`.

use protobuf::ProtobufEnum as _;
use raft::eraftpb::{ConfState, Entry, EntryType, Message, MessageType, Snapshot};

use crate::base::id::{Index, ReplicaId, Term};
use crate::consensus::SnapshotMeta;
use crate::wire::raft::{RaftEntry, RaftMessage, SnapshotPlace};

/// As other replicas get it.
pub(super) fn to_wire(message: &Message) -> RaftMessage {
    RaftMessage {
        // The crate's kinds are few and not negative.
        kind: u8::try_from(message.get_msg_type().value()).unwrap_or(u8::MAX),
        to: message.to,
        from: message.from,
        term: message.term,
        log_term: message.log_term,
        index: message.index,
        entries: message.entries.iter().map(entry_to_wire).collect(),
        commit: message.commit,
        commit_term: message.commit_term,
        snapshot: message.snapshot.as_ref().filter(|one| one.get_metadata().index > 0).map(place_of),
        request_snapshot: message.request_snapshot,
        reject: message.reject,
        reject_hint: message.reject_hint,
        context: message.context.to_vec(),
        priority: message.priority,
    }
}

fn entry_to_wire(entry: &Entry) -> RaftEntry {
    RaftEntry {
        kind: u8::try_from(entry.get_entry_type().value()).unwrap_or(u8::MAX),
        term: entry.term,
        index: entry.index,
        data: entry.data.to_vec(),
    }
}

fn place_of(snapshot: &Snapshot) -> SnapshotPlace {
    let meta = snapshot.get_metadata();
    let conf = meta.get_conf_state();
    SnapshotPlace {
        index: meta.index,
        term: meta.term,
        voters: conf.voters.clone(),
        learners: conf.learners.clone(),
        voters_outgoing: conf.voters_outgoing.clone(),
        learners_next: conf.learners_next.clone(),
        auto_leave: conf.auto_leave,
    }
}

/// As the crate takes it; `None` when a kind is unknown.
pub(super) fn from_wire(message: RaftMessage) -> Option<Message> {
    let mut out = Message {
        to: message.to,
        from: message.from,
        term: message.term,
        log_term: message.log_term,
        index: message.index,
        commit: message.commit,
        commit_term: message.commit_term,
        request_snapshot: message.request_snapshot,
        reject: message.reject,
        reject_hint: message.reject_hint,
        context: message.context.into(),
        priority: message.priority,
        ..Message::default()
    };
    out.set_msg_type(MessageType::from_i32(i32::from(message.kind))?);
    let entries: Option<Vec<Entry>> = message.entries.into_iter().map(entry_from_wire).collect();
    out.set_entries(entries?.into());
    if let Some(place) = message.snapshot {
        out.set_snapshot(snapshot_at(place));
    }
    Some(out)
}

fn entry_from_wire(entry: RaftEntry) -> Option<Entry> {
    let mut out = Entry { term: entry.term, index: entry.index, data: entry.data.into(), ..Entry::default() };
    out.set_entry_type(EntryType::from_i32(i32::from(entry.kind))?);
    Some(out)
}

fn snapshot_at(place: SnapshotPlace) -> Snapshot {
    let mut snapshot = Snapshot::default();
    let meta = snapshot.mut_metadata();
    meta.index = place.index;
    meta.term = place.term;
    meta.set_conf_state(ConfState {
        voters: place.voters,
        learners: place.learners,
        voters_outgoing: place.voters_outgoing,
        learners_next: place.learners_next,
        auto_leave: place.auto_leave,
        ..ConfState::default()
    });
    snapshot
}

/// What a snapshot of the crate stands for. Only for one whose configuration is not joint.
pub(super) fn meta_of(snapshot: &Snapshot) -> SnapshotMeta {
    let meta = snapshot.get_metadata();
    SnapshotMeta {
        index: Index(meta.index),
        term: Term(meta.term),
        voters: sorted(&meta.get_conf_state().voters),
        learners: sorted(&meta.get_conf_state().learners),
    }
}

/// Ids in their order.
pub(super) fn sorted(ids: &[u64]) -> Vec<ReplicaId> {
    let mut ids: Vec<ReplicaId> = ids.iter().copied().map(ReplicaId).collect();
    ids.sort_unstable();
    ids
}
