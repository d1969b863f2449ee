//! A vector of slots with generations: stable small keys for connections, streams and calls.

/// A key of a [`Slab`]: the slot in the low 32 bits, its generation in the high ones.
pub type Key = u64;

enum Slot<T> {
    /// Free; the next free slot, or `u32::MAX`.
    Free(u32),
    Used(T),
}

/// Values under keys that are never given out twice (until a slot's 32-bit generation wraps).
pub struct Slab<T> {
    slots: Vec<(u32, Slot<T>)>,
    free: u32,
    len: usize,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Slab { slots: Vec::new(), free: u32::MAX, len: 0 }
    }
}

fn split(key: Key) -> (usize, u32) {
    ((key & 0xffff_ffff) as usize, (key >> 32) as u32)
}

impl<T> Slab<T> {
    /// Stores a value and says under which key.
    pub fn insert(&mut self, value: T) -> Key {
        self.len += 1;
        if self.free == u32::MAX {
            self.slots.push((0, Slot::Used(value)));
            return self.slots.len() as u64 - 1;
        }
        let at = self.free;
        let (generation, slot) = &mut self.slots[at as usize];
        if let Slot::Free(next) = slot {
            self.free = *next;
        }
        *slot = Slot::Used(value);
        u64::from(*generation) << 32 | u64::from(at)
    }

    /// The key that the next [`Slab::insert`] will give.
    pub fn next_key(&self) -> Key {
        match self.free {
            u32::MAX => self.slots.len() as u64,
            at => u64::from(self.slots[at as usize].0) << 32 | u64::from(at),
        }
    }

    /// The value under a key, unless it was removed.
    pub fn get(&self, key: Key) -> Option<&T> {
        let (at, generation) = split(key);
        match self.slots.get(at) {
            Some((held, Slot::Used(value))) if *held == generation => Some(value),
            _ => None,
        }
    }

    /// The value under a key, to change.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let (at, generation) = split(key);
        match self.slots.get_mut(at) {
            Some((held, Slot::Used(value))) if *held == generation => Some(value),
            _ => None,
        }
    }

    /// Takes the value out; its key is dead from now on.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        let (at, generation) = split(key);
        match self.slots.get_mut(at) {
            Some((held, slot @ Slot::Used(_))) if *held == generation => {
                *held = held.wrapping_add(1);
                let old = std::mem::replace(slot, Slot::Free(self.free));
                self.free = at as u32;
                self.len -= 1;
                match old {
                    Slot::Used(value) => Some(value),
                    Slot::Free(_) => None,
                }
            }
            _ => None,
        }
    }

    /// How many values are stored.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All values with their keys, by slot.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.slots.iter().enumerate().filter_map(|(at, (generation, slot))| match slot {
            Slot::Used(value) => Some((u64::from(*generation) << 32 | at as u64, value)),
            Slot::Free(_) => None,
        })
    }

    /// All keys, by slot.
    pub fn keys(&self) -> Vec<Key> {
        self.iter().map(|(key, _)| key).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_key_stays_dead_when_its_slot_is_used_again() {
        let mut slab = Slab::default();
        let a = slab.insert('a');
        assert_eq!(slab.remove(a), Some('a'));
        let next = slab.next_key();
        let b = slab.insert('b');
        assert_eq!(next, b);
        assert_ne!(a, b);
        assert_eq!((slab.get(a), slab.get(b)), (None, Some(&'b')));
        assert_eq!(slab.remove(a), None);
        assert_eq!(slab.keys(), [b]);
        assert_eq!(slab.len(), 1);
    }
}
