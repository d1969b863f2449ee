//! The tables of tokens, policies and roles: what is read of them, and what each command does to them.
//!
//! A token keeps the names of policies and roles that are gone: they allow nothing until they are made again.
//!
//! **Invariants:** the secrets and the ends lead to exactly the tokens that are in the table, and the names of roles
//! to the roles.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use crate::base::id::Index;
use crate::state::acl::{Policy, Token, hashes};
use crate::state::events::{self, Event};
use crate::state::nodes::At;
use crate::state::secret::{SecretIndex, same_secret};
use crate::state::table::Table;
use crate::state::watch::WatchKey;
use crate::state::{Applied, ApplyResult, State};
use crate::wire::body::acl::{AclPolicy, AclRole, AclToken};
use crate::wire::entry::Command;

/// Tokens, policies, roles, and when the first token was made.
#[derive(Clone, Debug, Default)]
pub(in crate::state) struct AclTables {
    pub(super) tokens: Table<Token>,
    secrets: SecretIndex,
    /// When each token with an end ends, and its accessor.
    ends: OrdSet<(i64, Arc<str>)>,
    pub(super) policies: Table<Policy>,
    pub(super) roles: Table<AclRole>,
    /// Ids by name.
    role_names: OrdMap<Arc<str>, Arc<str>>,
    pub(super) bootstrap_index: Index,
}

impl AclTables {
    /// Adds or replaces a token.
    pub(super) fn put_token(&mut self, index: Index, token: Arc<Token>) {
        let accessor: Arc<str> = token.body.accessor_id.as_str().into();
        self.forget_token(&accessor);
        self.secrets.add(&token.body.secret_id, &accessor);
        if let Some(at) = token.expires_unix_nanos {
            self.ends.insert((at, Arc::clone(&accessor)));
        }
        self.tokens.put(index, accessor, token);
    }

    /// Forgets what leads to a token.
    fn forget_token(&mut self, accessor_id: &str) {
        let Some(token) = self.tokens.row(accessor_id) else { return };
        self.secrets.remove(&token.body.secret_id, accessor_id);
        if let Some(at) = token.expires_unix_nanos {
            self.ends.remove(&(at, Arc::from(accessor_id)));
        }
    }

    fn remove_token(&mut self, index: Index, accessor_id: &str) -> Option<Arc<Token>> {
        self.forget_token(accessor_id);
        self.tokens.remove(index, accessor_id)
    }

    /// Adds or replaces a policy.
    pub(super) fn put_policy(&mut self, index: Index, policy: Arc<Policy>) {
        self.policies.put(index, policy.body.name.as_str().into(), policy);
    }

    /// Adds or replaces a role.
    pub(super) fn put_role(&mut self, index: Index, role: AclRole) {
        let id: Arc<str> = role.id.as_str().into();
        self.forget_role(&id);
        self.role_names.insert(role.name.as_str().into(), Arc::clone(&id));
        self.roles.put(index, id, Arc::new(role));
    }

    /// Forgets what leads to a role.
    fn forget_role(&mut self, id: &str) {
        if let Some(role) = self.roles.row(id) {
            self.role_names.remove(role.name.as_str());
        }
    }

    /// Makes every index above `most` that one, and the tables' own too.
    pub(in crate::state) fn lower_indexes(&mut self, most: Index) {
        let lowered = |create: &mut u64, modify: &mut u64| {
            let is_low = *create <= most.0 && *modify <= most.0;
            (*create, *modify) = ((*create).min(most.0), (*modify).min(most.0));
            !is_low
        };
        self.tokens.lower(most, |token| {
            let mut token = token.clone();
            lowered(&mut token.body.create_index, &mut token.body.modify_index).then_some(token)
        });
        self.policies.lower(most, |policy| {
            let mut policy = policy.clone();
            lowered(&mut policy.body.create_index, &mut policy.body.modify_index).then_some(policy)
        });
        self.roles.lower(most, |role| {
            let mut role = role.clone();
            lowered(&mut role.create_index, &mut role.modify_index).then_some(role)
        });
        self.bootstrap_index = self.bootstrap_index.min(most);
    }

    fn bootstrap(&mut self, at: At, token: &AclToken, reset_index: u64) -> Applied {
        let made = self.bootstrap_index.0;
        if reset_index != made {
            return refused(if reset_index == 0 {
                format!("RPC Error:: 400,ACL bootstrap already done (reset index: {made})")
            } else {
                format!("RPC Error:: 400,Invalid bootstrap reset index (specified {reset_index}, reset index: {made})")
            });
        }
        match self.written_token(at, token) {
            Ok(token) => {
                self.put_token(at.index, Arc::new(token));
                self.bootstrap_index = at.index;
                changed(Vec::new())
            }
            Err(why) => refused(why),
        }
    }

