//! Roles: policies under one name, read, listed, written, removed.
//!
//! A caller reads those that its token holds. Source: endpoint notes, section 8; Nomad `nomad/acl_endpoint.go`,
//! `nomad/structs/acl.go`.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::base::id::Index;
use crate::state::State;
use crate::state::watch::WatchKey;
use crate::wire::body::acl::{
    AclPolicyLink, AclRole, AclRoleByIdRequest, AclRoleByNameRequest, AclRoleDeleteRequest, AclRoleListResponse,
    AclRoleListStub, AclRoleUpsertRequest, AclRoleUpsertResponse, AclRolesByIdRequest, AclRolesByIdResponse,
    SingleAclRoleResponse,
};
use crate::wire::body::query::{GenericRequest, QueryOptions, WriteMeta};
use crate::wire::entry::Command;
use crate::wire::msgpack::Msg;

use super::access::Access;
use super::acl::begin;
use super::acl_policies::{description_fault, is_name};
use super::answer::{Answer, Failure, blocking, body, coded};
use super::outcome::{Finish, Outcome};
use super::secrets::secret_uuid;
use super::var_check::errors;
use super::{Ctx, Request, page};

/// Policies of one role.
pub(super) const MAX_POLICIES: usize = 1024;

/// The error of a write that holds none.
const NONE_GIVEN: &str = "must specify as least one role";

/// ACL.UpsertRoles. Without an id a role is made, with one it is replaced.
pub(super) fn upsert(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let (args, access) = begin::<AclRoleUpsertRequest>(request, state, ctx, |args| &args.write.auth_token)?;
    access.require_management()?;
    if args.roles.is_empty() {
        return Err(coded(400, NONE_GIVEN));
    }
    let mut roles = args.roles;
    let mut names = BTreeSet::new();
    for (nth, role) in roles.iter_mut().enumerate() {
        complete(role, nth, args.allow_missing_policies, state, ctx)?;
        if !names.insert(role.name.clone()) {
            return Err(coded(400, format_args!("role with name {} is given twice", role.name)));
        }
    }
    let finish = Finish::AclRoles(roles.iter().map(|role| role.id.clone()).collect());
    Ok(Outcome::Propose { command: Command::AclUpsertRoles { roles }, finish })
}

/// Checks one role, and fills in what the server makes.
fn complete(role: &mut AclRole, nth: usize, missing_policies: bool, state: &State, ctx: &Ctx) -> Result<(), Failure> {
    let policies: BTreeSet<String> = role.policies.take().into_iter().flatten().map(|link| link.name).collect();
    let mut faults = Vec::new();
    if !is_name(&role.name) {
        faults.push(format!("invalid name '{}'", role.name.chars().take(256).collect::<String>()));
    }
    faults.extend(description_fault(&role.description));
    if policies.is_empty() {
        faults.push("at least one policy should be specified".to_owned());
    }
    if policies.len() > MAX_POLICIES {
        faults.push(format!("more than {MAX_POLICIES} policies"));
    }
    if !faults.is_empty() {
        return Err(coded(400, format_args!("role {nth} invalid: {}", errors(&faults))));
    }
    if !role.id.is_empty() && state.role(&role.id).is_none() {
        return Err(coded(404, format_args!("cannot find role {}", role.id)));
    }
    if state.role_by_name(&role.name).is_some_and(|other| other.id != role.id) {
        return Err(coded(400, format_args!("role with name {} already exists", role.name)));
    }
    if let Some(missing) = policies.iter().find(|name| !missing_policies && state.policy(name).is_none()) {
        return Err(coded(400, format_args!("cannot find policy {missing}")));
    }
    role.policies = Some(policies.into_iter().map(|name| AclPolicyLink { name }).collect());
    if role.id.is_empty() {
        role.id = secret_uuid(ctx, u64::try_from(nth).unwrap_or(u64::MAX));
    }
    Ok(())
}

/// The reply to ACL.UpsertRoles: the roles as they were written.
pub(super) fn finish_upsert(ids: &[String], index: Index, state: &State) -> Answer {
    let roles = ids.iter().filter_map(|id| state.role(id)).map(|role| AclRole::clone(role)).collect();
    Ok(body(&AclRoleUpsertResponse { roles, meta: WriteMeta { index: index.0 } }))
}

