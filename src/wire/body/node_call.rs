//! What Node.* methods take and give, and the arguments of calls that go to a node.
//!
//! Source: endpoint notes, sections 3.1 to 3.4; transport notes, section 5.1.

use std::collections::BTreeMap;

use crate::wire::body::node::{DrainStrategy, LastDrain, NodeEvent};
use crate::wire::body::query::{QueryMeta, QueryOptions, WriteMeta, WriteRequest};
use crate::wire::msgpack::{Decoder, Encoder, Kind, Msg, Raw, Result};
use crate::wire_structs;

wire_structs! {
    /// What Node.Register must know of a node; the rest of it is kept as it came.
    pub struct NodeHead {
        /// Who it is.
        id: String = "ID",
        /// What proves it.
        secret_id: String = "SecretID",
        /// Its datacenter.
        datacenter: String = "Datacenter",
        /// Its name.
        name: String = "Name",
        /// `ip:port` of its HTTP API.
        http_addr: String = "HTTPAddr",
        /// `nomad.version` and many more.
        attributes: BTreeMap<String, String> = "Attributes",
        /// Its pool; empty means `default`.
        node_pool: String = "NodePool",
        /// What it takes itself for.
        status: String = "Status",
    }
    /// Arguments of Node.Register.
    pub struct NodeRegisterRequest {
        /// The node.
        node: NodeArgument = "Node",
        /// Not used by any peer seen.
        node_event: Option<NodeEvent> = "NodeEvent",
        /// Set between servers.
        create_node_pool: bool = "CreateNodePool",
        ..write: WriteRequest,
    }
    /// Arguments of Node.UpdateStatus.
    pub struct NodeUpdateStatusRequest {
        /// Which node.
        node_id: String = "NodeID",
        /// `initializing`, `ready` or `down`.
        status: String = "Status",
        /// Set between servers.
        identity_signing_key_id: String = "IdentitySigningKeyID",
        /// A new identity is wanted, whatever is left of the old one.
        force_identity_renewal: bool = "ForceIdentityRenewal",
        /// To be appended to the node's events.
        node_event: Option<NodeEvent> = "NodeEvent",
        /// Seconds since the Unix epoch; 0 for the time of the entry.
        updated_at: i64 = "UpdatedAt",
        ..write: WriteRequest,
    }
    /// Arguments of Node.Deregister.
    pub struct NodeDeregisterRequest {
        /// Which node.
        node_id: String = "NodeID",
        ..write: WriteRequest,
    }
    /// Arguments of Node.BatchDeregister.
    pub struct NodeBatchDeregisterRequest {
        /// Which nodes.
        node_ids: Vec<String> = "NodeIDs",
        ..write: WriteRequest,
    }
    /// Arguments of Node.GetNode, Node.GetClientAllocs, Node.GetAllocs and Status.HasNodeConn.
    pub struct NodeSpecificRequest {
        /// Which node.
        node_id: String = "NodeID",
        /// What proves the caller, in agents of the 1.1 line.
        secret_id: String = "SecretID",
        ..query: QueryOptions,
    }
    /// What an item of a node list is to hold beside the usual.
    pub struct NodeItemFields {
        /// NodeResources and ReservedResources.
        resources: bool = "Resources",
        /// The attribute `os.name`.
        os: bool = "OS",
    }
    /// The last field of [`NodeListRequest`], which stands behind its options.
    pub struct NodeListFields {
        /// `nil` for none.
        fields: Option<NodeItemFields> = "Fields",
    }
    /// Arguments of Node.List.
    pub struct NodeListRequest {
        ..query: QueryOptions,
        ..list: NodeListFields,
    }
    /// Arguments of Node.UpdateAlloc.
    pub struct AllocUpdateRequest {
        /// Allocations, of which only the node and the id are looked at.
        alloc: Vec<AllocHead> = "Alloc",
        /// Must be empty.
        evals: Vec<Raw> = "Evals",
        ..write: WriteRequest,
    }
    /// The fields of an allocation that are looked at.
    pub struct AllocHead {
        /// Its id.
        id: String = "ID",
        /// Its node.
        node_id: String = "NodeID",
    }
    /// Arguments of Node.EmitEvents.
    pub struct EmitNodeEventsRequest {
        /// By node id.
        node_events: BTreeMap<String, Vec<NodeEvent>> = "NodeEvents",
        ..write: WriteRequest,
    }
    /// Arguments of Node.UpdateDrain.
    pub struct NodeUpdateDrainRequest {
        /// Which node.
        node_id: String = "NodeID",
        /// `nil` ends the drain.
        drain_strategy: Option<DrainStrategy> = "DrainStrategy",
        /// Makes the node eligible when the drain ends.
        mark_eligible: bool = "MarkEligible",
        /// Must not be set.
        node_event: Option<NodeEvent> = "NodeEvent",
        /// Not used: the entry's time counts.
        updated_at: i64 = "UpdatedAt",
        /// Kept in LastDrain.
        meta: BTreeMap<String, String> = "Meta",
        /// Set between servers.
        updated_by: String = "UpdatedBy",
        ..write: WriteRequest,
    }
    /// Arguments of Node.UpdateEligibility.
    pub struct NodeUpdateEligibilityRequest {
        /// Which node.
        node_id: String = "NodeID",
        /// `eligible` or `ineligible`.
        eligibility: String = "Eligibility",
        /// Must not be set.
        node_event: Option<NodeEvent> = "NodeEvent",
        /// Not used: the entry's time counts.
        updated_at: i64 = "UpdatedAt",
        ..write: WriteRequest,
    }
    /// Arguments of Node.Evaluate.
    pub struct NodeEvaluateRequest {
        /// Which node.
        node_id: String = "NodeID",
        ..write: WriteRequest,
    }
    /// What is read of the arguments of a call that goes on to a node.
    pub struct NodeTarget {
        /// Which node.
        node_id: String = "NodeID",
        /// Who is asking.
        auth_token: String = "AuthToken",
    }
    /// What is read of the arguments of a call about an allocation.
    pub struct AllocTarget {
        /// Which allocation.
        alloc_id: String = "AllocID",
        /// Empty means `default`.
        namespace: String = "Namespace",
        /// Who is asking.
        auth_token: String = "AuthToken",
    }
    /// A server, as an agent is told of it.
    pub struct NodeServerInfo {
        /// `ip:port` to dial.
        rpc_advertise_addr: String = "RPCAdvertiseAddr",
        /// Always 0, as in 2.x.
        rpc_major_version: i32 = "RPCMajorVersion",
        /// Always 0, as in 2.x.
        rpc_minor_version: i32 = "RPCMinorVersion",
        /// Its datacenter.
        datacenter: String = "Datacenter",
    }
    /// Reply of Node.Register, UpdateStatus, Deregister, BatchDeregister and Evaluate.
    pub struct NodeUpdateResponse {
        /// Nanoseconds to the next heartbeat.
        heartbeat_ttl: i64 = "HeartbeatTTL",
        /// None is ever made.
        eval_ids: Option<Vec<String>> = "EvalIDs",
        /// 0.
        eval_create_index: u64 = "EvalCreateIndex",
        /// Index of the write, 0 when there was none.
        node_modify_index: u64 = "NodeModifyIndex",
        /// 0.
        features: u64 = "Features",
        /// `ip:port` of the leader.
        leader_rpc_addr: String = "LeaderRPCAddr",
        /// How many nodes there are.
        num_nodes: i32 = "NumNodes",
        /// What the agent puts in place of its list of servers.
        servers: Option<Vec<NodeServerInfo>> = "Servers",
        /// `eligible` or `ineligible`.
        scheduling_eligibility: String = "SchedulingEligibility",
        /// A JSON Web Token, when there is a new one.
        signed_identity: Option<String> = "SignedIdentity",
        ..meta: QueryMeta,
    }
    /// Reply of Node.UpdateDrain and UpdateEligibility.
    pub struct NodeChangeResponse {
        /// Index of the write.
        node_modify_index: u64 = "NodeModifyIndex",
        /// None is ever made.
        eval_ids: Option<Vec<String>> = "EvalIDs",
        /// 0.
        eval_create_index: u64 = "EvalCreateIndex",
        ..meta: WriteMeta,
    }
    /// Reply of Node.GetNode.
    pub struct SingleNodeResponse {
        /// The node as a map; nil when there is none.
        node: Raw = "Node",
        ..meta: QueryMeta,
    }
    /// A node in a list.
    pub struct NodeListItem {
        /// Host of its HTTP address.
        address: String = "Address",
        /// Who it is.
        id: String = "ID",
        /// `os.name`, when asked for.
        attributes: Option<BTreeMap<String, String>> = "Attributes",
        /// Its datacenter.
        datacenter: String = "Datacenter",
        /// Its name.
        name: String = "Name",
        /// Its pool.
        node_pool: String = "NodePool",
        /// Its class.
        node_class: String = "NodeClass",
        /// The version of its agent.
        version: String = "Version",
        /// Whether it is drained.
        drain: bool = "Drain",
        /// `eligible` or `ineligible`.
        scheduling_eligibility: String = "SchedulingEligibility",
        /// `initializing`, `ready` or `down`.
        status: String = "Status",
        /// Why.
        status_description: String = "StatusDescription",
        /// As it came.
        drivers: Raw = "Drivers",
        /// As it came.
        host_volumes: Raw = "HostVolumes",
        /// As it came, when asked for.
        node_resources: Raw = "NodeResources",
        /// As it came, when asked for.
        reserved_resources: Raw = "ReservedResources",
        /// The last drain.
        last_drain: Option<LastDrain> = "LastDrain",
        /// When it was first registered.
        create_index: u64 = "CreateIndex",
        /// When it last changed.
        modify_index: u64 = "ModifyIndex",
    }
    /// Reply of Node.List.
    pub struct NodeListResponse {
        /// In the order of their ids.
        nodes: Vec<NodeListItem> = "Nodes",
        ..meta: QueryMeta,
    }
    /// Reply of Node.GetClientAllocs.
    pub struct NodeClientAllocsResponse {
        /// Modify index by allocation id.
        allocs: BTreeMap<String, u64> = "Allocs",
        /// Tokens by allocation id.
        migrate_tokens: BTreeMap<String, String> = "MigrateTokens",
        ..meta: QueryMeta,
    }
    /// Reply of Node.GetAllocs.
    pub struct NodeAllocsResponse {
        /// None.
        allocs: Option<Vec<Raw>> = "Allocs",
        ..meta: QueryMeta,
    }
}

/// The node of Node.Register: what is checked, and the whole as it came.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeArgument {
    /// What is checked; `None` for nil.
    pub head: Option<NodeHead>,
    /// All of it, a map.
    pub raw: Raw,
}

impl Msg for NodeArgument {
    fn encode(&self, e: &mut Encoder) {
        self.raw.encode(e);
    }

    /// A node comes as a map: one without names could not be kept with keys that this build does not know.
    fn decode(d: &mut Decoder<'_>) -> Result<Self> {
        match d.kind()? {
            Kind::Nil => d.nil().map(|_| NodeArgument::default()),
            Kind::Map => {
                let mut again = d.clone();
                let raw = Raw::decode(d)?;
                Ok(NodeArgument { head: Some(NodeHead::decode(&mut again)?), raw })
            }
            _ => Err(d.error("a node is a map")),
        }
    }
}
