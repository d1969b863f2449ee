//! What happened, as event streams tell it. Made while an entry is applied; kept by the server in a bounded buffer.

use std::sync::Arc;

use crate::state::acl::{Policy, Token};
use crate::state::node::Node;
use crate::state::var::Var;

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

/// The topic of everything that happens to variables and their locks.
pub const TOPIC_VARIABLE: &str = "Variable";
/// A variable was written, removed, locked or unlocked.
pub const VARIABLE_UPDATED: &str = "VariableUpdated";
/// The topic of tokens.
pub const TOPIC_ACL_TOKEN: &str = "ACLToken";
/// A token was written.
pub const ACL_TOKEN_UPSERTED: &str = "ACLTokenUpserted";
/// A token was removed.
pub const ACL_TOKEN_DELETED: &str = "ACLTokenDeleted";
/// The topic of policies.
pub const TOPIC_ACL_POLICY: &str = "ACLPolicy";
/// A policy was written.
pub const ACL_POLICY_UPSERTED: &str = "ACLPolicyUpserted";
/// A policy was removed.
pub const ACL_POLICY_DELETED: &str = "ACLPolicyDeleted";

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
    /// A variable as it was then (before it, when it was removed), and whether it was removed. Never its items.
    Variable(Arc<Var>, bool),
    /// A token, shown without its secret.
    Token(Arc<Token>),
    /// A policy.
    Policy(Arc<Policy>),
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
            Payload::Variable(var, deleted) => {
                json.push_str("{\"Metadata\":");
                var.write_json(&mut json);
                json.push_str(if *deleted { ",\"Deleted\":true" } else { ",\"Deleted\":false" });
            }
            Payload::Token(token) => {
                json.push_str("{\"ACLToken\":");
                token.write_json(&mut json);
            }
            Payload::Policy(policy) => {
                json.push_str("{\"ACLPolicy\":");
                policy.write_json(&mut json);
            }
        }
        json.push('}');
        json
    }

    /// Bytes that it keeps from being freed, about.
    pub fn held_bytes(&self) -> usize {
        match self {
            Payload::Node(node) => 1024 + node.rest.len(),
            // The variable's items are freed with the last that shares them.
            Payload::Variable(var, _) => 512 + var.sealed.as_ref().map_or(0, |sealed| sealed.bytes.0.len()),
            Payload::Token(_) => 1024,
            Payload::Policy(policy) => 1024 + 2 * policy.body.rules.len(),
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
    /// Something that happened to a token, with the token as it is after it (before it, when it was removed).
    pub fn of_token(kind: &'static str, token: &Arc<Token>) -> Event {
        Event {
            topic: TOPIC_ACL_TOKEN,
            kind,
            key: token.body.accessor_id.as_str().into(),
            filter_keys: Vec::new(),
            namespace: "".into(),
            payload: Payload::Token(Arc::clone(token)),
        }
    }

    /// Something that happened to a policy, with the policy as it is after it (before it, when it was removed).
    pub fn of_policy(kind: &'static str, policy: &Arc<Policy>) -> Event {
        Event {
            topic: TOPIC_ACL_POLICY,
            kind,
            key: policy.body.name.as_str().into(),
            filter_keys: Vec::new(),
            namespace: "".into(),
            payload: Payload::Policy(Arc::clone(policy)),
        }
    }
}
