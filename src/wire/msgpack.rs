//! The subset and the flavour of msgpack that Go peers write (go-msgpack with Nomad's handle).
//!
//! Written: strings and byte strings in the old raw family (never str8, never bin), signed integers as signed,
//! unsigned ones as unsigned, structs as maps in declaration order with every field. Read: anything that means the
//! same, in any order, with unknown keys skipped and nil for zero. Source: the transport notes, section 5.
//!
//! **Invariant:** no length from the wire is used before it met what is really there: nothing is allocated for
//! elements that have not arrived, and nothing recurses.

use std::fmt;
use std::sync::Arc;

use rmp::Marker;

/// How deep maps and arrays may nest (the depth limit of the Go decoder).
pub const MAX_DEPTH: usize = 1024;

/// Why bytes are not the value that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// Offset in bytes from the start of what the decoder was given, plus its base.
    pub pos: u64,
    /// What was wrong there.
    pub what: &'static str,
}

impl fmt::Display for DecodeError {
    /// In the words of the Go codec: `msgpack decode error [pos 43]: ...`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "msgpack decode error [pos {}]: {}", self.pos, self.what)
    }
}

impl std::error::Error for DecodeError {}

/// The short form of results here.
pub type Result<T> = std::result::Result<T, DecodeError>;

/// Where one value ends in bytes that arrive piece by piece.
///
/// Keeps its place between calls, so a value that drips in byte by byte is looked at once.
#[derive(Clone, Debug, Default)]
pub struct Scanner {
    /// Bytes known to belong to the value, or to lie within its current string.
    pos: usize,
    /// Values still to come, of each open map or array.
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
    /// A reserved marker, nesting deeper than [`MAX_DEPTH`], or a length that cannot be within `max_bytes`.
    pub fn scan(&mut self, bytes: &[u8], max_bytes: usize) -> Result<Scan> {
        if !self.started {
            self.started = true;
            self.open.push(1);
        }
        loop {
            while self.open.last() == Some(&0) {
                self.open.pop();
            }
            if self.pos > max_bytes {
                return Err(DecodeError { pos: max_bytes as u64, what: "message is too large" });
            }
            let Some(left) = self.open.last_mut() else {
                return Ok(if bytes.len() >= self.pos { Scan::Complete(self.pos) } else { Scan::Partial });
            };
            // A string whose end is known but has not arrived lets the scan run no further than the bytes.
            let Some(&first) = bytes.get(self.pos) else { return Ok(Scan::Partial) };
            let here = self.pos as u64;
            let Some((head, payload, children)) =
                shape(&bytes[self.pos..], first).map_err(|what| DecodeError { pos: here, what })?
            else {
                return Ok(Scan::Partial);
            };
            *left -= 1;
            self.pos = self.pos.saturating_add(head).saturating_add(payload);
            if children > 0 {
                // Each element takes a byte at least.
                if children > max_bytes as u64 {
                    return Err(DecodeError { pos: here, what: "message is too large" });
                }
                if self.open.len() >= MAX_DEPTH {
                    return Err(DecodeError { pos: here, what: "nested too deeply" });
                }
                self.open.push(children);
            }
        }
    }
}

