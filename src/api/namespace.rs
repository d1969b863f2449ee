//! Namespace.*: read and listed by who may see them, written and removed by management.
//!
//! Source: endpoint notes, section 10; Nomad `nomad/namespace_endpoint.go`, `nomad/structs/namespace.go`.

use crate::base::id::Index;
use crate::state::State;
use crate::state::watch::WatchKey;
use crate::wire::body::namespace::{
    Namespace, NamespaceDeleteRequest, NamespaceListResponse, NamespaceSetRequest, NamespaceSetResponse,
    NamespaceSpecificRequest, NamespaceUpsertRequest, SingleNamespaceResponse,
};
use crate::wire::body::query::GenericRequest;
use crate::wire::entry::Command;
use crate::wire::msgpack::Msg;

use super::access::access;
use super::acl_policies::{description_fault, is_name};
use super::answer::{Answer, arguments, blocking, body};
use super::outcome::{Finish, Outcome};
use super::var_check::errors;
use super::{Ctx, Request, page};

/// The namespace that is always there.
const DEFAULT: &str = "default";

/// How the state ends its refusal to remove a namespace that is not empty.
const HAS_VARIABLES: &str = "has variables associated with it";

/// Namespace.ListNamespaces: those that the caller may see.
pub(super) fn list(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let args: GenericRequest = arguments(request)?;
    let access = access(&args.query.auth_token, request, state, ctx)?;
    let filter = page::filter(&args.query)?;
    blocking(
        request,
        ctx,
        &args.query,
        state.namespaces_index(),
        || vec![WatchKey::namespaces()],
        |mut meta| {
            let (prefix, token) = (args.query.prefix.as_str(), args.query.next_token.as_str());
            let rows = state
                .namespaces_from(if args.query.reverse { prefix } else { prefix.max(token) })
                .take_while(|namespace| namespace.name.starts_with(prefix))
                .filter(|namespace| access.acl.sees_namespace(&namespace.name));
            let rows = page::in_order(&args.query, rows, |namespace| *namespace.name > *token);
            let (namespaces, next) = page::page(&args.query, rows, |row| {
                filter.as_ref().map_or(Ok(true), |filter| filter.matches_row(&row.to_bytes()).map_err(page::unreadable))
            })?;
            meta.next_token = next.map_or_else(String::new, |namespace| namespace.name.clone());
            let namespaces = namespaces.into_iter().map(|namespace| Namespace::clone(namespace)).collect();
            Ok(body(&NamespaceListResponse { namespaces, meta }))
        },
    )
}

/// Namespace.GetNamespace.
pub(super) fn get(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let args: NamespaceSpecificRequest = arguments(request)?;
    let access = access(&args.query.auth_token, request, state, ctx)?;
    access.require(access.acl.sees_namespace(&args.name))?;
    let namespace = state.namespace(&args.name);
    let index = namespace.map_or(state.namespaces_index(), |namespace| Index(namespace.modify_index));
    blocking(
        request,
        ctx,
        &args.query,
        index,
        || vec![WatchKey::namespaces()],
        |meta| {
            let namespace = namespace.map(|namespace| Namespace::clone(namespace));
            Ok(body(&SingleNamespaceResponse { namespace, meta }))
        },
    )
}

/// Namespace.GetNamespaces.
pub(super) fn get_set(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let args: NamespaceSetRequest = arguments(request)?;
    access(&args.query.auth_token, request, state, ctx)?.require_management()?;
    blocking(
        request,
        ctx,
        &args.query,
        state.namespaces_index(),
        || vec![WatchKey::namespaces()],
        |meta| {
            let namespaces = args.namespaces.iter().filter_map(|name| state.namespace(name));
            let namespaces = namespaces.map(|one| (one.name.clone(), Namespace::clone(one))).collect();
            Ok(body(&NamespaceSetResponse { namespaces, meta }))
        },
    )
}

/// Namespace.UpsertNamespaces.
pub(super) fn upsert(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let args: NamespaceUpsertRequest = arguments(request)?;
    access(&args.write.auth_token, request, state, ctx)?.require_management()?;
    if args.namespaces.is_empty() {
        return Err("must specify at least one namespace".into());
    }
    for Namespace { name, description, .. } in &args.namespaces {
        let mut faults = Vec::new();
        let shown: String = name.chars().take(256).collect();
        if !is_name(name) {
            faults.push(format!("invalid name {shown:?}. Must match regex ^[a-zA-Z0-9-]{{1,128}}$"));
        }
        faults.extend(description_fault(description));
        if !faults.is_empty() {
            return Err(format!("Invalid namespace {shown:?}: {}", errors(&faults)).into());
        }
    }
    let command = Command::NamespaceUpsert { namespaces: args.namespaces };
    Ok(Outcome::Propose { command, finish: Finish::WriteMeta })
}

/// Namespace.DeleteNamespaces: all or none. One that does not exist uses up an entry, as in Nomad.
pub(super) fn delete(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let args: NamespaceDeleteRequest = arguments(request)?;
    access(&args.write.auth_token, request, state, ctx)?.require_management()?;
    if args.namespaces.is_empty() {
        return Err("must specify at least one namespace to delete".into());
    }
    if args.namespaces.iter().any(|name| name == DEFAULT) {
        return Err("can not delete default namespace".into());
    }
    let full = args.namespaces.iter().filter(|name| state.has_vars_in(name));
    let full: Vec<String> = full.map(|name| with_region(&format!("namespace {name:?} {HAS_VARIABLES}"), ctx)).collect();
    if !full.is_empty() {
        return Err(errors(&full).into());
    }
    Ok(Outcome::Propose {
        command: Command::NamespaceDelete { names: args.namespaces },
        finish: Finish::NamespaceDelete,
    })
}

/// What the caller of Namespace.DeleteNamespaces hears of a refusal by the state: a variable was written meanwhile, or
/// the namespace is not there.
pub(super) fn refused(text: &str, ctx: &Ctx) -> String {
    if text.ends_with(HAS_VARIABLES) { errors(&[with_region(text, ctx)]) } else { text.to_owned() }
}

fn with_region(text: &str, ctx: &Ctx) -> String {
    format!("{text} in regions: [{}]", ctx.server.region)
}
