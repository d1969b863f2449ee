//! A node as peers read it, against what real servers and agents were seen to send.

use serde_json::Value;

use super::*;
use crate::wire::body::node::{LastDrain, go_time};
use crate::wire::json::to_json;
use crate::wire::msgpack::Decoder;

const REGISTER: &str = include_str!("../../../tests/vectors/node_register.json");
const STREAM: &str = include_str!("../../../tests/vectors/streaming_event_stream.json");
const BOOT_OF_112: &str = include_str!("../../../tests/vectors/client_boot_v112.json");
const BOOT_OF_205: &str = include_str!("../../../tests/vectors/client_boot_v205.json");

/// All bytes of a vector in one direction.
fn recorded(vector: &str, dir: &str) -> Vec<u8> {
    let vector: Value = serde_json::from_str(vector).unwrap();
    let turns = vector["turns"].as_array().unwrap().iter().filter(|turn| turn["dir"] == dir);
    let digits: String = turns.filter_map(|turn| turn["hex"].as_str()).collect();
    (0..digits.len() / 2).map(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).unwrap()).collect()
}

/// The first value of a field `Node` that is a large map.
fn first_node(bytes: &[u8]) -> Vec<u8> {
    let key = b"\xa4Node\xde";
    let at = bytes.windows(key.len()).position(|window| window == key).unwrap();
    Decoder::new(&bytes[at + 5..]).raw().unwrap().to_vec()
}

fn pairs(map: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut d = Decoder::new(map);
    let len = d.map().unwrap().unwrap();
    (0..len).map(|_| (d.str().unwrap().to_owned(), d.raw().unwrap().to_vec())).collect()
}

fn encoded(node: &Node) -> Vec<u8> {
    let mut e = Encoder::new();
    node.encode(&mut e);
    let mut d = Decoder::new(&e.out);
    d.skip().unwrap();
    assert!(d.at_end(), "the head says as many fields as there are");
    e.out
}

/// A state at index 8 that registers a node at 9, in the second in which the recorded server did.
fn registered(node: Vec<u8>) -> (State, Applied) {
    let mut state = State::new();
    state.index = Index(8);
    let command = Command::NodeRegister { node: Raw(node.into()) };
    let entry = Entry { time_unix_nanos: 1_795_262_155_123_456_789, session: None, command };
    let applied = state.apply(Index(9), Term(1), &entry);
    assert_eq!(applied.result, ApplyResult::Done);
    (state, applied)
}

#[test]
fn a_node_is_answered_as_a_real_server_answers() {
    let (mut state, _) = registered(first_node(&recorded(REGISTER, "c2s")));
    let time_unix_nanos = state.time_unix_nanos();
    let entry = Entry { time_unix_nanos, session: None, command: heartbeat(&nodes(&state)[0].id, "ready") };
    state.apply(Index(10), Term(1), &entry);
    let ours = pairs(&encoded(&nodes(&state)[0]));
    let theirs = pairs(&first_node(&recorded(REGISTER, "s2c")));
    let keys = |pairs: &[(String, Vec<u8>)]| pairs.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>();
    assert_eq!(keys(&ours), keys(&theirs), "the same fields in the same order");
    for ((key, ours), (_, theirs)) in ours.iter().zip(&theirs) {
        // Opaque, filled in by the peer from what it knows of hardware, and a time in another zone.
        if !["ComputedClass", "NodeResources", "Events"].contains(&&**key) {
            assert_eq!(ours, theirs, "{key}");
        }
        if key == "Events" {
            let json = |value: &[u8]| {
                let mut text = String::new();
                to_json(value, &mut text).unwrap();
                text.replace("+00:00", "Z")
            };
            assert_eq!(json(ours), json(theirs));
        }
    }
}

#[test]
fn an_event_tells_what_a_real_server_tells() {
    let recorded = recorded(STREAM, "s2c");
    let text = String::from_utf8_lossy(&recorded);
    let begin = text.find("{\"Node\":{").unwrap();
    let mut values = serde_json::Deserializer::from_str(&text[begin..]).into_iter::<Value>();
    let mut theirs = values.next().unwrap().unwrap();

    let (_, applied) = registered(first_node(&self::recorded(REGISTER, "c2s")));
    assert_eq!(kinds(&applied), ["NodeRegistration"]);
    let ours_text = &*applied.events[0].payload.json();
    let mut ours: Value = serde_json::from_str(ours_text).unwrap();
    for opaque in ["ComputedClass", "NodeResources"] {
        theirs["Node"][opaque] = Value::Null;
        ours["Node"][opaque] = Value::Null;
    }
    assert_eq!(ours, theirs);
    let places: Vec<_> = ["Attributes", "Drain", "DrainStrategy", "ID", "SecretID", "TLSEnabled"]
        .map(|key| ours_text.find(&format!("\"{key}\":")).unwrap())
        .into();
    assert!(places.is_sorted(), "fields in the order of their names");
    assert!(!ours_text.contains("5ec7e700"), "no secret");
}

