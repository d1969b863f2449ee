//! What happened, as event streams tell it. Made while an entry is applied; kept by the server in a bounded buffer.

use std::sync::Arc;

/// One event of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// `Node` and its like.
    pub topic: &'static str,
    /// `NodeRegistration` and its like.
    pub kind: &'static str,
    /// The id of the thing.
    pub key: Arc<str>,
    /// Other keys that a filter may name.
    pub filter_keys: Vec<Arc<str>>,
    /// Empty for things outside namespaces.
    pub namespace: Arc<str>,
    /// The payload as JSON, without secrets: `{"Node":{...}}`.
    pub payload_json: Arc<str>,
}
