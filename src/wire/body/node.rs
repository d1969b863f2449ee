//! Bodies of Node.*: a node's events and drain, and what the methods take and give.
//!
//! Source: endpoint notes, section 3.

use std::collections::BTreeMap;

use crate::wire::msgpack::Bytes;
use crate::wire_structs;

wire_structs! {
    /// Something that happened to a node.
    pub struct NodeEvent {
        /// What happened.
        message: String = "Message",
        /// Drain, Driver, Heartbeat, Cluster, Scheduler or Storage.
        subsystem: String = "Subsystem",
        /// Whatever belongs to it.
        details: Option<BTreeMap<String, String>> = "Details",
        /// Go's binary time, see [`crate::wire::body::node::go_time`].
        timestamp: Bytes = "Timestamp",
        /// The log index that appended it.
        create_index: u64 = "CreateIndex",
    }
    /// How a node is drained.
    pub struct DrainStrategy {
        /// Nanoseconds; below 0 forces now, 0 has no limit.
        deadline: i64 = "Deadline",
        /// Leaves system jobs alone.
        ignore_system_jobs: bool = "IgnoreSystemJobs",
        /// Go's binary time: when the deadline is.
        force_deadline: Bytes = "ForceDeadline",
        /// Go's binary time: when the drain began.
        started_at: Bytes = "StartedAt",
    }
    /// The last drain of a node.
    pub struct LastDrain {
        /// Go's binary time.
        started_at: Bytes = "StartedAt",
        /// Go's binary time.
        updated_at: Bytes = "UpdatedAt",
        /// `draining`, `complete` or `canceled`.
        status: String = "Status",
        /// Who asked for it.
        accessor_id: String = "AccessorID",
        /// What they said about it.
        meta: Option<BTreeMap<String, String>> = "Meta",
    }
}

/// Go's binary form of a time in UTC: version 1, seconds since year 1, nanoseconds, zone `ffff`.
pub fn go_time(unix_nanos: i64) -> Bytes {
    let seconds = unix_nanos.div_euclid(1_000_000_000) + 62_135_596_800;
    let nanos = unix_nanos.rem_euclid(1_000_000_000) as u32;
    let mut bytes = vec![1];
    bytes.extend(seconds.to_be_bytes());
    bytes.extend(nanos.to_be_bytes());
    bytes.extend([0xff, 0xff]);
    Bytes(bytes)
}

/// Go's zero time, 0001-01-01T00:00:00Z.
pub fn go_zero_time() -> Bytes {
    let mut bytes = vec![1];
    bytes.extend([0; 12]);
    bytes.extend([0xff, 0xff]);
    Bytes(bytes)
}
