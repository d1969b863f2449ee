//! Bodies of Status.*.
//!
//! Source: endpoint notes, section 2.

use std::collections::BTreeMap;

use crate::wire::body::query::QueryMeta;
use crate::wire::msgpack::Bytes;
use crate::wire_structs;

wire_structs! {
    /// A server, as Status.Members lists it.
    pub struct Member {
        /// `<name>.<region>`.
        name: String = "Name",
        /// Its IP, 4 or 16 bytes; empty when its address is a host name.
        addr: Bytes = "Addr",
        /// Its port.
        port: u16 = "Port",
        /// `role`, `region`, `dc`, `build`, `port`, `id` and more; the `nomad` CLI reads them.
        tags: BTreeMap<String, String> = "Tags",
        /// `alive` and its like.
        status: String = "Status",
        /// The least protocol version spoken between servers.
        protocol_min: u8 = "ProtocolMin",
        /// The greatest one.
        protocol_max: u8 = "ProtocolMax",
        /// The one in use.
        protocol_cur: u8 = "ProtocolCur",
        /// The same for what rides on it.
        delegate_min: u8 = "DelegateMin",
        /// The same for what rides on it.
        delegate_max: u8 = "DelegateMax",
        /// The same for what rides on it.
        delegate_cur: u8 = "DelegateCur",
    }
    /// Reply of Status.Members.
    pub struct ServerMembersResponse {
        /// The answering server's name, without the region.
        server_name: String = "ServerName",
        /// Its region.
        server_region: String = "ServerRegion",
        /// Its datacenter.
        server_dc: String = "ServerDC",
        /// All servers of the region.
        members: Vec<Member> = "Members",
    }
    /// Reply of Status.RaftStats.
    pub struct RaftStatsResponse {
        /// A duration as text; `0` from the leader, `never` when none was ever heard.
        last_contact: String = "LastContact",
        /// The last term.
        last_term: u64 = "LastTerm",
        /// The last index in the log.
        last_index: u64 = "LastIndex",
    }
    /// Reply of Status.HasNodeConn.
    pub struct NodeConnQueryResponse {
        /// Whether a connection of this server leads to the node.
        connected: bool = "Connected",
        /// Go's binary time: when the newest one was last bound.
        established: Bytes = "Established",
        ..meta: QueryMeta,
    }
}
