//! How servers are looked after, how they are, and the scheduler's configuration, which is kept for those who ask.
//!
//! Source: endpoint notes, section 5.

use crate::base::id::Index;
use crate::state::{ApplyResult, State};
use crate::wire::body::node::{go_time, go_zero_time};
use crate::wire::body::operator::{
    AutopilotSetConfigRequest, OperatorHealthReply, SchedulerConfiguration, SchedulerConfigurationResponse,
    SchedulerSetConfigurationRequest, SchedulerSetConfigurationResponse, ServerHealth,
};
use crate::wire::body::query::{GenericRequest, WriteMeta};
use crate::wire::entry::Command;

use super::access::access;
use super::answer::{Answer, arguments, body, coded, nanos, query_meta};
use super::operator::{full_name, is_leader};
use super::outcome::{Finish, Outcome};
use super::status::NOMAD_BUILD;
use super::{Ctx, Request, ServerEntry};

/// `alive`, as the gossip layer numbers it.
const ALIVE: i64 = 1;
/// `failed`.
const FAILED: i64 = 4;
/// How a scheduler can be told to place.
const ALGORITHMS: [&str; 3] = ["binpack", "spread", ""];

/// Operator.AutopilotGetConfiguration.
pub(super) fn configuration(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let args: GenericRequest = arguments(request)?;
    let access = access(&args.query.auth_token, request, state, ctx)?;
    access.require(access.acl.operator_read())?;
    Ok(body(&*state.autopilot_config()))
}

/// Operator.AutopilotSetConfiguration.
pub(super) fn set_configuration(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let args: AutopilotSetConfigRequest = arguments(request)?;
    let access = access(&args.write.auth_token, request, state, ctx)?;
    access.require(access.acl.operator_write())?;
    for (name, span) in [
        ("ServerStabilizationTime", args.config.server_stabilization_time),
        ("LastContactThreshold", args.config.last_contact_threshold),
    ] {
        if span < 0 {
            return Err(coded(400, format!("{name} must not be negative")));
        }
    }
    let command = Command::AutopilotSet { config: args.config, cas: args.cas };
    Ok(Outcome::Propose { command, finish: Finish::AutopilotSet })
}

/// The reply: whether it was written.
pub(super) fn finish_set(result: &ApplyResult) -> Answer {
    Ok(body(&(*result == ApplyResult::Done)))
}

/// Operator.ServerHealth.
pub(super) fn server_health(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let args: GenericRequest = arguments(request)?;
    let access = access(&args.query.auth_token, request, state, ctx)?;
    access.require(access.acl.operator_read())?;
    let config = state.autopilot_config();
    let servers: Vec<ServerHealth> = ctx.servers.iter().map(|server| health(server, &config, ctx)).collect();
    let voters = servers.iter().filter(|server| server.voter);
    let (all, good) = (voters.clone().count(), voters.clone().filter(|server| server.healthy).count());
    // What may fail before fewer than a majority is left.
    let spare = good.saturating_sub(all / 2 + 1);
    Ok(body(&OperatorHealthReply {
        healthy: servers.iter().all(|server| server.healthy),
        failure_tolerance: i64::try_from(spare).unwrap_or(i64::MAX),
        leader: servers.iter().find(|server| server.leader).map(|server| server.id.clone()).unwrap_or_default(),
        voters: voters.map(|server| server.id.clone()).collect(),
        servers,
    }))
}

/// What is known of a server here: of itself all, of others who leads.
fn health(server: &ServerEntry, config: &crate::wire::body::operator::AutopilotConfig, ctx: &Ctx) -> ServerHealth {
    let is_itself = server.id == ctx.server.id;
    let leader = is_leader(server, ctx);
    let silence = if leader && ctx.is_leader { 0 } else { nanos(ctx.last_contact) };
    let healthy = leader || is_itself && ctx.known_leader && silence <= config.last_contact_threshold;
    ServerHealth {
        id: server.id.clone(),
        name: full_name(server, ctx),
        address: server.rpc_addr.clone(),
        serf_status: if healthy || is_itself { ALIVE } else { FAILED },
        version: NOMAD_BUILD.to_owned(),
        leader,
        last_contact: silence,
        last_term: ctx.raft.last_term,
        last_index: ctx.raft.last_index,
        healthy,
        voter: server.voter,
        stable_since: ctx.raft.stable_since.map_or_else(go_zero_time, |at| go_time(at.unix_nanos())),
    }
}

/// Operator.SchedulerGetConfiguration.
pub(super) fn scheduler_configuration(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let args: GenericRequest = arguments(request)?;
    let access = access(&args.query.auth_token, request, state, ctx)?;
    access.require(access.acl.operator_read())?;
    let config = state.scheduler_config();
    let meta = query_meta(ctx, config.modify_index.max(1));
    Ok(body(&SchedulerConfigurationResponse { scheduler_config: Some((*config).clone()), meta }))
}

/// Operator.SchedulerSetConfiguration.
pub(super) fn set_scheduler_configuration(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let args: SchedulerSetConfigurationRequest = arguments(request)?;
    let access = access(&args.write.auth_token, request, state, ctx)?;
    access.require(access.acl.operator_write())?;
    let algorithm = &args.config.scheduler_algorithm;
    if !ALGORITHMS.contains(&algorithm.as_str()) {
        return Err(format!("invalid scheduler algorithm: {algorithm}").into());
    }
    let scheduler_algorithm = if algorithm.is_empty() { ALGORITHMS[0].to_owned() } else { algorithm.clone() };
    let config = SchedulerConfiguration { scheduler_algorithm, ..args.config };
    Ok(Outcome::Propose { command: Command::SchedulerSet { config, cas: args.cas }, finish: Finish::SchedulerSet })
}

/// The reply: whether it was written.
pub(super) fn finish_set_scheduler(index: Index, result: &ApplyResult) -> Answer {
    let updated = *result == ApplyResult::Done;
    Ok(body(&SchedulerSetConfigurationResponse { updated, meta: WriteMeta { index: index.0 } }))
}
