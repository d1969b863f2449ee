//! `/v1/operator` and `/v1/system`.
//!
//! Source: HTTP notes, section 5; Nomad `command/agent/operator_endpoint.go` for the words of errors.

use std::net::SocketAddr;

use crate::wire::body::keyring::{KeyringDeleteRequest, KeyringRotateRequest};
use crate::wire::body::operator::{
    AutopilotConfig, AutopilotSetConfigRequest, RaftPeerByIdRequest, RaftPeerRequest, SchedulerConfiguration,
    SchedulerSetConfigurationRequest,
};
use crate::wire::body::query::{GenericRequest, QueryOptions};

use super::paths::{Ask, Path, Planned};
use super::query::parse_int;
use super::render::{Heads, Show};
use super::reply::{INVALID_METHOD, Refusal, empty_reply, refusal};
use super::{Plan, StreamBody, forms};
use crate::api::{self, UnknownMethod};
use crate::wire::msgpack::Msg;

/// Below `/v1/operator`.
pub(super) static OPERATOR: &[Path] = &[
    Path { pattern: "raft/configuration", plan: raft_configuration },
    Path { pattern: "raft/peer", plan: raft_peer },
    Path { pattern: "raft/transfer-leadership", plan: transfer_leadership },
    Path { pattern: "autopilot/configuration", plan: autopilot },
    Path { pattern: "autopilot/health", plan: health },
    Path { pattern: "scheduler/configuration", plan: scheduler },
    Path { pattern: "snapshot", plan: snapshot },
    Path { pattern: "license", plan: license },
    Path { pattern: "keyring/keys", plan: keys },
    Path { pattern: "keyring/rotate", plan: rotate },
    Path { pattern: "keyring/key/*", plan: key },
];

/// Below `/v1/system`.
pub(super) static SYSTEM: &[Path] = &[Path { pattern: "gc", plan: collect_garbage }];

fn raft_configuration(ask: &Ask<'_>) -> Planned {
    if ask.method() != "GET" {
        return Err(Box::new(empty_reply(405)));
    }
    ask.call("Operator.RaftGetConfiguration", &GenericRequest { query: ask.read()? }, Show::Whole(Heads::None))
}

fn raft_peer(ask: &Ask<'_>) -> Planned {
    if ask.method() != "DELETE" {
        return Err(refusal(404, INVALID_METHOD));
    }
    if ask.query.has("address") {
        let text = "Removing a peer by address is not supported in the current raft protocol version";
        return Err(refusal(400, text));
    }
    let Some(id) = ask.query.filled("id") else {
        return Err(refusal(400, "Must specify the peer's ID to remove"));
    };
    let arguments = RaftPeerByIdRequest { id: id.to_owned(), write: ask.write() };
    ask.call("Operator.RaftRemovePeerByID", &arguments, Show::Empty(Heads::None))
}

fn transfer_leadership(ask: &Ask<'_>) -> Planned {
    ask.put_only()?;
    let (ids, addresses) = (ask.query.has("id"), ask.query.has("address"));
    match (ids, addresses) {
        (false, false) => return Err(refusal(400, "must specify id or address")),
        (true, true) => return Err(refusal(400, "must specify either id or address")),
        _ => {}
    }
    let name = if ids { "id" } else { "address" };
    if ask.query.all(name).count() > 1 {
        return Err(refusal(400, &format!("must specify only one {name}")));
    }
    let value = ask.query.text(name);
    if value.is_empty() {
        return Err(refusal(400, &format!("{name} must be non-empty")));
    }
    let mut arguments = RaftPeerRequest { write: ask.write(), ..RaftPeerRequest::default() };
    if ids {
        check_uuid(&value).map_err(|error| refusal(400, &format!("id must be a uuid: {error}")))?;
        arguments.id = value;
    } else {
        value
            .parse::<SocketAddr>()
            .map_err(|error| refusal(400, &format!("address must be in IP:port format: {error}")))?;
        arguments.address = value;
    }
    ask.call("Operator.TransferLeadershipToPeer", &arguments, Show::Whole(Heads::None))
}

/// Whether a text has the form of a UUID; the words are those of go-uuid.
fn check_uuid(text: &str) -> Result<(), &'static str> {
    if text.len() != 36 {
        return Err("uuid string is wrong length");
    }
    let formed = text.bytes().enumerate().all(|(at, byte)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    });
    if formed { Ok(()) } else { Err("uuid is improperly formatted") }
}

