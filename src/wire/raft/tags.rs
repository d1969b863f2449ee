//! Which frame an array is: its first value, and what follows. Numbers are never used for anything else.

use crate::wire::msgpack::{Decoder, Encoder, Result};

use super::fields::{Field, close, open};
use super::{CHUNK_BYTES_MAX, RaftFrame};

/// The tag of a hello.
pub(super) const HELLO: u64 = 1;
/// The tag of what may come in its place.
pub(super) const REFUSED: u64 = 2;

macro_rules! frames {
    ($($tag:literal => $name:ident $(($inner:ident))? $({ $($field:ident),* })?;)*) => {
        /// Writes a frame's array.
        pub(super) fn put(frame: &RaftFrame, e: &mut Encoder) {
            match frame {$(
                RaftFrame::$name $(($inner))? $({ $($field),* })? => {
                    e.array(1 + const { [$(stringify!($inner))? $($(stringify!($field)),*)?].len() });
                    e.u64($tag);
                    $($inner.put(e);)?
                    $($($field.put(e);)*)?
                }
            )*}
        }

        /// Reads what follows a tag, `len` values; an unknown tag is none.
        fn take_fields(tag: u64, len: usize, d: &mut Decoder<'_>) -> Result<Option<RaftFrame>> {
            let (frame, fields) = match tag {
                $($tag => {
                    let fields = const { [$(stringify!($inner))? $($(stringify!($field)),*)?].len() };
                    if len < fields {
                        return Err(d.error("too few fields"));
                    }
                    $(let $inner = Field::take(d)?;)?
                    $($(let $field = Field::take(d)?;)*)?
                    (RaftFrame::$name $(($inner))? $({ $($field),* })?, fields)
                })*
                _ => return Ok(None),
            };
            close(d, len.saturating_sub(fields))?;
            Ok(Some(frame))
        }
    };
}

frames! {
    1 => Hello(hello);
    2 => Refused { reason };
    3 => Message(message);
    4 => Beat(beat);
    5 => SnapshotBegin { transfer, message };
    6 => SnapshotChunk { transfer, number, bytes, last };
    7 => SnapshotAck { transfer, next, window };
    8 => SnapshotDone { transfer, error };
    9 => KeysWanted { key_ids };
    10 => Key { key_id, secret };
    11 => KeyKept { key_id };
}

/// Reads a frame's tag, and how many values follow it.
pub(super) fn take_tag(d: &mut Decoder<'_>) -> Result<(u64, usize)> {
    let more = open(d, 1)?;
    Ok((d.u64()?, more))
}

/// Reads the rest of a frame.
pub(super) fn take(tag: u64, len: usize, d: &mut Decoder<'_>) -> Result<RaftFrame> {
    let frame = take_fields(tag, len, d)?.ok_or_else(|| d.error("unknown tag"))?;
    if !d.at_end() {
        return Err(d.error("bytes behind the frame"));
    }
    match &frame {
        RaftFrame::SnapshotChunk { bytes, .. } if bytes.len() > CHUNK_BYTES_MAX => Err(d.error("chunk is too large")),
        _ => Ok(frame),
    }
}