/// Head length, payload length and number of child values of the value that begins `bytes`; `None` when its head is
/// not whole yet.
fn shape(bytes: &[u8], first: u8) -> std::result::Result<Option<(usize, usize, u64)>, &'static str> {
    let length = |width: usize| -> Option<u64> {
        let digits = bytes.get(1..1 + width)?;
        Some(digits.iter().fold(0u64, |n, b| n << 8 | u64::from(*b)))
    };
    let sized = |width: usize, extra: usize| Ok(length(width).map(|n| (1 + width, n as usize + extra, 0)));
    match Marker::from_u8(first) {
        Marker::FixPos(_) | Marker::FixNeg(_) | Marker::Null | Marker::True | Marker::False => Ok(Some((1, 0, 0))),
        Marker::FixMap(n) => Ok(Some((1, 0, 2 * u64::from(n)))),
        Marker::FixArray(n) => Ok(Some((1, 0, u64::from(n)))),
        Marker::FixStr(n) => Ok(Some((1, usize::from(n), 0))),
        Marker::U8 | Marker::I8 => Ok(Some((1, 1, 0))),
        Marker::U16 | Marker::I16 => Ok(Some((1, 2, 0))),
        Marker::U32 | Marker::I32 | Marker::F32 => Ok(Some((1, 4, 0))),
        Marker::U64 | Marker::I64 | Marker::F64 => Ok(Some((1, 8, 0))),
        Marker::Str8 | Marker::Bin8 => sized(1, 0),
        Marker::Str16 | Marker::Bin16 => sized(2, 0),
        Marker::Str32 | Marker::Bin32 => sized(4, 0),
        Marker::Array16 => Ok(length(2).map(|n| (3, 0, n))),
        Marker::Array32 => Ok(length(4).map(|n| (5, 0, n))),
        Marker::Map16 => Ok(length(2).map(|n| (3, 0, 2 * n))),
        Marker::Map32 => Ok(length(4).map(|n| (5, 0, 2 * n))),
        Marker::FixExt1 => Ok(Some((1, 2, 0))),
        Marker::FixExt2 => Ok(Some((1, 3, 0))),
        Marker::FixExt4 => Ok(Some((1, 5, 0))),
        Marker::FixExt8 => Ok(Some((1, 9, 0))),
        Marker::FixExt16 => Ok(Some((1, 17, 0))),
        Marker::Ext8 => sized(1, 1),
        Marker::Ext16 => sized(2, 1),
        Marker::Ext32 => sized(4, 1),
        Marker::Reserved => Err("reserved byte c1"),
    }
}

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
#[derive(Clone, Debug)]
pub struct Decoder<'a> {
    bytes: &'a [u8],
    pos: usize,
    base: u64,
}

