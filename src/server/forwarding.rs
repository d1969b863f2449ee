//! Calls and streams that are passed on to another server: chosen, sent, taken back, and answered.

use std::sync::Arc;

use crate::base::id::{CallId, ConnId, StreamId};
use crate::base::time::Instant;

use super::Server;
use super::port::Settings;

/// What is under way at other servers.
#[derive(Debug)]
pub(super) struct Forwarding {}

impl Forwarding {
    pub(super) fn new(_settings: &Settings) -> Forwarding {
        Forwarding {}
    }

    /// When something is due.
    pub(super) fn next(&self) -> Option<Instant> {
        None
    }
}

impl Server {
    pub(super) fn on_forwarding_due(&mut self, _now: Instant) {}

    /// A pooled connection can be used.
    pub(super) fn on_pool_ready(&mut self, _now: Instant, _id: ConnId, _address: &Arc<str>) {}

    /// The region of a server's address; our own when it is not known.
    pub(super) fn region_of(&self, _address: &str) -> String {
        self.settings.region.clone()
    }

    pub(super) fn on_pool_dial_failed(&mut self, _now: Instant, _address: &Arc<str>, _error: &str) {}

    pub(super) fn on_pool_closed(&mut self, _now: Instant, _id: ConnId, _address: &Arc<str>) {}

    /// Another server answered.
    pub(super) fn on_forward_answer(
        &mut self,
        _now: Instant,
        _id: ConnId,
        _stream: StreamId,
        _call: CallId,
        _result: Result<Box<[u8]>, String>,
    ) {
    }

    /// A call of ours ended without an answer; `written` when any byte of it may have left.
    pub(super) fn on_call_lost(&mut self, _now: Instant, _id: ConnId, _stream: StreamId, _written: bool) {}

    /// What this replica holds is as new as what the leader held when it was asked.
    pub(super) fn on_read_ready(&mut self, _now: Instant, _id: CallId, _ok: bool) {}
}
