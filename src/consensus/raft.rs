//! Drives the raft crate: input to ready to output.
