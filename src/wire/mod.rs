//! Bytes to values and back: every format that crosses a socket or a disk. Knows no settings and no machines.

pub mod archive;
pub mod body;
pub mod class;
pub mod entry;
pub mod first_byte;
pub mod gzip;
pub mod http;
pub mod json;
pub mod msgpack;
pub mod proxy;
pub mod raft;
pub mod rpc;
pub mod streaming;
pub mod yamux;
