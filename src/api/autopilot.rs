//! How servers are looked after, how they are, and the scheduler's configuration, which is kept for those who ask.
//!
//! Source: endpoint notes, section 5.

use crate::base::id::Index;
use crate::state::{ApplyResult, State};
use crate::wire::body::node::{go_time, go_zero_time};
use crate::wire::body::operator::{
    AutopilotConfig, AutopilotSetConfigRequest, OperatorHealthReply, SchedulerConfiguration,
    SchedulerConfigurationResponse, SchedulerSetConfigurationRequest, SchedulerSetConfigurationResponse, ServerHealth,
};
use crate::wire::body::query::{GenericRequest, WriteMeta};
use crate::wire::entry::Command;

use super::access::access;
use super::answer::{Answer, arguments, body, coded, nanos, query_meta};
use super::operator::{full_name, is_leader, members};
use super::outcome::{Finish, Outcome};
use super::status::NOMAD_BUILD;
use super::{Ctx, Request, ServerEntry, ServerStatus};

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

/// Operator.ServerHealth, of the members as the leader sees them. Another server, asked with AllowStale, tells what it
/// knows.
pub(super) fn server_health(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let args: GenericRequest = arguments(request)?;
    let access = access(&args.query.auth_token, request, state, ctx)?;
    access.require(access.acl.operator_read())?;
    let config = state.autopilot_config();
    let end = end_of_log(ctx);
    let servers: Vec<ServerHealth> = members(ctx).map(|server| health(server, end, &config, ctx)).collect();
    let voters = servers.iter().filter(|server| server.voter);
    let (all, good) = (voters.clone().count(), voters.clone().filter(|server| server.healthy).count());
    // What may fail before fewer than a majority is left.
    let spare = good.saturating_sub(all / 2 + 1);
    Ok(body(&OperatorHealthReply {
        healthy: !servers.is_empty() && servers.iter().all(|server| server.healthy),
        failure_tolerance: i64::try_from(spare).unwrap_or(i64::MAX),
        leader: servers.iter().find(|server| server.leader).map(|server| server.id.clone()).unwrap_or_default(),
        voters: voters.map(|server| server.id.clone()).collect(),
        servers,
    }))
}

/// What others are measured by. Where they are is known as of a while ago, so that the leader's log is taken as of
/// then too, where that is known: its end of this moment would make everybody late while much is written.
fn end_of_log(ctx: &Ctx) -> u64 {
    let then = ctx.servers.iter().find(|server| is_leader(server, ctx)).map_or(0, |leader| leader.matched);
    if then == 0 { ctx.raft.last_index } else { then }
}

/// A member, by what it said last and by what the leader knows of its log.
fn health(server: &ServerEntry, end: u64, config: &AutopilotConfig, ctx: &Ctx) -> ServerHealth {
    let is_itself = server.id == ctx.server.id;
    let leader = is_leader(server, ctx);
    let silence = match server.last_heard {
        _ if leader && ctx.is_leader => 0,
        _ if is_itself => nanos(ctx.last_contact),
        heard => heard.map_or(i64::MAX, nanos),
    };
    let (last_term, last_index) = if is_itself {
        (ctx.raft.last_term, ctx.raft.last_index)
    } else {
        // Whoever acknowledged entries to this leader is of its term, although it has not said so yet.
        let is_current = ctx.is_leader && server.matched > 0;
        let last_term = if is_current { ctx.raft.last_term } else { server.last_term };
        (last_term, server.last_index.max(server.matched))
    };
    let status = if is_itself { ServerStatus::Alive } else { server.status };
    let healthy = ctx.known_leader
        && status == ServerStatus::Alive
        && silence <= config.last_contact_threshold.max(nanos(server.patience))
        && last_term == ctx.raft.last_term
        && last_index.saturating_add(config.max_trailing_logs) >= end;
    let since = if is_itself { server.stable_since.or(ctx.raft.stable_since) } else { server.stable_since };
    ServerHealth {
        id: server.id.clone(),
        name: full_name(server, ctx),
        address: server.rpc_addr.clone(),
        serf_status: number(status),
        version: NOMAD_BUILD.to_owned(),
        leader,
        last_contact: silence,
        last_term,
        last_index,
        healthy,
        voter: server.voter,
        stable_since: since.map_or_else(go_zero_time, |at| go_time(at.unix_nanos())),
    }
}

/// How a server is, as the gossip layer of the peers numbers it.
fn number(status: ServerStatus) -> i64 {
    match status {
        ServerStatus::Alive => 1,
        ServerStatus::Left => 3,
        ServerStatus::Failed => 4,
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
