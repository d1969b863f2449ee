//! Arguments of Agent.*.
//!
//! Source: endpoint notes, section 7.

use crate::wire::body::query::QueryOptions;
use crate::wire_structs;

wire_structs! {
    /// Arguments of Agent.Monitor.
    pub struct MonitorRequest {
        /// `trace` to `error`, in any case; empty means `info`.
        log_level: String = "LogLevel",
        /// Lines as JSON objects.
        log_json: bool = "LogJSON",
        /// Lines with file and line.
        log_include_location: bool = "LogIncludeLocation",
        /// A node's log instead of a server's.
        node_id: String = "NodeID",
        /// Which server's log: a name, an id or `leader`; empty for the one that was asked.
        server_id: String = "ServerID",
        /// Lines as they are, not in frames.
        plain_text: bool = "PlainText",
        ..query: QueryOptions,
    }
}
