//! Keyring.*: the public halves of the keys that sign identities.
//!
//! Source: endpoint notes, section 11.

use crate::state::State;
use crate::state::watch::WatchKey;
use crate::wire::body::keyring::{ListPublicResponse, PublicKey};
use crate::wire::body::query::GenericRequest;
use crate::wire::msgpack::Bytes;

use super::answer::{Answer, arguments, blocking, body};
use super::{Ctx, Request};

/// What a key's age is compared with, nanoseconds (Nomad's default, 30 days). Keys are not replaced by themselves.
const ROTATION_THRESHOLD_NANOS: i64 = 720 * 3600 * 1_000_000_000;

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

/// Keyring.List.
pub(super) fn list(_: &Request<'_>, _: &State, _: &Ctx) -> Answer {
    todo!("key ring")
}

/// Keyring.Rotate.
pub(super) fn rotate(_: &Request<'_>, _: &State, _: &Ctx) -> Answer {
    todo!("key ring")
}

/// Keyring.Delete.
pub(super) fn delete(_: &Request<'_>, _: &State, _: &Ctx) -> Answer {
    todo!("key ring")
}