impl<'a> Decoder<'a> {
    /// Reads from the beginning of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Decoder<'a> {
        Decoder::with_base(bytes, 0)
    }

    /// The same, with positions in errors counted from `base`.
    pub fn with_base(bytes: &'a [u8], base: u64) -> Decoder<'a> {
        Decoder { bytes, pos: 0, base }
    }

    /// An error at the current position.
    pub fn error(&self, what: &'static str) -> DecodeError {
        DecodeError { pos: self.base + self.pos as u64, what }
    }

    /// Bytes read so far.
    pub fn position(&self) -> usize {
        self.pos
    }

    /// True when all bytes were read.
    pub fn at_end(&self) -> bool {
        self.pos == self.bytes.len()
    }

    fn first(&self) -> Result<u8> {
        self.bytes.get(self.pos).copied().ok_or_else(|| self.error("EOF"))
    }

    /// The kind of the next value, without reading it.
    ///
    /// # Errors
    /// At the end of the bytes, or at a reserved byte.
    pub fn kind(&self) -> Result<Kind> {
        Ok(match Marker::from_u8(self.first()?) {
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
            _ => Kind::Ext,
        })
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let end = self.pos.checked_add(len).filter(|end| *end <= self.bytes.len());
        let Some(end) = end else { return Err(self.error("unexpected EOF")) };
        let taken = &self.bytes[self.pos..end];
        self.pos = end;
        Ok(taken)
    }

    fn number(&mut self, width: usize) -> Result<u64> {
        Ok(self.take(width)?.iter().fold(0u64, |n, b| n << 8 | u64::from(*b)))
    }

    /// Reads a nil if one is next.
    ///
    /// # Errors
    /// At the end of the bytes.
    pub fn nil(&mut self) -> Result<bool> {
        let is_nil = self.first()? == 0xc0;
        self.pos += usize::from(is_nil);
        Ok(is_nil)
    }

    /// Reads a truth value; nil is false.
    ///
    /// # Errors
    /// Another kind of value.
    pub fn bool(&mut self) -> Result<bool> {
        let value = match Marker::from_u8(self.first()?) {
            Marker::True => true,
            Marker::False | Marker::Null => false,
            _ => return Err(self.error("cannot decode into bool")),
        };
        self.pos += 1;
        Ok(value)
    }

    fn int(&mut self) -> Result<i128> {
        let marker = Marker::from_u8(self.first()?);
        let start = self.pos;
        self.pos += 1;
        let value = match marker {
            Marker::Null => Ok(0),
            Marker::FixPos(n) => Ok(i128::from(n)),
            Marker::FixNeg(n) => Ok(i128::from(n)),
            Marker::U8 => self.number(1).map(i128::from),
            Marker::U16 => self.number(2).map(i128::from),
            Marker::U32 => self.number(4).map(i128::from),
            Marker::U64 => self.number(8).map(i128::from),
            Marker::I8 => self.number(1).map(|n| i128::from(n as u8 as i8)),
            Marker::I16 => self.number(2).map(|n| i128::from(n as u16 as i16)),
            Marker::I32 => self.number(4).map(|n| i128::from(n as u32 as i32)),
            Marker::I64 => self.number(8).map(|n| i128::from(n as i64)),
            _ => {
                self.pos = start;
                return Err(self.error("cannot decode into int"));
            }
        };
        value.inspect_err(|_| self.pos = start)
    }

    /// Reads an unsigned integer from any integer family; nil is 0.
    ///
    /// # Errors
    /// Another kind of value, or a negative one.
    pub fn u64(&mut self) -> Result<u64> {
        let at = self.error("integer out of range");
        u64::try_from(self.int()?).map_err(|_| at)
    }

    /// Reads a signed integer from any integer family; nil is 0.
    ///
    /// # Errors
    /// Another kind of value, or one over 2^63 - 1.
    pub fn i64(&mut self) -> Result<i64> {
        let at = self.error("integer out of range");
        i64::try_from(self.int()?).map_err(|_| at)
    }

    /// Reads a float, or an integer as one; nil is 0.
    ///
    /// # Errors
    /// Another kind of value.
    pub fn f64(&mut self) -> Result<f64> {
        match Marker::from_u8(self.first()?) {
            Marker::F32 => {
                self.pos += 1;
                self.number(4).map(|n| f64::from(f32::from_bits(n as u32)))
            }
            Marker::F64 => {
                self.pos += 1;
                self.number(8).map(f64::from_bits)
            }
            _ => self.int().map(|n| n as f64),
        }
    }

    /// Reads a string or byte string of any family as bytes; nil is empty.
    ///
    /// # Errors
    /// Another kind of value, or one that is cut off.
    pub fn bytes(&mut self) -> Result<&'a [u8]> {
        let start = self.pos;
        let marker = Marker::from_u8(self.first()?);
        self.pos += 1;
        let len = match marker {
            Marker::Null => return Ok(&[]),
            Marker::FixStr(n) => Ok(u64::from(n)),
            Marker::Str8 | Marker::Bin8 => self.number(1),
            Marker::Str16 | Marker::Bin16 => self.number(2),
            Marker::Str32 | Marker::Bin32 => self.number(4),
            _ => {
                self.pos = start;
                return Err(self.error("cannot decode into string"));
            }
        };
        len.and_then(|len| self.take(len as usize)).inspect_err(|_| self.pos = start)
    }

    /// Reads a string; nil is empty.
    ///
    /// # Errors
    /// As [`Decoder::bytes`], and bytes that are not UTF-8.
    pub fn str(&mut self) -> Result<&'a str> {
        let at = self.error("string is not UTF-8");
        std::str::from_utf8(self.bytes()?).map_err(|_| at)
    }

    /// Reads the head of an array; nil is `None`. The elements follow.
    ///
    /// # Errors
    /// Another kind of value, or more elements than bytes are left.
    pub fn array(&mut self) -> Result<Option<usize>> {
        let start = self.pos;
        let marker = Marker::from_u8(self.first()?);
        self.pos += 1;
        let len = match marker {
            Marker::Null => return Ok(None),
            Marker::FixArray(n) => u64::from(n),
            Marker::Array16 => self.number(2)?,
            Marker::Array32 => self.number(4)?,
            _ => {
                self.pos = start;
                return Err(self.error("cannot decode into list"));
            }
        };
        self.count(len)
    }

    /// Reads the head of a map; nil is `None`. Keys and values follow.
    ///
    /// # Errors
    /// Another kind of value, or more entries than bytes are left.
    pub fn map(&mut self) -> Result<Option<usize>> {
        let start = self.pos;
        let marker = Marker::from_u8(self.first()?);
        self.pos += 1;
        let len = match marker {
            Marker::Null => return Ok(None),
            Marker::FixMap(n) => u64::from(n),
            Marker::Map16 => self.number(2)?,
            Marker::Map32 => self.number(4)?,
            _ => {
                self.pos = start;
                return Err(self.error("cannot decode into map"));
            }
        };
        self.count(len)
    }

    fn count(&self, len: u64) -> Result<Option<usize>> {
        // Every element takes one byte at least, so a count above what is left is a lie.
        if len > (self.bytes.len() - self.pos) as u64 {
            return Err(self.error("unexpected EOF"));
        }
        Ok(Some(len as usize))
    }

    /// Passes over the next value and hands back its bytes.
    ///
    /// # Errors
    /// A value that is cut off or malformed. Depth is no error: nothing nests here, and a [`Scanner`] has looked at
    /// all that came from a peer.
    pub fn raw(&mut self) -> Result<&'a [u8]> {
        let start = self.pos;
        // The kinds of the open maps and arrays do not matter here, so a count of the values still owed does.
        let mut owed: u64 = 1;
        while owed > 0 {
            let rest = self.bytes.get(self.pos..).unwrap_or_default();
            let first = *rest.first().ok_or_else(|| self.error("unexpected EOF"))?;
            let shape = shape(rest, first).map_err(|what| self.error(what))?;
            let Some((head, payload, children)) = shape else { return Err(self.error("unexpected EOF")) };
            self.take(head.saturating_add(payload))?;
            owed = (owed - 1).saturating_add(children);
            if owed > (self.bytes.len() - self.pos) as u64 {
                return Err(self.error("unexpected EOF"));
            }
        }
        Ok(&self.bytes[start..self.pos])
    }

    /// Passes over the next value.
    ///
    /// # Errors
    /// As [`Decoder::raw`].
    pub fn skip(&mut self) -> Result<()> {
        self.raw().map(|_| ())
    }
}

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

    fn byte(&mut self, marker: Marker) {
        self.out.push(marker.to_u8());
    }

    /// Writes nil.
    pub fn nil(&mut self) {
        self.byte(Marker::Null);
    }

    /// Writes a truth value.
    pub fn bool(&mut self, value: bool) {
        self.byte(if value { Marker::True } else { Marker::False });
    }

    /// Writes an unsigned integer (`uint` and index fields of Go).
    pub fn u64(&mut self, value: u64) {
        match value {
            0..=0x7f => self.out.push(value as u8),
            0x80..=0xff => self.out.extend([Marker::U8.to_u8(), value as u8]),
            0x100..=0xffff => {
                self.byte(Marker::U16);
                self.out.extend((value as u16).to_be_bytes());
            }
            0x1_0000..=0xffff_ffff => {
                self.byte(Marker::U32);
                self.out.extend((value as u32).to_be_bytes());
            }
            _ => {
                self.byte(Marker::U64);
                self.out.extend(value.to_be_bytes());
            }
        }
    }

    /// Writes a signed integer (`int`, durations, enums of Go): positive values too stay in the signed families.
    pub fn i64(&mut self, value: i64) {
        match value {
            -32..=127 => self.out.push(value as u8),
            -128..=-33 => self.out.extend([Marker::I8.to_u8(), value as u8]),
            -0x8000..=0x7fff => {
                self.byte(Marker::I16);
                self.out.extend((value as i16).to_be_bytes());
            }
            -0x8000_0000..=0x7fff_ffff => {
                self.byte(Marker::I32);
                self.out.extend((value as i32).to_be_bytes());
            }
            _ => {
                self.byte(Marker::I64);
                self.out.extend(value.to_be_bytes());
            }
        }
    }

    /// Writes a double.
    pub fn f64(&mut self, value: f64) {
        self.byte(Marker::F64);
        self.out.extend(value.to_bits().to_be_bytes());
    }

    /// Writes a byte string in the old raw family.
    pub fn bytes(&mut self, value: &[u8]) {
        match value.len() {
            len @ 0..=31 => self.byte(Marker::FixStr(len as u8)),
            len @ 32..=0xffff => {
                self.byte(Marker::Str16);
                self.out.extend((len as u16).to_be_bytes());
            }
            len => {
                self.byte(Marker::Str32);
                self.out.extend((len as u32).to_be_bytes());
            }
        }
        self.out.extend_from_slice(value);
    }

    /// Writes a string.
    pub fn str(&mut self, value: &str) {
        self.bytes(value.as_bytes());
    }

    /// Writes the head of an array of `len` elements.
    pub fn array(&mut self, len: usize) {
        match len {
            0..=15 => self.byte(Marker::FixArray(len as u8)),
            16..=0xffff => {
                self.byte(Marker::Array16);
                self.out.extend((len as u16).to_be_bytes());
            }
            _ => {
                self.byte(Marker::Array32);
                self.out.extend((len as u32).to_be_bytes());
            }
        }
    }

    /// Writes the head of a map of `len` entries.
    pub fn map(&mut self, len: usize) {
        match len {
            0..=15 => self.byte(Marker::FixMap(len as u8)),
            16..=0xffff => {
                self.byte(Marker::Map16);
                self.out.extend((len as u16).to_be_bytes());
            }
            _ => {
                self.byte(Marker::Map32);
                self.out.extend((len as u32).to_be_bytes());
            }
        }
    }

    /// Writes bytes that are values already.
    pub fn raw(&mut self, encoded: &[u8]) {
        self.out.extend_from_slice(encoded);
    }
}

