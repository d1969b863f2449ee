//! Is what was written down right? The checkers know the history and the log, and nothing of the world that made them.

mod durable;
mod events;
mod heartbeats;
mod linear;
mod locks;
mod model;
mod queries;
mod rules;
mod sessions;
mod stale;
mod vars;

use std::time::Duration;

use crate::base::time::Instant;

use super::history::{History, Operation, Outcome};
use super::truth::{Step, Truth};

/// What everything on the way takes at most, when nothing is broken: wires, threads, a pause of the process.
pub(crate) const SLACK: Duration = Duration::from_secs(5);
/// The same when the disk has to write, which may be slow.
pub(crate) const WRITE_SLACK: Duration = Duration::from_secs(15);

/// Of how many parts of a time a clock that goes wrong loses one at most.
const SKEW_PARTS: u32 = 1000;

/// How errors begin after which a write may have happened all the same.
const UNSURE: [&str; 3] =
    ["leadership lost while committing log", "outcome unknown", "failed to reset heartbeat since server is not leader"];

/// Whether nobody knows if a write that was refused with this text was done.
pub(crate) fn is_unsure(text: &str) -> bool {
    // Another server may have passed it on.
    let text = text.trim_start_matches("rpc error: ");
    UNSURE.iter().any(|unsure| text.starts_with(unsure))
}

/// Whether whoever asked was told that nobody knows what became of it.
pub(crate) fn is_told_unsure(operation: &Operation) -> bool {
    matches!(&operation.outcome, Outcome::Refused(text) if is_unsure(text))
}

/// What checkers know.
pub(crate) struct Case<'a> {
    pub(crate) history: &'a History,
    /// What each entry of the log did.
    pub(crate) steps: &'a [Step],
    /// The end of the world.
    pub(crate) end: Instant,
}

impl Case<'_> {
    /// By how much a server's clock may have been ahead of the world's after so long: those of a cluster go a little
    /// wrong.
    pub(crate) fn skew(&self, time: Duration) -> Duration {
        if self.history.is_cluster { time / SKEW_PARTS } else { Duration::ZERO }
    }

    /// Whether the cluster was well, and one server led it, from a time to another.
    pub(crate) fn is_steady(&self, from: Instant, to: Instant) -> bool {
        self.history.is_calm(from, to) && self.history.is_one_reign(from, to)
    }

    /// Whether some process was about to stop within this time.
    pub(crate) fn is_stopping(&self, from: Instant, to: Instant) -> bool {
        let lives = self.history.lives.iter();
        lives
            .filter_map(|life| Some((life.stopping?, life.ended.unwrap_or(self.end))))
            .any(|(at, end)| at <= to && from <= end)
    }
}

/// Everything that is wrong, a sentence each.
pub fn all(history: &History, truth: &Truth, end: Instant) -> Vec<String> {
    let steps = truth.replay();
    let case = Case { history, steps: &steps, end };
    let mut wrongs = Vec::new();
    durable::check(&case, &mut wrongs);
    linear::check(&case, &mut wrongs);
    queries::check(&case, &mut wrongs);
    events::check(&case, &mut wrongs);
    heartbeats::check(&case, &mut wrongs);
    let replay = rules::Replay::of(&steps);
    vars::check(&case, &replay, &mut wrongs);
    locks::check(&case, &replay, &mut wrongs);
    stale::check(&case, &replay, &mut wrongs);
    sessions::check(&case, &replay, &mut wrongs);
    wrongs
}
