//! A log entry: the leader's time, the client session that wrote it, and the command.
//!
//! Encoded as our own msgpack, versioned; every field that a later version adds is optional to a reader.

use std::collections::BTreeMap;

use crate::wire::body::node::{DrainStrategy, NodeEvent};
use crate::wire::msgpack::{Raw, Result};

/// Version of the encoding, the first value of each entry.
pub const ENTRY_VERSION: u64 = 1;

/// One entry of the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// When the leader proposed it: nanoseconds since the Unix epoch, never before the entry in front of it.
    /// The only time that replicated state knows.
    pub time_unix_nanos: i64,
    /// Who wrote it, when the writer has a session (exactly once; Raft dissertation 6.3).
    pub session: Option<SessionStamp>,
    /// What it does.
    pub command: Command,
}

/// The place of a write in a client's session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionStamp {
    /// The session's id.
    pub session: u64,
    /// The number of this write in it.
    pub sequence: u64,
    /// Every write below this number was answered and will not be asked for again.
    pub acknowledged_below: u64,
}

/// What an entry does to the state.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Nothing: the barrier that a new leader writes.
    Noop,
    /// Adds or replaces a node (Node.Register).
    NodeRegister {
        /// The node as the agent sent it: a map with every key it came with, SecretID among them.
        node: Raw,
    },
    /// Changes a node's status (Node.UpdateStatus).
    NodeUpdateStatus {
        /// Which node.
        node_id: String,
        /// `initializing`, `ready` or `down`.
        status: String,
        /// An event to append, beside those the change itself makes.
        event: Option<NodeEvent>,
        /// Seconds since the Unix epoch, as the caller said; 0 for the entry's own time.
        updated_at: i64,
        /// The key that signed the identity given out with this heartbeat; empty keeps the old one.
        identity_signing_key_id: String,
        /// Set by the leader's own expiry: applied only if the node was not written since this ModifyIndex.
        expected_modify_index: Option<u64>,
    },
    /// Removes nodes, all or none (Node.Deregister, Node.BatchDeregister).
    NodeDeregister {
        /// Which.
        node_ids: Vec<String>,
    },
    /// Sets or removes a drain strategy (Node.UpdateDrain).
    NodeUpdateDrain {
        /// Which node.
        node_id: String,
        /// `None` ends the drain.
        strategy: Option<DrainStrategy>,
        /// Makes the node eligible when the strategy is removed.
        mark_eligible: bool,
        /// Kept in LastDrain.
        meta: BTreeMap<String, String>,
        /// The caller, as LastDrain.AccessorID names it.
        accessor_id: String,
    },
    /// The drainer found nothing left to move: removes the strategy, event `Node drain complete`.
    NodeDrainComplete {
        /// Which node.
        node_id: String,
    },
    /// Makes a node eligible or not (Node.UpdateEligibility).
    NodeUpdateEligibility {
        /// Which node.
        node_id: String,
        /// `eligible` or `ineligible`.
        eligibility: String,
    },
    /// Appends events to nodes (Node.EmitEvents).
    NodeEmitEvents {
        /// By node id.
        events: BTreeMap<String, Vec<NodeEvent>>,
    },
    /// Makes a signing key's public half known. The private half is on the servers' disks, never in the log.
    SigningKeyAdd {
        /// A UUID, the `kid` of tokens.
        key_id: String,
        /// Raw Ed25519 public key, 32 bytes.
        public_key: Vec<u8>,
        /// Nanoseconds since the Unix epoch.
        create_time: i64,
    },
}

impl Entry {
    /// The entry's bytes.
    pub fn encode(&self) -> Vec<u8> {
        todo!("state helper")
    }

    /// Reads an entry.
    ///
    /// # Errors
    /// Bytes that are none, or one of a newer version.
    pub fn decode(bytes: &[u8]) -> Result<Entry> {
        let _ = bytes;
        todo!("state helper")
    }
}