/// A value with one form on the wire.
pub trait Msg: Sized {
    /// Writes the value.
    fn encode(&self, e: &mut Encoder);
    /// Reads the value; nil is its zero.
    ///
    /// # Errors
    /// Where the bytes are something else.
    fn decode(d: &mut Decoder<'_>) -> Result<Self>;

    /// The value as bytes.
    fn to_bytes(&self) -> Vec<u8> {
        let mut e = Encoder::new();
        self.encode(&mut e);
        e.out
    }

    /// Reads the value from the beginning of `bytes`; what follows is ignored.
    ///
    /// # Errors
    /// Where the bytes are something else.
    fn from_bytes(bytes: &[u8]) -> Result<Self> {
        Self::decode(&mut Decoder::new(bytes))
    }
}

/// The fields of a struct, so that a struct can lie flat within another, as Go embeds them.
pub trait Fields: Default {
    /// How many fields, embedded ones counted each.
    const COUNT: usize;
    /// Writes every field with its name, in declaration order.
    fn encode_fields(&self, e: &mut Encoder);
    /// Reads the value of the field called `key`. False, with nothing read, when there is no such field.
    ///
    /// # Errors
    /// Where the value is of another kind.
    fn set_field(&mut self, key: &[u8], d: &mut Decoder<'_>) -> Result<bool>;
    /// Reads the value of the field at place `nth` of the declaration. False, with nothing read, past the last.
    ///
    /// # Errors
    /// Where the value is of another kind.
    fn set_nth(&mut self, nth: usize, d: &mut Decoder<'_>) -> Result<bool>;
}

/// Reads a struct from a map (keys in any order, unknown ones skipped), an array in declaration order, or nil.
///
/// # Errors
/// Where the bytes are something else.
pub fn decode_struct<T: Fields>(d: &mut Decoder<'_>) -> Result<T> {
    let mut value = T::default();
    match d.kind()? {
        Kind::Nil => {
            d.nil()?;
        }
        Kind::Array => {
            for nth in 0..d.array()?.unwrap_or(0) {
                if !value.set_nth(nth, d)? {
                    d.skip()?;
                }
            }
        }
        Kind::Map => {
            for _ in 0..d.map()?.unwrap_or(0) {
                let key = d.bytes()?;
                if !value.set_field(key, d)? {
                    d.skip()?;
                }
            }
        }
        _ => return Err(d.error("only encoded map or array can be decoded into a struct")),
    }
    Ok(value)
}

macro_rules! plain {
    ($($type:ty: |$d:ident| $read:expr, |$v:ident, $e:ident| $write:expr;)*) => {$(
        impl Msg for $type {
            fn encode(&self, $e: &mut Encoder) {
                let $v = self;
                $write
            }
            fn decode($d: &mut Decoder<'_>) -> Result<Self> {
                $read
            }
        }
    )*};
}

plain! {
    bool: |d| d.bool(), |v, e| e.bool(*v);
    u64: |d| d.u64(), |v, e| e.u64(*v);
    u32: |d| narrow(d, |d| d.u64()), |v, e| e.u64(u64::from(*v));
    u8: |d| narrow(d, |d| d.u64()), |v, e| e.u64(u64::from(*v));
    u16: |d| narrow(d, |d| d.u64()), |v, e| e.u64(u64::from(*v));
    i64: |d| d.i64(), |v, e| e.i64(*v);
    i32: |d| narrow(d, |d| d.i64()), |v, e| e.i64(i64::from(*v));
    f64: |d| d.f64(), |v, e| e.f64(*v);
    String: |d| d.str().map(str::to_owned), |v, e| e.str(v);
    Arc<str>: |d| d.str().map(Arc::from), |v, e| e.str(v);
    Bytes: |d| d.bytes().map(|b| Bytes(b.to_vec())), |v, e| e.bytes(&v.0);
    Raw: |d| d.raw().map(|b| Raw(b.into())), |v, e| if v.0.is_empty() { e.nil() } else { e.raw(&v.0) };
}

fn narrow<W, N: TryFrom<W>>(d: &mut Decoder<'_>, read: impl FnOnce(&mut Decoder<'_>) -> Result<W>) -> Result<N> {
    let at = d.error("integer out of range");
    N::try_from(read(d)?).map_err(|_| at)
}

/// A byte string (`[]byte` of Go).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

/// Any one value, kept as it came. Empty stands for nil.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Raw(pub Arc<[u8]>);

impl fmt::Debug for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Raw({} bytes)", self.0.len())
    }
}

