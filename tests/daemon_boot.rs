//! Two agents, a new one and an old one, as they were recorded when they joined a server: what they said is said to the
//! daemon, whole and in single bytes, and it must make them ready and keep them so (client-boot notes; R1.30, R1.55 to
//! R1.60, R8.21).

#![allow(clippy::print_stderr, unreachable_pub)]
#![allow(clippy::unwrap_used)]

mod rig;

use std::cell::RefCell;
use std::net::Ipv4Addr;

use rig::heard::{Heard, Item};
use rig::recorded::{Cut, Recorded, Replay};
use rig::talk::call_once;
use rig::{Daemon, Peer, Talk, Value, eventually, json, msgpack};

/// A node that is silent for two to three seconds is down.
const IMPATIENT: &str = "[heartbeat]\nmin_ttl = \"1s\"\ngrace = \"1s\"";

/// What the node's agent registered.
fn registered(session: &Recorded) -> Value {
    let streams = [1, 3].into_iter().flat_map(|stream| session.messages(stream));
    streams.map(|message| message["Node"].clone()).find(|node| node.is_object()).unwrap()
}

fn get_node(daemon: &Daemon, id: &Value) -> Value {
    call_once(daemon.rpc, "Node.GetNode", &json!({ "Region": "global", "NodeID": id })).ok()["Node"].clone()
}

/// The answers to heartbeats, in order.
fn heartbeats(heard: &Heard) -> Vec<Value> {
    let values = heard.values(3);
    let pairs = values.chunks(2).filter(|pair| pair[0]["ServiceMethod"] == "Node.UpdateStatus");
    pairs.map(|pair| pair[1].clone()).collect()
}

/// A second client that calls the node back through the daemon, when the recording does.
#[derive(Default)]
struct Caller {
    talk: Option<Talk>,
    monitor: u32,
}

impl Caller {
    fn step(&mut self, daemon: &Daemon, session: &Recorded, turn: usize) {
        match (turn, &mut self.talk) {
            (27, None) => {
                let mut talk = Talk::dial(daemon.rpc, 6);
                let stream = talk.open();
                talk.request(stream, "NodeMeta.Read", &session.messages(2)[1]);
                self.talk = Some(talk);
            }
            (31..=33, Some(talk)) if self.monitor == 0 => {
                assert_eq!(talk.reply(1).ok(), session.messages(2)[3]);
                self.monitor = talk.open_kind(5);
                talk.say(self.monitor, &msgpack::pack(&json!({ "Method": "Agent.Monitor" })));
                talk.say(self.monitor, &msgpack::pack(&session.messages(4)[2]));
            }
            (38, Some(talk)) if self.monitor != 0 => {
                // The ack of the daemon, then the agent's messages byte for byte.
                let wanted = &session.messages(4);
                let got: Vec<Value> = (0..3).map(|_| talk.value(self.monitor)).collect();
                assert_eq!(got, [json!({ "Error": "" }), wanted[3].clone(), wanted[4].clone()]);
                talk.fin(self.monitor);
                self.monitor = 0;
            }
            _ => {}
        }
    }
}

