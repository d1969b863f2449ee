//! Where a value ends, before anything is decoded: the gate that every message from a socket passes first.
//!
//! Looks at heads only, never copies, and keeps at most one counter for each open map or array.

use rmp::Marker;

use super::{DecodeError, Result};

/// Maps and arrays nest less deep than this (the depth limit of the Go decoder).
pub const MAX_DEPTH: usize = 1024;

/// Where one value ends in bytes that arrive piece by piece.
///
/// Keeps its place between calls, so a value that drips in byte by byte is looked at once. After an error it is of no
/// further use.
#[derive(Clone, Debug, Default)]
pub struct Scanner {
    /// Bytes known to belong to the value; beyond those that arrived while a string is coming in.
    pos: usize,
    /// Values known to be still to come, in all open maps and arrays together.
    owed: u64,
    /// Values still to come in each open map or array, outermost first.
    open: Vec<u64>,
    started: bool,
}

/// What [`Scanner::scan`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    /// The value is complete and is this many bytes long.
    Complete(usize),
    /// More bytes are needed.
    Partial,
}

impl Scanner {
    /// Looks further. `bytes` begins where the value begins and holds at least what it held at the last call.
    ///
    /// # Errors
    /// A reserved marker, nesting of [`MAX_DEPTH`] or deeper, or lengths that cannot be within `max_bytes`, as soon
    /// as they are declared.
    pub fn scan(&mut self, bytes: &[u8], max_bytes: usize) -> Result<Scan> {
        if !self.started {
            self.started = true;
            self.owed = 1;
        }
        while self.owed > 0 {
            let Some(rest) = bytes.get(self.pos..).filter(|rest| !rest.is_empty()) else { return Ok(Scan::Partial) };
            let Some(shape) = shape(rest).map_err(|what| error_at(self.pos, what))? else { return Ok(Scan::Partial) };
            self.pass(shape, max_bytes)?;
        }
        Ok(if bytes.len() >= self.pos { Scan::Complete(self.pos) } else { Scan::Partial })
    }

    /// Steps over one value's head and payload, and opens it when it has children.
    fn pass(&mut self, shape: Shape, max_bytes: usize) -> Result<()> {
        let start = self.pos;
        while self.open.pop_if(|left| *left == 0).is_some() {}
        if let Some(left) = self.open.last_mut() {
            *left -= 1;
        }
        self.pos = start.saturating_add(shape.len);
        self.owed = (self.owed - 1).saturating_add(shape.children);
        // Each value still owed takes a byte at least.
        if (self.pos as u64).saturating_add(self.owed) > max_bytes as u64 {
            return Err(error_at(start, "message is too large"));
        }
        if shape.children > 0 {
            if self.open.len() + 1 >= MAX_DEPTH {
                return Err(error_at(start, "nested too deeply"));
            }
            self.open.push(shape.children);
        }
        Ok(())
    }
}

fn error_at(pos: usize, what: &'static str) -> DecodeError {
    DecodeError { pos: pos as u64, what, got: None }
}

/// How far a value reaches, as its head tells.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// Bytes of head and payload together.
    pub(super) len: usize,
    /// Values that follow and belong to it.
    pub(super) children: u64,
}

