//! Cuts bytes into frame headers and pieces of payload, wherever the bytes themselves are cut. It keeps at most an
//! incomplete header, never payload, and knows no streams.
//!
//! Source: yamux `spec.md`, "Framing": only data frames carry a payload.

use std::ops::Range;

use crate::wire::yamux::{FrameType, HEADER_BYTES, Header, HeaderError};

/// What the next bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// A whole header. Its payload, when it has one, comes next.
    Header(Header),
    /// Payload of the last data frame.
    Payload {
        /// The stream of the frame.
        stream: u32,
        /// Where it is.
        range: Range<usize>,
        /// Nothing of the frame is left.
        last: bool,
    },
}

/// Where in a frame the peer's bytes stand.
#[derive(Clone, Copy, Debug, Default)]
pub struct Deframer {
    /// The beginning of a header; `held` bytes of it count.
    header: [u8; HEADER_BYTES],
    held: u8,
    /// Payload that is still to come, in bytes, and its stream.
    payload_left: u32,
    stream: u32,
}

impl Deframer {
    /// The next piece of `bytes` from `at` on, which moves behind it. `None` when all is taken.
    ///
    /// # Errors
    /// A header that cannot be read; what follows has no meaning.
    pub fn next_piece(&mut self, bytes: &[u8], at: &mut usize) -> Result<Option<Piece>, HeaderError> {
        let rest = bytes.get(*at..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(None);
        }
        if self.payload_left > 0 {
            return Ok(Some(self.payload(rest.len(), at)));
        }
        let whole = if let (0, Some(header)) = (self.held, rest.first_chunk()) {
            *at += HEADER_BYTES;
            *header
        } else {
            let held = usize::from(self.held);
            let wanted = HEADER_BYTES.saturating_sub(held).min(rest.len());
            for (place, byte) in self.header.iter_mut().skip(held).zip(rest) {
                *place = *byte;
            }
            *at += wanted;
            if held + wanted < HEADER_BYTES {
                self.held = u8::try_from(held + wanted).expect("less than 12");
                return Ok(None);
            }
            self.held = 0;
            self.header
        };
        let header = Header::decode(&whole)?;
        if header.frame_type == FrameType::Data {
            self.stream = header.stream;
            self.payload_left = header.length;
        }
        Ok(Some(Piece::Header(header)))
    }

    /// Whether part of a frame has come, and the rest has not.
    pub fn is_within_frame(&self) -> bool {
        self.held > 0 || self.payload_left > 0
    }

    /// The payload among the next `available` bytes.
    fn payload(&mut self, available: usize, at: &mut usize) -> Piece {
        let taken = u32::try_from(available).unwrap_or(u32::MAX).min(self.payload_left);
        self.payload_left -= taken;
        let start = *at;
        *at += taken as usize;
        Piece::Payload { stream: self.stream, range: start..*at, last: self.payload_left == 0 }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::wire::yamux::{FIN, SYN};
    use proptest::prelude::*;

    fn frames() -> Vec<u8> {
        let data = Header { frame_type: FrameType::Data, flags: SYN, stream: 7, length: 5 };
        let empty = Header { frame_type: FrameType::Data, flags: FIN, stream: 9, length: 0 };
        let ping = Header { frame_type: FrameType::Ping, flags: SYN, stream: 0, length: 5 };
        [&data.encode()[..], b"hello", &empty.encode()[..], &ping.encode()[..]].concat()
    }

    /// Headers, and payload joined, as they come from chunks.
    fn deframe(chunks: &[&[u8]]) -> Vec<(String, Vec<u8>)> {
        let mut deframer = Deframer::default();
        let mut seen: Vec<(String, Vec<u8>)> = Vec::new();
        for chunk in chunks {
            let mut at = 0;
            while let Some(piece) = deframer.next_piece(chunk, &mut at).unwrap() {
                match piece {
                    Piece::Header(header) => seen.push((format!("{header:?}"), Vec::new())),
                    Piece::Payload { range, .. } => seen.last_mut().unwrap().1.extend_from_slice(&chunk[range]),
                }
            }
            assert_eq!(at, chunk.len());
        }
        seen
    }

    proptest! {
        #[test]
        fn cuts_make_no_difference(a in 0usize..=41, b in 0usize..=41) {
            // R1.42
            let frames = frames();
            let (a, b) = (a.min(b), a.max(b));
            let cut = deframe(&[&frames[..a], &frames[a..b], &frames[b..]]);
            prop_assert_eq!(cut.len(), 3);
            prop_assert_eq!(&cut[0].1, b"hello");
            prop_assert_eq!(cut, deframe(&[&frames]));
        }
    }

    #[test]
    fn headers_of_another_protocol_are_refused() {
        let mut deframer = Deframer::default();
        assert_eq!(deframer.next_piece(&[1; 12], &mut 0), Err(HeaderError::Version(1)));
        let mut deframer = Deframer::default();
        assert_eq!(deframer.next_piece(&[0, 4, 0], &mut 0), Ok(None));
        assert_eq!(deframer.next_piece(&[0; 9], &mut 0), Err(HeaderError::Type(4)));
    }
}
