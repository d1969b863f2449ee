//! The subset and the flavour of msgpack that Go peers write (go-msgpack with Nomad's handle).
//!
//! Written: strings and byte strings in the old raw family (never str8, never bin), signed integers as signed,
//! unsigned ones as unsigned, structs as maps in declaration order with every field. Read: anything that means the
//! same, in any order, with unknown keys skipped and nil for zero. Source: the transport notes, section 5.
//!
//! **Invariant:** no length from the wire is used before it met what is really there: nothing is allocated for
//! elements that have not arrived, and nothing recurses.

use std::fmt;

mod decode;
mod encode;
mod msg;
mod scan;

pub use decode::{Decoder, Kind};
pub use encode::Encoder;
pub use msg::{Bytes, Fields, Msg, Raw, decode_struct};
pub use scan::{MAX_DEPTH, Scan, Scanner};

/// Why bytes are not the value that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// Offset in bytes from the start of what the decoder was given, plus its base. Where a value is of another kind
    /// than asked for, the offset behind its first byte, as the Go codec counts.
    pub pos: u64,
    /// What was wrong there.
    pub what: &'static str,
    /// The first byte of a value of another kind than asked for.
    got: Option<u8>,
}

impl fmt::Display for DecodeError {
    /// In the words of the Go codec: `msgpack decode error [pos 43]: invalid byte descriptor ..., got: 0x81`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "msgpack decode error [pos {}]: {}", self.pos, self.what)?;
        match self.got {
            Some(byte) => write!(f, ", got: {byte:#04x}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for DecodeError {}

/// The short form of results here.
pub type Result<T> = std::result::Result<T, DecodeError>;
