//! Yamux, both sides of it: frames in, streams and frames out. A protocol of its own; knows nothing of what flows.
//!
//! Source: yamux `spec.md`; what Go peers do, by the transport notes, section 3.

pub mod keepalive;
pub mod session;
pub mod stream;
pub mod window;
