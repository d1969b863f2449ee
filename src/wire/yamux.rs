//! The 12-byte frame header of yamux (yamux `spec.md`, "Framing").

/// Bytes of a header.
pub const HEADER_BYTES: usize = 12;

/// The four types of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameType {
    /// Payload of `length` bytes follows.
    Data = 0,
    /// `length` is how much more the peer may send.
    WindowUpdate = 1,
    /// `length` is an opaque value.
    Ping = 2,
    /// `length` is a [`GoAway`] code.
    GoAway = 3,
}

/// Opens a stream, or asks (in a ping).
pub const SYN: u16 = 1;
/// Accepts a stream, or answers (in a ping).
pub const ACK: u16 = 2;
/// Half-closes a stream.
pub const FIN: u16 = 4;
/// Ends a stream at once.
pub const RST: u16 = 8;

/// Why a session ends (yamux `spec.md`, "GoAway").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GoAway {
    /// Orderly.
    Normal = 0,
    /// The peer broke the protocol.
    ProtocolError = 1,
    /// Something broke here.
    InternalError = 2,
}

/// A frame header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the frame is.
    pub frame_type: FrameType,
    /// [`SYN`], [`ACK`], [`FIN`], [`RST`] in any combination; other bits are ignored.
    pub flags: u16,
    /// 0 for pings and GoAway.
    pub stream: u32,
    /// Meaning by type; bytes for data.
    pub length: u32,
}

/// A header that no version of the protocol knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderError {
    /// The first byte is not 0: `invalid protocol version`.
    Version(u8),
    /// The type is above 3: `invalid msg type`.
    Type(u8),
}

impl Header {
    /// The bytes of the header.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[1] = self.frame_type as u8;
        bytes[2..4].copy_from_slice(&self.flags.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.stream.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.length.to_be_bytes());
        bytes
    }

    /// Reads a header.
    ///
    /// # Errors
    /// An unknown version or type.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Header, HeaderError> {
        let [version, frame_type, f0, f1, s0, s1, s2, s3, l0, l1, l2, l3] = *bytes;
        if version != 0 {
            return Err(HeaderError::Version(version));
        }
        let frame_type = match frame_type {
            0 => FrameType::Data,
            1 => FrameType::WindowUpdate,
            2 => FrameType::Ping,
            3 => FrameType::GoAway,
            other => return Err(HeaderError::Type(other)),
        };
        Ok(Header {
            frame_type,
            flags: u16::from_be_bytes([f0, f1]),
            stream: u32::from_be_bytes([s0, s1, s2, s3]),
            length: u32::from_be_bytes([l0, l1, l2, l3]),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn unknown_versions_and_types_are_named() {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0] = 1;
        assert_eq!(Header::decode(&bytes), Err(HeaderError::Version(1)));
        bytes[0] = 0;
        bytes[1] = 4;
        assert_eq!(Header::decode(&bytes), Err(HeaderError::Type(4)));
    }

    #[test]
    fn fields_lie_where_the_specification_puts_them() {
        let header =
            Header { frame_type: FrameType::WindowUpdate, flags: SYN | ACK, stream: 0x0102_0304, length: 0x0506 };
        let bytes = [0, 1, 0, 3, 1, 2, 3, 4, 0, 0, 5, 6];
        assert_eq!(header.encode(), bytes);
        assert_eq!(Header::decode(&bytes), Ok(header));
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_come_back(bytes: [u8; HEADER_BYTES], kind in 0u8..6) {
            for bytes in [bytes, { let mut near = bytes; near[0] = 0; near[1] = kind; near }] {
                match Header::decode(&bytes) {
                    Ok(header) => prop_assert_eq!(header.encode(), bytes),
                    Err(HeaderError::Version(version)) => prop_assert!(version == bytes[0] && version != 0),
                    Err(HeaderError::Type(other)) => prop_assert!(other == bytes[1] && other > 3),
                }
            }
        }
    }
}
