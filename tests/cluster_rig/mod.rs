//! What the tests of a cluster share: several daemons on one machine, the links between them in the test's hand, clients
//! that note what they asked and heard, and a judge of these notes.
//!
//! Nothing here uses holdfast's library. Every wait is on a condition and has a deadline. It stands on `rig`, which the
//! test takes in beside it.

#![allow(dead_code, unused_imports, unreachable_pub, missing_docs, clippy::unwrap_used)]

pub mod agents;
pub mod caller;
pub mod doors;
pub mod history;
pub mod load;
pub mod servers;

pub use agents::Fleet;
pub use caller::{Caller, Trouble};
pub use doors::{Door, Net, Rule};
pub use history::{History, Verdict};
pub use load::{Load, Report};
pub use servers::{Cluster, Shape};
