//! Bodies of Search.PrefixSearch, which completes names in shells.
//!
//! Source: HTTP notes, section 5.

use std::collections::BTreeMap;

use crate::wire::body::query::{QueryMeta, QueryOptions};
use crate::wire_structs;

wire_structs! {
    /// Arguments of Search.PrefixSearch. The prefix is that of the options.
    pub struct SearchRequest {
        /// `nodes`, `vars`, `namespaces`, or `all`; others match nothing.
        context: String = "Context",
        ..query: QueryOptions,
    }
    /// Reply of Search.PrefixSearch.
    pub struct SearchResponse {
        /// By context.
        matches: BTreeMap<String, Vec<String>> = "Matches",
        /// By context: whether there are more.
        truncations: BTreeMap<String, bool> = "Truncations",
        ..meta: QueryMeta,
    }
}
