//! What the client asks and reads: the fields of a reply that a person or a program here looks at, and no others.
//!
//! Source: endpoint notes, sections 2 and 3.

use std::collections::BTreeMap;

use crate::wire::body::query::{QueryMeta, QueryOptions, WriteRequest};
use crate::wire::msgpack::{Bytes, Raw};
use crate::wire_structs;

wire_structs! {
    /// A server as its peers see it.
    pub struct Member {
        /// `<name>.<region>`.
        name: String = "Name",
        /// 4 or 16 bytes.
        addr: Bytes = "Addr",
        /// The gossip port.
        port: u16 = "Port",
        /// Among them `region`, `dc`, `build`, and `port`, the RPC port.
        tags: BTreeMap<String, String> = "Tags",
        /// `alive`, `leaving`, `left`, `failed` or `none`.
        status: String = "Status",
    }
    /// Reply of Status.Members.
    pub struct Members {
        /// Who answered.
        server_name: String = "ServerName",
        /// Its region.
        server_region: String = "ServerRegion",
        /// Its datacenter.
        server_dc: String = "ServerDC",
        /// All that it knows.
        members: Vec<Member> = "Members",
    }
    /// Reply of Status.RaftStats.
    pub struct RaftStats {
        /// A duration in Go's words, `never`, or `0` from the leader.
        last_contact: String = "LastContact",
        /// Term of the last entry.
        last_term: u64 = "LastTerm",
        /// Index of the last entry.
        last_index: u64 = "LastIndex",
    }
    /// A node in a list.
    pub struct NodeStub {
        /// The host it is reached at.
        address: String = "Address",
        /// A UUID.
        id: String = "ID",
        /// Its datacenter.
        datacenter: String = "Datacenter",
        /// Its name.
        name: String = "Name",
        /// Its pool.
        node_pool: String = "NodePool",
        /// Its class.
        node_class: String = "NodeClass",
        /// Version of its agent.
        version: String = "Version",
        /// Whether it is being drained.
        drain: bool = "Drain",
        /// `eligible` or `ineligible`.
        eligibility: String = "SchedulingEligibility",
        /// `initializing`, `ready`, `down` or `disconnected`.
        status: String = "Status",
        /// More about the status.
        status_description: String = "StatusDescription",
        /// Log index of its registration.
        create_index: u64 = "CreateIndex",
        /// Log index of its last change.
        modify_index: u64 = "ModifyIndex",
    }
    /// Reply of Node.List.
    pub struct NodeList {
        /// By id.
        nodes: Vec<NodeStub> = "Nodes",
        ..meta: QueryMeta,
    }
    /// Request of Node.GetNode.
    pub struct NodeSpecific {
        /// A whole UUID.
        node_id: String = "NodeID",
        /// The node's own secret, when it asks for itself.
        secret_id: String = "SecretID",
        ..query: QueryOptions,
    }
    /// Reply of Node.GetNode.
    pub struct SingleNode {
        /// As the agent registered it, or nil.
        node: Raw = "Node",
        ..meta: QueryMeta,
    }
    /// Something that happened to a node.
    pub struct Happening {
        /// What.
        message: String = "Message",
        /// Which part of the system.
        subsystem: String = "Subsystem",
        /// Go's binary time.
        timestamp: Bytes = "Timestamp",
    }
    /// A node, as far as it is shown.
    pub struct Node {
        /// A UUID.
        id: String = "ID",
        /// Its name.
        name: String = "Name",
        /// Its datacenter.
        datacenter: String = "Datacenter",
        /// Its pool.
        node_pool: String = "NodePool",
        /// Its class.
        node_class: String = "NodeClass",
        /// `ip:port` of its agent.
        http_addr: String = "HTTPAddr",
        /// What its agent found out about it.
        attributes: BTreeMap<String, String> = "Attributes",
        /// What its operator says about it.
        meta: BTreeMap<String, String> = "Meta",
        /// `initializing`, `ready`, `down` or `disconnected`.
        status: String = "Status",
        /// More about the status.
        status_description: String = "StatusDescription",
        /// Seconds since the Unix epoch.
        status_updated_at: i64 = "StatusUpdatedAt",
        /// `eligible` or `ineligible`.
        eligibility: String = "SchedulingEligibility",
        /// Set while it is drained.
        drain: Raw = "DrainStrategy",
        /// The last ten.
        events: Vec<Happening> = "Events",
        /// Log index of its registration.
        create_index: u64 = "CreateIndex",
        /// Log index of its last change.
        modify_index: u64 = "ModifyIndex",
    }
    /// Request of Node.Register.
    pub struct NodeRegister {
        /// The whole node, with its secret.
        node: Raw = "Node",
        /// An event to append.
        node_event: Raw = "NodeEvent",
        /// Servers set it among themselves.
        create_node_pool: bool = "CreateNodePool",
        ..write: WriteRequest,
    }
    /// Request of Node.UpdateStatus: the heartbeat.
    pub struct NodeUpdateStatus {
        /// Which node.
        node_id: String = "NodeID",
        /// What it says it is.
        status: String = "Status",
        /// An event to append.
        node_event: Raw = "NodeEvent",
        /// Seconds since the Unix epoch.
        updated_at: i64 = "UpdatedAt",
        /// Servers set it among themselves.
        identity_signing_key_id: String = "IdentitySigningKeyID",
        /// Asks for a new identity.
        force_identity_renewal: bool = "ForceIdentityRenewal",
        ..write: WriteRequest,
    }
    /// Request of Node.BatchDeregister.
    pub struct NodeBatchDeregister {
        /// Which.
        node_ids: Vec<String> = "NodeIDs",
        ..write: WriteRequest,
    }
    /// Reply of the writes above, as far as it is read here.
    pub struct NodeUpdated {
        /// Nanoseconds until the next heartbeat is due.
        heartbeat_ttl: i64 = "HeartbeatTTL",
        /// Log index of the node's change, 0 when nothing changed.
        node_modify_index: u64 = "NodeModifyIndex",
        ..meta: QueryMeta,
    }
}