impl Raw {
    /// True for nil, written or left out.
    pub fn is_nil(&self) -> bool {
        self.0.is_empty() || self.0[..] == [0xc0]
    }
}

impl<T: Msg> Msg for Option<T> {
    fn encode(&self, e: &mut Encoder) {
        match self {
            Some(value) => value.encode(e),
            None => e.nil(),
        }
    }

    fn decode(d: &mut Decoder<'_>) -> Result<Self> {
        if d.nil()? { Ok(None) } else { T::decode(d).map(Some) }
    }
}

impl<T: Msg> Msg for Vec<T> {
    fn encode(&self, e: &mut Encoder) {
        e.array(self.len());
        for value in self {
            value.encode(e);
        }
    }

    fn decode(d: &mut Decoder<'_>) -> Result<Self> {
        let len = d.array()?.unwrap_or(0);
        // Grown as elements are really there, whatever the head claims.
        let mut values = Vec::new();
        for _ in 0..len {
            values.push(T::decode(d)?);
        }
        Ok(values)
    }
}

impl<T: Msg> Msg for std::collections::BTreeMap<String, T> {
    fn encode(&self, e: &mut Encoder) {
        e.map(self.len());
        for (key, value) in self {
            e.str(key);
            value.encode(e);
        }
    }

    fn decode(d: &mut Decoder<'_>) -> Result<Self> {
        let len = d.map()?.unwrap_or(0);
        let mut values = Self::new();
        for _ in 0..len {
            let key = d.str()?.to_owned();
            values.insert(key, T::decode(d)?);
        }
        Ok(values)
    }
}

