//! CRC-32C (Castagnoli): the checksum of snapshots, of files and of PROXY headers. Finds damage, not forgery.
//!
//! Source: RFC 3720, appendix B.4, for the polynomial and the test values. Eight bytes at a time, by eight tables.

/// The polynomial, bits reversed.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// `TABLES[n][b]` is the checksum of byte `b` with `n` zero bytes after it.
static TABLES: [[u32; 256]; 8] = tables();

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0u32; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut after = 1;
    while after < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[after - 1][byte];
            tables[after][byte] = before >> 8 ^ tables[0][(before & 0xff) as usize];
            byte += 1;
        }
        after += 1;
    }
    tables
}

/// The checksum of `bytes`.
pub fn crc32c(bytes: &[u8]) -> u32 {
    let eights = bytes.chunks_exact(8);
    let rest = eights.remainder();
    let crc = eights.fold(!0, |crc: u32, eight| {
        let mut mixed = [0; 8];
        mixed.copy_from_slice(eight);
        let mixed = (u64::from_le_bytes(mixed) ^ u64::from(crc)).to_le_bytes();
        TABLES.iter().rev().zip(mixed).fold(0, |crc, (table, byte)| crc ^ table[usize::from(byte)])
    });
    let step = |crc: u32, byte: &u8| crc >> 8 ^ TABLES[0][usize::from(crc.to_le_bytes()[0] ^ byte)];
    !rest.iter().fold(crc, step)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_known_values_come_out() {
        let rising: Vec<u8> = (0..32).collect();
        for (bytes, crc) in [
            (&b"123456789"[..], 0xe306_9283),
            (b"", 0),
            (&[0; 32], 0x8a91_36aa),
            (&[0xff; 32], 0x62a8_ab43),
            (&rising, 0x46dd_794e),
        ] {
            assert_eq!(crc32c(bytes), crc, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn a_changed_byte_changes_it(
            bytes in proptest::collection::vec(any::<u8>(), 1..100), at: prop::sample::Index, flip in 1u8..,
        ) {
            let mut other = bytes.clone();
            other[at.index(bytes.len())] ^= flip;
            prop_assert_ne!(crc32c(&bytes), crc32c(&other));
        }
    }
}
