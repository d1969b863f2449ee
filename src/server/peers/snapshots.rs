//! Snapshots over links: to a replica that is too far behind, in chunks that go on where a lost link left off.
//!
//! A sender reads a chunk when the last one was taken and little waits on the link, so that raft's own messages are not
//! held up. A receiver keeps chunks beside what is in force, until all are there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use log::Level;

use crate::base::id::{ConnId, ReplicaId};
use crate::base::time::Instant;
use crate::consensus;
use crate::state::State;
use crate::wire::raft::{CHUNK_BYTES_MAX, RaftFrame, RaftMessage};

use super::super::Server;
use super::super::port::ClusterOutput;

/// Snapshots that go out at once, at most.
const SENDING_MAX: usize = 2;
/// A transfer that does not go on for so long has failed.
const STALLED: Duration = Duration::from_secs(30);
/// Chunks of a transfer that stopped are kept so long.
const KEPT: Duration = Duration::from_secs(300);
/// Chunks that may be on their way: what is in the system's buffers holds raft's messages up too, also on a slow line.
const WINDOW: u32 = 2;
/// A chunk waits while more than this waits on its link, bytes.
const LINK_BYTES: usize = 128 * 1024;
/// The link is looked at again after this.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// All transfers.
#[derive(Debug, Default)]
pub(in crate::server) struct Transfers {
    /// By receiver.
    sending: BTreeMap<u64, Sending>,
    receiving: Option<Receiving>,
    /// The last one that was whole, for a sender that did not hear it.
    done: Option<u64>,
    last_ticket: u64,
}

/// A snapshot on its way to a replica.
#[derive(Debug)]
struct Sending {
    transfer: u64,
    message: Box<RaftMessage>,
    state: Arc<State>,
    /// The reading under way, once the receiver has said where to begin.
    ticket: Option<u64>,
    /// The chunk that was read and not sent.
    chunk: Option<(u32, Vec<u8>, bool)>,
    /// A chunk was asked for.
    asked: bool,
    next: u32,
    /// The receiver takes chunks below this number.
    limit: u32,
    /// The last chunk was sent.
    ended: bool,
    /// When it went on last.
    progress: Instant,
    look_at: Option<Instant>,
}

/// A snapshot that comes in.
#[derive(Debug)]
struct Receiving {
    transfer: u64,
    message: Box<RaftMessage>,
    conn: ConnId,
    next: u32,
    ended: bool,
    progress: Instant,
}

/// Names a transfer: the same for the same snapshot to the same receiver.
fn transfer_of(message: &RaftMessage) -> u64 {
    let place = message.snapshot.clone().unwrap_or_default();
    let parts = [place.index, place.term, message.to, message.from];
    // FNV-1a over the parts: an id among a handful, not a secret.
    parts
        .iter()
        .flat_map(|part| part.to_be_bytes())
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

impl Transfers {
    /// When something is due.
    pub(super) fn next(&self) -> Option<Instant> {
        let sending = self
            .sending
            .values()
            .map(|one| (one.progress + STALLED).min(one.look_at.unwrap_or(one.progress + STALLED)));
        sending.chain(self.receiving.as_ref().map(|one| one.progress + KEPT)).min()
    }

    /// Whether nothing is sent.
    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        self.sending.is_empty()
    }

    fn by_ticket(&self, ticket: u64) -> Option<u64> {
        self.sending.iter().find(|(_, one)| one.ticket == Some(ticket)).map(|(to, _)| *to)
    }
}

impl Server {
    // The sender's side.

    pub(in crate::server) fn on_send_snapshot(&mut self, now: Instant, message: RaftMessage, state: Arc<State>) {
        let to = message.to;
        let transfer = transfer_of(&message);
        if self.peers.transfers.sending.get(&to).is_some_and(|one| one.transfer == transfer) {
            return;
        }
        self.end_sending(to);
        if self.peers.transfers.sending.len() >= SENDING_MAX || self.peers.machine.links.to_replica(to).is_none() {
            return self.snapshot_sent(to, false);
        }
        let index = message.snapshot.as_ref().map_or(0, |place| place.index);
        self.log(Level::Info, format!("sending a snapshot: replica={to} index={index}"));
        let sending = Sending {
            transfer,
            message: Box::new(message),
            state,
            ticket: None,
            chunk: None,
            asked: false,
            next: 0,
            limit: 0,
            ended: false,
            progress: now,
            look_at: None,
        };
        self.peers.transfers.sending.insert(to, sending);
        self.begin_sending(now, to);
    }

