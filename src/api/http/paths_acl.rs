//! `/v1/acl`, `/v1/namespaces` and `/v1/namespace`.
//!
//! Source: HTTP notes, sections 9 and 10.

use crate::wire::body::acl::{
    AclBootstrapRequest, AclPolicy, AclPolicyDeleteRequest, AclPolicySpecificRequest, AclPolicyUpsertRequest, AclRole,
    AclRoleByIdRequest, AclRoleByNameRequest, AclRoleDeleteRequest, AclRoleUpsertRequest, AclToken,
    AclTokenDeleteRequest, AclTokenListRequest, AclTokenSpecificRequest, AclTokenUpsertRequest,
};
use crate::wire::body::namespace::{
    Namespace, NamespaceDeleteRequest, NamespaceSpecificRequest, NamespaceUpsertRequest,
};
use crate::wire::body::node::go_zero_time;
use crate::wire::body::query::GenericRequest;

use super::forms::{self, IntroductionTokenRequest, OneTimeTokenExchangeRequest, OneTimeTokenUpsertRequest};
use super::paths::{Ask, Path, Planned};
use super::render::{Heads, Show};
use super::reply::{INVALID_METHOD, refusal};

/// Below `/v1/acl`.
pub(super) static ACL: &[Path] = &[
    Path { pattern: "bootstrap", plan: bootstrap },
    Path { pattern: "policies", plan: policies },
    Path { pattern: "policy/self", plan: own_policies },
    Path { pattern: "policy/*", plan: policy },
    Path { pattern: "tokens", plan: tokens },
    Path { pattern: "token", plan: new_token },
    Path { pattern: "token/self", plan: own_token },
    Path { pattern: "token/onetime", plan: one_time_token },
    Path { pattern: "token/onetime/exchange", plan: exchange },
    Path { pattern: "token/*", plan: token },
    Path { pattern: "roles", plan: roles },
    Path { pattern: "role", plan: new_role },
    Path { pattern: "role/name/:", plan: role_by_name },
    Path { pattern: "role/*", plan: role },
    Path { pattern: "identity/client-introduction-token", plan: introduction },
];

/// Below `/v1/namespaces`.
pub(super) static NAMESPACES: &[Path] = &[Path { pattern: "", plan: namespaces }];

/// Below `/v1/namespace`.
pub(super) static NAMESPACE: &[Path] =
    &[Path { pattern: "", plan: new_namespace }, Path { pattern: "*", plan: namespace }];

fn bootstrap(ask: &Ask<'_>) -> Planned {
    ask.put_only()?;
    let mut arguments = AclBootstrapRequest::default();
    if !ask.request.body.is_empty() {
        arguments = ask.body_or("failed to decode request body: ", forms::BOOTSTRAP)?;
    }
    arguments.write = ask.write();
    ask.call("ACL.Bootstrap", &arguments, Show::TokenWritten)
}

fn policies(ask: &Ask<'_>) -> Planned {
    ask.get_only()?;
    ask.call("ACL.ListPolicies", &GenericRequest { query: ask.read()? }, Show::List("Policies"))
}

/// Whoever is no manager is shown the policies it has, and no others.
fn own_policies(ask: &Ask<'_>) -> Planned {
    policies(ask)
}

fn policy(ask: &Ask<'_>) -> Planned {
    let name = ask.part(0).to_owned();
    if name.is_empty() {
        return Err(refusal(400, "Missing Policy Name"));
    }
    match ask.method() {
        "GET" => {
            let shown = Show::Item("Policy", "ACL policy not found");
            ask.call("ACL.GetPolicy", &AclPolicySpecificRequest { name, query: ask.read()? }, shown)
        }
        "PUT" | "POST" => {
            let policy: AclPolicy = ask.body(forms::POLICY)?;
            if policy.name != name {
                return Err(refusal(400, "ACL policy name does not match request path"));
            }
            let arguments = AclPolicyUpsertRequest { policies: vec![policy], write: ask.write() };
            ask.call("ACL.UpsertPolicies", &arguments, Show::Empty(Heads::Write))
        }
        "DELETE" => {
            let arguments = AclPolicyDeleteRequest { names: vec![name], write: ask.write() };
            ask.call("ACL.DeletePolicies", &arguments, Show::Empty(Heads::Write))
        }
        _ => Err(refusal(405, INVALID_METHOD)),
    }
}

fn tokens(ask: &Ask<'_>) -> Planned {
    ask.get_only()?;
    let global_only = ask.query.bool("global").unwrap_or(None).unwrap_or(false);
    ask.call("ACL.ListTokens", &AclTokenListRequest { global_only, query: ask.read()? }, Show::List("Tokens"))
}

fn new_token(ask: &Ask<'_>) -> Planned {
    ask.put_only()?;
    put_token(ask, "")
}

fn put_token(ask: &Ask<'_>, accessor: &str) -> Planned {
    let mut token: AclToken = ask.body(forms::TOKEN)?;
    if !accessor.is_empty() && token.accessor_id != accessor {
        return Err(refusal(400, "ACL token accessor does not match request path"));
    }
    if token.create_time.0.is_empty() {
        token.create_time = go_zero_time();
    }
    // Go's zero time means that there is none.
    token.expiration_time = token.expiration_time.filter(|time| !time.0.is_empty() && *time != go_zero_time());
    let arguments = AclTokenUpsertRequest { tokens: vec![token], write: ask.write() };
    ask.call("ACL.UpsertTokens", &arguments, Show::TokenWritten)
}

