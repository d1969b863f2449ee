//! What servers say to each other behind the raft byte (0x02): who they are, raft's messages, snapshots in chunks, and
//! keys of the key ring.
//!
//! A link is one connection, dialled by the server that sends: messages go from the dialler to whoever accepted, and
//! only acknowledgements come back, so that a server which nobody can dial hears nothing from its followers and stops
//! to lead (R8.5). Each frame is a length (u32, big-endian) and one msgpack array: tag, then the fields. Raft's own
//! messages are carried field by field and never parsed as protobuf.
//!
//! Structs within a frame are arrays too. What follows the fields that this build knows, at the end of any array, is
//! passed over: a newer build may add to it.

mod fields;
mod frames;
mod tags;

#[cfg(test)]
mod tests;

pub use frames::{FrameError, Frames, encode};

/// A frame above this is refused, bytes: an entry of the largest size with room for its head.
pub const FRAME_BYTES_MAX: usize = 24 * 1024 * 1024;

/// The same for what comes before the first hello: who speaks is not known yet.
pub const HELLO_BYTES_MAX: usize = 256 * 1024;

/// Bytes of a snapshot's chunk that a receiver takes at most.
pub const CHUNK_BYTES_MAX: usize = 1024 * 1024;

/// One frame.
#[derive(Clone, Debug, PartialEq)]
pub enum RaftFrame {
    /// The first frame of both sides: the dialler's, then the answer.
    Hello(Box<Hello>),
    /// The answer in place of a hello; the link is closed after it.
    Refused {
        /// Why, for the log.
        reason: String,
    },
    /// A message of the raft crate.
    Message(Box<RaftMessage>),
    /// Sent by the dialler when nothing else was for a while, and answered with another: the link is alive.
    Beat(Beat),
    /// A snapshot begins, or goes on after a link was lost; answered with [`RaftFrame::SnapshotAck`].
    SnapshotBegin {
        /// Names the transfer: the same for the same snapshot to the same receiver.
        transfer: u64,
        /// Raft's message that it belongs to, of type snapshot, with its meta.
        message: Box<RaftMessage>,
    },
    /// A chunk of it.
    SnapshotChunk {
        /// Of which transfer.
        transfer: u64,
        /// Counted from 0.
        number: u32,
        /// As `state::snapshot` wrote it.
        bytes: Vec<u8>,
        /// Nothing follows.
        last: bool,
    },
    /// Every chunk below this number is there; the sender may be this many chunks ahead (the receiver's window).
    SnapshotAck {
        /// Of which transfer.
        transfer: u64,
        /// The next chunk that is wanted.
        next: u32,
        /// How many may be on their way.
        window: u32,
    },
    /// The transfer has ended at the receiver: installed, or why not.
    SnapshotDone {
        /// Which transfer.
        transfer: u64,
        /// Empty when the snapshot is whole and was handed to raft.
        error: String,
    },
    /// Asks for keys of the key ring that the log names and the asker has not.
    KeysWanted {
        /// Which.
        key_ids: Vec<String>,
    },
    /// A key, as its file holds it; asked for, or to be kept before it is used (answered with [`RaftFrame::KeyKept`]).
    Key {
        /// Which.
        key_id: String,
        /// The file's bytes. Never logged.
        secret: KeyFile,
    },
    /// The key is on the receiver's disk.
    KeyKept {
        /// Which.
        key_id: String,
    },
}

/// The bytes of a key's file; shows nothing of itself.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyFile(pub Vec<u8>);

impl std::fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyFile(..)")
    }
}

/// Who speaks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hello {
    /// Version of this protocol; another one is refused.
    pub version: u64,
    /// Which cluster; empty for a server that belongs to none yet.
    pub cluster_id: String,
    /// Who.
    pub server: ServerHello,
    /// `bootstrap_expect` of its configuration.
    pub bootstrap_expect: u64,
    /// The founders it has promised itself to, their ids sorted; empty while it has not (R8 notes: bootstrap).
    pub founders: Vec<String>,
    /// Other servers of its region that it knows, itself left out: addresses spread this way.
    pub known: Vec<ServerHello>,
    /// Other regions that it knows, with addresses of their servers.
    pub regions: Vec<(String, Vec<String>)>,
    /// Whether it has left raft's configuration behind: it was removed and asks not to be added again.
    pub removed: bool,
}

/// A server as servers tell of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerHello {
    /// A UUID.
    pub id: String,
    /// As raft names it.
    pub replica: u64,
    /// Name without the region.
    pub name: String,
    /// The region.
    pub region: String,
    /// Its datacenter.
    pub datacenter: String,
    /// `host:port` that its RPC port is reached at.
    pub rpc_addr: String,
    /// The same for HTTP.
    pub http_addr: String,
    /// Its build.
    pub build: String,
    /// When it began to be at this address, nanoseconds since the Unix epoch by its own clock: the newer one counts.
    pub since: i64,
}

/// What a server says of itself now and then.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beat {
    /// Counted by the dialler; an answer carries the same number.
    pub number: u64,
    /// Its term.
    pub term: u64,
    /// The last entry it applied.
    pub applied: u64,
    /// The last entry of its log.
    pub last_index: u64,
    /// Raft's name of the leader it knows; 0 for none.
    pub leader: u64,
    /// It is about to stop.
    pub leaving: bool,
    /// The index at which `digest` was taken; 0 for none.
    pub digest_index: u64,
    /// Digests of the tables of its state at that index.
    pub digest: Vec<u8>,
}

/// A message of the raft crate, field by field (`eraftpb.Message` without what is deprecated).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RaftMessage {
    /// `MessageType` by number.
    pub kind: u8,
    /// Receiver.
    pub to: u64,
    /// Sender.
    pub from: u64,
    /// Term.
    pub term: u64,
    /// Term of the entry at `index`.
    pub log_term: u64,
    /// An index; what it means depends on the kind.
    pub index: u64,
    /// Entries.
    pub entries: Vec<RaftEntry>,
    /// Commit index.
    pub commit: u64,
    /// Its term.
    pub commit_term: u64,
    /// The snapshot's place, in a message of that kind.
    pub snapshot: Option<SnapshotPlace>,
    /// `request_snapshot`.
    pub request_snapshot: u64,
    /// Refused.
    pub reject: bool,
    /// Where the refuser's log may agree.
    pub reject_hint: u64,
    /// Opaque to the receiver.
    pub context: Vec<u8>,
    /// Priority of a candidate.
    pub priority: i64,
}

/// An entry of the log on the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RaftEntry {
    /// `EntryType` by number.
    pub kind: u8,
    /// Term.
    pub term: u64,
    /// Index.
    pub index: u64,
    /// The bytes.
    pub data: Vec<u8>,
}

/// Where a snapshot stands and who the members were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotPlace {
    /// The last entry in it.
    pub index: u64,
    /// That entry's term.
    pub term: u64,
    /// Members with a vote.
    pub voters: Vec<u64>,
    /// Members without.
    pub learners: Vec<u64>,
    /// Voters of the configuration that is being left, within a joint one.
    pub voters_outgoing: Vec<u64>,
    /// Voters of it that become learners.
    pub learners_next: Vec<u64>,
    /// The joint configuration is left by itself.
    pub auto_leave: bool,
}
