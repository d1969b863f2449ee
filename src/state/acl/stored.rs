//! Tokens, policies and roles in a snapshot. Rules are parsed anew, and what leads to rows is made from them.

use crate::base::id::Index;
use crate::state::State;
use crate::state::acl::{Policy, Token};
use crate::state::sections::{Section, tag};
use crate::wire::body::acl::{AclPolicy, AclRole, AclToken};
use crate::wire::msgpack::{Decoder, Msg, Result as Decoded};

/// Tokens, secrets included: whoever holds a snapshot holds them.
pub(in crate::state) const TOKENS: Section = Section {
    tag: tag::TOKENS,
    index: State::tokens_index,
    rows: |state| Box::new(state.acl.tokens.rows().map(|token| token.body.to_bytes())),
    restore_row: restore_token,
    restore_index: |state, index| state.acl.tokens.touch(index),
};

/// Policies, as they were written.
pub(in crate::state) const POLICIES: Section = Section {
    tag: tag::POLICIES,
    index: State::policies_index,
    rows: |state| Box::new(state.acl.policies.rows().map(|policy| policy.body.to_bytes())),
    restore_row: restore_policy,
    restore_index: |state, index| state.acl.policies.touch(index),
};

/// Roles.
pub(in crate::state) const ROLES: Section = Section {
    tag: tag::ROLES,
    index: State::roles_index,
    rows: |state| Box::new(state.acl.roles.rows().map(|role| role.to_bytes())),
    restore_row: restore_role,
    restore_index: |state, index| state.acl.roles.touch(index),
};

/// When the first management token was made: an index without rows.
pub(in crate::state) const BOOTSTRAP: Section = Section {
    tag: tag::ACL_BOOTSTRAP,
    index: State::acl_bootstrap_index,
    rows: |_| Box::new(std::iter::empty()),
    restore_row: |_, d| Err(d.error("a row where none belongs")),
    restore_index: |state, index| state.acl.bootstrap_index = index,
};

fn restore_token(state: &mut State, d: &mut Decoder<'_>) -> Decoded<()> {
    let disorder = d.error("tokens are out of order");
    let malformed = d.error("the token's expiration time is malformed");
    let body = AclToken::decode(d)?;
    if state.tokens_from(&body.accessor_id).next().is_some() {
        return Err(disorder);
    }
    let index = Index(body.modify_index);
    state.acl.put_token(index, Token::new(body).ok_or(malformed)?.into());
    Ok(())
}

fn restore_policy(state: &mut State, d: &mut Decoder<'_>) -> Decoded<()> {
    let disorder = d.error("policies are out of order");
    let body = AclPolicy::decode(d)?;
    if state.policies_from(&body.name).next().is_some() {
        return Err(disorder);
    }
    let index = Index(body.modify_index);
    state.acl.put_policy(index, Policy::new(body).into());
    Ok(())
}

fn restore_role(state: &mut State, d: &mut Decoder<'_>) -> Decoded<()> {
    let disorder = d.error("roles are out of order, or two have one name");
    let role = AclRole::decode(d)?;
    if state.roles_from(&role.id).next().is_some() || state.role_by_name(&role.name).is_some() {
        return Err(disorder);
    }
    let index = Index(role.modify_index);
    state.acl.put_role(index, role);
    Ok(())
}
