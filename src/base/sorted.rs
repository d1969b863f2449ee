//! A map as a sorted vector: a handful of entries cost what they hold, and an empty one holds nothing.
//!
//! For keys that mostly come in rising order and tables that are mostly small: a tree of the standard library takes a
//! node for eleven entries with the first.

/// Values by key, in the order of the keys.
#[derive(Clone, Debug)]
pub struct SortedMap<K, V> {
    entries: Vec<(K, V)>,
}

impl<K, V> Default for SortedMap<K, V> {
    fn default() -> Self {
        SortedMap { entries: Vec::new() }
    }
}

impl<K: Ord + Copy, V> SortedMap<K, V> {
    fn position(&self, key: K) -> Result<usize, usize> {
        // The last one is asked for most.
        match self.entries.last() {
            Some((last, _)) if *last < key => Err(self.entries.len()),
            _ => self.entries.binary_search_by_key(&key, |(held, _)| *held),
        }
    }

    /// The value of a key.
    pub fn get(&self, key: K) -> Option<&V> {
        self.position(key).ok().map(|at| &self.entries[at].1)
    }

    /// The value of a key, to change.
    pub fn get_mut(&mut self, key: K) -> Option<&mut V> {
        self.position(key).ok().map(|at| &mut self.entries[at].1)
    }

    /// Sets the value of a key; gives the old one.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.position(key) {
            Ok(at) => Some(std::mem::replace(&mut self.entries[at].1, value)),
            Err(at) => {
                // One place at first, since most tables stay that small.
                if self.entries.is_empty() {
                    self.entries.reserve_exact(1);
                }
                self.entries.insert(at, (key, value));
                None
            }
        }
    }

    /// Takes a key out. The memory goes with the last one.
    pub fn remove(&mut self, key: K) -> Option<V> {
        let at = self.position(key).ok()?;
        let (_, value) = self.entries.remove(at);
        if self.entries.is_empty() {
            self.entries = Vec::new();
        }
        Some(value)
    }

    /// Takes all out.
    pub fn clear(&mut self) {
        self.entries = Vec::new();
    }

    /// All, by key.
    pub fn iter(&self) -> impl Iterator<Item = (K, &V)> {
        self.entries.iter().map(|(key, value)| (*key, value))
    }

    /// All values, by key.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.entries.iter().map(|(_, value)| value)
    }

    /// All keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = K> {
        self.entries.iter().map(|(key, _)| *key)
    }

    /// True when nothing is held.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn it_does_what_a_tree_does() {
        let mut rng = crate::base::rng::Rng::from_seed(3);
        let (mut map, mut model) = (SortedMap::default(), BTreeMap::new());
        for step in 0..20_000u64 {
            let key = rng.below(64);
            if rng.chance(1, 2) {
                assert_eq!(map.insert(key, step), model.insert(key, step));
            } else {
                assert_eq!(map.remove(key), model.remove(&key));
            }
            let probe = rng.below(64);
            assert_eq!(map.get(probe), model.get(&probe));
        }
        assert_eq!(map.iter().map(|(k, v)| (k, *v)).collect::<Vec<_>>(), model.into_iter().collect::<Vec<_>>());
        map.clear();
        assert!(map.is_empty() && map.entries.capacity() == 0);
    }
}
