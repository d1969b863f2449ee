//! Reads values from whole messages, as leniently as Go peers do. Allocates nothing.

use rmp::Marker;

use super::scan::shape;
use super::{DecodeError, Result};

/// What kind of value comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `nil`
    Nil,
    /// A truth value.
    Bool,
    /// Any integer family.
    Int,
    /// A float.
    Float,
    /// A string or byte string of any family.
    Str,
    /// An array.
    Array,
    /// A map.
    Map,
    /// An extension; none is spoken here.
    Ext,
}

/// Reads values from a slice, leniently.
///
/// After an error the position is where the value in question begins.
#[derive(Clone, Debug)]
pub struct Decoder<'a> {
    bytes: &'a [u8],
    pos: usize,
    base: u64,
    /// Bytes of memory that what is decoded may still take.
    memory: usize,
}

/// Memory that decoded arguments may take, however small they are on the wire.
const MEMORY_BYTES: usize = 1024 * 1024;

/// And as much again for each of their bytes: names and ids of nodes, which are what lists of arguments hold, take
/// two to three.
const MEMORY_PER_BYTE: usize = 4;

impl<'a> Decoder<'a> {
    /// Reads from the beginning of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Decoder<'a> {
        Decoder::with_base(bytes, 0)
    }

    /// The same, with positions in errors counted from `base`.
    pub fn with_base(bytes: &'a [u8], base: u64) -> Decoder<'a> {
        Decoder { bytes, pos: 0, base, memory: usize::MAX }
    }

    /// The same for arguments of a peer: lists of very many tiny elements, which would take many times their size
    /// in memory, are refused.
    #[must_use]
    pub fn within_own_size(self) -> Decoder<'a> {
        let memory = self.bytes.len().saturating_mul(MEMORY_PER_BYTE).saturating_add(MEMORY_BYTES);
        Decoder { memory, ..self }
    }

    /// Counts memory that a decoded value takes, in bytes.
    ///
    /// # Errors
    /// More than [`Decoder::within_own_size`] permits.
    pub fn charge(&mut self, bytes: usize) -> Result<()> {
        self.memory = self.memory.checked_sub(bytes).ok_or_else(|| self.error("too many elements"))?;
        Ok(())
    }

    /// An error at the current position.
    pub fn error(&self, what: &'static str) -> DecodeError {
        DecodeError { pos: self.base.saturating_add(self.pos as u64), what, got: None }
    }

    /// An error about the kind of the next value: behind its first byte, which it names.
    fn mismatch(&self, what: &'static str) -> DecodeError {
        let error = self.error(what);
        DecodeError { pos: error.pos.saturating_add(1), got: self.bytes.get(self.pos).copied(), ..error }
    }

    /// Bytes read so far.
    pub fn position(&self) -> usize {
        self.pos
    }

    /// True when all bytes were read.
    pub fn at_end(&self) -> bool {
        self.pos == self.bytes.len()
    }

    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.pos..).unwrap_or_default()
    }

    fn marker(&self) -> Result<Marker> {
        self.rest().first().map(|first| Marker::from_u8(*first)).ok_or_else(|| self.error("EOF"))
    }

    /// The kind of the next value, without reading it.
    ///
    /// # Errors
    /// At the end of the bytes, or at a reserved byte.
    pub fn kind(&self) -> Result<Kind> {
        Ok(match self.marker()? {
            Marker::Null => Kind::Nil,
            Marker::True | Marker::False => Kind::Bool,
            Marker::FixPos(_)
            | Marker::FixNeg(_)
            | Marker::U8
            | Marker::U16
            | Marker::U32
            | Marker::U64
            | Marker::I8
            | Marker::I16
            | Marker::I32
            | Marker::I64 => Kind::Int,
            Marker::F32 | Marker::F64 => Kind::Float,
            Marker::FixStr(_)
            | Marker::Str8
            | Marker::Str16
            | Marker::Str32
            | Marker::Bin8
            | Marker::Bin16
            | Marker::Bin32 => Kind::Str,
            Marker::FixArray(_) | Marker::Array16 | Marker::Array32 => Kind::Array,
            Marker::FixMap(_) | Marker::Map16 | Marker::Map32 => Kind::Map,
            Marker::Reserved => return Err(self.error("reserved byte c1")),
            Marker::FixExt1
            | Marker::FixExt2
            | Marker::FixExt4
            | Marker::FixExt8
            | Marker::FixExt16
            | Marker::Ext8
            | Marker::Ext16
            | Marker::Ext32 => Kind::Ext,
        })
    }

    /// The big-endian digits behind the first byte of the next value.
    fn digits<const N: usize>(&self) -> Result<[u8; N]> {
        let digits = self.rest().get(1..).and_then(|rest| rest.first_chunk());
        digits.copied().ok_or_else(|| self.error("unexpected EOF"))
    }

    /// Steps over `len` bytes.
    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let taken = self.rest().get(..len).ok_or_else(|| self.error("unexpected EOF"))?;
        self.pos += len;
        Ok(taken)
    }

    /// Reads a nil if one is next.
    ///
    /// # Errors
    /// At the end of the bytes.
    pub fn nil(&mut self) -> Result<bool> {
        let is_nil = self.marker()? == Marker::Null;
        self.pos += usize::from(is_nil);
        Ok(is_nil)
    }

    /// Reads a truth value; nil is false.
    ///
    /// # Errors
    /// Another kind of value.
    pub fn bool(&mut self) -> Result<bool> {
        let value = match self.marker()? {
            Marker::True => true,
            Marker::False | Marker::Null => false,
            _ => return Err(self.mismatch("invalid byte descriptor for decoding bool")),
        };
        self.pos += 1;
        Ok(value)
    }

    /// Reads an integer of any family, whatever its sign; nil is 0.
    ///
    /// # Errors
    /// Another kind of value.
    pub(in crate::wire) fn integer(&mut self) -> Result<i128> {
        let (value, width) = match self.marker()? {
            Marker::Null => (0, 0),
            Marker::FixPos(n) => (i128::from(n), 0),
            Marker::FixNeg(n) => (i128::from(n), 0),
            Marker::U8 => (i128::from(u8::from_be_bytes(self.digits()?)), 1),
            Marker::U16 => (i128::from(u16::from_be_bytes(self.digits()?)), 2),
            Marker::U32 => (i128::from(u32::from_be_bytes(self.digits()?)), 4),
            Marker::U64 => (i128::from(u64::from_be_bytes(self.digits()?)), 8),
            Marker::I8 => (i128::from(i8::from_be_bytes(self.digits()?)), 1),
            Marker::I16 => (i128::from(i16::from_be_bytes(self.digits()?)), 2),
            Marker::I32 => (i128::from(i32::from_be_bytes(self.digits()?)), 4),
            Marker::I64 => (i128::from(i64::from_be_bytes(self.digits()?)), 8),
            _ => return Err(self.mismatch("invalid byte descriptor for decoding an integer")),
        };
        self.pos += 1 + width;
        Ok(value)
    }

    /// Reads an integer that fits `N`.
    pub(super) fn narrow<N: TryFrom<i128>>(&mut self) -> Result<N> {
        let start = self.pos;
        let value = self.integer()?;
        N::try_from(value).map_err(|_| {
            self.pos = start;
            self.error("integer out of range")
        })
    }

    /// Reads an unsigned integer from any integer family; nil is 0.
    ///
    /// # Errors
    /// Another kind of value, or a negative one.
    pub fn u64(&mut self) -> Result<u64> {
        self.narrow()
    }

    /// Reads a signed integer from any integer family; nil is 0.
    ///
    /// # Errors
    /// Another kind of value, or one over 2^63 - 1.
    pub fn i64(&mut self) -> Result<i64> {
        self.narrow()
    }

    /// Reads a float, or an integer as one; nil is 0.
    ///
    /// # Errors
    /// Another kind of value.
    pub fn f64(&mut self) -> Result<f64> {
        let (value, width) = match self.marker()? {
            Marker::F32 => (f64::from(f32::from_be_bytes(self.digits()?)), 4),
            Marker::F64 => (f64::from_be_bytes(self.digits()?), 8),
            // The nearest double, as Go converts.
            _ => return self.integer().map(|n| n as f64),
        };
        self.pos += 1 + width;
        Ok(value)
    }

    /// Reads a string or byte string of any family as bytes; nil is empty.
    ///
    /// # Errors
    /// Another kind of value, or one that is cut off.
    pub fn bytes(&mut self) -> Result<&'a [u8]> {
        let (len, head) = match self.marker()? {
            Marker::Null => (0, 1),
            Marker::FixStr(n) => (u32::from(n), 1),
            Marker::Str8 | Marker::Bin8 => (u32::from(u8::from_be_bytes(self.digits()?)), 2),
            Marker::Str16 | Marker::Bin16 => (u32::from(u16::from_be_bytes(self.digits()?)), 3),
            Marker::Str32 | Marker::Bin32 => (u32::from_be_bytes(self.digits()?), 5),
            _ => return Err(self.mismatch("invalid byte descriptor for decoding bytes")),
        };
        let end = usize::try_from(len).unwrap_or(usize::MAX).saturating_add(head);
        let payload = self.rest().get(head..end).ok_or_else(|| self.error("unexpected EOF"))?;
        self.pos += end;
        Ok(payload)
    }

    /// Reads a string; nil is empty.
    ///
    /// # Errors
    /// As [`Decoder::bytes`], and bytes that are not UTF-8.
    pub fn str(&mut self) -> Result<&'a str> {
        let start = self.pos;
        let bytes = self.bytes()?;
        std::str::from_utf8(bytes).map_err(|_| {
            self.pos = start;
            self.error("string is not UTF-8")
        })
    }

    /// Reads the head of an array; nil is `None`. The elements follow.
    ///
    /// # Errors
    /// Another kind of value, or more elements than bytes are left.
    pub fn array(&mut self) -> Result<Option<usize>> {
        match self.marker()? {
            Marker::Null => self.opened(0, 1, 1).map(|_| None),
            Marker::FixArray(n) => self.opened(u32::from(n), 1, 1).map(Some),
            Marker::Array16 => self.opened(u32::from(u16::from_be_bytes(self.digits()?)), 3, 1).map(Some),
            Marker::Array32 => self.opened(u32::from_be_bytes(self.digits()?), 5, 1).map(Some),
            _ => Err(self.mismatch("invalid byte descriptor for decoding a list")),
        }
    }

    /// Reads the head of a map; nil is `None`. Keys and values follow.
    ///
    /// # Errors
    /// Another kind of value, or more keys and values than bytes are left.
    pub fn map(&mut self) -> Result<Option<usize>> {
        match self.marker()? {
            Marker::Null => self.opened(0, 1, 2).map(|_| None),
            Marker::FixMap(n) => self.opened(u32::from(n), 1, 2).map(Some),
            Marker::Map16 => self.opened(u32::from(u16::from_be_bytes(self.digits()?)), 3, 2).map(Some),
            Marker::Map32 => self.opened(u32::from_be_bytes(self.digits()?), 5, 2).map(Some),
            _ => Err(self.mismatch("invalid byte descriptor for decoding a map")),
        }
    }

    /// Steps over a head of `head` bytes that promises `len` entries of `each` values.
    fn opened(&mut self, len: u32, head: usize, each: u64) -> Result<usize> {
        // Every value takes one byte at least, so a count above what is left is a lie.
        let left = self.rest().len().saturating_sub(head);
        if u64::from(len) * each > left as u64 {
            return Err(self.error("unexpected EOF"));
        }
        self.pos += head;
        Ok(usize::try_from(len).unwrap_or(usize::MAX))
    }

    /// Passes over the next value and hands back its bytes.
    ///
    /// # Errors
    /// A value that is cut off or malformed. Depth is no error: nothing nests here, and a
    /// [`Scanner`](super::Scanner) has looked at all that came from a peer.
    pub fn raw(&mut self) -> Result<&'a [u8]> {
        let from_start = self.rest();
        let start = self.pos;
        self.pass().inspect_err(|_| self.pos = start)?;
        Ok(from_start.get(..self.pos - start).unwrap_or_default())
    }

    /// Passes over the next value.
    ///
    /// # Errors
    /// As [`Decoder::raw`].
    pub fn skip(&mut self) -> Result<()> {
        self.raw().map(|_| ())
    }

    fn pass(&mut self) -> Result<()> {
        // Which map or array a value belongs to does not matter here; how many are owed does.
        let mut owed: u64 = 1;
        while owed > 0 {
            let shape = shape(self.rest()).map_err(|what| self.error(what))?;
            let shape = shape.ok_or_else(|| self.error("unexpected EOF"))?;
            self.take(shape.len)?;
            owed = (owed - 1).saturating_add(shape.children);
            if owed > self.rest().len() as u64 {
                return Err(self.error("unexpected EOF"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::msgpack::Encoder;

    // R1j "decoder": any integer family for any integer field, nil for zero.
    #[test]
    fn integers_of_any_family_are_read() {
        for (bytes, value) in [
            (&b"\xc0"[..], 0i128),
            (b"\x7f", 127),
            (b"\xff", -1),
            (b"\xcc\xff", 255),
            (b"\xcd\xff\xff", 65_535),
            (b"\xce\xff\xff\xff\xff", 4_294_967_295),
            (b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff", i128::from(u64::MAX)),
            (b"\xd0\x80", -128),
            (b"\xd1\x80\x00", -32_768),
            (b"\xd2\x80\x00\x00\x00", -2_147_483_648),
            (b"\xd3\x80\x00\x00\x00\x00\x00\x00\x00", i128::from(i64::MIN)),
            (b"\xd3\x00\x00\x00\x00\x00\x00\x00\x05", 5),
        ] {
            let mut d = Decoder::new(bytes);
            assert_eq!(d.integer(), Ok(value), "{bytes:02x?}");
            assert!(d.at_end());
            assert_eq!(Decoder::new(bytes).u64().ok(), u64::try_from(value).ok());
            assert_eq!(Decoder::new(bytes).i64().ok(), i64::try_from(value).ok());
            assert_eq!(Decoder::new(bytes).f64(), Ok(value as f64));
        }
    }

    #[test]
    fn strings_of_any_family_are_read() {
        for bytes in [
            &b"\xa3abc"[..],
            b"\xd9\x03abc",
            b"\xda\x00\x03abc",
            b"\xdb\x00\x00\x00\x03abc",
            b"\xc4\x03abc",
            b"\xc5\x00\x03abc",
            b"\xc6\x00\x00\x00\x03abc",
        ] {
            assert_eq!(Decoder::new(bytes).str(), Ok("abc"), "{bytes:02x?}");
            for cut in 0..bytes.len() {
                let mut d = Decoder::new(&bytes[..cut]);
                assert!(d.bytes().is_err() && d.position() == 0);
            }
        }
        assert_eq!(Decoder::new(b"\xc0").str(), Ok(""));
        assert_eq!(Decoder::new(b"\xa2\xfe\xff").bytes(), Ok(&b"\xfe\xff"[..]));
        assert!(Decoder::new(b"\xa2\xfe\xff").str().is_err());
    }

    // The text and the position that a Go peer sends (captured: error_bad_body), where 34 bytes of head came before.
    #[test]
    fn errors_are_worded_as_the_go_codec_words_them() {
        let mut d = Decoder::with_base(b"\x81\xa6Region\x81\xa1x\x01", 34);
        assert_eq!((d.map().unwrap(), d.bytes().unwrap()), (Some(1), &b"Region"[..]));
        let text = "msgpack decode error [pos 43]: invalid byte descriptor for decoding bytes, got: 0x81";
        assert_eq!(d.str().unwrap_err().to_string(), text);
        assert_eq!(Decoder::new(b"").u64().unwrap_err().to_string(), "msgpack decode error [pos 0]: EOF");
    }

    #[test]
    fn counts_are_held_against_what_is_there() {
        for bytes in [&b"\xdd\xff\xff\xff\xff\x01"[..], b"\x92\x01", b"\xdc\x00\x02\x01"] {
            assert!(Decoder::new(bytes).array().is_err(), "{bytes:02x?}");
        }
        for bytes in [&b"\xdf\xff\xff\xff\xff\x01"[..], b"\x81\x01", b"\x82\x01\x02\x03"] {
            assert!(Decoder::new(bytes).map().is_err(), "{bytes:02x?}");
            assert!(Decoder::new(bytes).raw().is_err(), "{bytes:02x?}");
        }
        assert_eq!(Decoder::new(b"\xc0").map(), Ok(None));
        assert_eq!(Decoder::new(b"\xde\x00\x01\x01\x02").map(), Ok(Some(1)));
    }

    // R1j "decoder": "8 Mi nils [cost it] 224 MiB".
    #[test]
    fn arguments_are_decoded_in_memory_of_their_own_size() {
        use super::super::{Msg, Raw};
        fn decode<T: Msg>(element: &[u8], count: u32) -> Result<Vec<T>> {
            let bytes = [&[0xdd][..], &count.to_be_bytes(), &element.repeat(count as usize)].concat();
            assert!(Vec::<T>::from_bytes(&bytes).is_ok(), "others have no limit");
            Vec::decode(&mut Decoder::new(&bytes).within_own_size())
        }
        let id = b"\xd9\x24a1b2c3d4-0001-0002-0003-00000000abcd";
        assert_eq!(decode::<String>(id, 100_000).unwrap().len(), 100_000);
        assert_eq!(decode::<String>(b"\xc0", 40_000).unwrap().len(), 40_000, "few of anything are no harm");
        for (element, count) in [(&b"\xc0"[..], 400_000), (b"\xa0", 400_000), (b"\xa1x", 400_000)] {
            assert_eq!(decode::<String>(element, count).unwrap_err().what, "too many elements");
        }
        assert_eq!(decode::<Raw>(b"\xc0", 400_000).unwrap_err().what, "too many elements");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic_and_errors_do_not_move(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = Decoder::new(&bytes).kind();
            macro_rules! hold {
                ($($read:ident)*) => {$({
                    let mut d = Decoder::new(&bytes);
                    match d.$read() {
                        Ok(_) => prop_assert!(d.position() <= bytes.len()),
                        Err(_) => prop_assert_eq!(d.position(), 0),
                    }
                })*};
            }
            hold!(nil bool u64 i64 f64 bytes str array map raw skip);
        }

        #[test]
        fn what_is_written_is_read_back(unsigned: u64, signed: i64, float: f64, text: String, raw: Vec<u8>) {
            let mut e = Encoder::new();
            e.array(5);
            e.u64(unsigned);
            e.i64(signed);
            e.f64(float);
            e.str(&text);
            e.bytes(&raw);
            let mut d = Decoder::new(&e.out);
            prop_assert_eq!(d.array(), Ok(Some(5)));
            prop_assert_eq!(d.u64(), Ok(unsigned));
            prop_assert_eq!(d.i64(), Ok(signed));
            prop_assert_eq!(d.f64().map(f64::to_bits), Ok(float.to_bits()));
            prop_assert_eq!(d.str(), Ok(text.as_str()));
            prop_assert_eq!(d.bytes(), Ok(raw.as_slice()));
            prop_assert!(d.at_end());
        }
    }
}
