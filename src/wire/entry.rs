//! A log entry: the leader's time, the client session that wrote it, and the command.
//!
//! Encoded as our own msgpack, versioned; every field that a later version adds is optional to a reader.

use std::collections::BTreeMap;

use crate::wire::body::acl::{AclPolicy, AclRole, AclToken};
use crate::wire::body::namespace::Namespace;
use crate::wire::body::node::{DrainStrategy, NodeEvent};
use crate::wire::body::operator::{AutopilotConfig, SchedulerConfiguration};
use crate::wire::msgpack::{DecodeError, Decoder, Encoder, Msg, Raw, Result};

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

/// The small numbers that commands have on disk. Never given out twice.
mod tag {
    pub(super) const NOOP: u64 = 0;
    pub(super) const NODE_REGISTER: u64 = 1;
    pub(super) const NODE_UPDATE_STATUS: u64 = 2;
    pub(super) const NODE_DEREGISTER: u64 = 3;
    pub(super) const NODE_UPDATE_DRAIN: u64 = 4;
    pub(super) const NODE_DRAIN_COMPLETE: u64 = 5;
    pub(super) const NODE_UPDATE_ELIGIBILITY: u64 = 6;
    pub(super) const NODE_EMIT_EVENTS: u64 = 7;
    pub(super) const SIGNING_KEY_ADD: u64 = 8;
    pub(super) const VAR_APPLY: u64 = 9;
    pub(super) const LOCK_RENEW: u64 = 10;
    pub(super) const LOCKS_EXPIRE: u64 = 11;
    pub(super) const LOCKS_GRACE: u64 = 12;
    pub(super) const LOCK_BREAK: u64 = 13;
    pub(super) const VAR_RESEAL: u64 = 14;
    pub(super) const ACL_BOOTSTRAP: u64 = 15;
    pub(super) const ACL_UPSERT_TOKENS: u64 = 16;
    pub(super) const ACL_DELETE_TOKENS: u64 = 17;
    pub(super) const ACL_EXPIRE_TOKENS: u64 = 18;
    pub(super) const ACL_UPSERT_POLICIES: u64 = 19;
    pub(super) const ACL_DELETE_POLICIES: u64 = 20;
    pub(super) const ACL_UPSERT_ROLES: u64 = 21;
    pub(super) const ACL_DELETE_ROLES: u64 = 22;
    pub(super) const NAMESPACE_UPSERT: u64 = 23;
    pub(super) const NAMESPACE_DELETE: u64 = 24;
    pub(super) const ROOT_KEY_DELETE: u64 = 25;
    pub(super) const AUTOPILOT_SET: u64 = 26;
    pub(super) const SCHEDULER_SET: u64 = 27;
    pub(super) const RESTORE_BEGIN: u64 = 28;
    pub(super) const RESTORE_CHUNK: u64 = 29;
    pub(super) const RESTORE_END: u64 = 30;
    pub(super) const ROOT_KEY_ADD: u64 = 31;
    pub(super) const SERVER_UPSERT: u64 = 32;
    pub(super) const SERVER_REMOVE: u64 = 33;
    pub(super) const DIGEST_MARK: u64 = 34;
    pub(super) const SESSION_OPEN: u64 = 35;
    pub(super) const SESSION_KEEP_ALIVE: u64 = 36;
    pub(super) const SESSION_CLOSE: u64 = 37;
    pub(super) const SESSIONS_EXPIRE: u64 = 38;
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

impl Command {
    /// Its number on disk, which tells kinds of writes apart.
    pub fn tag(&self) -> u64 {
        self.tag_and_len().0
    }

