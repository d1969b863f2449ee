//! The one body that only the client has: a node as it is shown. All others are those of [`crate::wire::body`].
//!
//! Source: endpoint notes, section 3.1.

use std::collections::BTreeMap;

use crate::wire::body::node::NodeEvent;
use crate::wire::msgpack::Raw;
use crate::wire_structs;

wire_structs! {
    /// A node, as far as it is shown. A server has no such body: it keeps the map that the agent registered as it
    /// came, and sends that with its own columns put in.
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
        scheduling_eligibility: String = "SchedulingEligibility",
        /// Set while it is drained.
        drain: Raw = "DrainStrategy",
        /// The last ten.
        events: Vec<NodeEvent> = "Events",
        /// Log index of its registration.
        create_index: u64 = "CreateIndex",
        /// Log index of its last change.
        modify_index: u64 = "ModifyIndex",
    }
}
