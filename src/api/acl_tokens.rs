//! Tokens: read, listed and removed. How they are written: [`super::acl_token_write`].
//!
//! A secret is shown to whoever makes the token, to management that reads it, and to whoever shows it. Source: endpoint
//! notes, section 8; Nomad `nomad/acl_endpoint.go`.

use std::sync::Arc;

use crate::base::id::Index;
use crate::state::State;
use crate::state::acl::Token;
use crate::state::watch::WatchKey;
use crate::wire::body::acl::{
    AclRoleLink, AclToken, AclTokenDeleteRequest, AclTokenListRequest, AclTokenListResponse, AclTokenListStub,
    AclTokenSetRequest, AclTokenSetResponse, AclTokenSpecificRequest, AclTokenUpsertResponse, ResolveAclTokenRequest,
    SingleAclTokenResponse,
};
use crate::wire::body::query::{QueryOptions, WriteMeta};
use crate::wire::entry::Command;
use crate::wire::msgpack::Msg;

use super::access::{Identity, access_with_reason};
use super::acl::{begin, enabled};
use super::answer::{Answer, Failure, arguments, blocking, body, coded, query_meta};
use super::filter::Filter;
use super::outcome::{Finish, Outcome};
use super::{Ctx, Request, page};

/// The error of a write that holds none.
pub(super) const NONE_GIVEN: &str = "must specify as least one token";

/// Characters of a UUID.
const UUID_BYTES: usize = 36;

/// A token as it is shown: its roles by the names they have now, without those that are gone.
pub(super) fn shown(token: &Token, state: &State) -> AclToken {
    AclToken { roles: shown_roles(&token.body, state), ..AclToken::clone(&token.body) }
}

fn shown_roles(token: &AclToken, state: &State) -> Option<Vec<AclRoleLink>> {
    let roles = token.roles.as_ref()?.iter().filter_map(|link| state.role(&link.id));
    Some(roles.map(|role| AclRoleLink { id: role.id.clone(), name: role.name.clone() }).collect())
}

/// The reply to ACL.Bootstrap and ACL.UpsertTokens: the tokens as they were written, with their secrets.
pub(super) fn finish_upsert(accessor_ids: &[String], index: Index, state: &State) -> Answer {
    let tokens = accessor_ids.iter().filter_map(|id| state.token(id)).map(|token| shown(token, state)).collect();
    Ok(body(&AclTokenUpsertResponse { tokens, meta: WriteMeta { index: index.0 } }))
}

/// ACL.DeleteTokens: all or none.
pub(super) fn delete(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let (args, access) = begin::<AclTokenDeleteRequest>(request, state, ctx, |args| &args.write.auth_token)?;
    access.require_management()?;
    if args.accessor_ids.is_empty() {
        return Err(coded(400, NONE_GIVEN));
    }
    let missing: Vec<&str> =
        args.accessor_ids.iter().map(String::as_str).filter(|id| state.token(id).is_none()).collect();
    if !missing.is_empty() {
        return Err(coded(400, format_args!("Cannot delete nonexistent tokens: {}", missing.join(", "))));
    }
    let mut kinds = args.accessor_ids.iter().filter_map(|id| state.token(id)).map(|token| token.body.global);
    let first = kinds.next();
    if kinds.any(|global| Some(global) != first) {
        return Err(coded(400, "cannot delete mixed global and non-global tokens"));
    }
    let command = Command::AclDeleteTokens { accessor_ids: args.accessor_ids };
    Ok(Outcome::Propose { command, finish: Finish::WriteMeta })
}

/// ACL.ListTokens: in the order they were made, or by accessor when only some are wanted.
pub(super) fn list(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let (args, access) = begin::<AclTokenListRequest>(request, state, ctx, |args| &args.query.auth_token)?;
    access.require_management()?;
    check_prefix(&args.query.prefix)?;
    let filter = page::filter(&args.query)?;
    blocking(
        request,
        ctx,
        &args.query,
        state.tokens_index(),
        || vec![WatchKey::acl()],
        |mut meta| {
            let (tokens, next) = page(state, &args, filter.as_ref())?;
            meta.next_token = next;
            Ok(body(&AclTokenListResponse {
                tokens: tokens.into_iter().map(|token| stub(token, state)).collect(),
                meta,
            }))
        },
    )
}

/// The tokens of a page, and where the next begins.
fn page<'a>(
    state: &'a State,
    args: &'a AclTokenListRequest,
    filter: Option<&Filter>,
) -> Result<(Vec<&'a Arc<Token>>, String), Failure> {
    let query = &args.query;
    let by_accessor = !query.prefix.is_empty() || args.global_only;
    let place =
        move |token: &Token| (if by_accessor { 0 } else { token.body.create_index }, token.body.accessor_id.clone());
    let begin = begin_of(query, by_accessor)?;
    let mut rows: Vec<&Arc<Token>> = state
        .tokens_from(&query.prefix)
        .take_while(|token| token.body.accessor_id.starts_with(&query.prefix))
        .filter(|token| token.body.global || !args.global_only)
        .collect();
    rows.sort_by_cached_key(|token| place(token));
    let from = begin.clone();
    let rows = rows.into_iter().filter(move |token| query.reverse || place(token) >= from);
    let rows = page::in_order(query, rows, move |token| place(token) > begin);
    let (tokens, next) = page::page(query, rows, |token| {
        let Some(filter) = filter else { return Ok(true) };
        let row = AclToken { secret_id: String::new(), ..AclToken::clone(&token.body) };
        filter.matches_row(&row.to_bytes()).map_err(page::unreadable)
    })?;
    let token_of = |token: &Arc<Token>| match place(token) {
        (_, accessor_id) if by_accessor => accessor_id,
        (create_index, accessor_id) => format!("{create_index}.{accessor_id}"),
    };
    Ok((tokens, next.map_or_else(String::new, token_of)))
}