    /// The tag, and how many fields follow it.
    fn tag_and_len(&self) -> (u64, usize) {
        match self {
            Command::Noop => (tag::NOOP, 0),
            Command::NodeRegister { .. } => (tag::NODE_REGISTER, 1),
            Command::NodeUpdateStatus { .. } => (tag::NODE_UPDATE_STATUS, 6),
            Command::NodeDeregister { .. } => (tag::NODE_DEREGISTER, 1),
            Command::NodeUpdateDrain { .. } => (tag::NODE_UPDATE_DRAIN, 5),
            Command::NodeDrainComplete { .. } => (tag::NODE_DRAIN_COMPLETE, 1),
            Command::NodeUpdateEligibility { .. } => (tag::NODE_UPDATE_ELIGIBILITY, 2),
            Command::NodeEmitEvents { .. } => (tag::NODE_EMIT_EVENTS, 1),
            Command::SigningKeyAdd { .. } => (tag::SIGNING_KEY_ADD, 3),
            Command::VarApply(_) => (tag::VAR_APPLY, 1),
            Command::LockRenew(_) => (tag::LOCK_RENEW, 1),
            Command::LocksExpire { .. } => (tag::LOCKS_EXPIRE, 1),
            Command::LocksGrace { .. } => (tag::LOCKS_GRACE, 1),
            Command::LockBreak { .. } => (tag::LOCK_BREAK, 2),
            Command::VarReseal { .. } => (tag::VAR_RESEAL, 1),
            Command::AclBootstrap { .. } => (tag::ACL_BOOTSTRAP, 2),
            Command::AclUpsertTokens { .. } => (tag::ACL_UPSERT_TOKENS, 1),
            Command::AclDeleteTokens { .. } => (tag::ACL_DELETE_TOKENS, 1),
            Command::AclExpireTokens { .. } => (tag::ACL_EXPIRE_TOKENS, 1),
            Command::AclUpsertPolicies { .. } => (tag::ACL_UPSERT_POLICIES, 1),
            Command::AclDeletePolicies { .. } => (tag::ACL_DELETE_POLICIES, 1),
            Command::AclUpsertRoles { .. } => (tag::ACL_UPSERT_ROLES, 1),
            Command::AclDeleteRoles { .. } => (tag::ACL_DELETE_ROLES, 1),
            Command::NamespaceUpsert { .. } => (tag::NAMESPACE_UPSERT, 1),
            Command::NamespaceDelete { .. } => (tag::NAMESPACE_DELETE, 1),
            Command::RootKeyDelete { .. } => (tag::ROOT_KEY_DELETE, 1),
            Command::AutopilotSet { .. } => (tag::AUTOPILOT_SET, 2),
            Command::SchedulerSet { .. } => (tag::SCHEDULER_SET, 2),
            Command::RestoreBegin(_) => (tag::RESTORE_BEGIN, 1),
            Command::RestoreChunk(_) => (tag::RESTORE_CHUNK, 1),
            Command::RestoreEnd(_) => (tag::RESTORE_END, 1),
            Command::RootKeyAdd(_) => (tag::ROOT_KEY_ADD, 1),
            Command::ServerUpsert(_) => (tag::SERVER_UPSERT, 1),
            Command::ServerRemove { .. } => (tag::SERVER_REMOVE, 1),
            Command::DigestMark => (tag::DIGEST_MARK, 0),
            Command::SessionOpen(_) => (tag::SESSION_OPEN, 1),
            Command::SessionKeepAlive { .. } => (tag::SESSION_KEEP_ALIVE, 1),
            Command::SessionClose { .. } => (tag::SESSION_CLOSE, 1),
            Command::SessionsExpire { .. } => (tag::SESSIONS_EXPIRE, 1),
        }
    }

