//! Identities, each its own type so that none is taken for another.

use std::fmt;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident($inner:ty);)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    )*};
}

ids! {
    /// One connection of this process: a slot and the generation of its use, so that a late event for a closed
    /// connection never reaches its successor in the slot.
    ConnId(u64);
    /// A yamux stream of one connection. 0 stands for the connection itself where nothing is multiplexed.
    StreamId(u32);
    /// A call this server is working on.
    CallId(u64);
    /// A raft term, or the epoch of a lease.
    Term(u64);
    /// A position in the log; what clients see as `Index`.
    Index(u64);
    /// A replica as the consensus engine names it; never 0.
    ReplicaId(u64);
}
