//! A log entry: the leader's time, the client session that wrote it, and the command.
//!
//! Encoded as our own msgpack, versioned; every field that a later version adds is optional to a reader.

use std::collections::BTreeMap;

use crate::wire::body::acl::{AclPolicy, AclRole, AclToken};
use crate::wire::body::namespace::Namespace;
use crate::wire::body::node::{DrainStrategy, NodeEvent};
use crate::wire::body::operator::{AutopilotConfig, SchedulerConfiguration};
use crate::wire::msgpack::{DecodeError, Decoder, Encoder, Raw, Result};

mod codec;
pub mod key;
pub mod restore;
pub mod server;
pub mod session;
pub mod var;

use self::key::RootKey;
use self::restore::{RestoreBegin, RestoreChunk, RestoreEnd};
use self::server::ServerRecord;
use self::session::{SessionOpen, SessionStamp};
use self::var::{LockName, Resealed, VarApply};

/// Version of the encoding, the first value of each entry.
pub const ENTRY_VERSION: u64 = 1;

/// One entry of the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// When the leader proposed it: nanoseconds since the Unix epoch, never before the entry in front of it.
    /// The only time that replicated state knows.
    pub time_unix_nanos: i64,
    /// Who wrote it, when the writer has a session (exactly once; Raft dissertation 6.3).
    pub session: Option<SessionStamp>,
    /// What it does.
    pub command: Command,
}

/// What an entry does to the state.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Nothing: the barrier that a new leader writes.
    Noop,
    /// Adds or replaces a node (Node.Register).
    NodeRegister {
        /// The node as the agent sent it: a map with every key it came with, SecretID among them.
        node: Raw,
    },
    /// Changes a node's status (Node.UpdateStatus).
    NodeUpdateStatus {
        /// Which node.
        node_id: String,
        /// `initializing`, `ready` or `down`.
        status: String,
        /// An event to append, beside those the change itself makes.
        event: Option<NodeEvent>,
        /// Seconds since the Unix epoch, as the caller said; 0 for the entry's own time.
        updated_at: i64,
        /// The key that signed the identity given out with this heartbeat; empty keeps the old one.
        identity_signing_key_id: String,
        /// Set by the leader's own expiry: applied only if the node was not written since this ModifyIndex.
        expected_modify_index: Option<u64>,
    },
    /// Removes nodes, all or none (Node.Deregister, Node.BatchDeregister).
    NodeDeregister {
        /// Which.
        node_ids: Vec<String>,
    },
    /// Sets or removes a drain strategy (Node.UpdateDrain).
    NodeUpdateDrain {
        /// Which node.
        node_id: String,
        /// `None` ends the drain.
        strategy: Option<DrainStrategy>,
        /// Makes the node eligible when the strategy is removed.
        mark_eligible: bool,
        /// Kept in LastDrain.
        meta: BTreeMap<String, String>,
        /// The caller, as LastDrain.AccessorID names it.
        accessor_id: String,
    },
    /// The drainer found nothing left to move: removes the strategy, event `Node drain complete`.
    NodeDrainComplete {
        /// Which node.
        node_id: String,
    },
    /// Makes a node eligible or not (Node.UpdateEligibility).
    NodeUpdateEligibility {
        /// Which node.
        node_id: String,
        /// `eligible` or `ineligible`.
        eligibility: String,
    },
    /// Appends events to nodes (Node.EmitEvents).
    NodeEmitEvents {
        /// By node id.
        events: BTreeMap<String, Vec<NodeEvent>>,
    },
    /// Makes a signing key's public half known. The private half is on the servers' disks, never in the log.
    SigningKeyAdd {
        /// A UUID, the `kid` of tokens.
        key_id: String,
        /// Raw Ed25519 public key, 32 bytes.
        public_key: Vec<u8>,
        /// Nanoseconds since the Unix epoch.
        create_time: i64,
    },
    /// Writes variables and their locks, all or none (Variables.Apply).
    VarApply(VarApply),
    /// Renews a lock: its deadline is the entry's time and its TTL (Variables.RenewLock). No index changes.
    LockRenew(LockName),
    /// The leader's own: ends locks whose time is over; one that was renewed or given back meanwhile is left alone.
    LocksExpire {
        /// Which.
        locks: Vec<LockName>,
    },
    /// A new leader's own: no lock ends before the entry's time and this grace; once for each lock until it is
    /// renewed (R8.3).
    LocksGrace {
        /// Nanoseconds.
        grace: i64,
    },
    /// Ends a lock whoever holds it, without its delay (R8.10).
    LockBreak {
        /// The variable's namespace.
        namespace: String,
        /// Its path.
        path: String,
    },
    /// Puts items under another key.
    VarReseal {
        /// Which.
        items: Vec<Resealed>,
    },
    /// Makes the first management token (ACL.Bootstrap).
    AclBootstrap {
        /// The token, whole.
        token: Box<AclToken>,
        /// 0: only if none was ever made; otherwise only if the last one was made at this index.
        reset_index: u64,
    },
    /// Adds or replaces tokens (ACL.UpsertTokens). A known accessor keeps its secret, CreateTime and CreateIndex.
    AclUpsertTokens {
        /// Whole, secrets included; indexes are the entry's.
        tokens: Vec<AclToken>,
    },
    /// Removes tokens; unknown ones are passed over (the handler has refused them).
    AclDeleteTokens {
        /// Which.
        accessor_ids: Vec<String>,
    },
    /// The leader's own: removes those of these tokens whose ExpirationTime is over at the entry's time.
    AclExpireTokens {
        /// Which.
        accessor_ids: Vec<String>,
    },
    /// Adds or replaces policies (ACL.UpsertPolicies).
    AclUpsertPolicies {
        /// Whole; indexes are the entry's.
        policies: Vec<AclPolicy>,
    },
    /// Removes policies; unknown ones are passed over.
    AclDeletePolicies {
        /// Which.
        names: Vec<String>,
    },
    /// Adds or replaces roles (ACL.UpsertRoles).
    AclUpsertRoles {
        /// Whole; indexes are the entry's.
        roles: Vec<AclRole>,
    },
    /// Removes roles; unknown ones are passed over.
    AclDeleteRoles {
        /// Which.
        ids: Vec<String>,
    },
    /// Adds or replaces namespaces (Namespace.UpsertNamespaces).
    NamespaceUpsert {
        /// Whole; indexes are the entry's.
        namespaces: Vec<Namespace>,
    },
    /// Removes namespaces, all or none (Namespace.DeleteNamespaces).
    NamespaceDelete {
        /// Which.
        names: Vec<String>,
    },
    /// Forgets a key of the key ring (Keyring.Delete). Refused for the newest, and while a variable is under it.
    RootKeyDelete {
        /// Which.
        key_id: String,
    },
    /// Sets how servers are looked after (Operator.AutopilotSetConfiguration).
    AutopilotSet {
        /// The whole configuration.
        config: AutopilotConfig,
        /// Only if `config.modify_index` is that of the stored one.
        cas: bool,
    },
    /// Sets the scheduler's configuration, which is kept for those who ask (Operator.SchedulerSetConfiguration).
    SchedulerSet {
        /// The whole configuration.
        config: SchedulerConfiguration,
        /// Only if `config.modify_index` is that of the stored one.
        cas: bool,
    },
    /// A snapshot comes back.
    RestoreBegin(RestoreBegin),
    /// More of it.
    RestoreChunk(RestoreChunk),
    /// All of it is there.
    RestoreEnd(RestoreEnd),
    /// A new key of the key ring, which signs and seals from now on (Keyring.Rotate).
    RootKeyAdd(RootKey),
    /// The leader's own: a server is a member, or is reached at another address.
    ServerUpsert(ServerRecord),
    /// The leader's own: a server is no member any more.
    ServerRemove {
        /// Its id.
        id: String,
    },
    /// The leader's own: every server takes a digest of its state at this entry, to be compared (R8.18).
    DigestMark,
    /// Begins a session (Session.Open).
    SessionOpen(SessionOpen),
    /// A sign of life of a session that writes nothing (Session.KeepAlive). No index changes.
    SessionKeepAlive {
        /// Which.
        id: u64,
    },
    /// Ends a session (Session.Close).
    SessionClose {
        /// Which.
        id: u64,
    },
    /// The leader's own: ends sessions whose time is over; one that gave a sign of life meanwhile is left alone.
    SessionsExpire {
        /// Which.
        ids: Vec<u64>,
    },
}

