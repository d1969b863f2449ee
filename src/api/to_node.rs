//! Calls that go on to a node over the connection it dialled.
//!
//! Source: endpoint notes, section 3.4; Nomad `nomad/client_rpc.go`.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::state::State;
use crate::state::node::Node;
use crate::wire::body::node_call::{AllocTarget, NodeTarget};

use super::access::access;
use super::answer::{Answer, Failure, arguments, coded};
use super::outcome::{Outcome, ToNode};
use super::version;
use super::{Ctx, Request};

/// The error when no connection of any server leads to the node.
pub const NO_PATH: &str = "No path to node";

/// A call that runs on the node under the same name, or under `Allocations.` in place of `ClientAllocations.`.
pub(super) fn pass_on(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let args: NodeTarget = arguments(request)?;
    let access = access(&args.auth_token, request, state, ctx)?;
    let reads = matches!(request.method, "ClientStats.Stats" | "NodeIdentity.Get" | "NodeMeta.Read");
    access.require(access.acl.node_write() || (reads && access.acl.node_read()))?;
    if args.node_id.is_empty() {
        return Err("missing NodeID".into());
    }
    let node = state.node(&args.node_id).ok_or_else(|| format!("Unknown node {}", args.node_id))?;
    supports_calls(node)?;
    Ok(Outcome::ToNode(call(node, request, NO_PATH.to_owned())))
}

/// Agent.Host and Agent.Profile of a node: errors carry codes.
pub(super) fn pass_on_coded(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let args: NodeTarget = arguments(request)?;
    let access = access(&args.auth_token, request, state, ctx)?;
    access.require(access.acl.agent_write() || (request.method == "Agent.Host" && access.acl.agent_read()))?;
    if args.node_id.is_empty() {
        return Err(coded(400, format_args!("{} answers for nodes only: NodeID is missing", request.method)));
    }
    let node = agent_node(&args.node_id, state)?;
    Ok(Outcome::ToNode(call(node, request, format!("RPC Error:: 404,{NO_PATH}"))))
}

/// The node of a method of Agent.*, whose errors carry codes.
pub(super) fn agent_node<'a>(node_id: &str, state: &'a State) -> Result<&'a Arc<Node>, Failure> {
    let node = state.node(node_id).ok_or_else(|| coded(404, format_args!("Unknown node {node_id:?}")))?;
    supports_calls(node).map_err(|text| coded(400, text))?;
    Ok(node)
}

/// Calls about an allocation: there is none, which those are told who may see its namespace.
pub(super) fn about_alloc(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let args: AllocTarget = arguments(request)?;
    may_ask_about(&args, request, state, ctx)?;
    Err(unknown_alloc(&args.alloc_id).into())
}

/// Whether a caller may hear of allocations at all: the namespace must be one that they may see.
pub(super) fn may_ask_about(
    args: &AllocTarget,
    request: &Request<'_>,
    state: &State,
    ctx: &Ctx,
) -> Result<(), Failure> {
    let access = access(&args.auth_token, request, state, ctx)?;
    let namespace = if args.namespace.is_empty() { "default" } else { &args.namespace };
    access.require(access.acl.sees_namespace(namespace))
}

/// The error for an allocation.
pub(super) fn unknown_alloc(id: &str) -> String {
    if id.is_empty() { "Missing allocation ID".to_owned() } else { format!("Unknown allocation {id:?}") }
}

/// What to send to a node.
pub(super) fn call(node: &Node, request: &Request<'_>, no_path: String) -> ToNode {
    let method = match request.method.strip_prefix("ClientAllocations.") {
        Some(name) => format!("Allocations.{name}"),
        None => request.method.to_owned(),
    };
    ToNode { node_id: node.id.clone(), method, body: request.body.into(), no_path }
}

/// Whether a node's agent takes calls.
fn supports_calls(node: &Node) -> Result<(), &'static str> {
    match version::compare(&node.version, version::CALLS) {
        None => Err("Unable to determine Nomad version"),
        Some(Ordering::Less) => Err("Node does not support RPC; requires 0.8 or later"),
        Some(_) => Ok(()),
    }
}