fn autopilot(ask: &Ask<'_>) -> Planned {
    match ask.method() {
        "GET" => {
            let arguments = GenericRequest { query: ask.read()? };
            ask.call("Operator.AutopilotGetConfiguration", &arguments, Show::Autopilot)
        }
        "PUT" => {
            let mut config: AutopilotConfig = ask.body_or("Error parsing autopilot config: ", forms::AUTOPILOT)?;
            let cas = ask.query.number("cas", "Error parsing cas value")?;
            if let Some(index) = cas {
                config.modify_index = index;
            }
            let arguments =
                AutopilotSetConfigRequest { datacenter: String::new(), config, cas: cas.is_some(), write: ask.write() };
            let shown = if cas.is_some() { Show::Whole(Heads::None) } else { Show::True };
            ask.call("Operator.AutopilotSetConfiguration", &arguments, shown)
        }
        _ => Err(refusal(404, INVALID_METHOD)),
    }
}

fn health(ask: &Ask<'_>) -> Planned {
    if ask.method() != "GET" {
        return Err(refusal(404, INVALID_METHOD));
    }
    // The leader alone knows; whoever asks for a stale answer gets its word too.
    let query = QueryOptions { allow_stale: false, ..ask.read()? };
    ask.call("Operator.ServerHealth", &GenericRequest { query }, Show::ServerHealth)
}

fn scheduler(ask: &Ask<'_>) -> Planned {
    match ask.method() {
        "GET" => {
            let arguments = GenericRequest { query: ask.read()? };
            ask.call("Operator.SchedulerGetConfiguration", &arguments, Show::Whole(Heads::Read))
        }
        "PUT" | "POST" => {
            let mut config: SchedulerConfiguration =
                ask.body_or("Error parsing scheduler config: ", forms::SCHEDULER)?;
            let cas = ask.query.number("cas", "Error parsing cas value")?;
            if let Some(index) = cas {
                config.modify_index = index;
            }
            let arguments = SchedulerSetConfigurationRequest { config, cas: cas.is_some(), write: ask.write() };
            ask.call("Operator.SchedulerSetConfiguration", &arguments, Show::Whole(Heads::Write))
        }
        _ => Err(refusal(405, INVALID_METHOD)),
    }
}

fn snapshot(ask: &Ask<'_>) -> Planned {
    match ask.method() {
        "GET" => ask.stream("Operator.SnapshotSave", &GenericRequest { query: ask.read()? }, StreamBody::Snapshot),
        "PUT" | "POST" => {
            let name = "Operator.SnapshotRestore";
            let method = api::streaming_method(name).map_err(|UnknownMethod(text)| refusal(500, &text))?;
            Ok(Plan::Upload { method, argument: ask.write().to_bytes() })
        }
        _ => Err(refusal(405, INVALID_METHOD)),
    }
}

/// There is none to show, and none to take.
fn license(ask: &Ask<'_>) -> Planned {
    ask.only_read_here()?;
    Ok(Plan::Reply(empty_reply(204)))
}

fn keys(ask: &Ask<'_>) -> Planned {
    ask.get_only()?;
    ask.call("Keyring.List", &GenericRequest { query: ask.read()? }, Show::List("Keys"))
}

fn rotate(ask: &Ask<'_>) -> Planned {
    ask.put_only()?;
    let algorithm = ask.query.filled("algorithm").or_else(|| ask.query.filled("algo")).unwrap_or_default();
    let publish_time = match ask.query.filled("publish_time") {
        None => 0,
        Some(text) => parse_int(text).map_err(|error| refusal(400, &format!("invalid publish_time: {error}")))?,
    };
    let arguments = KeyringRotateRequest {
        algorithm: algorithm.to_owned(),
        full: asked_for(ask, "full")?,
        publish_time,
        write: ask.write(),
    };
    ask.call("Keyring.Rotate", &arguments, Show::Whole(Heads::Write))
}

/// A parameter that means yes when it is there, unless its value says no.
fn asked_for(ask: &Ask<'_>, name: &str) -> Result<bool, Refusal> {
    let given = ask.query.bool(name).map_err(|error| refusal(400, &format!("invalid {name}: {error}")))?;
    Ok(given.unwrap_or(ask.query.has(name)))
}

fn key(ask: &Ask<'_>) -> Planned {
    if ask.method() != "DELETE" {
        return Err(refusal(405, INVALID_METHOD));
    }
    let arguments = KeyringDeleteRequest { key_id: ask.part(0).to_owned(), write: ask.write() };
    ask.call("Keyring.Delete", &arguments, Show::Whole(Heads::Write))
}

/// There is nothing to collect.
fn collect_garbage(ask: &Ask<'_>) -> Planned {
    ask.put_only()?;
    Ok(Plan::Reply(empty_reply(200)))
}
