//! A snapshot that comes back through the log: a beginning, its bytes in order, an end. What it holds is swapped in
//! at the end, alike on every replica; one that never ends is dropped by the next beginning.

use crate::wire::msgpack::Bytes;
use crate::wire_structs;

wire_structs! {
    /// A restore begins; one that was under way is dropped.
    pub struct RestoreBegin {
        /// Names the restore in what follows.
        id: u64 = "i",
        /// Bytes of the whole state, as a snapshot holds it.
        total_bytes: u64 = "t",
    }
    /// The next bytes of it.
    pub struct RestoreChunk {
        /// Which restore.
        id: u64 = "i",
        /// Where they begin.
        offset: u64 = "o",
        /// The bytes.
        bytes: Bytes = "b",
    }
    /// All bytes were given: the state becomes what they say.
    pub struct RestoreEnd {
        /// Which restore.
        id: u64 = "i",
        /// SHA-256 of all bytes.
        sha256: Bytes = "s",
    }
}
