//! ACL.* of a server whose ACLs are off: it says so, and who the caller is.
//!
//! Source: endpoint notes, section 8.

use std::net::IpAddr;

use crate::state::State;
use crate::wire::body::acl::{AclToken, AuthenticatedIdentity, WhoAmIResponse};
use crate::wire::body::node::go_zero_time;
use crate::wire::body::query::GenericRequest;
use crate::wire::msgpack::{Bytes, Raw};

use super::answer::{Answer, PERMISSION_DENIED, arguments, body, coded, query_meta};
use super::{Ctx, Request};

/// The accessor that stands for everybody while ACLs are off; LastDrain names it too.
pub(super) const DISABLED_ACCESSOR: &str = "acls-disabled";

/// Every method but two.
pub(super) fn disabled(_: &Request<'_>, _: &State, _: &Ctx) -> Answer {
    Err(coded(400, "ACL support disabled"))
}

/// ACL.WhoAmI.
pub(super) fn who_am_i(request: &Request<'_>, _: &State, ctx: &Ctx) -> Answer {
    arguments::<GenericRequest>(request)?;
    let token = AclToken {
        accessor_id: DISABLED_ACCESSOR.to_owned(),
        name: "ACLs disabled token".to_owned(),
        kind: "client".to_owned(),
        create_time: go_zero_time(),
        ..AclToken::default()
    };
    let identity = AuthenticatedIdentity {
        acl_token: Some(token),
        claims: Raw::default(),
        client_id: String::new(),
        tls_name: request.caller.tls_names.as_deref().and_then(|names| names.first()).cloned().unwrap_or_default(),
        remote_ip: Bytes(match request.caller.peer.ip() {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        }),
    };
    Ok(body(&WhoAmIResponse { identity: Some(identity), meta: query_meta(ctx, 1) }))
}

/// ACL.GetClaimPolicies: for the tokens of workloads, of which there are none.
pub(super) fn claim_policies(_: &Request<'_>, _: &State, _: &Ctx) -> Answer {
    Err(PERMISSION_DENIED.into())
}
