//! Variables.Read and Variables.List, and how a variable looks in a reply.
//!
//! Variables are written by hand: the items are put into a reply as they come out of the seal, one msgpack map, never
//! decoded. A lock's id is a bearer secret, so what is shown of a lock depends on who asks.
//! Source: endpoint notes, section 4; requirements R8.1, R8.10.

use std::sync::Arc;

use crate::base::id::Index;
use crate::state::State;
use crate::state::acl::rules::{Acl, VarCapability};
use crate::state::var::{Var, VarLock};
use crate::state::watch::WatchKey;
use crate::wire::body::query::{GenericRequest, QueryOptions};
use crate::wire::body::var::VariablesReadRequest;
use crate::wire::msgpack::{Encoder, Fields};

use super::access::access;
use super::answer::{Answer, Failure, arguments, blocking};
use super::filter::Filter;
use super::outcome::{Outcome, Reply, ReplyResult};
use super::seal::NOT_IN_RING;
use super::{Ctx, Request, page};

/// The error while no key of the key ring is here.
pub(super) const NO_KEY_RING: &str = "key ring is not ready";

/// All namespaces.
pub(super) const ALL_NAMESPACES: &str = "*";

/// An empty map, for items that there are none of.
pub(super) const NO_ITEMS: &[u8] = b"\x80";

/// nil, for items that are not shown.
pub(super) const NIL: &[u8] = b"\xc0";

/// About what a variable takes in a reply beside its names and items, bytes.
const VAR_BYTES: usize = 160;

/// What is shown of a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LockView {
    /// Nothing, as if there were none.
    Hidden,
    /// All but its id.
    WithoutId,
    /// All.
    Whole,
}

impl LockView {
    /// In what is read.
    pub(super) fn of_reads(acl: &Acl) -> LockView {
        if acl.management { LockView::Whole } else { LockView::Hidden }
    }
}

/// The namespace that a request means.
pub(super) fn namespace_or_default(namespace: &str) -> &str {
    if namespace.is_empty() { "default" } else { namespace }
}

/// Variables.Read. A waiter on a variable that is not there wakes when it is.
pub(super) fn read(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let args: VariablesReadRequest = arguments(request)?;
    let (namespace, path) = (namespace_or_default(&args.query.namespace), args.path.as_str());
    let access = access(&args.query.auth_token, request, state, ctx)?;
    access.require(access.acl.allows_variable(namespace, path, VarCapability::Read))?;
    let var = state.var(namespace, path);
    let index = var.map_or(state.vars_index(), |var| Index(var.modify_index));
    let keys = || vec![WatchKey::var(namespace, path)];
    blocking(request, ctx, &args.query, index, keys, |meta| {
        let items = var.map_or(Ok(Vec::new()), |var| open(var, ctx))?;
        let mut e = Encoder { out: Vec::with_capacity(2 * VAR_BYTES + namespace.len() + path.len() + items.len()) };
        e.raw(b"\x85\xa4Data");
        match var {
            Some(var) => push_var(&mut e, var, LockView::of_reads(&access.acl), &items),
            None => e.nil(),
        }
        meta.encode_fields(&mut e);
        Ok(reply(e))
    })
}

/// Variables.List.
pub(super) fn list(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let args: GenericRequest = arguments(request)?;
    let query = &args.query;
    let namespace = namespace_or_default(&query.namespace);
    let acl = access(&query.auth_token, request, state, ctx)?.acl;
    let filter = page::filter(query)?;
    let keys = || vec![WatchKey::vars_under(namespace, &query.prefix)];
    blocking(request, ctx, query, state.vars_index(), keys, |mut meta| {
        let (vars, next) = page_of(state, query, namespace, &acl, filter.as_ref())?;
        meta.next_token = next;
        let mut e = Encoder { out: Vec::with_capacity(VAR_BYTES * (vars.len() + 1)) };
        e.raw(b"\x85\xa4Data");
        e.array(vars.len());
        let lock = LockView::of_reads(&acl);
        vars.iter().for_each(|var| push_metadata(&mut e, var, lock));
        meta.encode_fields(&mut e);
        Ok(reply(e))
    })
}

/// The variables of a page that the caller may list, and where the next page begins.
fn page_of<'a>(
    state: &'a State,
    query: &'a QueryOptions,
    namespace: &'a str,
    acl: &Acl,
    filter: Option<&Filter>,
) -> Result<(Vec<&'a Arc<Var>>, String), Failure> {
    let token = place_of(&query.next_token);
    let first = if namespace == ALL_NAMESPACES { ("", "") } else { (namespace, query.prefix.as_str()) };
    let from = if query.reverse { first } else { first.max(token) };
    let rows = within(state.vars_from(from.0, from.1), namespace, &query.prefix);
    let rows = page::in_order(query, rows, move |var| place(var) > token);
    let lock = LockView::of_reads(acl);
    let (vars, next) = page::page(query, rows, |var| {
        if !acl.allows_variable(&var.namespace, &var.path, VarCapability::List) {
            return Ok(false);
        }
        filter.map_or(Ok(true), |filter| filter.matches_row(&filtered(var, lock)).map_err(page::unreadable))
    })?;
    Ok((vars, next.map_or_else(String::new, |var| token_of(var))))
}

