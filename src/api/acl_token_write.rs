//! ACL.UpsertTokens: makes tokens, changes them, and takes over such as were made elsewhere.
//!
//! What a token is made of is fixed here, before the write: ids, secret, times. Source: endpoint notes, section 8;
//! Nomad `nomad/structs/acl.go`, `ACLToken.Canonicalize` and `Validate`.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::state::State;
use crate::state::acl::Token;
use crate::wire::body::acl::{AclRoleLink, AclToken, AclTokenUpsertRequest};
use crate::wire::body::node::{go_time, go_time_unix_nanos, go_zero_time};
use crate::wire::entry::Command;
use crate::wire::json::go_duration_text;
use crate::wire::msgpack::Raw;

use super::acl::begin;
use super::acl_tokens::NONE_GIVEN;
use super::answer::{Answer, Failure, coded};
use super::auth::is_uuid;
use super::outcome::{Finish, Outcome};
use super::secrets::secret_uuid;
use super::var_check::errors;
use super::{Ctx, Request};

/// The longest name of a token, bytes.
const MAX_NAME_BYTES: usize = 256;

/// Policies and roles of one token, together.
const MAX_LINKS: usize = 1024;

/// How soon a token may end at the earliest, nanoseconds (Nomad's default, 1 min).
const MIN_TTL: i64 = 60 * 1_000_000_000;

/// And at the latest (Nomad's default, 24 h).
const MAX_TTL: i64 = 24 * 60 * MIN_TTL;

/// ACL.UpsertTokens.
pub(super) fn upsert(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let (args, access) = begin::<AclTokenUpsertRequest>(request, state, ctx, |args| &args.write.auth_token)?;
    access.require_management()?;
    let mut tokens = args.tokens;
    let global = tokens.first().ok_or_else(|| coded(400, NONE_GIVEN))?.global;
    if tokens.iter().any(|token| token.global != global) {
        return Err(coded(400, "cannot upsert mixed global and non-global tokens"));
    }
    let (mut accessors, mut secrets) = (BTreeSet::new(), BTreeSet::new());
    for (nth, token) in tokens.iter_mut().enumerate() {
        complete(token, nth, state, ctx)?;
        if !accessors.insert(token.accessor_id.clone()) || !secrets.insert(token.secret_id.clone()) {
            return Err(coded(400, format_args!("token {nth} invalid: {}", errors(&["it is given twice"]))));
        }
    }
    let finish = Finish::AclTokens(tokens.iter().map(|token| token.accessor_id.clone()).collect());
    Ok(Outcome::Propose { command: Command::AclUpsertTokens { tokens }, finish })
}

/// Checks one token, and fills in what the server makes.
fn complete(token: &mut AclToken, nth: usize, state: &State, ctx: &Ctx) -> Result<(), Failure> {
    let known = state.token(&token.accessor_id);
    let ends = end_of(token);
    match known {
        Some(known) => {
            token.secret_id.clone_from(&known.body.secret_id);
            token.create_time.clone_from(&known.body.create_time);
        }
        None => make(token, nth, ctx)?,
    }
    token.hash = Raw::default();
    let mut faults = faults(token);
    match (ends, known) {
        (Err(fault), _) => faults.push(fault),
        (Ok(ends), Some(known)) => faults.extend(changed_faults(token, ends, known)),
        (Ok(ends), None) => {
            let now = ctx.wall.unix_nanos();
            let ttl = token.expiration_ttl;
            let ends = ends.or((ttl != 0).then(|| now.saturating_add(ttl)));
            faults.extend(new_faults(token, ends, now, state));
            token.expiration_time = ends.map(go_time);
        }
    }
    if !faults.is_empty() {
        return Err(coded(400, format_args!("token {nth} invalid: {}", errors(&faults))));
    }
    token.roles = linked(token.roles.take(), state)?;
    Ok(())
}

/// When the token is asked to end, nanoseconds since the Unix epoch.
fn end_of(token: &AclToken) -> Result<Option<i64>, String> {
    match &token.expiration_time {
        Some(time) if !time.0.is_empty() && *time != go_zero_time() => {
            go_time_unix_nanos(&time.0).map(Some).ok_or_else(|| "expiration time is not a time".to_owned())
        }
        _ => Ok(None),
    }
}

