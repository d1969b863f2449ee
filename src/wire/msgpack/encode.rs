//! Writes values in the flavour of Go peers. Never fails and never writes str8, bin or ext.

use rmp::Marker;

/// Writes values in the flavour of Go peers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoder {
    /// What was written.
    pub out: Vec<u8>,
}

impl Encoder {
    /// Writes to an empty buffer.
    pub fn new() -> Encoder {
        Encoder::default()
    }

    fn head<const N: usize>(&mut self, marker: Marker, digits: [u8; N]) {
        self.out.push(marker.to_u8());
        self.out.extend(digits);
    }

    /// Writes nil.
    pub fn nil(&mut self) {
        self.head(Marker::Null, []);
    }

    /// Writes a truth value.
    pub fn bool(&mut self, value: bool) {
        self.head(if value { Marker::True } else { Marker::False }, []);
    }

    /// Writes an unsigned integer (`uint` and index fields of Go).
    pub fn u64(&mut self, value: u64) {
        if let Ok(byte) = u8::try_from(value) {
            if byte < 0x80 { self.out.push(byte) } else { self.head(Marker::U8, [byte]) }
        } else if let Ok(value) = u16::try_from(value) {
            self.head(Marker::U16, value.to_be_bytes());
        } else if let Ok(value) = u32::try_from(value) {
            self.head(Marker::U32, value.to_be_bytes());
        } else {
            self.head(Marker::U64, value.to_be_bytes());
        }
    }

    /// Writes a signed integer (`int`, durations, enums of Go): positive values too stay in the signed families.
    pub fn i64(&mut self, value: i64) {
        if let Ok(byte) = i8::try_from(value) {
            let digit = byte.to_be_bytes();
            if byte >= -32 { self.out.extend(digit) } else { self.head(Marker::I8, digit) }
        } else if let Ok(value) = i16::try_from(value) {
            self.head(Marker::I16, value.to_be_bytes());
        } else if let Ok(value) = i32::try_from(value) {
            self.head(Marker::I32, value.to_be_bytes());
        } else {
            self.head(Marker::I64, value.to_be_bytes());
        }
    }

    /// Writes a double.
    pub fn f64(&mut self, value: f64) {
        self.head(Marker::F64, value.to_be_bytes());
    }

    /// Writes a byte string in the old raw family. At most 4 GiB, which no message comes near.
    pub fn bytes(&mut self, value: &[u8]) {
        self.len(value.len(), 31, Marker::FixStr, Marker::Str16, Marker::Str32);
        self.out.extend_from_slice(value);
    }

    /// Writes a string.
    pub fn str(&mut self, value: &str) {
        self.bytes(value.as_bytes());
    }

    /// Writes the head of an array of `len` elements.
    pub fn array(&mut self, len: usize) {
        self.len(len, 15, Marker::FixArray, Marker::Array16, Marker::Array32);
    }

    /// Writes the head of a map of `len` entries.
    pub fn map(&mut self, len: usize) {
        self.len(len, 15, Marker::FixMap, Marker::Map16, Marker::Map32);
    }

    /// Writes a length in the shortest family that Go peers use.
    fn len(&mut self, len: usize, fix_max: u8, fix: fn(u8) -> Marker, mid: Marker, long: Marker) {
        match (u8::try_from(len), u16::try_from(len)) {
            (Ok(len), _) if len <= fix_max => self.head(fix(len), []),
            (_, Ok(len)) => self.head(mid, len.to_be_bytes()),
            _ => {
                let len = u32::try_from(len).expect("messages, entries and snapshot chunks are capped far below 4 GiB");
                self.head(long, len.to_be_bytes());
            }
        }
    }

    /// Writes bytes that are values already.
    pub fn raw(&mut self, encoded: &[u8]) {
        self.out.extend_from_slice(encoded);
    }
}
