//! Sessions: the fields that a write carries its place in, and the methods that open, keep and close one.
//!
//! A session makes writes exactly once (Raft dissertation, 6.3; requirements R2.22 to R2.32). Its id is the index of the
//! entry that opened it. Each write in it has a number; whoever gets no answer sends the same write with the same
//! number again, to any server, and it is applied once at most: what was answered once is answered again.
//!
//! The numbers begin at 1; each new write has a higher one than all before it, a write that comes again has its own and
//! the same body. `AcknowledgedBelow` is the lowest number that was not answered yet: what is kept below it is dropped,
//! and a write below it is refused for good. A session is over once its TTL has passed without a sign of life both in
//! the time of the log and, from there on, on the leader's own clock. holdfast-protocol(7) tells authors of clients all
//! of this.
//!
//! Two fields may lie in the body of any request; peers that do not know them skip them:
//!
//! - [`STAMP`], a map as [`WriteStamp`], in a write;
//! - [`SEEN`], a number, in a read: the answer is to hold at least what was written up to this index.

use crate::wire::msgpack::{Bytes, Decoder, Encoder, Msg, Result};
use crate::wire_structs;

use super::query::{QueryMeta, QueryOptions, WriteMeta, WriteRequest};

/// The field of a write's place in its session.
pub const STAMP: &str = "HoldfastStamp";

/// The field of a read that is to see at least this index (R2.30).
pub const SEEN: &str = "HoldfastSeen";

/// Bytes of a session's key.
pub const KEY_BYTES: usize = 16;

/// The longest name of a session, bytes.
pub const MAX_NAME_BYTES: usize = 128;

/// What its owner shows for a session; a byte string of [`KEY_BYTES`] bytes. Never printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SessionKey(pub Vec<u8>);

impl SessionKey {
    /// As headers, files and people have it: hexadecimal digits.
    pub fn to_hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Reads it; `None` for anything but the digits of [`KEY_BYTES`] bytes.
    pub fn from_hex(text: &str) -> Option<SessionKey> {
        let digits: Vec<u32> = text.chars().map(|c| c.to_digit(16)).collect::<Option<_>>()?;
        if digits.len() != 2 * KEY_BYTES {
            return None;
        }
        let byte = |pair: &[u32]| u8::try_from(pair.iter().fold(0, |byte, digit| byte << 4 | digit)).ok();
        digits.chunks_exact(2).map(byte).collect::<Option<_>>().map(SessionKey)
    }
}

impl std::fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SessionKey")
    }
}

impl Eq for WriteStamp {}

impl Msg for SessionKey {
    fn encode(&self, e: &mut Encoder) {
        e.bytes(&self.0);
    }

    fn decode(d: &mut Decoder<'_>) -> Result<Self> {
        Bytes::decode(d).map(|bytes| SessionKey(bytes.0))
    }
}

wire_structs! {
    /// The place of a write in a session.
    pub struct WriteStamp {
        /// The session.
        id: u64 = "ID",
        /// Its key, as Session.Open gave it: nobody else can write in the session.
        key: SessionKey = "Key",
        /// The number of the write; from 1, and higher than that of every earlier one.
        sequence: u64 = "Sequence",
        /// Every write below this number was answered, and will not be asked for again.
        acknowledged_below: u64 = "AcknowledgedBelow",
    }
    /// Arguments of Session.Open.
    pub struct SessionOpenRequest {
        /// Nanoseconds without any sign of life after which the session is over; 0 for the default.
        ttl: i64 = "TTL",
        /// What people call the client.
        name: String = "Name",
        /// The id of the server whose own session it is; empty for a client's.
        server_id: String = "ServerID",
        /// With a server's id: that of its cluster, which is not told to clients.
        cluster_id: String = "ClusterID",
        ..write: WriteRequest,
    }
    /// The reply of Session.Open and of Session.KeepAlive.
    pub struct SessionReply {
        /// The session.
        id: u64 = "ID",
        /// Its key; empty in the reply of Session.KeepAlive.
        key: SessionKey = "Key",
        /// Nanoseconds.
        ttl: i64 = "TTL",
        ..meta: WriteMeta,
    }
    /// Arguments of Session.KeepAlive and of Session.Close; the latter answers with the index alone.
    pub struct SessionRequest {
        /// The session.
        id: u64 = "ID",
        /// Its key.
        key: SessionKey = "Key",
        ..write: WriteRequest,
    }
    /// Arguments of Session.Outcome: what became of a write whose answer was lost (R2.12).
    pub struct SessionOutcomeRequest {
        /// The session.
        id: u64 = "ID",
        /// Its key.
        key: SessionKey = "Key",
        /// The number of the write.
        sequence: u64 = "Sequence",
        ..query: QueryOptions,
    }
    /// The reply of Session.Outcome. A write that was not applied when this was answered may still be, as long as a
    /// copy of it is under way; once the session is closed or over it never will.
    pub struct SessionOutcomeReply {
        /// `applied`, `refused`, `not-applied`, `acknowledged` (it was answered, and is forgotten) or `expired`.
        outcome: String = "Outcome",
        /// The index of its entry, when it is known.
        write_index: u64 = "WriteIndex",
        /// Why it was refused.
        error: String = "Error",
        ..meta: QueryMeta,
    }
    /// One session, as operators see it. Its key is never shown.
    pub struct SessionStub {
        /// Its id, the index that it was opened at.
        id: u64 = "ID",
        /// What people call the client.
        name: String = "Name",
        /// The server whose own session it is; empty for a client's.
        server_id: String = "ServerID",
        /// Accessor of the token that opened it; empty without ACLs.
        accessor_id: String = "AccessorID",
        /// Nanoseconds.
        ttl: i64 = "TTL",
        /// Nanoseconds since the Unix epoch.
        opened: i64 = "Opened",
        /// Nanoseconds since the Unix epoch.
        deadline: i64 = "Deadline",
        /// Every write below this number was answered.
        acknowledged_below: u64 = "AcknowledgedBelow",
        /// Replies that are kept.
        replies: u64 = "Replies",
        /// Their size.
        reply_bytes: u64 = "ReplyBytes",
    }
    /// The reply of Session.List.
    pub struct SessionListReply {
        /// By id.
        sessions: Vec<SessionStub> = "Sessions",
        ..meta: QueryMeta,
    }
}
