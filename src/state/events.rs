//! What happened, as event streams tell it. Made while an entry is applied; kept by the server in a bounded buffer.

use std::sync::Arc;

use crate::state::node::Node;

/// The topic of everything that happens to nodes.
pub const TOPIC_NODE: &str = "Node";
/// A node was registered, again or for the first time.
pub const NODE_REGISTRATION: &str = "NodeRegistration";
/// A node was removed.
pub const NODE_DEREGISTRATION: &str = "NodeDeregistration";
/// A node was made eligible or not.
pub const NODE_ELIGIBILITY: &str = "NodeEligibility";
/// A drain was set, changed, ended or completed.
pub const NODE_DRAIN: &str = "NodeDrain";
/// A node's status changed, or its agent told of something.
pub const NODE_STREAM_EVENT: &str = "NodeStreamEvent";

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

impl Event {
    /// Something that happened to a node, with the node as it is after it (before it, when it was removed).
    pub fn of_node(kind: &'static str, node: &Node) -> Event {
        // About what the payload of a small node takes.
        let mut payload = String::with_capacity(4096);
        payload.push_str("{\"Node\":");
        node.write_json(&mut payload);
        payload.push('}');
        Event {
            topic: TOPIC_NODE,
            kind,
            key: Arc::clone(&node.id),
            filter_keys: Vec::new(),
            namespace: "".into(),
            payload_json: payload.into(),
        }
    }
}
