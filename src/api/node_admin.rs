//! What operators do to nodes: remove, drain, mark, evaluate.
//!
//! Source: endpoint notes, section 3.2; Nomad `nomad/node_endpoint.go`.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::base::id::Index;
use crate::state::{ApplyResult, State};
use crate::wire::body::node_call::{
    NodeBatchDeregisterRequest, NodeChangeResponse, NodeDeregisterRequest, NodeEvaluateRequest, NodeUpdateDrainRequest,
    NodeUpdateEligibilityRequest, NodeUpdateResponse,
};
use crate::wire::body::query::{QueryMeta, WriteMeta, WriteRequest};
use crate::wire::entry::Command;

use super::access::access;
use super::answer::{Answer, Failure, arguments, body, body_with};
use super::heartbeat::{NODE_NOT_FOUND, servers_reply};
use super::outcome::{Effect, Finish, Outcome};
use super::{Ctx, Request};

/// Node.Deregister.
pub(super) fn deregister(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let args: NodeDeregisterRequest = arguments(request)?;
    may_write(&args.write, request, state, ctx)?;
    if args.node_id.is_empty() {
        return Err("missing node ID for client deregistration".into());
    }
    remove(vec![args.node_id], state)
}

/// Node.BatchDeregister.
pub(super) fn batch_deregister(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let args: NodeBatchDeregisterRequest = arguments(request)?;
    may_write(&args.write, request, state, ctx)?;
    if args.node_ids.is_empty() {
        return Err("missing node IDs for client deregistration".into());
    }
    let once: BTreeSet<String> = args.node_ids.into_iter().collect();
    remove(once.into_iter().collect(), state)
}

/// `node:write`
fn may_write(write: &WriteRequest, request: &Request<'_>, state: &State, ctx: &Ctx) -> Result<(), Failure> {
    let access = access(&write.auth_token, request, state, ctx)?;
    access.require(access.acl.node_write())
}

/// All or none.
fn remove(ids: Vec<String>, state: &State) -> Answer {
    let node_ids: Option<Vec<Arc<str>>> = ids.iter().map(|id| Some(state.node(id)?.id.clone())).collect();
    let node_ids = node_ids.ok_or(NODE_NOT_FOUND)?;
    Ok(Outcome::Propose {
        command: Command::NodeDeregister { node_ids: ids },
        finish: Finish::NodeDeregister { node_ids },
    })
}

/// The reply of both: of the servers nothing is said, as in Nomad.
pub(super) fn finish_deregister(node_ids: &[Arc<str>], index: Index) -> Answer {
    let reply = NodeUpdateResponse {
        node_modify_index: index.0,
        meta: QueryMeta { index: index.0, ..QueryMeta::default() },
        ..NodeUpdateResponse::default()
    };
    Ok(body_with(&reply, node_ids.iter().cloned().map(Effect::ClearHeartbeat).collect()))
}

/// Node.UpdateDrain.
pub(super) fn update_drain(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let args: NodeUpdateDrainRequest = arguments(request)?;
    let access = access(&args.write.auth_token, request, state, ctx)?;
    // An agent that leaves drains its own node.
    let own = access.node(state).is_some_and(|node| *node.id == *args.node_id);
    access.require(access.acl.node_write() || own)?;
    if args.node_id.is_empty() {
        return Err("missing node ID for drain update".into());
    }
    if args.node_event.is_some() {
        return Err("node event must not be set".into());
    }
    let node_id = state.node(&args.node_id).ok_or(NODE_NOT_FOUND)?.id.clone();
    let command = Command::NodeUpdateDrain {
        node_id: args.node_id,
        strategy: args.drain_strategy,
        mark_eligible: args.mark_eligible,
        meta: args.meta,
        accessor_id: access.subject(),
    };
    Ok(Outcome::Propose { command, finish: Finish::NodeUpdateDrain { node_id } })
}

/// The reply. A node with nothing to move is done at once, in a write of its own that nobody waits for: who watches
/// the drain sees it begin and end, as with Nomad.
pub(super) fn finish_drain(node_id: &str, index: Index, result: &ApplyResult) -> Answer {
    let mut effects = Vec::new();
    if *result == ApplyResult::DrainStarted {
        effects.push(Effect::Propose(Command::NodeDrainComplete { node_id: node_id.to_owned() }));
    }
    Ok(body_with(&changed(index.0, index), effects))
}

/// Node.UpdateEligibility.
pub(super) fn update_eligibility(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let args: NodeUpdateEligibilityRequest = arguments(request)?;
    may_write(&args.write, request, state, ctx)?;
    if args.node_id.is_empty() {
        return Err("missing node ID for setting scheduling eligibility".into());
    }
    if args.node_event.is_some() {
        return Err("node event must not be set".into());
    }
    if !matches!(args.eligibility.as_str(), "eligible" | "ineligible") {
        return Err(format!("invalid scheduling eligibility {:?}", args.eligibility).into());
    }
    let node = state.node(&args.node_id).ok_or(NODE_NOT_FOUND)?;
    if node.drain.is_some() && args.eligibility == "eligible" {
        return Err("can not set node's scheduling eligibility to eligible while it is draining".into());
    }
    if node.eligibility() == args.eligibility {
        return finish_eligibility(Index(0));
    }
    let command = Command::NodeUpdateEligibility { node_id: args.node_id, eligibility: args.eligibility };
    Ok(Outcome::Propose { command, finish: Finish::NodeUpdateEligibility })
}

/// The reply: NodeModifyIndex stays 0, as in Nomad.
pub(super) fn finish_eligibility(index: Index) -> Answer {
    Ok(body(&changed(0, index)))
}

fn changed(node_modify_index: u64, index: Index) -> NodeChangeResponse {
    NodeChangeResponse { node_modify_index, meta: WriteMeta { index: index.0 }, ..NodeChangeResponse::default() }
}

/// Node.Evaluate: there is nothing to place, so nothing is written.
pub(super) fn evaluate(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let args: NodeEvaluateRequest = arguments(request)?;
    may_write(&args.write, request, state, ctx)?;
    if args.node_id.is_empty() {
        return Err("missing node ID for evaluation".into());
    }
    let node = state.node(&args.node_id).ok_or(NODE_NOT_FOUND)?;
    Ok(body(&servers_reply(node, state, ctx)))
}
