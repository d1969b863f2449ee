//! Nodes on several servers: a call for a node reaches it over whichever server has its session, and a change of leader
//! marks nobody down (R1.57 to R1.62, the failover TTL).

#![allow(clippy::unwrap_used, clippy::print_stderr, unreachable_pub)]

mod cluster_rig;
mod rig;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use cluster_rig::{Caller, Cluster, Shape};
use rig::heard::{ACK, Item, WINDOW, frame};
use rig::{Talk, Value, eventually, json, msgpack, quiet_for};

const SECRET: &str = "5ec7e700-0001-0002-0003-00000000abcd";

fn id(number: u64) -> String {
    format!("aaaaaaaa-0001-0002-0003-{number:012x}")
}

fn registration(id: &str) -> Value {
    let node = json!({
        "ID": id, "SecretID": SECRET, "Datacenter": "dc1", "Name": id, "Status": "initializing",
        "Attributes": { "nomad.version": "2.0.5" },
    });
    json!({ "Region": "global", "Node": node })
}

fn beat(id: &str) -> Value {
    json!({ "Region": "global", "NodeID": id, "Status": "ready", "AuthToken": SECRET })
}

/// A node's session.
fn session(rpc: SocketAddr, id: &str) -> Talk {
    let mut talk = Talk::dial(rpc, 6);
    let stream = talk.open();
    talk.call(stream, "Node.Register", &registration(id)).ok();
    talk
}

/// Answers the next call on a stream that the server opened.
fn answer(node: &mut Talk, stream: u32, text: &str) {
    assert_eq!(node.item(stream), Item::Kind(1));
    let (head, _) = (node.value(stream), node.value(stream));
    assert_eq!(head["ServiceMethod"], "NodeMeta.Read");
    node.peer.write(&frame(WINDOW, ACK, stream, 0));
    let mut bytes = msgpack::pack(&json!({ "Error": "", "Seq": head["Seq"], "ServiceMethod": "NodeMeta.Read" }));
    bytes.extend(msgpack::pack(&json!({ "Meta": { "from": text } })));
    node.say(stream, &bytes);
    assert_eq!(node.item(stream), Item::Fin);
    node.fin(stream);
}

// R1.57, R1.61
#[test]
fn a_call_for_a_node_reaches_it_over_the_server_that_has_it() {
    let cluster = Cluster::three();
    let leader = cluster.until_leader();
    let (node_id, read) = (id(1), json!({ "Region": "global", "NodeID": id(1) }));
    for (turn, home) in (0..3).enumerate() {
        let mut node = session(cluster.daemon(home).rpc, &node_id);
        for (number, from) in (0..3).enumerate() {
            let mut caller = Talk::dial(cluster.daemon(from).rpc, 6);
            let stream = caller.open();
            let text = format!("{turn} {number}");
            caller.request(stream, "NodeMeta.Read", &read);
            answer(&mut node, 2 + 2 * u32::try_from(number).unwrap(), &text);
            assert_eq!(
                caller.reply(stream).ok()["Meta"]["from"],
                *text,
                "at {home}, called by {from}, led by {leader}"
            );
        }
        // Gone from there, it is nowhere.
        drop(node);
        cluster.daemon(home).until_metric("holdfast.node_conns", 0.0);
        for from in 0..3 {
            let error = rig::talk::call_once(cluster.daemon(from).rpc, "NodeMeta.Read", &read).err();
            assert!(error.ends_with("No path to node"), "{error}");
        }
    }
}

// R1.57: the latest of all connections, wherever it is.
#[test]
fn the_latest_session_is_the_one_that_is_called() {
    let cluster = Cluster::three();
    let read = json!({ "Region": "global", "NodeID": id(2) });
    let _older = session(cluster.daemon(0).rpc, &id(2));
    quiet_for(Duration::from_millis(50));
    let mut newer = session(cluster.daemon(1).rpc, &id(2));
    let mut caller = Talk::dial(cluster.daemon(2).rpc, 6);
    let stream = caller.open();
    caller.request(stream, "NodeMeta.Read", &read);
    answer(&mut newer, 2, "newer");
    assert_eq!(caller.reply(stream).ok()["Meta"]["from"], "newer");
}

/// One node's agent: beats as often as it is told to; errors are tried again, as agents do.
fn agent(rpc: SocketAddr, number: u64, ends: &AtomicBool, beats: &AtomicU64) {
    let mut talk = session(rpc, &id(number));
    let stream = talk.open();
    while !ends.load(Ordering::Relaxed) {
        let reply = talk.call(stream, "Node.UpdateStatus", &beat(&id(number)));
        let mut wait = Duration::from_millis(200);
        if reply.error.is_empty() {
            beats.fetch_add(1, Ordering::Relaxed);
            wait = Duration::from_nanos(reply.body["HeartbeatTTL"].as_u64().unwrap_or(0)).max(wait);
        }
        // In pieces, so that the end is seen.
        for _ in 0..wait.as_millis() / 50 {
            if ends.load(Ordering::Relaxed) {
                break;
            }
            quiet_for(Duration::from_millis(50));
        }
    }
}

fn down(cluster: &Cluster, at: usize) -> Vec<String> {
    let Ok(answer) = Caller::default().get(cluster.http(at), "/v1/nodes?stale") else { return Vec::new() };
    let nodes = answer.json().as_array().cloned().unwrap_or_default();
    let is_down = |node: &&Value| matches!(node["Status"].as_str(), Some("down" | "disconnected"));
    nodes.iter().filter(is_down).map(|node| node["ID"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_change_of_leader_marks_no_node_down() {
    let heartbeat = "[heartbeat]\nmin_ttl = \"1s\"\ngrace = \"2s\"\nfailover_ttl = \"5s\"\nmax_per_second = 1000.0\n";
    let mut cluster = Cluster::start(Shape::of(3).tables(heartbeat));
    let leader = cluster.until_leader();
    let followers = cluster.running_but(leader);
    let (ends, beats) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let agents: Vec<_> = (0..50)
        .map(|number| {
            let rpc = cluster.daemon(followers[usize::try_from(number).unwrap() % 2]).rpc;
            let (ends, beats) = (ends.clone(), beats.clone());
            thread::spawn(move || agent(rpc, number, &ends, &beats))
        })
        .collect();
    let until_more = |count: u64| {
        let before = beats.load(Ordering::Relaxed);
        eventually("heartbeats", || (beats.load(Ordering::Relaxed) >= before + count).then_some(()));
    };
    until_more(100);
    cluster.kill(leader);
    let mut seen = Vec::new();
    // As long as a timer that was not carried over could take to fire.
    for _ in 0..80 {
        followers.iter().for_each(|at| seen.extend(down(&cluster, *at)));
        quiet_for(Duration::from_millis(100));
    }
    until_more(100);
    ends.store(true, Ordering::Relaxed);
    agents.into_iter().for_each(|agent| agent.join().unwrap());
    assert!(seen.is_empty(), "marked down: {seen:?}");
    let listed = Caller::default().get(cluster.http(followers[0]), "/v1/nodes").unwrap().json();
    let ready = |node: &&Value| node["Status"] == "ready";
    assert_eq!(listed.as_array().unwrap().iter().filter(ready).count(), 50);
    eprintln!("{} heartbeats, none late", beats.load(Ordering::Relaxed));
}
