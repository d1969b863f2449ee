//! Streams of events: told of what is new, and ended when their right to it is.

use crate::api::event::still_allowed;
use crate::base::slab::Key;
use crate::base::time::Instant;

use super::super::Server;
use super::super::events;
use super::{Kind, SUBSCRIPTION_CLOSED, Source};

/// Subscribers told in one step, so that whoever wrote is answered and others are served in between.
const TOLD_A_STEP: usize = 256;

/// Who is still to be told that there are new events.
#[derive(Default)]
pub(in crate::server) struct Telling {
    waiting: std::vec::IntoIter<Key>,
    /// More came since: all are told once more.
    again: bool,
}

impl Telling {
    /// Whether somebody is still to be told.
    pub(in crate::server) fn goes_on(&self) -> bool {
        self.waiting.len() > 0 || self.again
    }
}

impl Server {
    /// New events are in the buffer: every subscriber is to be told.
    pub(in crate::server) fn tell_subscribers(&mut self) {
        self.telling.again = true;
    }

    /// Tells some of those that are still to be told.
    pub(in crate::server) fn step_telling(&mut self, now: Instant) {
        if self.telling.waiting.len() == 0 && std::mem::take(&mut self.telling.again) {
            self.telling.waiting = self.sources.keys().into_iter();
        }
        for _ in 0..TOLD_A_STEP {
            let Some(key) = self.telling.waiting.next() else { return };
            if matches!(self.sources.get(key), Some(Source { kind: Kind::Events { .. }, .. })) {
                self.pump(now, key);
            }
        }
    }

    /// The state was replaced: whoever follows it begins again.
    pub(in crate::server) fn close_subscribers(&mut self, now: Instant) {
        for key in self.sources.keys() {
            if matches!(self.sources.get(key), Some(Source { kind: Kind::Events { .. }, .. })) {
                self.close_subscription(now, key, SUBSCRIPTION_CLOSED);
            }
        }
    }

    /// Tokens or policies changed: who lost the right to its events is told so (endpoint notes, section 6).
    pub(in crate::server) fn recheck_subscribers(&mut self, now: Instant) {
        self.fresh_ctx(false);
        let state = self.root.load_full();
        let lost: Vec<(Key, String)> = (self.sources.iter())
            .filter_map(|(key, source)| match &source.kind {
                Kind::Events { filter, .. } => still_allowed(filter, &state, &self.ctx).err().map(|why| (key, why)),
                _ => None,
            })
            .collect();
        for (key, why) in lost {
            self.close_subscription(now, key, &why);
        }
    }

    pub(super) fn close_subscription(&mut self, now: Instant, key: Key, why: &str) {
        if let Some(source) = self.sources.get_mut(key) {
            // A reader that is behind gets what is on its way, and then the end of it.
            source.unsent.push_back((events::error_message(why, 500), 0));
        }
        self.end_after_sending(now, key);
    }

    /// Streams that subscribe to events.
    pub(in crate::server) fn subscribers(&self) -> usize {
        self.sources.iter().filter(|(_, source)| matches!(source.kind, Kind::Events { .. })).count()
    }
}