/// A token that is not known: a new one, or one that was made elsewhere and brings both its ids.
fn make(token: &mut AclToken, nth: usize, ctx: &Ctx) -> Result<(), Failure> {
    if token.accessor_id.is_empty() {
        let number = u64::try_from(nth).unwrap_or(u64::MAX / 2).saturating_mul(2);
        token.accessor_id = secret_uuid(ctx, number);
        token.secret_id = secret_uuid(ctx, number + 1);
    } else if !is_uuid(&token.accessor_id) || !is_uuid(&token.secret_id) || token.kind == "management" {
        let id: String = token.accessor_id.chars().take(MAX_NAME_BYTES).collect();
        return Err(coded(400, format_args!("cannot find token {id}")));
    }
    token.create_time = go_time(ctx.wall.unix_nanos());
    Ok(())
}

/// What is wrong with any token.
fn faults(token: &AclToken) -> Vec<String> {
    let mut faults = Vec::new();
    let links = token.policies.as_ref().map_or(0, Vec::len) + token.roles.as_ref().map_or(0, Vec::len);
    if token.name.len() > MAX_NAME_BYTES {
        faults.push("token name too long".to_owned());
    }
    match token.kind.as_str() {
        "client" if links == 0 => faults.push("client token missing policies or roles".to_owned()),
        "client" if links > MAX_LINKS => faults.push(format!("more than {MAX_LINKS} policies and roles")),
        "management" if links > 0 => {
            faults.push("management token cannot be associated with policies or roles".to_owned());
        }
        "client" | "management" => {}
        _ => faults.push("token type must be client or management".to_owned()),
    }
    faults
}

/// What is wrong with a token that is made now.
fn new_faults(token: &AclToken, ends: Option<i64>, now: i64, state: &State) -> Vec<String> {
    let mut faults = Vec::new();
    let ttl = token.expiration_ttl;
    if ttl < 0 {
        faults.push(format!("token expiration TTL '{}' should not be negative", go_duration_text(ttl)));
    }
    if let Some(ends) = ends {
        let left = ends.saturating_sub(now);
        let was = |limit: &str, bound: i64| {
            let (bound, left) = (go_duration_text(bound), go_duration_text(left));
            format!("expiration time cannot be {limit} than {bound} in the future (was {left})")
        };
        if left < 0 {
            faults.push("expiration time cannot be before create time".to_owned());
        }
        if left > MAX_TTL {
            faults.push(was("more", MAX_TTL));
        }
        if left < MIN_TTL {
            faults.push(was("less", MIN_TTL));
        }
    }
    if state.token_by_secret(&token.secret_id).is_some() || state.node_by_secret(&token.secret_id).is_some() {
        faults.push("secret ID is in use".to_owned());
    }
    faults
}

/// What must not change of a token that is known.
fn changed_faults(token: &AclToken, ends: Option<i64>, known: &Arc<Token>) -> Vec<String> {
    let changed = [
        (token.global != known.body.global, "cannot toggle global mode"),
        (token.expiration_ttl != known.body.expiration_ttl, "cannot update expiration TTL"),
        (ends != known.expires_unix_nanos, "cannot update expiration time"),
    ];
    changed.into_iter().filter(|(changed, _)| *changed).map(|(_, fault)| fault.to_owned()).collect()
}

/// Roles by their ids, each once; they may be named by either.
fn linked(links: Option<Vec<AclRoleLink>>, state: &State) -> Result<Option<Vec<AclRoleLink>>, Failure> {
    let Some(links) = links else { return Ok(None) };
    let mut roles: Vec<AclRoleLink> = Vec::with_capacity(links.len());
    for link in links {
        let (role, asked) = if link.id.is_empty() {
            (state.role_by_name(&link.name), link.name)
        } else {
            (state.role(&link.id), link.id)
        };
        let role = role.ok_or_else(|| coded(400, format_args!("cannot find role {asked}")))?;
        if !roles.iter().any(|known| known.id == role.id) {
            roles.push(AclRoleLink { id: role.id.clone(), name: role.name.clone() });
        }
    }
    Ok(Some(roles))
}
