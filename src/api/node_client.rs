//! What only nodes call beside their heartbeat: allocations, of which there are none, and events.
//!
//! Source: endpoint notes, sections 1.3, 3.2 and 3.3; Nomad `nomad/node_endpoint.go`.

use crate::state::State;
use crate::state::node::{Node, NodeStatus};
use crate::state::watch::WatchKey;
use crate::wire::body::node_call::{
    AllocUpdateRequest, EmitNodeEventsRequest, NodeAllocsResponse, NodeClientAllocsResponse, NodeSpecificRequest,
};
use crate::wire::entry::Command;

use super::access::access;
use super::answer::{Answer, Failure, PERMISSION_DENIED, arguments, blocking, body, body_with};
use super::auth::{Proof, prove, same_secret, tls_name_allows};
use super::outcome::{Effect, Finish, Outcome, Park};
use super::{Ctx, Request};

/// Node.GetClientAllocs: parked nearly always. Agents of the 1.1 line ask before they have registered, and are
/// answered.
pub(super) fn get_client_allocs(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let args: NodeSpecificRequest = arguments(request)?;
    check_tls_name(request, ctx)?;
    if args.node_id.is_empty() {
        return Err("missing node ID".into());
    }
    let node = state.node(&args.node_id);
    if let Some(node) = node {
        check_reader(node, &args, request, state, ctx)?;
    }
    let keys = || vec![WatchKey::node_allocs(&args.node_id)];
    let mut effects = Vec::new();
    if let Some(node) = node.filter(|_| !args.query.forwarded) {
        effects.push(Effect::ProveNode(node.id.clone()));
        effects.push(Effect::BindNode(node.id.clone()));
    }
    // An agent that comes back asks with the index it had: it has proven itself although it is made to wait.
    let outcome = blocking(request, ctx, &args.query, state.allocs_index(), keys, |meta| {
        Ok(body_with(&NodeClientAllocsResponse { meta, ..NodeClientAllocsResponse::default() }, effects.clone()))
    })?;
    Ok(match outcome {
        Outcome::Park(park) => Outcome::Park(Park { effects, ..park }),
        other => other,
    })
}

/// Whether a caller may ask for a node's allocations: by any proof, or by the argument SecretID.
fn check_reader(
    node: &Node,
    args: &NodeSpecificRequest,
    request: &Request<'_>,
    state: &State,
    ctx: &Ctx,
) -> Result<(), Failure> {
    if same_secret(&args.secret_id, &node.secret_id) {
        return Ok(());
    }
    Err(match prove(node, &args.query.auth_token, request.caller, state, ctx) {
        Proof::Proven => return Ok(()),
        // Without a token, Nomad 1.1 spoke; its agents register again when they read the second text.
        Proof::Nothing if args.secret_id.is_empty() => "missing node secret ID for client status update",
        Proof::Nothing => "node secret ID does not match",
        Proof::Stale | Proof::Wrong => PERMISSION_DENIED,
    }
    .into())
}

/// Node.GetAllocs.
pub(super) fn get_allocs(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let args: NodeSpecificRequest = arguments(request)?;
    let access = access(&args.query.auth_token, request, state, ctx)?;
    access.require(access.acl.node_read())?;
    if args.node_id.is_empty() {
        return Err("missing node ID".into());
    }
    let keys = || vec![WatchKey::node_allocs(&args.node_id)];
    blocking(request, ctx, &args.query, state.allocs_index(), keys, |meta| {
        Ok(body(&NodeAllocsResponse { allocs: None, meta }))
    })
}

/// Node.UpdateAlloc: always an error, as no allocation was ever given out.
pub(super) fn update_alloc(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let args: AllocUpdateRequest = arguments(request)?;
    check_tls_name(request, ctx)?;
    let first = args.alloc.first().ok_or("must update at least one allocation")?;
    if first.node_id.is_empty() {
        return Err("missing node ID".into());
    }
    let node = state.node(&first.node_id).ok_or_else(|| format!("node {} not found", first.node_id))?;
    if prove(node, &args.write.auth_token, request.caller, state, ctx) != Proof::Proven {
        return Err(PERMISSION_DENIED.into());
    }
    if node.status == NodeStatus::Down {
        let status = node.status.as_str();
        return Err(format!("node {} is not allowed to update allocs while in status {status}", node.id).into());
    }
    if !args.evals.is_empty() {
        return Err("evals field must not be set".into());
    }
    Err(super::to_node::unknown_alloc(&first.id).into())
}

/// Node.EmitEvents: of oneself only.
pub(super) fn emit_events(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let args: EmitNodeEventsRequest = arguments(request)?;
    check_tls_name(request, ctx)?;
    if args.node_events.is_empty() {
        return Err("no node events given".into());
    }
    for id in args.node_events.keys() {
        let proven = |node: &&Node| prove(node, &args.write.auth_token, request.caller, state, ctx) == Proof::Proven;
        if state.node(id).map(|node| &**node).filter(proven).is_none() {
            return Err(PERMISSION_DENIED.into());
        }
    }
    if let Some((id, _)) = args.node_events.iter().find(|(_, events)| events.is_empty()) {
        return Err(format!("no node events given for node {id:?}").into());
    }
    let command = Command::NodeEmitEvents { events: args.node_events };
    Ok(Outcome::Propose { command, finish: Finish::WriteMeta })
}

fn check_tls_name(request: &Request<'_>, ctx: &Ctx) -> Result<(), Failure> {
    if tls_name_allows(request.caller, ctx) { Ok(()) } else { Err(PERMISSION_DENIED.into()) }
}
