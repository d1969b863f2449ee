//! What clients ask, as bodies, and what they are told, read back. Knows no connection.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::state::node::NodeStatus;
use crate::wire::body::event::EventStreamRequest;
use crate::wire::body::node::{DrainStrategy, NodeEvent, go_time, go_zero_time};
use crate::wire::body::node_call::{
    EmitNodeEventsRequest, NodeArgument, NodeChangeResponse, NodeDeregisterRequest, NodeListRequest, NodeListResponse,
    NodeRegisterRequest, NodeSpecificRequest, NodeUpdateDrainRequest, NodeUpdateEligibilityRequest, NodeUpdateResponse,
    NodeUpdateStatusRequest, SingleNodeResponse,
};
use crate::wire::body::operator::{LeadershipTransferResponse, RaftPeerByIdRequest, RaftPeerRequest};
use crate::wire::body::query::{GenericResponse, QueryOptions, WriteRequest};
use crate::wire::msgpack::{Decoder, Encoder, Msg, Raw, Result};

use super::ground::FleetNode;
use super::history::{Answered, Asked, NodeNumber, Seen};
use super::options::REGION;
use super::site::server_id;
use super::{sessions, variables};

/// Where an entry carries its nonce.
pub const NONCE: &str = "sim.nonce";

/// Method and body.
pub fn request(asked: &Asked, fleet: &[FleetNode]) -> (&'static str, Vec<u8>) {
    let none = || Vec::new();
    let of = |node: &NodeNumber| fleet.get(*node);
    let id = |node: &NodeNumber| of(node).map_or_else(String::new, |node| node.id.clone());
    let write =
        |token: String| WriteRequest { region: REGION.to_owned(), auth_token: token, ..WriteRequest::default() };
    let secret = |node: &NodeNumber| of(node).map_or_else(String::new, |node| node.secret.clone());
    let meta = |nonce: &u64| BTreeMap::from([(NONCE.to_owned(), nonce.to_string())]);
    match asked {
        Asked::Ping => ("Status.Ping", vec![0x80]),
        Asked::Register { node, nonce } => {
            let raw = of(node).map_or_else(none, |node| node_map(node, *nonce));
            let node_argument = NodeArgument { head: None, raw: Raw(Arc::from(raw)) };
            let request = NodeRegisterRequest {
                node: node_argument,
                write: write(secret(node)),
                ..NodeRegisterRequest::default()
            };
            ("Node.Register", request.to_bytes())
        }
        Asked::Status { node, status } => {
            let request = NodeUpdateStatusRequest {
                node_id: id(node),
                status: status.as_str().to_owned(),
                write: write(secret(node)),
                ..NodeUpdateStatusRequest::default()
            };
            ("Node.UpdateStatus", request.to_bytes())
        }
        Asked::Emit { node, nonce } => {
            let event = NodeEvent {
                message: format!("{NONCE} {nonce}"),
                subsystem: "Driver".to_owned(),
                timestamp: go_time(0),
                ..NodeEvent::default()
            };
            let node_events = BTreeMap::from([(id(node), vec![event])]);
            ("Node.EmitEvents", EmitNodeEventsRequest { node_events, write: write(secret(node)) }.to_bytes())
        }
        Asked::Drain { node, nonce } => {
            let strategy = DrainStrategy {
                force_deadline: go_zero_time(),
                started_at: go_zero_time(),
                ..DrainStrategy::default()
            };
            let request = NodeUpdateDrainRequest {
                node_id: id(node),
                drain_strategy: Some(strategy),
                meta: meta(nonce),
                write: write(String::new()),
                ..NodeUpdateDrainRequest::default()
            };
            ("Node.UpdateDrain", request.to_bytes())
        }
        Asked::EndDrain { node, mark, nonce } => {
            let request = NodeUpdateDrainRequest {
                node_id: id(node),
                mark_eligible: *mark,
                meta: meta(nonce),
                write: write(String::new()),
                ..NodeUpdateDrainRequest::default()
            };
            ("Node.UpdateDrain", request.to_bytes())
        }
        Asked::Eligibility { node, eligible } => {
            let request = NodeUpdateEligibilityRequest {
                node_id: id(node),
                eligibility: if *eligible { "eligible" } else { "ineligible" }.to_owned(),
                write: write(String::new()),
                ..NodeUpdateEligibilityRequest::default()
            };
            ("Node.UpdateEligibility", request.to_bytes())
        }
        Asked::Deregister { node } => {
            ("Node.Deregister", NodeDeregisterRequest { node_id: id(node), write: write(String::new()) }.to_bytes())
        }
        Asked::Get { node, min, wait_nanos } => {
            let query = options(*min, *wait_nanos, "");
            ("Node.GetNode", NodeSpecificRequest { node_id: id(node), query, ..Default::default() }.to_bytes())
        }
        Asked::List { prefix, min, wait_nanos } => {
            let query = options(*min, *wait_nanos, prefix);
            ("Node.List", NodeListRequest { query, ..NodeListRequest::default() }.to_bytes())
        }
        Asked::Transfer { to } => {
            let request =
                RaftPeerRequest { id: server_id(*to), write: write(String::new()), ..RaftPeerRequest::default() };
            ("Operator.TransferLeadershipToPeer", request.to_bytes())
        }
        Asked::Remove { site } => {
            let request = RaftPeerByIdRequest { id: server_id(*site), write: write(String::new()) };
            ("Operator.RaftRemovePeerByID", request.to_bytes())
        }
        Asked::Var(asked) => variables::request(asked),
        Asked::Stamped(stamped) => sessions::stamped_request(stamped),
        Asked::Session(asked) => sessions::request(asked),
        Asked::CallNode { node, nonce } => ("ClientStats.Stats", call_body(&id(node), *nonce)),
        // The server's own are not asked by anybody.
        Asked::Expire { .. } | Asked::DrainComplete { .. } => ("", none()),
    }
}