/// ACL.DeleteRolesByID.
pub(super) fn delete(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let (args, access) = begin::<AclRoleDeleteRequest>(request, state, ctx, |args| &args.write.auth_token)?;
    access.require_management()?;
    if args.ids.is_empty() {
        return Err(coded(400, NONE_GIVEN));
    }
    if args.ids.iter().any(|id| state.role(id).is_none()) {
        return Err(coded(404, "ACL role not found"));
    }
    Ok(Outcome::Propose { command: Command::AclDeleteRoles { ids: args.ids }, finish: Finish::WriteMeta })
}

fn may_read(access: &Access, role_id: &str) -> bool {
    access.acl.management || access.holds_role(role_id)
}

/// ACL.ListRoles: the caller's own, or all for management.
pub(super) fn list(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let (args, access) = begin::<GenericRequest>(request, state, ctx, |args| &args.query.auth_token)?;
    let filter = page::filter(&args.query)?;
    blocking(
        request,
        ctx,
        &args.query,
        state.roles_index(),
        || vec![WatchKey::acl()],
        |mut meta| {
            let (prefix, token) = (args.query.prefix.as_str(), args.query.next_token.as_str());
            let rows = state
                .roles_from(if args.query.reverse { prefix } else { prefix.max(token) })
                .take_while(|role| role.id.starts_with(prefix))
                .filter(|role| may_read(&access, &role.id));
            let rows = page::in_order(&args.query, rows, |role| *role.id > *token);
            let (roles, next) = page::page(&args.query, rows, |role| {
                filter
                    .as_ref()
                    .map_or(Ok(true), |filter| filter.matches_row(&role.to_bytes()).map_err(page::unreadable))
            })?;
            meta.next_token = next.map_or_else(String::new, |role| role.id.clone());
            Ok(body(&AclRoleListResponse { roles: roles.into_iter().map(|role| stub(role)).collect(), meta }))
        },
    )
}

fn stub(role: &AclRole) -> AclRoleListStub {
    AclRoleListStub {
        id: role.id.clone(),
        name: role.name.clone(),
        description: role.description.clone(),
        policies: role.policies.clone(),
        hash: role.hash.clone(),
        create_index: role.create_index,
        modify_index: role.modify_index,
    }
}

/// ACL.GetRoleByID.
pub(super) fn get_by_id(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let (args, access) = begin::<AclRoleByIdRequest>(request, state, ctx, |args| &args.query.auth_token)?;
    get(state.role(&args.id), &args.query, &access, request, state, ctx)
}

/// ACL.GetRoleByName.
pub(super) fn get_by_name(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let (args, access) = begin::<AclRoleByNameRequest>(request, state, ctx, |args| &args.query.auth_token)?;
    get(state.role_by_name(&args.name), &args.query, &access, request, state, ctx)
}

fn get(
    role: Option<&Arc<AclRole>>,
    query: &QueryOptions,
    access: &Access,
    request: &Request<'_>,
    state: &State,
    ctx: &Ctx,
) -> Answer {
    access.require(may_read(access, role.map_or("", |role| &role.id)))?;
    let index = role.map_or(state.roles_index(), |role| Index(role.modify_index));
    blocking(
        request,
        ctx,
        query,
        index,
        || vec![WatchKey::acl()],
        |meta| Ok(body(&SingleAclRoleResponse { role: role.map(|role| AclRole::clone(role)), meta })),
    )
}

/// ACL.GetRolesByID, which agents resolve their callers' tokens with.
pub(super) fn get_set(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let (args, access) = begin::<AclRolesByIdRequest>(request, state, ctx, |args| &args.query.auth_token)?;
    access.require(args.ids.iter().all(|id| may_read(&access, id)))?;
    blocking(
        request,
        ctx,
        &args.query,
        state.roles_index(),
        || vec![WatchKey::acl()],
        |meta| {
            let roles = args.ids.iter().filter_map(|id| state.role(id));
            let roles = roles.map(|role| (role.id.clone(), AclRole::clone(role))).collect();
            Ok(body(&AclRolesByIdResponse { roles, meta }))
        },
    )
}
