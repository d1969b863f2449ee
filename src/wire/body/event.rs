//! Arguments of Event.Stream.
//!
//! Source: endpoint notes, section 6.

use std::collections::BTreeMap;

use crate::wire::body::query::QueryOptions;
use crate::wire_structs;

wire_structs! {
    /// Arguments of Event.Stream.
    pub struct EventStreamRequest {
        /// Keys by topic; `*` stands for any of either.
        topics: BTreeMap<String, Vec<String>> = "Topics",
        /// Where to begin; 0 with the oldest still held.
        index: i64 = "Index",
        ..query: QueryOptions,
    }
}
