//! Deadlines by key, earliest first: the only timer structure.
//!
//! The owner of a deadline keeps the [`Instant`] it was set to and hands it back to cancel it, so that an entry
//! costs one node of one tree.

use std::collections::BTreeSet;

use super::time::Instant;

/// An ordered set of (deadline, key).
#[derive(Debug, Clone)]
pub struct Timers<K> {
    entries: BTreeSet<(Instant, K)>,
}

impl<K: Ord + Copy> Default for Timers<K> {
    fn default() -> Self {
        Timers { entries: BTreeSet::new() }
    }
}

impl<K: Ord + Copy> Timers<K> {
    /// Adds a deadline. The same key may have several; each fires.
    pub fn set(&mut self, at: Instant, key: K) {
        self.entries.insert((at, key));
    }

    /// Takes a deadline away; `at` is what it was set to. False when it was not there (it has fired).
    pub fn cancel(&mut self, at: Instant, key: K) -> bool {
        self.entries.remove(&(at, key))
    }

    /// The earliest deadline.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.entries.first().map(|(at, _)| *at)
    }

    /// Takes out the earliest deadline that is at or before `now`.
    pub fn pop_due(&mut self, now: Instant) -> Option<(Instant, K)> {
        match self.entries.first() {
            Some((at, _)) if *at <= now => self.entries.pop_first(),
            _ => None,
        }
    }

    /// How many deadlines are set.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True when no deadline is set.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Forgets every deadline.
    pub fn clear(&mut self) {
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn due_ones_come_out_in_order_and_once() {
        let at = |s| Instant::ZERO + Duration::from_secs(s);
        let mut timers = Timers::default();
        timers.set(at(3), 'c');
        timers.set(at(1), 'a');
        timers.set(at(2), 'b');
        assert!(timers.cancel(at(2), 'b'));
        assert!(!timers.cancel(at(2), 'b'));
        assert_eq!(timers.next(), Some(at(1)));
        assert_eq!(timers.pop_due(at(0)), None);
        assert_eq!(timers.pop_due(at(5)), Some((at(1), 'a')));
        assert_eq!(timers.pop_due(at(5)), Some((at(3), 'c')));
        assert_eq!(timers.pop_due(at(5)), None);
    }
}
