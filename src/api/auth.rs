//! Who is calling, as far as a node has to be told from others while ACLs are off.
//!
//! A node is proven by its SecretID (as token, or as argument where the method has one), by an identity that this
//! region signed, or by a connection that showed either before. Agents of the 1.1 line send no token, so for them
//! the connection is what counts; it is never enough to know a node's id. Source: endpoint notes, section 1.3.

use std::hint::black_box;

use crate::state::State;
use crate::state::node::Node;

use super::identity::{Checked, Identity};
use super::{Caller, Ctx};

/// What speaks for a caller who says to be a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// It is that node.
    Proven,
    /// Nothing was shown.
    Nothing,
    /// An identity of that node which is over, or from keys that are not known here.
    Stale,
    /// Something that is not this node's.
    Wrong,
}

/// What speaks for a caller who says to be `node` and shows `token`.
///
/// The connection is looked at first: a heartbeat on a proven one costs no signature check.
pub(super) fn prove(node: &Node, token: &str, caller: &Caller, state: &State, ctx: &Ctx) -> Proof {
    if caller.proven_node.as_deref() == Some(&*node.id) {
        return Proof::Proven;
    }
    if token.is_empty() {
        return Proof::Nothing;
    }
    if same_secret(token, &node.secret_id) {
        return Proof::Proven;
    }
    match Identity::parse(token) {
        Some(identity) if identity.node_id() == &*node.id => {
            match identity.check(state, ctx.signer.as_deref(), ctx.wall) {
                Checked::Valid => Proof::Proven,
                Checked::Expired | Checked::UnknownKey => Proof::Stale,
                Checked::Forged => Proof::Wrong,
            }
        }
        _ => Proof::Wrong,
    }
}

/// Whether a token could belong to a node of this id that is not registered (any more): nothing, a UUID as SecretIDs
/// are, or an identity of that node.
pub(super) fn may_have_been(node_id: &str, token: &str, state: &State, ctx: &Ctx) -> bool {
    if token.is_empty() || is_uuid(token) {
        return true;
    }
    Identity::parse(token).is_some_and(|identity| {
        identity.node_id() == node_id && identity.check(state, ctx.signer.as_deref(), ctx.wall) != Checked::Forged
    })
}

/// Whether the connection's certificate lets it call what only nodes and servers may; true where names are
/// not checked.
pub(super) fn tls_name_allows(caller: &Caller, ctx: &Ctx) -> bool {
    if !ctx.server.verify_tls_names {
        return true;
    }
    let allowed = |name: &String| {
        let region = &ctx.server.region;
        ["client", "server"].iter().any(|role| *name == format!("{role}.{region}.nomad"))
    };
    caller.tls_names.as_deref().is_some_and(|names| names.iter().any(allowed))
}

/// Whether two secrets are the same, in a time that depends on their lengths only. An empty one is no secret.
pub(super) fn same_secret(shown: &str, stored: &str) -> bool {
    let (shown, stored) = (shown.as_bytes(), stored.as_bytes());
    if shown.len() != stored.len() || stored.is_empty() {
        return false;
    }
    let different = shown.iter().zip(stored).fold(0u8, |bits, (a, b)| black_box(bits | (a ^ b)));
    black_box(different) == 0
}

/// Whether a text has the form of a UUID.
pub(super) fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}
