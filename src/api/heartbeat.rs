//! Node.UpdateStatus, the heartbeat: the one call whose cost counts, as every node makes it all the time.
//!
//! Decodes once, looks a node up once and writes nothing when nothing changed. Source: endpoint notes, sections 1.3,
//! 3.2 and 3.3; Nomad `nomad/node_endpoint.go`.

use crate::base::id::Index;
use crate::state::State;
use crate::state::node::{Node, NodeStatus};
use crate::wire::body::node_call::{NodeServerInfo, NodeUpdateResponse, NodeUpdateStatusRequest};
use crate::wire::class::HEARTBEAT_NOT_RESET;
use crate::wire::entry::Command;

use super::answer::{Answer, Failure, PERMISSION_DENIED, arguments, body_with, nanos};
use super::auth::{Proof, may_have_been, prove};
use super::identity::Identity;
use super::outcome::{Effect, Finish, Outcome};
use super::version::{IDENTITY, at_least};
use super::{Caller, Ctx, Request};

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
    let mut effects = Vec::new();
    let sign = match wants_identity(node, token, request.caller, state, ctx) {
        _ if args.force_identity_renewal => knows_identities(&node.version),
        Wants::New => true,
        Wants::Nothing => false,
        Wants::NothingUntil(due) => {
            effects.push(Effect::TokenIsGoodUntil(token_mark(token), due));
            false
        }
    };
    let key_id = ctx.signer.as_deref().filter(|_| sign).map_or("", |signer| signer.key_id());
    let direct = !args.write.forwarded;
    let changes = node.status != status
        || args.node_event.is_some()
        || (!key_id.is_empty() && key_id != &*node.identity_signing_key_id);
    if !changes {
        return reply(node, direct, sign, effects, Index(0), state, ctx);
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
    reply(node, direct, sign, Vec::new(), index, state, ctx)
}

/// A caller that got here is proven.
fn reply(
    node: &Node,
    direct: bool,
    sign: bool,
    mut effects: Vec<Effect>,
    index: Index,
    state: &State,
    ctx: &Ctx,
) -> Answer {
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
        return Err(HEARTBEAT_NOT_RESET.into());
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

/// What a node that is known to be who it is wants of its identity.
pub(super) enum Wants {
    /// A new one.
    New,
    /// Nothing.
    Nothing,
    /// Nothing while it shows this token, until then (seconds since the Unix epoch).
    NothingUntil(i64),
}

/// Whether agents of this version know identities.
pub(super) fn knows_identities(version: &str) -> bool {
    at_least(version, IDENTITY)
}

/// Looks at what a node shows: it wants an identity when it has none or one that is due.
///
/// A node that goes on showing its secret has been given an identity once with this key and does not use it: it is
/// not given another with every heartbeat, since signing costs ten times all the rest.
fn wants_identity(node: &Node, token: &str, caller: &Caller, state: &State, ctx: &Ctx) -> Wants {
    let Some(signer) = ctx.signer.as_deref() else { return Wants::Nothing };
    if caller.good_token.is_some_and(|(mark, due)| mark == token_mark(token) && ctx.wall.unix_seconds() < due) {
        return Wants::Nothing;
    }
    if !knows_identities(&node.version) {
        return Wants::Nothing;
    }
    match Identity::parse(token) {
        None if signer.key_id() == &*node.identity_signing_key_id => Wants::Nothing,
        Some(identity) if !identity.is_due(state, Some(signer), ctx.wall) => Wants::NothingUntil(identity.due_at()),
        _ => Wants::New,
    }
}

/// Whether a node that registers with this token gets an identity: it shows none that is good.
pub(super) fn registers_for_identity(version: &str, token: &str, state: &State, ctx: &Ctx) -> bool {
    let Some(signer) = ctx.signer.as_deref() else { return false };
    let good = |identity: Identity| !identity.is_due(state, Some(signer), ctx.wall);
    knows_identities(version) && !Identity::parse(token).is_some_and(good)
}

/// Stands for a token that was looked at before on this connection. Not a secret's proof: what it decides is only
/// whether a proven node gets a new identity.
fn token_mark(token: &str) -> u64 {
    token.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// A new identity, when one is wanted and there is a key.
pub(super) fn identity_for(node: &Node, wanted: bool, ctx: &Ctx) -> Option<String> {
    let signer = ctx.signer.as_deref().filter(|_| wanted)?;
    Some(signer.sign(node, &ctx.server.region, ctx.wall, ctx.seed))
}