/// The shape of the value that begins `bytes`; `None` when its head is not whole.
pub(super) fn shape(bytes: &[u8]) -> std::result::Result<Option<Shape>, &'static str> {
    let Some(&first) = bytes.first() else { return Ok(None) };
    let number =
        |width: usize| -> Option<u64> { Some(bytes.get(1..1 + width)?.iter().fold(0, |n, b| n << 8 | u64::from(*b))) };
    let leaf = |len: usize| Some(Shape { len, children: 0 });
    let sized = |width: usize, extra: usize| {
        let payload = usize::try_from(number(width)?).unwrap_or(usize::MAX);
        leaf((1 + width + extra).saturating_add(payload))
    };
    let nest = |width: usize, each: u64| Some(Shape { len: 1 + width, children: number(width)?.saturating_mul(each) });
    Ok(match Marker::from_u8(first) {
        Marker::FixPos(_) | Marker::FixNeg(_) | Marker::Null | Marker::True | Marker::False => leaf(1),
        Marker::FixMap(n) => Some(Shape { len: 1, children: 2 * u64::from(n) }),
        Marker::FixArray(n) => Some(Shape { len: 1, children: u64::from(n) }),
        Marker::FixStr(n) => leaf(1 + usize::from(n)),
        Marker::U8 | Marker::I8 => leaf(2),
        Marker::U16 | Marker::I16 => leaf(3),
        Marker::U32 | Marker::I32 | Marker::F32 => leaf(5),
        Marker::U64 | Marker::I64 | Marker::F64 => leaf(9),
        Marker::Str8 | Marker::Bin8 => sized(1, 0),
        Marker::Str16 | Marker::Bin16 => sized(2, 0),
        Marker::Str32 | Marker::Bin32 => sized(4, 0),
        Marker::Array16 => nest(2, 1),
        Marker::Array32 => nest(4, 1),
        Marker::Map16 => nest(2, 2),
        Marker::Map32 => nest(4, 2),
        Marker::FixExt1 => leaf(3),
        Marker::FixExt2 => leaf(4),
        Marker::FixExt4 => leaf(6),
        Marker::FixExt8 => leaf(10),
        Marker::FixExt16 => leaf(18),
        Marker::Ext8 => sized(1, 1),
        Marker::Ext16 => sized(2, 1),
        Marker::Ext32 => sized(4, 1),
        Marker::Reserved => return Err("reserved byte c1"),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::msgpack::Encoder;

    const MAX: usize = 1 << 16;

    fn scan_whole(bytes: &[u8]) -> Result<Scan> {
        Scanner::default().scan(bytes, MAX)
    }

    #[test]
    fn every_family_is_measured() {
        for (bytes, len) in [
            (&b"\x00"[..], 1),
            (b"\x7f", 1),
            (b"\xe0", 1),
            (b"\xc0", 1),
            (b"\xc2", 1),
            (b"\xcc\x01", 2),
            (b"\xcd\x01\x02", 3),
            (b"\xce\x01\x02\x03\x04", 5),
            (b"\xcf\x01\x02\x03\x04\x05\x06\x07\x08", 9),
            (b"\xd0\x01", 2),
            (b"\xd1\x01\x02", 3),
            (b"\xd2\x01\x02\x03\x04", 5),
            (b"\xd3\x01\x02\x03\x04\x05\x06\x07\x08", 9),
            (b"\xca\x01\x02\x03\x04", 5),
            (b"\xcb\x01\x02\x03\x04\x05\x06\x07\x08", 9),
            (b"\xa0", 1),
            (b"\xa3abc", 4),
            (b"\xd9\x03abc", 5),
            (b"\xda\x00\x03abc", 6),
            (b"\xdb\x00\x00\x00\x03abc", 8),
            (b"\xc4\x03abc", 5),
            (b"\xc5\x00\x03abc", 6),
            (b"\xc6\x00\x00\x00\x03abc", 8),
            (b"\xd4\x01a", 3),
            (b"\xd5\x01ab", 4),
            (b"\xd6\x01abcd", 6),
            (b"\xd7\x01abcdefgh", 10),
            (b"\xd8\x01abcdefghabcdefgh", 18),
            (b"\xc7\x03\x01abc", 6),
            (b"\xc8\x00\x03\x01abc", 7),
            (b"\xc9\x00\x00\x00\x03\x01abc", 9),
            (b"\x90", 1),
            (b"\x92\x01\x02", 3),
            (b"\xdc\x00\x02\x01\x02", 5),
            (b"\xdd\x00\x00\x00\x02\x01\x02", 7),
            (b"\x80", 1),
            (b"\x81\xa1a\x91\xc0", 5),
            (b"\xde\x00\x01\x01\x02", 5),
            (b"\xdf\x00\x00\x00\x01\x01\x02", 7),
        ] {
            let mut followed = bytes.to_vec();
            followed.extend(b"\xc1more");
            assert_eq!(scan_whole(&followed), Ok(Scan::Complete(len)), "{bytes:02x?}");
            for cut in 0..bytes.len() {
                assert_eq!(scan_whole(&bytes[..cut]), Ok(Scan::Partial), "{:02x?}", &bytes[..cut]);
            }
        }
        assert_eq!(scan_whole(b"\x92\x01\xc1").unwrap_err().pos, 2);
    }

    // Bounds of design.md: a length that cannot be within the cap is refused when it is declared, not when it came.
    #[test]
    fn a_declared_length_over_the_cap_is_refused_at_once() {
        for (bytes, pos) in [
            (&b"\xdb\x00\x01\x00\x00"[..], 0),
            (b"\xc6\xff\xff\xff\xff", 0),
            (b"\xc9\xff\xff\xff\xff", 0),
            (b"\xdd\x00\x01\x00\x00", 0),
            (b"\xdf\x00\x00\x80\x00", 0),
            (b"\xdf\xff\xff\xff\xff", 0),
            // Two halves that only together are too much.
            (b"\x92\xda\x80\x00", usize::MAX),
            (b"\x92\xdc\x80\x00\xdc\x80\x00", 4),
            (b"\xdc\xff\x00\xda\x01\x00", 3),
        ] {
            let verdict = scan_whole(bytes);
            if pos == usize::MAX {
                assert_eq!(verdict, Ok(Scan::Partial), "{bytes:02x?}");
            } else {
                let error = verdict.unwrap_err();
                assert_eq!((error.pos, error.what), (pos as u64, "message is too large"), "{bytes:02x?}");
            }
        }
    }

    #[test]
    fn the_cap_itself_is_allowed() {
        let mut e = Encoder::new();
        e.bytes(&[7; 1000]);
        let len = e.out.len();
        assert_eq!(Scanner::default().scan(&e.out, len), Ok(Scan::Complete(len)));
        assert!(Scanner::default().scan(&e.out, len - 1).is_err());
        assert!(Scanner::default().scan(&e.out[..3], len - 1).is_err());
    }

    // R1j "decoder": the depth limit is 1,024.
    #[test]
    fn depth_is_limited() {
        let nested = |depth: usize| [vec![0x91; depth - 1], vec![0x91, 0xc0]].concat();
        assert_eq!(scan_whole(&nested(MAX_DEPTH - 1)), Ok(Scan::Complete(MAX_DEPTH)));
        let error = scan_whole(&nested(MAX_DEPTH)).unwrap_err();
        assert_eq!((error.pos, error.what), (MAX_DEPTH as u64 - 1, "nested too deeply"));
        // Neighbours do not add up.
        let mut e = Encoder::new();
        e.array(MAX_DEPTH * 2);
        for _ in 0..MAX_DEPTH * 2 {
            e.raw(b"\x91\x91\x01");
        }
        assert_eq!(scan_whole(&e.out), Ok(Scan::Complete(e.out.len())));
    }

    /// Hands `bytes` over in the steps that `cuts` names, until there is a verdict.
    fn scan_in_pieces(bytes: &[u8], cuts: &[usize], max_bytes: usize) -> Result<Scan> {
        let mut scanner = Scanner::default();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
        cuts.sort_unstable();
        cuts.push(bytes.len());
        for cut in cuts {
            match scanner.scan(&bytes[..cut], max_bytes)? {
                Scan::Complete(len) => return Ok(Scan::Complete(len)),
                Scan::Partial => assert!(scanner.open.len() < MAX_DEPTH),
            }
        }
        Ok(Scan::Partial)
    }

    #[test]
    fn dripped_input_is_looked_at_once() {
        let mut e = Encoder::new();
        e.array(2);
        e.array(1000);
        e.raw(&[0xc0; 1000]);
        e.bytes(&[0xc1; 5000]);
        let mut scanner = Scanner::default();
        for end in 0..e.out.len() {
            let before = scanner.pos;
            assert_eq!(scanner.scan(&e.out[..end], MAX), Ok(Scan::Partial));
            // One byte more moves the place by one value at most: nothing is gone over again.
            assert!(scanner.pos >= before && (scanner.pos - before <= 1 || scanner.pos > end - 3), "{end}");
        }
        assert_eq!(scanner.scan(&e.out, MAX), Ok(Scan::Complete(e.out.len())));
    }

    /// Bytes that are often nearly msgpack: heads of small containers and strings among anything.
    fn nearly_msgpack() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![
            3 => any::<u8>(),
            2 => 0x80u8..0xa8,
            1 => prop::sample::select(vec![0xc4u8, 0xc7, 0xd9, 0xda, 0xdc, 0xde, 0xdf, 0xdd, 0xdb, 0xcf, 0x00]),
        ];
        prop::collection::vec(byte, 0..200)
    }

    proptest! {
        #[test]
        fn a_verdict_does_not_depend_on_the_pieces(
            bytes in nearly_msgpack(),
            cuts in prop::collection::vec(any::<usize>(), 0..12),
            max_bytes in 0usize..300,
        ) {
            let whole = Scanner::default().scan(&bytes, max_bytes);
            let every: Vec<usize> = (0..=bytes.len()).collect();
            prop_assert_eq!(scan_in_pieces(&bytes, &cuts, max_bytes), whole.clone());
            prop_assert_eq!(scan_in_pieces(&bytes, &every, max_bytes), whole.clone());
            if let Ok(Scan::Complete(len)) = whole {
                prop_assert!(len <= max_bytes && len <= bytes.len());
                prop_assert_eq!(crate::wire::msgpack::Decoder::new(&bytes).raw(), Ok(&bytes[..len]));
            }
        }
    }
}