    fn upsert_tokens(&mut self, at: At, tokens: &[AclToken]) -> Applied {
        // All are looked at before any is written.
        let tokens: Result<Vec<_>, _> = tokens.iter().map(|token| self.written_token(at, token)).collect();
        let tokens = match tokens {
            Ok(tokens) => tokens.into_iter().map(Arc::new),
            Err(why) => return refused(why),
        };
        let mut events = Vec::with_capacity(tokens.len());
        for token in tokens {
            events.push(Event::of_token(events::ACL_TOKEN_UPSERTED, &token));
            self.put_token(at.index, token);
        }
        changed_if_any(events)
    }

    /// A token as it is kept: a known one keeps its secret and when it was made.
    fn written_token(&self, at: At, asked: &AclToken) -> Result<Token, String> {
        let mut body = asked.clone();
        body.create_index = at.index.0;
        if let Some(known) = self.tokens.row(&asked.accessor_id) {
            body.secret_id.clone_from(&known.body.secret_id);
            body.create_time.clone_from(&known.body.create_time);
            body.create_index = known.body.create_index;
        }
        if body.accessor_id.is_empty() || body.secret_id.is_empty() {
            return Err("a token has an accessor and a secret".to_owned());
        }
        body.modify_index = at.index.0;
        body.hash = hashes::of_token(&body);
        Token::new(body).ok_or_else(|| "the token's expiration time is malformed".to_owned())
    }

    fn delete_tokens(&mut self, at: At, accessor_ids: &[String], doomed: impl Fn(&Token) -> bool) -> Applied {
        let mut events = Vec::new();
        for accessor_id in accessor_ids {
            if !self.tokens.row(accessor_id).is_some_and(|token| doomed(token)) {
                continue;
            }
            if let Some(token) = self.remove_token(at.index, accessor_id) {
                events.push(Event::of_token(events::ACL_TOKEN_DELETED, &token));
            }
        }
        changed_if_any(events)
    }

    fn upsert_policies(&mut self, at: At, policies: &[AclPolicy]) -> Applied {
        let mut events = Vec::with_capacity(policies.len());
        for asked in policies {
            let mut body = asked.clone();
            body.create_index = self.policies.row(&asked.name).map_or(at.index.0, |known| known.body.create_index);
            body.modify_index = at.index.0;
            body.hash = hashes::of_policy(&body);
            let policy = Arc::new(Policy::new(body));
            events.push(Event::of_policy(events::ACL_POLICY_UPSERTED, &policy));
            self.put_policy(at.index, policy);
        }
        changed_if_any(events)
    }

    fn delete_policies(&mut self, at: At, names: &[String]) -> Applied {
        let removed = names.iter().filter_map(|name| self.policies.remove(at.index, name));
        changed_if_any(removed.map(|policy| Event::of_policy(events::ACL_POLICY_DELETED, &policy)).collect())
    }

    fn upsert_roles(&mut self, at: At, roles: &[AclRole]) -> Applied {
        let before = self.clone();
        for asked in roles {
            if self.role_names.get(asked.name.as_str()).is_some_and(|id| **id != *asked.id) {
                *self = before;
                return refused(format!("role with name {} already exists", asked.name));
            }
            let mut role = asked.clone();
            role.create_index = self.roles.row(&asked.id).map_or(at.index.0, |known| known.create_index);
            role.modify_index = at.index.0;
            role.hash = hashes::of_role(&role);
            self.put_role(at.index, role);
        }
        if roles.is_empty() { Applied::default() } else { changed(Vec::new()) }
    }

    fn delete_roles(&mut self, at: At, ids: &[String]) -> Applied {
        let mut any = false;
        for id in ids {
            self.forget_role(id);
            any |= self.roles.remove(at.index, id).is_some();
        }
        if any { changed(Vec::new()) } else { Applied::default() }
    }

    /// Sees that what leads to rows leads to all of them and to no others.
    #[cfg(test)]
    pub(in crate::state) fn check_invariants(&self) {
        assert_eq!(self.secrets.pairs(), self.tokens.len());
        let ends = self.tokens.rows_from("").filter_map(|token| {
            assert!(self.secrets.candidates(&token.body.secret_id).iter().any(|id| **id == *token.body.accessor_id));
            token.expires_unix_nanos.map(|at| (at, Arc::from(token.body.accessor_id.as_str())))
        });
        assert_eq!(ends.collect::<OrdSet<(i64, Arc<str>)>>(), self.ends);
        let names = self.roles.rows_from("").map(|role| (Arc::from(&*role.name), Arc::from(&*role.id)));
        assert_eq!(names.collect::<OrdMap<Arc<str>, Arc<str>>>(), self.role_names);
    }
}

