//! Yamux, both sides of it: frames in, streams and frames out. A protocol of its own; knows nothing of what flows.
//!
//! Source: yamux `spec.md`; what Go peers do, by the transport notes, section 3.

pub mod deframe;
pub mod event;
pub mod keepalive;
pub mod limits;
pub mod peer_ids;
pub mod session;
pub mod stream;
pub mod window;

#[cfg(test)]
mod tests;
