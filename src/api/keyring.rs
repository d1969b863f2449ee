//! Keyring.*: the keys that sign identities and seal variables: their public halves and their names, never a key.
//!
//! Source: endpoint notes, section 11; Nomad `nomad/keyring_endpoint.go`.

use crate::base::id::Index;
use crate::state::State;
use crate::state::acl::rules::OperatorCapability;
use crate::state::keyring::{ACTIVE_KEY, KEY_IN_USE, SigningKey};
use crate::state::watch::WatchKey;
use crate::wire::body::keyring::{
    KeyringDeleteRequest, KeyringListResponse, KeyringRotateRequest, KeyringRotateResponse, ListPublicResponse,
    PublicKey, RootKeyMeta,
};
use crate::wire::body::query::{GenericRequest, GenericResponse, WriteMeta};
use crate::wire::entry::Command;
use crate::wire::msgpack::Bytes;

use super::access::access;
use super::answer::{Answer, arguments, blocking, body, body_with, coded};
use super::outcome::{Effect, Finish, Outcome};
use super::{Ctx, Request};

/// What a key's age is compared with, nanoseconds (Nomad's default, 30 days). Keys are not replaced by themselves.
const ROTATION_THRESHOLD_NANOS: i64 = 720 * 3600 * 1_000_000_000;

/// What variables are sealed with.
const ALGORITHM: &str = "aes256-gcm";

/// Keyring.ListPublic, which everybody may read.
pub(super) fn list_public(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let args: GenericRequest = arguments(request)?;
    blocking(
        request,
        ctx,
        &args.query,
        state.signing_keys_index(),
        || vec![WatchKey::signing_keys()],
        |meta| {
            let public_keys = state.signing_keys().iter().map(|key| PublicKey {
                key_id: key.key_id.clone(),
                public_key: Bytes(key.public_key.clone()),
                algorithm: "EdDSA".to_owned(),
                usage: "sig".to_owned(),
                create_time: key.create_time,
            });
            Ok(body(&ListPublicResponse {
                public_keys: public_keys.collect(),
                rotation_threshold: ROTATION_THRESHOLD_NANOS,
                meta,
            }))
        },
    )
}

/// Keyring.List. Newest first; the newest is the active one. Older ones that variables are still to be taken from are
/// `rekeying`.
pub(super) fn list(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let args: GenericRequest = arguments(request)?;
    let access = access(&args.query.auth_token, request, state, ctx)?;
    access.require(access.acl.operator(OperatorCapability::KeyringRead))?;
    blocking(
        request,
        ctx,
        &args.query,
        state.signing_keys_index(),
        || vec![WatchKey::signing_keys()],
        |meta| {
            let rekeys = state.signing_keys().last().is_some_and(|key| key.rekey);
            let keys = state.signing_keys().iter().rev().enumerate().map(|(nth, key)| {
                let word = match nth {
                    0 => "active",
                    _ if rekeys && state.is_key_used(&key.key_id) => "rekeying",
                    _ => "inactive",
                };
                key_meta(key, word)
            });
            Ok(body(&KeyringListResponse { keys: keys.collect(), meta }))
        },
    )
}

fn key_meta(key: &SigningKey, state: &str) -> RootKeyMeta {
    RootKeyMeta {
        key_id: key.key_id.clone(),
        algorithm: ALGORITHM.to_owned(),
        create_time: key.create_time,
        create_index: key.create_index,
        modify_index: key.modify_index,
        state: state.to_owned(),
        publish_time: 0,
    }
}

/// Keyring.Rotate.
pub(super) fn rotate(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let args: KeyringRotateRequest = arguments(request)?;
    let access = access(&args.write.auth_token, request, state, ctx)?;
    access.require(access.acl.operator(OperatorCapability::KeyringRotate))?;
    if !args.algorithm.is_empty() && args.algorithm != ALGORITHM {
        return Err(coded(400, format!("unknown algorithm {:?}: {ALGORITHM} is the only one", args.algorithm)));
    }
    if args.publish_time != 0 {
        return Err(coded(400, "publish time must be 0: keys are in use as soon as they are there"));
    }
    if ctx.signer.is_none() {
        return Err(coded(503, "keyring has not been initialized yet"));
    }
    Ok(Outcome::MakeKey { finish: Finish::KeyringRotate { full: args.full } })
}

/// The reply: the key that was added at this index.
pub(super) fn finish_rotate(full: bool, index: Index, state: &State) -> Answer {
    let word = if full { "rekeying" } else { "active" };
    let key = state.signing_keys().iter().find(|key| key.create_index == index.0).map(|key| key_meta(key, word));
    let reply = KeyringRotateResponse { key, meta: WriteMeta { index: index.0 } };
    Ok(body_with(&reply, if full { vec![Effect::Reseal] } else { Vec::new() }))
}

/// Keyring.Delete. What is gone already is no error.
pub(super) fn delete(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let args: KeyringDeleteRequest = arguments(request)?;
    let access = access(&args.write.auth_token, request, state, ctx)?;
    access.require(access.acl.operator(OperatorCapability::KeyringDelete))?;
    if args.key_id.is_empty() {
        return Err(coded(400, "must specify key ID"));
    }
    let keys = state.signing_keys();
    if keys.last().is_some_and(|key| key.key_id == args.key_id) {
        return Err(coded(400, ACTIVE_KEY));
    }
    if keys.iter().all(|key| key.key_id != args.key_id) {
        return Ok(body(&GenericResponse::default()));
    }
    if state.is_key_used(&args.key_id) {
        return Err(coded(400, KEY_IN_USE));
    }
    let finish = Finish::KeyringDelete { key_id: args.key_id.clone() };
    Ok(Outcome::Propose { command: Command::RootKeyDelete { key_id: args.key_id }, finish })
}

/// The reply; the key's file is laid aside.
pub(super) fn finish_delete(key_id: &str, index: Index) -> Answer {
    let reply = GenericResponse { meta: WriteMeta { index: index.0 } };
    Ok(body_with(&reply, vec![Effect::ForgetKey(key_id.to_owned())]))
}
