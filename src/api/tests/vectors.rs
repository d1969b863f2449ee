//! Conversations recorded from real servers, asked again here: the same keys in the same order, and the same values
//! where they do not depend on the server.

use serde_json::Value;

use super::super::outcome::StreamOutcome;
use super::*;
use crate::wire::msgpack::{Decoder, Kind};

/// Values that are the server's own, or a clock's.
const OWN: &[&str] = &[
    "HeartbeatTTL",
    "NodeModifyIndex",
    "Index",
    "CreateIndex",
    "ModifyIndex",
    "StatusUpdatedAt",
    "ComputedClass",
    "Timestamp",
    "SignedIdentity",
    "RPCMajorVersion",
    "RPCMinorVersion",
    // Shown as they came; Nomad rewrites older forms into newer ones.
    "NodeResources",
    "Port",
];

/// Maps of Go, whose keys come in any order.
const MAPS: &[&str] = &["Tags", "Attributes", "Meta", "Drivers", "Links"];

/// A recorded call and its answer, if there was one.
pub(super) struct Exchange {
    pub(super) method: String,
    pub(super) body: Vec<u8>,
    pub(super) answer: Option<(String, Vec<u8>)>,
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn hex(message: &Value) -> Vec<u8> {
    unhex(message["hex"].as_str().unwrap())
}

/// The calls of a client in the order of their numbers.
pub(super) fn exchanges(vector: &str) -> Vec<Exchange> {
    let vector: Value = serde_json::from_str(vector).unwrap();
    let mut found: Vec<(u64, Exchange)> = Vec::new();
    for stream in vector["streams"].as_array().unwrap() {
        if stream["stream"].as_u64().unwrap() % 2 == 0 {
            continue;
        }
        let messages = stream["messages"].as_array().unwrap();
        for pair in messages.chunks(2) {
            let [head, body] = pair else { panic!("half a message") };
            let seq = head["decoded"]["Seq"].as_u64().unwrap();
            if head["kind"] == "request-header" {
                let method = head["decoded"]["ServiceMethod"].as_str().unwrap().to_owned();
                found.push((seq, Exchange { method, body: hex(body), answer: None }));
            } else {
                let error = head["decoded"]["Error"].as_str().unwrap().to_owned();
                let (_, exchange) = found.iter_mut().find(|(other, _)| *other == seq).unwrap();
                exchange.answer = Some((error, hex(body)));
            }
        }
    }
    found.sort_by_key(|(seq, _)| *seq);
    found.into_iter().map(|(_, exchange)| exchange).collect()
}

fn pairs<'a>(d: &mut Decoder<'a>) -> Vec<(&'a str, &'a [u8])> {
    let len = d.map().unwrap().unwrap_or(0);
    (0..len).map(|_| (d.str().unwrap(), d.raw().unwrap())).collect()
}

/// Compares two values. `exact`: the peer writes what we write, in the same order; else it is of the 1.1 line, which
/// knows fewer fields, by name.
fn same(path: &str, ours: &[u8], theirs: &[u8], exact: bool) {
    let name = path.rsplit('/').next().unwrap();
    if OWN.contains(&name) || (!exact && matches!(name, "bootstrap" | "Links")) {
        return;
    }
    let (mut a, mut b) = (Decoder::new(ours), Decoder::new(theirs));
    match (a.kind().unwrap(), b.kind().unwrap()) {
        (Kind::Map, Kind::Map) => {
            let (mut a, mut b) = (pairs(&mut a), pairs(&mut b));
            if MAPS.contains(&name) || !exact {
                a.sort();
                b.sort();
                // Made by 1.1 servers from newer fields.
                b.retain(|(key, _)| !matches!(*key, "Resources" | "Reserved"));
                a.retain(|(key, _)| *key != "holdfast" && (exact || b.iter().any(|(other, _)| other == key)));
            }
            let keys = |pairs: &[(&str, &[u8])]| pairs.iter().map(|(key, _)| (*key).to_owned()).collect::<Vec<_>>();
            assert_eq!(keys(&a), keys(&b), "{path}");
            for ((key, ours), (_, theirs)) in a.iter().zip(&b) {
                same(&format!("{path}/{key}"), ours, theirs, exact);
            }
        }
        (Kind::Array, Kind::Array) => {
            let (len, other) = (a.array().unwrap(), b.array().unwrap());
            assert_eq!(len, other, "{path}");
            for nth in 0..len.unwrap_or(0) {
                same(&format!("{path}[{nth}]"), a.raw().unwrap(), b.raw().unwrap(), exact);
            }
        }
        _ => assert_eq!(ours, theirs, "{path}"),
    }
}