fn options(min: u64, wait_nanos: u64, prefix: &str) -> QueryOptions {
    QueryOptions {
        region: REGION.to_owned(),
        min_query_index: min,
        max_query_time: i64::try_from(wait_nanos).unwrap_or(i64::MAX),
        prefix: prefix.to_owned(),
        ..QueryOptions::default()
    }
}

/// The argument of Event.Stream.
pub fn event_stream(from: i64, node: Option<&str>) -> Vec<u8> {
    let topics = match node {
        Some(id) => BTreeMap::from([("Node".to_owned(), vec![id.to_owned()])]),
        None => BTreeMap::new(),
    };
    let query = QueryOptions { region: REGION.to_owned(), ..QueryOptions::default() };
    EventStreamRequest { topics, index: from, query }.to_bytes()
}

fn node_map(node: &FleetNode, nonce: u64) -> Vec<u8> {
    let mut e = Encoder::new();
    let texts = [
        ("ID", node.id.as_str()),
        ("SecretID", node.secret.as_str()),
        ("Datacenter", "dc1"),
        ("Name", node.name.as_str()),
        ("HTTPAddr", "10.0.1.1:4646"),
        ("Status", "initializing"),
    ];
    e.map(texts.len() + 2);
    for (key, value) in texts {
        e.str(key);
        e.str(value);
    }
    e.str("Attributes");
    e.map(2);
    for (key, value) in [("nomad.version", node.version), ("os.name", "linux")] {
        e.str(key);
        e.str(value);
    }
    e.str("Meta");
    e.map(1);
    e.str(NONCE);
    e.str(&nonce.to_string());
    e.out
}

/// The body of a call to a node, and of its answer.
pub fn call_body(node_id: &str, nonce: u64) -> Vec<u8> {
    let mut e = Encoder::new();
    e.map(3);
    e.str("NodeID");
    e.str(node_id);
    e.str("Nonce");
    e.u64(nonce);
    e.str("Region");
    e.str(REGION);
    e.out
}

/// Node and nonce of [`call_body`].
///
/// # Errors
/// Bytes that it does not make.
pub fn read_call_body(body: &[u8]) -> Result<(String, u64)> {
    let mut d = Decoder::new(body);
    let (mut node, mut nonce) = (String::new(), 0);
    for _ in 0..d.map()?.unwrap_or(0) {
        match d.bytes()? {
            b"NodeID" => node = d.str()?.to_owned(),
            b"Nonce" => nonce = d.u64()?,
            _ => d.skip()?,
        }
    }
    Ok((node, nonce))
}