    fn encode_fields(&self, e: &mut Encoder) {
        match self {
            Command::Noop => {}
            // As a byte string, so that an entry can be read whatever an agent sent within it.
            Command::NodeRegister { node } => e.bytes(&node.0),
            Command::NodeUpdateStatus {
                node_id,
                status,
                event,
                updated_at,
                identity_signing_key_id,
                expected_modify_index,
            } => {
                e.str(node_id);
                e.str(status);
                event.encode(e);
                e.i64(*updated_at);
                e.str(identity_signing_key_id);
                expected_modify_index.encode(e);
            }
            Command::NodeDeregister { node_ids } => node_ids.encode(e),
            Command::NodeUpdateDrain { node_id, strategy, mark_eligible, meta, accessor_id } => {
                e.str(node_id);
                strategy.encode(e);
                e.bool(*mark_eligible);
                meta.encode(e);
                e.str(accessor_id);
            }
            Command::NodeDrainComplete { node_id } => e.str(node_id),
            Command::NodeUpdateEligibility { node_id, eligibility } => {
                e.str(node_id);
                e.str(eligibility);
            }
            Command::NodeEmitEvents { events } => events.encode(e),
            Command::SigningKeyAdd { key_id, public_key, create_time } => {
                e.str(key_id);
                e.bytes(public_key);
                e.i64(*create_time);
            }
            Command::VarApply(body) => body.encode(e),
            Command::LockRenew(body) => body.encode(e),
            Command::LocksExpire { locks } => locks.encode(e),
            Command::LocksGrace { grace } => grace.encode(e),
            Command::LockBreak { namespace, path } => {
                namespace.encode(e);
                path.encode(e);
            }
            Command::VarReseal { items } => items.encode(e),
            Command::AclBootstrap { token, reset_index } => {
                token.encode(e);
                reset_index.encode(e);
            }
            Command::AclUpsertTokens { tokens } => tokens.encode(e),
            Command::AclDeleteTokens { accessor_ids } => accessor_ids.encode(e),
            Command::AclExpireTokens { accessor_ids } => accessor_ids.encode(e),
            Command::AclUpsertPolicies { policies } => policies.encode(e),
            Command::AclDeletePolicies { names } => names.encode(e),
            Command::AclUpsertRoles { roles } => roles.encode(e),
            Command::AclDeleteRoles { ids } => ids.encode(e),
            Command::NamespaceUpsert { namespaces } => namespaces.encode(e),
            Command::NamespaceDelete { names } => names.encode(e),
            Command::RootKeyDelete { key_id } => key_id.encode(e),
            Command::AutopilotSet { config, cas } => {
                config.encode(e);
                cas.encode(e);
            }
            Command::SchedulerSet { config, cas } => {
                config.encode(e);
                cas.encode(e);
            }
            Command::RestoreBegin(body) => body.encode(e),
            Command::RestoreChunk(body) => body.encode(e),
            Command::RestoreEnd(body) => body.encode(e),
            Command::RootKeyAdd(body) => body.encode(e),
            Command::ServerUpsert(body) => body.encode(e),
            Command::ServerRemove { id } => e.str(id),
            Command::DigestMark => {}
            Command::SessionOpen(body) => body.encode(e),
            Command::SessionKeepAlive { id } | Command::SessionClose { id } => e.u64(*id),
            Command::SessionsExpire { ids } => ids.encode(e),
        }
    }

    /// Reads the tag and `fields` values after it.
    fn decode(d: &mut Decoder<'_>, fields: usize) -> Result<Command> {
        let unknown = d.error("unknown command tag");
        let tag = d.u64()?;
        let lacking = d.error("the entry lacks a field");
        let empty = Command::empty(tag).ok_or(unknown)?;
        let known = empty.tag_and_len().1;
        let later = fields.checked_sub(known).ok_or(lacking)?;
        let command = empty.decode_fields(d)?;
        skip_fields(d, later)?;
        Ok(command)
    }

