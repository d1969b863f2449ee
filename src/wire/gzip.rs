//! gzip of whole reply bodies (RFC 1952 around RFC 1951). Never unpacks, and never decides what is packed.
//!
//! Source: http notes, section 1.2: peers pack even a body of ten bytes, and their clients unpack by
//! Content-Encoding. The level is the lowest: JSON shrinks to a few parts in ten either way, and whoever waits for
//! an answer gains more by its being there soon.

use flate2::Compress;
use flate2::Compression;
use flate2::Crc;
use flate2::FlushCompress;
use flate2::Status;

/// Bodies up to this are stored as they are: to look for what repeats would cost more than it saves.
pub const STORED_MAX_BYTES: usize = 256;

/// Deflate, no name, no time, fastest, made on Unix.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 3];
/// What one stored block can hold.
const BLOCK_MAX_BYTES: usize = 0xffff;

/// Packs one body after another; keeps the memory of the packing in between (some 300 KiB, once it is used).
#[derive(Debug, Default)]
pub struct Packer(Option<Box<Compress>>);

impl Packer {
    /// The body, packed.
    pub fn pack(&mut self, body: &[u8]) -> Vec<u8> {
        let mut out = HEADER.to_vec();
        if body.len() <= STORED_MAX_BYTES || !self.deflate(body, &mut out) {
            out.truncate(HEADER.len());
            store(body, &mut out);
        }
        let mut crc = Crc::new();
        crc.update(body);
        out.extend_from_slice(&crc.sum().to_le_bytes());
        out.extend_from_slice(&crc.amount().to_le_bytes());
        out
    }

    /// Appends a deflate stream; false when the packer failed.
    fn deflate(&mut self, body: &[u8], out: &mut Vec<u8>) -> bool {
        let packer = self.0.get_or_insert_with(|| Box::new(Compress::new(Compression::fast(), false)));
        packer.reset();
        let mut rest = body;
        loop {
            // A quarter is what JSON mostly comes to.
            out.reserve(rest.len() / 4 + 64);
            let before = packer.total_in();
            let status = packer.compress_vec(rest, out, FlushCompress::Finish);
            let taken = usize::try_from(packer.total_in() - before).unwrap_or(usize::MAX);
            rest = rest.get(taken..).unwrap_or_default();
            match status {
                Ok(Status::StreamEnd) => return true,
                Ok(Status::Ok) => {}
                Ok(Status::BufError) | Err(_) => return false,
            }
        }
    }
}

/// Appends a deflate stream of stored blocks (RFC 1951 section 3.2.4).
fn store(body: &[u8], out: &mut Vec<u8>) {
    let mut rest = body;
    loop {
        let (block, later) = rest.split_at(rest.len().min(BLOCK_MAX_BYTES));
        let len = u16::try_from(block.len()).unwrap_or(u16::MAX);
        out.push(u8::from(later.is_empty()));
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&(!len).to_le_bytes());
        out.extend_from_slice(block);
        if later.is_empty() {
            return;
        }
        rest = later;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Read;

    fn unpack(packed: &[u8]) -> Vec<u8> {
        let mut body = Vec::new();
        flate2::read::GzDecoder::new(packed).read_to_end(&mut body).unwrap();
        body
    }

    #[test]
    fn what_was_packed_is_there_again() {
        let mut packer = Packer::default();
        let json = r#"{"ID":"aaaa","Name":"node"},"#.repeat(10_000).into_bytes();
        for body in [&b""[..], b"[]", &[7; STORED_MAX_BYTES], &[7; STORED_MAX_BYTES + 1], &json, b"again"] {
            assert_eq!(unpack(&packer.pack(body)), body, "{} bytes", body.len());
        }
        assert!(packer.pack(&json).len() < json.len() / 10);
        assert!(packer.pack(b"[]").len() < 30);
    }

    #[test]
    fn large_bodies_can_be_stored_too() {
        for len in [0, 1, BLOCK_MAX_BYTES, BLOCK_MAX_BYTES + 1, 3 * BLOCK_MAX_BYTES] {
            let body = vec![b'x'; len];
            let mut out = Vec::new();
            store(&body, &mut out);
            let mut unpacked = Vec::new();
            flate2::read::DeflateDecoder::new(out.as_slice()).read_to_end(&mut unpacked).unwrap();
            assert_eq!(unpacked, body);
        }
    }

    proptest! {
        #[test]
        fn any_bodies_come_back(bodies in proptest::collection::vec(
            prop_oneof![proptest::collection::vec(any::<u8>(), 0..5000), proptest::collection::vec(0u8..3, 0..90_000)],
            1..4,
        )) {
            let mut packer = Packer::default();
            for body in bodies {
                prop_assert_eq!(unpack(&packer.pack(&body)), body);
            }
        }
    }
}
