//! A world with ACLs on, and callers of every kind in it.

use super::*;
use crate::wire::body::acl::{AclPolicy, AclRole, AclRoleLink, AclToken};
use crate::wire::body::node::go_time;

/// The secret of the first token, which may do everything.
pub(super) const ROOT: &str = "00000000-aaaa-bbbb-cccc-00000000000f";
pub(super) const ROOT_ACCESSOR: &str = "00000000-aaaa-bbbb-cccc-000000000001";
/// A UUID that belongs to nobody.
pub(super) const NOBODY: &str = "99999999-aaaa-bbbb-cccc-000000000009";
pub(super) const DENIED: &str = "Permission denied";

/// Rules that give everything that rules can give, but for what is named.
pub(super) fn all_rules_but(left_out: &str) -> String {
    let namespace = "namespace \"*\" {\n policy = \"write\"\n variables {\n path \"*\" {\n \
                     capabilities = [\"list\", \"read\", \"write\", \"destroy\"]\n }\n }\n}\n";
    let plain = |what: &str| format!("{what} {{\n policy = \"write\"\n}}\n");
    [
        ("namespace", namespace.to_owned()),
        ("node", plain("node")),
        ("agent", plain("agent")),
        ("operator", plain("operator")),
    ]
    .into_iter()
    .filter(|(what, _)| *what != left_out)
    .map(|(_, text)| text)
    .collect()
}

impl World {
    /// With ACLs on, the first token ([`ROOT`]) and a node.
    pub(super) fn with_acls() -> World {
        let mut world = World::with_node();
        world.turn_acls_on();
        let token = AclToken {
            accessor_id: ROOT_ACCESSOR.to_owned(),
            secret_id: ROOT.to_owned(),
            kind: "management".to_owned(),
            global: true,
            ..AclToken::default()
        };
        world.write(Command::AclBootstrap { token: Box::new(token), reset_index: 0 });
        world
    }

    pub(super) fn turn_acls_on(&mut self) {
        self.ctx.server = Arc::new(ServerFacts { acl_enabled: true, ..ServerFacts::clone(&self.ctx.server) });
    }

    /// Calls with a token, and with chance of its own.
    pub(super) fn call_as(&mut self, token: &str, method: &str, fields: &[(&str, Vec<u8>)]) -> Came {
        self.ctx.seed += 1;
        let fields: Vec<_> = [("AuthToken", text(token)), ("Region", text("global"))]
            .into_iter()
            .chain(fields.iter().cloned())
            .collect();
        self.call(method, &fields)
    }

    pub(super) fn write_policy(&mut self, name: &str, rules: &str) {
        let policy = AclPolicy { name: name.to_owned(), rules: rules.to_owned(), ..AclPolicy::default() };
        self.write(Command::AclUpsertPolicies { policies: vec![policy] });
    }

    pub(super) fn write_role(&mut self, id: &str, name: &str, policies: &[&str]) {
        let links = policies.iter().map(|name| crate::wire::body::acl::AclPolicyLink { name: (*name).to_owned() });
        let role =
            AclRole { id: id.to_owned(), name: name.to_owned(), policies: Some(links.collect()), ..AclRole::default() };
        self.write(Command::AclUpsertRoles { roles: vec![role] });
    }

    /// Writes a client token and gives its secret; it ends after so many seconds, 0 for never.
    pub(super) fn write_token(&mut self, nth: u8, policies: &[&str], roles: &[&str], seconds: i64) -> String {
        let link = |id: &&str| AclRoleLink { id: (*id).to_owned(), name: String::new() };
        let token = AclToken {
            accessor_id: accessor(nth),
            secret_id: format!("5ec0de00-0000-0000-0000-0000000000{nth:02x}"),
            name: format!("token {nth}"),
            kind: "client".to_owned(),
            policies: Some(policies.iter().map(|name| (*name).to_owned()).collect()),
            roles: Some(roles.iter().map(link).collect()),
            expiration_time: (seconds != 0).then(|| go_time(NOW + seconds * 1_000_000_000)),
            create_time: go_time(NOW),
            ..AclToken::default()
        };
        let secret = token.secret_id.clone();
        self.write(Command::AclUpsertTokens { tokens: vec![token] });
        secret
    }

    /// A token with these rules, and nothing else.
    pub(super) fn token_with(&mut self, nth: u8, rules: &str) -> String {
        let name = format!("policy-{nth}");
        self.write_policy(&name, rules);
        self.write_token(nth, &[&name], &[], 0)
    }
}

/// The accessor of a token of [`World::write_token`].
pub(super) fn accessor(nth: u8) -> String {
    format!("acce5500-0000-0000-0000-0000000000{nth:02x}")
}

/// A list of these values.
pub(super) fn list(items: &[Vec<u8>]) -> Vec<u8> {
    let mut e = Encoder::new();
    e.array(items.len());
    items.iter().for_each(|item| e.raw(item));
    e.out
}

pub(super) fn list_of(items: &[&str]) -> Vec<u8> {
    list(&items.iter().map(|item| text(item)).collect::<Vec<_>>())
}