fn boot(name: &str, cut: Cut) {
    let mut daemon = Daemon::start(IMPATIENT);
    let session = Recorded::load(name);
    let node = registered(&session);
    let (id, secret) = (node["ID"].clone(), node["SecretID"].clone());
    let caller = RefCell::new(Caller::default());
    let heard =
        Replay { meanwhile: &|turn| caller.borrow_mut().step(&daemon, &session, turn), ..Replay::new(&session, cut) }
            .play(daemon.rpc);

    // It became ready, was told when to come again, and its plain heartbeats wrote nothing (R1.84's index is not theirs).
    let answers = heartbeats(&heard);
    assert!(answers.len() >= 6, "{answers:?}");
    assert!(answers.iter().all(|answer| answer["HeartbeatTTL"].as_i64().unwrap() > 0), "{answers:?}");
    assert!(answers[0]["Index"].as_u64().unwrap() > 0);
    let indexes: Vec<u64> = answers[2..].iter().map(|answer| answer["Index"].as_u64().unwrap()).collect();
    assert_eq!(indexes, vec![0; indexes.len()], "{name}");
    // The query for its allocations stayed: nothing on stream 1 but what came before it.
    assert!(!heard.items(1).contains(&Item::Rst));
    assert_eq!(get_node(&daemon, &id)["Status"], "ready");

    // It says no more.
    let down = eventually("down", || Some(get_node(&daemon, &id)).filter(|node| node["Status"] == "down"));
    let missed = |node: &Value| {
        let events = node["Events"].as_array().unwrap().clone();
        events.iter().filter(|event| event["Message"] == "Node heartbeat missed").count()
    };
    assert_eq!(missed(&down), 1, "{down}");
    daemon.log.until("node TTL expired");
    assert!(daemon.metric("holdfast.heartbeat.invalidate") >= 1.0);

    // Another process knows all of it, and the node comes back by a heartbeat.
    daemon = daemon.killed_and_again();
    let kept = get_node(&daemon, &id);
    for key in ["ID", "Status", "Name", "Attributes", "Datacenter", "Events", "CreateIndex", "ModifyIndex", "Meta"] {
        assert_eq!(kept[key], down[key], "{key}");
    }
    let body = json!({ "Region": "global", "NodeID": id, "Status": "ready", "AuthToken": secret });
    let answer = call_once(daemon.rpc, "Node.UpdateStatus", &body).ok();
    assert!(answer["HeartbeatTTL"].as_i64().unwrap() > 0 && answer["Index"].as_u64().unwrap() > 0, "{answer}");
    assert_eq!(get_node(&daemon, &id)["Status"], "ready");
}

#[test]
fn the_new_agent_whole() {
    boot("client_boot_v205", Cut::Whole);
}

// R1.30
#[test]
fn the_new_agent_in_single_bytes() {
    boot("client_boot_v205", Cut::Bytes);
}

#[test]
fn the_old_agent_whole() {
    boot("client_boot_v112", Cut::Whole);
}

// R1.30
#[test]
fn the_old_agent_in_single_bytes() {
    boot("client_boot_v112", Cut::Bytes);
}

// R8.21
#[test]
fn a_cloned_machine_is_told_who_holds_its_id() {
    let daemon = Daemon::start("");
    let id = "a1b2c3d4-0001-0002-0003-00000000abcd";
    let register = |talk: &mut Talk, secret: &str, http: &str| {
        let node = json!({
            "ID": id, "SecretID": secret, "Datacenter": "dc1", "Name": "original", "Status": "initializing",
            "HTTPAddr": http, "Attributes": { "nomad.version": "2.0.5" },
        });
        talk.call(0, "Node.Register", &json!({ "Region": "global", "Node": node }))
    };
    let mut original = Talk::dial(daemon.rpc, 1);
    register(&mut original, "11111111-0001-0002-0003-00000000abcd", "10.0.0.1:4646").ok();
    let clone = Ipv4Addr::new(127, 0, 0, 2).into();
    let mut clone = Talk::over(Peer::dial_from(clone, daemon.rpc).unwrap(), 1);
    let conflicts = || {
        let events = get_node(&daemon, &json!(id))["Events"].as_array().unwrap().clone();
        events.into_iter().filter(|event| event["Details"]["http_addr"] == "10.0.0.2:4646").collect::<Vec<_>>()
    };
    // It tries again and again, as agents do: seconds apart, so that the event is there by then.
    for _ in 0..3 {
        let text = register(&mut clone, "22222222-0001-0002-0003-00000000abcd", "10.0.0.2:4646").err();
        assert!(text.starts_with("node secret ID does not match. Not registering node."), "{text}");
        for part in [id, "\"original\"", "10.0.0.1:4646", "since ", "\"client-id\"", "\"secret-id\""] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        eventually("event", || (!conflicts().is_empty()).then_some(()));
    }
    let found = conflicts();
    assert_eq!(found.len(), 1, "one for each address: {found:?}");
    assert_eq!(found[0]["Details"]["from"], "127.0.0.2");
    assert_eq!(found[0]["Details"]["holder_http_addr"], "10.0.0.1:4646");
    // The holder goes on.
    register(&mut original, "11111111-0001-0002-0003-00000000abcd", "10.0.0.1:4646").ok();
}
