//! Status.* and Region.List: who is there, who leads. None waits, none writes.
//!
//! Source: endpoint notes, section 2.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::base::time::format_duration;
use crate::state::State;
use crate::wire::body::node::{go_time, go_zero_time};
use crate::wire::body::node_call::NodeSpecificRequest;
use crate::wire::body::query::GenericRequest;
use crate::wire::body::status::{Member, NodeConnQueryResponse, RaftStatsResponse, ServerMembersResponse};
use crate::wire::msgpack::Bytes;
use crate::wire::rpc::EMPTY_BODY;

use super::access::access;
use super::answer::{Answer, arguments, body, query_meta};
use super::operator::members as members_of;
use super::outcome::{Outcome, Reply, ReplyResult};
use super::{Ctx, Request, ServerEntry, ServerStatus};

/// The release of Nomad whose behaviour is spoken; the `nomad` CLI shows it as a server's build.
pub const NOMAD_BUILD: &str = "2.0.5";

/// Status.Ping.
pub(super) fn ping(request: &Request<'_>, _: &State, _: &Ctx) -> Answer {
    arguments::<GenericRequest>(request)?;
    Ok(Outcome::Reply(Reply { result: ReplyResult::Body(EMPTY_BODY.into()), effects: Vec::new() }))
}

/// Status.Leader: `ip:port`, empty when nobody is known to lead.
pub(super) fn leader(request: &Request<'_>, _: &State, ctx: &Ctx) -> Answer {
    arguments::<GenericRequest>(request)?;
    Ok(body(&ctx.leader_rpc_addr))
}

/// Status.Peers: `ip:port` of every member, with or without a vote.
pub(super) fn peers(request: &Request<'_>, _: &State, ctx: &Ctx) -> Answer {
    arguments::<GenericRequest>(request)?;
    Ok(body(&members_of(ctx).map(|server| server.rpc_addr.clone()).collect::<Vec<_>>()))
}

/// Status.Members.
pub(super) fn members(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let args: GenericRequest = arguments(request)?;
    let access = access(&args.query.auth_token, request, state, ctx)?;
    access.require(access.acl.node_read())?;
    Ok(body(&ServerMembersResponse {
        server_name: ctx.server.name.clone(),
        server_region: ctx.server.region.clone(),
        server_dc: ctx.server.datacenter.clone(),
        members: ctx.servers.iter().map(|server| member(server, ctx)).collect(),
    }))
}

/// A server as a member. There is no gossip port, so the RPC port stands in its place.
fn member(server: &ServerEntry, ctx: &Ctx) -> Member {
    let addr = server.rpc_addr.parse::<SocketAddr>().ok();
    let (host, port) = server.rpc_addr.rsplit_once(':').unwrap_or((&server.rpc_addr, ""));
    let ip = addr.map_or_else(|| host.to_owned(), |addr| addr.ip().to_string());
    let port = addr.map_or_else(|| port.parse().unwrap_or(0), |addr| addr.port());
    let mut tags: BTreeMap<String, String> = [
        ("role", "nomad".to_owned()),
        ("region", ctx.server.region.clone()),
        ("dc", server.datacenter.clone()),
        ("build", NOMAD_BUILD.to_owned()),
        ("revision", String::new()),
        ("vsn", "1".to_owned()),
        ("raft_vsn", "3".to_owned()),
        ("id", server.id.clone()),
        ("rpc_addr", ip),
        ("port", port.to_string()),
        ("holdfast", server.build.clone()),
        ("http_addr", server.http_addr.clone()),
        ("expect", ctx.server.bootstrap_expect.to_string()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    if ctx.server.bootstrap_expect == 1 {
        tags.insert("bootstrap".to_owned(), "1".to_owned());
    }
    tags.retain(|name, value| !value.is_empty() || name == "revision");
    if !server.voter {
        tags.insert("nonvoter".to_owned(), "1".to_owned());
    }
    Member {
        name: format!("{}.{}", server.name, ctx.server.region),
        addr: Bytes(match addr.map(|addr| addr.ip()) {
            Some(IpAddr::V4(ip)) => ip.octets().to_vec(),
            Some(IpAddr::V6(ip)) => ip.octets().to_vec(),
            None => Vec::new(),
        }),
        port,
        tags,
        status: word(server.status).to_owned(),
        protocol_min: 1,
        protocol_max: 5,
        protocol_cur: 2,
        delegate_min: 2,
        delegate_max: 5,
        delegate_cur: 4,
    }
}

/// How a server is, in the words of the gossip layer that the peers have.
fn word(status: ServerStatus) -> &'static str {
    match status {
        ServerStatus::Alive => "alive",
        ServerStatus::Failed => "failed",
        ServerStatus::Left => "left",
    }
}

/// Status.RaftStats.
pub(super) fn raft_stats(request: &Request<'_>, _: &State, ctx: &Ctx) -> Answer {
    arguments::<GenericRequest>(request)?;
    let last_contact = match ctx.last_contact {
        _ if ctx.is_leader => "0".to_owned(),
        Duration::MAX => "never".to_owned(),
        since => format_duration(since),
    };
    Ok(body(&RaftStatsResponse { last_contact, last_term: ctx.raft.last_term, last_index: ctx.raft.last_index }))
}

/// Status.HasNodeConn, which other servers ask when a call for a node came to them (R1.61).
pub(super) fn has_node_conn(request: &Request<'_>, _: &State, ctx: &Ctx) -> Answer {
    let args: NodeSpecificRequest = arguments(request)?;
    if args.node_id.is_empty() {
        return Err("Must provide the NodeID".into());
    }
    Ok(body(&NodeConnQueryResponse {
        connected: ctx.node_conn_established.is_some(),
        established: ctx.node_conn_established.map_or_else(go_zero_time, |at| go_time(at.unix_nanos())),
        meta: query_meta(ctx, 0),
    }))
}

/// Region.List: a bare list of names.
pub(super) fn regions(request: &Request<'_>, _: &State, ctx: &Ctx) -> Answer {
    arguments::<GenericRequest>(request)?;
    Ok(body(&ctx.server.regions))
}
