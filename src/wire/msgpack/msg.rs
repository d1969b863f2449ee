//! Values with one form on the wire, and structs as maps the way Go peers write them. Reads no sockets and keeps no
//! state; source: the transport notes, section 5.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::{Decoder, Encoder, Kind, Result};

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
    u32: |d| d.narrow(), |v, e| e.u64(u64::from(*v));
    u8: |d| d.narrow(), |v, e| e.u64(u64::from(*v));
    u16: |d| d.narrow(), |v, e| e.u64(u64::from(*v));
    i64: |d| d.i64(), |v, e| e.i64(*v);
    i32: |d| d.narrow(), |v, e| e.i64(i64::from(*v));
    f64: |d| d.f64(), |v, e| e.f64(*v);
    String: |d| d.str().and_then(|s| kept(d, s.len()).map(|()| s.to_owned())), |v, e| e.str(v);
    Arc<str>: |d| d.str().and_then(|s| kept(d, s.len()).map(|()| Arc::from(s))), |v, e| e.str(v);
    Bytes: |d| d.bytes().and_then(|b| kept(d, b.len()).map(|()| Bytes(b.to_vec()))), |v, e| e.bytes(&v.0);
    Raw: |d| d.raw().and_then(|b| kept(d, b.len()).map(|()| Raw(b.into()))),
        |v, e| if v.0.is_empty() { e.nil() } else { e.raw(&v.0) };
}

/// What the heap takes beside each block of it.
const BLOCK_BYTES: usize = 16;

/// Counts bytes that are copied to the heap.
fn kept(d: &mut Decoder<'_>, bytes: usize) -> Result<()> {
    if bytes == 0 { Ok(()) } else { d.charge(bytes.saturating_add(BLOCK_BYTES)) }
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
            d.charge(size_of::<T>())?;
            values.push(T::decode(d)?);
        }
        Ok(values)
    }
}

impl<T: Msg> Msg for BTreeMap<String, T> {
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
            let key = String::decode(d)?;
            d.charge(size_of::<(String, T)>())?;
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
        #[allow(unreachable_pub)]
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
