//! A registered node: the columns that the server owns, and everything else as the agent sent it.
//!
//! Source: endpoint notes, section 3.1.

use std::sync::Arc;

use crate::wire::body::node::{DrainStrategy, LastDrain, NodeEvent};
use crate::wire::json::to_json;
use crate::wire::msgpack::{Decoder, Encoder, Msg};

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
#[derive(Clone, Debug, Default, PartialEq)]
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

/// Where a field of a node comes from.
#[derive(Clone, Copy)]
enum Source {
    /// A column of [`Node`], which writes itself.
    Column(fn(&Node, &mut Encoder)),
    /// `rest`, when it came.
    Rest,
}

use Source::{Column, Rest};

/// Every field of a node that Nomad 2.0.5 knows, in its order of declaration, which is the order on the wire.
const DECLARED: [(&str, Source); 34] = [
    ("ID", Column(|n, e| e.str(&n.id))),
    ("SecretID", Column(|_, e| e.str(""))),
    ("Datacenter", Column(|n, e| e.str(&n.datacenter))),
    ("Name", Column(|n, e| e.str(&n.name))),
    ("CgroupParent", Rest),
    ("HTTPAddr", Column(|n, e| e.str(&n.http_addr))),
    ("TLSEnabled", Rest),
    ("Attributes", Rest),
    ("NodeResources", Rest),
    ("ReservedResources", Rest),
    ("Links", Rest),
    ("Meta", Rest),
    ("NodeClass", Column(|n, e| e.str(&n.node_class))),
    ("NodePool", Column(|n, e| e.str(&n.node_pool))),
    ("ComputedClass", Column(|n, e| e.str(&n.computed_class))),
    ("DrainStrategy", Column(|n, e| n.drain.encode(e))),
    ("SchedulingEligibility", Column(|n, e| e.str(n.eligibility()))),
    ("Status", Column(|n, e| e.str(n.status.as_str()))),
    ("StatusDescription", Column(|n, e| e.str(&n.status_description))),
    ("IdentitySigningKeyID", Column(|n, e| e.str(&n.identity_signing_key_id))),
    ("StatusUpdatedAt", Column(|n, e| e.i64(n.status_updated_at))),
    ("Events", Column(|n, e| n.events.encode(e))),
    ("Drivers", Rest),
    ("CSIControllerPlugins", Rest),
    ("CSINodePlugins", Rest),
    ("HostVolumes", Rest),
    ("GCVolumesOnNodeGC", Rest),
    ("HostNetworks", Rest),
    ("LastDrain", Column(|n, e| n.last_drain.encode(e))),
    ("NodeMaxAllocs", Rest),
    ("LastMissedHeartbeatIndex", Column(|n, e| e.u64(n.last_missed_heartbeat_index))),
    ("LastAllocUpdateIndex", Column(|n, e| e.u64(n.last_alloc_update_index))),
    ("CreateIndex", Column(|n, e| e.u64(n.create_index))),
    ("ModifyIndex", Column(|n, e| e.u64(n.modify_index))),
];

/// Fields that are columns.
const COLUMNS: usize = {
    let (mut count, mut nth) = (0, 0);
    while nth < DECLARED.len() {
        count += matches!(DECLARED[nth].1, Column(_)) as usize;
        nth += 1;
    }
    count
};

/// A field of agents of 1.1 and of every JSON form: whether the node is drained. Follows from the strategy.
const DRAIN: &str = "Drain";

/// Where a key of `rest` stands among the others: declared ones first, in order, then the unknown ones by name.
pub(super) fn rest_place(key: &str) -> (usize, &str) {
    (DECLARED.iter().position(|(name, _)| *name == key).unwrap_or(DECLARED.len()), key)
}

/// Whether a key is one that the server owns, and so never in `rest`.
pub(super) fn is_column(key: &str) -> bool {
    DECLARED.iter().any(|(name, source)| *name == key && matches!(source, Column(_)))
}

impl Node {
    /// The raw value of a key of `rest`.
    pub fn field(&self, key: &str) -> Option<&[u8]> {
        self.rest_pairs().find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    /// Keys and raw values of `rest`, declared ones first.
    fn rest_pairs(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let mut d = Decoder::new(&self.rest);
        // What is kept was checked when it was registered or restored, so this ends where the bytes end.
        std::iter::from_fn(move || Some((d.str().ok()?, d.raw().ok()?)))
    }

    /// Writes the whole node as a map, every key as it came with the server's own columns in place and SecretID empty.
    pub fn encode(&self, e: &mut Encoder) {
        self.encode_map(e, false);
    }

    /// Appends the whole node as a JSON object, as event streams carry it: fields in the order of their names, times
    /// in RFC 3339, SecretID empty, and whether it is drained.
    pub fn write_json(&self, out: &mut String) {
        let mut e = Encoder::new();
        self.encode_map(&mut e, self.field(DRAIN).is_none());
        let start = out.len();
        if to_json(&e.out, out).is_err() {
            // Registration lets in nothing that JSON cannot say; a snapshot of another build might hold it.
            out.truncate(start);
            out.push_str("null");
        }
    }

    fn encode_map(&self, e: &mut Encoder, add_drain: bool) {
        e.map(COLUMNS + self.rest_len + usize::from(add_drain));
        let mut pairs = self.rest_pairs().peekable();
        for (name, source) in DECLARED {
            match source {
                Column(write) => {
                    e.str(name);
                    write(self, e);
                }
                Rest => {
                    if let Some((_, value)) = pairs.next_if(|(key, _)| *key == name) {
                        e.str(name);
                        e.raw(value);
                    }
                }
            }
        }
        for (key, value) in pairs {
            e.str(key);
            if key == DRAIN { e.bool(self.drain.is_some()) } else { e.raw(value) }
        }
        if add_drain {
            e.str(DRAIN);
            e.bool(self.drain.is_some());
        }
    }

    /// `eligible` or `ineligible`.
    pub fn eligibility(&self) -> &'static str {
        if self.eligible { "eligible" } else { "ineligible" }
    }
}
