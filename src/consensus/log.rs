//! Entries since the last snapshot, in memory, and what the disk has promised.