    /// Tells the receiver what is to come, at the beginning and after a link was lost.
    pub(super) fn begin_sending(&mut self, now: Instant, to: u64) {
        let Some(one) = self.peers.transfers.sending.get(&to) else { return };
        let frame = RaftFrame::SnapshotBegin { transfer: one.transfer, message: one.message.clone() };
        if let Some(conn) = self.peers.machine.links.to_replica(to) {
            self.send_frame(now, conn, &frame);
        }
    }

    /// The link to a receiver is lost: reading stops until there is another.
    pub(super) fn pause_sending(&mut self, to: u64) {
        let Some(one) = self.peers.transfers.sending.get_mut(&to) else { return };
        (one.chunk, one.asked, one.ended, one.limit, one.look_at) = (None, false, false, 0, None);
        if let Some(ticket) = one.ticket.take() {
            self.output_for_cluster(ClusterOutput::EndSnapshot { ticket });
        }
    }

    fn on_snapshot_ack(&mut self, now: Instant, to: u64, transfer: u64, next: u32, window: u32) {
        let Some(one) = self.peers.transfers.sending.get_mut(&to).filter(|one| one.transfer == transfer) else {
            return;
        };
        one.progress = now;
        one.limit = next.saturating_add(window.min(WINDOW * 4));
        if one.ticket.is_none() {
            self.peers.transfers.last_ticket += 1;
            let ticket = self.peers.transfers.last_ticket;
            let Some(one) = self.peers.transfers.sending.get_mut(&to) else { return };
            (one.ticket, one.next, one.asked, one.ended) = (Some(ticket), next, false, false);
            let state = Arc::clone(&one.state);
            self.output_for_cluster(ClusterOutput::ReadSnapshot { ticket, state, from: next });
        }
        self.send_chunks(now, to);
    }

    pub(in crate::server) fn on_snapshot_chunk(
        &mut self,
        now: Instant,
        ticket: u64,
        number: u32,
        bytes: Vec<u8>,
        last: bool,
    ) {
        let Some(to) = self.peers.transfers.by_ticket(ticket) else { return };
        if let Some(one) = self.peers.transfers.sending.get_mut(&to) {
            one.asked = false;
            one.chunk = Some((number, bytes, last));
        }
        self.send_chunks(now, to);
    }

    /// Sends the chunk that is there, and asks for the next one while the receiver takes more.
    fn send_chunks(&mut self, now: Instant, to: u64) {
        let Some(one) = self.peers.transfers.sending.get_mut(&to) else { return };
        one.look_at = None;
        if let Some((number, bytes, last)) = one.chunk.take() {
            let transfer = one.transfer;
            let Some(conn) = self.peers.machine.links.to_replica(to) else { return };
            let frame = RaftFrame::SnapshotChunk { transfer, number, bytes, last };
            let sent = self.to_send(conn).len() <= LINK_BYTES && self.send_frame(now, conn, &frame);
            let Some(one) = self.peers.transfers.sending.get_mut(&to) else { return };
            let RaftFrame::SnapshotChunk { bytes, .. } = frame else { return };
            if !sent {
                one.chunk = Some((number, bytes, last));
                one.look_at = Some(now + LOOK_AGAIN);
                return;
            }
            one.next = number + 1;
            one.ended = last;
            one.progress = now;
        }
        let Some(one) = self.peers.transfers.sending.get_mut(&to) else { return };
        if let Some(ticket) = one.ticket
            && !one.asked
            && !one.ended
            && one.next < one.limit
        {
            one.asked = true;
            self.output_for_cluster(ClusterOutput::NextChunk { ticket });
        }
    }

    fn on_snapshot_done(&mut self, to: u64, transfer: u64, error: &str) {
        if self.peers.transfers.sending.get(&to).is_none_or(|one| one.transfer != transfer) {
            return;
        }
        self.end_sending(to);
        let line = match error {
            "" => (Level::Info, format!("snapshot sent: replica={to}")),
            _ => (Level::Warn, format!("snapshot refused: replica={to} error={error:?}")),
        };
        self.log(line.0, line.1);
        self.snapshot_sent(to, error.is_empty());
    }

    fn snapshot_sent(&mut self, to: u64, ok: bool) {
        self.to_consensus.push(consensus::Input::SnapshotSent { to: ReplicaId(to), ok });
    }

    fn end_sending(&mut self, to: u64) {
        if let Some(Sending { ticket: Some(ticket), .. }) = self.peers.transfers.sending.remove(&to) {
            self.output_for_cluster(ClusterOutput::EndSnapshot { ticket });
        }
    }

    /// Whoever does not lead any more sends none.
    pub(in crate::server) fn end_all_sending(&mut self) {
        let all: Vec<u64> = self.peers.transfers.sending.keys().copied().collect();
        all.into_iter().for_each(|to| self.end_sending(to));
    }

