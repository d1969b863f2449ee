//! Time, timers, identities, chance, bounded buffers and metric names: what every room needs.
//!
//! Nothing here reads a clock, a socket, a file or the environment.

pub mod bounded;
pub mod id;
pub mod metric;
pub mod rng;
pub mod slab;
pub mod sorted;
pub mod time;
pub mod timers;
