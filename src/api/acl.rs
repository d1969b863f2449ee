//! ACL.* beside tokens, policies and roles: the first token, who the caller is, and what is not served.
//!
//! Source: endpoint notes, section 8; Nomad `nomad/acl_endpoint.go`.

use std::net::IpAddr;

use crate::base::id::Index;
use crate::state::State;
use crate::state::watch::WatchKey;
use crate::wire::body::acl::{AclBootstrapRequest, AclToken, AuthenticatedIdentity, WhoAmIResponse};
use crate::wire::body::node::{go_time, go_zero_time};
use crate::wire::body::query::{GenericRequest, QueryMeta};
use crate::wire::entry::Command;
use crate::wire::msgpack::{Bytes, Encoder, Msg, Raw};
use crate::wire_structs;

use super::access::{ANONYMOUS, Access, Identity, access, access_with_reason};
use super::acl_tokens::shown;
use super::answer::{Answer, Failure, PERMISSION_DENIED, arguments, blocking, body, coded, query_meta};
use super::auth::is_uuid;
use super::outcome::{Finish, Outcome};
use super::secrets::secret_uuid;
use super::{Ctx, Request};

/// The accessor that stands for everybody while ACLs are off; LastDrain names it too.
pub(super) const DISABLED_ACCESSOR: &str = "acls-disabled";

/// Goes on while ACLs are on. Methods that need them ask this before they read anything.
///
/// # Errors
/// `ACL support disabled`, coded 400.
pub(super) fn enabled(ctx: &Ctx) -> Result<(), Failure> {
    if ctx.server.acl_enabled { Ok(()) } else { Err(coded(400, "ACL support disabled")) }
}

/// Begins a method that needs ACLs: its arguments, and who calls.
pub(super) fn begin<T: Msg>(
    request: &Request<'_>,
    state: &State,
    ctx: &Ctx,
    auth_token: fn(&T) -> &str,
) -> Result<(T, Access), Failure> {
    enabled(ctx)?;
    let args: T = arguments(request)?;
    let access = access(auth_token(&args), request, state, ctx)?;
    Ok((args, access))
}

/// ACL.Bootstrap: once; again only with the index of the last time in the file of the data folder.
pub(super) fn bootstrap(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    enabled(ctx)?;
    let args: AclBootstrapRequest = arguments(request)?;
    let given = args.bootstrap_secret;
    let taken = || state.token_by_secret(&given).is_some() || state.node_by_secret(&given).is_some();
    if !given.is_empty() && (!is_uuid(&given) || taken()) {
        return Err(coded(400, "invalid acl token"));
    }
    let made = state.acl_bootstrap_index().0;
    match ctx.acl_bootstrap_reset {
        _ if made == 0 => {}
        None | Some(0) => return Err(coded(400, format_args!("ACL bootstrap already done (reset index: {made})"))),
        Some(index) if index == made => {}
        Some(index) => {
            let text = format_args!("Invalid bootstrap reset index (specified {index}, reset index: {made})");
            return Err(coded(400, text));
        }
    }
    let token = AclToken {
        accessor_id: secret_uuid(ctx, 0),
        secret_id: if given.is_empty() { secret_uuid(ctx, 1) } else { given },
        name: "Bootstrap Token".to_owned(),
        kind: "management".to_owned(),
        global: true,
        create_time: go_time(ctx.wall.unix_nanos()),
        ..AclToken::default()
    };
    let finish = Finish::AclTokens(vec![token.accessor_id.clone()]);
    Ok(Outcome::Propose { command: Command::AclBootstrap { token: Box::new(token), reset_index: made }, finish })
}

/// ACL.WhoAmI.
pub(super) fn who_am_i(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let args: GenericRequest = arguments(request)?;
    let access = access_with_reason(&args.query.auth_token, state, ctx)?;
    let nobody = |accessor: &str, name: &str| AclToken {
        accessor_id: accessor.to_owned(),
        name: name.to_owned(),
        kind: "client".to_owned(),
        create_time: go_zero_time(),
        ..AclToken::default()
    };
    let token = match &access.identity {
        Identity::AclsOff => Some(nobody(DISABLED_ACCESSOR, "ACLs disabled token")),
        Identity::Anonymous => {
            Some(AclToken { policies: Some(vec![ANONYMOUS.to_owned()]), ..nobody(ANONYMOUS, "Anonymous Token") })
        }
        Identity::Token(token) => Some(shown(token, state)),
        Identity::Node(_) => None,
    };
    let index = token.as_ref().map_or(0, |token| token.modify_index).max(1);
    let identity = AuthenticatedIdentity {
        acl_token: token,
        claims: Raw::default(),
        client_id: access.node(state).map_or_else(String::new, |node| node.id.to_string()),
        tls_name: request.caller.tls_names.as_deref().and_then(|names| names.first()).cloned().unwrap_or_default(),
        remote_ip: Bytes(match request.caller.peer.ip() {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        }),
    };
    Ok(body(&WhoAmIResponse { identity: Some(identity), meta: query_meta(ctx, index) }))
}

/// ACL.GetClaimPolicies: for the tokens of workloads, of which there are none.
pub(super) fn claim_policies(_: &Request<'_>, _: &State, _: &Ctx) -> Answer {
    Err(PERMISSION_DENIED.into())
}

/// Auth methods, binding rules, logins, one-time tokens and introductions: nothing is behind them, for anybody.
pub(super) fn not_served(request: &Request<'_>, _: &State, ctx: &Ctx) -> Answer {
    enabled(ctx)?;
    Err(coded(501, format_args!("not served by holdfast: {}", request.method)))
}

/// ACL.ListAuthMethods, which is for those who are about to log in: there are none.
pub(super) fn list_auth_methods(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let (args, _) = begin::<GenericRequest>(request, state, ctx, |args| &args.query.auth_token)?;
    blocking(
        request,
        ctx,
        &args.query,
        Index(1),
        || vec![WatchKey::acl()],
        |meta| Ok(body(&NoAuthMethods { auth_methods: nothing(), meta })),
    )
}

/// ACL.ListBindingRules: there are none.
pub(super) fn list_binding_rules(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let (args, access) = begin::<GenericRequest>(request, state, ctx, |args| &args.query.auth_token)?;
    access.require_management()?;
    blocking(
        request,
        ctx,
        &args.query,
        Index(1),
        || vec![WatchKey::acl()],
        |meta| Ok(body(&NoBindingRules { binding_rules: nothing(), meta })),
    )
}

/// An empty list.
fn nothing() -> Raw {
    let mut e = Encoder::new();
    e.array(0);
    Raw(e.out.into())
}

wire_structs! {
    /// Reply of ACL.ListAuthMethods.
    pub struct NoAuthMethods {
        /// An empty list.
        auth_methods: Raw = "AuthMethods",
        ..meta: QueryMeta,
    }
    /// Reply of ACL.ListBindingRules.
    pub struct NoBindingRules {
        /// An empty list.
        binding_rules: Raw = "ACLBindingRules",
        ..meta: QueryMeta,
    }
}
