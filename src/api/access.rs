//! Who is calling, and what they may do.
//!
//! Looked up anew for each run of a handler: a token that was removed, has ended or lost a policy counts from the next
//! run on. Keeps nothing and shows no secret. Source: endpoint notes, sections 1.2 to 1.4; Nomad `nomad/auth/auth.go`.

use std::fmt;
use std::sync::Arc;

use crate::state::State;
use crate::state::acl::Token;
use crate::state::acl::rules::{Acl, Rules};
use crate::state::node::Node;

use super::answer::{Failure, PERMISSION_DENIED};
use super::auth::is_uuid;
use super::identity::{Checked, Identity as SignedIdentity};
use super::{Ctx, Request};

/// The accessor of whoever shows no token, and the policy that says what they may do.
pub(super) const ANONYMOUS: &str = "anonymous";

/// Who is calling.
#[derive(Clone)]
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

impl fmt::Debug for Identity {
    /// Says who; never a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Identity::AclsOff => f.write_str("AclsOff"),
            Identity::Anonymous => f.write_str("Anonymous"),
            Identity::Token(token) => write!(f, "Token({})", token.body.accessor_id),
            Identity::Node(id) => write!(f, "Node({id})"),
        }
    }
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
            Identity::Anonymous => ANONYMOUS.to_owned(),
            Identity::Token(token) => token.body.accessor_id.clone(),
            Identity::Node(id) => id.to_string(),
        }
    }

    /// The same with its kind in front, as LastDrain.AccessorID has it: `token:<accessor>`, `client:<node id>`.
    pub(super) fn subject(&self) -> String {
        let kind = if matches!(self.identity, Identity::Node(_)) { "client" } else { "token" };
        format!("{kind}:{}", self.accessor())
    }

    /// The node that calls, when one does.
    pub(super) fn node<'a>(&self, state: &'a State) -> Option<&'a Arc<Node>> {
        match &self.identity {
            Identity::Node(id) => state.node(id),
            _ => None,
        }
    }

    /// Names of the policies that the caller holds, by itself and by its roles; whether they exist or not.
    pub(super) fn policy_names<'a>(&'a self, state: &'a State) -> Vec<&'a str> {
        match &self.identity {
            Identity::AclsOff | Identity::Node(_) => Vec::new(),
            Identity::Anonymous => vec![ANONYMOUS],
            Identity::Token(token) => policy_names(token, state),
        }
    }

    /// Whether the caller's token holds this role.
    pub(super) fn holds_role(&self, role_id: &str) -> bool {
        let Identity::Token(token) = &self.identity else { return false };
        token.body.roles.iter().flatten().any(|link| link.id == role_id)
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

/// Why nobody is known by what was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotKnown {
    /// A UUID that belongs to no token and to no node.
    NotFound,
    /// A token whose time is over.
    Expired,
    /// Neither a UUID nor in the form of a signed identity.
    NoForm,
    /// A signed identity that does not hold, or of a node that is not there.
    NotProven,
}

impl NotKnown {
    /// The text for those methods that say the reason; all others say `Permission denied`.
    pub(super) fn reason(self) -> &'static str {
        match self {
            NotKnown::NotFound => PERMISSION_DENIED,
            NotKnown::Expired => "ACL token expired",
            NotKnown::NoForm => {
                "failed to parse signed token: go-jose/go-jose: compact JWS format must have three parts"
            }
            NotKnown::NotProven => "failed to verify signed token: not a valid identity of a registered node",
        }
    }
}

/// Finds out who shows `auth_token`, and what they may do.
///
/// What else the request holds proves nothing here: over a proven connection an agent also carries the calls of its
/// own users.
///
/// # Errors
/// `Permission denied` for a token that is not known or over.
pub(super) fn access(auth_token: &str, _: &Request<'_>, state: &State, ctx: &Ctx) -> Result<Access, Failure> {
    identify(auth_token, state, ctx).map_err(|_| PERMISSION_DENIED.into())
}

/// As [`access`], for the methods that say why (ACL.WhoAmI, ACL.GetToken, ACL.GetTokens).
///
/// # Errors
/// The reason.
pub(super) fn access_with_reason(auth_token: &str, state: &State, ctx: &Ctx) -> Result<Access, Failure> {
    identify(auth_token, state, ctx).map_err(|why| why.reason().into())
}

/// Who shows this token. Policies and roles that do not exist are passed over.
pub(super) fn identify(auth_token: &str, state: &State, ctx: &Ctx) -> Result<Access, NotKnown> {
    if !ctx.server.acl_enabled {
        return Ok(Access { identity: Identity::AclsOff, acl: Acl::everything() });
    }
    if auth_token.is_empty() {
        return Ok(Access { identity: Identity::Anonymous, acl: acl_of(&[ANONYMOUS], state) });
    }
    let node = if is_uuid(auth_token) {
        if let Some(token) = state.token_by_secret(auth_token) {
            return by_token(token, state, ctx);
        }
        state.node_by_secret(auth_token).ok_or(NotKnown::NotFound)?
    } else {
        signed_by_node(auth_token, state, ctx)?
    };
    Ok(Access { identity: Identity::Node(Arc::clone(&node.id)), acl: Acl::default() })
}

fn by_token(token: &Arc<Token>, state: &State, ctx: &Ctx) -> Result<Access, NotKnown> {
    if token.is_expired(ctx.wall.unix_nanos()) {
        return Err(NotKnown::Expired);
    }
    let acl = if token.is_management() { Acl::everything() } else { acl_of(&policy_names(token, state), state) };
    Ok(Access { identity: Identity::Token(Arc::clone(token)), acl })
}

/// The node of a signed identity that holds.
fn signed_by_node<'a>(token: &str, state: &'a State, ctx: &Ctx) -> Result<&'a Arc<Node>, NotKnown> {
    if token.split('.').count() != 3 {
        return Err(NotKnown::NoForm);
    }
    let identity = SignedIdentity::parse(token).ok_or(NotKnown::NotProven)?;
    // The node is looked up first: that costs a thousandth of what the signature does.
    let node = state.node(identity.node_id()).ok_or(NotKnown::NotProven)?;
    match identity.check(state, ctx.signer.as_deref(), ctx.wall) {
        Checked::Valid => Ok(node),
        Checked::Expired | Checked::UnknownKey | Checked::Forged => Err(NotKnown::NotProven),
    }
}

/// Names of the policies of a token and of its roles, each once, sorted.
fn policy_names<'a>(token: &'a Token, state: &'a State) -> Vec<&'a str> {
    let own = token.body.policies.iter().flatten().map(String::as_str);
    let roles = token.body.roles.iter().flatten().filter_map(|link| state.role(&link.id));
    let by_roles = roles.flat_map(|role| role.policies.iter().flatten()).map(|policy| policy.name.as_str());
    let mut names: Vec<&str> = own.chain(by_roles).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn acl_of(names: &[&str], state: &State) -> Acl {
    let rules = |name: &&str| state.policy(name).map(|policy| Arc::<Rules>::clone(&policy.rules));
    Acl { management: false, policies: names.iter().filter_map(rules).collect() }
}
