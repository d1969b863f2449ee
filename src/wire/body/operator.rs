//! Bodies of `Holdfast.Connections`, a method of this project's own: who is connected to a server, and how.

use crate::wire_structs;

wire_structs! {
    /// One connection.
    pub struct ConnectionStub {
        /// The other end, `ip:port`.
        peer: String = "Peer",
        /// `rpc`, `multiplex_v1`, `multiplex_v2`, `streaming`, `raft`, `http`, or `unknown` before it has said.
        protocol: String = "Protocol",
        /// Whether it is inside TLS.
        tls: bool = "TLS",
        /// Names in the verified certificate of the other end.
        certificate_names: Vec<String> = "CertificateNames",
        /// The node that it leads to; empty when it leads to none.
        node_id: String = "NodeID",
        /// Open streams.
        streams: u64 = "Streams",
        /// Calls in hand, parked ones included.
        calls: u64 = "Calls",
    }
    /// Reply of Holdfast.Connections.
    pub struct ConnectionsResponse {
        /// In the order of their places.
        connections: Vec<ConnectionStub> = "Connections",
        /// How many there are; more than are listed when they are very many.
        total: u64 = "Total",
    }
}