/// Runs a conversation; a query that parks is asked for the last time at once.
fn replay(world: &mut World, vector: &str, exact: bool, differs: impl Fn(&str, &str) -> Option<&'static str>) {
    let mut answered = 0;
    for exchange in exchanges(vector) {
        if method(&exchange.method).is_err() || exchange.method == "Status.Version" {
            let error = method(&exchange.method).unwrap_err().0;
            assert_eq!(exchange.answer.unwrap().0, error);
            answered += 1;
            continue;
        }
        let mut came = world.call_bytes(&exchange.method, &exchange.body);
        let Some((error, theirs)) = exchange.answer else {
            let open =
                matches!(came, Came::Park(_)) || exchange.method == "Status.Ping" || exchange.method == "Status.Leader";
            assert!(open, "{} was never answered: {came:?}", exchange.method);
            continue;
        };
        answered += 1;
        if let Came::Park(_) = came {
            world.last_run = true;
            came = world.call_bytes(&exchange.method, &exchange.body);
            world.last_run = false;
        }
        let expected = differs(&exchange.method, &error).unwrap_or(&error);
        match &came {
            Came::Body(ours) => {
                assert_eq!(expected, "", "{}", exchange.method);
                if error == expected {
                    same(&exchange.method, ours, &theirs, exact);
                }
            }
            Came::Error(text) => assert_eq!(text, expected, "{}", exchange.method),
            Came::BadArguments(text) => panic!("{}: {text}", exchange.method),
            // Without a connection to the node, the server answers with this text.
            Came::ToNode(call) => assert_eq!(call.no_path, expected),
            Came::Park(_) | Came::Other(_) => panic!("parked in its last run"),
        }
    }
    assert!(answered > 0);
}

fn nothing(_: &str, _: &str) -> Option<&'static str> {
    None
}

macro_rules! vector {
    ($name:literal) => {
        include_str!(concat!("../../../tests/vectors/", $name, ".json"))
    };
}

#[test]
fn status_and_regions_answer_as_recorded() {
    for (vector, exact) in [
        (vector!("status_ping"), true),
        (vector!("status_leader"), true),
        (vector!("status_peers"), true),
        (vector!("status_members"), true),
        (vector!("status_version_unknown"), true),
        (vector!("region_list"), true),
        (vector!("args_nil_body"), true),
        (vector!("args_unknown_fields"), true),
        (vector!("error_missing_region"), true),
        (vector!("unknown_service"), true),
        (vector!("illformed_method"), true),
        (vector!("status_ping__v112"), false),
        (vector!("region_list__v112"), false),
    ] {
        replay(&mut World::new(), vector, exact, nothing);
    }
    let mut world = World::new();
    world.ctx.leader_rpc_addr = "127.0.0.1:25647".into();
    replay(&mut world, vector!("status_leader__v112"), false, nothing);
}

#[test]
fn a_node_registers_as_recorded() {
    replay(&mut World::new(), vector!("node_register"), true, nothing);
    replay(&mut World::new(), vector!("node_register__name_order"), false, nothing);
    let mut world = World::new();
    world.ctx.leader_rpc_addr = "127.0.0.1:25647".into();
    world.ctx.servers =
        Arc::from([ServerEntry { rpc_addr: "127.0.0.1:25647".to_owned(), ..world.ctx.servers[0].clone() }]);
    // 1.1 looks at the argument secret alone; here a right token counts too, as in 2.x.
    let lenient = |_: &str, error: &str| (error == "node secret ID does not match").then_some("");
    replay(&mut world, vector!("node_register__v112"), false, lenient);
}

/// The whole text, with its position counted from the beginning of the stream.
#[test]
fn an_unreadable_body_is_refused_as_recorded() {
    let calls = exchanges(vector!("error_bad_body"));
    let bad = &calls[0];
    let mut head = Encoder::new();
    crate::wire::rpc::encode_request_head(&mut head, 29, &bad.method);
    let world = World::new();
    let method = method(&bad.method).unwrap();
    let base = head.out.len() as u64;
    let outcome = run_call(method, &bad.body, base, &world.caller, false, &world.state, &world.ctx);
    let Outcome::Reply(reply) = outcome else { panic!("{outcome:?}") };
    assert_eq!(reply.result, ReplyResult::BadArguments(bad.answer.as_ref().unwrap().0.clone()));
}

