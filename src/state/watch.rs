//! What a query read against what a write touched.
//!
//! A key is a 64-bit hash of the kind of thing and its name. Two things may share one: then a query is run once too
//! often and waits again, which costs time and is never wrong.
//!
//! A write to a variable concerns every prefix of its path, in its namespace and in all of them. It names the variable
//! itself; whoever keeps the waiting queries asks only for the lengths of prefixes that somebody waits for.

use std::sync::Arc;

/// What an entry changed, for those who wait.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Single things.
    pub keys: Vec<WatchKey>,
    /// Variables: each stands for itself and for all prefixes of its path.
    pub vars: Vec<(Arc<str>, Arc<str>)>,
    /// The whole state was replaced: everything that waits is to look again (R1.95).
    pub everything: bool,
}

impl From<Vec<WatchKey>> for Touched {
    fn from(keys: Vec<WatchKey>) -> Touched {
        Touched { keys, ..Touched::default() }
    }
}

impl Touched {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.vars.is_empty() && !self.everything
    }
}

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

    /// One variable, there or not, and its lock.
    pub fn var(namespace: &str, path: &str) -> WatchKey {
        WatchKey::of_parts(5, namespace, path).with_length(0)
    }

    /// All variables whose paths begin so, in one namespace or, for `*`, in all. A prefix longer than any path is
    /// never touched.
    pub fn vars_under(namespace: &str, prefix: &str) -> WatchKey {
        WatchKey::of_parts(6, namespace, prefix).with_length(prefix.len().saturating_add(1))
    }

    /// For a key of [`WatchKey::vars_under`]: how long its prefix is.
    pub fn prefix_bytes(self) -> Option<usize> {
        usize::from(self.0 as u8).checked_sub(1)
    }

    /// Tokens, policies and roles, all together: they change seldom.
    pub fn acl() -> WatchKey {
        WatchKey::of(7, "")
    }

    /// Namespaces, all together.
    pub fn namespaces() -> WatchKey {
        WatchKey::of(8, "")
    }

    /// The operator's configurations, all together.
    pub fn operator() -> WatchKey {
        WatchKey::of(9, "")
    }

    /// The cluster's servers, all together.
    pub fn servers() -> WatchKey {
        WatchKey::of(10, "")
    }

    fn of_parts(kind: u8, first: &str, second: &str) -> WatchKey {
        let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        let hash = first.bytes().fold(0xcbf2_9ce4_8422_2325 ^ u64::from(kind), step);
        WatchKey(second.bytes().fold(step(hash, 0), step))
    }

    /// The lowest byte says how long the prefix is, and one more; 0 for whatever is no prefix.
    fn with_length(self, length: usize) -> WatchKey {
        WatchKey(self.0 & !0xff | length.min(0xff) as u64)
    }

    /// FNV-1a over the kind and the name: the same in every process.
    fn of(kind: u8, name: &str) -> WatchKey {
        let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        WatchKey(name.bytes().fold(step(0xcbf2_9ce4_8422_2325, kind), step)).with_length(0)
    }
}
