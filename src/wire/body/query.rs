//! Options and meta that lie flat in every request and reply, and the few of them that routing reads.
//!
//! Source: transport notes, section 5.1; endpoint notes, section 1.1.

use crate::wire::msgpack::Result;
use crate::wire_structs;

wire_structs! {
    /// Options of a read.
    pub struct QueryOptions {
        /// Which region is meant.
        region: String = "Region",
        /// Empty means `default`.
        namespace: String = "Namespace",
        /// Above 0: answer once the result's index is above it.
        min_query_index: u64 = "MinQueryIndex",
        /// Nanoseconds to wait at most; 0 means the default.
        max_query_time: i64 = "MaxQueryTime",
        /// Any server may answer.
        allow_stale: bool = "AllowStale",
        /// Limits a list to ids that begin with it.
        prefix: String = "Prefix",
        /// Who is asking.
        auth_token: String = "AuthToken",
        /// A go-bexpr expression.
        filter: String = "Filter",
        /// Items of a page; 0 means all.
        per_page: i32 = "PerPage",
        /// Where the page begins.
        next_token: String = "NextToken",
        /// Descending order.
        reverse: bool = "Reverse",
        /// Another server passed the request on.
        forwarded: bool = "Forwarded",
    }
    /// Options of a write.
    pub struct WriteRequest {
        /// Which region is meant.
        region: String = "Region",
        /// Empty means `default`.
        namespace: String = "Namespace",
        /// Who is asking.
        auth_token: String = "AuthToken",
        /// Used by jobs only.
        idempotency_token: String = "IdempotencyToken",
        /// Another server passed the request on.
        forwarded: bool = "Forwarded",
    }
    /// What a read reply says about itself.
    pub struct QueryMeta {
        /// The index of the result.
        index: u64 = "Index",
        /// Nanoseconds since the leader was heard; 0 from the leader.
        last_contact: i64 = "LastContact",
        /// Whether a leader is known.
        known_leader: bool = "KnownLeader",
        /// Where the next page begins; empty on the last.
        next_token: String = "NextToken",
    }
    /// What a write reply says about itself.
    pub struct WriteMeta {
        /// The log index of the write.
        index: u64 = "Index",
    }
    /// A request with options only.
    pub struct GenericRequest {
        ..query: QueryOptions,
    }
    /// A reply with meta only.
    pub struct GenericResponse {
        ..meta: WriteMeta,
    }
}

/// The fields of a request's body that decide where it is served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteFields {
    /// Region.
    pub region: String,
    /// AllowStale.
    pub allow_stale: bool,
    /// Forwarded.
    pub forwarded: bool,
    /// MinQueryIndex.
    pub min_query_index: u64,
    /// MaxQueryTime, nanoseconds.
    pub max_query_time: i64,
}

/// Reads the routing fields in one pass over a body. A body that is no map gives the defaults; one that is an array
/// too (its fields have no names; the handler decodes it whole and reads the region there).
///
/// # Errors
/// Where a field is of another kind.
pub fn route_fields(body: &[u8], base: u64) -> Result<RouteFields> {
    let _ = (body, base);
    todo!("wire helper")
}
