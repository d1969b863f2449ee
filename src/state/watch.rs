//! What a query read against what a write touched.
//!
//! A key is a 64-bit hash of the kind of thing and its name. Two things may share one: then a query is run once too
//! often and waits again, which costs time and is never wrong.

/// Something that a query can wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WatchKey(pub u64);

impl WatchKey {
    /// One node, there or not.
    pub fn node(id: &str) -> WatchKey {
        WatchKey::of(1, id)
    }

    /// Any change of the nodes table.
    pub fn nodes() -> WatchKey {
        WatchKey::of(2, "")
    }

    /// The allocations of one node.
    pub fn node_allocs(id: &str) -> WatchKey {
        WatchKey::of(3, id)
    }

    /// The signing keys.
    pub fn signing_keys() -> WatchKey {
        WatchKey::of(4, "")
    }

    /// FNV-1a over the kind and the name: the same in every process.
    fn of(kind: u8, name: &str) -> WatchKey {
        let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        WatchKey(name.bytes().fold(step(0xcbf2_9ce4_8422_2325, kind), step))
    }
}