/// Reads the answer.
///
/// # Errors
/// A body that no server gives to this request: says why.
pub fn answer(asked: &Asked, body: &[u8], fleet: &[FleetNode]) -> std::result::Result<Answered, String> {
    let wrong = |error: crate::wire::msgpack::DecodeError| format!("the answer to {asked:?}: {error}");
    match asked {
        Asked::Ping => Ok(Answered::Fine),
        Asked::Register { .. } | Asked::Status { .. } => {
            let reply = NodeUpdateResponse::from_bytes(body).map_err(wrong)?;
            if reply.servers.is_none_or(|servers| servers.is_empty()) {
                return Err(format!("the answer to {asked:?} names no server"));
            }
            Ok(Answered::Heard(reply.meta.index, u64::try_from(reply.heartbeat_ttl).unwrap_or(0)))
        }
        Asked::Deregister { .. } => {
            NodeUpdateResponse::from_bytes(body).map(|reply| Answered::Written(reply.meta.index)).map_err(wrong)
        }
        Asked::Drain { .. } | Asked::EndDrain { .. } | Asked::Eligibility { .. } => {
            NodeChangeResponse::from_bytes(body).map(|reply| Answered::Written(reply.meta.index)).map_err(wrong)
        }
        Asked::Emit { .. } => {
            GenericResponse::from_bytes(body).map(|reply| Answered::Written(reply.meta.index)).map_err(wrong)
        }
        Asked::Get { .. } => {
            let reply = SingleNodeResponse::from_bytes(body).map_err(wrong)?;
            let seen = if reply.node.is_nil() { None } else { Some(seen(&reply.node.0).map_err(wrong)?) };
            Ok(Answered::Node(reply.meta.index, seen))
        }
        Asked::List { prefix, .. } => {
            let reply = NodeListResponse::from_bytes(body).map_err(wrong)?;
            let mut nodes = BTreeMap::new();
            for stub in reply.nodes {
                let number = fleet.iter().position(|node| node.id == stub.id && node.id.starts_with(prefix));
                let number = number.ok_or_else(|| format!("a list of {prefix:?} holds {}", stub.id))?;
                let status = NodeStatus::from_word(&stub.status).ok_or("a stub's status is no word of ours")?;
                let seen = Seen {
                    status,
                    eligible: stub.scheduling_eligibility == "eligible",
                    draining: stub.drain,
                    create_index: stub.create_index,
                    modify_index: stub.modify_index,
                };
                nodes.insert(number, seen);
            }
            Ok(Answered::Nodes(reply.meta.index, nodes))
        }
        Asked::Transfer { to } => {
            let reply = LeadershipTransferResponse::from_bytes(body).map_err(wrong)?;
            let right = reply.to.id == server_id(*to);
            if right { Ok(Answered::Fine) } else { Err(format!("{asked:?} was answered with {:?}", reply.to)) }
        }
        Asked::Remove { .. } => Ok(Answered::Fine),
        Asked::Var(asked) => variables::answer(asked, body).map(Answered::Var),
        Asked::Stamped(stamped) => variables::answer(&stamped.write, body).map(Answered::Var),
        Asked::Session(asked) => sessions::answer(asked, body),
        Asked::CallNode { node, nonce } => {
            let (id, answered) = read_call_body(body).map_err(wrong)?;
            let right = fleet.get(*node).is_some_and(|node| node.id == id) && answered == *nonce;
            if right { Ok(Answered::Fine) } else { Err(format!("{asked:?} was answered by {id} with {answered}")) }
        }
        Asked::Expire { .. } | Asked::DrainComplete { .. } => Err("nobody asks this".to_owned()),
    }
}

fn seen(node: &[u8]) -> Result<Seen> {
    let mut d = Decoder::new(node);
    let mut seen =
        Seen { status: NodeStatus::Initializing, eligible: false, draining: false, create_index: 0, modify_index: 0 };
    for _ in 0..d.map()?.unwrap_or(0) {
        match d.bytes()? {
            b"Status" => {
                let word = d.str()?;
                seen.status = NodeStatus::from_word(word).ok_or_else(|| d.error("a status"))?;
            }
            b"SchedulingEligibility" => seen.eligible = d.str()? == "eligible",
            b"DrainStrategy" => {
                seen.draining = !d.clone().nil()?;
                d.skip()?;
            }
            b"CreateIndex" => seen.create_index = d.u64()?,
            b"ModifyIndex" => seen.modify_index = d.u64()?,
            _ => d.skip()?,
        }
    }
    Ok(seen)
}
