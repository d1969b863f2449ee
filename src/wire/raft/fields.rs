//! Fields of raft frames in msgpack: structs are arrays in declaration order, byte strings are never lists of numbers.
//!
//! Memory is charged to the decoder for each element and each copy, so that a frame of many tiny ones cannot take many
//! times its size.

use crate::wire::msgpack::{Decoder, Encoder, Result};

use super::{Beat, Hello, KeyFile, RaftEntry, RaftMessage, ServerHello, SnapshotPlace};

/// What the heap takes beside each block of it.
const BLOCK_BYTES: usize = 16;

/// A value with one form in a frame.
pub(super) trait Field: Sized {
    /// Writes it.
    fn put(&self, e: &mut Encoder);
    /// Reads it.
    fn take(d: &mut Decoder<'_>) -> Result<Self>;
}

/// A struct: lists of them are lists, which lists of bytes are not.
pub(super) trait Struct: Field {}

/// Reads the head of an array that has `fields` values at least; says how many follow those.
pub(super) fn open(d: &mut Decoder<'_>, fields: usize) -> Result<usize> {
    let len = d.array()?.unwrap_or(0);
    len.checked_sub(fields).ok_or_else(|| d.error("too few fields"))
}

/// Passes over the fields of a newer build.
pub(super) fn close(d: &mut Decoder<'_>, more: usize) -> Result<()> {
    (0..more).try_for_each(|_| d.skip())
}

fn kept(d: &mut Decoder<'_>, bytes: usize) -> Result<()> {
    if bytes == 0 { Ok(()) } else { d.charge(bytes.saturating_add(BLOCK_BYTES)) }
}

macro_rules! plain {
    ($($type:ty: |$d:ident| $read:expr, |$v:ident, $e:ident| $write:expr;)*) => {$(
        impl Field for $type {
            fn put(&self, $e: &mut Encoder) {
                let $v = self;
                $write
            }
            fn take($d: &mut Decoder<'_>) -> Result<Self> {
                $read
            }
        }
    )*};
}

plain! {
    bool: |d| d.bool(), |v, e| e.bool(*v);
    u64: |d| d.u64(), |v, e| e.u64(*v);
    u32: |d| { let n = d.u64()?; u32::try_from(n).map_err(|_| d.error("integer out of range")) },
        |v, e| e.u64(u64::from(*v));
    u8: |d| { let n = d.u64()?; u8::try_from(n).map_err(|_| d.error("integer out of range")) },
        |v, e| e.u64(u64::from(*v));
    i64: |d| d.i64(), |v, e| e.i64(*v);
    String: |d| { let s = d.str()?; kept(d, s.len())?; Ok(s.to_owned()) }, |v, e| e.str(v);
    Vec<u8>: |d| { let b = d.bytes()?; kept(d, b.len())?; Ok(b.to_vec()) }, |v, e| e.bytes(v);
    KeyFile: |d| Vec::take(d).map(KeyFile), |v, e| e.bytes(&v.0);
    Vec<u64>: |d| list(d), |v, e| put_list(v, e);
    Vec<String>: |d| list(d), |v, e| put_list(v, e);
    Vec<(String, Vec<String>)>: |d| list(d), |v, e| put_list(v, e);
    (String, Vec<String>): |d| { let more = open(d, 2)?; let pair = (Field::take(d)?, Field::take(d)?); close(d, more)?; Ok(pair) },
        |v, e| { e.array(2); v.0.put(e); v.1.put(e) };
}

impl<T: Struct> Field for Vec<T> {
    fn put(&self, e: &mut Encoder) {
        put_list(self, e);
    }

    fn take(d: &mut Decoder<'_>) -> Result<Self> {
        list(d)
    }
}

impl<T: Struct> Field for Option<T> {
    fn put(&self, e: &mut Encoder) {
        match self {
            Some(value) => value.put(e),
            None => e.nil(),
        }
    }

    fn take(d: &mut Decoder<'_>) -> Result<Self> {
        if d.nil()? { Ok(None) } else { T::take(d).map(Some) }
    }
}

impl<T: Struct> Field for Box<T> {
    fn put(&self, e: &mut Encoder) {
        (**self).put(e);
    }

    fn take(d: &mut Decoder<'_>) -> Result<Self> {
        T::take(d).map(Box::new)
    }
}

fn put_list<T: Field>(values: &[T], e: &mut Encoder) {
    e.array(values.len());
    values.iter().for_each(|value| value.put(e));
}

/// Grown as elements are really there, whatever the head claims.
fn list<T: Field>(d: &mut Decoder<'_>) -> Result<Vec<T>> {
    let len = d.array()?.unwrap_or(0);
    let mut values = Vec::new();
    for _ in 0..len {
        d.charge(size_of::<T>())?;
        values.push(T::take(d)?);
    }
    Ok(values)
}

macro_rules! arrays {
    ($($name:ident { $($field:ident),* })*) => {$(
        impl Field for $name {
            fn put(&self, e: &mut Encoder) {
                e.array(const { [$(stringify!($field)),*].len() });
                $(self.$field.put(e);)*
            }

            fn take(d: &mut Decoder<'_>) -> Result<Self> {
                let more = open(d, const { [$(stringify!($field)),*].len() })?;
                let value = $name { $($field: Field::take(d)?),* };
                close(d, more)?;
                Ok(value)
            }
        }

        impl Struct for $name {}
    )*};
}

arrays! {
    Hello { version, cluster_id, server, bootstrap_expect, founders, known, regions, removed }
    ServerHello { id, replica, name, region, datacenter, rpc_addr, http_addr, build, since }
    Beat { number, term, applied, last_index, leader, leaving, digest_index, digest }
    RaftMessage {
        kind, to, from, term, log_term, index, entries, commit, commit_term, snapshot, request_snapshot, reject,
        reject_hint, context, priority
    }
    RaftEntry { kind, term, index, data }
    SnapshotPlace { index, term, voters, learners, voters_outgoing, learners_next, auto_leave }
}