/// Keeps what lies in a namespace, or in any for `*`, under a prefix.
fn within<'a>(
    rows: impl Iterator<Item = &'a Arc<Var>> + 'a,
    namespace: &'a str,
    prefix: &'a str,
) -> impl Iterator<Item = &'a Arc<Var>> + 'a {
    let all = namespace == ALL_NAMESPACES;
    rows.take_while(move |var| all || (&*var.namespace == namespace && var.path.starts_with(prefix)))
        .filter(move |var| var.path.starts_with(prefix))
}

/// Where a variable stands in the order of lists.
pub(super) fn place(var: &Var) -> (&str, &str) {
    (&var.namespace, &var.path)
}

/// The place that a page's token names. A path has no dots, a namespace may.
pub(super) fn place_of(token: &str) -> (&str, &str) {
    token.rsplit_once('.').unwrap_or((token, ""))
}

/// The token of a page that begins with this variable.
pub(super) fn token_of(var: &Var) -> String {
    format!("{}.{}", var.namespace, var.path)
}

/// A variable as a filter sees it: its fields under their own names, and under the name of the struct that holds
/// them in Go.
fn filtered(var: &Var, lock: LockView) -> Vec<u8> {
    let mut metadata = Encoder::new();
    push_metadata(&mut metadata, var, lock);
    let mut e = Encoder::new();
    e.map(METADATA_FIELDS + 1);
    e.raw(metadata.out.get(1..).unwrap_or_default());
    e.str("VariableMetadata");
    e.raw(&metadata.out);
    e.out
}

/// Fields of a variable's metadata.
const METADATA_FIELDS: usize = 7;

/// Writes a variable's metadata, one map.
pub(super) fn push_metadata(e: &mut Encoder, var: &Var, lock: LockView) {
    e.map(METADATA_FIELDS);
    push_fields(e, var, lock);
}

/// Writes a variable, one map. `items` is one value.
pub(super) fn push_var(e: &mut Encoder, var: &Var, lock: LockView, items: &[u8]) {
    e.map(METADATA_FIELDS + 1);
    push_fields(e, var, lock);
    e.raw(b"\xa5Items");
    e.raw(items);
}

/// The names are there as they are written, since lists hold very many of them.
fn push_fields(e: &mut Encoder, var: &Var, lock: LockView) {
    e.raw(b"\xa9Namespace");
    e.str(&var.namespace);
    e.raw(b"\xa4Path");
    e.str(&var.path);
    e.raw(b"\xa4Lock");
    match &var.lock {
        Some(held) if lock != LockView::Hidden => push_lock(e, held, lock),
        _ => e.nil(),
    }
    e.raw(b"\xabCreateIndex");
    e.u64(var.create_index);
    e.raw(b"\xaaCreateTime");
    e.i64(var.create_time);
    e.raw(b"\xabModifyIndex");
    e.u64(var.modify_index);
    e.raw(b"\xaaModifyTime");
    e.i64(var.modify_time);
}

fn push_lock(e: &mut Encoder, lock: &VarLock, view: LockView) {
    e.raw(b"\x83\xa2ID");
    e.str(if view == LockView::Whole { &lock.id } else { "" });
    e.raw(b"\xa3TTL");
    e.i64(lock.ttl);
    e.raw(b"\xa9LockDelay");
    e.i64(lock.delay);
}

/// A variable's items, one msgpack map.
///
/// # Errors
/// Without the key that they are sealed with.
pub(super) fn open(var: &Var, ctx: &Ctx) -> Result<Vec<u8>, Failure> {
    let Some(sealed) = &var.sealed else { return Ok(NO_ITEMS.to_vec()) };
    let sealer = ctx.sealer.as_deref().ok_or(NO_KEY_RING)?;
    sealer.open(&var.namespace, &var.path, sealed).map_err(|error| error.to_string().into())
}

/// Whether an error says that a key is missing here, which other servers may have.
pub fn lacks_a_key(error: &str) -> bool {
    error == NO_KEY_RING || error.ends_with(NOT_IN_RING)
}

/// An answer whose body was written by hand.
pub(super) fn reply(e: Encoder) -> Outcome {
    Outcome::Reply(Reply { result: ReplyResult::Body(Arc::from(e.out)), effects: Vec::new() })
}
