//! What operators ask: connections, raft's configuration, and changes of it.
//!
//! Source: endpoint notes, section 5.

use crate::state::State;
use crate::wire::body::operator::{
    ConnectionsResponse, LeadershipTransferResponse, RaftConfigurationResponse, RaftIdAddress, RaftPeerByIdRequest,
    RaftPeerRequest, RaftServer,
};
use crate::wire::body::query::{GenericRequest, WriteRequest};

use super::access::access;
use super::answer::{Answer, arguments, body, coded};
use super::{Ctx, Request, ServerEntry};

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

/// Operator.RaftGetConfiguration.
pub(super) fn raft_configuration(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let args: GenericRequest = arguments(request)?;
    access(&args.query.auth_token, request, state, ctx)?.require_management()?;
    let server = |server: &ServerEntry| RaftServer {
        id: server.id.clone(),
        node: full_name(server, ctx),
        address: server.rpc_addr.clone(),
        leader: is_leader(server, ctx),
        voter: server.voter,
        raft_protocol: RAFT_PROTOCOL.to_owned(),
    };
    Ok(body(&RaftConfigurationResponse { servers: ctx.servers.iter().map(server).collect(), index: 0 }))
}

/// Operator.RaftRemovePeerByID.
pub(super) fn raft_remove_peer(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let args: RaftPeerByIdRequest = arguments(request)?;
    access(&args.write.auth_token, request, state, ctx)?.require_management()?;
    if ctx.servers.iter().all(|server| server.id != args.id) {
        return Err(not_found("id", &args.id).into());
    }
    if ctx.servers.len() == 1 {
        let text =
            format!("server {:?} cannot be removed: it is the only one, and all there is would be lost", args.id);
        return Err(coded(400, text));
    }
    Err(coded(501, "servers cannot be removed by this release"))
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
        return Err(coded(503, "No cluster leader"));
    };
    if args.id.is_empty() && args.address.is_empty() {
        return Err(coded(400, "must provide peer id or address"));
    }
    let wanted = if args.id.is_empty() {
        let known = ctx.servers.iter().find(|server| server.rpc_addr == args.address);
        known.ok_or_else(|| coded(400, not_found("address", &args.address)))?
    } else {
        let known = ctx.servers.iter().find(|server| server.id == args.id);
        known.ok_or_else(|| coded(400, not_found("id", &args.id)))?
    };
    if wanted.id != leader.id {
        return Err(coded(501, "leadership cannot be handed over by this release"));
    }
    let itself = RaftIdAddress { address: leader.rpc_addr.clone(), id: leader.id.clone() };
    Ok(body(&LeadershipTransferResponse { from: itself.clone(), to: itself, noop: true, ..Default::default() }))
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