    // The receiver's side.

    fn on_snapshot_begin(&mut self, now: Instant, conn: ConnId, transfer: u64, message: Box<RaftMessage>) {
        if self.peers.transfers.done == Some(transfer) {
            self.send_frame(now, conn, &RaftFrame::SnapshotDone { transfer, error: String::new() });
            return;
        }
        let is_known = self.peers.transfers.receiving.as_ref().is_some_and(|one| one.transfer == transfer);
        if !is_known {
            self.forget_receiving();
            let index = message.snapshot.as_ref().map_or(0, |place| place.index);
            self.log(Level::Info, format!("a snapshot comes in: replica={} index={index}", message.from));
            let one = Receiving { transfer, message, conn, next: 0, ended: false, progress: now };
            self.peers.transfers.receiving = Some(one);
        }
        let Some(one) = &mut self.peers.transfers.receiving else { return };
        (one.conn, one.progress) = (conn, now);
        let next = one.next;
        self.send_frame(now, conn, &RaftFrame::SnapshotAck { transfer, next, window: WINDOW });
    }

    fn take_chunk(&mut self, now: Instant, conn: ConnId, transfer: u64, number: u32, bytes: Vec<u8>, last: bool) {
        let Some(one) = self.peers.transfers.receiving.as_mut().filter(|one| one.transfer == transfer) else { return };
        if number != one.next || one.ended || bytes.len() > CHUNK_BYTES_MAX {
            return;
        }
        one.next += 1;
        (one.progress, one.ended) = (now, last);
        let next = one.next;
        self.output_for_cluster(ClusterOutput::KeepChunk { ticket: transfer, number, bytes, last });
        self.send_frame(now, conn, &RaftFrame::SnapshotAck { transfer, next, window: WINDOW });
    }

    pub(in crate::server) fn on_snapshot_whole(
        &mut self,
        now: Instant,
        ticket: u64,
        result: Result<Arc<State>, String>,
    ) {
        let Some(one) = self.peers.transfers.receiving.take_if(|one| one.transfer == ticket) else { return };
        self.output_for_cluster(ClusterOutput::ForgetChunks { ticket });
        let (transfer, conn) = (one.transfer, one.conn);
        let error = match result {
            Ok(state) => {
                self.peers.transfers.done = Some(transfer);
                let message = one.message;
                self.to_consensus.push(consensus::Input::SnapshotReceived { message, state });
                String::new()
            }
            Err(error) => {
                self.log(Level::Error, format!("snapshot cannot be used: error={error:?}"));
                error
            }
        };
        self.send_frame(now, conn, &RaftFrame::SnapshotDone { transfer, error });
    }

    fn forget_receiving(&mut self) {
        if let Some(one) = self.peers.transfers.receiving.take() {
            self.output_for_cluster(ClusterOutput::ForgetChunks { ticket: one.transfer });
        }
    }

    // Both.

    /// A frame about snapshots came from a replica.
    pub(super) fn on_snapshot_frame(&mut self, now: Instant, conn: ConnId, from: u64, frame: RaftFrame) {
        match frame {
            RaftFrame::SnapshotBegin { transfer, message } if message.from == from => {
                self.on_snapshot_begin(now, conn, transfer, message);
            }
            RaftFrame::SnapshotChunk { transfer, number, bytes, last } => {
                self.take_chunk(now, conn, transfer, number, bytes, last);
            }
            RaftFrame::SnapshotAck { transfer, next, window } => {
                self.on_snapshot_ack(now, from, transfer, next, window);
            }
            RaftFrame::SnapshotDone { transfer, error } => self.on_snapshot_done(from, transfer, &error),
            _ => {}
        }
    }

    /// Something about snapshots may be due.
    pub(super) fn on_transfers_due(&mut self, now: Instant) {
        let sending = &self.peers.transfers.sending;
        let late: Vec<u64> =
            sending.iter().filter(|(_, one)| one.progress + STALLED <= now).map(|(to, _)| *to).collect();
        for to in late {
            self.end_sending(to);
            self.log(Level::Warn, format!("snapshot given up, it did not go on: replica={to}"));
            self.snapshot_sent(to, false);
        }
        let sending = &self.peers.transfers.sending;
        let looks: Vec<u64> =
            sending.iter().filter(|(_, one)| one.look_at.is_some_and(|at| at <= now)).map(|(to, _)| *to).collect();
        looks.into_iter().for_each(|to| self.send_chunks(now, to));
        if self.peers.transfers.receiving.as_ref().is_some_and(|one| one.progress + KEPT <= now) {
            self.forget_receiving();
        }
    }
}
