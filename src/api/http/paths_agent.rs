//! `/v1/status`, `/v1/regions`, `/v1/agent`, `/v1/metrics` and `/v1/event`.
//!
//! Source: HTTP notes, sections 2, 6, 7 and 8.

use std::collections::BTreeMap;

use crate::wire::body::agent::MonitorRequest;
use crate::wire::body::event::EventStreamRequest;
use crate::wire::body::node_call::NodeSpecificRequest;
use crate::wire::body::query::GenericRequest;

use super::paths::{Ask, Path, Planned};
use super::query::parse_int;
use super::render::{Heads, Show};
use super::reply::{INVALID_METHOD, Refusal, empty_reply, json_reply, refusal};
use super::{Plan, StreamBody};

/// Below `/v1/status`.
pub(super) static STATUS: &[Path] = &[Path { pattern: "leader", plan: leader }, Path { pattern: "peers", plan: peers }];

/// Below `/v1/regions`.
pub(super) static REGIONS: &[Path] = &[Path { pattern: "", plan: regions }];

/// Below `/v1/metrics`.
pub(super) static METRICS: &[Path] = &[Path { pattern: "", plan: metrics }];

/// Below `/v1/event`.
pub(super) static EVENT: &[Path] = &[Path { pattern: "stream", plan: events }];

/// Below `/v1/agent`.
pub(super) static AGENT: &[Path] = &[
    Path { pattern: "health", plan: health },
    Path { pattern: "members", plan: members },
    Path { pattern: "self", plan: agent_self },
    Path { pattern: "servers", plan: servers },
    Path { pattern: "join", plan: join },
    Path { pattern: "force-leave", plan: force_leave },
    Path { pattern: "reload", plan: reload },
    Path { pattern: "host", plan: host },
    Path { pattern: "monitor", plan: monitor },
];

fn leader(ask: &Ask<'_>) -> Planned {
    ask.get_only()?;
    ask.call("Status.Leader", &GenericRequest { query: ask.read()? }, Show::Whole(Heads::None))
}

fn peers(ask: &Ask<'_>) -> Planned {
    ask.get_only()?;
    ask.call("Status.Peers", &GenericRequest { query: ask.read()? }, Show::Strings)
}

fn regions(ask: &Ask<'_>) -> Planned {
    ask.get_only()?;
    ask.call("Region.List", &GenericRequest { query: ask.read()? }, Show::Strings)
}

/// R8: whether this server knows a leader, without waiting for one.
pub(super) fn ready(ask: &Ask<'_>) -> Planned {
    if !matches!(ask.method(), "GET" | "HEAD") {
        return Err(refusal(405, INVALID_METHOD));
    }
    let mut query = ask.local()?;
    query.allow_stale = true;
    ask.call("Status.Leader", &GenericRequest { query }, Show::Ready)
}

fn health(ask: &Ask<'_>) -> Planned {
    ask.get_only()?;
    let asked = |role: &str| ask.query.all("type").any(|value| value == role);
    let (server, client) = (asked("server"), asked("client"));
    if client && !server {
        // There is no such role here; Show::Health says the same beside a server.
        return Err(refusal(500, "{\"client\":{\"ok\":false,\"message\":\"client not enabled\"}}"));
    }
    let query = ask.local()?;
    ask.call("Status.Leader", &GenericRequest { query }, Show::Health { client })
}

fn members(ask: &Ask<'_>) -> Planned {
    ask.get_only()?;
    ask.call("Status.Members", &GenericRequest { query: ask.local()? }, Show::Members)
}

fn agent_self(ask: &Ask<'_>) -> Planned {
    ask.get_only()?;
    ask.call("Holdfast.AgentSelf", &GenericRequest { query: ask.local()? }, Show::AgentSelf)
}

/// Only agents that are clients keep such a list.
fn servers(ask: &Ask<'_>) -> Planned {
    match ask.method() {
        "GET" | "PUT" | "POST" => Err(refusal(501, INVALID_METHOD)),
        _ => Err(refusal(405, INVALID_METHOD)),
    }
}