/// Where the page begins: at `<accessor>` or `<create index>.<accessor>`.
fn begin_of(query: &QueryOptions, by_accessor: bool) -> Result<(u64, String), Failure> {
    let token = &query.next_token;
    if by_accessor || token.is_empty() {
        return Ok((0, token.clone()));
    }
    let parts = token.split_once('.').and_then(|(index, accessor)| Some((index.parse().ok()?, accessor.to_owned())));
    parts.ok_or_else(|| coded(400, "failed to create result paginator: the next token is not one of this list"))
}

fn stub(token: &Token, state: &State) -> AclTokenListStub {
    let token = &token.body;
    AclTokenListStub {
        accessor_id: token.accessor_id.clone(),
        name: token.name.clone(),
        kind: token.kind.clone(),
        policies: token.policies.clone(),
        roles: shown_roles(token, state),
        global: token.global,
        hash: token.hash.clone(),
        create_time: token.create_time.clone(),
        expiration_time: token.expiration_time.clone(),
        create_index: token.create_index,
        modify_index: token.modify_index,
    }
}

/// ACL.GetToken: one's own, or any for management.
pub(super) fn get(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    enabled(ctx)?;
    let args: AclTokenSpecificRequest = arguments(request)?;
    let access = access_with_reason(&args.query.auth_token, state, ctx)?;
    let own = matches!(&access.identity, Identity::Token(token) if token.body.accessor_id == args.accessor_id);
    access.require(access.acl.management || own)?;
    if args.accessor_id.len() != UUID_BYTES {
        return Err("acl token lookup failed: index error: UUID must be 36 characters".into());
    }
    check_prefix(&args.accessor_id)?;
    let token = state.token(&args.accessor_id);
    let index = token.map_or(state.tokens_index(), |token| Index(token.body.modify_index));
    blocking(
        request,
        ctx,
        &args.query,
        index,
        || vec![WatchKey::acl()],
        |meta| Ok(body(&SingleAclTokenResponse { token: token.map(|token| shown(token, state)), meta })),
    )
}

/// ACL.GetTokens: some, with their secrets, as replication wants them.
pub(super) fn get_set(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    enabled(ctx)?;
    let args: AclTokenSetRequest = arguments(request)?;
    access_with_reason(&args.query.auth_token, state, ctx)?.require_management()?;
    blocking(
        request,
        ctx,
        &args.query,
        state.tokens_index(),
        || vec![WatchKey::acl()],
        |meta| {
            let tokens = args.accessor_ids.iter().filter_map(|id| state.token(id));
            let tokens = tokens.map(|token| (token.body.accessor_id.clone(), shown(token, state))).collect();
            Ok(body(&AclTokenSetResponse { tokens, meta }))
        },
    )
}

/// ACL.ResolveToken, which agents of the 1.1 line ask for their callers: the secret is what speaks for them. A token
/// whose time is over is none.
pub(super) fn resolve(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    enabled(ctx)?;
    let args: ResolveAclTokenRequest = arguments(request)?;
    let token = state.token_by_secret(&args.secret_id).filter(|token| !token.is_expired(ctx.wall.unix_nanos()));
    let index = token.map_or(state.tokens_index().0, |token| token.body.modify_index).max(1);
    let token = token.map(|token| shown(token, state));
    Ok(body(&SingleAclTokenResponse { token, meta: query_meta(ctx, index) }))
}

/// Whether a text is the beginning of a UUID, as the peers' index of UUIDs takes it.
fn check_prefix(prefix: &str) -> Result<(), Failure> {
    let fail = |why: String| Err(format!("acl token lookup failed: index error: {why}").into());
    if prefix.len() > UUID_BYTES {
        return fail(format!("Invalid UUID length. UUID have 36 characters; got {}", prefix.len()));
    }
    let hyphens = prefix.matches('-').count();
    if hyphens > 4 {
        return fail(format!("UUID should have maximum of 4 \"-\"; got {hyphens}"));
    }
    if !(prefix.len() - hyphens).is_multiple_of(2) {
        return fail("Input (without hyphens) must be even length".to_owned());
    }
    // Go looks at bytes: the first one of a longer character is what it names.
    match prefix.bytes().find(|byte| *byte != b'-' && !byte.is_ascii_hexdigit()) {
        Some(byte) => {
            let shown = char::from(byte);
            fail(format!("Invalid UUID: encoding/hex: invalid byte: U+{byte:04X} '{shown}'"))
        }
        None => Ok(()),
    }
}
