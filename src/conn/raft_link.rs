//! A raft link: frames both ways on a connection of their own, behind 0x02.
//!
//! Knows no raft: who may send what is its owner's. A peer of another kind (raft of Nomad's servers has the same first
//! byte) is dropped by the length that its first bytes make.

use std::time::Duration;

use crate::base::time::Instant;
use crate::wire::raft;
use crate::wire::raft::Frames;
use crate::wire::raft::RaftFrame;

use super::Event;
use super::report::Cause;
use super::stream::TIMEOUT;
use super::stream::World;
use super::stream::report;

/// A link on which no frame came for this long is closed, of whichever side.
pub const LINK_IDLE: Duration = Duration::from_secs(30);

/// The frames of a link.
#[derive(Debug)]
pub(super) struct RaftLink {
    frames: Frames,
    deadline: Instant,
    over: bool,
}

impl RaftLink {
    /// A link that can be used from now on.
    pub(super) fn new(now: Instant) -> RaftLink {
        RaftLink { frames: Frames::default(), deadline: now + LINK_IDLE, over: false }
    }

    pub(super) fn bytes(&mut self, world: &mut World<'_>, mut bytes: &[u8]) {
        while !self.over {
            match self.frames.next_frame(&mut bytes) {
                Ok(Some(frame)) => {
                    self.deadline = world.now + LINK_IDLE;
                    world.events.push_back(Event::Raft(Box::new(frame)));
                }
                Ok(None) => break,
                Err(error) => self.fail(world, &error.to_string()),
            }
        }
    }

    /// Silent between two frames.
    pub(super) fn eof(&mut self, world: &mut World<'_>) {
        if self.frames.is_within_frame() {
            self.fail(world, "unexpected EOF");
        }
        self.over = true;
    }

    pub(super) fn fail(&mut self, world: &mut World<'_>, error: &str) {
        world.events.push_back(report(Cause::RaftLink, error));
        self.over = true;
    }

    pub(super) fn timeout(&mut self, world: &mut World<'_>) {
        if self.deadline <= world.now {
            self.fail(world, TIMEOUT);
        }
    }

    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// False while too much waits for the peer.
    pub(super) fn send(&mut self, world: &mut World<'_>, frame: &RaftFrame) -> bool {
        if self.over || world.waiting_bytes > world.limits.max_raft_unsent_bytes {
            return false;
        }
        let sent = raft::encode(frame, world.out);
        if !sent {
            self.fail(world, "a frame to be sent is too large");
        }
        sent
    }

    pub(super) fn end(&mut self) {
        self.over = true;
    }

    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// Bytes that wait for the rest of their frame.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        self.frames.held_bytes()
    }
}
