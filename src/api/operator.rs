//! What operators ask: connections, raft's configuration, and changes of it.
//!
//! Source: endpoint notes, section 5.

use crate::state::State;
use crate::wire::body::operator::{
    ConnectionsResponse, LeadershipTransferResponse, RaftConfigurationResponse, RaftIdAddress, RaftPeerByIdRequest,
    RaftPeerRequest, RaftServer,
};
use crate::wire::body::query::{GenericRequest, WriteRequest};
use crate::wire::class::NO_LEADER;
use crate::wire::msgpack::Msg;
use crate::wire::rpc::EMPTY_BODY;

use super::access::access;
use super::answer::{Answer, arguments, body, coded};
use super::outcome::{ClusterChange, Outcome, Reply, ReplyResult};
use super::{Ctx, Request, ServerEntry, ServerStatus};

/// Raft's protocol, as clients know it.
const RAFT_PROTOCOL: &str = "3";

/// Holdfast.Connections (R1.3). The list is the server's own; it comes with the context.
pub(super) fn connections(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let args: GenericRequest = arguments(request)?;
    let access = access(&args.query.auth_token, request, state, ctx)?;
    access.require(access.acl.operator_read())?;
    Ok(match &ctx.connections {
        Some(connections) => body(&**connections),
        None => body(&ConnectionsResponse::default()),
    })
}

/// Operator.RaftGetConfiguration: who is a member, with a vote or without.
pub(super) fn raft_configuration(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let args: GenericRequest = arguments(request)?;
    access(&args.query.auth_token, request, state, ctx)?.require_management()?;
    Ok(body(&RaftConfigurationResponse {
        servers: members(ctx).map(|server| raft_server(server, ctx)).collect(),
        index: 0,
    }))
}

/// A member whose name never came here is shown as the peers show it.
fn raft_server(server: &ServerEntry, ctx: &Ctx) -> RaftServer {
    let is_known = !server.name.is_empty();
    RaftServer {
        id: server.id.clone(),
        node: if is_known { full_name(server, ctx) } else { "(unknown)".to_owned() },
        address: server.rpc_addr.clone(),
        leader: is_leader(server, ctx),
        voter: server.voter,
        raft_protocol: if is_known { RAFT_PROTOCOL } else { "unknown" }.to_owned(),
    }
}

/// The servers that raft's configuration names.
pub(super) fn members(ctx: &Ctx) -> impl Iterator<Item = &ServerEntry> {
    ctx.servers.iter().filter(|server| server.is_member)
}

/// Operator.RaftRemovePeerByID.
pub(super) fn raft_remove_peer(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let args: RaftPeerByIdRequest = arguments(request)?;
    access(&args.write.auth_token, request, state, ctx)?.require_management()?;
    let Some(peer) = members(ctx).find(|server| server.id == args.id) else {
        return Err(not_found("id", &args.id).into());
    };
    may_go(peer, ctx).map_err(|why| coded(400, format!("server {:?} cannot be removed: {why}", args.id)))?;
    let reply = Reply { result: ReplyResult::Body(EMPTY_BODY.into()), effects: Vec::new() };
    Ok(Outcome::Cluster { change: ClusterChange::RemovePeer { id: args.id }, reply: Box::new(reply) })
}

/// Whether those that stay can go on without it. A change of members is agreed on by the old and by the new majority,
/// so that one which leaves no majority alive would stop everything until a dead server comes back.
fn may_go(peer: &ServerEntry, ctx: &Ctx) -> Result<(), String> {
    if !peer.voter {
        return Ok(());
    }
    let staying = || members(ctx).filter(|server| server.voter && server.id != peer.id);
    let (left, alive) = (staying().count(), staying().filter(|server| server.status == ServerStatus::Alive).count());
    if left == 0 {
        return Err("it is the only one with a vote, and all there is would be lost".to_owned());
    }
    if alive < left / 2 + 1 {
        return Err(format!("of the {left} voters that would be left {alive} are alive, too few to agree on anything"));
    }
    Ok(())
}

/// Operator.RaftRemovePeerByAddress, which is gone.
pub(super) fn raft_remove_peer_by_address(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let args: WriteOnly = arguments(request)?;
    access(&args.write.auth_token, request, state, ctx)?.require_management()?;
    Err(coded(400, "Operator.RaftRemovePeerByAddress has been removed"))
}

/// Operator.TransferLeadershipToPeer. Whoever leads already has it.
pub(super) fn transfer_leadership(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let args: RaftPeerRequest = arguments(request)?;
    access(&args.write.auth_token, request, state, ctx)?.require_management()?;
    let Some(leader) = ctx.servers.iter().find(|server| is_leader(server, ctx)) else {
        return Err(coded(503, NO_LEADER));
    };
    if args.id.is_empty() && args.address.is_empty() {
        return Err(coded(400, "must provide peer id or address"));
    }
    let wanted = if args.id.is_empty() {
        let known = members(ctx).find(|server| server.rpc_addr == args.address);
        known.ok_or_else(|| coded(400, not_found("address", &args.address)))?
    } else {
        let known = members(ctx).find(|server| server.id == args.id);
        known.ok_or_else(|| coded(400, not_found("id", &args.id)))?
    };
    let noop = wanted.id == leader.id;
    let response = LeadershipTransferResponse {
        from: named(leader),
        to: named(wanted),
        noop,
        ..LeadershipTransferResponse::default()
    };
    if noop {
        return Ok(body(&response));
    }
    may_lead(wanted).map_err(|why| coded(400, format!("server {:?} cannot lead: {why}", wanted.id)))?;
    let result = ReplyResult::Body(response.to_bytes().into());
    Ok(Outcome::Cluster {
        change: ClusterChange::TransferLeadership { to: Some(wanted.id.clone()) },
        reply: Box::new(Reply { result, effects: Vec::new() }),
    })
}

/// Said at once, rather than after an attempt that stops all writes until it has failed.
fn may_lead(server: &ServerEntry) -> Result<(), &'static str> {
    match server.status {
        _ if !server.voter => Err("it has no vote"),
        ServerStatus::Alive => Ok(()),
        ServerStatus::Failed => Err("it does not answer"),
        ServerStatus::Left => Err("it has left"),
    }
}

fn named(server: &ServerEntry) -> RaftIdAddress {
    RaftIdAddress { address: server.rpc_addr.clone(), id: server.id.clone() }
}

fn not_found(what: &str, value: &str) -> String {
    format!("{what} {value:?} was not found in the Raft configuration")
}

/// The name with the region, as members have it.
pub(super) fn full_name(server: &ServerEntry, ctx: &Ctx) -> String {
    format!("{}.{}", server.name, ctx.server.region)
}

/// Whether this is the server that leads.
pub(super) fn is_leader(server: &ServerEntry, ctx: &Ctx) -> bool {
    !ctx.leader_rpc_addr.is_empty() && server.rpc_addr == *ctx.leader_rpc_addr
}

crate::wire_structs! {
    /// Arguments of which only the options of a write matter.
    pub struct WriteOnly {
        ..write: WriteRequest,
    }
}
