//! Node.UpdateStatus, the heartbeat: the one call whose cost counts, as every node makes it all the time.
//!
//! Decodes once, looks a node up once and writes nothing when nothing changed. Source: endpoint notes, sections 1.3,
//! 3.2 and 3.3; Nomad `nomad/node_endpoint.go`.

use crate::base::id::Index;
use crate::state::State;
use crate::state::node::{Node, NodeStatus};
use crate::wire::body::node_call::{NodeServerInfo, NodeUpdateResponse, NodeUpdateStatusRequest};
use crate::wire::entry::Command;

use super::answer::{Answer, Failure, PERMISSION_DENIED, arguments, body_with, nanos};
use super::auth::{Proof, may_have_been, prove};
use super::identity::Identity;
use super::outcome::{Effect, Finish, Outcome};
use super::version::{IDENTITY, at_least};
use super::{Ctx, Request};

/// What makes an agent register again.
pub(super) const NODE_NOT_FOUND: &str = "node not found";

/// Node.UpdateStatus.
pub(super) fn update_status(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let args: NodeUpdateStatusRequest = arguments(request)?;
    if args.node_id.is_empty() {
        return Err("missing node ID for client status update".into());
    }
    let status = NodeStatus::from_word(&args.status).ok_or("invalid status for node")?;
    let token = args.write.auth_token.as_str();
    let Some(node) = state.node(&args.node_id) else {
        // Nomad 2.x tells an agent whose node was removed `Permission denied`, and it stays away until it is
        // restarted. A token that is no longer known proves nothing and the answer reveals nothing, so it hears what
        // makes it register again, with its secret.
        let gone = may_have_been(&args.node_id, token, state, ctx);
        return Err(if gone { NODE_NOT_FOUND } else { PERMISSION_DENIED }.into());
    };
    match prove(node, token, request.caller, state, ctx) {
        Proof::Proven => {}
        // An agent that has moved to this server, or whose identity ended while it slept, proves itself by
        // registering again.
        Proof::Nothing | Proof::Stale => return Err(NODE_NOT_FOUND.into()),
        Proof::Wrong => return Err(PERMISSION_DENIED.into()),
    }
    let sign = wants_identity(&node.version, token, args.force_identity_renewal, state, ctx);
    let key_id = ctx.signer.as_deref().filter(|_| sign).map_or("", |signer| signer.key_id());
    let direct = !args.write.forwarded;
    let changes = node.status != status
        || args.node_event.is_some()
        || (!key_id.is_empty() && key_id != &*node.identity_signing_key_id);
    if !changes {
        return reply(node, direct, sign, Index(0), state, ctx);
    }
    let command = Command::NodeUpdateStatus {
        node_id: args.node_id,
        status: args.status,
        event: args.node_event,
        updated_at: args.updated_at,
        identity_signing_key_id: key_id.to_owned(),
        expected_modify_index: None,
    };
    Ok(Outcome::Propose { command, finish: Finish::NodeUpdateStatus { node_id: node.id.clone(), direct, sign } })
}

/// The reply, once it is applied.
pub(super) fn finish(node_id: &str, direct: bool, sign: bool, index: Index, state: &State, ctx: &Ctx) -> Answer {
    let node = state.node(node_id).ok_or(NODE_NOT_FOUND)?;
    reply(node, direct, sign, index, state, ctx)
}

/// A caller that got here is proven.
fn reply(node: &Node, direct: bool, sign: bool, index: Index, state: &State, ctx: &Ctx) -> Answer {
    let mut effects = Vec::with_capacity(3);
    if direct {
        effects.push(Effect::ProveNode(node.id.clone()));
        effects.push(Effect::BindNode(node.id.clone()));
    }
    let mut reply = servers_reply(node, state, ctx);
    reply.node_modify_index = index.0;
    reply.meta.index = index.0;
    if node.status == NodeStatus::Down {
        effects.push(Effect::ClearHeartbeat(node.id.clone()));
    } else {
        reply.heartbeat_ttl = heard(node, &mut effects, ctx)?;
    }
    reply.signed_identity = identity_for(node, sign, ctx);
    Ok(body_with(&reply, effects))
}

/// Starts the node's timer anew: the TTL to tell it, nanoseconds.
///
/// # Errors
/// Nomad's text when leadership was lost meanwhile: timers are the leader's.
pub(super) fn heard(node: &Node, effects: &mut Vec<Effect>, ctx: &Ctx) -> Result<i64, Failure> {
    if !ctx.is_leader {
        return Err("failed to reset heartbeat since server is not leader".into());
    }
    effects.push(Effect::ResetHeartbeat(node.id.clone()));
    Ok(nanos(ctx.heartbeat_ttl))
}

/// What every agent is told of the servers.
pub(super) fn servers_reply(node: &Node, state: &State, ctx: &Ctx) -> NodeUpdateResponse {
    let info = |addr: &str, datacenter: &str| NodeServerInfo {
        rpc_advertise_addr: addr.to_owned(),
        datacenter: datacenter.to_owned(),
        ..NodeServerInfo::default()
    };
    let mut servers: Vec<_> = ctx.servers.iter().map(|server| info(&server.rpc_addr, &server.datacenter)).collect();
    if servers.is_empty() {
        // An agent takes an empty list for a failure.
        servers.push(info(&ctx.server.rpc_addr, &ctx.server.datacenter));
    }
    NodeUpdateResponse {
        leader_rpc_addr: ctx.leader_rpc_addr.to_string(),
        num_nodes: i32::try_from(state.node_count()).unwrap_or(i32::MAX),
        servers: Some(servers),
        scheduling_eligibility: node.eligibility().to_owned(),
        ..NodeUpdateResponse::default()
    }
}

/// Whether a node of this version, known to be who it is, gets a new identity: it shows none, or one that is due.
pub(super) fn wants_identity(version: &str, token: &str, forced: bool, state: &State, ctx: &Ctx) -> bool {
    let Some(signer) = ctx.signer.as_deref() else { return false };
    at_least(version, IDENTITY)
        && (forced || Identity::parse(token).is_none_or(|identity| identity.is_due(state, Some(signer), ctx.wall)))
}

/// A new identity, when one is wanted and there is a key.
pub(super) fn identity_for(node: &Node, wanted: bool, ctx: &Ctx) -> Option<String> {
    let signer = ctx.signer.as_deref().filter(|_| wanted)?;
    Some(signer.sign(node, &ctx.server.region, ctx.wall, ctx.seed))
}