fn token(ask: &Ask<'_>) -> Planned {
    let accessor_id = ask.part(0).to_owned();
    if accessor_id.is_empty() {
        return Err(refusal(400, "Missing Token Accessor"));
    }
    match ask.method() {
        "GET" => {
            let arguments = AclTokenSpecificRequest { accessor_id, query: ask.read()? };
            ask.call("ACL.GetToken", &arguments, Show::Token)
        }
        "PUT" | "POST" => put_token(ask, &accessor_id),
        "DELETE" => {
            let arguments = AclTokenDeleteRequest { accessor_ids: vec![accessor_id], write: ask.write() };
            ask.call("ACL.DeleteTokens", &arguments, Show::Empty(Heads::Write))
        }
        _ => Err(refusal(405, INVALID_METHOD)),
    }
}

fn own_token(ask: &Ask<'_>) -> Planned {
    ask.get_only()?;
    ask.call("ACL.WhoAmI", &GenericRequest { query: ask.read()? }, Show::Caller)
}

fn one_time_token(ask: &Ask<'_>) -> Planned {
    ask.put_only()?;
    let arguments = OneTimeTokenUpsertRequest { write: ask.write() };
    ask.call("ACL.UpsertOneTimeToken", &arguments, Show::Whole(Heads::Write))
}

fn exchange(ask: &Ask<'_>) -> Planned {
    ask.put_only()?;
    let mut arguments: OneTimeTokenExchangeRequest = ask.body(forms::EXCHANGE)?;
    arguments.write = ask.write();
    ask.call("ACL.ExchangeOneTimeToken", &arguments, Show::Exchanged)
}

fn roles(ask: &Ask<'_>) -> Planned {
    ask.get_only()?;
    ask.call("ACL.ListRoles", &GenericRequest { query: ask.read()? }, Show::List("ACLRoles"))
}

fn new_role(ask: &Ask<'_>) -> Planned {
    ask.put_only()?;
    put_role(ask, "")
}

fn put_role(ask: &Ask<'_>, id: &str) -> Planned {
    let role: AclRole = ask.body(forms::ROLE)?;
    if !id.is_empty() && role.id != id {
        return Err(refusal(400, "ACL role ID does not match request path"));
    }
    let arguments = AclRoleUpsertRequest { roles: vec![role], allow_missing_policies: false, write: ask.write() };
    ask.call("ACL.UpsertRoles", &arguments, Show::First("ACLRoles"))
}

const ROLE: Show = Show::Item("ACLRole", "ACL role not found");

fn role_by_name(ask: &Ask<'_>) -> Planned {
    ask.get_only()?;
    ask.call("ACL.GetRoleByName", &AclRoleByNameRequest { name: ask.part(0).to_owned(), query: ask.read()? }, ROLE)
}

fn role(ask: &Ask<'_>) -> Planned {
    let id = ask.part(0).to_owned();
    match id.as_str() {
        "" => return Err(refusal(400, "missing ACL role ID")),
        "name/" => return Err(refusal(400, "missing ACL role name")),
        id if id.contains('/') => return Err(refusal(400, "invalid URI")),
        _ => {}
    }
    match ask.method() {
        "GET" => ask.call("ACL.GetRoleByID", &AclRoleByIdRequest { id, query: ask.read()? }, ROLE),
        "PUT" | "POST" => put_role(ask, &id),
        "DELETE" => {
            let arguments = AclRoleDeleteRequest { ids: vec![id], write: ask.write() };
            ask.call("ACL.DeleteRolesByID", &arguments, Show::Empty(Heads::Write))
        }
        _ => Err(refusal(405, INVALID_METHOD)),
    }
}

fn introduction(ask: &Ask<'_>) -> Planned {
    ask.put_only()?;
    let mut arguments: IntroductionTokenRequest = ask.body(forms::INTRODUCTION)?;
    arguments.write = ask.write();
    ask.call("ACL.CreateClientIntroductionToken", &arguments, Show::Only(&["JWT"]))
}

fn namespaces(ask: &Ask<'_>) -> Planned {
    ask.get_only()?;
    ask.call("Namespace.ListNamespaces", &GenericRequest { query: ask.read()? }, Show::List("Namespaces"))
}

fn new_namespace(ask: &Ask<'_>) -> Planned {
    ask.put_only()?;
    put_namespace(ask, "")
}

fn put_namespace(ask: &Ask<'_>, name: &str) -> Planned {
    let namespace: Namespace = ask.body(forms::NAMESPACE)?;
    if !name.is_empty() && namespace.name != name {
        return Err(refusal(400, "Namespace name does not match request path"));
    }
    let arguments = NamespaceUpsertRequest { namespaces: vec![namespace], write: ask.write() };
    ask.call("Namespace.UpsertNamespaces", &arguments, Show::Empty(Heads::Write))
}

fn namespace(ask: &Ask<'_>) -> Planned {
    let name = ask.part(0).to_owned();
    if name.is_empty() {
        return Err(refusal(400, "Missing Namespace Name"));
    }
    match ask.method() {
        "GET" => {
            let shown = Show::Item("Namespace", "Namespace not found");
            ask.call("Namespace.GetNamespace", &NamespaceSpecificRequest { name, query: ask.read()? }, shown)
        }
        "PUT" | "POST" => put_namespace(ask, &name),
        "DELETE" => {
            let arguments = NamespaceDeleteRequest { namespaces: vec![name], write: ask.write() };
            ask.call("Namespace.DeleteNamespaces", &arguments, Show::Empty(Heads::Write))
        }
        _ => Err(refusal(405, INVALID_METHOD)),
    }
}
