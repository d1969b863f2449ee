//! A registered node: the columns that the server owns, and everything else as the agent sent it.
//!
//! Source: endpoint notes, section 3.1.

use std::sync::Arc;

use crate::wire::body::node::{DrainStrategy, LastDrain, NodeEvent};
use crate::wire::msgpack::Encoder;

/// Events kept of a node; the oldest go.
pub const MAX_EVENTS: usize = 10;

/// Whether a node's agent is heard from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeStatus {
    /// Registered, without a heartbeat since.
    #[default]
    Initializing,
    /// Heartbeats come.
    Ready,
    /// None came in time.
    Down,
}

impl NodeStatus {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            NodeStatus::Initializing => "initializing",
            NodeStatus::Ready => "ready",
            NodeStatus::Down => "down",
        }
    }

    /// The status for a word.
    pub fn from_word(word: &str) -> Option<NodeStatus> {
        [NodeStatus::Initializing, NodeStatus::Ready, NodeStatus::Down].into_iter().find(|s| s.as_str() == word)
    }
}

/// A registered node.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Who it is.
    pub id: Arc<str>,
    /// What proves it. Never leaves the server.
    pub secret_id: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Its datacenter.
    pub datacenter: Arc<str>,
    /// Its pool.
    pub node_pool: Arc<str>,
    /// Its class.
    pub node_class: Arc<str>,
    /// Hash of what schedulers compare.
    pub computed_class: Arc<str>,
    /// `ip:port` of its HTTP API.
    pub http_addr: Arc<str>,
    /// Its attribute `nomad.version`; empty when it has none.
    pub version: Arc<str>,
    /// Whether it is heard from.
    pub status: NodeStatus,
    /// Why.
    pub status_description: Arc<str>,
    /// Seconds since the Unix epoch.
    pub status_updated_at: i64,
    /// Whether work may be placed on it.
    pub eligible: bool,
    /// Set while it is drained.
    pub drain: Option<DrainStrategy>,
    /// The last drain, over or not.
    pub last_drain: Option<LastDrain>,
    /// The last [`MAX_EVENTS`], oldest first.
    pub events: Vec<NodeEvent>,
    /// Index of the last missed heartbeat; 0 once it is ready again.
    pub last_missed_heartbeat_index: u64,
    /// Index of the last update of its allocations.
    pub last_alloc_update_index: u64,
    /// The key that signed its identity.
    pub identity_signing_key_id: Arc<str>,
    /// When it was first registered.
    pub create_index: u64,
    /// When it last changed.
    pub modify_index: u64,
    /// Every other key that came, with its value: msgpack, key and value in turn, without a head.
    pub rest: Arc<[u8]>,
    /// Pairs in `rest`.
    pub rest_len: usize,
}

impl Node {
    /// The raw value of a key of `rest`.
    pub fn field(&self, key: &str) -> Option<&[u8]> {
        let _ = key;
        todo!("state helper")
    }

    /// Writes the whole node as a map, every key as it came with the server's own columns in place and SecretID empty.
    pub fn encode(&self, e: &mut Encoder) {
        let _ = e;
        todo!("state helper")
    }

    /// `eligible` or `ineligible`.
    pub fn eligibility(&self) -> &'static str {
        if self.eligible { "eligible" } else { "ineligible" }
    }
}