fn refused(why: impl Into<String>) -> Applied {
    Applied { result: ApplyResult::Refused(why.into()), ..Applied::default() }
}

fn changed(events: Vec<Event>) -> Applied {
    Applied { touched: vec![WatchKey::acl()].into(), events, ..Applied::default() }
}

/// For commands that say what they did in events: without any, nothing changed.
fn changed_if_any(events: Vec<Event>) -> Applied {
    if events.is_empty() { Applied::default() } else { changed(events) }
}

impl State {
    /// Applies a command about tokens, policies and roles.
    pub(in crate::state) fn apply_to_acl(&mut self, at: At, command: &Command) -> Applied {
        let acl = &mut self.acl;
        match command {
            Command::AclBootstrap { token, reset_index } => acl.bootstrap(at, token, *reset_index),
            Command::AclUpsertTokens { tokens } => acl.upsert_tokens(at, tokens),
            Command::AclDeleteTokens { accessor_ids } => acl.delete_tokens(at, accessor_ids, |_| true),
            Command::AclExpireTokens { accessor_ids } => {
                acl.delete_tokens(at, accessor_ids, |token| token.is_expired(at.time_unix_nanos))
            }
            Command::AclUpsertPolicies { policies } => acl.upsert_policies(at, policies),
            Command::AclDeletePolicies { names } => acl.delete_policies(at, names),
            Command::AclUpsertRoles { roles } => acl.upsert_roles(at, roles),
            Command::AclDeleteRoles { ids } => acl.delete_roles(at, ids),
            _ => Applied::default(),
        }
    }

    /// The token with this accessor.
    pub fn token(&self, accessor_id: &str) -> Option<&Arc<Token>> {
        self.acl.tokens.row(accessor_id)
    }

    /// The token with this secret, expired or not. Found by a hash, compared in constant time.
    pub fn token_by_secret(&self, secret_id: &str) -> Option<&Arc<Token>> {
        let candidates = self.acl.secrets.candidates(secret_id).iter();
        candidates.filter_map(|id| self.token(id)).find(|token| same_secret(&token.body.secret_id, secret_id))
    }

    /// Tokens in the order of their accessors, from the first at or after `from`.
    pub fn tokens_from<'a>(&'a self, from: &str) -> impl DoubleEndedIterator<Item = &'a Arc<Token>> + use<'a> {
        self.acl.tokens.rows_from(from)
    }

    /// The index of the last change of the tokens; 0 when there never was one.
    pub fn tokens_index(&self) -> Index {
        self.acl.tokens.index()
    }

    /// When the first token with an end ends, nanoseconds since the Unix epoch.
    pub fn next_token_expiry(&self) -> Option<i64> {
        self.acl.ends.get_min().map(|(at, _)| *at)
    }

    /// Accessors of tokens whose time is over at this time, at most so many, the first ended first.
    pub fn tokens_expired(&self, unix_nanos: i64, most: usize) -> Vec<String> {
        let over = self.acl.ends.iter().take_while(|(at, _)| *at <= unix_nanos);
        over.take(most).map(|(_, accessor)| accessor.to_string()).collect()
    }

    /// The policy of this name.
    pub fn policy(&self, name: &str) -> Option<&Arc<Policy>> {
        self.acl.policies.row(name)
    }

    /// Policies in the order of their names, from the first at or after `from`.
    pub fn policies_from<'a>(&'a self, from: &str) -> impl DoubleEndedIterator<Item = &'a Arc<Policy>> + use<'a> {
        self.acl.policies.rows_from(from)
    }

    /// The index of the last change of the policies; 0 when there never was one.
    pub fn policies_index(&self) -> Index {
        self.acl.policies.index()
    }

    /// The role with this id.
    pub fn role(&self, id: &str) -> Option<&Arc<AclRole>> {
        self.acl.roles.row(id)
    }

    /// The role of this name.
    pub fn role_by_name(&self, name: &str) -> Option<&Arc<AclRole>> {
        self.role(self.acl.role_names.get(name)?)
    }

    /// Roles in the order of their ids, from the first at or after `from`.
    pub fn roles_from<'a>(&'a self, from: &str) -> impl DoubleEndedIterator<Item = &'a Arc<AclRole>> + use<'a> {
        self.acl.roles.rows_from(from)
    }

    /// The index of the last change of the roles; 0 when there never was one.
    pub fn roles_index(&self) -> Index {
        self.acl.roles.index()
    }

    /// The index at which the first management token was made last; 0 for never.
    pub fn acl_bootstrap_index(&self) -> Index {
        self.acl.bootstrap_index
    }
}
