//! The orderly end of a session: nothing new, what was on its way is still taken, and then it is over.
//!
//! A peer that reads our GoAway makes no more calls on the session, but some may be on their way: a probe behind the
//! GoAway tells when those have come, so that none is cut off with its fate unknown (R1.37, R3.15).

use std::time::Duration;

use crate::conn::stream::Stream;
use crate::conn::stream::World;
use crate::wire::yamux::GoAway;

use super::Streams;

/// A peer that does not say that it has read our GoAway is not waited for any longer.
const DRAIN_GRACE: Duration = Duration::from_secs(1);

impl Streams {
    /// Refuses new streams; those on which nothing has begun end at once. Calls that the peer sent before it knew are
    /// still taken.
    pub(in crate::conn) fn drain(&mut self, world: &mut World<'_>) {
        if !self.draining && !self.dialled {
            self.grace = Some(world.now + DRAIN_GRACE);
        }
        self.draining = true;
        self.mux.go_away(GoAway::Normal);
        if self.grace.is_some() {
            self.mux.probe();
        }
        self.give_up_waiting(world);
        let fresh = self.streams.iter().filter(|(_, stream)| matches!(stream, Stream::Fresh(_)));
        for stream in fresh.map(|(stream, _)| stream).collect::<Vec<_>>() {
            self.mux.reset(stream);
            self.forget(stream);
        }
        self.settle(world, &[]);
    }

    pub(in crate::conn) fn is_over(&self) -> bool {
        let ending = self.draining || (self.dialled && (self.peer_gone || self.tally.stray));
        let waits = |stream: &Stream| stream.is_busy() || is_partial(stream);
        self.over || (ending && self.grace.is_none() && !self.streams.values().any(waits))
    }
}

/// Whether the rest of a request is owed.
pub(super) fn is_partial(stream: &Stream) -> bool {
    matches!(stream, Stream::Rpc(rpc) if rpc.is_partial())
}
