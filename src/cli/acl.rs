//! `holdfast acl`: tokens, policies and roles.

use std::io::Write;

use serde_json::{Value, json};

use crate::cli::args::{AclCommand, PolicyCommand, RoleCommand, TokenCommand};
use crate::cli::output;
use crate::cli::{Context, Exit, Failure, read_input};
use crate::wire::body::acl::{
    AclBootstrapRequest, AclPolicy, AclPolicyDeleteRequest, AclPolicyLink, AclPolicyListResponse,
    AclPolicySpecificRequest, AclPolicyUpsertRequest, AclRole, AclRoleByIdRequest, AclRoleByNameRequest,
    AclRoleDeleteRequest, AclRoleLink, AclRoleListResponse, AclRoleUpsertRequest, AclRoleUpsertResponse, AclToken,
    AclTokenDeleteRequest, AclTokenListRequest, AclTokenListResponse, AclTokenSpecificRequest, AclTokenUpsertRequest,
    AclTokenUpsertResponse, SingleAclPolicyResponse, SingleAclRoleResponse, SingleAclTokenResponse, WhoAmIResponse,
};
use crate::wire::body::node::go_zero_time;
use crate::wire::body::query::{GenericRequest, GenericResponse};
use crate::wire::json::go_time_text;
use crate::wire::msgpack::Bytes;

/// Characters of a UUID.
const UUID_LEN: usize = 36;

/// Runs one of them.
///
/// # Errors
/// The client's, and things that are not there.
pub(crate) fn run(context: &Context, out: &mut dyn Write, command: &AclCommand) -> Result<Exit, Failure> {
    match command {
        AclCommand::Bootstrap { secret_file } => {
            let secret = secret_file.as_deref().map(read_input).transpose()?.unwrap_or_default();
            let request = AclBootstrapRequest { bootstrap_secret: secret.trim().to_owned(), write: context.write() };
            let reply: AclTokenUpsertResponse = context.client().call("ACL.Bootstrap", &request)?;
            show_tokens(context, out, &reply.tokens)
        }
        AclCommand::Token(command) => token(context, out, command),
        AclCommand::Policy(command) => policy(context, out, command),
        AclCommand::Role(command) => role(context, out, command),
    }
}

// Tokens.

fn token(context: &Context, out: &mut dyn Write, command: &TokenCommand) -> Result<Exit, Failure> {
    match command {
        TokenCommand::List => list_tokens(context, out),
        TokenCommand::Own => {
            let request = GenericRequest { query: context.query() };
            let reply: WhoAmIResponse = context.client().call("ACL.WhoAmI", &request)?;
            let identity = reply.identity.unwrap_or_default();
            match identity.acl_token {
                Some(token) => show_tokens(context, out, &[token]),
                None if context.json => {
                    output::json(out, &json!({"node": identity.client_id}))?;
                    Ok(Exit::Done)
                }
                None => {
                    output::pairs(out, &[("Node", output::or_dash(&identity.client_id))])?;
                    Ok(Exit::Done)
                }
            }
        }
        TokenCommand::Info { accessor } => show_tokens(context, out, &[fetch_token(context, accessor)?]),
        TokenCommand::Create { name, policy, role, management, global, ttl } => {
            let token = AclToken {
                name: name.clone(),
                kind: if *management { "management" } else { "client" }.to_owned(),
                policies: (!policy.is_empty()).then(|| policy.clone()),
                roles: role_links(role),
                global: *global,
                create_time: go_zero_time(),
                expiration_ttl: ttl.map_or(0, |ttl| i64::try_from(ttl.as_nanos()).unwrap_or(i64::MAX)),
                ..AclToken::default()
            };
            upsert_token(context, out, token)
        }
        TokenCommand::Update { name, policy, role, accessor } => {
            let mut token = fetch_token(context, accessor)?;
            if let Some(name) = name {
                token.name.clone_from(name);
            }
            if !policy.is_empty() {
                token.policies = Some(policy.clone());
            }
            if !role.is_empty() {
                token.roles = role_links(role);
            }
            upsert_token(context, out, token)
        }
        TokenCommand::Delete { accessor } => {
            let request = AclTokenDeleteRequest { accessor_ids: vec![accessor.clone()], write: context.write() };
            let reply: GenericResponse = context.client().call("ACL.DeleteTokens", &request)?;
            context.done(out, "Removed", accessor, reply.meta.index)
        }
    }
}

