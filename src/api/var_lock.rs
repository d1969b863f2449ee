//! Locks: Variables.RenewLock, and this project's own methods that show who holds a lock and that break it.
//!
//! A renewal is a write, so that a lock's deadline is the same on every server; it changes no index. What is shown of
//! a lock never has its id, but for whoever named it. Source: endpoint notes, section 4; requirements R8.3, R8.10.

use std::sync::Arc;

use crate::base::id::Index;
use crate::state::State;
use crate::state::acl::rules::{Acl, VarCapability};
use crate::state::var::Var;
use crate::state::watch::WatchKey;
use crate::wire::body::query::{GenericRequest, QueryOptions};
use crate::wire::body::var::{
    LockBreakRequest, LockListResponse, LockReadRequest, LockReadResponse, LockStub, VariablesRenewLockRequest,
};
use crate::wire::entry::Command;
use crate::wire::entry::var::LockName;
use crate::wire::msgpack::{Encoder, Msg};

use super::access::access;
use super::answer::{Answer, Failure, arguments, blocking, body, coded};
use super::auth::same_secret;
use super::filter::Filter;
use super::outcome::{Finish, Hidden, Outcome};
use super::var::{ALL_NAMESPACES, LockView, namespace_or_default, place, place_of, push_metadata, reply, token_of};
use super::var_check::errors;
use super::{Ctx, Request, page};

/// The texts of whoever lacks an argument.
const MISSING_PATH: &str = "missing path";
const MISSING_LOCK_ID: &str = "missing lock ID";

/// Variables.RenewLock.
pub(super) fn renew_lock(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let args: VariablesRenewLockRequest = arguments(request)?;
    let namespace = namespace_or_default(&args.write.namespace);
    let access = access(&args.write.auth_token, request, state, ctx)?;
    access.require(access.acl.allows_variable(namespace, &args.path, VarCapability::Write))?;
    let missing = [(args.path.is_empty(), MISSING_PATH), (args.lock_id.is_empty(), MISSING_LOCK_ID)];
    let missing: Vec<&str> = missing.into_iter().filter(|(is, _)| *is).map(|(_, text)| text).collect();
    if !missing.is_empty() {
        return Err(errors(&missing).into());
    }
    let (namespace, path): (Arc<str>, Arc<str>) = (namespace.into(), args.path.into());
    let finish = Finish::LockRenew {
        namespace: Arc::clone(&namespace),
        path: Arc::clone(&path),
        lock_id: Hidden(args.lock_id.clone()),
    };
    Ok(Outcome::Propose { command: Command::LockRenew(LockName { namespace, path, lock_id: args.lock_id }), finish })
}

/// The reply. The lock was renewed; that it was given back or taken by somebody else since is told as if it had come
/// first.
pub(super) fn finish_renew(namespace: &str, path: &str, lock_id: &Hidden, state: &State) -> Answer {
    let var = state.var(namespace, path).ok_or_else(|| coded(404, "variable doesn't exist"))?;
    let lock = var.lock.as_deref().ok_or_else(|| coded(409, "variable doesn't hold a lock"))?;
    if !same_secret(&lock_id.0, &lock.id) {
        return Err(coded(409, "attempting to modify locked variable"));
    }
    let mut e = Encoder::new();
    e.raw(b"\x82\xa7VarMeta");
    push_metadata(&mut e, var, LockView::Whole);
    e.raw(b"\xa5Index");
    e.u64(var.modify_index);
    Ok(reply(e))
}

/// What is shown of a variable's lock; `None` when it never had one.
fn stub(var: &Var) -> Option<LockStub> {
    let shown = LockStub {
        namespace: var.namespace.to_string(),
        path: var.path.to_string(),
        fence: var.fence,
        ..LockStub::default()
    };
    match &var.lock {
        Some(lock) => Some(LockStub {
            held: true,
            owner: lock.owner.to_string(),
            since: lock.since,
            deadline: lock.deadline,
            ttl: lock.ttl,
            lock_delay: lock.delay,
            ..shown
        }),
        None => (var.fence > 0).then_some(shown),
    }
}

/// Holdfast.LockList (R8.10): locks that are held.
pub(super) fn lock_list(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let args: GenericRequest = arguments(request)?;
    let query = &args.query;
    let namespace = namespace_or_default(&query.namespace);
    let acl = access(&query.auth_token, request, state, ctx)?.acl;
    let filter = page::filter(query)?;
    let keys = || vec![WatchKey::vars_under(namespace, &query.prefix)];
    blocking(request, ctx, query, state.vars_index(), keys, |mut meta| {
        let (locks, next) = page_of(state, query, namespace, &acl, filter.as_ref())?;
        meta.next_token = next;
        Ok(body(&LockListResponse { locks, meta }))
    })
}

/// The locks of a page that the caller may see, and where the next page begins.
fn page_of(
    state: &State,
    query: &QueryOptions,
    namespace: &str,
    acl: &Acl,
    filter: Option<&Filter>,
) -> Result<(Vec<LockStub>, String), Failure> {
    let token = place_of(&query.next_token);
    let all = namespace == ALL_NAMESPACES;
    let (begun, prefix) = (!query.reverse && !query.next_token.is_empty(), query.prefix.as_str());
    let rows = state.locked_vars().filter(move |var| {
        (all || &*var.namespace == namespace) && var.path.starts_with(prefix) && !(begun && place(var) < token)
    });
    let rows = page::in_order(query, rows, move |var| place(var) > token);
    let (vars, next) = page::page(query, rows, |var| {
        if !acl.allows_variable(&var.namespace, &var.path, VarCapability::LockRead) {
            return Ok(false);
        }
        let Some(filter) = filter else { return Ok(true) };
        let shown = stub(var).unwrap_or_default().to_bytes();
        filter.matches_row(&shown).map_err(page::unreadable)
    })?;
    let locks = vars.into_iter().filter_map(|var| stub(var)).collect();
    Ok((locks, next.map_or_else(String::new, |var| token_of(var))))
}

/// Holdfast.LockRead (R8.10). A waiter on a variable that is not there wakes when it is.
pub(super) fn lock_read(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let args: LockReadRequest = arguments(request)?;
    let namespace = namespace_or_default(&args.query.namespace);
    let access = access(&args.query.auth_token, request, state, ctx)?;
    access.require(access.acl.allows_variable(namespace, &args.path, VarCapability::LockRead))?;
    if args.path.is_empty() {
        return Err(coded(400, MISSING_PATH));
    }
    let var = state.var(namespace, &args.path);
    let index = var.map_or(state.vars_index(), |var| Index(var.modify_index));
    let keys = || vec![WatchKey::var(namespace, &args.path)];
    blocking(request, ctx, &args.query, index, keys, |meta| {
        let lock = var.and_then(|var| stub(var)).map(|lock| LockStub { waiters: ctx.lock_waiters, ..lock });
        Ok(body(&LockReadResponse { lock, meta }))
    })
}

/// Holdfast.LockBreak (R8.10): whoever may remove the variable may end its lock.
pub(super) fn lock_break(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let args: LockBreakRequest = arguments(request)?;
    let namespace = namespace_or_default(&args.write.namespace).to_owned();
    let access = access(&args.write.auth_token, request, state, ctx)?;
    access.require(access.acl.allows_variable(&namespace, &args.path, VarCapability::Destroy))?;
    if args.path.is_empty() {
        return Err(coded(400, MISSING_PATH));
    }
    Ok(Outcome::Propose { command: Command::LockBreak { namespace, path: args.path }, finish: Finish::WriteMeta })
}
