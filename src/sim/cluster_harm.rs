//! Planted faults that are about several servers: messages and promises that are altered on their way between the
//! threads of a server and its machine.

use std::sync::Arc;

use crate::base::crc32c::crc32c;
use crate::base::id::{ConnId, Index, ReplicaId, Term};
use crate::base::metric::Id;
use crate::base::time::Instant;
use crate::consensus::{Input, LEASE_FOR_EVER, Notice, Persist, Resolution};
use crate::server::port::Input as ServerInput;
use crate::state::State;
use crate::state::snapshot;
use crate::wire::raft::RaftMessage;

use super::disk::snapshot_bytes;
use super::fault::Fault;
use super::ground::Ground;
use super::process::Process;
use super::rest::sum;
use super::site::{SiteNumber, replica_id};

/// `MsgAppend` of the raft crate.
const APPEND: u8 = 3;
/// `MsgAppendResponse`.
const APPEND_RESPONSE: u8 = 4;
/// `MsgRequestVoteResponse`.
const VOTE_RESPONSE: u8 = 6;
/// `MsgHeartbeat`.
const HEARTBEAT: u8 = 8;
/// `MsgHeartbeatResponse`.
const HEARTBEAT_RESPONSE: u8 = 9;

/// `EntryNormal`; others are about members.
const NORMAL: u8 = 0;
/// What an answer says of its leader, and after it the markers of MessagePack's longer integers with their bytes.
const LAST_CONTACT: &[u8] = b"LastContact";
const INTEGERS: [(u8, usize); 4] = [(0xce, 4), (0xcf, 8), (0xd2, 4), (0xd3, 8)];

/// What planted faults remember of one process.
#[derive(Debug, Default)]
pub(super) struct ClusterHarm {
    /// A change of members that is being written.
    change: Option<u64>,
    /// The server was told that it leads, which it does not.
    lied: bool,
    /// Answers that nobody gave, on their way to the replica.
    forged: Vec<RaftMessage>,
}

impl ClusterHarm {
    /// Inputs on their way to the replica.
    pub(super) fn inputs(&mut self, ground: &mut Ground, site: SiteNumber, inputs: &mut [Input]) {
        for input in inputs {
            match input {
                Input::Bootstrap(voters) if ground.fault(Fault::FoundAlone, 30) => {
                    *voters = vec![replica_id(site)];
                }
                Input::Messages(messages) => {
                    for message in messages.iter_mut().filter(|one| one.kind == APPEND) {
                        let change = message.entries.iter().rev().find(|entry| entry.kind != NORMAL);
                        if let Some(change) = change
                            && message.commit < change.index
                            && ground.fault(Fault::ChangeAtOnce, 100)
                        {
                            message.commit = change.index;
                        }
                    }
                    for message in messages.iter_mut().filter(|one| one.kind == APPEND_RESPONSE) {
                        if !message.reject && ground.fault(Fault::SwapSender, 50) {
                            let other = (0..ground.options.servers)
                                .find(|other| *other != site && replica_id(*other) != ReplicaId(message.from));
                            message.from = other.map_or(message.from, |other| replica_id(other).0);
                        }
                    }
                }
                _ => {}
            }
        }
    }

    /// Notices on their way to the server.
    pub(super) fn notices(&mut self, ground: &mut Ground, notices: &mut Vec<Notice>) {
        let mut more = Vec::new();
        for notice in notices.iter_mut() {
            match notice {
                Notice::Send(message) if message.kind == VOTE_RESPONSE && message.reject => {
                    message.reject = !ground.fault(Fault::VoteTwice, 100);
                }
                Notice::Send(message) if message.kind == HEARTBEAT && ground.fault(Fault::LeadAlone, 100) => {
                    self.forged.push(answer(message));
                }
                Notice::Send(message) if message.kind == APPEND => {
                    let last = message.entries.last_mut().filter(|entry| entry.kind == 0 && !entry.data.is_empty());
                    if let Some(entry) = last
                        && ground.fault(Fault::AlterEntry, 2)
                    {
                        entry.data.clear();
                    }
                }
                Notice::Lease(until) if ground.fault(Fault::EndlessLease, 100) => *until = LEASE_FOR_EVER,
                Notice::Leadership(known)
                    if !known.is_self && known.leader.is_some() && ground.fault(Fault::ServeAsFollower, 30) =>
                {
                    (known.is_self, known.ready) = (true, true);
                    more.push(Notice::Lease(LEASE_FOR_EVER));
                }
                Notice::Resolved { resolution, .. }
                    if *resolution == Resolution::Unknown && ground.fault(Fault::UnknownAsRefused, 100) =>
                {
                    *resolution = Resolution::NotLeader;
                }
                _ => {}
            }
        }
        self.lied |= !more.is_empty();
        notices.append(&mut more);
    }

    /// Answers that nobody gave.
    pub(super) fn forged(&mut self) -> Option<Input> {
        let forged = std::mem::take(&mut self.forged);
        if forged.is_empty() { None } else { Some(Input::Messages(forged)) }
    }