fn role_links(roles: &[String]) -> Option<Vec<AclRoleLink>> {
    let link = |role: &String| {
        let is_id = role.len() == UUID_LEN && role.matches('-').count() == 4;
        let (id, name) = if is_id { (role.clone(), String::new()) } else { (String::new(), role.clone()) };
        AclRoleLink { id, name }
    };
    (!roles.is_empty()).then(|| roles.iter().map(link).collect())
}

fn fetch_token(context: &Context, accessor: &str) -> Result<AclToken, Failure> {
    let request = AclTokenSpecificRequest { accessor_id: accessor.to_owned(), query: context.fresh_query() };
    let reply: SingleAclTokenResponse = context.client().call("ACL.GetToken", &request)?;
    reply
        .token
        .ok_or_else(|| Failure::Other(format!("there is no token {accessor:?}; see \"holdfast acl token list\"")))
}

fn upsert_token(context: &Context, out: &mut dyn Write, token: AclToken) -> Result<Exit, Failure> {
    let request = AclTokenUpsertRequest { tokens: vec![token], write: context.write() };
    let reply: AclTokenUpsertResponse = context.client().call("ACL.UpsertTokens", &request)?;
    show_tokens(context, out, &reply.tokens)
}

fn list_tokens(context: &Context, out: &mut dyn Write) -> Result<Exit, Failure> {
    let request = AclTokenListRequest { global_only: false, query: context.query() };
    let reply: AclTokenListResponse = context.client().call("ACL.ListTokens", &request)?;
    if context.json {
        let rows = reply.tokens.iter().map(|one| {
            json!({
                "accessor": one.accessor_id, "name": one.name, "type": one.kind, "policies": one.policies,
                "global": one.global, "expires": expiry(one.expiration_time.as_ref()),
            })
        });
        output::json(out, &Value::from(rows.collect::<Vec<_>>()))?;
        return Ok(Exit::Done);
    }
    let mut rows = vec![["Accessor", "Name", "Type", "Global", "Expires"].map(str::to_owned).to_vec()];
    rows.extend(reply.tokens.iter().map(|one| {
        vec![
            output::clean(&one.accessor_id),
            output::or_dash(&one.name),
            output::clean(&one.kind),
            one.global.to_string(),
            expiry(one.expiration_time.as_ref()).unwrap_or_else(|| "never".to_owned()),
        ]
    }));
    output::table(out, &rows)?;
    Ok(Exit::Done)
}

fn expiry(time: Option<&Bytes>) -> Option<String> {
    time.and_then(|time| go_time_text(&time.0))
}

fn show_tokens(context: &Context, out: &mut dyn Write, tokens: &[AclToken]) -> Result<Exit, Failure> {
    for token in tokens {
        let roles: Vec<&str> = token.roles.iter().flatten().map(|role| role.name.as_str()).collect();
        let policies = token.policies.clone().unwrap_or_default();
        if context.json {
            output::json(
                out,
                &json!({
                    "accessor": token.accessor_id, "secret": token.secret_id, "name": token.name, "type": token.kind,
                    "policies": policies, "roles": roles, "global": token.global,
                    "created": go_time_text(&token.create_time.0), "expires": expiry(token.expiration_time.as_ref()),
                    "create_index": token.create_index, "modify_index": token.modify_index,
                }),
            )?;
            continue;
        }
        output::pairs(
            out,
            &[
                ("Accessor", output::clean(&token.accessor_id)),
                ("Secret", output::or_dash(&token.secret_id)),
                ("Name", output::or_dash(&token.name)),
                ("Type", output::clean(&token.kind)),
                ("Policies", output::or_dash(&policies.join(", "))),
                ("Roles", output::or_dash(&roles.join(", "))),
                ("Global", token.global.to_string()),
                ("Created", go_time_text(&token.create_time.0).unwrap_or_default()),
                ("Expires", expiry(token.expiration_time.as_ref()).unwrap_or_else(|| "never".to_owned())),
            ],
        )?;
    }
    Ok(Exit::Done)
}

