//! Tokens, policies and roles, and what they allow.
//!
//! Secrets are found by a hash and compared in constant time. Source: endpoint notes, sections 8 and 9.

pub(in crate::state) mod hashes;
mod hcl;
pub mod rules;
pub(in crate::state) mod stored;
pub(super) mod tokens;
mod verdict;
mod words;

use std::sync::Arc;

use crate::wire::body::acl::{AclPolicy, AclToken};
use crate::wire::body::node::{go_time_unix_nanos, go_zero_time};
use crate::wire::json::{go_duration_text, go_time_text, push_base64, push_json_string, to_json};
use crate::wire::msgpack::{Decoder, Raw};

use self::rules::Rules;

/// A token, with what lookups need of it.
#[derive(Clone, Default, PartialEq)]
pub struct Token {
    /// As it was written, secret included; indexes and hash are set.
    pub body: AclToken,
    /// Nanoseconds since the Unix epoch when it stops working; `None` for never.
    pub expires_unix_nanos: Option<i64>,
}

impl std::fmt::Debug for Token {
    /// Names its accessor; never shows its secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token({} at {})", self.body.accessor_id, self.body.modify_index)
    }
}

impl Token {
    /// A token of its body. `None` when its ExpirationTime is no time.
    pub(super) fn new(body: AclToken) -> Option<Token> {
        let expires_unix_nanos = match &body.expiration_time {
            Some(time) if !time.0.is_empty() && *time != go_zero_time() => Some(go_time_unix_nanos(&time.0)?),
            _ => None,
        };
        Some(Token { body, expires_unix_nanos })
    }

    /// Whether it allows everything.
    pub fn is_management(&self) -> bool {
        self.body.kind == "management"
    }

    /// Whether its time is over.
    pub fn is_expired(&self, unix_nanos: i64) -> bool {
        self.expires_unix_nanos.is_some_and(|at| at <= unix_nanos)
    }

    /// Appends it as JSON the way the HTTP API shows it, but for its secret, which is left empty.
    pub fn write_json(&self, out: &mut String) {
        let token = &self.body;
        let mut object = Object::begin(out);
        let ttl = token.expiration_ttl;
        object.text("ExpirationTTL", &if ttl == 0 { String::new() } else { go_duration_text(ttl) });
        object.text("AccessorID", &token.accessor_id);
        object.text("SecretID", "");
        object.text("Name", &token.name);
        object.text("Type", &token.kind);
        object.list("Policies", token.policies.as_deref(), |name, out| push_json_string(name, out));
        object.list("Roles", token.roles.as_deref(), |role, out| {
            let mut link = Object::begin(out);
            link.text("ID", &role.id);
            link.text("Name", &role.name);
            link.end();
        });
        object.plain("Global", if token.global { "true" } else { "false" });
        object.bytes("Hash", &token.hash);
        object.time("CreateTime", Some(&token.create_time.0));
        object.time("ExpirationTime", token.expiration_time.as_ref().map(|time| &*time.0));
        object.plain("CreateIndex", &token.create_index.to_string());
        object.plain("ModifyIndex", &token.modify_index.to_string());
        object.end();
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

impl Policy {
    /// A policy of its body.
    pub(super) fn new(mut body: AclPolicy) -> Policy {
        // Made anew when somebody reads the policy.
        body.rules_json = Raw::default();
        settle_nil(&mut body.job_acl);
        let rules = Arc::new(Rules::parse_stored(&body.rules));
        Policy { body, rules }
    }

    /// Appends it as JSON the way the HTTP API shows it, without RulesJSON.
    pub fn write_json(&self, out: &mut String) {
        let policy = &self.body;
        let mut object = Object::begin(out);
        object.text("Name", &policy.name);
        object.text("Description", &policy.description);
        object.text("Rules", &policy.rules);
        object.plain("RulesJSON", "null");
        object.value("JobACL", &policy.job_acl);
        object.bytes("Hash", &policy.hash);
        object.plain("CreateIndex", &policy.create_index.to_string());
        object.plain("ModifyIndex", &policy.modify_index.to_string());
        object.end();
    }
}

/// Nil has two forms, left out and written: keeps the first, so that a state is the same before and after a snapshot.
pub(in crate::state) fn settle_nil(value: &mut Raw) {
    if value.is_nil() {
        *value = Raw::default();
    }
}

/// A JSON object that is being written.
struct Object<'a> {
    out: &'a mut String,
    begun: bool,
}

impl Object<'_> {
    fn begin(out: &mut String) -> Object<'_> {
        out.push('{');
        Object { out, begun: false }
    }

    fn name(&mut self, name: &str) {
        if std::mem::replace(&mut self.begun, true) {
            self.out.push(',');
        }
        push_json_string(name, self.out);
        self.out.push(':');
    }

    /// A value that is JSON already.
    fn plain(&mut self, name: &str, json: &str) {
        self.name(name);
        self.out.push_str(json);
    }

    fn text(&mut self, name: &str, text: &str) {
        self.name(name);
        push_json_string(text, self.out);
    }

    fn list<T>(&mut self, name: &str, values: Option<&[T]>, write: impl Fn(&T, &mut String)) {
        let Some(values) = values else { return self.plain(name, "null") };
        self.name(name);
        self.out.push('[');
        for (nth, value) in values.iter().enumerate() {
            if nth > 0 {
                self.out.push(',');
            }
            write(value, self.out);
        }
        self.out.push(']');
    }

    /// A byte string in msgpack, as base64.
    fn bytes(&mut self, name: &str, value: &Raw) {
        match Decoder::new(&value.0).bytes() {
            Ok(bytes) if !value.is_nil() => {
                self.plain(name, "\"");
                push_base64(bytes, self.out);
                self.out.push('"');
            }
            _ => self.plain(name, "null"),
        }
    }

    /// Go's binary time.
    fn time(&mut self, name: &str, time: Option<&[u8]>) {
        match time.and_then(go_time_text) {
            Some(text) => self.text(name, &text),
            None => self.plain(name, "null"),
        }
    }

    /// Any msgpack value.
    fn value(&mut self, name: &str, value: &Raw) {
        self.name(name);
        let start = self.out.len();
        if value.is_nil() || to_json(&value.0, self.out).is_err() {
            self.out.truncate(start);
            self.out.push_str("null");
        }
    }

    fn end(self) {
        self.out.push('}');
    }
}