    /// The command of a tag with nothing in it.
    fn empty(tag: u64) -> Option<Command> {
        let (text, texts) = (String::new, BTreeMap::new);
        Some(match tag {
            tag::NOOP => Command::Noop,
            tag::NODE_REGISTER => Command::NodeRegister { node: Raw::default() },
            tag::NODE_UPDATE_STATUS => Command::NodeUpdateStatus {
                node_id: text(),
                status: text(),
                event: None,
                updated_at: 0,
                identity_signing_key_id: text(),
                expected_modify_index: None,
            },
            tag::NODE_DEREGISTER => Command::NodeDeregister { node_ids: Vec::new() },
            tag::NODE_UPDATE_DRAIN => Command::NodeUpdateDrain {
                node_id: text(),
                strategy: None,
                mark_eligible: false,
                meta: texts(),
                accessor_id: text(),
            },
            tag::NODE_DRAIN_COMPLETE => Command::NodeDrainComplete { node_id: text() },
            tag::NODE_UPDATE_ELIGIBILITY => Command::NodeUpdateEligibility { node_id: text(), eligibility: text() },
            tag::NODE_EMIT_EVENTS => Command::NodeEmitEvents { events: BTreeMap::new() },
            tag::SIGNING_KEY_ADD => Command::SigningKeyAdd { key_id: text(), public_key: Vec::new(), create_time: 0 },
            tag::VAR_APPLY => Command::VarApply(VarApply::default()),
            tag::LOCK_RENEW => Command::LockRenew(LockName::default()),
            tag::LOCKS_EXPIRE => Command::LocksExpire { locks: Default::default() },
            tag::LOCKS_GRACE => Command::LocksGrace { grace: Default::default() },
            tag::LOCK_BREAK => Command::LockBreak { namespace: Default::default(), path: Default::default() },
            tag::VAR_RESEAL => Command::VarReseal { items: Default::default() },
            tag::ACL_BOOTSTRAP => Command::AclBootstrap { token: Default::default(), reset_index: Default::default() },
            tag::ACL_UPSERT_TOKENS => Command::AclUpsertTokens { tokens: Default::default() },
            tag::ACL_DELETE_TOKENS => Command::AclDeleteTokens { accessor_ids: Default::default() },
            tag::ACL_EXPIRE_TOKENS => Command::AclExpireTokens { accessor_ids: Default::default() },
            tag::ACL_UPSERT_POLICIES => Command::AclUpsertPolicies { policies: Default::default() },
            tag::ACL_DELETE_POLICIES => Command::AclDeletePolicies { names: Default::default() },
            tag::ACL_UPSERT_ROLES => Command::AclUpsertRoles { roles: Default::default() },
            tag::ACL_DELETE_ROLES => Command::AclDeleteRoles { ids: Default::default() },
            tag::NAMESPACE_UPSERT => Command::NamespaceUpsert { namespaces: Default::default() },
            tag::NAMESPACE_DELETE => Command::NamespaceDelete { names: Default::default() },
            tag::ROOT_KEY_DELETE => Command::RootKeyDelete { key_id: Default::default() },
            tag::AUTOPILOT_SET => Command::AutopilotSet { config: Default::default(), cas: Default::default() },
            tag::SCHEDULER_SET => Command::SchedulerSet { config: Default::default(), cas: Default::default() },
            tag::RESTORE_BEGIN => Command::RestoreBegin(RestoreBegin::default()),
            tag::RESTORE_CHUNK => Command::RestoreChunk(RestoreChunk::default()),
            tag::RESTORE_END => Command::RestoreEnd(RestoreEnd::default()),
            tag::ROOT_KEY_ADD => Command::RootKeyAdd(RootKey::default()),
            tag::SERVER_UPSERT => Command::ServerUpsert(ServerRecord::default()),
            tag::SERVER_REMOVE => Command::ServerRemove { id: String::new() },
            tag::DIGEST_MARK => Command::DigestMark,
            tag::SESSION_OPEN => Command::SessionOpen(SessionOpen::default()),
            tag::SESSION_KEEP_ALIVE => Command::SessionKeepAlive { id: 0 },
            tag::SESSION_CLOSE => Command::SessionClose { id: 0 },
            tag::SESSIONS_EXPIRE => Command::SessionsExpire { ids: Vec::new() },
            _ => return None,
        })
    }