// Policies.

fn policy(context: &Context, out: &mut dyn Write, command: &PolicyCommand) -> Result<Exit, Failure> {
    match command {
        PolicyCommand::List => {
            let request = GenericRequest { query: context.query() };
            let reply: AclPolicyListResponse = context.client().call("ACL.ListPolicies", &request)?;
            let policies = &reply.policies;
            if context.json {
                let row = |name: &str, description: &str| json!({"name": name, "description": description});
                let rows: Vec<Value> = policies.iter().map(|one| row(&one.name, &one.description)).collect();
                output::json(out, &Value::from(rows))?;
            } else {
                let mut rows = vec![["Name", "Description"].map(str::to_owned).to_vec()];
                rows.extend(
                    policies.iter().map(|one| vec![output::clean(&one.name), output::or_dash(&one.description)]),
                );
                output::table(out, &rows)?;
            }
            Ok(Exit::Done)
        }
        PolicyCommand::Info { name } => {
            let policy = fetch_policy(context, name)?;
            let missing = || Failure::Other(format!("there is no policy {name:?}; see \"holdfast acl policy list\""));
            show_policy(context, out, &policy.ok_or_else(missing)?)
        }
        PolicyCommand::Apply { description, name, file } => {
            let rules = read_input(file)?;
            let description = match description {
                Some(description) => description.clone(),
                None => fetch_policy(context, name)?.map(|policy| policy.description).unwrap_or_default(),
            };
            let policy = AclPolicy { name: name.clone(), description, rules, ..AclPolicy::default() };
            let request = AclPolicyUpsertRequest { policies: vec![policy], write: context.write() };
            let reply: GenericResponse = context.client().call("ACL.UpsertPolicies", &request)?;
            context.done(out, "Applied", name, reply.meta.index)
        }
        PolicyCommand::Delete { name } => {
            let request = AclPolicyDeleteRequest { names: vec![name.clone()], write: context.write() };
            let reply: GenericResponse = context.client().call("ACL.DeletePolicies", &request)?;
            context.done(out, "Removed", name, reply.meta.index)
        }
    }
}

fn fetch_policy(context: &Context, name: &str) -> Result<Option<AclPolicy>, Failure> {
    let request = AclPolicySpecificRequest { name: name.to_owned(), query: context.fresh_query() };
    let reply: SingleAclPolicyResponse = context.client().call("ACL.GetPolicy", &request)?;
    Ok(reply.policy)
}

fn show_policy(context: &Context, out: &mut dyn Write, policy: &AclPolicy) -> Result<Exit, Failure> {
    if context.json {
        let value = json!({
            "name": policy.name, "description": policy.description, "rules": policy.rules,
            "create_index": policy.create_index, "modify_index": policy.modify_index,
        });
        output::json(out, &value)?;
        return Ok(Exit::Done);
    }
    output::pairs(
        out,
        &[
            ("Name", output::clean(&policy.name)),
            ("Description", output::or_dash(&policy.description)),
            ("Changed at index", policy.modify_index.to_string()),
        ],
    )?;
    writeln!(out, "\nRules")?;
    for line in policy.rules.lines() {
        writeln!(out, "{}", output::clean(line))?;
    }
    Ok(Exit::Done)
}

// Roles.

