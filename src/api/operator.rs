//! What operators ask and set: connections, raft's configuration, health, snapshots.
//!
//! Source: endpoint notes, section 5.

use crate::state::State;
use crate::wire::body::operator::ConnectionsResponse;
use crate::wire::body::query::GenericRequest;

use super::access::access;
use super::answer::{Answer, arguments, body};
use super::outcome::StreamOutcome;
use super::{Ctx, Request};

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
pub(super) fn raft_configuration(_: &Request<'_>, _: &State, _: &Ctx) -> Answer {
    todo!("operator")
}

/// Operator.RaftRemovePeerByID.
pub(super) fn raft_remove_peer(_: &Request<'_>, _: &State, _: &Ctx) -> Answer {
    todo!("operator")
}

/// Operator.RaftRemovePeerByAddress, which is gone.
pub(super) fn raft_remove_peer_by_address(_: &Request<'_>, _: &State, _: &Ctx) -> Answer {
    todo!("operator")
}

/// Operator.TransferLeadershipToPeer.
pub(super) fn transfer_leadership(_: &Request<'_>, _: &State, _: &Ctx) -> Answer {
    todo!("operator")
}

/// Operator.AutopilotGetConfiguration.
pub(super) fn autopilot_configuration(_: &Request<'_>, _: &State, _: &Ctx) -> Answer {
    todo!("operator")
}

/// Operator.AutopilotSetConfiguration.
pub(super) fn set_autopilot_configuration(_: &Request<'_>, _: &State, _: &Ctx) -> Answer {
    todo!("operator")
}

/// Operator.ServerHealth.
pub(super) fn server_health(_: &Request<'_>, _: &State, _: &Ctx) -> Answer {
    todo!("operator")
}

/// Operator.SchedulerGetConfiguration.
pub(super) fn scheduler_configuration(_: &Request<'_>, _: &State, _: &Ctx) -> Answer {
    todo!("operator")
}

/// Operator.SchedulerSetConfiguration.
pub(super) fn set_scheduler_configuration(_: &Request<'_>, _: &State, _: &Ctx) -> Answer {
    todo!("operator")
}

/// Operator.SnapshotSave.
pub(super) fn snapshot_save(_: &Request<'_>, _: &State, _: &Ctx) -> StreamOutcome {
    todo!("operator")
}

/// Operator.SnapshotRestore.
pub(super) fn snapshot_restore(_: &Request<'_>, _: &State, _: &Ctx) -> StreamOutcome {
    todo!("operator")
}
