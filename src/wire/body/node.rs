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

/// Nanoseconds since the Unix epoch of a Go binary time in any zone; a time beyond what they can say is the nearest
/// that they can. `None` when the bytes are no time.
pub fn go_time_unix_nanos(bytes: &[u8]) -> Option<i64> {
    let ([1, s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3, _, _], []) = bytes.split_first_chunk()? else {
        return None;
    };
    let nanos = u32::from_be_bytes([*n0, *n1, *n2, *n3]);
    if nanos > 999_999_999 {
        return None;
    }
    let since_year_1 = i64::from_be_bytes([*s0, *s1, *s2, *s3, *s4, *s5, *s6, *s7]);
    let unix_nanos = (i128::from(since_year_1) - 62_135_596_800) * 1_000_000_000 + i128::from(nanos);
    Some(i64::try_from(unix_nanos).unwrap_or(if unix_nanos < 0 { i64::MIN } else { i64::MAX }))
}

/// Go's zero time, 0001-01-01T00:00:00Z.
pub fn go_zero_time() -> Bytes {
    let mut bytes = vec![1];
    bytes.extend([0; 12]);
    bytes.extend([0xff, 0xff]);
    Bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_back() {
        for nanos in [0, 1, -1, 1_767_323_045_678_901_234, i64::MAX, i64::MIN] {
            assert_eq!(go_time_unix_nanos(&go_time(nanos).0), Some(nanos), "{nanos}");
        }
    }

    #[test]
    fn what_is_no_time_is_none() {
        let mut zoned = go_time(5).0;
        zoned[13..].copy_from_slice(&[0, 0x78]);
        assert_eq!(go_time_unix_nanos(&zoned), Some(5), "a zone changes how it is told, not when it is");
        assert_eq!(go_time_unix_nanos(&go_zero_time().0), Some(i64::MIN));
        let far = [&[1, 0x7f][..], &[0xff; 7], &[0; 6]].concat();
        assert_eq!(go_time_unix_nanos(&far), Some(i64::MAX));
        for none in [&b""[..], &[1; 14], &[2; 15], &[1; 16], &[0xff; 15], &[[1].as_slice(), &[0xff; 14]].concat()] {
            assert_eq!(go_time_unix_nanos(none), None, "{none:02x?}");
        }
    }
}
