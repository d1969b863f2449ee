//! Tokens, policies and roles, and what they allow.
//!
//! Secrets are found by a hash and compared in constant time. Source: endpoint notes, sections 8 and 9.

pub mod rules;
pub(super) mod tokens;

use std::sync::Arc;

use crate::wire::body::acl::{AclPolicy, AclToken};

use self::rules::Rules;

/// A token, with what lookups need of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Token {
    /// As it was written, secret included; indexes and hash are set.
    pub body: AclToken,
    /// Nanoseconds since the Unix epoch when it stops working; `None` for never.
    pub expires_unix_nanos: Option<i64>,
}

impl Token {
    /// Whether it allows everything.
    pub fn is_management(&self) -> bool {
        self.body.kind == "management"
    }

    /// Whether its time is over.
    pub fn is_expired(&self, unix_nanos: i64) -> bool {
        self.expires_unix_nanos.is_some_and(|at| at <= unix_nanos)
    }
}

/// A policy, with its rules parsed once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {
    /// As it was written; indexes and hash are set.
    pub body: AclPolicy,
    /// What it says; nothing when its text cannot be read.
    pub rules: Arc<Rules>,
}
