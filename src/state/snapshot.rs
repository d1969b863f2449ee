//! The root to bytes and back, in chunks, each with its checksum.

use crate::state::State;

/// Bytes of a chunk before its checksum, about.
pub const CHUNK_BYTES: usize = 256 * 1024;

/// Writes the state as chunks. The same state gives the same bytes.
pub fn write(state: &State) -> impl Iterator<Item = Vec<u8>> + '_ {
    let _ = state;
    std::iter::empty()
}

/// Why a snapshot was not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotError {
    /// A chunk is damaged; its number and the byte offset in the whole.
    Damaged {
        /// Counted from 0.
        chunk: usize,
        /// Bytes from the beginning.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// A version that this build does not know.
    Version(u64),
    /// It ends early.
    Truncated,
}

/// Reads what [`write()`] wrote, all its chunks one after another.
///
/// # Errors
/// Anything but exactly that.
pub fn read(bytes: &[u8]) -> Result<State, SnapshotError> {
    let _ = bytes;
    todo!("state helper")
}
