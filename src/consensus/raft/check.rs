//! What a peer sends, judged before the raft crate sees it: the crate ends the process where a message contradicts
//! what it believes, and here nobody's bytes may do that. (raft crate 0.7, the places that call `fatal!`.)

use std::collections::BTreeSet;

use protobuf::Message as _;
use raft::eraftpb::{ConfChange, ConfChangeV2, Entry, EntryType, Message, MessageType, Snapshot};

/// Terms and indexes from here on are refused, so that counting on never overflows.
const TOO_HIGH: u64 = 1 << 62;

/// What the judgement needs of the replica.
pub(super) struct Seen {
    pub(super) id: u64,
    pub(super) term: u64,
    pub(super) last_index: u64,
    pub(super) leads: bool,
    pub(super) leader: u64,
    /// Whether the sender is a member, as far as is known here.
    pub(super) knows_sender: bool,
}

/// Why a message is dropped; `None` when the crate can take it.
pub(super) fn objection(seen: &Seen, message: &Message) -> Option<&'static str> {
    let kind = message.get_msg_type();
    let numbers =
        [message.term, message.log_term, message.index, message.commit, message.commit_term, message.reject_hint];
    if message.to != seen.id || message.from == 0 || message.from == seen.id {
        return Some("it is for another");
    }
    if numbers.iter().any(|number| *number >= TOO_HIGH) || message.request_snapshot != 0 {
        return Some("a number makes no sense");
    }
    if (message.term == 0) != (kind == MessageType::MsgReadIndex) {
        return Some("its term makes no sense");
    }
    let carries_entries =
        matches!(kind, MessageType::MsgAppend | MessageType::MsgReadIndex | MessageType::MsgReadIndexResp);
    if !carries_entries && !message.entries.is_empty() {
        return Some("entries in a message that has none");
    }
    match kind {
        MessageType::MsgAppend => entries(message),
        // Only a follower that lost what it had promised is told of entries it has not.
        MessageType::MsgHeartbeat => (message.term >= seen.term && message.commit > seen.last_index)
            .then_some("a commit index behind the end of the log"),
        MessageType::MsgAppendResponse => {
            let beyond = !message.reject && message.index > seen.last_index && message.term <= seen.term;
            (!seen.knows_sender || beyond).then_some("an answer to what was never sent")
        }
        MessageType::MsgHeartbeatResponse
        | MessageType::MsgRequestVoteResponse
        | MessageType::MsgRequestPreVoteResponse => (!seen.knows_sender).then_some("the sender is no member"),
        MessageType::MsgRequestVote | MessageType::MsgRequestPreVote => None,
        MessageType::MsgSnapshot => snapshot(message),
        MessageType::MsgTimeoutNow => {
            (message.from != seen.leader || message.term != seen.term).then_some("the sender does not lead")
        }
        MessageType::MsgReadIndex => {
            (!seen.leads || !seen.knows_sender || message.entries.len() != 1).then_some("nobody leads here")
        }
        MessageType::MsgReadIndexResp => {
            (message.from != seen.leader || message.entries.len() != 1).then_some("the sender does not lead")
        }
        MessageType::MsgHup
        | MessageType::MsgBeat
        | MessageType::MsgPropose
        | MessageType::MsgUnreachable
        | MessageType::MsgSnapStatus
        | MessageType::MsgCheckQuorum
        | MessageType::MsgTransferLeader => Some("no replica sends this"),
    }
}

fn entries(message: &Message) -> Option<&'static str> {
    if (message.index == 0) != (message.log_term == 0) || message.log_term > message.term {
        return Some("the place before the entries makes no sense");
    }
    let (mut index, mut term) = (message.index, message.log_term);
    for entry in message.entries.iter() {
        if entry.index != index + 1 || entry.term < term || entry.term == 0 || entry.term > message.term {
            return Some("entries that do not follow one another");
        }
        if !is_readable(entry) {
            return Some("a change of members that cannot be read");
        }
        (index, term) = (entry.index, entry.term);
    }
    None
}

fn is_readable(entry: &Entry) -> bool {
    match entry.get_entry_type() {
        EntryType::EntryNormal => true,
        EntryType::EntryConfChange => ConfChange::default().merge_from_bytes(&entry.data).is_ok(),
        EntryType::EntryConfChangeV2 => ConfChangeV2::default().merge_from_bytes(&entry.data).is_ok(),
    }
}

fn snapshot(message: &Message) -> Option<&'static str> {
    let meta = message.get_snapshot().get_metadata();
    let (index, term) = (meta.index, meta.term);
    if index == 0 || term == 0 || index >= TOO_HIGH || term > message.term {
        return Some("a snapshot of nowhere");
    }
    if !is_plain(message.get_snapshot()) {
        return Some("a snapshot whose members make no sense");
    }
    None
}

/// Snapshots are taken where the configuration is not joint, and nobody is in it twice.
fn is_plain(snapshot: &Snapshot) -> bool {
    let conf = snapshot.get_metadata().get_conf_state();
    let all: BTreeSet<u64> = conf.voters.iter().chain(&conf.learners).copied().collect();
    all.len() == conf.voters.len() + conf.learners.len()
        && !conf.voters.is_empty()
        && !all.contains(&0)
        && conf.voters_outgoing.is_empty()
        && conf.learners_next.is_empty()
        && !conf.auto_leave
}
