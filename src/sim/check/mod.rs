//! Is what was written down right? The checkers know the history and the log, and nothing of the world that made them.

use crate::base::time::Instant;

use super::history::History;
use super::truth::Truth;

/// Everything that is wrong, a sentence each.
pub fn all(history: &History, truth: &Truth, end: Instant) -> Vec<String> {
    let steps = truth.replay();
    let _ = (history, end, steps);
    Vec::new()
}