#[test]
fn nothing_that_an_agent_sends_is_lost() {
    for boot in [BOOT_OF_112, BOOT_OF_205] {
        let sent = first_node(&recorded(boot, "c2s"));
        let (state, _) = registered(sent.clone());
        let node = &nodes(&state)[0];
        let answered: BTreeMap<_, _> = pairs(&encoded(node)).into_iter().collect();
        let mut kept = 0;
        for (key, value) in pairs(&sent) {
            let now = answered.get(&key).unwrap_or_else(|| panic!("{key} is lost"));
            if let Some(field) = node.field(&key) {
                assert_eq!((field, now), (&value[..], &value), "{key}");
                kept += 1;
            }
        }
        assert_eq!(kept, node.rest_len);
        assert_eq!(answered["SecretID"], b"\xa0");
        assert!(node.field("SecretID").is_none() && node.field("ID").is_none() && node.field("nope").is_none());
        assert!(!node.version.is_empty());
    }
}

#[test]
fn fields_that_are_not_known_come_last_by_name() {
    let said = sent("a").with("Zeta", 1u64).with("Alpha", 2u64).with("Meta", texts(&[])).with("CgroupParent", 3u64);
    let said = said.with("Alpha", 4u64).with("TLSEnabled", true);
    let world = World::of([said.command()]);
    let node = world.node("a");
    assert_eq!((node.rest_len, node.field("Alpha")), (6, Some(&[4][..])), "the last of two counts");
    let keys: Vec<String> = pairs(&encoded(node)).into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys[..7], ["ID", "SecretID", "Datacenter", "Name", "CgroupParent", "HTTPAddr", "TLSEnabled"]);
    assert_eq!(keys[keys.len() - 3..], ["ModifyIndex", "Alpha", "Zeta"]);
}

#[test]
fn an_old_agents_drain_field_follows_the_strategy() {
    let mut world = World::of([sent("a").with("Drain", false).command(), sent("b").command()]);
    for (id, in_map) in [("a", true), ("b", false)] {
        for strategy in [Some(DrainStrategy::default()), None] {
            let drained = strategy.is_some();
            let applied = world.apply(drain(id, strategy, false));
            let map: BTreeMap<_, _> = pairs(&encoded(world.node(id))).into_iter().collect();
            assert_eq!(map.get("Drain").map(|value| value[0] == 0xc3), in_map.then_some(drained));
            let payload: Value = serde_json::from_str(&applied.events[0].payload.json()).unwrap();
            assert_eq!(payload["Node"]["Drain"], drained);
        }
    }
}

#[test]
fn times_are_told_as_text() {
    let mut world = World::of([sent("a").command()]);
    let strategy = DrainStrategy { deadline: 1_000_000_000, ..DrainStrategy::default() };
    let applied = world.apply(drain("a", Some(strategy), false));
    let payload: Value = serde_json::from_str(&applied.events[0].payload.json()).unwrap();
    let node = &payload["Node"];
    assert_eq!(node["DrainStrategy"]["StartedAt"], "2026-11-21T11:55:57.5Z");
    assert_eq!(node["DrainStrategy"]["ForceDeadline"], "2026-11-21T11:55:58.5Z");
    assert_eq!(node["LastDrain"]["UpdatedAt"], "2026-11-21T11:55:57.5Z");
    assert_eq!(node["LastDrain"]["Meta"]["why"], "rust");
    assert_eq!(node["Events"][0]["Timestamp"], "2026-11-21T11:55:56Z");
    assert_eq!(node["Events"][1]["Timestamp"], "2026-11-21T11:55:57.5Z");
    let last: Option<LastDrain> = world.node("a").last_drain.clone();
    assert_eq!(last.unwrap().started_at, go_time(time_at(2)));
}
