//! Time, timers, identities, networks, chance, checksums, bounded buffers and metric names: what every room needs.
//!
//! Nothing here reads a clock, a socket, a file or the environment.

pub mod bounded;
pub mod crc32c;
pub mod id;
pub mod metric;
pub mod network;
pub mod rng;
pub mod slab;
pub mod sorted;
pub mod time;
pub mod timers;
