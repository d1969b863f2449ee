//! Streaming calls: the header that names a method, the ack, and the wrappers of what flows after it.
//!
//! Source: transport notes, section 6.

use crate::wire::msgpack::Bytes;
use crate::wire_structs;

wire_structs! {
    /// First message of a streaming call.
    pub struct StreamingHeader {
        /// The method's whole name.
        method: String = "Method",
    }
    /// The answer to it; empty means go on.
    pub struct StreamingAck {
        /// Why not.
        error: String = "Error",
    }
    /// An error within a stream (`RpcError`).
    pub struct StreamError {
        /// The text.
        message: String = "Message",
        /// An HTTP status, where there is one.
        code: Option<i64> = "Code",
    }
    /// The event of an [`EventStreamWrapper`].
    pub struct EventData {
        /// One JSON document, `{}` for a heartbeat.
        data: Bytes = "Data",
    }
    /// A message of Event.Stream.
    pub struct EventStreamWrapper {
        /// Set in the last message of a stream that failed.
        error: Option<StreamError> = "Error",
        /// Set otherwise.
        event: Option<EventData> = "Event",
    }
    /// A message of Agent.Monitor and its like.
    pub struct StreamErrWrapper {
        /// Set in the last message of a stream that failed.
        error: Option<StreamError> = "Error",
        /// Bytes; their meaning is the method's. `None` beside an error, as Go peers write it.
        payload: Option<Bytes> = "Payload",
    }
}