fn join(ask: &Ask<'_>) -> Planned {
    ask.put_only()?;
    if !ask.query.has("address") {
        return Err(refusal(400, "missing address to join"));
    }
    // Nothing is done, so there is nothing to be allowed.
    let json = "{\"error\":\"servers join by their configuration: cluster.join\",\"num_joined\":0,\"warning\":\"\"}";
    Ok(Plan::Reply(json_reply(200, json.to_owned(), ask.view.pretty)))
}

/// There is no gossip that could remember a server that left.
fn force_leave(ask: &Ask<'_>) -> Planned {
    ask.put_only()?;
    if ask.query.filled("node").is_none() {
        return Err(refusal(400, "missing node to force leave"));
    }
    ask.query.bool("prune").map_err(|_| refusal(400, "invalid prune value"))?;
    Ok(Plan::Reply(empty_reply(200)))
}

fn reload(ask: &Ask<'_>) -> Planned {
    ask.put_only()?;
    ask.call("Holdfast.Reload", &GenericRequest { query: ask.local()? }, Show::Empty(Heads::None))
}

/// What a node says of its host.
fn host(ask: &Ask<'_>) -> Planned {
    ask.get_only()?;
    let arguments =
        NodeSpecificRequest { node_id: ask.query.text("node_id"), secret_id: String::new(), query: ask.read()? };
    ask.call("Agent.Host", &arguments, Show::Whole(Heads::None))
}

fn metrics(ask: &Ask<'_>) -> Planned {
    ask.get_only()?;
    let prometheus = ask.query.get("format") == Some("prometheus");
    Ok(Plan::Metrics { prometheus, pretty: ask.view.pretty })
}

fn events(ask: &Ask<'_>) -> Planned {
    ask.get_only()?;
    let index = parse_int(ask.query.filled("index").unwrap_or("0"))
        .map_err(|error| refusal(400, &format!("Unable to parse index: {error}")))?;
    let mut topics: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for topic in ask.query.all("topic") {
        let (name, key) = match topic.split_once(':') {
            None => (topic, "*"),
            Some((name, key)) if !key.contains(':') => (name, key),
            Some(_) => {
                let what = "Invalid topic query: error parsing topics: Invalid key value pair for topic, topic";
                return Err(refusal(400, &format!("{what}: {topic}")));
            }
        };
        topics.entry(name.to_owned()).or_default().push(key.to_owned());
    }
    if topics.is_empty() {
        topics.insert("*".to_owned(), vec!["*".to_owned()]);
    }
    let arguments = EventStreamRequest { topics, index, query: ask.unwaiting()? };
    ask.stream("Event.Stream", &arguments, StreamBody::Events)
}

fn monitor(ask: &Ask<'_>) -> Planned {
    ask.get_only()?;
    let level = ask.query.filled("log_level").unwrap_or("INFO");
    if !["trace", "debug", "info", "warn", "error"].contains(&level.trim().to_ascii_lowercase().as_str()) {
        return Err(refusal(400, &format!("Unknown log level: {level}")));
    }
    let option = |name: &str, what: &str| -> Result<bool, Refusal> {
        let read =
            ask.query.bool(name).map_err(|error| refusal(400, &format!("Unknown option for {what}: {error}")))?;
        Ok(read.unwrap_or(false))
    };
    let arguments = MonitorRequest {
        log_level: level.to_owned(),
        log_json: option("log_json", "log json")?,
        plain_text: option("plain", "plain")?,
        log_include_location: option("log_include_location", "log_include_location")?,
        node_id: ask.query.text("node_id"),
        server_id: ask.query.text("server_id"),
        query: ask.unwaiting()?,
    };
    if !arguments.node_id.is_empty() && !arguments.server_id.is_empty() {
        return Err(refusal(400, "Cannot target node and server simultaneously"));
    }
    let body = if arguments.plain_text { StreamBody::MonitorPlain } else { StreamBody::MonitorJson };
    ask.stream("Agent.Monitor", &arguments, body)
}
