//! The byte that says what a connection, or a stream of a v2 session, speaks.

/// First byte of a connection (`RpcType` of Nomad's `helper/pool`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FirstByte {
    /// 0x01: net/rpc straight on the connection, or on a stream of a v2 session.
    Rpc = 0x01,
    /// 0x02: raft.
    Raft = 0x02,
    /// 0x03: yamux; each stream is net/rpc from its first byte.
    MultiplexV1 = 0x03,
    /// 0x04: TLS, then again a first byte inside.
    Tls = 0x04,
    /// 0x05: one streaming call.
    Streaming = 0x05,
    /// 0x06: yamux; each stream begins with 0x01 or 0x05.
    MultiplexV2 = 0x06,
}

impl FirstByte {
    /// The meaning of a byte, if it has one.
    pub const fn from_byte(byte: u8) -> Option<FirstByte> {
        Some(match byte {
            0x01 => FirstByte::Rpc,
            0x02 => FirstByte::Raft,
            0x03 => FirstByte::MultiplexV1,
            0x04 => FirstByte::Tls,
            0x05 => FirstByte::Streaming,
            0x06 => FirstByte::MultiplexV2,
            _ => return None,
        })
    }

    /// The byte itself.
    pub const fn byte(self) -> u8 {
        self as u8
    }
}
