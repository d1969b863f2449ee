//! A server of the cluster, as the log holds it.

use crate::wire_structs;

wire_structs! {
    /// Who a member of the cluster is and where it is reached.
    pub struct ServerRecord {
        /// A UUID.
        id: String = "i",
        /// As raft names it.
        replica: u64 = "r",
        /// Name without the region.
        name: String = "n",
        /// Its datacenter.
        datacenter: String = "d",
        /// `host:port` that its RPC port is reached at.
        rpc_addr: String = "a",
        /// The same for HTTP.
        http_addr: String = "h",
        /// Its build.
        build: String = "b",
        /// The entry that made it known.
        create_index: u64 = "c",
        /// The entry that changed it last.
        modify_index: u64 = "m",
    }
}
