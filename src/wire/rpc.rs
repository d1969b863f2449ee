//! Heads of net/rpc requests and replies (`net/rpc`, with the codec of net-rpc-msgpackrpc).
//!
//! A message is a head and a body back to back, without a length or a separator. Heads are written in name order.

use crate::wire::msgpack::{Encoder, Result};
use crate::wire_structs;

wire_structs! {
    /// The head of a request. Source: transport notes, section 4.1.
    pub struct RequestHead {
        /// Chosen by the client; echoed.
        seq: u64 = "Seq",
        /// `Service.Method`, split at the last dot.
        service_method: String = "ServiceMethod",
    }
    /// The head of a reply.
    pub struct ReplyHead {
        /// Empty, or why the call failed; then the body is an empty map.
        error: String = "Error",
        /// The request's.
        seq: u64 = "Seq",
        /// The request's.
        service_method: String = "ServiceMethod",
    }
}

/// The body of a reply that carries an error: an empty map.
pub const EMPTY_BODY: &[u8] = &[0x80];

/// Reads a request's head from exactly its bytes. An array in place of the map has its elements in the order
/// ServiceMethod, Seq: the declaration order of Go's `rpc.Request`, which differs from the name order written.
///
/// # Errors
/// Where the bytes are no request head.
pub fn decode_request_head(bytes: &[u8]) -> Result<RequestHead> {
    let _ = bytes;
    todo!("wire helper")
}

/// Reads a reply's head from exactly its bytes. An array has the order ServiceMethod, Seq, Error.
///
/// # Errors
/// Where the bytes are no reply head.
pub fn decode_reply_head(bytes: &[u8]) -> Result<ReplyHead> {
    let _ = bytes;
    todo!("wire helper")
}

/// Appends a request's head.
pub fn encode_request_head(e: &mut Encoder, seq: u64, service_method: &str) {
    let _ = (e, seq, service_method);
    todo!("wire helper")
}

/// Appends a reply's head.
pub fn encode_reply_head(e: &mut Encoder, error: &str, seq: u64, service_method: &str) {
    let _ = (e, error, seq, service_method);
    todo!("wire helper")
}
