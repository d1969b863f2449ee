//! Commands to bytes and back: a small number for each kind, and its fields in order.

use std::collections::BTreeMap;

use crate::wire::msgpack::{Decoder, Encoder, Msg, Raw, Result};

use super::key::RootKey;
use super::restore::{RestoreBegin, RestoreChunk, RestoreEnd};
use super::server::ServerRecord;
use super::session::SessionOpen;
use super::var::{LockName, VarApply};
use super::{Command, skip_fields};

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

impl Command {
    /// Its number on disk, which tells kinds of writes apart.
    pub fn tag(&self) -> u64 {
        self.tag_and_len().0
    }

    /// The tag, and how many fields follow it.
    pub(super) fn tag_and_len(&self) -> (u64, usize) {
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

    pub(super) fn encode_fields(&self, e: &mut Encoder) {
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
    pub(super) fn decode(d: &mut Decoder<'_>, fields: usize) -> Result<Command> {
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
