//! A write's place in its session, and the commands about sessions, as the log holds them.

use std::sync::Arc;

use crate::wire::body::session::SessionKey;
use crate::wire::msgpack::{Decoder, Encoder, Result};
use crate::wire_structs;

use super::skip_fields;

/// The place of a write in a client's session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionStamp {
    /// The session's id.
    pub session: u64,
    /// The number of this write in it.
    pub sequence: u64,
    /// Every write below this number was answered and will not be asked for again.
    pub acknowledged_below: u64,
    /// How its answer is made from what the state says; what it is, only the handlers know. Empty when the request
    /// itself tells.
    pub finish: Arc<[u8]>,
    /// A refusal is not remembered: the caller waits, and the same write will be proposed again.
    pub forgets_refusal: bool,
}

/// Values of a stamp that every version has.
const FIRST_FIELDS: usize = 3;
/// Values that this version writes.
const FIELDS: usize = 5;

impl SessionStamp {
    /// Appends it: a list.
    pub(super) fn encode(&self, e: &mut Encoder) {
        let short = self.finish.is_empty() && !self.forgets_refusal;
        e.array(if short { FIRST_FIELDS } else { FIELDS });
        e.u64(self.session);
        e.u64(self.sequence);
        e.u64(self.acknowledged_below);
        if !short {
            e.bytes(&self.finish);
            e.bool(self.forgets_refusal);
        }
    }

    /// Reads one, or nil. Values after the known ones are passed over.
    pub(super) fn decode(d: &mut Decoder<'_>) -> Result<Option<SessionStamp>> {
        let Some(len) = d.array()? else { return Ok(None) };
        if len < FIRST_FIELDS {
            return Err(d.error("the session lacks a field"));
        }
        let (session, sequence, acknowledged_below) = (d.u64()?, d.u64()?, d.u64()?);
        let mut stamp = SessionStamp { session, sequence, acknowledged_below, ..SessionStamp::default() };
        if len >= FIELDS {
            stamp.finish = d.bytes()?.into();
            stamp.forgets_refusal = d.bool()?;
            skip_fields(d, len - FIELDS)?;
        } else {
            skip_fields(d, len - FIRST_FIELDS)?;
        }
        Ok(Some(stamp))
    }
}

wire_structs! {
    /// A session that begins; its id is the index of the entry.
    pub struct SessionOpen {
        /// What its owner will show.
        key: SessionKey = "k",
        /// Nanoseconds without a sign of life after which it is over.
        ttl: i64 = "t",
        /// What people call the client.
        name: String = "n",
        /// The server whose own it is; empty for a client's.
        server_id: String = "s",
        /// The token that opened it; empty without ACLs.
        accessor_id: String = "a",
    }
}