    /// Fills an empty command with its values, in the order that [`Command::encode_fields`] writes them.
    fn decode_fields(mut self, d: &mut Decoder<'_>) -> Result<Command> {
        match &mut self {
            Command::Noop => {}
            Command::NodeRegister { node } => *node = Raw(d.bytes()?.into()),
            Command::NodeUpdateStatus {
                node_id,
                status,
                event,
                updated_at,
                identity_signing_key_id,
                expected_modify_index,
            } => {
                *node_id = Msg::decode(d)?;
                *status = Msg::decode(d)?;
                *event = Msg::decode(d)?;
                *updated_at = d.i64()?;
                *identity_signing_key_id = Msg::decode(d)?;
                *expected_modify_index = Msg::decode(d)?;
            }
            Command::NodeDeregister { node_ids } => *node_ids = Msg::decode(d)?,
            Command::NodeUpdateDrain { node_id, strategy, mark_eligible, meta, accessor_id } => {
                *node_id = Msg::decode(d)?;
                *strategy = Msg::decode(d)?;
                *mark_eligible = d.bool()?;
                *meta = Msg::decode(d)?;
                *accessor_id = Msg::decode(d)?;
            }
            Command::NodeDrainComplete { node_id } => *node_id = Msg::decode(d)?,
            Command::NodeUpdateEligibility { node_id, eligibility } => {
                *node_id = Msg::decode(d)?;
                *eligibility = Msg::decode(d)?;
            }
            Command::NodeEmitEvents { events } => *events = Msg::decode(d)?,
            Command::SigningKeyAdd { key_id, public_key, create_time } => {
                *key_id = Msg::decode(d)?;
                *public_key = d.bytes()?.to_vec();
                *create_time = d.i64()?;
            }
            Command::VarApply(body) => *body = Msg::decode(d)?,
            Command::LockRenew(body) => *body = Msg::decode(d)?,
            Command::LocksExpire { locks } => *locks = Msg::decode(d)?,
            Command::LocksGrace { grace } => *grace = Msg::decode(d)?,
            Command::LockBreak { namespace, path } => {
                *namespace = Msg::decode(d)?;
                *path = Msg::decode(d)?;
            }
            Command::VarReseal { items } => *items = Msg::decode(d)?,
            Command::AclBootstrap { token, reset_index } => {
                **token = Msg::decode(d)?;
                *reset_index = Msg::decode(d)?;
            }
            Command::AclUpsertTokens { tokens } => *tokens = Msg::decode(d)?,
            Command::AclDeleteTokens { accessor_ids } => *accessor_ids = Msg::decode(d)?,
            Command::AclExpireTokens { accessor_ids } => *accessor_ids = Msg::decode(d)?,
            Command::AclUpsertPolicies { policies } => *policies = Msg::decode(d)?,
            Command::AclDeletePolicies { names } => *names = Msg::decode(d)?,
            Command::AclUpsertRoles { roles } => *roles = Msg::decode(d)?,
            Command::AclDeleteRoles { ids } => *ids = Msg::decode(d)?,
            Command::NamespaceUpsert { namespaces } => *namespaces = Msg::decode(d)?,
            Command::NamespaceDelete { names } => *names = Msg::decode(d)?,
            Command::RootKeyDelete { key_id } => *key_id = Msg::decode(d)?,
            Command::AutopilotSet { config, cas } => {
                *config = Msg::decode(d)?;
                *cas = Msg::decode(d)?;
            }
            Command::SchedulerSet { config, cas } => {
                *config = Msg::decode(d)?;
                *cas = Msg::decode(d)?;
            }
            Command::RestoreBegin(body) => *body = Msg::decode(d)?,
            Command::RestoreChunk(body) => *body = Msg::decode(d)?,
            Command::RestoreEnd(body) => *body = Msg::decode(d)?,
            Command::RootKeyAdd(body) => *body = Msg::decode(d)?,
            Command::ServerUpsert(body) => *body = Msg::decode(d)?,
            Command::ServerRemove { id } => *id = Msg::decode(d)?,
            Command::DigestMark => {}
            Command::SessionOpen(body) => *body = Msg::decode(d)?,
            Command::SessionKeepAlive { id } | Command::SessionClose { id } => *id = d.u64()?,
            Command::SessionsExpire { ids } => *ids = Msg::decode(d)?,
        }
        Ok(self)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