/// Values of the array in front of the command's own: version, time, session, tag.
const HEAD_LEN: usize = 4;

impl Entry {
    /// The entry's bytes: an array of version, time, session or nil, the command's tag, and the command's fields.
    pub fn encode(&self) -> Vec<u8> {
        let mut e = Encoder::new();
        let (tag, fields) = self.command.tag_and_len();
        e.array(HEAD_LEN + fields);
        e.u64(ENTRY_VERSION);
        e.i64(self.time_unix_nanos);
        match &self.session {
            Some(stamp) => stamp.encode(&mut e),
            None => e.nil(),
        }
        e.u64(tag);
        self.command.encode_fields(&mut e);
        e.out
    }

    /// Reads an entry. Fields after the known ones are passed over: a later build may have added them.
    ///
    /// # Errors
    /// Bytes that are none, an unknown version or tag (at its offset; [`Entry::version_and_tag`] has the number),
    /// or bytes after the end.
    pub fn decode(bytes: &[u8]) -> Result<Entry> {
        let mut d = Decoder::new(bytes);
        let mut left = d.array()?.ok_or_else(|| d.error("an entry is a list"))?;
        let mut next = |d: &Decoder<'_>| {
            left = left.checked_sub(1).ok_or_else(|| d.error("the entry lacks a field"))?;
            Ok::<(), DecodeError>(())
        };
        next(&d)?;
        let at = d.error("unknown entry version");
        if d.u64()? != ENTRY_VERSION {
            return Err(at);
        }
        next(&d)?;
        let time_unix_nanos = d.i64()?;
        next(&d)?;
        let session = SessionStamp::decode(&mut d)?;
        next(&d)?;
        let command = Command::decode(&mut d, left)?;
        if !d.at_end() {
            return Err(d.error("bytes after the entry"));
        }
        Ok(Entry { time_unix_nanos, session, command })
    }

    /// The version and the command's tag of an entry's bytes, known to this build or not: for whoever reports an
    /// entry that [`Entry::decode`] refused.
    ///
    /// # Errors
    /// Bytes that do not even begin like an entry.
    pub fn version_and_tag(bytes: &[u8]) -> Result<(u64, u64)> {
        let mut d = Decoder::new(bytes);
        if d.array()?.unwrap_or(0) < HEAD_LEN {
            return Err(d.error("the entry lacks a field"));
        }
        let version = d.u64()?;
        d.skip()?;
        d.skip()?;
        Ok((version, d.u64()?))
    }
}

fn skip_fields(d: &mut Decoder<'_>, count: usize) -> Result<()> {
    (0..count).try_for_each(|_| d.skip())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
