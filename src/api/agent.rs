//! Agent.Monitor, and streams about allocations, of which there are none.
//!
//! Source: endpoint notes, sections 3.4 and 7; Nomad `nomad/client_agent_endpoint.go`.

use crate::state::State;
use crate::wire::body::agent::MonitorRequest;
use crate::wire::body::node_call::AllocTarget;
use crate::wire::body::operator::AgentSelfResponse;
use crate::wire::body::query::GenericRequest;
use crate::wire::class::NO_LEADER;

use super::access::access;
use super::answer::{Answer, Failure, PERMISSION_DENIED, arguments, body};
use super::outcome::{Effect, MonitorOptions, Outcome, Reply, StreamOutcome};
use super::stream_error::{refuse, stream_error};
use super::to_node::{NO_PATH, agent_node, call, may_ask_about, unknown_alloc};
use super::{Ctx, Request, ServerEntry};

/// Agent.Monitor: of a node, or of this server.
pub(super) fn monitor(request: &Request<'_>, state: &State, ctx: &Ctx) -> StreamOutcome {
    let no = |code: u16, text: &str| refuse(request.method, code, text);
    let args: MonitorRequest = match arguments(request) {
        Ok(args) => args,
        Err(error) => return no(500, &error.to_string()),
    };
    if let Err(text) = may_listen(&args, request, state, ctx) {
        return no(403, text);
    }
    let Some(level) = level(&args.log_level) else { return no(400, "Unknown log level") };
    if !args.node_id.is_empty() {
        return match agent_node(&args.node_id, state) {
            Ok(node) => StreamOutcome::ToNode(call(node, request, format!("RPC Error:: 404,{NO_PATH}"))),
            Err(Failure::Text(text)) => StreamOutcome::Refuse(stream_error(request.method, &text)),
            Err(Failure::Arguments(error)) => no(500, &error.to_string()),
        };
    }
    if args.query.region.is_empty() {
        return no(400, "missing target region");
    }
    if args.query.region != ctx.server.region {
        return no(500, "No path to region");
    }
    if let Err((code, text)) = is_this_server(&args.server_id, ctx) {
        return no(code, &text);
    }
    StreamOutcome::Monitor(MonitorOptions {
        level,
        json: args.log_json,
        plain: args.plain_text,
        location: args.log_include_location,
    })
}

/// `agent:read`, for the log of a server and of a node. The text otherwise.
fn may_listen(args: &MonitorRequest, request: &Request<'_>, state: &State, ctx: &Ctx) -> Result<(), &'static str> {
    match access(&args.query.auth_token, request, state, ctx) {
        Ok(access) if access.acl.agent_read() => Ok(()),
        _ => Err(PERMISSION_DENIED),
    }
}

/// Holdfast.AgentSelf: the configuration in force, without secrets, and figures.
pub(super) fn agent_self(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let args: GenericRequest = arguments(request)?;
    let access = access(&args.query.auth_token, request, state, ctx)?;
    access.require(access.acl.agent_read())?;
    Ok(body(&AgentSelfResponse {
        config_json: ctx.server.config_json.to_string(),
        stats_json: ctx.stats_json.as_deref().unwrap_or("{}").to_owned(),
    }))
}

/// Holdfast.Reload: as SIGHUP does.
pub(super) fn reload(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let args: GenericRequest = arguments(request)?;
    let access = access(&args.query.auth_token, request, state, ctx)?;
    access.require(access.acl.agent_write())?;
    Ok(Outcome::Reply(Reply { effects: vec![Effect::Reload], ..Reply::default() }))
}

/// Streams about an allocation.
pub(super) fn about_alloc(request: &Request<'_>, state: &State, ctx: &Ctx) -> StreamOutcome {
    match arguments::<AllocTarget>(request) {
        Ok(args) if may_ask_about(&args, request, state, ctx).is_err() => {
            refuse(request.method, 403, PERMISSION_DENIED)
        }
        Ok(args) if args.alloc_id.is_empty() => refuse(request.method, 400, &unknown_alloc("")),
        Ok(args) => refuse(request.method, 404, &unknown_alloc(&args.alloc_id)),
        Err(error) => refuse(request.method, 500, &error.to_string()),
    }
}

/// The level for a word, in any case, as hclog takes them.
fn level(word: &str) -> Option<log::Level> {
    match word.trim().to_ascii_lowercase().as_str() {
        "" | "info" => Some(log::Level::Info),
        "trace" => Some(log::Level::Trace),
        "debug" => Some(log::Level::Debug),
        "warn" => Some(log::Level::Warn),
        "error" => Some(log::Level::Error),
        _ => None,
    }
}

/// Whether a monitor's ServerID names this server: its name with or without the region, its id, or `leader` while it
/// leads. Code and text otherwise.
fn is_this_server(wanted: &str, ctx: &Ctx) -> Result<(), (u16, String)> {
    let full = |name: &str| format!("{name}.{}", ctx.server.region);
    let own = wanted.is_empty()
        || wanted == ctx.server.id
        || wanted == ctx.server.name
        || wanted == full(&ctx.server.name)
        || (wanted == "leader" && ctx.is_leader);
    if own {
        return Ok(());
    }
    if wanted == "leader" && ctx.leader_rpc_addr.is_empty() {
        return Err((400, NO_LEADER.to_owned()));
    }
    let named = |server: &&ServerEntry| wanted == server.id || wanted == server.name || wanted == full(&server.name);
    let other = match wanted {
        "leader" => Some(ctx.leader_rpc_addr.to_string()),
        _ => ctx.servers.iter().find(named).map(|server| server.rpc_addr.clone()),
    };
    // Whoever was asked first has passed the call on: it has come to the wrong server, and goes no further.
    Err(match other {
        Some(addr) => (400, format!("this server is not {wanted}, which is reached at {addr}")),
        None => (400, format!("unknown Nomad server {wanted}")),
    })
}
