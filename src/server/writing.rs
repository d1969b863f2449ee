//! Calls that write: proposed, settled, and gone on with; and what the server writes on its own account.

use std::sync::Arc;

use log::Level;

use crate::api;
use crate::api::outcome::Resolved;
use crate::base::id::CallId;
use crate::base::time::Instant;
use crate::consensus::{Proposal, Resolution};
use crate::state::ApplyResult;
use crate::wire::body::session::SessionKey;
use crate::wire::class::LEADERSHIP_LOST;
use crate::wire::entry::Command;
use crate::wire::entry::var::LockName;

use super::Server;
use super::audit::Written;
use super::calls::Step;
use super::peers::members::Change;

/// Proposals of the server itself.
#[derive(Clone, Debug)]
pub(super) enum Internal {
    /// A node was not heard in time.
    NodeDown(Arc<str>),
    /// All locks get their grace.
    Grace,
    /// The time of these locks is over.
    LocksExpired(Vec<LockName>),
    /// The time of some tokens is over.
    TokensExpired,
    /// A fresh key is made known.
    NewKey,
    /// Variables are put under the newest key.
    Reseal,
    /// A step of this restore.
    Restore(u64),
    /// A server's record.
    ServerWritten,
    /// A change of the cluster, which is no write.
    Member(Box<Change>),
    /// These sessions are over, or are to be looked at later.
    SessionsExpired(Vec<u64>),
    /// This server's own session begins.
    OwnSession(SessionKey),
    /// Nobody waits.
    Other,
}

impl Server {
    /// How much room the disk has. A write that finds none would end the process: users' writes are refused before, and
    /// taken again once there is a tenth more than the least (R8.17).
    pub(super) fn note_space(&mut self, free: Option<u64>) {
        let least = self.settings.min_free_bytes;
        let Some(free) = free.filter(|_| least > 0) else { return };
        let enough = if self.short_of_space.is_some() { least.saturating_add(least / 10) } else { least };
        let was_short = self.short_of_space.is_some();
        self.short_of_space = (free < enough).then_some(free);
        if !was_short && let Some(text) = self.refused_for_space() {
            self.log(Level::Error, text);
        } else if was_short && self.short_of_space.is_none() {
            self.log(Level::Info, format!("writes are taken again: free_bytes={free}"));
        }
    }

    /// Why users' writes are refused for lack of space, if they are.
    pub(super) fn refused_for_space(&self) -> Option<String> {
        let (free, least) = (self.short_of_space?, self.settings.min_free_bytes);
        Some(format!("writes are refused: the disk of the data folder has {free} bytes free, the least is {least}"))
    }

    /// Writes on the server's own account.
    pub(super) fn propose_internal(&mut self, command: Command, internal: Internal) {
        let id = self.internal_id(internal);
        self.proposals.push(Proposal { id, session: None, command });
    }

    /// An id for something of the server's own that the consensus thread settles.
    pub(super) fn internal_id(&mut self, internal: Internal) -> CallId {
        self.next_internal += 1;
        let id = CallId(self.next_internal);
        self.internal.insert(id, internal);
        id
    }

    /// What became of a proposal.
    pub(super) fn on_resolved(&mut self, now: Instant, id: CallId, resolution: Resolution) {
        if let Some(internal) = self.internal.remove(&id) {
            self.on_internal_resolved(now, internal, resolution);
            return;
        }
        let Some(active) = self.active(id) else { return };
        let Step::Proposing(finish) = &active.step else { return };
        let finish = finish.clone();
        match resolution {
            Resolution::Applied { result: ApplyResult::Repeated(answered), .. } => {
                active.written = Some(Written::of(answered.index, &answered.result));
                self.answer_again(now, id, &answered);
            }
            Resolution::Applied { result: ApplyResult::OutOfPlace(text), .. } => self.session_refused(now, id, &text),
            Resolution::Applied { index, result } => {
                let heartbeat = active.query.method.heartbeat;
                active.written = Some(Written::of(index, &result));
                active.decided_at = index.0;
                let resolved = Resolved { index, result };
                self.fresh_ctx(heartbeat);
                let outcome = api::finish(&finish, &resolved, &self.root.load(), &self.ctx);
                self.on_outcome(now, id, outcome);
            }
            // Surely not applied: held until there is a leader, then run again from the start.
            Resolution::NotLeader => self.hold(now, id),
            Resolution::Rejected(text) => self.answer_error(now, id, &text),
            // With a place in a session it is made again, wherever it can be, and applied once at most.
            Resolution::Unknown if active.stamp.is_some() => {
                active.unsure = true;
                self.hold(now, id);
            }
            Resolution::Unknown => self.answer_error(now, id, LEADERSHIP_LOST),
        }
    }

    /// The consensus thread did not take a proposal in time (R1.81).
    pub(super) fn on_not_enqueued(&mut self, now: Instant, id: CallId) {
        let text = "timed out enqueuing operation";
        if self.internal.contains_key(&id) {
            self.on_resolved(now, id, Resolution::Rejected(text.to_owned()));
        } else {
            self.answer_error(now, id, text);
        }
    }
}
