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
#[derive(Clone, Debug, PartialEq)]
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
    /// The thing itself.
    pub payload: Payload,
}

/// What an event tells of. Its JSON is made when somebody reads it: most events are never read, and the text costs more
/// than applying the entry.
#[derive(Clone, Debug, PartialEq)]
pub enum Payload {
    /// A node as it was then.
    Node(Arc<Node>),
}

impl Payload {
    /// As JSON, without secrets: `{"Node":{...}}`.
    pub fn json(&self) -> String {
        // About what the payload of a small node takes.
        let mut json = String::with_capacity(4096);
        match self {
            Payload::Node(node) => {
                json.push_str("{\"Node\":");
                node.write_json(&mut json);
            }
        }
        json.push('}');
        json
    }

    /// Bytes that it keeps from being freed, about.
    pub fn held_bytes(&self) -> usize {
        match self {
            Payload::Node(node) => 1024 + node.rest.len(),
        }
    }
}

impl Event {
    /// Something that happened to a node, with the node as it is after it (before it, when it was removed).
    pub fn of_node(kind: &'static str, node: &Arc<Node>) -> Event {
        Event {
            topic: TOPIC_NODE,
            kind,
            key: Arc::clone(&node.id),
            filter_keys: Vec::new(),
            namespace: "".into(),
            payload: Payload::Node(Arc::clone(node)),
        }
    }
}