#[test]
fn errors_are_as_recorded() {
    // Both lines are told `node not found`, so that both register again.
    let recover = |method: &str, _: &str| (method == "Node.UpdateStatus").then_some("node not found");
    replay(&mut World::new(), vector!("error_from_method"), true, recover);
    replay(&mut World::new(), vector!("error_from_method__v112"), false, nothing);
    let mut world = World::new();
    world.call("Node.Register", &[("Node", node_map("a1b2c3d4-0001-0002-0003-00000000abce", SECRET, "1.1.2"))]);
    replay(&mut world, vector!("error_no_path_to_node"), true, nothing);
}

#[test]
fn lists_are_as_recorded() {
    let mut world = World::new();
    for exchange in exchanges(vector!("node_register")).into_iter().take(2) {
        world.call_bytes(&exchange.method, &exchange.body);
    }
    replay(&mut world, vector!("blocking_node_list"), true, nothing);
}

/// A 2.x agent joins, heartbeats, and registers again; its identity is of another server's key, so the connection
/// speaks for it.
#[test]
fn an_agent_of_2_0_boots() {
    let at = |world: &mut World| {
        world.ctx.leader_rpc_addr = "127.0.0.1:24747".into();
        world.ctx.servers =
            Arc::from([ServerEntry { rpc_addr: "127.0.0.1:24747".to_owned(), ..world.ctx.servers[0].clone() }]);
    };
    let mut world = World::new();
    at(&mut world);
    replay(&mut world, vector!("client_boot_v205"), true, nothing);
    assert_eq!(world.written.len(), 3, "two registrations and one change of status");
    let node = world.state.nodes_from("").next().unwrap();
    assert_eq!(node.status.as_str(), "ready");
    assert!(matches!(world.effects.last(), Some(Effect::ResetHeartbeat(_))));
}

/// A 1.1 agent asks for allocations before it registers, and never sends a token.
#[test]
fn an_agent_of_1_1_boots() {
    let mut world = World::new();
    world.ctx.leader_rpc_addr = "127.0.0.1:24747".into();
    world.ctx.servers =
        Arc::from([ServerEntry { rpc_addr: "127.0.0.1:24747".to_owned(), ..world.ctx.servers[0].clone() }]);
    replay(&mut world, vector!("client_boot_v112"), false, nothing);
    assert_eq!(world.written.len(), 3);
    assert_eq!(world.state.nodes_from("").next().unwrap().status.as_str(), "ready");

    // It comes back on another connection, and its heartbeat is the first thing there.
    world.caller = World::connection();
    let calls = exchanges(vector!("client_boot_v112"));
    let beat = calls.iter().rev().find(|call| call.method == "Node.UpdateStatus").unwrap();
    let register = calls.iter().find(|call| call.method == "Node.Register").unwrap();
    assert_eq!(world.call_bytes(&beat.method, &beat.body).error(), "node not found");
    assert!(matches!(world.call_bytes(&register.method, &register.body), Came::Body(_)));
    assert!(matches!(world.call_bytes(&beat.method, &beat.body), Came::Body(_)));
}

/// The argument of a streaming vector, and the last message of the server.
fn streamed(vector: &str) -> (Vec<u8>, Vec<u8>) {
    let vector: Value = serde_json::from_str(vector).unwrap();
    let messages = vector["messages"].as_array().unwrap();
    let find = |kind: &str| messages.iter().rev().find(|message| message["kind"] == kind).map(hex).unwrap();
    (find("streaming-argument"), find("streaming-message"))
}

#[test]
fn streams_are_refused_and_opened_as_recorded() {
    let world = World::new();
    for (method, vector) in [
        ("FileSystem.Logs", vector!("streaming_fs_logs_error")),
        ("Agent.Monitor", vector!("streaming_monitor_error")),
        ("Event.Stream", vector!("streaming_event_error")),
    ] {
        let (argument, message) = streamed(vector);
        assert_eq!(world.stream(method, &argument), StreamOutcome::Refuse(message), "{method}");
    }
    for vector in [vector!("streaming_monitor"), vector!("streaming_monitor_plain")] {
        let StreamOutcome::Monitor(options) = world.stream("Agent.Monitor", &streamed(vector).0) else { panic!() };
        assert_eq!(options.level, log::Level::Trace);
    }
    for (vector, index) in [(vector!("streaming_event_stream"), 1), (vector!("streaming_event_index0"), 0)] {
        let StreamOutcome::Events(filter) = world.stream("Event.Stream", &streamed(vector).0) else { panic!() };
        assert_eq!((filter.index, filter.topics[0].0.as_str()), (index, "Node"));
    }
}
