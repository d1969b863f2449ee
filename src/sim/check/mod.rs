//! Is what was written down right? The checkers know the history and the log, and nothing of the world that made them.

mod durable;
mod events;
mod heartbeats;
mod linear;
mod locks;
mod model;
mod queries;
mod rules;
mod vars;

use std::time::Duration;

use crate::base::time::Instant;

use super::history::History;
use super::truth::{Step, Truth};

/// What everything on the way takes at most, when nothing is broken: wires, threads, a pause of the process.
pub(crate) const SLACK: Duration = Duration::from_secs(5);
/// The same when the disk has to write, which may be slow.
pub(crate) const WRITE_SLACK: Duration = Duration::from_secs(15);

/// What checkers know.
pub(crate) struct Case<'a> {
    pub(crate) history: &'a History,
    /// What each entry of the log did.
    pub(crate) steps: &'a [Step],
    /// The end of the world.
    pub(crate) end: Instant,
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
    wrongs
}
