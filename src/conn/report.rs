//! What a connection has to tell the log: the peers' own texts and levels, so that operators' filters still work.
//!
//! Source: requirements R1.14 to R1.50. EOF and "closed" are never reported (R1.102).

use log::Level;

/// Why something is told. One rate limit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// R1.15
    FirstByte,
    /// R1.18
    NonTls,
    /// R1.20
    TlsNotConfigured,
    /// R1.21
    InnerTls,
    /// R1.23
    Handshake,
    /// R1.26
    RaftName,
    /// R1.29
    UnknownByte,
    /// R1.36, v1
    MultiplexAccept,
    /// R1.36, v2
    MultiplexV2Accept,
    /// R1.40
    V2FirstByte,
    /// R1.39
    V2UnknownByte,
    /// R1.45; counts as `rpc.request_error`
    Rpc,
    /// R1.49; counts as `streaming_rpc.request_error`
    StreamingRpc,
    /// R1.64
    Region,
    /// A malformed HTTP request, or one over a cap.
    Http,
    /// A link between servers that broke, or whose peer speaks another protocol.
    RaftLink,
    /// A session that we dialled and that broke.
    Dialled,
    /// R3.5
    Stray,
    /// A balancer's PROXY header is missing, wrong or late (R8.12); counts as `proxy.reject`.
    Proxy,
    /// R1.8
    RpcCrowded,
    /// The same on the HTTP port.
    HttpCrowded,
    /// R1.28
    StreamingCrowded,
}

impl Cause {
    /// How severe it is.
    pub const fn level(self) -> Level {
        match self {
            Cause::NonTls
            | Cause::TlsNotConfigured
            | Cause::Handshake
            | Cause::RaftName
            | Cause::Region
            | Cause::RaftLink
            | Cause::Dialled
            | Cause::Stray
            | Cause::Proxy
            | Cause::HttpCrowded => Level::Warn,
            Cause::Http => Level::Debug,
            _ => Level::Error,
        }
    }

    /// The message.
    pub const fn text(self) -> &'static str {
        match self {
            Cause::FirstByte => "failed to read first RPC byte",
            Cause::NonTls => "non-TLS connection attempted with RequireTLS set",
            Cause::TlsNotConfigured => "TLS connection attempted, server not configured for TLS",
            Cause::InnerTls => "TLS connection attempting to establish inner TLS connection",
            Cause::Handshake => "failed TLS handshake",
            Cause::RaftName => "raft connection attempted with a certificate that is no server's",
            Cause::UnknownByte => "unrecognized RPC byte",
            Cause::MultiplexAccept => "multiplex conn accept failed",
            Cause::MultiplexV2Accept => "multiplex_v2 conn accept failed",
            Cause::V2FirstByte => "multiplex_v2 failed to read first byte",
            Cause::V2UnknownByte => "multiplex_v2 unrecognized first RPC byte",
            Cause::Rpc => "RPC error",
            Cause::StreamingRpc => "streaming RPC error",
            Cause::Region => "no path found to region",
            Cause::Http => "refused HTTP request",
            Cause::RaftLink => "raft link failed",
            Cause::Dialled => "connection to another server failed",
            Cause::Stray => "discarding bytes that nobody asked for",
            Cause::Proxy => "no PROXY header from a source that has to send one",
            Cause::RpcCrowded => "rejecting client for exceeding maximum RPC connections",
            Cause::HttpCrowded => "rejecting client for exceeding maximum HTTP connections",
            Cause::StreamingCrowded => "rejecting client for exceeding maximum streaming RPC connections",
        }
    }
}

/// One thing to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Why.
    pub cause: Cause,
    /// Fields after the message, `key=value`, but for the peer's address; empty when there are none.
    pub fields: String,
}