    /// What goes to the log.
    pub(super) fn persist(&mut self, ground: &mut Ground, written: &mut Persist) {
        let change = written.entries.iter().rev().find(|entry| entry.kind != NORMAL);
        if let Some(change) = change
            && ground.fault(Fault::ChangeAtOnce, 100)
        {
            self.change = Some(change.index.0);
        }
        let leads_nobody = written.hard_state.is_none() && !written.entries.is_empty();
        if leads_nobody && ground.fault(Fault::AckUnwritten, 5) {
            written.entries.clear();
        }
        if let Some(hard_state) = &mut written.hard_state
            && ground.fault(Fault::ForgetTerm, 100)
        {
            (hard_state.term, hard_state.vote) = (Term(1), ReplicaId(0));
        }
    }

    /// A snapshot that came in.
    pub(super) fn snapshot(&mut self, ground: &mut Ground, state: State) -> State {
        if ground.fault(Fault::SnapshotWithoutTail, 100) { harmed(state) } else { state }
    }

    /// A root that is published.
    pub(super) fn root(&mut self, ground: &mut Ground, root: Arc<State>) -> Arc<State> {
        if ground.fault(Fault::FlipState, 2) { Arc::new(harmed((*root).clone())) } else { root }
    }
}

/// What the receiver of a heartbeat would say.
fn answer(heartbeat: &RaftMessage) -> RaftMessage {
    RaftMessage {
        kind: HEARTBEAT_RESPONSE,
        from: heartbeat.to,
        to: heartbeat.from,
        term: heartbeat.term,
        context: heartbeat.context.clone(),
        ..RaftMessage::default()
    }
}

/// A state in which one bit is another: of its time.
fn harmed(state: State) -> State {
    damaged(&state).and_then(|bytes| snapshot::read(&bytes).ok()).unwrap_or(state)
}

fn damaged(state: &State) -> Option<Vec<u8>> {
    let mut bytes = snapshot_bytes(state);
    let time = Some(state.time_unix_nanos()).filter(|time| *time != 0)?.to_be_bytes();
    let at = bytes.windows(time.len()).position(|part| part == time)?;
    *bytes.get_mut(at + time.len() - 1)? ^= 1;
    // The first chunk: its length stands at byte 12, its content begins at 20 and is followed by its checksum.
    let end = 20 + u32::from_be_bytes(*bytes.get(12..16)?.first_chunk()?) as usize;
    let sum = crc32c(bytes.get(20..end)?).to_be_bytes();
    bytes.get_mut(end..end + sum.len())?.copy_from_slice(&sum);
    Some(bytes)
}

/// An answer that says that its leader was heard just now; `None` when it says no other thing.
pub(super) fn says_just_heard(ground: &mut Ground, bytes: &[u8]) -> Option<Vec<u8>> {
    if ground.options.fault != Some(Fault::SayJustHeard) {
        return None;
    }
    let mut said = bytes.to_vec();
    let mut from = 0;
    while let Some(at) = said.get(from..)?.windows(LAST_CONTACT.len()).position(|part| part == LAST_CONTACT) {
        from += at + LAST_CONTACT.len();
        let length =
            INTEGERS.iter().find(|(marker, _)| said.get(from) == Some(marker)).map_or(0, |(_, length)| *length);
        if let Some(number) = said.get_mut(from + 1..from + 1 + length)
            && ground.fault(Fault::SayJustHeard, 100)
        {
            number.fill(0);
        }
    }
    (said != bytes).then_some(said)
}

impl Process {
    /// A leader's lease is over, and deadlines are due: it is told that the lease has no end, as long as it looks at
    /// them (a planted fault). Gives the lease that it really has. Nothing but parked queries waits for a lease then.
    pub(super) fn lease_at_deadline(&mut self, ground: &mut Ground) -> Option<Instant> {
        let planted = ground.options.fault == Some(Fault::StaleAtDeadline) && ground.is_past_its_lease(self.site);
        if !planted || sum(self, Id::Held) > 0.0 || sum(self, Id::Parked) == 0.0 {
            return None;
        }
        ground.fault(Fault::StaleAtDeadline, 100);
        self.feed(ground, ServerInput::Notices(vec![Notice::Lease(LEASE_FOR_EVER)]));
        Some(ground.lease_of(self.site))
    }

    /// The server is told of bytes that were written before (a planted fault): nobody knows what became of them when
    /// the connection ended meanwhile.
    pub(super) fn tell_written(&mut self, ground: &mut Ground, conn: ConnId) {
        let untold = self.sockets.get_mut(&conn).map_or(0, |socket| std::mem::take(&mut socket.untold));
        if untold > 0 {
            let now = self.loop_now(ground);
            self.server.sent(now, conn, untold);
            self.drain_outputs(ground);
        }
    }

    /// A leader's entries are on its own disk: the others are taken to have them too (planted faults).
    pub(super) fn commit_early(&mut self, ground: &mut Ground) -> Option<Input> {
        let known = self.writer.leadership().clone();
        let change = self.cluster_harm.change.take();
        if ground.options.servers < 2 || !known.is_self {
            return None;
        }
        let last = ground.site(self.site).log.last();
        let last = change.or_else(|| ground.fault(Fault::CommitEarly, 30).then_some(last))?;
        let itself = replica_id(self.site);
        let others = (0..ground.options.servers).map(replica_id).filter(|id| *id != itself);
        let answer = |from: ReplicaId| RaftMessage {
            kind: APPEND_RESPONSE,
            from: from.0,
            to: itself.0,
            term: known.term.0,
            index: Index(last).0,
            ..RaftMessage::default()
        };
        Some(Input::Messages(others.map(answer).collect()))
    }
}
