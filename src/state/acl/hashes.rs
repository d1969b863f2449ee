//! The `Hash` of tokens, policies, roles and namespaces: SHA-256 over the fields that make them what they are.
//!
//! Opaque to everybody: replication compares them. Never over a secret, since hashes are shown.

use ring::digest;

use crate::wire::body::acl::{AclPolicy, AclRole, AclToken};
use crate::wire::body::namespace::Namespace;
use crate::wire::msgpack::{Encoder, Msg, Raw};

/// Hashes what `write` writes.
fn of(write: impl FnOnce(&mut Encoder)) -> Raw {
    let mut e = Encoder::new();
    write(&mut e);
    let hash = digest::digest(&digest::SHA256, &e.out);
    let mut e = Encoder::new();
    e.bytes(hash.as_ref());
    Raw(e.out.into())
}

/// Of a token. Roles count by their ids: their names may change.
pub(super) fn of_token(token: &AclToken) -> Raw {
    of(|e| {
        [&token.accessor_id, &token.name, &token.kind].into_iter().for_each(|text| e.str(text));
        token.policies.encode(e);
        token.roles.iter().flatten().for_each(|role| e.str(&role.id));
        e.bool(token.global);
        token.create_time.encode(e);
        token.expiration_time.encode(e);
    })
}

/// Of a policy.
pub(super) fn of_policy(policy: &AclPolicy) -> Raw {
    of(|e| {
        [&policy.name, &policy.description, &policy.rules].into_iter().for_each(|text| e.str(text));
        policy.job_acl.encode(e);
    })
}

/// Of a role.
pub(super) fn of_role(role: &AclRole) -> Raw {
    of(|e| {
        [&role.name, &role.description].into_iter().for_each(|text| e.str(text));
        role.policies.encode(e);
    })
}

/// Of a namespace: of everything but its hash and its indexes.
pub(in crate::state) fn of_namespace(namespace: &Namespace) -> Raw {
    let bare = Namespace { hash: Raw::default(), create_index: 0, modify_index: 0, ..namespace.clone() };
    of(|e| bare.encode(e))
}
