//! Fences of variables that were removed: so that a fence never falls, also when a path is written again (R8.1).
//!
//! Never knows a variable that is there: its fence is in its row.
//!
//! **Invariant:** a fence that is kept is above the floor. A path without a row and without a fence here has the floor
//! as its fence, so that what had to be forgotten still refuses older writers.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

/// Fences kept at most. Over it, the lowest goes and becomes the floor.
pub(super) const MAX_FENCES: usize = 65_536;

/// Fences by the keys of variables.
#[derive(Clone, Debug, Default)]
pub(super) struct Fences {
    by_key: OrdMap<Arc<str>, u64>,
    by_fence: OrdSet<(u64, Arc<str>)>,
    floor: u64,
}

impl Fences {
    /// The fence of a variable that is not there.
    pub(super) fn of(&self, key: &str) -> u64 {
        self.by_key.get(key).copied().unwrap_or(self.floor)
    }

    /// Keeps the fence of a variable that is not there any more.
    pub(super) fn keep(&mut self, key: Arc<str>, fence: u64) {
        if fence <= self.of(&key) {
            return;
        }
        self.forget(&key);
        self.by_fence.insert((fence, Arc::clone(&key)));
        self.by_key.insert(key, fence);
        while self.by_key.len() > MAX_FENCES {
            let Some((lowest, key)) = self.by_fence.remove_min() else { break };
            self.by_key.remove(&key);
            self.floor = lowest;
        }
        self.drop_needless();
    }

    /// Forgets a fence: the variable is there again and has it in its row.
    pub(super) fn forget(&mut self, key: &str) {
        // A map that others share is copied even where nothing is removed.
        if !self.by_key.contains_key(key) {
            return;
        }
        if let Some((key, fence)) = self.by_key.remove_with_key(key) {
            self.by_fence.remove(&(fence, key));
        }
    }

    /// What every path without a row has at least.
    pub(super) fn floor(&self) -> u64 {
        self.floor
    }

    /// Raises the floor to what a snapshot says.
    pub(super) fn raise_floor(&mut self, floor: u64) {
        self.floor = self.floor.max(floor);
        self.drop_needless();
    }

    /// How many are kept.
    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// All of them, in the order of keys.
    pub(super) fn all(&self) -> impl ExactSizeIterator<Item = (&Arc<str>, u64)> {
        self.by_key.iter().map(|(key, fence)| (key, *fence))
    }

    /// The key that comes last.
    pub(super) fn last_key(&self) -> Option<&Arc<str>> {
        self.by_key.get_max().map(|(key, _)| key)
    }

    /// Drops what the floor says too.
    fn drop_needless(&mut self) {
        while self.by_fence.get_min().is_some_and(|(fence, _)| *fence <= self.floor) {
            let Some((_, key)) = self.by_fence.remove_min() else { break };
            self.by_key.remove(&key);
        }
    }

    /// Panics unless both maps say the same, and no more than is needed.
    #[cfg(test)]
    pub(super) fn check_invariants(&self) {
        assert!(self.len() <= MAX_FENCES);
        let by_key: OrdSet<_> = self.all().map(|(key, fence)| (fence, Arc::clone(key))).collect();
        assert_eq!(by_key, self.by_fence);
        assert!(self.all().all(|(_, fence)| fence > self.floor));
    }
}