/// Declares structs as Go peers know them: fields in declaration order with their wire names, and after `..` the
/// structs that lie flat within (Go's embedding), which come last or, with `..before`, first.
///
/// ```
/// holdfast::wire_structs! {
///     /// How far a reply is.
///     pub struct Meta {
///         /// The index.
///         index: u64 = "Index",
///     }
///     /// A reply.
///     pub struct Reply {
///         /// Who.
///         name: String = "Name",
///         ..meta: Meta,
///     }
/// }
/// use holdfast::wire::msgpack::Msg;
/// let reply = Reply { name: "a".into(), meta: Meta { index: 7 } };
/// assert_eq!(reply.to_bytes(), b"\x82\xa4Name\xa1a\xa5Index\x07");
/// assert_eq!(Reply::from_bytes(b"\x92\xa1a\x07").unwrap(), reply);
/// ```
#[macro_export]
macro_rules! wire_structs {
    ($(
        $(#[$meta:meta])*
        pub struct $name:ident {
            $($(#[$field_meta:meta])* $field:ident: $type:ty = $key:literal,)*
            $(..$(#[$flat_meta:meta])* $flat:ident: $flat_type:ty,)*
        }
    )*) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $type,)*
            $(
                $(#[$flat_meta])*
                #[doc = "Fields that lie flat in the same map."]
                pub $flat: $flat_type,
            )*
        }

        impl $crate::wire::msgpack::Fields for $name {
            const COUNT: usize = 0 $(+ { let _ = $key; 1 })*
                $(+ <$flat_type as $crate::wire::msgpack::Fields>::COUNT)*;

            fn encode_fields(&self, _e: &mut $crate::wire::msgpack::Encoder) {
                $(
                    _e.str($key);
                    $crate::wire::msgpack::Msg::encode(&self.$field, _e);
                )*
                $($crate::wire::msgpack::Fields::encode_fields(&self.$flat, _e);)*
            }

            fn set_field(
                &mut self,
                key: &[u8],
                _d: &mut $crate::wire::msgpack::Decoder<'_>,
            ) -> $crate::wire::msgpack::Result<bool> {
                $(
                    if key == $key.as_bytes() {
                        self.$field = $crate::wire::msgpack::Msg::decode(_d)?;
                        return Ok(true);
                    }
                )*
                $(
                    if $crate::wire::msgpack::Fields::set_field(&mut self.$flat, key, _d)? {
                        return Ok(true);
                    }
                )*
                Ok(false)
            }

            #[allow(unused_assignments, unused_mut)]
            fn set_nth(
                &mut self,
                nth: usize,
                _d: &mut $crate::wire::msgpack::Decoder<'_>,
            ) -> $crate::wire::msgpack::Result<bool> {
                let mut _at = 0;
                $(
                    if nth == _at {
                        self.$field = $crate::wire::msgpack::Msg::decode(_d)?;
                        return Ok(true);
                    }
                    _at += 1;
                    let _ = $key;
                )*
                $(
                    let count = <$flat_type as $crate::wire::msgpack::Fields>::COUNT;
                    if nth < _at + count {
                        return $crate::wire::msgpack::Fields::set_nth(&mut self.$flat, nth - _at, _d);
                    }
                    _at += count;
                )*
                Ok(false)
            }
        }

        impl $crate::wire::msgpack::Msg for $name {
            fn encode(&self, e: &mut $crate::wire::msgpack::Encoder) {
                e.map(<$name as $crate::wire::msgpack::Fields>::COUNT);
                $crate::wire::msgpack::Fields::encode_fields(self, e);
            }

            fn decode(d: &mut $crate::wire::msgpack::Decoder<'_>) -> $crate::wire::msgpack::Result<Self> {
                $crate::wire::msgpack::decode_struct(d)
            }
        }
    )*};
}
