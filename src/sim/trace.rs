//! A hash over everything that happened, in order: the same seed twice gives the same hash.
//!
//! FNV-1a (Fowler, Noll, Vo). Not for secrets.

/// The running hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    hash: u64,
    steps: u64,
}

impl Default for Trace {
    fn default() -> Trace {
        Trace { hash: 0xcbf2_9ce4_8422_2325, steps: 0 }
    }
}

impl Trace {
    /// Adds a thing that happened: a mark of its kind, then numbers of it.
    pub fn step(&mut self, mark: &str, numbers: &[u64]) {
        self.steps += 1;
        self.bytes(mark.as_bytes());
        for number in numbers {
            self.bytes(&number.to_le_bytes());
        }
    }

    /// Adds bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    /// The hash so far.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// How many things were added.
    pub fn steps(&self) -> u64 {
        self.steps
    }
}