fn role(context: &Context, out: &mut dyn Write, command: &RoleCommand) -> Result<Exit, Failure> {
    let links = |names: &[String]| names.iter().map(|name| AclPolicyLink { name: name.clone() }).collect();
    match command {
        RoleCommand::List => {
            let request = GenericRequest { query: context.query() };
            let reply: AclRoleListResponse = context.client().call("ACL.ListRoles", &request)?;
            if context.json {
                let rows = reply.roles.iter().map(
                    |one| json!({"id": one.id, "name": one.name, "policies": policy_names(one.policies.as_ref())}),
                );
                output::json(out, &Value::from(rows.collect::<Vec<_>>()))?;
            } else {
                let mut rows = vec![["ID", "Name", "Policies"].map(str::to_owned).to_vec()];
                rows.extend(reply.roles.iter().map(|one| {
                    let policies = policy_names(one.policies.as_ref()).join(", ");
                    vec![output::clean(&one.id), output::clean(&one.name), output::or_dash(&policies)]
                }));
                output::table(out, &rows)?;
            }
            Ok(Exit::Done)
        }
        RoleCommand::Info { role } => show_roles(context, out, &[fetch_role(context, role)?]),
        RoleCommand::Create { name, description, policy } => {
            let role = AclRole {
                name: name.clone(),
                description: description.clone(),
                policies: Some(links(policy)),
                ..AclRole::default()
            };
            upsert_role(context, out, role)
        }
        RoleCommand::Update { name, description, policy, role } => {
            let mut role = fetch_role(context, role)?;
            if let Some(name) = name {
                role.name.clone_from(name);
            }
            if let Some(description) = description {
                role.description.clone_from(description);
            }
            if !policy.is_empty() {
                role.policies = Some(links(policy));
            }
            upsert_role(context, out, role)
        }
        RoleCommand::Delete { role } => {
            let id = fetch_role(context, role)?.id;
            let request = AclRoleDeleteRequest { ids: vec![id], write: context.write() };
            let reply: GenericResponse = context.client().call("ACL.DeleteRolesByID", &request)?;
            context.done(out, "Removed", role, reply.meta.index)
        }
    }
}

fn policy_names(links: Option<&Vec<AclPolicyLink>>) -> Vec<&str> {
    links.into_iter().flatten().map(|link| link.name.as_str()).collect()
}

/// By id when it looks like one, else by name.
fn fetch_role(context: &Context, role: &str) -> Result<AclRole, Failure> {
    let client = context.client();
    let reply: SingleAclRoleResponse = if role.len() == UUID_LEN {
        client.call("ACL.GetRoleByID", &AclRoleByIdRequest { id: role.to_owned(), query: context.fresh_query() })?
    } else {
        client
            .call("ACL.GetRoleByName", &AclRoleByNameRequest { name: role.to_owned(), query: context.fresh_query() })?
    };
    reply.role.ok_or_else(|| Failure::Other(format!("there is no role {role:?}; see \"holdfast acl role list\"")))
}

fn upsert_role(context: &Context, out: &mut dyn Write, role: AclRole) -> Result<Exit, Failure> {
    let request = AclRoleUpsertRequest { roles: vec![role], allow_missing_policies: false, write: context.write() };
    let reply: AclRoleUpsertResponse = context.client().call("ACL.UpsertRoles", &request)?;
    show_roles(context, out, &reply.roles)
}

fn show_roles(context: &Context, out: &mut dyn Write, roles: &[AclRole]) -> Result<Exit, Failure> {
    for role in roles {
        let policies = policy_names(role.policies.as_ref());
        if context.json {
            let value = json!({
                "id": role.id, "name": role.name, "description": role.description, "policies": policies,
                "create_index": role.create_index, "modify_index": role.modify_index,
            });
            output::json(out, &value)?;
        } else {
            output::pairs(
                out,
                &[
                    ("ID", output::clean(&role.id)),
                    ("Name", output::clean(&role.name)),
                    ("Description", output::or_dash(&role.description)),
                    ("Policies", output::or_dash(&policies.join(", "))),
                ],
            )?;
        }
    }
    Ok(Exit::Done)
}
