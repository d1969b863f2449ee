//! The tables of tokens, policies and roles: what is read of them, and what each command does to them.

use std::sync::Arc;

use crate::base::id::Index;
use crate::state::acl::{Policy, Token};
use crate::state::nodes::At;
use crate::state::{Applied, State};
use crate::wire::body::acl::AclRole;
use crate::wire::entry::Command;

/// Tokens, policies, roles, and when the first token was made.
#[derive(Clone, Debug, Default)]
pub(in crate::state) struct AclTables {}

#[allow(unused_variables)]
impl State {
    /// Applies a command about tokens, policies and roles.
    pub(in crate::state) fn apply_to_acl(&mut self, at: At, command: &Command) -> Applied {
        todo!("acl")
    }

    /// The token with this accessor.
    pub fn token(&self, accessor_id: &str) -> Option<&Arc<Token>> {
        None
    }

    /// The token with this secret, expired or not. Found by a hash, compared in constant time.
    pub fn token_by_secret(&self, secret_id: &str) -> Option<&Arc<Token>> {
        None
    }

    /// Tokens in the order of their accessors, from the first at or after `from`.
    pub fn tokens_from<'a>(&'a self, from: &str) -> impl DoubleEndedIterator<Item = &'a Arc<Token>> + use<'a> {
        std::iter::empty()
    }

    /// The index of the last change of the tokens; 0 when there never was one.
    pub fn tokens_index(&self) -> Index {
        Index(0)
    }

    /// When the first token with an end ends, nanoseconds since the Unix epoch.
    pub fn next_token_expiry(&self) -> Option<i64> {
        None
    }

    /// Accessors of tokens whose time is over at this time, at most so many.
    pub fn tokens_expired(&self, unix_nanos: i64, most: usize) -> Vec<String> {
        Vec::new()
    }

    /// The policy of this name.
    pub fn policy(&self, name: &str) -> Option<&Arc<Policy>> {
        None
    }

    /// Policies in the order of their names, from the first at or after `from`.
    pub fn policies_from<'a>(&'a self, from: &str) -> impl DoubleEndedIterator<Item = &'a Arc<Policy>> + use<'a> {
        std::iter::empty()
    }

    /// The index of the last change of the policies; 0 when there never was one.
    pub fn policies_index(&self) -> Index {
        Index(0)
    }

    /// The role with this id.
    pub fn role(&self, id: &str) -> Option<&Arc<AclRole>> {
        None
    }

    /// The role of this name.
    pub fn role_by_name(&self, name: &str) -> Option<&Arc<AclRole>> {
        None
    }

    /// Roles in the order of their ids, from the first at or after `from`.
    pub fn roles_from<'a>(&'a self, from: &str) -> impl DoubleEndedIterator<Item = &'a Arc<AclRole>> + use<'a> {
        std::iter::empty()
    }

    /// The index of the last change of the roles; 0 when there never was one.
    pub fn roles_index(&self) -> Index {
        Index(0)
    }

    /// The index at which the first management token was made last; 0 for never.
    pub fn acl_bootstrap_index(&self) -> Index {
        Index(0)
    }
}
