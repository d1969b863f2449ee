//! Who is calling, and what they may do.
//!
//! Source: endpoint notes, sections 1.2 to 1.4. A handler asks here first; what it hears as an error it answers with.

use std::sync::Arc;

use crate::state::State;
use crate::state::acl::Token;
use crate::state::acl::rules::Acl;

use super::answer::{Failure, PERMISSION_DENIED};
use super::{Ctx, Request};

/// Who is calling.
#[derive(Clone, Debug)]
pub(super) enum Identity {
    /// ACLs are off: everybody may do everything.
    AclsOff,
    /// No token was shown.
    Anonymous,
    /// A token.
    Token(Arc<Token>),
    /// A node, by its SecretID or a signed identity: its id.
    Node(Arc<str>),
}

/// Who is calling, and what they may do.
#[derive(Clone, Debug)]
pub(super) struct Access {
    /// Who.
    pub(super) identity: Identity,
    /// What.
    pub(super) acl: Acl,
}

impl Access {
    /// What LastDrain, locks and the audit log call the caller: an accessor, never a secret.
    pub(super) fn accessor(&self) -> String {
        match &self.identity {
            Identity::AclsOff => super::acl::DISABLED_ACCESSOR.to_owned(),
            Identity::Anonymous => "anonymous".to_owned(),
            Identity::Token(token) => token.body.accessor_id.clone(),
            Identity::Node(id) => id.to_string(),
        }
    }

    /// Goes on if `allowed`.
    ///
    /// # Errors
    /// `Permission denied` otherwise.
    pub(super) fn require(&self, allowed: bool) -> Result<(), Failure> {
        if allowed { Ok(()) } else { Err(PERMISSION_DENIED.into()) }
    }

    /// Goes on for management tokens, and while ACLs are off.
    ///
    /// # Errors
    /// `Permission denied` otherwise.
    pub(super) fn require_management(&self) -> Result<(), Failure> {
        self.require(self.acl.management)
    }
}

/// Finds out who shows `auth_token`, and what they may do.
///
/// # Errors
/// `Permission denied` for a token that is not known, over, or no token at all.
pub(super) fn access(auth_token: &str, request: &Request<'_>, state: &State, ctx: &Ctx) -> Result<Access, Failure> {
    let _ = (auth_token, request, state);
    if !ctx.server.acl_enabled {
        return Ok(Access { identity: Identity::AclsOff, acl: Acl::everything() });
    }
    todo!("acl")
}
