//! Other servers of the region: who they are, the links to them, how they become and stop being members.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::base::id::ConnId;
use crate::base::time::Instant;
use crate::consensus::{Membership, Progress};
use crate::state::State;
use crate::wire::raft::{KeyFile, RaftFrame, RaftMessage};

use super::Server;
use super::port::Settings;

/// What is known of other servers.
#[derive(Debug)]
pub(super) struct Peers {}

impl Peers {
    pub(super) fn new(_settings: &Settings) -> Peers {
        Peers {}
    }

    /// When something is due.
    pub(super) fn next(&self) -> Option<Instant> {
        None
    }
}

impl Server {
    pub(super) fn on_peers_due(&mut self, _now: Instant) {}

    /// A server, or somebody who says so, wants to send us raft's messages. Its frames come once it is admitted.
    pub(super) fn on_raft_accepted(&mut self, _now: Instant, _id: ConnId, _peer: SocketAddr) {}

    /// A link that we dialled can be used.
    pub(super) fn on_raft_ready(&mut self, _now: Instant, _id: ConnId, _address: &Arc<str>) {}

    pub(super) fn on_raft_dial_failed(&mut self, _now: Instant, _address: &Arc<str>, _error: &str) {}

    /// A link has ended; `address` of one that we dialled.
    pub(super) fn on_raft_closed(&mut self, _now: Instant, _id: ConnId, _address: Option<&Arc<str>>) {}

    pub(super) fn on_raft_frame(&mut self, _now: Instant, _id: ConnId, _frame: RaftFrame) {}

    pub(super) fn on_raft_send(&mut self, _now: Instant, _message: RaftMessage) {}

    pub(super) fn on_send_snapshot(&mut self, _now: Instant, _message: RaftMessage, _state: Arc<State>) {}

    pub(super) fn on_snapshot_chunk(
        &mut self,
        _now: Instant,
        _ticket: u64,
        _number: u32,
        _bytes: Vec<u8>,
        _last: bool,
    ) {
    }

    pub(super) fn on_snapshot_whole(&mut self, _now: Instant, _ticket: u64, _result: Result<Arc<State>, String>) {}

    pub(super) fn on_members(&mut self, _now: Instant, _members: Membership) {}

    pub(super) fn on_progress(&mut self, _now: Instant, _progress: Vec<Progress>) {}

    pub(super) fn on_cluster_kept(&mut self, _now: Instant) {}

    pub(super) fn on_key_files(&mut self, _now: Instant, _files: Vec<(String, KeyFile)>) {}

    pub(super) fn on_key_kept(&mut self, _now: Instant, _key_id: &str, _error: Option<String>) {}
}
